//! Composition and conversion of privacy costs, against published values, the reference's tests and outside accountants.
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

#[cfg(feature = "pld")]
#[path = "accounting/loss_distributions.rs"]
mod loss_distributions;

use halo_core::privacy::{Delta, Epsilon, PrivacyParams};
use halo_sketch::{
    Error,
    accounting::{Acdp, Gdp, LedgerCharge, Units, Zcdp, excess_of_sum, gaussian_sigma},
    noise::Sensitivity,
    variance,
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
    for d in [1e-9, 1e-5] {
        assert!((1e-3..4.2e-3).contains(&true_share(1.0, d)), "{}", true_share(1.0, d));
    }
    close(true_share(5.0, 1e-5), 0.13, 0.05);
    close(true_share(10.0, 1e-5), 2.27, 0.003);
    for d in [1e-9, 1e-5] {
        assert!((1e-4..3e-4).contains(&true_share(0.1, d)), "{}", true_share(0.1, d));
    }
}

#[test]
fn classical_deviations() {
    let ln3 = 3.0_f64.ln();
    for (e, d, sigma) in [
        (0.1, 1e-9, 64.724_662_05),
        (0.1, 1e-5, 48.448_052_63),
        (0.5, 1e-6, 10.597_605_05),
        (1.0, 1e-5, 4.844_805_263),
        (1.0, 1e-12, 7.463_801_266),
        (1.0, 1e-15, 8.338_095_699),
        (2.0, 1e-9, 3.236_233_103),
        (5.0, 1e-5, 0.968_961_052_5),
        (10.0, 1e-5, 0.484_480_526_3),
        (ln3 / 10.0, 2e-6, 47.026_004_69),
    ] {
        // The reference gives half of δ to the cut.
        close(variance::reference_gaussian(params(e, 2.0 * d)).unwrap().sqrt(), sigma, 1e-9);
    }
}

#[test]
fn sums_of_discrete_gaussians_are_nearly_discrete_gaussians() {
    // τ = 10λ (science 2.2), and λ of the reference's noise at (0.9, 0.5) among three.
    close(10.0 * excess_of_sum(1.15 * 1.15, 3), 2.17e-5, 2e-3);
    close(10.0 * excess_of_sum(0.8 * 0.8, 3), 0.020_3, 3e-3);
    close(excess_of_sum(variance::reference_gaussian(params(0.9, 0.5)).unwrap() / 3.0, 3), 2.126_674e-6, 1e-6);
    assert_eq!(excess_of_sum(0.5, 1), 0.0);
    // What exact calibration leaves uncharged: deviations of 2 and more.
    assert!(10.0 * excess_of_sum(4.0, 50) < 1e-16);
    // Against the law itself: P of the sum of two over P of one, at its worst.
    for deviation in [0.8_f64, 1.0, 1.15] {
        let weight = |y: i32, variance: f64| (-f64::from(y * y) / (2.0 * variance)).exp();
        let pmf = |y: i32, variance: f64| weight(y, variance) / (-40..=40).map(|z| weight(z, variance)).sum::<f64>();
        let variance = deviation * deviation;
        let worst = (-8..=8).map(|y| {
            let sum: f64 = (-30..=30).map(|z| pmf(z, variance) * pmf(y - z, variance)).sum();
            (sum / pmf(y, 2.0 * variance)).ln().abs()
        });
        let worst = worst.fold(0.0, f64::max);
        assert!(worst <= 10.0 * excess_of_sum(variance, 2), "{deviation}: {worst}");
        assert!(worst >= excess_of_sum(variance, 2), "{deviation}: {worst}");
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
