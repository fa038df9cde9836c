//! Worked values of the closed forms, and the reference's integer bisection as an oracle beside them.
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use halo_sketch::{
    Error, estimate,
    liquid_legions::{LiquidLegions, Params},
};
use proptest::prelude::*;

fn params(decay_rate: f64, size: u64) -> Params {
    Params::new(decay_rate, size, 10_000_000).unwrap()
}

fn close(value: f64, expected: f64, relative: f64) {
    assert!((value / expected - 1.0).abs() < relative, "{value} is not {expected}");
}

/// The sum over all registers of the probability that one of `people` is in it, which the closed form replaces.
fn exact_active(params: &Params, people: f64) -> f64 {
    let (a, m) = (params.decay_rate(), params.size() as f64);
    let first = -(-a / m).exp_m1() / -(-a).exp_m1();
    (0..params.size())
        .map(|register| {
            let probability = first * (-a * register as f64 / m).exp();
            -(people * (-probability).ln_1p()).exp_m1()
        })
        .sum()
}

#[test]
fn expected_registers() {
    // decay rate, size, people, expected active by the closed form and by the sum, their deviation, usable, relative
    // standard error of reach
    for (a, m, n, active, sum, deviation, usable, error) in [
        (12.0, 100_000, 1e3, 970.781_985_582_84, 970.809_692, 5.230_2, 942.328_999, 0.005_550_3),
        (12.0, 100_000, 1e4, 7_649.521_492_429_9, 7_649.662_072, 36.083_0, 5_823.338_631, 0.006_196_3),
        (12.0, 100_000, 1e5, 25_517.126_702_908, 25_517.168_371, 71.283_1, 8_332.667_733, 0.008_554_7),
        (12.0, 100_000, 1e6, 44_699.803_148_221, 44_699.807_320, 75.503_3, 8_327.191_348, 0.009_067_1),
        (12.0, 100_000, 1e7, 63_832.825_943_310, 63_832.826_365, 75.553_2, 8_272.116_787, 0.009_133_5),
        (12.0, 100_000, 1e8, 82_479.081_984_994, 82_479.082_032, 72.068_8, 7_741.012_825, 0.009_310_0),
        (12.0, 100_000, 1e9, 97_096.223_793_375, 97_096.223_801, 45.145_6, 3_986.658_948, 0.011_324_2),
        (12.0, 100_000, 2e9, 99_134.365_707_071, 99_134.365_711, 27.379_4, 1_907.213_948, 0.014_355_7),
        (10.0, 100_000, 123_456.0, 30_900.006_811_558, 30_900.047_314, 78.209_8, 9_994.352_958, 0.007_825_4),
        (10.0, 100_000, 1e6, 51_778.962_009_060, 51_778.967_013, 82.384_0, 9_954.700_920, 0.008_275_9),
        (10.0, 100_000, 1e8, 93_803.280_441_882, 93_803.280_492, 60.253_5, 6_350.700_888, 0.009_487_7),
        (5.6, 1_000_000, 1e7, 787_275.601_362_93, 787_275.610_124, 299.611_7, 145_058.878, 0.002_065_4),
        (5.6, 1_000_000, 1e8, 992_162.711_604_52, 992_162.711_949, 85.287_7, 22_342.686, 0.003_817_3),
        (12.0, 250_000, 1e7, 140_584.600_959_67, 140_584.602_003, 119.733_5, 20_771.981, 0.005_764_2),
        (12.0, 1_000, 1e5, 638.328_259_433_1, 638.329_176, 7.555_3, 82.721_2, 0.091_334_7),
    ] {
        let params = params(a, m);
        close(estimate::expected_active(&params, n), active, 1e-9);
        close(exact_active(&params, n), sum, 1e-9);
        close(estimate::expected_active(&params, n), sum, 2e-4);
        close(estimate::active_variance(&params, n).sqrt(), deviation, 1e-3);
        close(estimate::expected_usable(&params, n), usable, 1e-6);
        let reach = estimate::reach(&params, active, 1.0, 0.0).unwrap();
        close(reach.value, n, 1e-8);
        close(reach.standard_error / n, error, 2e-3);
    }
}

