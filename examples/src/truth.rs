//! The exact answer, computed in the clear. No party of the real system could compute it; it stands beside the result
//! of an example to judge it.

use std::{collections::HashMap, path::PathBuf};

use halo_edp_sdk::events;
use serde::Serialize;

use crate::error::{Context, Result};

/// One publisher's exact figures.
#[derive(Clone, Debug, Serialize)]
pub struct PublisherTruth {
    /// The publisher's name.
    pub name: String,
    /// Rows of its file.
    pub impressions: u64,
    /// Distinct people among them.
    pub clear_reach: u64,
}

/// Exact reach and frequency over all publishers.
#[derive(Clone, Debug)]
pub struct Truth {
    /// Each publisher on its own, in the given order.
    pub publishers: Vec<PublisherTruth>,
    /// Distinct people over all publishers.
    pub reach: u64,
    /// People by number of impressions: entry k − 1 counts those with exactly k, the last one those with that many or
    /// more.
    pub histogram: Vec<u64>,
}

impl Truth {
    /// Reads every publisher's impressions and counts.
    ///
    /// # Errors
    /// When a file cannot be read or is no file of impressions; the error names it.
    pub fn count(files: &[(String, PathBuf)], maximum_frequency: u32) -> Result<Self> {
        let mut people: HashMap<u64, u32> = HashMap::new();
        let mut publishers = Vec::with_capacity(files.len());
        for (name, path) in files {
            let mut own: HashMap<u64, u32> = HashMap::new();
            let mut impressions = 0_u64;
            events::read_vids(path, |vids| {
                impressions += vids.len() as u64;
                for vid in vids {
                    *own.entry(*vid).or_default() += 1;
                }
            })
            .context(|| format!("cannot read the impressions of {name}"))?;
            publishers.push(PublisherTruth { name: name.clone(), impressions, clear_reach: own.len() as u64 });
            for (vid, count) in own {
                *people.entry(vid).or_default() += count;
            }
        }
        let mut histogram = vec![0; maximum_frequency as usize];
        for count in people.values() {
            histogram[(*count).clamp(1, maximum_frequency) as usize - 1] += 1;
        }
        Ok(Self { publishers, reach: people.len() as u64, histogram })
    }

    /// The histogram as shares of the reach; empty when nobody was reached.
    #[must_use]
    pub fn shares(&self) -> Vec<f64> {
        if self.reach == 0 {
            return Vec::new();
        }
        self.histogram.iter().map(|count| *count as f64 / self.reach as f64).collect()
    }
}
