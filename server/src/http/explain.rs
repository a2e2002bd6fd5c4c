//! `POST …/environments/{environment}/explain`: what a context gets, and why.

use std::collections::{BTreeMap, BTreeSet};

use axum::Json;
use axum::extract::State;
use guidon_sdk::eval::explain;
use guidon_sdk::model::{Context, EnvironmentFlag, Op, Segment};
use guidon_sdk::protocol::Revision;
use guidon_sdk::snapshot::Snapshot;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Api;
use super::parameters::Path;
use super::problem::Problem;
use super::write::JsonBody;
use crate::environments::Audience;
use crate::state::Project;

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

/// The flag, what it requires, and the segments those refer to: nothing else decides. A snapshot, because only that keeps the
/// definitions, whose words the explanation repeats.
fn snapshot_of(project: &Project, environment: &str, flag: &str) -> Result<Snapshot, serde_json::Error> {
    let mut flags: BTreeMap<String, EnvironmentFlag> = BTreeMap::new();
    let mut wanted = vec![flag.to_owned()];
    while let Some(key) = wanted.pop() {
        if flags.contains_key(&key) {
            continue;
        }
        let found = project.flags.get(&key).and_then(|state| state.in_environment(environment, Audience::Server));
        if let Some(found) = found {
            wanted.extend(found.config.prerequisites.iter().map(|prerequisite| prerequisite.flag.clone()));
            flags.insert(key, found);
        }
    }
    let clauses = flags.values().flat_map(|flag| &flag.config.rules).flat_map(|rule| &rule.clauses);
    let keys: BTreeSet<&str> = clauses
        .filter(|clause| clause.op == Op::Segment)
        .flat_map(|clause| clause.values.iter().filter_map(Value::as_str))
        .collect();
    let segments: Vec<Segment> =
        keys.into_iter().filter_map(|key| Some(project.segment(environment, key)?.published())).collect();
    let flags: Vec<EnvironmentFlag> = flags.into_values().collect();
    let revision = Revision { history: String::new(), number: 0 };
    Snapshot::from_definitions(revision, "", environment, &flags, &segments)
}
