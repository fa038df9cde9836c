//! How much noise goes around, with the calibration of the reference, and that it leaves the result where it is.

use std::io::Read;
use std::sync::Arc;

use crate::setup::{Register, duchy, keys, noise, parameters, parties, requisition};
use halo_core::privacy::{MaximumFrequency, PrivacyParams};
use halo_duchy::protocol::llv2::{Outcome, Parameters, check_requisition};
use halo_duchy::protocol::local::{self, Envelope, Interceptor};
use halo_duchy::protocol::{Body, Description, MemoryBody, MemoryWorkspace, ProtocolError, Step};
use halo_sketch::estimate;
use halo_sketch::noise::NoiseMechanism;

/// Sizes of the messages, in the order in which they pass.
#[derive(Default)]
struct Sizes(Vec<(Description, String, u64)>);

impl Interceptor for Sizes {
    fn message(&mut self, envelope: Envelope) -> Vec<Envelope> {
        self.0.push((envelope.description, envelope.from.to_string(), envelope.body.records()));
        vec![envelope]
    }
}

impl Sizes {
    fn of(&self, description: Description, from: &str) -> u64 {
        self.0.iter().find(|(what, who, _)| *what == description && who == from).unwrap().2
    }
}

fn params(epsilon: f64, delta: f64) -> PrivacyParams {
    PrivacyParams::new(epsilon, delta).unwrap()
}

fn run(parameters: &Parameters, sketches: &[Vec<Register>]) -> (Outcome, Sizes) {
    let mut sizes = Sizes::default();
    let parties = parties(&keys(3), parameters, sketches, 3);
    let outcome = local::run(&parties, &MemoryWorkspace, &mut sizes).unwrap();
    (outcome, sizes)
}

#[test]
fn setup_adds_the_reference_number_of_registers() {
    // Shifts 7, 7, 4 and 3, 2, 3: 2·7 + 2·4 + 7·12 and 2·2 + 2·3 + 3·12.
    for (mechanism, registers) in [(NoiseMechanism::Geometric, 106), (NoiseMechanism::DiscreteGaussian, 46)] {
        let tiny = params(40.0, (-80.0_f64).exp());
        let parameters = Parameters {
            noise: Some(noise(mechanism, tiny, [tiny, params(40.0, (-40.0_f64).exp())])),
            ..parameters(3)
        };
        let (outcome, sizes) = run(&parameters, &[vec![], vec![], vec![]]);
        for worker in ["worker1", "worker2"] {
            assert_eq!(sizes.of(Description::SetupPhaseInput, worker), registers);
        }
        assert_eq!(sizes.of(Description::ExecutionPhaseOneInput, "aggregator"), 3 * registers);
        assert_eq!(outcome.registers_in, 0);
    }
}

#[test]
fn phase_two_adds_the_reference_number_of_tuples() {
    for (mechanism, delta, shift) in [
        (NoiseMechanism::Geometric, 1.0, 8),
        (NoiseMechanism::Geometric, 0.1, 13),
        (NoiseMechanism::DiscreteGaussian, 1.0, 2),
        (NoiseMechanism::DiscreteGaussian, 0.1, 5),
    ] {
        let tiny = params(40.0, (-80.0_f64).exp());
        let mut added = noise(mechanism, tiny, [tiny, tiny]);
        added.frequency = Some(params(1.0, delta));
        let parameters = Parameters { noise: Some(added), ..parameters(1) };
        let (outcome, sizes) = run(&parameters, &[vec![]]);
        let two = |from| sizes.of(Description::ExecutionPhaseTwoInput, from);
        let tuples = 2 * shift * 11;
        assert_eq!(two("worker1") - two("aggregator"), tuples);
        assert_eq!(two("worker2") - two("worker1"), tuples);
        // Three Duchies, none of which draws more than twice the shift for a bin.
        let histogram = outcome.usable_histogram.unwrap();
        assert!(histogram.iter().all(|bin| bin.unsigned_abs() <= 3 * shift), "{histogram:?}");
        assert!(histogram.iter().any(|bin| *bin != 0), "{histogram:?}");
    }
}

#[test]
fn internal_noise_leaves_reach_at_the_closed_form() {
    let registers: Vec<Register> = (1..=30).map(|i| (i, i as i64, 1)).collect();
    for mechanism in [NoiseMechanism::Geometric, NoiseMechanism::DiscreteGaussian] {
        for maximum_frequency in [10, 1] {
            let internal = params(1.0, 1.0);
            let parameters = Parameters {
                maximum_frequency: MaximumFrequency::new(maximum_frequency).unwrap(),
                noise: Some(noise(mechanism, params(40.0, (-80.0_f64).exp()), [internal, internal])),
                ..parameters(1)
            };
            let (outcome, _) = run(&parameters, std::slice::from_ref(&registers));
            assert_eq!(outcome.active_registers, 30);
            let reach = outcome.estimate(&parameters).unwrap().reach;
            let expected = estimate::reach(&parameters.sketch, 30.0, 0.5, 0.0).unwrap().value;
            assert!((reach - expected).abs() < 1e-9);
            // The reference's integer bisection gives 64, one register and one person per sampled half more.
            assert!((reach - 64.0).abs() < 4.0, "{reach}");
        }
    }
}

