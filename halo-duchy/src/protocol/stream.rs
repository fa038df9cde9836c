//! Replayable randomness: every random stream is a function of the Duchy's seed and of what the step consumes.
//!
//! ```text
//! step key    = HKDF-SHA-256(salt = label, key = seed, info = engine version ‖ computation ‖ duchy ‖ step ‖ digest)
//! purpose key = HKDF-Expand(step key, purpose)
//! stream      = ChaCha20(purpose key, nonce = record index)
//! ```
//!
//! `digest` covers everything that the step consumes, with the inbox sorted by sender. A repeated step draws the same
//! numbers; a step with any other input draws unrelated ones, so no two messages ever share a nonce.

use halo_crypto::group::Scalar;
use halo_crypto::secret::Secret;
use hkdf::Hkdf;
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use rayon::prelude::*;
use sha2::{Digest, Sha256};

const LABEL: &[u8] = b"HALO-ENGINE-RANDOMNESS-V1";

/// What a stream is used for. Two uses never share a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Purpose {
    /// Bucket of each record of a shuffle.
    ShuffleBucket = 1,
    /// Order inside each bucket of a shuffle.
    ShuffleOrder = 2,
    /// How much noise of each kind there is.
    NoiseCount = 3,
    /// Ids of noise registers, one for each group that shares an id.
    NoiseId = 4,
    /// Random messages of noise records.
    NoiseMessage = 5,
    /// Encryption nonces of fresh ciphertexts, by column.
    NonceA = 6,
    /// As `NonceA`, second column.
    NonceB = 7,
    /// As `NonceA`, third column.
    NonceC = 8,
    /// Random points that replace the counts of a reach-only computation.
    ReplacedCount = 10,
    /// The exponent that blinds all indexes in phase one.
    IndexExponent = 11,
    /// Re-randomisation of the key column.
    RerandomizeKey = 12,
    /// Re-randomisation of the count column.
    RerandomizeCount = 13,
    /// Scalars of the same-key aggregation, one stream a group.
    SameKey = 14,
    /// Scales of the flag columns.
    ScaleFlagA = 15,
    /// As `ScaleFlagA`, second flag.
    ScaleFlagB = 16,
    /// As `ScaleFlagA`, third flag.
    ScaleFlagC = 17,
    /// Scales of the zero tests in phase three, one for each element of each row.
    ScaleRow = 18,
    /// Encryption nonces of frequency noise, by column, apart from those of registers.
    FrequencyNonceA = 19,
    /// As `FrequencyNonceA`, second column.
    FrequencyNonceB = 20,
    /// As `FrequencyNonceA`, third column.
    FrequencyNonceC = 21,
    /// As `FrequencyNonceA`, fourth column.
    FrequencyNonceD = 22,
    /// Random messages of frequency noise.
    FrequencyMessage = 23,
    /// Re-randomisation of the index column.
    RerandomizeIndex = 24,
    /// Encryption and re-randomisation of the excess noise.
    Excess = 25,
    /// A worker's part of the common seed of a share shuffle.
    CommonSeed = 26,
}

/// Hashes what a step consumes, every field with its length in front.
pub(crate) struct Consumed(Sha256);

impl Consumed {
    pub(crate) fn new(label: &str) -> Self {
        Self(Sha256::new()).bytes(label.as_bytes())
    }

    pub(crate) fn bytes(mut self, field: &[u8]) -> Self {
        self.0.update((field.len() as u64).to_be_bytes());
        self.0.update(field);
        self
    }

    pub(crate) fn number(mut self, number: u64) -> Self {
        self.0.update(number.to_be_bytes());
        self
    }

    pub(crate) fn finish(self) -> [u8; 32] {
        self.0.finalize().into()
    }
}

/// Who draws, and in which step.
pub(crate) struct StepName<'a> {
    pub(crate) engine_version: u16,
    pub(crate) computation: &'a str,
    pub(crate) duchy: &'a str,
    pub(crate) step: u8,
    /// Digest of everything that the step consumes.
    pub(crate) consumed: [u8; 32],
}

/// The randomness of one step.
pub(crate) struct StepRandomness {
    key: Secret<[u8; 32]>,
}

impl StepRandomness {
    pub(crate) fn derive(seed: &Secret<[u8; 32]>, name: &StepName<'_>) -> Self {
        let info = Consumed::new("step")
            .number(u64::from(name.engine_version))
            .bytes(name.computation.as_bytes())
            .bytes(name.duchy.as_bytes())
            .number(u64::from(name.step))
            .bytes(&name.consumed)
            .finish();
        Self { key: expand(&Hkdf::new(Some(LABEL), seed.expose()), &info) }
    }

