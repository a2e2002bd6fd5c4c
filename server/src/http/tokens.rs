//! `/api/v1/tokens`: credentials of service accounts and AI agents.

use axum::extract::State;
use axum::response::Response;
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Api;
use super::changes::answer;
use super::directory::{answer_with, credential, deadline, end, made, submit_edit};
use super::page::{limit, page};
use super::parameters::{Path, Query};
use super::problem::{Fault, Problem};
use super::write::{Write, invalid};
use crate::identity::directory::{MAX_TOKEN_LIFE_MS, Scope, Token};
use crate::identity::{Credential, CredentialKind, DirectoryEdit};
use crate::policy::{Group, PrincipalKind};

/// How long a token lives where nobody says: 90 days, in milliseconds.
const TOKEN_LIFE_MS: u64 = 90 * 24 * 60 * 60 * 1_000;

/// The operations, for the API's description.
#[derive(utoipa::OpenApi)]
#[openapi(paths(list_tokens, create_token, rotate_token, revoke_token))]
pub struct Operations;

/// The routes, behind authentication and the policies.
pub fn routes() -> Router<Api> {
    Router::new()
        .route("/api/v1/tokens", get(list_tokens).post(create_token))
        .route("/api/v1/tokens/{id}", delete(revoke_token))
        .route("/api/v1/tokens/{id}/rotate", post(rotate_token))
}

/// Whether a token opens anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum TokenState {
    /// It does.
    Live,
    /// It does until its deadline; another has taken its place.
    Rotated,
    /// Its time is over.
    Expired,
    /// It was revoked.
    Revoked,
}

impl TokenState {
    fn of(token: &Token, now: u64) -> Self {
        match (token.revoked_at, token.is_live(now), &token.replaced_by) {
            (Some(_), ..) => Self::Revoked,
            (None, false, _) => Self::Expired,
            (None, true, Some(_)) => Self::Rotated,
            (None, true, None) => Self::Live,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Rotated => "rotated",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        }
    }
}

/// Which tokens to list.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub struct TokenQuery {
    /// Those of this service account or AI agent: id or name.
    pub principal: Option<String>,
    /// Those in this state: live, rotated, expired or revoked.
    #[param(value_type = Option<String>)]
    pub state: Option<TokenState>,
    /// Those that are good in this project.
    pub project: Option<String>,
    /// Those that end within 7 days.
    pub expires_soon: Option<bool>,
    /// Most items to answer: 1 to 1,000, 100 by default.
    pub limit: Option<usize>,
    /// Answers items after this one: the `next` of the page before.
    pub after: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct NewToken {
    principal: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    scope: NewScope,
    expires_at: Option<u64>,
    expires_in_minutes: Option<u64>,
}

/// A scope as callers write it: an AI agent's may leave out what it may do.
#[derive(Default, Deserialize)]
pub(super) struct NewScope {
    project: Option<String>,
    #[serde(default)]
    environments: Vec<String>,
    actions: Option<Vec<String>>,
    flag: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rotation {
    overlap_minutes: Option<u64>,
    expires_at: Option<u64>,
    expires_in_minutes: Option<u64>,
}

impl NewScope {
    /// The scope for a principal of this kind.
    pub(super) fn scope(self, kind: PrincipalKind) -> Result<Scope, Problem> {
        let Self { project, environments, actions, flag } = self;
        let of_agents =
            || [Group::Read, Group::Edit, Group::Delete, Group::Request].map(|group| group.as_str().to_owned());
        let actions = match (actions, kind) {
            (Some(actions), _) => actions,
            (None, PrincipalKind::Agent) => of_agents().to_vec(),
            (None, _) => {
                let detail = "say what the token may do: actions, as \"turnFlagOff\", or groups of them: read, edit, delete, request";
                return Err(invalid(vec![Fault::new("/scope/actions", "missingField", detail)]));
            }
        };
        Ok(Scope { project, environments, actions, flag })
    }
}

/// Lists tokens, by id, those that ended among them. Their credentials are not stored.
#[utoipa::path(get, path = "/api/v1/tokens", tag = "access", params(TokenQuery),
    responses((status = 200, description = "A page of tokens", body = ref("#/components/schemas/TokenPage"))))]
pub async fn list_tokens(State(api): State<Api>, Query(query): Query<TokenQuery>) -> Result<Json<Value>, Problem> {
    let (limit, after, world) = (limit(query.limit)?, query.after.unwrap_or_default(), api.world());
    let principal = query.principal.map(|word| api.principal_id(&word));
    let now = api.clock.now_ms();
    let chosen = world.directory.tokens.values().filter(|token| {
        token.id > after
            && principal.as_ref().is_none_or(|id| token.principal == *id)
            && query.state.is_none_or(|state| TokenState::of(token, now) == state)
            && query.project.as_ref().is_none_or(|key| token.scope.project.as_ref().is_none_or(|of| of == key))
            && query.expires_soon.is_none_or(|soon| token.expires_soon(now) == soon)
    });
    Ok(Json(page("tokens", chosen, limit, |token| token.id.clone(), |token| view(&api, token))))
}

/// Creates a token of a service account or an AI agent and answers its credential, which is shown this once and never stored.
/// Sent again with the same Idempotency-Key, the request answers the same credential.
#[utoipa::path(post, path = "/api/v1/tokens", tag = "access",
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes it safe to send the request again within 24 hours")),
    request_body(content = ref("#/components/schemas/TokenNew")),
    responses((status = 200, description = "The token and its credential", body = ref("#/components/schemas/TokenCreated"))))]
