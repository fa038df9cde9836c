//! Variances and covariances against the reference's own test values (specification: protocols 8.9 and the file of
//! vectors beside it; `line` is the line of the reference's VariancesTest.kt or CovariancesTest.kt), within the 0.5 % that
//! its tests allow.
//!
//! Inputs that the vectors lack were solved from one expected number and are confirmed by the others of the same case;
//! each says so. Where the reference's value rests on its bisection or on an approximation, the test applies that.
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

#[path = "variance/frequencies.rs"]
mod frequencies;

use halo_core::privacy::{Epsilon, MaximumFrequency, PrivacyParams};
use halo_sketch::{
    Error,
    accounting::gaussian_sigma,
    liquid_legions::Params,
    noise::Sensitivity,
    variance::{
        self, FrequencyMeasurement, Interval,
        Methodology::{self, Deterministic, FrequencyVector},
        ReachMeasurement, ReachTerm, ScalarMeasurement, SketchShape,
    },
};
use proptest::prelude::*;

/// The tolerance of the reference's tests.
const TOLERANCE: f64 = 5e-3;

fn close(value: f64, expected: f64, what: impl std::fmt::Display) {
    // What is 0 in the reference may come out as a rounding of it.
    assert!((value - expected).abs() <= TOLERANCE * expected.abs() + 1e-21, "{what}: {value:e} is not {expected:e}");
}

fn params(epsilon: f64, delta: f64) -> PrivacyParams {
    PrivacyParams::new(epsilon, delta).unwrap()
}

/// Variance of a direct measurement's noise. The reference's search for σ ends at 5·10⁻⁴: with (1, 1), which needs no
/// noise, its variance is 2.5·10⁻⁷.
fn direct(epsilon: f64, delta: f64) -> f64 {
    const BISECTION_FLOOR: f64 = 5e-4;
    gaussian_sigma(params(epsilon, delta), Sensitivity::scalar(1)).max(BISECTION_FLOOR).powi(2)
}

/// Variance of the noise of all Duchies together.
fn distributed(epsilon: f64, delta: f64) -> f64 {
    variance::reference_gaussian(params(epsilon, delta)).unwrap()
}

fn single(decay_rate: f64, size: u64) -> Methodology {
    Methodology::Sketch(SketchShape { decay_rate, size })
}

fn llv2(decay_rate: f64, size: u64) -> Methodology {
    Methodology::LiquidLegionsV2(SketchShape { decay_rate, size })
}

const fn from_zero(width: f64) -> Interval {
    Interval { start: 0.0, width }
}

/// A reach with the noise that its methodology has.
fn measured(
    methodology: Methodology,
    reach: f64,
    interval: Interval,
    (epsilon, delta): (f64, f64),
) -> ReachMeasurement {
    let noise_variance = match methodology {
        Deterministic | Methodology::Sketch(_) => direct(epsilon, delta),
        _ => distributed(epsilon, delta),
    };
    ReachMeasurement { methodology, reach, interval, noise_variance }
}

#[test]
fn noises() {
    assert!((variance::truncated_laplace(params(1.0, 1e-3)).unwrap() - 1.931_125_917_838_5).abs() < 1e-12);
    // Without a bound that matters it is Laplace noise, and with δ = 1/2 nearly uniform on ±B, B = ln(e^ε)/ε = 1.
    let laplace = variance::laplace(Epsilon::new(0.5).unwrap());
    assert_eq!(laplace, 8.0);
    assert!((variance::truncated_laplace(params(0.5, 1e-300)).unwrap() - laplace).abs() < 1e-9);
    assert!((variance::truncated_laplace(params(1e-4, 0.5)).unwrap() - 1.0 / 3.0).abs() < 1e-4);
    // Both branches of the formula meet.
    let (below, above) =
        (variance::truncated_laplace(params(0.000_999, 0.5)), variance::truncated_laplace(params(0.001_001, 0.5)));
    assert!((below.unwrap() - above.unwrap()).abs() < 1e-5);
}

