//! `/api/v1/roles`: who has which role where.

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::post;
use serde::Deserialize;

use super::Api;
use super::changes::{answer, submit};
use super::problem::Problem;
use super::write::Write;
use crate::changes::{ChangeDraft, Instruction};
use crate::environments::Tier;
use crate::identity::DirectoryEdit;
use crate::policy::Role;

/// The operations, for the API's description.
#[derive(utoipa::OpenApi)]
#[openapi(paths(create_role))]
pub struct Operations;

/// The routes, behind authentication and the policies.
pub fn routes() -> Router<Api> {
    Router::new().route("/api/v1/roles", post(create_role))
}

#[derive(Deserialize)]
struct NewRole {
    principal: Option<String>,
    group: Option<String>,
    role: Role,
    project: Option<String>,
    #[serde(default)]
    tiers: Vec<Tier>,
}

/// Gives a person or a group a role.
#[utoipa::path(post, path = "/api/v1/roles", tag = "roles",
    request_body(content = ref("#/components/schemas/RoleNew")),
    responses((status = 200, description = "What changed", body = ref("#/components/schemas/ChangeOutcome"))))]
pub async fn create_role(State(api): State<Api>, write: Write) -> Result<Response, Problem> {
    let NewRole { principal, group, role, project, tiers } = write.body.read()?;
    let principal = principal.map(|principal| api.person(&principal));
    let edit = DirectoryEdit::GrantRole { id: String::new(), principal, group, role, project, tiers };
    let draft = ChangeDraft {
        instructions: vec![Instruction::Directory(Box::new(edit))],
        idempotency: write.idempotency.clone(),
        ..ChangeDraft::default()
    };
    submit(&api, write, draft).await.map(answer)
}
