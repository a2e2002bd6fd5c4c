//! JSON that is almost right.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// Names that mean something somewhere, so that bad values stand in places that are read.
const NAMES: [&str; 40] = [
    "kind",
    "flag",
    "key",
    "variations",
    "value",
    "provenance",
    "by",
    "schema",
    "type",
    "environments",
    "development",
    "on",
    "offVariation",
    "prerequisites",
    "variation",
    "rules",
    "id",
    "clauses",
    "attribute",
    "op",
    "values",
    "negate",
    "serve",
    "rollout",
    "weights",
    "bucketBy",
    "salt",
    "allocation",
    "fallthrough",
    "targets",
    "keys",
    "segment",
    "included",
    "excluded",
    "name",
    "tags",
    "expires",
    "clientSide",
    "instructions",
    "context",
];

const WORDS: [&str; 34] = [
    "boolean",
    "string",
    "number",
    "json",
    "createFlag",
    "updateFlag",
    "turnFlagOn",
    "addRule",
    "replaceRule",
    "moveRule",
    "setRollout",
    "setFallthrough",
    "addPrerequisite",
    "createSegment",
    "addSegmentKeys",
    "addTargets",
    "addVariation",
    "setSchema",
    "ai",
    "human",
    "in",
    "matches",
    "semverLessThan",
    "before",
    "ipInRange",
    "segment",
    "(a*)*b",
    "1.2.3-x",
    "2026-02-30T99:00:00Z",
    "10.0.0.0/99",
    "f",
    "on",
    "off",
    "",
];

/// Any JSON, shallow, made of words the server knows as often as not.
pub fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop::sample::select(&WORDS[..]).prop_map(Value::from),
        ".{0,24}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 48, 6, |inner| {
        let name = prop_oneof![prop::sample::select(&NAMES[..]).prop_map(str::to_owned), ".{0,8}"];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((name, inner), 0..6).prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

/// A definition that is right in every part but perhaps the ones that were replaced.
pub fn flag() -> impl Strategy<Value = Value> {
    let sound = json!({
        "key": "f", "kind": "string", "name": "F", "tags": ["t"], "expires": "2027-01-31", "clientSide": false,
        "variations": [{"key": "on", "value": "a", "provenance": {"by": "ai"}}, {"key": "off", "value": "b"}],
        "schema": {"type": "string"},
        "environments": {"development": {
            "on": true, "offVariation": "off", "prerequisites": [{"flag": "base", "variation": "on"}],
            "rules": [{"id": "r", "clauses": [{"attribute": "country", "op": "in", "values": ["US"]}], "serve": {"variation": "on"}}],
            "fallthrough": {"rollout": {"weights": {"on": 5000, "off": 95000}, "bucketBy": "targetingKey", "salt": "s"}},
        }},
    });
    replaced(sound)
}

/// `sound`, with up to four of its parts replaced or left out.
pub fn replaced(sound: Value) -> impl Strategy<Value = Value> {
    let pointers = pointers(&sound);
    let change = (prop::sample::select(pointers), prop::option::of(value()));
    prop::collection::vec(change, 0..4).prop_map(move |changes| {
        let mut changed = sound.clone();
        for (pointer, replacement) in changes {
            match (changed.pointer_mut(&pointer), replacement) {
                (Some(place), Some(replacement)) => *place = replacement,
                (Some(_), None) => remove(&mut changed, &pointer),
                (None, _) => {}
            }
        }
        changed
    })
}

fn remove(value: &mut Value, pointer: &str) {
    let Some((parent, name)) = pointer.rsplit_once('/') else { return };
    if let Some(Value::Object(fields)) = value.pointer_mut(parent) {
        fields.remove(name);
    }
}

fn pointers(value: &Value) -> Vec<String> {
    let mut found = vec![String::new()];
    match value {
        Value::Object(fields) => {
            for (name, part) in fields as &Map<String, Value> {
                found.extend(pointers(part).into_iter().map(|rest| format!("/{name}{rest}")));
            }
        }
        Value::Array(parts) => {
            for (index, part) in parts.iter().enumerate() {
                found.extend(pointers(part).into_iter().map(|rest| format!("/{index}{rest}")));
            }
        }
        _ => {}
    }
    found
}
