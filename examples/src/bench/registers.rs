//! Liquid Legions protocols on registers drawn at random.
//!
//! A publisher holds N different indexes out of 2N. Every index has a canonical key, which a publisher holds with
//! probability 0.7, and a key of its own otherwise; counts are uniform from 1 to 10.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use halo_core::privacy::{MaximumFrequency, NoiseCalibration, NoiseMechanism, PrivacyParams};
use halo_crypto::{
    batch,
    elgamal::{CIPHERTEXT_BYTES, CompositeKey, KeyShareSecret},
    group::Point,
    hash::Domain,
    proof::PossessionContext,
    secret::Secret,
};
use halo_duchy::protocol::{
    Body, Description, DirectoryWorkspace, DuchyId, ProtocolError, Workspace,
    llv2::{self, NoiseParameters, Outcome, Parameters, Participant},
    local::{Engine, Party},
    rollv2,
};
use halo_edp_sdk::{
    encrypt::{self, Encryption, Layout},
    progress::Unobserved,
};
use halo_sketch::liquid_legions::{LiquidLegions, Params};
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use tempfile::TempDir;

use super::{Measured, Options, Stage, Workload, meter::Meter, run_parties, run_parties_up_to, wrong};
use crate::error::{Context, Error, Result};

/// Keys are below this.
const KEYS: u64 = 10_000_000;
/// How much a register's noise of the protocol's inside costs: as in the reference's test configuration.
const INTERNAL: (f64, f64) = (1.0, 1.0);

/// A register in the clear: index, key, count.
type Register = (u64, u64, u64);

/// Sorted by index, the same at every call.
fn publisher(registers: u64, number: u32) -> Vec<Register> {
    let mut canonical = ChaCha20Rng::seed_from_u64(1);
    let keys: Vec<u64> = (0..2 * registers).map(|_| canonical.next_u64() % KEYS).collect();
    let mut rng = ChaCha20Rng::seed_from_u64(1000 + u64::from(number));
    // The first half of a random order, by Fisher and Yates.
    let mut indexes: Vec<u64> = (0..2 * registers).collect();
    for first in 0..registers as usize {
        let other = first + (rng.next_u64() % (indexes.len() - first) as u64) as usize;
        indexes.swap(first, other);
    }
    indexes.truncate(registers as usize);
    indexes.sort_unstable();
    let mut register = |index: u64| {
        let key = if rng.next_u64() % 10 < 7 { keys[index as usize] } else { rng.next_u64() % KEYS };
        (index, key, 1 + rng.next_u64() % 10)
    };
    indexes.into_iter().map(&mut register).collect()
}

/// The sketch that has these registers, by way of its stored form.
fn sketch(params: Params, registers: &[Register]) -> Result<LiquidLegions> {
    let mut bytes = vec![1];
    let header =
        [params.decay_rate().to_bits(), params.size(), params.sampling_indicator_size(), registers.len() as u64];
    header.iter().for_each(|word| bytes.extend_from_slice(&word.to_le_bytes()));
    for (index, key, count) in registers {
        [*index, key + 1, *count].iter().for_each(|word| bytes.extend_from_slice(&word.to_le_bytes()));
    }
    LiquidLegions::from_bytes(&bytes).context(|| "a sketch of the workload".into())
}

struct Keys {
    secrets: Vec<KeyShareSecret>,
    ring: Vec<Participant>,
    composite: CompositeKey,
}

fn keys(duchies: usize) -> Result<Keys> {
    let mut rng = ChaCha20Rng::seed_from_u64(7);
    let secrets: Vec<KeyShareSecret> = (0..duchies).map(|_| KeyShareSecret::generate(&mut rng)).collect();
    let participant = |(position, secret): (usize, &KeyShareSecret)| {
        let name = if position + 1 == duchies { "aggregator".to_owned() } else { format!("worker{}", position + 1) };
        let id: DuchyId = name.parse().context(|| "a Duchy's id".into())?;
        let context = PossessionContext { session: [1; 32], duchy: id.as_str(), certificate_sha256: [2; 32] };
        let proof = secret.prove_possession(&context, &mut rng);
        let key = secret.public().verify_possession(&context, &proof).context(|| "a Duchy's key".into())?;
        Ok(Participant { id, key })
    };
    let ring: Vec<Participant> = secrets.iter().enumerate().map(participant).collect::<Result<_>>()?;
    let shares: Vec<_> = ring.iter().map(|participant| participant.key).collect();
    let composite = CompositeKey::combine(&shares).context(|| "the composite key".into())?;
    Ok(Keys { secrets, ring, composite })
}

