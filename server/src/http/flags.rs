//! `/api/v1/projects/{project}/flags`: flags, to read.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::Value;

use super::Api;
use super::page::{limit, page};
use super::parameters::{Path, Query};
use super::problem::Problem;
use super::shown::Reader;
use crate::state::FlagState;

/// Which flags.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct FlagQuery {
    /// Most flags to answer: 1 to 1,000, 100 by default.
    limit: Option<usize>,
    /// Answers flags after this key: the `next` of the page before.
    after: Option<String>,
    /// Only flags with this tag.
    tag: Option<String>,
    /// Only flags whose key, name, description or owner contains this text, in whatever case.
    query: Option<String>,
    /// Only archived flags (`true`), or only others (`false`, the default).
    archived: Option<bool>,
    /// Answers only this environment's part of each flag.
    environment: Option<String>,
}

/// Lists flags, by key, each with the environments that the caller may see.
#[utoipa::path(get, path = "/api/v1/projects/{project}/flags", tag = "flags",
    params(("project" = String, Path, description = "Key of the project"), FlagQuery),
    responses((status = 200, description = "A page of flags", body = ref("#/components/schemas/FlagPage"))))]
pub async fn list_flags(
    State(api): State<Api>,
    Path(project): Path<String>,
    reader: Reader,
    Query(query): Query<FlagQuery>,
) -> Result<Json<Value>, Problem> {
    let (limit, project) = (limit(query.limit)?, api.project(&project)?);
    if let Some(environment) = &query.environment {
        reader.check_named(&project, environment)?;
    }
    let after = query.after.clone().unwrap_or_default();
    let wanted = query.query.as_deref().map(str::to_lowercase);
    let flags = project
        .flags
        .range(after.clone()..)
        .filter(|(key, _)| **key != after || query.after.is_none())
        .map(|(_, flag)| flag)
        .filter(|flag| matches(flag, &query, wanted.as_deref()));
    let only = query.environment.as_deref();
    let shown = |flag: &&std::sync::Arc<FlagState>| reader.flag(&project, flag, only);
    Ok(Json(page("flags", flags, limit, |flag| flag.published.key.clone(), shown)))
}

/// Shows a flag, with every environment that the caller may see.
#[utoipa::path(get, path = "/api/v1/projects/{project}/flags/{flag}", tag = "flags",
    params(("project" = String, Path, description = "Key of the project"), ("flag" = String, Path, description = "Key of the flag")),
    responses((status = 200, description = "The flag", body = ref("#/components/schemas/FlagView"))))]
pub async fn show_flag(
    State(api): State<Api>,
    Path((project, flag)): Path<(String, String)>,
    reader: Reader,
) -> Result<Json<Value>, Problem> {
    let project = api.project(&project)?;
    let flag = project.flags.get(&flag).ok_or_else(|| Problem::not_found("flag", &flag))?;
    Ok(Json(reader.flag(&project, flag, None)))
}

fn matches(flag: &FlagState, query: &FlagQuery, wanted: Option<&str>) -> bool {
    let flag = &flag.published;
    let contains = |wanted: &str| {
        let texts = [Some(&flag.key), Some(&flag.name), Some(&flag.description), flag.owner.as_ref()];
        texts.into_iter().flatten().any(|text| text.to_lowercase().contains(wanted))
    };
    flag.archived == query.archived.unwrap_or(false)
        && query.tag.as_ref().is_none_or(|tag| flag.tags.contains(tag))
        && wanted.is_none_or(contains)
}
