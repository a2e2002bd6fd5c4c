//! What happened in a release, from the journal: what a reviewer needs to believe the machine, or to overrule it. Pure.

use serde::Serialize;
use serde_json::Value;

use super::edit::ReleaseEdit;
use super::live::Live;
use super::release::{Incident, Release};
use crate::changes::request::{Approval, Risk};
use crate::changes::{Instruction, describe};
use crate::journal::{Entry, ObjectId};

/// Most events of a report; of more, the last ones are told and `left_out` counts the others.
pub const MAX_EVENTS: usize = 1_000;

/// A release, told from its start.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The release as it stands.
    pub release: Release,
    /// What the guard sees now, while it is under way.
    pub live: Option<Live>,
    /// Every time that a step was served, oldest first. A step that was come back to is told twice.
    pub steps: Vec<StepRun>,
    /// Every entry that changed the release, oldest first.
    pub events: Vec<Event>,
    /// Events before those, which are not told.
    pub left_out: usize,
    /// The incidents it opened, oldest first.
    pub incidents: Vec<Incident>,
}

/// A step, from when it began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StepRun {
    /// Its index in the plan, from 0.
    pub step: usize,
    /// Share of people who got the treatment, out of 100,000.
    pub share: u32,
    /// The revision that began it.
    pub revision: u64,
    /// When it began, in milliseconds since 1970.
    pub began_at: u64,
    /// When it ended: with another step, or with the release. Not yet, if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<u64>,
    /// The shortest time that the plan gave it, in seconds.
    pub minimum_seconds: u64,
    /// Units of each arm that the plan wanted of it.
    pub minimum_sample: u64,
    /// Who began it.
    pub by: String,
}

/// An entry that changed the release.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// Revision of the entry.
    pub revision: u64,
    /// When, in milliseconds since 1970.
    pub at: u64,
    /// Who made it; `system` is the server itself.
    pub by: String,
    /// Kind of the instruction: those of releases, or another that changed what the release drives.
    pub kind: String,
    /// What it did, as a sentence.
    pub summary: String,
    /// Why, in words: the guard's reason, or that of a person.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// The comment of its entry.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// The source commit that it ships.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// The numbers it was decided on.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub evidence: Value,
    /// The incident it opened, noted or closed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub incident: Option<String>,
    /// On what grounds the policies allowed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grounds: Option<EventGrounds>,
}

/// On what grounds a step of a release was allowed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EventGrounds {
    /// The policies that allowed it, by name.
    pub policies: Vec<String>,
    /// How much it might hurt, as judged when it was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub risk: Option<Risk>,
    /// The change request that it carried out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// Who wrote that request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// Who agreed with it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub approvals: Vec<Approval>,
}

/// Whether an entry changed the release of a flag in an environment.
#[must_use]
pub fn is_about(entry: &Entry, environment: &str, flag: &str) -> bool {
    entry
        .objects
        .iter()
        .any(|changed| matches!(&changed.object, ObjectId::Release(of, key) if of == environment && key == flag))
}

impl Report {
    /// Tells `release` from `entries`, those that are about it from its start on, oldest first.
    #[must_use]
    pub fn new<'a>(
        release: &Release,
        live: Option<Live>,
        entries: impl IntoIterator<Item = &'a Entry>,
        incidents: Vec<Incident>,
    ) -> Self {
        let environment = &*release.environment;
        let (mut steps, mut events) = (Vec::new(), Vec::new());
        for entry in entries {
            let named = entry.environment.as_deref();
            for instruction in &entry.instructions {
                if instruction.flag() != Some(&*release.flag) || instruction.environment(named) != Some(environment) {
                    continue;
                }
                let edit = match instruction.edit() {
                    Instruction::Release(edit) => Some(&**edit),
                    // Something else, which changed what the release drives.
                    _ => None,
                };
                match edit.map_or(Moves::No, moves) {
                    Moves::To(step) => begin(&mut steps, release, step, entry),
                    Moves::On => {
                        let step = steps.last().map_or(0, |last: &StepRun| last.step);
                        begin(&mut steps, release, step, entry);
                    }
                    Moves::Ends => end_last(&mut steps, entry.at),
                    Moves::No => {}
                }
                events.push(event(entry, instruction, edit));
            }
        }
        let left_out = events.len().saturating_sub(MAX_EVENTS);
        events.drain(..left_out);
        Self { release: release.clone(), live, steps, events, left_out, incidents }
    }

    /// Everybody whom the report speaks of, by id.
    pub fn people(&self) -> impl Iterator<Item = &str> {
        self.events.iter().flat_map(|event| {
            let grounds = event.grounds.iter();
            let others = grounds.flat_map(|grounds| {
                grounds.author.as_deref().into_iter().chain(grounds.approvals.iter().map(|approval| &*approval.by))
            });
            std::iter::once(&*event.by).chain(others)
        })
    }
}

