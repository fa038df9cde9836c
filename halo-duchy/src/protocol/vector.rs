//! Estimates from counts over a population whose people are numbered.

use halo_sketch::estimate;
use halo_sketch::variance::{self, FrequencyMeasurement, Interval, Methodology, ReachMeasurement};

use super::ProtocolError;

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

/// What was counted, its noise taken off as far as it is known.
pub(crate) struct Counted<'a> {
    /// N, the number of people that could have been reached.
    pub(crate) cells: u64,
    /// How many of them were.
    pub(crate) reached: i64,
    /// How many were reached 1, 2, … times; the last entry so often or more.
    pub(crate) histogram: Option<&'a [i64]>,
    /// Whether the last entry is what the others leave over of `reached`, and has its noise and theirs, rather than
    /// counted with noise of its own.
    pub(crate) last_is_remainder: bool,
    /// Standard deviation of the noise in `reached`.
    pub(crate) reach_noise_sd: f64,
    /// Standard deviation of the noise in each entry of `histogram`.
    pub(crate) frequency_noise_sd: f64,
}

impl Counted<'_> {
    /// Reach and frequency with their standard errors, for a sampling width above 0 and at most 1.
    pub(crate) fn estimate(&self, width: f64) -> Result<Estimates, ProtocolError> {
        let refuse = |error: halo_sketch::Error| ProtocolError::Parameters(error.to_string());
        let reached = self.reached.clamp(0, i64::try_from(self.cells).unwrap_or(i64::MAX)) as f64;
        let measured = ReachMeasurement {
            methodology: Methodology::FrequencyVector { size: self.cells },
            reach: reached / width,
            interval: Interval { start: 0.0, width },
            noise_variance: self.reach_noise_sd.powi(2),
        };
        let reach_standard_error = variance::reach(&measured).map_err(refuse)?.sqrt();
        let histogram = self.histogram.filter(|_| reached > 0.0);
        let shares = histogram.and_then(|histogram| {
            let bins: Vec<f64> = histogram.iter().map(|bin| *bin as f64).collect();
            Some(estimate::frequency(&bins, self.frequency_noise_sd, measured.reach)?.shares)
        });
        let frequency = match shares {
            None => None,
            Some(shares) => {
                let noise_variance = self.frequency_noise_sd.powi(2);
                // Entries that are all counted are those of a deterministic count: their shares are of their own sum, in
                // which the noise of reach does not enter.
                let methodology =
                    if self.last_is_remainder { measured.methodology } else { Methodology::Deterministic };
                let reach = ReachMeasurement { methodology, ..measured };
                let measurement = FrequencyMeasurement { reach, shares: &shares, noise_variance };
                let variances = variance::frequency(&measurement).map_err(refuse)?;
                let standard_errors = variances.relative.into_iter().map(f64::sqrt).collect();
                Some(Frequency { shares, standard_errors })
            }
        };
        Ok(Estimates { reach: measured.reach, reach_standard_error, frequency })
    }
}
