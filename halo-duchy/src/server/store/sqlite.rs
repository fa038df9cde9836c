//! The embedded store.

mod keys;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use halo_core::clock::Timestamp;
use halo_core::resource::DuchyId;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow,
    SqliteSynchronous,
};
use sqlx::{Row, Sqlite, Transaction};

use super::{
    Binding, BodyId, Claim, Input, Lease, OutboxRow, Outgoing, Record, Release, Report, Requisition, SlotKey,
    SlotStatus, StageCommit, Store, StoreError, TransferKey, Upload,
};
use crate::server::stage::{Role, Stage};

/// A computation has something to do: work, a message to deliver, or its end.
fn has_work() -> String {
    let stages = Stage::ALL.iter().filter(|stage| stage.is_work() || **stage == Stage::Complete);
    let numbers: Vec<String> = stages.map(|stage| stage.number().to_string()).collect();
    format!(
        "finished = 0 AND (stage IN ({}) OR EXISTS
         (SELECT 1 FROM outbox WHERE outbox.computation = computations.id AND acknowledged = 0))",
        numbers.join(", ")
    )
}

/// How long a statement waits for others.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);

/// State in one SQLite file: write-ahead log, every commit synced to the disk, deleted content overwritten.
#[derive(Clone, Debug)]
pub struct SqliteStore {
    pool: SqlitePool,
}

impl SqliteStore {
    /// Opens or creates the file and brings its tables to this version.
    ///
    /// # Errors
    /// If the file cannot be opened or its tables are of a later version.
    pub async fn open(file: &Path) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::new()
            .filename(file)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY_TIMEOUT)
            .foreign_keys(true)
            .pragma("secure_delete", "ON");
        let pool = SqlitePoolOptions::new().max_connections(4).connect_with(options).await?;
        sqlx::migrate!().run(&pool).await?;
        Ok(Self { pool })
    }

    /// A writing transaction. It takes the write lock at once: a lock that is upgraded later may be refused.
    async fn begin(&self) -> Result<Transaction<'static, Sqlite>, StoreError> {
        Ok(self.pool.begin_with("BEGIN IMMEDIATE").await?)
    }
}

fn corrupt(what: impl Into<String>) -> StoreError {
    StoreError::Corrupt { what: what.into() }
}

fn digest(bytes: Vec<u8>, what: &str) -> Result<[u8; 32], StoreError> {
    <[u8; 32]>::try_from(bytes).map_err(|_| corrupt(format!("{what} of another length than 32 bytes")))
}

fn duchy(id: String) -> Result<DuchyId, StoreError> {
    DuchyId::new(id).map_err(|error| corrupt(format!("a Duchy id ({error})")))
}

fn stage(number: i64) -> Result<Stage, StoreError> {
    Stage::from_number(number).ok_or_else(|| corrupt(format!("stage number {number}")))
}

