//! The gRPC services: uploads of publishers, deliveries of other Duchies, and how much of either has arrived.

mod control;
mod fulfillment;
mod transfers;

pub(crate) use control::Control;
pub(crate) use fulfillment::Fulfillment;
pub(crate) use transfers::Transfers;

use std::sync::Arc;

use halo_core::resource::ComputationName;
use prost::Message;
use tonic::Status;

use super::duchy::Duchy;
use super::receive::store_status;
use super::stage::Stage;
use super::store::BodyId;
use super::terms::Refusal;
use crate::protocol::{Body, ProtocolError};

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

/// What came out of a check of records.
enum Checked {
    /// All are what they ought to be.
    Good,
    /// One is not; in words.
    Bad(String),
}

/// Checks every record of a body that has just been stored, before it is bound. The check computes on points, so it
/// runs off the runtime's threads, and only so many bodies are checked at once.
async fn check_records(
    duchy: &Duchy,
    body: Body,
    check: impl FnOnce(&Body) -> Result<(), ProtocolError> + Send + 'static,
) -> Result<Checked, Status> {
    let stopping = || Status::unavailable("the server is shutting down");
    let turn = Arc::clone(&duchy.checks).acquire_owned().await.map_err(|_| stopping())?;
    let work = move || {
        let _turn = turn;
        check(&body)
    };
    match tokio::task::spawn_blocking(work).await.map_err(|_| stopping())? {
        Ok(()) => Ok(Checked::Good),
        Err(ProtocolError::Io(error)) => Err(Status::unavailable(error.to_string())),
        Err(ProtocolError::BadRecord { record, reason, .. }) => {
            Ok(Checked::Bad(format!("record {record} of the body is not acceptable: {reason}")))
        }
        Err(error) => Ok(Checked::Bad(error.to_string())),
    }
}

/// Ends a computation here because of what somebody sent, and tells the Kingdom who.
async fn give_up(duchy: &Duchy, computation: &str, stage: Stage, refusal: &Refusal) -> Result<(), Status> {
    tracing::error!(computation, %stage, reason = refusal.message, culprits = ?refusal.culprits, "gives up");
    let id = computation.parse().map_err(|error: halo_core::Error| Status::internal(error.to_string()))?;
    let request = duchy.failure(&ComputationName::new(id), stage.name(), refusal).encode_to_vec();
    let given_up = duchy.store.give_up(computation, &request, &refusal.message, duchy.now()).await;
    given_up.map_err(|error| store_status(&error))?;
    duchy.work.notify_one();
    Ok(())
}

/// Whether a computation has ended here.
async fn is_over(duchy: &Duchy, computation: &str) -> Result<bool, Status> {
    let record = duchy.store.load(computation).await.map_err(|error| store_status(&error))?;
    Ok(record.is_none_or(|record| record.stage == Stage::Complete))
}
