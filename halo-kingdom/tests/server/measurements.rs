//! `Measurements`: what is created, and what is not.

use halo_core::{
    pb::api::{self, measurement::State, measurement_spec::MeasurementType},
    wire::{self, type_name},
};
use prost::Message;
use tonic::Code;

use crate::world::{CONSUMER, PUBLISHERS, World, assert_refused, padded, reason};

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
            "a deadline in a hundred years",
            altered(&|m| m.deadline = Some(prost_types::Timestamp { seconds: 5_000_000_000, nanos: 0 })),
            invalid,
        ),
        (
            "impressions",
            signed(&|s| s.measurement_type = Some(MeasurementType::Impression(Default::default()))),
            invalid,
        ),
        (
            "a specification that is too large",
            altered(&|m| {
                let long = padded(spec.encode_to_vec(), 256 << 10);
                m.measurement_spec = Some(world.consumer().sign(type_name::MEASUREMENT_SPEC, long));
            }),
            invalid,
        ),
        (
            "a requisition that is too large",
            publisher(&|value| value.encrypted_requisition_spec.as_mut().unwrap().ciphertext.resize(17 << 10, 0)),
            invalid,
        ),
        (
            "the type of a key, too long",
            publisher(&|value| {
                value.data_provider_public_key.as_mut().unwrap().type_url.insert_str(0, &"x".repeat(300))
            }),
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

#[tokio::test]
async fn a_batch_whose_answer_fits_no_message_is_refused() {
    let world = World::new();
    let running = world.start().await;
    let consumer = world.connect(&running.endpoint, CONSUMER).await;
    let long = world.consumer().sign(type_name::MEASUREMENT_SPEC, padded(world.spec().encode_to_vec(), 250 << 10));
    let mut request = world.request(&world.spec());
    request.measurement.as_mut().unwrap().measurement_spec = Some(long);
    let mut names = Vec::new();
    for _ in 0..17 {
        names.push(consumer.measurements().create_measurement(request.clone()).await.unwrap().into_inner().name);
    }
    let get = |names: &[String]| {
        let request = api::BatchGetMeasurementsRequest { parent: CONSUMER.into(), names: names.to_vec() };
        let mut client = consumer.measurements();
        async move { client.batch_get_measurements(request).await }
    };
    assert_refused(get(&names).await, Code::InvalidArgument, "INVALID_FIELD_VALUE");
    assert_eq!(get(&names[..15]).await.unwrap().into_inner().measurements.len(), 15);
    // A list ends its pages earlier by itself.
    let list = api::ListMeasurementsRequest { parent: CONSUMER.into(), page_size: 1000, ..Default::default() };
    let page = consumer.measurements().list_measurements(list).await.unwrap().into_inner();
    assert!((7..=8).contains(&page.measurements.len()) && !page.next_page_token.is_empty());
    running.stop().await;
}

fn with_id(request: &api::CreateMeasurementRequest, id: &str) -> api::CreateMeasurementRequest {
    api::CreateMeasurementRequest { request_id: id.into(), ..request.clone() }
}
