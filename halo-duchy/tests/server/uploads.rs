//! The publishers' door: uploads that are refused leave nothing behind, and the right one is taken afterwards.

use std::time::Duration;

use halo_core::pb::{
    api::{
        fulfill_requisition_request::{
            BodyChunk, Payload,
            header::{HonestMajorityShareShuffle, Protocol},
        },
        requisition::State,
    },
    halo::GetTransferRequest,
    system::computation::State as ComputationState,
};
use halo_crypto::group::Point;
use tonic::Code;

use crate::{
    caller::{Caller, assert_refused},
    kingdom::Call,
    measurement::{Measurement, Plan, REGISTER, Upload, registers},
    world::{BYSTANDER, DUCHIES, NONCES, PUBLISHERS, World},
};

/// How many bytes of an upload the Duchy holds, and whether it is complete.
async fn held(publisher: &Caller, upload: &Upload) -> (i64, bool) {
    let query = GetTransferRequest {
        name: upload.header.name.clone(),
        description: 0,
        body_sha256: upload.header.body_sha256.clone(),
    };
    let transfer = publisher.transferred(query).await.unwrap();
    (transfer.received_length, transfer.complete)
}

/// The uploads of which the Kingdom knows, by their digests.
fn announced(world: &World, measurement: &Measurement) -> Vec<Vec<u8>> {
    let calls = world.kingdom.calls(&measurement.computation).into_iter();
    let uploads = calls.filter_map(|call| match call {
        Call::Fulfilled(request) => Some(request.body_sha256),
        _ => None,
    });
    uploads.collect()
}

/// The right upload is taken, once and for all.
async fn assert_taken(world: &World, publisher: &Caller, measurement: &Measurement, good: &Upload) {
    let answer = publisher.upload(good).await.unwrap();
    assert_eq!((answer.state(), answer.received_length), (State::Fulfilled, good.body.len() as i64));
    assert_eq!(held(publisher, good).await, (good.body.len() as i64, true));
    assert_eq!(announced(world, measurement), std::slice::from_ref(&good.header.body_sha256));
}

#[tokio::test]
async fn refused_headers_leave_nothing_behind() {
    let world = World::start(false).await;
    let measurement = world.open(&Plan::new(1)).await;
    let publisher = world.connect(PUBLISHERS[0]).await;
    let good = measurement.upload(registers(5, 1));
    let changed = |change: &dyn Fn(&mut Upload)| {
        let mut upload = good.clone();
        change(&mut upload);
        upload
    };
    let mine = format!("{}/requisitions/AAAAAAAAA-g", PUBLISHERS[0]);
    let elsewhere = &measurement.requisitions[1];
    for (upload, code, words) in [
        (changed(&|u| u.header.nonce = NONCES[1]), Code::InvalidArgument, "header.nonce: it is not the one"),
        (changed(&|u| u.header.nonce = 0), Code::InvalidArgument, "header.nonce: it is not the one"),
        (
            changed(&|u| u.header.requisition_fingerprint[31] ^= 1),
            Code::InvalidArgument,
            "header.requisition_fingerprint: publisher and Duchy were shown different specifications",
        ),
        (changed(&|u| u.header.requisition_fingerprint.clear()), Code::InvalidArgument, "requisition_fingerprint"),
        (changed(&|u| u.header.key_list_hash.truncate(31)), Code::InvalidArgument, "header.key_list_hash: it has 31"),
        (changed(&|u| u.header.body_sha256.truncate(31)), Code::InvalidArgument, "header.body_sha256: it has 31"),
        (changed(&|u| u.header.body_length = -1), Code::InvalidArgument, "header.body_length: -1 is negative"),
        (changed(&|u| u.header.record_count = 4), Code::InvalidArgument, "4 records of 192 bytes are not 960 bytes"),
        (
            changed(&|u| (u.header.record_count, u.header.body_length) = (5462, 5462 * 192)),
            Code::InvalidArgument,
            "a body of 1048704 bytes is larger than the 1048576 bytes accepted here",
        ),
        (changed(&|u| u.header.name.clone_from(&mine)), Code::NotFound, "duchy aggregator does not know"),
        (
            changed(&|u| u.header.name = "requisitions/AAAAAAAAAAE".to_owned()),
            Code::InvalidArgument,
            "requisitions/AAAAAAAAAAE",
        ),
        (
            changed(&|u| u.header.name.clone_from(elsewhere)),
            Code::PermissionDenied,
            "is none of the caller's requisitions",
        ),
    ] {
        assert_refused(publisher.upload(&upload).await, code, words);
        assert_eq!((world.kept_bodies(), held(&publisher, &good).await), (0, (0, false)), "after {words:?}");
    }
    assert_taken(&world, &publisher, &measurement, &good).await;
}

