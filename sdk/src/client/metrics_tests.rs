//! What is measured, on its way to a server that the test plays. Time is paused.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::json;

use super::fake_server::{FakeServer, Peer};
use super::{Client, ClientBuilder};
use crate::measure::{HostReading, MetricRow, MetricsBatch};
use crate::model::Context;
use crate::protocol::{ClientMessage, Directive, ServerMessage};

const LONG: Duration = Duration::from_secs(600);

/// Flag `f` under release, serving `variation` to everybody.
fn snapshot(revision: &str, variation: &str, release: serde_json::Value) -> String {
    json!({
        "kind": "snapshot", "revision": revision, "project": "p", "environment": "e", "segments": [],
        "flags": [{
            "key": "f", "kind": "string",
            "variations": [
                {"key": "ai", "value": "ai", "provenance": {"by": "ai"}},
                {"key": "base", "value": "base", "provenance": {"by": "human"}},
            ],
            "config": {"on": true, "offVariation": "base", "fallthrough": {"variation": variation}},
            "release": release,
        }],
    })
    .to_string()
}

async fn start(server: &mut FakeServer, snapshot: &str) -> (Client, Peer) {
    let builder = server.builder();
    start_by(server, builder, snapshot).await
}

async fn start_by(server: &mut FakeServer, builder: ClientBuilder, snapshot: &str) -> (Client, Peer) {
    let connecting = tokio::spawn(builder.exposures(false).connect());
    let mut peer = server.accept().await;
    peer.hello().await;
    peer.welcome_metrics(0, 10).await;
    peer.send_text(snapshot).await;
    (connecting.await.unwrap().unwrap(), peer)
}

async fn run(client: &Client, unit: &str, fails: bool) -> &'static str {
    let context = Context::new(unit);
    let ai = async || if fails { Err(()) } else { Ok("AI") };
    let baseline = async || {
        tokio::time::sleep(Duration::from_millis(100)).await;
        "human"
    };
    client.path("f", &context).ai(ai).baseline(baseline).run_async().await
}

