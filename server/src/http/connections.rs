//! `/api/v1/projects/{project}/environments/{environment}/connections`: who is connected, and how far.

use axum::extract::State;
use axum::{Extension, Json};
use serde_json::{Value, json};

use super::Api;
use super::parameters::Path;
use super::problem::Problem;
use super::sdk::SdkDoor;

/// Lists the SDK instances that are connected to this server, and the revision each has applied.
#[utoipa::path(get, path = "/api/v1/projects/{project}/environments/{environment}/connections", tag = "environments",
    params(("project" = String, Path, description = "Key of the project"),
           ("environment" = String, Path, description = "Key of the environment")),
    responses((status = 200, description = "`connections`, oldest first, and the server's `revision`")))]
pub async fn list_connections(
    State(api): State<Api>,
    Extension(door): Extension<SdkDoor>,
    Path((project, environment)): Path<(String, String)>,
) -> Result<Json<Value>, Problem> {
    api.project_with(&project, &environment)?;
    let connections = door.hub.connections(&project, &environment);
    Ok(Json(json!({"revision": door.hub.world().revision, "connections": connections})))
}
