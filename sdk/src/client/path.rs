//! The AI-written code path against the human baseline.

mod measuring;
mod shadow;

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use futures_util::FutureExt;

use super::Client;
use super::breaker::{Ended, Permit};
use super::shared::{Flag, exposure};
use crate::eval::Evaluation;
use crate::model::Context;
use crate::protocol::{Cause, Exposure, Revision};
use measuring::{Measuring, metered, metered_async};
pub use shadow::ShadowPath;

/// Marks a code path that was not given yet.
#[derive(Clone, Copy, Debug)]
pub struct Unset;

/// A decision to be made between two code paths; see [`Client::path`].
#[must_use = "nothing is decided until the path is run"]
pub struct Path<'a, A = Unset, B = Unset> {
    client: &'a Client,
    flag: Flag<'a>,
    context: &'a Context<'a>,
    ai: A,
    baseline: B,
    timeout: Option<Duration>,
}

/// Which code answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ran {
    /// The AI-written path.
    Ai,
    /// The baseline.
    Baseline,
}

/// What a path answered, and how it came about.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct PathDetail<T, E> {
    /// The answer.
    pub value: T,
    /// Which code it is of.
    pub ran: Ran,
    /// Key of the variation that was assigned, if there was one.
    pub assigned: Option<String>,
    /// Why the code that answered is, or is not, the assigned one.
    pub cause: Cause,
    /// What the AI path returned, where `cause` is [`Cause::Error`].
    pub error: Option<E>,
}

impl<'a> Path<'a> {
    pub(super) fn new(client: &'a Client, flag: Flag<'a>, context: &'a Context<'a>) -> Self {
        Self { client, flag, context, ai: Unset, baseline: Unset, timeout: None }
    }
}

impl<'a, B> Path<'a, Unset, B> {
    /// The AI-written path: a closure that returns `Result<T, E>`, or, for [`Path::run_async`], a future of one.
    pub fn ai<A>(self, ai: A) -> Path<'a, A, B> {
        let Self { client, flag, context, baseline, timeout, .. } = self;
        Path { client, flag, context, ai, baseline, timeout }
    }
}

impl<'a, A> Path<'a, A, Unset> {
    /// The baseline: a closure that returns `T`, or, for [`Path::run_async`], a future of it.
    pub fn baseline<B>(self, baseline: B) -> Path<'a, A, B> {
        let Self { client, flag, context, ai, timeout, .. } = self;
        Path { client, flag, context, ai, baseline, timeout }
    }
}

