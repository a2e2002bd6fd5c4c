//! Checking the second log's chain: while it is opened, and without opening it for writing.

use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::stored::{check_link, split};
use super::{EventsHead, StoredEvent};
use crate::log::{self, Files, Kind, RecordRef, Recovered, TornTail};

/// How often progress is told: every so many events.
const PROGRESS_INTERVAL: u64 = 10_000;

/// Why the second log did not open. Nothing on disk was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The log under it did not open.
    #[error(transparent)]
    Log(#[from] log::OpenError),
    /// An event is not what was written, though its checksum is right: somebody or something has rewritten it.
    #[error(transparent)]
    BadEvent(#[from] BadEvent),
}

/// The first event that is not what was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{}: event {seq}, at byte {offset}: {what}; restore the folder from a backup, or move it away: a new log is begun \
     then, and signed checkpoints show the gap",
    path.display()
)]
pub struct BadEvent {
    /// Its number.
    pub seq: u64,
    /// The file.
    pub path: PathBuf,
    /// Where in the file its record's payload starts, in bytes.
    pub offset: u64,
    /// What is wrong.
    pub what: String,
}

/// A second log that was found to be as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedEvents {
    /// Number of the first event that is kept.
    pub first_seq: u64,
    /// The last event.
    pub head: EventsHead,
    /// Events that are kept.
    pub events: u64,
    /// Length of their JSON, in bytes.
    pub bytes: u64,
    /// A write that was torn, or that a running server is making right now.
    pub torn: Option<TornTail>,
    /// Further things an operator should know, as sentences.
    pub notes: Vec<String>,
}

/// How far a check has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventsProgress {
    /// Events checked.
    pub events: u64,
    /// Bytes of files behind it.
    pub bytes: u64,
    /// Bytes of all files, as they were at the start.
    pub total_bytes: u64,
}

/// Why the second log is not sound, or could not be checked. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum VerifyEventsError {
    /// The folder holds none.
    #[error("{}: there is no security log in this folder", .0.display())]
    NoLog(PathBuf),
    /// The first thing that is not as it was written, or what prevented the check.
    #[error(transparent)]
    Open(#[from] OpenError),
}

impl From<log::OpenError> for VerifyEventsError {
    fn from(error: log::OpenError) -> Self {
        Self::Open(error.into())
    }
}

/// Reads the whole log in `dir`, recomputes every checksum and the chain, and reads every event. `seen` is told where the log
/// ends after each of them. Takes no lock: while a server appends, its last write may be reported as torn. Blocks.
///
/// # Errors
///
/// The first damage or bad event, with file and offset.
pub fn verify(
    files: &dyn Files,
    dir: &Path,
    progress: &mut dyn FnMut(EventsProgress),
    seen: &mut dyn FnMut(EventsHead),
) -> Result<VerifiedEvents, VerifyEventsError> {
    log::identity(files, dir)?.ok_or_else(|| VerifyEventsError::NoLog(dir.to_owned()))?;
    let total_bytes = total_bytes(files, dir);
    let mut walk = Walk::new(true);
    let (mut events, mut bytes, mut file) = (0, 0, PathBuf::new());
    let (mut earlier_files, mut end_of_file) = (0, 0);
    let inspected = log::inspect(files, dir, Kind::Security, |record| {
        if record.path != file {
            earlier_files += end_of_file;
            record.path.clone_into(&mut file);
        }
        end_of_file = record.offset + record.payload.len() as u64;
        walk.step(record);
        if let (None, Some(head)) = (&walk.bad, walk.head) {
            events += 1;
            bytes += walk.last.len() as u64;
            seen(head);
            if events % PROGRESS_INTERVAL == 0 {
                progress(EventsProgress { events, bytes: earlier_files + end_of_file, total_bytes });
            }
        }
    });
    // A bad event is before any damage that ended the reading.
    if let Some(bad) = walk.bad.take() {
        return Err(OpenError::from(bad).into());
    }
    let inspected = inspected?;
    let head = walk.end(dir, &inspected)?;
    progress(EventsProgress { events, bytes: total_bytes, total_bytes });
    let Recovered { first_seq, torn, notes, .. } = inspected;
    Ok(VerifiedEvents { first_seq, head, events, bytes, torn, notes })
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

/// Follows the chain along the records of a log.
pub(super) struct Walk {
    /// Reads every event rather than only the first of each file.
    reads_all: bool,
    /// Where the log ends with the last record; nothing before the first one.
    pub(super) head: Option<EventsHead>,
    /// The first event and its time of each file.
    pub(super) segments: Vec<(u64, u64)>,
    pub(super) bad: Option<BadEvent>,
    file: PathBuf,
    /// JSON of the last event.
    last: Vec<u8>,
    last_offset: u64,
}

impl Walk {
    pub(super) fn new(reads_all: bool) -> Self {
        Self {
            reads_all,
            head: None,
            segments: Vec::new(),
            bad: None,
            file: PathBuf::new(),
            last: Vec::new(),
            last_offset: 0,
        }
    }

    /// Checks that a record is the next link. Nothing is looked at behind the first bad one.
    pub(super) fn step(&mut self, record: RecordRef<'_>) {
        if self.bad.is_some() {
            return;
        }
        if let Err(what) = self.check(record) {
            let (path, offset) = (record.path.to_owned(), record.offset);
            self.bad = Some(BadEvent { seq: record.seq, path, offset, what });
        }
    }

    fn check(&mut self, record: RecordRef<'_>) -> Result<(), String> {
        let (hash, bytes) = split(record.payload)?;
        let starts_file = record.path != self.file;
        match self.head {
            Some(EventsHead { hash: before, .. }) if !self.reads_all && !starts_file => {
                check_link(before, bytes, hash)?;
            }
            before => {
                let before = before.map(|head| head.hash);
                let stored = StoredEvent::verify(before, record.seq, Bytes::copy_from_slice(bytes), hash)?;
                if starts_file {
                    record.path.clone_into(&mut self.file);
                    self.segments.push((record.seq, stored.event.at));
                }
            }
        }
        self.head = Some(EventsHead { seq: record.seq, hash });
        self.last.clear();
        self.last.extend_from_slice(bytes);
        self.last_offset = record.offset;
        Ok(())
    }

    /// Where the log ends.
    pub(super) fn end(&self, dir: &Path, recovered: &Recovered) -> Result<EventsHead, OpenError> {
        match self.head {
            Some(head) => Ok(head),
            None if recovered.next_seq == 1 => Ok(EventsHead::EMPTY),
            // Removing segments leaves the newest, with its first event: nothing of Guidon's leaves such a folder.
            None => {
                let what = "all events are gone, and with them what the next one would follow".to_owned();
                Err(BadEvent { seq: recovered.next_seq, path: dir.to_owned(), offset: 0, what }.into())
            }
        }
    }

    /// The time of the last event; one that cannot be read is the first bad one.
    pub(super) fn last_at(&mut self) -> u64 {
        let (Some(head), None) = (self.head, &self.bad) else { return 0 };
        match StoredEvent::read(head.seq, Bytes::copy_from_slice(&self.last), head.hash) {
            Ok(stored) => stored.event.at,
            Err(what) => {
                self.bad = Some(BadEvent { seq: head.seq, path: self.file.clone(), offset: self.last_offset, what });
                0
            }
        }
    }
}
