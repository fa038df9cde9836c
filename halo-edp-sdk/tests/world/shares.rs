//! The share shuffle at the publisher: shares opened again and compared with what went in, and what is refused.

use std::ops::ControlFlow;

use halo_core::{
    measurement::{HmssVariant, Protocol},
    pb::api::{
        self, EncryptedMessage, RandomSeed, SignedMessage, requisition::duchy_entry::value::Protocol as EntryProtocol,
    },
    privacy::VidSamplingInterval,
    wire::type_name,
};
use halo_crypto::{
    secret::Secret,
    share::{self as shares, Modulus, Seed},
};
use halo_edp_sdk::{
    Error,
    answer::{self, Source},
    progress::{Progress, Unobserved},
    requisition::{Asked, Justification},
    share::{self, Encoding, Sharing},
};
use proptest::prelude::*;
use prost::Message;
use sha2::{Digest, Sha256};

use crate::{
    parties::{
        self, FULFILLING_WORKER, PUBLISHER, SEED_WORKER, WORKERS, World, reach, reach_and_frequency, share_shuffle,
    },
    protocols::{COMPATIBLE, Desk, handed_out_otherwise, opened, opened_by, opened_message, plain, rng},
    requisition::refused,
};

#[derive(Clone, PartialEq, prost::Message)]
struct WireVector {
    #[prost(uint32, repeated, tag = "1")]
    data: Vec<u32>,
}

fn decoded(body: &[u8], encoding: Encoding) -> Vec<u8> {
    match encoding {
        Encoding::Bytes => body.to_vec(),
        Encoding::Protobuf => {
            WireVector::decode(body).unwrap().data.into_iter().map(|cell| u8::try_from(cell).unwrap()).collect()
        }
    }
}

#[test]
fn shares_recombine_to_the_vector() {
    let vids = [3, 3, 3, 3, 8, 19, 19, 0];
    let native = HmssVariant::Native;
    let counted = || reach_and_frequency(3);
    for (question, variant, modulus, encoding, cap) in [
        (counted(), COMPATIBLE, 127, Encoding::Protobuf, 3),
        (counted(), native, 256, Encoding::Bytes, 3),
        (reach(1.0, 1e-6), COMPATIBLE, 127, Encoding::Protobuf, 1),
        (reach(1.0, 1e-6), native, 251, Encoding::Bytes, 1),
    ] {
        let world = World::of(question, share_shuffle(variant, "0..19"));
        let opened = opened(&world);
        assert_eq!(opened.duchy.as_ref().map(|duchy| duchy.as_str()), Some(FULFILLING_WORKER));
        let Asked::Shares(task) = &opened.asked else { panic!("{opened:?}") };
        let modulus = Modulus::new(modulus).unwrap();
        assert_eq!(task.sharing, Sharing { modulus, encoding });
        assert_eq!(task.certificate.to_string(), format!("{PUBLISHER}/certificates/AAAAAAAAAAg"));
        let key = parties::public_key(&world.worker_keysets[SEED_WORKER], &opened.binding.session);
        let keys = [(SEED_WORKER.parse().unwrap(), key.as_slice())];
        assert_eq!(opened.binding.key_list_hash, halo_core::session::key_list_hash(&keys));

        let (spooled, body) = Desk::new(&[("vid", &vids)]).answer(&world, &opened).unwrap();
        assert_eq!(spooled.manifest.record_count, 20);
        let mut cells = decoded(&body, encoding);
        let sealed = EncryptedMessage::decode(spooled.manifest.attachment.as_slice()).unwrap();
        let seed = opened_message(&world, &sealed, &world.worker_keysets[SEED_WORKER], type_name::RANDOM_SEED);
        let seed = RandomSeed::decode(seed.as_slice()).unwrap();
        assert_eq!((seed.requisition, seed.share_sha256), (opened.name.to_string(), Sha256::digest(&body).to_vec()));
        let mut first = vec![0; 20];
        Seed::from_slice(&seed.data).unwrap().generator().uniform(modulus, &mut first);
        assert_ne!(cells, plain(&vids, task.vector.population, cap));
        shares::add(modulus, &mut cells, &first).unwrap();
        assert_eq!(cells, plain(&vids, task.vector.population, cap));
    }
}

