//! Bodies at rest.
//!
//! A body on its way is a *spool file*: chunks are appended and synced before anything is acknowledged. A complete,
//! verified body is a *blob*: an object whose key is the Duchy's id, the computation and the SHA-256 of the content.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::TryStreamExt;
use halo_core::resource::DuchyId;
use object_store::local::LocalFileSystem;
use object_store::path::Path as Key;
use object_store::{ObjectStore, ObjectStoreExt, WriteMultipart};
use sha2::{Digest, Sha256};
use thiserror::Error;
use tokio::runtime::Handle;

use super::store::{BodyId, TransferKey};
use crate::protocol::{Body, RecordSource};

/// How much of a blob is read or written at once.
const BLOCK_BYTES: u64 = 1 << 20;

/// What went wrong with a body.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BlobError {
    /// The object store failed. The same call may succeed later.
    #[error("the blob store failed: {0}")]
    Store(#[from] object_store::Error),
    /// A file could not be read or written. The same call may succeed later.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The bytes are not those that were announced.
    #[error("the body differs from what was announced: {0}; nothing of it is kept, send it again from the start")]
    Altered(String),
    /// A task was stopped with the server.
    #[error("the server is shutting down")]
    Stopped,
}

/// The bodies of one Duchy.
#[derive(Clone, Debug)]
pub struct Blobs {
    objects: Arc<dyn ObjectStore>,
    duchy: DuchyId,
    /// Directory of this Duchy's blobs. A process that is killed leaves files there that are no objects yet.
    directory: PathBuf,
    spool: PathBuf,
}

fn file_error(path: &Path) -> impl FnOnce(io::Error) -> BlobError + '_ {
    move |source| BlobError::File { path: path.to_owned(), source }
}

/// Runs blocking file work off the runtime's threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BlobError> + Send + 'static,
) -> Result<T, BlobError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| BlobError::Stopped)?
}

impl Blobs {
    /// Bodies below `directory`, which is made if it is missing: `blobs` and `spool`.
    ///
    /// # Errors
    /// If the directories cannot be made.
    pub fn local(directory: &Path, duchy: DuchyId) -> Result<Self, BlobError> {
        let (blobs, spool) = (directory.join("blobs"), directory.join("spool"));
        for path in [&blobs, &spool] {
            fs::create_dir_all(path).map_err(file_error(path))?;
        }
        let objects = LocalFileSystem::new_with_prefix(&blobs)?.with_fsync(true).with_automatic_cleanup(true);
        let directory = blobs.join(duchy.as_str());
        Ok(Self { objects: Arc::new(objects), duchy, directory, spool })
    }

    fn key(&self, computation: &str, sha256: &[u8; 32]) -> Key {
        Key::from_iter([self.duchy.as_str(), computation, &hex::encode(sha256)])
    }

    /// Where the partial bodies for one target are.
    fn spool_directory(&self, transfer: &TransferKey) -> PathBuf {
        self.spool.join(&transfer.computation).join(hex::encode(Sha256::digest(transfer.target.as_bytes())))
    }

    fn spool_file(&self, transfer: &TransferKey) -> PathBuf {
        self.spool_directory(transfer).join(hex::encode(transfer.sha256))
    }

    /// Opens the spool file of a partial body for appending after its first `length` bytes; what lies beyond was never
    /// acknowledged and is cut off.
    ///
    /// # Errors
    /// If the file cannot be written, or holds less than `length` bytes.
    pub async fn resume(&self, transfer: &TransferKey, length: u64) -> Result<Spool, BlobError> {
        let path = self.spool_file(transfer);
        blocking(move || {
            let directory = path.parent().unwrap_or(&path);
            fs::create_dir_all(directory).map_err(file_error(directory))?;
            let open = || -> io::Result<fs::File> {
                let mut file = fs::OpenOptions::new().create(true).truncate(false).write(true).open(&path)?;
                if file.metadata()?.len() < length {
                    return Err(io::Error::other("it is shorter than recorded"));
                }
                file.set_len(length)?;
                file.seek(SeekFrom::End(0))?;
                Ok(file)
            };
            let file = open().map_err(file_error(&path))?;
            Ok(Spool { path, file, length })
        })
        .await
    }

