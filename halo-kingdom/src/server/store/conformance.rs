//! What every store must do, shown on any store that is empty.

use std::time::Duration;

use halo_core::{
    clock::Timestamp,
    measurement::{
        Llv2Config, MeasurementKind, MeasurementState, ParticipantState, Protocol, ProtocolConfig, RequisitionState,
    },
    resource::{
        CertificateName, CertificateParent, ComputationName, DataProviderName, DuchyId, DuchyName, EventGroupName,
        ExternalId, MeasurementConsumerName, MeasurementName, RequisitionName,
    },
    wire,
};
use prost::Message;

use super::{
    Audience, CertificateRecord, Cursor, EventGroupRecord, MeasurementQuery, NewMeasurement, Party, RequisitionQuery,
    Revocation, States, Store, StoreError, TimelineEntry,
};
use crate::{
    lifecycle::{Note, ParticipantChange, RequisitionChange, Transition, apply},
    planner::Capabilities,
    record::{
        ComputationResult, Delivery, DirectResult, Failure, FailureReason, FulfillmentContext, Fulfilment, Measurement,
        Parameters, Participant, ParticipantFailure, Requisition, Signed, Typed, Upload,
    },
};

const START: Timestamp = Timestamp::from_unix_nanos(1_700_000_000_123_456_789);

/// Runs the whole suite.
///
/// # Panics
/// If the store, which must be empty, breaks a rule.
pub async fn conformance(store: &dyn Store) {
    parties_and_certificates(store).await;
    creation(store).await;
    commits(store).await;
    lists(store).await;
    change_log(store).await;
    deadlines_and_revocation(store).await;
    event_groups(store).await;
}

pub(crate) fn id(number: u64) -> ExternalId {
    ExternalId::new(number).expect("the suite uses small positive ids")
}

fn consumer() -> MeasurementConsumerName {
    MeasurementConsumerName::new(id(1))
}

pub(crate) fn publisher(number: u64) -> DataProviderName {
    DataProviderName::new(id(10 + number))
}

fn duchy(name: &str) -> DuchyId {
    DuchyId::new(name).expect("the suite uses proper Duchy ids")
}

fn consumer_certificate() -> CertificateName {
    CertificateName::new(consumer(), id(100))
}

fn at(seconds: u64) -> Timestamp {
    START + Duration::from_secs(seconds)
}

fn typed(bytes: &[u8]) -> Typed {
    Typed { type_url: "type.googleapis.com/x".into(), bytes: bytes.to_vec() }
}

/// The protocol of the suite's measurements.
pub(crate) fn protocol() -> Protocol {
    Protocol::Llv2(Llv2Config {
        aggregator: duchy("aggregator"),
        decay_rate: 12.0,
        max_size: 1000,
        sampling_indicator_size: 1000,
        noise: None,
    })
}

/// Measurement number `number` with two publishers and two Duchies; its requisitions are `2·number` and `2·number + 1`.
pub(crate) fn measurement(number: u64) -> Measurement {
    let requisition = |index: u64| Requisition {
        name: RequisitionName::new(publisher(index).data_provider, id(2 * number + index)),
        certificate: CertificateName::new(publisher(index), id(100)),
        public_key: typed(b"key"),
        encrypted_spec: typed(b"ciphertext"),
        nonce_hash: [7; 32],
        state: RequisitionState::PendingParams,
        update_time: at(number),
        fulfilment: None,
        refusal: None,
    };
    let participant = |name: &str| Participant {
        duchy: duchy(name),
        state: ParticipantState::Created,
        update_time: at(number),
        parameters: None,
        failure: None,
    };
    let protocol = protocol();
    let config = ProtocolConfig { kind: MeasurementKind::ReachAndFrequency, protocol: protocol.clone() };
    Measurement {
        name: MeasurementName::new(id(1), id(number)),
        computation: ComputationName::new(id(1000 + number)),
        reference_id: format!("reference {number}"),
        consumer_certificate: consumer_certificate(),
        spec: Signed { message: typed(&[0, 255, 1]), signature: vec![1], algorithm_oid: "1.2.3".into() },
        protocol_config: wire::protocol_config(&config).encode_to_vec(),
        protocol,
        state: MeasurementState::PendingRequisitionParams,
        create_time: at(number),
        update_time: at(number),
        deadline: at(1000 + number),
        requisitions: vec![requisition(0), requisition(1)],
        participants: vec![participant("aggregator"), participant("worker1")],
        failure: None,
        result: None,
        revision: 0,
    }
}

