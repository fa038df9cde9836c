//! What the Duchies tell of their parts.

use std::time::Duration;

use halo_core::pb::{
    api::{self, measurement::State},
    halo::ListTimelineEntriesRequest,
    system::{self, computation::State as ComputationState},
};
use tonic::Code;

use crate::{
    scene::Scene,
    world::{CONSUMER, DUCHIES, KeyShareRequest, OTHER_CONSUMER, PUBLISHERS, assert_refused, reason},
};

#[tokio::test]
async fn key_shares_are_verified_at_the_door() {
    let scene = Scene::new().await;
    let duchy = DUCHIES[1];
    let own = scene.world.party(duchy);
    let good = scene.world.key_share(duchy, &scene.computation);
    let set = |request: system::SetParticipantRequisitionParamsRequest| {
        let mut client = scene.caller(duchy).participants();
        async move { client.set_participant_requisition_params(request).await }
    };
    for (what, change) in [
        ("proof", (|share| share.key.proof_of_possession[40] ^= 1) as fn(&mut KeyShareRequest)),
        ("no proof", |share| share.key.proof_of_possession.clear()),
        ("identity", |share| share.key.element = vec![0; 32]),
        ("no element", |share| share.key.element = vec![255; 32]),
        ("generator", |share| share.key.generator[0] ^= 1),
        ("curve", |share| share.key.elliptic_curve_id = 415),
    ] {
        let mut share = good.clone();
        change(&mut share);
        let status = assert_refused(set(share.signed(own)).await, Code::InvalidArgument, "INVALID_FIELD_VALUE");
        assert_eq!(reason(&status).1, duchy, "{what}: the culprit is named");
        assert!(status.message().contains("worker1"), "{}", status.message());
    }
    // A share that was proven in another session: one of another measurement.
    let other = scene.world.request(&scene.world.spec());
    scene.consumer().measurements().create_measurement(other).await.unwrap();
    let foreign = system::Computation { measurement_spec: vec![1], ..scene.computation.clone() };
    let replayed = scene.world.key_share(duchy, &foreign).signed(own);
    let status = assert_refused(set(replayed).await, Code::InvalidArgument, "INVALID_FIELD_VALUE");
    assert_eq!(reason(&status).1, duchy);
    // Signed by another Duchy; with the certificate of another Duchy; in the name of another Duchy.
    let forged = good.signed(scene.world.party(DUCHIES[2]));
    assert_refused(set(forged).await, Code::InvalidArgument, "INVALID_FIELD_VALUE");
    let mut borrowed = good.clone();
    borrowed.certificate = scene.world.party(DUCHIES[2]).certificate_name();
    assert_refused(set(borrowed.signed(own)).await, Code::InvalidArgument, "INVALID_FIELD_VALUE");
    let mut named = good.clone();
    named.name = scene.participant(DUCHIES[2]);
    assert_refused(set(named.signed(own)).await, Code::PermissionDenied, "PERMISSION_DENIED");
    let blamed = scene.consumer().timeline(&scene.measurement.name).await;
    assert!(blamed.iter().any(|(_, what)| what.contains("refused the key of duchies/worker1")), "{blamed:?}");

    assert_eq!(scene.state().await, ComputationState::PendingRequisitionParams, "and nothing is lost");
    let request = good.signed(own);
    let first = set(request.clone()).await.unwrap().into_inner();
    assert_eq!(set(request).await.unwrap().into_inner(), first, "a repetition changes nothing");
    let second = scene.world.key_share(duchy, &scene.computation).signed(own);
    assert_refused(set(second).await, Code::FailedPrecondition, "INVALID_FIELD_VALUE");
}

