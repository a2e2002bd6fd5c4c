//! Rows by cases, from many threads, and beside a plain count.

use proptest::prelude::*;

use super::ledger::{Ledger, MAX_ROWS};
use super::*;
use crate::eval::{Ruleset, Unit};
use crate::measure::{MAX_FIRSTS, MetricRow};

/// What a release of flag `f` asks; `on` makes another edition of its configuration.
fn release(on: bool) -> Arc<Measures> {
    let flag = serde_json::json!({
        "key": "f", "kind": "boolean", "variations": [{"key": "a", "value": true}, {"key": "b", "value": false}],
        "config": {"on": on, "offVariation": "b", "fallthrough": {"variation": "a"}},
        "release": {"treatment": "a", "control": "b"},
    });
    let ruleset = Ruleset::compile([serde_json::from_value(flag).unwrap()], []);
    Arc::clone(ruleset.measures("f").unwrap())
}

fn series(variation: &str) -> Series<'_> {
    Series::new("f", variation, "path", 7)
}

fn call(unit: u64, failed: bool) -> Ran {
    Ran { micros: 1_000.0, failed, unit: Some(unit << 40) }
}

/// The rows of everything that was counted.
fn rows(ledger: &mut Ledger, windows: &Windows) -> Vec<MetricRow> {
    ledger.add(windows.take());
    ledger.close(u64::MAX)
}

#[test]
fn rows_of_many_threads_sum_exactly() {
    let windows = Windows::new();
    let release = release(true);
    let now = windows.timeline.end_of(windows.timeline.second(Instant::now()));
    std::thread::scope(|scope| {
        for thread in 0..24 {
            let (windows, release) = (&windows, &release);
            scope.spawn(move || {
                for number in 0..500_u64 {
                    let variation = if number % 2 == 0 { "a" } else { "b" };
                    windows.ran(now, series(variation), Some(release), call(number % 50, (number + thread) % 100 == 0));
                }
            });
        }
    });
    let rows = rows(&mut Ledger::default(), &windows);
    let told: Vec<_> =
        rows.iter().map(|row| (row.variation.as_str(), row.count, row.units, row.latency.count())).collect();
    assert_eq!(told, [("a", 6_000, 25, 6_000), ("b", 6_000, 25, 6_000)]);
    assert_eq!(rows.iter().map(|row| row.errors).sum::<u64>(), 24 * 5);
    assert!(rows.iter().all(|row| row.revision == 7 && row.second == windows.timeline.second(now)));
}

#[test]
fn a_unit_is_met_and_seen_failing_for_the_first_time_once() {
    let (windows, mut ledger) = (Windows::new(), Ledger::default());
    let (first, second) = (release(true), release(false));
    let start = windows.timeline.second(Instant::now());
    let at = |second| windows.timeline.end_of(start + second);
    windows.ran(at(0), series("a"), Some(&first), call(1, false));
    windows.ran(at(0), series("a"), Some(&first), call(1, true));
    windows.ran(at(0), series("a"), Some(&first), call(2, false));
    windows.ran(at(1), series("a"), Some(&first), call(1, true));
    windows.ran(at(1), series("a"), Some(&first), call(3, true));
    windows.ran(at(2), series("a"), Some(&second), call(1, true));
    ledger.add(windows.take());
    assert!(ledger.close(start + 1).is_empty(), "the second is not over");
    let rows = ledger.close(u64::MAX);
    let units: Vec<_> =
        rows.iter().map(|row| (row.count, row.errors, row.units, row.failing_units, row.units_at_risk)).collect();
    assert_eq!(units, [(3, 1, 2, 1, 2), (2, 2, 2, 2, 1), (1, 1, 1, 1, 0)]);
    let firsts: Vec<_> = rows.iter().map(|row| (row.first_seen.len(), &*row.first_failing)).collect();
    assert_eq!(firsts, [(2, &[1 << 40][..]), (1, &[3 << 40]), (1, &[])], "a new configuration: all are new again");
    // The period of latencies may end between two seconds of the test.
    assert_eq!(rows[0].first_latency.len(), 2);
}

