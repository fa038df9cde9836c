//! What the aggregator learns, and the estimates that follow from it.

use halo_sketch::estimate;
use halo_sketch::noise::ShiftedNoise;
use halo_sketch::variance::{self, FrequencyMeasurement, Interval, Methodology, ReachMeasurement};

use super::super::ProtocolError;
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

/// The estimates of a measurement.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Estimates {
    /// How many people were reached, at least 0; not rounded.
    pub reach: f64,
    /// Standard error of `reach` in people: sampling and noise together.
    pub reach_standard_error: f64,
    /// Shares of the people reached 1, 2, …, F − 1 times, and F times or more; `None` when F = 1 or there is no data.
    pub frequency: Option<Frequency>,
}

/// A frequency distribution.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Frequency {
    /// Shares of the people reached 1, 2, …, F − 1 times, and F times or more. None is below 0, and they sum to 1.
    pub shares: Vec<f64>,
    /// Standard error of each share.
    pub standard_errors: Vec<f64>,
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
    /// ([`variance`], protocols 5.4 and 5.5): noise, and the sampling of a population of known size.
    ///
    /// # Errors
    /// [`ProtocolError::Parameters`] when the sampling width is out of range.
    pub fn estimate(&self, parameters: &Parameters) -> Result<Estimates, ProtocolError> {
        let refuse = |error: halo_sketch::Error| ProtocolError::Parameters(error.to_string());
        let width = parameters.width()?;
        let reached = self.reached.clamp(0, i64::try_from(self.cells).unwrap_or(i64::MAX)) as f64;
        let measured = ReachMeasurement {
            methodology: Methodology::FrequencyVector { size: self.cells },
            reach: reached / width,
            interval: Interval { start: 0.0, width },
            noise_variance: self.reach_noise_sd.powi(2),
        };
        let reach_standard_error = variance::reach(&measured).map_err(refuse)?.sqrt();
        let histogram = self.histogram.as_ref().filter(|_| reached > 0.0);
        let shares = histogram.and_then(|histogram| {
            let bins: Vec<f64> = histogram.iter().map(|bin| *bin as f64).collect();
            Some(estimate::frequency(&bins, self.frequency_noise_sd, measured.reach)?.shares)
        });
        let frequency = match shares {
            None => None,
            Some(shares) => {
                let noise_variance = self.frequency_noise_sd.powi(2);
                let measurement = FrequencyMeasurement { reach: measured, shares: &shares, noise_variance };
                let variances = variance::frequency(&measurement).map_err(refuse)?;
                let standard_errors = variances.relative.into_iter().map(f64::sqrt).collect();
                Some(Frequency { shares, standard_errors })
            }
        };
        Ok(Estimates { reach: measured.reach, reach_standard_error, frequency })
    }
}
