//! The Duchies of a measurement and their joint key.

use std::collections::BTreeSet;

use halo_core::{
    pb::api::{
        self,
        requisition::duchy_entry::{Value, value::Protocol},
    },
    resource::{CertificateName, CertificateParent, DuchyId, DuchyName},
    session,
    wire::{self, type_name},
};
use halo_crypto::{
    consent::x509::Certificate,
    elgamal::{CompositeKey, KeyShare},
    proof::PossessionContext,
};

use super::{Certificates, Justification, Refusal, Trust, verified};

/// One Duchy of a requisition.
pub(super) struct Entry<'a> {
    pub(super) duchy: DuchyId,
    value: &'a Value,
    key: Option<&'a api::SignedMessage>,
}

/// The joint key, and the hash of what it was combined from.
pub(super) struct JointKey {
    pub(super) key: CompositeKey,
    pub(super) key_list_hash: [u8; 32],
}

/// The Duchies that the Kingdom lists, ascending by id: each once, each trusted, and enough of them.
pub(super) fn entries<'a>(requisition: &'a api::Requisition, trust: &Trust) -> Result<Vec<Entry<'a>>, Refusal> {
    let mut seen = BTreeSet::new();
    let mut entries = Vec::with_capacity(requisition.duchies.len());
    for entry in &requisition.duchies {
        let duchy = duchy_id(&entry.key).map_err(Refusal::spec("duchies"))?;
        if !trust.duchies.contains_key(&duchy) {
            return Err(Refusal::new(
                Justification::ConsentSignalInvalid,
                format!("the Kingdom lists duchy {duchy}, which this publisher does not trust"),
            ));
        }
        if !seen.insert(duchy.clone()) {
            return Err(Refusal::spec("duchies")(format!("duchy {duchy} is listed twice")));
        }
        let value =
            entry.value.as_ref().ok_or_else(|| Refusal::spec("duchies")(format!("duchy {duchy} has no entry")))?;
        let Some(Protocol::LiquidLegionsV2(protocol)) = &value.protocol else {
            return Err(Refusal::spec("duchies")(format!("duchy {duchy} has no key for Liquid Legions v2")));
        };
        entries.push(Entry { duchy, value, key: protocol.el_gamal_public_key.as_ref() });
    }
    if entries.len() < trust.minimum_duchies.max(1) {
        return Err(Refusal::new(
            Justification::Declined,
            format!("{} Duchies share the key; this publisher asks for {}", entries.len(), trust.minimum_duchies),
        ));
    }
    entries.sort_by(|one, other| one.duchy.cmp(&other.duchy));
    Ok(entries)
}

/// `duchies/{duchy}`, or the id alone.
fn duchy_id(key: &str) -> Result<DuchyId, halo_core::Error> {
    if key.contains('/') { key.parse().map(|name: DuchyName| name.duchy) } else { key.parse() }
}

/// Verifies every Duchy's share and adds them up.
pub(super) fn combine(
    entries: &[Entry<'_>],
    trust: &Trust,
    certificates: &Certificates,
    session: [u8; 32],
    now_unix_s: i64,
) -> Result<JointKey, Refusal> {
    let mut shares = Vec::with_capacity(entries.len());
    let mut keys = Vec::with_capacity(entries.len());
    for Entry { duchy, value, key } in entries {
        let path = format!("duchy {duchy}");
        let certificate = duchy_certificate(&path, duchy, value, trust, certificates, now_unix_s)?;
        let bytes = verified(&format!("{path}: key"), *key, type_name::EL_GAMAL_PUBLIC_KEY, &certificate)?;
        let key = wire::parse_el_gamal_public_key(bytes).map_err(Refusal::consent(&path))?;
        let context = PossessionContext { session, duchy: duchy.as_str(), certificate_sha256: certificate.sha256() };
        let share = KeyShare::from_bytes(key.element)
            .verify_possession(&context, &key.proof_of_possession)
            .map_err(Refusal::consent(&path))?;
        shares.push(share);
        keys.push((duchy.clone(), bytes));
    }
    let key = CompositeKey::combine(&shares).map_err(Refusal::consent("joint key"))?;
    Ok(JointKey { key, key_list_hash: session::key_list_hash(&keys) })
}

/// A Duchy's certificate, if one of its own roots issued it.
fn duchy_certificate(
    path: &str,
    duchy: &DuchyId,
    value: &Value,
    trust: &Trust,
    certificates: &Certificates,
    now_unix_s: i64,
) -> Result<Certificate, Refusal> {
    let name: CertificateName = value.duchy_certificate.parse().map_err(Refusal::consent(path))?;
    if name.parent != CertificateParent::Duchy(DuchyName::new(duchy.clone())) {
        return Err(Refusal::consent(path)(format!("{name} is no certificate of this Duchy")));
    }
    let der = certificates
        .duchies
        .get(&name)
        .ok_or_else(|| Refusal::consent(path)(format!("certificate {name} is not at hand")))?;
    let certificate = Certificate::from_der(der).map_err(Refusal::consent(path))?;
    let roots = trust.duchies.get(duchy).ok_or_else(|| Refusal::consent(path)("it is not trusted"))?;
    roots.verify(&certificate, now_unix_s).map_err(Refusal::consent(path))?;
    Ok(certificate)
}
