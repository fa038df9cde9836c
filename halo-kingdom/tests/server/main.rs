//! The Kingdom over real mutual TLS: consumer, publishers and Duchies by hand-made clients with real keys.
#![cfg(feature = "server")]
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

mod world;

use std::{
    process::{Command, Stdio},
    time::Duration,
};

use halo_core::{
    pb::{
        api::{self, measurement::State, measurement_spec::MeasurementType},
        halo::{WatchMeasurementRequest, WatchRequisitionsRequest},
        system::{self, computation::State as ComputationState},
    },
    transport::TransportError,
    wire::{self, type_name},
};
use halo_kingdom::server::{stored_measurements, stored_result};
use prost::Message;
use tonic::Code;
use world::{CONSUMER, DUCHIES, NONCES, PUBLISHERS, Scene, World, assert_refused, reason};

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
            stage_attempt: Some(system::StageAttempt { stage_name: "SETUP_PHASE".into(), ..Default::default() }),
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
    for told in
        ["created the measurement", "gave its key share", "delivered", "confirmed", "setup is done", "handed in"]
    {
        assert!(timeline.iter().any(|line| line.contains(told)), "{told}: {timeline:?}");
    }

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
async fn a_stream_goes_on_where_it_was_left() {
    let scene = Scene::new().await;
    let mut duchy = scene.caller(DUCHIES[2]).computations();
    let empty = system::StreamActiveComputationsRequest::default();
    let mut stream = duchy.stream_active_computations(empty).await.unwrap().into_inner();
    let first = stream.message().await.unwrap().unwrap();
    drop(stream);
    scene.set_keys().await;
    let again = system::StreamActiveComputationsRequest { continuation_token: first.continuation_token.clone() };
    let mut stream = duchy.stream_active_computations(again).await.unwrap().into_inner();
    let next = stream.message().await.unwrap().unwrap();
    assert_eq!(next.computation.unwrap().state(), ComputationState::PendingRequisitionFulfillment);
    assert_ne!(next.continuation_token, first.continuation_token);
    let quiet = tokio::time::timeout(Duration::from_millis(200), stream.message()).await;
    assert!(quiet.is_err(), "nothing is sent that did not change: {quiet:?}");
    for token in ["nonsense", "AAAAAAAAAAA", "f_________8"] {
        let request = system::StreamActiveComputationsRequest { continuation_token: token.into() };
        let outcome = duchy.stream_active_computations(request).await.map(drop);
        if token == "AAAAAAAAAAA" {
            outcome.unwrap();
        } else {
            assert_refused(outcome, Code::InvalidArgument, "INVALID_FIELD_VALUE");
        }
    }
    let request = system::StreamActiveComputationsRequest::default();
    let outcome = scene.consumer().computations().stream_active_computations(request).await.map(drop);
    assert_refused(outcome, Code::PermissionDenied, "PERMISSION_DENIED");
}

