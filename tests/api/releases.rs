//! Releases and incidents: who may do what with them, tier by tier, from the command line to connected SDKs.

use std::process::{Command, Output};
use std::time::{Duration, Instant};

use guidon_sdk::Client;
use guidon_sdk::model::Context;
use serde_json::{Value, json};

use crate::support::people::{Person, admin, person};
use crate::support::{ServerProcess, TestClient, binary};

const PROJECT: &str = "/api/v1/projects/default";

/// A server with people, and the flag `engine`, on in development, staging and production.
struct Shop {
    server: ServerProcess,
    admin: TestClient,
    developer: Person,
    approver: Person,
    manager: Person,
}

impl Shop {
    #[track_caller]
    fn open() -> Self {
        let server = ServerProcess::start();
        let admin = admin(&server);
        let developer = person(&admin, "dora", &["developer"]);
        let approver = person(&admin, "anna", &["approver"]);
        let manager = person(&admin, "rene", &["releaseManager"]);
        let shop = Self { server, admin, developer, approver, manager };
        let variations = json!([{"key": "ai", "value": "ai", "provenance": {"by": "ai"}},
                                {"key": "baseline", "value": "old", "provenance": {"by": "human"}}]);
        let flag = json!({"key": "engine", "kind": "string", "variations": variations});
        shop.developer.client.change("development", json!([{"kind": "createFlag", "flag": flag}])).ok();
        let on = json!([{"kind": "setFallthrough", "flag": "engine", "serve": {"variation": "baseline"}},
                        {"kind": "turnFlagOn", "flag": "engine"}]);
        shop.developer.client.change("development", on.clone()).ok();
        shop.manager.client.change("staging", on.clone()).ok();
        // It leads to nothing that a person did not write, and applies by itself.
        shop.developer.client.change("production", on).ok();
        shop
    }

    /// Has a change request agreed with and applied, unless it needs nobody and was applied by itself.
    #[track_caller]
    fn carry_through(&self, request: &Value) {
        let id = request["id"].as_str().expect("an id");
        let path = format!("{PROJECT}/requests/{id}");
        if request["state"] == "review" {
            let hash = &request["content"]["hash"];
            for approver in [&self.approver.client, &self.admin] {
                approver.post(&format!("{path}/approve"), &json!({ "hash": hash }));
            }
        }
        self.manager.client.post(&format!("{path}/apply"), &json!({}));
        let standing = self.manager.client.get(&path).ok();
        assert_eq!(standing["state"], "applied", "{standing}");
    }

    fn release(&self, environment: &str) -> Value {
        self.developer.client.get(&path(environment, "/release")).ok()
    }

    /// What a flag serves to whom no rule matches.
    fn served(&self, environment: &str) -> Value {
        let flag = self.developer.client.get(&format!("{PROJECT}/flags/engine")).ok();
        flag["environments"][environment]["fallthrough"].clone()
    }

    fn guidon(&self, environment: &str, arguments: &[&str]) -> (Option<i32>, String, String) {
        let mut command = Command::new(binary());
        command.args(arguments).env("GUIDON_SERVER", &self.server.client.url).env("GUIDON_ENVIRONMENT", environment);
        let token = self.server.client.credential().expect("the operator's token");
        command.env("GUIDON_TOKEN", token).env("GUIDON_PROFILES", "/nowhere");
        said(&command.output().expect("the command"))
    }
}

fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn path(environment: &str, rest: &str) -> String {
    format!("{PROJECT}/environments/{environment}/flags/engine{rest}")
}

/// A start whose steps last until somebody moves it on.
fn start() -> Value {
    let step = |share: u32| json!({"share": share, "minimumSeconds": 3_600});
    json!([{"kind": "startRelease", "flag": "engine", "plan": {"steps": [step(1_000), step(5_000), step(100_000)]}}])
}

fn step(kind: &str) -> Value {
    json!([{"kind": kind, "flag": "engine"}])
}

