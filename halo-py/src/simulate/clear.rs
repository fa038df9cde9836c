//! The exact answers, computed in the clear.

use std::collections::BTreeMap;

use halo_core::privacy::MaximumFrequency;
use halo_sketch::estimate;
use halo_sketch::liquid_legions::{Register, RegisterKey};

use super::Job;
use crate::error::Error;
use crate::outcome::Exact;

/// Frequencies from 1 to F; nothing where only reach is asked for.
fn histogram(frequencies: impl Iterator<Item = u64>, maximum: MaximumFrequency) -> Vec<u64> {
    if !maximum.counts_frequency() {
        return Vec::new();
    }
    let mut histogram = vec![0; maximum.get() as usize];
    let highest = histogram.len() as u64;
    frequencies.for_each(|frequency| histogram[(frequency.min(highest) - 1) as usize] += 1);
    histogram
}

/// Everybody who was reached, sampled or not.
pub(super) fn people(publishers: &[(&str, Vec<&[u64]>)], maximum: MaximumFrequency) -> Exact {
    let mut all: Vec<u64> = publishers.iter().flat_map(|(_, vids)| vids.iter().copied().flatten().copied()).collect();
    all.sort_unstable();
    let groups = || all.chunk_by(|one, other| one == other).map(|group| group.len() as u64);
    Exact::of(groups().count() as f64, histogram(groups(), maximum))
}

/// What the protocol has to find in registers: how many are active, and the counts of those that are usable.
pub(super) fn registers(job: &Job, publishers: &[(&str, Vec<Register>)]) -> Result<Exact, Error> {
    let highest = u64::from(job.maximum_frequency.get());
    let mut joined: BTreeMap<u64, (RegisterKey, u64)> = BTreeMap::new();
    for register in publishers.iter().flat_map(|(_, registers)| registers) {
        // Publishers send F + 1 for every count above F.
        let sent = (register.key, register.count.min(highest + 1));
        joined
            .entry(register.index)
            .and_modify(|(key, count)| (*key, *count) = (key.combine(sent.0), *count + sent.1))
            .or_insert(sent);
    }
    let active = joined.len() as u64;
    let usable = joined.values().filter(|(key, _)| *key != RegisterKey::Destroyed).map(|(_, count)| *count);
    let width = job.interval()?.width_decimal();
    let reach = estimate::reach(&job.sketch, active as f64, width, 0.0)?.value;
    let histogram = histogram(usable, job.maximum_frequency);
    Ok(Exact { reach, histogram, active_registers: Some(active) })
}

/// Everybody who has a cell.
pub(super) fn vectors(job: &Job, publishers: &[(&str, Vec<u8>)]) -> Exact {
    let cells = publishers.first().map_or(0, |(_, cells)| cells.len());
    let sums = || {
        let sum = |cell: usize| publishers.iter().map(|(_, cells)| u64::from(cells[cell])).sum::<u64>();
        (0..cells).map(sum).filter(|sum| *sum > 0)
    };
    Exact::of(sums().count() as f64, histogram(sums(), job.maximum_frequency))
}
