//! Releases from start to end on a real server, with connected SDKs that serve them.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use guidon_sdk::{Client, Context};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::support::ServerProcess;

const ENVIRONMENT: &str = "/api/v1/projects/default/environments/development";
/// The server leaves out the first ten seconds of an instance.
const WARM_UP: Duration = Duration::from_secs(12);
/// Requests a second of each instance.
const RATE: u32 = 100;

/// A server with the flag `engine`, and instances that serve it.
struct Shop {
    server: ServerProcess,
    instances: Vec<Instance>,
    runtime: Runtime,
}

struct Instance {
    client: Client,
    fails: Arc<AtomicBool>,
}

impl Shop {
    /// A server, and so many warm instances.
    #[track_caller]
    fn open(instances: usize) -> Self {
        let server = ServerProcess::start();
        let variations = json!([{"key": "ai", "value": "ai", "provenance": {"by": "ai"}},
                                {"key": "baseline", "value": "old", "provenance": {"by": "human"}}]);
        let flag = json!({"key": "engine", "kind": "string", "variations": variations});
        server.client.change("development", json!([{"kind": "createFlag", "flag": flag}])).ok();
        let serve = json!({"kind": "setFallthrough", "flag": "engine", "serve": {"variation": "baseline"}});
        server.client.change("development", json!([serve, {"kind": "turnFlagOn", "flag": "engine"}])).ok();
        let runtime = Runtime::new().unwrap();
        let key = server.client.create_sdk_key("development");
        let start = |number| {
            let name = format!("instance-{number}");
            let connecting = Client::builder(&server.client.url, &key).instance(name).connect();
            let instance =
                Instance { client: runtime.block_on(connecting).unwrap(), fails: Arc::new(AtomicBool::new(false)) };
            runtime.spawn(make_requests(instance.client.clone(), Arc::clone(&instance.fails), number));
            instance
        };
        let instances: Vec<Instance> = (0..instances).map(start).collect();
        if !instances.is_empty() {
            std::thread::sleep(WARM_UP);
        }
        Self { server, instances, runtime }
    }

    #[track_caller]
    fn start(&self, steps: Value) {
        let plan = json!({"steps": steps});
        self.change(json!({"kind": "startRelease", "flag": "engine", "plan": plan}));
    }

    #[track_caller]
    fn change(&self, instruction: Value) {
        self.server.client.change("development", json!([instruction])).ok();
    }

    #[track_caller]
    fn release(&self) -> Value {
        self.server.client.get(&format!("{ENVIRONMENT}/flags/engine/release")).ok()
    }

