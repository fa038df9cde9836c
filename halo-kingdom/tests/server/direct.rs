//! Measurements that publishers compute by themselves.

use std::sync::Arc;

use halo_core::{
    clock::{Clock, ManualClock, SystemClock},
    pb::{
        api::{self, measurement::State, measurement_spec::MeasurementType},
        halo::WatchRequisitionsRequest,
        system,
    },
    wire::{self, type_name},
};
use halo_kingdom::server::{stored_result, stored_results};
use prost::Message;
use tonic::Code;

use crate::world::{CONSUMER, Caller, DUCHIES, NONCES, PUBLISHERS, Running, World, assert_refused, rng};

/// The specification of a measurement of impressions with both publishers.
fn impressions(world: &World) -> api::MeasurementSpec {
    let asked = api::measurement_spec::Impression {
        privacy_params: Some(api::DifferentialPrivacyParams { epsilon: 1.0, delta: 1e-9 }),
        maximum_frequency_per_user: 10,
    };
    api::MeasurementSpec { measurement_type: Some(MeasurementType::Impression(asked)), ..world.spec() }
}

/// The Kingdom, the consumer, and the measurement of both publishers that was created.
async fn created(world: &World, spec: &api::MeasurementSpec) -> (Running, Caller, api::Measurement) {
    let running = world.start().await;
    let consumer = world.connect(&running.endpoint, CONSUMER).await;
    let measurement = consumer.measurements().create_measurement(world.request(spec)).await.unwrap().into_inner();
    (running, consumer, measurement)
}

async fn open(caller: &Caller, publisher: &str) -> api::Requisition {
    let list = api::ListRequisitionsRequest { parent: publisher.into(), ..Default::default() };
    caller.requisitions().list_requisitions(list).await.unwrap().into_inner().requisitions.remove(0)
}

/// A publisher's own result, signed and encrypted.
fn own_result(world: &World, publisher: usize, name: &str, value: i64) -> api::FulfillDirectRequisitionRequest {
    let party = world.party(PUBLISHERS[publisher]);
    let result = api::measurement::Result {
        impression: Some(api::measurement::result::Impression { value, ..Default::default() }),
        ..Default::default()
    };
    let signed = party.sign(type_name::MEASUREMENT_RESULT, result.encode_to_vec()).encode_to_vec();
    api::FulfillDirectRequisitionRequest {
        name: name.into(),
        encrypted_result: Some(api::EncryptedMessage {
            ciphertext: world.consumer().keyset.public().encrypt(&signed, b"", &mut rng()).unwrap(),
            type_url: wire::pack(type_name::SIGNED_MESSAGE, vec![]).type_url,
        }),
        nonce: NONCES[publisher],
        certificate: party.certificate_name(),
        fulfillment_context: Some(api::requisition::FulfillmentContext {
            build_label: "1.0".into(),
            warnings: vec!["late events".into()],
        }),
        ..Default::default()
    }
}

/// The value of a result, as its consumer reads and verifies it.
fn opened(world: &World, publisher: usize, ciphertext: &[u8]) -> i64 {
    let signed = world.consumer().keyset.decrypt(ciphertext, b"").unwrap();
    let signed = api::SignedMessage::decode(signed.expose().as_slice()).unwrap();
    let bytes = wire::signed_bytes("result", Some(&signed), type_name::MEASUREMENT_RESULT).unwrap();
    let certificate = &world.party(PUBLISHERS[publisher]).certificate;
    certificate.verify_signature(bytes, &signed.signature_algorithm_oid, &signed.signature).unwrap();
    api::measurement::Result::decode(bytes).unwrap().impression.unwrap().value
}

