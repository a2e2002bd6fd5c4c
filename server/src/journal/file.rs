//! The embedded journal: entries as records of a [`Log`], and the newest of them in memory.
//!
//! A record is the 32 bytes of the chain hash up to and with the entry, followed by the entry's JSON. Sequence numbers of
//! the log are the entries' revisions, and the log's identity is the history id.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{self, BoxFuture};
use parking_lot::Mutex;
use tokio::sync::watch;
use uuid::Uuid;

use super::{AppendError, Appending, ChainHash, Entry, Head, Health, Journal, MAX_ENTRY_BYTES, ReadError, StoredEntry};
use crate::clock::Clock;
use crate::log::{self, Files, Kind, Log, LogId, LogState, RecordRef, Recovered};

/// Bytes of a record before the entry's JSON.
const HASH_BYTES: usize = 32;
const _: () = assert!(MAX_ENTRY_BYTES + HASH_BYTES == log::MAX_RECORD_BYTES, "an entry fits into a record");

/// How much one read from the disk asks for, in bytes.
const READ_BYTES: usize = 1 << 20;

/// A page read from the disk ends with the entry that brings its stored JSON to this many bytes.
const MAX_PAGE_BYTES: usize = 8 << 20;

/// How a journal is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many bytes of stored JSON of the newest entries are kept in memory, so that followers do not read the disk.
    /// 16 MiB by default; at least the entries under way are kept.
    pub recent_limit_bytes: usize,
    /// The last entry that is known to have been acknowledged, from what was derived from the journal and kept elsewhere;
    /// 0 if nothing is known. The journal does not open without it.
    pub acknowledged: u64,
    /// How the log under it is opened. Its `acknowledged` and `id` are not looked at.
    pub log: log::Options,
}

impl Default for Options {
    fn default() -> Self {
        Self { recent_limit_bytes: 16 << 20, acknowledged: 0, log: log::Options::default() }
    }
}

/// Why a journal did not open. Nothing on disk was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The log under it did not open.
    #[error(transparent)]
    Log(#[from] log::OpenError),
    /// An entry is not what was written, though its checksum is right: somebody or something has rewritten it.
    #[error(transparent)]
    BadEntry(#[from] BadEntry),
}

/// The first entry that is not what was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: entry {revision}, at byte {offset}: {what}", path.display())]
pub struct BadEntry {
    /// Its number.
    pub revision: u64,
    /// The file.
    pub path: PathBuf,
    /// Where in the file its record's payload starts, in bytes.
    pub offset: u64,
    /// What is wrong.
    pub what: String,
}

/// An entry as it is met while a journal is opened or checked: linked to the chain, not read yet.
#[derive(Clone, Copy, Debug)]
pub struct RawEntry<'a> {
    /// The chain up to the entry before.
    pub before: Head,
    /// The stored JSON.
    pub bytes: &'a [u8],
    /// The chain up to and with the entry.
    pub hash: ChainHash,
}

impl RawEntry<'_> {
    /// Number of the entry.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.before.revision + 1
    }

    /// Reads the entry.
    ///
    /// # Errors
    ///
    /// What is wrong with it, in words.
    pub fn read(&self) -> Result<StoredEntry, String> {
        StoredEntry::read(self.before, Bytes::copy_from_slice(self.bytes), self.hash)
    }
}

/// Follows the chain along the records of a log.
pub(super) struct Walk {
    pub(super) head: Head,
    pub(super) bad: Option<BadEntry>,
}

impl Walk {
    pub(super) fn new() -> Self {
        Self { head: Head::EMPTY, bad: None }
    }

    /// Checks that a record is the next link and hands it to `visit`. Nothing is looked at behind the first bad one.
    pub(super) fn step(&mut self, record: RecordRef<'_>, visit: impl FnOnce(RawEntry<'_>) -> Result<(), String>) {
        if self.bad.is_some() {
            return;
        }
        let outcome = split(record.payload).and_then(|(hash, bytes)| {
            let computed = self.head.hash.next(bytes);
            if computed != hash {
                return Err(format!("the chain does not hold: the stored hash is {hash}, its bytes give {computed}"));
            }
            visit(RawEntry { before: self.head, bytes, hash })?;
            self.head = Head { revision: self.head.revision + 1, hash };
            Ok(())
        });
        if let Err(what) = outcome {
            let (path, offset) = (record.path.to_owned(), record.offset);
            self.bad = Some(BadEntry { revision: record.seq, path, offset, what });
        }
    }
}

