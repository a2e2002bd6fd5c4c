//! The assignment log on disk.

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::Shared;
use guidon_sdk::protocol::ExposureBatch;
use parking_lot::Mutex;

use super::anonymize::PseudonymKey;
use super::check::check_batch;
use super::metrics::{AssignmentMetrics, Outcome};
use super::query::{Cursor, MAX_PAGE_ITEMS};
use super::record::{BatchHead, Checkpoint, Kept, decode, encode_batch, encode_checkpoint, items};
use super::watermarks::{Mark, Numbering, Watermarks};
use super::{
    AppendError, Assignment, AssignmentLog, BatchLimits, Line, Origin, Page, Query, QueryError, RefusedBatch, Storing,
};
use crate::clock::Clock;
use crate::log::{self, Files, Log, Recovered};
use crate::vault::{self, Vault};

/// Bytes read from the log at once.
const READ_BYTES: usize = 1 << 20;

/// Records looked at for one page, so that a filter that matches little answers in steps.
const MAX_RECORDS_A_PAGE: usize = 1_000;

/// How much the assignment log keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Days after which exposures are removed, give or take a segment. Default 90.
    pub max_age_days: u64,
    /// Bytes beyond which the oldest are removed, give or take a segment. Default 10 GiB.
    pub max_bytes: u64,
    /// Length of a segment file, in bytes: what is removed at once. Default 64 MiB.
    pub segment_bytes: u64,
    /// Hours after which a segment is ended though it is not full. Default 24.
    pub segment_hours: u64,
    /// SDK instances whose batch numbers are remembered, those heard of last. Default 50,000.
    pub max_instances: usize,
    /// Days of silence after which an instance's batch numbers are forgotten. Default 30.
    pub instance_days: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            max_age_days: 90,
            max_bytes: 10 << 30,
            segment_bytes: 64 << 20,
            segment_hours: 24,
            max_instances: 50_000,
            instance_days: 30,
        }
    }
}

const HOUR_MS: u64 = 60 * 60 * 1_000;
const DAY_MS: u64 = 24 * HOUR_MS;

/// The assignment log on disk: batches in checksummed segment files, acknowledged once synced.
///
/// Each segment starts with a checkpoint of the batch numbers, so that those before it can be removed.
pub struct FileAssignmentLog {
    shared: Arc<SharedLog>,
}

struct SharedLog {
    log: Log,
    vault: Arc<dyn Vault>,
    clock: Arc<dyn Clock>,
    limits: BatchLimits,
    retention: Retention,
    keys: Mutex<HashMap<Origin, PseudonymKey>>,
    /// Held while a key is made, so that an environment gets one.
    making_key: tokio::sync::Mutex<()>,
    state: Mutex<State>,
    metrics: AssignmentMetrics,
}

struct State {
    durable: Watermarks,
    /// Batches on their way to the disk, by who numbers them.
    under_way: HashMap<Numbering, UnderWay>,
    /// First record and start of every segment, oldest first.
    segments: VecDeque<(u64, u64)>,
    /// Bytes appended to the last segment; more than any limit before the first append, which starts a segment.
    segment_bytes: u64,
}

#[derive(Clone)]
struct UnderWay {
    batch: u64,
    stored: Shared<Storing>,
}

impl State {
    /// All marks as they are once everything under way is durable: records become durable in order, so that a checkpoint
    /// behind those batches is there only if they are.
    fn marks(&self, now: u64) -> Vec<(Numbering, Mark)> {
        let settled = self.durable.iter().filter(|(numbering, _)| !self.under_way.contains_key(numbering));
        let settled = settled.map(|(numbering, mark)| (numbering.clone(), mark.clone()));
        let under_way = self.under_way.iter();
        let under_way = under_way.map(|(numbering, sent)| (numbering.clone(), Mark { last: sent.batch, at: now }));
        settled.chain(under_way).collect()
    }
}

/// Why the assignment log did not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The log below did not open.
    #[error(transparent)]
    Log(#[from] log::OpenError),
    /// A record that is sound says what no record says.
    #[error("{}: record {seq} of the assignment log: {problem}", path.display())]
    BadRecord {
        /// Its file.
        path: std::path::PathBuf,
        /// Its number.
        seq: u64,
        /// What is wrong with it.
        problem: String,
    },
}

