//! Opening a requisition: who asks, for what, and under whose keys the answer is encrypted.
//!
//! A publisher trusts nobody's word for it. The consumer's signature must hold over what is asked, the Duchies must be
//! those of the publisher's own configuration, and each must have signed its key. Where a joint key is used, every Duchy
//! must have proven to possess its share for this very measurement; the joint key is put together here, so that nobody
//! else can choose it. What does not hold is a [`Refusal`], in words for the consumer.

mod asked;
mod keys;
mod refusal;
mod terms;
mod trust;

use std::collections::BTreeMap;

use halo_core::{
    measurement::{DirectConfig, HmssConfig, LiquidLegionsNoise, MeasurementSpec, Protocol, TrusteeConfig},
    pb::api,
    resource::{
        CertificateName, CertificateParent, DataProviderName, DuchyId, DuchyName, MeasurementName, RequisitionName,
    },
    session,
    wire::{self, type_name},
};
use halo_crypto::{
    consent::{tink::PrivateKeyset, x509::Certificate},
    secret::Secret,
};
use halo_sketch::liquid_legions::Params;
use prost::Message;
use zeroize::Zeroize;

use crate::{encrypt::Layout, sign::Signer, spool::Binding};
pub use asked::{Asked, DirectTask, Question, SealTask, ShareTask, SketchTask};
use keys::Checks;
pub use refusal::{Justification, MAX_MESSAGE_BYTES, Refusal};
pub use trust::Trust;

/// To whom a requisition is handed out: the publisher itself.
#[derive(Clone, Copy, Debug)]
pub struct Recipient<'a> {
    /// Its name.
    pub name: &'a DataProviderName,
    /// What requisition specs are encrypted to.
    pub keyset: &'a PrivateKeyset,
    /// What it signs with; `None` answers the Liquid Legions protocols only, which need no signature.
    pub signer: Option<&'a Signer>,
}

/// Certificates that a requisition names, in DER, as the Kingdom handed them out. They are checked against [`Trust`].
#[derive(Clone, Debug, Default)]
pub struct Certificates {
    /// The consumer's certificate.
    pub consumer: Vec<u8>,
    /// The publisher's own certificate, where an answer has to be signed.
    pub publisher: Vec<u8>,
    /// The Duchies' certificates.
    pub duchies: BTreeMap<CertificateName, Vec<u8>>,
}

/// A requisition whose every signature and proof holds: what is needed to make the answer and hand it in.
#[derive(Clone, Debug)]
pub struct OpenedRequisition {
    /// The requisition.
    pub name: RequisitionName,
    /// The measurement that it belongs to.
    pub measurement: MeasurementName,
    /// What is asked for, under whose keys.
    pub asked: Asked,
    /// Session, fingerprint and key list: what the body belongs to.
    pub binding: Binding,
    /// Shows that this publisher agreed; revealed when the answer is handed in, and not before.
    pub nonce: Secret<u64>,
    /// The Duchy that takes the body; `None` where the Kingdom takes the result.
    pub duchy: Option<DuchyId>,
}

impl OpenedRequisition {
    /// A plain file name for the spooled body: the id of the requisition.
    #[must_use]
    pub fn spool_name(&self) -> String {
        self.name.requisition.to_string()
    }
}

