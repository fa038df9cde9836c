//! The honest-majority share shuffle: equal to the plaintext, resumed, tampered with, and with the noise it promises.

use std::sync::Arc;

use crate::tape::Tape;
use halo_core::privacy::{MaximumFrequency, PrivacyParams};
use halo_crypto::secret::Secret;
use halo_crypto::share::{self, Modulus, Seed};
use halo_duchy::protocol::hmss::{
    Duchy, ENGINE_VERSION, NoiseParameters, Outcome, Parameters, Requisition, Roles, Variant,
};
use halo_duchy::protocol::local::{self, Envelope, Faithful, Interceptor, Party};
use halo_duchy::protocol::{
    Body, Description, DirectoryWorkspace, MemoryBody, MemoryWorkspace, ProtocolError, Received, Slot, Step,
};
use halo_sketch::noise::{NoiseCalibration, NoiseMechanism};
use proptest::prelude::*;
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

const COMPATIBLE: Variant = Variant::Compatible { modulus: 127 };

fn roles() -> Roles {
    let id = |id: &str| id.parse().unwrap();
    Roles { first_worker: id("worker1"), second_worker: id("worker2"), aggregator: id("aggregator") }
}

fn parameters(variant: Variant, cells: usize, maximum_frequency: u32, publishers: usize) -> Parameters {
    Parameters {
        variant,
        cells: cells as u64,
        maximum_frequency: MaximumFrequency::new(maximum_frequency).unwrap(),
        sampling_width: 1.0,
        requisitions: (0..publishers).map(|publisher| format!("requisition{publisher:02}")).collect(),
        noise: None,
    }
}

fn with_noise(parameters: Parameters, mechanism: NoiseMechanism, params: PrivacyParams) -> Parameters {
    let noise = NoiseParameters {
        mechanism,
        calibration: NoiseCalibration::Exact,
        honest_contributors: 1,
        reach: params,
        frequency: Some(params),
    };
    Parameters { noise: Some(noise), ..parameters }
}

fn modulus(parameters: &Parameters) -> Modulus {
    let counts = parameters.maximum_frequency.counts_frequency();
    Modulus::new(match parameters.variant {
        Variant::Compatible { modulus } => modulus,
        Variant::Native if counts => 256,
        Variant::Native => 251,
    })
    .unwrap()
}

fn body(bytes: Vec<u8>) -> Body {
    Arc::new(MemoryBody::new(bytes, 1).unwrap())
}

fn duchy(parameters: &Parameters, id: &str, seed: [u8; 32]) -> Duchy {
    // In these tests seeds travel in the clear: their encryption is the caller's.
    let open = |_: &str, bytes: &[u8]| Seed::from_slice(bytes).map_err(|error| error.to_string());
    let (parameters, me) = (parameters.clone(), id.parse().unwrap());
    Duchy::new(parameters, "AAAAAAAAAHs".to_owned(), roles(), me, Secret::new(seed), Arc::new(open)).unwrap()
}

/// All parties; publishers send to the workers in turn.
fn parties(parameters: &Parameters, vectors: &[Vec<u8>], seed: u8) -> Vec<Party<Duchy>> {
    seeded(parameters, vectors, [[seed; 32], [seed + 1; 32], [seed + 2; 32]])
}

fn seeded(parameters: &Parameters, vectors: &[Vec<u8>], seeds: [[u8; 32]; 3]) -> Vec<Party<Duchy>> {
    let requisition = |(publisher, vector): (usize, &Vec<u8>)| {
        let bytes = [100 + publisher as u8; 48];
        let share = share::second_share(modulus(parameters), &Seed::new(Secret::new(bytes)), vector).unwrap();
        let id = parameters.requisitions[publisher].clone();
        Requisition { id, share: body(share), encrypted_seed: bytes.to_vec() }
    };
    let mut at: [Vec<Requisition>; 3] = Default::default();
    vectors.iter().enumerate().for_each(|one| at[one.0 % 2].push(requisition(one)));
    ["worker1", "worker2", "aggregator"]
        .into_iter()
        .zip(at)
        .zip(seeds)
        .map(|((id, requisitions), seed)| Party { duchy: duchy(parameters, id, seed), requisitions })
        .collect()
}

