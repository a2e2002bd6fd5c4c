//! What each resolved edit makes of a release: the state machine. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use guidon_sdk::model::{FlagEnvironment, Serve};

use super::edit::ReleaseEdit;
use super::plan::ReleasePlan;
use super::release::{
    ClosedBy, Hold, Incident, IncidentKind, MAX_INCIDENTS, MAX_NOTES, MAX_ROUTED, Note, Release, ReleaseState, Routed,
};
use crate::changes::apply::{ApplyError, unknown};
use crate::state::Project;

/// What the driven rollout of a flag serves.
pub(crate) fn driven<'a>(config: &'a FlagEnvironment, rule: Option<&str>) -> Option<&'a Serve> {
    match rule {
        None => Some(&config.fallthrough),
        Some(id) => config.rules.iter().find(|rule| rule.id == id).map(|rule| &rule.serve),
    }
}

/// BLAKE3 of a plan's JSON, in hexadecimal.
#[must_use]
pub fn plan_hash(plan: &ReleasePlan) -> String {
    // A plan has string keys only, so that writing it cannot fail.
    blake3::hash(&serde_json::to_vec(plan).unwrap_or_default()).to_hex().to_string()
}

/// Applies `edit`, made at `at` (milliseconds since 1970) as `revision`, to the releases of `project`. The edits of the flag
/// that it carries are applied by the caller, after it.
pub(crate) fn apply(
    project: &mut Project,
    environment: &str,
    edit: &ReleaseEdit,
    at: u64,
    revision: u64,
) -> Result<(), ApplyError> {
    let place = (environment.to_owned(), edit.flag().to_owned());
    if let ReleaseEdit::StartRelease { plan, id, .. } = edit {
        let begun = begin(project, &place, plan, id, at, revision)?;
        project.releases.insert(place, Arc::new(begun));
        return Ok(());
    }
    let known = project.releases.get(&place).cloned().ok_or_else(|| unknown("release of the flag", edit.flag()))?;
    if let ReleaseEdit::RestartRelease { id, plan, .. } = edit {
        let plan = plan.as_deref().ok_or(ApplyError::Unresolved { field: "plan" })?;
        let mut begun = begin(project, &place, plan, id, at, revision)?;
        begun.stable.clone_from(&known.stable);
        project.releases.insert(place, Arc::new(begun));
        return Ok(());
    }
    let mut next = Release { revision, ..Release::clone(&known) };
    match edit {
        ReleaseEdit::AdvanceRelease { to, .. } => {
            next.step = to.ok_or(ApplyError::Unresolved { field: "to" })?;
            (next.state, next.ended_at) = (ReleaseState::Running, None);
            begin_step(&mut next, &known, edit, at, revision);
        }
        ReleaseEdit::PauseRelease { reason, .. } => (next.state, next.reason) = (ReleaseState::Paused, reason.clone()),
        ReleaseEdit::ResumeRelease { .. } => {
            next.state = ReleaseState::Running;
            begin_step(&mut next, &known, edit, at, revision);
        }
        ReleaseEdit::AbortRelease { reason, .. } => end(&mut next, ReleaseState::Aborted, reason, at),
        ReleaseEdit::CompleteRelease { reason, .. } => end(&mut next, ReleaseState::Completed, reason, at),
        ReleaseEdit::HoldRelease { reason, .. } => next.hold = Some(Hold { since: at, reason: reason.clone() }),
        ReleaseEdit::LiftHold { .. } => next.hold = None,
        ReleaseEdit::RollBackRelease { kill, reason, evidence, incident, .. } => {
            end(&mut next, ReleaseState::RolledBack, reason, at);
            next.incident = Some(incident.clone());
            let kind = if *kill { IncidentKind::Killed } else { IncidentKind::RolledBack };
            open(project, incident_of(&next, incident, kind, reason, evidence, at, revision));
        }
        ReleaseEdit::RouteInstance { instance, until, reason, evidence, incident, .. } => {
            next.routed.retain(|_, routed| routed.until > at);
            if next.routed.len() < MAX_ROUTED {
                next.routed.insert(instance.clone(), Routed { until: *until, incident: incident.clone() });
            }
            let mut opened = incident_of(&next, incident, IncidentKind::Instance, reason, evidence, at, revision);
            opened.instance = Some(instance.clone());
            open(project, opened);
        }
        ReleaseEdit::NoteIncident { incident, text, .. } => note(project, incident, text, at)?,
        ReleaseEdit::CloseIncident { incident, finding, .. } => {
            let known = project.incidents.get(incident).ok_or_else(|| unknown("incident", incident))?;
            let finding = ClosedBy { at, revision, finding: finding.clone() };
            let closed = Incident { finding: Some(finding), ..Incident::clone(known) };
            project.incidents.insert(incident.clone(), Arc::new(closed));
            next.routed.retain(|_, routed| routed.incident != *incident);
        }
        ReleaseEdit::StartRelease { .. } | ReleaseEdit::RestartRelease { .. } => {}
    }
    project.releases.insert(place, Arc::new(next));
    Ok(())
}

