//! Liquid Legions v2 from end to end, in one process.

use std::collections::BTreeMap;

use crate::setup::{Keys, Register, keys, noise, parameters, parties};
use crate::tape::Tape;
use halo_core::privacy::{MaximumFrequency, PrivacyParams};
use halo_crypto::batch;
use halo_crypto::group::Scalar;
use halo_crypto::hash;
use halo_duchy::protocol::llv2::{ENGINE_VERSION, Outcome, Parameters};
use halo_duchy::protocol::local::{self, Envelope, Faithful, Interceptor};
use halo_duchy::protocol::{Description, DirectoryWorkspace, MemoryWorkspace};
use halo_sketch::noise::NoiseMechanism;
use proptest::prelude::*;

fn run(parameters: &Parameters, duchies: usize, sketches: &[Vec<Register>]) -> Outcome {
    local::run(&parties(&keys(duchies), parameters, sketches, 40), &MemoryWorkspace, &mut Faithful).unwrap()
}

fn tiny() -> PrivacyParams {
    PrivacyParams::new(40.0, (-80f64).exp()).unwrap()
}

/// No noise, then deterministic noise of both kinds: so large an ε that nothing but the shift remains.
fn with_and_without_noise(publishers: u32) -> Vec<Parameters> {
    let with = |mechanism| {
        let noise = noise(mechanism, tiny(), [tiny(), PrivacyParams::new(40.0, (-40f64).exp()).unwrap()]);
        Parameters { noise: Some(noise), ..parameters(publishers) }
    };
    vec![parameters(publishers), with(NoiseMechanism::Geometric), with(NoiseMechanism::DiscreteGaussian)]
}

fn histogram(entries: &[(usize, i64)]) -> Vec<i64> {
    let mut bins = vec![0; 10];
    entries.iter().for_each(|(frequency, count)| bins[frequency - 1] = *count);
    bins
}

#[test]
fn counts_of_one_register_are_added() {
    let sketches = [vec![(1, 111, 1)], vec![(1, 111, 2)], vec![(1, 111, 3)]];
    for parameters in with_and_without_noise(3) {
        let outcome = run(&parameters, 3, &sketches);
        assert_eq!(outcome.registers_in, 3);
        assert_eq!(outcome.active_registers, 1);
        assert_eq!(outcome.usable_histogram, Some(histogram(&[(6, 1)])));
    }
}

#[test]
fn locally_destroyed_registers_count_for_reach_only() {
    for parameters in with_and_without_noise(3) {
        let outcome = run(&parameters, 3, &[vec![(1, 111, 3)], vec![(2, -1, 2)], vec![]]);
        assert_eq!(outcome.active_registers, 2);
        assert_eq!(outcome.usable_histogram, Some(histogram(&[(3, 1)])));
    }
}

#[test]
fn registers_with_different_keys_count_for_reach_only() {
    for parameters in with_and_without_noise(3) {
        let outcome = run(&parameters, 3, &[vec![(1, 111, 3)], vec![(1, 222, 2)], vec![(4, 1, 1), (1, 111, 1)]]);
        assert_eq!(outcome.active_registers, 2);
        assert_eq!(outcome.usable_histogram, Some(histogram(&[(1, 1)])));
    }
}

#[test]
fn counts_are_capped_by_the_maximum_frequency() {
    for parameters in with_and_without_noise(3) {
        let outcome = run(&parameters, 3, &[vec![(1, 111, 3)], vec![(2, 222, 5)], vec![(2, 222, 7)]]);
        assert_eq!(outcome.usable_histogram, Some(histogram(&[(3, 1), (10, 1)])));
        let frequency = outcome.estimate(&parameters).unwrap().frequency.unwrap();
        assert!((frequency.shares[2] - 0.5).abs() < 1e-12 && (frequency.shares[9] - 0.5).abs() < 1e-12);
    }
}

#[test]
fn frequency_noise_without_variance_changes_nothing() {
    let sketch = vec![(1, 111, 2), (2, 222, 3), (3, 333, 3), (4, 444, 3)];
    for parameters in with_and_without_noise(3) {
        let outcome = run(&parameters, 3, &[sketch.clone(), vec![], vec![]]);
        assert_eq!(outcome.usable_histogram, Some(histogram(&[(2, 1), (3, 3)])));
        let frequency = outcome.estimate(&parameters).unwrap().frequency.unwrap();
        assert_eq!((frequency.shares[1], frequency.shares[2]), (0.25, 0.75));
    }
}

