//! Share shuffles of random vectors: a cell is 0 with probability 3/4, else uniform from 0 to F (to 1 for reach alone).

use std::{path::Path, sync::Arc};

use halo_core::privacy::{MaximumFrequency, NoiseCalibration, NoiseMechanism};
use halo_crypto::{
    secret::Secret,
    share::{self, Modulus, Seed},
};
use halo_duchy::protocol::{
    DirectoryWorkspace, DuchyId, Workspace,
    hmss::{Duchy, NoiseParameters, Outcome, Parameters, Requisition, Roles, Variant},
    local::Party,
};
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

use super::{Measured, Options, Workload, run_parties, wrong};
use crate::error::{Context, Error, Result};

/// Cells that are made at a time.
const PART: usize = 64 << 10;

/// The cells of a publisher from a place on, the same at every call.
struct Cells {
    rng: ChaCha20Rng,
    values: u64,
}

impl Cells {
    fn new(publisher: u32, maximum_frequency: u32) -> Self {
        Self { rng: ChaCha20Rng::seed_from_u64(500 + u64::from(publisher)), values: u64::from(maximum_frequency) + 1 }
    }

    fn fill(&mut self, cells: &mut [u8]) {
        for cell in cells {
            let random = self.rng.next_u64();
            *cell = if random & 3 == 0 { ((random >> 2) % self.values) as u8 } else { 0 };
        }
    }
}

/// How many cells are reached, and how often, in the clear.
fn clear(parameters: &Parameters) -> Vec<i64> {
    let most = parameters.maximum_frequency.get();
    let mut publishers: Vec<Cells> =
        (0..).zip(&parameters.requisitions).map(|(number, _)| Cells::new(number, most)).collect();
    let mut histogram = vec![0; most as usize];
    let (mut part, mut sums) = (vec![0; PART], vec![0_u32; PART]);
    for first in (0..parameters.cells).step_by(PART) {
        let length = PART.min((parameters.cells - first) as usize);
        sums.fill(0);
        for publisher in &mut publishers {
            publisher.fill(&mut part[..length]);
            sums.iter_mut().zip(&part[..length]).for_each(|(sum, cell)| *sum += u32::from(*cell));
        }
        for sum in sums[..length].iter().filter(|sum| **sum > 0) {
            histogram[(*sum).min(most) as usize - 1] += 1;
        }
    }
    histogram
}

fn seed(publisher: u32) -> Seed {
    let mut bytes = [0; share::SEED_BYTES];
    ChaCha20Rng::seed_from_u64(900 + u64::from(publisher)).fill_bytes(&mut bytes);
    Seed::new(Secret::new(bytes))
}

/// One publisher's share, a part at a time.
fn upload(parameters: &Parameters, modulus: Modulus, publisher: u32, workspace: &dyn Workspace) -> Result<Requisition> {
    let seed = seed(publisher);
    let mut cells = Cells::new(publisher, parameters.maximum_frequency.get());
    let mut write = || {
        let mut sink = workspace.create(1)?;
        let mut generator = seed.generator();
        let mut numbers = generator.uniform_parts(modulus, parameters.cells as usize);
        let (mut part, mut random) = (vec![0; PART], vec![0; PART]);
        for first in (0..parameters.cells).step_by(PART) {
            let length = PART.min((parameters.cells - first) as usize);
            cells.fill(&mut part[..length]);
            numbers.fill(&mut random[..length]);
            share::subtract(modulus, &mut part[..length], &random[..length]).map_err(std::io::Error::other)?;
            sink.write(&part[..length])?;
        }
        sink.finish()
    };
    let share = write().context(|| "an input cannot be written".into())?;
    let id = parameters.requisitions[publisher as usize].clone();
    Ok(Requisition { id, share, encrypted_seed: seed.expose().to_vec() })
}

