//! Bytes per flag in memory, and time to load flags.

use std::alloc::System;
use std::time::{Duration, Instant};

use guidon_sdk::eval::Ruleset;
use guidon_sdk::model::EnvironmentFlag;
use guidon_sdk::protocol::{PatchBody, SnapshotBody};
use guidon_sdk::snapshot::Snapshot;
use stats_alloc::{Region, StatsAlloc};

use crate::workloads::w2_flag;

const FLAGS: usize = 10_000;

/// The JSON of a snapshot of W2 flags, written piece by piece so that nothing large is freed before memory is measured.
fn snapshot_json() -> Vec<u8> {
    let mut json = br#"{"revision":"h:1","project":"p","environment":"e","segments":[],"flags":["#.to_vec();
    for number in 0..FLAGS {
        if number > 0 {
            json.push(b',');
        }
        serde_json::to_writer(&mut json, &w2_flag(&format!("flag-number-{number}"))).expect("JSON");
    }
    json.extend_from_slice(b"]}");
    json
}

/// Prints what loading costs, and runs itself once more, in a fresh process, for what it takes in memory.
pub(crate) fn report() {
    let json = snapshot_json();
    let body: SnapshotBody = serde_json::from_slice(&json).expect("a snapshot");
    let read = || -> Vec<EnvironmentFlag> {
        body.flags.iter().map(|flag| serde_json::from_str(flag.get()).expect("a definition")).collect()
    };
    let compile = fastest(|| {
        let definitions = read();
        let start = Instant::now();
        let ruleset = Ruleset::compile(definitions, []);
        (start.elapsed(), ruleset)
    });
    let parse_alone = fastest(|| {
        let start = Instant::now();
        let body: SnapshotBody = serde_json::from_slice(&json).expect("a snapshot");
        let flags: Vec<EnvironmentFlag> =
            body.flags.iter().map(|flag| serde_json::from_str(flag.get()).expect("a definition")).collect();
        (start.elapsed(), (body, flags))
    });
    let load = fastest(|| {
        let start = Instant::now();
        let snapshot = Snapshot::parse(&json).expect("a snapshot");
        (start.elapsed(), snapshot)
    });
    println!("\n10,000 W2 flags of {} bytes of JSON, which a snapshot keeps:", json.len() / FLAGS);
    println!(
        "load {:.2} us a flag; compiling alone {:.2} us, parsing the JSON alone {:.2} us",
        micros(load),
        micros(compile),
        micros(parse_alone)
    );
    let patch = one_flag_patch(&json);
    println!("patch of one flag {:.1} us", patch * 1e6);
    let child = std::env::current_exe()
        .and_then(|program| std::process::Command::new(program).args(["--bench", MEMORY]).status());
    if !child.is_ok_and(|status| status.success()) {
        println!("memory could not be measured: the benchmark could not run itself again");
    }
}

fn one_flag_patch(json: &[u8]) -> f64 {
    let snapshot = Snapshot::parse(json).expect("a snapshot");
    let flag = serde_json::value::to_raw_value(&w2_flag("flag-number-77")).expect("JSON");
    let patch = PatchBody {
        from: 0,
        revision: "h:2".parse().expect("a revision"),
        flags: vec![flag],
        removed_flags: Vec::new(),
        segments: Vec::new(),
        segment_keys: Vec::new(),
        removed_segments: Vec::new(),
    };
    let time = fastest(|| {
        let start = Instant::now();
        let next = snapshot.apply(&patch).expect("a patch that follows");
        (start.elapsed(), next)
    });
    time.as_secs_f64()
}

fn fastest<T>(mut run: impl FnMut() -> (Duration, T)) -> Duration {
    (0..9).map(|_| run().0).min().expect("nine rounds")
}

/// Argument that asks for [`measure`] alone.
pub(crate) const MEMORY: &str = "--memory";

/// Prints what four snapshots take in memory.
pub(crate) fn measure(allocator: &StatsAlloc<System>) {
    let json = snapshot_json();
    let (region, resident) = (Region::new(allocator), resident_bytes());
    let copies: Vec<Snapshot> = (0..4).map(|_| Snapshot::parse(&json).expect("a snapshot")).collect();
    let change = region.change();
    let heap = change.bytes_allocated - change.bytes_deallocated;
    let per_flag = |bytes: usize| bytes / FLAGS / copies.len();
    println!("heap {} bytes a flag", per_flag(heap));
    match (resident, resident_bytes()) {
        (Some(before), Some(after)) => println!("resident {} bytes a flag", per_flag(after.saturating_sub(before))),
        _ => println!("resident bytes are not known on this platform"),
    }
}

fn micros(time: std::time::Duration) -> f64 {
    time.as_secs_f64() * 1e6 / FLAGS as f64
}

fn resident_bytes() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/statm").ok()?;
    Some(status.split(' ').nth(1)?.parse::<usize>().ok()? * 4_096)
}
