//! `Requisitions`: the publishers' side.

use halo_core::pb::api;
use tonic::Code;

use crate::{
    scene::Scene,
    world::{PUBLISHERS, assert_refused},
};

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
