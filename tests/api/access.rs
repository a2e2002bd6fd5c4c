//! Service accounts, AI agents, their tokens, and the policies they meet, on a real server.

mod exchange;

use std::process::{Command, Output};
use std::time::{Duration, Instant};

use guidon_sdk::{Client, Context, State};
use serde_json::{Value, json};

use crate::support::people::{admin, first_administrator, person};
use crate::support::{ServerProcess, TestClient, binary};

const PROJECT: &str = "/api/v1/projects/default";
const SDK_KEYS: &str = "/api/v1/projects/default/environments/development/sdk-keys";

/// A service account with a token of this scope: the client that presents it, and the token as it was answered.
fn service(admin: &TestClient, scope: &Value) -> (TestClient, Value) {
    let account = admin.post("/api/v1/service-accounts", &json!({"name": "pipeline"})).ok();
    let made = admin.post("/api/v1/tokens", &json!({"principal": account["id"], "scope": scope})).ok();
    (admin.with_token(made["token"].as_str()), made)
}

/// An AI agent with a token that may do whatever agents may.
fn agent(admin: &TestClient) -> (TestClient, Value) {
    let body = json!({"name": "claude", "tool": "claude-code", "model": "opus", "owner": "admin"});
    let agent = admin.post("/api/v1/agents", &body).ok();
    assert_eq!((&agent["ownerName"], &agent["state"]), (&json!("admin"), &json!("active")));
    let made = admin.post("/api/v1/tokens", &json!({"principal": "claude"})).ok();
    assert!(made["token"].as_str().unwrap().starts_with("gdn_agent_"), "{}", made["id"]);
    (admin.with_token(made["token"].as_str()), agent)
}

fn switch(client: &TestClient, environment: &str, kind: &str, flag: &str) -> u16 {
    client.change(environment, json!([{"kind": kind, "flag": flag}])).status
}

fn now_ms() -> u64 {
    u64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap()
}

