//! What the protocols over frequency vectors have in common.

use halo_core::measurement::ProtocolKind;
use halo_core::privacy::VidSamplingInterval;

use crate::server::duchy::Settings;
use crate::server::terms::Refusal;

/// Cells of a vector: the sampled part of a population, counted in float32 as publishers do (protocols 3.2).
pub(super) fn cells(population: u64, interval: VidSamplingInterval) -> u64 {
    let border = |part: f32| (population as f32 * part) as u64;
    let (start, end) = (border(interval.start()), border(interval.start() + interval.width()));
    end.min(population).saturating_sub(start) + end.saturating_sub(population)
}

/// The refusal of frequencies that tell nothing apart.
pub(super) fn too_low(kind: ProtocolKind) -> Refusal {
    Refusal::new(format!("{kind} measures frequencies with a maximum frequency of at least 2; ask for the reach alone"))
}

/// Checks that an engine that holds so many vectors at a time, each with its noise cells, fits the memory budget.
pub(super) fn check_memory(cells: u64, noise: u64, vectors: u64, settings: &Settings) -> Result<(), Refusal> {
    let (needed, there) = (cells.saturating_add(noise).saturating_mul(vectors), settings.memory);
    if needed <= there {
        return Ok(());
    }
    Err(Refusal::new(format!(
        "vectors of {cells} cells and {noise} more of noise need {} MiB of memory where {} MiB are left to an engine; raise \
         memory_budget_mib, or ask for a narrower sampling interval or a larger epsilon",
        needed >> 20,
        there >> 20
    )))
}

#[cfg(test)]
mod tests {
    use halo_core::privacy::MaximumFrequency;
    use halo_sketch::frequency_vector::{FrequencyVector, VidIndexMap};

    use super::*;

    /// Every publisher's vector has the length that the Duchies expect.
    #[test]
    fn lengths_are_those_of_publishers() {
        for size in [1, 2, 3, 10, 97, 1000] {
            let population = VidIndexMap::new(1..=size).unwrap();
            for (start, width) in
                [(0.0, 1.0), (0.3, 0.5), (0.7, 0.5), (0.1, 0.7), (0.999, 0.3), (0.5, 0.01), (0.9, 1.0)]
            {
                let interval = VidSamplingInterval::new(start, width).unwrap();
                let vector = FrequencyVector::new(&population, interval, MaximumFrequency::REACH_ONLY);
                let length = vector.map_or(0, |vector| vector.cells().len() as u64);
                assert_eq!(cells(size, interval), length, "{size} people, {start} + {width}");
            }
        }
    }
}
