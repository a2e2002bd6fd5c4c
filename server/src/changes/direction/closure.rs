//! Which flags a change may concern: those touched, those whose rules use a segment that changed, and all that require one.

use std::collections::{BTreeSet, HashMap};

use crate::flags::segments_of;
use crate::state::Project;

/// What has to be compared.
pub(super) struct Concerned<'a> {
    /// Flags, sorted.
    pub(super) flags: BTreeSet<&'a str>,
    /// Segments that hold somebody else than before, or may.
    pub(super) segments: BTreeSet<&'a str>,
}

pub(super) fn concerned<'a>(
    before: &'a Project,
    after: &'a Project,
    environment: &'a str,
    flags: &'a BTreeSet<String>,
    segments: &'a BTreeSet<String>,
) -> Concerned<'a> {
    let changed = |key: &&str| {
        let (old, new) = (before.segment(environment, key), after.segment(environment, key));
        match (old, new) {
            (Some(old), Some(new)) => {
                old.included != new.included || old.excluded != new.excluded || old.rules != new.rules
            }
            (None, None) => false,
            _ => true,
        }
    };
    // Segments' rules refer to no segments, so that there is nothing to follow from one to another.
    let segments: BTreeSet<&str> = segments.iter().map(String::as_str).filter(changed).collect();
    let mut pending: Vec<&str> = flags.iter().map(String::as_str).collect();
    let mut dependants: HashMap<&str, Vec<&str>> = HashMap::new();
    for (key, flag) in before.flags.iter().chain(&after.flags) {
        let Some(config) = flag.published.environments.get(environment) else { continue };
        for prerequisite in &config.prerequisites {
            dependants.entry(&prerequisite.flag).or_default().push(key);
        }
        if !segments.is_empty() && !segments.is_disjoint(&segments_of(config)) {
            pending.push(key);
        }
    }
    let mut found = BTreeSet::new();
    while let Some(key) = pending.pop() {
        if found.insert(key) {
            pending.extend(dependants.get(key).into_iter().flatten());
        }
    }
    Concerned { flags: found, segments }
}
