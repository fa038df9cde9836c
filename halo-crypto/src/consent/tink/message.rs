//! Tink's protobuf messages, as far as the two templates need them.

use prost::Message;
use zeroize::Zeroize;

use super::super::Error;

pub(super) const HPKE_PRIVATE: &str = "type.googleapis.com/google.crypto.tink.HpkePrivateKey";
pub(super) const HPKE_PUBLIC: &str = "type.googleapis.com/google.crypto.tink.HpkePublicKey";
pub(super) const ECIES_PRIVATE: &str = "type.googleapis.com/google.crypto.tink.EciesAeadHkdfPrivateKey";
pub(super) const ECIES_PUBLIC: &str = "type.googleapis.com/google.crypto.tink.EciesAeadHkdfPublicKey";
pub(super) const AES_GCM: &str = "type.googleapis.com/google.crypto.tink.AesGcmKey";

/// `KeyMaterialType.ASYMMETRIC_PRIVATE`.
pub(super) const PRIVATE: i32 = 2;
/// `KeyMaterialType.ASYMMETRIC_PUBLIC`.
pub(super) const PUBLIC: i32 = 3;
/// A foreign keyset with more keys is refused: to look for ids that occur twice takes the square of their number.
const MAX_KEYS: usize = 1000;
/// `KeyStatusType.ENABLED`.
const ENABLED: i32 = 1;
/// `OutputPrefixType.TINK`.
pub(super) const TINK: i32 = 1;

/// X25519 (1), HKDF-SHA-256 (1), AES-256-GCM (2).
pub(super) const HPKE_PARAMS: HpkeParams = HpkeParams { kem: 1, kdf: 1, aead: 2 };

#[derive(Clone, PartialEq, Message)]
pub(super) struct Keyset {
    #[prost(uint32, tag = "1")]
    pub(super) primary_key_id: u32,
    #[prost(message, repeated, tag = "2")]
    pub(super) key: Vec<Key>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Key {
    #[prost(message, optional, tag = "1")]
    pub(super) key_data: Option<KeyData>,
    #[prost(int32, tag = "2")]
    pub(super) status: i32,
    #[prost(uint32, tag = "3")]
    pub(super) key_id: u32,
    #[prost(int32, tag = "4")]
    pub(super) output_prefix_type: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct KeyData {
    #[prost(string, tag = "1")]
    pub(super) type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) value: Vec<u8>,
    #[prost(int32, tag = "3")]
    pub(super) key_material_type: i32,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(super) struct HpkeParams {
    #[prost(int32, tag = "1")]
    pub(super) kem: i32,
    #[prost(int32, tag = "2")]
    pub(super) kdf: i32,
    #[prost(int32, tag = "3")]
    pub(super) aead: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct HpkePublicKey {
    #[prost(uint32, tag = "1")]
    pub(super) version: u32,
    #[prost(message, optional, tag = "2")]
    pub(super) params: Option<HpkeParams>,
    #[prost(bytes = "vec", tag = "3")]
    pub(super) public_key: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct HpkePrivateKey {
    #[prost(uint32, tag = "1")]
    pub(super) version: u32,
    #[prost(message, optional, tag = "2")]
    pub(super) public_key: Option<HpkePublicKey>,
    #[prost(bytes = "vec", tag = "3")]
    pub(super) private_key: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct EciesHkdfKemParams {
    #[prost(int32, tag = "1")]
    pub(super) curve_type: i32,
    #[prost(int32, tag = "2")]
    pub(super) hkdf_hash_type: i32,
    #[prost(bytes = "vec", tag = "11")]
    pub(super) hkdf_salt: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct KeyTemplate {
    #[prost(string, tag = "1")]
    pub(super) type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) value: Vec<u8>,
    #[prost(int32, tag = "3")]
    pub(super) output_prefix_type: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct AesGcmKeyFormat {
    #[prost(uint32, tag = "2")]
    pub(super) key_size: u32,
    #[prost(uint32, tag = "3")]
    pub(super) version: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct EciesAeadDemParams {
    #[prost(message, optional, tag = "2")]
    pub(super) aead_dem: Option<KeyTemplate>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct EciesAeadHkdfParams {
    #[prost(message, optional, tag = "1")]
    pub(super) kem_params: Option<EciesHkdfKemParams>,
    #[prost(message, optional, tag = "2")]
    pub(super) dem_params: Option<EciesAeadDemParams>,
    #[prost(int32, tag = "3")]
    pub(super) ec_point_format: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct EciesAeadHkdfPublicKey {
    #[prost(uint32, tag = "1")]
    pub(super) version: u32,
    #[prost(message, optional, tag = "2")]
    pub(super) params: Option<EciesAeadHkdfParams>,
    #[prost(bytes = "vec", tag = "3")]
    pub(super) x: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    pub(super) y: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct EciesAeadHkdfPrivateKey {
    #[prost(uint32, tag = "1")]
    pub(super) version: u32,
    #[prost(message, optional, tag = "2")]
    pub(super) public_key: Option<EciesAeadHkdfPublicKey>,
    #[prost(bytes = "vec", tag = "3")]
    pub(super) key_value: Vec<u8>,
}

impl HpkePrivateKey {
    /// Serializes, and wipes the message.
    pub(super) fn into_wiped_bytes(mut self) -> Vec<u8> {
        let bytes = self.encode_to_vec();
        self.private_key.zeroize();
        bytes
    }
}

impl EciesAeadHkdfPrivateKey {
    /// Serializes, and wipes the message.
    pub(super) fn into_wiped_bytes(mut self) -> Vec<u8> {
        let bytes = self.encode_to_vec();
        self.key_value.zeroize();
        bytes
    }
}

/// An HPKE public key of the one template that is spoken.
pub(super) const fn hpke_public_key(public_key: Vec<u8>) -> HpkePublicKey {
    HpkePublicKey { version: 0, params: Some(HPKE_PARAMS), public_key }
}

/// An enabled key of a keyset.
pub(super) struct EnabledKey<'a> {
    pub(super) id: u32,
    pub(super) type_url: &'a str,
    pub(super) value: &'a [u8],
}

impl Keyset {
    /// Parses and checks what does not depend on the kind of key.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, Error> {
        let mut keyset = Self::decode(bytes).map_err(|_| Error::MalformedKeyset { reason: "it cannot be parsed" })?;
        let flaw = keyset.flaw();
        if let Some(error) = flaw {
            keyset.wipe();
            return Err(error);
        }
        Ok(keyset)
    }

    fn flaw(&self) -> Option<Error> {
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
            if key.status == ENABLED && key.output_prefix_type != TINK {
                let template = format!("a key with output prefix type {}", key.output_prefix_type);
                return Some(Error::UnsupportedKey { key_id: key.key_id, template });
            }
        }
        None
    }

    pub(super) fn of_one(id: u32, type_url: &str, value: Vec<u8>, key_material_type: i32) -> Self {
        let key_data = KeyData { type_url: type_url.to_owned(), value, key_material_type };
        Self {
            primary_key_id: id,
            key: vec![Key { key_data: Some(key_data), status: ENABLED, key_id: id, output_prefix_type: TINK }],
        }
    }

    /// The keys that may be used.
    pub(super) fn enabled(&self) -> impl Iterator<Item = EnabledKey<'_>> {
        self.key.iter().filter(|key| key.status == ENABLED).filter_map(|key| {
            let data = key.key_data.as_ref()?;
            Some(EnabledKey { id: key.key_id, type_url: &data.type_url, value: &data.value })
        })
    }

    /// Wipes the serialized keys.
    pub(super) fn wipe(&mut self) {
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
