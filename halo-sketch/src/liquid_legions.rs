//! The Liquid Legions sketch of one publisher, and the truth that a computation over several must reproduce.
//!
//! A sketch has m registers; a person falls into one of them with an exponentially decaying probability. A register holds
//! a *key* (a uniform hash of the person: equal keys stay, different ones destroy the register) and a *count* (the sum of
//! the person's impressions). The number of active registers estimates reach, the counts of undestroyed registers are a
//! sample of frequencies (specification: protocols 1.1, science 1.1).

mod cells;
mod codec;
mod places;
mod union;

use std::fmt;

use rayon::prelude::*;

use crate::error::Error;
use crate::fingerprint::{Distribution, vid_fingerprint};

pub use union::{ClearUnion, clear_union};

use cells::{Cell, Cells};
use places::Places;

/// VIDs that are hashed at once: large enough to pay for the threads, small enough to stay in the cache.
const BLOCK: usize = 16 * 1024;
/// VIDs that a thread takes at a time.
const SLICE: usize = BLOCK / 4;

/// The shape of a sketch; all publishers of a measurement use the same one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Params {
    decay_rate: f64,
    size: u64,
    sampling_indicator_size: u64,
}

impl Params {
    /// Decay rates up to here are accepted: e^-36 is the resolution of the hash's float64, so at larger rates the last
    /// registers could never be hit and no estimate would hold.
    pub const MAX_DECAY_RATE: f64 = 36.0;
    /// Largest number of registers.
    pub const MAX_SIZE: u64 = 1 << 32;

    /// A sketch with `size` registers (m, 1 to 2^32) that decays with `decay_rate` (a, above 1 and at most 36) and has keys
    /// below `sampling_indicator_size` (1 to 2^63).
    ///
    /// # Errors
    /// [`Error::OutOfRange`] names the number that does not fit.
    pub fn new(decay_rate: f64, size: u64, sampling_indicator_size: u64) -> Result<Self, Error> {
        if !(decay_rate > 1.0 && decay_rate <= Self::MAX_DECAY_RATE) {
            return Err(Error::out_of_range("decay rate", decay_rate, "above 1 and at most 36"));
        }
        if !(1..=Self::MAX_SIZE).contains(&size) {
            return Err(Error::out_of_range("sketch size", size, "between 1 and 4294967296 registers"));
        }
        if !(1..=1 << 63).contains(&sampling_indicator_size) {
            return Err(Error::out_of_range(
                "sampling indicator size",
                sampling_indicator_size,
                "between 1 and 9223372036854775808",
            ));
        }
        Ok(Self { decay_rate, size, sampling_indicator_size })
    }

    /// a: how fast the probability of a register falls over the sketch, by e^a in all.
    #[must_use]
    pub const fn decay_rate(&self) -> f64 {
        self.decay_rate
    }

    /// m: the number of registers.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The number of different keys.
    #[must_use]
    pub const fn sampling_indicator_size(&self) -> u64 {
        self.sampling_indicator_size
    }

    /// The register of a VID.
    #[must_use]
    pub fn index(&self, vid: u64) -> u64 {
        Places::new(*self).exact_index(vid_fingerprint(vid, Distribution::Index))
    }

    /// The key of a VID.
    #[must_use]
    pub fn key(&self, vid: u64) -> u64 {
        vid_fingerprint(vid, Distribution::SamplingIndicator) % self.sampling_indicator_size
    }
}

impl fmt::Display for Params {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "decay rate {}, {} registers, sampling indicator size {}",
            self.decay_rate, self.size, self.sampling_indicator_size
        )
    }
}

/// Who is in a register.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RegisterKey {
    /// Only people with this key.
    Unique(u64),
    /// People with different keys: the register still counts as active, its count means nothing.
    Destroyed,
}

impl RegisterKey {
    /// The number that travels: key + 1, or 0 for a destroyed register.
    #[must_use]
    pub const fn proto_value(self) -> u64 {
        match self {
            Self::Unique(key) => key + 1,
            Self::Destroyed => 0,
        }
    }

    const fn from_proto_value(value: u64) -> Self {
        match value.checked_sub(1) {
            Some(key) => Self::Unique(key),
            None => Self::Destroyed,
        }
    }

