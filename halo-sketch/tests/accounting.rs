//! Composition and conversion of privacy costs, against published values, the reference's tests and outside accountants.
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use halo_core::privacy::{Delta, Epsilon, PrivacyParams};
use halo_sketch::{
    Error,
    accounting::{Acdp, Gdp, LedgerCharge, Units, Zcdp, gaussian_sigma},
    noise::Sensitivity,
};
use proptest::prelude::*;

fn close(value: f64, expected: f64, relative: f64) {
    assert!((value / expected - 1.0).abs() < relative, "{value:e} is not {expected:e}");
}

fn params(epsilon: f64, delta: f64) -> PrivacyParams {
    PrivacyParams::new(epsilon, delta).unwrap()
}

fn epsilon(value: f64) -> Epsilon {
    Epsilon::new(value).unwrap()
}

fn delta(value: f64) -> Delta {
    Delta::new(value).unwrap()
}

const ONE: Sensitivity = Sensitivity::scalar(1);

#[test]
fn gaussian_noise_is_calibrated_exactly() {
    // Published solutions of the analytic Gaussian mechanism.
    for (e, d, sigma) in [
        (0.1, 1e-9, 50.209_818_263_015),
        (0.1, 1e-5, 30.749_566_131_977),
        (0.5, 1e-6, 8.057_618_480_725),
        (1.0, 1e-5, 3.730_631_634_815_9),
        (1.0, 1e-12, 6.557_822_067_458_9),
        (1.0, 1e-15, 7.487_009_467_986_6),
        (2.0, 1e-9, 2.844_547_073_495_7),
        (5.0, 1e-5, 0.891_868_264_951_52),
        (10.0, 1e-5, 0.499_888_619_709_01),
        (3.0_f64.ln() / 10.0, 2e-6, 31.792_301_482_546),
    ] {
        close(gaussian_sigma(params(e, d), ONE), sigma, 1e-12);
        close(gaussian_sigma(params(e, d), Sensitivity::histogram()), sigma * 2.0_f64.sqrt(), 1e-12);
        // And back.
        let cost = Gdp::of_gaussian(ONE, sigma * sigma).unwrap();
        close(cost.delta(epsilon(e)), d, 1e-9);
        close(cost.epsilon(delta(d)), e, 1e-9);
    }
    assert_eq!(gaussian_sigma(params(1.0, 1.0), ONE), 0.0);
    assert_eq!(gaussian_sigma(params(1.0, 0.0), ONE), f64::INFINITY);
}

/// The reference's search for σ: doubling from 10⁻³, then halving to 10⁻⁶, and the middle. Its floor of 5·10⁻⁴ shows
/// where δ is 1.
fn reference_sigma(e: f64, d: f64) -> f64 {
    let enough = |sigma: f64| Gdp::of_gaussian(ONE, sigma * sigma).unwrap().delta(epsilon(e)) <= d;
    let mut high = 1e-3;
    while !enough(high) {
        high *= 2.0;
    }
    let mut low = high / 2.0;
    while high - low > 1e-6 {
        let middle = 0.5 * (low + high);
        if enough(middle) { high = middle } else { low = middle }
    }
    0.5 * (low + high)
}

