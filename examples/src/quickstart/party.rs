//! One party as a process: what `quickstart party ROLE --config FILE` runs.

use std::path::Path;

use clap::ValueEnum;
use halo_edp_sdk::client::{Config, Publisher};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::{
    cluster::process::record_pid,
    error::{Context, Error, Result},
};

/// The role of a party's process: the word after `party` on its command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// As `halo-kingdom serve`.
    Kingdom,
    /// As `halo-duchy serve`.
    Duchy,
    /// A publisher with the SDK's client; prints what happens as lines of JSON.
    Publisher,
}

impl Role {
    /// The word on the command line.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Kingdom => "kingdom",
            Self::Duchy => "duchy",
            Self::Publisher => "publisher",
        }
    }
}

/// Runs a party until SIGTERM or SIGINT, or until the process with the id `parent`, which started it, ends.
///
/// # Errors
/// When `parent` has ended already; what the party's server or client says.
pub fn party(role: Role, config: &Path, parent: Option<i32>) -> Result<()> {
    if let Some(parent) = parent {
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))
            .context(|| "cannot tie the process to its parent".into())?;
        // The signal is not sent for a parent that ended before it was asked for.
        if rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get()) != Some(parent) {
            return Err(Error::new("the process that started this one has ended"));
        }
    }
    record_pid(config)?;
    let filter = tracing_subscriber::EnvFilter::try_from_default_env();
    tracing_subscriber::fmt()
        .with_env_filter(filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info")))
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let what = || format!("{} cannot run", role.word());
    match role {
        Role::Kingdom => halo_kingdom::server::run(config).context(what),
        Role::Duchy => halo_duchy::server::run(config).context(what),
        Role::Publisher => publisher(config),
    }
}

fn publisher(config: &Path) -> Result<()> {
    let what = || "the publisher cannot run".to_owned();
    let publisher = Publisher::new(Config::from_file(config).context(what)?).context(what)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context(what)?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).context(what)?;
        let mut interrupt = signal(SignalKind::interrupt()).context(what)?;
        let stop = CancellationToken::new();
        let stopping = stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            stopping.cancel();
        });
        let print = |event| match serde_json::to_string(&event) {
            Ok(line) => println!("{line}"),
            Err(error) => eprintln!("an event cannot be shown: {error}"),
        };
        publisher.run(stop, print).await.context(what)
    })
}
