//! Configuration as code: what is planned, what becomes of it, and who may.

use serde_json::{Value, json};

use crate::support::people::{admin, person};
use crate::support::{ServerProcess, TestClient};

const PROJECT: &str = "/api/v1/projects/default";

fn engine(environment: &str, ai: u32) -> Value {
    json!({"flags": {"engine": {
        "kind": "string",
        "variations": [{"key": "ai", "value": "ai", "provenance": {"by": "ai"}},
            {"key": "base", "value": "base", "provenance": {"by": "human"}}],
        "environments": {environment: {"on": true, "targets": [{"variation": "ai", "keys": ["person-1"]}],
            "rules": [{"clauses": [{"op": "segment", "values": ["beta"]}], "serve": {"variation": "ai"}},
                {"clauses": [{"attribute": "targetingKey", "op": "in", "values": ["person-2"]}], "serve": {"variation": "ai"}}],
            "fallthrough": {"rollout": {"weights": {"ai": ai, "base": 100_000 - ai}}}}}}},
        "segments": {environment: {"beta": {"included": ["person-3"]}}}})
}

#[track_caller]
fn plan(client: &TestClient, document: &Value) -> Value {
    client.post(&format!("{PROJECT}/plan"), &json!({"document": document})).ok()
}

#[test]
fn what_was_exported_plans_as_empty_and_what_is_applied_is_one_change() {
    let server = ServerProcess::start();
    let client = &server.client;
    let document = engine("development", 1_000);
    let planned = plan(client, &document);
    assert_eq!((&planned["answer"]["outcome"], &planned["counts"]["create"]), (&json!("applies"), &json!(2)));
    assert!(!planned.to_string().contains("person-"), "{planned}");
    let made = client.post(&format!("{PROJECT}/apply"), &json!({"document": document, "comment": "First"})).ok();
    assert_eq!(made["revision"], 2);
    for query in ["", "?keys=true", "?allocations=true"] {
        let query = if query == "?keys=true" { "?keys=true&environment=development" } else { query };
        let exported = client.get(&format!("{PROJECT}/documents{query}")).ok();
        assert_eq!(exported.to_string().contains("person-"), query.contains("keys"), "{exported}");
        let again = plan(client, &exported["document"]);
        assert_eq!((&again["steps"], &again["differences"], &again["unmanaged"]), (&json!([]), &json!([]), &json!([])));
        assert_eq!(again["answer"], json!({"outcome": "nothing"}));
    }
    // From staging on its own token reads no person's key.
    client.get(&format!("{PROJECT}/documents?keys=true")).problem();
}

#[test]
fn an_older_plan_is_told_what_changed_and_of_two_at_once_one_wins() {
    let server = ServerProcess::start();
    let client = &server.client;
    let apply = |document: &Value, base: Option<u64>| {
        client.post(&format!("{PROJECT}/apply"), &json!({"document": document, "baseRevision": base}))
    };
    apply(&engine("development", 1_000), None).ok();
    client.change("development", json!([{"kind": "turnFlagOff", "flag": "engine"}])).ok();
    let body = json!({"document": engine("development", 1_000), "baseRevision": 2});
    let planned = client.post(&format!("{PROJECT}/plan"), &body).ok();
    assert_eq!(planned["since"]["entries"][0]["revision"], 3);
    // What has changed since is asked for by the document, though the plan that was looked at had nothing to do there.
    let refused = apply(&engine("development", 5_000), Some(2)).problem();
    assert_eq!((&refused["code"], &refused["entries"][0]["revision"]), (&json!("staleRevision"), &json!(3)));
    // What the document does not speak of does not count.
    client.create_flag("other");
    apply(&engine("development", 5_000), Some(3)).ok();

    let document = |name: &str| {
        json!({"flags": {"new": {"kind": "boolean", "name": name,
        "variations": [{"key": "on", "value": true}, {"key": "off", "value": false}]}}})
    };
    let answers: Vec<u16> = std::thread::scope(|scope| {
        let sent: Vec<_> = ["one", "two", "three", "four"]
            .map(|name| scope.spawn(move || apply(&document(name), Some(5)).status))
            .into_iter()
            .collect();
        sent.into_iter().map(|thread| thread.join().unwrap_or_default()).collect()
    });
    let count = |status: u16| answers.iter().filter(|answer| **answer == status).count();
    assert_eq!((count(200), count(409)), (1, 3), "{answers:?}");
}