#[tokio::test]
async fn nobody_uploads_for_another() {
    let world = World::start(false).await;
    let measurement = world.open(&Plan::new(1)).await;
    let good = measurement.upload(registers(5, 1));
    for other in [PUBLISHERS[1], DUCHIES[1], BYSTANDER] {
        let other = world.connect(other).await;
        assert_refused(other.upload(&good).await, Code::PermissionDenied, "is none of the caller's requisitions");
    }
    // The right publisher at the wrong Duchy.
    let other = world.connect(PUBLISHERS[1]).await;
    let mut misled = good.clone();
    misled.header.name.clone_from(&measurement.requisitions[1]);
    assert_refused(other.upload(&misled).await, Code::FailedPrecondition, "is to be fulfilled at another Duchy");
    let query = GetTransferRequest {
        name: good.header.name.clone(),
        description: 0,
        body_sha256: good.header.body_sha256.clone(),
    };
    assert_refused(other.transferred(query).await, Code::PermissionDenied, "is none of the caller's requisitions");
    assert_eq!(world.kept_bodies(), 0);
    let publisher = world.connect(PUBLISHERS[0]).await;
    assert_taken(&world, &publisher, &measurement, &good).await;
}

#[tokio::test]
async fn refused_bodies_leave_nothing_behind() {
    let world = World::start(false).await;
    let measurement = world.open(&Plan::new(1)).await;
    let publisher = world.connect(PUBLISHERS[0]).await;
    let good = measurement.upload(registers(5, 1));
    let sent_with_the_header_of_good = |body: Vec<u8>| Upload { body, ..good.clone() };
    let with = |position: usize, element: [u8; 32]| {
        let mut body = good.body.clone();
        body[position..position + 32].copy_from_slice(&element);
        measurement.upload(body)
    };
    let mut altered = good.body.clone();
    altered[700] ^= 1;
    let longer = [&good.body[..], &registers(1, 2)].concat();
    // p - 1 with p = 2^255 - 19: in the field, but no canonical encoding, because it is a negative number's.
    let mut negative = [0xff; 32];
    (negative[0], negative[31]) = (0xec, 0x7f);
    let identity = *Point::identity().encode().as_bytes();
    for (upload, words) in [
        (sent_with_the_header_of_good(altered), "SHA-256"),
        (sent_with_the_header_of_good(longer), "more than the 960 bytes announced; nothing of the body is kept"),
        (with(3 * REGISTER + 32, [0xff; 32]), "record 3 of "),
        (with(4 * REGISTER + 160, negative), "record 4 of "),
        (with(2 * REGISTER + 64, identity), "record 2 of "),
        (with(0, identity), "its first component is the identity"),
    ] {
        assert_refused(publisher.upload(&upload).await, Code::InvalidArgument, words);
        assert_eq!((world.kept_bodies(), held(&publisher, &upload).await), (0, (0, false)), "after {words:?}");
    }
    assert_eq!(announced(&world, &measurement), Vec::<Vec<u8>>::new());
    assert_taken(&world, &publisher, &measurement, &good).await;
}

#[tokio::test]
async fn a_stream_is_one_header_and_then_chunks() {
    let world = World::start(false).await;
    let measurement = world.open(&Plan::new(1)).await;
    let publisher = world.connect(PUBLISHERS[0]).await;
    let good = measurement.upload(registers(5, 1));
    let header = || Payload::Header(good.header.clone());
    let chunk = || Payload::BodyChunk(BodyChunk { data: good.body.clone().into() });
    let outcome = publisher.upload_messages(vec![chunk(), header()]).await;
    assert_refused(outcome, Code::InvalidArgument, "the first message of the stream has no header");
    let outcome = publisher.upload_messages(Vec::new()).await;
    assert_refused(outcome, Code::InvalidArgument, "the first message of the stream has no header");
    let outcome = publisher.upload_messages(vec![header(), header(), chunk()]).await;
    assert_refused(outcome, Code::Aborted, "a message after the first one has no chunk of the body: 0 of 960 bytes");
    let mut other = good.header.clone();
    other.protocol = Some(Protocol::HonestMajorityShareShuffle(HonestMajorityShareShuffle::default()));
    let outcome = publisher.upload_messages(vec![Payload::Header(other), chunk()]).await;
    assert_refused(
        outcome,
        Code::InvalidArgument,
        "header.protocol: it is another protocol than the measurement's, which is llv2",
    );
    assert_eq!(held(&publisher, &good).await, (0, false));
    assert_taken(&world, &publisher, &measurement, &good).await;
}

