//! Checks the objects that a change touched, whole, as they would be after it.
//!
//! What is wrong is shown at the place in the request that brought it, which is not the place in the object.

use std::collections::BTreeSet;

use guidon_sdk::model::{Flag, ProvenanceKind, Segment, Variation};
use guidon_sdk::validate::{FlagFacts, SegmentFacts, validate_flag, validate_segment};

use super::apply::Draft;
use super::{Instruction, Problem, limits};
use crate::environments::Tier;
use crate::flags::{fingerprint, references, schema, segments_of};
use crate::state::{Project, SegmentState};

/// Adds what is wrong with the objects that `resolved` (each with its place in the request) touched.
pub(crate) fn validate(draft: &Draft<'_>, resolved: &[(usize, Instruction)], problems: &mut Vec<Problem>) {
    let Some(project) = draft.project() else { return };
    let check = Check { project, named: draft.environment(), resolved };
    for key in check.flags() {
        let Some(state) = project.flags.get(&key) else { continue };
        let found = validate_flag(&state.published, project);
        let found = found.into_iter().map(|problem| (problem.pointer, problem.code, problem.message));
        let values = if check.touches_values(&key) { schema::check_values(&state.published) } else { Vec::new() };
        for (pointer, code, message) in found.chain(values) {
            problems.push(Problem::new(check.place_of_flag(&state.published, &pointer), code, message));
        }
    }
    for state in check.flags_that_may_be_off_otherwise().iter().filter_map(|key| project.flags.get(key)) {
        for environment in ai_where_it_is_off(draft, &state.stored) {
            let pointer = check.place_of_flag(&state.published, &format!("/environments/{environment}/offVariation"));
            // The tier and no more: whoever sends the change need not be somebody who may know its environments.
            let message = format!(
                "in production, \"{}\" would serve an AI variation while it is off: choose an off variation that no AI wrote",
                state.stored.key
            );
            problems.push(Problem::new(pointer, "aiOffVariation", message));
        }
    }
    check.served_variations(draft, problems);
    for (environment, key) in check.segments() {
        let state = project.segment(environment, key);
        for problem in state.map(|state| validate_segment(&without_keys(state, false))).unwrap_or_default() {
            let pointer = check.place_of_segment((environment, key), state, &problem.pointer);
            problems.push(Problem::new(pointer, problem.code, problem.message));
        }
    }
    problems.truncate(limits::MAX_PROBLEMS);
}

/// Environments of the production tier where the flag would come to serve an AI variation while it is off.
fn ai_where_it_is_off(draft: &Draft<'_>, flag: &Flag) -> Vec<String> {
    let Some(project) = draft.project() else { return Vec::new() };
    let known = draft.before().projects.get(&project.key);
    let before = known.and_then(|before| before.flags.get(&flag.key));
    let was_production = |key: &String| {
        let environment = known.and_then(|before| before.environments.get(key));
        environment.is_some_and(|environment| environment.tier == Tier::Production)
    };
    let is_ai = |flag: &Flag, environment: &str| {
        let config = flag.environments.get(environment);
        let off = config.and_then(|config| flag.variation(&config.off_variation));
        off.is_some_and(|off| off.is_by(ProvenanceKind::Ai))
    };
    let production = project.environments.values().filter(|environment| environment.tier == Tier::Production);
    let new = production.filter(|environment| {
        // One that stands so already, say from an earlier version, must not keep anybody from turning it off.
        let stood =
            was_production(&environment.key) && before.is_some_and(|before| is_ai(&before.stored, &environment.key));
        is_ai(flag, &environment.key) && !stood
    });
    new.map(|environment| environment.key.clone()).collect()
}

struct Check<'a> {
    project: &'a Project,
    /// The environment that the change names.
    named: Option<&'a str>,
    resolved: &'a [(usize, Instruction)],
}

