//! `POST /api/v1/projects/{project}/changes` and `…/revert`.

use serde_json::{Value, json};

use crate::support::{ServerOptions, ServerProcess};

const CHANGES: &str = "/api/v1/projects/default/changes";
const JSON: (&str, &str) = ("content-type", "application/json");

fn pointers(problem: &Value) -> Vec<(&str, &str)> {
    let errors = problem["errors"].as_array().expect("errors");
    errors.iter().map(|error| (error["pointer"].as_str().unwrap(), error["code"].as_str().unwrap())).collect()
}

#[test]
fn a_change_says_what_it_did_and_doing_it_again_changes_nothing() {
    let server = ServerProcess::start();
    let created = server.client.create_flag("checkout");
    let on = json!([{"kind": "turnFlagOn", "flag": "checkout"}]);
    let changed = server.client.change("development", on.clone()).ok();
    assert_eq!(
        changed,
        json!({"revision": created + 1, "changed": ["environment/development/flag/checkout"],
               "summary": ["turned checkout on in development"], "dryRun": false})
    );
    let again = server.client.change("development", on).ok();
    assert_eq!((&again["revision"], &again["changed"]), (&json!(created + 1), &json!([])));
    let shown = server.client.get("/api/v1/projects/default/flags/checkout").ok();
    assert_eq!((&shown["environments"]["development"]["on"], &shown["revision"]), (&json!(true), &json!(created + 1)));
}

#[test]
fn a_change_touches_the_environments_that_its_instructions_name() {
    let server = ServerProcess::start();
    server.client.create_flag("checkout");
    let both = json!([{"kind": "turnFlagOn", "flag": "checkout"},
        {"kind": "turnFlagOn", "flag": "checkout", "environment": "testing"}]);
    let changed = server.client.change("development", both.clone()).ok();
    assert_eq!(
        (&changed["changed"], &changed["summary"]),
        (
            &json!(["environment/development/flag/checkout", "environment/testing/flag/checkout"]),
            &json!(["turned checkout on in development", "turned checkout on in testing"])
        )
    );
    let in_testing = server.client.get("/api/v1/projects/default/journal?environment=testing").ok();
    assert_eq!(in_testing["entries"].as_array().unwrap().last().unwrap()["instructions"], both);
    // Nothing is needed of the change where every instruction says where it applies.
    let alone = json!({"instructions": [{"kind": "turnFlagOff", "flag": "checkout", "environment": "testing"}]});
    assert_eq!(server.client.post(CHANGES, &alone).ok()["summary"][0], "turned checkout off in testing");

    let problem = server
        .client
        .change(
            "development",
            json!([
        {"kind": "turnFlagOn", "flag": "checkout", "environment": "tseting"},
        {"kind": "turnFlagOn", "flag": "checkout", "environment": "staging"}]),
        )
        .problem();
    assert_eq!(problem["status"], 403, "{problem}");
    let problem = server
        .client
        .change(
            "development",
            json!([
        {"kind": "turnFlagOn", "flag": "checkout", "environment": "tseting"}]),
        )
        .problem();
    assert_eq!(pointers(&problem), [("/instructions/0/environment", "unknownEnvironment")]);
    let problem = server
        .client
        .change(
            "development",
            json!([
        {"kind": "archiveFlag", "flag": "checkout", "environment": "testing"},
        {"kind": "createSdkKey", "audience": "server", "environment": "testing"}]),
        )
        .problem();
    assert_eq!(pointers(&problem), [("/instructions/0/environment", "notHere"), ("/instructions/1/kind", "notHere")]);
}

#[test]
fn a_dry_run_says_what_would_change_and_changes_nothing() {
    let server = ServerProcess::start();
    let revision = server.client.create_flag("checkout");
    let change = json!({"environment": "development", "dryRun": true, "instructions": [{"kind": "turnFlagOn", "flag": "checkout"}]});
    let would = server.client.post(CHANGES, &change).ok();
    assert_eq!(
        (&would["dryRun"], &would["changed"][0]),
        (&json!(true), &json!("environment/development/flag/checkout"))
    );
    assert_eq!(server.client.get("/api/v1/status").ok()["revision"], revision);
}

