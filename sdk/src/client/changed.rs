//! Which flags a new state may answer differently.

use std::collections::BTreeSet;

use crate::protocol::PatchBody;
use crate::snapshot::Snapshot;

/// Keys of the flags and segments that a patch names.
pub(super) fn touched_by(patch: &PatchBody) -> Vec<String> {
    #[derive(serde::Deserialize)]
    struct OnlyKey {
        key: String,
    }
    let definitions = patch.flags.iter().chain(&patch.segments);
    let keys = definitions.filter_map(|definition| serde_json::from_str::<OnlyKey>(definition.get()).ok());
    let lists = patch.segment_keys.iter().map(|keys| keys.segment.clone());
    let removed = patch.removed_flags.iter().chain(&patch.removed_segments).cloned();
    keys.map(|only| only.key).chain(lists).chain(removed).collect()
}

/// The touched flags, and those whose definition names a touched flag or segment: as a prerequisite or in a clause. A key that
/// stands there as some other text counts too: it is better to name a flag too many than one too few.
pub(super) fn dependents(snapshot: &Snapshot, touched: &[String]) -> Vec<String> {
    let mut changed: BTreeSet<String> = touched.iter().cloned().collect();
    let mut fresh: Vec<String> = touched.to_vec();
    while !fresh.is_empty() {
        let quoted: Vec<String> = fresh.drain(..).map(|key| format!("\"{key}\"")).collect();
        for flag in snapshot.ruleset().flags() {
            if changed.contains(flag.key) {
                continue;
            }
            let definition = snapshot.ruleset().definition(flag.key).map_or("", |definition| definition.get());
            if quoted.iter().any(|key| definition.contains(key.as_str())) {
                changed.insert(flag.key.to_owned());
                fresh.push(flag.key.to_owned());
            }
        }
    }
    changed.into_iter().collect()
}

/// Flags whose definition differs, those that depend on them, and, as segments are not compared, those that name a segment.
pub(super) fn between(before: &Snapshot, after: &Snapshot) -> Vec<String> {
    let (old, new) = (before.ruleset(), after.ruleset());
    let keys: BTreeSet<&str> = old.flags().chain(new.flags()).map(|flag| flag.key).collect();
    let differs = |key: &&str| {
        let (old, new) = (old.definition(key), new.definition(key));
        let (old, new) = (old.map(|definition| definition.get()), new.map(|definition| definition.get()));
        old != new || new.is_some_and(|definition| definition.contains("\"segment\""))
    };
    let touched: Vec<String> = keys.into_iter().filter(differs).map(str::to_owned).collect();
    dependents(after, &touched)
}

/// Every flag.
pub(super) fn all(snapshot: &Snapshot) -> Vec<String> {
    let keys: BTreeSet<&str> = snapshot.ruleset().flags().map(|flag| flag.key).collect();
    keys.into_iter().map(str::to_owned).collect()
}
