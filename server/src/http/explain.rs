//! `POST …/environments/{environment}/explain`: what a context gets, and why.

use axum::Json;
use axum::extract::State;
use guidon_sdk::eval::explain;
use guidon_sdk::model::Context;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Api;
use super::parameters::Path;
use super::problem::Problem;
use super::write::JsonBody;
use crate::flags::snapshot_of;

#[derive(Debug, Deserialize)]
struct Question {
    flag: String,
    #[serde(default)]
    context: Context<'static>,
}

/// Explains what a flag serves a context: value, variation, reason, and every rule with why it did or did not match.
#[utoipa::path(post, path = "/api/v1/projects/{project}/environments/{environment}/explain", tag = "environments",
    params(("project" = String, Path, description = "Key of the project"),
           ("environment" = String, Path, description = "Key of the environment")),
    request_body(content = ref("#/components/schemas/Question")),
    responses((status = 200, description = "The evaluation, step by step", body = ref("#/components/schemas/Explanation"))))]
pub async fn explain_flag(
    State(api): State<Api>,
    Path((project, environment)): Path<(String, String)>,
    body: JsonBody,
) -> Result<Json<Value>, Problem> {
    let Question { flag, context } = body.read()?;
    let world = api.world();
    let project = api.project_with(&project, &environment)?;
    if !project.flags.contains_key(&flag) {
        return Err(Problem::not_found("flag", &flag));
    }
    let snapshot = snapshot_of(&project, &environment, &flag).map_err(Problem::internal)?;
    let mut shown = json!(explain(snapshot.ruleset(), &flag, &context));
    // The outcome first, then how it came about.
    let mut trace = json!({});
    for step in ["on", "prerequisites", "targets", "rules", "rollout"] {
        if let Some(step_value) = shown.as_object_mut().and_then(|shown| shown.remove(step)) {
            trace[step] = step_value;
        }
    }
    shown["slot"] = trace["rollout"]["slot"].clone();
    shown["trace"] = trace;
    shown["revision"] = world.revision.into();
    Ok(Json(shown))
}
