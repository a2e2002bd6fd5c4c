//! `/api/v1/projects/{project}/requests`: changes that others have to agree to.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use super::Api;
use super::changes::{answer, answer_step, conflicts, read_instructions, refusal, submit};
use super::guard::Sight;
use super::page::{limit, page};
use super::parameters::{Path, Query};
use super::problem::{Fault, Problem};
use super::write::{Write, invalid};
use crate::changes::request::{RequestState, Schedule};
use crate::changes::{
    Author, ChangeDraft, ChangeError, ChangeOutcome, ChangeRequest, Proposal, RequestEdit, RequestRevision, describe,
};
use crate::policy::{Action, PrincipalKind};
use crate::state::Project;

/// The operations, for the API's description.
#[derive(utoipa::OpenApi)]
#[openapi(paths(
    list_requests,
    create_request,
    show_request,
    edit_request,
    submit_request,
    approve_request,
    reject_request,
    withdraw_request,
    comment_on_request,
    apply_request,
    super::reviews::list_reviews,
    super::reviews::close_review
))]
pub struct Operations;

/// The routes, behind authentication and the policies.
pub fn routes() -> Router<Api> {
    let requests = "/api/v1/projects/{project}/requests";
    let request = |step: &str| format!("{requests}/{{id}}{step}");
    Router::new()
        .route(requests, get(list_requests).post(create_request))
        .route(&request(""), get(show_request).patch(edit_request))
        .route(&request("/submit"), post(submit_request))
        .route(&request("/approve"), post(approve_request))
        .route(&request("/reject"), post(reject_request))
        .route(&request("/withdraw"), post(withdraw_request))
        .route(&request("/comment"), post(comment_on_request))
        .route(&request("/apply"), post(apply_request))
        .merge(super::reviews::routes())
}

/// Which change requests.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct RequestQuery {
    /// Only those that stand here: `draft`, `review`, `approved`, `applied`, `rejected`, `withdrawn` or `expired`; `open` for
    /// the first three.
    state: Option<String>,
    /// Only those that this principal wrote, by id.
    author: Option<String>,
    /// Only those that would touch this flag.
    flag: Option<String>,
    /// Only those that would touch this environment.
    environment: Option<String>,
    /// Most items to answer: 1 to 1,000, 100 by default.
    limit: Option<usize>,
    /// Answers items after this one: the `next` of the page before.
    after: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct NewRequest {
    environment: Option<String>,
    #[serde(default)]
    comment: String,
    commit: Option<String>,
    expected_revision: Option<u64>,
    #[serde(default)]
    dry_run: bool,
    instructions: Vec<Value>,
    #[serde(default)]
    draft: bool,
    schedule: Option<Schedule>,
    expires_at: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Revised {
    instructions: Option<Vec<Value>>,
    comment: Option<String>,
    #[serde(deserialize_with = "sent")]
    schedule: Option<Option<Schedule>>,
    rebase: bool,
}

#[derive(Debug, Deserialize)]
struct Agreed {
    hash: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Reason {
    reason: String,
}

#[derive(Debug, Deserialize)]
struct Remark {
    text: String,
}

#[derive(Debug, Default, Deserialize)]
struct Nothing {}

/// Tells a `null` that was sent from a field that was left out.
fn sent<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<Schedule>>, D::Error> {
    Option::<Schedule>::deserialize(deserializer).map(Some)
}

/// Lists change requests, newest first: those of which the caller may see every environment.
#[utoipa::path(get, path = "/api/v1/projects/{project}/requests", tag = "requests",
    params(("project" = String, Path, description = "Key of the project"), RequestQuery),
    responses((status = 200, description = "A page of change requests", body = ref("#/components/schemas/RequestPage"))))]
