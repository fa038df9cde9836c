//! The client's end: connects, and says clearly why it could not.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::client::Resumption;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::error::{chain, status_text};
use super::{ALPN_HTTP2, Identity, Roots, TransportError, provider};

/// How long making a connection may take, and the first call on it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a silent connection is probed, and how long the answer may take.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// Connects to one endpoint as one party.
#[derive(Clone)]
pub struct Client {
    dialer: Dialer,
    endpoint: Endpoint,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("endpoint", &self.dialer.shown).finish_non_exhaustive()
    }
}

impl Client {
    /// Prepares connections to `endpoint` (`https://host:port`), whose certificate must chain to one of `roots`.
    ///
    /// # Errors
    /// [`TransportError::Endpoint`] or [`TransportError::Credentials`].
    pub fn new(endpoint: &str, roots: &Roots, identity: &Identity) -> Result<Self, TransportError> {
        let refuse = |detail: &str| TransportError::Endpoint { endpoint: endpoint.into(), detail: detail.into() };
        let uri: Uri = endpoint.parse().map_err(|error: http::uri::InvalidUri| refuse(&error.to_string()))?;
        if uri.scheme_str() != Some("https") {
            return Err(refuse("it does not begin with https://"));
        }
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(refuse("it has a path"));
        }
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| refuse("it has no host"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_string();
        let port = uri.port_u16().ok_or_else(|| refuse("it has no port"))?;
        let name = ServerName::try_from(host.clone()).map_err(|_| refuse("its host is no name and no address"))?;

        let dialer = Dialer {
            shown: endpoint.trim_end_matches('/').into(),
            address: (host, port),
            name,
            tls: TlsConnector::from(Arc::new(client_config(roots, identity)?)),
            failure: Failure::default(),
        };
        // tonic must not add a TLS layer of its own, so it sees a plain endpoint with the origin that servers expect.
        let plain = format!("http://{}", uri.authority().map_or("", http::uri::Authority::as_str));
        let endpoint = Endpoint::from_shared(plain)
            .map_err(|error| refuse(&chain(&error)))?
            .origin(uri)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true);
        Ok(Self { dialer, endpoint })
    }

    /// The endpoint as it was given.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.dialer.shown
    }

    /// Connects and asks for the server's health.
    ///
    /// The question is needed because in TLS 1.3 a server that does not accept the client's certificate says so only
    /// after the client believes the connection made. The channel connects again by itself when the connection is lost.
    ///
    /// # Errors
    /// See the variants of [`TransportError`]; [`TransportError::is_transient`] tells which are worth another attempt.
    pub async fn connect(&self) -> Result<Channel, TransportError> {
        let dialer = Dialer { failure: Failure::default(), ..self.dialer.clone() };
        let failure = dialer.failure.clone();
        let connector = tower::service_fn(move |_: Uri| {
            let dialer = dialer.clone();
            async move { dialer.dial().await }
        });
        let channel = self.endpoint.connect_with_connector(connector).await.map_err(|error| {
            TransportError::find(&error).cloned().unwrap_or_else(|| self.handshake_failed(chain(&error)))
        })?;
        let mut health = HealthClient::new(channel.clone());
        let check = health.check(HealthCheckRequest { service: String::new() });
        let endpoint = self.dialer.shown.to_string();
        match timeout(CONNECT_TIMEOUT, check).await {
            Ok(Ok(answer)) if answer.get_ref().status() == ServingStatus::Serving => Ok(channel),
            Ok(Ok(answer)) => {
                Err(TransportError::Unavailable { endpoint, detail: answer.get_ref().status().as_str_name().into() })
            }
            // A server without the service is a server all the same.
            Ok(Err(status)) if status.code() == tonic::Code::Unimplemented => Ok(channel),
            Ok(Err(status)) => Err(failure.take().unwrap_or_else(|| {
                let detail = format!("its health check ended with {:?}: {}", status.code(), status_text(&status));
                TransportError::Unavailable { endpoint, detail }
            })),
            Err(_) => {
                Err(TransportError::Unavailable { endpoint, detail: "its health check had no answer in time".into() })
            }
        }
    }

    fn handshake_failed(&self, detail: String) -> TransportError {
        TransportError::Handshake { endpoint: self.dialer.shown.to_string(), detail }
    }
}

