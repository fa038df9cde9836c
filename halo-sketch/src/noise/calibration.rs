//! From ε and δ to σ and μ.
//!
//! Parties of one computation work out the same σ and μ, each for itself; so every function that is not exact in IEEE 754
//! comes from `libm` and is the same on every machine.

use std::f64::consts::{LN_2, PI};

use halo_core::privacy::{Delta, PrivacyParams};

use libm::{cos, exp, log, log1p, sinh};

use super::{MAX_SHIFT, NoiseCalibration, NoiseMechanism, NoiseSpec, Shape, ShiftedNoise, sampler::Rational};
use crate::{Error, accounting, variance};

/// Least ε for one unit of change. Below it noise is wider than [`MAX_SHIFT`] allows for any δ that makes sense, and
/// finding its exact δ would take long.
const LEAST_RATE: f64 = 1e-6;

/// Largest ε for one unit of change: beyond it nothing is protected, and samplers would leave their range.
const LARGEST_RATE: f64 = 1e4;

/// Least variance parameter of one of several honest contributors: standard deviation 2.
const LEAST_SHARED_VARIANCE: f64 = 4.0;

/// Least variance parameter that is worth calling noise.
const LEAST_VARIANCE: f64 = 0.0625;

pub(super) fn calibrate(spec: &NoiseSpec) -> Result<ShiftedNoise, Error> {
    let cells = spec.sensitivity.cells()?;
    if spec.contributors == 0 {
        return Err(Error::out_of_range("contributors", spec.contributors, "at least 1"));
    }
    if spec.params.delta.get() <= 0.0 {
        return Err(Error::out_of_range("delta", spec.params.delta.get(), "above 0, since noise is cut to a range"));
    }
    let rate = spec.params.epsilon.get() / f64::from(spec.sensitivity.l1);
    if rate < LEAST_RATE {
        check_shift(spec, MAX_SHIFT as f64 * (LEAST_RATE / rate).max(1.001))?;
    }
    if rate > LARGEST_RATE {
        return Err(Error::out_of_range("epsilon", spec.params.epsilon, "at most 10,000 times the sensitivity"));
    }
    if spec.calibration == NoiseCalibration::Exact && !(1..=spec.contributors).contains(&spec.honest_contributors) {
        return Err(Error::out_of_range(
            "honest contributors",
            spec.honest_contributors,
            "from 1 to the number of contributors",
        ));
    }
    match (spec.mechanism, spec.calibration) {
        (NoiseMechanism::DiscreteGaussian, NoiseCalibration::Exact) => exact_gaussian(spec, cells),
        (NoiseMechanism::DiscreteGaussian, NoiseCalibration::Reference) => reference_gaussian(spec),
        (NoiseMechanism::Geometric, NoiseCalibration::Exact) => exact_geometric(spec, cells),
        (NoiseMechanism::Geometric, NoiseCalibration::Reference) => reference_geometric(spec),
    }
}

fn exact_gaussian(spec: &NoiseSpec, cells: u32) -> Result<ShiftedNoise, Error> {
    let (epsilon, delta) = (spec.params.epsilon.get(), spec.params.delta.get());
    let honest = f64::from(spec.honest_contributors);
    // The continuous solution is a good start; the exact δ of the discrete noise is slightly larger.
    let half = Delta::new(delta / 2.0).expect("half of a probability is a probability");
    let half = PrivacyParams { epsilon: spec.params.epsilon, delta: half };
    let mut variance = accounting::gaussian_sigma(half, spec.sensitivity).powi(2).max(LEAST_VARIANCE);
    if spec.honest_contributors > 1 {
        variance = variance.max(LEAST_SHARED_VARIANCE * honest);
    }
    check_shift(spec, variance.sqrt())?;
    let (total, share) = loop {
        let share = Rational::at_least(variance / honest);
        let total = share.to_f64() * honest;
        let lost = if cells == 1 {
            gaussian_delta(epsilon, total, f64::from(spec.sensitivity.l1), false)
        } else {
            gaussian_delta(epsilon, total, 2.0_f64.sqrt(), true)
        };
        if lost <= delta / 2.0 {
            break (total, share);
        }
        variance = total * 1.001;
    };
    debug_assert!(total > 0.0);
    // (1 + e^ε)·cells·h·P[|Y| > μ] ≤ δ/2 for a contributor's Y.
    let allowed = log(delta / 2.0) - log(f64::from(cells) * honest) - softplus(epsilon);
    let deviation = share.to_f64().sqrt();
    let shift = smallest(|shift| log_gaussian_tail(shift, share.to_f64()) + LN_2 <= allowed, deviation);
    finish(spec, shift, Shape::Gaussian { sigma_squared: share }, gaussian_variance(share.to_f64()))
}

