//! Why a publisher does not answer.

use std::fmt;

use halo_core::{
    pb::api::requisition::refusal::Justification as Wire,
    wire::{WireError, WireErrorKind},
};

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

impl From<WireErrorKind> for Justification {
    fn from(kind: WireErrorKind) -> Self {
        match kind {
            WireErrorKind::Malformed => Self::SpecInvalid,
            WireErrorKind::Unsupported => Self::Unfulfillable,
        }
    }
}

impl From<WireError> for Refusal {
    fn from(error: WireError) -> Self {
        Self::new(error.kind.into(), error.to_string())
    }
}

/// The longest message of a refusal, in bytes of UTF-8: a Kingdom takes no longer one.
pub const MAX_MESSAGE_BYTES: usize = 4096;

/// What a message ends with that was cut.
const CUT: &str = " …";

/// Why a requisition is not answered: final, and sent to the Kingdom for the consumer to read.
///
/// The Kingdom reads it as well, so it never quotes what only the publisher could decrypt.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    justification: Justification,
    message: String,
}

impl Refusal {
    /// The kind of reason.
    #[must_use]
    pub const fn justification(&self) -> Justification {
        self.justification
    }

    /// The reason, without anything that is secret; at most [`MAX_MESSAGE_BYTES`].
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// A refusal with this message, which is cut where it is too long to be taken.
    pub(crate) fn new(justification: Justification, mut message: String) -> Self {
        if message.len() > MAX_MESSAGE_BYTES {
            message.truncate(message.floor_char_boundary(MAX_MESSAGE_BYTES - CUT.len()));
            message.push_str(CUT);
        }
        Self { justification, message }
    }

    /// What the consumer encrypted for the publisher breaks a rule. The field alone is named: a reason could quote it.
    pub(super) fn secret_spec(error: &WireError) -> Self {
        Self::new(error.kind.into(), format!("{}: is not acceptable", error.path))
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_message_is_too_long(text in "\\PC{0,6000}") {
            let refusal = Refusal::new(Justification::SpecInvalid, text.clone());
            prop_assert!(refusal.message().len() <= MAX_MESSAGE_BYTES);
            if text.len() <= MAX_MESSAGE_BYTES {
                prop_assert_eq!(refusal.message(), text);
            } else {
                prop_assert!(text.starts_with(refusal.message().strip_suffix(CUT).unwrap()));
            }
        }
    }
}
