//! Counting what becomes of a call, whichever code answers it.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use smol_str::SmolStr;
use tokio::time::Instant;

use super::super::cpu;
use super::super::shared::Shared;
use super::super::windows::{Ran, Series};
use crate::eval::{Evaluation, Measures};
use crate::measure::{CPU_METRIC, PATH_METRIC};
use crate::protocol::Revision;

/// A call that is under way. It counts once, under the assigned variation: with the time until the answer, that of the
/// baseline after a failed AI path included, as this is what the caller waits for; or, if it is dropped before, with the time
/// until then: as a failure if a panic drops it, and otherwise as a call that did not fail. A call that hangs until its caller
/// gives it up is thus seen as slow, and not left out.
///
/// While a release asks for it, the CPU time that the call's code takes is counted too, in whichever code it is spent. It is read
/// from the thread's own clock, which costs two calls of the system for each closure and each poll of a future.
pub(super) struct Measuring<'a> {
    shared: &'a Shared,
    pub(super) flag: &'a str,
    pub(super) variation: SmolStr,
    pub(super) revision: u64,
    pub(super) release: Option<Arc<Measures>>,
    pub(super) unit: Option<u64>,
    began: Instant,
    failed: bool,
    /// CPU time so far; `None` where it is not asked for, or cannot be told.
    cpu: Option<Duration>,
}

impl<'a> Measuring<'a> {
    /// `None` where nothing is counted, or no variation was assigned.
    pub(super) fn begin(
        shared: &'a Shared,
        flag: &'a str,
        evaluation: &Evaluation<'_>,
        revision: Option<&Revision>,
    ) -> Option<Self> {
        shared.windows.as_ref()?;
        let variation = evaluation.variation_key()?.into();
        let release = evaluation.measures().cloned();
        let unit = release.as_ref().and_then(|release| Some(release.unit_hash(evaluation.unit()?)));
        let revision = revision.map_or(0, |revision| revision.number);
        let cpu = release.as_ref().filter(|release| release.asked().cpu && cpu::is_known()).map(|_| Duration::ZERO);
        Some(Self { shared, flag, variation, revision, release, unit, began: Instant::now(), failed: false, cpu })
    }

    /// The assigned path failed; the call goes on.
    pub(super) fn failed(&mut self) {
        self.failed = true;
    }

    fn count(&self) {
        let Some(windows) = &self.shared.windows else { return };
        let now = Instant::now();
        let micros = now.saturating_duration_since(self.began).as_nanos() as f64 / 1e3;
        let series = Series::new(self.flag, &self.variation, PATH_METRIC, self.revision);
        let failed = self.failed || std::thread::panicking();
        windows.ran(now, series, self.release.as_ref(), Ran { micros, failed, unit: self.unit });
        if let Some(cpu) = self.cpu {
            let series = Series::new(self.flag, &self.variation, CPU_METRIC, self.revision);
            windows.value(now, series, cpu.as_nanos() as f64 / 1e3);
        }
    }
}

/// Runs `work`, and adds the CPU time of this thread that it takes to the call.
pub(super) fn metered<T>(measuring: Option<&mut Measuring<'_>>, work: impl FnOnce() -> T) -> T {
    let _lap = Lap::begin(measuring);
    work()
}

/// As [`metered`], over the polls of `work`. What it has others do, in tasks and threads of their own, is not seen.
pub(super) async fn metered_async<F: Future>(mut measuring: Option<&mut Measuring<'_>>, work: F) -> F::Output {
    let mut work = pin!(work);
    poll_fn(|context| {
        let _lap = Lap::begin(measuring.as_deref_mut());
        work.as_mut().poll(context)
    })
    .await
}

/// A stretch of work on one thread. It ends when it is dropped, so that one that panics counts.
struct Lap<'m> {
    /// Where its time is added; `None`: nobody asks.
    sum: Option<(&'m mut Duration, Duration)>,
}

impl<'m> Lap<'m> {
    fn begin(measuring: Option<&'m mut Measuring<'_>>) -> Self {
        Self { sum: measuring.and_then(|measuring| Some((measuring.cpu.as_mut()?, cpu::thread_time()?))) }
    }
}

impl Drop for Lap<'_> {
    fn drop(&mut self) {
        if let Some((sum, began)) = &mut self.sum {
            **sum += cpu::thread_time().unwrap_or_default().saturating_sub(*began);
        }
    }
}

impl Drop for Measuring<'_> {
    fn drop(&mut self) {
        self.count();
    }
}