fn reference_gaussian(spec: &NoiseSpec) -> Result<ShiftedNoise, Error> {
    let share = variance::reference_gaussian(spec.params)? / f64::from(spec.contributors);
    let shift = reference_cut(spec.params, share, spec.contributors);
    check_shift(spec, shift)?;
    let sigma_squared = Rational::at_least(share);
    let variance = gaussian_variance(sigma_squared.to_f64());
    finish(spec, shift as u64, Shape::Gaussian { sigma_squared }, variance)
}

/// Where the reference cuts one contributor's discrete Gaussian of variance `share`: μ = ⌈σ·√(2·ln(n(1 + e^ε)/(δ/2)))⌉
/// (protocols 6.3).
pub(crate) fn reference_cut(params: PrivacyParams, share: f64, contributors: u32) -> f64 {
    let log_tail = log(f64::from(contributors)) + softplus(params.epsilon.get()) - log(params.delta.get() / 2.0);
    (2.0 * share * log_tail).sqrt().ceil()
}

fn exact_geometric(spec: &NoiseSpec, cells: u32) -> Result<ShiftedNoise, Error> {
    let (epsilon, delta) = (spec.params.epsilon.get(), spec.params.delta.get());
    let exponent = Rational::at_most(epsilon / f64::from(spec.sensitivity.l1));
    let honest = f64::from(spec.honest_contributors);
    // A Pólya(1/h) draw is stochastically smaller than a geometric one, whose tail above μ is e^(−(μ+1)·exponent). Two
    // draws for each of h contributors and each changed cell.
    let allowed = log(delta) - log(2.0 * f64::from(cells) * honest) - softplus(epsilon);
    let shift = (-allowed / exponent.to_f64()).ceil().max(1.0);
    check_shift(spec, shift)?;
    let shape = Shape::Polya { exponent, shares: spec.honest_contributors };
    finish(spec, shift as u64, shape, polya_difference_variance(exponent, honest))
}

fn reference_geometric(spec: &NoiseSpec) -> Result<ShiftedNoise, Error> {
    let (epsilon, delta) = (spec.params.epsilon.get(), spec.params.delta.get());
    let (sensitivity, contributors) = (f64::from(spec.sensitivity.l1), f64::from(spec.contributors));
    let rate = epsilon / sensitivity;
    let shift = ((log(2.0 * contributors * sensitivity) + softplus(epsilon) - log(delta)) / rate).ceil().max(0.0);
    check_shift(spec, shift)?;
    let exponent = Rational::at_most(rate);
    let shape = Shape::Polya { exponent, shares: spec.contributors };
    finish(spec, shift as u64, shape, polya_difference_variance(exponent, contributors))
}

fn finish(spec: &NoiseSpec, shift: u64, shape: Shape, variance: f64) -> Result<ShiftedNoise, Error> {
    check_shift(spec, shift as f64)?;
    Ok(ShiftedNoise { shift, shape, contributors: spec.contributors, variance })
}

/// Refuses what would need more noise registers than a computation carries; also everything that is not finite.
fn check_shift(spec: &NoiseSpec, shift: f64) -> Result<(), Error> {
    if shift <= MAX_SHIFT as f64 {
        return Ok(());
    }
    Err(Error::TooMuchNoise {
        epsilon: spec.params.epsilon.get(),
        delta: spec.params.delta.get(),
        sensitivity: spec.sensitivity.l1,
        registers: shift,
        limit: MAX_SHIFT as f64,
    })
}

