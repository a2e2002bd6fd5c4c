//! `/api/v1/projects/{project}/webhooks`: who is told what happens in the project.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::StatusCode;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use super::Api;
use super::changes::{answer, submit};
use super::directory::answer_with;
use super::guard::whole_project;
use super::page::{limit, page};
use super::parameters::{Path, Query};
use super::problem::{Code, Fault, Problem};
use super::projects::PageQuery;
use super::write::{Write, invalid};
use crate::changes::{Author, ChangeDraft, ChangeOutcome, Instruction};
use crate::notifications::{Filters, Format, HookError, Target, Webhook, WebhookEdit};
use crate::policy::Action;

/// How long an old signing secret signs beside its successor where nobody says: a day, in minutes.
const OVERLAP_MINUTES: u64 = 24 * 60;

/// The operations, for the API's description.
#[derive(utoipa::OpenApi)]
#[openapi(paths(
    list_webhooks,
    create_webhook,
    show_webhook,
    update_webhook,
    delete_webhook,
    rotate_webhook_secret,
    test_webhook,
    list_webhook_deliveries,
    list_dead_letters,
    resend_dead_letters,
    resend_dead_letter
))]
pub struct Operations;

/// The routes, behind authentication and the policies.
pub fn routes() -> Router<Api> {
    let one = "/api/v1/projects/{project}/webhooks/{id}";
    let of_one = |rest: &str| format!("{one}{rest}");
    Router::new()
        .route("/api/v1/projects/{project}/webhooks", get(list_webhooks).post(create_webhook))
        .route(one, get(show_webhook).patch(update_webhook).delete(delete_webhook))
        .route(&of_one("/rotate"), post(rotate_webhook_secret))
        .route(&of_one("/test"), post(test_webhook))
        .route(&of_one("/deliveries"), get(list_webhook_deliveries))
        .route(&of_one("/dead-letters"), get(list_dead_letters))
        .route(&of_one("/dead-letters/resend"), post(resend_dead_letters))
        .route(&of_one("/dead-letters/{delivery}/resend"), post(resend_dead_letter))
}

#[derive(Deserialize)]
struct NewWebhook {
    #[serde(default)]
    name: String,
    url: Url,
    #[serde(default)]
    format: Format,
    #[serde(default)]
    filters: Filters,
    #[serde(default = "yes")]
    enabled: bool,
}

#[derive(Deserialize)]
struct WebhookPatch {
    name: Option<String>,
    url: Option<Url>,
    format: Option<Format>,
    filters: Option<Filters>,
    enabled: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rotation {
    overlap_minutes: Option<u64>,
}

fn yes() -> bool {
    true
}

/// A URL that may be a secret: what is said of it does not repeat it.
struct Url(String);

impl<'de> Deserialize<'de> for Url {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self)
    }
}

/// Lists the webhooks of a project, by id, and how they do. Of their URLs only scheme and host are shown.
#[utoipa::path(get, path = "/api/v1/projects/{project}/webhooks", tag = "webhooks",
    params(("project" = String, Path, description = "Key of the project"), PageQuery),
    responses((status = 200, description = "A page of webhooks", body = ref("#/components/schemas/WebhookPage"))))]
pub async fn list_webhooks(
    State(api): State<Api>,
    Path(project): Path<String>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Value>, Problem> {
    let (limit, after) = (limit(query.limit)?, query.after.unwrap_or_default());
    let state = api.project(&project)?;
    let mut shown = Vec::new();
    for webhook in state.webhooks.values().filter(|webhook| webhook.id > after).take(limit + 1) {
        shown.push(view(&api, &project, webhook).await?);
    }
    let id = |webhook: &Value| webhook["id"].as_str().unwrap_or_default().to_owned();
    Ok(Json(page("webhooks", shown.into_iter(), limit, id, Value::clone)))
}

/// Creates a webhook and answers its signing secret, which is shown this once.
#[utoipa::path(post, path = "/api/v1/projects/{project}/webhooks", tag = "webhooks",
    params(("project" = String, Path, description = "Key of the project"),
           ("Idempotency-Key" = Option<String>, Header, description = "Makes it safe to send the request again within 24 hours")),
    request_body(content = ref("#/components/schemas/NewWebhook")),
    responses((status = 200, description = "The webhook and its secret", body = ref("#/components/schemas/CreatedWebhook"))))]
