//! A measurement from its creation to its end.

use halo_core::{
    pb::{
        api::{self, measurement::State},
        halo::{ListTimelineEntriesRequest, WatchMeasurementRequest, WatchRequisitionsRequest},
        system::{self, computation::State as ComputationState},
    },
    wire::{self, type_name},
};
use halo_kingdom::server::{stored_measurements, stored_result};
use prost::Message;
use std::time::Duration;
use tonic::Code;

use crate::{
    scene::Scene,
    world::{CONSUMER, DUCHIES, NONCES, PUBLISHERS, assert_refused, reason},
};

#[tokio::test]
async fn the_way_to_a_result() {
    let scene = Scene::new().await;
    let name = scene.measurement.name.clone();
    assert_eq!(scene.measurement.state(), State::AwaitingRequisitionFulfillment);
    assert_eq!(scene.measurement.measurement_reference_id, "spring");
    let config = scene.measurement.protocol_config.as_ref().unwrap();
    assert_eq!(config.measurement_type(), api::protocol_config::MeasurementType::ReachAndFrequency);
    assert_eq!(config.encode_to_vec(), scene.computation.serialized_protocol_config);
    assert_eq!(scene.computation.measurement_consumer_certificate_der, scene.world.consumer().certificate.der());
    assert_eq!(scene.computation.aggregator, "aggregator");

    let request = WatchRequisitionsRequest { parent: PUBLISHERS[0].into(), ..Default::default() };
    let mut open = scene.caller(PUBLISHERS[0]).watch().watch_requisitions(request).await.unwrap().into_inner();
    let request = WatchMeasurementRequest { name: name.clone() };
    let mut progress = scene.consumer().watch().watch_measurement(request).await.unwrap().into_inner();
    let first = progress.message().await.unwrap().unwrap().measurement.unwrap();
    assert_eq!(first, scene.measurement);

    scene.set_keys().await;
    let delivered = open.message().await.unwrap().unwrap().requisition.unwrap();
    assert_eq!(delivered.state(), api::requisition::State::Unfulfilled);
    assert_eq!(delivered.duchies.len(), 3);
    assert_eq!(delivered.serialized_protocol_config, scene.computation.serialized_protocol_config);
    assert_eq!(delivered.measurement_spec, scene.measurement.measurement_spec, "what is signed is passed on as it is");
    assert!(delivered.deadline.is_some());
    let list = api::ListRequisitionsRequest { parent: PUBLISHERS[0].into(), ..Default::default() };
    let listed = scene.caller(PUBLISHERS[0]).requisitions().list_requisitions(list).await.unwrap().into_inner();
    assert_eq!(listed.requisitions, std::slice::from_ref(&delivered));
    let list = api::ListRequisitionsRequest { parent: name.clone(), page_size: 1, ..Default::default() };
    let page = scene.consumer().requisitions().list_requisitions(list.clone()).await.unwrap().into_inner();
    assert!(page.requisitions.len() == 1 && !page.next_page_token.is_empty());
    let list = api::ListRequisitionsRequest { page_token: page.next_page_token, ..list };
    let rest = scene.consumer().requisitions().list_requisitions(list).await.unwrap().into_inner();
    assert!(rest.requisitions.len() == 1 && rest.next_page_token.is_empty());
    assert_ne!(rest.requisitions[0].name, page.requisitions[0].name);

    scene.fulfill_all().await;
    let fulfilled = open.message().await.unwrap().unwrap().requisition.unwrap();
    assert_eq!((fulfilled.state(), fulfilled.nonce), (api::requisition::State::Fulfilled, NONCES[0]));
    assert_eq!(scene.state().await, ComputationState::PendingParticipantConfirmation);
    scene.confirm_all().await;
    assert_eq!(scene.state().await, ComputationState::PendingComputation);

    let report = system::CreateComputationLogEntryRequest {
        parent: scene.participant(DUCHIES[2]),
        computation_log_entry: Some(system::ComputationLogEntry {
            log_message: "setup is done".into(),
            stage_attempt: Some(system::StageAttempt {
                stage_name: "SETUP_PHASE".into(),
                cpu_seconds: 1.5,
                records_in: 11,
                records_out: 12,
                bytes_out: 13,
                peak_resident_bytes: 14,
                ..Default::default()
            }),
            ..Default::default()
        }),
    };
    scene.caller(DUCHIES[2]).log_entries().create_computation_log_entry(report).await.unwrap();
    let result = scene.result(DUCHIES[0]);
    let mut aggregator = scene.caller(DUCHIES[0]).computations();
    let done = aggregator.set_computation_result(result.clone()).await.unwrap().into_inner();
    assert_eq!(done.state(), ComputationState::Succeeded);

    let mut last = None;
    while let Some(message) = progress.message().await.unwrap() {
        last = message.measurement;
    }
    let last = last.unwrap();
    assert_eq!((last.state(), last.results.len()), (State::Succeeded, 1));
    let encrypted = last.results[0].encrypted_result.as_ref().unwrap();
    let signed = scene.world.consumer().keyset.decrypt(&encrypted.ciphertext, b"").unwrap();
    let signed = api::SignedMessage::decode(signed.expose().as_slice()).unwrap();
    let bytes = wire::signed_bytes("result", Some(&signed), type_name::MEASUREMENT_RESULT).unwrap();
    let aggregator = &scene.world.party(DUCHIES[0]).certificate;
    aggregator.verify_signature(bytes, &signed.signature_algorithm_oid, &signed.signature).unwrap();
    assert_eq!(api::measurement::Result::decode(bytes).unwrap().reach.unwrap().value, 42);
    let timeline: Vec<String> = scene.consumer().timeline(&name).await.into_iter().map(|(_, what)| what).collect();
    for told in [
        "created the measurement",
        "planned llv2: ",
        "gave its key",
        "delivered",
        "confirmed",
        "setup is done",
        "handed in",
    ] {
        assert!(timeline.iter().any(|line| line.contains(told)), "{told}: {timeline:?}");
    }

    // Who counts what a publisher sent, before noise is added to it, keeps that from the consumer.
    assert!(!timeline.iter().any(|line| line.contains("records")), "numbers of records: {timeline:?}");
    let request = ListTimelineEntriesRequest { measurement: name.clone(), ..Default::default() };
    let entries = scene.consumer().watch().list_timeline_entries(request).await.unwrap().into_inner().entries;
    let stage = entries.into_iter().find_map(|entry| entry.stage_attempt).unwrap();
    let shown = system::StageAttempt { stage_name: "SETUP_PHASE".into(), cpu_seconds: 1.5, ..Default::default() };
    assert_eq!(stage, shown);

    // While the Kingdom runs, and after it has stopped, and after it has started again: the same.
    let state_dir = scene.world.directory.path().join("state");
    let parsed = name.parse().unwrap();
    let stored = stored_result(&state_dir, &parsed).await.unwrap();
    assert_eq!(stored.encrypted_result, encrypted.ciphertext);
    assert_eq!(stored.certificate_der, aggregator.der());
    assert_eq!(stored.measurement_spec, scene.computation.measurement_spec);
    let Scene { world, running, callers, .. } = scene;
    drop((callers, open, progress));
    running.stop().await;
    assert_eq!(stored_result(&state_dir, &parsed).await.unwrap(), stored);
    let all = stored_measurements(&state_dir).await.unwrap();
    assert_eq!(all.iter().map(|one| one.name.to_string()).collect::<Vec<_>>(), std::slice::from_ref(&name));
    let running = world.start().await;
    let consumer = world.connect(&running.endpoint, CONSUMER).await;
    assert_eq!(consumer.get(&name).await, last);
    running.stop().await;
}