fn sketch_params(options: &Options) -> Result<Params> {
    Params::new(12.0, 2 * options.registers, KEYS).context(|| "--registers".into())
}

fn maximum_frequency(options: &Options) -> Result<MaximumFrequency> {
    MaximumFrequency::new(options.max_frequency).context(|| "--max-frequency".into())
}

fn parameters(options: &Options, maximum_frequency: MaximumFrequency) -> Result<Parameters> {
    let internal = PrivacyParams::new(INTERNAL.0, INTERNAL.1).context(|| "the noise inside".into())?;
    let noise = options.privacy().transpose()?.map(|asked| NoiseParameters {
        mechanism: NoiseMechanism::DiscreteGaussian,
        calibration: NoiseCalibration::Reference,
        honest_contributors: 1,
        reach: asked,
        frequency: maximum_frequency.counts_frequency().then_some(asked),
        blinded_histogram: internal,
        noise_for_publisher_noise: internal,
    });
    Ok(Parameters {
        sketch: sketch_params(options)?,
        maximum_frequency,
        sampling_width: 1.0,
        noise,
        publishers: options.publishers,
    })
}

/// Writes what the publishers send to the Duchies, in turn.
fn uploads(options: &Options, directory: &Path, key: &CompositeKey, layout: Layout) -> Result<Vec<Vec<Body>>> {
    let files = workspace(&directory.join("uploads"))?;
    let mut rng = ChaCha20Rng::seed_from_u64(3);
    let mut at = vec![Vec::new(); options.duchies];
    for number in 0..options.publishers {
        let sketch = sketch(sketch_params(options)?, &publisher(options.registers, number))?;
        let bytes = encrypt(&sketch, key, layout, &mut rng)?;
        let write = || {
            let mut sink = files.create(layout.record_bytes())?;
            sink.write(&bytes)?;
            sink.finish()
        };
        at[number as usize % options.duchies].push(write().context(|| "an input cannot be written".into())?);
    }
    Ok(at)
}

/// What a publisher of these registers sends.
fn encrypt(sketch: &LiquidLegions, key: &CompositeKey, layout: Layout, rng: &mut ChaCha20Rng) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(sketch.active() * layout.record_bytes());
    let encryption = Encryption { key, layout, noise: None };
    encrypt::encrypt(sketch, &encryption, &mut bytes, &mut Unobserved, rng).context(|| "the encryption".into())?;
    Ok(bytes)
}

fn index_points(indexes: &[u64]) -> Vec<Point> {
    let texts: Vec<String> = indexes.iter().map(u64::to_string).collect();
    batch::hash_to_group(Domain::Index, &texts)
}

/// What all publishers' registers come to.
struct Clear {
    active: i64,
    /// Registers whose key all their publishers agree on, by count.
    histogram: Vec<i64>,
}

fn clear(options: &Options) -> Clear {
    let mut joined: BTreeMap<u64, (Option<u64>, u64)> = BTreeMap::new();
    for number in 0..options.publishers {
        for (index, key, count) in publisher(options.registers, number) {
            joined
                .entry(index)
                .and_modify(|(known, total)| {
                    *known = known.filter(|known| *known == key);
                    *total += count;
                })
                .or_insert((Some(key), count));
        }
    }
    let mut histogram = vec![0; options.max_frequency as usize];
    for total in joined.values().filter(|(key, _)| key.is_some()).map(|(_, total)| *total) {
        histogram[total.min(u64::from(options.max_frequency)) as usize - 1] += 1;
    }
    Clear { active: joined.len() as i64, histogram }
}