#[test]
fn a_promotion_to_production_is_a_change_request_and_drift_shows_it() {
    let server = ServerProcess::start();
    let admin = admin(&server);
    let developer = person(&admin, "dev", &["developer"]).client;
    admin.post(&format!("{PROJECT}/apply"), &json!({"document": engine("staging", 5_000)})).ok();
    let drift = developer.get(&format!("{PROJECT}/drift?from=staging&to=production")).ok();
    assert_eq!(drift["pairs"][0]["counts"], json!({"serving": 2, "rules": 2, "definition": 0, "segments": 1}));
    assert!(!drift.to_string().contains("person-"), "{drift}");
    let promote = |dry: bool| {
        let body = json!({"from": "staging", "to": "production", "flags": ["engine"], "targets": true, "dryRun": dry});
        developer.post(&format!("{PROJECT}/promote"), &body)
    };
    let planned = promote(true).ok();
    assert_eq!(planned["answer"]["outcome"], "request", "{planned}");
    let opened = promote(false);
    assert_eq!(opened.status, 202, "{}", opened.json());
    let unknown = json!({"from": "staging", "to": "production", "flags": ["engin"]});
    let refused = developer.post(&format!("{PROJECT}/promote"), &unknown).problem();
    assert_eq!(refused["errors"][0]["pointer"], "/flags/0");
    assert!(refused["errors"][0]["detail"].as_str().is_some_and(|detail| detail.contains("\"engine\"")), "{refused}");
}

#[test]
fn an_agent_plans_without_seeing_values_exports_nothing_and_promotes_nothing_it_may_not_see() {
    let server = ServerProcess::start();
    let admin = admin(&server);
    admin.post(&format!("{PROJECT}/apply"), &json!({"document": engine("staging", 5_000)})).ok();
    let agent = admin.post("/api/v1/agents", &json!({"name": "Helper", "tool": "editor", "owner": "admin"})).ok();
    let made = admin.post("/api/v1/tokens", &json!({"principal": agent["id"], "name": "t", "scope": {}})).ok();
    let agent = admin.with_token(made["token"].as_str());
    let rules =
        |environment: &str| json!({"flags": {"engine": {"environments": {environment: {"rules": [], "targets": []}}}}});
    let planned = plan(&agent, &rules("staging"));
    assert!(!planned.to_string().contains("person-"), "{planned}");
    for (method, path, body) in [
        ("plan", "", json!({"document": rules("production")})),
        ("apply", "", json!({"document": rules("production")})),
        ("promote", "", json!({"from": "staging", "to": "development"})),
        ("promote", "", json!({"from": "development", "to": "production"})),
    ] {
        let refused = agent.post(&format!("{PROJECT}/{method}{path}"), &body).problem();
        assert_eq!(refused["code"], "forbidden", "{method} {body}");
    }
    assert_eq!(agent.get(&format!("{PROJECT}/documents")).problem()["code"], "forbidden");
    let drift = agent.get(&format!("{PROJECT}/drift")).ok();
    assert_eq!(drift["pairs"].as_array().map(Vec::len), Some(2), "production is not in sight: {drift}");
}

#[test]
fn a_promotion_conflicts_with_changes_of_where_it_comes_from_and_metrics_name_nobody() {
    let server = ServerProcess::start();
    let admin = admin(&server);
    let applied = admin.post(&format!("{PROJECT}/apply"), &json!({"document": engine("staging", 5_000)})).ok();
    let seen = applied["revision"].clone();
    admin.change("staging", json!([{"kind": "turnFlagOff", "flag": "engine"}])).ok();
    let promote = |from: &str, expected: &Value| {
        let body =
            json!({"from": from, "to": "testing", "flags": ["engine"], "targets": true, "expectedRevision": expected});
        admin.post(&format!("{PROJECT}/promote"), &body)
    };
    let refused = promote("staging", &seen).problem();
    assert_eq!(refused["code"], "staleRevision", "{refused}");
    promote("staging", &Value::Null).ok();
    // Nothing names the project where no credential is asked for.
    let metrics = server.client.with_token(None).send("GET", "/metrics", &[], b"");
    assert!(!metrics.text.contains("project="));
}
