//! Measurements of the engines and kernels, one process, the real code: what `bench` runs.
//!
//! All parties of a protocol run one after the other in this process, with the real codecs, checks and files; every result
//! is compared with the answer in the clear, and a wrong one is an error. Processor time is the process's own.

mod meter;
mod primitives;
mod registers;
mod scaling;
mod sketching;
mod vectors;

use std::{fs, path::PathBuf};

use clap::ValueEnum;
use halo_core::privacy::PrivacyParams;
use halo_crypto::batch::Backend;
use halo_duchy::protocol::{
    Description, DuchyId, ProtocolError, Workspace,
    local::{self, Act, Engine, Envelope, Interceptor, Party},
};
use serde::Serialize;

use self::meter::{Cost, Memory, Meter};
use crate::error::{Context, Error, Result};

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Workload {
    /// Every kernel on every backend, microseconds an operation, with curve25519-dalek's own beside them.
    Primitives,
    /// A publisher encrypts the registers of a Liquid Legions sketch.
    Encrypt,
    /// A publisher encrypts the registers of a reach-only sketch.
    EncryptReachOnly,
    /// Liquid Legions v2, all Duchies.
    Llv2,
    /// Reach-only Liquid Legions v2, all Duchies.
    Rollv2,
    /// Share shuffle, compatible with the reference.
    Hmss,
    /// Share shuffle, native variant.
    HmssNative,
    /// Share shuffle for reach alone, compatible with the reference.
    HmssReachOnly,
    /// Impressions from Parquet to a sketch.
    Sketch,
    /// Setup and phase one of Liquid Legions v2, all Duchies, uploads on disk: what a mill adds to its memory.
    Llv2PhaseOne,
    /// Liquid Legions v2 without noise at growing sizes: how cost and memory grow.
    Scaling,
}

/// The command line of `bench`.
#[derive(Clone, Debug)]
pub struct Options {
    /// What is measured.
    pub workload: Workload,
    /// Records of each publisher; the population for vectors; impressions for `sketch`.
    pub registers: u64,
    /// Publishers.
    pub publishers: u32,
    /// Duchies of Liquid Legions protocols, at least 2.
    pub duchies: usize,
    /// F.
    pub max_frequency: u32,
    /// ε and δ of reach, and again of frequency; `None` without noise.
    pub noise: Option<(f64, f64)>,
    /// Threads of the kernels.
    pub threads: usize,
    /// The curve backend; `None` takes the fastest.
    pub backend: Option<Backend>,
    /// How often the work is done; the figures are those of the median by processor time.
    pub repeat: usize,
    /// Where the figures go.
    pub json: Option<PathBuf>,
}

/// What was measured, as `--json` writes it.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The workload's name.
    pub workload: String,
    /// What it was run with.
    pub parameters: Parameters,
    /// What each party did, in order.
    pub stages: Vec<Stage>,
    /// Microseconds of processor time for each record that the publishers sent (a cell of the vectors counts once, however
    /// many publishers there are), all Duchies together; of the publisher where it alone works.
    pub cpu_us_per_input_register: f64,
    /// Seconds.
    pub wall_s: f64,
    /// Processor seconds.
    pub cpu_s: f64,
    /// Lowest and highest processor seconds of all repetitions.
    pub cpu_s_spread: (f64, f64),
    /// Peak resident memory of the process.
    pub peak_rss_bytes: u64,
    /// How much of it was added by the work.
    pub added_rss_bytes: u64,
    /// Always true: a wrong result is an error.
    pub result_ok: bool,
}

/// What a workload was run with.
#[derive(Clone, Debug, Serialize)]
pub struct Parameters {
    /// Records of each publisher.
    pub registers: u64,
    /// Publishers.
    pub publishers: u32,
    /// Duchies.
    pub duchies: usize,
    /// F.
    pub max_frequency: u32,
    /// ε; absent without noise.
    pub epsilon: Option<f64>,
    /// δ; absent without noise.
    pub delta: Option<f64>,
    /// Threads.
    pub threads: usize,
    /// The curve backend.
    pub backend: String,
    /// Repetitions.
    pub repeat: usize,
}

/// A party at work.
#[derive(Clone, Debug, Serialize)]
pub struct Stage {
    /// Who.
    pub party: String,
    /// At what.
    pub stage: String,
    /// Records that it worked on.
    pub records: u64,
    /// Bytes that it sent.
    pub bytes_sent: u64,
    /// Seconds.
    pub wall_s: f64,
    /// Processor seconds.
    pub cpu_s: f64,
}

/// One run of a workload.
struct Measured {
    stages: Vec<Stage>,
    wall_s: f64,
    cpu_s: f64,
    /// By what the processor time is divided.
    per: u64,
}

