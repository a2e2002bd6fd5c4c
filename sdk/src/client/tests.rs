//! The client against a server that the test plays. Time is paused: it moves on when nobody has anything to do.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;

use super::fake_server::{FakeServer, Peer};
use super::{Call, ConnectError, FlushError, Hook, NotReady, Outcome, State};
use crate::eval::{ErrorCode, Reason};
use crate::model::Context;
use crate::protocol::{CLOSE_CREDENTIAL_REFUSED, CLOSE_GOING_AWAY, ClientMessage, ServerMessage};

const LONG: Duration = Duration::from_secs(600);

fn flag(key: &str, on: bool) -> serde_json::Value {
    json!({
        "key": key, "kind": "boolean",
        "variations": [{"key": "on", "value": true}, {"key": "off", "value": false}],
        "config": {"on": on, "offVariation": "off", "fallthrough": {"variation": "on"}},
    })
}

fn snapshot(revision: &str, on: bool) -> String {
    json!({
        "kind": "snapshot", "revision": revision, "project": "p", "environment": "e", "segments": [],
        "flags": [flag("new-checkout", on)],
    })
    .to_string()
}

fn patch(from: u64, revision: &str, on: bool) -> String {
    json!({"kind": "patch", "from": from, "revision": revision, "flags": [flag("new-checkout", on)]}).to_string()
}

fn current(revision: &str) -> ServerMessage {
    ServerMessage::Current { revision: revision.parse().unwrap() }
}

