//! What a computation is about: the Kingdom's message, read and checked rule by rule.
//!
//! Nothing is taken on the Kingdom's word. The consumer signed the measurement spec, and this Duchy's configuration says
//! whose signatures count. Protocol configuration and list of Duchies enter the session, over which every Duchy proves
//! its key share; publishers and Duchies that were shown different ones do not find each other's proofs or key lists
//! valid.

use std::collections::BTreeSet;

use halo_core::clock::Timestamp;
use halo_core::measurement::{Llv2Config, MeasurementSpec, MeasurementType, Protocol};
use halo_core::pb::system;
use halo_core::pb::system::computation_participant::requisition_params;
use halo_core::privacy::NoiseCalibration;
use halo_core::resource::{
    CertificateName, CertificateParent, ComputationName, ComputationParticipantName, ComputationRequisitionName,
    DataProviderName, DuchyId, DuchyName, MeasurementConsumerName, RequisitionName,
};
use halo_core::session;
use halo_core::wire;
use halo_crypto::consent::x509::Certificate;
use halo_crypto::elgamal::KeyShare;
use halo_crypto::proof::PossessionContext;
use halo_sketch::liquid_legions;
use prost::Message;

use super::config::NoiseFloor;
use super::parties::Parties;
use super::stage::Role;
use super::store::Requisition;
use crate::protocol::llv2::{NoiseParameters, Parameters, Participant};

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

    fn kingdom(message: impl Into<String>) -> Self {
        Self { message: message.into(), culprits: vec!["kingdom".to_owned()] }
    }

    fn duchy(duchy: &DuchyId, message: impl Into<String>) -> Self {
        Self { message: message.into(), culprits: vec![DuchyName::new(duchy.clone()).to_string()] }
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
    pub(crate) llv2: Llv2Config,
    /// All Duchies, ascending by id.
    pub(crate) duchies: Vec<DuchyId>,
    /// The session that key shares are proven for.
    pub(crate) session: [u8; 32],
    computation: system::Computation,
}

/// The Duchies' proven key shares.
#[derive(Debug)]
pub(crate) struct Keys {
    /// In ring order, the aggregator last.
    pub(crate) ring: Vec<Participant>,
    /// Hash of the list, as publishers and Duchies confirm it.
    pub(crate) hash: [u8; 32],
}

