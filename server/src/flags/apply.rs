//! What each resolved instruction does to a flag as it is stored.

use guidon_sdk::model::{Flag, FlagEnvironment, Rollout, Rule, Serve, TARGETING_KEY, Variation};

use crate::changes::Instruction;
use crate::changes::apply::{ApplyError, exists, unknown};

/// The flag after the instruction; `None` once it is deleted. `old` is `None` where there is no such flag.
pub(crate) fn apply(
    old: Option<&Flag>,
    environment: Option<&str>,
    instruction: &Instruction,
) -> Result<Option<Flag>, ApplyError> {
    match (instruction, old) {
        (Instruction::CreateFlag { flag }, None) => return Ok(Some(Flag::clone(flag))),
        (Instruction::CreateFlag { flag }, Some(_)) => return Err(exists("flag", &flag.key)),
        (_, None) => return Err(unknown("flag", instruction.flag().unwrap_or_default())),
        (Instruction::DeleteFlag { .. }, Some(_)) => return Ok(None),
        _ => {}
    }
    let Some(mut flag) = old.cloned() else { return Ok(None) };
    if instruction.flag_in_environment().is_some() {
        let key = environment.ok_or(ApplyError::NoEnvironment)?;
        if let Instruction::RevertFlag { state, .. } = instruction {
            let state = state.as_deref().ok_or(ApplyError::Unresolved { field: "state" })?;
            flag.environments.insert(key.to_owned(), state.clone());
        } else {
            let config = flag.environments.get_mut(key).ok_or_else(|| unknown("environment", key))?;
            serve_otherwise(config, instruction)?;
        }
    } else {
        describe_otherwise(&mut flag, instruction)?;
    }
    Ok(Some(flag))
}

/// Instructions about what all environments share.
fn describe_otherwise(flag: &mut Flag, instruction: &Instruction) -> Result<(), ApplyError> {
    match instruction {
        Instruction::UpdateFlag { name, description, tags, owner, temporary, expires, .. } => {
            set(&mut flag.name, name);
            set(&mut flag.description, description);
            set(&mut flag.tags, tags);
            set(&mut flag.temporary, temporary);
            set_or_remove(&mut flag.owner, owner);
            set_or_remove(&mut flag.expires, expires);
        }
        Instruction::SetClientSide { client_side, .. } => flag.client_side = *client_side,
        Instruction::SetSchema { schema, .. } => flag.schema = schema.clone(),
        Instruction::ArchiveFlag { .. } => flag.archived = true,
        Instruction::UnarchiveFlag { .. } => flag.archived = false,
        Instruction::AddVariation { variation, .. } => {
            if flag.variation(&variation.key).is_some() {
                return Err(exists("variation", &variation.key));
            }
            flag.variations.push(variation.clone());
        }
        Instruction::UpdateVariation { variation, value, name, description, provenance, .. } => {
            let found = variation_mut(flag, variation)?;
            set(&mut found.value, value);
            set(&mut found.name, name);
            set(&mut found.description, description);
            if provenance.is_some() {
                found.provenance.clone_from(provenance);
            }
        }
        Instruction::RemoveVariation { variation, .. } => {
            variation_mut(flag, variation)?;
            flag.variations.retain(|other| other.key != *variation);
        }
        _ => {}
    }
    Ok(())
}

fn variation_mut<'a>(flag: &'a mut Flag, key: &str) -> Result<&'a mut Variation, ApplyError> {
    flag.variations.iter_mut().find(|variation| variation.key == key).ok_or_else(|| unknown("variation", key))
}

fn set<T: Clone>(field: &mut T, new: &Option<T>) {
    if let Some(new) = new {
        field.clone_from(new);
    }
}

fn set_or_remove(field: &mut Option<String>, new: &Option<String>) {
    if let Some(new) = new {
        *field = (!new.is_empty()).then(|| new.clone());
    }
}