pub(crate) fn new(number: u64) -> NewMeasurement {
    NewMeasurement {
        measurement: measurement(number),
        request_id: Some(format!("request {number}")),
        timeline: vec![Note::new(consumer(), "created the measurement")],
    }
}

async fn load(store: &dyn Store, number: u64) -> Measurement {
    let found = store.measurement(&measurement(number).name).await.expect("measurement can be read");
    found.expect("measurement is there")
}

/// The whole timeline of measurement number `number`, read in pages.
async fn timeline(store: &dyn Store, number: u64) -> Vec<TimelineEntry> {
    let (mut all, mut after) = (Vec::new(), 0);
    loop {
        let page = store.timeline(&measurement(number).computation, after, 2).await.expect("reads");
        let Some((last, _)) = page.last() else { return all };
        assert!(page.len() <= 2 && *last > after, "a page has its limit, and positions grow");
        after = *last;
        all.extend(page.into_iter().map(|(_, entry)| entry));
    }
}

async fn parties_and_certificates(store: &dyn Store) {
    let party = |name: CertificateParent, key: u8| Party {
        certificate: CertificateName::new(name.clone(), id(100)),
        name,
        display_name: "somebody".into(),
        root_der: vec![key, 1],
        root_key_id: vec![key],
        public_key: Some(vec![key, 2]),
        configured: [key; 32],
        capabilities: Capabilities { hmss: true, ..Capabilities::default() },
        configured_capabilities: None,
    };
    let all = [
        party(publisher(0).into(), 1),
        party(publisher(1).into(), 2),
        party(DuchyName::new(duchy("aggregator")).into(), 3),
        party(DuchyName::new(duchy("worker1")).into(), 4),
        party(consumer().into(), 5),
    ];
    for party in &all {
        store.put_party(party).await.expect("a party can be added");
        let certificate = CertificateRecord {
            name: party.certificate.clone(),
            der: vec![9, 9],
            subject_key_id: party.root_der.clone(),
            not_before: 5,
            not_after: 50,
            revocation: Revocation::Good,
        };
        store.create_certificate(&certificate).await.expect("a certificate can be added");
        assert_eq!(store.certificate(&party.certificate).await.expect("reads"), Some(certificate.clone()));
        let again = CertificateRecord { name: CertificateName::new(consumer(), id(101)), ..certificate };
        let refused = store.create_certificate(&again).await;
        assert!(
            matches!(refused, Err(StoreError::AlreadyExists(_))),
            "a subject key identifier is unique: {refused:?}"
        );
    }
    let renamed = Party { display_name: "somebody else".into(), ..all[0].clone() };
    store.put_party(&renamed).await.expect("a party can be replaced");
    assert_eq!(store.party(&renamed.name).await.expect("reads"), Some(renamed.clone()));
    assert_eq!(store.parties().await.expect("reads").len(), all.len());
    capabilities(store, &renamed).await;
    let thief = Party { root_key_id: vec![1], ..all[4].clone() };
    assert!(store.put_party(&thief).await.is_err(), "two parties cannot have one root");

    let orphan = CertificateRecord {
        name: CertificateName::new(MeasurementConsumerName::new(id(999)), id(1)),
        der: vec![],
        subject_key_id: vec![77],
        not_before: 0,
        not_after: 0,
        revocation: Revocation::Good,
    };
    assert!(
        matches!(store.create_certificate(&orphan).await, Err(StoreError::Missing(_))),
        "a certificate has an owner"
    );
    let parent = CertificateParent::from(consumer());
    for number in 0..3 {
        let certificate = CertificateRecord {
            name: CertificateName::new(parent.clone(), id(200 + number)),
            subject_key_id: vec![200, u8::try_from(number).expect("small")],
            not_before: 10,
            ..orphan.clone()
        };
        store.create_certificate(&certificate).await.expect("a certificate can be added");
    }
    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let page = store.certificates(&parent, after, 2).await.expect("lists");
        let Some(last) = page.last() else { break };
        after = Some((last.not_before, last.name.certificate));
        seen.extend(page.into_iter().map(|certificate| certificate.name.certificate));
    }
    assert_eq!(seen, [id(200), id(201), id(202), id(100)], "latest validity first, every one once");
    let name = CertificateName::new(parent, id(200));
    assert!(!store.set_revocation(&name, Revocation::Hold, Revocation::Good).await.expect("writes"));
    assert!(store.set_revocation(&name, Revocation::Good, Revocation::Revoked).await.expect("writes"));
    assert_eq!(store.certificate(&name).await.expect("reads").map(|found| found.revocation), Some(Revocation::Revoked));
    let refused = store.create_measurements(&[new(1)], std::slice::from_ref(&name)).await;
    assert!(matches!(refused, Err(StoreError::CertificateUnusable(_))), "{refused:?}");
}

