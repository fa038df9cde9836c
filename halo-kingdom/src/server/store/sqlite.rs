//! The embedded store: one SQLite file, write-ahead log, every commit synced to the disk.

mod rows;

use std::{path::Path, time::Duration};

use async_trait::async_trait;
use halo_core::{
    clock::Timestamp,
    measurement::MeasurementState,
    resource::{
        CertificateName, CertificateParent, ComputationName, DataProviderName, EventGroupName, ExternalId,
        MeasurementConsumerName, MeasurementName, RequisitionName,
    },
};
use sqlx::{
    Row, Sqlite, Transaction,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow, SqliteSynchronous},
};
use tokio::sync::watch;

use super::{
    Audience, CertificateRecord, Change, EventGroupRecord, MeasurementQuery, NewMeasurement, Party, RequisitionQuery,
    Result, Revocation, Store, StoreError, TimelineEntry,
};
use crate::{lifecycle::Transition, planner::Capabilities, record::Measurement};
use rows::parse;

/// States up to this number have not ended.
const LAST_PENDING: i32 = MeasurementState::PendingComputation.number();

/// The Kingdom's state in one SQLite database.
#[derive(Debug)]
pub struct SqliteStore {
    pool: SqlitePool,
    latest: watch::Sender<u64>,
}

impl SqliteStore {
    /// Opens or creates the file and brings its tables to this version.
    ///
    /// # Errors
    /// If the file cannot be opened, or its tables are of a later version.
    pub async fn open(file: &Path) -> Result<Self> {
        let options = SqliteConnectOptions::new().filename(file).create_if_missing(true);
        let options = options.journal_mode(SqliteJournalMode::Wal).synchronous(SqliteSynchronous::Full);
        Self::start(options, SqlitePoolOptions::new().max_connections(4)).await
    }

    /// A store that is gone when it is dropped.
    ///
    /// # Errors
    /// If there is no memory for it.
    pub async fn in_memory() -> Result<Self> {
        // One connection that is never given back: each connection to memory is a database of its own.
        let pool = SqlitePoolOptions::new().min_connections(1).max_connections(1).idle_timeout(None).max_lifetime(None);
        Self::start(SqliteConnectOptions::new().in_memory(true), pool).await
    }

    /// Opens an existing file for reading only, beside a running Kingdom or without one.
    ///
    /// # Errors
    /// If there is no such file, or it is no database.
    pub async fn open_read_only(file: &Path) -> Result<Self> {
        let options = SqliteConnectOptions::new().filename(file).read_only(true).busy_timeout(Duration::from_secs(30));
        let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await?;
        Ok(Self { pool, latest: watch::Sender::new(0) })
    }

    async fn start(options: SqliteConnectOptions, pool: SqlitePoolOptions) -> Result<Self> {
        let options = options.busy_timeout(Duration::from_secs(30)).foreign_keys(true);
        let pool = pool.connect_with(options).await?;
        sqlx::migrate!().run(&pool).await?;
        let latest: i64 = sqlx::query_scalar("SELECT COALESCE(MAX(seq), 0) FROM changes").fetch_one(&pool).await?;
        Ok(Self { pool, latest: watch::Sender::new(latest.cast_unsigned()) })
    }

    /// Closes every connection; what was committed is in the file.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    /// A writing transaction. It takes the write lock at once, because a lock that is upgraded later may be refused.
    async fn write(&self) -> Result<Transaction<'static, Sqlite>> {
        Ok(self.pool.begin_with("BEGIN IMMEDIATE").await?)
    }

    /// A reading transaction: all its queries see the same state.
    async fn read(&self) -> Result<Transaction<'static, Sqlite>> {
        Ok(self.pool.begin().await?)
    }

    fn announce(&self, sequence: i64) {
        self.latest.send_if_modified(|latest| {
            let newer = sequence.cast_unsigned() > *latest;
            if newer {
                *latest = sequence.cast_unsigned();
            }
            newer
        });
    }

    /// Names of measurements, newest first.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn all_measurements(&self) -> Result<Vec<MeasurementName>> {
        let rows = sqlx::query("SELECT consumer, id FROM measurements ORDER BY create_time DESC, id")
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(|row| Ok(MeasurementName::new(parse(row, "consumer")?, parse(row, "id")?))).collect()
    }
}

