//! Resolves the edits of releases: what a caller left to the server is filled in, and what cannot be done is refused. Pure.

use std::collections::BTreeMap;

use guidon_sdk::model::{Flag, FlagEnvironment, ProvenanceKind, SLOTS, Serve};

use super::apply::driven;
use super::edit::ReleaseEdit;
use super::plan::{PlanKind, ReleasePlan};
use super::release::{MAX_EVIDENCE_BYTES, Release, ReleaseState};
use crate::changes::resolve::Resolving;
use crate::changes::{Instruction, mint};
use crate::flags;

/// Longest reason or note, in bytes.
pub const MAX_REASON_BYTES: usize = 2_000;

/// Longest finding of an incident, in bytes.
pub const MAX_FINDING_BYTES: usize = 10_000;

/// The edit as it is to be journaled; `None` if it asks for what is already so, or was refused.
pub(crate) fn resolve(cx: &mut Resolving<'_>, mut edit: ReleaseEdit) -> Option<ReleaseEdit> {
    cx.refuse_if_sent("/edits", !edit.edits().is_empty());
    check_texts(cx, &edit);
    let environment = cx.environment?;
    let Some(state) = cx.project.flags.get(edit.flag()).cloned() else {
        cx.refuse("/flag", "unknownFlag", format!("there is no flag \"{}\"", edit.flag()));
        return None;
    };
    let Some(config) = state.stored.environments.get(environment) else {
        cx.refuse("/flag", "unknownEnvironment", format!("\"{}\" is not known in \"{environment}\"", edit.flag()));
        return None;
    };
    let place = (environment.to_owned(), edit.flag().to_owned());
    let release = cx.project.releases.get(&place).cloned();
    let flag = &*state.stored;
    let moves = match (&mut edit, release.as_deref()) {
        (ReleaseEdit::StartRelease { plan, id, .. }, release) => {
            cx.refuse_if_sent("/id", !id.is_empty());
            startable(cx, flag, config, environment, release)?;
            fill(cx, plan, flag, config)?;
            *id = mint::id("rel", cx.mint);
            to_step(plan, (&flag.key, 0), config, None)
        }
        (_, None) => {
            let message = format!("\"{}\" has had no release in {environment}: start one", flag.key);
            cx.refuse("/flag", "noRelease", message);
            return None;
        }
        (ReleaseEdit::RestartRelease { id, plan, .. }, Some(release)) => {
            cx.refuse_if_sent("/id", !id.is_empty());
            cx.refuse_if_sent("/plan", plan.is_some());
            *plan = Some(Box::new(release.plan.clone()));
            is_as_left(cx, release, config)?;
            for variation in [&release.plan.treatment, &release.plan.control] {
                flags::check_variation(cx, "/flag", variation, flag);
            }
            startable(cx, flag, config, environment, Some(release))?;
            *id = mint::id("rel", cx.mint);
            to_step(&release.plan, (&flag.key, 0), config, Some(&release.stable))
        }
        (ReleaseEdit::AdvanceRelease { to, release: meant, .. }, Some(release)) => {
            is_meant(cx, meant.as_deref(), release)?;
            let step = next_step(cx, release, config, *to)?;
            *to = Some(step);
            to_step(&release.plan, (&flag.key, step), config, Some(&release.stable))
        }
        (ReleaseEdit::PauseRelease { .. }, Some(release)) => {
            is_active(cx, release)?;
            if release.state == ReleaseState::Paused {
                return None;
            }
            Vec::new()
        }
        (ReleaseEdit::ResumeRelease { .. }, Some(release)) => {
            is_active(cx, release)?;
            is_on(cx, flag, config)?;
            if release.state == ReleaseState::Running {
                return None;
            }
            to_step(&release.plan, (&flag.key, release.step), config, Some(&release.stable))
        }
        (ReleaseEdit::AbortRelease { .. }, Some(release)) => {
            is_active(cx, release)?;
            back(release, config)
        }
        (ReleaseEdit::RollBackRelease { release: meant, kill, incident, .. }, Some(release)) => {
            is_meant(cx, Some(meant), release)?;
            is_active(cx, release)?;
            *incident = mint::id("inc", cx.mint);
            // Where the rollout is gone there is nothing to restore: off is the way back.
            *kill = *kill || driven(config, release.plan.rule.as_deref()).is_none();
            if *kill { vec![Instruction::TurnFlagOff { flag: flag.key.clone() }] } else { back(release, config) }
        }
        (ReleaseEdit::HoldRelease { release: meant, .. }, Some(release)) => {
            is_meant(cx, Some(meant), release)?;
            is_active(cx, release)?;
            if release.hold.is_some() {
                return None;
            }
            Vec::new()
        }
        (ReleaseEdit::LiftHold { release: meant, .. }, Some(release)) => {
            is_meant(cx, Some(meant), release)?;
            release.hold.as_ref()?;
            Vec::new()
        }
        (ReleaseEdit::CompleteRelease { release: meant, .. }, Some(release)) => {
            is_meant(cx, Some(meant), release)?;
            is_active(cx, release)?;
            Vec::new()
        }
        (ReleaseEdit::RouteInstance { release: meant, incident, .. }, Some(release)) => {
            is_meant(cx, Some(meant), release)?;
            is_active(cx, release)?;
            *incident = mint::id("inc", cx.mint);
            Vec::new()
        }
        (ReleaseEdit::CloseIncident { incident, .. } | ReleaseEdit::NoteIncident { incident, .. }, Some(_)) => {
            let known = cx.project.incidents.get(incident.as_str()).cloned();
            let here = known.filter(|known| known.environment == environment && known.flag == flag.key);
            match here {
                None => cx.refuse(
                    "/incident",
                    "unknownIncident",
                    format!("there is no incident \"{incident}\" of this flag here"),
                ),
                Some(known) if known.finding.is_some() => {
                    cx.refuse("/incident", "incidentClosed", format!("the incident \"{incident}\" is closed"));
                }
                Some(_) => {}
            }
            Vec::new()
        }
    };
    // What is put back is as it was stored, with its key sets: there is nothing left to resolve.
    let restores = matches!(edit, ReleaseEdit::AbortRelease { .. } | ReleaseEdit::RollBackRelease { .. });
    let resolve_edit = |inner| if restores { Some(inner) } else { flags::resolve(cx, inner) };
    let resolved: Vec<Instruction> = moves.into_iter().filter_map(resolve_edit).collect();
    if let Some(edits) = edit.edits_mut() {
        *edits = resolved;
    }
    Some(edit)
}

