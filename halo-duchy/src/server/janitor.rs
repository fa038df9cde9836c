//! Removes what is left of computations that are over, and ends those that nobody ends.
//!
//! Bodies are removed when a computation ends. What a stream or an attempt leaves behind that was under way just then, or
//! that a killed process left, is found here; rows are forgotten when their retention has passed. A computation whose
//! deadline is long past has been cancelled by the Kingdom; if that has not become known here, its keys are destroyed all
//! the same.

use std::sync::Arc;
use std::time::Duration;

use super::blobs::BlobError;
use super::duchy::Duchy;
use super::error::Error;
use super::store::StoreError;
use super::terms::Terms;

/// How long after its deadline a computation is given up without the Kingdom's word.
const GRACE: Duration = Duration::from_secs(60 * 60);
/// How often.
const INTERVAL: Duration = Duration::from_secs(60 * 60);

/// Why a round was not finished; the next one goes on.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Blobs(#[from] BlobError),
}

/// Removes bodies of computations that nothing refers to: before anybody writes.
pub(crate) async fn sweep_at_start(duchy: &Duchy) -> Result<(), Error> {
    for computation in duchy.store.unfinished().await? {
        let referred = duchy.store.bodies(&computation).await?;
        duchy.blobs.retain(&computation, &referred).await?;
    }
    Ok(())
}

async fn abandon_overdue(duchy: &Duchy) -> Result<(), Trouble> {
    for computation in duchy.store.unfinished().await? {
        let Some(record) = duchy.store.load(&computation).await? else { continue };
        let Some(deadline) = Terms::read(&record.received).ok().and_then(|terms| terms.deadline()) else { continue };
        if duchy.now() > deadline + GRACE {
            tracing::error!(computation, %deadline, "its deadline is long past; keys destroyed, bodies removed");
            duchy.store.abandon(&computation, "its deadline has passed", duchy.now()).await?;
            duchy.blobs.remove_all(&computation).await?;
        }
    }
    Ok(())
}

/// Sweeps at once and then every hour, until the server stops.
pub(crate) async fn sweep(duchy: Arc<Duchy>) {
    loop {
        if let Err(error) = sweep_once(&duchy).await {
            tracing::warn!(%error, "what is left of old computations was not removed");
        }
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            () = duchy.shutdown.cancelled() => return,
        }
    }
}

/// Makes sure that nothing is left of dropped keys, and signs that. What does not succeed is tried again in the next round.
pub(crate) async fn settle_keys(duchy: &Duchy) {
    let consent = &duchy.parties.consent;
    match duchy.keys.settle(&consent.key, &consent.name.to_string(), duchy.now()).await {
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "the destruction of keys was not recorded; it will be tried again"),
    }
}

async fn sweep_once(duchy: &Duchy) -> Result<(), Trouble> {
    abandon_overdue(duchy).await?;
    // Listed first: a computation that begins meanwhile is not among them.
    let found = duchy.blobs.computations().await?;
    let unfinished = duchy.store.unfinished().await?;
    for computation in found.difference(&unfinished) {
        tracing::info!(computation, "removes what was left of it");
        duchy.blobs.remove_all(computation).await?;
    }
    settle_keys(duchy).await;
    let forgotten = duchy.store.forget(duchy.now() - duchy.settings.retention).await?;
    if forgotten > 0 {
        tracing::info!(forgotten, "computations that are over for longer than retention_days");
    }
    Ok(())
}
