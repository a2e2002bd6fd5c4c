//! A segmented append-only log of records, under the journal, the assignment log and the vault.
//!
//! A record gets its sequence number (from 1, without gaps) when [`Log::append`] is called and is acknowledged when it is
//! durable. One thread writes: whatever came together since its last `fdatasync` goes into one frame, one write and one
//! `fdatasync`, and is acknowledged in order. Reads see durable records only and check each one's checksum.
//!
//! - Opening checks every byte. What a power cut tore is cut off and reported; everything else that is not as it was
//!   written stops the start ([`recovery`] has the rule).
//! - After a failed write or sync the log is read-only until it is opened again; a sync is never retried.
//! - A full disk fails the appends under way with [`AppendError::DiskFull`], certainly not stored, and the log takes no
//!   more until its owner has followed and called [`Log::resume`].
//!
//! A folder holds `lock`, `watermark` and the segments, `00000000000000000001.log` and so on, named by their first
//! record. [`frame`] has the bytes.

mod damage;
mod error;
pub mod files;
pub mod frame;
pub mod recovery;
mod repair;
mod segment;
pub mod sim;
mod watermark;
mod writer;

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{JoinHandle, Thread};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};

pub use self::damage::{Damage, FlippedByte};
pub use self::error::{AppendError, OpenError, ReadError};
pub use self::files::{Files, RealFiles};
pub use self::frame::{LogId, MAX_GROUP_BYTES, MAX_RECORD_BYTES};
pub use self::recovery::{RecordRef, Recovered, TornTail};
pub use self::repair::{Repair, repair};
pub use self::segment::Record;

use self::error::at;
use self::files::{LockError, LockGuard};
use self::frame::RECORD_HEADER_BYTES;
use self::watermark::Mark;
use self::writer::{Shared, Writer};

/// What a log is for. It is stored, so that a folder configured for another purpose is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The journal of changes.
    Journal,
    /// Exposures.
    Assignments,
    /// Secrets and erasable data.
    Vault,
    /// Refusals, sign-ins and credential events.
    Security,
}

impl Kind {
    pub(crate) const ALL: [Self; 4] = [Self::Journal, Self::Assignments, Self::Vault, Self::Security];

    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Journal => 1,
            Self::Assignments => 2,
            Self::Vault => 3,
            Self::Security => 4,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Journal => "journal",
            Self::Assignments => "assignments",
            Self::Vault => "vault",
            Self::Security => "security",
        })
    }
}

/// How a log is opened.
#[derive(Debug, Clone)]
pub struct Options {
    /// A segment is closed and a new one begun when the next frame would make it longer than this, in bytes. At least
    /// 4,096; 64 MiB by default. A frame that is longer by itself gets a segment of its own.
    pub segment_bytes: u64,
    /// How many bytes of records may wait to be written before [`AppendError::Busy`]. 64 MiB by default. One append is
    /// always taken when nothing waits.
    pub pending_limit_bytes: usize,
    /// After how many milliseconds without a write the watermark is synced. 50 by default.
    pub watermark_idle_ms: u64,
    /// A record that the caller knows to have been acknowledged, say from what it has derived from the log: the log does
    /// not open without it.
    pub acknowledged: Option<u64>,
    /// Identity of the log if it is created now. Random by default; simulations fix it.
    pub id: Option<LogId>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            pending_limit_bytes: 64 << 20,
            watermark_idle_ms: 50,
            acknowledged: None,
            id: None,
        }
    }
}

impl Options {
    /// Smallest [`Options::segment_bytes`].
    pub const MIN_SEGMENT_BYTES: u64 = 4 << 10;

    fn check(&self) -> Result<(), OpenError> {
        if self.segment_bytes < Self::MIN_SEGMENT_BYTES {
            let problem = format!("{} is below the least, {}", self.segment_bytes, Self::MIN_SEGMENT_BYTES);
            return Err(OpenError::Option { name: "segment_bytes", problem });
        }
        Ok(())
    }
}

