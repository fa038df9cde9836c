//! The registers of a sketch in memory.

use std::collections::BTreeMap;

use super::RegisterKey;

/// Registers below this are in an array. It is more than sketches have in practice, and 16 MiB at most.
const LOW: u64 = 1 << 20;

/// What is in a register; nothing while its count is 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Cell {
    /// As it travels: key + 1, or 0 for a destroyed register.
    key: u64,
    count: u64,
}

impl Cell {
    pub(super) const fn new(key: RegisterKey, count: u64) -> Self {
        Self { key: key.proto_value(), count }
    }

    pub(super) const fn key(&self) -> RegisterKey {
        RegisterKey::from_proto_value(self.key)
    }

    pub(super) const fn count(&self) -> u64 {
        self.count
    }

    const fn is_active(&self) -> bool {
        self.count > 0
    }

    /// Equal keys keep the key, different ones destroy it (as [`RegisterKey::combine`] has it); counts are added.
    const fn add(&mut self, other: Self) {
        let key = if self.key == other.key { other.key } else { RegisterKey::Destroyed.proto_value() };
        self.key = if self.is_active() { key } else { other.key };
        self.count = self.count.saturating_add(other.count);
    }
}

/// Cells by index. An impression costs an access to an array, for which nothing is looked up.
#[derive(Clone, Default)]
pub(super) struct Cells {
    /// Those below [`LOW`], up to the highest that was ever needed.
    low: Vec<Cell>,
    /// The active ones of the others: sketches of more than [`LOW`] registers pay for a map, and not for all of their registers.
    high: BTreeMap<u64, Cell>,
    active: usize,
}

impl Cells {
    pub(super) const fn new() -> Self {
        Self { low: Vec::new(), high: BTreeMap::new(), active: 0 }
    }

    /// Joins an active cell with what is at `index`.
    #[inline]
    pub(super) fn add(&mut self, index: u64, cell: Cell) {
        let present = match self.low.get_mut(index as usize) {
            Some(present) => present,
            None => self.make_room(index),
        };
        let new = !present.is_active();
        present.add(cell);
        self.active += usize::from(new);
    }

    #[cold]
    fn make_room(&mut self, index: u64) -> &mut Cell {
        if index >= LOW {
            return self.high.entry(index).or_default();
        }
        let index = index as usize;
        self.low.resize((index + 1).next_power_of_two(), Cell::default());
        &mut self.low[index]
    }

    /// The number of active cells.
    pub(super) const fn len(&self) -> usize {
        self.active
    }

    /// The active cells, ascending by index.
    pub(super) fn iter(&self) -> Active<impl Iterator<Item = (u64, Cell)>> {
        let low = (0..).zip(&self.low).filter(|(_, cell)| cell.is_active());
        let high = self.high.iter().map(|(index, cell)| (*index, cell));
        Active { cells: low.chain(high).map(|(index, cell)| (index, *cell)), left: self.active }
    }
}

/// Equal when the same cells are active and hold the same.
impl PartialEq for Cells {
    fn eq(&self, other: &Self) -> bool {
        self.active == other.active && self.iter().eq(other.iter())
    }
}

/// An iterator that knows how many cells are left.
pub(super) struct Active<I> {
    cells: I,
    left: usize,
}

impl<I: Iterator<Item = (u64, Cell)>> Iterator for Active<I> {
    type Item = (u64, Cell);

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.cells.next()?;
        self.left -= 1;
        Some(next)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl<I: Iterator<Item = (u64, Cell)>> ExactSizeIterator for Active<I> {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn arb_index() -> impl Strategy<Value = u64> {
        prop_oneof![0u64..40, 0..LOW, LOW - 3..LOW + 3, LOW..1 << 32]
    }

    proptest! {
        /// The truth is a map with an entry for each register, joined as [`RegisterKey::combine`] says.
        #[test]
        fn cells_are_those_of_a_map(added in prop::collection::vec((arb_index(), 0u64..3, 1u64..4), 0..300)) {
            let mut cells = Cells::new();
            let mut map: BTreeMap<u64, (RegisterKey, u64)> = BTreeMap::new();
            for (index, key, count) in added {
                let key = RegisterKey::from_proto_value(key);
                cells.add(index, Cell::new(key, count));
                let joined = |(present, sum): &mut (RegisterKey, u64)| (*present, *sum) = (present.combine(key), *sum + count);
                map.entry(index).and_modify(joined).or_insert((key, count));
            }
            prop_assert_eq!(cells.len(), map.len());
            prop_assert_eq!(cells.iter().len(), map.len());
            let found = cells.iter().map(|(index, cell)| (index, (cell.key(), cell.count())));
            prop_assert!(found.eq(map));
        }
    }

    #[test]
    fn counts_stay_at_the_largest_number() {
        let mut cells = Cells::new();
        let key = RegisterKey::Unique((1 << 63) - 1);
        cells.add(7, Cell::new(key, u64::MAX));
        cells.add(7, Cell::new(key, 1));
        assert!(cells.iter().eq([(7, Cell::new(key, u64::MAX))]));
    }

    #[test]
    fn equality_does_not_see_room() {
        let (mut one, mut other) = (Cells::new(), Cells::new());
        let cell = |key| Cell::new(RegisterKey::Unique(key), 1);
        one.add(1, cell(5));
        other.add(1, cell(5));
        one.make_room(1000);
        assert!(one == other);
        other.add(1000, cell(5));
        assert!(one != other);
        one.add(1000, cell(6));
        assert!(one != other);
    }
}
