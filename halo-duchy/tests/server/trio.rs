//! Three Duchies that serve each other over mutual TLS, and a Kingdom that leads them through a measurement.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use halo_core::{
    clock::SystemClock,
    measurement::{MeasurementKind, Protocol, ProtocolConfig},
    pb::{
        api::{self, fulfill_requisition_request as upload, measurement::Result as MeasurementResult},
        system::{
            self,
            computation::State,
            computation_participant::{Failure, requisition_params},
        },
    },
    privacy::MaximumFrequency,
    resource::{DuchyId, ExternalId, RequisitionName},
    session,
    transport::{Client, Roots, subject_key_id},
    wire::{self, type_name},
};
use halo_crypto::consent::{tink::PrivateKeyset, x509::ECDSA_WITH_SHA256};
use halo_duchy::server::{Config, Error, serve_on};
use prost::Message;
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::{
    caller::Caller,
    kingdom::{Call, ScriptedKingdom},
    measurement::Upload,
    world::{CONSUMER, DUCHIES, KINGDOM, NONCES, PUBLISHERS, Party, id, rng},
};

/// A Duchy that serves.
struct Serving {
    address: SocketAddr,
    stop: CancellationToken,
    task: Option<JoinHandle<Result<(), Error>>>,
}

/// All parties.
pub(crate) struct Trio {
    parties: BTreeMap<&'static str, Party>,
    pub(crate) kingdom: ScriptedKingdom,
    serving: Mutex<BTreeMap<&'static str, Serving>>,
    directory: TempDir,
}

impl Drop for Trio {
    fn drop(&mut self) {
        self.serving.lock().unwrap().values().for_each(|serving| serving.stop.cancel());
    }
}

impl Trio {
    /// Starts everybody. `settings` are more lines of each Duchy's configuration.
    pub(crate) async fn start(settings: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let names = [KINGDOM, CONSUMER].into_iter().chain(PUBLISHERS).chain(DUCHIES);
        let parties: BTreeMap<_, _> = names.map(|name| (name, Party::new(directory.path(), name))).collect();
        let duchies = Roots::from_der(DUCHIES.iter().map(|duchy| parties[duchy].root().to_vec()).collect());
        let keys = DUCHIES.iter().map(|duchy| (subject_key_id(parties[duchy].root()).unwrap(), id(duchy).to_owned()));
        let keys = keys.collect();
        let (kingdom, kingdom_endpoint) = ScriptedKingdom::start(parties[KINGDOM].identity(), &duchies, keys).await;
        let mut listeners = BTreeMap::new();
        for duchy in DUCHIES {
            listeners.insert(duchy, TcpListener::bind("127.0.0.1:0").await.unwrap());
        }
        let address = |duchy| listeners[duchy].local_addr().unwrap();
        let mut trio = Self { parties, kingdom, serving: Mutex::default(), directory };
        std::fs::write(trio.directory.path().join("kek.hex"), "5a".repeat(32)).unwrap();
        let mut serving = BTreeMap::new();
        for duchy in DUCHIES {
            let peers: Vec<_> =
                DUCHIES.iter().filter(|peer| **peer != duchy).map(|peer| (*peer, address(*peer))).collect();
            let text = configuration(duchy, &kingdom_endpoint, &peers, settings);
            std::fs::write(trio.directory.path().join(format!("{}.toml", id(duchy))), text).unwrap();
            serving.insert(duchy, Serving { address: address(duchy), stop: CancellationToken::new(), task: None });
        }
        *trio.serving.get_mut().unwrap() = serving;
        for (duchy, listener) in listeners {
            trio.serve(duchy, listener);
        }
        trio
    }

    fn serve(&self, duchy: &'static str, listener: TcpListener) {
        let file = self.directory.path().join(format!("{}.toml", id(duchy)));
        let config = Config::from_file(&file).unwrap();
        let mut serving = self.serving.lock().unwrap();
        let serving = serving.get_mut(duchy).unwrap();
        serving.stop = CancellationToken::new();
        let task = serve_on(listener, config, Arc::new(SystemClock), serving.stop.clone());
        serving.task = Some(tokio::spawn(task));
    }