/// Waits until `done`, for ten seconds at most.
#[track_caller]
fn eventually(what: &str, done: impl Fn() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < Duration::from_secs(10), "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn guidon(server: &ServerProcess, token: Option<&str>, arguments: &[&str]) -> Output {
    let mut command = Command::new(binary());
    command.args(arguments).env("GUIDON_SERVER", &server.client.url).env_remove("GUIDON_TOKEN");
    token.map(|token| command.env("GUIDON_TOKEN", token));
    command.output().expect("the command")
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn an_agent_is_free_in_development_and_gets_nothing_in_production() {
    let server = ServerProcess::start();
    let admin = admin(&server);
    for flag in ["engine", "old"] {
        server.client.create_flag(flag);
    }
    let (agent, known) = agent(&admin);
    let segments = |environment: &str| agent.get(&format!("{PROJECT}/environments/{environment}/segments")).status;

    assert_eq!(segments("development"), 200);
    assert_eq!(switch(&agent, "development", "turnFlagOn", "engine"), 200);
    assert_eq!(switch(&agent, "development", "archiveFlag", "old"), 200);

    assert_eq!(segments("testing"), 200);
    assert_eq!(switch(&agent, "testing", "turnFlagOn", "engine"), 200);
    let deleted = agent.change("testing", json!([{"kind": "archiveFlag", "flag": "engine"}])).problem();
    assert_eq!(deleted["policies"], json!(["agents-no-delete-or-export-in-testing"]), "it serves in testing");

    assert_eq!(segments("staging"), 200);
    assert_eq!(switch(&agent, "staging", "turnFlagOn", "engine"), 202, "it may propose");
    let flag = agent.get(&format!("{PROJECT}/flags/engine")).ok();
    assert_eq!(flag["environments"]["staging"]["on"], false);

    assert_eq!(segments("production"), 403);
    for read in ["connections", "assignments", "sdk-keys"] {
        assert_eq!(agent.get(&format!("{PROJECT}/environments/production/{read}")).status, 403, "{read}");
    }
    assert!(flag["environments"].get("production").is_none(), "{flag}");
    let refused = agent.change("production", json!([{"kind": "turnFlagOn", "flag": "engine"}])).problem();
    assert_eq!(refused["policies"], json!(["agents-nothing-in-production"]));
    let secret = agent.change("production", json!([{"kind": "turnFlagOn", "flag": "no-such-flag"}])).problem();
    assert_eq!(secret["detail"], refused["detail"], "a refusal tells nothing of what is there");

    for read in ["/api/v1/tokens", "/api/v1/agents", "/api/v1/roles", "/api/v1/policies", "/api/v1/audit"] {
        assert_eq!(agent.get(read).status, 403, "{read}");
    }
    assert_eq!(agent.post("/api/v1/tokens", &json!({"principal": known["id"]})).status, 403);
    let id = known["id"].as_str().unwrap();
    let query = format!("/api/v1/audit?person={id}&kind=refused&environment=production");
    eventually("the refusals are on record", || admin.get(&query).text.contains("agents-nothing-in-production"));

    admin.post(&format!("/api/v1/agents/{id}/disable"), &Value::Null).ok();
    assert_eq!(segments("development"), 401);
    admin.post(&format!("/api/v1/agents/{id}/enable"), &Value::Null).ok();
    assert_eq!(segments("development"), 200);
    admin
        .send(
            "PATCH",
            &format!("/api/v1/agents/{id}"),
            &[("content-type", "application/json")],
            b"{\"expiresInMinutes\":5}",
        )
        .ok();
    let renewed = admin.get("/api/v1/agents").ok();
    assert!(renewed["agents"][0]["expiresAt"].as_u64().unwrap() < now_ms() + 6 * 60_000, "{renewed}");
}

#[test]
fn a_token_does_what_it_was_made_for_and_no_more() {
    let server = ServerProcess::start();
    let admin = admin(&server);
    for flag in ["engine", "other"] {
        server.client.create_flag(flag);
    }
    let scope =
        json!({"project": "default", "environments": ["testing"], "actions": ["read", "turnFlagOn"], "flag": "engine"});
    let (service, made) = service(&admin, &scope);
    assert_eq!(switch(&service, "testing", "turnFlagOn", "engine"), 200);
    for (environment, kind, flag) in [
        ("testing", "turnFlagOn", "other"),
        ("testing", "turnFlagOff", "engine"),
        ("development", "turnFlagOn", "engine"),
        ("production", "turnFlagOn", "engine"),
    ] {
        assert_eq!(switch(&service, environment, kind, flag), 403, "{kind} {flag} in {environment}");
    }
    assert_eq!(service.get(&format!("{PROJECT}/environments/testing/segments")).status, 200);
    assert_eq!(service.get(&format!("{PROJECT}/environments/development/segments")).status, 403);
    assert_eq!(service.post("/api/v1/service-accounts", &json!({"name": "more"})).status, 403);

    let listed = admin.get("/api/v1/tokens?principal=pipeline").ok();
    let token = &listed["tokens"][0];
    assert_eq!((&token["id"], &token["state"], &token["scope"]), (&made["id"], &json!("live"), &made["scope"]));
    assert!(token["lastUsedAt"].is_u64() && token["lastUsedFrom"] == "127.0.0.1", "{token}");
    assert!(token.get("hash").is_none() && !listed.to_string().contains("gdn_svc_"), "{token}");

    let unscoped = admin.post("/api/v1/tokens", &json!({"principal": "pipeline"})).problem();
    assert_eq!(unscoped["errors"][0]["pointer"], "/scope/actions");
    let wrong =
        json!({"principal": "pipeline", "scope": {"project": "default", "environments": ["mars"], "actions": ["fly"]}});
    let faults = admin.post("/api/v1/tokens", &wrong).problem()["errors"].to_string();
    assert!(faults.contains("/scope/environments/0") && faults.contains("fly"), "{faults}");
}

#[test]
fn a_token_ends_at_its_time_by_rotation_or_at_once() {
    let server = ServerProcess::start();
    let admin = admin(&server);
    let scope = json!({"project": "default", "actions": ["read"]});
    let (first, made) = service(&admin, &scope);
    let works = |client: &TestClient| client.get("/api/v1/projects").status;
    assert_eq!(works(&first), 200);

    let brief = json!({"principal": "pipeline", "scope": scope, "expiresAt": now_ms() + 1_500});
    let brief = admin.post("/api/v1/tokens", &brief).ok();
    let brief_client = admin.with_token(brief["token"].as_str());
    assert_eq!(works(&brief_client), 200);
    eventually("its time is over", || works(&brief_client) == 401);
    let states = |id: &Value| {
        let listed = admin.get("/api/v1/tokens").ok();
        let token = listed["tokens"].as_array().unwrap().iter().find(|token| token["id"] == *id).cloned();
        token.unwrap()["state"].clone()
    };
    assert_eq!(states(&brief["id"]), "expired");

    let rotate =
        |id: &Value, body: Value| admin.post(&format!("/api/v1/tokens/{}/rotate", id.as_str().unwrap()), &body);
    let second = rotate(&made["id"], Value::Null).ok();
    let second_client = admin.with_token(second["token"].as_str());
    assert_eq!((works(&first), works(&second_client)), (200, 200), "the old one lives beside the new one");
    assert_eq!((states(&made["id"]), &second["scope"]), (json!("rotated"), &made["scope"]));
    assert_eq!(rotate(&made["id"], Value::Null).problem()["errors"][0]["code"], "rotated");

    let third = rotate(&second["id"], json!({"overlapMinutes": 0})).ok();
    let third_client = admin.with_token(third["token"].as_str());
    assert_eq!((works(&second_client), works(&third_client)), (401, 200));

    let id = third["id"].as_str().unwrap();
    admin.send("DELETE", &format!("/api/v1/tokens/{id}"), &[], b"").ok();
    assert_eq!((works(&third_client), states(&third["id"])), (401, json!("revoked")));

    let headers = [("content-type", "application/json"), ("idempotency-key", "once")];
    let body = json!({"principal": "pipeline", "scope": scope, "expiresInMinutes": 60}).to_string();
    let shown = admin.send("POST", "/api/v1/tokens", &headers, body.as_bytes()).ok();
    let again = admin.send("POST", "/api/v1/tokens", &headers, body.as_bytes());
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    assert_eq!(again.ok(), shown);
    let soon = admin.get("/api/v1/tokens?expiresSoon=true&state=live").ok();
    assert_eq!(soon["tokens"].as_array().unwrap().len(), 1, "{soon}");
    assert!(server.client.get("/metrics").text.contains("guidon_credentials_expiring 0"), "it was made for an hour");
}

#[test]
fn an_sdk_key_ends_at_its_deadline_and_its_streams_close() {
    let server = ServerProcess::start();
    server.client.create_flag("engine");
    let made = server.client.post(SDK_KEYS, &json!({"name": "shop"})).ok();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let connect = |key: &Value| {
        let builder = Client::builder(&server.client.url, key.as_str().unwrap()).application("shop");
        let builder = builder.reconnect_delay(Duration::from_millis(10), Duration::from_millis(100));
        runtime.block_on(builder.connect()).unwrap()
    };
    let old = connect(&made["key"]);
    eventually("it connects", || old.state() == State::Ready);

    let rotate = |id: &Value, minutes: u64| {
        let path = format!("{SDK_KEYS}/{}/rotate", id.as_str().unwrap());
        server.client.post(&path, &json!({ "overlapMinutes": minutes }))
    };
    let next = rotate(&made["id"], 60).ok();
    let new = connect(&next["key"]);
    eventually("both follow", || new.state() == State::Ready && old.state() == State::Ready);
    let listed = server.client.get(SDK_KEYS).ok();
    let key = |id: &Value| listed["sdkKeys"].as_array().unwrap().iter().find(|key| key["id"] == *id).unwrap().clone();
    assert_eq!((&key(&made["id"])["state"], &key(&made["id"])["replacedBy"]), (&json!("rotated"), &next["id"]));
    assert!(key(&next["id"])["lastUsedAt"].is_u64() && key(&next["id"])["lastUsedFrom"] == "127.0.0.1");

    let last = rotate(&next["id"], 0).ok();
    let poll = |key: &Value| {
        let bearer = format!("Bearer {}", key.as_str().unwrap());
        server.client.with_token(None).send("GET", "/sdk/v1/snapshot", &[("authorization", &bearer)], b"").status
    };
    assert_eq!((poll(&next["key"]), poll(&last["key"])), (401, 200), "refused by time alone");
    eventually("the server ends its streams", || matches!(new.state(), State::Stale | State::Closed));
    assert_eq!(old.state(), State::Ready);
    let bound = format!("{SDK_KEYS}/{}", made["id"].as_str().unwrap());
    server.client.send("DELETE", &bound, &[], b"").ok();
    eventually("a revoked key's streams close at once", || matches!(old.state(), State::Stale | State::Closed));
    assert!(!old.bool("engine", &Context::new("u"), false));
    let ended = server.client.get(SDK_KEYS).ok()["sdkKeys"].to_string();
    assert_eq!(ended.matches("\"revoked\"").count(), 2, "{ended}");
}

#[test]
fn a_policy_file_holds_at_once_and_cannot_override_the_tiers() {
    let server = ServerProcess::start();
    let admin = admin(&server);
    server.client.create_flag("engine");
    let (agent, known) = agent(&admin);
    let put = |name: &str, text: &str| {
        let body = json!({ "text": text }).to_string();
        admin.send("PUT", &format!("/api/v1/policies/{name}"), &[("content-type", "application/json")], body.as_bytes())
    };
    let before = admin.get("/api/v1/policies").ok();
    assert_eq!(switch(&agent, "development", "turnFlagOn", "engine"), 200);
    let forbid = "@id(\"hands-off\")\nforbid (principal is Agent, action == Action::\"turnFlagOff\", resource);";
    put("ours.cedar", forbid).ok();
    let refused = agent.change("development", json!([{"kind": "turnFlagOff", "flag": "engine"}])).problem();
    assert_eq!(refused["policies"], json!(["ours.cedar#hands-off"]));
    let after = admin.get("/api/v1/policies").ok();
    assert_ne!(before["set"], after["set"]);
    assert!(after["files"].to_string().contains("hands-off"));

    put("wide.cedar", "@id(\"all\")\npermit (principal is Agent, action, resource);").ok();
    let refused = agent.change("production", json!([{"kind": "turnFlagOn", "flag": "engine"}])).problem();
    assert_eq!(refused["policies"], json!(["agents-nothing-in-production"]));
    let question =
        json!({"principal": known["id"], "action": "turnFlagOn", "project": "default", "environment": "production"});
    let answer = admin.post("/api/v1/policies/explain", &question).ok();
    assert_eq!((&answer["allowed"], &answer["remedies"]), (&json!(false), &json!([])));
    let applied = answer["applied"].to_string();
    assert!(applied.contains("agents-nothing-in-production") && applied.contains("wide.cedar#all"), "{applied}");

    let broken = put("broken.cedar", "permit (principal, action == Action::\"fly\", resource);").problem();
    assert_eq!((&broken["status"], &broken["errors"][0]["pointer"]), (&json!(422), &json!("/text")));
    assert_eq!(put("tiers.cedar", forbid).problem()["errors"][0]["code"], "nameTaken");
    let checked = admin.post(
        "/api/v1/policies/check",
        &json!({"files": {"a": "permit (principal is Agent, action, resource in Tier::\"production\");"}}),
    );
    let checked = checked.ok();
    assert!(checked["passed"] == true && checked["warnings"].to_string().contains("never takes effect"), "{checked}");

    admin.send("DELETE", "/api/v1/policies/ours.cedar", &[], b"").ok();
    assert_eq!(switch(&agent, "development", "turnFlagOff", "engine"), 200);
    assert_eq!(server.client.with_token(None).get("/api/v1/policies").status, 401);
}

#[test]
fn roles_are_given_by_name_and_the_last_administrator_stays() {
    let server = ServerProcess::start();
    let admin = admin(&server);
    let ada = person(&admin, "Ada", &["viewer"]);
    let given =
        json!({"principal": "ada", "role": "developer", "project": "default", "tiers": ["testing", "development"]});
    let given = admin.post("/api/v1/roles", &given).ok();
    assert_eq!((&given["principal"], &given["principalName"]), (&json!(ada.id), &json!("Ada")));
    assert_eq!(given["tiers"], json!(["development", "testing"]));
    server.client.create_flag("engine");
    assert_eq!(switch(&ada.client, "testing", "turnFlagOn", "engine"), 200);
    let revoke = |id: &Value| admin.send("DELETE", &format!("/api/v1/roles/{}", id.as_str().unwrap()), &[], b"");
    revoke(&given["id"]).ok();
    assert_eq!(switch(&ada.client, "testing", "turnFlagOff", "engine"), 403, "roles end at once");
    assert_eq!(ada.client.get("/api/v1/roles").status, 403);

    let own = admin.get("/api/v1/roles?role=administrator").ok()["roles"][0].clone();
    let last = revoke(&own["id"]).problem();
    assert_eq!((&last["status"], &last["errors"][0]["code"]), (&json!(422), &json!("lastAdministrator")));
    let more = admin.post("/api/v1/roles", &json!({"principal": "Ada", "role": "administrator"})).ok();
    revoke(&own["id"]).ok();
    assert_eq!(revoke(&more["id"]).status, 403, "who revoked their own role administers nothing any more");
    assert_eq!(ada.client.get("/api/v1/roles?principal=Ada").ok()["roles"].as_array().unwrap().len(), 2);
    let nobody = ada.client.post("/api/v1/roles", &json!({"principal": "nobody", "role": "viewer"})).problem();
    assert_eq!((&nobody["status"], &nobody["errors"][0]["pointer"]), (&json!(404), &json!("/principal")));
}

#[test]
fn the_command_line_registers_explains_and_checks() {
    let server = ServerProcess::start();
    let admin = first_administrator(&server.client);
    let credential = admin.command_line_session();
    let run = |arguments: &[&str]| guidon(&server, Some(&credential), arguments);
    let registered = run(&["agent", "register", "claude", "--tool", "claude-code", "--owner", "admin"]);
    assert!(registered.status.success() && said(&registered).contains("admin answers for it"), "{}", said(&registered));
    let token = run(&["token", "create", "claude", "--expires-in", "2d", "--quiet"]);
    let token = said(&token).trim().to_owned();
    assert!(token.starts_with("gdn_agent_"), "{token}");
    let listed = said(&run(&["token", "list"]));
    assert!(listed.contains("! in 1 day") && listed.contains("read, edit, delete, request in default"), "{listed}");
    assert_eq!(guidon(&server, Some(&token), &["token", "list"]).status.code(), Some(4));

    let question =
        ["policy", "explain", "--principal", "claude", "--action", "turnFlagOn", "--environment", "production"];
    let explained = said(&run(&question));
    assert!(
        explained.starts_with("refused: agent ") && explained.contains("forbid  agents-nothing-in-production"),
        "{explained}"
    );
    let people = ["policy", "explain", "--kind", "human", "--role", "administrator", "--action", "createToken"];
    let explained = said(&run(&people));
    assert!(explained.contains("What would have it allowed: prove your second factor again."), "{explained}");

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ours.cedar");
    std::fs::write(&file, "@id(\"a\")\nforbid (principal, action == Action::\"fly\", resource);\n").unwrap();
    let path = file.to_str().unwrap();
    let checked = guidon(&server, None, &["policy", "check", path]);
    assert_eq!(checked.status.code(), Some(6));
    assert!(said(&checked).contains(&format!("{path}:2:")), "{}", said(&checked));
    std::fs::write(&file, "@id(\"a\")\nforbid (principal is Agent, action == Action::\"createFlag\", resource);\n")
        .unwrap();
    assert_eq!(guidon(&server, None, &["policy", "check", path]).status.code(), Some(0));
    let set = run(&["policy", "set", path]);
    assert!(set.status.success() && said(&run(&["policy", "list"])).contains("ours.cedar#a"), "{}", said(&set));
    assert!(said(&run(&["policy", "show", "ours.cedar"])).starts_with("@id(\"a\")"));
    assert!(run(&["policy", "remove", "ours.cedar"]).status.success());

    let granted = run(&["role", "grant", "approver", "--group", "sre", "--tier", "production"]);
    assert!(said(&granted).contains("group sre is approver everywhere, production"), "{}", said(&granted));
    let account = said(&run(&["service-account", "create", "pipeline"]));
    assert!(account.contains("Service account service-"), "{account}");
    assert!(said(&run(&["service-account", "disable", "pipeline"])).contains("Revision"), "by name");
}