    /// Removes the spool files of all partial bodies for a target; missing ones are no error.
    ///
    /// # Errors
    /// If a file is there and cannot be removed.
    pub async fn discard(&self, transfer: &TransferKey) -> Result<(), BlobError> {
        let path = self.spool_directory(transfer);
        blocking(move || remove_directory(&path)).await
    }

    /// Removes the spool files of all partial bodies for a target but this one.
    ///
    /// # Errors
    /// If a file is there and cannot be removed.
    pub async fn supersede(&self, transfer: &TransferKey) -> Result<(), BlobError> {
        let (directory, keep) = (self.spool_directory(transfer), self.spool_file(transfer));
        blocking(move || remove_entries(&directory, |name| keep.file_name().is_none_or(|keep| keep != name))).await
    }

    /// Computations of which there is a blob or a spool file.
    ///
    /// # Errors
    /// If the object store or the spool directory cannot be listed.
    pub async fn computations(&self) -> Result<BTreeSet<String>, BlobError> {
        let prefix = Key::from_iter([self.duchy.as_str()]);
        let listed = self.objects.list_with_delimiter(Some(&prefix)).await?;
        let mut found: BTreeSet<String> =
            listed.common_prefixes.iter().filter_map(|key| key.filename().map(str::to_owned)).collect();
        let spool = self.spool.clone();
        let spooled = blocking(move || {
            let entries = fs::read_dir(&spool).map_err(file_error(&spool))?;
            entries
                .map(|entry| Ok(entry.map_err(file_error(&spool))?.file_name().to_string_lossy().into_owned()))
                .collect::<Result<Vec<_>, BlobError>>()
        });
        found.extend(spooled.await?);
        Ok(found)
    }

    /// Stores the content of a reader as a blob and checks that it is the body that it is said to be.
    ///
    /// # Errors
    /// [`BlobError::Altered`] if length or digest differ; nothing is stored then.
    pub async fn put(
        &self,
        computation: &str,
        body: &BodyId,
        reader: impl Read + Send + 'static,
    ) -> Result<(), BlobError> {
        let key = self.key(computation, &body.sha256);
        let mut upload = WriteMultipart::new(self.objects.put_multipart(&key).await?);
        let (mut digest, mut length) = (Sha256::new(), 0);
        let mut reader = reader;
        loop {
            let (block, rest) = blocking(move || {
                let mut block = Vec::new();
                reader.by_ref().take(BLOCK_BYTES).read_to_end(&mut block).map_err(file_error(Path::new("body")))?;
                Ok((block, reader))
            })
            .await?;
            reader = rest;
            if block.is_empty() {
                break;
            }
            digest.update(&block);
            length += block.len() as u64;
            upload.wait_for_capacity(1).await?;
            upload.put(block.into());
        }
        let problem = if length != body.length {
            Some(format!("it has {length} bytes instead of {}", body.length))
        } else if <[u8; 32]>::from(digest.finalize()) != body.sha256 {
            Some("its SHA-256 is another one".to_owned())
        } else {
            None
        };
        if let Some(problem) = problem {
            upload.abort().await?;
            return Err(BlobError::Altered(problem));
        }
        upload.finish().await?;
        Ok(())
    }

    /// Stores a complete spool file as a blob.
    ///
    /// # Errors
    /// As [`Self::put`].
    pub async fn keep(&self, transfer: &TransferKey, body: &BodyId) -> Result<(), BlobError> {
        let path = self.spool_file(transfer);
        let file = fs::File::open(&path).map_err(file_error(&path))?;
        self.put(&transfer.computation, body, file).await
    }

