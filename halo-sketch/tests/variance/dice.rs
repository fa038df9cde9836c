//! Draws and sample moments for simulations.

use halo_sketch::variance::SketchShape;
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};

/// Standard errors that a simulated moment may be off.
pub(crate) const ERRORS: f64 = 5.0;

/// Draws for simulations and for their parameters.
pub(crate) struct Dice(ChaCha8Rng);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// Uniform on [0, 1).
    pub(crate) fn unit(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    pub(crate) fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    pub(crate) fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// A normal draw with this variance.
    pub(crate) fn normal(&mut self, variance: f64) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        variance.sqrt() * radius * (std::f64::consts::TAU * self.unit()).cos()
    }

    /// The register of one person.
    pub(crate) fn register(&mut self, shape: SketchShape) -> usize {
        let x = -(self.unit() * (-shape.decay_rate).exp_m1()).ln_1p() / shape.decay_rate;
        ((x * shape.size as f64) as usize).min(shape.size as usize - 1)
    }

    /// How many of `people` are sampled.
    pub(crate) fn sampled(&mut self, people: usize, width: f64) -> f64 {
        (0..people).filter(|_| self.chance(width)).count() as f64
    }

    /// A width that is 1 now and then.
    pub(crate) fn width(&mut self) -> f64 {
        if self.chance(0.2) { 1.0 } else { self.between(0.15, 0.95) }
    }

    pub(crate) fn shape(&mut self) -> SketchShape {
        SketchShape { decay_rate: self.between(2.0, 14.0), size: self.between(800.0, 4_000.0) as u64 }
    }

    /// Shares of 3 to 5 frequencies, none of them small.
    pub(crate) fn shares(&mut self) -> Vec<f64> {
        let frequencies = 3 + (self.unit() * 3.0) as usize;
        let weights: Vec<f64> = (0..frequencies).map(|_| self.between(0.3, 1.0)).collect();
        let total: f64 = weights.iter().sum();
        weights.iter().map(|weight| weight / total).collect()
    }
}

/// Sample moments of several series.
pub(crate) struct Moments {
    runs: Vec<Vec<f64>>,
}

impl Moments {
    pub(crate) fn collect(count: usize, mut run: impl FnMut() -> Vec<f64>) -> Self {
        Self { runs: (0..count).map(|_| run()).collect() }
    }

    pub(crate) fn mean(&self, series: usize) -> f64 {
        self.runs.iter().map(|run| run[series]).sum::<f64>() / self.runs.len() as f64
    }

    pub(crate) fn covariance(&self, one: usize, other: usize) -> f64 {
        let (mean, other_mean) = (self.mean(one), self.mean(other));
        let sum: f64 = self.runs.iter().map(|run| (run[one] - mean) * (run[other] - other_mean)).sum();
        sum / (self.runs.len() - 1) as f64
    }

    /// Compares the variance of a series with what a formula says.
    pub(crate) fn check_variance(&self, series: usize, expected: f64, what: &str) {
        let found = self.covariance(series, series);
        let tolerance = ERRORS * (2.0 / self.runs.len() as f64).sqrt() * expected;
        assert!((found - expected).abs() <= tolerance + 1e-12, "{what}: simulated {found:e}, formula {expected:e}");
    }

    /// Compares a covariance, whose standard error is √((Var·Var + Cov²)/n).
    pub(crate) fn check_covariance(&self, one: usize, other: usize, expected: f64, what: &str) {
        let found = self.covariance(one, other);
        let product = self.covariance(one, one) * self.covariance(other, other);
        let tolerance = ERRORS * ((product + expected * expected) / self.runs.len() as f64).sqrt();
        assert!(
            (found - expected).abs() <= tolerance,
            "{what}: simulated {found:e}, formula {expected:e} ± {tolerance:e}"
        );
    }

    /// Compares a mean.
    pub(crate) fn check_mean(&self, series: usize, expected: f64, what: &str) {
        let found = self.mean(series);
        let tolerance = ERRORS * (self.covariance(series, series) / self.runs.len() as f64).sqrt();
        assert!(
            (found - expected).abs() <= tolerance,
            "{what}: simulated {found:e}, formula {expected:e} ± {tolerance:e}"
        );
    }
}
