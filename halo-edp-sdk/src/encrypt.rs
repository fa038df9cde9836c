//! From a sketch to the body of an upload: registers encrypted under the joint key of the Duchies.
//!
//! A record of Liquid Legions v2 is three ciphertexts of 64 bytes: index, key, count. A record of the reach-only protocol
//! is the index alone ([`Layout`]). What each encrypts:
//!
//! | register | index | key | count |
//! |---|---|---|---|
//! | of one person | H(index) | H(key + 1) | min(count, F + 1)·U |
//! | destroyed (two persons) | H(index) | H("destroyed_register_key") | the same |
//! | noise | H("publisher_noise_register_id") | H("blinded_histogram_noise_register_key") | a random element |
//!
//! Noise registers hide how many registers the sketch has; the Duchies recognise them by index and key and drop them. Of
//! the reach-only protocol's the index is the same as of the Duchies' own, so all of them are one index that is not
//! counted.
//! Records are shuffled, so that neither order nor place tells anything.

use std::io::Write;

use halo_core::privacy::MaximumFrequency;
use halo_crypto::{
    batch,
    elgamal::{CIPHERTEXT_BYTES, CompositeKey},
    group::{Point, Scalar},
    hash::{self, Domain},
    secret::Secret,
};
use halo_sketch::{
    liquid_legions::{LiquidLegions, Register, RegisterKey},
    noise::{ShiftedNoise, sampler::uniform_below},
};
use rand_core::CryptoRng;
use rayon::prelude::*;
use zeroize::Zeroize;

use crate::{
    BodyError,
    progress::{Observer, Stage, report},
};

/// Bytes of an encrypted register of Liquid Legions v2.
pub const REGISTER_BYTES: usize = 3 * CIPHERTEXT_BYTES;

/// Bytes of an encrypted register of the reach-only protocol.
pub const INDEX_BYTES: usize = CIPHERTEXT_BYTES;

/// Registers that are encrypted at a time: what memory is bounded by, about 5 MB.
const BATCH: usize = 16 * 1024;

/// Registers that one task takes, from hashes to bytes: few enough for a core's own cache.
const TASK: usize = 128;

/// What a record holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Index, key and count: Liquid Legions v2.
    Full {
        /// F: counts above F are all encrypted as F + 1, which the Duchies cannot tell from one another either.
        maximum_frequency: MaximumFrequency,
    },
    /// The index alone: the reach-only protocol.
    IndexOnly,
}

impl Layout {
    /// Bytes of a record.
    #[must_use]
    pub const fn record_bytes(self) -> usize {
        match self {
            Self::Full { .. } => REGISTER_BYTES,
            Self::IndexOnly => INDEX_BYTES,
        }
    }

    const fn ciphertexts(self) -> usize {
        self.record_bytes() / CIPHERTEXT_BYTES
    }
}

/// How registers are to be encrypted.
#[derive(Clone, Debug)]
pub struct Encryption<'a> {
    /// The joint key of the Duchies.
    pub key: &'a CompositeKey,
    /// What a record holds.
    pub layout: Layout,
    /// How many noise registers are added; `None` only where the whole measurement goes without noise.
    pub noise: Option<&'a ShiftedNoise>,
}

/// A record before it is encrypted.
#[derive(Clone, Copy)]
enum Record {
    Register(Register),
    /// With something random.
    Noise([u8; 32]),
}

/// Encrypts a sketch with its noise registers, in random order, and writes the records. Returns how many there are.
///
/// `rng` must be a cryptographic generator that was seeded by the operating system: whoever knows its seed can decrypt.
///
/// # Errors
/// [`BodyError`] when the observer asks to stop, or the records cannot be written.
pub fn encrypt(
    sketch: &LiquidLegions,
    encryption: &Encryption<'_>,
    out: &mut (impl Write + ?Sized),
    observer: &mut dyn Observer,
    rng: &mut impl CryptoRng,
) -> Result<u64, BodyError> {
    let registers: Vec<Register> = sketch.registers().collect();
    encrypt_registers(&registers, encryption, out, observer, rng)
}

/// The same for registers that are at hand. An index that occurs twice goes out twice, and the Duchies join the two as if
/// they came from two publishers.
///
/// # Errors
/// As [`encrypt`].
pub fn encrypt_registers(
    registers: &[Register],
    encryption: &Encryption<'_>,
    out: &mut (impl Write + ?Sized),
    observer: &mut dyn Observer,
    rng: &mut impl CryptoRng,
) -> Result<u64, BodyError> {
    let mut records: Vec<Record> = registers.iter().copied().map(Record::Register).collect();
    let noise = encryption.noise.map_or(0, |noise| noise.sample(rng));
    records.extend((0..noise).map(|_| {
        let mut id = [0; 32];
        rng.fill_bytes(&mut id);
        Record::Noise(id)
    }));
    shuffle(&mut records, rng);

    let plaintexts = Plaintexts::new(encryption.layout);
    let row = encryption.layout.ciphertexts();
    let total = records.len() as u64;
    let mut ciphertexts = vec![[0; CIPHERTEXT_BYTES]; row * BATCH.min(records.len())];
    for (batch, first) in records.chunks(BATCH).zip((0..).step_by(BATCH)) {
        report(observer, Stage::Encrypting, first, Some(total)).map_err(BodyError::Stopped)?;
        let nonces = Secret::new((0..row * batch.len()).map(|_| Scalar::nonce(rng)).collect::<Vec<_>>());
        let places = &mut ciphertexts[..row * batch.len()];
        let tasks = batch.par_chunks(TASK).zip(nonces.expose().par_chunks(row * TASK));
        tasks.zip(places.par_chunks_mut(row * TASK)).for_each(|((records, nonces), places)| {
            batch::encrypt_doubled(encryption.key, plaintexts.halves(records).expose(), nonces, places);
        });
        out.write_all(places.as_flattened()).map_err(BodyError::Write)?;
    }
    report(observer, Stage::Encrypting, total, Some(total)).map_err(BodyError::Stopped)?;
    Ok(total)
}

