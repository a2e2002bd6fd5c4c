//! What refers to what: prerequisites, variations in use, segments in clauses.

use std::collections::BTreeSet;

use guidon_sdk::model::{Clause, Flag, FlagEnvironment, Op, Prerequisite, Serve};

use crate::changes::resolve::Resolving;
use crate::state::Project;

/// Keys of the flags, not archived, that require the flag `key` in some environment.
pub(crate) fn dependents<'a>(project: &'a Project, key: &'a str) -> impl Iterator<Item = &'a str> {
    let flags = project.flags.values().filter(|flag| !flag.stored.archived);
    let requiring = flags.filter(move |flag| {
        let configs = flag.stored.environments.values();
        configs.flat_map(|config| &config.prerequisites).any(|prerequisite| prerequisite.flag == key)
    });
    requiring.map(|flag| flag.stored.key.as_str())
}

/// The places, in words, that refer to a variation.
pub(crate) fn uses_of_variation(project: &Project, flag: &Flag, variation: &str) -> Vec<String> {
    let mut places = Vec::new();
    for (environment, config) in &flag.environments {
        if config.off_variation == variation {
            places.push(format!("the off variation in {environment}"));
        }
        if serves(&config.fallthrough, variation) {
            places.push(format!("the fallthrough in {environment}"));
        }
        if config.targets.iter().any(|target| target.variation == variation) {
            places.push(format!("targets in {environment}"));
        }
        for rule in config.rules.iter().filter(|rule| serves(&rule.serve, variation)) {
            places.push(format!("rule \"{}\" in {environment}", rule.id));
        }
    }
    for (key, other) in &project.flags {
        for (environment, config) in &other.stored.environments {
            let requires = |known: &Prerequisite| known.flag == flag.key && known.variation == variation;
            if config.prerequisites.iter().any(requires) {
                places.push(format!("a prerequisite of \"{key}\" in {environment}"));
            }
        }
    }
    let released = project.releases.values().filter(|release| release.flag == flag.key && release.state.is_active());
    for release in released {
        let named = release.plan.treatment == variation || release.plan.control == variation;
        if named || serves(&release.stable, variation) {
            places.push(format!("the release in {}", release.environment));
        }
    }
    places.truncate(10);
    places
}

fn serves(serve: &Serve, variation: &str) -> bool {
    match serve {
        Serve::Variation(key) => key == variation,
        Serve::Rollout(rollout) => rollout.weights.contains_key(variation),
    }
}

/// Refuses a prerequisite on a flag or variation that is not there.
pub(crate) fn check_prerequisite(cx: &mut Resolving<'_>, at: &str, prerequisite: &Prerequisite) {
    let project = cx.project;
    match project.flags.get(&prerequisite.flag) {
        Some(flag) => {
            super::rollout::check_variation(cx, &format!("{at}/variation"), &prerequisite.variation, &flag.stored);
        }
        None => cx.refuse(&format!("{at}/flag"), "unknownFlag", format!("there is no flag \"{}\"", prerequisite.flag)),
    }
}

/// Keys of the segments that a configuration refers to.
#[must_use]
pub fn segments_of(config: &FlagEnvironment) -> BTreeSet<&str> {
    let clauses =
        config.rules.iter().flat_map(|rule| &rule.clauses).filter(|clause: &&Clause| clause.op == Op::Segment);
    clauses.flat_map(|clause| &clause.values).filter_map(|value| value.as_str()).collect()
}