fn run(parameters: &Parameters, vectors: &[Vec<u8>]) -> Outcome {
    local::run(&parties(parameters, vectors, 40), &MemoryWorkspace, &mut Faithful).unwrap()
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

fn check_clear(variant: Variant, maximum_frequency: u32, vectors: &[Vec<u8>]) {
    let parameters = parameters(variant, vectors[0].len(), maximum_frequency, vectors.len());
    let outcome = run(&parameters, vectors);
    let (reach, histogram) = clear(vectors, maximum_frequency);
    assert_eq!(outcome.reached, reach);
    assert_eq!(outcome.histogram, (maximum_frequency > 1).then_some(histogram));
    let estimates = outcome.estimate(&parameters).unwrap();
    assert_eq!((estimates.reach, estimates.reach_standard_error), (reach as f64, 0.0));
    assert_eq!(estimates.frequency.is_some(), maximum_frequency > 1 && reach > 0);
}

/// Cells of a person who is not reached, and others, from 0 to F, for 1 to 12 publishers.
fn vectors(maximum_frequency: u8) -> impl Strategy<Value = Vec<Vec<u8>>> {
    (1..=12_usize, 2..200_usize).prop_flat_map(move |(publishers, cells)| {
        let cell = prop_oneof![3 => Just(0), 1 => 0..=maximum_frequency];
        prop::collection::vec(prop::collection::vec(cell, cells), publishers)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn without_noise_the_result_is_the_plaintexts(vectors in vectors(10)) {
        for variant in [COMPATIBLE, Variant::Native] {
            check_clear(variant, 10, &vectors);
        }
    }

    #[test]
    fn reach_only_counts_who_was_reached(vectors in vectors(1)) {
        for variant in [COMPATIBLE, Variant::Native] {
            check_clear(variant, 1, &vectors);
        }
    }
}

#[test]
fn vectors_beyond_one_chunk_and_one_bucket() {
    let vectors: Vec<Vec<u8>> =
        (1..4_usize).map(|p| (0..150_000_usize).map(|i| (i * p % 97 % 11) as u8).collect()).collect();
    for variant in [COMPATIBLE, Variant::Native] {
        check_clear(variant, 10, &vectors);
    }
}

#[test]
fn more_uploads_than_are_read_side_by_side() {
    for (maximum_frequency, compatible) in [(3, 251), (1, 127)] {
        let cell = |i: usize, p: usize| if (i + p).is_multiple_of(40) { 1 + i as u32 % maximum_frequency } else { 0 };
        let vectors: Vec<Vec<u8>> =
            (1..=70_usize).map(|p| (0..70_000_usize).map(|i| cell(i * i % 911, p) as u8).collect()).collect();
        for variant in [Variant::Compatible { modulus: compatible }, Variant::Native] {
            check_clear(variant, maximum_frequency, &vectors);
        }
    }
}

/// The reference's cases: the shares that reach the aggregator, and what it makes of them.
fn aggregate(parameters: &Parameters, shares: [&[u8]; 2]) -> Result<Outcome, ProtocolError> {
    let aggregator = duchy(parameters, "aggregator", [1; 32]);
    let Step::Wait { state, .. } = aggregator.start(&[], &MemoryWorkspace).unwrap() else { panic!() };
    let inbox: Vec<Received> = ["worker1", "worker2"]
        .into_iter()
        .zip(shares)
        .map(|(from, share)| Received {
            slot: Slot { from: from.parse().unwrap(), description: Description::AggregationInput },
            body: body(share.to_vec()),
        })
        .collect();
    match aggregator.advance(&state, &[], &inbox, &MemoryWorkspace)? {
        Step::Done { output, .. } => Ok(output.unwrap()),
        Step::Wait { .. } => panic!(),
    }
}

#[test]
fn aggregation_is_the_references() {
    let mut small = parameters(Variant::Compatible { modulus: 8 }, 8, 2, 2);
    small.sampling_width = 0.5;
    let outcome = aggregate(&small, [&[3, 4, 3, 6, 1, 7, 2, 0], &[5, 4, 5, 2, 0, 3, 1, 4]]).unwrap();
    let estimates = outcome.estimate(&small).unwrap();
    assert_eq!(estimates.reach, 8.0);
    assert_eq!(estimates.frequency.unwrap().shares, [0.25, 0.75]);

    let mut reach = parameters(Variant::Compatible { modulus: 7 }, 8, 1, 2);
    reach.sampling_width = 0.5;
    let outcome = aggregate(&reach, [&[2, 3, 2, 5, 1, 6, 2, 0], &[5, 4, 5, 2, 0, 3, 1, 4]]).unwrap();
    assert_eq!(outcome.estimate(&reach).unwrap().reach, 8.0);

    // A sum of 5 where at most 4 is possible and 7 is the sentinel.
    let error = aggregate(&small, [&[5, 0, 0, 0, 0, 0, 0, 0], &[0; 8]]).unwrap_err();
    assert!(matches!(error, ProtocolError::BadSum { value: 5, most: 4, sentinel: 7, .. }), "{error}");
    // A publisher's vector out of range looks alike, so that the workers are not accused.
    assert!(error.culprits().is_empty());
    // An element that no share has, and a vector of another length.
    let error = aggregate(&small, [&[0; 8], &[0, 0, 8, 0, 0, 0, 0, 0]]).unwrap_err();
    assert!(matches!(error, ProtocolError::BadRecord { record: 2, .. }), "{error}");
    assert_eq!(error.culprits(), ["worker2".parse().unwrap()]);
    let error = aggregate(&small, [&[0; 7], &[0; 8]]).unwrap_err();
    assert!(matches!(error, ProtocolError::WrongCount { .. }), "{error}");

    // Nobody reached: no data, not a number that is none.
    let nobody = aggregate(&small, [&[0; 8], &[0; 8]]).unwrap().estimate(&small).unwrap();
    assert!(nobody.reach == 0.0 && nobody.frequency.is_none());
}

#[test]
fn a_replay_gives_the_same_bytes() {
    let vectors = [vec![0, 1, 2, 3, 0, 10], vec![1, 1, 0, 0, 0, 10], vec![0, 5, 0, 0, 0, 1]];
    let once: Vec<Vec<u8>> = vectors.iter().map(|vector| vector.iter().map(|cell| 1.min(*cell)).collect()).collect();
    let some = PrivacyParams::new(1.0, 1e-3).unwrap();
    let mut found = format!("engine version {ENGINE_VERSION}\n");
    for (name, variant, frequency, vectors) in [
        ("compatible", COMPATIBLE, 10, &vectors[..]),
        ("compatible, reach only", COMPATIBLE, 1, &once),
        ("native", Variant::Native, 10, &vectors),
        ("native, reach only", Variant::Native, 1, &once),
    ] {
        let plain = parameters(variant, 6, frequency, 3);
        for parameters in [plain.clone(), with_noise(plain, NoiseMechanism::DiscreteGaussian, some)] {
            let tape = |seed, resume| {
                let mut tape = Tape { resume, ..Tape::default() };
                let directory = tempfile::tempdir().unwrap();
                let workspace = DirectoryWorkspace::new(directory.path()).unwrap();
                let parties = parties(&parameters, vectors, seed);
                let outcome = if resume {
                    local::run(&parties, &workspace, &mut tape).unwrap()
                } else {
                    local::run(&parties, &MemoryWorkspace, &mut tape).unwrap()
                };
                (tape.messages, outcome)
            };
            let base = tape(40, false);
            assert_eq!(base, tape(40, true));
            assert!(base.0.iter().zip(tape(60, false).0).all(|(a, b)| a.2 == b.2 && a.3 != b.3));
            let noise = if parameters.noise.is_some() { "with noise" } else { "without" };
            for (way, description, records, sha256) in &base.0 {
                found +=
                    &format!("{name}, {noise}: {way}: {description}: {records} records, {}\n", hex::encode(sha256));
            }
        }
    }
    assert_eq!(found, include_str!("../golden/hmss-messages.txt"), "found:\n{found}");
}

/// Both workers add 2·μ_r + 2·μ_f·M cells each, and the totals are taken off: over many runs the mean is the truth, and
/// the deviation is what is said.
#[test]
fn noise_is_what_was_calibrated() {
    let params = PrivacyParams::new(1.0, 1e-2).unwrap();
    let vectors = [vec![1; 20], vec![0; 20]];
    for mechanism in [NoiseMechanism::DiscreteGaussian, NoiseMechanism::Geometric] {
        for (variant, frequency) in [(COMPATIBLE, 3), (Variant::Native, 3), (COMPATIBLE, 1), (Variant::Native, 1)] {
            let parameters = with_noise(parameters(variant, 20, frequency, 2), mechanism, params);
            let outcomes: Vec<Outcome> = (0..500_u16)
                .map(|run| {
                    let seeds = [1, 2, 3].map(|party| {
                        let mut seed = [party; 32];
                        seed[..2].copy_from_slice(&run.to_be_bytes());
                        seed
                    });
                    let parties = seeded(&parameters, &vectors, seeds);
                    local::run(&parties, &MemoryWorkspace, &mut Faithful).unwrap()
                })
                .collect();
            let check = |values: Vec<f64>, truth: f64, deviation: f64| {
                let n = values.len() as f64;
                let mean = values.iter().sum::<f64>() / n;
                let sd = (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt();
                // Five standard errors of the mean, and of the deviation of normal draws.
                assert!((mean - truth).abs() < 5.0 * deviation / n.sqrt(), "{mean} is not {truth}");
                assert!((sd / deviation - 1.0).abs() < 5.0 / (2.0 * n).sqrt(), "{sd} is not {deviation}");
            };
            let deviation = outcomes[0].reach_noise_sd;
            assert!(deviation > 0.0);
            check(outcomes.iter().map(|outcome| outcome.reached as f64).collect(), 20.0, deviation);
            if frequency > 1 {
                let ones = outcomes.iter().map(|outcome| outcome.histogram.as_ref().unwrap()[0] as f64);
                check(ones.collect(), 20.0, outcomes[0].frequency_noise_sd);
            }
        }
    }
}

struct Tamper {
    at: usize,
    seen: usize,
    how: fn(&mut Envelope),
    sender: Option<String>,
}

impl Interceptor for Tamper {
    fn message(&mut self, mut envelope: Envelope) -> Vec<Envelope> {
        if self.seen == self.at {
            self.sender = Some(envelope.from.to_string());
            (self.how)(&mut envelope);
        }
        self.seen += 1;
        vec![envelope]
    }
}

fn edit(envelope: &mut Envelope, edit: fn(&mut Vec<u8>)) {
    let mut bytes = envelope.bytes().unwrap();
    edit(&mut bytes);
    envelope.replace(bytes);
}

#[test]
fn tampered_messages_are_refused_and_blamed() {
    let parameters = parameters(COMPATIBLE, 5, 10, 2);
    let vectors = [vec![1, 2, 3, 4, 5], vec![0, 0, 0, 1, 10]];
    type Case = (usize, fn(&mut Envelope));
    let cases: [Case; 9] = [
        // Between the workers: unknown version, cut short, bytes left over, an id that nobody knows, the same id twice.
        (0, |envelope| edit(envelope, |bytes| bytes[0] = 9)),
        (0, |envelope| edit(envelope, |bytes| bytes.truncate(bytes.len() - 1))),
        (1, |envelope| edit(envelope, |bytes| bytes.push(0))),
        (1, |envelope| edit(envelope, |bytes| bytes[57] ^= 1)),
        (0, |envelope| {
            edit(envelope, |bytes| {
                let entry = bytes[53..].to_vec();
                bytes.extend(entry);
                bytes[52] = 2;
            });
        }),
        // To the aggregator: a digest that does not fit, a cell more, a cell less, no element of the ring.
        (2, |envelope| {
            let mut bytes = envelope.bytes().unwrap();
            bytes[0] ^= 1;
            envelope.corrupt(bytes);
        }),
        (2, |envelope| edit(envelope, |bytes| bytes.push(0))),
        (3, |envelope| edit(envelope, |bytes| bytes.truncate(bytes.len() - 1))),
        (3, |envelope| edit(envelope, |bytes| bytes[4] = 127)),
    ];
    for (number, (at, how)) in cases.into_iter().enumerate() {
        let mut tamper = Tamper { at, seen: 0, how, sender: None };
        let error = local::run(&parties(&parameters, &vectors, 7), &MemoryWorkspace, &mut tamper).unwrap_err();
        let culprits: Vec<String> = error.culprits().iter().map(ToString::to_string).collect();
        assert_eq!(culprits, [tamper.sender.unwrap()], "case {number}: {error}");
    }
}

/// What is in range cannot be blamed, but does not go unnoticed where frequencies are counted: it changes the result.
#[test]
fn one_flipped_share_byte_changes_the_result() {
    let parameters = parameters(Variant::Native, 5, 10, 2);
    let vectors = [vec![1, 2, 3, 4, 5], vec![0, 0, 0, 1, 10]];
    let honest = run(&parameters, &vectors);
    let how: fn(&mut Envelope) = |envelope| edit(envelope, |bytes| bytes[0] ^= 1);
    let mut tamper = Tamper { at: 2, seen: 0, how, sender: None };
    match local::run(&parties(&parameters, &vectors, 7), &MemoryWorkspace, &mut tamper) {
        Ok(outcome) => assert_ne!(outcome, honest),
        Err(error) => assert!(matches!(error, ProtocolError::BadSum { .. }), "{error}"),
    }
}

/// The reference makes the noise of reach as that of a histogram (protocols 6.1), with the values of protocols 8.4: the
/// number of cells follows from them, and a worker of the reference notices another one.
#[test]
fn the_references_calibration_gives_the_references_number_of_cells() {
    struct Cells(Vec<u64>);
    impl Interceptor for Cells {
        fn message(&mut self, envelope: Envelope) -> Vec<Envelope> {
            if envelope.description == Description::AggregationInput {
                self.0.push(envelope.body.records());
            }
            vec![envelope]
        }
    }
    let params = PrivacyParams::new(3.0_f64.ln() / 10.0, 2e-6).unwrap();
    for (mechanism, shift) in [(NoiseMechanism::Geometric, 291), (NoiseMechanism::DiscreteGaussian, 189)] {
        for (frequency, kinds) in [(1, 1), (2, 1 + 2 * 2)] {
            let mut parameters = with_noise(parameters(COMPATIBLE, 20, frequency, 2), mechanism, params);
            parameters.noise.as_mut().unwrap().calibration = NoiseCalibration::Reference;
            let mut cells = Cells(Vec::new());
            let parties = parties(&parameters, &[vec![1; 20], vec![0; 20]], 7);
            local::run(&parties, &MemoryWorkspace, &mut cells).unwrap();
            assert_eq!(cells.0, [20 + 2 * 2 * shift * kinds; 2], "{mechanism:?}, frequency {frequency}");
        }
    }
}

/// One party's inbox does not tell a cell: over many seeds, what a worker holds of a publisher's cell and what the
/// aggregator gets from one worker are uniform, whatever the cell is (chi-square, 126 degrees of freedom; 200 is exceeded
/// with probability 3e-5).
#[test]
fn single_shares_are_uniform() {
    let uniform = |values: &[u8]| {
        let mut counts = [0_f64; 127];
        values.iter().for_each(|value| counts[usize::from(*value)] += 1.0);
        let expected = values.len() as f64 / 127.0;
        counts.iter().map(|count| (count - expected).powi(2) / expected).sum::<f64>() < 200.0
    };
    for cell in [0, 1, 10] {
        let vector = vec![cell; 60_000];
        let seed = Seed::new(Secret::new([cell + 1; 48]));
        let modulus = Modulus::new(127).unwrap();
        let second = share::second_share(modulus, &seed, &vector).unwrap();
        let mut first = vec![0; vector.len()];
        seed.generator().uniform(modulus, &mut first);
        assert!(uniform(&first) && uniform(&second));

        #[derive(Default)]
        struct Shares(Vec<Vec<u8>>);
        impl Interceptor for Shares {
            fn message(&mut self, envelope: Envelope) -> Vec<Envelope> {
                if envelope.description == Description::AggregationInput {
                    self.0.push(envelope.bytes().unwrap());
                }
                vec![envelope]
            }
        }
        let mut shares = Shares::default();
        let parameters = parameters(COMPATIBLE, vector.len(), 10, 1);
        local::run(&parties(&parameters, &[vector], 3), &MemoryWorkspace, &mut shares).unwrap();
        assert!(shares.0.len() == 2 && shares.0.iter().all(|share| uniform(share)));
    }
}

fn refused(parameters: Parameters, expected: &str) {
    let error = parameters.check().unwrap_err().to_string();
    assert!(error.contains(expected), "{error}");
}

#[test]
fn parameters_that_cannot_be_are_refused() {
    // F·S + 1 must stay below the modulus: 12 publishers at 10, and not 13.
    assert!(parameters(COMPATIBLE, 2, 10, 12).check().is_ok());
    refused(parameters(COMPATIBLE, 2, 10, 13), "modulus 127 is too small");
    assert!(parameters(Variant::Native, 2, 127, 2).check().is_ok());
    refused(parameters(Variant::Native, 2, 128, 2), "a cell adds up to 256");
    refused(parameters(Variant::Compatible { modulus: 128 }, 2, 1, 2), "no prime");
    refused(parameters(Variant::Compatible { modulus: 1 }, 2, 1, 2), "from 2 to 256");
    refused(parameters(COMPATIBLE, 1, 2, 2), "1 cells");
    refused(parameters(COMPATIBLE, 2, 2, 0), "no requisitions");
    let mut twice = parameters(COMPATIBLE, 2, 2, 2);
    twice.requisitions[1] = twice.requisitions[0].clone();
    refused(twice, "listed twice");
    let mut incomplete =
        with_noise(parameters(COMPATIBLE, 2, 2, 2), NoiseMechanism::Geometric, PrivacyParams::new(1.0, 1e-3).unwrap());
    incomplete.noise.as_mut().unwrap().frequency = None;
    refused(incomplete, "ε and δ are missing");
}

/// What a server plans its memory with is what the workers send.
#[test]
fn noise_cells_are_those_of_the_workers() {
    let quiet = parameters(Variant::Native, 3, 10, 2);
    assert_eq!(quiet.noise_cells().unwrap(), 0);
    let noisy = with_noise(quiet, NoiseMechanism::DiscreteGaussian, PrivacyParams::new(1.0, 1e-6).unwrap());
    let due = 3 + noisy.noise_cells().unwrap();
    let short = vec![0; due as usize - 1];
    let error = aggregate(&noisy, [&short, &short]).unwrap_err().to_string();
    assert!(error.contains(&format!("exactly {due}, cells and both workers' noise")), "{error}");
}

#[test]
fn shares_and_seeds_that_do_not_fit_are_refused() {
    let parameters = parameters(COMPATIBLE, 3, 10, 2);
    let vectors = [vec![1, 2, 3], vec![4, 5, 6]];
    let with = |change: fn(&mut [Party<Duchy>])| {
        let mut parties = parties(&parameters, &vectors, 7);
        change(&mut parties);
        local::run(&parties, &MemoryWorkspace, &mut Faithful).unwrap_err().to_string()
    };
    for (change, expected) in [
        ((|parties| parties[0].requisitions[0].share = body(vec![0; 4])) as fn(&mut [Party<Duchy>]), "4 cells where 3"),
        (|parties| parties[0].requisitions[0].share = body(vec![0, 127, 0]), "element 1 is 127"),
        (
            |parties| parties[0].requisitions[0].encrypted_seed.truncate(47),
            "seed of requisition00, as worker1 has passed it on, is not acceptable: the seed has 47",
        ),
        (|parties| parties[1].requisitions[0].id = "requisition09".to_owned(), "none of the computation's"),
        (|parties| parties[1].requisitions.clear(), "requisition01 is not acceptable: neither worker has it"),
        (
            |parties| {
                let copy = parties[0].requisitions[0].clone();
                parties[1].requisitions.push(copy);
            },
            "passes on requisition00, which was fulfilled here",
        ),
    ] {
        let error = with(change);
        assert!(error.contains(expected), "{error}");
    }
}

/// The standard errors of a sample: many random halves of one population, each measured by a computation of its own.
#[test]
fn standard_errors_of_a_sample_are_those_of_repeated_samples() {
    let population: Vec<u8> = (0..2_000).map(|person| [0, 0, 1, 2, 1][person % 5]).collect();
    let mut parameters = parameters(Variant::Native, 1_000, 2, 1);
    parameters.sampling_width = 0.5;
    let (mut reaches, mut shares, mut told) = (Vec::new(), Vec::new(), (0.0, 0.0));
    for round in 0..150_u64 {
        let mut rng = ChaCha20Rng::seed_from_u64(round);
        let mut people = population.clone();
        for i in (1..people.len()).rev() {
            people.swap(i, rng.next_u64() as usize % (i + 1));
        }
        people.truncate(1_000);
        let outcome = run(&parameters, &[people]);
        let estimates = outcome.estimate(&parameters).unwrap();
        let frequency = estimates.frequency.unwrap();
        reaches.push(estimates.reach);
        shares.push(frequency.shares[0]);
        told = (estimates.reach_standard_error, frequency.standard_errors[0]);
    }
    let spread = |values: &[f64]| {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (values.len() - 1) as f64).sqrt()
    };
    let (reach, share) = (spread(&reaches), spread(&shares));
    assert!((told.0 / reach - 1.0).abs() < 0.25, "{} told, {reach} seen", told.0);
    assert!((told.1 / share - 1.0).abs() < 0.25, "{} told, {share} seen", told.1);
}
