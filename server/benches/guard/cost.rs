//! What a second costs: decisions on many releases, and merging the rows of a large fleet, on one thread.

use std::hint::black_box;
use std::time::Instant;

use guidon_sdk::measure::sketch::bucket;
use guidon_sdk::measure::{MetricRow, MetricsBatch, PATH_METRIC};
use guidon_sdk::protocol::ClientMessage;
use guidon_server::assignments::Origin;
use guidon_server::metrics::{
    Arm, InstanceId, Intake, IntakeLimits, MetricsHub, MetricsSink, Receipt, Row, Sender, Series, SeriesLimits, Tally,
    UnitMemory, WatchKey, WatchSpec,
};
use guidon_server::releases::guard::Guard;
use guidon_server::releases::guard::thresholds::Limit;

use crate::random::Random;
use crate::trial::{errors, latency, plan};

const RELEASES: usize = 1_000;
const INSTANCES: u64 = 1_000;
const FLAGS: usize = 20;
const SECONDS: u64 = 30;

pub fn print() {
    println!("\ncost on one thread, in milliseconds of computing");
    for (label, requests) in [("100 requests a second", 100), ("10,000 requests a second", 10_000)] {
        let (times, bytes) = decisions(requests);
        println!(
            "decide, {RELEASES} releases, {label:<26} {:>8.1} ms a second (median), {:>7.1} ms (worst), {bytes} bytes a release",
            times.0, times.1
        );
    }
    let (times, rows) = merging();
    println!(
        "merge, {INSTANCES} instances x {FLAGS} flags, {rows} rows a second      {:>8.1} ms a second (median), {:>7.1} ms (worst)",
        times.0, times.1
    );
    let (times, bytes) = receiving();
    let of_a_batch = times.0 * 1_000.0 / INSTANCES as f64;
    println!(
        "receive, JSON of {bytes} bytes a batch, {FLAGS} flags watched     {:>8.1} ms a second (median), {:>7.1} ms (worst), {of_a_batch:.0} us a batch",
        times.0, times.1
    );
}

/// One arm's row of a second with `requests` requests.
fn row(random: &mut Random, second: u64, arm: Arm, instance: u64, requests: u64) -> Row {
    let mut tally = Tally { count: requests, units: requests, units_at_risk: requests, ..Tally::default() };
    let mut first_latency = Vec::new();
    for _ in 0..requests {
        let micros = (10.8 + 0.5 * random.normal()).exp();
        tally.latency.record(micros);
        first_latency.extend(bucket(micros).map(|bucket| (random.bits(), bucket)));
        tally.values.record(micros / 1_000.0);
    }
    let failing = (0..requests).filter(|_| random.chance(0.01)).count();
    (tally.errors, tally.failing_units) = (failing as u64, failing as u64);
    let first_seen = (0..requests.min(5)).map(|_| random.bits()).collect();
    let first_failing = (0..failing).map(|_| random.bits()).collect();
    Row { second, arm, instance: InstanceId(instance), tally, first_seen, first_failing, first_latency }
}

/// Milliseconds that this thread has computed for: a crowded machine does not lengthen them. Where the system does not tell,
/// milliseconds that have passed.
fn now_ms(start: Instant) -> f64 {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let nanos = told.as_deref().and_then(|text| text.split(' ').next()).and_then(|first| first.parse::<f64>().ok());
    nanos.map_or_else(|| start.elapsed().as_secs_f64() * 1_000.0, |nanos| nanos / 1e6)
}

fn median_and_worst(mut times: Vec<f64>) -> (f64, f64) {
    times.sort_by(f64::total_cmp);
    (times[times.len() / 2], times[times.len() - 1])
}

/// Milliseconds of one second's decisions: moving the windows on and judging errors (compared and limited) and four latency
/// quantiles.
fn decisions(requests: u64) -> ((f64, f64), usize) {
    let mut random = Random::new(7);
    let limited = |mut guardrail: guidon_server::releases::guard::Guardrail, value| {
        guardrail.limit = Some(Limit { value, window_seconds: 30, minimum_sample: 50, breaches: 3 });
        guardrail
    };
    let plan = plan(vec![limited(errors(1.0), 0.2), limited(latency(1.0), 1e6)]);
    // A few different seconds, dealt out, so that making them up does not take longer than what is measured.
    let deal: Vec<(Row, Row)> = (0..8)
        .map(|_| {
            let (few, many) = (requests / 10, requests * 9 / 10);
            let mut memory = UnitMemory::default();
            let mut rows = [(Arm::Treatment, few), (Arm::Control, many)].map(|(arm, n)| row(&mut random, 0, arm, 0, n));
            rows.iter_mut().for_each(|row| row.count_firsts(&mut memory));
            let [treatment, control] = rows;
            (treatment, control)
        })
        .collect();
    let mut releases: Vec<(Guard, Series)> = (0..RELEASES)
        .map(|_| {
            let guard = Guard::new(&plan, 0.1).expect("the plan is sound");
            let mut series = Series::new(SeriesLimits::default(), 0);
            guard.windows().for_each(|(_, seconds)| assert!(series.keep_rolling(seconds)));
            (guard, series)
        })
        .collect();
    let (start, mut times) = (Instant::now(), Vec::new());
    for second in 0..SECONDS + 70 {
        for (number, (_, series)) in releases.iter_mut().enumerate() {
            let (treatment, control) = &deal[(number + second as usize) % deal.len()];
            for row in [treatment, control] {
                series.add(&Row { second, ..row.clone() }, second);
            }
        }
        let before = now_ms(start);
        for (guard, series) in &mut releases {
            series.advance(second + 1);
            black_box(guard.observe(second, &[("path", series)], 0));
        }
        // Only when all windows and thresholds are in use.
        if second >= 70 {
            times.push(now_ms(start) - before);
        }
    }
    let bytes = releases.iter().map(|(_, series)| series.bytes()).sum::<usize>() / RELEASES;
    (median_and_worst(times), bytes)
}

