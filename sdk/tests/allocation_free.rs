//! Serving a variation allocates nothing: a binary of its own, so that no other test allocates beside it.

use std::alloc::System;

use guidon_sdk::Context;
use guidon_sdk::eval::{Ruleset, evaluate, evaluate_at};
use serde_json::json;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

#[test]
fn serving_a_variation_allocates_nothing() {
    let variations = json!([{"key": "on", "value": true}, {"key": "off", "value": false}]);
    let split = json!({"rollout": {"weights": {"on": 50_000, "off": 50_000}, "bucketBy": "account", "salt": "a salt of more than sixteen bytes"}});
    let flags = [
        json!({"key": "plain", "kind": "boolean", "variations": variations, "config": {"on": true, "offVariation": "off", "fallthrough": {"variation": "on"}}}),
        json!({"key": "gated", "kind": "boolean", "variations": variations, "config": {"on": true, "offVariation": "off",
            "prerequisites": [{"flag": "plain", "variation": "on"}], "targets": [{"variation": "off", "keys": ["somebody"]}],
            "rules": [{"id": "r", "clauses": [{"attribute": "country", "op": "in", "values": ["US", "a longer value"]},
                {"attribute": "version", "op": "semverGreaterThanOrEqual", "values": ["2.3.0-beta.1"]},
                {"attribute": "address", "op": "ipInRange", "values": ["10.0.0.0/8"]},
                {"attribute": "born", "op": "before", "values": ["2020-01-01T00:00:00Z"]},
                {"op": "segment", "values": ["members"]}], "serve": split}],
            "fallthrough": {"variation": "off"}}}),
    ];
    let segment = json!({"key": "members", "included": ["user-1"]});
    let ruleset = Ruleset::compile(
        flags.map(|flag| serde_json::from_value(flag).unwrap()),
        [serde_json::from_value(segment).unwrap()],
    );
    let found = ruleset.find("gated").unwrap();
    let context = Context::new("user-1")
        .with("country", "US")
        .with("version", "2.4.0")
        .with("address", "10.1.2.3")
        .with("born", "1999-12-31T00:00:00Z")
        .with("account", 1234);
    let region = Region::new(ALLOCATOR);
    let (plain, split, handle) = (
        evaluate(&ruleset, "plain", &context),
        evaluate(&ruleset, "gated", &context),
        evaluate_at(&ruleset, &found, &context),
    );
    let change = region.change();
    assert_eq!((change.allocations, change.reallocations, change.deallocations), (0, 0, 0));
    assert_eq!((plain.variation_key(), split.rule(), handle.slot()), (Some("on"), Some("r"), split.slot()));
    assert!(split.slot().is_some(), "the rollout decided");
}