impl Options {
    fn check(&self) -> Result<()> {
        let refuse = |what: &str| Err(Error::new(what));
        if self.registers == 0 || self.publishers == 0 || self.threads == 0 || self.repeat == 0 {
            return refuse("--registers, --publishers, --threads and --repeat must be at least 1");
        }
        if !(2..=20).contains(&self.duchies) {
            return refuse("--duchies must be from 2 to 20");
        }
        let noiseless = matches!(self.workload, Workload::Sketch | Workload::Scaling | Workload::Llv2PhaseOne);
        if noiseless && self.privacy().transpose()?.is_some() {
            return refuse("this workload goes without noise: give --no-noise");
        }
        Ok(())
    }

    fn privacy(&self) -> Option<Result<PrivacyParams>> {
        let (epsilon, delta) = self.noise?;
        let params = PrivacyParams::new(epsilon, delta).and_then(PrivacyParams::for_protocol_noise);
        Some(params.context(|| "--epsilon and --delta cannot be used".into()))
    }
}

/// Runs a workload, prints what was measured and writes the JSON file.
///
/// # Errors
/// When an option cannot be used, a file cannot be written, or a result is not the one in the clear.
pub fn run(options: &Options) -> Result<()> {
    options.check()?;
    rayon::ThreadPoolBuilder::new()
        .num_threads(options.threads)
        // This thread is one of them: with one, nothing is handed over and nobody waits.
        .use_current_thread()
        .build_global()
        .context(|| "the threads cannot be started".into())?;
    if let Some(backend) = options.backend {
        backend.select().context(|| "--backend".into())?;
    }
    match options.workload {
        Workload::Primitives => return primitives::run(options),
        Workload::Scaling => return scaling::run(options),
        _ => {}
    }
    let report = measure(options)?;
    print(&report);
    write_json(options, &report)
}

fn write_json(options: &Options, report: &impl Serialize) -> Result<()> {
    let Some(path) = &options.json else { return Ok(()) };
    let text = serde_json::to_string_pretty(report).context(|| "the figures".into())?;
    fs::write(path, text + "\n").context(|| format!("cannot write {}", path.display()))
}

/// Does the work as often as asked and reports the median.
fn measure(options: &Options) -> Result<Report> {
    let directory = tempfile::tempdir().context(|| "cannot create a temporary directory".into())?;
    let mut runs = Vec::new();
    let work: Box<dyn Fn() -> Result<Measured>> = match options.workload {
        Workload::Encrypt | Workload::EncryptReachOnly => registers::encryption(options)?,
        Workload::Llv2 => registers::llv2(options, directory.path())?,
        Workload::Llv2PhaseOne => registers::llv2_phase_one(options, directory.path())?,
        Workload::Rollv2 => registers::rollv2(options, directory.path())?,
        Workload::Hmss | Workload::HmssNative | Workload::HmssReachOnly => vectors::run(options, directory.path())?,
        Workload::Sketch => sketching::run(options, directory.path())?,
        Workload::Primitives | Workload::Scaling => return Err(Error::new("this workload has a report of its own")),
    };
    let memory = Memory::start();
    for _ in 0..options.repeat {
        runs.push(work()?);
    }
    let (peak_rss_bytes, added_rss_bytes) = memory.peak();
    runs.sort_by(|a, b| a.cpu_s.total_cmp(&b.cpu_s));
    let cpu_s_spread = (runs[0].cpu_s, runs[runs.len() - 1].cpu_s);
    let median = runs.swap_remove(runs.len() / 2);
    let backend = Backend::current().context(|| "the curve backend".into())?;
    let name = options.workload.to_possible_value();
    Ok(Report {
        workload: name.map(|name| name.get_name().to_owned()).unwrap_or_default(),
        parameters: Parameters {
            registers: options.registers,
            publishers: options.publishers,
            duchies: options.duchies,
            max_frequency: options.max_frequency,
            epsilon: options.noise.map(|noise| noise.0),
            delta: options.noise.map(|noise| noise.1),
            threads: options.threads,
            backend: backend.to_string(),
            repeat: options.repeat,
        },
        cpu_us_per_input_register: median.cpu_s * 1e6 / median.per as f64,
        stages: median.stages,
        wall_s: median.wall_s,
        cpu_s: median.cpu_s,
        cpu_s_spread,
        peak_rss_bytes,
        added_rss_bytes,
        result_ok: true,
    })
}

fn print(report: &Report) {
    println!("{:<14} {:<28} {:>11} {:>10} {:>10} {:>12}", "party", "stage", "records", "wall s", "CPU s", "bytes sent");
    for stage in &report.stages {
        println!(
            "{:<14} {:<28} {:>11} {:>10.4} {:>10.4} {:>12}",
            stage.party, stage.stage, stage.records, stage.wall_s, stage.cpu_s, stage.bytes_sent
        );
    }
    let (low, high) = report.cpu_s_spread;
    println!(
        "{}: {:.4} µs of CPU an input register; wall {:.3} s, CPU {:.3} s ({low:.3} to {high:.3} in {} runs)",
        report.workload, report.cpu_us_per_input_register, report.wall_s, report.cpu_s, report.parameters.repeat
    );
    println!(
        "backend {}, {} thread(s); peak memory {:.1} MB, {:.1} MB of it added; the result is right",
        report.parameters.backend,
        report.parameters.threads,
        report.peak_rss_bytes as f64 / 1e6,
        report.added_rss_bytes as f64 / 1e6
    );
}

