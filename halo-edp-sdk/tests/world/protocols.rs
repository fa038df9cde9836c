//! What a publisher makes for each protocol, opened again and compared with what went in; and what it refuses.

use std::{collections::BTreeMap, ops::ControlFlow, path::PathBuf, sync::Arc};

use arrow_array::{ArrayRef, Int64Array, RecordBatch};
use halo_core::{
    measurement::{HmssVariant, Population, Protocol, TrusteeNoise, TrusteeThresholds},
    pb::api::{
        self, DifferentialPrivacyParams, EncryptedMessage, RandomSeed, SignedMessage,
        fulfill_requisition_request::header::{TrusTee, trus_tee},
        measurement::Result as MeasurementResult,
        measurement_spec::{Duration, Impression, MeasurementType},
        protocol_config::NoiseMechanism as WireMechanism,
        requisition::duchy_entry::value::Protocol as EntryProtocol,
    },
    privacy::{NoiseMechanism, PrivacyParams, VidSamplingInterval},
    wire::type_name,
};
use halo_crypto::{
    attestation::SimulatedVerifier,
    batch,
    consent::tink::PrivateKeyset,
    envelope::{self, DataKey, Decryptor, HybridKey},
    hash::{self, Domain},
    secret::Secret,
    share::{self as shares, Modulus, Seed},
};
use halo_edp_sdk::{
    Error,
    answer::{self, Source},
    direct::Ask,
    encrypt::{INDEX_BYTES, Layout},
    progress::{Progress, Unobserved},
    requisition::{Asked, Justification, OpenedRequisition, Question, Refusal},
    share::{self, Encoding, Sharing},
    spool::{Spool, Spooled},
};
use halo_sketch::{frequency_vector::VidIndexMap, liquid_legions::Params};
use parquet::arrow::ArrowWriter;
use proptest::prelude::*;
use prost::Message;
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use sha2::{Digest, Sha256};

use crate::{
    parties::{
        self, FULFILLING_WORKER, PUBLISHER, SEED_WORKER, TRUSTEE, WORKERS, World, reach, reach_and_frequency,
        reach_only, share_shuffle, trustee,
    },
    requisition::{Known, refused},
};

const COMPATIBLE: HmssVariant = HmssVariant::Compatible { ring_modulus: 127 };

fn rng(seed: u64) -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(seed)
}

/// A directory with events and a spool.
struct Desk {
    directory: tempfile::TempDir,
    spool: Spool,
}

impl Desk {
    fn new(columns: &[(&str, &[i64])]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let spool = Spool::open(&directory.path().join("spool")).unwrap();
        let columns = columns.iter().map(|(name, values)| {
            let values: ArrayRef = Arc::new(Int64Array::from(values.to_vec()));
            (*name, values)
        });
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let file = std::fs::File::create(directory.path().join("events.parquet")).unwrap();
        let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        Self { directory, spool }
    }

    fn events(&self) -> PathBuf {
        self.directory.path().join("events.parquet")
    }

    /// The answer, with the bytes of its body.
    fn answer(&self, world: &World, opened: &OpenedRequisition) -> Result<(Spooled, Vec<u8>), Error> {
        let events = self.events();
        let source = Source { events: &events, seconds_per_impression: None };
        let work = answer::read(opened, &source, &mut Unobserved)?;
        let signer = world.publisher.signer();
        let spooled = work.spool(Some(&signer), &self.spool, &mut Unobserved, &mut rng(7))?;
        assert_eq!(self.spool.find(&opened.spool_name(), &opened.binding)?.as_ref(), Some(&spooled));
        let body = std::fs::read(&spooled.body).unwrap();
        assert_eq!(Sha256::digest(&body).as_slice(), spooled.manifest.body_sha256);
        Ok((spooled, body))
    }
}

/// What becomes of the world's requisition when the publisher allows something else.
fn opened_by(world: &World, alter: impl FnOnce(&mut Known)) -> Result<OpenedRequisition, Refusal> {
    let mut known = Known::of(world);
    alter(&mut known);
    known.open(world, &world.requisition())
}

fn opened(world: &World) -> OpenedRequisition {
    opened_by(world, |_| ()).unwrap()
}

