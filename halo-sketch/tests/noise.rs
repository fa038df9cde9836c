//! Amounts of noise, and the distributions of what is drawn. Statistical tests have fixed seeds, so they never flake;
//! their thresholds are quantiles at α = 10⁻⁴.
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use halo_core::privacy::PrivacyParams;
use halo_sketch::{
    Error,
    noise::{
        MAX_SHIFT, NoiseCalibration, NoiseMechanism, NoiseSpec, Sensitivity, ShiftedNoise,
        sampler::{self, Rational},
    },
};
use proptest::prelude::*;
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

fn spec(
    mechanism: NoiseMechanism,
    calibration: NoiseCalibration,
    epsilon: f64,
    delta: f64,
    l1: u32,
    n: u32,
) -> NoiseSpec {
    NoiseSpec {
        mechanism,
        calibration,
        params: PrivacyParams::new(epsilon, delta).unwrap(),
        sensitivity: if l1 == 2 { Sensitivity::histogram() } else { Sensitivity::scalar(l1) },
        contributors: n,
        honest_contributors: n,
    }
}

fn reference_shift(mechanism: NoiseMechanism, epsilon: f64, delta: f64, l1: u32, n: u32) -> u64 {
    spec(mechanism, NoiseCalibration::Reference, epsilon, delta, l1, n).calibrate().unwrap().shift()
}

#[test]
fn the_reference_calibration_is_reproduced() {
    use NoiseMechanism::{DiscreteGaussian, Geometric};
    let ln3 = 3.0_f64.ln();
    // Blinded histogram, publisher noise for 3 publishers, reach, frequency.
    assert_eq!(reference_shift(Geometric, ln3 / 10.0, 2e-6, 2, 2), 291);
    assert_eq!(reference_shift(DiscreteGaussian, ln3 / 10.0, 2e-6, 2, 2), 189);
    assert_eq!(reference_shift(Geometric, ln3 / 10.0, 2e-6, 3, 2), 447);
    assert_eq!(reference_shift(DiscreteGaussian, ln3 / 10.0, 2e-6, 3, 4), 137);
    assert_eq!(reference_shift(Geometric, 0.35 * ln3, 2e-6, 1, 2), 41);
    assert_eq!(reference_shift(DiscreteGaussian, 0.35 * ln3, 2e-6, 1, 2), 55);
    assert_eq!(reference_shift(Geometric, 0.35 * ln3, 2e-6, 2, 2), 84);
    assert_eq!(reference_shift(DiscreteGaussian, 0.35 * ln3, 2e-6, 2, 3), 45);
    assert_eq!(reference_shift(Geometric, ln3 / 10.0, 2e-6, 3, 1), 428);
    assert_eq!(reference_shift(DiscreteGaussian, ln3 / 10.0, 2e-6, 1, 1), 261);
    assert_eq!(reference_shift(DiscreteGaussian, ln3 / 10.0, 2e-6, 1, 3), 156);
    assert_eq!(reference_shift(Geometric, 1.0, 1e-5, 1, 3), 15);
    assert_eq!(reference_shift(Geometric, 1.0, 1.0, 2, 2), 7);
    for (delta, geometric, gaussian) in [(1.0, 8, 2), (0.1, 13, 5), (0.5, 9, 3)] {
        assert_eq!(reference_shift(Geometric, 1.0, delta, 2, 3), geometric);
        assert_eq!(reference_shift(DiscreteGaussian, 1.0, delta, 2, 3), gaussian);
    }
    for (epsilon, delta, shift) in
        [(0.0033, 1e-5, 4_616), (0.01, 1e-9, 2_588), (0.1, 1e-9, 260), (1e-5, 1e-9, 2_587_701)]
    {
        assert_eq!(reference_shift(DiscreteGaussian, epsilon, delta, 1, 3), shift);
    }
    let (tiny, small) = ((-80.0_f64).exp(), (-40.0_f64).exp());
    for (delta, l1, geometric, gaussian) in [(tiny, 2, 7, 3), (small, 3, 7, 2), (tiny, 1, 4, 3)] {
        assert_eq!(reference_shift(Geometric, 40.0, delta, l1, 3), geometric);
        assert_eq!(reference_shift(DiscreteGaussian, 40.0, delta, l1, 3), gaussian);
    }
}

