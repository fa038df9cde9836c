//! Secrets of a computation: the key and the seed of all randomness; and the keys under which they are sealed.

use std::sync::Arc;
use std::{env, fs};

use halo_crypto::consent::tink::PrivateKeyset;
use halo_crypto::elgamal::KeyShareSecret;
use halo_crypto::seal::{self, KeyEncryptionKey, Keyring, LocalKey};
use halo_crypto::secret::Secret;
use hkdf::Hkdf;
use rand_chacha::ChaCha20Rng;
use rand_core::{CryptoRng, SeedableRng};
use sha2::Sha256;
use thiserror::Error;
use zeroize::{Zeroize, Zeroizing};

use super::config::Config;
use super::keys::KeyEntry;

/// Environment variable with the key-encryption key's 64 hexadecimal digits, where no file is configured.
pub const KEK_VARIABLE: &str = "HALO_DUCHY_KEK";

/// Bytes of a key share, and of a seed.
const PART_BYTES: usize = 32;
/// Version of the secrets in storage; their first byte. Those that have 64 bytes are of the version before, which had none:
/// an ElGamal share and a seed.
const VERSION: u8 = 2;

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
    /// Nothing can be sealed.
    #[error("{what} of computation {computation} cannot be sealed: {source}")]
    Seal {
        /// Which secret.
        what: &'static str,
        /// The computation's external id.
        computation: String,
        /// Why.
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

/// Reads the key-encryption keys that the configuration names: the first one seals, all open.
///
/// # Errors
/// If there is none, or one is not 64 hexadecimal digits.
pub fn key_encryption_keys(config: &Config) -> Result<Keyring, SecretError> {
    let (origin, text) = match &config.key_encryption_key_file {
        Some(file) => {
            let text = fs::read_to_string(file).map_err(SecretError::Read)?;
            (file.display().to_string(), Secret::new(text))
        }
        None => match env::var(KEK_VARIABLE) {
            Ok(text) => (KEK_VARIABLE.to_owned(), Secret::new(text)),
            Err(_) => return Err(SecretError::NoKey),
        },
    };
    keyring(&origin, text.expose())
}

/// Reads keys from a text, separated by white space.
fn keyring(origin: &str, text: &str) -> Result<Keyring, SecretError> {
    let mut keys = text.split_whitespace().map(|digits| match LocalKey::from_hex(digits) {
        Ok(key) => Ok(Arc::new(key) as Arc<dyn KeyEncryptionKey>),
        Err(source) => Err(SecretError::BadKey { origin: origin.to_owned(), source }),
    });
    let newest = keys.next().ok_or(SecretError::NoKey)??;
    Ok(Keyring::new(newest, keys.collect::<Result<_, _>>()?))
}

/// What kind of key a Duchy draws for a computation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// None: it computes on what others have made of the data.
    None,
    /// A share of the ElGamal key of all Duchies.
    ElGamal,
    /// A hybrid encryption key of its own (HPKE), for what only this Duchy may read.
    Hpke,
}

/// The key that a Duchy has drawn for a computation.
#[derive(Debug)]
pub enum ComputationKey {
    /// None.
    None,
    /// The secret half of its share of the ElGamal key.
    ElGamal(KeyShareSecret),
    /// The private half of its hybrid encryption key.
    Hpke(PrivateKeyset),
}

impl ComputationKey {
    /// Number in storage.
    const fn number(&self) -> u8 {
        match self {
            Self::None => 0,
            Self::ElGamal(_) => 1,
            Self::Hpke(_) => 2,
        }
    }

    fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(match self {
            Self::None => Vec::new(),
            Self::ElGamal(share) => share.to_bytes().expose().to_vec(),
            Self::Hpke(keyset) => keyset.to_bytes().expose().clone(),
        })
    }

    fn from_bytes(number: u8, bytes: &[u8]) -> Result<Self, String> {
        match number {
            0 if bytes.is_empty() => Ok(Self::None),
            1 => {
                let share = <[u8; PART_BYTES]>::try_from(bytes).map_err(|_| "the key share has another length")?;
                let share = KeyShareSecret::from_bytes(&Secret::new(share)).map_err(|error| error.to_string())?;
                Ok(Self::ElGamal(share))
            }
            2 => PrivateKeyset::from_bytes(bytes).map(Self::Hpke).map_err(|error| error.to_string()),
            _ => Err(format!("key of kind {number} is not known")),
        }
    }
}

/// Key and seed of one computation at one Duchy.
#[derive(Debug)]
pub struct ComputationSecrets {
    /// What was drawn for this computation alone.
    pub key: ComputationKey,
    /// From which everything random in the computation derives.
    pub seed: Secret<[u8; PART_BYTES]>,
}

