//! The noise of whole computations is the noise that was calibrated.

use crate::setup::{keys, noise, parameters, parties_of_run};
use halo_core::privacy::{MaximumFrequency, PrivacyParams};
use halo_duchy::protocol::MemoryWorkspace;
use halo_duchy::protocol::llv2::Parameters;
use halo_duchy::protocol::local::{self, Faithful};
use halo_sketch::noise::{NoiseCalibration, NoiseMechanism};

/// 500 computations (seeds 0 to 499) at ε = 1, δ = 0.01 with the exact calibration, two Duchies, one of them honest.
/// Mean and sample deviation lie within three of their standard errors (α = 0.003 each): that of the deviation of 500
/// Gaussian draws is 1/√998 of it, 3.2 %.
#[test]
fn reach_noise_has_the_calibrated_deviation() {
    let keys = keys(2);
    let tiny = PrivacyParams::new(40.0, 1e-9).unwrap();
    let reach = PrivacyParams::new(1.0, 0.01).unwrap();
    let mut added = noise(NoiseMechanism::DiscreteGaussian, reach, [tiny, tiny]);
    added.calibration = NoiseCalibration::Exact;
    added.honest_contributors = 1;
    let parameters =
        Parameters { maximum_frequency: MaximumFrequency::REACH_ONLY, noise: Some(added), ..parameters(1) };
    let people = 20;
    let sketch = (0..people).map(|i| (i, i as i64, 1)).collect::<Vec<_>>();
    let mut calibrated = 0.0;
    let draws: Vec<f64> = (0..500)
        .map(|run| {
            let parties = parties_of_run(&keys, &parameters, std::slice::from_ref(&sketch), run);
            let outcome = local::run(&parties, &MemoryWorkspace, &mut Faithful).unwrap();
            calibrated = outcome.reach_noise_sd;
            outcome.active_registers as f64 - people as f64
        })
        .collect();
    let count = draws.len() as f64;
    let mean = draws.iter().sum::<f64>() / count;
    let deviation = (draws.iter().map(|draw| (draw - mean).powi(2)).sum::<f64>() / (count - 1.0)).sqrt();
    assert!(
        (deviation / calibrated - 1.0).abs() < 3.0 / (2.0 * (count - 1.0)).sqrt(),
        "{deviation}, calibrated {calibrated}"
    );
    assert!(mean.abs() < 3.0 * calibrated / count.sqrt(), "mean {mean}");
}
