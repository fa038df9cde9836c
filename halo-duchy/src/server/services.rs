//! The gRPC services: uploads of publishers, deliveries of other Duchies, and how much of either has arrived.

mod control;
mod fulfillment;
mod transfers;

pub(crate) use control::Control;
pub(crate) use fulfillment::Fulfillment;
pub(crate) use transfers::Transfers;

use tonic::Status;

use super::duchy::Duchy;
use super::receive::store_status;
use super::store::BodyId;
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

/// Checks every record of a body that has just been stored, before it is bound. The check computes on points, so it
/// runs off the runtime's threads.
async fn check_records(
    body: Body,
    check: impl FnOnce(&Body) -> Result<(), ProtocolError> + Send + 'static,
) -> Result<(), Status> {
    let outcome = tokio::task::spawn_blocking(move || check(&body)).await;
    match outcome.map_err(|_| Status::unavailable("the server is shutting down"))? {
        Ok(()) => Ok(()),
        Err(ProtocolError::Io(error)) => Err(Status::unavailable(error.to_string())),
        Err(error) => Err(Status::invalid_argument(format!("{error}; nothing of the body is kept"))),
    }
}

/// Whether a computation has ended here.
async fn is_over(duchy: &Duchy, computation: &str) -> Result<bool, Status> {
    let record = duchy.store.load(computation).await.map_err(|error| store_status(&error))?;
    Ok(record.is_none_or(|record| record.stage == super::stage::Stage::Complete))
}
