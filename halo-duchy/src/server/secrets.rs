//! Secrets of a computation: the key share and the seed of all randomness, sealed at rest.

use std::{env, fs};

use halo_core::resource::DuchyId;
use halo_crypto::elgamal::KeyShareSecret;
use halo_crypto::seal::{self, KeyEncryptionKey as _, LocalKey};
use halo_crypto::secret::Secret;
use hkdf::Hkdf;
use rand_chacha::ChaCha20Rng;
use rand_core::{CryptoRng, SeedableRng};
use sha2::Sha256;
use thiserror::Error;
use zeroize::Zeroize;

use super::config::Config;

/// Environment variable with the key-encryption key's 64 hexadecimal digits, where no file is configured.
pub const KEK_VARIABLE: &str = "HALO_DUCHY_KEK";

/// Bytes of a key share, and of a seed.
const PART_BYTES: usize = 32;

/// Why a secret cannot be had.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SecretError {
    /// Neither the file nor the environment variable has a key.
    #[error(
        "there is no key-encryption key: set key_encryption_key_file, or put 64 hexadecimal digits into {KEK_VARIABLE}"
    )]
    NoKey,
    /// The file cannot be read.
    #[error("key_encryption_key_file: {0}")]
    Read(std::io::Error),
    /// What was found is no key.
    #[error("{origin} holds no key-encryption key: {source}")]
    BadKey {
        /// Where it was found.
        origin: String,
        /// What is wrong.
        source: seal::Error,
    },
    /// A sealed secret does not open.
    #[error(
        "{what} of computation {computation} does not open: {reason}; is this the key-encryption key it was sealed under?"
    )]
    Sealed {
        /// Which secret.
        what: &'static str,
        /// The computation's external id.
        computation: String,
        /// Why.
        reason: String,
    },
}

/// Reads the key-encryption key that the configuration names.
///
/// # Errors
/// If there is none, or it is not 64 hexadecimal digits.
pub fn key_encryption_key(config: &Config) -> Result<LocalKey, SecretError> {
    let (origin, digits) = match &config.key_encryption_key_file {
        Some(file) => {
            let digits = fs::read_to_string(file).map_err(SecretError::Read)?;
            (file.display().to_string(), Secret::new(digits))
        }
        None => match env::var(KEK_VARIABLE) {
            Ok(digits) => (KEK_VARIABLE.to_owned(), Secret::new(digits)),
            Err(_) => return Err(SecretError::NoKey),
        },
    };
    LocalKey::from_hex(digits.expose().trim()).map_err(|source| SecretError::BadKey { origin, source })
}

/// Key share and seed of one computation at one Duchy.
#[derive(Debug)]
pub struct ComputationSecrets {
    /// The secret half of the key share.
    pub key_share: KeyShareSecret,
    /// From which everything random in the computation derives.
    pub seed: Secret<[u8; PART_BYTES]>,
}

impl ComputationSecrets {
    /// Draws new secrets.
    pub fn draw(rng: &mut impl CryptoRng) -> Self {
        let key_share = KeyShareSecret::generate(rng);
        let mut seed = [0; PART_BYTES];
        rng.fill_bytes(&mut seed);
        let secrets = Self { key_share, seed: Secret::new(seed) };
        seed.zeroize();
        secrets
    }

    /// Random numbers for one purpose outside of the protocol engine. The same purpose and input give the same numbers.
    #[must_use]
    pub fn randomness(&self, purpose: &str, input: &[u8]) -> ChaCha20Rng {
        let mut key = [0; PART_BYTES];
        // 32 bytes are far below the limit of the expansion, its only error.
        let expanded = Hkdf::<Sha256>::new(Some(b"halo-duchy v1"), self.seed.expose())
            .expand_multi_info(&[&(purpose.len() as u64).to_be_bytes(), purpose.as_bytes(), input], &mut key);
        debug_assert!(expanded.is_ok());
        let rng = ChaCha20Rng::from_seed(key);
        key.zeroize();
        rng
    }
}

/// Seals what a computation keeps at rest.
#[derive(Debug)]
pub struct Vault {
    key: LocalKey,
    duchy: DuchyId,
}

impl Vault {
    /// Seals under `key` for this Duchy; nothing opens at another Duchy or for another computation.
    #[must_use]
    pub fn new(key: LocalKey, duchy: DuchyId) -> Self {
        Self { key, duchy }
    }

