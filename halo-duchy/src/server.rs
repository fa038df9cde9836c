//! The Duchy's server: what stands around the engines of [`crate::protocol`].
//!
//! ```text
//! publishers ──► fulfillment ─┐                        ┌─► Kingdom
//! Duchies    ──► control ─────┼─► store + blobs ─► mill ┤
//! Kingdom    ──► herald ──────┘                        └─► Duchies
//! ```
//!
//! Everything that comes in is checked, stored and only then answered; the mill works on what is stored, stores what
//! comes out, and only then sends it. Nothing else passes from one part to another, so the process may end at any moment.
//!
//! | module | holds |
//! |---|---|
//! | [`config`] | the configuration file |
//! | `parties` | certificates, keys and connections of everybody whom this Duchy knows |
//! | `terms` | what a computation is about, every rule checked |
//! | `protocols` | the protocols that are served, behind one trait |
//! | `herald` | follows what the Kingdom reports |
//! | `services` | takes bodies in; [`receive`] does so in one stream or in several |
//! | `mill` | computes and delivers |
//! | `janitor` | removes what is left of computations that are over |
//! | [`stage`] | the stages that a computation passes at one Duchy |
//! | [`store`] | what a Duchy remembers: the [`store::Store`] contract, SQLite, the conformance suite |
//! | [`blobs`] | bodies: spool files of partial ones, content-addressed blobs of complete ones |
//! | [`secrets`] | what a computation keeps secret |
//! | [`keys`] | makes, seals, opens, rotates and destroys it, and keeps the audit trail |
//! | [`failpoint`] | named points at which a test build kills itself |
//!
//! # What a Duchy assumes
//!
//! Its configuration names the publishers, consumers and Duchies that it deals with, and the authority of each. The
//! Kingdom is trusted to pass messages on, not with their content: what it could gain from changing is signed by others or
//! enters a hash that others confirm.

pub mod blobs;
mod cli;
pub mod config;
mod duchy;
mod error;
pub mod failpoint;
mod herald;
mod janitor;
pub mod keys;
mod mill;
mod parties;
mod protocols;
pub mod receive;
pub mod secrets;
mod services;
pub mod stage;
pub mod store;
mod terms;

use std::fs::{self, TryLockError};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use halo_core::clock::{Clock, SystemClock};
use halo_core::lock::DirectoryLock;
use halo_core::pb::api::requisition_fulfillment_server::RequisitionFulfillmentServer;
use halo_core::pb::halo::transfers_server::TransfersServer;
use halo_core::pb::system::computation_control_server::ComputationControlServer;
use halo_core::transport::{MAX_MESSAGE_BYTES, ServerTls, health_service};
use halo_crypto::batch::Backend;
use halo_crypto::secret::Secret;
use rand_core::Rng;
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use zeroize::Zeroizing;

pub use cli::{cli, run};
pub use config::{Config, ConfigError};
pub use error::Error;

use blobs::Blobs;
use duchy::{Duchy, Settings, system_rng};
use keys::KeyManager;
use parties::Parties;
use receive::Turns;
use services::{Control, Fulfillment, Transfers};
use store::{SqliteStore, Store};

use crate::protocol::CHUNK_RECORDS;

/// Name of the database in the state directory.
const DATABASE: &str = "duchy.sqlite";
/// How long open calls have to end when the server stops.
const FAREWELL: Duration = Duration::from_secs(5);
/// How often a silent connection is probed, and how long the answer may take.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// Memory of an engine for each record that it holds, with the results of a record and room to spare: see
/// [`crate::protocol::llv2`].
const ENGINE_BYTES_PER_RECORD: u64 = 14 << 10;
/// Memory of everything but the records of an engine, in MiB: buckets, received bodies, the store, the program.
const OTHER_MIB: u64 = 160;
/// Bodies of each kind that are checked at once; each takes about 8 MiB.
const CHECKS: usize = 2;

/// Serves until `shutdown` is cancelled.
///
/// # Errors
/// If the configuration cannot be used, the state directory is in use or cannot be opened, or the address is taken.
pub async fn serve(config: Config, shutdown: CancellationToken) -> Result<(), Error> {
    let listener = TcpListener::bind(&config.listen)
        .await
        .map_err(|source| Error::Listen { address: config.listen.clone(), source })?;
    serve_on(listener, config, Arc::new(SystemClock), shutdown).await
}

