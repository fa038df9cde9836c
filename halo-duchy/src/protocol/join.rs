//! Grouping records by a 32-byte key, in bounded memory.
//!
//! Records are partitioned on middle bytes of the key (the first byte of a Ristretto encoding is even, the last is
//! below 128), spilled, and grouped one partition at a time. Of a group only the first `limit` members are kept; the
//! others are handed out at once as surplus, so that a group of any size, such as all padding, needs no memory.

use std::collections::{BTreeMap, BTreeSet};

use super::record::for_each_chunk;
use super::shuffle::bucket_count;
use super::{Body, Origin, ProtocolError, RecordSink, Workspace};

const KEY_BYTES: usize = 32;
const POSITION_BYTES: usize = 8;

/// A record as it was pushed: where it stood in its source, and its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Member<'a> {
    pub(crate) position: u64,
    pub(crate) payload: &'a [u8],
}

/// Collects records.
pub(crate) struct Join {
    partitions: Vec<Box<dyn RecordSink>>,
    payload_bytes: usize,
    buffer: Vec<u8>,
}

/// Has all records, and gives out groups.
pub(crate) struct ClosedJoin {
    partitions: Vec<Body>,
    payload_bytes: usize,
}

/// What [`ClosedJoin::finish`] gives out.
pub(crate) trait JoinOutput {
    /// A complete group of at most `limit` members, in the order in which they were pushed.
    fn group(&mut self, members: &[Member<'_>]) -> Result<(), ProtocolError>;
    /// A member of a group that has more than `limit`.
    fn surplus(&mut self, member: Member<'_>) -> Result<(), ProtocolError>;
}

impl Join {
    /// A join of about `records` records.
    pub(crate) fn new(workspace: &dyn Workspace, payload_bytes: usize, records: u64) -> Result<Self, ProtocolError> {
        let record_bytes = KEY_BYTES + POSITION_BYTES + payload_bytes;
        Self::with_partitions(workspace, payload_bytes, bucket_count(records, record_bytes))
    }

    fn with_partitions(workspace: &dyn Workspace, payload_bytes: usize, count: u64) -> Result<Self, ProtocolError> {
        let record_bytes = KEY_BYTES + POSITION_BYTES + payload_bytes;
        let partitions = (0..count).map(|_| workspace.create(record_bytes)).collect::<Result<_, _>>()?;
        Ok(Self { partitions, payload_bytes, buffer: Vec::new() })
    }

    /// Takes one record.
    pub(crate) fn push(&mut self, key: &[u8; 32], position: u64, payload: &[u8]) -> Result<(), ProtocolError> {
        debug_assert_eq!(payload.len(), self.payload_bytes);
        let middle = u64::from_le_bytes([key[12], key[13], key[14], key[15], key[16], key[17], key[18], key[19]]);
        let partition = (middle % self.partitions.len() as u64) as usize;
        self.buffer.clear();
        self.buffer.extend_from_slice(key);
        self.buffer.extend_from_slice(&position.to_be_bytes());
        self.buffer.extend_from_slice(payload);
        Ok(self.partitions[partition].write(&self.buffer)?)
    }

    /// Closes every file.
    pub(crate) fn close(self) -> Result<ClosedJoin, ProtocolError> {
        let partitions = self.partitions.into_iter().map(RecordSink::finish).collect::<Result<_, _>>()?;
        Ok(ClosedJoin { partitions, payload_bytes: self.payload_bytes })
    }
}

impl ClosedJoin {
    /// How many different keys there are.
    pub(crate) fn distinct(self) -> Result<u64, ProtocolError> {
        let record_bytes = KEY_BYTES + POSITION_BYTES + self.payload_bytes;
        let mut distinct = 0;
        for body in self.partitions {
            let mut keys: BTreeSet<[u8; KEY_BYTES]> = BTreeSet::new();
            for_each_chunk(&body, record_bytes, &Origin::Own, super::CHUNK_RECORDS, |chunk| {
                keys.extend(chunk.bytes.chunks_exact(record_bytes).filter_map(|record| record.first_chunk()));
                Ok(())
            })?;
            distinct += keys.len() as u64;
        }
        Ok(distinct)
    }

    /// Gives out all groups, partition by partition, and inside a partition in the order of their first members.
    pub(crate) fn finish(self, limit: usize, output: &mut impl JoinOutput) -> Result<(), ProtocolError> {
        for body in self.partitions {
            let mut partition = Partition::new(limit, self.payload_bytes);
            let record_bytes = KEY_BYTES + POSITION_BYTES + self.payload_bytes;
            for_each_chunk(&body, record_bytes, &Origin::Own, super::CHUNK_RECORDS, |chunk| {
                chunk.bytes.chunks_exact(record_bytes).try_for_each(|record| partition.add(record, output))
            })?;
            partition.finish(output)?;
        }
        Ok(())
    }
}

/// One partition in memory.
struct Partition {
    limit: usize,
    payload_bytes: usize,
    by_key: BTreeMap<[u8; KEY_BYTES], usize>,
    groups: Vec<Group>,
    /// Positions and payloads of the kept members.
    kept: Vec<u8>,
}

#[derive(Default)]
struct Group {
    overflown: bool,
    /// Which members of `kept`.
    members: Vec<usize>,
}

impl Partition {
    fn new(limit: usize, payload_bytes: usize) -> Self {
        Self { limit, payload_bytes, by_key: BTreeMap::new(), groups: Vec::new(), kept: Vec::new() }
    }

    fn add(&mut self, record: &[u8], output: &mut impl JoinOutput) -> Result<(), ProtocolError> {
        let (key, member) = record.split_first_chunk::<KEY_BYTES>().expect("records of a join begin with a key");
        let next = self.groups.len();
        let index = *self.by_key.entry(*key).or_insert(next);
        if index == next {
            self.groups.push(Group::default());
        }
        let group = &mut self.groups[index];
        if group.members.len() < self.limit {
            group.members.push(self.kept.len() / (POSITION_BYTES + self.payload_bytes));
            self.kept.extend_from_slice(member);
            return Ok(());
        }
        group.overflown = true;
        output.surplus(split_member(member))
    }

    fn finish(self, output: &mut impl JoinOutput) -> Result<(), ProtocolError> {
        let member_bytes = POSITION_BYTES + self.payload_bytes;
        let mut members = Vec::new();
        for group in &self.groups {
            members.clear();
            members.extend(
                group.members.iter().map(|m| split_member(&self.kept[m * member_bytes..(m + 1) * member_bytes])),
            );
            if group.overflown {
                members.iter().try_for_each(|member| output.surplus(*member))?;
            } else {
                output.group(&members)?;
            }
        }
        Ok(())
    }
}

fn split_member(bytes: &[u8]) -> Member<'_> {
    let (position, payload) = bytes.split_first_chunk::<POSITION_BYTES>().expect("members begin with a position");
    Member { position: u64::from_be_bytes(*position), payload }
}

#[cfg(test)]
mod tests {
    use super::super::MemoryWorkspace;
    use super::*;

    #[derive(Default)]
    struct Seen {
        groups: Vec<Vec<(u64, Vec<u8>)>>,
        surplus: Vec<u64>,
    }

    impl JoinOutput for Seen {
        fn group(&mut self, members: &[Member<'_>]) -> Result<(), ProtocolError> {
            self.groups.push(members.iter().map(|m| (m.position, m.payload.to_vec())).collect());
            Ok(())
        }

        fn surplus(&mut self, member: Member<'_>) -> Result<(), ProtocolError> {
            self.surplus.push(member.position);
            Ok(())
        }
    }

    fn key(id: u8) -> [u8; 32] {
        let mut key = [0; 32];
        key[14] = id;
        key
    }

    #[test]
    fn groups_keep_their_members_and_large_ones_become_surplus() {
        for partitions in [1, 4] {
            let mut join = Join::with_partitions(&MemoryWorkspace, 1, partitions).unwrap();
            // Id 0 comes 50 times, id i twice for i in 1..=9 and id 10 three times.
            let ids = (0..50).map(|_| 0u8).chain((1..=10).flat_map(|id| [id, id])).chain([10]);
            for (position, id) in ids.enumerate() {
                join.push(&key(id), position as u64, &[id]).unwrap();
            }
            let mut again = Join::with_partitions(&MemoryWorkspace, 0, partitions).unwrap();
            for position in 0..100 {
                again.push(&key(position as u8 % 7), position, &[]).unwrap();
            }
            assert_eq!(again.close().unwrap().distinct().unwrap(), 7);
            let mut seen = Seen::default();
            join.close().unwrap().finish(2, &mut seen).unwrap();
            seen.groups.sort();
            let expected: Vec<_> = (1..=9u8)
                .map(|id| (0..2).map(|k| (48 + 2 * u64::from(id) + k, vec![id])).collect::<Vec<_>>())
                .collect();
            assert_eq!(seen.groups, expected);
            assert_eq!(seen.surplus.len(), 53);
            seen.surplus.sort_unstable();
            assert_eq!(seen.surplus[..50], (0..50).collect::<Vec<_>>());
            assert_eq!(seen.surplus[50..], [68, 69, 70]);
        }
    }
}
