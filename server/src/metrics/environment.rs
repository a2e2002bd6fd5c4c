//! One environment's intake: batches are checked, counted once, and filed where a release watches.

use std::collections::{BTreeSet, HashMap};

use guidon_sdk::measure::MetricsBatch;

use super::check::check;
use super::instances::InstanceTally;
use super::intake::{Intake, IntakeLimits, Receipt};
use super::sender::Sender;
use super::series::{Filing, Series};
use super::totals::Totals;
use super::watched::{WatchSpec, Watched};

/// The most flags of one environment that are watched at once.
pub const MAX_WATCHES: usize = 1_000;

/// Batches missing from instances that were heard within so many seconds are gaps; of others, the instance is away.
pub const GAP_SECONDS: u64 = 10;

/// There are [`MAX_WATCHES`] already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{MAX_WATCHES} flags of the environment are watched: wait until a release has ended")]
pub struct TooManyWatches;

/// What became of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Merged {
    /// Rows that count.
    pub rows: u64,
    /// Rows that were refused.
    pub refused: u64,
    /// Rows that a watch wanted and that were too old for it.
    pub late: u64,
    /// Whether the batch was merged before, or is of an earlier run.
    pub repeated: bool,
}

/// What is known of one environment. Memory: its [`Intake`], its [`Totals`], and what each [`Watched`] says.
#[derive(Debug)]
pub struct Environment {
    intake: Intake,
    /// Exports read them.
    pub totals: Totals,
    watches: HashMap<String, Watched>,
    /// The server's second of the last batch.
    heard: u64,
}

impl Environment {
    /// An environment nothing was heard of.
    #[must_use]
    pub fn new(limits: IntakeLimits) -> Self {
        Self { intake: Intake::new(limits), totals: Totals::default(), watches: HashMap::new(), heard: 0 }
    }

    /// Takes in a batch at the server's time `now_ms`. The sender's clock has been told of it.
    pub fn receive(&mut self, sender: &Sender, batch: MetricsBatch, now_ms: u64) -> Merged {
        let now = now_ms / 1_000;
        self.heard = self.heard.max(now);
        let Receipt::New { warm } = self.intake.receive(sender.id, sender.epoch, batch.batch, now) else {
            return Merged { repeated: true, ..Merged::default() };
        };
        if warm {
            for watched in self.watches.values_mut() {
                watched.hear(sender.id, &sender.instance, sender.epoch, batch.host.as_ref(), now);
            }
        }
        let mut merged = Merged::default();
        for row in batch.rows {
            if let Err(problem) = check(&row, batch.at) {
                merged.refused += 1;
                tracing::debug!(%problem, "a row of metrics is refused");
                continue;
            }
            merged.rows += 1;
            self.totals.add(&row, now);
            let Some(watched) = self.watches.get_mut(&row.flag).filter(|_| warm) else { continue };
            // An offset is known within a delay: by that much a row may seem to be of the next second.
            let second = sender.clock.second(row.second).min(now);
            let filing = watched.file(sender.id, &sender.instance, row, second, now);
            merged.late += u64::from(filing == Some(Filing::Dropped));
        }
        merged
    }

    /// Watches a flag from second `now` on, in place of what watched it before.
    ///
    /// # Errors
    ///
    /// [`TooManyWatches`].
    pub fn watch(&mut self, flag: &str, spec: WatchSpec, now: u64) -> Result<(), TooManyWatches> {
        if !self.watches.contains_key(flag) && self.watches.len() >= MAX_WATCHES {
            return Err(TooManyWatches);
        }
        self.watches.insert(flag.to_owned(), Watched::new(spec, now));
        Ok(())
    }

    /// Ends a watch.
    pub fn unwatch(&mut self, flag: &str) {
        self.watches.remove(flag);
    }

    /// The watch of a flag.
    pub fn watched(&mut self, flag: &str) -> Option<&mut Watched> {
        self.watches.get_mut(flag)
    }

    /// See [`Watched::advance`]; `read` is told of the gaps as well. False if the flag is not watched.
    pub fn advance(&mut self, flag: &str, now: u64, mut read: impl FnMut(u64, &[(&str, &Series)], u64)) -> bool {
        let gaps = self.intake.gaps(now.saturating_sub(GAP_SECONDS));
        let Some(watched) = self.watches.get_mut(flag) else { return false };
        watched.advance(now, |second, series| read(second, series, gaps));
        true
    }

    /// See [`Watched::exclude`].
    pub fn exclude(&mut self, flag: &str, instances: BTreeSet<String>) {
        if let Some(watched) = self.watches.get_mut(flag) {
            watched.exclude(instances);
        }
    }

    /// See [`Watched::instances`]; empty if the flag is not watched.
    #[must_use]
    pub fn instances(&self, flag: &str, now: u64) -> Vec<InstanceTally> {
        self.watches.get(flag).map(|watched| watched.instances(now)).unwrap_or_default()
    }

    /// Whether nobody watches it and nothing was heard of it for `seconds`.
    #[must_use]
    pub fn is_idle(&self, now: u64, seconds: u64) -> bool {
        self.watches.is_empty() && self.heard.saturating_add(seconds) <= now
    }
}
