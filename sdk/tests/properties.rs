//! Properties of the evaluator as its users see it.
#![allow(clippy::print_stdout, reason = "counts found are worth reading")]

use std::collections::BTreeMap;

use guidon_sdk::Context;
use guidon_sdk::eval::{Ruleset, allocation, bucket, evaluate, explain};
use guidon_sdk::model::{SLOTS, SlotRange};
use guidon_sdk::protocol::PatchBody;
use guidon_sdk::snapshot::{ApplyError, Snapshot};
use guidon_sdk::validate::validate_flag;
use proptest::prelude::*;
use serde_json::{Value, json};

fn rollout(salt: &str, allocation: &[SlotRange]) -> Ruleset {
    let mut weights: BTreeMap<&str, u32> = BTreeMap::new();
    for range in allocation {
        *weights.entry(&range.variation).or_default() += range.end - range.start;
    }
    let variations: Vec<Value> = weights.keys().map(|key| json!({"key": key, "value": key})).collect();
    let first = variations[0]["key"].clone();
    let definition = json!({"key": "f", "kind": "string", "variations": variations, "config": {"on": true, "offVariation": first,
        "fallthrough": {"rollout": {"weights": weights, "salt": salt, "allocation": allocation}}}});
    Ruleset::compile([serde_json::from_value(definition).unwrap()], [])
}

/// Ten million keys, or as many as `GUIDON_PROPERTY_KEYS` says: each weight is met within 0.05 percentage points.
#[test]
fn shares_are_those_of_the_weights() {
    let keys: u64 = std::env::var("GUIDON_PROPERTY_KEYS").ok().and_then(|keys| keys.parse().ok()).unwrap_or(10_000_000);
    let weights = BTreeMap::from([("a".to_owned(), 1_000), ("b".to_owned(), 24_000), ("c".to_owned(), 75_000)]);
    let ruleset = rollout("share-salt", &allocation::reallocate(&[], &weights));
    let count = |from: u64, to: u64| {
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        let mut tally = [0_u64; 3];
        for key in from..to {
            let key = format!("user-{key}");
            let context = Context::new(key.as_str());
            let served = evaluate(&ruleset, "f", &context).variation_key().unwrap();
            tally[usize::from(served.as_bytes()[0] - b'a')] += 1;
        }
        for (name, tally) in ["a", "b", "c"].iter().zip(tally) {
            counts.insert((*name).to_owned(), tally);
        }
        counts
    };
    let (low, high) = std::thread::scope(|scope| {
        let low = scope.spawn(|| count(0, keys / 2));
        (count(keys / 2, keys), low.join().unwrap())
    });
    for (variation, weight) in weights {
        let share = (low[&variation] + high[&variation]) as f64 / keys as f64 * 100.0;
        let expected = f64::from(weight) / 1_000.0;
        println!("{variation}: {share:.4} % of {keys} keys, weight {expected} %");
        assert!((share - expected).abs() <= 0.05, "{variation}: {share} % for {expected} %");
    }
}

/// Chi-square test of independence on a 10 × 10 table: with 81 degrees of freedom, 126 is exceeded with probability 0.001.
#[test]
fn two_salts_are_independent() {
    let mut table = [[0_u32; 10]; 10];
    let keys = 1_000_000;
    for key in 0..keys {
        let key = format!("user-{key}");
        let (one, two) = (bucket::bucket("salt-one", &key).slot, bucket::bucket("salt-two", &key).slot);
        table[(one / (SLOTS / 10)) as usize][(two / (SLOTS / 10)) as usize] += 1;
    }
    let rows: Vec<f64> = table.iter().map(|row| f64::from(row.iter().sum::<u32>())).collect();
    let columns: Vec<f64> = (0..10).map(|column| f64::from(table.iter().map(|row| row[column]).sum::<u32>())).collect();
    let mut statistic = 0.0;
    for (row, in_row) in rows.iter().zip(table) {
        for (column, found) in columns.iter().zip(in_row) {
            let expected = row * column / f64::from(keys);
            statistic += (f64::from(found) - expected).powi(2) / expected;
        }
    }
    println!("chi-square {statistic:.1} with 81 degrees of freedom");
    assert!(statistic < 126.0, "{statistic}");
}

/// JSON of any shape, with the words of definitions more often than chance would have them.
fn any_json() -> impl Strategy<Value = Value> {
    let word = prop::sample::select(vec![
        "f",
        "on",
        "off",
        "boolean",
        "in",
        "matches",
        "semverEqual",
        "segment",
        "before",
        "ipInRange",
        "targetingKey",
        "country",
        "(",
        "1.2.3",
        "",
        "10.0.0.0/8",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        word.prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
    ];
    let name = prop::sample::select(vec![
        "key",
        "kind",
        "variations",
        "value",
        "config",
        "on",
        "offVariation",
        "prerequisites",
        "flag",
        "variation",
        "targets",
        "keys",
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
        "salt",
        "bucketBy",
        "allocation",
        "fallthrough",
        "included",
        "excluded",
        "environments",
    ]);
    leaf.prop_recursive(5, 60, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((name.clone(), inner), 0..6).prop_map(|members| Value::Object(
                members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
            )),
        ]
    })
}

fn good_flag() -> Value {
    json!({"key": "f", "kind": "boolean", "variations": [{"key": "on", "value": true}, {"key": "off", "value": false}],
        "config": {"on": true, "offVariation": "off", "prerequisites": [{"flag": "g", "variation": "on"}], "targets": [{"variation": "on", "keys": ["u"]}],
            "rules": [{"id": "r", "clauses": [{"attribute": "country", "op": "in", "values": ["US"]}, {"op": "segment", "values": ["s"]}],
                "serve": {"rollout": {"weights": {"on": 100_000}, "salt": "s", "allocation": [["on", 0, 100_000]]}}}],
            "fallthrough": {"variation": "on"}}})
}

