//! A Kingdom on loopback and the parties that call it, each with an authority and keys of its own.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use getrandom::SysRng;
use halo_core::{
    clock::{Clock, SystemClock},
    measurement::Protocol,
    pb::{
        api::{
            self, certificates_client::CertificatesClient, data_providers_client::DataProvidersClient,
            event_groups_client::EventGroupsClient, measurements_client::MeasurementsClient,
            public_keys_client::PublicKeysClient, requisitions_client::RequisitionsClient,
        },
        halo::{ListTimelineEntriesRequest, watch_client::WatchClient},
        system::{
            self, computation_log_entries_client::ComputationLogEntriesClient,
            computation_participants_client::ComputationParticipantsClient, computations_client::ComputationsClient,
            requisitions_client::RequisitionsClient as SystemRequisitionsClient,
        },
    },
    resource::DuchyId,
    session,
    transport::{Client, Identity, Roots, TransportError},
    wire::{self, type_name},
};
use halo_crypto::{
    consent::{
        tink::PrivateKeyset,
        x509::{Certificate, ECDSA_WITH_SHA256, SigningKey},
    },
    elgamal::KeyShareSecret,
    group::Point,
    proof::PossessionContext,
};
use halo_kingdom::server::{Config, serve_on};
use prost::Message;
use rand_core::UnwrapErr;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tonic::{Status, transport::Channel};

pub(crate) const CONSUMER: &str = "measurementConsumers/AAAAAAAAAAE";
/// A consumer that has no measurement.
pub(crate) const OTHER_CONSUMER: &str = "measurementConsumers/AAAAAAAAAAQ";
pub(crate) const PUBLISHERS: [&str; 2] = ["dataProviders/AAAAAAAAAAI", "dataProviders/AAAAAAAAAAM"];
pub(crate) const DUCHIES: [&str; 3] = ["duchies/aggregator", "duchies/worker1", "duchies/worker2"];
pub(crate) const NONCES: [u64; 2] = [0x8877_6655_4433_2211, 7];

pub(crate) fn rng() -> UnwrapErr<SysRng> {
    UnwrapErr(SysRng)
}

/// An organisation: its authority, TLS identity, consent certificate, and keyset.
pub(crate) struct Party {
    pub(crate) name: String,
    authority: CertifiedIssuer<'static, KeyPair>,
    pub(crate) certificate: Certificate,
    pub(crate) key: SigningKey,
    pub(crate) keyset: PrivateKeyset,
    /// What the Kingdom's configuration calls it.
    pub(crate) display_name: String,
    directory: PathBuf,
}

impl Party {
    fn new(directory: &std::path::Path, name: &str) -> Self {
        let directory = directory.join(name.replace('/', "-"));
        std::fs::create_dir_all(&directory).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        std::fs::write(directory.join("root.pem"), authority.pem()).unwrap();
        let keyset = PrivateKeyset::generate_hpke(&mut rng());
        let (consent, key) = issue(&authority, |_| {});
        let (tls, tls_key) = issue(&authority, |_| {});
        for (file, text) in [("consent.pem", &consent), ("tls.pem", &tls), ("tls.key", &tls_key)] {
            std::fs::write(directory.join(file), text).unwrap();
        }
        let party = Self {
            name: name.to_owned(),
            authority,
            certificate: Certificate::from_pem(consent.as_bytes()).unwrap(),
            key: SigningKey::from_pkcs8_pem(&key).unwrap(),
            keyset,
            display_name: "somebody".into(),
            directory,
        };
        let signed = party.sign(type_name::ENCRYPTION_PUBLIC_KEY, party.public_key());
        std::fs::write(party.directory.join("key.bin"), signed.encode_to_vec()).unwrap();
        party
    }

    /// Its consent certificate's resource name.
    pub(crate) fn certificate_name(&self) -> String {
        format!("{}/certificates/AAAAAAAAAAY", self.name)
    }

    /// Its serialized `EncryptionPublicKey`.
    pub(crate) fn public_key(&self) -> Vec<u8> {
        let mut key = api::EncryptionPublicKey { data: self.keyset.public().to_bytes(), ..Default::default() };
        key.set_format(api::encryption_public_key::Format::TinkKeyset);
        key.encode_to_vec()
    }

