//! Path and query parameters, whose faults are problem documents.

use axum::extract::{FromRequestParts, Path as AxumPath};
use http::request::Parts;
use serde::de::DeserializeOwned;

use super::Api;
use super::problem::{Code, Fault, Problem};

/// Parameters of the path.
pub struct Path<T>(pub T);

/// Parameters of the query. Unknown ones are refused by types that deny them.
pub struct Query<T>(pub T);

impl<T: DeserializeOwned + Send> FromRequestParts<Api> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let path = AxumPath::<T>::from_request_parts(parts, api).await;
        path.map(|AxumPath(value)| Self(value)).map_err(|error| Problem::new(Code::NotFound, error.body_text()))
    }
}

impl<T: DeserializeOwned + Send> FromRequestParts<Api> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, Problem> {
        let query = axum::extract::Query::<T>::try_from_uri(&parts.uri);
        query.map(|axum::extract::Query(value)| Self(value)).map_err(|error| {
            Problem::new(Code::InvalidRequest, "A parameter of the query is not right.").with_errors(vec![Fault::new(
                "",
                "invalidParameter",
                std::error::Error::source(&error).map_or_else(|| error.body_text(), ToString::to_string),
            )])
        })
    }
}
