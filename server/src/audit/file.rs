//! The second log on disk: chained events as records of a [`Log`].
//!
//! A record is the 32 bytes of the chain hash up to and with the event, followed by the event's JSON. Sequence numbers of the
//! log are the events' numbers. Events are taken in without waiting, and one thread writes them ([`super::writer`]).

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use futures_util::FutureExt;
use futures_util::future::{self, BoxFuture};
use parking_lot::Mutex;

use super::stored::{bounded, split};
use super::verify::{OpenError, Walk};
use super::writer::{Shared, Start, Writer};
use super::{AuditLog, CoalesceLimits, Event, Events, EventsError, EventsHead, StoredEvent};
use crate::clock::Clock;
use crate::log::{self, Files, Kind, Log, LogState, Recovered};

/// How much one read from the disk asks for, in bytes.
const READ_BYTES: usize = 256 << 10;

/// Times a read starts again because the events it was about to read were removed.
const READ_ATTEMPTS: usize = 3;

/// How much the second log keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditRetention {
    /// Days after which events are removed, give or take a segment. Default 400.
    pub max_age_days: u64,
    /// Bytes beyond which the oldest are removed, give or take a segment. Default 2 GiB.
    pub max_bytes: u64,
    /// Length of a segment file, in bytes: what is removed at once. Default 16 MiB.
    pub segment_bytes: u64,
    /// Hours after which a segment is ended though it is not full. Default 168.
    pub segment_hours: u64,
}

impl Default for AuditRetention {
    fn default() -> Self {
        Self { max_age_days: 400, max_bytes: 2 << 30, segment_bytes: 16 << 20, segment_hours: 7 * 24 }
    }
}

/// How the second log takes events in and keeps them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditOptions {
    /// Events that may wait to be written; beyond it they are counted and no more. Default 8,192.
    pub max_queued_events: usize,
    /// How much is told apart.
    pub coalesce: CoalesceLimits,
    /// How much is kept.
    pub retention: AuditRetention,
}

impl Default for AuditOptions {
    fn default() -> Self {
        Self { max_queued_events: 8_192, coalesce: CoalesceLimits::default(), retention: AuditRetention::default() }
    }
}

/// The second log's condition, for health checks and metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditHealth {
    /// The log under it.
    pub log: log::Health,
    /// Events that wait to be looked at.
    pub queued: usize,
    /// Events that could not be written and are only counted, since the log was opened.
    pub lost: u64,
}

impl AuditHealth {
    /// Whether events are written at present.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.log.state == LogState::Writable
    }
}

/// The second log on disk.
pub struct FileAuditLog {
    shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl FileAuditLog {
    /// Opens the log in `dir`, creating it if there is none. Blocks while every checksum and the chain are checked.
    ///
    /// # Errors
    ///
    /// [`OpenError`] if anything but a torn last write is not as it was written.
    pub fn open(
        files: Arc<dyn Files>,
        dir: &Path,
        clock: Arc<dyn Clock>,
        options: AuditOptions,
    ) -> Result<(Self, Recovered), OpenError> {
        let mut walk = Walk::new(false);
        // Segments are ended where the event is linked that starts the next one.
        let log_options = log::Options { segment_bytes: u64::MAX, ..log::Options::default() };
        let (log, recovered) = Log::open(files, dir, Kind::Security, log_options, |record| walk.step(record))?;
        let last_at = walk.last_at();
        if let Some(bad) = walk.bad.take() {
            return Err(bad.into());
        }
        let head = walk.end(dir, &recovered)?;
        let segments = std::mem::take(&mut walk.segments).into();
        let shared = Arc::new(Shared::new(log, clock, options, head));
        let writer = Writer::new(Arc::clone(&shared), Start { head, last_at, segments });
        let thread = std::thread::Builder::new().name("security-events".to_owned()).spawn(move || writer.run());
        let thread = thread.map_err(|source| log::OpenError::Io { path: dir.to_owned(), source })?;
        Ok((Self { shared, writer: Mutex::new(Some(thread)) }, recovered))
    }

    /// Waits until everything recorded before is written, what is still being gathered included, or is counted as lost.
    pub async fn flush(&self) {
        if let Some(done) = self.shared.ask_to_flush() {
            // A thread that ended answers no more; then there is nothing to wait for.
            let _ = done.await;
        }
    }

    /// Reads the log under it, for a copy.
    #[must_use]
    pub fn reader(&self) -> log::Reader {
        self.shared.log.reader()
    }

    /// Present condition.
    #[must_use]
    pub fn health(&self) -> AuditHealth {
        let (queued, lost) = self.shared.counts();
        AuditHealth { log: self.shared.log.health(), queued, lost }
    }

    /// Writes what waits and releases the folder; events recorded from now on are lost. Blocks until that is done.
    ///
    /// # Errors
    ///
    /// The log had become read-only.
    pub fn close(&self) -> Result<(), log::AppendError> {
        self.shared.begin_close();
        if let Some(writer) = self.writer.lock().take() {
            // A panic in the thread leaves nothing more to be done about it here.
            let _ = writer.join();
        }
        self.shared.log.close()
    }
}

impl Drop for FileAuditLog {
    fn drop(&mut self) {
        let _ = self.close();
    }
}

impl AuditLog for FileAuditLog {
    fn record(&self, event: Event) {
        self.shared.take_in(bounded(event));
    }
}

impl Events for FileAuditLog {
    fn head(&self) -> EventsHead {
        self.shared.head()
    }

