//! `/api/v1/projects`: projects.

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
use super::shown::Reader;
use super::write::Write;
use crate::changes::{ChangeDraft, Instruction};
use crate::state::Project;

/// Which page of a list.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// Most items to answer: 1 to 1,000, 100 by default.
    pub limit: Option<usize>,
    /// Answers items after this one: the `next` of the page before.
    pub after: Option<String>,
}

#[derive(Debug, Deserialize)]
struct NewProject {
    key: String,
    #[serde(default)]
    name: String,
}

/// Lists the projects in which the caller may see something, by key.
#[utoipa::path(get, path = "/api/v1/projects", tag = "projects", params(PageQuery),
    responses((status = 200, description = "A page of projects", body = ref("#/components/schemas/ProjectPage"))))]
pub async fn list_projects(
    State(api): State<Api>,
    reader: Reader,
    Query(query): Query<PageQuery>,
) -> Result<Json<Value>, Problem> {
    let (limit, after, world) = (limit(query.limit)?, query.after.unwrap_or_default(), api.world());
    let projects = world.projects.values().filter(|project| project.key > after);
    let projects = projects.filter(|project| reader.sees_something_in(project));
    Ok(Json(page("projects", projects, limit, |project| project.key.clone(), |project| view(project))))
}

/// Creates a project, with an environment in each tier.
#[utoipa::path(post, path = "/api/v1/projects", tag = "projects",
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes it safe to send the request again within 24 hours")),
    request_body(content = ref("#/components/schemas/NewProject")),
    responses((status = 200, description = "What changed", body = ref("#/components/schemas/ChangeOutcome"))))]
pub async fn create_project(State(api): State<Api>, write: Write) -> Result<Response, Problem> {
    let NewProject { key, name } = write.body.read()?;
    let draft = ChangeDraft {
        project: key,
        instructions: vec![Instruction::CreateProject { name }],
        idempotency: write.idempotency.clone(),
        ..ChangeDraft::default()
    };
    submit(&api, write, draft).await.map(answer)
}

/// Shows a project, with the environments that the caller may see.
#[utoipa::path(get, path = "/api/v1/projects/{project}", tag = "projects",
    params(("project" = String, Path, description = "Key of the project")),
    responses((status = 200, description = "The project", body = ref("#/components/schemas/Project"))))]
pub async fn show_project(
    State(api): State<Api>,
    Path(project): Path<String>,
    reader: Reader,
) -> Result<Json<Value>, Problem> {
    let project = api.project(&project)?;
    let mut shown = view(&project);
    shown["flags"] = project.flags.len().into();
    shown["segments"] = project.segments.keys().filter(|(environment, _)| reader.sees(environment)).count().into();
    let environments = project.environments.values().filter(|environment| reader.sees(&environment.key));
    shown["environments"] = environments.map(|environment| json!(**environment)).collect();
    Ok(Json(shown))
}

fn view(project: &Project) -> Value {
    json!({"key": project.key, "name": project.name, "createdAt": project.created_at})
}
