//! Every store passes the one suite.
#![cfg(feature = "server")]

use halo_duchy::server::store::{SqliteStore, conformance};

#[tokio::test]
async fn sqlite_passes_the_suite_and_remembers_after_reopening() {
    use halo_duchy::server::store::Store;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("duchy.sqlite");
    conformance(&SqliteStore::open(&file).await.unwrap()).await;
    let again = SqliteStore::open(&file).await.unwrap();
    assert_eq!(again.continuation_token().await.unwrap(), "eight");
}
