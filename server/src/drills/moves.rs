//! Who would get something else: of a sample of people evaluated before and after, and by the slots that were stored. Pure.

use std::collections::{BTreeMap, BTreeSet};

use guidon_sdk::eval::evaluate;
use guidon_sdk::model::{Context, FlagEnvironment, Op, Serve, TARGETING_KEY};

use super::Tally;
use super::shape::without_allocations;
use crate::assignments::{Line, Sampled};
use crate::flags::snapshot_of;
use crate::state::Project;

/// Whom the moves are counted of.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// A sample of the people seen lately.
    pub sample: Vec<Sampled>,
    /// What the log has of the flag lately, in the order it was stored.
    pub lines: Vec<Line>,
}

/// Who would get something else of `flag` in `environment` when `before` becomes `after`, which puts it back to what it was at
/// `to_revision`: of the sample, and, where only owners of slots change, of the log.
#[must_use]
pub fn moved(
    before: &Project,
    after: &Project,
    environment: &str,
    flag: &str,
    to_revision: u64,
    seen: &Seen,
) -> (Tally, Option<Tally>) {
    let sampled = by_evaluation(before, after, environment, flag, &seen.sample);
    let config = |project: &Project| project.flags.get(flag)?.stored.environments.get(environment).cloned();
    let stored = match (config(before), config(after)) {
        (Some(old), Some(new)) if differs_in_slots_alone(&old, &new) => {
            Some(by_slots(&old, &new, seen.lines.iter().filter(|line| line.assignment.revision >= to_revision)))
        }
        _ => None,
    };
    (sampled, stored)
}

/// Whether nothing but weights and owners of slots is different.
fn differs_in_slots_alone(old: &FlagEnvironment, new: &FlagEnvironment) -> bool {
    let without = |config: &FlagEnvironment| {
        let mut config = config.clone();
        without_allocations(&mut config);
        config
    };
    without(old) == without(new)
}

fn by_evaluation(before: &Project, after: &Project, environment: &str, flag: &str, sample: &[Sampled]) -> Tally {
    let contexts: Vec<&Sampled> = sample.iter().filter(|it| is_of_a_targeting_key(before, environment, it)).collect();
    let people = contexts.len() as u64;
    let snapshots = (snapshot_of(before, environment, flag), snapshot_of(after, environment, flag));
    let (Ok(old), Ok(new)) = snapshots else { return Tally::of(people, people, []) };
    if looks_at_attributes(before, environment, flag) || looks_at_attributes(after, environment, flag) {
        return Tally::of(people, people, []);
    }
    let mut counted: BTreeMap<(String, String), u64> = BTreeMap::new();
    for sampled in contexts {
        let context = Context::new(sampled.unit.as_ref());
        let served = |ruleset| evaluate(ruleset, flag, &context).variation_key().unwrap_or_default().to_owned();
        let (from, to) = (served(old.ruleset()), served(new.ruleset()));
        if from != to {
            *counted.entry((from, to)).or_default() += 1;
        }
    }
    Tally::of(people, 0, counted)
}

/// Whether the unit that was reported is a targeting key, and not a value of the attribute that the rollout goes by.
fn is_of_a_targeting_key(project: &Project, environment: &str, sampled: &Sampled) -> bool {
    let config = project.flags.get(&*sampled.flag).and_then(|flag| flag.stored.environments.get(environment));
    let Some(config) = config else { return false };
    let rollouts = config.rules.iter().map(|rule| &rule.serve).chain([&config.fallthrough]);
    rollouts.into_iter().all(|serve| match serve {
        Serve::Rollout(rollout) => rollout.bucket_by == TARGETING_KEY,
        Serve::Variation(_) => true,
    })
}

/// Whether what is served depends on anything but the targeting key, in what the flag requires too.
fn looks_at_attributes(project: &Project, environment: &str, flag: &str) -> bool {
    let (mut wanted, mut seen) = (vec![flag.to_owned()], BTreeSet::new());
    while let Some(key) = wanted.pop() {
        if !seen.insert(key.clone()) {
            continue;
        }
        let found = project.flags.get(&key).and_then(|flag| flag.stored.environments.get(environment));
        let Some(config) = found else { continue };
        wanted.extend(config.prerequisites.iter().map(|prerequisite| prerequisite.flag.clone()));
        let serves = config.rules.iter().map(|rule| &rule.serve).chain([&config.fallthrough]);
        let buckets = |serve: &Serve| matches!(serve, Serve::Rollout(rollout) if rollout.bucket_by != TARGETING_KEY);
        if serves.into_iter().any(buckets) {
            return true;
        }
        for clause in config.rules.iter().flat_map(|rule| &rule.clauses) {
            if clause.op != Op::Segment && clause.attribute != TARGETING_KEY {
                return true;
            }
            let named = clause.values.iter().filter(|_| clause.op == Op::Segment).filter_map(|value| value.as_str());
            let mut segments = named.filter_map(|key| project.segment(environment, key));
            let looks = segments.any(|segment| {
                let mut clauses = segment.rules.iter().flat_map(|rule| &rule.clauses);
                clauses.any(|clause| clause.attribute != TARGETING_KEY)
            });
            if looks {
                return true;
            }
        }
    }
    false
}

/// Counts each unit once, by what the log has of it last.
fn by_slots<'l>(old: &FlagEnvironment, new: &FlagEnvironment, lines: impl Iterator<Item = &'l Line>) -> Tally {
    let latest: BTreeMap<_, &Line> = lines.map(|line| (line.assignment.unit, line)).collect();
    let mut counted: BTreeMap<(String, String), u64> = BTreeMap::new();
    let mut unknown = 0;
    for line in latest.values() {
        let Some(slot) = line.assignment.slot else { continue };
        let rule = line.assignment.rule.as_deref();
        match (owner(old, rule, slot), owner(new, rule, slot)) {
            (Some(from), Some(to)) if from != to => *counted.entry((from.to_owned(), to.to_owned())).or_default() += 1,
            (Some(_), Some(_)) => {}
            _ => unknown += 1,
        }
    }
    Tally::of(latest.len() as u64, unknown, counted)
}

fn owner<'c>(config: &'c FlagEnvironment, rule: Option<&str>, slot: u32) -> Option<&'c str> {
    let serve = match rule {
        Some(id) => &config.rules.iter().find(|rule| rule.id == id)?.serve,
        None => &config.fallthrough,
    };
    let Serve::Rollout(rollout) = serve else { return None };
    let range = rollout.allocation.iter().find(|range| (range.start..range.end).contains(&slot));
    range.map(|range| range.variation.as_str())
}