pub async fn create_token(State(api): State<Api>, write: Write) -> Result<Response, Problem> {
    let body: NewToken = write.body.read()?;
    let principal = api.principal_id(&body.principal);
    let kind = kind_of(&api, &principal);
    let credential = credential(&api, credential_kind(kind), &write);
    let edit = DirectoryEdit::CreateToken {
        id: String::new(),
        principal: principal.clone(),
        name: body.name,
        scope: body.scope.scope(kind)?,
        expires_at: end(&api, body.expires_in_minutes, body.expires_at, TOKEN_LIFE_MS)?,
        hash: credential.hash().to_hex(),
    };
    let outcome = submit_edit(&api, write, format!("Create a token of {principal}"), edit).await?;
    let (DirectoryEdit::CreateToken { id, principal, name, scope, expires_at, hash }, created_at) = made(&outcome)?
    else {
        return Err(Problem::internal("the entry of a created token holds another edit"));
    };
    let shown = json!({
        "id": id, "token": revealed(&credential, &hash)?, "principal": principal, "name": name, "scope": scope,
        "createdAt": created_at, "expiresAt": expires_at,
    });
    Ok(answer_with(&outcome, shown))
}

/// Replaces a token by a new one of the same scope, whose credential is shown this once. The old one lives on beside it, for a
/// day by default.
#[utoipa::path(post, path = "/api/v1/tokens/{id}/rotate", tag = "access",
    params(("id" = String, Path, description = "Id of the token"),
           ("Idempotency-Key" = Option<String>, Header, description = "Makes it safe to send the request again within 24 hours")),
    request_body(content = ref("#/components/schemas/TokenRotation")),
    responses((status = 200, description = "The new token and its credential", body = ref("#/components/schemas/TokenCreated"))))]
pub async fn rotate_token(State(api): State<Api>, Path(id): Path<String>, write: Write) -> Result<Response, Problem> {
    let body: Option<Rotation> = write.body.read()?;
    let Rotation { overlap_minutes, expires_at, expires_in_minutes } = body.unwrap_or_default();
    let old = api.world().directory.tokens.get(&id).cloned();
    let kind = old.as_ref().map_or(PrincipalKind::Service, |token| kind_of(&api, &token.principal));
    let credential = credential(&api, credential_kind(kind), &write);
    // The new one lives as long as the old one was made to.
    let life = old.as_ref().map_or(TOKEN_LIFE_MS, |token| token.expires_at.saturating_sub(token.created_at));
    let edit = DirectoryEdit::RotateToken {
        id: id.clone(),
        successor: String::new(),
        hash: credential.hash().to_hex(),
        expires_at: end(&api, expires_in_minutes, expires_at, life.min(MAX_TOKEN_LIFE_MS))?,
        deadline: deadline(&api, overlap_minutes),
    };
    let outcome = submit_edit(&api, write, format!("Rotate the token {id}"), edit).await?;
    let (DirectoryEdit::RotateToken { id, successor, hash, expires_at, deadline }, created_at) = made(&outcome)? else {
        return Err(Problem::internal("the entry of a rotated token holds another edit"));
    };
    let token = revealed(&credential, &hash)?;
    let Some(old) = old else { return Err(Problem::not_found("token", &id)) };
    let shown = json!({
        "id": successor, "token": token, "principal": old.principal, "name": old.name, "scope": old.scope,
        "createdAt": created_at, "expiresAt": expires_at, "replaces": id, "oldEndsAt": deadline.min(old.expires_at),
    });
    Ok(answer_with(&outcome, shown))
}

/// Revokes a token, at once.
#[utoipa::path(delete, path = "/api/v1/tokens/{id}", tag = "access",
    params(("id" = String, Path, description = "Id of the token")),
    responses((status = 200, description = "What changed", body = ref("#/components/schemas/ChangeOutcome"))))]
pub async fn revoke_token(State(api): State<Api>, Path(id): Path<String>, write: Write) -> Result<Response, Problem> {
    let comment = format!("Revoke the token {id}");
    submit_edit(&api, write, comment, DirectoryEdit::RevokeToken { id }).await.map(answer)
}

/// The credential's text, if its hash is the one that was journaled: a credential made before the server's master key was
/// changed cannot be shown again, and must not be shown wrongly.
pub(super) fn revealed<'a>(credential: &'a Credential, journaled: &str) -> Result<&'a str, Problem> {
    if credential.hash().to_hex() == journaled {
        Ok(credential.reveal())
    } else {
        Err(Problem::internal("the entry of a created credential does not hold its hash"))
    }
}

fn kind_of(api: &Api, principal: &str) -> PrincipalKind {
    api.world().directory.principals.get(principal).map_or(PrincipalKind::Service, |principal| principal.kind)
}

fn credential_kind(kind: PrincipalKind) -> CredentialKind {
    if kind == PrincipalKind::Agent { CredentialKind::Agent } else { CredentialKind::Service }
}

/// A token, as callers read it: without its hash.
fn view(api: &Api, token: &Token) -> Value {
    let now = api.clock.now_ms();
    let mut shown = json!(token);
    if let Some(fields) = shown.as_object_mut() {
        fields.remove("hash");
    }
    shown["state"] = TokenState::of(token, now).as_str().into();
    shown["expiresSoon"] = token.expires_soon(now).into();
    shown["principalName"] = api.name_of(&token.principal).into();
    api.show_use(&token.id, &mut shown);
    shown
}

impl Api {
    /// Adds when and from where a credential was last used, if it was.
    pub(super) fn show_use(&self, credential: &str, shown: &mut Value) {
        if let Some(used) = self.uses.last(credential) {
            shown["lastUsedAt"] = used.last_at.into();
            if let Some(address) = used.addresses.last() {
                shown["lastUsedFrom"] = address.to_string().into();
            }
        }
    }
}
