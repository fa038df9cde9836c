//! Privacy loss distributions.

use super::*;
use halo_sketch::{
    accounting::pld::PrivacyLoss,
    noise::{NoiseCalibration, NoiseMechanism, NoiseSpec},
};

const GRID: f64 = 1e-4;

#[test]
fn gaussian_composition_agrees_with_the_closed_form() {
    // Against the exact conversion at 10⁻⁴ (the grid's share), and against dp_accounting 0.6.0
    // (pld.from_gaussian_mechanism, value_discretization_interval 1e-4, self_compose).
    for (sigma, count, e, outside) in [
        (61.539_056, 125, 1.0, 9.476_715_034_547_818e-10),
        (10.673_897, 455, 10.0, 9.728_307_575_653_158e-6),
        (5.0, 20, 3.0, 3.797_630_820_122_273e-4),
    ] {
        let once = Gdp::of_gaussian(ONE, sigma * sigma).unwrap();
        let composed = PrivacyLoss::gaussian(once, GRID).unwrap().repeated(count).unwrap();
        let found = composed.delta(epsilon(e));
        let exact = once.repeated(count).delta(epsilon(e));
        assert!(found >= exact * (1.0 - 1e-6), "{found:e} is below {exact:e}");
        close(found, exact, 2e-4);
        close(found, outside, 2e-4);
    }
}

#[test]
fn discrete_mechanisms_agree_with_outside_accountants() {
    let gaussian = PrivacyLoss::discrete_gaussian(25.0, 1, GRID).unwrap();
    let laplace = PrivacyLoss::discrete_laplace(epsilon(0.1), 1, GRID).unwrap();
    // The project's own numbers of science 2.4, from a grid whose losses are rounded up: 5·10⁻⁴.
    close(gaussian.delta(epsilon(1.0)), 1.829_336_02e-8, 1e-6);
    let (twenty, hundred) = (gaussian.repeated(20).unwrap(), laplace.repeated(100).unwrap());
    close(twenty.delta(epsilon(3.0)), 3.789_67e-4, 5e-4);
    close(hundred.delta(epsilon(3.0)), 1.361_398_7e-3, 1e-6);
    close(hundred.epsilon(delta(1e-6)), 4.774_568, 1e-6);
    let mixed = gaussian.repeated(10).unwrap().and(&laplace.repeated(30).unwrap()).unwrap();
    close(mixed.epsilon(delta(1e-6)), 3.945_026, 1e-5);
    close(mixed.delta(epsilon(3.0)), 1.302_261e-4, 5e-4);
    // dp_accounting 0.6.0 (pld.from_discrete_gaussian_mechanism, from_discrete_laplace_mechanism,
    // value_discretization_interval 1e-4, connect the dots).
    close(gaussian.delta(epsilon(1.0)), 1.829_336_024_873_487e-8, 1e-7);
    close(twenty.delta(epsilon(3.0)), 3.788_940_951_744_450_4e-4, 1e-6);
    close(twenty.epsilon(delta(1e-6)), 4.306_154_443_539_176, 1e-6);
    close(hundred.delta(epsilon(3.0)), 1.361_398_694_848_071e-3, 1e-7);
    close(hundred.epsilon(delta(1e-6)), 4.774_567_590_121_524, 1e-7);
    close(mixed.epsilon(delta(1e-6)), 3.945_016_915_730_724, 1e-6);
    close(mixed.delta(epsilon(3.0)), 1.302_146_824_297_097e-4, 1e-6);
    // The same with sensitivity 3 and σ = 1.5.
    let wide = PrivacyLoss::discrete_gaussian(2.25, 3, GRID).unwrap();
    for (e, d) in [(0.5, 0.591_954_150_683_423), (2.0, 0.302_587_591_420_248_7), (5.0, 0.030_708_789_142_979_295)] {
        close(wide.delta(epsilon(e)), d, 1e-7);
    }
}

#[test]
fn single_releases_have_their_exact_delta() {
    // Two-sided geometric noise: δ(ε) = max(0, sum over outcomes), by hand for a change of 3 at rate 0.5.
    let loss = PrivacyLoss::discrete_laplace(epsilon(0.5), 3, GRID).unwrap();
    let pmf = |y: i32| 0.5_f64.exp_m1() / (0.5_f64.exp() + 1.0) * (-0.5 * f64::from(y.abs())).exp();
    for e in [0.2, 0.7, 1.2] {
        let exact: f64 = (-200..=200).map(|y| (pmf(y) - f64::exp(e) * pmf(y + 3)).max(0.0)).sum();
        close(loss.delta(epsilon(e)), exact, 1e-6);
    }
    assert!(loss.delta(epsilon(1.5)) < 1e-12);
    // A mechanism given by its outcomes: noise cut to ±10, whose outer outcomes only one side can have.
    let cut: Vec<f64> = (-12..=12).map(|y: i32| if y.abs() <= 10 { pmf(y) } else { 0.0 }).collect();
    let total: f64 = cut.iter().sum();
    let one: Vec<f64> = cut.iter().map(|p| p / total).collect();
    let mut other = one.clone();
    other.rotate_right(1);
    let loss = PrivacyLoss::of_outcomes(&one, &other, GRID).unwrap();
    let exact: f64 = one.iter().zip(&other).map(|(p, q)| (p - 0.3_f64.exp() * q).max(0.0)).sum();
    close(loss.delta(epsilon(0.3)), exact, 1e-6);
    assert!(loss.epsilon(delta(1e-9)).is_infinite(), "an outcome of one side only is never paid for by epsilon");
}