/// Replaces the `nth` value of a document, counted depth first.
fn replace(document: &mut Value, nth: &mut usize, with: &Value) {
    if *nth == 0 {
        *nth = usize::MAX;
        document.clone_from(with);
        return;
    }
    *nth = nth.saturating_sub(1);
    let children: Box<dyn Iterator<Item = &mut Value>> = match document {
        Value::Array(values) => Box::new(values.iter_mut()),
        Value::Object(members) => Box::new(members.iter_mut().map(|(_, value)| value)),
        _ => return,
    };
    for child in children {
        if *nth == usize::MAX {
            return;
        }
        replace(child, nth, with);
    }
}

fn snapshot_of(flag: &Value, segment: &Value) -> Option<Snapshot> {
    let body = json!({"revision": "h:1", "project": "p", "environment": "e", "flags": [flag], "segments": [segment]});
    Snapshot::parse(body.to_string().as_bytes()).ok()
}

proptest! {
    #[test]
    fn no_definition_or_context_makes_it_panic(
        nth in 0_usize..50, with in any_json(), segment in any_json(), context in any_json(), patched in any_json(), from in 0_u64..3, to in 0_u64..4,
    ) {
        let mut flag = good_flag();
        replace(&mut flag, &mut { nth }, &with);
        if let Some(snapshot) = snapshot_of(&flag, &segment) {
            let context = serde_json::from_value::<Context<'static>>(context).unwrap_or_default();
            let served = evaluate(snapshot.ruleset(), "f", &context);
            prop_assert_eq!(served.value().is_none(), served.error().is_some(), "either a value or an error");
            let explained = explain(snapshot.ruleset(), "f", &context);
            prop_assert_eq!((explained.reason, explained.error_code), (served.reason(), served.error()), "explain is the same evaluation");
            prop_assert_eq!(explained.value.as_ref(), served.value());
            let written = serde_json::to_vec(&snapshot).unwrap();
            let again = Snapshot::parse(&written).unwrap();
            prop_assert_eq!(evaluate(again.ruleset(), "f", &context).value(), served.value(), "a snapshot survives being written");
            let patch = json!({"from": from, "revision": format!("h:{to}"), "flags": [patched], "removedFlags": ["f"]});
            let patch: PatchBody = serde_json::from_str(&patch.to_string()).unwrap();
            match snapshot.apply(&patch) {
                Ok(next) => prop_assert!(from <= 1 && to > 1 && next.revision().number == to),
                Err(ApplyError::AlreadyApplied { .. }) => prop_assert!(to <= 1),
                Err(ApplyError::Resync { .. }) => prop_assert!(from > 1),
            }
        }
    }

    #[test]
    fn validation_never_panics(nth in 0_usize..50, with in any_json()) {
        let mut flag = good_flag();
        let config = flag["config"].take();
        flag["environments"] = json!({"production": config});
        replace(&mut flag, &mut { nth }, &with);
        if let Ok(flag) = serde_json::from_value(flag) {
            prop_assert!(validate_flag(&flag, &()).len() <= guidon_sdk::validate::limits::MAX_PROBLEMS);
        }
    }

    #[test]
    fn same_key_same_variation(key in "\\PC{1,40}") {
        let weights = BTreeMap::from([("a".to_owned(), 30_000), ("b".to_owned(), 70_000)]);
        let ruleset = rollout("s", &allocation::reallocate(&[], &weights));
        let (one, two) = (Context::new(key.as_str()), Context::new(key.clone()).with("x", 1));
        prop_assert_eq!(evaluate(&ruleset, "f", &one).variation_key(), evaluate(&ruleset, "f", &two).variation_key());
    }
}

#[test]
fn cycles_and_wide_chains_of_prerequisites_end_in_the_off_variation() {
    let flag = |key: String, wanted: Vec<String>| {
        let prerequisites: Vec<Value> = wanted.iter().map(|flag| json!({"flag": flag, "variation": "on"})).collect();
        json!({"key": key, "kind": "boolean", "variations": [{"key": "on", "value": true}, {"key": "off", "value": false}],
            "config": {"on": true, "offVariation": "off", "prerequisites": prerequisites, "fallthrough": {"variation": "on"}}})
    };
    let compile =
        |flags: Vec<Value>| Ruleset::compile(flags.into_iter().map(|flag| serde_json::from_value(flag).unwrap()), []);
    let context = Context::new("u");
    let served = |ruleset: &Ruleset, flag: &str| evaluate(ruleset, flag, &context).value().cloned();
    let cycle = compile(vec![flag("a".into(), vec!["b".into()]), flag("b".into(), vec!["a".into()])]);
    assert_eq!(served(&cycle, "a"), Some(json!(false)));
    let chain = compile(
        (0..3)
            .map(|level| flag(format!("l{level}"), if level == 2 { vec![] } else { vec![format!("l{}", level + 1)] }))
            .collect(),
    );
    assert_eq!(served(&chain, "l0"), Some(json!(true)));
    // Ten prerequisites on each of twelve levels are a trillion paths.
    let wide = (0..12).flat_map(|level| (0..10).map(move |number| (level, number)));
    let wide = compile(
        wide.map(|(level, number)| {
            flag(
                format!("w{level}-{number}"),
                if level == 11 { vec![] } else { (0..10).map(|next| format!("w{}-{next}", level + 1)).collect() },
            )
        })
        .collect(),
    );
    assert_eq!(served(&wide, "w0-0"), Some(json!(false)));
}
