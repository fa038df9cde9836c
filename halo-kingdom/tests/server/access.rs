//! Who may do what: everybody is refused what is another's.

use halo_core::pb::{
    api,
    halo::{ListTimelineEntriesRequest, WatchMeasurementRequest, WatchRequisitionsRequest},
    system,
};
use tonic::{Code, Status};

use crate::{
    scene::Scene,
    world::{CONSUMER, Caller, DUCHIES, OTHER_CONSUMER, PUBLISHERS, World, assert_refused},
};

#[track_caller]
fn assert_denied<T: std::fmt::Debug>(outcome: Result<T, Status>) {
    assert_refused(outcome, Code::PermissionDenied, "PERMISSION_DENIED");
}

#[tokio::test]
async fn a_measurement_is_its_consumers_alone() {
    let scene = Scene::new().await;
    scene.set_keys().await;
    let name = scene.measurement.name.clone();
    for stranger in [OTHER_CONSUMER, PUBLISHERS[0], DUCHIES[0]] {
        let caller = scene.caller(stranger);
        let mut measurements = caller.measurements();
        let get = api::GetMeasurementRequest { name: name.clone() };
        assert_denied(measurements.get_measurement(get).await);
        let list = api::ListMeasurementsRequest { parent: CONSUMER.into(), ..Default::default() };
        assert_denied(measurements.list_measurements(list).await);
        let cancel = api::CancelMeasurementRequest { name: name.clone() };
        assert_denied(measurements.cancel_measurement(cancel).await);
        let get = api::BatchGetMeasurementsRequest { parent: CONSUMER.into(), names: vec![name.clone()] };
        assert_denied(measurements.batch_get_measurements(get).await);
        let watch = WatchMeasurementRequest { name: name.clone() };
        assert_denied(caller.watch().watch_measurement(watch).await.map(drop));
        let list = ListTimelineEntriesRequest { measurement: name.clone(), ..Default::default() };
        assert_denied(caller.watch().list_timeline_entries(list).await);
        let list = api::ListRequisitionsRequest { parent: name.clone(), ..Default::default() };
        assert_denied(caller.requisitions().list_requisitions(list).await);
    }
    // Below a parent of its own, another's name is of no use.
    let mut measurements = scene.caller(OTHER_CONSUMER).measurements();
    let get = api::BatchGetMeasurementsRequest { parent: OTHER_CONSUMER.into(), names: vec![name.clone()] };
    assert_denied(measurements.batch_get_measurements(get).await);
    let own = name.replace(CONSUMER, OTHER_CONSUMER);
    let outcome = measurements.get_measurement(api::GetMeasurementRequest { name: own }).await;
    assert_refused(outcome, Code::NotFound, "MEASUREMENT_NOT_FOUND");
    assert_eq!(scene.consumer().get(&name).await.state(), scene.measurement.state(), "nothing has changed");
}

#[tokio::test]
async fn requisitions_are_their_publishers_alone() {
    let scene = Scene::new().await;
    scene.set_keys().await;
    let list = api::ListRequisitionsRequest { parent: PUBLISHERS[0].into(), ..Default::default() };
    let own = scene.caller(PUBLISHERS[0]).requisitions().list_requisitions(list.clone()).await.unwrap().into_inner();
    let name = own.requisitions[0].name.clone();
    for stranger in [PUBLISHERS[1], CONSUMER, OTHER_CONSUMER, DUCHIES[0]] {
        let caller = scene.caller(stranger);
        assert_denied(caller.requisitions().list_requisitions(list.clone()).await);
        let watch = WatchRequisitionsRequest { parent: PUBLISHERS[0].into(), ..Default::default() };
        assert_denied(caller.watch().watch_requisitions(watch).await.map(drop));
        let get = api::GetRequisitionRequest { name: name.clone() };
        assert_denied(caller.requisitions().get_requisition(get).await);
        let refuse = api::RefuseRequisitionRequest { name: name.clone(), ..Default::default() };
        assert_denied(caller.requisitions().refuse_requisition(refuse).await);
    }
}

#[tokio::test]
async fn a_duchy_speaks_for_itself_alone() {
    let scene = Scene::new().await;
    scene.compute().await;
    let victim = scene.participant(DUCHIES[1]);
    for stranger in [DUCHIES[2], PUBLISHERS[0], CONSUMER] {
        let mut participants = scene.caller(stranger).participants();
        let get = system::GetComputationParticipantRequest { name: victim.clone() };
        assert_denied(participants.get_computation_participant(get).await);
        let confirm = system::ConfirmComputationParticipantRequest {
            name: victim.clone(),
            key_list_hash: vec![0; 32],
            ..Default::default()
        };
        assert_denied(participants.confirm_computation_participant(confirm).await);
        let fail = system::FailComputationParticipantRequest {
            name: victim.clone(),
            failure: Some(system::computation_participant::Failure::default()),
            etag: String::new(),
        };
        assert_denied(participants.fail_computation_participant(fail).await);
        let report = system::CreateComputationLogEntryRequest {
            parent: victim.clone(),
            computation_log_entry: Some(system::ComputationLogEntry::default()),
        };
        assert_denied(scene.caller(stranger).log_entries().create_computation_log_entry(report).await);
    }
    assert_eq!(scene.state().await, system::computation::State::PendingComputation, "nothing has changed");
}

/// A Duchy that joined the configuration after the measurement was planned has no part in it.
#[tokio::test]
async fn a_duchy_without_a_part_does_not_see_the_computation() {
    const LATE: &str = "duchies/worker3";
    let mut world = World::new();
    let running = world.start().await;
    let request = world.request(&world.spec());
    let consumer = world.connect(&running.endpoint, CONSUMER).await;
    consumer.measurements().create_measurement(request).await.unwrap();
    let mut stream = stream(&world.connect(&running.endpoint, DUCHIES[1]).await).await;
    let computation = stream.message().await.unwrap().unwrap().computation.unwrap().name;
    drop((consumer, stream));
    running.stop().await;
    world.add(LATE);
    let running = world.start().await;
    let late = world.connect(&running.endpoint, LATE).await;
    let get = system::GetComputationRequest { name: computation.clone() };
    assert_denied(late.computations().get_computation(get).await);
    let get = system::GetComputationParticipantRequest { name: format!("{computation}/participants/worker3") };
    assert_denied(late.participants().get_computation_participant(get).await);
    let mut stream = self::stream(&late).await;
    let quiet = tokio::time::timeout(std::time::Duration::from_millis(200), stream.message()).await;
    assert!(quiet.is_err(), "{quiet:?}");
    drop((late, stream));
    running.stop().await;
}

async fn stream(duchy: &Caller) -> tonic::Streaming<system::StreamActiveComputationsResponse> {
    let request = system::StreamActiveComputationsRequest::default();
    duchy.computations().stream_active_computations(request).await.unwrap().into_inner()
}
