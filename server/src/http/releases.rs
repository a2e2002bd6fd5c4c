//! `…/environments/{environment}/releases`, `…/flags/{flag}/release` and `…/incidents`: how releases go, and what happened in
//! them. What is done with a release is an instruction of a change.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::State;
use axum::routing::get;
use axum::{Extension, Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Api;
use super::auth::Caller;
use super::changes::known_key;
use super::journal::damaged;
use super::page::{limit, page};
use super::parameters::{Path, Query};
use super::problem::{Code, Fault, Problem};
use super::write::invalid;
use crate::changes::Author;
use crate::journal::Entry;
use crate::policy::PrincipalKind;
use crate::releases::report::{MAX_EVENTS, Report, is_about};
use crate::releases::{Incident, Release, ReleaseState};
use crate::state::Project;

/// Most entries that one report looks through, from the release's start on; the report says so if it is cut short.
const MAX_SCANNED_ENTRIES: u64 = 100_000;
/// Entries read at once.
const READ_ENTRIES: usize = 500;

/// The operations, for the API's description.
#[derive(utoipa::OpenApi)]
#[openapi(paths(list_releases, show_release, show_release_report, list_incidents, show_incident))]
pub struct Operations;

/// The routes, behind authentication and the policies.
pub(super) fn routes() -> Router<Api> {
    let environment = "/api/v1/projects/{project}/environments/{environment}";
    Router::new()
        .route(&format!("{environment}/releases"), get(list_releases))
        .route(&format!("{environment}/flags/{{flag}}/release"), get(show_release))
        .route(&format!("{environment}/flags/{{flag}}/release/report"), get(show_release_report))
        .route(&format!("{environment}/incidents"), get(list_incidents))
        .route(&format!("{environment}/incidents/{{id}}"), get(show_incident))
}

/// Which releases.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ReleaseQuery {
    /// Only those that stand here: `running`, `paused`, `completed`, `aborted` or `rolledBack`; `active` for the first two.
    state: Option<String>,
    /// Most items to answer: 1 to 1,000, 100 by default.
    limit: Option<usize>,
    /// Answers items after this one: the `next` of the page before.
    after: Option<String>,
}

/// Which incidents.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct IncidentQuery {
    /// Only those that are still to be closed, or only those that are closed.
    open: Option<bool>,
    /// Only those of this flag.
    flag: Option<String>,
    /// Most items to answer: 1 to 1,000, 100 by default.
    limit: Option<usize>,
    /// Answers items after this one: the `next` of the page before.
    after: Option<String>,
}

/// Lists the last release of each flag in an environment.
#[utoipa::path(get, path = "/api/v1/projects/{project}/environments/{environment}/releases", tag = "releases",
    params(("project" = String, Path, description = "Key of the project"),
           ("environment" = String, Path, description = "Key of the environment"), ReleaseQuery),
    responses((status = 200, description = "A page of releases, by flag", body = ref("#/components/schemas/ReleasePage"))))]
pub async fn list_releases(
    State(api): State<Api>,
    Path((project, environment)): Path<(String, String)>,
    Query(query): Query<ReleaseQuery>,
) -> Result<Json<Value>, Problem> {
    let (limit, project) = (limit(query.limit)?, api.project_with(&project, &environment)?);
    let in_state = state_filter(query.state.as_deref())?;
    let after = query.after.unwrap_or_default();
    let releases = project.releases.range((environment.clone(), String::new())..);
    let here = releases.take_while(|((of, _), _)| *of == environment).map(|(_, release)| release);
    let wanted = here.filter(|release| in_state(release.state) && release.flag > after);
    Ok(Json(page("releases", wanted, limit, |release| release.flag.clone(), |release| view(&api, &project, release))))
}

