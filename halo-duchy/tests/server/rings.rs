//! Both Liquid Legions protocols from end to end, over three Duchies.

use std::collections::{BTreeMap, BTreeSet};

use halo_core::{
    measurement::{Llv2Config, Protocol, Rollv2Config},
    pb::{
        api::measurement::result::reach::Methodology,
        system::{computation::State, computation_participant::requisition_params},
    },
    wire,
};
use halo_crypto::{
    batch,
    consent::x509::Certificate,
    elgamal::{CompositeKey, KeyShare},
    group::{Point, Scalar},
    hash::{self, Domain},
    proof::PossessionContext,
};

use crate::{
    keys::assert_destroyed,
    measurement::Upload,
    trio::{Study, Trio, WITHOUT_NOISE, assert_blames},
    world::{DUCHIES, id, rng},
};

/// Index, key and count of a register.
type Register = (u64, u64, u64);

const SKETCHES: [&[Register]; 2] =
    [&[(1, 11, 2), (2, 12, 1), (3, 13, 5), (9, 19, 1)], &[(2, 12, 2), (3, 99, 1), (4, 14, 1), (9, 19, 1), (77, 1, 1)]];

fn rollv2() -> Protocol {
    Protocol::Rollv2(Rollv2Config {
        decay_rate: 12.0,
        max_size: 100_000,
        noise: None,
        aggregator: "aggregator".parse().unwrap(),
    })
}

fn llv2() -> Protocol {
    Protocol::Llv2(Llv2Config {
        decay_rate: 12.0,
        max_size: 100_000,
        sampling_indicator_size: 10_000_000,
        noise: None,
        aggregator: "aggregator".parse().unwrap(),
    })
}

/// The key of all Duchies.
fn composite(study: &Study<'_>) -> CompositeKey {
    let shares = study.keys().into_iter().map(|(duchy, key)| {
        let parts = &study.computation.computation_participants;
        let part = parts.iter().find(|part| id(&part.name) == duchy.as_str()).unwrap();
        let der = &part.requisition_params.as_ref().unwrap().duchy_certificate_der;
        let context = PossessionContext {
            session: study.session(),
            duchy: duchy.as_str(),
            certificate_sha256: Certificate::from_der(der).unwrap().sha256(),
        };
        let key = wire::parse_el_gamal_public_key(&key).unwrap();
        KeyShare::from_bytes(key.element).verify_possession(&context, &key.proof_of_possession).unwrap()
    });
    CompositeKey::combine(&shares.collect::<Vec<_>>()).unwrap()
}

fn upload(study: &Study<'_>, publisher: usize) -> Upload {
    let sketch = SKETCHES[publisher];
    let index = |index: u64| hash::hash_to_group(Domain::Index, index.to_string().as_bytes());
    let points: Vec<Point> = match &study.config.protocol {
        Protocol::Rollv2(_) => sketch.iter().map(|(at, ..)| index(*at)).collect(),
        _ => sketch
            .iter()
            .flat_map(|(at, key, count)| {
                let key = hash::hash_to_group(Domain::Key, (key + 1).to_string().as_bytes());
                [index(*at), key, hash::constant("unit") * &Scalar::from(*count)]
            })
            .collect(),
    };
    let nonces: Vec<Scalar> = points.iter().map(|_| Scalar::random(&mut rng())).collect();
    let mut body = Vec::new();
    batch::encode_ciphertexts(&batch::encrypt(&composite(study), &points, &nonces), &mut body);
    study.upload(publisher, study.key_list_hash(|_| true), sketch.len(), body)
}

/// How many registers have each index.
fn reached() -> usize {
    let indexes: BTreeSet<u64> = SKETCHES.iter().flat_map(|sketch| sketch.iter().map(|(index, ..)| *index)).collect();
    indexes.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn reach_only_counts_the_different_registers_whoever_is_stopped() {
    let trio = Trio::start(WITHOUT_NOISE).await;
    let mut study = trio.open(1, rollv2(), None).await;
    let uploads = [upload(&study, 0), upload(&study, 1)];
    study.fulfill([&uploads[0], &uploads[1]]).await;
    study.confirm().await;
    // In the middle: the others have begun and wait for it.
    for duchy in DUCHIES {
        trio.stop(duchy).await;
        trio.revive(duchy).await;
    }
    trio.stop(DUCHIES[1]).await;
    study.report(State::PendingComputation);
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    trio.revive(DUCHIES[1]).await;
    let result = study.result().await;
    let reach = result.reach.unwrap();
    assert_eq!((reach.registers_in, reach.active_registers), (9, reached() as i64));
    assert!(matches!(reach.methodology, Some(Methodology::ReachOnlyLiquidLegionsV2(_))));
    assert!(reach.value >= reach.active_registers && reach.standard_error > 0.0);
    assert_eq!(result.frequency, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn liquid_legions_counts_frequencies_too() {
    let trio = Trio::start(WITHOUT_NOISE).await;
    let mut study = trio.open(1, llv2(), Some(3)).await;
    let uploads = [upload(&study, 0), upload(&study, 1)];
    let result = study.finish([&uploads[0], &uploads[1]]).await;
    let reach = result.reach.unwrap();
    assert_eq!((reach.registers_in, reach.active_registers), (9, reached() as i64));
    // Register 3 has two keys, so that nobody's frequency is known.
    let mut counts: BTreeMap<u64, (BTreeSet<u64>, u64)> = BTreeMap::new();
    for (index, key, count) in SKETCHES.iter().copied().flatten() {
        let entry = counts.entry(*index).or_default();
        entry.0.insert(*key);
        entry.1 += count;
    }
    let mut histogram = vec![0; 3];
    for (keys, count) in counts.values().filter(|(keys, _)| keys.len() == 1) {
        assert_eq!(keys.len(), 1);
        histogram[(*count).min(3) as usize - 1] += 1;
    }
    assert_eq!(result.frequency.unwrap().usable_histogram, histogram);
    assert_destroyed(&trio, &mut study).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reach_only_refuses_what_it_cannot_measure_and_keys_of_another_protocol() {
    let trio = Trio::start(WITHOUT_NOISE).await;
    let study = trio.plan(1, rollv2(), Some(3));
    trio.kingdom.report(&study.computation);
    let failure = study.given_up_by(DUCHIES[0]).await;
    assert_blames(&failure, "REACH for this protocol", &["kingdom"]);
    let mut study = trio.open(2, rollv2(), None).await;
    let uploads = [upload(&study, 0), upload(&study, 1)];
    study.fulfill([&uploads[0], &uploads[1]]).await;
    // The same key, for another protocol.
    let part = study.computation.computation_participants.iter_mut().find(|part| part.name.ends_with("worker1"));
    let params = part.unwrap().requisition_params.as_mut().unwrap();
    if let Some(requisition_params::Protocol::ReachOnlyLiquidLegionsV2(key)) = params.protocol.take() {
        params.protocol = Some(requisition_params::Protocol::LiquidLegionsV2(key));
    }
    study.report(State::PendingParticipantConfirmation);
    let failure = study.given_up_by(DUCHIES[0]).await;
    assert_blames(&failure, "duchy worker1: it gave no key for the protocol rollv2", &[DUCHIES[1], "kingdom"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_noise_only_where_that_is_allowed() {
    let trio = Trio::start("").await;
    let study = trio.plan(1, rollv2(), None);
    trio.kingdom.report(&study.computation);
    assert_blames(&study.given_up_by(DUCHIES[2]).await, "(allow_no_noise)", &[]);
}
