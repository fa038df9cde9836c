//! Measurements as an honest Kingdom reports them, and what publishers and Duchies hand in for them. Tests falsify what
//! they want.

use halo_core::{
    measurement::{LiquidLegionsNoise, Llv2Config, MeasurementKind, Protocol, ProtocolConfig},
    pb::{
        api::{self, fulfill_requisition_request as upload},
        system::{
            self, advance_computation_request as delivery,
            computation::State,
            computation_participant::{RequisitionParams, requisition_params},
        },
    },
    privacy::{NoiseCalibration, NoiseMechanism, PrivacyParams},
    resource::{DuchyId, ExternalId, RequisitionName},
    session,
    wire::{self, type_name},
};
use halo_crypto::{
    consent::{tink::PrivateKeyset, x509::ECDSA_WITH_SHA256},
    group::{Point, Scalar},
};
use prost::Message;
use sha2::{Digest, Sha256};

use crate::world::{CONSUMER, DUCHIES, ME, NONCES, PUBLISHERS, World, id, rng};

/// Bytes of a register: three ciphertexts of two group elements.
pub(crate) const REGISTER: usize = 192;

/// What is signed and frozen when a measurement begins.
pub(crate) struct Plan {
    number: u64,
    pub(crate) spec: api::MeasurementSpec,
    pub(crate) config: ProtocolConfig,
    pub(crate) duchies: Vec<&'static str>,
}

impl Plan {
    /// A plan that everybody agrees with. Measurements with different numbers have nothing in common.
    pub(crate) fn new(number: u64) -> Self {
        let mut key = api::EncryptionPublicKey {
            data: PrivateKeyset::generate_hpke(&mut rng()).public().to_bytes(),
            ..Default::default()
        };
        key.set_format(api::encryption_public_key::Format::TinkKeyset);
        let privacy = Some(api::DifferentialPrivacyParams { epsilon: 1.0, delta: 1e-9 });
        let asked = api::measurement_spec::ReachAndFrequency {
            reach_privacy_params: privacy,
            frequency_privacy_params: privacy,
            maximum_frequency: 10,
        };
        let noise = PrivacyParams::new(1.0, 1e-9).unwrap();
        Self {
            number,
            spec: api::MeasurementSpec {
                measurement_public_key: Some(wire::pack(type_name::ENCRYPTION_PUBLIC_KEY, key.encode_to_vec())),
                nonce_hashes: NONCES.map(|nonce| session::nonce_hash(nonce).to_vec()).to_vec(),
                vid_sampling_interval: Some(api::measurement_spec::VidSamplingInterval { start: 0.0, width: 1.0 }),
                measurement_type: Some(api::measurement_spec::MeasurementType::ReachAndFrequency(asked)),
                ..Default::default()
            },
            config: ProtocolConfig {
                kind: MeasurementKind::ReachAndFrequency,
                protocol: Protocol::Llv2(Llv2Config {
                    decay_rate: 12.0,
                    max_size: 100_000,
                    sampling_indicator_size: 10_000_000,
                    noise: Some(LiquidLegionsNoise {
                        mechanism: NoiseMechanism::DiscreteGaussian,
                        calibration: NoiseCalibration::Exact,
                        honest_contributors: 1,
                        data_provider: noise,
                        blinded_histogram: noise,
                        for_publisher_noise: noise,
                    }),
                    aggregator: id(ME).parse().unwrap(),
                }),
            },
            duchies: DUCHIES.to_vec(),
        }
    }

    /// The same without any noise.
    pub(crate) fn without_noise(number: u64) -> Self {
        let mut plan = Self::new(number);
        plan.llv2().noise = None;
        plan
    }

    /// How it is computed.
    pub(crate) fn llv2(&mut self) -> &mut Llv2Config {
        match &mut self.config.protocol {
            Protocol::Llv2(llv2) => llv2,
            other => panic!("{other:?}"),
        }
    }

