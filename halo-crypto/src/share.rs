//! Additive secret sharing modulo a small number, and what two parties derive from a seed: uniform numbers and a shuffle.
//!
//! A vector x is shared as a seed, whose generator gives the first share, and the second share x − first, modulo q. Each
//! alone is uniform and says nothing. Generator and shuffle are those of the reference system, bit for bit: AES-256 in
//! counter mode, candidates of one byte masked to as many bits as q needs, rejected from q on, drawn in batches whose size
//! is a part of the definition; Fisher–Yates with 16 bytes a step.
//!
//! ```
//! use halo_crypto::{
//!     secret::Secret,
//!     share::{Modulus, Seed, add, second_share},
//! };
//!
//! let modulus = Modulus::new(127)?;
//! let seed = Seed::new(Secret::new([7; 48])); // an example; a publisher draws it
//! let values = [0, 1, 10, 126];
//! let mut sum = second_share(modulus, &seed, &values)?;
//! let mut first = [0; 4];
//! seed.generator().uniform(modulus, &mut first);
//! add(modulus, &mut sum, &first)?;
//! assert_eq!(sum, values);
//! # Ok::<(), halo_crypto::share::ShareError>(())
//! ```

use std::fmt;

use aes::Aes256;
use ctr::Ctr128BE;
use ctr::cipher::{KeyIvInit, StreamCipher};
use rayon::prelude::*;
use zeroize::Zeroizing;

use crate::secret::Secret;

/// Bytes of a seed: the key, and the counter's first block.
pub const SEED_BYTES: usize = 48;
const KEY_BYTES: usize = 32;
/// Keystream that is made at once.
const BLOCK_BYTES: usize = 32 << 10;
/// Keystream for one step of the shuffle.
const STEP_BYTES: usize = 16;

/// Why shares are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ShareError {
    /// Elements are single bytes.
    #[error("the modulus must be from 2 to 256, but is {0}")]
    Modulus(u32),
    /// Vectors that are added must belong together.
    #[error("a share has {found} elements where {expected} are due")]
    Length {
        /// What is due.
        expected: usize,
        /// What was given.
        found: usize,
    },
    /// An element that no share has.
    #[error("element {index} is {value}, which is not below the modulus {modulus}")]
    Value {
        /// Its position, from 0.
        index: usize,
        /// The element.
        value: u8,
        /// The modulus.
        modulus: u32,
    },
    /// A seed of another length.
    #[error("the seed has {0} bytes where {SEED_BYTES} are due")]
    Seed(usize),
}

/// A modulus from 2 to 256: elements are bytes below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Modulus(u16);

impl Modulus {
    /// Checks the range.
    ///
    /// # Errors
    /// [`ShareError::Modulus`].
    pub fn new(modulus: u32) -> Result<Self, ShareError> {
        match u16::try_from(modulus) {
            Ok(value @ 2..=256) => Ok(Self(value)),
            _ => Err(ShareError::Modulus(modulus)),
        }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }

    /// Whether every element but 0 has an inverse, as a multiplicative mask needs.
    #[must_use]
    pub fn is_prime(self) -> bool {
        (2..).take_while(|factor| factor * factor <= self.0).all(|factor| !self.0.is_multiple_of(factor))
    }

    fn bits(self) -> u32 {
        u16::BITS - (self.0 - 1).leading_zeros()
    }

    fn add(self, a: u8, b: u8) -> u8 {
        ((u16::from(a) + u16::from(b)) % self.0) as u8
    }

    fn subtract(self, a: u8, b: u8) -> u8 {
        ((u16::from(a) + self.0 - u16::from(b)) % self.0) as u8
    }

    fn multiply(self, a: u8, b: u8) -> u8 {
        ((u32::from(a) * u32::from(b)) % u32::from(self.0)) as u8
    }
}

impl fmt::Display for Modulus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where a generator begins. It is secret: with the other share it gives the vector away.
#[derive(Clone, Debug)]
pub struct Seed(Secret<[u8; SEED_BYTES]>);