/// A uniform permutation (Fisher and Yates).
fn shuffle<T>(items: &mut [T], rng: &mut impl CryptoRng) {
    for last in (1..items.len()).rev() {
        let other = uniform_below(last as u128 + 1, rng) as usize;
        items.swap(last, other);
    }
}

/// The elements that records stand for, by their halves: encryption doubles.
struct Plaintexts {
    layout: Layout,
    destroyed: Point,
    noise_index: Point,
    noise_key: Point,
    /// Count c at position c − 1, up to F + 1; empty where there are no counts.
    counts: Vec<Point>,
}

impl Plaintexts {
    fn new(layout: Layout) -> Self {
        let counts = match layout {
            Layout::Full { maximum_frequency } => maximum_frequency.get() as usize + 1,
            Layout::IndexOnly => 0,
        };
        Self {
            layout,
            destroyed: hash::half_constant("destroyed_register_key"),
            noise_index: hash::hash_to_half(Domain::NoiseId, b"publisher_noise_register_id"),
            noise_key: hash::half_constant("blinded_histogram_noise_register_key"),
            counts: batch::multiples(&hash::half_constant("unit"), counts),
        }
    }

    /// Index, key and count of each record in turn, or the index alone. They tell who was reached, and are wiped with
    /// all that leads to them.
    ///
    /// A record of any kind costs as many hashes: the time does not tell how many there are of which kind.
    fn halves(&self, records: &[Record]) -> Secret<Vec<Point>> {
        let indexes = Secret::new(records.iter().map(Record::index).collect::<Vec<_>>());
        let indexes = Secret::new(batch::hash_to_halves(Domain::Index, indexes.expose()));
        // As long as it becomes, so that it never moves and leaves a copy behind.
        let mut halves = Vec::with_capacity(self.layout.ciphertexts() * records.len());
        let index = |record: &Record, index: &Point| match record {
            Record::Register(_) => *index,
            Record::Noise(_) => self.noise_index,
        };
        if self.layout == Layout::IndexOnly {
            halves.extend(records.iter().zip(indexes.expose()).map(|(record, point)| index(record, point)));
            return Secret::new(halves);
        }
        let keys = Secret::new(records.iter().map(Record::key).collect::<Vec<_>>());
        let keys = Secret::new(batch::hash_to_halves(Domain::Key, keys.expose()));
        for (record, (point, key)) in records.iter().zip(indexes.expose().iter().zip(keys.expose())) {
            let (key, count) = match record {
                Record::Register(Register { key: RegisterKey::Unique(_), count, .. }) => {
                    (*key, self.counts[(*count).clamp(1, self.counts.len() as u64) as usize - 1])
                }
                Record::Register(_) => (self.destroyed, self.destroyed),
                Record::Noise(_) => (self.noise_key, *key),
            };
            halves.extend([index(record, point), key, count]);
        }
        Secret::new(halves)
    }
}

impl Record {
    /// What the index is a hash of; for noise, something to hash.
    fn index(&self) -> Text {
        match self {
            Self::Register(register) => Text::decimal(register.index),
            Self::Noise(_) => Text::decimal(0),
        }
    }

    /// What the key is a hash of; for noise, something random, and for a destroyed register something to hash.
    fn key(&self) -> Text {
        match self {
            Self::Register(register) => Text::decimal(register.key.proto_value()),
            Self::Noise(id) => Text { bytes: *id, from: 0 },
        }
    }
}

/// A short string that needs no memory of its own, at the end of its bytes.
#[derive(Zeroize)]
struct Text {
    bytes: [u8; 32],
    from: usize,
}

impl Text {
    fn decimal(mut number: u64) -> Self {
        let mut text = Self { bytes: [b'0'; 32], from: 32 };
        loop {
            text.from -= 1;
            text.bytes[text.from] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                return text;
            }
        }
    }
}

impl AsRef<[u8]> for Text {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[self.from..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_those_of_the_library() {
        for number in [0, 1, 9, 10, 12_345, u64::MAX] {
            assert_eq!(Text::decimal(number).as_ref(), number.to_string().as_bytes());
        }
    }
}
