//! From impressions to a frequency vector: how often each sampled person of a population was reached.
//!
//! All publishers number the population alike ([`VidIndexMap`]), so that their vectors can be added cell by cell.

use std::path::Path;

use halo_core::{
    measurement::Population,
    privacy::{MaximumFrequency, VidSamplingInterval},
};
use halo_sketch::frequency_vector::{FrequencyVector, VidIndexMap};

use crate::{
    Error, events,
    progress::{Observer, Stage, report},
};

/// What the vectors of a measurement are over, the same at every publisher.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct VectorTerms {
    /// Everybody who is numbered. It is public.
    pub population: Population,
    /// Whose cells are in the vector; it may go round the end.
    pub interval: VidSamplingInterval,
    /// F: more impressions of one person do not count; 1 for reach only.
    pub maximum_frequency: MaximumFrequency,
}

/// A frequency vector, and what it was made of.
#[derive(Clone, Debug)]
pub struct Counted {
    /// The vector.
    pub vector: FrequencyVector,
    /// Impressions that were read, sampled or not.
    pub impressions: u64,
}

/// Counts the impressions of a Parquet file (see [`events`]).
///
/// Memory, whatever the size of the file: one byte for each sampled person and 8 for each person of the population, 24
/// while the population is numbered.
///
/// # Errors
/// [`Error::OutsidePopulation`] names the first row of somebody who is not of the population; [`Error::Sketch`] when
/// nobody of it is sampled; as [`events::read_vids`]; [`Error::Interrupted`] when the observer asks to stop.
pub fn count_file(path: &Path, terms: &VectorTerms, observer: &mut dyn Observer) -> Result<Counted, Error> {
    report(observer, Stage::Counting, 0, None)?;
    let (map, mut vector) = empty(terms)?;
    let mut impressions = 0;
    events::try_read_vids(path, |vids| {
        for vid in vids {
            impressions += 1;
            if map.index(*vid).is_none() {
                let (path, population) = (path.to_path_buf(), terms.population);
                return Err(Error::OutsidePopulation { path, row: impressions, population });
            }
            vector.add(&map, *vid, 1)?;
        }
        report(observer, Stage::Counting, impressions, None)
    })?;
    Ok(Counted { vector, impressions })
}

/// Counts VIDs that are at hand, one for each impression. Memory as [`count_file`].
///
/// # Errors
/// [`Error::Sketch`] names a VID that is not of the population, or says that nobody of it is sampled.
pub fn count_vids(vids: &[u64], terms: &VectorTerms) -> Result<Counted, Error> {
    let (map, mut vector) = empty(terms)?;
    vids.iter().try_for_each(|vid| vector.add(&map, *vid, 1))?;
    Ok(Counted { vector, impressions: vids.len() as u64 })
}

/// The places of the population, and nobody reached.
fn empty(terms: &VectorTerms) -> Result<(VidIndexMap, FrequencyVector), Error> {
    let map = VidIndexMap::new(terms.population.vids())?;
    let vector = FrequencyVector::new(&map, terms.interval, terms.maximum_frequency)?;
    Ok((map, vector))
}
