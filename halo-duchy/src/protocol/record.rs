//! Bodies of fixed-size records: where they are read, where they are written, and the checks at the reading end.

use std::fmt;
use std::io::{self, Read};
use std::sync::Arc;

use halo_crypto::digest::Sha256Pair;
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::{Origin, ProtocolError};

/// Records that an engine holds in memory at once when it maps over a body.
pub const CHUNK_RECORDS: usize = 16 * 1024;

/// Records that are computed on together: a few full vectors of each column, within the second cache.
pub(crate) const PART_RECORDS: usize = 256;

/// A body of fixed-size records that can be read from the beginning any number of times.
///
/// The three header values are claims of whoever made the body; engines verify them while they read.
pub trait RecordSource: Send + Sync {
    /// How many records there are.
    fn records(&self) -> u64;
    /// Size of one record in bytes.
    fn record_bytes(&self) -> usize;
    /// SHA-256 of the whole body.
    fn sha256(&self) -> [u8; 32];
    /// Opens the body at its beginning.
    ///
    /// # Errors
    /// When the storage cannot be read.
    fn open(&self) -> io::Result<Box<dyn Read + Send>>;
}

impl fmt::Debug for dyn RecordSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordSource")
            .field("records", &self.records())
            .field("record_bytes", &self.record_bytes())
            .field("sha256", &hex::encode(self.sha256()))
            .finish()
    }
}

/// A shared body.
pub type Body = Arc<dyn RecordSource>;

/// A body that is being written. It counts and hashes what it is given.
pub trait RecordSink: Send {
    /// Appends whole records.
    ///
    /// # Errors
    /// When the storage cannot be written, or when `records` is not a whole number of records.
    fn write(&mut self, records: &[u8]) -> io::Result<()>;
    /// Closes the body and makes it readable.
    ///
    /// # Errors
    /// When the storage cannot be written.
    fn finish(self: Box<Self>) -> io::Result<Body>;
}

/// Where an engine puts what it writes: output bodies, and spill files of shuffles and joins.
pub trait Workspace: Send + Sync {
    /// A new, empty body of records of `record_bytes` bytes each.
    ///
    /// # Errors
    /// When the storage cannot be written.
    fn create(&self, record_bytes: usize) -> io::Result<Box<dyn RecordSink>>;

    /// Whether the caller has given the step up; the engine asks now and then, and ends with [`ProtocolError::Cancelled`].
    fn is_cancelled(&self) -> bool {
        false
    }
}

/// Reads a body in chunks and verifies record size, count and digest. The digest is checked when the last chunk has
/// been read: nothing computed from a body may leave before [`CheckedReader::next_chunk`] has answered `None`.
pub(crate) struct CheckedReader {
    records: Records,
    hasher: Sha256,
}

/// As [`CheckedReader`], for two bodies of as many records each: their digests are computed side by side, which takes
/// hardly longer than one.
pub(crate) struct PairReader {
    records: [Records; 2],
    hasher: Sha256Pair,
}

/// The records of a body, whose digest somebody else computes.
struct Records {
    origin: Origin,
    source: Box<dyn Read + Send>,
    record_bytes: usize,
    records: u64,
    position: u64,
    expected_sha256: [u8; 32],
    buffer: Vec<u8>,
}

/// Some whole records of a body.
pub(crate) struct Chunk<'a> {
    /// Position of the first record in the body.
    pub(crate) first: u64,
    /// The records, one after the other.
    pub(crate) bytes: &'a [u8],
}

impl Chunk<'_> {
    /// Computes on parts of at most `records` records, on all cores, and gives the results in order. What is computed on a
    /// part stays in a core's own cache when the part is small.
    ///
    /// # Errors
    /// That of the first part that has one.
    pub(crate) fn map_parts<T: Send>(
        &self,
        record_bytes: usize,
        records: usize,
        each: impl Fn(&Chunk<'_>) -> Result<T, ProtocolError> + Sync,
    ) -> Result<Vec<T>, ProtocolError> {
        let firsts = (self.first..).step_by(records);
        let parts: Vec<Chunk<'_>> = self
            .bytes
            .chunks(records * record_bytes)
            .zip(firsts)
            .map(|(bytes, first)| Chunk { first, bytes })
            .collect();
        // Through results, so that the first error wins whichever part is done first.
        let results: Vec<Result<T, ProtocolError>> = parts.par_iter().map(&each).collect();
        results.into_iter().collect()
    }
}

impl CheckedReader {
    /// Opens `body`, which must consist of records of `record_bytes` bytes.
    pub(crate) fn open(body: &Body, record_bytes: usize, origin: Origin) -> Result<Self, ProtocolError> {
        Ok(Self { records: Records::open(body, record_bytes, origin)?, hasher: Sha256::new() })
    }

