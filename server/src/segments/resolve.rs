//! Resolves instructions about segments.

use std::collections::HashSet;
use std::sync::Arc;

use guidon_sdk::eval::KeySet;
use guidon_sdk::model::{KeySetRef, SegmentRule};

use super::{KeyPart, StoredSegment};
use crate::changes::instruction::SegmentList;
use crate::changes::resolve::Resolving;
use crate::changes::{Instruction, limits};
use crate::flags::segments_of;
use crate::state::SegmentState;

/// The instruction as it is to be journaled; `None` if it asks for what is already so, or was refused.
pub(crate) fn resolve(cx: &mut Resolving<'_>, mut instruction: Instruction) -> Option<Instruction> {
    let environment = cx.environment?.to_owned();
    match &mut instruction {
        Instruction::CreateSegment { .. } => {
            create(cx, &mut instruction, &environment);
            return Some(instruction);
        }
        Instruction::RevertSegment { segment, to_revision, state } => {
            cx.refuse_if_sent("/state", state.is_some());
            *state = Some(Box::new(earlier(cx, *to_revision, segment, &environment)?));
            return Some(instruction);
        }
        _ => {}
    }
    let key = instruction.segment()?.to_owned();
    let Some(state) = cx.project.segment(&environment, &key).map(Arc::clone) else {
        cx.refuse("/segment", "unknownSegment", format!("there is no segment \"{key}\" in \"{environment}\""));
        return None;
    };
    match &mut instruction {
        Instruction::DeleteSegment { .. } => check_unused(cx, &key, &environment),
        Instruction::AddSegmentRule { rule, .. } => {
            if rule.id.is_empty() {
                rule.id = cx.rule_id(state.stored.rules.iter().map(|rule| rule.id.as_str()));
            } else if state.stored.rules.iter().any(|known| known.id == rule.id) {
                cx.refuse("/rule/id", "ruleExists", format!("there is a rule \"{}\" already; replace it", rule.id));
            }
            cx.move_clauses("/rule/clauses", &mut rule.clauses, &|_| None);
        }
        Instruction::ReplaceSegmentRule { rule, .. } => {
            find_rule(cx, "/rule/id", &state, &rule.id)?;
            cx.move_clauses("/rule/clauses", &mut rule.clauses, &|keys| standing_set(&state, keys));
        }
        Instruction::RemoveSegmentRule { rule, .. } => {
            find_rule(cx, "/rule", &state, rule)?;
        }
        Instruction::AddSegmentKeys { list, keys, key_set, merged, .. } => {
            let step = Step { state: &state, list: *list, adds: true };
            step.resolve(cx, std::mem::take(keys), key_set, merged)?;
        }
        Instruction::RemoveSegmentKeys { list, keys, key_set, merged, .. } => {
            let step = Step { state: &state, list: *list, adds: false };
            step.resolve(cx, std::mem::take(keys), key_set, merged)?;
        }
        _ => {}
    }
    Some(instruction)
}

fn create(cx: &mut Resolving<'_>, instruction: &mut Instruction, environment: &str) {
    let Instruction::CreateSegment { segment, included, excluded } = instruction else { return };
    if cx.project.segment(environment, &segment.key).is_some() {
        let message = format!("there is a segment \"{}\" already; edit it, or choose another key", segment.key);
        cx.refuse("/segment/key", "segmentExists", message);
    } else if cx.project.segments.len() >= limits::MAX_SEGMENTS {
        cx.refuse("/segment", "tooMany", format!("a project has at most {} segments", limits::MAX_SEGMENTS));
    }
    cx.refuse_if_sent("/included", included.is_some());
    cx.refuse_if_sent("/excluded", excluded.is_some());
    for (at, keys, set) in
        [("/segment/included", &mut segment.included, included), ("/segment/excluded", &mut segment.excluded, excluded)]
    {
        cx.check_targeting_keys(at, keys);
        let mut seen = HashSet::new();
        let mut keys = std::mem::take(keys);
        keys.retain(|key| seen.insert(key.clone()));
        if !keys.is_empty() {
            *set = Some(cx.key_sets.make(keys, &mut *cx.mint));
        }
    }
    let mut taken: Vec<String> = segment.rules.iter().map(|rule| rule.id.clone()).collect();
    for (index, rule) in segment.rules.iter_mut().enumerate() {
        if rule.id.is_empty() {
            rule.id = cx.rule_id(taken.iter().map(String::as_str));
            taken.push(rule.id.clone());
        }
        cx.move_clauses(&format!("/segment/rules/{index}/clauses"), &mut rule.clauses, &|_| None);
    }
}

