//! What a Liquid Legions v2 computation over several publishers has to find, computed in the clear.

use halo_core::privacy::MaximumFrequency;

use super::{Cell, Cells, LiquidLegions, RegisterKey};
use crate::error::Error;

/// The exact outcome of a computation without noise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClearUnion {
    /// Registers of all publishers together.
    pub registers_in: u64,
    /// Different indexes among them: what reach is estimated from.
    pub active: u64,
    /// Active registers whose keys are all equal and not destroyed: the sample that frequency is estimated from.
    pub usable: u64,
    /// Usable registers by summed count: element i has count i + 1, the last one "F or more".
    pub histogram: Vec<u64>,
}

/// Joins publishers' sketches in the clear, as the protocol does under encryption: a register's count is capped at F + 1
/// by each publisher and the sum at F. It is the truth that tests, and reports labelled as such, compare with.
///
/// # Errors
/// [`Error::Incompatible`] if the sketches have different parameters.
pub fn clear_union(sketches: &[LiquidLegions], maximum_frequency: MaximumFrequency) -> Result<ClearUnion, Error> {
    let highest = u64::from(maximum_frequency.get());
    let mut joined = Cells::new();
    let mut registers_in = 0;
    for sketch in sketches {
        if sketch.params != sketches[0].params {
            return Err(Error::Incompatible { left: sketches[0].params.to_string(), right: sketch.params.to_string() });
        }
        registers_in += sketch.cells.len() as u64;
        for (index, cell) in sketch.cells.iter() {
            joined.add(index, Cell::new(cell.key(), cell.count().min(highest + 1)));
        }
    }
    let mut histogram = vec![0; maximum_frequency.get() as usize];
    for (_, cell) in joined.iter() {
        if cell.key() != RegisterKey::Destroyed {
            histogram[(cell.count().min(highest) - 1) as usize] += 1;
        }
    }
    Ok(ClearUnion { registers_in, active: joined.len() as u64, usable: histogram.iter().sum(), histogram })
}

#[cfg(test)]
mod tests {
    use super::super::{Params, Register};
    use super::*;

    fn sketch(registers: &[(u64, Option<u64>, u64)]) -> LiquidLegions {
        let params = Params::new(12.0, 100_000, 10_000_000).unwrap();
        let registers = registers.iter().map(|(index, key, count)| {
            let key = key.map_or(RegisterKey::Destroyed, RegisterKey::Unique);
            Register { index: *index, key, count: *count }
        });
        LiquidLegions::from_registers(params, registers).unwrap()
    }

    fn histogram(sketches: &[LiquidLegions], maximum: u32) -> Vec<u64> {
        clear_union(sketches, MaximumFrequency::new(maximum).unwrap()).unwrap().histogram
    }

    /// The end-to-end cases of the reference (protocols 8.1).
    #[test]
    fn end_to_end_cases() {
        let one = |count| sketch(&[(1, Some(111), count)]);
        assert_eq!(histogram(&[one(1), one(2), one(3)], 10), [0, 0, 0, 0, 0, 1, 0, 0, 0, 0]);
        let destroyed = [sketch(&[(1, Some(111), 3)]), sketch(&[(2, None, 2)])];
        assert_eq!(histogram(&destroyed, 4), [0, 0, 1, 0]);
        assert_eq!(clear_union(&destroyed, MaximumFrequency::new(4).unwrap()).unwrap().active, 2);
        let capped = [sketch(&[(1, Some(111), 3)]), sketch(&[(2, Some(222), 5)]), sketch(&[(2, Some(222), 7)])];
        assert_eq!(histogram(&capped, 10), [0, 0, 1, 0, 0, 0, 0, 0, 0, 1]);
    }

    #[test]
    fn different_keys_of_two_publishers_destroy() {
        let both = [sketch(&[(1, Some(1), 1), (2, Some(5), 1)]), sketch(&[(1, Some(2), 1)])];
        let union = clear_union(&both, MaximumFrequency::new(2).unwrap()).unwrap();
        assert_eq!(union, ClearUnion { registers_in: 3, active: 2, usable: 1, histogram: vec![1, 0] });
    }

    #[test]
    fn nothing_is_nothing() {
        let union = clear_union(&[], MaximumFrequency::new(1).unwrap()).unwrap();
        assert_eq!(union, ClearUnion { registers_in: 0, active: 0, usable: 0, histogram: vec![0] });
    }

    #[test]
    fn different_parameters_are_refused() {
        let other = LiquidLegions::new(Params::new(10.0, 100_000, 10).unwrap());
        let refused = clear_union(&[sketch(&[]), other], MaximumFrequency::new(1).unwrap());
        assert!(matches!(refused, Err(Error::Incompatible { .. })));
    }
}
