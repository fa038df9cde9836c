//! Hybrid encryption keys, as Duchies publish them: each says for which session it was drawn, and is signed with that.

use halo_core::pb::api::{EncryptionPublicKey, encryption_public_key};
use halo_crypto::consent::tink::PublicKeyset;
use prost::Message;

use crate::server::secrets::{ComputationKey, ComputationSecrets};

/// The serialized `EncryptionPublicKey` of the own key, for one session; empty where none was drawn.
pub(super) fn public_key(session: &[u8; 32], secrets: &ComputationSecrets) -> Vec<u8> {
    let ComputationKey::Hpke(keyset) = &secrets.key else { return Vec::new() };
    let mut key =
        EncryptionPublicKey { data: keyset.public().to_bytes(), session: session.to_vec(), ..Default::default() };
    key.set_format(encryption_public_key::Format::TinkKeyset);
    key.encode_to_vec()
}

/// Checks that a key can be encrypted to and was drawn for this session: a Duchy that was shown another protocol
/// configuration, or other Duchies, has signed another one.
pub(super) fn check(session: &[u8; 32], key: &[u8]) -> Result<(), String> {
    let key = EncryptionPublicKey::decode(key).map_err(|error| format!("key: {error}"))?;
    if key.format() != encryption_public_key::Format::TinkKeyset {
        return Err("key: its format is not TINK_KEYSET".to_owned());
    }
    if key.session != session {
        return Err("key: it was drawn for another session, so that its Duchy was shown another computation".to_owned());
    }
    PublicKeyset::from_bytes(&key.data).map(drop).map_err(|error| format!("key: {error}"))
}
