//! Frequency vectors: how often a publisher has reached each person of a population that all publishers number alike.
//!
//! ```
//! use halo_core::privacy::{MaximumFrequency, VidSamplingInterval};
//! use halo_sketch::frequency_vector::{FrequencyVector, VidIndexMap};
//!
//! let population = VidIndexMap::new(1..=20)?;
//! let mut vector =
//!     FrequencyVector::new(&population, VidSamplingInterval::FULL, MaximumFrequency::new(3)?)?;
//! for vid in [4, 4, 4, 4, 9] {
//!     vector.add(&population, vid, 1)?;
//! }
//! assert_eq!(vector.cells()[1..3], [3, 1]); // VID 4 has index 1, VID 9 index 2
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::fmt;
use std::ops::Range;

use halo_core::privacy::{MaximumFrequency, VidSamplingInterval};

use crate::{Error, fingerprint::farm_fingerprint64};

/// What a VID is hashed with, so that its place says nothing: 1618033 + 20240417.
const SALT: u64 = 21_858_450;
/// VIDs are below this.
const VID_END: u64 = (1 << 31) - 1;

/// The places of a population's VIDs, the same at every publisher (protocols 3.2): ascending by signed
/// FarmHash Fingerprint64 of the VID's eight big-endian bytes and the salt's, then by VID.
///
/// It takes 8 bytes a VID, and 24 while it is made.
#[derive(Clone, Debug)]
pub struct VidIndexMap {
    /// Ascending.
    vids: Vec<u32>,
    /// The place of each.
    places: Vec<u32>,
}

/// The hash by which a VID finds its place.
fn place_hash(vid: u64) -> i64 {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&vid.to_be_bytes());
    bytes[8..].copy_from_slice(&SALT.to_be_bytes());
    farm_fingerprint64(&bytes).cast_signed()
}

impl VidIndexMap {
    /// Numbers a population, in any order.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] when it is empty, a VID is 2^31 − 1 or above, or one is there twice.
    pub fn new(vids: impl IntoIterator<Item = u64>) -> Result<Self, Error> {
        let refuse = |value: String, expected| Error::OutOfRange { name: "population", value, expected };
        let mut hashed = Vec::new();
        for vid in vids {
            if vid >= VID_END {
                return Err(refuse(format!("one with VID {vid}"), "of VIDs below 2^31 - 1"));
            }
            hashed.push((place_hash(vid), vid as u32));
        }
        if hashed.is_empty() {
            return Err(refuse("empty".to_owned(), "at least one VID"));
        }
        hashed.sort_unstable();
        let mut numbered: Vec<(u32, u32)> = hashed.iter().zip(0..).map(|((_, vid), place)| (*vid, place)).collect();
        drop(hashed);
        numbered.sort_unstable();
        if let Some(pair) = numbered.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(refuse(format!("one with VID {} twice", pair[0].0), "of different VIDs"));
        }
        let (vids, places) = numbered.into_iter().unzip();
        Ok(Self { vids, places })
    }

    /// Number of VIDs, at least 1.
    #[must_use]
    pub fn size(&self) -> usize {
        self.vids.len()
    }

    /// The place of a VID, from 0; `None` for one outside of the population.
    #[must_use]
    pub fn index(&self, vid: u64) -> Option<usize> {
        let vid = u32::try_from(vid).ok()?;
        // A population without gaps is the usual one.
        let guess = vid.checked_sub(self.vids[0])? as usize;
        let found = if self.vids.get(guess) == Some(&vid) { guess } else { self.vids.binary_search(&vid).ok()? };
        Some(self.places[found] as usize)
    }
}

/// Version of the stored form; its first byte.
const VERSION: u8 = 1;
const HEADER_BYTES: usize = 1 + 1 + 2 * 4 + 8;

/// How often each sampled person was reached, at most F times.
#[derive(Clone, PartialEq)]
pub struct FrequencyVector {
    shape: Shape,
    cells: Vec<u8>,
}

/// What all vectors of a measurement have in common.
#[derive(Clone, Debug, PartialEq)]
struct Shape {
    population: usize,
    interval: VidSamplingInterval,
    /// Places that are sampled: those from the interval's start on, and those from 0 on where it goes round the end.
    ranges: [Range<usize>; 2],
    maximum_frequency: MaximumFrequency,
}

