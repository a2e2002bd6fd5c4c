//! The fewest instructions that make one flag of another. Pure.
//!
//! Both are in their published form, with keys. Of the wanted one an empty rule id, salt or allocation is the server's to fill
//! in, as it is in instructions.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use guidon_sdk::model::{Clause, Flag, FlagEnvironment, Op, Rollout, Rule, Serve, TARGETING_KEY, Target, Variation};

use crate::changes::Instruction;
use crate::changes::limits::MAX_KEYS_PER_INSTRUCTION;
use crate::environments::steps::{Edits, Phase, longest_in_order, pointer_part};

/// Edits of what all environments share. The kind of a flag cannot be edited.
pub(crate) fn diff_shared(standing: &Flag, wanted: &Flag, edits: &mut Edits<'_>) {
    let flag = || standing.key.clone();
    if standing.archived && !wanted.archived {
        edits.push(Phase::Shape, "/archived", Instruction::UnarchiveFlag { flag: flag() });
    }
    if let Some((instruction, path)) = diff_description(standing, wanted) {
        edits.push(Phase::Shape, path, instruction);
    }
    if standing.client_side != wanted.client_side {
        let instruction = Instruction::SetClientSide { flag: flag(), client_side: wanted.client_side };
        edits.push(Phase::Shape, "/clientSide", instruction);
    }
    if standing.schema != wanted.schema {
        edits.push(Phase::Shape, "/schema", Instruction::SetSchema { flag: flag(), schema: wanted.schema.clone() });
    }
    for (index, variation) in wanted.variations.iter().enumerate() {
        let instruction = match standing.variation(&variation.key) {
            None => Some(Instruction::AddVariation { flag: flag(), variation: variation.clone() }),
            Some(known) => diff_variation(&standing.key, known, variation),
        };
        if let Some(instruction) = instruction {
            edits.push(Phase::Shape, &format!("/variations/{index}"), instruction);
        }
    }
    for variation in standing.variations.iter().filter(|variation| wanted.variation(&variation.key).is_none()) {
        let instruction = Instruction::RemoveVariation { flag: flag(), variation: variation.key.clone() };
        edits.push(Phase::Trim, "/variations", instruction);
    }
    if wanted.archived && !standing.archived {
        edits.push(Phase::Retire, "/archived", Instruction::ArchiveFlag { flag: flag() });
    }
}

/// What people read about a flag, and the one place of it if only one differs.
fn diff_description(standing: &Flag, wanted: &Flag) -> Option<(Instruction, &'static str)> {
    let mut places = Vec::new();
    let optional = |field: &Option<String>| field.clone().unwrap_or_default();
    let name = differs(&standing.name, &wanted.name, "/name", &mut places);
    let description = differs(&standing.description, &wanted.description, "/description", &mut places);
    let tags = differs(&standing.tags, &wanted.tags, "/tags", &mut places);
    let owner = differs(&optional(&standing.owner), &optional(&wanted.owner), "/owner", &mut places);
    let temporary = differs(&standing.temporary, &wanted.temporary, "/temporary", &mut places);
    let expires = differs(&optional(&standing.expires), &optional(&wanted.expires), "/expires", &mut places);
    let path = match places.as_slice() {
        [] => return None,
        [one] => *one,
        _ => "",
    };
    let flag = standing.key.clone();
    Some((Instruction::UpdateFlag { flag, name, description, tags, owner, temporary, expires }, path))
}

fn differs<T: PartialEq + Clone>(
    standing: &T,
    wanted: &T,
    path: &'static str,
    places: &mut Vec<&'static str>,
) -> Option<T> {
    if standing == wanted {
        return None;
    }
    places.push(path);
    Some(wanted.clone())
}

/// A provenance that was said cannot be taken back: one that is not wanted stays.
fn diff_variation(flag: &str, standing: &Variation, wanted: &Variation) -> Option<Instruction> {
    let changed = |differs: bool| differs.then_some(());
    let value = changed(standing.value != wanted.value).map(|()| wanted.value.clone());
    let name = changed(standing.name != wanted.name).map(|()| wanted.name.clone());
    let description = changed(standing.description != wanted.description).map(|()| wanted.description.clone());
    let provenance = wanted.provenance.clone().filter(|wanted| standing.provenance.as_ref() != Some(wanted));
    if value.is_none() && name.is_none() && description.is_none() && provenance.is_none() {
        return None;
    }
    let (flag, variation) = (flag.to_owned(), standing.key.clone());
    Some(Instruction::UpdateVariation { flag, variation, value, name, description, provenance })
}

