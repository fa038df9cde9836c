//! The server's end: accepts connections and tells who called.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use futures::stream::unfold;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, UnixTime};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use super::certificate::{authority_key_id, public_key, subject_key_id};
use super::{ALPN_HTTP2, Identity, Roots, TransportError, provider};

/// How long a client may take for its part of the handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How many handshakes may be under way; a connection beyond them takes the place of the one that waits the longest.
const MAX_HANDSHAKES: usize = 1024;
/// How long a refused client may take to read why.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(1);

/// Accepts TLS 1.3 connections of clients whose certificate was issued by a configured root.
#[derive(Clone)]
pub struct ServerTls {
    acceptor: TlsAcceptor,
}

impl std::fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerTls").finish_non_exhaustive()
    }
}

impl ServerTls {
    /// Prepares to serve as `identity` for the clients of `client_roots`.
    ///
    /// # Errors
    /// [`TransportError::Credentials`] if the key does not belong to the certificate, a root has no subject key
    /// identifier, or two roots have the same one for different keys.
    pub fn new(identity: Identity, client_roots: &Roots) -> Result<Self, TransportError> {
        let verifier = IssuerVerifier::new(client_roots)?;
        let refuse = |error: rustls::Error| TransportError::Credentials {
            what: "server certificate and private key".into(),
            detail: error.to_string(),
        };
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(refuse)?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_single_cert(identity.chain, identity.key)
            .map_err(refuse)?;
        config.alpn_protocols = vec![ALPN_HTTP2.to_vec()];
        // Nothing is resumed, so that every connection's certificate is checked as of today.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)) })
    }

    /// The connections whose handshake succeeded, for tonic's `serve_with_incoming_shutdown`.
    ///
    /// Each handshake is a task of its own and has ten seconds; when 1024 are under way, the oldest one gives way to a
    /// new connection. So clients that connect and say nothing keep nobody waiting, unless they bring more than 1024
    /// connections in the time that an honest handshake takes. Refused clients are told why and logged. The stream never
    /// ends and yields no errors; dropping it closes the listener and aborts the handshakes that are under way.
    pub fn incoming(self, listener: TcpListener) -> impl Stream<Item = io::Result<TlsConnection>> {
        self.incoming_with(listener, MAX_HANDSHAKES)
    }

    fn incoming_with(self, listener: TcpListener, most: usize) -> impl Stream<Item = io::Result<TlsConnection>> {
        let door =
            Door { acceptor: self.acceptor, listener, most, handshakes: JoinSet::new(), waiting: VecDeque::new() };
        unfold(door, |mut door| async move {
            let connection = door.next().await;
            Some((Ok(connection), door))
        })
    }
}

struct Door {
    acceptor: TlsAcceptor,
    listener: TcpListener,
    /// So many handshakes may be under way.
    most: usize,
    handshakes: JoinSet<Option<TlsConnection>>,
    /// The handshakes that are under way, the oldest first, perhaps with some that have just ended.
    waiting: VecDeque<AbortHandle>,
}

impl Door {
    async fn next(&mut self) -> TlsConnection {
        loop {
            tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, remote)) => self.greet(stream, remote),
                    Err(error) => {
                        // Either this one connection is gone already, or file descriptors are short for a while.
                        tracing::warn!(%error, "a connection could not be accepted");
                        sleep(Duration::from_millis(50)).await;
                    }
                },
                Some(done) = self.handshakes.join_next() => {
                    if let Ok(Some(connection)) = done {
                        return connection;
                    }
                }
            }
        }
    }

    /// Begins a handshake, in the place of the oldest one if there are too many.
    fn greet(&mut self, stream: TcpStream, remote: SocketAddr) {
        if self.waiting.len() >= self.most {
            self.waiting.retain(|handshake| !handshake.is_finished());
        }
        if self.waiting.len() >= self.most
            && let Some(oldest) = self.waiting.pop_front()
        {
            tracing::warn!(%remote, most = self.most, "too many handshakes are under way; the oldest gave way to this one");
            oldest.abort();
        }
        self.waiting.push_back(self.handshakes.spawn(handshake(self.acceptor.clone(), stream, remote)));
    }
}

async fn handshake(acceptor: TlsAcceptor, stream: TcpStream, remote: SocketAddr) -> Option<TlsConnection> {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%remote, %error, "TCP_NODELAY could not be set");
    }
    match timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream).into_fallible()).await {
        Ok(Ok(stream)) => {
            let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
            let caller = Caller::new(Some(remote), certificates.first().map(AsRef::as_ref).unwrap_or_default());
            Some(TlsConnection { stream, caller })
        }
        Ok(Err((error, stream))) => {
            tracing::warn!(%remote, %error, "a client was refused in the TLS handshake");
            // What is in flight from the client would make the operating system reset the connection, and the alert
            // that says why would be lost with it. So the rest is read before the connection is closed.
            let _ = timeout(FAREWELL_TIMEOUT, farewell(stream)).await;
            None
        }
        Err(_) => {
            tracing::warn!(%remote, "a client did not complete the TLS handshake in time");
            None
        }
    }
}