#[tokio::test]
async fn measurements_that_cannot_be_trusted_are_not_created() {
    let world = World::new();
    let running = world.start().await;
    let consumer = world.connect(&running.endpoint, CONSUMER).await;
    let spec = world.spec();
    let good = world.request(&spec);
    let signed = |change: &dyn Fn(&mut api::MeasurementSpec)| {
        let mut changed = spec.clone();
        change(&mut changed);
        world.request(&changed)
    };
    let altered = |change: &dyn Fn(&mut api::Measurement)| {
        let mut request = good.clone();
        change(request.measurement.as_mut().unwrap());
        request
    };
    let publisher = |change: &dyn Fn(&mut api::measurement::data_provider_entry::Value)| {
        altered(&|measurement| change(measurement.data_providers[0].value.as_mut().unwrap()))
    };
    let invalid = (Code::InvalidArgument, "INVALID_FIELD_VALUE");
    for (what, request, (code, expected)) in [
        (
            "a signature of somebody else",
            altered(&|m| {
                let other = world.party("measurementConsumers/AAAAAAAAAAQ");
                m.measurement_spec = Some(other.sign(type_name::MEASUREMENT_SPEC, spec.encode_to_vec()));
            }),
            invalid,
        ),
        (
            "an altered specification",
            altered(&|m| m.measurement_spec.as_mut().unwrap().message.as_mut().unwrap().value.push(0)),
            invalid,
        ),
        ("no signature", altered(&|m| m.measurement_spec.as_mut().unwrap().signature.clear()), invalid),
        (
            "a certificate of another consumer",
            altered(&|m| {
                m.measurement_consumer_certificate = "measurementConsumers/AAAAAAAAAAQ/certificates/AAAAAAAAAAY".into();
            }),
            invalid,
        ),
        (
            "a certificate that does not exist",
            altered(&|m| m.measurement_consumer_certificate = format!("{CONSUMER}/certificates/AAAAAAAAAAc")),
            (Code::FailedPrecondition, "CERTIFICATE_NOT_FOUND"),
        ),
        ("too few nonce hashes", signed(&|s| s.nonce_hashes.truncate(1)), invalid),
        ("one nonce hash twice", signed(&|s| s.nonce_hashes[0] = s.nonce_hashes[1].clone()), invalid),
        ("a short nonce hash", signed(&|s| s.nonce_hashes[0].truncate(31)), invalid),
        ("another nonce hash", publisher(&|value| value.nonce_hash = vec![1; 32]), invalid),
        (
            "no nonce hash",
            publisher(&|value| value.nonce_hash.clear()),
            (Code::InvalidArgument, "REQUIRED_FIELD_NOT_SET"),
        ),
        (
            "another key of the publisher",
            publisher(&|value| {
                let key = world.party(PUBLISHERS[1]).public_key();
                value.data_provider_public_key = Some(wire::pack(type_name::ENCRYPTION_PUBLIC_KEY, key));
            }),
            (Code::FailedPrecondition, "INVALID_FIELD_VALUE"),
        ),
        (
            "a publisher's certificate of another publisher",
            publisher(&|value| value.data_provider_certificate = world.party(PUBLISHERS[1]).certificate_name()),
            invalid,
        ),
        (
            "a requisition of another type",
            publisher(&|value| value.encrypted_requisition_spec.as_mut().unwrap().type_url.push('s')),
            invalid,
        ),
        (
            "an unknown publisher",
            altered(&|m| m.data_providers[0].key = "dataProviders/AAAAAAAAAAk".into()),
            (Code::FailedPrecondition, "DATA_PROVIDER_NOT_FOUND"),
        ),
        ("one publisher twice", altered(&|m| m.data_providers[1] = m.data_providers[0].clone()), invalid),
        (
            "a deadline in the past",
            altered(&|m| m.deadline = Some(prost_types::Timestamp { seconds: 1, nanos: 0 })),
            invalid,
        ),
        (
            "impressions",
            signed(&|s| s.measurement_type = Some(MeasurementType::Impression(Default::default()))),
            invalid,
        ),
        ("no type", signed(&|s| s.measurement_type = None), invalid),
        ("an interval that wraps", signed(&|s| s.vid_sampling_interval.as_mut().unwrap().start = 0.5), invalid),
        ("no key for the result", signed(&|s| s.measurement_public_key = None), invalid),
        (
            "another consumer's measurement",
            api::CreateMeasurementRequest { parent: "measurementConsumers/AAAAAAAAAAQ".into(), ..good.clone() },
            (Code::PermissionDenied, "PERMISSION_DENIED"),
        ),
        (
            "another's specification replayed",
            altered(&|m| {
                m.measurement_spec = Some(world.consumer().sign(type_name::REQUISITION_SPEC, spec.encode_to_vec()));
            }),
            invalid,
        ),
    ] {
        let outcome = consumer.measurements().create_measurement(request).await;
        let status = outcome.expect_err(what);
        assert_eq!((status.code(), reason(&status).0.as_str()), (code, expected), "{what}: {}", status.message());
    }
    let publisher = world.connect(&running.endpoint, PUBLISHERS[0]).await;
    let outcome = publisher.measurements().create_measurement(good).await;
    assert_refused(outcome, Code::PermissionDenied, "PERMISSION_DENIED");
    let list = api::ListMeasurementsRequest { parent: CONSUMER.into(), ..Default::default() };
    let listed = consumer.measurements().list_measurements(list).await.unwrap().into_inner();
    assert!(listed.measurements.is_empty(), "nothing of this was stored");
    running.stop().await;
}

