//! Works on computations: leases one, computes what its stage asks for, commits, delivers, until nothing is left to do.
//!
//! The order is what makes a computation finish whatever happens to the process. Output bodies are stored under the hash
//! of their content; then one transaction writes the new state, the next stage and what is to be sent, and checks that
//! the lease is still held; only then is anything sent. A repeated attempt derives the same randomness from the same
//! inputs, so it makes the same bytes, and receivers take the same bytes twice.

mod cost;
mod deliver;
mod result;
mod work;

use std::sync::Arc;
use std::time::Duration;

use halo_core::pb::system;
use halo_core::pb::system::computation_log_entries_client::ComputationLogEntriesClient;
use halo_core::pb::system::computation_log_entry::{ErrorDetails, error_details};
use halo_core::resource::ComputationName;
use prost::Message;

use super::blobs::BlobError;
use super::duchy::{Duchy, client, unary};
use super::failpoint::{self, Moment};
use super::janitor;
use super::keys::KeyError;
use super::protocols::Unseated;
use super::secrets::SecretError;
use super::stage::Stage;
use super::store::{Claim, Lease, OutboxRow, Outgoing, Record, Release, StageCommit, StoreError};
use super::terms::{Refusal, publisher};
use crate::protocol::ProtocolError;

/// Computations that are worked on at once. Only one of them computes; the others deliver.
pub(crate) const MILLS: usize = 4;
/// How long the mill sleeps at most while it knows of nothing to do.
const NAP: Duration = Duration::from_secs(30);
/// After how many attempts in a row the last lines of a computation that is over are not delivered any more.
const LAST_LINES: u32 = 8;
/// The longest delay between two attempts.
const LONGEST_DELAY: Duration = Duration::from_secs(30);

/// Why there was no progress.
#[derive(Debug)]
enum Trouble {
    /// Another attempt may succeed.
    Transient(String),
    /// Another attempt would fail alike: the computation is given up.
    Permanent(Refusal),
    /// Somebody else goes on with it, or it is over.
    LeaseLost,
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::LeaseLost { .. } => Self::LeaseLost,
            other => Self::Transient(other.to_string()),
        }
    }
}

impl From<BlobError> for Trouble {
    fn from(error: BlobError) -> Self {
        Self::Transient(error.to_string())
    }
}

/// A wrong key-encryption key is the operator's to mend.
impl From<SecretError> for Trouble {
    fn from(error: SecretError) -> Self {
        Self::Transient(error.to_string())
    }
}

impl From<KeyError> for Trouble {
    fn from(error: KeyError) -> Self {
        Self::Transient(error.to_string())
    }
}

impl From<Refusal> for Trouble {
    fn from(refusal: Refusal) -> Self {
        Self::Permanent(refusal)
    }
}

impl From<ProtocolError> for Trouble {
    fn from(error: ProtocolError) -> Self {
        match error {
            // A disk that is full, or a version of this program that is not the one that wrote the state.
            ProtocolError::Io(_)
            | ProtocolError::Cancelled
            | ProtocolError::ForeignState(_)
            | ProtocolError::MalformedState(_) => Self::Transient(error.to_string()),
            // Every body was checked to the last record before it was bound, so this disk has spoiled it since.
            ProtocolError::BadBody { .. } | ProtocolError::BadRecord { .. } => {
                Self::Transient(format!("a stored body is damaged: {error}"))
            }
            other => {
                let culprits = match other.requisition() {
                    Some(requisition) => vec![publisher(requisition)],
                    None => other.culprits().into_iter().map(|duchy| format!("duchies/{duchy}")).collect(),
                };
                tracing::error!(error = %other, "the engine refuses");
                // The consumer reads it too, and numbers of records are not for the consumer.
                let message = match &other {
                    ProtocolError::WrongCount { description, from, .. } => {
                        format!("the {description} from {from} has another number of records than is due")
                    }
                    ProtocolError::Inconsistent(_) => "the counts of the computation do not fit together".to_owned(),
                    _ => other.to_string(),
                };
                Self::Permanent(Refusal { message, culprits })
            }
        }
    }
}

impl From<Unseated> for Trouble {
    fn from(error: Unseated) -> Self {
        match error {
            Unseated::Refused(refusal) => refusal.into(),
            Unseated::Protocol(error) => error.into(),
            Unseated::WrongKey => Self::Transient("the stored key is of another kind than the protocol's".to_owned()),
        }
    }
}

