//! `…/environments/{environment}/sdk-keys`: credentials of applications.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::HeaderValue;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Api;
use super::changes::{REPLAYED, answer, submit};
use super::directory::{answer_with, credential, deadline};
use super::page::{limit, page};
use super::parameters::{Path, Query};
use super::problem::Problem;
use super::projects::PageQuery;
use super::tokens::revealed;
use super::write::Write;
use crate::changes::{ChangeDraft, Instruction};
use crate::environments::{Audience, SdkKey};
use crate::identity::CredentialKind;
use crate::policy::Action;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rotation {
    overlap_minutes: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct NewSdkKey {
    #[serde(default)]
    name: String,
    #[serde(default = "server")]
    audience: Audience,
}

fn server() -> Audience {
    Audience::Server
}

/// Lists the SDK keys of an environment, by id, revoked ones among them. Their credentials are not stored.
#[utoipa::path(get, path = "/api/v1/projects/{project}/environments/{environment}/sdk-keys", tag = "sdk-keys",
    params(("project" = String, Path, description = "Key of the project"),
           ("environment" = String, Path, description = "Key of the environment"), PageQuery),
    responses((status = 200, description = "A page of SDK keys", body = ref("#/components/schemas/SdkKeyPage"))))]
pub async fn list_sdk_keys(
    State(api): State<Api>,
    Path((project, environment)): Path<(String, String)>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Value>, Problem> {
    let (limit, after) = (limit(query.limit)?, query.after.unwrap_or_default());
    let project = api.project_with(&project, &environment)?;
    let keys = project.sdk_keys.values().filter(|key| key.environment == environment && key.id > after);
    let now = api.clock.now_ms();
    let shown = |key: &&Arc<SdkKey>| {
        let mut shown = json!(***key);
        if let Some(fields) = shown.as_object_mut() {
            fields.remove("hash");
        }
        shown["state"] = match (key.revoked_at, key.is_live(now), &key.replaced_by) {
            (Some(_), ..) => "revoked",
            (None, false, _) => "expired",
            (None, true, Some(_)) => "rotated",
            (None, true, None) => "live",
        }
        .into();
        api.show_use(&key.id, &mut shown);
        shown
    };
    Ok(Json(page("sdkKeys", keys, limit, |key| key.id.clone(), shown)))
}

/// Creates an SDK key and answers its credential, which is shown this once and never stored. Sent again with the same
/// Idempotency-Key, the request answers the same credential.
#[utoipa::path(post, path = "/api/v1/projects/{project}/environments/{environment}/sdk-keys", tag = "sdk-keys",
    params(("project" = String, Path, description = "Key of the project"),
           ("environment" = String, Path, description = "Key of the environment"),
           ("Idempotency-Key" = Option<String>, Header, description = "Makes it safe to send the request again within 24 hours")),
    request_body(content = ref("#/components/schemas/NewSdkKey")),
    responses((status = 200, description = "The key and its credential", body = ref("#/components/schemas/CreatedSdkKey"))))]
pub async fn create_sdk_key(
    State(api): State<Api>,
    Path((project, environment)): Path<(String, String)>,
    write: Write,
) -> Result<Response, Problem> {
    let NewSdkKey { name, audience } = write.body.read()?;
    api.may_hear(&write.author, Action::CreateSdkKey, &project, &environment)?;
    api.project_with(&project, &environment)?;
    let kind = credential_kind(audience);
    let credential = credential(&api, kind, &write);
    let hash = credential.hash().to_hex();
    let draft = ChangeDraft {
        project: project.clone(),
        environment: Some(environment.clone()),
        comment: format!("Create an SDK key for {environment}"),
        instructions: vec![Instruction::CreateSdkKey { id: String::new(), name, audience, hash: hash.clone() }],
        idempotency: write.idempotency.clone(),
        ..ChangeDraft::default()
    };
    let outcome = submit(&api, write, draft).await?;
    let created = outcome.entry.as_ref().and_then(|entry| {
        entry.instructions.iter().find_map(|instruction| match instruction {
            Instruction::CreateSdkKey { id, name, hash, .. } => {
                Some((id.clone(), name.clone(), hash.clone(), entry.at))
            }
            _ => None,
        })
    });
    // A key made before the server's master key was changed cannot be shown again, and must not be shown wrongly.
    let Some((id, name, _, at)) = created.filter(|(_, _, stored, _)| *stored == hash) else {
        return Err(Problem::internal("the entry of a created SDK key does not hold its credential's hash"));
    };
    let mut response = Json(json!({
        "id": id,
        "key": credential.reveal(),
        "name": name,
        "audience": audience,
        "environment": environment,
        "createdAt": at,
        "revision": outcome.revision,
    }))
    .into_response();
    if outcome.replayed {
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    }
    Ok(response)
}