#[tokio::test]
async fn creation_is_idempotent_and_lists_have_pages() {
    let world = World::new();
    let running = world.start().await;
    let consumer = world.connect(&running.endpoint, CONSUMER).await;
    let request = api::CreateMeasurementRequest { request_id: "one".into(), ..world.request(&world.spec()) };
    let first = consumer.measurements().create_measurement(request.clone()).await.unwrap().into_inner();
    let again = consumer.measurements().create_measurement(request.clone()).await.unwrap().into_inner();
    assert_eq!(first, again);
    let (left, right) =
        tokio::join!(async { consumer.measurements().create_measurement(with_id(&request, "two")).await }, async {
            consumer.measurements().create_measurement(with_id(&request, "two")).await
        },);
    assert_eq!(left.unwrap().into_inner().name, right.unwrap().into_inner().name, "at the same moment, too");
    let batch = api::BatchCreateMeasurementsRequest {
        parent: CONSUMER.into(),
        requests: vec![with_id(&request, "one"), with_id(&request, "three"), with_id(&request, "four")],
    };
    let batch = consumer.measurements().batch_create_measurements(batch).await.unwrap().into_inner().measurements;
    assert_eq!(batch[0], first);
    let names: Vec<String> = batch.iter().map(|measurement| measurement.name.clone()).rev().collect();
    let get = api::BatchGetMeasurementsRequest { parent: CONSUMER.into(), names: names.clone() };
    let got = consumer.measurements().batch_get_measurements(get).await.unwrap().into_inner().measurements;
    assert_eq!(got.iter().map(|measurement| measurement.name.clone()).collect::<Vec<_>>(), names);

    let cancel = api::CancelMeasurementRequest { name: first.name.clone() };
    let cancelled = consumer.measurements().cancel_measurement(cancel.clone()).await.unwrap().into_inner();
    assert_eq!(cancelled.state(), State::Cancelled);
    let outcome = consumer.measurements().cancel_measurement(cancel).await;
    assert_refused(outcome, Code::FailedPrecondition, "MEASUREMENT_STATE_ILLEGAL");

    let mut seen = Vec::new();
    let mut list = api::ListMeasurementsRequest { parent: CONSUMER.into(), page_size: 2, ..Default::default() };
    loop {
        let page = consumer.measurements().list_measurements(list.clone()).await.unwrap().into_inner();
        seen.extend(page.measurements.into_iter().map(|measurement| measurement.name));
        list.page_token = page.next_page_token;
        if list.page_token.is_empty() {
            break;
        }
    }
    assert_eq!(seen.len(), 4);
    assert_eq!(seen.last(), Some(&first.name), "the one that changed last is the last");
    let mut states = api::list_measurements_request::Filter::default();
    states.states.push(State::Cancelled.into());
    let list = api::ListMeasurementsRequest { parent: CONSUMER.into(), filter: Some(states), ..Default::default() };
    let found = consumer.measurements().list_measurements(list).await.unwrap().into_inner().measurements;
    assert_eq!(found, [cancelled]);
    running.stop().await;
}

