//! `EventGroups`: kept for publishers, shown to the consumers that they are for.

use halo_core::pb::api;
use prost::Message;
use tonic::Code;

use crate::{
    scene::Scene,
    world::{CONSUMER, DUCHIES, OTHER_CONSUMER, PUBLISHERS, assert_refused},
};

fn group(consumer: &str, reference: &str) -> api::CreateEventGroupRequest {
    api::CreateEventGroupRequest {
        parent: PUBLISHERS[0].into(),
        event_group: Some(api::EventGroup {
            measurement_consumer: consumer.into(),
            event_group_reference_id: reference.into(),
            ..Default::default()
        }),
        request_id: String::new(),
    }
}

#[tokio::test]
async fn a_publisher_creates_its_own_and_its_consumer_reads_them() {
    let scene = Scene::new().await;
    let mut publisher = scene.caller(PUBLISHERS[0]).event_groups();
    for stranger in [PUBLISHERS[1], CONSUMER, DUCHIES[0]] {
        let outcome = scene.caller(stranger).event_groups().create_event_group(group(CONSUMER, "a")).await;
        assert_refused(outcome, Code::PermissionDenied, "PERMISSION_DENIED");
    }
    let nobody = group("measurementConsumers/AAAAAAAAAAk", "a");
    let outcome = publisher.create_event_group(nobody).await;
    assert_refused(outcome, Code::FailedPrecondition, "MEASUREMENT_CONSUMER_NOT_FOUND");
    let outcome = publisher.create_event_group(group(CONSUMER, &"x".repeat(64 << 10))).await;
    assert_refused(outcome, Code::InvalidArgument, "INVALID_FIELD_VALUE");
    let outcome =
        publisher.create_event_group(api::CreateEventGroupRequest { event_group: None, ..group(CONSUMER, "") });
    assert_refused(outcome.await, Code::InvalidArgument, "REQUIRED_FIELD_NOT_SET");

    let once = api::CreateEventGroupRequest { request_id: "one".into(), ..group(CONSUMER, "a") };
    let first = publisher.create_event_group(once.clone()).await.unwrap().into_inner();
    assert_eq!(publisher.create_event_group(once).await.unwrap().into_inner(), first, "a request creates once");
    let other = publisher.create_event_group(group(OTHER_CONSUMER, "b")).await.unwrap().into_inner();

    let by_consumer = first.name.replace(PUBLISHERS[0], CONSUMER);
    for (caller, name) in [(PUBLISHERS[0], &first.name), (CONSUMER, &first.name), (CONSUMER, &by_consumer)] {
        let get = api::GetEventGroupRequest { name: name.clone(), ..Default::default() };
        let found = scene.caller(caller).event_groups().get_event_group(get).await.unwrap().into_inner();
        assert_eq!(found, first);
    }
    for (caller, name) in [
        (PUBLISHERS[1], &first.name),
        (OTHER_CONSUMER, &first.name),
        (OTHER_CONSUMER, &by_consumer),
        (CONSUMER, &other.name),
        (DUCHIES[0], &first.name),
    ] {
        let get = api::GetEventGroupRequest { name: name.clone(), ..Default::default() };
        let outcome = scene.caller(caller).event_groups().get_event_group(get).await;
        assert_refused(outcome, Code::PermissionDenied, "PERMISSION_DENIED");
    }
}

#[tokio::test]
async fn lists_have_pages_that_end_by_count_and_by_bytes() {
    let scene = Scene::new().await;
    let mut publisher = scene.caller(PUBLISHERS[0]).event_groups();
    // Fifty of these are more than a page of two mebibytes.
    let long = "x".repeat(60 << 10);
    for _ in 0..50 {
        publisher.create_event_group(group(CONSUMER, &long)).await.unwrap();
    }
    publisher.create_event_group(group(OTHER_CONSUMER, "b")).await.unwrap();
    let pages = |caller: &str, parent: &str, size: i32| {
        let mut client = scene.caller(caller).event_groups();
        let mut list = api::ListEventGroupsRequest { parent: parent.to_owned(), page_size: size, ..Default::default() };
        async move {
            let mut sizes = Vec::new();
            loop {
                let page = client.list_event_groups(list.clone()).await.unwrap().into_inner();
                assert!(page.encoded_len() < 3 << 20, "a page is not longer than two mebibytes");
                sizes.push(page.event_groups.len());
                list.page_token = page.next_page_token;
                if list.page_token.is_empty() {
                    return sizes;
                }
            }
        }
    };
    assert_eq!(pages(CONSUMER, CONSUMER, 20).await, [20, 20, 10]);
    assert_eq!(pages(CONSUMER, CONSUMER, 500).await, [34, 16]);
    assert_eq!(pages(PUBLISHERS[0], PUBLISHERS[0], 500).await.iter().sum::<usize>(), 51);
    assert_eq!(pages(OTHER_CONSUMER, OTHER_CONSUMER, 0).await, [1]);
    for (caller, parent) in [(PUBLISHERS[1], PUBLISHERS[0]), (OTHER_CONSUMER, CONSUMER), (DUCHIES[0], PUBLISHERS[0])] {
        let list = api::ListEventGroupsRequest { parent: parent.into(), ..Default::default() };
        let outcome = scene.caller(caller).event_groups().list_event_groups(list).await;
        assert_refused(outcome, Code::PermissionDenied, "PERMISSION_DENIED");
    }
}
