//! Has the release engine look once a second, a little after the second has begun.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::Job;
use crate::clock::Clock;
use crate::releases::runner::{LOOK_AT_MS, ReleaseEngine};

/// The job.
pub struct Releases {
    engine: Arc<ReleaseEngine>,
    clock: Arc<dyn Clock>,
}

impl Releases {
    /// The job that has `engine` look.
    #[must_use]
    pub fn new(engine: Arc<ReleaseEngine>, clock: Arc<dyn Clock>) -> Self {
        Self { engine, clock }
    }
}

impl Job for Releases {
    fn name(&self) -> &'static str {
        "releases"
    }

    fn tick(&self, now: u64) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let wait = (1_000 + LOOK_AT_MS - now % 1_000) % 1_000;
            tokio::time::sleep(Duration::from_millis(wait)).await;
            self.engine.look(self.clock.now_ms()).await;
        })
    }
}