/// The reference's case without data: every bin holds some of the noise.
#[test]
fn every_frequency_has_noise() {
    for (mechanism, shift) in [(NoiseMechanism::Geometric, 13), (NoiseMechanism::DiscreteGaussian, 5)] {
        let tiny = params(40.0, (-80.0_f64).exp());
        let mut added = noise(mechanism, tiny, [tiny, tiny]);
        added.frequency = Some(params(1.0, 0.1));
        let (outcome, _) = run(&Parameters { noise: Some(added), ..parameters(1) }, &[vec![]]);
        // Three Duchies' shifts have been taken off.
        let histogram = outcome.usable_histogram.unwrap();
        assert!(histogram.len() == 10 && histogram.iter().all(|bin| bin + 3 * shift > 0), "{histogram:?}");
    }
}

/// The reference's case with data: noise that is not deterministic moves the shares, and they still sum to 1.
#[test]
fn random_noise_moves_the_shares() {
    let sketch: Vec<Register> = (0..40).map(|i| (i, i as i64 + 1, if i < 10 { 2 } else { 3 })).collect();
    for (mechanism, shift) in [(NoiseMechanism::Geometric, 9), (NoiseMechanism::DiscreteGaussian, 3)] {
        let tiny = params(40.0, (-80.0_f64).exp());
        let mut added = noise(mechanism, tiny, [tiny, tiny]);
        added.frequency = Some(params(1.0, 0.5));
        let parameters = Parameters { noise: Some(added), ..parameters(1) };
        let (outcome, sizes) = run(&parameters, std::slice::from_ref(&sketch));
        let two = |from| sizes.of(Description::ExecutionPhaseTwoInput, from);
        assert_eq!(two("worker2") - two("worker1"), 2 * shift * 11);
        let histogram = outcome.usable_histogram.clone().unwrap();
        assert_ne!(histogram, [0, 10, 30, 0, 0, 0, 0, 0, 0, 0]);
        let shares = outcome.estimate(&parameters).unwrap().frequency.unwrap().shares;
        assert!(
            (shares.iter().sum::<f64>() - 1.0).abs() < 1e-9 && shares[1] != 0.25 && shares[2] != 0.75,
            "{shares:?}"
        );
    }
}

/// With a maximum frequency of 1 the setup keeps the index, byte for byte, and replaces key and count; it grows by the
/// noise's total.
#[test]
fn reach_alone_keeps_the_index_and_nothing_else() {
    let keys = keys(3);
    let upload = requisition(&keys, &[(1, 2, 3), (4, 5, 6)], 9);
    let tiny = params(40.0, (-80.0_f64).exp());
    let noised = noise(NoiseMechanism::Geometric, tiny, [tiny, tiny]);
    let bytes = |body: &Body| {
        let mut bytes = Vec::new();
        body.open().unwrap().read_to_end(&mut bytes).unwrap();
        bytes
    };
    let before = bytes(&upload);
    let (mut with, mut without) = (0, 0);
    for (noise, records) in [(None, &mut without), (Some(noised), &mut with)] {
        let parameters = Parameters { noise, maximum_frequency: MaximumFrequency::REACH_ONLY, ..parameters(1) };
        let step = duchy(&keys, &parameters, 0, 1).start(std::slice::from_ref(&upload), &MemoryWorkspace).unwrap();
        let Step::Wait { outbox, .. } = step else { panic!("{step:?}") };
        *records = outbox[0].body.records();
        let after = bytes(&outbox[0].body);
        for register in before.chunks_exact(192) {
            let kept = after.chunks_exact(192).find(|other| other[..64] == register[..64]).unwrap();
            assert!(kept[64..128] != register[64..128] && kept[128..] != register[128..]);
        }
    }
    // Shifts 4 for reach and, with one publisher, for publisher noise, and 7 for the blinded histogram: 2·4 + 2·4 + 7·2.
    assert_eq!((without, with), (2, 2 + 30));
}

#[test]
fn an_upload_of_another_size_is_refused() {
    let good = requisition(&keys(3), &[(1, 2, 3)], 9);
    assert!(check_requisition(&good).is_ok());
    for (bytes, records) in [(191, 1), (193, 1), (192, 2), (0, 1)] {
        let body: Body = Arc::new(MemoryBody::with_header(vec![0; bytes], 192, records, [0; 32]));
        let error = check_requisition(&body).unwrap_err();
        assert!(matches!(error, ProtocolError::BadBody { .. } | ProtocolError::BadRecord { .. }), "{bytes}: {error}");
    }
    let other_records: Body = Arc::new(MemoryBody::new(vec![0; 64], 64).unwrap());
    assert!(matches!(check_requisition(&other_records), Err(ProtocolError::BadBody { .. })));
}