pub async fn create_webhook(
    State(api): State<Api>,
    Path(project): Path<String>,
    write: Write,
) -> Result<Response, Problem> {
    let NewWebhook { name, url: Url(url), format, filters, enabled } = write.body.read()?;
    // Whoever may not make webhooks has the server look up and call nothing.
    api.allow(&write.author, Action::CreateWebhook, &whole_project(project.clone()), true)?;
    api.project(&project)?;
    let target = target(&api, &url).await?.shown();
    let url_ref = api.notifications.keep(&url).await?;
    let secret_ref = api.notifications.make_secret().await?;
    let made = vec![url_ref.clone(), secret_ref.clone()];
    let id = String::new();
    let edit = WebhookEdit::CreateWebhook { id, name, target, url_ref, secret_ref, format, filters, enabled };
    let outcome = submit_edit(&api, write, &project, "Create a webhook".to_owned(), edit, &made).await?;
    let Some(WebhookEdit::CreateWebhook { id, secret_ref, .. }) = edit_of(&outcome) else {
        return Err(Problem::internal("the entry of a created webhook holds another edit"));
    };
    answer_secret(&api, &project, &id, &secret_ref, &outcome).await
}

/// Shows a webhook and how it does.
#[utoipa::path(get, path = "/api/v1/projects/{project}/webhooks/{id}", tag = "webhooks",
    params(("project" = String, Path, description = "Key of the project"), ("id" = String, Path, description = "Id of the webhook")),
    responses((status = 200, description = "The webhook", body = ref("#/components/schemas/Webhook"))))]
pub async fn show_webhook(
    State(api): State<Api>,
    Path((project, id)): Path<(String, String)>,
) -> Result<Json<Value>, Problem> {
    view(&api, &project, &*known(&api, &project, &id)?).await.map(Json)
}

/// Edits a webhook; fields left out stay. Enabling it starts with what happens from then on.
#[utoipa::path(patch, path = "/api/v1/projects/{project}/webhooks/{id}", tag = "webhooks",
    params(("project" = String, Path, description = "Key of the project"), ("id" = String, Path, description = "Id of the webhook"),
           ("Idempotency-Key" = Option<String>, Header, description = "Makes it safe to send the request again within 24 hours")),
    request_body(content = ref("#/components/schemas/WebhookPatch")),
    responses((status = 200, description = "The webhook afterwards", body = ref("#/components/schemas/Webhook"))))]
pub async fn update_webhook(
    State(api): State<Api>,
    Path((project, id)): Path<(String, String)>,
    write: Write,
) -> Result<Response, Problem> {
    let WebhookPatch { name, url, format, filters, enabled } = write.body.read()?;
    api.allow(&write.author, Action::UpdateWebhook, &whole_project(project.clone()), true)?;
    known(&api, &project, &id)?;
    let (mut shown, mut url_ref, mut made) = (None, None, Vec::new());
    if let Some(Url(url)) = url {
        shown = Some(target(&api, &url).await?.shown());
        let reference = api.notifications.keep(&url).await?;
        made.push(reference.clone());
        url_ref = Some(reference);
    }
    let edit = WebhookEdit::UpdateWebhook { id: id.clone(), name, target: shown, url_ref, format, filters, enabled };
    let outcome = submit_edit(&api, write, &project, format!("Edit the webhook {id}"), edit, &made).await?;
    let shown = view(&api, &project, &*known(&api, &project, &id)?).await?;
    Ok(answer_with(&outcome, shown))
}

/// Deletes a webhook, at once. What waits for it is not sent any more.
#[utoipa::path(delete, path = "/api/v1/projects/{project}/webhooks/{id}", tag = "webhooks",
    params(("project" = String, Path, description = "Key of the project"), ("id" = String, Path, description = "Id of the webhook")),
    responses((status = 200, description = "What changed", body = ref("#/components/schemas/ChangeOutcome"))))]
pub async fn delete_webhook(
    State(api): State<Api>,
    Path((project, id)): Path<(String, String)>,
    write: Write,
) -> Result<Response, Problem> {
    api.allow(&write.author, Action::DeleteWebhook, &whole_project(project.clone()), true)?;
    let references: Vec<String> = known(&api, &project, &id)?.references().map(str::to_owned).collect();
    let comment = format!("Delete the webhook {id}");
    let outcome = submit_edit(&api, write, &project, comment, WebhookEdit::DeleteWebhook { id }, &[]).await?;
    api.notifications.forget(&references).await;
    Ok(answer(outcome))
}

/// Gives a webhook a new signing secret, which is shown this once. For a while, a day by default, notifications carry a signature
/// by the old one as well.
#[utoipa::path(post, path = "/api/v1/projects/{project}/webhooks/{id}/rotate", tag = "webhooks",
    params(("project" = String, Path, description = "Key of the project"), ("id" = String, Path, description = "Id of the webhook"),
           ("Idempotency-Key" = Option<String>, Header, description = "Makes it safe to send the request again within 24 hours")),
    request_body(content = ref("#/components/schemas/WebhookRotation")),
    responses((status = 200, description = "The webhook and its new secret", body = ref("#/components/schemas/CreatedWebhook"))))]