impl<'a> Check<'a> {
    /// Flags that the change, or what it did to others, may have made wrong.
    fn flags(&self) -> BTreeSet<String> {
        let mut keys = BTreeSet::new();
        for (_, instruction) in self.resolved.iter().filter(|(_, instruction)| may_break(instruction)) {
            if let Some(flag) = instruction.flag() {
                keys.insert(flag.to_owned());
                if matches!(instruction.edit(), Instruction::SetClientSide { .. }) {
                    keys.extend(references::dependents(self.project, flag).map(str::to_owned));
                }
            } else if let (Some(segment), Some(environment)) =
                (instruction.segment(), instruction.environment(self.named))
            {
                // A segment that lists keys may not be used by a flag that browsers see.
                let visible = self.project.flags.values().filter(|flag| flag.stored.client_side);
                let using = visible.filter(|flag| {
                    let config = flag.stored.environments.get(environment);
                    config.is_some_and(|config| segments_of(config).contains(segment))
                });
                keys.extend(using.map(|flag| flag.stored.key.clone()));
            }
        }
        keys
    }

    /// Flags that may come to serve something else while they are off, in production: those that were edited, and all of them
    /// where an environment comes to production.
    fn flags_that_may_be_off_otherwise(&self) -> BTreeSet<String> {
        let comes = |instruction: &Instruction| {
            matches!(
                instruction.edit(),
                Instruction::CreateEnvironment { tier: Tier::Production, .. }
                    | Instruction::UpdateEnvironment { tier: Some(Tier::Production), .. }
            )
        };
        if self.resolved.iter().any(|(_, instruction)| comes(instruction)) {
            return self.project.flags.keys().cloned().collect();
        }
        self.resolved.iter().filter_map(|(_, instruction)| instruction.flag().map(str::to_owned)).collect()
    }

    /// Adds the variations that have been served in production and would be something else, by whatever detour: edited, removed
    /// and added again, or part of a flag that is created anew under its old key.
    fn served_variations(&self, draft: &Draft<'_>, problems: &mut Vec<Problem>) {
        let Some(before) = draft.before().projects.get(&self.project.key) else { return };
        let keys: BTreeSet<&str> = self.resolved.iter().filter_map(|(_, instruction)| instruction.flag()).collect();
        for key in keys {
            let (Some(flag), Some(served)) = (self.project.flags.get(key), before.served_variations.get(key)) else {
                continue;
            };
            let stood = before.flags.get(key);
            for (index, variation) in flag.stored.variations.iter().enumerate() {
                let Some(fixed) = served.get(&variation.key) else { continue };
                let stands = stood.and_then(|stood| stood.stored.variation(&variation.key));
                let fixed = stands.map_or_else(|| fixed.to_owned(), fingerprint);
                if fingerprint(variation) == fixed {
                    continue;
                }
                let same_value = stands.is_some_and(|stands| stands.value == variation.value);
                let field = if same_value { "provenance" } else { "value" };
                let pointer = self.place_of_flag(&flag.published, &format!("/variations/{index}/{field}"));
                problems.push(Problem::new(
                    pointer,
                    "variationServed",
                    served_message(key, variation, stands.is_some()),
                ));
            }
            let gone = served.keys().filter(|key| flag.stored.variation(key).is_none()).count();
            let before = stood.map_or(0, |stood| stood.stored.variations.len());
            let now = flag.stored.variations.len();
            if now > before && gone + now > limits::MAX_KEPT_VARIATIONS {
                let most = limits::MAX_KEPT_VARIATIONS;
                let message = format!("\"{key}\" has had {most} variations, which stay reserved: make a new flag");
                problems.push(Problem::new(self.place_of_flag(&flag.published, "/variations"), "tooMany", message));
            }
        }
    }

    /// Segments whose definition the change edited, by environment.
    fn segments(&self) -> BTreeSet<(&'a str, &'a str)> {
        let edits = self.resolved.iter().filter(|(_, instruction)| {
            !matches!(instruction.edit(), Instruction::AddSegmentKeys { .. } | Instruction::RemoveSegmentKeys { .. })
        });
        edits.filter_map(|(_, instruction)| self.segment_of(instruction)).collect()
    }

