//! Mutual TLS 1.3 for every connection, and who is at the other end.
//!
//! A party is known by its certificate authority: the *authority key identifier* (AKID) of the certificate with which it
//! connects. [`ServerTls`] accepts only certificates that the root with that very key identifier issued itself, so that
//! one organisation's authority cannot issue certificates that pass for another's. [`caller_key_id`] tells a service who
//! called.
//!
//! Nothing here installs a process-wide cryptography provider.

mod certificate;
mod client;
mod credentials;
mod error;
mod server;

pub use certificate::{authority_key_id, subject_key_id};
pub use client::Client;
pub use credentials::{Identity, Roots};
pub use error::TransportError;
pub use server::{Caller, ServerTls, TlsConnection, caller_key_id};

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use tonic_health::pb::health_server::{Health, HealthServer};

/// The largest message that any party sends or accepts: 4 MiB. Larger things travel in chunks.
pub const MAX_MESSAGE_BYTES: usize = 4 << 20;

/// The health service (`grpc.health.v1`) that every server adds; it answers that the server is serving.
///
/// [`Client::connect`] calls it to find out whether the server accepted the client's certificate.
pub fn health_service() -> HealthServer<impl Health> {
    tonic_health::server::health_reporter().1
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// What HTTP/2 is called while a connection is made.
const ALPN_HTTP2: &[u8] = b"h2";