/// ln(1 + e^x) without overflow.
fn softplus(x: f64) -> f64 {
    x.max(0.0) + log1p(exp(-x.abs()))
}

/// The smallest integer for which a monotone condition holds, looked for from `start` upwards in doublings.
fn smallest(holds: impl Fn(u64) -> bool, start: f64) -> u64 {
    let mut high = (start.ceil() as u64).max(1);
    while !holds(high) {
        high = high.saturating_mul(2);
        if high > 2 * MAX_SHIFT {
            return high;
        }
    }
    let mut low = 0;
    while low < high {
        let middle = low + (high - low) / 2;
        if holds(middle) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    high
}

/// The exact δ of discrete Gaussian noise with variance parameter `variance`; see the module's guarantee. `two_cells`:
/// two cells change by one each, else one cell by `change`.
fn gaussian_delta(epsilon: f64, variance: f64, change: f64, two_cells: bool) -> f64 {
    // In units of Z for two cells and of Y = Z/Δ for one.
    let (threshold, half) =
        if two_cells { (epsilon * variance, 1.0) } else { (epsilon * variance / change, change / 2.0) };
    let tail = |above: f64| if two_cells { difference_tail(above, variance) } else { gaussian_tail(above, variance) };
    let second = tail(threshold + half);
    let weighted = if second == 0.0 { 0.0 } else { exp(epsilon + log(second)) };
    tail(threshold - half) - weighted
}

/// P[Y > above] for a discrete Gaussian Y.
fn gaussian_tail(above: f64, variance: f64) -> f64 {
    let from = above.floor() + 1.0;
    if from <= 0.0 {
        // P[Y ≥ from] = 1 − P[Y ≥ 1 − from].
        return 1.0 - gaussian_tail(-from, variance);
    }
    theta_sum(from, 1.0, 2.0 * variance) / theta(0.0, 2.0 * variance)
}

/// P[Y₁ − Y₂ > above] for two independent discrete Gaussians. P[Y₁ − Y₂ = z] = e^(−z²/4σ²)·θ(z)/N², where
/// θ(z) = Σ_y e^(−(y + z/2)²/σ²) depends on whether z is even or odd only.
fn difference_tail(above: f64, variance: f64) -> f64 {
    let from = above.floor() + 1.0;
    if from <= 0.0 {
        return 1.0 - difference_tail(-from, variance);
    }
    let odd_first = from.rem_euclid(2.0) == 1.0;
    let (first, second) = (theta_sum(from, 2.0, 4.0 * variance), theta_sum(from + 1.0, 2.0, 4.0 * variance));
    let (even, odd) = if odd_first { (second, first) } else { (first, second) };
    let normal = theta(0.0, 2.0 * variance);
    (even * theta(0.0, variance) + odd * theta(0.5, variance)) / (normal * normal)
}

/// Σ_{j ≥ 0} e^(−(from + j·step)²/scale), from > 0, by recurrence: two multiplications a term.
fn theta_sum(from: f64, step: f64, scale: f64) -> f64 {
    let mut term = exp(-(from * from) / scale);
    let mut ratio = exp(-(2.0 * from * step + step * step) / scale);
    let shrink = exp(-2.0 * step * step / scale);
    let mut sum = 0.0;
    while term > sum * 1e-17 {
        sum += term;
        term *= ratio;
        ratio *= shrink;
    }
    sum
}

/// Σ over all integers y of e^(−(y + offset)²/scale).
fn theta(offset: f64, scale: f64) -> f64 {
    if scale > 4.0 {
        // Poisson summation: the next terms are e^(−4π²·scale) smaller.
        let first = 2.0 * exp(-PI * PI * scale) * cos(2.0 * PI * offset);
        return (PI * scale).sqrt() * (1.0 + first);
    }
    (-40..=40).map(|y| exp(-(f64::from(y) + offset).powi(2) / scale)).sum()
}

/// ln P[Y > shift] for a discrete Gaussian, also where the probability itself underflows.
fn log_gaussian_tail(shift: u64, variance: f64) -> f64 {
    let from = shift as f64 + 1.0;
    // Factor the first term out: Σ_j e^(−(2·from·j + j²)/2σ²).
    let mut sum = 0.0;
    let mut term = 1.0;
    let mut ratio = exp(-(2.0 * from + 1.0) / (2.0 * variance));
    let shrink = exp(-1.0 / variance);
    while term > sum * 1e-12 {
        sum += term;
        term *= ratio;
        ratio *= shrink;
    }
    log(sum) - from * from / (2.0 * variance) - log(theta(0.0, 2.0 * variance))
}

/// Variance of a discrete Gaussian with this variance parameter.
fn gaussian_variance(parameter: f64) -> f64 {
    if parameter > 4.0 {
        return parameter; // equal to more than 15 digits
    }
    let weights = (-60..=60).map(|y| (f64::from(y * y), exp(-f64::from(y * y) / (2.0 * parameter))));
    let (squares, total) =
        weights.fold((0.0, 0.0), |(squares, total), (y, weight)| (squares + y * weight, total + weight));
    squares / total
}

/// Variance of the difference of two Pólya(1/shares, e^(−exponent)) draws.
fn polya_difference_variance(exponent: Rational, shares: f64) -> f64 {
    let gamma = exponent.to_f64();
    // p/(1−p)² = 1/(4·sinh²(γ/2)).
    2.0 / shares / (4.0 * sinh(gamma / 2.0).powi(2))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(value: f64, expected: f64, relative: f64) {
        assert!((value / expected - 1.0).abs() < relative, "{value} is not {expected}");
    }

    #[test]
    fn exact_delta_of_the_discrete_gaussian() {
        for (epsilon, variance, delta) in
            [(1.0, 4.0, 0.007_248_776_8), (1.0, 25.0, 1.829_336e-8), (0.1, 2500.0, 1.124_522e-9)]
        {
            close(gaussian_delta(epsilon, variance, 1.0, false), delta, 1e-6);
        }
    }

    #[test]
    fn exact_delta_of_two_cells_is_that_of_the_sum_over_all_outcomes() {
        // Brute force over the plane: Σ max(0, P(y) − e^ε·P(y − (1, −1))).
        for (epsilon, variance) in [(1.0_f64, 4.0_f64), (0.5, 9.0), (2.0, 1.5)] {
            let normal = theta(0.0, 2.0 * variance);
            let pmf = |y: i32| (-f64::from(y * y) / (2.0 * variance)).exp() / normal;
            let mut sum = 0.0;
            for a in -60..=60 {
                for b in -60..=60 {
                    let gain = pmf(a) * pmf(b) - epsilon.exp() * pmf(a - 1) * pmf(b + 1);
                    sum += gain.max(0.0);
                }
            }
            close(gaussian_delta(epsilon, variance, 2.0_f64.sqrt(), true), sum, 1e-9);
        }
    }

    #[test]
    fn variances_of_discrete_gaussians() {
        close(gaussian_variance(0.25), 0.215_012_675_088_14, 1e-12);
        close(gaussian_variance(1.0), 0.999_999_788_767_73, 1e-12);
        for equal in [4.0, 9.0, 100.0] {
            close(gaussian_variance(equal), equal, 1e-12);
        }
    }

    #[test]
    fn variances_of_two_sided_geometrics() {
        close(polya_difference_variance(Rational::at_most(3.0_f64.ln()), 1.0), 1.5, 1e-9);
        close(polya_difference_variance(Rational::at_most(1.0), 1.0), 1.841_347_188_415_6, 1e-9);
        close(polya_difference_variance(Rational::at_most(3.0_f64.ln() / 10.0), 1.0), 165.540_523_802_31, 1e-9);
    }
}