    /// Stops a Duchy and waits until it is gone.
    pub(crate) async fn stop(&self, duchy: &'static str) {
        let task = {
            let mut serving = self.serving.lock().unwrap();
            let serving = serving.get_mut(duchy).unwrap();
            serving.stop.cancel();
            serving.task.take().unwrap()
        };
        task.await.unwrap().unwrap();
    }

    /// Starts a Duchy again where it was.
    pub(crate) async fn revive(&self, duchy: &'static str) {
        let address = self.serving.lock().unwrap()[duchy].address;
        self.serve(duchy, TcpListener::bind(address).await.unwrap());
    }

    /// Where a Duchy keeps its state.
    pub(crate) fn state_directory(&self, duchy: &str) -> std::path::PathBuf {
        self.directory.path().join(format!("state-{}", id(duchy)))
    }

    pub(crate) fn party(&self, name: &str) -> &Party {
        &self.parties[name]
    }

    /// Connects to a Duchy as a party.
    pub(crate) async fn connect(&self, duchy: &'static str, party: &str) -> Caller {
        let address = self.serving.lock().unwrap()[duchy].address;
        let endpoint = format!("https://{address}");
        let client = Client::new(&endpoint, &self.party(duchy).roots(), &self.party(party).identity()).unwrap();
        Caller(client.connect().await.unwrap())
    }

