//! The parties, each with an authority and keys of its own, and one Duchy that serves.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use getrandom::SysRng;
use halo_core::{
    clock::SystemClock,
    pb::system::{
        self,
        computation::State,
        computation_participant::{RequisitionParams, requisition_params},
    },
    transport::{Client, Identity, Roots, TransportError},
    wire::{self, ElGamalKey},
};
use halo_crypto::{
    consent::x509::{Certificate, ECDSA_WITH_SHA256, SigningKey},
    elgamal::KeyShareSecret,
    proof::PossessionContext,
};
use halo_duchy::server::{Config, serve_on};
use rand_core::UnwrapErr;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    caller::Caller,
    kingdom::{Call, PATIENCE, ScriptedKingdom},
    measurement::{Measurement, Plan, registers},
};

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
pub(crate) const KINGDOM: &str = "kingdom/kingdom";

pub(crate) fn rng() -> UnwrapErr<SysRng> {
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
    pub(crate) fn new(directory: &Path, name: &'static str) -> Self {
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

    /// Name of its certificate at the Kingdom.
    pub(crate) fn certificate_name(&self) -> String {
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
        let clients = parties[ME].roots();
        let (kingdom, endpoint) = ScriptedKingdom::start(parties[KINGDOM].identity(), &clients, BTreeMap::new()).await;
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

    /// The bodies of everything that is over are removed; that takes a moment.
    pub(crate) async fn assert_nothing_kept(&self) {
        let removed = async {
            while self.kept_bodies() > 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, removed).await.unwrap();
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

    /// The Duchy gives the measurement up before it confirms it, with a text that contains `words`, and blames
    /// `culprits`.
    pub(crate) async fn assert_given_up(&self, computation: &system::Computation, words: &str, culprits: &[&str]) {
        let first = self.kingdom.awaited(computation, |call| match call {
            Call::Failed(_) | Call::Confirmed(_) => Some(call.clone()),
            _ => None,
        });
        assert!(matches!(first.await, Call::Failed(_)), "confirmed instead of: {words}");
        self.assert_failed(computation, words, culprits).await;
    }

    /// The Duchy gives the measurement up with a text that contains `words`, and blames `culprits`.
    pub(crate) async fn assert_failed(&self, computation: &system::Computation, words: &str, culprits: &[&str]) {
        let answer = self.kingdom.awaited(computation, |call| match call {
            Call::Failed(request) => Some(request.clone()),
            _ => None,
        });
        let failed = answer.await;
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
        maximum_body_mib = 1
        noise_floor = {{ allow_no_noise = {allow_no_noise} }}
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
