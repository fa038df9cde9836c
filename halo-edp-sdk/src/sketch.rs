//! From impressions to a Liquid Legions sketch of the sampled people.

use std::{
    fmt, mem,
    path::Path,
    sync::{Mutex, PoisonError},
};

use halo_core::privacy::VidSamplingInterval;
use halo_sketch::{
    liquid_legions::{LiquidLegions, Params},
    sampler::VidSampler,
};
use rayon::prelude::*;

use crate::{
    Error, events,
    progress::{Observer, Stage, report},
};

/// Impressions that a thread takes at a time.
const SLICE: usize = 4096;

/// A sketch, and what it was made of.
#[derive(Clone, Debug)]
pub struct Sketched {
    /// The sketch of the sampled people.
    pub sketch: LiquidLegions,
    /// Impressions that were read, sampled or not.
    pub impressions: u64,
}

/// Sketches the impressions of a Parquet file (see [`events`]), over all cores. Memory does not depend on the size of the
/// file: one sketch for each thread, and two batches of impressions.
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
///
/// Every thread fills a sketch of its own, and they are merged at the end.
#[derive(Clone)]
pub struct Sketcher {
    params: Params,
    /// Who is looked at; `None` is everybody.
    sampler: Option<VidSampler>,
    parts: Vec<Part>,
    impressions: u64,
}

impl Sketcher {
    /// An empty sketch of those whom the interval samples.
    #[must_use]
    pub fn new(params: Params, interval: VidSamplingInterval) -> Self {
        // The whole circle: nobody has to be looked up.
        let sampler = (interval != VidSamplingInterval::FULL).then(|| VidSampler::new(interval));
        Self { params, sampler, parts: Vec::new(), impressions: 0 }
    }

    /// Adds impressions, one for each VID.
    pub fn add(&mut self, vids: &[u64]) {
        self.impressions += vids.len() as u64;
        let idle = Mutex::new(mem::take(&mut self.parts));
        let lock = || idle.lock().unwrap_or_else(PoisonError::into_inner);
        vids.par_chunks(SLICE).for_each(|slice| {
            let free = lock().pop();
            let mut part = free.unwrap_or_else(|| Part::new(self.params));
            part.add(slice, self.sampler.as_ref());
            lock().push(part);
        });
        self.parts = idle.into_inner().unwrap_or_else(PoisonError::into_inner);
    }

    /// The sketch of all that was added.
    #[must_use]
    pub fn finish(self) -> Sketched {
        let mut sketch = LiquidLegions::new(self.params);
        for part in self.parts {
            sketch.merge(&part.sketch).expect("all parts have the parameters of the whole");
        }
        Sketched { sketch, impressions: self.impressions }
    }
}

impl fmt::Debug for Sketcher {
    /// Says nothing about anybody.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { params, impressions, .. } = self;
        f.debug_struct("Sketcher").field("params", params).field("impressions", impressions).finish_non_exhaustive()
    }
}

/// What one thread has seen.
#[derive(Clone)]
struct Part {
    sketch: LiquidLegions,
    sampled: Vec<u64>,
}

impl Part {
    fn new(params: Params) -> Self {
        Self { sketch: LiquidLegions::new(params), sampled: Vec::with_capacity(SLICE) }
    }

    fn add(&mut self, vids: &[u64], sampler: Option<&VidSampler>) {
        let Some(sampler) = sampler else { return self.sketch.insert_slice(vids) };
        self.sampled.clear();
        sampler.sample(vids, &mut self.sampled);
        self.sketch.insert_slice(&self.sampled);
    }
}