/// Opens a requisition that the Kingdom handed out to `publisher`. `now_unix_s` (Unix seconds) is the time for which
/// certificates must be valid.
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
    publisher: Recipient<'_>,
    now_unix_s: i64,
) -> Result<OpenedRequisition, Refusal> {
    let name: RequisitionName = requisition.name.parse().map_err(Refusal::spec("name"))?;
    if name.parent() != *publisher.name {
        return Err(Refusal::new(
            Justification::SpecInvalid,
            format!("requisition {name} is for another publisher than {}", publisher.name),
        ));
    }
    let measurement: MeasurementName = requisition.measurement.parse().map_err(Refusal::spec("measurement"))?;
    let consumer = consumer_certificate(requisition, &measurement, trust, &certificates.consumer, now_unix_s)?;

    let signed_spec = requisition.measurement_spec.as_ref();
    let spec_bytes = verified("measurement_spec", signed_spec, type_name::MEASUREMENT_SPEC, &consumer)?;
    let spec = wire::parse_measurement_spec(spec_bytes)?;

    let ciphertext = ciphertext(requisition)?;
    let own_bytes = own_spec(ciphertext, publisher.keyset, &consumer)?;
    let mut own_spec =
        wire::parse_requisition_spec(own_bytes.expose()).map_err(|error| Refusal::secret_spec(&error))?;
    let nonce = Secret::new(own_spec.nonce);
    let agreed = terms::check_agreement(&spec, &own_spec, publisher.name);
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
    terms::check_limits(&spec, &config, trust)?;

    let opening = Opening {
        requisition,
        name: &name,
        spec: &spec,
        spec_bytes,
        checks: Checks { trust, certificates, now_unix_s },
        publisher,
    };
    let Answerable { asked, session, key_list_hash, duchy } = match &config.protocol {
        Protocol::Llv2(llv2) => {
            let maximum_frequency = spec.kind.maximum_frequency();
            let params = Params::new(llv2.decay_rate, llv2.max_size, llv2.sampling_indicator_size);
            opening.sketch(&config.protocol, params, Layout::Full { maximum_frequency }, llv2.noise.as_ref())?
        }
        Protocol::Rollv2(rollv2) => {
            // Keys are not compared: any number of them does.
            let params = Params::new(rollv2.decay_rate, rollv2.max_size, 1);
            opening.sketch(&config.protocol, params, Layout::IndexOnly, rollv2.noise.as_ref())?
        }
        Protocol::Hmss(hmss) => opening.shares(&config.protocol, hmss)?,
        Protocol::Direct(direct) => opening.direct(direct)?,
        Protocol::Trustee(trustee) => opening.sealed(trustee)?,
    };
    Ok(OpenedRequisition {
        measurement,
        asked,
        binding: Binding {
            session,
            fingerprint: session::requisition_fingerprint(spec_bytes, ciphertext),
            key_list_hash,
        },
        nonce,
        duchy,
        name,
    })
}

/// A requisition whose consumer is known, on its way to be opened.
struct Opening<'a> {
    requisition: &'a api::Requisition,
    name: &'a RequisitionName,
    spec: &'a MeasurementSpec,
    spec_bytes: &'a [u8],
    checks: Checks<'a>,
    publisher: Recipient<'a>,
}

/// What the protocol adds.
struct Answerable {
    asked: Asked,
    session: [u8; 32],
    key_list_hash: [u8; 32],
    duchy: Option<DuchyId>,
}

