//! The reference's deterministic truncated Laplace noise (protocols 4.1 and 8.8), bit for bit.
//!
//! ```text
//! fingerprint = SHA-256(contributions (4 bytes, big endian) ‖ every cell (4 bytes, big endian))
//! u           = top 53 bits of SHA-256(4 ‖ … fingerprint, label, each with its length (4 bytes, big endian)) / 2^53
//! noise       = round-half-even of the u-quantile of a Laplace distribution of scale b cut to [−T, T]
//! b = s/ε,  T = b·ln(1 + (e^ε − 1)/(2δ)),  ε = 1,  δ = 1/1000,  s the sensitivity
//! ```
//!
//! # Guarantee
//! None that holds against somebody who can guess the data: the noise is a public function of them. It is floating
//! point, too. Use [`StickyNoise`](super::StickyNoise).

use sha2::{Digest, Sha256};

use super::Statistic;

/// The reference's ε; it cannot be configured.
pub const EPSILON: f64 = 1.0;
/// The reference's δ; it cannot be configured.
pub const DELTA: f64 = 1.0 / 1000.0;

/// Hashes an aggregated vector, handed in in pieces.
#[derive(Clone, Debug)]
pub struct Fingerprint(Sha256);

impl Fingerprint {
    /// Begins with the number of contributions that were aggregated.
    #[must_use]
    pub fn new(contributions: u32) -> Self {
        Self(Sha256::new().chain_update(contributions.to_be_bytes()))
    }

    /// Takes more cells.
    pub fn update(&mut self, cells: &[u8]) {
        let mut block = [0; 4 * 256];
        for part in cells.chunks(256) {
            for (wide, cell) in block.chunks_exact_mut(4).zip(part) {
                wide[3] = *cell;
            }
            self.0.update(&block[..4 * part.len()]);
        }
    }

    /// The digest.
    #[must_use]
    pub fn finish(self) -> [u8; 32] {
        self.0.finalize().into()
    }
}

/// A number from 0 up to but not including 1, a multiple of 2^-53, that follows from the parts.
#[must_use]
pub fn uniform(parts: &[&[u8]]) -> f64 {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u32).to_be_bytes());
        hasher.update(part);
    }
    let digest: [u8; 32] = hasher.finalize().into();
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    (u64::from_be_bytes(first) >> 11) as f64 / 2.0_f64.powi(53)
}

/// A Laplace distribution around 0, cut to [−T, T].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TruncatedLaplace {
    /// b.
    pub scale: f64,
    /// T.
    pub bound: f64,
}

impl TruncatedLaplace {
    /// What the reference takes for a statistic that one person changes by `sensitivity`.
    #[must_use]
    pub fn of_sensitivity(sensitivity: u32) -> Self {
        let scale = f64::from(sensitivity) / EPSILON;
        Self { scale, bound: scale * (1.0 + (EPSILON.exp() - 1.0) / (2.0 * DELTA)).ln() }
    }

    /// The `u`-quantile, 0 ≤ u ≤ 1.
    #[must_use]
    pub fn quantile(&self, u: f64) -> f64 {
        let low = 0.5 * (-self.bound / self.scale).exp();
        let high = 1.0 - low;
        let p = low + u * (high - low);
        let value = if p < 0.5 { self.scale * (2.0 * p).ln() } else { -self.scale * (2.0 * (1.0 - p)).ln() };
        value.clamp(-self.bound, self.bound)
    }

    /// Upper bound of the standard deviation: that of the distribution before the cut, and of rounding.
    #[must_use]
    pub fn standard_deviation(&self) -> f64 {
        (2.0 * self.scale * self.scale + 1.0 / 12.0).sqrt()
    }

    /// The noise of one statistic of the data with this fingerprint.
    #[must_use]
    pub fn draw(&self, fingerprint: &[u8; 32], statistic: Statistic) -> i64 {
        self.quantile(uniform(&[fingerprint, &statistic.label().to_be_bytes()])).round_ties_even() as i64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: f64, expected: f64) {
        assert!((found - expected).abs() <= 1e-12 * expected.abs().max(1.0), "{found} is not {expected}");
    }

    #[test]
    fn bounds() {
        let bound = |sensitivity| TruncatedLaplace::of_sensitivity(sensitivity).bound;
        close(bound(1), 6.757_096_229_580_251_5);
        assert!((bound(3) - 20.2713).abs() < 5e-5 && (bound(126) - 851.39).abs() < 5e-3);
    }

    #[test]
    fn uniform_numbers_and_quantiles() {
        assert_eq!(uniform(&[b"x"]), 0.903_361_068_987_937_8);
        let wide = TruncatedLaplace { scale: 1.0, bound: 8.0 };
        let value = wide.quantile(uniform(&[b"frequency-vector-fingerprint", b"reach"]));
        close(value, 0.585_602_872_804_578_1);
        assert_eq!(value.round_ties_even(), 1.0);
        for (u, expected) in [
            (0.1, -1.608_096_961_399_335_4),
            (0.25, -0.692_811_774_187_049_4),
            (0.5, 0.0),
            (0.75, 0.692_811_774_187_049_6),
            (0.9, 1.608_096_961_399_336_8),
            (0.999, 6.059_832_598_415_747),
            (0.0, -8.0),
        ] {
            close(wide.quantile(u), expected);
        }
        let label = |sensitivity| {
            let u = uniform(&[b"frequency-vector-fingerprint", b"reach"]);
            TruncatedLaplace::of_sensitivity(sensitivity).quantile(u).round_ties_even()
        };
        assert_eq!((label(1), label(4)), (1.0, 2.0));
    }

    #[test]
    fn fingerprint_and_its_draws() {
        let mut fingerprint = Fingerprint::new(3);
        fingerprint.update(&[0, 1, 2, 1]);
        fingerprint.update(&[3, 0, 2]);
        let fingerprint = fingerprint.finish();
        let digits: String = fingerprint.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(digits, "ddff6bed977d8001cf37dd15dc88025d1c4f264c82263af73b2f8ced93cf2312");
        let draw = |sensitivity, statistic| TruncatedLaplace::of_sensitivity(sensitivity).draw(&fingerprint, statistic);
        assert_eq!(draw(1, Statistic::Reach), 1);
        assert_eq!([1, 2, 3].map(|frequency| draw(1, Statistic::Frequency(frequency))), [-4, -2, 0]);
        assert_eq!(draw(3, Statistic::Impressions), -5);
        // More than one block, and no rest of the block before.
        let mut long = Fingerprint::new(1);
        long.update(&[9; 700]);
        let mut plain = Sha256::new_with_prefix(1_u32.to_be_bytes());
        (0..700).for_each(|_| plain.update(9_u32.to_be_bytes()));
        assert_eq!(long.finish()[..], plain.finalize()[..]);
    }
}
