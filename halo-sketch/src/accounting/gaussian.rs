//! Gaussian differential privacy: exact for Gaussian noise.

use std::f64::consts::{PI, SQRT_2};

use halo_core::privacy::{Delta, Epsilon, PrivacyParams};
use libm::exp;

use super::{Zcdp, bracket};
use crate::{Error, noise::Sensitivity};

/// μ of Gaussian differential privacy: telling two neighbouring data sets apart is no easier than telling a normal
/// distribution with mean 0 from one with mean μ.
///
/// # Guarantee
/// Releases with μ₁, μ₂, … are together √(μ₁² + μ₂² + …)-GDP (Dong, Roth and Su, 2019, corollary 3.3), also when later
/// ones depend on earlier results. Gaussian noise of standard deviation σ on a statistic with L2 sensitivity Δ is
/// (Δ/σ)-GDP, and [`Gdp::delta`] is then exact (Balle and Wang, 2018, theorem 8; Dong, Roth and Su, corollary 2.13).
/// Discrete Gaussian noise loses slightly more than that (at ε = 1 its δ is 6 % larger for σ = 2 and 4 % larger for
/// σ = 5), which a privacy loss distribution counts.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Gdp(pub(super) f64);

impl Gdp {
    /// Nothing has been released.
    pub const NOTHING: Self = Self(0.0);

    /// Takes μ as a number.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] when `mu` is below 0 or not finite.
    pub fn new(mu: f64) -> Result<Self, Error> {
        if mu.is_finite() && mu >= 0.0 {
            Ok(Self(mu))
        } else {
            Err(Error::out_of_range("mu", mu, "a finite number that is at least 0"))
        }
    }

    /// What Gaussian noise of this variance costs: μ = Δ₂/σ.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] when the variance is not above 0.
    pub fn of_gaussian(sensitivity: Sensitivity, variance: f64) -> Result<Self, Error> {
        if variance > 0.0 && variance.is_finite() {
            Self::new((f64::from(sensitivity.l2_squared) / variance).sqrt())
        } else {
            Err(Error::out_of_range("noise variance", variance, "a finite number above 0"))
        }
    }

    /// The largest μ that keeps (ε, δ); equally, what a Gaussian mechanism calibrated to (ε, δ) costs. 0 for a δ of 0,
    /// which no Gaussian noise keeps, and a number beyond all others for a δ of 1, which promises nothing.
    #[must_use]
    pub fn within(params: PrivacyParams) -> Self {
        let delta = params.delta.get();
        if delta == 0.0 {
            return Self::NOTHING;
        }
        if delta >= 1.0 {
            return Self(f64::MAX.sqrt());
        }
        Self(bracket(1e-6, |mu| delta_of(mu, params.epsilon.get()) > delta).0)
    }

    /// μ.
    #[must_use]
    pub const fn mu(self) -> f64 {
        self.0
    }

    /// The cost of both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0.hypot(other.0))
    }

    /// The cost of the same release `count` times.
    #[must_use]
    pub fn repeated(self, count: u32) -> Self {
        Self(self.0 * f64::from(count).sqrt())
    }

    /// δ(ε) = Φ(−ε/μ + μ/2) − e^ε·Φ(−ε/μ − μ/2), from 0 to 1.
    #[must_use]
    pub fn delta(self, epsilon: Epsilon) -> f64 {
        delta_of(self.0, epsilon.get())
    }

    /// The smallest ε at which the cost is (ε, δ); 0 when δ alone pays for it, infinity when `delta` is 0 and anything
    /// was released.
    #[must_use]
    pub fn epsilon(self, delta: Delta) -> f64 {
        let delta = delta.get();
        if delta_of(self.0, 0.0) <= delta {
            return 0.0;
        }
        if delta == 0.0 {
            return f64::INFINITY;
        }
        bracket(self.0, |epsilon| delta_of(self.0, epsilon) <= delta).1
    }

    /// The same cost in zero-concentrated differential privacy: ρ = μ²/2. The way back exists for Gaussian noise only;
    /// see [`Zcdp::as_gaussian`].
    #[must_use]
    pub fn to_zcdp(self) -> Zcdp {
        Zcdp(0.5 * self.0 * self.0)
    }
}

