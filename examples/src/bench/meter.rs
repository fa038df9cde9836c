//! Time, processor time and memory of this process.

use std::{fs, time::Duration};

use halo_core::clock::Stopwatch;
use rustix::time::{ClockId, clock_gettime};

/// Processor time of all threads of this process.
pub(super) fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

/// What a piece of work took.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cost {
    pub(super) wall_s: f64,
    pub(super) cpu_s: f64,
}

/// Measures from when it is made.
#[derive(Debug)]
pub(super) struct Meter {
    wall: Stopwatch,
    cpu: Duration,
}

impl Meter {
    pub(super) fn start() -> Self {
        Self { wall: Stopwatch::start(), cpu: cpu_time() }
    }

    pub(super) fn cost(&self) -> Cost {
        Cost { wall_s: self.wall.seconds(), cpu_s: (cpu_time() - self.cpu).as_secs_f64() }
    }
}

/// Memory above what was resident at the start of the measurement.
#[derive(Debug)]
pub(super) struct Memory {
    before: u64,
}

impl Memory {
    /// Begins anew: the peak of the past is forgotten, as far as the kernel lets a process do that.
    pub(super) fn start() -> Self {
        // Linux resets the peak when 5 is written; where it does not, the peak is that of the whole process.
        let _ = fs::write("/proc/self/clear_refs", "5");
        Self { before: status_bytes("VmRSS:") }
    }

    /// Peak resident memory since the start, in bytes: all of it, and what was added.
    pub(super) fn peak(&self) -> (u64, u64) {
        let peak = status_bytes("VmHWM:");
        (peak, peak.saturating_sub(self.before))
    }
}

/// A line of /proc/self/status, in bytes; 0 where there is none.
fn status_bytes(name: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|line| line.split_whitespace().next()).and_then(|number| number.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_and_memory_are_seen() {
        let memory = Memory::start();
        let meter = Meter::start();
        let block: Vec<u8> = std::hint::black_box((0..32_u32 << 20).map(|i| i as u8).collect());
        let cost = meter.cost();
        assert!(cost.cpu_s > 0.0 && cost.wall_s > 0.0, "{cost:?}");
        let (peak, added) = memory.peak();
        assert!(peak >= block.len() as u64 && added > 0, "{peak} {added}");
    }
}
