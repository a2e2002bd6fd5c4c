use guidon_sdk::measure::{HostReading, MetricRow};
use proptest::prelude::*;

use super::super::{Arm, Pair};
use super::*;

const NOW: u64 = 1_800_000_000;

fn origin(environment: &str) -> Origin {
    Origin { project: "p".into(), environment: environment.into() }
}

fn key() -> WatchKey {
    WatchKey { origin: origin("prod"), flag: "summary".to_owned() }
}

fn spec(min_revision: u64) -> WatchSpec {
    WatchSpec {
        release: "r1".to_owned(),
        treatment: "ai".to_owned(),
        control: "human".to_owned(),
        metrics: vec!["path".to_owned(), "tokens".to_owned()],
        windows: vec![("path".to_owned(), 10)],
        min_revision,
        seconds: 60,
    }
}

fn row(variation: &str, second: u64, count: u64) -> MetricRow {
    MetricRow {
        second,
        flag: "summary".to_owned(),
        variation: variation.to_owned(),
        metric: "path".to_owned(),
        revision: 7,
        count,
        ..MetricRow::default()
    }
}

fn batch(number: u64, at: u64, rows: Vec<MetricRow>) -> MetricsBatch {
    MetricsBatch { batch: number, at, rows, ..MetricsBatch::default() }
}

fn warm() -> MetricsHub {
    MetricsHub::new(IntakeLimits { warm_up_seconds: 0, ..IntakeLimits::default() })
}

fn read(hub: &MetricsHub, now_ms: u64) -> Vec<(u64, u64, u64, u64)> {
    let mut all = Vec::new();
    assert!(hub.advance(&key(), now_ms, |second, series, gaps| {
        let pair = series.iter().find(|(metric, _)| *metric == "path").unwrap().1.last_read().unwrap();
        all.push((second, pair.treatment.count, pair.control.count, gaps));
    }));
    all
}

#[test]
fn rows_are_filed_by_the_servers_clock() {
    let hub = warm();
    hub.watch(&key(), spec(7), NOW * 1_000).unwrap();
    // An hour fast, and five minutes slow.
    for (instance, offset) in [("fast", 3_600_i64), ("slow", -300), ("right", 0)] {
        let mut sender = Sender::new(origin("prod"), instance, 1);
        let theirs = NOW.checked_add_signed(offset).unwrap();
        let rows = vec![row("ai", theirs, 1), row("human", theirs, 9), row("third", theirs, 5)];
        hub.receive(&mut sender, batch(1, (theirs + 1) * 1_000 + 20, rows), (NOW + 1) * 1_000 + 25);
    }
    assert_eq!(read(&hub, (NOW + 1) * 1_000 + 300), [(NOW, 3, 27, 0)]);
    assert_eq!(read(&hub, (NOW + 1) * 1_000 + 900), [], "a second is read once");
}

#[test]
fn what_is_sent_twice_counts_once_and_what_is_missing_is_a_gap() {
    let hub = warm();
    hub.watch(&key(), spec(7), NOW * 1_000).unwrap();
    let mut sender = Sender::new(origin("prod"), "one", 5);
    for number in [1, 1, 3, 3] {
        hub.receive(&mut sender, batch(number, NOW * 1_000, vec![row("ai", NOW, 1)]), NOW * 1_000);
    }
    let mut earlier = Sender::new(origin("prod"), "one", 4);
    hub.receive(&mut earlier, batch(9, NOW * 1_000, vec![row("ai", NOW, 1)]), NOW * 1_000);
    assert_eq!(read(&hub, (NOW + 1) * 1_000), [(NOW, 2, 0, 1)]);
    assert_eq!(read(&hub, (NOW + GAP_AWAY) * 1_000).last().unwrap().3, 0, "an instance that is away is not waited for");
}

const GAP_AWAY: u64 = super::super::GAP_SECONDS + 2;

#[test]
fn cold_instances_other_revisions_and_other_environments_do_not_count() {
    let hub = MetricsHub::new(IntakeLimits::default());
    hub.watch(&key(), spec(7), NOW * 1_000).unwrap();
    let mut cold = Sender::new(origin("prod"), "one", 1);
    hub.receive(&mut cold, batch(1, NOW * 1_000, vec![row("ai", NOW, 1)]), NOW * 1_000);
    assert!(hub.instances(&key(), NOW * 1_000).is_empty());
    let later = NOW + 10;
    let earlier_revision = MetricRow { revision: 6, ..row("ai", later, 100) };
    hub.receive(&mut cold, batch(2, later * 1_000, vec![row("ai", later, 2), earlier_revision]), later * 1_000);
    let mut elsewhere = Sender::new(origin("test"), "one", 1);
    hub.receive(&mut elsewhere, batch(1, later * 1_000, vec![row("ai", later, 50)]), later * 1_000);
    let counted: u64 = read(&hub, (later + 1) * 1_000).iter().map(|(_, treatment, ..)| treatment).sum();
    assert_eq!(counted, 2);
    let mut totals = Vec::new();
    hub.totals(|origin, name, total| {
        totals.push((origin.environment.to_string(), name.variation.to_owned(), total.count));
    });
    totals.sort();
    assert_eq!(totals, [("prod".to_owned(), "ai".to_owned(), 103), ("test".to_owned(), "ai".to_owned(), 50)]);
}

