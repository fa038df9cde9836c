//! Kernels over slices: what the protocols spend their time in.
//!
//! Every kernel takes slices and spreads them over all cores; its result depends on nothing but its arguments. Single
//! items are slices of one. Who computes is decided here and nowhere else: today the portable backend, curve25519-dalek.
//!
//! Scalars that a caller passes are secret: all kernels take constant time in them, and the caller wipes its slices
//! when it no longer needs them.
//!
//! # Panics
//! Kernels panic when slices that belong together differ in length: a bug of the caller, never caused by data.

mod portable;

use rayon::prelude::*;

use crate::{
    elgamal::{CIPHERTEXT_BYTES, Ciphertext, CompositeKey, KeyShareSecret},
    group::{ELEMENT_BYTES, EncodedPoint, Point, Scalar},
    hash::{self, Domain},
    secret::Secret,
};

/// Items that one task takes: small enough to spread, large enough that the task costs nothing.
const TASK: usize = 64;

/// A record that is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("ciphertext {index}: {reason}")]
pub struct BadRecord {
    /// Position of the first bad ciphertext; of the last, unfinished one when the bytes end inside it.
    pub index: usize,
    /// What is wrong with it.
    pub reason: BadCiphertext,
}

/// Why a ciphertext is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadCiphertext {
    /// The bytes end inside a ciphertext.
    #[error("the bytes end inside it")]
    Truncated,
    /// A component is no canonical encoding.
    #[error("a component is not the canonical encoding of a group element")]
    NotAGroupElement,
    /// The first component is the identity: nothing would be hidden.
    #[error("its first component is the identity")]
    Identity,
}

/// Decodes ciphertexts, u ‖ e each. Only canonical encodings are accepted, and no identity as first component.
///
/// # Errors
/// The first bad ciphertext.
pub fn decode_ciphertexts(bytes: &[u8]) -> Result<Vec<Ciphertext>, BadRecord> {
    if !bytes.len().is_multiple_of(CIPHERTEXT_BYTES) {
        return Err(BadRecord { index: bytes.len() / CIPHERTEXT_BYTES, reason: BadCiphertext::Truncated });
    }
    let nothing = Ciphertext { u: Point::identity(), e: Point::identity() };
    let mut decoded = vec![nothing; bytes.len() / CIPHERTEXT_BYTES];
    let bad = decoded
        .par_iter_mut()
        .zip(bytes.par_chunks_exact(CIPHERTEXT_BYTES))
        .with_min_len(TASK)
        .enumerate()
        .filter_map(|(index, (place, bytes))| match portable::decode(bytes) {
            Ok(ciphertext) => {
                *place = ciphertext;
                None
            }
            Err(reason) => Some(BadRecord { index, reason }),
        })
        .min_by_key(|bad| bad.index);
    bad.map_or(Ok(decoded), Err)
}

/// Appends the encodings of ciphertexts, u ‖ e each.
pub fn encode_ciphertexts(ciphertexts: &[Ciphertext], out: &mut Vec<u8>) {
    let from = out.len();
    out.resize(from + ciphertexts.len() * CIPHERTEXT_BYTES, 0);
    out[from..].par_chunks_exact_mut(CIPHERTEXT_BYTES).with_min_len(TASK).zip(ciphertexts).for_each(
        |(bytes, ciphertext)| {
            bytes[..ELEMENT_BYTES].copy_from_slice(ciphertext.u.encode().as_bytes());
            bytes[ELEMENT_BYTES..].copy_from_slice(ciphertext.e.encode().as_bytes());
        },
    );
}

/// Canonical encodings.
#[must_use]
pub fn encode_points(points: &[Point]) -> Vec<EncodedPoint> {
    points.par_iter().with_min_len(TASK).map(Point::encode).collect()
}

/// Encrypts: (r·G, M + r·Y).
#[must_use]
pub fn encrypt(key: &CompositeKey, messages: &[Point], nonces: &[Scalar]) -> Vec<Ciphertext> {
    assert_eq!(messages.len(), nonces.len(), "one nonce for each message");
    messages
        .par_iter()
        .zip(nonces)
        .with_min_len(TASK)
        .map(|(message, nonce)| {
            let zero = portable::encrypt_zero(key, nonce);
            Ciphertext { u: zero.u, e: zero.e + *message }
        })
        .collect()
}

