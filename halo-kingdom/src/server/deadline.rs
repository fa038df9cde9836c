//! Cancels measurements whose deadline has passed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use halo_core::{
    clock::Timestamp,
    pb::system,
    resource::{ComputationName, DuchyId, DuchyName},
};
use prost::Message;

use super::{kingdom::Kingdom, page::CHUNK, refusal::Refusal};
use crate::lifecycle::Event;

/// The longest sleep: the Kingdom's clock may be set while this task sleeps by another one.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// Runs until the server stops.
pub(crate) async fn keep_deadlines(kingdom: Arc<Kingdom>) {
    let mut latest = kingdom.store.latest_change();
    loop {
        latest.borrow_and_update();
        let sleep = match cancel_overdue(&kingdom).await {
            Ok(Some(next)) => next.since(kingdom.now()).min(LONGEST_SLEEP),
            Ok(None) => LONGEST_SLEEP,
            Err(error) => {
                tracing::error!(%error, "deadlines could not be looked at; they will be again");
                LONGEST_SLEEP / 10
            }
        };
        tokio::select! {
            () = tokio::time::sleep(sleep) => {}
            // A new measurement may have an earlier deadline.
            changed = latest.changed() => if changed.is_err() { return },
            () = kingdom.shutdown.cancelled() => return,
        }
    }
}

/// Cancels what is overdue, and tells the next deadline. One measurement that cannot be cancelled does not keep the
/// others from it; the last error is given back when all have been tried.
async fn cancel_overdue(kingdom: &Kingdom) -> Result<Option<Timestamp>, Refusal> {
    let mut outcome = Ok(());
    for computation in kingdom.store.overdue(kingdom.now()).await? {
        if let Err(error) = cancel(kingdom, &computation).await {
            tracing::error!(%computation, %error, "a measurement whose deadline has passed could not be cancelled");
            outcome = Err(error);
        }
    }
    outcome?;
    Ok(kingdom.store.next_deadline().await?)
}

async fn cancel(kingdom: &Kingdom, computation: &ComputationName) -> Result<(), Refusal> {
    let finished = finished_stages(kingdom, computation).await?;
    kingdom.act(computation, &Event::DeadlinePassed { finished }, &[], |_| Ok(())).await.map(drop)
}

/// How many different stages each Duchy has reported as finished.
async fn finished_stages(
    kingdom: &Kingdom,
    computation: &ComputationName,
) -> Result<BTreeMap<DuchyId, usize>, Refusal> {
    let mut stages: BTreeMap<DuchyId, BTreeSet<String>> = BTreeMap::new();
    let mut after = 0;
    loop {
        let lines = kingdom.store.timeline(computation, after, CHUNK).await?;
        let Some((last, _)) = lines.last() else { break };
        after = *last;
        for (_, line) in lines.iter().filter(|(_, line)| !line.transient) {
            let attempt = line.stage_attempt.as_deref().and_then(|bytes| system::StageAttempt::decode(bytes).ok());
            if let (Ok(actor), Some(attempt)) = (line.note.actor.parse::<DuchyName>(), attempt) {
                stages.entry(actor.duchy).or_default().insert(attempt.stage_name);
            }
        }
    }
    Ok(stages.into_iter().map(|(duchy, stages)| (duchy, stages.len())).collect())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use halo_core::{clock::ManualClock, measurement::MeasurementState};
    use sqlx::{Connection, SqliteConnection};

    use super::*;
    use crate::server::{
        fixture,
        store::{conformance, sqlite::SqliteStore},
    };

    /// A Kingdom with the measurements 1 to 3, of which the first cannot be read any more.
    async fn damaged(directory: &Path, now: Timestamp) -> Kingdom {
        let file = directory.join("kingdom.sqlite");
        let store = SqliteStore::open(&file).await.unwrap();
        fixture::fill(&store).await;
        let mut connection = SqliteConnection::connect(&format!("sqlite://{}", file.display())).await.unwrap();
        let damage = "UPDATE measurements SET protocol_config = x'00' WHERE computation = ?1";
        let first = conformance::measurement(1).computation.computation.to_string();
        sqlx::query(damage).bind(first).execute(&mut connection).await.unwrap();
        fixture::kingdom(Arc::new(store), ManualClock::new(now))
    }

    async fn state(kingdom: &Kingdom, number: u64) -> MeasurementState {
        let name = conformance::measurement(number).name;
        kingdom.store.measurement(&name).await.unwrap().unwrap().state
    }

    #[tokio::test]
    async fn one_measurement_that_cannot_be_cancelled_keeps_no_other_from_it() {
        let directory = tempfile::tempdir().unwrap();
        let kingdom = damaged(directory.path(), conformance::measurement(3).deadline).await;
        let error = cancel_overdue(&kingdom).await.unwrap_err();
        assert!(error.to_string().contains("protocol_config"), "{error}");
        for number in [2, 3] {
            assert_eq!(state(&kingdom, number).await, MeasurementState::Cancelled);
        }
    }

    #[tokio::test]
    async fn one_measurement_that_cannot_be_ended_keeps_no_other_from_it() {
        let directory = tempfile::tempdir().unwrap();
        let kingdom = damaged(directory.path(), conformance::measurement(1).create_time).await;
        let certificate = conformance::measurement(1).consumer_certificate;
        kingdom.fail_for(&certificate).await.unwrap_err();
        for number in [2, 3] {
            assert_eq!(state(&kingdom, number).await, MeasurementState::Failed);
        }
    }
}