fn check_texts(cx: &mut Resolving<'_>, edit: &ReleaseEdit) {
    let mut at_most = |pointer: &str, text: &str, most: usize| {
        if text.len() > most {
            cx.refuse(pointer, "tooLong", format!("at most {most} bytes, this has {}", text.len()));
        }
    };
    let evidence = match edit {
        ReleaseEdit::PauseRelease { reason, .. } | ReleaseEdit::AbortRelease { reason, .. } => {
            at_most("/reason", reason, MAX_REASON_BYTES);
            None
        }
        ReleaseEdit::NoteIncident { text, .. } => {
            at_most("/text", text, MAX_REASON_BYTES);
            None
        }
        ReleaseEdit::RollBackRelease { reason, evidence, .. }
        | ReleaseEdit::CompleteRelease { reason, evidence, .. }
        | ReleaseEdit::HoldRelease { reason, evidence, .. }
        | ReleaseEdit::RouteInstance { reason, evidence, .. } => {
            at_most("/reason", reason, MAX_REASON_BYTES);
            Some(evidence)
        }
        ReleaseEdit::CloseIncident { finding, .. } => {
            at_most("/finding", finding, MAX_FINDING_BYTES);
            if finding.trim().is_empty() {
                let message = "an incident is closed with a finding: what was it, and what was done about it?";
                cx.refuse("/finding", "findingNeeded", message);
            }
            None
        }
        _ => None,
    };
    if evidence.is_some_and(|evidence| evidence.to_string().len() > MAX_EVIDENCE_BYTES) {
        cx.refuse("/evidence", "tooLong", format!("evidence has at most {MAX_EVIDENCE_BYTES} bytes of JSON"));
    }
}

