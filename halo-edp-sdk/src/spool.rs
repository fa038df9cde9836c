//! Encrypted bodies on disk, written once and sent as often as it takes.
//!
//! Encrypting the same sketch again would give other bytes, and a Duchy takes one body for a requisition only. So a body
//! is written, made durable and described by a manifest before the first byte is sent, and every retry and every restart
//! sends the very same bytes.
//!
//! Files: `NAME.body`, and `NAME.manifest`, which exists only when the body is complete. Unfinished bodies
//! (`NAME.partial`) are removed when the requisition is taken up again. `lock` is held by the process that uses the
//! directory, so that no two processes write the same body.

mod manifest;

use std::{
    collections::BTreeSet,
    fs::{self, File, TryLockError},
    io::{BufWriter, Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use halo_sketch::liquid_legions::LiquidLegions;
use rand_core::CryptoRng;
use sha2::{Digest, Sha256};

use crate::{
    Error,
    encrypt::{self, EncryptError, Encryption},
    progress::Observer,
};
pub use manifest::Manifest;

/// What a body belongs to, besides its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The measurement's session id.
    pub session: [u8; 32],
    /// The requisition's fingerprint.
    pub fingerprint: [u8; 32],
    /// Hash of the list of keys that the joint key was combined from.
    pub key_list_hash: [u8; 32],
}

/// A complete body on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spooled {
    /// Path of the body.
    pub body: PathBuf,
    /// What it is.
    pub manifest: Manifest,
}

/// Kinds of files of one body, the manifest first: without it a body counts for nothing.
const KINDS: [&str; 4] = ["manifest", "body", "partial", "manifest.partial"];

/// Name of the file that is locked.
const LOCK: &str = "lock";

/// A directory of bodies, locked for this process until the last clone is dropped.
#[derive(Clone, Debug)]
pub struct Spool {
    directory: PathBuf,
    _lock: Arc<File>,
}

