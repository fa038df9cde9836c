//! What a Duchy publishes for a computation, checked at the door.

use halo_core::{
    measurement::Protocol,
    pb::api::EncryptionPublicKey,
    pb::system::computation_participant::{RequisitionParams, requisition_params},
    resource::{CertificateName, DuchyId},
    wire as core_wire,
};
use halo_crypto::{consent::x509::Certificate, elgamal::KeyShare, proof::PossessionContext};
use prost::Message;

use crate::{
    record::{Measurement, Parameters},
    server::{
        consent::check_public_key,
        limits::{MAX_ATTESTATION, MAX_PUBLIC_KEY, bounded},
        refusal::Refusal,
    },
};

/// A key as it was sent, not verified yet.
pub(super) struct Given {
    public_key: Vec<u8>,
    signature: Vec<u8>,
    algorithm_oid: String,
    attestation: Vec<u8>,
}

impl Given {
    pub(super) fn with_certificate(self, certificate: CertificateName) -> Parameters {
        let Self { public_key, signature, algorithm_oid, attestation } = self;
        Parameters { certificate, public_key, signature, algorithm_oid, attestation }
    }
}

/// Takes out the key, which must be in the message of the computation's protocol.
pub(super) fn read(protocol: &Protocol, params: &RequisitionParams) -> Result<Given, Refusal> {
    use requisition_params::Protocol as Params;
    let (field, given) = match (protocol, &params.protocol) {
        (Protocol::Llv2(_), Some(Params::LiquidLegionsV2(sent)))
        | (Protocol::Rollv2(_), Some(Params::ReachOnlyLiquidLegionsV2(sent))) => (
            "requisition_params.el_gamal_public_key",
            Given {
                public_key: sent.el_gamal_public_key.clone(),
                signature: sent.el_gamal_public_key_signature.clone(),
                algorithm_oid: sent.el_gamal_public_key_signature_algorithm_oid.clone(),
                attestation: Vec::new(),
            },
        ),
        (Protocol::Hmss(_), Some(Params::HonestMajorityShareShuffle(sent))) => (
            "requisition_params.tink_public_key",
            Given {
                public_key: sent.tink_public_key.clone(),
                signature: sent.tink_public_key_signature.clone(),
                algorithm_oid: sent.tink_public_key_signature_algorithm_oid.clone(),
                attestation: Vec::new(),
            },
        ),
        (Protocol::Trustee(_), Some(Params::TrusTee(sent))) => {
            if sent.attestation.is_empty() {
                return Err(Refusal::Required("requisition_params.attestation"));
            }
            bounded("requisition_params.attestation", sent.attestation.len(), MAX_ATTESTATION)?;
            let given = Given {
                public_key: sent.tink_public_key.clone(),
                signature: sent.tink_public_key_signature.clone(),
                algorithm_oid: sent.tink_public_key_signature_algorithm_oid.clone(),
                attestation: sent.attestation.clone(),
            };
            ("requisition_params.tink_public_key", given)
        }
        _ => {
            let detail = format!("it is not that of {}, with which this is computed", protocol.kind());
            return Err(Refusal::invalid("requisition_params.protocol", detail));
        }
    };
    bounded(field, given.public_key.len(), MAX_PUBLIC_KEY)?;
    bounded("requisition_params.signature", given.signature.len(), MAX_SIGNATURE)?;
    bounded("requisition_params.signature_algorithm_oid", given.algorithm_oid.len(), MAX_OID)?;
    Ok(given)
}

/// Longest signature, in DER.
const MAX_SIGNATURE: usize = 256;
/// Longest object identifier.
const MAX_OID: usize = 64;

/// Checks a key: its signature, and that it is one for this protocol.
pub(super) fn check(
    measurement: &Measurement,
    duchy: &DuchyId,
    certificate: &Certificate,
    parameters: &Parameters,
) -> Result<(), String> {
    let aggregates = matches!(&measurement.protocol, Protocol::Hmss(hmss) if hmss.aggregator == *duchy);
    if aggregates && !parameters.public_key.is_empty() {
        return Err("it is the aggregator, to which nobody encrypts; its key must be empty".into());
    }
    certificate
        .verify_signature(&parameters.public_key, &parameters.algorithm_oid, &parameters.signature)
        .map_err(|error| error.to_string())?;
    match &measurement.protocol {
        Protocol::Llv2(_) | Protocol::Rollv2(_) => check_share(measurement, duchy, certificate, parameters),
        Protocol::Hmss(_) if aggregates => Ok(()),
        Protocol::Hmss(_) | Protocol::Trustee(_) => check_encryption_key(measurement, parameters),
        Protocol::Direct(_) => Err("no Duchy computes a direct measurement".into()),
    }
}

/// Checks a key that publishers encrypt to: its format, and that it was drawn for this very session.
fn check_encryption_key(measurement: &Measurement, parameters: &Parameters) -> Result<(), String> {
    check_public_key("tink_public_key", &parameters.public_key).map_err(|error| error.to_string())?;
    let key = EncryptionPublicKey::decode(parameters.public_key.as_slice()).map_err(|error| error.to_string())?;
    if key.session == measurement.session_id() {
        return Ok(());
    }
    Err("tink_public_key: it was drawn for another session than that of this measurement".into())
}

/// Checks a share of a composite key: curve, generator, that it is a group element but not the identity, and that the
/// Duchy has proven to know its secret in this very session.
fn check_share(
    measurement: &Measurement,
    duchy: &DuchyId,
    certificate: &Certificate,
    parameters: &Parameters,
) -> Result<(), String> {
    let key = core_wire::parse_el_gamal_public_key(&parameters.public_key).map_err(|error| error.to_string())?;
    let context = PossessionContext {
        session: measurement.session_id(),
        duchy: duchy.as_str(),
        certificate_sha256: certificate.sha256(),
    };
    let share = KeyShare::from_bytes(key.element);
    share.verify_possession(&context, &key.proof_of_possession).map(drop).map_err(|error| error.to_string())
}