async fn farewell(mut stream: TcpStream) -> io::Result<()> {
    stream.shutdown().await?;
    let mut rest = [0; 1024];
    let mut budget = 64 * 1024_usize;
    while budget > 0 {
        match stream.read(&mut rest).await? {
            0 => break,
            n => budget = budget.saturating_sub(n),
        }
    }
    Ok(())
}

/// Verifies a client certificate with the one root whose key identifier it names, and as issued by that root itself.
///
/// A search over all roots would go by the issuer's *name*, and an authority could then issue a certificate that names
/// another authority's key identifier, which is what callers are known by.
#[derive(Debug)]
struct IssuerVerifier {
    by_key_id: BTreeMap<Vec<u8>, Arc<dyn ClientCertVerifier>>,
    provider: Arc<rustls::crypto::CryptoProvider>,
}

impl IssuerVerifier {
    fn new(roots: &Roots) -> Result<Self, TransportError> {
        let refuse =
            |detail: String| TransportError::Credentials { what: "root certificate of clients".into(), detail };
        let mut stores: BTreeMap<Vec<u8>, (Vec<u8>, RootCertStore)> = BTreeMap::new();
        for root in &roots.certificates {
            let key_id = subject_key_id(root).ok_or_else(|| refuse("it has no subject key identifier".into()))?;
            let key = public_key(root).ok_or_else(|| refuse("it is no X.509 certificate".into()))?;
            let (known, store) = stores.entry(key_id.clone()).or_insert_with(|| (key.clone(), RootCertStore::empty()));
            if *known != key {
                return Err(refuse(format!("two different keys have the key identifier {}", hex::encode(key_id))));
            }
            store.add(root.clone()).map_err(|error| refuse(error.to_string()))?;
        }
        let provider = provider();
        let by_key_id = stores
            .into_iter()
            .map(|(key_id, (_, store))| {
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(store), Arc::clone(&provider))
                    .build()
                    .map_err(|error| refuse(error.to_string()))?;
                Ok((key_id, verifier))
            })
            .collect::<Result<_, TransportError>>()?;
        Ok(Self { by_key_id, provider })
    }
}

impl ClientCertVerifier for IssuerVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // A party has one certificate; who else is trusted here is nobody's business.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        authority_key_id(end_entity)
            .and_then(|key_id| self.by_key_id.get(&key_id))
            .ok_or(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer))?
            .verify_client_cert(end_entity, &[], now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// A connection whose client has shown an accepted certificate.
#[derive(Debug)]
pub struct TlsConnection {
    stream: TlsStream<TcpStream>,
    caller: Caller,
}

impl Connected for TlsConnection {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.caller.clone()
    }
}

impl AsyncRead for TlsConnection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for TlsConnection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Who is at the other end of a connection; tonic puts it into the extensions of every request.
#[derive(Clone, Debug)]
pub struct Caller {
    remote: Option<SocketAddr>,
    certificate: Arc<[u8]>,
    key_id: Option<Arc<[u8]>>,
}

impl Caller {
    /// A caller with the DER encoding of its certificate. Servers get callers from their connections; this is for those
    /// who call a service inside one process, such as tests.
    #[must_use]
    pub fn new(remote: Option<SocketAddr>, certificate: &[u8]) -> Self {
        Self { remote, certificate: certificate.into(), key_id: authority_key_id(certificate).map(Into::into) }
    }

    /// The address it calls from.
    #[must_use]
    pub const fn remote(&self) -> Option<SocketAddr> {
        self.remote
    }

    /// The DER encoding of its certificate.
    #[must_use]
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// The authority key identifier of its certificate.
    #[must_use]
    pub fn key_id(&self) -> Option<&[u8]> {
        self.key_id.as_deref()
    }
}

/// The authority key identifier of the certificate that the caller of a request connected with.
///
/// `None` if the request did not come over a [`TlsConnection`].
#[must_use]
pub fn caller_key_id<T>(request: &tonic::Request<T>) -> Option<Vec<u8>> {
    request.extensions().get::<Caller>()?.key_id().map(<[u8]>::to_vec)
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

    use super::super::{Client, health_service};
    use super::*;

    #[tokio::test]
    async fn silent_clients_give_way_to_those_who_speak() {
        const MOST: usize = 4;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &authority).unwrap().pem();
        let identity = || Identity::from_pem(certificate.as_bytes(), key.serialize_pem().as_bytes()).unwrap();
        let roots = Roots::from_pem(authority.pem().as_bytes()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let incoming = ServerTls::new(identity(), &roots).unwrap().incoming_with(listener, MOST);
        tokio::spawn(tonic::transport::Server::builder().add_service(health_service()).serve_with_incoming(incoming));

        let mut silent = Vec::new();
        for _ in 0..3 * MOST {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        let client = Client::new(&format!("https://localhost:{}", address.port()), &roots, &identity()).unwrap();
        for _ in 0..2 * MOST {
            // Half of the time after which a silent handshake is given up.
            timeout(HANDSHAKE_TIMEOUT / 2, client.connect()).await.unwrap().unwrap();
        }
        let oldest = timeout(HANDSHAKE_TIMEOUT / 2, silent[0].read(&mut [0; 1])).await.unwrap();
        assert!(!matches!(oldest, Ok(1..)), "the oldest was closed: {oldest:?}");
    }
}
