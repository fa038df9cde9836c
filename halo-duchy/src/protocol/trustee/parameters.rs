//! What the trustee computes, and with which noise.

use halo_core::privacy::{MaximumFrequency, NoiseCalibration, NoiseMechanism, PrivacyParams, VidSamplingInterval};
use halo_crypto::secret::Secret;
use halo_sketch::noise::deterministic::reference::TruncatedLaplace;
use halo_sketch::noise::deterministic::{Statistic, StickyNoise};
use halo_sketch::noise::{NoiseSpec, Sensitivity, ShiftedNoise};

use super::super::ProtocolError;
use super::super::stream::{Consumed, Purpose, StepRandomness};

/// The largest number that a cell of a publisher's vector may hold: the reference reads cells as signed bytes.
pub const MAXIMUM_CELL: u8 = 127;

/// What envelopes are bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// Nothing, as the reference's publishers make them.
    Compatible,
    /// The requisition ([`halo_crypto::envelope::requisition_binding`]): a vector that is put in another's place does not
    /// open.
    Native,
}

/// The parameters of one computation.
#[derive(Clone, Debug)]
pub struct Parameters {
    /// What envelopes are bound to.
    pub variant: Variant,
    /// N, the number of cells: people in the sampled part of the population, at least 2.
    pub cells: u64,
    /// F, at most [`MAXIMUM_CELL`]. With 1 only reach is computed.
    pub maximum_frequency: MaximumFrequency,
    /// Width of the VID sampling interval, above 0 and at most 1.
    pub sampling_width: f32,
    /// Names of all publishers' requisitions, each once.
    pub requisitions: Vec<String>,
    /// Smaller results are not released; `None` releases all.
    pub thresholds: Option<Thresholds>,
    /// The noise.
    pub noise: Noise,
}

/// Results below these are released as 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// Least number of people, scaled to the whole population.
    pub min_users: u64,
    /// Least number of impressions, scaled likewise; 0 asks nothing.
    pub min_impressions: u64,
    /// For reach only: so many impressions of one person count at most, from 1 to [`MAXIMUM_CELL`]. With frequencies that
    /// number is F.
    pub impressions_per_person: u8,
}

impl Thresholds {
    /// Of a configuration that leaves the impressions that count for one person open: 126, as in the reference.
    #[must_use]
    pub const fn new(min_users: u64, min_impressions: u64) -> Self {
        Self { min_users, min_impressions, impressions_per_person: 126 }
    }
}

/// The privacy parameters of each release.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Budget {
    /// Of the number of people.
    pub reach: PrivacyParams,
    /// Of the numbers of people with each frequency; needed when F > 1.
    pub frequency: Option<PrivacyParams>,
    /// Of the number of impressions, which is only compared with [`Thresholds::min_impressions`]; needed when that is
    /// above 0.
    pub impressions: Option<PrivacyParams>,
}

/// The noise of the released numbers.
///
/// # Guarantee
/// A neighbouring data set lacks the data of one person at one publisher. That changes reach by at most 1 (Δ₁ = Δ₂ = 1);
/// the histogram in two cells by one each (Δ₁ = 2, Δ₂ = √2); impressions by at most the number c that counts for one
/// person (Δ₁ = Δ₂ = c); science 2.5. Each of the three is (ε, δ)-differentially private with its parameters of the
/// [`Budget`], and the whole result is their composition. Thresholds and shares are computed from noised numbers only.
///
/// The exception is the rule of deterministic noise that a publisher's contribution below [`Thresholds::min_users`] is left
/// out: it looks at the exact contribution, so that one person can move the result by a whole contribution. With
/// [`Noise::Sticky`] and thresholds, the guarantee holds between data sets in which the same contributions are left out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Noise {
    /// None: results are exact, and no privacy is promised.
    None,
    /// Discrete Gaussian noise, drawn anew in each computation with exact integer arithmetic ([`halo_sketch::noise`]). It
    /// stands in for the reference's CONTINUOUS_GAUSSIAN: floating-point noise is never drawn.
    DiscreteGaussian(Budget),
    /// Noise that the same data always get, keyed by the trustee's secret ([`StickyNoise`]). However often a number of the
    /// same data is asked for, with whatever ε up to ε₀ and whatever δ, what is released spends no more than (2 + √2)·ε₀.
    /// Another sampling interval, population, maximum frequency or set of publishers is other data, with noise of its own.
    Sticky(Budget),
    /// The reference's DETERMINISTIC_TRUNCATED_LAPLACE, bit for bit: keyed by nothing, so that whoever guesses the data knows
    /// the noise ([`halo_sketch::noise::deterministic::reference`]).
    Reference,
}