#[test]
fn the_reference_deviations_are_reproduced() {
    let ln3 = 3.0_f64.ln();
    // ε, δ, contributors, σ of the sum, σ of one.
    for (epsilon, delta, n, total, one) in [
        (ln3 / 10.0, 2e-6, 1, 48.231_779_140_887_07, 48.231),
        (ln3 / 10.0, 2e-6, 4, 48.231_779_140_887_07, 24.115),
        (0.0033, 1e-5, 3, 1510.86, 872.29),
    ] {
        let noise = spec(NoiseMechanism::DiscreteGaussian, NoiseCalibration::Reference, epsilon, delta, 1, n);
        let deviation = noise.calibrate().unwrap().total_standard_deviation();
        assert!((deviation / total - 1.0).abs() < 1e-5, "{deviation}");
        assert!((deviation / f64::from(n).sqrt() / one - 1.0).abs() < 5e-5, "{deviation}");
    }
    // The noise of a publisher among three: the variance of a two-sided geometric is 2p/(1 − p)².
    let noise = spec(NoiseMechanism::Geometric, NoiseCalibration::Reference, ln3 / 10.0, 2e-6, 3, 1);
    let variance = noise.calibrate().unwrap().total_standard_deviation().powi(2);
    let ratio = 1.0 + 1.0 / variance - ((1.0 + 1.0 / variance).powi(2) - 1.0).sqrt();
    assert!((ratio - 0.964).abs() < 5e-4, "{ratio}");
}

#[test]
fn exact_noise_is_as_small_as_the_guarantee_allows() {
    // Just above the continuous optimum for half the δ.
    let noise = spec(NoiseMechanism::DiscreteGaussian, NoiseCalibration::Exact, 1.0, 1e-9, 1, 1).calibrate().unwrap();
    let deviation = noise.total_standard_deviation();
    assert!((5.5..5.8).contains(&deviation), "{deviation}");
    let histogram =
        spec(NoiseMechanism::DiscreteGaussian, NoiseCalibration::Exact, 1.0, 1e-9, 2, 1).calibrate().unwrap();
    let ratio = histogram.total_standard_deviation() / deviation;
    assert!((ratio / 2.0_f64.sqrt() - 1.0).abs() < 0.01, "{ratio}");
    // One honest of three: each adds all the noise that is needed.
    let mut one_honest = spec(NoiseMechanism::DiscreteGaussian, NoiseCalibration::Exact, 1.0, 1e-9, 1, 3);
    one_honest.honest_contributors = 1;
    let all = one_honest.calibrate().unwrap();
    assert!((all.total_standard_deviation() / deviation / 3.0_f64.sqrt() - 1.0).abs() < 1e-9);
    assert_eq!(all.shift(), noise.shift());
    let shared = spec(NoiseMechanism::DiscreteGaussian, NoiseCalibration::Exact, 0.1, 1e-9, 1, 3).calibrate().unwrap();
    assert!((50.0..53.0).contains(&shared.total_standard_deviation()));
}

#[test]
fn what_cannot_be_is_refused() {
    let good = spec(NoiseMechanism::DiscreteGaussian, NoiseCalibration::Exact, 1.0, 1e-9, 1, 3);
    assert!(good.calibrate().is_ok());
    let refused = |spec: NoiseSpec| spec.calibrate().unwrap_err();
    let range = |error: Error| matches!(error, Error::OutOfRange { .. });
    assert!(range(refused(NoiseSpec { params: PrivacyParams::new(1.0, 0.0).unwrap(), ..good })));
    assert!(range(refused(NoiseSpec { contributors: 0, ..good })));
    assert!(range(refused(NoiseSpec { honest_contributors: 0, ..good })));
    assert!(range(refused(NoiseSpec { honest_contributors: 4, ..good })));
    assert!(range(refused(NoiseSpec { sensitivity: Sensitivity { l1: 3, l2_squared: 3 }, ..good })));
    assert!(range(refused(NoiseSpec { sensitivity: Sensitivity::scalar(0), ..good })));
    // Far outside of all ranges, with every mechanism and calibration: refused, and no panic.
    for mechanism in [NoiseMechanism::DiscreteGaussian, NoiseMechanism::Geometric] {
        for calibration in [NoiseCalibration::Exact, NoiseCalibration::Reference] {
            for epsilon in [1e-300, 1e-40, 1e-9, 1e5, 1e30, 1e300] {
                refused(spec(mechanism, calibration, epsilon, 1e-9, 1, 3));
            }
        }
    }
    let little = NoiseSpec { params: PrivacyParams::new(1e-9, 1e-9).unwrap(), ..good };
    let error = refused(little);
    assert!(matches!(error, Error::TooMuchNoise { .. }), "{error}");
    assert!(error.to_string().contains("larger epsilon"), "{error}");
}

