//! `cargo bench -p guidon-server --bench guard -- [PART [RUNS [THREADS]]]`: what the guard finds, what it finds wrongly, and
//! what it costs.
//!
//! Parts: `plain` (the setting of textbooks), `power` and `healthy` (a day as it is, see `world.rs`), `cost`; without one, all of
//! them in a small size. The full size is `healthy 2000`, `power 200`, `plain 1000`. Seeds are 1000 and up, one for each run.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark prints its tables")]

#[path = "guard/cost.rs"]
mod cost;
#[path = "guard/random.rs"]
mod random;
#[path = "guard/rivals.rs"]
mod rivals;
#[path = "guard/trial.rs"]
mod trial;
#[path = "guard/world.rs"]
mod world;

use rivals::On;
use trial::{Outcome, Setting, errors, latency, many, plan};
use world::{Crowd, Fault, Kind};

const HOUR: u64 = 3_600;

fn main() {
    // `cargo test --benches` runs the binary without `--bench`: then it only has to start.
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    if !arguments.iter().any(|argument| argument == "--bench") {
        return;
    }
    arguments.retain(|argument| argument != "--bench");
    let part = arguments.first().map_or("all", String::as_str);
    let runs = |otherwise| arguments.get(1).and_then(|runs| runs.parse().ok()).unwrap_or(otherwise);
    let threads = arguments.get(2).and_then(|threads| threads.parse().ok()).unwrap_or(2).max(1);
    let crowd = Crowd::zipf(0.9);
    let wanted = |name| part == name || part == "all";
    if wanted("plain") {
        power(Kind::Plain, &crowd, runs(100), threads);
    }
    if wanted("power") {
        power(Kind::Real, &crowd, runs(20), threads);
    }
    if wanted("healthy") {
        healthy(&crowd, runs(20), threads);
    }
    if wanted("cost") {
        cost::print();
    }
}

/// Delays at 10 % canary, 1 % base rate, 100 requests a second.
fn power(kind: Kind, crowd: &Crowd, runs: u64, threads: u64) {
    let name = if kind == Kind::Plain { "plain" } else { "real" };
    println!("\n{name} world, 10 % canary, 100 requests a second, {runs} runs, seeds 1000..{}", 1_000 + runs);
    println!("seconds from the fault to the call: median / p95 (share found in 2 hours)");
    println!(
        "{:<28}{:>22}{:>22}{:>22}{:>24}",
        "fault", "guard", "z every 10 s", "mSPRT every 10 s", "z once (horizon)"
    );
    // The horizon is planned for 80 % power at twice the smallest effect of each kind, as an experimenter would.
    for (name, fault, on, horizon) in [
        ("errors +0.5 points", Fault::Errors(0.005), On::Errors, 1_300),
        ("errors +1 point", Fault::Errors(0.01), On::Errors, 1_300),
        ("errors +4 points", Fault::Errors(0.04), On::Errors, 1_300),
        ("errors +5 points", Fault::Errors(0.05), On::Errors, 1_300),
        ("errors +19 points", Fault::Errors(0.19), On::Errors, 1_300),
        ("latency +10 %", Fault::Slower(1.1), On::Latency, 600),
        ("latency +25 %", Fault::Slower(1.25), On::Latency, 600),
        ("latency +100 %", Fault::Slower(2.0), On::Latency, 600),
    ] {
        let guardrail = if matches!(on, On::Errors) { errors(1.0) } else { latency(1.0) };
        let setting = Setting {
            kind,
            plan: alone(guardrail),
            steps: vec![(2 * HOUR, 0.1)],
            requests_per_second: 100.0,
            fault,
            healthy: 0,
            on,
            horizon,
            stop: true,
        };
        let outcomes = many(&setting, crowd, runs, threads);
        print_power(name, &outcomes, horizon);
    }
    let late = Setting {
        kind,
        plan: alone(errors(1.0)),
        steps: vec![(HOUR, 0.01), (2 * HOUR, 0.1)],
        requests_per_second: 100.0,
        fault: Fault::Errors(0.04),
        healthy: 2 * HOUR,
        on: On::Errors,
        horizon: 1_300,
        stop: true,
    };
    print_power("+4 points after 2 h of health", &many(&late, crowd, runs, threads), 1_300);
}

