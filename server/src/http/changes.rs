//! `POST /api/v1/projects/{project}/changes`: the one way to change anything.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use guidon_sdk::model::is_valid_key;
use http::{HeaderName, HeaderValue, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::journal::is_in_sight;
use super::parameters::Path;
use super::problem::{Code, Fault, Problem};
use super::shown::hide_values;
use super::write::{Write, invalid};
use super::{Api, strict};
use crate::changes::limits::MAX_INSTRUCTIONS;
use crate::changes::{self, Author, ChangeDraft, ChangeError, ChangeOutcome, Instruction};
use crate::journal::Entry;
use crate::policy::{Action, PrincipalKind};

/// Says that an answer is the one to an earlier request with the same idempotency key.
pub const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// A change as callers send it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ChangeBody {
    environment: Option<String>,
    #[serde(default)]
    comment: String,
    commit: Option<String>,
    expected_revision: Option<u64>,
    #[serde(default)]
    dry_run: bool,
    instructions: Vec<Value>,
}

/// Makes a change: a list of instructions, all or none.
#[utoipa::path(
    post, path = "/api/v1/projects/{project}/changes", tag = "changes",
    params(("project" = String, Path, description = "Key of the project"),
           ("Idempotency-Key" = Option<String>, Header, description = "Makes it safe to send the request again within 24 hours")),
    request_body(content = ref("#/components/schemas/Change")),
    responses((status = 200, description = "What changed", body = ref("#/components/schemas/ChangeOutcome")),
              (status = 202, description = "It has to be a change request, which was opened", body = ref("#/components/schemas/RequestOutcome")))
)]
pub async fn create_change(
    State(api): State<Api>,
    Path(project): Path<String>,
    write: Write,
) -> Result<Response, Problem> {
    let body: ChangeBody = write.body.read()?;
    let instructions = read_instructions(&body.instructions)?;
    let draft = ChangeDraft {
        project,
        environment: body.environment,
        comment: body.comment,
        commit: body.commit,
        expected_revision: body.expected_revision,
        dry_run: body.dry_run,
        instructions,
        idempotency: write.idempotency.clone(),
        ..ChangeDraft::default()
    };
    submit(&api, write, draft).await.map(answer)
}

pub(super) fn read_instructions(values: &[Value]) -> Result<Vec<Instruction>, Problem> {
    if values.is_empty() {
        return Err(invalid(vec![Fault::new(
            "/instructions",
            "missingField",
            "a change has at least one instruction",
        )]));
    }
    if values.len() > MAX_INSTRUCTIONS {
        let detail = format!("a change has at most {MAX_INSTRUCTIONS} instructions, not {}", values.len());
        return Err(invalid(vec![Fault::new("/instructions", "tooMany", detail)]));
    }
    let (mut instructions, mut faults) = (Vec::with_capacity(values.len()), Vec::new());
    for (index, value) in values.iter().enumerate() {
        match strict::read_instruction(value, &format!("/instructions/{index}")) {
            Ok(it) if matches!(it.edit(), Instruction::CreateSdkKey { .. }) => faults.push(Fault::new(
                format!("/instructions/{index}/kind"),
                "notHere",
                "an SDK key is made by POST …/environments/{environment}/sdk-keys, which answers its credential",
            )),
            Ok(it) if matches!(it.edit(), Instruction::RotateSdkKey { .. }) => faults.push(Fault::new(
                format!("/instructions/{index}/kind"),
                "notHere",
                "an SDK key is rotated by POST …/sdk-keys/{id}/rotate, which answers the new credential",
            )),
            Ok(instruction) => instructions.push(instruction),
            Err(found) if faults.len() < strict::MAX_FAULTS => faults.extend(found),
            Err(_) => {}
        }
    }
    if faults.is_empty() { Ok(instructions) } else { Err(invalid(faults)) }
}

/// Hands a draft to the write path. The change goes on to its end though the caller hang up.
pub(super) async fn submit(api: &Api, write: Write, draft: ChangeDraft) -> Result<ChangeOutcome, Problem> {
    submit_by(api, write.author, draft).await
}

/// As [`submit`], for whoever `author` is.
pub(super) async fn submit_by(api: &Api, author: Author, draft: ChangeDraft) -> Result<ChangeOutcome, Problem> {
    let changes = api.changes.clone();
    let (by, of) = (author.clone(), draft.project.clone());
    let submitted = tokio::spawn(async move { changes.submit(&author, draft).await });
    submitted.await.map_err(Problem::internal)?.map_err(|error| refusal(api, &by, &of, error))
}

/// What became of a change that was not made, as its author may know it: of the entries in its way whole those that they may
/// read in the journal, of the others the revision.
pub(super) fn refusal(api: &Api, author: &Author, project: &str, error: ChangeError) -> Problem {
    let shown = match &error {
        ChangeError::Conflict { entries, .. } => conflicts(api, author, project, entries, |entry| json!(entry)),
        _ => return Problem::from(error),
    };
    let mut shown = Value::Array(shown);
    if author.kind == PrincipalKind::Agent {
        hide_values(&mut shown);
    }
    Problem::from(error).with("entries", shown)
}

