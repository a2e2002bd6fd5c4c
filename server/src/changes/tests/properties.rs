//! Random histories: folding again gives the same world, and a refused change leaves no trace.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::state::touched;

fn weights() -> impl Strategy<Value = Value> {
    (0..=100_000_u32).prop_map(|ai| json!({"ai": ai, "baseline": 100_000 - ai}))
}

fn serve() -> impl Strategy<Value = Value> {
    prop_oneof![
        prop_oneof![Just("ai"), Just("baseline"), Just("nobody")].prop_map(|variation| json!({"variation": variation})),
        weights().prop_map(|weights| json!({"rollout": {"weights": weights}})),
    ]
}

fn rule() -> impl Strategy<Value = Value> {
    let clause = prop_oneof![
        prop::collection::vec("secret-[a-f]", 1..4)
            .prop_map(|keys| json!({"attribute": "targetingKey", "op": "in", "values": keys})),
        Just(json!({"attribute": "country", "op": "in", "values": ["US"]})),
        "s[0-2]".prop_map(|segment| json!({"op": "segment", "values": [segment]})),
    ];
    ("r[0-3]", clause, serve()).prop_map(|(id, clause, serve)| json!({"id": id, "clauses": [clause], "serve": serve}))
}

/// An instruction that may or may not be possible.
fn instruction() -> impl Strategy<Value = Value> {
    let flag = || "f[0-3]";
    let rule_id = || "r[0-3]";
    let segment = || "s[0-2]";
    let keys = || prop::collection::vec("secret-[a-z]", 1..5);
    let about_flags = prop_oneof![
        flag().prop_map(|key| engine_flag(&key)),
        flag().prop_map(|flag| json!({"kind": "turnFlagOn", "flag": flag})),
        flag().prop_map(|flag| json!({"kind": "turnFlagOff", "flag": flag})),
        flag().prop_map(|flag| json!({"kind": "archiveFlag", "flag": flag})),
        flag().prop_map(|flag| json!({"kind": "deleteFlag", "flag": flag})),
        (flag(), weights(), prop::option::of(rule_id()), any::<bool>()).prop_map(|(flag, weights, rule, reshuffle)| {
            json!({"kind": "setRollout", "flag": flag, "weights": weights, "rule": rule, "reshuffle": reshuffle})
        }),
        (flag(), serve()).prop_map(|(flag, serve)| json!({"kind": "setFallthrough", "flag": flag, "serve": serve})),
        (flag(), rule(), prop::option::of(rule_id()))
            .prop_map(|(flag, rule, before)| json!({"kind": "addRule", "flag": flag, "rule": rule, "before": before})),
        (flag(), rule()).prop_map(|(flag, rule)| json!({"kind": "replaceRule", "flag": flag, "rule": rule})),
        (flag(), rule_id(), prop::option::of(rule_id()))
            .prop_map(|(flag, rule, before)| json!({"kind": "moveRule", "flag": flag, "rule": rule, "before": before})),
        (flag(), rule_id()).prop_map(|(flag, rule)| json!({"kind": "removeRule", "flag": flag, "rule": rule})),
        (flag(), flag()).prop_map(|(flag, other)| {
            json!({"kind": "addPrerequisite", "flag": flag, "prerequisite": {"flag": other, "variation": "ai"}})
        }),
        (flag(), keys(), any::<bool>()).prop_map(|(flag, keys, ai)| {
            json!({"kind": "addTargets", "flag": flag, "variation": if ai { "ai" } else { "baseline" }, "keys": keys})
        }),
        (flag(), keys()).prop_map(|(flag, keys)| json!({"kind": "removeTargets", "flag": flag, "keys": keys})),
        (flag(), 0..30_u64).prop_map(|(flag, to)| json!({"kind": "revertFlag", "flag": flag, "toRevision": to})),
    ];
    let about_segments = prop_oneof![
        (segment(), keys())
            .prop_map(|(key, keys)| { json!({"kind": "createSegment", "segment": {"key": key, "included": keys}}) }),
        (segment(), keys(), any::<bool>()).prop_map(|(segment, keys, out)| {
            let list = if out { "excluded" } else { "included" };
            json!({"kind": "addSegmentKeys", "segment": segment, "keys": keys, "list": list})
        }),
        (segment(), keys())
            .prop_map(|(segment, keys)| json!({"kind": "removeSegmentKeys", "segment": segment, "keys": keys})),
        segment().prop_map(|segment| json!({"kind": "deleteSegment", "segment": segment})),
        (segment(), 0..30_u64)
            .prop_map(|(segment, to)| json!({"kind": "revertSegment", "segment": segment, "toRevision": to})),
        "e[0-1]".prop_map(|key| json!({"kind": "createEnvironment", "key": key, "tier": "testing"})),
        "e[0-1]".prop_map(|key| json!({"kind": "deleteEnvironment", "key": key})),
    ];
    prop_oneof![3 => about_flags, 1 => about_segments]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn folding_again_gives_the_same_world(changes in prop::collection::vec(prop::collection::vec(instruction(), 1..4), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(run(changes))?;
    }
}

async fn run(changes: Vec<Vec<Value>>) -> Result<(), TestCaseError> {
    let server = Server::start().await;
    let mut made = 0;
    for instructions in changes {
        let before = server.service.world();
        match server.submit(Value::Array(instructions)).await {
            Ok(outcome) => {
                let after = server.service.world();
                prop_assert_eq!(outcome.revision, after.revision);
                prop_assert_eq!(after.revision - before.revision, u64::from(!outcome.changed.is_empty()));
                made += usize::from(outcome.entry.is_some());
                if let Some(entry) = outcome.entry {
                    prop_assert_eq!(touched(&entry) == Default::default(), entry.objects.is_empty());
                }
            }
            Err(ChangeError::Invalid { .. } | ChangeError::NotFound { .. }) => {
                prop_assert_eq!(&*before, &*server.service.world(), "a refused change leaves no trace");
            }
            Err(other) => return Err(TestCaseError::fail(format!("{other:?}"))),
        }
    }
    let world = server.service.world();
    let entries = server.journal.read(0, 1_000).await.unwrap();
    prop_assert_eq!(entries.len(), made + 1);
    let mut again = World::empty();
    for stored in &entries {
        prop_assert!(!String::from_utf8_lossy(&stored.bytes).contains("secret-"));
        again = again.fold(stored, &server.key_sets).map_err(|error| TestCaseError::fail(error.to_string()))?;
    }
    prop_assert_eq!(&again, &*world);
    Ok(())
}
