//! Which flags a new state may answer differently.

use std::collections::BTreeSet;

use serde_json::value::RawValue;

use crate::protocol::PatchBody;
use crate::snapshot::Snapshot;

/// Keys that a patch names.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Touched {
    pub(super) flags: Vec<String>,
    pub(super) segments: Vec<String>,
}

impl Touched {
    pub(super) fn by(patch: &PatchBody) -> Self {
        let segments = patch.segment_keys.iter().map(|keys| keys.segment.clone()).chain(patch.removed_segments.clone());
        Self {
            flags: keys(&patch.flags).chain(patch.removed_flags.clone()).collect(),
            segments: keys(&patch.segments).chain(segments).collect(),
        }
    }
}

fn keys(definitions: &[Box<RawValue>]) -> impl Iterator<Item = String> {
    #[derive(serde::Deserialize)]
    struct OnlyKey {
        key: String,
    }
    let read = |definition: &RawValue| serde_json::from_str::<OnlyKey>(definition.get()).ok();
    definitions.iter().filter_map(move |definition| read(definition)).map(|only| only.key)
}

/// The touched flags, and those whose definition names a touched flag or segment: as a prerequisite or in a clause. A key that
/// stands there as some other text counts too: it is better to name a flag too many than one too few.
pub(super) fn dependents(snapshot: &Snapshot, touched: Touched) -> Vec<String> {
    let mut changed: BTreeSet<String> = touched.flags.iter().cloned().collect();
    let mut fresh: Vec<String> = touched.flags.into_iter().chain(touched.segments).collect();
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
    let flags = keys.into_iter().filter(differs).map(str::to_owned).collect();
    dependents(after, Touched { flags, segments: Vec::new() })
}

/// Every flag.
pub(super) fn all(snapshot: &Snapshot) -> Vec<String> {
    let keys: BTreeSet<&str> = snapshot.ruleset().flags().map(|flag| flag.key).collect();
    keys.into_iter().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn snapshot(flags: serde_json::Value) -> Snapshot {
        let body = json!({"revision": "h:1", "project": "p", "environment": "e", "flags": flags, "segments": []});
        Snapshot::parse(body.to_string().as_bytes()).unwrap()
    }

    fn flag(key: &str, prerequisite: Option<&str>, segment: Option<&str>) -> serde_json::Value {
        let prerequisites: Vec<_> =
            prerequisite.map(|flag| json!({"flag": flag, "variation": "on"})).into_iter().collect();
        let clause =
            |segment| json!({"clauses": [{"op": "segment", "values": [segment]}], "serve": {"variation": "on"}});
        let rules: Vec<_> = segment.map(clause).into_iter().collect();
        json!({
            "key": key, "kind": "boolean", "variations": [{"key": "on", "value": true}],
            "config": {"on": true, "offVariation": "on", "prerequisites": prerequisites, "rules": rules,
                "fallthrough": {"variation": "on"}},
        })
    }

    #[test]
    fn a_change_reaches_what_depends_on_it() {
        let flags = json!([
            flag("a", None, None),
            flag("b", Some("a"), None),
            flag("c", Some("b"), None),
            flag("d", None, Some("beta"))
        ]);
        let after = snapshot(flags);
        let flags = |key: &str| Touched { flags: vec![key.to_owned()], segments: Vec::new() };
        assert_eq!(dependents(&after, flags("a")), ["a", "b", "c"]);
        assert_eq!(dependents(&after, flags("c")), ["c"]);
        let segments = Touched { flags: Vec::new(), segments: vec!["beta".to_owned()] };
        assert_eq!(dependents(&after, segments), ["d"]);
        let before = snapshot(json!([flag("a", Some("x"), None), flag("b", Some("a"), None), flag("e", None, None)]));
        assert_eq!(between(&before, &after), ["a", "b", "c", "d", "e"]);
        assert_eq!(between(&before, &before), Vec::<String>::new());
        assert_eq!(all(&before), ["a", "b", "e"]);
    }

    #[test]
    fn a_patch_names_flags_and_segments() {
        let patch = json!({"from": 1, "revision": "h:2", "flags": [{"key": "f"}], "segments": [{"key": "s"}],
            "removedFlags": ["g"], "segmentKeys": [{"segment": "t"}], "removedSegments": ["u"]});
        let patch: PatchBody = serde_json::from_value(patch).unwrap();
        let touched = Touched::by(&patch);
        assert_eq!(touched.flags, ["f", "g"]);
        assert_eq!(touched.segments, ["s", "t", "u"]);
    }
}
