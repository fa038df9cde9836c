//! Reach-only Liquid Legions v2: from end to end, resumed, tampered with, and with the noise that it promises.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::setup::{COMPUTATION, Keys, duchy_id, keys, noise, parameters};
use crate::tape::Tape;
use halo_core::privacy::{MaximumFrequency, PrivacyParams};
use halo_crypto::batch;
use halo_crypto::group::{Point, Scalar};
use halo_crypto::hash::{self, Domain};
use halo_crypto::secret::Secret;
use halo_duchy::protocol::llv2::{Outcome, Parameters};
use halo_duchy::protocol::local::{self, Envelope, Faithful, Interceptor, Party};
use halo_duchy::protocol::rollv2::{Duchy, ENGINE_VERSION, REGISTER_BYTES};
use halo_duchy::protocol::{Body, Description, DirectoryWorkspace, MemoryBody, MemoryWorkspace, ProtocolError};
use halo_sketch::noise::NoiseMechanism;
use proptest::prelude::*;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

fn nonces(registers: usize, seed: u8) -> Vec<Scalar> {
    let mut rng = ChaCha20Rng::from_seed([seed; 32]);
    (0..registers).map(|_| Scalar::random(&mut rng)).collect()
}

fn requisition(keys: &Keys, indexes: &[u64], seed: u8) -> Body {
    let point = |index: &u64| hash::hash_to_group(Domain::Index, index.to_string().as_bytes());
    let points: Vec<Point> = indexes.iter().map(point).collect();
    let mut bytes = Vec::new();
    batch::encode_ciphertexts(&batch::encrypt(&keys.key, &points, &nonces(indexes.len(), seed)), &mut bytes);
    Arc::new(MemoryBody::new(bytes, REGISTER_BYTES).unwrap())
}

fn reach_only(publishers: u32) -> Parameters {
    Parameters { maximum_frequency: MaximumFrequency::REACH_ONLY, ..parameters(publishers) }
}

fn tiny() -> PrivacyParams {
    PrivacyParams::new(40.0, (-80f64).exp()).unwrap()
}

fn with_noise(mechanism: NoiseMechanism, reach: PrivacyParams, internal: [PrivacyParams; 2]) -> Parameters {
    let mut noise = noise(mechanism, reach, internal);
    noise.frequency = None;
    Parameters { noise: Some(noise), ..reach_only(3) }
}

fn parties(keys: &Keys, parameters: &Parameters, sketches: &[Vec<u64>], seed: u8) -> Vec<Party<Duchy>> {
    parties_of(COMPUTATION, keys, parameters, sketches, seed)
}

fn parties_of(
    computation: &str,
    keys: &Keys,
    parameters: &Parameters,
    sketches: &[Vec<u64>],
    seed: u8,
) -> Vec<Party<Duchy>> {
    let duchies = keys.ring.len();
    let party = |position: usize| Party {
        duchy: Duchy::new(
            parameters.clone(),
            computation.to_owned(),
            keys.ring.clone(),
            keys.ring[position].id.clone(),
            keys.secrets[position].clone(),
            Secret::new([seed.wrapping_add(position as u8); 32]),
        )
        .unwrap(),
        requisitions: (0..)
            .zip(sketches)
            .filter(|(publisher, _)| *publisher as usize % duchies == position)
            .map(|(publisher, indexes)| requisition(keys, indexes, 100 + publisher))
            .collect(),
    };
    (0..duchies).map(party).collect()
}

fn run(parameters: &Parameters, duchies: usize, sketches: &[Vec<u64>]) -> Outcome {
    local::run(&parties(&keys(duchies), parameters, sketches, 40), &MemoryWorkspace, &mut Faithful).unwrap()
}

#[test]
fn different_registers_are_counted() {
    let outcome = run(&reach_only(1), 3, &[(1..=100).collect()]);
    assert_eq!((outcome.registers_in, outcome.active_registers), (100, 100));
    // The reference's integer bisection says 202, the closed form a little less.
    let reach = outcome.estimate(&reach_only(1)).unwrap().reach;
    assert!((reach - 202.0).abs() < 1.5, "{reach}");
    let nobody = run(&reach_only(2), 3, &[vec![], vec![]]);
    assert_eq!((nobody.registers_in, nobody.active_registers), (0, 0));
}

#[test]
fn noise_inside_the_protocol_does_not_change_reach() {
    let small = PrivacyParams::new(0.1, 0.1).unwrap();
    for mechanism in [NoiseMechanism::Geometric, NoiseMechanism::DiscreteGaussian] {
        let sketches: Vec<Vec<u64>> = (0..3).map(|p| (10 * p..10 * p + 10).collect()).collect();
        let outcome = run(&with_noise(mechanism, tiny(), [small, small]), 3, &sketches);
        assert_eq!((outcome.registers_in, outcome.active_registers), (30, 30));
    }
}