pub async fn rotate_webhook_secret(
    State(api): State<Api>,
    Path((project, id)): Path<(String, String)>,
    write: Write,
) -> Result<Response, Problem> {
    let body: Option<Rotation> = write.body.read()?;
    let minutes = body.unwrap_or_default().overlap_minutes.unwrap_or(OVERLAP_MINUTES);
    let deadline = api.clock.now_ms().saturating_add(minutes.saturating_mul(60_000));
    api.allow(&write.author, Action::RotateWebhookSecret, &whole_project(project.clone()), true)?;
    known(&api, &project, &id)?;
    let secret_ref = api.notifications.make_secret().await?;
    let made = vec![secret_ref.clone()];
    let edit = WebhookEdit::RotateWebhookSecret { id: id.clone(), secret_ref, deadline };
    let comment = format!("Rotate the signing secret of the webhook {id}");
    let outcome = submit_edit(&api, write, &project, comment, edit, &made).await?;
    let Some(WebhookEdit::RotateWebhookSecret { id, secret_ref, .. }) = edit_of(&outcome) else {
        return Err(Problem::internal("the entry of a rotated secret holds another edit"));
    };
    answer_secret(&api, &project, &id, &secret_ref, &outcome).await
}

/// Calls the webhook once with a `ping`, also while it is disabled, and answers what came of it.
#[utoipa::path(post, path = "/api/v1/projects/{project}/webhooks/{id}/test", tag = "webhooks",
    params(("project" = String, Path, description = "Key of the project"), ("id" = String, Path, description = "Id of the webhook")),
    responses((status = 200, description = "What came of it", body = ref("#/components/schemas/Delivery"))))]
pub async fn test_webhook(
    State(api): State<Api>,
    Path((project, id)): Path<(String, String)>,
    write: Write,
) -> Result<Json<Value>, Problem> {
    api.allow(&write.author, Action::TestWebhook, &whole_project(project.clone()), true)?;
    let webhook = known(&api, &project, &id)?;
    let delivery = api.notifications.test(&project, &webhook, &write.author.actor_id).await?;
    Ok(Json(json!(delivery)))
}

/// Lists the last attempts, the latest first. What was sent and answered is not kept.
#[utoipa::path(get, path = "/api/v1/projects/{project}/webhooks/{id}/deliveries", tag = "webhooks",
    params(("project" = String, Path, description = "Key of the project"), ("id" = String, Path, description = "Id of the webhook")),
    responses((status = 200, description = "The last attempts", body = ref("#/components/schemas/DeliveryList"))))]
pub async fn list_webhook_deliveries(
    State(api): State<Api>,
    Path((project, id)): Path<(String, String)>,
) -> Result<Json<Value>, Problem> {
    let webhook = known(&api, &project, &id)?;
    let deliveries = api.notifications.deliveries(&project, &webhook).await?;
    Ok(Json(json!({"deliveries": deliveries, "next": null})))
}

/// Lists notifications that were given up, the oldest first.
#[utoipa::path(get, path = "/api/v1/projects/{project}/webhooks/{id}/dead-letters", tag = "webhooks",
    params(("project" = String, Path, description = "Key of the project"), ("id" = String, Path, description = "Id of the webhook")),
    responses((status = 200, description = "The dead letters", body = ref("#/components/schemas/DeadLetterList"))))]
pub async fn list_dead_letters(
    State(api): State<Api>,
    Path((project, id)): Path<(String, String)>,
) -> Result<Json<Value>, Problem> {
    let webhook = known(&api, &project, &id)?;
    let letters = api.notifications.dead_letters(&project, &webhook).await?;
    let shown: Vec<Value> = letters
        .iter()
        .map(|letter| {
            let mut shown = json!(letter);
            shown.as_object_mut().and_then(|fields| fields.remove("position"));
            shown
        })
        .collect();
    Ok(Json(json!({"deadLetters": shown, "next": null})))
}

/// Has all dead letters sent again, each once; those that fail again stay.
#[utoipa::path(post, path = "/api/v1/projects/{project}/webhooks/{id}/dead-letters/resend", tag = "webhooks",
    params(("project" = String, Path, description = "Key of the project"), ("id" = String, Path, description = "Id of the webhook")),
    responses((status = 202, description = "How many are sent again", body = ref("#/components/schemas/Resent"))))]
pub async fn resend_dead_letters(
    State(api): State<Api>,
    Path((project, id)): Path<(String, String)>,
    write: Write,
) -> Result<Response, Problem> {
    resend(&api, &write.author, &project, &id, None).await
}