#[test]
fn roundings_of_the_transforms_are_small() {
    // A hundred times two-sided geometric noise, one by one and by squares: the loss is 0.1 times a sum of a hundred
    // signs. Deep in the tail the roundings remain; they stay below what is stated, and on the safe side of 0.
    let once = PrivacyLoss::discrete_laplace(epsilon(0.1), 1, GRID).unwrap();
    let squared = once.repeated(100).unwrap();
    let single = (1..100).fold(once.clone(), |sum, _| sum.and(&once).unwrap());
    let up: f64 = 1.0 / (1.0 + (-0.1_f64).exp());
    let mut binomial = vec![1.0];
    for _ in 0..100 {
        let mut next = vec![0.0; binomial.len() + 1];
        for (ups, p) in binomial.iter().enumerate() {
            next[ups] += p * (1.0 - up);
            next[ups + 1] += p * up;
        }
        binomial = next;
    }
    for e in [0.05, 1.0, 3.0, 5.0, 7.0, 9.0] {
        let lost = |(ups, p): (usize, &f64)| p * -(e - 0.1 * (2.0 * ups as f64 - 100.0)).min(0.0).exp_m1();
        let exact: f64 = binomial.iter().enumerate().map(lost).sum();
        for found in [&squared, &single].map(|loss| loss.delta(epsilon(e))) {
            assert!((found - exact).abs() < 1e-9 * exact + 1e-11, "epsilon {e}: {found:e} is not {exact:e}");
        }
    }
}

#[test]
fn discrete_gaussians_lose_what_their_sums_say() {
    // Science 2.3: exact δ of the discrete Gaussian, slightly above that of the continuous one.
    for (e, variance, exact, continuous) in [
        (1.0, 4.0, 0.007_248_776_8, 0.006_829_595_0),
        (1.0, 25.0, 1.829_336e-8, 1.754_633e-8),
        (0.1, 2500.0, 1.124_522e-9, 1.124_001e-9),
    ] {
        close(PrivacyLoss::discrete_gaussian(variance, 1, 1e-5).unwrap().delta(epsilon(e)), exact, 1e-6);
        close(Gdp::of_gaussian(ONE, variance).unwrap().delta(epsilon(e)), continuous, 1e-6);
    }
}

#[test]
fn coins_need_as_many_as_is_known() {
    // Science 2.6: the number of fair coins whose sum is (ε, δ)-private noise.
    // From the middle outwards, so that thousands of coins do not underflow everywhere.
    let coins = |count: u32| -> Vec<f64> {
        let middle = count / 2;
        let ratio = |heads: u32| f64::from(count - heads) / f64::from(heads + 1);
        let mut row = vec![1.0; count as usize + 1];
        (middle..count).for_each(|heads| row[heads as usize + 1] = row[heads as usize] * ratio(heads));
        (0..middle).rev().for_each(|heads| row[heads as usize] = row[heads as usize + 1] / ratio(heads));
        let total: f64 = row.iter().sum();
        row.into_iter().map(|weight| weight / total).collect()
    };
    let lost = |count: u32, e: f64| {
        let mut one = coins(count);
        one.push(0.0);
        let mut other = one.clone();
        other.rotate_right(1);
        PrivacyLoss::of_outcomes(&one, &other, 1e-5).unwrap().delta(epsilon(e))
    };
    close(lost(100, 1.0), 8.002_551e-8, 1e-6);
    let ln3 = 3.0_f64.ln();
    for (e, d, count) in [
        (1.0, 1e-5, 62),
        (1.0, 1e-6, 80),
        (1.0, 1e-9, 136),
        (0.5, 1e-6, 268),
        (ln3 / 10.0, 2e-6, 4049),
        (0.1, 1e-9, 10_097),
        (3.0, 1e-9, 34),
    ] {
        assert!(lost(count, e) <= d && lost(count - 1, e) > d, "epsilon {e}, delta {d}");
        // Their deviation is that of Gaussian noise and 6 % at most.
        let excess = 0.5 * f64::from(count).sqrt() / gaussian_sigma(params(e, d), ONE);
        assert!(e > 1.0 || (0.99..1.065).contains(&excess), "epsilon {e}, delta {d}: {excess}");
    }
}

