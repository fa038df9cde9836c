//! Exact samplers over integers (Canonne, Kamath and Steinke, 2020, algorithms 1 to 3; Pólya by rejection).
//!
//! Every sampler is a function of its parameters and of the generator's bytes, so a seed replays it. Times depend on
//! what is drawn.
//!
//! ```
//! use halo_sketch::noise::sampler::{Rational, discrete_gaussian_within, discrete_laplace_within, polya_within};
//! use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
//!
//! let mut rng = ChaCha20Rng::seed_from_u64(7); // an example; noise that hides people takes a secret seed
//! let gaussian = discrete_gaussian_within(Rational::at_least(25.0), 50, &mut rng);
//! let laplace = discrete_laplace_within(Rational::at_most(0.1), 300, &mut rng);
//! let share = polya_within(Rational::at_most(0.1), 3, 300, &mut rng);
//! assert!(gaussian.abs() <= 50 && laplace.abs() <= 300 && share <= 300);
//! ```
//!
//! # Guarantee
//! The laws are the stated ones exactly, if the generator's bits are uniform and independent: there is no floating point
//! and no approximation in them (Canonne, Kamath and Steinke, 2020, section 5). What a law protects, and what
//! its cut costs, is the matter of [`NoiseSpec::calibrate`](super::NoiseSpec::calibrate).

use rand_core::Rng;

/// Upper bound for numerators and denominators, so that no product below overflows.
const PRECISION_BITS: u32 = 32;

/// A non-negative rational number; parameters of samplers are rational so that sampling is exact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rational {
    numerator: u128,
    denominator: u128,
}

impl Rational {
    /// The smallest representable number that is at least `value`. About 32 significant bits; below 2^-8 a multiple of
    /// 2^-40, so that no product of a sampler overflows.
    ///
    /// # Panics
    /// When `value` is not above 0 and below 2^64.
    #[must_use]
    pub fn at_least(value: f64) -> Self {
        Self::round(value, f64::ceil, 40)
    }

    /// The largest representable number that is at most `value`. About 32 significant bits.
    ///
    /// # Panics
    /// When `value` is not above 2^-60 and below 2^64.
    #[must_use]
    pub fn at_most(value: f64) -> Self {
        Self::round(value, f64::floor, 92)
    }

    fn round(value: f64, round: fn(f64) -> f64, most_shift: i32) -> Self {
        assert!(value > 0.0 && value < 2.0_f64.powi(64), "{value} is out of the samplers' range");
        let exponent = libm::log2(value).ceil() as i32;
        let shift = (PRECISION_BITS as i32 - exponent).clamp(0, most_shift);
        // Scaling by a power of two is exact.
        let numerator = round(value * 2.0_f64.powi(shift)) as u128;
        assert!(numerator > 0, "{value} is out of the samplers' range");
        Self { numerator, denominator: 1 << shift }
    }

    /// The nearest double.
    #[must_use]
    pub fn to_f64(self) -> f64 {
        self.numerator as f64 / self.denominator as f64
    }
}

/// A uniform integer from 0 to `below` − 1, by rejection.
pub fn uniform_below(below: u128, rng: &mut impl Rng) -> u128 {
    debug_assert!(below > 0, "the range is empty");
    let bits = u128::BITS - (below - 1).leading_zeros();
    if bits == 0 {
        return 0;
    }
    loop {
        let word = if bits <= 64 {
            u128::from(rng.next_u64())
        } else {
            u128::from(rng.next_u64()) | u128::from(rng.next_u64()) << 64
        };
        let candidate = word >> (if bits <= 64 { 64 - bits } else { 128 - bits });
        if candidate < below {
            return candidate;
        }
    }
}

/// True with probability `numerator` / `denominator`.
fn bernoulli(numerator: u128, denominator: u128, rng: &mut impl Rng) -> bool {
    uniform_below(denominator, rng) < numerator
}

/// True with probability e^(−numerator/denominator) (algorithm 1).
fn bernoulli_exp(numerator: u128, denominator: u128, rng: &mut impl Rng) -> bool {
    let whole = numerator / denominator;
    for _ in 0..whole {
        if !bernoulli_exp_fraction(1, 1, rng) {
            return false;
        }
    }
    bernoulli_exp_fraction(numerator % denominator, denominator, rng)
}

/// The same for exponents up to 1: draws Bernoulli(γ/1), Bernoulli(γ/2), … until one fails; the parity decides.
fn bernoulli_exp_fraction(numerator: u128, denominator: u128, rng: &mut impl Rng) -> bool {
    let mut k = 1;
    while bernoulli(numerator, denominator.saturating_mul(k), rng) {
        k += 1;
    }
    k % 2 == 1
}

/// A geometric draw: P\[x\] ∝ e^(−x·numerator/denominator) on 0, 1, 2, … (algorithm 2, before the sign).
fn geometric(exponent: Rational, rng: &mut impl Rng) -> u128 {
    let Rational { numerator, denominator } = exponent;
    loop {
        let remainder = uniform_below(denominator, rng);
        if bernoulli_exp_fraction(remainder, denominator, rng) {
            let mut quotient = 0;
            while bernoulli_exp_fraction(1, 1, rng) {
                quotient += 1;
            }
            return (remainder + denominator * quotient) / numerator;
        }
    }
}

/// A discrete Laplace draw with P\[x\] ∝ e^(−|x|·exponent), conditioned on |x| ≤ `bound` (algorithm 2): two-sided
/// geometric noise from one contributor.
pub fn discrete_laplace_within(exponent: Rational, bound: u64, rng: &mut impl Rng) -> i64 {
    loop {
        let magnitude = geometric(exponent, rng);
        let negative = bernoulli(1, 2, rng);
        // A zero with a minus would count twice.
        if magnitude > u128::from(bound) || (negative && magnitude == 0) {
            continue;
        }
        let magnitude = magnitude as i64;
        return if negative { -magnitude } else { magnitude };
    }
}

/// A discrete Gaussian draw with variance parameter σ², conditioned on |x| ≤ `bound` (algorithm 3):
/// P\[x\] ∝ e^(−x²/2σ²). σ² is at most 2^56.
pub fn discrete_gaussian_within(sigma_squared: Rational, bound: u64, rng: &mut impl Rng) -> i64 {
    let Rational { numerator: p, denominator: q } = sigma_squared;
    let scale = (p / q).isqrt() + 1;
    let exponent = Rational { numerator: 1, denominator: scale };
    loop {
        let candidate = discrete_laplace_within(exponent, bound, rng);
        let magnitude = u128::from(candidate.unsigned_abs());
        // (|y| − σ²/t)²/2σ² with σ² = p/q is (|y|·q·t − p)²/(2·p·q·t²).
        let difference = (magnitude * q * scale).abs_diff(p);
        if bernoulli_exp(difference * difference, 2 * p * q * scale * scale, rng) {
            return candidate;
        }
    }
}

/// A Pólya draw (negative binomial with parameter 1/`shares`) with ratio e^(−exponent), conditioned on x ≤ `bound`: a
/// geometric draw x is accepted with probability Π_{i=1..x} (shares·(i − 1) + 1)/(shares·i). The difference of the sums
/// of `shares` such draws and `shares` others is a two-sided geometric.
pub fn polya_within(exponent: Rational, shares: u32, bound: u64, rng: &mut impl Rng) -> u64 {
    let shares = u128::from(shares);
    loop {
        let candidate = geometric(exponent, rng);
        if candidate <= u128::from(bound)
            && (1..=candidate).all(|i| shares == 1 || bernoulli(shares * (i - 1) + 1, shares * i, rng))
        {
            return candidate as u64;
        }
    }
}
