//! The thread that writes, and what it shares with the callers.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex, RwLock};
use tokio::sync::{oneshot, watch};

use super::files::{File, Files, LockGuard, read_fully};
use super::frame::{LogId, MAX_GROUP_BYTES, SEGMENT_HEADER_BYTES, Tag, encode_frame};
use super::recovery::Scan;
use super::segment::{self, Record, Segment, Segments};
use super::watermark::{Mark, Watermark};
use super::{AppendError, Health, LogState, Options, ReadError, SegmentInfo};

/// A frame takes no further group once it holds this many bytes, so that the first to come is not kept waiting for the
/// last, and reading one record does not read too much of its neighbours.
const FRAME_TARGET_BYTES: usize = 1 << 20;

/// The records of one append.
#[derive(Debug)]
struct Group {
    first_seq: u64,
    records: Vec<Bytes>,
    bytes: usize,
    done: oneshot::Sender<Result<(), AppendError>>,
}

#[derive(Debug)]
struct Queue {
    pending: VecDeque<Group>,
    /// Bytes of the groups that wait and of those being written.
    pending_bytes: usize,
    /// Sequence number of the next append.
    next_seq: u64,
    /// The record before which a new segment begins.
    segment_before: Option<u64>,
    state: LogState,
    closing: bool,
}

/// What callers and the writing thread share.
#[derive(Debug)]
pub(crate) struct Shared {
    files: Arc<dyn Files>,
    dir: PathBuf,
    kind: u8,
    id: LogId,
    options: Options,
    queue: Mutex<Queue>,
    wake: Condvar,
    segments: RwLock<Segments>,
    watermark: Mutex<Watermark>,
    last_seq: watch::Sender<u64>,
    commits: AtomicU64,
    lock: Mutex<Option<Box<dyn LockGuard>>>,
}

impl Shared {
    fn tag(&self) -> Tag {
        Tag::of(&self.id)
    }

    pub(crate) fn enqueue(
        &self,
        records: Vec<Bytes>,
        bytes: usize,
        done: oneshot::Sender<Result<(), AppendError>>,
    ) -> Result<u64, AppendError> {
        let mut queue = self.queue.lock();
        match &queue.state {
            _ if queue.closing => return Err(AppendError::Closed),
            LogState::Writable => {}
            LogState::DiskFull => return Err(AppendError::DiskFull),
            LogState::ReadOnly { reason } => return Err(AppendError::ReadOnly { reason: Arc::clone(reason) }),
            LogState::Closed => return Err(AppendError::Closed),
        }
        let limit_bytes = self.options.pending_limit_bytes;
        if queue.pending_bytes > 0 && queue.pending_bytes + bytes > limit_bytes {
            return Err(AppendError::Busy { limit_bytes });
        }
        let first_seq = queue.next_seq;
        queue.next_seq += records.len() as u64;
        queue.pending_bytes += bytes;
        queue.pending.push_back(Group { first_seq, records, bytes, done });
        drop(queue);
        self.wake.notify_one();
        Ok(first_seq)
    }

    pub(crate) fn assigned_next_seq(&self) -> u64 {
        self.queue.lock().next_seq
    }

    pub(crate) fn watch_last_seq(&self) -> watch::Receiver<u64> {
        self.last_seq.subscribe()
    }

    pub(crate) fn read(&self, from_seq: u64, limit_bytes: usize) -> Result<Vec<Record>, ReadError> {
        segment::read(&self.segments, &*self.files, self.tag(), from_seq, limit_bytes)
    }

    pub(crate) fn segments(&self) -> Vec<SegmentInfo> {
        let info = |segment: &Segment| SegmentInfo {
            first_seq: segment.first_seq,
            next_seq: segment.next_seq,
            bytes: segment.len,
        };
        self.segments.read().all.iter().map(info).collect()
    }

    pub(crate) fn start_segment(&self) {
        let mut queue = self.queue.lock();
        queue.segment_before = Some(queue.next_seq);
    }

