//! `/api/v1/sessions`: where a person is signed in, and signing out elsewhere.

use axum::extract::State;
use axum::routing::{delete, get};
use axum::{Extension, Json, Router};
use http::HeaderMap;
use serde_json::{Value, json};

use super::Api;
use super::auth::{Caller, come_from};
use super::middleware::ClientAddress;
use super::parameters::Path;
use super::problem::Problem;
use super::session::{caller_of, session_of, view};

/// The operations, for the API's description.
#[derive(utoipa::OpenApi)]
#[openapi(paths(list_sessions, end_one_session, end_other_sessions))]
pub struct Operations;

/// The routes, behind authentication and the policies.
pub fn routes() -> Router<Api> {
    Router::new()
        .route("/api/v1/sessions", get(list_sessions).delete(end_other_sessions))
        .route("/api/v1/sessions/{id}", delete(end_one_session))
}

/// Lists the caller's own sessions, the newest first.
#[utoipa::path(get, path = "/api/v1/sessions", tag = "session",
    responses((status = 200, description = "The sessions", body = ref("#/components/schemas/SessionList")),
              (status = 403, description = "The credential is no session of a person")))]
pub async fn list_sessions(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Value>, Problem> {
    let own = session_of(&caller)?;
    let listed = api.sign_in.sessions().list_of(&own.account, api.clock.now_ms());
    let sessions: Vec<Value> = listed
        .iter()
        .map(|session| {
            let mut shown = view(session);
            shown["current"] = (session.id == own.id).into();
            shown
        })
        .collect();
    Ok(Json(json!({ "sessions": sessions })))
}

/// Ends one of the caller's own sessions, wherever it is used.
#[utoipa::path(delete, path = "/api/v1/sessions/{id}", tag = "session",
    params(("id" = String, Path, description = "Id of the session, as the list shows it")),
    responses((status = 200, description = "The session is over", body = ref("#/components/schemas/SessionEnded")),
              (status = 404, description = "The caller has no session of that id")))]
pub async fn end_one_session(
    State(api): State<Api>,
    Extension(address): Extension<ClientAddress>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<Json<Value>, Problem> {
    let own = session_of(&caller)?;
    let visit = come_from(&api, &headers, Some(address)).await?;
    let from = caller_of(&api, &visit, own.door);
    if api.sign_in.end_session(&own.account, &id, from).await? {
        Ok(Json(json!({"ended": true})))
    } else {
        Err(Problem::not_found("session", &id))
    }
}

/// Ends all of the caller's sessions but the one that asks.
#[utoipa::path(delete, path = "/api/v1/sessions", tag = "session",
    responses((status = 200, description = "The others are over", body = ref("#/components/schemas/SessionsEnded"))))]
pub async fn end_other_sessions(
    State(api): State<Api>,
    Extension(address): Extension<ClientAddress>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
) -> Result<Json<Value>, Problem> {
    let own = session_of(&caller)?;
    let visit = come_from(&api, &headers, Some(address)).await?;
    let mut ended = 0_u32;
    for other in api.sign_in.sessions().list_of(&own.account, api.clock.now_ms()) {
        let from = caller_of(&api, &visit, own.door);
        if other.id != own.id && api.sign_in.end_session(&own.account, &other.id, from).await? {
            ended += 1;
        }
    }
    Ok(Json(json!({ "ended": ended })))
}
