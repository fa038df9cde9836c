//! Why a publisher does not answer.

use std::fmt;

use halo_core::pb::api::requisition::refusal::Justification as Wire;

/// The kind of reason for a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Justification {
    /// A certificate, a signature, a key or a nonce does not hold.
    ConsentSignalInvalid,
    /// What is asked for contradicts itself or breaks a rule.
    SpecInvalid,
    /// This publisher cannot compute what is asked for.
    Unfulfillable,
    /// This publisher's configuration forbids it.
    Declined,
}

impl From<Justification> for Wire {
    fn from(justification: Justification) -> Self {
        match justification {
            Justification::ConsentSignalInvalid => Self::ConsentSignalInvalid,
            Justification::SpecInvalid => Self::SpecInvalid,
            Justification::Unfulfillable => Self::Unfulfillable,
            Justification::Declined => Self::Declined,
        }
    }
}

/// Why a requisition is not answered: final, and sent to the Kingdom for the consumer to read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The kind of reason.
    pub justification: Justification,
    /// The reason, without anything that is secret.
    pub message: String,
}

impl Refusal {
    pub(super) const fn new(justification: Justification, message: String) -> Self {
        Self { justification, message }
    }

    /// For `map_err`: consent does not hold at `path`.
    pub(super) fn consent<E: fmt::Display>(path: &str) -> impl Fn(E) -> Self {
        move |error| Self::new(Justification::ConsentSignalInvalid, format!("{path}: {error}"))
    }

    /// For `map_err`: what stands at `path` is not acceptable.
    pub(super) fn spec<E: fmt::Display>(path: &str) -> impl Fn(E) -> Self {
        move |error| Self::new(Justification::SpecInvalid, format!("{path}: {error}"))
    }
}
