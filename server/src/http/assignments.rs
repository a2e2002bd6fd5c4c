//! `/api/v1/projects/{project}/environments/{environment}/assignments`: the assignment log, streamed.

use std::sync::Arc;

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use http::header::CONTENT_TYPE;
use serde::Deserialize;

use super::Api;
use super::parameters::{Path, Query};
use super::problem::{Code, Fault, Problem};
use super::sdk::SdkDoor;
use crate::assignments::{self, AssignmentLog, Cursor, MAX_PAGE_ITEMS, Origin, Page, QueryError};

/// Media type of lines of JSON.
const NDJSON: &str = "application/x-ndjson";

/// Which assignments.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AssignmentQuery {
    /// Only those of this flag.
    flag: Option<String>,
    /// Only those received at or after this time: RFC 3339, or milliseconds since 1970.
    from: Option<String>,
    /// Only those received before this time: RFC 3339, or milliseconds since 1970.
    to: Option<String>,
    /// Only those after the line with this `cursor`.
    after: Option<String>,
    /// Most lines; without it, all there are.
    limit: Option<u64>,
}

/// Streams stored assignments as lines of JSON, oldest first, to the end of what is stored. Asking again with the `cursor` of
/// the last line as `after` goes on from there.
#[utoipa::path(get, path = "/api/v1/projects/{project}/environments/{environment}/assignments", tag = "assignments",
    params(("project" = String, Path, description = "Key of the project"),
           ("environment" = String, Path, description = "Key of the environment"), AssignmentQuery),
    responses((status = 200, description = "A line for each assignment", content_type = "application/x-ndjson")))]
pub async fn list_assignments(
    State(api): State<Api>,
    Extension(door): Extension<SdkDoor>,
    Path((project, environment)): Path<(String, String)>,
    Query(query): Query<AssignmentQuery>,
) -> Result<Response, Problem> {
    api.project_with(&project, &environment)?;
    let mut faults = Vec::new();
    let mut time = |name: &str, text: Option<&String>| {
        let parsed = text.map(|text| parse_time(text)).transpose();
        parsed.unwrap_or_else(|problem| {
            faults.push(Fault::new("", "invalidParameter", format!("{name}: {problem}")));
            None
        })
    };
    let (from, to) = (time("from", query.from.as_ref()), time("to", query.to.as_ref()));
    let after = query.after.as_deref().map(str::parse::<Cursor>).transpose().unwrap_or_else(|error| {
        faults.push(Fault::new("", "invalidParameter", format!("after: {error}")));
        None
    });
    if !faults.is_empty() {
        return Err(Problem::new(Code::InvalidRequest, "A parameter of the query is not right.").with_errors(faults));
    }
    let origin = Origin { project: project.into(), environment: environment.into() };
    let wanted = assignments::Query { origin, flag: query.flag, from, to, after, limit: MAX_PAGE_ITEMS };
    let mut reading = Reading { log: door.log, query: wanted, left: query.limit.unwrap_or(u64::MAX), done: false };
    // What goes wrong at once is answered as a problem; what goes wrong later cuts the stream.
    let first = reading.next().await.map_err(Problem::internal)?;
    let rest = stream::unfold((Some(first), reading), |(ready, mut reading)| async move {
        let chunk = match ready {
            Some(chunk) => Ok(chunk),
            None => reading.next().await,
        };
        match chunk {
            Ok(None) => None,
            Ok(Some(bytes)) => Some((Ok(bytes), (None, reading))),
            Err(error) => {
                tracing::error!(%error, "the assignment log cannot be read on");
                reading.done = true;
                Some((Err(error), (None, reading)))
            }
        }
    });
    Ok(([(CONTENT_TYPE, NDJSON)], Body::from_stream(rest)).into_response())
}

/// A walk through the log, a page in memory at a time.
struct Reading {
    log: Arc<dyn AssignmentLog>,
    query: assignments::Query,
    left: u64,
    done: bool,
}

impl Reading {
    /// The next lines; `None` at the end.
    async fn next(&mut self) -> Result<Option<Bytes>, QueryError> {
        while !self.done && self.left > 0 {
            self.query.limit = usize::try_from(self.left).unwrap_or(MAX_PAGE_ITEMS).min(MAX_PAGE_ITEMS);
            let page = self.page().await?;
            self.left -= page.lines.len() as u64;
            match page.next {
                Some(next) => self.query.after = Some(next),
                None => self.done = true,
            }
            let mut bytes = Vec::new();
            for line in &page.lines {
                // A line that does not serialise does not exist: keys are texts, numbers finite.
                if serde_json::to_writer(&mut bytes, line).is_ok() {
                    bytes.push(b'\n');
                }
            }
            if !bytes.is_empty() {
                return Ok(Some(bytes.into()));
            }
        }
        Ok(None)
    }

    async fn page(&self) -> Result<Page, QueryError> {
        let (log, query) = (Arc::clone(&self.log), self.query.clone());
        let reading = tokio::task::spawn_blocking(move || log.read(&query));
        reading.await.unwrap_or(Err(QueryError::Interrupted))
    }
}

/// Milliseconds since 1970 of a time in RFC 3339 or in milliseconds.
pub(super) fn parse_time(text: &str) -> Result<u64, String> {
    if let Ok(milliseconds) = text.parse() {
        return Ok(milliseconds);
    }
    let time: jiff::Timestamp = text
        .parse()
        .map_err(|_| format!("{text:?} is neither a time like 2027-01-31T12:00:00Z nor milliseconds since 1970"))?;
    Ok(u64::try_from(time.as_millisecond()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339_or_milliseconds() {
        assert_eq!(parse_time("1700000000000"), Ok(1_700_000_000_000));
        assert_eq!(parse_time("1970-01-01T00:00:01.5Z"), Ok(1_500));
        assert_eq!(parse_time("1970-01-01T02:00:00+01:00"), Ok(3_600_000));
        assert_eq!(parse_time("1960-01-01T00:00:00Z"), Ok(0));
        for wrong in ["", "yesterday", "2027-01-31", "-5"] {
            assert!(parse_time(wrong).is_err(), "{wrong}");
        }
    }
}