fn unsigned(value: i64, what: &str) -> Result<u64, StoreError> {
    u64::try_from(value).map_err(|_| corrupt(format!("a negative {what}")))
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// The body in the columns `sha256`, `length`, `records`, if one is bound.
fn body(row: &SqliteRow) -> Result<Option<BodyId>, StoreError> {
    let Some(sha256) = row.try_get::<Option<Vec<u8>>, _>("sha256")? else { return Ok(None) };
    Ok(Some(BodyId {
        sha256: digest(sha256, "a digest")?,
        length: unsigned(row.try_get("length")?, "length")?,
        records: unsigned(row.try_get("records")?, "count of records")?,
    }))
}

fn requisition(row: &SqliteRow) -> Result<Requisition, StoreError> {
    let upload = match body(row)? {
        None => None,
        Some(body) => Some(Upload {
            nonce: row.try_get::<i64, _>("nonce")? as u64,
            key_list_hash: digest(row.try_get("key_list_hash")?, "a key list hash")?,
            attachment: row.try_get::<Option<Vec<u8>>, _>("attachment")?.unwrap_or_default(),
            body,
        }),
    };
    Ok(Requisition {
        name: row.try_get("name")?,
        computation: row.try_get("computation")?,
        fingerprint: digest(row.try_get("fingerprint")?, "a fingerprint")?,
        nonce_hash: digest(row.try_get("nonce_hash")?, "a nonce hash")?,
        here: row.try_get("here")?,
        upload,
        announced: row.try_get("announced")?,
    })
}

fn outbox_row(row: &SqliteRow) -> Result<OutboxRow, StoreError> {
    let payload = || Ok::<_, StoreError>(row.try_get::<Option<Vec<u8>>, _>("payload")?.unwrap_or_default());
    let message = match row.try_get::<i64, _>("kind")? {
        1 => Outgoing::Body {
            to: duchy(row.try_get("receiver")?)?,
            description: row.try_get("description")?,
            body: body(row)?.ok_or_else(|| corrupt("an outgoing body without a digest"))?,
        },
        2 => Outgoing::Parameters(payload()?),
        3 => Outgoing::Confirmation(payload()?),
        4 => Outgoing::Result(payload()?),
        5 => Outgoing::Failure(payload()?),
        6 => Outgoing::LogEntry(payload()?),
        kind => return Err(corrupt(format!("an outgoing message of kind {kind}"))),
    };
    Ok(OutboxRow { seq: row.try_get("seq")?, stage: stage(row.try_get("stage")?)?, message })
}

/// Appends messages to the outbox.
async fn post(
    tx: &mut SqliteConnection,
    computation: &str,
    from: Stage,
    messages: &[Outgoing],
) -> Result<(), StoreError> {
    let mut seq: i64 = sqlx::query_scalar("SELECT COALESCE(MAX(seq), 0) FROM outbox WHERE computation = ?")
        .bind(computation)
        .fetch_one(&mut *tx)
        .await?;
    for message in messages {
        seq += 1;
        let (kind, delivery, payload) = match message {
            Outgoing::Body { to, description, body } => (1, Some((to, *description, body)), None),
            Outgoing::Parameters(bytes) => (2, None, Some(bytes)),
            Outgoing::Confirmation(bytes) => (3, None, Some(bytes)),
            Outgoing::Result(bytes) => (4, None, Some(bytes)),
            Outgoing::Failure(bytes) => (5, None, Some(bytes)),
            Outgoing::LogEntry(bytes) => (6, None, Some(bytes)),
        };
        sqlx::query(
            "INSERT INTO outbox (computation, seq, stage, kind, receiver, description, sha256, length, records, payload)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(computation)
        .bind(seq)
        .bind(from.number())
        .bind(kind)
        .bind(delivery.map(|(to, ..)| to.as_str()))
        .bind(delivery.map(|(_, description, _)| description))
        .bind(delivery.map(|(.., body)| body.sha256.to_vec()))
        .bind(delivery.map(|(.., body)| signed(body.length)))
        .bind(delivery.map(|(.., body)| signed(body.records)))
        .bind(payload)
        .execute(&mut *tx)
        .await?;
    }
    Ok(())
}

/// Lets a waiting stage move on if its condition holds, and wakes the mill.
async fn settle(tx: &mut SqliteConnection, computation: &str, now: Timestamp) -> Result<(), StoreError> {
    let row = sqlx::query(
        "SELECT stage, kingdom_state,
             EXISTS (SELECT 1 FROM slots WHERE computation = id AND consumed = 0)
             AND NOT EXISTS (SELECT 1 FROM slots WHERE computation = id AND sha256 IS NULL) AS bound
         FROM computations WHERE id = ?",
    )
    .bind(computation)
    .fetch_one(&mut *tx)
    .await?;
    let before = stage(row.try_get("stage")?)?;
    let after = before.settled(row.try_get("kingdom_state")?, row.try_get("bound")?);
    if before != after {
        sqlx::query("UPDATE computations SET stage = ?, attempts = 0, next_attempt = ?, updated = ? WHERE id = ?")
            .bind(after.number())
            .bind(now.unix_nanos())
            .bind(now.unix_nanos())
            .bind(computation)
            .execute(&mut *tx)
            .await?;
    }
    Ok(())
}

/// Refuses a write under a lease that another worker has taken over.
async fn fence(tx: &mut SqliteConnection, lease: &Lease, from: Option<Stage>) -> Result<(), StoreError> {
    let held: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM computations
         WHERE id = ? AND lease_owner = ? AND fencing = ? AND (? IS NULL OR stage = ?))",
    )
    .bind(&lease.computation)
    .bind(&lease.owner)
    .bind(lease.fencing)
    .bind(from.map(Stage::number))
    .bind(from.map(Stage::number))
    .fetch_one(&mut *tx)
    .await?;
    if held { Ok(()) } else { Err(StoreError::LeaseLost { computation: lease.computation.clone() }) }
}

