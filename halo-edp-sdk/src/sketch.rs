//! From impressions to a Liquid Legions sketch of the sampled people.

use std::path::Path;

use halo_core::privacy::VidSamplingInterval;
use halo_sketch::{
    liquid_legions::{LiquidLegions, Params},
    sampler::VidSampler,
};

use crate::{
    Error, events,
    progress::{Observer, Stage, report},
};

/// A sketch, and what it was made of.
#[derive(Clone, Debug)]
pub struct Sketched {
    /// The sketch of the sampled people.
    pub sketch: LiquidLegions,
    /// Impressions that were read, sampled or not.
    pub impressions: u64,
}

/// Sketches the impressions of a Parquet file (see [`events`]). Memory is bounded by the sketch: about 100 bytes for
/// each active register, whatever the size of the file.
///
/// # Errors
/// As [`events::read_vids`]; [`Error::Interrupted`] when the observer asks to stop.
pub fn sketch_file(
    path: &Path,
    params: Params,
    interval: VidSamplingInterval,
    observer: &mut dyn Observer,
) -> Result<Sketched, Error> {
    let mut building = Building::new(params, interval);
    events::try_read_vids(path, |vids| {
        building.add(vids);
        report(observer, Stage::Sketching, building.impressions, None)
    })?;
    Ok(building.finish())
}

/// Sketches VIDs that are at hand, one for each impression.
#[must_use]
pub fn sketch_vids(vids: &[u64], params: Params, interval: VidSamplingInterval) -> Sketched {
    let mut building = Building::new(params, interval);
    building.add(vids);
    building.finish()
}

/// A sketch that grows.
struct Building {
    sampler: VidSampler,
    everybody: bool,
    sketch: LiquidLegions,
    sampled: Vec<u64>,
    impressions: u64,
}

impl Building {
    fn new(params: Params, interval: VidSamplingInterval) -> Self {
        Self {
            sampler: VidSampler::new(interval),
            everybody: interval == VidSamplingInterval::FULL,
            sketch: LiquidLegions::new(params),
            sampled: Vec::new(),
            impressions: 0,
        }
    }

    fn add(&mut self, vids: &[u64]) {
        self.impressions += vids.len() as u64;
        if self.everybody {
            // The whole circle: nobody has to be looked up.
            return self.sketch.insert_slice(vids);
        }
        self.sampled.clear();
        self.sampled.extend(vids.iter().copied().filter(|vid| self.sampler.contains(*vid)));
        self.sketch.insert_slice(&self.sampled);
    }

    fn finish(self) -> Sketched {
        Sketched { sketch: self.sketch, impressions: self.impressions }
    }
}
