//! How much noise goes around, with the calibration of the reference, and that it leaves the result where it is.

use crate::setup::{Register, keys, noise, parameters, parties};
use halo_core::privacy::{MaximumFrequency, PrivacyParams};
use halo_duchy::protocol::llv2::{Outcome, Parameters};
use halo_duchy::protocol::local::{self, Envelope, Interceptor};
use halo_duchy::protocol::{Description, MemoryWorkspace};
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
