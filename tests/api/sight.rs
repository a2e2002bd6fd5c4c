//! What answers leave out, because their reader may not see it.

use serde_json::{Value, json};

use crate::support::people::{admin, person};
use crate::support::{ServerProcess, TestClient};

const PROJECT: &str = "/api/v1/projects/default";

/// A server with people's keys in development, staging and production, and its administrator.
fn furnished() -> (ServerProcess, TestClient) {
    let server = ServerProcess::start();
    let admin = admin(&server);
    server.client.create_flag("engine");
    let by_key = |key: &str| {
        let clause = json!({"attribute": "targetingKey", "op": "in", "values": [key]});
        json!([
            {"kind": "addTargets", "flag": "engine", "variation": "on", "keys": ["person-1", "person-2"]},
            {"kind": "addRule", "flag": "engine", "rule": {"id": "r", "serve": {"variation": "on"}, "clauses": [clause]}},
            {"kind": "createSegment", "segment": {"key": "beta", "included": ["person-4"], "excluded": ["person-5"],
                "rules": [{"id": "s", "clauses": [clause]}]}},
        ])
    };
    server.client.change("development", by_key("person-3")).ok();
    admin.change("staging", by_key("person-3")).ok();
    (server, admin)
}

/// A client with a new token of the principal.
#[track_caller]
fn token(admin: &TestClient, principal: &Value, scope: Value) -> TestClient {
    let made = admin.post("/api/v1/tokens", &json!({"principal": principal, "name": "t", "scope": scope})).ok();
    admin.with_token(Some(made["token"].as_str().expect("a credential")))
}

#[track_caller]
fn agent(admin: &TestClient, scope: Value) -> TestClient {
    let agent = admin.post("/api/v1/agents", &json!({"name": "Helper", "tool": "editor", "owner": "admin"})).ok();
    token(admin, &agent["id"], scope)
}

#[track_caller]
fn service(admin: &TestClient, scope: Value) -> TestClient {
    let account = admin.post("/api/v1/service-accounts", &json!({"name": "CI"})).ok();
    token(admin, &account["id"], scope)
}

fn environments(flag: &Value) -> Vec<&str> {
    flag["environments"].as_object().expect("environments").keys().map(String::as_str).collect()
}

fn keys<'a>(page: &'a Value, name: &str) -> Vec<&'a str> {
    page[name].as_array().expect("a list").iter().filter_map(|item| item["key"].as_str()).collect()
}

#[test]
fn flags_show_the_environments_in_sight() {
    let (server, admin) = furnished();
    let agent = agent(&admin, json!({"actions": ["read"]}));
    for path in ["flags/engine", "flags"] {
        let of = |client: &TestClient| {
            let shown = client.get(&format!("{PROJECT}/{path}")).ok();
            if path == "flags" { shown["flags"][0].clone() } else { shown }
        };
        let all = of(&server.client);
        assert_eq!(environments(&all), ["development", "production", "staging", "testing"]);
        let seen = of(&agent);
        assert_eq!(environments(&seen), ["development", "staging", "testing"]);
        assert_eq!((&seen["variations"], &seen["revision"]), (&all["variations"], &all["revision"]));
        assert_eq!(seen["environments"]["development"], all["environments"]["development"]);
        let one = of(&service(&admin, json!({"project": "default", "environments": ["testing"], "actions": ["read"]})));
        assert_eq!(environments(&one), ["testing"]);
    }
}

#[test]
fn a_query_cannot_name_what_is_out_of_sight() {
    let (server, admin) = furnished();
    let agent = agent(&admin, json!({"actions": ["read"]}));
    let list =
        |client: &TestClient, environment: &str| client.get(&format!("{PROJECT}/flags?environment={environment}"));
    assert_eq!(environments(&list(&agent, "staging").ok()["flags"][0]), ["staging"]);
    let by_guard = agent.get(&format!("{PROJECT}/environments/production/segments")).problem();
    assert_eq!((&by_guard["status"], &by_guard["code"]), (&json!(403), &json!("forbidden")));
    assert_eq!(list(&agent, "production").problem(), by_guard);
    // What does not exist is refused to those who may not see everything, so that asking tells nothing.
    assert_eq!(list(&agent, "nowhere").problem()["status"], 403);
    assert_eq!(list(&server.client, "nowhere").problem()["status"], 404);
}

