//! Rows on their way to the server: numbered batches, sent again on a new connection until they are merged or too old. Pure.

use std::collections::VecDeque;

use crate::measure::{HostReading, MetricRow, MetricsBatch};

/// Seconds after which rows that were not merged are of no use any more, and are dropped.
pub const MAX_METRICS_AGE_SECONDS: u64 = 30;
/// Most bytes of batches that wait to be merged, as JSON and roughly; past it the oldest are dropped.
pub const MAX_METRICS_BYTES: usize = 8 << 20;
/// A batch is closed once its rows sum to this many bytes, roughly: well below the megabyte that the server takes.
const MAX_BATCH_BYTES: usize = 256 << 10;
/// Rows of a batch until the server names its limit.
const DEFAULT_BATCH_ROWS: usize = 500;
/// Batches that are sent and not merged yet. A connection takes 64 messages before it counts as stuck.
const MAX_IN_FLIGHT: usize = 16;

/// Batches that are not merged yet, in order.
pub(super) struct Uploads {
    /// Number of the last batch.
    last: u64,
    /// `None`: the server takes no metrics.
    max_rows: Option<usize>,
    waiting: VecDeque<Waiting>,
    /// How many of `waiting` were sent on the present connection.
    sent: usize,
    bytes: usize,
    dropped: u64,
}

struct Waiting {
    second: u64,
    bytes: usize,
    batch: MetricsBatch,
}

impl Uploads {
    pub(super) fn new() -> Self {
        let max_rows = Some(DEFAULT_BATCH_ROWS);
        Self { last: 0, max_rows, waiting: VecDeque::new(), sent: 0, bytes: 0, dropped: 0 }
    }

    /// A connection is up: everything is to be sent on it, in batches of at most `max_rows` rows; 0: nothing is.
    pub(super) fn greeted(&mut self, max_rows: u32) {
        self.sent = 0;
        self.max_rows = (max_rows > 0).then_some(max_rows as usize);
        match self.max_rows {
            None => self.drop_while(|_| true),
            // Batches that were closed for another server may be too large for this one.
            Some(most) => self.drop_while(|waiting| waiting.batch.rows.len() > most),
        }
        if self.max_rows.is_none() {
            self.dropped = 0;
        }
    }

    /// What was sent may be lost.
    pub(super) fn link_lost(&mut self) {
        self.sent = 0;
    }

    /// Takes in the rows of the second that ended before `second`, what was lost of it, and how the host does.
    pub(super) fn add(&mut self, second: u64, rows: Vec<MetricRow>, dropped: u64, host: Option<HostReading>) {
        let Some(max_rows) = self.max_rows else { return };
        self.dropped += dropped;
        self.drop_while(|waiting| waiting.second + MAX_METRICS_AGE_SECONDS < second);
        let mut open = (Vec::new(), 0);
        for row in rows {
            let size = size_of_row(&row);
            if open.0.len() >= max_rows || (open.1 + size > MAX_BATCH_BYTES && !open.0.is_empty()) {
                self.push(second, std::mem::take(&mut open), None);
            }
            open.0.push(row);
            open.1 += size;
        }
        if !open.0.is_empty() || host.is_some() {
            self.push(second, open, host);
        }
        while self.bytes > MAX_METRICS_BYTES && !self.waiting.is_empty() {
            self.drop_oldest();
        }
    }

    fn push(&mut self, second: u64, (rows, bytes): (Vec<MetricRow>, usize), host: Option<HostReading>) {
        self.last += 1;
        let dropped = std::mem::take(&mut self.dropped);
        let batch = MetricsBatch { batch: self.last, at: 0, dropped, rows, host };
        self.waiting.push_back(Waiting { second, bytes, batch });
        self.bytes += bytes;
    }