#[tokio::test]
async fn fulfilments_are_checked_and_repeatable() {
    let scene = Scene::new().await;
    scene.set_keys().await;
    let (duchy, good) = scene.fulfilment(0).await;
    let fulfill = |duchy: &str, request: system::FulfillRequisitionRequest| {
        let mut client = scene.caller(duchy).system_requisitions();
        async move { client.fulfill_requisition(request).await }
    };
    let changed = |change: fn(&mut system::FulfillRequisitionRequest)| {
        let mut request = good.clone();
        change(&mut request);
        request
    };
    let invalid = (Code::InvalidArgument, "INVALID_FIELD_VALUE");
    for (request, (code, expected)) in [
        (changed(|request| request.nonce += 1), invalid),
        (changed(|request| request.nonce = 0), (Code::InvalidArgument, "REQUIRED_FIELD_NOT_SET")),
        (changed(|request| request.body_sha256.truncate(5)), invalid),
        (changed(|request| request.record_count = -1), invalid),
        (changed(|request| request.etag = "W/\"1\"".into()), (Code::Aborted, "REQUISITION_ETAG_MISMATCH")),
    ] {
        assert_refused(fulfill(&duchy, request).await, code, expected);
    }
    let other = DUCHIES.into_iter().find(|other| *other != duchy).unwrap();
    assert_refused(fulfill(other, good.clone()).await, Code::PermissionDenied, "PERMISSION_DENIED");
    let outcome = fulfill(PUBLISHERS[0], good.clone()).await;
    assert_refused(outcome, Code::PermissionDenied, "PERMISSION_DENIED");

    let first = fulfill(&duchy, good.clone()).await.unwrap().into_inner();
    assert_eq!(fulfill(&duchy, good.clone()).await.unwrap().into_inner(), first);
    let digest = changed(|request| request.body_sha256[0] ^= 1);
    assert_refused(fulfill(&duchy, digest).await, Code::FailedPrecondition, "INVALID_FIELD_VALUE");
    assert_eq!(scene.state().await, ComputationState::PendingRequisitionFulfillment);
}

#[tokio::test]
async fn another_list_of_keys_fails_the_measurement() {
    let scene = Scene::new().await;
    scene.set_keys().await;
    scene.fulfill_all().await;
    let request = system::ConfirmComputationParticipantRequest {
        name: scene.participant(DUCHIES[2]),
        key_list_hash: vec![0; 32],
        ..Default::default()
    };
    let outcome = scene.caller(DUCHIES[2]).participants().confirm_computation_participant(request).await;
    let status = assert_refused(outcome, Code::FailedPrecondition, "INVALID_FIELD_VALUE");
    assert_eq!(reason(&status).1, DUCHIES[2]);
    let measurement = scene.consumer().get(&scene.measurement.name).await;
    assert_eq!(measurement.state(), State::Failed);
    assert_eq!(measurement.failure.unwrap().culprits, [DUCHIES[2]]);
}

#[tokio::test]
async fn data_under_another_list_of_keys_fails_the_measurement() {
    let scene = Scene::new().await;
    scene.set_keys().await;
    let (duchy, mut request) = scene.fulfilment(0).await;
    request.key_list_hash[0] ^= 1;
    let outcome = scene.caller(&duchy).system_requisitions().fulfill_requisition(request).await;
    let status = assert_refused(outcome, Code::FailedPrecondition, "INVALID_FIELD_VALUE");
    assert_eq!(reason(&status).1, duchy);
    let measurement = scene.consumer().get(&scene.measurement.name).await;
    assert_eq!(measurement.state(), State::Failed);
    assert_eq!(measurement.failure.unwrap().culprits, [PUBLISHERS[0], &duchy]);
}

