//! Deterministic noise: the same data always get the same noise, so that asking again does not average it away.
//!
//! Two variants:
//!
//! * [`StickyNoise`] is ours: its noise is a pseudorandom function, under a secret key, of everything that is released
//!   and how, drawn with exact integer arithmetic.
//! * [`reference`](mod@reference) is the reference's, bit for bit. Its noise is a function of the data alone: **whoever
//!   guesses the data knows the noise**, and can check the guess. It protects results against readers who know little,
//!   gives no differential privacy, and is here for compatibility and as an oracle.

pub mod reference;

use halo_core::privacy::PrivacyParams;
use hmac::{Hmac, KeyInit, Mac};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use sha2::Sha256;

use super::sampler::{Rational, discrete_laplace_within};
use super::{MAX_SHIFT, Sensitivity};
use crate::Error;

const LABEL: &[u8] = b"HALO-STICKY-NOISE-V2";

/// δ of the range of [`StickyNoise`], whatever δ is asked for: the least that can be.
pub const STICKY_DELTA: f64 = 1e-15;

/// Discrete Laplace noise on a range, keyed by a secret: a function of the key, of the data's fingerprint and of what is
/// released of them.
///
/// # Guarantee
/// As long as the key is secret and HMAC-SHA-256 and ChaCha20 are pseudorandom, releasing one statistic of the given
/// [`Sensitivity`] is (ε, δ)-differentially private (computationally: Mironov, Pandey, Reingold and Vadhan, 2009), and
/// releasing it again for the same data (by the same version of this noise) gives away nothing more. Anything else that is released (other data, another
/// statistic, another sensitivity) has noise of its own, and composes like any other release.
///
/// Asking for the same statistic with slightly other ε and δ does not average the noise away: ε is rounded down to a power
/// of √2, and the noise is that of the rounded one; the range is that of [`STICKY_DELTA`] = 10⁻¹⁵, whatever δ is. So all
/// releases of one statistic of the same data with any ε up to ε₀ hold no more than the draws with ε₀, ε₀/√2, ε₀/2, …, fewer
/// than 60 of them, and are together (ε, δ)-differentially private with ε = (2 + √2)·ε₀ and δ = 6·10⁻¹⁴ (basic
/// composition: the sum of the geometric series, and of the δ). The price is a deviation that is up to √2 times as large.
///
/// Each of the c cells that a neighbouring data set changes, by Δ₁/c, gets P\[x\] ∝ q^|x| on \[−B, B\] with
/// q = e^(−ε/Δ₁), ε as rounded and δ = 10⁻¹⁵: where both neighbours' outputs are possible their probabilities differ by a factor of at most
/// q^(−Δ₁/c) = e^(ε/c), and the outputs that only one neighbour has weigh
/// q^(B − d + 1)·(1 − q^d) / (1 + q − 2q^(B + 1)), d = Δ₁/c. B is the least at which that is at most δ/c; the cells compose
/// to (ε, δ). The ratio of probabilities does not change under the cut, because both neighbours have the same normalising
/// sum, so all of δ pays for the cut.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StickyNoise {
    exponent: Rational,
    bound: u64,
    parameters: [u64; 3],
}

/// Which number of the released ones a draw is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Statistic {
    /// The number of people.
    Reach,
    /// The number of impressions.
    Impressions,
    /// The number of people with this frequency, from 1.
    Frequency(u32),
}

impl Statistic {
    /// The reference's label: 0 for reach, −1 for impressions, and the frequency itself.
    #[must_use]
    pub const fn label(self) -> i32 {
        match self {
            Self::Reach => 0,
            Self::Impressions => -1,
            Self::Frequency(frequency) => frequency as i32,
        }
    }
}