fn split(payload: &[u8]) -> Result<(ChainHash, &[u8]), String> {
    let (hash, bytes) = payload.split_first_chunk().ok_or("the record is shorter than a hash")?;
    Ok((ChainHash(*hash), bytes))
}

/// The history id that a log's identity stands for.
pub(super) fn history_of(id: LogId) -> String {
    Uuid::from_bytes(id).simple().to_string()
}

/// A fresh history id: a UUID of version 7, so that ids sort by the time they were minted.
pub fn mint(clock: &dyn Clock) -> LogId {
    let now_ms = clock.now_ms();
    let nanos = u32::try_from(now_ms % 1_000).unwrap_or(0) * 1_000_000;
    Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, now_ms / 1_000, nanos)).into_bytes()
}

/// The history id of the journal in `dir`; `None` where there is none.
///
/// # Errors
///
/// If the folder cannot be read or what says so is damaged.
pub fn history(files: &dyn Files, dir: &Path) -> Result<Option<String>, log::OpenError> {
    Ok(log::identity(files, dir)?.map(history_of))
}

/// The embedded journal.
pub struct FileJournal {
    history: String,
    log: Arc<Log>,
    last_seq: watch::Receiver<u64>,
    recent: Mutex<Recent>,
}

/// The newest entries without gaps, those under way among them.
struct Recent {
    entries: VecDeque<StoredEntry>,
    /// What the first of them follows.
    before: Head,
    bytes: usize,
    limit_bytes: usize,
}

impl Recent {
    fn tip(&self) -> Head {
        self.entries.back().map_or(self.before, StoredEntry::head)
    }

    fn push(&mut self, stored: StoredEntry, durable: u64) {
        self.bytes += stored.bytes.len();
        self.entries.push_back(stored);
        while self.bytes > self.limit_bytes
            && let Some(oldest) = self.entries.pop_front_if(|oldest| oldest.entry.revision < durable)
        {
            self.bytes -= oldest.bytes.len();
            self.before = oldest.head();
        }
    }

    /// Forgets the entries from revision `lost` on.
    fn forget_from(&mut self, lost: u64) {
        while let Some(stored) = self.entries.pop_back_if(|stored| stored.entry.revision >= lost) {
            self.bytes -= stored.bytes.len();
        }
    }

    /// The entries after `after`, up to `durable`; `None` if the first of them is not here any more.
    fn after(&self, after: u64, durable: u64, limit: usize) -> Option<Vec<StoredEntry>> {
        let skipped = usize::try_from(after.checked_sub(self.before.revision)?).unwrap_or(usize::MAX);
        let durable = self.entries.iter().skip(skipped).take_while(|stored| stored.entry.revision <= durable);
        Some(durable.take(limit).cloned().collect())
    }

    fn get(&self, revision: u64) -> Option<&StoredEntry> {
        let index = revision.checked_sub(self.before.revision)?.checked_sub(1)?;
        self.entries.get(usize::try_from(index).ok()?)
    }
}

