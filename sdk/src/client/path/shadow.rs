//! Both paths on the same calls: the baseline answers, and the AI path runs beside it for its numbers alone.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use smol_str::SmolStr;
use tokio::time::Instant;

use super::super::Client;
use super::super::shadows::Place;
use super::super::windows::{Ran, Series};
use super::measuring::{Measuring, metered, metered_async};
use super::{Decision, Path, PathDetail, baseline, decide};
use crate::eval::Measures;
use crate::measure::{MATCH_METRIC, SHADOW_METRIC};
use crate::protocol::Cause;

/// [`Measures`] count shares out of this.
const SHARES: u32 = 100_000;

/// A [`Path`] whose AI path may also run in the shadow; see [`Path::shadow`].
#[must_use = "nothing is decided until the path is run"]
pub struct ShadowPath<'a, A, B, C> {
    path: Path<'a, A, B>,
    compare: C,
}

impl<'a, A, B> Path<'a, A, B> {
    /// Lets the AI path run *in the shadow* for [`ShadowPath::run`], with a comparison that is given the baseline's answer and the
    /// AI path's, and says whether they agree.
    ///
    /// While a release of the flag is in its shadow step, whoever is assigned the control gets the baseline's answer at once. On
    /// the share of those calls that the release asks for, the AI path then runs too, on a thread of its own (`guidon-shadow`),
    /// its answer is compared and thrown away, and both paths are measured: calls, errors, latencies, and how often they agree; a
    /// run that fails does not agree. It has no exposure, and does not count for the breaker. In any other case this is the path
    /// without a shadow. Runs have a budget ([`ClientBuilder::shadow_budget`](super::super::ClientBuilder::shadow_budget)); what
    /// is beyond it is skipped and counted in [`Client::shadows`]. A closure that never returns keeps its place for good.
    ///
    /// **Side effects are your promise**: the AI path runs *in addition to* the baseline, after it, and its answer reaches nobody.
    /// Give it a shadow only if running it once more changes nothing that anybody can see: no writes, no charges, no messages.
    /// What it reads it may read a moment later than the baseline did.
    ///
    /// The AI path owns what it uses (`'static`), and the baseline's answer is cloned on the calls that are compared.
    pub fn shadow<T, E, C>(self, compare: C) -> ShadowPath<'a, A, B, C>
    where
        A: FnOnce() -> Result<T, E>,
        C: Fn(&T, &T) -> bool,
    {
        ShadowPath { path: self, compare }
    }

    /// As [`Path::shadow`], for [`ShadowPath::run_async`]: the AI path's future runs on a task of the tokio runtime that the call
    /// is made in, which has time; without one it is skipped.
    pub fn shadow_async<T, E, FA, C>(self, compare: C) -> ShadowPath<'a, A, B, C>
    where
        A: FnOnce() -> FA,
        FA: Future<Output = Result<T, E>>,
        C: Fn(&T, &T) -> bool,
    {
        ShadowPath { path: self, compare }
    }
}

impl<A, B, C> ShadowPath<'_, A, B, C> {
    /// As [`Path::run`].
    pub fn run<T, E>(self) -> T
    where
        A: FnOnce() -> Result<T, E> + Send + 'static,
        B: FnOnce() -> T,
        C: Fn(&T, &T) -> bool + Send + 'static,
        T: Clone + Send + 'static,
    {
        self.run_detail().value
    }

    /// As [`Path::run_detail`].
    pub fn run_detail<T, E>(self) -> PathDetail<T, E>
    where
        A: FnOnce() -> Result<T, E> + Send + 'static,
        B: FnOnce() -> T,
        C: Fn(&T, &T) -> bool + Send + 'static,
        T: Clone + Send + 'static,
    {
        let Self { path, compare } = self;
        let (decision, mut measuring) = decide(path.client, path.flag, path.context);
        let Some(mut both) = Both::begin(path.client, &decision, measuring.as_ref(), true) else {
            return path.finish(decision, measuring);
        };
        let (assigned, ai) = (both.control().to_owned(), path.ai);
        let began = Instant::now();
        let value = metered(measuring.as_mut(), path.baseline);
        let beside = Beside { answer: value.clone(), took: began.elapsed() };
        drop(measuring);
        path.client.inner.shared.shadows.queue(move || {
            let began = Instant::now();
            let answer = both.place.busy(|| catch_unwind(AssertUnwindSafe(ai)));
            both.ended(began.elapsed(), answer.ok().and_then(Result::ok), &beside, compare);
        });
        baseline(Some(assigned), Cause::Normal, None, value)
    }

    /// As [`Path::run_async`].
    pub async fn run_async<T, E, FA, FB>(self) -> T
    where
        A: FnOnce() -> FA + Send + 'static,
        B: FnOnce() -> FB,
        C: Fn(&T, &T) -> bool + Send + 'static,
        FA: Future<Output = Result<T, E>> + Send + 'static,
        FB: Future<Output = T>,
        T: Clone + Send + 'static,
    {
        self.run_async_detail().await.value
    }

    /// As [`Path::run_async_detail`].
    pub async fn run_async_detail<T, E, FA, FB>(self) -> PathDetail<T, E>
    where
        A: FnOnce() -> FA + Send + 'static,
        B: FnOnce() -> FB,
        C: Fn(&T, &T) -> bool + Send + 'static,
        FA: Future<Output = Result<T, E>> + Send + 'static,
        FB: Future<Output = T>,
        T: Clone + Send + 'static,
    {
        let Self { path, compare } = self;
        let (decision, mut measuring) = decide(path.client, path.flag, path.context);
        let runtime = tokio::runtime::Handle::try_current().ok();
        let Some(mut both) = Both::begin(path.client, &decision, measuring.as_ref(), runtime.is_some()) else {
            return path.finish_async(decision, measuring).await;
        };
        let (assigned, ai, run_baseline) = (both.control().to_owned(), path.ai, path.baseline);
        let limit = path.client.inner.shared.shadows.timeout();
        let limit = path.timeout.map_or(limit, |own| own.min(limit));
        let began = Instant::now();
        let value = metered_async(measuring.as_mut(), async move { run_baseline().await }).await;
        let beside = Beside { answer: value.clone(), took: began.elapsed() };
        drop(measuring);
        let run = async move {
            let began = Instant::now();
            let answer = both.poll(limit, async move { ai().await }).await;
            both.ended(began.elapsed(), answer.and_then(Result::ok), &beside, compare);
        };
        if let Some(runtime) = runtime {
            runtime.spawn(run);
        }
        baseline(Some(assigned), Cause::Normal, None, value)
    }
}

