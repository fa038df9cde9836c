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
    destroyed: Message,
    noise_index: Message,
    noise_key: Message,
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
        let twice = |point: Point| Message::twice(point * &half);
        let units = batch::multiples(&(hash::constant("unit") * &half), counts);
        Self {
            layout,
            destroyed: twice(hash::constant("destroyed_register_key")),
            noise_index: twice(hash::hash_to_group(Domain::NoiseId, b"publisher_noise_register_id")),
            noise_key: twice(hash::constant("blinded_histogram_noise_register_key")),
            counts: units.into_iter().map(Message::twice).collect(),
        }
    }

    /// Index, key and count of each record in turn, or the index alone. They tell who was reached, and are wiped with
    /// all that leads to them.
    fn of(&self, records: &[Record], rng: &mut impl CryptoRng) -> Secret<Vec<Message>> {
        let indexes = Secret::new(records.iter().filter_map(Record::index).collect::<Vec<_>>());
        let indexes = Secret::new(batch::hash_to_group(Domain::Index, indexes.expose()));
        let mut indexes = indexes.expose().iter();
        // As long as it becomes, so that it never moves and leaves a copy behind.
        let mut messages = Vec::with_capacity(self.layout.ciphertexts() * records.len());
        if self.layout == Layout::IndexOnly {
            messages.extend(records.iter().map(|record| match record {
                Record::Register(_) => next(&mut indexes),
                Record::Noise => self.noise_index,
            }));
            return Secret::new(messages);
        }
        let keys = Secret::new(records.iter().filter_map(Record::key).collect::<Vec<_>>());
        let ids = records.iter().filter(|record| matches!(record, Record::Noise)).map(|_| {
            let mut id = [0; 32];
            rng.fill_bytes(&mut id);
            id
        });
        let ids = Secret::new(ids.collect::<Vec<_>>());
        let keys = Secret::new(batch::hash_to_group(Domain::Key, keys.expose()));
        let random = Secret::new(batch::hash_to_group(Domain::NoiseId, ids.expose()));
        let (mut keys, mut random) = (keys.expose().iter(), random.expose().iter());
        for record in records {
            match record {
                Record::Register(register) => {
                    messages.push(next(&mut indexes));
                    match register.key {
                        RegisterKey::Unique(_) => {
                            messages.push(next(&mut keys));
                            let count = register.count.clamp(1, self.counts.len() as u64);
                            messages.push(self.counts[count as usize - 1]);
                        }
                        RegisterKey::Destroyed => messages.extend([self.destroyed, self.destroyed]),
                    }
                }
                Record::Noise => messages.extend([self.noise_index, self.noise_key, next(&mut random)]),
            }
        }
        Secret::new(messages)
    }
}

/// The next of as many points as are asked for.
fn next(source: &mut std::slice::Iter<'_, Point>) -> Message {
    Message::whole(source.next().copied().unwrap_or_else(Point::identity))
}

impl Record {
    /// What the index is a hash of.
    fn index(&self) -> Option<String> {
        match self {
            Self::Register(register) => Some(register.index.to_string()),
            Self::Noise => None,
        }
    }

    /// What the key is a hash of.
    fn key(&self) -> Option<String> {
        match self {
            Self::Register(Register { key: key @ RegisterKey::Unique(_), .. }) => Some(key.proto_value().to_string()),
            Self::Register(_) | Self::Noise => None,
        }
    }
}
