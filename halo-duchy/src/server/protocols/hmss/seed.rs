//! Seeds of publishers: kept encrypted by the worker that has the share, opened by the other one.

use std::str::FromStr;

use halo_core::pb::api::fulfill_requisition_request::header::HonestMajorityShareShuffle;
use halo_core::pb::api::{RandomSeed, SignedMessage};
use halo_core::pb::system;
use halo_core::resource::{CertificateName, CertificateParent, DataProviderName};
use halo_core::wire::{self, type_name};
use halo_crypto::consent::tink::PrivateKeyset;
use halo_crypto::consent::x509::Certificate;
use halo_crypto::share::Seed;
use prost::Message;
use zeroize::{Zeroize, Zeroizing};

/// The longest encrypted seed: a few names and a signature, many times over.
pub(super) const MAX_BYTES: usize = 8 << 10;

/// Checks that a name is that of a certificate of this publisher.
pub(super) fn check_certificate_name(name: &str, publisher: &DataProviderName) -> Result<(), String> {
    let parsed = CertificateName::from_str(name).map_err(|error| format!("data_provider_certificate: {error}"))?;
    if parsed.parent == CertificateParent::DataProvider(publisher.clone()) {
        Ok(())
    } else {
        Err(format!("data_provider_certificate: {name} is no certificate of {publisher}"))
    }
}

/// What the worker that has the share passes on, read.
pub(super) fn read(relayed: &[u8]) -> Result<HonestMajorityShareShuffle, String> {
    if relayed.len() > 2 * MAX_BYTES {
        return Err(format!("a seed of {} bytes is longer than any", relayed.len()));
    }
    HonestMajorityShareShuffle::decode(relayed).map_err(|error| format!("a seed does not decode: {error}"))
}

/// Opens the seed of a requisition: encrypted to this worker, signed by the publisher, for this requisition and the share
/// that the Kingdom knows of. The error says what is wrong with it.
pub(super) fn open(
    keyset: &PrivateKeyset,
    name: &str,
    requisition: &system::Requisition,
    relayed: &[u8],
) -> Result<Seed, String> {
    let header = read(relayed)?;
    if header.data_provider_certificate != requisition.data_provider_certificate {
        return Err(format!(
            "its seed is said to be signed under {} where the Kingdom names {}",
            header.data_provider_certificate, requisition.data_provider_certificate
        ));
    }
    let certificate = Certificate::from_der(&requisition.data_provider_certificate_der)
        .map_err(|error| format!("data_provider_certificate: {error}"))?;
    let ciphertext = header.secret_seed.unwrap_or_default().ciphertext;
    let opened = keyset.decrypt(&ciphertext, b"").map_err(|error| format!("its seed does not open: {error}"))?;
    let mut signed = SignedMessage::decode(opened.expose().as_slice())
        .map_err(|error| format!("its seed is no signed message: {error}"))?;
    let seed = verified(&certificate, name, requisition, &signed);
    if let Some(message) = &mut signed.message {
        message.value.zeroize();
    }
    seed
}

fn verified(
    certificate: &Certificate,
    name: &str,
    requisition: &system::Requisition,
    signed: &SignedMessage,
) -> Result<Seed, String> {
    let bytes = wire::signed_bytes("secret_seed", Some(signed), type_name::RANDOM_SEED);
    let bytes = bytes.map_err(|error| error.to_string())?;
    certificate
        .verify_signature(bytes, &signed.signature_algorithm_oid, &signed.signature)
        .map_err(|error| format!("its seed: {error}"))?;
    let message = RandomSeed::decode(bytes).map_err(|error| format!("its seed does not decode: {error}"))?;
    let data = Zeroizing::new(message.data);
    if message.requisition != name {
        return Err(format!("its seed is for {}", quote(&message.requisition)));
    }
    if message.share_sha256 != requisition.body_sha256 {
        return Err("its seed belongs to another share than the one that was uploaded".to_owned());
    }
    Seed::from_slice(&data).map_err(|error| error.to_string())
}

/// A text of somebody else's, short enough for a message.
fn quote(text: &str) -> String {
    format!("{:?}", text.chars().take(100).collect::<String>())
}
