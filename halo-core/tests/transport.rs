//! Real connections over loopback: who is let in, who is not, and what they are told.
#![cfg(feature = "transport")]
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::sync::Arc;
use std::time::Duration;

use halo_core::transport::{
    Client, Identity, Roots, ServerTls, TransportError, authority_key_id, caller_key_id, health_service, subject_key_id,
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls_pki_types::ServerName;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tonic::service::InterceptorLayer;
use tower::Layer as _;

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn roots(authority: &Authority) -> Roots {
    Roots::from_pem(authority.pem().as_bytes()).unwrap()
}

fn params() -> CertificateParams {
    let mut params = CertificateParams::new(["localhost".to_string(), "127.0.0.1".to_string()]).unwrap();
    params.use_authority_key_identifier_extension = true;
    params
}

fn identity_with(authority: &Authority, params: CertificateParams) -> Identity {
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, authority).unwrap();
    Identity::from_pem(certificate.pem().as_bytes(), key.serialize_pem().as_bytes()).unwrap()
}

fn identity(authority: &Authority) -> Identity {
    identity_with(authority, params())
}

/// A server on a free port that answers health checks and reports the key id of every caller.
struct Server {
    endpoint: String,
    address: std::net::SocketAddr,
    callers: mpsc::UnboundedReceiver<Option<Vec<u8>>>,
    stop: Option<oneshot::Sender<()>>,
}

impl Server {
    async fn start(identity: Identity, client_roots: &Roots) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (report, callers) = mpsc::unbounded_channel();
        let interceptor = InterceptorLayer::new(move |request: tonic::Request<()>| {
            report.send(caller_key_id(&request)).unwrap();
            Ok(request)
        });
        let (stop, stopped) = oneshot::channel();
        let incoming = ServerTls::new(identity, client_roots).unwrap().incoming(listener);
        let service = interceptor.layer(health_service());
        tokio::spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming_shutdown(
            incoming,
            async {
                let _ = stopped.await;
            },
        ));
        Self { endpoint: format!("https://localhost:{}", address.port()), address, callers, stop: Some(stop) }
    }
}

async fn connect(server: &Server, roots: &Roots, identity: &Identity) -> Result<(), TransportError> {
    Client::new(&server.endpoint, roots, identity).unwrap().connect().await.map(drop)
}

#[tokio::test]
async fn a_known_client_gets_in_and_is_recognised() {
    let (host, guest) = (authority("host"), authority("guest"));
    let mut server = Server::start(identity(&host), &roots(&guest)).await;
    connect(&server, &roots(&host), &identity(&guest)).await.unwrap();
    let caller = server.callers.recv().await.unwrap().unwrap();
    assert_eq!(Some(caller), subject_key_id(guest.der()));
}

#[tokio::test]
async fn an_address_is_as_good_as_a_name() {
    let host = authority("host");
    let mut server = Server::start(identity(&host), &roots(&host)).await;
    server.endpoint = format!("https://127.0.0.1:{}/", server.address.port());
    connect(&server, &roots(&host), &identity(&host)).await.unwrap();
}

#[tokio::test]
async fn a_stranger_is_told_that_its_certificate_was_refused() {
    let (host, guest, stranger) = (authority("host"), authority("guest"), authority("stranger"));
    let server = Server::start(identity(&host), &roots(&guest)).await;
    // Many times, because what the client sees first depends on timing.
    for _ in 0..20 {
        let error = connect(&server, &roots(&host), &identity(&stranger)).await.unwrap_err();
        assert!(matches!(error, TransportError::CertificateRefused { .. }), "{error:?}");
        let text = error.to_string();
        assert!(text.contains("refused this client certificate: it does not know the authority"), "{text}");
        assert!(text.contains(&server.endpoint), "{text}");
        assert!(!error.is_transient());
    }
}

#[tokio::test]
async fn an_expired_client_certificate_is_refused_as_such() {
    let host = authority("host");
    let server = Server::start(identity(&host), &roots(&host)).await;
    let mut expired = params();
    expired.not_before = rcgen::date_time_ymd(2020, 1, 1);
    expired.not_after = rcgen::date_time_ymd(2021, 1, 1);
    let error = connect(&server, &roots(&host), &identity_with(&host, expired)).await.unwrap_err();
    assert!(
        matches!(&error, TransportError::CertificateRefused { detail, .. } if detail.contains("expired")),
        "{error:?}"
    );
}

#[tokio::test]
async fn an_authority_cannot_pass_for_another() {
    let (host, good) = (authority("host"), authority("good"));
    // The evil authority is trusted for itself; it copies the good one's name and names its key as the issuer's.
    let evil = authority("good");
    let both = Roots::from_der(vec![good.der().to_vec(), evil.der().to_vec()]);
    let server = Server::start(identity(&host), &both).await;

    let good_id = subject_key_id(good.der()).unwrap();
    let length = u8::try_from(good_id.len()).unwrap();
    let mut named = vec![0x30, length + 2, 0x80, length];
    named.extend_from_slice(&good_id);
    let mut forged = params();
    forged.use_authority_key_identifier_extension = false;
    forged.custom_extensions.push(rcgen::CustomExtension::from_oid_content(&[2, 5, 29, 35], named));
    let key = KeyPair::generate().unwrap();
    let certificate = forged.signed_by(&key, &evil).unwrap();
    assert_eq!(authority_key_id(certificate.der()), subject_key_id(good.der()), "the forgery names the good key");
    let forged = Identity::from_pem(certificate.pem().as_bytes(), key.serialize_pem().as_bytes()).unwrap();
    let error = connect(&server, &roots(&host), &forged).await.unwrap_err();
    assert!(matches!(error, TransportError::CertificateRefused { .. }), "{error:?}");

    connect(&server, &roots(&host), &identity(&evil)).await.unwrap();
    connect(&server, &roots(&host), &identity(&good)).await.unwrap();
}