#[tokio::test]
async fn a_truncated_upload_goes_on_where_it_was_cut() {
    let world = World::start(false).await;
    let measurement = world.open(&Plan::new(1)).await;
    let publisher = world.connect(PUBLISHERS[0]).await;
    let good = measurement.upload(registers(5, 1));
    let cut = Upload { body: good.body[..437].to_vec(), ..good.clone() };
    let words = "437 of 960 bytes are stored; go on with offset 437";
    assert_refused(publisher.upload(&cut).await, Code::Aborted, words);
    assert_eq!(held(&publisher, &good).await, (437, false));
    assert_refused(publisher.upload(&good).await, Code::OutOfRange, "go on with offset 437 instead of 0");
    assert_eq!(announced(&world, &measurement), Vec::<Vec<u8>>::new());
    let mut rest = good.clone();
    rest.header.offset = 437;
    let answer = publisher.upload(&rest).await.unwrap();
    assert_eq!((answer.state(), answer.received_length), (State::Fulfilled, 960));
    assert_taken(&world, &publisher, &measurement, &good).await;
}

#[tokio::test]
async fn another_body_takes_the_place_of_a_partial_one() {
    let world = World::start(false).await;
    let measurement = world.open(&Plan::new(1)).await;
    let publisher = world.connect(PUBLISHERS[0]).await;
    let (first, second) = (measurement.upload(registers(5, 1)), measurement.upload(registers(5, 2)));
    let cut = |upload: &Upload, length: usize| Upload { body: upload.body[..length].to_vec(), ..upload.clone() };
    assert_refused(publisher.upload(&cut(&first, 437)).await, Code::Aborted, "437 of 960 bytes are stored");
    assert_refused(publisher.upload(&cut(&second, 111)).await, Code::Aborted, "111 of 960 bytes are stored");
    assert_eq!((held(&publisher, &first).await, held(&publisher, &second).await), ((0, false), (111, false)));
    assert_eq!(world.kept_bodies(), 1);
    assert_taken(&world, &publisher, &measurement, &first).await;
    assert_eq!((held(&publisher, &second).await, world.kept_bodies()), ((0, false), 1));
}

#[tokio::test]
async fn the_first_complete_upload_stays() {
    let world = World::start(false).await;
    let mut measurement = world.open(&Plan::new(1)).await;
    let publisher = world.connect(PUBLISHERS[0]).await;
    let good = measurement.upload(registers(5, 1));
    let other = measurement.upload(registers(5, 2));
    for _ in 0..3 {
        assert_taken(&world, &publisher, &measurement, &good).await;
        assert_refused(publisher.upload(&other).await, Code::FailedPrecondition, "is fulfilled with another body");
        assert_eq!((world.kept_bodies(), held(&publisher, &other).await), (1, (0, false)));
    }
    // Also from the requisition's end to the confirmation's.
    world.fulfill(&mut measurement, |_| {}).await;
    world.assert_confirmed(&measurement).await;
    assert_refused(publisher.upload(&other).await, Code::FailedPrecondition, "is fulfilled with another body");
}

#[tokio::test]
async fn what_comes_after_the_upload_changes_nothing() {
    let world = World::start(false).await;
    let mut measurement = world.open(&Plan::new(1)).await;
    let publisher = world.connect(PUBLISHERS[0]).await;
    let good = measurement.upload(registers(5, 1));
    assert_taken(&world, &publisher, &measurement, &good).await;
    let mut under_other_keys = good.clone();
    under_other_keys.header.key_list_hash[0] ^= 1;
    let outcome = publisher.upload(&under_other_keys).await;
    assert_eq!(outcome.unwrap_err().code(), Code::FailedPrecondition);
    world.fulfill(&mut measurement, |_| {}).await;
    world.assert_confirmed(&measurement).await;
}

#[tokio::test]
async fn a_measurement_that_is_over_takes_no_upload() {
    let world = World::start(false).await;
    let mut measurement = world.open(&Plan::new(1)).await;
    let publisher = world.connect(PUBLISHERS[0]).await;
    let good = measurement.upload(registers(5, 1));
    measurement.computation.set_state(ComputationState::Cancelled);
    world.kingdom.report(&measurement.computation);
    // The report has been taken when the next measurement is under way.
    world.open(&Plan::new(2)).await;
    assert_refused(publisher.upload(&good).await, Code::FailedPrecondition, "is over");
    assert_eq!(world.kept_bodies(), 0);
}

/// The check of a body takes as long as it takes; a publisher that does not wait for it finds the body bound when it comes
/// again.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_is_bound_though_its_publisher_hangs_up_during_the_check() {
    let world = World::start(false).await;
    let measurement = world.open(&Plan::new(1)).await;
    let (sender, watcher) = (world.connect(PUBLISHERS[0]).await, world.connect(PUBLISHERS[0]).await);
    let upload = measurement.upload(registers(5_400, 1));
    let length = upload.body.len() as i64;
    {
        let sending = std::pin::pin!(sender.upload(&upload));
        let all_there = async {
            while held(&watcher, &upload).await.0 < length {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::select! {
            // Only on a machine that checks faster than a second connection can ask.
            answer = sending => drop(answer.unwrap()),
            () = all_there => {}
        }
    }
    drop(sender);
    tokio::time::timeout(Duration::from_secs(60), async {
        while held(&watcher, &upload).await != (length, true) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
    assert_taken(&world, &watcher, &measurement, &upload).await;
}
