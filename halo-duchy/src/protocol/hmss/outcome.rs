//! What the aggregator learns, and the estimates that follow from it.

use halo_sketch::noise::ShiftedNoise;

use super::super::ProtocolError;
use super::super::vector::{self, Estimates};
use super::{Duchy, Parameters};

/// Workers: both have added their noise.
const WORKERS: u64 = 2;

/// What the aggregator learns. The known totals of all noise have been taken off; what remains of it has mean 0.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Outcome {
    /// N, the number of people that could have been reached.
    pub cells: u64,
    /// How many of them were. Below 0, or above N, when the noise outweighs the data.
    pub reached: i64,
    /// How many were reached 1, 2, …, F − 1 times, and F times or more; `None` when F = 1. They sum to `reached`.
    pub histogram: Option<Vec<i64>>,
    /// Standard deviation of the noise in `reached`; 0 without noise.
    pub reach_noise_sd: f64,
    /// Standard deviation of the noise in each entry of `histogram` but the last; 0 without noise.
    pub frequency_noise_sd: f64,
}

impl Duchy {
    /// Takes the totals of all noise off. `counts` says how many cells hold each number.
    pub(super) fn outcome(&self, counts: &[u64; 256]) -> Result<Outcome, ProtocolError> {
        let signed = |count: u64| {
            i64::try_from(count).map_err(|_| ProtocolError::Inconsistent(format!("{count} is no possible count")))
        };
        let baseline = |noise: Option<&ShiftedNoise>| signed(noise.map_or(0, |noise| WORKERS * noise.shift()));
        let deviation = |noise: Option<&ShiftedNoise>| noise.map_or(0.0, ShiftedNoise::total_standard_deviation);
        let reach = self.noise.as_ref().map(|noise| &noise.reach);
        let frequency = self.noise.as_ref().and_then(|noise| noise.frequency.as_ref());
        let (reached, histogram) = if self.parameters.counts_frequency() {
            // Reach noise is added to the number of those who were not reached.
            let unreached = signed(counts[0])? - baseline(reach)?;
            let reached = signed(self.parameters.cells)? - unreached;
            let below = self.parameters.maximum_frequency.get() as usize - 1;
            let mut histogram = Vec::with_capacity(below + 1);
            for count in &counts[1..=below] {
                histogram.push(signed(*count)? - baseline(frequency)?);
            }
            // The rest: it has less noise than the sum of all higher frequencies, of which there are up to F·S.
            histogram.push(reached - histogram.iter().sum::<i64>());
            (reached, Some(histogram))
        } else {
            (signed(counts[1..].iter().sum())? - baseline(reach)?, None)
        };
        Ok(Outcome {
            cells: self.parameters.cells,
            reached,
            histogram,
            reach_noise_sd: deviation(reach),
            frequency_noise_sd: deviation(frequency),
        })
    }
}

impl Outcome {
    /// Reach and frequency with their standard errors. `parameters` are those of the computation.
    ///
    /// Reach is the number of cells divided by the sampling width; the errors are those of a frequency vector
    /// ([`halo_sketch::variance`], protocols 5.4 and 5.5): noise, and the sampling of a population of known size.
    ///
    /// # Errors
    /// [`ProtocolError::Parameters`] when the sampling width is out of range.
    pub fn estimate(&self, parameters: &Parameters) -> Result<Estimates, ProtocolError> {
        vector::Counted {
            cells: self.cells,
            reached: self.reached,
            histogram: self.histogram.as_deref(),
            last_is_remainder: true,
            reach_noise_sd: self.reach_noise_sd,
            frequency_noise_sd: self.frequency_noise_sd,
        }
        .estimate(parameters.width()?)
    }
}
