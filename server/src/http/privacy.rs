//! `/api/v1/privacy`: forgetting.

use std::sync::Arc;

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Api;
use super::problem::{Code, Fault, Problem};
use super::write::{Write, invalid};
use crate::audit::{Event, EventKind};
use crate::changes::EraseError;
use crate::changes::limits::MAX_TARGETING_KEY_BYTES;

/// The operations, for the API's description.
#[derive(utoipa::OpenApi)]
#[openapi(paths(erase_key))]
pub struct Operations;

/// The routes, behind authentication and the policies.
pub fn routes() -> Router<Api> {
    Router::new().route("/api/v1/privacy/erase-key", post(erase_key))
}

#[derive(Deserialize)]
struct KeyErasure {
    project: String,
    key: String,
}

/// Erases a person's targeting key from a project's key lists of all times and from what its change requests ask for. The
/// present state has to be without it: where it still stands is answered as a conflict, with what takes it out. May be sent
/// again.
#[utoipa::path(post, path = "/api/v1/privacy/erase-key", tag = "privacy",
    request_body(content = ref("#/components/schemas/KeyErasure")),
    responses((status = 200, description = "What was erased", body = ref("#/components/schemas/ErasedKey")),
              (status = 409, description = "The present state still has the key; `errors` says where")))]
pub async fn erase_key(State(api): State<Api>, write: Write) -> Result<Json<Value>, Problem> {
    let KeyErasure { project, key } = write.body.read()?;
    if key.is_empty() || key.len() > MAX_TARGETING_KEY_BYTES {
        let detail = format!("a targeting key has 1 to {MAX_TARGETING_KEY_BYTES} bytes");
        return Err(invalid(vec![Fault::new("/key", "badTargetingKey", detail)]));
    }
    let (changes, audit, clock) = (Arc::clone(&api.changes), Arc::clone(&api.audit), Arc::clone(&api.clock));
    let drills = Arc::clone(&api.drills);
    // What was begun goes on to its end though the caller hang up, and is noted.
    let erasing = tokio::spawn(async move {
        let erased = changes.erase_key(&project, &key).await?;
        drills.forget(&project, &key);
        let author = write.author;
        audit.record(Event {
            actor_id: Some(author.actor_id),
            credential: author.credential,
            project: Some(project),
            action: Some("eraseKey".to_owned()),
            detail: format!(
                "a targeting key, from {} key lists and {} change requests",
                erased.key_sets + erased.unused_key_sets,
                erased.requests
            ),
            ..Event::new(clock.now_ms(), EventKind::Erased, author.origin_id)
        });
        Ok(erased)
    });
    erasing.await.map_err(Problem::internal)?.map(|erased| Json(json!(erased))).map_err(refused)
}

fn refused(error: EraseError) -> Problem {
    match error {
        EraseError::UnknownProject(project) => Problem::not_found("project", &project),
        EraseError::Stands(places) => {
            let faults = places.iter().map(|place| Fault::new("/key", "stillStands", place.sentence()));
            let detail = format!(
                "The key still stands in {} place(s) of the present state, which SDKs serve. Take it out there, by change \
                 request where one is needed, and erase it again. Nothing was erased.",
                places.len()
            );
            Problem::new(Code::Conflict, detail).with_errors(faults.collect()).with("places", json!(places))
        }
        EraseError::Change(error) => Problem::from(error),
    }
}
