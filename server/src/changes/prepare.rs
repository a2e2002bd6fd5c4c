//! Prepares a change: checks it against a state, resolves it, and says what it would make of the state. Pure.

use std::collections::BTreeSet;

use super::apply::{ApplyError, Draft};
use super::keysets::{Either, NewKeySet, NewKeySets};
use super::mint::Mint;
use super::resolve::{Past, Resolving, resolve};
use super::{Author, ChangeDraft, Instruction, MintedCredential, Problem, limits};
use crate::identity::DirectoryEdit;
use crate::identity::directory::{self, Filling};
use crate::journal::{ENTRY_FORMAT, Entry, ObjectId};
use crate::state::World;

/// A change that can be made.
pub(crate) struct Prepared {
    /// What is to be journaled. It has no objects if nothing would change.
    pub(crate) entry: Entry,
    /// The state after it, still at the revision before.
    pub(crate) world: World,
    /// Key sets to be stored before the entry is.
    pub(crate) key_sets: Vec<NewKeySet>,
    /// Objects that the change names, changed or not.
    pub(crate) named: BTreeSet<ObjectId>,
    /// Credentials it makes.
    pub(crate) credentials: Vec<MintedCredential>,
}

/// Checks and resolves `change` against `world`, to be made at `at` (milliseconds since 1970). Answers all problems.
pub(crate) fn prepare(
    world: &World,
    author: &Author,
    change: &ChangeDraft,
    at: u64,
    mint: &mut dyn Mint,
    past: &Past,
) -> Result<Prepared, Vec<Problem>> {
    let mut preparing = Preparing {
        draft: Draft::new(world, &change.project, change.environment.as_deref(), at),
        key_sets: NewKeySets::default(),
        credentials: Vec::new(),
        problems: shape(world, change),
        resolved: Vec::new(),
        refused: BTreeSet::new(),
    };
    if preparing.problems.is_empty() {
        for (index, instruction) in change.instructions.iter().enumerate() {
            preparing.take(index, instruction, mint, past);
        }
        super::validate::validate(&preparing.draft, &preparing.resolved, &mut preparing.problems);
    }
    if !preparing.problems.is_empty() {
        return Err(preparing.problems);
    }
    let Preparing { draft, key_sets, credentials, resolved, .. } = preparing;
    let entry = Entry {
        format: ENTRY_FORMAT,
        revision: world.revision + 1,
        at,
        actor_id: author.actor_id.clone(),
        origin_id: author.origin_id.clone(),
        project: change.project.clone(),
        environment: change.environment.clone(),
        comment: change.comment.clone(),
        commit: change.commit.clone(),
        instructions: resolved.into_iter().map(|(_, instruction)| instruction).collect(),
        objects: draft.changed(),
        grounds: None,
        idempotency: None,
    };
    let named = draft.named().clone();
    Ok(Prepared { entry, world: draft.into_world(), key_sets: key_sets.into_made(), named, credentials })
}

/// In place of a project's key, in changes of the directory.
pub(crate) const DIRECTORY: &str = "";

struct Preparing<'a> {
    draft: Draft<'a>,
    key_sets: NewKeySets,
    credentials: Vec<MintedCredential>,
    problems: Vec<Problem>,
    /// Instructions that were applied, with their place in the request.
    resolved: Vec<(usize, Instruction)>,
    /// Things whose making was refused, so that what builds on them is not refused as well.
    refused: BTreeSet<String>,
}