/// The counts must be those in the clear, or within six standard deviations of the noise.
fn check(options: &Options, outcome: &Outcome, clear: &Clear) -> Result<()> {
    let far = |found: i64, expected: i64, sd: f64| (found - expected).abs() as f64 > 6.0 * sd;
    if outcome.registers_in != options.registers * u64::from(options.publishers) {
        return Err(wrong("the number of registers", outcome.registers_in, options.registers));
    }
    if far(outcome.active_registers, clear.active, outcome.reach_noise_sd) {
        return Err(wrong("the number of active registers", outcome.active_registers, clear.active));
    }
    let Some(found) = &outcome.usable_histogram else { return Ok(()) };
    let mut pairs = found.iter().zip(&clear.histogram);
    if found.len() != clear.histogram.len() || pairs.any(|(one, two)| far(*one, *two, outcome.frequency_noise_sd)) {
        return Err(wrong("the histogram of usable registers", found, &clear.histogram));
    }
    Ok(())
}

fn workspace(directory: &Path) -> Result<DirectoryWorkspace> {
    DirectoryWorkspace::new(directory).context(|| format!("cannot use {}", directory.display()))
}

/// Work that can be repeated.
type Work = Box<dyn Fn() -> Result<Measured>>;

/// A ring protocol whose publishers sent bodies.
struct Ring<D> {
    options: Options,
    directory: PathBuf,
    keys: Keys,
    bodies: Vec<Vec<Body>>,
    /// Makes one Duchy's side.
    duchy: D,
}

impl<D> Ring<D> {
    /// The parties, and where they work.
    fn parties<E>(&self) -> Result<(Vec<Party<E>>, TempDir)>
    where
        E: Engine<Requisition = Body>,
        D: Fn(Vec<Participant>, DuchyId, KeyShareSecret, Secret<[u8; 32]>) -> std::result::Result<E, ProtocolError>,
    {
        let party = |(position, requisitions): (usize, &Vec<Body>)| {
            let (id, secret) = (self.keys.ring[position].id.clone(), self.keys.secrets[position].clone());
            let duchy = (self.duchy)(self.keys.ring.clone(), id, secret, Secret::new([40 + position as u8; 32]));
            let duchy = duchy.map_err(|error| Error::new(error.to_string()))?;
            Ok(Party { duchy, requisitions: requisitions.clone() })
        };
        let parties = self.bodies.iter().enumerate().map(party).collect::<Result<_>>()?;
        let work = tempfile::tempdir_in(&self.directory).context(|| "cannot create a directory".into())?;
        Ok((parties, work))
    }

    /// Records of all publishers.
    fn input(&self) -> u64 {
        self.options.registers * u64::from(self.options.publishers)
    }

    /// The runs from end to end.
    fn runs<E>(self) -> Work
    where
        E: Engine<Requisition = Body, Outcome = Outcome>,
        D: Fn(Vec<Participant>, DuchyId, KeyShareSecret, Secret<[u8; 32]>) -> std::result::Result<E, ProtocolError>
            + 'static,
    {
        let expected = clear(&self.options);
        Box::new(move || {
            let (parties, work) = self.parties()?;
            let (outcome, measured) = run_parties(&parties, &workspace(work.path())?, self.input())?;
            check(&self.options, &outcome, &expected)?;
            Ok(measured)
        })
    }
}

const COMPUTATION: &str = "AAAAAAAAAHs";

fn full(options: &Options) -> Result<Layout> {
    Ok(Layout::Full { maximum_frequency: maximum_frequency(options)? })
}

/// Makes a Duchy of the ring.
type MakeLlv2 = Box<
    dyn Fn(
        Vec<Participant>,
        DuchyId,
        KeyShareSecret,
        Secret<[u8; 32]>,
    ) -> std::result::Result<llv2::Duchy, ProtocolError>,
>;

/// Liquid Legions v2 with its uploads on disk.
fn llv2_ring(options: &Options, directory: &Path) -> Result<Ring<MakeLlv2>> {
    let keys = keys(options.duchies)?;
    let bodies = uploads(options, directory, &keys.composite, full(options)?)?;
    let parameters = parameters(options, maximum_frequency(options)?)?;
    let duchy: MakeLlv2 = Box::new(move |ring, id, secret, seed| {
        llv2::Duchy::new(parameters.clone(), COMPUTATION.to_owned(), ring, id, secret, seed)
    });
    Ok(Ring { options: options.clone(), directory: directory.to_owned(), keys, bodies, duchy })
}