/// Refuses to start where a release is under way, an incident is open, or the flag is off.
fn startable(
    cx: &mut Resolving<'_>,
    flag: &Flag,
    config: &FlagEnvironment,
    environment: &str,
    release: Option<&Release>,
) -> Option<()> {
    if let Some(release) = release.filter(|release| release.state.is_active()) {
        let message = format!(
            "{} of \"{}\" is under way ({}): abort it first, or let it end",
            release.noun(),
            flag.key,
            release.state.as_str()
        );
        cx.refuse("/flag", "releaseUnderWay", message);
        return None;
    }
    let open = cx.project.open_incidents(environment, &flag.key).find(|incident| incident.kind.locks());
    if let Some(id) = open.map(|incident| incident.id.clone()) {
        let message = format!(
            "the incident {id} locks the releases of \"{}\": close it with a finding first (guidon incident close {id} --finding …)",
            flag.key
        );
        cx.refuse("/flag", "incidentOpen", message);
        return None;
    }
    is_on(cx, flag, config)
}

fn is_on(cx: &mut Resolving<'_>, flag: &Flag, config: &FlagEnvironment) -> Option<()> {
    if !config.on {
        cx.refuse(
            "/flag",
            "flagOff",
            format!("\"{}\" is off here: turn it on first (guidon flag on {})", flag.key, flag.key),
        );
        return None;
    }
    Some(())
}

fn is_active(cx: &mut Resolving<'_>, release: &Release) -> Option<()> {
    if !release.state.is_active() {
        let message = format!("the release of \"{}\" is over ({})", release.flag, release.state.as_str());
        cx.refuse("/flag", "releaseOver", message);
        return None;
    }
    Some(())
}

fn is_meant(cx: &mut Resolving<'_>, meant: Option<&str>, release: &Release) -> Option<()> {
    if meant.is_some_and(|meant| meant != release.id) {
        cx.refuse("/release", "otherRelease", format!("the flag's release is {} by now", release.id));
        return None;
    }
    Some(())
}

/// Refuses to go on with a release that is over where somebody has set the rollout since: that would undo what they did, on an
/// approval that knew nothing of it.
fn is_as_left(cx: &mut Resolving<'_>, release: &Release, config: &FlagEnvironment) -> Option<()> {
    let standing = driven(config, release.plan.rule.as_deref());
    let step = (release.flag.as_str(), release.step);
    let at_step = standing.is_some() && to_step(&release.plan, step, config, Some(&release.stable)).is_empty();
    if !at_step && standing != Some(&release.stable) {
        cx.refuse(
            "/flag",
            "editedSince",
            format!("the rollout of \"{}\" was edited since: start a release", release.flag),
        );
        return None;
    }
    Some(())
}

/// The step that an advance goes to; `None` if the release is there already, or cannot.
fn next_step(cx: &mut Resolving<'_>, release: &Release, config: &FlagEnvironment, to: Option<usize>) -> Option<usize> {
    let switches_back = release.plan.kind == PlanKind::BlueGreen && release.state == ReleaseState::Completed;
    if switches_back {
        is_as_left(cx, release, config)?;
    } else {
        is_active(cx, release)?;
    }
    if release.state == ReleaseState::Paused {
        cx.refuse("/flag", "releasePaused", format!("the release of \"{}\" is paused: resume it first", release.flag));
        return None;
    }
    if !config.on {
        cx.refuse("/flag", "flagOff", format!("\"{}\" is off here: turn it on first", release.flag));
        return None;
    }
    let last = release.plan.steps.len().saturating_sub(1);
    let step = to.unwrap_or(release.step + 1);
    if step > last {
        let message =
            format!("the release has {} steps and is at step {}: there is none after it", last + 1, release.step + 1);
        cx.refuse("/to", "noSuchStep", message);
        return None;
    }
    (step != release.step || !release.state.is_active()).then_some(step)
}