/// What a party says of its software, and what the configuration said of it; nothing else changes either.
async fn capabilities(store: &dyn Store, party: &Party) {
    let said = Capabilities { trustee: true, deterministic_noise: true, ..Capabilities::default() };
    store.set_capabilities(&party.name, said, true).await.expect("writes");
    let own = Capabilities { hmss_native: true, no_noise: true, ..said };
    store.set_capabilities(&party.name, own, false).await.expect("writes");
    let expected = Party { capabilities: own, configured_capabilities: Some(said), ..party.clone() };
    assert_eq!(store.party(&party.name).await.expect("reads"), Some(expected.clone()));
    store.put_party(party).await.expect("a party can be replaced");
    assert_eq!(store.party(&party.name).await.expect("reads"), Some(expected), "capabilities stay");
    let nobody = store.set_capabilities(&MeasurementConsumerName::new(id(999)).into(), own, false).await;
    assert!(matches!(nobody, Err(StoreError::Missing(_))), "{nobody:?}");
}

async fn creation(store: &dyn Store) {
    let needs = [consumer_certificate()];
    store.create_measurements(&[new(1), new(2)], &needs).await.expect("measurements can be created");
    assert_eq!(load(store, 1).await, measurement(1), "everything is read back as it was written");
    let same = NewMeasurement { measurement: measurement(3), ..new(1) };
    let refused = store.create_measurements(&[new(3), same], &needs).await;
    assert!(matches!(refused, Err(StoreError::AlreadyExists(_))), "a request creates once: {refused:?}");
    assert_eq!(store.measurement(&measurement(3).name).await.expect("reads"), None, "all or nothing");
    store.create_measurements(&[new(3), new(4)], &needs).await.expect("measurements can be created");
    let by_request = store.measurement_by_request(&consumer(), "request 2").await.expect("reads");
    assert_eq!(by_request, Some(measurement(2)));
    assert_eq!(store.computation(&measurement(2).computation).await.expect("reads"), Some(measurement(2)));
    let name = &measurement(2).requisitions[1].name;
    assert_eq!(store.measurement_of(name).await.expect("reads"), Some(measurement(2)));
    let timeline = timeline(store, 2).await;
    assert_eq!(timeline.len(), 1);
    assert_eq!((&timeline[0].note, timeline[0].time), (&new(2).timeline[0], at(2)));
}

