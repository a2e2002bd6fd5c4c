//! An assignment log in memory, for tests and the simulation.

use std::collections::BTreeMap;

use guidon_sdk::protocol::ExposureBatch;
use parking_lot::Mutex;

use super::anonymize::PseudonymKey;
use super::check::check_batch;
use super::{
    Assignment, AssignmentLog, BatchLimits, Cursor, Line, Origin, Page, Query, QueryError, RefusedBatch, Storing,
};

/// Keeps all it is given, and loses it when dropped.
#[derive(Debug)]
pub struct MemoryAssignments {
    limits: BatchLimits,
    key: PseudonymKey,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    last: BTreeMap<(Origin, String, u64), u64>,
    lines: Vec<(Origin, Line)>,
}

impl MemoryAssignments {
    /// An empty log.
    #[must_use]
    pub fn new(limits: BatchLimits, key: PseudonymKey) -> Self {
        Self { limits, key, kept: Mutex::default() }
    }

    /// What an environment's SDKs reported, in the order it came.
    #[must_use]
    pub fn assignments(&self, origin: &Origin) -> Vec<Assignment> {
        let kept = self.kept.lock();
        kept.lines.iter().filter(|(of, _)| of == origin).map(|(_, line)| line.assignment.clone()).collect()
    }
}

impl AssignmentLog for MemoryAssignments {
    fn last_batch(&self, origin: &Origin, instance: &str, epoch: u64) -> u64 {
        self.kept.lock().last.get(&(origin.clone(), instance.to_owned(), epoch)).copied().unwrap_or(0)
    }

    fn append(&self, origin: &Origin, batch: ExposureBatch) -> Result<Storing, RefusedBatch> {
        check_batch(&batch, &self.limits)?;
        let mut kept = self.kept.lock();
        let last = kept.last.entry((origin.clone(), batch.instance.clone(), batch.epoch)).or_insert(0);
        let is_new = batch.batch > *last;
        *last = batch.batch.max(*last);
        let stored = *last;
        if is_new {
            for item in batch.items {
                let cursor = Cursor { seq: kept.lines.len() as u64 + 1, index: 0 };
                let assignment = Assignment::of(item, &self.key);
                let line = Line { assignment, instance: batch.instance.clone(), received: 0, cursor };
                kept.lines.push((origin.clone(), line));
            }
        }
        Ok(Box::pin(std::future::ready(Ok(stored))))
    }

    /// As from a log whose every batch was received at time 0.
    fn read(&self, query: &Query) -> Result<Page, QueryError> {
        let kept = self.kept.lock();
        let is_wanted = |line: &&Line| {
            query.after.is_none_or(|after| line.cursor > after)
                && query.flag.as_ref().is_none_or(|flag| *flag == line.assignment.flag)
                && query.from.is_none_or(|from| from == 0)
                && query.to.is_none_or(|to| to > 0)
        };
        let of_origin = kept.lines.iter().filter(|(of, _)| *of == query.origin).map(|(_, line)| line);
        let mut lines: Vec<Line> = of_origin.filter(is_wanted).take(query.limit.saturating_add(1)).cloned().collect();
        let has_more = lines.len() > query.limit;
        lines.truncate(query.limit);
        let next = lines.last().filter(|_| has_more).map(|line| line.cursor);
        Ok(Page { lines, next })
    }
}