impl StickyNoise {
    /// Works out exponent and range.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] for a δ below [`STICKY_DELTA`], an impossible sensitivity, or an ε above 40 times the sensitivity;
    /// [`Error::TooMuchNoise`] when the range would be above [`MAX_SHIFT`].
    pub fn new(params: PrivacyParams, sensitivity: Sensitivity) -> Result<Self, Error> {
        let cells = sensitivity.cells()?;
        let (epsilon, delta) = (params.epsilon.get(), params.delta.get());
        if delta < STICKY_DELTA {
            return Err(Error::out_of_range("delta", delta, "at least 1e-15, because the noise is cut to a range"));
        }
        if epsilon / f64::from(sensitivity.l1) > 40.0 {
            return Err(Error::out_of_range("epsilon", epsilon, "at most 40 times the sensitivity"));
        }
        let rounded = power_of_root_two(epsilon);
        let per_unit = rounded / f64::from(sensitivity.l1);
        let too_much = |bound: f64| Error::TooMuchNoise {
            epsilon,
            delta,
            sensitivity: sensitivity.l1,
            registers: bound,
            limit: MAX_SHIFT as f64,
        };
        if per_unit < 1e-7 {
            return Err(too_much(f64::INFINITY));
        }
        // Rounded down: more noise.
        let exponent = Rational::at_most(per_unit);
        let change = f64::from(sensitivity.l1 / cells);
        let least = STICKY_DELTA / f64::from(cells);
        // A lower bound of B from δ(B) ≥ q^B·(1 − q^d)/(1 + q); from there up to the first that is enough.
        let rate = exponent.to_f64();
        let start = (((1.0 - (-rate * change).exp()) / (least * (1.0 + (-rate).exp()))).ln() / rate).floor();
        if start > MAX_SHIFT as f64 {
            return Err(too_much(start));
        }
        let mut bound = start.max(change) as u64;
        while delta_of_cut(rate, change, bound) > least {
            bound += 1;
        }
        if bound > MAX_SHIFT {
            return Err(too_much(bound as f64));
        }
        let parameters = [rounded.to_bits(), u64::from(sensitivity.l1), u64::from(sensitivity.l2_squared)];
        Ok(Self { exponent, bound, parameters })
    }

    /// B, the largest absolute value of the noise.
    #[must_use]
    pub const fn bound(&self) -> u64 {
        self.bound
    }

    /// Standard deviation before the cut, which makes it smaller by a relative error of about 10⁻¹⁵; that of ε as it was
    /// rounded.
    #[must_use]
    pub fn standard_deviation(&self) -> f64 {
        let q = (-self.exponent.to_f64()).exp();
        (2.0 * q).sqrt() / (1.0 - q)
    }

    /// The noise. `key` is the secret; `fingerprint` identifies the data and everything that a release of them says
    /// beside the statistic.
    #[must_use]
    pub fn draw(&self, key: &[u8; 32], fingerprint: &[u8; 32], statistic: Statistic) -> i64 {
        let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(key).expect("HMAC takes keys of any length");
        mac.update(LABEL);
        mac.update(fingerprint);
        mac.update(&statistic.label().to_be_bytes());
        self.parameters.iter().for_each(|parameter| mac.update(&parameter.to_be_bytes()));
        let mut rng = ChaCha20Rng::from_seed(mac.finalize().into_bytes().into());
        discrete_laplace_within(self.exponent, self.bound, &mut rng)
    }
}

/// The largest power of √2 that is not above a positive number. The same on every machine: powers of two are exact.
fn power_of_root_two(value: f64) -> f64 {
    let power = |halves: i32| {
        let root = if halves.rem_euclid(2) == 1 { std::f64::consts::SQRT_2 } else { 1.0 };
        libm::ldexp(root, halves.div_euclid(2))
    };
    let mut halves = (2.0 * libm::log2(value)).floor() as i32;
    // The logarithm is rounded, and may be off by one step.
    while power(halves) > value {
        halves -= 1;
    }
    while power(halves + 1) <= value {
        halves += 1;
    }
    power(halves)
}

