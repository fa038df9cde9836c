//! Removes what is left of computations that are over.
//!
//! Bodies are removed when a computation ends. What a stream or an attempt leaves behind that was under way just then, or
//! that a killed process left, is found here; and rows are forgotten when their retention has passed.

use std::sync::Arc;
use std::time::Duration;

use super::blobs::BlobError;
use super::duchy::Duchy;
use super::store::StoreError;

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

async fn sweep_once(duchy: &Duchy) -> Result<(), Trouble> {
    // Listed first: a computation that begins meanwhile is not among them.
    let found = duchy.blobs.computations().await?;
    let unfinished = duchy.store.unfinished().await?;
    for computation in found.difference(&unfinished) {
        tracing::info!(computation, "removes what was left of it");
        duchy.blobs.remove_all(computation).await?;
    }
    let forgotten = duchy.store.forget(duchy.now() - duchy.settings.retention).await?;
    if forgotten > 0 {
        tracing::info!(forgotten, "computations that are over for longer than retention_days");
    }
    Ok(())
}
