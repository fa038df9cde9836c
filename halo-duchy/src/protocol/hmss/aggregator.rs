//! The aggregator: adds the two vectors up and counts.

use halo_crypto::share;

use super::super::record::Reader;
use super::super::seat::wrong_count;
use super::super::{Origin, ProtocolError, Received, Step};
use super::{CHUNK_CELLS, Duchy, Outcome};

impl Duchy {
    /// Share shuffle, aggregation phase.
    pub(super) fn aggregate(&self, inbox: &[Received]) -> Result<Step<Outcome>, ProtocolError> {
        let modulus = self.parameters.modulus()?;
        let due = self.parameters.cells + 2 * self.noise_cells();
        for received in inbox {
            if received.body.records() != due {
                let expected = format!("exactly {due}, cells and both workers' noise,");
                return Err(wrong_count(received, expected, vec![received.slot.from.clone()]));
            }
        }
        let bodies = inbox.iter().map(|received| (&received.body, Origin::Duchy(received.slot.from.clone())));
        let mut reader = Reader::open(bodies, 1)?;
        let mut counts = [0_u64; 256];
        let mut sums = Vec::with_capacity(CHUNK_CELLS);
        while reader.next_chunks(CHUNK_CELLS)? {
            for (received, chunk) in inbox.iter().zip(reader.chunks()) {
                let added = if sums.is_empty() {
                    sums.extend_from_slice(chunk.bytes);
                    share::check(modulus, &sums)
                } else {
                    share::add(modulus, &mut sums, chunk.bytes)
                };
                bad_elements(received, chunk.first, added)?;
            }
            count(&mut counts, &sums);
            sums.clear();
        }
        if self.parameters.counts_frequency() {
            self.check_sums(&counts, modulus.get())?;
        }
        Ok(Step::Done { output: Some(self.outcome(&counts)?), outbox: Vec::new() })
    }

    /// A cell holds a frequency, or nothing that was used of the noise.
    fn check_sums(&self, counts: &[u64; 256], modulus: u16) -> Result<(), ProtocolError> {
        let (most, sentinel) = (self.parameters.combined_frequency() as u8, (modulus - 1) as u8);
        match (most + 1..sentinel).find(|value| counts[usize::from(*value)] > 0) {
            None => Ok(()),
            Some(value) => Err(ProtocolError::BadSum { value, most, sentinel }),
        }
    }
}

/// Counts how often each number occurs. Most cells are equal, and an addition to a counter waits for the one before: with
/// four counters for each number neighbours do not meet.
fn count(counts: &mut [u64; 256], sums: &[u8]) {
    let mut apart = [[0_u32; 256]; 4];
    let (fours, rest) = sums.as_chunks::<4>();
    for four in fours {
        apart.iter_mut().zip(four).for_each(|(counts, sum)| counts[usize::from(*sum)] += 1);
    }
    rest.iter().for_each(|sum| apart[0][usize::from(*sum)] += 1);
    for (number, total) in counts.iter_mut().enumerate() {
        *total += apart.iter().map(|counts| u64::from(counts[number])).sum::<u64>();
    }
}

fn bad_elements(received: &Received, first: u64, outcome: Result<(), share::ShareError>) -> Result<(), ProtocolError> {
    outcome.map_err(|error| ProtocolError::BadRecord {
        origin: Origin::Duchy(received.slot.from.clone()),
        record: match error {
            share::ShareError::Value { index, .. } => first + index as u64,
            _ => first,
        },
        reason: error.to_string(),
    })
}
