//! `…/flags/{flag}/rollback` and `…/flags/{flag}/drills`: rolling a flag back, and rehearsing that.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Api;
use super::auth::Caller;
use super::changes::{REPLAYED, refusal, view};
use super::guard::Sight;
use super::page::{limit, page};
use super::parameters::{Path, Query};
use super::problem::{Code, Fault, Problem};
use super::shown::hide_values;
use super::write::{Write, invalid};
use crate::changes::{Author, RollbackDraft};
use crate::drills::{
    Check, DRILL_LIFE_MS, DrillError, DrillRequest, Freshness, MAX_PROBE_TIMEOUT_MS, PENDING_LIFE_MS, StandingDrill,
    freshness,
};
use crate::policy::Action;
use crate::state::Project;

/// How long connected SDKs may take to answer where the caller does not say, in milliseconds.
const DEFAULT_PROBE_TIMEOUT_MS: u64 = 5_000;
/// Seconds after which a drill may be asked for again when as many as may be are being made.
const RETRY_AFTER_S: u64 = 2;

/// The operations, for the API's description.
#[derive(utoipa::OpenApi)]
#[openapi(paths(roll_back_flag, create_drill, record_drill, list_drills))]
pub struct Operations;

/// The routes, behind authentication and the policies.
pub(super) fn routes() -> Router<Api> {
    let flag = "/api/v1/projects/{project}/environments/{environment}/flags/{flag}";
    Router::new()
        .route("/api/v1/projects/{project}/drills", get(list_drills))
        .route(&format!("{flag}/rollback"), post(roll_back_flag))
        .route(&format!("{flag}/drills"), post(create_drill))
        .route(&format!("{flag}/drills/{{id}}/record"), post(record_drill))
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RollbackBody {
    to_revision: Option<u64>,
    comment: String,
    expected_revision: Option<u64>,
    dry_run: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct DrillBody {
    to_revision: Option<u64>,
    probe_timeout_ms: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RecordBody {
    check: Option<Check>,
}

/// Which drills.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DrillQuery {
    /// Only those of this environment.
    environment: Option<String>,
    /// Only those of this flag.
    flag: Option<String>,
    /// Only those that count, or only those that do not.
    fresh: Option<bool>,
    /// Most items to answer: 1 to 1,000, 100 by default.
    limit: Option<usize>,
    /// Answers items after this one: the `next` of the page before.
    after: Option<String>,
}

/// Rolls a flag back in an environment, as a new entry: to a revision, or to what it was before its last change that moved
/// anybody.
#[utoipa::path(post, path = "/api/v1/projects/{project}/environments/{environment}/flags/{flag}/rollback", tag = "drills",
    params(("project" = String, Path, description = "Key of the project"),
           ("environment" = String, Path, description = "Key of the environment"),
           ("flag" = String, Path, description = "Key of the flag"),
           ("Idempotency-Key" = Option<String>, Header, description = "Makes it safe to send the request again within 24 hours")),
    request_body(content = ref("#/components/schemas/Rollback")),
    responses((status = 200, description = "What changed", body = ref("#/components/schemas/RollbackOutcome")),
              (status = 202, description = "It has to be a change request, which was opened", body = ref("#/components/schemas/RollbackOutcome"))))]
pub async fn roll_back_flag(
    State(api): State<Api>,
    Path((project, environment, flag)): Path<(String, String, String)>,
    write: Write,
) -> Result<Response, Problem> {
    let body: RollbackBody = read(&write)?;
    api.may_hear(&write.author, Action::RevertFlag, &project, &environment)?;
    let RollbackBody { to_revision, comment, expected_revision, dry_run } = body;
    let Write { author, idempotency, .. } = write;
    let (of, by) = (project.clone(), author.clone());
    let draft =
        RollbackDraft { project, environment, flag, to_revision, comment, expected_revision, dry_run, idempotency };
    let changes = Arc::clone(&api.changes);
    // It goes on to its end though the caller hang up.
    let rolling = tokio::spawn(async move { changes.rollback(&author, draft).await });
    let done = rolling.await.map_err(Problem::internal)?.map_err(|error| refusal(&api, &by, &of, error))?;
    let opened = done.outcome.opened();
    let mut shown = match &opened {
        Some(request) => {
            json!({"request": request, "revision": done.outcome.revision, "summary": done.outcome.summary})
        }
        None => view(&done.outcome),
    };
    shown["toRevision"] = done.to_revision.into();
    let status = if opened.is_some() { StatusCode::ACCEPTED } else { StatusCode::OK };
    let mut response = (status, Json(shown)).into_response();
    if done.outcome.replayed {
        response.headers_mut().insert(REPLAYED, http::HeaderValue::from_static("true"));
    }
    Ok(response)
}

/// Rehearses the rollback of a flag on a copy of the state and asks connected SDKs for a sign. Nothing is changed; the drill
/// waits half an hour to be recorded.
#[utoipa::path(post, path = "/api/v1/projects/{project}/environments/{environment}/flags/{flag}/drills", tag = "drills",
    params(("project" = String, Path, description = "Key of the project"),
           ("environment" = String, Path, description = "Key of the environment"),
           ("flag" = String, Path, description = "Key of the flag"),
           ("Idempotency-Key" = Option<String>, Header, description = "Makes it safe to send the request again while the drill waits")),
    request_body(content = ref("#/components/schemas/NewDrill")),
    responses((status = 200, description = "What was found; `drill.passed` says whether all of it holds", body = ref("#/components/schemas/PendingDrill"))))]
