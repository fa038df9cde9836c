//! What every party's processes have used, those included that are gone.

use std::collections::BTreeMap;

use crate::outcome::Usage;

/// The accounts of one party.
#[derive(Clone, Copy, Debug, Default)]
struct Account {
    /// CPU ticks of the processes that are gone.
    gone: u64,
    /// The present process, and its CPU ticks when it was last looked at.
    present: Option<(i32, u64)>,
    /// Highest resident memory of any process, in bytes.
    peak_rss_bytes: u64,
}

/// The accounts of all parties, by name.
#[derive(Clone, Debug, Default)]
pub(super) struct Accounts(BTreeMap<String, Account>);

impl Accounts {
    /// Notes what a party's process has used. One that has ended can be noted until somebody waits for it.
    pub(super) fn note(&mut self, name: &str, pid: i32) {
        let read = || {
            let process = procfs::process::Process::new(pid).ok()?;
            let stat = process.stat().ok()?;
            // A process that has ended has no memory any more.
            let peak = process.status().ok().and_then(|status| status.vmhwm).unwrap_or(0) * 1024;
            Some((stat.utime + stat.stime, peak))
        };
        if let Some((ticks, peak)) = read() {
            self.add(name, pid, ticks, peak);
        }
    }

    fn add(&mut self, name: &str, pid: i32, ticks: u64, peak: u64) {
        let account = self.0.entry(name.to_owned()).or_default();
        if let Some((_, before)) = account.present.filter(|(other, before)| *other != pid || ticks < *before) {
            account.gone += before;
        }
        account.present = Some((pid, ticks));
        account.peak_rss_bytes = account.peak_rss_bytes.max(peak);
    }

    /// What the party called `name` has used, shown as `shown`; `None` when it never ran.
    pub(super) fn usage(&self, name: &str, shown: String) -> Option<Usage> {
        let account = self.0.get(name)?;
        let ticks = account.gone + account.present.map_or(0, |(_, ticks)| ticks);
        Some(Usage {
            name: shown,
            cpu_s: ticks as f64 / procfs::ticks_per_second() as f64,
            peak_rss_bytes: account.peak_rss_bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_of_one_party_add_up() {
        let mut accounts = Accounts::default();
        for (pid, ticks, peak) in [(7, 10, 500), (7, 30, 700), (8, 5, 100), (8, 6, 90), (8, 2, 0)] {
            accounts.add("kingdom", pid, ticks, peak);
        }
        let usage = accounts.usage("kingdom", "kingdom".into()).unwrap();
        let ticks = usage.cpu_s * procfs::ticks_per_second() as f64;
        assert_eq!((ticks.round(), usage.peak_rss_bytes), (38.0, 700));
        assert!(accounts.usage("worker1", "worker1".into()).is_none());
    }

    #[test]
    fn the_own_process_has_used_something() {
        let mut accounts = Accounts::default();
        accounts.note("here", std::process::id().cast_signed());
        assert!(accounts.usage("here", "here".into()).unwrap().peak_rss_bytes > 0);
    }
}
