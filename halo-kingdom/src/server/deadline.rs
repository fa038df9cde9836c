//! Cancels measurements whose deadline has passed.

use std::{sync::Arc, time::Duration};

use halo_core::clock::Timestamp;

use super::{kingdom::Kingdom, refusal::Refusal};
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

/// Cancels what is overdue, and tells the next deadline.
async fn cancel_overdue(kingdom: &Kingdom) -> Result<Option<Timestamp>, Refusal> {
    for computation in kingdom.store.overdue(kingdom.now()).await? {
        kingdom.act(&computation, &Event::DeadlinePassed, &[], |_| Ok(())).await?;
    }
    Ok(kingdom.store.next_deadline().await?)
}
