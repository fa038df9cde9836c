//! Parties of a measurement with certificates of their own, and the requisition that they put together.

use std::collections::BTreeMap;

use halo_core::{
    measurement::{
        self, DirectConfig, HmssConfig, HmssNoise, HmssVariant, LiquidLegionsNoise, MeasurementKind, Rollv2Config,
        TrusteeConfig, TrusteeNoise, TrusteeThresholds,
    },
    pb::api::{
        self, DifferentialPrivacyParams, ElGamalPublicKey, EncryptedMessage, EncryptionPublicKey,
        LiquidLegionsSketchParams, MeasurementSpec, ProtocolConfig, RequisitionSpec, SignedMessage,
        measurement_spec::{MeasurementType, ReachAndFrequency, VidSamplingInterval},
        protocol_config::{self, LiquidLegionsV2, Protocol, protocol},
        requisition::{DuchyEntry, duchy_entry},
        requisition_spec::{EventFilter, EventGroupEntry, Events, RequisitionType, event_group_entry},
    },
    privacy::{NoiseCalibration, NoiseMechanism, PrivacyParams},
    resource::DuchyId,
    session,
    wire::{self, type_name},
};
use halo_crypto::{
    attestation::{Attestation, SimulatedAttestation, Statement},
    consent::{
        tink::PrivateKeyset,
        x509::{Certificate, ECDSA_WITH_SHA256, SigningKey},
    },
    elgamal::KeyShareSecret,
    group::Point,
    proof::PossessionContext,
};
use halo_edp_sdk::sign::Signer;
use prost::Message;
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

pub(crate) const PUBLISHER: &str = "dataProviders/AAAAAAAAAAE";
pub(crate) const CONSUMER: &str = "measurementConsumers/AAAAAAAAAAI";
pub(crate) const REQUISITION: &str = "dataProviders/AAAAAAAAAAE/requisitions/AAAAAAAAAAM";
pub(crate) const DUCHIES: [&str; 3] = ["aggregator", "worker1", "worker2"];
pub(crate) const WORKERS: [&str; 2] = ["worker1", "worker2"];
/// The worker that takes the upload of [`REQUISITION`].
pub(crate) const FULFILLING_WORKER: &str = "worker2";
/// The other one.
pub(crate) const SEED_WORKER: &str = "worker1";
/// The Duchy with a trusted execution environment.
pub(crate) const TRUSTEE: &str = "aggregator";
pub(crate) const NONCE: u64 = 0x0123_4567_89ab_cdef;

/// An organisation's authority.
pub(crate) type Authority = CertifiedIssuer<'static, KeyPair>;

/// An authority of this name.
pub(crate) fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate that the authority issued for the local host, and its key, both in PEM.
pub(crate) fn issue(authority: &Authority) -> (String, String) {
    let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    params.use_authority_key_identifier_extension = true;
    params.is_ca = IsCa::ExplicitNoCa;
    let key = KeyPair::generate().unwrap();
    (params.signed_by(&key, authority).unwrap().pem(), key.serialize_pem())
}

/// An organisation with a consent certificate.
pub(crate) struct Party {
    pub(crate) authority: Authority,
    pub(crate) certificate: Certificate,
    /// The certificate and its key, both in PEM.
    pub(crate) pem: (String, String),
    key: SigningKey,
}

impl Party {
    fn new(name: &str) -> Self {
        let authority = authority(name);
        let (certificate, key) = issue(&authority);
        Self {
            certificate: Certificate::from_pem(certificate.as_bytes()).unwrap(),
            key: SigningKey::from_pkcs8_pem(&key).unwrap(),
            pem: (certificate, key),
            authority,
        }
    }

    /// What it signs with.
    pub(crate) fn signer(&self) -> Signer {
        Signer::new(self.certificate.clone(), SigningKey::from_pkcs8_pem(&self.pem.1).unwrap()).unwrap()
    }

    fn sign(&self, name: &str, bytes: Vec<u8>) -> SignedMessage {
        SignedMessage {
            signature: self.key.sign(&bytes),
            signature_algorithm_oid: ECDSA_WITH_SHA256.to_owned(),
            message: Some(wire::pack(name, bytes)),
            ..SignedMessage::default()
        }
    }
}

