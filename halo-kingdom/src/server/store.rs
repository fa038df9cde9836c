//! Where the Kingdom keeps its state.
//!
//! A [`Store`] knows no rule of the lifecycle: the server loads a measurement, asks [`crate::lifecycle::decide`], and
//! commits the transition, which succeeds only if the measurement has not changed in between. Every implementation runs
//! [`conformance`](conformance::conformance).

pub mod conformance;
pub mod sqlite;

use std::fmt;

use halo_core::{
    clock::Timestamp,
    measurement::{MeasurementState, RequisitionState},
    resource::{
        CertificateName, CertificateParent, ComputationName, DataProviderName, DuchyId, EventGroupName, ExternalId,
        MeasurementConsumerName, MeasurementName, RequisitionName,
    },
};
use tokio::sync::watch;

use crate::{
    lifecycle::{Note, Transition},
    planner::Capabilities,
    record::Measurement,
};

/// What a store can say no to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Somebody else changed the measurement in between: load it again and decide again.
    #[error("{0} was changed by somebody else at the same moment")]
    Conflict(ComputationName),
    /// There is already something with this identity.
    #[error("{0} exists already")]
    AlreadyExists(String),
    /// What is written refers to something that is not there.
    #[error("{0} does not exist")]
    Missing(String),
    /// A timeline takes no more lines of this actor.
    #[error("the timeline of {computation} has as many lines of {actor} as it takes")]
    Full {
        /// The measurement.
        computation: ComputationName,
        /// Whose lines.
        actor: String,
    },
    /// A certificate that is relied on is revoked or on hold.
    #[error("{0} is revoked, on hold or unknown")]
    CertificateUnusable(CertificateName),
    /// What is stored does not follow the rules of its type.
    #[error("the stored {what} cannot be understood: {detail}")]
    Corrupt {
        /// Which column or row.
        what: &'static str,
        /// What is wrong with it.
        detail: String,
    },
    /// The database failed.
    #[error("the database failed: {0}")]
    Database(#[from] sqlx::Error),
    /// The schema could not be brought up to date.
    #[error("the database's schema cannot be brought up to date: {0}")]
    Migration(#[from] sqlx::migrate::MigrateError),
}

/// Result of a store.
pub type Result<T> = std::result::Result<T, StoreError>;

/// An organisation that the Kingdom knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Party {
    /// Resource name.
    pub name: CertificateParent,
    /// Name for people.
    pub display_name: String,
    /// DER of the root of its TLS and consent certificates.
    pub root_der: Vec<u8>,
    /// Subject key identifier of the root: the authority key identifier of its TLS client certificates.
    pub root_key_id: Vec<u8>,
    /// Its preferred consent certificate.
    pub certificate: CertificateName,
    /// Serialized `SignedMessage` of its `EncryptionPublicKey`; Duchies have none.
    pub public_key: Option<Vec<u8>>,
    /// SHA-256 of what the configuration last said of root, certificate and key, so that a later change through the API
    /// outlives a restart.
    pub configured: [u8; 32],
    /// What its software can do; only of publishers.
    pub capabilities: Capabilities,
    /// What the configuration last said of its capabilities, if it said anything.
    pub configured_capabilities: Option<Capabilities>,
}

/// Whether a certificate has been taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revocation {
    /// It has not.
    Good,
    /// For the time being.
    Hold,
    /// For good.
    Revoked,
}

/// A consent certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateRecord {
    /// Resource name.
    pub name: CertificateName,
    /// The X.509 certificate.
    pub der: Vec<u8>,
    /// Its subject key identifier, unique in the Kingdom.
    pub subject_key_id: Vec<u8>,
    /// Valid from, in seconds since 1970.
    pub not_before: i64,
    /// Valid until, in seconds since 1970, inclusive.
    pub not_after: i64,
    /// Whether it has been taken back.
    pub revocation: Revocation,
}

