//! `/api/v1/backup`: the whole store as one file, while it serves.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use futures_util::stream::{self, Stream};
use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use serde::Deserialize;
use tokio::sync::mpsc::error::SendTimeoutError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

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
/// How long a reader may take for one piece, of about 1 MiB, before its backup is cut off: it would keep others from theirs.
const STALLED_READER_LIMIT: Duration = Duration::from_secs(120);
/// Pieces that are made before the reader asks for them.
const PIECES_AHEAD: usize = 1;

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

/// A piece for the reader; nothing at the end.
type Piece = Result<Option<Bytes>, std::io::Error>;

/// Makes pieces where blocking is allowed, one ahead of the reader, and stops once the reader has gone or has taken nothing for
/// as long as `limit`. `_room` is given back then.
async fn make(
    mut next_piece: impl FnMut() -> Result<Option<Vec<u8>>, BackupError> + Send + 'static,
    _room: OwnedSemaphorePermit,
    pieces: mpsc::Sender<Piece>,
    limit: Duration,
) {
    loop {
        let made = tokio::task::spawn_blocking(move || (next_piece(), next_piece)).await;
        // One that panicked drops the sender, and the reader is told that it was cut off.
        let Ok((piece, next)) = made else { return tracing::error!("a backup was cut short") };
        next_piece = next;
        let piece = piece.map(|piece| piece.map(Bytes::from)).map_err(|error| {
            tracing::error!(%error, "a backup was cut off");
            std::io::Error::other(error)
        });
        let is_last = !matches!(piece, Ok(Some(_)));
        match pieces.send_timeout(piece, limit).await {
            Ok(()) if !is_last => {}
            Ok(()) | Err(SendTimeoutError::Closed(_)) => return,
            Err(SendTimeoutError::Timeout(_)) => {
                return tracing::warn!(
                    seconds = limit.as_secs(),
                    "a backup was cut off: its reader took nothing any more"
                );
            }
        }
    }
}

/// What the reader is given. Pieces that end without saying so were cut off, and the reader is told.
fn handed_out(pieces: mpsc::Receiver<Piece>) -> impl Stream<Item = Result<Bytes, std::io::Error>> {
    stream::unfold(Some(pieces), |pieces| async move {
        let mut pieces = pieces?;
        match pieces.recv().await {
            Some(Ok(Some(bytes))) => Some((Ok(bytes), Some(pieces))),
            Some(Ok(None)) => None,
            Some(Err(error)) => Some((Err(error), None)),
            None => Some((Err(std::io::ErrorKind::TimedOut.into()), None)),
        }
    })
}

/// Hands out the whole store as it is now: journal, security log, vault (sealed with the master key, which is not in it) and, if
/// asked for, the assignment log. Needs an administrator with a fresh second factor. One is taken at a time, and cut off where its reader
/// takes nothing for two minutes. A backup that is cut off is refused when it is restored.
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
    let starting = tokio::task::spawn_blocking(move || Producer::start((door.sources)(with_assignments)));
    let mut producer = starting.await.map_err(Problem::internal)?.map_err(Problem::internal)?;
    let (sender, pieces) = mpsc::channel(PIECES_AHEAD);
    tokio::spawn(make(move || producer.next_piece(), room, sender, STALLED_READER_LIMIT));
    let headers = [(CONTENT_TYPE, MEDIA_TYPE), (CONTENT_DISPOSITION, "attachment; filename=\"guidon.backup\"")];
    Ok((headers, Body::from_stream(handed_out(pieces))).into_response())
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;

    use super::*;

    /// A backup of `count` pieces, with its room.
    fn begin(count: u8) -> (Arc<Semaphore>, mpsc::Receiver<Piece>) {
        let room = Arc::new(Semaphore::new(1));
        let permit = Arc::clone(&room).try_acquire_owned().expect("room");
        let (sender, pieces) = mpsc::channel(PIECES_AHEAD);
        let mut left = count;
        let next = move || {
            let piece = left.checked_sub(1).map(|rest| vec![std::mem::replace(&mut left, rest)]);
            Ok(piece)
        };
        tokio::spawn(make(next, permit, sender, STALLED_READER_LIMIT));
        (room, pieces)
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_reader_gets_everything() {
        let (room, pieces) = begin(4);
        let mut read = Vec::new();
        let mut pieces = Box::pin(handed_out(pieces));
        while let Some(piece) = pieces.next().await {
            read.extend(piece.expect("a piece"));
            tokio::time::sleep(STALLED_READER_LIMIT / 2).await;
        }
        assert_eq!(read, [4, 3, 2, 1]);
        assert_eq!(room.available_permits(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_stalls_or_goes_keeps_nobody_waiting() {
        let (room, pieces) = begin(9);
        let mut pieces = Box::pin(handed_out(pieces));
        assert!(pieces.next().await.is_some_and(|piece| piece.is_ok()));
        tokio::time::sleep(STALLED_READER_LIMIT * 3).await;
        assert_eq!(room.available_permits(), 1, "the room is given back");
        let rest: Vec<_> = pieces.collect().await;
        assert!(rest.last().is_some_and(Result::is_err), "the end is not taken for a whole backup's");
        let (room, pieces) = begin(9);
        drop(pieces);
        let _free = tokio::time::timeout(STALLED_READER_LIMIT / 2, room.acquire()).await.expect("given back at once");
    }
}