#[test]
fn deterministic_sums() {
    let cap = |maximum| MaximumFrequency::new(maximum).unwrap();
    let check = |line: u32, measurement: ScalarMeasurement, expected: f64| {
        close(measurement.variance().unwrap(), expected, format_args!("line {line}"));
    };
    // The case gives no impressions and no width; with all people sampled only noise is left.
    let truncated = variance::truncated_laplace(params(1.0, 1e-3)).unwrap();
    check(54, ScalarMeasurement::impressions(1e6, cap(3), 1.0, truncated), 1.931_125_917_8 * 9.0);
    check(102, ScalarMeasurement::reach(0.0, 1e-4, direct(1e-3, 1e-9)), 1_701_291_910_758_399.5);
    check(126, ScalarMeasurement::reach(3e8, 0.9, direct(1e-2, 1e-15)), 33_906_671.712_079);
    check(196, ScalarMeasurement::impressions(0.0, cap(1), 1.0, direct(1.0, 1.0)), 2.5e-7);
    check(222, ScalarMeasurement::impressions(1.0, cap(1), 1e-2, direct(1e-2, 1e-9)), 2_102_185_919.160_000_6);
    check(349, ScalarMeasurement::watch_duration(0.0, 1.0, 1.0, direct(1.0, 1.0)), 2.5e-7);
    check(427, ScalarMeasurement::watch_duration(3e8, 200.0, 1e-2, direct(1e-2, 1e-9)), 90_027_432_806_400.0);
    check(453, ScalarMeasurement::watch_duration(3e8, 200.0, 1.0, direct(1e-2, 1e-9)), 8_408_743_280.640_002);
    // Protocols 8.9: reach with the truncated Laplace noise, and reach 0 with (1, 1).
    check(0, ScalarMeasurement::reach(5e5, 1.0, truncated), 1.931_125_917_8);
    check(0, ScalarMeasurement::reach(0.0, 1.0, direct(1.0, 1.0)), 2.5e-7);
    assert_eq!(ScalarMeasurement::population(1e9, 17.0).variance().unwrap(), 17.0);
    // A metric of one impression measurement with weight 2.
    let impressions = ScalarMeasurement::impressions(3e8, cap(200), 1e-2, direct(1e-2, 1e-9)).variance().unwrap();
    let metric = variance::linear_combination(&[2.0], &[impressions], |_, _| Ok(0.0)).unwrap();
    close(metric, 90_027_432_806_400.0 * 4.0, "line 4775");
}

#[test]
fn reach() {
    let vector = FrequencyVector { size: 10_000_000 };
    for (line, methodology, reach, width, expected) in [
        (1239, single(1e-3, 100_000), 2.0, 1.0, 2_520.944_139_747_386_5),
        (1266, single(1e2, 100_000), 2.0, 1.0, 2_525.892_838_652_5),
        (1293, single(1e-3, 100_000), 3e6, 0.1, 289_553_744.889_857_5),
        (1320, single(1e2, 100_000), 3e6, 0.1, 28_923_114_340.800_056),
        (1374, single(1e2, 100_000), 3e6, 1.0, 28_922_934_034.985_62),
        (1475, llv2(1e2, 100_000), 2.0, 0.1, 433_242.322_339_912_4),
        (1501, llv2(1e-3, 100_000), 2.0, 1.0, 4_328.084_473_679_164),
        (1528, llv2(1e2, 100_000), 2.0, 1.0, 4_336.579_244_624_804),
        (1582, llv2(1e2, 100_000), 3e6, 0.1, 45_186_835_212.940_76),
        // The size of the vector is that of protocols 8.9.
        (1609, vector, 2.0, 0.1, 432_791.131_376_411_25 + 17.999_999_74),
        // The case lacks its reach: a tenth or nine tenths of the population give 8.1·10⁷. Its first summand is a direct
        // noise's, within the tolerance of the sum.
        (1662, vector, 1e7, 0.1, 252_102.581_064_840_52 + 8.1e7),
        (1743, llv2(1e-3, 100_000), 3e6, 1.0, 4.942_506_702_796_21e29),
        (1770, llv2(1e2, 100_000), 3e6, 1.0, 45_186_557_325.272_74),
        // From protocols 8.9.
        (0, llv2(1e-3, 100_000), 2.0, 0.1, 432_817.788_785_599_35),
        (0, llv2(1e-3, 100_000), 3e6, 0.1, 362_456_073.197_418),
        (0, single(1e-3, 100_000), 2.0, 0.1, 252_107.369_636_947),
        (0, single(1e2, 100_000), 2.0, 0.1, 252_354.674_938_006_2),
        (0, vector, 2.0, 1.0, 4_327.911_313_764_112_5),
    ] {
        let measurement = measured(methodology, reach, from_zero(width), (0.1, 1e-9));
        let found = variance::reach(&measurement).unwrap();
        close(found, expected, format_args!("line {line} {methodology:?}"));
    }
}