/// Fills in what the plan left to the server, and checks it.
fn fill(cx: &mut Resolving<'_>, plan: &mut ReleasePlan, flag: &Flag, config: &FlagEnvironment) -> Option<()> {
    plan.complete();
    let before = cx.problems.len();
    let Some(served) = driven(config, plan.rule.as_deref()) else {
        let rule = plan.rule.clone().unwrap_or_default();
        cx.refuse("/plan/rule", "unknownRule", format!("\"{}\" has no rule \"{rule}\" here", flag.key));
        return None;
    };
    if plan.control.is_empty() {
        plan.control = control_of(served, flag, &plan.treatment).unwrap_or_default();
    }
    if plan.treatment.is_empty() {
        plan.treatment = treatment_of(flag, &plan.control).unwrap_or_default();
    }
    for (pointer, variation, what) in [
        ("/plan/treatment", plan.treatment.clone(), "is released"),
        ("/plan/control", plan.control.clone(), "it is compared with"),
    ] {
        if variation.is_empty() {
            let known: Vec<&str> = flag.variations.iter().map(|variation| variation.key.as_str()).take(10).collect();
            let message = format!("which variation {what} is not clear: name one of {}", known.join(", "));
            cx.refuse(pointer, "variationNeeded", message);
        } else {
            flags::check_variation(cx, pointer, &variation, flag);
        }
    }
    if plan.treatment == plan.control && !plan.treatment.is_empty() {
        cx.refuse("/plan/control", "sameVariation", "a variation cannot be compared with itself: name another control");
    }
    if !plan.control.is_empty() && !weights(served, &plan.treatment, &plan.control, 0).contains_key(&plan.control) {
        let message = format!("nobody is served \"{}\" now: compare with a variation that somebody is", plan.control);
        cx.refuse("/plan/control", "controlNotServed", message);
    }
    for problem in plan.problems() {
        cx.refuse(&format!("/plan{}", problem.pointer), "badPlan", problem.message);
    }
    (cx.problems.len() == before).then_some(())
}

/// The variation that most are served now, other than the treatment.
fn control_of(served: &Serve, flag: &Flag, treatment: &str) -> Option<String> {
    match served {
        Serve::Variation(variation) => Some(variation.clone()),
        Serve::Rollout(rollout) => {
            let is_ai = |key: &str| flag.variation(key).is_some_and(|variation| variation.is_by(ProvenanceKind::Ai));
            let others = rollout.weights.iter().filter(|(key, _)| *key != treatment);
            let most = others.max_by_key(|(key, weight)| (!is_ai(key), **weight));
            most.map(|(key, _)| key.clone())
        }
    }
}

/// The flag's only AI variation, or its only other one.
fn treatment_of(flag: &Flag, control: &str) -> Option<String> {
    let mut others: Vec<_> = flag.variations.iter().filter(|variation| variation.key != control).collect();
    if others.len() > 1 {
        others.retain(|variation| variation.is_by(ProvenanceKind::Ai));
    }
    match others.as_slice() {
        [one] => Some(one.key.clone()),
        _ => None,
    }
}

/// What brings the rollout to a step: nothing where it is so already.
fn to_step(
    plan: &ReleasePlan,
    (flag, step): (&str, usize),
    config: &FlagEnvironment,
    stable: Option<&Serve>,
) -> Vec<Instruction> {
    let Some(standing) = driven(config, plan.rule.as_deref()) else { return Vec::new() };
    let share = plan.steps.get(step).map_or(0, |step| step.share);
    let weights = weights(stable.unwrap_or(standing), &plan.treatment, &plan.control, share);
    if *standing_weights(standing) == weights {
        return Vec::new();
    }
    vec![Instruction::SetRollout {
        flag: flag.to_owned(),
        rule: plan.rule.clone(),
        weights,
        bucket_by: None,
        reshuffle: false,
        salt: None,
        allocation: None,
    }]
}

