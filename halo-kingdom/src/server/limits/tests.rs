//! Whatever is taken fits its messages until the end.

use halo_core::{
    measurement::{
        DirectConfig, HmssConfig, HmssVariant, Population, ProtocolConfig, RequisitionState, TrusteeConfig,
        TrusteeNoise,
    },
    resource::{CertificateName, DuchyId, DuchyName, RequisitionName},
    wire as core_wire,
};

use super::*;
use crate::{
    record::{
        ComputationResult, Delivery, DirectResult, Failure, FailureReason, FulfillmentContext, Fulfilment, Parameters,
        Participant, ParticipantFailure, Refusal as Refused, Upload,
    },
    server::store::conformance,
};

fn duchy(name: &str) -> DuchyId {
    name.parse().unwrap()
}

fn population() -> Population {
    Population::new(1, 1000).unwrap()
}

fn trustee() -> Protocol {
    let (duchy, population) = (duchy("worker1"), population());
    Protocol::Trustee(TrusteeConfig { duchy, noise: TrusteeNoise::None, thresholds: None, population })
}

fn hmss() -> Protocol {
    Protocol::Hmss(HmssConfig {
        variant: HmssVariant::Native,
        noise: None,
        first_worker: duchy("worker1"),
        second_worker: duchy("worker2"),
        aggregator: duchy("aggregator"),
        population: population(),
    })
}

fn direct() -> Protocol {
    Protocol::Direct(DirectConfig { noise: vec![None] })
}

/// What is measured with a protocol.
const fn kind(protocol: &Protocol) -> MeasurementKind {
    match protocol {
        Protocol::Direct(_) => MeasurementKind::Impression,
        _ => MeasurementKind::ReachAndFrequency,
    }
}

/// A measurement of so many publishers with requisition specs of so many bytes.
fn measurement(protocol: &Protocol, publishers: u64, spec: usize) -> Measurement {
    let mut measurement = conformance::measurement(1);
    let config = ProtocolConfig { kind: kind(protocol), protocol: protocol.clone() };
    measurement.protocol_config = core_wire::protocol_config(&config).encode_to_vec();
    measurement.protocol = protocol.clone();
    let part = measurement.participants[0].clone();
    let duchies = match protocol {
        Protocol::Trustee(_) => vec!["worker1"],
        Protocol::Direct(_) => vec![],
        _ => vec!["aggregator", "worker1", "worker2"],
    };
    measurement.participants =
        duchies.into_iter().map(|name| Participant { duchy: duchy(name), ..part.clone() }).collect();
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

/// As the Duchies get it, with Duchies' certificates of so many bytes.
fn computation(measurement: &Measurement, der: usize) -> system::Computation {
    let parts = measurement.participants.iter().map(|part| wire::participant(measurement, part, vec![1; der]));
    let publishers = if matches!(measurement.protocol, Protocol::Hmss(_)) { MAX_CERTIFICATE } else { 0 };
    let requisitions = measurement
        .requisitions
        .iter()
        .map(|part| wire::computation_requisition(measurement, part, vec![1; publishers]))
        .collect();
    wire::computation(measurement, parts.collect(), requisitions, vec![1; MAX_CERTIFICATE]).unwrap()
}

fn fits(measurement: &Measurement) -> bool {
    check_fit(measurement, kind(&measurement.protocol), &computation(measurement, 0)).is_ok()
}

/// Everything that can come, as large as it can be.
fn grow(measurement: &mut Measurement) {
    let culprits: Vec<String> = measurement.requisitions.iter().map(|part| part.name.parent().to_string()).collect();
    let text = "x".repeat(MAX_TEXT);
    let trusted = matches!(measurement.protocol, Protocol::Trustee(_));
    for part in &mut measurement.participants {
        part.parameters = Some(Parameters {
            certificate: CertificateName::new(DuchyName::new(part.duchy.clone()), conformance::id(u64::MAX / 4)),
            public_key: vec![1; MAX_PUBLIC_KEY],
            signature: vec![1; 256],
            algorithm_oid: "1.2.840.10045.4.3.2".into(),
            attestation: vec![1; if trusted { MAX_ATTESTATION } else { 0 }],
        });
    }
    let context = FulfillmentContext { build_label: "x".repeat(MAX_CONTEXT), warnings: Vec::new() };
    let largest = max_direct_result(kind(&measurement.protocol));
    let first = measurement.participants.first().map(|part| part.duchy.clone());
    for part in &mut measurement.requisitions {
        let delivery = match &first {
            Some(duchy) => Delivery::Upload(Upload {
                duchy: duchy.clone(),
                key_list_hash: [1; 32],
                body_sha256: [1; 32],
                record_count: u64::MAX,
            }),
            None => Delivery::Result(DirectResult {
                certificate: CertificateName::new(part.name.parent(), conformance::id(u64::MAX / 4)),
                ciphertext: vec![1; largest],
            }),
        };
        part.state = RequisitionState::Fulfilled;
        part.fulfilment = Some(Fulfilment { nonce: u64::MAX, delivery, context: Some(context.clone()) });
        part.refusal = Some(Refused { justification: 5, message: text.clone() });
    }
    let message = format!("{text} {}", culprits.join(", "));
    measurement.state = halo_core::measurement::MeasurementState::Succeeded;
    measurement.failure =
        Some(Failure { reason: FailureReason::ParticipantFailed, message, culprits: culprits.clone() });
    if let Some(duchy) = first {
        measurement.participants[0].failure = Some(ParticipantFailure { message: text, culprits });
        measurement.result = Some(ComputationResult {
            certificate: CertificateName::new(DuchyName::new(duchy), conformance::id(u64::MAX / 4)),
            public_key: Vec::new(),
            ciphertext: vec![1; MAX_RESULT],
        });
    }
}

#[test]
fn what_is_taken_fits_until_the_end() {
    let llv2 = conformance::protocol();
    for (protocol, publishers) in [
        (&llv2, 1),
        (&llv2, 200),
        (&llv2, 1000),
        (&hmss(), 1),
        (&hmss(), 125),
        (&trustee(), 1),
        (&trustee(), 1000),
        (&direct(), 1),
        (&direct(), 1000),
    ] {
        let (mut least, mut most) = (0, 2 * MAX_MESSAGE_BYTES / publishers as usize);
        let kind = protocol.kind();
        assert!(fits(&measurement(protocol, publishers, least)), "{kind}: {publishers} publishers can be asked");
        while least + 1 < most {
            let middle = (least + most) / 2;
            if fits(&measurement(protocol, publishers, middle)) { least = middle } else { most = middle }
        }
        let mut largest = measurement(protocol, publishers, least);
        grow(&mut largest);
        assert!(computation(&largest, MAX_CERTIFICATE).encoded_len() <= MAX_MESSAGE_BYTES, "{kind}");
        assert!(wire::measurement(&largest).unwrap().encoded_len() <= MAX_MESSAGE_BYTES, "{kind}");
        for part in &largest.requisitions {
            assert!(wire::requisition(&largest, part).unwrap().encoded_len() <= MAX_MESSAGE_BYTES, "{kind}");
        }
    }
}

#[test]
fn many_publishers_with_long_specifications_are_refused() {
    let llv2 = conformance::protocol();
    let refused = measurement(&llv2, 1000, MAX_REQUISITION_SPEC);
    let error = check_fit(&refused, kind(&llv2), &computation(&refused, 0)).unwrap_err();
    assert!(error.to_string().contains("fewer publishers"), "{error}");
    let mut long = measurement(&llv2, 1, 100);
    long.spec.message.bytes = vec![1; MAX_MESSAGE_BYTES];
    assert!(!fits(&long));
}
