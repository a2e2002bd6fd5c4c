//! Everything that can be read.

use serde_json::{Value, json};

use crate::support::ServerProcess;

fn keys(page: &Value, name: &str) -> Vec<String> {
    let items = page[name].as_array().expect("a list");
    items.iter().map(|item| item["key"].as_str().unwrap_or_default().to_owned()).collect()
}

#[test]
fn flags_page_and_filter() {
    let server = ServerProcess::start();
    for key in ["a", "b", "c"] {
        server.client.create_flag(key);
    }
    let name = json!({"kind": "updateFlag", "flag": "b", "name": "New Checkout", "tags": ["shop"]});
    server.client.change("development", json!([name, {"kind": "archiveFlag", "flag": "c"}])).ok();
    let list = |query: &str| server.client.get(&format!("/api/v1/projects/default/flags{query}"));
    let first = list("?limit=1").ok();
    assert_eq!((keys(&first, "flags"), &first["next"]), (vec!["a".to_owned()], &json!("a")));
    let second = list("?limit=1&after=a").ok();
    assert_eq!((keys(&second, "flags"), &second["next"]), (vec!["b".to_owned()], &Value::Null));
    assert_eq!(keys(&list("?tag=shop").ok(), "flags"), ["b"]);
    assert_eq!(keys(&list("?query=checkOUT").ok(), "flags"), ["b"]);
    assert_eq!(keys(&list("?archived=true").ok(), "flags"), ["c"]);
    let narrowed = list("?environment=staging").ok();
    assert_eq!(narrowed["flags"][0]["environments"].as_object().unwrap().len(), 1);
    for wrong in ["?limit=0", "?limit=x", "?colour=red"] {
        assert_eq!(list(wrong).problem()["code"], "invalidRequest", "{wrong}");
    }
    assert_eq!(list("?environment=nowhere").problem()["status"], 404);
}

#[test]
fn the_journal_pages_filters_and_tells_a_flags_history() {
    let server = ServerProcess::start();
    let created = server.client.create_flag("a");
    server.client.create_flag("b");
    let change = json!({"environment": "testing", "comment": "try it", "commit": "abc123",
                        "instructions": [{"kind": "turnFlagOn", "flag": "a"}]});
    server.client.post("/api/v1/projects/default/changes", &change).ok();
    let revisions = |path: &str| -> Vec<u64> {
        let page = server.client.get(path).ok();
        page["entries"].as_array().unwrap().iter().map(|entry| entry["revision"].as_u64().unwrap()).collect()
    };
    assert_eq!(revisions("/api/v1/projects/default/journal?flag=a"), [created, created + 2]);
    assert_eq!(revisions("/api/v1/projects/default/flags/a/history"), [created, created + 2]);
    assert_eq!(revisions(&format!("/api/v1/projects/default/journal?after={created}&limit=1")), [created + 1]);
    let history = server.client.get(&format!("/api/v1/projects/default/journal?after={}", created + 1)).ok();
    let entry = &history["entries"][0];
    assert_eq!(
        (&entry["comment"], &entry["commit"], &entry["environment"]),
        (&json!("try it"), &json!("abc123"), &json!("testing"))
    );
    assert_eq!(entry["actorId"], "administrator");
    assert!(entry["originId"].as_str().unwrap().starts_with("origin-"), "{entry}");
    assert_eq!(server.client.get("/api/v1/projects/default/flags/nowhere/history").problem()["status"], 404);
}

#[test]
fn explain_shows_every_rule() {
    let server = ServerProcess::start();
    server.client.create_flag("a");
    let rule = |id: &str, country: &str| {
        json!({"kind": "addRule", "flag": "a", "rule": {"id": id, "serve": {"variation": "on"},
               "clauses": [{"attribute": "country", "op": "in", "values": [country]}]}})
    };
    server
        .client
        .change("development", json!([{"kind": "turnFlagOn", "flag": "a"}, rule("us", "US"), rule("ca", "CA")]))
        .ok();
    let path = "/api/v1/projects/default/environments/development/explain";
    let explained =
        server.client.post(path, &json!({"flag": "a", "context": {"targetingKey": "u", "country": "CA"}})).ok();
    assert_eq!(
        (&explained["value"], &explained["variation"], &explained["reason"], &explained["rule"]),
        (&json!(true), &json!("on"), &json!("TARGETING_MATCH"), &json!("ca"))
    );
    let rules = explained["trace"]["rules"].as_array().unwrap();
    assert_eq!((&rules[0]["matched"], &rules[0]["clauses"][0]["because"]), (&json!(false), &json!("doesNotHold")));
    assert_eq!(rules[1]["matched"], true);
    let clause = json!({"attribute": "country", "op": "in", "values": ["US"], "negate": false, "matched": false,
                        "because": "doesNotHold", "actual": "CA"});
    assert_eq!(rules[0]["clauses"], json!([clause]));
    let without = server.client.post(path, &json!({"flag": "a", "context": {"targetingKey": "u"}})).ok();
    assert_eq!(without["trace"]["rules"][0]["clauses"][0]["because"], "missing");
    assert_eq!(server.client.post(path, &json!({"flag": "nowhere"})).problem()["status"], 404);
    let context = server.client.post(path, &json!({"flag": "a", "context": {"targetingKey": 7}})).problem();
    assert_eq!(context["errors"][0]["pointer"], "/context");
}

#[test]
fn projects_environments_and_segments() {
    let server = ServerProcess::start();
    server.client.post("/api/v1/projects", &json!({"key": "shop", "name": "Shop"})).ok();
    let projects = server.client.get("/api/v1/projects").ok();
    assert_eq!(keys(&projects, "projects"), ["default", "shop"]);
    let path = "/api/v1/projects/shop/environments";
    server.client.post(path, &json!({"key": "preview", "name": "Preview", "tier": "testing"})).ok();
    let environments = server.client.get(path).ok();
    assert_eq!(keys(&environments, "environments"), ["development", "preview", "production", "staging", "testing"]);
    assert_eq!(server.client.get("/api/v1/projects/shop").ok()["environments"].as_array().unwrap().len(), 5);
    assert_eq!(server.client.get("/api/v1/projects/nowhere").problem()["status"], 404);
    let segment =
        json!({"kind": "createSegment", "segment": {"key": "beta", "included": ["u3", "u1"], "excluded": ["u2"]}});
    let change = json!({"environment": "preview", "instructions": [segment]});
    server.client.post("/api/v1/projects/shop/changes", &change).ok();
    let segments = server.client.get(&format!("{path}/preview/segments")).ok();
    assert_eq!(
        (keys(&segments, "segments"), &segments["segments"][0]["includedCount"]),
        (vec!["beta".to_owned()], &json!(2))
    );
    let page = server.client.get(&format!("{path}/preview/segments/beta?limit=1")).ok();
    assert_eq!((&page["included"], &page["excluded"], &page["next"]), (&json!(["u1"]), &json!([]), &json!("u1")));
    let rest = server.client.get(&format!("{path}/preview/segments/beta?limit=1&after=u1")).ok();
    assert_eq!((&rest["included"], &rest["excluded"], &rest["next"]), (&json!(["u3"]), &json!(["u2"]), &Value::Null));
}