impl FileAssignmentLog {
    /// Opens the log in `dir`, creating it if there is none. Blocks while all of it is checked.
    ///
    /// # Errors
    ///
    /// [`OpenError`] if anything but a torn last write is not as it was written.
    pub fn open(
        files: Arc<dyn Files>,
        dir: &Path,
        vault: Arc<dyn Vault>,
        clock: Arc<dyn Clock>,
        limits: BatchLimits,
        retention: Retention,
    ) -> Result<(Self, Recovered), OpenError> {
        let mut durable = Watermarks::new(retention.max_instances);
        let mut segments = VecDeque::new();
        let mut bad = None;
        // Segments are ended here, where the checkpoint is made.
        let options = log::Options { segment_bytes: u64::MAX, ..log::Options::default() };
        let (log, recovered) =
            Log::open(files, dir, log::Kind::Assignments, options, |record| match decode(record.payload) {
                Ok(Kept::Batch(head)) => durable.raise(head.numbering, head.batch, head.received),
                Ok(Kept::Checkpoint(checkpoint)) => {
                    segments.push_back((record.seq, checkpoint.at));
                    for (numbering, mark) in checkpoint.marks {
                        durable.raise(numbering, mark.last, mark.at);
                    }
                }
                Err(problem) => {
                    let path = record.path.to_owned();
                    bad.get_or_insert(OpenError::BadRecord { path, seq: record.seq, problem });
                }
            })?;
        if let Some(bad) = bad {
            return Err(bad);
        }
        let state = State { durable, under_way: HashMap::new(), segments, segment_bytes: u64::MAX };
        let shared = SharedLog {
            log,
            vault,
            clock,
            limits,
            retention,
            keys: Mutex::default(),
            making_key: tokio::sync::Mutex::default(),
            state: Mutex::new(state),
            metrics: AssignmentMetrics::default(),
        };
        Ok((Self { shared: Arc::new(shared) }, recovered))
    }

    /// Reads the log under it, for a copy.
    #[must_use]
    pub fn reader(&self) -> log::Reader {
        self.shared.log.reader()
    }

    /// The log's condition, for health checks and metrics.
    #[must_use]
    pub fn health(&self) -> log::Health {
        self.shared.log.health()
    }

    /// What the log counts.
    #[must_use]
    pub fn metrics(&self) -> &AssignmentMetrics {
        &self.shared.metrics
    }

    /// Writes what waits and releases the folder. Blocks.
    ///
    /// # Errors
    ///
    /// The log had become read-only.
    pub fn close(&self) -> Result<(), log::AppendError> {
        self.shared.log.close()
    }
}

impl AssignmentLog for FileAssignmentLog {
    fn last_batch(&self, origin: &Origin, instance: &str, epoch: u64) -> u64 {
        let numbering = Numbering { origin: origin.clone(), instance: instance.to_owned(), epoch };
        self.shared.state.lock().durable.last(&numbering)
    }

    fn append(&self, origin: &Origin, batch: ExposureBatch) -> Result<Storing, RefusedBatch> {
        let items = batch.items.len() as u64;
        check_batch(&batch, &self.shared.limits).inspect_err(|_| self.shared.metrics.count(Outcome::Refused, items))?;
        let shared = Arc::clone(&self.shared);
        let origin = origin.clone();
        Ok(Box::pin(async move {
            let placed = match shared.key(&origin).await {
                Ok(key) => shared.place(origin, batch, &key),
                Err(error) => Err(error),
            };
            placed.inspect_err(|_| shared.metrics.count(Outcome::Failed, items))?.await
        }))
    }

    fn read(&self, query: &Query) -> Result<Page, QueryError> {
        self.shared.read(query)
    }
}

impl SharedLog {
    /// The environment's key, made and kept in the vault when it is first needed.
    async fn key(&self, origin: &Origin) -> Result<PseudonymKey, AppendError> {
        if let Some(key) = self.keys.lock().get(origin) {
            return Ok(key.clone());
        }
        let _making = self.making_key.lock().await;
        if let Some(key) = self.keys.lock().get(origin) {
            return Ok(key.clone());
        }
        let unavailable = |problem: &dyn std::fmt::Display| AppendError::Unavailable(problem.to_string());
        let id = format!("{}/{}", origin.project, origin.environment);
        let kept = self.vault.get(vault::Kind::PseudonymKey, &id).map_err(|error| unavailable(&error))?;
        let key = match kept {
            Some(bytes) => {
                let bytes =
                    bytes.try_into().map_err(|_| unavailable(&"the vault's pseudonym key has another length"))?;
                PseudonymKey::new(bytes)
            }
            None => {
                let key = PseudonymKey::generate();
                let put = self.vault.put(vault::Kind::PseudonymKey, &id, key.bytes().to_vec());
                put.await.map_err(|error| unavailable(&error))?;
                key
            }
        };
        self.keys.lock().insert(origin.clone(), key.clone());
        Ok(key)
    }