/// Edits of how one environment serves the flag `key`.
pub(crate) fn diff_serving(key: &str, standing: &FlagEnvironment, wanted: &FlagEnvironment, edits: &mut Edits<'_>) {
    let flag = || key.to_owned();
    if standing.off_variation != wanted.off_variation {
        let instruction = Instruction::SetOffVariation { flag: flag(), variation: wanted.off_variation.clone() };
        edits.push(Phase::Serve, "/offVariation", instruction);
    }
    for known in &standing.prerequisites {
        if !wanted.prerequisites.iter().any(|other| other.flag == known.flag) {
            let instruction = Instruction::RemovePrerequisite { flag: flag(), prerequisite: known.flag.clone() };
            edits.push(Phase::Serve, "/prerequisites", instruction);
        }
    }
    for (index, prerequisite) in wanted.prerequisites.iter().enumerate() {
        if !standing.prerequisites.contains(prerequisite) {
            let instruction = Instruction::AddPrerequisite { flag: flag(), prerequisite: prerequisite.clone() };
            edits.push(Phase::Serve, &format!("/prerequisites/{index}"), instruction);
        }
    }
    diff_targets(key, &standing.targets, &wanted.targets, edits);
    diff_rules(key, &standing.rules, &wanted.rules, edits);
    if standing.fallthrough != wanted.fallthrough {
        let instruction = reweighing(key, None, &standing.fallthrough, &wanted.fallthrough);
        let instruction = instruction.unwrap_or_else(|| Instruction::SetFallthrough {
            flag: flag(),
            serve: leaving_out(&standing.fallthrough, &wanted.fallthrough),
        });
        edits.push(Phase::Serve, "/fallthrough", instruction);
    }
    if standing.on != wanted.on {
        let instruction = if wanted.on {
            Instruction::TurnFlagOn { flag: flag() }
        } else {
            Instruction::TurnFlagOff { flag: flag() }
        };
        edits.push(Phase::Serve, "/on", instruction);
    }
}

fn diff_targets(flag: &str, standing: &[Target], wanted: &[Target], edits: &mut Edits<'_>) {
    let by_key = |targets: &'_ [Target]| -> HashMap<String, String> {
        let pairs =
            targets.iter().flat_map(|target| target.keys.iter().map(|key| (key.clone(), target.variation.clone())));
        pairs.collect()
    };
    if standing == wanted {
        return;
    }
    let (had, has) = (by_key(standing), by_key(wanted));
    let gone: BTreeSet<&String> = had.keys().filter(|key| !has.contains_key(*key)).collect();
    for keys in chunks(gone.into_iter().cloned()) {
        let instruction = Instruction::RemoveTargets { flag: flag.to_owned(), keys, targets: None };
        edits.push(Phase::Serve, "/targets", instruction);
    }
    let mut added: BTreeMap<&String, BTreeSet<&String>> = BTreeMap::new();
    for (key, variation) in has.iter().filter(|(key, variation)| had.get(*key) != Some(*variation)) {
        added.entry(variation).or_default().insert(key);
    }
    for (variation, keys) in added {
        for keys in chunks(keys.into_iter().cloned()) {
            let (flag, variation) = (flag.to_owned(), variation.clone());
            let instruction = Instruction::AddTargets { flag, variation, keys, targets: None };
            edits.push(Phase::Serve, "/targets", instruction);
        }
    }
}

/// Keys in portions that fit into one instruction.
pub(crate) fn chunks(keys: impl Iterator<Item = String>) -> Vec<Vec<String>> {
    let all: Vec<String> = keys.collect();
    all.chunks(MAX_KEYS_PER_INSTRUCTION).map(<[String]>::to_vec).collect()
}