impl Preparing<'_> {
    fn take(&mut self, index: usize, instruction: &Instruction, mint: &mut dyn Mint, past: &Past) {
        let at = format!("/instructions/{index}");
        let Some(resolved) = self.resolve(&at, instruction, mint, past) else { return };
        let keys = Either(&self.key_sets, &past.key_sets);
        match self.draft.apply(&resolved, &keys) {
            Ok(()) => self.resolved.push((index, resolved)),
            Err(ApplyError::Request { refusal, .. }) => self.problems.push(Problem::new(at, "requestState", refusal)),
            Err(error @ ApplyError::Unknown { what: "review", .. }) => {
                self.problems.push(Problem::new(at, "unknownReview", error.to_string()));
            }
            Err(error) => self.problems.push(Problem::new(at, "inapplicable", error.to_string())),
        }
    }

    fn resolve(
        &mut self,
        at: &str,
        instruction: &Instruction,
        mint: &mut dyn Mint,
        past: &Past,
    ) -> Option<Instruction> {
        if let Instruction::Directory(edit) = instruction.edit() {
            let before = self.problems.len();
            let mut filling = Filling {
                world: self.draft.before(),
                directory: self.draft.directory(),
                now: self.draft.at(),
                mint,
                at,
                problems: &mut self.problems,
            };
            let edit = directory::resolve(&mut filling, DirectoryEdit::clone(edit));
            return (self.problems.len() == before).then(|| Instruction::Directory(Box::new(edit)));
        }
        let edit = instruction.edit();
        if matches!(edit, Instruction::CreateProject { .. } | Instruction::Request(_) | Instruction::Drill(_)) {
            return self.as_sent(at, edit);
        }
        self.resolve_in_project(at, instruction, mint, past)
    }

    /// Instructions that leave nothing to the server.
    fn as_sent(&mut self, at: &str, instruction: &Instruction) -> Option<Instruction> {
        if matches!(instruction, Instruction::CreateProject { .. }) && self.draft.project().is_some() {
            let message = "there is a project of this key already; choose another or leave this instruction out";
            self.problems.push(Problem::new(at.to_owned(), "projectExists", message));
            return None;
        }
        Some(instruction.clone())
    }

    fn resolve_in_project(
        &mut self,
        at: &str,
        instruction: &Instruction,
        mint: &mut dyn Mint,
        past: &Past,
    ) -> Option<Instruction> {
        let subject = subject(instruction, self.draft.environment());
        if subject.as_ref().is_some_and(|subject| self.refused.contains(subject)) {
            return None;
        }
        let before = self.problems.len();
        let named = self.draft.environment().map(str::to_owned);
        let resolved = self.check_environment(at, instruction).and_then(|()| {
            let mut cx = Resolving {
                before: self.draft.before(),
                project: self.draft.project()?,
                environment: instruction.environment(named.as_deref()),
                now: self.draft.at(),
                past,
                mint,
                key_sets: &mut self.key_sets,
                credentials: &mut self.credentials,
                at,
                problems: &mut self.problems,
            };
            resolve(&mut cx, instruction.edit().clone()).map(|edit| instruction.replaced_by(edit))
        });
        if self.problems.len() == before {
            return resolved;
        }
        self.refused.extend(subject);
        None
    }

    /// Reports a missing or unknown environment once.
    fn check_environment(&mut self, at: &str, instruction: &Instruction) -> Option<()> {
        let project = self.draft.project()?;
        if !instruction.needs_environment() {
            return Some(());
        }
        let own = matches!(instruction, Instruction::Within { .. });
        let pointer = if own { format!("{at}/environment") } else { "/environment".to_owned() };
        let problem = match instruction.environment(self.draft.environment()) {
            Some(key) if project.environments.contains_key(key) => return Some(()),
            Some(key) => {
                Problem::new(pointer, "unknownEnvironment", format!("the project has no environment \"{key}\""))
            }
            None => {
                let message = format!("`{}` applies to one environment; name it", instruction.kind());
                Problem::new(pointer, "environmentNeeded", message)
            }
        };
        if !self.problems.iter().any(|known| known.pointer == problem.pointer) {
            self.problems.push(problem);
        }
        None
    }
}

/// The flag or segment that an instruction makes or builds on.
fn subject(instruction: &Instruction, named: Option<&str>) -> Option<String> {
    let flag = instruction.flag().map(|key| format!("flag/{key}"));
    let environment = instruction.environment(named).unwrap_or_default();
    flag.or_else(|| instruction.segment().map(|key| format!("segment/{environment}/{key}")))
}

/// What is wrong with the change as a whole.
fn shape(world: &World, change: &ChangeDraft) -> Vec<Problem> {
    let mut problems = Vec::new();
    let of_directory = |instruction: &Instruction| matches!(instruction.edit(), Instruction::Directory(_));
    let is_of_directory =
        change.project == DIRECTORY && !change.instructions.is_empty() && change.instructions.iter().all(of_directory);
    if !is_of_directory && change.instructions.iter().any(of_directory) {
        let message = "the directory belongs to no project: edits of it make a change of their own";
        problems.push(Problem::new("/project", "notHere", message));
    }
    let founds = |instruction: &Instruction| matches!(instruction.edit(), Instruction::CreateProject { .. });
    if change.instructions.len() > 1 && change.instructions.iter().any(founds) {
        let message = "a project is created by a change of its own; what is in it follows";
        problems.push(Problem::new("/instructions", "notHere", message));
    }
    let mut most = |pointer: &str, what: &str, found: usize, most: usize| {
        if found > most {
            problems.push(Problem::new(pointer, "tooMany", format!("{found} {what}, at most {most} are allowed")));
        }
    };
    // A change request brings one more than it was opened with.
    let own = usize::from(change.request.is_some());
    most("/instructions", "instructions", change.instructions.len() - own, limits::MAX_INSTRUCTIONS);
    most("/comment", "bytes of comment", change.comment.len(), limits::MAX_COMMENT_BYTES);
    most("/commit", "bytes", change.commit.as_ref().map_or(0, String::len), limits::MAX_COMMIT_BYTES);
    let key_bytes = change.idempotency.as_ref().map_or(0, |idempotency| idempotency.key.len());
    most("", "bytes of Idempotency-Key", key_bytes, limits::MAX_IDEMPOTENCY_KEY_BYTES);
    if is_of_directory {
        return problems;
    }
    let creates = matches!(change.instructions.first().map(Instruction::edit), Some(Instruction::CreateProject { .. }));
    if creates && !world.projects.contains_key(&change.project) {
        most("", "projects", world.projects.len() + 1, limits::MAX_PROJECTS);
        if !guidon_sdk::model::is_valid_key(&change.project) {
            problems.push(Problem::new(
                "/project",
                "badKey",
                "a project's key has 1 to 128 of a-z, 0-9, '.', '_' and '-'",
            ));
        }
    } else if !world.projects.contains_key(&change.project) {
        let message = format!("there is no project \"{}\"", change.project);
        problems.push(Problem::new("/project", "unknownProject", message));
    }
    if change.instructions.is_empty() {
        problems.push(Problem::new("/instructions", "empty", "a change needs at least one instruction"));
    }
    if let Some(expected) = change.expected_revision.filter(|expected| *expected > world.revision) {
        let message = format!("revision {expected} does not exist; the present one is {}", world.revision);
        problems.push(Problem::new("/expectedRevision", "unknownRevision", message));
    }
    problems
}