#[test]
fn the_charges_of_the_reference_are_reproduced() {
    let ln3 = 3.0_f64.ln();
    for (e, d, n, rho, theta) in [
        (ln3 / 10.0, 2e-6, 1, 2.149_331_679_905_983e-4, 4.378_180_881_551_259e-7),
        (ln3 / 10.0, 2e-6, 3, 2.149_331_679_905_983e-4, 4.594_533_425_155_180_7e-7),
        (0.9, 0.5, 3, 0.125_825_640_933_585_86, 0.007_149_139_528_009_278),
        (1.0, 1e-15, 3, 0.007_051_178_301_426_351, 3.094_643_864_661_286_6e-17),
    ] {
        let cost = Acdp::multi_party(params(e, d), n).unwrap();
        close(cost.rho(), rho, 1e-12);
        close(cost.theta(), theta, 1e-12);
    }
    // Direct noise; the reference's σ is that of its search. Its δ comes from 1 − Φ, hence the 1 % at δ = 10⁻¹⁵.
    for (e, d, rho, tolerance) in [
        (ln3 / 10.0, 2e-6, 4.946_819_611_450_154e-4, 1e-6),
        (1.0, 1e-15, 0.008_879_369_920_630_19, 1e-2),
        (0.1, 1.0, 1_996_099.464_604_402_2, 1e-12),
    ] {
        close(Acdp::direct(ONE, reference_sigma(e, d).powi(2)).unwrap().rho(), rho, tolerance);
    }
    close(reference_sigma(1.0, 1e-12), 6.557_809_082_031_25, 2e-6);
    close(Acdp::direct(ONE, gaussian_sigma(params(1.0, 1e-15), ONE).powi(2)).unwrap().rho(), 0.008_919_76, 1e-6);
    // A histogram costs twice as much as a count.
    let histogram = Acdp::direct(Sensitivity::histogram(), 25.0).unwrap();
    assert_eq!(histogram.rho(), 2.0 * Acdp::direct(ONE, 25.0).unwrap().rho());
}

#[test]
fn charges_convert_to_delta_as_in_the_reference() {
    for (rho, theta, e, expected, tolerance) in [
        (0.1, 1e-5, 3.0, 2.108_553_871_763_024e-4, 1e-9),
        (0.04, 5e-6, 3.0, 1.054_276_846_159_383_5e-4, 1e-9),
        // The exact minimum; the reference's coarser search finds 0.26509577.
        (0.3, 1e-12, 0.5, 0.265_095_48, 1e-7),
        // A bound above 1 says nothing, and is still the reference's number.
        (0.04, 5e-6, 100.0, 1.344_058_570_908_068e38, 1e-12),
    ] {
        close(Acdp::new(rho, theta).unwrap().delta(epsilon(e)), expected, tolerance);
    }
    close(Acdp::new(0.3, 1e-12).unwrap().delta(epsilon(0.5)), 0.265_095_763_685_864_07, 2e-6);
    for (d, expected) in [(1e-5, 0.012_922_093_064_440_253), (0.1, 195.125_448_248_566_39)] {
        close(Acdp::multi_party(params(1.0, d), 3).unwrap().delta(epsilon(10.0)), expected, 1e-9);
    }
}

#[test]
fn a_budget_admits_what_the_reference_admits() {
    let charge = Acdp::new(0.04, 5e-6).unwrap();
    let (e, budget) = (epsilon(3.0), 2e-3);
    close(charge.repeated(9).delta(e), 0.001_622_905_69, 1e-8);
    close(charge.repeated(10).delta(e), 0.002_434_922_90, 1e-8);
    assert!(charge.repeated(9).delta(e) <= budget && charge.repeated(10).delta(e) > budget);
    // The exact conversion admits two more.
    close(charge.repeated(11).gaussian_delta(e), 0.001_872_22, 1e-5);
    close(charge.repeated(12).gaussian_delta(e), 0.002_478_30, 1e-5);
    assert!(charge.repeated(11).gaussian_delta(e) <= budget && charge.repeated(12).gaussian_delta(e) > budget);
}

/// The largest count that still fits.
fn largest(fits: impl Fn(u32) -> bool) -> u32 {
    let (mut low, mut high) = (0, 1 << 20);
    while low + 1 < high {
        let middle = (low + high) / 2;
        if fits(middle) { low = middle } else { high = middle }
    }
    low
}

