//! What was served, on its way to the server: recorded on the hot path, sent in numbered batches until stored.

use std::collections::VecDeque;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{Notify, mpsc};

use crate::eval::Unit;
use crate::protocol::{Exposure, ExposureBatch};

/// Longest unit that is recorded, in bytes: what the server takes. Exposures of longer ones count as dropped.
pub const MAX_UNIT_BYTES: usize = 1024;
/// Batches that may be under way, not yet stored.
pub const MAX_BATCHES_IN_FLIGHT: usize = 4;
/// A batch is closed once its texts sum to this many bytes, whatever the number of its items: with every byte escaped in JSON
/// it is still below the megabyte that the server takes.
pub const MAX_BATCH_BYTES: usize = 96 << 10;
/// Items of a batch, until the server names its limit.
const DEFAULT_BATCH_ITEMS: usize = 500;
/// Slots of the table of what was recorded lately: 512 KiB. With more active triples than slots, some are recorded more than
/// once within a window.
const SEEN_SLOTS: usize = 1 << 16;
/// Slots in which one triple may be remembered.
const SEEN_WAYS: usize = 4;

/// Takes exposures from evaluations. Never blocks, never takes a lock, allocates only for what it records.
pub(super) struct Recorder {
    seen: Seen,
    queue: mpsc::Sender<Exposure>,
    /// Lost because the queue was full, since the last batch.
    dropped: AtomicU64,
    /// Ever queued.
    queued: AtomicU64,
    /// Told when the queue is half full.
    pub(super) wake: Notify,
}

impl Recorder {
    /// `capacity` exposures may wait to be batched.
    pub(super) fn new(capacity: usize) -> (Self, mpsc::Receiver<Exposure>) {
        let (queue, receiver) = mpsc::channel(capacity.max(1));
        (
            Self {
                seen: Seen::new(),
                queue,
                dropped: AtomicU64::new(0),
                queued: AtomicU64::new(0),
                wake: Notify::new(),
            },
            receiver,
        )
    }

    /// Records that `unit` was served `variation` of `flag`, unless that was recorded within the present window.
    #[inline]
    pub(super) fn served(&self, flag: &str, unit: Unit<'_>, variation: &str, exposure: impl FnOnce() -> Exposure) {
        if self.seen.is_new(flag, unit, variation) {
            self.push(exposure());
        }
    }

    /// As [`Self::served`], where the exposure is at hand.
    pub(super) fn served_as(&self, exposure: Exposure) {
        if self.seen.is_new(&exposure.flag, Unit::Text(&exposure.unit), &exposure.assigned) {
            self.push(exposure);
        }
    }

    /// Records that a breaker kept the unit from the assigned path, unless that was recorded within the present window.
    pub(super) fn skipped(&self, exposure: Exposure) {
        if self.seen.is_new(&exposure.flag, Unit::Text(&exposure.unit), &exposure.delivered) {
            self.push(exposure);
        }
    }

    /// Records an outcome, whatever was recorded before.
    pub(super) fn outcome(&self, exposure: Exposure) {
        self.push(exposure);
    }

    fn push(&self, exposure: Exposure) {
        if exposure.unit.len() > MAX_UNIT_BYTES || self.queue.try_send(exposure).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        } else {
            self.queued.fetch_add(1, Ordering::Relaxed);
        }
        if self.queue.capacity() <= self.queue.max_capacity() / 2 {
            self.wake.notify_one();
        }
    }

    /// Begins a new window: whatever is served from now on is recorded again, once.
    pub(super) fn begin_window(&self) {
        self.seen.window.fetch_add(1, Ordering::Relaxed);
    }

    /// Exposures that were queued so far.
    pub(super) fn queued(&self) -> u64 {
        self.queued.load(Ordering::Relaxed)
    }

    fn take_dropped(&self) -> u64 {
        self.dropped.swap(0, Ordering::Relaxed)
    }
}

/// Remembers 64-bit fingerprints of (unit, flag, variation) in a fixed table: 48 bits of hash beside the window's number in
/// each slot, 14 more in the place.
struct Seen {
    slots: Box<[AtomicU64]>,
    window: AtomicU64,
    hasher: foldhash::quality::RandomState,
}

impl Seen {
    fn new() -> Self {
        let slots = (0..SEEN_SLOTS).map(|_| AtomicU64::new(0)).collect();
        Self { slots, window: AtomicU64::new(1), hasher: foldhash::quality::RandomState::default() }
    }

    #[inline]
    fn is_new(&self, flag: &str, unit: Unit<'_>, variation: &str) -> bool {
        let mut hasher = self.hasher.build_hasher();
        match unit {
            Unit::Text(text) => text.hash(&mut hasher),
            Unit::Integer(number) => number.hash(&mut hasher),
        }
        (flag, variation).hash(&mut hasher);
        self.is_new_hash(hasher.finish())
    }