/// A measurement to be created.
#[derive(Clone, Debug)]
pub struct NewMeasurement {
    /// The measurement, with revision 0.
    pub measurement: Measurement,
    /// The consumer's id of the request, by which a repetition is recognised.
    pub request_id: Option<String>,
    /// First lines of the timeline.
    pub timeline: Vec<Note>,
}

/// A line of the timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimelineEntry {
    /// Kingdom clock, at commit.
    pub time: Timestamp,
    /// Who, and what happened.
    pub note: Note,
    /// Serialized `StageAttempt` of a Duchy's report.
    pub stage_attempt: Option<Vec<u8>>,
    /// The report is of an error that is being retried.
    pub transient: bool,
}

/// Position in a list that is ordered by update time, then id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// Update time of the last element that was listed.
    pub time: Timestamp,
    /// Its id.
    pub id: ExternalId,
}

/// A set of states, as bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct States(u32);

impl States {
    /// The measurements' states in `states`.
    #[must_use]
    pub fn of_measurements(states: &[MeasurementState]) -> Self {
        Self(states.iter().fold(0, |bits, state| bits | 1 << state.number()))
    }

    /// The requisitions' states in `states`.
    #[must_use]
    pub fn of_requisitions(states: &[RequisitionState]) -> Self {
        Self(states.iter().fold(0, |bits, state| bits | 1 << state.number()))
    }

    /// Bit `n` is set if the state with number `n` is in the set.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }
}

/// Which measurements to list.
#[derive(Clone, Debug)]
pub struct MeasurementQuery {
    /// Of this consumer.
    pub consumer: MeasurementConsumerName,
    /// In one of these states.
    pub states: States,
    /// Updated after this moment.
    pub updated_after: Option<Timestamp>,
    /// Updated before this moment.
    pub updated_before: Option<Timestamp>,
    /// Created after this moment.
    pub created_after: Option<Timestamp>,
    /// Created before this moment.
    pub created_before: Option<Timestamp>,
    /// Behind this position.
    pub after: Option<Cursor>,
    /// At most so many.
    pub limit: u32,
}

/// Which requisitions to list.
#[derive(Clone, Debug)]
pub struct RequisitionQuery {
    /// Of this publisher.
    pub data_provider: DataProviderName,
    /// In one of these states.
    pub states: States,
    /// Behind this position.
    pub after: Option<Cursor>,
    /// At most so many.
    pub limit: u32,
}

/// Whose measurements a reader of the change log wants to hear of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Audience {
    /// Those in which the Duchy takes part.
    Duchy(DuchyId),
    /// Those that have a requisition of the publisher.
    DataProvider(DataProviderName),
}

/// A measurement changed. The log keeps the latest change of each measurement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Position in the log of the measurement's latest change. Grows in commit order.
    pub sequence: u64,
    /// The measurement.
    pub computation: ComputationName,
}

/// An event group, which the Kingdom only keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventGroupRecord {
    /// Resource name.
    pub name: EventGroupName,
    /// The consumer it belongs to.
    pub consumer: MeasurementConsumerName,
    /// Serialized `EventGroup`.
    pub body: Vec<u8>,
}

/// The Kingdom's storage. Every method is atomic and durable when it returns.
#[async_trait::async_trait]
pub trait Store: fmt::Debug + Send + Sync {
    /// Adds a party, or replaces what is known of it except for its capabilities.
    async fn put_party(&self, party: &Party) -> Result<()>;
    /// Replaces a party's capabilities; `configured` if the configuration says so, and not the party itself.
    /// [`StoreError::Missing`] if there is no such party.
    async fn set_capabilities(
        &self,
        party: &CertificateParent,
        capabilities: Capabilities,
        configured: bool,
    ) -> Result<()>;
    /// One party.
    async fn party(&self, name: &CertificateParent) -> Result<Option<Party>>;
    /// All parties, by name.
    async fn parties(&self) -> Result<Vec<Party>>;

