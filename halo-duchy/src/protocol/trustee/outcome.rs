//! What leaves the trustee's process, and the estimates that follow from it.

use halo_sketch::noise::deterministic::Statistic;

use super::super::ProtocolError;
use super::super::vector::{self, Estimates};
use super::parameters::{Calibrated, Draws, Mechanism};
use super::{Noise, Parameters, Thresholds};

/// How many cells hold each number.
pub(super) struct Counts([u64; 128]);

impl Counts {
    /// Counts the capped sums.
    pub(super) fn of(sums: &[u8]) -> Self {
        let mut counts = [0; 128];
        sums.iter().for_each(|sum| counts[usize::from(*sum)] += 1);
        Self(counts)
    }

    fn reached(&self) -> u64 {
        self.0[1..].iter().sum()
    }

    fn impressions(&self) -> u64 {
        self.0.iter().zip(0..).map(|(count, impressions)| count * impressions).sum()
    }

    /// Cells by frequency, from 1 to `most`.
    fn histogram(&self, most: u32) -> &[u64] {
        &self.0[1..=most as usize]
    }
}

/// What the consumer learns: numbers with their noise, after the thresholds.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Outcome {
    /// N, the number of people that could have been reached.
    pub cells: u64,
    /// How many of them were. Below 0, or above N, when the noise outweighs the data; 0 when `suppressed`.
    pub reached: i64,
    /// Whether a threshold held the result back: too few people, or too few impressions.
    pub suppressed: bool,
    /// How many were reached 1, 2, …, F − 1 times, and F times or more; `None` when F = 1.
    ///
    /// With thresholds no entry is below 0, and entries that miss one are added to the entry before (what misses in the
    /// first is left out); all are 0 when `suppressed`.
    pub histogram: Option<Vec<i64>>,
    /// Standard deviation of the noise in `reached`; 0 without noise.
    pub reach_noise_sd: f64,
    /// Standard deviation of the noise in each entry of `histogram` before the thresholds; 0 without noise.
    pub frequency_noise_sd: f64,
}

impl Outcome {
    /// Adds the noise and applies the thresholds.
    pub(super) fn release(
        counts: &Counts,
        parameters: &Parameters,
        noise: Option<&Calibrated>,
        draws: &Draws<'_>,
    ) -> Result<Self, ProtocolError> {
        let reach_noise = noise.map(|noise| &noise.reach);
        let frequency_noise = noise.and_then(|noise| noise.frequency.as_ref());
        let add = |count: u64, noise: Option<&Mechanism>, statistic| {
            let count = i64::try_from(count)
                .map_err(|_| ProtocolError::Inconsistent(format!("{count} is no possible count")))?;
            Ok::<_, ProtocolError>(count + noise.map_or(Ok(0), |noise| noise.draw(statistic, draws))?)
        };
        let mut reached = add(counts.reached(), reach_noise, Statistic::Reach)?;
        let most = parameters.maximum_frequency.get();
        let mut histogram = if parameters.counts_frequency() {
            let bins = counts.histogram(most).iter().zip(1..);
            let noised = bins.map(|(count, f)| add(*count, frequency_noise, Statistic::Frequency(f)));
            Some(noised.collect::<Result<Vec<i64>, _>>()?)
        } else {
            None
        };
        if (parameters.thresholds.is_some() || parameters.noise == Noise::Reference)
            && let Some(histogram) = &mut histogram
        {
            histogram.iter_mut().for_each(|bin| *bin = (*bin).max(0));
        }
        let mut suppressed = false;
        if let Some(thresholds) = parameters.thresholds {
            let width = parameters.width()?;
            let impressions = if thresholds.min_impressions > 0 {
                let noise = noise.and_then(|noise| noise.impressions.as_ref());
                add(counts.impressions(), noise, Statistic::Impressions)?
            } else {
                0
            };
            suppressed = scaled(reached.clamp(0, parameters.cells as i64), width) < thresholds.min_users as f64
                || scaled(impressions, width) < thresholds.min_impressions as f64;
            if suppressed {
                reached = 0;
            }
            if let Some(histogram) = &mut histogram {
                if suppressed { histogram.fill(0) } else { fold(histogram, thresholds, width) }
            }
        }
        Ok(Self {
            cells: parameters.cells,
            reached,
            suppressed,
            histogram,
            reach_noise_sd: reach_noise.map_or(0.0, Mechanism::standard_deviation),
            frequency_noise_sd: frequency_noise.map_or(0.0, Mechanism::standard_deviation),
        })
    }

    /// Reach and frequency with their standard errors. `parameters` are those of the computation.
    ///
    /// Reach is the number of people divided by the sampling width and cut to a whole number, as in the reference; the
    /// error of reach is that of a frequency vector, the errors of shares are those of a deterministic count, because every
    /// entry of the histogram has noise of its own ([`halo_sketch::variance`], protocols 5.4 and 5.5). Where nobody was
    /// reached, reach is 0 and there is no frequency.
    ///
    /// # Errors
    /// [`ProtocolError::Parameters`] when the sampling width is out of range.
    pub fn estimate(&self, parameters: &Parameters) -> Result<Estimates, ProtocolError> {
        let counted = vector::Counted {
            cells: self.cells,
            reached: self.reached,
            histogram: self.histogram.as_deref(),
            last_is_remainder: false,
            reach_noise_sd: self.reach_noise_sd,
            frequency_noise_sd: self.frequency_noise_sd,
        };
        let mut estimates = counted.estimate(parameters.width()?)?;
        estimates.reach = estimates.reach.trunc();
        Ok(estimates)
    }
}

/// A count of the sample, at least 0, scaled to the population and cut to a whole number.
fn scaled(count: i64, width: f64) -> f64 {
    (count.max(0) as f64 / width).trunc()
}

/// From the highest frequency down: an entry that misses a threshold is added to the one before, which is then looked at
/// with what was added; what misses in the first is left out (protocols 4.1).
fn fold(histogram: &mut [i64], thresholds: Thresholds, width: f64) {
    for frequency in (1..=histogram.len()).rev() {
        let count = histogram[frequency - 1];
        let people = count as f64 / width;
        if people < thresholds.min_users as f64 || frequency as f64 * people < thresholds.min_impressions as f64 {
            histogram[frequency - 1] = 0;
            if frequency > 1 {
                histogram[frequency - 2] += count;
            }
        }
    }
}
