//! What every store has to do, whatever it is made of.

use std::time::Duration;

use halo_core::clock::Timestamp;
use halo_core::resource::DuchyId;

use super::{
    Binding, BodyId, Claim, Lease, NewComputation, Outgoing, Release, Report, Requisition, SlotKey, SlotStatus,
    StageCommit, Store, StoreError, TransferKey, Upload,
};
use crate::server::keys::SealedKeys;
use crate::server::stage::{Role, Stage};

const REQUISITION: &str = "dataProviders/AAAAAAAAAAE/requisitions/AAAAAAAAAAI";

fn at(second: u64) -> Timestamp {
    Timestamp::EPOCH + Duration::from_secs(second)
}

fn duchy(id: &str) -> DuchyId {
    DuchyId::new(id).expect("a Duchy id of the suite")
}

fn sealed() -> SealedKeys {
    SealedKeys { sealed: vec![7], ..SealedKeys::default() }
}

fn body(tag: u8) -> BodyId {
    BodyId { sha256: [tag; 32], length: 192 * u64::from(tag), records: u64::from(tag) }
}

fn report(computation: &str, kingdom_state: i32, role: Option<Role>) -> Report {
    let requisition = Requisition {
        name: REQUISITION.to_owned(),
        computation: computation.to_owned(),
        fingerprint: [1; 32],
        nonce_hash: [2; 32],
        here: true,
        upload: None,
        announced: false,
    };
    Report {
        computation: computation.to_owned(),
        kingdom_state,
        received: vec![kingdom_state as u8],
        new: role.map(|role| NewComputation { role, secrets: sealed(), requisitions: vec![requisition] }),
        over: None,
        refusal: None,
    }
}

fn commit(from: Stage, next: Stage) -> StageCommit {
    StageCommit {
        from,
        next,
        engine_state: None,
        outbox: Vec::new(),
        awaiting: Vec::new(),
        consumed: Vec::new(),
        failure: None,
    }
}

async fn lease(store: &dyn Store, now: u64) -> Lease {
    match store.claim("owner", at(now), at(now + 10)).await.expect("claim") {
        Claim::Leased(lease) => lease,
        Claim::Idle(until) => panic!("nothing to claim at {now}, next {until:?}"),
    }
}

/// Runs a worker's computation through an empty store, with everything that may go wrong on the way.
///
/// # Panics
/// If the store breaks its contract.
pub async fn conformance(store: &dyn Store) {
    reports_and_leases(store).await;
    uploads(store).await;
    stages_and_slots(store).await;
    the_end(store).await;
    given_up(store).await;
    transfers(store).await;
}

async fn reports_and_leases(store: &dyn Store) {
    assert_eq!(store.continuation_token().await.expect("token"), "");
    assert_eq!(store.claim("owner", at(0), at(10)).await.expect("claim"), Claim::Idle(None));

    // A report on something unknown, without what is needed to create it, only moves the token.
    store.apply(Some(&report("gone", 6, None)), "one", at(1)).await.expect("apply");
    assert!(store.load("gone").await.expect("load").is_none());
    let created = report("c", 1, Some(Role::Worker));
    store.apply(Some(&created), "two", at(1)).await.expect("apply");
    store.apply(Some(&created), "two", at(1)).await.expect("a report may repeat");
    assert_eq!(store.continuation_token().await.expect("token"), "two");

    let first = lease(store, 1).await;
    assert_eq!(store.claim("other", at(2), at(12)).await.expect("claim"), Claim::Idle(Some(at(11))));
    store.renew(&first, at(20)).await.expect("renew");
    assert_eq!(store.claim("other", at(12), at(22)).await.expect("claim"), Claim::Idle(Some(at(20))));

    // After the expiry another worker takes over, and the first one can write nothing any more.
    let second = lease(store, 21).await;
    assert!(second.fencing > first.fencing);
    let work = commit(Stage::InitializationPhase, Stage::WaitRequisitionsAndKeySet);
    assert!(matches!(store.commit(&first, &work, at(21)).await, Err(StoreError::LeaseLost { .. })));
    assert!(matches!(store.renew(&first, at(30)).await, Err(StoreError::LeaseLost { .. })));
    store.release(&first, Release::Done).await.expect("releasing a lost lease changes nothing");

    // A transient error waits and counts.
    store.release(&second, Release::RetryAt(at(40))).await.expect("release");
    assert_eq!(store.claim("owner", at(39), at(49)).await.expect("claim"), Claim::Idle(Some(at(40))));
    let third = lease(store, 40).await;
    assert_eq!(store.load("c").await.expect("load").expect("known").attempts, 1);

    let wrong = commit(Stage::SetupPhase, Stage::Complete);
    assert!(matches!(store.commit(&third, &wrong, at(40)).await, Err(StoreError::LeaseLost { .. })));
    let work = StageCommit { outbox: vec![Outgoing::Parameters(vec![1, 2])], ..work };
    store.commit(&third, &work, at(40)).await.expect("commit");
    let record = store.load("c").await.expect("load").expect("known");
    assert_eq!((record.stage, record.attempts), (Stage::WaitRequisitionsAndKeySet, 0));
    assert_eq!(record.outbox[0].message, Outgoing::Parameters(vec![1, 2]));
    assert_eq!(record.outbox[0].stage, Stage::InitializationPhase);
    assert!(!store.finish(&third, at(40)).await.expect("finish"), "a computation that goes on is not finished");
    store.release(&third, Release::Done).await.expect("release");

    // The delivery is work too, also for the next process.
    let fourth = lease(store, 41).await;
    store.acknowledge(&fourth, record.outbox[0].seq, at(41)).await.expect("acknowledge");
    store.release(&fourth, Release::Done).await.expect("release");
    assert_eq!(store.claim("owner", at(42), at(52)).await.expect("claim"), Claim::Idle(None));
}

