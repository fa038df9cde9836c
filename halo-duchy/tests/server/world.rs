//! The parties, each with an authority and keys of its own; one Duchy that serves; and measurements as an honest Kingdom
//! reports them. Tests falsify what they want before they hand it in.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use futures::stream;
use getrandom::SysRng;
use halo_core::{
    clock::SystemClock,
    measurement::{Llv2Config, Llv2Noise, ProtocolConfig},
    pb::{
        api::{
            self, FulfillRequisitionRequest, FulfillRequisitionResponse, fulfill_requisition_request as upload,
            requisition_fulfillment_client::RequisitionFulfillmentClient,
        },
        halo::{GetTransferRequest, Transfer, transfers_client::TransfersClient},
        system::{
            self, AdvanceComputationRequest, AdvanceComputationResponse, advance_computation_request as delivery,
            computation::State,
            computation_control_client::ComputationControlClient,
            computation_participant::{RequisitionParams, requisition_params},
        },
    },
    privacy::{NoiseCalibration, NoiseMechanism, PrivacyParams},
    resource::{DuchyId, ExternalId, RequisitionName},
    session,
    transport::{Client, Identity, Roots, TransportError},
    wire::{self, ElGamalKey, type_name},
};
use halo_crypto::{
    consent::{
        tink::PrivateKeyset,
        x509::{Certificate, ECDSA_WITH_SHA256, SigningKey},
    },
    elgamal::KeyShareSecret,
    group::{Point, Scalar},
    proof::PossessionContext,
};
use halo_duchy::server::{Config, serve_on};
use prost::Message;
use rand_core::UnwrapErr;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, transport::Channel};

use crate::kingdom::{Call, ScriptedKingdom};

/// The Duchy under test; it aggregates.
pub(crate) const ME: &str = "duchies/aggregator";
/// The Duchies of every measurement.
pub(crate) const DUCHIES: [&str; 3] = [ME, "duchies/worker1", "duchies/worker2"];
/// A Duchy that the one under test knows, but that takes part in no measurement.
pub(crate) const BYSTANDER: &str = "duchies/worker3";
/// The first one uploads to the Duchy under test, the other one elsewhere.
pub(crate) const PUBLISHERS: [&str; 2] = ["dataProviders/AAAAAAAAAAI", "dataProviders/AAAAAAAAAAM"];
pub(crate) const NONCES: [u64; 2] = [0x8877_6655_4433_2211, 7];
pub(crate) const CONSUMER: &str = "measurementConsumers/AAAAAAAAAAE";
/// A consumer that the Duchy under test does not know.
pub(crate) const STRANGER: &str = "measurementConsumers/AAAAAAAAAAQ";
const KINGDOM: &str = "kingdom/kingdom";
/// Bytes of a register: three ciphertexts of two group elements.
pub(crate) const REGISTER: usize = 192;

fn rng() -> UnwrapErr<SysRng> {
    UnwrapErr(SysRng)
}

/// The last part of a resource name.
pub(crate) fn id(name: &str) -> &str {
    name.rsplit_once('/').unwrap().1
}

/// An organisation: its authority, TLS identity and consent certificate.
pub(crate) struct Party {
    name: &'static str,
    authority: CertifiedIssuer<'static, KeyPair>,
    pub(crate) certificate: Certificate,
    pub(crate) key: SigningKey,
    directory: PathBuf,
}

impl Party {
    fn new(directory: &Path, name: &'static str) -> Self {
        let directory = directory.join(id(name));
        std::fs::create_dir_all(&directory).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let (consent, consent_key) = issue(&authority, |_| {});
        let (tls, tls_key) = issue(&authority, |_| {});
        for (file, text) in [
            ("root.pem", &authority.pem()),
            ("consent.pem", &consent),
            ("consent.key", &consent_key),
            ("tls.pem", &tls),
            ("tls.key", &tls_key),
        ] {
            std::fs::write(directory.join(file), text).unwrap();
        }
        Self {
            name,
            authority,
            certificate: Certificate::from_pem(consent.as_bytes()).unwrap(),
            key: SigningKey::from_pkcs8_pem(&consent_key).unwrap(),
            directory,
        }
    }