/// Internal noise must not change reach, with F = 10 and with F = 1, where blinded histogram noise must still be
/// recognised.
#[test]
fn internal_noise_does_not_change_reach() {
    let registers: Vec<Register> = (0..30).map(|i| (i, i as i64, 1)).collect();
    let one = PrivacyParams::new(1.0, 0.99).unwrap();
    for mechanism in [NoiseMechanism::Geometric, NoiseMechanism::DiscreteGaussian] {
        for maximum_frequency in [1, 10] {
            let parameters = Parameters {
                noise: Some(noise(mechanism, tiny(), [one, one])),
                maximum_frequency: MaximumFrequency::new(maximum_frequency).unwrap(),
                ..parameters(3)
            };
            let sketches = [registers[..10].to_vec(), registers[10..20].to_vec(), registers[20..].to_vec()];
            let outcome = run(&parameters, 3, &sketches);
            assert_eq!(outcome.active_registers, 30);
            assert_eq!(outcome.registers_in, 30);
            assert_eq!(outcome.usable_histogram.is_some(), maximum_frequency > 1);
            let reach = outcome.estimate(&parameters).unwrap().reach;
            assert!((reach - 60.0).abs() < 5.0, "{reach}");
        }
    }
}

/// Groups of publisher noise and padding that are small enough to survive the size test (S is large) are no registers.
#[test]
fn small_groups_of_publisher_noise_are_dropped() {
    let parameters = Parameters {
        noise: Some(noise(NoiseMechanism::DiscreteGaussian, tiny(), [PrivacyParams::new(40.0, 0.99).unwrap(), tiny()])),
        maximum_frequency: MaximumFrequency::REACH_ONLY,
        ..parameters(20)
    };
    let outcome = run(&parameters, 2, &[vec![(1, 1, 1)]]);
    assert_eq!(outcome.active_registers, 1);
}

#[test]
fn any_number_of_duchies_and_publishers() {
    for (duchies, publishers) in [(2, 1), (2, 20), (4, 5), (5, 2)] {
        let sketches: Vec<Vec<Register>> =
            (0..publishers).map(|p| vec![(7, 70, 1), (100 + u64::from(p), 1, 2)]).collect();
        let outcome = run(&parameters(publishers), duchies, &sketches);
        assert_eq!(outcome.registers_in, 2 * u64::from(publishers));
        assert_eq!(outcome.active_registers, 1 + i64::from(publishers));
        let shared = publishers.min(10) as usize;
        let mut expected = histogram(&[(2, i64::from(publishers))]);
        expected[shared - 1] += 1;
        assert_eq!(outcome.usable_histogram, Some(expected), "{duchies} Duchies, {publishers} publishers");
    }
}

#[test]
fn nobody_reached_is_no_data() {
    for sketches in [vec![], vec![vec![], vec![], vec![]]] {
        for parameters in with_and_without_noise(3) {
            let outcome = run(&parameters, 3, &sketches);
            assert_eq!((outcome.registers_in, outcome.active_registers), (0, 0));
            let estimate = outcome.estimate(&parameters).unwrap();
            assert_eq!(estimate.reach, 0.0);
            assert!(estimate.reach_standard_error.is_finite());
            assert_eq!(estimate.frequency, None);
        }
    }
}