    /// A blob as a body of records of `record_bytes` bytes, for threads that may block: not those of the runtime, in
    /// which this is called.
    #[must_use]
    pub fn body(&self, computation: &str, body: &BodyId, record_bytes: usize) -> Body {
        Arc::new(Blob {
            objects: Arc::clone(&self.objects),
            key: self.key(computation, &body.sha256),
            runtime: Handle::current(),
            id: *body,
            record_bytes,
        })
    }

    /// Part of a blob: at most `length` bytes from `offset` on.
    ///
    /// # Errors
    /// If the blob is missing or ends before `offset`.
    pub async fn range(
        &self,
        computation: &str,
        body: &BodyId,
        offset: u64,
        length: u64,
    ) -> Result<bytes::Bytes, BlobError> {
        let end = body.length.min(offset.saturating_add(length));
        if offset >= end {
            return Ok(bytes::Bytes::new());
        }
        Ok(self.objects.get_range(&self.key(computation, &body.sha256), offset..end).await?)
    }

    /// Removes a blob that turned out to be no good; a missing one is no error.
    ///
    /// # Errors
    /// If it is there and cannot be removed.
    pub async fn remove(&self, computation: &str, body: &BodyId) -> Result<(), BlobError> {
        match self.objects.delete(&self.key(computation, &body.sha256)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes every blob and spool file of a computation.
    ///
    /// # Errors
    /// If something is there and cannot be removed.
    pub async fn remove_all(&self, computation: &str) -> Result<(), BlobError> {
        let prefix = Key::from_iter([self.duchy.as_str(), computation]);
        let keys: Vec<Key> = self.objects.list(Some(&prefix)).map_ok(|meta| meta.location).try_collect().await?;
        for key in keys {
            self.objects.delete(&key).await?;
        }
        let (unfinished, spooled) = (self.directory.join(computation), self.spool.join(computation));
        blocking(move || {
            remove_directory(&unfinished)?;
            remove_directory(&spooled)
        })
        .await
    }

    /// Removes every blob of a computation but those with these digests, and every file that is no blob yet: for a
    /// process that has just begun, and knows that nobody writes.
    ///
    /// # Errors
    /// If something is there and cannot be removed.
    pub async fn retain(&self, computation: &str, digests: &BTreeSet<[u8; 32]>) -> Result<(), BlobError> {
        let directory = self.directory.join(computation);
        let names: BTreeSet<String> = digests.iter().map(hex::encode).collect();
        blocking(move || remove_entries(&directory, |name| !names.contains(name))).await
    }
}

/// Removes the files of a directory that `goes` names, if the directory is there.
fn remove_entries(directory: &Path, goes: impl Fn(&str) -> bool) -> Result<(), BlobError> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(file_error(directory))?,
    };
    for entry in entries {
        let entry = entry.map_err(file_error(directory))?;
        if goes(&entry.file_name().to_string_lossy()) {
            fs::remove_file(entry.path()).map_err(file_error(&entry.path()))?;
        }
    }
    Ok(())
}

/// Removes a directory with everything in it, if it is there.
fn remove_directory(path: &Path) -> Result<(), BlobError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(file_error(path)(error)),
        _ => Ok(()),
    }
}

/// A partial body that is being appended to.
#[derive(Debug)]
pub struct Spool {
    path: PathBuf,
    file: fs::File,
    length: u64,
}

impl Spool {
    /// Bytes written, synced or not.
    #[must_use]
    pub const fn length(&self) -> u64 {
        self.length
    }

    /// Appends a chunk. It is small, and the page cache takes it without waiting for the disk.
    ///
    /// # Errors
    /// If the disk is full or fails.
    pub fn append(&mut self, chunk: &[u8]) -> Result<(), BlobError> {
        self.file.write_all(chunk).map_err(file_error(&self.path))?;
        self.length += chunk.len() as u64;
        Ok(())
    }

    /// Makes everything appended durable and gives the file back with the length that may now be recorded.
    ///
    /// # Errors
    /// If the disk fails.
    pub async fn sync(self) -> Result<(Self, u64), BlobError> {
        blocking(move || {
            self.file.sync_all().map_err(file_error(&self.path))?;
            let length = self.length;
            Ok((self, length))
        })
        .await
    }
}

