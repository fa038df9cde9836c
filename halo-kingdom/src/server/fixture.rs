//! A Kingdom for tests inside of this crate.

use std::{sync::Arc, time::Duration};

use halo_core::{
    clock::ManualClock,
    measurement::{DirectConfig, Protocol},
};
use tokio_util::sync::CancellationToken;

use super::{
    kingdom::Kingdom,
    store::{CertificateRecord, Party, Revocation, Store, conformance},
};
use crate::planner::{Capabilities, Llv2Settings, Planner, Settings};

/// The consumer of the conformance suite's measurements.
fn consumer() -> Party {
    let certificate = conformance::measurement(1).consumer_certificate;
    Party {
        name: certificate.parent.clone(),
        display_name: String::new(),
        root_der: vec![],
        root_key_id: vec![1],
        certificate,
        public_key: None,
        configured: [0; 32],
        capabilities: Capabilities::default(),
        configured_capabilities: None,
    }
}

/// Puts the conformance suite's measurements 1 to 3 into an empty store.
pub(crate) async fn fill(store: &dyn Store) {
    let party = consumer();
    store.put_party(&party).await.unwrap();
    let record = CertificateRecord {
        name: party.certificate.clone(),
        der: vec![],
        subject_key_id: vec![1],
        not_before: 0,
        not_after: 0,
        revocation: Revocation::Good,
    };
    store.create_certificate(&record).await.unwrap();
    let new: Vec<_> = (1..=3).map(conformance::new).collect();
    store.create_measurements(&new, &[party.certificate]).await.unwrap();
}

/// A Kingdom whose only configured party is the consumer.
pub(crate) fn kingdom(store: Arc<dyn Store>, clock: ManualClock) -> Kingdom {
    let llv2 = match conformance::protocol() {
        Protocol::Llv2(protocol) => Some(Llv2Settings { protocol, minimum_duchies: 2 }),
        other => panic!("{other:?}"),
    };
    let direct = DirectConfig { noise: vec![None] };
    let settings = Settings { llv2, rollv2: None, hmss: None, hmss_native: None, trustee: None, direct };
    let planner = Planner::new(settings, conformance::measurement(1).duchies()).unwrap();
    let week = Duration::from_secs(604_800);
    Kingdom::new(store, Arc::new(clock), planner, (week, week), CancellationToken::new(), &[consumer()])
}
