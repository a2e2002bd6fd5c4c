//! `/api/v1/service-accounts` and `/api/v1/agents`.

use axum::extract::State;
use axum::response::Response;
use axum::routing::{get, patch, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Api;
use super::changes::answer;
use super::directory::{answer_with, end, made, submit_edit, unknown};
use super::page::{limit, page};
use super::parameters::{Path, Query};
use super::problem::Problem;
use super::projects::PageQuery;
use super::write::Write;
use crate::identity::DirectoryEdit;
use crate::identity::directory::Principal;
use crate::policy::{Action, PrincipalKind};

/// How long an AI agent is let in where nobody says: 30 days, in milliseconds.
const AGENT_LIFE_MS: u64 = 30 * 24 * 60 * 60 * 1_000;

/// The operations, for the API's description.
#[derive(utoipa::OpenApi)]
#[openapi(paths(
    list_service_accounts,
    create_service_account,
    update_service_account,
    switch_service_account,
    list_agents,
    create_agent,
    update_agent,
    switch_agent
))]
pub struct Operations;

/// The routes, behind authentication and the policies.
pub fn routes() -> Router<Api> {
    Router::new()
        .route("/api/v1/service-accounts", get(list_service_accounts).post(create_service_account))
        .route("/api/v1/service-accounts/{id}", patch(update_service_account))
        .route("/api/v1/service-accounts/{id}/{step}", post(switch_service_account))
        .route("/api/v1/agents", get(list_agents).post(create_agent))
        .route("/api/v1/agents/{id}", patch(update_agent))
        .route("/api/v1/agents/{id}/{step}", post(switch_agent))
}

#[derive(Deserialize)]
struct NewServiceAccount {
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct NewAgent {
    name: String,
    tool: String,
    #[serde(default)]
    model: String,
    owner: Option<String>,
    expires_at: Option<u64>,
    expires_in_minutes: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AgentEdit {
    name: Option<String>,
    model: Option<String>,
    expires_at: Option<u64>,
    expires_in_minutes: Option<u64>,
}

/// Lists service accounts, by id.
#[utoipa::path(get, path = "/api/v1/service-accounts", tag = "access", params(PageQuery),
    responses((status = 200, description = "A page of service accounts", body = ref("#/components/schemas/ServiceAccountPage"))))]
pub async fn list_service_accounts(
    State(api): State<Api>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Value>, Problem> {
    list(&api, query, "serviceAccounts", PrincipalKind::Service)
}

/// Creates a service account: a program of yours, such as a deployment pipeline. Its tokens say what it may do.
#[utoipa::path(post, path = "/api/v1/service-accounts", tag = "access",
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes it safe to send the request again within 24 hours")),
    request_body(content = ref("#/components/schemas/ServiceAccountNew")),
    responses((status = 200, description = "The service account", body = ref("#/components/schemas/ServiceAccount"))))]
pub async fn create_service_account(State(api): State<Api>, write: Write) -> Result<Response, Problem> {
    let NewServiceAccount { name } = write.body.read()?;
    let edit = DirectoryEdit::CreateServiceAccount { id: String::new(), name };
    create(&api, write, "Create a service account", edit).await
}

/// Renames a service account.
#[utoipa::path(patch, path = "/api/v1/service-accounts/{id}", tag = "access",
    params(("id" = String, Path, description = "Id of the service account")),
    request_body(content = ref("#/components/schemas/ServiceAccountNew")),
    responses((status = 200, description = "What changed", body = ref("#/components/schemas/ChangeOutcome"))))]
pub async fn update_service_account(
    State(api): State<Api>,
    Path(id): Path<String>,
    write: Write,
) -> Result<Response, Problem> {
    let NewServiceAccount { name } = write.body.read()?;
    known(&api, &write, &id, Action::UpdatePrincipal, PrincipalKind::Service)?;
    let edit = DirectoryEdit::UpdatePrincipal { id, name: Some(name), model: None, expires_at: None };
    submit_edit(&api, write, "Rename a service account".to_owned(), edit).await.map(answer)
}

/// Shuts a service account out at once (`disable`), or lets it in again (`enable`).
#[utoipa::path(post, path = "/api/v1/service-accounts/{id}/{step}", tag = "access",
    params(("id" = String, Path, description = "Id of the service account"),
           ("step" = String, Path, description = "`disable` or `enable`")),
    responses((status = 200, description = "What changed", body = ref("#/components/schemas/ChangeOutcome"))))]
pub async fn switch_service_account(
    State(api): State<Api>,
    Path((id, step)): Path<(String, String)>,
    write: Write,
) -> Result<Response, Problem> {
    switch(&api, write, id, &step, PrincipalKind::Service).await
}

/// Lists AI agents, by id.
#[utoipa::path(get, path = "/api/v1/agents", tag = "access", params(PageQuery),
    responses((status = 200, description = "A page of AI agents", body = ref("#/components/schemas/AgentPage"))))]
pub async fn list_agents(State(api): State<Api>, Query(query): Query<PageQuery>) -> Result<Json<Value>, Problem> {
    list(&api, query, "agents", PrincipalKind::Agent)
}

/// Registers an AI agent, which a person answers for: the caller, where no owner is named.
#[utoipa::path(post, path = "/api/v1/agents", tag = "access",
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes it safe to send the request again within 24 hours")),
    request_body(content = ref("#/components/schemas/AgentNew")),
    responses((status = 200, description = "The AI agent", body = ref("#/components/schemas/Agent"))))]