/// σ of the least continuous Gaussian noise that makes a statistic with L2 sensitivity Δ₂ (ε, δ)-private: the direct
/// measurement's noise. 0 when δ is 1, which promises nothing; infinity when δ is 0, which no Gaussian noise keeps.
///
/// # Guarantee
/// The solution of Φ(Δ/2σ − εσ/Δ) − e^ε·Φ(−Δ/2σ − εσ/Δ) = δ, rounded to more noise (Balle and Wang, 2018, theorem 8).
#[must_use]
pub fn gaussian_sigma(params: PrivacyParams, sensitivity: Sensitivity) -> f64 {
    if params.delta.get() >= 1.0 {
        return 0.0;
    }
    f64::from(sensitivity.l2_squared).sqrt() / Gdp::within(params).mu()
}

/// δ(ε) of a μ-GDP mechanism, ε ≥ 0. Both normal tails share the factor e^(−x²), so that e^ε never overflows.
fn delta_of(mu: f64, epsilon: f64) -> f64 {
    if mu == 0.0 {
        return 0.0;
    }
    let x = (epsilon / mu - 0.5 * mu) / SQRT_2;
    let z = (epsilon / mu + 0.5 * mu) / SQRT_2;
    let shared = 0.5 * exp(-x * x);
    let delta = if x < 0.0 { 0.5 * erfc(x) - shared * erfcx(z) } else { shared * (erfcx(x) - erfcx(z)) };
    delta.clamp(0.0, 1.0)
}

/// The complementary error function, to 12 digits of its value in both tails.
pub(super) fn erfc(x: f64) -> f64 {
    if x < 0.0 { 2.0 - erfc(-x) } else { exp(-x * x) * erfcx(x) }
}

/// e^(x²)·erfc(x) for x ≥ 0.
fn erfcx(x: f64) -> f64 {
    if x < 2.0 {
        // e^(x²) − 2/√π·Σ 2^n·x^(2n + 1)/(1·3·…·(2n + 1)).
        let mut term = x;
        let mut sum = 0.0;
        let mut odd = 1.0;
        while term > sum * 1e-17 {
            sum += term;
            odd += 2.0;
            term *= 2.0 * x * x / odd;
        }
        return exp(x * x) - 2.0 / PI.sqrt() * sum;
    }
    // The continued fraction 1/(x + ½/(x + 1/(x + 1½/(x + …)))) over √π, from the inside out: 60 steps give all digits
    // at x = 2 already.
    let fraction = (1..=60).rev().fold(x, |inner, step| x + 0.5 * f64::from(step) / inner);
    1.0 / (fraction * PI.sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// e^(x²)·erfc(x) in 40 digits.
    #[test]
    fn scaled_error_function() {
        for (x, value) in [
            (0.0, 1.0),
            (1.0, 0.427_583_576_155_807),
            (1.999, 0.255_502_514_590_577_92),
            (2.0, 0.255_395_676_310_505_74),
            (5.0, 0.110_704_637_733_068_63),
            (19.0, 0.029_653_230_641_262_163),
            (1e9, 5.641_895_835_477_563e-10),
        ] {
            assert!((erfcx(x) / value - 1.0_f64).abs() < 1e-12, "{x}: {} is not {value}", erfcx(x));
        }
    }

    #[test]
    fn extremes_stay_in_range() {
        for mu in [0.0, 1e-300, 1e-12, 1.0, 1e6, 1e150] {
            for epsilon in [1e-300, 1e-9, 1.0, 700.0, 1e9, 1e300] {
                let delta = delta_of(mu, epsilon);
                assert!((0.0..=1.0).contains(&delta), "mu {mu}, epsilon {epsilon}: {delta}");
            }
        }
    }
}
