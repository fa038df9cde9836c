//! Noise: how much is needed, and drawing it exactly.
//!
//! A [`NoiseSpec`] says what is to be protected and who helps; [`NoiseSpec::calibrate`] turns it into a
//! [`ShiftedNoise`], which draws integers from 0 to twice its shift μ. The shift is subtracted again once the shares of
//! all contributors have been added up, so that counts of noise registers are never negative.
//!
//! Nothing here uses floating point while sampling: see [`sampler`]. Calibration does, and rounds towards more noise.
//!
//! # Guarantee
//! With [`NoiseCalibration::Exact`], the sum of the noise of `honest_contributors` contributors makes the release of a
//! statistic with the given [`Sensitivity`] (ε, δ)-differentially private, conditioned on nothing. Of δ, half
//! pays for the discrete Gaussian and half for cutting each contributor's noise to ±μ; geometric noise needs none for
//! itself, so all of its δ pays for the cut.
//!
//! - *Discrete Gaussian.* δ_mechanism = P[Z > εσ² − Δ²/2] − e^ε·P[Z > εσ² + Δ²/2] with Z = ⟨Y, v⟩, where Y are
//!   independent discrete Gaussians of variance parameter σ² on the cells that a neighbouring data set changes and v is
//!   that change, |v|² = Δ²: the exact statement of Canonne, Kamath and Steinke (2020, theorem 7) for one cell, and the
//!   same computation for two cells that change by one each, where Z is a difference of two discrete Gaussians. σ²
//!   starts at the solution for continuous noise (Balle and Wang, 2018) and grows until the exact δ holds.
//!   The noise of h honest contributors is a sum of h discrete Gaussians of variance σ²/h. For h > 1 its standard
//!   deviation per contributor is raised to at least 2, where the sum differs from a discrete Gaussian by a relative
//!   error below 10^-16 (Kairouz, Liu and Steinke, 2021, lemma 4); that residue is not charged.
//! - *Geometric.* Two-sided geometric noise with ratio e^(−ε/Δ₁) is ε-private (Ghosh, Roughgarden and Sundararajan,
//!   2009) and infinitely divisible: each of h honest contributors adds the difference of two Pólya(1/h) draws.
//! - *Cut.* Cutting changes the law of a contributor's noise in a changed cell by at most the tail mass t in total
//!   variation, which costs (1 + e^ε)·t for each honest contributor and changed cell. Unchanged cells are equally
//!   distributed for both data sets and cost nothing.
//!
//! [`NoiseCalibration::Reference`] reproduces what the reference system computes and proves nothing beyond it.

pub(crate) mod calibration;
pub mod deterministic;
pub mod sampler;

use halo_core::privacy::PrivacyParams;
use rand_core::Rng;

use crate::Error;
use sampler::Rational;

pub use halo_core::privacy::{NoiseCalibration, NoiseMechanism};

/// How far a statistic moves between neighbouring data sets.
///
/// Two shapes occur: one cell that moves by Δ (`l1` = Δ, `l2_squared` = Δ²), and two cells of a histogram that move by
/// one each (`l1` = 2, `l2_squared` = 2).
///
/// | statistic | neighbouring data sets differ in | Δ₁ | Δ₂ | |
/// |---|---|---|---|---|
/// | active registers, reach | one person at one publisher | 1 | 1 | `scalar(1)` |
/// | frequency histogram without an entry for 0 | one person who comes or goes everywhere | 1 | 1 | `scalar(1)` |
/// | frequency histogram | one publisher's events of a person whom others reach too | 2 | √2 | `histogram()` |
/// | histogram of how many publishers have a register | one publisher's register | 2 | √2 | `histogram()` |
/// | histogram of which publishers reach a person | one publisher's bit | 2 | √2 | `histogram()` |
/// | impressions, or seconds, of at most c a person | one person | c | c | `scalar(c)` |
///
/// Both shapes cover the first neighbour of a histogram too. The reference takes Δ₁ = 2 for geometric and Δ₂ = 1 for
/// Gaussian noise of histograms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sensitivity {
    /// Sum of absolute changes.
    pub l1: u32,
    /// Sum of squared changes.
    pub l2_squared: u32,
}

impl Sensitivity {
    /// One cell that moves by `change`.
    #[must_use]
    pub const fn scalar(change: u32) -> Self {
        Self { l1: change, l2_squared: change.saturating_mul(change) }
    }

    /// One person moves from one cell of a histogram to another.
    #[must_use]
    pub const fn histogram() -> Self {
        Self { l1: 2, l2_squared: 2 }
    }

