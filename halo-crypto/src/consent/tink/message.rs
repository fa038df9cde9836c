//! Tink's protobuf messages, as far as the two templates need them.

use prost::Message;
use zeroize::Zeroize;

use super::super::Error;

pub(crate) const HPKE_PRIVATE: &str = "type.googleapis.com/google.crypto.tink.HpkePrivateKey";
pub(crate) const HPKE_PUBLIC: &str = "type.googleapis.com/google.crypto.tink.HpkePublicKey";
pub(crate) const ECIES_PRIVATE: &str = "type.googleapis.com/google.crypto.tink.EciesAeadHkdfPrivateKey";
pub(crate) const ECIES_PUBLIC: &str = "type.googleapis.com/google.crypto.tink.EciesAeadHkdfPublicKey";
pub(crate) const AES_GCM: &str = "type.googleapis.com/google.crypto.tink.AesGcmKey";

/// `KeyMaterialType.ASYMMETRIC_PRIVATE`.
pub(crate) const PRIVATE: i32 = 2;
/// `KeyMaterialType.ASYMMETRIC_PUBLIC`.
pub(crate) const PUBLIC: i32 = 3;
/// A foreign keyset with more keys is refused: to look for ids that occur twice takes the square of their number.
const MAX_KEYS: usize = 1000;
/// `KeyStatusType.ENABLED`.
pub(crate) const ENABLED: i32 = 1;
/// `OutputPrefixType.TINK`.
pub(crate) const TINK: i32 = 1;
/// `OutputPrefixType.RAW`.
pub(crate) const RAW: i32 = 3;
/// `KeyMaterialType.SYMMETRIC`.
pub(crate) const SYMMETRIC: i32 = 1;
pub(crate) const STREAMING: &str = "type.googleapis.com/google.crypto.tink.AesGcmHkdfStreamingKey";

