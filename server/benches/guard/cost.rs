//! What a second costs: decisions on many releases, and merging the rows of a large fleet, on one thread.

use std::hint::black_box;
use std::time::Instant;

use guidon_sdk::measure::sketch::bucket;
use guidon_server::metrics::{
    Arm, InstanceId, Intake, IntakeLimits, Receipt, Row, Series, SeriesLimits, Tally, UnitMemory,
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
