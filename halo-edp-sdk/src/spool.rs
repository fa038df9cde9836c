//! Answers on disk, made once and sent as often as it takes.
//!
//! Encrypting or sharing the same data again would give other bytes, and noise that is drawn again averages out. So an
//! answer is written, made durable and described by a manifest before the first byte is sent, and every retry and every
//! restart sends the very same bytes: one answer for a requisition, for good.
//!
//! Files: `NAME.body`, and `NAME.manifest`, which exists only when the body is complete. When the requisition is closed the
//! body is removed, and the manifest stays as `NAME.answered` (a few hundred bytes): should the requisition ever be handed
//! out again, nothing is drawn for it a second time. `FINGERPRINT.claim` holds the name that a request goes by, and stays
//! as well: the same signed request under another name gets no answer. Unfinished bodies (`NAME.partial`) are removed when the requisition is
//! taken up again. `lock` is held by the process that uses the directory, so that no two processes write the same body.

mod manifest;

use std::{
    collections::BTreeSet,
    fs::{self, File, TryLockError},
    io::{BufWriter, Read, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use halo_core::lock::DirectoryLock;
use sha2::{Digest, Sha256};

use crate::{BodyError, Error};
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
const KINDS: [&str; 5] = ["manifest", "body", "partial", "manifest.partial", "claim.partial"];

/// Kind of what stays of a manifest.
const ANSWERED: &str = "answered";

/// Kind of what holds the name of a request, under the hexadecimal digits of its fingerprint.
const CLAIM: &str = "claim";

/// A directory of bodies, locked for this process until the last clone is dropped.
#[derive(Clone, Debug)]
pub struct Spool {
    directory: PathBuf,
    /// Locked against other processes; the mutex is held while a request is claimed.
    lock: Arc<Mutex<DirectoryLock>>,
}

impl Spool {
    /// Opens a directory, and creates it when it is not there, readable for its owner only.
    ///
    /// # Errors
    /// [`Error::SpoolInUse`] while it is open already, in this process or another; [`Error::File`].
    pub fn open(directory: &Path) -> Result<Self, Error> {
        match DirectoryLock::acquire(directory) {
            Ok(lock) => Ok(Self { directory: directory.to_path_buf(), lock: Arc::new(Mutex::new(lock)) }),
            Err(TryLockError::WouldBlock) => Err(Error::SpoolInUse { path: directory.to_path_buf() }),
            Err(TryLockError::Error(error)) => Err(Error::file("cannot create or lock", directory)(error)),
        }
    }

    /// The names of all bodies that are kept here, complete or not.
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
    /// [`Error::AlreadyAnswered`] when the requisition was closed before; [`Error::AnsweredUnderAnotherName`];
    /// [`Error::File`].
    pub fn find(&self, name: &str, binding: &Binding) -> Result<Option<Spooled>, Error> {
        let (body, manifest_path) = (self.path(name, "body"), self.path(name, "manifest"));
        let bytes = match fs::read(&manifest_path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                self.check_unanswered(name)?;
                return self.claimed(name, &binding.fingerprint).map(|_| None);
            }
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

    /// Fails when the requisition was closed before.
    fn check_unanswered(&self, name: &str) -> Result<(), Error> {
        let path = self.path(name, ANSWERED);
        match path.try_exists() {
            Ok(false) => Ok(()),
            Ok(true) => Err(Error::AlreadyAnswered { name: name.to_owned() }),
            Err(error) => Err(Error::file("cannot look for", &path)(error)),
        }
    }

    /// Whether the request is claimed by this name. Fails when it is by another.
    fn claimed(&self, name: &str, fingerprint: &[u8; 32]) -> Result<bool, Error> {
        let path = self.path(&hex::encode(fingerprint), CLAIM);
        match fs::read(&path) {
            Ok(owner) if owner == name.as_bytes() => Ok(true),
            Ok(_) => Err(Error::AnsweredUnderAnotherName),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Error::file("cannot read", &path)(error)),
        }
    }

    /// Claims the request for this name, for good, before anything is drawn for it.
    fn claim(&self, name: &str, fingerprint: &[u8; 32]) -> Result<(), Error> {
        let _one_at_a_time = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        if self.claimed(name, fingerprint)? {
            return Ok(());
        }
        let (draft, path) = (self.path(name, "claim.partial"), self.path(&hex::encode(fingerprint), CLAIM));
        write_durably(&draft, name.as_bytes())?;
        fs::rename(&draft, &path).map_err(Error::file("cannot rename to", &path))?;
        self.sync()
    }

    /// Makes a new body of this name, which must be a plain file name. `write` writes it and returns the number of its
    /// records; `attach` is given the body's SHA-256 and makes what the header carries. Both are durable when this
    /// returns; when it fails or is interrupted, nothing is left but what the next attempt removes.
    ///
    /// # Errors
    /// [`Error::AlreadyAnswered`], [`Error::AnsweredUnderAnotherName`], [`Error::File`], [`Error::Interrupted`], and what `write` and `attach` return.
    pub fn create<T>(
        &self,
        name: &str,
        binding: &Binding,
        write: impl FnOnce(&mut dyn Write) -> Result<(u64, T), BodyError>,
        attach: impl FnOnce(T, &[u8; 32]) -> Result<Vec<u8>, Error>,
    ) -> Result<Spooled, Error> {
        self.check_unanswered(name)?;
        self.claim(name, &binding.fingerprint)?;
        let (partial, body) = (self.path(name, "partial"), self.path(name, "body"));
        let written = write_body(&partial, write).and_then(|(record_count, body_length, body_sha256, rest)| {
            let attachment = attach(rest, &body_sha256)?;
            Ok(Manifest { record_count, body_length, body_sha256, binding: *binding, attachment })
        });
        let manifest = match written {
            Ok(manifest) => manifest,
            Err(error) => {
                // Best effort: the file is of no use, and the next attempt overwrites it.
                let _ = fs::remove_file(&partial);
                return Err(error);
            }
        };
        fs::rename(&partial, &body).map_err(Error::file("cannot rename to", &body))?;
        let (draft, final_path) = (self.path(name, "manifest.partial"), self.path(name, "manifest"));
        write_durably(&draft, &manifest.to_bytes())?;
        fs::rename(&draft, &final_path).map_err(Error::file("cannot rename to", &final_path))?;
        self.sync()?;
        Ok(Spooled { body, manifest })
    }

    fn sync(&self) -> Result<(), Error> {
        File::open(&self.directory)
            .and_then(|directory| directory.sync_all())
            .map_err(Error::file("cannot make durable", &self.directory))
    }

    /// Removes a body, after its requisition is closed. Where it was complete it is kept in mind that there was an answer.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn close(&self, name: &str) -> Result<(), Error> {
        let (manifest, answered) = (self.path(name, "manifest"), self.path(name, ANSWERED));
        match fs::rename(&manifest, &answered) {
            Ok(()) => self.sync()?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::file("cannot rename to", &answered)(error)),
        }
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

/// Writes a small file whose bytes are durable when this returns; its name is not yet.
fn write_durably(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let mut file = File::create(path).map_err(Error::file("cannot create", path))?;
    file.write_all(bytes).map_err(Error::file("cannot write", path))?;
    file.sync_all().map_err(Error::file("cannot make durable", path))
}

/// Writes a body: its records, length and SHA-256, and what else was made.
fn write_body<T>(
    partial: &Path,
    write: impl FnOnce(&mut dyn Write) -> Result<(u64, T), BodyError>,
) -> Result<(u64, u64, [u8; 32], T), Error> {
    let file = File::create(partial).map_err(Error::file("cannot create", partial))?;
    let mut out = Hashing { inner: BufWriter::new(file), hash: Sha256::new(), length: 0 };
    let (records, rest) = write(&mut out).map_err(|error| match error {
        BodyError::Write(source) => Error::file("cannot write", partial)(source),
        BodyError::Stopped(error) => error,
    })?;
    let file = out.inner.into_inner().map_err(|error| Error::file("cannot write", partial)(error.into_error()))?;
    file.sync_all().map_err(Error::file("cannot make durable", partial))?;
    Ok((records, out.length, out.hash.finalize().into(), rest))
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