    /// Its serialized `EncryptionPublicKey` for the session of a computation.
    pub(crate) fn session_key(&self, computation: &system::Computation) -> Vec<u8> {
        let names = computation.computation_participants.iter().map(|part| part.name.rsplit_once('/').unwrap().1);
        let ids: Vec<DuchyId> = names.map(|id| id.parse().unwrap()).collect();
        let session = session::session_id(&computation.measurement_spec, &computation.serialized_protocol_config, &ids);
        let key = api::EncryptionPublicKey::decode(self.public_key().as_slice()).unwrap();
        api::EncryptionPublicKey { session: session.to_vec(), ..key }.encode_to_vec()
    }

    pub(crate) fn sign(&self, name: &str, bytes: Vec<u8>) -> api::SignedMessage {
        api::SignedMessage {
            signature: self.key.sign(&bytes),
            signature_algorithm_oid: ECDSA_WITH_SHA256.to_owned(),
            message: Some(wire::pack(name, bytes)),
            ..Default::default()
        }
    }

    pub(crate) fn identity(&self) -> Identity {
        Identity::from_pem_files(self.directory.join("tls.pem"), self.directory.join("tls.key")).unwrap()
    }

    /// Another certificate from its authority, and the key of it.
    pub(crate) fn issue(&self, change: impl FnOnce(&mut CertificateParams)) -> (String, String) {
        issue(&self.authority, change)
    }

