//! Rollbacks and their rehearsal, from the command line to connected SDKs.

use std::process::{Command, Output};
use std::time::Duration;

use guidon_sdk::Client;
use serde_json::{Value, json};

use crate::support::people::{Person, admin, person};
use crate::support::{Answer, ServerProcess, TestClient, binary};

const PROJECT: &str = "/api/v1/projects/default";

/// A server with people, and the flag `engine`, half AI in staging.
struct Shop {
    server: ServerProcess,
    admin: TestClient,
    developer: Person,
    approver: Person,
    manager: Person,
    /// Sessions of the developer and the manager at the command line.
    dora: String,
    rene: String,
}

impl Shop {
    #[track_caller]
    fn open() -> Self {
        let server = ServerProcess::start();
        let admin = admin(&server);
        let developer = person(&admin, "dora", &["developer"]);
        let approver = person(&admin, "anna", &["approver"]);
        let manager = person(&admin, "rene", &["releaseManager"]);
        let (dora, rene) = (developer.command_line_session(), manager.command_line_session());
        let shop = Self { server, admin, developer, approver, manager, dora, rene };
        let variations = json!([{"key": "ai", "value": "ai", "provenance": {"by": "ai"}},
                                {"key": "baseline", "value": "old", "provenance": {"by": "human"}}]);
        let flag = json!({"key": "engine", "kind": "string", "variations": variations});
        shop.developer.client.change("development", json!([{"kind": "createFlag", "flag": flag}])).ok();
        shop.manager.client.change("staging", json!([{"kind": "turnFlagOn", "flag": "engine"}])).ok();
        shop.manager.client.change("staging", rollout(10_000)).ok();
        shop.manager.client.change("staging", rollout(50_000)).ok();
        shop
    }

    /// `guidon` with this credential.
    fn guidon(&self, credential: &str, arguments: &[&str]) -> Output {
        let mut command = Command::new(binary());
        command.args(arguments).env("GUIDON_SERVER", &self.server.client.url);
        command.env("GUIDON_TOKEN", credential).env("GUIDON_PROFILES", "/nowhere");
        command.output().expect("the command")
    }

    /// Proposes a rollout in production and carries it through.
    #[track_caller]
    fn release(&self, ai: u32) {
        let opened = self.developer.client.change("production", rollout(ai));
        assert_eq!(opened.status, 202, "{}", opened.text);
        let request = opened.json()["request"].clone();
        let step = |client: &TestClient, step: &str, body: &Value| {
            client.post(&format!("{PROJECT}/requests/{}/{step}", request["id"].as_str().expect("an id")), body)
        };
        step(&self.approver.client, "approve", &json!({"hash": request["content"]["hash"]})).ok();
        step(&self.manager.client, "apply", &json!({})).ok();
    }

    fn ai_in(&self, environment: &str) -> Value {
        let flag = self.developer.client.get(&format!("{PROJECT}/flags/engine")).ok();
        flag["environments"][environment]["fallthrough"]["rollout"]["weights"]["ai"].clone()
    }

    fn drill(&self, person: &TestClient, environment: &str) -> Answer {
        person.post(&path(environment, "/drills"), &json!({"probeTimeoutMs": 500}))
    }

    /// Makes a drill in staging and has it recorded.
    #[track_caller]
    fn rehearse(&self) -> Value {
        let made = self.drill(&self.developer.client, "staging").ok();
        let id = made["drill"]["id"].as_str().expect("an id");
        self.developer.client.post(&path("staging", &format!("/drills/{id}/record")), &json!({})).ok()
    }
}

fn path(environment: &str, rest: &str) -> String {
    format!("{PROJECT}/environments/{environment}/flags/engine{rest}")
}

fn rollout(ai: u32) -> Value {
    json!([{"kind": "setRollout", "flag": "engine", "weights": {"ai": ai, "baseline": 100_000 - ai}}])
}

/// The policy of this id among the examples of the documentation.
fn example(id: &str) -> &'static str {
    let mut blocks = include_str!("../../docs/POLICY.md").split("```");
    blocks
        .find(|block| block.contains(&format!("@id(\"{id}\")")))
        .and_then(|block| block.strip_prefix("cedar"))
        .expect("it is there")
}

