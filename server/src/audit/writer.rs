//! The thread that writes the second log, and what it shares with those who record.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use super::file::AuditOptions;
use super::{Coalescer, Event, EventKind, EventsHead, StoredEvent};
use crate::changes::Author;
use crate::clock::Clock;
use crate::log::{AppendError, Log};

const HOUR_MS: u64 = 60 * 60 * 1_000;
const DAY_MS: u64 = 24 * HOUR_MS;

/// Longest wait while something is gathered: the clock may be moved by others than time.
const GATHERING_PAUSE: Duration = Duration::from_millis(500);

/// Wait before it is tried again to write how many events were lost.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Longest wait where there is nothing to do: old segments are looked for then.
const IDLE_PAUSE: Duration = Duration::from_secs(15 * 60);

/// Bytes of events that are written together.
const MAX_WRITE_BYTES: usize = 1 << 20;

/// What an event says that stands for lost ones.
const LOST_DETAIL: &str = "not written: too many were waiting, the disk was full, or a write failed";

/// What the writer shares with those who record and read.
pub(super) struct Shared {
    pub(super) log: Log,
    clock: Arc<dyn Clock>,
    options: AuditOptions,
    inbox: Mutex<Inbox>,
    wake: Condvar,
    head: Mutex<EventsHead>,
    /// Events lost since the log was opened.
    lost: AtomicU64,
}

#[derive(Default)]
struct Inbox {
    events: Vec<Event>,
    /// Events that found the queue full.
    overflow: u64,
    flushes: Vec<oneshot::Sender<()>>,
    is_closing: bool,
}

impl Inbox {
    fn has_work(&self) -> bool {
        !self.events.is_empty() || self.overflow > 0 || !self.flushes.is_empty() || self.is_closing
    }
}

impl Shared {
    pub(super) fn new(log: Log, clock: Arc<dyn Clock>, options: AuditOptions, head: EventsHead) -> Self {
        let (inbox, wake, lost) = (Mutex::default(), Condvar::new(), AtomicU64::new(0));
        Self { log, clock, options, inbox, wake, head: Mutex::new(head), lost }
    }

    /// Takes an event in, or counts it where no more may wait.
    pub(super) fn take_in(&self, event: Event) {
        let mut inbox = self.inbox.lock();
        if inbox.is_closing || inbox.events.len() >= self.options.max_queued_events {
            let count = u64::from(event.count);
            inbox.overflow += count;
            self.lost.fetch_add(count, Ordering::Relaxed);
        } else {
            inbox.events.push(event);
        }
        drop(inbox);
        self.wake.notify_one();
    }

    pub(super) fn ask_to_flush(&self) -> Option<oneshot::Receiver<()>> {
        let (done, receiver) = oneshot::channel();
        let mut inbox = self.inbox.lock();
        if inbox.is_closing {
            return None;
        }
        inbox.flushes.push(done);
        drop(inbox);
        self.wake.notify_one();
        Some(receiver)
    }

    pub(super) fn begin_close(&self) {
        self.inbox.lock().is_closing = true;
        self.wake.notify_one();
    }

    pub(super) fn head(&self) -> EventsHead {
        *self.head.lock()
    }

    /// Events that wait, and events that were lost.
    pub(super) fn counts(&self) -> (usize, u64) {
        (self.inbox.lock().events.len(), self.lost.load(Ordering::Relaxed))
    }

    /// What has come in, after waiting for it for at most `pause`.
    fn wait(&self, pause: Duration) -> Inbox {
        let mut inbox = self.inbox.lock();
        if !inbox.has_work() {
            self.wake.wait_for(&mut inbox, pause);
        }
        let is_closing = inbox.is_closing;
        std::mem::replace(&mut *inbox, Inbox { is_closing, ..Inbox::default() })
    }
}

/// Where the writer goes on.
pub(super) struct Start {
    pub(super) head: EventsHead,
    pub(super) last_at: u64,
    /// First event and its time of each segment.
    pub(super) segments: VecDeque<(u64, u64)>,
}