impl Shape {
    fn new(
        population: usize,
        interval: VidSamplingInterval,
        maximum_frequency: MaximumFrequency,
    ) -> Result<Self, Error> {
        let border = |share: f32| (population as f32 * share) as usize;
        let (start, end) = (border(interval.start()), border(interval.start() + interval.width()));
        let ranges = [start..end.min(population), 0..end.saturating_sub(population)];
        let shape = Self { population, interval, ranges, maximum_frequency };
        if shape.length() == 0 {
            return Err(Error::OutOfRange {
                name: "sampled population",
                value: format!("nobody of {population}"),
                expected: "at least one person; use a wider sampling interval or a larger population",
            });
        }
        Ok(shape)
    }

    fn length(&self) -> usize {
        self.ranges.iter().map(ExactSizeIterator::len).sum()
    }

    /// The cell of a place, if it is sampled.
    fn cell(&self, place: usize) -> Option<usize> {
        let [primary, wrapped] = &self.ranges;
        if primary.contains(&place) {
            Some(place - primary.start)
        } else {
            wrapped.contains(&place).then(|| primary.len() + place)
        }
    }

    fn cap(&self) -> u64 {
        u64::from(self.maximum_frequency.get())
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { population, interval, maximum_frequency, .. } = self;
        let (start, width) = (interval.start(), interval.width());
        write!(f, "{population} people, sampling from {start} of width {width}, maximum frequency {maximum_frequency}")
    }
}

impl FrequencyVector {
    /// A vector of zeros for the sampled part of a population. All publishers of a measurement get the same length,
    /// because the borders are computed in float32 as everywhere else.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] when nobody of the population is sampled.
    pub fn new(
        population: &VidIndexMap,
        interval: VidSamplingInterval,
        maximum_frequency: MaximumFrequency,
    ) -> Result<Self, Error> {
        let shape = Shape::new(population.size(), interval, maximum_frequency)?;
        Ok(Self { cells: vec![0; shape.length()], shape })
    }

    /// Counts impressions of a person. Who is not sampled is not counted; who is not of the population is an error.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] names the VID; nothing is changed. [`Error::Incompatible`] for another population.
    pub fn add(&mut self, population: &VidIndexMap, vid: u64, impressions: u64) -> Result<(), Error> {
        self.check_population(population)?;
        let place = population.index(vid).ok_or_else(|| Error::OutOfRange {
            name: "VID",
            value: vid.to_string(),
            expected: "one of the population",
        })?;
        if let Some(cell) = self.shape.cell(place) {
            let sum = impressions.saturating_add(u64::from(self.cells[cell])).min(self.shape.cap());
            self.cells[cell] = sum as u8;
        }
        Ok(())
    }

    /// Counts one impression for every element, as often as a VID occurs.
    ///
    /// # Errors
    /// As [`Self::add`]; what came before the VID that is named has been counted.
    pub fn add_all(&mut self, population: &VidIndexMap, vids: &[u64]) -> Result<(), Error> {
        vids.iter().try_for_each(|vid| self.add(population, *vid, 1))
    }

    /// Adds another vector of the same population, such as that of another part of the impressions. Sums above F are F.
    ///
    /// # Errors
    /// [`Error::Incompatible`] when population size, interval or maximum frequency differ; nothing is changed then.
    pub fn merge(&mut self, other: &Self) -> Result<(), Error> {
        if self.shape != other.shape {
            return Err(Error::Incompatible { left: self.shape.to_string(), right: other.shape.to_string() });
        }
        let cap = self.shape.cap();
        for (cell, other) in self.cells.iter_mut().zip(&other.cells) {
            *cell = (u64::from(*cell) + u64::from(*other)).min(cap) as u8;
        }
        Ok(())
    }

    fn check_population(&self, population: &VidIndexMap) -> Result<(), Error> {
        if population.size() == self.shape.population {
            return Ok(());
        }
        let right = format!("a population of {} people", population.size());
        Err(Error::Incompatible { left: self.shape.to_string(), right })
    }

    /// The cells: the primary range, then what goes round the end.
    #[must_use]
    pub fn cells(&self) -> &[u8] {
        &self.cells
    }

