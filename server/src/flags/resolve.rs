//! Resolves instructions about flags.

use std::sync::Arc;

use guidon_sdk::model::{Flag, FlagEnvironment, KeySetRef, Rule, Serve};

use super::rollout::{check_variation, resolve_serve, reweigh};
use super::{references, targets};
use crate::changes::resolve::Resolving;
use crate::changes::{Instruction, limits};
use crate::state::FlagState;

/// The instruction as it is to be journaled; `None` if it asks for what is already so, or was refused.
pub(crate) fn resolve(cx: &mut Resolving<'_>, mut instruction: Instruction) -> Option<Instruction> {
    if let Instruction::CreateFlag { flag } = &mut instruction {
        create(cx, flag);
        return Some(instruction);
    }
    let key = instruction.flag()?.to_owned();
    let Some(state) = cx.project.flags.get(&key).map(Arc::clone) else {
        cx.refuse("/flag", "unknownFlag", format!("there is no flag \"{key}\""));
        return None;
    };
    match cx.environment.filter(|_| instruction.flag_in_environment().is_some()) {
        Some(environment) => in_environment(cx, instruction, &state, environment),
        None => everywhere(cx, instruction, &state),
    }
}

fn create(cx: &mut Resolving<'_>, flag: &mut Flag) {
    if cx.project.flags.contains_key(&flag.key) {
        let message = format!("there is a flag \"{}\" already; edit it, or choose another key", flag.key);
        cx.refuse("/flag/key", "flagExists", message);
        return;
    }
    if cx.project.flags.len() >= limits::MAX_FLAGS {
        cx.refuse("/flag", "tooMany", format!("a project has at most {} flags; delete some", limits::MAX_FLAGS));
    }
    let known: Vec<String> = flag.environments.keys().cloned().collect();
    for environment in known {
        if let Some(config) = flag.environments.get_mut(&environment) {
            resolve_config(cx, &format!("/flag/environments/{environment}"), config);
        }
    }
    if let Some(silent) = flag.default_environment() {
        for environment in cx.project.environments.keys() {
            flag.environments.entry(environment.clone()).or_insert_with(|| silent.clone());
        }
    }
}

/// Fills in a configuration that a new flag brings.
fn resolve_config(cx: &mut Resolving<'_>, at: &str, config: &mut FlagEnvironment) {
    targets::move_targets(cx, &format!("{at}/targets"), &mut config.targets);
    let mut taken: Vec<String> = config.rules.iter().map(|rule| rule.id.clone()).collect();
    for (index, rule) in config.rules.iter_mut().enumerate() {
        if rule.id.is_empty() {
            rule.id = cx.rule_id(taken.iter().map(String::as_str));
            taken.push(rule.id.clone());
        }
        cx.move_clauses(&format!("{at}/rules/{index}/clauses"), &mut rule.clauses, &|_| None);
        resolve_serve(cx, &mut rule.serve, None);
    }
    resolve_serve(cx, &mut config.fallthrough, None);
}

/// Instructions about what all environments share.
fn everywhere(cx: &mut Resolving<'_>, instruction: Instruction, state: &FlagState) -> Option<Instruction> {
    let flag = &*state.stored;
    match &instruction {
        Instruction::ArchiveFlag { .. } => {
            if let Some(dependent) = references::dependents(cx.project, &flag.key).next() {
                let message = format!("\"{dependent}\" requires this flag; remove that prerequisite first");
                cx.refuse("/flag", "required", message);
            }
        }
        Instruction::DeleteFlag { .. } if !flag.archived => {
            cx.refuse("/flag", "notArchived", "only an archived flag can be deleted; archive it first");
        }
        Instruction::DeleteFlag { .. } => {
            if cx.project.served_variations.len() > limits::MAX_KEPT_FLAGS {
                let most = limits::MAX_KEPT_FLAGS;
                let message = format!("what {most} flags served in production is kept: leave this one archived");
                cx.refuse("/flag", "tooMany", message);
            }
            if let Some(dependent) = references::dependents(cx.project, &flag.key).next() {
                cx.refuse(
                    "/flag",
                    "required",
                    format!("\"{dependent}\" requires this flag; remove that prerequisite first"),
                );
            }
        }
        Instruction::AddVariation { variation, .. } if flag.variation(&variation.key).is_some() => {
            let message = format!("\"{}\" has a variation \"{}\" already; update it", flag.key, variation.key);
            cx.refuse("/variation/key", "variationExists", message);
        }
        Instruction::UpdateVariation { variation, .. } => check_variation(cx, "/variation", variation, flag),
        Instruction::RemoveVariation { variation, .. } => {
            check_variation(cx, "/variation", variation, flag);
            let places = references::uses_of_variation(cx.project, flag, variation);
            if !places.is_empty() {
                let message = format!("\"{variation}\" is still used by {}; change that first", places.join(", "));
                cx.refuse("/variation", "variationInUse", message);
            }
        }
        _ => {}
    }
    Some(instruction)
}