impl Seed {
    /// A seed of these bytes.
    #[must_use]
    pub const fn new(bytes: Secret<[u8; SEED_BYTES]>) -> Self {
        Self(bytes)
    }

    /// A seed that was received.
    ///
    /// # Errors
    /// [`ShareError::Seed`] for another length.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, ShareError> {
        bytes.try_into().map(|bytes| Self(Secret::new(bytes))).map_err(|_| ShareError::Seed(bytes.len()))
    }

    /// The bytes, to be encrypted for somebody.
    #[must_use]
    pub const fn expose(&self) -> &[u8; SEED_BYTES] {
        self.0.expose()
    }

    /// The seed that two parties share: byte by byte the exclusive or of what each has drawn.
    #[must_use]
    pub fn common(&self, other: &Self) -> Self {
        let mut bytes = Zeroizing::new([0; SEED_BYTES]);
        for ((byte, one), two) in bytes.iter_mut().zip(self.expose()).zip(other.expose()) {
            *byte = one ^ two;
        }
        Self(Secret::new(*bytes))
    }

    /// The generator, at its beginning.
    #[must_use]
    pub fn generator(&self) -> Generator {
        self.stream(0)
    }

    /// One of many generators, apart by 2^64 blocks.
    fn stream(&self, number: u64) -> Generator {
        let (key, counter) = self.expose().split_at(KEY_BYTES);
        let counter = counter.first_chunk().copied().map_or(0, u128::from_be_bytes);
        let counter = counter.wrapping_add(u128::from(number) << 64).to_be_bytes();
        let stream = Ctr128BE::<Aes256>::new_from_slices(key, &counter).expect("a key and a block");
        Generator { stream }
    }
}

/// One continuous stream of pseudorandom bytes, and the numbers drawn from it.
pub struct Generator {
    stream: Ctr128BE<Aes256>,
}

impl fmt::Debug for Generator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Generator").finish_non_exhaustive()
    }
}

/// How many are drawn at once while `missing` are missing and a fraction `rejected` is rejected.
fn batch(missing: usize, rejected: f64) -> usize {
    let missing = missing as f64;
    (missing + 1.0 + rejected * missing / (1.0 - rejected)).floor() as usize
}

impl Generator {
    /// The next bytes.
    pub fn bytes(&mut self, out: &mut [u8]) {
        out.fill(0);
        self.stream.apply_keystream(out);
    }

    /// Fills `out` with uniform numbers below the modulus.
    pub fn uniform(&mut self, modulus: Modulus, out: &mut [u8]) {
        Uniform::new(self, modulus, out.len()).fill(out);
    }

    /// So many uniform numbers below the modulus, a part at a time.
    pub fn uniform_parts(&mut self, modulus: Modulus, count: usize) -> Uniform<'_> {
        Uniform::new(self, modulus, count)
    }

    /// Fills `out` with uniform numbers from 1 to below the modulus.
    pub fn uniform_nonzero(&mut self, modulus: Modulus, out: &mut [u8]) {
        let rejected = 1.0 / f64::from(modulus.0);
        let mut drawn = Zeroizing::new(Vec::new());
        let mut done = 0;
        while done < out.len() {
            drawn.resize(batch(out.len() - done, rejected), 0);
            self.uniform(modulus, &mut drawn);
            for number in drawn.iter().filter(|number| **number != 0) {
                if done < out.len() {
                    out[done] = *number;
                    done += 1;
                }
            }
        }
    }
}

/// Uniform numbers below a modulus that are drawn as one vector and handed out in parts.
pub struct Uniform<'a> {
    generator: &'a mut Generator,
    modulus: Modulus,
    mask: u8,
    rejected: f64,
    /// Numbers that are still to be handed out.
    missing: usize,
    /// Candidates of the batch that are still to be drawn.
    batch: usize,
    block: Zeroizing<Vec<u8>>,
    /// The candidates of `block` that are left.
    unread: std::ops::Range<usize>,
}

impl fmt::Debug for Uniform<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Uniform").field("missing", &self.missing).finish_non_exhaustive()
    }
}