#[test]
fn a_developer_proposes_a_release_in_production_and_a_release_manager_moves_it() {
    let shop = Shop::open();
    let proposed = shop.developer.client.change("production", start());
    assert_eq!(proposed.status, 202, "{}", proposed.text);
    let request = proposed.json()["request"].clone();
    assert!(request["content"]["summary"][0].as_str().is_some_and(|it| it.contains("1 % → 5 % → 100 %")), "{request}");
    assert_eq!(shop.developer.client.get(&path("production", "/release")).status, 404, "it is not started yet");
    shop.carry_through(&request);
    let release = shop.release("production");
    assert_eq!((&release["state"], &release["step"]), (&json!("running"), &json!(0)));
    assert_eq!((&release["plan"]["treatment"], &release["plan"]["control"]), (&json!("ai"), &json!("baseline")));
    assert_eq!(release["stable"], json!({"variation": "baseline"}));
    assert_eq!(shop.served("production")["rollout"]["weights"], json!({"ai": 1_000, "baseline": 99_000}));

    // A developer has a step proposed, an approver may not move it, a release manager with a factor proved just now may.
    let step_of_developer = shop.developer.client.change("production", step("advanceRelease"));
    assert_eq!(step_of_developer.status, 202, "{}", step_of_developer.text);
    assert_eq!(shop.approver.client.change("production", step("advanceRelease")).status, 403);
    let send = || {
        let headers = [("content-type", "application/json"), ("idempotency-key", "once")];
        let body = json!({"environment": "production", "instructions": step("advanceRelease")}).to_string();
        shop.manager.client.send("POST", &format!("{PROJECT}/changes"), &headers, body.as_bytes())
    };
    let (first, second) = (send(), send());
    assert_eq!(second.header("idempotency-replayed"), Some("true"));
    assert_eq!(first.ok()["revision"], second.ok()["revision"]);
    assert_eq!(shop.release("production")["step"], 1, "sent twice, moved once");
    let again = json!([{"kind": "advanceRelease", "flag": "engine", "to": 1}]);
    assert_eq!(shop.manager.client.change("production", again).ok()["changed"], json!([]), "it is there already");
    // Everybody who develops may stop it; going on is for those who may move it.
    shop.developer.client.change("production", step("pauseRelease")).ok();
    // A resumption moves nobody: it is a change request of low risk, which applies by itself.
    let resumed = shop.developer.client.change("production", step("resumeRelease"));
    assert_eq!(resumed.status, 200, "{}", resumed.text);
    assert_eq!(shop.release("production")["state"], "running");

    // An abort lowers: a release manager makes it at once.
    let abort = json!([{"kind": "abortRelease", "flag": "engine", "reason": "errors in the log"}]);
    shop.manager.client.change("production", abort).ok();
    assert_eq!(shop.served("production"), json!({"variation": "baseline"}));
    let report = shop.developer.client.get(&path("production", "/release/report")).ok();
    let kinds: Vec<&str> =
        report["events"].as_array().into_iter().flatten().filter_map(|it| it["kind"].as_str()).collect();
    assert_eq!(kinds, ["startRelease", "advanceRelease", "pauseRelease", "resumeRelease", "abortRelease"]);
    let started = &report["events"][0]["grounds"];
    assert_eq!(started["author"], json!(shop.developer.id));
    assert!(started["approvals"].as_array().is_some_and(|it| !it.is_empty()), "{started}");
    assert_eq!(report["names"][&shop.developer.id], "dora");
    let steps: Vec<u64> =
        report["steps"].as_array().into_iter().flatten().filter_map(|it| it["step"].as_u64()).collect();
    assert_eq!(steps, [0, 1, 1]);
    assert!(report["steps"][2]["endedAt"].is_u64());
}