async fn uploads(store: &dyn Store) {
    let partial = TransferKey { target: REQUISITION.to_owned(), computation: "c".to_owned(), sha256: body(3).sha256 };
    assert_eq!(store.transferred(&partial).await.expect("read"), 0);
    store.set_transferred(&partial, 100).await.expect("write");
    store.set_transferred(&partial, 150).await.expect("write");
    assert_eq!(store.transferred(&partial).await.expect("read"), 150);
    let other = TransferKey { sha256: body(4).sha256, ..partial.clone() };
    assert_eq!(store.transferred(&other).await.expect("progress is kept for each digest"), 0);

    let upload = Upload { nonce: u64::MAX, key_list_hash: [9; 32], attachment: vec![5, 6], body: body(3) };
    assert!(matches!(store.bind_upload("nobody's", &upload, at(50)).await, Err(StoreError::NotAwaited { .. })));
    assert_eq!(store.bind_upload(REQUISITION, &upload, at(50)).await.expect("bind"), Binding::New);
    assert_eq!(store.bind_upload(REQUISITION, &upload, at(51)).await.expect("bind"), Binding::Repeated);
    let changed = Upload { body: body(4), ..upload.clone() };
    assert!(matches!(store.bind_upload(REQUISITION, &changed, at(52)).await, Err(StoreError::OtherBody { .. })));
    assert_eq!(store.transferred(&partial).await.expect("a bound body is no longer partial"), 0);
    assert_eq!(store.requisition(REQUISITION).await.expect("read").expect("known").upload, Some(upload));
    assert_eq!(store.unannounced().await.expect("list").len(), 1);
    store.announced(REQUISITION).await.expect("write");
    assert!(store.unannounced().await.expect("list").is_empty());
}

