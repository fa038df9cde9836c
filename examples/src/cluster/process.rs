//! Starting, watching and stopping the parties' processes.
//!
//! A party is the quickstart program run again as `quickstart party ROLE --config FILE`. It writes its process id to
//! `pid` in its directory, so that one that was started again by hand is still counted and stopped.

use std::{
    collections::BTreeMap,
    fs,
    fs::File,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use halo_core::clock::Stopwatch;
use tokio::sync::mpsc;

use super::layout::{Layout, Party, display_name};
use crate::{
    error::{Context, Error, Result},
    outcome::Usage,
    quickstart::Role,
};

/// How long a party may take to stop before it is killed.
const STOP_TIME: Duration = Duration::from_secs(10);

/// Something that happened to a party.
#[derive(Clone, Debug)]
pub enum PartyEvent {
    /// A line that it printed: publishers print one JSON object for each stage.
    Line {
        /// The party.
        name: String,
        /// The line.
        line: String,
    },
    /// Its process ended although nobody asked it to.
    Ended {
        /// The party.
        name: String,
        /// How, and how to start it again.
        message: String,
    },
}

/// The running parties of a [`Layout`]. Dropping it kills what still runs.
#[derive(Debug)]
pub struct Cluster {
    program: PathBuf,
    layout: Layout,
    children: BTreeMap<String, Child>,
    environment: Vec<(String, String)>,
    events: mpsc::UnboundedSender<PartyEvent>,
}

impl Cluster {
    /// A cluster of which nothing runs yet. `program` is the quickstart binary; what happens to the parties is sent to
    /// the receiver that is returned beside it.
    #[must_use]
    pub fn new(program: PathBuf, layout: Layout) -> (Self, mpsc::UnboundedReceiver<PartyEvent>) {
        let (events, receiver) = mpsc::unbounded_channel();
        (Self { program, layout, children: BTreeMap::new(), environment: Vec::new(), events }, receiver)
    }

    /// Sets an environment variable for the parties started from now on.
    pub fn environment(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Where everything lies.
    #[must_use]
    pub const fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Starts the Kingdom, then the Duchies, then the publishers.
    ///
    /// # Errors
    /// When a process cannot be started.
    pub fn start_all(&mut self) -> Result<()> {
        let layout = self.layout.clone();
        self.start(Role::Kingdom, &layout.kingdom)?;
        for duchy in &layout.duchies {
            self.start(Role::Duchy, duchy)?;
        }
        for publisher in &layout.publishers {
            self.start(Role::Publisher, publisher)?;
        }
        Ok(())
    }

    /// Starts one party. Its log goes to `log.txt` in its directory, after what is already there.
    ///
    /// # Errors
    /// When the process cannot be started.
    pub fn start(&mut self, role: Role, party: &Party) -> Result<()> {
        let name = display_name(party);
        let log_path = self.layout.file(party, "log.txt");
        let log = File::options()
            .create(true)
            .append(true)
            .open(&log_path)
            .context(|| format!("cannot open {}", log_path.display()))?;
        let mut child = self
            .command(role, party)
            .arg("--die-with-parent")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .context(|| format!("cannot start {name}"))?;
        if let Some(output) = child.stdout.take() {
            let events = self.events.clone();
            let name = name.clone();
            // Ends with the process, when its output closes.
            tokio::task::spawn_blocking(move || {
                for line in BufReader::new(output).lines().map_while(std::io::Result::ok) {
                    if events.send(PartyEvent::Line { name: name.clone(), line }).is_err() {
                        break;
                    }
                }
            });
        }
        self.children.insert(name, child);
        Ok(())
    }

    /// The command line that runs a party, as a person would type it.
    #[must_use]
    pub fn command_line(&self, role: Role, party: &Party) -> String {
        format!(
            "{} party {} --config {}",
            self.program.display(),
            role.word(),
            self.layout.configuration(party).display()
        )
    }

    fn command(&self, role: Role, party: &Party) -> Command {
        let mut command = Command::new(&self.program);
        command.args(["party", role.word(), "--config"]).arg(self.layout.configuration(party));
        command.current_dir(self.layout.root.join(&party.directory));
        command
    }

    /// Looks for processes that ended by themselves, takes them off the list and names them.
    pub fn reap(&mut self) -> Vec<String> {
        let mut ended = Vec::new();
        for (name, child) in &mut self.children {
            if let Ok(Some(status)) = child.try_wait() {
                ended.push((name.clone(), status));
            }
        }
        ended
            .into_iter()
            .map(|(name, status)| {
                self.children.remove(&name);
                let again = self
                    .find(&name)
                    .map(|(role, party)| {
                        format!(
                            "its log is {}; start it again with: {}",
                            self.layout.file(party, "log.txt").display(),
                            self.command_line(role, party)
                        )
                    })
                    .unwrap_or_default();
                let message = format!("{name} ended ({status}); {again}");
                // The receiver may be gone when the run is over.
                let _ = self.events.send(PartyEvent::Ended { name: name.clone(), message });
                name
            })
            .collect()
    }

    /// A party by its name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<(Role, &Party)> {
        let layout = &self.layout;
        std::iter::once((Role::Kingdom, &layout.kingdom))
            .chain(layout.duchies.iter().map(|duchy| (Role::Duchy, duchy)))
            .chain(layout.publishers.iter().map(|publisher| (Role::Publisher, publisher)))
            .find(|(_, party)| display_name(party) == name)
    }

    /// The last lines of a party's log.
    #[must_use]
    pub fn log_tail(&self, name: &str) -> String {
        let log = self.find(name).map(|(_, party)| self.layout.file(party, "log.txt"));
        let text = log.and_then(|path| fs::read_to_string(path).ok()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(10)..].join("\n")
    }

    /// CPU time and peak memory of every party that runs, as the operating system reports them.
    ///
    /// # Errors
    /// When a process's accounts cannot be read.
    pub fn usage(&self) -> Result<Vec<Usage>> {
        let layout = &self.layout;
        std::iter::once(&layout.kingdom)
            .chain(&layout.duchies)
            .chain(&layout.publishers)
            .filter_map(|party| running_pid(&layout.file(party, "pid")).map(|pid| (party, pid)))
            .map(|(party, pid)| usage_of(&display_name(party), pid))
            .collect()
    }

    /// Asks every party to stop, waits, and kills what does not.
    ///
    /// # Errors
    /// When a process cannot be waited for.
    pub async fn stop_all(&mut self) -> Result<()> {
        let parties: Vec<PathBuf> = std::iter::once(&self.layout.kingdom)
            .chain(&self.layout.duchies)
            .chain(&self.layout.publishers)
            .map(|party| self.layout.file(party, "pid"))
            .collect();
        for pid in parties.iter().filter_map(|file| running_pid(file)) {
            signal(pid, rustix::process::Signal::TERM);
        }
        let waited = Stopwatch::start();
        while !self.children.is_empty() && waited.elapsed() < STOP_TIME {
            self.children.retain(|_, child| !matches!(child.try_wait(), Ok(Some(_))));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        if let Some(name) = self.children.keys().next().cloned() {
            self.kill_children();
            return Err(Error::new(format!("{name} did not stop within {} s and was killed", STOP_TIME.as_secs())));
        }
        Ok(())
    }

    fn kill_children(&mut self) {
        for child in self.children.values_mut() {
            // It may have ended in the meantime; then there is nothing to kill.
            let _ = child.kill();
            let _ = child.wait();
        }
        self.children.clear();
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.kill_children();
    }
}

/// Writes the own process id to `pid` beside the configuration file; called by a party when it begins.
///
/// # Errors
/// When the file cannot be written.
pub fn record_pid(configuration: &Path) -> Result<()> {
    let path = configuration.with_file_name("pid");
    fs::write(&path, std::process::id().to_string()).context(|| format!("cannot write {}", path.display()))
}

/// The process id in a file, when that process runs.
fn running_pid(file: &Path) -> Option<i32> {
    let pid: i32 = fs::read_to_string(file).ok()?.trim().parse().ok()?;
    let process = procfs::process::Process::new(pid).ok()?;
    process.is_alive().then_some(pid)
}

fn usage_of(name: &str, pid: i32) -> Result<Usage> {
    let what = || format!("cannot read the accounts of {name}");
    let process = procfs::process::Process::new(pid).context(what)?;
    let stat = process.stat().context(what)?;
    let status = process.status().context(what)?;
    Ok(Usage {
        name: name.to_owned(),
        cpu_s: (stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64,
        peak_rss_bytes: status.vmhwm.unwrap_or(0) * 1024,
    })
}

fn signal(pid: i32, signal: rustix::process::Signal) {
    if let Some(pid) = rustix::process::Pid::from_raw(pid) {
        // The process may be gone already, which is what was wanted.
        let _ = rustix::process::kill_process(pid, signal);
    }
}