    /// The streams of one purpose.
    pub(crate) fn stream(&self, purpose: Purpose) -> Stream {
        let hkdf = Hkdf::from_prk(self.key.expose()).expect("32 bytes are a SHA-256 pseudorandom key");
        Stream { key: expand(&hkdf, &[purpose as u8]) }
    }
}

fn expand(hkdf: &Hkdf<Sha256>, info: &[u8]) -> Secret<[u8; 32]> {
    let mut key = [0u8; 32];
    hkdf.expand(info, &mut key).expect("32 bytes are within what HKDF-SHA-256 gives");
    Secret::new(key)
}

/// The streams of one purpose in one step, one for each record index.
pub(crate) struct Stream {
    key: Secret<[u8; 32]>,
}

impl Stream {
    /// The generator that belongs to one record.
    pub(crate) fn rng(&self, record: u64) -> ChaCha20Rng {
        let mut rng = ChaCha20Rng::from_seed(*self.key.expose());
        rng.set_stream(record);
        rng
    }

    /// The scalar of one record.
    pub(crate) fn scalar(&self, record: u64) -> Scalar {
        Scalar::random(&mut self.rng(record))
    }

    /// The scalars of the records `first..first + count`.
    pub(crate) fn scalars(&self, first: u64, count: usize) -> Secret<Vec<Scalar>> {
        Secret::new((0..count).into_par_iter().with_min_len(256).map(|i| self.scalar(first + i as u64)).collect())
    }
}

/// A uniform number below `bound`, without bias (Lemire's method: multiply, keep the high half, reject the few low
/// halves that would favour some numbers).
///
/// # Panics
/// When `bound` is 0.
pub(crate) fn below(bound: u64, rng: &mut impl Rng) -> u64 {
    assert!(bound > 0, "there is no number below 0");
    let reject_under = bound.wrapping_neg() % bound;
    loop {
        let product = u128::from(rng.next_u64()) * u128::from(bound);
        if product as u64 >= reject_under {
            return (product >> 64) as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(seed: u8, name: &StepName<'_>) -> u64 {
        StepRandomness::derive(&Secret::new([seed; 32]), name).stream(Purpose::NoiseCount).rng(0).next_u64()
    }

    fn name() -> StepName<'static> {
        StepName { engine_version: 1, computation: "c", duchy: "d", step: 1, consumed: [0; 32] }
    }

    #[test]
    fn every_input_changes_the_stream() {
        let base = step(1, &name());
        assert_eq!(base, step(1, &name()));
        let others = [
            step(2, &name()),
            step(1, &StepName { engine_version: 2, ..name() }),
            step(1, &StepName { computation: "e", ..name() }),
            step(1, &StepName { duchy: "e", ..name() }),
            step(1, &StepName { step: 2, ..name() }),
            step(1, &StepName { consumed: [1; 32], ..name() }),
            step(1, &StepName { computation: "cd", duchy: "", ..name() }),
        ];
        assert!(others.iter().all(|other| *other != base));
        let randomness = StepRandomness::derive(&Secret::new([1; 32]), &name());
        assert_ne!(randomness.stream(Purpose::NoiseId).rng(0).next_u64(), base);
        assert_ne!(randomness.stream(Purpose::NoiseCount).rng(1).next_u64(), base);
    }

    /// The mapping from seed to stream is part of the engine version: a change here needs a new version.
    #[test]
    fn golden_stream() {
        assert_eq!(step(7, &name()), GOLDEN, "the mapping of this engine version has changed");
    }

    const GOLDEN: u64 = 2_279_668_813_240_086_062;

    #[test]
    fn below_is_unbiased_and_in_range() {
        let mut rng = ChaCha20Rng::from_seed([3; 32]);
        let mut counts = [0u32; 6];
        for _ in 0..60_000 {
            counts[below(6, &mut rng) as usize] += 1;
        }
        // Chi-square with 5 degrees of freedom; 25.7 is exceeded with probability 1e-4.
        let chi_square: f64 = counts.iter().map(|c| (f64::from(*c) - 1e4).powi(2) / 1e4).sum();
        assert!(chi_square < 25.7, "{counts:?}");
        assert_eq!(below(1, &mut rng), 0);
        assert!(below(u64::MAX, &mut rng) < u64::MAX);
    }
}
