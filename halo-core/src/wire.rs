//! From the wire's messages to checked values and back.
//!
//! What was signed is never encoded again: [`unpack`] and [`signed_bytes`] hand out the bytes as they were received.

mod key;
mod protocol;
mod spec;

pub use key::{ElGamalKey, RISTRETTO255, parse_el_gamal_public_key, serialize_el_gamal_public_key};
pub use protocol::{check_mpc_protocol_config, mpc_protocol_config, parse_protocol_config, protocol_config};
pub use spec::{parse_measurement_spec, parse_requisition_spec};

use prost_types::Any;
use thiserror::Error;

use crate::clock::Timestamp;
use crate::pb::api;

/// A field of a message that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{path}: {reason}")]
pub struct WireError {
    /// Whether nobody could accept it.
    pub kind: WireErrorKind,
    /// The field, as a path from the message that was received, such as `measurement_spec.message`.
    pub path: String,
    /// What is wrong with it.
    pub reason: String,
}

/// What kind of rule a field breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireErrorKind {
    /// A rule of the contract.
    Malformed,
    /// It means something, but nothing that is implemented here.
    Unsupported,
}

impl WireError {
    /// The field at `path` breaks a rule of the contract.
    pub fn new(path: impl Into<String>, reason: impl ToString) -> Self {
        Self { kind: WireErrorKind::Malformed, path: path.into(), reason: reason.to_string() }
    }

    /// The field at `path` asks for something that is not implemented here.
    pub fn unsupported(path: impl Into<String>, reason: impl ToString) -> Self {
        Self { kind: WireErrorKind::Unsupported, ..Self::new(path, reason) }
    }
}

/// What stands before the name of a message in a type URL.
const TYPE_URL_PREFIX: &str = "type.googleapis.com/";

/// Full names of the messages that travel inside an `Any`.
pub mod type_name {
    /// What a consumer asks for.
    pub const MEASUREMENT_SPEC: &str = "wfa.measurement.api.v2alpha.MeasurementSpec";
    /// What one publisher is asked for.
    pub const REQUISITION_SPEC: &str = "wfa.measurement.api.v2alpha.RequisitionSpec";
    /// A key to encrypt to.
    pub const ENCRYPTION_PUBLIC_KEY: &str = "wfa.measurement.api.v2alpha.EncryptionPublicKey";
    /// A Duchy's share of a composite key.
    pub const EL_GAMAL_PUBLIC_KEY: &str = "wfa.measurement.api.v2alpha.ElGamalPublicKey";
    /// What a measurement found.
    pub const MEASUREMENT_RESULT: &str = "wfa.measurement.api.v2alpha.Measurement.Result";
    /// The seed of a share.
    pub const RANDOM_SEED: &str = "wfa.measurement.api.v2alpha.RandomSeed";
    /// A message with its signature.
    pub const SIGNED_MESSAGE: &str = "wfa.measurement.api.v2alpha.SignedMessage";
}

/// Puts serialized bytes of the message `name` into an `Any`.
#[must_use]
pub fn pack(name: &str, value: Vec<u8>) -> Any {
    Any { type_url: format!("{TYPE_URL_PREFIX}{name}"), value }
}

/// The serialized bytes in an `Any` that must hold the message `name`.
///
/// # Errors
/// If there is none, or it holds another message.
pub fn unpack<'a>(path: &str, any: Option<&'a Any>, name: &str) -> Result<&'a [u8], WireError> {
    let any = any.ok_or_else(|| WireError::new(path, "is missing"))?;
    if any.type_url.rsplit_once('/').is_some_and(|(_, found)| found == name) {
        Ok(&any.value)
    } else {
        Err(WireError::new(path, format!("holds {} instead of {name}", crate::error::quote(&any.type_url))))
    }
}

/// The bytes that the signature of a signed message is over; its content must be the message `name`.
///
/// # Errors
/// If the message or its signature is missing, or the content is another message.
pub fn signed_bytes<'a>(path: &str, signed: Option<&'a api::SignedMessage>, name: &str) -> Result<&'a [u8], WireError> {
    let signed = signed.ok_or_else(|| WireError::new(path, "is missing"))?;
    if signed.signature.is_empty() {
        return Err(WireError::new(format!("{path}.signature"), "is missing"));
    }
    unpack(&format!("{path}.message"), signed.message.as_ref(), name)
}

impl From<Timestamp> for prost_types::Timestamp {
    fn from(time: Timestamp) -> Self {
        Self { seconds: time.unix_seconds(), nanos: time.subsec_nanos().cast_signed() }
    }
}

/// Reads a time.
///
/// # Errors
/// If it is out of the range of [`Timestamp`], or has a negative fraction.
pub fn timestamp(path: &str, time: &prost_types::Timestamp) -> Result<Timestamp, WireError> {
    let nanos = u32::try_from(time.nanos).map_err(|_| WireError::new(path, "has a negative fraction"))?;
    Timestamp::from_unix(time.seconds, nanos).map_err(|error| WireError::new(path, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_expected_message_is_unpacked() {
        let any = pack(type_name::MEASUREMENT_SPEC, vec![1, 2]);
        assert_eq!(unpack("spec", Some(&any), type_name::MEASUREMENT_SPEC).unwrap(), [1, 2]);
        let error = unpack("spec", Some(&any), type_name::REQUISITION_SPEC).unwrap_err().to_string();
        assert!(error.starts_with("spec: holds"), "{error}");
        assert!(unpack("spec", None, type_name::MEASUREMENT_SPEC).is_err());
    }

    #[test]
    fn times_round_trip() {
        let time = Timestamp::from_unix_nanos(-1);
        assert_eq!(timestamp("t", &prost_types::Timestamp::from(time)).unwrap(), time);
        assert!(timestamp("t", &prost_types::Timestamp { seconds: 0, nanos: -1 }).is_err());
    }
}