    /// Its table in the configuration of the Kingdom.
    fn table(&self) -> String {
        let (collection, id) = self.name.split_once('/').unwrap();
        let (kind, key) = match collection {
            "duchies" => ("duchies", ""),
            "dataProviders" => ("data_providers", "encryption_public_key = \"DIR/key.bin\"\n"),
            _ => ("measurement_consumers", "encryption_public_key = \"DIR/key.bin\"\n"),
        };
        let display_name = &self.display_name;
        format!(
            "[[{kind}]]\nid = \"{id}\"\ndisplay_name = \"{display_name}\"\nroot_certificate = \"DIR/root.pem\"\n\
             consent_certificate = {{ id = \"AAAAAAAAAAY\", file = \"DIR/consent.pem\" }}\n{key}"
        )
        .replace("DIR", self.directory.to_str().unwrap())
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

/// All parties, and the directory of their files and of the Kingdom's state.
pub(crate) struct World {
    pub(crate) parties: BTreeMap<String, Party>,
    pub(crate) directory: TempDir,
    kingdom: Party,
    /// The sections of the protocols in the Kingdom's configuration.
    pub(crate) protocols: String,
    /// More keys of each publisher's table in it.
    pub(crate) publisher_keys: String,
}

/// The section of a Liquid Legions protocol.
pub(crate) fn liquid_legions(section: &str) -> String {
    let noise = "{ epsilon = 1.0, delta = 1e-9 }";
    format!(
        "[{section}]\naggregator = \"aggregator\"\nminimum_duchies = 3\ndata_provider_noise = {noise}\n\
         blinded_histogram_noise = {noise}\nnoise_for_publisher_noise = {noise}\n"
    )
}

impl World {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let names = [CONSUMER, OTHER_CONSUMER].into_iter().chain(PUBLISHERS).chain(DUCHIES);
        Self {
            parties: names.map(|name| (name.to_owned(), Party::new(directory.path(), name))).collect(),
            kingdom: Party::new(directory.path(), "kingdom/k"),
            protocols: liquid_legions("llv2"),
            publisher_keys: String::new(),
            directory,
        }
    }

    /// One more party.
    pub(crate) fn add(&mut self, name: &str) {
        self.parties.insert(name.to_owned(), Party::new(self.directory.path(), name));
    }

    pub(crate) fn party(&self, name: &str) -> &Party {
        &self.parties[name]
    }

    pub(crate) fn consumer(&self) -> &Party {
        self.party(CONSUMER)
    }

    /// Writes the Kingdom's configuration.
    pub(crate) fn configuration(&self, listen: &str) -> PathBuf {
        let mut text = format!(
            "listen = \"{listen}\"\nstate_dir = \"state\"\n[tls]\ncertificate = \"kingdom-k/tls.pem\"\n\
             private_key = \"kingdom-k/tls.key\"\n{}",
            self.protocols
        );
        for party in self.parties.values() {
            text.push_str(&party.table());
            if party.name.starts_with("dataProviders/") {
                text.push_str(&self.publisher_keys);
            }
        }
        let file = self.directory.path().join("kingdom.toml");
        std::fs::write(&file, text).unwrap();
        file
    }

    /// Starts a Kingdom inside this process on a free port.
    pub(crate) async fn start(&self) -> Running {
        self.start_by(Arc::new(SystemClock)).await
    }

    /// The same, by another clock.
    pub(crate) async fn start_by(&self, clock: Arc<dyn Clock>) -> Running {
        let config = Config::load(&self.configuration("127.0.0.1:0")).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("https://{}", listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        let task = tokio::spawn(serve_on(listener, config, clock, stop.clone()));
        Running { endpoint, stop, task }
    }

    /// Connects with any certificate.
    pub(crate) async fn dial(&self, endpoint: &str, identity: &Identity) -> Result<Channel, TransportError> {
        let roots = Roots::from_pem(self.kingdom.authority.pem().as_bytes()).unwrap();
        Client::new(endpoint, &roots, identity).unwrap().connect().await
    }

    /// Connects as a party.
    pub(crate) async fn connect(&self, endpoint: &str, name: &str) -> Caller {
        for _ in 0..100 {
            match self.dial(endpoint, &self.party(name).identity()).await {
                Ok(channel) => return Caller(channel),
                Err(error) if error.is_transient() => tokio::time::sleep(Duration::from_millis(100)).await,
                Err(error) => panic!("{error}"),
            }
        }
        panic!("the Kingdom at {endpoint} does not answer");
    }

    /// The specification of a measurement of reach and frequency with both publishers.
    pub(crate) fn spec(&self) -> api::MeasurementSpec {
        let privacy = Some(api::DifferentialPrivacyParams { epsilon: 1.0, delta: 1e-9 });
        let asked = api::measurement_spec::ReachAndFrequency {
            reach_privacy_params: privacy,
            frequency_privacy_params: privacy,
            maximum_frequency: 10,
        };
        api::MeasurementSpec {
            measurement_public_key: Some(wire::pack(type_name::ENCRYPTION_PUBLIC_KEY, self.consumer().public_key())),
            nonce_hashes: NONCES.map(|nonce| session::nonce_hash(nonce).to_vec()).to_vec(),
            vid_sampling_interval: Some(api::measurement_spec::VidSamplingInterval { start: 0.0, width: 1.0 }),
            measurement_type: Some(api::measurement_spec::MeasurementType::ReachAndFrequency(asked)),
            ..Default::default()
        }
    }

    /// A request that is as it should be; tests change it.
    pub(crate) fn request(&self, spec: &api::MeasurementSpec) -> api::CreateMeasurementRequest {
        let consumer = self.consumer();
        let data_providers = PUBLISHERS.iter().zip(NONCES).map(|(name, nonce)| {
            let publisher = self.party(name);
            let own = api::RequisitionSpec { nonce, ..Default::default() };
            let own = consumer.sign(type_name::REQUISITION_SPEC, own.encode_to_vec()).encode_to_vec();
            api::measurement::DataProviderEntry {
                key: (*name).to_owned(),
                value: Some(api::measurement::data_provider_entry::Value {
                    data_provider_certificate: publisher.certificate_name(),
                    data_provider_public_key: Some(wire::pack(
                        type_name::ENCRYPTION_PUBLIC_KEY,
                        publisher.public_key(),
                    )),
                    encrypted_requisition_spec: Some(api::EncryptedMessage {
                        ciphertext: publisher.keyset.public().encrypt(&own, b"", &mut rng()).unwrap(),
                        type_url: wire::pack(type_name::SIGNED_MESSAGE, vec![]).type_url,
                    }),
                    nonce_hash: session::nonce_hash(nonce).to_vec(),
                }),
            }
        });
        api::CreateMeasurementRequest {
            parent: CONSUMER.to_owned(),
            measurement: Some(api::Measurement {
                measurement_consumer_certificate: consumer.certificate_name(),
                measurement_spec: Some(consumer.sign(type_name::MEASUREMENT_SPEC, spec.encode_to_vec())),
                data_providers: data_providers.collect(),
                measurement_reference_id: "spring".into(),
                ..Default::default()
            }),
            request_id: String::new(),
        }
    }

    /// A Duchy's signed and proven key share for a computation, and what the Kingdom wants to know of it.
    pub(crate) fn key_share(&self, duchy: &str, computation: &system::Computation) -> KeyShareRequest {
        // Liquid Legions protocols are computed by all Duchies.
        let ids: Vec<DuchyId> = DUCHIES.iter().map(|name| name[8..].parse().unwrap()).collect();
        let session = session::session_id(&computation.measurement_spec, &computation.serialized_protocol_config, &ids);
        let party = self.party(duchy);
        let secret = KeyShareSecret::generate(&mut rng());
        let context = PossessionContext { session, duchy: &duchy[8..], certificate_sha256: party.certificate.sha256() };
        KeyShareRequest {
            name: format!("{}/participants/{}", computation.name, &duchy[8..]),
            certificate: party.certificate_name(),
            key: api::ElGamalPublicKey {
                elliptic_curve_id: 1087,
                generator: Point::generator().encode().as_bytes().to_vec(),
                element: secret.public().as_bytes().to_vec(),
                proof_of_possession: secret.prove_possession(&context, &mut rng()).to_vec(),
            },
        }
    }
}

impl World {
    /// What a Duchy gives for a computation of any protocol.
    pub(crate) fn params(
        &self,
        duchy: &str,
        computation: &system::Computation,
        protocol: &Protocol,
    ) -> system::SetParticipantRequisitionParamsRequest {
        use system::computation_participant::{RequisitionParams, requisition_params};
        let party = self.party(duchy);
        if matches!(protocol, Protocol::Llv2(_) | Protocol::Rollv2(_)) {
            let mut request = self.key_share(duchy, computation).signed(party);
            if let (Protocol::Rollv2(_), Some(params)) = (protocol, &mut request.requisition_params)
                && let Some(requisition_params::Protocol::LiquidLegionsV2(share)) = params.protocol.take()
            {
                params.protocol = Some(requisition_params::Protocol::ReachOnlyLiquidLegionsV2(share));
            }
            return request;
        }
        let aggregates = matches!(protocol, Protocol::Hmss(hmss) if hmss.aggregator.as_str() == &duchy[8..]);
        let key = if aggregates { Vec::new() } else { party.session_key(computation) };
        let signature = party.key.sign(&key);
        let oid = ECDSA_WITH_SHA256.to_owned();
        let given = if matches!(protocol, Protocol::Hmss(_)) {
            requisition_params::Protocol::HonestMajorityShareShuffle(requisition_params::HonestMajorityShareShuffle {
                tink_public_key: key,
                tink_public_key_signature: signature,
                tink_public_key_signature_algorithm_oid: oid,
            })
        } else {
            requisition_params::Protocol::TrusTee(requisition_params::TrusTee {
                tink_public_key: key,
                tink_public_key_signature: signature,
                tink_public_key_signature_algorithm_oid: oid,
                attestation: b"evidence".to_vec(),
            })
        };
        system::SetParticipantRequisitionParamsRequest {
            name: format!("{}/participants/{}", computation.name, &duchy[8..]),
            requisition_params: Some(RequisitionParams {
                duchy_certificate: party.certificate_name(),
                duchy_certificate_der: Vec::new(),
                protocol: Some(given),
            }),
            etag: String::new(),
        }
    }
}

/// A key share that tests change before it is signed.
#[derive(Clone)]
pub(crate) struct KeyShareRequest {
    pub(crate) name: String,
    pub(crate) certificate: String,
    pub(crate) key: api::ElGamalPublicKey,
}

impl KeyShareRequest {
    pub(crate) fn signed(&self, by: &Party) -> system::SetParticipantRequisitionParamsRequest {
        use system::computation_participant::{RequisitionParams, requisition_params};
        let bytes = self.key.encode_to_vec();
        system::SetParticipantRequisitionParamsRequest {
            name: self.name.clone(),
            requisition_params: Some(RequisitionParams {
                duchy_certificate: self.certificate.clone(),
                duchy_certificate_der: Vec::new(),
                protocol: Some(requisition_params::Protocol::LiquidLegionsV2(requisition_params::LiquidLegionsV2 {
                    el_gamal_public_key_signature: by.key.sign(&bytes),
                    el_gamal_public_key_signature_algorithm_oid: ECDSA_WITH_SHA256.into(),
                    el_gamal_public_key: bytes,
                })),
            }),
            etag: String::new(),
        }
    }
}

/// A Kingdom that serves.
pub(crate) struct Running {
    pub(crate) endpoint: String,
    stop: CancellationToken,
    task: JoinHandle<Result<(), halo_kingdom::server::Error>>,
}

impl Running {
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.end().await.unwrap();
    }

    /// How it ended by itself.
    pub(crate) async fn end(self) -> Result<(), halo_kingdom::server::Error> {
        self.task.await.unwrap()
    }
}

/// A party's connection.
#[derive(Clone)]
pub(crate) struct Caller(Channel);

impl Caller {
    pub(crate) fn measurements(&self) -> MeasurementsClient<Channel> {
        MeasurementsClient::new(self.0.clone())
    }

