//! The main job: from publishers' impressions to reach and frequency.
#![forbid(unsafe_code)]

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use halo_examples::quickstart::{self, Options};

/// Measures reach and frequency across publishers with the Liquid Legions v2 protocol. All parties' real code runs, in
/// this one process; the result is printed beside the exact answer.
#[derive(Debug, Parser)]
#[command(name = "quickstart", version)]
struct Arguments {
    /// Directory with one Parquet file a publisher (a `vid` column, one row an impression; the file's name is the
    /// publisher's). Without it: a synthetic population of three publishers.
    #[arg(long)]
    events: Option<PathBuf>,
    /// Publishers to measure, by name. Default: every file of --events.
    #[arg(long, value_delimiter = ',')]
    publishers: Vec<String>,
    /// Maximum frequency: the last bin counts "this many impressions or more". 1 measures reach alone.
    #[arg(long, default_value_t = 10)]
    max_frequency: u32,
    /// Decay rate of the Liquid Legions sketch.
    #[arg(long, default_value_t = 12.0)]
    decay_rate: f64,
    /// Size of the Liquid Legions sketch, in registers.
    #[arg(long, default_value_t = 100_000)]
    registers: u64,
    /// ε of reach, and again of frequency.
    #[arg(long, default_value_t = 1.0)]
    epsilon: f64,
    /// δ of reach, and again of frequency; ε and δ also serve each noise inside the protocol.
    #[arg(long, default_value_t = 1e-9)]
    delta: f64,
    /// Switches every noise off. The result is then not differentially private.
    #[arg(long)]
    no_noise: bool,
    /// Number of Duchies, at least 2; one of them is the aggregator.
    #[arg(long, default_value_t = 3)]
    duchies: usize,
    /// Seed of the synthetic population.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Directory for bodies and spill files. Default: a temporary directory, which is removed.
    #[arg(long)]
    state_dir: Option<PathBuf>,
    /// Writes everything that was found out as JSON to this file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Where the report goes.
    #[arg(long, default_value = "report.html")]
    report: PathBuf,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let options = Options {
        events: arguments.events,
        publishers: arguments.publishers,
        maximum_frequency: arguments.max_frequency,
        decay_rate: arguments.decay_rate,
        registers: arguments.registers,
        epsilon: arguments.epsilon,
        delta: arguments.delta,
        no_noise: arguments.no_noise,
        duchies: arguments.duchies,
        seed: arguments.seed,
        state_dir: arguments.state_dir,
        json: arguments.json,
        report: arguments.report,
    };
    match quickstart::run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("quickstart: {error}");
            ExitCode::FAILURE
        }
    }
}