/// The weight of what only one of two neighbours can give, for one cell that moves by `change`; rounded up.
fn delta_of_cut(rate: f64, change: f64, bound: u64) -> f64 {
    let q = (-rate).exp();
    let bound = bound as f64;
    let weight = (-rate * (bound - change + 1.0)).exp() * -(-rate * change).exp_m1();
    weight / (1.0 + q - 2.0 * (-rate * (bound + 1.0)).exp()) * (1.0 + 1e-9)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(epsilon: f64, delta: f64, sensitivity: Sensitivity) -> StickyNoise {
        StickyNoise::new(PrivacyParams::new(epsilon, delta).unwrap(), sensitivity).unwrap()
    }

    /// Probabilities of −B, …, B, added up the plain way.
    fn law(noise: &StickyNoise) -> Vec<f64> {
        let q = (-noise.exponent.to_f64()).exp();
        let bound = noise.bound as i32;
        let weights: Vec<f64> = (-bound..=bound).map(|x| q.powi(x.abs())).collect();
        let total: f64 = weights.iter().sum();
        weights.into_iter().map(|weight| weight / total).collect()
    }

    #[test]
    fn the_promise_holds_and_the_range_is_the_least() {
        for (epsilon, delta) in [(1.0, 1e-3), (0.1, 1e-9), (3.0, STICKY_DELTA), (0.01, 1e-2)] {
            for sensitivity in [Sensitivity::scalar(1), Sensitivity::scalar(3), Sensitivity::histogram()] {
                let noise = noise(epsilon, delta, sensitivity);
                let cells = sensitivity.cells().unwrap();
                let change = (sensitivity.l1 / cells) as usize;
                let rounded = power_of_root_two(epsilon);
                let (epsilon, delta) = (rounded / f64::from(cells), STICKY_DELTA / f64::from(cells));
                // δ = Σ max(0, P[x] − e^ε·P[x − d]) over all x, exactly: the definition.
                let of = |noise: &StickyNoise| {
                    let law = law(noise);
                    let at = |x: usize| x.checked_sub(change).and_then(|x| law.get(x)).copied().unwrap_or(0.0);
                    let one: f64 =
                        law.iter().enumerate().map(|(x, p)| (p - epsilon.exp() * at(x) * (1.0 + 1e-12)).max(0.0)).sum();
                    one
                };
                assert!(of(&noise) <= delta, "{} is above {delta}", of(&noise));
                let smaller = StickyNoise { bound: noise.bound - 1, ..noise };
                assert!(noise.bound == change as u64 || of(&smaller) > delta * (1.0 - 1e-6), "{noise:?}");
            }
        }
    }

    #[test]
    fn draws_follow_the_stated_law() {
        // Chi-square over −7..7, what is beyond counted as the end; fingerprints 0 to 19,999 under one key; α = 10^-4.
        let noise = noise(1.0, 1e-3, Sensitivity::scalar(1));
        const END: i64 = 7;
        let mut law_of_ends = [0.0; 2 * END as usize + 1];
        let place = |drawn: i64| usize::try_from(drawn.clamp(-END, END) + END).unwrap();
        let exact = law(&noise);
        (-(noise.bound as i64)..).zip(&exact).for_each(|(drawn, p)| law_of_ends[place(drawn)] += p);
        let law = law_of_ends;
        let mut counts = vec![0_u32; law.len()];
        let draws = 20_000_u32;
        for number in 0..draws {
            let mut fingerprint = [0; 32];
            fingerprint[..4].copy_from_slice(&number.to_be_bytes());
            let drawn = noise.draw(&[7; 32], &fingerprint, Statistic::Reach);
            assert!(drawn.unsigned_abs() <= noise.bound);
            counts[place(drawn)] += 1;
        }
        let chi_square: f64 = law
            .iter()
            .zip(&counts)
            .map(|(p, count)| (f64::from(*count) - p * f64::from(draws)).powi(2) / (p * f64::from(draws)))
            .sum();
        // 15 cells, 14 degrees of freedom: 43.0 is exceeded with probability 10^-4.
        assert!(chi_square < 43.0, "{chi_square}: {counts:?}");
        let variance: f64 = exact.iter().enumerate().map(|(x, p)| p * (x as f64 - noise.bound as f64).powi(2)).sum();
        assert!((variance.sqrt() / noise.standard_deviation() - 1.0).abs() < 1e-9);
    }

    #[test]
    fn the_same_question_gets_the_same_noise_and_no_other_does() {
        let wide = noise(1e-3, 1e-9, Sensitivity::scalar(1));
        let base = wide.draw(&[1; 32], &[2; 32], Statistic::Reach);
        assert_eq!(base, wide.draw(&[1; 32], &[2; 32], Statistic::Reach));
        let others = [
            wide.draw(&[3; 32], &[2; 32], Statistic::Reach),
            wide.draw(&[1; 32], &[3; 32], Statistic::Reach),
            wide.draw(&[1; 32], &[2; 32], Statistic::Impressions),
            wide.draw(&[1; 32], &[2; 32], Statistic::Frequency(1)),
            noise(2e-3, 1e-9, Sensitivity::scalar(1)).draw(&[1; 32], &[2; 32], Statistic::Reach),
        ];
        assert!(others.iter().all(|other| *other != base), "{base} {others:?}");
    }

    #[test]
    fn slightly_other_parameters_give_no_other_noise() {
        let root = std::f64::consts::SQRT_2;
        assert_eq!([1.0, 1.4, 1.5, 2.0, 0.9, 0.5].map(power_of_root_two), [1.0, 1.0, root, 2.0, root / 2.0, 0.5]);
        let draw =
            |epsilon, delta| noise(epsilon, delta, Sensitivity::scalar(1)).draw(&[1; 32], &[2; 32], Statistic::Reach);
        // All ε and δ that make 10,000 questions: as many draws as there are powers of √2 from 2^-9 to 2^-7.
        let mut drawn = std::collections::BTreeSet::new();
        for step in 0..100 {
            let epsilon = 2.0_f64.powi(-9) * (1.0 + f64::from(step) * 0.03);
            drawn.extend((1..=100).map(|part| draw(epsilon, 1e-9 * f64::from(part))));
        }
        assert_eq!(drawn.len(), 4);
        // What a power of √2 is rounded to, is itself; just below, it is the next one.
        for halves in [-40, -13, -1, 0, 1, 7] {
            let power = power_of_root_two(2.0_f64.powf(f64::from(halves) / 2.0) * (1.0 + 1e-12));
            assert_eq!(power_of_root_two(power), power);
            assert!((power_of_root_two(power * (1.0 - 1e-12)) * root / power - 1.0).abs() < 1e-12);
        }
    }

    #[test]
    fn what_cannot_be_made_is_refused() {
        let refuse = |epsilon, delta, sensitivity| {
            StickyNoise::new(PrivacyParams::new(epsilon, delta).unwrap(), sensitivity).unwrap_err()
        };
        assert!(refuse(1.0, 0.0, Sensitivity::scalar(1)).to_string().contains("delta"));
        assert!(refuse(1.0, 0.99e-15, Sensitivity::scalar(1)).to_string().contains("at least 1e-15"));
        assert!(matches!(refuse(1e-8, 1e-9, Sensitivity::scalar(1)), Error::TooMuchNoise { .. }));
        assert!(matches!(refuse(2e-7, 1e-9, Sensitivity::scalar(1)), Error::TooMuchNoise { .. }));
        assert!(refuse(50.0, 1e-9, Sensitivity::scalar(1)).to_string().contains("epsilon"));
        assert!(matches!(refuse(1.0, 1e-9, Sensitivity { l1: 3, l2_squared: 5 }), Error::OutOfRange { .. }));
    }
}
