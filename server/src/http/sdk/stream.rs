//! `/sdk/v1/stream`: the websocket handshake (RFC 6455, 4.2).

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use guidon_sdk::protocol::{KEY_SUBPROTOCOL_PREFIX, SUBPROTOCOL};
use http::header::{
    CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::SdkDoor;
use crate::http::auth::bearer;
use crate::http::problem::{Code, Problem};
use crate::push::{refuse, serve};

/// Opens the push stream. The credential comes in `Authorization` or, from browsers, which cannot set headers, as the
/// subprotocol `guidon.key.<credential>`.
#[utoipa::path(get, path = "/sdk/v1/stream", tag = "sdk",
    responses((status = 101, description = "A websocket; docs/FORMATS.md has its messages"),
              (status = 401, description = "The SDK key is not accepted"),
              (status = 426, description = "Not a websocket handshake"),
              (status = 503, description = "As many connections as there may be, or the server is stopping")))]
pub(crate) async fn open_stream(State(door): State<SdkDoor>, mut request: Request) -> Result<Response, Problem> {
    let accept = accept_key(request.headers())?;
    let address = request.extensions().get().copied();
    let offered = subprotocols(request.headers());
    if !offered.is_empty() && !offered.contains(&SUBPROTOCOL) {
        let detail = format!("This server speaks the websocket subprotocol {SUBPROTOCOL}.");
        return Err(Problem::new(Code::InvalidRequest, detail));
    }
    let is_chosen = !offered.is_empty();
    let from_browser = offered.iter().find_map(|protocol| protocol.strip_prefix(KEY_SUBPROTOCOL_PREFIX));
    let identity = match (bearer(request.headers()), from_browser) {
        // A browser cannot see a handshake's status; it is told over the websocket.
        (None, Some(credential)) => match door.hub.identify(credential) {
            Ok(identity) => door.admit(&identity, address).await.map(|()| Ok(identity)),
            Err(refused) => Ok(Err(refused)),
        },
        _ => door.identify(request.headers(), address).await.map(Ok),
    }?;
    let admission = door.hub.admit()?;
    let upgrade = request.extensions_mut().remove::<OnUpgrade>().ok_or_else(|| {
        Problem::new(Code::InvalidRequest, "This connection cannot become a websocket: use HTTP/1.1.")
    })?;
    tokio::spawn(async move {
        // A client that went away during the handshake needs no answer.
        let Ok(upgraded) = upgrade.await else { return };
        let socket = TokioIo::new(upgraded);
        match identity {
            Ok(identity) => serve(socket, door.hub, door.log, identity, admission).await,
            Err(refused) => refuse(socket, door.hub, refused).await,
        }
    });
    let mut response = (StatusCode::SWITCHING_PROTOCOLS, Body::empty()).into_response();
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    if is_chosen {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    }
    Ok(response)
}

/// The answer to the handshake's challenge, if it is a handshake.
fn accept_key(headers: &HeaderMap) -> Result<HeaderValue, Problem> {
    let not_websocket = |detail: &str| Problem::new(Code::InvalidRequest, detail);
    if !has_token(headers, &UPGRADE, "websocket") || !has_token(headers, &CONNECTION, "upgrade") {
        return Err(not_websocket("This route takes a websocket handshake; /sdk/v1/snapshot can be polled instead."));
    }
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version.as_bytes() != b"13") {
        return Err(not_websocket("Only version 13 of the websocket protocol is spoken."));
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).ok_or_else(|| not_websocket("Sec-WebSocket-Key is missing."))?;
    HeaderValue::try_from(derive_accept_key(key.as_bytes())).map_err(Problem::internal)
}

/// Whether a comma-separated header holds `token`, in whatever case.
fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|word| word.trim().eq_ignore_ascii_case(token))
}

fn subprotocols(headers: &HeaderMap) -> Vec<&str> {
    let values = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|protocol| !protocol.is_empty()).collect()
}
