//! What can go wrong with a connection.

use std::error::Error as _;
use std::sync::Arc;

use thiserror::Error;

/// Why there is no connection, or why the credentials for one cannot be used.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum TransportError {
    /// A certificate or key file cannot be read or used.
    #[error("{what} cannot be used: {detail}")]
    Credentials {
        /// What was read, with its file where there is one.
        what: String,
        /// What is wrong with it.
        detail: String,
    },
    /// The endpoint has not the form `https://host:port`.
    #[error("{endpoint:?} is no endpoint: {detail}; it must be of the form https://host:port")]
    Endpoint {
        /// The text that was given.
        endpoint: String,
        /// What is wrong with it.
        detail: String,
    },
    /// Nobody answers there. Trying again later can help.
    #[error("cannot reach {endpoint}: {detail}")]
    Unreachable {
        /// The endpoint.
        endpoint: String,
        /// What the operating system says.
        detail: String,
    },
    /// The server's certificate does not chain to a root that is trusted for it, or is not valid for its name or today.
    #[error(
        "the certificate of {endpoint} is not trusted: {detail}; check the root certificate that is configured for it"
    )]
    ServerNotTrusted {
        /// The endpoint.
        endpoint: String,
        /// What the check found.
        detail: String,
    },
    /// The server does not accept the certificate of this client.
    #[error("the server {endpoint} refused this client certificate: {detail}")]
    CertificateRefused {
        /// The endpoint.
        endpoint: String,
        /// What the server said about the certificate.
        detail: String,
    },
    /// The connection failed in another way while it was made.
    #[error("no TLS 1.3 connection with {endpoint}: {detail}")]
    Handshake {
        /// The endpoint.
        endpoint: String,
        /// What went wrong.
        detail: String,
    },
    /// The server was reached but does not serve now. Trying again later can help.
    #[error("{endpoint} does not serve now: {detail}")]
    Unavailable {
        /// The endpoint.
        endpoint: String,
        /// What it answered.
        detail: String,
    },
}

impl TransportError {
    /// Whether the same call can succeed later without anybody changing a configuration.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Unavailable { .. })
    }

    /// Sorts what the TLS layer or the operating system reported on a connection.
    pub(super) fn from_io(endpoint: &Arc<str>, error: &std::io::Error) -> Self {
        use rustls::{AlertDescription as Alert, Error as Tls};
        let endpoint = endpoint.to_string();
        let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<Tls>());
        match tls {
            Some(Tls::InvalidCertificate(reason)) => {
                Self::ServerNotTrusted { endpoint, detail: certificate_error(reason) }
            }
            Some(Tls::AlertReceived(alert)) => {
                let detail = match alert {
                    Alert::CertificateExpired => "it has expired, or is not valid yet",
                    Alert::UnknownCA => "it does not know the authority that issued the certificate",
                    Alert::CertificateRequired => "it asks for a certificate and got none",
                    Alert::CertificateRevoked => "the certificate is revoked",
                    Alert::BadCertificate => "it cannot read the certificate, or its signature is wrong",
                    Alert::UnsupportedCertificate => "the certificate is of a kind that it does not take",
                    Alert::CertificateUnknown => "it did not accept the certificate",
                    Alert::DecryptError => {
                        "a signature does not verify: of its authority on it, or of its key in the handshake"
                    }
                    Alert::AccessDenied => "it denied access",
                    other => {
                        return Self::Handshake { endpoint, detail: format!("the server sent the alert {other:?}") };
                    }
                };
                Self::CertificateRefused { endpoint, detail: detail.into() }
            }
            Some(other) => Self::Handshake { endpoint, detail: other.to_string() },
            None => Self::Unreachable { endpoint, detail: error.to_string() },
        }
    }

    /// The error of this type in a chain of causes.
    pub(super) fn find<'a>(mut error: &'a (dyn std::error::Error + 'static)) -> Option<&'a Self> {
        loop {
            if let Some(found) = error.downcast_ref::<Self>() {
                return Some(found);
            }
            // An io::Error hands out the cause of what it wraps, not what it wraps.
            let wrapped = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
            if let Some(inner) = wrapped {
                error = inner;
                continue;
            }
            error = error.source()?;
        }
    }
}

fn certificate_error(reason: &rustls::CertificateError) -> String {
    use rustls::CertificateError as E;
    match reason {
        E::UnknownIssuer => "it was not issued by an authority that is trusted for this endpoint".into(),
        E::Expired | E::ExpiredContext { .. } => "it has expired".into(),
        E::NotValidYet | E::NotValidYetContext { .. } => "it is not valid yet".into(),
        E::NotValidForName | E::NotValidForNameContext { .. } => "it is not valid for the name of this endpoint".into(),
        other => other.to_string(),
    }
}

/// All causes of an error in one line, each said once.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

/// The message of a status and of what caused it.
pub(super) fn status_text(status: &tonic::Status) -> String {
    let mut text = status.message().to_string();
    if let Some(cause) = status.source() {
        text.push_str(": ");
        text.push_str(&chain(cause));
    }
    text
}