#[tokio::test]
async fn a_failed_duchy_ends_the_measurement_with_its_reasons() {
    let scene = Scene::new().await;
    let fail = |culprit: &str| system::FailComputationParticipantRequest {
        name: scene.participant(DUCHIES[1]),
        failure: Some(system::computation_participant::Failure {
            error_message: "a register is no group element".into(),
            culprits: vec![culprit.into()],
            ..Default::default()
        }),
        etag: String::new(),
    };
    let mut duchy = scene.caller(DUCHIES[1]).participants();
    // Well-formed names of others are refused, too: who has no part in it cannot have caused it.
    for nobody in ["somebody", "duchies/worker9", "dataProviders/AAAAAAAAAAk", OTHER_CONSUMER, CONSUMER] {
        let outcome = duchy.fail_computation_participant(fail(nobody)).await;
        assert_refused(outcome, Code::InvalidArgument, "INVALID_FIELD_VALUE");
    }
    let mut twice = fail(PUBLISHERS[0]);
    twice.failure.as_mut().unwrap().culprits.push(PUBLISHERS[0].into());
    let failed = duchy.fail_computation_participant(twice).await.unwrap().into_inner();
    assert_eq!(failed.state(), system::computation_participant::State::Failed);
    assert_eq!(duchy.fail_computation_participant(fail(PUBLISHERS[0])).await.unwrap().into_inner(), failed);
    let failure = scene.consumer().get(&scene.measurement.name).await.failure.unwrap();
    assert_eq!(failure.culprits, [PUBLISHERS[0]]);
    assert!(failure.message.contains("worker1") && failure.message.contains("no group element"));
    let permanent = system::CreateComputationLogEntryRequest {
        parent: scene.participant(DUCHIES[1]),
        computation_log_entry: Some(system::ComputationLogEntry {
            error_details: Some(system::computation_log_entry::ErrorDetails { r#type: 2, error_time: None }),
            ..Default::default()
        }),
    };
    let outcome = scene.caller(DUCHIES[1]).log_entries().create_computation_log_entry(permanent).await;
    assert_refused(outcome, Code::InvalidArgument, "INVALID_FIELD_VALUE");
}

#[tokio::test]
async fn a_timeline_is_bounded_and_read_in_pages() {
    let scene = Scene::new().await;
    let report = |message: &str, transient: bool| system::CreateComputationLogEntryRequest {
        parent: scene.participant(DUCHIES[1]),
        computation_log_entry: Some(system::ComputationLogEntry {
            log_message: message.into(),
            error_details: transient
                .then_some(system::computation_log_entry::ErrorDetails { r#type: 1, error_time: None }),
            stage_attempt: Some(system::StageAttempt { stage_name: "SETUP_PHASE".into(), ..Default::default() }),
            ..Default::default()
        }),
    };
    let mut duchy = scene.caller(DUCHIES[1]).log_entries();
    let mut long = report("", false);
    let stage = long.computation_log_entry.as_mut().unwrap().stage_attempt.as_mut().unwrap();
    stage.stage_name = "x".repeat(257);
    let outcome = duchy.create_computation_log_entry(long).await;
    assert_refused(outcome, Code::InvalidArgument, "INVALID_FIELD_VALUE");
    for number in 0..500 {
        let error = report(&format!("error {number}"), true);
        duchy.create_computation_log_entry(error).await.unwrap();
    }
    let outcome = duchy.create_computation_log_entry(report("one too many", true)).await;
    let status = assert_refused(outcome, Code::FailedPrecondition, "UNKNOWN_ERROR");
    assert!(status.message().contains("as it takes"), "{}", status.message());
    duchy.create_computation_log_entry(report("finished SETUP_PHASE", false)).await.unwrap();

    let name = scene.measurement.name.clone();
    let lines: Vec<String> = scene.consumer().timeline(&name).await.into_iter().map(|(_, what)| what).collect();
    assert_eq!((lines.len(), lines[2].as_str(), lines[502].as_str()), (503, "error 0", "finished SETUP_PHASE"));
    let mut request = ListTimelineEntriesRequest { measurement: name.clone(), page_size: 200, ..Default::default() };
    let mut read = Vec::new();
    let mut sizes = Vec::new();
    loop {
        let page = scene.consumer().watch().list_timeline_entries(request.clone()).await.unwrap().into_inner();
        sizes.push(page.entries.len());
        read.extend(page.entries.into_iter().map(|entry| entry.message));
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            break;
        }
    }
    assert_eq!((sizes, read), (vec![200, 200, 103], lines));

    // After the end, what had been finished is still reported for a while.
    let cancel = api::CancelMeasurementRequest { name };
    scene.consumer().measurements().cancel_measurement(cancel).await.unwrap();
    let outcome = duchy.create_computation_log_entry(report("still trying", true)).await;
    assert_refused(outcome, Code::FailedPrecondition, "MEASUREMENT_STATE_ILLEGAL");
    duchy.create_computation_log_entry(report("finished CLEANUP", false)).await.unwrap();
    scene.clock.advance(Duration::from_secs(60 * 60));
    let outcome = duchy.create_computation_log_entry(report("finished much later", false)).await;
    assert_refused(outcome, Code::FailedPrecondition, "MEASUREMENT_STATE_ILLEGAL");
}
