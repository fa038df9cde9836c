//! The Duchies of a measurement and their keys.

use std::collections::BTreeSet;

use halo_core::{
    measurement::HmssConfig,
    pb::api::{
        self, EncryptionPublicKey, encryption_public_key,
        requisition::duchy_entry::{Value, value::Protocol},
    },
    resource::{CertificateName, CertificateParent, DuchyId, DuchyName},
    session,
    wire::{self, type_name},
};
use halo_crypto::{
    attestation::{Evidence, Refused, Statement},
    consent::{tink::PublicKeyset, x509::Certificate},
    elgamal::{CompositeKey, KeyShare},
    proof::PossessionContext,
};

use prost::Message;

use super::{Certificates, Justification, Refusal, Trust, verified};

/// One Duchy of a requisition.
pub(super) struct Entry<'a> {
    pub(super) duchy: DuchyId,
    value: &'a Value,
}

/// What Duchies' keys are checked against.
#[derive(Clone, Copy)]
pub(super) struct Checks<'a> {
    pub(super) trust: &'a Trust,
    pub(super) certificates: &'a Certificates,
    pub(super) now_unix_s: i64,
}

/// The joint key, and the hash of what it was combined from.
pub(super) struct JointKey {
    pub(super) key: CompositeKey,
    pub(super) key_list_hash: [u8; 32],
}

/// The key of one Duchy, and the hash of what was seen of it.
pub(super) struct EncryptionKey {
    pub(super) key: PublicKeyset,
    pub(super) key_list_hash: [u8; 32],
}

/// The Duchies that the Kingdom lists, ascending by id: each once, and each trusted.
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
        entries.push(Entry { duchy, value });
    }
    entries.sort_by(|one, other| one.duchy.cmp(&other.duchy));
    Ok(entries)
}

/// So many Duchies compute together.
pub(super) fn enough(duchies: usize, trust: &Trust) -> Result<(), Refusal> {
    if duchies >= trust.minimum_duchies.max(1) {
        return Ok(());
    }
    let message = format!(
        "{duchies} Duchies compute together; this publisher asks for {} (minimum_duchies)",
        trust.minimum_duchies
    );
    Err(Refusal::new(Justification::Declined, message))
}

/// `duchies/{duchy}`, or the id alone.
fn duchy_id(key: &str) -> Result<DuchyId, halo_core::Error> {
    if key.contains('/') { key.parse().map(|name: DuchyName| name.duchy) } else { key.parse() }
}