#[test]
fn environments_and_projects_are_listed_as_far_as_they_are_in_sight() {
    let (server, admin) = furnished();
    server.client.post("/api/v1/projects", &json!({"key": "shop"})).ok();
    let agent = agent(&admin, json!({"actions": ["read"]}));
    let in_sight = ["development", "staging", "testing"];
    assert_eq!(keys(&agent.get(&format!("{PROJECT}/environments")).ok(), "environments"), in_sight);
    let page = agent.get(&format!("{PROJECT}/environments?limit=1&after=development")).ok();
    assert_eq!((keys(&page, "environments"), &page["next"]), (vec!["staging"], &json!("staging")));
    let project = agent.get(PROJECT).ok();
    assert_eq!((keys(&project, "environments"), &project["segments"]), (in_sight.to_vec(), &json!(2)));

    let testing = json!({"project": "default", "environments": ["testing"], "actions": ["read"]});
    let narrow = service(&admin, testing);
    assert_eq!(narrow.get(PROJECT).ok()["segments"], 0);
    assert_eq!(keys(&narrow.get("/api/v1/projects").ok(), "projects"), ["default"]);
    assert_eq!(narrow.get("/api/v1/projects/shop").problem()["status"], 403);
    assert_eq!(narrow.get("/api/v1/status").ok()["projects"], 1);
    assert_eq!(keys(&server.client.get("/api/v1/projects").ok(), "projects"), ["default", "shop"]);
    assert_eq!(server.client.get("/api/v1/status").ok()["projects"], 2);
}

#[test]
fn from_staging_on_an_agent_sees_how_many_keys_there_are_and_none_of_them() {
    let (server, admin) = furnished();
    let agent = agent(&admin, json!({"actions": ["read"]}));
    let segments = |environment: &str| format!("{PROJECT}/environments/{environment}/segments");
    let flag = agent.get(&format!("{PROJECT}/flags/engine")).ok();
    let staging = &flag["environments"]["staging"];
    assert_eq!(staging["targets"], json!([{"variation": "on", "keyCount": 2}]));
    let blind = json!([{"attribute": "targetingKey", "op": "in", "valueCount": 1}]);
    assert_eq!(staging["rules"][0]["clauses"], blind);
    let shown = agent.get(&format!("{}/beta", segments("staging"))).ok();
    assert_eq!((&shown["includedCount"], &shown["excludedCount"]), (&json!(1), &json!(1)));
    assert_eq!(shown["rules"][0]["clauses"], blind);
    for path in [
        format!("{PROJECT}/flags?environment=staging"),
        segments("staging"),
        format!("{}/beta?list=included", segments("staging")),
    ] {
        let answer = agent.get(&path);
        assert!(answer.status == 200 && !answer.text.contains("person-"), "{path}: {}", answer.text);
    }
    // Below staging it sees them, and people see them everywhere.
    assert_eq!(flag["environments"]["development"]["targets"][0]["keys"], json!(["person-1", "person-2"]));
    assert_eq!(agent.get(&format!("{}/beta", segments("development"))).ok()["included"], json!(["person-4"]));
    let of_operator = server.client.get(&format!("{}/beta", segments("staging"))).ok();
    assert_eq!((&of_operator["included"], &of_operator["excluded"]), (&json!(["person-4"]), &json!(["person-5"])));
}

#[test]
fn routes_of_one_environment_are_closed_where_it_is_out_of_sight() {
    let (server, admin) = furnished();
    let agent = agent(&admin, json!({"actions": ["read"]}));
    let narrow =
        service(&admin, json!({"project": "default", "environments": ["testing"], "actions": ["readConfiguration"]}));
    let get = |client: &TestClient, environment: &str, rest: &str| {
        client.get(&format!("{PROJECT}/environments/{environment}/{rest}")).status
    };
    for rest in ["sdk-keys", "segments", "connections", "assignments"] {
        assert_eq!(get(&agent, "development", rest), 200, "{rest}");
        assert_eq!(get(&agent, "production", rest), 403, "{rest}");
        assert_eq!(get(&server.client, "production", rest), 200, "{rest}");
        assert_eq!(get(&narrow, "development", rest), 403, "{rest}");
    }
    assert_eq!((get(&narrow, "testing", "sdk-keys"), get(&narrow, "testing", "connections")), (200, 403));
    // An explanation repeats the keys it compares: an agent has none from staging on.
    let explain = |client: &TestClient, environment: &str| {
        let question = json!({"flag": "engine", "context": {"targetingKey": "person-1"}});
        client.post(&format!("{PROJECT}/environments/{environment}/explain"), &question).status
    };
    assert_eq!(
        (explain(&agent, "testing"), explain(&agent, "staging"), explain(&agent, "production")),
        (200, 403, 403)
    );
    assert_eq!((explain(&server.client, "staging"), explain(&server.client, "production")), (200, 200));
}

