//! What a stage cost, for the timeline.

use halo_core::clock::{Stopwatch, Timestamp};
use halo_core::pb::system::{self, StageAttempt};
use prost::Message;
use rustix::time::{ClockId, clock_gettime};

use crate::server::duchy::Duchy;
use crate::server::store::{Outgoing, Record};
use crate::server::terms::Terms;

/// Measures one attempt at a stage.
#[derive(Debug)]
pub(super) struct Meter {
    start: Timestamp,
    watch: Stopwatch,
    cpu_seconds: f64,
}

/// What went through a stage.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Traffic {
    pub(super) records_in: u64,
    pub(super) records_out: u64,
    pub(super) bytes_out: u64,
}

impl Meter {
    pub(super) fn start(duchy: &Duchy) -> Self {
        Self { start: duchy.now(), watch: Stopwatch::start(), cpu_seconds: cpu_seconds() }
    }

    /// The line for the timeline. CPU time is that of the whole process meanwhile.
    pub(super) fn log_entry(&self, duchy: &Duchy, terms: &Terms, record: &Record, traffic: Traffic) -> Outgoing {
        let entry = system::ComputationLogEntry {
            log_message: format!("finished {}", record.stage),
            stage_attempt: Some(StageAttempt {
                stage: terms.protocol.stage_number(record.stage, &duchy.parties.me),
                stage_name: record.stage.name().to_owned(),
                stage_start_time: Some(self.start.into()),
                attempt_number: i64::from(record.attempts) + 1,
                cpu_seconds: cpu_seconds() - self.cpu_seconds,
                wall_seconds: self.watch.seconds(),
                records_in: traffic.records_in.cast_signed(),
                records_out: traffic.records_out.cast_signed(),
                bytes_out: traffic.bytes_out.cast_signed(),
                peak_resident_bytes: peak_resident_bytes().cast_signed(),
            }),
            ..Default::default()
        };
        let request = system::CreateComputationLogEntryRequest {
            parent: duchy.part(&terms.name),
            computation_log_entry: Some(entry),
        };
        Outgoing::LogEntry(request.encode_to_vec())
    }
}

/// CPU time of the process so far.
fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// Highest resident memory of the process so far; 0 where the operating system does not tell.
fn peak_resident_bytes() -> u64 {
    let status = procfs::process::Process::myself().and_then(|process| process.status());
    status.ok().and_then(|status| status.vmhwm).unwrap_or(0) * 1024
}