#[tokio::test]
async fn two_publishers_results_reach_the_consumer() {
    let world = World::new();
    let (running, consumer, measurement) = created(&world, &impressions(&world)).await;
    assert_eq!(measurement.state(), State::AwaitingRequisitionFulfillment);
    let config = wire::parse_protocol_config(&measurement.protocol_config.as_ref().unwrap().encode_to_vec()).unwrap();
    assert_eq!(config.protocol.kind().name(), "direct");

    // The requisitions are delivered at once, and no Duchy hears of them.
    for (index, publisher) in PUBLISHERS.iter().enumerate() {
        let caller = world.connect(&running.endpoint, publisher).await;
        let request = WatchRequisitionsRequest { parent: (*publisher).into(), ..Default::default() };
        let mut watched = caller.watch().watch_requisitions(request).await.unwrap().into_inner();
        let requisition = watched.message().await.unwrap().unwrap().requisition.unwrap();
        assert_eq!(requisition.state(), api::requisition::State::Unfulfilled);
        assert!(requisition.duchies.is_empty());
        assert!(!requisition.serialized_protocol_config.is_empty() && requisition.deadline.is_some());
        let request = own_result(&world, index, &requisition.name, 40 + index as i64);
        let first = caller.requisitions().fulfill_direct_requisition(request.clone()).await.unwrap().into_inner();
        assert_eq!(first.state(), api::requisition::State::Fulfilled);
        let again = caller.requisitions().fulfill_direct_requisition(request).await.unwrap().into_inner();
        assert_eq!(again, first, "a repetition changes nothing");
        let get = api::GetRequisitionRequest { name: requisition.name };
        let fulfilled = caller.requisitions().get_requisition(get).await.unwrap().into_inner();
        assert_eq!(
            (fulfilled.nonce, fulfilled.fulfillment_context.unwrap().build_label.as_str()),
            (NONCES[index], "1.0")
        );
        if index == 0 {
            let now = consumer.get(&measurement.name).await;
            assert_eq!((now.state(), now.results.len()), (State::AwaitingRequisitionFulfillment, 0));
        }
    }
    let done = consumer.get(&measurement.name).await;
    assert_eq!((done.state(), done.results.len()), (State::Succeeded, 2));
    for (index, result) in done.results.iter().enumerate() {
        assert_eq!(result.certificate, world.party(PUBLISHERS[index]).certificate_name());
        let ciphertext = &result.encrypted_result.as_ref().unwrap().ciphertext;
        assert_eq!(opened(&world, index, ciphertext), 40 + index as i64);
    }
    let timeline: Vec<String> = consumer.timeline(&measurement.name).await.into_iter().map(|(_, what)| what).collect();
    let planned = timeline.iter().find(|line| line.starts_with("planned direct: ")).unwrap();
    assert!(planned.contains("each publisher's own result") && planned.contains("not llv2: "), "{planned}");
    assert_eq!(timeline.iter().filter(|line| line.contains("handed in its encrypted result")).count(), 2);

    let duchy = world.connect(&running.endpoint, DUCHIES[0]).await;
    let request = system::StreamActiveComputationsRequest::default();
    let mut stream = duchy.computations().stream_active_computations(request).await.unwrap().into_inner();
    let quiet = tokio::time::timeout(std::time::Duration::from_millis(200), stream.message()).await;
    assert!(quiet.is_err(), "{quiet:?}");

    let state_dir = world.directory.path().join("state");
    let name = measurement.name.parse().unwrap();
    let stored = stored_results(&state_dir, &name).await.unwrap();
    for (index, result) in stored.iter().enumerate() {
        assert_eq!(result.data_provider.as_ref().unwrap().to_string(), PUBLISHERS[index]);
        assert_eq!(result.certificate_der, world.party(PUBLISHERS[index]).certificate.der());
        assert_eq!(opened(&world, index, &result.encrypted_result), 40 + index as i64);
    }
    let several = stored_result(&state_dir, &name).await.unwrap_err().to_string();
    assert!(several.contains("has 2 results"), "{several}");
    drop((duchy, stream, consumer));
    running.stop().await;
}

