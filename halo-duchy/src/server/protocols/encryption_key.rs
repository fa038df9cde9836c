//! Hybrid encryption keys, as Duchies publish them.

use halo_core::pb::api::{EncryptionPublicKey, encryption_public_key};
use halo_crypto::consent::tink::PublicKeyset;
use prost::Message;

use crate::server::secrets::{ComputationKey, ComputationSecrets};

/// The serialized `EncryptionPublicKey` of the own key; empty where none was drawn.
pub(super) fn public_key(secrets: &ComputationSecrets) -> Vec<u8> {
    let ComputationKey::Hpke(keyset) = &secrets.key else { return Vec::new() };
    let mut key = EncryptionPublicKey { data: keyset.public().to_bytes(), ..Default::default() };
    key.set_format(encryption_public_key::Format::TinkKeyset);
    key.encode_to_vec()
}

/// Checks that a key is one that can be encrypted to.
pub(super) fn check(key: &[u8]) -> Result<(), String> {
    let key = EncryptionPublicKey::decode(key).map_err(|error| format!("key: {error}"))?;
    if key.format() != encryption_public_key::Format::TinkKeyset {
        return Err("key: its format is not TINK_KEYSET".to_owned());
    }
    PublicKeyset::from_bytes(&key.data).map(drop).map_err(|error| format!("key: {error}"))
}
