//! Counting what becomes of a call, whichever code answers it.

use std::sync::Arc;

use smol_str::SmolStr;
use tokio::time::Instant;

use super::super::shared::Shared;
use super::super::windows::{Ran, Series};
use crate::eval::{Evaluation, Measures};
use crate::measure::PATH_METRIC;
use crate::protocol::Revision;

/// A call that is under way. It counts once, under the assigned variation: with the time until the answer, that of the
/// baseline after a failed AI path included, as this is what the caller waits for; or, if it is dropped before, with the time
/// until then: as a failure if a panic drops it, and otherwise as a call that did not fail. A call that hangs until its caller
/// gives it up is thus seen as slow, and not left out.
pub(super) struct Measuring<'a> {
    shared: &'a Shared,
    flag: &'a str,
    variation: SmolStr,
    revision: u64,
    release: Option<Arc<Measures>>,
    unit: Option<u64>,
    began: Instant,
    failed: bool,
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
        Some(Self { shared, flag, variation, revision, release, unit, began: Instant::now(), failed: false })
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
    }
}

impl Drop for Measuring<'_> {
    fn drop(&mut self) {
        self.count();
    }
}