impl<A, B> Path<'_, A, B> {
    /// Longest that [`Path::run_async`] waits for the AI path before the baseline answers. It takes effect where the AI path
    /// awaits, needs a tokio runtime with time, and has none on [`Path::run`]: a call cannot be interrupted. Default: none.
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = Some(limit);
        self
    }

    /// Runs the code path that the flag assigns, and returns its answer. The exposure that is recorded says what was assigned,
    /// what was delivered and why. A panic of the AI path is caught where panics unwind; one of the baseline is not.
    ///
    /// The call counts in the windows that are sent once a second, with its latency and whether the assigned path failed. While
    /// a release of the flag asks for it, so does the CPU time that it took of this thread, in microseconds, on Linux, Android,
    /// macOS and FreeBSD; for a future that is the time of its polls. What the closures have other threads or tasks do is not
    /// seen.
    pub fn run<T, E>(self) -> T
    where
        A: FnOnce() -> Result<T, E>,
        B: FnOnce() -> T,
    {
        self.run_detail().value
    }

    /// As [`Path::run`], with how the answer came about.
    pub fn run_detail<T, E>(self) -> PathDetail<T, E>
    where
        A: FnOnce() -> Result<T, E>,
        B: FnOnce() -> T,
    {
        let (decision, measuring) = decide(self.client, self.flag, self.context);
        self.finish(decision, measuring)
    }

    fn finish<T, E>(self, decision: Decision<'_>, mut measuring: Option<Measuring<'_>>) -> PathDetail<T, E>
    where
        A: FnOnce() -> Result<T, E>,
        B: FnOnce() -> T,
    {
        let attempt = match decision {
            Decision::Try(attempt) => attempt,
            Decision::Baseline(assigned, cause) => {
                let value = metered(measuring.as_mut(), self.baseline);
                return baseline(assigned, cause, None, value);
            }
        };
        // What the closure captured is not looked at again after a panic: it was moved in.
        let guarded = || catch_unwind(AssertUnwindSafe(self.ai));
        let failure = match metered(measuring.as_mut(), guarded) {
            Ok(Ok(value)) => return attempt.delivered(value),
            Ok(Err(error)) => (Cause::Error, Some(error)),
            Err(_) => (Cause::Panic, None),
        };
        let assigned = attempt.failed(failure.0, measuring.as_mut());
        let value = metered(measuring.as_mut(), self.baseline);
        baseline(assigned, failure.0, failure.1, value)
    }

    /// As [`Path::run`], for closures that return futures. Dropping the future while the AI path runs records that the call
    /// was cancelled, which is no failure.
    pub async fn run_async<T, E, FA, FB>(self) -> T
    where
        A: FnOnce() -> FA,
        B: FnOnce() -> FB,
        FA: Future<Output = Result<T, E>>,
        FB: Future<Output = T>,
    {
        self.run_async_detail().await.value
    }

    /// As [`Path::run_async`], with how the answer came about.
    pub async fn run_async_detail<T, E, FA, FB>(self) -> PathDetail<T, E>
    where
        A: FnOnce() -> FA,
        B: FnOnce() -> FB,
        FA: Future<Output = Result<T, E>>,
        FB: Future<Output = T>,
    {
        let (decision, measuring) = decide(self.client, self.flag, self.context);
        self.finish_async(decision, measuring).await
    }

    async fn finish_async<T, E, FA, FB>(
        self,
        decision: Decision<'_>,
        mut measuring: Option<Measuring<'_>>,
    ) -> PathDetail<T, E>
    where
        A: FnOnce() -> FA,
        B: FnOnce() -> FB,
        FA: Future<Output = Result<T, E>>,
        FB: Future<Output = T>,
    {
        let attempt = match decision {
            Decision::Try(attempt) => attempt,
            Decision::Baseline(assigned, cause) => {
                let value = metered_async(measuring.as_mut(), async move { (self.baseline)().await }).await;
                return baseline(assigned, cause, None, value);
            }
        };
        let ai = self.ai;
        // The closure runs within the future, so that a panic in it is caught too.
        let guarded = AssertUnwindSafe(async move { ai().await }).catch_unwind();
        let failure = match metered_async(measuring.as_mut(), limited(self.timeout, guarded)).await {
            Some(Ok(Ok(value))) => return attempt.delivered(value),
            Some(Ok(Err(error))) => (Cause::Error, Some(error)),
            Some(Err(_)) => (Cause::Panic, None),
            None => (Cause::Timeout, None),
        };
        let assigned = attempt.failed(failure.0, measuring.as_mut());
        let value = metered_async(measuring.as_mut(), async move { (self.baseline)().await }).await;
        baseline(assigned, failure.0, failure.1, value)
    }
}

impl<A, B> std::fmt::Debug for Path<'_, A, B> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut debug = formatter.debug_struct("Path");
        debug.field("flag", &self.flag.key()).field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

/// What a call does.
#[expect(clippy::large_enum_variant, reason = "it lives for one call; a box would allocate at each")]
enum Decision<'a> {
    /// The AI path is tried.
    Try(Attempt<'a>),
    /// The baseline answers: for the assigned variation, and why.
    Baseline(Option<String>, Cause),
}

/// Decides what a call does, and begins to measure it. What is not attempted is recorded here.
fn decide<'a>(client: &'a Client, flag: Flag<'a>, context: &Context<'_>) -> (Decision<'a>, Option<Measuring<'a>>) {
    let shared = &client.inner.shared;
    shared.evaluate(flag, context, |evaluation, revision| {
        let assigned = evaluation.variation_key();
        let routed_away = shared.directives.hold(flag.key());
        let begin = || Measuring::begin(shared, flag.key(), evaluation, revision);
        let mut measuring = if routed_away { None } else { begin() };
        if !evaluation.is_ai() {
            shared.record(flag.key(), evaluation, revision);
            return (Decision::Baseline(assigned.map(str::to_owned), Cause::Normal), measuring);
        }
        if routed_away {
            let attempt = Attempt::new(client, flag.key(), evaluation, revision, None);
            return (attempt.skipped(Cause::Instance), None);
        }
        let permit = shared.breakers.admit(flag.key(), assigned.unwrap_or_default());
        let skipped = permit.as_ref().is_some_and(Permit::is_refusal);
        let attempt = Attempt::new(client, flag.key(), evaluation, revision, permit);
        if !skipped {
            return (Decision::Try(attempt), measuring);
        }
        if let Some(measuring) = &mut measuring {
            measuring.failed();
        }
        (attempt.skipped(Cause::Breaker), measuring)
    })
}

