//! A server, instances of a service, and a release of it.

use std::io::{BufRead, BufReader, Write};
use std::ops::AddAssign;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use crate::support::{ServerOptions, ServerProcess, binary};

/// Instances of the service.
pub const INSTANCES: u64 = 8;
/// Requests a second of each.
pub const RATE: u32 = 200;
/// Share of the people in the canary, out of 100,000.
pub const SHARE: u32 = 5_000;

const FLAG: &str = "price-engine";
/// From the start of the instances to the release: the first seconds of a cold instance do not count.
const WARM_UP: Duration = Duration::from_secs(13);
/// From the start of the release to the fault, and up to a second more, so that faults meet every part of a second.
const BEFORE_FAULT: Duration = Duration::from_secs(8);
/// How long the guard has to find it.
const FOUND_WITHIN: Duration = Duration::from_secs(90);
/// How long instances have to say when they were bad last. They wait for 1.5 quiet seconds.
const TOLD_WITHIN: Duration = Duration::from_secs(8);

/// A release that went wrong and was taken back; times in milliseconds since 1970.
pub struct Incident {
    first_bad: u64,
    last_bad: u64,
    decided: u64,
    /// Why, as the server says.
    pub reason: String,
}

impl Incident {
    /// Seconds from the first bad request to the last.
    pub fn bad_s(&self) -> f64 {
        self.last_bad.saturating_sub(self.first_bad) as f64 / 1_000.0
    }

    /// Seconds from the first bad request to the entry that took the release back.
    pub fn decision_s(&self) -> f64 {
        self.decided.saturating_sub(self.first_bad) as f64 / 1_000.0
    }

    /// Milliseconds from that entry to the last bad request.
    pub fn spread_ms(&self) -> u64 {
        self.last_bad.saturating_sub(self.decided)
    }
}

/// What the guard did to releases that were well.
#[derive(Default)]
pub struct Healthy {
    /// Releases taken back.
    pub rolled_back: u64,
    /// Releases held at the end.
    pub held: u64,
    /// Instances routed away.
    pub routed: u64,
    /// Why, as the server says.
    pub reason: String,
}

impl AddAssign for Healthy {
    fn add_assign(&mut self, other: Self) {
        self.rolled_back += other.rolled_back;
        self.held += other.held;
        self.routed += other.routed;
    }
}

/// A server and instances, warm, with a release under way.
pub struct Scene {
    server: ServerProcess,
    instances: Vec<Instance>,
    random: StdRng,
}

impl Scene {
    /// Starts all of it.
    pub fn open(seed: u64) -> Self {
        // A level that is asked for keeps the server's log out of the table.
        let variables = vec![("GUIDON_LOG".to_owned(), "warn".to_owned())];
        let server = ServerProcess::start_with(ServerOptions { variables, ..ServerOptions::default() });
        let variations = json!([{"key": "ai", "value": true, "provenance": {"by": "ai"}},
                                {"key": "baseline", "value": false, "provenance": {"by": "human"}}]);
        let flag = json!({"key": FLAG, "kind": "boolean", "variations": variations});
        server.client.change("development", json!([{"kind": "createFlag", "flag": flag}])).ok();
        let serve = json!({"kind": "setFallthrough", "flag": FLAG, "serve": {"variation": "baseline"}});
        server.client.change("development", json!([serve, {"kind": "turnFlagOn", "flag": FLAG}])).ok();
        let key = server.client.create_sdk_key("development");
        let start = |number| Instance::start(&server.client.url, &key, number, seed * 1_000 + number);
        let instances = (1..=INSTANCES).map(start).collect();
        sleep(WARM_UP);
        let plan = json!({"steps": [{"share": SHARE, "minimumSeconds": 3_600}]});
        server.client.change("development", json!([{"kind": "startRelease", "flag": FLAG, "plan": plan}])).ok();
        Self { server, instances, random: StdRng::seed_from_u64(seed) }
    }