    fn first_seq(&self) -> u64 {
        self.shared.log.health().first_seq
    }

    fn read(&self, after: u64, limit: usize) -> BoxFuture<'_, Result<Vec<StoredEvent>, EventsError>> {
        let last = self.head().seq;
        if limit == 0 || after >= last {
            return future::ready(Ok(Vec::new())).boxed();
        }
        let shared = Arc::clone(&self.shared);
        let read = tokio::task::spawn_blocking(move || read_kept(&shared.log, after, last, limit));
        read.map(|done| done.unwrap_or_else(|error| Err(EventsError::Io(error.to_string())))).boxed()
    }
}

fn read_kept(log: &Log, after: u64, last: u64, limit: usize) -> Result<Vec<StoredEvent>, EventsError> {
    let mut attempts = 0;
    loop {
        attempts += 1;
        match read_disk(log, after, last, limit) {
            // Retention went by: what is kept now starts later.
            Err(log::ReadError::Removed { .. }) if attempts < READ_ATTEMPTS => {}
            Err(log::ReadError::Damaged(damage)) => {
                return Err(EventsError::Damaged { seq: damage.seq.unwrap_or(after + 1), reason: damage.to_string() });
            }
            Err(error) => return Err(EventsError::Io(error.to_string())),
            Ok(read) => return read,
        }
    }
}

/// Reads events, checking each one's checksum and its link to the one before, or to what it says was before it where that
/// is removed.
fn read_disk(
    log: &Log,
    after: u64,
    last: u64,
    limit: usize,
) -> Result<Result<Vec<StoredEvent>, EventsError>, log::ReadError> {
    let first = log.health().first_seq;
    // The event before the first one asked for is read for its hash, where it is kept.
    let mut next = after.max(first);
    let mut before = None;
    let mut events = Vec::new();
    while next <= last && events.len() < limit {
        let records = log.read(next, READ_BYTES)?;
        if records.is_empty() {
            break;
        }
        for record in records.into_iter().take_while(|record| record.seq <= last) {
            let damaged = |reason: String| EventsError::Damaged { seq: record.seq, reason };
            next = record.seq + 1;
            let hash = match split(&record.payload) {
                Ok((hash, _)) => hash,
                Err(reason) => return Ok(Err(damaged(reason))),
            };
            if record.seq > after {
                if events.len() == limit {
                    break;
                }
                let bytes = record.payload.slice(super::stored::HASH_BYTES..);
                match StoredEvent::verify(before, record.seq, bytes, hash) {
                    Ok(stored) => events.push(stored),
                    Err(reason) => return Ok(Err(damaged(reason))),
                }
            }
            before = Some(hash);
        }
    }
    Ok(Ok(events))
}
