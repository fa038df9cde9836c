//! The main job: from publishers' impressions to reach and frequency.
#![forbid(unsafe_code)]

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};
use halo_examples::{
    error::{Context, Result},
    quickstart::{self, Options, Role},
};

/// Measures reach and frequency across publishers: a Kingdom, Duchies and publishers run as separate processes on this
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

fn run(arguments: Arguments) -> Result<()> {
    let program = std::env::current_exe().context(|| "cannot find the own program".into())?;
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
    quickstart::run(&program, &options)
}