#[test]
fn a_conflict_tells_of_an_entry_what_its_reader_may_read() {
    let (server, admin) = furnished();
    let revision = server.client.create_flag("other");
    server.client.change("testing", json!([{"kind": "turnFlagOn", "flag": "engine"}])).ok();
    let off = json!({"environment": "testing", "expectedRevision": revision,
        "instructions": [{"kind": "turnFlagOff", "flag": "engine"}]});
    let conflict = |client: &TestClient| client.post(&format!("{PROJECT}/changes"), &off).problem();
    let whole = conflict(&server.client);
    assert_eq!((&whole["code"], &whole["entries"][0]["environment"]), (&json!("staleRevision"), &json!("testing")));
    let blind = service(&admin, json!({"project": "default", "environments": ["testing"], "actions": ["edit"]}));
    let named = whole["entries"][0]["revision"].clone();
    assert_eq!(conflict(&blind)["entries"], json!([{"revision": named}]));

    // What is in the way of a change request is told in the same way.
    let ask =
        json!({"environment": "staging", "instructions": [{"kind": "turnFlagOn", "flag": "engine"}], "draft": true});
    let developer = person(&admin, "Dan", &["developer"]);
    let asked = developer.client.post(&format!("{PROJECT}/requests"), &ask);
    let id = asked.json()["request"]["id"].as_str().expect("a request").to_owned();
    let made = admin.change("staging", json!([{"kind": "turnFlagOn", "flag": "engine"}])).ok()["revision"].clone();
    let applies = |client: &TestClient| client.get(&format!("{PROJECT}/requests/{id}")).ok()["applies"].clone();
    let shown = applies(&admin);
    assert!(shown["conflicts"][0]["actorId"].is_string(), "{shown}");
    let reader = json!({"project": "default", "environments": ["staging"], "actions": ["readRequests"]});
    let shown = applies(&service(&admin, reader));
    assert!(shown["conflicts"] == json!([{"revision": made}]), "{shown}");
}

#[test]
fn what_is_there_to_revert_or_revoke_is_told_to_nobody_else() {
    let (server, admin) = furnished();
    let narrow = service(&admin, json!({"project": "default", "environments": ["testing"], "actions": ["edit"]}));
    let keys = format!("{PROJECT}/environments/development/sdk-keys");
    let id = server.client.post(&keys, &json!({"name": "there"})).ok()["id"].as_str().expect("an id").to_owned();
    let revoke = |id: &str| {
        let refused = narrow.send("DELETE", &format!("{keys}/{id}"), &[], b"").problem();
        (refused["status"].clone(), refused["action"].clone(), refused["detail"].clone(), refused["policies"].clone())
    };
    assert_eq!(revoke(&id).0, 403);
    assert_eq!(revoke(&id), revoke("no-such-key"));
    let revert = |environment: &str| {
        let path = format!("{PROJECT}/environments/{environment}/revert");
        narrow.post(&path, &json!({"toRevision": 999_999})).status
    };
    assert_eq!((revert("development"), revert("nowhere"), revert("testing")), (403, 403, 400));
}

#[test]
fn an_entry_in_several_environments_is_shown_to_those_who_see_all_of_them() {
    let (server, admin) = furnished();
    let agent = agent(&admin, json!({"actions": ["read"]}));
    let journal = |client: &TestClient, query: &str| {
        let page = client.get(&format!("{PROJECT}/journal?limit=1000{query}")).ok();
        let entries = page["entries"].as_array().expect("entries").clone();
        entries.iter().map(|entry| entry["revision"].clone()).collect::<Vec<_>>()
    };
    // What is so already in production changes nothing there, and is told nevertheless.
    let manager = person(&admin, "Rea", &["releaseManager"]).client;
    admin.change("staging", json!([{"kind": "turnFlagOn", "flag": "engine"}])).ok();
    let both = json!([{"kind": "turnFlagOff", "flag": "engine"},
        {"kind": "turnFlagOff", "flag": "engine", "environment": "production"}]);
    let made = manager.change("staging", both).ok();
    assert_eq!(made["changed"], json!(["environment/staging/flag/engine"]));
    let revision = &made["revision"];
    assert!(journal(&admin, "").contains(revision) && journal(&admin, "&environment=production").contains(revision));
    assert!(!journal(&agent, "").contains(revision));
    let record = admin.get(&format!("/api/v1/audit/records/j:{revision}")).ok();
    assert_eq!(record["environments"], json!(["production", "staging"]));
    drop(server);
}