async fn stages_and_slots(store: &dyn Store) {
    store.apply(Some(&report("c", 2, None)), "three", at(60)).await.expect("apply");
    assert_eq!(store.load("c").await.expect("load").expect("known").stage, Stage::WaitRequisitionsAndKeySet);
    store.apply(Some(&report("c", 3, None)), "four", at(60)).await.expect("apply");
    assert_eq!(store.load("c").await.expect("load").expect("known").stage, Stage::ConfirmationPhase);

    // The start signal comes while the confirmation is still being worked on: it is not lost.
    let work = lease(store, 60).await;
    store.apply(Some(&report("c", 4, None)), "five", at(60)).await.expect("apply");
    store.commit(&work, &commit(Stage::ConfirmationPhase, Stage::WaitToStart), at(60)).await.expect("commit");
    assert_eq!(store.load("c").await.expect("load").expect("known").stage, Stage::SetupPhase);

    let slot = SlotKey { computation: "c".to_owned(), description: 2, sender: duchy("aggregator") };
    assert_eq!(store.slot(&slot).await.expect("slot"), SlotStatus::NotAwaited);
    assert!(matches!(store.bind_input(&slot, &body(5), at(61)).await, Err(StoreError::NotAwaited { .. })));
    let setup = StageCommit {
        engine_state: Some(vec![42]),
        outbox: vec![Outgoing::Body { to: duchy("aggregator"), description: 1, body: body(5) }],
        awaiting: vec![(2, duchy("aggregator"))],
        ..commit(Stage::SetupPhase, Stage::WaitExecutionPhaseOneInputs)
    };
    store.commit(&work, &setup, at(61)).await.expect("commit");
    let record = store.load("c").await.expect("load").expect("known");
    assert_eq!(record.stage, Stage::WaitExecutionPhaseOneInputs);
    assert_eq!(record.engine_state.as_deref(), Some(&[42][..]));
    for row in &record.outbox {
        store.acknowledge(&work, row.seq, at(61)).await.expect("acknowledge");
    }
    store.release(&work, Release::Done).await.expect("release");

    let stranger = SlotKey { sender: duchy("worker2"), ..slot.clone() };
    assert_eq!(store.slot(&slot).await.expect("slot"), SlotStatus::Awaited);
    assert_eq!(store.slot(&stranger).await.expect("slot"), SlotStatus::OwedByAnother);
    assert_eq!(store.bind_input(&slot, &body(6), at(62)).await.expect("bind"), Binding::New);
    assert_eq!(store.bind_input(&slot, &body(6), at(62)).await.expect("bind"), Binding::Repeated);
    assert!(matches!(store.bind_input(&slot, &body(7), at(62)).await, Err(StoreError::OtherBody { .. })));
    let record = store.load("c").await.expect("load").expect("known");
    assert_eq!((record.stage, record.inputs.len()), (Stage::ExecutionPhaseOne, 1));

    let work = lease(store, 63).await;
    let phase_one = StageCommit {
        consumed: vec![(2, duchy("aggregator"))],
        awaiting: vec![(3, duchy("aggregator"))],
        ..commit(Stage::ExecutionPhaseOne, Stage::WaitExecutionPhaseTwoInputs)
    };
    store.commit(&work, &phase_one, at(63)).await.expect("commit");
    store.release(&work, Release::Done).await.expect("release");
    let record = store.load("c").await.expect("load").expect("known");
    assert_eq!((record.stage, record.inputs.len()), (Stage::WaitExecutionPhaseTwoInputs, 0));
    assert_eq!(record.engine_state.as_deref(), Some(&[42][..]), "a commit without a state keeps the old one");
    // What was consumed still answers for its digest.
    assert_eq!(store.bind_input(&slot, &body(6), at(64)).await.expect("bind"), Binding::Repeated);
    assert!(matches!(store.bind_input(&slot, &body(7), at(64)).await, Err(StoreError::OtherBody { .. })));
}

async fn the_end(store: &dyn Store) {
    let next = SlotKey { computation: "c".to_owned(), description: 3, sender: duchy("aggregator") };
    store.bind_input(&next, &body(8), at(65)).await.expect("bind");
    let work = lease(store, 66).await;
    let over = Report { over: Some(Some("cancelled".to_owned())), ..report("c", 7, None) };
    store.apply(Some(&over), "six", at(66)).await.expect("apply");
    let late = commit(Stage::ExecutionPhaseTwo, Stage::Complete);
    assert!(matches!(store.commit(&work, &late, at(66)).await, Err(StoreError::LeaseLost { .. })));
    let record = store.load("c").await.expect("load").expect("known");
    assert_eq!((record.stage, record.finished), (Stage::Complete, false));
    assert_eq!(record.failure.as_deref(), Some("cancelled"));
    assert!(record.secrets.is_some());

    let end = lease(store, 67).await;
    store.break_leases().await.expect("break");
    assert!(matches!(store.finish(&end, at(67)).await, Err(StoreError::LeaseLost { .. })));
    let end = lease(store, 67).await;
    assert!(store.finish(&end, at(67)).await.expect("finish"));
    store.release(&end, Release::Done).await.expect("release");
    let record = store.load("c").await.expect("load").expect("known");
    assert!(record.finished && record.secrets.is_none() && record.engine_state.is_none());
    store.apply(Some(&report("c", 4, None)), "seven", at(68)).await.expect("apply");
    assert!(store.load("c").await.expect("load").expect("known").finished, "what is finished stays so");
    assert_eq!(store.claim("owner", at(99), at(109)).await.expect("claim"), Claim::Idle(None));

    // A computation that is refused at the door is closed at once and says so at the Kingdom.
    let refused = Report {
        refusal: Some((vec![1], "no consumer of that name".to_owned())),
        new: Some(NewComputation { role: Role::Worker, secrets: SealedKeys::default(), requisitions: Vec::new() }),
        ..report("d", 1, None)
    };
    store.apply(Some(&refused), "eight", at(110)).await.expect("apply");
    let record = store.load("d").await.expect("load").expect("known");
    assert_eq!(record.stage, Stage::Complete);
    assert_eq!(record.outbox[0].message, Outgoing::Failure(vec![1]));
    assert_eq!(store.unfinished().await.expect("unfinished"), ["d".to_owned()].into());
    let end = lease(store, 111).await;
    store.acknowledge(&end, record.outbox[0].seq, at(111)).await.expect("acknowledge");
    assert!(store.finish(&end, at(111)).await.expect("finish"));
}

