//! What a computation is about: the Kingdom's message, read and checked rule by rule.
//!
//! Nothing is taken on the Kingdom's word. The consumer signed the measurement spec, and this Duchy's configuration says
//! whose signatures count. Protocol configuration and list of Duchies enter the session, over which every Duchy proves
//! its key share; publishers and Duchies that were shown different ones do not find each other's proofs or key lists
//! valid.

use std::collections::BTreeSet;
use std::sync::Arc;

use halo_core::clock::Timestamp;
use halo_core::measurement::MeasurementSpec;
use halo_core::pb::system;
use halo_core::resource::{
    CertificateName, CertificateParent, ComputationName, ComputationParticipantName, ComputationRequisitionName,
    DataProviderName, DuchyId, DuchyName, MeasurementConsumerName, RequisitionName,
};
use halo_core::session;
use halo_core::wire;
use halo_crypto::consent::x509::Certificate;
use prost::Message;

use super::duchy::Settings;
use super::parties::Parties;
use super::protocols::{self, Protocol, SignedKey};
use super::secrets::ComputationSecrets;
use super::stage::Role;
use super::store::Requisition;

/// Why this Duchy does not take part, or does not go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// In words, for the timeline.
    pub(crate) message: String,
    /// Resource names of those who caused it, or `kingdom`; empty where nobody can be named.
    pub(crate) culprits: Vec<String>,
}

impl Refusal {
    /// A refusal that blames nobody.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), culprits: Vec::new() }
    }

    /// A refusal that blames the Kingdom.
    pub(crate) fn kingdom(message: impl Into<String>) -> Self {
        Self { message: message.into(), culprits: vec!["kingdom".to_owned()] }
    }

    /// A refusal of what the Kingdom shows as a Duchy's: either of them may have made it what it is.
    pub(crate) fn shown(duchy: &DuchyId, message: impl Into<String>) -> Self {
        let culprits = vec![DuchyName::new(duchy.clone()).to_string(), "kingdom".to_owned()];
        Self { message: message.into(), culprits }
    }
}

/// What everybody in a computation agreed on.
#[derive(Debug)]
pub(crate) struct Terms {
    /// The computation.
    pub(crate) name: ComputationName,
    /// What the consumer asked for.
    pub(crate) spec: MeasurementSpec,
    /// How it is computed.
    pub(crate) protocol: Arc<dyn Protocol>,
    /// The Duchy that hands in the result.
    pub(crate) aggregator: DuchyId,
    /// All Duchies, ascending by id.
    pub(crate) duchies: Vec<DuchyId>,
    /// The session that keys are signed and proven for.
    pub(crate) session: [u8; 32],
    /// The Duchies to which publishers upload, ascending by id.
    fulfilling: Vec<DuchyId>,
    requisitions: Vec<(RequisitionName, system::Requisition)>,
    computation: system::Computation,
}

/// A Duchy's key, its signature verified.
#[derive(Clone, Debug)]
pub(crate) struct PublishedKey {
    /// Whose it is.
    pub(crate) duchy: DuchyId,
    /// What it is signed with.
    pub(crate) certificate: Certificate,
    /// As it was signed; empty where a Duchy has none.
    pub(crate) key: Vec<u8>,
}

/// The keys of all Duchies.
#[derive(Clone, Debug)]
pub(crate) struct Keys(Vec<PublishedKey>);

impl Keys {
    /// Each Duchy with its key, as hashes and the order of the ring take them.
    pub(crate) fn list(&self) -> Vec<(DuchyId, &[u8])> {
        self.0.iter().map(|key| (key.duchy.clone(), key.key.as_slice())).collect()
    }

    /// The key of a Duchy.
    pub(crate) fn of(&self, duchy: &DuchyId) -> Option<&PublishedKey> {
        self.0.iter().find(|key| key.duchy == *duchy)
    }

    /// Hash of the list, as Duchies confirm it.
    pub(crate) fn hash(&self) -> [u8; 32] {
        session::key_list_hash(&self.list())
    }
}

