//! Secrets at rest: AES-256-GCM under a key-encryption key that lives outside the database.
//!
//! A sealed value is `version (1 byte, 1) ‖ nonce (12 bytes) ‖ ciphertext ‖ tag (16 bytes)`. The version byte and the
//! caller's associated data (what the value is and where it stands: computation, duchy, kind) are authenticated with it, so a value
//! moved to another row does not open.
//!
//! ```
//! use halo_crypto::seal::{KeyEncryptionKey, LocalKey};
//! use rand_chacha::ChaCha20Rng;
//! use rand_core::SeedableRng;
//!
//! let mut rng = ChaCha20Rng::from_seed([7; 32]); // a real caller draws the seed from the operating system
//! let key = LocalKey::from_hex(&"5a".repeat(32))?;
//! let sealed = key.seal(b"key share", b"worker1/computation 7/key share", &mut rng)?;
//! assert_eq!(key.open(&sealed, b"worker1/computation 7/key share")?.expose(), b"key share");
//! assert!(key.open(&sealed, b"worker1/computation 8/key share").is_err());
//! # Ok::<(), halo_crypto::seal::Error>(())
//! ```

mod keyring;

use std::fmt;

use aes_gcm::aead::{Aead, Payload};
use aes_gcm::{Aes256Gcm, KeyInit};
use rand_core::CryptoRng;
use sha2::{Digest, Sha256};
use zeroize::Zeroize;

use crate::secret::Secret;

pub use keyring::Keyring;

/// The format written today, and the only one there has been.
const VERSION: u8 = 1;
const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;
/// Before the key in the digest that names it.
const ID_LABEL: &[u8] = b"HALO-KEY-ENCRYPTION-KEY-ID-V1";

/// How many bytes a sealed value is longer than its plaintext.
pub const OVERHEAD_BYTES: usize = 1 + NONCE_BYTES + TAG_BYTES;

/// Why a value could not be opened, or a key not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The text is not a key-encryption key.
    #[error("malformed key-encryption key: want 64 hexadecimal digits")]
    MalformedKey,
    /// The bytes are not a sealed value.
    #[error("malformed sealed value: {bytes} bytes, want at least {OVERHEAD_BYTES}")]
    Truncated {
        /// How many bytes there are.
        bytes: usize,
    },
    /// The value was sealed by a program that writes another format.
    #[error("sealed value has format version {version}; this program reads version {VERSION}")]
    UnknownVersion {
        /// The version byte.
        version: u8,
    },
    /// The value was altered, or sealed under another key or for another place. Which one is not said.
    #[error("sealed value does not open: altered, or sealed under another key or for another place")]
    DoesNotOpen,
    /// The service that holds the key could not be asked, or refused: see to its access rules, then try again.
    #[error("key-encryption key {id} is not available: {reason}")]
    Unavailable {
        /// The key's id.
        id: String,
        /// What the service said.
        reason: String,
    },
}

/// A key that seals a party's other secrets and lives outside of what it protects: in a file, in the environment, or in
/// a key management service that never gives it away.
pub trait KeyEncryptionKey: fmt::Debug + Send + Sync {
    /// Its name, the same for as long as the key is: a service's URI, or a digest. Not secret.
    fn id(&self) -> &str;

    /// Seals `plaintext` for the place that `associated_data` names. A service draws its own randomness.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when a service cannot be asked or refuses.
    fn seal(&self, plaintext: &[u8], associated_data: &[u8], rng: &mut dyn CryptoRng) -> Result<Vec<u8>, Error>;

    /// Opens what [`KeyEncryptionKey::seal`] has sealed for the same place.
    ///
    /// # Errors
    /// [`Error::Truncated`], [`Error::UnknownVersion`], [`Error::DoesNotOpen`], and [`Error::Unavailable`] when a service
    /// cannot be asked or refuses.
    fn open(&self, sealed: &[u8], associated_data: &[u8]) -> Result<Secret<Vec<u8>>, Error>;
}

/// A key-encryption key in this process's memory.
///
/// # Guarantee
/// Nonces are random, so seal fewer than 2^32 values under one key (NIST SP 800-38D, 8.3): the
/// chance that two share a nonce then stays below 2^-32.
#[derive(Debug)]
pub struct LocalKey {
    key: Secret<[u8; 32]>,
    id: String,
}

impl LocalKey {
    /// Takes the key's 32 bytes. Its id is `local:` and 16 hexadecimal digits of a digest of it.
    pub fn from_bytes(key: Secret<[u8; 32]>) -> Self {
        let digest = Sha256::new().chain_update(ID_LABEL).chain_update(key.expose()).finalize();
        let id = format!("local:{}", hex::encode(&digest[..8]));
        Self { key, id }
    }

    /// Reads the key from 64 hexadecimal digits; white space around them is ignored.
    ///
    /// # Errors
    /// [`Error::MalformedKey`] when there are other characters or another number of digits.
    pub fn from_hex(digits: &str) -> Result<Self, Error> {
        let mut key = [0; 32];
        hex::decode_to_slice(digits.trim(), &mut key).map_err(|_| Error::MalformedKey)?;
        let sealed = Self::from_bytes(Secret::new(key));
        key.zeroize();
        Ok(sealed)
    }

