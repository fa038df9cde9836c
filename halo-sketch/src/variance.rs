//! Variances and covariances of results, by how they were measured.
//!
//! Everything here is a pure function of plain numbers: what was measured ([`ScalarMeasurement`], [`ReachMeasurement`],
//! [`FrequencyMeasurement`]), how ([`Methodology`]), and the variance of the noise that was added. True values are needed
//! in principle; estimates of them do in practice. The formulas follow those of the reference system (specification:
//! protocols 5.2 to 5.6, science 1.2 to 1.6), so that intervals agree with what its reports say; where it approximates,
//! the function's documentation says so.
//!
//! No result is below 0 or something else than a number; what cannot be is an error.
//!
//! ```
//! use halo_sketch::variance::{self, Interval, Methodology, ReachMeasurement, SketchShape};
//!
//! // A million people seen through a tenth of the VIDs and a sketch of 100,000 registers, without noise.
//! let measured = ReachMeasurement {
//!     methodology: Methodology::LiquidLegionsV2(SketchShape { decay_rate: 12.0, size: 100_000 }),
//!     reach: 1e6,
//!     interval: Interval { start: 0.0, width: 0.1 },
//!     noise_variance: 0.0,
//! };
//! let relative_error = variance::reach(&measured)?.sqrt() / 1e6;
//! assert!((relative_error - 0.009_065).abs() < 1e-5);
//! # Ok::<(), halo_sketch::Error>(())
//! ```

mod combination;
mod frequency;
mod noise;
mod reach;
mod registers;
mod scalar;

pub use combination::{ReachTerm, linear_combination, reach_covariance, reach_metric};
pub use frequency::{FrequencyMeasurement, FrequencyVariances, frequency};
pub use noise::{laplace, reference_gaussian, truncated_laplace};
pub use reach::{ReachMeasurement, reach};
pub use registers::{SketchShape, active_covariance, active_slope, expected_empty};
pub use scalar::ScalarMeasurement;

use crate::Error;

/// How a result came about.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Methodology {
    /// One publisher counted its sampled people exactly.
    Deterministic,
    /// One publisher's Liquid Legions sketch, which knows the people behind every register: collisions hide people from
    /// the count of registers, but no register's frequency is lost.
    Sketch(SketchShape),
    /// The Liquid Legions v2 protocol over the sketches of several publishers, and its variant for reach only: a register
    /// that two people share counts as active, and its frequency is lost.
    LiquidLegionsV2(SketchShape),
    /// One cell for every sampled VID of a population of known size, in which each frequency is counted exactly: the
    /// honest-majority share shuffle, and the reach of the trustee. Of frequencies the last entry is what the others leave
    /// over of reach, as in the share shuffle; where each entry has noise of its own, as at the trustee, the variances of
    /// shares are those of [`Methodology::Deterministic`].
    FrequencyVector {
        /// Cells of the vector; the sampled part of the population.
        size: u64,
    },
}

/// The VIDs that a measurement looks at: the part [start, start + width) of the unit circle.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// Where it begins, from 0 to 1.
    pub start: f64,
    /// How long it is, above 0 and at most 1. What passes 1 goes on at 0.
    pub width: f64,
}

impl Interval {
    /// The whole circle: nobody is left out.
    pub const FULL: Self = Self { start: 0.0, width: 1.0 };

    /// The length of the part that lies in one of the two intervals or in both.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] when one of the intervals does not lie on the circle.
    pub fn union_width(self, other: Self) -> Result<f64, Error> {
        Ok((self.check()?.width + other.check()?.width - self.overlap(other)).min(1.0))
    }

    /// The length of the part that lies in both.
    pub(crate) fn overlap(self, other: Self) -> f64 {
        // Either interval is one or two pieces of the line.
        let pieces = |interval: Self| {
            let end = interval.start + interval.width;
            [(interval.start, end.min(1.0)), (0.0, end - 1.0)]
        };
        let mut length = 0.0;
        for (low, high) in pieces(self) {
            for (other_low, other_high) in pieces(other) {
                length += (high.min(other_high) - low.max(other_low)).max(0.0);
            }
        }
        length
    }

    pub(crate) fn check(self) -> Result<Self, Error> {
        if !(0.0..=1.0).contains(&self.start) {
            return Err(Error::out_of_range("sampling start", self.start, "from 0 to 1"));
        }
        check_width(self.width)?;
        Ok(self)
    }
}

fn check_width(width: f64) -> Result<f64, Error> {
    if width > 0.0 && width <= 1.0 {
        Ok(width)
    } else {
        Err(Error::out_of_range("sampling width", width, "above 0 and at most 1"))
    }
}

/// Everything that is counted or squared here stays below 10^100, so that no product of it overflows.
fn check_amount(name: &'static str, value: f64) -> Result<f64, Error> {
    if (0.0..=1e100).contains(&value) { Ok(value) } else { Err(Error::out_of_range(name, value, "from 0 to 10^100")) }
}