#[test]
fn malformed_json_is_located() {
    let server = ServerProcess::start();
    let problem = server.client.send("POST", CHANGES, &[JSON], b"{\"instructions\":[\n  {\"kind\" \"x\"}]}").problem();
    assert_eq!(
        problem,
        json!({"type": "urn:guidon:problem:malformedJson", "title": "The body is not JSON", "status": 400,
               "code": "malformedJson", "detail": "The body is not JSON: expected `:` at line 2 column 11.",
               "line": 2, "column": 11, "byte": 28})
    );
    let twice = server.client.send("POST", CHANGES, &[JSON], b"{\"comment\":\"a\",\"comment\":\"b\"}").problem();
    assert!(twice["detail"].as_str().unwrap().contains("\"comment\" occurs twice"), "{twice}");
}

#[test]
fn everything_wrong_with_a_body_is_named_with_its_place() {
    let server = ServerProcess::start();
    server.client.create_flag("checkout");
    let body = json!({"environment": "development", "instructions": [
        {"kind": "turnFlagsOn", "flag": "checkout"},
        {"kind": "turnFlagOn", "flag": 7},
        {"kind": "addRule", "flag": "checkout", "rule": {"clauses": [{"attribute": "a", "op": "inn"}], "serve": {"variation": "on"}}},
        {"kind": "turnFlagOff", "flag": "checkout", "colour": "red"},
    ]});
    let problem = server.client.post(CHANGES, &body).problem();
    assert_eq!((&problem["status"], &problem["code"]), (&json!(400), &json!("unknownInstruction")));
    assert_eq!(
        pointers(&problem),
        [
            ("/instructions/0/kind", "unknownInstruction"),
            ("/instructions/1/flag", "wrongType"),
            ("/instructions/2/rule/clauses/0/op", "unknownWord"),
            ("/instructions/3/colour", "unknownField"),
        ]
    );
    let top = server.client.post(CHANGES, &json!({"enviroment": "development", "instructions": []})).problem();
    assert_eq!(pointers(&top), [("/enviroment", "unknownField")]);
}

#[test]
fn a_definition_that_is_wrong_is_refused_whole() {
    let server = ServerProcess::start();
    let before = server.client.get("/api/v1/status").ok()["revision"].clone();
    let flag = json!({"key": "Bad Key", "kind": "boolean", "variations": [{"key": "on", "value": "yes"}, {"key": "on", "value": false}]});
    let problem = server.client.change("development", json!([{"kind": "createFlag", "flag": flag}])).problem();
    assert_eq!((&problem["status"], &problem["code"]), (&json!(422), &json!("invalidChange")));
    let places: Vec<&str> = pointers(&problem).into_iter().map(|(pointer, _)| pointer).collect();
    assert!(places.contains(&"/instructions/0/flag/key"), "{places:?}");
    assert!(places.contains(&"/instructions/0/flag/variations/0/value"), "{places:?}");
    assert_eq!(server.client.get("/api/v1/status").ok()["revision"], before);
}

#[test]
fn what_is_not_there_is_404_and_named() {
    let server = ServerProcess::start();
    let on = |project: &str, environment: &str| {
        let body = json!({"environment": environment, "instructions": [{"kind": "turnFlagOn", "flag": "nowhere"}]});
        server.client.post(&format!("/api/v1/projects/{project}/changes"), &body).problem()
    };
    for (project, environment, code) in [
        ("default", "development", "unknownFlag"),
        ("default", "nowhere", "unknownEnvironment"),
        ("nowhere", "development", "unknownProject"),
    ] {
        let problem = on(project, environment);
        assert_eq!(problem["status"], 404, "{problem}");
        assert_eq!(problem["errors"][0]["code"], code, "{problem}");
    }
}