fn state_filter(wanted: Option<&str>) -> Result<impl Fn(ReleaseState) -> bool, Problem> {
    let state = match wanted {
        None | Some("active") => None,
        Some(word) => Some(serde_json::from_value::<ReleaseState>(json!(word)).map_err(|_| {
            let detail =
                format!("{word:?} is no state of a release: active, running, paused, completed, aborted or rolledBack");
            invalid(vec![Fault::new("", "invalidParameter", detail)])
        })?),
    };
    let active = wanted == Some("active");
    Ok(move |found: ReleaseState| state.is_none_or(|state| state == found) && (!active || found.is_active()))
}

/// Shows the last release of a flag in an environment: its plan, where it stands, and what the guard sees of it now.
#[utoipa::path(get, path = "/api/v1/projects/{project}/environments/{environment}/flags/{flag}/release", tag = "releases",
    params(("project" = String, Path, description = "Key of the project"),
           ("environment" = String, Path, description = "Key of the environment"),
           ("flag" = String, Path, description = "Key of the flag")),
    responses((status = 200, description = "The release", body = ref("#/components/schemas/ReleaseView"))))]
pub async fn show_release(
    State(api): State<Api>,
    Path((project, environment, flag)): Path<(String, String, String)>,
) -> Result<Json<Value>, Problem> {
    let (project, release) = find(&api, &project, &environment, &flag)?;
    Ok(Json(view(&api, &project, &release)))
}

/// Tells a flag's last release in an environment from its start: steps, decisions with their numbers, approvals, incidents.
#[utoipa::path(get, path = "/api/v1/projects/{project}/environments/{environment}/flags/{flag}/release/report", tag = "releases",
    params(("project" = String, Path, description = "Key of the project"),
           ("environment" = String, Path, description = "Key of the environment"),
           ("flag" = String, Path, description = "Key of the flag")),
    responses((status = 200, description = "The report", body = ref("#/components/schemas/ReleaseReport"))))]
pub async fn show_release_report(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path((project, environment, flag)): Path<(String, String, String)>,
) -> Result<Json<Value>, Problem> {
    let (state, release) = find(&api, &project, &environment, &flag)?;
    let entries = entries_of(&api, &project, &release).await?;
    let live = api.releases.live(&project, &environment, &flag);
    let mut incidents: Vec<Incident> = state
        .incidents
        .values()
        .filter(|incident| incident.release == release.id)
        .map(|it| Incident::clone(it))
        .collect();
    incidents.sort_by_key(|incident| incident.opened_revision);
    let report = Report::new(&release, live, entries.iter().map(|entry| &**entry), incidents);
    let mut shown = json!(report);
    shown["at"] = api.clock.now_ms().into();
    if let Some(names) = names(&api, &caller.author, report.people().collect()) {
        shown["names"] = names;
    }
    Ok(Json(shown))
}

/// The names of people and programs by id, for those who may know who works here: AI agents may not.
fn names(api: &Api, reader: &Author, ids: BTreeSet<&str>) -> Option<Value> {
    let named = || ids.iter().map(|id| ((*id).to_owned(), api.audit_door.person(id).into())).collect();
    (reader.kind != PrincipalKind::Agent).then(|| Value::Object(named()))
}

/// The entries that changed a release, from its start on, oldest first; the last ones if there are very many.
async fn entries_of(api: &Api, project: &str, release: &Release) -> Result<Vec<Arc<Entry>>, Problem> {
    let journal = api.changes.journal();
    // What the state does not show yet is not told either.
    let newest = api.world().revision.min(release.revision);
    let first = release.started_revision.saturating_sub(1);
    let (mut position, mut entries) = (first.max(newest.saturating_sub(MAX_SCANNED_ENTRIES)), Vec::new());
    while position < newest {
        let read = journal.read(position, READ_ENTRIES).await.map_err(damaged)?;
        let Some(last) = read.last() else { break };
        position = last.entry.revision;
        let about = read.into_iter().map(|stored| stored.entry);
        entries.extend(about.filter(|entry| {
            entry.revision <= newest && entry.project == project && is_about(entry, &release.environment, &release.flag)
        }));
        // One more than is told, so that it is said that some are left out.
        let surplus = entries.len().saturating_sub(MAX_EVENTS + 1);
        entries.drain(..surplus);
    }
    Ok(entries)
}

