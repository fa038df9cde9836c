//! Reach.

use super::{Interval, Methodology, ScalarMeasurement, SketchShape, check_amount, registers};
use crate::Error;

/// A measured number of people.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ReachMeasurement {
    /// How it came about.
    pub methodology: Methodology,
    /// The people reached, sampled or not.
    pub reach: f64,
    /// Who was sampled.
    pub interval: Interval,
    /// Variance of the noise in what was counted: sampled people, or active registers of a sketch.
    pub noise_variance: f64,
}

impl ReachMeasurement {
    pub(super) fn check(&self) -> Result<(), Error> {
        check_amount("reach", self.reach)?;
        self.interval.check()?;
        check_amount("noise variance", self.noise_variance)?;
        match self.methodology {
            Methodology::Deterministic => {}
            Methodology::Sketch(shape) | Methodology::LiquidLegionsV2(shape) => {
                shape.check()?;
            }
            Methodology::FrequencyVector { size } => {
                Population::new(size, self.interval.width)?;
            }
        }
        Ok(())
    }
}

/// Variance of a measured reach.
///
/// - Deterministic: (R·w·(1 − w) + V)/w².
/// - Sketches: (Var\[A\] + V)/(w·g)² + R·(1/w − 1), with Var\[A\] from
///   [`active_covariance`](super::active_covariance) and g from [`active_slope`](super::active_slope) at y = R·w sampled
///   people. The reference takes y to be at least 1.
/// - Frequency vector: (w·(1 − w)·R·(N − R)/(N − 1) + V)/w² with N = ⌈cells/w⌉ people in the population, of whom a sample
///   of fixed size is drawn. R above N, which noise can make it, counts as N.
///
/// (Protocols 5.3 and 5.4, science 1.4.)
///
/// # Errors
/// [`Error::OutOfRange`] names the number that does not fit; [`Error::Saturated`] when a sketch is so full that its number
/// of active registers says nothing about reach.
pub fn reach(measurement: &ReachMeasurement) -> Result<f64, Error> {
    measurement.check()?;
    let ReachMeasurement { methodology, reach, interval: Interval { width, .. }, noise_variance } = *measurement;
    match methodology {
        Methodology::Deterministic => ScalarMeasurement::reach(reach, width, noise_variance).variance(),
        Methodology::Sketch(shape) | Methodology::LiquidLegionsV2(shape) => {
            let sampled = reach * width;
            let counted = registers::active_covariance(shape, sampled, sampled, sampled)?.max(0.0) + noise_variance;
            let slope = width * registers::active_slope(shape, sampled)?;
            let variance = counted / slope / slope + reach * (1.0 / width - 1.0);
            finite(variance, shape, sampled)
        }
        Methodology::FrequencyVector { size } => {
            let population = Population::new(size, width)?;
            Ok((population.sampling(reach, reach) + noise_variance) / width / width)
        }
    }
}

/// The number, or the reason why a sketch has none.
pub(super) fn finite(variance: f64, shape: SketchShape, sampled: f64) -> Result<f64, Error> {
    if variance.is_finite() {
        return Ok(variance);
    }
    Err(Error::Saturated {
        active: shape.size as f64 - registers::expected_empty(shape, sampled)?,
        size: shape.size,
        decay_rate: shape.decay_rate,
        capacity: 0.5 * shape.saturation(),
    })
}

/// A population of known size of which a share of fixed size is sampled.
#[derive(Clone, Copy)]
pub(super) struct Population {
    people: f64,
    width: f64,
}

impl Population {
    pub(super) fn new(size: u64, width: f64) -> Result<Self, Error> {
        let people = (size as f64 / width).ceil();
        if people > 1.0 && people <= 1e100 {
            Ok(Self { people, width })
        } else {
            Err(Error::out_of_range("frequency vector size", size, "at least 1 cell of a population of 2 or more"))
        }
    }

    /// Covariance of the sampled parts of a group and of a part of it: w(1 − w)·(N − group)·part/(N − 1), the
    /// hypergeometric law.
    pub(super) fn sampling(self, group: f64, part: f64) -> f64 {
        let others = (self.people - group).max(0.0);
        self.width * (1.0 - self.width) * others * part.min(self.people) / (self.people - 1.0)
    }
}
