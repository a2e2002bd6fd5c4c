//! Errors as callers see them: RFC 9457 problem documents with a stable `code` and a JSON pointer to each thing wrong.
//!
//! Errors know nothing of HTTP until they get here; what only the operator should read goes to the log.

use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use serde::Serialize;
use serde_json::{Map, Value};

/// Media type of a problem document.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// What went wrong: stable, for programs. Each has one status and one title.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Code {
    /// The body is not JSON.
    MalformedJson,
    /// The body is JSON of the wrong form, or a field has a wrong value.
    InvalidRequest,
    /// An instruction's kind does not exist.
    UnknownInstruction,
    /// The change would make a definition that is not right.
    InvalidChange,
    /// No credential, or one that is not known.
    Unauthorized,
    /// The credential is known and not enough.
    Forbidden,
    /// The credential is enough once a second factor has been proved again.
    FactorNeeded,
    /// No such route, project, environment, flag, segment or key.
    NotFound,
    /// The route does not take this method.
    MethodNotAllowed,
    /// Something else changed what the change names since the revision it expects.
    StaleRevision,
    /// The change collides with what is there.
    Conflict,
    /// The body is over the limit.
    BodyTooLarge,
    /// The body's media type is not one the route reads.
    UnsupportedMediaType,
    /// The idempotency key was used with another body.
    IdempotencyKeyReused,
    /// Too many requests.
    TooManyRequests,
    /// A fault of the server; its log says more.
    Internal,
    /// The server takes no writes.
    ReadOnly,
    /// The server is busy, starting or stopping.
    Unavailable,
    /// The server gave the request up.
    Timeout,
    /// The volume is full.
    DiskFull,
}

impl Code {
    /// All codes.
    pub const ALL: [Self; 20] = [
        Self::MalformedJson,
        Self::InvalidRequest,
        Self::UnknownInstruction,
        Self::InvalidChange,
        Self::Unauthorized,
        Self::Forbidden,
        Self::FactorNeeded,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::StaleRevision,
        Self::Conflict,
        Self::BodyTooLarge,
        Self::UnsupportedMediaType,
        Self::IdempotencyKeyReused,
        Self::TooManyRequests,
        Self::Internal,
        Self::ReadOnly,
        Self::Unavailable,
        Self::Timeout,
        Self::DiskFull,
    ];

    fn parts(self) -> (u16, &'static str, &'static str) {
        match self {
            Self::MalformedJson => (400, "malformedJson", "The body is not JSON"),
            Self::InvalidRequest => (400, "invalidRequest", "The request is not right"),
            Self::UnknownInstruction => (400, "unknownInstruction", "An instruction's kind does not exist"),
            Self::InvalidChange => (422, "invalidChange", "The change cannot be applied as it is"),
            Self::Unauthorized => (401, "unauthorized", "A valid credential is needed"),
            Self::Forbidden => (403, "forbidden", "This is not allowed"),
            Self::FactorNeeded => (403, "factorNeeded", "A second factor has to be proved again"),
            Self::NotFound => (404, "notFound", "There is no such thing"),
            Self::MethodNotAllowed => (405, "methodNotAllowed", "The route does not take this method"),
            Self::StaleRevision => (409, "staleRevision", "Somebody else changed this first"),
            Self::Conflict => (409, "conflict", "The change collides with what is there"),
            Self::BodyTooLarge => (413, "bodyTooLarge", "The body is over the limit"),
            Self::UnsupportedMediaType => (415, "unsupportedMediaType", "The body's media type is not read here"),
            Self::IdempotencyKeyReused => (422, "idempotencyKeyReused", "The key was used with another body"),
            Self::TooManyRequests => (429, "tooManyRequests", "Too many requests"),
            Self::Internal => (500, "internal", "A fault of the server"),
            Self::ReadOnly => (503, "readOnly", "The server takes no writes"),
            Self::Unavailable => (503, "unavailable", "The server cannot answer now"),
            Self::Timeout => (503, "timeout", "The request took too long"),
            Self::DiskFull => (507, "diskFull", "The server's volume is full"),
        }
    }

    /// HTTP status it is answered with.
    #[must_use]
    pub fn status(self) -> StatusCode {
        StatusCode::from_u16(self.parts().0).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The word in the document.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.parts().1
    }

    /// The sentence that stands for every problem of this code.
    #[must_use]
    pub fn title(self) -> &'static str {
        self.parts().2
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// JSON pointer (RFC 6901) into the request's body; empty for the whole of it.
    pub pointer: String,
    /// What kind of wrong; stable, for programs.
    pub code: String,
    /// What is wrong and what would be right.
    pub detail: String,
}

impl Fault {
    /// One thing wrong at `pointer`.
    pub fn new(pointer: impl Into<String>, code: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), code: code.into(), detail: detail.into() }
    }
}