fn said(output: &Output) -> (String, String) {
    (String::from_utf8_lossy(&output.stdout).into_owned(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Says that `count` people were served `engine`, each in a slot of their own.
fn serve_people(sdk: &TestClient, revision: u64, count: u32) {
    let item = |number: u32| {
        json!({"flag": "engine", "unit": format!("person-{number}"), "assigned": "ai", "delivered": "ai", "reason": "SPLIT",
               "slot": number * (100_000 / count), "revision": revision, "at": 1})
    };
    let batch = json!({"instance": "batch", "epoch": 1, "batch": 1, "items": (0..count).map(item).collect::<Vec<_>>()});
    sdk.post("/sdk/v1/exposures", &batch).ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drill_proves_counts_and_probes_with_sdks_connected() {
    let shop = Shop::open();
    let credential = shop.admin.create_sdk_key("staging");
    let mut clients = Vec::new();
    for instance in ["one", "two", "three"] {
        let client = Client::builder(&shop.server.client.url, credential.as_str()).instance(instance).connect();
        clients.push(client.await.expect("a client"));
    }
    let revision = shop.server.client.get("/api/v1/status").ok()["revision"].as_u64().expect("a revision");
    serve_people(&shop.server.client.with_token(Some(&credential)), revision, 100);
    let arguments =
        ["rollback", "drill", "engine", "--environment", "staging", "--check", "echo migrated; echo down >&2"];
    let drilled = shop.guidon(&shop.dora, &[&["--json"], &arguments[..]].concat());
    let (out, err) = said(&drilled);
    assert_eq!(drilled.status.code(), Some(0), "{out}{err}");
    let recorded: Value = serde_json::from_str(&out).expect("JSON");
    let (drill, report) = (&recorded["drill"], &recorded["drill"]["report"]);
    assert_eq!((&drill["freshness"], &report["passed"]), (&json!("fresh"), &json!(true)), "{report}");
    assert_eq!((&report["proof"]["restores"], &report["proof"]["way"]), (&json!(true), &json!("request")));
    assert_eq!((&report["probe"]["connected"], &report["probe"]["answered"]), (&json!(3), &json!(3)));
    assert!(report["probe"]["maxUs"].as_u64() >= report["probe"]["p50Us"].as_u64());
    assert_eq!((&report["moved"]["atMost"], &report["moved"]["sampled"]["people"]), (&json!(40_000), &json!(100)));
    // Every hundredth slot from 0 on: 40 of the 50 that AI has go back.
    let step = json!([{"from": "ai", "to": "baseline", "count": 40, "share": 40_000}]);
    assert_eq!((&report["moved"]["stored"]["people"], &report["moved"]["stored"]["moves"]), (&json!(100), &step));
    assert_eq!((&report["check"]["exitCode"], &report["check"]["output"]), (&json!(0), &json!("migrated\ndown\n")));
    assert!(!out.contains("person-"), "nobody is named");
    assert_eq!(shop.ai_in("staging"), 50_000, "nothing has changed");
    let listed = shop.developer.client.get(&format!("{PROJECT}/drills?environment=staging&fresh=true")).ok();
    assert_eq!(listed["drills"][0]["report"]["id"], report["id"]);

    // For people; an instance that is gone is not waited for.
    drop(clients.pop());
    tokio::time::sleep(Duration::from_millis(300)).await;
    let (out, err) = said(&shop.guidon(&shop.rene, &arguments));
    for line in
        ["it validates and restores revision", "you could make it at once", "2 of 2 connected SDKs answered", "passed"]
    {
        assert!(out.contains(line), "{line} is not in {out}{err}");
    }
    assert!(err.contains("migrated"), "the check's output is shown: {err}");
    let (table, _) = said(&shop.guidon(&shop.dora, &["rollback", "drills"]));
    assert!(table.contains("staging") && table.contains("until"), "{table}");
    // Another rule, and the drill says nothing of the flag any more.
    let rule =
        json!({"serve": {"variation": "ai"}, "clauses": [{"attribute": "country", "op": "in", "values": ["DE"]}]});
    shop.manager.client.change("staging", json!([{"kind": "addRule", "flag": "engine", "rule": rule}])).ok();
    let listed = shop.developer.client.get(&format!("{PROJECT}/drills")).ok();
    assert_eq!(listed["drills"][0]["freshness"], "outdated");
}

#[test]
fn a_drill_that_fails_has_an_exit_code_of_its_own_and_is_recorded() {
    let shop = Shop::open();
    let drill = |check: &[&str]| {
        let arguments = [&["rollback", "drill", "engine", "-e", "staging", "--probe-timeout", "1"], check].concat();
        let output = shop.guidon(&shop.dora, &arguments);
        let (out, err) = said(&output);
        (output.status.code(), format!("{out}{err}"))
    };
    let (code, text) = drill(&["--check", "echo cannot; exit 3"]);
    assert_eq!(code, Some(10), "{text}");
    assert!(text.contains("no SDK is connected") && text.contains("exit code 3"), "{text}");
    let (code, text) = drill(&["--check", "sleep 30", "--check-timeout", "1"]);
    assert!(code == Some(10) && text.contains("time was over"), "{text}");
    let (code, text) = drill(&["--check", "no-such-command-at-all"]);
    assert!(code == Some(10) && text.contains("was not found"), "{text}");
    let listed = shop.developer.client.get(&format!("{PROJECT}/drills")).ok();
    assert_eq!(
        (&listed["drills"][0]["freshness"], listed["drills"].as_array().map(Vec::len)),
        (&json!("failed"), Some(1))
    );
    let (code, _) = drill(&[]);
    assert_eq!(code, Some(0));

    let run = |arguments: &[&str]| shop.guidon(&shop.dora, arguments).status.code();
    assert_eq!(run(&["rollback", "drill", "nothing", "-e", "staging"]), Some(5));
    assert_eq!(run(&["rollback", "drill", "engine", "-e", "nowhere"]), Some(4), "one that is not there is production");
    // The flag is off here.
    let off = shop.drill(&shop.developer.client, "development").problem();
    assert_eq!((&off["status"], &off["errors"][0]["code"]), (&json!(422), &json!("flagOff")), "{off}");
    let forged = json!([{"kind": "recordDrill", "flag": "engine", "report": {}}]);
    assert_eq!(shop.developer.client.change("staging", forged).status, 400);
    let unknown = shop.developer.client.post(&path("staging", "/drills/drill-0/record"), &json!({}));
    assert_eq!(unknown.status, 404);
    // Production is for release managers.
    assert_eq!(shop.drill(&shop.developer.client, "production").status, 403);
}

#[test]
fn a_passed_drill_lowers_the_risk_and_a_policy_may_demand_one() {
    let shop = Shop::open();
    shop.developer.client.change("production", json!([{"kind": "turnFlagOn", "flag": "engine"}])).ok();
    let risk = || {
        let change = json!({"environment": "production", "instructions": rollout(1_000), "dryRun": true});
        shop.developer.client.post(&format!("{PROJECT}/changes"), &change).ok()["needs"]["risk"].clone()
    };
    let before = risk();
    assert!(before.to_string().contains("not rehearsed"), "{before}");
    let policy = example("no-rollout-without-a-drill");
    let put = json!({"text": policy});
    shop.admin
        .send(
            "PUT",
            "/api/v1/policies/drills.cedar",
            &[("content-type", "application/json")],
            put.to_string().as_bytes(),
        )
        .ok();
    let refused = shop.developer.client.change("production", rollout(1_000));
    assert_eq!(refused.status, 403, "{}", refused.text);
    assert!(refused.text.contains("drills.cedar#no-rollout-without-a-drill"), "{}", refused.text);

    shop.rehearse();
    let after = risk();
    assert!(!after.to_string().contains("not rehearsed"), "{after}");
    assert_eq!(before["score"].as_u64().map(|score| score - 10), after["score"].as_u64());
    shop.release(1_000);
    assert_eq!(shop.ai_in("production"), 1_000);
}

#[test]
fn a_rollback_in_production_is_an_emergency_of_release_managers_and_a_request_of_others() {
    let shop = Shop::open();
    shop.developer.client.change("production", json!([{"kind": "turnFlagOn", "flag": "engine"}])).ok();
    shop.release(1_000);
    shop.release(5_000);
    let proposed = shop.developer.client.post(&path("production", "/rollback"), &json!({"dryRun": true})).ok();
    assert!(proposed["needs"]["risk"].is_object() && proposed["toRevision"].is_u64(), "{proposed}");
    let output = shop.guidon(&shop.rene, &["rollback", "engine", "-e", "production", "-m", "errors"]);
    let (out, err) = said(&output);
    assert_eq!(output.status.code(), Some(0), "{out}{err}");
    assert!(out.contains("put engine back to revision"), "{out}");
    assert_eq!(shop.ai_in("production"), 1_000);
    let reviews = shop.manager.client.get(&format!("{PROJECT}/reviews?pending=true")).ok();
    assert_eq!(reviews["reviews"].as_array().map(Vec::len), Some(1), "{reviews}");
    // Sent again with its key it is answered again, and not made again.
    let send = || {
        let headers = [("content-type", "application/json"), ("idempotency-key", "k1")];
        shop.manager.client.send("POST", &path("production", "/rollback"), &headers, b"{}")
    };
    let (first, second) = (send(), send());
    assert_eq!(second.header("idempotency-replayed"), Some("true"), "{}", second.text);
    assert_eq!(
        (first.ok()["toRevision"].clone(), shop.ai_in("production")),
        (second.ok()["toRevision"].clone(), json!(null))
    );
}