#[test]
fn a_sampled_vector_is_a_part_of_the_whole_one_and_may_wrap() {
    let mut world = World::of(reach_and_frequency(3), share_shuffle(HmssVariant::Native, "0..19"));
    let interval = VidSamplingInterval::new(0.75, 0.5).unwrap();
    world.spec.vid_sampling_interval =
        Some(api::measurement_spec::VidSamplingInterval { start: interval.start(), width: interval.width() });
    let opened = opened(&world);
    let Asked::Shares(task) = &opened.asked else { panic!("{opened:?}") };
    assert_eq!(task.vector.interval, interval);
    let (spooled, _) = Desk::new(&[("vid", &[3, 8])]).answer(&world, &opened).unwrap();
    assert_eq!(spooled.manifest.record_count, 10);
}

#[test]
fn a_publisher_without_impressions_shares_zeros() {
    let world = World::of(reach_and_frequency(3), share_shuffle(HmssVariant::Native, "0..19"));
    let (spooled, body) = Desk::new(&[("vid", &[])]).answer(&world, &opened(&world)).unwrap();
    assert_eq!((spooled.manifest.record_count, body.len()), (20, 20));
    assert!(body.iter().any(|cell| *cell != 0), "nobody can tell that there were none");
}

#[test]
fn the_share_of_a_requisition_is_made_once() {
    let world = World::of(reach_and_frequency(3), share_shuffle(COMPATIBLE, "0..19"));
    let (desk, opened) = (Desk::new(&[("vid", &[3])]), opened(&world));
    let (first, _) = desk.answer(&world, &opened).unwrap();
    assert_eq!(desk.spool.find(&opened.spool_name(), &opened.binding).unwrap(), Some(first));
    desk.spool.close(&opened.spool_name()).unwrap();
    let again = desk.answer(&world, &opened);
    assert!(matches!(&again, Err(Error::AlreadyAnswered { .. })), "{again:?}");
}

#[test]
fn sharing_can_be_stopped() {
    let world = World::of(reach_and_frequency(3), share_shuffle(COMPATIBLE, "0..19"));
    let (desk, opened) = (Desk::new(&[("vid", &[3])]), opened(&world));
    let events = desk.events();
    let source = Source { events: &events, seconds_per_impression: None };
    let mut stop = |_: Progress| ControlFlow::Break(());
    assert!(matches!(answer::read(&opened, &source, &mut stop), Err(Error::Interrupted)));
    let work = answer::read(&opened, &source, &mut Unobserved).unwrap();
    assert_eq!((work.impressions(), work.counted()), (1, 1));
    let outcome = work.spool(Some(&world.publisher.signer()), &desk.spool, &mut stop, &mut rng(1));
    assert!(matches!(outcome, Err(Error::Interrupted)));
    assert!(desk.spool.names().unwrap().is_empty());
    let work = answer::read(&opened, &source, &mut Unobserved).unwrap();
    let outcome = work.spool(None, &desk.spool, &mut Unobserved, &mut rng(1));
    assert!(matches!(outcome, Err(Error::NoSigner)));
}

