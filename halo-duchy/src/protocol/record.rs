//! Bodies of fixed-size records: where they are read, where they are written, and the checks at the reading end.

use std::fmt;
use std::io::{self, Read};
use std::sync::Arc;

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
    origin: Origin,
    source: Box<dyn Read + Send>,
    record_bytes: usize,
    records: u64,
    position: u64,
    expected_sha256: [u8; 32],
    hasher: Sha256,
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
            hasher: Sha256::new(),
            buffer: Vec::new(),
        })
    }

    /// The next chunk of at most `chunk_records` records, or `None` after the last one, when all checks have passed.
    pub(crate) fn next_chunk(&mut self, chunk_records: usize) -> Result<Option<Chunk<'_>>, ProtocolError> {
        let left = self.records - self.position;
        let take = usize::try_from(left).unwrap_or(usize::MAX).min(chunk_records.max(1));
        if take == 0 {
            self.check_end()?;
            return Ok(None);
        }
        self.buffer.resize(take * self.record_bytes, 0);
        match self.source.read_exact(&mut self.buffer) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(self.bad_body(format!("it ends before its {} records", self.records)));
            }
            Err(error) => return Err(error.into()),
        }
        self.hasher.update(&self.buffer);
        let first = self.position;
        self.position += take as u64;
        Ok(Some(Chunk { first, bytes: &self.buffer }))
    }

    fn check_end(&mut self) -> Result<(), ProtocolError> {
        let mut surplus = [0u8; 1];
        loop {
            match self.source.read(&mut surplus) {
                Ok(0) => break,
                Ok(_) => return Err(self.bad_body(format!("it goes on after its {} records", self.records))),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        let digest: [u8; 32] = std::mem::take(&mut self.hasher).finalize().into();
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