/// The writing end.
pub(super) struct Writer {
    shared: Arc<Shared>,
    coalescer: Coalescer,
    head: EventsHead,
    /// Time of the last event: stored times never go down.
    last_at: u64,
    segments: VecDeque<(u64, u64)>,
    /// Length of the segment that is being written, in bytes; `None` if the next event starts one.
    segment_bytes: Option<u64>,
    /// Events that were lost and are not yet spoken of in the log.
    lost: u64,
    is_failing: bool,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, start: Start) -> Self {
        let Start { head, last_at, segments } = start;
        let coalescer = Coalescer::new(shared.options.coalesce);
        let written = shared.log.segments().last().map(|segment| segment.bytes);
        let segment_bytes = written.filter(|_| !segments.is_empty());
        Self { shared, coalescer, head, last_at, segments, segment_bytes, lost: 0, is_failing: false }
    }

    pub(super) fn run(mut self) {
        self.remove_old();
        loop {
            let inbox = self.shared.wait(self.pause());
            let now = self.shared.clock.now_ms();
            let mut out = Vec::new();
            for event in inbox.events {
                self.coalescer.push(event, now, &mut out);
            }
            self.coalescer.expire(now, &mut out);
            if inbox.is_closing || !inbox.flushes.is_empty() {
                self.coalescer.finish(&mut out);
            }
            self.lost += inbox.overflow;
            self.write(out, now);
            for done in inbox.flushes {
                // Who asked may have stopped waiting.
                let _ = done.send(());
            }
            if inbox.is_closing {
                break;
            }
            self.remove_old();
        }
        if self.lost > 0 {
            tracing::error!(lost = self.lost, "security events were lost, and the log could not take note of it");
        }
    }

    fn pause(&self) -> Duration {
        if self.coalescer.next_end().is_some() {
            GATHERING_PAUSE
        } else if self.lost > 0 {
            RETRY_PAUSE
        } else {
            IDLE_PAUSE
        }
    }

    /// Writes events, those first that say how many were lost before. What is not written is counted.
    fn write(&mut self, events: Vec<Event>, now: u64) {
        let mut events: VecDeque<Event> = events.into();
        let noted = self.lost;
        if noted > 0 {
            let Author { actor_id, origin_id, .. } = Author::system();
            let mut left = noted;
            while left > 0 {
                let count = u32::try_from(left).unwrap_or(u32::MAX);
                left -= u64::from(count);
                let event = Event::new(now, EventKind::EventsLost, origin_id.clone());
                let (actor_id, detail) = (Some(actor_id.clone()), LOST_DETAIL.to_owned());
                events.push_front(Event { actor_id, detail, count, ..event });
            }
        }
        while !events.is_empty() {
            if let Err(error) = self.write_some(&mut events) {
                self.failed(&events, &error);
                return;
            }
        }
        if self.is_failing && noted > 0 {
            self.is_failing = false;
            tracing::info!(lost = noted, "security events are written again");
        }
    }

    /// Counts what was not written. Events about lost ones are counted already.
    fn failed(&mut self, events: &VecDeque<Event>, error: &AppendError) {
        let unwritten = events.iter().filter(|event| event.kind != EventKind::EventsLost);
        let unwritten: u64 = unwritten.map(|event| u64::from(event.count)).sum();
        self.lost += unwritten;
        self.shared.lost.fetch_add(unwritten, Ordering::Relaxed);
        if !self.is_failing {
            self.is_failing = true;
            tracing::error!(%error, "security events are not written; they are counted until they are again");
        }
    }

    /// Writes the first events, as many as go together, and takes them off.
    fn write_some(&mut self, events: &mut VecDeque<Event>) -> Result<(), AppendError> {
        // Space may have been made in the meantime; the append finds out. Nothing of what failed is stored, so that the
        // chain goes on from the last event that is.
        self.shared.log.resume();
        let (mut head, mut last_at) = (self.head, self.last_at);
        let starts_segment = self.is_segment_due(events.front().map_or(0, |event| event.at.max(last_at)));
        let (mut records, mut bytes) = (Vec::new(), 0);
        for event in events.iter() {
            let at = event.at.max(last_at);
            let stored = StoredEvent::link(head, Event { at, ..event.clone() }, starts_segment && records.is_empty());
            // An event is strings and numbers, which always have a JSON form.
            let Ok(stored) = stored else { return Err(AppendError::Empty) };
            (head, last_at) = (stored.head(), at);
            bytes += stored.bytes.len();
            records.push(stored.record());
            if bytes >= MAX_WRITE_BYTES {
                break;
            }
        }
        let (count, first_at) = (records.len(), events.front().map_or(0, |event| event.at.max(self.last_at)));
        if starts_segment {
            self.shared.log.start_segment();
        }
        let first_seq = self.shared.log.append_many(records)?.wait()?;
        debug_assert_eq!(first_seq, self.head.seq + 1, "places in the log are the events' numbers");
        let lost = events.drain(..count).filter(|event| event.kind == EventKind::EventsLost);
        self.lost -= lost.map(|event| u64::from(event.count)).sum::<u64>().min(self.lost);
        if starts_segment {
            self.segments.push_back((first_seq, first_at));
            self.segment_bytes = Some(0);
        }
        self.segment_bytes = self.segment_bytes.map(|before| before + bytes as u64);
        (self.head, self.last_at) = (head, last_at);
        *self.shared.head.lock() = head;
        Ok(())
    }

    fn is_segment_due(&self, now: u64) -> bool {
        let retention = &self.shared.options.retention;
        let started = self.segments.back().map_or(0, |(_, at)| *at);
        self.segment_bytes.is_none_or(|bytes| bytes >= retention.segment_bytes)
            || now.saturating_sub(started) > retention.segment_hours.saturating_mul(HOUR_MS)
    }

    /// Removes the oldest segments as far as the retention asks for it. What is left starts with an event that states the
    /// chain before it.
    fn remove_old(&mut self) {
        let retention = &self.shared.options.retention;
        let now = self.shared.clock.now_ms();
        let cutoff = now.saturating_sub(retention.max_age_days.saturating_mul(DAY_MS));
        let sizes = self.shared.log.segments();
        let mut bytes: u64 = sizes.iter().map(|segment| segment.bytes).sum();
        let mut keep_from = None;
        // A segment is as old as the start of the one after it.
        while self.segments.len() > 1 && (self.segments[1].1 < cutoff || bytes > retention.max_bytes) {
            let Some((first_seq, _)) = self.segments.pop_front() else { break };
            let size = sizes.iter().find(|segment| segment.first_seq == first_seq);
            bytes = bytes.saturating_sub(size.map_or(0, |segment| segment.bytes));
            keep_from = self.segments.front().map(|(seq, _)| *seq);
        }
        let Some(seq) = keep_from else { return };
        match self.shared.log.remove_segments_before(seq) {
            Ok(removed) => tracing::info!(removed, "old segments of the security log are removed"),
            Err(error) => tracing::warn!(%error, "old segments of the security log are not removed yet"),
        }
    }
}