#[test]
fn inverse() {
    for (a, m, active, people) in [
        (12.0, 100_000, 1.0, 1.000_030_001_368_718),
        (12.0, 100_000, 100.0, 100.301_007_026_590_6),
        (12.0, 100_000, 1_000.0, 1_031.034_464_917_632),
        (12.0, 100_000, 25_000.0, 93_982.630_569_468_78),
        (12.0, 100_000, 50_000.0, 1_890_194.288_315_22),
        (12.0, 100_000, 75_000.0, 39_011_019.104_615_82),
        (12.0, 100_000, 90_000.0, 278_887_137.961_827_5),
        (12.0, 100_000, 99_000.0, 1_870_206_850.468_155),
        (12.0, 100_000, 99_999.0, 9_447_838_243.351_98),
        (10.0, 100_000, 40_000.0, 306_959.924_778_487),
        (10.0, 100_000, 90_000.0, 58_309_559.683_198_52),
        (5.6, 1_000_000, 500_000.0, 1_701_238.000_493_274),
        (5.6, 1_000_000, 900_000.0, 24_046_952.171_849_35),
    ] {
        close(estimate::people(&params(a, m), active).unwrap(), people, 1e-9);
    }
    let params = params(12.0, 100_000);
    assert_eq!(estimate::people(&params, 0.0).unwrap(), 0.0);
    assert_eq!(estimate::people(&params, -3.0).unwrap(), 0.0);
    for saturated in [100_000.0, 2e5, f64::INFINITY] {
        assert!(matches!(estimate::people(&params, saturated), Err(Error::Saturated { .. })));
    }
    assert!(estimate::people(&params, f64::NAN).is_err());
}

#[test]
fn standard_errors_with_sampling_and_noise() {
    let (one, wide) = (params(12.0, 100_000), params(5.6, 1_000_000));
    for (params, n, width, noise, relative) in [
        (&one, 1e6, 1.0, 0.0, 0.009_067_1),
        (&one, 1e6, 1.0, 48.23, 0.010_759_1),
        (&one, 1e7, 1.0, 48.23, 0.010_835_8),
        (&one, 1e6, 0.1, 0.0, 0.009_065_4),
        (&one, 1e6, 0.01, 0.0, 0.011_721_7),
        (&one, 3e8, 0.1, 0.0, 0.009_176_5),
        (&one, 1e5, 1.0, 500.0, 0.060_611_5),
        (&wide, 1e7, 1.0, 4.98, 0.002_065_7),
    ] {
        let active = estimate::expected_active(params, n * width);
        let reach = estimate::reach(params, active, width, noise).unwrap();
        close(reach.standard_error / n, relative, 1e-3);
    }
    // Nobody: the noise is the whole error, one register a person.
    let nobody = estimate::reach(&one, 0.0, 0.5, 3.0).unwrap();
    assert_eq!((nobody.value, nobody.standard_error), (0.0, 6.0));
}

/// The reference's inverse: expectation and argument are integers, found by bisection.
fn reference_estimate(params: &Params, active: u64, width: f64) -> u64 {
    let expected = |people: u64| {
        if people == 0 { 0 } else { estimate::expected_active(params, people as f64).floor() as u64 }
    };
    let (mut left, mut right) = (0_u64, 1_u64);
    while expected(right) < active {
        left = right;
        right *= 2;
    }
    let mut middle = (left + right) / 2;
    while right > left {
        if expected(middle) > active {
            right = middle - 1
        } else {
            left = middle + 1
        }
        middle = (left + right) / 2;
    }
    (middle as f64 / width) as u64
}

#[test]
fn the_reference_is_near() {
    for (a, m, active, width, expected) in [
        (10.0, 250_000, 100_000, 1.0, 767_430),
        (10.0, 100_000, 0, 1.0, 1),
        (12.0, 100_000, 0, 0.5, 2),
        (12.0, 100_000, 3, 0.5, 8),
        (12.0, 100_000, 7, 0.5, 16),
        (12.0, 100_000, 30, 0.5, 64),
        (12.0, 100_000, 100, 0.5, 202),
        (5.6, 1_000_000, 1, 1.0, 2),
        (5.6, 1_000_000, 1_000, 1.0, 1_003),
        (5.6, 1_000_000, 10_000, 1.0, 10_144),
        (5.6, 1_000_000, 100_000, 1.0, 116_727),
        (5.6, 1_000_000, 300_000, 1.0, 534_980),
        (5.6, 1_000_000, 500_000, 1.0, 1_701_247),
        (5.6, 1_000_000, 700_000, 1.0, 5_641_988),
        (5.6, 1_000_000, 900_000, 1.0, 24_047_174),
        (5.6, 1_000_000, 990_000, 1.0, 91_541_126),
    ] {
        let params = params(a, m);
        assert_eq!(reference_estimate(&params, active, width), expected);
        let ours = estimate::reach(&params, active as f64, width, 0.0).unwrap().value;
        // One register, and one integer before the division, is all that separates the two.
        let register = 1.0 / (estimate::expected_usable(&params, ours * width) / (ours * width)).max(1e-9) + 2.0;
        assert!((ours - expected as f64).abs() <= register / width || active == 0, "{ours} is not near {expected}");
    }
    // With one register left, any number of people whose expectation has the same whole part answers, and the reference's
    // bisection ends at the power of two where it began.
    let wide = params(5.6, 1_000_000);
    assert_eq!(reference_estimate(&wide, 999_999, 1.0), 536_870_912);
    let people = |active| estimate::people(&wide, active).unwrap();
    assert!(people(999_999.0) < 536_870_912.0 && 536_870_912.0 < people(999_999.9));
    for (a, m, people, active) in [
        (5.6, 1_000_000, 1e3, 998),
        (5.6, 1_000_000, 1e5, 87_487),
        (5.6, 1_000_000, 1e6, 407_779),
        (5.6, 1_000_000, 1e7, 787_275),
        (5.6, 1_000_000, 1e8, 992_162),
        (5.6, 1_000_000, 2e8, 999_441),
        (12.0, 100_000, 1e3, 970),
        (12.0, 100_000, 1e6, 44_699),
        (10.0, 100_000, 123_456.0, 30_900),
    ] {
        assert_eq!(estimate::expected_active(&params(a, m), people).floor() as u64, active);
    }
}

