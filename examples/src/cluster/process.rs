//! Starting, watching and stopping the parties' processes.
//!
//! A party is the quickstart program run again as `quickstart party ROLE --config FILE`. It writes its process id to
//! `pid` in its directory, so that one that was started again by hand is still counted and stopped. A party's name is its
//! directory below the state directory, such as `duchies/worker1`: publishers may be called anything.

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
use rustix::process::{Pid, PidfdFlags, Signal};
use tokio::sync::mpsc;

use super::{
    account::Accounts,
    layout::{Layout, Party, display_name, party_name},
};
use crate::{
    error::{Context, Error, Result},
    outcome::Usage,
    quickstart::Role,
    shell::quoted,
};

/// How long a party may take to stop before it is killed.
const STOP_TIME: Duration = Duration::from_secs(10);

/// What the operating system says of a port that is not free.
const PORT_TAKEN: &str = "Address already in use";

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
        /// It gave up by itself: nobody killed or stopped it.
        gave_up: bool,
    },
}

/// The running parties of a [`Layout`]. Dropping it kills what still runs.
#[derive(Debug)]
pub struct Cluster {
    program: PathBuf,
    layout: Layout,
    children: BTreeMap<String, Child>,
    accounts: Accounts,
    environment: Vec<(String, String)>,
    events: mpsc::UnboundedSender<PartyEvent>,
}

impl Cluster {
    /// A cluster of which nothing runs yet. `program` is the quickstart binary; what happens to the parties is sent to
    /// the receiver that is returned beside it.
    #[must_use]
    pub fn new(program: PathBuf, layout: Layout) -> (Self, mpsc::UnboundedReceiver<PartyEvent>) {
        let (events, receiver) = mpsc::unbounded_channel();
        let (children, accounts) = (BTreeMap::new(), Accounts::default());
        (Self { program, layout, children, accounts, environment: Vec::new(), events }, receiver)
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
        let name = party_name(party);
        let log_path = self.layout.file(party, "log.txt");
        let log = File::options()
            .create(true)
            .append(true)
            .open(&log_path)
            .context(|| format!("cannot open {}", log_path.display()))?;
        let mut child = self
            .command(role, party)
            .arg("--parent")
            .arg(std::process::id().to_string())
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
        let (program, configuration) = (quoted(&self.program), quoted(&self.layout.configuration(party)));
        format!("{program} party {} --config {configuration}", role.word())
    }

    /// Gives every server another address. Nothing may run.
    ///
    /// # Errors
    /// When there are no free ports, or a file cannot be written.
    pub fn move_ports(&mut self) -> Result<()> {
        self.layout.move_ports()
    }

    fn command(&self, role: Role, party: &Party) -> Command {
        let mut command = Command::new(&self.program);
        command.args(["party", role.word(), "--config"]).arg(self.layout.configuration(party));
        command.current_dir(self.layout.root.join(&party.directory));
        command
    }

    /// Looks for processes that ended by themselves, takes them off the list and names them. Also notes what each party
    /// has used so far: what is not noted before a process is gone is lost.
    pub fn reap(&mut self) -> Vec<String> {
        self.take_accounts();
        let mut ended = Vec::new();
        for (name, child) in &mut self.children {
            if let Ok(Some(status)) = child.try_wait() {
                ended.push((name.clone(), status));
            }
        }
        for (name, status) in &ended {
            self.children.remove(name);
            let again = self.find(name).map(|(role, party)| {
                let log = self.layout.file(party, "log.txt");
                format!("its log is {}; start it again with: {}", log.display(), self.command_line(role, party))
            });
            let message = format!("{name} ended ({status}); {}", again.unwrap_or_default());
            let gave_up = status.code().is_some_and(|code| code != 0);
            // The receiver may be gone when the run is over.
            let _ = self.events.send(PartyEvent::Ended { name: name.clone(), message, gave_up });
        }
        ended.into_iter().map(|(name, _)| name).collect()
    }

    fn take_accounts(&mut self) {
        let layout = &self.layout;
        for (_, party) in parties(layout) {
            let name = party_name(party);
            let started = self.children.get(&name).map(|child| child.id().cast_signed());
            // A process that has ended keeps its accounts until it is waited for.
            if let Some(pid) = started.or_else(|| running_pid(layout, party)) {
                self.accounts.note(&name, pid);
            }
        }
    }