/// Works until the server stops. `owner` is this mill's name, unlike that of every other.
pub(crate) async fn run(duchy: Arc<Duchy>, owner: String) {
    while !duchy.shutdown.is_cancelled() {
        let now = duchy.now();
        let nap = match duchy.store.claim(&owner, now, now + duchy.settings.lease).await {
            Ok(Claim::Leased(lease)) => {
                // There may be more, for another mill.
                duchy.work.notify_one();
                work_on(&duchy, &lease).await;
                continue;
            }
            Ok(Claim::Idle(until)) => until.map_or(NAP, |until| until.since(now).min(NAP)),
            Err(error) => {
                tracing::error!(%error, "the store does not say what there is to do");
                Duration::from_secs(1)
            }
        };
        tokio::select! {
            () = duchy.work.notified() => {}
            () = tokio::time::sleep(nap) => {}
            () = duchy.shutdown.cancelled() => {}
        }
    }
}

/// Goes on with one computation as far as possible, and gives the lease back.
async fn work_on(duchy: &Arc<Duchy>, lease: &Lease) {
    let outcome = tokio::select! {
        outcome = progress(duchy, lease) => outcome,
        () = keep(duchy, lease) => Err(Trouble::LeaseLost),
        () = duchy.shutdown.cancelled() => Ok(()),
    };
    let computation = lease.computation.as_str();
    let how = match outcome {
        Ok(()) => Release::Done,
        Err(Trouble::LeaseLost) => {
            tracing::info!(computation, "the lease was lost");
            return;
        }
        Err(Trouble::Transient(reason)) => retry(duchy, computation, &reason).await,
        Err(Trouble::Permanent(refusal)) => retry(duchy, computation, &refusal.message).await,
    };
    if let Err(error) = duchy.store.release(lease, how).await {
        tracing::error!(computation, %error, "the lease could not be given back; it runs out by itself");
    }
}

/// Renews the lease; ends when it is lost.
async fn keep(duchy: &Duchy, lease: &Lease) {
    loop {
        tokio::time::sleep(duchy.settings.lease / 3).await;
        match duchy.store.renew(lease, duchy.now() + duchy.settings.lease).await {
            Ok(()) => {}
            Err(StoreError::LeaseLost { .. }) => return,
            Err(error) => tracing::warn!(computation = lease.computation, %error, "the lease was not renewed"),
        }
    }
}

/// When to try again; the operator's log and, as far as it can be reached, the Kingdom's timeline learn why.
async fn retry(duchy: &Arc<Duchy>, computation: &str, reason: &str) -> Release {
    let record = duchy.store.load(computation).await.ok().flatten();
    let attempts = record.as_ref().map_or(0, |record| record.attempts);
    let delay = Duration::from_millis(200).saturating_mul(1 << attempts.min(16)).min(LONGEST_DELAY);
    tracing::warn!(computation, attempts, ?delay, reason, "will try again");
    // The second failure in a row, and then ever more rarely: that another Duchy is a moment behind is nothing to tell.
    if let Some(record) = record.filter(|record| record.attempts.is_power_of_two()) {
        let duchy = Arc::clone(duchy);
        tokio::spawn(async move {
            if let Err(error) = tell_of_retry(&duchy, &record).await {
                tracing::debug!(reason = error.message(), "the timeline does not say that an attempt failed");
            }
        });
    }
    Release::RetryAt(duchy.now() + delay)
}

/// The consumer reads the timeline, and a reason may say how large a body is: only this Duchy's log has it.
async fn tell_of_retry(duchy: &Duchy, record: &Record) -> Result<(), tonic::Status> {
    let id = record.id.parse().map_err(|error: halo_core::Error| tonic::Status::internal(error.to_string()))?;
    let request = system::CreateComputationLogEntryRequest {
        parent: duchy.part(&ComputationName::new(id)),
        computation_log_entry: Some(system::ComputationLogEntry {
            log_message: format!(
                "attempt {} at {} failed, as this Duchy's log explains; it is repeated",
                record.attempts + 1,
                record.stage
            ),
            error_details: Some(ErrorDetails {
                r#type: error_details::Type::Transient.into(),
                error_time: Some(duchy.now().into()),
            }),
            ..Default::default()
        }),
    };
    let channel = duchy.parties.kingdom.channel().await?;
    unary(client!(ComputationLogEntriesClient, channel).create_computation_log_entry(request)).await.map(drop)
}