pub async fn list_requests(
    State(api): State<Api>,
    Path(project): Path<String>,
    Query(query): Query<RequestQuery>,
    Extension(sight): Extension<Sight>,
) -> Result<Json<Value>, Problem> {
    let (limit, project) = (limit(query.limit)?, api.project(&project)?);
    let in_state = state_filter(query.state.as_deref())?;
    let names = |list: &[String], wanted: &Option<String>| wanted.as_ref().is_none_or(|key| list.contains(key));
    let mut requests: Vec<&Arc<ChangeRequest>> = project
        .requests
        .values()
        .filter(|request| {
            is_visible(&project, request, &sight)
                && in_state(request.state)
                && query.author.as_ref().is_none_or(|author| request.author.id == *author)
                && names(&request.content.flags, &query.flag)
                && names(&request.content.environments, &query.environment)
        })
        .collect();
    requests.sort_by_key(|request| std::cmp::Reverse(cursor(request)));
    let after = query.after.unwrap_or_default();
    let rest = requests.into_iter().filter(|request| after.is_empty() || cursor(request) < after);
    let shown = |request: &&Arc<ChangeRequest>| {
        let mut shown = view(&api, request);
        if let Some(fields) = shown.as_object_mut() {
            fields.remove("comments");
        }
        shown
    };
    Ok(Json(page("requests", rest, limit, |request| cursor(request), shown)))
}

/// Its place in the list: when it was opened, in digits that sort, then its id.
fn cursor(request: &ChangeRequest) -> String {
    format!("{:015}.{}", request.created_at, request.id)
}

fn state_filter(wanted: Option<&str>) -> Result<impl Fn(RequestState) -> bool, Problem> {
    let states = match wanted {
        None => None,
        Some("open") => Some(vec![RequestState::Draft, RequestState::Review, RequestState::Approved]),
        Some(word) => match serde_json::from_value(json!(word)) {
            Ok(state) => Some(vec![state]),
            Err(_) => {
                let detail = format!("{word:?} is no state of a change request");
                return Err(invalid(vec![Fault::new("", "invalidParameter", detail)]));
            }
        },
    };
    Ok(move |state| states.as_ref().is_none_or(|states: &Vec<RequestState>| states.contains(&state)))
}

/// Whether the caller may see every environment that a request would touch.
fn is_visible(project: &Project, request: &ChangeRequest, sight: &Sight) -> bool {
    match request.content.environments.as_slice() {
        // It cannot be placed: for those who see everything.
        [] => sight.sees_all(project.environments.keys()),
        environments => sight.sees_all(environments),
    }
}

/// The names of the people and programs that a request speaks of, by id. AI agents do not learn who works here.
fn names_of(api: &Api, request: &ChangeRequest) -> Value {
    let mut ids: BTreeSet<&str> = request.author.owner.iter().map(String::as_str).collect();
    ids.insert(&request.author.id);
    ids.extend(request.approvals.iter().map(|approval| &*approval.by));
    ids.extend(request.comments.iter().map(|comment| &*comment.by));
    ids.extend(request.ended.iter().map(|ended| &*ended.by));
    let named = ids.into_iter().map(|id| (id.to_owned(), api.audit_door.person(id).into()));
    Value::Object(named.collect())
}

/// A request as callers read it.
fn view(api: &Api, request: &ChangeRequest) -> Value {
    let mut shown = json!(request);
    for list in ["approvals", "comments"] {
        if shown.get(list).is_none() {
            shown[list] = json!([]);
        }
    }
    shown["validApprovals"] = api.changes.counted_approvals(request).into();
    shown
}

/// Opens a change request, also where the change could be made at once. One that needs nobody's approval, and is neither a
/// draft nor scheduled, is applied by itself.
#[utoipa::path(post, path = "/api/v1/projects/{project}/requests", tag = "requests",
    params(("project" = String, Path, description = "Key of the project"),
           ("Idempotency-Key" = Option<String>, Header, description = "Makes it safe to send the request again within 24 hours")),
    request_body(content = ref("#/components/schemas/NewRequest")),
    responses((status = 200, description = "What changed, or would", body = ref("#/components/schemas/ChangeOutcome")),
              (status = 202, description = "The request that was opened", body = ref("#/components/schemas/RequestOutcome"))))]