    /// Threads that meet on one fingerprint may all see it as new only if it is pushed out in between.
    #[inline]
    fn is_new_hash(&self, hash: u64) -> bool {
        // The window is never 0 in its 16 bits' worth of use, so that an empty slot belongs to no window.
        let window = self.window.load(Ordering::Relaxed) % 0xFFFF + 1;
        let entry = (hash & !0xFFFF) | window;
        let first = (hash as usize % (SEEN_SLOTS / SEEN_WAYS)) * SEEN_WAYS;
        let Some(ways) = self.slots.get(first..first + SEEN_WAYS) else { return true };
        let mut victim = (hash >> 62) as usize % SEEN_WAYS;
        for (way, slot) in ways.iter().enumerate() {
            let held = slot.load(Ordering::Relaxed);
            if held == entry {
                return false;
            }
            if held & 0xFFFF != window {
                victim = way;
            }
        }
        ways.get(victim).is_none_or(|slot| slot.swap(entry, Ordering::Relaxed) != entry)
    }
}

/// Batches that are not stored yet, in order.
pub(super) struct Outbox {
    instance: String,
    epoch: u64,
    /// Number of the last batch that was closed.
    last: u64,
    stored: u64,
    max_items: usize,
    waiting: VecDeque<ExposureBatch>,
    /// How many of `waiting` were sent on the present connection.
    sent: usize,
    /// Exposures that are stored or refused.
    settled: u64,
}

impl Outbox {
    pub(super) fn new(instance: String, epoch: u64) -> Self {
        let max_items = DEFAULT_BATCH_ITEMS;
        Self { instance, epoch, last: 0, stored: 0, max_items, waiting: VecDeque::new(), sent: 0, settled: 0 }
    }

    /// A connection is up: what it says is stored, and everything else is to be sent on it.
    pub(super) fn greeted(&mut self, last_batch: u64, max_items: u32) {
        self.max_items = (max_items as usize).clamp(1, 10 * DEFAULT_BATCH_ITEMS);
        self.sent = 0;
        self.stored(last_batch);
    }

    /// What was sent may be lost.
    pub(super) fn link_lost(&mut self) {
        self.sent = 0;
    }

    /// Batches up to this number are stored.
    pub(super) fn stored(&mut self, batch: u64) {
        // A number never given out is a server's mistake and says nothing about batches to come.
        self.stored = self.stored.max(batch.min(self.last));
        while let Some(first) = self.waiting.pop_front_if(|first| first.batch <= self.stored) {
            self.settled += first.items.len() as u64;
            self.sent = self.sent.saturating_sub(1);
        }
    }

    /// This batch will never be stored; those before it are.
    pub(super) fn refused(&mut self, batch: u64) {
        if let Some(place) = self.waiting.iter().position(|waiting| waiting.batch == batch) {
            let refused = self.waiting.remove(place);
            self.settled += refused.map_or(0, |batch| batch.items.len() as u64);
            if place < self.sent {
                self.sent -= 1;
            }
        }
    }

    /// Closes batches from the queue, as many as may be under way. `partial`: the last one need not be full.
    pub(super) fn fill(&mut self, queue: &mut mpsc::Receiver<Exposure>, recorder: &Recorder, partial: bool) {
        while self.waiting.len() < MAX_BATCHES_IN_FLIGHT {
            let least = if partial { 1 } else { self.max_items };
            if queue.len() < least {
                return;
            }
            let items = self.take_items(queue);
            self.last += 1;
            self.waiting.push_back(ExposureBatch {
                instance: self.instance.clone(),
                epoch: self.epoch,
                batch: self.last,
                dropped: recorder.take_dropped(),
                items,
            });
        }
    }

    fn take_items(&self, queue: &mut mpsc::Receiver<Exposure>) -> Vec<Exposure> {
        let mut items = Vec::with_capacity(queue.len().min(self.max_items));
        let mut bytes = 0;
        while items.len() < self.max_items && bytes < MAX_BATCH_BYTES {
            let Ok(exposure) = queue.try_recv() else { break };
            let rule = exposure.rule.as_ref().map_or(0, String::len);
            bytes +=
                exposure.unit.len() + exposure.flag.len() + exposure.assigned.len() + exposure.delivered.len() + rule;
            items.push(exposure);
        }
        items
    }

    /// The next batch to send on a websocket; it counts as sent.
    pub(super) fn send_next(&mut self) -> Option<&ExposureBatch> {
        let batch = self.waiting.get(self.sent)?;
        self.sent += 1;
        Some(batch)
    }

    /// The oldest batch that is not stored.
    pub(super) fn oldest(&self) -> Option<&ExposureBatch> {
        self.waiting.front()
    }

