//! Several key-encryption keys: the newest seals, all open.

use std::sync::Arc;

use rand_core::CryptoRng;

use super::{Error, KeyEncryptionKey};
use crate::secret::Secret;

/// First byte of what a keyring seals; what a [`super::LocalKey`] seals begins with 1.
const VERSION: u8 = 2;

/// The key-encryption keys of a party. It seals under the first one and opens what any of them has sealed; to rotate, put
/// a new key in front and seal again whatever [`Keyring::is_current`] says no to.
///
/// A sealed value is `2 ‖ length of the key's id (1 byte) ‖ id ‖ what the key has sealed`. Values that a key has sealed
/// without a keyring open too.
#[derive(Clone, Debug)]
pub struct Keyring {
    newest: Arc<dyn KeyEncryptionKey>,
    former: Vec<Arc<dyn KeyEncryptionKey>>,
}

impl Keyring {
    /// A keyring of the key that seals, and others that only open.
    #[must_use]
    pub const fn new(newest: Arc<dyn KeyEncryptionKey>, former: Vec<Arc<dyn KeyEncryptionKey>>) -> Self {
        Self { newest, former }
    }

    /// Whether a value was sealed under the newest key.
    #[must_use]
    pub fn is_current(&self, sealed: &[u8]) -> bool {
        split(sealed).is_some_and(|(id, _)| id == self.newest.id().as_bytes())
    }

    fn keys(&self) -> impl Iterator<Item = &Arc<dyn KeyEncryptionKey>> {
        std::iter::once(&self.newest).chain(&self.former)
    }
}

impl KeyEncryptionKey for Keyring {
    /// That of the newest key.
    fn id(&self) -> &str {
        self.newest.id()
    }

    fn seal(&self, plaintext: &[u8], associated_data: &[u8], rng: &mut dyn CryptoRng) -> Result<Vec<u8>, Error> {
        let id = self.newest.id().as_bytes();
        let length = u8::try_from(id.len()).map_err(|_| Error::Unavailable {
            id: self.newest.id().to_owned(),
            reason: "its id is longer than 255 bytes".to_owned(),
        })?;
        let sealed = self.newest.seal(plaintext, associated_data, rng)?;
        Ok([&[VERSION, length], id, &sealed].concat())
    }

    fn open(&self, sealed: &[u8], associated_data: &[u8]) -> Result<Secret<Vec<u8>>, Error> {
        let Some((id, inner)) = split(sealed) else {
            // Sealed before there were keyrings, so it does not say under which key.
            let mut outcome = Err(Error::DoesNotOpen);
            for key in self.keys() {
                outcome = key.open(sealed, associated_data);
                if outcome != Err(Error::DoesNotOpen) {
                    break;
                }
            }
            return outcome;
        };
        let key = self.keys().find(|key| key.id().as_bytes() == id).ok_or_else(|| Error::Unavailable {
            id: String::from_utf8_lossy(id).into_owned(),
            reason: "it is not among the keys that were given".to_owned(),
        })?;
        key.open(inner, associated_data)
    }
}

/// Id of the key and what it has sealed, of a value that a keyring has sealed.
fn split(sealed: &[u8]) -> Option<(&[u8], &[u8])> {
    let [VERSION, length, rest @ ..] = sealed else { return None };
    rest.split_at_checked(usize::from(*length))
}

#[cfg(test)]
mod tests {
    use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

    use super::super::LocalKey;
    use super::*;

    fn key(byte: u8) -> Arc<dyn KeyEncryptionKey> {
        Arc::new(LocalKey::from_bytes(Secret::new([byte; 32])))
    }

    #[test]
    fn the_newest_seals_and_all_open() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let before = Keyring::new(key(1), Vec::new());
        let sealed = before.seal(b"secret", b"place", &mut rng).unwrap();
        let bare = key(1).seal(b"secret", b"place", &mut rng).unwrap();
        let after = Keyring::new(key(2), vec![key(1)]);
        for old in [&sealed, &bare] {
            assert_eq!(after.open(old, b"place").unwrap().expose(), b"secret");
            assert!(after.open(old, b"elsewhere").is_err() && !after.is_current(old));
        }
        let again = after.seal(b"secret", b"place", &mut rng).unwrap();
        assert!(after.is_current(&again) && before.is_current(&sealed) && !before.is_current(&bare));
        let only = Keyring::new(key(2), Vec::new());
        assert_eq!(only.open(&again, b"place").unwrap().expose(), b"secret");
        let error = only.open(&sealed, b"place").unwrap_err();
        assert!(error.to_string().contains("not among the keys"), "{error}");
        assert_eq!(only.open(&bare, b"place"), Err(Error::DoesNotOpen));
        for garbage in [&[][..], &[2], &[2, 9, 1], &[3; 40]] {
            assert!(after.open(garbage, b"place").is_err());
        }
    }
}
