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
pub async fn conformance<S: Store + KeyStore>(store: &S) {
    // The first Duchy keeps the database.
    let owner = |id: &str| DuchyId::new(id).expect("a Duchy id of the suite");
    assert_eq!(store.owner(&owner("worker1")).await.expect("the store answers"), "worker1");
    assert_eq!(store.owner(&owner("worker2")).await.expect("the store answers"), "worker1");

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
    store.apply(Some(&report(None)), "keys", at(1)).await.expect("the store answers");
    store.apply(Some(&report(None)), "keys", at(2)).await.expect("the store answers");
    let generated = line(AuditEvent::Generated, "k", &ids(&entries), 1);
    let trail = store.audit_trail("k").await.expect("the store answers");
    assert_eq!(trail, std::slice::from_ref(&generated), "a report that repeats draws no keys");
    assert_eq!(store.dropped().await.expect("the store answers"), [], "keys in use are not dropped");

    // Sealed anew, unless it has changed.
    let row = store
        .sealed()
        .await
        .expect("the store answers")
        .into_iter()
        .find(|row| row.computation == "k")
        .expect("its secrets");
    assert_eq!((row.place, row.sealed.as_slice()), (SealedPlace::Secrets, &[2, 1][..]));
    let rotated = line(AuditEvent::Rotated, "k", "seed", 3);
    assert!(store.reseal(&row, &[2, 2], &rotated).await.expect("the store answers"));
    assert!(!store.reseal(&row, &[2, 3], &rotated).await.expect("the store answers"));
    assert_eq!(store.load("k").await.expect("the store answers").expect("the computation").secrets, Some(vec![2, 2]));
    let opened = line(AuditEvent::Opened, "k", "seed", 4);
    store.audit(std::slice::from_ref(&opened)).await.expect("the store answers");
    assert_eq!(
        store.audit_trail("k").await.expect("the store answers"),
        [generated.clone(), rotated.clone(), opened.clone()]
    );

    // Dropped with the computation; recorded once.
    store.abandon("k", "nobody ends it", at(6)).await.expect("the store answers");
    assert!(store.sealed().await.expect("the store answers").iter().all(|row| row.computation != "k"));
    let dropped = DroppedKeys { computation: "k".to_owned(), entries, generated: at(1) };
    assert_eq!(store.dropped().await.expect("the store answers"), [dropped]);
    assert!(store.erase().await.expect("the store answers"), "nobody is reading");
    let record = SignedRecord { text: "gone".to_owned(), signature: vec![1] };
    let destroyed = line(AuditEvent::Destroyed, "k", "seed", 7);
    assert_eq!(store.destruction("k").await.expect("the store answers"), None);
    store.record_destruction("k", &record, &destroyed).await.expect("the store answers");
    let other = SignedRecord { text: "again".to_owned(), signature: vec![2] };
    store.record_destruction("k", &other, &destroyed).await.expect("the store answers");
    assert_eq!(store.destruction("k").await.expect("the store answers"), Some(record.clone()), "the first one stays");
    assert_eq!(store.dropped().await.expect("the store answers"), []);
    assert_eq!(store.audit_trail("k").await.expect("the store answers"), [generated, rotated, opened, destroyed]);

    // Trail and record outlive the computation.
    assert!(store.forget(at(100)).await.expect("the store answers") > 0);
    assert_eq!(store.audit_trail("k").await.expect("the store answers").len(), 4);
    assert_eq!(store.destruction("k").await.expect("the store answers"), Some(record));

    // Keys from before there was a list.
    store.adopt("old", &[KeyEntry::seed()], at(8)).await.expect("the store answers");
    store.adopt("old", &[KeyEntry::seed()], at(9)).await.expect("the store answers");
    let old = store.dropped().await.expect("the store answers");
    assert_eq!((old.len(), old[0].generated), (1, at(8)));
}
