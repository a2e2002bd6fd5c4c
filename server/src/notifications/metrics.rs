//! Metrics of deliveries.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::Outcome;

/// Metrics of deliveries. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct WebhookMetrics {
    deliveries: Family<OutcomeLabels, Counter>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

impl WebhookMetrics {
    /// Counts an attempt.
    pub(super) fn count(&self, outcome: Outcome) {
        self.deliveries.get_or_create(&OutcomeLabels { outcome: outcome.as_str() }).inc();
    }

    /// Registers them.
    pub fn register(&self, registry: &mut Registry) {
        let help = "Attempts to call webhooks, by what became of them";
        registry.register("webhook_deliveries", help, self.deliveries.clone());
    }
}
