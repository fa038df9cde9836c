//! Opening a requisition: who asks, for what, and under whose keys the answer is encrypted.
//!
//! A publisher trusts nobody's word for it. The consumer's signature must hold over what is asked, the Duchies must be
//! those of the publisher's own configuration, and each of them must have signed its key share and proven to possess it
//! for this very measurement. The joint key is put together here, so that nobody else can choose it. What does not hold
//! is a [`Refusal`], in words for the consumer.

mod keys;
mod refusal;
mod terms;

use std::collections::BTreeMap;

use halo_core::{
    pb::api,
    privacy::{MaximumFrequency, PrivacyParams, VidSamplingInterval},
    resource::{
        CertificateName, CertificateParent, DataProviderName, DuchyId, MeasurementConsumerName, MeasurementName,
        RequisitionName,
    },
    session,
    wire::{self, type_name},
};
use halo_crypto::{
    consent::{
        tink::PrivateKeyset,
        x509::{Certificate, TrustRoots},
    },
    elgamal::CompositeKey,
    secret::Secret,
};
use halo_sketch::{liquid_legions::Params, noise::ShiftedNoise};
use prost::Message;
use zeroize::Zeroize;

use crate::{encrypt::Encryption, spool::Binding};
pub use refusal::{Justification, MAX_MESSAGE_BYTES, Refusal};

/// Whom a publisher trusts, and what it asks of a measurement.
#[derive(Clone, Debug)]
pub struct Trust {
    /// The consumers that may ask, each with the roots that issue its certificates.
    pub consumers: BTreeMap<MeasurementConsumerName, TrustRoots>,
    /// The Duchies that may take part, each with the roots that issue its certificates.
    pub duchies: BTreeMap<DuchyId, TrustRoots>,
    /// How many Duchies must share the key, at least 1: with fewer the requisition is declined.
    pub minimum_duchies: usize,
    /// Whether measurements without any noise are answered.
    pub allow_no_noise: bool,
    /// The least noise that may hide the size of this publisher's sketch: the noise of a measurement may cost at most
    /// this ε and this δ, or the requisition is declined.
    pub maximum_noise: PrivacyParams,
}

impl Trust {
    /// The default of [`Trust::maximum_noise`]: ε = 1 and δ = 0.00001. With it, whoever sees the size of the upload
    /// learns little about any one person: the odds that somebody was reached change by a factor of e at most.
    ///
    /// # Guarantee
    /// (ε, δ)-differential privacy of the number of registers for one person more or less (Dwork and Roth, *The
    /// Algorithmic Foundations of Differential Privacy*, 2014, definition 2.4).
    #[must_use]
    pub fn default_maximum_noise() -> PrivacyParams {
        PrivacyParams::new(1.0, 1e-5).expect("both are in their ranges")
    }
}

/// Certificates that a requisition names, in DER, as the Kingdom handed them out. They are checked against [`Trust`].
#[derive(Clone, Debug, Default)]
pub struct Certificates {
    /// The consumer's certificate.
    pub consumer: Vec<u8>,
    /// The Duchies' certificates.
    pub duchies: BTreeMap<CertificateName, Vec<u8>>,
}

/// A requisition whose every signature and proof holds: what is needed to sketch, encrypt and submit.
#[derive(Clone, Debug)]
pub struct OpenedRequisition {
    /// The requisition.
    pub name: RequisitionName,
    /// The measurement that it belongs to.
    pub measurement: MeasurementName,
    /// Shape of the sketch.
    pub params: Params,
    /// Which people are sampled.
    pub interval: VidSamplingInterval,
    /// F; 1 for reach only.
    pub maximum_frequency: MaximumFrequency,
    /// The noise that hides the sketch's size; `None` where the whole measurement goes without noise.
    pub noise: Option<ShiftedNoise>,
    /// The joint key of the Duchies.
    pub key: CompositeKey,
    /// Session, fingerprint and key list: what the body belongs to.
    pub binding: Binding,
    /// Shows the Duchies that this publisher agreed; revealed when the body is submitted, and not before.
    pub nonce: Secret<u64>,
    /// The Duchy that takes the body.
    pub duchy: DuchyId,
}

