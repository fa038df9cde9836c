//! The command line.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use super::config::KEYS;
use super::{Config, Error, serve};

/// How long a computation that is under way has to end when the process stops; it is taken up again at the next start.
const FAREWELL: Duration = Duration::from_secs(2);

/// A Duchy of Halo: takes publishers' encrypted sketches and computes on them together with other Duchies.
#[derive(Parser)]
#[command(name = "halo-duchy", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serves until SIGTERM or SIGINT.
    #[command(after_long_help = KEYS, after_help = KEYS)]
    Serve {
        /// TOML file; its keys are explained below.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
}

/// Runs the command line of the process; the binary is nothing but this.
#[must_use]
pub fn cli() -> ExitCode {
    let Command::Serve { config } = Arguments::parse().command;
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    match run(&config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Serves as a configuration file says, until SIGTERM or SIGINT. Blocks the thread.
///
/// # Errors
/// As [`serve`], and if the file cannot be used.
pub fn run(config: &Path) -> Result<(), Error> {
    let config = Config::from_file(config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Error::Process)?;
    let outcome = runtime.block_on(async {
        let shutdown = CancellationToken::new();
        let mut terminate = signal(SignalKind::terminate()).map_err(Error::Process)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::Process)?;
        tokio::spawn({
            let shutdown = shutdown.clone();
            async move {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                tracing::info!("stopping");
                shutdown.cancel();
            }
        });
        serve(config, shutdown).await
    });
    runtime.shutdown_timeout(FAREWELL);
    outcome
}
