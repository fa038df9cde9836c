//! Certificates and signatures, as the Kingdom checks them.

use halo_core::{
    clock::Timestamp,
    pb::api,
    resource::{CertificateName, CertificateParent},
    wire::{self, type_name},
};
use halo_crypto::consent::{
    tink::PublicKeyset,
    x509::{Certificate, TrustRoots},
};
use prost::Message;

use super::{
    refusal::Refusal,
    store::{Party, Revocation, Store},
};

/// A certificate of `owner` that may be relied on now: known, neither revoked nor on hold, valid at `now`, and issued
/// by the owner's own root.
pub(crate) async fn usable_certificate(
    store: &dyn Store,
    field: &'static str,
    name: &str,
    owner: &CertificateParent,
    now: Timestamp,
) -> Result<(CertificateName, Certificate), Refusal> {
    if name.is_empty() {
        return Err(Refusal::Required(field));
    }
    let name: CertificateName = name.parse().map_err(|error| Refusal::invalid(field, error))?;
    if name.parent != *owner {
        return Err(Refusal::invalid(field, format!("{name} is no certificate of {owner}")));
    }
    let record = store.certificate(&name).await?.ok_or_else(|| Refusal::Precondition {
        reason: "CERTIFICATE_NOT_FOUND",
        resource: name.to_string(),
        detail: format!("{field}: {name} does not exist"),
    })?;
    match record.revocation {
        Revocation::Good => {}
        Revocation::Hold => return Err(Refusal::certificate(&name, "it is on hold")),
        Revocation::Revoked => return Err(Refusal::certificate(&name, "it is revoked")),
    }
    let party = store.party(owner).await?.ok_or_else(|| Refusal::certificate(&name, "its owner is unknown"))?;
    let certificate = Certificate::from_der(&record.der).map_err(|error| Refusal::certificate(&name, error))?;
    issued_by(&party, &certificate, now).map_err(|error| Refusal::certificate(&name, error))?;
    Ok((name, certificate))
}

/// Whether the party's root issued the certificate and both are valid at `now`.
pub(crate) fn issued_by(
    party: &Party,
    certificate: &Certificate,
    now: Timestamp,
) -> Result<(), halo_crypto::consent::Error> {
    TrustRoots::from_der(vec![party.root_der.clone()])?.verify(certificate, now.unix_seconds())
}

/// The serialized `EncryptionPublicKey` of a signed one that the certificate verifies and that can be encrypted to.
pub(crate) fn verified_public_key(
    field: &str,
    signed: &api::SignedMessage,
    certificate: &Certificate,
) -> Result<Vec<u8>, Refusal> {
    let bytes = wire::signed_bytes(field, Some(signed), type_name::ENCRYPTION_PUBLIC_KEY)?;
    certificate
        .verify_signature(bytes, &signed.signature_algorithm_oid, &signed.signature)
        .map_err(|error| Refusal::invalid(field, error))?;
    check_public_key(field, bytes)?;
    Ok(bytes.to_vec())
}

/// Whether a serialized `EncryptionPublicKey` is one that can be encrypted to.
pub(crate) fn check_public_key(field: &str, bytes: &[u8]) -> Result<(), Refusal> {
    let key = api::EncryptionPublicKey::decode(bytes).map_err(|error| Refusal::invalid(field, error))?;
    if key.format() != api::encryption_public_key::Format::TinkKeyset {
        return Err(Refusal::invalid(field, "its format is not TINK_KEYSET"));
    }
    PublicKeyset::from_bytes(&key.data).map(drop).map_err(|error| Refusal::invalid(field, error))
}
