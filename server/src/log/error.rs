//! What can go wrong with a log.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::damage::Damage;

/// Why a log did not open. Nothing on disk was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has the log open.
    #[error(
        "{} is in use by process {}: stop it first, or choose another data folder",
        dir.display(), pid.map_or_else(|| "(unknown)".to_owned(), |pid| pid.to_string())
    )]
    Locked {
        /// The log's folder.
        dir: PathBuf,
        /// The holder's process id, where it could be read.
        pid: Option<u32>,
    },
    /// Something in the folder is damaged, and a power cut does not explain it.
    #[error(transparent)]
    Damaged(Box<Damage>),
    /// The log is of another format version, kind or identity than asked for.
    #[error("{}: {what}", path.display())]
    Foreign {
        /// The file that says so.
        path: PathBuf,
        /// What was found and what was expected.
        what: String,
    },
    /// An option is out of range.
    #[error("log option {name}: {problem}")]
    Option {
        /// The option.
        name: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// The operating system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Its answer.
        source: io::Error,
    },
}

impl From<Damage> for OpenError {
    fn from(damage: Damage) -> Self {
        Self::Damaged(Box::new(damage))
    }
}

/// Attaches the file's name to an I/O error.
pub(crate) fn at(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> OpenError {
    let path = path.into();
    move |source| OpenError::Io { path, source }
}

/// Why records were not appended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// Too many bytes wait to be written. Nothing was stored; try again later.
    #[error("the log is busy: {limit_bytes} bytes (pending_limit_bytes) wait to be written; try again")]
    Busy {
        /// The limit that was reached.
        limit_bytes: usize,
    },
    /// A record, or the records of one call together, are too large. Nothing was stored.
    #[error("{bytes} bytes in one {unit}, the limit is {limit_bytes}")]
    TooLarge {
        /// `record` or `append`.
        unit: &'static str,
        /// Its size.
        bytes: usize,
        /// The limit.
        limit_bytes: usize,
    },
    /// No record was given.
    #[error("an append of no records")]
    Empty,
    /// The disk is full. Nothing of it was stored. The log takes no record until [`Log::resume`](super::Log::resume).
    #[error("the disk is full: free some space; nothing was stored")]
    DiskFull,
    /// A write or a sync failed. Whether the records that were under way are stored is known only after the log was
    /// opened again; it is read-only until then.
    #[error("the log is read-only until restart: {reason}")]
    ReadOnly {
        /// What failed.
        reason: Arc<str>,
    },
    /// The log was closed. Nothing was stored.
    #[error("the log is closed")]
    Closed,
}

/// Why records could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The record was there and was removed with its segment.
    #[error("record {seq} was removed, the first one kept is {first_seq}")]
    Removed {
        /// The record asked for.
        seq: u64,
        /// The first one there is.
        first_seq: u64,
    },
    /// What was read is not what was written.
    #[error(transparent)]
    Damaged(Box<Damage>),
    /// The operating system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Its answer.
        source: io::Error,
    },
}