/// Removes, moves, adds and replaces rules, in this order. Wanted rules with the id of a standing one are that one; rules
/// without an id, or with another, are new.
fn diff_rules(flag: &str, standing: &[Rule], wanted: &[Rule], edits: &mut Edits<'_>) {
    let place: HashMap<&str, usize> = standing.iter().enumerate().map(|(place, rule)| (&*rule.id, place)).collect();
    let kept: Vec<&Rule> = wanted.iter().filter(|rule| place.contains_key(&*rule.id)).collect();
    let kept_ids: BTreeSet<&str> = kept.iter().map(|rule| &*rule.id).collect();
    for rule in standing.iter().filter(|rule| !kept_ids.contains(&*rule.id)) {
        let instruction = Instruction::RemoveRule { flag: flag.to_owned(), rule: rule.id.clone() };
        edits.push(Phase::Serve, "/rules", instruction);
    }
    let order: Vec<usize> = kept.iter().filter_map(|rule| place.get(&*rule.id).copied()).collect();
    let in_order = longest_in_order(&order);
    // From the last one on: what a rule goes in front of is in its place then.
    for index in (0..kept.len()).rev() {
        let (Some(rule), Some(false)) = (kept.get(index), in_order.get(index)) else { continue };
        let before = kept.get(index + 1).map(|next| next.id.clone());
        let instruction = Instruction::MoveRule { flag: flag.to_owned(), rule: rule.id.clone(), before };
        edits.push(Phase::Serve, "/rules", instruction);
    }
    let mut next_kept = vec![None; wanted.len()];
    let mut next = None;
    for (slot, rule) in next_kept.iter_mut().zip(wanted).rev() {
        *slot = next.clone();
        if place.contains_key(&*rule.id) {
            next = Some(rule.id.clone());
        }
    }
    for (index, (rule, before)) in wanted.iter().zip(next_kept).enumerate() {
        let at = format!("/rules/{index}");
        let Some(known) = place.get(&*rule.id).and_then(|place| standing.get(*place)) else {
            let instruction = Instruction::AddRule { flag: flag.to_owned(), rule: rule.clone(), before };
            edits.push(Phase::Serve, &at, instruction);
            continue;
        };
        if is_same_rule(known, rule) {
            continue;
        }
        let only_serve = known.description == rule.description && is_same_clauses(&known.clauses, &rule.clauses);
        let instruction = reweighing(flag, Some(&rule.id), &known.serve, &rule.serve).filter(|_| only_serve);
        let instruction = instruction.unwrap_or_else(|| Instruction::ReplaceRule {
            flag: flag.to_owned(),
            rule: Rule { serve: leaving_out(&known.serve, &rule.serve), ..rule.clone() },
        });
        edits.push(Phase::Serve, &at, instruction);
    }
}

/// `setRollout`, where it makes what is served of what stands.
fn reweighing(flag: &str, rule: Option<&str>, standing: &Serve, wanted: &Serve) -> Option<Instruction> {
    let Serve::Rollout(Rollout { weights, bucket_by, salt, allocation }) = wanted else { return None };
    let (standing_salt, standing_bucket) = match standing {
        Serve::Rollout(rollout) => (&*rollout.salt, &*rollout.bucket_by),
        Serve::Variation(_) => ("", TARGETING_KEY),
    };
    if !allocation.is_empty() || salt != standing_salt {
        return None;
    }
    Some(Instruction::SetRollout {
        flag: flag.to_owned(),
        rule: rule.map(str::to_owned),
        weights: weights.clone(),
        bucket_by: (bucket_by != standing_bucket).then(|| bucket_by.clone()),
        reshuffle: false,
        salt: None,
        allocation: None,
    })
}

/// What is to be served, without a salt and an allocation that stand already: the server keeps them.
fn leaving_out(standing: &Serve, wanted: &Serve) -> Serve {
    let mut wanted = wanted.clone();
    if let (Serve::Rollout(before), Serve::Rollout(after)) = (standing, &mut wanted)
        && before.salt == after.salt
    {
        after.salt = String::new();
        if before.allocation == after.allocation && before.bucket_by == after.bucket_by {
            after.allocation = Vec::new();
        }
    }
    wanted
}

/// Whether two rules do the same, whatever their ids.
pub(crate) fn is_same_rule(left: &Rule, right: &Rule) -> bool {
    left.description == right.description && left.serve == right.serve && is_same_clauses(&left.clauses, &right.clauses)
}

/// Whether clauses match the same contexts. The order of targeting keys does not count: they are stored as a set.
pub(crate) fn is_same_clauses(left: &[Clause], right: &[Clause]) -> bool {
    left.len() == right.len() && left.iter().zip(right).all(|(left, right)| is_same_clause(left, right))
}

fn is_same_clause(left: &Clause, right: &Clause) -> bool {
    if !lists_targeting_keys(left) || !lists_targeting_keys(right) {
        return left == right;
    }
    let written = |clause: &Clause| -> BTreeSet<String> { clause.values.iter().map(ToString::to_string).collect() };
    left.negate == right.negate && (left.values == right.values || written(left) == written(right))
}

/// Whether a clause's values are persons' keys.
pub(crate) fn lists_targeting_keys(clause: &Clause) -> bool {
    clause.attribute == TARGETING_KEY && clause.op == Op::In
}

/// Where in a flag's document one environment stands.
pub(crate) fn path_of_environment(environment: &str) -> String {
    format!("/environments/{}", pointer_part(environment))
}
