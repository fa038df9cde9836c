//! The embedded store: the conformance suite, restarts, and files of older versions.

use super::*;
use crate::server::store::conformance::conformance;

#[tokio::test]
async fn memory_conforms() {
    conformance(&SqliteStore::in_memory().await.unwrap()).await;
}

#[tokio::test]
async fn a_file_conforms_and_is_there_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("kingdom.sqlite");
    let store = SqliteStore::open(&file).await.unwrap();
    conformance(&store).await;
    let changes: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM changes").fetch_one(&store.pool).await.unwrap();
    assert_eq!(changes, 4, "the log keeps one row for each measurement");
    let (all, latest) = (store.all_measurements().await.unwrap(), *store.latest_change().borrow());
    let mut before = Vec::new();
    for name in &all {
        before.push(store.measurement(name).await.unwrap());
    }
    // Dropped without being closed, as by a kill: what was committed is in the log.
    drop(store);
    let store = SqliteStore::open(&file).await.unwrap();
    assert_eq!(store.all_measurements().await.unwrap(), all);
    assert_eq!(*store.latest_change().borrow(), latest);
    let reader = SqliteStore::open_read_only(&file).await.unwrap();
    for (name, before) in all.iter().zip(before) {
        assert_eq!(store.measurement(name).await.unwrap(), before);
        assert_eq!(reader.measurement(name).await.unwrap(), before);
    }
}

#[tokio::test]
async fn an_older_change_log_is_cut_to_the_latest_changes() {
    use crate::server::store::conformance;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("kingdom.sqlite");
    let options = SqliteConnectOptions::new().filename(&file).create_if_missing(true);
    let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await.unwrap();
    let mut first = sqlx::migrate!();
    first.migrations.to_mut().truncate(1);
    first.run(&pool).await.unwrap();
    let mut tx = pool.begin().await.unwrap();
    for number in 1..=2 {
        insert_by_first_version(&mut tx, &conformance::measurement(number)).await;
    }
    let [one, two] = [1, 2].map(|number| conformance::measurement(number).computation);
    for computation in [&one, &two, &one, &one] {
        sqlx::query("INSERT INTO changes (computation) VALUES (?1)")
            .bind(computation.computation.to_string())
            .execute(&mut *tx)
            .await
            .unwrap();
    }
    tx.commit().await.unwrap();
    pool.close().await;
    let store = SqliteStore::open(&file).await.unwrap();
    let worker = Audience::Duchy("worker1".parse().unwrap());
    let changes = store.changes(&worker, 0, 10).await.unwrap();
    assert_eq!(changes, [Change { sequence: 2, computation: two }, Change { sequence: 4, computation: one }]);
    assert_eq!(*store.latest_change().borrow(), 4);
    let measurement = conformance::measurement(1);
    assert_eq!(store.measurement(&measurement.name).await.unwrap(), Some(measurement), "what was there is there");
}

/// A measurement as the first version of the tables held it.
async fn insert_by_first_version(tx: &mut Transaction<'static, Sqlite>, measurement: &Measurement) {
    sqlx::query(
        "INSERT INTO measurements (consumer, id, computation, reference_id, certificate, spec_type_url, spec,
             spec_signature, spec_signature_oid, protocol_config, aggregator, state, create_time, update_time, deadline,
             revision)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, 'aggregator', ?11, ?12, ?12, ?13, 0)",
    )
    .bind(measurement.name.measurement_consumer.to_string())
    .bind(measurement.name.measurement.to_string())
    .bind(measurement.computation.computation.to_string())
    .bind(&measurement.reference_id)
    .bind(measurement.consumer_certificate.to_string())
    .bind(&measurement.spec.message.type_url)
    .bind(&measurement.spec.message.bytes)
    .bind(&measurement.spec.signature)
    .bind(&measurement.spec.algorithm_oid)
    .bind(&measurement.protocol_config)
    .bind(measurement.state.number())
    .bind(measurement.create_time.unix_nanos())
    .bind(measurement.deadline.unix_nanos())
    .execute(&mut **tx)
    .await
    .unwrap();
    rows::insert_parts(tx, measurement).await.unwrap();
}

#[tokio::test]
async fn reading_only_needs_a_database() {
    let directory = tempfile::tempdir().unwrap();
    assert!(SqliteStore::open_read_only(&directory.path().join("kingdom.sqlite")).await.is_err());
}