fn check(outcome: &Outcome, clear: &[i64]) -> Result<()> {
    let far = |found: i64, expected: i64, sd: f64| (found - expected).abs() as f64 > 6.0 * sd;
    let reached: i64 = clear.iter().sum();
    if far(outcome.reached, reached, outcome.reach_noise_sd) {
        return Err(wrong("the number of people reached", outcome.reached, reached));
    }
    let Some(found) = &outcome.histogram else { return Ok(()) };
    // The last class takes up the noise of all others.
    let noisy = clear.len() - usize::from(outcome.frequency_noise_sd > 0.0);
    let mut pairs = found.iter().zip(clear).take(noisy);
    if found.len() != clear.len() || pairs.any(|(one, two)| far(*one, *two, outcome.frequency_noise_sd)) {
        return Err(wrong("the frequency histogram", found, clear));
    }
    Ok(())
}

pub(super) fn run(options: &Options, directory: &Path) -> Result<Box<dyn Fn() -> Result<Measured>>> {
    let (variant, most) = match options.workload {
        Workload::HmssNative => (Variant::Native, options.max_frequency),
        Workload::HmssReachOnly => (Variant::Compatible { modulus: 127 }, 1),
        _ => (Variant::Compatible { modulus: 127 }, options.max_frequency),
    };
    let maximum_frequency = MaximumFrequency::new(most).context(|| "--max-frequency".into())?;
    let noise = options.privacy().transpose()?.map(|asked| NoiseParameters {
        mechanism: NoiseMechanism::DiscreteGaussian,
        calibration: NoiseCalibration::Reference,
        honest_contributors: 1,
        reach: asked,
        frequency: maximum_frequency.counts_frequency().then_some(asked),
    });
    let parameters = Parameters {
        variant,
        cells: options.registers,
        maximum_frequency,
        sampling_width: 1.0,
        requisitions: (0..options.publishers).map(|number| format!("requisition{number:04}")).collect(),
        noise,
    };
    parameters.check().map_err(|error| Error::new(error.to_string()))?;
    let modulus = match variant {
        Variant::Compatible { modulus } => modulus,
        Variant::Native if maximum_frequency.counts_frequency() => 256,
        Variant::Native => 251,
    };
    let modulus = Modulus::new(modulus).context(|| "the modulus".into())?;
    let open = |path: &Path| DirectoryWorkspace::new(path).context(|| format!("cannot use {}", path.display()));
    let files = open(&directory.join("uploads"))?;
    let mut at: [Vec<Requisition>; 3] = Default::default();
    for number in 0..options.publishers {
        at[number as usize % 2].push(upload(&parameters, modulus, number, &files)?);
    }
    let expected = clear(&parameters);
    let directory = directory.to_owned();
    let id = |id: &str| DuchyId::new(id).context(|| "a Duchy's id".into());
    let ids = [id("worker1")?, id("worker2")?, id("aggregator")?];
    let roles = Roles { first_worker: ids[0].clone(), second_worker: ids[1].clone(), aggregator: ids[2].clone() };
    Ok(Box::new(move || {
        let parties = ids.iter().zip(&at).zip(40..).map(|((id, requisitions), seed)| {
            // Seeds travel in the clear here: their encryption is a few bytes for each publisher, not for each cell.
            let open = |_: &str, bytes: &[u8]| Seed::from_slice(bytes).map_err(|error| error.to_string());
            let (parameters, roles) = (parameters.clone(), roles.clone());
            let seed = Secret::new([seed; 32]);
            let duchy = Duchy::new(parameters, "AAAAAAAAAHs".to_owned(), roles, id.clone(), seed, Arc::new(open));
            let duchy = duchy.map_err(|error| Error::new(error.to_string()))?;
            Ok(Party { duchy, requisitions: requisitions.clone() })
        });
        let parties: Vec<Party<Duchy>> = parties.collect::<Result<_>>()?;
        let work = tempfile::tempdir_in(&directory).context(|| "cannot create a directory".into())?;
        let (outcome, measured) = run_parties(&parties, &open(work.path())?, parameters.cells)?;
        check(&outcome, &expected)?;
        Ok(measured)
    }))
}