/// Verifies every Duchy's share and adds them up. The reach-only protocol has entries of its own.
pub(super) fn combine(
    entries: &[Entry<'_>],
    reach_only: bool,
    checks: Checks<'_>,
    session: [u8; 32],
) -> Result<JointKey, Refusal> {
    let mut shares = Vec::with_capacity(entries.len());
    let mut keys = Vec::with_capacity(entries.len());
    for entry in entries {
        let duchy = &entry.duchy;
        let path = format!("duchy {duchy}");
        let protocol = match (&entry.value.protocol, reach_only) {
            (Some(Protocol::LiquidLegionsV2(protocol)), false) => protocol,
            (Some(Protocol::ReachOnlyLiquidLegionsV2(protocol)), true) => protocol,
            (_, false) => return Err(Refusal::spec(&path)("has no key for Liquid Legions v2")),
            (_, true) => return Err(Refusal::spec(&path)("has no key for reach-only Liquid Legions v2")),
        };
        let certificate = entry.certificate(&path, checks)?;
        let signed = protocol.el_gamal_public_key.as_ref();
        let bytes = verified(&format!("{path}: key"), signed, type_name::EL_GAMAL_PUBLIC_KEY, &certificate)?;
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

/// The key of the worker that takes the seed: the other one than `fulfilling`, which has none in its entry. It must have
/// been drawn for this session, so that both were shown the same measurement.
pub(super) fn worker_key(
    entries: &[Entry<'_>],
    hmss: &HmssConfig,
    fulfilling: &DuchyId,
    checks: Checks<'_>,
    session: [u8; 32],
) -> Result<EncryptionKey, Refusal> {
    let listed: BTreeSet<&DuchyId> = entries.iter().map(|entry| &entry.duchy).collect();
    if listed != BTreeSet::from([&hmss.first_worker, &hmss.second_worker]) {
        let message = format!("must be the workers {} and {}, and nobody else", hmss.first_worker, hmss.second_worker);
        return Err(Refusal::spec("duchies")(message));
    }
    let mut found = None;
    for entry in entries {
        let path = format!("duchy {}", entry.duchy);
        let Some(Protocol::HonestMajorityShareShuffle(protocol)) = &entry.value.protocol else {
            return Err(Refusal::spec(&path)("has no entry for the share shuffle"));
        };
        match (&protocol.public_key, &entry.duchy == fulfilling) {
            (None, true) => {}
            (Some(_), true) => {
                return Err(Refusal::spec(&path)(
                    "takes the upload and has a key, which the other worker alone must have",
                ));
            }
            (signed, false) => found = Some(entry.encryption_key(signed.as_ref(), checks, session)?),
        }
    }
    found.ok_or_else(|| Refusal::spec("duchies")("no worker has a key"))
}

/// The key of the trustee's process, if the evidence that it is its own ([`Statement::of_key`]) is accepted.
pub(super) fn trustee_key(
    entries: &[Entry<'_>],
    trustee: &DuchyId,
    checks: Checks<'_>,
    session: [u8; 32],
) -> Result<EncryptionKey, Refusal> {
    let [entry] = entries else {
        return Err(Refusal::spec("duchies")(format!("must be the trustee {trustee} alone")));
    };
    if entry.duchy != *trustee {
        return Err(Refusal::spec("duchies")(format!("must be the trustee {trustee}, but are {}", entry.duchy)));
    }
    let path = format!("duchy {trustee}");
    let Some(Protocol::TrusTee(protocol)) = &entry.value.protocol else {
        return Err(Refusal::spec(&path)("has no entry for a trustee"));
    };
    let signed = protocol.public_key.as_ref();
    let key = entry.encryption_key(signed, checks, session)?;
    let bytes = wire::signed_bytes(&path, signed, type_name::ENCRYPTION_PUBLIC_KEY)?;
    let statement = Statement::of_key(trustee.as_str(), &session, bytes);
    let path = format!("{path}: attestation");
    let evidence = Evidence::from_bytes(&protocol.attestation).map_err(Refusal::consent(&path))?;
    let verified = checks.trust.attestation.verify(&statement, &evidence);
    verified.map(|()| key).map_err(|refused| {
        let justification = match refused {
            Refused::Simulated | Refused::UnknownFormat { .. } | Refused::NotAccepted(_) => Justification::Declined,
            _ => Justification::ConsentSignalInvalid,
        };
        Refusal::new(justification, format!("{path}: {refused}"))
    })
}

impl Entry<'_> {
    /// The key that this Duchy signed for this session.
    fn encryption_key(
        &self,
        signed: Option<&api::SignedMessage>,
        checks: Checks<'_>,
        session: [u8; 32],
    ) -> Result<EncryptionKey, Refusal> {
        let path = format!("duchy {}", self.duchy);
        let certificate = self.certificate(&path, checks)?;
        let bytes = verified(&format!("{path}: key"), signed, type_name::ENCRYPTION_PUBLIC_KEY, &certificate)?;
        let key = encryption_key(bytes).map_err(Refusal::consent(&path))?;
        let drawn = EncryptionPublicKey::decode(bytes).map_err(Refusal::consent(&path))?;
        if drawn.session != session {
            return Err(Refusal::consent(&path)(
                "its key was drawn for another session: it was shown another protocol configuration, or other Duchies",
            ));
        }
        Ok(EncryptionKey { key, key_list_hash: session::key_list_hash(&[(self.duchy.clone(), bytes)]) })
    }

    /// The certificate, if one of the Duchy's own roots issued it.
    fn certificate(&self, path: &str, checks: Checks<'_>) -> Result<Certificate, Refusal> {
        let name: CertificateName = self.value.duchy_certificate.parse().map_err(Refusal::consent(path))?;
        if name.parent != CertificateParent::Duchy(DuchyName::new(self.duchy.clone())) {
            return Err(Refusal::consent(path)(format!("{name} is no certificate of this Duchy")));
        }
        let der = checks
            .certificates
            .duchies
            .get(&name)
            .ok_or_else(|| Refusal::consent(path)(format!("certificate {name} is not at hand")))?;
        let certificate = Certificate::from_der(der).map_err(Refusal::consent(path))?;
        let roots = checks.trust.duchies.get(&self.duchy).ok_or_else(|| Refusal::consent(path)("it is not trusted"))?;
        roots.verify(&certificate, checks.now_unix_s).map_err(Refusal::consent(path))?;
        Ok(certificate)
    }
}

/// Reads a serialized `EncryptionPublicKey`.
pub(super) fn encryption_key(bytes: &[u8]) -> Result<PublicKeyset, String> {
    let key = EncryptionPublicKey::decode(bytes).map_err(|error| error.to_string())?;
    if key.format() != encryption_public_key::Format::TinkKeyset {
        return Err("the format of the encryption key is not TINK_KEYSET".to_owned());
    }
    PublicKeyset::from_bytes(&key.data).map_err(|error| error.to_string())
}