/// Pearson's statistic over cells −`reach`..=`reach` and the rest.
fn chi_squared(draws: &[i64], reach: i64, pmf: impl Fn(i64) -> f64) -> f64 {
    let n = draws.len() as f64;
    let mut statistic = 0.0;
    let (mut inside, mut expected_inside) = (0.0, 0.0);
    for cell in -reach..=reach {
        let observed = draws.iter().filter(|draw| **draw == cell).count() as f64;
        let expected = n * pmf(cell);
        statistic += (observed - expected).powi(2) / expected;
        inside += observed;
        expected_inside += expected;
    }
    let expected = n - expected_inside;
    statistic + (n - inside - expected).powi(2) / expected
}

#[test]
fn discrete_gaussian_has_its_distribution() {
    // P(0), P(1), P(2) for each σ²; n = 200,000 each, χ² with at most 6 degrees of freedom: 99.99 % quantile 27.9.
    for (seed, variance, known) in [
        (9, 0.25, [0.786_570_707_041_95, 0.106_450_769_423_14, 0.000_263_865_076_415_43]),
        (1, 1.0, [0.398_942_278_266_86, 0.241_970_723_224_46, 0.053_990_966_224_305]),
        (2, 4.0, [0.199_471_140_200_72, 0.176_032_663_382_15, 0.120_985_362_259_57]),
        (3, 9.0, [0.132_980_760_133_81, 0.125_794_409_231, 0.106_482_668_507_45]),
        (10, 100.0, [0.039_894_228_040_143, 0.039_695_254_747_701, 0.039_104_269_397_546]),
    ] {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let sigma_squared = Rational::at_least(variance);
        let draws: Vec<i64> =
            (0..200_000).map(|_| sampler::discrete_gaussian_within(sigma_squared, 1_000, &mut rng)).collect();
        let statistic = chi_squared(&draws, 2, |cell| known[cell.unsigned_abs() as usize]);
        assert!(statistic < 27.9, "variance {variance}: {statistic}");
    }
}

#[test]
fn polya_shares_add_up_to_a_two_sided_geometric() {
    // ε = ln 3 in 3 shares: P0 = 1/2, P1 = 1/6, P2 = 1/18; n = 100,000, 99.99 % quantile of χ² with 6 degrees: 27.9.
    let noise =
        spec(NoiseMechanism::Geometric, NoiseCalibration::Exact, 3.0_f64.ln(), 1e-12, 1, 3).calibrate().unwrap();
    let mut rng = ChaCha20Rng::seed_from_u64(4);
    let draws: Vec<i64> =
        (0..100_000).map(|_| (0..3).map(|_| noise.sample(&mut rng) as i64 - noise.shift() as i64).sum()).collect();
    let statistic = chi_squared(&draws, 2, |cell| 0.5 / 3.0_f64.powi(cell.unsigned_abs() as i32));
    assert!(statistic < 27.9, "{statistic}");
}

#[test]
fn one_contributor_draws_a_two_sided_geometric() {
    // P0, P1 and the rest: n = 100,000, 99.99 % quantile of χ² with 3 degrees of freedom: 21.1.
    let ln3 = 3.0_f64.ln();
    for (seed, epsilon, known) in [
        (11, 1.0, [0.462_117_157_26, 0.170_003_401_568_55]),
        (12, ln3 / 10.0, [0.054_875_432_327_761, 0.054_875_432_327_761 * (-ln3 / 10.0).exp()]),
    ] {
        let noise = spec(NoiseMechanism::Geometric, NoiseCalibration::Exact, epsilon, 1e-12, 1, 1).calibrate().unwrap();
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let draws: Vec<i64> = (0..100_000).map(|_| noise.sample(&mut rng) as i64 - noise.shift() as i64).collect();
        let statistic = chi_squared(&draws, 1, |cell| known[cell.unsigned_abs() as usize]);
        assert!(statistic < 21.1, "ε = {epsilon}: {statistic}");
    }
}