/// A blob that an engine reads.
struct Blob {
    objects: Arc<dyn ObjectStore>,
    key: Key,
    runtime: Handle,
    id: BodyId,
    record_bytes: usize,
}

impl RecordSource for Blob {
    fn records(&self) -> u64 {
        self.id.records
    }

    fn record_bytes(&self) -> usize {
        self.record_bytes
    }

    fn sha256(&self) -> [u8; 32] {
        self.id.sha256
    }

    fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(BlobReader {
            objects: Arc::clone(&self.objects),
            key: self.key.clone(),
            runtime: self.runtime.clone(),
            length: self.id.length,
            position: 0,
            block: bytes::Bytes::new(),
        }))
    }
}

/// Reads a blob block by block. Blocks the thread while the store is asked.
struct BlobReader {
    objects: Arc<dyn ObjectStore>,
    key: Key,
    runtime: Handle,
    length: u64,
    position: u64,
    block: bytes::Bytes,
}

impl Read for BlobReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.block.is_empty() && self.position < self.length {
            let range = self.position..self.length.min(self.position + BLOCK_BYTES);
            self.block = self.runtime.block_on(self.objects.get_range(&self.key, range)).map_err(io::Error::other)?;
            self.position += self.block.len() as u64;
        }
        let count = out.len().min(self.block.len());
        out[..count].copy_from_slice(&self.block.split_to(count));
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(bytes: &[u8]) -> BodyId {
        BodyId { sha256: Sha256::digest(bytes).into(), length: bytes.len() as u64, records: 1 }
    }

    #[tokio::test]
    async fn a_body_survives_interruption_and_is_read_back() {
        let directory = tempfile::tempdir().unwrap();
        let blobs = Blobs::local(directory.path(), DuchyId::new("worker1").unwrap()).unwrap();
        let content: Vec<u8> = (0..3_000_000_u32).map(|i| (i % 251) as u8).collect();
        let body = id(&content);
        let transfer = TransferKey { target: "r".to_owned(), computation: "c".to_owned(), sha256: body.sha256 };

        let mut spool = blobs.resume(&transfer, 0).await.unwrap();
        spool.append(&content[..1000]).unwrap();
        let (mut spool, recorded) = spool.sync().await.unwrap();
        spool.append(b"never acknowledged").unwrap();
        drop(spool);
        assert!(blobs.resume(&transfer, 5000).await.is_err());
        let mut spool = blobs.resume(&transfer, recorded).await.unwrap();
        spool.append(&content[1000..]).unwrap();
        spool.sync().await.unwrap();

        let altered = BodyId { sha256: [0; 32], ..body };
        assert!(matches!(blobs.keep(&transfer, &altered).await, Err(BlobError::Altered(_))));
        let short = BodyId { length: 5, ..body };
        assert!(matches!(blobs.keep(&transfer, &short).await, Err(BlobError::Altered(_))));
        blobs.keep(&transfer, &body).await.unwrap();
        blobs.discard(&transfer).await.unwrap();
        assert_eq!(blobs.range("c", &body, 2_999_990, 100).await.unwrap(), &content[2_999_990..]);
        let reader = blobs.body("c", &body, 1);
        let read = tokio::task::spawn_blocking(move || {
            let mut all = Vec::new();
            reader.open().unwrap().read_to_end(&mut all).unwrap();
            all
        });
        assert_eq!(read.await.unwrap(), content);

        let nothing = id(&[]);
        blobs.put("c", &nothing, io::empty()).await.unwrap();
        assert!(blobs.range("c", &nothing, 0, 10).await.unwrap().is_empty());

        blobs.remove_all("c").await.unwrap();
        assert!(blobs.range("c", &body, 0, 1).await.is_err());
        blobs.remove_all("c").await.unwrap();
    }
}
