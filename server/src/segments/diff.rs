//! The fewest instructions that make one segment of another. Pure.

use std::collections::{BTreeSet, HashSet};

use guidon_sdk::eval::KeySet;
use guidon_sdk::model::{Segment, SegmentRule};

use crate::changes::Instruction;
use crate::changes::instruction::SegmentList;
use crate::environments::steps::{Edits, Phase};
use crate::flags::diff::{chunks, is_same_clauses};
use crate::state::SegmentState;

/// A segment as it is wanted. A list of keys that is not said keeps what stands.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct WantedSegment {
    pub(crate) key: String,
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) included: Option<Vec<String>>,
    pub(crate) excluded: Option<Vec<String>>,
    /// An empty id is the server's to fill in.
    pub(crate) rules: Vec<SegmentRule>,
}

impl WantedSegment {
    /// Its definition, with the keys that are said.
    pub(crate) fn definition(&self) -> Segment {
        Segment {
            key: self.key.clone(),
            name: self.name.clone(),
            description: self.description.clone(),
            included: self.included.clone().unwrap_or_default(),
            excluded: self.excluded.clone().unwrap_or_default(),
            rules: self.rules.clone(),
        }
    }
}

/// Edits that make `standing` what is wanted, or that create it.
pub(crate) fn diff(standing: Option<&SegmentState>, wanted: &WantedSegment, edits: &mut Edits<'_>) {
    let key = || wanted.key.clone();
    let Some(standing) = standing else { return create(wanted, edits) };
    let changed = |standing: &str, wanted: &str| (standing != wanted).then(|| wanted.to_owned());
    let name = changed(&standing.stored.name, &wanted.name);
    let description = changed(&standing.stored.description, &wanted.description);
    if name.is_some() || description.is_some() {
        edits.push(Phase::Segments, "", Instruction::UpdateSegment { segment: key(), name, description });
    }
    let wanted_ids: HashSet<&str> = wanted.rules.iter().map(|rule| &*rule.id).collect();
    for rule in standing.rules.iter().filter(|rule| !wanted_ids.contains(&*rule.id)) {
        let instruction = Instruction::RemoveSegmentRule { segment: key(), rule: rule.id.clone() };
        edits.push(Phase::Segments, "/rules", instruction);
    }
    for (index, rule) in wanted.rules.iter().enumerate() {
        let instruction = match standing.rules.iter().find(|known| known.id == rule.id) {
            None => Instruction::AddSegmentRule { segment: key(), rule: rule.clone() },
            Some(known) if is_same(known, rule) => continue,
            Some(_) => Instruction::ReplaceSegmentRule { segment: key(), rule: rule.clone() },
        };
        edits.push(Phase::Segments, &format!("/rules/{index}"), instruction);
    }
    for (list, path, keys, known) in [
        (SegmentList::Included, "/included", &wanted.included, &standing.included),
        (SegmentList::Excluded, "/excluded", &wanted.excluded, &standing.excluded),
    ] {
        let Some(keys) = keys else { continue };
        let (gone, new) = diff_keys(known, keys);
        for keys in chunks(gone.into_iter()) {
            let instruction =
                Instruction::RemoveSegmentKeys { segment: key(), list, keys, key_set: None, merged: None };
            edits.push(Phase::Segments, path, instruction);
        }
        add_keys(&wanted.key, list, path, new, edits);
    }
}

fn create(wanted: &WantedSegment, edits: &mut Edits<'_>) {
    let mut segment = wanted.definition();
    let rest = |keys: &mut Vec<String>| {
        let most = keys.len().min(crate::changes::limits::MAX_KEYS_PER_INSTRUCTION);
        keys.split_off(most)
    };
    let more = [
        (SegmentList::Included, "/included", rest(&mut segment.included)),
        (SegmentList::Excluded, "/excluded", rest(&mut segment.excluded)),
    ];
    let instruction = Instruction::CreateSegment { segment: Box::new(segment), included: None, excluded: None };
    edits.push(Phase::Segments, "", instruction);
    for (list, path, keys) in more {
        add_keys(&wanted.key, list, path, keys, edits);
    }
}

fn add_keys(segment: &str, list: SegmentList, path: &str, keys: Vec<String>, edits: &mut Edits<'_>) {
    for keys in chunks(keys.into_iter()) {
        let segment = segment.to_owned();
        let instruction = Instruction::AddSegmentKeys { segment, list, keys, key_set: None, merged: None };
        edits.push(Phase::Segments, path, instruction);
    }
}

/// Keys that are not wanted any more, and those that are new; sorted.
pub(crate) fn diff_keys(known: &KeySet, wanted: &[String]) -> (Vec<String>, Vec<String>) {
    let all: HashSet<&str> = wanted.iter().map(String::as_str).collect();
    let gone: BTreeSet<&str> = known.iter().filter(|key| !all.contains(key)).collect();
    let new: BTreeSet<&str> = all.into_iter().filter(|key| !known.contains(key)).collect();
    let owned = |keys: BTreeSet<&str>| keys.into_iter().map(str::to_owned).collect();
    (owned(gone), owned(new))
}

/// Whether two rules do the same, whatever their ids.
pub(crate) fn is_same(left: &SegmentRule, right: &SegmentRule) -> bool {
    left.description == right.description && is_same_clauses(&left.clauses, &right.clauses)
}