    /// A measurement as the Kingdom plans it, reported to nobody yet.
    pub(crate) fn plan(&self, number: u64, protocol: Protocol, maximum_frequency: Option<u32>) -> Study<'_> {
        let keyset = PrivateKeyset::generate_hpke(&mut rng());
        let mut key = api::EncryptionPublicKey { data: keyset.public().to_bytes(), ..Default::default() };
        key.set_format(api::encryption_public_key::Format::TinkKeyset);
        let privacy = Some(api::DifferentialPrivacyParams { epsilon: 1.0, delta: 1e-9 });
        use api::measurement_spec::{MeasurementType, Reach, ReachAndFrequency, VidSamplingInterval};
        let (kind, asked) = match maximum_frequency {
            None => (MeasurementKind::Reach, MeasurementType::Reach(Reach { privacy_params: privacy })),
            Some(frequency) => (
                MeasurementKind::ReachAndFrequency,
                MeasurementType::ReachAndFrequency(ReachAndFrequency {
                    reach_privacy_params: privacy,
                    frequency_privacy_params: privacy,
                    maximum_frequency: MaximumFrequency::new(frequency).unwrap().get().cast_signed(),
                }),
            ),
        };
        let spec = api::MeasurementSpec {
            measurement_public_key: Some(wire::pack(type_name::ENCRYPTION_PUBLIC_KEY, key.encode_to_vec())),
            nonce_hashes: NONCES.map(|nonce| session::nonce_hash(nonce).to_vec()).to_vec(),
            vid_sampling_interval: Some(VidSamplingInterval { start: 0.0, width: 1.0 }),
            measurement_type: Some(asked),
            ..Default::default()
        };
        let spec = spec.encode_to_vec();
        let config = ProtocolConfig { kind, protocol };
        let all: Vec<DuchyId> = DUCHIES.map(|name| id(name).parse().unwrap()).to_vec();
        let duchies = match &config.protocol {
            Protocol::Trustee(trustee) => vec![trustee.duchy.clone()],
            _ => all,
        };
        let fulfilling = config.protocol.fulfilling_duchies(&duchies);
        let external = |value: u64| ExternalId::new(value).unwrap().to_string();
        let first = number * 1000;
        let requisitions = [0, 1].map(|publisher| {
            let at = &fulfilling[publisher % fulfilling.len()];
            let mut names = (first + 1 + 100 * publisher as u64..)
                .map(|value| format!("{}/requisitions/{}", PUBLISHERS[publisher], external(value)));
            let fits = |name: &String| {
                let name: RequisitionName = name.parse().unwrap();
                session::fulfilling_duchy(&name, &fulfilling).unwrap() == at
            };
            names.find(fits).unwrap()
        });
        let fulfilled_at = [0, 1].map(|publisher| {
            let at = &fulfilling[publisher % fulfilling.len()];
            *DUCHIES.iter().find(|duchy| id(duchy) == at.as_str()).unwrap()
        });
        let name = format!("computations/{}", external(first));
        let consumer = self.party(CONSUMER);
        let mut computation = system::Computation {
            public_api_version: "v2alpha".to_owned(),
            measurement_spec_signature: consumer.key.sign(&spec),
            measurement_spec_signature_algorithm_oid: ECDSA_WITH_SHA256.to_owned(),
            measurement_consumer: CONSUMER.to_owned(),
            measurement_consumer_certificate_der: consumer.certificate.der().to_vec(),
            measurement_spec: spec,
            mpc_protocol_config: wire::mpc_protocol_config(&config),
            serialized_protocol_config: wire::protocol_config(&config).encode_to_vec(),
            aggregator: config.protocol.aggregator().unwrap().to_string(),
            ..Default::default()
        };
        computation.set_state(State::PendingRequisitionParams);
        let participants = duchies.iter().map(|duchy| system::ComputationParticipant {
            name: format!("{name}/participants/{duchy}"),
            state: system::computation_participant::State::Created.into(),
            ..Default::default()
        });
        let listed = (0..2).map(|publisher| system::Requisition {
            name: format!("{name}/requisitions/{}", id(&requisitions[publisher])),
            requisition_spec_hash: session::requisition_spec_hash(requisitions[publisher].as_bytes()).to_vec(),
            nonce_hash: session::nonce_hash(NONCES[publisher]).to_vec(),
            state: system::requisition::State::Unfulfilled.into(),
            data_provider: PUBLISHERS[publisher].to_owned(),
            data_provider_certificate: self.party(PUBLISHERS[publisher]).certificate_name(),
            data_provider_certificate_der: self.party(PUBLISHERS[publisher]).certificate.der().to_vec(),
            ..Default::default()
        });
        computation.computation_participants = participants.collect();
        computation.requisitions = listed.collect();
        computation.name = name;
        Study { trio: self, computation, requisitions, fulfilled_at, keyset, config }
    }

    /// Reports a measurement, and goes on to where publishers may upload.
    pub(crate) async fn open(&self, number: u64, protocol: Protocol, maximum_frequency: Option<u32>) -> Study<'_> {
        self.open_with(number, protocol, maximum_frequency, |_| ()).await
    }

    /// The same with a Kingdom that shows other keys than those that it was given.
    pub(crate) async fn open_with(
        &self,
        number: u64,
        protocol: Protocol,
        maximum_frequency: Option<u32>,
        change: impl FnOnce(&mut system::Computation),
    ) -> Study<'_> {
        let mut study = self.plan(number, protocol, maximum_frequency);
        self.kingdom.report(&study.computation);
        let mut parts = study.computation.computation_participants.clone();
        for part in &mut parts {
            let given = self.kingdom.awaited(&study.computation, |call| match call {
                Call::Parameters(request) if request.name == part.name => request.requisition_params.clone(),
                Call::Failed(request) => panic!("{request:?}"),
                _ => None,
            });
            part.requisition_params = Some(given.await);
        }
        study.computation.computation_participants = parts;
        change(&mut study.computation);
        study.report(State::PendingRequisitionFulfillment);
        study
    }
}

/// One measurement under way.
pub(crate) struct Study<'a> {
    pub(crate) trio: &'a Trio,
    pub(crate) computation: system::Computation,
    /// Public names of the requisitions.
    pub(crate) requisitions: [String; 2],
    /// Where each is fulfilled.
    pub(crate) fulfilled_at: [&'static str; 2],
    keyset: PrivateKeyset,
    pub(crate) config: ProtocolConfig,
}

