//! Configuration as code: plans of documents, promotions, drift and exports.

mod answer;
mod export;
mod promote;
mod read;
pub(super) mod schema;

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Api;
use super::changes::{answer as answer_change, conflicts, refusal, submit_by};
use super::guard::Sight;
use super::parameters::Path;
use super::problem::{Code, Fault, Problem};
use super::shown::hide_values;
use super::write::{Write, invalid};
use crate::changes::{Author, ChangeDraft, ChangeError, ChangeOutcome, IdempotencyKey};
use crate::environments::document::Document;
use crate::environments::plan::{Plan, PlanOptions, plan};
use crate::journal::{Entry, ObjectId};
use crate::policy::{Action, PrincipalKind, Resource};
use crate::state::Project;

use answer::{Facts, show};
use read::read_document;

/// The operations, for the API's description.
#[derive(utoipa::OpenApi)]
#[openapi(paths(
    create_plan,
    apply_document,
    promote::promote_flags,
    promote::show_drift,
    export::export_documents,
    schema::show_document_schema
))]
pub struct Operations;

/// The routes, behind authentication and the policies.
pub fn routes() -> Router<Api> {
    let of_project = |rest: &str| format!("/api/v1/projects/{{project}}{rest}");
    Router::new()
        .route(&of_project("/plan"), post(create_plan))
        .route(&of_project("/apply"), post(apply_document))
        .route(&of_project("/promote"), post(promote::promote_flags))
        .route(&of_project("/drift"), get(promote::show_drift))
        .route(&of_project("/documents"), get(export::export_documents))
}

/// Routes that say nothing of the store, open to everybody.
pub fn open_routes() -> Router<Api> {
    Router::new().route("/api/v1/schema/configuration.json", get(schema::show_document_schema))
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PlanBody {
    document: Value,
    #[serde(default)]
    prune: bool,
    base_revision: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ApplyBody {
    document: Value,
    #[serde(default)]
    prune: bool,
    base_revision: Option<u64>,
    #[serde(default)]
    comment: String,
    commit: Option<String>,
    #[serde(default)]
    dry_run: bool,
}

/// Compares a document with the project: what would be changed, and what the policies would say to it.
#[utoipa::path(post, path = "/api/v1/projects/{project}/plan", tag = "as code",
    params(("project" = String, Path, description = "Key of the project")),
    request_body(content = ref("#/components/schemas/PlanRequest")),
    responses((status = 200, description = "The plan", body = ref("#/components/schemas/Plan")),
              (status = 422, description = "What is wrong with the document, all at once")))]
pub async fn create_plan(
    State(api): State<Api>,
    Path(project): Path<String>,
    axum::Extension(sight): axum::Extension<Sight>,
    // It changes nothing, and costs as much as what does: it counts towards the same limit.
    Write { body, author, .. }: Write,
) -> Result<Json<Value>, Problem> {
    let PlanBody { document, prune, base_revision } = body.read()?;
    let planned = plan_document(&api, &author, &project, sight, &document, prune).await?;
    let since = since(&api, &author, &planned, base_revision).await?;
    show(&api, &author, planned.facts(), since).await.map(Json)
}

/// Makes the project what a document says, as one change.
#[utoipa::path(post, path = "/api/v1/projects/{project}/apply", tag = "as code",
    params(("project" = String, Path, description = "Key of the project"),
           ("Idempotency-Key" = Option<String>, Header, description = "Makes it safe to send the request again within 24 hours")),
    request_body(content = ref("#/components/schemas/ApplyRequest")),
    responses((status = 200, description = "What changed", body = ref("#/components/schemas/ChangeOutcome")),
              (status = 202, description = "It has to be a change request, which was opened", body = ref("#/components/schemas/RequestOutcome")),
              (status = 409, description = "Something the document speaks of has changed since the plan was made"),
              (status = 422, description = "What is wrong with the document, all at once")))]
pub async fn apply_document(
    State(api): State<Api>,
    Path(project): Path<String>,
    write: Write,
) -> Result<Response, Problem> {
    let ApplyBody { document, prune, base_revision, comment, commit, dry_run } = write.body.read()?;
    let sight = sight_of_writer(&api, &write.author, &project)?;
    let planned = plan_document(&api, &write.author, &project, sight, &document, prune).await?;
    let base_revision = checked_base(base_revision, planned.revision)?;
    if !api.changes.is_repeat(&write.author, write.idempotency.as_ref())
        && let Some(conflict) = conflict(&api, &project, planned.revision, base_revision, &planned.touched()).await?
    {
        return Err(refusal(&api, &write.author, &project, conflict));
    }
    let touched = planned.touched();
    let draft = ChangeDraft {
        project,
        comment: if comment.is_empty() { "Applied from files".to_owned() } else { comment },
        commit,
        dry_run,
        ..ChangeDraft::default()
    };
    carry_out(&api, write.author, write.idempotency, draft, (planned.plan, planned.revision), &touched).await
}

