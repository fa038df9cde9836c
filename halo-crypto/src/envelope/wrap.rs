//! Key-encryption keys in Tink's wire form.

use std::fmt;

use aes_gcm::aead::{Aead, Payload};
use aes_gcm::{Aes256Gcm, KeyInit};
use prost::Message;
use rand_core::CryptoRng;
use zeroize::{Zeroize, Zeroizing};

use super::Error;
use super::key::{KEY_BYTES, draw_id};
use crate::consent;
use crate::consent::tink::message::{AES_GCM, AesGcmKey, Keyset, SYMMETRIC};
use crate::consent::tink::{PrivateKeyset, PublicKeyset};
use crate::seal::{self, KeyEncryptionKey};
use crate::secret::Secret;

/// Version byte, key id, nonce.
const PREFIX_BYTES: usize = 5;
const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;

/// A key of Tink's AEAD template `AES256_GCM` in this process's memory: what a key management service would keep.
pub struct TinkAead {
    uri: String,
    id: u32,
    key: Secret<[u8; KEY_BYTES]>,
}

impl fmt::Debug for TinkAead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TinkAead").field("uri", &self.uri).field("key_id", &self.id).finish_non_exhaustive()
    }
}

impl TinkAead {
    /// Draws a key; `uri` is the name under which it is known.
    pub fn generate(uri: String, rng: &mut impl CryptoRng) -> Self {
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        rng.fill_bytes(&mut *key);
        Self { uri, id: draw_id(rng), key: Secret::new(*key) }
    }

    /// Reads a cleartext serialized `tink.Keyset` of exactly one key.
    ///
    /// # Errors
    /// [`Error::Keyset`] when it is malformed, has more than one key, or one of another template or output prefix.
    pub fn from_keyset(uri: String, bytes: &Secret<Vec<u8>>) -> Result<Self, Error> {
        let mut keyset = Keyset::read(bytes.expose())?;
        let read = read_one(&keyset);
        keyset.wipe();
        let (id, key) = read?;
        Ok(Self { uri, id, key })
    }

    /// The serialized `tink.Keyset`, in the clear: for sealed storage.
    #[must_use]
    pub fn to_keyset(&self) -> Secret<Vec<u8>> {
        let mut key = AesGcmKey { version: 0, key_value: self.key.expose().to_vec() };
        let mut keyset = Keyset::of_one(self.id, AES_GCM, key.encode_to_vec(), SYMMETRIC);
        key.key_value.zeroize();
        let bytes = Secret::new(keyset.encode_to_vec());
        keyset.wipe();
        bytes
    }

    fn cipher(&self) -> Aes256Gcm {
        Aes256Gcm::new(self.key.expose().into())
    }

    fn prefix(&self) -> [u8; PREFIX_BYTES] {
        let [a, b, c, d] = self.id.to_be_bytes();
        [1, a, b, c, d]
    }
}

fn read_one(keyset: &Keyset) -> Result<(u32, Secret<[u8; KEY_BYTES]>), Error> {
    let malformed = |reason| Error::from(consent::Error::MalformedKeyset { reason });
    let mut keys = keyset.enabled();
    let (Some(key), None) = (keys.next(), keys.next()) else {
        return Err(malformed("a key-encryption key is one key, not several"));
    };
    if key.type_url != AES_GCM {
        return Err(consent::Error::UnsupportedKey { key_id: key.id, template: key.type_url.to_owned() }.into());
    }
    let mut message = AesGcmKey::decode(key.value).map_err(|_| malformed("an AES-GCM key cannot be parsed"))?;
    let bytes = <[u8; KEY_BYTES]>::try_from(message.key_value.as_slice()).map(Secret::new);
    message.key_value.zeroize();
    match (message.version, bytes) {
        (0, Ok(bytes)) => Ok((key.id, bytes)),
        _ => Err(malformed("an AES-GCM key has another version or length than AES256_GCM's")),
    }
}

impl KeyEncryptionKey for TinkAead {
    fn id(&self) -> &str {
        &self.uri
    }

    fn seal(&self, plaintext: &[u8], associated_data: &[u8], rng: &mut dyn CryptoRng) -> Result<Vec<u8>, seal::Error> {
        let mut nonce = [0; NONCE_BYTES];
        rng.fill_bytes(&mut nonce);
        let ciphertext = self
            .cipher()
            .encrypt(&nonce.into(), Payload { msg: plaintext, aad: associated_data })
            .expect("a plaintext in memory is shorter than the 64 GiB that AES-GCM can seal");
        Ok([self.prefix().as_slice(), &nonce, &ciphertext].concat())
    }

    fn open(&self, sealed: &[u8], associated_data: &[u8]) -> Result<Secret<Vec<u8>>, seal::Error> {
        let truncated = seal::Error::Truncated { bytes: sealed.len() };
        if sealed.len() < PREFIX_BYTES + NONCE_BYTES + TAG_BYTES {
            return Err(truncated);
        }
        let (prefix, rest) = sealed.split_at(PREFIX_BYTES);
        if prefix != self.prefix() {
            return Err(seal::Error::DoesNotOpen);
        }
        let (nonce, ciphertext) = rest.split_first_chunk::<NONCE_BYTES>().ok_or(truncated)?;
        self.cipher()
            .decrypt(&(*nonce).into(), Payload { msg: ciphertext, aad: associated_data })
            .map(Secret::new)
            .map_err(|_| seal::Error::DoesNotOpen)
    }
}

/// The public key of whoever may open, as a key-encryption key: everybody can wrap, only the private half unwraps.
#[derive(Debug)]
pub struct HybridKey {
    uri: String,
    public: PublicKeyset,
    private: Option<PrivateKeyset>,
}

impl HybridKey {
    /// To wrap only.
    #[must_use]
    pub const fn public(uri: String, public: PublicKeyset) -> Self {
        Self { uri, public, private: None }
    }

    /// To wrap and to unwrap.
    #[must_use]
    pub fn private(uri: String, private: PrivateKeyset) -> Self {
        Self { uri, public: private.public(), private: Some(private) }
    }

    fn unavailable(&self, reason: &impl ToString) -> seal::Error {
        seal::Error::Unavailable { id: self.uri.clone(), reason: reason.to_string() }
    }
}

impl KeyEncryptionKey for HybridKey {
    fn id(&self) -> &str {
        &self.uri
    }

    fn seal(
        &self,
        plaintext: &[u8],
        associated_data: &[u8],
        mut rng: &mut dyn CryptoRng,
    ) -> Result<Vec<u8>, seal::Error> {
        self.public.encrypt(plaintext, associated_data, &mut rng).map_err(|error| self.unavailable(&error))
    }

    fn open(&self, sealed: &[u8], associated_data: &[u8]) -> Result<Secret<Vec<u8>>, seal::Error> {
        let private = self.private.as_ref().ok_or_else(|| self.unavailable(&"only its public half is here"))?;
        private.decrypt(sealed, associated_data).map_err(|_| seal::Error::DoesNotOpen)
    }
}