impl Study<'_> {
    pub(crate) fn report(&mut self, state: State) {
        self.computation.set_state(state);
        self.trio.kingdom.report(&self.computation);
    }

    /// The session that keys are proven for.
    pub(crate) fn session(&self) -> [u8; 32] {
        let parts = self.computation.computation_participants.iter();
        let ids: Vec<DuchyId> = parts.map(|part| id(&part.name).parse().unwrap()).collect();
        session::session_id(&self.computation.measurement_spec, &self.computation.serialized_protocol_config, &ids)
    }

    /// Every Duchy's key as it was published, with the message that has it.
    pub(crate) fn keys(&self) -> Vec<(DuchyId, Vec<u8>)> {
        use requisition_params::Protocol as Params;
        let parts = self.computation.computation_participants.iter();
        let keys = parts.map(|part| {
            let key = match part.requisition_params.clone().unwrap().protocol.unwrap() {
                Params::LiquidLegionsV2(params) | Params::ReachOnlyLiquidLegionsV2(params) => {
                    params.el_gamal_public_key
                }
                Params::HonestMajorityShareShuffle(params) => params.tink_public_key,
                Params::TrusTee(params) => params.tink_public_key,
            };
            (id(&part.name).parse().unwrap(), key)
        });
        keys.collect()
    }

    /// The hash of the keys that a publisher encrypts under: of all, or of those that `seen` accepts.
    pub(crate) fn key_list_hash(&self, seen: impl Fn(&DuchyId) -> bool) -> Vec<u8> {
        let keys = self.keys();
        let seen: Vec<(DuchyId, &[u8])> =
            keys.iter().filter(|(duchy, _)| seen(duchy)).map(|(duchy, key)| (duchy.clone(), key.as_slice())).collect();
        session::key_list_hash(&seen).to_vec()
    }

    /// The upload of a publisher, without what its protocol adds.
    pub(crate) fn upload(&self, publisher: usize, key_list_hash: Vec<u8>, records: usize, body: Vec<u8>) -> Upload {
        let hash = self.computation.requisitions[publisher].requisition_spec_hash.as_slice().try_into().unwrap();
        let fingerprint = session::requisition_fingerprint_from_hash(&self.computation.measurement_spec, &hash);
        let header = upload::Header {
            name: self.requisitions[publisher].clone(),
            requisition_fingerprint: fingerprint.to_vec(),
            nonce: NONCES[publisher],
            key_list_hash,
            body_length: body.len() as i64,
            record_count: records as i64,
            body_sha256: Sha256::digest(&body).to_vec(),
            ..Default::default()
        };
        Upload { header, body }
    }

    /// Connects as a publisher to the Duchy that takes its upload.
    pub(crate) async fn publisher(&self, publisher: usize) -> Caller {
        self.trio.connect(self.fulfilled_at[publisher], PUBLISHERS[publisher]).await
    }

    /// Both publishers upload; the Kingdom writes down what the Duchies tell it.
    pub(crate) async fn fulfill(&mut self, uploads: [&Upload; 2]) {
        for (publisher, upload) in uploads.into_iter().enumerate() {
            self.publisher(publisher).await.upload(upload).await.unwrap();
            let name = self.computation.requisitions[publisher].name.clone();
            let told = self.trio.kingdom.awaited(&self.computation, |call| match call {
                Call::Fulfilled(request) if request.name == name => Some(request.clone()),
                _ => None,
            });
            let told = told.await;
            let at = id(self.fulfilled_at[publisher]);
            let fulfilled_by = format!("{}/participants/{at}", self.computation.name);
            let requisition = &mut self.computation.requisitions[publisher];
            requisition.set_state(system::requisition::State::Fulfilled);
            requisition.nonce = told.nonce;
            requisition.key_list_hash = told.key_list_hash;
            requisition.body_sha256 = told.body_sha256;
            requisition.record_count = told.record_count;
            requisition.fulfilling_computation_participant = fulfilled_by;
        }
    }

    /// Every Duchy confirms, with the hash of all keys.
    pub(crate) async fn confirm(&mut self) {
        self.report(State::PendingParticipantConfirmation);
        let due = self.key_list_hash(|_| true);
        for part in &self.computation.computation_participants {
            let confirmed = self.trio.kingdom.awaited(&self.computation, |call| match call {
                Call::Confirmed(request) if request.name == part.name => Some(request.key_list_hash.clone()),
                Call::Failed(request) => panic!("{request:?}"),
                _ => None,
            });
            assert_eq!(confirmed.await, due, "{}", part.name);
        }
    }

    /// What the consumer reads in the end.
    pub(crate) async fn result(&self) -> MeasurementResult {
        let handed_in = self.trio.kingdom.awaited(&self.computation, |call| match call {
            Call::Result(request) => Some(request.clone()),
            Call::Failed(request) => panic!("{request:?}"),
            _ => None,
        });
        let handed_in = handed_in.await;
        let opened = self.keyset.decrypt(&handed_in.encrypted_result, b"").unwrap();
        let signed = api::SignedMessage::decode(opened.expose().as_slice()).unwrap();
        let bytes = wire::signed_bytes("result", Some(&signed), type_name::MEASUREMENT_RESULT).unwrap();
        let aggregator = format!("duchies/{}", self.config.protocol.aggregator().unwrap());
        let certificate = &self.trio.party(&aggregator).certificate;
        certificate.verify_signature(bytes, &signed.signature_algorithm_oid, &signed.signature).unwrap();
        MeasurementResult::decode(bytes).unwrap()
    }

    /// From both uploads to the result.
    pub(crate) async fn finish(&mut self, uploads: [&Upload; 2]) -> MeasurementResult {
        self.fulfill(uploads).await;
        self.confirm().await;
        self.report(State::PendingComputation);
        self.result().await
    }

    /// What a Duchy gives up for.
    pub(crate) async fn given_up_by(&self, duchy: &str) -> Failure {
        let part = format!("{}/participants/{}", self.computation.name, id(duchy));
        let failed = self.trio.kingdom.awaited(&self.computation, |call| match call {
            Call::Failed(request) if request.name == part => request.failure.clone(),
            _ => None,
        });
        failed.await
    }
}

