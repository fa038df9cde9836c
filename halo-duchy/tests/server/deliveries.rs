//! The door between Duchies: a body is taken from the Duchy that owes it, for the step that waits for it, and once.

use halo_core::pb::{
    halo::GetTransferRequest,
    system::{computation::State, liquid_legions_v2::Description},
};
use halo_crypto::group::Point;
use sha2::{Digest, Sha256};
use tonic::Code;

use crate::{
    caller::{Caller, assert_refused},
    kingdom::PATIENCE,
    measurement::{Delivery, Measurement, Plan, REGISTER, registers},
    world::{BYSTANDER, DUCHIES, ME, PUBLISHERS, World, id},
};

const WAIT_SETUP_PHASE_INPUTS: i32 = 5;
const WAIT_EXECUTION_PHASE_ONE_INPUTS: i32 = 7;
const COMPLETE: i32 = 13;

/// A Duchy that has confirmed a measurement and waits for both workers' registers.
async fn confirmed(number: u64) -> (World, Measurement) {
    let world = World::start(true).await;
    let measurement = confirm(&world, number).await;
    (world, measurement)
}

async fn confirm(world: &World, number: u64) -> Measurement {
    let mut measurement = world.open(&Plan::without_noise(number)).await;
    world.fulfill(&mut measurement, |_| {}).await;
    world.assert_confirmed(&measurement).await;
    measurement.computation.set_state(State::PendingComputation);
    world.kingdom.report(&measurement.computation);
    until(&world.connect(DUCHIES[1]).await, &measurement, WAIT_SETUP_PHASE_INPUTS).await;
    measurement
}