#[test]
fn better_accounting_admits_more_queries() {
    // Budget, query, σ, and queries by adding up, advanced composition, loose and optimal zCDP, and GDP.
    for (budget, query, sigma, counts) in [
        ((1.0, 1e-9), (0.1, 1e-12), 61.539, [10, 2, 89, 113, 125]),
        ((1.0, 1e-9), (0.02, 1e-12), 295.01, [50, 55, 2050, 2606, 2882]),
        ((10.0, 1e-9), (0.1, 1e-12), 61.539, [100, 161, 7432, 8261, 8956]),
        ((10.0, 1e-5), (0.5, 1e-9), 10.674, [20, 8, 353, 406, 455]),
    ] {
        let (e, d) = (epsilon(budget.0), delta(budget.1));
        close(gaussian_sigma(params(query.0, query.1), ONE), sigma, 1e-4);
        let gdp = Gdp::within(params(query.0, query.1));
        let zcdp = gdp.to_zcdp();
        let adding = |k: u32| f64::from(k) * query.0 <= budget.0 + 1e-12 && f64::from(k) * query.1 <= budget.1;
        // Dwork, Rothblum and Vadhan with half of δ for the composition.
        let advanced = |k: u32| {
            let k = f64::from(k);
            let spread = (2.0 * k * (2.0 / budget.1).ln()).sqrt() * query.0;
            spread + k * query.0 * query.0.exp_m1() <= budget.0 && k * query.1 <= budget.1 / 2.0
        };
        let found = [
            largest(adding),
            largest(advanced),
            largest(|k| zcdp.repeated(k).loose_epsilon(d) <= budget.0),
            largest(|k| zcdp.repeated(k).delta(e) <= budget.1),
            largest(|k| gdp.repeated(k).delta(e) <= budget.1),
        ];
        assert_eq!(found, counts);
        // The conversions the other way say the same.
        let (most_rho, most_mu) = (Zcdp::within(params(budget.0, budget.1)), Gdp::within(params(budget.0, budget.1)));
        assert_eq!(largest(|k| zcdp.repeated(k) <= most_rho), counts[3]);
        assert_eq!(largest(|k| gdp.repeated(k) <= most_mu), counts[4]);
    }
}

#[test]
fn outside_conversions_of_zcdp_agree() {
    // opendp 0.16.0: make_zCDP_to_approxDP over then_gaussian(scale), map(d_in).epsilon(δ) and .delta(ε).
    for (rho, epsilons, deltas) in [
        (
            0.02,
            [0.530_676_719_042_100_7, 0.899_935_267_660_642, 1.163_287_326_297_887_8],
            [0.001_541_033_314_933_269_8, 8.825_254_987_221_19e-8],
        ),
        (
            0.32,
            [2.701_081_228_515_436_6, 4.063_695_842_925_23, 5.071_991_420_931_118],
            [0.280_499_817_934_282_25, 0.133_632_780_424_394_64],
        ),
        (
            0.0008,
            [0.078_876_754_611_657_37, 0.162_456_131_117_877_38, 0.218_356_591_586_075_32],
            [1.772_985_160_479_389_8e-37, 1.860_002_179_243_830_3e-139],
        ),
    ] {
        let cost = Zcdp::new(rho).unwrap();
        for (d, expected) in [1e-3, 1e-6, 1e-9].into_iter().zip(epsilons) {
            close(cost.epsilon(delta(d)), expected, 1e-9);
        }
        for (e, expected) in [0.5, 1.0].into_iter().zip(deltas) {
            close(cost.delta(epsilon(e)), expected, 1e-9);
        }
    }
}

#[test]
fn classical_calibration_is_wasteful_or_wrong() {
    // σ = √(2·ln(1.25/δ))/ε and the δ that it really gives: far below what was asked for, and above it at ε = 10.
    let true_share = |e: f64, d: f64| {
        let variance = 2.0 * (1.25 / d).ln() / (e * e);
        Gdp::of_gaussian(ONE, variance).unwrap().delta(epsilon(e)) / d
    };
    close(true_share(5.0, 1e-5), 0.13, 0.05);
    close(true_share(10.0, 1e-5), 2.27, 0.003);
    for d in [1e-9, 1e-5] {
        assert!((1e-4..3e-4).contains(&true_share(0.1, d)), "{}", true_share(0.1, d));
    }
}

#[test]
fn gaussian_composition_is_exact() {
    // The continuous values beside which privacy loss distributions are put.
    for (sigma, count, e, expected) in
        [(61.539_056, 125, 1.0, 9.475_7e-10), (10.673_897, 455, 10.0, 9.728_3e-6), (5.0, 20, 3.0, 3.797_63e-4)]
    {
        let cost = Gdp::of_gaussian(ONE, sigma * sigma).unwrap().repeated(count);
        close(cost.delta(epsilon(e)), expected, 1e-5);
    }
}