/// One number's noise, ready to be drawn.
#[derive(Debug)]
pub(super) enum Mechanism {
    Gaussian(ShiftedNoise),
    Sticky(StickyNoise),
    Reference(TruncatedLaplace),
}

/// The noise of all numbers.
#[derive(Debug)]
pub(super) struct Calibrated {
    pub(super) reach: Mechanism,
    /// Present when F > 1.
    pub(super) frequency: Option<Mechanism>,
    /// Present when a threshold asks for impressions.
    pub(super) impressions: Option<Mechanism>,
}

/// What noise is drawn from.
pub(super) struct Draws<'a> {
    pub(super) randomness: &'a StepRandomness,
    pub(super) key: Option<&'a Secret<[u8; 32]>>,
    pub(super) fingerprint: [u8; 32],
}

impl Mechanism {
    pub(super) fn draw(&self, statistic: Statistic, draws: &Draws<'_>) -> Result<i64, ProtocolError> {
        match self {
            Self::Gaussian(noise) => {
                let stream = u64::from(statistic.label().cast_unsigned());
                let mut rng = draws.randomness.stream(Purpose::NoiseCount).rng(stream);
                // Both are at most twice the largest shift.
                Ok(noise.sample(&mut rng) as i64 - noise.shift() as i64)
            }
            Self::Sticky(noise) => {
                let key = draws.key.ok_or_else(|| ProtocolError::Noise("the secret is missing".to_owned()))?;
                Ok(noise.draw(key.expose(), &draws.fingerprint, statistic))
            }
            Self::Reference(noise) => Ok(noise.draw(&draws.fingerprint, statistic)),
        }
    }

    pub(super) fn standard_deviation(&self) -> f64 {
        match self {
            Self::Gaussian(noise) => noise.total_standard_deviation(),
            Self::Sticky(noise) => noise.standard_deviation(),
            Self::Reference(noise) => noise.standard_deviation(),
        }
    }
}

impl Parameters {
    /// Checks everything that the types leave open, and that the noise can be made.
    ///
    /// # Errors
    /// [`ProtocolError::Parameters`] and [`ProtocolError::Noise`] say what is wrong and what would do.
    pub fn check(&self) -> Result<(), ProtocolError> {
        self.calibrate().map(drop)
    }

    pub(super) fn counts_frequency(&self) -> bool {
        self.maximum_frequency.counts_frequency()
    }

    /// The largest sum that a cell is counted with.
    pub(super) fn cap(&self) -> u8 {
        match self.thresholds {
            Some(thresholds) if !self.counts_frequency() => thresholds.impressions_per_person,
            _ => self.maximum_frequency.get() as u8, // checked to be at most 127
        }
    }

    /// The least number of people of a contribution that is aggregated, where deterministic noise asks for one.
    pub(super) fn least_contribution(&self) -> Option<u64> {
        match (self.noise, self.thresholds) {
            (Noise::Sticky(_) | Noise::Reference, Some(thresholds)) => Some(thresholds.min_users),
            _ => None,
        }
    }

    pub(super) fn width(&self) -> Result<f64, ProtocolError> {
        let interval = VidSamplingInterval::new(0.0, self.sampling_width)
            .map_err(|error| ProtocolError::Parameters(error.to_string()))?;
        Ok(interval.width_decimal())
    }

    fn needs_impressions(&self) -> bool {
        self.thresholds.is_some_and(|thresholds| thresholds.min_impressions > 0)
    }

