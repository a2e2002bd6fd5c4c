//! Definitions, instructions and contexts as request bodies.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{check_alive, json, runner, server};
use crate::counts::report;
use crate::support::TestClient;

const CHANGES: &str = "/api/v1/projects/default/changes";
const EXPLAIN: &str = "/api/v1/projects/default/environments/development/explain";
const JSON: [(&str, &str); 1] = [("content-type", "application/json")];

/// A body of any kind is answered with success, or with a problem document that is the caller's fault.
fn check(client: &TestClient, path: &str, body: &[u8]) -> Result<bool, TestCaseError> {
    let answer = client.send("POST", path, &JSON, body);
    let status = answer.status;
    prop_assert!(status < 500, "{} {}", status, answer.text);
    if status >= 400 {
        let problem = answer.problem();
        prop_assert!(problem["code"].is_string() && problem["title"].is_string(), "{problem}");
    }
    Ok(status < 300)
}

#[test]
fn no_definition_or_instruction_upsets_the_server() {
    let server = server();
    server.client.create_flag("base");
    let change = |instruction: Value| json!({"environment": "development", "instructions": [instruction]});
    let body = prop_oneof![
        // Dry runs, because one that is right would be in the way of the next.
        4 => json::flag().prop_map(|flag| json!({"environment": "development", "dryRun": true,
            "instructions": [{"kind": "createFlag", "flag": flag}]})),
        2 => json::replaced(json!({"environment": "development", "comment": "c", "commit": "d", "expectedRevision": 1,
            "dryRun": true, "instructions": [
                {"kind": "addRule", "flag": "base", "rule": {"clauses": [
                    {"attribute": "version", "op": "semverLessThan", "values": ["1.2.3"], "negate": true},
                    {"op": "segment", "values": ["beta"]}], "serve": {"variation": "on"}}},
                {"kind": "createSegment", "segment": {"key": "beta", "included": ["a"], "rules": []}}]})),
        1 => json::value(),
        1 => json::value().prop_map(change),
    ];
    let (mut runner, cases) = runner(300, 20_000);
    let accepted = std::cell::Cell::new(0);
    let outcome = runner.run(&body, |body| {
        let is_accepted = check(&server.client, CHANGES, body.to_string().as_bytes())?;
        accepted.set(accepted.get() + usize::from(is_accepted));
        Ok(())
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
    let peak = check_alive(&server);
    report(&format!(
        "definitions and instructions: {cases} bodies, {} accepted, peak memory {peak:?} KiB",
        accepted.get()
    ));
}

#[test]
fn no_bytes_upset_the_server() {
    let server = server();
    let deep = |open: &str, close: &str| format!("{}{}", open.repeat(20_000), close.repeat(20_000)).into_bytes();
    let nested = br#"{"environment":"development","instructions":[{"kind":"createFlag","flag":"#.to_vec();
    let fixed = [
        deep("[", "]"),
        deep("{\"a\":", "}"),
        [nested, deep("[", "")].concat(),
        vec![b' '; 9 << 20],
        vec![b'['; 8 << 20],
        format!("{{\"environment\":\"{}\"}}", "x".repeat(4 << 20)).into_bytes(),
        b"\xff\xfe".to_vec(),
        Vec::new(),
    ];
    for body in &fixed {
        let answered = check(&server.client, CHANGES, body).expect("the server holds");
        assert!(!answered, "nonsense was accepted");
    }
    let (mut runner, cases) = runner(200, 20_000);
    let outcome = runner.run(&prop::collection::vec(any::<u8>(), 0..400), |bytes| {
        check(&server.client, CHANGES, &bytes)?;
        check(&server.client, EXPLAIN, &bytes).map(|_| ())
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
    let peak = check_alive(&server);
    report(&format!("bytes as bodies: {} made by hand, {cases} random, peak memory {peak:?} KiB", fixed.len()));
}

#[test]
fn no_context_upsets_explain() {
    let server = server();
    server.client.create_flag("base");
    let clauses = json!([{"attribute": "country", "op": "matches", "values": ["^(U|u)+S$"]},
        {"attribute": "version", "op": "semverLessThan", "values": ["2.0.0"]},
        {"attribute": "at", "op": "before", "values": ["2027-01-01T00:00:00Z"]},
        {"attribute": "ip", "op": "ipInRange", "values": ["10.0.0.0/8"]}]);
    let serve = json!({"rollout": {"weights": {"on": 50_000, "off": 50_000}, "bucketBy": "company"}});
    let rule = json!({"kind": "addRule", "flag": "base", "rule": {"clauses": clauses, "serve": serve}});
    server.client.change("development", json!([rule, {"kind": "turnFlagOn", "flag": "base"}])).ok();
    let context = json!({"targetingKey": "u", "country": "US", "version": "1.2.3", "at": "2026-01-01T00:00:00Z", "ip": "10.1.2.3",
        "company": 12});
    let body = prop_oneof![
        json::replaced(context).prop_map(|context| json!({"flag": "base", "context": context})),
        json::replaced(json!({"flag": "base", "context": {"targetingKey": "u"}})),
    ];
    let (mut runner, cases) = runner(200, 20_000);
    let outcome = runner.run(&body, |body| check(&server.client, EXPLAIN, body.to_string().as_bytes()).map(|_| ()));
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
    let peak = check_alive(&server);
    report(&format!("contexts to explain: {cases}, peak memory {peak:?} KiB"));
}
