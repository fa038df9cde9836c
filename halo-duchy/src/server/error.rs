//! What can keep a Duchy's server from running.

use std::io;
use std::path::PathBuf;

use halo_core::transport::TransportError;
use halo_crypto::batch::BackendError;
use thiserror::Error;

use super::blobs::BlobError;
use super::config::ConfigError;
use super::keys::KeyError;
use super::secrets::SecretError;
use super::store::StoreError;

/// Why the server cannot start or go on.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A certificate, a key or an endpoint cannot be used.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// A certificate or key for consent signaling cannot be used.
    #[error("{file}: {reason}")]
    Consent {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Two parties cannot be told apart, or a name is not one.
    #[error("the configuration's parties: {0}")]
    Parties(String),
    /// There is no usable key-encryption key.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The keys in the state directory cannot be taken over.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// The state directory cannot be used.
    #[error("state_dir {directory}: {source}")]
    StateDirectory {
        /// The directory.
        directory: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process works in the state directory.
    #[error("state_dir {0} is in use by another process; a Duchy runs once")]
    InUse(PathBuf),
    /// The curve's backend that the environment asks for cannot be had.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The database cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The blob store cannot be used.
    #[error(transparent)]
    Blobs(#[from] BlobError),
    /// The address is taken, or is none.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The configured address.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// The server stopped by itself.
    #[error("the server failed: {0}")]
    Serve(#[from] tonic::transport::Error),
    /// The operating system refused a signal handler, threads or random numbers.
    #[error("the process cannot run: {0}")]
    Process(io::Error),
}