    fn certificate_name(&self) -> String {
        format!("{}/certificates/AAAAAAAAAAY", self.name)
    }

    /// The certificate that its authority issued itself.
    pub(crate) fn root(&self) -> &[u8] {
        self.authority.der()
    }

    pub(crate) fn roots(&self) -> Roots {
        Roots::from_der(vec![self.root().to_vec()])
    }

    pub(crate) fn identity(&self) -> Identity {
        Identity::from_pem_files(self.directory.join("tls.pem"), self.directory.join("tls.key")).unwrap()
    }

    /// Another certificate from its authority, and the key of it, both in PEM.
    pub(crate) fn issue(&self, change: impl FnOnce(&mut CertificateParams)) -> (String, String) {
        issue(&self.authority, change)
    }
}

fn issue(
    authority: &CertifiedIssuer<'static, KeyPair>,
    change: impl FnOnce(&mut CertificateParams),
) -> (String, String) {
    let mut params = CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    params.use_authority_key_identifier_extension = true;
    params.is_ca = IsCa::ExplicitNoCa;
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    (params.signed_by(&key, authority).unwrap().pem(), key.serialize_pem())
}

/// All parties, the Duchy that serves, and the Kingdom that it follows.
pub(crate) struct World {
    parties: BTreeMap<&'static str, Party>,
    pub(crate) kingdom: ScriptedKingdom,
    /// Where the Duchy under test serves.
    pub(crate) endpoint: String,
    directory: TempDir,
    stop: CancellationToken,
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl World {
    /// Starts everything. The Duchy allows measurements without noise if `allow_no_noise` is set.
    pub(crate) async fn start(allow_no_noise: bool) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let names = [KINGDOM, CONSUMER, STRANGER, BYSTANDER].into_iter().chain(PUBLISHERS).chain(DUCHIES);
        let parties: BTreeMap<_, _> = names.map(|name| (name, Party::new(directory.path(), name))).collect();
        let (kingdom, endpoint) = ScriptedKingdom::start(parties[KINGDOM].identity(), &parties[ME].roots()).await;
        let config = Config::from_file(&configuration(directory.path(), &endpoint, allow_no_noise)).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("https://{}", listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        tokio::spawn(serve_on(listener, config, Arc::new(SystemClock), stop.clone()));
        Self { parties, kingdom, endpoint, directory, stop }
    }

    pub(crate) fn party(&self, name: &str) -> &Party {
        &self.parties[name]
    }

    /// Connects to the Duchy under test with any certificate.
    pub(crate) async fn dial(&self, identity: &Identity) -> Result<Caller, TransportError> {
        Client::new(&self.endpoint, &self.party(ME).roots(), identity).unwrap().connect().await.map(Caller)
    }

    /// Connects to the Duchy under test as a party.
    pub(crate) async fn connect(&self, name: &str) -> Caller {
        self.dial(&self.party(name).identity()).await.unwrap()
    }

    /// Files that the Duchy under test keeps of bodies, complete ones and partial ones.
    pub(crate) fn kept_bodies(&self) -> usize {
        fn files(directory: &Path) -> usize {
            let entries = std::fs::read_dir(directory).into_iter().flatten().map(|entry| entry.unwrap().path());
            entries.map(|path| if path.is_dir() { files(&path) } else { 1 }).sum()
        }
        ["blobs", "spool"].iter().map(|part| files(&self.directory.path().join("state").join(part))).sum()
    }

    /// A Duchy's signed and proven key share for a session.
    pub(crate) fn key_share(&self, duchy: &str, session: [u8; 32]) -> RequisitionParams {
        let party = self.party(duchy);
        let secret = KeyShareSecret::generate(&mut rng());
        let context = PossessionContext { session, duchy: id(duchy), certificate_sha256: party.certificate.sha256() };
        let key = wire::serialize_el_gamal_public_key(&ElGamalKey {
            element: *secret.public().as_bytes(),
            proof_of_possession: secret.prove_possession(&context, &mut rng()),
        });
        RequisitionParams {
            duchy_certificate: party.certificate_name(),
            duchy_certificate_der: party.certificate.der().to_vec(),
            protocol: Some(requisition_params::Protocol::LiquidLegionsV2(requisition_params::LiquidLegionsV2 {
                el_gamal_public_key_signature: party.key.sign(&key),
                el_gamal_public_key_signature_algorithm_oid: ECDSA_WITH_SHA256.to_owned(),
                el_gamal_public_key: key,
            })),
        }
    }

    /// Reports a new measurement, and goes on to where publishers may upload.
    pub(crate) async fn open(&self, plan: &Plan) -> Measurement {
        let mut measurement = plan.measurement(self);
        self.kingdom.report(&measurement.computation);
        let own = self.kingdom.awaited(&measurement.computation, |call| match call {
            Call::Parameters(request) => request.requisition_params.clone(),
            _ => None,
        });
        measurement.own_key = Some(own.await);
        measurement.set_keys(self);
        measurement.computation.set_state(State::PendingRequisitionFulfillment);
        self.kingdom.report(&measurement.computation);
        measurement
    }

    /// The first publisher uploads, the other one elsewhere; then the Kingdom asks for confirmation, unless `falsify`
    /// has it ask for something else.
    pub(crate) async fn fulfill(&self, measurement: &mut Measurement, falsify: impl FnOnce(&mut Measurement)) {
        let upload = measurement.upload(registers(5, 1));
        self.connect(PUBLISHERS[0]).await.upload(&upload).await.unwrap();
        measurement.set_fulfilled(&upload.header);
        measurement.computation.set_state(State::PendingParticipantConfirmation);
        falsify(measurement);
        self.kingdom.report(&measurement.computation);
    }

    /// The Duchy confirms the measurement, with the hash of the keys that everybody sees.
    pub(crate) async fn assert_confirmed(&self, measurement: &Measurement) {
        let answer = self.kingdom.awaited(&measurement.computation, |call| match call {
            Call::Confirmed(request) => Some(Ok(request.clone())),
            Call::Failed(request) => Some(Err(request.clone())),
            _ => None,
        });
        assert_eq!(answer.await.unwrap().key_list_hash, measurement.key_list_hash());
    }

    /// The Duchy gives the measurement up with a text that contains `words`, and blames `culprits`.
    pub(crate) async fn assert_given_up(&self, computation: &system::Computation, words: &str, culprits: &[&str]) {
        let failed = self.kingdom.awaited(computation, |call| match call {
            Call::Failed(request) => Some(request.clone()),
            Call::Confirmed(_) => panic!("confirmed instead of giving up: {words}"),
            _ => None,
        });
        let failed = failed.await;
        assert_eq!(failed.name, format!("{}/participants/{}", computation.name, id(ME)));
        let failure = failed.failure.unwrap();
        assert!(failure.error_message.contains(words), "{words:?} is not in {:?}", failure.error_message);
        assert_eq!(failure.culprits, culprits, "{}", failure.error_message);
        assert!(failure.error_time.is_some());
        assert!(!failure.stage_attempt.unwrap().stage_name.is_empty());
    }
}

fn configuration(directory: &Path, kingdom: &str, allow_no_noise: bool) -> PathBuf {
    let mut text = format!(
        r#"
        id = "aggregator"
        listen = "127.0.0.1:0"
        state_dir = "state"
        key_encryption_key_file = "kek.hex"
        allow_no_noise = {allow_no_noise}
        maximum_body_mib = 1
        tls = {{ certificate = "aggregator/tls.pem", private_key = "aggregator/tls.key" }}
        kingdom = {{ endpoint = "{kingdom}", root_certificate = "kingdom/root.pem" }}
        [consent]
        certificate = "aggregator/consent.pem"
        private_key = "aggregator/consent.key"
        name = "duchies/aggregator/certificates/AAAAAAAAAAY"
        "#
    );
    // Nobody is there: what the Duchy under test has for others stays with it.
    for peer in [DUCHIES[1], DUCHIES[2], BYSTANDER].map(id) {
        text += &format!(
            "[[peers]]\nid = \"{peer}\"\nendpoint = \"https://localhost:1\"\nroot_certificate = \"{peer}/root.pem\"\n"
        );
    }
    for publisher in PUBLISHERS.map(id) {
        text += &format!("[[data_providers]]\nid = \"{publisher}\"\nroot_certificate = \"{publisher}/root.pem\"\n");
    }
    let consumer = id(CONSUMER);
    text += &format!("[[measurement_consumers]]\nid = \"{consumer}\"\nroot_certificate = \"{consumer}/root.pem\"\n");
    std::fs::write(directory.join("kek.hex"), "5a".repeat(32)).unwrap();
    let file = directory.join("duchy.toml");
    std::fs::write(&file, text).unwrap();
    file
}

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
                counts_frequency: true,
                llv2: Llv2Config {
                    decay_rate: 12.0,
                    max_size: 100_000,
                    sampling_indicator_size: 10_000_000,
                    noise: Some(Llv2Noise {
                        mechanism: NoiseMechanism::DiscreteGaussian,
                        calibration: NoiseCalibration::Exact,
                        honest_contributors: 1,
                        data_provider: noise,
                        blinded_histogram: noise,
                        for_publisher_noise: noise,
                    }),
                    aggregator: id(ME).parse().unwrap(),
                },
            },
            duchies: DUCHIES.to_vec(),
        }
    }

    /// The same without any noise.
    pub(crate) fn without_noise(number: u64) -> Self {
        let mut plan = Self::new(number);
        plan.config.llv2.noise = None;
        plan
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
            mpc_protocol_config: Some(wire::mpc_protocol_config(&self.config)),
            serialized_protocol_config: wire::protocol_config(&self.config).encode_to_vec(),
            aggregator: self.config.llv2.aggregator.to_string(),
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
    own_key: Option<RequisitionParams>,
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

    fn set_keys(&mut self, world: &World) {
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

/// A connection to the Duchy under test.
pub(crate) struct Caller(Channel);

impl Caller {
    /// Uploads in small chunks, from the offset in the header on.
    pub(crate) async fn upload(&self, upload: &Upload) -> Result<FulfillRequisitionResponse, Status> {
        let offset = usize::try_from(upload.header.offset).unwrap();
        let payloads = [upload::Payload::Header(upload.header.clone())].into_iter().chain(
            upload.body[offset..]
                .chunks(100)
                .map(|chunk| upload::Payload::BodyChunk(upload::BodyChunk { data: chunk.to_vec().into() })),
        );
        let messages: Vec<_> = payloads.map(|payload| FulfillRequisitionRequest { payload: Some(payload) }).collect();
        let mut client = RequisitionFulfillmentClient::new(self.0.clone());
        client.fulfill_requisition(stream::iter(messages)).await.map(tonic::Response::into_inner)
    }

    /// Delivers in small chunks, from the offset in the header on.
    pub(crate) async fn deliver(&self, delivery: &Delivery) -> Result<AdvanceComputationResponse, Status> {
        let offset = usize::try_from(delivery.header.offset).unwrap();
        let payloads = [delivery::Payload::Header(delivery.header.clone())].into_iter().chain(
            delivery.body[offset..]
                .chunks(100)
                .map(|chunk| delivery::Payload::BodyChunk(delivery::BodyChunk { partial_data: chunk.to_vec().into() })),
        );
        let messages: Vec<_> = payloads.map(|payload| AdvanceComputationRequest { payload: Some(payload) }).collect();
        let mut client = ComputationControlClient::new(self.0.clone());
        client.advance_computation(stream::iter(messages)).await.map(tonic::Response::into_inner)
    }

    /// How much of a body the Duchy holds.
    pub(crate) async fn transferred(&self, query: GetTransferRequest) -> Result<Transfer, Status> {
        TransfersClient::new(self.0.clone()).get_transfer(query).await.map(tonic::Response::into_inner)
    }

    pub(crate) async fn stage(&self, name: String) -> Result<system::ComputationStage, Status> {
        let request = system::GetComputationStageRequest { name };
        ComputationControlClient::new(self.0.clone())
            .get_computation_stage(request)
            .await
            .map(tonic::Response::into_inner)
    }
}

/// Asserts that a call was refused with this code and a text that contains `words`.
#[track_caller]
pub(crate) fn assert_refused<T: std::fmt::Debug>(outcome: Result<T, Status>, code: Code, words: &str) {
    let status = outcome.expect_err(words);
    assert_eq!(status.code(), code, "{}", status.message());
    assert!(status.message().contains(words), "{words:?} is not in {:?}", status.message());
}
