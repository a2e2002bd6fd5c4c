//! `/api/v1/projects/{project}/journal` and `…/flags/{flag}/history`: what was changed, by whom, when and why.

use std::collections::BTreeSet;

use axum::extract::State;
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Api;
use super::auth::Caller;
use super::guard::Sight;
use super::page::limit;
use super::parameters::{Path, Query};
use super::problem::Problem;
use super::shown::hide_values;
use crate::changes::{Instruction, RequestEdit};
use crate::journal::{Entry, ObjectId, ReadError, StoredEntry};
use crate::policy::PrincipalKind;
use crate::state::Project;

/// Most entries that one request looks through; `next` says where to go on.
const MAX_SCANNED_ENTRIES: u64 = 20_000;
/// Entries read at once.
const READ_ENTRIES: usize = 500;

/// Which entries.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct JournalQuery {
    /// Answers entries after this revision; 0 by default.
    after: Option<u64>,
    /// Most entries to answer: 1 to 1,000, 100 by default.
    limit: Option<usize>,
    /// Only entries that changed this flag.
    flag: Option<String>,
    /// Only entries that changed something in this environment.
    environment: Option<String>,
}

/// Which entries of a flag's history.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct HistoryQuery {
    /// Answers entries after this revision; 0 by default.
    after: Option<u64>,
    /// Most entries to answer: 1 to 1,000, 100 by default.
    limit: Option<usize>,
    /// Only entries that changed the flag in this environment, or in all of them.
    environment: Option<String>,
}

/// Lists the journal's entries about a project, oldest first, without those about environments that the caller may not see. A
/// page may be empty and still have a `next`.
#[utoipa::path(get, path = "/api/v1/projects/{project}/journal", tag = "journal",
    params(("project" = String, Path, description = "Key of the project"), JournalQuery),
    responses((status = 200, description = "A page of entries", body = ref("#/components/schemas/EntryPage"))))]
pub async fn list_entries(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Extension(sight): Extension<Sight>,
    Path(project): Path<String>,
    Query(query): Query<JournalQuery>,
) -> Result<Json<Value>, Problem> {
    let state = api.project(&project)?;
    let limit = limit(query.limit)?;
    let wanted = |entry: &Entry| {
        entry.project == project
            && is_in_sight(entry, &state, &sight)
            && query.flag.as_deref().is_none_or(|flag| changes_flag(entry, flag))
            && query.environment.as_deref().is_none_or(|environment| changes_environment(entry, environment))
    };
    scan(&api, &caller, query.after.unwrap_or(0), limit, wanted).await.map(Json)
}

/// Lists what changed a flag, oldest first, without what was done in environments that the caller may not see.
#[utoipa::path(get, path = "/api/v1/projects/{project}/flags/{flag}/history", tag = "flags",
    params(("project" = String, Path, description = "Key of the project"),
           ("flag" = String, Path, description = "Key of the flag; a deleted one has a history too"), HistoryQuery),
    responses((status = 200, description = "A page of entries", body = ref("#/components/schemas/EntryPage"))))]
pub async fn list_flag_history(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Extension(sight): Extension<Sight>,
    Path((project, flag)): Path<(String, String)>,
    Query(query): Query<HistoryQuery>,
) -> Result<Json<Value>, Problem> {
    let state = api.project(&project)?;
    super::changes::known_key("flag", &flag)?;
    let limit = limit(query.limit)?;
    let in_environment = |entry: &Entry| {
        query.environment.as_deref().is_none_or(|environment| {
            entry.objects.iter().any(|changed| match &changed.object {
                ObjectId::Flag(key) => *key == flag,
                ObjectId::FlagEnvironment(of, key) => of == environment && *key == flag,
                _ => false,
            })
        })
    };
    let wanted = |entry: &Entry| {
        entry.project == project
            && changes_flag(entry, &flag)
            && in_environment(entry)
            && is_in_sight(entry, &state, &sight)
    };
    let found = scan(&api, &caller, query.after.unwrap_or(0), limit, wanted).await?;
    let is_unknown = !state.flags.contains_key(&flag)
        && query.after.is_none()
        && found["next"].is_null()
        && found["entries"].as_array().is_some_and(Vec::is_empty);
    if is_unknown { Err(Problem::not_found("flag", &flag)) } else { Ok(Json(found)) }
}