    /// The measurement as the Kingdom reports it at first, signed by the consumer.
    pub(crate) fn measurement(&self, world: &World) -> Measurement {
        let external = |value: u64| ExternalId::new(value).unwrap().to_string();
        let ids: Vec<DuchyId> = DUCHIES.map(|name| id(name).parse().unwrap()).to_vec();
        let first = self.number * 1000;
        let requisitions = [(PUBLISHERS[0], ME), (PUBLISHERS[1], DUCHIES[1])].map(|(publisher, duchy)| {
            let mut names = (first + 1..).map(|value| format!("{publisher}/requisitions/{}", external(value)));
            let fits = |name: &String| {
                let name: RequisitionName = name.parse().unwrap();
                session::fulfilling_duchy(&name, &ids).unwrap().as_str() == id(duchy)
            };
            names.find(fits).unwrap()
        });
        let name = format!("computations/{}", external(first));
        let consumer = world.party(CONSUMER);
        let spec = self.spec.encode_to_vec();
        let mut computation = system::Computation {
            public_api_version: "v2alpha".to_owned(),
            measurement_spec_signature: consumer.key.sign(&spec),
            measurement_spec_signature_algorithm_oid: ECDSA_WITH_SHA256.to_owned(),
            measurement_consumer: CONSUMER.to_owned(),
            measurement_consumer_certificate_der: consumer.certificate.der().to_vec(),
            measurement_spec: spec,
            mpc_protocol_config: wire::mpc_protocol_config(&self.config),
            serialized_protocol_config: wire::protocol_config(&self.config).encode_to_vec(),
            aggregator: self.config.protocol.aggregator().unwrap().to_string(),
            ..Default::default()
        };
        computation.set_state(State::PendingRequisitionParams);
        let participants = self.duchies.iter().map(|duchy| system::ComputationParticipant {
            name: format!("{name}/participants/{}", id(duchy)),
            state: system::computation_participant::State::Created.into(),
            ..Default::default()
        });
        let listed = (0..2).map(|publisher| system::Requisition {
            name: format!("{name}/requisitions/{}", id(&requisitions[publisher])),
            requisition_spec_hash: session::requisition_spec_hash(requisitions[publisher].as_bytes()).to_vec(),
            nonce_hash: session::nonce_hash(NONCES[publisher]).to_vec(),
            state: system::requisition::State::Unfulfilled.into(),
            data_provider: PUBLISHERS[publisher].to_owned(),
            ..Default::default()
        });
        computation.computation_participants = participants.collect();
        computation.requisitions = listed.collect();
        computation.name.clone_from(&name);
        Measurement { computation, requisitions, own_key: None }
    }
}

/// A measurement as the Kingdom reports it, and what else the test knows of it.
pub(crate) struct Measurement {
    pub(crate) computation: system::Computation,
    /// Public names of the requisitions.
    pub(crate) requisitions: [String; 2],
    /// What the Duchy under test gave.
    pub(crate) own_key: Option<RequisitionParams>,
}

impl Measurement {
    /// The session that the Duchies prove their keys for.
    pub(crate) fn session(&self) -> [u8; 32] {
        let parts = self.computation.computation_participants.iter();
        let ids: Vec<DuchyId> = parts.map(|part| id(&part.name).parse().unwrap()).collect();
        session::session_id(&self.computation.measurement_spec, &self.computation.serialized_protocol_config, &ids)
    }

    /// What the Kingdom reports of a Duchy.
    pub(crate) fn participant(&mut self, duchy: &str) -> &mut system::ComputationParticipant {
        let parts = &mut self.computation.computation_participants;
        parts.iter_mut().find(|part| id(&part.name) == id(duchy)).unwrap()
    }

    /// The key share that the Kingdom reports of a Duchy.
    pub(crate) fn key(&mut self, duchy: &str) -> &mut requisition_params::LiquidLegionsV2 {
        let params = self.participant(duchy).requisition_params.as_mut().unwrap();
        match &mut params.protocol {
            Some(requisition_params::Protocol::LiquidLegionsV2(llv2)) => llv2,
            other => panic!("{other:?}"),
        }
    }

    /// The Kingdom lists the key of the Duchy under test, and one for each other.
    pub(crate) fn set_keys(&mut self, world: &World) {
        let session = self.session();
        for duchy in DUCHIES {
            let own = self.own_key.clone().filter(|_| duchy == ME);
            let params = own.unwrap_or_else(|| world.key_share(duchy, session));
            self.participant(duchy).requisition_params = Some(params);
        }
    }

