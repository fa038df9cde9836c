//! What all parties of a Liquid Legions v2 computation agree on.

use halo_core::privacy::{MaximumFrequency, PrivacyParams, VidSamplingInterval};
use halo_sketch::liquid_legions;
use halo_sketch::noise::{NoiseCalibration, NoiseMechanism};

use super::super::ProtocolError;
use super::super::stream::Consumed;
use super::noise::Noise;

/// At most so many publishers: their number is squared in the amount of blinded histogram noise.
const MAX_PUBLISHERS: u32 = 10_000;

/// The parameters of one computation, the same at every Duchy.
#[derive(Clone, Debug)]
pub struct Parameters {
    /// The publishers' sketches: decay rate and number of registers.
    pub sketch: liquid_legions::Params,
    /// F. With 1 only reach is computed, and the computation ends after phase two.
    pub maximum_frequency: MaximumFrequency,
    /// Width of the VID sampling interval, above 0 and at most 1.
    pub sampling_width: f32,
    /// The noise of the Duchies; `None` switches every noise off.
    pub noise: Option<NoiseParameters>,
    /// S, the number of requisitions of the computation at all Duchies together, at least 1.
    pub publishers: u32,
}

/// What every Duchy adds, and how much.
#[derive(Clone, Debug)]
pub struct NoiseParameters {
    /// The distribution: discrete Gaussian or geometric.
    pub mechanism: NoiseMechanism,
    /// How standard deviation and range follow from ε and δ.
    pub calibration: NoiseCalibration,
    /// So many Duchies' noise alone gives the promised privacy, from 1 to the number of Duchies.
    pub honest_contributors: u32,
    /// Of the reach that comes out.
    pub reach: PrivacyParams,
    /// Of the frequency histogram that comes out; needed when F > 1, not looked at when F = 1.
    pub frequency: Option<PrivacyParams>,
    /// Of how many publishers share a register, which the aggregator sees.
    pub blinded_histogram: PrivacyParams,
    /// Of how much noise the publishers have added to their sketches, which the aggregator sees.
    pub noise_for_publisher_noise: PrivacyParams,
}

impl Parameters {
    /// The width that estimates divide by: the shortest decimal of the float32.
    pub(crate) fn width(&self) -> Result<f64, ProtocolError> {
        let interval = VidSamplingInterval::new(0.0, self.sampling_width)
            .map_err(|error| ProtocolError::Parameters(error.to_string()))?;
        Ok(interval.width_decimal())
    }

    /// F as a number.
    pub(crate) fn frequency(&self) -> usize {
        self.maximum_frequency.get() as usize
    }

    /// Checks what the types leave open, and that so many Duchies can make the noise.
    ///
    /// # Errors
    /// When the sampling width, the number of publishers or of honest contributors is out of range, ε and δ of the
    /// frequency are missing, or the noise cannot be calibrated or needs more records than a Duchy makes (2^27).
    pub fn check(&self, duchies: usize) -> Result<(), ProtocolError> {
        self.calibrate(duchies).map(drop)
    }

    /// The noise of one of so many Duchies, when all parameters are in range.
    pub(crate) fn calibrate(&self, duchies: usize) -> Result<Option<Noise>, ProtocolError> {
        self.check_ranges(duchies)?;
        self.noise.as_ref().map(|noise| Noise::calibrate(self, noise, duchies)).transpose()
    }

    fn check_ranges(&self, duchies: usize) -> Result<(), ProtocolError> {
        let refuse = |what: String| Err(ProtocolError::Parameters(what));
        self.width()?;
        if !(1..=MAX_PUBLISHERS).contains(&self.publishers) {
            return refuse(format!("{} publishers; the number must be from 1 to {MAX_PUBLISHERS}", self.publishers));
        }
        let Some(noise) = &self.noise else { return Ok(()) };
        if noise.honest_contributors == 0 || noise.honest_contributors as usize > duchies {
            let honest = noise.honest_contributors;
            return refuse(format!(
                "{honest} honest contributors; the number must be from 1 to {duchies}, the Duchies"
            ));
        }
        if noise.frequency.is_none() && self.maximum_frequency.counts_frequency() {
            return refuse("frequencies are measured with noise, but their ε and δ are missing".to_owned());
        }
        Ok(())
    }

    /// Hashes every parameter.
    pub(crate) fn digest(&self, consumed: Consumed) -> Consumed {
        let consumed = consumed
            .number(self.sketch.decay_rate().to_bits())
            .number(self.sketch.size())
            .number(u64::from(self.maximum_frequency.get()))
            .number(u64::from(self.sampling_width.to_bits()))
            .number(u64::from(self.publishers));
        let Some(noise) = &self.noise else { return consumed.number(0) };
        let consumed = consumed
            .number(1)
            .number(match noise.mechanism {
                NoiseMechanism::DiscreteGaussian => 1,
                NoiseMechanism::Geometric => 2,
            })
            .number(match noise.calibration {
                NoiseCalibration::Exact => 1,
                NoiseCalibration::Reference => 2,
            })
            .number(u64::from(noise.honest_contributors));
        [Some(noise.reach), noise.frequency, Some(noise.blinded_histogram), Some(noise.noise_for_publisher_noise)]
            .into_iter()
            .fold(consumed, |consumed, params| match params {
                None => consumed.number(0),
                Some(params) => {
                    consumed.number(1).number(params.epsilon.get().to_bits()).number(params.delta.get().to_bits())
                }
            })
    }
}