/// Lists the incidents of an environment, newest first.
#[utoipa::path(get, path = "/api/v1/projects/{project}/environments/{environment}/incidents", tag = "releases",
    params(("project" = String, Path, description = "Key of the project"),
           ("environment" = String, Path, description = "Key of the environment"), IncidentQuery),
    responses((status = 200, description = "A page of incidents", body = ref("#/components/schemas/IncidentPage"))))]
pub async fn list_incidents(
    State(api): State<Api>,
    Path((project, environment)): Path<(String, String)>,
    Query(query): Query<IncidentQuery>,
) -> Result<Json<Value>, Problem> {
    let (limit, project) = (limit(query.limit)?, api.project_with(&project, &environment)?);
    let wanted = |incident: &&Arc<Incident>| {
        incident.environment == environment
            && query.open.is_none_or(|open| open == incident.finding.is_none())
            && query.flag.as_ref().is_none_or(|flag| *flag == incident.flag)
    };
    let mut incidents: Vec<&Arc<Incident>> = project.incidents.values().filter(wanted).collect();
    incidents.sort_by_key(|incident| std::cmp::Reverse(cursor(incident)));
    let after = query.after.unwrap_or_default();
    let rest = incidents.into_iter().filter(|incident| after.is_empty() || cursor(incident) < after);
    Ok(Json(page("incidents", rest, limit, |incident| cursor(incident), |incident| json!(***incident))))
}

/// Its place in the list: when it was opened, in digits that sort, then its id.
fn cursor(incident: &Incident) -> String {
    format!("{:015}.{}", incident.opened_revision, incident.id)
}

/// Shows an incident: what the server did, on which numbers, and what was found.
#[utoipa::path(get, path = "/api/v1/projects/{project}/environments/{environment}/incidents/{id}", tag = "releases",
    params(("project" = String, Path, description = "Key of the project"),
           ("environment" = String, Path, description = "Key of the environment"),
           ("id" = String, Path, description = "Id of the incident")),
    responses((status = 200, description = "The incident", body = ref("#/components/schemas/Incident"))))]
pub async fn show_incident(
    State(api): State<Api>,
    Path((project, environment, id)): Path<(String, String, String)>,
) -> Result<Json<Value>, Problem> {
    let project = api.project_with(&project, &environment)?;
    let incident = project.incidents.get(&id).filter(|incident| incident.environment == environment);
    incident.map(|incident| Json(json!(**incident))).ok_or_else(|| Problem::not_found("incident", &id))
}

fn find(api: &Api, project: &str, environment: &str, flag: &str) -> Result<(Arc<Project>, Arc<Release>), Problem> {
    let state = api.project_with(project, environment)?;
    if !state.flags.contains_key(known_key("flag", flag)?) {
        return Err(Problem::not_found("flag", flag));
    }
    let release = state.release(environment, flag).cloned();
    let release = release.ok_or_else(|| {
        let remedy = format!("start one (guidon release start {flag} -e {environment})");
        Problem::new(Code::NotFound, format!("{flag:?} has had no release in {environment}: {remedy}."))
    })?;
    Ok((state, release))
}

/// A release as callers read it, with what the guard sees now; `live` is null where nothing is measured yet.
fn view(api: &Api, project: &Project, release: &Release) -> Value {
    let mut shown = json!(release);
    let live = || api.releases.live(&project.key, &release.environment, &release.flag);
    shown["live"] = if release.state.is_active() { json!(live()) } else { Value::Null };
    let open = project.open_incidents(&release.environment, &release.flag);
    shown["openIncidents"] = open
        .map(|incident| json!({"id": incident.id, "kind": incident.kind, "locks": incident.kind.locks()}))
        .collect();
    // What times are told against: the reader's clock may be another.
    shown["at"] = api.clock.now_ms().into();
    shown
}