    /// Lets the AI path of all instances go wrong, and waits until the release is taken back.
    pub fn go_wrong(mut self, fault: &str) -> Result<Incident, String> {
        sleep(BEFORE_FAULT + Duration::from_millis(self.random.random_range(0..1_000)));
        if self.release()["state"] != "running" {
            return Err(format!("taken back before the fault: {}", self.release()["reason"]));
        }
        for instance in &mut self.instances {
            writeln!(instance.words, "{fault}").map_err(|error| error.to_string())?;
        }
        let began = Instant::now();
        let release = loop {
            let release = self.release();
            if release["state"] == "rolledBack" {
                break release;
            }
            if began.elapsed() > FOUND_WITHIN {
                let seconds = FOUND_WITHIN.as_secs();
                return Err(format!("not taken back within {seconds} s: {} {}", release["hold"], release["routed"]));
            }
            sleep(Duration::from_millis(100));
        };
        let began = Instant::now();
        while began.elapsed() < TOLD_WITHIN && self.instances.iter().any(|instance| instance.bad.lock().is_none()) {
            sleep(Duration::from_millis(100));
        }
        let told: Vec<(u64, u64)> = self.instances.iter().filter_map(|instance| *instance.bad.lock()).collect();
        let first_bad = told.iter().map(|(first, _)| *first).min().ok_or("no instance had a bad request")?;
        let last_bad = told.iter().map(|(_, last)| *last).max().unwrap_or(first_bad);
        let decided = release["endedAt"].as_u64().ok_or("a release that ended says when")?;
        let reason = release["reason"].as_str().unwrap_or_default().to_owned();
        Ok(Incident { first_bad, last_bad, decided, reason })
    }

    /// Lets the release run for a while with nothing wrong.
    pub fn stay_healthy(self, lasting: Duration) -> Healthy {
        sleep(lasting);
        let release = self.release();
        let held = &release["hold"]["reason"];
        let reason = if held.is_string() { held } else { &release["reason"] };
        Healthy {
            rolled_back: u64::from(release["state"] != "running"),
            held: u64::from(release["hold"].is_object()),
            routed: release["routed"].as_object().map_or(0, |routed| routed.len() as u64),
            reason: reason.as_str().unwrap_or_default().to_owned(),
        }
    }

    fn release(&self) -> Value {
        let path = format!("/api/v1/projects/default/environments/development/flags/{FLAG}/release");
        self.server.client.get(&path).ok()
    }
}

/// An instance of the service, a process that ends with it.
struct Instance {
    child: Child,
    words: ChildStdin,
    /// When its AI path was bad first and last, once it has been good for a while.
    bad: Arc<Mutex<Option<(u64, u64)>>>,
}

impl Instance {
    fn start(server: &str, key: &str, number: u64, seed: u64) -> Self {
        let program = binary().parent().expect("a folder of binaries").join("progressive-rollout");
        let mut child = Command::new(program)
            .args(["--name", &format!("instance-{number}"), "--rate", &RATE.to_string(), "--seed", &seed.to_string()])
            .env("GUIDON_SERVER", server)
            .env("GUIDON_SDK_KEY", key)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("an instance");
        let words = child.stdin.take().expect("a pipe");
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let bad: Arc<Mutex<Option<(u64, u64)>>> = Arc::default();
        let told = Arc::clone(&bad);
        // Read to its end, so that the instance never waits for a reader.
        std::thread::spawn(move || {
            lines
                .map_while(Result::ok)
                .filter_map(|line| bad_times(&line))
                .for_each(|times| *told.lock() = Some(times));
        });
        Self { child, words, bad }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // One that has ended already is no matter.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The times of a line `… bad first=… last=…`.
fn bad_times(line: &str) -> Option<(u64, u64)> {
    let (_, times) = line.split_once(" bad first=")?;
    let (first, last) = times.split_once(" last=")?;
    Some((first.parse().ok()?, last.parse().ok()?))
}