/// Resuming from stored states, other chunk sizes, one thread and files on disk: always the same bytes. Another seed:
/// other bytes.
#[test]
fn a_replay_gives_the_same_bytes() {
    let parameters = with_and_without_noise(3).remove(2);
    let sketches = [vec![(1, 111, 3), (9, 5, 1)], vec![(2, 222, 5)], vec![(2, 222, 7), (1, 3, 1)]];
    let tape = |seed, resume, chunk| {
        let mut parties = parties(&keys(3), &parameters, &sketches, seed);
        if let Some(records) = chunk {
            parties.iter_mut().for_each(|party| {
                let position = keys(3).ring.iter().position(|p| &p.id == party.duchy.id()).unwrap();
                party.duchy = crate::setup::duchy(&keys(3), &parameters, position, seed).with_chunk_records(records);
            });
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
    let one_thread = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    assert_eq!(base, one_thread.install(|| tape(40, false, None)));
    let other = tape(60, false, None);
    assert_eq!(base.1, other.1);
    assert!(base.0.iter().zip(&other.0).all(|(a, b)| a.2 == b.2 && a.3 != b.3));
}

/// Opens the count of the only register on every hop.
struct Counts {
    keys: Keys,
    hops: u32,
}

impl Interceptor for Counts {
    fn message(&mut self, envelope: Envelope) -> Vec<Envelope> {
        let to = self.keys.ring.iter().position(|participant| participant.id == envelope.to).unwrap();
        let aggregator = self.keys.ring.len() - 1;
        // The last ciphertext of a record, and who has yet to peel it.
        let place = match envelope.description {
            Description::ExecutionPhaseOneInput => Some((2, 0)),
            Description::ExecutionPhaseTwoInput => Some((3, 0)),
            Description::ExecutionPhaseThreeInput if to != aggregator => Some((0, to)),
            _ => None,
        };
        if let Some((place, from)) = place {
            let mut ciphertexts = batch::decode_ciphertexts(&envelope.bytes().unwrap()).unwrap();
            self.keys.secrets[from..].iter().for_each(|secret| batch::peel(secret, &mut ciphertexts));
            let expected = hash::constant("unit") * &Scalar::from(5 << self.hops);
            assert!(ciphertexts[place].e == expected, "{} on hop {}", envelope.description, self.hops);
            self.hops += 1;
        }
        vec![envelope]
    }
}

#[test]
fn counts_double_on_every_hop() {
    for duchies in 2..=4 {
        let parties = parties(&keys(duchies), &parameters(1), &[vec![(1, 111, 5)]], 40);
        let mut counts = Counts { keys: keys(duchies), hops: 0 };
        local::run(&parties, &MemoryWorkspace, &mut counts).unwrap();
        assert_eq!(counts.hops as usize, 3 * duchies - 1);
    }
}

/// Every message of three runs, byte for byte. What changes here needs another `ENGINE_VERSION`: a Duchy that is updated
/// in the middle of a computation must refuse its old states rather than draw other numbers.
#[test]
fn golden_messages() {
    let one = PrivacyParams::new(1.0, 0.99).unwrap();
    let noisy = |mechanism| Parameters {
        noise: Some(noise(mechanism, PrivacyParams::new(1.0, 1e-3).unwrap(), [one, one])),
        ..parameters(3)
    };
    let sketches = [vec![(1, 111, 3), (9, 5, 1)], vec![(2, 222, 5)], vec![(2, -1, 7), (1, 3, 1)]];
    let mut found = format!("engine version {ENGINE_VERSION}\n");
    for (name, parameters) in [
        ("none", parameters(3)),
        ("geometric", noisy(NoiseMechanism::Geometric)),
        ("discrete gaussian", noisy(NoiseMechanism::DiscreteGaussian)),
    ] {
        let mut tape = Tape::default();
        local::run(&parties(&keys(3), &parameters, &sketches, 40), &MemoryWorkspace, &mut tape).unwrap();
        for (way, description, records, sha256) in &tape.messages {
            found += &format!("{name}: {way}: {description}: {records} records, {}\n", hex::encode(sha256));
        }
    }
    assert_eq!(found, include_str!("../golden/llv2-messages.txt"), "found:\n{found}");
}

/// Active registers, and those with one key by frequency, in the clear.
fn clear(sketches: &[Vec<Register>]) -> (i64, Vec<i64>) {
    let mut joined: BTreeMap<u64, (i64, u64)> = BTreeMap::new();
    for (index, key, count) in sketches.iter().flatten() {
        let (joined, sum) = joined.entry(*index).or_insert((*key, 0));
        *joined = if joined == key { *key } else { -1 };
        *sum += count;
    }
    let mut bins = vec![0; 10];
    joined.values().filter(|(key, _)| *key != -1).for_each(|(_, count)| bins[(*count).min(10) as usize - 1] += 1);
    (joined.len() as i64, bins)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10))]
    #[test]
    fn without_noise_the_registers_are_those_of_the_clear_join(
        duchies in 2usize..=5,
        sketches in prop::collection::vec(prop::collection::btree_map(0_u64..20, (-1_i64..3, 1_u64..14), 0..8), 1..=12),
    ) {
        let register = |(index, (key, count))| (index, key, count);
        let sketches: Vec<Vec<Register>> =
            sketches.into_iter().map(|sketch| sketch.into_iter().map(register).collect()).collect();
        let outcome = run(&parameters(sketches.len() as u32), duchies, &sketches);
        let (active, usable) = clear(&sketches);
        prop_assert_eq!(outcome.registers_in as usize, sketches.iter().map(Vec::len).sum::<usize>());
        prop_assert_eq!(outcome.active_registers, active);
        prop_assert_eq!(outcome.usable_histogram, Some(usable));
    }
}
