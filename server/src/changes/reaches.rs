//! Measures how many people rules match, from the assignment log.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::{self, BoxFuture};

use super::reach::Reach;
use crate::assignments::{AssignmentLog, Line, Origin, lines_of_flag};
use crate::clock::Clock;

/// How far back is measured: an hour, in milliseconds.
const WINDOW_MS: u64 = 60 * 60 * 1_000;

/// Knows how many people rules match.
pub trait Reaches: Send + Sync + 'static {
    /// What is known of the flags in `since`, which maps each to the revision from which its rules are what they are.
    fn measure(&self, project: &str, environment: &str, since: BTreeMap<String, u64>) -> BoxFuture<'_, Reach>;
}

/// Knows nothing: every rule may match everybody.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoReaches;

impl Reaches for NoReaches {
    fn measure(&self, _: &str, _: &str, _: BTreeMap<String, u64>) -> BoxFuture<'_, Reach> {
        future::ready(Reach::unknown()).boxed()
    }
}

/// Measures in the assignment log.
pub struct LoggedReaches {
    log: Arc<dyn AssignmentLog>,
    clock: Arc<dyn Clock>,
}

impl LoggedReaches {
    /// Measures in `log`.
    #[must_use]
    pub fn new(log: Arc<dyn AssignmentLog>, clock: Arc<dyn Clock>) -> Self {
        Self { log, clock }
    }
}

impl Reaches for LoggedReaches {
    fn measure(&self, project: &str, environment: &str, since: BTreeMap<String, u64>) -> BoxFuture<'_, Reach> {
        if since.is_empty() {
            return future::ready(Reach::unknown()).boxed();
        }
        let log = Arc::clone(&self.log);
        let from = self.clock.now_ms().saturating_sub(WINDOW_MS);
        let origin = Origin { project: project.into(), environment: environment.into() };
        let reading = tokio::task::spawn_blocking(move || {
            let lines: Vec<Line> = since.keys().flat_map(|flag| read(&*log, &origin, flag, from)).collect();
            Reach::measured(&lines, lines.len(), &since)
        });
        // What cannot be measured is not known, which makes a change look larger and never smaller.
        async move { reading.await.unwrap_or_else(|_| Reach::unknown()) }.boxed()
    }
}

fn read(log: &dyn AssignmentLog, origin: &Origin, flag: &str, from: u64) -> Vec<Line> {
    lines_of_flag(log, origin.clone(), flag, from).unwrap_or_else(|error| {
        tracing::warn!(%error, "how many people rules match could not be measured");
        Vec::new()
    })
}
