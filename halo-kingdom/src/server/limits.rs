//! How large things may be, so that whatever the Kingdom stores fits the messages in which it hands it out.
//!
//! A client takes messages of at most [`MAX_MESSAGE_BYTES`]. One stored record that does not fit would end every stream
//! that comes across it, again and again; so it is refused at the door. What is added to a measurement later has a
//! largest size, too, and room for it is kept from the beginning.

use std::time::Duration;

use halo_core::{
    measurement::{MeasurementKind, Protocol},
    pb::system,
    transport::MAX_MESSAGE_BYTES,
};
use prost::Message;

use super::{refusal::Refusal, wire};
use crate::record::{Measurement, Requisition};

/// Largest serialized `MeasurementSpec`.
pub(crate) const MAX_MEASUREMENT_SPEC: usize = 256 << 10;
/// Largest certificate, in DER.
pub(crate) const MAX_CERTIFICATE: usize = 16 << 10;
/// Largest ciphertext of a requisition spec.
pub(crate) const MAX_REQUISITION_SPEC: usize = 16 << 10;
/// Largest serialized `EncryptionPublicKey`, and `ElGamalPublicKey`.
pub(crate) const MAX_PUBLIC_KEY: usize = 4 << 10;
/// Largest evidence of what runs at a trustee.
pub(crate) const MAX_ATTESTATION: usize = 64 << 10;
/// Largest ciphertext of the Duchies' result.
pub(crate) const MAX_RESULT: usize = 64 << 10;
/// Largest serialized `EventGroup`.
pub(crate) const MAX_EVENT_GROUP: usize = 64 << 10;
/// Longest URL of a type.
pub(crate) const MAX_TYPE_URL: usize = 256;
/// Longest text that is kept for people: messages of failures, refusals and reports.
pub(crate) const MAX_TEXT: usize = 4096;
/// Longest name of a stage.
pub(crate) const MAX_STAGE_NAME: usize = 256;
/// Most lines that a Duchy writes into one timeline.
pub(crate) const MAX_REPORTS: u32 = 1000;
/// Most lines after which a Duchy's errors that are being retried are written into a timeline, so that reports of stages
/// still find room.
pub(crate) const MAX_ERRORS: u32 = 500;
/// How long after the end of a measurement its Duchies may report the stages that they had finished by then.
pub(crate) const REPORTS_AFTER_END: Duration = Duration::from_secs(60 * 60);
/// Largest report of a publisher on its software and warnings; a larger one is not kept.
pub(crate) const MAX_CONTEXT: usize = 2048;

/// Names, times, hashes, signatures and tags around one of the above, generously.
const AROUND: usize = 1024;
/// What is kept free in every message, for what is around its main part.
const MARGIN: usize = 64 << 10;
/// Longest resource name of a culprit, with what is around it.
const CULPRIT: usize = 128;

/// Refuses what is too large.
pub(crate) fn bounded(field: &str, size: usize, largest: usize) -> Result<(), Refusal> {
    if size <= largest {
        return Ok(());
    }
    Err(Refusal::invalid(field, format!("it has {size} bytes; at most {largest} are taken")))
}

/// Largest ciphertext of one publisher's own result: many of them travel in one message, and most are one number.
pub(crate) const fn max_direct_result(kind: MeasurementKind) -> usize {
    if kind.counts_frequency() { MAX_RESULT } else { 2 << 10 }
}

/// Refuses a new measurement that would not fit a message, as the Duchies, a publisher, or its consumer see it, with
/// all that can be added to it until its end.
pub(crate) fn check_fit(
    measurement: &Measurement,
    kind: MeasurementKind,
    computation: &system::Computation,
) -> Result<(), Refusal> {
    let (publishers, duchies) = (measurement.requisitions.len(), measurement.participants.len());
    // One failure ends a measurement, and names everybody at most.
    let failure = MAX_TEXT + AROUND + CULPRIT * (publishers + duchies + 1);
    let attestations = if matches!(measurement.protocol, Protocol::Trustee(_)) { MAX_ATTESTATION } else { 0 };
    let keys = duchies * (MAX_PUBLIC_KEY + MAX_CERTIFICATE + AROUND + attestations);
    let results = match measurement.protocol {
        Protocol::Direct(_) => publishers * (max_direct_result(kind) + AROUND / 2),
        _ => MAX_RESULT + AROUND,
    };
    let fulfilment = MAX_CONTEXT + AROUND / 2;
    let fits = |what: &str, now: usize, later: usize| {
        let most = now + later + MARGIN;
        if most <= MAX_MESSAGE_BYTES {
            return Ok(());
        }
        let detail = format!(
            "{what} could have {most} bytes, with keys and answers; messages have at most {MAX_MESSAGE_BYTES}. Ask for \
             fewer publishers, or shorten the specifications"
        );
        Err(Refusal::invalid("measurement", detail))
    };
    if duchies > 0 {
        fits(
            "what the Duchies get",
            computation.encoded_len(),
            keys + publishers * fulfilment + MAX_RESULT + AROUND + failure,
        )?;
    }
    let consumers = wire::measurement(measurement)?.encoded_len();
    fits("the measurement", consumers, results + failure)?;
    // Requisitions of one measurement differ in nothing else that is long.
    let own = |part: &&Requisition| part.encrypted_spec.bytes.len() + part.public_key.bytes.len();
    match measurement.requisitions.iter().max_by_key(own) {
        Some(part) => {
            let largest = wire::requisition(measurement, part)?.encoded_len();
            fits("a requisition", largest, keys + fulfilment + MAX_TEXT + AROUND)
        }
        None => Ok(()),
    }
}

/// Bytes that a message takes as an element of another one, with its tag and its length.
pub(crate) fn framed_len(message: &impl Message) -> usize {
    let length = message.encoded_len();
    1 + prost::length_delimiter_len(length) + length
}

/// Refuses an answer of so many bytes if it does not fit a message.
pub(crate) fn check_answer(field: &'static str, size: usize) -> Result<(), Refusal> {
    if size <= MAX_MESSAGE_BYTES {
        return Ok(());
    }
    let detail =
        format!("the answer has at least {size} bytes; messages have at most {MAX_MESSAGE_BYTES}. Ask for fewer");
    Err(Refusal::invalid(field, detail))
}

#[cfg(test)]
mod tests;
