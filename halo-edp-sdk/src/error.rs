//! What can go wrong at a publisher.

use std::{io, path::PathBuf};

use halo_core::measurement::Population;

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
    /// A column is not of integers: convert it.
    #[error("column `{column}` of {} holds {found}; it must hold 32-bit or 64-bit integers", path.display())]
    ColumnType {
        /// The file.
        path: PathBuf,
        /// The column.
        column: &'static str,
        /// The type that it holds.
        found: String,
    },
    /// A row has no VID or no seconds, or something else in their place: repair the row.
    #[error("row {row} of {} (the first row is 1): {problem}", path.display())]
    BadRow {
        /// The file.
        path: PathBuf,
        /// The row, counted from 1.
        row: u64,
        /// What is wrong with it.
        problem: String,
    },
    /// A person is not of the population that frequency vectors are over (the row is told, never the VID): ask the Kingdom's operator for a wider
    /// population, or leave the row out.
    #[error(
        "row {row} of {} (the first row is 1): its VID is outside of the population {population}, which the vectors are \
         over; a wider `[population]` at the Kingdom takes it in, or leave such rows out", path.display()
    )]
    OutsidePopulation {
        /// The file.
        path: PathBuf,
        /// The row, counted from 1.
        row: u64,
        /// The population, `FIRST..LAST`.
        population: Population,
    },
    /// The file says nothing about how long was watched: add the column, or state what an impression counts for.
    #[error(
        "{} has no column `seconds`, which a measurement of durations needs; add it, or state `seconds_per_impression` in \
         the configuration", path.display()
    )]
    NoSecondsColumn {
        /// The file.
        path: PathBuf,
    },
    /// This answer has to be signed, and there is nothing to sign it with: configure the consent certificate and key.
    #[error("a consent certificate and its key are needed to sign this answer (`consent` in the configuration)")]
    NoSigner,
    /// A key does not take what is encrypted to it, or a certificate does not belong to its key: replace it.
    #[error(transparent)]
    Consent(#[from] halo_crypto::consent::Error),
    /// An envelope cannot be made: the trustee's key does not encrypt.
    #[error(transparent)]
    Envelope(#[from] halo_crypto::envelope::Error),
    /// A value is too large for the shares' modulus: the measurement cannot be answered.
    #[error(transparent)]
    Share(#[from] halo_crypto::share::ShareError),
    /// The requisition was answered before, and its body is gone. Nothing is drawn twice for one requisition: noise that
    /// is drawn again averages out. Ask the Kingdom's operator why it is still open.
    #[error("requisition {name} was answered before; nothing is drawn twice for one requisition")]
    AlreadyAnswered {
        /// Its id.
        name: String,
    },
    /// Sketch or noise parameters are out of range: the measurement cannot be answered.
    #[error(transparent)]
    Sketch(#[from] halo_sketch::Error),
    /// A spooled body does not match its manifest: restore it from a copy. Whoever removes both files instead lets a
    /// second answer be drawn, with other noise, for the same requisition.
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
    /// The consumer asked once, and the Kingdom hands the very same request out under a second name: what is drawn again
    /// averages out. It is refused.
    #[error("this request was answered before under another name; nothing is drawn twice for one request")]
    AnsweredUnderAnotherName,
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

/// Why a body was not written to its end.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// It could not be written.
    #[error("cannot write the body: {0}")]
    Write(io::Error),
    /// The observer asked to stop, or it cannot be made.
    #[error(transparent)]
    Stopped(Error),
}
