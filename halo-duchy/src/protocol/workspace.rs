//! Workspaces: in memory, and in a directory.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Cursor, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest, Sha256};

use super::{Body, RecordSink, RecordSource, Workspace};

/// A body in memory.
#[derive(Clone)]
pub struct MemoryBody {
    bytes: Arc<[u8]>,
    record_bytes: usize,
    records: u64,
    sha256: [u8; 32],
}

impl MemoryBody {
    /// A body of these records with a header that fits them.
    ///
    /// # Errors
    /// `InvalidInput` when `record_bytes` is 0 or `bytes` is not a whole number of records.
    pub fn new(bytes: Vec<u8>, record_bytes: usize) -> io::Result<Self> {
        let records = whole_records(bytes.len(), record_bytes)?;
        let sha256 = Sha256::digest(&bytes).into();
        Ok(Self { bytes: bytes.into(), record_bytes, records, sha256 })
    }

    /// A body with a header of the caller's choice, right or wrong; engines refuse it when it is wrong.
    pub fn with_header(bytes: Vec<u8>, record_bytes: usize, records: u64, sha256: [u8; 32]) -> Self {
        Self { bytes: bytes.into(), record_bytes, records, sha256 }
    }
}

impl std::fmt::Debug for MemoryBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryBody")
            .field("records", &self.records)
            .field("record_bytes", &self.record_bytes)
            .finish_non_exhaustive()
    }
}

/// Bytes that several readers share.
struct SharedBytes(Arc<[u8]>);

impl AsRef<[u8]> for SharedBytes {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl RecordSource for MemoryBody {
    fn records(&self) -> u64 {
        self.records
    }

    fn record_bytes(&self) -> usize {
        self.record_bytes
    }

    fn sha256(&self) -> [u8; 32] {
        self.sha256
    }

    fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(Cursor::new(SharedBytes(Arc::clone(&self.bytes)))))
    }
}

/// Keeps everything in memory: for tests, notebooks and small computations.
#[derive(Clone, Copy, Debug, Default)]
pub struct MemoryWorkspace;

struct MemorySink {
    bytes: Vec<u8>,
    record_bytes: usize,
}

impl RecordSink for MemorySink {
    fn write(&mut self, records: &[u8]) -> io::Result<()> {
        whole_records(records.len(), self.record_bytes)?;
        self.bytes.extend_from_slice(records);
        Ok(())
    }

    fn finish(self: Box<Self>) -> io::Result<Body> {
        Ok(Arc::new(MemoryBody::new(self.bytes, self.record_bytes)?))
    }
}

impl Workspace for MemoryWorkspace {
    fn create(&self, record_bytes: usize) -> io::Result<Box<dyn RecordSink>> {
        whole_records(0, record_bytes)?;
        Ok(Box::new(MemorySink { bytes: Vec::new(), record_bytes }))
    }
}

/// Keeps every body in a file of its own in one directory.
///
/// A file lives as long as something refers to its body and is removed with the last reference, so spill files
/// vanish when a step ends and output bodies when the caller lets them go.
#[derive(Debug)]
pub struct DirectoryWorkspace {
    directory: PathBuf,
    next: AtomicU64,
}

impl DirectoryWorkspace {
    /// A workspace in `directory`, which is made when it does not exist.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn new(directory: impl Into<PathBuf>) -> io::Result<Self> {
        let directory = directory.into();
        std::fs::create_dir_all(&directory)?;
        Ok(Self { directory, next: AtomicU64::new(0) })
    }

    /// Where the files are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Makes a file that did not exist. Another workspace may work in the same directory, so a taken name is passed over.
    fn create_file(&self) -> io::Result<(PathBuf, File)> {
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let path = self.directory.join(format!("{number:08}.records"));
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(file) => return Ok((path, file)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// A path whose file is removed on drop.
struct OwnedFile(PathBuf);

impl Drop for OwnedFile {
    fn drop(&mut self) {
        // A file that is already gone, or a directory that has become read-only, is no reason to panic in a drop.
        let _ = std::fs::remove_file(&self.0);
    }
}

struct FileSink {
    file: OwnedFile,
    writer: BufWriter<File>,
    hasher: Sha256,
    record_bytes: usize,
    records: u64,
}

struct FileBody {
    file: OwnedFile,
    record_bytes: usize,
    records: u64,
    sha256: [u8; 32],
}

/// Size of the buffer in front of a file. Small, because a shuffle writes many files at once.
const FILE_BUFFER_BYTES: usize = 16 * 1024;

impl RecordSink for FileSink {
    fn write(&mut self, records: &[u8]) -> io::Result<()> {
        self.records += whole_records(records.len(), self.record_bytes)?;
        self.hasher.update(records);
        self.writer.write_all(records)
    }

    fn finish(mut self: Box<Self>) -> io::Result<Body> {
        self.writer.flush()?;
        Ok(Arc::new(FileBody {
            file: self.file,
            record_bytes: self.record_bytes,
            records: self.records,
            sha256: self.hasher.finalize().into(),
        }))
    }
}

impl RecordSource for FileBody {
    fn records(&self) -> u64 {
        self.records
    }

    fn record_bytes(&self) -> usize {
        self.record_bytes
    }

    fn sha256(&self) -> [u8; 32] {
        self.sha256
    }

    fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(BufReader::with_capacity(FILE_BUFFER_BYTES, File::open(&self.file.0)?)))
    }
}

impl Workspace for DirectoryWorkspace {
    fn create(&self, record_bytes: usize) -> io::Result<Box<dyn RecordSink>> {
        whole_records(0, record_bytes)?;
        let (path, file) = self.create_file()?;
        Ok(Box::new(FileSink {
            file: OwnedFile(path),
            writer: BufWriter::with_capacity(FILE_BUFFER_BYTES, file),
            hasher: Sha256::new(),
            record_bytes,
            records: 0,
        }))
    }
}

