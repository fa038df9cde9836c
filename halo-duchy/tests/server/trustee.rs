//! The measurement in one Duchy's trusted process, from end to end.

use halo_core::{
    measurement::{Population, Protocol, TrusteeConfig, TrusteeNoise, TrusteeThresholds},
    pb::{
        api::{
            self, encryption_key,
            fulfill_requisition_request::header::{Protocol as UploadProtocol, TrusTee, trus_tee},
        },
        system::{computation::State, computation_participant::requisition_params},
    },
};
use halo_crypto::{
    attestation::{AttestationVerifier, Evidence, Refused, SimulatedVerifier, Statement},
    consent::tink::PublicKeyset,
    envelope::{self, DataKey, Encryptor, HybridKey},
};
use prost::Message;
use sha2::{Digest, Sha256};
use tonic::Code;

use crate::{
    caller::assert_refused,
    kingdom::Call,
    measurement::Upload,
    trio::{Study, Trio, assert_blames},
    world::{DUCHIES, ME, PUBLISHERS, id, rng},
};

const SETTINGS: &str = "allow_simulated_attestation = true\nnoise_floor = { allow_no_noise = true }";
const VECTORS: [[u8; 8]; 2] = [[0, 1, 2, 0, 5, 0, 0, 1], [0, 1, 0, 0, 3, 1, 0, 0]];

fn config() -> TrusteeConfig {
    TrusteeConfig {
        duchy: id(ME).parse().unwrap(),
        noise: TrusteeNoise::None,
        thresholds: None,
        population: Population::new(1, 8).unwrap(),
    }
}

/// A publisher's vector under envelope encryption, bound to a requisition.
fn upload_of(study: &Study<'_>, publisher: usize, cells: &[u8], bound_to: &str) -> Upload {
    let key = study.keys().remove(0).1;
    let key = PublicKeyset::from_bytes(&api::EncryptionPublicKey::decode(key.as_slice()).unwrap().data).unwrap();
    let binding = envelope::requisition_binding(bound_to);
    let data_key = DataKey::generate(&mut rng());
    let wrapped = data_key.wrap(&HybridKey::public(ME.to_owned(), key), &binding, &mut rng()).unwrap();
    let mut body = Vec::new();
    let mut encryptor = Encryptor::new(&data_key, &binding, &mut rng());
    encryptor.write(cells, &mut body).unwrap();
    encryptor.finish(&mut body).unwrap();
    let mut encrypted_dek = api::EncryptionKey { data: wrapped, ..Default::default() };
    encrypted_dek.set_format(encryption_key::Format::TinkEncryptedKeyset);
    let mut header = TrusTee {
        envelope_encryption: Some(trus_tee::EnvelopeEncryption {
            encrypted_dek: Some(encrypted_dek),
            kms_kek_uri: ME.to_owned(),
            ..Default::default()
        }),
        ..Default::default()
    };
    header.set_data_format(trus_tee::DataFormat::EncryptedFrequencyVector);
    let mut upload = study.upload(publisher, study.key_list_hash(|_| true), body.len(), body);
    upload.header.protocol = Some(UploadProtocol::TrusTee(header));
    upload
}

fn upload(study: &Study<'_>, publisher: usize) -> Upload {
    upload_of(study, publisher, &VECTORS[publisher], &study.requisitions[publisher])
}

#[tokio::test(flavor = "multi_thread")]
async fn the_result_is_exact_and_the_key_is_attested() {
    let trio = Trio::start(SETTINGS).await;
    for (number, frequency) in (1..).zip([Some(3), None]) {
        let mut study = trio.open(number, Protocol::Trustee(config()), frequency).await;
        let params = study.computation.computation_participants[0].requisition_params.clone().unwrap();
        let Some(requisition_params::Protocol::TrusTee(params)) = params.protocol else { panic!("{params:?}") };
        let statement = Statement {
            trustee: id(ME).to_owned(),
            computation: hex::encode(study.session()),
            binding: Sha256::digest(&params.tink_public_key).into(),
        };
        let evidence = Evidence::from_bytes(&params.attestation).unwrap();
        SimulatedVerifier { allow_simulated: true }.verify(&statement, &evidence).unwrap();
        let refused = SimulatedVerifier { allow_simulated: false }.verify(&statement, &evidence);
        assert_eq!(refused, Err(Refused::Simulated));
        let uploads = [upload(&study, 0), upload(&study, 1)];
        study.fulfill([&uploads[0], &uploads[1]]).await;
        study.confirm().await;
        trio.stop(ME).await;
        trio.revive(ME).await;
        study.report(State::PendingComputation);
        let result = study.result().await;
        let reach = result.reach.unwrap();
        assert_eq!((reach.value, reach.frequency_vector_size), (5, 8));
        let frequency = frequency.map(|_| vec![2, 2, 1]);
        assert_eq!(result.frequency.map(|found| found.histogram), frequency);
        // The Duchies that do not compute have told nothing.
        for call in trio.kingdom.calls(&study.computation) {
            if let Call::Parameters(request) = call {
                assert!(request.name.ends_with("/participants/aggregator"));
            }
        }
    }
}