async fn scan(
    api: &Api,
    caller: &Caller,
    after: u64,
    limit: usize,
    wanted: impl Fn(&Entry) -> bool,
) -> Result<Value, Problem> {
    let journal = api.changes.journal();
    // What the state does not show yet is not answered either.
    let newest = api.world().revision;
    let (mut position, mut entries) = (after, Vec::new());
    while position < newest && entries.len() < limit && position - after < MAX_SCANNED_ENTRIES {
        let read = journal.read(position, READ_ENTRIES).await.map_err(damaged)?;
        if read.is_empty() {
            break;
        }
        for stored in read {
            if stored.entry.revision > newest || entries.len() == limit {
                break;
            }
            position = stored.entry.revision;
            if wanted(&stored.entry) {
                entries.push(view(&stored));
            }
        }
    }
    let mut entries = Value::Array(entries);
    if caller.author.kind == PrincipalKind::Agent {
        hide_values(&mut entries);
    }
    Ok(json!({"entries": entries, "next": (position < newest).then_some(position)}))
}

fn changes_flag(entry: &Entry, flag: &str) -> bool {
    entry.objects.iter().any(|changed| match &changed.object {
        ObjectId::Flag(key)
        | ObjectId::FlagEnvironment(_, key)
        | ObjectId::Drill(_, key)
        | ObjectId::Release(_, key) => key == flag,
        _ => false,
    })
}

fn changes_environment(entry: &Entry, environment: &str) -> bool {
    entry.named_environments().any(|named| named == environment)
        || entry.objects.iter().any(|changed| match &changed.object {
            ObjectId::Environment(key)
            | ObjectId::FlagEnvironment(key, _)
            | ObjectId::Segment(key, _)
            | ObjectId::Drill(key, _)
            | ObjectId::Release(key, _) => key == environment,
            _ => false,
        })
}

/// Whether the caller may see all the environments that an entry is about. One about what all of them share is shown.
pub(super) fn is_in_sight(entry: &Entry, project: &Project, sight: &Sight) -> bool {
    sight.sees_all(&environments_of(entry, project))
}

/// The environments that an entry is about: those it names, those it changed something in and, of a change request or its review, those that it
/// would change or has changed. What all environments share was judged in each of them and is about none.
fn environments_of(entry: &Entry, project: &Project) -> BTreeSet<String> {
    let mut about: BTreeSet<String> = entry.named_environments().map(str::to_owned).collect();
    for changed in &entry.objects {
        match &changed.object {
            ObjectId::Environment(key)
            | ObjectId::FlagEnvironment(key, _)
            | ObjectId::Segment(key, _)
            | ObjectId::Drill(key, _)
            | ObjectId::Release(key, _) => {
                about.insert(key.clone());
            }
            ObjectId::SdkKey(id) => about.extend(project.sdk_keys.get(id).map(|key| key.environment.clone())),
            ObjectId::Request(id) => {
                let request = project.requests.get(id);
                about.extend(request.iter().flat_map(|request| request.content.environments.iter().cloned()));
                about.extend(entry.grounds.iter().flat_map(|grounds| grounds.environments.iter().cloned()));
            }
            ObjectId::Review(_) => {
                about.extend(entry.grounds.iter().flat_map(|grounds| grounds.environments.iter().cloned()));
            }
            _ => {}
        }
    }
    // What a request asked for before it was edited.
    for instruction in &entry.instructions {
        if let Instruction::Request(edit) = instruction
            && let RequestEdit::OpenRequest { content, .. } | RequestEdit::EditRequest { content, .. } = &**edit
        {
            about.extend(content.environments.iter().cloned());
        }
    }
    about
}

fn view(stored: &StoredEntry) -> Value {
    let mut shown = json!(*stored.entry);
    shown["hash"] = stored.hash.to_string().into();
    shown
}

pub(super) fn damaged(error: ReadError) -> Problem {
    Problem::internal(error)
}
