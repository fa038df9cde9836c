//! Results that are sums and differences of others.

use super::{Methodology, ReachMeasurement, check_amount, reach, registers};
use crate::Error;

/// Covariance of two measured reaches, of publishers whose union reaches `union_reach` people.
///
/// With R₁₂ = R₁ + R₂ − R∪ people in both and w₁₂ the share of VIDs sampled by both, it is R₁₂·(w₁₂/(w₁·w₂) − 1), from
/// the sampling alone; two sketches of the same shape share collisions besides:
/// Cov\[A₁, A₂\]/(w₁·w₂·g₁·g₂) with y₁₂ = R₁₂·w₁₂ people in both sketches. Noises are independent and add nothing.
/// R₁₂ is taken between 0 and the smaller reach, beyond which noise can carry it. (Protocols 5.3 and 5.6. The reference
/// takes the people in each sketch and in both to be at least 1, which makes two publishers that share nobody covary.)
///
/// # Errors
/// [`Error::OutOfRange`] names the number that does not fit; [`Error::Incompatible`] when two sketches differ in shape;
/// [`Error::Saturated`] as [`reach`](super::reach()).
pub fn reach_covariance(one: &ReachMeasurement, other: &ReachMeasurement, union_reach: f64) -> Result<f64, Error> {
    one.check()?;
    other.check()?;
    check_amount("reach of the union", union_reach)?;
    let both = (one.reach + other.reach - union_reach).clamp(0.0, one.reach.min(other.reach));
    let (width, other_width) = (one.interval.width, other.interval.width);
    let overlap = one.interval.overlap(other.interval);
    let sampling = both * (overlap / width / other_width - 1.0);
    let shape = match (sketch(one), sketch(other)) {
        (Some(shape), Some(other)) if shape == other => shape,
        (Some(shape), Some(other)) => {
            return Err(Error::Incompatible { left: format!("{shape:?}"), right: format!("{other:?}") });
        }
        _ => return Ok(sampling),
    };
    let (sampled, other_sampled) = (one.reach * width, other.reach * other_width);
    let both_sampled = (both * overlap).min(sampled).min(other_sampled);
    let counted = registers::active_covariance(shape, sampled, other_sampled, both_sampled)?;
    let slope = width * registers::active_slope(shape, sampled)?;
    let other_slope = other_width * registers::active_slope(shape, other_sampled)?;
    reach::finite(counted / slope / other_slope + sampling, shape, sampled.max(other_sampled))
}

fn sketch(measurement: &ReachMeasurement) -> Option<super::SketchShape> {
    match measurement.methodology {
        Methodology::Sketch(shape) | Methodology::LiquidLegionsV2(shape) => Some(shape),
        Methodology::Deterministic | Methodology::FrequencyVector { .. } => None,
    }
}

/// Variance of Σ aᵢ·xᵢ: Σ aᵢ²·Var\[xᵢ\] + 2·Σ aᵢ·aⱼ·Cov\[xᵢ, xⱼ\] over i < j, not below 0 (protocols 5.6). `covariance` is
/// asked for each pair of positions, the smaller first.
///
/// It also serves results that a publisher made by a method of its own and gave a variance for: nothing is known of how
/// they vary with others, so their covariance is 0. (The reference says so of the first of a pair only.)
///
/// # Errors
/// [`Error::OutOfRange`] when there are not as many weights as variances, or a number does not fit; what `covariance`
/// returns.
pub fn linear_combination(
    weights: &[f64],
    variances: &[f64],
    mut covariance: impl FnMut(usize, usize) -> Result<f64, Error>,
) -> Result<f64, Error> {
    if weights.len() != variances.len() {
        return Err(Error::out_of_range("weights", weights.len(), "as many as there are variances"));
    }
    let mut sum = 0.0;
    for (i, (weight, variance)) in weights.iter().zip(variances).enumerate() {
        check_amount("weight", weight.abs())?;
        sum += weight * weight * check_amount("variance", *variance)?;
        for (j, other) in weights.iter().enumerate().skip(i + 1) {
            sum += 2.0 * weight * other * covariance(i, j)?;
        }
    }
    if sum.is_nan() || sum == f64::INFINITY {
        return Err(Error::out_of_range("weighted variance", sum, "a number; use smaller weights"));
    }
    Ok(sum.max(0.0))
}

/// One term of a metric over reaches.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ReachTerm {
    /// What the reach is multiplied with.
    pub weight: f64,
    /// Whose reach it is: one bit for each publisher.
    pub publishers: u64,
    /// The reach.
    pub measurement: ReachMeasurement,
}

/// Variance of Σ aᵢ·Rᵢ over reaches of sets of publishers, such as the reach that one publisher adds. The union of each
/// two sets must be among the terms (with weight 0 where it does not count).
///
/// # Errors
/// As [`reach_covariance`], and [`Error::OutOfRange`] when a union is missing.
pub fn reach_metric(terms: &[ReachTerm]) -> Result<f64, Error> {
    let weights: Vec<f64> = terms.iter().map(|term| term.weight).collect();
    let variances: Vec<f64> = terms.iter().map(|term| reach(&term.measurement)).collect::<Result<_, _>>()?;
    linear_combination(&weights, &variances, |i, j| {
        let publishers = terms[i].publishers | terms[j].publishers;
        let union = terms.iter().find(|term| term.publishers == publishers).ok_or_else(|| {
            Error::out_of_range("publishers of a union", format!("{publishers:b}"), "those of one of the terms")
        })?;
        reach_covariance(&terms[i].measurement, &terms[j].measurement, union.measurement.reach)
    })
}
