//! `/api/v1/backup`: the whole store as one file, while it serves.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use futures_util::stream;
use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Api;
use super::auth::Caller;
use super::parameters::Query;
use super::problem::{Code, Problem};
use crate::audit::{Event, EventKind};
use crate::backup::{BackupError, Producer, Sources};

/// What a backup is served as.
pub const MEDIA_TYPE: &str = "application/vnd.guidon.backup";

/// Backups that are taken at once: each reads the whole store.
const MAX_BACKUPS: usize = 1;

/// Says what a backup is made of: with the assignment log, or without.
pub type MakeSources = dyn Fn(bool) -> Sources + Send + Sync;

/// What this door is made of.
pub struct BackupDoor {
    sources: Box<MakeSources>,
    room: Arc<Semaphore>,
}

impl BackupDoor {
    /// The door to a store.
    #[must_use]
    pub fn new(sources: Box<MakeSources>) -> Self {
        Self { sources, room: Arc::new(Semaphore::new(MAX_BACKUPS)) }
    }
}

/// What is to be in a backup.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub struct BackupQuery {
    /// Whether the assignment log is in it. Without, a restored server starts a new one.
    assignments: Option<bool>,
}

/// The operations, for the API's description.
#[derive(utoipa::OpenApi)]
#[openapi(paths(show_backup))]
pub struct Operations;

/// The routes, behind authentication and the policies.
pub fn routes(door: Arc<BackupDoor>) -> Router<Api> {
    Router::new().route("/api/v1/backup", get(show_backup)).layer(Extension(door))
}

/// A producer on its way between threads, and the room it takes.
struct Making {
    producer: Producer,
    _room: OwnedSemaphorePermit,
}

type Made = (Result<Option<Vec<u8>>, BackupError>, Making);

/// Makes the next piece where blocking is allowed.
async fn next(mut making: Making) -> Result<Made, tokio::task::JoinError> {
    tokio::task::spawn_blocking(move || (making.producer.next_piece(), making)).await
}

/// Hands out the whole store as it is now: journal, security log, vault (sealed with the master key, which is not in it) and, if
/// asked for, the assignment log. Needs an administrator with a fresh second factor. One is taken at a time. A backup that is cut
/// off is refused when it is restored.
#[utoipa::path(get, path = "/api/v1/backup", tag = "installation", params(BackupQuery),
    responses((status = 200, description = "The backup; docs/STORAGE.md has its form", body = Vec<u8>,
        content_type = "application/vnd.guidon.backup")))]
pub async fn show_backup(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Extension(door): Extension<Arc<BackupDoor>>,
    Query(query): Query<BackupQuery>,
) -> Result<Response, Problem> {
    let room = Arc::clone(&door.room).try_acquire_owned().map_err(|_| {
        Problem::new(Code::Unavailable, "Another backup is being taken; one is at a time. Try again when it is done.")
    })?;
    let with_assignments = query.assignments.unwrap_or(false);
    let author = &caller.author;
    api.audit.record(Event {
        actor_id: Some(author.actor_id.clone()),
        credential: author.credential.clone(),
        detail: if with_assignments { "the whole store" } else { "the store without the assignment log" }.to_owned(),
        ..Event::new(api.clock.now_ms(), EventKind::BackedUp, author.origin_id.clone())
    });
    let making = tokio::task::spawn_blocking(move || {
        let producer = Producer::start((door.sources)(with_assignments))?;
        Ok::<_, BackupError>(Making { producer, _room: room })
    });
    let making = making.await.map_err(Problem::internal)?.map_err(Problem::internal)?;
    let pieces = stream::unfold(Some(making), |making| async move {
        match next(making?).await {
            Ok((Ok(Some(bytes)), making)) => Some((Ok(Bytes::from(bytes)), Some(making))),
            Ok((Ok(None), _)) => None,
            Ok((Err(error), _)) => {
                tracing::error!(%error, "a backup was cut off");
                Some((Err(std::io::Error::other(error)), None))
            }
            Err(error) => Some((Err(std::io::Error::other(error)), None)),
        }
    });
    let headers = [(CONTENT_TYPE, MEDIA_TYPE), (CONTENT_DISPOSITION, "attachment; filename=\"guidon.backup\"")];
    Ok((headers, Body::from_stream(pieces)).into_response())
}
