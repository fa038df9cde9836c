//! Samplers against exact probabilities, and against those of the crate `prio`, which has the same algorithms over big
//! integers. Seeds are fixed, so nothing flakes; α = 10⁻⁴ for every statistic.
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use halo_sketch::noise::sampler::{Rational, discrete_gaussian_within, discrete_laplace_within, polya_within};
use prio::dp::distributions;
use rand::distr::Distribution;
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

/// Draws of each sampler.
const DRAWS: usize = 100_000;
/// Draws of each of prio's samplers, which are slower: as many of ours are compared with them.
const OUTSIDE: usize = 25_000;
/// Cut so far out that it does not matter.
const BOUND: u64 = 100_000;

/// The 99.99 % quantile of χ², by Wilson and Hilferty's approximation.
fn limit(degrees: f64) -> f64 {
    degrees * (1.0 - 2.0 / (9.0 * degrees) + 3.719 * (2.0 / (9.0 * degrees)).sqrt()).powi(3)
}

/// Draws in each cell of −`reach`..=`reach`, and in what is outside.
fn cells(draws: &[i64], reach: i64) -> Vec<f64> {
    let mut counts = vec![0.0; 2 * reach as usize + 2];
    let outside = counts.len() - 1;
    draws.iter().for_each(|draw| counts[if draw.abs() <= reach { (draw + reach) as usize } else { outside }] += 1.0);
    counts
}

/// Pearson's statistic over the cells −`reach`..=`reach` and the rest.
fn check_pmf(what: &str, draws: &[i64], reach: i64, pmf: impl Fn(i64) -> f64) {
    let mut expected: Vec<f64> = (-reach..=reach).map(pmf).collect();
    expected.push(1.0 - expected.iter().sum::<f64>());
    let n = draws.len() as f64;
    let statistic: f64 =
        cells(draws, reach).iter().zip(&expected).map(|(count, p)| (count - n * p).powi(2) / (n * p)).sum();
    let degrees = (expected.len() - 1) as f64;
    assert!(statistic < limit(degrees), "{what}: {statistic} with {degrees} degrees of freedom");
}

/// The two-sample statistic for as many draws of each: Σ (a − b)²/(a + b).
fn check_alike(what: &str, one: &[i64], other: &[i64], reach: i64) {
    let both: Vec<(f64, f64)> = cells(one, reach).into_iter().zip(cells(other, reach)).collect();
    let statistic: f64 = both.iter().map(|(a, b)| (a - b).powi(2) / (a + b).max(1.0)).sum();
    let degrees = (both.len() - 1) as f64;
    assert!(statistic < limit(degrees), "{what}: {statistic} with {degrees} degrees of freedom");
}

fn theirs(numerator: u32, denominator: u32) -> prio::dp::Rational {
    prio::dp::Rational::from_unsigned(numerator, denominator).unwrap()
}

#[test]
fn discrete_laplace_has_its_distribution_and_is_that_of_prio() {
    // Scale b = p/q, cells up to a reach with 20 or more expected draws.
    for (seed, p, q, reach) in [(30, 1, 2, 3), (31, 1, 1, 7), (32, 10, 1, 50), (33, 100, 11, 50), (34, 60, 1, 150)] {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let rate = f64::from(q) / f64::from(p);
        let exponent = Rational::at_most(rate);
        let ours: Vec<i64> = (0..DRAWS).map(|_| discrete_laplace_within(exponent, BOUND, &mut rng)).collect();
        let top = (0.5 * rate).tanh();
        check_pmf(&format!("scale {p}/{q}"), &ours, reach, |x| top * (-rate * x.abs() as f64).exp());
        let outside = distributions::DiscreteLaplace::new(theirs(p, q)).unwrap();
        let other: Vec<i64> = (0..OUTSIDE).map(|_| i64::try_from(outside.sample(&mut rng)).unwrap()).collect();
        check_alike(&format!("scale {p}/{q} against prio"), &ours[..OUTSIDE], &other, reach);
    }
    // ε = ln 3: P0 = 1/2, variance 1.5; ε = ln 3/10: variance 165.54 (science 2.1), within four standard errors.
    for (seed, epsilon, variance) in [(35, 3.0_f64.ln(), 1.5), (36, 3.0_f64.ln() / 10.0, 165.540_523_802_31)] {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let exponent = Rational::at_most(epsilon);
        let squares = (0..DRAWS).map(|_| (discrete_laplace_within(exponent, BOUND, &mut rng) as f64).powi(2));
        let found = squares.sum::<f64>() / DRAWS as f64;
        assert!((found / variance - 1.0).abs() < 4.0 * (5.0 / DRAWS as f64).sqrt() + 0.01, "{found} is not {variance}");
    }
}

