//! Change requests, freezes and reviews, from the developer's change to the release manager's.

use std::time::{Duration, Instant};

use guidon_server::clock::{Clock, SystemClock};
use serde_json::{Value, json};

use crate::support::people::{Person, admin, person};
use crate::support::{Answer, ServerProcess, TestClient};

const REQUESTS: &str = "/api/v1/projects/default/requests";

/// A server with people, and the flag `engine`: on in production, where it serves everybody the baseline.
struct Shop {
    server: ServerProcess,
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
        let shop = Self { server, developer, approver, manager };
        let variations = json!([{"key": "ai", "value": "ai", "provenance": {"by": "ai"}},
                                {"key": "baseline", "value": "old", "provenance": {"by": "human"}}]);
        let flag = json!({"key": "engine", "kind": "string", "variations": variations});
        shop.developer.client.change("development", json!([{"kind": "createFlag", "flag": flag}])).ok();
        // Nobody is moved: it serves the same as while it is off. A request that low applies by itself.
        let on = shop.developer.client.change("production", json!([{"kind": "turnFlagOn", "flag": "engine"}]));
        assert_eq!(on.status, 200, "{}", on.text);
        shop
    }

    fn carry_through(&self, opened: Answer) {
        assert_eq!(opened.status, 202, "{}", opened.text);
        let request = opened.json()["request"].clone();
        if request["state"] == "review" {
            approve(&self.approver.client, &request).ok();
        }
        step(&self.manager.client, &request, "apply", &json!({})).ok();
    }

    fn ask(&self, ai: u32) -> Value {
        let opened = self.developer.client.change("production", rollout(ai));
        assert_eq!(opened.status, 202, "{}", opened.text);
        opened.json()["request"].clone()
    }

    fn show(&self, request: &Value) -> Value {
        self.developer.client.get(&path(request)).ok()
    }

    fn served(&self) -> Value {
        let flag = self.developer.client.get("/api/v1/projects/default/flags/engine").ok();
        flag["environments"]["production"].clone()
    }
}

fn rollout(ai: u32) -> Value {
    json!([{"kind": "setRollout", "flag": "engine", "weights": {"ai": ai, "baseline": 100_000 - ai}}])
}

fn path(request: &Value) -> String {
    format!("{REQUESTS}/{}", request["id"].as_str().expect("an id"))
}

fn step(client: &TestClient, request: &Value, step: &str, body: &Value) -> Answer {
    client.post(&format!("{}/{step}", path(request)), body)
}

fn approve(client: &TestClient, request: &Value) -> Answer {
    step(client, request, "approve", &json!({"hash": request["content"]["hash"]}))
}

fn now_ms() -> u64 {
    SystemClock.now_ms()
}

#[test]
fn a_developer_opens_an_approver_agrees_and_a_release_manager_applies() {
    let shop = Shop::open();
    let dry = json!({"environment": "production", "dryRun": true, "instructions": rollout(1_000)});
    let dry = shop.developer.client.post("/api/v1/projects/default/changes", &dry).ok();
    assert_eq!((&dry["needs"]["approvals"], &dry["needs"]["risk"]["score"]), (&json!(1), &json!(46)));
    let request = shop.ask(1_000);
    assert_eq!((&request["state"], &request["content"]["needed"]), (&json!("review"), &json!(1)));
    let shown = shop.show(&request);
    assert_eq!((&shown["applies"]["now"], &shown["instructions"]), (&json!(true), &rollout(1_000)));
    assert_eq!(shown["author"]["id"], json!(shop.developer.id));

    assert_eq!(
        step(&shop.manager.client, &request, "apply", &json!({})).problem()["errors"][0]["code"],
        "requestState"
    );
    assert_eq!(approve(&shop.developer.client, &request).problem()["code"], "forbidden");
    let unnamed = step(&shop.approver.client, &request, "approve", &json!({})).problem();
    assert_eq!(unnamed["code"], "invalidRequest", "what is agreed with has to be named");
    let other = step(&shop.approver.client, &request, "approve", &json!({"hash": "0".repeat(64)})).problem();
    assert!(other["errors"][0]["detail"].as_str().unwrap().contains("edited since"), "{other}");
    let text = json!({"text": "Why only one per cent?"});
    step(&shop.approver.client, &request, "comment", &text).ok();
    let approved = approve(&shop.approver.client, &request).ok();
    assert_eq!(
        (&approved["request"]["state"], &approved["request"]["validApprovals"]),
        (&json!("approved"), &json!(1))
    );
    assert_eq!(step(&shop.developer.client, &request, "apply", &json!({})).problem()["status"], 403);

    let applied = step(&shop.manager.client, &request, "apply", &json!({})).ok();
    assert_eq!(
        (&applied["request"], &applied["changed"]),
        (
            &request["id"],
            &json!(["environment/production/flag/engine", format!("request/{}", request["id"].as_str().unwrap())])
        )
    );
    assert_eq!(shop.served()["fallthrough"]["rollout"]["weights"]["ai"], 1_000);
    let ended = shop.show(&request);
    assert_eq!((&ended["state"], &ended["ended"]["revision"]), (&json!("applied"), &applied["revision"]));
    assert_eq!(ended["comments"][0]["text"], text["text"]);
    let after = applied["revision"].as_u64().unwrap() - 1;
    let journal = shop.manager.client.get(&format!("/api/v1/projects/default/journal?after={after}")).ok();
    let grounds = &journal["entries"][0]["grounds"];
    assert_eq!((&grounds["request"], &grounds["author"]), (&request["id"], &json!(shop.developer.id)));
    assert_eq!(
        (&grounds["approvals"][0]["by"], &grounds["approvals"][0]["hash"]),
        (&json!(shop.approver.id), &request["content"]["hash"])
    );
}

