//! The trustee: equal to the plaintext, the reference's values, thresholds, noise, attestation, and whom it blames.

mod noise;
mod refusals;
mod values;

use std::sync::Arc;

use crate::tape::Tape;
use halo_core::privacy::{MaximumFrequency, PrivacyParams};
use halo_crypto::attestation::{AttestedKeyService, SimulatedAttestation, SimulatedVerifier};
use halo_crypto::envelope::{DataKey, Encryptor, TinkAead, requisition_binding};
use halo_crypto::secret::Secret;
use halo_duchy::protocol::local::{self, Party};
use halo_duchy::protocol::trustee::{
    Budget, Duchy, ENGINE_VERSION, Noise, Outcome, Parameters, Requisition, Thresholds, Trust, Variant,
};
use halo_duchy::protocol::{
    Body, DirectoryWorkspace, MemoryBody, MemoryWorkspace, ProtocolError, State, Step, Workspace,
};
use proptest::prelude::*;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

const KEK: &str = "example-kms://publishers";

fn parameters(cells: usize, maximum_frequency: u32, publishers: usize) -> Parameters {
    Parameters {
        variant: Variant::Native,
        cells: cells as u64,
        maximum_frequency: MaximumFrequency::new(maximum_frequency).unwrap(),
        sampling_width: 1.0,
        requisitions: (0..publishers).map(|publisher| format!("requisitions/{publisher:02}")).collect(),
        thresholds: None,
        noise: Noise::None,
    }
}

fn budget(epsilon: f64, delta: f64) -> Budget {
    let params = PrivacyParams::new(epsilon, delta).unwrap();
    Budget { reach: params, frequency: Some(params), impressions: Some(params) }
}

fn kek() -> Arc<TinkAead> {
    Arc::new(TinkAead::generate(KEK.to_owned(), &mut ChaCha20Rng::seed_from_u64(1)))
}

fn trust(verifier_allows: bool) -> Trust {
    let verifier = Arc::new(SimulatedVerifier { allow_simulated: verifier_allows });
    Trust {
        attestation: Arc::new(SimulatedAttestation),
        keys: Arc::new(AttestedKeyService::new(verifier, vec![kek()])),
        allow_simulated: true,
        noise_key: Some(Secret::new([9; 32])),
    }
}

fn duchy(parameters: &Parameters, seed: u16) -> Duchy {
    let me = "aggregator".parse().unwrap();
    let mut bytes = [seed as u8; 32];
    bytes[0] ^= (seed >> 8) as u8;
    Duchy::new(parameters.clone(), "AAAAAAAAAHs".to_owned(), me, Secret::new(bytes), trust(true)).unwrap()
}

fn body(bytes: Vec<u8>) -> Body {
    Arc::new(MemoryBody::new(bytes, 1).unwrap())
}

/// What a publisher sends: the vector under a key of its own.
fn requisition(parameters: &Parameters, publisher: usize, vector: &[u8]) -> Requisition {
    let mut rng = ChaCha20Rng::seed_from_u64(100 + publisher as u64);
    let id = parameters.requisitions[publisher].clone();
    let bound = match parameters.variant {
        Variant::Compatible => Vec::new(),
        Variant::Native => requisition_binding(&id),
    };
    let key = DataKey::generate(&mut rng);
    let wrapped_key = key.wrap(kek().as_ref(), &bound, &mut rng).unwrap();
    let mut ciphertext = Vec::new();
    let mut encryptor = Encryptor::new(&key, &bound, &mut rng);
    encryptor.write(vector, &mut ciphertext).unwrap();
    encryptor.finish(&mut ciphertext).unwrap();
    Requisition { id, vector: body(ciphertext), wrapped_key, kek: KEK.to_owned() }
}

fn requisitions(parameters: &Parameters, vectors: &[Vec<u8>]) -> Vec<Requisition> {
    vectors.iter().enumerate().map(|(publisher, vector)| requisition(parameters, publisher, vector)).collect()
}

fn try_run(parameters: &Parameters, vectors: &[Vec<u8>], seed: u16) -> Result<Outcome, ProtocolError> {
    let party = Party { duchy: duchy(parameters, seed), requisitions: requisitions(parameters, vectors) };
    local::run(&[party], &MemoryWorkspace, &mut Tape::default())
}

fn run(parameters: &Parameters, vectors: &[Vec<u8>]) -> Outcome {
    try_run(parameters, vectors, 40).unwrap()
}

fn done(step: Step<Outcome>) -> Outcome {
    match step {
        Step::Done { output: Some(outcome), outbox } if outbox.is_empty() => outcome,
        other => panic!("{other:?}"),
    }
}

/// Reach and histogram in the clear.
fn clear(vectors: &[Vec<u8>], maximum_frequency: u32) -> (i64, Vec<i64>) {
    let mut histogram = vec![0; maximum_frequency as usize];
    for cell in 0..vectors[0].len() {
        let sum: usize = vectors.iter().map(|vector| usize::from(vector[cell])).sum();
        if sum > 0 {
            histogram[sum.min(maximum_frequency as usize) - 1] += 1;
        }
    }
    (histogram.iter().sum(), histogram)
}

