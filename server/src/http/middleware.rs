//! What surrounds every request: its id, its log line and metrics, limits, and problem documents for whatever went wrong.

use std::net::IpAddr;
use std::panic::AssertUnwindSafe;

use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use http::header::{CONTENT_LENGTH, HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode};
use tokio::time::Instant;
use tracing::Instrument;

use super::Api;
use super::problem::{Code, Problem};
use super::transport::Peer;

/// Names a request, in the answer and in the log. A caller may bring its own.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Longest request id taken from a caller, in bytes.
const MAX_REQUEST_ID_BYTES: usize = 64;

/// Where a request comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientAddress(pub IpAddr);

/// The outermost layer: names the request, logs and counts it, turns panics and bare errors into problem documents.
pub async fn observe(State(api): State<Api>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = request_id(request.headers());
    let address = client_address(&api, &request);
    request.extensions_mut().insert(ClientAddress(address));
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let route = request.extensions().get::<MatchedPath>().map_or("none".into(), |matched| matched.as_str().to_owned());
    // The query stays out of the log: it may hold what an application puts there.
    let span = tracing::info_span!("request", %id, %method, path, %address);
    api.metrics.http.in_progress.inc();
    let outcome = AssertUnwindSafe(next.run(request)).catch_unwind().instrument(span.clone()).await;
    api.metrics.http.in_progress.dec();
    let response = outcome.unwrap_or_else(|panic| {
        let _entered = span.enter();
        Problem::internal(panic_text(&*panic)).into_response()
    });
    let mut response = with_problem(response, &id);
    let took = started.elapsed();
    api.metrics.http.record(&method, &route, response.status(), took);
    span.in_scope(|| {
        tracing::debug!(status = response.status().as_u16(), took_ms = took.as_secs_f64() * 1_000.0, "answered");
    });
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    secure(response.headers_mut());
    response
}

/// Refuses what is beyond the server's capacity and gives up what takes too long.
pub async fn bound(State(api): State<Api>, request: Request, next: Next) -> Response {
    let Ok(_place) = api.places.try_acquire() else {
        return Problem::new(
            Code::Unavailable,
            "The server works on as many requests as it may (--max-concurrent-requests).",
        )
        .retry_after_s(1)
        .into_response();
    };
    match tokio::time::timeout(api.limits.request_timeout, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::new(
            Code::Timeout,
            "The request was given up. A change may have been made all the same: send it again with the same Idempotency-Key.",
        )
        .retry_after_s(1)
        .into_response(),
    }
}

fn request_id(headers: &HeaderMap) -> String {
    let brought = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok()).filter(|id| {
        (1..=MAX_REQUEST_ID_BYTES).contains(&id.len())
            && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
    });
    brought.map_or_else(|| uuid::Uuid::new_v4().simple().to_string(), str::to_owned)
}

fn client_address(api: &Api, request: &Request) -> IpAddr {
    let peer = request.extensions().get::<Peer>().map_or(IpAddr::from([0, 0, 0, 0]), |peer| peer.address.ip());
    // Several headers of the name are one list, in order; the last is the nearest proxy's.
    let forwarded: Vec<&str> =
        request.headers().get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok()).collect();
    api.network.client_address(peer, Some(&forwarded.join(",")))
}

fn with_problem(mut response: Response, id: &str) -> Response {
    let problem = match response.extensions_mut().remove::<Problem>() {
        Some(problem) => problem,
        None => match bare_error(&response) {
            Some(problem) => problem,
            None => return response,
        },
    };
    let mut named = problem.of_request(id).into_response();
    named.extensions_mut().remove::<Problem>();
    for (name, value) in response.headers() {
        if *name != CONTENT_LENGTH && !named.headers().contains_key(name) {
            named.headers_mut().append(name.clone(), value.clone());
        }
    }
    named
}

/// An error that a library answered by itself, in plain text or without a body.
fn bare_error(response: &Response) -> Option<Problem> {
    let is_document = response
        .headers()
        .get(http::header::CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok())
        .is_some_and(|kind| kind.contains("json") || kind.contains("html"));
    if is_document {
        return None;
    }
    let code = match response.status() {
        StatusCode::NOT_FOUND => Code::NotFound,
        StatusCode::METHOD_NOT_ALLOWED => Code::MethodNotAllowed,
        StatusCode::PAYLOAD_TOO_LARGE => Code::BodyTooLarge,
        StatusCode::UNSUPPORTED_MEDIA_TYPE => Code::UnsupportedMediaType,
        StatusCode::UNAUTHORIZED => Code::Unauthorized,
        StatusCode::FORBIDDEN => Code::Forbidden,
        status if status.is_server_error() => Code::Internal,
        StatusCode::BAD_REQUEST => Code::InvalidRequest,
        _ => return None,
    };
    Some(Problem::new(code, format!("{}.", code.title())))
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    format!("a handler panicked: {}", text.unwrap_or_default())
}

fn secure(headers: &mut HeaderMap) {
    let defaults = [
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "no-referrer"),
        ("cache-control", "no-store"),
        ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
    ];
    for (name, value) in defaults {
        headers.entry(HeaderName::from_static(name)).or_insert(HeaderValue::from_static(value));
    }
}

/// Answers every path that no route has.
pub async fn no_such_route(request: Request) -> Problem {
    let path = request.uri().path();
    Problem::new(Code::NotFound, format!("There is no route {path}. GET /api/openapi.json lists them all."))
}

/// Answers a method that a route does not take; `Allow` says which it does.
pub async fn no_such_method(request: Request<Body>) -> Problem {
    let (method, path) = (request.method(), request.uri().path());
    Problem::new(Code::MethodNotAllowed, format!("{path} does not take {method}."))
}