impl Opening<'_> {
    fn session(&self, participants: &[DuchyId]) -> [u8; 32] {
        session::session_id(self.spec_bytes, &self.requisition.serialized_protocol_config, participants)
    }

    /// The Duchy that takes the body.
    fn fulfilling(&self, protocol: &Protocol, participants: &[DuchyId]) -> Result<DuchyId, Refusal> {
        session::fulfilling_duchy(self.name, &protocol.fulfilling_duchies(participants))
            .cloned()
            .ok_or_else(|| Refusal::new(Justification::Unfulfillable, "there is no Duchy to submit to".to_owned()))
    }

    fn sketch(
        &self,
        protocol: &Protocol,
        params: Result<Params, halo_sketch::Error>,
        layout: Layout,
        noise: Option<&LiquidLegionsNoise>,
    ) -> Result<Answerable, Refusal> {
        let params = params.map_err(Refusal::spec("protocol_config: sketch_params"))?;
        let interval = self.spec.vid_sampling_interval.without_wrapping().map_err(Refusal::spec("measurement_spec"))?;
        let noise = terms::sketch_noise(noise, self.checks.trust)?;
        let entries = keys::entries(self.requisition, self.checks.trust)?;
        keys::enough(entries.len(), self.checks.trust)?;
        let participants: Vec<DuchyId> = entries.iter().map(|entry| entry.duchy.clone()).collect();
        if let Some(aggregator) = protocol.aggregator().filter(|aggregator| !participants.contains(aggregator)) {
            let message = format!("aggregator {aggregator} is none of the measurement's Duchies");
            return Err(Refusal::new(Justification::SpecInvalid, message));
        }
        let session = self.session(&participants);
        let joint = keys::combine(&entries, layout == Layout::IndexOnly, self.checks, session)?;
        Ok(Answerable {
            asked: Asked::Sketch(SketchTask { params, interval, layout, noise, key: joint.key }),
            session,
            key_list_hash: joint.key_list_hash,
            duchy: Some(self.fulfilling(protocol, &participants)?),
        })
    }

    fn shares(&self, protocol: &Protocol, hmss: &HmssConfig) -> Result<Answerable, Refusal> {
        let trust = self.checks.trust;
        let vector = terms::vector(self.spec, hmss.population, trust)?;
        let sharing = terms::sharing(self.spec, hmss)?;
        let mut participants = vec![hmss.first_worker.clone(), hmss.second_worker.clone(), hmss.aggregator.clone()];
        participants.sort_unstable();
        participants.dedup();
        if participants.len() != 3 {
            return Err(Refusal::spec("protocol_config")("the two workers and the aggregator must be three Duchies"));
        }
        if let Some(stranger) = participants.iter().find(|duchy| !trust.duchies.contains_key(duchy)) {
            return Err(Refusal::consent("protocol_config")(format!(
                "duchy {stranger} takes part, which this publisher does not trust"
            )));
        }
        keys::enough(participants.len(), trust)?;
        let entries = keys::entries(self.requisition, trust)?;
        let duchy = self.fulfilling(protocol, &participants)?;
        let session = self.session(&participants);
        let worker = keys::worker_key(&entries, hmss, &duchy, self.checks, session)?;
        Ok(Answerable {
            asked: Asked::Shares(ShareTask {
                vector,
                sharing,
                worker_key: worker.key,
                certificate: self.own_certificate()?,
            }),
            session,
            key_list_hash: worker.key_list_hash,
            duchy: Some(duchy),
        })
    }

    fn sealed(&self, trustee: &TrusteeConfig) -> Result<Answerable, Refusal> {
        let vector = terms::trustee_vector(self.spec, trustee, self.checks.trust)?;
        let entries = keys::entries(self.requisition, self.checks.trust)?;
        let session = self.session(std::slice::from_ref(&trustee.duchy));
        let key = keys::trustee_key(&entries, &trustee.duchy, self.checks, session)?;
        Ok(Answerable {
            asked: Asked::Sealed(SealTask { vector, trustee: DuchyName::new(trustee.duchy.clone()), key: key.key }),
            session,
            key_list_hash: key.key_list_hash,
            duchy: Some(trustee.duchy.clone()),
        })
    }

    fn direct(&self, direct: &DirectConfig) -> Result<Answerable, Refusal> {
        if !self.requisition.duchies.is_empty() {
            return Err(Refusal::spec("duchies")("there are some, but every publisher computes by itself"));
        }
        let (question, mechanism) = terms::question(self.spec, direct, self.checks.trust)?;
        let result_key = keys::encryption_key(&self.spec.measurement_public_key)
            .map_err(Refusal::spec("measurement_spec.measurement_public_key"))?;
        Ok(Answerable {
            asked: Asked::Direct(DirectTask {
                question,
                interval: self.spec.vid_sampling_interval,
                mechanism,
                result_key,
                certificate: self.own_certificate()?,
            }),
            session: self.session(&[]),
            key_list_hash: session::key_list_hash(&[]),
            duchy: None,
        })
    }

    /// The name of the certificate that this publisher signs with, if it is the one that others know.
    fn own_certificate(&self) -> Result<CertificateName, Refusal> {
        let path = "data_provider_certificate";
        let signer = self.publisher.signer.ok_or_else(|| {
            let message = "this publisher signs nothing, and this protocol needs it to (consent)";
            Refusal::new(Justification::Unfulfillable, message.to_owned())
        })?;
        let name: CertificateName =
            self.requisition.data_provider_certificate.parse().map_err(Refusal::consent(path))?;
        if name.parent != CertificateParent::DataProvider(self.publisher.name.clone()) {
            return Err(Refusal::consent(path)(format!("{name} is no certificate of this publisher")));
        }
        if self.checks.certificates.publisher != signer.certificate().der() {
            return Err(Refusal::consent(path)(format!(
                "{name} is not the certificate that this publisher signs with"
            )));
        }
        Ok(name)
    }
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
