//! What the Duchies of a share shuffle send each other: who sends something else is named.

use halo_core::{
    measurement::HmssVariant,
    pb::system::{
        self, advance_computation_request as delivery, computation::State, honest_majority_share_shuffle::Description,
    },
};
use sha2::{Digest, Sha256};
use tonic::Code;

use crate::{
    caller::assert_refused,
    measurement::Delivery,
    shares::{WORKERS, hmss, uploads},
    trio::{Study, Trio, WITHOUT_NOISE, assert_blames},
    world::ME,
};

/// What a Duchy delivers to another one.
fn message(study: &Study<'_>, description: Description, body: Vec<u8>) -> Delivery {
    let shuffle = system::HonestMajorityShareShuffle { description: description.into() };
    let header = delivery::Header {
        name: study.computation.name.clone(),
        protocol: Some(delivery::header::Protocol::HonestMajorityShareShuffle(shuffle)),
        body_length: body.len() as i64,
        record_count: body.len() as i64,
        body_sha256: Sha256::digest(&body).to_vec(),
        offset: 0,
    };
    Delivery { header, body }
}

/// Everybody has confirmed and may begin, but one Duchy is not there.
async fn without<'a>(trio: &'a Trio, number: u64, absent: &'static str) -> Study<'a> {
    let mut study = trio.open(number, hmss(HmssVariant::Native), Some(4)).await;
    let uploads = uploads(&study);
    study.fulfill([&uploads[0], &uploads[1]]).await;
    study.confirm().await;
    trio.stop(absent).await;
    study.report(State::PendingComputation);
    study
}

/// Delivers as soon as the receiver waits for it.
async fn deliver(study: &Study<'_>, to: &'static str, from: &str, delivery: &Delivery) -> tonic::Status {
    let caller = study.trio.connect(to, from).await;
    loop {
        match caller.deliver(delivery).await {
            Err(status) if status.message().contains("not awaited here yet") => {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
            outcome => return outcome.unwrap_err(),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_passes_on_other_seeds_is_named() {
    let trio = Trio::start(WITHOUT_NOISE).await;
    let [first, second] = WORKERS;
    // No seeds at all; bytes that mean nothing.
    let nothing = [&[1][..], &[7; 48], &[0; 4]].concat();
    for (number, (body, words)) in
        (1..).zip([(nothing, "does not pass on the seeds of exactly those"), (vec![9; 60], "its version is not known")])
    {
        let study = without(&trio, number, first).await;
        let bad = message(&study, Description::ShufflePhaseInputOne, body);
        // The wrong sender, and the right one with the other's number.
        let own = message(&study, Description::ShufflePhaseInputTwo, bad.body.clone());
        for (sender, delivery, words) in
            [(ME, &bad, "1 is none that aggregator sends"), (first, &own, "2 is none that worker1 sends")]
        {
            let status = deliver(&study, second, sender, delivery).await;
            assert_refused(Err::<(), _>(status), Code::InvalidArgument, words);
        }
        let status = deliver(&study, second, first, &bad).await;
        assert_refused(Err::<(), _>(status), Code::InvalidArgument, words);
        let failure = study.given_up_by(second).await;
        assert_blames(&failure, "a record from duchy worker1 is not acceptable", &[first]);
        trio.revive(first).await;
    }
}

/// Whatever the largest body is: the message is read at once, so it is short.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_between_workers_is_short() {
    let trio = Trio::start(WITHOUT_NOISE).await;
    let [first, second] = WORKERS;
    let study = without(&trio, 1, first).await;
    let mut long = message(&study, Description::ShufflePhaseInputOne, Vec::new());
    long.header.body_length = (16 << 20) + 1;
    long.header.record_count = long.header.body_length;
    let status = deliver(&study, second, first, &long).await;
    let words = "a body of 16777217 bytes is larger than the 16777216 bytes accepted here";
    assert_refused(Err::<(), _>(status), Code::InvalidArgument, words);
    trio.revive(first).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn vectors_of_another_length_or_with_other_cells_name_the_worker() {
    let trio = Trio::start(WITHOUT_NOISE).await;
    let first = WORKERS[0];
    let study = without(&trio, 1, first).await;
    let description = Description::AggregationPhaseInput;
    // Too short: noticed when both are there. The second worker waits for a seed that never comes, so it is played too.
    let short = message(&study, description, vec![0; 11]);
    let caller = trio.connect(ME, first).await;
    caller.deliver(&short).await.unwrap();
    caller.deliver(&short).await.unwrap();
    let other = message(&study, description, vec![1; 11]);
    assert_refused(caller.deliver(&other).await, Code::FailedPrecondition, "is bound to another body");
    let second = message(&study, description, vec![0; 12]);
    trio.connect(ME, WORKERS[1]).await.deliver(&second).await.unwrap();
    let failure = study.given_up_by(ME).await;
    assert_blames(&failure, "from worker1 has another number of records than is due", &[first]);
    trio.revive(first).await;
    // A sum that no frequency has: a worker's work, or a publisher's, which the aggregator cannot tell.
    let study = without(&trio, 2, first).await;
    for worker in WORKERS {
        let vector = message(&study, description, vec![100; 12]);
        trio.connect(ME, worker).await.deliver(&vector).await.unwrap();
    }
    let failure = study.given_up_by(ME).await;
    assert_blames(&failure, "shares add up to a number that no frequency has", &[]);
}
