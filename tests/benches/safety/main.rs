//! How long a release that goes wrong does harm, with real processes:
//! `cargo bench -p guidon-tests --bench safety -- [RUNS] [errors|latency|cpu|healthy|all] [SECONDS]`.
//!
//! Each run has a server and eight instances of `examples/progressive-rollout` of its own, at 200 requests a second each, and
//! a canary at 5 %. The AI path goes wrong some seconds into the release; what counts is the time from the first bad request to
//! the last one in any instance. Healthy runs last SECONDS each and count what the guard does without a reason. RUNS is 10 and
//! SECONDS 60 unless given. `--profile dev` measures what `cargo build` has built.
#![allow(clippy::print_stdout, reason = "a benchmark prints its table")]

#[path = "../../support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the tests use the rest")]
mod support;

mod scene;

use std::time::Duration;

use scene::{Healthy, Incident, Scene};

/// The ways to go wrong, as the instances know them.
const FAULTS: [&str; 3] = ["errors", "latency", "cpu"];

fn main() {
    // `cargo test --all-targets` runs this too, and means only that it starts.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let mut numbers = arguments.iter().filter_map(|argument| argument.parse().ok());
    let (runs, seconds) = (numbers.next().unwrap_or(10), numbers.next().unwrap_or(60));
    let words: Vec<&str> = arguments.iter().map(String::as_str).filter(|word| word.parse::<u64>().is_err()).collect();
    let is_wanted = |part: &str| words.is_empty() || words.contains(&"all") || words.contains(&part);
    if let Some(word) = words.iter().find(|word| !FAULTS.contains(word) && !["healthy", "all"].contains(word)) {
        println!("{word}: say errors, latency, cpu, healthy or all");
        std::process::exit(2);
    }
    println!("cargo bench -p guidon-tests --bench safety -- {}", arguments.join(" "));
    println!(
        "{} instances at {} requests a second, canary at {} %",
        scene::INSTANCES,
        scene::RATE,
        scene::SHARE / 1_000
    );
    let mut table = Vec::new();
    for fault in FAULTS.into_iter().filter(|fault| is_wanted(fault)) {
        table.push((fault, (1..=runs).map(|seed| wrong(fault, seed)).collect::<Vec<_>>()));
    }
    if is_wanted("healthy") {
        healthy(runs, Duration::from_secs(seconds));
    }
    if !table.is_empty() {
        print(&table);
    }
}

/// One run that goes wrong; what came of it, if the release was taken back.
fn wrong(fault: &str, seed: u64) -> Option<Incident> {
    print!("{fault:<8} seed {seed:<3} ");
    match Scene::open(seed).go_wrong(fault) {
        Ok(found) => {
            println!(
                "{:6.2} s to the last bad request, {:6.2} s to the decision, {:4} ms from there  load {}  {}",
                found.bad_s(),
                found.decision_s(),
                found.spread_ms(),
                load_average(),
                found.reason
            );
            Some(found)
        }
        Err(why) => {
            println!("{why}  load {}", load_average());
            None
        }
    }
}

fn healthy(runs: u64, lasting: Duration) {
    let mut counts = Healthy::default();
    for seed in 1..=runs {
        let found = Scene::open(seed).stay_healthy(lasting);
        println!(
            "healthy  seed {seed:<3} {} rolled back, {} held, {} instances routed away  load {}  {}",
            found.rolled_back,
            found.held,
            found.routed,
            load_average(),
            found.reason
        );
        counts += found;
    }
    println!(
        "\nhealthy: {runs} releases of {} s: {} rolled back, {} held, {} instances routed away",
        lasting.as_secs(),
        counts.rolled_back,
        counts.held,
        counts.routed
    );
}

fn print(table: &[(&str, Vec<Option<Incident>>)]) {
    println!(
        "\n{:8} {:>9}   {:^26}   {:^26}   {:^26}",
        "", "", "first to last bad, s", "first bad to decision, s", "from there, ms"
    );
    let head = format!("{:>8} {:>8} {:>8}", "median", "p95", "worst");
    println!("{:8} {:>9}   {head}   {head}   {head}", "fault", "caught");
    for (fault, runs) in table {
        let caught: Vec<&Incident> = runs.iter().flatten().collect();
        let column = |of: fn(&Incident) -> f64, digits: usize| {
            let mut values: Vec<f64> = caught.iter().map(|found| of(found)).collect();
            values.sort_by(f64::total_cmp);
            let at = |part: f64| {
                let place = (part * values.len() as f64).ceil() as usize;
                values.get(place.saturating_sub(1)).copied().unwrap_or(f64::NAN)
            };
            [0.5, 0.95, 1.0].map(|part| format!("{:8.digits$}", at(part))).join(" ")
        };
        println!(
            "{fault:8} {:>9}   {}   {}   {}",
            format!("{}/{}", caught.len(), runs.len()),
            column(Incident::bad_s, 2),
            column(Incident::decision_s, 2),
            column(|found| found.spread_ms() as f64, 0)
        );
    }
}

/// Processes that wanted to run, over the last minute: a busy machine is slower.
fn load_average() -> String {
    let told = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    told.split(' ').next().unwrap_or_default().to_owned()
}