    /// How many people the population has, sampled or not.
    #[must_use]
    pub const fn population(&self) -> usize {
        self.shape.population
    }

    /// Which of them are sampled.
    #[must_use]
    pub const fn interval(&self) -> VidSamplingInterval {
        self.shape.interval
    }

    /// F.
    #[must_use]
    pub const fn maximum_frequency(&self) -> MaximumFrequency {
        self.shape.maximum_frequency
    }

    /// How many of the sampled people have been reached.
    #[must_use]
    pub fn reach(&self) -> u64 {
        self.cells.iter().filter(|cell| **cell > 0).count() as u64
    }

    /// How many of the sampled people have been reached 1, 2, …, F − 1 times, and F times or more.
    #[must_use]
    pub fn histogram(&self) -> Vec<u64> {
        let mut histogram = vec![0; self.shape.maximum_frequency.get() as usize];
        for cell in self.cells.iter().filter(|cell| **cell > 0) {
            histogram[usize::from(*cell) - 1] += 1;
        }
        histogram
    }

    /// The stored form (version 1): version byte; F; start and width of the interval (float32); population size (8
    /// bytes); then the cells, a byte each. Numbers are little-endian.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let Shape { population, interval, maximum_frequency, .. } = &self.shape;
        let mut bytes = Vec::with_capacity(HEADER_BYTES + self.cells.len());
        bytes.extend([VERSION, maximum_frequency.get() as u8]);
        bytes.extend(interval.start().to_le_bytes());
        bytes.extend(interval.width().to_le_bytes());
        bytes.extend((*population as u64).to_le_bytes());
        bytes.extend(&self.cells);
        bytes
    }

    /// Reads [`Self::to_bytes`] back.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for an unknown version, left-over or missing bytes, parameters that no vector has, and cells
    /// above F.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let corrupt = |reason, offset| Error::Corrupt { reason, offset };
        match bytes.first() {
            Some(&VERSION) => {}
            Some(_) => return Err(corrupt("the version is unknown, 1 is expected", 0)),
            None => return Err(corrupt("there are no bytes", 0)),
        }
        let Some((header, cells)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
            return Err(corrupt("the bytes end too early", bytes.len()));
        };
        let float = |at: usize| f32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let [.., p0, p1, p2, p3, p4, p5, p6, p7] = *header;
        let population = u64::from_le_bytes([p0, p1, p2, p3, p4, p5, p6, p7]);
        let maximum_frequency =
            MaximumFrequency::new(u32::from(header[1])).map_err(|_| corrupt("the maximum frequency is 0", 1))?;
        let interval = VidSamplingInterval::new(float(2), float(6))
            .map_err(|_| corrupt("the sampling interval does not lie on the circle", 2))?;
        let population = usize::try_from(population)
            .ok()
            .filter(|population| *population as u64 <= VID_END)
            .ok_or_else(|| corrupt("the population is larger than there are VIDs", 10))?;
        let shape = Shape::new(population, interval, maximum_frequency)
            .map_err(|_| corrupt("nobody of the population is sampled", 10))?;
        if cells.len() != shape.length() {
            return Err(corrupt("the length does not fit the population and the interval", HEADER_BYTES));
        }
        match cells.iter().position(|cell| u64::from(*cell) > shape.cap()) {
            Some(position) => Err(corrupt("a cell is above the maximum frequency", HEADER_BYTES + position)),
            None => Ok(Self { shape, cells: cells.to_vec() }),
        }
    }
}