impl Spool {
    /// Opens a directory, and creates it when it is not there, readable for its owner only.
    ///
    /// # Errors
    /// [`Error::SpoolInUse`] while it is open already, in this process or another; [`Error::File`].
    pub fn open(directory: &Path) -> Result<Self, Error> {
        use std::os::unix::fs::DirBuilderExt;
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(Error::file("cannot create", directory))?;
        let path = directory.join(LOCK);
        let lock = File::create(&path).map_err(Error::file("cannot create", &path))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { directory: directory.to_path_buf(), _lock: Arc::new(lock) }),
            Err(TryLockError::WouldBlock) => Err(Error::SpoolInUse { path: directory.to_path_buf() }),
            Err(TryLockError::Error(error)) => Err(Error::file("cannot lock", &path)(error)),
        }
    }

    /// The names of everything that is kept here, complete or not.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn names(&self) -> Result<BTreeSet<String>, Error> {
        let unreadable = || Error::file("cannot read the directory", &self.directory);
        let mut names = BTreeSet::new();
        for entry in fs::read_dir(&self.directory).map_err(unreadable())? {
            let file = entry.map_err(unreadable())?.file_name();
            let split = file.to_str().and_then(|file| file.split_once('.'));
            names.extend(split.filter(|(_, kind)| KINDS.contains(kind)).map(|(name, _)| name.to_owned()));
        }
        Ok(names)
    }

    fn path(&self, name: &str, kind: &str) -> PathBuf {
        self.directory.join(format!("{name}.{kind}"))
    }

    /// Looks for a complete body of this name. Its length and digest are checked against the manifest, and its binding
    /// against what is expected now.
    ///
    /// # Errors
    /// [`Error::Spool`] when body and manifest do not match, or were made for another session or other keys;
    /// [`Error::File`].
    pub fn find(&self, name: &str, binding: &Binding) -> Result<Option<Spooled>, Error> {
        let (body, manifest_path) = (self.path(name, "body"), self.path(name, "manifest"));
        let bytes = match fs::read(&manifest_path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::file("cannot read", &manifest_path)(error)),
        };
        let damaged = |reason: String| Error::Spool { path: body.clone(), reason };
        let manifest = Manifest::from_bytes(&bytes).map_err(|reason| damaged(reason.to_owned()))?;
        if manifest.binding != *binding {
            return Err(damaged("it was made for another session, another specification or other keys".to_owned()));
        }
        let (length, sha256) = digest(&body)?;
        if length != manifest.body_length || sha256 != manifest.body_sha256 {
            return Err(damaged(format!(
                "it has {length} bytes with SHA-256 {}, its manifest says {} bytes with {}",
                hex::encode(sha256),
                manifest.body_length,
                hex::encode(manifest.body_sha256)
            )));
        }
        Ok(Some(Spooled { body, manifest }))
    }

    /// Encrypts a sketch into a new body of this name. `name` must be a plain file name. It is durable when this
    /// returns; when it fails or is interrupted, nothing is left but what the next attempt removes.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Interrupted`].
    pub fn create(
        &self,
        name: &str,
        binding: &Binding,
        sketch: &LiquidLegions,
        encryption: &Encryption<'_>,
        observer: &mut dyn Observer,
        rng: &mut impl CryptoRng,
    ) -> Result<Spooled, Error> {
        let (partial, body) = (self.path(name, "partial"), self.path(name, "body"));
        let written = self.write_body(&partial, sketch, encryption, observer, rng);
        let (records, length, sha256) = match written {
            Ok(written) => written,
            Err(error) => {
                // Best effort: the file is of no use, and the next attempt overwrites it.
                let _ = fs::remove_file(&partial);
                return Err(error);
            }
        };
        fs::rename(&partial, &body).map_err(Error::file("cannot rename to", &body))?;
        let manifest = Manifest { record_count: records, body_length: length, body_sha256: sha256, binding: *binding };
        let (draft, final_path) = (self.path(name, "manifest.partial"), self.path(name, "manifest"));
        let mut file = File::create(&draft).map_err(Error::file("cannot create", &draft))?;
        file.write_all(&manifest.to_bytes()).map_err(Error::file("cannot write", &draft))?;
        file.sync_all().map_err(Error::file("cannot make durable", &draft))?;
        fs::rename(&draft, &final_path).map_err(Error::file("cannot rename to", &final_path))?;
        File::open(&self.directory)
            .and_then(|directory| directory.sync_all())
            .map_err(Error::file("cannot make durable", &self.directory))?;
        Ok(Spooled { body, manifest })
    }

    fn write_body(
        &self,
        partial: &Path,
        sketch: &LiquidLegions,
        encryption: &Encryption<'_>,
        observer: &mut dyn Observer,
        rng: &mut impl CryptoRng,
    ) -> Result<(u64, u64, [u8; 32]), Error> {
        let file = File::create(partial).map_err(Error::file("cannot create", partial))?;
        let mut out = Hashing { inner: BufWriter::new(file), hash: Sha256::new(), length: 0 };
        let records = encrypt::encrypt(sketch, encryption, &mut out, observer, rng).map_err(|error| match error {
            EncryptError::Write(source) => Error::file("cannot write", partial)(source),
            EncryptError::Stopped(error) => error,
        })?;
        let file = out.inner.into_inner().map_err(|error| Error::file("cannot write", partial)(error.into_error()))?;
        file.sync_all().map_err(Error::file("cannot make durable", partial))?;
        Ok((records, out.length, out.hash.finalize().into()))
    }

    /// Removes a body and its manifest, when they are there: after the requisition is fulfilled.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn remove(&self, name: &str) -> Result<(), Error> {
        for kind in KINDS {
            let path = self.path(name, kind);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::file("cannot remove", &path)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Counts and hashes what passes through.
struct Hashing<W> {
    inner: W,
    hash: Sha256,
    length: u64,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.length += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

/// Length and SHA-256 of a file.
fn digest(path: &Path) -> Result<(u64, [u8; 32]), Error> {
    let mut file = File::open(path).map_err(Error::file("cannot open", path))?;
    let (mut hash, mut length) = (Sha256::new(), 0);
    let mut buffer = vec![0; 1 << 16];
    loop {
        let read = file.read(&mut buffer).map_err(Error::file("cannot read", path))?;
        if read == 0 {
            return Ok((length, hash.finalize().into()));
        }
        hash.update(&buffer[..read]);
        length += read as u64;
    }
}