    /// Gives the batch its place in the log, unless it has one.
    fn place(
        self: &Arc<Self>,
        origin: Origin,
        batch: ExposureBatch,
        key: &PseudonymKey,
    ) -> Result<Shared<Storing>, AppendError> {
        let ExposureBatch { instance, epoch, batch: number, dropped, items } = batch;
        let numbering = Numbering { origin, instance, epoch };
        let received = self.clock.now_ms();
        let count = items.len() as u64;
        let head = BatchHead { numbering: numbering.clone(), batch: number, received, dropped };
        let record = encode_batch(&head, items.into_iter().map(|item| Assignment::of(item, key)))
            .map_err(|error| AppendError::Unavailable(error.to_string()))?;

        let mut state = self.state.lock();
        let last = state.durable.last(&numbering);
        if number <= last {
            self.metrics.count(Outcome::Duplicate, count);
            return Ok(ready(last));
        }
        if let Some(under_way) = state.under_way.get(&numbering)
            && number <= under_way.batch
        {
            self.metrics.count(Outcome::Duplicate, count);
            return Ok(under_way.stored.clone());
        }
        let appended = self.append(&mut state, record, received)?;
        let shared = Arc::clone(self);
        let stored: Storing = Box::pin(async move {
            let result = appended.await;
            shared.settle(head, count, result)
        });
        let stored = stored.shared();
        state.under_way.insert(numbering, UnderWay { batch: number, stored: stored.clone() });
        drop(state);
        // Settled though nobody waits any more: the connection may be gone.
        tokio::spawn(stored.clone());
        Ok(stored)
    }

    /// Appends a record, after a checkpoint if it starts a segment.
    fn append(self: &Arc<Self>, state: &mut State, record: Vec<u8>, now: u64) -> Result<log::Appended, AppendError> {
        let retention = &self.retention;
        let bytes = record.len() as u64;
        let started = state.segments.back().map_or(0, |(_, at)| *at);
        let is_due = state.segment_bytes.saturating_add(bytes) > retention.segment_bytes
            || now.saturating_sub(started) > retention.segment_hours.saturating_mul(HOUR_MS);
        let mut records = vec![Bytes::from(record)];
        if is_due {
            state.durable.forget_before(now.saturating_sub(retention.instance_days.saturating_mul(DAY_MS)));
            let checkpoint = encode_checkpoint(&Checkpoint { at: now, marks: state.marks(now) })
                .map_err(|error| AppendError::Unavailable(error.to_string()))?;
            records.insert(0, checkpoint.into());
            self.log.start_segment();
        }
        let appended = match self.log.append_many(records.clone()) {
            // Space may have been made in the meantime; the next write finds out.
            Err(log::AppendError::DiskFull) => {
                self.log.resume();
                self.log.append_many(records)
            }
            other => other,
        };
        let appended = appended.map_err(AppendError::from)?;
        if is_due {
            state.segments.push_back((appended.first_seq(), now));
            state.segment_bytes = 0;
            self.remove_old(state, now);
        }
        state.segment_bytes = state.segment_bytes.saturating_add(bytes);
        Ok(appended)
    }

    /// Removes the oldest segments, in the background, as far as the retention asks for it.
    fn remove_old(self: &Arc<Self>, state: &mut State, now: u64) {
        let cutoff = now.saturating_sub(self.retention.max_age_days.saturating_mul(DAY_MS));
        let sizes: HashMap<u64, u64> =
            self.log.segments().iter().map(|segment| (segment.first_seq, segment.bytes)).collect();
        let mut bytes: u64 = sizes.values().sum();
        let mut keep_from = None;
        // A segment is as old as the start of the one after it.
        while state.segments.len() > 1
            && (state.segments[1].1 < cutoff || bytes > self.retention.max_bytes)
            && let Some((first_seq, _)) = state.segments.pop_front()
        {
            bytes = bytes.saturating_sub(sizes.get(&first_seq).copied().unwrap_or(0));
            keep_from = state.segments.front().map(|(seq, _)| *seq);
        }
        if let Some(seq) = keep_from {
            let shared = Arc::clone(self);
            tokio::task::spawn_blocking(move || match shared.log.remove_segments_before(seq) {
                Ok(removed) => tracing::info!(removed, "old segments of the assignment log are removed"),
                Err(error) => tracing::warn!(%error, "old segments of the assignment log are not removed yet"),
            });
        }
    }

