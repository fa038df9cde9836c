//! Sums over the registers of a sketch.
//!
//! A person falls into register i of m with probability pᵢ = e^(−a·i/m)·(1 − e^(−a/m))/(1 − e^−a). Everything that is
//! needed here is a sum Σ pᵢ^k·(1 − pᵢ)^y. Small sketches are summed exactly; for larger ones the sum is an integral over
//! the sketch (midpoint rule, with an error of order (a/m)²) by Gauss–Legendre quadrature. That holds for every decay
//! rate, also those near 0 where the closed forms in exponential integrals cancel, and at the first registers of steep
//! sketches, where (1 − p)^y is not e^(−p·y).

use super::check_amount;
use crate::{Error, liquid_legions::Params};

/// Up to here every register is looked at.
const SUMMED: u64 = 2_048;

/// Positive nodes and weights of the quadrature of order 16 on [−1, 1].
const NODES: [(f64, f64); 8] = [
    (0.095_012_509_837_637_44, 0.189_450_610_455_068_64),
    (0.281_603_550_779_258_9, 0.182_603_415_044_923_64),
    (0.458_016_777_657_227_37, 0.169_156_519_395_002_65),
    (0.617_876_244_402_643_8, 0.149_595_988_816_576_7),
    (0.755_404_408_355_003, 0.124_628_971_255_534_07),
    (0.865_631_202_387_831_8, 0.095_158_511_682_492_6),
    (0.944_575_023_073_232_6, 0.062_253_523_938_647_456),
    (0.989_400_934_991_649_9, 0.027_152_459_411_754_176),
];

/// The part of a sketch's shape that its statistics depend on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SketchShape {
    /// a: above 0 and at most 700; the last register is e^a times less likely than the first.
    pub decay_rate: f64,
    /// m: the number of registers, at least 1.
    pub size: u64,
}

impl From<&Params> for SketchShape {
    fn from(params: &Params) -> Self {
        Self { decay_rate: params.decay_rate(), size: params.size() }
    }
}

impl SketchShape {
    pub(super) fn check(self) -> Result<Self, Error> {
        if !(self.decay_rate > 0.0 && self.decay_rate <= 700.0) {
            return Err(Error::out_of_range("decay rate", self.decay_rate, "above 0 and at most 700"));
        }
        if self.size == 0 {
            return Err(Error::out_of_range("sketch size", self.size, "at least 1 register"));
        }
        Ok(self)
    }

    /// n_sat = m·(e^a − 1)/a: the number of people at which the last register is expected to be hit once. Sketches count
    /// well up to about half of it (science 1.5).
    #[must_use]
    pub fn saturation(self) -> f64 {
        self.size as f64 * self.decay_rate.exp_m1() / self.decay_rate
    }

    /// Σ `term`(pᵢ) over all registers.
    fn sum(self, term: impl Fn(f64) -> f64) -> f64 {
        let (a, m) = (self.decay_rate, self.size as f64);
        let first = (-a / m).exp_m1() / (-a).exp_m1();
        if self.size <= SUMMED {
            return (0..self.size).map(|i| term(first * (-a * i as f64 / m).exp())).sum();
        }
        // Terms change over a distance of 1/a: one panel for each.
        let panels = a.ceil();
        let half = 0.5 / panels;
        let middles = (0..panels as u32).map(|panel| (2.0 * f64::from(panel) + 1.0) * half);
        let at = |position: f64| term(first * (-a * (position - 0.5 / m)).exp());
        let panel = |middle: f64| -> f64 {
            NODES.iter().map(|(node, weight)| weight * (at(middle - half * node) + at(middle + half * node))).sum()
        };
        m * half * middles.map(panel).sum::<f64>()
    }

    /// Σ pᵢ^`power`·(1 − pᵢ)^y.
    pub(super) fn moment(self, power: i32, y: f64) -> f64 {
        self.sum(|p| p.powi(power) * survival(p, y))
    }
}

/// (1 − p)^y.
fn survival(p: f64, y: f64) -> f64 {
    if y <= 0.0 { 1.0 } else { (y * (-p.min(1.0)).ln_1p()).exp() }
}