    pub(super) fn calibrate(&self) -> Result<Option<Calibrated>, ProtocolError> {
        let refuse = |reason: String| Err(ProtocolError::Parameters(reason));
        self.width()?;
        if self.cells < 2 || usize::try_from(self.cells).is_err() {
            return refuse(format!("{} cells; there must be at least 2, and all must fit the memory", self.cells));
        }
        if self.maximum_frequency.get() > u32::from(MAXIMUM_CELL) {
            let frequency = self.maximum_frequency;
            return refuse(format!(
                "maximum frequency {frequency} is above {MAXIMUM_CELL}, the most that a cell holds"
            ));
        }
        let mut ids: Vec<&String> = self.requisitions.iter().collect();
        ids.sort_unstable();
        if ids.is_empty() {
            return refuse("there are no requisitions".to_owned());
        }
        if let Some(pair) = ids.windows(2).find(|pair| pair[0] == pair[1]) {
            return refuse(format!("requisition {} is listed twice", pair[0]));
        }
        let one_to_127 = 1..=MAXIMUM_CELL;
        if let Some(Thresholds { impressions_per_person: cap, .. }) = self.thresholds
            && !one_to_127.contains(&cap)
        {
            return refuse(format!("{cap} impressions of one person; from 1 to {MAXIMUM_CELL} can count"));
        }
        let gaussian = |params, sensitivity| {
            let calibrated = NoiseSpec {
                mechanism: NoiseMechanism::DiscreteGaussian,
                calibration: NoiseCalibration::Exact,
                params,
                sensitivity,
                contributors: 1,
                honest_contributors: 1,
            }
            .calibrate();
            calibrated.map(Mechanism::Gaussian)
        };
        let sticky = |params, sensitivity| StickyNoise::new(params, sensitivity).map(Mechanism::Sticky);
        match self.noise {
            Noise::None => Ok(None),
            Noise::DiscreteGaussian(budget) => self.spend(budget, gaussian).map(Some),
            Noise::Sticky(budget) => self.spend(budget, sticky).map(Some),
            Noise::Reference => {
                let of = |sensitivity| Mechanism::Reference(TruncatedLaplace::of_sensitivity(sensitivity));
                Ok(Some(Calibrated {
                    reach: of(1),
                    frequency: self.counts_frequency().then(|| of(1)),
                    impressions: self.needs_impressions().then(|| of(u32::from(self.cap()))),
                }))
            }
        }
    }

    /// Calibrates the noise of every number that is released.
    fn spend(
        &self,
        budget: Budget,
        calibrate: impl Fn(PrivacyParams, Sensitivity) -> Result<Mechanism, halo_sketch::Error>,
    ) -> Result<Calibrated, ProtocolError> {
        let one = |params, sensitivity| {
            calibrate(params, sensitivity).map_err(|error| ProtocolError::Noise(error.to_string()))
        };
        let when_needed = |needed: bool, params: Option<PrivacyParams>, sensitivity, what: &str| match (needed, params)
        {
            (false, _) => Ok(None),
            (true, Some(params)) => one(params, sensitivity).map(Some),
            (true, None) => Err(ProtocolError::Parameters(format!("{what} need noise, but their ε and δ are missing"))),
        };
        let impressions = Sensitivity::scalar(u32::from(self.cap()));
        Ok(Calibrated {
            reach: one(budget.reach, Sensitivity::scalar(1))?,
            frequency: when_needed(self.counts_frequency(), budget.frequency, Sensitivity::histogram(), "frequencies")?,
            impressions: when_needed(self.needs_impressions(), budget.impressions, impressions, "impressions")?,
        })
    }

    /// Hashes every parameter.
    pub(super) fn digest(&self, consumed: Consumed) -> Consumed {
        let consumed = consumed
            .number(match self.variant {
                Variant::Compatible => 1,
                Variant::Native => 2,
            })
            .number(self.cells)
            .number(u64::from(self.maximum_frequency.get()))
            .number(u64::from(self.sampling_width.to_bits()))
            .number(self.requisitions.len() as u64);
        let consumed = self.requisitions.iter().fold(consumed, |consumed, id| consumed.bytes(id.as_bytes()));
        let consumed = match self.thresholds {
            None => consumed.number(0),
            Some(thresholds) => consumed
                .number(1)
                .number(thresholds.min_users)
                .number(thresholds.min_impressions)
                .number(u64::from(thresholds.impressions_per_person)),
        };
        let (number, budget) = match self.noise {
            Noise::None => (0, None),
            Noise::DiscreteGaussian(budget) => (1, Some(budget)),
            Noise::Sticky(budget) => (2, Some(budget)),
            Noise::Reference => (3, None),
        };
        let consumed = consumed.number(number);
        let Some(budget) = budget else { return consumed };
        [Some(budget.reach), budget.frequency, budget.impressions].into_iter().fold(consumed, |consumed, params| {
            match params {
                None => consumed.number(0),
                Some(params) => {
                    consumed.number(1).number(params.epsilon.get().to_bits()).number(params.delta.get().to_bits())
                }
            }
        })
    }
}