#[tokio::test]
async fn one_publisher_is_asked_directly_for_reach_too() {
    let world = World::new();
    let mut spec = world.spec();
    spec.nonce_hashes.truncate(1);
    let mut request = world.request(&spec);
    request.measurement.as_mut().unwrap().data_providers.truncate(1);
    let running = world.start().await;
    let consumer = world.connect(&running.endpoint, CONSUMER).await;
    let measurement = consumer.measurements().create_measurement(request).await.unwrap().into_inner();
    let publisher = world.connect(&running.endpoint, PUBLISHERS[0]).await;
    let requisition = open(&publisher, PUBLISHERS[0]).await;
    let mut request = own_result(&world, 0, &requisition.name, 7);
    // As an older client sends it.
    #[expect(deprecated, reason = "older clients send nothing else")]
    {
        request.encrypted_result_ciphertext = request.encrypted_result.take().unwrap().ciphertext;
    }
    publisher.requisitions().fulfill_direct_requisition(request).await.unwrap();
    let done = consumer.get(&measurement.name).await;
    assert_eq!((done.state(), done.results.len()), (State::Succeeded, 1));
    let stored =
        stored_result(&world.directory.path().join("state"), &measurement.name.parse().unwrap()).await.unwrap();
    assert_eq!(stored.data_provider.unwrap().to_string(), PUBLISHERS[0]);
    drop((publisher, consumer));
    running.stop().await;
}

#[tokio::test]
async fn results_that_cannot_be_taken_change_nothing() {
    let world = World::new();
    let (running, consumer, measurement) = created(&world, &impressions(&world)).await;
    let publisher = world.connect(&running.endpoint, PUBLISHERS[0]).await;
    let other = world.connect(&running.endpoint, PUBLISHERS[1]).await;
    let requisition = open(&publisher, PUBLISHERS[0]).await;
    let good = own_result(&world, 0, &requisition.name, 1);
    let changed = |change: &dyn Fn(&mut api::FulfillDirectRequisitionRequest)| {
        let mut request = good.clone();
        change(&mut request);
        request
    };
    let invalid = (Code::InvalidArgument, "INVALID_FIELD_VALUE");
    let required = (Code::InvalidArgument, "REQUIRED_FIELD_NOT_SET");
    for (what, request, (code, expected)) in [
        ("another nonce", changed(&|request| request.nonce += 1), invalid),
        ("no nonce", changed(&|request| request.nonce = 0), required),
        ("no result", changed(&|request| request.encrypted_result = None), required),
        (
            "an empty result",
            changed(&|request| request.encrypted_result.as_mut().unwrap().ciphertext.clear()),
            required,
        ),
        (
            "a result that is too large",
            changed(&|request| request.encrypted_result.as_mut().unwrap().ciphertext.resize(2049, 0)),
            invalid,
        ),
        (
            "a result of another type",
            changed(&|request| request.encrypted_result.as_mut().unwrap().type_url.push('s')),
            invalid,
        ),
        ("no certificate", changed(&|request| request.certificate.clear()), required),
        (
            "another's certificate",
            changed(&|request| request.certificate = world.party(PUBLISHERS[1]).certificate_name()),
            invalid,
        ),
        (
            "a certificate that does not exist",
            changed(&|request| request.certificate = format!("{}/certificates/AAAAAAAAAAc", PUBLISHERS[0])),
            (Code::FailedPrecondition, "CERTIFICATE_NOT_FOUND"),
        ),
        (
            "an old etag",
            changed(&|request| request.etag = "W/\"1\"".into()),
            (Code::Aborted, "REQUISITION_ETAG_MISMATCH"),
        ),
        (
            "a requisition that does not exist",
            changed(&|request| request.name = format!("{}/requisitions/AAAAAAAAAAc", PUBLISHERS[0])),
            (Code::NotFound, "REQUISITION_NOT_FOUND"),
        ),
    ] {
        let outcome = publisher.requisitions().fulfill_direct_requisition(request).await;
        let status = outcome.expect_err(what);
        let reason = crate::world::reason(&status).0;
        assert_eq!((status.code(), reason.as_str()), (code, expected), "{what}: {}", status.message());
    }
    let duchy = world.connect(&running.endpoint, DUCHIES[0]).await;
    for stranger in [&other, &consumer, &duchy] {
        let outcome = stranger.requisitions().fulfill_direct_requisition(good.clone()).await;
        assert_refused(outcome, Code::PermissionDenied, "PERMISSION_DENIED");
    }
    let etag = api::FulfillDirectRequisitionRequest { etag: requisition.etag, ..good.clone() };
    publisher.requisitions().fulfill_direct_requisition(etag).await.unwrap();
    let second = own_result(&world, 0, &requisition.name, 2);
    let outcome = publisher.requisitions().fulfill_direct_requisition(second).await;
    assert_refused(outcome, Code::FailedPrecondition, "INVALID_FIELD_VALUE");

    // Revoked before the others have answered, the certificate of a result ends the measurement.
    let revoke = api::RevokeCertificateRequest {
        name: world.party(PUBLISHERS[0]).certificate_name(),
        revocation_state: api::certificate::RevocationState::Revoked.into(),
    };
    publisher.certificates().revoke_certificate(revoke).await.unwrap();
    let failed = consumer.get(&measurement.name).await;
    assert_eq!(failed.failure.unwrap().reason(), api::measurement::failure::Reason::CertificateRevoked);
    assert!(failed.results.is_empty(), "what one publisher has answered is not handed out");
    let late = own_result(&world, 1, &open(&other, PUBLISHERS[1]).await.name, 3);
    let outcome = other.requisitions().fulfill_direct_requisition(late).await;
    assert_refused(outcome, Code::FailedPrecondition, "REQUISITION_STATE_ILLEGAL");
    drop((publisher, other, duchy, consumer));
    running.stop().await;
}

