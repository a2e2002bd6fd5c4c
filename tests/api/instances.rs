//! Which builds run where.

use std::process::Command;
use std::time::{Duration, Instant};

use guidon_sdk::{Client, State};
use serde_json::{Value, json};

use crate::support::people::admin;
use crate::support::{ServerProcess, TestClient, binary};

/// Waits until `done`, for ten seconds at most.
#[track_caller]
fn eventually(what: &str, done: impl Fn() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < Duration::from_secs(10), "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn instances(client: &TestClient, environment: &str, query: &str) -> Value {
    client.get(&format!("/api/v1/projects/default/environments/{environment}/instances{query}")).ok()
}

/// Environment and commit of each deployment on record, oldest first.
fn deployments(client: &TestClient) -> Vec<(String, String)> {
    let page = client.get("/api/v1/audit?kind=deployment&order=oldestFirst").ok();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let records = page["records"].as_array().expect("records").iter();
    records.map(|record| (text(&record["environments"][0]), text(&record["deployment"]["commit"]))).collect()
}

#[test]
fn instances_that_differ_or_were_not_in_staging_are_marked_and_first_sights_audited() {
    let mut server = ServerProcess::start();
    let admin = admin(&server);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let key = |environment: &str| {
        let path = format!("/api/v1/projects/default/environments/{environment}/sdk-keys");
        admin.post(&path, &json!({"name": "t"})).ok()["key"].as_str().expect("a key").to_owned()
    };
    let url = server.client.url.clone();
    let connect = |key: &str, instance: &str, commit: &str| {
        let builder = Client::builder(&url, key).application("shop").version("1.0").instance(instance).commit(commit);
        let builder = builder.reconnect_delay(Duration::from_millis(10), Duration::from_millis(100));
        let client = runtime.block_on(builder.connect()).expect("a client");
        eventually("it connects", || client.state() == State::Ready);
        client
    };
    let (staging, production) = (key("staging"), key("production"));
    let tested = connect(&staging, "s", "c1");
    let _served = ["a", "b"].map(|instance| connect(&production, instance, "c1"));
    let _odd = connect(&production, "x", "c2");

    let shown = instances(&admin, "production", "");
    let marks: Vec<_> = shown["instances"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|one| (one["instance"].as_str().unwrap_or_default(), one["differs"].clone(), one["unvalidated"].clone()))
        .collect();
    let none = || json!([]);
    let expected = [("a", none(), none()), ("b", none(), none()), ("x", json!(["commit"]), json!(["commit"]))];
    assert_eq!(marks, expected, "{shown}");
    let next = instances(&admin, "production", "?limit=2")["next"].as_str().expect("a next page").to_owned();
    let last = instances(&admin, "production", &format!("?after={next}"));
    assert_eq!((&last["instances"][0]["instance"], &last["next"]), (&json!("x"), &Value::Null), "{last}");
    assert_eq!(admin.get("/api/v1/projects/default/environments/production/instances?after=x").status, 400);
    assert_eq!(instances(&admin, "staging", "")["instances"][0]["unvalidated"], none());

    let run = |arguments: &[&str]| {
        let mut command = Command::new(binary());
        command.args(arguments).env("GUIDON_SERVER", &server.client.url);
        let output =
            command.env("GUIDON_TOKEN", server.client.credential().unwrap_or("")).output().expect("the command");
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    };
    let table = run(&["instances", "-e", "production"]);
    assert!(table.contains("differs from peers: commit; not seen in staging: commit"), "{table}");
    assert_eq!(run(&["--json", "instances", "-e", "production"]).matches("\"unvalidated\"").count(), 3);

    let seen = |environment: &str, commit: &str| (environment.to_owned(), commit.to_owned());
    let expected = [seen("staging", "c1"), seen("production", "c1"), seen("production", "c2")];
    eventually("each first sight is on record", || deployments(&admin) == expected);

    drop(tested);
    assert!(server.stop().success());
    server.restart();
    let _again = connect(&staging, "s", "c1");
    let _new = connect(&staging, "n", "c3");
    let with_new = [&expected[..], &[seen("staging", "c3")]].concat();
    eventually("what was seen before the restart is not noted again", || deployments(&admin) == with_new);
    eventually("the others come back", || {
        instances(&admin, "production", "")["instances"].as_array().is_some_and(|all| all.len() == 3)
    });
    assert_eq!(deployments(&admin), with_new);
}