/// Everybody, and what they are about to sign. Tests alter it, and then ask for the [`World::requisition`].
pub(crate) struct World {
    pub(crate) consumer: Party,
    pub(crate) publisher: Party,
    pub(crate) duchies: BTreeMap<&'static str, Party>,
    pub(crate) keyset: PrivateKeyset,
    /// What results are encrypted to.
    pub(crate) result_keyset: PrivateKeyset,
    /// What seeds are encrypted to, by worker.
    pub(crate) worker_keysets: BTreeMap<&'static str, PrivateKeyset>,
    /// What trustees' keys of vectors are encrypted to.
    pub(crate) trustee_keyset: PrivateKeyset,
    /// Whether workers sign something that is no key.
    pub(crate) broken_worker_key: bool,
    /// The Duchies' shares of the joint key.
    pub(crate) secrets: BTreeMap<&'static str, KeyShareSecret>,
    pub(crate) spec: MeasurementSpec,
    pub(crate) own_spec: RequisitionSpec,
    pub(crate) config: ProtocolConfig,
    /// The session that the Duchies prove possession for, where it is not the measurement's.
    pub(crate) other_session: Option<[u8; 32]>,
    /// The curve that the Duchies say their keys are on.
    pub(crate) curve: i32,
}

fn privacy(epsilon: f64, delta: f64) -> Option<DifferentialPrivacyParams> {
    Some(DifferentialPrivacyParams { epsilon, delta })
}