#[test]
fn an_agent_proposes_in_no_tier_that_it_may_only_read_and_never_the_servers_own_edits() {
    let shop = Shop::open();
    let agent = json!({"name": "helper", "tool": "a tool", "model": "a model", "owner": shop.developer.id});
    let made = shop.admin.post("/api/v1/agents", &agent).ok();
    let token = json!({"principal": made["id"], "name": "t"});
    let token = shop.admin.post("/api/v1/tokens", &token).ok();
    let agent = shop.server.client.with_token(Some(token["token"].as_str().expect("a token")));
    agent.change("development", start()).ok();
    assert_eq!(agent.get(&path("development", "/release")).ok()["state"], "running");
    let report = agent.get(&path("development", "/release/report")).ok();
    assert!(report["names"].is_null(), "an agent does not learn who works here");
    assert_eq!(agent.get(&path("production", "/release")).status, 403);
    assert_eq!(agent.get(&format!("{PROJECT}/environments/production/incidents")).status, 403);
    for environment in ["staging", "production"] {
        let refused = agent.change(environment, start());
        assert!(refused.status == 403 || refused.status == 202, "{}", refused.text);
        assert_ne!(refused.status, 200);
    }
    // What only the server makes is refused whoever sends it.
    for kind in ["rollBackRelease", "completeRelease", "holdRelease", "liftHold", "routeInstance", "noteIncident"] {
        let refused = shop.admin.change("development", step(kind)).problem();
        assert_eq!(refused["errors"][0]["code"], "notHere", "{refused}");
        assert!(refused.to_string().contains("made by the server alone"), "{refused}");
    }
    // And what a plan says is read strictly, with the place of what is wrong.
    let misspelt =
        json!([{"kind": "startRelease", "flag": "engine", "plan": {"steps": [{"share": 1, "minimumSecond": 2}]}}]);
    let refused = shop.developer.client.change("development", misspelt).problem();
    assert_eq!(refused["errors"][0]["pointer"], "/instructions/0/plan/steps/0/minimumSecond", "{refused}");
    let wrong = json!([{"kind": "abortRelease", "flag": "engine"},
                       {"kind": "startRelease", "flag": "engine", "plan": {"steps": [{"share": 500_000}], "guard": {"alpha": 2.0}}}]);
    let refused = shop.developer.client.change("development", wrong).problem();
    let pointers: Vec<&str> =
        refused["errors"].as_array().into_iter().flatten().filter_map(|it| it["pointer"].as_str()).collect();
    assert_eq!(pointers, ["/instructions/1/plan/steps/0/share", "/instructions/1/plan/guard/alpha"]);
}