/// A document's plan, and what it was made against.
struct Planned {
    project: Arc<Project>,
    document: Arc<Document>,
    prune: bool,
    plan: Plan,
    revision: u64,
}

impl Planned {
    fn facts(&self) -> Facts<'_> {
        Facts { project: &self.project, revision: self.revision, plan: &self.plan, pointer: "/document" }
    }

    fn touched(&self) -> Touched {
        Touched::Document { document: Arc::clone(&self.document), prune: self.prune }
    }
}

/// What a plan speaks of: a change of anything else since is none of its business.
pub(super) enum Touched {
    /// What a document says something about.
    Document { document: Arc<Document>, prune: bool },
    /// Flags (all, if none are named) and segments in the two environments of a promotion.
    Promotion { ends: [String; 2], flags: Option<Vec<String>>, segments: BTreeSet<String> },
}

impl Touched {
    fn is_touched(&self, object: &ObjectId) -> bool {
        match self {
            Self::Document { document, prune } => in_document(document, *prune, object),
            Self::Promotion { ends, flags, segments } => {
                let is_flag = |key: &String| flags.as_ref().is_none_or(|flags| flags.contains(key));
                match object {
                    ObjectId::Environment(key) => ends.contains(key),
                    ObjectId::Flag(key) => is_flag(key),
                    ObjectId::FlagEnvironment(environment, key) => ends.contains(environment) && is_flag(key),
                    ObjectId::Segment(environment, key) => ends.contains(environment) && segments.contains(key),
                    _ => false,
                }
            }
        }
    }
}

fn in_document(document: &Document, prune: bool, object: &ObjectId) -> bool {
    let flag = |key: &String| document.flags.as_ref().and_then(|flags| flags.get(key));
    let prunes_flags = prune && document.flags.is_some();
    match object {
        ObjectId::Environment(key) => {
            document.environments.as_ref().is_some_and(|environments| environments.contains_key(key))
        }
        ObjectId::Flag(key) => prunes_flags || flag(key).is_some(),
        ObjectId::FlagEnvironment(environment, key) => {
            flag(key).is_some_and(|flag| flag.environments.contains_key(environment))
        }
        ObjectId::Segment(environment, key) => {
            let here = document.segments.as_ref().and_then(|segments| segments.get(environment));
            here.is_some_and(|segments| prune || segments.contains_key(key))
        }
        _ => false,
    }
}

/// The environments that somebody who writes may read: a plan shows, and takes, no others.
pub(super) fn sight_of_writer(api: &Api, author: &Author, project: &str) -> Result<Sight, Problem> {
    let sight = api.sight(author, project, Action::ReadConfiguration);
    if sight.is_empty() {
        // Refused, and noted, as reading is.
        api.allow(author, Action::ReadConfiguration, &api.place(project, ""), true)?;
    }
    Ok(sight)
}

/// Has work that takes a while done where it keeps nobody waiting.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
    tokio::task::spawn_blocking(work).await.map_err(Problem::internal)
}

/// Reads a document and plans it; all that is wrong is one problem.
async fn plan_document(
    api: &Api,
    author: &Author,
    project: &str,
    sight: Sight,
    document: &Value,
    prune: bool,
) -> Result<Planned, Problem> {
    let world = api.world();
    let state = world.project(project).cloned().ok_or_else(|| Problem::not_found("project", project))?;
    let (document, mut faults) = read_document(document, "/document");
    check_sight(api, author, &state, &document, &sight)?;
    let document = Arc::new(document);
    let (of, asked) = (Arc::clone(&state), Arc::clone(&document));
    let planned =
        aside(move || plan(&of, &asked, &PlanOptions { prune, seen: &|environment| sight.sees(environment) })).await?;
    let problems = planned.problems.iter().cloned().map(|problem| {
        let fault = Fault::from(problem);
        Fault { pointer: format!("/document{}", fault.pointer), ..fault }
    });
    // What could not be read is missing from the plan, and would be found missing once more.
    faults.extend(problems.filter(|_| faults.is_empty()).collect::<Vec<_>>());
    if faults.is_empty() {
        return Ok(Planned { project: state, document, prune, plan: planned, revision: world.revision });
    }
    Err(wrong(faults))
}

/// A document that has these faults.
pub(super) fn wrong(faults: Vec<Fault>) -> Problem {
    let count = faults.len();
    let detail = format!("{count} thing{} wrong; nothing was changed.", if count == 1 { " is" } else { "s are" });
    Problem::new(Code::InvalidChange, detail).with_errors(faults)
}