/// The reference's own test of its geometric sampler: ratio 0.6, three contributors, each cut to ±10 around 20.
#[test]
fn cut_shares_add_up_as_at_the_reference() {
    let exponent = Rational::at_most(-0.6_f64.ln());
    let mut rng = ChaCha20Rng::seed_from_u64(13);
    let mut one = || {
        let up = sampler::polya_within(exponent, 3, 10, &mut rng) as i64;
        20 + up - sampler::polya_within(exponent, 3, 10, &mut rng) as i64
    };
    // n = 100,000 draws of one contributor, whose deviation is 1.6: the mean's is 0.005.
    let draws: Vec<i64> = (0..100_000).map(|_| one()).collect();
    let mean = draws.iter().sum::<i64>() as f64 / 1e5;
    assert!((mean - 20.0).abs() < 0.05, "{mean}");
    assert_eq!((draws.iter().min(), draws.iter().max()), (Some(&10), Some(&30)));
    let sums: Vec<i64> = (0..100_000).map(|_| one() + one() + one() - 60).collect();
    assert_frequencies(&sums, 20, |cell| 0.25 * 0.6_f64.powi(cell.unsigned_abs() as i32));
}

/// The reference's own tests of its Gaussian sampler: σ 5 cut to ±10, and sums of four.
#[test]
fn cut_gaussians_add_up_as_at_the_reference() {
    let mut rng = ChaCha20Rng::seed_from_u64(14);
    let mut sums = |contributors: u32, variance: f64, bound: u64| -> Vec<i64> {
        let sigma_squared = Rational::at_least(variance);
        let mut one = || sampler::discrete_gaussian_within(sigma_squared, bound, &mut rng);
        (0..100_000).map(|_| (0..contributors).map(|_| one()).sum()).collect()
    };
    let weight = |cell: i64, variance: f64| (-((cell * cell) as f64) / (2.0 * variance)).exp();
    let within_ten: f64 = (-10..=10).map(|cell| weight(cell, 25.0)).sum();
    let draws = sums(1, 25.0, 10);
    assert_frequencies(&draws, 10, |cell| weight(cell, 25.0) / within_ten);
    assert!(draws.iter().all(|draw| draw.abs() <= 10));
    // Four of σ 1, and four that have σ 20 together.
    for (one, bound, reach) in [(1.0, 20, 10), (100.0, 1_000, 60)] {
        let total = 4.0 * one;
        let normal = (2.0 * std::f64::consts::PI * total).sqrt();
        assert_frequencies(&sums(4, one, bound), reach, |cell| weight(cell, total) / normal);
    }
}

/// Relative frequencies of the cells −`reach`..=`reach` are within 0.01 of `pmf`, and Pearson's statistic over the cells
/// where 20 or more are expected stays below its 99.99 % quantile (Wilson and Hilferty's approximation).
fn assert_frequencies(draws: &[i64], reach: i64, pmf: impl Fn(i64) -> f64) {
    let n = draws.len() as f64;
    let (mut statistic, mut cells) = (0.0, 0.0_f64);
    for cell in -reach..=reach {
        let observed = draws.iter().filter(|draw| **draw == cell).count() as f64;
        let expected = n * pmf(cell);
        assert!((observed - expected).abs() <= 0.01 * n, "{cell}: {observed} instead of {expected}");
        if expected >= 20.0 {
            statistic += (observed - expected).powi(2) / expected;
            cells += 1.0;
        }
    }
    let limit = cells * (1.0 - 2.0 / (9.0 * cells) + 3.719 * (2.0 / (9.0 * cells)).sqrt()).powi(3);
    assert!(statistic < limit, "{statistic} over {cells} cells");
}