#[test]
fn a_stale_revision_conflicts_with_the_entries_that_came_between() {
    let server = ServerProcess::start();
    let revision = server.client.create_flag("checkout");
    server.client.create_flag("other");
    server.client.change("development", json!([{"kind": "turnFlagOn", "flag": "checkout"}])).ok();
    let off = |flag: &str| json!({"environment": "development", "expectedRevision": revision, "instructions": [{"kind": "turnFlagOff", "flag": flag}]});
    let conflict = server.client.post(CHANGES, &off("checkout")).problem();
    assert_eq!((&conflict["status"], &conflict["code"]), (&json!(409), &json!("staleRevision")));
    assert_eq!((&conflict["expectedRevision"], &conflict["revision"]), (&json!(revision), &json!(revision + 2)));
    let entries = conflict["entries"].as_array().unwrap();
    assert_eq!(entries.iter().map(|entry| &entry["revision"]).collect::<Vec<_>>(), [&json!(revision + 2)]);
    // Another flag's change does not stand in the way of this one.
    let rename = json!({"expectedRevision": revision + 1, "instructions": [{"kind": "updateFlag", "flag": "other", "name": "Other"}]});
    server.client.post(CHANGES, &rename).ok();
}

#[test]
fn an_idempotency_key_makes_a_change_once() {
    let server = ServerProcess::start();
    let send = |key: &str, flag: &str| {
        let flag = json!({"key": flag, "kind": "boolean", "variations": [{"key": "on", "value": true}, {"key": "off", "value": false}]});
        let body = json!({"instructions": [{"kind": "createFlag", "flag": flag}]}).to_string();
        server.client.send("POST", CHANGES, &[JSON, ("idempotency-key", key)], body.as_bytes())
    };
    let first = send("k-1", "a");
    assert_eq!(first.header("idempotency-replayed"), None);
    let again = send("k-1", "a");
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    assert_eq!(first.ok(), again.ok());
    let other = send("k-1", "b").problem();
    assert_eq!((&other["status"], &other["code"]), (&json!(422), &json!("idempotencyKeyReused")));
    let long = send(&"k".repeat(300), "c").problem();
    assert_eq!(long["status"], 400);
}

#[test]
fn bodies_over_the_limit_and_of_other_types_are_refused() {
    let options =
        ServerOptions { arguments: vec!["--max-body-bytes".into(), "1000".into()], ..ServerOptions::default() };
    let server = ServerProcess::start_with(options);
    let large = server.client.post(CHANGES, &json!({"comment": "x".repeat(2000), "instructions": []})).problem();
    assert_eq!(
        (&large["status"], &large["code"], &large["limitBytes"]),
        (&json!(413), &json!("bodyTooLarge"), &json!(1000))
    );
    let form = server.client.send("POST", CHANGES, &[("content-type", "text/plain")], b"{}").problem();
    assert_eq!((&form["status"], &form["code"]), (&json!(415), &json!("unsupportedMediaType")));
}

#[test]
fn a_hundred_thousand_segment_keys_fit_into_one_change() {
    let server = ServerProcess::start();
    let keys: Vec<String> = (0..100_000).map(|index| format!("customer-{index:09}-of-the-large-segment")).collect();
    let segment = json!({"key": "large", "included": keys});
    server.client.change("development", json!([{"kind": "createSegment", "segment": segment}])).ok();
    let shown = server.client.get("/api/v1/projects/default/environments/development/segments/large?limit=2").ok();
    assert_eq!((&shown["includedCount"], &shown["included"]), (&json!(100_000), &json!([keys[0], keys[1]])));
}

#[test]
fn a_revert_brings_an_earlier_revision_back_as_a_new_entry() {
    let server = ServerProcess::start();
    let revision = server.client.create_flag("checkout");
    server.client.change("development", json!([{"kind": "turnFlagOn", "flag": "checkout"}])).ok();
    server.client.create_flag("later");
    let path = "/api/v1/projects/default/environments/development/revert";
    let reverted = server.client.post(path, &json!({"toRevision": revision})).ok();
    assert_eq!(reverted["changed"], json!(["environment/development/flag/checkout"]));
    assert_eq!(reverted["revision"], revision + 3);
    let shown = server.client.get("/api/v1/projects/default/flags/checkout").ok();
    assert_eq!(shown["environments"]["development"]["on"], false);
    let future = server.client.post(path, &json!({"toRevision": 999})).problem();
    assert_eq!(pointers(&future), [("/toRevision", "outOfRange")]);
}
