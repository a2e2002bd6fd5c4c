//! `POST …/environments/{environment}/revert`: back to an earlier revision, as a new entry.

use std::collections::BTreeSet;

use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;

use super::Api;
use super::changes::{answer, submit};
use super::journal::damaged;
use super::parameters::Path;
use super::problem::{Code, Fault, Problem};
use super::write::{Write, invalid};
use crate::changes::{ChangeDraft, Instruction};
use crate::journal::{Entry, ObjectId};
use crate::policy::Action;
use crate::state::Project;

/// Most entries that a revert of a whole environment looks back over.
const MAX_REVERTED_ENTRIES: u64 = 20_000;
/// Entries read at once.
const READ_ENTRIES: usize = 500;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RevertBody {
    to_revision: u64,
    flags: Option<Vec<String>>,
    segments: Option<Vec<String>>,
    #[serde(default)]
    comment: String,
    expected_revision: Option<u64>,
    #[serde(default)]
    dry_run: bool,
}

/// Puts flags and segments of an environment back to what they were at an earlier revision.
///
/// Without `flags` and `segments`, all that changed since then; what was created since stays as it is.
#[utoipa::path(post, path = "/api/v1/projects/{project}/environments/{environment}/revert", tag = "changes",
    params(("project" = String, Path, description = "Key of the project"),
           ("environment" = String, Path, description = "Key of the environment"),
           ("Idempotency-Key" = Option<String>, Header, description = "Makes it safe to send the request again within 24 hours")),
    request_body(content = ref("#/components/schemas/Revert")),
    responses((status = 200, description = "What changed", body = ref("#/components/schemas/ChangeOutcome"))))]
pub async fn revert_environment(
    State(api): State<Api>,
    Path((project, environment)): Path<(String, String)>,
    write: Write,
) -> Result<Response, Problem> {
    let body: RevertBody = write.body.read()?;
    api.may_hear(&write.author, Action::RevertFlag, &project, &environment)?;
    let world = api.world();
    let state = api.project_with(&project, &environment)?;
    if body.to_revision >= world.revision {
        let detail = format!("the store is at revision {}; name an earlier one", world.revision);
        return Err(invalid(vec![Fault::new("/toRevision", "outOfRange", detail)]));
    }
    let RevertBody { to_revision, flags, segments, comment, expected_revision, dry_run } = body;
    let (flags, segments) = match (flags, segments) {
        (None, None) => changed_since(&api, &state, &environment, to_revision, world.revision).await?,
        (flags, segments) => (flags.unwrap_or_default(), segments.unwrap_or_default()),
    };
    if flags.is_empty() && segments.is_empty() {
        let detail = format!("nothing that still exists in {environment:?} has changed since revision {to_revision}");
        return Err(invalid(vec![Fault::new("/toRevision", "nothingToRevert", detail)]));
    }
    let flags = flags.into_iter().map(|flag| Instruction::RevertFlag { flag, to_revision, state: None });
    let segments = segments.into_iter().map(|segment| Instruction::RevertSegment { segment, to_revision, state: None });
    let comment = if comment.is_empty() { format!("Revert to revision {to_revision}") } else { comment };
    let draft = ChangeDraft {
        project,
        environment: Some(environment),
        comment,
        expected_revision,
        dry_run,
        // Segments first: a flag's earlier rules may name one that has changed.
        instructions: segments.chain(flags).collect(),
        idempotency: write.idempotency.clone(),
        ..ChangeDraft::default()
    };
    submit(&api, write, draft).await.map(answer)
}

/// Flags and segments that exist, existed then, and have changed in the environment since.
async fn changed_since(
    api: &Api,
    project: &Project,
    environment: &str,
    since: u64,
    newest: u64,
) -> Result<(Vec<String>, Vec<String>), Problem> {
    if newest - since > MAX_REVERTED_ENTRIES {
        let detail = format!(
            "Revision {since} lies more than {MAX_REVERTED_ENTRIES} entries back: name the flags and segments to revert."
        );
        return Err(Problem::new(Code::InvalidRequest, detail));
    }
    let mut changed = Changed::default();
    let mut position = since;
    while position < newest {
        let read = api.changes.journal().read(position, READ_ENTRIES).await.map_err(damaged)?;
        let Some(last) = read.last() else { break };
        position = last.entry.revision;
        read.iter().filter(|stored| stored.entry.project == project.key).for_each(|stored| {
            changed.note(&stored.entry, environment);
        });
    }
    let Changed { mut flags, mut segments, created_flags, created_segments } = changed;
    flags.retain(|flag| project.flags.contains_key(flag) && !created_flags.contains(flag));
    segments.retain(|segment| project.segment(environment, segment).is_some() && !created_segments.contains(segment));
    Ok((flags.into_iter().collect(), segments.into_iter().collect()))
}

#[derive(Default)]
struct Changed {
    flags: BTreeSet<String>,
    segments: BTreeSet<String>,
    created_flags: BTreeSet<String>,
    created_segments: BTreeSet<String>,
}

impl Changed {
    fn note(&mut self, entry: &Entry, environment: &str) {
        for changed in &entry.objects {
            match &changed.object {
                ObjectId::FlagEnvironment(of, flag) if of == environment => {
                    self.flags.insert(flag.clone());
                }
                ObjectId::Segment(of, segment) if of == environment => {
                    self.segments.insert(segment.clone());
                }
                _ => {}
            }
        }
        for instruction in &entry.instructions {
            let here = instruction.environment(entry.environment.as_deref()) == Some(environment);
            match instruction.edit() {
                Instruction::CreateFlag { flag } => {
                    self.created_flags.insert(flag.key.clone());
                }
                Instruction::CreateSegment { segment, .. } if here => {
                    self.created_segments.insert(segment.key.clone());
                }
                _ => {}
            }
        }
    }
}