impl<'a> Uniform<'a> {
    fn new(generator: &'a mut Generator, modulus: Modulus, count: usize) -> Self {
        let bits = modulus.bits();
        let candidates = f64::from(1_u16 << bits);
        let rejected = (candidates - f64::from(modulus.0)) / candidates;
        let block = Zeroizing::new(vec![0; BLOCK_BYTES.min(batch(count, rejected))]);
        let mask = ((1_u16 << bits) - 1) as u8;
        Self { generator, modulus, mask, rejected, missing: count, batch: 0, block, unread: 0..0 }
    }

    /// Fills `out` with the next numbers. When the last has been handed out, the generator stands behind the surplus of
    /// the last batch, which is drawn and not used.
    ///
    /// # Panics
    /// When `out` is longer than what is left of the vector.
    pub fn fill(&mut self, out: &mut [u8]) {
        assert!(out.len() <= self.missing, "{} numbers of {} that are left", out.len(), self.missing);
        let mut done = 0;
        while done < out.len() {
            if self.unread.is_empty() {
                self.refill(self.missing - done);
            }
            for candidate in &self.block[self.unread.clone()] {
                self.unread.start += 1;
                let candidate = candidate & self.mask;
                if u16::from(candidate) < self.modulus.0 {
                    out[done] = candidate;
                    done += 1;
                    if done == out.len() {
                        break;
                    }
                }
            }
        }
        self.missing -= done;
        if self.missing == 0 {
            while self.batch > 0 {
                self.refill(0);
            }
            self.unread = 0..0;
        }
    }

    /// Draws the next candidates; a batch begins when the one before is used up.
    fn refill(&mut self, missing: usize) {
        if self.batch == 0 {
            self.batch = batch(missing, self.rejected);
        }
        let take = self.batch.min(self.block.len());
        self.generator.bytes(&mut self.block[..take]);
        self.batch -= take;
        self.unread = 0..take;
    }
}

/// The share that belongs to a seed's: values less what the seed's generator gives, modulo q.
///
/// # Errors
/// [`ShareError::Value`] when a value is not below the modulus.
pub fn second_share(modulus: Modulus, seed: &Seed, values: &[u8]) -> Result<Vec<u8>, ShareError> {
    check(modulus, values)?;
    let mut share = vec![0; values.len()];
    seed.generator().uniform(modulus, &mut share);
    for (share, value) in share.iter_mut().zip(values) {
        *share = modulus.subtract(*value, *share);
    }
    Ok(share)
}

/// Whether all elements are below the modulus.
///
/// # Errors
/// [`ShareError::Value`] names the first that is not.
pub fn check(modulus: Modulus, elements: &[u8]) -> Result<(), ShareError> {
    match elements.iter().position(|element| u16::from(*element) >= modulus.0) {
        None => Ok(()),
        Some(index) => Err(ShareError::Value { index, value: elements[index], modulus: u32::from(modulus.0) }),
    }
}

fn check_pair(modulus: Modulus, sum: &[u8], other: &[u8]) -> Result<(), ShareError> {
    if sum.len() != other.len() {
        return Err(ShareError::Length { expected: sum.len(), found: other.len() });
    }
    check(modulus, sum)?;
    check(modulus, other)
}

/// Adds element by element.
///
/// # Errors
/// [`ShareError::Length`] and [`ShareError::Value`]; nothing is changed then.
pub fn add(modulus: Modulus, sum: &mut [u8], other: &[u8]) -> Result<(), ShareError> {
    check_pair(modulus, sum, other)?;
    sum.iter_mut().zip(other).for_each(|(sum, other)| *sum = modulus.add(*sum, *other));
    Ok(())
}

/// Subtracts element by element.
///
/// # Errors
/// As [`add`].
pub fn subtract(modulus: Modulus, sum: &mut [u8], other: &[u8]) -> Result<(), ShareError> {
    check_pair(modulus, sum, other)?;
    sum.iter_mut().zip(other).for_each(|(sum, other)| *sum = modulus.subtract(*sum, *other));
    Ok(())
}

