//! Why the Kingdom refuses something.

use halo_core::{
    measurement::{MeasurementState, ParticipantState, ProtocolKind, RequisitionState},
    resource::{CertificateName, DuchyId, MeasurementName, RequisitionName},
};

use crate::planner::{Reason, joined};

/// What planning and the lifecycle refuse. Nothing has changed when one of these is returned.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The Kingdom's own protocol settings make no sense: correct the configuration.
    #[error("the setting {field} is not usable: {detail}")]
    Settings {
        /// Key of the configuration.
        field: String,
        /// What is wrong, and what would do.
        detail: String,
    },
    /// The measurement cannot be computed as it is asked for: change the specification.
    #[error("{field}: {detail}")]
    Infeasible {
        /// Path of the field in the request.
        field: &'static str,
        /// What is wrong, and what would do.
        detail: String,
    },
    /// No protocol of this Kingdom can compute the measurement: change the specification, or ask other publishers.
    #[error("no protocol of this Kingdom can compute this measurement: {}", joined(reasons))]
    NoProtocol {
        /// Of each protocol, why.
        reasons: Vec<Reason>,
    },
    /// The measurement is in a state in which this does not happen.
    #[error("{measurement} is {state}; {action} is not possible any more or not yet")]
    MeasurementState {
        /// The measurement.
        measurement: MeasurementName,
        /// Where it stands.
        state: MeasurementState,
        /// What was attempted.
        action: &'static str,
    },
    /// The requisition is in a state in which this does not happen.
    #[error("{requisition} is {state}; {action} is not possible any more or not yet")]
    RequisitionState {
        /// The requisition.
        requisition: RequisitionName,
        /// Where it stands.
        state: RequisitionState,
        /// What was attempted.
        action: &'static str,
    },
    /// The Duchy's part is in a state in which this does not happen.
    #[error("the part of Duchy {duchy} is {state}; {action} is not possible any more or not yet")]
    ParticipantState {
        /// The Duchy.
        duchy: DuchyId,
        /// Where it stands.
        state: ParticipantState,
        /// What was attempted.
        action: &'static str,
    },
    /// The deadline has passed; the measurement is about to be cancelled.
    #[error("the deadline of {measurement} has passed, so {action} is not possible any more")]
    DeadlinePassed {
        /// The measurement.
        measurement: MeasurementName,
        /// What was attempted.
        action: &'static str,
    },
    /// The same thing was told before, and differently. What was told first holds.
    #[error("{what} was given before, with another content; the first one holds and nothing was changed")]
    AlreadyDifferent {
        /// What was repeated.
        what: String,
    },
    /// The Duchy has no part in the computation.
    #[error("Duchy {duchy} has no part in this computation")]
    NotParticipant {
        /// The Duchy.
        duchy: DuchyId,
    },
    /// A publisher's own result is taken only where every publisher computes by itself.
    #[error("{requisition} is fulfilled at a Duchy, because its measurement is computed with {protocol}")]
    NotDirect {
        /// The requisition.
        requisition: RequisitionName,
        /// How the measurement is computed.
        protocol: ProtocolKind,
    },
    /// Only the aggregator of the computation hands in its result.
    #[error("Duchy {duchy} is not the aggregator of this computation")]
    NotAggregator {
        /// The Duchy that tried.
        duchy: DuchyId,
    },
    /// The measurement has no such requisition.
    #[error("{requisition} is no requisition of this measurement")]
    NoSuchRequisition {
        /// The requisition.
        requisition: RequisitionName,
    },
    /// The requisition belongs to another Duchy.
    #[error("{requisition} is fulfilled at Duchy {chosen}, not at Duchy {duchy}")]
    WrongDuchy {
        /// The requisition.
        requisition: RequisitionName,
        /// The Duchy that announced the fulfilment.
        duchy: DuchyId,
        /// The Duchy that the requisition's name selects.
        chosen: DuchyId,
    },
    /// The nonce does not belong to the requisition.
    #[error("the SHA-256 of the nonce is not the nonce hash of {requisition}")]
    Nonce {
        /// The requisition.
        requisition: RequisitionName,
    },
    /// Publisher, Duchy and Kingdom do not see the same list of keys.
    #[error("key_list_hash of Duchy {duchy} is not that of the keys which the Duchies gave to the Kingdom")]
    KeyList {
        /// The Duchy that sent the hash.
        duchy: DuchyId,
    },
    /// A Duchy's key is not acceptable.
    #[error("the key of Duchy {duchy} is refused: {detail}")]
    Key {
        /// The Duchy that sent it.
        duchy: DuchyId,
        /// What does not verify.
        detail: String,
    },
    /// A certificate cannot be used now.
    #[error("{certificate} cannot be used: {detail}")]
    Certificate {
        /// The certificate.
        certificate: CertificateName,
        /// Why.
        detail: String,
    },
}

impl Error {
    /// The Duchies that caused the refusal by breaking the protocol; empty where nobody did, or nobody can be named.
    #[must_use]
    pub fn culprits(&self) -> Vec<DuchyId> {
        match self {
            Self::Key { duchy, .. }
            | Self::KeyList { duchy }
            | Self::NotAggregator { duchy }
            | Self::WrongDuchy { duchy, .. } => vec![duchy.clone()],
            Self::Settings { .. }
            | Self::Infeasible { .. }
            | Self::NoProtocol { .. }
            | Self::NotDirect { .. }
            | Self::MeasurementState { .. }
            | Self::RequisitionState { .. }
            | Self::ParticipantState { .. }
            | Self::DeadlinePassed { .. }
            | Self::AlreadyDifferent { .. }
            | Self::NotParticipant { .. }
            | Self::NoSuchRequisition { .. }
            | Self::Nonce { .. }
            | Self::Certificate { .. } => Vec::new(),
        }
    }
}
