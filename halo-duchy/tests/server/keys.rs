//! What is left of keys when a measurement is over: a signed record, and the trail of what was done with them.

use std::time::Duration;

use halo_core::pb::system::computation::State;
use halo_duchy::server::keys::{AuditEvent, KeyStore};
use halo_duchy::server::store::{SqliteStore, Store};

use crate::trio::{Study, Trio};
use crate::world::{DUCHIES, id};

/// Ends a measurement whose result is handed in, and asserts that every Duchy destroys its keys and signs that.
pub(crate) async fn assert_destroyed(trio: &Trio, study: &mut Study<'_>) {
    study.report(State::Succeeded);
    let computation = id(&study.computation.name).to_owned();
    for duchy in DUCHIES {
        let store = SqliteStore::open(&trio.state_directory(duchy).join("duchy.sqlite")).await.unwrap();
        let recorded = async {
            loop {
                match store.destruction(&computation).await.unwrap() {
                    Some(record) => break record,
                    None => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            }
        };
        let signed = tokio::time::timeout(Duration::from_secs(60), recorded).await.unwrap();
        let party = trio.party(duchy);
        let record = signed.verify(&party.certificate).unwrap();
        assert_eq!((record.duchy.as_str(), record.computation.as_str()), (id(duchy), computation.as_str()));
        assert_eq!(record.certificate, party.certificate_name());
        assert!(record.generated < record.destroyed);
        assert_eq!(record.keys.iter().map(|key| key.kind.as_str()).collect::<Vec<_>>(), ["seed", "elgamal"]);
        let trail = store.audit_trail(&computation).await.unwrap();
        assert_eq!(trail.first().unwrap().event, AuditEvent::Generated);
        assert!(trail.iter().filter(|line| line.event == AuditEvent::Opened).count() > 1);
        assert_eq!(trail.last().unwrap().event, AuditEvent::Destroyed);
        assert_eq!(store.load(&computation).await.unwrap().unwrap().secrets, None);
    }
}
