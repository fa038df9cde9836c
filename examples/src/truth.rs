//! The exact answer, computed in the clear. No party of the real system could compute it; it stands beside the result
//! of an example to judge it.

use std::{
    collections::HashMap,
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

use halo_edp_sdk::events;
use serde::Serialize;

use crate::error::{Context, Result};

/// How often people were reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reached {
    /// Distinct people.
    pub reach: u64,
    /// People by number of impressions: entry k − 1 counts those with exactly k, the last one those with that many or
    /// more.
    pub histogram: Vec<u64>,
}

/// One publisher's exact figures.
#[derive(Clone, Debug, Serialize)]
pub struct PublisherTruth {
    /// The publisher's name.
    pub name: String,
    /// Rows of its file.
    pub impressions: u64,
    /// Distinct people among them.
    pub clear_reach: u64,
    /// The same people by frequency.
    #[serde(skip)]
    pub reached: Reached,
    /// Impressions, of each person at most as many as count.
    #[serde(skip)]
    pub counted_impressions: u64,
    /// Seconds, of each person at most as many as count; 0 when they were not asked for.
    #[serde(skip)]
    pub counted_seconds: u64,
}

/// Exact figures of each publisher, and over all of them.
#[derive(Clone, Debug)]
pub struct Truth {
    /// Each publisher on its own, in the given order.
    pub publishers: Vec<PublisherTruth>,
    /// Everybody who was reached by any of them.
    pub reached: Reached,
    /// The lowest and the highest VID; absent without a single impression.
    pub vids: Option<RangeInclusive<u64>>,
}

/// How much of one person counts.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The last class of a histogram is "so many impressions or more".
    pub classes: u32,
    /// More impressions of one person at one publisher do not count as impressions.
    pub impressions: u32,
    /// More seconds of one person at one publisher do not count; with `None` watch durations are not read.
    pub seconds: Option<u32>,
}

/// What one person has seen.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    impressions: u64,
    seconds: u64,
}

impl Reached {
    fn count(impressions: impl Iterator<Item = u64>, classes: u32) -> Self {
        let mut histogram = vec![0; classes as usize];
        let mut reach = 0;
        for count in impressions {
            reach += 1;
            histogram[count.clamp(1, u64::from(classes)) as usize - 1] += 1;
        }
        Self { reach, histogram }
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

impl Truth {
    /// Reads every publisher's impressions and counts.
    ///
    /// # Errors
    /// When a file cannot be read or is no file of impressions, or watch durations are asked for and one has none; the
    /// error names it.
    pub fn count(files: &[(String, PathBuf)], limits: Limits) -> Result<Self> {
        let mut people: HashMap<u64, u64> = HashMap::new();
        let mut publishers = Vec::with_capacity(files.len());
        let mut vids: Option<RangeInclusive<u64>> = None;
        for (name, path) in files {
            let own =
                seen(path, limits.seconds.is_some()).context(|| format!("cannot read the impressions of {name}"))?;
            for (vid, seen) in &own {
                *people.entry(*vid).or_default() += seen.impressions;
                let range = vids.get_or_insert(*vid..=*vid);
                *range = *vid.min(range.start())..=*vid.max(range.end());
            }
            let sum = |of: &dyn Fn(&Seen) -> u64| own.values().map(of).sum::<u64>();
            publishers.push(PublisherTruth {
                name: name.clone(),
                impressions: sum(&|seen| seen.impressions),
                clear_reach: own.len() as u64,
                reached: Reached::count(own.values().map(|seen| seen.impressions), limits.classes),
                counted_impressions: sum(&|seen| seen.impressions.min(u64::from(limits.impressions))),
                counted_seconds: limits.seconds.map_or(0, |most| sum(&|seen| seen.seconds.min(u64::from(most)))),
            });
        }
        Ok(Self { publishers, reached: Reached::count(people.into_values(), limits.classes), vids })
    }
}

/// The first impression of somebody whose VID is outside of a range: its file, and its row, counted from 1.
///
/// # Errors
/// When a file cannot be read or is no file of impressions.
pub fn first_outside<'a>(
    files: &'a [(String, PathBuf)],
    range: &RangeInclusive<u64>,
) -> Result<Option<(&'a Path, u64)>> {
    for (name, path) in files {
        let mut rows = 0;
        let mut found = None;
        events::read_vids(path, |vids| {
            let position = || vids.iter().position(|vid| !range.contains(vid));
            found = found.or_else(|| position().map(|position| rows + position as u64 + 1));
            rows += vids.len() as u64;
        })
        .context(|| format!("cannot read the impressions of {name}"))?;
        if let Some(row) = found {
            return Ok(Some((path, row)));
        }
    }
    Ok(None)
}

/// What each person of one file has seen.
fn seen(path: &Path, durations: bool) -> std::result::Result<HashMap<u64, Seen>, halo_edp_sdk::Error> {
    let mut people: HashMap<u64, Seen> = HashMap::new();
    if !durations {
        events::read_vids(path, |vids| vids.iter().for_each(|vid| people.entry(*vid).or_default().impressions += 1))?;
        return Ok(people);
    }
    events::try_read_watched(path, |vids, seconds| {
        for (vid, seconds) in vids.iter().zip(seconds) {
            let seen = people.entry(*vid).or_default();
            seen.impressions += 1;
            seen.seconds = seen.seconds.saturating_add(*seconds);
        }
        Ok(())
    })?;
    Ok(people)
}
