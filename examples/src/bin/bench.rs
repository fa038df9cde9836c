//! Measures the engines and kernels.
#![forbid(unsafe_code)]

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, ValueEnum};
use halo_crypto::batch::Backend;
use halo_examples::bench::{self, Options, Workload};

/// Measures the engines and kernels in one process, with the real codecs and checks; every result is compared with the
/// answer in the clear.
#[derive(Debug, Parser)]
#[command(name = "bench", version)]
struct Cli {
    /// What is measured.
    workload: Workload,
    /// Records of each publisher; the population for vectors; impressions for `sketch`; the largest size for `scaling`.
    #[arg(long, default_value_t = 10_000)]
    registers: u64,
    /// Publishers.
    #[arg(long, default_value_t = 3)]
    publishers: u32,
    /// Duchies of Liquid Legions protocols; share shuffles always have three.
    #[arg(long, default_value_t = 3)]
    duchies: usize,
    /// Maximum frequency.
    #[arg(long, default_value_t = 10)]
    max_frequency: u32,
    /// ε of reach, and again of frequency; internal noises have ε = δ = 1, as in the reference's test configuration.
    #[arg(long, requires = "delta")]
    epsilon: Option<f64>,
    /// δ of reach, and again of frequency.
    #[arg(long, requires = "epsilon")]
    delta: Option<f64>,
    /// No noise at all; this is the default.
    #[arg(long, conflicts_with_all = ["epsilon", "delta"])]
    no_noise: bool,
    /// Threads of the kernels.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// The curve backend; `primitives` takes all of them by default, the others the fastest.
    #[arg(long, default_value = "auto")]
    backend: Choice,
    /// How often the work is done; the median is reported.
    #[arg(long, default_value_t = 3)]
    repeat: usize,
    /// Where the figures go.
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Choice {
    /// The fastest that this processor supports.
    Auto,
    /// Without instructions that not every processor has.
    Portable,
    /// AVX-512 IFMA.
    Ifma,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let options = Options {
        workload: cli.workload,
        registers: cli.registers,
        publishers: cli.publishers,
        duchies: cli.duchies,
        max_frequency: cli.max_frequency,
        noise: cli.epsilon.zip(cli.delta),
        threads: cli.threads,
        backend: match cli.backend {
            Choice::Auto => None,
            Choice::Portable => Some(Backend::Portable),
            Choice::Ifma => Some(Backend::Ifma),
        },
        repeat: cli.repeat,
        json: cli.json,
    };
    match bench::run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}
