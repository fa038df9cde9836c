//! What a Duchy remembers between two moments of its life.
//!
//! [`Store`] is the contract, [`SqliteStore`] the embedded implementation, [`conformance`] the suite that every
//! implementation has to pass. Whatever moves a computation on is one transaction; nothing is sent to anybody before the
//! transaction that made it has been committed.

mod conformance;
mod sqlite;

use std::collections::BTreeSet;
use std::fmt;

use async_trait::async_trait;
use halo_core::clock::Timestamp;
use halo_core::resource::DuchyId;
use thiserror::Error;

pub use conformance::conformance;
pub use sqlite::SqliteStore;

use super::keys::SealedKeys;
use super::stage::{Role, Stage};

/// Why the store did not do what it was asked for.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another worker took the computation over, or it was closed. Whoever held the lease stops and writes nothing.
    #[error("the lease on computation {computation} was lost; another worker goes on with it, or it has ended")]
    LeaseLost {
        /// The computation's external id.
        computation: String,
    },
    /// The slot is bound to another body, for good.
    #[error("{slot} is bound to another body already; the first complete body stays")]
    OtherBody {
        /// What the body was sent for.
        slot: String,
    },
    /// Nobody waits for this body.
    #[error("nothing waits for {slot}")]
    NotAwaited {
        /// What the body was sent for.
        slot: String,
    },
    /// The store holds something that this version cannot read.
    #[error("the store holds {what} that this version cannot read")]
    Corrupt {
        /// Which value.
        what: String,
    },
    /// The database failed. The same call may succeed later.
    #[error("the database failed: {0}")]
    Database(#[from] sqlx::Error),
    /// The tables could not be brought to this version.
    #[error("the tables could not be brought to this version: {0}")]
    Migration(#[from] sqlx::migrate::MigrateError),
}

/// The identity of a complete body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BodyId {
    /// SHA-256 of all its bytes.
    pub sha256: [u8; 32],
    /// Bytes.
    pub length: u64,
    /// Records.
    pub records: u64,
}

/// One input of a computation: which step it is for and who owes it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SlotKey {
    /// The computation's external id.
    pub computation: String,
    /// Number of a [`crate::protocol::Description`].
    pub description: i32,
    /// The Duchy that owes it.
    pub sender: DuchyId,
}

impl fmt::Display for SlotKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.computation, self.description, self.sender)
    }
}

/// What is known of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotStatus {
    /// Awaited and empty.
    Awaited,
    /// Bound, perhaps consumed already.
    Bound(BodyId),
    /// This step is awaited from other Duchies, not from this one.
    OwedByAnother,
    /// The step is not awaited yet.
    NotAwaited,
}

/// Whether binding changed anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binding {
    /// The body was bound now.
    New,
    /// The same body was bound before.
    Repeated,
}

/// A body that arrived and waits to be consumed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// Number of a [`crate::protocol::Description`].
    pub description: i32,
    /// Who sent it.
    pub sender: DuchyId,
    /// The body.
    pub body: BodyId,
}

/// One publisher's part of a computation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requisition {
    /// `dataProviders/{data_provider}/requisitions/{requisition}`.
    pub name: String,
    /// The computation's external id.
    pub computation: String,
    /// SHA-256 over measurement spec and the hash of the encrypted requisition spec.
    pub fingerprint: [u8; 32],
    /// SHA-256 of the nonce.
    pub nonce_hash: [u8; 32],
    /// Whether this Duchy takes the upload.
    pub here: bool,
    /// What arrived.
    pub upload: Option<Upload>,
    /// Whether the Kingdom has acknowledged the upload.
    pub announced: bool,
}

/// A complete upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upload {
    /// The requisition's nonce: the publisher's consent.
    pub nonce: u64,
    /// Hash of the ordered key list that the publisher encrypted under.
    pub key_list_hash: [u8; 32],
    /// What belongs to the body and came with its header, in the protocol's form; often empty.
    pub attachment: Vec<u8>,
    /// The body.
    pub body: BodyId,
}

/// A message that has to reach somebody.
#[derive(Clone, PartialEq, Eq)]
pub enum Outgoing {
    /// A body for another Duchy.
    Body {
        /// The receiver.
        to: DuchyId,
        /// Number of a [`crate::protocol::Description`].
        description: i32,
        /// The body.
        body: BodyId,
    },
    /// Serialized `SetParticipantRequisitionParamsRequest`.
    Parameters(Vec<u8>),
    /// Serialized `ConfirmComputationParticipantRequest`.
    Confirmation(Vec<u8>),
    /// Serialized `SetComputationResultRequest`.
    Result(Vec<u8>),
    /// Serialized `FailComputationParticipantRequest`.
    Failure(Vec<u8>),
    /// Serialized `CreateComputationLogEntryRequest`.
    LogEntry(Vec<u8>),
}

