//! The share shuffle from end to end, over three Duchies, and everything that somebody could do wrong in it.

use halo_core::{
    measurement::{HmssConfig, HmssNoise, HmssVariant, Population, Protocol},
    pb::{
        api::{
            self,
            fulfill_requisition_request::header::{HonestMajorityShareShuffle, Protocol as UploadProtocol},
            measurement::{Result as MeasurementResult, result::reach::Methodology},
        },
        system::{self, computation::State},
    },
    privacy::{NoiseCalibration, NoiseMechanism},
    resource::DuchyId,
    wire::{self, type_name},
};
use halo_crypto::{
    consent::{tink::PublicKeyset, x509::ECDSA_WITH_SHA256},
    secret::Secret,
    share::{self, Modulus, Seed},
};
use prost::Message;
use rand_core::Rng;
use sha2::{Digest, Sha256};
use tonic::Code;

use crate::{
    caller::assert_refused,
    measurement::Upload,
    trio::{Study, Trio, WITHOUT_NOISE, assert_blames},
    world::{DUCHIES, ME, PUBLISHERS, id, rng},
};

/// The Duchies to which publishers upload.
pub(crate) const WORKERS: [&str; 2] = [DUCHIES[1], DUCHIES[2]];
/// How often each publisher has reached each of twelve people.
const VECTORS: [[u8; 12]; 2] = [[0, 1, 2, 0, 3, 0, 0, 1, 1, 0, 0, 2], [0, 1, 0, 0, 3, 1, 0, 0, 1, 3, 0, 0]];

/// A share shuffle among everybody, without noise.
pub(crate) fn hmss(variant: HmssVariant) -> Protocol {
    Protocol::Hmss(HmssConfig {
        variant,
        noise: None,
        first_worker: id(WORKERS[0]).parse().unwrap(),
        second_worker: id(WORKERS[1]).parse().unwrap(),
        aggregator: id(ME).parse().unwrap(),
        population: Population::new(101, 112).unwrap(),
    })
}

const COMPATIBLE: HmssVariant = HmssVariant::Compatible { ring_modulus: 127 };

/// A publisher's share and its seed, before they are encrypted.
struct Shared {
    modulus: Modulus,
    /// The uploaded share.
    share: Vec<u8>,
    /// What the seed's message says.
    seed: api::RandomSeed,
    /// To whom it is encrypted.
    to: DuchyId,
    /// Who signs it.
    signer: &'static str,
}

#[derive(Clone, PartialEq, Message)]
struct FrequencyVector {
    #[prost(uint32, repeated, tag = "1")]
    data: Vec<u32>,
}

fn modulus(study: &Study<'_>) -> Modulus {
    use halo_core::measurement::MeasurementKind::Reach;
    let Protocol::Hmss(HmssConfig { variant, .. }) = &study.config.protocol else { panic!() };
    Modulus::new(match variant {
        HmssVariant::Compatible { ring_modulus } => *ring_modulus,
        HmssVariant::Native if study.config.kind == Reach => 251,
        HmssVariant::Native => 256,
    })
    .unwrap()
}

fn body(study: &Study<'_>, share: &[u8]) -> Vec<u8> {
    match &study.config.protocol {
        Protocol::Hmss(HmssConfig { variant: HmssVariant::Native, .. }) => share.to_vec(),
        _ => FrequencyVector { data: share.iter().map(|cell| u32::from(*cell)).collect() }.encode_to_vec(),
    }
}