/// One guardrail with the whole alpha, as the rivals have it.
fn alone(guardrail: guidon_server::releases::guard::Guardrail) -> guidon_server::releases::guard::GuardPlan {
    guidon_server::releases::guard::GuardPlan { ratio_series: None, ..plan(vec![guardrail]) }
}

fn print_power(name: &str, outcomes: &[Outcome], horizon: u64) {
    let cell = |pick: fn(&Outcome) -> Option<u64>| {
        let mut delays: Vec<u64> = outcomes.iter().map(|outcome| pick(outcome).unwrap_or(u64::MAX)).collect();
        delays.sort_unstable();
        let show = |at: usize| delays.get(at).filter(|delay| **delay < u64::MAX).map_or("-".to_owned(), u64::to_string);
        let found = delays.iter().filter(|delay| **delay < u64::MAX).count() * 100 / delays.len().max(1);
        format!("{} / {} ({found} %)", show(delays.len() / 2), show(delays.len() * 95 / 100))
    };
    let fixed = outcomes.iter().filter(|outcome| outcome.fixed.is_some()).count() * 100 / outcomes.len().max(1);
    println!(
        "{name:<28}{:>22}{:>22}{:>22}{:>24}",
        cell(|outcome| outcome.guard),
        cell(|outcome| outcome.peeked),
        cell(|outcome| outcome.msprt),
        format!("{horizon} ({fixed} %)")
    );
}

/// Healthy releases of six hours, 1 % for one, 5 % for two, 25 % for three.
fn healthy(crowd: &Crowd, runs: u64, threads: u64) {
    println!("\n{runs} healthy releases of 6 hours (1, 5, 25 %), 100 requests a second, seeds 1000..{}", 1_000 + runs);
    println!("called wrongly: share of releases, with its 95 % interval");
    for (name, kind) in [("plain", Kind::Plain), ("real", Kind::Real)] {
        if kind == Kind::Plain && runs > 100 {
            continue;
        }
        let setting = Setting {
            kind,
            plan: plan(vec![errors(1.0), latency(1.0)]),
            steps: vec![(HOUR, 0.01), (2 * HOUR, 0.05), (3 * HOUR, 0.25)],
            requests_per_second: 100.0,
            fault: Fault::None,
            healthy: 0,
            on: On::Errors,
            horizon: 0,
            stop: false,
        };
        let outcomes = many(&setting, crowd, runs, threads);
        let share = |label: &str, holds: fn(&Outcome) -> bool| {
            let hits = outcomes.iter().filter(|outcome| holds(outcome)).count() as f64;
            let (low, high) = wilson(hits, outcomes.len() as f64);
            println!(
                "{name:<6} {label:<38} {:>6.2} %   ({:.2} to {:.2} %)",
                100.0 * hits / outcomes.len() as f64,
                100.0 * low,
                100.0 * high
            );
        };
        share("guard, rolled back", |outcome| outcome.guard.is_some());
        share("  of these by errors", |outcome| outcome.by == Some(0));
        share("  of these by latency", |outcome| outcome.by == Some(1));
        share("guard, held for the sample ratio", |outcome| outcome.ratio);
        share("z-test once at the end of each step", |outcome| outcome.fixed.is_some());
        share("z-test every 10 s", |outcome| outcome.peeked.is_some());
        share("mSPRT every 10 s", |outcome| outcome.msprt.is_some());
    }
}

/// Wilson's interval of a share.
fn wilson(hits: f64, of: f64) -> (f64, f64) {
    let z2 = 1.96_f64 * 1.96;
    let (share, spread) = (hits / of, 1.0 + z2 / of);
    let half = 1.96 * (share * (1.0 - share) / of + z2 / (4.0 * of * of)).sqrt();
    (((share + z2 / (2.0 * of) - half) / spread).max(0.0), (share + z2 / (2.0 * of) + half) / spread)
}