impl fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Body { to, description, body } => write!(f, "Body({to}, {description}, {} bytes)", body.length),
            Self::Parameters(bytes) => write!(f, "Parameters({} bytes)", bytes.len()),
            Self::Confirmation(bytes) => write!(f, "Confirmation({} bytes)", bytes.len()),
            Self::Result(bytes) => write!(f, "Result({} bytes)", bytes.len()),
            Self::Failure(bytes) => write!(f, "Failure({} bytes)", bytes.len()),
            Self::LogEntry(bytes) => write!(f, "LogEntry({} bytes)", bytes.len()),
        }
    }
}

/// An outbox row that is not acknowledged yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxRow {
    /// Its number within the computation, growing.
    pub seq: i64,
    /// The stage that made it.
    pub stage: Stage,
    /// What to send.
    pub message: Outgoing,
}

/// A computation as the store holds it.
#[derive(Clone, PartialEq, Eq)]
pub struct Record {
    /// The computation's external id.
    pub id: String,
    /// What this Duchy is in it.
    pub role: Role,
    /// Where it stands.
    pub stage: Stage,
    /// The last serialized `system.Computation` received before the confirmation began; it does not change any more.
    pub received: Vec<u8>,
    /// Sealed key share and seed; `None` once destroyed.
    pub secrets: Option<Vec<u8>>,
    /// Sealed state of the engine.
    pub engine_state: Option<Vec<u8>>,
    /// Why it ended without success.
    pub failure: Option<String>,
    /// Keys are destroyed, nothing is left to do.
    pub finished: bool,
    /// Failed attempts since the last progress.
    pub attempts: u32,
    /// Messages that are not acknowledged yet, in order.
    pub outbox: Vec<OutboxRow>,
    /// Bodies bound and not consumed, sorted by description and sender.
    pub inputs: Vec<Input>,
    /// Every publisher's requisition, sorted by name.
    pub requisitions: Vec<Requisition>,
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("id", &self.id)
            .field("role", &self.role)
            .field("stage", &self.stage)
            .finish_non_exhaustive()
    }
}

/// The right to work on one computation for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The computation's external id.
    pub computation: String,
    /// Who holds it.
    pub owner: String,
    /// Grows with every lease on the computation; a write with an older number is refused.
    pub fencing: i64,
}

/// What [`Store::claim`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Something to do.
    Leased(Lease),
    /// Nothing to do before this time, as far as the store knows.
    Idle(Option<Timestamp>),
}

/// A computation that the Duchy hears of for the first time.
#[derive(Clone)]
pub struct NewComputation {
    /// What this Duchy is in it.
    pub role: Role,
    /// Its key and seed, sealed, and what may be known of them.
    pub secrets: SealedKeys,
    /// Its requisitions, none of them uploaded.
    pub requisitions: Vec<Requisition>,
}

impl fmt::Debug for NewComputation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewComputation").field("role", &self.role).finish_non_exhaustive()
    }
}

/// What the Kingdom reported, and what follows from it.
#[derive(Clone, Debug)]
pub struct Report {
    /// The computation's external id.
    pub computation: String,
    /// Number of `Computation.State`.
    pub kingdom_state: i32,
    /// The serialized `system.Computation`, as it came.
    pub received: Vec<u8>,
    /// What to store when the computation is not known yet. Without it an unknown computation is left alone.
    pub new: Option<NewComputation>,
    /// The computation is over; the text says why when it did not succeed.
    pub over: Option<Option<String>>,
    /// What this Duchy has to tell the Kingdom because it refuses the computation: serialized
    /// `FailComputationParticipantRequest` and the reason.
    pub refusal: Option<(Vec<u8>, String)>,
}

/// What one stage of work leaves behind, written in one transaction.
#[derive(Clone)]
pub struct StageCommit {
    /// The stage that was worked on.
    pub from: Stage,
    /// The stage that follows; waiting stages move on at once when their condition holds already.
    pub next: Stage,
    /// New sealed state of the engine; `None` keeps the one stored.
    pub engine_state: Option<Vec<u8>>,
    /// Messages to deliver, in order.
    pub outbox: Vec<Outgoing>,
    /// Inputs awaited from now on: description and sender.
    pub awaiting: Vec<(i32, DuchyId)>,
    /// Inputs that were consumed: description and sender.
    pub consumed: Vec<(i32, DuchyId)>,
    /// Why the computation failed here, if it did.
    pub failure: Option<String>,
}

impl fmt::Debug for StageCommit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StageCommit").field("from", &self.from).field("next", &self.next).finish_non_exhaustive()
    }
}

/// How a lease is given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// Progress was made, or there was nothing to do.
    Done,
    /// A transient error; try again at this time.
    RetryAt(Timestamp),
}

/// A body on its way: what it is for, and its digest.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TransferKey {
    /// Name of a requisition, or the text of a [`SlotKey`].
    pub target: String,
    /// The computation's external id.
    pub computation: String,
    /// SHA-256 of the whole body, as its sender announced it.
    pub sha256: [u8; 32],
}

