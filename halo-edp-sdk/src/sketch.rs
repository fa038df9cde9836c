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
    let mut sketcher = Sketcher::new(params, interval);
    events::try_read_vids(path, |vids| {
        sketcher.add(vids);
        report(observer, Stage::Sketching, sketcher.impressions, None)
    })?;
    Ok(sketcher.finish())
}

/// Sketches VIDs that are at hand, one for each impression.
#[must_use]
pub fn sketch_vids(vids: &[u64], params: Params, interval: VidSamplingInterval) -> Sketched {
    let mut sketcher = Sketcher::new(params, interval);
    sketcher.add(vids);
    sketcher.finish()
}

/// A sketch that grows, for impressions that come in parts.
#[derive(Clone, Debug)]
pub struct Sketcher {
    sampler: VidSampler,
    everybody: bool,
    sketch: LiquidLegions,
    sampled: Vec<u64>,
    impressions: u64,
}

impl Sketcher {
    /// An empty sketch of those whom the interval samples.
    #[must_use]
    pub fn new(params: Params, interval: VidSamplingInterval) -> Self {
        Self {
            sampler: VidSampler::new(interval),
            everybody: interval == VidSamplingInterval::FULL,
            sketch: LiquidLegions::new(params),
            sampled: Vec::new(),
            impressions: 0,
        }
    }

    /// Adds impressions, one for each VID.
    pub fn add(&mut self, vids: &[u64]) {
        self.impressions += vids.len() as u64;
        if self.everybody {
            // The whole circle: nobody has to be looked up.
            return self.sketch.insert_slice(vids);
        }
        self.sampled.clear();
        self.sampled.extend(vids.iter().copied().filter(|vid| self.sampler.contains(*vid)));
        self.sketch.insert_slice(&self.sampled);
    }

    /// The sketch of all that was added.
    #[must_use]
    pub fn finish(self) -> Sketched {
        Sketched { sketch: self.sketch, impressions: self.impressions }
    }
}
