//! The main job: from publishers' impressions to reach and frequency, impressions, durations or the population.
#![forbid(unsafe_code)]

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Parser, Subcommand};
use halo_core::measurement::{MeasurementKind, Population, ProtocolKind};
use halo_examples::{
    error::{Context, Result},
    kind,
    quickstart::{self, Options, Role, Sampling},
};

/// Measures across publishers: a Kingdom, Duchies and publishers run as separate processes on this
/// machine, over mutual TLS; the result is decrypted, verified and printed beside the exact answer.
#[derive(Debug, Parser)]
#[command(name = "quickstart", version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    options: Arguments,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Reproduces the result of an earlier run from the Kingdom's stored ciphertext, the consumer's key and the parties'
    /// certificates alone.
    Verify {
        /// State directory of that run.
        #[arg(long)]
        state_dir: PathBuf,
    },
    /// Measures the synthetic population with every protocol, and prints what each one cost as a table.
    Compare {
        /// Writes the table into this Markdown file, between the lines `<!-- protocols -->` and `<!-- /protocols -->`.
        #[arg(long)]
        write: Option<PathBuf>,
    },
    /// Runs one party; quickstart starts itself this way, and an ended party is started again so.
    Party {
        /// Which party.
        role: Role,
        /// Its configuration file.
        #[arg(long)]
        config: PathBuf,
        /// Id of the process that started this one; end when it ends.
        #[arg(long, hide = true)]
        parent: Option<i32>,
    },
}

#[derive(Debug, Args)]
struct Arguments {
    /// Directory with one Parquet file a publisher (a `vid` column, one row an impression; for durations also `seconds`;
    /// the file's name is the publisher's). Without it: a synthetic population of three publishers.
    #[arg(long)]
    events: Option<PathBuf>,
    /// Publishers to measure, by name. Default: every file of --events.
    #[arg(long, value_delimiter = ',')]
    publishers: Vec<String>,
    /// Protocol: llv2, rollv2, hmss, hmss-native, trustee or direct. Default: the choice of the Kingdom's planner.
    #[arg(long)]
    protocol: Option<ProtocolKind>,
    /// What to measure: reach, reach-and-frequency, impression, duration or population.
    #[arg(long, default_value = "reach-and-frequency", value_parser = kind::parse)]
    measurement: MeasurementKind,
    /// The people that there are, FIRST..LAST: the VIDs that frequency vectors are over. It is public. Default: the range
    /// of VIDs in the data.
    #[arg(long, value_name = "FIRST..LAST")]
    population: Option<Population>,
    /// Maximum frequency: the last bin counts "this many impressions or more", and 1 measures reach alone. Of
    /// impressions: so many of one person count at most.
    #[arg(long, default_value_t = 10)]
    max_frequency: u32,
    /// Of durations: so many seconds of one person count at most.
    #[arg(long, default_value_t = 3600)]
    max_seconds: u32,
    /// Where the part of the people begins that is looked at, from 0 and below 1.
    #[arg(long, default_value_t = 0.0)]
    sampling_start: f32,
    /// How large that part is, above 0 and up to 1; the result is an estimate for all.
    #[arg(long, default_value_t = 1.0)]
    sampling_width: f32,
    /// Decay rate of the Liquid Legions sketch.
    #[arg(long, default_value_t = 12.0)]
    decay_rate: f64,
    /// Size of the Liquid Legions sketch, in registers.
    #[arg(long, default_value_t = 100_000)]
    registers: u64,
    /// ε of each released value: of reach, and again of frequency.
    #[arg(long, default_value_t = 1.0)]
    epsilon: f64,
    /// δ of each released value; ε and δ also serve each noise inside the protocol.
    #[arg(long, default_value_t = 1e-9)]
    delta: f64,
    /// Switches every noise off. The result is then not differentially private.
    #[arg(long)]
    no_noise: bool,
    /// Number of Duchies, at least 2; one of them is the aggregator, and in a computation with a trustee that one.
    #[arg(long, default_value_t = 3)]
    duchies: usize,
    /// Seed of the synthetic population.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Directory for all state; must not hold an earlier run. Default: a new temporary directory, which is kept.
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
    let outcome = match Cli::parse() {
        Cli { command: Some(Command::Verify { state_dir }), .. } => quickstart::verify(&state_dir),
        Cli { command: Some(Command::Compare { write }), .. } => compare(write.as_deref()),
        Cli { command: Some(Command::Party { role, config, parent }), .. } => quickstart::party(role, &config, parent),
        Cli { command: None, options } => run(options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("quickstart: {error}");
            ExitCode::FAILURE
        }
    }
}

fn program() -> Result<PathBuf> {
    std::env::current_exe().context(|| "cannot find the own program".into())
}

fn compare(write: Option<&Path>) -> Result<()> {
    quickstart::compare(&program()?, write)
}

fn run(arguments: Arguments) -> Result<()> {
    let options = Options {
        events: arguments.events,
        publishers: arguments.publishers,
        protocol: arguments.protocol,
        measurement: arguments.measurement,
        population: arguments.population,
        maximum_frequency: arguments.max_frequency,
        maximum_seconds: arguments.max_seconds,
        sampling: Sampling { start: arguments.sampling_start, width: arguments.sampling_width },
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
    quickstart::run(&program()?, &options)
}