#[test]
fn a_single_polya_share_has_its_distribution() {
    // NB(1/3, p = 0.89595845984076) and NB(1/2, 1/2): P(0..3); n = 100,000, 99.99 % quantile of χ² with 4 degrees of
    // freedom: 23.5.
    for (seed, ratio, shares, known) in [
        (5, 0.895_958_459_840_76_f64, 3, [0.470_329_541_3, 0.140_465_243_8, 0.083_900_682_33, 0.058_466_742_54]),
        (15, 0.5, 2, [0.5_f64.sqrt(), 0.176_776_695_3, 0.066_291_260_74, 0.027_621_358_64]),
    ] {
        let exponent = Rational::at_most(-ratio.ln());
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let draws: Vec<u64> = (0..100_000).map(|_| sampler::polya_within(exponent, shares, 10_000, &mut rng)).collect();
        let mut statistic = 0.0;
        for (cell, probability) in known.iter().enumerate() {
            let observed = draws.iter().filter(|draw| **draw == cell as u64).count() as f64;
            statistic += (observed - 1e5 * probability).powi(2) / (1e5 * probability);
        }
        let rest = 1.0 - known.iter().sum::<f64>();
        let observed = draws.iter().filter(|draw| **draw > 3).count() as f64;
        statistic += (observed - 1e5 * rest).powi(2) / (1e5 * rest);
        assert!(statistic < 23.5, "1/{shares}: {statistic}");
    }
}

#[test]
fn sums_have_the_calibrated_deviation() {
    // n = 4,000 sums of 3: the sample deviation is within 5 % (four and a half standard errors).
    for (seed, mechanism) in [(6, NoiseMechanism::DiscreteGaussian), (7, NoiseMechanism::Geometric)] {
        for honest in [1, 3] {
            let mut spec = spec(mechanism, NoiseCalibration::Exact, 0.2, 1e-9, 1, 3);
            spec.honest_contributors = honest;
            let noise = spec.calibrate().unwrap();
            let mut rng = ChaCha20Rng::seed_from_u64(seed);
            let sums: Vec<f64> = (0..4_000)
                .map(|_| (0..3).map(|_| noise.sample(&mut rng) as f64 - noise.shift() as f64).sum())
                .collect();
            let variance = sums.iter().map(|sum| sum * sum).sum::<f64>() / sums.len() as f64;
            let ratio = variance.sqrt() / noise.total_standard_deviation();
            let width = if mechanism == NoiseMechanism::Geometric { 0.08 } else { 0.05 };
            assert!((ratio - 1.0).abs() < width, "{mechanism:?}, {honest} honest: {ratio}");
        }
    }
}

#[test]
fn a_seed_replays_the_noise() {
    let noise = spec(NoiseMechanism::DiscreteGaussian, NoiseCalibration::Exact, 0.5, 1e-6, 2, 3).calibrate().unwrap();
    let draw = |noise: &ShiftedNoise| {
        let mut rng = ChaCha20Rng::seed_from_u64(8);
        (0..100).map(|_| noise.sample(&mut rng)).collect::<Vec<_>>()
    };
    assert_eq!(draw(&noise), draw(&noise));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn every_accepted_setting_draws_within_its_range(
        seed: u64,
        log_epsilon in -12.0..9.0_f64,
        log_delta in -34.0..-0.01_f64,
        contributors in 1_u32..6,
        honest in 1_u32..6,
        l1 in 1_u32..5,
        gaussian: bool,
        reference: bool,
    ) {
        let mechanism = if gaussian { NoiseMechanism::DiscreteGaussian } else { NoiseMechanism::Geometric };
        let calibration = if reference { NoiseCalibration::Reference } else { NoiseCalibration::Exact };
        let mut spec = spec(mechanism, calibration, log_epsilon.exp(), log_delta.exp(), l1, contributors);
        spec.honest_contributors = honest.min(contributors);
        if let Ok(noise) = spec.calibrate() {
            prop_assert!(noise.shift() <= MAX_SHIFT);
            prop_assert!(noise.total_standard_deviation().is_finite());
            let mut rng = ChaCha20Rng::seed_from_u64(seed);
            for _ in 0..3 {
                prop_assert!(noise.sample(&mut rng) <= 2 * noise.shift());
            }
        }
    }

    #[test]
    fn uniform_integers_are_in_range(seed: u64, below in 1_u128..=u128::MAX) {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        prop_assert!(sampler::uniform_below(below, &mut rng) < below);
    }
}