    /// Waits until the release is as it should be.
    #[track_caller]
    fn wait(&self, seconds: u64, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let began = Instant::now();
        loop {
            let release = self.release();
            if is_so(&release) {
                return release;
            }
            assert!(began.elapsed() < Duration::from_secs(seconds), "not {what} after {seconds} s: {release}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// What the fallthrough serves.
    #[track_caller]
    fn served(&self) -> Value {
        let flag = self.server.client.get("/api/v1/projects/default/flags/engine").ok();
        flag["environments"]["development"]["fallthrough"].clone()
    }

    /// The steps that an entry of the journal went to, in order.
    #[track_caller]
    fn steps_taken(&self) -> Vec<u64> {
        let journal = self.server.client.get("/api/v1/projects/default/journal?limit=1000").ok();
        let mut entries = journal["entries"].as_array().unwrap().clone();
        entries.sort_by_key(|entry| entry["revision"].as_u64());
        let instructions = entries.iter().flat_map(|entry| entry["instructions"].as_array().unwrap());
        instructions.filter(|it| it["kind"] == "advanceRelease").filter_map(|it| it["to"].as_u64()).collect()
    }

    #[track_caller]
    fn incidents(&self) -> Vec<Value> {
        self.server.client.get(&format!("{ENVIRONMENT}/incidents")).ok()["incidents"].as_array().unwrap().clone()
    }
}

/// Makes requests from many people until the runtime ends.
async fn make_requests(client: Client, fails: Arc<AtomicBool>, seed: usize) {
    let mut due = tokio::time::interval(Duration::from_secs(1) / RATE);
    let mut number = seed;
    loop {
        due.tick().await;
        number += 7_919;
        let context = Context::new(format!("person-{}", number % 5_000));
        let ai = || {
            let fails = fails.load(Ordering::Relaxed) && number.is_multiple_of(2);
            if fails { Err("it fails") } else { Ok(work(number)) }
        };
        let _answer: usize = client.path("engine", &context).ai(ai).baseline(|| work(number)).run();
    }
}

/// Some microseconds of work: of two paths that do nothing, what is measured is the measuring.
fn work(seed: usize) -> usize {
    (0..4_000).fold(seed, |sum, number| black_box(sum.wrapping_mul(31).wrapping_add(number)))
}

fn is(state: &'static str) -> impl Fn(&Value) -> bool {
    move |release| release["state"] == state
}

#[test]
fn a_healthy_release_goes_to_everybody_by_itself() {
    let shop = Shop::open(2);
    let step = |share: u32| json!({"share": share, "minimumSeconds": 1, "minimumSample": 5});
    shop.start(json!([step(10_000), step(50_000), step(100_000)]));
    shop.wait(20, "complete", is("completed"));
    assert_eq!(shop.steps_taken(), [1, 2]);
    assert_eq!(shop.incidents(), [] as [Value; 0]);
    let client = &shop.instances[0].client;
    assert_eq!(client.string("engine", &Context::new("anybody"), "none"), "ai");
}

#[test]
fn a_failing_ai_path_is_taken_back_and_locked_until_somebody_has_looked() {
    let shop = Shop::open(2);
    let before = shop.served();
    shop.start(json!([{"share": 20_000, "minimumSeconds": 3_600}]));
    assert_ne!(shop.served(), before);
    std::thread::sleep(Duration::from_secs(2));
    shop.instances.iter().for_each(|instance| instance.fails.store(true, Ordering::Relaxed));
    let release = shop.wait(15, "taken back", is("rolledBack"));
    assert_eq!(shop.served(), before);
    let incidents = shop.incidents();
    assert_eq!(incidents.len(), 1, "{incidents:?}");
    let incident = &incidents[0];
    assert_eq!((&incident["kind"], &incident["id"]), (&json!("rolledBack"), &release["incident"]));
    let evidence = incident["evidence"]["decision"]["verdicts"].to_string();
    assert!(evidence.contains("errors"), "{incident}");

    let restart = json!([{"kind": "restartRelease", "flag": "engine"}]);
    let refused = shop.server.client.change("development", restart.clone());
    assert!(refused.status == 400 || refused.status == 409 || refused.status == 422, "{}", refused.text);
    assert!(refused.text.contains(incident["id"].as_str().unwrap()), "{}", refused.text);
    shop.change(json!({"kind": "closeIncident", "flag": "engine", "incident": incident["id"], "finding": "mended"}));
    shop.server.client.change("development", restart).ok();
    assert_eq!(shop.release()["state"], "running");
}

#[test]
fn a_release_survives_a_restart_and_takes_no_step_twice() {
    let mut shop = Shop::open(0);
    let step = |share: u32, seconds: u64| json!({"share": share, "minimumSeconds": seconds});
    shop.start(json!([step(10_000, 1), step(50_000, 4), step(75_000, 1), step(100_000, 1)]));
    let before = shop.wait(10, "at its second step", |release| release["step"] == 1);
    shop.server.kill();
    shop.server.restart();
    let after = shop.release();
    assert_eq!((&after["id"], &after["step"], &after["stepAt"]), (&before["id"], &before["step"], &before["stepAt"]));
    shop.wait(20, "complete", is("completed"));
    assert_eq!(shop.steps_taken(), [1, 2, 3]);
}

#[test]
fn an_edit_by_hand_pauses_a_release_and_resuming_puts_its_step_back() {
    let shop = Shop::open(0);
    shop.start(json!([{"share": 10_000, "minimumSeconds": 3_600}, {"share": 100_000}]));
    let by_release = shop.served();
    shop.change(json!({"kind": "setRollout", "flag": "engine", "weights": {"ai": 30_000, "baseline": 70_000}}));
    let paused = shop.release();
    assert_eq!(paused["state"], "paused", "{paused}");
    assert!(paused["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{paused}");
    assert_ne!(shop.served(), by_release);
    shop.change(json!({"kind": "resumeRelease", "flag": "engine"}));
    assert_eq!(shop.release()["state"], "running");
    assert_eq!(shop.served()["rollout"]["weights"], by_release["rollout"]["weights"]);
}

#[test]
fn one_failing_instance_is_routed_away_and_the_release_stays() {
    let shop = Shop::open(4);
    shop.start(json!([{"share": 50_000, "minimumSeconds": 3_600}]));
    std::thread::sleep(Duration::from_secs(3));
    let ill = &shop.instances[2];
    ill.fails.store(true, Ordering::Relaxed);
    let routed = |release: &Value| release["routed"]["instance-2"].is_object();
    let release = shop.wait(15, "routed away", routed);
    assert_eq!(release["state"], "running", "{release}");
    let told = async {
        while ill.client.directives().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    shop.runtime.block_on(async { tokio::time::timeout(Duration::from_secs(2), told).await }).expect("it is told");
    std::thread::sleep(Duration::from_secs(3));
    let release = shop.release();
    assert_eq!(release["state"], "running", "{release}");
    assert_eq!(release["routed"].as_object().unwrap().len(), 1, "{release}");
    let incidents = shop.incidents();
    assert_eq!(incidents.len(), 1, "{incidents:?}");
    assert_eq!((&incidents[0]["kind"], &incidents[0]["instance"]), (&json!("instance"), &json!("instance-2")));
}