fn with_id(request: &api::CreateMeasurementRequest, id: &str) -> api::CreateMeasurementRequest {
    api::CreateMeasurementRequest { request_id: id.into(), ..request.clone() }
}

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
        ("proof", (|share| share.key.proof_of_possession[40] ^= 1) as fn(&mut world::KeyShareRequest)),
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
    assert!(blamed.iter().any(|(_, what)| what.contains("refused the key share of duchies/worker1")), "{blamed:?}");

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
        (changed(|request| request.key_list_hash[0] ^= 1), (Code::FailedPrecondition, "INVALID_FIELD_VALUE")),
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
async fn a_result_comes_from_the_aggregator_and_while_computing_only() {
    let scene = Scene::new().await;
    let set = |duchy: &str, request: system::SetComputationResultRequest| {
        let mut client = scene.caller(duchy).computations();
        async move { client.set_computation_result(request).await }
    };
    let good = scene.result(DUCHIES[0]);
    let outcome = set(DUCHIES[0], good.clone()).await;
    assert_refused(outcome, Code::FailedPrecondition, "MEASUREMENT_STATE_ILLEGAL");
    scene.compute().await;
    let outcome = set(DUCHIES[1], scene.result(DUCHIES[1])).await;
    assert_refused(outcome, Code::PermissionDenied, "PERMISSION_DENIED");
    let mut borrowed = good.clone();
    borrowed.aggregator_certificate = scene.world.party(DUCHIES[1]).certificate_name();
    assert_refused(set(DUCHIES[0], borrowed).await, Code::InvalidArgument, "INVALID_FIELD_VALUE");
    let mut other_key = good.clone();
    other_key.result_public_key.push(0);
    assert_refused(set(DUCHIES[0], other_key).await, Code::InvalidArgument, "INVALID_FIELD_VALUE");
    let first = set(DUCHIES[0], good.clone()).await.unwrap().into_inner();
    assert_eq!(set(DUCHIES[0], good).await.unwrap().into_inner(), first);
    let outcome = set(DUCHIES[0], scene.result(DUCHIES[0])).await;
    assert_refused(outcome, Code::FailedPrecondition, "INVALID_FIELD_VALUE");
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

#[tokio::test]
async fn a_publisher_can_refuse_its_own_requisition_only() {
    let scene = Scene::new().await;
    let list = api::ListRequisitionsRequest { parent: PUBLISHERS[0].into(), ..Default::default() };
    let mut publisher = scene.caller(PUBLISHERS[0]).requisitions();
    let early = publisher.list_requisitions(list.clone()).await.unwrap().into_inner();
    assert!(early.requisitions.is_empty(), "requisitions are delivered when every key is in");
    scene.set_keys().await;
    let open = publisher.list_requisitions(list).await.unwrap().into_inner().requisitions.remove(0);
    let mut refuse = api::RefuseRequisitionRequest { name: open.name.clone(), etag: open.etag, ..Default::default() };
    let refusal = refuse.refusal.get_or_insert_default();
    refusal.set_justification(api::requisition::refusal::Justification::InsufficientPrivacyBudget);
    refusal.message = "enough for this year".into();
    let outcome = scene.caller(PUBLISHERS[1]).requisitions().refuse_requisition(refuse.clone()).await;
    assert_refused(outcome, Code::PermissionDenied, "PERMISSION_DENIED");
    let stale = api::RefuseRequisitionRequest { etag: "W/\"0\"".into(), ..refuse.clone() };
    assert_refused(publisher.refuse_requisition(stale).await, Code::Aborted, "REQUISITION_ETAG_MISMATCH");
    let refused = publisher.refuse_requisition(refuse).await.unwrap().into_inner();
    assert_eq!(refused.state(), api::requisition::State::Refused);
    let measurement = scene.consumer().get(&scene.measurement.name).await;
    let failure = measurement.failure.clone().unwrap();
    assert_eq!(failure.reason(), api::measurement::failure::Reason::RequisitionRefused);
    assert!(failure.message.contains("enough for this year") && failure.culprits == [PUBLISHERS[0]]);
    let get = api::GetRequisitionRequest { name: open.name };
    let outcome = scene.caller(PUBLISHERS[1]).requisitions().get_requisition(get).await;
    let status = assert_refused(outcome, Code::PermissionDenied, "PERMISSION_DENIED");
    assert!(status.message().ends_with("(or it might not exist)"));
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
    let outcome = duchy.fail_computation_participant(fail("somebody")).await;
    assert_refused(outcome, Code::InvalidArgument, "INVALID_FIELD_VALUE");
    let failed = duchy.fail_computation_participant(fail(PUBLISHERS[0])).await.unwrap().into_inner();
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
async fn a_revoked_certificate_ends_what_relies_on_it() {
    let scene = Scene::new().await;
    scene.set_keys().await;
    let name = scene.world.party(DUCHIES[2]).certificate_name();
    let revoke = api::RevokeCertificateRequest {
        name: name.clone(),
        revocation_state: api::certificate::RevocationState::Revoked.into(),
    };
    let outcome = scene.caller(DUCHIES[1]).certificates().revoke_certificate(revoke.clone()).await;
    assert_refused(outcome, Code::PermissionDenied, "PERMISSION_DENIED");
    let revoked = scene.caller(DUCHIES[2]).certificates().revoke_certificate(revoke).await.unwrap().into_inner();
    assert_eq!(revoked.revocation_state(), api::certificate::RevocationState::Revoked);
    let failure = scene.consumer().get(&scene.measurement.name).await.failure.unwrap();
    assert_eq!(failure.reason(), api::measurement::failure::Reason::CertificateRevoked);
    let release = api::ReleaseCertificateHoldRequest { name: name.clone() };
    let outcome = scene.caller(DUCHIES[2]).certificates().release_certificate_hold(release).await;
    assert_refused(outcome, Code::FailedPrecondition, "CERTIFICATE_REVOCATION_STATE_ILLEGAL");

    let request = scene.world.request(&scene.world.spec());
    let next = scene.consumer().measurements().create_measurement(request).await.unwrap().into_inner();
    let mut stream = scene
        .caller(DUCHIES[2])
        .computations()
        .stream_active_computations(system::StreamActiveComputationsRequest::default())
        .await
        .unwrap()
        .into_inner();
    let computation = loop {
        let computation = stream.message().await.unwrap().unwrap().computation.unwrap();
        if computation.name != scene.computation.name {
            break computation;
        }
    };
    let share = scene.world.key_share(DUCHIES[2], &computation).signed(scene.world.party(DUCHIES[2]));
    let outcome = scene.caller(DUCHIES[2]).participants().set_participant_requisition_params(share).await;
    assert_refused(outcome, Code::FailedPrecondition, "CERTIFICATE_IS_INVALID");
    assert_eq!(next.state(), State::AwaitingRequisitionFulfillment);
}

#[tokio::test]
async fn certificates_and_parties_are_read_by_those_who_may() {
    let scene = Scene::new().await;
    let get = |caller: &str, name: String| {
        let mut client = scene.caller(caller).certificates();
        async move { client.get_certificate(api::GetCertificateRequest { name }).await }
    };
    let duchy = scene.world.party(DUCHIES[0]);
    let found = get(PUBLISHERS[0], duchy.certificate_name()).await.unwrap().into_inner();
    assert_eq!(found.x509_der, duchy.certificate.der());
    get(PUBLISHERS[0], scene.world.consumer().certificate_name()).await.unwrap();
    get(DUCHIES[0], scene.world.party(PUBLISHERS[0]).certificate_name()).await.unwrap();
    for (caller, name) in [
        (PUBLISHERS[0], scene.world.party(PUBLISHERS[1]).certificate_name()),
        (DUCHIES[0], scene.world.consumer().certificate_name()),
        (CONSUMER, format!("{}/certificates/AAAAAAAAAAE", DUCHIES[0])),
    ] {
        assert_refused(get(caller, name).await, Code::PermissionDenied, "PERMISSION_DENIED");
    }
    let request = api::GetDataProviderRequest { name: PUBLISHERS[0].into() };
    let publisher = scene.consumer().data_providers().get_data_provider(request.clone()).await.unwrap().into_inner();
    assert_eq!(publisher.certificate_der, scene.world.party(PUBLISHERS[0]).certificate.der());
    let key = publisher.public_key.unwrap();
    assert_eq!(key.message.unwrap().value, scene.world.party(PUBLISHERS[0]).public_key());
    let outcome = scene.caller(PUBLISHERS[1]).data_providers().get_data_provider(request).await;
    assert_refused(outcome, Code::PermissionDenied, "PERMISSION_DENIED");

    // A new certificate, from the party's own authority and from another's.
    let (own, _) = scene.world.party(PUBLISHERS[0]).issue(|_| {});
    let (foreign, _) = scene.world.party(PUBLISHERS[1]).issue(|_| {});
    let create = |pem: &str| {
        let der = halo_crypto::consent::x509::Certificate::from_pem(pem.as_bytes()).unwrap().der().to_vec();
        let certificate = Some(api::Certificate { x509_der: der, ..Default::default() });
        api::CreateCertificateRequest { parent: PUBLISHERS[0].into(), certificate }
    };
    let mut publisher = scene.caller(PUBLISHERS[0]).certificates();
    publisher.create_certificate(create(&own)).await.unwrap();
    let outcome = publisher.create_certificate(create(&own)).await;
    assert_refused(outcome, Code::AlreadyExists, "CERT_SUBJECT_KEY_ID_ALREADY_EXISTS");
    let outcome = publisher.create_certificate(create(&foreign)).await;
    assert_refused(outcome, Code::InvalidArgument, "INVALID_FIELD_VALUE");
    let list = api::ListCertificatesRequest { parent: PUBLISHERS[0].into(), ..Default::default() };
    assert_eq!(publisher.list_certificates(list).await.unwrap().into_inner().certificates.len(), 2);
}

#[tokio::test]
async fn strangers_are_refused_and_what_is_not_served_says_so() {
    let world = World::new();
    let running = world.start().await;
    let stranger = World::new();
    let outcome = world.dial(&running.endpoint, &stranger.consumer().identity()).await;
    assert!(matches!(outcome, Err(TransportError::CertificateRefused { .. })), "{outcome:?}");
    let (pem, key) = world.consumer().issue(|params| {
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    });
    let expired = halo_core::transport::Identity::from_pem(pem.as_bytes(), key.as_bytes()).unwrap();
    let outcome = world.dial(&running.endpoint, &expired).await;
    let refusal = outcome.unwrap_err();
    assert!(refusal.to_string().contains("refused this client certificate"), "{refusal}");

    let publisher = world.connect(&running.endpoint, PUBLISHERS[0]).await;
    let outcome =
        publisher.requisitions().fulfill_direct_requisition(api::FulfillDirectRequisitionRequest::default()).await;
    let status = assert_refused(outcome, Code::Unimplemented, "UNKNOWN_ERROR");
    assert!(status.message().contains("FulfillDirectRequisition"));
    running.stop().await;
}

/// The process itself: killed and started again, everything is there; asked to stop, it ends cleanly.
#[tokio::test]
async fn a_killed_process_has_forgotten_nothing() {
    let world = World::new();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config = world.configuration(&format!("127.0.0.1:{port}"));
    let endpoint = format!("https://127.0.0.1:{port}");
    let start = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_halo-kingdom"));
        command.arg("serve").arg("--config").arg(&config).stderr(Stdio::null()).spawn().unwrap()
    };
    let mut process = start();
    let consumer = world.connect(&endpoint, CONSUMER).await;
    let request = world.request(&world.spec());
    let created = consumer.measurements().create_measurement(request).await.unwrap().into_inner();
    process.kill().unwrap();
    process.wait().unwrap();

    let mut process = start();
    let consumer = world.connect(&endpoint, CONSUMER).await;
    assert_eq!(consumer.get(&created.name).await, created);
    // With an open stream, too.
    let request = WatchMeasurementRequest { name: created.name.clone() };
    let mut progress = consumer.watch().watch_measurement(request).await.unwrap().into_inner();
    progress.message().await.unwrap();
    let asked = Command::new("kill").arg("-TERM").arg(process.id().to_string()).status().unwrap();
    assert!(asked.success());
    let ended = tokio::task::spawn_blocking(move || process.wait().unwrap()).await.unwrap();
    assert!(ended.success(), "{ended}");
    let goodbye = progress.message().await;
    assert_eq!(goodbye.unwrap_err().code(), Code::Unavailable);
}

#[test]
fn the_help_explains_every_key_and_a_bad_configuration_is_named() {
    let help = Command::new(env!("CARGO_BIN_EXE_halo-kingdom")).args(["serve", "--help"]).output().unwrap();
    let text = String::from_utf8(help.stdout).unwrap();
    for key in
        ["measurement_deadline_seconds", "consent_certificate", "noise_for_publisher_noise", "encryption_public_key"]
    {
        assert!(text.contains(key), "{key}");
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("kingdom.toml");
    std::fs::write(&file, "listen = 5").unwrap();
    let outcome =
        Command::new(env!("CARGO_BIN_EXE_halo-kingdom")).arg("serve").arg("--config").arg(&file).output().unwrap();
    assert!(!outcome.status.success());
    let told = String::from_utf8(outcome.stderr).unwrap();
    assert!(told.contains("kingdom.toml") && told.contains("listen"), "{told}");
}