    /// Number of cells that change: 1 or 2.
    fn cells(self) -> Result<u32, Error> {
        if self.l1 > 0 && self.l1.checked_mul(self.l1) == Some(self.l2_squared) {
            Ok(1)
        } else if self == Self::histogram() {
            Ok(2)
        } else {
            Err(Error::out_of_range(
                "sensitivity",
                format!("l1 {} with squared l2 {}", self.l1, self.l2_squared),
                "one cell that moves by an integer of at least 1 (squared l2 = l1²), or two cells that move by one",
            ))
        }
    }
}

/// What the noise is for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NoiseSpec {
    /// The distribution.
    pub mechanism: NoiseMechanism,
    /// How ε and δ turn into an amount.
    pub calibration: NoiseCalibration,
    /// The promise. δ must be above 0, since noise is cut to a range.
    pub params: PrivacyParams,
    /// What a neighbouring data set changes.
    pub sensitivity: Sensitivity,
    /// Everybody who adds noise, n ≥ 1.
    pub contributors: u32,
    /// Contributors whose noise alone gives the promise, from 1 to n. Not looked at by [`NoiseCalibration::Reference`].
    pub honest_contributors: u32,
}

impl NoiseSpec {
    /// The noise that a publisher adds to hide the size of its sketch: one contributor, one register.
    #[must_use]
    pub const fn publisher(mechanism: NoiseMechanism, calibration: NoiseCalibration, params: PrivacyParams) -> Self {
        Self {
            mechanism,
            calibration,
            params,
            sensitivity: Sensitivity::scalar(1),
            contributors: 1,
            honest_contributors: 1,
        }
    }

    /// Works out how much noise is needed.
    ///
    /// # Guarantee
    /// With [`NoiseCalibration::Exact`], (ε, δ) for the release of the sum of all contributions when at least
    /// `honest_contributors` of them are drawn with [`ShiftedNoise::sample`] from generators that nobody else knows,
    /// whatever the others add: the [module](self) has the argument and its sources (Canonne, Kamath and Steinke, 2020; Balle
    /// and Wang, 2018; Kairouz, Liu and Steinke, 2021; Ghosh, Roughgarden and Sundararajan, 2009).
    /// [`NoiseCalibration::Reference`] promises nothing.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] for a δ of 0, an impossible sensitivity, no contributors or more honest ones than there
    /// are, or an ε above 10,000 times the sensitivity; [`Error::TooMuchNoise`] when ε and δ ask for more than
    /// [`MAX_SHIFT`], or ε is below a millionth of the sensitivity.
    pub fn calibrate(&self) -> Result<ShiftedNoise, Error> {
        calibration::calibrate(self)
    }
}

/// Largest shift that is accepted: more noise registers than that no computation carries.
pub const MAX_SHIFT: u64 = 100_000_000;

/// One contributor's noise, ready to be drawn: 0 to 2μ, with mean μ.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ShiftedNoise {
    shift: u64,
    shape: Shape,
    contributors: u32,
    variance: f64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Shape {
    /// Variance parameter of one contributor.
    Gaussian { sigma_squared: Rational },
    /// Ratio e^(−exponent), and 1/r: how many contributors make up one two-sided geometric.
    Polya { exponent: Rational, shares: u32 },
}

impl ShiftedNoise {
    /// μ: what each contributor's noise is on average, and half its largest value.
    #[must_use]
    pub const fn shift(&self) -> u64 {
        self.shift
    }

    /// n: everybody who adds noise.
    #[must_use]
    pub const fn contributors(&self) -> u32 {
        self.contributors
    }

    /// One contributor's noise, from 0 to 2μ. Takes a time that depends on what is drawn.
    pub fn sample(&self, rng: &mut impl Rng) -> u64 {
        let noise = match self.shape {
            Shape::Gaussian { sigma_squared } => sampler::discrete_gaussian_within(sigma_squared, self.shift, rng),
            Shape::Polya { exponent, shares } => {
                let one = sampler::polya_within(exponent, shares, self.shift, rng);
                let other = sampler::polya_within(exponent, shares, self.shift, rng);
                one as i64 - other as i64
            }
        };
        self.shift.saturating_add_signed(noise)
    }

    /// Standard deviation of the sum over all n contributors, before the cut (which makes it smaller by a relative
    /// error of about δ).
    #[must_use]
    pub fn total_standard_deviation(&self) -> f64 {
        (self.variance * f64::from(self.contributors)).sqrt()
    }
}