/// What becomes of it when the Kingdom alters it.
fn handed_out_otherwise(
    world: &World,
    alter: impl FnOnce(&mut api::Requisition),
) -> Result<OpenedRequisition, Refusal> {
    let mut requisition = world.requisition();
    alter(&mut requisition);
    Known::of(world).open(world, &requisition)
}

/// What the publisher signed and encrypted.
fn opened_message(world: &World, encrypted: &EncryptedMessage, keyset: &PrivateKeyset, name: &str) -> Vec<u8> {
    assert!(encrypted.type_url.ends_with(type_name::SIGNED_MESSAGE));
    let plaintext = keyset.decrypt(&encrypted.ciphertext, b"").unwrap();
    let signed = SignedMessage::decode(plaintext.expose().as_slice()).unwrap();
    let message = signed.message.unwrap();
    assert!(message.type_url.ends_with(name), "{}", message.type_url);
    let certificate = &world.publisher.certificate;
    certificate.verify_signature(&message.value, &signed.signature_algorithm_oid, &signed.signature).unwrap();
    message.value
}

// Reach-only Liquid Legions v2

#[test]
fn a_reach_only_body_holds_indexes_and_noise() {
    let world = World::of(reach(1.0, 1e-6), reach_only());
    let opened = opened(&world);
    let Asked::Sketch(task) = &opened.asked else { panic!("{opened:?}") };
    assert_eq!((task.layout, task.params.size()), (Layout::IndexOnly, 100_000));
    let vids = [1, 1, 2, 30, 31, 32];
    let (spooled, body) = Desk::new(&[("vid", &vids)]).answer(&world, &opened).unwrap();
    assert_eq!(body.len() as u64, spooled.manifest.record_count * INDEX_BYTES as u64);
    assert!(spooled.manifest.attachment.is_empty());

    let mut ciphertexts = batch::decode_ciphertexts(&body).unwrap();
    let secrets: Vec<_> = world.secrets.values().collect();
    let (last, first) = secrets.split_last().unwrap();
    first.iter().for_each(|secret| batch::peel(secret, &mut ciphertexts));
    let mut found: BTreeMap<[u8; 32], u64> = BTreeMap::new();
    for point in batch::encode_points(&batch::open(last, &ciphertexts)) {
        *found.entry(*point.as_bytes()).or_default() += 1;
    }
    let of = |domain, text: &str| *hash::hash_to_group(domain, text.as_bytes()).encode().as_bytes();
    let noise = found.remove(&of(Domain::NoiseId, "publisher_noise_register_id")).unwrap();
    let params = Params::new(12.0, 100_000, 1).unwrap();
    let expected: BTreeMap<[u8; 32], u64> =
        [1, 2, 30, 31, 32].map(|vid| (of(Domain::Index, &params.index(vid).to_string()), 1)).into();
    assert_eq!(found, expected, "each index once, whoever shares it");
    assert_eq!(spooled.manifest.record_count, noise + 5);
}

#[test]
fn reach_only_has_entries_of_its_own_and_no_frequencies() {
    let world = World::of(reach(1.0, 1e-6), reach_only());
    let outcome = handed_out_otherwise(&world, |requisition| {
        let value = requisition.duchies[0].value.as_mut().unwrap();
        let Some(EntryProtocol::ReachOnlyLiquidLegionsV2(key)) = value.protocol.take() else { panic!("{value:?}") };
        value.protocol = Some(EntryProtocol::LiquidLegionsV2(key));
    });
    refused(outcome, Justification::SpecInvalid, "duchy aggregator: has no key for reach-only Liquid Legions v2");
    let world = World::of(reach_and_frequency(5), reach_only());
    refused(opened_by(&world, |_| ()), Justification::SpecInvalid, "REACH for this protocol");
}

// Share shuffle