    /// Exposures, of all that were ever queued, that are stored or refused.
    pub(super) fn settled(&self) -> u64 {
        self.settled
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Cause;

    fn exposure(unit: &str) -> Exposure {
        Exposure {
            flag: "f".to_owned(),
            unit: unit.to_owned(),
            assigned: "on".to_owned(),
            delivered: "on".to_owned(),
            cause: Cause::Normal,
            reason: "STATIC".to_owned(),
            rule: None,
            slot: None,
            revision: 1,
            at: 1,
        }
    }

    fn served(recorder: &Recorder, unit: &str) {
        recorder.served("f", Unit::Text(unit), "on", || exposure(unit));
    }

    fn units(batch: &ExposureBatch) -> Vec<&str> {
        batch.items.iter().map(|item| item.unit.as_str()).collect()
    }

    #[test]
    fn a_triple_is_recorded_once_a_window_and_outcomes_always() {
        let (recorder, queue) = Recorder::new(100);
        for _ in 0..3 {
            served(&recorder, "a");
            served(&recorder, "b");
        }
        assert_eq!(queue.len(), 2);
        recorder.outcome(exposure("a"));
        recorder.outcome(exposure("a"));
        assert_eq!(queue.len(), 4);
        recorder.begin_window();
        served(&recorder, "a");
        served(&recorder, "a");
        assert_eq!(queue.len(), 5);
        recorder.served("g", Unit::Text("a"), "on", || exposure("a"));
        recorder.served("f", Unit::Text("a"), "off", || exposure("a"));
        assert_eq!(queue.len(), 7);
    }

    #[test]
    fn every_triple_is_recorded_at_least_once_however_many_there_are() {
        let (recorder, queue) = Recorder::new(4 * SEEN_SLOTS);
        for unit in 0..2 * SEEN_SLOTS {
            served(&recorder, &unit.to_string());
        }
        assert_eq!(queue.len(), 2 * SEEN_SLOTS);
    }

    #[test]
    fn threads_record_a_triple_once() {
        let (recorder, queue) = Recorder::new(100_000);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1000).for_each(|unit| served(&recorder, &unit.to_string())));
            }
        });
        assert_eq!(queue.len(), 1000);
    }

    #[test]
    fn a_full_queue_counts_what_it_drops() {
        let (recorder, mut queue) = Recorder::new(3);
        for unit in ["a", "b", "c", "d", "e"] {
            served(&recorder, unit);
        }
        served(&recorder, &"x".repeat(MAX_UNIT_BYTES + 1));
        let mut outbox = Outbox::new("i".to_owned(), 7);
        outbox.fill(&mut queue, &recorder, true);
        let batch = outbox.send_next().unwrap();
        assert_eq!((batch.batch, batch.epoch, batch.dropped), (1, 7, 3));
        assert_eq!(units(batch), ["a", "b", "c"]);
        served(&recorder, "z");
        outbox.fill(&mut queue, &recorder, true);
        assert_eq!(outbox.send_next().unwrap().dropped, 0);
    }

    #[test]
    fn batches_are_numbered_kept_in_order_and_sent_again_until_stored() {
        let (recorder, mut queue) = Recorder::new(100);
        let mut outbox = Outbox::new("i".to_owned(), 1);
        outbox.greeted(0, 2);
        (0..20).for_each(|unit| served(&recorder, &unit.to_string()));
        outbox.fill(&mut queue, &recorder, false);
        let sent: Vec<u64> = std::iter::from_fn(|| outbox.send_next().map(|batch| batch.batch)).collect();
        assert_eq!(sent, [1, 2, 3, 4], "as many as may be under way");
        outbox.stored(2);
        outbox.fill(&mut queue, &recorder, false);
        assert_eq!(outbox.send_next().unwrap().batch, 5);
        outbox.greeted(3, 2);
        let again: Vec<_> = std::iter::from_fn(|| outbox.send_next().cloned()).collect();
        assert_eq!(again.iter().map(|batch| batch.batch).collect::<Vec<_>>(), [4, 5, 6]);
        assert_eq!(units(&again[0]), ["6", "7"]);
        outbox.refused(5);
        outbox.stored(6);
        assert_eq!((outbox.oldest(), outbox.settled()), (None, 12));
        outbox.stored(900);
        outbox.fill(&mut queue, &recorder, false);
        assert_eq!(outbox.oldest().unwrap().batch, 7, "a number never given out changes nothing");
    }

    #[test]
    fn a_partial_batch_is_closed_only_on_demand() {
        let (recorder, mut queue) = Recorder::new(100);
        let mut outbox = Outbox::new("i".to_owned(), 1);
        served(&recorder, "a");
        outbox.fill(&mut queue, &recorder, false);
        assert!(outbox.oldest().is_none());
        outbox.fill(&mut queue, &recorder, true);
        assert_eq!(units(outbox.oldest().unwrap()), ["a"]);
    }
}
