//! Health, readiness, metrics and status.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde_json::{Value, json};

use super::Api;
use super::problem::Problem;
use super::shown::Reader;
use crate::journal::Health;
use crate::state::FollowerHealth;

/// Media type of the OpenMetrics text format.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Says that the process is alive.
#[utoipa::path(get, path = "/healthz", tag = "operations", security(()),
    responses((status = 200, description = "Alive", body = ref("#/components/schemas/Alive"))))]
pub async fn show_health() -> Json<Value> {
    Json(json!({"status": "alive"}))
}

/// Says whether the server can do all of its work, and why not.
#[utoipa::path(get, path = "/readyz", tag = "operations", security(()),
    responses((status = 200, description = "Ready", body = ref("#/components/schemas/Readiness")),
              (status = 503, description = "Not ready", body = ref("#/components/schemas/Readiness"))))]
pub async fn show_readiness(State(api): State<Api>) -> Response {
    let reasons = api.reasons_against_readiness();
    let (status, word) =
        if reasons.is_empty() { (StatusCode::OK, "ready") } else { (StatusCode::SERVICE_UNAVAILABLE, "notReady") };
    (status, Json(json!({"status": word, "reasons": reasons}))).into_response()
}

/// Answers the metrics in the OpenMetrics text format.
#[utoipa::path(get, path = "/metrics", tag = "operations", security(()),
    responses((status = 200, description = "Metrics", content_type = "application/openmetrics-text", body = String)))]
pub async fn show_metrics(State(api): State<Api>) -> Response {
    // Thousands of series take a while to write down.
    match tokio::task::spawn_blocking(move || api.metrics.encode()).await {
        Ok(text) => ([(CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(error) => Problem::internal(error).into_response(),
    }
}

/// Shows version, history, revision and health, and how many projects the caller may see something of.
#[utoipa::path(get, path = "/api/v1/status", tag = "operations",
    responses((status = 200, description = "The status", body = ref("#/components/schemas/Status"))))]
pub async fn show_status(State(api): State<Api>, reader: Reader) -> Json<Value> {
    let (world, journal) = (api.world(), api.changes.journal());
    let health = match api.changes.health() {
        Health::Writable => json!({"writable": true}),
        Health::ReadOnly(reason) => json!({"writable": false, "reason": reason}),
    };
    Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "history": journal.history(),
        "revision": world.revision,
        "chainHash": world.hash.to_string(),
        "projects": world.projects.values().filter(|project| reader.sees_something_in(project)).count(),
        "startedAt": api.started_at,
        "connections": api.metrics.connections.open.get(),
        "health": health,
    }))
}

impl Api {
    /// What keeps the server from doing all of its work.
    fn reasons_against_readiness(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        if self.shutdown.has_begun() {
            reasons.push("the server is stopping".to_owned());
        }
        if let Health::ReadOnly(reason) = self.changes.journal().health() {
            reasons.push(format!("the journal takes no entries: {reason}"));
        }
        if let FollowerHealth::Stopped { revision, reason } = self.changes.follower().health() {
            reasons.push(format!("the state stopped at revision {revision}: {reason}"));
        }
        reasons
    }
}
