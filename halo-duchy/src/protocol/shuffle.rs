//! A uniform secret permutation of records, in bounded memory.
//!
//! Every record goes to a bucket that is drawn uniformly and independently; when all have come, each bucket is put
//! into a uniform order by Fisher–Yates, and the buckets are written one after the other. Because the records are
//! treated alike, every order of the whole is equally likely. A permutation is used and never a sort, so the order says
//! nothing about the bytes and the bytes nothing about the order.

use rand_chacha::ChaCha20Rng;

use super::record::for_each_chunk;
use super::stream::{Purpose, StepRandomness, Stream, below};
use super::{Body, Origin, ProtocolError, RecordSink, Workspace};

/// What a bucket holds on average, at most: the memory that a shuffle or a join needs.
pub(crate) const BUCKET_BYTES: u64 = 16 << 20;
/// At most so many files at once; beyond 8 GiB the buckets grow instead.
const MAX_BUCKETS: u64 = 512;

/// Into how many buckets so many records of this size go. It depends on nothing else, so that the permutation does not.
pub(crate) fn bucket_count(records: u64, record_bytes: usize) -> u64 {
    records.saturating_mul(record_bytes as u64).div_ceil(BUCKET_BYTES).clamp(1, MAX_BUCKETS)
}

/// Collects records and gives them back in a secret uniform order.
pub(crate) struct Shuffle<'a> {
    workspace: &'a dyn Workspace,
    record_bytes: usize,
    choose: ChaCha20Rng,
    order: Stream,
    buckets: Buckets,
}

enum Buckets {
    Memory(Vec<u8>),
    Spilled(Vec<Box<dyn RecordSink>>),
}

impl<'a> Shuffle<'a> {
    /// A shuffle of at most about `records` records: the number sets the bucket count and must be a function of the
    /// protocol's public counts.
    pub(crate) fn new(
        randomness: &StepRandomness,
        workspace: &'a dyn Workspace,
        record_bytes: usize,
        records: u64,
    ) -> Result<Self, ProtocolError> {
        Self::with_buckets(randomness, workspace, record_bytes, bucket_count(records, record_bytes))
    }

    fn with_buckets(
        randomness: &StepRandomness,
        workspace: &'a dyn Workspace,
        record_bytes: usize,
        count: u64,
    ) -> Result<Self, ProtocolError> {
        let buckets = if count <= 1 {
            Buckets::Memory(Vec::new())
        } else {
            Buckets::Spilled((0..count).map(|_| workspace.create(record_bytes)).collect::<Result<_, _>>()?)
        };
        let choose = randomness.stream(Purpose::ShuffleBucket).rng(0);
        Ok(Self { workspace, record_bytes, choose, order: randomness.stream(Purpose::ShuffleOrder), buckets })
    }

    /// Takes whole records.
    pub(crate) fn push(&mut self, records: &[u8]) -> Result<(), ProtocolError> {
        debug_assert!(records.len().is_multiple_of(self.record_bytes));
        if self.workspace.is_cancelled() {
            return Err(ProtocolError::Cancelled);
        }
        match &mut self.buckets {
            Buckets::Memory(bytes) => bytes.extend_from_slice(records),
            Buckets::Spilled(sinks) => {
                for record in records.chunks_exact(self.record_bytes) {
                    let bucket = below(sinks.len() as u64, &mut self.choose);
                    sinks[bucket as usize].write(record)?;
                }
            }
        }
        Ok(())
    }

    /// Takes whole records, piece by piece.
    pub(crate) fn push_all(&mut self, pieces: &[Vec<u8>]) -> Result<(), ProtocolError> {
        pieces.iter().try_for_each(|records| self.push(records))
    }

    /// All records in their new order.
    pub(crate) fn finish(self) -> Result<Body, ProtocolError> {
        self.finish_before(&[])
    }

    /// All records in their new order, and then `last`, which is whole records.
    pub(crate) fn finish_before(self, last: &[u8]) -> Result<Body, ProtocolError> {
        let mut output = self.workspace.create(self.record_bytes)?;
        match self.buckets {
            Buckets::Memory(bytes) => write_shuffled(&bytes, self.record_bytes, &mut self.order.rng(0), &mut *output)?,
            Buckets::Spilled(sinks) => {
                // Close all before any is read: a file's buffer is then free while the buckets are in memory.
                let bodies = sinks.into_iter().map(RecordSink::finish).collect::<Result<Vec<_>, _>>()?;
                let mut bytes = Vec::new();
                for (index, body) in bodies.into_iter().enumerate() {
                    if self.workspace.is_cancelled() {
                        return Err(ProtocolError::Cancelled);
                    }
                    bytes.clear();
                    read_own(&body, self.record_bytes, &mut bytes)?;
                    write_shuffled(&bytes, self.record_bytes, &mut self.order.rng(index as u64), &mut *output)?;
                }
            }
        }
        output.write(last)?;
        Ok(output.finish()?)
    }
}