#[test]
fn the_command_line_starts_follows_and_tells_a_release() {
    let shop = Shop::open();
    let guidon = |arguments: &[&str]| shop.guidon("development", arguments);
    let (code, _, err) = guidon(&["release", "status", "engine"]);
    assert!(code == Some(5) && err.contains("guidon release start engine"), "{err}");
    let (code, out, _) = guidon(&["release", "list"]);
    assert!(code == Some(0) && out.contains("No releases."), "{out}");
    let (_, plan, _) = guidon(&["release", "plan", "--steps", "10,100", "--step-time", "1s", "--min-sample", "0"]);
    assert!(plan.contains("share: 10000") && plan.contains("minimumSeconds: 1"), "{plan}");
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), plan).expect("writes");
    let file = file.path().to_str().expect("a path");
    let (code, out, err) =
        guidon(&["release", "start", "engine", "--plan", file, "--approve-step", "2", "-m", "first"]);
    assert!(code == Some(0) && out.contains("10 % → 100 %"), "{out}{err}");
    let (code, out, _) = guidon(&["release", "status", "engine"]);
    assert!(code == Some(0) && out.contains("▶ 10 %   · 100 % (a person starts it)"), "{out}");
    let (_, out, _) = guidon(&["release", "status"]);
    assert!(out.contains("1 of 2") && out.contains("running"), "{out}");
    let (code, _, err) = guidon(&["release", "start", "engine"]);
    assert!(code == Some(6) && err.contains("is under way (running): abort it first"), "{err}");
    let (code, out, err) = guidon(&["release", "advance", "engine", "--to", "2"]);
    assert!(code == Some(0) && out.contains("moved the release of engine to step 2"), "{out}{err}");
    let (code, out, err) = guidon(&["release", "status", "engine", "--watch"]);
    assert_eq!(code, Some(0), "it completes: {out}{err}");
    assert!(out.lines().last().is_some_and(|line| line.contains("completed")), "{out}");
    let (_, out, _) = guidon(&["release", "report", "engine"]);
    for part in ["comment: first", "step 2     100 %", "the server completed the release of engine"] {
        assert!(out.contains(part), "{part} is not in {out}");
    }

    let (code, _, err) =
        guidon(&["release", "start", "engine", "--steps", "50", "--treatment", "baseline", "--control", "ai"]);
    assert_eq!(code, Some(0), "{err}");
    guidon(&["release", "abort", "engine", "--reason", "enough"]);
    let (code, out, err) = guidon(&["release", "status", "engine", "--watch"]);
    assert!(code == Some(11) && out.contains("aborted") && err.contains("guidon release report engine"), "{out}{err}");
    let (code, _, err) = guidon(&["release", "restart", "engine"]);
    assert_eq!(code, Some(0), "{err}");
    let (code, out, _) = guidon(&["release", "list", "--state", "active"]);
    assert!(code == Some(0) && out.contains("50 %"), "{out}");
    let (code, _, err) = guidon(&["release", "list", "--state", "nowhere"]);
    assert!(code == Some(6) && err.contains("is no state of a release"), "{err}");
    let (code, _, err) = guidon(&["incident", "show", "inc-0"]);
    assert!(code == Some(5), "{err}");
    let (_, out, _) = guidon(&["incident", "list"]);
    assert!(out.contains("No open incidents."), "{out}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_release_is_taken_back_and_locked_until_a_person_has_looked() {
    let shop = Shop::open();
    let credential = shop.server.client.create_sdk_key("development");
    let client = Client::builder(&shop.server.client.url, credential.as_str()).connect().await.expect("a client");
    let limit = json!({"value": 0.02, "windowSeconds": 3, "minimumSample": 10, "breaches": 1});
    let errors = json!({"id": "errors", "series": "path", "measure": {"kind": "errorRate"}, "action": "rollBack", "limit": limit});
    let plan = json!({
        "steps": [{"share": 50_000, "minimumSeconds": 3_600}], "learned": null, "healing": {"routeAway": false}, "cpu": false,
        "guard": {"guardrails": [errors], "ratioSeries": null},
    });
    shop.developer.client.change("development", json!([{"kind": "startRelease", "flag": "engine", "plan": plan}])).ok();
    let began = Instant::now();
    let mut calls = 0_u32;
    while shop.release("development")["state"] == "running" {
        assert!(began.elapsed() < Duration::from_secs(30), "{}", shop.release("development"));
        for _ in 0..50 {
            calls += 1;
            let context = Context::new(format!("person-{calls}"));
            let path = client.path("engine", &context).ai(|| Err("broken")).baseline(|| ());
            path.run();
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let release = shop.release("development");
    assert_eq!(
        (&release["state"], shop.served("development")),
        (&json!("rolledBack"), json!({"variation": "baseline"}))
    );
    assert!(release["live"].is_null() && release["openIncidents"][0]["locks"] == true, "{release}");
    let id = release["incident"].as_str().expect("an incident");
    let locked = shop.developer.client.change("development", start()).problem();
    assert_eq!(locked["errors"][0]["code"], "incidentOpen", "{locked}");
    let (code, out, err) = shop.guidon("development", &["incident", "show", id]);
    assert!(code == Some(0) && out.contains("errors") && out.contains("calls"), "{out}{err}");
    let (_, out, _) = shop.guidon("development", &["release", "report", "engine"]);
    assert!(out.contains("the server rolled the release of engine back (errors: beyond its limit"), "{out}");
    assert!(out.contains("calls and"), "the numbers are told: {out}");

    let (code, _, err) = shop.guidon("development", &["incident", "close", id, "--finding", " "]);
    assert!(code == Some(6) && err.contains("what was it"), "{err}");
    let (code, out, err) = shop.guidon("development", &["incident", "close", id, "--finding", "the model was broken"]);
    assert!(code == Some(0) && out.contains("closed the incident"), "{out}{err}");
    let incidents = shop.developer.client.get(&format!("{PROJECT}/environments/development/incidents?open=false")).ok();
    assert_eq!(incidents["incidents"][0]["finding"]["finding"], "the model was broken");
    shop.developer.client.change("development", step("restartRelease")).ok();
    assert_eq!(shop.served("development")["rollout"]["weights"], json!({"ai": 50_000, "baseline": 50_000}));
}