pub async fn create_request(
    State(api): State<Api>,
    Path(project): Path<String>,
    write: Write,
) -> Result<Response, Problem> {
    let body: NewRequest = write.body.read()?;
    let draft = ChangeDraft {
        project,
        environment: body.environment,
        comment: body.comment,
        commit: body.commit,
        expected_revision: body.expected_revision,
        dry_run: body.dry_run,
        instructions: read_instructions(&body.instructions)?,
        idempotency: write.idempotency.clone(),
        proposal: Some(Proposal { draft: body.draft, schedule: body.schedule, expires_at: body.expires_at }),
        ..ChangeDraft::default()
    };
    submit(&api, write, draft).await.map(answer)
}

/// Shows a change request: what it asks for, and whether that could still be made.
#[utoipa::path(get, path = "/api/v1/projects/{project}/requests/{id}", tag = "requests",
    params(("project" = String, Path, description = "Key of the project"),
           ("id" = String, Path, description = "Id of the change request")),
    responses((status = 200, description = "The change request", body = ref("#/components/schemas/RequestView"))))]
pub async fn show_request(
    State(api): State<Api>,
    Path((project, id)): Path<(String, String)>,
    Extension(caller): Extension<super::auth::Caller>,
    Extension(sight): Extension<Sight>,
) -> Result<Json<Value>, Problem> {
    let state = api.project(&project)?;
    let request = state.requests.get(&id).filter(|request| is_visible(&state, request, &sight));
    let request = request.cloned().ok_or_else(|| Problem::not_found("change request", &id))?;
    let mut shown = view(&api, &request);
    if caller.author.kind != PrincipalKind::Agent {
        shown["names"] = names_of(&api, &request);
    }
    let blind = request.content.environments.iter().any(|of| api.is_blind(&caller.author, &project, of));
    if !blind && let Ok(body) = api.changes.request_body(&request).await {
        shown["instructions"] = json!(body.instructions);
    }
    if request.state.is_open() {
        shown["applies"] = match api.changes.check_request(&request).await {
            Ok(()) => json!({"now": true}),
            Err(error) => obstacle(&api, &caller.author, &project, &error),
        };
    }
    Ok(Json(shown))
}

/// Why what a request asks for could not be made now. Names entries and places, never what they hold; of entries that the
/// caller may not read in the journal the revision alone.
fn obstacle(api: &Api, caller: &Author, project: &str, error: &ChangeError) -> Value {
    match error {
        ChangeError::Conflict { entries, .. } => {
            let entries = conflicts(api, caller, project, entries, |entry| {
                let sentences = entry.instructions.iter().map(|it| describe(it, entry.environment.as_deref()));
                json!({
                    "revision": entry.revision,
                    "at": entry.at,
                    "actorId": entry.actor_id,
                    "comment": entry.comment,
                    "summary": sentences.collect::<Vec<_>>(),
                })
            });
            let detail = "What it would change was changed since it was read: rebase it.";
            json!({"now": false, "detail": detail, "conflicts": entries})
        }
        ChangeError::Invalid { problems } | ChangeError::NotFound { problems } => {
            let faults: Vec<Fault> = problems.iter().cloned().map(Fault::from).collect();
            json!({"now": false, "detail": "It no longer fits what is there: edit it.", "errors": faults})
        }
        other => json!({"now": false, "detail": other.to_string()}),
    }
}

/// Edits a change request, or reads it against the present: every approval is void.
#[utoipa::path(patch, path = "/api/v1/projects/{project}/requests/{id}", tag = "requests",
    params(("project" = String, Path, description = "Key of the project"),
           ("id" = String, Path, description = "Id of the change request"),
           ("Idempotency-Key" = Option<String>, Header, description = "Makes it safe to send the request again within 24 hours")),
    request_body(content = ref("#/components/schemas/RequestEdit")),
    responses((status = 200, description = "The request as it is now", body = ref("#/components/schemas/RequestOutcome"))))]
