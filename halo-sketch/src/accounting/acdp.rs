//! The reference's charges.

use std::f64::consts::PI;

use halo_core::privacy::{Epsilon, PrivacyParams};

use super::{Gdp, LedgerCharge, Units, Zcdp};
use crate::{
    Error,
    noise::{Sensitivity, calibration},
    variance,
};

/// Approximate concentrated differential privacy as the reference system charges it: ρ for the noise and θ for what
/// was cut off. Both add up.
///
/// # Guarantee
/// A cost of (ρ, θ) is (ε, (e^ε + 1)·θ + δ_ρ(ε))-private for every ε, where δ_ρ is [`Zcdp::delta`]: θ bounds the total
/// variation between the noise that was drawn and the noise that was not cut. [`Acdp::multi_party`] takes the
/// sensitivity of every statistic to be 1, as the reference does; that holds for a count to which a person adds one, and
/// is half of what a histogram costs in which a person moves between two cells.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Acdp {
    rho: f64,
    theta: f64,
}

impl Acdp {
    /// Nothing has been released.
    pub const NOTHING: Self = Self { rho: 0.0, theta: 0.0 };

    /// Takes both as numbers.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] when one of them is below 0 or not finite.
    pub fn new(rho: f64, theta: f64) -> Result<Self, Error> {
        let rho = Zcdp::new(rho)?.rho();
        if theta.is_finite() && theta >= 0.0 {
            Ok(Self { rho, theta })
        } else {
            Err(Error::out_of_range("theta", theta, "a finite number that is at least 0"))
        }
    }

    /// What a result costs whose noise `contributors` Duchies add up, each a discrete Gaussian of standard deviation
    /// σ_d = σ/√n cut to ±μ, with σ and μ as the reference calibrates them (protocols 6.3, 6.6):
    /// ε′ = min(√(1/σ² + 5λ), 1/σ + 10λ), ρ = ε′²/2, θ = n·e^(−μ²/2σ_d²), where λ is [`excess_of_sum`].
    ///
    /// # Errors
    /// [`Error::OutOfRange`] when δ is 0, ε is below 10^-40 or there are no contributors.
    pub fn multi_party(params: PrivacyParams, contributors: u32) -> Result<Self, Error> {
        if contributors == 0 {
            return Err(Error::out_of_range("contributors", contributors, "at least 1"));
        }
        let variance = variance::reference_gaussian(params)?;
        let share = variance / f64::from(contributors);
        let cut = calibration::reference_cut(params, share, contributors);
        let excess = excess_of_sum(share, contributors);
        let alone = 1.0 / variance.sqrt();
        let together = (alone * alone + 5.0 * excess).sqrt().min(alone + 10.0 * excess);
        Self::new(0.5 * together * together, f64::from(contributors) * (-cut * cut / (2.0 * share)).exp())
    }

    /// What a result costs that its publisher made with Gaussian noise of this variance: ρ = Δ₂²/2σ², θ = 0.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] when the variance is not above 0.
    pub fn direct(sensitivity: Sensitivity, variance: f64) -> Result<Self, Error> {
        Ok(Self { rho: Zcdp::of_gaussian(sensitivity, variance)?.rho(), theta: 0.0 })
    }

    /// ρ: what the noise costs.
    #[must_use]
    pub const fn rho(self) -> f64 {
        self.rho
    }

    /// θ: what the cut costs.
    #[must_use]
    pub const fn theta(self) -> f64 {
        self.theta
    }

    /// The cost of both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { rho: (self.rho + other.rho).min(f64::MAX), theta: (self.theta + other.theta).min(f64::MAX) }
    }

    /// The cost of the same release `count` times.
    #[must_use]
    pub fn repeated(self, count: u32) -> Self {
        let count = f64::from(count);
        Self { rho: (self.rho * count).min(f64::MAX), theta: (self.theta * count).min(f64::MAX) }
    }

    /// δ(ε) = (e^ε + 1)·θ + δ_ρ(ε), as the reference compares it with its budget. It is a bound, not a probability: it
    /// says nothing above 1, and may be infinite.
    #[must_use]
    pub fn delta(self, epsilon: Epsilon) -> f64 {
        self.cut_delta(epsilon) + Zcdp(self.rho).unclamped_delta(epsilon)
    }

    /// The same with the exact conversion of [`Gdp::delta`] for the noise. It holds when all of it was Gaussian, and
    /// admits about a tenth more queries.
    #[must_use]
    pub fn gaussian_delta(self, epsilon: Epsilon) -> f64 {
        let noise: Gdp = Zcdp(self.rho).as_gaussian();
        self.cut_delta(epsilon) + noise.delta(epsilon)
    }

    /// What a ledger books for this cost: both numbers rounded up to a multiple of 2^-60.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] when one of them is above what a ledger holds.
    pub fn charge(self) -> Result<LedgerCharge, Error> {
        Ok(LedgerCharge { rho: Units::round_up(self.rho)?, theta: Units::round_up(self.theta)? })
    }

    fn cut_delta(self, epsilon: Epsilon) -> f64 {
        if self.theta == 0.0 { 0.0 } else { (epsilon.get().exp() + 1.0) * self.theta }
    }
}

impl From<LedgerCharge> for Acdp {
    /// What has been booked, rounded up to doubles.
    fn from(charge: LedgerCharge) -> Self {
        Self { rho: charge.rho.to_f64_up(), theta: charge.theta.to_f64_up() }
    }
}

/// λ = Σ e^(−2π²·v·i/(i + 1)) over i from 1 to n − 1: how far the sum of n independent discrete Gaussians of variance
/// parameter v is from being one of variance parameter n·v. 10λ bounds the logarithm of the ratio of their probabilities
/// (Kairouz, Liu and Steinke, 2021, lemma 4 and theorem 1). It is below 10^-17 where the standard deviation of one is 2
/// or more, as in all noise that is calibrated exactly.
#[must_use]
pub fn excess_of_sum(variance_of_one: f64, contributors: u32) -> f64 {
    (1..contributors).map(|i| (-2.0 * PI * PI * variance_of_one * f64::from(i) / f64::from(i + 1)).exp()).sum()
}