impl ComputationSecrets {
    /// Draws new secrets.
    pub fn draw(kind: KeyKind, rng: &mut impl CryptoRng) -> Self {
        let key = match kind {
            KeyKind::None => ComputationKey::None,
            KeyKind::ElGamal => ComputationKey::ElGamal(KeyShareSecret::generate(rng)),
            KeyKind::Hpke => ComputationKey::Hpke(PrivateKeyset::generate_hpke(rng)),
        };
        let mut seed = [0; PART_BYTES];
        rng.fill_bytes(&mut seed);
        let secrets = Self { key, seed: Secret::new(seed) };
        seed.zeroize();
        secrets
    }

    /// The form that is sealed: version, kind of key, seed, key.
    pub(super) fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let key = self.key.to_bytes();
        let mut plain = Zeroizing::new(Vec::with_capacity(2 + PART_BYTES + key.len()));
        plain.extend_from_slice(&[VERSION, self.key.number()]);
        plain.extend_from_slice(self.seed.expose());
        plain.extend_from_slice(&key);
        plain
    }

    /// Reads that form.
    pub(super) fn from_bytes(plain: &[u8]) -> Result<Self, String> {
        let (number, seed, key) = match plain {
            first if first.len() == 2 * PART_BYTES => (1, &first[PART_BYTES..], &first[..PART_BYTES]),
            [VERSION, number, rest @ ..] if rest.len() >= PART_BYTES => {
                let (seed, key) = rest.split_at(PART_BYTES);
                (*number, seed, key)
            }
            _ => return Err("they are of a version that is not known".to_owned()),
        };
        let seed = <[u8; PART_BYTES]>::try_from(seed).map_err(|_| "the seed has another length".to_owned())?;
        let key = ComputationKey::from_bytes(number, key)?;
        Ok(Self { key, seed: Secret::new(seed) })
    }

    /// What may be known of the keys: the seed, which has no public half, and the key if there is one.
    #[must_use]
    pub fn entries(&self) -> Vec<KeyEntry> {
        let mut entries = vec![KeyEntry::seed()];
        match &self.key {
            ComputationKey::None => {}
            ComputationKey::ElGamal(share) => entries.push(KeyEntry::of("elgamal", share.public().as_bytes())),
            ComputationKey::Hpke(keyset) => entries.push(KeyEntry::of("hpke", &keyset.public().to_bytes())),
        }
        entries
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

#[cfg(test)]
mod tests {
    use super::*;
    use rand_core::Rng;

    fn same(one: &ComputationSecrets, other: &ComputationSecrets) -> bool {
        one.to_bytes() == other.to_bytes()
    }

    #[test]
    fn every_kind_of_key_survives_and_so_do_secrets_of_the_first_version() {
        let mut rng = ChaCha20Rng::from_seed([3; 32]);
        for (kind, entries) in [(KeyKind::None, 1), (KeyKind::ElGamal, 2), (KeyKind::Hpke, 2)] {
            let secrets = ComputationSecrets::draw(kind, &mut rng);
            let again = ComputationSecrets::from_bytes(&secrets.to_bytes()).unwrap();
            assert!(same(&secrets, &again));
            assert_eq!((again.entries(), again.entries().len()), (secrets.entries(), entries));
        }
        let secrets = ComputationSecrets::draw(KeyKind::ElGamal, &mut rng);
        let first = [secrets.key.to_bytes().as_slice(), secrets.seed.expose()].concat();
        assert!(same(&ComputationSecrets::from_bytes(&first).unwrap(), &secrets));
        for bad in [&first[1..], &[VERSION, 9], &[VERSION; 50], &[]] {
            assert!(ComputationSecrets::from_bytes(bad).is_err());
        }
    }

    #[test]
    fn randomness_repeats_for_one_purpose_and_input_only() {
        let secrets = ComputationSecrets::draw(KeyKind::None, &mut ChaCha20Rng::from_seed([2; 32]));
        let first = secrets.randomness("proof", b"input").next_u64();
        assert_eq!(secrets.randomness("proof", b"input").next_u64(), first);
        assert_ne!(secrets.randomness("proof", b"other").next_u64(), first);
        assert_ne!(secrets.randomness("result", b"input").next_u64(), first);
    }

    #[test]
    fn the_first_key_seals_and_the_others_open() {
        let (one, two) = ("11".repeat(32), "22".repeat(32));
        let before = keyring("file", &one).unwrap();
        let after = keyring("file", &format!("{two}\n{one}\n")).unwrap();
        let mut rng = ChaCha20Rng::from_seed([5; 32]);
        let sealed = before.seal(b"x", b"", &mut rng).unwrap();
        assert_eq!(after.open(&sealed, b"").unwrap().expose(), b"x");
        assert!(!after.is_current(&sealed));
        assert!(matches!(keyring("file", " \n"), Err(SecretError::NoKey)));
        let error = keyring("kek.hex", &format!("{one} 22")).unwrap_err().to_string();
        assert!(error.contains("kek.hex holds no key-encryption key"), "{error}");
    }
}