    pub(crate) fn remove_segments_before(&self, seq: u64) -> io::Result<usize> {
        let mut watermark = self.watermark.lock();
        let (count, first_seq) = {
            let segments = self.segments.read();
            let count = segments.count_before(seq);
            (count, segments.all.get(count).map_or(1, |segment| segment.first_seq))
        };
        if count == 0 {
            return Ok(0);
        }
        // The mark goes first: a crash from here on leaves files that the next open knows to be removed.
        let mark = Mark { first_seq, ..watermark.mark() };
        if let Err(error) = watermark.rewrite(mark) {
            drop(watermark);
            self.fail(Vec::new(), read_only("writing the watermark", &error));
            return Err(error);
        }
        let removed: Vec<Segment> = self.segments.write().all.drain(..count).collect();
        drop(watermark);
        for segment in removed {
            self.files.remove(&segment.path)?;
        }
        self.files.sync_dir(&self.dir)?;
        Ok(count)
    }

    pub(crate) fn resume(&self) -> Option<u64> {
        let mut queue = self.queue.lock();
        if queue.state != LogState::DiskFull {
            return None;
        }
        queue.state = LogState::Writable;
        Some(queue.next_seq)
    }

    pub(crate) fn health(&self) -> Health {
        let (state, pending_bytes) = {
            let queue = self.queue.lock();
            (queue.state.clone(), queue.pending_bytes)
        };
        let segments = self.segments.read();
        Health {
            state,
            pending_bytes,
            first_seq: segments.first_seq(),
            next_seq: segments.next_seq(),
            segments: segments.all.len(),
            bytes: segments.bytes(),
            commits: self.commits.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn begin_close(&self) {
        self.queue.lock().closing = true;
        self.wake.notify_one();
    }

    /// Why the log became read-only, if it did.
    pub(crate) fn failure(&self) -> Option<Arc<str>> {
        match &self.queue.lock().state {
            LogState::ReadOnly { reason } => Some(Arc::clone(reason)),
            _ => None,
        }
    }

    /// Gives `groups` and everything that waits behind them the error, and takes no more.
    fn fail(&self, groups: Vec<Group>, error: AppendError) {
        let waiting = {
            let mut queue = self.queue.lock();
            let state = match &error {
                AppendError::DiskFull => LogState::DiskFull,
                AppendError::ReadOnly { reason } => LogState::ReadOnly { reason: Arc::clone(reason) },
                _ => LogState::Closed,
            };
            // What failed first stays the reason.
            if !matches!(queue.state, LogState::ReadOnly { .. }) {
                queue.state = state;
            }
            queue.pending_bytes = 0;
            queue.segment_before = None;
            queue.next_seq = self.segments.read().next_seq();
            std::mem::take(&mut queue.pending)
        };
        for group in groups.into_iter().chain(waiting) {
            // A caller that no longer waits has dropped its end.
            let _ = group.done.send(Err(error.clone()));
        }
    }
}

fn read_only(what: &str, error: &io::Error) -> AppendError {
    AppendError::ReadOnly { reason: format!("{what} failed: {error}").into() }
}

fn is_disk_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// The writing end: the only one that appends to the newest segment.
#[derive(Debug)]
pub(crate) struct Writer {
    shared: Arc<Shared>,
    file: Arc<dyn File>,
    /// Whether records were committed since the watermark was synced.
    watermark_behind: bool,
}

enum Work {
    Commit { groups: Vec<Group>, new_segment: bool },
    NoteWatermark,
}

impl Writer {
    /// Carries out what looking at the folder has shown to be needed, after which everything in the log is durable.
    pub(crate) fn start(
        files: Arc<dyn Files>,
        dir: PathBuf,
        options: Options,
        scan: Scan,
        lock: Box<dyn LockGuard>,
    ) -> io::Result<Self> {
        let next_seq = scan.next_seq();
        for path in &scan.leftovers {
            files.remove(path)?;
        }
        let Scan { evidence, mut segments, last_frame, torn, .. } = scan;
        let (kind, id) = (evidence.kind, evidence.id);
        let file = match segments.last() {
            Some(last) => {
                let file = files.open(&last.path)?;
                if torn.is_some() {
                    file.set_len(last.len)?;
                    file.sync_data()?;
                }
                if let Some(offset) = last_frame.filter(|_| next_seq > evidence.synced.next_seq) {
                    write_again(&*file, offset, last.len)?;
                }
                file
            }
            None => {
                let (segment, file) = Segment::create(&*files, &dir, kind, id, next_seq)?;
                segments.push(segment);
                file
            }
        };
        // A segment that was created just before a kill has a name that may not be durable yet.
        files.sync_dir(&dir)?;
        let mut watermark = evidence.open(&*files)?;
        let mark = Mark { next_seq, ..evidence.mark };
        if mark != evidence.synced || evidence.damaged_slot.is_some() || evidence.torn_hint {
            watermark.rewrite(mark)?;
            watermark.hint(next_seq)?;
        }
        let queue = Queue {
            pending: VecDeque::new(),
            pending_bytes: 0,
            next_seq,
            segment_before: None,
            state: LogState::Writable,
            closing: false,
        };
        let shared = Shared {
            files,
            dir,
            kind,
            id,
            options,
            queue: Mutex::new(queue),
            wake: Condvar::new(),
            segments: RwLock::new(Segments { all: segments.into() }),
            watermark: Mutex::new(watermark),
            last_seq: watch::Sender::new(next_seq - 1),
            commits: AtomicU64::new(0),
            lock: Mutex::new(Some(lock)),
        };
        Ok(Self { shared: Arc::new(shared), file, watermark_behind: false })
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Works until the log is closed.
    pub(crate) fn run(mut self) {
        // Whatever ends the thread, a panic too, nobody is left waiting and the folder is free.
        let shared = Arc::clone(&self.shared);
        let _end = OnDrop(|| {
            shared.fail(Vec::new(), AppendError::Closed);
            shared.lock.lock().take();
        });
        while let Some(work) = self.wait() {
            match work {
                Work::Commit { groups, new_segment } => self.commit(groups, new_segment),
                Work::NoteWatermark => self.sync_watermark(),
            }
        }
        self.sync_watermark();
    }

    fn wait(&self) -> Option<Work> {
        let mut queue = self.shared.queue.lock();
        let idle = Duration::from_millis(self.shared.options.watermark_idle_ms);
        loop {
            if !queue.pending.is_empty() {
                return Some(take(&mut queue));
            }
            if queue.closing {
                return None;
            }
            if self.watermark_behind && !matches!(queue.state, LogState::ReadOnly { .. }) {
                let timed_out = self.shared.wake.wait_for(&mut queue, idle).timed_out();
                if timed_out && queue.pending.is_empty() && !queue.closing {
                    return Some(Work::NoteWatermark);
                }
            } else {
                self.shared.wake.wait(&mut queue);
            }
        }
    }

    fn commit(&mut self, groups: Vec<Group>, new_segment: bool) {
        let Some(first_seq) = groups.first().map(|group| group.first_seq) else { return };
        let frame = encode_frame(self.shared.tag(), first_seq, groups.iter().flat_map(|group| &group.records));
        let next_seq = first_seq + groups.iter().map(|group| group.records.len() as u64).sum::<u64>();
        if let Err(error) = self.write(&frame, first_seq, new_segment) {
            self.shared.fail(groups, error);
            return;
        }
        if let Some(segment) = self.shared.segments.write().all.back_mut() {
            segment.push(first_seq, next_seq, frame.len() as u64);
        }
        self.shared.commits.fetch_add(1, Ordering::Relaxed);
        // Before the acknowledgement, so that whoever has one can rely on the mark after a kill.
        let hinted = self.shared.watermark.lock().hint(next_seq);
        self.watermark_behind = true;
        self.shared.queue.lock().pending_bytes -= groups.iter().map(|group| group.bytes).sum::<usize>();
        self.shared.last_seq.send_replace(next_seq - 1);
        for group in groups {
            let _ = group.done.send(Ok(()));
        }
        if let Err(error) = hinted {
            self.shared.fail(Vec::new(), read_only("writing the watermark", &error));
        }
    }

    /// Makes a frame durable, or leaves the log as it was and says so with `DiskFull`, or gives up.
    fn write(&mut self, frame: &[u8], first_seq: u64, new_segment: bool) -> Result<(), AppendError> {
        let mut offset = self.shared.segments.read().all.back().map_or(0, |segment| segment.len);
        let full = offset + frame.len() as u64 > self.shared.options.segment_bytes;
        if offset > SEGMENT_HEADER_BYTES as u64 && (new_segment || full) {
            offset = self.begin_segment(first_seq)?;
        }
        if let Err(error) = self.file.write_all_at(offset, frame) {
            if !is_disk_full(&error) {
                return Err(read_only("writing a segment", &error));
            }
            // Nothing of the frame was synced, so cutting it off is safe; the sync makes sure that no part of it comes
            // back between the sectors of the frame that is written here next.
            return match self.file.set_len(offset).and_then(|()| self.file.sync_data()) {
                Ok(()) => Err(AppendError::DiskFull),
                Err(error) => Err(read_only("cutting off what a full disk took in part", &error)),
            };
        }
        self.file.sync_data().map_err(|error| read_only("syncing a segment", &error))
    }

    fn begin_segment(&mut self, first_seq: u64) -> Result<u64, AppendError> {
        let shared = &self.shared;
        match Segment::create(&*shared.files, &shared.dir, shared.kind, shared.id, first_seq) {
            Ok((segment, file)) => {
                let offset = segment.len;
                self.file = file;
                shared.segments.write().all.push_back(segment);
                Ok(offset)
            }
            Err(error) if is_disk_full(&error) => Err(AppendError::DiskFull),
            Err(error) => Err(read_only("creating a segment", &error)),
        }
    }

    fn sync_watermark(&mut self) {
        self.watermark_behind = false;
        if self.shared.failure().is_some() {
            return;
        }
        let synced = self.shared.watermark.lock().sync();
        if let Err(error) = synced {
            self.shared.fail(Vec::new(), read_only("syncing the watermark", &error));
        }
    }
}

/// Takes what fits into one frame from the front of the queue.
fn take(queue: &mut Queue) -> Work {
    let new_segment =
        queue.segment_before.is_some() && queue.pending.front().map(|group| group.first_seq) >= queue.segment_before;
    if new_segment {
        queue.segment_before = None;
    }
    let (mut groups, mut bytes) = (Vec::new(), 0);
    while let Some(group) = queue.pending.front() {
        let fits = bytes + group.bytes <= MAX_GROUP_BYTES && bytes < FRAME_TARGET_BYTES;
        let crosses = queue.segment_before.is_some_and(|seq| group.first_seq >= seq);
        if !groups.is_empty() && (!fits || crosses) {
            break;
        }
        bytes += group.bytes;
        groups.extend(queue.pending.pop_front());
    }
    Work::Commit { groups, new_segment }
}

/// Writes a file's last frame once more and syncs it. It reads back sound, but perhaps from memory only: a sync that
/// failed before a restart leaves pages that the kernel takes for written.
fn write_again(file: &dyn File, offset: u64, end: u64) -> io::Result<()> {
    let mut frame = vec![0; usize::try_from(end - offset).map_err(io::Error::other)?];
    let read = read_fully(file, offset, &mut frame)?;
    file.write_all_at(offset, &frame[..read])?;
    file.sync_data()
}

struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