#[test]
fn standard_errors_of_sketches() {
    // Science 1.4: decay rate, registers, reach, width, deviation of the noise, relative standard error.
    for (decay_rate, size, reach, width, noise, expected) in [
        (12.0, 100_000, 1e6, 1.0, 0.0, 0.009_067_1),
        (12.0, 100_000, 1e6, 1.0, 48.231_779, 0.010_759_1),
        (12.0, 100_000, 1e7, 1.0, 48.231_779, 0.010_835_8),
        (12.0, 100_000, 1e6, 0.1, 0.0, 0.009_065_4),
        (12.0, 100_000, 1e6, 0.01, 0.0, 0.011_721_7),
        (12.0, 100_000, 3e8, 0.1, 0.0, 0.009_176_5),
        (12.0, 100_000, 1e5, 1.0, 500.0, 0.060_611_5),
        (5.6, 1_000_000, 1e7, 1.0, 4.98, 0.002_065_7),
    ] {
        let measurement = ReachMeasurement {
            methodology: llv2(decay_rate, size),
            reach,
            interval: from_zero(width),
            noise_variance: noise * noise,
        };
        let found = variance::reach(&measurement).unwrap().sqrt() / reach;
        assert!(
            (found / expected - 1.0).abs() < 1e-4,
            "{decay_rate} {size} {reach} {width}: {found} is not {expected}"
        );
    }
    // Science 7.2: a tenth of a population of 10⁷ with 10⁶ people reached.
    let vector = ReachMeasurement {
        methodology: FrequencyVector { size: 1_000_000 },
        reach: 1e6,
        interval: from_zero(0.1),
        noise_variance: 0.0,
    };
    assert!((variance::reach(&vector).unwrap().sqrt() / 1e6 - 0.002_846).abs() < 1e-6);
}

fn term(weight: f64, publishers: u64, measurement: ReachMeasurement) -> ReachTerm {
    ReachTerm { weight, publishers, measurement }
}

#[test]
fn metrics() {
    let noise = (0.1, 1e-9);
    let half = |start: f64| Interval { start, width: 0.5 };
    let sketch = measured(llv2(1e-3, 1_000_000), 2.0, half(0.0), noise);
    let metric = |line: u32, publishers: u64, interval: Interval, expected: f64| {
        let counted = measured(Deterministic, 1.0, interval, noise);
        let found = variance::reach_metric(&[term(1.0, 0b11, sketch), term(-1.0, publishers, counted)]).unwrap();
        close(found, expected, format_args!("line {line}"));
    };
    metric(4459, 0b10, half(0.0), 27_396.052_940_381_534);
    metric(4555, 0b01, half(0.5), 27_400.783_126_975_15);
    // A publisher's own method with a variance that it states: nothing is known of how it varies with others.
    let own = variance::reach(&sketch).unwrap();
    let found = variance::linear_combination(&[1.0, -1.0], &[own, 1e4], |_, _| Ok(0.0)).unwrap();
    close(found, own + 1e4, "line 4603");
}