#[tokio::test]
async fn a_late_result_does_not_revive_a_cancelled_measurement() {
    let scene = Scene::new().await;
    scene.compute().await;
    let cancel = api::CancelMeasurementRequest { name: scene.measurement.name.clone() };
    scene.consumer().measurements().cancel_measurement(cancel).await.unwrap();
    let outcome = scene.caller(DUCHIES[0]).computations().set_computation_result(scene.result(DUCHIES[0])).await;
    assert_refused(outcome, Code::FailedPrecondition, "MEASUREMENT_STATE_ILLEGAL");
    assert_eq!(scene.consumer().get(&scene.measurement.name).await.state(), State::Cancelled);
    let outcome =
        stored_result(&scene.world.directory.path().join("state"), &scene.measurement.name.parse().unwrap()).await;
    assert!(outcome.unwrap_err().to_string().contains("CANCELLED"));
}

#[tokio::test]
async fn a_computation_that_does_not_end_names_those_who_have_finished_the_fewest_stages() {
    let scene = Scene::new().await;
    scene.compute().await;
    let request = WatchMeasurementRequest { name: scene.measurement.name.clone() };
    let mut progress = scene.consumer().watch().watch_measurement(request).await.unwrap().into_inner();
    // A stage that is finished twice, after a restart, counts once, and errors do not count.
    for (duchy, stage, transient) in [
        (DUCHIES[0], "SETUP_PHASE", false),
        (DUCHIES[1], "SETUP_PHASE", false),
        (DUCHIES[1], "SETUP_PHASE", false),
        (DUCHIES[1], "EXECUTION_PHASE_ONE", true),
        (DUCHIES[2], "SETUP_PHASE", false),
        (DUCHIES[2], "EXECUTION_PHASE_ONE", false),
    ] {
        let report = system::CreateComputationLogEntryRequest {
            parent: scene.participant(duchy),
            computation_log_entry: Some(system::ComputationLogEntry {
                stage_attempt: Some(system::StageAttempt { stage_name: stage.into(), ..Default::default() }),
                error_details: transient
                    .then_some(system::computation_log_entry::ErrorDetails { r#type: 1, error_time: None }),
                ..Default::default()
            }),
        };
        scene.caller(duchy).log_entries().create_computation_log_entry(report).await.unwrap();
    }
    scene.clock.advance(Duration::from_secs(7 * 24 * 60 * 60));
    // The clock was set behind the back of the task that sleeps until the deadline; any change wakes it.
    let request = scene.world.request(&scene.world.spec());
    scene.consumer().measurements().create_measurement(request).await.unwrap();
    let mut last = None;
    while let Some(message) = progress.message().await.unwrap() {
        last = message.measurement;
    }
    let failure = last.unwrap().failure.unwrap();
    assert_eq!(failure.culprits, [DUCHIES[0], DUCHIES[1]]);
    assert!(failure.message.contains("the computation did not end"), "{}", failure.message);
}

#[tokio::test]
async fn the_deadline_cancels_and_names_who_owes() {
    let scene = Scene::new().await;
    let request = WatchMeasurementRequest { name: scene.measurement.name.clone() };
    let mut progress = scene.consumer().watch().watch_measurement(request).await.unwrap().into_inner();
    scene.set_keys().await;
    let (duchy, request) = scene.fulfilment(0).await;
    scene.caller(&duchy).system_requisitions().fulfill_requisition(request).await.unwrap();
    scene.clock.advance(Duration::from_secs(7 * 24 * 60 * 60));
    let (late, request) = scene.fulfilment(1).await;
    let outcome = scene.caller(&late).system_requisitions().fulfill_requisition(request).await;
    let status = outcome.expect_err("the deadline has passed");
    // Whether or not the measurement has been cancelled by then.
    assert_eq!(status.code(), Code::FailedPrecondition, "{}", status.message());
    let why = reason(&status).0;
    assert!(["MEASUREMENT_STATE_ILLEGAL", "REQUISITION_STATE_ILLEGAL"].contains(&why.as_str()), "{why}");
    // The clock was set behind the back of the task that sleeps until the deadline; any change wakes it.
    let request = scene.world.request(&scene.world.spec());
    scene.consumer().measurements().create_measurement(request).await.unwrap();
    let mut last = None;
    while let Some(message) = progress.message().await.unwrap() {
        last = message.measurement;
    }
    let last = last.unwrap();
    assert_eq!(last.state(), State::Cancelled);
    let failure = last.failure.unwrap();
    assert_eq!(failure.culprits, [PUBLISHERS[1]]);
    assert!(failure.message.contains("data is missing from"), "{}", failure.message);
    let list = api::ListRequisitionsRequest { parent: PUBLISHERS[1].into(), ..Default::default() };
    let listed = scene.caller(PUBLISHERS[1]).requisitions().list_requisitions(list).await.unwrap().into_inner();
    assert_eq!(listed.requisitions[0].state(), api::requisition::State::Withdrawn);
    let (duchy, request) = scene.fulfilment(1).await;
    let outcome = scene.caller(&duchy).system_requisitions().fulfill_requisition(request).await;
    assert_refused(outcome, Code::FailedPrecondition, "REQUISITION_STATE_ILLEGAL");
}
