//! `/api/v1/roles`: who has which role where.

use axum::extract::State;
use axum::response::Response;
use axum::routing::{delete, get};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Api;
use super::changes::answer;
use super::directory::{answer_with, made, submit_edit};
use super::page::{limit, page};
use super::parameters::{Path, Query};
use super::problem::Problem;
use super::write::Write;
use crate::environments::Tier;
use crate::identity::DirectoryEdit;
use crate::identity::directory::RoleBinding;
use crate::policy::Role;

/// The operations, for the API's description.
#[derive(utoipa::OpenApi)]
#[openapi(paths(list_roles, grant_role, revoke_role))]
pub struct Operations;

/// The routes, behind authentication and the policies.
pub fn routes() -> Router<Api> {
    Router::new()
        .route("/api/v1/roles", get(list_roles).post(grant_role))
        .route("/api/v1/roles/{id}", delete(revoke_role))
}

/// Which roles to list.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct RoleQuery {
    /// Those of this person: id or account name.
    pub principal: Option<String>,
    /// Those of this group.
    pub group: Option<String>,
    /// This role.
    #[param(value_type = Option<String>)]
    pub role: Option<Role>,
    /// Those that hold in this project, everywhere-roles included.
    pub project: Option<String>,
    /// Most items to answer: 1 to 1,000, 100 by default.
    pub limit: Option<usize>,
    /// Answers items after this one: the `next` of the page before.
    pub after: Option<String>,
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

/// Lists roles given, by id.
#[utoipa::path(get, path = "/api/v1/roles", tag = "access", params(RoleQuery),
    responses((status = 200, description = "A page of roles", body = ref("#/components/schemas/RolePage"))))]
pub async fn list_roles(State(api): State<Api>, Query(query): Query<RoleQuery>) -> Result<Json<Value>, Problem> {
    let (limit, after, world) = (limit(query.limit)?, query.after.unwrap_or_default(), api.world());
    let principal = query.principal.map(|word| api.principal_id(&word));
    let chosen = world.directory.bindings.values().filter(|binding| {
        binding.id > after
            && principal.as_ref().is_none_or(|id| binding.principal.as_ref() == Some(id))
            && query.group.as_ref().is_none_or(|group| binding.group.as_ref() == Some(group))
            && query.role.is_none_or(|role| binding.role == role)
            && query.project.as_ref().is_none_or(|key| binding.project.as_ref().is_none_or(|of| of == key))
    });
    Ok(Json(page("roles", chosen, limit, |binding| binding.id.clone(), |binding| view(&api, binding))))
}

/// Gives a person or a group a role, in a project or all, in some tiers or all.
#[utoipa::path(post, path = "/api/v1/roles", tag = "access",
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes it safe to send the request again within 24 hours")),
    request_body(content = ref("#/components/schemas/RoleGrant")),
    responses((status = 200, description = "The role given", body = ref("#/components/schemas/Role"))))]
pub async fn grant_role(State(api): State<Api>, write: Write) -> Result<Response, Problem> {
    let NewRole { principal, group, role, project, tiers } = write.body.read()?;
    let principal = principal.map(|word| api.principal_id(&word));
    let edit = DirectoryEdit::GrantRole { id: String::new(), principal, group, role, project, tiers };
    let outcome = submit_edit(&api, write, format!("Grant the role {}", role.as_str()), edit).await?;
    let (DirectoryEdit::GrantRole { id, principal, group, role, project, tiers }, created_at) = made(&outcome)? else {
        return Err(Problem::internal("the entry of a granted role holds another edit"));
    };
    let binding = RoleBinding { id, principal, group, role, project, tiers, created_at };
    Ok(answer_with(&outcome, view(&api, &binding)))
}

/// Takes a role away, at once. The last role of an administrator stays.
#[utoipa::path(delete, path = "/api/v1/roles/{id}", tag = "access",
    params(("id" = String, Path, description = "Id of the role given")),
    responses((status = 200, description = "What changed", body = ref("#/components/schemas/ChangeOutcome"))))]
pub async fn revoke_role(State(api): State<Api>, Path(id): Path<String>, write: Write) -> Result<Response, Problem> {
    let comment = format!("Revoke the role {id}");
    submit_edit(&api, write, comment, DirectoryEdit::RevokeRole { id }).await.map(answer)
}

fn view(api: &Api, binding: &RoleBinding) -> Value {
    let mut shown = json!(binding);
    if let Some(principal) = &binding.principal {
        shown["principalName"] = api.name_of(principal).into();
    }
    shown
}