fn counted(reach: f64, interval: Interval) -> ReachMeasurement {
    ReachMeasurement { methodology: Deterministic, reach, interval, noise_variance: 0.0 }
}

/// Two intervals of these widths whose union has the third.
fn intervals(one: f64, other: f64, union: f64) -> (Interval, Interval) {
    let found = (from_zero(one), Interval { start: union - other, width: other });
    assert!((found.0.union_width(found.1).unwrap() - union).abs() < 1e-12);
    found
}

#[test]
fn covariances_of_counts() {
    for (line, reaches, widths, expected) in [
        (31, (1.0, 2.0, 2.0), (2e-4, 3e-4, 4e-4), 1_665.666_666_666_666_5),
        (50, (3e8, 3e8, 4e8), (1e-4, 1e-4, 2e-4), -2e8),
        (71, (3e8, 3e8, 6e8), (0.7, 0.7, 0.7), 0.0),
    ] {
        let (one, other) = intervals(widths.0, widths.1, widths.2);
        let found =
            variance::reach_covariance(&counted(reaches.0, one), &counted(reaches.1, other), reaches.2).unwrap();
        close(found, expected, format_args!("line {line}"));
    }
    // A sketch and a vector share no registers: only the sampling.
    let interval = from_zero(81.0 / 300.0);
    let sketch = measured(single(5.6, 100_000), 34_678_000.0, interval, (0.1, 1e-9));
    let vector = measured(FrequencyVector { size: 55_000_000 }, 33_123_456.0, interval, (0.1, 1e-9));
    let found = variance::reach_covariance(&sketch, &vector, 37_123_456.0).unwrap();
    close(found, 8.2944e7, "line 501");
}

/// The reference's covariance of two sketches: it takes the people in each and in both to be at least one, and a register
/// to be empty with probability e^(−p·y) instead of (1 − p)^y.
fn as_the_reference(shape: SketchShape, reaches: (f64, f64, f64), widths: (f64, f64, f64)) -> f64 {
    let both = reaches.0 + reaches.1 - reaches.2;
    let overlap = widths.0 + widths.1 - widths.2;
    let (one, other) = ((reaches.0 * widths.0).max(1.0), (reaches.1 * widths.1).max(1.0));
    let shared = (both * overlap).max(1.0);
    let (a, m) = (shape.decay_rate, shape.size as f64);
    let first = (-a / m).exp_m1() / (-a).exp_m1();
    let more_empty = |people: f64| {
        let approximated: f64 = (0..shape.size).map(|i| (-people * first * (-a * i as f64 / m).exp()).exp()).sum();
        approximated - variance::expected_empty(shape, people).unwrap()
    };
    let counted = variance::active_covariance(shape, one, other, shared).unwrap() + more_empty(one + other - shared)
        - more_empty(one + other);
    let slopes = variance::active_slope(shape, one).unwrap() * variance::active_slope(shape, other).unwrap();
    counted / (widths.0 * widths.1 * slopes) + both * (overlap / widths.0 / widths.1 - 1.0)
}

#[test]
fn covariances_of_sketches() {
    for (line, decay_rate, reaches, widths, expected) in [
        (95, 15.0, (1.0, 1.0, 2.0), (0.5, 0.4, 0.5), 0.000_562_525_536_043_962),
        (109, 15.0, (1e6, 3e8, 3e8), (0.02, 0.01, 0.02), 156_079_036.592_978_8),
        (124, 100.0, (3e8, 3e8, 6e8), (0.3, 0.4, 0.7), 428_562.315_218_717_15),
    ] {
        let shape = SketchShape { decay_rate, size: 100_000 };
        close(as_the_reference(shape, reaches, widths), expected, format_args!("line {line}"));
        let (one, other) = intervals(widths.0, widths.1, widths.2);
        let sketch = |reach: f64, interval: Interval| ReachMeasurement {
            methodology: Methodology::LiquidLegionsV2(shape),
            reach,
            interval,
            noise_variance: 0.0,
        };
        let found = variance::reach_covariance(&sketch(reaches.0, one), &sketch(reaches.1, other), reaches.2).unwrap();
        if line == 109 {
            close(found, expected, "line 109 without approximations");
        } else {
            // Nobody is in both: the reference's value is that of its approximations, the true one is 0.
            assert!(found.abs() < 1e-9, "line {line}: {found}");
        }
    }
}

