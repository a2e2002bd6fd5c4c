//! Definitions with known problems, and what is said about them.

use serde_json::{Value, json};

use super::*;

/// A project of one other flag, `other`, and one segment, `staff`, which lists keys.
struct Project {
    flags: Vec<Flag>,
}

impl FlagFacts for Project {
    fn has_environment(&self, environment: &str) -> bool {
        environment == "production"
    }

    fn flag(&self, key: &str) -> Option<&Flag> {
        self.flags.iter().find(|flag| flag.key == key)
    }

    fn segment(&self, _environment: &str, key: &str) -> Option<SegmentFacts> {
        (key == "staff").then_some(SegmentFacts { lists_keys: true })
    }
}

fn flag(changes: &[(&str, Value)]) -> Flag {
    let mut definition = json!({
        "key": "subject", "kind": "boolean",
        "variations": [{"key": "on", "value": true}, {"key": "off", "value": false}],
        "environments": {"production": {"on": true, "offVariation": "off", "prerequisites": [], "targets": [], "rules": [],
            "fallthrough": {"variation": "on"}}}
    });
    for (pointer, value) in changes {
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        definition.pointer_mut(parent).unwrap()[name] = value.clone();
    }
    serde_json::from_value(definition).unwrap()
}

const HERE: &str = "/environments/production";

fn problems(changes: &[(&str, Value)], others: Vec<Flag>) -> Vec<(String, String)> {
    let found = validate_flag(&flag(changes), &Project { flags: others });
    found.into_iter().map(|problem| (problem.pointer, problem.code)).collect()
}

#[track_caller]
fn one(pointer: &str, value: Value, expected: &[(&str, &str)]) {
    let found = problems(&[(pointer, value)], vec![other(&[])]);
    let expected: Vec<_> = expected.iter().map(|(pointer, code)| ((*pointer).to_owned(), (*code).to_owned())).collect();
    assert_eq!(found, expected);
}

fn other(prerequisites: &[(&str, &str)]) -> Flag {
    let prerequisites: Vec<Value> =
        prerequisites.iter().map(|(flag, variation)| json!({"flag": flag, "variation": variation})).collect();
    let mut flag = flag(&[("/environments/production/prerequisites", json!(prerequisites))]);
    flag.key = "other".to_owned();
    flag
}

#[test]
fn a_right_definition_has_no_problems() {
    let rule = json!([{"id": "r1", "clauses": [{"attribute": "country", "op": "in", "values": ["US"]}, {"op": "segment", "values": ["staff"]}],
        "serve": {"rollout": {"weights": {"on": 40_000, "off": 60_000}, "allocation": [["on", 0, 40_000], ["off", 40_000, 100_000]]}}}]);
    one("/environments/production/rules", rule, &[]);
}

#[test]
fn each_problem_is_named_with_its_place() {
    one("/key", json!("Bad Key"), &[("/key", "badKey")]);
    one("/expires", json!("31.1.2027"), &[("/expires", "badDate")]);
    one("/tags", json!(["a", "a"]), &[("/tags/1", "duplicate")]);
    one(
        "/variations",
        json!([{"key": "on", "value": true}, {"key": "off", "value": 0}]),
        &[("/variations/1/value", "wrongKind")],
    );
    one("/environments/production/offVariation", json!("no"), &[(&format!("{HERE}/offVariation"), "unknownVariation")]);
    let twice = json!([{"key": "on", "value": true}, {"key": "off", "value": false}, {"key": "on", "value": true}]);
    one("/variations", twice, &[("/variations/2/key", "duplicateKey")]);
    let wrong_sum = json!({"rollout": {"weights": {"on": 5, "off": 7}}});
    one(
        "/environments/production/fallthrough",
        wrong_sum,
        &[(&format!("{HERE}/fallthrough/rollout/weights"), "weightsSum")],
    );
    let wrong_allocation = json!({"rollout": {"weights": {"on": 100_000}, "allocation": [["on", 0, 99_999]]}});
    one(
        "/environments/production/fallthrough",
        wrong_allocation,
        &[(&format!("{HERE}/fallthrough/rollout/allocation"), "badAllocation")],
    );
    one(
        "/environments/production/targets",
        json!([{"variation": "on", "keys": ["a", "a", ""]}]),
        &[(&format!("{HERE}/targets/0/keys/1"), "duplicate"), (&format!("{HERE}/targets/0/keys/2"), "empty")],
    );
    let mut elsewhere = flag(&[]);
    let config = elsewhere.environments["production"].clone();
    elsewhere.environments.insert("mo/on".to_owned(), config);
    let found = validate_flag(&elsewhere, &Project { flags: vec![] });
    assert_eq!(found[0].pointer, "/environments/mo~1on");
}