/// What an edit does to the steps.
enum Moves {
    /// Begins this one.
    To(usize),
    /// Begins the present one anew.
    On,
    /// Ends the release.
    Ends,
    /// Nothing.
    No,
}

fn moves(edit: &ReleaseEdit) -> Moves {
    match edit {
        ReleaseEdit::StartRelease { .. } | ReleaseEdit::RestartRelease { .. } => Moves::To(0),
        ReleaseEdit::AdvanceRelease { to: Some(to), .. } => Moves::To(*to),
        ReleaseEdit::ResumeRelease { .. } => Moves::On,
        ReleaseEdit::AbortRelease { .. }
        | ReleaseEdit::RollBackRelease { .. }
        | ReleaseEdit::CompleteRelease { .. } => Moves::Ends,
        _ => Moves::No,
    }
}

fn begin(steps: &mut Vec<StepRun>, release: &Release, step: usize, entry: &Entry) {
    end_last(steps, entry.at);
    let plan = release.plan.steps.get(step).cloned().unwrap_or_default();
    steps.push(StepRun {
        step,
        share: plan.share,
        revision: entry.revision,
        began_at: entry.at,
        ended_at: None,
        minimum_seconds: plan.minimum_seconds,
        minimum_sample: plan.minimum_sample,
        by: entry.actor_id.clone(),
    });
}

fn end_last(steps: &mut [StepRun], at: u64) {
    if let Some(last) = steps.last_mut().filter(|last| last.ended_at.is_none()) {
        last.ended_at = Some(at);
    }
}

fn event(entry: &Entry, instruction: &Instruction, edit: Option<&ReleaseEdit>) -> Event {
    let (reason, evidence) = edit.map(because).unwrap_or_default();
    let kind = instruction.edit().kind();
    Event {
        revision: entry.revision,
        at: entry.at,
        by: entry.actor_id.clone(),
        kind: kind.to_owned(),
        summary: describe(instruction, entry.environment.as_deref()),
        reason,
        comment: entry.comment.clone(),
        commit: entry.commit.clone(),
        evidence,
        incident: edit.and_then(ReleaseEdit::incident).map(str::to_owned),
        grounds: entry.grounds.as_ref().map(|grounds| EventGrounds {
            policies: grounds.policies.clone(),
            risk: grounds.risk.clone(),
            request: grounds.request.clone(),
            author: grounds.author.clone(),
            approvals: grounds.approvals.clone(),
        }),
    }
}

/// Why an edit was made, and on what numbers.
fn because(edit: &ReleaseEdit) -> (String, Value) {
    match edit {
        ReleaseEdit::RollBackRelease { reason, evidence, .. }
        | ReleaseEdit::CompleteRelease { reason, evidence, .. }
        | ReleaseEdit::HoldRelease { reason, evidence, .. }
        | ReleaseEdit::RouteInstance { reason, evidence, .. } => (reason.clone(), evidence.clone()),
        ReleaseEdit::PauseRelease { reason, .. } | ReleaseEdit::AbortRelease { reason, .. } => {
            (reason.clone(), Value::Null)
        }
        ReleaseEdit::CloseIncident { finding, .. } => (finding.clone(), Value::Null),
        ReleaseEdit::NoteIncident { text, .. } => (text.clone(), Value::Null),
        _ => (String::new(), Value::Null),
    }
}
