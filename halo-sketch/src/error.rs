//! The one error type of the crate.

use thiserror::Error;

/// What can go wrong in counting, estimating and noise; one variant for each thing a caller can do about it.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum Error {
    /// A number is outside its range: choose another one.
    #[error("{name} is {value}; it must be {expected}")]
    OutOfRange {
        /// What the number is.
        name: &'static str,
        /// What was given.
        value: String,
        /// The range that is accepted.
        expected: &'static str,
    },
    /// Two sketches of different shapes were put together: build all of them with the same parameters.
    #[error(
        "sketches of different parameters cannot be combined: {left} against {right}; every publisher of a measurement must use the same decay rate, size and sampling indicator size"
    )]
    Incompatible {
        /// The parameters on the one side.
        left: String,
        /// The parameters on the other side.
        right: String,
    },
    /// Stored bytes are not a sketch of this format: restore them from their source.
    #[error("not a Liquid Legions sketch: {reason} (at byte {offset})")]
    Corrupt {
        /// What is wrong.
        reason: &'static str,
        /// Where in the bytes it was found.
        offset: usize,
    },
    /// Every register is active, so the reach is above what the sketch can count.
    #[error(
        "{active} of {size} registers are active: the sketch is saturated and cannot be inverted; use more registers, a larger decay rate or a narrower sampling interval (at decay rate {decay_rate} it counts up to about {capacity:.3e} people)"
    )]
    Saturated {
        /// Active registers found.
        active: f64,
        /// Registers of the sketch.
        size: u64,
        /// Decay rate of the sketch.
        decay_rate: f64,
        /// Half the number of people at which the last register is expected to be hit once.
        capacity: f64,
    },
    /// The noise asked for would need more registers than a computation can carry: raise ε or δ.
    #[error(
        "noise for epsilon {epsilon:e} and delta {delta:e} at sensitivity {sensitivity} needs about {registers:.2e} noise registers per Duchy and histogram cell, above the limit of {limit:.2e}; use a larger epsilon or delta"
    )]
    TooMuchNoise {
        /// ε that was asked for.
        epsilon: f64,
        /// δ that was asked for.
        delta: f64,
        /// L1 sensitivity of the statistic.
        sensitivity: u32,
        /// Registers per contributor that the noise would need.
        registers: f64,
        /// Registers per contributor that are accepted.
        limit: f64,
    },
}

impl Error {
    pub(crate) fn out_of_range(name: &'static str, value: impl ToString, expected: &'static str) -> Self {
        Self::OutOfRange { name, value: value.to_string(), expected }
    }
}