/// Notes what every party does and sends.
#[derive(Default)]
struct Recorder {
    stages: Vec<Stage>,
    running: Option<(Act, Meter)>,
}

impl Interceptor for Recorder {
    fn begins(&mut self, _duchy: &DuchyId, act: Act) {
        self.running = Some((act, Meter::start()));
    }

    fn ends(&mut self, duchy: &DuchyId) {
        let Some((act, meter)) = self.running.take() else { return };
        let cost = meter.cost();
        let stage = match act {
            Act::Check => "check of an upload".to_owned(),
            Act::Start => "start".to_owned(),
            Act::Advance(awaited) => awaited.to_string(),
        };
        self.stages.push(Stage {
            party: duchy.to_string(),
            stage,
            records: 0,
            bytes_sent: 0,
            wall_s: cost.wall_s,
            cpu_s: cost.cpu_s,
        });
    }

    fn message(&mut self, envelope: Envelope) -> Vec<Envelope> {
        // Messages leave right after the step that made them.
        if let Some(stage) = self.stages.last_mut() {
            stage.records += envelope.body.records();
            stage.bytes_sent += envelope.body.records() * envelope.body.record_bytes() as u64;
        }
        vec![envelope]
    }
}

/// Runs all parties.
fn run_parties<E: Engine>(parties: &[Party<E>], workspace: &dyn Workspace, per: u64) -> Result<(E::Outcome, Measured)> {
    let mut recorder = Recorder::default();
    let meter = Meter::start();
    let outcome = local::run(parties, workspace, &mut recorder).map_err(failed)?;
    Ok((outcome, recorder.measured(meter.cost(), per)))
}

/// Runs all parties until one wants to send a message of this description, and gives the number of its records.
fn run_parties_up_to<E: Engine>(
    parties: &[Party<E>],
    workspace: &dyn Workspace,
    description: Description,
    per: u64,
) -> Result<(u64, Measured)> {
    let mut until = Until { recorder: Recorder::default(), description, records: None };
    let meter = Meter::start();
    // Everybody stalls when the message does not come.
    let end = local::run(parties, workspace, &mut until).map(drop);
    let measured = until.recorder.measured(meter.cost(), per);
    match (until.records, end) {
        (Some(records), Err(ProtocolError::Stalled(_))) => Ok((records, measured)),
        (_, Err(error)) => Err(failed(error)),
        (_, Ok(())) => Err(Error::new("the protocol ended without the message that it was to run up to")),
    }
}

fn failed(error: ProtocolError) -> Error {
    Error::new(format!("the protocol failed: {error}"))
}

/// Notes as [`Recorder`] does, and keeps back what has a description.
struct Until {
    recorder: Recorder,
    description: Description,
    records: Option<u64>,
}

impl Interceptor for Until {
    fn begins(&mut self, duchy: &DuchyId, act: Act) {
        self.recorder.begins(duchy, act);
    }

    fn ends(&mut self, duchy: &DuchyId) {
        self.recorder.ends(duchy);
    }

    fn message(&mut self, envelope: Envelope) -> Vec<Envelope> {
        let reached = envelope.description == self.description;
        let delivered = self.recorder.message(envelope);
        if !reached {
            return delivered;
        }
        self.records = delivered.first().map(|envelope| envelope.body.records());
        Vec::new()
    }
}

impl Recorder {
    /// What was measured; equal stages of a party are one line.
    fn measured(self, cost: Cost, per: u64) -> Measured {
        let stages = merged(self.stages);
        Measured { stages, wall_s: cost.wall_s, cpu_s: cost.cpu_s, per }
    }
}

fn merged(all: Vec<Stage>) -> Vec<Stage> {
    let mut stages: Vec<Stage> = Vec::new();
    for stage in all {
        match stages.iter_mut().find(|known| (&known.party, &known.stage) == (&stage.party, &stage.stage)) {
            None => stages.push(stage),
            Some(known) => {
                known.records += stage.records;
                known.bytes_sent += stage.bytes_sent;
                known.wall_s += stage.wall_s;
                known.cpu_s += stage.cpu_s;
            }
        }
    }
    stages
}

fn wrong(what: &str, found: impl std::fmt::Debug, expected: impl std::fmt::Debug) -> Error {
    Error::new(format!("the result is wrong: {what} is {found:?}, in the clear it is {expected:?}"))
}