#[test]
fn people_come_back_from_their_expected_registers() {
    // Within 5 %, for registers in whole numbers and for the reference's inverse as well.
    let comes_back = |params: &Params, people: f64, width: f64| {
        let active = estimate::expected_active(params, people * width);
        let found = estimate::reach(params, active.round(), width, 0.0).unwrap().value;
        close(found, people, 0.05);
        let found = reference_estimate(params, active.floor() as u64, width);
        // One sampled person more or less is what rounding twice leaves.
        assert!((found as f64 - people).abs() <= (0.05 * people).max(1.0 / width), "{found} is not {people}");
    };
    let ten = params(10.0, 100_000);
    for people in (1..=1_000_000).step_by(1_000) {
        comes_back(&ten, f64::from(people), 1.0);
    }
    for people in (1_000..=1_000_000).step_by(1_000) {
        comes_back(&ten, f64::from(people), 0.05);
    }
    for decay_rate in 5..=30 {
        comes_back(&params(f64::from(decay_rate), 100_000), 1e6, 1.0);
    }
}

#[test]
fn a_sketch_tells_how_many_people_are_in_it() {
    let params = params(10.0, 100_000);
    let mut sketch = LiquidLegions::new(params);
    sketch.insert_all(0..123_456);
    let active = sketch.active() as f64;
    // Four standard deviations of the number of registers, and the 5 % of the reference's own test.
    assert!((active - 30_900.0).abs() < 4.0 * 78.209_8, "{active}");
    close(estimate::reach(&params, active, 1.0, 0.0).unwrap().value, 123_456.0, 0.05);
}

#[test]
fn frequencies() {
    let histogram = [3556.0, 1467.0, 870.0, 565.0, 440.0, 310.0, 232.0, 190.0, 136.0, 599.0];
    let found = estimate::frequency(&histogram, 0.0, 586_372.0).unwrap();
    for (share, count) in found.shares.iter().zip(histogram) {
        close(*share, count / 8_365.0, 1e-12);
    }
    let share = found.shares[0];
    close(found.standard_errors[0], (share * (1.0 - share) / 8_365.0 * (1.0 - 8_365.0 / 586_372.0)).sqrt(), 1e-12);
    // What noise pushed below 0 is taken from the others evenly.
    let noised = estimate::frequency(&[60.0, 50.0, -10.0], 5.0, 1e4).unwrap();
    assert_eq!(noised.shares, vec![0.55, 0.45, 0.0]);
    assert_eq!(estimate::frequency(&[0.0, 0.0], 0.0, 0.0), None);
    assert_eq!(estimate::frequency(&[-4.0, 3.0], 2.0, 10.0), None);
}

proptest! {
    #[test]
    fn shares_are_shares(histogram in proptest::collection::vec(-1e6..1e6_f64, 1..12), noise in 0.0..1e4_f64) {
        if let Some(found) = estimate::frequency(&histogram, noise, 1e7) {
            prop_assert!((found.shares.iter().sum::<f64>() - 1.0).abs() < 1e-9);
            prop_assert!(found.shares.iter().all(|share| *share >= 0.0));
            prop_assert!(found.standard_errors.iter().all(|error| error.is_finite() && *error >= 0.0));
        }
    }

    #[test]
    fn the_inverse_inverts(a in 1.5..20.0_f64, m in 10_u64..1_000_000, share in 0.0001..0.999_f64) {
        let params = params(a, m);
        let active = share * m as f64;
        let people = estimate::people(&params, active).unwrap();
        prop_assert!((estimate::expected_active(&params, people) / active - 1.0).abs() < 1e-9);
        let reach = estimate::reach(&params, active, 0.5, 1.0).unwrap();
        prop_assert!(reach.standard_error.is_finite() && reach.standard_error >= 0.0);
    }
}