/// Encrypts the identity: (r·G, r·Y).
#[must_use]
pub fn encrypt_zero(key: &CompositeKey, nonces: &[Scalar]) -> Vec<Ciphertext> {
    nonces.par_iter().with_min_len(TASK).map(|nonce| portable::encrypt_zero(key, nonce)).collect()
}

/// Adds fresh encryptions of the identity: nobody can tell which ciphertext came from which.
pub fn rerandomize(key: &CompositeKey, ciphertexts: &mut [Ciphertext], nonces: &[Scalar]) {
    assert_eq!(ciphertexts.len(), nonces.len(), "one nonce for each ciphertext");
    ciphertexts.par_iter_mut().zip(nonces).with_min_len(TASK).for_each(|(ciphertext, nonce)| {
        *ciphertext = *ciphertext + portable::encrypt_zero(key, nonce);
    });
}

/// Peels one layer: (u, e − x·u).
pub fn peel(secret: &KeyShareSecret, ciphertexts: &mut [Ciphertext]) {
    ciphertexts.par_iter_mut().with_min_len(TASK).for_each(|ciphertext| {
        ciphertext.e = portable::open(secret, ciphertext);
    });
}

/// Peels one layer and multiplies by one exponent for all: (b·u, b·(e − x·u)). Equal messages stay equal.
pub fn peel_and_blind(secret: &KeyShareSecret, exponent: &Secret<Scalar>, ciphertexts: &mut [Ciphertext]) {
    let both = Secret::new(*exponent.expose() * *secret.x.expose());
    ciphertexts.par_iter_mut().with_min_len(TASK).for_each(|ciphertext| {
        *ciphertext = portable::peel_and_scale(ciphertext, exponent.expose(), both.expose());
    });
}

/// Peels one layer and multiplies each ciphertext by a scalar of its own: (s·u, s·(e − x·u)). An encryption of the
/// identity becomes a fresh one; any other message becomes a random multiple of itself.
pub fn peel_and_scale(secret: &KeyShareSecret, scalars: &[Scalar], ciphertexts: &mut [Ciphertext]) {
    assert_eq!(ciphertexts.len(), scalars.len(), "one scalar for each ciphertext");
    ciphertexts.par_iter_mut().zip(scalars).with_min_len(TASK).for_each(|(ciphertext, scalar)| {
        let both = Secret::new(*scalar * *secret.x.expose());
        *ciphertext = portable::peel_and_scale(ciphertext, scalar, both.expose());
    });
}

/// Multiplies: (s·u, s·e).
pub fn scale(scalars: &[Scalar], ciphertexts: &mut [Ciphertext]) {
    assert_eq!(ciphertexts.len(), scalars.len(), "one scalar for each ciphertext");
    ciphertexts.par_iter_mut().zip(scalars).with_min_len(TASK).for_each(|(ciphertext, scalar)| {
        *ciphertext = Ciphertext { u: ciphertext.u * scalar, e: ciphertext.e * scalar };
    });
}

/// Opens the last layer: e − x·u.
#[must_use]
pub fn open(secret: &KeyShareSecret, ciphertexts: &[Ciphertext]) -> Vec<Point> {
    ciphertexts.par_iter().with_min_len(TASK).map(|ciphertext| portable::open(secret, ciphertext)).collect()
}

/// Whether the last layer hides the identity: e = x·u, compared as Ristretto cosets.
#[must_use]
pub fn opens_to_identity(secret: &KeyShareSecret, ciphertexts: &[Ciphertext]) -> Vec<bool> {
    ciphertexts
        .par_iter()
        .with_min_len(TASK)
        .map(|ciphertext| ciphertext.e == ciphertext.u * secret.x.expose())
        .collect()
}

/// Hashes each message to the group.
#[must_use]
pub fn hash_to_group<M: AsRef<[u8]> + Sync>(domain: Domain, messages: &[M]) -> Vec<Point> {
    messages.par_iter().with_min_len(TASK).map(|message| hash::hash_to_group(domain, message.as_ref())).collect()
}

/// 1 to `count` times an element.
#[must_use]
pub fn multiples(base: &Point, count: usize) -> Vec<Point> {
    std::iter::successors(Some(*base), |last| Some(*last + *base)).take(count).collect()
}