#[tokio::test(start_paused = true)]
async fn a_second_of_calls_is_a_batch_and_sent_again_until_merged() {
    let mut server = FakeServer::new();
    let (client, mut peer) =
        start(&mut server, &snapshot("h:3", "ai", json!({"treatment": "ai", "control": "base"}))).await;
    assert_eq!(run(&client, "u", true).await, "human");
    assert_eq!(run(&client, "v", false).await, "AI");
    let batch = peer.metrics().await;
    let rows = &batch.rows;
    assert_eq!((batch.batch, batch.dropped, rows[0].flag.as_str(), rows[0].variation.as_str()), (1, 0, "f", "ai"));
    assert_eq!(
        rows.iter().map(|row| (row.count, row.errors, row.revision)).fold((0, 0, 3), |sum, row| {
            assert_eq!(row.2, sum.2);
            (sum.0 + row.0, sum.1 + row.1, sum.2)
        }),
        (2, 1, 3)
    );
    let slowest = rows.iter().filter_map(|row| row.latency.quantile(1.0)).fold(0.0, f64::max);
    assert!((99_000.0..=101_000.0).contains(&slowest), "the baseline's time is part of the call: {slowest}");
    assert!(rows.iter().flat_map(|row| &row.first_failing).eq([&crate::measure::unit_hash("f", "u")]));
    assert!(batch.at / 1000 > rows[0].second);
    drop(peer);
    let mut peer = server.accept().await;
    peer.hello().await;
    peer.welcome_metrics(0, 10).await;
    peer.send(&ServerMessage::Current { revision: "h:3".parse().unwrap() }).await;
    let again = peer.metrics().await;
    assert_eq!((again.batch, &again.rows), (1, rows));
    peer.send(&ServerMessage::MetricsMerged { batch: 1 }).await;
    run(&client, "w", false).await;
    client.flush(LONG).await.unwrap();
    let next = peer.metrics().await;
    assert_eq!((next.batch, next.rows[0].count), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn cpu_time_and_sums_of_any_size_arrive() {
    let mut server = FakeServer::new();
    let release = json!({"treatment": "ai", "control": "base", "cpu": true});
    let (client, mut peer) = start(&mut server, &snapshot("h:3", "base", release)).await;
    client.track("bytes", &Context::new("u"), 1e9);
    run(&client, "u", false).await;
    client.flush(LONG).await.unwrap();
    let mut rows = Vec::new();
    // A second may end between the two.
    while !rows.iter().any(|row: &MetricRow| row.metric == "path") {
        rows.extend(peer.metrics().await.rows);
    }
    let bytes = rows.iter().find(|row| row.metric == "bytes").unwrap();
    assert_eq!((bytes.values.mean(), bytes.values.sum_squares), (Some(1e9), 10_u128.pow(30)));
    let cpu = rows.iter().find(|row| row.metric == "cpu");
    let told = cpu.map(|row| (&*row.flag, &*row.variation, row.values.count, row.revision));
    assert_eq!(told, cfg!(target_os = "linux").then_some(("f", "base", 1, 3)));
}

#[tokio::test(start_paused = true)]
async fn the_host_is_read_once_a_second_and_never_late() {
    let mut server = FakeServer::new();
    let read = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&read);
    let builder = server.builder().host_readings(move || {
        let number = counter.fetch_add(1, Ordering::Relaxed);
        HostReading { queue_depth: Some(number as f64), ..HostReading::default() }
    });
    let (_client, mut peer) = start_by(&mut server, builder, &snapshot("h:3", "ai", json!(null))).await;
    let (first, second) = (peer.metrics().await, peer.metrics().await);
    let depth = |batch: &MetricsBatch| batch.host.unwrap().queue_depth.unwrap();
    assert_eq!((depth(&second), second.rows.len()), (depth(&first) + 1.0, 0));
    assert!((950..=1050).contains(&(second.at - first.at)), "{} {}", first.at, second.at);
    server.set_down(true);
    drop(peer);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = read.load(Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(read.load(Ordering::Relaxed), before, "nobody is there to be told");
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_says_when_and_an_empty_second_says_nothing() {
    let mut server = FakeServer::new();
    let (_client, mut peer) = start(&mut server, &snapshot("h:3", "ai", json!(null))).await;
    assert!(matches!(peer.next().await, Some(ClientMessage::Applied { .. })));
    for _ in 0..2 {
        match peer.next().await {
            Some(ClientMessage::Heartbeat { at: Some(at) }) => assert!(at > 1_600_000_000_000),
            other => panic!("{other:?} instead of a heartbeat with the time"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_measured_while_the_server_was_away_is_kept_for_a_while() {
    let mut server = FakeServer::new();
    let (client, peer) = start(&mut server, &snapshot("h:3", "base", json!(null))).await;
    server.set_down(true);
    drop(peer);
    run(&client, "u", false).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    run(&client, "v", false).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    server.set_down(false);
    let mut peer = loop {
        let request = server.request().await;
        if request.head.starts_with("GET /sdk/v1/stream") {
            break request.accept().await;
        }
        request.respond("503 Service Unavailable", "").await;
    };
    peer.hello().await;
    peer.welcome_metrics(0, 10).await;
    let batch = peer.metrics().await;
    assert_eq!((batch.dropped, batch.rows[0].count, batch.rows[0].units), (1, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_is_routed_away_gets_the_baseline_and_measures_nothing() {
    let mut server = FakeServer::new();
    let release = json!({"treatment": "ai", "control": "base", "metrics": ["basket"]});
    let (client, mut peer) = start(&mut server, &snapshot("h:3", "ai", release)).await;
    let directive = Directive { flag: "f".to_owned(), for_ms: 5_000 };
    peer.send(&ServerMessage::Directives { directives: vec![directive] }).await;
    while client.directives().is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    drop(peer);
    assert_eq!(run(&client, "u", false).await, "human");
    client.track("basket", &Context::new("u"), 2.0);
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert!(client.directives().is_empty(), "it ends by itself");
    assert_eq!(run(&client, "u", false).await, "AI");
    client.track("basket", &Context::new("u"), 4.0);
    client.track("path", &Context::new("u"), 4.0);
    client.track("basket", &Context::new("u"), f64::NAN);
    let windows = client.inner.shared.windows.as_ref().unwrap();
    let mut ledger = super::windows::ledger::Ledger::default();
    ledger.add(windows.take());
    let rows = ledger.close(u64::MAX);
    let told: Vec<_> = rows.iter().map(|row| (&*row.flag, &*row.variation, &*row.metric)).collect();
    assert_eq!(told, [("", "", "basket"), ("f", "ai", "basket"), ("f", "ai", "path")]);
    assert_eq!(ledger.take_dropped(), 2);
}