/// A problem document, and how to answer it.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    code: Code,
    detail: String,
    errors: Vec<Fault>,
    members: Map<String, Value>,
    instance: Option<String>,
    retry_after_s: Option<u64>,
}

impl Problem {
    /// A problem with a sentence about this occurrence of it.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into(),
            errors: Vec::new(),
            members: Map::new(),
            instance: None,
            retry_after_s: None,
        }
    }

    /// A fault of the server: `cause` goes to the log, the caller learns that it happened.
    pub fn internal(cause: impl std::fmt::Display) -> Self {
        tracing::error!(%cause, "a request failed through a fault of the server");
        Self::new(
            Code::Internal,
            "Something went wrong inside the server. Its log has the cause under this request's id.",
        )
    }

    /// There is no such thing: `what` names its kind, `key` which.
    pub fn not_found(what: &str, key: &str) -> Self {
        Self::new(Code::NotFound, format!("There is no {what} {key:?}."))
    }

    /// Several things wrong with a request.
    #[must_use]
    pub fn with_errors(mut self, errors: Vec<Fault>) -> Self {
        self.errors = errors;
        self
    }

    /// Its faults, each turned into another.
    #[must_use]
    pub(super) fn map_errors(mut self, turn: impl Fn(Fault) -> Fault) -> Self {
        self.errors = self.errors.into_iter().map(turn).collect();
        self
    }

    /// Its faults as they stand in a body that became what stands at `pointer` of the change that was made of it.
    #[must_use]
    pub(super) fn within(mut self, pointer: &str) -> Self {
        for fault in &mut self.errors {
            if let Some(rest) = fault.pointer.strip_prefix(pointer) {
                fault.pointer = rest.to_owned();
            }
        }
        self
    }

    /// A further member of the document.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.members.insert(name.to_owned(), value.into());
        self
    }

    /// Tells the caller when to try again.
    #[must_use]
    pub fn retry_after_s(mut self, seconds: u64) -> Self {
        self.retry_after_s = Some(seconds.max(1));
        self
    }

    /// Names the request, so that a report can be matched with the log.
    #[must_use]
    pub(super) fn of_request(mut self, id: &str) -> Self {
        self.instance = Some(format!("urn:guidon:request:{id}"));
        self
    }

    /// Its code.
    #[must_use]
    pub fn code(&self) -> Code {
        self.code
    }

    /// The document.
    #[must_use]
    pub fn document(&self) -> Value {
        let mut document = Map::new();
        document.insert("type".into(), format!("urn:guidon:problem:{}", self.code.as_str()).into());
        document.insert("title".into(), self.code.title().into());
        document.insert("status".into(), self.code.status().as_u16().into());
        document.insert("code".into(), self.code.as_str().into());
        document.insert("detail".into(), self.detail.as_str().into());
        if let Some(instance) = &self.instance {
            document.insert("instance".into(), instance.as_str().into());
        }
        if !self.errors.is_empty() {
            document.insert("errors".into(), serde_json::to_value(&self.errors).unwrap_or_default());
        }
        document.extend(self.members.clone());
        Value::Object(document)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.code.status(), self.document().to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if self.code == Code::Unauthorized {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"guidon\""));
        }
        if let Some(seconds) = self.retry_after_s {
            headers.insert(RETRY_AFTER, seconds.into());
        }
        // The request's id is added at the edge, where it is known.
        response.extensions_mut().insert(self);
        response
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn codes_are_distinct_and_their_statuses_exist() {
        let words: HashSet<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(words.len(), Code::ALL.len());
        assert!(Code::ALL.iter().all(|code| code.status().is_client_error() || code.status().is_server_error()));
    }

    #[test]
    fn a_document_says_what_where_and_how_to_go_on() {
        let problem = Problem::new(Code::InvalidChange, "2 problems.")
            .with_errors(vec![Fault::new("/instructions/0/flag/key", "invalidKey", "…")])
            .with("revision", 7)
            .of_request("abc");
        assert_eq!(
            problem.document(),
            serde_json::json!({
                "type": "urn:guidon:problem:invalidChange",
                "title": "The change cannot be applied as it is",
                "status": 422,
                "code": "invalidChange",
                "detail": "2 problems.",
                "instance": "urn:guidon:request:abc",
                "errors": [{"pointer": "/instructions/0/flag/key", "code": "invalidKey", "detail": "…"}],
                "revision": 7,
            })
        );
        let response = Problem::new(Code::TooManyRequests, "Slower.").retry_after_s(0).into_response();
        assert_eq!(response.headers()[RETRY_AFTER], "1");
        assert_eq!(response.headers()[CONTENT_TYPE], PROBLEM_JSON);
    }
}