/// Asserts why somebody gave up, and whom it blames.
#[track_caller]
pub(crate) fn assert_blames(failure: &Failure, words: &str, culprits: &[&str]) {
    assert!(failure.error_message.contains(words), "{words:?} is not in {:?}", failure.error_message);
    assert_eq!(failure.culprits, culprits, "{}", failure.error_message);
}

fn configuration(duchy: &str, kingdom: &str, peers: &[(&str, SocketAddr)], settings: &str) -> String {
    let me = id(duchy);
    let mut text = format!(
        r#"
        id = "{me}"
        listen = "127.0.0.1:0"
        state_dir = "state-{me}"
        key_encryption_key_file = "kek.hex"
        maximum_body_mib = 1
        {settings}
        tls = {{ certificate = "{me}/tls.pem", private_key = "{me}/tls.key" }}
        kingdom = {{ endpoint = "{kingdom}", root_certificate = "kingdom/root.pem" }}
        [consent]
        certificate = "{me}/consent.pem"
        private_key = "{me}/consent.key"
        name = "duchies/{me}/certificates/AAAAAAAAAAY"
        "#
    );
    for (peer, address) in peers {
        let peer = id(peer);
        text += &format!(
            "[[peers]]\nid = \"{peer}\"\nendpoint = \"https://{address}\"\nroot_certificate = \"{peer}/root.pem\"\n"
        );
    }
    for publisher in PUBLISHERS.map(id) {
        text += &format!("[[data_providers]]\nid = \"{publisher}\"\nroot_certificate = \"{publisher}/root.pem\"\n");
    }
    let consumer = id(CONSUMER);
    text += &format!("[[measurement_consumers]]\nid = \"{consumer}\"\nroot_certificate = \"{consumer}/root.pem\"\n");
    text
}

/// Settings of Duchies that take part without noise.
pub(crate) const WITHOUT_NOISE: &str = "noise_floor = { allow_no_noise = true }";