#[test]
fn steps_exclusions_and_the_end_of_a_watch() {
    let hub = warm();
    assert!(!hub.begin_step(&key(), 8, NOW * 1_000) && !hub.advance(&key(), NOW * 1_000, |_, _, _| ()));
    hub.watch(&key(), spec(7), NOW * 1_000).unwrap();
    let mut one = Sender::new(origin("prod"), "one", 1);
    let host = Some(HostReading { cpu: Some(0.5), ..HostReading::default() });
    let first = MetricsBatch { host, ..batch(1, NOW * 1_000, vec![row("ai", NOW, 1)]) };
    hub.receive(&mut one, first, NOW * 1_000);
    let [tally] = hub.instances(&key(), NOW * 1_000).try_into().unwrap();
    assert_eq!((tally.instance.as_str(), tally.treatment.count, tally.host), ("one", 1, host));
    assert!(hub.begin_step(&key(), 8, NOW * 1_000));
    let present = |count| MetricRow { revision: 8, ..row("ai", NOW, count) };
    hub.receive(&mut one, batch(2, NOW * 1_000, vec![row("ai", NOW, 1), present(3)]), NOW * 1_000);
    hub.exclude(&key(), BTreeSet::from(["one".to_owned()]));
    hub.receive(&mut one, batch(3, NOW * 1_000, vec![present(100)]), NOW * 1_000);
    assert_eq!(read(&hub, (NOW + 1) * 1_000), [(NOW, 3, 0, 0)]);
    hub.unwatch(&key());
    assert!(!hub.advance(&key(), NOW * 1_000, |_, _, _| ()));
}

#[test]
fn environments_are_bounded_and_silent_ones_make_room() {
    let hub = warm();
    for number in 0..MAX_ENVIRONMENTS + 5 {
        let mut sender = Sender::new(origin(&format!("e{number}")), "one", 1);
        hub.receive(&mut sender, batch(1, NOW * 1_000, vec![row("ai", NOW, 1)]), NOW * 1_000);
    }
    assert_eq!(hub.environments.len(), MAX_ENVIRONMENTS);
    let much_later = (NOW + IDLE_SECONDS) * 1_000;
    assert!(hub.watch(&key(), spec(7), much_later).is_ok());
    assert_eq!(hub.environments.len(), 1);
}

/// One row of one instance: the second it was counted in, the arm, and how much later its batch came.
type Made = (u64, bool, u64, u64);

/// Everything that was merged, in whatever second it was filed.
fn merged(rows: &[Made]) -> (Pair, u64) {
    let hub = warm();
    hub.watch(&key(), spec(7), NOW * 1_000).unwrap();
    let mut senders: Vec<Sender> = (0..3).map(|at| Sender::new(origin("prod"), &format!("i{at}"), 1)).collect();
    for (number, &(second, treatment, instance, _)) in rows.iter().enumerate() {
        let sender = &mut senders[instance as usize];
        let variation = if treatment { "ai" } else { "human" };
        let sent = (NOW + 12) * 1_000;
        hub.receive(sender, batch(number as u64, sent, vec![row(variation, NOW + second, 1 + second)]), sent);
    }
    let mut total = Pair::default();
    hub.advance(&key(), (NOW + 30) * 1_000, |_, series, _| {
        total.merge(series.iter().find(|(metric, _)| *metric == "path").unwrap().1.last_read().unwrap());
    });
    let mut counted = 0;
    hub.totals(|_, _, total| counted += total.count);
    (total, counted)
}

proptest! {
    #[test]
    fn nothing_is_lost_and_order_does_not_matter(
        mut rows in prop::collection::vec((0_u64..10, any::<bool>(), 0_u64..3, 0_u64..5), 0..60),
    ) {
        let (pair, counted) = merged(&rows);
        let sum = |arm: Arm| {
            rows.iter().filter(|row| row.1 == (arm == Arm::Treatment)).map(|row| 1 + row.0).sum::<u64>()
        };
        prop_assert_eq!((pair.treatment.count, pair.control.count), (sum(Arm::Treatment), sum(Arm::Control)));
        prop_assert_eq!(counted, pair.treatment.count + pair.control.count);
        rows.sort_by_key(|row| row.3);
        prop_assert_eq!(merged(&rows).0, pair);
    }
}
