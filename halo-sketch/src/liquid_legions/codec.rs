//! The stored form of a sketch, version 1.

use super::{Cell, Cells, LiquidLegions, Params, RegisterKey};
use crate::error::Error;

const VERSION: u8 = 1;
const HEADER_BYTES: usize = 1 + 4 * 8;
const REGISTER_BYTES: usize = 3 * 8;

pub(super) fn encode(sketch: &LiquidLegions) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + REGISTER_BYTES * sketch.cells.len());
    bytes.push(VERSION);
    let params = &sketch.params;
    for word in [params.decay_rate.to_bits(), params.size, params.sampling_indicator_size, sketch.cells.len() as u64] {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    for (index, cell) in sketch.cells.iter() {
        for word in [index, cell.key().proto_value(), cell.count()] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
    }
    bytes
}

pub(super) fn decode(bytes: &[u8]) -> Result<LiquidLegions, Error> {
    match bytes.first() {
        Some(&VERSION) => {}
        Some(_) => return Err(Error::Corrupt { reason: "the version is unknown, 1 is expected", offset: 0 }),
        None => return Err(Error::Corrupt { reason: "there are no bytes", offset: 0 }),
    }
    let mut words = Words { bytes, offset: 1 };
    let decay_rate = f64::from_bits(words.next()?);
    let params = Params::new(decay_rate, words.next()?, words.next()?)?;
    let active = words.next()?;
    // The length decides before anything is allocated.
    let body = (bytes.len() - HEADER_BYTES) as u64;
    if active.checked_mul(REGISTER_BYTES as u64) != Some(body) {
        let reason = "the length does not fit the number of registers";
        return Err(Error::Corrupt { reason, offset: HEADER_BYTES });
    }
    let mut cells = Cells::new();
    let mut next_index = 0;
    for _ in 0..active {
        let offset = words.offset;
        let (index, key, count) = (words.next()?, words.next()?, words.next()?);
        let corrupt = |reason| Err(Error::Corrupt { reason, offset });
        if index < next_index {
            return corrupt("the registers do not ascend");
        }
        if index >= params.size {
            return corrupt("a register lies behind the end of the sketch");
        }
        if key > params.sampling_indicator_size {
            return corrupt("a key is not below the sampling indicator size");
        }
        if count == 0 {
            return corrupt("a register has a count of zero");
        }
        next_index = index + 1;
        cells.add(index, Cell::new(RegisterKey::from_proto_value(key), count));
    }
    Ok(LiquidLegions { params, cells })
}

struct Words<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl Words<'_> {
    fn next(&mut self) -> Result<u64, Error> {
        let Some(word) = self.bytes[self.offset..].first_chunk::<8>() else {
            return Err(Error::Corrupt { reason: "the bytes end too early", offset: self.bytes.len() });
        };
        self.offset += 8;
        Ok(u64::from_le_bytes(*word))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sketch() -> LiquidLegions {
        let mut sketch = LiquidLegions::new(Params::new(5.6, 50, 1000).unwrap());
        sketch.insert_all((1..=30).flat_map(|vid| (0..=vid % 4).map(move |_| vid)));
        sketch
    }

    /// Version 1 keeps decoding: the file was written once and never changes.
    #[test]
    fn golden_file() {
        let golden = include_bytes!("../../tests/golden/liquid_legions_v1.bin");
        assert!(LiquidLegions::from_bytes(golden).unwrap() == sketch());
        assert_eq!(sketch().to_bytes(), golden);
    }

    #[test]
    fn what_is_no_sketch_is_refused() {
        let good = sketch().to_bytes();
        for length in 0..good.len() {
            assert!(LiquidLegions::from_bytes(&good[..length]).is_err(), "cut to {length}");
        }
        let change = |at: usize, with: &[u8]| {
            let mut bad = good.clone();
            bad[at..at + with.len()].copy_from_slice(with);
            LiquidLegions::from_bytes(&bad).unwrap_err().to_string()
        };
        assert!(LiquidLegions::from_bytes(&[&good[..], &[0]].concat()).unwrap_err().to_string().contains("length"));
        assert!(change(0, &[2]).contains("version"));
        assert!(change(1, &f64::NAN.to_le_bytes()).contains("decay rate"));
        assert!(change(25, &u64::MAX.to_le_bytes()).contains("length"));
        assert!(change(33, &50u64.to_le_bytes()).contains("behind the end"));
        assert!(change(33, &49u64.to_le_bytes()).contains("ascend"));
        assert!(change(41, &1001u64.to_le_bytes()).contains("key"));
        assert!(change(49, &0u64.to_le_bytes()).contains("count of zero"));
    }
}