pub async fn edit_request(
    State(api): State<Api>,
    Path((project, id)): Path<(String, String)>,
    write: Write,
) -> Result<Response, Problem> {
    let body: Revised = write.body.read()?;
    let says_nothing = body.instructions.is_none() && body.comment.is_none() && body.schedule.is_none();
    if says_nothing && !body.rebase {
        let detail = "say what changes: `instructions`, `comment` or `schedule`; or {\"rebase\": true} to read it against the \
                      present";
        return Err(invalid(vec![Fault::new("", "missingField", detail)]));
    }
    let revision = RequestRevision {
        instructions: body.instructions.as_deref().map(read_instructions).transpose()?,
        comment: body.comment,
        schedule: body.schedule,
        idempotency: write.idempotency.clone(),
    };
    let (changes, author) = (Arc::clone(&api.changes), write.author.clone());
    let (of, which) = (project.clone(), id.clone());
    let edited = tokio::spawn(async move { changes.edit_request(&author, &of, &which, revision).await });
    let edited = edited.await.map_err(Problem::internal)?;
    let outcome = edited.map_err(|error| refusal(&api, &write.author, &project, error))?;
    Ok(answer_of(&api, &write.author, &project, &id, outcome))
}

/// Puts a draft to review.
#[utoipa::path(post, path = "/api/v1/projects/{project}/requests/{id}/submit", tag = "requests",
    params(("project" = String, Path, description = "Key of the project"),
           ("id" = String, Path, description = "Id of the change request")),
    responses((status = 200, description = "The request as it is now", body = ref("#/components/schemas/RequestOutcome"))))]
pub async fn submit_request(
    State(api): State<Api>,
    Path((project, id)): Path<(String, String)>,
    write: Write,
) -> Result<Response, Problem> {
    read_nothing(&write)?;
    act(&api, &write, &project, RequestEdit::SubmitRequest { id }).await
}

/// Agrees with what a change request asks for: with just what has this hash, which `GET` shows as `content.hash`.
#[utoipa::path(post, path = "/api/v1/projects/{project}/requests/{id}/approve", tag = "requests",
    params(("project" = String, Path, description = "Key of the project"),
           ("id" = String, Path, description = "Id of the change request")),
    request_body(content = ref("#/components/schemas/RequestApproval")),
    responses((status = 200, description = "The request as it is now", body = ref("#/components/schemas/RequestOutcome"))))]
pub async fn approve_request(
    State(api): State<Api>,
    Path((project, id)): Path<(String, String)>,
    write: Write,
) -> Result<Response, Problem> {
    let Agreed { hash } = write.body.read()?;
    act(&api, &write, &project, RequestEdit::ApproveRequest { id, by: String::new(), hash }).await
}

/// Refuses a change request.
#[utoipa::path(post, path = "/api/v1/projects/{project}/requests/{id}/reject", tag = "requests",
    params(("project" = String, Path, description = "Key of the project"),
           ("id" = String, Path, description = "Id of the change request")),
    request_body(content = ref("#/components/schemas/RequestReason")),
    responses((status = 200, description = "The request as it is now", body = ref("#/components/schemas/RequestOutcome"))))]
pub async fn reject_request(
    State(api): State<Api>,
    Path((project, id)): Path<(String, String)>,
    write: Write,
) -> Result<Response, Problem> {
    let reason = read_reason(&write)?;
    act(&api, &write, &project, RequestEdit::RejectRequest { id, by: String::new(), reason }).await
}

/// Takes a change request back.
#[utoipa::path(post, path = "/api/v1/projects/{project}/requests/{id}/withdraw", tag = "requests",
    params(("project" = String, Path, description = "Key of the project"),
           ("id" = String, Path, description = "Id of the change request")),
    request_body(content = ref("#/components/schemas/RequestReason")),
    responses((status = 200, description = "The request as it is now", body = ref("#/components/schemas/RequestOutcome"))))]