pub async fn create_agent(State(api): State<Api>, write: Write) -> Result<Response, Problem> {
    let body: NewAgent = write.body.read()?;
    let owner = body.owner.map_or_else(|| write.author.actor_id.clone(), |word| api.principal_id(&word));
    let expires_at = end(&api, body.expires_in_minutes, body.expires_at, AGENT_LIFE_MS)?;
    let edit = DirectoryEdit::CreateAgent {
        id: String::new(),
        name: body.name,
        tool: body.tool,
        model: body.model,
        owner,
        expires_at,
    };
    create(&api, write, "Register an AI agent", edit).await
}

/// Renames an AI agent, says which model it uses now, or renews its time.
#[utoipa::path(patch, path = "/api/v1/agents/{id}", tag = "access",
    params(("id" = String, Path, description = "Id of the AI agent")),
    request_body(content = ref("#/components/schemas/AgentEdit")),
    responses((status = 200, description = "What changed", body = ref("#/components/schemas/ChangeOutcome"))))]
pub async fn update_agent(State(api): State<Api>, Path(id): Path<String>, write: Write) -> Result<Response, Problem> {
    let AgentEdit { name, model, expires_at, expires_in_minutes } = write.body.read()?;
    known(&api, &write, &id, Action::UpdatePrincipal, PrincipalKind::Agent)?;
    let is_timed = expires_at.is_some() || expires_in_minutes.is_some();
    let expires_at = is_timed.then(|| end(&api, expires_in_minutes, expires_at, AGENT_LIFE_MS)).transpose()?;
    let edit = DirectoryEdit::UpdatePrincipal { id, name, model, expires_at };
    submit_edit(&api, write, "Edit an AI agent".to_owned(), edit).await.map(answer)
}

/// Shuts an AI agent out at once (`disable`), or lets it in again (`enable`).
#[utoipa::path(post, path = "/api/v1/agents/{id}/{step}", tag = "access",
    params(("id" = String, Path, description = "Id of the AI agent"),
           ("step" = String, Path, description = "`disable` or `enable`")),
    responses((status = 200, description = "What changed", body = ref("#/components/schemas/ChangeOutcome"))))]
pub async fn switch_agent(
    State(api): State<Api>,
    Path((id, step)): Path<(String, String)>,
    write: Write,
) -> Result<Response, Problem> {
    switch(&api, write, id, &step, PrincipalKind::Agent).await
}

fn list(api: &Api, query: PageQuery, name: &str, kind: PrincipalKind) -> Result<Json<Value>, Problem> {
    let (limit, after, world) = (limit(query.limit)?, query.after.unwrap_or_default(), api.world());
    let principals = world.directory.principals.values();
    let chosen = principals.filter(|principal| principal.kind == kind && principal.id > after);
    Ok(Json(page(name, chosen, limit, |principal| principal.id.clone(), |principal| view(api, principal))))
}

async fn create(api: &Api, write: Write, comment: &str, edit: DirectoryEdit) -> Result<Response, Problem> {
    let outcome = submit_edit(api, write, comment.to_owned(), edit).await?;
    let (DirectoryEdit::CreateServiceAccount { id, .. } | DirectoryEdit::CreateAgent { id, .. }, _) = made(&outcome)?
    else {
        return Err(Problem::internal("the entry of a created principal holds another edit"));
    };
    let world = api.world();
    let made = world.directory.principals.get(&id).ok_or_else(|| Problem::not_found("principal", &id))?;
    Ok(answer_with(&outcome, view(api, made)))
}

async fn switch(api: &Api, write: Write, id: String, step: &str, kind: PrincipalKind) -> Result<Response, Problem> {
    let (action, comment) = match step {
        "disable" => (Action::DisablePrincipal, format!("Disable {id}")),
        "enable" => (Action::EnablePrincipal, format!("Enable {id}")),
        _ => return Err(Problem::not_found("step", step)),
    };
    known(api, &write, &id, action, kind)?;
    let edit = match action {
        Action::DisablePrincipal => DirectoryEdit::DisablePrincipal { id },
        _ => DirectoryEdit::EnablePrincipal { id },
    };
    submit_edit(api, write, comment, edit).await.map(answer)
}

/// Refuses the id of what is no principal of this kind.
fn known(api: &Api, write: &Write, id: &str, action: Action, kind: PrincipalKind) -> Result<(), Problem> {
    if api.principal_of(id, kind).is_some() {
        return Ok(());
    }
    let what = if kind == PrincipalKind::Agent { "AI agent" } else { "service account" };
    Err(unknown(api, &write.author, action, what, id))
}

/// A service account or an AI agent, as callers read it.
fn view(api: &Api, principal: &Principal) -> Value {
    let now = api.clock.now_ms();
    let mut shown = json!(principal);
    let is_over = principal.expires_at.is_some_and(|end| end <= now);
    shown["state"] = match (principal.disabled_at, is_over) {
        (Some(_), _) => "disabled",
        (None, true) => "expired",
        (None, false) => "active",
    }
    .into();
    if let Some(owner) = &principal.owner {
        shown["ownerName"] = api.name_of(owner).into();
    }
    shown
}