impl World {
    pub(crate) fn new() -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let consumer_keyset = PrivateKeyset::generate_hpke(&mut rng);
        let public_key = wire::pack(type_name::ENCRYPTION_PUBLIC_KEY, public_key(&consumer_keyset, &[]));
        let mut llv2 = LiquidLegionsV2 {
            sketch_params: Some(LiquidLegionsSketchParams {
                decay_rate: 12.0,
                max_size: 100_000,
                sampling_indicator_size: 10_000_000,
            }),
            data_provider_noise: privacy(1.0, 1e-6),
            blinded_histogram_noise: privacy(1.0, 1e-6),
            noise_for_publisher_noise: privacy(1.0, 1e-6),
            elliptic_curve_id: 1087,
            honest_contributors: 1,
            aggregator: "aggregator".to_owned(),
            ..Default::default()
        };
        llv2.set_noise_mechanism(protocol_config::NoiseMechanism::DiscreteGaussian);
        llv2.set_noise_calibration(protocol_config::NoiseCalibration::Exact);
        let mut config = ProtocolConfig {
            protocols: vec![Protocol { protocol: Some(protocol::Protocol::LiquidLegionsV2(llv2)) }],
            ..Default::default()
        };
        config.set_measurement_type(protocol_config::MeasurementType::ReachAndFrequency);
        Self {
            consumer: Party::new("consumer"),
            publisher: Party::new("publisher"),
            worker_keysets: WORKERS.map(|worker| (worker, PrivateKeyset::generate_hpke(&mut rng))).into(),
            result_keyset: consumer_keyset,
            trustee_keyset: PrivateKeyset::generate_hpke(&mut rng),
            broken_worker_key: false,
            secrets: DUCHIES.map(|duchy| (duchy, KeyShareSecret::generate(&mut rng))).into(),
            duchies: DUCHIES.map(|duchy| (duchy, Party::new(duchy))).into(),
            keyset: PrivateKeyset::generate_hpke(&mut rng),
            spec: MeasurementSpec {
                measurement_public_key: Some(public_key.clone()),
                nonce_hashes: vec![session::nonce_hash(7).to_vec(), session::nonce_hash(NONCE).to_vec()],
                vid_sampling_interval: Some(VidSamplingInterval { start: 0.0, width: 1.0 }),
                measurement_type: Some(MeasurementType::ReachAndFrequency(ReachAndFrequency {
                    reach_privacy_params: privacy(1.0, 1e-6),
                    frequency_privacy_params: privacy(1.0, 1e-6),
                    maximum_frequency: 5,
                })),
                ..Default::default()
            },
            own_spec: RequisitionSpec {
                measurement_public_key: Some(public_key),
                nonce: NONCE,
                requisition_type: Some(RequisitionType::Events(Events { event_groups: vec![event_group("")] })),
                ..Default::default()
            },
            config,
            other_session: None,
            curve: 1087,
        }
    }

    /// The same for another question by another protocol.
    pub(crate) fn of(question: MeasurementType, protocol: measurement::Protocol) -> Self {
        let mut world = Self::new();
        world.ask(question, protocol);
        world
    }

    /// Asks another question, by another protocol.
    pub(crate) fn ask(&mut self, question: MeasurementType, protocol: measurement::Protocol) {
        let kind = match question {
            MeasurementType::Reach(_) => MeasurementKind::Reach,
            MeasurementType::ReachAndFrequency(_) => MeasurementKind::ReachAndFrequency,
            MeasurementType::Impression(_) => MeasurementKind::Impression,
            MeasurementType::Duration(_) => MeasurementKind::Duration,
            MeasurementType::Population(_) => {
                self.own_spec.requisition_type = Some(RequisitionType::Population(Default::default()));
                MeasurementKind::Population
            }
        };
        // People that several publishers reached are counted once, which nobody can do alone.
        if matches!(kind, MeasurementKind::Reach | MeasurementKind::ReachAndFrequency)
            && matches!(protocol, measurement::Protocol::Direct(_))
        {
            self.spec.nonce_hashes = vec![session::nonce_hash(NONCE).to_vec()];
        }
        self.spec.measurement_type = Some(question);
        self.config = wire::protocol_config(&measurement::ProtocolConfig { kind, protocol });
    }

    /// The parameters inside the protocol configuration.
    pub(crate) fn llv2(&mut self) -> &mut LiquidLegionsV2 {
        match &mut self.config.protocols[0].protocol {
            Some(protocol::Protocol::LiquidLegionsV2(llv2)) => llv2,
            other => panic!("{other:?}"),
        }
    }

    /// What the Kingdom hands out, everything signed.
    pub(crate) fn requisition(&self) -> api::Requisition {
        let mut rng = ChaCha20Rng::seed_from_u64(2);
        let spec = self.spec.encode_to_vec();
        let config = self.config.encode_to_vec();
        let session = self.other_session.unwrap_or_else(|| session::session_id(&spec, &config, &duchies()));
        let own = self.consumer.sign(type_name::REQUISITION_SPEC, self.own_spec.encode_to_vec()).encode_to_vec();
        let entry = |id: &str, protocol| DuchyEntry {
            key: format!("duchies/{id}"),
            value: Some(duchy_entry::Value { duchy_certificate: duchy_certificate(id), protocol: Some(protocol) }),
        };
        let mut ring_entry = |id: &str, party: &Party, reach_only: bool| {
            let secret = &self.secrets[id];
            let context = PossessionContext { session, duchy: id, certificate_sha256: party.certificate.sha256() };
            let key = ElGamalPublicKey {
                elliptic_curve_id: self.curve,
                generator: Point::generator().encode().as_bytes().to_vec(),
                element: secret.public().as_bytes().to_vec(),
                proof_of_possession: secret.prove_possession(&context, &mut rng).to_vec(),
            };
            let key = party.sign(type_name::EL_GAMAL_PUBLIC_KEY, key.encode_to_vec());
            let protocol = duchy_entry::LiquidLegionsV2 { el_gamal_public_key: Some(key) };
            entry(
                id,
                match reach_only {
                    true => duchy_entry::value::Protocol::ReachOnlyLiquidLegionsV2(protocol),
                    false => duchy_entry::value::Protocol::LiquidLegionsV2(protocol),
                },
            )
        };
        let worker_entry = |id: &str| {
            let signed = (id != FULFILLING_WORKER).then(|| {
                let key =
                    if self.broken_worker_key { Vec::new() } else { public_key(&self.worker_keysets[id], &session) };
                self.duchies[id].sign(type_name::ENCRYPTION_PUBLIC_KEY, key)
            });
            let protocol = duchy_entry::HonestMajorityShareShuffle { public_key: signed };
            entry(id, duchy_entry::value::Protocol::HonestMajorityShareShuffle(protocol))
        };
        let duchies: Vec<DuchyEntry> = match &self.config.protocols.first().and_then(|one| one.protocol.as_ref()) {
            Some(protocol::Protocol::HonestMajorityShareShuffle(_)) => WORKERS.map(worker_entry).into(),
            Some(protocol::Protocol::Direct(_)) => Vec::new(),
            Some(protocol::Protocol::TrusTee(_)) => {
                let session = session::session_id(&spec, &config, &[TRUSTEE.parse().unwrap()]);
                let key = public_key(&self.trustee_keyset, &session);
                let statement = Statement::of_key(TRUSTEE, &self.other_session.unwrap_or(session), &key);
                let attestation = SimulatedAttestation.evidence(&statement).unwrap().to_bytes();
                let public_key = Some(self.duchies[TRUSTEE].sign(type_name::ENCRYPTION_PUBLIC_KEY, key));
                let protocol = duchy_entry::TrusTee { public_key, attestation };
                vec![entry(TRUSTEE, duchy_entry::value::Protocol::TrusTee(protocol))]
            }
            protocol => {
                let reach_only = matches!(protocol, Some(protocol::Protocol::ReachOnlyLiquidLegionsV2(_)));
                self.duchies.iter().map(|(id, party)| ring_entry(id, party, reach_only)).collect()
            }
        };
        let mut requisition = api::Requisition {
            name: REQUISITION.to_owned(),
            measurement: format!("{CONSUMER}/measurements/AAAAAAAAAAQ"),
            measurement_consumer_certificate: format!("{CONSUMER}/certificates/AAAAAAAAAAU"),
            data_provider_certificate: format!("{PUBLISHER}/certificates/AAAAAAAAAAg"),
            duchies,
            measurement_spec: Some(self.consumer.sign(type_name::MEASUREMENT_SPEC, spec)),
            protocol_config: Some(self.config.clone()),
            serialized_protocol_config: config,
            encrypted_requisition_spec: Some(EncryptedMessage {
                ciphertext: self.keyset.public().encrypt(&own, b"", &mut rng).unwrap(),
                type_url: format!("type.googleapis.com/{}", type_name::SIGNED_MESSAGE),
            }),
            ..Default::default()
        };
        requisition.set_state(api::requisition::State::Unfulfilled);
        requisition
    }
}