fn begin(
    project: &Project,
    (environment, flag): &(String, String),
    plan: &ReleasePlan,
    id: &str,
    at: u64,
    revision: u64,
) -> Result<Release, ApplyError> {
    let state = project.flags.get(flag).ok_or_else(|| unknown("flag", flag))?;
    let config = state.stored.environments.get(environment).ok_or_else(|| unknown("environment", environment))?;
    let rule = plan.rule.as_deref();
    let stable = driven(config, rule).ok_or_else(|| unknown("rule", rule.unwrap_or_default()))?.clone();
    Ok(Release {
        id: id.to_owned(),
        flag: flag.clone(),
        environment: environment.clone(),
        plan: plan.clone(),
        plan_hash: plan_hash(plan),
        stable,
        state: ReleaseState::Running,
        step: 0,
        step_at: at,
        step_revision: revision,
        started_at: at,
        started_revision: revision,
        ended_at: None,
        revision,
        reason: String::new(),
        hold: None,
        routed: BTreeMap::new(),
        incident: None,
    })
}

/// Begins a step. Instances are sent nothing where nothing they see changes, and go on at the revision they have: their windows
/// count, so that the step's revision stays what it was.
fn begin_step(release: &mut Release, before: &Release, edit: &ReleaseEdit, at: u64, revision: u64) {
    release.step_at = at;
    if !edit.edits().is_empty() || release.measures() != before.measures() {
        release.step_revision = revision;
    }
    release.hold = None;
    release.reason.clear();
}

fn end(release: &mut Release, state: ReleaseState, reason: &str, at: u64) {
    (release.state, release.ended_at) = (state, Some(at));
    reason.clone_into(&mut release.reason);
    release.hold = None;
    release.routed.clear();
}

fn incident_of(
    release: &Release,
    id: &str,
    kind: IncidentKind,
    summary: &str,
    evidence: &serde_json::Value,
    at: u64,
    revision: u64,
) -> Incident {
    Incident {
        id: id.to_owned(),
        flag: release.flag.clone(),
        environment: release.environment.clone(),
        release: release.id.clone(),
        kind,
        instance: None,
        opened_at: at,
        opened_revision: revision,
        summary: summary.to_owned(),
        evidence: evidence.clone(),
        notes: Vec::new(),
        finding: None,
    }
}

fn open(project: &mut Project, incident: Incident) {
    project.incidents.insert(incident.id.clone(), Arc::new(incident));
    while project.incidents.len() > MAX_INCIDENTS {
        let closed = project.incidents.values().filter(|incident| incident.finding.is_some());
        let oldest = closed.min_by_key(|incident| (incident.opened_at, incident.id.clone())).map(|it| it.id.clone());
        // Where nobody closes any, those go that lock nothing.
        let open = project.incidents.values().filter(|incident| !incident.kind.locks());
        let instance = open.min_by_key(|incident| (incident.opened_at, incident.id.clone())).map(|it| it.id.clone());
        let Some(oldest) = oldest.or(instance) else { break };
        project.incidents.remove(&oldest);
    }
}

fn note(project: &mut Project, incident: &str, text: &str, at: u64) -> Result<(), ApplyError> {
    let known = project.incidents.get(incident).ok_or_else(|| unknown("incident", incident))?;
    let mut noted = Incident::clone(known);
    noted.notes.truncate(MAX_NOTES - 1);
    noted.notes.push(Note { at, text: text.to_owned() });
    project.incidents.insert(incident.to_owned(), Arc::new(noted));
    Ok(())
}

/// Takes note of an edit of a flag that no release made: if it changed what the release drives, the release waits for a person.
pub(crate) fn note_edit(project: &mut Project, environment: &str, flag: &str, before: &FlagEnvironment, revision: u64) {
    let place = (environment.to_owned(), flag.to_owned());
    let Some(release) = project.releases.get(&place).filter(|release| release.state == ReleaseState::Running) else {
        return;
    };
    let Some(config) = project.flags.get(flag).and_then(|flag| flag.stored.environments.get(environment)) else {
        return;
    };
    let rule = release.plan.rule.as_deref();
    let reason = if before.on && !config.on {
        "the flag was turned off"
    } else if driven(before, rule) != driven(config, rule) {
        "somebody edited the rollout that it drives"
    } else {
        return;
    };
    let reason = reason.to_owned();
    let paused = Release { state: ReleaseState::Paused, reason, revision, ..Release::clone(release) };
    project.releases.insert(place, Arc::new(paused));
}
