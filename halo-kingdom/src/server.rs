//! The Kingdom's server: storage, the public and the system services, deadlines.
//!
//! | module | holds |
//! |---|---|
//! | [`config`] | the configuration file |
//! | [`store`] | what the Kingdom remembers: the [`store::Store`] contract, SQLite, the conformance suite |
//!
//! Every method finds out who calls (the authority key identifier of the client certificate), verifies what is signed,
//! and leaves the decision to [`crate::lifecycle`]. Streams are fed from the change log as it is committed; nothing
//! polls.

mod bootstrap;
mod cli;
pub mod config;
mod consent;
mod deadline;
mod error;
#[cfg(test)]
mod fixture;
mod kingdom;
mod limits;
mod page;
mod refusal;
mod services;
pub mod store;
mod stored;
mod wire;

use std::{fs::TryLockError, path::Path, sync::Arc, time::Duration};

use halo_core::{
    clock::{Clock, SystemClock},
    lock::DirectoryLock,
    pb::{
        api::{
            certificates_server::CertificatesServer, data_providers_server::DataProvidersServer,
            event_groups_server::EventGroupsServer, measurement_consumers_server::MeasurementConsumersServer,
            measurements_server::MeasurementsServer, public_keys_server::PublicKeysServer,
            requisitions_server::RequisitionsServer,
        },
        halo::watch_server::WatchServer,
        system::{
            computation_log_entries_server::ComputationLogEntriesServer,
            computation_participants_server::ComputationParticipantsServer, computations_server::ComputationsServer,
            requisitions_server::RequisitionsServer as SystemRequisitionsServer,
        },
    },
    resource::CertificateParent,
    transport::{Identity, Roots, ServerTls, health_service},
};
use halo_crypto::batch::Backend;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

pub use cli::{cli, run};
pub use config::Config;
pub use error::Error;
pub use refusal::ERROR_DOMAIN;
pub use stored::{
    StoredMeasurement, StoredResult, stored_measurements, stored_result, stored_results, stored_stage_attempts,
};

use crate::planner::Planner;
use kingdom::Kingdom;
use store::{Party, Revocation, Store, sqlite::SqliteStore};

/// Name of the database in the state directory.
const DATABASE: &str = "kingdom.sqlite";
/// How long open calls have to end when the server stops.
const FAREWELL: Duration = Duration::from_secs(10);
/// How often a silent connection is probed, and how long the answer may take.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// Serves until `shutdown` is cancelled.
///
/// # Errors
/// If the configuration cannot be used, the state directory cannot be opened or is another process's, or the address is
/// taken.
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
    Backend::current()?;
    let planner = Planner::new(config.protocols.clone(), config.duchies())?;
    let directory = &config.state_dir;
    let _lock = lock(directory)?;
    let store = Arc::new(SqliteStore::open(&directory.join(DATABASE)).await?);
    let parties = bootstrap::bootstrap(store.as_ref(), &config, clock.now()).await?;
    let identity = Identity::from_pem_files(&config.tls_certificate, &config.tls_private_key)?;
    let roots = Roots::from_der(parties.iter().map(|party| party.root_der.clone()).collect());
    let tls = ServerTls::new(identity, &roots)?;
    let shared: Arc<dyn Store> = Arc::<SqliteStore>::clone(&store);
    let deadlines = (config.measurement_deadline, config.maximum_deadline);
    let kingdom = Arc::new(Kingdom::new(shared, clock, planner, deadlines, shutdown.clone(), &parties));
    settle(&kingdom, &parties).await?;
    for protocol in config.protocols.without_noise() {
        tracing::warn!(%protocol, "results of this Kingdom's measurements with this protocol have NO noise");
    }
    let deadlines = tokio::spawn(deadline::keep_deadlines(Arc::clone(&kingdom)));
    match listener.local_addr() {
        Ok(address) => tracing::info!(%address, parties = parties.len(), "serving"),
        Err(error) => tracing::warn!(%error, "serving on an unknown address"),
    }

    let of = || Arc::clone(&kingdom);
    let server = Server::builder()
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(KEEP_ALIVE))
        .add_service(health_service())
        .add_service(MeasurementsServer::new(services::measurements::Measurements(of())))
        .add_service(RequisitionsServer::new(services::requisitions::Requisitions(of())))
        .add_service(CertificatesServer::new(services::certificates::Certificates(of())))
        .add_service(DataProvidersServer::new(services::parties::DataProviders(of())))
        .add_service(MeasurementConsumersServer::new(services::parties::MeasurementConsumers(of())))
        .add_service(PublicKeysServer::new(services::parties::PublicKeys(of())))
        .add_service(EventGroupsServer::new(services::event_groups::EventGroups(of())))
        .add_service(ComputationsServer::new(services::computations::Computations(of())))
        .add_service(ComputationParticipantsServer::new(services::participants::Participants(of())))
        .add_service(SystemRequisitionsServer::new(services::participants::Requisitions(of())))
        .add_service(ComputationLogEntriesServer::new(services::participants::LogEntries(of())))
        .add_service(WatchServer::new(services::watch::Watch(of())))
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
    if let Err(error) = deadlines.await {
        tracing::error!(%error, "the task that keeps deadlines ended badly");
    }
    store.close().await;
    tracing::info!("stopped");
    outcome
}

/// Makes the state directory this process's own, until the lock is dropped.
fn lock(directory: &Path) -> Result<DirectoryLock, Error> {
    DirectoryLock::acquire(directory).map_err(|error| match error {
        TryLockError::WouldBlock => Error::InUse(directory.to_owned()),
        TryLockError::Error(source) => Error::StateDirectory { directory: directory.to_owned(), source },
    })
}

/// Finishes what a stop interrupted: measurements that rely on a certificate that was revoked just before.
async fn settle(kingdom: &Kingdom, parties: &[Party]) -> Result<(), Error> {
    for party in parties {
        let name: &CertificateParent = &party.name;
        let mut after = None;
        loop {
            let page = kingdom.store.certificates(name, after, 500).await?;
            let Some(last) = page.last() else { break };
            after = Some((last.not_before, last.name.certificate));
            for certificate in page.iter().filter(|certificate| certificate.revocation != Revocation::Good) {
                if let Err(error) = kingdom.fail_for(&certificate.name).await {
                    tracing::error!(certificate = %certificate.name, %error, "its measurements could not be ended");
                }
            }
        }
    }
    Ok(())
}