impl OpenedRequisition {
    /// How the sketch is to be encrypted.
    #[must_use]
    pub const fn encryption(&self) -> Encryption<'_> {
        Encryption { key: &self.key, maximum_frequency: self.maximum_frequency, noise: self.noise.as_ref() }
    }

    /// A plain file name for the spooled body: the id of the requisition.
    #[must_use]
    pub fn spool_name(&self) -> String {
        self.name.requisition.to_string()
    }
}

/// Opens a requisition that the Kingdom handed out to `publisher`, who holds `keyset`. `now_unix_s` (Unix seconds) is
/// the time for which certificates must be valid.
///
/// Signatures are checked over the bytes as they came. The events that a requisition asks for are those of the file that
/// the publisher keeps for it; a filter expression on them cannot be evaluated, and is refused.
///
/// # Errors
/// A [`Refusal`] with the first thing that does not hold.
pub fn open(
    requisition: &api::Requisition,
    trust: &Trust,
    certificates: &Certificates,
    publisher: &DataProviderName,
    keyset: &PrivateKeyset,
    now_unix_s: i64,
) -> Result<OpenedRequisition, Refusal> {
    let name: RequisitionName = requisition.name.parse().map_err(Refusal::spec("name"))?;
    if name.parent() != *publisher {
        return Err(Refusal::new(
            Justification::SpecInvalid,
            format!("requisition {name} is for another publisher than {publisher}"),
        ));
    }
    let measurement: MeasurementName = requisition.measurement.parse().map_err(Refusal::spec("measurement"))?;
    let consumer = consumer_certificate(requisition, &measurement, trust, &certificates.consumer, now_unix_s)?;

    let signed_spec = requisition.measurement_spec.as_ref();
    let spec_bytes = verified("measurement_spec", signed_spec, type_name::MEASUREMENT_SPEC, &consumer)?;
    let spec = wire::parse_measurement_spec(spec_bytes)?;

    let ciphertext = ciphertext(requisition)?;
    let own_bytes = own_spec(ciphertext, keyset, &consumer)?;
    let mut own_spec =
        wire::parse_requisition_spec(own_bytes.expose()).map_err(|error| Refusal::secret_spec(&error))?;
    let nonce = Secret::new(own_spec.nonce);
    let agreed = terms::check_agreement(&spec, &own_spec, publisher);
    own_spec.nonce.zeroize();
    agreed?;

    let config_bytes = requisition.serialized_protocol_config.as_slice();
    let config = wire::parse_protocol_config(config_bytes)?;
    if requisition.protocol_config.as_ref() != api::ProtocolConfig::decode(config_bytes).ok().as_ref() {
        return Err(Refusal::new(
            Justification::SpecInvalid,
            "protocol_config is not what serialized_protocol_config says".to_owned(),
        ));
    }
    let terms = terms::agree(&spec, &config, trust)?;

    let entries = keys::entries(requisition, trust)?;
    let duchies: Vec<DuchyId> = entries.iter().map(|entry| entry.duchy.clone()).collect();
    if !duchies.contains(&terms.aggregator) {
        let message = format!("aggregator {} is none of the measurement's Duchies", terms.aggregator);
        return Err(Refusal::new(Justification::SpecInvalid, message));
    }
    let session = session::session_id(spec_bytes, config_bytes, &duchies);
    let joint = keys::combine(&entries, trust, certificates, session, now_unix_s)?;
    let duchy = session::fulfilling_duchy(&name, &duchies)
        .ok_or_else(|| Refusal::new(Justification::Unfulfillable, "there is no Duchy to submit to".to_owned()))?;

    Ok(OpenedRequisition {
        measurement,
        params: terms.params,
        interval: terms.interval,
        maximum_frequency: terms.maximum_frequency,
        noise: terms.noise,
        key: joint.key,
        binding: Binding {
            session,
            fingerprint: session::requisition_fingerprint(spec_bytes, ciphertext),
            key_list_hash: joint.key_list_hash,
        },
        nonce,
        duchy: duchy.clone(),
        name,
    })
}