/// Keys added to, or taken out of, one list of a segment.
struct Step<'a> {
    state: &'a SegmentState,
    list: SegmentList,
    adds: bool,
}

impl Step<'_> {
    fn resolve(
        &self,
        cx: &mut Resolving<'_>,
        keys: Vec<String>,
        key_set: &mut Option<KeySetRef>,
        merged: &mut Option<KeySetRef>,
    ) -> Option<()> {
        cx.refuse_if_sent("/keySet", key_set.is_some());
        cx.refuse_if_sent("/merged", merged.is_some());
        cx.check_targeting_keys("/keys", &keys);
        let (known, parts) = match self.list {
            SegmentList::Included => (&self.state.included, &self.state.stored.included),
            SegmentList::Excluded => (&self.state.excluded, &self.state.stored.excluded),
        };
        let mut seen = HashSet::new();
        let effective: Vec<String> =
            keys.into_iter().filter(|key| known.contains(key) != self.adds && seen.insert(key.clone())).collect();
        if effective.is_empty() {
            return None;
        }
        if self.adds && known.len() + effective.len() > limits::MAX_KEYS_PER_LIST {
            let most = limits::MAX_KEYS_PER_LIST;
            cx.refuse(
                "/keys",
                "tooMany",
                format!("a list holds at most {most} keys; use a rule on an attribute instead"),
            );
            return None;
        }
        *merged = self.merge(cx, known, parts, &effective);
        if merged.is_none() {
            *key_set = Some(cx.key_sets.make(effective, &mut *cx.mint));
        }
        Some(())
    }

    /// The whole list afterwards, where it would take too many steps to make it.
    fn merge(&self, cx: &mut Resolving<'_>, known: &KeySet, parts: &[KeyPart], step: &[String]) -> Option<KeySetRef> {
        if parts.len() < limits::MAX_PARTS_PER_LIST {
            return None;
        }
        let removed: HashSet<&str> = if self.adds { HashSet::new() } else { step.iter().map(String::as_str).collect() };
        let mut all: Vec<String> = known.iter().filter(|key| !removed.contains(key)).map(str::to_owned).collect();
        if self.adds {
            all.extend_from_slice(step);
        }
        all.sort_unstable();
        Some(cx.key_sets.make(all, &mut *cx.mint))
    }
}

fn check_unused(cx: &mut Resolving<'_>, key: &str, environment: &str) {
    let uses = cx.project.flags.values().find(|flag| {
        let config = flag.stored.environments.get(environment);
        config.is_some_and(|config| segments_of(config).contains(key))
    });
    if let Some(flag) = uses.map(|flag| flag.stored.key.clone()) {
        cx.refuse("/segment", "segmentInUse", format!("the flag \"{flag}\" refers to it; change that rule first"));
    }
}

fn find_rule<'s>(cx: &mut Resolving<'_>, at: &str, state: &'s SegmentState, id: &str) -> Option<&'s SegmentRule> {
    let found = state.stored.rules.iter().find(|rule| rule.id == id);
    if found.is_none() {
        cx.refuse(at, "unknownRule", format!("there is no rule \"{id}\" in this segment"));
    }
    found
}

/// The key set that holds just these keys for a clause of the segment already.
fn standing_set(state: &SegmentState, keys: &[String]) -> Option<KeySetRef> {
    let clauses = state.stored.rules.iter().flat_map(|rule| &rule.clauses);
    let with_keys = state.rules.iter().flat_map(|rule| &rule.clauses);
    let same = clauses.zip(with_keys).find(|(stored, published)| {
        stored.key_set.is_some() && stored.values.is_empty() && published.values.iter().eq(keys.iter())
    });
    same.and_then(|(stored, _)| stored.key_set.clone())
}

fn earlier(cx: &mut Resolving<'_>, revision: u64, segment: &str, environment: &str) -> Option<StoredSegment> {
    let past = cx.past.worlds.get(&revision).and_then(|world| world.segment(&cx.project.key, environment, segment));
    let stored = past.map(|segment| StoredSegment::clone(&segment.stored));
    if stored.is_none() {
        let message =
            format!("at revision {revision} there was no segment \"{segment}\" in \"{environment}\" to go back to");
        cx.refuse("/toRevision", "nothingThere", message);
    }
    stored
}
