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
    batch::{self, Message},
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

use crate::{
    BodyError,
    progress::{Observer, Stage, report},
};

/// Bytes of an encrypted register of Liquid Legions v2.
pub const REGISTER_BYTES: usize = 3 * CIPHERTEXT_BYTES;

/// Bytes of an encrypted register of the reach-only protocol.
pub const INDEX_BYTES: usize = CIPHERTEXT_BYTES;

/// Registers that are encrypted at a time: what memory is bounded by, about 20 MB.
const BATCH: usize = 16 * 1024;

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
    Noise,
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
    records.extend(std::iter::repeat_n(Record::Noise, noise as usize));
    shuffle(&mut records, rng);

    let plaintexts = Plaintexts::new(encryption.layout);
    let total = records.len() as u64;
    let mut bytes = Vec::with_capacity(BATCH.min(records.len()) * encryption.layout.record_bytes());
    for (batch, first) in records.chunks(BATCH).zip((0..).step_by(BATCH)) {
        report(observer, Stage::Encrypting, first, Some(total)).map_err(BodyError::Stopped)?;
        let messages = plaintexts.of(batch, rng);
        let nonces: Secret<Vec<Scalar>> = Secret::new(messages.expose().iter().map(|_| Scalar::random(rng)).collect());
        bytes.clear();
        batch::encrypt_encoded(encryption.key, messages.expose(), nonces.expose(), &mut bytes);
        out.write_all(&bytes).map_err(BodyError::Write)?;
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

/// The elements that records stand for.
struct Plaintexts {
    layout: Layout,
    destroyed: Point,
    destroyed_count: Message,
    noise_index: Point,
    noise_key: Point,
    /// Count c at position c − 1, up to F + 1; empty where there are no counts.
    counts: Vec<Message>,
}

impl Plaintexts {
    fn new(layout: Layout) -> Self {
        let counts = match layout {
            Layout::Full { maximum_frequency } => maximum_frequency.get() as usize + 1,
            Layout::IndexOnly => 0,
        };
        // Halves are made once, and save an inverse square root in every record.
        let half = Scalar::from(1).half();
        let units = batch::multiples(&(hash::constant("unit") * &half), counts);
        let destroyed = hash::constant("destroyed_register_key");
        Self {
            layout,
            destroyed,
            destroyed_count: Message::twice(destroyed * &half),
            noise_index: hash::hash_to_group(Domain::NoiseId, b"publisher_noise_register_id"),
            noise_key: hash::constant("blinded_histogram_noise_register_key"),
            counts: units.into_iter().map(Message::twice).collect(),
        }
    }

    /// Index, key and count of each record in turn, or the index alone. They tell who was reached, and are wiped with
    /// all that leads to them.
    ///
    /// A record of any kind costs as many hashes, and has doubles in the same places: the time does not tell how many there
    /// are of which kind.
    fn of(&self, records: &[Record], rng: &mut impl CryptoRng) -> Secret<Vec<Message>> {
        let indexes = Secret::new(records.iter().map(Record::index).collect::<Vec<_>>());
        let indexes = Secret::new(batch::hash_to_group(Domain::Index, indexes.expose()));
        // As long as it becomes, so that it never moves and leaves a copy behind.
        let mut messages = Vec::with_capacity(self.layout.ciphertexts() * records.len());
        let index = |record: &Record, index: &Point| match record {
            Record::Register(_) => Message::whole(*index),
            Record::Noise => Message::whole(self.noise_index),
        };
        if self.layout == Layout::IndexOnly {
            messages.extend(records.iter().zip(indexes.expose()).map(|(record, point)| index(record, point)));
            return Secret::new(messages);
        }
        let keys = Secret::new(records.iter().map(|record| record.key(rng)).collect::<Vec<_>>());
        let keys = Secret::new(batch::hash_to_group(Domain::Key, keys.expose()));
        for (record, (point, key)) in records.iter().zip(indexes.expose().iter().zip(keys.expose())) {
            let (key, count) = match record {
                Record::Register(Register { key: RegisterKey::Unique(_), count, .. }) => {
                    (*key, self.counts[(*count).clamp(1, self.counts.len() as u64) as usize - 1])
                }
                Record::Register(_) => (self.destroyed, self.destroyed_count),
                // Twice a random element is as random.
                Record::Noise => (self.noise_key, Message::twice(*key)),
            };
            messages.extend([index(record, point), Message::whole(key), count]);
        }
        Secret::new(messages)
    }
}

impl Record {
    /// What the index is a hash of; for noise, something to hash.
    fn index(&self) -> String {
        match self {
            Self::Register(register) => register.index.to_string(),
            Self::Noise => String::new(),
        }
    }

    /// What the key is a hash of; for noise, something random, and for a destroyed register something to hash.
    fn key(&self, rng: &mut impl CryptoRng) -> Vec<u8> {
        match self {
            Self::Register(Register { key: key @ RegisterKey::Unique(_), .. }) => {
                key.proto_value().to_string().into_bytes()
            }
            Self::Register(_) => Vec::new(),
            Self::Noise => {
                let mut id = vec![0; 32];
                rng.fill_bytes(&mut id);
                id
            }
        }
    }
}