#[test]
fn somebody_outside_of_the_population_is_named() {
    let world = World::of(reach_and_frequency(3), share_shuffle(COMPATIBLE, "0..19"));
    let mut vids = vec![5; 270_000];
    vids[269_998] = 987_654;
    let error = Desk::new(&[("vid", &vids)]).answer(&world, &opened(&world)).unwrap_err();
    assert!(matches!(error, Error::OutsidePopulation { row: 269_999, .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("0..19") && text.contains("[population]") && text.contains("events.parquet"), "{text}");
    assert!(!format!("{text}{error:?}").contains("987654"), "a VID is nobody's business: {text}");
}

#[test]
fn another_population_is_declined() {
    let world = World::of(reach_and_frequency(3), share_shuffle(COMPATIBLE, "0..19"));
    let declined = Justification::Declined;
    let outcome = opened_by(&world, |known| known.trust.population = Some("0..20".parse().unwrap()));
    refused(outcome, declined, "over the population 0..19; this publisher's is 0..20");
    assert!(opened_by(&world, |known| known.trust.population = Some("0..19".parse().unwrap())).is_ok());
    let outcome = opened_by(&world, |known| known.trust.maximum_population = 19);
    refused(outcome, declined, "has 20 people; this publisher numbers at most 19");
}

#[test]
fn the_modulus_holds_the_sum_of_all_publishers() {
    let asked = |frequency, ring_modulus| {
        let variant = HmssVariant::Compatible { ring_modulus };
        opened_by(&World::of(reach_and_frequency(frequency), share_shuffle(variant, "0..19")), |_| ())
    };
    // There are two publishers.
    let invalid = Justification::SpecInvalid;
    assert!(asked(5, 12).is_ok());
    refused(asked(5, 11), invalid, "11 is too small: with maximum frequency 5 and 2 publishers a cell adds up to 10");
    refused(asked(5, 300), invalid, "from 2 to 256");
    let native = |frequency| {
        opened_by(&World::of(reach_and_frequency(frequency), share_shuffle(HmssVariant::Native, "0..19")), |_| ())
    };
    assert!(native(127).is_ok());
    refused(native(128), invalid, "256 is too small");
    let world = World::of(reach(1.0, 1e-6), share_shuffle(HmssVariant::Compatible { ring_modulus: 128 }, "0..19"));
    refused(opened_by(&world, |_| ()), invalid, "128 is no prime");
}

#[test]
fn the_workers_are_those_of_the_configuration() {
    let world = World::of(reach_and_frequency(3), share_shuffle(COMPATIBLE, "0..19"));
    let invalid = Justification::SpecInvalid;
    let workers = "must be the workers worker1 and worker2, and nobody else";
    refused(handed_out_otherwise(&world, |requisition| drop(requisition.duchies.pop())), invalid, workers);
    let outcome = handed_out_otherwise(&world, |requisition| {
        requisition.duchies.push(requisition.duchies[0].clone());
        requisition.duchies[2].key = "duchies/aggregator".to_owned();
    });
    refused(outcome, invalid, workers);
    let outcome = handed_out_otherwise(&world, |requisition| {
        requisition.duchies.push(requisition.duchies[0].clone());
    });
    refused(outcome, invalid, "worker1 is listed twice");
    let outcome = handed_out_otherwise(&world, |requisition| {
        let other = requisition.duchies[0].value.as_ref().unwrap().protocol.clone();
        requisition.duchies[1].value.as_mut().unwrap().protocol = other;
    });
    refused(outcome, invalid, "duchy worker2: takes the upload and has a key");
    let outcome = handed_out_otherwise(&world, |requisition| {
        requisition.duchies[0].value.as_mut().unwrap().protocol = None;
    });
    refused(outcome, invalid, "duchy worker1: has no entry for the share shuffle");

    // All three are known, the aggregator too, which has no entry.
    let outcome = opened_by(&world, |known| drop(known.trust.duchies.remove(&"aggregator".parse().unwrap())));
    refused(outcome, Justification::ConsentSignalInvalid, "duchy aggregator takes part, which this publisher does not");
    let outcome = opened_by(&world, |known| known.trust.minimum_duchies = 4);
    refused(outcome, Justification::Declined, "3 Duchies compute together; this publisher asks for 4");
    let mut alone = share_shuffle(COMPATIBLE, "0..19");
    let Protocol::Hmss(hmss) = &mut alone else { panic!("{alone:?}") };
    hmss.aggregator = hmss.first_worker.clone();
    let world = World::of(reach_and_frequency(3), alone);
    refused(opened_by(&world, |_| ()), invalid, "must be three Duchies");
}

/// The key in the entry of the worker that takes the seed.
fn worker_key(requisition: &mut api::Requisition) -> &mut Option<SignedMessage> {
    match requisition.duchies[0].value.as_mut().unwrap().protocol.as_mut().unwrap() {
        EntryProtocol::HonestMajorityShareShuffle(protocol) => &mut protocol.public_key,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_workers_key_is_signed_by_the_worker() {
    let world = World::of(reach_and_frequency(3), share_shuffle(COMPATIBLE, "0..19"));
    let invalid = Justification::ConsentSignalInvalid;
    let outcome = handed_out_otherwise(&world, |requisition| *worker_key(requisition) = None);
    refused(outcome, invalid, "duchy worker1: key: is missing");
    // Whoever was shown another configuration has drawn its key for another session.
    let mut elsewhere = World::of(reach_and_frequency(3), share_shuffle(COMPATIBLE, "0..19"));
    elsewhere.other_session = Some([7; 32]);
    refused(opened_by(&elsewhere, |_| ()), invalid, "duchy worker1: its key was drawn for another session");
    let outcome = handed_out_otherwise(&world, |requisition| {
        let message = worker_key(requisition).as_mut().unwrap().message.as_mut().unwrap();
        message.value = parties::public_key(&world.worker_keysets[WORKERS[1]], &[]);
    });
    refused(outcome, invalid, "duchy worker1: key: signature does not verify");
    let outcome = handed_out_otherwise(&world, |requisition| {
        let certificate = requisition.duchies[1].value.as_ref().unwrap().duchy_certificate.clone();
        requisition.duchies[0].value.as_mut().unwrap().duchy_certificate = certificate;
    });
    refused(outcome, invalid, "is no certificate of this Duchy");
    let stranger = parties::authority("stranger");
    let outcome = opened_by(&world, |known| {
        let roots = halo_crypto::consent::x509::TrustRoots::from_der(vec![stranger.der().to_vec()]).unwrap();
        known.trust.duchies.insert(SEED_WORKER.parse().unwrap(), roots);
    });
    refused(outcome, invalid, "none of the trusted roots");
    // Signed, and no key.
    let mut broken = World::of(reach_and_frequency(3), share_shuffle(COMPATIBLE, "0..19"));
    broken.broken_worker_key = true;
    refused(opened_by(&broken, |_| ()), invalid, "TINK_KEYSET");
}

#[test]
fn what_is_signed_needs_the_certificate_that_others_know() {
    let world = World::of(reach_and_frequency(3), share_shuffle(COMPATIBLE, "0..19"));
    let invalid = Justification::ConsentSignalInvalid;
    let outcome = opened_by(&world, |known| known.signer = None);
    refused(outcome, Justification::Unfulfillable, "this publisher signs nothing");
    let outcome = handed_out_otherwise(&world, |requisition| {
        requisition.data_provider_certificate = "dataProviders/AAAAAAAAAAk/certificates/AAAAAAAAAAg".to_owned();
    });
    refused(outcome, invalid, "is no certificate of this publisher");
    let outcome = handed_out_otherwise(&world, |requisition| requisition.data_provider_certificate.clear());
    refused(outcome, invalid, "data_provider_certificate");
    let outcome = opened_by(&world, |known| known.certificates.publisher = world.consumer.certificate.der().to_vec());
    refused(outcome, invalid, "is not the certificate that this publisher signs with");
}

/// Shares of one and the same vector are uniform: chi-square over the values below q, n = 200000 cells of seed 11, and
/// α = 0.001 by the approximation of Wilson and Hilferty.
#[test]
fn one_share_alone_is_uniform() {
    const Z: f64 = 3.090;
    for (modulus, encoding) in [(127, Encoding::Protobuf), (256, Encoding::Bytes), (251, Encoding::Bytes)] {
        let sharing = Sharing { modulus: Modulus::new(modulus).unwrap(), encoding };
        let cells: Vec<u8> = (0..200_000).map(|place| u8::from(place % 10 == 0) * 7).collect();
        let mut body = Vec::new();
        share::share(cells, &sharing, &mut body, &mut Unobserved, &mut rng(11)).unwrap();
        let mut counts = vec![0_f64; modulus as usize];
        decoded(&body, encoding).iter().for_each(|cell| counts[usize::from(*cell)] += 1.0);
        let expected = 200_000.0 / f64::from(modulus);
        let statistic: f64 = counts.iter().map(|count| (count - expected).powi(2) / expected).sum();
        let freedom = f64::from(modulus - 1);
        let step = 2.0 / (9.0 * freedom);
        let bound = |z: f64| freedom * (1.0 - step + z * step.sqrt()).powi(3);
        assert!((bound(-Z)..bound(Z)).contains(&statistic), "q = {modulus}: {statistic}");
    }
}

proptest! {
    #[test]
    fn any_vector_comes_back_from_its_shares(
        modulus in 2_u32..=256,
        numbers in prop::collection::vec(any::<u8>(), 0..500),
        protobuf in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let cells: Vec<u8> = numbers.iter().map(|number| (u32::from(*number) % modulus) as u8).collect();
        let encoding = if protobuf { Encoding::Protobuf } else { Encoding::Bytes };
        let sharing = Sharing { modulus: Modulus::new(modulus).unwrap(), encoding };
        let mut body = Vec::new();
        let seed = share::share(cells.clone(), &sharing, &mut body, &mut Unobserved, &mut rng(seed)).unwrap();
        let mut sum = decoded(&body, encoding);
        if protobuf {
            let data = sum.iter().map(|cell| u32::from(*cell)).collect();
            prop_assert_eq!(WireVector { data }.encode_to_vec(), body);
        }
        prop_assert_eq!(sum.len(), cells.len());
        prop_assert_eq!(&sum, &shares::second_share(sharing.modulus, &seed, &cells).unwrap());
        let mut first = vec![0; cells.len()];
        Seed::new(Secret::new(*seed.expose())).generator().uniform(sharing.modulus, &mut first);
        shares::add(sharing.modulus, &mut sum, &first).unwrap();
        prop_assert_eq!(sum, cells);
    }
}

#[test]
fn a_cell_above_the_modulus_is_an_error() {
    let sharing = Sharing { modulus: Modulus::new(7).unwrap(), encoding: Encoding::Bytes };
    let outcome = share::share(vec![1, 7], &sharing, &mut Vec::new(), &mut Unobserved, &mut rng(1));
    assert!(outcome.unwrap_err().to_string().contains("element 1 is 7"));
}