    fn key_list(&self) -> Vec<(DuchyId, Vec<u8>)> {
        let parts = self.computation.computation_participants.iter();
        let keys = parts.map(|part| {
            let Some(RequisitionParams { protocol: Some(requisition_params::Protocol::LiquidLegionsV2(llv2)), .. }) =
                &part.requisition_params
            else {
                panic!("{part:?}");
            };
            (id(&part.name).parse().unwrap(), llv2.el_gamal_public_key.clone())
        });
        keys.collect()
    }

    /// The hash of the Duchies' keys as the Kingdom hands them out.
    pub(crate) fn key_list_hash(&self) -> Vec<u8> {
        let keys = self.key_list();
        let keys: Vec<(DuchyId, &[u8])> = keys.iter().map(|(duchy, key)| (duchy.clone(), key.as_slice())).collect();
        session::key_list_hash(&keys).to_vec()
    }

    /// The workers in the order in which they pass vectors on.
    pub(crate) fn workers(&self) -> [String; 2] {
        let keys = self.key_list();
        let keys: Vec<(DuchyId, &[u8])> = keys.iter().map(|(duchy, key)| (duchy.clone(), key.as_slice())).collect();
        let order = session::ring_order(id(&self.computation.name), &keys, &id(ME).parse().unwrap());
        [format!("duchies/{}", order[0]), format!("duchies/{}", order[1])]
    }

    /// What the first publisher has to upload to the Duchy under test.
    pub(crate) fn upload(&self, body: Vec<u8>) -> Upload {
        let hash = self.computation.requisitions[0].requisition_spec_hash.as_slice().try_into().unwrap();
        let fingerprint = session::requisition_fingerprint_from_hash(&self.computation.measurement_spec, &hash);
        let header = upload::Header {
            name: self.requisitions[0].clone(),
            requisition_fingerprint: fingerprint.to_vec(),
            nonce: NONCES[0],
            key_list_hash: self.key_list_hash(),
            body_length: body.len() as i64,
            record_count: (body.len() / REGISTER) as i64,
            body_sha256: Sha256::digest(&body).to_vec(),
            ..Default::default()
        };
        Upload { header, body }
    }

    /// What a Duchy delivers for a step.
    pub(crate) fn delivery(&self, description: system::liquid_legions_v2::Description, body: Vec<u8>) -> Delivery {
        let llv2 = system::LiquidLegionsV2 { description: description.into() };
        let header = delivery::Header {
            name: self.computation.name.clone(),
            protocol: Some(delivery::header::Protocol::LiquidLegionsV2(llv2)),
            body_length: body.len() as i64,
            record_count: (body.len() / REGISTER) as i64,
            body_sha256: Sha256::digest(&body).to_vec(),
            offset: 0,
        };
        Delivery { header, body }
    }

    /// Both publishers have uploaded: the first one what this header announced.
    pub(crate) fn set_fulfilled(&mut self, header: &upload::Header) {
        let key_list_hash = self.key_list_hash();
        let computation = self.computation.name.clone();
        let parts = self.computation.requisitions.iter_mut();
        for ((requisition, nonce), duchy) in parts.zip(NONCES).zip([ME, DUCHIES[1]]) {
            requisition.set_state(system::requisition::State::Fulfilled);
            requisition.nonce = nonce;
            requisition.key_list_hash.clone_from(&key_list_hash);
            requisition.body_sha256.clone_from(&header.body_sha256);
            requisition.record_count = header.record_count;
            requisition.fulfilling_computation_participant = format!("{computation}/participants/{}", id(duchy));
        }
    }
}

/// Registers of group elements that mean nothing; other ones for another `seed`.
pub(crate) fn registers(count: usize, seed: u64) -> Vec<u8> {
    let points =
        (0..count * REGISTER / 32).map(|i| Point::generator() * &Scalar::from(seed * 1_000_000 + 1 + i as u64));
    points.flat_map(|point| *point.encode().as_bytes()).collect()
}

/// A publisher's upload.
#[derive(Clone)]
pub(crate) struct Upload {
    pub(crate) header: upload::Header,
    pub(crate) body: Vec<u8>,
}

/// A delivery of another Duchy.
#[derive(Clone)]
pub(crate) struct Delivery {
    pub(crate) header: delivery::Header,
    pub(crate) body: Vec<u8>,
}
