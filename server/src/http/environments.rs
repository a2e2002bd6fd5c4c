//! `/api/v1/projects/{project}/environments`: environments.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Api;
use super::changes::{answer, submit};
use super::page::{limit, page};
use super::parameters::{Path, Query};
use super::problem::Problem;
use super::projects::PageQuery;
use super::shown::Reader;
use super::write::Write;
use crate::changes::{ChangeDraft, Instruction};
use crate::environments::Tier;

#[derive(Debug, Deserialize)]
struct NewEnvironment {
    key: String,
    #[serde(default)]
    name: String,
    tier: Tier,
}

/// Lists the environments of a project that the caller may see, by key.
#[utoipa::path(get, path = "/api/v1/projects/{project}/environments", tag = "environments",
    params(("project" = String, Path, description = "Key of the project"), PageQuery),
    responses((status = 200, description = "A page of environments", body = ref("#/components/schemas/EnvironmentPage"))))]
pub async fn list_environments(
    State(api): State<Api>,
    Path(project): Path<String>,
    reader: Reader,
    Query(query): Query<PageQuery>,
) -> Result<Json<Value>, Problem> {
    let (limit, after, project) = (limit(query.limit)?, query.after.unwrap_or_default(), api.project(&project)?);
    let environments = project.environments.values().filter(|environment| environment.key > after);
    let environments = environments.filter(|environment| reader.sees(&environment.key));
    let shown = |environment: &&std::sync::Arc<crate::environments::Environment>| json!(***environment);
    Ok(Json(page("environments", environments, limit, |environment| environment.key.clone(), shown)))
}

/// Adds an environment to a project.
#[utoipa::path(post, path = "/api/v1/projects/{project}/environments", tag = "environments",
    params(("project" = String, Path, description = "Key of the project"),
           ("Idempotency-Key" = Option<String>, Header, description = "Makes it safe to send the request again within 24 hours")),
    request_body(content = ref("#/components/schemas/NewEnvironment")),
    responses((status = 200, description = "What changed", body = ref("#/components/schemas/ChangeOutcome"))))]
pub async fn create_environment(
    State(api): State<Api>,
    Path(project): Path<String>,
    write: Write,
) -> Result<Response, Problem> {
    let NewEnvironment { key, name, tier } = write.body.read()?;
    let draft = ChangeDraft {
        project,
        instructions: vec![Instruction::CreateEnvironment { key, name, tier }],
        idempotency: write.idempotency.clone(),
        ..ChangeDraft::default()
    };
    submit(&api, write, draft).await.map(answer)
}
