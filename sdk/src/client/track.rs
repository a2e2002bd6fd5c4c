//! Values that the application tracks.

use std::sync::atomic::Ordering;

use tokio::time::Instant;

use super::Client;
use super::windows::Series;
use crate::eval::evaluate_at;
use crate::measure::{CPU_METRIC, MATCH_METRIC, PATH_METRIC, SHADOW_METRIC};
use crate::model::Context;

/// Longest name of a tracked metric.
pub const MAX_METRIC_NAME: usize = 64;

fn is_name(metric: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=MAX_METRIC_NAME).contains(&metric.len())
        && metric.bytes().all(known)
        && ![PATH_METRIC, SHADOW_METRIC, MATCH_METRIC, CPU_METRIC].contains(&metric)
}

impl Client {
    /// Counts a value of a metric: once by itself, and once for each flag whose release reads the metric, under the variation
    /// that `context` is assigned. It is sent with the second it falls into, over the websocket alone: where the client polls,
    /// it is not sent.
    ///
    /// A name has 1 to [`MAX_METRIC_NAME`] letters, digits, dots, underscores and hyphens of ASCII, and is none of the names in
    /// [`crate::measure`]. A wrong name, or a value that is not a number, is not counted; the log says so once, and the server is
    /// told how many. A value beyond [`crate::measure::MAX_VALUE`] counts as that.
    pub fn track(&self, metric: &str, context: &Context<'_>, value: f64) {
        let shared = &self.inner.shared;
        let Some(windows) = &shared.windows else { return };
        if value.is_nan() || !is_name(metric) {
            windows.drop_one();
            if !shared.complained.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    metric,
                    value,
                    "not counted: the metric's name is not usable, or the value is no number"
                );
            }
            return;
        }
        let now = Instant::now();
        let snapshot = shared.snapshot.load();
        let Some(snapshot) = snapshot.as_deref() else {
            return windows.value(now, Series::new("", "", metric, 0), value);
        };
        let revision = snapshot.revision().number;
        windows.value(now, Series::new("", "", metric, revision), value);
        for flag in snapshot.ruleset().tracked(metric) {
            if shared.directives.hold(flag.key()) {
                continue;
            }
            if let Some(variation) = evaluate_at(snapshot.ruleset(), flag, context).variation_key() {
                windows.value(now, Series::new(flag.key(), variation, metric, revision), value);
            }
        }
    }
}
