//! What each resolved instruction does to a segment as it is stored.

use guidon_sdk::model::KeySetRef;

use super::{KeyPart, StoredSegment};
use crate::changes::Instruction;
use crate::changes::apply::{ApplyError, exists, unknown};
use crate::changes::instruction::SegmentList;

/// The segment after the instruction; `None` once it is deleted. `old` is `None` where there is no such segment.
pub(crate) fn apply(
    old: Option<&StoredSegment>,
    instruction: &Instruction,
) -> Result<Option<StoredSegment>, ApplyError> {
    match (instruction, old) {
        (Instruction::CreateSegment { segment, .. }, Some(_)) => return Err(exists("segment", &segment.key)),
        (Instruction::CreateSegment { segment, included, excluded }, None) => {
            return Ok(Some(StoredSegment {
                key: segment.key.clone(),
                name: segment.name.clone(),
                description: segment.description.clone(),
                included: included.iter().cloned().map(KeyPart::Add).collect(),
                excluded: excluded.iter().cloned().map(KeyPart::Add).collect(),
                rules: segment.rules.clone(),
            }));
        }
        (Instruction::RevertSegment { state, .. }, _) => {
            let state = state.as_deref().ok_or(ApplyError::Unresolved { field: "state" })?;
            return Ok(Some(state.clone()));
        }
        (_, None) => return Err(unknown("segment", instruction.segment().unwrap_or_default())),
        (Instruction::DeleteSegment { .. }, Some(_)) => return Ok(None),
        _ => {}
    }
    let Some(mut segment) = old.cloned() else { return Ok(None) };
    edit(&mut segment, instruction)?;
    Ok(Some(segment))
}

fn edit(segment: &mut StoredSegment, instruction: &Instruction) -> Result<(), ApplyError> {
    match instruction {
        Instruction::UpdateSegment { name, description, .. } => {
            if let Some(name) = name {
                segment.name.clone_from(name);
            }
            if let Some(description) = description {
                segment.description.clone_from(description);
            }
        }
        Instruction::AddSegmentRule { rule, .. } => {
            if segment.rules.iter().any(|known| known.id == rule.id) {
                return Err(exists("rule", &rule.id));
            }
            segment.rules.push(rule.clone());
        }
        Instruction::ReplaceSegmentRule { rule, .. } => {
            let standing = segment.rules.iter_mut().find(|known| known.id == rule.id);
            standing.ok_or_else(|| unknown("rule", &rule.id))?.clone_from(rule);
        }
        Instruction::RemoveSegmentRule { rule, .. } => {
            let index =
                segment.rules.iter().position(|known| known.id == *rule).ok_or_else(|| unknown("rule", rule))?;
            segment.rules.remove(index);
        }
        Instruction::AddSegmentKeys { list, key_set, merged, .. } => {
            push(parts_mut(segment, *list), key_set, merged, KeyPart::Add)?;
        }
        Instruction::RemoveSegmentKeys { list, key_set, merged, .. } => {
            push(parts_mut(segment, *list), key_set, merged, KeyPart::Remove)?;
        }
        _ => {}
    }
    Ok(())
}

fn parts_mut(segment: &mut StoredSegment, list: SegmentList) -> &mut Vec<KeyPart> {
    match list {
        SegmentList::Included => &mut segment.included,
        SegmentList::Excluded => &mut segment.excluded,
    }
}

fn push(
    parts: &mut Vec<KeyPart>,
    key_set: &Option<KeySetRef>,
    merged: &Option<KeySetRef>,
    step: fn(KeySetRef) -> KeyPart,
) -> Result<(), ApplyError> {
    if let Some(whole) = merged {
        *parts = vec![KeyPart::Add(whole.clone())];
    } else {
        let set = key_set.clone().ok_or(ApplyError::Unresolved { field: "keySet" })?;
        parts.push(step(set));
    }
    Ok(())
}