/// Replaces an SDK key by a new one for the same environment and audience, whose credential is shown this once. The old one
/// lives on beside it, for a day by default; at its deadline it is refused, and its streams close.
#[utoipa::path(post, path = "/api/v1/projects/{project}/environments/{environment}/sdk-keys/{id}/rotate", tag = "sdk-keys",
    params(("project" = String, Path, description = "Key of the project"),
           ("environment" = String, Path, description = "Key of the environment"),
           ("id" = String, Path, description = "Id of the SDK key"),
           ("Idempotency-Key" = Option<String>, Header, description = "Makes it safe to send the request again within 24 hours")),
    request_body(content = ref("#/components/schemas/SdkKeyRotation")),
    responses((status = 200, description = "The new key and its credential", body = ref("#/components/schemas/CreatedSdkKey"))))]
pub async fn rotate_sdk_key(
    State(api): State<Api>,
    Path((project, environment, id)): Path<(String, String, String)>,
    write: Write,
) -> Result<Response, Problem> {
    let body: Option<Rotation> = write.body.read()?;
    let deadline = deadline(&api, body.unwrap_or_default().overlap_minutes);
    // Whoever may not rotate keys here learns nothing of which there are.
    api.allow(&write.author, Action::RotateSdkKey, &api.place(&project, &environment), true)?;
    let state = api.project_with(&project, &environment)?;
    let old = state.sdk_keys.get(&id).filter(|key| key.environment == environment).cloned();
    let old = old.ok_or_else(|| Problem::not_found("SDK key", &id))?;
    let credential = credential(&api, credential_kind(old.audience), &write);
    let (successor, hash) = (String::new(), credential.hash().to_hex());
    let draft = ChangeDraft {
        project,
        environment: Some(environment.clone()),
        comment: format!("Rotate the SDK key {id}"),
        instructions: vec![Instruction::RotateSdkKey { id, successor, hash, deadline }],
        idempotency: write.idempotency.clone(),
        ..ChangeDraft::default()
    };
    let outcome = submit(&api, write, draft).await.map_err(|problem| problem.within("/instructions/0"))?;
    let rotated = outcome.entry.as_ref().and_then(|entry| {
        entry.instructions.iter().find_map(|instruction| match instruction {
            Instruction::RotateSdkKey { successor, hash, deadline, .. } => {
                Some((successor.clone(), hash.clone(), *deadline, entry.at))
            }
            _ => None,
        })
    });
    let (successor, hash, deadline, at) =
        rotated.ok_or_else(|| Problem::internal("the entry of a rotated SDK key holds another instruction"))?;
    let shown = json!({
        "id": successor,
        "key": revealed(&credential, &hash)?,
        "name": old.name,
        "audience": old.audience,
        "environment": environment,
        "createdAt": at,
        "replaces": old.id,
        "oldEndsAt": deadline,
    });
    Ok(answer_with(&outcome, shown))
}

fn credential_kind(audience: Audience) -> CredentialKind {
    match audience {
        Audience::Server => CredentialKind::ServerSdk,
        Audience::Client => CredentialKind::ClientSdk,
    }
}

/// Revokes an SDK key; its streams close at once.
#[utoipa::path(delete, path = "/api/v1/projects/{project}/environments/{environment}/sdk-keys/{id}", tag = "sdk-keys",
    params(("project" = String, Path, description = "Key of the project"),
           ("environment" = String, Path, description = "Key of the environment"),
           ("id" = String, Path, description = "Id of the SDK key")),
    responses((status = 200, description = "What changed", body = ref("#/components/schemas/ChangeOutcome"))))]
pub async fn revoke_sdk_key(
    State(api): State<Api>,
    Path((project, environment, id)): Path<(String, String, String)>,
    write: Write,
) -> Result<Response, Problem> {
    // Whoever may not revoke keys here learns nothing of which there are.
    api.may_hear(&write.author, Action::RevokeSdkKey, &project, &environment)?;
    let state = api.project_with(&project, &environment)?;
    if state.sdk_keys.get(&id).is_none_or(|key| key.environment != environment) {
        return Err(Problem::not_found("SDK key", &id));
    }
    let draft = ChangeDraft {
        project,
        environment: Some(environment),
        comment: format!("Revoke the SDK key {id}"),
        instructions: vec![Instruction::RevokeSdkKey { id }],
        idempotency: write.idempotency.clone(),
        ..ChangeDraft::default()
    };
    submit(&api, write, draft).await.map(answer)
}
