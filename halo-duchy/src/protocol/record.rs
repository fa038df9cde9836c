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

/// Reads bodies of as many records each side by side, in chunks, and verifies record size, count and digest. Digests are
/// computed two at a time, which takes hardly longer than one. They are checked when the last chunk has been read: nothing
/// computed from a body may leave before [`Reader::next_chunks`] has answered `false`.
pub(crate) struct Reader {
    bodies: Vec<Records>,
    /// Of the first two bodies, the next two, and so on.
    pairs: Vec<Sha256Pair>,
    /// Of the last body when their number is odd.
    single: Sha256,
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

impl Reader {
    /// Opens bodies, which must consist of equally many records of `record_bytes` bytes.
    pub(crate) fn open<'a>(
        bodies: impl IntoIterator<Item = (&'a Body, Origin)>,
        record_bytes: usize,
    ) -> Result<Self, ProtocolError> {
        let open = |(body, origin)| Records::open(body, record_bytes, origin);
        let bodies: Vec<Records> = bodies.into_iter().map(open).collect::<Result<_, _>>()?;
        let due = bodies.first().map_or(0, |first| first.records);
        if let Some(other) = bodies.iter().find(|other| other.records != due) {
            return Err(other.bad_body(format!("it has {} records where {due} are due", other.records)));
        }
        let pairs = bodies.as_chunks::<2>().0.iter().map(|_| Sha256Pair::new()).collect();
        Ok(Self { bodies, pairs, single: Sha256::new() })
    }

    /// Reads the next chunks of at most `chunk_records` records; false after the last ones, when all checks have passed.
    pub(crate) fn next_chunks(&mut self, chunk_records: usize) -> Result<bool, ProtocolError> {
        let mut more = !self.bodies.is_empty();
        for body in &mut self.bodies {
            more &= body.read(chunk_records)?;
        }
        let (pairs, single) = self.bodies.as_chunks_mut();
        if more {
            for (hasher, pair) in self.pairs.iter_mut().zip(pairs) {
                hasher.update(pair.each_ref().map(|body| body.buffer.as_slice()));
            }
            single.iter().for_each(|body| self.single.update(&body.buffer));
        } else {
            for (hasher, pair) in self.pairs.iter_mut().zip(pairs) {
                let digests = std::mem::take(hasher).finish();
                pair.iter_mut()
                    .zip(digests)
                    .try_for_each(|(body, digest): (&mut Records, _)| body.check_end(digest))?;
            }
            let digest = std::mem::take(&mut self.single).finalize().into();
            single.iter_mut().try_for_each(|body| body.check_end(digest))?;
        }
        Ok(more)
    }

    /// What was read last, of each body in turn.
    pub(crate) fn chunks(&self) -> impl Iterator<Item = Chunk<'_>> {
        self.bodies.iter().map(Records::chunk)
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
    let mut reader = Reader::open([(body, origin.clone())], record_bytes)?;
    while reader.next_chunks(chunk_records)? {
        reader.chunks().try_for_each(|chunk| each(&chunk))?;
    }
    Ok(())
}