impl<A, B, C> std::fmt::Debug for ShadowPath<'_, A, B, C> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("ShadowPath").field("path", &self.path).finish_non_exhaustive()
    }
}

/// What the baseline did on the same call.
struct Beside<T> {
    answer: T,
    took: Duration,
}

/// A call on which both paths run. Its rows are counted when the AI path has ended, so that both arms are of the same calls.
struct Both {
    place: Place,
    flag: SmolStr,
    revision: u64,
    release: Arc<Measures>,
    unit: Option<u64>,
}

impl Both {
    /// `None` for a call that runs one path alone. `able`: there is something to run the AI path on.
    fn begin(client: &Client, decision: &Decision<'_>, measuring: Option<&Measuring<'_>>, able: bool) -> Option<Self> {
        let measuring = measuring.filter(|_| matches!(decision, Decision::Baseline(_, Cause::Normal)))?;
        let release = measuring.release.as_ref().filter(|release| release.shadows(&measuring.variation))?;
        if rand::random_range(0..SHARES) >= release.asked().shadow {
            return None;
        }
        let place = Place::take(&client.inner.shared, able)?;
        let (flag, revision, unit) = (measuring.flag.into(), measuring.revision, measuring.unit);
        Some(Self { place, flag, revision, release: Arc::clone(release), unit })
    }

    fn control(&self) -> &str {
        &self.release.asked().control
    }

    /// What the future returns; `None` if it panics or is late.
    async fn poll<F: Future>(&mut self, limit: Duration, run: F) -> Option<F::Output> {
        let mut run = pin!(AssertUnwindSafe(run).catch_unwind());
        let polled = poll_fn(|context| self.place.busy(|| run.as_mut().poll(context)));
        tokio::time::timeout(limit, polled).await.ok()?.ok()
    }

    /// Compares and counts. `answer`: `None` if the AI path failed.
    fn ended<T>(mut self, took: Duration, answer: Option<T>, beside: &Beside<T>, compare: impl FnOnce(&T, &T) -> bool) {
        let failed = answer.is_none();
        let agree = answer.is_some_and(|answer| {
            let compared = self.place.busy(|| catch_unwind(AssertUnwindSafe(|| compare(&beside.answer, &answer))));
            compared.unwrap_or_default()
        });
        let asked = self.release.asked();
        self.count(&asked.treatment, took, failed, agree);
        self.count(&asked.control, beside.took, false, true);
    }

    fn count(&self, variation: &str, took: Duration, failed: bool, agree: bool) {
        let shared = self.place.shared();
        let Some(windows) = shared.windows.as_ref().filter(|_| !shared.directives.hold(&self.flag)) else { return };
        let now = Instant::now();
        let series = |metric| Series::new(&self.flag, variation, metric, self.revision);
        let ran = Ran { micros: took.as_nanos() as f64 / 1e3, failed, unit: self.unit };
        windows.ran(now, series(SHADOW_METRIC), Some(&self.release), ran);
        windows.value(now, series(MATCH_METRIC), f64::from(u8::from(agree)));
    }
}

#[cfg(test)]
mod tests;
