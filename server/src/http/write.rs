//! What every writing request has in common: a strictly read body, an author, and a key to send it again safely.

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, EXPECT};
use http::{HeaderMap, HeaderName};
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::Instant;

use super::auth::Caller;
use super::problem::{Code, Fault, Problem};
use super::{Api, strict};
use crate::changes::limits::MAX_IDEMPOTENCY_KEY_BYTES;
use crate::changes::{Author, IdempotencyKey};

/// Lets a write be sent again: the same key and body give the same answer for 24 hours.
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// A body over the limit is read on, and thrown away, up to this many times the limit: a caller who is cut off while sending
/// does not get to read why.
const MAX_DISCARDED_LIMITS: usize = 4;

/// A JSON body, read strictly. An empty body is null.
pub struct JsonBody(pub Value);

/// A request that changes something.
pub struct Write {
    /// Its body.
    pub body: JsonBody,
    /// Who sends it, and from where.
    pub author: Author,
    /// The key it may be sent again with.
    pub idempotency: Option<IdempotencyKey>,
}

impl JsonBody {
    /// The body as a `T`.
    ///
    /// # Errors
    ///
    /// A problem that lists every unknown field and the first value that cannot be read.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        strict::read(&self.0, "").map_err(invalid)
    }
}

/// A request that has these faults.
#[must_use]
pub fn invalid(errors: Vec<Fault>) -> Problem {
    let unknown = errors.iter().any(|fault| fault.code == "unknownInstruction");
    let code = if unknown { Code::UnknownInstruction } else { Code::InvalidRequest };
    let count = errors.len();
    let detail = format!("{count} thing{} wrong; nothing was changed.", if count == 1 { " is" } else { "s are" });
    Problem::new(code, detail).with_errors(errors)
}

impl FromRequest<Api> for JsonBody {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Problem> {
        let bytes = read_body(request, api.limits.max_body_bytes).await?;
        parse(&bytes).map(Self)
    }
}

impl FromRequest<Api> for Write {
    type Rejection = Problem;

    async fn from_request(mut request: Request, api: &Api) -> Result<Self, Problem> {
        let Some(Caller { author, .. }) = request.extensions_mut().remove::<Caller>() else {
            return Err(Problem::internal("a writing route is not behind authentication"));
        };
        api.writes.take(author.actor_id.as_str().into(), Instant::now()).map_err(|seconds| {
            Problem::new(
                Code::TooManyRequests,
                "This credential writes more often than it may (--max-writes-per-second).",
            )
            .retry_after_s(seconds)
        })?;
        let key = idempotency_key(request.headers())?;
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let bytes = read_body(request, api.limits.max_body_bytes).await?;
        let idempotency = key.map(|key| {
            let mut hasher = blake3::Hasher::new();
            for part in [method.as_str().as_bytes(), path.as_bytes(), &bytes] {
                hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
            }
            IdempotencyKey { key, body_hash: hasher.finalize().to_hex().to_string() }
        });
        let body = JsonBody(parse(&bytes)?);
        Ok(Self { body, author, idempotency })
    }
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    let key = value.to_str().ok().map(str::trim);
    match key.filter(|key| (1..=MAX_IDEMPOTENCY_KEY_BYTES).contains(&key.len())) {
        Some(key) => Ok(Some(key.to_owned())),
        None => Err(Problem::new(
            Code::InvalidRequest,
            format!("Idempotency-Key is 1 to {MAX_IDEMPOTENCY_KEY_BYTES} visible ASCII characters; a UUID does well."),
        )),
    }
}

async fn read_body(request: Request, limit: usize) -> Result<Bytes, Problem> {
    let (parts, body) = request.into_parts();
    let bytes = receive(&parts.headers, body, limit).await?;
    if !bytes.is_empty() && !is_json(&parts.headers) {
        return Err(Problem::new(
            Code::UnsupportedMediaType,
            "Send JSON, with the header Content-Type: application/json.",
        ));
    }
    Ok(bytes)
}

/// The body, unless it is over the limit.
async fn receive(headers: &HeaderMap, mut body: Body, limit: usize) -> Result<Bytes, Problem> {
    let too_large = || {
        Problem::new(Code::BodyTooLarge, format!("A body may have {limit} bytes (--max-body-bytes); split the change."))
            .with("limitBytes", limit)
    };
    let announced = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    let mut is_too_large = announced.is_some_and(|length| length > limit as u64);
    if is_too_large && headers.contains_key(EXPECT) {
        // The caller asked before sending.
        return Err(too_large());
    }
    let (mut bytes, mut length) = (BytesMut::new(), 0_usize);
    while let Some(frame) = body.frame().await {
        let cut_off = |_| Problem::new(Code::InvalidRequest, "The body ended before it was complete.");
        let Ok(data) = frame.map_err(cut_off)?.into_data() else { continue };
        length = length.saturating_add(data.len());
        is_too_large |= length > limit;
        if !is_too_large {
            bytes.extend_from_slice(&data);
        } else if length > limit.saturating_mul(MAX_DISCARDED_LIMITS) {
            break;
        } else {
            bytes = BytesMut::new();
        }
    }
    if is_too_large { Err(too_large()) } else { Ok(bytes.freeze()) }
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json"))
}

fn parse(bytes: &[u8]) -> Result<Value, Problem> {
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    strict::parse(bytes).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        Problem::new(Code::MalformedJson, format!("The body is not JSON: {error}."))
            .with("line", line)
            .with("column", column)
            .with("byte", byte_offset(bytes, line, column))
    })
}

/// Where a line and column, both counted from 1, stand in a text, counted from 0. The parser counts columns in bytes.
fn byte_offset(text: &[u8], line: usize, column: usize) -> usize {
    let starts =
        text.split_inclusive(|byte| *byte == b'\n').take(line.saturating_sub(1)).map(<[u8]>::len).sum::<usize>();
    (starts + column.saturating_sub(1)).min(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn malformed_json_is_located() {
        let problem = parse(b"{\"a\":1,\n  x}").unwrap_err().document();
        assert_eq!(
            (&problem["code"], &problem["line"], &problem["column"]),
            (&"malformedJson".into(), &2.into(), &3.into())
        );
        assert_eq!(problem["byte"], 10);
        assert_eq!(parse(b"").unwrap(), Value::Null);
        let deep = "[".repeat(100_000);
        assert_eq!(parse(deep.as_bytes()).unwrap_err().code(), Code::MalformedJson);
    }
}
