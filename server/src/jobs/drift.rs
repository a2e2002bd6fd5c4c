//! Compares the environments of every project with one another, and says on `/metrics` how far they have drifted apart.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use super::Job;
use crate::changes::ChangeService;
use crate::environments::drift::{DriftKind, compare, pairs};
use crate::state::{Project, World};
use crate::telemetry::Metrics;

/// How often, in milliseconds.
const EVERY_MS: u64 = 60 * 1_000;
/// Most pairs of environments, of all projects, that are told of: each has a series for every kind.
const MAX_PAIRS: usize = 500;

/// The job.
pub struct Drift {
    changes: Arc<ChangeService>,
    differences: Family<DriftLabels, Gauge>,
    began: Family<DriftLabels, Gauge>,
    next: AtomicU64,
    seen: Mutex<Seen>,
}

/// What was found when the state was last looked at.
#[derive(Default)]
struct Seen {
    revision: Option<u64>,
    /// Since when there have been differences.
    began: BTreeMap<DriftLabels, u64>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, PartialOrd, Ord, EncodeLabelSet)]
struct DriftLabels {
    project: String,
    from: String,
    to: String,
    kind: &'static str,
}

impl Drift {
    /// The job over the state of `changes`, which tells what it finds through `metrics`.
    #[must_use]
    pub fn new(changes: Arc<ChangeService>, metrics: &Metrics) -> Self {
        let (differences, began) = (Family::<DriftLabels, Gauge>::default(), Family::<DriftLabels, Gauge>::default());
        metrics.register(|registry| {
            let help = "Differences between an environment and one of the next tier";
            registry.register("drift_differences", help, differences.clone());
            let help =
                "Since when this server has seen those differences, in seconds since 1970; 0 where there are none";
            registry.register("drift_began_seconds", help, began.clone());
        });
        Self { changes, differences, began, next: AtomicU64::new(0), seen: Mutex::default() }
    }

    /// Takes note of what was found at `now`.
    fn note(&self, world: &World, found: BTreeMap<DriftLabels, usize>, now: u64) {
        let mut seen = self.seen.lock();
        seen.revision = Some(world.revision);
        // Projects and environments that are gone leave no series behind.
        self.differences.clear();
        self.began.clear();
        let mut began = BTreeMap::new();
        for (labels, count) in found {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            let since = (count > 0).then(|| seen.began.get(&labels).copied().unwrap_or(now));
            if since == Some(now) {
                let DriftLabels { project, from, to, kind } = &labels;
                tracing::info!(project, from, to, kind, count, "environments have drifted apart");
            }
            self.differences.get_or_create(&labels).set(count);
            self.began.get_or_create(&labels).set(since.map_or(0, |since| i64::try_from(since / 1_000).unwrap_or(0)));
            if let Some(since) = since {
                began.insert(labels, since);
            }
        }
        seen.began = began;
    }
}

/// How many differences there are of each kind.
fn count(world: &World) -> BTreeMap<DriftLabels, usize> {
    let all = |project: &Arc<Project>| project.environments.keys().cloned().collect::<BTreeSet<_>>();
    let mut found = BTreeMap::new();
    let mut room = MAX_PAIRS;
    for project in world.projects.values() {
        let environments = all(project);
        for (from, to) in pairs(project, &|key| environments.contains(key)).into_iter().take(room) {
            room -= 1;
            let pair = compare(project, from, to);
            let counts = pair.counts();
            for kind in DriftKind::ALL {
                let labels = DriftLabels {
                    project: project.key.clone(),
                    from: from.key.clone(),
                    to: to.key.clone(),
                    kind: kind.as_str(),
                };
                found.insert(labels, counts.get(kind.as_str()).copied().unwrap_or_default());
            }
        }
    }
    found
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
            format!(
                "guidon_{name}{{project=\"default\",from=\"development\",to=\"testing\",kind=\"serving\"}} {value}\n"
            )
        };
        assert!(metrics.encode().contains(&line("drift_differences", 0)), "{}", metrics.encode());
        server.submit(json!([{"kind": "turnFlagOn", "flag": "engine"}])).await.unwrap();
        job.tick(START_MS + 30_000).await;
        assert!(metrics.encode().contains(&line("drift_differences", 0)), "once a minute");
        job.tick(START_MS + 60_000).await;
        let text = metrics.encode();
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