    /// Adds a certificate; [`StoreError::AlreadyExists`] if its name or subject key identifier is taken.
    async fn create_certificate(&self, certificate: &CertificateRecord) -> Result<()>;
    /// One certificate.
    async fn certificate(&self, name: &CertificateName) -> Result<Option<CertificateRecord>>;
    /// A party's certificates behind the position (not before, id), latest validity first.
    async fn certificates(
        &self,
        parent: &CertificateParent,
        after: Option<(i64, ExternalId)>,
        limit: u32,
    ) -> Result<Vec<CertificateRecord>>;
    /// Changes the revocation if it is `from`; whether it was.
    async fn set_revocation(&self, name: &CertificateName, from: Revocation, to: Revocation) -> Result<bool>;

    /// Adds all measurements or none. The certificates `needs` must be neither revoked nor on hold.
    async fn create_measurements(&self, new: &[NewMeasurement], needs: &[CertificateName]) -> Result<()>;
    /// One measurement, by public name.
    async fn measurement(&self, name: &MeasurementName) -> Result<Option<Measurement>>;
    /// One measurement, by the request that created it.
    async fn measurement_by_request(
        &self,
        consumer: &MeasurementConsumerName,
        request_id: &str,
    ) -> Result<Option<Measurement>>;
    /// One measurement, by the Duchies' name.
    async fn computation(&self, name: &ComputationName) -> Result<Option<Measurement>>;
    /// The measurement of a requisition.
    async fn measurement_of(&self, requisition: &RequisitionName) -> Result<Option<Measurement>>;
    /// A consumer's measurements, ordered by update time, then id.
    async fn list_measurements(&self, query: &MeasurementQuery) -> Result<Vec<Measurement>>;
    /// A publisher's requisitions with their measurements, ordered by the requisition's update time, then id.
    async fn list_requisitions(&self, query: &RequisitionQuery) -> Result<Vec<(RequisitionName, Measurement)>>;
    /// Stores a transition at the moment `now`; [`StoreError::Conflict`] if the measurement has another revision than
    /// `before`. The certificates `needs` must be neither revoked nor on hold.
    async fn commit(
        &self,
        before: &Measurement,
        transition: &Transition,
        now: Timestamp,
        needs: &[CertificateName],
    ) -> Result<()>;

    /// Adds a line to a timeline without changing the measurement; [`StoreError::Full`] if its actor has `most` lines
    /// there already.
    async fn append_timeline(&self, computation: &ComputationName, entry: &TimelineEntry, most: u32) -> Result<()>;
    /// A measurement's timeline behind the position, oldest first, at most `limit` lines, each with its position.
    async fn timeline(
        &self,
        computation: &ComputationName,
        after: u64,
        limit: u32,
    ) -> Result<Vec<(u64, TimelineEntry)>>;

    /// Measurements that changed after the position, each with its latest change, in commit order, at most `limit`.
    async fn changes(&self, audience: &Audience, after: u64, limit: u32) -> Result<Vec<Change>>;
    /// Position of the latest change; announces every later one.
    fn latest_change(&self) -> watch::Receiver<u64>;

    /// The earliest deadline of a measurement that has not ended.
    async fn next_deadline(&self) -> Result<Option<Timestamp>>;
    /// Measurements that have not ended and whose deadline is at or before `now`.
    async fn overdue(&self, now: Timestamp) -> Result<Vec<ComputationName>>;
    /// Measurements that have not ended and rely on the certificate.
    async fn pending_with(&self, certificate: &CertificateName) -> Result<Vec<ComputationName>>;

    /// Adds an event group; if the request id is known, answers with what was added then.
    async fn create_event_group(&self, group: &EventGroupRecord, request_id: Option<&str>) -> Result<EventGroupRecord>;
    /// One event group.
    async fn event_group(&self, name: &EventGroupName) -> Result<Option<EventGroupRecord>>;
    /// Event groups of a publisher, or of a consumer, or of both, behind `after`, ordered by publisher, then id.
    async fn event_groups(
        &self,
        data_provider: Option<&DataProviderName>,
        consumer: Option<&MeasurementConsumerName>,
        after: Option<&EventGroupName>,
        limit: u32,
    ) -> Result<Vec<EventGroupRecord>>;
}
