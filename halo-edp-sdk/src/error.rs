//! What can go wrong at a publisher.

use std::{io, path::PathBuf};

/// Why impressions could not be read, or a requisition not be answered; one variant for each thing to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file cannot be read or written: check its path, its permissions and the disk.
    #[error("{what} {}: {source}", path.display())]
    File {
        /// What was being done.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A file is no Parquet file, or a damaged one: write it again.
    #[error("{} is no readable Parquet file: {reason}", path.display())]
    NotParquet {
        /// The file.
        path: PathBuf,
        /// What the reader said.
        reason: String,
    },
    /// The file has no column of VIDs: rename the column, or give another file.
    #[error("{} has no column `vid`; its columns are {columns}", path.display())]
    NoVidColumn {
        /// The file.
        path: PathBuf,
        /// The columns it has, separated by commas.
        columns: String,
    },
    /// The column of VIDs is not of integers: convert it.
    #[error("column `vid` of {} holds {found}; it must hold 32-bit or 64-bit integers", path.display())]
    VidType {
        /// The file.
        path: PathBuf,
        /// The type that it holds.
        found: String,
    },
    /// A row has no VID, or one that is none: repair the row.
    #[error("row {row} of {} (the first row is 1): {problem}", path.display())]
    BadVid {
        /// The file.
        path: PathBuf,
        /// The row, counted from 1.
        row: u64,
        /// What is wrong with its VID.
        problem: String,
    },
    /// Sketch or noise parameters are out of range: the measurement cannot be answered.
    #[error(transparent)]
    Sketch(#[from] halo_sketch::Error),
    /// A spooled body does not match its manifest: remove both files, and encrypt again.
    #[error("spooled body {} is damaged: {reason}", path.display())]
    Spool {
        /// The body.
        path: PathBuf,
        /// What does not match.
        reason: String,
    },
    /// Another process spools there: give each publisher a directory of its own, or end the other process.
    #[error("spool directory {} is used by another publisher's process; give each a spool_dir of its own", path.display())]
    SpoolInUse {
        /// The directory.
        path: PathBuf,
    },
    /// The caller asked to stop. What is spooled stays; an unfinished body was removed.
    #[error("stopped on request")]
    Interrupted,
}

impl Error {
    /// For `map_err` on file operations.
    pub(crate) fn file(what: &'static str, path: &std::path::Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::File { what, path, source }
    }
}