/// Reads back a spill file.
fn read_own(body: &Body, record_bytes: usize, bytes: &mut Vec<u8>) -> Result<(), ProtocolError> {
    for_each_chunk(body, record_bytes, &Origin::Own, super::CHUNK_RECORDS, |chunk| {
        bytes.extend_from_slice(chunk.bytes);
        Ok(())
    })
}

/// Fisher–Yates: walking down from the last place, each place gets one of the records not yet placed.
fn write_shuffled(
    bytes: &[u8],
    record_bytes: usize,
    rng: &mut ChaCha20Rng,
    output: &mut dyn RecordSink,
) -> Result<(), ProtocolError> {
    let mut order: Vec<usize> = (0..bytes.len() / record_bytes).collect();
    for place in (1..order.len()).rev() {
        order.swap(place, below(place as u64 + 1, rng) as usize);
    }
    let mut buffer = Vec::new();
    for group in order.chunks(256) {
        buffer.clear();
        for record in group {
            buffer.extend_from_slice(&bytes[record * record_bytes..(record + 1) * record_bytes]);
        }
        output.write(&buffer)?;
    }
    Ok(())
}

/// Reads a whole body of this Duchy into memory.
#[cfg(test)]
pub(crate) fn read_to_vec(body: &Body) -> Vec<u8> {
    use std::io::Read;

    let mut bytes = Vec::new();
    body.open().unwrap().read_to_end(&mut bytes).unwrap();
    bytes
}

#[cfg(test)]
mod tests {
    use halo_crypto::secret::Secret;

    use super::super::MemoryWorkspace;
    use super::super::stream::StepName;
    use super::*;

    fn randomness(run: u64) -> StepRandomness {
        let mut consumed = [0; 32];
        consumed[..8].copy_from_slice(&run.to_be_bytes());
        let name = StepName { engine_version: 1, computation: "c", duchy: "d", step: 1, consumed };
        StepRandomness::derive(&Secret::new([9; 32]), &name)
    }

    fn shuffled(run: u64, records: &[u8], buckets: u64, push: usize) -> Vec<u8> {
        let mut shuffle = Shuffle::with_buckets(&randomness(run), &MemoryWorkspace, 1, buckets).unwrap();
        records.chunks(push).for_each(|part| shuffle.push(part).unwrap());
        read_to_vec(&shuffle.finish().unwrap())
    }

    #[test]
    fn nothing_is_lost_and_chunks_do_not_matter() {
        let records: Vec<u8> = (0..=255).collect();
        for buckets in [1, 7] {
            let once = shuffled(1, &records, buckets, 256);
            assert_eq!(once, shuffled(1, &records, buckets, 5));
            assert_ne!(once, shuffled(2, &records, buckets, 5));
            assert_ne!(once, records);
            let mut sorted = once;
            sorted.sort_unstable();
            assert_eq!(sorted, records);
        }
        assert!(shuffled(1, &[], 3, 1).is_empty());
    }

    /// All 24 orders of four records are equally likely, in memory and through buckets.
    #[test]
    fn every_order_is_equally_likely() {
        for buckets in [1, 3] {
            let mut counts = std::collections::BTreeMap::new();
            for run in 0..12_000 {
                *counts.entry(shuffled(run, &[0, 1, 2, 3], buckets, 4)).or_insert(0u32) += 1;
            }
            assert_eq!(counts.len(), 24);
            // Chi-square with 23 degrees of freedom; 58.0 is exceeded with probability 8e-5.
            let chi_square: f64 = counts.values().map(|c| (f64::from(*c) - 500.0).powi(2) / 500.0).sum();
            assert!(chi_square < 58.0, "{buckets} buckets: {chi_square}");
        }
    }

    #[test]
    fn bucket_count_follows_the_size() {
        assert_eq!(bucket_count(0, 192), 1);
        assert_eq!(bucket_count(1 << 16, 256), 1);
        assert_eq!(bucket_count((1 << 16) + 1, 256), 2);
        assert_eq!(bucket_count(u64::MAX, 256), MAX_BUCKETS);
    }
}