    pub(crate) fn requisitions(&self) -> RequisitionsClient<Channel> {
        RequisitionsClient::new(self.0.clone())
    }

    pub(crate) fn certificates(&self) -> CertificatesClient<Channel> {
        CertificatesClient::new(self.0.clone())
    }

    pub(crate) fn data_providers(&self) -> DataProvidersClient<Channel> {
        DataProvidersClient::new(self.0.clone())
    }

    pub(crate) fn event_groups(&self) -> EventGroupsClient<Channel> {
        EventGroupsClient::new(self.0.clone())
    }

    pub(crate) fn public_keys(&self) -> PublicKeysClient<Channel> {
        PublicKeysClient::new(self.0.clone())
    }

    pub(crate) fn watch(&self) -> WatchClient<Channel> {
        WatchClient::new(self.0.clone())
    }

    pub(crate) fn computations(&self) -> ComputationsClient<Channel> {
        ComputationsClient::new(self.0.clone())
    }

    pub(crate) fn participants(&self) -> ComputationParticipantsClient<Channel> {
        ComputationParticipantsClient::new(self.0.clone())
    }

    pub(crate) fn system_requisitions(&self) -> SystemRequisitionsClient<Channel> {
        SystemRequisitionsClient::new(self.0.clone())
    }

    pub(crate) fn log_entries(&self) -> ComputationLogEntriesClient<Channel> {
        ComputationLogEntriesClient::new(self.0.clone())
    }

