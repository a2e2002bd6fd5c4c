//! `cargo bench -p guidon-server --bench anomaly`: what a point costs, and what a series keeps.
#![allow(clippy::print_stdout, reason = "a benchmark prints its table")]

use std::hint::black_box;
use std::time::Instant;

use guidon_server::anomaly::Detector;

const POINTS: usize = 1_000_000;
/// Points timed together: one alone is shorter than the clock's own cost.
const BATCH: usize = 100;

fn main() {
    // `cargo test --benches` runs the binary without `--bench`: then it only has to start.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    println!("points                 {POINTS:>9}, in batches of {BATCH}");
    for (what, series) in [("steady noise", noise as fn(usize, f64) -> f64), ("daily, with spikes", daily)] {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let values: Vec<f64> = (0..POINTS)
            .map(|index| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                series(index, (state >> 11) as f64 / (1_u64 << 53) as f64)
            })
            .collect();
        let mut detector = Detector::new();
        let mut at_ms = 0;
        let mut times: Vec<f64> = values
            .chunks(BATCH)
            .map(|batch| {
                let start = Instant::now();
                for value in batch {
                    at_ms += 60_000;
                    black_box(detector.observe(at_ms, *value).is_ok());
                }
                start.elapsed().as_nanos() as f64 / 1_000.0 / batch.len() as f64
            })
            .collect();
        let mean = times.iter().sum::<f64>() / times.len() as f64;
        times.sort_by(f64::total_cmp);
        let at = |share: usize| times[times.len() * share / 100];
        println!("{what:<22} mean {mean:>6.3} us   median {:>6.3} us   p99 {:>6.3} us a point", at(50), at(99));
        println!("{:<22} {:>9} bytes in memory", "", detector.bytes());
        let stored = serde_json::to_vec(&detector).expect("the state is plain data");
        println!("{:<22} {:>9} bytes as JSON", "", stored.len());
    }
}

fn noise(_: usize, uniform: f64) -> f64 {
    100.0 + uniform
}

fn daily(index: usize, uniform: f64) -> f64 {
    let hour = (index % 1_440) as f64 / 60.0;
    let spike = if index.is_multiple_of(5_000) { 1_000.0 } else { 0.0 };
    100.0 + 50.0 * (hour / 24.0 * std::f64::consts::TAU).sin() + uniform + spike
}