/// Cuts a publisher's vector into shares; `falsify` changes them before they are signed and encrypted.
fn upload_changed(study: &Study<'_>, publisher: usize, falsify: impl FnOnce(&mut Shared)) -> Upload {
    let modulus = modulus(study);
    let mut bytes = [0; 48];
    rng().fill_bytes(&mut bytes);
    let seed = Seed::new(Secret::new(bytes));
    // A vector for reach alone says who was reached.
    let reach_only = study.config.kind == halo_core::measurement::MeasurementKind::Reach;
    let cells = VECTORS[publisher].map(|cell| if reach_only { cell.min(1) } else { cell });
    let share = share::second_share(modulus, &seed, &cells).unwrap();
    let here = study.fulfilled_at[publisher];
    let to: DuchyId = id(WORKERS.iter().find(|worker| **worker != here).unwrap()).parse().unwrap();
    let seed = api::RandomSeed {
        data: bytes.to_vec(),
        requisition: study.requisitions[publisher].clone(),
        share_sha256: Sha256::digest(body(study, &share)).to_vec(),
    };
    let mut shared = Shared { modulus, share, seed, to, signer: PUBLISHERS[publisher] };
    falsify(&mut shared);
    let Shared { share, seed, to, signer, .. } = shared;
    let seed = seed.encode_to_vec();
    let signed = api::SignedMessage {
        signature: study.trio.party(signer).key.sign(&seed),
        signature_algorithm_oid: ECDSA_WITH_SHA256.to_owned(),
        message: Some(wire::pack(type_name::RANDOM_SEED, seed)),
        ..Default::default()
    };
    let keys = study.keys();
    let key = keys.iter().find(|(duchy, _)| *duchy == to).unwrap();
    let key = api::EncryptionPublicKey::decode(key.1.as_slice()).unwrap();
    let key = PublicKeyset::from_bytes(&key.data).unwrap();
    let ciphertext = key.encrypt(&signed.encode_to_vec(), b"", &mut rng()).unwrap();
    let aggregator: DuchyId = id(ME).parse().unwrap();
    let hash = study.key_list_hash(|duchy| duchy.as_str() != id(here) && *duchy != aggregator);
    let records = share.len();
    let mut upload = study.upload(publisher, hash, records, body(study, &share));
    upload.header.protocol = Some(UploadProtocol::HonestMajorityShareShuffle(HonestMajorityShareShuffle {
        secret_seed: Some(api::EncryptedMessage { ciphertext, ..Default::default() }),
        register_count: records as i64,
        data_provider_certificate: study.trio.party(PUBLISHERS[publisher]).certificate_name(),
    }));
    upload
}

fn upload(study: &Study<'_>, publisher: usize) -> Upload {
    upload_changed(study, publisher, |_| {})
}

/// What both publishers upload.
pub(crate) fn uploads(study: &Study<'_>) -> [Upload; 2] {
    [upload(study, 0), upload(study, 1)]
}