    pub(crate) async fn get(&self, measurement: &str) -> api::Measurement {
        let request = api::GetMeasurementRequest { name: measurement.to_owned() };
        self.measurements().get_measurement(request).await.unwrap().into_inner()
    }

    /// The whole timeline, in pages.
    pub(crate) async fn timeline(&self, measurement: &str) -> Vec<(String, String)> {
        let mut request = ListTimelineEntriesRequest { measurement: measurement.to_owned(), ..Default::default() };
        let mut lines = Vec::new();
        loop {
            let page = self.watch().list_timeline_entries(request.clone()).await.unwrap().into_inner();
            lines.extend(page.entries.into_iter().map(|entry| (entry.actor, entry.message)));
            request.page_token = page.next_page_token;
            if request.page_token.is_empty() {
                return lines;
            }
            request.page_size = 2;
        }
    }
}

/// Adds a field of so many bytes that no reader knows.
pub(crate) fn padded(mut message: Vec<u8>, length: usize) -> Vec<u8> {
    let unknown = api::EncryptedMessage { ciphertext: vec![0; length], ..Default::default() };
    let mut field = unknown.encode_to_vec();
    // Field 1 of wire type 2 becomes field 15.
    field[0] = 15 << 3 | 2;
    message.append(&mut field);
    message
}

/// Machine-readable reason and culprits of a refusal.
pub(crate) fn reason(status: &Status) -> (String, String) {
    use tonic_types::StatusExt as _;
    let info = status.get_details_error_info().expect("every refusal has a reason");
    assert_eq!(info.domain, halo_kingdom::server::ERROR_DOMAIN);
    (info.reason.clone(), info.metadata.get("culprits").cloned().unwrap_or_default())
}

/// Asserts that a call was refused for this reason.
#[track_caller]
pub(crate) fn assert_refused<T: std::fmt::Debug>(
    outcome: Result<T, Status>,
    code: tonic::Code,
    expected: &str,
) -> Status {
    let status = outcome.expect_err("the call should be refused");
    assert_eq!((status.code(), reason(&status).0.as_str()), (code, expected), "{}", status.message());
    status
}
