//! How large things may be, so that whatever the Kingdom stores fits the messages in which it hands it out.
//!
//! A client takes messages of at most [`MAX_MESSAGE_BYTES`]. One stored record that does not fit would end every stream
//! that comes across it, again and again; so it is refused at the door. What is added to a measurement later has a
//! largest size, too, and room for it is kept from the beginning.

use std::time::Duration;

use halo_core::{pb::system, transport::MAX_MESSAGE_BYTES};
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
/// Largest ciphertext of a result.
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

/// Refuses a new measurement that would not fit a message, as the Duchies, a publisher, or its consumer see it, with
/// all that can be added to it until its end.
pub(crate) fn check_fit(measurement: &Measurement, computation: &system::Computation) -> Result<(), Refusal> {
    let (publishers, duchies) = (measurement.requisitions.len(), measurement.participants.len());
    // One failure ends a measurement, and names everybody at most.
    let failure = MAX_TEXT + AROUND + CULPRIT * (publishers + duchies + 1);
    let keys = duchies * (MAX_PUBLIC_KEY + MAX_CERTIFICATE + AROUND);
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
    fits(
        "what the Duchies get",
        computation.encoded_len(),
        keys + publishers * fulfilment + MAX_RESULT + AROUND + failure,
    )?;
    let consumers = wire::measurement(measurement)?.encoded_len();
    fits("the measurement", consumers, MAX_RESULT + AROUND + failure)?;
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
mod tests {
    use halo_core::{
        measurement::{Llv2Config, MeasurementKind, Protocol, ProtocolConfig},
        resource::{CertificateName, DuchyName, RequisitionName},
        wire as core_wire,
    };

    use super::*;
    use crate::{
        record::{
            ComputationResult, Failure, FailureReason, FulfillmentContext, Fulfilment, Parameters, ParticipantFailure,
            Refusal as Refused,
        },
        server::store::conformance,
    };

    /// A measurement of so many publishers with requisition specs of so many bytes.
    fn measurement(publishers: u64, spec: usize) -> Measurement {
        let mut measurement = conformance::measurement(1);
        let llv2 = Llv2Config {
            aggregator: measurement.aggregator.clone(),
            decay_rate: 12.0,
            max_size: 1000,
            sampling_indicator_size: 1000,
            noise: None,
        };
        let config = ProtocolConfig { kind: MeasurementKind::ReachAndFrequency, protocol: Protocol::Llv2(llv2) };
        measurement.protocol_config = core_wire::protocol_config(&config).encode_to_vec();
        let mut one = measurement.requisitions[0].clone();
        one.encrypted_spec.bytes = vec![1; spec];
        measurement.requisitions = (0..publishers)
            .map(|number| {
                let publisher = conformance::publisher(u64::MAX / 4 - number);
                let name = RequisitionName::new(publisher.data_provider, conformance::id(u64::MAX / 4 - number));
                let certificate = CertificateName::new(publisher, conformance::id(u64::MAX / 4));
                Requisition { name, certificate, ..one.clone() }
            })
            .collect();
        measurement
    }

    fn computation(measurement: &Measurement, der: usize) -> system::Computation {
        let parts = measurement.participants.iter().map(|part| wire::participant(measurement, part, vec![1; der]));
        wire::computation(measurement, parts.collect(), vec![1; MAX_CERTIFICATE]).unwrap()
    }

    fn fits(measurement: &Measurement) -> bool {
        check_fit(measurement, &computation(measurement, 0)).is_ok()
    }

    /// Everything that can come, as large as it can be.
    fn grow(measurement: &mut Measurement) {
        let culprits: Vec<String> =
            measurement.requisitions.iter().map(|part| part.name.parent().to_string()).collect();
        let text = "x".repeat(MAX_TEXT);
        for part in &mut measurement.participants {
            part.parameters = Some(Parameters {
                certificate: CertificateName::new(DuchyName::new(part.duchy.clone()), conformance::id(u64::MAX / 4)),
                public_key: vec![1; MAX_PUBLIC_KEY],
                signature: vec![1; 72],
                algorithm_oid: "1.2.840.10045.4.3.2".into(),
            });
        }
        let failure = ParticipantFailure { message: text.clone(), culprits: culprits.clone() };
        measurement.participants[0].failure = Some(failure);
        let duchy = measurement.participants[0].duchy.clone();
        for part in &mut measurement.requisitions {
            part.fulfilment = Some(Fulfilment {
                duchy: duchy.clone(),
                nonce: u64::MAX,
                key_list_hash: [1; 32],
                body_sha256: [1; 32],
                record_count: u64::MAX,
                context: Some(FulfillmentContext { build_label: "x".repeat(MAX_CONTEXT), warnings: Vec::new() }),
            });
            part.refusal = Some(Refused { justification: 5, message: text.clone() });
        }
        let message = format!("{text} {}", culprits.join(", "));
        measurement.failure = Some(Failure { reason: FailureReason::ParticipantFailed, message, culprits });
        measurement.result = Some(ComputationResult {
            certificate: CertificateName::new(DuchyName::new(duchy), conformance::id(u64::MAX / 4)),
            public_key: Vec::new(),
            ciphertext: vec![1; MAX_RESULT],
        });
    }

    #[test]
    fn what_is_taken_fits_until_the_end() {
        for publishers in [1, 200, 1000] {
            let (mut least, mut most) = (0, 2 * MAX_MESSAGE_BYTES / publishers as usize);
            assert!(fits(&measurement(publishers, least)), "{publishers} publishers can be asked");
            while least + 1 < most {
                let middle = (least + most) / 2;
                if fits(&measurement(publishers, middle)) { least = middle } else { most = middle }
            }
            let mut largest = measurement(publishers, least);
            grow(&mut largest);
            assert!(computation(&largest, MAX_CERTIFICATE).encoded_len() <= MAX_MESSAGE_BYTES);
            assert!(wire::measurement(&largest).unwrap().encoded_len() <= MAX_MESSAGE_BYTES);
            for part in &largest.requisitions {
                assert!(wire::requisition(&largest, part).unwrap().encoded_len() <= MAX_MESSAGE_BYTES);
            }
        }
    }

    #[test]
    fn many_publishers_with_long_specifications_are_refused() {
        let refused = measurement(1000, MAX_REQUISITION_SPEC);
        let error = check_fit(&refused, &computation(&refused, 0)).unwrap_err();
        assert!(error.to_string().contains("fewer publishers"), "{error}");
        let mut long = measurement(1, 100);
        long.spec.message.bytes = vec![1; MAX_MESSAGE_BYTES];
        assert!(!fits(&long));
    }
}