pub async fn create_drill(
    State(api): State<Api>,
    Path((project, environment, flag)): Path<(String, String, String)>,
    write: Write,
) -> Result<Json<Value>, Problem> {
    let body: DrillBody = read(&write)?;
    let probe_timeout_ms = body.probe_timeout_ms.unwrap_or(DEFAULT_PROBE_TIMEOUT_MS);
    if !(1..=MAX_PROBE_TIMEOUT_MS).contains(&probe_timeout_ms) {
        let detail = format!("a probe waits 1 to {MAX_PROBE_TIMEOUT_MS} ms");
        return Err(invalid(vec![Fault::new("/probeTimeoutMs", "outOfRange", detail)]));
    }
    let Write { author, idempotency: sent, .. } = write;
    let (of, by) = (project.clone(), author.clone());
    let request = DrillRequest { project, environment, flag, to_revision: body.to_revision, probe_timeout_ms, sent };
    let report = api.drills.make(&author, request).await.map_err(|error| problem(&api, &by, &of, error))?;
    Ok(Json(json!({"drill": report, "recordableForMs": PENDING_LIFE_MS})))
}

/// Journals a drill that the caller made, with the operator's own proof. What the server measured is not the caller's to say.
#[utoipa::path(post, path = "/api/v1/projects/{project}/environments/{environment}/flags/{flag}/drills/{id}/record", tag = "drills",
    params(("project" = String, Path, description = "Key of the project"),
           ("environment" = String, Path, description = "Key of the environment"),
           ("flag" = String, Path, description = "Key of the flag"),
           ("id" = String, Path, description = "Id of the drill")),
    request_body(content = ref("#/components/schemas/DrillRecord")),
    responses((status = 200, description = "What was recorded", body = ref("#/components/schemas/RecordedDrill"))))]
pub async fn record_drill(
    State(api): State<Api>,
    Path((project, environment, flag, id)): Path<(String, String, String, String)>,
    write: Write,
) -> Result<Json<Value>, Problem> {
    let RecordBody { check } = read(&write)?;
    let Write { author, .. } = write;
    let (of, by) = (project.clone(), author.clone());
    let request = DrillRequest { project, environment, flag, ..DrillRequest::default() };
    let drills = Arc::clone(&api.drills);
    let recording = tokio::spawn(async move { drills.record(&author, &request, &id, check).await });
    let recorded = recording.await.map_err(Problem::internal)?;
    let (drill, _) = recorded.map_err(|error| problem(&api, &by, &of, error))?;
    let state = api.project(&of)?;
    Ok(Json(json!({"drill": shown(&state, &drill, api.clock.now_ms()), "revision": drill.revision})))
}

/// Lists the last drill of each flag in each environment, and whether it still counts.
#[utoipa::path(get, path = "/api/v1/projects/{project}/drills", tag = "drills",
    params(("project" = String, Path, description = "Key of the project"), DrillQuery),
    responses((status = 200, description = "A page of drills", body = ref("#/components/schemas/DrillPage"))))]
pub async fn list_drills(
    State(api): State<Api>,
    Path(project): Path<String>,
    Query(query): Query<DrillQuery>,
    Extension(caller): Extension<Caller>,
    Extension(sight): Extension<Sight>,
) -> Result<Json<Value>, Problem> {
    let (limit, state) = (limit(query.limit)?, api.project(&project)?);
    let now = api.clock.now_ms();
    let is = |wanted: &Option<String>, found: &String| wanted.as_ref().is_none_or(|wanted| wanted == found);
    let wanted = |drill: &&Arc<StandingDrill>| {
        sight.sees(&drill.environment)
            && is(&query.environment, &drill.environment)
            && is(&query.flag, &drill.flag)
            && query.fresh.is_none_or(|fresh| fresh == (freshness(&state, drill, now) == Freshness::Fresh))
    };
    let after = query.after.unwrap_or_default();
    let key = |drill: &&Arc<StandingDrill>| format!("{}/{}", drill.environment, drill.flag);
    let mut drills: Vec<&Arc<StandingDrill>> = state.drills.values().filter(wanted).collect();
    drills.sort_by_key(key);
    let rest = drills.into_iter().filter(|drill| after.is_empty() || key(drill) > after);
    let view = |drill: &&Arc<StandingDrill>| {
        let mut shown = shown(&state, drill, now);
        if api.is_blind(&caller.author, &project, &drill.environment) {
            hide_values(&mut shown);
        }
        shown
    };
    Ok(Json(page("drills", rest, limit, key, view)))
}

fn shown(project: &Project, drill: &StandingDrill, now: u64) -> Value {
    let mut shown = json!(drill);
    shown["freshness"] = json!(freshness(project, drill, now));
    shown["freshUntil"] = (drill.at + DRILL_LIFE_MS).into();
    shown
}

/// The body; nothing at all is an empty one.
fn read<T: Default + serde::de::DeserializeOwned>(write: &Write) -> Result<T, Problem> {
    if write.body.0.is_null() { Ok(T::default()) } else { write.body.read() }
}

fn problem(api: &Api, author: &Author, project: &str, error: DrillError) -> Problem {
    match error {
        DrillError::Change(error) => refusal(api, author, project, error),
        DrillError::Busy => Problem::new(Code::TooManyRequests, format!("{error}.")).retry_after_s(RETRY_AFTER_S),
        DrillError::Unknown(_) => Problem::new(Code::NotFound, format!("{error}. Make it again.")),
        DrillError::Check(faults) => {
            invalid(faults.into_iter().map(|(pointer, detail)| Fault::new(pointer, "outOfRange", detail)).collect())
        }
        DrillError::Interrupted => Problem::internal(error),
    }
}