/// Instructions about how one environment serves the flag.
fn in_environment(
    cx: &mut Resolving<'_>,
    mut instruction: Instruction,
    state: &FlagState,
    environment: &str,
) -> Option<Instruction> {
    let flag = &*state.stored;
    if let Instruction::RevertFlag { to_revision, state: past, .. } = &mut instruction {
        cx.refuse_if_sent("/state", past.is_some());
        *past = Some(Box::new(earlier(cx, *to_revision, &flag.key, environment)?));
        return Some(instruction);
    }
    let Some(config) = flag.environments.get(environment) else {
        cx.refuse("/flag", "unknownEnvironment", format!("\"{}\" is not known in \"{environment}\"", flag.key));
        return None;
    };
    match &mut instruction {
        Instruction::SetOffVariation { variation, .. } => check_variation(cx, "/variation", variation, flag),
        Instruction::AddPrerequisite { prerequisite, .. } => {
            references::check_prerequisite(cx, "/prerequisite", prerequisite);
        }
        Instruction::RemovePrerequisite { prerequisite, .. } => {
            if !config.prerequisites.iter().any(|known| known.flag == *prerequisite) {
                cx.refuse(
                    "/prerequisite",
                    "unknownFlag",
                    format!("\"{}\" does not require \"{prerequisite}\"", flag.key),
                );
            }
        }
        Instruction::AddTargets { variation, keys, targets, .. } => {
            cx.refuse_if_sent("/targets", targets.is_some());
            check_variation(cx, "/variation", variation, flag);
            let keys = std::mem::take(keys);
            *targets = Some(targets::add(cx, state, environment, variation, keys)?);
        }
        Instruction::RemoveTargets { keys, targets, .. } => {
            cx.refuse_if_sent("/targets", targets.is_some());
            let keys = std::mem::take(keys);
            *targets = Some(targets::remove(cx, state, environment, keys)?);
        }
        Instruction::SetFallthrough { serve, .. } => {
            resolve_serve(cx, serve, Some(&config.fallthrough));
        }
        Instruction::SetRollout { rule, weights, bucket_by, reshuffle, salt, allocation, .. } => {
            cx.refuse_if_sent("/salt", salt.is_some());
            let standing = match rule.as_deref() {
                None => &config.fallthrough,
                Some(id) => &find_rule(cx, "/rule", config, id)?.serve,
            };
            let sent = allocation.take();
            let (new_salt, slots) = reweigh(cx, weights, bucket_by.as_deref(), *reshuffle, sent, (standing, flag))?;
            (*salt, *allocation) = (Some(new_salt), Some(slots));
        }
        _ => rules(cx, &mut instruction, state, environment, config)?,
    }
    Some(instruction)
}

/// Instructions about rules.
fn rules(
    cx: &mut Resolving<'_>,
    instruction: &mut Instruction,
    state: &FlagState,
    environment: &str,
    config: &FlagEnvironment,
) -> Option<()> {
    match instruction {
        Instruction::AddRule { rule, before, .. } => {
            if rule.id.is_empty() {
                rule.id = cx.rule_id(config.rules.iter().map(|rule| rule.id.as_str()));
            } else if config.rules.iter().any(|known| known.id == rule.id) {
                let message = format!("there is a rule \"{}\" already; replace it, or leave the id out", rule.id);
                cx.refuse("/rule/id", "ruleExists", message);
            }
            if let Some(before) = before {
                find_rule(cx, "/before", config, before)?;
            }
            resolve_rule(cx, rule, None, state, environment);
        }
        Instruction::ReplaceRule { rule, .. } => {
            let standing = find_rule(cx, "/rule/id", config, &rule.id)?;
            resolve_rule(cx, rule, Some(&standing.serve), state, environment);
        }
        Instruction::MoveRule { rule, before, .. } => {
            find_rule(cx, "/rule", config, rule)?;
            if let Some(before) = before {
                find_rule(cx, "/before", config, before)?;
            }
        }
        Instruction::RemoveRule { rule, .. } => {
            find_rule(cx, "/rule", config, rule)?;
        }
        _ => {}
    }
    Some(())
}

fn resolve_rule(
    cx: &mut Resolving<'_>,
    rule: &mut Rule,
    standing: Option<&Serve>,
    state: &FlagState,
    environment: &str,
) {
    let known = |keys: &[String]| standing_set(state, environment, keys);
    cx.move_clauses("/rule/clauses", &mut rule.clauses, &known);
    resolve_serve(cx, &mut rule.serve, standing);
}

/// The key set that holds just these keys for a clause of the flag already: writing a rule again makes no new one.
fn standing_set(state: &FlagState, environment: &str, keys: &[String]) -> Option<KeySetRef> {
    let stored = state.stored.environments.get(environment)?;
    let published = state.published.environments.get(environment)?;
    let clauses = stored.rules.iter().flat_map(|rule| &rule.clauses);
    let with_keys = published.rules.iter().flat_map(|rule| &rule.clauses);
    let same = clauses.zip(with_keys).find(|(stored, published)| {
        stored.key_set.is_some() && stored.values.is_empty() && published.values.iter().eq(keys.iter())
    });
    same.and_then(|(stored, _)| stored.key_set.clone())
}

fn find_rule<'c>(cx: &mut Resolving<'_>, at: &str, config: &'c FlagEnvironment, id: &str) -> Option<&'c Rule> {
    let found = config.rules.iter().find(|rule| rule.id == id);
    if found.is_none() {
        cx.refuse(at, "unknownRule", format!("there is no rule \"{id}\" here"));
    }
    found
}

/// The flag's configuration at an earlier revision.
fn earlier(cx: &mut Resolving<'_>, revision: u64, flag: &str, environment: &str) -> Option<FlagEnvironment> {
    let past = cx.past.worlds.get(&revision).and_then(|world| world.flag(&cx.project.key, flag));
    let config = past.and_then(|flag| flag.stored.environments.get(environment)).cloned();
    if config.is_none() {
        let message = format!("at revision {revision} there was no flag \"{flag}\" in \"{environment}\" to go back to");
        cx.refuse("/toRevision", "nothingThere", message);
    }
    config
}