/// Multiplies element by element.
///
/// # Errors
/// As [`add`].
pub fn multiply(modulus: Modulus, product: &mut [u8], other: &[u8]) -> Result<(), ShareError> {
    check_pair(modulus, product, other)?;
    product.iter_mut().zip(other).for_each(|(product, other)| *product = modulus.multiply(*product, *other));
    Ok(())
}

/// Puts elements into the order that belongs to a seed: for i from 0, the element at i changes places with the one at
/// i + (the next 16 bytes, little-endian, modulo n − i).
pub fn shuffle(seed: &Seed, elements: &mut [u8]) {
    let mut generator = seed.generator();
    let mut block = Zeroizing::new(vec![0; BLOCK_BYTES]);
    let length = elements.len();
    for first in (0..length.saturating_sub(1)).step_by(BLOCK_BYTES / STEP_BYTES) {
        generator.bytes(&mut block);
        for (i, bytes) in (first..length - 1).zip(block.as_chunks::<STEP_BYTES>().0) {
            let random = u128::from_le_bytes(*bytes);
            let j = i + (random % (length - i) as u128) as usize;
            elements.swap(i, j);
        }
    }
}

/// The native variant's shuffle: uniform too, and linear in memory traffic.
///
/// Stream s of a seed has the seed's key, and as first counter block the seed's plus s·2^64 modulo 2^128. Up to
/// 2^16 elements are one bucket; more go to 256: the byte of stream 0 at its position is an element's bucket, and elements
/// of a bucket keep their order. Then every bucket b is put into order by itself, with stream b + 1: for i from its last
/// place down to 1, the element at i changes places with the one at j, uniform from 0 to i by Lemire's method from
/// little-endian 32-bit words (the high half of word·(i + 1); a low half below 2^32 mod (i + 1) draws again).
pub fn bucket_shuffle(seed: &Seed, elements: &mut [u8]) {
    const BUCKETS: usize = 256;
    const ONE_BUCKET: usize = 1 << 16;
    if elements.len() <= ONE_BUCKET {
        return shuffle_bucket(seed, 0, elements);
    }
    let mut choices = Zeroizing::new(vec![0; elements.len()]);
    seed.stream(0).bytes(&mut choices);
    let mut ends = [0_usize; BUCKETS];
    choices.iter().for_each(|bucket| ends[usize::from(*bucket)] += 1);
    let sizes = ends;
    let mut next = 0;
    for end in &mut ends {
        next += std::mem::replace(end, next);
    }
    // From here on `ends` says where a bucket's next element goes.
    let mut scattered = Zeroizing::new(vec![0; elements.len()]);
    for (element, bucket) in elements.iter().zip(choices.iter()) {
        let place = &mut ends[usize::from(*bucket)];
        scattered[*place] = *element;
        *place += 1;
    }
    elements.copy_from_slice(&scattered);
    let mut rest = elements;
    let mut buckets = Vec::with_capacity(BUCKETS);
    for size in sizes {
        let (bucket, behind) = rest.split_at_mut(size);
        buckets.push(bucket);
        rest = behind;
    }
    buckets.into_par_iter().enumerate().for_each(|(number, bucket)| shuffle_bucket(seed, number as u64, bucket));
}

fn shuffle_bucket(seed: &Seed, number: u64, bucket: &mut [u8]) {
    let mut words = Words::new(seed.stream(number + 1), bucket.len());
    for i in (1..bucket.len()).rev() {
        // A bucket of 2^32 elements would need a vector of 2^40.
        let bound = u32::try_from(i + 1).unwrap_or(u32::MAX);
        bucket.swap(i, words.below(bound) as usize);
    }
}

/// Little-endian 32-bit words of a stream.
struct Words {
    generator: Generator,
    block: Zeroizing<Vec<u8>>,
    at: usize,
}

impl Words {
    fn new(generator: Generator, expected: usize) -> Self {
        let block = Zeroizing::new(vec![0; (expected * 4 + 64).min(BLOCK_BYTES).next_multiple_of(4)]);
        let at = block.len();
        Self { generator, block, at }
    }

