<<<<<<< HEAD
//! From impressions to a frequency vector of the sampled people, and to the two shares of it that go to two Duchies.
//!
//! ```
//! use halo_core::privacy::{MaximumFrequency, VidSamplingInterval};
//! use halo_crypto::share::{Modulus, add};
//! use halo_edp_sdk::{progress::Unobserved, vector};
//! use halo_sketch::frequency_vector::VidIndexMap;
//! use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
//!
//! let population = VidIndexMap::new(1..=20)?; // the same at every publisher
//! let twice_at_most = MaximumFrequency::new(2)?;
//! let vector =
//!     vector::count_vids(&[4, 4, 4, 9], &population, VidSamplingInterval::FULL, twice_at_most, &mut Unobserved)?;
//! let mut rng = ChaCha20Rng::seed_from_u64(1); // an example; a publisher takes the operating system's generator
//! let modulus = Modulus::new(127)?;
//! let mut shares = vector::share(vector.cells(), modulus, &mut rng)?;
//!
//! let mut first = vec![0; shares.second.len()];
//! shares.seed.generator().uniform(modulus, &mut first);
//! add(modulus, &mut shares.second, &first)?;
//! assert_eq!(shares.second, vector.cells());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::{fmt, path::Path};

use halo_core::privacy::{MaximumFrequency, VidSamplingInterval};
use halo_crypto::{
    secret::Secret,
    share::{self, Modulus, SEED_BYTES, Seed, ShareError},
};
use halo_sketch::frequency_vector::{FrequencyVector, VidIndexMap};
use rand_core::CryptoRng;
use zeroize::Zeroizing;
=======
//! From impressions to a frequency vector: how often each sampled person of a population was reached.
//!
//! All publishers number the population alike ([`VidIndexMap`]), so that their vectors can be added cell by cell.

use std::path::Path;

use halo_core::{
    measurement::Population,
    privacy::{MaximumFrequency, VidSamplingInterval},
};
use halo_sketch::frequency_vector::{FrequencyVector, VidIndexMap};
>>>>>>> main

use crate::{
    Error, events,
    progress::{Observer, Stage, report},
};

<<<<<<< HEAD
/// Impressions between two reports.
const BATCH: usize = 64 << 10;

/// Counts the impressions of a Parquet file (see [`events`]), a cell for every sampled person of the population. Memory
/// is bounded by the population, whatever the size of the file.
///
/// # Errors
/// As [`events::read_vids`]; [`Error::Sketch`] when a person is not of the population, or nobody of it is sampled;
/// [`Error::Interrupted`] when the observer asks to stop.
pub fn count_file(
    path: &Path,
    population: &VidIndexMap,
    interval: VidSamplingInterval,
    maximum_frequency: MaximumFrequency,
    observer: &mut dyn Observer,
) -> Result<FrequencyVector, Error> {
    let mut vector = FrequencyVector::new(population, interval, maximum_frequency)?;
    let mut impressions = 0;
    events::try_read_vids(path, |vids| {
        vector.add_all(population, vids)?;
        impressions += vids.len() as u64;
        report(observer, Stage::Counting, impressions, None)
    })?;
    Ok(vector)
}

/// Counts VIDs that are at hand, one for each impression.
///
/// # Errors
/// [`Error::Sketch`] and [`Error::Interrupted`] as [`count_file`].
pub fn count_vids(
    vids: &[u64],
    population: &VidIndexMap,
    interval: VidSamplingInterval,
    maximum_frequency: MaximumFrequency,
    observer: &mut dyn Observer,
) -> Result<FrequencyVector, Error> {
    let mut vector = FrequencyVector::new(population, interval, maximum_frequency)?;
    for (batch, first) in vids.chunks(BATCH).zip((0..).step_by(BATCH)) {
        report(observer, Stage::Counting, first, Some(vids.len() as u64))?;
        vector.add_all(population, batch)?;
    }
    Ok(vector)
}

/// The two shares of a vector: they add up to it modulo q, and each alone is uniform and says nothing.
pub struct Shares {
    /// What the first share is generated from: to be encrypted for one Duchy.
    pub seed: Seed,
    /// The second share, for the other Duchy: a byte a cell.
    pub second: Vec<u8>,
}

impl fmt::Debug for Shares {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shares").field("cells", &self.second.len()).finish_non_exhaustive()
    }
}

/// Cuts a vector into two shares.
///
/// `rng` must be a cryptographic generator that was seeded by the operating system: whoever knows its seed and the second
/// share can read the vector.
///
/// # Errors
/// [`ShareError::Value`] when a cell is not below the modulus.
pub fn share(cells: &[u8], modulus: Modulus, rng: &mut impl CryptoRng) -> Result<Shares, ShareError> {
    let mut bytes = Zeroizing::new([0; SEED_BYTES]);
    rng.fill_bytes(&mut *bytes);
    let seed = Seed::new(Secret::new(*bytes));
    let second = share::second_share(modulus, &seed, cells)?;
    Ok(Shares { seed, second })
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

    use super::*;
    use crate::progress::{Progress, Unobserved};

    #[test]
    fn people_outside_of_the_population_and_a_wish_to_stop_end_the_work() {
        let population = VidIndexMap::new(1..=20).unwrap();
        let frequency = MaximumFrequency::new(2).unwrap();
        let count = |vids: &[u64], observer: &mut dyn Observer| {
            count_vids(vids, &population, VidSamplingInterval::FULL, frequency, observer)
        };
        assert!(count(&[1, 21], &mut Unobserved).unwrap_err().to_string().contains("VID is 21"));
        let mut stop = |_: Progress| ControlFlow::Break(());
        assert!(matches!(count(&[1], &mut stop), Err(Error::Interrupted)));
        assert_eq!(count(&[], &mut Unobserved).unwrap().reach(), 0);
    }

    #[test]
    fn a_cell_beyond_the_modulus_is_named_and_shares_are_not_shown() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let modulus = Modulus::new(7).unwrap();
        assert!(share(&[1, 7], modulus, &mut rng).unwrap_err().to_string().contains("element 1 is 7"));
        let shares = share(&[1, 6], modulus, &mut rng).unwrap();
        assert_eq!(format!("{shares:?}"), "Shares { cells: 2, .. }");
    }
=======
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
                return Err(Error::OutsidePopulation { path, row: impressions, vid: *vid, population });
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
>>>>>>> main
}
