//! What the server does by itself, once a second: each job looks at the state and submits what is due, through the one write
//! path as everybody else.

pub mod deadlines;
pub mod drift;
pub mod releases;
pub mod requests;
pub mod sweep;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::clock::Clock;
use crate::shutdown::Shutdown;

/// How often a job looks.
const PERIOD: Duration = Duration::from_secs(1);

/// Something the server does by itself.
pub trait Job: Send + Sync + 'static {
    /// What the log calls it.
    fn name(&self) -> &'static str;

    /// Does what is due at `now` (milliseconds since 1970). A job that fails says so in the log, and tries again at a later
    /// call, not in a loop of its own.
    fn tick(&self, now: u64) -> BoxFuture<'_, ()>;
}

/// Jobs that run until the server stops.
#[derive(Default)]
pub struct Jobs {
    tasks: JoinSet<()>,
}

impl Jobs {
    /// Starts every job in a task of its own: one that takes long keeps no other waiting.
    #[must_use]
    pub fn start(jobs: &[Arc<dyn Job>], clock: &Arc<dyn Clock>, shutdown: &Shutdown) -> Self {
        let mut tasks = JoinSet::new();
        for job in jobs {
            tasks.spawn(keep_running(Arc::clone(job), Arc::clone(clock), shutdown.clone()));
        }
        Self { tasks }
    }

    /// Waits until every job has ended what it was at. They end once the shutdown has begun.
    pub async fn ended(mut self) {
        while self.tasks.join_next().await.is_some() {}
    }
}

/// Runs one job until the shutdown begins. A tick that panics is logged, and is not the last one.
async fn keep_running(job: Arc<dyn Job>, clock: Arc<dyn Clock>, shutdown: Shutdown) {
    let mut timer = tokio::time::interval(PERIOD);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = shutdown.begun() => return,
            _ = timer.tick() => {}
        }
        let (at_work, now) = (Arc::clone(&job), clock.now_ms());
        let tick = tokio::spawn(async move { at_work.tick(now).await });
        if let Err(error) = tick.await {
            tracing::error!(job = job.name(), %error, "a job was cut short; it goes on with the next second");
        }
    }
}

#[cfg(test)]
mod tests;