/// Instructions about how one environment serves the flag.
fn serve_otherwise(config: &mut FlagEnvironment, instruction: &Instruction) -> Result<(), ApplyError> {
    match instruction {
        Instruction::TurnFlagOn { .. } => config.on = true,
        Instruction::TurnFlagOff { .. } => config.on = false,
        Instruction::SetOffVariation { variation, .. } => config.off_variation.clone_from(variation),
        Instruction::AddPrerequisite { prerequisite, .. } => {
            match config.prerequisites.iter_mut().find(|known| known.flag == prerequisite.flag) {
                Some(known) => known.clone_from(prerequisite),
                None => config.prerequisites.push(prerequisite.clone()),
            }
        }
        Instruction::RemovePrerequisite { prerequisite, .. } => {
            config.prerequisites.retain(|known| known.flag != *prerequisite);
        }
        Instruction::AddTargets { targets, .. } | Instruction::RemoveTargets { targets, .. } => {
            config.targets = targets.clone().ok_or(ApplyError::Unresolved { field: "targets" })?;
        }
        Instruction::SetFallthrough { serve, .. } => config.fallthrough = serve.clone(),
        Instruction::SetRollout { rule, .. } => set_rollout(serve_mut(config, rule.as_deref())?, instruction)?,
        _ => edit_rules(&mut config.rules, instruction)?,
    }
    Ok(())
}

fn edit_rules(rules: &mut Vec<Rule>, instruction: &Instruction) -> Result<(), ApplyError> {
    match instruction {
        Instruction::AddRule { rule, before, .. } => {
            if place(rules, &rule.id).is_ok() {
                return Err(exists("rule", &rule.id));
            }
            let index = before.as_deref().map_or(Ok(rules.len()), |id| place(rules, id))?;
            rules.insert(index, rule.clone());
        }
        Instruction::ReplaceRule { rule, .. } => {
            let index = place(rules, &rule.id)?;
            if let Some(standing) = rules.get_mut(index) {
                standing.clone_from(rule);
            }
        }
        Instruction::MoveRule { rule, before, .. } => {
            let from = place(rules, rule)?;
            if before.as_deref() == Some(rule) {
                return Ok(());
            }
            before.as_deref().map_or(Ok(0), |id| place(rules, id))?;
            let moved = rules.remove(from);
            let to = before.as_deref().map_or(Ok(rules.len()), |id| place(rules, id))?;
            rules.insert(to, moved);
        }
        Instruction::RemoveRule { rule, .. } => {
            let index = place(rules, rule)?;
            rules.remove(index);
        }
        _ => {}
    }
    Ok(())
}

fn place(rules: &[Rule], id: &str) -> Result<usize, ApplyError> {
    rules.iter().position(|rule| rule.id == id).ok_or_else(|| unknown("rule", id))
}

fn serve_mut<'a>(config: &'a mut FlagEnvironment, rule: Option<&str>) -> Result<&'a mut Serve, ApplyError> {
    match rule {
        None => Ok(&mut config.fallthrough),
        Some(id) => {
            let rule = config.rules.iter_mut().find(|rule| rule.id == id);
            rule.map(|rule| &mut rule.serve).ok_or_else(|| unknown("rule", id))
        }
    }
}

fn set_rollout(serve: &mut Serve, instruction: &Instruction) -> Result<(), ApplyError> {
    let Instruction::SetRollout { weights, bucket_by, salt, allocation, .. } = instruction else { return Ok(()) };
    let standing = match serve {
        Serve::Rollout(rollout) => Some(rollout.bucket_by.clone()),
        Serve::Variation(_) => None,
    };
    *serve = Serve::Rollout(Rollout {
        weights: weights.clone(),
        bucket_by: bucket_by.clone().or(standing).unwrap_or_else(|| TARGETING_KEY.to_owned()),
        salt: salt.clone().ok_or(ApplyError::Unresolved { field: "salt" })?,
        allocation: allocation.clone().ok_or(ApplyError::Unresolved { field: "allocation" })?,
    });
    Ok(())
}