/// Whether a log takes records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogState {
    /// It does.
    Writable,
    /// Not until space was freed and [`Log::resume`] was called.
    DiskFull,
    /// Not until it is opened again.
    ReadOnly {
        /// What failed.
        reason: Arc<str>,
    },
    /// No more.
    Closed,
}

/// A log's condition, for health checks and metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Whether it takes records.
    pub state: LogState,
    /// First record kept.
    pub first_seq: u64,
    /// Every record before this one is durable.
    pub next_seq: u64,
    /// Bytes of records that wait to be written.
    pub pending_bytes: usize,
    /// Number of segment files.
    pub segments: usize,
    /// Their length in bytes.
    pub bytes: u64,
    /// Commits (one write and one sync each) since the log was opened.
    pub commits: u64,
}

/// One segment file, for retention by age or size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Its first record.
    pub first_seq: u64,
    /// The sequence number after its last durable record.
    pub next_seq: u64,
    /// Its length in bytes.
    pub bytes: u64,
}

/// An open log. Cheap to share in an [`Arc`]; dropping it closes it.
#[derive(Debug)]
pub struct Log {
    shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl Log {
    /// Opens the log in `dir`, creating it if the folder holds none, and visits all its records in order. Records that
    /// were visited before an error was found are to be forgotten.
    ///
    /// Blocks while it reads the whole log. What it reports as recovered is durable, acknowledged before or not.
    pub fn open(
        files: Arc<dyn Files>,
        dir: &Path,
        kind: Kind,
        options: Options,
        mut visit: impl FnMut(RecordRef<'_>),
    ) -> Result<(Self, Recovered), OpenError> {
        options.check()?;
        files.create_dir_all(dir).map_err(at(dir))?;
        let lock = lock(&*files, dir)?;
        if recovery::is_new(&*files, dir)? {
            if let Some(seq) = options.acknowledged.filter(|&seq| seq > 0) {
                let what = format!("the folder holds no log, but records up to {seq} were acknowledged");
                return Err(recovery::damage(dir, 0, Some(1), what).into());
            }
            create(&*files, dir, kind, &options).map_err(at(dir))?;
        }
        let scan = recovery::scan(&*files, dir, kind, options.acknowledged, &mut visit)?;
        let recovered = scan.recovered();
        let writer = Writer::start(files, dir.to_owned(), options, scan, lock).map_err(at(dir))?;
        let shared = Arc::clone(writer.shared());
        let thread = std::thread::Builder::new().name(format!("{kind}-log")).spawn(move || writer.run());
        let thread = Mutex::new(Some(thread.map_err(at(dir))?));
        Ok((Self { shared, writer: thread }, recovered))
    }

    /// Appends one record. Its sequence number is assigned before this returns, in the order of the calls; it is durable
    /// when the returned future resolves. Dropping the future does not take the record back.
    pub fn append(&self, record: impl Into<Bytes>) -> Result<Appended, AppendError> {
        self.append_many(vec![record.into()])
    }

    /// Appends records with consecutive sequence numbers that are stored together: after a crash all are there or none.
    pub fn append_many(&self, records: Vec<Bytes>) -> Result<Appended, AppendError> {
        let too_large = |unit, bytes, limit_bytes| Err(AppendError::TooLarge { unit, bytes, limit_bytes });
        if records.is_empty() {
            return Err(AppendError::Empty);
        }
        if let Some(record) = records.iter().find(|record| record.len() > MAX_RECORD_BYTES) {
            return too_large("record", record.len(), MAX_RECORD_BYTES);
        }
        let bytes = records.iter().map(|record| record.len() + RECORD_HEADER_BYTES).sum();
        if bytes > MAX_GROUP_BYTES {
            return too_large("append", bytes, MAX_GROUP_BYTES);
        }
        let (done, receiver) = oneshot::channel();
        let first_seq = self.shared.enqueue(records, bytes, done)?;
        Ok(Appended { first_seq, receiver })
    }

    /// The sequence number that the next append would get.
    pub fn next_seq(&self) -> u64 {
        self.shared.assigned_next_seq()
    }

    /// The sequence number of the last durable record (the one before the first if there is none), as it moves. A receiver
    /// sees the newest value, not each. Records can be read when a receiver hears of them, and it does before their
    /// appends are acknowledged.
    pub fn watch_last_seq(&self) -> watch::Receiver<u64> {
        self.shared.watch_last_seq()
    }

    /// Reads durable records from `from_seq` on, until their payloads reach `limit_bytes`; at least one if there is one.
    /// Empty at the end of the log. Blocks on the disk.
    pub fn read(&self, from_seq: u64, limit_bytes: usize) -> Result<Vec<Record>, ReadError> {
        self.shared.read(from_seq, limit_bytes)
    }

    /// Walks the durable records from `from_seq` on, about a megabyte in memory at a time, as far as the log goes when it
    /// gets there. Blocks on the disk.
    pub fn iter(&self, from_seq: u64) -> Iter {
        Iter { shared: Arc::clone(&self.shared), next_seq: from_seq, read: VecDeque::new() }
    }

    /// Reads the log from elsewhere: for copying it while it is written.
    pub fn reader(&self) -> Reader {
        Reader { shared: Arc::clone(&self.shared) }
    }

    /// The segments, oldest first; the last one is being written.
    pub fn segments(&self) -> Vec<SegmentInfo> {
        self.shared.segments()
    }

    /// Begins a new segment with the next record, so that [`Log::remove_segments_before`] can remove all older ones.
    pub fn start_segment(&self) {
        self.shared.start_segment();
    }

    /// Removes the segments that hold only records before `seq`, durably, and returns how many those were. The newest
    /// segment always stays. If it fails midway, the rest is removed when the log is opened next. Blocks on the disk.
    pub fn remove_segments_before(&self, seq: u64) -> io::Result<usize> {
        self.shared.remove_segments_before(seq)
    }

    /// Takes records again after [`AppendError::DiskFull`]. Returns the sequence number of the next record if the log was
    /// stopped by a full disk, `None` if it was not.
    ///
    /// The appends that failed gave up their sequence numbers. An owner whose records depend on the ones before (a hash
    /// chain) must go back to the record before the returned number, holding the lock under which it appends.
    pub fn resume(&self) -> Option<u64> {
        self.shared.resume()
    }

    /// Present condition.
    pub fn health(&self) -> Health {
        self.shared.health()
    }

    /// Writes what waits, notes durably how far the log goes, releases the folder. Appends get
    /// [`AppendError::Closed`] from now on. Blocks until it is done; an error says that the log had become read-only.
    pub fn close(&self) -> Result<(), AppendError> {
        self.shared.begin_close();
        if let Some(writer) = self.writer.lock().take() {
            // A panic in the thread has failed the appends that waited; there is nothing more to do about it here.
            let _ = writer.join();
        }
        self.shared.failure().map_or(Ok(()), |reason| Err(AppendError::ReadOnly { reason }))
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let _ = self.close();
    }
}

/// Checks a whole log without opening it for writing, and changes nothing. If another process is appending, its last
/// write may be reported as torn.
pub fn inspect(
    files: &dyn Files,
    dir: &Path,
    kind: Kind,
    mut visit: impl FnMut(RecordRef<'_>),
) -> Result<Recovered, OpenError> {
    recovery::scan(files, dir, kind, None, &mut visit).map(|scan| scan.recovered())
}

/// Makes an empty log in `dir` whose first record will have the number `first_seq`: for a copy of one whose older records are
/// gone.
pub fn begin_at(files: &dyn Files, dir: &Path, kind: Kind, options: &Options, first_seq: u64) -> Result<(), OpenError> {
    files.create_dir_all(dir).map_err(at(dir))?;
    let id = options.id.unwrap_or_else(|| uuid::Uuid::new_v4().into_bytes());
    watermark::create(files, dir, kind.code(), id, Mark { first_seq, next_seq: first_seq }).map_err(at(dir))
}

/// The identity of the log in `dir`, without opening it; `None` where there is no log.
pub fn identity(files: &dyn Files, dir: &Path) -> Result<Option<LogId>, OpenError> {
    match files.list(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(at(dir)(error)),
        Ok(_) => {}
    }
    if recovery::is_new(files, dir)? { Ok(None) } else { watermark::read(files, dir).map(|evidence| Some(evidence.id)) }
}

fn lock(files: &dyn Files, dir: &Path) -> Result<Box<dyn LockGuard>, OpenError> {
    let path = dir.join("lock");
    files.lock(&path).map_err(|error| match error {
        LockError::Held { pid } => OpenError::Locked { dir: dir.to_owned(), pid },
        LockError::Io(source) => OpenError::Io { path, source },
    })
}

fn create(files: &dyn Files, dir: &Path, kind: Kind, options: &Options) -> io::Result<()> {
    for name in files.list(dir)?.iter().filter(|name| name.ends_with(files::TEMPORARY_SUFFIX)) {
        files.remove(&dir.join(name))?;
    }
    let id = options.id.unwrap_or_else(|| uuid::Uuid::new_v4().into_bytes());
    watermark::create(files, dir, kind.code(), id, Mark { first_seq: 1, next_seq: 1 })
}

/// Records on their way to the disk. Resolves to the first one's sequence number when all are durable.
#[derive(Debug)]
#[must_use = "nothing is known to be stored until this resolves"]
pub struct Appended {
    first_seq: u64,
    receiver: oneshot::Receiver<Result<(), AppendError>>,
}

impl Appended {
    /// Sequence number of the first record. It is given up if the append fails.
    pub fn first_seq(&self) -> u64 {
        self.first_seq
    }

    /// Waits by blocking the thread: for synchronous code. In async code await instead, for the other tasks' sake.
    pub fn wait(mut self) -> Result<u64, AppendError> {
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        let mut context = Context::from_waker(&waker);
        loop {
            match Pin::new(&mut self).poll(&mut context) {
                Poll::Ready(done) => return done,
                // May return without a reason; then the next poll says so.
                Poll::Pending => std::thread::park(),
            }
        }
    }
}

/// Wakes a thread that waits for an append. Tokio's own blocking wait panics inside a runtime.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

impl Future for Appended {
    type Output = Result<u64, AppendError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let first_seq = self.first_seq;
        Pin::new(&mut self.receiver)
            .poll(context)
            .map(|done| done.unwrap_or(Err(AppendError::Closed)).map(|()| first_seq))
    }
}

/// Reads a log beside its owner, who goes on writing it.
#[derive(Debug, Clone)]
pub struct Reader {
    shared: Arc<Shared>,
}

impl Reader {
    /// The numbers of the records that are kept and durable now.
    pub fn range(&self) -> std::ops::Range<u64> {
        let health = self.shared.health();
        health.first_seq..health.next_seq
    }

    /// As [`Log::segments`].
    pub fn segments(&self) -> Vec<SegmentInfo> {
        self.shared.segments()
    }

    /// As [`Log::read`].
    pub fn read(&self, from_seq: u64, limit_bytes: usize) -> Result<Vec<Record>, ReadError> {
        self.shared.read(from_seq, limit_bytes)
    }
}

/// Walks a log; made by [`Log::iter`]. Ends after an error.
#[derive(Debug)]
pub struct Iter {
    shared: Arc<Shared>,
    next_seq: u64,
    read: VecDeque<Record>,
}

impl Iterator for Iter {
    type Item = Result<Record, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        const READ_BYTES: usize = 1 << 20;
        if self.read.is_empty() {
            match self.shared.read(self.next_seq, READ_BYTES) {
                Ok(records) => self.read = records.into(),
                Err(error) => {
                    self.next_seq = u64::MAX;
                    return Some(Err(error));
                }
            }
        }
        let record = self.read.pop_front()?;
        self.next_seq = record.seq + 1;
        Some(Ok(record))
    }
}

#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod tests;
