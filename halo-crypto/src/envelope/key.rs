//! Data encryption keys: Tink keysets of streaming keys.

use std::fmt;

use prost::Message;
use rand_core::CryptoRng;
use zeroize::Zeroize;

use super::Error;
use crate::consent;
use crate::consent::tink::message::{
    ENABLED, EncryptedKeyset, KeyInfo, Keyset, KeysetInfo, RAW, STREAMING, SYMMETRIC, StreamingKey, StreamingParams,
};
use crate::seal::KeyEncryptionKey;
use crate::secret::Secret;

/// Bytes of a key, and of what is derived from it for one ciphertext.
pub(super) const KEY_BYTES: usize = 32;

/// Segments of 1 MiB, keys of 32 bytes, HKDF-SHA-256 (Tink's number 3).
const PARAMS: StreamingParams = StreamingParams {
    ciphertext_segment_size: super::SEGMENT_BYTES as u32,
    derived_key_size: KEY_BYTES as u32,
    hkdf_hash_type: 3,
};

/// A data encryption key: a Tink keyset of template `AES256_GCM_HKDF_1MB`. Wiped when dropped; prints its id only.
pub struct DataKey {
    /// The serialized keyset.
    keyset: Secret<Vec<u8>>,
    primary: u32,
    /// Key id and key; the primary one first.
    pub(super) keys: Vec<(u32, Secret<[u8; KEY_BYTES]>)>,
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataKey").field("primary_key_id", &self.primary).finish_non_exhaustive()
    }
}

impl DataKey {
    /// Draws a key.
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        let mut value = vec![0; KEY_BYTES];
        rng.fill_bytes(&mut value);
        let mut key = StreamingKey { version: 0, params: Some(PARAMS), key_value: value };
        let mut keyset = Keyset::of_one(draw_id(rng), STREAMING, key.encode_to_vec(), SYMMETRIC);
        key.key_value.zeroize();
        keyset.key.iter_mut().for_each(|key| key.output_prefix_type = RAW);
        let bytes = Secret::new(keyset.encode_to_vec());
        keyset.wipe();
        Self::from_keyset(bytes).expect("a keyset that was just made can be read")
    }

    /// Reads a cleartext serialized `tink.Keyset`.
    ///
    /// # Errors
    /// [`Error::Keyset`] when it is malformed, or has a key of another template or output prefix.
    pub fn from_keyset(bytes: Secret<Vec<u8>>) -> Result<Self, Error> {
        let mut keyset = Keyset::read_with_prefix(bytes.expose(), RAW)?;
        let keys: Result<Vec<_>, Error> =
            keyset.enabled().map(|key| Ok((key.id, read(key.id, key.type_url, key.value)?))).collect();
        let primary = keyset.primary_key_id;
        keyset.wipe();
        let mut keys = keys?;
        keys.sort_by_key(|(id, _)| *id != primary);
        Ok(Self { keyset: bytes, primary, keys })
    }

    /// Wraps the key: a serialized `tink.EncryptedKeyset`.
    ///
    /// # Errors
    /// [`Error::Wrap`] when a key management service cannot be asked or refuses.
    pub fn wrap(
        &self,
        kek: &dyn KeyEncryptionKey,
        associated_data: &[u8],
        rng: &mut dyn CryptoRng,
    ) -> Result<Vec<u8>, Error> {
        let encrypted_keyset = kek.seal(self.keyset.expose(), associated_data, rng)?;
        let info = |(key_id, _): &(u32, _)| KeyInfo {
            type_url: STREAMING.to_owned(),
            status: ENABLED,
            key_id: *key_id,
            output_prefix_type: RAW,
        };
        let keyset_info =
            Some(KeysetInfo { primary_key_id: self.primary, key_info: self.keys.iter().map(info).collect() });
        Ok(EncryptedKeyset { encrypted_keyset, keyset_info }.encode_to_vec())
    }

    /// Unwraps a key: a serialized `tink.EncryptedKeyset`.
    ///
    /// # Errors
    /// [`Error::Keyset`] when there is none, or it is of another template; [`Error::Wrap`] when it does not open.
    pub fn unwrap(kek: &dyn KeyEncryptionKey, wrapped: &[u8], associated_data: &[u8]) -> Result<Self, Error> {
        let encrypted = read_wrapped(wrapped)?;
        Self::from_keyset(kek.open(&encrypted.encrypted_keyset, associated_data)?)
    }

    /// Checks that bytes are a wrapped key, without opening it: a keyset that is there, and says the right template.
    ///
    /// # Errors
    /// [`Error::Keyset`].
    pub fn check_wrapped(wrapped: &[u8]) -> Result<(), Error> {
        read_wrapped(wrapped).map(drop)
    }
}

fn read_wrapped(wrapped: &[u8]) -> Result<EncryptedKeyset, Error> {
    let refuse = |reason| Err(consent::Error::MalformedKeyset { reason }.into());
    let Ok(encrypted) = EncryptedKeyset::decode(wrapped) else { return refuse("it is no encrypted keyset") };
    if encrypted.encrypted_keyset.is_empty() {
        return refuse("it is no encrypted keyset, or an empty one");
    }
    // Who writes it need not say what is in it; but if it says so, it must be right.
    let says = encrypted.keyset_info.iter().flat_map(|info| &info.key_info).find(|key| key.type_url != STREAMING);
    if let Some(key) = says {
        let (key_id, template) = (key.key_id, key.type_url.clone());
        return Err(consent::Error::UnsupportedKey { key_id, template }.into());
    }
    Ok(encrypted)
}

/// A random key id that is not 0.
pub(super) fn draw_id(rng: &mut impl CryptoRng) -> u32 {
    loop {
        let id = rng.next_u32();
        if id != 0 {
            return id;
        }
    }
}

fn read(id: u32, type_url: &str, value: &[u8]) -> Result<Secret<[u8; KEY_BYTES]>, Error> {
    let other = |template: String| Err(consent::Error::UnsupportedKey { key_id: id, template }.into());
    if type_url != STREAMING {
        return other(type_url.to_owned());
    }
    let Ok(mut key) = StreamingKey::decode(value) else {
        return Err(consent::Error::MalformedKeyset { reason: "a streaming key cannot be parsed" }.into());
    };
    let bytes = <[u8; KEY_BYTES]>::try_from(key.key_value.as_slice()).map(Secret::new);
    key.key_value.zeroize();
    match key.params {
        Some(PARAMS) if key.version == 0 => {}
        params => return other(format!("a streaming key of version {} with {params:?}", key.version)),
    }
    bytes.map_err(|_| consent::Error::MalformedKeyset { reason: "a streaming key has no 32 bytes" }.into())
}
