//! Checking an embedded journal without opening it for writing.

use std::path::{Path, PathBuf};

use super::Head;
use super::file::{OpenError, RawEntry, Walk, history_of};
use crate::log::{self, Files, Kind, TornTail};

/// How often progress is told: every so many entries.
const PROGRESS_INTERVAL: u64 = 1_000;

/// A journal that was found to be as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Its history id.
    pub history: String,
    /// The last entry.
    pub head: Head,
    /// Length of all entries' JSON, in bytes.
    pub bytes: u64,
    /// A write that was torn, or that a running server is making right now.
    pub torn: Option<TornTail>,
    /// Further things an operator should know, as sentences.
    pub notes: Vec<String>,
}

/// How far a check has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Entries checked.
    pub entries: u64,
    /// Bytes of files behind it.
    pub bytes: u64,
    /// Bytes of all files, as they were at the start.
    pub total_bytes: u64,
}

/// Why a journal is not sound, or could not be checked. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The folder holds none.
    #[error("{}: there is no journal in this folder", .0.display())]
    NoJournal(PathBuf),
    /// The first thing that is not as it was written, or what prevented the check.
    #[error(transparent)]
    Open(#[from] OpenError),
}

impl From<log::OpenError> for VerifyError {
    fn from(error: log::OpenError) -> Self {
        Self::Open(error.into())
    }
}

/// Reads the whole journal in `dir`, recomputes every checksum and the chain, and reads every entry. Takes no lock: while a
/// server appends, its last write may be reported as torn. Blocks.
///
/// # Errors
///
/// The first damage or bad entry, with file and offset.
pub fn verify(files: &dyn Files, dir: &Path, progress: &mut dyn FnMut(Progress)) -> Result<Verified, VerifyError> {
    verify_seeing(files, dir, progress, &mut |_| {})
}

/// As [`verify`], and tells `seen` where the journal ends after each entry, so that a chain hash that somebody has kept can be
/// compared.
///
/// # Errors
///
/// As [`verify`].
pub fn verify_seeing(
    files: &dyn Files,
    dir: &Path,
    progress: &mut dyn FnMut(Progress),
    seen: &mut dyn FnMut(Head),
) -> Result<Verified, VerifyError> {
    walk(files, dir, progress, &mut |raw| {
        raw.read()?;
        seen(Head { revision: raw.revision(), hash: raw.hash });
        Ok(())
    })
}

/// Visits every entry of the journal in `dir`, checksums and chain checked.
pub(super) fn walk(
    files: &dyn Files,
    dir: &Path,
    progress: &mut dyn FnMut(Progress),
    visit: &mut dyn FnMut(RawEntry<'_>) -> Result<(), String>,
) -> Result<Verified, VerifyError> {
    let id = log::identity(files, dir)?.ok_or_else(|| VerifyError::NoJournal(dir.to_owned()))?;
    let total_bytes = total_bytes(files, dir);
    let mut walk = Walk::new();
    let (mut bytes, mut file, mut earlier_files) = (0, PathBuf::new(), 0);
    let mut end_of_file = 0;
    let inspected = log::inspect(files, dir, Kind::Journal, |record| {
        if record.path != file {
            earlier_files += end_of_file;
            record.path.clone_into(&mut file);
        }
        end_of_file = record.offset + record.payload.len() as u64;
        walk.step(record, |raw| {
            bytes += raw.bytes.len() as u64;
            if raw.revision() % PROGRESS_INTERVAL == 0 {
                progress(Progress { entries: raw.revision(), bytes: earlier_files + end_of_file, total_bytes });
            }
            visit(raw)
        });
    });
    // A bad entry is before any damage that ended the reading.
    if let Some(bad) = walk.bad {
        return Err(OpenError::from(bad).into());
    }
    let inspected = inspected?;
    progress(Progress { entries: walk.head.revision, bytes: total_bytes, total_bytes });
    Ok(Verified { history: history_of(id), head: walk.head, bytes, torn: inspected.torn, notes: inspected.notes })
}

/// Length of all segments, for progress only: what cannot be read is left out and reported by the check itself.
fn total_bytes(files: &dyn Files, dir: &Path) -> u64 {
    let names = files.list(dir).unwrap_or_default();
    let lengths = names.iter().filter(|name| name.ends_with(".log")).filter_map(|name| {
        let file = files.open(&dir.join(name)).ok()?;
        file.len().ok()
    });
    lengths.sum()
}
