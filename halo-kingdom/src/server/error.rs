//! Why the server does not start or stops.

use std::path::PathBuf;

use halo_core::transport::TransportError;
use halo_crypto::batch::BackendError;

use super::store::StoreError;

/// Why the server does not start or stops.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The curve's backend that the environment asks for cannot be had.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// A file of the configuration cannot be read.
    #[error("{file} cannot be read: {source}")]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The configuration is not what it should be.
    #[error("{file} is not the configuration of a Kingdom: {detail}")]
    Configuration {
        /// The file.
        file: PathBuf,
        /// Which key, and what is wrong with it.
        detail: String,
    },
    /// A party of the configuration cannot be set up.
    #[error("{party}: {detail}")]
    Party {
        /// Its resource name.
        party: String,
        /// What is wrong.
        detail: String,
    },
    /// The settings make no sense.
    #[error(transparent)]
    Settings(#[from] crate::Error),
    /// The state directory cannot be used.
    #[error("the state directory {directory} cannot be used: {source}")]
    StateDirectory {
        /// The directory.
        directory: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another process uses the state directory.
    #[error("the state directory {0} is in use by another process")]
    InUse(PathBuf),
    /// The storage failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Certificate or key for TLS cannot be used.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: String,
        /// Why.
        source: std::io::Error,
    },
    /// The server stopped.
    #[error("the server stopped: {0}")]
    Serve(#[from] tonic::transport::Error),
    /// Something that was asked for is not in the state directory.
    #[error("{0}")]
    NotStored(String),
    /// The process cannot be set up.
    #[error("the process cannot be set up: {0}")]
    Process(std::io::Error),
}