/// All Duchies.
pub(crate) fn duchies() -> [DuchyId; 3] {
    DUCHIES.map(|id| id.parse().unwrap())
}

/// The serialized public half, for a session where it is a Duchy's.
pub(crate) fn public_key(keyset: &PrivateKeyset, session: &[u8]) -> Vec<u8> {
    let mut key = EncryptionPublicKey { data: keyset.public().to_bytes(), session: session.to_vec(), format: 0 };
    key.set_format(api::encryption_public_key::Format::TinkKeyset);
    key.encode_to_vec()
}

/// Reach with this privacy.
pub(crate) fn reach(epsilon: f64, delta: f64) -> MeasurementType {
    MeasurementType::Reach(api::measurement_spec::Reach { privacy_params: privacy(epsilon, delta) })
}

/// Reach and frequency with this maximum frequency.
pub(crate) fn reach_and_frequency(maximum_frequency: i32) -> MeasurementType {
    MeasurementType::ReachAndFrequency(ReachAndFrequency {
        reach_privacy_params: privacy(1.0, 1e-6),
        frequency_privacy_params: privacy(1.0, 1e-6),
        maximum_frequency,
    })
}

/// Share shuffle over a population, with noise.
pub(crate) fn share_shuffle(variant: HmssVariant, population: &str) -> measurement::Protocol {
    measurement::Protocol::Hmss(HmssConfig {
        variant,
        noise: Some(HmssNoise {
            mechanism: NoiseMechanism::DiscreteGaussian,
            calibration: NoiseCalibration::Exact,
            honest_contributors: 1,
        }),
        first_worker: WORKERS[0].parse().unwrap(),
        second_worker: WORKERS[1].parse().unwrap(),
        aggregator: "aggregator".parse().unwrap(),
        population: population.parse().unwrap(),
    })
}

/// A trustee over a population, with these noise and thresholds.
pub(crate) fn trustee(noise: TrusteeNoise, thresholds: Option<TrusteeThresholds>) -> measurement::Protocol {
    measurement::Protocol::Trustee(TrusteeConfig {
        duchy: TRUSTEE.parse().unwrap(),
        noise,
        thresholds,
        population: "0..19".parse().unwrap(),
    })
}

/// Every publisher alone, with one of these noises.
pub(crate) fn direct(noise: &[Option<NoiseMechanism>]) -> measurement::Protocol {
    measurement::Protocol::Direct(DirectConfig { noise: noise.to_vec() })
}

/// Reach-only Liquid Legions v2.
pub(crate) fn reach_only() -> measurement::Protocol {
    let params = PrivacyParams::new(1.0, 1e-6).unwrap();
    measurement::Protocol::Rollv2(Rollv2Config {
        decay_rate: 12.0,
        max_size: 100_000,
        noise: Some(LiquidLegionsNoise {
            mechanism: NoiseMechanism::DiscreteGaussian,
            calibration: NoiseCalibration::Exact,
            honest_contributors: 1,
            data_provider: params,
            blinded_histogram: params,
            for_publisher_noise: params,
        }),
        aggregator: "aggregator".parse().unwrap(),
    })
}

/// The name of a Duchy's consent certificate.
pub(crate) fn duchy_certificate(duchy: &str) -> String {
    format!("duchies/{duchy}/certificates/AAAAAAAAAAY")
}

/// An event group of the publisher with a filter on its events.
pub(crate) fn event_group(filter: &str) -> EventGroupEntry {
    EventGroupEntry {
        key: format!("{PUBLISHER}/eventGroups/AAAAAAAAAAc"),
        value: Some(event_group_entry::Value {
            collection_interval: None,
            filter: Some(EventFilter { expression: filter.to_owned() }),
        }),
    }
}
