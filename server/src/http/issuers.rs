//! `/api/v1/issuers`: whose identity tokens buy tokens.

use std::collections::BTreeMap;

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
use super::projects::PageQuery;
use super::tokens::NewScope;
use super::write::Write;
use crate::identity::DirectoryEdit;
use crate::identity::directory::TrustedIssuer;
use crate::policy::PrincipalKind;

/// How long a bought token lives where nobody says: a quarter of an hour, in seconds.
const LIFETIME_S: u64 = 15 * 60;

/// The operations, for the API's description.
#[derive(utoipa::OpenApi)]
#[openapi(paths(list_issuers, trust_issuer, distrust_issuer))]
pub struct Operations;

/// The routes, behind authentication and the policies.
pub fn routes() -> Router<Api> {
    Router::new()
        .route("/api/v1/issuers", get(list_issuers).post(trust_issuer))
        .route("/api/v1/issuers/{id}", delete(distrust_issuer))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct NewTrust {
    issuer: String,
    audience: String,
    claims: BTreeMap<String, String>,
    principal: String,
    #[serde(default)]
    scope: NewScope,
    lifetime_s: Option<u64>,
}

/// Lists trusted issuers, by id.
#[utoipa::path(get, path = "/api/v1/issuers", tag = "access", params(PageQuery),
    responses((status = 200, description = "A page of trusted issuers", body = ref("#/components/schemas/IssuerPage"))))]
pub async fn list_issuers(State(api): State<Api>, Query(query): Query<PageQuery>) -> Result<Json<Value>, Problem> {
    let (limit, after, world) = (limit(query.limit)?, query.after.unwrap_or_default(), api.world());
    let issuers = world.directory.issuers.values().filter(|trust| trust.id > after);
    Ok(Json(page("issuers", issuers, limit, |trust| trust.id.clone(), |trust| view(&api, trust))))
}

/// Lets identity tokens of an issuer, with these claims, buy tokens of a service account. A claim's value may end with `*`,
/// which stands for anything.
#[utoipa::path(post, path = "/api/v1/issuers", tag = "access",
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes it safe to send the request again within 24 hours")),
    request_body(content = ref("#/components/schemas/IssuerNew")),
    responses((status = 200, description = "The trust", body = ref("#/components/schemas/Issuer"))))]
pub async fn trust_issuer(State(api): State<Api>, write: Write) -> Result<Response, Problem> {
    let body: NewTrust = write.body.read()?;
    let edit = DirectoryEdit::TrustIssuer {
        id: String::new(),
        issuer: body.issuer,
        audience: body.audience,
        claims: body.claims,
        principal: api.principal_id(&body.principal),
        scope: body.scope.scope(PrincipalKind::Service)?,
        lifetime_s: body.lifetime_s.unwrap_or(LIFETIME_S),
    };
    let outcome = submit_edit(&api, write, "Trust an issuer".to_owned(), edit).await?;
    let (DirectoryEdit::TrustIssuer { id, issuer, audience, claims, principal, scope, lifetime_s }, created_at) =
        made(&outcome)?
    else {
        return Err(Problem::internal("the entry of a trust holds another edit"));
    };
    let trust = TrustedIssuer { id, issuer, audience, claims, principal, scope, lifetime_s, created_at };
    Ok(answer_with(&outcome, view(&api, &trust)))
}

/// Ends a trust. Tokens bought under it live on for the minutes they have, unless they are revoked.
#[utoipa::path(delete, path = "/api/v1/issuers/{id}", tag = "access",
    params(("id" = String, Path, description = "Id of the trust")),
    responses((status = 200, description = "What changed", body = ref("#/components/schemas/ChangeOutcome"))))]
pub async fn distrust_issuer(
    State(api): State<Api>,
    Path(id): Path<String>,
    write: Write,
) -> Result<Response, Problem> {
    let comment = format!("End the trust {id}");
    submit_edit(&api, write, comment, DirectoryEdit::DistrustIssuer { id }).await.map(answer)
}

fn view(api: &Api, trust: &TrustedIssuer) -> Value {
    let mut shown = json!(trust);
    shown["principalName"] = api.name_of(&trust.principal).into();
    shown
}