fn standing_weights(serve: &Serve) -> std::borrow::Cow<'_, BTreeMap<String, u32>> {
    match serve {
        Serve::Variation(variation) => std::borrow::Cow::Owned(BTreeMap::from([(variation.clone(), SLOTS)])),
        Serve::Rollout(rollout) => std::borrow::Cow::Borrowed(&rollout.weights),
    }
}

/// The treatment gets `share`; what is left is divided among the others as it was before the release, or given to the control
/// where nobody else had any.
pub(super) fn weights(stable: &Serve, treatment: &str, control: &str, share: u32) -> BTreeMap<String, u32> {
    let mut others = standing_weights(stable).into_owned();
    others.retain(|key, weight| key != treatment && *weight > 0);
    if others.is_empty() {
        others.insert(control.to_owned(), 1);
    }
    let rest = u64::from(SLOTS.saturating_sub(share));
    let total: u64 = others.values().map(|weight| u64::from(*weight)).sum();
    let mut left = rest;
    let mut weights = BTreeMap::new();
    let last = others.len() - 1;
    for (at, (key, weight)) in others.into_iter().enumerate() {
        let part = if at == last { left } else { u64::from(weight) * rest / total };
        left -= part;
        weights.insert(key, u32::try_from(part).unwrap_or(SLOTS));
    }
    weights.insert(treatment.to_owned(), share.min(SLOTS));
    weights.retain(|_, weight| *weight > 0);
    weights
}

/// What restores the rollout that was served before the release.
fn back(release: &Release, config: &FlagEnvironment) -> Vec<Instruction> {
    let (flag, serve) = (release.flag.clone(), release.stable.clone());
    match release.plan.rule.as_deref() {
        None if config.fallthrough == serve => Vec::new(),
        None => vec![Instruction::SetFallthrough { flag, serve }],
        Some(id) => {
            let rule = config.rules.iter().find(|rule| rule.id == id && rule.serve != serve).cloned();
            let restored = rule.map(|mut rule| {
                rule.serve = serve;
                Instruction::ReplaceRule { flag, rule }
            });
            restored.into_iter().collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use guidon_sdk::model::Rollout;
    use proptest::prelude::*;

    fn rollout(weights: &[(&str, u32)]) -> Serve {
        Serve::Rollout(Rollout {
            weights: weights.iter().map(|(key, weight)| ((*key).to_owned(), *weight)).collect(),
            bucket_by: "targetingKey".to_owned(),
            salt: String::new(),
            allocation: Vec::new(),
        })
    }

    #[test]
    fn the_others_keep_their_proportions() {
        let of = |stable: &Serve, share| {
            weights(stable, "ai", "base", share)
                .into_iter()
                .map(|(key, weight)| format!("{key}={weight}"))
                .collect::<Vec<_>>()
        };
        assert_eq!(of(&Serve::Variation("base".to_owned()), 1_000), ["ai=1000", "base=99000"]);
        assert_eq!(of(&rollout(&[("a", 25_000), ("b", 75_000)]), 20_000), ["a=20000", "ai=20000", "b=60000"]);
        assert_eq!(of(&rollout(&[("ai", 10_000), ("base", 90_000)]), SLOTS), ["ai=100000"]);
        assert_eq!(of(&rollout(&[("ai", 100_000)]), 5_000), ["ai=5000", "base=95000"]);
    }

    proptest! {
        #[test]
        fn weights_always_sum_to_all_slots(parts in prop::collection::vec(0_u32..50_000, 1..6), share in 0..=SLOTS) {
            let keys: Vec<String> = (0..parts.len()).map(|at| format!("v{at}")).collect();
            let pairs: Vec<(&str, u32)> = keys.iter().map(String::as_str).zip(parts).collect();
            let found = weights(&rollout(&pairs), "v0", "control", share);
            prop_assert_eq!(found.values().map(|weight| u64::from(*weight)).sum::<u64>(), u64::from(SLOTS));
        }
    }
}