/// Expected number of registers that `people` distinct people leave empty.
///
/// # Errors
/// [`Error::OutOfRange`] when the shape or `people` is out of range.
pub fn expected_empty(shape: SketchShape, people: f64) -> Result<f64, Error> {
    let people = check_amount("people", people)?;
    Ok(shape.check()?.moment(0, people))
}

/// How many registers one more person activates: Σ pᵢ·(1 − pᵢ)^y, from 1 for nobody to 0 for a full sketch. The estimate
/// of reach divides by it.
///
/// # Errors
/// As [`expected_empty`].
pub fn active_slope(shape: SketchShape, people: f64) -> Result<f64, Error> {
    let people = check_amount("people", people)?;
    Ok(shape.check()?.moment(1, people).min(1.0))
}

/// Covariance of the numbers of active registers of two sketches of the same shape, of `one` and `other` distinct people
/// of whom `both` are in both sketches: with all three alike the variance of one sketch's number.
///
/// Σ((1 − p)^(y₁ + y₂ − y₁₂) − (1 − p)^(y₁ + y₂)) + y₁₂·Σ p²·(1 − p)^(y₁ + y₂) − y₁₂·Σ p(1 − p)^(y₁)·Σ p(1 − p)^(y₂)
/// (protocols 5.3). It takes the joint law of two registers to first order in y₁₂·pᵢ·pⱼ; for less than about ten people
/// it is a multiple of the true value, which is then far below any noise.
///
/// # Errors
/// [`Error::OutOfRange`] when the shape or a number of people is out of range, or `both` is above `one` or `other`.
pub fn active_covariance(shape: SketchShape, one: f64, other: f64, both: f64) -> Result<f64, Error> {
    let shape = shape.check()?;
    let (one, other) = (check_amount("people", one)?, check_amount("people", other)?);
    if !(0.0..=one.min(other)).contains(&both) {
        return Err(Error::out_of_range("people in both", both, "at least 0, and no more than in either"));
    }
    let common = shape.sum(|p| {
        // (1 − p)^(y₁ + y₂)·((1 − p)^−y₁₂ − 1), from the union so that nothing overflows.
        let union = survival(p, one + other - both);
        union * (1.0 - survival(p, both)) + both * p * p * survival(p, one + other)
    });
    Ok(common - both * shape.moment(1, one) * shape.moment(1, other))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::estimate;

    fn exact(shape: SketchShape, term: impl Fn(f64) -> f64) -> f64 {
        let (a, m) = (shape.decay_rate, shape.size as f64);
        let first = (-a / m).exp_m1() / (-a).exp_m1();
        (0..shape.size).map(|i| term(first * (-a * i as f64 / m).exp())).sum()
    }

    #[test]
    fn quadrature_is_the_sum() {
        for (decay_rate, size) in [(1e-3, 100_000), (1.0, 3_000), (5.6, 50_000), (12.0, 100_000), (100.0, 100_000)] {
            let shape = SketchShape { decay_rate, size };
            for y in [0.0, 1.0, 100.0, 1e4, 1e6, 1e8] {
                for power in 0..3 {
                    let term = |p: f64| p.powi(power) * survival(p, y);
                    let (fast, slow) = (shape.sum(term), exact(shape, term));
                    assert!((fast - slow).abs() <= 1e-6 * slow + 1e-15, "{shape:?} y {y} power {power}: {fast} {slow}");
                }
            }
        }
    }

    #[test]
    fn sums_agree_with_the_closed_forms() {
        let params = Params::new(12.0, 100_000, 10_000_000).unwrap();
        let shape = SketchShape::from(&params);
        for people in [1e4, 1e5, 1e6, 1e8, 1e9] {
            let active = 1e5 - expected_empty(shape, people).unwrap();
            assert!((active / estimate::expected_active(&params, people) - 1.0).abs() < 2e-5, "{people}");
            let variance = active_covariance(shape, people, people, people).unwrap();
            assert!((variance / estimate::active_variance(&params, people) - 1.0).abs() < 1e-3, "{people}");
            let single = people * active_slope(shape, people).unwrap();
            assert!((single / estimate::expected_usable(&params, people) - 1.0).abs() < 1e-4, "{people}");
        }
    }
}