/// What a Duchy remembers. Every method is one transaction that is durable when it returns.
#[async_trait]
pub trait Store: fmt::Debug + Send + Sync {
    /// The token of the last report that was applied; empty at first.
    async fn continuation_token(&self) -> Result<String, StoreError>;

    /// Applies what the Kingdom reported (`None`: nothing that concerns this Duchy) and remembers the token.
    ///
    /// Reports may repeat and may skip states. A finished computation is not changed.
    async fn apply(&self, report: Option<&Report>, token: &str, now: Timestamp) -> Result<(), StoreError>;

    /// Leases the computation that has waited longest and has something to do: work, deliveries, or its end.
    async fn claim(&self, owner: &str, now: Timestamp, until: Timestamp) -> Result<Claim, StoreError>;

    /// Extends a lease.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`].
    async fn renew(&self, lease: &Lease, until: Timestamp) -> Result<(), StoreError>;

    /// Gives a lease back. A lost lease is not an error.
    async fn release(&self, lease: &Lease, how: Release) -> Result<(), StoreError>;

    /// Ends all leases: for a process that knows that it is the only one.
    async fn break_leases(&self) -> Result<(), StoreError>;

    /// Loads one computation.
    async fn load(&self, computation: &str) -> Result<Option<Record>, StoreError>;

    /// Writes what one stage left behind.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`], also when the computation is no longer in [`StageCommit::from`]; nothing is written.
    async fn commit(&self, lease: &Lease, commit: &StageCommit, now: Timestamp) -> Result<(), StoreError>;

    /// Gives a computation up: ends it here with the reason, and posts a serialized `FailComputationParticipantRequest`.
    /// One that is unknown or over is left as it is.
    async fn give_up(&self, computation: &str, failure: &[u8], reason: &str, now: Timestamp) -> Result<(), StoreError>;

    /// Marks an outbox row as received for good.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`].
    async fn acknowledge(&self, lease: &Lease, seq: i64, now: Timestamp) -> Result<(), StoreError>;

    /// Destroys keys, seed and state of a computation that is complete and has nothing left to deliver. Returns whether
    /// it did.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`].
    async fn finish(&self, lease: &Lease, now: Timestamp) -> Result<bool, StoreError>;

    /// A requisition by its name.
    async fn requisition(&self, name: &str) -> Result<Option<Requisition>, StoreError>;

    /// Binds an upload to its requisition, for good.
    ///
    /// # Errors
    /// [`StoreError::OtherBody`], [`StoreError::NotAwaited`] for an unknown requisition, one of another Duchy, or one
    /// whose computation is over.
    async fn bind_upload(&self, name: &str, upload: &Upload, now: Timestamp) -> Result<Binding, StoreError>;

    /// Remembers that the Kingdom acknowledged the upload.
    async fn announced(&self, name: &str) -> Result<(), StoreError>;

    /// Uploads that are bound and that the Kingdom has not acknowledged, of computations that are not over.
    async fn unannounced(&self) -> Result<Vec<Requisition>, StoreError>;

    /// What is known of a slot.
    async fn slot(&self, slot: &SlotKey) -> Result<SlotStatus, StoreError>;

    /// Binds a body to its slot, for good; the last one awaited lets the computation move on.
    ///
    /// # Errors
    /// [`StoreError::OtherBody`], [`StoreError::NotAwaited`].
    async fn bind_input(&self, slot: &SlotKey, body: &BodyId, now: Timestamp) -> Result<Binding, StoreError>;

    /// SHA-256 of every body that something of the computation refers to.
    async fn bodies(&self, computation: &str) -> Result<BTreeSet<[u8; 32]>, StoreError>;

    /// Ends a computation that nobody ends: keys, seed and state are destroyed, and nothing is delivered any more. One
    /// that is unknown or finished is left as it is.
    async fn abandon(&self, computation: &str, reason: &str, now: Timestamp) -> Result<(), StoreError>;

    /// Computations that are not finished.
    async fn unfinished(&self) -> Result<BTreeSet<String>, StoreError>;

    /// Forgets finished computations that have not changed since `before`, with everything that belongs to them, and
    /// says how many.
    async fn forget(&self, before: Timestamp) -> Result<u64, StoreError>;

    /// Forgets every partial body for the same target but this one, and says how many bytes of this one are safely
    /// stored.
    async fn supersede(&self, transfer: &TransferKey) -> Result<u64, StoreError>;

    /// Bytes of a partial body that are safely stored.
    async fn transferred(&self, transfer: &TransferKey) -> Result<u64, StoreError>;

    /// Remembers how many bytes of a partial body are safely stored; 0 forgets it.
    async fn set_transferred(&self, transfer: &TransferKey, length: u64) -> Result<(), StoreError>;
}