    /// Notes what became of a batch.
    fn settle(&self, head: BatchHead, items: u64, result: Result<u64, log::AppendError>) -> Result<u64, AppendError> {
        let BatchHead { numbering, batch, received, dropped } = head;
        let mut state = self.state.lock();
        if state.under_way.get(&numbering).is_some_and(|under_way| under_way.batch == batch) {
            state.under_way.remove(&numbering);
        }
        match result {
            Ok(_) => {
                self.metrics.count(Outcome::Stored, items);
                self.metrics.dropped(dropped);
                state.durable.raise(numbering.clone(), batch, received);
                Ok(state.durable.last(&numbering))
            }
            Err(error) => {
                self.metrics.count(Outcome::Failed, items);
                // The segment it may have started is not there: the next append starts one.
                let next_seq = self.log.health().next_seq;
                state.segments.retain(|(first_seq, _)| *first_seq < next_seq);
                state.segment_bytes = u64::MAX;
                Err(error.into())
            }
        }
    }

    fn read(&self, query: &Query) -> Result<Page, QueryError> {
        let limit = query.limit.clamp(1, MAX_PAGE_ITEMS);
        let first = self.log.health().first_seq.max(self.start_of(query));
        let after = query.after.unwrap_or(Cursor { seq: first, index: 0 });
        let mut page = Page { lines: Vec::new(), next: None };
        let mut seq = after.seq.max(first);
        let mut looked_at = 0;
        loop {
            let records = match self.log.read(seq, READ_BYTES) {
                Err(log::ReadError::Removed { first_seq, .. }) => {
                    seq = first_seq;
                    continue;
                }
                other => other?,
            };
            if records.is_empty() {
                return Ok(page);
            }
            for record in records {
                seq = record.seq + 1;
                looked_at += 1;
                let skip = if record.seq == after.seq { after.index } else { 0 };
                if let Some(full) = take(&mut page.lines, query, &record, skip, limit)? {
                    page.next = Some(full);
                    return Ok(page);
                }
            }
            if looked_at >= MAX_RECORDS_A_PAGE {
                page.next = Some(Cursor { seq, index: 0 });
                return Ok(page);
            }
        }
    }

    /// First record that can be of the time asked for.
    fn start_of(&self, query: &Query) -> u64 {
        let Some(from) = query.from else { return 0 };
        let state = self.state.lock();
        state.segments.iter().rev().find(|(_, at)| *at < from).map_or(0, |(seq, _)| *seq)
    }
}

/// Takes what the query asks for from a record; where to go on, if the page is full.
fn take(
    lines: &mut Vec<Line>,
    query: &Query,
    record: &log::Record,
    skip: u32,
    limit: usize,
) -> Result<Option<Cursor>, QueryError> {
    let bad = |problem: String| QueryError::BadRecord { seq: record.seq, problem };
    let Kept::Batch(head) = decode(&record.payload).map_err(bad)? else { return Ok(None) };
    let is_wanted = head.numbering.origin == query.origin
        && query.from.is_none_or(|from| head.received >= from)
        && query.to.is_none_or(|to| head.received < to);
    if !is_wanted {
        return Ok(None);
    }
    for (index, item) in (1_u32..).zip(items(&record.payload)).skip(skip as usize) {
        let assignment = item.map_err(|error| bad(error.to_string()))?;
        if query.flag.as_ref().is_some_and(|flag| *flag != assignment.flag) {
            continue;
        }
        if lines.len() == limit {
            return Ok(Some(Cursor { seq: record.seq, index: index - 1 }));
        }
        let cursor = Cursor { seq: record.seq, index };
        lines.push(Line { assignment, instance: head.numbering.instance.clone(), received: head.received, cursor });
    }
    Ok(None)
}

fn ready(last: u64) -> Shared<Storing> {
    let stored: Storing = Box::pin(std::future::ready(Ok(last)));
    stored.shared()
}

impl From<log::AppendError> for AppendError {
    fn from(error: log::AppendError) -> Self {
        match error {
            log::AppendError::DiskFull => Self::DiskFull,
            log::AppendError::Busy { .. } => Self::Busy,
            other => Self::Unavailable(other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests;