impl FileJournal {
    /// Opens the journal in `dir`, creating it if the folder holds none, and visits all its entries in order, their
    /// checksums and the chain checked. Blocks while it reads the whole journal. An error of `visit` stops the opening and
    /// is reported with the entry's place.
    ///
    /// # Errors
    ///
    /// [`OpenError`]; what was visited is to be forgotten then.
    pub fn open(
        files: Arc<dyn Files>,
        dir: &Path,
        options: Options,
        clock: &dyn Clock,
        mut visit: impl FnMut(RawEntry<'_>) -> Result<(), String>,
    ) -> Result<(Self, Recovered), OpenError> {
        let id = log::identity(&*files, dir)?.unwrap_or_else(|| mint(clock));
        let acknowledged = (options.acknowledged > 0).then_some(options.acknowledged);
        let log_options = log::Options { id: Some(id), acknowledged, ..options.log };
        let mut walk = Walk::new();
        let mut newest = Newest::default();
        let (log, recovered) = Log::open(files, dir, Kind::Journal, log_options, |record| {
            walk.step(record, |raw| {
                newest.push(raw, options.recent_limit_bytes);
                visit(raw)
            });
        })?;
        if let Some(bad) = walk.bad {
            return Err(bad.into());
        }
        let recent = newest.read(walk.head, options.recent_limit_bytes);
        let last_seq = log.watch_last_seq();
        let journal = Self { history: history_of(id), log: Arc::new(log), last_seq, recent: Mutex::new(recent) };
        Ok((journal, recovered))
    }

    /// Reads the log under it, for a copy.
    #[must_use]
    pub fn reader(&self) -> log::Reader {
        self.log.reader()
    }

    /// Condition of the log under the journal, for metrics.
    #[must_use]
    pub fn log_health(&self) -> log::Health {
        self.log.health()
    }

    /// Writes what waits and releases the folder. Blocks until that is done.
    ///
    /// # Errors
    ///
    /// [`AppendError::ReadOnly`] if the journal had become so.
    pub fn close(&self) -> Result<(), AppendError> {
        self.log.close().map_err(append_error)
    }

    fn durable(&self) -> u64 {
        *self.last_seq.borrow()
    }

    fn give_place(&self, expected: u64, entry: Entry) -> Result<Appending, AppendError> {
        let mut recent = self.recent.lock();
        // After a full disk the entries under way are lost; with their places given up, the volume is tried again.
        if let Some(next_seq) = self.log.resume() {
            recent.forget_from(next_seq);
        }
        let tip = recent.tip();
        if tip.revision != expected {
            // A journal that takes nothing says so, rather than that another writer was faster.
            self.refusal()?;
            return Err(AppendError::Conflict { expected, actual: tip.revision });
        }
        let mut stored = StoredEntry::link(tip, entry)?;
        let record = Bytes::from([&stored.hash.0, &*stored.bytes].concat());
        stored.bytes = record.slice(HASH_BYTES..);
        let appended = self.log.append(record).map_err(append_error)?;
        debug_assert_eq!(appended.first_seq(), stored.entry.revision, "places in the log are revisions");
        recent.push(stored.clone(), self.durable());
        drop(recent);
        let durable = appended.map(|done| done.map(drop).map_err(append_error)).boxed();
        Ok(Appending { stored, durable })
    }

    fn refusal(&self) -> Result<(), AppendError> {
        match self.log.health().state {
            LogState::ReadOnly { reason } => Err(AppendError::ReadOnly { reason: reason.to_string() }),
            LogState::Closed => Err(append_error(log::AppendError::Closed)),
            LogState::Writable | LogState::DiskFull => Ok(()),
        }
    }
}

/// Collects the newest entries while a journal is opened, as bytes: the older ones are never read.
#[derive(Default)]
struct Newest {
    entries: VecDeque<(Head, Bytes, ChainHash)>,
    bytes: usize,
}

/// How much of the newest entries is brought into memory when a journal is opened, in bytes: what reconnecting SDKs are
/// likely to ask for, and little enough not to be noticed at the start.
const NEWEST_AT_OPEN_BYTES: usize = 1 << 20;

impl Newest {
    fn push(&mut self, raw: RawEntry<'_>, limit_bytes: usize) {
        self.entries.push_back((raw.before, Bytes::copy_from_slice(raw.bytes), raw.hash));
        self.bytes += raw.bytes.len();
        while self.bytes > limit_bytes.min(NEWEST_AT_OPEN_BYTES)
            && let Some((_, oldest, _)) = self.entries.pop_front()
        {
            self.bytes -= oldest.len();
        }
    }

