//! Bad input thrown at a real server: it answers with a problem document or closes the connection, and goes on.

mod frames;
mod json;
mod requests;

use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::counts::count;
use crate::support::{ServerOptions, ServerProcess};

/// Largest memory that the server may ever have used while it was fuzzed, in KiB.
const MAX_PEAK_KIB: u64 = 512 << 10;

fn server() -> ServerProcess {
    let limits = ["--max-writes-per-second", "1000000", "--max-refusals-per-second", "1000000"];
    let arguments = limits.map(str::to_owned).to_vec();
    ServerProcess::start_with(ServerOptions { arguments, ..ServerOptions::default() })
}

/// Runs the same inputs each time, so that a failure comes back.
fn runner(reduced: usize, full: usize) -> (TestRunner, usize) {
    let cases = count(reduced, full);
    let config =
        Config { cases: u32::try_from(cases).expect("a small count"), failure_persistence: None, ..Config::default() };
    (TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32])), cases)
}

/// The server still answers, and its memory stayed within bounds. Answers its peak in KiB, where the system tells.
fn check_alive(server: &ServerProcess) -> Option<u64> {
    assert_eq!(server.client.get("/healthz").status, 200);
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.id())).ok()?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let peak = peak.trim().trim_end_matches(" kB").parse().ok()?;
    assert!(peak < MAX_PEAK_KIB, "the server used {peak} KiB");
    Some(peak)
}
