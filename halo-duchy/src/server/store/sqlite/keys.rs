//! Keys in the embedded store.

use std::collections::BTreeMap;

use async_trait::async_trait;
use halo_core::clock::Timestamp;
use halo_core::resource::DuchyId;
use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::super::StoreError;
use super::{BUSY_TIMEOUT, SqliteStore, corrupt, digest};
use crate::server::keys::{
    AuditEvent, AuditLine, DroppedKeys, KeyEntry, KeyStore, SealedKeys, SealedPlace, SealedRow, SignedRecord, ids,
};

/// Remembers the keys of a new computation, and that they were generated.
pub(super) async fn insert(
    tx: &mut SqliteConnection,
    computation: &str,
    keys: &SealedKeys,
    now: Timestamp,
) -> Result<(), StoreError> {
    if keys.entries.is_empty() {
        return Ok(());
    }
    remember(tx, computation, &keys.entries, now).await?;
    let line = AuditLine {
        at: now,
        event: AuditEvent::Generated,
        computation: computation.to_owned(),
        keys: ids(&keys.entries),
        kek: keys.kek.clone(),
    };
    append(tx, &line).await
}

async fn remember(
    tx: &mut SqliteConnection,
    computation: &str,
    entries: &[KeyEntry],
    now: Timestamp,
) -> Result<(), StoreError> {
    for entry in entries {
        sqlx::query(
            "INSERT OR IGNORE INTO keys (computation, id, kind, public_sha256, generated) VALUES (?, ?, ?, ?, ?)",
        )
        .bind(computation)
        .bind(&entry.id)
        .bind(&entry.kind)
        .bind(entry.public_sha256.map(Vec::from))
        .bind(now.unix_nanos())
        .execute(&mut *tx)
        .await?;
    }
    Ok(())
}

async fn append(tx: &mut SqliteConnection, line: &AuditLine) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO key_audit (at, event, computation, keys, kek) VALUES (?, ?, ?, ?, ?)")
        .bind(line.at.unix_nanos())
        .bind(line.event.name())
        .bind(&line.computation)
        .bind(&line.keys)
        .bind(&line.kek)
        .execute(&mut *tx)
        .await?;
    Ok(())
}

fn line(row: &SqliteRow) -> Result<AuditLine, StoreError> {
    let event: String = row.try_get("event")?;
    Ok(AuditLine {
        at: Timestamp::from_unix_nanos(row.try_get("at")?),
        event: AuditEvent::from_name(&event).ok_or_else(|| corrupt(format!("an audit event {event}")))?,
        computation: row.try_get("computation")?,
        keys: row.try_get("keys")?,
        kek: row.try_get("kek")?,
    })
}

#[async_trait]
impl KeyStore for SqliteStore {
    async fn owner(&self, duchy: &DuchyId) -> Result<String, StoreError> {
        let mut tx = self.begin().await?;
        sqlx::query("INSERT OR IGNORE INTO owner (one, duchy) VALUES (1, ?)")
            .bind(duchy.as_str())
            .execute(&mut *tx)
            .await?;
        let owner = sqlx::query_scalar("SELECT duchy FROM owner").fetch_one(&mut *tx).await?;
        tx.commit().await?;
        Ok(owner)
    }