    fn cipher(&self) -> Aes256Gcm {
        Aes256Gcm::new(self.key.expose().into())
    }
}

impl KeyEncryptionKey for LocalKey {
    fn id(&self) -> &str {
        &self.id
    }

    fn seal(&self, plaintext: &[u8], associated_data: &[u8], rng: &mut dyn CryptoRng) -> Result<Vec<u8>, Error> {
        let mut nonce = [0; NONCE_BYTES];
        rng.fill_bytes(&mut nonce);
        let ciphertext = self
            .cipher()
            .encrypt(&nonce.into(), Payload { msg: plaintext, aad: &bound_data(associated_data) })
            .expect("a plaintext in memory is shorter than the 64 GiB that AES-GCM can seal");
        let mut sealed = Vec::with_capacity(OVERHEAD_BYTES + plaintext.len());
        sealed.push(VERSION);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(&ciphertext);
        Ok(sealed)
    }

    fn open(&self, sealed: &[u8], associated_data: &[u8]) -> Result<Secret<Vec<u8>>, Error> {
        if sealed.len() < OVERHEAD_BYTES {
            return Err(Error::Truncated { bytes: sealed.len() });
        }
        if sealed[0] != VERSION {
            return Err(Error::UnknownVersion { version: sealed[0] });
        }
        let (nonce, ciphertext) =
            sealed[1..].split_first_chunk::<NONCE_BYTES>().ok_or(Error::Truncated { bytes: sealed.len() })?;
        self.cipher()
            .decrypt(&(*nonce).into(), Payload { msg: ciphertext, aad: &bound_data(associated_data) })
            .map(Secret::new)
            .map_err(|_| Error::DoesNotOpen)
    }
}

/// What is authenticated beside the ciphertext: the format version, then the caller's data.
fn bound_data(associated_data: &[u8]) -> Vec<u8> {
    [&[VERSION], associated_data].concat()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    use super::*;

    fn key() -> LocalKey {
        LocalKey::from_hex("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n").unwrap()
    }

    #[test]
    fn golden_file_still_opens_and_is_what_is_written() {
        let golden = include_bytes!("../tests/vectors/sealed_v1.bin");
        let mut rng = ChaCha20Rng::from_seed([3; 32]);
        assert_eq!(key().seal(b"one key share", b"worker1/7/share", &mut rng).unwrap(), golden);
        assert_eq!(key().open(golden, b"worker1/7/share").unwrap().expose(), b"one key share");
    }

    #[test]
    fn two_seals_of_the_same_value_differ() {
        let mut rng = ChaCha20Rng::from_seed([4; 32]);
        assert_ne!(key().seal(b"x", b"", &mut rng).unwrap(), key().seal(b"x", b"", &mut rng).unwrap());
    }

    #[test]
    fn wrong_key_and_wrong_place_look_the_same() {
        let mut rng = ChaCha20Rng::from_seed([5; 32]);
        let sealed = key().seal(b"secret text", b"here", &mut rng).unwrap();
        let other = LocalKey::from_hex(&"11".repeat(32)).unwrap();
        let wrong_key = other.open(&sealed, b"here").unwrap_err();
        assert_eq!(wrong_key, key().open(&sealed, b"there").unwrap_err());
        assert_eq!(wrong_key, Error::DoesNotOpen);
        assert!(!format!("{wrong_key} {wrong_key:?}").contains("secret text"));
        assert!(!format!("{other:?}").contains("11"), "Debug must not show the key");
    }

    #[test]
    fn other_versions_and_short_values_are_refused() {
        let mut rng = ChaCha20Rng::from_seed([6; 32]);
        let mut sealed = key().seal(b"", b"", &mut rng).unwrap();
        assert_eq!(sealed.len(), OVERHEAD_BYTES);
        assert_eq!(key().open(&sealed[..28], b"").unwrap_err(), Error::Truncated { bytes: 28 });
        sealed[0] = 2;
        assert_eq!(key().open(&sealed, b"").unwrap_err(), Error::UnknownVersion { version: 2 });
        for bad in ["", "0g", &"00".repeat(31), &"00".repeat(33)] {
            assert_eq!(LocalKey::from_hex(bad).unwrap_err(), Error::MalformedKey);
        }
    }

    proptest! {
        #[test]
        fn any_changed_bit_is_noticed(plaintext: Vec<u8>, place: Vec<u8>, at: prop::sample::Index, bit in 0u8..8) {
            let mut rng = ChaCha20Rng::from_seed([7; 32]);
            let mut sealed = key().seal(&plaintext, &place, &mut rng).unwrap();
            let opened = key().open(&sealed, &place).unwrap();
            prop_assert_eq!(opened.expose(), &plaintext);
            let at = at.index(sealed.len());
            sealed[at] ^= 1 << bit;
            prop_assert!(key().open(&sealed, &place).is_err());
        }
    }
}