/// 5 people were reached.
#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_a_threshold_holds_back_says_so() {
    let trio = Trio::start(SETTINGS).await;
    for (number, min_users, expected) in [(1, 5, (5, false)), (2, 6, (0, true))] {
        let thresholds = Some(TrusteeThresholds { min_users, min_impressions: 0 });
        let mut study = trio.open(number, Protocol::Trustee(TrusteeConfig { thresholds, ..config() }), Some(3)).await;
        let uploads = [upload(&study, 0), upload(&study, 1)];
        study.fulfill([&uploads[0], &uploads[1]]).await;
        study.confirm().await;
        study.report(State::PendingComputation);
        let reach = study.result().await.reach.unwrap();
        assert_eq!((reach.value, reach.suppressed), expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_proof_only_where_that_is_allowed() {
    let trio = Trio::start("noise_floor = { allow_no_noise = true }").await;
    let study = trio.plan(1, Protocol::Trustee(config()), Some(3));
    trio.kingdom.report(&study.computation);
    assert_blames(&study.given_up_by(ME).await, "(allow_simulated_attestation)", &[]);
    let trio = Trio::start("allow_simulated_attestation = true").await;
    let noise = [(TrusteeNoise::None, "(allow_no_noise)"), (TrusteeNoise::Deterministic, "(noise_key_file)")];
    for (number, (noise, words)) in (1..).zip(noise) {
        let study = trio.plan(number, Protocol::Trustee(TrusteeConfig { noise, ..config() }), Some(3));
        trio.kingdom.report(&study.computation);
        assert_blames(&study.given_up_by(ME).await, words, &[]);
    }
    // Not this Duchy alone.
    let mut study =
        trio.plan(10, Protocol::Trustee(TrusteeConfig { noise: TrusteeNoise::DiscreteGaussian, ..config() }), Some(3));
    let mut other = study.computation.computation_participants[0].clone();
    other.name = other.name.replace("aggregator", "worker1");
    study.computation.computation_participants.push(other);
    trio.kingdom.report(&study.computation);
    let words = "they are not exactly the Duchies of serialized_protocol_config";
    assert_blames(&study.given_up_by(ME).await, words, &["kingdom"]);
}

/// Words of a refused upload, and the change that brings it about.
type BadUpload<'a> = (&'a str, &'a dyn Fn(&Study<'_>, &mut Upload));

#[tokio::test(flavor = "multi_thread")]
async fn uploads_that_are_no_envelopes_are_refused_and_nothing_is_opened_early() {
    fn trustee(upload: &mut Upload) -> &mut TrusTee {
        match &mut upload.header.protocol {
            Some(UploadProtocol::TrusTee(trustee)) => trustee,
            other => panic!("{other:?}"),
        }
    }
    let trio = Trio::start(SETTINGS).await;
    let mut study = trio.open(1, Protocol::Trustee(config()), Some(3)).await;
    let changes: &[BadUpload<'_>] = &[
        ("which is trustee", &|_, upload| upload.header.protocol = None),
        ("are due for 8 cells", &|study, upload| {
            *upload = upload_of(study, 0, &[1; 9], &study.requisitions[0]);
        }),
        ("only ENCRYPTED_FREQUENCY_VECTOR", &|_, upload| {
            trustee(upload).set_data_format(trus_tee::DataFormat::FrequencyVector);
        }),
        ("envelope_encryption: is missing", &|_, upload| trustee(upload).envelope_encryption = None),
        ("only keys that are encrypted to duchies/aggregator", &|_, upload| {
            trustee(upload).envelope_encryption.as_mut().unwrap().kms_kek_uri = DUCHIES[1].to_owned();
        }),
        ("encrypted_dek", &|_, upload| {
            let envelope = trustee(upload).envelope_encryption.as_mut().unwrap();
            envelope.encrypted_dek.as_mut().unwrap().data = vec![1, 2, 3];
        }),
        ("SHA-256", &|_, upload| upload.body[3] ^= 1),
    ];
    let publisher = study.publisher(0).await;
    for (words, change) in changes {
        let mut bad = upload(&study, 0);
        change(&study, &mut bad);
        assert_refused(publisher.upload(&bad).await, Code::InvalidArgument, words);
    }
    // What only shows when it is opened: a vector of another requisition, and cells that no vector has.
    let moved = upload_of(&study, 0, &VECTORS[0], &study.requisitions[1]);
    let good = upload(&study, 1);
    study.fulfill([&moved, &good]).await;
    study.confirm().await;
    study.report(State::PendingComputation);
    let failure = study.given_up_by(ME).await;
    assert_blames(&failure, &study.requisitions[0], &[PUBLISHERS[0]]);
    let mut study = trio.open(2, Protocol::Trustee(config()), Some(3)).await;
    let (good, wild) = (upload(&study, 0), upload_of(&study, 1, &[128; 8], &study.requisitions[1]));
    study.fulfill([&good, &wild]).await;
    study.confirm().await;
    study.report(State::PendingComputation);
    let failure = study.given_up_by(ME).await;
    assert_blames(&failure, "above the protocol's cap of 127", &[PUBLISHERS[1]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn small_results_are_held_back() {
    let trio = Trio::start(SETTINGS).await;
    let thresholds = Some(TrusteeThresholds { min_impressions: 0, min_users: 6 });
    let mut study = trio.open(1, Protocol::Trustee(TrusteeConfig { thresholds, ..config() }), Some(3)).await;
    let uploads = [upload(&study, 0), upload(&study, 1)];
    let result = study.finish([&uploads[0], &uploads[1]]).await;
    let frequency = result.frequency.unwrap();
    assert_eq!(result.reach.unwrap().value, 0);
    assert!(
        frequency.histogram.is_empty() && frequency.relative_frequency_distribution.values().all(|share| *share == 0.0)
    );
}
