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

#[cfg(test)]
mod agreement;
mod arithmetic;
mod generator;
mod order;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "vector instructions; what makes each block sound is said there")]
mod vector;
#[cfg(not(target_arch = "x86_64"))]
#[path = "share/no_vector.rs"]
mod vector;

use std::fmt;

use zeroize::Zeroizing;

use self::vector::Vector;
use crate::{batch::Backend, secret::Secret};

pub use arithmetic::{add, check, subtract};
pub use generator::{Generator, Uniform};
pub use order::{BucketShuffle, shuffle};

/// Bytes of a seed: the key, and the counter's first block.
pub const SEED_BYTES: usize = 48;
const KEY_BYTES: usize = 32;
/// Keystream that is made at once; with what is made of it, it stays in the first cache.
const BLOCK_BYTES: usize = 8 << 10;

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
        self.stream_from(vector(), number, 0)
    }

    /// One of many generators, from a block on.
    fn stream_from(&self, vector: Option<Vector>, number: u64, block: u64) -> Generator {
        let (key, counter) = self.expose().split_at(KEY_BYTES);
        let first = counter.first_chunk().copied().map_or(0, u128::from_be_bytes);
        let key = key.first_chunk().expect("a seed begins with a key");

        Generator::new(vector, key, first.wrapping_add(u128::from(number) << 64 | u128::from(block)))
    }
}

/// The vector instructions, unless this CPU lacks them or the portable [`Backend`] is in use.
fn vector() -> Option<Vector> {
    #[cfg(test)]
    if agreement::is_portable() {
        return None;
    }
    if Backend::current() == Ok(Backend::Portable) { None } else { Vector::detect() }
}

/// Runs loops over bytes, with vector instructions where there are any.
#[inline]
fn vectorised<T>(work: impl FnOnce() -> T) -> T {
    match vector() {
        Some(vector) => vector.run(work),
        None => work(),
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
    arithmetic::subtract_from(modulus, values, &mut share);
    Ok(share)
}