fn client_config(roots: &Roots, identity: &Identity) -> Result<ClientConfig, TransportError> {
    let refuse =
        |what: &str, error: rustls::Error| TransportError::Credentials { what: what.into(), detail: error.to_string() };
    let mut store = RootCertStore::empty();
    for root in &roots.certificates {
        store.add(root.clone()).map_err(|error| refuse("root certificate of the server", error))?;
    }
    let what = "client certificate and private key";
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| refuse(what, error))?
        .with_root_certificates(store)
        .with_client_auth_cert(identity.chain.clone(), identity.key.clone_key())
        .map_err(|error| refuse(what, error))?;
    config.alpn_protocols = vec![ALPN_HTTP2.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// What the TLS layer last said about a connection, kept because the layers above reduce it to "canceled".
#[derive(Clone, Default)]
struct Failure(Arc<Mutex<Option<TransportError>>>);

impl Failure {
    fn put(&self, error: TransportError) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }

    fn take(&self) -> Option<TransportError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Makes one connection after the other to the same place.
#[derive(Clone)]
struct Dialer {
    shown: Arc<str>,
    address: (String, u16),
    name: ServerName<'static>,
    tls: TlsConnector,
    failure: Failure,
}

impl Dialer {
    async fn dial(self) -> Result<TokioIo<ClientConnection>, TransportError> {
        let endpoint = self.shown.to_string();
        let unreachable = |detail: String| TransportError::Unreachable { endpoint: endpoint.clone(), detail };
        let dialing = async {
            let (host, port) = &self.address;
            let tcp = TcpStream::connect((host.as_str(), *port)).await.map_err(|e| unreachable(e.to_string()))?;
            tcp.set_nodelay(true).map_err(|error| unreachable(error.to_string()))?;
            let connected = self.tls.connect(self.name.clone(), tcp).await;
            connected.map_err(|error| TransportError::from_io(&self.shown, &error))
        };
        let stream =
            timeout(CONNECT_TIMEOUT, dialing).await.unwrap_or_else(|_| Err(unreachable("no answer in time".into())))?;
        Ok(TokioIo::new(ClientConnection { stream, endpoint: self.shown, failure: self.failure, heard: false }))
    }
}

/// A connection that puts what the server's TLS layer says into words.
struct ClientConnection {
    stream: TlsStream<TcpStream>,
    endpoint: Arc<str>,
    failure: Failure,
    /// Whether the server has sent anything, which it does only after it accepted the certificate.
    heard: bool,
}

impl ClientConnection {
    fn explain(&self, error: io::Error) -> io::Error {
        let explained = match TransportError::from_io(&self.endpoint, &error) {
            TransportError::Unreachable { endpoint, .. } if !self.heard => TransportError::CertificateRefused {
                endpoint,
                detail: format!("it closed the connection as soon as it had seen the certificate ({error})"),
            },
            other => other,
        };
        self.failure.put(explained.clone());
        io::Error::new(error.kind(), explained)
    }
}

impl AsyncRead for ClientConnection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = std::task::ready!(Pin::new(&mut self.stream).poll_read(cx, buf));
        Poll::Ready(match read {
            Ok(()) if buf.filled().len() > before => {
                self.heard = true;
                Ok(())
            }
            Ok(()) if !self.heard => Err(self.explain(io::ErrorKind::UnexpectedEof.into())),
            Ok(()) => Ok(()),
            Err(error) => Err(self.explain(error)),
        })
    }
}

impl AsyncWrite for ClientConnection {
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
