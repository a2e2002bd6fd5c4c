//! An assignment log in memory, for tests and the simulation.

use std::collections::BTreeMap;

use guidon_sdk::protocol::ExposureBatch;
use parking_lot::Mutex;

use super::anonymize::PseudonymKey;
use super::check::check_batch;
use super::{Assignment, AssignmentLog, BatchLimits, Origin, RefusedBatch, Storing};

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
    assignments: Vec<(Origin, Assignment)>,
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
        kept.assignments.iter().filter(|(of, _)| of == origin).map(|(_, assignment)| assignment.clone()).collect()
    }
}

impl AssignmentLog for MemoryAssignments {
    fn last_batch(&self, origin: &Origin, instance: &str, epoch: u64) -> u64 {
        self.kept.lock().last.get(&(origin.clone(), instance.to_owned(), epoch)).copied().unwrap_or(0)
    }

    fn append(&self, origin: &Origin, batch: ExposureBatch) -> Result<Storing, RefusedBatch> {
        check_batch(&batch, &self.limits)?;
        let mut kept = self.kept.lock();
        let last = kept.last.entry((origin.clone(), batch.instance, batch.epoch)).or_insert(0);
        let is_new = batch.batch > *last;
        *last = batch.batch.max(*last);
        let stored = *last;
        if is_new {
            let items = batch.items.into_iter();
            kept.assignments.extend(items.map(|item| (origin.clone(), Assignment::of(item, &self.key))));
        }
        Ok(Box::pin(std::future::ready(Ok(stored))))
    }
}