fn baseline<T, E>(assigned: Option<String>, cause: Cause, error: Option<E>, value: T) -> PathDetail<T, E> {
    PathDetail { value, ran: Ran::Baseline, assigned, cause, error }
}

/// The future's result, or `None` if it is late.
async fn limited<F: Future>(limit: Option<Duration>, future: F) -> Option<F::Output> {
    match limit {
        None => Some(future.await),
        Some(_) if tokio::runtime::Handle::try_current().is_err() => {
            tracing::warn!("a path has a timeout but runs outside a tokio runtime: it is not limited");
            Some(future.await)
        }
        Some(limit) => tokio::time::timeout(limit, future).await.ok(),
    }
}

/// An AI path that is running. Whatever becomes of it is recorded once, and told to its breaker; if it is dropped, as cancelled.
struct Attempt<'a> {
    client: &'a Client,
    assigned: Option<String>,
    /// `None` once it is recorded, and for an evaluation without a unit, which is not recorded.
    record: Option<Exposure>,
    /// Key of the variation whose code answers in its place.
    baseline: String,
    /// `None` once the breaker knows, and where there is none.
    permit: Option<Permit>,
}

impl<'a> Attempt<'a> {
    fn new(
        client: &'a Client,
        flag: &str,
        evaluation: &Evaluation<'_>,
        revision: Option<&Revision>,
        permit: Option<Permit>,
    ) -> Self {
        let recorded = client.inner.shared.recording && evaluation.unit().is_some();
        let record = recorded.then(|| exposure(flag, evaluation, revision));
        let baseline = evaluation.baseline().map(|variation| variation.key().to_owned()).unwrap_or_default();
        let assigned = evaluation.variation_key().map(str::to_owned);
        Self { client, assigned, record, baseline, permit }
    }

    fn delivered<T, E>(mut self, value: T) -> PathDetail<T, E> {
        self.end(Ended::Well);
        if let Some(record) = self.record.take() {
            self.client.inner.shared.recorder.served_as(record);
        }
        PathDetail { value, ran: Ran::Ai, assigned: self.assigned.take(), cause: Cause::Normal, error: None }
    }

    /// The assigned variation, for whoever answers in its place.
    fn failed(mut self, cause: Cause, measuring: Option<&mut Measuring<'_>>) -> Option<String> {
        self.end(Ended::Badly);
        if let Some(measuring) = measuring {
            measuring.failed();
        }
        if let Some(record) = self.record.take() {
            tracing::warn!(
                flag = record.flag,
                assigned = record.assigned,
                ?cause,
                "the AI path failed; the baseline answers"
            );
            let delivered = std::mem::take(&mut self.baseline);
            self.client.inner.shared.recorder.outcome(Exposure { delivered, cause, ..record });
        }
        self.assigned.take()
    }

    /// The path is not tried: the breaker is open, or the instance routed away.
    fn skipped(mut self, cause: Cause) -> Decision<'a> {
        self.permit = None;
        if let Some(record) = self.record.take() {
            let delivered = std::mem::take(&mut self.baseline);
            self.client.inner.shared.recorder.skipped(Exposure { delivered, cause, ..record });
        }
        Decision::Baseline(self.assigned.take(), cause)
    }

    fn end(&mut self, ended: Ended) {
        if let Some(permit) = self.permit.take() {
            permit.ended(ended);
        }
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        self.end(Ended::Cancelled);
        if let Some(record) = self.record.take() {
            self.client.inner.shared.recorder.outcome(Exposure { cause: Cause::Cancelled, ..record });
        }
    }
}

#[cfg(test)]
mod tests;