async fn commits(store: &dyn Store) {
    let before = load(store, 1).await;
    let mut expected = before.clone();
    let transition = Transition {
        state: Some(MeasurementState::PendingRequisitionFulfillment),
        requisitions: vec![RequisitionChange {
            name: before.requisitions[1].name.clone(),
            state: RequisitionState::Fulfilled,
            fulfilment: Some(Fulfilment {
                nonce: u64::MAX,
                delivery: Delivery::Upload(Upload {
                    duchy: duchy("worker1"),
                    key_list_hash: [1; 32],
                    body_sha256: [2; 32],
                    record_count: 3,
                }),
                context: Some(FulfillmentContext { build_label: "1\n2".into(), warnings: vec!["a\nb".into()] }),
            }),
            refusal: None,
        }],
        participants: vec![ParticipantChange {
            duchy: duchy("worker1"),
            state: ParticipantState::RequisitionParamsSet,
            parameters: Some(Parameters {
                certificate: CertificateName::new(DuchyName::new(duchy("worker1")), id(100)),
                public_key: vec![1],
                signature: vec![2],
                algorithm_oid: "1.2".into(),
                attestation: vec![3],
            }),
            failure: None,
        }],
        timeline: vec![Note::new("one", "first"), Note::new("two", "second")],
        ..Transition::default()
    };
    store.commit(&before, &transition, at(50), &[]).await.expect("a transition can be stored");
    apply(&mut expected, &transition, at(50));
    assert_eq!(load(store, 1).await, expected, "a store does what `apply` does");
    let again = store.commit(&before, &transition, at(51), &[]).await;
    assert!(matches!(again, Err(StoreError::Conflict(_))), "the revision guards: {again:?}");
    assert_eq!(load(store, 1).await, expected, "a conflict changes nothing");

    let end = Transition {
        state: Some(MeasurementState::Failed),
        requisitions: vec![RequisitionChange {
            name: before.requisitions[0].name.clone(),
            state: RequisitionState::Withdrawn,
            fulfilment: Some(Fulfilment {
                nonce: 1,
                delivery: Delivery::Result(DirectResult {
                    certificate: CertificateName::new(publisher(0), id(101)),
                    ciphertext: vec![6],
                }),
                context: None,
            }),
            refusal: None,
        }],
        participants: vec![ParticipantChange {
            duchy: duchy("worker1"),
            state: ParticipantState::Failed,
            parameters: None,
            failure: Some(ParticipantFailure { message: "disk".into(), culprits: vec!["duchies/worker1".into()] }),
        }],
        failure: Some(Failure {
            reason: FailureReason::ParticipantFailed,
            message: "it failed".into(),
            culprits: vec!["duchies/worker1".into(), "duchies/aggregator".into()],
        }),
        result: Some(ComputationResult {
            certificate: CertificateName::new(DuchyName::new(duchy("aggregator")), id(100)),
            public_key: vec![],
            ciphertext: vec![5],
        }),
        ..Transition::default()
    };
    let current = load(store, 1).await;
    store.commit(&current, &end, at(40), &[]).await.expect("a transition can be stored");
    apply(&mut expected, &end, at(40));
    assert_eq!(load(store, 1).await, expected, "time does not go back, and what was there stays");
    let lines = timeline(store, 1).await;
    let messages: Vec<&str> = lines.iter().map(|entry| entry.note.message.as_str()).collect();
    assert_eq!(messages, ["created the measurement", "first", "second"]);
    let report = TimelineEntry {
        time: at(60),
        note: Note::new("duchies/worker1", "works"),
        stage_attempt: Some(vec![1, 2]),
        transient: true,
    };
    for most in [1, 2] {
        store.append_timeline(&before.computation, &report, most).await.expect("writes");
    }
    assert_eq!(timeline(store, 1).await.last(), Some(&report));
    let third = store.append_timeline(&before.computation, &report, 2).await;
    assert!(matches!(third, Err(StoreError::Full { .. })), "{third:?}");
    let other = TimelineEntry { note: Note::new("duchies/worker2", "works"), ..report.clone() };
    store.append_timeline(&before.computation, &other, 1).await.expect("each actor has room of its own");
    let nobody = store.append_timeline(&ComputationName::new(id(5)), &report, 1).await;
    assert!(matches!(nobody, Err(StoreError::Missing(_))), "{nobody:?}");
}

async fn lists(store: &dyn Store) {
    let query = MeasurementQuery {
        consumer: consumer(),
        states: States::of_measurements(MeasurementState::ALL),
        updated_after: None,
        updated_before: None,
        created_after: None,
        created_before: None,
        after: None,
        limit: 1,
    };
    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let page = store.list_measurements(&MeasurementQuery { after, ..query.clone() }).await.expect("lists");
        let Some(last) = page.last() else { break };
        after = Some(Cursor { time: last.update_time, id: last.name.measurement });
        seen.extend(page.into_iter().map(|measurement| measurement.name.measurement));
    }
    assert_eq!(seen, [id(2), id(3), id(4), id(1)], "by update time, every one once");
    for (query, expected) in [
        (
            MeasurementQuery { states: States::of_measurements(&[MeasurementState::Failed]), ..query.clone() },
            vec![id(1)],
        ),
        (MeasurementQuery { updated_after: Some(at(3)), ..query.clone() }, vec![id(4), id(1)]),
        (MeasurementQuery { updated_before: Some(at(3)), ..query.clone() }, vec![id(2)]),
        (MeasurementQuery { created_before: Some(at(2)), ..query.clone() }, vec![id(1)]),
        (MeasurementQuery { created_after: Some(at(3)), ..query.clone() }, vec![id(4)]),
        (MeasurementQuery { consumer: MeasurementConsumerName::new(id(2)), ..query.clone() }, vec![]),
    ] {
        let found = store.list_measurements(&MeasurementQuery { limit: 10, ..query }).await.expect("lists");
        let ids: Vec<ExternalId> = found.iter().map(|measurement| measurement.name.measurement).collect();
        assert_eq!(ids, expected);
    }

    let query = RequisitionQuery {
        data_provider: publisher(1),
        states: States::of_requisitions(RequisitionState::ALL),
        after: None,
        limit: 3,
    };
    let page = store.list_requisitions(&query).await.expect("lists");
    let ids: Vec<ExternalId> = page.iter().map(|(name, _)| name.requisition).collect();
    assert_eq!(ids, [id(5), id(7), id(9)]);
    assert_eq!(page[0].1, load(store, 2).await);
    let states = States::of_requisitions(&[RequisitionState::Fulfilled]);
    let fulfilled = store.list_requisitions(&RequisitionQuery { states, ..query }).await.expect("lists");
    assert_eq!(fulfilled.len(), 1);
}

