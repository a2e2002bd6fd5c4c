//! Going back: the instructions that make an environment what it was.

use std::collections::BTreeSet;

use super::{ChangeDraft, ChangeError, IdempotencyKey, Instruction, Problem, limits};
use crate::state::{Project, World};

/// A way back to an earlier revision, in one environment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RevertDraft {
    /// Project it is about.
    pub project: String,
    /// Environment to be put back.
    pub environment: String,
    /// Number of the revision to go back to.
    pub to_revision: u64,
    /// Flags to be put back. Where both lists are left out, everything is; where one is, nothing of its kind.
    pub flags: Option<Vec<String>>,
    /// Segments to be put back.
    pub segments: Option<Vec<String>>,
    /// Why, in the author's words.
    pub comment: String,
    /// Revision the author had read.
    pub expected_revision: Option<u64>,
    /// Only say what would happen.
    pub dry_run: bool,
    /// Lets it be sent again safely.
    pub idempotency: Option<IdempotencyKey>,
}

impl RevertDraft {
    /// The change that goes back to `past`; its instructions are empty if nothing differs.
    ///
    /// Of flags that did not exist then, those that are on are turned off; segments that did not exist then stay.
    pub(crate) fn change(&self, past: &World, now: &World) -> Result<ChangeDraft, ChangeError> {
        let project = self.known(now)?;
        let then = past.project(&self.project);
        let everything = self.flags.is_none() && self.segments.is_none();
        let mut instructions = Vec::new();
        // Segments first: what flags were then may refer to segments that were then.
        let segments = match &self.segments {
            Some(named) => named.clone(),
            None if everything => then.map(|then| self.changed_segments(then, project)).unwrap_or_default(),
            None => Vec::new(),
        };
        let to_revision = self.to_revision;
        instructions.extend(segments.into_iter().map(|segment| Instruction::RevertSegment {
            segment,
            to_revision,
            state: None,
        }));
        let flags = match &self.flags {
            Some(named) => named.clone(),
            None if everything => project.flags.keys().cloned().collect(),
            None => Vec::new(),
        };
        let named = self.flags.is_some();
        instructions.extend(
            flags.into_iter().filter_map(|flag| self.revert_flag(flag, named, then.map(|then| &**then), project)),
        );
        Ok(ChangeDraft {
            project: self.project.clone(),
            environment: Some(self.environment.clone()),
            comment: self.comment.clone(),
            commit: None,
            expected_revision: self.expected_revision,
            dry_run: self.dry_run,
            instructions,
            idempotency: self.idempotency.clone(),
            ..ChangeDraft::default()
        })
    }

    fn known<'w>(&self, now: &'w World) -> Result<&'w Project, ChangeError> {
        let unknown = |pointer: &str, code: &'static str, message: String| {
            ChangeError::from(vec![Problem::new(pointer, code, message)])
        };
        let Some(project) = now.project(&self.project) else {
            return Err(unknown("/project", "unknownProject", format!("there is no project \"{}\"", self.project)));
        };
        if !project.environments.contains_key(&self.environment) {
            let message = format!("the project has no environment \"{}\"", self.environment);
            return Err(unknown("/environment", "unknownEnvironment", message));
        }
        Ok(project)
    }

    /// `named` flags are put back or refused; others are left alone where they cannot be.
    fn revert_flag(&self, flag: String, named: bool, then: Option<&Project>, now: &Project) -> Option<Instruction> {
        let config = |project: &Project| project.flags.get(&flag)?.stored.environments.get(&self.environment).cloned();
        let (before, after) = (then.and_then(config), config(now));
        let to_revision = self.to_revision;
        if named {
            return Some(Instruction::RevertFlag { flag, to_revision, state: None });
        }
        match (before, after) {
            (None, Some(after)) if after.on => Some(Instruction::TurnFlagOff { flag }),
            (Some(before), Some(after)) if before != after => {
                Some(Instruction::RevertFlag { flag, to_revision, state: None })
            }
            _ => None,
        }
    }

    fn changed_segments(&self, then: &Project, now: &Project) -> Vec<String> {
        let differs = then.segments_in(&self.environment).filter(|before| {
            now.segment(&self.environment, &before.stored.key).is_none_or(|after| after.stored != before.stored)
        });
        differs.map(|segment| segment.stored.key.clone()).collect()
    }
}

/// The earlier revisions that a change goes back to, or what is wrong with them.
pub(crate) fn revisions(change: &ChangeDraft, durable: u64) -> Result<BTreeSet<u64>, Vec<Problem>> {
    let mut revisions = BTreeSet::new();
    for (index, instruction) in change.instructions.iter().enumerate() {
        let (Instruction::RevertFlag { to_revision, .. } | Instruction::RevertSegment { to_revision, .. }) =
            instruction.edit()
        else {
            continue;
        };
        if *to_revision > durable {
            let message = format!("revision {to_revision} does not exist; the present one is {durable}");
            return Err(vec![Problem::new(format!("/instructions/{index}/toRevision"), "unknownRevision", message)]);
        }
        revisions.insert(*to_revision);
        if revisions.len() > limits::MAX_REVERT_REVISIONS {
            let most = limits::MAX_REVERT_REVISIONS;
            let message = format!("one change goes back to at most {most} different revisions; use several changes");
            return Err(vec![Problem::new(format!("/instructions/{index}/toRevision"), "tooMany", message)]);
        }
    }
    Ok(revisions)
}
