//! The SDK's routes.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Query, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use guidon_sdk::protocol::{EXPOSURES_PATH, ExposureBatch, Revision, SNAPSHOT_PATH, STREAM_PATH};
use guidon_server::assignments::{AssignmentLog, Origin};
use guidon_server::push::{self, Hub, SdkIdentity};
use http::{HeaderMap, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::json;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

type Served = (Arc<Hub>, Arc<dyn AssignmentLog>);

pub fn router(hub: Arc<Hub>, log: Arc<dyn AssignmentLog>) -> Router {
    Router::new()
        .route(STREAM_PATH, get(stream))
        .route(SNAPSHOT_PATH, get(snapshot))
        .route(EXPOSURES_PATH, post(exposures))
        .with_state((hub, log))
}

fn identify(hub: &Hub, headers: &HeaderMap) -> Result<SdkIdentity, StatusCode> {
    let credential = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let credential = credential.and_then(|value| value.strip_prefix("Bearer ")).ok_or(StatusCode::UNAUTHORIZED)?;
    hub.identify(credential).map_err(|_| StatusCode::UNAUTHORIZED)
}

async fn stream(State((hub, log)): State<Served>, mut request: Request) -> Result<Response, StatusCode> {
    let identity = identify(&hub, request.headers())?;
    let admission = hub.admit().map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    let key = request.headers().get(header::SEC_WEBSOCKET_KEY).ok_or(StatusCode::BAD_REQUEST)?;
    let accept = derive_accept_key(key.as_bytes());
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        if let Ok(upgraded) = upgrade.await {
            push::serve(TokioIo::new(upgraded), hub, log, identity, admission).await;
        }
    });
    let head =
        [(header::CONNECTION, "upgrade"), (header::UPGRADE, "websocket"), (header::SEC_WEBSOCKET_ACCEPT, &accept)];
    Ok((StatusCode::SWITCHING_PROTOCOLS, head, Body::empty()).into_response())
}

#[derive(Deserialize)]
struct Basis {
    basis: Option<String>,
}

async fn snapshot(
    State((hub, _)): State<Served>,
    Query(Basis { basis }): Query<Basis>,
    headers: HeaderMap,
) -> Result<Response, StatusCode> {
    let identity = identify(&hub, &headers)?;
    let (number, body) = hub.snapshot(&identity.channel).ok_or(StatusCode::UNAUTHORIZED)?;
    let current = Revision { history: hub.history().to_owned(), number };
    if basis.is_some_and(|basis| basis == current.to_string()) {
        return Ok(StatusCode::NOT_MODIFIED.into_response());
    }
    Ok(body.into_response())
}

async fn exposures(State((hub, log)): State<Served>, headers: HeaderMap, body: Bytes) -> Result<Response, StatusCode> {
    let channel = identify(&hub, &headers)?.channel;
    let batch: ExposureBatch = serde_json::from_slice(&body).map_err(|_| StatusCode::BAD_REQUEST)?;
    let origin = Origin { project: channel.project, environment: channel.environment };
    let storing = log.append(&origin, batch).map_err(|_| StatusCode::UNPROCESSABLE_ENTITY)?;
    let stored = storing.await.map_err(|_| StatusCode::INSUFFICIENT_STORAGE)?;
    Ok(axum::Json(json!({"stored": stored})).into_response())
}