    /// The environment and key of the segment that an instruction edits.
    fn segment_of(&self, instruction: &'a Instruction) -> Option<(&'a str, &'a str)> {
        Some((instruction.environment(self.named)?, instruction.segment()?))
    }

    fn touches_values(&self, flag: &str) -> bool {
        let touches = |instruction: &Instruction| {
            matches!(
                instruction.edit(),
                Instruction::CreateFlag { .. }
                    | Instruction::SetSchema { .. }
                    | Instruction::AddVariation { .. }
                    | Instruction::UpdateVariation { .. }
            )
        };
        self.resolved.iter().any(|(_, instruction)| instruction.flag() == Some(flag) && touches(instruction))
    }

    /// The place in the request that brought what stands at `pointer` in the flag: of the instructions that wrote there, the
    /// last; else the last one about the flag; else the last one that may have broken it from outside.
    fn place_of_flag(&self, flag: &Flag, pointer: &str) -> String {
        let about = self.resolved.iter().rev().filter(|(_, instruction)| instruction.flag() == Some(&flag.key));
        let written = about.clone().find_map(|(index, instruction)| {
            let environment = instruction.environment(self.named).unwrap_or_default();
            let (wrote, from) = written_by(flag, environment, instruction.edit())?;
            let rest = rest_of(pointer, &wrote)?;
            Some(format!(
                "/instructions/{index}{from}{}",
                rest.strip_prefix(rollout_of(instruction.edit())).unwrap_or(rest)
            ))
        });
        written.unwrap_or_else(|| {
            let last = about.clone().next().or_else(|| self.resolved.iter().rev().find(|(_, edit)| may_break(edit)));
            format!("/instructions/{}", last.map_or(0, |(index, _)| *index))
        })
    }

    fn place_of_segment(
        &self,
        of: (&str, &str),
        state: Option<&std::sync::Arc<SegmentState>>,
        pointer: &str,
    ) -> String {
        let about = self.resolved.iter().rev().filter(|(_, instruction)| self.segment_of(instruction) == Some(of));
        let rules = state.map(|state| &*state.stored.rules).unwrap_or_default();
        let written = about.clone().find_map(|(index, instruction)| {
            let (wrote, from) = match instruction.edit() {
                Instruction::CreateSegment { .. } => (String::new(), "/segment"),
                Instruction::UpdateSegment { .. } => (String::new(), ""),
                Instruction::AddSegmentRule { rule, .. } | Instruction::ReplaceSegmentRule { rule, .. } => {
                    let place = rules.iter().position(|known| known.id == rule.id)?;
                    (format!("/rules/{place}"), "/rule")
                }
                _ => return None,
            };
            Some(format!("/instructions/{index}{from}{}", rest_of(pointer, &wrote)?))
        });
        written.unwrap_or_else(|| format!("/instructions/{}", about.clone().next().map_or(0, |(index, _)| *index)))
    }
}

/// What to do in place of changing a variation that has been served in production.
fn served_message(flag: &str, variation: &Variation, is_there: bool) -> String {
    let key = &variation.key;
    if is_there {
        format!(
            "\"{key}\" of \"{flag}\" has been served in production: its value and provenance are fixed, so that the \
             assignment log stays true. Add a variation with another key and move the rollout to it: \
             `guidon flag replace-variation {flag} {key} NEW --value … -e ENVIRONMENT`"
        )
    } else {
        format!(
            "a \"{key}\" of \"{flag}\" with another value or provenance has been served in production, and the assignment \
             log speaks of it: choose another key"
        )
    }
}

