//! What all parties of a share shuffle agree on.

use halo_core::privacy::{MaximumFrequency, PrivacyParams, VidSamplingInterval};
use halo_crypto::share::Modulus;
use halo_sketch::noise::{NoiseCalibration, NoiseMechanism, NoiseSpec, Sensitivity, ShiftedNoise};

use super::super::ProtocolError;
use super::super::stream::Consumed;

/// Workers: both add noise.
const CONTRIBUTORS: u32 = 2;
/// Noise cells that one worker makes at most.
const MAX_NOISE_CELLS: u64 = 1 << 30;

/// Which arithmetic and which shuffle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// The reference's, with this modulus.
    Compatible {
        /// q, from 2 to 256: above F·S + 1, and for reach only a prime.
        modulus: u32,
    },
    /// q = 256 for frequencies, 251 for reach only; the shuffle in buckets.
    Native,
}

/// The parameters of one computation, the same at every Duchy.
#[derive(Clone, Debug)]
pub struct Parameters {
    /// Arithmetic and shuffle.
    pub variant: Variant,
    /// N, the number of cells: people in the sampled part of the population, at least 2.
    pub cells: u64,
    /// F. With 1 only reach is computed.
    pub maximum_frequency: MaximumFrequency,
    /// Width of the VID sampling interval, above 0 and at most 1.
    pub sampling_width: f32,
    /// Ids of all publishers' requisitions, each once; their number is S.
    pub requisitions: Vec<String>,
    /// The noise of the workers; `None` switches it off.
    pub noise: Option<NoiseParameters>,
}

/// What every worker adds, and how much.
#[derive(Clone, Debug)]
pub struct NoiseParameters {
    /// The distribution: discrete Gaussian or geometric.
    pub mechanism: NoiseMechanism,
    /// How standard deviation and range follow from ε and δ.
    pub calibration: NoiseCalibration,
    /// How many workers' noise alone gives the promised privacy: 1 or 2.
    pub honest_contributors: u32,
    /// Of the number of people who were not reached.
    pub reach: PrivacyParams,
    /// Of the numbers of people with each frequency; needed when F > 1.
    pub frequency: Option<PrivacyParams>,
}

/// The noise, calibrated.
#[derive(Debug)]
pub(super) struct Noise {
    pub(super) reach: ShiftedNoise,
    /// Present when F > 1.
    pub(super) frequency: Option<ShiftedNoise>,
    /// Noise cells of each worker.
    pub(super) cells: u64,
}

impl Parameters {
    /// Checks everything that the types leave open: the modulus against F and S, the list of requisitions, and that the
    /// noise can be made.
    ///
    /// # Errors
    /// [`ProtocolError::Parameters`] and [`ProtocolError::Noise`] say what is wrong and what would do.
    pub fn check(&self) -> Result<(), ProtocolError> {
        self.calibrate().map(drop)
    }

    /// q: what publishers share their vectors with.
    ///
    /// # Errors
    /// [`ProtocolError::Parameters`] when it is not from 2 to 256.
    pub fn modulus(&self) -> Result<Modulus, ProtocolError> {
        let modulus = match self.variant {
            Variant::Compatible { modulus } => modulus,
            Variant::Native if self.counts_frequency() => 256,
            Variant::Native => 251,
        };
        Modulus::new(modulus).map_err(|error| ProtocolError::Parameters(error.to_string()))
    }