impl Terms {
    /// Reads the Kingdom's message; does not verify the consumer's signature.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, Refusal> {
        let mut computation =
            system::Computation::decode(bytes).map_err(|error| Refusal::kingdom(format!("computation: {error}")))?;
        let name: ComputationName =
            computation.name.parse().map_err(|error| Refusal::kingdom(format!("name: {error}")))?;
        let spec = wire::parse_measurement_spec(&computation.measurement_spec)
            .map_err(|error| Refusal::kingdom(error.to_string()))?;
        let config = wire::parse_protocol_config(&computation.serialized_protocol_config)
            .map_err(|error| Refusal::kingdom(error.to_string()))?;
        config.check_fits(&spec).map_err(|error| Refusal::kingdom(error.to_string()))?;
        wire::check_mpc_protocol_config(&config, computation.mpc_protocol_config.as_ref())
            .map_err(|error| Refusal::kingdom(error.to_string()))?;
        let protocol = protocols::served(&config)?;
        let aggregator = config.protocol.aggregator().cloned();
        let aggregator = aggregator.ok_or_else(|| Refusal::kingdom("protocol_config: no Duchy computes"))?;
        let mut duchies = BTreeSet::new();
        for participant in &computation.computation_participants {
            let participant = participant_name(participant, &name)?;
            if !duchies.insert(participant.participant.clone()) {
                return Err(Refusal::kingdom(format!("{participant} is listed twice")));
            }
        }
        let duchies: Vec<DuchyId> = duchies.into_iter().collect();
        let session =
            session::session_id(&computation.measurement_spec, &computation.serialized_protocol_config, &duchies);
        let fulfilling = config.protocol.fulfilling_duchies(&duchies);
        let listed = std::mem::take(&mut computation.requisitions);
        let listed = listed.into_iter().map(|requisition| Ok((requisition_name(&name, &requisition)?, requisition)));
        let mut requisitions = listed.collect::<Result<Vec<_>, Refusal>>()?;
        requisitions.sort_by_key(|(name, _)| name.to_string());
        Ok(Self { name, spec, protocol, aggregator, duchies, session, fulfilling, requisitions, computation })
    }

    /// Checks everything that this Duchy must not take on the Kingdom's word before it draws a key.
    pub(crate) fn check(&self, parties: &Parties, settings: &Settings, now: Timestamp) -> Result<(), Refusal> {
        self.check_consumer(parties, now)?;
        if !self.duchies.contains(&parties.me) {
            return Err(Refusal::kingdom(format!("{} is none of the computation's Duchies", parties.me)));
        }
        for duchy in self.duchies.iter().filter(|duchy| **duchy != parties.me) {
            if !parties.peer_roots.contains_key(duchy) {
                return Err(Refusal::new(format!("{} does not know duchy {duchy}; add it to peers", parties.me)));
            }
        }
        if !self.duchies.contains(&self.aggregator) {
            return Err(Refusal::kingdom(format!(
                "aggregator {} is none of the computation's Duchies",
                self.aggregator
            )));
        }
        if self.computation.aggregator != self.aggregator.as_str() {
            return Err(Refusal::kingdom("aggregator: is another one in serialized_protocol_config"));
        }
        if let Some(mut due) = self.protocol.duchies() {
            due.sort_unstable();
            if due != self.duchies {
                return Err(Refusal::kingdom(
                    "computation_participants: they are not exactly the Duchies of serialized_protocol_config",
                ));
            }
        }
        self.protocol.check(self, parties, settings)?;
        self.requisitions(&parties.me).map(drop)
    }

    /// Number of publishers.
    pub(crate) fn publishers(&self) -> usize {
        self.requisitions.len()
    }

    /// Every requisition by its public name, sorted.
    pub(crate) fn requisition_names(&self) -> impl Iterator<Item = &RequisitionName> {
        self.requisitions.iter().map(|(name, _)| name)
    }

    /// What the Kingdom says of a requisition, by its public name.
    pub(crate) fn requisition(&self, name: &str) -> Option<&system::Requisition> {
        self.requisitions.iter().find(|(known, _)| known.to_string() == name).map(|(_, requisition)| requisition)
    }

    /// The Duchy at which a requisition is fulfilled; none where the protocol has no such Duchy.
    pub(crate) fn fulfilling(&self, requisition: &RequisitionName) -> Option<&DuchyId> {
        session::fulfilling_duchy(requisition, &self.fulfilling)
    }

    /// Hash of the list of keys that a publisher encrypts under whose requisition is fulfilled at a Duchy, once the Kingdom
    /// has told all.
    pub(crate) fn upload_key_list_hash(&self, fulfilling: &DuchyId) -> Option<[u8; 32]> {
        let participants = self.computation.computation_participants.iter();
        let keys: Option<Vec<(DuchyId, Vec<u8>)>> = participants
            .map(|participant| {
                let duchy = participant_name(participant, &self.name).ok()?.participant;
                let params = participant.requisition_params.as_ref()?.protocol.as_ref()?;
                Some((duchy, self.protocol.published(params)?.key))
            })
            .collect();
        let keys = keys?;
        let seen: Vec<(DuchyId, &[u8])> = keys
            .iter()
            .filter(|(duchy, _)| self.protocol.encrypts_to(fulfilling, duchy))
            .map(|(duchy, key)| (duchy.clone(), key.as_slice()))
            .collect();
        Some(session::key_list_hash(&seen))
    }

    fn check_consumer(&self, parties: &Parties, now: Timestamp) -> Result<(), Refusal> {
        let refuse = |reason: String| Refusal::new(format!("measurement_consumer: {reason}"));
        let consumer: MeasurementConsumerName = self
            .computation
            .measurement_consumer
            .parse()
            .map_err(|error| Refusal::kingdom(format!("measurement_consumer: {error}")))?;
        let roots = parties
            .consumer_roots
            .get(&consumer)
            .ok_or_else(|| refuse(format!("{} does not trust {consumer}", parties.me)))?;
        let certificate = Certificate::from_der(&self.computation.measurement_consumer_certificate_der)
            .map_err(|error| refuse(error.to_string()))?;
        roots.verify(&certificate, now.unix_seconds()).map_err(|error| refuse(error.to_string()))?;
        certificate
            .verify_signature(
                &self.computation.measurement_spec,
                &self.computation.measurement_spec_signature_algorithm_oid,
                &self.computation.measurement_spec_signature,
            )
            .map_err(|error| refuse(format!("measurement_spec: {error}")))
    }

    /// When the Kingdom cancels it.
    pub(crate) fn deadline(&self) -> Option<Timestamp> {
        self.computation.deadline.as_ref().and_then(|deadline| wire::timestamp("deadline", deadline).ok())
    }

    /// What a Duchy is in the computation.
    pub(crate) fn role(&self, duchy: &DuchyId) -> Role {
        if *duchy == self.aggregator { Role::Aggregator } else { Role::Worker }
    }

    /// Every requisition, as it is before anything arrived. The nonce hashes must be those that the consumer signed.
    pub(crate) fn requisitions(&self, me: &DuchyId) -> Result<Vec<Requisition>, Refusal> {
        let mut found = Vec::with_capacity(self.requisitions.len());
        for (name, requisition) in &self.requisitions {
            let path = |field: &str| format!("{name}: {field} is no SHA-256");
            let hash = requisition.requisition_spec_hash.as_slice().try_into();
            let hash = hash.map_err(|_| Refusal::kingdom(path("requisition_spec_hash")))?;
            let nonce_hash = requisition.nonce_hash.as_slice().try_into();
            found.push(Requisition {
                computation: self.name.computation.to_string(),
                fingerprint: session::requisition_fingerprint_from_hash(&self.computation.measurement_spec, &hash),
                nonce_hash: nonce_hash.map_err(|_| Refusal::kingdom(path("nonce_hash")))?,
                here: self.fulfilling(name) == Some(me),
                name: name.to_string(),
                upload: None,
                announced: false,
            });
        }
        if found.windows(2).any(|pair| pair[0].name == pair[1].name) {
            return Err(Refusal::kingdom("requisitions: one is listed twice"));
        }
        let mut listed: Vec<[u8; 32]> = found.iter().map(|requisition| requisition.nonce_hash).collect();
        let mut signed = self.spec.nonce_hashes.clone();
        listed.sort_unstable();
        signed.sort_unstable();
        if listed != signed {
            return Err(Refusal::kingdom("requisitions: their nonce hashes are not those that the consumer signed"));
        }
        Ok(found)
    }

    /// Every publisher has taken part in this very measurement: its nonce is the one of the consumer, what it uploaded is
    /// what the Kingdom was told, and it encrypted under the keys that this Duchy knows.
    pub(crate) fn check_fulfilment(
        &self,
        stored: &[Requisition],
        parties: &Parties,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        for (name, requisition) in &self.requisitions {
            let blame = |reason: &str| Refusal {
                message: format!("{name}: {reason}"),
                culprits: vec![name.parent().to_string(), "kingdom".to_owned()],
            };
            if requisition.state() != system::requisition::State::Fulfilled {
                return Err(Refusal::kingdom(format!("{name}: is {}", requisition.state().as_str_name())));
            }
            if session::nonce_hash(requisition.nonce).as_slice() != requisition.nonce_hash {
                return Err(blame("its nonce is not the one that the consumer gave"));
            }
            let key_list_hash = self.fulfilling(name).and_then(|duchy| self.upload_key_list_hash(duchy));
            let key_list_hash = key_list_hash.ok_or_else(|| Refusal::kingdom(format!("{name}: a key is missing")))?;
            if requisition.key_list_hash != key_list_hash {
                return Err(blame("was encrypted under other keys than those that this Duchy was shown"));
            }
            self.protocol.check_fulfilled(self, parties, name, requisition, now).map_err(|reason| blame(&reason))?;
            let name = name.to_string();
            let known = stored
                .iter()
                .find(|stored| stored.name == name && stored.nonce_hash == requisition.nonce_hash.as_slice());
            let known = known.ok_or_else(|| Refusal::kingdom(format!("{name}: was not listed before")))?;
            if !known.here {
                continue;
            }
            let upload = known.upload.as_ref();
            let upload = upload.ok_or_else(|| Refusal::kingdom(format!("{name}: was never uploaded here")))?;
            if upload.body.sha256.as_slice() != requisition.body_sha256 || upload.key_list_hash != key_list_hash {
                return Err(Refusal::kingdom(format!("{name}: is not what was uploaded here")));
            }
        }
        if stored.len() != self.requisitions.len() {
            return Err(Refusal::kingdom("requisitions: some that were listed before are missing"));
        }
        Ok(())
    }

    /// The Duchies' keys: each signed, in this session, by a certificate that the Duchy's own authority issued, and what
    /// the protocol asks for. The own key must be the one that this Duchy drew. The Kingdom hands them out: where one is not
    /// right, it may have taken it from elsewhere, and is named beside the Duchy.
    pub(crate) fn verified_keys(
        &self,
        parties: &Parties,
        secrets: &ComputationSecrets,
        now: Timestamp,
    ) -> Result<Keys, Refusal> {
        let keys = self.keys(|duchy, certificate, key| {
            if *duchy == parties.me {
                if certificate.der() != parties.consent.certificate.der() {
                    return Err(Refusal::kingdom(format!("duchy {duchy}: its certificate is not the one it uses")));
                }
            } else {
                let roots = parties
                    .peer_roots
                    .get(duchy)
                    .ok_or_else(|| Refusal::new(format!("duchy {duchy} is not among the configured peers")))?;
                roots
                    .verify(certificate, now.unix_seconds())
                    .map_err(|error| Refusal::shown(duchy, format!("duchy {duchy}: {error}")))?;
            }
            certificate
                .verify_signature(&key.key, &key.oid, &key.signature)
                .map_err(|error| Refusal::shown(duchy, format!("duchy {duchy}: key: {error}")))?;
            self.protocol
                .check_key(self, duchy, certificate, &key.key)
                .map_err(|reason| Refusal::shown(duchy, format!("duchy {duchy}: {reason}")))
        })?;
        let own = self.protocol.public_key(self, &parties.consent, &parties.me, secrets);
        if keys.of(&parties.me).is_some_and(|listed| listed.key == own) {
            Ok(keys)
        } else {
            Err(Refusal::kingdom(format!("duchy {}: the Kingdom lists another key than it gave", parties.me)))
        }
    }

    /// The keys of a computation that this Duchy has confirmed: everything has been verified then, and the message does not
    /// change any more.
    pub(crate) fn confirmed_keys(&self) -> Result<Keys, Refusal> {
        self.keys(|_, _, _| Ok(()))
    }

    fn keys(&self, check: impl Fn(&DuchyId, &Certificate, &SignedKey) -> Result<(), Refusal>) -> Result<Keys, Refusal> {
        let mut keys = Vec::with_capacity(self.duchies.len());
        for participant in &self.computation.computation_participants {
            let duchy = participant_name(participant, &self.name)?.participant;
            let blame = |reason: String| Refusal::shown(&duchy, format!("duchy {duchy}: {reason}"));
            let params = participant
                .requisition_params
                .as_ref()
                .ok_or_else(|| Refusal::kingdom(format!("duchy {duchy}: its key is missing")))?;
            let published = params.protocol.as_ref().and_then(|params| self.protocol.published(params));
            let key =
                published.ok_or_else(|| blame(format!("it gave no key for the protocol {}", self.protocol.kind())))?;
            let name: CertificateName =
                params.duchy_certificate.parse().map_err(|error: halo_core::Error| blame(error.to_string()))?;
            if name.parent != CertificateParent::Duchy(DuchyName::new(duchy.clone())) {
                return Err(blame(format!("{name} is no certificate of it")));
            }
            let certificate =
                Certificate::from_der(&params.duchy_certificate_der).map_err(|error| blame(error.to_string()))?;
            check(&duchy, &certificate, &key)?;
            keys.push(PublishedKey { duchy, certificate, key: key.key });
        }
        Ok(Keys(keys))
    }
}

