//! `/api/v1/projects/{project}/environments/{environment}/segments`: segments, to read.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Api;
use super::page::{limit, page};
use super::parameters::{Path, Query};
use super::problem::Problem;
use super::projects::PageQuery;
use super::shown::{self, Reader, Shown};
use crate::changes::instruction::SegmentList;
use crate::state::SegmentState;

/// Which keys of a segment.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct KeyQuery {
    /// Most keys of a list to answer: 1 to 1,000, 100 by default.
    limit: Option<usize>,
    /// Answers keys after this one: the `next` of the page before.
    after: Option<String>,
    /// Only this list; both if left out.
    #[param(value_type = Option<String>)]
    list: Option<SegmentList>,
}

/// Lists the segments of an environment, by key, without their targeting keys.
#[utoipa::path(get, path = "/api/v1/projects/{project}/environments/{environment}/segments", tag = "segments",
    params(("project" = String, Path, description = "Key of the project"),
           ("environment" = String, Path, description = "Key of the environment"), PageQuery),
    responses((status = 200, description = "A page of segments", body = ref("#/components/schemas/SegmentPage"))))]
pub async fn list_segments(
    State(api): State<Api>,
    Path((project, environment)): Path<(String, String)>,
    reader: Reader,
    Query(query): Query<PageQuery>,
) -> Result<Json<Value>, Problem> {
    let (limit, after) = (limit(query.limit)?, query.after.unwrap_or_default());
    let project = api.project_with(&project, &environment)?;
    let segments = project.segments_in(&environment).filter(|segment| segment.stored.key > after);
    let how = reader.shown(&project.key, &environment);
    let shown = |segment: &&Arc<SegmentState>| shown::segment(segment, how);
    Ok(Json(page("segments", segments, limit, |segment| segment.stored.key.clone(), shown)))
}

/// Shows a segment, with a page of its targeting keys; to AI agents, from staging on, only how many there are.
#[utoipa::path(get, path = "/api/v1/projects/{project}/environments/{environment}/segments/{segment}", tag = "segments",
    params(("project" = String, Path, description = "Key of the project"),
           ("environment" = String, Path, description = "Key of the environment"),
           ("segment" = String, Path, description = "Key of the segment"), KeyQuery),
    responses((status = 200, description = "The segment", body = ref("#/components/schemas/SegmentView"))))]
pub async fn show_segment(
    State(api): State<Api>,
    Path((project, environment, segment)): Path<(String, String, String)>,
    reader: Reader,
    Query(query): Query<KeyQuery>,
) -> Result<Json<Value>, Problem> {
    let limit = limit(query.limit)?;
    let project = api.project_with(&project, &environment)?;
    let found = project.segment(&environment, &segment).ok_or_else(|| Problem::not_found("segment", &segment))?;
    let how = reader.shown(&project.key, &environment);
    let mut shown = shown::segment(found, how);
    if how == Shown::WithoutKeys {
        return Ok(Json(shown));
    }
    let mut next = None;
    for (list, name, keys) in
        [(SegmentList::Included, "included", &found.included), (SegmentList::Excluded, "excluded", &found.excluded)]
    {
        if query.list.is_some_and(|only| only != list) {
            continue;
        }
        let after = query.after.as_deref();
        // One more than the page, the least of those after `after`, without sorting a hundred thousand.
        let mut least = std::collections::BinaryHeap::new();
        for key in keys.iter().filter(|key| after.is_none_or(|after| *key > after)) {
            least.push(key);
            if least.len() > limit + 1 {
                least.pop();
            }
        }
        let mut least = least.into_sorted_vec();
        if least.len() > limit {
            least.truncate(limit);
            // Both lists go on after the same key: the one that is behind decides.
            let last = least.last().map(|key| (*key).to_owned());
            next = match (next, last) {
                (Some(one), Some(other)) => Some(std::cmp::min::<String>(one, other)),
                (one, other) => one.or(other),
            };
        }
        shown[name] = json!(least);
    }
    if let Some(next) = &next {
        for name in ["included", "excluded"] {
            if let Some(keys) = shown[name].as_array_mut() {
                keys.retain(|key| key.as_str().is_some_and(|key| key <= next.as_str()));
            }
        }
    }
    shown["next"] = json!(next);
    Ok(Json(shown))
}