/// Serves on a listener that is bound already, by a clock of the caller's, until `shutdown` is cancelled.
///
/// # Errors
/// As [`serve`].
pub async fn serve_on(
    listener: TcpListener,
    config: Config,
    clock: Arc<dyn Clock>,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    tracing::info!(backend = %Backend::current()?, "computes");
    let (parties, identity, roots) = Parties::load(&config)?;
    let keys = secrets::key_encryption_keys(&config)?;
    let tls = ServerTls::new(identity, &roots)?;
    let _lock = lock(&config.state_dir)?;
    let store = Arc::new(SqliteStore::open(&config.state_dir.join(DATABASE)).await?);
    let key_store = Arc::clone(&store);
    let keys = KeyManager::start(keys, config.id.clone(), key_store, clock.now(), &mut system_rng()).await?;
    let store: Arc<dyn Store> = store;
    // The lock says that whoever held a lease is gone.
    store.break_leases().await?;
    let blobs = Blobs::local(&config.state_dir, config.id.clone())?;
    let duchy = Arc::new(Duchy {
        parties,
        store,
        blobs,
        keys,
        clock,
        settings: settings(&config)?,
        turns: Turns::default(),
        work: Notify::new(),
        compute: Arc::new(Semaphore::new(1)),
        upload_checks: Arc::new(Semaphore::new(CHECKS)),
        delivery_checks: Arc::new(Semaphore::new(CHECKS)),
        shutdown: shutdown.clone(),
    });
    if config.noise_floor.allow_no_noise {
        tracing::warn!("allow_no_noise is set: measurements without any noise are computed, and are NOT private");
    }

    if config.allow_simulated_attestation {
        tracing::warn!("allow_simulated_attestation is set: a trustee here proves nothing of what it runs");
    }

    janitor::sweep_at_start(&duchy).await?;

    let mut tasks = JoinSet::new();
    tasks.spawn(herald::follow(Arc::clone(&duchy)));
    tasks.spawn(janitor::sweep(Arc::clone(&duchy)));
    let process = system_rng().next_u64();
    for mill in 0..mill::MILLS {
        tasks.spawn(mill::run(Arc::clone(&duchy), format!("{process:016x}-{mill}")));
    }
    match listener.local_addr() {
        Ok(address) => tracing::info!(duchy = %duchy.parties.me, %address, "serving"),
        Err(error) => tracing::warn!(%error, "serving on an unknown address"),
    }
    let of = || Arc::clone(&duchy);
    let server = Server::builder()
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(KEEP_ALIVE))
        .add_service(health_service())
        .add_service(RequisitionFulfillmentServer::new(Fulfillment(of())).max_decoding_message_size(MAX_MESSAGE_BYTES))
        .add_service(ComputationControlServer::new(Control(of())).max_decoding_message_size(MAX_MESSAGE_BYTES))
        .add_service(TransfersServer::new(Transfers(of())))
        .serve_with_incoming_shutdown(tls.incoming(listener), shutdown.clone().cancelled_owned());
    let farewell = async {
        shutdown.cancelled().await;
        tokio::time::sleep(FAREWELL).await;
    };
    let outcome = tokio::select! {
        outcome = server => outcome.map_err(Error::from),
        () = farewell => {
            tracing::warn!("some connections did not end in time and were closed");
            Ok(())
        }
    };
    // Also when the server stopped by itself.
    shutdown.cancel();
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended {
            tracing::error!(%error, "a task ended badly");
        }
    }
    tracing::info!("stopped");
    outcome
}

/// Reads the secret of deterministic noise, if there is one.
fn noise_key(config: &Config) -> Result<Option<Secret<[u8; 32]>>, Error> {
    let Some(file) = &config.noise_key_file else { return Ok(None) };
    let refuse = |problem: String| ConfigError::Value { path: file.clone(), key: "noise_key_file", problem };
    let digits = Zeroizing::new(fs::read_to_string(file).map_err(|error| refuse(format!("cannot be read: {error}")))?);
    let mut key = Zeroizing::new([0; 32]);
    hex::decode_to_slice(digits.trim(), &mut *key).map_err(|_| refuse("must hold 64 hexadecimal digits".to_owned()))?;
    Ok(Some(Secret::new(*key)))
}

/// Makes the state directory this process's own, until the lock is dropped.
fn lock(directory: &Path) -> Result<DirectoryLock, Error> {
    DirectoryLock::acquire(directory).map_err(|error| match error {
        TryLockError::WouldBlock => Error::InUse(directory.to_owned()),
        TryLockError::Error(source) => Error::StateDirectory { directory: directory.to_owned(), source },
    })
}

fn settings(config: &Config) -> Result<Settings, Error> {
    let work = config.state_dir.join("work");
    match fs::remove_dir_all(&work) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(Error::StateDirectory { directory: work, source: error });
        }
        _ => {}
    }
    let memory = config.memory_budget_mib.saturating_sub(OTHER_MIB) << 20;
    let records = memory / ENGINE_BYTES_PER_RECORD;
    Ok(Settings {
        memory,
        noise_floor: config.noise_floor,
        allow_simulated_attestation: config.allow_simulated_attestation,
        noise_key: noise_key(config)?,
        retention: Duration::from_secs(config.retention_days * 24 * 60 * 60),
        chunk_records: usize::try_from(records).unwrap_or(usize::MAX).min(CHUNK_RECORDS),
        maximum_body: config.maximum_body_mib << 20,
        lease: Duration::from_secs(config.lease_seconds),
        work,
    })
}
