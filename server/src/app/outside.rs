//! What stands beside the server: receivers of calls, and other monitoring.

use std::sync::Arc;

use super::StartError;
use crate::config::{Config, HEALING_SECRET, PROMETHEUS_TOKEN};
use crate::metrics::MetricsHub;
use crate::monitoring::{NamedSeries, Prometheus};
use crate::notifications::signature::Secret;
use crate::notifications::{HttpCaller, SystemResolver};
use crate::releases::runner::Monitor;
use crate::telemetry::Metrics;

/// Calls webhooks, and healing actions that are calls.
pub(super) fn caller(config: &Config) -> Result<Arc<HttpCaller>, StartError> {
    let allowed = config.webhooks.webhook_allow.clone();
    let caller = HttpCaller::new(Arc::new(SystemResolver::default()), allowed);
    caller.map(Arc::new).map_err(|error| StartError::Webhooks(error.to_string()))
}

/// Other monitoring, if the operator names one. It is not asked yet.
pub(super) fn monitor(config: &Config) -> Result<Option<Arc<dyn Monitor>>, StartError> {
    let token = PROMETHEUS_TOKEN.read(config)?;
    let Some(url) = &config.monitoring.prometheus_url else { return Ok(None) };
    Ok(Some(Arc::new(Prometheus::new(url, token)?)))
}

/// What calls of healing actions are signed with.
pub(super) fn healing_secret(config: &Config) -> Result<Option<Secret>, StartError> {
    let Some(text) = HEALING_SECRET.read(config)? else {
        let message =
            "an action that is a URL is signed: give the secret by GUIDON_HEALING_SECRET or --healing-secret-file";
        return if config.healing.calls() { Err(StartError::Healing(message)) } else { Ok(None) };
    };
    let message = "the secret is written whsec_ and Base64, as `echo whsec_$(openssl rand -base64 32)` makes one";
    Secret::parse(&text).map(Some).ok_or(StartError::Healing(message))
}

/// Shows what instances count by name, if the operator wants that.
pub(super) fn show_names(config: &Config, metrics: &Metrics, measured: &Arc<MetricsHub>) {
    if config.monitoring.metrics_names {
        let named = NamedSeries::new(Arc::clone(measured));
        metrics.register(|registry| registry.register_collector(Box::new(named)));
    }
}