#[test]
fn union_widths() {
    for (line, one, other, expected) in [
        (633, (0.1, 0.2), (0.3, 0.4), 0.6),
        (654, (0.1, 0.4), (0.2, 0.3), 0.4),
        (665, (0.1, 0.3), (0.1, 0.3), 0.3),
        (709, (0.8, 0.3), (0.7, 0.6), 0.6),
        // From protocols 8.9.
        (0, (0.8, 0.3), (0.3, 0.4), 0.7),
        (0, (0.5, 0.7), (0.8, 0.5), 0.8),
    ] {
        let interval = |(start, width): (f64, f64)| Interval { start, width };
        let found = interval(one).union_width(interval(other)).unwrap();
        assert!((found - expected).abs() < 1e-9, "line {line}: {found}");
        assert!((interval(other).union_width(interval(one)).unwrap() - expected).abs() < 1e-9);
    }
}

#[test]
fn what_cannot_be_is_refused() {
    let range = |error: Error| assert!(matches!(error, Error::OutOfRange { .. }), "{error}");
    let good = counted(10.0, Interval::FULL);
    for bad in [f64::NAN, -1.0, f64::INFINITY, 1e200] {
        range(variance::reach(&ReachMeasurement { reach: bad, ..good }).unwrap_err());
        range(variance::reach(&ReachMeasurement { noise_variance: bad, ..good }).unwrap_err());
        range(variance::reach_covariance(&good, &good, bad).unwrap_err());
        range(ScalarMeasurement::reach(bad, 1.0, 0.0).variance().unwrap_err());
        range(ScalarMeasurement::watch_duration(1.0, bad, 1.0, 0.0).variance().unwrap_err());
        range(variance::linear_combination(&[bad.abs() * 1e200], &[1.0], |_, _| Ok(0.0)).unwrap_err());
        range(variance::linear_combination(&[1.0], &[bad], |_, _| Ok(0.0)).unwrap_err());
        range(variance::expected_empty(SketchShape { decay_rate: 12.0, size: 10 }, bad).unwrap_err());
        let frequency = FrequencyMeasurement { reach: good, shares: &[0.5, 0.5], noise_variance: bad };
        range(variance::frequency(&frequency).unwrap_err());
    }
    for width in [0.0, -0.1, 1.1, f64::NAN] {
        range(variance::reach(&counted(10.0, from_zero(width))).unwrap_err());
        range(ScalarMeasurement::reach(10.0, width, 0.0).variance().unwrap_err());
    }
    range(variance::reach(&counted(10.0, Interval { start: 1.5, width: 0.5 })).unwrap_err());
    for methodology in
        [single(0.0, 10), llv2(f64::NAN, 10), llv2(701.0, 10), single(12.0, 0), FrequencyVector { size: 0 }]
    {
        range(variance::reach(&ReachMeasurement { methodology, ..good }).unwrap_err());
    }
    for shares in [&[] as &[f64], &[0.7, 0.7], &[-0.1, 0.5], &[f64::NAN]] {
        range(variance::frequency(&FrequencyMeasurement { reach: good, shares, noise_variance: 0.0 }).unwrap_err());
    }
    let shape = SketchShape { decay_rate: 12.0, size: 100 };
    range(variance::active_covariance(shape, 5.0, 5.0, 6.0).unwrap_err());
    range(variance::linear_combination(&[1.0], &[], |_, _| Ok(0.0)).unwrap_err());
    // A metric needs the union of its publishers.
    range(variance::reach_metric(&[term(1.0, 0b01, good), term(1.0, 0b10, good)]).unwrap_err());
    // Two sketches of different shapes.
    let sketch = |size: u64| ReachMeasurement { methodology: llv2(12.0, size), ..good };
    let error = variance::reach_covariance(&sketch(100), &sketch(200), 15.0).unwrap_err();
    assert!(matches!(error, Error::Incompatible { .. }), "{error}");
    // A sketch that is full many times over.
    let full = ReachMeasurement { methodology: llv2(1.0, 10), reach: 1e9, ..good };
    assert!(matches!(variance::reach(&full).unwrap_err(), Error::Saturated { .. }));
    assert!(matches!(variance::reach_covariance(&full, &full, 1e9).unwrap_err(), Error::Saturated { .. }));
}