fn check_clear(parameters: &Parameters, vectors: &[Vec<u8>]) {
    let maximum_frequency = parameters.maximum_frequency.get();
    let outcome = run(parameters, vectors);
    let (reach, histogram) = clear(vectors, maximum_frequency);
    assert_eq!(outcome.reached, reach);
    assert_eq!(outcome.histogram, (maximum_frequency > 1).then_some(histogram));
    let estimates = outcome.estimate(parameters).unwrap();
    assert_eq!((estimates.reach, estimates.reach_standard_error), (reach as f64, 0.0));
    assert_eq!(estimates.frequency.is_some(), maximum_frequency > 1 && reach > 0);
}

/// Vectors of 1 to 12 publishers, with cells up to the protocol's cap.
fn vectors() -> impl Strategy<Value = Vec<Vec<u8>>> {
    (1..=12_usize, 2..200_usize).prop_flat_map(move |(publishers, cells)| {
        let cell = prop_oneof![5 => Just(0), 3 => 0..=5_u8, 1 => 0..=127_u8];
        prop::collection::vec(prop::collection::vec(cell, cells), publishers)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn without_noise_the_result_is_the_plaintexts(vectors in vectors(), frequency in 1..=127_u32, native: bool) {
        let variant = if native { Variant::Native } else { Variant::Compatible };
        check_clear(&Parameters { variant, ..parameters(vectors[0].len(), frequency, vectors.len()) }, &vectors);
    }
}

#[test]
fn vectors_beyond_one_segment() {
    let vectors: Vec<Vec<u8>> =
        (1..4_usize).map(|p| (0..1_200_000_usize).map(|i| (i * p % 97 % 11) as u8).collect()).collect();
    check_clear(&parameters(1_200_000, 10, 3), &vectors);
    // Where small contributions are left out, vectors take another way.
    let thresholds = Some(Thresholds::new(1, 0));
    let noise = Noise::Sticky(budget(30.0, 0.5));
    run(&Parameters { thresholds, noise, ..parameters(1_200_000, 10, 3) }, &vectors);
}

#[test]
fn a_replay_gives_the_same_and_arrival_does_not_matter() {
    let vectors = [vec![0, 1, 2, 3, 0, 10], vec![1, 1, 0, 0, 0, 10], vec![0, 5, 0, 0, 0, 1]];
    let noises =
        [Noise::None, Noise::DiscreteGaussian(budget(0.1, 1e-3)), Noise::Sticky(budget(0.1, 1e-3)), Noise::Reference];
    let mut found = format!("engine version {ENGINE_VERSION}\n");
    for noise in noises {
        for frequency in [1, 10] {
            let parameters = Parameters { noise, ..parameters(6, frequency, 3) };
            let base = run(&parameters, &vectors);
            let all = requisitions(&parameters, &vectors);
            let mut reversed = all.clone();
            reversed.reverse();
            let directory = tempfile::tempdir().unwrap();
            let workspace = DirectoryWorkspace::new(directory.path()).unwrap();
            let duchy = duchy(&parameters, 40);
            assert_eq!(base, done(duchy.start(&all, &workspace).unwrap()));
            assert_eq!(base, done(duchy.start(&reversed, &workspace).unwrap()));
            // Two of three have arrived; the state goes through its stored form; then the third arrives.
            let Step::Wait { state, outbox, awaiting } = duchy.start(&all[..2], &workspace).unwrap() else { panic!() };
            assert!(outbox.is_empty() && awaiting.is_empty());
            let state = State::from_bytes(&state.to_bytes()).unwrap();
            assert_eq!(base, done(duchy.advance(&state, &all, &[], &workspace).unwrap()));
            let others = done(self::duchy(&parameters, 41).start(&all, &workspace).unwrap());
            assert_eq!(base == others, !matches!(noise, Noise::DiscreteGaussian(_)), "only drawn noise is another");
            let name = format!("{noise:?}");
            let name = name.split('(').next().unwrap();
            found += &format!("{name}, F = {frequency}: reached {}, {:?}\n", base.reached, base.histogram);
        }
    }
    assert_eq!(found, include_str!("../golden/trustee-outcomes.txt"), "found:\n{found}");
}

#[test]
fn golden_state() {
    let parameters = parameters(4, 3, 2);
    let duchy = duchy(&parameters, 40);
    let all = requisitions(&parameters, &[vec![1, 0, 1, 0], vec![0, 1, 1, 0]]);
    let Step::Wait { state, .. } = duchy.start(&all[..1], &MemoryWorkspace).unwrap() else { panic!() };
    let file = include_str!("../golden/trustee-state-v1.hex").trim();
    assert_eq!(hex::encode(state.to_bytes()), file);
    let state = State::from_bytes(&hex::decode(file).unwrap()).unwrap();
    assert_eq!(done(duchy.advance(&state, &all, &[], &MemoryWorkspace).unwrap()).reached, 3);
}

#[test]
fn cancellation_is_heard() {
    struct GivenUp;
    impl Workspace for GivenUp {
        fn create(&self, _: usize) -> std::io::Result<Box<dyn halo_duchy::protocol::RecordSink>> {
            panic!("a trustee writes nothing")
        }
        fn is_cancelled(&self) -> bool {
            true
        }
    }
    let parameters = parameters(2, 1, 1);
    let error = duchy(&parameters, 1).start(&requisitions(&parameters, &[vec![1, 0]]), &GivenUp).unwrap_err();
    assert!(matches!(error, ProtocolError::Cancelled));
}
