//! Sentences for people.

use guidon_sdk::model::{Rollout, SLOTS, Serve};

use super::Instruction;
use super::instruction::SegmentList;

/// What an instruction does, as a sentence without a full stop, as in `turned summary-engine on in production`.
///
/// `environment` is the one that the change names. Targeting keys are counted, never named.
#[must_use]
pub fn describe(instruction: &Instruction, environment: Option<&str>) -> String {
    let what =
        about_flag(instruction).or_else(|| about_segment(instruction)).unwrap_or_else(|| about_project(instruction));
    match environment.filter(|_| instruction.needs_environment()) {
        Some(environment) => format!("{what} in {environment}"),
        None => what,
    }
}

fn about_project(instruction: &Instruction) -> String {
    match instruction {
        Instruction::CreateProject { .. } => "created the project".to_owned(),
        Instruction::CreateEnvironment { key, tier, .. } => {
            format!("created the environment {key} ({})", tier.as_str())
        }
        Instruction::UpdateEnvironment { key, name } => format!("renamed the environment {key} to \"{name}\""),
        Instruction::DeleteEnvironment { key } => format!("deleted the environment {key}"),
        Instruction::CreateSdkKey { id, .. } => format!("created the SDK key {id}"),
        Instruction::RevokeSdkKey { id } => format!("revoked the SDK key {id}"),
        other => other.kind().to_owned(),
    }
}

fn about_flag(instruction: &Instruction) -> Option<String> {
    let flag = instruction.flag()?;
    Some(match instruction {
        Instruction::CreateFlag { .. } => format!("created the flag {flag}"),
        Instruction::UpdateFlag { .. } => format!("edited the description of {flag}"),
        Instruction::SetClientSide { client_side: true, .. } => format!("showed {flag} to client-side keys"),
        Instruction::SetClientSide { .. } => format!("hid {flag} from client-side keys"),
        Instruction::SetSchema { schema: Some(_), .. } => format!("set the schema of {flag}"),
        Instruction::SetSchema { .. } => format!("removed the schema of {flag}"),
        Instruction::ArchiveFlag { .. } => format!("archived {flag}"),
        Instruction::UnarchiveFlag { .. } => format!("brought {flag} back from the archive"),
        Instruction::DeleteFlag { .. } => format!("deleted {flag}"),
        Instruction::AddVariation { variation, .. } => format!("added the variation {} to {flag}", variation.key),
        Instruction::UpdateVariation { variation, .. } => format!("edited the variation {variation} of {flag}"),
        Instruction::RemoveVariation { variation, .. } => format!("removed the variation {variation} of {flag}"),
        Instruction::TurnFlagOn { .. } => format!("turned {flag} on"),
        Instruction::TurnFlagOff { .. } => format!("turned {flag} off"),
        Instruction::SetOffVariation { variation, .. } => format!("set the off variation of {flag} to {variation}"),
        Instruction::AddPrerequisite { prerequisite, .. } => {
            format!("made {flag} require {} of {}", prerequisite.variation, prerequisite.flag)
        }
        Instruction::RemovePrerequisite { prerequisite, .. } => format!("made {flag} no longer require {prerequisite}"),
        Instruction::AddTargets { variation, .. } => format!("added targets of {flag} that get {variation}"),
        Instruction::RemoveTargets { .. } => format!("removed targets of {flag}"),
        Instruction::AddRule { rule, .. } => {
            format!("added the rule {} to {flag}, which serves {}", rule.id, serve(&rule.serve))
        }
        Instruction::ReplaceRule { rule, .. } => {
            format!("replaced the rule {} of {flag}, which serves {}", rule.id, serve(&rule.serve))
        }
        Instruction::MoveRule { rule, before: Some(before), .. } => {
            format!("moved the rule {rule} of {flag} before {before}")
        }
        Instruction::MoveRule { rule, .. } => format!("moved the rule {rule} of {flag} to the end"),
        Instruction::RemoveRule { rule, .. } => format!("removed the rule {rule} of {flag}"),
        Instruction::SetFallthrough { serve: served, .. } => format!("made {flag} serve {} by default", serve(served)),
        Instruction::SetRollout { rule, weights, reshuffle, .. } => {
            let place = rule.as_ref().map_or_else(|| "by default".to_owned(), |rule| format!("by the rule {rule}"));
            let anew = if *reshuffle { ", dealt anew" } else { "" };
            format!("made {flag} serve {} {place}{anew}", shares(weights.iter()))
        }
        Instruction::RevertFlag { to_revision, .. } => format!("put {flag} back to revision {to_revision}"),
        other => format!("{} {flag}", other.kind()),
    })
}

fn about_segment(instruction: &Instruction) -> Option<String> {
    let segment = instruction.segment()?;
    let list = |list: &SegmentList| match list {
        SegmentList::Included => "included",
        SegmentList::Excluded => "excluded",
    };
    Some(match instruction {
        Instruction::CreateSegment { .. } => format!("created the segment {segment}"),
        Instruction::UpdateSegment { .. } => format!("edited the description of the segment {segment}"),
        Instruction::DeleteSegment { .. } => format!("deleted the segment {segment}"),
        Instruction::AddSegmentRule { rule, .. } => format!("added the rule {} to the segment {segment}", rule.id),
        Instruction::ReplaceSegmentRule { rule, .. } => {
            format!("replaced the rule {} of the segment {segment}", rule.id)
        }
        Instruction::RemoveSegmentRule { rule, .. } => format!("removed the rule {rule} of the segment {segment}"),
        Instruction::AddSegmentKeys { list: of, key_set, .. } => {
            let count = key_set.as_ref().map_or_else(String::new, |set| format!("{} ", set.len));
            format!("added {count}{} keys to the segment {segment}", list(of))
        }
        Instruction::RemoveSegmentKeys { list: of, key_set, .. } => {
            let count = key_set.as_ref().map_or_else(String::new, |set| format!("{} ", set.len));
            format!("removed {count}{} keys from the segment {segment}", list(of))
        }
        Instruction::RevertSegment { to_revision, .. } => {
            format!("put the segment {segment} back to revision {to_revision}")
        }
        other => format!("{} {segment}", other.kind()),
    })
}

fn serve(served: &Serve) -> String {
    match served {
        Serve::Variation(variation) => variation.clone(),
        Serve::Rollout(Rollout { weights, .. }) => shares(weights.iter()),
    }
}

/// `5 % ai, 95 % baseline`.
fn shares<'a>(weights: impl Iterator<Item = (&'a String, &'a u32)>) -> String {
    let percent = |weight: u32| f64::from(weight) * 100.0 / f64::from(SLOTS);
    let shares: Vec<String> =
        weights.map(|(variation, weight)| format!("{} % {variation}", percent(*weight))).collect();
    shares.join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn sentences_name_what_was_done_and_where() {
        let said = |instruction| describe(&serde_json::from_value(instruction).unwrap(), Some("production"));
        assert_eq!(said(json!({"kind": "turnFlagOn", "flag": "f"})), "turned f on in production");
        let rollout = json!({"kind": "setRollout", "flag": "f", "weights": {"ai": 1_500, "baseline": 98_500}});
        assert_eq!(said(rollout), "made f serve 1.5 % ai, 98.5 % baseline by default in production");
        assert_eq!(said(json!({"kind": "archiveFlag", "flag": "f"})), "archived f");
    }
}