pub(super) fn llv2(options: &Options, directory: &Path) -> Result<Work> {
    Ok(llv2_ring(options, directory)?.runs())
}

/// Up to the message that ends the aggregator's phase one: without noise it has as many records as registers are active.
pub(super) fn llv2_phase_one(options: &Options, directory: &Path) -> Result<Work> {
    let ring = llv2_ring(options, directory)?;
    let active = clear(options).active;
    Ok(Box::new(move || {
        let (parties, work) = ring.parties()?;
        let description = Description::ExecutionPhaseTwoInput;
        let (tuples, measured) = run_parties_up_to(&parties, &workspace(work.path())?, description, ring.input())?;
        if i64::try_from(tuples).ok() == Some(active) {
            Ok(measured)
        } else {
            Err(wrong("the number of tuples", tuples, active))
        }
    }))
}

pub(super) fn rollv2(options: &Options, directory: &Path) -> Result<Work> {
    let keys = keys(options.duchies)?;
    let bodies = uploads(options, directory, &keys.composite, Layout::IndexOnly)?;
    let parameters = parameters(options, MaximumFrequency::REACH_ONLY)?;
    let duchy = move |ring, id, secret, seed| {
        rollv2::Duchy::new(parameters.clone(), COMPUTATION.to_owned(), ring, id, secret, seed)
    };
    Ok(Ring { options: options.clone(), directory: directory.to_owned(), keys, bodies, duchy }.runs())
}

/// A publisher at work on its own.
fn publisher_stage(stage: &str, records: u64, bytes: &[u8], meter: &Meter) -> Measured {
    let cost = meter.cost();
    let stage = Stage {
        party: "publisher".to_owned(),
        stage: stage.to_owned(),
        records,
        bytes_sent: bytes.len() as u64,
        wall_s: cost.wall_s,
        cpu_s: cost.cpu_s,
    };
    Measured { stages: vec![stage], wall_s: cost.wall_s, cpu_s: cost.cpu_s, per: records }
}

/// Opens what was encrypted and compares the indexes, in any order.
fn check_indexes(keys: &Keys, bytes: &[u8], every: usize, expected: &[u64]) -> Result<()> {
    let all = batch::decode_ciphertexts(bytes).map_err(|error| Error::new(format!("the ciphertexts: {error:?}")))?;
    let mut indexes: Vec<_> = all.into_iter().step_by(every).collect();
    for secret in &keys.secrets {
        batch::peel(secret, &mut indexes);
    }
    let mut found: Vec<[u8; 32]> = indexes.iter().map(|ciphertext| *ciphertext.e.encode().as_bytes()).collect();
    let mut due: Vec<[u8; 32]> = index_points(expected).iter().map(|point| *point.encode().as_bytes()).collect();
    found.sort_unstable();
    due.sort_unstable();
    if found == due {
        Ok(())
    } else {
        Err(Error::new("the result is wrong: what was encrypted opens to other indexes"))
    }
}

pub(super) fn encryption(options: &Options) -> Result<Work> {
    let keys = keys(options.duchies)?;
    let layout = if options.workload == Workload::Encrypt { full(options)? } else { Layout::IndexOnly };
    let registers = publisher(options.registers, 0);
    let sketch = sketch(sketch_params(options)?, &registers)?;
    let indexes: Vec<u64> = registers.iter().map(|(index, ..)| *index).collect();
    Ok(Box::new(move || {
        let meter = Meter::start();
        let bytes = encrypt(&sketch, &keys.composite, layout, &mut ChaCha20Rng::seed_from_u64(3))?;
        let measured = publisher_stage("encrypt", indexes.len() as u64, &bytes, &meter);
        check_indexes(&keys, &bytes, layout.record_bytes() / CIPHERTEXT_BYTES, &indexes)?;
        Ok(measured)
    }))
}