async fn insert(tx: &mut SqliteConnection, report: &Report, now: Timestamp) -> Result<(), StoreError> {
    let Some(new) = &report.new else { return Ok(()) };
    sqlx::query(
        "INSERT INTO computations (id, aggregator, stage, kingdom_state, received, secrets, next_attempt, created, updated)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(&report.computation)
    .bind(new.role == Role::Aggregator)
    .bind(Stage::InitializationPhase.number())
    .bind(report.kingdom_state)
    .bind(&report.received)
    .bind(&new.secrets.sealed)
    .bind(now.unix_nanos())
    .bind(now.unix_nanos())
    .bind(now.unix_nanos())
    .execute(&mut *tx)
    .await?;
    keys::insert(tx, &report.computation, &new.secrets, now).await?;
    for requisition in &new.requisitions {
        sqlx::query(
            "INSERT INTO requisitions (name, computation, fingerprint, nonce_hash, here) VALUES (?, ?, ?, ?, ?)",
        )
        .bind(&requisition.name)
        .bind(&report.computation)
        .bind(requisition.fingerprint.to_vec())
        .bind(requisition.nonce_hash.to_vec())
        .bind(requisition.here)
        .execute(&mut *tx)
        .await?;
    }
    Ok(())
}

/// Whether a computation is finished; `None` for an unknown one.
async fn finished(tx: &mut SqliteConnection, computation: &str) -> Result<Option<bool>, StoreError> {
    let finished = sqlx::query_scalar("SELECT finished FROM computations WHERE id = ?").bind(computation);
    Ok(finished.fetch_optional(tx).await?)
}

/// Whether a computation is known and not over.
async fn is_open(tx: &mut SqliteConnection, computation: &str) -> Result<bool, StoreError> {
    let open = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM computations WHERE id = ? AND stage <> ?)");
    Ok(open.bind(computation).bind(Stage::Complete.number()).fetch_one(tx).await?)
}

/// Ends a computation: whoever works on it loses the lease, and only log entries are still delivered.
async fn close(
    tx: &mut SqliteConnection,
    computation: &str,
    failure: Option<&str>,
    now: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE computations SET stage = ?, failure = COALESCE(failure, ?), engine_state = NULL, lease_owner = NULL,
             lease_expiry = NULL, fencing = fencing + 1, attempts = 0, next_attempt = ?, updated = ? WHERE id = ?",
    )
    .bind(Stage::Complete.number())
    .bind(failure)
    .bind(now.unix_nanos())
    .bind(now.unix_nanos())
    .bind(computation)
    .execute(&mut *tx)
    .await?;
    sqlx::query("UPDATE outbox SET acknowledged = 1, payload = NULL WHERE computation = ? AND kind <> 6")
        .bind(computation)
        .execute(&mut *tx)
        .await?;
    Ok(())
}

#[async_trait]
impl Store for SqliteStore {
    async fn continuation_token(&self) -> Result<String, StoreError> {
        let token: Option<String> =
            sqlx::query_scalar("SELECT token FROM continuation").fetch_optional(&self.pool).await?;
        Ok(token.unwrap_or_default())
    }

