//! `/sdk/v1/snapshot`: the whole state, for SDKs that cannot keep a websocket.

use axum::Extension;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use guidon_sdk::protocol::Revision;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::Deserialize;

use super::SdkDoor;
use crate::http::middleware::ClientAddress;
use crate::http::problem::{Code, Fault, Problem};

/// What the SDK has.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct SnapshotQuery {
    /// Revision the SDK serves, as `<history>:<number>`: answered 304 if nothing it evaluates is newer.
    basis: Option<String>,
}

/// Shows everything the SDK key's environment evaluates: the bytes that the push stream sends as a snapshot.
#[utoipa::path(get, path = "/sdk/v1/snapshot", tag = "sdk", params(SnapshotQuery),
    responses((status = 200, description = "The snapshot; docs/FORMATS.md has its form"),
              (status = 304, description = "Nothing is newer than the basis"),
              (status = 401, description = "The SDK key is not accepted")))]
pub(crate) async fn show_snapshot(
    State(door): State<SdkDoor>,
    Query(query): Query<SnapshotQuery>,
    address: Option<Extension<ClientAddress>>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let identity = door.identify(&headers, address.map(|Extension(address)| address)).await?;
    let basis = match query.basis.as_deref().map(str::parse::<Revision>) {
        Some(Err(error)) => {
            let fault = Fault::new("", "invalidParameter", format!("basis: {error}"));
            return Err(Problem::new(Code::InvalidRequest, "The basis is not a revision.").with_errors(vec![fault]));
        }
        Some(Ok(basis)) => Some(basis).filter(|basis| basis.history == door.hub.history()),
        None => None,
    };
    if let Some(basis) = &basis
        && !door.hub.catch_up(basis.number).await
    {
        let detail = format!("This server is behind {basis}.");
        return Err(Problem::new(Code::Unavailable, detail).retry_after_s(super::RETRY_AFTER_S));
    }
    let (revision, bytes) = door
        .hub
        .snapshot(&identity.channel)
        .ok_or_else(|| Problem::new(Code::Unauthorized, "The SDK key's environment does not exist any more."))?;
    let etag = format!("\"{}:{revision}\"", door.hub.history());
    let has_it = headers.get(IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == etag.as_bytes());
    let etag = HeaderValue::try_from(etag).map_err(Problem::internal)?;
    let common = [(ETAG, etag), (CACHE_CONTROL, HeaderValue::from_static("private, no-cache"))];
    if has_it || basis.is_some_and(|basis| basis.number >= revision) {
        return Ok((StatusCode::NOT_MODIFIED, common).into_response());
    }
    let json = (CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok((common, [json], Body::from(bytes)).into_response())
}
