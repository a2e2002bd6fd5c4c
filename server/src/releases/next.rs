//! What a release does next, from where it stands and what was seen of it. Pure.

use serde_json::{Value, json};

use super::edit::ReleaseEdit;
use super::guard::plan::Action;
use super::guard::restraint::{Permit, Restraint, RestraintLimits};
use super::guard::{Decision, Reason, Verdict};
use super::live::{Arms, Receipts};
use super::plan::PlanKind;
use super::release::{Incident, IncidentKind, MAX_EVIDENCE_BYTES, Release, ReleaseState};
use crate::state::Project;

/// Healthy seconds in a row after which a hold is lifted.
pub const CALM_SECONDS: u64 = 30;

/// What was seen of a release in a second.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// Now, in milliseconds since 1970.
    pub now: u64,
    /// What the guard says; none before it has seen a second of the step.
    pub decision: Option<&'a Decision>,
    /// Seconds in a row in which nothing asked to hold.
    pub healthy_seconds: u64,
    /// What each arm has had in the step.
    pub sample: Arms<u64>,
    /// Who has the step's revision.
    pub receipts: &'a Receipts,
    /// Whether nothing but lowering may be done in the environment.
    pub frozen: bool,
    /// Whether the flag is on.
    pub on: bool,
}

/// What the server should do about a release. `may_act` says whether it may still act by itself.
pub fn next(release: &Release, seen: &Seen<'_>, may_act: impl FnOnce() -> Permit) -> Option<ReleaseEdit> {
    if !release.state.is_active() || !seen.on {
        return None;
    }
    let (flag, id) = (release.flag.clone(), release.id.clone());
    let asked = seen.decision.map_or(Action::Observe, |decision| decision.action);
    if asked >= Action::RollBack {
        let (reason, evidence) = told(seen, asked);
        return match may_act() {
            Permit::Granted => Some(ReleaseEdit::RollBackRelease {
                flag,
                release: id,
                kill: asked == Action::Kill,
                reason,
                evidence,
                incident: String::new(),
                edits: Vec::new(),
            }),
            permit => hold(release, format!("{reason}; {}", refused(permit)), evidence),
        };
    }
    // A paused release stands still anyway, and may serve what somebody set by hand.
    if asked == Action::Hold && release.state == ReleaseState::Running {
        let (reason, evidence) = told(seen, asked);
        return hold(release, reason, evidence);
    }
    if release.hold.is_some() {
        return (seen.healthy_seconds >= CALM_SECONDS).then_some(ReleaseEdit::LiftHold { flag, release: id });
    }
    if release.state != ReleaseState::Running || !waiting(release, seen).is_empty() {
        return None;
    }
    match release.next_step() {
        Some(_) => {
            let (to, release) = (Some(release.step + 1), Some(id));
            Some(ReleaseEdit::AdvanceRelease { flag, to, release, edits: Vec::new() })
        }
        None => Some(ReleaseEdit::CompleteRelease {
            flag,
            release: id,
            reason: format!("{} and {} units in the last step", seen.sample.treatment, seen.sample.control),
            evidence: evidence(seen.decision, seen),
        }),
    }
}

/// What keeps the release from going on, in words; empty if nothing does.
#[must_use]
pub fn waiting(release: &Release, seen: &Seen<'_>) -> Vec<String> {
    let mut waiting = Vec::new();
    let step = release.step();
    match release.state {
        ReleaseState::Paused => {
            waiting.push(format!("it is paused ({}): guidon release resume {}", release.reason, release.flag))
        }
        state if !state.is_active() => return waiting,
        _ => {}
    }
    if !seen.on {
        waiting.push("the flag is off".to_owned());
    }
    if let Some(hold) = &release.hold {
        waiting.push(format!("the guard holds it: {}", hold.reason));
    }
    if seen.frozen {
        waiting.push("the environment is frozen".to_owned());
    }
    if seen.decision.is_none() && release.plan.kind != PlanKind::BlueGreen {
        waiting.push("the guard's first second of the step".to_owned());
    }
    let elapsed = seen.now.saturating_sub(release.step_at) / 1_000;
    if elapsed < step.minimum_seconds {
        waiting.push(format!("{} more seconds", step.minimum_seconds - elapsed));
    }
    let is_shadow = release.is_shadow();
    let everybody = guidon_sdk::model::SLOTS;
    for (arm, gets_any, sample) in [
        (&release.plan.treatment, step.share > 0 || is_shadow, seen.sample.treatment),
        (&release.plan.control, step.share < everybody, seen.sample.control),
    ] {
        if gets_any && sample < step.minimum_sample {
            waiting.push(format!("{} more units of {arm}", step.minimum_sample - sample));
        }
    }
    let receipts = seen.receipts;
    if release.plan.kind == PlanKind::BlueGreen && receipts.acknowledged < receipts.connected {
        waiting.push(format!(
            "{} of {} SDKs to acknowledge",
            receipts.connected - receipts.acknowledged,
            receipts.connected
        ));
    }
    if release.next_step().is_some_and(|next| next.approval) {
        waiting.push(format!("a person to start the next step: guidon release advance {}", release.flag));
    }
    waiting
}