/// Whether an instruction can make a definition wrong, its own flag's or another's.
fn may_break(instruction: &Instruction) -> bool {
    !matches!(
        instruction.edit(),
        Instruction::TurnFlagOn { .. }
            | Instruction::TurnFlagOff { .. }
            | Instruction::SetOffVariation { .. }
            | Instruction::MoveRule { .. }
            | Instruction::RemoveRule { .. }
            | Instruction::RemovePrerequisite { .. }
            | Instruction::RemoveTargets { .. }
            | Instruction::RemoveSegmentKeys { .. }
            | Instruction::ArchiveFlag { .. }
    )
}

/// The place in the flag that an instruction wrote, and where in the instruction it stands.
fn written_by(flag: &Flag, environment: &str, instruction: &Instruction) -> Option<(String, &'static str)> {
    let config = format!("/environments/{environment}");
    let rule = |id: &str| {
        let rules = &flag.environments.get(environment)?.rules;
        Some(format!("{config}/rules/{}", rules.iter().position(|rule| rule.id == id)?))
    };
    let variation = |key: &str| {
        let place = flag.variations.iter().position(|variation| variation.key == key)?;
        Some(format!("/variations/{place}"))
    };
    Some(match instruction {
        Instruction::CreateFlag { .. } => (String::new(), "/flag"),
        Instruction::UpdateFlag { .. } => (String::new(), ""),
        Instruction::SetSchema { .. } => ("/schema".to_owned(), "/schema"),
        Instruction::AddVariation { variation: added, .. } => (variation(&added.key)?, "/variation"),
        Instruction::UpdateVariation { variation: updated, .. } => (variation(updated)?, ""),
        Instruction::AddPrerequisite { prerequisite, .. } => {
            let known = &flag.environments.get(environment)?.prerequisites;
            let place = known.iter().position(|known| known.flag == prerequisite.flag)?;
            (format!("{config}/prerequisites/{place}"), "/prerequisite")
        }
        Instruction::AddTargets { .. } => (format!("{config}/targets"), "/keys"),
        Instruction::SetOffVariation { .. } => (format!("{config}/offVariation"), "/variation"),
        Instruction::AddRule { rule: added, .. } => (rule(&added.id)?, "/rule"),
        Instruction::ReplaceRule { rule: replaced, .. } => (rule(&replaced.id)?, "/rule"),
        Instruction::SetFallthrough { .. } => (format!("{config}/fallthrough"), "/serve"),
        Instruction::SetRollout { rule: None, .. } => (format!("{config}/fallthrough"), ""),
        Instruction::SetRollout { rule: Some(id), .. } => (format!("{}/serve", rule(id)?), ""),
        _ => return None,
    })
}

/// What stands below the rollout of a definition stands in `setRollout` itself.
fn rollout_of(instruction: &Instruction) -> &'static str {
    if matches!(instruction, Instruction::SetRollout { .. }) { "/rollout" } else { "" }
}

/// What is left of `pointer` below `place`.
fn rest_of<'p>(pointer: &'p str, place: &str) -> Option<&'p str> {
    pointer.strip_prefix(place).filter(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl FlagFacts for Project {
    fn has_environment(&self, environment: &str) -> bool {
        self.environments.contains_key(environment)
    }

    fn flag(&self, key: &str) -> Option<&Flag> {
        self.flags.get(key).map(|flag| &*flag.published).filter(|flag| !flag.archived)
    }

    fn segment(&self, environment: &str, key: &str) -> Option<SegmentFacts> {
        Project::segment(self, environment, key).map(|state| SegmentFacts::of(&without_keys(state, true)))
    }
}

/// A segment's definition with, at most, one key for each list that has some: a million keys need not be copied to be known.
fn without_keys(state: &SegmentState, one: bool) -> Segment {
    let first = |keys: &guidon_sdk::eval::KeySet| keys.iter().filter(|_| one).take(1).map(str::to_owned).collect();
    Segment {
        key: state.stored.key.clone(),
        name: state.stored.name.clone(),
        description: state.stored.description.clone(),
        included: first(&state.included),
        excluded: first(&state.excluded),
        rules: state.rules.to_vec(),
    }
}