#[test]
fn what_is_no_cost_is_refused() {
    let range = |error: Error| assert!(matches!(error, Error::OutOfRange { .. }), "{error}");
    for bad in [-1e-300, f64::NAN, f64::INFINITY] {
        range(Gdp::new(bad).unwrap_err());
        range(Zcdp::new(bad).unwrap_err());
        range(Acdp::new(bad, 0.0).unwrap_err());
        range(Acdp::new(0.0, bad).unwrap_err());
        range(Gdp::of_gaussian(ONE, bad).unwrap_err());
        range(Zcdp::of_gaussian(ONE, bad).unwrap_err());
        range(Units::round_up(bad).unwrap_err());
        range(Units::round_down(bad).unwrap_err());
    }
    range(Acdp::direct(ONE, 0.0).unwrap_err());
    range(Acdp::multi_party(params(1.0, 0.0), 3).unwrap_err());
    range(Acdp::multi_party(params(1.0, 0.1), 0).unwrap_err());
    range(Units::round_up(1.9e19).unwrap_err());
    range(Units::from_raw(u128::MAX).unwrap_err());
    range(Units::MAX.plus(Units::round_up(1e-30).unwrap()).unwrap_err());
    range(Units::ZERO.minus(Units::round_up(1e-30).unwrap()).unwrap_err());
}

#[test]
fn nothing_costs_nothing() {
    let (e, d) = (epsilon(1.0), delta(0.0));
    assert_eq!((Gdp::NOTHING.delta(e), Gdp::NOTHING.epsilon(d)), (0.0, 0.0));
    assert_eq!((Zcdp::NOTHING.delta(e), Zcdp::NOTHING.epsilon(d)), (0.0, 0.0));
    assert_eq!(Acdp::NOTHING.delta(e), 0.0);
    assert_eq!(Acdp::NOTHING.charge().unwrap(), LedgerCharge::default());
    assert_eq!(Zcdp::NOTHING.loose_epsilon(d), 0.0);
    assert_eq!(Zcdp::new(0.1).unwrap().epsilon(d), f64::INFINITY);
    assert_eq!((Gdp::within(params(1.0, 0.0)), Zcdp::within(params(1.0, 0.0))), (Gdp::NOTHING, Zcdp::NOTHING));
}

#[test]
fn charges_round_up_and_limits_down() {
    assert_eq!(Units::round_up(1.0).unwrap().raw(), Units::PER_ONE);
    assert_eq!(Units::round_up(1e-30).unwrap().raw(), 1);
    assert_eq!(Units::round_down(1e-30).unwrap(), Units::ZERO);
    // A double of 0.1 is 0x1.999999999999ap-4: 2^-56 is its last digit, so 2^-60 holds it exactly.
    assert_eq!(Units::round_up(0.1).unwrap(), Units::round_down(0.1).unwrap());
    // Back to doubles, again upwards.
    let odd = Units::from_raw((1 << 80) + 1).unwrap();
    assert!(odd.to_f64_up() > (1u64 << 20) as f64);
    assert_eq!(Units::from_raw(1 << 80).unwrap().to_f64_up(), (1u64 << 20) as f64);
    // A refund leaves the balance as it was, which floats do not.
    let (large, small) =
        (Acdp::new(7.3, 1e-3).unwrap().charge().unwrap(), Acdp::new(1e-12, 1e-17).unwrap().charge().unwrap());
    let balance = large.plus(small).unwrap();
    assert_eq!(balance.minus(small).unwrap(), large);
    assert_eq!(balance.minus(large).unwrap(), small);
    assert!(small.minus(large).is_err());
    // A million smallest charges are a million units, not nothing.
    assert_eq!(Acdp::from(large).charge().unwrap(), large);
}

