//! Takes in what instances count, and gives releases the seconds they watch.

use std::collections::BTreeSet;
use std::sync::Arc;

use dashmap::DashMap;
use guidon_sdk::measure::MetricsBatch;
use parking_lot::Mutex;

use super::counts::MetricsCounts;
use super::environment::{Environment, Merged, TooManyWatches};
use super::instances::InstanceTally;
use super::intake::IntakeLimits;
use super::sender::Sender;
use super::series::Series;
use super::totals::{SeriesName, Total};
use super::watched::WatchSpec;
use crate::assignments::Origin;

/// The most environments that metrics are kept of. Past it, those of which nothing was heard for [`IDLE_SECONDS`] make room;
/// batches of others are acknowledged, dropped and counted.
pub const MAX_ENVIRONMENTS: usize = 1_000;

/// How long an environment must be silent before another may take its place.
pub const IDLE_SECONDS: u64 = 3_600;

/// Where connections hand their batches.
pub trait MetricsSink: Send + Sync + 'static {
    /// Merges a batch that came at the server's time `now_ms`. It is acknowledged whatever becomes of it: sending it again would
    /// not help.
    fn receive(&self, sender: &mut Sender, batch: MetricsBatch, now_ms: u64);

    /// A batch came that cannot be read.
    fn unreadable(&self, sender: &mut Sender, reason: &str);
}

/// A flag that is watched.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WatchKey {
    /// Its environment.
    pub origin: Origin,
    /// Its key.
    pub flag: String,
}

/// What instances counted, by environment.
///
/// A lock per environment, held while one batch is merged (some 20 microseconds for 40 rows) or one watch is read. Nothing is
/// kept across a restart: instances are cold then, and count for the guard again after their warm-up.
#[derive(Debug, Default)]
pub struct MetricsHub {
    environments: DashMap<Origin, Arc<Mutex<Environment>>>,
    limits: IntakeLimits,
    counts: MetricsCounts,
}

impl MetricsHub {
    /// A hub that has heard nothing.
    #[must_use]
    pub fn new(limits: IntakeLimits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// What the hub counts of itself, without names.
    #[must_use]
    pub fn counts(&self) -> &MetricsCounts {
        &self.counts
    }

    /// Watches a flag for a release, from `now_ms` on, in place of what watched it before.
    ///
    /// # Errors
    ///
    /// [`TooManyWatches`].
    pub fn watch(&self, key: &WatchKey, spec: WatchSpec, now_ms: u64) -> Result<(), TooManyWatches> {
        let environment = self.environment(&key.origin, now_ms / 1_000).ok_or(TooManyWatches)?;
        environment.lock().watch(&key.flag, spec, now_ms / 1_000)
    }

    /// Ends a watch.
    pub fn unwatch(&self, key: &WatchKey) {
        self.with(&key.origin, |environment| environment.unwatch(&key.flag));
    }

    /// A new step of the release begins: see [`super::Watched::begin_step`]. False if the flag is not watched.
    pub fn begin_step(&self, key: &WatchKey, min_revision: u64, now_ms: u64) -> bool {
        let begun = self.with(&key.origin, |environment| {
            environment.watched(&key.flag).map(|watched| watched.begin_step(min_revision, now_ms / 1_000))
        });
        begun.flatten().is_some()
    }

    /// Reads every second of a watch that is over at `now_ms`, oldest first, each once. `read` gets the second, the series of
    /// all metrics, each having read that second last, and how many batches are missing from instances that are there. It runs
    /// under the environment's lock: it decides, and does nothing else. False if the flag is not watched.
    ///
    /// Call it every second, some 300 ms after the second's beginning: rows take that long to come, and later ones count in the
    /// next second.
    pub fn advance(&self, key: &WatchKey, now_ms: u64, read: impl FnMut(u64, &[(&str, &Series)], u64)) -> bool {
        self.with(&key.origin, |environment| environment.advance(&key.flag, now_ms / 1_000, read)).unwrap_or(false)
    }

    /// Leaves the rows of these instances, and of no others, out of the watch: they are routed away.
    pub fn exclude(&self, key: &WatchKey, instances: BTreeSet<String>) {
        self.with(&key.origin, |environment| environment.exclude(&key.flag, instances));
    }

    /// Each warm instance beside its peers, by name, in the last minute; empty if the flag is not watched.
    #[must_use]
    pub fn instances(&self, key: &WatchKey, now_ms: u64) -> Vec<InstanceTally> {
        self.with(&key.origin, |environment| environment.instances(&key.flag, now_ms / 1_000)).unwrap_or_default()
    }

    /// Shows `see` every total, one environment at a time.
    pub fn totals(&self, mut see: impl FnMut(&Origin, SeriesName<'_>, &Total)) {
        let all: Vec<_> = self.environments.iter().map(|held| (held.key().clone(), Arc::clone(held.value()))).collect();
        for (origin, environment) in all {
            environment.lock().totals.iter().for_each(|(name, total)| see(&origin, name, total));
        }
    }

    fn with<T>(&self, origin: &Origin, act: impl FnOnce(&mut Environment) -> T) -> Option<T> {
        let environment = self.environments.get(origin).map(|held| Arc::clone(held.value()))?;
        let mut environment = environment.lock();
        Some(act(&mut environment))
    }

    /// The environment, made if there is room.
    fn environment(&self, origin: &Origin, now: u64) -> Option<Arc<Mutex<Environment>>> {
        if let Some(held) = self.environments.get(origin) {
            return Some(Arc::clone(held.value()));
        }
        if self.environments.len() >= MAX_ENVIRONMENTS {
            self.environments.retain(|_, environment| !environment.lock().is_idle(now, IDLE_SECONDS));
        }
        let has_room = self.environments.len() < MAX_ENVIRONMENTS;
        let made = || Arc::new(Mutex::new(Environment::new(self.limits)));
        has_room.then(|| Arc::clone(self.environments.entry(origin.clone()).or_insert_with(made).value()))
    }
}

impl MetricsSink for MetricsHub {
    fn receive(&self, sender: &mut Sender, batch: MetricsBatch, now_ms: u64) {
        sender.heard(batch.at, now_ms);
        self.counts.lost.inc_by(batch.dropped);
        let rows = batch.rows.len() as u64;
        let merged = match self.environment(&sender.origin, now_ms / 1_000) {
            Some(environment) => environment.lock().receive(sender, batch, now_ms),
            None => Merged { refused: rows, ..Merged::default() },
        };
        self.counts.take(&merged);
    }

    fn unreadable(&self, sender: &mut Sender, reason: &str) {
        self.counts.unreadable.inc();
        if !std::mem::replace(&mut sender.complained, true) {
            let (project, environment) = (&sender.origin.project, &sender.origin.environment);
            tracing::warn!(%project, %environment, reason, "a batch of metrics cannot be read and is dropped");
        }
    }
}

#[cfg(test)]
#[path = "service_tests.rs"]
mod tests;
