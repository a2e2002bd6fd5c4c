//! `/api/v1/projects/{project}/environments/{environment}/instances`: who runs what, and what is odd about it.

use axum::extract::State;
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Api;
use super::page::{limit, page};
use super::parameters::{Path, Query};
use super::problem::{Code, Fault, Problem};
use super::sdk::SdkDoor;
use crate::environments::{Audience, Tier};
use crate::instances::{Instance, compare};

/// Which page.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct InstanceQuery {
    /// Most instances of the page: 1 to 1,000, 100 by default.
    limit: Option<usize>,
    /// Answers instances after this one: the `next` of the page before.
    after: Option<String>,
}

/// The operations, for the API's description.
#[derive(utoipa::OpenApi)]
#[openapi(paths(list_instances))]
pub struct Operations;

/// Where an instance stands in the list.
fn place(instance: &Instance) -> (u64, &str) {
    (instance.info.since, &instance.info.instance)
}

/// Lists the SDK instances that are connected to this server with a server's key, oldest first: what each says it runs, in
/// which of that it differs from its peers and, in production, which commit or image no staging environment has seen. What an
/// instance says is what its build told it: it shows mistakes, not attacks.
#[utoipa::path(get, path = "/api/v1/projects/{project}/environments/{environment}/instances", tag = "environments",
    params(("project" = String, Path, description = "Key of the project"),
           ("environment" = String, Path, description = "Key of the environment"), InstanceQuery),
    responses((status = 200, description = "A page of instances, and the server's `revision`",
        body = ref("#/components/schemas/InstancePage"))))]
pub async fn list_instances(
    State(api): State<Api>,
    Extension(door): Extension<SdkDoor>,
    Path((project, environment)): Path<(String, String)>,
    Query(query): Query<InstanceQuery>,
) -> Result<Json<Value>, Problem> {
    let limit = limit(query.limit)?;
    let after = query.after.as_deref().map(parse_place).transpose()?;
    let state = api.project_with(&project, &environment)?;
    let mut connected = door.hub.connections(&project, &environment);
    connected.retain(|info| info.audience == Audience::Server);
    let is_production =
        state.environments.get(&environment).is_some_and(|environment| environment.tier == Tier::Production);
    let staging = state.environments.values().filter(|other| other.tier == Tier::Staging);
    let validated =
        is_production.then(|| door.deployments.seen_in(&project, staging.map(|environment| environment.key.as_str())));
    let marked = compare(connected, validated.as_ref());
    let wanted = marked.into_iter().filter(|one| after.as_ref().is_none_or(|(since, id)| place(one) > (*since, id)));
    let key = |one: &Instance| format!("{}.{}", one.info.since, one.info.instance);
    let mut answer = page("instances", wanted, limit, key, |one| json!(one));
    answer["revision"] = json!(door.hub.world().revision);
    Ok(Json(answer))
}

fn parse_place(after: &str) -> Result<(u64, String), Problem> {
    let parts = after.split_once('.').and_then(|(since, id)| Some((since.parse().ok()?, id.to_owned())));
    parts.ok_or_else(|| {
        let fault = Fault::new("", "invalidParameter", "after: it is the `next` of a page".to_owned());
        Problem::new(Code::InvalidRequest, "A parameter of the query is not right.").with_errors(vec![fault])
    })
}
