//! `cargo bench -p guidon-sdk`: five workloads beside floors written by hand, in one run.
//!
//! A floor is straight-line code that does just that one evaluation on the same data: what a program would do that had no
//! flag service. Figures are medians of rounds that alternate between floor and evaluator, so that what else the machine
//! does meets both. With the feature `client` three more lines (P) show what a measured path costs beside a plain call. `-- W2` runs one workload; `-- W2 --floor 1000` and `-- W2 --guidon 1000` only so many calls of one side,
//! for counting instructions where the clock cannot be trusted.
#![allow(clippy::print_stdout, reason = "a benchmark prints its table")]

mod floors;
mod memory;
#[cfg(feature = "client")]
mod paths;
mod workloads;

use std::alloc::System;
use std::hint::black_box;
use std::time::{Duration, Instant};

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const ROUNDS: usize = 15;
const CALLS: usize = 200_000;

fn main() {
    // `cargo test --benches` runs the binary without `--bench`: then it only has to start.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    if std::env::args().any(|argument| argument == memory::MEMORY) {
        return memory::measure(ALLOCATOR);
    }
    let only: Option<String> = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let data = workloads::Data::new();
    if let (Some(only), Some((side, calls))) = (&only, one_side()) {
        return data.each(|name, floor, guidon| {
            if name.starts_with(only.as_str()) {
                (if side == "--floor" { floor } else { guidon })(calls);
            }
        });
    }
    println!("{:<44} {:>9} {:>9} {:>7} {:>12}", "workload", "floor ns", "guidon ns", "ratio", "allocations");
    let line = |name: &str, floor: &dyn Fn(usize), guidon: &dyn Fn(usize)| {
        if only.as_ref().is_some_and(|only| !name.starts_with(only.as_str())) {
            return;
        }
        let (floor_time, guidon_time) = alternate(floor, guidon);
        let region = Region::new(ALLOCATOR);
        guidon(workloads::USERS);
        let allocations = region.change().allocations as f64 / workloads::USERS as f64;
        let ratio = guidon_time / floor_time;
        println!("{name:<44} {floor_time:>9.1} {guidon_time:>9.1} {ratio:>7.2} {allocations:>12.2}");
    };
    data.each(line);
    #[cfg(feature = "client")]
    paths::each(line);
    if only.is_some() {
        return;
    }
    threads(&data);
    memory::report();
}

/// Which side is asked for alone, and how many calls of it.
fn one_side() -> Option<(String, usize)> {
    let mut arguments = std::env::args().skip_while(|argument| argument != "--floor" && argument != "--guidon");
    Some((arguments.next()?, arguments.next()?.parse().ok()?))
}

/// Median nanoseconds per call of both.
fn alternate(floor: &dyn Fn(usize), guidon: &dyn Fn(usize)) -> (f64, f64) {
    let (mut floors, mut guidons) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        floors.push(time(floor));
        guidons.push(time(guidon));
    }
    (median(floors), median(guidons))
}

fn time(call: &dyn Fn(usize)) -> f64 {
    let start = Instant::now();
    call(CALLS);
    start.elapsed().as_nanos() as f64 / CALLS as f64
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Throughput of two threads against one, beside work that shares nothing.
fn threads(data: &workloads::Data) {
    let one_and_two = |work: &(dyn Fn() + Sync)| {
        let mut gains: Vec<f64> = (0..5)
            .map(|_| {
                let alone = elapsed(work);
                let start = Instant::now();
                std::thread::scope(|scope| {
                    let other = scope.spawn(work);
                    work();
                    other.join().expect("the work does not panic");
                });
                2.0 * alone.as_secs_f64() / start.elapsed().as_secs_f64()
            })
            .collect();
        gains.sort_by(f64::total_cmp);
        gains[gains.len() / 2]
    };
    let calibration = one_and_two(&|| {
        let mut state = 1_u64;
        for _ in 0..40_000_000 {
            state = black_box(state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
        }
    });
    let guidon = one_and_two(&|| data.w5_guidon(400_000));
    println!("\n2 threads against 1: pure CPU {calibration:.2} x, guidon (W5) {guidon:.2} x");
}

fn elapsed(work: &(dyn Fn() + Sync)) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}