    /// Cells of both workers' noise together, which a worker holds beside those of the population; 0 without noise.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub fn noise_cells(&self) -> Result<u64, ProtocolError> {
        Ok(self.calibrate()?.map_or(0, |noise| 2 * noise.cells))
    }

    pub(super) fn counts_frequency(&self) -> bool {
        self.maximum_frequency.counts_frequency()
    }

    /// M = F·S, the largest number that a cell adds up to; checked to be at most 254.
    pub(super) fn combined_frequency(&self) -> u64 {
        u64::from(self.maximum_frequency.get()) * self.requisitions.len() as u64
    }

    pub(super) fn width(&self) -> Result<f64, ProtocolError> {
        let interval = VidSamplingInterval::new(0.0, self.sampling_width)
            .map_err(|error| ProtocolError::Parameters(error.to_string()))?;
        Ok(interval.width_decimal())
    }

    pub(super) fn calibrate(&self) -> Result<Option<Noise>, ProtocolError> {
        let refuse = |reason: String| Err(ProtocolError::Parameters(reason));
        self.width()?;
        let modulus = self.modulus()?;
        if self.cells < 2 || usize::try_from(self.cells).is_err() {
            return refuse(format!("{} cells; there must be at least 2, and all must fit the memory", self.cells));
        }
        let mut ids: Vec<&String> = self.requisitions.iter().collect();
        ids.sort_unstable();
        if ids.is_empty() {
            return refuse("there are no requisitions".to_owned());
        }
        if let Some(pair) = ids.windows(2).find(|pair| pair[0] == pair[1]) {
            return refuse(format!("requisition {} is listed twice", pair[0]));
        }
        let combined = self.combined_frequency();
        if u64::from(modulus.get()) <= combined + 1 {
            return refuse(format!(
                "modulus {modulus} is too small: with maximum frequency {} and {} publishers a cell adds up to {combined}, \
                 and one number more is needed for unused noise; lower the frequency or ask fewer publishers",
                self.maximum_frequency,
                self.requisitions.len()
            ));
        }
        if !self.counts_frequency() && !modulus.is_prime() {
            return refuse(format!("modulus {modulus} is no prime, which the masks of a reach-only computation need"));
        }
        let Some(noise) = &self.noise else { return Ok(None) };
        let one = |params, sensitivity| {
            NoiseSpec {
                mechanism: noise.mechanism,
                calibration: noise.calibration,
                params,
                sensitivity,
                contributors: CONTRIBUTORS,
                honest_contributors: noise.honest_contributors,
            }
            .calibrate()
            .map_err(|error| ProtocolError::Noise(error.to_string()))
        };
        // The reference makes the noise of reach like that of a histogram (protocols 6.1).
        let sensitivity = match noise.calibration {
            NoiseCalibration::Exact => Sensitivity::scalar(1),
            NoiseCalibration::Reference => Sensitivity::histogram(),
        };
        let reach = one(noise.reach, sensitivity)?;
        let frequency = match (self.counts_frequency(), noise.frequency) {
            (true, Some(params)) => Some(one(params, Sensitivity::histogram())?),
            (true, None) => {
                return refuse("frequencies are measured with noise, but their ε and δ are missing".to_owned());
            }
            (false, _) => None,
        };
        let cells = 2 * reach.shift() + 2 * frequency.as_ref().map_or(0, ShiftedNoise::shift) * combined;
        if cells > MAX_NOISE_CELLS {
            return Err(ProtocolError::Noise(format!(
                "ε and δ ask for {cells} noise cells of every worker, more than {MAX_NOISE_CELLS}; raise them"
            )));
        }
        Ok(Some(Noise { reach, frequency, cells }))
    }

    /// Hashes every parameter.
    pub(super) fn digest(&self, consumed: Consumed) -> Consumed {
        let consumed = match self.variant {
            Variant::Compatible { modulus } => consumed.number(1).number(u64::from(modulus)),
            Variant::Native => consumed.number(2),
        };
        let consumed = consumed
            .number(self.cells)
            .number(u64::from(self.maximum_frequency.get()))
            .number(u64::from(self.sampling_width.to_bits()))
            .number(self.requisitions.len() as u64);
        let consumed = self.requisitions.iter().fold(consumed, |consumed, id| consumed.bytes(id.as_bytes()));
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
        [Some(noise.reach), noise.frequency].into_iter().fold(consumed, |consumed, params| match params {
            None => consumed.number(0),
            Some(params) => {
                consumed.number(1).number(params.epsilon.get().to_bits()).number(params.delta.get().to_bits())
            }
        })
    }
}
