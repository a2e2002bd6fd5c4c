//! `/sdk/v1/exposures`: batches of exposures from SDKs that cannot keep a websocket.

use axum::Json;
use axum::body::to_bytes;
use axum::extract::{Request, State};
use guidon_sdk::protocol::ExposureBatch;
use serde_json::{Value, json};
use tokio::time::{Duration, timeout};

use super::SdkDoor;
use crate::assignments::{AppendError, Origin};
use crate::http::problem::{Code, Problem};

/// Stores a batch and answers, once it is durable, the number of the last batch that is.
#[utoipa::path(post, path = "/sdk/v1/exposures", tag = "sdk",
    responses((status = 200, description = "Stored: `{\"stored\": <number of the last durable batch>}`"),
              (status = 400, description = "Not a batch"),
              (status = 401, description = "The SDK key is not accepted"),
              (status = 413, description = "The body is over the limit"),
              (status = 422, description = "The batch will never be stored as it is"),
              (status = 503, description = "Not stored now: send it again"),
              (status = 507, description = "The volume is full: send it again")))]
pub(crate) async fn create_exposures(State(door): State<SdkDoor>, request: Request) -> Result<Json<Value>, Problem> {
    let identity = door.identify(request.headers(), request.extensions().get().copied()).await?;
    let limit = door.hub.limits().max_message_bytes;
    let patience = Duration::from_millis(door.hub.limits().hello_timeout_ms);
    let body = timeout(patience, to_bytes(request.into_body(), limit))
        .await
        .map_err(|_| Problem::new(Code::Timeout, "The body did not come in time.").retry_after_s(super::RETRY_AFTER_S))?
        .map_err(|_| Problem::new(Code::BodyTooLarge, format!("The body is over {limit} bytes, or broke off.")))?;
    let batch: ExposureBatch = serde_json::from_slice(&body).map_err(|error| {
        // The position only: the body holds raw unit ids.
        let code = if error.is_data() { Code::InvalidRequest } else { Code::MalformedJson };
        let (line, column) = (error.line(), error.column());
        Problem::new(code, format!("The body is not a batch of exposures: see line {line}, column {column}."))
    })?;
    let channel = identity.channel;
    let origin = Origin { project: channel.project, environment: channel.environment };
    let storing = door
        .log
        .append(&origin, batch)
        .map_err(|refused| Problem::new(Code::InvalidChange, format!("The batch is refused: {refused}.")))?;
    let stored = storing.await.map_err(|error| {
        let code = match error {
            AppendError::DiskFull => Code::DiskFull,
            AppendError::Busy => Code::Unavailable,
            AppendError::Unavailable(_) => Code::ReadOnly,
        };
        Problem::new(code, format!("The batch is not stored: {error}.")).retry_after_s(super::RETRY_AFTER_S)
    })?;
    Ok(Json(json!({"stored": stored})))
}