#[test]
fn shapes_come_from_sketches() {
    let params = Params::new(12.0, 100_000, 10_000_000).unwrap();
    assert_eq!(SketchShape::from(&params), SketchShape { decay_rate: 12.0, size: 100_000 });
}

fn arb_methodology() -> impl Strategy<Value = Methodology> {
    let shape = || (1e-4..100.0_f64, 1_u64..1_000_000).prop_map(|(decay_rate, size)| SketchShape { decay_rate, size });
    prop_oneof![
        Just(Deterministic),
        shape().prop_map(Methodology::Sketch),
        shape().prop_map(Methodology::LiquidLegionsV2),
        (2_u64..100_000_000).prop_map(|size| FrequencyVector { size }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn variances_are_numbers_and_not_negative(
        methodology in arb_methodology(),
        log_reach in -3.0..20.0_f64,
        start in 0.0..1.0_f64,
        width in 1e-4..=1.0_f64,
        noise_variance in prop_oneof![Just(0.0), 0.0..1e12_f64],
        weights in proptest::collection::vec(0.0..1.0_f64, 1..12),
    ) {
        let reach = ReachMeasurement { methodology, reach: log_reach.exp() - 0.04, interval: Interval { start, width }, noise_variance };
        let reach = ReachMeasurement { reach: reach.reach.max(0.0), ..reach };
        let total: f64 = weights.iter().sum::<f64>().max(1e-9);
        let shares: Vec<f64> = weights.iter().map(|weight| weight / total).collect();
        let result = variance::reach(&reach);
        if let Err(error) = &result {
            let saturated = matches!(error, Error::Saturated { .. });
            prop_assert!(saturated, "{}", error);
        }
        if let Ok(found) = result {
            prop_assert!(found.is_finite() && found >= 0.0, "{}", found);
            let covariance = variance::reach_covariance(&reach, &reach, reach.reach).unwrap();
            prop_assert!(covariance.is_finite());
            // A measurement without noise varies with itself as much as it varies.
            if noise_variance == 0.0 && !matches!(methodology, FrequencyVector { .. }) {
                prop_assert!((covariance.max(0.0) - found).abs() <= 1e-6 * found + 1e-6, "{} {}", covariance, found);
            }
            if let Ok(lists) = variance::frequency(&FrequencyMeasurement { reach, shares: &shares, noise_variance }) {
                for list in [lists.relative, lists.relative_k_plus, lists.count, lists.count_k_plus] {
                    prop_assert!(list.iter().all(|variance| variance.is_finite() && *variance >= 0.0), "{:?}", list);
                }
            }
        }
    }

    #[test]
    fn intervals_overlap_alike_from_both_sides(one in (0.0..1.0_f64, 0.001..=1.0_f64), other in (0.0..1.0_f64, 0.001..=1.0_f64)) {
        let (one, other) = (Interval { start: one.0, width: one.1 }, Interval { start: other.0, width: other.1 });
        let union = one.union_width(other).unwrap();
        prop_assert!((union - other.union_width(one).unwrap()).abs() < 1e-12);
        prop_assert!(union >= one.width.max(other.width) - 1e-12 && union <= (one.width + other.width).min(1.0) + 1e-12);
    }
}