/// Milliseconds of merging one second's rows: duplicates looked up, firsts counted, rows filed.
fn merging() -> ((f64, f64), usize) {
    let mut random = Random::new(11);
    let mut rows: Vec<Vec<Row>> = (0..INSTANCES)
        .map(|instance| {
            (0..FLAGS)
                .flat_map(|_| [(Arm::Treatment, 1), (Arm::Control, 9)])
                .map(|(arm, requests)| row(&mut random, 0, arm, instance, requests))
                .collect()
        })
        .collect();
    let count = rows.iter().map(Vec::len).sum();
    let mut series: Vec<Series> = (0..FLAGS).map(|_| Series::new(SeriesLimits::default(), 0)).collect();
    let mut memory = vec![UnitMemory::default(); FLAGS];
    let mut intake = Intake::new(IntakeLimits { warm_up_seconds: 0, ..IntakeLimits::default() });
    let (start, mut times) = (Instant::now(), Vec::new());
    for second in 0..SECONDS {
        for row in rows.iter_mut().flatten() {
            row.second = second;
            row.first_seen = vec![random.bits()];
            row.first_latency = vec![(random.bits(), 500)];
            row.first_failing = if random.chance(0.1) { vec![random.bits()] } else { Vec::new() };
        }
        let before = now_ms(start);
        for (instance, batch) in rows.iter_mut().enumerate() {
            if intake.receive(InstanceId(instance as u64), 1, second, second) != (Receipt::New { warm: true }) {
                continue;
            }
            for (at, row) in batch.iter_mut().enumerate() {
                let flag = at / 2;
                row.count_firsts(&mut memory[flag]);
                series[flag].add(row, second);
            }
        }
        for series in &mut series {
            black_box(series.advance(second + 1));
        }
        times.push(now_ms(start) - before);
    }
    (median_and_worst(times), count)
}

/// What an instance sends for one second: for each flag one call of the treatment and nine of the control.
fn batch(random: &mut Random, instance: u64, second: u64) -> String {
    let of_arm = |random: &mut Random, flag: usize, arm, requests, variation: &str| {
        let row = row(random, second, arm, instance, requests);
        MetricRow {
            second,
            flag: format!("flag-{flag}"),
            variation: variation.to_owned(),
            metric: PATH_METRIC.to_owned(),
            revision: 7,
            count: row.tally.count,
            errors: row.tally.errors,
            units: row.tally.units,
            failing_units: row.tally.failing_units,
            units_at_risk: row.tally.units_at_risk,
            latency: row.tally.latency,
            // Most units were met before: a unit is new about once in ten calls.
            first_seen: vec![random.bits()],
            first_failing: row.first_failing,
            first_latency: vec![(random.bits(), 500)],
            ..MetricRow::default()
        }
    };
    let mut rows = Vec::new();
    for flag in 0..FLAGS {
        rows.push(of_arm(random, flag, Arm::Treatment, 1, "ai"));
        rows.push(of_arm(random, flag, Arm::Control, 9, "human"));
    }
    let batch = MetricsBatch { batch: second - BEGIN + 1, at: second * 1_000 + 1_005, rows, ..MetricsBatch::default() };
    serde_json::to_string(&ClientMessage::Metrics(batch)).expect("a batch is JSON")
}

/// The first second, since 1970.
const BEGIN: u64 = 1_800_000_000;

/// Milliseconds of one second's batches from the text that a connection reads to the series that releases watch, and the bytes of
/// one batch. What the socket, its frames and TLS cost is not in it.
fn receiving() -> ((f64, f64), usize) {
    let mut random = Random::new(13);
    let hub = MetricsHub::new(IntakeLimits { warm_up_seconds: 0, ..IntakeLimits::default() });
    let origin = Origin { project: "p".into(), environment: "e".into() };
    let keys: Vec<WatchKey> =
        (0..FLAGS).map(|flag| WatchKey { origin: origin.clone(), flag: format!("flag-{flag}") }).collect();
    for key in &keys {
        let spec = WatchSpec {
            release: "r".to_owned(),
            treatment: "ai".to_owned(),
            control: "human".to_owned(),
            metrics: vec![PATH_METRIC.to_owned()],
            windows: vec![(PATH_METRIC.to_owned(), 60)],
            min_revision: 1,
            seconds: 600,
        };
        hub.watch(key, spec, BEGIN * 1_000).expect("there is room");
    }
    let mut senders: Vec<Sender> =
        (0..INSTANCES).map(|instance| Sender::new(origin.clone(), &format!("instance-{instance}"), 1)).collect();
    let (start, mut times, mut bytes) = (Instant::now(), Vec::new(), 0);
    for second in BEGIN..BEGIN + SECONDS {
        let texts: Vec<String> = (0..INSTANCES).map(|instance| batch(&mut random, instance, second)).collect();
        bytes = texts.iter().map(String::len).sum::<usize>() / texts.len();
        let before = now_ms(start);
        for (sender, text) in senders.iter_mut().zip(&texts) {
            let Ok(ClientMessage::Metrics(batch)) = serde_json::from_str(text) else { panic!("a batch is read") };
            hub.receive(sender, batch, second * 1_000 + 1_010);
        }
        for key in &keys {
            hub.advance(key, (second + 2) * 1_000, |_, series, gaps| {
                black_box((series.len(), gaps));
            });
        }
        times.push(now_ms(start) - before);
    }
    (median_and_worst(times), bytes)
}