    fn drop_while(&mut self, old: impl Fn(&Waiting) -> bool) {
        while self.waiting.front().is_some_and(&old) {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some(gone) = self.waiting.pop_front() {
            self.forget(0, &gone);
            self.dropped += gone.batch.rows.len() as u64 + gone.batch.dropped;
        }
    }

    /// The batch at `place` is no longer waiting.
    fn forget(&mut self, place: usize, gone: &Waiting) {
        self.bytes -= gone.bytes;
        if place < self.sent {
            self.sent -= 1;
        }
    }

    /// The server has counted this batch, or never will.
    pub(super) fn merged(&mut self, batch: u64) {
        let place = self.waiting.iter().position(|waiting| waiting.batch.batch == batch);
        if let Some((place, gone)) = place.and_then(|place| Some((place, self.waiting.remove(place)?))) {
            self.forget(place, &gone);
        }
    }

    /// The next batch to send, at `now_ms` since 1970; it counts as sent.
    pub(super) fn send_next(&mut self, now_ms: u64) -> Option<MetricsBatch> {
        if self.sent >= MAX_IN_FLIGHT {
            return None;
        }
        let batch = MetricsBatch { at: now_ms, ..self.waiting.get(self.sent)?.batch.clone() };
        self.sent += 1;
        Some(batch)
    }
}

/// Bytes of a row as JSON, roughly and rather too many.
fn size_of_row(row: &MetricRow) -> usize {
    let texts = row.flag.len() + row.variation.len() + row.metric.len();
    let buckets = row.latency.buckets().count();
    400 + texts + 14 * buckets + 21 * (row.first_seen.len() + row.first_failing.len()) + 28 * row.first_latency.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(count: usize) -> Vec<MetricRow> {
        vec![MetricRow { metric: "m".to_owned(), ..MetricRow::default() }; count]
    }

    fn sent(uploads: &mut Uploads) -> Vec<(u64, usize, u64)> {
        let told = |batch: MetricsBatch| (batch.batch, batch.rows.len(), batch.dropped);
        std::iter::from_fn(|| uploads.send_next(9)).map(told).collect()
    }

    #[test]
    fn batches_are_numbered_and_sent_again_until_merged() {
        let mut uploads = Uploads::new();
        uploads.greeted(2);
        uploads.add(1, rows(5), 3, None);
        assert_eq!(sent(&mut uploads), [(1, 2, 3), (2, 2, 0), (3, 1, 0)]);
        uploads.merged(2);
        uploads.add(2, Vec::new(), 0, None);
        uploads.add(2, Vec::new(), 0, Some(HostReading::default()));
        assert_eq!(sent(&mut uploads), [(4, 0, 0)], "an empty second is sent for its reading alone");
        uploads.link_lost();
        assert_eq!(sent(&mut uploads), [(1, 2, 3), (3, 1, 0), (4, 0, 0)]);
        uploads.greeted(1);
        assert_eq!(sent(&mut uploads), [(3, 1, 0), (4, 0, 0)], "too large for this server");
        uploads.merged(77);
    }

    #[test]
    fn what_is_old_or_too_much_is_dropped_and_told() {
        let mut uploads = Uploads::new();
        uploads.add(1, rows(3), 0, None);
        uploads.add(32, rows(1), 0, None);
        assert_eq!(sent(&mut uploads), [(2, 1, 3)]);
        let large = MetricRow { first_seen: vec![1; 500], first_failing: vec![1; 500], ..MetricRow::default() };
        for second in 40..60 {
            uploads.add(second, vec![large.clone(); 100], 0, None);
        }
        assert!(uploads.bytes <= MAX_METRICS_BYTES && uploads.waiting.len() > 20, "{}", uploads.waiting.len());
        let size = serde_json::to_vec(&uploads.waiting[5].batch).unwrap().len();
        assert!(size < MAX_BATCH_BYTES, "{size}");
        assert_eq!(sent(&mut uploads).len() + 1, MAX_IN_FLIGHT + 1);
        uploads.greeted(0);
        uploads.add(61, rows(1), 1, None);
        assert!(sent(&mut uploads).is_empty(), "this server takes none");
    }
}