    /// Equal keys keep the key, different ones destroy it.
    #[must_use]
    pub fn combine(self, other: Self) -> Self {
        if self == other { self } else { Self::Destroyed }
    }
}

/// An active register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Register {
    /// Position in the sketch, below its size.
    pub index: u64,
    /// Who is in it.
    pub key: RegisterKey,
    /// Impressions of the people in it, at least 1.
    pub count: u64,
}

/// A sketch under construction or complete.
///
/// Its memory does not depend on the number of impressions: 16 bytes for each register up to the highest active one, rounded
/// up to a power of two (2 MiB for the usual 100,000 registers). Of the registers from 2^20 on only the active ones take
/// memory, about 40 bytes each. The result does not depend on the order of insertion, on how the input is
/// cut into slices, or on the number of threads.
///
/// ```
/// use halo_sketch::liquid_legions::{LiquidLegions, Params, RegisterKey};
///
/// let mut sketch = LiquidLegions::new(Params::new(12.0, 100_000, 10_000_000)?);
/// sketch.insert_slice(&[1, 2, 1]);
/// let first = sketch.registers().next().expect("two people are in it");
/// assert_eq!((first.index, first.key, first.count), (2027, RegisterKey::Unique(1_311_850), 2));
/// # Ok::<(), halo_sketch::Error>(())
/// ```
#[derive(Clone, PartialEq)]
pub struct LiquidLegions {
    params: Params,
    cells: Cells,
}

impl LiquidLegions {
    /// An empty sketch.
    #[must_use]
    pub const fn new(params: Params) -> Self {
        Self { params, cells: Cells::new() }
    }

    /// A sketch of these registers, in any order. Registers with the same index are joined, as [`Self::merge`] does.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] for an index or a key that the parameters do not have, and for a count of 0.
    pub fn from_registers(params: Params, registers: impl IntoIterator<Item = Register>) -> Result<Self, Error> {
        let mut sketch = Self::new(params);
        for Register { index, key, count } in registers {
            if index >= params.size {
                return Err(Error::out_of_range("register index", index, "below the number of registers"));
            }
            if let RegisterKey::Unique(key) = key
                && key >= params.sampling_indicator_size
            {
                return Err(Error::out_of_range("register key", key, "below the sampling indicator size"));
            }
            if count == 0 {
                return Err(Error::out_of_range("register count", count, "at least 1"));
            }
            sketch.cells.add(index, Cell::new(key, count));
        }
        Ok(sketch)
    }

    /// The shape of the sketch.
    #[must_use]
    pub const fn params(&self) -> &Params {
        &self.params
    }

    /// Adds one impression of one person. [`Self::insert_slice`] is faster for many.
    pub fn insert(&mut self, vid: u64) {
        self.insert_slice(&[vid]);
    }

    /// Adds one impression for every element, as often as a VID occurs; hashes in parallel.
    pub fn insert_slice(&mut self, vids: &[u64]) {
        let places = Places::new(self.params);
        let cells = &mut self.cells;
        let mut add = |index, key| cells.add(index, Cell::new(RegisterKey::Unique(key), 1));
        if vids.len() <= BLOCK {
            return places.each(vids, add);
        }
        // A few blocks per thread at a time, so that memory stays bounded for slices of any length.
        for part in vids.chunks(BLOCK * rayon::current_num_threads()) {
            let hash = |slice: &[u64]| {
                let mut hashed = Vec::with_capacity(slice.len());
                places.each(slice, |index, key| hashed.push((index, key)));
                hashed
            };
            let hashed: Vec<Vec<(u64, u64)>> = part.par_chunks(SLICE).map(hash).collect();
            hashed.iter().flatten().for_each(|(index, key)| add(*index, *key));
        }
    }

    /// Adds one impression for every VID of a stream, buffering a bounded number of them.
    pub fn insert_all(&mut self, vids: impl IntoIterator<Item = u64>) {
        let mut vids = vids.into_iter();
        let mut buffer = Vec::new();
        loop {
            buffer.clear();
            buffer.extend(vids.by_ref().take(BLOCK * rayon::current_num_threads()));
            if buffer.is_empty() {
                return;
            }
            self.insert_slice(&buffer);
        }
    }

