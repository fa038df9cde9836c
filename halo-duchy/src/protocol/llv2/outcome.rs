//! What the aggregator learns, and the estimates that follow from it.

use halo_sketch::estimate;
use halo_sketch::noise::ShiftedNoise;

use super::super::ProtocolError;
use super::{Duchy, Parameters};

/// What the aggregator has counted up to phase two.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counts {
    /// Registers that went around in phase one, noise included.
    pub(super) registers: u64,
    /// Tuples that went around in phase two, noise included.
    pub(super) tuples: u64,
    /// Tuples whose third flag opened to the identity.
    pub(super) noise_tuples: u64,
}

/// What the aggregator learns. The known totals of all noise have been taken off; what remains of it has mean 0.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Outcome {
    /// Registers of all publishers together, their own noise registers included.
    pub registers_in: u64,
    /// Registers that are active after the join. Below 0 when the noise outweighs the data.
    pub active_registers: i64,
    /// How many usable registers have count 1, 2, …, F − 1, and F or more; `None` when F = 1. Entries can be below 0.
    pub usable_histogram: Option<Vec<i64>>,
    /// Standard deviation of the noise in `active_registers`; 0 without noise.
    pub reach_noise_sd: f64,
    /// Standard deviation of the noise in each entry of `usable_histogram`; 0 without noise.
    pub frequency_noise_sd: f64,
}

/// The estimates of a measurement.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ReachAndFrequency {
    /// How many people were reached, at least 0; not rounded.
    pub reach: f64,
    /// Standard error of `reach` in people: sketch, sampling and noise together.
    pub reach_standard_error: f64,
    /// Standard deviation of the noise, in registers.
    pub reach_noise_sd: f64,
    /// The frequency distribution; `None` when F = 1 or when there is no data.
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
    /// Takes the totals of all noise off the counts. `histogram` has F entries.
    pub(super) fn outcome(&self, counts: &Counts, histogram: Option<&[u64]>) -> Result<Outcome, ProtocolError> {
        let duchies = self.place.ring.len() as u64;
        let shift = |noise: Option<&ShiftedNoise>| noise.map_or(0, ShiftedNoise::shift).saturating_mul(duchies);
        let deviation = |noise: Option<&ShiftedNoise>| noise.map_or(0.0, ShiftedNoise::total_standard_deviation);
        let reach = self.noise.as_ref().map(|noise| &noise.reach);
        let frequency = self.noise.as_ref().and_then(|noise| noise.frequency.as_ref());

        let setup_noise = self.noise_registers().saturating_mul(duchies);
        let registers_in = counts.registers.checked_sub(setup_noise).ok_or_else(|| {
            ProtocolError::Inconsistent(format!("{} registers, of which {setup_noise} are noise", counts.registers))
        })?;
        let reach_baseline = shift(reach);
        let tuple_noise = self.noise_tuples().saturating_mul(duchies);
        let active_registers = [counts.noise_tuples, reach_baseline, tuple_noise]
            .into_iter()
            .try_fold(signed(counts.tuples)?, subtract)?;
        let bin_baseline = shift(frequency);
        let usable_histogram = histogram
            .map(|bins| bins.iter().map(|bin| subtract(signed(*bin)?, bin_baseline)).collect::<Result<_, _>>())
            .transpose()?;
        Ok(Outcome {
            registers_in,
            active_registers,
            usable_histogram,
            reach_noise_sd: deviation(reach),
            frequency_noise_sd: deviation(frequency),
        })
    }
}

pub(crate) fn signed(count: u64) -> Result<i64, ProtocolError> {
    i64::try_from(count).map_err(|_| ProtocolError::Inconsistent(format!("{count} is no possible count")))
}

pub(crate) fn subtract(count: i64, noise: u64) -> Result<i64, ProtocolError> {
    count
        .checked_sub(signed(noise)?)
        .ok_or_else(|| ProtocolError::Inconsistent(format!("{count} less {noise} is no possible count")))
}

impl Outcome {
    /// Reach and frequency with their standard errors. `parameters` are those of the computation.
    ///
    /// Reach comes from the closed form of the expected number of active registers, 0 when none is left after the
    /// noise has been taken off. The histogram is projected onto the shares that can be (none below 0, sum 1).
    ///
    /// # Errors
    /// [`ProtocolError::Saturated`] when as many registers are active as the sketch has;
    /// [`ProtocolError::Parameters`] when the sampling width is out of range.
    pub fn estimate(&self, parameters: &Parameters) -> Result<ReachAndFrequency, ProtocolError> {
        let width = parameters.width()?;
        let active = self.active_registers.max(0) as f64;
        let reach = estimate::reach(&parameters.sketch, active, width, self.reach_noise_sd).map_err(|_| {
            ProtocolError::Saturated { active: self.active_registers, registers: parameters.sketch.size() }
        })?;
        // Nothing reached: whatever is in the histogram is noise.
        let histogram = self.usable_histogram.as_ref().filter(|_| reach.value > 0.0);
        let frequency = histogram.and_then(|histogram| {
            let bins: Vec<f64> = histogram.iter().map(|bin| *bin as f64).collect();
            estimate::frequency(&bins, self.frequency_noise_sd, reach.value)
        });
        Ok(ReachAndFrequency {
            reach: reach.value,
            reach_standard_error: reach.standard_error,
            reach_noise_sd: self.reach_noise_sd,
            frequency: frequency
                .map(|found| Frequency { shares: found.shares, standard_errors: found.standard_errors }),
        })
    }
}