/// How many whole records these bytes are.
fn whole_records(bytes: usize, record_bytes: usize) -> io::Result<u64> {
    if record_bytes == 0 || !bytes.is_multiple_of(record_bytes) {
        let text = format!("{bytes} bytes are not a whole number of records of {record_bytes} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    Ok((bytes / record_bytes) as u64)
}

#[cfg(test)]
mod tests {
    use super::super::Origin;
    use super::super::record::{Reader, for_each_chunk};
    use super::*;

    fn conformance(workspace: &dyn Workspace) {
        let mut sink = workspace.create(3).unwrap();
        sink.write(b"abcdef").unwrap();
        assert_eq!(sink.write(b"gh").unwrap_err().kind(), io::ErrorKind::InvalidInput);
        sink.write(b"ghi").unwrap();
        let body = sink.finish().unwrap();
        assert_eq!((body.records(), body.record_bytes()), (3, 3));
        assert_eq!(body.sha256(), <[u8; 32]>::from(Sha256::digest(b"abcdefghi")));
        for _ in 0..2 {
            let mut read = Vec::new();
            body.open().unwrap().read_to_end(&mut read).unwrap();
            assert_eq!(read, b"abcdefghi");
        }
        let empty = workspace.create(3).unwrap().finish().unwrap();
        assert_eq!(empty.records(), 0);
        assert!(workspace.create(0).is_err());
    }

    #[test]
    fn both_workspaces_conform() {
        conformance(&MemoryWorkspace);
        let directory = tempfile::tempdir().unwrap();
        conformance(&DirectoryWorkspace::new(directory.path()).unwrap());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "files go with their bodies");
    }

    #[test]
    fn unfinished_files_are_removed() {
        let directory = tempfile::tempdir().unwrap();
        let workspace = DirectoryWorkspace::new(directory.path().join("deep/er")).unwrap();
        let mut sink = workspace.create(1).unwrap();
        sink.write(b"x").unwrap();
        drop(sink);
        assert_eq!(std::fs::read_dir(workspace.directory()).unwrap().count(), 0);
    }

    fn read_all(body: MemoryBody, record_bytes: usize) -> Result<Vec<u8>, String> {
        let mut read = Vec::new();
        let body: Body = Arc::new(body);
        for_each_chunk(&body, record_bytes, &Origin::Own, 2, |chunk| {
            assert_eq!(chunk.first, (read.len() / record_bytes) as u64);
            read.extend_from_slice(chunk.bytes);
            Ok(())
        })
        .map_err(|error| error.to_string())?;
        Ok(read)
    }

    #[test]
    fn headers_that_lie_are_refused() {
        let digest: [u8; 32] = Sha256::digest(b"abcdefghij").into();
        let body = |records, sha256| MemoryBody::with_header(b"abcdefghij".to_vec(), 2, records, sha256);
        assert_eq!(read_all(body(5, digest), 2).unwrap(), b"abcdefghij");
        assert!(read_all(body(5, digest), 5).unwrap_err().contains("records have 2 bytes"));
        assert!(read_all(body(6, digest), 2).unwrap_err().contains("ends before"));
        assert!(read_all(body(4, digest), 2).unwrap_err().contains("goes on"));
        assert!(read_all(body(0, digest), 2).unwrap_err().contains("goes on"));
        assert!(read_all(body(5, [0; 32]), 2).unwrap_err().contains("SHA-256"));
        assert!(read_all(body(u64::MAX, digest), 2).unwrap_err().contains("ends before"));
    }

    /// Reads bodies, of which body k has records of two letters, the first one the k-th, under these headers.
    fn read_side_by_side(records: &[u64], wrong_digest: Option<usize>) -> Result<(), String> {
        let texts: Vec<Vec<u8>> = (0..records.len() as u8).map(|k| (0..10).map(|i| b'a' + k + i).collect()).collect();
        let body = |k: usize| -> Body {
            let digest = if wrong_digest == Some(k) { [0; 32] } else { Sha256::digest(&texts[k]).into() };
            Arc::new(MemoryBody::with_header(texts[k].clone(), 2, records[k], digest))
        };
        let bodies: Vec<Body> = (0..records.len()).map(body).collect();
        let origins = (0..).map(Origin::Requisition);
        let mut reader = Reader::open(bodies.iter().zip(origins), 2).map_err(|error| error.to_string())?;
        let mut read = vec![Vec::new(); records.len()];
        while reader.next_chunks(2).map_err(|error| error.to_string())? {
            for (read, chunk) in read.iter_mut().zip(reader.chunks()) {
                assert_eq!(chunk.first, (read.len() / 2) as u64);
                read.extend_from_slice(chunk.bytes);
            }
        }
        assert_eq!(read, texts);
        Ok(())
    }

    #[test]
    fn bodies_are_read_side_by_side_and_each_is_checked() {
        for count in 0..8 {
            read_side_by_side(&vec![5; count], None).unwrap();
            for wrong in 0..count {
                let refused = read_side_by_side(&vec![5; count], Some(wrong)).unwrap_err();
                let origin = Origin::Requisition(wrong).to_string();
                assert!(refused.contains("SHA-256") && refused.contains(&origin), "{refused}");
            }
        }
        assert!(read_side_by_side(&[5, 5, 4], None).unwrap_err().contains("4 records where 5 are due"));
        assert!(read_side_by_side(&[4, 4], None).unwrap_err().contains("goes on"));
        assert!(read_side_by_side(&[6, 6], None).unwrap_err().contains("ends before"));
    }
}