    fn next(&mut self) -> u32 {
        if self.at == self.block.len() {
            self.generator.bytes(&mut self.block);
            self.at = 0;
        }
        let word = self.block[self.at..].first_chunk().copied().unwrap_or_default();
        self.at += 4;
        u32::from_le_bytes(word)
    }

    fn below(&mut self, bound: u32) -> u32 {
        loop {
            let product = u64::from(self.next()) * u64::from(bound);
            // The remainder is computed only where it can matter.
            let low = product as u32;
            if low >= bound || low >= bound.wrapping_neg() % bound {
                return (product >> 32) as u32;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sha2::{Digest, Sha256};

    use super::*;

    fn modulus(value: u32) -> Modulus {
        Modulus::new(value).unwrap()
    }

    fn seed(key: u8, counter: u8) -> Seed {
        let mut bytes = [key; SEED_BYTES];
        bytes[KEY_BYTES..].fill(counter);
        Seed::new(Secret::new(bytes))
    }

    fn drawn(seed: &Seed, value: u32, count: usize) -> Vec<u8> {
        let mut out = vec![0; count];
        seed.generator().uniform(modulus(value), &mut out);
        out
    }

    /// NIST SP 800-38A, F.5.5.
    #[test]
    fn the_stream_is_aes_256_in_counter_mode() {
        let key = hex::decode("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4").unwrap();
        let counter = hex::decode("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff").unwrap();
        let mut stream = [0; 64];
        Seed::from_slice(&[key, counter].concat()).unwrap().generator().bytes(&mut stream);
        assert_eq!(
            hex::encode(stream),
            "0bdf7df1591716335e9a8b15c860c5025a6e699d536119065433863c8f657b94\
             1bc12c9c01610d5d0d8bd6a3378eca622956e1c8693536b1bee99c73a31576b6"
        );
    }

    #[test]
    fn numbers_are_those_of_the_reference() {
        let expected = [74, 116, 71, 11, 111, 59, 113, 61, 10, 79, 26, 95, 66, 9, 52, 108];
        let (a, c) = (seed(b'a', b'b'), seed(b'c', b'c'));
        assert_eq!(drawn(&a, 127, 16), expected);
        assert_eq!(drawn(&a, 128, 16), expected);
        let hundred = drawn(&a, 127, 100);
        assert_eq!(hundred[96..], [118, 115, 90, 108]);
        assert_eq!(hundred.iter().map(|number| u32::from(*number)).sum::<u32>(), 6414);
        let mut nonzero = [0; 16];
        a.generator().uniform_nonzero(modulus(127), &mut nonzero);
        assert_eq!(nonzero, expected);
        assert_eq!(drawn(&c, 127, 16), [45, 122, 69, 92, 53, 12, 114, 11, 74, 64, 111, 110, 125, 83, 117, 98]);
    }

    #[test]
    fn shuffles_are_those_of_the_reference() {
        let first = seed(b'a', b'b');
        let mut ten: Vec<u8> = (0..10).collect();
        shuffle(&first, &mut ten);
        assert_eq!(ten, [4, 9, 2, 8, 7, 5, 3, 6, 1, 0]);
        let mut hundred: Vec<u8> = (0..100).collect();
        shuffle(&first, &mut hundred);
        assert_eq!(hundred[..20], [34, 18, 12, 90, 73, 85, 26, 68, 83, 72, 74, 0, 60, 19, 3, 62, 10, 64, 53, 44]);
        assert_eq!(hundred[95..], [76, 30, 82, 66, 6]);
        assert_eq!(
            hex::encode(Sha256::digest(&hundred)),
            "bdcefc5f7503b9e17cbdcbf19f2a3b657ef3fd711e1717d831f5d6397d8887ea"
        );

        let mut bytes = [0; SEED_BYTES];
        seed(b'a', b'a').generator().bytes(&mut bytes);
        assert_eq!(
            hex::encode(bytes),
            "2ccd45896fc3525e03c7cb97b66895ffb1f36b1ab4cace56380681158ff28e4714fe2072df6f73e1adc4583aab9e03f2"
        );
        let mut ten: Vec<u8> = (0..10).collect();
        shuffle(&Seed::new(Secret::new(bytes)), &mut ten);
        assert_eq!(ten, [7, 1, 6, 5, 8, 3, 4, 2, 0, 9]);
    }

    /// The definition in one loop, with all randomness at once, for lengths around the block size.
    #[test]
    fn a_shuffle_does_not_depend_on_how_its_randomness_is_drawn() {
        let seed = seed(1, 2);
        for length in [0, 1, 2, 2047, 2048, 2049, 2050, 5000] {
            let elements: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
            let mut random = vec![0; STEP_BYTES * length];
            seed.generator().bytes(&mut random);
            let mut expected = elements.clone();
            for i in 0..length.saturating_sub(1) {
                let bytes = random[STEP_BYTES * i..STEP_BYTES * (i + 1)].try_into().unwrap();
                expected.swap(i, i + (u128::from_le_bytes(bytes) % (length - i) as u128) as usize);
            }
            let mut found = elements;
            shuffle(&seed, &mut found);
            assert_eq!(found, expected, "{length}");
        }
    }

    /// The definition with every batch in memory at once.
    #[test]
    fn numbers_do_not_depend_on_how_batches_are_drawn() {
        for value in [2, 3, 100, 127, 128, 129, 200, 251, 256] {
            let modulus = modulus(value);
            let seed = seed(3, 4);
            for count in [0, 1, 10, 40_000] {
                let mut generator = seed.generator();
                let bits = (2..=8).find(|bits| 1 << bits >= value && value > 2).unwrap_or(1);
                let rejected = f64::from((1 << bits) - value) / f64::from(1 << bits);
                let mut expected = Vec::new();
                while expected.len() < count {
                    let mut bytes = vec![0; batch(count - expected.len(), rejected)];
                    generator.bytes(&mut bytes);
                    let accepted = bytes.iter().map(|byte| byte & ((1_u32 << bits) - 1) as u8);
                    expected.extend(accepted.filter(|byte| u32::from(*byte) < value));
                    expected.truncate(count);
                }
                let mut stream = seed.generator();
                let mut found = vec![0; count];
                stream.uniform(modulus, &mut found);
                assert_eq!(found, expected, "{count} below {value}");
                let mut parts = seed.generator();
                let mut numbers = parts.uniform_parts(modulus, count);
                let mut found_in_parts = vec![0; count];
                found_in_parts.chunks_mut(777).for_each(|part| numbers.fill(part));
                assert_eq!(found_in_parts, expected, "{count} below {value} in parts");
                let mut three = [0; 8];
                parts.bytes(&mut three);
                // All streams stand at the same place.
                let (mut one, mut two) = ([0; 8], [0; 8]);
                generator.bytes(&mut one);
                stream.bytes(&mut two);
                assert_eq!((one, one), (two, three), "{count} below {value}");
            }
        }
    }

    /// The definition without blocks or threads.
    #[test]
    fn the_native_shuffle_is_what_is_written_of_it() {
        let seed = seed(9, 200);
        let bytes = |number: u64, count: usize| {
            let mut bytes = vec![0; count];
            seed.stream(number).bytes(&mut bytes);
            bytes
        };
        for length in [0, 1, 2, 1000, 65_536, 65_537, 200_000] {
            let elements: Vec<u8> = (0..length).map(|i| (i * i % 251) as u8).collect();
            let choices = if length > 65_536 { bytes(0, length) } else { vec![0; length] };
            let mut expected = Vec::new();
            for bucket in 0..=255 {
                let mut part: Vec<u8> =
                    elements.iter().zip(&choices).filter(|(_, choice)| **choice == bucket).map(|(e, _)| *e).collect();
                let stream = bytes(u64::from(bucket) + 1, 8 * part.len() + 64);
                let mut words = stream.as_chunks().0.iter().map(|word| u64::from(u32::from_le_bytes(*word)));
                for i in (1..part.len()).rev() {
                    let bound = i as u64 + 1;
                    let product = loop {
                        let product = words.next().unwrap() * bound;
                        if product % (1 << 32) >= (1_u64 << 32) % bound {
                            break product;
                        }
                    };
                    part.swap(i, (product >> 32) as usize);
                }
                expected.extend(part);
            }
            let mut found = elements;
            bucket_shuffle(&seed, &mut found);
            assert!(found == expected, "{length}");
        }
        let mut hundred: Vec<u8> = (0..100).collect();
        bucket_shuffle(&seed, &mut hundred);
        assert_eq!(
            hex::encode(Sha256::digest(&hundred)),
            include_str!("../tests/golden/bucket-shuffle-100.hex").trim()
        );
        let mut many: Vec<u8> = (0..100_000_u32).map(|i| (i % 251) as u8).collect();
        bucket_shuffle(&seed, &mut many);
        assert_eq!(
            hex::encode(Sha256::digest(&many)),
            include_str!("../tests/golden/bucket-shuffle-100000.hex").trim()
        );
    }

    #[test]
    fn arithmetic_is_modulo_q() {
        let eight = modulus(8);
        let mut difference = [1, 2, 3, 4, 5, 6, 7];
        subtract(eight, &mut difference, &[7, 6, 5, 4, 3, 2, 1]).unwrap();
        assert_eq!(difference, [2, 4, 6, 0, 2, 4, 6]);
        let mut sum = [1, 2, 3, 4, 5, 6, 7];
        add(eight, &mut sum, &[7, 1, 2, 4, 5, 3, 6]).unwrap();
        assert_eq!(sum, [0, 3, 5, 0, 2, 1, 5]);
        assert_eq!(add(eight, &mut sum, &[0]), Err(ShareError::Length { expected: 7, found: 1 }));
        let bad = [0, 0, 8, 0, 0, 0, 0];
        assert_eq!(add(eight, &mut sum, &bad), Err(ShareError::Value { index: 2, value: 8, modulus: 8 }));
        assert_eq!(sum, [0, 3, 5, 0, 2, 1, 5]);
        assert!(second_share(eight, &seed(1, 1), &[8]).is_err());
        let mut wrapped = [200, 255];
        add(modulus(256), &mut wrapped, &[100, 1]).unwrap();
        assert_eq!(wrapped, [44, 0]);
    }

    #[test]
    fn ranges_are_checked() {
        for value in [0, 1, 257, u32::MAX] {
            assert_eq!(Modulus::new(value), Err(ShareError::Modulus(value)));
        }
        assert_eq!(Seed::from_slice(&[0; 47]).unwrap_err(), ShareError::Seed(47));
        let primes: Vec<u32> = (2..=256).filter(|value| modulus(*value).is_prime()).collect();
        assert_eq!((primes.len(), primes[..5].to_vec(), primes[53]), (54, vec![2, 3, 5, 7, 11], 251));
    }

    proptest! {
        #[test]
        fn shares_add_up(
            value in 2u32..=256, numbers in prop::collection::vec(any::<u8>(), 0..300), seed in any::<[u8; 32]>(),
        ) {
            let modulus = modulus(value);
            let values: Vec<u8> = numbers.iter().map(|number| (u32::from(*number) % value) as u8).collect();
            let mut bytes = [0; SEED_BYTES];
            bytes[..32].copy_from_slice(&seed);
            let seed = Seed::new(Secret::new(bytes));
            let mut sum = second_share(modulus, &seed, &values).unwrap();
            add(modulus, &mut sum, &drawn(&seed, value, values.len())).unwrap();
            prop_assert_eq!(sum, values);
        }

        #[test]
        fn masks_keep_zero_and_nothing_else(value in prop::sample::select(vec![3u32, 127, 251]), x in any::<u8>()) {
            let modulus = modulus(value);
            let x = (u32::from(x) % value) as u8;
            let mut mask = [0; 50];
            seed(x, 1).generator().uniform_nonzero(modulus, &mut mask);
            let mut masked = [x; 50];
            multiply(modulus, &mut masked, &mask).unwrap();
            prop_assert!(masked.iter().all(|element| (*element == 0) == (x == 0)));
        }
    }
}