#[tokio::test]
async fn direct_measurements_are_refused_cancelled_and_overdue_as_others_are() {
    let world = World::new();
    let clock = ManualClock::new(SystemClock.now());
    let running = world.start_by(Arc::new(clock.clone())).await;
    let consumer = world.connect(&running.endpoint, CONSUMER).await;
    let publisher = world.connect(&running.endpoint, PUBLISHERS[0]).await;
    let create = || async {
        let request = world.request(&impressions(&world));
        consumer.measurements().create_measurement(request).await.unwrap().into_inner().name
    };
    let refused = create().await;
    let mut refuse =
        api::RefuseRequisitionRequest { name: open(&publisher, PUBLISHERS[0]).await.name, ..Default::default() };
    refuse.refusal.get_or_insert_default().set_justification(api::requisition::refusal::Justification::Declined);
    publisher.requisitions().refuse_requisition(refuse).await.unwrap();
    assert_eq!(consumer.get(&refused).await.state(), State::Failed);

    let cancelled = create().await;
    let cancel = api::CancelMeasurementRequest { name: cancelled.clone() };
    consumer.measurements().cancel_measurement(cancel).await.unwrap();
    assert_eq!(consumer.get(&cancelled).await.state(), State::Cancelled);

    let overdue = create().await;
    let request = halo_core::pb::halo::WatchMeasurementRequest { name: overdue.clone() };
    let mut progress = consumer.watch().watch_measurement(request).await.unwrap().into_inner();
    clock.advance(std::time::Duration::from_secs(7 * 24 * 60 * 60));
    // The clock was set behind the back of the task that sleeps until the deadline; any change wakes it.
    create().await;
    let mut last = None;
    while let Some(message) = progress.message().await.unwrap() {
        last = message.measurement;
    }
    let last = last.unwrap();
    assert_eq!(
        (last.state(), last.failure.unwrap().culprits),
        (State::Cancelled, PUBLISHERS.map(String::from).to_vec())
    );
    drop((publisher, consumer, progress));
    running.stop().await;
}