/// Whether the server may take a release back by itself: by what the project's incidents say it did in the last hour.
#[must_use]
pub fn may_take_back(project: &Project, limits: RestraintLimits, release: &str, now: u64) -> Permit {
    permit(project, limits, IncidentKind::locks, |incident| &incident.release, release, now)
}

/// Whether the server may route an instance away by itself: a budget of its own, so that a bad host never uses up what takes
/// releases back, and a rest for each instance.
#[must_use]
pub fn may_route_away(project: &Project, limits: RestraintLimits, instance: &str, now: u64) -> Permit {
    permit(project, limits, |kind| !kind.locks(), instance_of, instance, now)
}

fn instance_of(incident: &Incident) -> &str {
    incident.instance.as_deref().unwrap_or_default()
}

fn permit(
    project: &Project,
    limits: RestraintLimits,
    is_of: impl Fn(IncidentKind) -> bool,
    subject: impl for<'a> Fn(&'a Incident) -> &'a str,
    asked: &str,
    now: u64,
) -> Permit {
    let past = project.incidents.values().filter(|incident| is_of(incident.kind));
    let mut taken: Vec<(u64, u64)> =
        past.map(|incident| (incident.opened_at / 1_000, number(subject(incident)))).collect();
    taken.sort_unstable();
    Restraint::after(limits, taken).ask(number(asked), now / 1_000)
}

/// A name as a number that [`Restraint`] knows it by.
fn number(name: &str) -> u64 {
    let hash = blake3::hash(name.as_bytes());
    hash.as_bytes().first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

fn refused(permit: Permit) -> &'static str {
    match permit {
        Permit::Granted => "",
        Permit::CoolingDown { .. } => "this release was acted on a moment ago: a person has to decide",
        Permit::Spent { .. } => "the project's automatic actions of this hour are used up: a person has to decide",
    }
}

fn hold(release: &Release, reason: String, evidence: Value) -> Option<ReleaseEdit> {
    let (flag, id) = (release.flag.clone(), release.id.clone());
    release.hold.is_none().then_some(ReleaseEdit::HoldRelease { flag, release: id, reason, evidence })
}

/// Why, in words, and the numbers behind it.
fn told(seen: &Seen<'_>, asked: Action) -> (String, Value) {
    let verdicts = seen.decision.map(|decision| decision.verdicts.as_slice()).unwrap_or_default();
    let reasons: Vec<String> = verdicts.iter().filter(|verdict| verdict.action >= asked).map(say).collect();
    let mut reason = reasons.join("; ");
    if let Some((end, _)) = reason.char_indices().nth(500) {
        reason.truncate(end);
    }
    (reason, evidence(seen.decision, seen))
}

/// A verdict in words.
#[must_use]
pub fn say(verdict: &Verdict) -> String {
    let what = match verdict.reason {
        Reason::Healthy => "healthy",
        Reason::WorseThanControl => "worse than the control beside it",
        Reason::TooFew => "worse than the control beside it, on fewer units than the plan wants",
        Reason::BeyondLimit => "beyond its limit",
        Reason::BothAlike => "bad in both arms alike: it is not the release",
        Reason::SampleRatio => "the arms do not get the shares they were given",
        Reason::NoTraffic => "no calls of the variation under release",
        Reason::Gap => "windows of instances are missing",
        Reason::Unusual => "unlike its own past",
        Reason::Unanswered => "its query was not answered",
    };
    let mut said = match &verdict.guardrail {
        Some(id) => format!("{id}: {what}"),
        None => what.to_owned(),
    };
    let (ours, theirs) = (verdict.evidence.treatment, verdict.evidence.control);
    if ours.count > 0 || theirs.count > 0 {
        said.push_str(&format!(
            " ({} of {} calls failed, against {} of {})",
            ours.errors, ours.count, theirs.errors, theirs.count
        ));
    }
    said
}

fn evidence(decision: Option<&Decision>, seen: &Seen<'_>) -> Value {
    let told = json!({"decision": decision, "sample": seen.sample});
    if told.to_string().len() <= MAX_EVIDENCE_BYTES {
        return told;
    }
    json!({"sample": seen.sample, "leftOut": "the decision's numbers are larger than an entry may hold"})
}

#[cfg(test)]
#[path = "next_tests.rs"]
pub(super) mod tests;