    /// Adds everything that `other` has seen: afterwards this is the sketch of both inputs.
    ///
    /// # Errors
    /// [`Error::Incompatible`] if the parameters differ; nothing is changed then.
    pub fn merge(&mut self, other: &Self) -> Result<(), Error> {
        if self.params != other.params {
            return Err(Error::Incompatible { left: self.params.to_string(), right: other.params.to_string() });
        }
        other.cells.iter().for_each(|(index, cell)| self.cells.add(index, cell));
        Ok(())
    }

    /// The number of active registers.
    #[must_use]
    pub fn active(&self) -> usize {
        self.cells.len()
    }

    /// The active registers, ascending by index.
    pub fn registers(&self) -> impl ExactSizeIterator<Item = Register> {
        self.cells.iter().map(|(index, cell)| Register { index, key: cell.key(), count: cell.count() })
    }

    /// The stored form (version 1): version byte; decay rate (float64), size, sampling indicator size, number of
    /// registers; then per register, ascending by index, index, key + 1 (0 if destroyed) and count. All little-endian,
    /// 8 bytes each.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads [`Self::to_bytes`] back.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for an unknown version, left-over or missing bytes, and registers that no sketch can have;
    /// [`Error::OutOfRange`] for impossible parameters.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        codec::decode(bytes)
    }
}

