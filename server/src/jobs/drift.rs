//! Compares the environments of every project with one another, and says on `/metrics` how far the tiers have drifted apart.
//!
//! `/metrics` is open to everybody who reaches the server: it names tiers, never projects or environments. Those are in the log.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use super::Job;
use crate::changes::ChangeService;
use crate::environments::drift::{compare, pairs};
use crate::state::World;
use crate::telemetry::Metrics;

/// How often, in milliseconds.
const EVERY_MS: u64 = 60 * 1_000;
/// Most pairs of environments, of all projects, that are compared: since when each differs is kept.
const MAX_PAIRS: usize = 500;

/// The job.
pub struct Drift {
    changes: Arc<ChangeService>,
    differences: Family<TierLabels, Gauge>,
    began: Family<TierLabels, Gauge>,
    left_out: Gauge,
    next: AtomicU64,
    seen: Mutex<Seen>,
}

/// What was found when the state was last looked at.
#[derive(Default)]
struct Seen {
    revision: Option<u64>,
    /// Since when there have been differences.
    began: BTreeMap<Place, u64>,
}

/// What may differ: something of a kind, between two environments.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    project: String,
    from: String,
    to: String,
    tiers: TierLabels,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, PartialOrd, Ord, EncodeLabelSet)]
struct TierLabels {
    from_tier: &'static str,
    to_tier: &'static str,
    kind: &'static str,
}

#[derive(Default)]
struct Counts {
    /// How many differences there are in each place.
    found: BTreeMap<Place, usize>,
    /// Pairs of environments that were not compared.
    left_out: usize,
}

impl Drift {
    /// The job over the state of `changes`, which tells what it finds through `metrics`.
    #[must_use]
    pub fn new(changes: Arc<ChangeService>, metrics: &Metrics) -> Self {
        let (differences, began) = (Family::<TierLabels, Gauge>::default(), Family::<TierLabels, Gauge>::default());
        let left_out = Gauge::default();
        metrics.register(|registry| {
            let help = "Differences between environments of a tier and of the next, over all projects";
            registry.register("drift_differences", help, differences.clone());
            let help =
                "Since when this server has seen the oldest of them, in seconds since 1970; 0 where there are none";
            registry.register("drift_began_seconds", help, began.clone());
            let help = "Pairs of environments that were not compared, since there are too many";
            registry.register("drift_pairs_left_out", help, left_out.clone());
        });
        Self { changes, differences, began, left_out, next: AtomicU64::new(0), seen: Mutex::default() }
    }

    /// Takes note of what was found at `now`.
    fn note(&self, world: &World, counts: Counts, now: u64) {
        let mut seen = self.seen.lock();
        seen.revision = Some(world.revision);
        let mut began = BTreeMap::new();
        let mut totals: BTreeMap<TierLabels, (usize, Option<u64>)> = BTreeMap::new();
        for (place, count) in counts.found {
            let (total, oldest) = totals.entry(place.tiers.clone()).or_default();
            *total += count;
            if count == 0 {
                continue;
            }
            let since = seen.began.get(&place).copied().unwrap_or(now);
            if since == now {
                let Place { project, from, to, tiers } = &place;
                tracing::info!(project, from, to, kind = tiers.kind, count, "environments have drifted apart");
            }
            *oldest = Some(oldest.map_or(since, |oldest| oldest.min(since)));
            began.insert(place, since);
        }
        seen.began = began;
        // Tiers that have no environments any more leave no series behind.
        self.differences.clear();
        self.began.clear();
        for (labels, (total, oldest)) in totals {
            self.differences.get_or_create(&labels).set(i64::try_from(total).unwrap_or(i64::MAX));
            let since = i64::try_from(oldest.unwrap_or(0) / 1_000).unwrap_or(0);
            self.began.get_or_create(&labels).set(since);
        }
        self.left_out.set(i64::try_from(counts.left_out).unwrap_or(i64::MAX));
    }
}

/// How many differences there are of each kind.
fn count(world: &World) -> Counts {
    let mut counts = Counts::default();
    let mut room = MAX_PAIRS;
    for project in world.projects.values() {
        let pairs = pairs(project, &|_| true);
        counts.left_out += pairs.left_out + pairs.compared.len().saturating_sub(room);
        for (from, to) in pairs.compared.into_iter().take(room) {
            room -= 1;
            for (kind, count) in compare(project, from, to).counts {
                let (from_tier, to_tier) = (from.tier.as_str(), to.tier.as_str());
                let place = Place {
                    project: project.key.clone(),
                    from: from.key.clone(),
                    to: to.key.clone(),
                    tiers: TierLabels { from_tier, to_tier, kind: kind.as_str() },
                };
                counts.found.insert(place, count);
            }
        }
    }
    counts
}

impl Job for Drift {
    fn name(&self) -> &'static str {
        "drift"
    }

    fn tick(&self, now: u64) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            if now < self.next.load(Ordering::Relaxed) {
                return;
            }
            self.next.store(now + EVERY_MS, Ordering::Relaxed);
            let world = self.changes.world();
            if self.seen.lock().revision == Some(world.revision) {
                return;
            }
            let of = Arc::clone(&world);
            match tokio::task::spawn_blocking(move || count(&of)).await {
                Ok(found) => self.note(&world, found, now),
                Err(error) => tracing::error!(%error, "environments could not be compared; tried again in a minute"),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::changes::tests::{START_MS, Server, engine_flag};

    #[tokio::test]
    async fn what_drifts_apart_is_counted_and_dated() {
        let server = Server::start().await;
        let metrics = Metrics::new();
        let job = Drift::new(Arc::clone(&server.service), &metrics);
        server.submit(json!([engine_flag("engine")])).await.unwrap();
        job.tick(START_MS).await;
        let line = |name: &str, value: u64| {
            format!("guidon_{name}{{from_tier=\"development\",to_tier=\"testing\",kind=\"serving\"}} {value}\n")
        };
        assert!(metrics.encode().contains(&line("drift_differences", 0)), "{}", metrics.encode());
        server.submit(json!([{"kind": "turnFlagOn", "flag": "engine"}])).await.unwrap();
        job.tick(START_MS + 30_000).await;
        assert!(metrics.encode().contains(&line("drift_differences", 0)), "once a minute");
        job.tick(START_MS + 60_000).await;
        let text = metrics.encode();
        assert!(!text.contains("default"), "no project is named where no credential is asked for: {text}");
        assert!(text.contains("guidon_drift_pairs_left_out 0\n"), "{text}");
        assert!(text.contains(&line("drift_differences", 1)), "{text}");
        assert!(text.contains(&line("drift_began_seconds", START_MS / 1_000 + 60)), "{text}");
        server.submit(json!([{"kind": "updateFlag", "flag": "engine", "name": "E"}])).await.unwrap();
        job.tick(START_MS + 120_000).await;
        assert!(metrics.encode().contains(&line("drift_began_seconds", START_MS / 1_000 + 60)));
        server.submit(json!([{"kind": "turnFlagOff", "flag": "engine"}])).await.unwrap();
        job.tick(START_MS + 180_000).await;
        assert!(metrics.encode().contains(&line("drift_began_seconds", 0)));
    }
}