    async fn apply(&self, report: Option<&Report>, token: &str, now: Timestamp) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        if let Some(report) = report {
            if finished(&mut tx, &report.computation).await?.is_none() {
                insert(&mut tx, report, now).await?;
            }
            if finished(&mut tx, &report.computation).await? == Some(false) {
                // What was there when the confirmation began is what this Duchy computes on, whatever is said later.
                sqlx::query(
                    "UPDATE computations SET kingdom_state = ?, received = CASE WHEN stage <= 2 THEN ? ELSE received END,
                         updated = ? WHERE id = ?",
                )
                    .bind(report.kingdom_state)
                    .bind(&report.received)
                    .bind(now.unix_nanos())
                    .bind(&report.computation)
                    .execute(&mut *tx)
                    .await?;
                if let Some(failure) = &report.over {
                    close(&mut tx, &report.computation, failure.as_deref(), now).await?;
                } else if let Some((request, reason)) = &report.refusal {
                    close(&mut tx, &report.computation, Some(reason), now).await?;
                    let message = [Outgoing::Failure(request.clone())];
                    post(&mut tx, &report.computation, Stage::InitializationPhase, &message).await?;
                }
                settle(&mut tx, &report.computation, now).await?;
            }
        }
        sqlx::query("INSERT INTO continuation (one, token) VALUES (1, ?) ON CONFLICT (one) DO UPDATE SET token = excluded.token")
            .bind(token)
            .execute(&mut *tx)
            .await?;
        Ok(tx.commit().await?)
    }

    async fn claim(&self, owner: &str, now: Timestamp, until: Timestamp) -> Result<Claim, StoreError> {
        let mut tx = self.begin().await?;
        let has_work = has_work();
        let free = sqlx::AssertSqlSafe(format!(
            "SELECT id FROM computations WHERE {has_work} AND next_attempt <= ?
             AND (lease_owner IS NULL OR lease_expiry <= ?) ORDER BY next_attempt, id LIMIT 1"
        ));
        let found: Option<String> =
            sqlx::query_scalar(free).bind(now.unix_nanos()).bind(now.unix_nanos()).fetch_optional(&mut *tx).await?;
        let Some(computation) = found else {
            let later = sqlx::AssertSqlSafe(format!(
                "SELECT MIN(MAX(next_attempt, COALESCE(lease_expiry, next_attempt))) FROM computations WHERE {has_work}"
            ));
            let at: Option<i64> = sqlx::query_scalar(later).fetch_one(&mut *tx).await?;
            return Ok(Claim::Idle(at.map(Timestamp::from_unix_nanos)));
        };
        let fencing: i64 = sqlx::query_scalar(
            "UPDATE computations SET lease_owner = ?, lease_expiry = ?, fencing = fencing + 1 WHERE id = ?
             RETURNING fencing",
        )
        .bind(owner)
        .bind(until.unix_nanos())
        .bind(&computation)
        .fetch_one(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(Claim::Leased(Lease { computation, owner: owner.to_owned(), fencing }))
    }

    async fn renew(&self, lease: &Lease, until: Timestamp) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        fence(&mut tx, lease, None).await?;
        sqlx::query("UPDATE computations SET lease_expiry = ? WHERE id = ?")
            .bind(until.unix_nanos())
            .bind(&lease.computation)
            .execute(&mut *tx)
            .await?;
        Ok(tx.commit().await?)
    }

    async fn release(&self, lease: &Lease, how: Release) -> Result<(), StoreError> {
        let retry_at = match how {
            Release::Done => None,
            Release::RetryAt(at) => Some(at.unix_nanos()),
        };
        sqlx::query(
            "UPDATE computations SET lease_owner = NULL, lease_expiry = NULL, next_attempt = COALESCE(?, next_attempt),
                 attempts = CASE WHEN ? THEN attempts + 1 ELSE attempts END
             WHERE id = ? AND lease_owner = ? AND fencing = ?",
        )
        .bind(retry_at)
        .bind(retry_at.is_some())
        .bind(&lease.computation)
        .bind(&lease.owner)
        .bind(lease.fencing)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    async fn break_leases(&self) -> Result<(), StoreError> {
        sqlx::query("UPDATE computations SET lease_owner = NULL, lease_expiry = NULL WHERE lease_owner IS NOT NULL")
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    async fn load(&self, computation: &str) -> Result<Option<Record>, StoreError> {
        let mut tx = self.pool.begin().await?;
        let found =
            sqlx::query("SELECT * FROM computations WHERE id = ?").bind(computation).fetch_optional(&mut *tx).await?;
        let Some(row) = found else { return Ok(None) };
        let outbox = sqlx::query("SELECT * FROM outbox WHERE computation = ? AND acknowledged = 0 ORDER BY seq")
            .bind(computation)
            .fetch_all(&mut *tx)
            .await?;
        let slots = sqlx::query(
            "SELECT * FROM slots WHERE computation = ? AND consumed = 0 AND sha256 IS NOT NULL ORDER BY description, sender",
        )
        .bind(computation)
        .fetch_all(&mut *tx)
        .await?;
        let requisitions = sqlx::query("SELECT * FROM requisitions WHERE computation = ? ORDER BY name")
            .bind(computation)
            .fetch_all(&mut *tx)
            .await?;
        let inputs = slots.iter().map(|row| {
            Ok(Input {
                description: row.try_get("description")?,
                sender: duchy(row.try_get("sender")?)?,
                body: body(row)?.ok_or_else(|| corrupt("a bound slot without a digest"))?,
            })
        });
        Ok(Some(Record {
            id: row.try_get("id")?,
            role: if row.try_get("aggregator")? { Role::Aggregator } else { Role::Worker },
            stage: stage(row.try_get("stage")?)?,
            received: row.try_get("received")?,
            secrets: row.try_get("secrets")?,
            engine_state: row.try_get("engine_state")?,
            failure: row.try_get("failure")?,
            finished: row.try_get("finished")?,
            attempts: row.try_get("attempts")?,
            outbox: outbox.iter().map(outbox_row).collect::<Result<_, _>>()?,
            inputs: inputs.collect::<Result<_, StoreError>>()?,
            requisitions: requisitions.iter().map(requisition).collect::<Result<_, _>>()?,
        }))
    }

    async fn commit(&self, lease: &Lease, commit: &StageCommit, now: Timestamp) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        fence(&mut tx, lease, Some(commit.from)).await?;
        sqlx::query(
            "UPDATE computations SET stage = ?, engine_state = COALESCE(?, engine_state), failure = COALESCE(failure, ?),
                 attempts = 0, next_attempt = ?, updated = ? WHERE id = ?",
        )
        .bind(commit.next.number())
        .bind(&commit.engine_state)
        .bind(&commit.failure)
        .bind(now.unix_nanos())
        .bind(now.unix_nanos())
        .bind(&lease.computation)
        .execute(&mut *tx)
        .await?;
        for (description, sender) in &commit.consumed {
            sqlx::query("UPDATE slots SET consumed = 1 WHERE computation = ? AND description = ? AND sender = ?")
                .bind(&lease.computation)
                .bind(description)
                .bind(sender.as_str())
                .execute(&mut *tx)
                .await?;
        }
        for (description, sender) in &commit.awaiting {
            sqlx::query("INSERT INTO slots (computation, description, sender) VALUES (?, ?, ?)")
                .bind(&lease.computation)
                .bind(description)
                .bind(sender.as_str())
                .execute(&mut *tx)
                .await?;
        }
        post(&mut tx, &lease.computation, commit.from, &commit.outbox).await?;
        settle(&mut tx, &lease.computation, now).await?;
        Ok(tx.commit().await?)
    }

    async fn give_up(&self, computation: &str, failure: &[u8], reason: &str, now: Timestamp) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        if is_open(&mut tx, computation).await? {
            close(&mut tx, computation, Some(reason), now).await?;
            post(&mut tx, computation, Stage::Complete, &[Outgoing::Failure(failure.to_vec())]).await?;
        }
        Ok(tx.commit().await?)
    }

    async fn acknowledge(&self, lease: &Lease, seq: i64, now: Timestamp) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        fence(&mut tx, lease, None).await?;
        sqlx::query("UPDATE outbox SET acknowledged = 1, payload = NULL WHERE computation = ? AND seq = ?")
            .bind(&lease.computation)
            .bind(seq)
            .execute(&mut *tx)
            .await?;
        sqlx::query("UPDATE computations SET attempts = 0, updated = ? WHERE id = ?")
            .bind(now.unix_nanos())
            .bind(&lease.computation)
            .execute(&mut *tx)
            .await?;
        Ok(tx.commit().await?)
    }

    async fn finish(&self, lease: &Lease, now: Timestamp) -> Result<bool, StoreError> {
        let mut tx = self.begin().await?;
        fence(&mut tx, lease, None).await?;
        let done = sqlx::query(
            "UPDATE computations SET secrets = NULL, engine_state = NULL, finished = 1, updated = ?
             WHERE id = ? AND stage = 13
             AND NOT EXISTS (SELECT 1 FROM outbox WHERE outbox.computation = computations.id AND acknowledged = 0)",
        )
        .bind(now.unix_nanos())
        .bind(&lease.computation)
        .execute(&mut *tx)
        .await?
        .rows_affected();
        if done == 1 {
            sqlx::query("DELETE FROM transfers WHERE computation = ?")
                .bind(&lease.computation)
                .execute(&mut *tx)
                .await?;
        }
        tx.commit().await?;
        Ok(done == 1)
    }

    async fn requisition(&self, name: &str) -> Result<Option<Requisition>, StoreError> {
        let row =
            sqlx::query("SELECT * FROM requisitions WHERE name = ?").bind(name).fetch_optional(&self.pool).await?;
        row.as_ref().map(requisition).transpose()
    }

    async fn bind_upload(&self, name: &str, upload: &Upload, _now: Timestamp) -> Result<Binding, StoreError> {
        let mut tx = self.begin().await?;
        let row = sqlx::query("SELECT * FROM requisitions WHERE name = ?").bind(name).fetch_optional(&mut *tx).await?;
        let known = match row.as_ref().map(requisition).transpose()? {
            Some(known) if known.here && is_open(&mut tx, &known.computation).await? => known,
            _ => return Err(StoreError::NotAwaited { slot: name.to_owned() }),
        };
        match known.upload {
            Some(bound) if bound.body == upload.body => return Ok(Binding::Repeated),
            Some(_) => return Err(StoreError::OtherBody { slot: name.to_owned() }),
            None => {}
        }
        sqlx::query(
            "UPDATE requisitions SET nonce = ?, key_list_hash = ?, attachment = ?, sha256 = ?, length = ?, records = ?
             WHERE name = ?",
        )
        .bind(upload.nonce as i64)
        .bind(upload.key_list_hash.to_vec())
        .bind(&upload.attachment)
        .bind(upload.body.sha256.to_vec())
        .bind(signed(upload.body.length))
        .bind(signed(upload.body.records))
        .bind(name)
        .execute(&mut *tx)
        .await?;
        sqlx::query("DELETE FROM transfers WHERE target = ?").bind(name).execute(&mut *tx).await?;
        tx.commit().await?;
        Ok(Binding::New)
    }

    async fn announced(&self, name: &str) -> Result<(), StoreError> {
        sqlx::query("UPDATE requisitions SET announced = 1 WHERE name = ? AND sha256 IS NOT NULL")
            .bind(name)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    async fn unannounced(&self) -> Result<Vec<Requisition>, StoreError> {
        let rows = sqlx::query(
            "SELECT requisitions.* FROM requisitions JOIN computations ON computations.id = requisitions.computation
             WHERE sha256 IS NOT NULL AND announced = 0 AND stage <> 13 ORDER BY name",
        )
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(requisition).collect()
    }

    async fn slot(&self, slot: &SlotKey) -> Result<SlotStatus, StoreError> {
        let rows = sqlx::query("SELECT * FROM slots WHERE computation = ? AND description = ?")
            .bind(&slot.computation)
            .bind(slot.description)
            .fetch_all(&self.pool)
            .await?;
        for row in &rows {
            if row.try_get::<String, _>("sender")? == slot.sender.as_str() {
                return Ok(body(row)?.map_or(SlotStatus::Awaited, SlotStatus::Bound));
            }
        }
        Ok(if rows.is_empty() { SlotStatus::NotAwaited } else { SlotStatus::OwedByAnother })
    }

    async fn bind_input(&self, slot: &SlotKey, new: &BodyId, now: Timestamp) -> Result<Binding, StoreError> {
        let mut tx = self.begin().await?;
        let row = sqlx::query("SELECT * FROM slots WHERE computation = ? AND description = ? AND sender = ?")
            .bind(&slot.computation)
            .bind(slot.description)
            .bind(slot.sender.as_str())
            .fetch_optional(&mut *tx)
            .await?;
        let open = is_open(&mut tx, &slot.computation).await?;
        let Some(row) = row.filter(|_| open) else { return Err(StoreError::NotAwaited { slot: slot.to_string() }) };
        match body(&row)? {
            Some(bound) if bound == *new => return Ok(Binding::Repeated),
            Some(_) => return Err(StoreError::OtherBody { slot: slot.to_string() }),
            None => {}
        }
        sqlx::query(
            "UPDATE slots SET sha256 = ?, length = ?, records = ?
             WHERE computation = ? AND description = ? AND sender = ?",
        )
        .bind(new.sha256.to_vec())
        .bind(signed(new.length))
        .bind(signed(new.records))
        .bind(&slot.computation)
        .bind(slot.description)
        .bind(slot.sender.as_str())
        .execute(&mut *tx)
        .await?;
        sqlx::query("DELETE FROM transfers WHERE target = ?").bind(slot.to_string()).execute(&mut *tx).await?;
        settle(&mut tx, &slot.computation, now).await?;
        tx.commit().await?;
        Ok(Binding::New)
    }

    async fn bodies(&self, computation: &str) -> Result<BTreeSet<[u8; 32]>, StoreError> {
        let found: Vec<Vec<u8>> = sqlx::query_scalar(
            "SELECT sha256 FROM requisitions WHERE computation = ?1 AND sha256 IS NOT NULL
             UNION SELECT sha256 FROM slots WHERE computation = ?1 AND sha256 IS NOT NULL
             UNION SELECT sha256 FROM outbox WHERE computation = ?1 AND sha256 IS NOT NULL",
        )
        .bind(computation)
        .fetch_all(&self.pool)
        .await?;
        found.into_iter().map(|bytes| digest(bytes, "a digest")).collect()
    }

    async fn abandon(&self, computation: &str, reason: &str, now: Timestamp) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        if finished(&mut tx, computation).await? == Some(false) {
            close(&mut tx, computation, Some(reason), now).await?;
            sqlx::query("UPDATE outbox SET acknowledged = 1, payload = NULL WHERE computation = ?")
                .bind(computation)
                .execute(&mut *tx)
                .await?;
            sqlx::query("UPDATE computations SET secrets = NULL, finished = 1 WHERE id = ?")
                .bind(computation)
                .execute(&mut *tx)
                .await?;
            sqlx::query("DELETE FROM transfers WHERE computation = ?").bind(computation).execute(&mut *tx).await?;
        }
        Ok(tx.commit().await?)
    }

    async fn unfinished(&self) -> Result<BTreeSet<String>, StoreError> {
        let ids: Vec<String> =
            sqlx::query_scalar("SELECT id FROM computations WHERE finished = 0").fetch_all(&self.pool).await?;
        Ok(ids.into_iter().collect())
    }

    async fn forget(&self, before: Timestamp) -> Result<u64, StoreError> {
        let gone = sqlx::query("DELETE FROM computations WHERE finished = 1 AND updated < ?")
            .bind(before.unix_nanos())
            .execute(&self.pool)
            .await?;
        Ok(gone.rows_affected())
    }

    async fn supersede(&self, transfer: &TransferKey) -> Result<u64, StoreError> {
        sqlx::query("DELETE FROM transfers WHERE target = ? AND sha256 <> ?")
            .bind(&transfer.target)
            .bind(transfer.sha256.to_vec())
            .execute(&self.pool)
            .await?;
        self.transferred(transfer).await
    }

    async fn transferred(&self, transfer: &TransferKey) -> Result<u64, StoreError> {
        let length: Option<i64> = sqlx::query_scalar("SELECT length FROM transfers WHERE target = ? AND sha256 = ?")
            .bind(&transfer.target)
            .bind(transfer.sha256.to_vec())
            .fetch_optional(&self.pool)
            .await?;
        unsigned(length.unwrap_or(0), "length")
    }

    async fn set_transferred(&self, transfer: &TransferKey, length: u64) -> Result<(), StoreError> {
        if length == 0 {
            sqlx::query("DELETE FROM transfers WHERE target = ? AND sha256 = ?")
                .bind(&transfer.target)
                .bind(transfer.sha256.to_vec())
                .execute(&self.pool)
                .await?;
            return Ok(());
        }
        sqlx::query(
            "INSERT INTO transfers (target, sha256, computation, length) VALUES (?, ?, ?, ?)
             ON CONFLICT (target, sha256) DO UPDATE SET length = excluded.length",
        )
        .bind(&transfer.target)
        .bind(transfer.sha256.to_vec())
        .bind(&transfer.computation)
        .bind(signed(length))
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}