/// Delivers, computes and commits until the computation waits for somebody else.
async fn progress(duchy: &Arc<Duchy>, lease: &Lease) -> Result<(), Trouble> {
    // Lines of the timeline must not hold up the protocol: after one was not delivered, the others wait.
    let mut unlogged = None;
    loop {
        let Some(record) = duchy.store.load(&lease.computation).await? else { return Ok(()) };
        if record.finished {
            return Ok(());
        }
        let is_line = |row: &&OutboxRow| matches!(row.message, Outgoing::LogEntry(_));
        let due = record.outbox.iter().find(|row| unlogged.is_none() || !is_line(row));
        match due {
            Some(row) => match deliver(duchy, lease, &record, row).await {
                // Not even a log entry keeps the keys of a computation that is over.
                Err(Trouble::Transient(_))
                    if is_line(&row) && record.stage == Stage::Complete && record.attempts >= LAST_LINES =>
                {
                    duchy.store.acknowledge(lease, row.seq, duchy.now()).await?;
                }
                Err(Trouble::Transient(reason)) if is_line(&row) => unlogged = Some(reason),
                outcome => outcome?,
            },
            None if record.stage.is_work() && record.stage != Stage::Complete => {
                compute(duchy, lease, &record).await?;
            }
            None => {
                return match unlogged {
                    Some(reason) => Err(Trouble::Transient(reason)),
                    None if record.stage == Stage::Complete => complete(duchy, lease, &record).await,
                    None => Ok(()),
                };
            }
        }
    }
}

/// Delivers one message and remembers that it has arrived.
async fn deliver(duchy: &Duchy, lease: &Lease, record: &Record, row: &OutboxRow) -> Result<(), Trouble> {
    match deliver::deliver(duchy, record, row).await {
        Ok(()) => {}
        // Given up already: what is left to deliver is what was made before, and nobody wants it any more.
        Err(Trouble::Permanent(_)) if record.stage == Stage::Complete && record.failure.is_some() => {}
        Err(Trouble::Permanent(refusal)) => give_up(duchy, lease, record, &refusal).await?,
        Err(other) => return Err(other),
    }
    if !matches!(row.message, Outgoing::LogEntry(_)) {
        failpoint::pass(Moment::MidDelivery, row.stage, String::new);
    }
    Ok(duchy.store.acknowledge(lease, row.seq, duchy.now()).await?)
}

/// Computes what the stage asks for, and writes what comes out in one transaction.
async fn compute(duchy: &Arc<Duchy>, lease: &Lease, record: &Record) -> Result<(), Trouble> {
    let worked = match work::work(duchy, lease, record).await {
        Ok(worked) => worked,
        Err(Trouble::Permanent(refusal)) => return give_up(duchy, lease, record, &refusal).await,
        Err(other) => return Err(other),
    };
    failpoint::pass(Moment::BeforeCommit, record.stage, || worked.report);
    duchy.store.commit(lease, &worked.commit, duchy.now()).await?;
    failpoint::pass(Moment::AfterCommit, record.stage, String::new);
    tracing::info!(computation = record.id, stage = %record.stage, next = %worked.commit.next, "done");
    Ok(())
}

/// Ends the computation here and tells the Kingdom why.
async fn give_up(duchy: &Duchy, lease: &Lease, record: &Record, refusal: &Refusal) -> Result<(), Trouble> {
    tracing::error!(computation = record.id, stage = %record.stage, reason = refusal.message, "gives up");
    let id = record.id.parse().map_err(|error: halo_core::Error| Trouble::Transient(error.to_string()))?;
    let request = duchy.failure(&ComputationName::new(id), record.stage, refusal);
    let commit = StageCommit {
        from: record.stage,
        next: Stage::Complete,
        engine_state: None,
        outbox: vec![Outgoing::Failure(request.encode_to_vec())],
        awaiting: Vec::new(),
        consumed: Vec::new(),
        failure: Some(refusal.message.clone()),
    };
    Ok(duchy.store.commit(lease, &commit, duchy.now()).await?)
}

/// Removes the bodies and destroys the keys of a computation that is over.
async fn complete(duchy: &Duchy, lease: &Lease, record: &Record) -> Result<(), Trouble> {
    failpoint::pass(Moment::MidDelivery, Stage::Complete, String::new);
    duchy.blobs.remove_all(&record.id).await?;
    work::remove_workspace(duchy, &record.id)?;
    failpoint::pass(Moment::BeforeCommit, Stage::Complete, String::new);
    duchy.store.finish(lease, duchy.now()).await?;
    failpoint::pass(Moment::AfterCommit, Stage::Complete, String::new);
    janitor::settle_keys(duchy).await;
    tracing::info!(computation = record.id, failure = record.failure, "over; keys destroyed, bodies removed");
    Ok(())
}
