//! What the assignment log counts.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// Counts of one assignment log. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct AssignmentMetrics {
    exposures: Family<ResultLabel, Counter>,
    batches: Family<ResultLabel, Counter>,
    dropped: Counter,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

/// What became of a batch that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is durable.
    Stored,
    /// It was stored before, or is on its way.
    Duplicate,
    /// It will never be stored as it is.
    Refused,
    /// It is not stored now, and may be sent again.
    Failed,
}

impl AssignmentMetrics {
    /// Puts the counts into a registry.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("exposures", "Exposures received, by what became of them", self.exposures.clone());
        registry.register("exposure_batches", "Batches received, by what became of them", self.batches.clone());
        let help = "Exposures that SDKs dropped for lack of room, as stored batches report them";
        registry.register("exposures_dropped_by_sdks", help, self.dropped.clone());
    }

    pub(super) fn count(&self, result: Outcome, items: u64) {
        let label = ResultLabel {
            result: match result {
                Outcome::Stored => "stored",
                Outcome::Duplicate => "duplicate",
                Outcome::Refused => "refused",
                Outcome::Failed => "failed",
            },
        };
        self.exposures.get_or_create(&label).inc_by(items);
        self.batches.get_or_create(&label).inc();
    }

    pub(super) fn dropped(&self, count: u64) {
        self.dropped.inc_by(count);
    }
}
