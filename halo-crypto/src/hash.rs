//! Hashing to the group: what a byte string stands for is *twice* its `hash_to_ristretto255` (RFC 9380), with SHA-512 and
//! one domain tag for each use.
//!
//! No hash is ever a known multiple of another element, so ciphertexts of hashes of different strings cannot be related.
//!
//! # Why twice
//! A ciphertext is encoded at a fifth of the cost where it is the double of another
//! ([`encode_doubled_ciphertexts`](crate::batch::encode_doubled_ciphertexts)). With elements that are doubles, whoever encrypts
//! has their halves at hand ([`encrypt_doubled`](crate::batch::encrypt_doubled)). Nothing is lost: the order of the group is
//! an odd prime, so doubling is a bijection. Twice a uniform element is uniform, different elements stay different, and who
//! knew one element as a multiple of another would know the same of their halves.

use std::sync::LazyLock;

use sha2::{Digest, Sha512};

use crate::{batch, group::Point};

/// What is hashed. The same bytes in two domains give unrelated elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Domain {
    /// A register's index, as a decimal string.
    Index,
    /// A register's key, as the decimal string of the value plus one.
    Key,
    /// A constant of the protocol, by name.
    Constant,
    /// The id of noise.
    NoiseId,
}

impl Domain {
    /// The domain separation tag (RFC 9380, 3.1): at most 45 bytes, so that the second hash of an expansion is of one
    /// block; the first one is, behind its block of zeros, as long as message and tag have at most 107 bytes.
    #[must_use]
    pub const fn tag(self) -> &'static [u8] {
        match self {
            Self::Index => b"HALO-LLV2-V2-INDEX-ristretto255",
            Self::Key => b"HALO-LLV2-V2-KEY-ristretto255",
            Self::Constant => b"HALO-LLV2-V2-CONSTANT-ristretto255",
            Self::NoiseId => b"HALO-LLV2-V2-NOISEID-ristretto255",
        }
    }
}

/// The element that a byte string stands for.
#[must_use]
pub fn hash_to_group(domain: Domain, message: &[u8]) -> Point {
    let half = hash_to_half(domain, message);
    half + half
}

/// What gives [`hash_to_group`] when it is added to itself: `hash_to_ristretto255`.
#[must_use]
pub fn hash_to_half(domain: Domain, message: &[u8]) -> Point {
    let mut element = [Point::identity()];
    batch::kernels().map_uniform(&[uniform_bytes(domain, message)], &mut element);
    element[0]
}

/// What a byte string expands to: uniform bytes to map to an element.
pub(crate) fn uniform_bytes(domain: Domain, message: &[u8]) -> [u8; 64] {
    expand_message_xmd(message, domain.tag())
}

/// A constant of the protocol: `unit` (what a count is a multiple of), `destroyed_register_key`,
/// `blinded_histogram_noise_register_key`.
#[must_use]
pub fn constant(name: &str) -> Point {
    hash_to_group(Domain::Constant, name.as_bytes())
}

/// What gives [`constant`] when it is added to itself.
#[must_use]
pub fn half_constant(name: &str) -> Point {
    hash_to_half(Domain::Constant, name.as_bytes())
}

/// `expand_message_xmd` of RFC 9380, 5.3.1, with SHA-512 and `LENGTH` bytes of output. One block is all that is needed
/// here, so `LENGTH` is at most 64 and the tag at most 255 bytes.
fn expand_message_xmd<const LENGTH: usize>(message: &[u8], tag: &[u8]) -> [u8; LENGTH] {
    const { assert!(LENGTH <= 64, "more than one block is not supported") };
    let tag_length = [tag.len() as u8];
    // The block of zeros comes first in every expansion: it is hashed once.
    static ZEROS: LazyLock<Sha512> = LazyLock::new(|| Sha512::new_with_prefix([0; 128]));
    let first = ZEROS
        .clone()
        .chain_update(message)
        .chain_update((LENGTH as u16).to_be_bytes())
        .chain_update([0])
        .chain_update(tag)
        .chain_update(tag_length)
        .finalize();
    let second =
        Sha512::new().chain_update(first).chain_update([1]).chain_update(tag).chain_update(tag_length).finalize();
    std::array::from_fn(|position| second[position])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expansion_agrees_with_the_published_values() {
        // RFC 9380, K.3: expand_message_xmd with SHA-512, 32 bytes.
        let tag = b"QUUX-V01-CS02-with-expander-SHA512-256";
        for (message, expected) in [
            ("", "6b9a7312411d92f921c6f68ca0b6380730a1a4d982c507211a90964c394179ba"),
            ("abc", "0da749f12fbe5483eb066a5f595055679b976e93abe9be6f0f6318bce7aca8dc"),
        ] {
            assert_eq!(hex::encode(expand_message_xmd::<32>(message.as_bytes(), tag)), expected);
        }
    }

    #[test]
    fn elements_stay_what_they_are() {
        let golden = include_str!("../tests/vectors/hash_to_group.txt");
        let cases = [
            (Domain::Index, "0"),
            (Domain::Index, "12345"),
            (Domain::Key, "1"),
            (Domain::Key, "10000000"),
            (Domain::Constant, "unit"),
            (Domain::Constant, "destroyed_register_key"),
            (Domain::Constant, "blinded_histogram_noise_register_key"),
            (Domain::NoiseId, "publisher_noise_register_id"),
            (Domain::NoiseId, "padding_noise_register_id"),
        ];
        let now: String = cases
            .iter()
            .map(|(domain, message)| {
                format!("{domain:?} {message} {:?}\n", hash_to_group(*domain, message.as_bytes()).encode())
            })
            .collect();
        assert_eq!(now, golden);
    }

    #[test]
    fn domains_are_apart() {
        let all = [Domain::Index, Domain::Key, Domain::Constant, Domain::NoiseId];
        for (position, one) in all.iter().enumerate() {
            for other in &all[..position] {
                assert_ne!(hash_to_group(*one, b"1"), hash_to_group(*other, b"1"));
            }
        }
    }
}
