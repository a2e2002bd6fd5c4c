//! What the intake counts of itself. Nothing here names a project, an environment or a flag.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::environment::Merged;

/// Counts of one hub. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct MetricsCounts {
    rows: Family<OutcomeLabel, Counter>,
    batches: Counter,
    repeated: Counter,
    /// Batches that could not be read.
    pub(super) unreadable: Counter,
    /// Rows that instances say they lost.
    pub(super) lost: Counter,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

impl MetricsCounts {
    /// Puts the counts into a registry.
    pub fn register(&self, registry: &mut Registry) {
        let help =
            "Rows of metrics from instances: merged, refused, or merged and too late for the release that watches";
        registry.register("metric_rows", help, self.rows.clone());
        registry.register("metric_batches", "Batches of metrics that were merged", self.batches.clone());
        registry.register("metric_batches_repeated", "Batches that had been merged before", self.repeated.clone());
        registry.register("metric_batches_unreadable", "Batches that could not be read", self.unreadable.clone());
        registry.register("metric_rows_lost", "Rows that instances say they had no room for", self.lost.clone());
    }

    pub(super) fn take(&self, merged: &Merged) {
        let batches = if merged.repeated { &self.repeated } else { &self.batches };
        batches.inc();
        for (outcome, rows) in [("merged", merged.rows), ("refused", merged.refused), ("late", merged.late)] {
            if rows > 0 {
                self.rows.get_or_create(&OutcomeLabel { outcome }).inc_by(rows);
            }
        }
    }
}