/// The publisher of a requisition, by the requisition's public name.
pub(crate) fn publisher(requisition: &str) -> String {
    requisition.parse().map_or_else(|_| requisition.to_owned(), |name: RequisitionName| name.parent().to_string())
}

/// The public name of a requisition of a computation.
fn requisition_name(
    computation: &ComputationName,
    requisition: &system::Requisition,
) -> Result<RequisitionName, Refusal> {
    let refuse = |error: halo_core::Error| Refusal::kingdom(format!("requisitions: {error}"));
    let name: ComputationRequisitionName = requisition.name.parse().map_err(refuse)?;
    if name.parent() != *computation {
        return Err(Refusal::kingdom(format!("requisitions: {name} is none of {computation}")));
    }
    let publisher: DataProviderName = requisition.data_provider.parse().map_err(refuse)?;
    Ok(RequisitionName::new(publisher.data_provider, name.requisition))
}

fn participant_name(
    participant: &system::ComputationParticipant,
    computation: &ComputationName,
) -> Result<ComputationParticipantName, Refusal> {
    let refuse = |reason: String| Refusal::kingdom(format!("computation_participants: {reason}"));
    let name: ComputationParticipantName =
        participant.name.parse().map_err(|error: halo_core::Error| refuse(error.to_string()))?;
    if name.parent() != *computation {
        return Err(refuse(format!("{name} is none of {computation}")));
    }
    Ok(name)
}