#[test]
fn calibrated_noise_keeps_its_promise_with_its_cut() {
    // One contributor's noise as it is drawn, cut to ±μ, under a count that moves by the sensitivity.
    for (mechanism, e, d, change) in [
        (NoiseMechanism::DiscreteGaussian, 1.0, 1e-5, 1),
        (NoiseMechanism::DiscreteGaussian, 0.3, 1e-9, 1),
        (NoiseMechanism::DiscreteGaussian, 2.0, 1e-3, 3),
        (NoiseMechanism::Geometric, 1.0, 1e-5, 1),
        (NoiseMechanism::Geometric, 0.3, 1e-6, 2),
    ] {
        let noise = NoiseSpec {
            mechanism,
            calibration: NoiseCalibration::Exact,
            params: params(e, d),
            sensitivity: Sensitivity::scalar(change),
            contributors: 1,
            honest_contributors: 1,
        };
        let noise = noise.calibrate().unwrap();
        let cut = noise.shift() as i64;
        let weight = |y: i64| match mechanism {
            // Above a variance of 4 it equals the variance parameter.
            NoiseMechanism::DiscreteGaussian => {
                (-((y * y) as f64) / (2.0 * noise.total_standard_deviation().powi(2))).exp()
            }
            NoiseMechanism::Geometric => (-e / f64::from(change) * y.abs() as f64).exp(),
        };
        let mut one: Vec<f64> = (-cut..=cut).map(weight).collect();
        let total: f64 = one.iter().sum();
        one.iter_mut().for_each(|p| *p /= total);
        one.resize(one.len() + change as usize, 0.0);
        let mut other = one.clone();
        other.rotate_right(change as usize);
        let lost = PrivacyLoss::of_outcomes(&one, &other, 1e-5).unwrap().delta(epsilon(e));
        assert!(lost <= d, "{mechanism:?} at ({e}, {d}): {lost}");
        // Nor is much given away: geometric noise pays for its cut only, by a bound that is generous.
        let generosity = if mechanism == NoiseMechanism::Geometric { 50.0 } else { 10.0 };
        assert!(lost > d / generosity, "{mechanism:?} at ({e}, {d}): {lost}");
    }
}

#[test]
fn the_grid_only_adds() {
    // Coarser grids give larger δ at every ε.
    let at = |interval: f64, e: f64| {
        PrivacyLoss::discrete_gaussian(9.0, 1, interval).unwrap().repeated(5).unwrap().delta(epsilon(e))
    };
    for e in [0.1, 0.5, 1.0, 2.0] {
        let deltas = [1e-4, 1e-3, 1e-2, 0.1].map(|interval| at(interval, e));
        assert!(deltas.windows(2).all(|pair| pair[0] <= pair[1] * (1.0 + 1e-9)), "epsilon {e}: {deltas:?}");
    }
}

#[test]
fn no_release_loses_nothing() {
    let none = PrivacyLoss::discrete_gaussian(4.0, 1, GRID).unwrap().repeated(0).unwrap();
    assert_eq!((none.delta(epsilon(1e-9)), none.epsilon(delta(0.0))), (0.0, 0.0));
    let nothing = PrivacyLoss::gaussian(Gdp::NOTHING, GRID).unwrap();
    assert!(nothing.delta(epsilon(1e-9)) < 1e-12);
    let alike = PrivacyLoss::of_outcomes(&[0.5, 0.5], &[0.5, 0.5], GRID).unwrap();
    assert!(alike.repeated(1000).unwrap().delta(epsilon(1e-6)) < 1e-11);
}

#[test]
fn what_is_no_distribution_is_refused() {
    let range = |error: Error| assert!(matches!(error, Error::OutOfRange { .. }), "{error}");
    range(PrivacyLoss::discrete_gaussian(0.0, 1, GRID).unwrap_err());
    range(PrivacyLoss::discrete_gaussian(f64::NAN, 1, GRID).unwrap_err());
    range(PrivacyLoss::discrete_gaussian(4.0, 0, GRID).unwrap_err());
    range(PrivacyLoss::discrete_laplace(epsilon(0.1), 0, GRID).unwrap_err());
    range(PrivacyLoss::discrete_laplace(epsilon(1e9), 1, GRID).unwrap_err());
    range(PrivacyLoss::gaussian(Gdp::new(1.0).unwrap(), 0.0).unwrap_err());
    range(PrivacyLoss::gaussian(Gdp::new(1e200).unwrap(), GRID).unwrap_err());
    range(PrivacyLoss::of_outcomes(&[1.0], &[0.5, 0.5], GRID).unwrap_err());
    range(PrivacyLoss::of_outcomes(&[0.5, 0.6], &[0.5, 0.5], GRID).unwrap_err());
    range(PrivacyLoss::of_outcomes(&[0.5, 0.5], &[f64::NAN, 0.5], GRID).unwrap_err());
    let one = PrivacyLoss::discrete_gaussian(4.0, 1, GRID).unwrap();
    range(one.and(&PrivacyLoss::discrete_gaussian(4.0, 1, 1e-3).unwrap()).unwrap_err());
    let fine = PrivacyLoss::discrete_gaussian(4.0, 1, 4e-6).unwrap();
    range(fine.and(&fine).unwrap_err());
}