/// The result is what the vectors say.
fn assert_exact(result: &MeasurementResult, maximum_frequency: Option<usize>) {
    let sums: Vec<usize> = (0..12).map(|person| usize::from(VECTORS[0][person] + VECTORS[1][person])).collect();
    let reached = sums.iter().filter(|sum| **sum > 0).count();
    let reach = result.reach.as_ref().unwrap();
    assert_eq!((reach.value, reach.frequency_vector_size), (reached as i64, 12));
    let Some(Methodology::HonestMajorityShareShuffle(methodology)) = &reach.methodology else { panic!("{reach:?}") };
    assert_eq!(methodology.frequency_vector_size, 12);
    assert!(reach.standard_error.abs() < 1e-9 && reach.noise_standard_deviation == 0.0);
    let Some(most) = maximum_frequency else {
        assert_eq!(result.frequency, None);
        return;
    };
    let mut histogram = vec![0; most];
    sums.iter().filter(|sum| **sum > 0).for_each(|sum| histogram[(*sum).min(most) - 1] += 1);
    let frequency = result.frequency.as_ref().unwrap();
    assert_eq!(frequency.histogram, histogram);
    for (count, found) in histogram.iter().zip(1..) {
        let share = *count as f64 / reached as f64;
        assert!((frequency.relative_frequency_distribution[&found] - share).abs() < 1e-12, "{frequency:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn results_are_exact_in_both_variants() {
    let trio = Trio::start(WITHOUT_NOISE).await;
    let mut number = 0;
    for variant in [COMPATIBLE, HmssVariant::Native] {
        for frequency in [Some(4), None] {
            number += 1;
            let mut study = trio.open(number, hmss(variant), frequency).await;
            assert_ne!(study.fulfilled_at[0], study.fulfilled_at[1]);
            let uploads = uploads(&study);
            let result = study.finish([&uploads[0], &uploads[1]]).await;
            assert_exact(&result, frequency.map(|frequency| frequency as usize));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_reached_is_a_result_too() {
    let trio = Trio::start(WITHOUT_NOISE).await;
    let mut study = trio.open(1, hmss(COMPATIBLE), Some(4)).await;
    let nobody = |publisher| {
        upload_changed(&study, publisher, |shared| {
            let seed = Seed::from_slice(&shared.seed.data).unwrap();
            shared.share = share::second_share(shared.modulus, &seed, &[0; 12]).unwrap();
            shared.seed.share_sha256 = Sha256::digest(body(&study, &shared.share)).to_vec();
        })
    };
    let uploads = [nobody(0), nobody(1)];
    let result = study.finish([&uploads[0], &uploads[1]]).await;
    let (reach, frequency) = (result.reach.unwrap(), result.frequency.unwrap());
    assert_eq!((reach.value, reach.standard_error), (0, 0.0));
    assert_eq!((frequency.histogram, frequency.relative_frequency_distribution.len()), (vec![0; 4], 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn with_noise_the_result_says_how_much_and_hides_the_counts() {
    let trio = Trio::start("").await;
    let Protocol::Hmss(mut config) = hmss(HmssVariant::Native) else { panic!() };
    config.noise = Some(HmssNoise {
        mechanism: NoiseMechanism::DiscreteGaussian,
        calibration: NoiseCalibration::Exact,
        honest_contributors: 1,
    });
    let mut study = trio.open(1, Protocol::Hmss(config), Some(4)).await;
    let uploads = uploads(&study);
    let result = study.finish([&uploads[0], &uploads[1]]).await;
    let (reach, frequency) = (result.reach.unwrap(), result.frequency.unwrap());
    assert!((0..=12).contains(&reach.value) && reach.noise_standard_deviation > 1.0, "{reach:?}");
    assert!(reach.standard_error.is_finite() && frequency.noise_standard_deviation > 1.0);
    assert!(frequency.histogram.is_empty());
    // Less than the operator asks for.
    let Protocol::Hmss(mut config) = hmss(HmssVariant::Native) else { panic!() };
    config.noise = Some(HmssNoise {
        mechanism: NoiseMechanism::DiscreteGaussian,
        calibration: NoiseCalibration::Reference,
        honest_contributors: 1,
    });
    let study = trio.plan(2, Protocol::Hmss(config), Some(4));
    trio.kingdom.report(&study.computation);
    assert_blames(&study.given_up_by(ME).await, "(allow_reference_calibration)", &[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_stopped_goes_on_where_it_was() {
    let trio = Trio::start(WITHOUT_NOISE).await;
    let mut study = trio.open(1, hmss(COMPATIBLE), Some(4)).await;
    let uploads = uploads(&study);
    // In the middle of a publisher's upload.
    let cut = Upload { body: uploads[0].body[..5].to_vec(), ..uploads[0].clone() };
    let publisher = study.publisher(0).await;
    assert_refused(publisher.upload(&cut).await, Code::Aborted, "go on with offset 5");
    trio.stop(study.fulfilled_at[0]).await;
    trio.revive(study.fulfilled_at[0]).await;
    let mut rest = uploads[0].clone();
    rest.header.offset = 5;
    study.fulfill([&rest, &uploads[1]]).await;
    study.confirm().await;
    for duchy in DUCHIES {
        trio.stop(duchy).await;
        trio.revive(duchy).await;
    }
    // The first worker is not there when the second one sends its seed, nor is the aggregator for their vectors.
    trio.stop(WORKERS[0]).await;
    trio.stop(ME).await;
    study.report(State::PendingComputation);
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    trio.revive(WORKERS[0]).await;
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    trio.revive(ME).await;
    assert_exact(&study.result().await, Some(4));
}

/// Words of a refused upload, and the change that brings it about.
type BadUpload<'a> = (&'a str, &'a dyn Fn(&Study<'_>, Upload) -> Upload);

/// The same with another body, announced as it is.
fn with_body(upload: Upload, body: Vec<u8>) -> Upload {
    let mut upload = Upload { body, ..upload };
    upload.header.body_length = upload.body.len() as i64;
    upload.header.body_sha256 = Sha256::digest(&upload.body).to_vec();
    upload
}

fn shuffle(upload: &mut Upload) -> &mut HonestMajorityShareShuffle {
    match &mut upload.header.protocol {
        Some(UploadProtocol::HonestMajorityShareShuffle(shuffle)) => shuffle,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_that_are_no_shares_are_refused_and_the_right_one_is_taken() {
    let trio = Trio::start(WITHOUT_NOISE).await;
    let changes: &[BadUpload<'_>] = &[
        ("header.record_count: the share has 11 cells where 12 are due", &|_, mut upload| {
            upload.header.record_count = 11;
            upload
        }),
        ("register_count: the share has 13 cells where 12 are due", &|_, mut upload| {
            shuffle(&mut upload).register_count = 13;
            upload
        }),
        ("it has 11 cells where 12 are due", &|study, upload| with_body(upload, body(study, &[1; 11]))),
        ("it has 13 cells where 12 are due", &|study, upload| with_body(upload, body(study, &[1; 13]))),
        ("127", &|study, upload| with_body(upload, body(study, &[1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 127]))),
        ("ends in the middle", &|study, upload| {
            let mut cut = body(study, &[1; 12]);
            cut.pop();
            with_body(upload, cut)
        }),
        ("12 records have at most", &|_, upload| with_body(upload, vec![1; 2000])),
        ("SHA-256", &|_, mut upload| {
            upload.body[7] ^= 1;
            upload
        }),
        ("secret_seed: it has 0 bytes", &|_, mut upload| {
            shuffle(&mut upload).secret_seed = None;
            upload
        }),
        ("secret_seed: it has 9000 bytes", &|_, mut upload| {
            shuffle(&mut upload).secret_seed.as_mut().unwrap().ciphertext = vec![1; 9000];
            upload
        }),
        ("is no certificate of dataProviders/", &|study, mut upload| {
            shuffle(&mut upload).data_provider_certificate = study.trio.party(PUBLISHERS[1]).certificate_name();
            upload
        }),
        ("header.protocol: it is another protocol than the measurement's, which is hmss", &|_, mut upload| {
            upload.header.protocol = None;
            upload
        }),
        ("header.nonce", &|_, mut upload| {
            upload.header.nonce ^= 1;
            upload
        }),
    ];
    let mut study = trio.open(1, hmss(COMPATIBLE), Some(4)).await;
    let publisher = study.publisher(0).await;
    let uploads = uploads(&study);
    for (words, change) in changes {
        assert_refused(publisher.upload(&change(&study, uploads[0].clone())).await, Code::InvalidArgument, words);
    }
    // At the aggregator, and at the other worker.
    for elsewhere in [ME, study.fulfilled_at[1]] {
        let elsewhere = trio.connect(elsewhere, PUBLISHERS[0]).await;
        let words = "is to be fulfilled at another Duchy";
        assert_refused(elsewhere.upload(&uploads[0]).await, Code::FailedPrecondition, words);
    }
    study.fulfill([&uploads[0], &uploads[1]]).await;
    // Again, with the seed encrypted anew: the first one stays, and nothing is wrong with that.
    let mut again = uploads[0].clone();
    shuffle(&mut again).secret_seed.as_mut().unwrap().ciphertext.push(1);
    publisher.upload(&again).await.unwrap();
    let other = upload(&study, 0);
    assert_refused(publisher.upload(&other).await, Code::FailedPrecondition, "is fulfilled with another body");
    study.confirm().await;
    study.report(State::PendingComputation);
    assert_exact(&study.result().await, Some(4));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_that_encrypted_to_another_key_is_found_out() {
    let trio = Trio::start(WITHOUT_NOISE).await;
    let study = trio.open(1, hmss(HmssVariant::Native), Some(4)).await;
    let mut upload = upload(&study, 0);
    // As if it had been shown the keys of all Duchies.
    upload.header.key_list_hash = study.key_list_hash(|_| true);
    let outcome = study.publisher(0).await.upload(&upload).await;
    assert_refused(outcome, Code::FailedPrecondition, "encrypted under other keys");
    let failure = study.given_up_by(study.fulfilled_at[0]).await;
    assert_blames(&failure, "encrypted under other keys", &["kingdom", PUBLISHERS[0]]);
}

/// The Kingdom shows a worker's key of another computation, which the worker has signed, in this one.
#[tokio::test(flavor = "multi_thread")]
async fn keys_of_another_session_are_refused() {
    let trio = Trio::start(WITHOUT_NOISE).await;
    let other = trio.open(1, hmss(COMPATIBLE), Some(4)).await;
    let place = |computation: &system::Computation| {
        computation.computation_participants.iter().position(|part| id(&part.name) == id(WORKERS[1])).unwrap()
    };
    let foreign = other.computation.computation_participants[place(&other.computation)].requisition_params.clone();
    let swap = |computation: &mut system::Computation| {
        let swapped = place(computation);
        computation.computation_participants[swapped].requisition_params = foreign;
    };
    let mut study = trio.open_with(2, hmss(HmssVariant::Native), Some(4), swap).await;
    let uploads = uploads(&study);
    study.fulfill([&uploads[0], &uploads[1]]).await;
    study.report(State::PendingParticipantConfirmation);
    for duchy in [ME, WORKERS[0]] {
        let failure = study.given_up_by(duchy).await;
        assert_blames(&failure, "drawn for another session", &[WORKERS[1], "kingdom"]);
    }
}

/// Words of a failure and the change of the seed that brings it about.
type BadSeed<'a> = (&'a str, &'a dyn Fn(&mut Shared));

#[tokio::test(flavor = "multi_thread")]
async fn seeds_that_are_none_fail_the_measurement_and_name_who_made_or_passed_them_on() {
    let trio = Trio::start(WITHOUT_NOISE).await;
    let changes: &[BadSeed<'_>] = &[
        ("47", &|shared| shared.seed.data.truncate(47)),
        ("49", &|shared| shared.seed.data.push(1)),
        ("its seed: signature does not verify", &|shared| shared.signer = PUBLISHERS[1]),
        ("its seed is for \"dataProviders/AAAAAAAAAAM/requisitions", &|shared| {
            shared.seed.requisition = shared.seed.requisition.replace(PUBLISHERS[0], PUBLISHERS[1]);
        }),
        ("its seed belongs to another share than the one that was uploaded", &|shared| {
            shared.share[0] = if shared.share[0] == 0 { 1 } else { 0 };
            assert!(u16::from(shared.share[0]) < shared.modulus.get());
        }),
        ("its seed does not open", &|shared| {
            let here = if shared.to.as_str() == id(WORKERS[0]) { WORKERS[1] } else { WORKERS[0] };
            shared.to = id(here).parse().unwrap();
        }),
    ];
    for (number, (words, change)) in (1..).zip(changes) {
        let mut study = trio.open(number, hmss(HmssVariant::Native), Some(4)).await;
        let uploads = [upload_changed(&study, 0, change), upload(&study, 1)];
        study.fulfill([&uploads[0], &uploads[1]]).await;
        study.confirm().await;
        study.report(State::PendingComputation);
        // The worker that opens it: where the other publisher uploads.
        let failure = study.given_up_by(study.fulfilled_at[1]).await;
        assert_blames(&failure, words, &[PUBLISHERS[0], study.fulfilled_at[0]]);
        assert!(failure.error_message.contains(&study.requisitions[0]), "{}", failure.error_message);
    }
}

/// Words of a refusal, and the lie of the Kingdom that brings it about.
type Lie<'a> = (&'a str, &'a dyn Fn(&Study<'_>, &mut system::Requisition));

#[tokio::test(flavor = "multi_thread")]
async fn every_duchy_checks_every_requisition_before_it_confirms() {
    let trio = Trio::start(WITHOUT_NOISE).await;
    let lies: &[Lie<'_>] = &[
        ("its share has 11 cells where 12 are due", &|_, requisition| requisition.record_count = 11),
        ("its nonce is not the one that the consumer gave", &|_, requisition| requisition.nonce ^= 1),
        ("was encrypted under other keys", &|study, requisition| {
            requisition.key_list_hash = study.key_list_hash(|_| true)
        }),
        ("data_provider_certificate: malformed", &|_, requisition| requisition.data_provider_certificate_der.clear()),
        ("is no certificate of dataProviders/", &|study, requisition| {
            requisition.data_provider_certificate = study.trio.party(PUBLISHERS[1]).certificate_name();
        }),
    ];
    for (number, (words, lie)) in (1..).zip(lies) {
        let mut study = trio.open(number, hmss(HmssVariant::Native), Some(4)).await;
        let uploads = uploads(&study);
        study.fulfill([&uploads[0], &uploads[1]]).await;
        let mut requisition = study.computation.requisitions[0].clone();
        lie(&study, &mut requisition);
        study.computation.requisitions[0] = requisition;
        study.report(State::PendingParticipantConfirmation);
        for duchy in DUCHIES {
            let failure = study.given_up_by(duchy).await;
            assert_blames(&failure, words, &[PUBLISHERS[0], "kingdom"]);
        }
    }
    // Only the workers know the publishers' authorities.
    let mut study = trio.open(100, hmss(HmssVariant::Native), Some(4)).await;
    let uploads = uploads(&study);
    study.fulfill([&uploads[0], &uploads[1]]).await;
    study.computation.requisitions[0].data_provider_certificate_der =
        trio.party(PUBLISHERS[1]).certificate.der().to_vec();
    study.report(State::PendingParticipantConfirmation);
    for worker in WORKERS {
        let failure = study.given_up_by(worker).await;
        assert_blames(&failure, "which is none of the trusted roots", &[PUBLISHERS[0], "kingdom"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_computed_is_not_begun() {
    let trio = Trio::start(WITHOUT_NOISE).await;
    let small = HmssVariant::Compatible { ring_modulus: 9 };
    let composite = HmssVariant::Compatible { ring_modulus: 128 };
    for (number, (variant, frequency, words)) in (1..).zip([
        (small, Some(4), "modulus 9 is too small"),
        (composite, None, "modulus 128 is no prime"),
        (HmssVariant::Native, Some(128), "modulus 256 is too small"),
        (HmssVariant::Native, Some(1), "a maximum frequency of at least 2"),
    ]) {
        let study = trio.plan(number, hmss(variant), frequency);
        trio.kingdom.report(&study.computation);
        for duchy in DUCHIES {
            assert_blames(&study.given_up_by(duchy).await, words, &[]);
        }
    }
    // Two Duchies, and the three with other roles.
    let mut study = trio.plan(100, hmss(HmssVariant::Native), Some(4));
    study.computation.computation_participants.retain(|part| !part.name.ends_with("worker2"));
    trio.kingdom.report(&study.computation);
    let words = "they are not exactly the Duchies of serialized_protocol_config";
    assert_blames(&study.given_up_by(ME).await, words, &["kingdom"]);
}