fn is_on(client: &super::Client) -> bool {
    client.bool("new-checkout", &Context::new("user-42"), false)
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_and_patches_are_served_and_acknowledged() {
    let mut server = FakeServer::new();
    let builder = server.builder().application("shop").version("2").commit("c").image("sha256:1");
    let (client, mut peer) = server.serve(builder, &snapshot("h:1", false)).await;
    assert_eq!(peer.applied().await, "h:1");
    assert_eq!((client.state(), is_on(&client)), (State::Ready, false));
    let handle = client.flag("new-checkout");
    let mut changes = client.changes();
    peer.send_text(&patch(1, "h:4", true)).await;
    assert_eq!(peer.applied().await, "h:4");
    assert!(is_on(&client) && handle.bool(&Context::new("a"), false));
    let change = changes.next().await.unwrap();
    assert_eq!((change.revision.number, &*change.flags), (4, &["new-checkout".to_owned()][..]));
    assert_eq!(client.all_flags(&Context::new("a"))["new-checkout"], json!(true));
    let detail = client.detail::<bool>("new-checkout", &Context::new("a"));
    assert_eq!((detail.value, detail.variation.as_deref(), detail.stale), (Some(true), Some("on"), false));
    assert_eq!(detail.revision.unwrap().to_string(), "h:4");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_served_answers_the_default_and_says_why() {
    let mut server = FakeServer::new();
    let (client, _peer) = server.serve(server.builder(), &snapshot("h:1", true)).await;
    let context = Context::new("a");
    assert_eq!(client.string("new-checkout", &context, "x"), "x");
    assert_eq!(client.integer("missing", &context, 7), 7);
    assert_eq!(client.json("new-checkout", &context, 3_u8), 3);
    let detail = client.detail::<String>("new-checkout", &context);
    assert_eq!((detail.reason, detail.error, detail.variation), (Reason::Error, Some(ErrorCode::TypeMismatch), None));
    assert_eq!(client.detail::<bool>("missing", &context).error, Some(ErrorCode::FlagNotFound));
}

#[tokio::test(start_paused = true)]
async fn a_gap_asks_for_a_snapshot_and_patches_wait_for_it() {
    let mut server = FakeServer::new();
    let (client, mut peer) = server.serve(server.builder(), &snapshot("h:1", false)).await;
    assert_eq!(peer.applied().await, "h:1");
    peer.send_text(&patch(5, "h:6", true)).await;
    assert!(matches!(peer.message().await, ClientMessage::Resync));
    peer.send_text(&patch(6, "h:7", true)).await;
    peer.send_text(&snapshot("h:7", true)).await;
    assert_eq!(peer.applied().await, "h:7");
    assert!(is_on(&client));
    // A patch that brings nothing new is skipped, a new history comes by snapshot.
    peer.send_text(&patch(3, "h:5", false)).await;
    peer.send_text(&patch(0, "k:1", false)).await;
    assert!(matches!(peer.message().await, ClientMessage::Resync));
    peer.send_text(&snapshot("k:1", false)).await;
    assert_eq!(peer.applied().await, "k:1");
    assert!(!is_on(&client));
}

#[tokio::test(start_paused = true)]
async fn a_restart_of_the_server_is_healed() {
    let mut server = FakeServer::new();
    let (client, mut peer) = server.serve(server.builder(), &snapshot("h:1", true)).await;
    assert_eq!(peer.applied().await, "h:1");
    server.set_down(true);
    peer.close(CLOSE_GOING_AWAY).await;
    assert_eq!(client.state_changed(State::Ready).await, State::Stale);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(is_on(&client), "the last good state is served meanwhile");
    server.set_down(false);
    let mut peer = server.accept().await;
    assert_eq!(peer.hello().await.basis.unwrap().to_string(), "h:1");
    peer.welcome(0).await;
    peer.send(&current("h:3")).await;
    assert_eq!(peer.applied().await, "h:3");
    client.ready(LONG).await.unwrap();
    assert_eq!(client.revision().unwrap().number, 3);
    peer.send_text(&patch(3, "h:4", false)).await;
    assert_eq!(peer.applied().await, "h:4");
    assert!(!is_on(&client));
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_is_left_and_a_live_one_gets_heartbeats() {
    let mut server = FakeServer::new();
    let (client, mut peer) = server.serve(server.builder(), &snapshot("h:1", true)).await;
    for revision in 1..20 {
        assert!(peer.next().await.is_some());
        peer.send(&ServerMessage::Heartbeat { revision }).await;
    }
    assert_eq!(client.state(), State::Ready);
    assert_eq!(client.state_changed(State::Ready).await, State::Stale);
    while let Some(message) = peer.next().await {
        assert!(matches!(message, ClientMessage::Heartbeat { .. }), "{message:?}");
    }
    server.accept().await.hello().await;
}

#[tokio::test(start_paused = true)]
async fn an_unreadable_frame_ends_the_connection_and_nothing_else() {
    let mut server = FakeServer::new();
    let (client, mut peer) = server.serve(server.builder(), &snapshot("h:1", true)).await;
    peer.send_text("{\"kind\":\"patch\",").await;
    assert_eq!(client.state_changed(State::Ready).await, State::Stale);
    assert!(is_on(&client));
    assert_eq!(server.accept().await.hello().await.basis.unwrap().number, 1);
}

#[tokio::test(start_paused = true)]
async fn a_credential_that_is_revoked_stops_the_client_on_its_last_state() {
    let mut server = FakeServer::new();
    let (client, peer) = server.serve(server.builder(), &snapshot("h:1", true)).await;
    peer.close(CLOSE_CREDENTIAL_REFUSED).await;
    assert_eq!(client.state_changed(State::Ready).await, State::Stale);
    assert_eq!(client.ready(LONG).await, Err(NotReady::CredentialRefused));
    assert!(server.is_left_alone(LONG).await);
    assert!(is_on(&client));
}

#[tokio::test(start_paused = true)]
async fn a_refused_credential_is_an_error_where_there_is_nothing_to_serve() {
    let mut server = FakeServer::new();
    let connecting = tokio::spawn(FakeServer::connect(server.builder()));
    server.request().await.respond("401 Unauthorized", "").await;
    assert!(matches!(connecting.await.unwrap(), Err(ConnectError::CredentialRefused)));
    let connecting = tokio::spawn(FakeServer::connect(server.builder().bootstrap(snapshot("x:1", true))));
    server.request().await.respond("401 Unauthorized", "").await;
    assert!(is_on(&connecting.await.unwrap().unwrap()));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_down_is_no_error_and_found_when_it_comes() {
    let mut server = FakeServer::new();
    server.set_down(true);
    let client = FakeServer::connect(server.builder()).await.unwrap();
    assert_eq!((client.state(), is_on(&client)), (State::Initializing, false));
    assert_eq!(client.detail::<bool>("f", &Context::new("a")).error, Some(ErrorCode::ProviderNotReady));
    assert_eq!(client.ready(Duration::from_secs(9)).await, Err(NotReady::TimedOut(Duration::from_secs(9))));
    server.set_down(false);
    let mut peer = server.accept().await;
    peer.hello().await;
    peer.welcome(0).await;
    peer.send_text(&snapshot("h:1", true)).await;
    client.ready(LONG).await.unwrap();
    assert!(is_on(&client));
}

/// Refuses the push stream, as a proxy does that knows no websockets, until the client polls.
async fn until_polled(server: &mut FakeServer) -> super::fake_server::Request {
    loop {
        let request = server.request().await;
        if request.head.starts_with("GET /sdk/v1/snapshot") {
            return request;
        }
        request.respond("403 Forbidden", "no websockets here").await;
    }
}

#[tokio::test(start_paused = true)]
async fn where_websockets_are_blocked_the_client_polls_and_posts_and_comes_back() {
    let mut server = FakeServer::new();
    let connecting = tokio::spawn(FakeServer::connect(server.builder()));
    let request = until_polled(&mut server).await;
    assert!(request.head.starts_with("GET /sdk/v1/snapshot HTTP/1.1"), "{}", request.head);
    request.respond("200 OK", &snapshot("h:1", true)).await;
    let client = connecting.await.unwrap().unwrap();
    client.ready(LONG).await.unwrap();
    assert!(is_on(&client));
    let posted = server.request().await;
    let batch = posted.batch();
    assert_eq!((batch.batch, batch.items.len(), batch.items[0].unit.as_str()), (1, 1, "user-42"));
    posted.respond("503 Service Unavailable", "").await;
    let posted = server.request().await;
    assert_eq!(posted.batch(), batch, "sent again until stored");
    posted.respond("200 OK", "{\"stored\":1}").await;
    client.flush(LONG).await.unwrap();
    let request = server.request().await;
    assert!(request.head.starts_with("GET /sdk/v1/snapshot?basis=h:1 "), "{}", request.head);
    request.respond("304 Not Modified", "").await;
    let mut peer = loop {
        let request = server.request().await;
        if request.head.starts_with("GET /sdk/v1/stream") {
            break request.accept().await;
        }
        request.respond("304 Not Modified", "").await;
    };
    assert_eq!(peer.hello().await.basis.unwrap().to_string(), "h:1");
    peer.welcome(1).await;
    peer.send(&current("h:1")).await;
    client.ready(LONG).await.unwrap();
    assert_eq!(peer.applied().await, "h:1");
}

async fn reconnect(server: &mut FakeServer, last_batch: u64) -> Peer {
    let mut peer = server.accept().await;
    peer.hello().await;
    peer.welcome(last_batch).await;
    peer.send(&current("h:1")).await;
    peer
}

#[tokio::test(start_paused = true)]
async fn exposures_are_sent_again_until_stored_and_then_no_more() {
    let mut server = FakeServer::new();
    let (client, mut peer) = server.serve(server.builder(), &snapshot("h:1", true)).await;
    is_on(&client);
    is_on(&client);
    let first = peer.batch().await;
    assert_eq!((first.batch, first.items.len(), first.instance.as_str()), (1, 1, "i-1"));
    let exposure = &first.items[0];
    assert_eq!((exposure.assigned.as_str(), exposure.delivered.as_str(), exposure.revision), ("on", "on", 1));
    drop(peer);
    let mut peer = reconnect(&mut server, 0).await;
    assert_eq!(peer.batch().await, first);
    assert!(client.bool("new-checkout", &Context::new("user-43"), false));
    let second = peer.batch().await;
    assert_eq!((second.batch, second.items[0].unit.as_str()), (2, "user-43"));
    drop(peer);
    // The first was stored although the acknowledgement was lost.
    let mut peer = reconnect(&mut server, 1).await;
    assert_eq!(peer.batch().await, second);
    let flushing = tokio::spawn({
        let client = client.clone();
        async move { client.flush(LONG).await }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!flushing.is_finished());
    peer.send(&ServerMessage::ExposuresStored { batch: 2 }).await;
    flushing.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_the_server_does_not_store_is_sent_again() {
    let mut server = FakeServer::new();
    let (client, mut peer) = server.serve(server.builder(), &snapshot("h:1", true)).await;
    assert!(is_on(&client));
    assert!(matches!(peer.next().await, Some(ClientMessage::Applied { .. })));
    let mut batches = Vec::new();
    while batches.len() < 2 {
        match peer.next().await.unwrap() {
            ClientMessage::Exposures(batch) => batches.push(batch),
            _ => peer.send(&ServerMessage::Heartbeat { revision: 1 }).await,
        }
    }
    assert_eq!(batches[0], batches[1]);
}

#[tokio::test(start_paused = true)]
async fn a_refused_batch_is_dropped_and_the_next_one_goes_on() {
    let mut server = FakeServer::new();
    let (client, mut peer) = server.serve(server.builder(), &snapshot("h:1", true)).await;
    is_on(&client);
    assert_eq!(peer.batch().await.batch, 1);
    peer.send(&ServerMessage::ExposuresRefused { batch: 1, reason: "no".to_owned() }).await;
    client.flush(LONG).await.unwrap();
    assert!(client.bool("new-checkout", &Context::new("b"), false));
    assert_eq!(peer.batch().await.batch, 2);
}

#[tokio::test(start_paused = true)]
async fn a_flush_that_is_not_answered_ends_at_its_deadline() {
    let mut server = FakeServer::new();
    let (client, _peer) = server.serve(server.builder(), &snapshot("h:1", true)).await;
    is_on(&client);
    let limit = Duration::from_millis(200);
    assert_eq!(client.flush(limit).await, Err(FlushError::TimedOut(limit)));
}

#[tokio::test(start_paused = true)]
async fn within_a_window_a_triple_is_reported_once() {
    let mut server = FakeServer::new();
    let (client, mut peer) = server.serve(server.builder(), &snapshot("h:1", true)).await;
    let beating = async {
        let mut batches = Vec::new();
        while batches.len() < 2 {
            is_on(&client);
            match peer.next().await.unwrap() {
                ClientMessage::Exposures(batch) => {
                    peer.send(&ServerMessage::ExposuresStored { batch: batch.batch }).await;
                    batches.push(batch);
                }
                _ => peer.send(&ServerMessage::Heartbeat { revision: 1 }).await,
            }
        }
        batches
    };
    let started = tokio::time::Instant::now();
    let batches = beating.await;
    assert!(started.elapsed() >= Duration::from_secs(60), "the second is of the next window");
    assert!(batches.iter().all(|batch| batch.items.len() == 1), "{batches:?}");
}

#[tokio::test(start_paused = true)]
async fn closing_flushes_says_goodbye_and_keeps_answering() {
    let mut server = FakeServer::new();
    let (client, mut peer) = server.serve(server.builder(), &snapshot("h:1", true)).await;
    is_on(&client);
    let closing = tokio::spawn({
        let client = client.clone();
        async move { client.close(LONG).await }
    });
    let batch = peer.batch().await.batch;
    peer.send(&ServerMessage::ExposuresStored { batch }).await;
    while peer.next().await.is_some() {}
    closing.await.unwrap().unwrap();
    assert_eq!((client.state(), is_on(&client)), (State::Closed, true));
    assert_eq!(client.flush(LONG).await, Err(FlushError::Closed));
    assert_eq!(client.ready(LONG).await, Err(NotReady::Closed));
    assert!(server.is_left_alone(LONG).await);
}

#[tokio::test(start_paused = true)]
async fn dropping_the_last_clone_ends_the_connection() {
    let mut server = FakeServer::new();
    let (client, mut peer) = server.serve(server.builder(), &snapshot("h:1", true)).await;
    let clone = client.clone();
    drop(client);
    peer.send(&ServerMessage::Heartbeat { revision: 1 }).await;
    assert!(matches!(peer.next().await, Some(ClientMessage::Applied { .. })));
    drop(clone);
    while peer.next().await.is_some() {}
    assert!(server.is_left_alone(LONG).await);
}

#[tokio::test(start_paused = true)]
async fn the_snapshot_file_serves_while_the_server_is_down() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("flags.json");
    let mut server = FakeServer::new();
    let (client, mut peer) = server.serve(server.builder().snapshot_file(&path), &snapshot("h:1", false)).await;
    peer.send_text(&patch(1, "h:2", true)).await;
    while client.revision().unwrap().number < 2 {
        peer.message().await;
    }
    drop(peer);
    client.close(LONG).await.unwrap();
    server.set_down(true);
    let client = FakeServer::connect(server.builder().snapshot_file(&path)).await.unwrap();
    assert_eq!((client.state(), is_on(&client)), (State::Stale, true));
    server.set_down(false);
    assert_eq!(server.accept().await.hello().await.basis.unwrap().to_string(), "h:2");
    // Damaged, it is as if it were not there.
    let mut bytes = std::fs::read(&path).unwrap();
    let last = bytes.len() - 10;
    bytes[last] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    server.set_down(true);
    let client = FakeServer::connect(server.builder().snapshot_file(&path)).await.unwrap();
    assert_eq!(client.state(), State::Initializing);
}

struct Seen(Arc<Mutex<Vec<String>>>);

impl Hook for Seen {
    fn before(&self, call: &Call<'_>) {
        self.0.lock().unwrap().push(format!("before {} {:?}", call.flag, call.context.targeting_key()));
    }

    fn after(&self, call: &Call<'_>, outcome: &Outcome<'_>) {
        self.0.lock().unwrap().push(format!("after {} {:?} {}", call.flag, outcome.variation, outcome.reason));
    }
}

#[tokio::test(start_paused = true)]
async fn hooks_see_every_evaluation() {
    let seen = Arc::default();
    let mut server = FakeServer::new();
    let builder = server.builder().hook(Seen(Arc::clone(&seen)));
    let (client, _peer) = server.serve(builder, &snapshot("h:1", true)).await;
    is_on(&client);
    let expected = ["before new-checkout Some(\"user-42\")", "after new-checkout Some(\"on\") STATIC"];
    assert_eq!(*seen.lock().unwrap(), expected);
}

#[tokio::test]
async fn what_is_printed_holds_no_secret() {
    let builder = super::Client::builder("https://user:pass-word@host", "sdk-secret");
    let mut printed = format!("{builder:?}");
    printed += &format!("{:?}", builder.connect().await.map(|_| ()));
    assert!(!printed.contains("sdk-secret") && !printed.contains("pass-word"), "{printed}");
    let refused = super::Client::builder("http://flags.example.com", "sdk-secret").connect().await;
    assert!(matches!(refused, Err(ConnectError::Config(super::ConfigError::Plaintext(_)))));
    let long = "x".repeat(super::MAX_NAME_BYTES + 1);
    for builder in [
        super::Client::builder("http://localhost", "k").application(long),
        super::Client::builder("http://localhost", "k").instance(""),
    ] {
        assert!(matches!(builder.connect().await, Err(ConnectError::Config(super::ConfigError::Name(_)))));
    }
    let refused = super::Client::builder("http://localhost", "two words").connect().await;
    assert!(matches!(refused, Err(ConnectError::Config(super::ConfigError::SdkKey))));
}