    fn context(&self, what: &str, computation: &str) -> Vec<u8> {
        format!("halo-duchy/{}/{computation}/{what}", self.duchy).into_bytes()
    }

    /// Seals the secrets of a computation.
    pub fn seal_secrets(&self, computation: &str, secrets: &ComputationSecrets, rng: &mut impl CryptoRng) -> Vec<u8> {
        let mut plain = [0; 2 * PART_BYTES];
        plain[..PART_BYTES].copy_from_slice(secrets.key_share.to_bytes().expose());
        plain[PART_BYTES..].copy_from_slice(secrets.seed.expose());
        let sealed = self
            .key
            .seal(&plain, &self.context("secrets", computation), rng)
            .expect("a key in memory seals whatever fits into memory");
        plain.zeroize();
        sealed
    }

    /// Opens the secrets of a computation.
    ///
    /// # Errors
    /// If they were sealed under another key, for another Duchy or computation, or were altered.
    pub fn open_secrets(&self, computation: &str, sealed: &[u8]) -> Result<ComputationSecrets, SecretError> {
        let what = "secrets";
        let refuse = |reason: String| SecretError::Sealed { what, computation: computation.to_owned(), reason };
        let plain =
            self.key.open(sealed, &self.context(what, computation)).map_err(|error| refuse(error.to_string()))?;
        let Some((share, seed)) = plain.expose().split_first_chunk::<PART_BYTES>() else {
            return Err(refuse("they are too short".to_owned()));
        };
        let seed = <[u8; PART_BYTES]>::try_from(seed).map_err(|_| refuse("they have another length".to_owned()))?;
        let key_share = KeyShareSecret::from_bytes(&Secret::new(*share)).map_err(|error| refuse(error.to_string()))?;
        Ok(ComputationSecrets { key_share, seed: Secret::new(seed) })
    }

    /// Seals the engine's state, which holds counts that are nobody else's business.
    pub fn seal_state(&self, computation: &str, state: &[u8], rng: &mut impl CryptoRng) -> Vec<u8> {
        self.key
            .seal(state, &self.context("engine state", computation), rng)
            .expect("a key in memory seals whatever fits into memory")
    }

    /// Opens the engine's state.
    ///
    /// # Errors
    /// As [`Self::open_secrets`].
    pub fn open_state(&self, computation: &str, sealed: &[u8]) -> Result<Secret<Vec<u8>>, SecretError> {
        let what = "engine state";
        self.key.open(sealed, &self.context(what, computation)).map_err(|error| SecretError::Sealed {
            what,
            computation: computation.to_owned(),
            reason: error.to_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_core::Rng;

    fn vault(key: u8, duchy: &str) -> Vault {
        Vault::new(LocalKey::from_bytes(Secret::new([key; 32])), DuchyId::new(duchy).unwrap())
    }

    #[test]
    fn secrets_open_only_where_they_belong() {
        let mut rng = ChaCha20Rng::from_seed([1; 32]);
        let secrets = ComputationSecrets::draw(&mut rng);
        let sealed = vault(1, "worker1").seal_secrets("c", &secrets, &mut rng);
        let opened = vault(1, "worker1").open_secrets("c", &sealed).unwrap();
        assert_eq!(opened.key_share.public(), secrets.key_share.public());
        assert_eq!(opened.seed.expose(), secrets.seed.expose());
        assert!(vault(2, "worker1").open_secrets("c", &sealed).is_err());
        assert!(vault(1, "worker2").open_secrets("c", &sealed).is_err());
        let error = vault(1, "worker1").open_secrets("d", &sealed).unwrap_err().to_string();
        assert!(error.contains("computation d does not open"), "{error}");
        assert!(vault(1, "worker1").open_state("c", &sealed).is_err(), "one kind of secret is not another");
        let state = vault(1, "worker1").seal_state("c", b"state", &mut rng);
        assert_eq!(vault(1, "worker1").open_state("c", &state).unwrap().expose(), b"state");
    }

    #[test]
    fn randomness_repeats_for_one_purpose_and_input_only() {
        let secrets = ComputationSecrets::draw(&mut ChaCha20Rng::from_seed([2; 32]));
        let first = secrets.randomness("proof", b"input").next_u64();
        assert_eq!(secrets.randomness("proof", b"input").next_u64(), first);
        assert_ne!(secrets.randomness("proof", b"other").next_u64(), first);
        assert_ne!(secrets.randomness("result", b"input").next_u64(), first);
    }
}
