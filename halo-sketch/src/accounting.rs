//! How much privacy many releases cost together.
//!
//! Three scalars add up when results about the same people are released one after another, each with a conversion to
//! (ε, δ) and back:
//!
//! - [`Gdp`]: μ of Gaussian differential privacy; μ² adds up, and the conversion is exact for Gaussian noise;
//! - [`Zcdp`]: ρ of zero-concentrated differential privacy; ρ adds up, for any mechanism that has one;
//! - [`Acdp`]: the pair (ρ, θ) that the reference system charges, where θ pays for noise that was cut to a range.
//!
//! A `pld::PrivacyLoss` (feature `pld`) composes whole distributions of the privacy loss; it is the cross-check, and the
//! answer where different mechanisms are mixed or noise is small. [`LedgerCharge`] is what a ledger stores: integers,
//! rounded up.
//!
//! ```
//! use halo_core::privacy::{Epsilon, PrivacyParams};
//! use halo_sketch::accounting::Gdp;
//!
//! // How many queries of (0.1, 1e-12) fit into a budget of (1, 1e-9)?
//! let query = Gdp::within(PrivacyParams::new(0.1, 1e-12)?);
//! let fits = |count: u32| query.repeated(count).delta(Epsilon::new(1.0).expect("1 is in range")) <= 1e-9;
//! assert!(fits(125) && !fits(126));
//! # Ok::<(), halo_core::Error>(())
//! ```
//!
//! # Guarantee
//! Every δ and ε given out here is an upper bound and every budget a lower one, up to the rounding of double precision
//! (relative errors below 10^-9 for the closed forms; `pld` states its own). Only [`LedgerCharge`] also rounds in a
//! direction: charges up, limits down.

mod acdp;
mod gaussian;
mod ledger;
#[cfg(feature = "pld")]
pub mod pld;
mod zcdp;

pub use acdp::{Acdp, excess_of_sum};
pub use gaussian::{Gdp, gaussian_sigma};
pub use ledger::{LedgerCharge, Units};
pub use zcdp::Zcdp;

/// How many standard deviations around its mean a normal law has a share of `level`, above 0 and below 1.
pub(crate) fn normal_quantile(level: f64) -> f64 {
    bracket(1.0, |z| gaussian::erfc(z / std::f64::consts::SQRT_2) <= 1.0 - level).1
}

/// Halvings after which a bracket of doubles is as narrow as it gets.
const HALVINGS: u32 = 200;

/// The two ends of the narrowest bracket around the point where `holds` turns from false to true, looked for from
/// `high` upwards in doublings. `holds` must be monotone and become true.
fn bracket(mut high: f64, holds: impl Fn(f64) -> bool) -> (f64, f64) {
    let mut low = 0.0;
    while !holds(high) && high < f64::MAX / 4.0 {
        low = high;
        high *= 2.0;
    }
    for _ in 0..HALVINGS {
        let middle = 0.5 * (low + high);
        if middle <= low || middle >= high {
            break;
        }
        if holds(middle) { high = middle } else { low = middle }
    }
    (low, high)
}