#[tokio::test]
async fn a_wrong_server_authority_is_named_with_the_endpoint() {
    let (host, other) = (authority("host"), authority("other"));
    let server = Server::start(identity(&host), &roots(&host)).await;
    let error = connect(&server, &roots(&other), &identity(&host)).await.unwrap_err();
    assert!(matches!(error, TransportError::ServerNotTrusted { .. }), "{error:?}");
    assert!(error.to_string().contains(&server.endpoint), "{error}");
}

#[tokio::test]
async fn nobody_there_is_worth_another_attempt() {
    let host = authority("host");
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let client = Client::new(&format!("https://localhost:{port}"), &roots(&host), &identity(&host)).unwrap();
    let error = client.connect().await.unwrap_err();
    assert!(matches!(error, TransportError::Unreachable { .. }) && error.is_transient(), "{error:?}");
}

#[tokio::test]
async fn a_client_that_says_nothing_blocks_nobody() {
    let host = authority("host");
    let server = Server::start(identity(&host), &roots(&host)).await;
    let silent = TcpStream::connect(server.address).await.unwrap();
    let (trusted, guest) = (roots(&host), identity(&host));
    let connecting = connect(&server, &trusted, &guest);
    tokio::time::timeout(Duration::from_secs(5), connecting).await.unwrap().unwrap();
    drop(silent);
}

#[tokio::test]
async fn a_channel_connects_again_by_itself() {
    let host = authority("host");
    let mut server = Server::start(identity(&host), &roots(&host)).await;
    let channel = Client::new(&server.endpoint, &roots(&host), &identity(&host)).unwrap().connect().await.unwrap();
    server.stop.take().unwrap().send(()).unwrap();
    let listener = loop {
        match TcpListener::bind(server.address).await {
            Ok(listener) => break listener,
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    };
    let incoming = ServerTls::new(identity(&host), &roots(&host)).unwrap().incoming(listener);
    tokio::spawn(tonic::transport::Server::builder().add_service(health_service()).serve_with_incoming(incoming));
    let mut health = tonic_health::pb::health_client::HealthClient::new(channel);
    for attempt in 0.. {
        match health.check(tonic_health::pb::HealthCheckRequest::default()).await {
            Ok(_) => break,
            Err(status) => assert!(attempt < 50, "{status}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Connects with rustls alone and returns what the server does about it.
async fn raw_handshake(server: &Server, config: rustls::ClientConfig) -> std::io::Result<usize> {
    let tcp = TcpStream::connect(server.address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, tcp).await?;
    stream.read(&mut [0; 1]).await
}

fn raw_config(
    authority: &Authority,
    version: &'static rustls::SupportedProtocolVersion,
) -> rustls::ConfigBuilder<rustls::ClientConfig, rustls::client::WantsClientCert> {
    let mut store = rustls::RootCertStore::empty();
    store.add(authority.der().clone()).unwrap();
    rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(store)
}

#[tokio::test]
async fn without_a_certificate_nobody_gets_in() {
    let host = authority("host");
    let server = Server::start(identity(&host), &roots(&host)).await;
    let config = raw_config(&host, &rustls::version::TLS13).with_no_client_auth();
    let error = raw_handshake(&server, config).await.unwrap_err();
    assert!(error.to_string().contains("CertificateRequired"), "{error}");
}

#[tokio::test]
async fn tls_1_2_is_refused() {
    let host = authority("host");
    let server = Server::start(identity(&host), &roots(&host)).await;
    let key = KeyPair::generate().unwrap();
    let certificate = params().signed_by(&key, &host).unwrap();
    let key = rustls_pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config =
        raw_config(&host, &rustls::version::TLS12).with_client_auth_cert(vec![certificate.der().clone()], key).unwrap();
    let error = raw_handshake(&server, config).await.unwrap_err();
    assert!(error.to_string().contains("ProtocolVersion"), "{error}");
}

#[test]
fn endpoints_must_be_https_with_a_port() {
    let host = authority("host");
    for endpoint in
        ["localhost:1", "http://localhost:1", "https://localhost", "https://localhost:1/x", "https://:1", ""]
    {
        let error = Client::new(endpoint, &roots(&host), &identity(&host)).unwrap_err();
        assert!(matches!(error, TransportError::Endpoint { .. }), "{endpoint}: {error:?}");
    }
    assert!(Client::new("https://[::1]:1", &roots(&host), &identity(&host)).is_ok());
}

#[test]
fn broken_files_are_named() {
    let missing = Identity::from_pem_files("/nowhere/tls.pem", "/nowhere/tls.key").unwrap_err().to_string();
    assert!(missing.contains("/nowhere/tls.pem"), "{missing}");
    assert!(Roots::from_pem(b"nothing").is_err());
    let host = authority("host");
    assert!(Identity::from_pem(host.pem().as_bytes(), host.pem().as_bytes()).is_err(), "a certificate is no key");
    assert!(!format!("{:?}", identity(&host)).contains("key"), "keys are not shown");
}

#[test]
fn two_roots_must_not_share_a_key_identifier() {
    let good = authority("good");
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_identifier_method = rcgen::KeyIdMethod::PreSpecified(subject_key_id(good.der()).unwrap());
    let twin = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let both = Roots::from_der(vec![good.der().to_vec(), twin.der().to_vec()]);
    assert!(ServerTls::new(identity(&good), &both).unwrap_err().to_string().contains("two different keys"));
    let same = Roots::from_der(vec![good.der().to_vec(), good.der().to_vec()]);
    assert!(ServerTls::new(identity(&good), &same).is_ok());
}