#[test]
fn what_is_asked_for_no_release_and_no_unit_counts_calls_alone() {
    let windows = Windows::new();
    let now = Instant::now();
    windows.ran(now, series("a"), None, Ran { micros: 5.0, failed: true, unit: None });
    windows.value(now, Series::new("", "", "basket", 7), 2.5);
    windows.value(now, Series::new("", "", "basket", 7), 3.5);
    let rows = rows(&mut Ledger::default(), &windows);
    let basket = rows.iter().find(|row| row.metric == "basket").unwrap();
    assert_eq!((basket.count, basket.values.count, basket.values.mean()), (0, 2, Some(3.0)));
    let path = rows.iter().find(|row| row.metric == "path").unwrap();
    assert_eq!((path.count, path.errors, path.units, path.first_seen.len()), (1, 1, 0, 0));
}

#[test]
fn everything_has_a_limit_and_what_is_beyond_is_told() {
    let (windows, mut ledger) = (Windows::new(), Ledger::default());
    let (now, release) = (Instant::now(), release(true));
    for number in 0..MAX_ENTRIES as u64 + 10 {
        windows.value(now, Series::new("", "", "m", number), 1.0);
    }
    let taken = windows.take();
    assert_eq!((taken.0.len(), taken.1), (MAX_ENTRIES, 10));
    ledger.add(taken);
    assert_eq!(ledger.close(u64::MAX).len(), MAX_ROWS);
    assert_eq!(ledger.take_dropped() as usize, 10 + MAX_ENTRIES - MAX_ROWS);
    for unit in 0..MAX_SHARD_UNITS as u64 + 10 {
        let unit = Some(release.unit_hash(Unit::Integer(unit as i64)));
        windows.ran(now, series("a"), Some(&release), Ran { micros: 1.0, failed: false, unit });
    }
    let [row] = &rows(&mut ledger, &windows)[..] else { panic!("one row") };
    assert_eq!((row.count, row.units), (MAX_SHARD_UNITS as u64 + 10, MAX_SHARD_UNITS as u64));
    assert_eq!((row.first_seen.len(), row.first_latency.len()), (MAX_FIRSTS, MAX_FIRSTS));
}

proptest! {
    /// However calls are spread over takes, the rows add up, and none contradicts itself.
    #[test]
    fn rows_add_up(calls in prop::collection::vec((0_u64..20, any::<bool>(), 0_u64..4, any::<bool>()), 0..200)) {
        let (windows, mut ledger) = (Windows::new(), Ledger::default());
        let release = release(true);
        let start = windows.timeline.second(Instant::now());
        let mut made = Vec::new();
        for &(unit, failed, second, take) in &calls {
            windows.ran(windows.timeline.end_of(start + second), series("a"), Some(&release), call(unit, failed));
            if take {
                ledger.add(windows.take());
                made.extend(ledger.close(start + second));
            }
        }
        made.extend(rows(&mut ledger, &windows));
        prop_assert_eq!(made.iter().map(|row| row.count).sum::<u64>(), calls.len() as u64);
        prop_assert_eq!(made.iter().map(|row| row.errors).sum::<u64>(), calls.iter().filter(|call| call.1).count() as u64);
        for row in &made {
            prop_assert!(row.failing_units <= row.units && row.units_at_risk <= row.units && row.units <= row.count);
            prop_assert!(row.first_failing.len() as u64 <= row.units_at_risk && row.first_failing.len() as u64 <= row.failing_units);
        }
        let mut failing: Vec<u64> = made.iter().flat_map(|row| row.first_failing.clone()).collect();
        failing.sort_unstable();
        let mut expected: Vec<u64> = calls.iter().filter(|call| call.1).map(|call| call.0 << 40).collect();
        expected.sort_unstable();
        expected.dedup();
        prop_assert_eq!(failing, expected);
    }
}