/// Refuses certificates that are revoked, on hold or unknown.
async fn require_usable(tx: &mut Transaction<'static, Sqlite>, needs: &[CertificateName]) -> Result<()> {
    for name in needs {
        let revocation: Option<i32> =
            sqlx::query_scalar("SELECT revocation FROM certificates WHERE parent = ?1 AND id = ?2")
                .bind(name.parent.to_string())
                .bind(name.certificate.to_string())
                .fetch_optional(&mut **tx)
                .await?;
        if revocation != Some(rows::revocation_number(Revocation::Good)) {
            return Err(StoreError::CertificateUnusable(name.clone()));
        }
    }
    Ok(())
}

/// Turns a violated rule of the schema into what it means.
fn violated(what: impl ToString) -> impl FnOnce(sqlx::Error) -> StoreError {
    let what = what.to_string();
    move |error| match error.as_database_error() {
        Some(rule) if rule.is_unique_violation() => StoreError::AlreadyExists(what),
        Some(rule) if rule.is_foreign_key_violation() => StoreError::Missing(what),
        _ => StoreError::Database(error),
    }
}

fn nanos(time: Option<Timestamp>) -> Option<i64> {
    time.map(Timestamp::unix_nanos)
}

#[async_trait]
impl Store for SqliteStore {
    async fn put_party(&self, party: &Party) -> Result<()> {
        let mut tx = self.write().await?;
        sqlx::query(
            "INSERT INTO parties (name, display_name, root_der, root_key_id, certificate, public_key, configured,
                 capabilities, configured_capabilities)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
             ON CONFLICT (name) DO UPDATE SET display_name = ?2, root_der = ?3, root_key_id = ?4, certificate = ?5,
                 public_key = ?6, configured = ?7",
        )
        .bind(party.name.to_string())
        .bind(&party.display_name)
        .bind(&party.root_der)
        .bind(&party.root_key_id)
        .bind(party.certificate.to_string())
        .bind(&party.public_key)
        .bind(party.configured.as_slice())
        .bind(rows::capabilities_bytes(party.capabilities))
        .bind(party.configured_capabilities.map(rows::capabilities_bytes))
        .execute(&mut *tx)
        .await
        .map_err(violated(format!("the root certificate of {}, at another party,", party.name)))?;
        Ok(tx.commit().await?)
    }

    async fn set_capabilities(
        &self,
        party: &CertificateParent,
        capabilities: Capabilities,
        configured: bool,
    ) -> Result<()> {
        let mut tx = self.write().await?;
        let done = sqlx::query(
            "UPDATE parties SET capabilities = ?2,
                 configured_capabilities = CASE WHEN ?3 THEN ?2 ELSE configured_capabilities END
             WHERE name = ?1",
        )
        .bind(party.to_string())
        .bind(rows::capabilities_bytes(capabilities))
        .bind(configured)
        .execute(&mut *tx)
        .await?;
        if done.rows_affected() == 0 {
            return Err(StoreError::Missing(party.to_string()));
        }
        Ok(tx.commit().await?)
    }

    async fn party(&self, name: &CertificateParent) -> Result<Option<Party>> {
        let row = sqlx::query("SELECT * FROM parties WHERE name = ?1")
            .bind(name.to_string())
            .fetch_optional(&self.pool)
            .await?;
        row.as_ref().map(rows::party).transpose()
    }

    async fn parties(&self) -> Result<Vec<Party>> {
        let found = sqlx::query("SELECT * FROM parties ORDER BY name").fetch_all(&self.pool).await?;
        found.iter().map(rows::party).collect()
    }

    async fn create_certificate(&self, certificate: &CertificateRecord) -> Result<()> {
        let mut tx = self.write().await?;
        sqlx::query(
            "INSERT INTO certificates (parent, id, der, subject_key_id, not_before, not_after, revocation)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )
        .bind(certificate.name.parent.to_string())
        .bind(certificate.name.certificate.to_string())
        .bind(&certificate.der)
        .bind(&certificate.subject_key_id)
        .bind(certificate.not_before)
        .bind(certificate.not_after)
        .bind(rows::revocation_number(certificate.revocation))
        .execute(&mut *tx)
        .await
        .map_err(violated(format!("{} or a certificate with its subject key identifier", certificate.name)))?;
        Ok(tx.commit().await?)
    }

    async fn certificate(&self, name: &CertificateName) -> Result<Option<CertificateRecord>> {
        let row = sqlx::query("SELECT * FROM certificates WHERE parent = ?1 AND id = ?2")
            .bind(name.parent.to_string())
            .bind(name.certificate.to_string())
            .fetch_optional(&self.pool)
            .await?;
        row.as_ref().map(rows::certificate).transpose()
    }

    async fn certificates(
        &self,
        parent: &CertificateParent,
        after: Option<(i64, ExternalId)>,
        limit: u32,
    ) -> Result<Vec<CertificateRecord>> {
        let found = sqlx::query(
            "SELECT * FROM certificates
             WHERE parent = ?1 AND (?2 IS NULL OR not_before < ?2 OR (not_before = ?2 AND id > ?3))
             ORDER BY not_before DESC, id LIMIT ?4",
        )
        .bind(parent.to_string())
        .bind(after.map(|(not_before, _)| not_before))
        .bind(after.map(|(_, id)| id.to_string()))
        .bind(limit)
        .fetch_all(&self.pool)
        .await?;
        found.iter().map(rows::certificate).collect()
    }

    async fn set_revocation(&self, name: &CertificateName, from: Revocation, to: Revocation) -> Result<bool> {
        let mut tx = self.write().await?;
        let done =
            sqlx::query("UPDATE certificates SET revocation = ?4 WHERE parent = ?1 AND id = ?2 AND revocation = ?3")
                .bind(name.parent.to_string())
                .bind(name.certificate.to_string())
                .bind(rows::revocation_number(from))
                .bind(rows::revocation_number(to))
                .execute(&mut *tx)
                .await?;
        tx.commit().await?;
        Ok(done.rows_affected() == 1)
    }

    async fn create_measurements(&self, new: &[NewMeasurement], needs: &[CertificateName]) -> Result<()> {
        let mut tx = self.write().await?;
        require_usable(&mut tx, needs).await?;
        let mut sequence = 0;
        for one in new {
            rows::insert_measurement(&mut tx, one).await.map_err(violated(&one.measurement.name))?;
            sequence = rows::log_change(&mut tx, &one.measurement.computation).await?;
            for note in &one.timeline {
                let time = one.measurement.create_time;
                let entry = TimelineEntry { time, note: note.clone(), stage_attempt: None, transient: false };
                rows::insert_timeline(&mut tx, &one.measurement.computation, &entry).await?;
            }
        }
        tx.commit().await?;
        self.announce(sequence);
        Ok(())
    }

    async fn measurement(&self, name: &MeasurementName) -> Result<Option<Measurement>> {
        let mut tx = self.read().await?;
        let row = sqlx::query("SELECT * FROM measurements WHERE consumer = ?1 AND id = ?2")
            .bind(name.measurement_consumer.to_string())
            .bind(name.measurement.to_string())
            .fetch_optional(&mut *tx)
            .await?;
        rows::complete_one(&mut tx, row).await
    }

    async fn measurement_by_request(
        &self,
        consumer: &MeasurementConsumerName,
        request_id: &str,
    ) -> Result<Option<Measurement>> {
        let mut tx = self.read().await?;
        let row = sqlx::query("SELECT * FROM measurements WHERE consumer = ?1 AND request_id = ?2")
            .bind(consumer.measurement_consumer.to_string())
            .bind(request_id)
            .fetch_optional(&mut *tx)
            .await?;
        rows::complete_one(&mut tx, row).await
    }

    async fn computation(&self, name: &ComputationName) -> Result<Option<Measurement>> {
        let mut tx = self.read().await?;
        let row = sqlx::query("SELECT * FROM measurements WHERE computation = ?1")
            .bind(name.computation.to_string())
            .fetch_optional(&mut *tx)
            .await?;
        rows::complete_one(&mut tx, row).await
    }

    async fn measurement_of(&self, requisition: &RequisitionName) -> Result<Option<Measurement>> {
        let mut tx = self.read().await?;
        let row = sqlx::query(
            "SELECT * FROM measurements
             WHERE computation = (SELECT computation FROM requisitions WHERE data_provider = ?1 AND id = ?2)",
        )
        .bind(requisition.data_provider.to_string())
        .bind(requisition.requisition.to_string())
        .fetch_optional(&mut *tx)
        .await?;
        rows::complete_one(&mut tx, row).await
    }

    async fn list_measurements(&self, query: &MeasurementQuery) -> Result<Vec<Measurement>> {
        let mut tx = self.read().await?;
        let found = sqlx::query(
            "SELECT * FROM measurements
             WHERE consumer = ?1 AND (?2 >> state) & 1
                 AND (?3 IS NULL OR update_time > ?3) AND (?4 IS NULL OR update_time < ?4)
                 AND (?5 IS NULL OR create_time > ?5) AND (?6 IS NULL OR create_time < ?6)
                 AND (?7 IS NULL OR update_time > ?7 OR (update_time = ?7 AND id > ?8))
             ORDER BY update_time, id LIMIT ?9",
        )
        .bind(query.consumer.measurement_consumer.to_string())
        .bind(query.states.bits())
        .bind(nanos(query.updated_after))
        .bind(nanos(query.updated_before))
        .bind(nanos(query.created_after))
        .bind(nanos(query.created_before))
        .bind(query.after.map(|cursor| cursor.time.unix_nanos()))
        .bind(query.after.map(|cursor| cursor.id.to_string()))
        .bind(query.limit)
        .fetch_all(&mut *tx)
        .await?;
        let mut measurements = Vec::with_capacity(found.len());
        for row in &found {
            measurements.push(rows::complete(&mut tx, row).await?);
        }
        Ok(measurements)
    }

    async fn list_requisitions(&self, query: &RequisitionQuery) -> Result<Vec<(RequisitionName, Measurement)>> {
        let mut tx = self.read().await?;
        let found = sqlx::query(
            "SELECT r.id AS requisition, m.* FROM requisitions r JOIN measurements m ON m.computation = r.computation
             WHERE r.data_provider = ?1 AND (?2 >> r.state) & 1
                 AND (?3 IS NULL OR r.update_time > ?3 OR (r.update_time = ?3 AND r.id > ?4))
             ORDER BY r.update_time, r.id LIMIT ?5",
        )
        .bind(query.data_provider.data_provider.to_string())
        .bind(query.states.bits())
        .bind(query.after.map(|cursor| cursor.time.unix_nanos()))
        .bind(query.after.map(|cursor| cursor.id.to_string()))
        .bind(query.limit)
        .fetch_all(&mut *tx)
        .await?;
        let mut requisitions = Vec::with_capacity(found.len());
        for row in &found {
            let name = RequisitionName::new(query.data_provider.data_provider, parse(row, "requisition")?);
            requisitions.push((name, rows::complete(&mut tx, row).await?));
        }
        Ok(requisitions)
    }

    async fn commit(
        &self,
        before: &Measurement,
        transition: &Transition,
        now: Timestamp,
        needs: &[CertificateName],
    ) -> Result<()> {
        let now = now.max(before.update_time);
        let mut tx = self.write().await?;
        require_usable(&mut tx, needs).await?;
        if !rows::update_measurement(&mut tx, before, transition, now).await? {
            return Err(StoreError::Conflict(before.computation.clone()));
        }
        for change in &transition.requisitions {
            rows::update_requisition(&mut tx, change, now).await?;
        }
        for change in &transition.participants {
            rows::update_participant(&mut tx, &before.computation, change, now).await?;
        }
        for note in &transition.timeline {
            let entry = TimelineEntry { time: now, note: note.clone(), stage_attempt: None, transient: false };
            rows::insert_timeline(&mut tx, &before.computation, &entry).await?;
        }
        let sequence = rows::log_change(&mut tx, &before.computation).await?;
        tx.commit().await?;
        self.announce(sequence);
        Ok(())
    }

    async fn append_timeline(&self, computation: &ComputationName, entry: &TimelineEntry, most: u32) -> Result<()> {
        let mut tx = self.write().await?;
        let lines: u32 = sqlx::query_scalar("SELECT COUNT(*) FROM timeline WHERE computation = ?1 AND actor = ?2")
            .bind(computation.computation.to_string())
            .bind(&entry.note.actor)
            .fetch_one(&mut *tx)
            .await?;
        if lines >= most {
            return Err(StoreError::Full { computation: computation.clone(), actor: entry.note.actor.clone() });
        }
        rows::insert_timeline(&mut tx, computation, entry).await.map_err(violated(computation))?;
        Ok(tx.commit().await?)
    }

    async fn timeline(
        &self,
        computation: &ComputationName,
        after: u64,
        limit: u32,
    ) -> Result<Vec<(u64, TimelineEntry)>> {
        let found = sqlx::query("SELECT * FROM timeline WHERE computation = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3")
            .bind(computation.computation.to_string())
            .bind(after.cast_signed())
            .bind(limit)
            .fetch_all(&self.pool)
            .await?;
        let position = |row: &SqliteRow| -> Result<u64> { Ok(row.try_get::<i64, _>("seq")?.cast_unsigned()) };
        found.iter().map(|row| Ok((position(row)?, rows::timeline_entry(row)?))).collect::<Result<_>>()
    }

    async fn changes(&self, audience: &Audience, after: u64, limit: u32) -> Result<Vec<Change>> {
        let (duchy, data_provider) = match audience {
            Audience::Duchy(duchy) => (Some(duchy.to_string()), None),
            Audience::DataProvider(name) => (None, Some(name.data_provider.to_string())),
        };
        let found = sqlx::query(
            "SELECT c.computation, c.seq AS sequence FROM changes c
             WHERE c.seq > ?1
                 AND (EXISTS (SELECT 1 FROM participants p WHERE p.computation = c.computation AND p.duchy = ?2)
                     OR EXISTS (SELECT 1 FROM requisitions r WHERE r.computation = c.computation AND r.data_provider = ?3))
             ORDER BY c.seq LIMIT ?4",
        )
        .bind(after.cast_signed())
        .bind(duchy)
        .bind(data_provider)
        .bind(limit)
        .fetch_all(&self.pool)
        .await?;
        found
            .iter()
            .map(|row| {
                let sequence: i64 = row.try_get("sequence")?;
                Ok(Change {
                    sequence: sequence.cast_unsigned(),
                    computation: ComputationName::new(parse(row, "computation")?),
                })
            })
            .collect()
    }

    fn latest_change(&self) -> watch::Receiver<u64> {
        self.latest.subscribe()
    }

    async fn next_deadline(&self) -> Result<Option<Timestamp>> {
        let deadline: Option<i64> = sqlx::query_scalar("SELECT MIN(deadline) FROM measurements WHERE state <= ?1")
            .bind(LAST_PENDING)
            .fetch_one(&self.pool)
            .await?;
        Ok(deadline.map(Timestamp::from_unix_nanos))
    }

    async fn overdue(&self, now: Timestamp) -> Result<Vec<ComputationName>> {
        let found =
            sqlx::query("SELECT computation FROM measurements WHERE state <= ?1 AND deadline <= ?2 ORDER BY deadline")
                .bind(LAST_PENDING)
                .bind(now.unix_nanos())
                .fetch_all(&self.pool)
                .await?;
        found.iter().map(|row| Ok(ComputationName::new(parse(row, "computation")?))).collect()
    }

    async fn pending_with(&self, certificate: &CertificateName) -> Result<Vec<ComputationName>> {
        let found = sqlx::query(
            "SELECT computation FROM measurements m
             WHERE state <= ?1 AND (certificate = ?2
                 OR EXISTS (SELECT 1 FROM requisitions r WHERE r.computation = m.computation
                     AND (r.certificate = ?2 OR r.result_certificate = ?2))
                 OR EXISTS (SELECT 1 FROM participants p WHERE p.computation = m.computation AND p.certificate = ?2))",
        )
        .bind(LAST_PENDING)
        .bind(certificate.to_string())
        .fetch_all(&self.pool)
        .await?;
        found.iter().map(|row| Ok(ComputationName::new(parse(row, "computation")?))).collect()
    }

    async fn create_event_group(&self, group: &EventGroupRecord, request_id: Option<&str>) -> Result<EventGroupRecord> {
        let mut tx = self.write().await?;
        let known = sqlx::query("SELECT * FROM event_groups WHERE data_provider = ?1 AND request_id = ?2")
            .bind(group.name.data_provider.to_string())
            .bind(request_id)
            .fetch_optional(&mut *tx)
            .await?;
        if let Some(row) = known {
            return rows::event_group(&row);
        }
        sqlx::query(
            "INSERT INTO event_groups (data_provider, id, consumer, request_id, body) VALUES (?1, ?2, ?3, ?4, ?5)",
        )
        .bind(group.name.data_provider.to_string())
        .bind(group.name.event_group.to_string())
        .bind(group.consumer.measurement_consumer.to_string())
        .bind(request_id)
        .bind(&group.body)
        .execute(&mut *tx)
        .await
        .map_err(violated(&group.name))?;
        tx.commit().await?;
        Ok(group.clone())
    }

    async fn event_group(&self, name: &EventGroupName) -> Result<Option<EventGroupRecord>> {
        let row = sqlx::query("SELECT * FROM event_groups WHERE data_provider = ?1 AND id = ?2")
            .bind(name.data_provider.to_string())
            .bind(name.event_group.to_string())
            .fetch_optional(&self.pool)
            .await?;
        row.as_ref().map(rows::event_group).transpose()
    }

    async fn event_groups(
        &self,
        data_provider: Option<&DataProviderName>,
        consumer: Option<&MeasurementConsumerName>,
        after: Option<&EventGroupName>,
        limit: u32,
    ) -> Result<Vec<EventGroupRecord>> {
        let found = sqlx::query(
            "SELECT * FROM event_groups
             WHERE (?1 IS NULL OR data_provider = ?1) AND (?2 IS NULL OR consumer = ?2)
                 AND (?3 IS NULL OR data_provider > ?3 OR (data_provider = ?3 AND id > ?4))
             ORDER BY data_provider, id LIMIT ?5",
        )
        .bind(data_provider.map(|name| name.data_provider.to_string()))
        .bind(consumer.map(|name| name.measurement_consumer.to_string()))
        .bind(after.map(|name| name.data_provider.to_string()))
        .bind(after.map(|name| name.event_group.to_string()))
        .bind(limit)
        .fetch_all(&self.pool)
        .await?;
        found.iter().map(rows::event_group).collect()
    }
}

#[cfg(test)]
mod tests;
