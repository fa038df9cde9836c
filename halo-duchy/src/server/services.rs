//! The gRPC services: uploads of publishers, deliveries of other Duchies, and how much of either has arrived.

mod control;
mod fulfillment;
mod transfers;

pub(crate) use control::Control;
pub(crate) use fulfillment::Fulfillment;
pub(crate) use transfers::Transfers;

use std::future::Future;
use std::sync::Arc;

use halo_core::resource::{ComputationName, DuchyId};
use prost::Message;
use tokio::sync::Semaphore;
use tonic::Status;

use super::duchy::Duchy;
use super::receive::{self, Announcement, Turn, blob_status, store_status};
use super::stage::Stage;
use super::store::{Binding, BodyId, StoreError};
use super::terms::{Refusal, Terms};
use crate::protocol::{Body, Description, ProtocolError};

/// Reads what the header of a stream announces of its body.
fn announced_body(length: i64, records: i64, sha256: &[u8]) -> Result<BodyId, Status> {
    Ok(BodyId {
        sha256: digest("body_sha256", sha256)?,
        length: count("body_length", length)?,
        records: count("record_count", records)?,
    })
}

fn count(field: &str, value: i64) -> Result<u64, Status> {
    u64::try_from(value).map_err(|_| Status::invalid_argument(format!("header.{field}: {value} is negative")))
}

fn digest(field: &str, bytes: &[u8]) -> Result<[u8; 32], Status> {
    bytes.try_into().map_err(|_| {
        Status::invalid_argument(format!("header.{field}: it has {} bytes; a SHA-256 has 32", bytes.len()))
    })
}

/// What became of a complete body.
enum Settled {
    /// It is what it ought to be, and bound to its target.
    Bound,
    /// A record is not what it ought to be, in words; nothing of the body is kept.
    Bad(String),
}

/// Takes a complete body over: keeps it, checks every record, and binds it. This goes on to its end when the sender hangs
/// up meanwhile: what the sender did not wait for is there when it comes again, and nothing is left lying about.
///
/// The check computes on points, so it runs off the runtime's threads, and only as many bodies are checked at once as
/// there are `permits`.
async fn settle<B>(
    duchy: &Arc<Duchy>,
    announced: Announcement,
    turn: Turn,
    permits: &Arc<Semaphore>,
    check: impl FnOnce(&Body) -> Result<(), ProtocolError> + Send + 'static,
    bind: impl FnOnce(Arc<Duchy>) -> B + Send + 'static,
) -> Result<Settled, Status>
where
    B: Future<Output = Result<Binding, StoreError>> + Send,
{
    let stopping = || Status::unavailable("the server is shutting down");
    let (duchy, permits) = (Arc::clone(duchy), Arc::clone(permits));
    let work = async move {
        let _turn = turn;
        receive::keep(duchy.store.as_ref(), &duchy.blobs, &announced).await?;
        let body = duchy.blobs.body(&announced.transfer.computation, &announced.body, announced.shape.record_bytes());
        let permit = permits.acquire_owned().await.map_err(|_| stopping())?;
        let checking = move || {
            let _permit = permit;
            check(&body)
        };
        match tokio::task::spawn_blocking(checking).await.map_err(|_| stopping())? {
            Ok(()) => {}
            Err(ProtocolError::BadRecord { record, reason, .. }) => {
                forget(&duchy, &announced).await?;
                return Ok(Settled::Bad(format!("record {record} of the body is not acceptable: {reason}")));
            }
            Err(error @ ProtocolError::BadShare { .. }) => {
                forget(&duchy, &announced).await?;
                return Ok(Settled::Bad(error.to_string()));
            }
            // It was the announced body when it was kept: this disk has spoiled it since, or cannot be read.
            Err(error) => return Err(Status::unavailable(error.to_string())),
        }
        match bind(Arc::clone(&duchy)).await {
            Ok(_) => {}
            Err(error @ (StoreError::OtherBody { .. } | StoreError::NotAwaited { .. })) => {
                forget(&duchy, &announced).await?;
                return Err(store_status(&error));
            }
            // Whether it is bound is not known; the sender finds out when it comes again.
            Err(error) => return Err(store_status(&error)),
        }
        duchy.blobs.discard(&announced.transfer).await.map_err(|error| blob_status(&error))?;
        Ok(Settled::Bound)
    };
    tokio::spawn(work).await.map_err(|_| stopping())?
}

/// Removes a body that is not bound, unless something else of the computation is the same.
async fn forget(duchy: &Duchy, announced: &Announcement) -> Result<(), Status> {
    let Announcement { transfer, body, .. } = announced;
    receive::discard(duchy.store.as_ref(), &duchy.blobs, transfer).await?;
    let referred = duchy.store.bodies(&transfer.computation).await.map_err(|error| store_status(&error))?;
    if referred.contains(&body.sha256) {
        return Ok(());
    }
    duchy.blobs.remove(&transfer.computation, body).await.map_err(|error| blob_status(&error))
}

/// Ends a computation here because of what somebody sent, and tells the Kingdom who.
async fn give_up(duchy: &Duchy, computation: &str, stage: Stage, refusal: &Refusal) -> Result<(), Status> {
    tracing::error!(computation, %stage, reason = refusal.message, culprits = ?refusal.culprits, "gives up");
    let id = computation.parse().map_err(|error: halo_core::Error| Status::internal(error.to_string()))?;
    let request = duchy.failure(&ComputationName::new(id), stage, refusal).encode_to_vec();
    let given_up = duchy.store.give_up(computation, &request, &refusal.message, duchy.now()).await;
    given_up.map_err(|error| store_status(&error))?;
    duchy.work.notify_one();
    Ok(())
}

/// What a computation is about; `None` for one that is not known, or was refused as soon as it was.
async fn terms(duchy: &Duchy, computation: &str) -> Result<Option<Arc<Terms>>, Status> {
    let record = duchy.store.load(computation).await.map_err(|error| store_status(&error))?;
    Ok(record.and_then(|record| Terms::read(&record.received).ok()).map(Arc::new))
}

/// Which message a number on the wire means, from a Duchy.
fn description(terms: &Terms, number: i32, from: &DuchyId) -> Option<Description> {
    Description::ALL.into_iter().find(|description| terms.protocol.message_number(*description, from) == Some(number))
}

/// Whether a computation has ended here.
async fn is_over(duchy: &Duchy, computation: &str) -> Result<bool, Status> {
    let record = duchy.store.load(computation).await.map_err(|error| store_status(&error))?;
    Ok(record.is_none_or(|record| record.stage == Stage::Complete))
}