pub async fn withdraw_request(
    State(api): State<Api>,
    Path((project, id)): Path<(String, String)>,
    write: Write,
) -> Result<Response, Problem> {
    let reason = read_reason(&write)?;
    act(&api, &write, &project, RequestEdit::WithdrawRequest { id, by: String::new(), reason }).await
}

/// Says something of a change request.
#[utoipa::path(post, path = "/api/v1/projects/{project}/requests/{id}/comment", tag = "requests",
    params(("project" = String, Path, description = "Key of the project"),
           ("id" = String, Path, description = "Id of the change request")),
    request_body(content = ref("#/components/schemas/RequestComment")),
    responses((status = 200, description = "The request as it is now", body = ref("#/components/schemas/RequestOutcome"))))]
pub async fn comment_on_request(
    State(api): State<Api>,
    Path((project, id)): Path<(String, String)>,
    write: Write,
) -> Result<Response, Problem> {
    let Remark { text } = write.body.read()?;
    act(&api, &write, &project, RequestEdit::CommentRequest { id, by: String::new(), text }).await
}

/// Makes what an approved change request asks for, as one entry.
#[utoipa::path(post, path = "/api/v1/projects/{project}/requests/{id}/apply", tag = "requests",
    params(("project" = String, Path, description = "Key of the project"),
           ("id" = String, Path, description = "Id of the change request"),
           ("Idempotency-Key" = Option<String>, Header, description = "Makes it safe to send the request again within 24 hours")),
    responses((status = 200, description = "What changed", body = ref("#/components/schemas/ChangeOutcome"))))]
pub async fn apply_request(
    State(api): State<Api>,
    Path((project, id)): Path<(String, String)>,
    write: Write,
) -> Result<Response, Problem> {
    read_nothing(&write)?;
    let changes = Arc::clone(&api.changes);
    let Write { author, idempotency, .. } = write;
    let (by, of) = (author.clone(), project.clone());
    let applied = tokio::spawn(async move { changes.apply_request(&author, &project, &id, idempotency).await });
    let applied = applied.await.map_err(Problem::internal)?;
    applied.map(answer).map_err(|error| refusal(&api, &by, &of, error))
}

fn read_nothing(write: &Write) -> Result<(), Problem> {
    if write.body.0.is_null() { Ok(()) } else { write.body.read::<Nothing>().map(|_| ()) }
}

fn read_reason(write: &Write) -> Result<String, Problem> {
    if write.body.0.is_null() { Ok(String::new()) } else { write.body.read::<Reason>().map(|body| body.reason) }
}

/// Makes one step of a request. It goes on to its end though the caller hang up.
pub(super) async fn act(api: &Api, write: &Write, project: &str, edit: RequestEdit) -> Result<Response, Problem> {
    let (changes, author, idempotency) = (Arc::clone(&api.changes), write.author.clone(), write.idempotency.clone());
    let (of, id) = (project.to_owned(), edit.request().unwrap_or_default().to_owned());
    let acting = tokio::spawn(async move { changes.act_on_request(&author, &of, edit, idempotency).await });
    let acted = acting.await.map_err(Problem::internal)?;
    let outcome = acted.map_err(|error| refusal(api, &write.author, project, error))?;
    Ok(answer_of(api, &write.author, project, &id, outcome))
}

/// What a step made of a request: all of it for those who may see it.
fn answer_of(api: &Api, author: &Author, project: &str, id: &str, outcome: ChangeOutcome) -> Response {
    let world = api.world();
    let known = world.project(project).and_then(|state| state.requests.get(id).map(|request| (state, request)));
    let shown = known.map(|(state, request)| {
        let sight = api.sight(author, project, Action::ReadRequests);
        if is_visible(state, request, &sight) {
            view(api, request)
        } else {
            json!({"id": request.id, "state": request.state})
        }
    });
    answer_step(&outcome, shown)
}