    /// The CPU time and peak memory of every party so far, all its processes together.
    #[must_use]
    pub fn usage(&mut self) -> Vec<Usage> {
        self.take_accounts();
        let of = |party: &Party| self.accounts.usage(&party_name(party), display_name(party));
        parties(&self.layout).filter_map(|(_, party)| of(party)).collect()
    }

    /// A party by its name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<(Role, &Party)> {
        parties(&self.layout).find(|(_, party)| party_name(party) == name)
    }

    /// The last lines of a party's log.
    #[must_use]
    pub fn log_tail(&self, name: &str) -> String {
        let log = self.find(name).map(|(_, party)| self.layout.file(party, "log.txt"));
        let text = log.and_then(|path| fs::read_to_string(path).ok()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(10)..].join("\n")
    }

    /// Whether a party that has ended could not listen because somebody else had its port, as its log says.
    #[must_use]
    pub fn port_taken(&self, name: &str) -> bool {
        self.log_tail(name).contains(PORT_TAKEN)
    }

    /// Asks every party to stop, waits, and kills what does not.
    ///
    /// # Errors
    /// When a process cannot be waited for.
    pub async fn stop_all(&mut self) -> Result<()> {
        for (_, party) in parties(&self.layout) {
            terminate_recorded(&self.layout, party);
        }
        for child in self.children.values() {
            // One that has just been started may not have written its id yet. A child that was not waited for keeps its
            // id, so this is no stranger's.
            if let Some(pid) = Pid::from_raw(child.id().cast_signed()) {
                // It may have ended already, which is what was wanted.
                let _ = rustix::process::kill_process(pid, Signal::TERM);
            }
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

/// Every party with its role: the Kingdom, the Duchies, the publishers.
fn parties(layout: &Layout) -> impl Iterator<Item = (Role, &Party)> {
    std::iter::once((Role::Kingdom, &layout.kingdom))
        .chain(layout.duchies.iter().map(|duchy| (Role::Duchy, duchy)))
        .chain(layout.publishers.iter().map(|publisher| (Role::Publisher, publisher)))
}

/// The id of the process that runs this party, from its file. Numbers are used again: another process may have it now.
fn running_pid(layout: &Layout, party: &Party) -> Option<i32> {
    let pid = fs::read_to_string(layout.file(party, "pid")).ok()?.trim().parse().ok()?;
    runs(pid, &layout.configuration(party)).then_some(pid)
}

/// Whether the process runs with this configuration file.
fn runs(pid: i32, configuration: &Path) -> bool {
    let command = || {
        let process = procfs::process::Process::new(pid).ok()?;
        let line = process.cmdline().ok()?;
        let given = line.iter().skip_while(|word| *word != "--config").nth(1)?;
        fs::canonicalize(process.cwd().ok()?.join(given)).ok()
    };
    command().is_some_and(|found| fs::canonicalize(configuration).is_ok_and(|expected| found == expected))
}

/// Asks the process in a party's file to stop, if it is the party's.
fn terminate_recorded(layout: &Layout, party: &Party) {
    let recorded = fs::read_to_string(layout.file(party, "pid")).ok().and_then(|text| text.trim().parse().ok());
    let Some(pid) = recorded.and_then(Pid::from_raw) else { return };
    // The descriptor stays with the process, whatever becomes of the number.
    let Ok(process) = rustix::process::pidfd_open(pid, PidfdFlags::empty()) else { return };
    if runs(pid.as_raw_nonzero().get(), &layout.configuration(party)) {
        // It may have ended already, which is what was wanted.
        let _ = rustix::process::pidfd_send_signal(&process, Signal::TERM);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_another_process_has_is_not_a_partys() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("config.toml");
        fs::write(&file, "").unwrap();
        record_pid(&file).unwrap();
        let pid = fs::read_to_string(directory.path().join("pid")).unwrap().parse().unwrap();
        assert!(!runs(pid, &file), "the test runs without this configuration");
        let run = |file: &Path| {
            Command::new("sh").args(["-c", "read line", "sh", "--config"]).arg(file).stdin(Stdio::piped()).spawn()
        };
        let mut party = run(&file).unwrap();
        while !runs(party.id().cast_signed(), &file) {
            assert!(party.try_wait().unwrap().is_none(), "it ended by itself");
        }
        party.kill().unwrap();
        party.wait().unwrap();
        assert!(!runs(party.id().cast_signed(), &file));
    }
}