proptest! {
    #[test]
    fn a_charge_is_never_below_its_cost(rho in 0.0..1e6_f64, theta in 0.0..1.0_f64, count in 1_u32..50) {
        let cost = Acdp::new(rho, theta).unwrap();
        let mut booked = LedgerCharge::default();
        for _ in 0..count {
            booked = booked.plus(cost.charge().unwrap()).unwrap();
        }
        let back = Acdp::from(booked);
        // A product of doubles may itself be rounded up by half a unit in the last place.
        prop_assert!(back.rho() >= cost.repeated(count).rho() * (1.0 - 1e-15));
        prop_assert!(back.theta() >= cost.repeated(count).theta() * (1.0 - 1e-15));
        prop_assert!(back.rho() <= cost.repeated(count).rho() * (1.0 + 1e-15) + 1e-16);
        prop_assert!(Units::round_up(rho).unwrap() >= Units::round_down(rho).unwrap());
    }

    #[test]
    fn conversions_are_inverse_and_ordered(log_mu in -6.0..2.0_f64, log_delta in -27.0..-1.0_f64, log_epsilon in -4.0..3.0_f64) {
        let (mu, d, e) = (log_mu.exp(), log_delta.exp(), log_epsilon.exp());
        let cost = Gdp::new(mu).unwrap();
        let exact = cost.epsilon(delta(d));
        let optimal = cost.to_zcdp().epsilon(delta(d));
        // The exact conversion is the smallest, and each is a true bound.
        prop_assert!(exact <= optimal * (1.0 + 1e-9) && optimal <= cost.to_zcdp().loose_epsilon(delta(d)) * (1.0 + 1e-9));
        if exact > 0.0 {
            prop_assert!((cost.delta(epsilon(exact)) / d - 1.0).abs() < 1e-6);
        }
        if optimal > 0.0 {
            prop_assert!((cost.to_zcdp().delta(epsilon(optimal)) / d - 1.0).abs() < 1e-6);
        }
        let most = Gdp::within(params(e, d));
        prop_assert!(most.delta(epsilon(e)) <= d);
        prop_assert!(most.mu() == 0.0 || Gdp::new(most.mu() * 1.000_001).unwrap().delta(epsilon(e)) > d);
        let most = Zcdp::within(params(e, d));
        prop_assert!(most.delta(epsilon(e)) <= d * (1.0 + 1e-9));
        prop_assert!(Zcdp::new(most.rho() * 1.000_001).unwrap().delta(epsilon(e)) > d);
    }

    #[test]
    fn costs_add_up_in_any_order(one in 0.0..10.0_f64, other in 0.0..10.0_f64) {
        let (a, b) = (Gdp::new(one).unwrap(), Gdp::new(other).unwrap());
        prop_assert_eq!(a.and(b), b.and(a));
        prop_assert!((a.and(b).to_zcdp().rho() - a.to_zcdp().and(b.to_zcdp()).rho()).abs() < 1e-12);
        prop_assert!((a.to_zcdp().as_gaussian().mu() - a.mu()).abs() < 1e-12);
    }
}

#[cfg(feature = "pld")]
mod loss_distributions {
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
        let coins = |count: u32| -> Vec<f64> {
            let mut row = vec![1.0];
            for _ in 0..count {
                let shifted = std::iter::once(&0.0).chain(&row);
                row = row.iter().chain(std::iter::once(&0.0)).zip(shifted).map(|(p, q)| 0.5 * (p + q)).collect();
            }
            row
        };
        let lost = |count: u32, e: f64| {
            let mut one = coins(count);
            one.push(0.0);
            let mut other = one.clone();
            other.rotate_right(1);
            PrivacyLoss::of_outcomes(&one, &other, 1e-5).unwrap().delta(epsilon(e))
        };
        close(lost(100, 1.0), 8.002_551e-8, 1e-6);
        for (e, d, count) in [(1.0, 1e-5, 62), (1.0, 1e-6, 80), (1.0, 1e-9, 136), (0.5, 1e-6, 268), (3.0, 1e-9, 34)] {
            assert!(lost(count, e) <= d && lost(count - 1, e) > d, "epsilon {e}, delta {d}");
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
}