    /// Reads them, newest first, as far back as they can be: one that cannot is reported when somebody asks for it.
    fn read(self, head: Head, limit_bytes: usize) -> Recent {
        let mut recent = Recent { entries: VecDeque::new(), before: head, bytes: 0, limit_bytes };
        for (before, bytes, hash) in self.entries.into_iter().rev() {
            let Ok(stored) = StoredEntry::read(before, bytes, hash) else { break };
            recent.bytes += stored.bytes.len();
            recent.before = before;
            recent.entries.push_front(stored);
        }
        recent
    }
}

fn append_error(error: log::AppendError) -> AppendError {
    match error {
        log::AppendError::Busy { .. } => AppendError::Busy,
        log::AppendError::DiskFull => AppendError::DiskFull,
        log::AppendError::TooLarge { bytes, limit_bytes, .. } => {
            AppendError::TooLarge { actual: bytes - HASH_BYTES, limit: limit_bytes - HASH_BYTES }
        }
        log::AppendError::ReadOnly { reason } => AppendError::ReadOnly { reason: reason.to_string() },
        error @ (log::AppendError::Closed | log::AppendError::Empty) => {
            AppendError::ReadOnly { reason: error.to_string() }
        }
    }
}

fn read_error(revision: u64, error: log::ReadError) -> ReadError {
    match error {
        log::ReadError::Damaged(damage) => {
            ReadError::Damaged { revision: damage.seq.unwrap_or(revision), reason: damage.to_string() }
        }
        error @ (log::ReadError::Removed { .. } | log::ReadError::Io { .. }) => ReadError::Io(error.to_string()),
    }
}

/// Reads entries after `after` from the disk, checking each one's checksum and its link to the one before.
fn read_disk(log: &Log, after: u64, durable: u64, limit: usize) -> Result<Vec<StoredEntry>, ReadError> {
    let mut entries = Vec::new();
    let mut head = (after == 0).then_some(Head::EMPTY);
    let mut next = after.max(1);
    let mut bytes = 0;
    while next <= durable && entries.len() < limit && bytes < MAX_PAGE_BYTES {
        let records = log.read(next, READ_BYTES).map_err(|error| read_error(next, error))?;
        if records.is_empty() {
            break;
        }
        for record in records.into_iter().take_while(|record| record.seq <= durable) {
            let damaged = |reason: String| ReadError::Damaged { revision: record.seq, reason };
            let (hash, _) = split(&record.payload).map_err(damaged)?;
            next = record.seq + 1;
            let Some(before) = head.replace(Head { revision: record.seq, hash }) else { continue };
            if entries.len() == limit {
                break;
            }
            bytes += record.payload.len();
            entries.push(StoredEntry::verify(before, record.payload.slice(HASH_BYTES..), hash).map_err(damaged)?);
        }
    }
    Ok(entries)
}

impl Journal for FileJournal {
    fn history(&self) -> &str {
        &self.history
    }

    fn head(&self) -> Head {
        let recent = self.recent.lock();
        // Entries are kept until the one after them is durable, so the last durable one is here.
        recent.get(self.durable()).map_or(recent.before, StoredEntry::head)
    }

    fn append(&self, expected: u64, entry: Entry) -> BoxFuture<'_, Result<Appending, AppendError>> {
        future::ready(self.give_place(expected, entry)).boxed()
    }

