//! Zero-concentrated differential privacy.

use halo_core::privacy::{Delta, Epsilon, PrivacyParams};

use super::{Gdp, bracket};
use crate::{Error, noise::Sensitivity};

/// ρ of zero-concentrated differential privacy: the Rényi divergence of every order α between the results of
/// neighbouring data sets is at most ρ·α.
///
/// # Guarantee
/// Releases with ρ₁, ρ₂, … cost ρ₁ + ρ₂ + … together (Bun and Steinke, 2016, lemma 2.3), also when later ones depend
/// on earlier results. Gaussian and discrete Gaussian noise of variance parameter σ² on a statistic with L2 sensitivity
/// Δ cost Δ²/2σ² each (Canonne, Kamath and Steinke, 2020, theorem 4).
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Zcdp(pub(super) f64);

impl Zcdp {
    /// Nothing has been released.
    pub const NOTHING: Self = Self(0.0);

    /// Takes ρ as a number.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] when `rho` is below 0 or not finite.
    pub fn new(rho: f64) -> Result<Self, Error> {
        if rho.is_finite() && rho >= 0.0 {
            Ok(Self(rho))
        } else {
            Err(Error::out_of_range("rho", rho, "a finite number that is at least 0"))
        }
    }

    /// What Gaussian or discrete Gaussian noise of this variance parameter costs: ρ = Δ₂²/2σ².
    ///
    /// # Errors
    /// [`Error::OutOfRange`] when the variance is not above 0.
    pub fn of_gaussian(sensitivity: Sensitivity, variance: f64) -> Result<Self, Error> {
        if variance > 0.0 && variance.is_finite() {
            Self::new(0.5 * f64::from(sensitivity.l2_squared) / variance)
        } else {
            Err(Error::out_of_range("noise variance", variance, "a finite number above 0"))
        }
    }

    /// What an ε-private mechanism without δ costs, Laplace and two-sided geometric noise among them: ρ = ε²/2 (Bun
    /// and Steinke, 2016, proposition 1.4).
    #[must_use]
    pub fn of_pure(epsilon: Epsilon) -> Self {
        Self((0.5 * epsilon.get() * epsilon.get()).min(f64::MAX))
    }

    /// The largest ρ that keeps (ε, δ) by the conversion of [`Zcdp::delta`]: 0 for a δ of 0, and a number beyond all
    /// others for a δ of 1, which promises nothing.
    #[must_use]
    pub fn within(params: PrivacyParams) -> Self {
        let delta = params.delta.get();
        if delta == 0.0 {
            return Self::NOTHING;
        }
        if delta >= 1.0 {
            return Self(f64::MAX);
        }
        Self(bracket(1e-12, |rho| log_delta(rho, params.epsilon.get()) > delta.ln()).0)
    }

    /// ρ.
    #[must_use]
    pub const fn rho(self) -> f64 {
        self.0
    }

    /// The cost of both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self((self.0 + other.0).min(f64::MAX))
    }

    /// The cost of the same release `count` times.
    #[must_use]
    pub fn repeated(self, count: u32) -> Self {
        Self((self.0 * f64::from(count)).min(f64::MAX))
    }

    /// δ(ε) = min over α > 1 of e^((α − 1)(αρ − ε))/(α − 1)·(1 − 1/α)^α, from 0 to 1: the best conversion known
    /// (Canonne, Kamath and Steinke, 2020, corollary 13).
    #[must_use]
    pub fn delta(self, epsilon: Epsilon) -> f64 {
        self.unclamped_delta(epsilon).min(1.0)
    }

    /// The same bound where it is above 1 and says nothing.
    pub(super) fn unclamped_delta(self, epsilon: Epsilon) -> f64 {
        log_delta(self.0, epsilon.get()).exp()
    }

    /// The smallest ε at which the cost is (ε, δ) by [`Zcdp::delta`]; 0 when δ alone pays for it, infinity when `delta`
    /// is 0 and anything was released.
    #[must_use]
    pub fn epsilon(self, delta: Delta) -> f64 {
        let delta = delta.get();
        if log_delta(self.0, 0.0) <= delta.ln() {
            return 0.0;
        }
        if delta == 0.0 {
            return f64::INFINITY;
        }
        bracket(self.0, |epsilon| log_delta(self.0, epsilon) <= delta.ln()).1
    }

    /// The loose conversion ε = ρ + 2√(ρ·ln(1/δ)) (Bun and Steinke, 2016, proposition 1.3), for comparison with what
    /// others quote. Infinity when `delta` is 0 and anything was released.
    #[must_use]
    pub fn loose_epsilon(self, delta: Delta) -> f64 {
        if self.0 == 0.0 { 0.0 } else { self.0 + 2.0 * (self.0 * -delta.get().ln()).sqrt() }
    }

    /// μ = √(2ρ) for a ρ that Gaussian noise alone has made up. Other mechanisms with the same ρ may lose more than
    /// that μ says.
    #[must_use]
    pub fn as_gaussian(self) -> Gdp {
        Gdp((2.0 * self.0).sqrt())
    }
}

/// ln δ(ε): the minimum over α of a function whose derivative (2α − 1)ρ − ε + ln(1 − 1/α) grows with α.
fn log_delta(rho: f64, epsilon: f64) -> f64 {
    if rho == 0.0 {
        return f64::NEG_INFINITY;
    }
    // In terms of β = α − 1, so that orders near 1 keep their digits.
    let slope = |beta: f64| (2.0 * beta + 1.0) * rho - epsilon - (1.0 / beta).ln_1p();
    let (_, beta) = bracket(1e-3, |beta| slope(beta) >= 0.0);
    beta * ((1.0 + beta) * rho - epsilon) - (1.0 + beta) * (1.0 / beta).ln_1p() - beta.ln()
}
