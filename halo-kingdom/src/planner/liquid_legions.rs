//! What both Liquid Legions protocols need.

use halo_core::{
    measurement::{LiquidLegionsNoise, MeasurementSpec},
    resource::DuchyId,
};
use halo_sketch::{
    liquid_legions::Params,
    noise::{NoiseSpec, Sensitivity, ShiftedNoise},
};

use super::{Llv2Settings, NoiseMakers, Rollv2Settings, known_duchy, refuse_setting};
use crate::Error;

/// Least ε of what comes out (protocols 1.4 and 2.1).
const LEAST_EPSILON: f64 = 1e-5;
/// Noise registers, and noise tuples, that one Duchy makes at most, as the engines have it.
const MAX_NOISE_RECORDS: u64 = 1 << 27;
/// The largest excess noise of a reach-only computation, which its aggregator finds by a search of 2¹⁶ steps.
const MAX_EXCESS_NOISE: u64 = 1 << 31;

/// The settings of one of the two protocols.
pub(super) struct LiquidLegions<'a> {
    section: &'static str,
    aggregator: &'a DuchyId,
    decay_rate: f64,
    max_size: u64,
    /// None where registers have no keys: only reach is computed.
    sampling_indicator_size: Option<u64>,
    noise: Option<&'a LiquidLegionsNoise>,
    minimum_duchies: usize,
}

impl<'a> From<&'a Llv2Settings> for LiquidLegions<'a> {
    fn from(settings: &'a Llv2Settings) -> Self {
        Self {
            section: "llv2",
            aggregator: &settings.protocol.aggregator,
            decay_rate: settings.protocol.decay_rate,
            max_size: settings.protocol.max_size,
            sampling_indicator_size: Some(settings.protocol.sampling_indicator_size),
            noise: settings.protocol.noise.as_ref(),
            minimum_duchies: settings.minimum_duchies,
        }
    }
}

impl<'a> From<&'a Rollv2Settings> for LiquidLegions<'a> {
    fn from(settings: &'a Rollv2Settings) -> Self {
        Self {
            section: "rollv2",
            aggregator: &settings.protocol.aggregator,
            decay_rate: settings.protocol.decay_rate,
            max_size: settings.protocol.max_size,
            sampling_indicator_size: None,
            noise: settings.protocol.noise.as_ref(),
            minimum_duchies: settings.minimum_duchies,
        }
    }
}

impl LiquidLegions<'_> {
    /// Checks the settings against the Kingdom's Duchies.
    pub(super) fn check_settings(&self, duchies: &[DuchyId]) -> Result<(), Error> {
        let refuse = |key: &str, detail: String| refuse_setting(format!("{}.{key}", self.section), detail);
        known_duchy(format!("{}.aggregator", self.section), self.aggregator, duchies)?;
        let least = self.minimum_duchies;
        if least < 2 {
            return Err(refuse(
                "minimum_duchies",
                format!("it is {least}; one Duchy alone could decrypt every upload"),
            ));
        }
        if duchies.len() < least {
            let detail = format!("it is {least}, but {} Duchies are configured", duchies.len());
            return Err(refuse("minimum_duchies", detail));
        }
        let keys = self.sampling_indicator_size.unwrap_or(1);
        Params::new(self.decay_rate, self.max_size, keys)
            .map_err(|error| refuse_setting(self.section, error.to_string()))?;
        // Wider than this, the number would be negative in the messages.
        i64::try_from(keys)
            .map_err(|_| refuse("sampling_indicator_size", format!("{keys} is more than {}", i64::MAX)))?;
        let Some(noise) = self.noise else { return Ok(()) };
        if !(1..=duchies.len()).contains(&(noise.honest_contributors as usize)) {
            let detail = format!("it is {}, with {} Duchies configured", noise.honest_contributors, duchies.len());
            return Err(refuse("honest_contributors", detail));
        }
        NoiseSpec::publisher(noise.mechanism, noise.calibration, noise.data_provider)
            .calibrate()
            .map_err(|error| refuse("data_provider_noise", error.to_string()))?;
        // How much the publishers' noise is depends on their number, and may be impossible to hide for very many; for one
        // publisher it must be possible.
        let makers = makers(noise, duchies.len());
        makers
            .calibrate(noise.blinded_histogram, Sensitivity::histogram())
            .map_err(|detail| refuse("blinded_histogram_noise", detail))?;
        makers
            .calibrate(noise.for_publisher_noise, Sensitivity::scalar(1))
            .map_err(|detail| refuse("noise_for_publisher_noise", detail))?;
        Ok(())
    }

    /// Whether so many Duchies can compute this for so many publishers.
    pub(super) fn check(&self, spec: &MeasurementSpec, publishers: usize, duchies: usize) -> Result<(), String> {
        spec.vid_sampling_interval
            .without_wrapping()
            .map_err(|error| format!("measurement_spec.vid_sampling_interval: {error}"))?;
        let Some(noise) = self.noise else { return Ok(()) };
        let makers = makers(noise, duchies);
        let asked = makers.calibrate_people(spec, LEAST_EPSILON)?;
        let people = u32::try_from(publishers).map_err(|error| error.to_string())?;
        // One person may be known to all publishers.
        let publisher = makers.calibrate(noise.for_publisher_noise, Sensitivity::scalar(people)).map_err(|detail| {
            format!("{}.noise_for_publisher_noise is not possible for {publishers} publishers: {detail}", self.section)
        })?;
        let blinded = makers.calibrate(noise.blinded_histogram, Sensitivity::histogram())?;

        let people = u64::from(people);
        let reach = asked.first().map_or(0, ShiftedNoise::shift);
        let registers = sum(&[(2, publisher.shift()), (2, reach), (people * (people + 1), blinded.shift())]);
        if registers > MAX_NOISE_RECORDS {
            return Err(format!(
                "every Duchy would make {registers} noise registers, and {MAX_NOISE_RECORDS} are possible; raise the \
                 epsilon of reach, or ask fewer publishers"
            ));
        }
        let classes = u64::from(spec.kind.maximum_frequency().get()) + 1;
        let tuples = sum(&[(2 * classes, asked.get(1).map_or(0, ShiftedNoise::shift))]);
        if tuples > MAX_NOISE_RECORDS {
            return Err(format!(
                "every Duchy would make {tuples} noise tuples, and {MAX_NOISE_RECORDS} are possible; raise the epsilon \
                 of the frequency, or lower the maximum frequency"
            ));
        }
        if self.sampling_indicator_size.is_none() {
            // Each of the S counts of a Duchy is at most twice its shift.
            let excess = sum(&[(2 * people * duchies as u64, blinded.shift())]);
            if excess > MAX_EXCESS_NOISE {
                return Err(format!(
                    "the excess noise could be {excess}, and {MAX_EXCESS_NOISE} can be opened; ask fewer publishers"
                ));
            }
        }
        Ok(())
    }
}

fn makers(noise: &LiquidLegionsNoise, duchies: usize) -> NoiseMakers {
    NoiseMakers {
        mechanism: noise.mechanism,
        calibration: noise.calibration,
        contributors: duchies,
        honest_contributors: noise.honest_contributors,
    }
}

/// Sum of products; what is more than can be counted is the largest number.
fn sum(terms: &[(u64, u64)]) -> u64 {
    terms.iter().fold(0, |sum: u64, (a, b)| sum.saturating_add(a.saturating_mul(*b)))
}