/// What somebody sent ends a computation here; nothing is taken for it any more.
async fn given_up(store: &dyn Store) {
    let mut new = report("e", 1, Some(Role::Worker));
    let requisition = "dataProviders/AAAAAAAAAAE/requisitions/AAAAAAAAAAM".to_owned();
    if let Some(new) = &mut new.new {
        new.requisitions[0].name.clone_from(&requisition);
    }
    store.apply(Some(&new), "nine", at(120)).await.expect("apply");
    store.give_up("e", &[5], "a bad record", at(120)).await.expect("give up");
    store.give_up("e", &[6], "another one", at(120)).await.expect("give up");
    store.give_up("unknown", &[6], "nobody knows it", at(120)).await.expect("give up");
    let record = store.load("e").await.expect("load").expect("known");
    assert_eq!((record.stage, record.failure.as_deref()), (Stage::Complete, Some("a bad record")));
    let messages: Vec<_> = record.outbox.iter().map(|row| &row.message).collect();
    assert_eq!(messages, [&Outgoing::Failure(vec![5])]);
    let upload = Upload { nonce: 1, key_list_hash: [0; 32], attachment: Vec::new(), body: body(1) };
    let late = store.bind_upload(&requisition, &upload, at(121)).await;
    assert!(matches!(late, Err(StoreError::NotAwaited { .. })), "{late:?}");

    let end = lease(store, 122).await;
    store.acknowledge(&end, record.outbox[0].seq, at(122)).await.expect("acknowledge");
    assert!(store.finish(&end, at(122)).await.expect("finish"));
    // "c" has changed at 67, "d" at 111, "e" at 122.
    assert_eq!(store.forget(at(122)).await.expect("forget"), 2);
    assert!(store.load("c").await.expect("load").is_none() && store.load("e").await.expect("load").is_some());
    assert!(store.requisition(REQUISITION).await.expect("requisition").is_none());
}

/// One partial body for each target; what is referred to; and the end that nobody else makes.
async fn transfers(store: &dyn Store) {
    let new = NewComputation { role: Role::Worker, secrets: SealedKeys::default(), requisitions: Vec::new() };
    store.apply(Some(&Report { new: Some(new), ..report("f", 1, None) }), "eight", at(130)).await.expect("apply");
    let transfer = |tag: u8| TransferKey { target: "t".to_owned(), computation: "f".to_owned(), sha256: [tag; 32] };
    store.set_transferred(&transfer(1), 10).await.expect("set");
    assert_eq!(store.supersede(&transfer(1)).await.expect("supersede"), 10);
    assert_eq!(store.supersede(&transfer(2)).await.expect("supersede"), 0);
    assert_eq!(store.transferred(&transfer(1)).await.expect("get"), 0);

    let referred = body(9);
    let owed = SlotKey { computation: "f".to_owned(), description: 2, sender: duchy("aggregator") };
    let work = lease(store, 131).await;
    let stage = StageCommit {
        awaiting: vec![(2, duchy("aggregator"))],
        outbox: vec![Outgoing::Body { to: duchy("aggregator"), description: 1, body: body(5) }],
        ..commit(Stage::InitializationPhase, Stage::WaitExecutionPhaseOneInputs)
    };
    store.commit(&work, &stage, at(131)).await.expect("commit");
    store.bind_input(&owed, &referred, at(131)).await.expect("bind");
    assert_eq!(store.bodies("f").await.expect("bodies"), [referred.sha256, body(5).sha256].into());
    store.abandon("f", "its deadline has passed", at(132)).await.expect("abandon");
    let record = store.load("f").await.expect("load").expect("known");
    assert!(record.finished && record.secrets.is_none() && record.outbox.is_empty(), "{record:?}");
    assert_eq!(record.failure.as_deref(), Some("its deadline has passed"));
    assert!(matches!(store.renew(&work, at(140)).await, Err(StoreError::LeaseLost { .. })));
}