#[test]
fn discrete_gaussian_is_that_of_prio() {
    // σ = p/q.
    for (seed, p, q, reach) in [(40, 1, 2, 2), (41, 1, 1, 3), (42, 5, 2, 8), (43, 10, 1, 32), (44, 241, 5, 140)] {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let sigma_squared = Rational::at_least((f64::from(p) / f64::from(q)).powi(2));
        let ours: Vec<i64> = (0..DRAWS).map(|_| discrete_gaussian_within(sigma_squared, BOUND, &mut rng)).collect();
        let outside = distributions::DiscreteGaussian::new(theirs(p, q)).unwrap();
        let other: Vec<i64> = (0..OUTSIDE).map(|_| i64::try_from(outside.sample(&mut rng)).unwrap()).collect();
        check_alike(&format!("sigma {p}/{q}"), &ours[..OUTSIDE], &other, reach);
        let weight = |x: i64| (-((x * x) as f64) / (2.0 * sigma_squared.to_f64())).exp();
        let total: f64 = (-2_000..=2_000).map(weight).sum();
        check_pmf(&format!("sigma {p}/{q}"), &ours, reach, |x| weight(x) / total);
    }
}

#[test]
fn polya_shares_of_any_number_add_up_to_prios_discrete_laplace() {
    // Differences of the sums of n shares, ε = 1/4.
    for (seed, shares) in [(50, 1), (51, 2), (52, 3), (53, 7)] {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let exponent = Rational::at_most(0.25);
        let mut side = || (0..shares).map(|_| polya_within(exponent, shares, BOUND, &mut rng) as i64).sum::<i64>();
        let ours: Vec<i64> = (0..OUTSIDE).map(|_| side() - side()).collect();
        let outside = distributions::DiscreteLaplace::new(theirs(4, 1)).unwrap();
        let other: Vec<i64> = (0..OUTSIDE).map(|_| i64::try_from(outside.sample(&mut rng)).unwrap()).collect();
        check_alike(&format!("{shares} shares"), &ours, &other, 20);
    }
}

/// The mapping from a generator's bytes to draws. A computation that was stored draws again after a restart: who changes
/// these changes the engines' version.
#[test]
fn streams_stay_what_they_are() {
    let mut rng = ChaCha20Rng::seed_from_u64(99);
    for (variance, draws) in [
        (0.7, [0, 0, -1, 1, 0, 1, 1, 0, 1, 0, 0, 1]),
        (25.0, [-6, -4, 6, -2, -3, -6, -3, 1, -1, -3, -2, 2]),
        (2326.4, [-73, -42, -9, -60, 43, -38, -80, 93, 5, 6, 16, 30]),
    ] {
        let sigma_squared = Rational::at_least(variance);
        assert_eq!([(); 12].map(|()| discrete_gaussian_within(sigma_squared, 1_000, &mut rng)), draws, "{variance}");
    }
    for (rate, draws) in [
        (1.1, [0, 1, 0, 0, 0, 0, 0, 1, 1, -2, -1, 0]),
        (0.1, [-20, -1, 0, -1, 23, -41, -11, -7, 11, -3, -30, 26]),
        (0.0123, [17, 120, 28, 138, -23, 171, -14, 61, -24, 74, -199, 63]),
    ] {
        let exponent = Rational::at_most(rate);
        assert_eq!([(); 12].map(|()| discrete_laplace_within(exponent, 1_000, &mut rng)), draws, "{rate}");
    }
    for (shares, draws) in [
        (1, [18, 1, 57, 69, 16, 18, 68, 17, 12, 38, 19, 18]),
        (2, [12, 0, 23, 2, 20, 14, 4, 2, 3, 4, 2, 0]),
        (5, [0, 0, 0, 4, 1, 0, 0, 0, 40, 3, 0, 6]),
    ] {
        let exponent = Rational::at_most(0.05);
        assert_eq!([(); 12].map(|()| polya_within(exponent, shares, 1_000, &mut rng)), draws, "{shares}");
    }
}

/// Draws at the ends of the range: nothing overflows, and next to no variance is nearly always 0.
#[test]
fn the_smallest_and_the_largest_variances_are_drawn() {
    let mut rng = ChaCha20Rng::seed_from_u64(60);
    for variance in [1e-300, 1e-12, 1e-9, 1e-6, 1e-3] {
        let rational = Rational::at_least(variance);
        assert!(rational.to_f64() >= variance && rational.to_f64() <= variance + 2.0_f64.powi(-40));
        // Before the acceptance a draw has the scale 1: of 50,000 some are beyond 8.
        assert!((0..50_000).all(|_| discrete_gaussian_within(rational, 1 << 62, &mut rng) == 0), "{variance}");
    }
    let deviation = 2.0_f64.powi(28);
    let rational = Rational::at_least(deviation * deviation);
    let draws: Vec<f64> =
        (0..5_000).map(|_| discrete_gaussian_within(rational, 1 << 62, &mut rng) as f64 / deviation).collect();
    let spread = (draws.iter().map(|draw| draw * draw).sum::<f64>() / draws.len() as f64).sqrt();
    // Five standard errors of a deviation.
    assert!((spread - 1.0).abs() < 0.05, "{spread}");
}