async fn change_log(store: &dyn Store) {
    let mut latest = store.latest_change();
    let all = store.changes(&Audience::Duchy(duchy("worker1")), 0, 100).await.expect("reads");
    let order: Vec<&ComputationName> = all.iter().map(|change| &change.computation).collect();
    let expected = [2, 3, 4, 1].map(|number| measurement(number).computation);
    assert_eq!(order, expected.iter().collect::<Vec<_>>(), "each once, at its latest change");
    assert!(all.is_sorted_by_key(|change| change.sequence));
    let last = all.last().expect("there are four").sequence;
    assert_eq!(*latest.borrow_and_update(), last);
    assert!(store.changes(&Audience::Duchy(duchy("worker1")), last, 100).await.expect("reads").is_empty());
    assert!(store.changes(&Audience::Duchy(duchy("stranger")), 0, 100).await.expect("reads").is_empty());
    let publisher = Audience::DataProvider(publisher(0));
    assert_eq!(store.changes(&publisher, 0, 2).await.expect("reads"), all[..2]);
    let before = load(store, 2).await;
    store.commit(&before, &Transition::default(), at(60), &[]).await.expect("writes");
    assert!(latest.has_changed().expect("the store is there"), "a commit is announced");
    let next = store.changes(&publisher, last, 100).await.expect("reads");
    assert_eq!(next.iter().map(|change| &change.computation).collect::<Vec<_>>(), [&before.computation]);
    assert_eq!(*latest.borrow_and_update(), next[0].sequence);
}

async fn deadlines_and_revocation(store: &dyn Store) {
    // Number 1 has ended.
    assert_eq!(store.next_deadline().await.expect("reads"), Some(at(1002)));
    let overdue = store.overdue(at(1003)).await.expect("reads");
    assert_eq!(overdue, [measurement(2).computation, measurement(3).computation]);
    let pending = store.pending_with(&consumer_certificate()).await.expect("reads");
    assert_eq!(pending.len(), 3);
    let before = load(store, 3).await;
    let certificate = CertificateName::new(publisher(0), id(102));
    let result = DirectResult { certificate: certificate.clone(), ciphertext: vec![6] };
    let change = RequisitionChange {
        name: before.requisitions[0].name.clone(),
        state: RequisitionState::Fulfilled,
        fulfilment: Some(Fulfilment { nonce: 1, delivery: Delivery::Result(result), context: None }),
        refusal: None,
    };
    let transition = Transition { requisitions: vec![change], ..Transition::default() };
    store.commit(&before, &transition, at(65), &[]).await.expect("writes");
    assert_eq!(store.pending_with(&certificate).await.expect("reads"), [before.computation], "it signs a result");
    let unused = CertificateName::new(consumer(), id(201));
    assert!(store.pending_with(&unused).await.expect("reads").is_empty());
    let revoked = CertificateName::new(consumer(), id(200));
    let refused = store.commit(&load(store, 2).await, &Transition::default(), at(70), &[revoked]).await;
    assert!(matches!(refused, Err(StoreError::CertificateUnusable(_))), "{refused:?}");
}

async fn event_groups(store: &dyn Store) {
    let group = |data_provider: u64, number: u64| EventGroupRecord {
        name: EventGroupName::new(publisher(data_provider).data_provider, id(number)),
        consumer: consumer(),
        body: vec![1, 2, 3],
    };
    for (data_provider, number) in [(1, 1), (0, 2), (0, 1)] {
        let created = store.create_event_group(&group(data_provider, number), None).await.expect("creates");
        assert_eq!(created, group(data_provider, number));
    }
    let first = store.create_event_group(&group(1, 5), Some("r")).await.expect("creates");
    let again = store.create_event_group(&group(1, 6), Some("r")).await.expect("creates");
    assert_eq!(first, again, "a request creates once");
    assert_eq!(store.event_group(&group(0, 2).name).await.expect("reads"), Some(group(0, 2)));
    let consumer = consumer();
    let page = store.event_groups(None, Some(&consumer), None, 3).await.expect("lists");
    assert_eq!(page, [group(0, 1), group(0, 2), group(1, 1)]);
    let rest = store.event_groups(None, Some(&consumer), Some(&page[2].name), 3).await.expect("lists");
    assert_eq!(rest, [group(1, 5)]);
    assert_eq!(store.event_groups(Some(&publisher(0)), None, None, 9).await.expect("lists").len(), 2);
}