impl fmt::Debug for LiquidLegions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Registers are hashes of people: only their number is shown.
        write!(f, "LiquidLegions({}, {} active)", self.params, self.cells.len())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn params() -> Params {
        Params::new(12.0, 100_000, 10_000_000).unwrap()
    }

    #[test]
    fn whole_sketch_vectors() {
        let wide = Params::new(5.6, 1_000_000, 10_000_000).unwrap();
        for (vid, at_wide, at_usual, key) in [
            (1, 43_264, 2027, 1_311_850),
            (2, 130_354, 6116, 1_528_384),
            (3, 74_407, 3488, 3_408_977),
            (100, 214_781, 10_095, 5_196_160),
            (12_345, 192_946, 9064, 95_385),
            (1_000_000, 560_864, 26_886, 8_080_041),
        ] {
            assert_eq!(
                (wide.index(vid), params().index(vid), params().key(vid)),
                (at_wide, at_usual, key),
                "vid {vid}"
            );
        }
    }

    #[test]
    fn parameters_out_of_range_are_refused_by_name() {
        for (rate, size, indicator, name) in [
            (1.0, 10, 10, "decay rate"),
            (f64::NAN, 10, 10, "decay rate"),
            (f64::INFINITY, 10, 10, "decay rate"),
            (36.1, 10, 10, "decay rate"),
            (12.0, 0, 10, "sketch size"),
            (12.0, (1 << 32) + 1, 10, "sketch size"),
            (12.0, 10, 0, "sampling indicator size"),
            (12.0, 10, u64::MAX, "sampling indicator size"),
        ] {
            let error = Params::new(rate, size, indicator).unwrap_err().to_string();
            assert!(error.starts_with(name), "{error}");
        }
    }

    #[test]
    fn equal_keys_stay_and_different_ones_destroy() {
        assert_eq!(RegisterKey::Unique(123).combine(RegisterKey::Unique(123)), RegisterKey::Unique(123));
        assert_eq!(RegisterKey::Unique(1).combine(RegisterKey::Unique(2)), RegisterKey::Destroyed);
        assert_eq!(RegisterKey::Destroyed.combine(RegisterKey::Unique(2)), RegisterKey::Destroyed);
        assert_eq!(RegisterKey::Unique(0).proto_value(), 1);
        assert_eq!(RegisterKey::Destroyed.proto_value(), 0);
        // Two people in the only register there is.
        let mut sketch = LiquidLegions::new(Params::new(2.0, 1, 1000).unwrap());
        sketch.insert_all([1, 1, 2]);
        let only: Vec<Register> = sketch.registers().collect();
        assert_eq!(only, [Register { index: 0, key: RegisterKey::Destroyed, count: 3 }]);
    }

    #[test]
    fn registers_make_a_sketch() {
        let params = Params::new(2.0, 10, 100).unwrap();
        let register = |index, key, count| Register { index, key, count };
        let (unique, destroyed) = (RegisterKey::Unique, RegisterKey::Destroyed);
        let of = |registers: &[Register]| LiquidLegions::from_registers(params, registers.iter().copied());
        let found = of(&[register(3, unique(5), 2), register(1, unique(0), 1), register(3, unique(5), 4)]).unwrap();
        let expected = [register(1, unique(0), 1), register(3, unique(5), 6)];
        assert_eq!(found.registers().collect::<Vec<_>>(), expected);
        let found = of(&[register(3, unique(5), 2), register(3, unique(6), 1), register(4, destroyed, 1)]).unwrap();
        assert_eq!(found.registers().collect::<Vec<_>>(), [register(3, destroyed, 3), register(4, destroyed, 1)]);
        for (bad, name) in [
            (register(10, unique(1), 1), "register index is 10"),
            (register(1, unique(100), 1), "register key is 100"),
            (register(1, unique(1), 0), "register count is 0"),
        ] {
            assert!(of(&[bad]).unwrap_err().to_string().starts_with(name));
        }
    }

    #[test]
    fn other_parameters_do_not_merge() {
        let mut sketch = LiquidLegions::new(params());
        let other = LiquidLegions::new(Params::new(12.0, 100_000, 10).unwrap());
        assert!(matches!(sketch.merge(&other), Err(Error::Incompatible { .. })));
    }

    #[test]
    fn debug_shows_no_register() {
        let mut sketch = LiquidLegions::new(params());
        sketch.insert(1);
        let shown = format!("{sketch:?}");
        assert!(shown.contains("1 active") && !shown.contains("2027"), "{shown}");
    }

    /// Hashing many at once is no other function than hashing one.
    #[test]
    fn a_slice_is_its_vids_one_by_one() {
        let vids: Vec<u64> = (0..40_000_u64).map(|i| i.wrapping_mul(i) << (i % 50)).collect();
        for params in [params(), Params::new(5.6, 1_500_000, 1 << 63).unwrap(), Params::new(36.0, 7, 1).unwrap()] {
            let register = |vid: &u64| {
                let key = RegisterKey::Unique(params.key(*vid));
                Register { index: params.index(*vid), key, count: 1 }
            };
            let expected = LiquidLegions::from_registers(params, vids.iter().map(register)).unwrap();
            let mut whole = LiquidLegions::new(params);
            whole.insert_slice(&vids);
            assert!(whole == expected);
            let mut parts = LiquidLegions::new(params);
            vids.chunks(333).for_each(|part| parts.insert_slice(part));
            assert!(parts == expected);
        }
    }

    /// Thread counts and slices do not matter: a long slice takes the parallel path, the stream the sequential one.
    #[test]
    fn insertion_is_deterministic() {
        let vids: Vec<u64> = (0..150_000u64).map(|i| i.wrapping_mul(2_654_435_761) % 60_000).collect();
        let mut whole = LiquidLegions::new(params());
        let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        one.install(|| whole.insert_slice(&vids));
        let mut parts = LiquidLegions::new(params());
        let four = rayon::ThreadPoolBuilder::new().num_threads(4).build().unwrap();
        four.install(|| parts.insert_all(vids.iter().rev().copied()));
        assert!(whole == parts);
        assert_eq!(whole.registers().map(|r| r.count).sum::<u64>(), 150_000);
    }

    proptest! {
        #[test]
        fn merging_is_inserting_both(left in proptest::collection::vec(0u64..500, 0..200), right in proptest::collection::vec(0u64..500, 0..200)) {
            let params = Params::new(2.0, 200, 50).unwrap();
            let sketch = |vids: &[u64]| { let mut s = LiquidLegions::new(params); s.insert_slice(vids); s };
            let both = sketch(&[left.clone(), right.clone()].concat());
            let mut a = sketch(&left);
            a.merge(&sketch(&right)).unwrap();
            let mut b = sketch(&right);
            b.merge(&sketch(&left)).unwrap();
            prop_assert!(a == both);
            prop_assert!(b == both);
            prop_assert!(LiquidLegions::from_bytes(&both.to_bytes()).unwrap() == both);
        }
    }
}