impl Terms {
    /// Reads the Kingdom's message; does not verify the consumer's signature.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, Refusal> {
        let computation =
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
        let llv2 = match config.protocol {
            Protocol::Llv2(llv2) => llv2,
            other => return Err(Refusal::new(format!("this Duchy does not serve the protocol {}", other.kind()))),
        };
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
        Ok(Self { name, spec, llv2, duchies, session, computation })
    }

    /// Checks everything that this Duchy must not take on the Kingdom's word before it draws a key.
    pub(crate) fn check(&self, parties: &Parties, floor: &NoiseFloor, now: Timestamp) -> Result<(), Refusal> {
        self.check_consumer(parties, now)?;
        if !self.duchies.contains(&parties.me) {
            return Err(Refusal::kingdom(format!("{} is none of the computation's Duchies", parties.me)));
        }
        for duchy in self.duchies.iter().filter(|duchy| **duchy != parties.me) {
            if !parties.peer_roots.contains_key(duchy) {
                return Err(Refusal::new(format!("{} does not know duchy {duchy}; add it to peers", parties.me)));
            }
        }
        if !self.duchies.contains(self.aggregator()) {
            return Err(Refusal::kingdom(format!(
                "aggregator {} is none of the computation's Duchies",
                self.aggregator()
            )));
        }
        if self.computation.aggregator != self.aggregator().as_str() {
            return Err(Refusal::kingdom("aggregator: is another one in serialized_protocol_config"));
        }
        self.check_noise(floor)?;
        self.parameters()?.check(self.duchies.len()).map_err(|error| Refusal::new(error.to_string()))?;
        self.requisitions(&parties.me).map(drop)
    }

    /// The noise inside the protocol protects what this Duchy's publishers have sent. The Kingdom alone chooses it, so
    /// it must not fall below what this Duchy's operator asks for.
    fn check_noise(&self, floor: &NoiseFloor) -> Result<(), Refusal> {
        let Some(noise) = &self.llv2.noise else {
            return if floor.allow_no_noise {
                Ok(())
            } else {
                Err(Refusal::new("the measurement goes without noise, which is not allowed here (allow_no_noise)"))
            };
        };
        for (name, params) in [
            ("data_provider_noise", noise.data_provider),
            ("blinded_histogram_noise", noise.blinded_histogram),
            ("noise_for_publisher_noise", noise.for_publisher_noise),
        ] {
            let (epsilon, delta) = (params.epsilon.get(), params.delta.get());
            if epsilon > floor.maximum_internal_epsilon || delta > floor.maximum_internal_delta {
                return Err(Refusal::new(format!(
                    "{name}: {params} is less noise than ({}, {}), which is asked for here (maximum_internal_epsilon, \
                     maximum_internal_delta)",
                    floor.maximum_internal_epsilon, floor.maximum_internal_delta
                )));
            }
        }
        if noise.calibration == NoiseCalibration::Reference && !floor.allow_reference_calibration {
            return Err(Refusal::new(
                "the noise is calibrated as the reference does, which proves less and is not allowed here \
                 (allow_reference_calibration)",
            ));
        }
        if noise.honest_contributors > floor.maximum_honest_contributors {
            return Err(Refusal::new(format!(
                "the noise of {} Duchies together is to suffice; here at most {} are relied on \
                 (maximum_honest_contributors)",
                noise.honest_contributors, floor.maximum_honest_contributors
            )));
        }
        Ok(())
    }

    /// Hash of the list of all keys, once the Kingdom has told all.
    pub(crate) fn key_list_hash(&self) -> Option<[u8; 32]> {
        let keys: Option<Vec<(DuchyId, &[u8])>> = self
            .computation
            .computation_participants
            .iter()
            .map(|participant| {
                let duchy = participant_name(participant, &self.name).ok()?.participant;
                match &participant.requisition_params.as_ref()?.protocol {
                    Some(requisition_params::Protocol::LiquidLegionsV2(llv2)) => {
                        Some((duchy, llv2.el_gamal_public_key.as_slice()))
                    }
                    _ => None,
                }
            })
            .collect();
        keys.map(|keys| session::key_list_hash(&keys))
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

    /// The Duchy that joins and reports.
    pub(crate) fn aggregator(&self) -> &DuchyId {
        &self.llv2.aggregator
    }

    /// What a Duchy is in the computation.
    pub(crate) fn role(&self, duchy: &DuchyId) -> Role {
        if duchy == self.aggregator() { Role::Aggregator } else { Role::Worker }
    }

    /// The engine's parameters.
    pub(crate) fn parameters(&self) -> Result<Parameters, Refusal> {
        let llv2 = &self.llv2;
        let sketch = liquid_legions::Params::new(llv2.decay_rate, llv2.max_size, llv2.sampling_indicator_size)
            .map_err(|error| Refusal::kingdom(format!("protocol_config: sketch_params: {error}")))?;
        let (reach, frequency) = match &self.spec.kind {
            MeasurementType::Reach { reach } => (*reach, None),
            MeasurementType::ReachAndFrequency { reach, frequency, .. } => (*reach, Some(*frequency)),
            _ => return Err(Refusal::kingdom("measurement_spec: asks neither for reach nor for frequency")),
        };
        let noise = llv2.noise.as_ref().map(|noise| NoiseParameters {
            mechanism: noise.mechanism,
            calibration: noise.calibration,
            honest_contributors: noise.honest_contributors,
            reach,
            frequency,
            blinded_histogram: noise.blinded_histogram,
            noise_for_publisher_noise: noise.for_publisher_noise,
        });
        let publishers = u32::try_from(self.computation.requisitions.len())
            .map_err(|_| Refusal::kingdom("requisitions: there are too many"))?;
        Ok(Parameters {
            sketch,
            maximum_frequency: self.spec.kind.maximum_frequency(),
            sampling_width: self.spec.vid_sampling_interval.width(),
            noise,
            publishers,
        })
    }

    /// Every requisition, as it is before anything arrived. The nonce hashes must be those that the consumer signed.
    pub(crate) fn requisitions(&self, me: &DuchyId) -> Result<Vec<Requisition>, Refusal> {
        let mut found = Vec::with_capacity(self.computation.requisitions.len());
        for requisition in &self.computation.requisitions {
            let name = self.requisition_name(requisition)?;
            let path = |field: &str| format!("{name}: {field} is no SHA-256");
            let hash = requisition.requisition_spec_hash.as_slice().try_into();
            let hash = hash.map_err(|_| Refusal::kingdom(path("requisition_spec_hash")))?;
            let nonce_hash = requisition.nonce_hash.as_slice().try_into();
            found.push(Requisition {
                computation: self.name.computation.to_string(),
                fingerprint: session::requisition_fingerprint_from_hash(&self.computation.measurement_spec, &hash),
                nonce_hash: nonce_hash.map_err(|_| Refusal::kingdom(path("nonce_hash")))?,
                here: session::fulfilling_duchy(&name, &self.duchies) == Some(me),
                name: name.to_string(),
                upload: None,
                announced: false,
            });
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
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

    fn requisition_name(&self, requisition: &system::Requisition) -> Result<RequisitionName, Refusal> {
        let refuse = |error: halo_core::Error| Refusal::kingdom(format!("requisitions: {error}"));
        let name: ComputationRequisitionName = requisition.name.parse().map_err(refuse)?;
        if name.parent() != self.name {
            return Err(Refusal::kingdom(format!("requisitions: {name} is none of {}", self.name)));
        }
        let publisher: DataProviderName = requisition.data_provider.parse().map_err(refuse)?;
        Ok(RequisitionName::new(publisher.data_provider, name.requisition))
    }

    /// Every publisher has taken part in this very measurement: its nonce is the one of the consumer, what it uploaded is
    /// what the Kingdom was told, and it encrypted under the keys that this Duchy knows.
    pub(crate) fn check_fulfilment(&self, stored: &[Requisition], keys: &Keys) -> Result<(), Refusal> {
        for requisition in &self.computation.requisitions {
            let name = self.requisition_name(requisition)?;
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
            if requisition.key_list_hash != keys.hash {
                return Err(blame("was encrypted under other keys than those that this Duchy was shown"));
            }
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
            if upload.body.sha256.as_slice() != requisition.body_sha256 || upload.key_list_hash != keys.hash {
                return Err(Refusal::kingdom(format!("{name}: is not what was uploaded here")));
            }
        }
        if stored.len() != self.computation.requisitions.len() {
            return Err(Refusal::kingdom("requisitions: some that were listed before are missing"));
        }
        Ok(())
    }

    /// The Duchies' key shares: each signed, in this session, by a certificate that the Duchy's own authority issued, and
    /// proven. `own_share` is the share that this Duchy drew.
    pub(crate) fn verified_keys(
        &self,
        parties: &Parties,
        own_share: &KeyShare,
        now: Timestamp,
    ) -> Result<Keys, Refusal> {
        self.keys(|duchy, certificate, key, oid, signature| {
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
                    .map_err(|error| Refusal::duchy(duchy, format!("duchy {duchy}: {error}")))?;
            }
            certificate
                .verify_signature(key, oid, signature)
                .map_err(|error| Refusal::duchy(duchy, format!("duchy {duchy}: key: {error}")))
        })
        .and_then(|keys| {
            let own = keys.ring.iter().find(|participant| participant.id == parties.me);
            if own.is_some_and(|own| own.key.share() == *own_share) {
                Ok(keys)
            } else {
                Err(Refusal::kingdom(format!("duchy {}: the Kingdom lists another key than it gave", parties.me)))
            }
        })
    }

    /// The key shares of a computation that this Duchy has confirmed: the signatures have been verified then, and the
    /// message does not change any more.
    pub(crate) fn confirmed_keys(&self) -> Result<Keys, Refusal> {
        self.keys(|_, _, _, _, _| Ok(()))
    }

    fn keys(
        &self,
        check: impl Fn(&DuchyId, &Certificate, &[u8], &str, &[u8]) -> Result<(), Refusal>,
    ) -> Result<Keys, Refusal> {
        let mut serialized = Vec::with_capacity(self.duchies.len());
        let mut shares = Vec::with_capacity(self.duchies.len());
        for participant in &self.computation.computation_participants {
            let duchy = participant_name(participant, &self.name)?.participant;
            let blame = |reason: String| Refusal::duchy(&duchy, format!("duchy {duchy}: {reason}"));
            let params = participant
                .requisition_params
                .as_ref()
                .ok_or_else(|| Refusal::kingdom(format!("duchy {duchy}: its key is missing")))?;
            let Some(requisition_params::Protocol::LiquidLegionsV2(llv2)) = &params.protocol else {
                return Err(blame("it gave no key for Liquid Legions v2".to_owned()));
            };
            let name: CertificateName =
                params.duchy_certificate.parse().map_err(|error: halo_core::Error| blame(error.to_string()))?;
            if name.parent != CertificateParent::Duchy(DuchyName::new(duchy.clone())) {
                return Err(blame(format!("{name} is no certificate of it")));
            }
            let certificate =
                Certificate::from_der(&params.duchy_certificate_der).map_err(|error| blame(error.to_string()))?;
            let bytes = llv2.el_gamal_public_key.as_slice();
            let oid = &llv2.el_gamal_public_key_signature_algorithm_oid;
            check(&duchy, &certificate, bytes, oid, &llv2.el_gamal_public_key_signature)?;
            let key = wire::parse_el_gamal_public_key(bytes).map_err(|error| blame(error.to_string()))?;
            let context = PossessionContext {
                session: self.session,
                duchy: duchy.as_str(),
                certificate_sha256: certificate.sha256(),
            };
            let share = KeyShare::from_bytes(key.element)
                .verify_possession(&context, &key.proof_of_possession)
                .map_err(|error| blame(error.to_string()))?;
            serialized.push((duchy.clone(), bytes));
            shares.push((duchy, share));
        }
        let order = session::ring_order(&self.name.computation.to_string(), &serialized, self.aggregator());
        let ring = order.into_iter().filter_map(|id| {
            let (_, key) = shares.iter().find(|(duchy, _)| *duchy == id)?;
            Some(Participant { id, key: *key })
        });
        Ok(Keys { ring: ring.collect(), hash: session::key_list_hash(&serialized) })
    }
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