/// Waits until the Duchy has come to a stage.
async fn until(peer: &Caller, measurement: &Measurement, stage: i32) {
    let waiting = async {
        while self::stage(peer, measurement).await != stage {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap();
}

/// The number of the Duchy's stage.
async fn stage(peer: &Caller, measurement: &Measurement) -> i32 {
    use halo_core::pb::system::computation_stage::Stage;
    let name = format!("{}/participants/{}/computationStage", measurement.computation.name, id(ME));
    match peer.stage(name).await.unwrap().stage {
        Some(Stage::LiquidLegionsV2Stage(stage)) => stage.stage,
        other => panic!("{other:?}"),
    }
}

/// How many bytes of a delivery the Duchy holds, and whether it is complete.
async fn held(peer: &Caller, delivery: &Delivery, description: Description) -> (i64, bool) {
    let query = GetTransferRequest {
        name: delivery.header.name.clone(),
        description: description.into(),
        body_sha256: delivery.header.body_sha256.clone(),
    };
    let transfer = peer.transferred(query).await.unwrap();
    (transfer.received_length, transfer.complete)
}

/// The right delivery is taken, however often it is sent.
async fn assert_taken(peer: &Caller, good: &Delivery) {
    for _ in 0..2 {
        assert_eq!(peer.deliver(good).await.unwrap().received_length, good.body.len() as i64);
    }
}

#[tokio::test]
async fn refused_bodies_leave_nothing_behind() {
    let (world, measurement) = confirmed(1).await;
    let kept = world.kept_bodies();
    let worker = world.connect(DUCHIES[1]).await;
    let setup = Description::SetupPhaseInput;
    let good = measurement.delivery(setup, registers(4, 2));
    let sent_with_the_header_of_good = |body: Vec<u8>| Delivery { body, ..good.clone() };
    let headed = |change: &dyn Fn(&mut Delivery)| {
        let mut delivery = good.clone();
        change(&mut delivery);
        delivery
    };
    let mut altered = good.body.clone();
    altered[500] ^= 1;
    let longer = [&good.body[..], &registers(1, 3)].concat();
    for (delivery, words) in [
        (sent_with_the_header_of_good(altered), "SHA-256"),
        (sent_with_the_header_of_good(longer), "more than the 768 bytes announced; nothing of the body is kept"),
        (headed(&|d| d.header.record_count = 3), "3 records of 192 bytes are not 768 bytes"),
        (
            headed(&|d| (d.header.record_count, d.header.body_length) = (5462, 5462 * 192)),
            "a body of 1048704 bytes is larger than the 1048576 bytes accepted here",
        ),
        (headed(&|d| d.header.body_sha256.truncate(31)), "header.body_sha256: it has 31 bytes"),
        (headed(&|d| d.header.protocol = None), "header.protocol: it is not that of the computation, which is llv2"),
        (headed(&|d| d.header.name = "computations".to_owned()), "header.name"),
    ] {
        assert_refused(worker.deliver(&delivery).await, Code::InvalidArgument, words);
        assert_eq!(world.kept_bodies(), kept, "after {words:?}");
        assert_eq!(held(&worker, &good, setup).await, (0, false), "after {words:?}");
        assert_eq!(stage(&worker, &measurement).await, WAIT_SETUP_PHASE_INPUTS, "after {words:?}");
    }
    let no_step = measurement.delivery(Description::Unspecified, good.body.clone());
    assert_refused(worker.deliver(&no_step).await, Code::InvalidArgument, "description: 0 is none");
    assert_taken(&worker, &good).await;
    assert_eq!(held(&worker, &good, setup).await, (768, true));
}

#[tokio::test]
async fn a_body_that_its_sender_made_badly_ends_the_measurement_and_names_the_sender() {
    let world = World::start(true).await;
    let identity = *Point::identity().encode().as_bytes();
    for (number, (position, element, words)) in (1..).zip([
        (3 * REGISTER + 32, [0xff; 32], "record 3 of the body is not acceptable: a component is not"),
        (REGISTER + 128, identity, "record 1 of the body is not acceptable: its first component is"),
    ]) {
        let measurement = confirm(&world, number).await;
        let worker = world.connect(DUCHIES[1]).await;
        let mut body = registers(4, 2);
        body[position..position + 32].copy_from_slice(&element);
        let bad = measurement.delivery(Description::SetupPhaseInput, body);
        assert_refused(worker.deliver(&bad).await, Code::InvalidArgument, words);
        // The Kingdom, and so the consumer, learns who, and not where in which body.
        let told = "a record from duchy worker1 is not acceptable";
        world.assert_failed(&measurement.computation, told, &[DUCHIES[1]]).await;
        until(&worker, &measurement, COMPLETE).await;
        assert_eq!(held(&worker, &bad, Description::SetupPhaseInput).await, (0, false));
        let late = measurement.delivery(Description::SetupPhaseInput, registers(4, 2));
        assert_refused(worker.deliver(&late).await, Code::Unavailable, "is over here");
        world.assert_nothing_kept().await;
    }
    let measurement = confirm(&world, 1000).await;
    let good = measurement.delivery(Description::SetupPhaseInput, registers(4, 2));
    assert_taken(&world.connect(DUCHIES[1]).await, &good).await;
}

#[tokio::test]
async fn a_truncated_delivery_goes_on_where_it_was_cut() {
    let (world, measurement) = confirmed(1).await;
    let worker = world.connect(DUCHIES[1]).await;
    let setup = Description::SetupPhaseInput;
    let good = measurement.delivery(setup, registers(4, 2));
    let cut = Delivery { body: good.body[..333].to_vec(), ..good.clone() };
    let words = "333 of 768 bytes are stored; go on with offset 333";
    assert_refused(worker.deliver(&cut).await, Code::Aborted, words);
    assert_eq!(held(&worker, &good, setup).await, (333, false));
    // What one Duchy has sent is not another's.
    let other = world.connect(DUCHIES[2]).await;
    assert_eq!(held(&other, &good, setup).await, (0, false));
    assert_refused(worker.deliver(&good).await, Code::OutOfRange, "go on with offset 333 instead of 0");
    let mut rest = good.clone();
    rest.header.offset = 333;
    assert_eq!(worker.deliver(&rest).await.unwrap().received_length, 768);
    assert_taken(&worker, &good).await;
}

#[tokio::test]
async fn the_first_complete_delivery_stays() {
    let (world, measurement) = confirmed(1).await;
    let worker = world.connect(DUCHIES[1]).await;
    let good = measurement.delivery(Description::SetupPhaseInput, registers(4, 2));
    let other = measurement.delivery(Description::SetupPhaseInput, registers(4, 3));
    for _ in 0..2 {
        assert_taken(&worker, &good).await;
        assert_refused(worker.deliver(&other).await, Code::FailedPrecondition, "is bound to another body");
    }
    // The other worker's input is its own affair, and ends the wait.
    assert_taken(&world.connect(DUCHIES[2]).await, &other).await;
    until(&worker, &measurement, WAIT_EXECUTION_PHASE_ONE_INPUTS).await;
    // Consumed, and bound all the same.
    assert_taken(&worker, &good).await;
    assert_refused(worker.deliver(&other).await, Code::FailedPrecondition, "is bound to another body");
}

#[tokio::test]
async fn only_the_duchy_that_owes_a_body_delivers_it() {
    let (world, measurement) = confirmed(1).await;
    let kept = world.kept_bodies();
    let good = measurement.delivery(Description::SetupPhaseInput, registers(4, 2));
    let bystander = world.connect(BYSTANDER).await;
    assert_refused(bystander.deliver(&good).await, Code::PermissionDenied, "another Duchy owes it");
    let name = format!("{}/participants/{}/computationStage", measurement.computation.name, id(ME));
    assert_refused(bystander.stage(name).await, Code::NotFound, "there is no computation");
    let publisher = world.connect(PUBLISHERS[0]).await;
    assert_refused(publisher.deliver(&good).await, Code::PermissionDenied, "is no Duchy");
    assert_eq!(world.kept_bodies(), kept);

    for worker in &DUCHIES[1..] {
        assert_taken(&world.connect(worker).await, &good).await;
    }
    // The vector goes around: the last worker owes the next one, not the first.
    let [first, last] = measurement.workers();
    let last = world.connect(&last).await;
    until(&last, &measurement, WAIT_EXECUTION_PHASE_ONE_INPUTS).await;
    let next = measurement.delivery(Description::ExecutionPhaseOneInput, registers(13, 4));
    let first = world.connect(&first).await;
    assert_refused(first.deliver(&next).await, Code::PermissionDenied, "another Duchy owes it");
    assert_eq!(held(&first, &next, Description::ExecutionPhaseOneInput).await, (0, false));
    assert_taken(&last, &next).await;
}

#[tokio::test]
async fn a_step_that_does_not_wait_takes_nothing() {
    let (world, measurement) = confirmed(1).await;
    let kept = world.kept_bodies();
    let worker = world.connect(DUCHIES[1]).await;
    for step in [
        Description::ExecutionPhaseOneInput,
        Description::ExecutionPhaseTwoInput,
        Description::ExecutionPhaseThreeInput,
    ] {
        let early = measurement.delivery(step, registers(4, 2));
        assert_refused(worker.deliver(&early).await, Code::Unavailable, "is not awaited here yet; try again");
        assert_eq!((world.kept_bodies(), held(&worker, &early, step).await), (kept, (0, false)));
    }
    assert_taken(&worker, &measurement.delivery(Description::SetupPhaseInput, registers(4, 2))).await;
}

#[tokio::test]
async fn a_body_for_another_computation_stays_with_that_computation() {
    let (world, measurement) = confirmed(1).await;
    let other = confirm(&world, 2).await;
    let kept = world.kept_bodies();
    let setup = Description::SetupPhaseInput;
    let worker = world.connect(DUCHIES[1]).await;
    let good = measurement.delivery(setup, registers(4, 2));
    // The Kingdom may be about to tell of it, so the sender is not told to give up.
    let unheard_of = Plan::new(3).measurement(&world).delivery(setup, good.body.clone());
    assert_refused(worker.deliver(&unheard_of).await, Code::Unavailable, "is not awaited here yet; try again");
    assert_eq!(world.kept_bodies(), kept);

    assert_taken(&worker, &other.delivery(setup, good.body.clone())).await;
    assert_eq!(held(&worker, &good, setup).await, (0, false), "what one computation got is not the other's");
    let mine = measurement.delivery(setup, registers(4, 5));
    assert_taken(&worker, &mine).await;
    assert_refused(worker.deliver(&good).await, Code::FailedPrecondition, "is bound to another body");

    let mut cancelled = other.computation.clone();
    cancelled.set_state(State::Cancelled);
    world.kingdom.report(&cancelled);
    world.open(&Plan::new(4)).await;
    let late = other.delivery(setup, registers(4, 6));
    let second = world.connect(DUCHIES[2]).await;
    assert_refused(second.deliver(&late).await, Code::Unavailable, "is over here");
}

#[tokio::test]
async fn an_empty_body_is_a_body() {
    let (world, measurement) = confirmed(1).await;
    let empty = measurement.delivery(Description::SetupPhaseInput, Vec::new());
    assert_eq!(empty.header.body_sha256, Sha256::digest([]).to_vec());
    for worker in &DUCHIES[1..] {
        assert_taken(&world.connect(worker).await, &empty).await;
    }
    until(&world.connect(DUCHIES[1]).await, &measurement, WAIT_EXECUTION_PHASE_ONE_INPUTS).await;
}