/// The Duchies' noise registers together: over 500 computations the mean is the truth and the deviation what is said,
/// within five standard errors.
#[test]
fn noise_is_what_was_calibrated() {
    let keys = keys(2);
    for mechanism in [NoiseMechanism::Geometric, NoiseMechanism::DiscreteGaussian] {
        let mut parameters = with_noise(mechanism, PrivacyParams::new(1.0, 0.5).unwrap(), [tiny(), tiny()]);
        parameters.publishers = 1;
        let outcomes: Vec<Outcome> = (0..500)
            .map(|number| {
                let parties = parties_of(&format!("c{number}"), &keys, &parameters, &[vec![1, 2, 3]], 40);
                local::run(&parties, &MemoryWorkspace, &mut Faithful).unwrap()
            })
            .collect();
        let deviation = outcomes[0].reach_noise_sd;
        let n = outcomes.len() as f64;
        let found = || outcomes.iter().map(|outcome| outcome.active_registers as f64);
        let mean = found().sum::<f64>() / n;
        let spread = (found().map(|active| (active - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt();
        assert!(deviation > 0.5 && (mean - 3.0).abs() < 5.0 * deviation / n.sqrt(), "{mechanism:?}: {mean} is not 3");
        // The fourth moment of a two-sided geometric is at most six times the squared variance: √(5/4n) for one error.
        assert!(
            (spread / deviation - 1.0).abs() < 5.0 * (1.25 / n).sqrt(),
            "{mechanism:?}: {spread} is not {deviation}"
        );
    }
}

/// Two more than with keys, and one record for the excess noise.
#[test]
fn setup_adds_the_reference_number_of_registers() {
    for (mechanism, registers) in [(NoiseMechanism::Geometric, 108), (NoiseMechanism::DiscreteGaussian, 48)] {
        let parameters = with_noise(mechanism, tiny(), [tiny(), PrivacyParams::new(40.0, (-40f64).exp()).unwrap()]);
        let mut tape = Tape::default();
        let outcome =
            local::run(&parties(&keys(3), &parameters, &vec![vec![]; 3], 3), &MemoryWorkspace, &mut tape).unwrap();
        let records: Vec<u64> = tape.messages.iter().map(|message| message.2).collect();
        assert_eq!(records, [registers + 1, registers + 1, 3 * registers + 1, 3 * registers + 1, 3 * registers + 1]);
        assert_eq!((outcome.registers_in, outcome.active_registers), (0, 0));
    }
}

#[test]
fn a_replay_gives_the_same_bytes() {
    let small = PrivacyParams::new(1.0, 0.1).unwrap();
    let parameters = with_noise(NoiseMechanism::DiscreteGaussian, small, [small, small]);
    let sketches = [vec![1, 2, 3], vec![3, 4], vec![5]];
    let tape = |seed, resume, chunk| {
        let keys = keys(3);
        let mut parties = parties(&keys, &parameters, &sketches, seed);
        if let Some(records) = chunk {
            parties = parties
                .into_iter()
                .map(|party| Party { duchy: party.duchy.with_chunk_records(records), ..party })
                .collect();
        }
        let mut tape = Tape { resume, ..Tape::default() };
        let directory = tempfile::tempdir().unwrap();
        let workspace = DirectoryWorkspace::new(directory.path()).unwrap();
        let outcome = if resume {
            local::run(&parties, &workspace, &mut tape).unwrap()
        } else {
            local::run(&parties, &MemoryWorkspace, &mut tape).unwrap()
        };
        (tape.messages, outcome)
    };
    let base = tape(40, false, None);
    assert_eq!(base, tape(40, true, None));
    assert_eq!(base, tape(40, false, Some(1)));
    assert_eq!(base, tape(40, false, Some(7)));
    let other = tape(60, false, None);
    assert!(base.0.iter().zip(&other.0).all(|(a, b)| a.2 == b.2 && a.3 != b.3));

    let mut found = format!("engine version {ENGINE_VERSION}\n");
    for (way, description, records, sha256) in &base.0 {
        found += &format!("{way}: {description}: {records} records, {}\n", hex::encode(sha256));
    }
    assert_eq!(found, include_str!("../golden/rollv2-messages.txt"), "found:\n{found}");
}

#[test]
fn counts_need_the_other_protocol() {
    let keys = keys(2);
    let make = |parameters| {
        let (me, secret) = (keys.ring[0].id.clone(), keys.secrets[0].clone());
        Duchy::new(parameters, COMPUTATION.to_owned(), keys.ring.clone(), me, secret, Secret::new([1; 32]))
    };
    assert!(make(reach_only(1)).is_ok());
    let error = make(parameters(1)).unwrap_err().to_string();
    assert!(error.contains("maximum frequency 10"), "{error}");
}

/// Changes the message at one place in the order of delivery.
struct Tamper {
    at: usize,
    seen: usize,
    how: fn(&mut Vec<u8>),
    sender: Option<String>,
}

impl Interceptor for Tamper {
    fn message(&mut self, mut envelope: Envelope) -> Vec<Envelope> {
        if self.seen == self.at {
            self.sender = Some(envelope.from.to_string());
            let mut bytes = envelope.bytes().unwrap();
            (self.how)(&mut bytes);
            envelope.replace(bytes);
        }
        self.seen += 1;
        vec![envelope]
    }
}

/// Messages: two in setup, three around the ring.
fn tampered(at: usize, how: fn(&mut Vec<u8>)) -> (ProtocolError, String) {
    let parties = parties(&keys(3), &reach_only(2), &[vec![1, 2], vec![2, 3]], 7);
    let mut tamper = Tamper { at, seen: 0, how, sender: None };
    let error = local::run(&parties, &MemoryWorkspace, &mut tamper).unwrap_err();
    (error, tamper.sender.unwrap())
}

#[test]
fn what_is_no_record_is_refused_and_blamed_on_its_sender() {
    let cases: [fn(&mut Vec<u8>); 4] = [
        |bytes| bytes[..32].fill(0xff),
        |bytes| bytes[..32].fill(0),
        // The excess noise is a record like the others.
        |bytes| {
            let last = bytes.len() - REGISTER_BYTES;
            bytes[last..last + 32].fill(0);
        },
        |bytes| bytes.push(0),
    ];
    for at in 0..5 {
        for how in cases {
            let (error, sender) = tampered(at, how);
            let culprits: Vec<String> = error.culprits().iter().map(ToString::to_string).collect();
            assert_eq!(culprits, [sender], "message {at}: {error}");
        }
    }
}

#[test]
fn a_missing_or_surplus_register_is_noticed_at_the_end_of_the_ring() {
    let cases: [fn(&mut Vec<u8>); 3] = [
        |bytes| drop(bytes.drain(..REGISTER_BYTES)),
        |bytes| bytes.extend_from_within(..REGISTER_BYTES),
        |bytes| bytes.clear(),
    ];
    for at in 3..5 {
        for how in cases {
            let (error, sender) = tampered(at, how);
            assert!(matches!(error, ProtocolError::WrongCount { .. }), "message {at}: {error}");
            let culprits: Vec<String> = error.culprits().iter().map(ToString::to_string).collect();
            assert!(culprits.contains(&sender), "message {at}: {error} blames {culprits:?}");
        }
    }
    // Without even the excess noise, in setup.
    assert!(matches!(tampered(0, |bytes| bytes.clear()).0, ProtocolError::WrongCount { .. }));
}

/// Another ciphertext in the place of the excess noise opens to none of the numbers that it can be.
#[test]
fn other_excess_noise_is_noticed() {
    let (error, _) = tampered(4, |bytes| {
        let (first, rest) = bytes.split_at_mut(REGISTER_BYTES);
        let last = rest.len() - REGISTER_BYTES;
        first.swap_with_slice(&mut rest[last..]);
    });
    assert!(matches!(error, ProtocolError::Inconsistent(_)), "{error}");
}

/// Keeps the first components of the indexes that reach the aggregator.
#[derive(Default)]
struct Indexes(Vec<Point>);

impl Interceptor for Indexes {
    fn message(&mut self, envelope: Envelope) -> Vec<Envelope> {
        if envelope.description == Description::ReachOnlyExecutionInput && envelope.to == duchy_id(2, 3) {
            let registers = batch::decode_ciphertexts(&envelope.bytes().unwrap()).unwrap();
            self.0 = registers.iter().map(|register| register.u).collect();
        }
        vec![envelope]
    }
}

/// As for the protocol with keys: who knows two nonces must not be able to find the blinding of all first components.
#[test]
fn known_nonces_do_not_find_registers_again() {
    let sketch: Vec<u64> = (0..8).collect();
    let nonces = nonces(sketch.len(), 100);
    let mut indexes = Indexes::default();
    local::run(&parties(&keys(3), &reach_only(1), &[sketch], 5), &MemoryWorkspace, &mut indexes).unwrap();
    assert_eq!(indexes.0.len(), 9);
    for one in &indexes.0 {
        for other in &indexes.0 {
            assert_ne!(*one * &nonces[3], *other * &nonces[0]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn without_noise_the_count_is_that_of_the_union(
        duchies in 2usize..=5,
        sketches in prop::collection::vec(prop::collection::btree_set(0u64..40, 0..12), 1..=12),
    ) {
        let union: BTreeSet<u64> = sketches.iter().flatten().copied().collect();
        let sketches: Vec<Vec<u64>> = sketches.into_iter().map(|sketch| sketch.into_iter().collect()).collect();
        let outcome = run(&reach_only(sketches.len() as u32), duchies, &sketches);
        prop_assert_eq!(outcome.active_registers, union.len() as i64);
        prop_assert_eq!(outcome.registers_in as usize, sketches.iter().map(Vec::len).sum::<usize>());
    }
}