impl fmt::Debug for FrequencyVector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Cells say who was reached: only their number is shown.
        write!(f, "FrequencyVector({}, {} cells)", self.shape, self.cells.len())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn places_are_those_of_the_reference() {
        assert_eq!(place_hash(1), 7_291_877_513_898_648_417);
        assert_eq!(place_hash(2), 6_083_786_553_337_411_393);
        assert_eq!(place_hash(3), -1_925_089_391_325_138_332);
        let map = VidIndexMap::new(1..=20).unwrap();
        let order = [15, 4, 9, 10, 20, 5, 11, 3, 12, 19, 16, 6, 14, 8, 2, 18, 7, 1, 13, 17];
        for (place, vid) in order.into_iter().enumerate() {
            assert_eq!(map.index(vid), Some(place));
        }
        assert_eq!((map.index(0), map.index(21), map.index(1 << 40)), (None, None, None));
    }

    #[test]
    fn populations_that_cannot_be_numbered_are_refused() {
        assert!(VidIndexMap::new([]).unwrap_err().to_string().contains("empty"));
        assert!(VidIndexMap::new([1, 2, 1]).unwrap_err().to_string().contains("VID 1 twice"));
        assert!(VidIndexMap::new([VID_END]).unwrap_err().to_string().contains("2147483647"));
        assert!(VidIndexMap::new([VID_END - 1]).is_ok());
    }

    fn frequency(value: u32) -> MaximumFrequency {
        MaximumFrequency::new(value).unwrap()
    }

    /// The reference's builder counts by place; so do these.
    fn vector(interval: (f32, f32), cap: u32, counts: &[(usize, u64)]) -> Vec<u8> {
        let population = VidIndexMap::new(1..=10).unwrap();
        let interval = VidSamplingInterval::new(interval.0, interval.1).unwrap();
        let mut vector = FrequencyVector::new(&population, interval, frequency(cap)).unwrap();
        for (place, count) in counts {
            let vid = (1..=10).find(|vid| population.index(*vid) == Some(*place)).unwrap();
            vector.add(&population, vid, *count).unwrap();
        }
        vector.cells().to_vec()
    }

    #[test]
    fn vectors_are_those_of_the_reference() {
        assert_eq!(vector((0.3, 0.5), 1, &[]).len(), 5);
        assert_eq!(vector((0.0, 1.0), 1, &[(0, 2), (1, 1)]), [1, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(vector((0.0, 1.0), 3, &[(0, 4), (1, 2), (8, 3)]), [3, 2, 0, 0, 0, 0, 0, 0, 3, 0]);
        // Round the end: places 7, 8, 9, then 0 and 1. Place 4 is not sampled.
        assert_eq!(vector((0.7, 0.5), 9, &[(7, 1), (9, 2), (0, 3), (1, 4), (4, 9)]), [1, 0, 2, 3, 4]);
    }

    #[test]
    fn people_outside_of_the_population_are_named_and_nobody_sampled_is_said() {
        let population = VidIndexMap::new(1..=10).unwrap();
        let mut vector = FrequencyVector::new(&population, VidSamplingInterval::FULL, frequency(2)).unwrap();
        assert!(vector.add(&population, 11, 1).unwrap_err().to_string().contains("VID is 11"));
        assert_eq!(vector.reach(), 0);
        let narrow = VidSamplingInterval::new(0.5, 0.01).unwrap();
        assert!(FrequencyVector::new(&population, narrow, frequency(2)).is_err());
    }

    fn sample() -> FrequencyVector {
        let population = VidIndexMap::new(1..=20).unwrap();
        let interval = VidSamplingInterval::new(0.75, 0.5).unwrap();
        let mut vector = FrequencyVector::new(&population, interval, frequency(3)).unwrap();
        vector.add_all(&population, &[15, 15, 15, 15, 4, 9, 2, 18, 18, 7]).unwrap();
        vector
    }

    /// Version 1 keeps decoding: the file was written once and never changes.
    #[test]
    fn golden_file() {
        let golden = include_bytes!("../tests/golden/frequency_vector_v1.bin");
        assert_eq!(sample().to_bytes(), golden);
        assert_eq!(FrequencyVector::from_bytes(golden).unwrap(), sample());
        assert_eq!(sample().cells(), [2, 1, 0, 0, 0, 3, 1, 1, 0, 0]);
        assert_eq!((sample().reach(), sample().histogram()), (5, vec![3, 1, 1]));
        assert!(!format!("{:?}", sample()).contains("[2, 1"));
    }

    #[test]
    fn what_is_no_vector_is_refused() {
        let good = sample().to_bytes();
        for length in 0..good.len() {
            assert!(FrequencyVector::from_bytes(&good[..length]).is_err(), "cut to {length}");
        }
        let change = |at: usize, with: &[u8]| {
            let mut bad = good.clone();
            bad[at..at + with.len()].copy_from_slice(with);
            FrequencyVector::from_bytes(&bad).unwrap_err().to_string()
        };
        assert!(FrequencyVector::from_bytes(&[&good[..], &[0]].concat()).unwrap_err().to_string().contains("length"));
        assert!(change(0, &[2]).contains("version"));
        assert!(change(1, &[0]).contains("maximum frequency is 0"));
        assert!(change(1, &[2]).contains("above the maximum frequency"));
        assert!(change(2, &f32::NAN.to_le_bytes()).contains("interval"));
        assert!(change(10, &u64::MAX.to_le_bytes()).contains("larger than there are VIDs"));
        assert!(change(10, &1_000_000_u64.to_le_bytes()).contains("length"));
        assert!(change(10, &0_u64.to_le_bytes()).contains("nobody"));
    }

    #[test]
    fn parts_add_up_to_the_whole_and_others_do_not() {
        let population = VidIndexMap::new(1..=20).unwrap();
        let interval = VidSamplingInterval::new(0.75, 0.5).unwrap();
        let mut first = FrequencyVector::new(&population, interval, frequency(3)).unwrap();
        let mut second = first.clone();
        first.add_all(&population, &[15, 15, 4, 9, 2]).unwrap();
        second.add_all(&population, &[15, 15, 18, 18, 7]).unwrap();
        first.merge(&second).unwrap();
        assert_eq!(first, sample());
        let other = FrequencyVector::new(&population, interval, frequency(2)).unwrap();
        assert!(first.merge(&other).unwrap_err().to_string().contains("maximum frequency 2"));
        let larger = VidIndexMap::new(1..=21).unwrap();
        assert!(first.add(&larger, 1, 1).unwrap_err().to_string().contains("21 people"));
    }

    /// An interval that goes all the way round counts nobody twice, and everybody but for one at its border, which float32
    /// may round down, or up: then a cell stays empty. All publishers round alike, the reference's too.
    #[test]
    fn a_full_circle_counts_everybody() {
        for size in 1..300 {
            let population = VidIndexMap::new(0..size).unwrap();
            for start in 0..100 {
                let interval = VidSamplingInterval::new(start as f32 / 100.0, 1.0).unwrap();
                let mut vector = FrequencyVector::new(&population, interval, frequency(1)).unwrap();
                (0..size).for_each(|vid| vector.add(&population, vid, 1).unwrap());
                let (cells, reach) = (vector.cells().len() as u64, vector.reach());
                assert!(cells.abs_diff(size) <= 1, "{cells} cells for {size} people from {start} %");
                assert_eq!(reach, cells.min(size), "{size} people from {start} %");
            }
        }
    }

    /// 50·(0.06 + 1) is just below 53 in float32, so that one of 50 people is not sampled; 75·(0.84 + 1) is 138 where the
    /// interval began at 62.
    #[test]
    fn borders_are_those_of_float32() {
        for (people, start, cells) in [(50, 0.0, 50), (50, 0.05, 50), (50, 0.06, 49), (75, 0.84, 76)] {
            let population = VidIndexMap::new(0..people).unwrap();
            let interval = VidSamplingInterval::new(start, 1.0).unwrap();
            let vector = FrequencyVector::new(&population, interval, frequency(1)).unwrap();
            assert_eq!(vector.cells().len(), cells, "{people} people from {start}");
        }
    }

    proptest! {
        #[test]
        fn gaps_do_not_matter_to_lookups(vids in prop::collection::btree_set(0u64..5000, 1..200)) {
            let map = VidIndexMap::new(vids.iter().copied()).unwrap();
            let mut places: Vec<usize> = vids.iter().map(|vid| map.index(*vid).unwrap()).collect();
            places.sort_unstable();
            prop_assert_eq!(places, (0..vids.len()).collect::<Vec<_>>());
            let mut order: Vec<u64> = vids.iter().copied().collect();
            order.sort_by_key(|vid| (place_hash(*vid), *vid));
            for (place, vid) in order.into_iter().enumerate() {
                prop_assert_eq!(map.index(vid), Some(place));
            }
            for vid in (0..5000).filter(|vid| !vids.contains(vid)) {
                prop_assert_eq!(map.index(vid), None);
            }
        }
    }
}