/// Refuses a document that speaks of environments that its author may not read.
fn check_sight(
    api: &Api,
    author: &Author,
    project: &Project,
    document: &Document,
    sight: &Sight,
) -> Result<(), Problem> {
    let of_flags = document.flags.iter().flatten().flat_map(|(_, flag)| flag.environments.keys());
    let of_segments = document.segments.iter().flat_map(|segments| segments.keys());
    let named = document.environments.iter().flat_map(|environments| environments.keys());
    let mut named: Vec<&String> = named.chain(of_flags).chain(of_segments).collect();
    named.sort_unstable();
    named.dedup();
    for key in named.into_iter().filter(|key| !sight.sees(key)) {
        let resource =
            match (project.environments.get(key), document.environments.as_ref().and_then(|all| all.get(key))) {
                (None, Some(new)) if new.tier.is_some() => {
                    Resource { project: project.key.clone(), environment: key.clone(), tier: new.tier }
                }
                _ => api.place(&project.key, key),
            };
        api.allow(author, Action::ReadConfiguration, &resource, true)?;
    }
    Ok(())
}

/// Entries since an earlier plan that touched what the document speaks of, as the caller may know them.
async fn since(
    api: &Api,
    author: &Author,
    planned: &Planned,
    base_revision: Option<u64>,
) -> Result<Option<Value>, Problem> {
    let Some(base) = checked_base(base_revision, planned.revision)?.filter(|base| *base < planned.revision) else {
        return Ok(None);
    };
    let touched = planned.touched();
    let is_touched = |object: &ObjectId| touched.is_touched(object);
    let key = &planned.project.key;
    let found = api.changes.entries_since(base, key, &is_touched).await.map_err(Problem::from)?;
    Ok(match found {
        Some(entries) if entries.is_empty() => None,
        found => {
            let entries = found.unwrap_or_default();
            let mut shown = Value::Array(conflicts(api, author, key, &entries, |entry: &Entry| json!(entry)));
            if author.kind == PrincipalKind::Agent {
                hide_values(&mut shown);
            }
            Some(json!({"baseRevision": base, "entries": shown}))
        }
    })
}

fn checked_base(base: Option<u64>, revision: u64) -> Result<Option<u64>, Problem> {
    if base.is_some_and(|base| base > revision) {
        let detail = format!("the store is at revision {revision}; a plan cannot be newer");
        return Err(invalid(vec![Fault::new("/baseRevision", "outOfRange", detail)]));
    }
    Ok(base)
}

/// The conflict with what was changed since an earlier plan was made.
pub(super) async fn conflict(
    api: &Api,
    project: &str,
    revision: u64,
    base: Option<u64>,
    touched: &Touched,
) -> Result<Option<ChangeError>, Problem> {
    let Some(expected) = base.filter(|base| *base < revision) else { return Ok(None) };
    let is_touched = |object: &ObjectId| touched.is_touched(object);
    let found = api.changes.entries_since(expected, project, &is_touched).await.map_err(Problem::from)?;
    Ok(match found {
        Some(entries) if entries.is_empty() => None,
        found => Some(ChangeError::Conflict { expected, revision, entries: found.unwrap_or_default() }),
    })
}

/// Makes a plan that was made at `revision` one change.
pub(super) async fn carry_out(
    api: &Api,
    author: Author,
    idempotency: Option<IdempotencyKey>,
    draft: ChangeDraft,
    (plan, revision): (Plan, u64),
    touched: &Touched,
) -> Result<Response, Problem> {
    if plan.is_empty() && !api.changes.is_repeat(&author, idempotency.as_ref()) {
        return Ok(answer_change(ChangeOutcome::nothing(revision, draft.dry_run)).into_response());
    }
    let instructions = plan.instructions();
    let expected_revision = Some(draft.expected_revision.unwrap_or(revision));
    let draft = ChangeDraft { instructions, idempotency, expected_revision, ..draft };
    let project = draft.project.clone();
    match submit_by(api, author.clone(), draft).await {
        Ok(outcome) => Ok(answer_change(outcome)),
        Err(problem) if matches!(problem.code(), Code::InvalidChange | Code::NotFound) => {
            // What was not wrong when it was planned may have become so by what another changed meanwhile.
            let is_touched = |object: &ObjectId| touched.is_touched(object);
            let found = api.changes.entries_since(revision, &project, &is_touched).await.map_err(Problem::from)?;
            match found {
                Some(entries) if entries.is_empty() => Err(answer::in_document(problem, &plan, "/document")),
                // None: so much was changed meanwhile that it is not looked through.
                found => {
                    let entries = found.unwrap_or_default();
                    // The last of them need not be durable, and so in sight, yet.
                    let newest = entries.iter().map(|entry| entry.revision).fold(api.world().revision, u64::max);
                    let error = ChangeError::Conflict { expected: revision, revision: newest, entries };
                    Err(refusal(api, &author, &project, error))
                }
            }
        }
        Err(problem) => Err(problem),
    }
}