/// The vector in the clear.
fn plain(vids: &[i64], population: Population, cap: u8) -> Vec<u8> {
    let map = VidIndexMap::new(population.vids()).unwrap();
    let mut cells = vec![0; map.size()];
    for vid in vids {
        let cell: &mut u8 = &mut cells[map.index(*vid as u64).unwrap()];
        *cell = (*cell + 1).min(cap);
    }
    cells
}

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
        let key = parties::public_key(&world.worker_keysets[SEED_WORKER]);
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
    let mut vids = vec![5; 70_000];
    vids[69_998] = 20;
    let error = Desk::new(&[("vid", &vids)]).answer(&world, &opened(&world)).unwrap_err();
    assert!(matches!(error, Error::OutsidePopulation { row: 69_999, vid: 20, .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("0..19") && text.contains("[population]") && text.contains("events.parquet"), "{text}");
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
    let outcome = handed_out_otherwise(&world, |requisition| {
        let message = worker_key(requisition).as_mut().unwrap().message.as_mut().unwrap();
        message.value = parties::public_key(&world.worker_keysets[WORKERS[1]]);
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

#[test]
fn limits_of_the_publisher_hold_for_every_protocol() {
    let declined = Justification::Declined;
    let quiet = |mut protocol| {
        match &mut protocol {
            Protocol::Hmss(hmss) => hmss.noise = None,
            Protocol::Rollv2(rollv2) => rollv2.noise = None,
            Protocol::Direct(direct) => direct.noise = vec![None],
            other => panic!("{other:?}"),
        }
        protocol
    };
    let gaussian = [Some(NoiseMechanism::DiscreteGaussian)];
    let protocols = || [reach_only(), share_shuffle(COMPATIBLE, "0..19"), parties::direct(&gaussian)];
    for protocol in protocols() {
        let kind = protocol.kind();
        let world = World::of(reach(1.0, 1e-6), protocol.clone());
        assert!(opened_by(&world, |_| ()).is_ok(), "{kind}");
        let outcome = opened_by(&world, |known| known.trust.protocols.retain(|one| *one != kind));
        refused(outcome, declined, &format!("protocol {kind} is none of those"));
        let outcome =
            opened_by(&world, |known| known.trust.maximum_result = Some(PrivacyParams::new(0.5, 1e-6).unwrap()));
        refused(outcome, declined, "reach has epsilon 1; this publisher allows 0.5 (maximum_result_epsilon)");
        let outcome =
            opened_by(&world, |known| known.trust.maximum_result = Some(PrivacyParams::new(1.0, 1e-9).unwrap()));
        refused(outcome, declined, "maximum_result_delta");

        let world = World::of(reach(1.0, 1e-6), quiet(protocol));
        refused(opened_by(&world, |_| ()), declined, "allow_no_noise");
        let strict = |known: &mut Known| {
            known.trust.allow_no_noise = true;
            known.trust.maximum_result = Some(PrivacyParams::new(0.5, 1e-9).unwrap());
        };
        assert!(opened_by(&world, strict).is_ok(), "without noise ε and δ say nothing");
    }
}

// Trustee

#[test]
fn only_the_trustee_opens_the_vector() {
    let thresholds = Some(TrusteeThresholds { min_impressions: 10, min_users: 10 });
    let gaussian = TrusteeNoise::DiscreteGaussian;
    for (question, thresholds, cap) in [
        (reach_and_frequency(3), None, 3),
        (reach(1.0, 1e-6), None, 1),
        // Impressions count where results of few of them are not released.
        (reach(1.0, 1e-6), thresholds, 126),
    ] {
        let world = World::of(question, trustee(gaussian, thresholds));
        let opened = opened(&world);
        assert_eq!(opened.duchy.as_ref().map(|duchy| duchy.as_str()), Some(TRUSTEE));
        let Asked::Sealed(task) = &opened.asked else { panic!("{opened:?}") };
        assert_eq!(task.vector.maximum_frequency.get(), u32::from(cap));
        let vids = [3, 3, 3, 3, 8, 19, 19, 0];
        let (spooled, body) = Desk::new(&[("vid", &vids)]).answer(&world, &opened).unwrap();
        assert_eq!(spooled.manifest.record_count, body.len() as u64);
        assert_eq!(envelope::ciphertext_bytes(20), Some(body.len() as u64));

        let header = TrusTee::decode(spooled.manifest.attachment.as_slice()).unwrap();
        assert_eq!(header.data_format(), trus_tee::DataFormat::EncryptedFrequencyVector);
        let encryption = header.envelope_encryption.unwrap();
        assert_eq!(encryption.kms_kek_uri, format!("duchies/{TRUSTEE}"));
        let wrapped = encryption.encrypted_dek.unwrap();
        assert_eq!(wrapped.format(), api::encryption_key::Format::TinkEncryptedKeyset);
        let private = PrivateKeyset::from_bytes(world.trustee_keyset.to_bytes().expose()).unwrap();
        let kek = HybridKey::private(encryption.kms_kek_uri, private);
        let binding = envelope::requisition_binding(&opened.name.to_string());
        let key = DataKey::unwrap(&kek, &wrapped.data, &binding).unwrap();
        let mut cells = Vec::new();
        let mut decryptor = Decryptor::new(&key, &binding);
        decryptor.write(&body, &mut cells).unwrap();
        decryptor.finish(&mut cells).unwrap();
        assert_eq!(cells, plain(&vids, task.vector.population, cap));
        // For another requisition nothing opens.
        assert!(DataKey::unwrap(&kek, &wrapped.data, &envelope::requisition_binding("another")).is_err());
    }
}

#[test]
fn a_trustee_is_believed_as_far_as_its_attestation_goes() {
    let world = World::of(reach_and_frequency(3), trustee(TrusteeNoise::DiscreteGaussian, None));
    let outcome = opened_by(&world, |known| known.trust.attestation = Arc::new(SimulatedVerifier::default()));
    refused(outcome, Justification::Declined, "duchy aggregator: attestation: simulated attestation proves nothing");
    let entry = |requisition: &mut api::Requisition, alter: &dyn Fn(&mut api::requisition::duchy_entry::TrusTee)| {
        match requisition.duchies[0].value.as_mut().unwrap().protocol.as_mut().unwrap() {
            EntryProtocol::TrusTee(protocol) => alter(protocol),
            other => panic!("{other:?}"),
        }
    };
    let invalid = Justification::ConsentSignalInvalid;
    let outcome = handed_out_otherwise(&world, |requisition| entry(requisition, &|entry| entry.attestation.clear()));
    refused(outcome, invalid, "does not decode");
    let outcome = handed_out_otherwise(&world, |requisition| {
        entry(requisition, &|entry| *entry.attestation.last_mut().unwrap() ^= 1);
    });
    refused(outcome, invalid, "of another trustee, computation or key");
    let outcome = handed_out_otherwise(&world, |requisition| {
        entry(requisition, &|entry| entry.attestation = b"\x05quote and bytes".to_vec());
    });
    refused(outcome, Justification::Declined, "is not accepted here");
    let mut replayed = World::of(reach_and_frequency(3), trustee(TrusteeNoise::DiscreteGaussian, None));
    replayed.other_session = Some([7; 32]);
    refused(opened_by(&replayed, |_| ()), invalid, "of another trustee, computation or key");
    // The evidence is of the key that is signed.
    let outcome = handed_out_otherwise(&world, |requisition| {
        entry(requisition, &|entry| entry.public_key.as_mut().unwrap().signature.clear());
    });
    refused(outcome, invalid, "signature: is missing");
}

#[test]
fn a_trustee_is_one_duchy_with_limits() {
    let gaussian = || trustee(TrusteeNoise::DiscreteGaussian, None);
    let (world, invalid) = (World::of(reach_and_frequency(3), gaussian()), Justification::SpecInvalid);
    let outcome = handed_out_otherwise(&world, |requisition| requisition.duchies.clear());
    refused(outcome, invalid, "must be the trustee aggregator alone");
    let outcome = handed_out_otherwise(&world, |requisition| requisition.duchies[0].key = "duchies/worker1".to_owned());
    refused(outcome, invalid, "must be the trustee aggregator, but are worker1");
    let outcome = handed_out_otherwise(&world, |requisition| {
        requisition.duchies[0].value.as_mut().unwrap().protocol = None;
    });
    refused(outcome, invalid, "has no entry for a trustee");
    refused(opened_by(&World::of(reach_and_frequency(128), gaussian()), |_| ()), invalid, "128 is above 127");
    let declined = Justification::Declined;
    let outcome = opened_by(&world, |known| known.trust.population = Some("1..20".parse().unwrap()));
    refused(outcome, declined, "over the population 0..19; this publisher's is 1..20");
    let quiet = World::of(reach(1.0, 1e-6), trustee(TrusteeNoise::None, None));
    refused(opened_by(&quiet, |_| ()), declined, "allow_no_noise");
    let sticky = World::of(reach(1.0, 1e-6), trustee(TrusteeNoise::Deterministic, None));
    refused(opened_by(&sticky, |_| ()), declined, "allow_deterministic_noise");
    assert!(opened_by(&sticky, |known| known.trust.allow_deterministic_noise = true).is_ok());
}

// Direct

fn params(epsilon: f64, delta: f64) -> Option<DifferentialPrivacyParams> {
    Some(DifferentialPrivacyParams { epsilon, delta })
}

fn impressions(most: i32) -> MeasurementType {
    MeasurementType::Impression(Impression { privacy_params: params(1.0, 1e-6), maximum_frequency_per_user: most })
}

fn durations(seconds: i64) -> MeasurementType {
    MeasurementType::Duration(Duration {
        privacy_params: params(1.0, 1e-6),
        maximum_watch_duration_per_user: Some(prost_types::Duration { seconds, nanos: 0 }),
        ..Default::default()
    })
}

/// The result that the consumer reads.
fn result(world: &World, desk: &Desk, opened: &OpenedRequisition) -> MeasurementResult {
    let (spooled, body) = desk.answer(world, opened).unwrap();
    assert_eq!(spooled.manifest.record_count, 1);
    let encrypted = EncryptedMessage::decode(body.as_slice()).unwrap();
    let bytes = opened_message(world, &encrypted, &world.result_keyset, type_name::MEASUREMENT_RESULT);
    MeasurementResult::decode(bytes.as_slice()).unwrap()
}

fn without_noise(known: &mut Known) {
    known.trust.allow_no_noise = true;
}

#[test]
fn direct_results_are_what_the_consumer_asked_for() {
    let desk = || Desk::new(&[("vid", &[1, 1, 1, 2, 3, 3]), ("seconds", &[10, 20, 30, 5, 0, 7])]);
    let found = |question| {
        let world = World::of(question, parties::direct(&[None]));
        let opened = opened_by(&world, without_noise).unwrap();
        assert_eq!(
            (opened.duchy.as_ref(), opened.binding.key_list_hash),
            (None, halo_core::session::key_list_hash(&[]))
        );
        result(&world, &desk(), &opened)
    };
    let found_reach = found(reach(1.0, 1e-6));
    let one = found_reach.reach.as_ref().unwrap();
    assert_eq!((one.value, one.noise_mechanism(), one.noise_standard_deviation), (3, WireMechanism::None, 0.0));
    assert!(found_reach.frequency.is_none());

    let both = found(reach_and_frequency(3));
    assert_eq!(both.reach.unwrap().value, 3);
    let third = 1.0 / 3.0;
    let shares = both.frequency.unwrap().relative_frequency_distribution;
    assert!(shares.iter().all(|(_, share)| (share - third).abs() < 1e-12) && shares.len() == 3, "{shares:?}");

    assert_eq!(found(impressions(2)).impression.unwrap().value, 5);
    let watched = found(durations(50)).watch_duration.unwrap();
    assert_eq!(watched.value, Some(prost_types::Duration { seconds: 62, nanos: 0 }));
}

#[test]
fn nobody_reached_has_no_frequencies() {
    let world = World::of(reach_and_frequency(3), parties::direct(&[None]));
    let opened = opened_by(&world, without_noise).unwrap();
    let nothing = result(&world, &Desk::new(&[("vid", &[])]), &opened);
    assert_eq!(nothing.reach.unwrap().value, 0);
    assert!(nothing.frequency.unwrap().relative_frequency_distribution.is_empty());
}

#[test]
fn the_first_noise_that_is_allowed_is_drawn() {
    let gaussian = Some(NoiseMechanism::DiscreteGaussian);
    let world = World::of(reach(1.0, 1e-6), parties::direct(&[None, gaussian, Some(NoiseMechanism::Geometric)]));
    let opened = opened(&world);
    let Asked::Direct(task) = &opened.asked else { panic!("{opened:?}") };
    assert_eq!(task.mechanism, gaussian);
    let vids: Vec<i64> = (0..1_000).collect();
    let noisy = result(&world, &Desk::new(&[("vid", &vids)]), &opened).reach.unwrap();
    assert_eq!(noisy.noise_mechanism(), WireMechanism::DiscreteGaussian);
    assert!(noisy.noise_standard_deviation > 1.0 && noisy.standard_error >= noisy.noise_standard_deviation);
    assert!((noisy.value - 1_000).abs() as f64 <= 8.0 * noisy.noise_standard_deviation);
    let quiet = opened_by(&world, without_noise).unwrap();
    assert!(matches!(&quiet.asked, Asked::Direct(task) if task.mechanism.is_none()));
}

#[test]
fn a_result_is_drawn_once() {
    let world = World::of(reach(1.0, 1e-6), parties::direct(&[Some(NoiseMechanism::DiscreteGaussian)]));
    let (desk, opened) = (Desk::new(&[("vid", &[1, 2, 3])]), opened(&world));
    let (first, body) = desk.answer(&world, &opened).unwrap();
    let kept = desk.spool.find(&opened.spool_name(), &opened.binding).unwrap().unwrap();
    assert_eq!((std::fs::read(&kept.body).unwrap(), kept), (body, first));
    desk.spool.close(&opened.spool_name()).unwrap();
    assert!(matches!(desk.answer(&world, &opened), Err(Error::AlreadyAnswered { .. })));
}

#[test]
fn durations_need_seconds() {
    let world = World::of(durations(60), parties::direct(&[None]));
    let opened = opened_by(&world, without_noise).unwrap();
    let desk = Desk::new(&[("vid", &[1, 1, 2])]);
    let error = desk.answer(&world, &opened).unwrap_err();
    assert!(matches!(error, Error::NoSecondsColumn { .. }) && error.to_string().contains("seconds_per_impression"));
    let events = desk.events();
    let work = answer::read(&opened, &Source { events: &events, seconds_per_impression: Some(40) }, &mut Unobserved);
    assert_eq!((work.as_ref().unwrap().impressions(), work.unwrap().counted()), (3, 2));
    let bad = Desk::new(&[("vid", &[1, 2]), ("seconds", &[1, -1])]);
    let error = bad.answer(&world, &opened).unwrap_err();
    assert!(
        matches!(error, Error::BadRow { row: 2, .. }) && error.to_string().contains("seconds is negative"),
        "{error}"
    );
}

#[test]
fn the_size_of_a_population_is_told_by_whom_it_is_known() {
    let world =
        World::of(MeasurementType::Population(Default::default()), parties::direct(&[Some(NoiseMechanism::Geometric)]));
    refused(opened_by(&world, |_| ()), Justification::Unfulfillable, "tells no size of a population");
    let known = |known: &mut Known| known.trust.population = Some("5..14".parse().unwrap());
    let opened = opened_by(&world, known).unwrap();
    assert!(matches!(&opened.asked, Asked::Direct(task) if matches!(task.question, Question::Population(_))));
    let told = result(&world, &Desk::new(&[("vid", &[])]), &opened).population.unwrap();
    assert_eq!((told.value, told.standard_error), (10, 0.0));

    let mut filtered = World::of(MeasurementType::Population(Default::default()), parties::direct(&[None]));
    let mut population = api::requisition_spec::Population::default();
    population.filter = Some(api::requisition_spec::EventFilter { expression: "SECRET".to_owned() });
    filtered.own_spec.requisition_type = Some(api::requisition_spec::RequisitionType::Population(population));
    let refusal = opened_by(&filtered, known).unwrap_err();
    assert!(refusal.message().contains("has a filter") && !refusal.message().contains("SECRET"), "{refusal}");
}

#[test]
fn what_cannot_be_counted_alone_is_refused() {
    let unfulfillable = Justification::Unfulfillable;
    let gaussian = || parties::direct(&[Some(NoiseMechanism::DiscreteGaussian)]);
    refused(opened_by(&World::of(impressions(256), gaussian()), |_| ()), unfulfillable, "between 1 and 255");
    refused(opened_by(&World::of(durations(1 << 32), gaussian()), |_| ()), unfulfillable, "4294967295 are counted");
    let world = World::of(reach(1.0, 0.0), gaussian());
    refused(opened_by(&world, |_| ()), unfulfillable, "measurement_spec: ");
    let world = World::of(reach(1.0, 1e-6), gaussian());
    let outcome = handed_out_otherwise(&world, |requisition| {
        requisition.duchies = World::new().requisition().duchies;
    });
    refused(outcome, Justification::SpecInvalid, "every publisher computes by itself");
    let mut world = World::of(reach(1.0, 1e-6), gaussian());
    world.own_spec.requisition_type = Some(api::requisition_spec::RequisitionType::Population(Default::default()));
    refused(opened_by(&world, |_| ()), Justification::SpecInvalid, "asks for something else than REACH");
    assert!(matches!(Ask::Reach { privacy: None }.check(), Ok(())));
}

// Statistics of shares

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