/// X25519 (1), HKDF-SHA-256 (1), AES-256-GCM (2).
pub(crate) const HPKE_PARAMS: HpkeParams = HpkeParams { kem: 1, kdf: 1, aead: 2 };

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Keyset {
    #[prost(uint32, tag = "1")]
    pub(crate) primary_key_id: u32,
    #[prost(message, repeated, tag = "2")]
    pub(crate) key: Vec<Key>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Key {
    #[prost(message, optional, tag = "1")]
    pub(crate) key_data: Option<KeyData>,
    #[prost(int32, tag = "2")]
    pub(crate) status: i32,
    #[prost(uint32, tag = "3")]
    pub(crate) key_id: u32,
    #[prost(int32, tag = "4")]
    pub(crate) output_prefix_type: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct KeyData {
    #[prost(string, tag = "1")]
    pub(crate) type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) value: Vec<u8>,
    #[prost(int32, tag = "3")]
    pub(crate) key_material_type: i32,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(crate) struct HpkeParams {
    #[prost(int32, tag = "1")]
    pub(crate) kem: i32,
    #[prost(int32, tag = "2")]
    pub(crate) kdf: i32,
    #[prost(int32, tag = "3")]
    pub(crate) aead: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct HpkePublicKey {
    #[prost(uint32, tag = "1")]
    pub(crate) version: u32,
    #[prost(message, optional, tag = "2")]
    pub(crate) params: Option<HpkeParams>,
    #[prost(bytes = "vec", tag = "3")]
    pub(crate) public_key: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct HpkePrivateKey {
    #[prost(uint32, tag = "1")]
    pub(crate) version: u32,
    #[prost(message, optional, tag = "2")]
    pub(crate) public_key: Option<HpkePublicKey>,
    #[prost(bytes = "vec", tag = "3")]
    pub(crate) private_key: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct EciesHkdfKemParams {
    #[prost(int32, tag = "1")]
    pub(crate) curve_type: i32,
    #[prost(int32, tag = "2")]
    pub(crate) hkdf_hash_type: i32,
    #[prost(bytes = "vec", tag = "11")]
    pub(crate) hkdf_salt: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct KeyTemplate {
    #[prost(string, tag = "1")]
    pub(crate) type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) value: Vec<u8>,
    #[prost(int32, tag = "3")]
    pub(crate) output_prefix_type: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct AesGcmKeyFormat {
    #[prost(uint32, tag = "2")]
    pub(crate) key_size: u32,
    #[prost(uint32, tag = "3")]
    pub(crate) version: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct EciesAeadDemParams {
    #[prost(message, optional, tag = "2")]
    pub(crate) aead_dem: Option<KeyTemplate>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct EciesAeadHkdfParams {
    #[prost(message, optional, tag = "1")]
    pub(crate) kem_params: Option<EciesHkdfKemParams>,
    #[prost(message, optional, tag = "2")]
    pub(crate) dem_params: Option<EciesAeadDemParams>,
    #[prost(int32, tag = "3")]
    pub(crate) ec_point_format: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct EciesAeadHkdfPublicKey {
    #[prost(uint32, tag = "1")]
    pub(crate) version: u32,
    #[prost(message, optional, tag = "2")]
    pub(crate) params: Option<EciesAeadHkdfParams>,
    #[prost(bytes = "vec", tag = "3")]
    pub(crate) x: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    pub(crate) y: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct EciesAeadHkdfPrivateKey {
    #[prost(uint32, tag = "1")]
    pub(crate) version: u32,
    #[prost(message, optional, tag = "2")]
    pub(crate) public_key: Option<EciesAeadHkdfPublicKey>,
    #[prost(bytes = "vec", tag = "3")]
    pub(crate) key_value: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(crate) struct StreamingParams {
    #[prost(uint32, tag = "1")]
    pub(crate) ciphertext_segment_size: u32,
    #[prost(uint32, tag = "2")]
    pub(crate) derived_key_size: u32,
    #[prost(int32, tag = "3")]
    pub(crate) hkdf_hash_type: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct StreamingKey {
    #[prost(uint32, tag = "1")]
    pub(crate) version: u32,
    #[prost(message, optional, tag = "2")]
    pub(crate) params: Option<StreamingParams>,
    #[prost(bytes = "vec", tag = "3")]
    pub(crate) key_value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct AesGcmKey {
    #[prost(uint32, tag = "1")]
    pub(crate) version: u32,
    #[prost(bytes = "vec", tag = "3")]
    pub(crate) key_value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct EncryptedKeyset {
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) encrypted_keyset: Vec<u8>,
    #[prost(message, optional, tag = "3")]
    pub(crate) keyset_info: Option<KeysetInfo>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct KeysetInfo {
    #[prost(uint32, tag = "1")]
    pub(crate) primary_key_id: u32,
    #[prost(message, repeated, tag = "2")]
    pub(crate) key_info: Vec<KeyInfo>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct KeyInfo {
    #[prost(string, tag = "1")]
    pub(crate) type_url: String,
    #[prost(int32, tag = "2")]
    pub(crate) status: i32,
    #[prost(uint32, tag = "3")]
    pub(crate) key_id: u32,
    #[prost(int32, tag = "4")]
    pub(crate) output_prefix_type: i32,
}

impl HpkePrivateKey {
    /// Serializes, and wipes the message.
    pub(crate) fn into_wiped_bytes(mut self) -> Vec<u8> {
        let bytes = self.encode_to_vec();
        self.private_key.zeroize();
        bytes
    }
}

impl EciesAeadHkdfPrivateKey {
    /// Serializes, and wipes the message.
    pub(crate) fn into_wiped_bytes(mut self) -> Vec<u8> {
        let bytes = self.encode_to_vec();
        self.key_value.zeroize();
        bytes
    }
}

/// An HPKE public key of the one template that is spoken.
pub(crate) const fn hpke_public_key(public_key: Vec<u8>) -> HpkePublicKey {
    HpkePublicKey { version: 0, params: Some(HPKE_PARAMS), public_key }
}

/// An enabled key of a keyset.
pub(crate) struct EnabledKey<'a> {
    pub(crate) id: u32,
    pub(crate) type_url: &'a str,
    pub(crate) value: &'a [u8],
}

impl Keyset {
    /// Parses and checks what does not depend on the kind of key; ciphertexts have Tink's prefix.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, Error> {
        Self::read_with_prefix(bytes, TINK)
    }

    /// The same for keys whose ciphertexts have the given output prefix.
    pub(crate) fn read_with_prefix(bytes: &[u8], prefix: i32) -> Result<Self, Error> {
        let mut keyset = Self::decode(bytes).map_err(|_| Error::MalformedKeyset { reason: "it cannot be parsed" })?;
        let flaw = keyset.flaw(prefix);
        if let Some(error) = flaw {
            keyset.wipe();
            return Err(error);
        }
        Ok(keyset)
    }

    fn flaw(&self, prefix: i32) -> Option<Error> {
        if self.key.len() > MAX_KEYS {
            return Some(Error::MalformedKeyset { reason: "it has more than 1000 keys" });
        }
        if !self.enabled().any(|key| key.id == self.primary_key_id) {
            return Some(Error::MalformedKeyset { reason: "its primary key is missing or disabled" });
        }
        for (position, key) in self.key.iter().enumerate() {
            if self.key[..position].iter().any(|other| other.key_id == key.key_id) {
                return Some(Error::MalformedKeyset { reason: "two keys have the same id" });
            }
            if key.status == ENABLED && key.output_prefix_type != prefix {
                let template = format!("a key with output prefix type {}", key.output_prefix_type);
                return Some(Error::UnsupportedKey { key_id: key.key_id, template });
            }
        }
        None
    }

    pub(crate) fn of_one(id: u32, type_url: &str, value: Vec<u8>, key_material_type: i32) -> Self {
        let key_data = KeyData { type_url: type_url.to_owned(), value, key_material_type };
        Self {
            primary_key_id: id,
            key: vec![Key { key_data: Some(key_data), status: ENABLED, key_id: id, output_prefix_type: TINK }],
        }
    }

    /// The keys that may be used.
    pub(crate) fn enabled(&self) -> impl Iterator<Item = EnabledKey<'_>> {
        self.key.iter().filter(|key| key.status == ENABLED).filter_map(|key| {
            let data = key.key_data.as_ref()?;
            Some(EnabledKey { id: key.key_id, type_url: &data.type_url, value: &data.value })
        })
    }

    /// Wipes the serialized keys.
    pub(crate) fn wipe(&mut self) {
        for data in self.key.iter_mut().filter_map(|key| key.key_data.as_mut()) {
            data.value.zeroize();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keysets_that_contradict_themselves_are_refused() {
        let with = |ids: &mut dyn Iterator<Item = u32>| {
            let mut keyset = Keyset::of_one(1, HPKE_PUBLIC, Vec::new(), PUBLIC);
            let key = keyset.key.remove(0);
            keyset.key = ids.map(|key_id| Key { key_id, ..key.clone() }).collect();
            Keyset::read(&keyset.encode_to_vec()).map(drop).map_err(|error| error.to_string())
        };
        assert_eq!(with(&mut (1..=1000)), Ok(()));
        assert!(with(&mut (1..=1001)).unwrap_err().contains("1000 keys"));
        assert!(with(&mut [1, 2, 1].into_iter()).unwrap_err().contains("same id"));
        assert!(with(&mut [2, 3].into_iter()).unwrap_err().contains("primary key"));
    }
}
