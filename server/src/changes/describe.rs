//! Sentences for people.

use guidon_sdk::model::{Rollout, SLOTS, Serve};

use super::instruction::SegmentList;
use super::{Instruction, RequestEdit};
use crate::drills::DrillEdit;
use crate::identity::DirectoryEdit;

/// What an instruction does, as a sentence without a full stop, as in `turned summary-engine on in production`.
///
/// `named` is the environment that the change names. Targeting keys are counted, never named.
#[must_use]
pub fn describe(instruction: &Instruction, named: Option<&str>) -> String {
    let edit = instruction.edit();
    let what = about_flag(edit).or_else(|| about_segment(edit)).unwrap_or_else(|| about_project(edit));
    match instruction.environment(named) {
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
        Instruction::UpdateEnvironment { key, tier: Some(tier), .. } => {
            format!("moved the environment {key} to the tier {}", tier.as_str())
        }
        Instruction::UpdateEnvironment { key, name, .. } => {
            format!("renamed the environment {key} to \"{}\"", name.as_deref().unwrap_or(key))
        }
        Instruction::DeleteEnvironment { key } => format!("deleted the environment {key}"),
        Instruction::CreateSdkKey { id, .. } => format!("created the SDK key {id}"),
        Instruction::RotateSdkKey { id, successor, .. } => format!("replaced the SDK key {id} by {successor}"),
        Instruction::RevokeSdkKey { id } => format!("revoked the SDK key {id}"),
        Instruction::DeclareFreeze { id, reason, .. } => format!("declared the freeze {id} (\"{reason}\")"),
        Instruction::LiftFreeze { id } => format!("lifted the freeze {id}"),
        Instruction::Directory(edit) => about_directory(edit),
        Instruction::Request(edit) => about_request(edit),
        Instruction::Webhook(edit) => edit.describe(),
        Instruction::Drill(edit) => {
            let DrillEdit::RecordDrill { flag, report } = &**edit;
            let outcome = if report.passed { "passed" } else { "failed" };
            format!("recorded a rollback drill of {flag} to revision {}, which {outcome},", report.to_revision)
        }
        other => other.kind().to_owned(),
    }
}

fn about_directory(edit: &DirectoryEdit) -> String {
    match edit {
        DirectoryEdit::CreateAccount { id } => format!("created the account {id}"),
        DirectoryEdit::ClaimAccount { id } => format!("recorded that {id} was claimed"),
        DirectoryEdit::ResetAccount { id } => format!("reset the account {id}"),
        DirectoryEdit::CreateServiceAccount { id, name } => format!("created the service account {id} (\"{name}\")"),
        DirectoryEdit::CreateAgent { id, name, tool, owner, .. } => {
            format!("registered the AI agent {id} (\"{name}\", {tool}), owned by {owner}")
        }
        DirectoryEdit::UpdatePrincipal { id, .. } => format!("edited {id}"),
        DirectoryEdit::DisablePrincipal { id } => format!("disabled {id}"),
        DirectoryEdit::EnablePrincipal { id } => format!("enabled {id}"),
        DirectoryEdit::ErasePrincipal { id } => format!("erased who {id} is"),
        DirectoryEdit::GrantRole { principal, group, role, project, tiers, .. } => {
            let whom = principal.clone().or_else(|| group.as_ref().map(|group| format!("the group {group}")));
            let tiers: Vec<&str> = tiers.iter().map(|tier| tier.as_str()).collect();
            let tiers = if tiers.is_empty() { "all tiers".to_owned() } else { tiers.join(", ") };
            let project = project.as_ref().map_or_else(|| "all projects".to_owned(), Clone::clone);
            format!("made {} {} in {tiers} of {project}", whom.unwrap_or_default(), role.as_str())
        }
        DirectoryEdit::RevokeRole { id } => format!("took the role of {id} away"),
        DirectoryEdit::CreateToken { id, principal, .. } => format!("created the token {id} of {principal}"),
        DirectoryEdit::RotateToken { id, successor, .. } => format!("replaced the token {id} by {successor}"),
        DirectoryEdit::RevokeToken { id } => format!("revoked the token {id}"),
        DirectoryEdit::TrustIssuer { id, issuer, principal, .. } => {
            format!("let identity tokens of {issuer} buy tokens of {principal} ({id})")
        }
        DirectoryEdit::DistrustIssuer { id } => format!("ended the trust {id}"),
        DirectoryEdit::SetPolicy { name, .. } => format!("set the policy file {name}"),
        DirectoryEdit::RemovePolicy { name } => format!("removed the policy file {name}"),
    }
}

fn about_request(edit: &RequestEdit) -> String {
    let id = edit.request().unwrap_or_default();
    match edit {
        RequestEdit::OpenRequest { draft: true, .. } => format!("drafted the change request {id}"),
        RequestEdit::OpenRequest { .. } => format!("opened the change request {id}"),
        RequestEdit::EditRequest { .. } => format!("edited the change request {id}"),
        RequestEdit::SubmitRequest { .. } => format!("submitted the change request {id}"),
        RequestEdit::CommentRequest { .. } => format!("commented on the change request {id}"),
        RequestEdit::ApproveRequest { by, .. } => format!("{by} approved the change request {id}"),
        RequestEdit::RejectRequest { by, .. } => format!("{by} rejected the change request {id}"),
        RequestEdit::WithdrawRequest { .. } => format!("withdrew the change request {id}"),
        RequestEdit::ApplyRequest { .. } => format!("applied the change request {id}"),
        RequestEdit::ExpireRequest { .. } => format!("the change request {id} expired"),
        RequestEdit::ReviewEntry { revision, .. } => format!("closed the review of the emergency change {revision}"),
    }
}

fn about_flag(instruction: &Instruction) -> Option<String> {
    let flag = instruction.flag()?;
    Some(match instruction {
        Instruction::Release(edit) => edit.describe(),
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
        let elsewhere = json!({"kind": "turnFlagOn", "flag": "f", "environment": "staging"});
        assert_eq!(said(elsewhere), "turned f on in staging");
    }
}
