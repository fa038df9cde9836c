//! `Computations`: the stream to the Duchies, and the result.

use halo_core::pb::system::{self, computation::State as ComputationState};
use std::time::Duration;
use tonic::Code;

use crate::{
    scene::Scene,
    world::{DUCHIES, assert_refused},
};

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
async fn a_result_comes_from_the_aggregator_and_while_computing_only() {
    let scene = Scene::new().await;
    let set = |duchy: &str, request: system::SetComputationResultRequest| {
        let mut client = scene.caller(duchy).computations();
        async move { client.set_computation_result(request).await }
    };
    let good = scene.result(DUCHIES[0]);
    let outcome = set(DUCHIES[0], good.clone()).await;
    assert_refused(outcome, Code::FailedPrecondition, "MEASUREMENT_STATE_ILLEGAL");
    // The certificate is looked at before the computation begins, too: it could begin between the look and the act.
    let mut early = good.clone();
    early.aggregator_certificate = format!("{}/certificates/AAAAAAAAAAc", DUCHIES[0]);
    assert_refused(set(DUCHIES[0], early).await, Code::FailedPrecondition, "CERTIFICATE_NOT_FOUND");
    scene.compute().await;
    let outcome = set(DUCHIES[1], scene.result(DUCHIES[1])).await;
    assert_refused(outcome, Code::PermissionDenied, "PERMISSION_DENIED");
    let mut borrowed = good.clone();
    borrowed.aggregator_certificate = scene.world.party(DUCHIES[1]).certificate_name();
    assert_refused(set(DUCHIES[0], borrowed).await, Code::InvalidArgument, "INVALID_FIELD_VALUE");
    let mut large = good.clone();
    large.encrypted_result.resize((64 << 10) + 1, 0);
    assert_refused(set(DUCHIES[0], large).await, Code::InvalidArgument, "INVALID_FIELD_VALUE");
    let mut other_key = good.clone();
    other_key.result_public_key.push(0);
    assert_refused(set(DUCHIES[0], other_key).await, Code::InvalidArgument, "INVALID_FIELD_VALUE");
    let first = set(DUCHIES[0], good.clone()).await.unwrap().into_inner();
    assert_eq!(set(DUCHIES[0], good).await.unwrap().into_inner(), first);
    let outcome = set(DUCHIES[0], scene.result(DUCHIES[0])).await;
    assert_refused(outcome, Code::FailedPrecondition, "INVALID_FIELD_VALUE");
}