#[test]
fn low_risk_applies_by_itself_and_says_so() {
    let shop = Shop::open();
    let name = json!([{"kind": "updateFlag", "flag": "engine", "name": "The engine"}]);
    let applied = shop.developer.client.change("production", name.clone());
    assert_eq!(applied.status, 200, "{}", applied.text);
    let id = applied.json()["request"].as_str().expect("the request's id").to_owned();
    let request = shop.developer.client.get(&format!("{REQUESTS}/{id}")).ok();
    assert_eq!((&request["state"], &request["ended"]["by"]), (&json!("applied"), &json!("system")));
    let draft = json!({"environment": "production", "draft": true, "instructions": [{"kind": "updateFlag", "flag": "engine", "name": "Later"}]});
    let draft = shop.developer.client.post(REQUESTS, &draft);
    assert_eq!(draft.status, 202, "{}", draft.text);
    let draft = draft.json()["request"].clone();
    assert_eq!(draft["state"], "draft");
    step(&shop.developer.client, &draft, "withdraw", &json!({"reason": "no"})).ok();
    let listed = |query: &str| {
        let page = shop.approver.client.get(&format!("{REQUESTS}?{query}")).ok();
        page["requests"].as_array().unwrap().iter().map(|it| it["id"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(listed("state=withdrawn"), [draft["id"].clone()]);
    assert_eq!(listed("state=applied&limit=1"), [json!(id)], "newest first");
    assert_eq!(listed("state=open"), [] as [Value; 0]);
    assert_eq!(listed("flag=engine&environment=production").len(), 3);
    assert_eq!(listed("flag=other").len() + listed("environment=testing").len() + listed("author=nobody").len(), 0);
    assert_eq!(shop.approver.client.get(&format!("{REQUESTS}?state=lost")).problem()["status"], 400);
    let first = shop.approver.client.get(&format!("{REQUESTS}?limit=1")).ok();
    let next = first["next"].as_str().expect("a next page");
    assert_eq!(listed(&format!("limit=1&after={next}")).len(), 1);
}

#[test]
fn a_conflict_names_the_entries_and_a_rebase_mends_it() {
    let shop = Shop::open();
    let request = shop.ask(1_000);
    approve(&shop.approver.client, &request).ok();
    let killed = shop.manager.client.change("production", json!([{"kind": "turnFlagOff", "flag": "engine"}]));
    let killed = killed.ok();
    let conflict = step(&shop.manager.client, &request, "apply", &json!({})).problem();
    assert_eq!(
        (&conflict["code"], &conflict["entries"][0]["revision"]),
        (&json!("staleRevision"), &killed["revision"])
    );
    let applies = shop.show(&request)["applies"].clone();
    assert_eq!((&applies["now"], &applies["conflicts"][0]["revision"]), (&json!(false), &killed["revision"]));
    let patch = |body: &Value| {
        let headers = [("content-type", "application/json")];
        shop.developer.client.send("PATCH", &path(&request), &headers, body.to_string().as_bytes())
    };
    assert_eq!(patch(&json!({})).problem()["status"], 400);
    let rebased = patch(&json!({"rebase": true})).ok();
    assert_eq!((&rebased["request"]["version"], &rebased["request"]["validApprovals"]), (&json!(2), &json!(0)));
    assert_eq!(shop.show(&request)["applies"]["now"], true);
    assert_eq!(approve(&shop.approver.client, &request).problem()["status"], 422, "that was edited since");
    let id = request["id"].clone();
    let edited = patch(&json!({"instructions": rollout(2_000), "comment": "a little more"})).ok();
    assert_eq!((&edited["request"]["id"], &edited["request"]["comment"]), (&id, &json!("a little more")));
    if edited["request"]["state"] == "review" {
        approve(&shop.approver.client, &edited["request"]).ok();
    }
    step(&shop.manager.client, &request, "apply", &json!({})).ok();
    assert_eq!(shop.served()["fallthrough"]["rollout"]["weights"]["ai"], 2_000);
}

#[test]
fn a_scheduled_request_is_applied_by_the_server() {
    let mut shop = Shop::open();
    let change = json!({"environment": "production", "instructions": rollout(1_000),
                        "schedule": {"notBefore": now_ms() + 3_000, "notAfter": now_ms() + 600_000}});
    let opened = shop.developer.client.post(REQUESTS, &change);
    assert_eq!(opened.status, 202, "{}", opened.text);
    let request = opened.json()["request"].clone();
    approve(&shop.approver.client, &request).ok();
    let early = step(&shop.manager.client, &request, "apply", &json!({})).problem();
    assert_eq!(early["errors"][0]["code"], "outsideWindow");
    // It is due while nobody is there to apply it.
    shop.server.kill();
    std::thread::sleep(Duration::from_millis(3_000));
    shop.server.restart();
    let started = Instant::now();
    while shop.show(&request)["state"] != "applied" {
        assert!(started.elapsed() < Duration::from_secs(30), "{}", shop.show(&request));
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(shop.show(&request)["ended"]["by"], "system");
}

#[test]
fn an_emergency_is_stopped_at_once_and_reviewed_afterwards() {
    let shop = Shop::open();
    shop.carry_through(shop.developer.client.change("production", rollout(1_000)));
    let off = json!([{"kind": "turnFlagOff", "flag": "engine"}]);
    let killed = shop.manager.client.change("production", off);
    assert_eq!(killed.status, 200, "{}", killed.text);
    let killed = killed.json();
    assert!(killed["request"].is_null() && shop.served()["on"].is_null() | (shop.served()["on"] == false));
    let reviews = || shop.approver.client.get("/api/v1/projects/default/reviews").ok()["reviews"].clone();
    let pending = reviews()[0].clone();
    assert_eq!(
        (&pending["revision"], &pending["by"], &pending["pending"]),
        (&killed["revision"], &json!(shop.manager.id), &json!(true))
    );
    let review = format!("/api/v1/projects/default/reviews/{}", killed["revision"]);
    let finding = json!({"finding": "Errors doubled; the cache was cold."});
    assert_eq!(shop.developer.client.post(&review, &finding).problem()["status"], 403);
    shop.approver.client.post(&review, &finding).ok();
    assert_eq!(reviews()[0]["finding"]["text"], finding["finding"]);
    assert_eq!(shop.approver.client.get("/api/v1/projects/default/reviews?pending=true").ok()["reviews"], json!([]));
    let unknown = shop.approver.client.post("/api/v1/projects/default/reviews/999999", &finding);
    assert_eq!(unknown.problem()["status"], 404);
}

#[test]
fn a_freeze_holds_what_was_approved_until_it_is_lifted() {
    let shop = Shop::open();
    let request = shop.ask(1_000);
    approve(&shop.approver.client, &request).ok();
    let freeze = json!([{"kind": "declareFreeze", "reason": "Black Friday"}]);
    assert_eq!(shop.developer.client.change("production", freeze.clone()).problem()["status"], 403);
    shop.manager.client.change("production", freeze).ok();
    let environments = shop.manager.client.get("/api/v1/projects/default/environments").ok();
    let production =
        environments["environments"].as_array().unwrap().iter().find(|it| it["key"] == "production").unwrap();
    let id = production["freezes"][0]["id"].clone();
    assert_eq!(production["freezes"][0]["reason"], "Black Friday");
    let held = step(&shop.manager.client, &request, "apply", &json!({})).problem();
    assert_eq!((&held["status"], &held["policies"]), (&json!(403), &json!(["freeze"])));
    shop.manager.client.change("production", json!([{"kind": "liftFreeze", "id": id}])).ok();
    step(&shop.manager.client, &request, "apply", &json!({})).ok();
}

#[test]
fn a_step_of_a_request_is_no_instruction_of_a_change() {
    let shop = Shop::open();
    let request = shop.ask(1_000);
    for kind in ["approveRequest", "applyRequest", "openRequest"] {
        let forged =
            json!([{"kind": kind, "id": request["id"], "by": shop.approver.id, "hash": request["content"]["hash"]}]);
        let refused = shop.manager.client.change("production", forged).problem();
        assert_eq!(refused["code"], "unknownInstruction", "{refused}");
    }
}
