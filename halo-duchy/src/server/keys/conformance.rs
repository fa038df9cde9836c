//! What every store has to do with keys.

use halo_core::clock::Timestamp;
use halo_core::resource::DuchyId;

use super::{AuditEvent, AuditLine, DroppedKeys, KeyEntry, KeyStore, SealedPlace, SignedRecord, ids};
use crate::server::stage::Role;
use crate::server::store::{NewComputation, Report, Store};

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_unix_nanos(seconds * 1_000_000_000)
}

fn line(event: AuditEvent, computation: &str, keys: &str, seconds: i64) -> AuditLine {
    let (computation, keys) = (computation.to_owned(), keys.to_owned());
    AuditLine { at: at(seconds), event, computation, keys, kek: "kek".to_owned() }
}

/// Runs the suite against an empty store.
///
/// # Panics
/// If the store does anything else than it should.
#[expect(clippy::unwrap_used, reason = "a suite of checks fails by panicking")]
pub async fn conformance<S: Store + KeyStore>(store: &S) {
    // The first Duchy keeps the database.
    let owner = |id: &str| DuchyId::new(id).unwrap();
    assert_eq!(store.owner(&owner("worker1")).await.unwrap(), "worker1");
    assert_eq!(store.owner(&owner("worker2")).await.unwrap(), "worker1");

    // Keys come with their computation, and with the audit line.
    let entries = vec![KeyEntry::seed(), KeyEntry::of("hpke", b"public")];
    let report = |over| Report {
        computation: "k".to_owned(),
        kingdom_state: 1,
        received: Vec::new(),
        new: Some(NewComputation {
            role: Role::Worker,
            secrets: super::SealedKeys { sealed: vec![2, 1], entries: entries.clone(), kek: "kek".to_owned() },
            requisitions: Vec::new(),
        }),
        over,
        refusal: None,
    };
    store.apply(Some(&report(None)), "keys", at(1)).await.unwrap();
    store.apply(Some(&report(None)), "keys", at(2)).await.unwrap();
    let generated = line(AuditEvent::Generated, "k", &ids(&entries), 1);
    let trail = store.audit_trail("k").await.unwrap();
    assert_eq!(trail, std::slice::from_ref(&generated), "a report that repeats draws no keys");
    assert_eq!(store.dropped().await.unwrap(), [], "keys in use are not dropped");

    // Sealed anew, unless it has changed.
    let row = store.sealed().await.unwrap().into_iter().find(|row| row.of == "k").unwrap();
    assert_eq!((row.place, row.sealed.as_slice()), (SealedPlace::Secrets, &[2, 1][..]));
    let rotated = line(AuditEvent::Rotated, "k", "seed", 3);
    assert!(store.reseal(&row, &[2, 2], &rotated).await.unwrap());
    assert!(!store.reseal(&row, &[2, 3], &rotated).await.unwrap());
    assert_eq!(store.load("k").await.unwrap().unwrap().secrets, Some(vec![2, 2]));
    let opened = line(AuditEvent::Opened, "k", "seed", 4);
    store.audit(std::slice::from_ref(&opened)).await.unwrap();
    assert_eq!(store.audit_trail("k").await.unwrap(), [generated.clone(), rotated.clone(), opened.clone()]);

    // The Duchy's own.
    let own = line(AuditEvent::Generated, "", "noise key", 5);
    assert_eq!(store.own_secret("noise key").await.unwrap(), None);
    store.keep_own_secret("noise key", &[7], &own).await.unwrap();
    store.keep_own_secret("noise key", &[8], &own).await.unwrap();
    assert_eq!(store.own_secret("noise key").await.unwrap(), Some(vec![7]), "the first one stays");
    assert_eq!(store.audit_trail("").await.unwrap(), [own]);
    assert!(store.sealed().await.unwrap().iter().any(|row| row.place == SealedPlace::Own && row.of == "noise key"));

    // Dropped with the computation; recorded once.
    store.abandon("k", "nobody ends it", at(6)).await.unwrap();
    assert!(store.sealed().await.unwrap().iter().all(|row| row.of != "k"));
    let dropped = DroppedKeys { computation: "k".to_owned(), entries, generated: at(1) };
    assert_eq!(store.dropped().await.unwrap(), [dropped]);
    assert!(store.erase().await.unwrap(), "nobody is reading");
    let record = SignedRecord { text: "gone".to_owned(), signature: vec![1] };
    let destroyed = line(AuditEvent::Destroyed, "k", "seed", 7);
    assert_eq!(store.destruction("k").await.unwrap(), None);
    store.record_destruction("k", &record, &destroyed).await.unwrap();
    let other = SignedRecord { text: "again".to_owned(), signature: vec![2] };
    store.record_destruction("k", &other, &destroyed).await.unwrap();
    assert_eq!(store.destruction("k").await.unwrap(), Some(record.clone()), "the first one stays");
    assert_eq!(store.dropped().await.unwrap(), []);
    assert_eq!(store.audit_trail("k").await.unwrap(), [generated, rotated, opened, destroyed]);

    // Trail and record outlive the computation.
    assert!(store.forget(at(100)).await.unwrap() > 0);
    assert_eq!(store.audit_trail("k").await.unwrap().len(), 4);
    assert_eq!(store.destruction("k").await.unwrap(), Some(record));

    // Keys from before there was a list.
    store.adopt("old", &[KeyEntry::seed()], at(8)).await.unwrap();
    store.adopt("old", &[KeyEntry::seed()], at(9)).await.unwrap();
    let old = store.dropped().await.unwrap();
    assert_eq!((old.len(), old[0].generated), (1, at(8)));
}
