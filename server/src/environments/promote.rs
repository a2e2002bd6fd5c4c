//! Promotion: one environment comes to serve flags as another does. Pure.
//!
//! Weights are carried, never salts or allocations: who gets what in one environment says nothing about another.

use std::collections::BTreeSet;

use guidon_sdk::model::{Flag, FlagEnvironment, Rule};
use guidon_sdk::validate::validate_flag;

use super::document::{SegmentDocument, ServeDocument, ServingDocument};
use super::export::{ExportOptions, segment_of, serving_of};
use super::overlay::{self, Faults};
use super::plan::{Plan, Planning};
use super::pointers::with_hint;
use super::steps::pointer_part;
use crate::changes::Problem;
use crate::flags::diff::is_same_clauses;
use crate::flags::segments_of;
use crate::segments::diff::WantedSegment;
use crate::state::Project;

/// What is promoted.
#[derive(Clone, Copy, Debug)]
pub struct Promotion<'a> {
    /// Key of the environment that shows how.
    pub from: &'a str,
    /// Key of the environment that follows.
    pub to: &'a str,
    /// Keys of the flags; all that are not archived if left out.
    pub flags: Option<&'a [String]>,
    /// Whether individual targets and the key lists of segments are carried along.
    pub targets: bool,
}

/// What is wrong where a rule would be carried without the targeting keys that it lists, and what to do.
const NO_KEYS: &str = "a rule lists targeting keys, and no such clause stands there whose keys could be kept: carry them along \
                       with `targets` (--targets)";

/// The plan that makes `to` serve flags as `from` does. Its problems point into the request: `/flags/0`.
#[must_use]
pub fn promote(project: &Project, promotion: Promotion<'_>) -> Plan {
    let mut planning = Planning::new(project, &|_| true);
    let mut flags: Vec<(String, &Flag)> = Vec::new();
    match promotion.flags {
        None => {
            let live = project.flags.values().filter(|state| !state.published.archived);
            flags.extend(live.map(|state| ("/flags".to_owned(), &*state.published)));
        }
        Some(keys) => {
            for (index, key) in keys.iter().enumerate() {
                let at = format!("/flags/{index}");
                match project.flags.get(key) {
                    Some(state) if state.published.archived => {
                        let message = format!("the flag {key:?} is archived; bring it back first, or leave it out");
                        planning.plan.problems.push(Problem::new(at, "archived", message));
                    }
                    Some(state) => flags.push((at, &state.published)),
                    None => {
                        let message = with_hint(format!("there is no flag {key:?}"), key, project.flags.keys());
                        planning.plan.problems.push(Problem::new(at, "unknownFlag", message));
                    }
                }
            }
        }
    }
    let mut segments = BTreeSet::new();
    let mut promoted = Vec::new();
    for (at, flag) in flags {
        let configs = flag.environments.get(promotion.from).zip(flag.environments.get(promotion.to));
        let Some((from, to)) = configs else { continue };
        let wanted = carried(from, to, promotion.targets, &at, &mut planning.plan.problems);
        segments.extend(segments_of(&wanted).into_iter().map(str::to_owned));
        let mut after = flag.clone();
        after.environments.insert(promotion.to.to_owned(), wanted);
        planning.expected.flags.insert(flag.key.clone(), after);
        promoted.push((at, flag));
    }
    for key in segments {
        promote_segment(&mut planning, &key, promotion);
    }
    for (at, flag) in promoted {
        promote_flag(&mut planning, &at, flag);
    }
    planning.finish()
}

fn promote_flag(planning: &mut Planning<'_>, at: &str, flag: &Flag) {
    let Some(wanted) = planning.expected.flags.get(&flag.key).cloned() else { return };
    let root = format!("/flags/{}", pointer_part(&flag.key));
    if !planning.change_flag(&root, Some(flag), &wanted) {
        return;
    }
    for problem in validate_flag(&wanted, &planning.expected) {
        let message = format!("{}{}: {}", flag.key, problem.pointer, problem.message);
        planning.plan.problems.push(Problem::new(at.to_owned(), problem.code, message));
    }
}

/// How `to` would serve: as `from`, with its own salts, allocations and, unless they are carried, persons' keys: individual
/// targets, and clauses that list targeting keys. A clause that finds none to keep is a problem at `at`.
fn carried(
    from: &FlagEnvironment,
    to: &FlagEnvironment,
    targets: bool,
    at: &str,
    problems: &mut Vec<Problem>,
) -> FlagEnvironment {
    let mut document: ServingDocument = serving_of(from, ExportOptions { keys: targets, allocations: false });
    let rules = document.rules.iter_mut().flatten();
    for (rule, original) in rules.zip(&from.rules) {
        without_salt(&mut rule.serve);
        if is_known_otherwise(original, from, to) {
            rule.id = None;
        }
    }
    document.fallthrough.iter_mut().for_each(without_salt);
    overlay::in_environment(to, &document, at, &mut Faults { problems, no_keys: NO_KEYS })
}

fn without_salt(serve: &mut ServeDocument) {
    if let ServeDocument::Rollout(rollout) = serve {
        rollout.salt = None;
    }
}

/// Whether `to` has the rule under another id: one with the same clauses that is no other rule of `from`.
fn is_known_otherwise(rule: &Rule, from: &FlagEnvironment, to: &FlagEnvironment) -> bool {
    let has = |config: &FlagEnvironment, id: &str| config.rules.iter().any(|known| known.id == id);
    !has(to, &rule.id)
        && to.rules.iter().any(|known| !has(from, &known.id) && is_same_clauses(&known.clauses, &rule.clauses))
}

/// Carries a segment that a promoted rule refers to.
fn promote_segment(planning: &mut Planning<'_>, key: &str, promotion: Promotion<'_>) {
    // One that is missing where it comes from as well is named by the check of the flag.
    let Some(from) = planning.project.segment(promotion.from, key) else { return };
    let document: SegmentDocument = segment_of(from, ExportOptions { keys: promotion.targets, allocations: false });
    let standing = planning.project.segment(promotion.to, key).map(|state| &**state);
    let at = format!("/segments/{}/{}", pointer_part(promotion.to), pointer_part(key));
    let mut faults = Faults { problems: &mut planning.plan.problems, no_keys: NO_KEYS };
    let wanted: WantedSegment = overlay::segment(key, standing, &document, &at, &mut faults);
    planning.segment(promotion.to, &at, &wanted);
    planning.expected.segment(promotion.to, &wanted);
}