    /// The next chunk of at most `chunk_records` records, or `None` after the last one, when all checks have passed.
    pub(crate) fn next_chunk(&mut self, chunk_records: usize) -> Result<Option<Chunk<'_>>, ProtocolError> {
        if !self.records.read(chunk_records)? {
            self.records.check_end(std::mem::take(&mut self.hasher).finalize().into())?;
            return Ok(None);
        }
        self.hasher.update(&self.records.buffer);
        Ok(Some(self.records.chunk()))
    }
}

impl PairReader {
    /// Opens two bodies, which must consist of equally many records of `record_bytes` bytes.
    pub(crate) fn open(bodies: [(&Body, Origin); 2], record_bytes: usize) -> Result<Self, ProtocolError> {
        let [one, two] = bodies.map(|(body, origin)| Records::open(body, record_bytes, origin));
        let records = [one?, two?];
        if records[0].records != records[1].records {
            let reason = format!("it has {} records where {} are due", records[1].records, records[0].records);
            return Err(records[1].bad_body(reason));
        }
        Ok(Self { records, hasher: Sha256Pair::new() })
    }

    /// The next chunks of at most `chunk_records` records, or `None` after the last ones, when all checks have passed.
    pub(crate) fn next_chunks(&mut self, chunk_records: usize) -> Result<Option<[Chunk<'_>; 2]>, ProtocolError> {
        let mut more = true;
        for records in &mut self.records {
            more &= records.read(chunk_records)?;
        }
        if !more {
            let digests = std::mem::take(&mut self.hasher).finish();
            self.records.iter_mut().zip(digests).try_for_each(|(records, digest)| records.check_end(digest))?;
            return Ok(None);
        }
        self.hasher.update(self.records.each_ref().map(|records| records.buffer.as_slice()));
        Ok(Some(self.records.each_ref().map(Records::chunk)))
    }
}

impl Records {
    fn open(body: &Body, record_bytes: usize, origin: Origin) -> Result<Self, ProtocolError> {
        if body.record_bytes() != record_bytes {
            let reason = format!("its records have {} bytes where {record_bytes} are due", body.record_bytes());
            return Err(ProtocolError::BadBody { origin, reason });
        }
        Ok(Self {
            origin,
            source: body.open()?,
            record_bytes,
            records: body.records(),
            position: 0,
            expected_sha256: body.sha256(),
            buffer: Vec::new(),
        })
    }

    /// Fills the buffer with the next records, at most `most`; false when there are none.
    fn read(&mut self, most: usize) -> Result<bool, ProtocolError> {
        let left = self.records - self.position;
        let take = usize::try_from(left).unwrap_or(usize::MAX).min(most.max(1));
        if take == 0 {
            return Ok(false);
        }
        self.buffer.resize(take * self.record_bytes, 0);
        match self.source.read_exact(&mut self.buffer) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(self.bad_body(format!("it ends before its {} records", self.records)));
            }
            Err(error) => return Err(error.into()),
        }
        self.position += take as u64;
        Ok(true)
    }

    /// What was read last.
    fn chunk(&self) -> Chunk<'_> {
        Chunk { first: self.position - (self.buffer.len() / self.record_bytes) as u64, bytes: &self.buffer }
    }

    /// Whether the body ends here and has had this digest.
    fn check_end(&mut self, digest: [u8; 32]) -> Result<(), ProtocolError> {
        let mut surplus = [0u8; 1];
        loop {
            match self.source.read(&mut surplus) {
                Ok(0) => break,
                Ok(_) => return Err(self.bad_body(format!("it goes on after its {} records", self.records))),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        if digest != self.expected_sha256 {
            return Err(self.bad_body("its SHA-256 is another one".to_owned()));
        }
        Ok(())
    }

    fn bad_body(&self, reason: String) -> ProtocolError {
        ProtocolError::BadBody { origin: self.origin.clone(), reason }
    }
}

/// Calls `each` for every chunk of a checked body. When it returns without an error, the body is what its header says.
pub(crate) fn for_each_chunk(
    body: &Body,
    record_bytes: usize,
    origin: &Origin,
    chunk_records: usize,
    mut each: impl FnMut(&Chunk<'_>) -> Result<(), ProtocolError>,
) -> Result<(), ProtocolError> {
    let mut reader = CheckedReader::open(body, record_bytes, origin.clone())?;
    while let Some(chunk) = reader.next_chunk(chunk_records)? {
        each(&chunk)?;
    }
    Ok(())
}
