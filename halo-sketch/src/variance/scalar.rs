//! Sums over people that one publisher counts exactly.

use halo_core::privacy::MaximumFrequency;

use super::{check_amount, check_width};
use crate::Error;

/// A sum over the sampled people of one publisher, divided by the sampling width.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScalarMeasurement {
    /// The true sum over all people, at least 0.
    pub value: f64,
    /// The most that one person adds to it, in the same unit, at least 0; noise is scaled by it.
    pub per_person: f64,
    /// Share of people that were sampled, above 0 and at most 1.
    pub sampling_width: f64,
    /// Variance of the noise for one unit of change.
    pub noise_variance: f64,
}

impl ScalarMeasurement {
    /// People reached: each adds 1.
    #[must_use]
    pub const fn reach(people: f64, sampling_width: f64, noise_variance: f64) -> Self {
        Self { value: people, per_person: 1.0, sampling_width, noise_variance }
    }

    /// Impressions: each person adds up to `maximum`.
    #[must_use]
    pub fn impressions(impressions: f64, maximum: MaximumFrequency, sampling_width: f64, noise_variance: f64) -> Self {
        Self { value: impressions, per_person: f64::from(maximum.get()), sampling_width, noise_variance }
    }

    /// Watch duration, in seconds or any other unit: each person adds up to `maximum`.
    #[must_use]
    pub const fn watch_duration(duration: f64, maximum: f64, sampling_width: f64, noise_variance: f64) -> Self {
        Self { value: duration, per_person: maximum, sampling_width, noise_variance }
    }

    /// The size of a population, of which nobody is left out: only noise varies it.
    #[must_use]
    pub const fn population(people: f64, noise_variance: f64) -> Self {
        Self { value: people, per_person: 1.0, sampling_width: 1.0, noise_variance }
    }

    /// (f·v·w·(1 − w) + f²·V)/w² with f for what one person adds at most (protocols 5.4). The sampling part is exact when
    /// everybody adds f and an upper bound otherwise, since Σ xᵢ² ≤ f·Σ xᵢ for 0 ≤ xᵢ ≤ f.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] names the number that does not fit.
    pub fn variance(&self) -> Result<f64, Error> {
        let value = check_amount("measured value", self.value)?;
        let per_person = check_amount("contribution of one person", self.per_person)?;
        let width = check_width(self.sampling_width)?;
        let noise = check_amount("noise variance", self.noise_variance)?;
        let variance = (per_person * value * width * (1.0 - width) + per_person * per_person * noise) / width / width;
        if variance.is_finite() {
            Ok(variance)
        } else {
            Err(Error::out_of_range("sampling width", width, "wide enough that the variance is a number"))
        }
    }
}
