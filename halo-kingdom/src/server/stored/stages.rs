//! What the Duchies reported of their stages.

use std::path::Path;

use halo_core::{pb::system::StageAttempt, resource::MeasurementName};
use prost::Message;

use super::super::{
    DATABASE, Error,
    store::{Store, StoreError, sqlite::SqliteStore},
};

/// What the Duchies reported of their stages, in the order of the reports: who, and with the numbers of records and bytes
/// that the consumer's timeline leaves out. For the Kingdom's operator; the Kingdom may be running or not.
///
/// # Errors
/// [`Error::Store`] if there is no database, or it cannot be read; [`Error::NotStored`] if there is no such measurement.
pub async fn stored_stage_attempts(
    state_dir: &Path,
    measurement: &MeasurementName,
) -> Result<Vec<(String, StageAttempt)>, Error> {
    let store = SqliteStore::open_read_only(&state_dir.join(DATABASE)).await?;
    let found = store
        .measurement(measurement)
        .await?
        .ok_or_else(|| Error::NotStored(format!("{measurement} is not in {}", state_dir.display())))?;
    let mut attempts = Vec::new();
    for (_, line) in store.timeline(&found.computation, 0, u32::MAX).await? {
        if let Some(bytes) = &line.stage_attempt {
            let attempt = StageAttempt::decode(bytes.as_slice());
            let attempt =
                attempt.map_err(|error| StoreError::Corrupt { what: "stage_attempt", detail: error.to_string() })?;
            attempts.push((line.note.actor, attempt));
        }
    }
    store.close().await;
    Ok(attempts)
}
