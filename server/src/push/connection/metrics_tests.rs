//! Metrics and directives over a connection.

use guidon_sdk::measure::{MetricRow, MetricsBatch};
use guidon_sdk::protocol::Directive;
use parking_lot::Mutex;

use super::tests::*;
use super::*;
use crate::environments::Audience;
use crate::metrics::{MetricsSink, Sender};
use crate::push::{DirectiveSource, PushLimits, sample};
use crate::state::World;

#[derive(Default)]
struct Taken(Mutex<Vec<Option<u64>>>);

impl MetricsSink for Taken {
    fn receive(&self, _: &mut Sender, batch: MetricsBatch, _: u64) {
        self.0.lock().push(Some(batch.batch));
    }

    fn unreadable(&self, _: &mut Sender, _: &str) {
        self.0.lock().push(None);
    }
}

/// Every instance is routed away from `f` for a minute.
struct Away;

impl DirectiveSource for Away {
    fn directives(&self, _: &World, _: &str, _: &str, _: &str, _: u64) -> Vec<Directive> {
        vec![Directive { flag: "f".to_owned(), for_ms: 60_000 }]
    }
}

fn metering(limits: PushLimits) -> (Bench, Arc<Taken>) {
    let taken = Arc::new(Taken::default());
    let sink = Arc::clone(&taken);
    (Bench::with(limits, |hub| hub.with_metrics(sink)), taken)
}

fn batch(number: u64, rows: usize) -> ClientMessage {
    let rows = vec![MetricRow::default(); rows];
    ClientMessage::Metrics(MetricsBatch { batch: number, at: 5, rows, ..MetricsBatch::default() })
}

async fn next_merged(socket: &mut Socket) -> u64 {
    loop {
        if let ServerMessage::MetricsMerged { batch } = hear(socket).await {
            return batch;
        }
    }
}

#[tokio::test]
async fn batches_are_handed_on_and_acknowledged_and_crooked_ones_given_up() {
    let (bench, taken) = metering(PushLimits::default());
    let mut socket = bench.greet("a", None).await;
    say(&mut socket, &batch(1, 2)).await;
    assert_eq!(next_merged(&mut socket).await, 1);
    say_text(&mut socket, r#"{"kind":"metrics","batch":2,"at":"noon"}"#).await;
    assert_eq!(next_merged(&mut socket).await, 2);
    say(&mut socket, &ClientMessage::Heartbeat { at: Some(7) }).await;
    say(&mut socket, &batch(3, 0)).await;
    assert_eq!(next_merged(&mut socket).await, 3);
    assert_eq!(*taken.0.lock(), [Some(1), None, Some(3)]);
}

#[tokio::test]
async fn too_many_rows_and_too_many_batches_end_the_connection() {
    let (bench, _) = metering(PushLimits { max_metric_rows: 3, metric_batch_burst: 5, ..PushLimits::default() });
    let mut socket = bench.greet("a", None).await;
    say(&mut socket, &batch(1, 4)).await;
    assert_eq!(close_code(&mut socket).await, CLOSE_PROTOCOL_ERROR);
    let mut socket = bench.greet("a", None).await;
    for number in 0..50 {
        say(&mut socket, &batch(number, 1)).await;
    }
    assert_eq!(close_code(&mut socket).await, CLOSE_PROTOCOL_ERROR);
}

#[tokio::test]
async fn browsers_are_asked_for_none_and_given_none() {
    let (bench, taken) = metering(PushLimits::default());
    let mut socket = bench.connect(Audience::Client, 1 << 16).await;
    say(&mut socket, &hello("browser", None)).await;
    assert!(matches!(hear(&mut socket).await, ServerMessage::Welcome { max_metric_rows: 0, .. }));
    say(&mut socket, &batch(1, 1)).await;
    say_text(&mut socket, r#"{"kind":"metrics","batch":2,"at":"noon"}"#).await;
    say(&mut socket, &ClientMessage::Resync).await;
    while !matches!(hear(&mut socket).await, ServerMessage::Snapshot(_)) {}
    assert!(taken.0.lock().is_empty());
}

#[tokio::test]
async fn an_instance_is_told_its_directives_when_it_comes_and_when_they_change() {
    let bench = Bench::with(PushLimits::default(), |hub| hub.with_directives(Arc::new(Away)));
    let (mut one, mut two) = (bench.greet("a", None).await, bench.greet("b", None).await);
    for socket in [&mut one, &mut two] {
        let directives = next_directives(socket).await;
        assert!(directives.len() == 1 && directives[0].flag == "f" && directives[0].for_ms <= 60_000);
    }
    let next = [Directive { flag: "g".to_owned(), for_ms: 5_000 }];
    assert_eq!(bench.hub.direct("p", sample::ENVIRONMENT, "nobody", &next), 0);
    let told = bench.hub.direct(sample::PROJECT, sample::ENVIRONMENT, "a", &next);
    assert_eq!((told, next_directives(&mut one).await[0].flag.as_str()), (1, "g"));
    assert_eq!(bench.hub.direct(sample::PROJECT, sample::ENVIRONMENT, "a", &[]), 1);
    assert!(next_directives(&mut one).await.is_empty());
    assert_eq!(bench.hub.direct(sample::PROJECT, sample::ENVIRONMENT, "b", &[]), 1, "the other kept its own");
}

async fn next_directives(socket: &mut Socket) -> Vec<Directive> {
    loop {
        if let ServerMessage::Directives { directives } = hear(socket).await {
            return directives;
        }
    }
}

#[tokio::test]
async fn receipts_say_who_has_a_revision() {
    let mut bench = Bench::new(PushLimits::default());
    let (mut one, mut two) = (bench.greet("a", None).await, bench.greet("b", None).await);
    for socket in [&mut one, &mut two] {
        follow(socket, None, 2).await;
        say(socket, &ClientMessage::Applied { revision: "h:2".parse().unwrap() }).await;
    }
    bench.turn(true);
    say(&mut one, &ClientMessage::Applied { revision: "h:3".parse().unwrap() }).await;
    let receipts = bench.receipts_once(3, |receipts| receipts.acknowledged == 1).await;
    assert_eq!((receipts.connected, receipts.last_at), (2, Some(1_000)));
    let slowest: Vec<_> = receipts.slowest.iter().map(|slow| (slow.instance.as_str(), slow.at)).collect();
    assert_eq!(slowest, [("b", None), ("a", Some(1_000))]);
    assert_eq!(bench.receipts_once(2, |receipts| receipts.acknowledged == 2).await.acknowledged, 2);
    say(&mut two, &ClientMessage::Applied { revision: "h:3".parse().unwrap() }).await;
    // A revision that touched nothing here is there when the last one that did is.
    assert_eq!(bench.receipts_once(99, |receipts| receipts.acknowledged == 2).await.connected, 2);
}
