//! Variances of noises that are given as (ε, δ) for one unit of change.
//!
//! The exact Gaussian of a direct measurement is [`gaussian_sigma`](crate::accounting::gaussian_sigma) squared; noise
//! that Duchies add up knows its own deviation
//! ([`ShiftedNoise::total_standard_deviation`](crate::noise::ShiftedNoise::total_standard_deviation)).

use halo_core::privacy::{Epsilon, PrivacyParams};

use crate::Error;

/// Laplace noise of scale 1/ε: 2/ε² (protocols 5.4). At most 10^100.
#[must_use]
pub fn laplace(epsilon: Epsilon) -> f64 {
    (2.0 / epsilon.get() / epsilon.get()).min(1e100)
}

/// What the reference takes as the variance of noise that Duchies add up: the classical σ² = 2·ln(1.25/(δ/2))/ε²
/// (protocols 5.3, 6.3), whatever the number of contributors.
///
/// # Errors
/// [`Error::OutOfRange`] when δ is 0 or ε is below 10^-40.
pub fn reference_gaussian(params: PrivacyParams) -> Result<f64, Error> {
    let (epsilon, delta) = (params.epsilon.get(), params.delta.get());
    if delta <= 0.0 {
        return Err(Error::out_of_range("delta", delta, "above 0, since noise is cut to a range"));
    }
    if epsilon < 1e-40 {
        return Err(Error::out_of_range("epsilon", epsilon, "at least 10^-40"));
    }
    Ok(2.0 * libm::log(2.5 / delta) / (epsilon * epsilon))
}

/// Laplace noise of scale b = 1/ε cut to ±B with B = b·ln(1 + (e^ε − 1)/(2δ)):
/// (2b² − e^(−B/b)·(B² + 2Bb + 2b²))/(1 − e^(−B/b)) (protocols 5.4, science 2.8).
///
/// # Errors
/// [`Error::OutOfRange`] when δ is 0, which no cut keeps, or ε is below 10^-40.
pub fn truncated_laplace(params: PrivacyParams) -> Result<f64, Error> {
    let (epsilon, delta) = (params.epsilon.get(), params.delta.get());
    if delta <= 0.0 {
        return Err(Error::out_of_range("delta", delta, "above 0, since noise is cut to a range"));
    }
    if epsilon < 1e-40 {
        return Err(Error::out_of_range("epsilon", epsilon, "at least 10^-40"));
    }
    // In units of b; ln(1 + (e^ε − 1)/2δ) without overflow.
    let bound = if epsilon < 500.0 { (epsilon.exp_m1() / (2.0 * delta)).ln_1p() } else { epsilon - (2.0 * delta).ln() };
    let variance = if bound < 1e-3 {
        // Almost uniform on ±B: B²/3·(1 − B/4 + …).
        bound * bound / 3.0 * (1.0 - 0.25 * bound)
    } else {
        let cut = (-bound).exp();
        (2.0 - cut * (bound * bound + 2.0 * bound + 2.0)) / (1.0 - cut)
    };
    Ok(variance / epsilon / epsilon)
}