#[test]
fn clauses_are_checked_value_by_value() {
    let rule = |clause: Value| json!([{"id": "r", "clauses": [clause], "serve": {"variation": "on"}}]);
    let at = |rest: &str| format!("{HERE}/rules/0/clauses/0{rest}");
    let cases = [
        (
            json!({"attribute": "a", "op": "matches", "values": ["ok", "(", 5]}),
            vec![("/values/1", "badRegex"), ("/values/2", "wrongType")],
        ),
        (json!({"attribute": "a", "op": "lessThan", "values": ["5"]}), vec![("/values/0", "wrongType")]),
        (json!({"attribute": "a", "op": "semverEqual", "values": ["1.x"]}), vec![("/values/0", "badVersion")]),
        (json!({"attribute": "a", "op": "before", "values": ["yesterday"]}), vec![("/values/0", "badTime")]),
        (json!({"attribute": "a", "op": "ipInRange", "values": ["10.0.0.0/33"]}), vec![("/values/0", "badRange")]),
        (json!({"attribute": "a", "op": "in", "values": [null]}), vec![("/values/0", "wrongType")]),
        (json!({"attribute": "a", "op": "in", "values": []}), vec![("/values", "empty")]),
        (json!({"attribute": "", "op": "exists"}), vec![("/attribute", "empty")]),
        (json!({"attribute": "a", "op": "exists", "values": [1]}), vec![("/values", "unused")]),
        (json!({"op": "segment", "values": ["nobody"]}), vec![("/values/0", "unknownSegment")]),
    ];
    for (clause, expected) in cases {
        let expected: Vec<_> = expected.into_iter().map(|(rest, code)| (at(rest), code.to_owned())).collect();
        assert_eq!(problems(&[("/environments/production/rules", rule(clause.clone()))], vec![]), expected, "{clause}");
    }
}

#[test]
fn prerequisites_must_be_there_and_not_lead_back() {
    let wanted = |flag: &str, variation: &str| {
        [("/environments/production/prerequisites", json!([{"flag": flag, "variation": variation}]))]
    };
    let at = |name: &str| format!("{HERE}/prerequisites/0/{name}");
    let found = |flag, variation, others| problems(&wanted(flag, variation), others);
    assert_eq!(found("other", "on", vec![other(&[])]), vec![]);
    assert_eq!(found("other", "on", vec![]), vec![(at("flag"), "unknownFlag".to_owned())]);
    assert_eq!(found("other", "maybe", vec![other(&[])]), vec![(at("variation"), "unknownVariation".to_owned())]);
    assert_eq!(found("subject", "on", vec![]), vec![(at("flag"), "prerequisiteCycle".to_owned())]);
    assert_eq!(
        found("other", "on", vec![other(&[("subject", "on")])]),
        vec![(at("flag"), "prerequisiteCycle".to_owned())]
    );
}

#[test]
fn chains_are_followed_as_far_as_the_evaluator_goes() {
    let chain = |length: usize| -> Vec<Flag> {
        (0..length)
            .map(|index| {
                let mut flag =
                    if index + 1 < length { other(&[(&format!("f{}", index + 1), "on")]) } else { other(&[]) };
                flag.key = format!("f{index}");
                flag
            })
            .collect()
    };
    let wanted = [("/environments/production/prerequisites", json!([{"flag": "f0", "variation": "on"}]))];
    let most = crate::eval::MAX_PREREQUISITE_DEPTH as usize;
    assert_eq!(problems(&wanted, chain(most)), vec![]);
    assert_eq!(problems(&wanted, chain(most + 1))[0].1, "prerequisitesTooDeep");
}

#[test]
fn flags_for_browsers_carry_no_keys() {
    let client = ("/clientSide", json!(true));
    let targets = ("/environments/production/targets", json!([{"variation": "on", "keys": ["a"]}]));
    assert_eq!(problems(&[client.clone(), targets], vec![])[0].1, "keysInBrowser");
    for clause in [
        json!({"op": "segment", "values": ["staff"]}),
        json!({"attribute": "targetingKey", "op": "in", "values": ["a"]}),
    ] {
        let rules =
            ("/environments/production/rules", json!([{"id": "r", "clauses": [clause], "serve": {"variation": "on"}}]));
        assert_eq!(problems(&[client.clone(), rules], vec![])[0].1, "keysInBrowser");
    }
    let wanted = ("/environments/production/prerequisites", json!([{"flag": "other", "variation": "on"}]));
    assert_eq!(problems(&[client, wanted], vec![other(&[])])[0].1, "prerequisiteNotClientSide");
}

#[test]
fn segments_are_checked_too() {
    let segment = serde_json::from_value(json!({"key": "Bad", "included": ["a", "a"], "rules": [
        {"id": "r", "clauses": [{"op": "segment", "values": ["x"]}]}, {"id": "r", "clauses": []}]}));
    let codes: Vec<String> = validate_segment(&segment.unwrap()).into_iter().map(|problem| problem.code).collect();
    assert_eq!(codes, ["badKey", "duplicate", "duplicateId", "nestedSegment", "empty"]);
}

#[test]
fn many_problems_are_cut_short() {
    let values: Vec<u32> = (0..5_000).collect();
    let rule = json!([{"id": "r", "clauses": [{"attribute": "a", "op": "contains", "values": values}], "serve": {"variation": "on"}}]);
    assert_eq!(problems(&[("/environments/production/rules", rule)], vec![]).len(), limits::MAX_PROBLEMS);
}
