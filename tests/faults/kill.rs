//! `kill -9` while eight writers write.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use guidon_sdk::client::{Client, State};
use guidon_server::journal::verify;
use guidon_server::log::RealFiles;
use rand::RngExt;
use serde_json::{Value, json};

use super::{CHANGES, change, journal, unthrottled};
use crate::counts::{count, report};
use crate::support::{ServerProcess, TestClient};

const WRITERS: usize = 8;
const SDKS: usize = 4;

/// A change that was answered with 200.
struct Acknowledged {
    revision: u64,
    comment: String,
}

/// Writes until the server is gone. Each change touches two flags in the same way, so that a torn one would show.
fn write(client: &TestClient, writer: usize, round: usize, acknowledged: &Mutex<Vec<Acknowledged>>) {
    for number in 0.. {
        let comment = format!("writer {writer} round {round} change {number}");
        let rename = |flag: String| json!({"kind": "updateFlag", "flag": flag, "name": comment});
        let body = change(&comment, json!([rename(format!("left-{writer}")), rename(format!("right-{writer}"))]));
        let json = [("content-type", "application/json")];
        // No answer: the change may be there or not, and nobody was told that it is.
        let Ok(answer) = client.try_send("POST", CHANGES, &json, body.to_string().as_bytes()) else { return };
        let revision = answer.ok()["revision"].as_u64().expect("a revision");
        acknowledged.lock().unwrap().push(Acknowledged { revision, comment });
    }
}

fn check_nothing_is_torn(client: &TestClient) {
    for writer in 0..WRITERS {
        let name =
            |side: &str| client.get(&format!("/api/v1/projects/default/flags/{side}-{writer}")).ok()["name"].clone();
        let (left, right): (Value, Value) = (name("left"), name("right"));
        assert_eq!(left, right, "writer {writer}: a change was made by half");
    }
}

fn check_nothing_is_lost(client: &TestClient, acknowledged: &[Acknowledged]) {
    let entries = journal(client);
    let comments: std::collections::HashMap<u64, &str> = entries
        .iter()
        .map(|entry| (entry["revision"].as_u64().expect("a revision"), entry["comment"].as_str().unwrap_or_default()))
        .collect();
    for Acknowledged { revision, comment } in acknowledged {
        assert_eq!(comments.get(revision), Some(&comment.as_str()), "change {revision} was acknowledged and is lost");
    }
}

async fn connect(url: &str, credential: &str) -> Client {
    let client = Client::builder(url, credential)
        .reconnect_delay(Duration::from_millis(50), Duration::from_millis(500))
        .poll_interval(Duration::from_millis(500))
        .probe_interval(Duration::from_millis(500))
        .connect();
    client.await.expect("a client")
}

/// Waits until every SDK is current, and answers their revisions.
async fn settle(clients: &[Client], revision: u64) -> Vec<Option<u64>> {
    let revisions =
        || clients.iter().map(|client| client.revision().map(|revision| revision.number)).collect::<Vec<_>>();
    let current = async {
        while revisions().iter().any(|has| *has != Some(revision))
            || clients.iter().any(|client| client.state() != State::Ready)
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let _ = tokio::time::timeout(Duration::from_secs(60), current).await;
    revisions()
}

#[test]
fn a_kill_during_writes_loses_nothing_that_was_acknowledged() {
    let rounds = count(10, 200);
    let mut server = ServerProcess::start_with(unthrottled());
    for writer in 0..WRITERS {
        server.client.create_flag(&format!("left-{writer}"));
        server.client.create_flag(&format!("right-{writer}"));
    }
    let credential = server.client.create_sdk_key("development");
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let clients: Vec<Client> = (0..SDKS).map(|_| runtime.block_on(connect(&server.client.url, &credential))).collect();
    let (acknowledged, mut slowest) = (Mutex::new(Vec::new()), Duration::ZERO);
    for round in 0..rounds {
        std::thread::scope(|scope| {
            for writer in 0..WRITERS {
                let (client, acknowledged) = (server.client.clone(), &acknowledged);
                scope.spawn(move || write(&client, writer, round, acknowledged));
            }
            std::thread::sleep(Duration::from_millis(rand::rng().random_range(30..500)));
            server.kill();
        });
        let verified = verify(&*RealFiles::shared(), &server.data().join("journal"), &mut |_| ());
        assert!(verified.is_ok(), "round {round}: {}", verified.expect_err("it failed"));
        let started = Instant::now();
        server.restart();
        slowest = slowest.max(started.elapsed());
        check_nothing_is_torn(&server.client);
    }
    let acknowledged = acknowledged.into_inner().unwrap();
    check_nothing_is_lost(&server.client, &acknowledged);
    let last = server.client.change("development", json!([{"kind": "turnFlagOn", "flag": "left-0"}])).ok();
    let last = last["revision"].as_u64().expect("a revision");
    let revisions = runtime.block_on(settle(&clients, last));
    assert_eq!(revisions, vec![Some(last); SDKS]);
    report(&format!(
        "kill -9 at {WRITERS} writers: {rounds} rounds, {} acknowledged changes, slowest start until ready {slowest:?}",
        acknowledged.len()
    ));
    assert!(acknowledged.len() >= rounds, "next to nothing was written");
}