/// The certificate of the consumer, if the consumer is trusted and one of its roots issued it.
fn consumer_certificate(
    requisition: &api::Requisition,
    measurement: &MeasurementName,
    trust: &Trust,
    der: &[u8],
    now_unix_s: i64,
) -> Result<Certificate, Refusal> {
    let consumer = measurement.parent();
    let path = "measurement_consumer_certificate";
    let name: CertificateName = requisition.measurement_consumer_certificate.parse().map_err(Refusal::consent(path))?;
    if name.parent != CertificateParent::MeasurementConsumer(consumer.clone()) {
        return Err(Refusal::consent(path)(format!("{name} is no certificate of {consumer}")));
    }
    let roots = trust
        .consumers
        .get(&consumer)
        .ok_or_else(|| Refusal::consent(path)(format!("this publisher does not trust {consumer}")))?;
    let certificate = Certificate::from_der(der).map_err(Refusal::consent(path))?;
    roots.verify(&certificate, now_unix_s).map_err(Refusal::consent(path))?;
    Ok(certificate)
}

/// The bytes of a signed message, if the signature over them is the certificate's.
fn verified<'a>(
    path: &str,
    signed: Option<&'a api::SignedMessage>,
    type_name: &str,
    certificate: &Certificate,
) -> Result<&'a [u8], Refusal> {
    let bytes = wire::signed_bytes(path, signed, type_name)
        .map_err(|error| Refusal::new(Justification::ConsentSignalInvalid, error.to_string()))?;
    let (oid, signature) =
        signed.map(|signed| (signed.signature_algorithm_oid.as_str(), signed.signature.as_slice())).unwrap_or_default();
    certificate.verify_signature(bytes, oid, signature).map_err(Refusal::consent(path))?;
    Ok(bytes)
}

/// The ciphertext of the requisition spec, as it came.
fn ciphertext(requisition: &api::Requisition) -> Result<&[u8], Refusal> {
    let path = "encrypted_requisition_spec";
    let encrypted =
        requisition.encrypted_requisition_spec.as_ref().ok_or_else(|| Refusal::consent(path)("is missing"))?;
    let found = encrypted.type_url.rsplit_once('/').map_or("", |(_, name)| name);
    if found != type_name::SIGNED_MESSAGE {
        return Err(Refusal::consent(path)(format!("holds {:?} instead of {}", found, type_name::SIGNED_MESSAGE)));
    }
    Ok(&encrypted.ciphertext)
}

/// The bytes of the requisition spec, decrypted, if the consumer signed them.
fn own_spec(ciphertext: &[u8], keyset: &PrivateKeyset, consumer: &Certificate) -> Result<Secret<Vec<u8>>, Refusal> {
    let path = "encrypted_requisition_spec";
    let plaintext = keyset.decrypt(ciphertext, b"").map_err(Refusal::consent(path))?;
    // What is wrong with a plaintext is not told in the words of its reader, which could quote it.
    let mut signed = api::SignedMessage::decode(plaintext.expose().as_slice())
        .map_err(|_| Refusal::consent(path)("it holds no signed message"))?;
    let bytes = verified(path, Some(&signed), type_name::REQUISITION_SPEC, consumer)
        .map(|bytes| Secret::new(bytes.to_vec()))
        .map_err(|_| Refusal::consent(path)("it is no requisition spec that the consumer's signature verifies"));
    if let Some(message) = &mut signed.message {
        message.value.zeroize();
    }
    bytes
}