    async fn audit(&self, lines: &[AuditLine]) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        for line in lines {
            append(&mut tx, line).await?;
        }
        Ok(tx.commit().await?)
    }

    async fn audit_trail(&self, computation: &str) -> Result<Vec<AuditLine>, StoreError> {
        let rows = sqlx::query("SELECT * FROM key_audit WHERE computation = ? ORDER BY seq").bind(computation);
        rows.fetch_all(&self.pool).await?.iter().map(line).collect()
    }

    async fn adopt(&self, computation: &str, entries: &[KeyEntry], now: Timestamp) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        remember(&mut tx, computation, entries, now).await?;
        Ok(tx.commit().await?)
    }

    async fn sealed(&self) -> Result<Vec<SealedRow>, StoreError> {
        let rows = sqlx::query(
            "SELECT 1 AS place, id AS name, secrets AS sealed FROM computations WHERE secrets IS NOT NULL
             UNION ALL SELECT 2, id, engine_state FROM computations WHERE engine_state IS NOT NULL ORDER BY 1, 2",
        )
        .fetch_all(&self.pool)
        .await?;
        let row = |row: &SqliteRow| {
            let place = match row.try_get::<i64, _>("place")? {
                1 => SealedPlace::Secrets,
                _ => SealedPlace::EngineState,
            };
            Ok(SealedRow { computation: row.try_get("name")?, place, sealed: row.try_get("sealed")? })
        };
        rows.iter()
            .map(row)
            .filter(|row| row.as_ref().is_ok_and(|row| !row.sealed.is_empty()) || row.is_err())
            .collect()
    }

    async fn reseal(&self, row: &SealedRow, new: &[u8], line: &AuditLine) -> Result<bool, StoreError> {
        let statement = match row.place {
            SealedPlace::Secrets => "UPDATE computations SET secrets = ? WHERE id = ? AND secrets = ?",
            SealedPlace::EngineState => "UPDATE computations SET engine_state = ? WHERE id = ? AND engine_state = ?",
        };
        let mut tx = self.begin().await?;
        let done = sqlx::query(statement).bind(new).bind(&row.computation).bind(&row.sealed).execute(&mut *tx).await?;
        if done.rows_affected() == 0 {
            return Ok(false);
        }
        append(&mut tx, line).await?;
        tx.commit().await?;
        Ok(true)
    }

    async fn dropped(&self) -> Result<Vec<DroppedKeys>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM keys WHERE destroyed IS NULL AND NOT EXISTS
             (SELECT 1 FROM computations WHERE computations.id = keys.computation AND secrets IS NOT NULL)
             ORDER BY computation, rowid",
        )
        .fetch_all(&self.pool)
        .await?;
        let mut found: BTreeMap<String, DroppedKeys> = BTreeMap::new();
        for row in &rows {
            let computation: String = row.try_get("computation")?;
            let public: Option<Vec<u8>> = row.try_get("public_sha256")?;
            let entry = KeyEntry {
                id: row.try_get("id")?,
                kind: row.try_get("kind")?,
                public_sha256: public.map(|bytes| digest(bytes, "a public key's digest")).transpose()?,
            };
            let generated = Timestamp::from_unix_nanos(row.try_get("generated")?);
            let of = found.entry(computation.clone());
            of.or_insert(DroppedKeys { computation, entries: Vec::new(), generated }).entries.push(entry);
        }
        Ok(found.into_values().collect())
    }

    async fn erase(&self) -> Result<bool, StoreError> {
        // What was dropped is overwritten in its page (secure_delete), but older versions of the page may be in the log.
        // Writers wait meanwhile, so it does not wait long for readers.
        let mut connection = self.pool.acquire().await?;
        sqlx::query("PRAGMA busy_timeout = 1000").execute(&mut *connection).await?;
        let outcome = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").fetch_one(&mut *connection).await;
        let patience = sqlx::AssertSqlSafe(format!("PRAGMA busy_timeout = {}", BUSY_TIMEOUT.as_millis()));
        sqlx::query(patience).execute(&mut *connection).await?;
        Ok(outcome?.try_get::<i64, _>(0)? == 0)
    }

    async fn record_destruction(
        &self,
        computation: &str,
        record: &SignedRecord,
        line: &AuditLine,
    ) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        let done = sqlx::query("INSERT OR IGNORE INTO destructions (computation, record, signature) VALUES (?, ?, ?)")
            .bind(computation)
            .bind(&record.text)
            .bind(&record.signature)
            .execute(&mut *tx)
            .await?;
        if done.rows_affected() > 0 {
            sqlx::query("UPDATE keys SET destroyed = ? WHERE computation = ?")
                .bind(line.at.unix_nanos())
                .bind(computation)
                .execute(&mut *tx)
                .await?;
            append(&mut tx, line).await?;
        }
        Ok(tx.commit().await?)
    }

    async fn destruction(&self, computation: &str) -> Result<Option<SignedRecord>, StoreError> {
        let row = sqlx::query("SELECT record, signature FROM destructions WHERE computation = ?")
            .bind(computation)
            .fetch_optional(&self.pool)
            .await?;
        row.map(|row| Ok(SignedRecord { text: row.try_get("record")?, signature: row.try_get("signature")? }))
            .transpose()
    }
}