    fn read(&self, after: u64, limit: usize) -> BoxFuture<'_, Result<Vec<StoredEntry>, ReadError>> {
        let durable = self.durable();
        if limit == 0 || after >= durable {
            return future::ready(Ok(Vec::new())).boxed();
        }
        if let Some(entries) = self.recent.lock().after(after, durable, limit) {
            return future::ready(Ok(entries)).boxed();
        }
        let log = self.log.clone();
        let read = tokio::task::spawn_blocking(move || read_disk(&log, after, durable, limit));
        read.map(|done| done.unwrap_or_else(|error| Err(ReadError::Io(error.to_string())))).boxed()
    }

    fn watch(&self) -> watch::Receiver<u64> {
        self.log.watch_last_seq()
    }

    fn health(&self) -> Health {
        match self.log.health().state {
            LogState::Writable => Health::Writable,
            LogState::DiskFull => Health::ReadOnly(AppendError::DiskFull.to_string()),
            LogState::ReadOnly { reason } => Health::ReadOnly(reason.to_string()),
            LogState::Closed => Health::ReadOnly(log::AppendError::Closed.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::conformance::{self, Subject, append, read_all};
    use super::*;
    use crate::clock::ManualClock;
    use crate::log::RealFiles;

    struct OnDisk {
        dir: tempfile::TempDir,
        options: Options,
        journal: Option<Arc<FileJournal>>,
    }

    fn open(dir: &Path, options: Options) -> Result<(FileJournal, Recovered), OpenError> {
        let clock = ManualClock::new(1_790_000_000_000);
        FileJournal::open(RealFiles::shared(), dir, options, &clock, |raw| raw.read().map(drop))
    }

    impl OnDisk {
        fn new(options: Options) -> Self {
            let dir = tempfile::tempdir().expect("a folder");
            let journal = Some(Arc::new(open(dir.path(), options.clone()).expect("opens").0));
            Self { dir, options, journal }
        }
    }

    impl Subject for OnDisk {
        fn journal(&self) -> Arc<dyn Journal> {
            self.journal.clone().expect("open")
        }

        fn reopen(&mut self) -> BoxFuture<'_, ()> {
            self.journal.take().expect("open").close().ok();
            self.journal = Some(Arc::new(open(self.dir.path(), self.options.clone()).expect("opens").0));
            future::ready(()).boxed()
        }

        fn hold(&self, _: bool) -> bool {
            false
        }

        fn fail_next_sync(&self) -> bool {
            false
        }

        fn fill_disk(&self, _: bool) -> bool {
            false
        }
    }

    #[tokio::test]
    async fn files_conform() {
        conformance::run(|| future::ready(OnDisk::new(Options::default())).boxed()).await;
    }

    #[tokio::test]
    async fn files_conform_where_nothing_is_kept_in_memory_and_segments_are_short() {
        let log = log::Options { segment_bytes: log::Options::MIN_SEGMENT_BYTES, ..log::Options::default() };
        let options = Options { recent_limit_bytes: 0, acknowledged: 0, log };
        conformance::run(|| future::ready(OnDisk::new(options.clone())).boxed()).await;
    }

    #[tokio::test]
    async fn memory_is_bounded_and_older_entries_come_from_the_disk() {
        let subject = OnDisk::new(Options { recent_limit_bytes: 2_000, ..Options::default() });
        let journal = subject.journal.clone().expect("open");
        for revision in 0..50 {
            append(&*journal, revision, revision + 1).await;
        }
        let (kept, bytes) = {
            let recent = journal.recent.lock();
            (recent.entries.len(), recent.bytes)
        };
        assert!(kept < 10 && bytes <= 2_000, "{kept} entries of {bytes} bytes are kept");
        assert_eq!(read_all(&*journal).await.len(), 50);
    }

    #[tokio::test]
    async fn an_acknowledged_entry_that_is_gone_stops_the_opening() {
        let mut subject = OnDisk::new(Options::default());
        append(&*subject.journal(), 0, 1).await;
        subject.reopen().await;
        subject.journal.take().expect("open").close().expect("closes");
        let error = open(subject.dir.path(), Options { acknowledged: 2, ..Options::default() }).err();
        let text = error.expect("entry 2 is missing").to_string();
        assert!(text.contains("acknowledged") && text.contains(".log"), "{text}");
        open(subject.dir.path(), Options { acknowledged: 1, ..Options::default() }).expect("entry 1 is there");
    }

    #[tokio::test]
    async fn a_rewritten_entry_is_named_though_its_checksum_is_right() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut head = Head::EMPTY;
        let (log, _) =
            Log::open(RealFiles::shared(), dir.path(), Kind::Journal, Default::default(), |_| {}).expect("opens");
        for number in 1..=3 {
            let mut stored = StoredEntry::link(head, conformance::sample(number)).expect("small");
            head = stored.head();
            if number == 2 {
                let text = String::from_utf8(stored.bytes.to_vec()).expect("JSON").replace("a-1", "a-9");
                stored.bytes = text.into();
            }
            log.append(Bytes::from([&stored.hash.0, &*stored.bytes].concat())).expect("taken").await.expect("stored");
        }
        log.close().expect("closes");
        match open(dir.path(), Options::default()).err() {
            Some(OpenError::BadEntry(bad)) => {
                assert_eq!(bad.revision, 2);
                assert!(bad.what.contains("chain") && bad.offset > 0, "{bad}");
            }
            other => panic!("expected a bad entry, got {other:?}"),
        }
    }
}