/// Entries that are in the way of a change: of those that its author may not read in the journal the revision alone.
pub(super) fn conflicts(
    api: &Api,
    author: &Author,
    project: &str,
    entries: &[Arc<Entry>],
    view: impl Fn(&Entry) -> Value,
) -> Vec<Value> {
    let sight = api.sight(author, project, Action::ReadJournal);
    let world = api.world();
    let in_sight = |entry: &Entry| world.project(project).is_some_and(|state| is_in_sight(entry, state, &sight));
    entries.iter().map(|entry| if in_sight(entry) { view(entry) } else { only_named(entry) }).collect()
}

/// An entry as those know it who may not read it.
fn only_named(entry: &Entry) -> Value {
    json!({"revision": entry.revision})
}

/// What a change did, as callers read it; 202 where it had to become a change request and waits.
pub(super) fn answer(outcome: ChangeOutcome) -> Response {
    match outcome.opened() {
        Some(opened) => {
            let mut response = answer_step(&outcome, Some(json!(opened)));
            *response.status_mut() = StatusCode::ACCEPTED;
            response
        }
        None => marked(Json(view(&outcome)).into_response(), &outcome),
    }
}

/// What a step made of a change request.
pub(super) fn answer_step(outcome: &ChangeOutcome, request: Option<Value>) -> Response {
    let body = json!({"request": request, "revision": outcome.revision, "summary": outcome.summary});
    marked(Json(body).into_response(), outcome)
}

fn marked(mut response: Response, outcome: &ChangeOutcome) -> Response {
    if outcome.replayed {
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    }
    response
}

pub(super) fn view(outcome: &ChangeOutcome) -> Value {
    let mut shown = json!({
        "revision": outcome.revision,
        "changed": outcome.changed,
        "summary": outcome.summary,
        "dryRun": outcome.dry_run,
    });
    if let Some(request) = &outcome.request {
        shown["request"] = json!(request);
    }
    if let Some(needs) = &outcome.needs {
        shown["needs"] = json!(needs);
    }
    shown
}

/// Refuses a key of the wrong form before it is looked up, as not found: there cannot be such a thing.
pub(super) fn known_key<'a>(what: &str, key: &'a str) -> Result<&'a str, Problem> {
    if is_valid_key(key) { Ok(key) } else { Err(Problem::not_found(what, key)) }
}

impl From<changes::Problem> for Fault {
    fn from(problem: changes::Problem) -> Self {
        Self::new(problem.pointer, problem.code, problem.message)
    }
}

impl Problem {
    /// What the policies refused.
    fn refused(code: Code, detail: String, refused: changes::Refused) -> Self {
        let changes::Refused { action, environment, policies, .. } = refused;
        let problem = Self::new(code, format!("{detail}.")).with("action", action.as_str()).with("policies", policies);
        if environment.is_empty() { problem } else { problem.with("environment", environment) }
    }
}

/// For those of whom it is not known what they may see; `refusal` tells more.
impl From<ChangeError> for Problem {
    fn from(error: ChangeError) -> Self {
        let detail = error.to_string();
        let faults = |problems: Vec<changes::Problem>| problems.into_iter().map(Fault::from).collect();
        match error {
            ChangeError::Invalid { problems } => {
                let count = problems.len();
                let detail =
                    format!("{count} thing{} wrong; nothing was changed.", if count == 1 { " is" } else { "s are" });
                Self::new(Code::InvalidChange, detail).with_errors(faults(problems))
            }
            ChangeError::NotFound { problems } => Self::new(Code::NotFound, detail).with_errors(faults(problems)),
            ChangeError::Refused(refused) => Self::refused(Code::Forbidden, detail, refused),
            ChangeError::FactorNeeded(refused) => {
                let detail = format!("{detail}; prove it again (`guidon factor`) and send the request again");
                Self::refused(Code::FactorNeeded, detail, refused)
            }
            ChangeError::Conflict { expected, revision, entries } => Self::new(Code::StaleRevision, detail)
                .with("expectedRevision", expected)
                .with("revision", revision)
                .with("entries", entries.iter().map(|entry| only_named(entry)).collect::<Vec<_>>()),
            ChangeError::IdempotencyKeyReused { .. } => Self::new(Code::IdempotencyKeyReused, detail),
            ChangeError::DiskFull => Self::new(Code::DiskFull, detail),
            ChangeError::TooLarge { limit, .. } => Self::new(Code::BodyTooLarge, detail).with("limitBytes", limit),
            ChangeError::Busy => Self::new(Code::TooManyRequests, detail).retry_after_s(1),
            ChangeError::Unavailable { reason } => {
                tracing::error!(reason, "a change was refused: the server takes no writes");
                Self::new(
                    Code::ReadOnly,
                    "The server takes no writes until it is restarted or mended; its log has the cause.",
                )
            }
        }
    }
}