/// Has one dead letter sent again, once; if it fails again it stays one.
#[utoipa::path(post, path = "/api/v1/projects/{project}/webhooks/{id}/dead-letters/{delivery}/resend", tag = "webhooks",
    params(("project" = String, Path, description = "Key of the project"), ("id" = String, Path, description = "Id of the webhook"),
           ("delivery" = String, Path, description = "Id of the notification")),
    responses((status = 202, description = "How many are sent again", body = ref("#/components/schemas/Resent"))))]
pub async fn resend_dead_letter(
    State(api): State<Api>,
    Path((project, id, delivery)): Path<(String, String, String)>,
    write: Write,
) -> Result<Response, Problem> {
    resend(&api, &write.author, &project, &id, Some(&delivery)).await
}

async fn resend(
    api: &Api,
    author: &Author,
    project: &str,
    id: &str,
    letter: Option<&str>,
) -> Result<Response, Problem> {
    api.allow(author, Action::ResendDeadLetters, &whole_project(project.to_owned()), true)?;
    let webhook = known(api, project, id)?;
    if !webhook.enabled {
        let detail = "The webhook is disabled: enable it first, then have its dead letters sent again.";
        return Err(Problem::new(Code::Conflict, detail));
    }
    let count = api.notifications.resend(project, &webhook, letter).await?;
    match letter.filter(|_| count == 0) {
        Some(letter) => Err(Problem::not_found("dead letter", letter)),
        None => Ok((StatusCode::ACCEPTED, Json(json!({ "resending": count }))).into_response()),
    }
}

/// The target of a URL, if it may be called now.
async fn target(api: &Api, url: &str) -> Result<Target, Problem> {
    let refuse = |code, detail: String| invalid(vec![Fault::new("/url", code, detail)]);
    let target = Target::parse(url).map_err(|error| refuse("badUrl", error.to_string()))?;
    api.notifications.check(&target).await.map_err(|reason| refuse("notAllowed", reason))?;
    Ok(target)
}

fn known(api: &Api, project: &str, id: &str) -> Result<Arc<Webhook>, Problem> {
    api.project(project)?.webhooks.get(id).cloned().ok_or_else(|| Problem::not_found("webhook", id))
}

/// Submits an edit of a webhook. What was kept for it is removed if the edit is not made, or was made by an earlier request.
async fn submit_edit(
    api: &Api,
    write: Write,
    project: &str,
    comment: String,
    edit: WebhookEdit,
    kept: &[String],
) -> Result<ChangeOutcome, Problem> {
    let draft = ChangeDraft {
        project: project.to_owned(),
        comment,
        instructions: vec![Instruction::Webhook(Box::new(edit))],
        idempotency: write.idempotency.clone(),
        ..ChangeDraft::default()
    };
    let outcome = submit(api, write, draft).await.map_err(|problem| problem.within("/instructions/0"));
    let unused = match &outcome {
        Ok(outcome) => outcome.replayed,
        // It may be there after a restart: what nothing refers to goes by itself.
        Err(problem) => !matches!(problem.code(), Code::ReadOnly | Code::Internal),
    };
    if unused {
        api.notifications.forget(kept).await;
    }
    outcome
}

fn edit_of(outcome: &ChangeOutcome) -> Option<WebhookEdit> {
    outcome.entry.as_ref()?.instructions.iter().find_map(|instruction| match instruction {
        Instruction::Webhook(edit) => Some(WebhookEdit::clone(edit)),
        _ => None,
    })
}

async fn answer_secret(
    api: &Api,
    project: &str,
    id: &str,
    secret_ref: &str,
    outcome: &ChangeOutcome,
) -> Result<Response, Problem> {
    let secret = api.notifications.kept(secret_ref).await?;
    let secret = secret.ok_or_else(|| {
        Problem::new(Code::Conflict, "The secret that this request made is gone: rotate it to get a new one.")
    })?;
    let mut shown = view(api, project, &*known(api, project, id)?).await?;
    shown["secret"] = secret.into();
    Ok(answer_with(outcome, shown))
}

async fn view(api: &Api, project: &str, webhook: &Webhook) -> Result<Value, Problem> {
    let mut shown = json!({
        "id": webhook.id,
        "name": webhook.name,
        "target": webhook.target,
        "format": webhook.format,
        "filters": webhook.filters,
        "enabled": webhook.enabled,
        "createdAt": webhook.created_at,
        "updatedAt": webhook.updated_at,
        "standing": api.notifications.standing(project, webhook).await?,
    });
    let now = api.clock.now_ms();
    if let Some(old) = webhook.old_secret.as_ref().filter(|old| now < old.until) {
        shown["oldSecretEndsAt"] = old.until.into();
    }
    Ok(shown)
}

impl From<HookError> for Problem {
    fn from(error: HookError) -> Self {
        match error {
            HookError::Busy => Self::new(Code::Conflict, "A test of this webhook is under way; wait for it to end."),
            other => Self::internal(other),
        }
    }
}
