//! The examples, run as their READMEs say.

use std::path::Path;
use std::process::Command;

use crate::support::binary;

/// The whole show of `ai-vs-baseline`: a server, the program, a ramp, a kill, and every assignment read back.
#[test]
fn ai_vs_baseline_is_ramped_and_killed_from_outside() {
    let binaries = binary().parent().expect("a folder of binaries");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/ai-vs-baseline/run");
    let output = Command::new(script).arg("--short").env("GUIDON_BINARIES", binaries).output().expect("the script");
    let (printed, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{printed}\n{errors}");

    let total = printed.split_once("\ntotal").map(|(_, total)| total).expect("a total");
    let words = |engine: &str| -> u64 {
        let line = total.lines().find(|line| line.trim_start().starts_with(engine)).expect("a line for each engine");
        line.split_whitespace().nth(1).and_then(|count| count.parse().ok()).expect("a count")
    };
    assert!(words("ai") > 0, "at 100 % the AI path answers:\n{printed}");
    assert!(words("baseline") > 0, "at 1 % and once killed the baseline answers:\n{printed}");

    let killed = printed.split_once("flag off spelling-engine").map(|(_, after)| after).expect("a kill");
    let last =
        killed.rsplit("\n   ").find(|interval| interval.contains("Ready, revision")).expect("an interval after it");
    assert!(last.contains("AI 0.0 %"), "once killed, nobody gets the AI path:\n{printed}");

    let stored = printed.lines().find_map(|line| line.strip_suffix(" assignments stored")).expect("a count of them");
    let stored: u64 = stored.parse().expect("a number");
    let fell_back: u64 = total
        .lines()
        .find_map(|line| line.trim_start().strip_prefix("fell back"))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .expect("a count");
    assert_eq!(stored, words("ai") + words("baseline") + fell_back, "every assignment is stored once:\n{printed}");
}

/// The story of `environments-as-code`: files applied, promoted to production with an approval, drifted by hand and put back.
#[test]
fn environments_as_code_go_to_production_and_back_in_order() {
    let binaries = binary().parent().expect("a folder of binaries");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/environments-as-code/run");
    let output = Command::new(script).env("GUIDON_BINARIES", binaries).output().expect("the script");
    let (printed, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{printed}\n{errors}");

    let after = |text: &str| -> String {
        let (_, rest) = printed.split_once(text).unwrap_or_else(|| panic!("no {text:?} in\n{printed}\n{errors}"));
        rest.to_owned()
    };
    let applied = after("dora$ guidon apply -f project --yes -m The\\ project\\ as\\ files");
    assert!(applied.contains("+ summary-engine: "), "{printed}");
    for (to, from) in [("staging", "testing"), ("production", "staging")] {
        let promoted = after(&format!("dora$ guidon promote --all --from {from} --to {to}"));
        let promoted = promoted.split("dora$").next().unwrap_or_default();
        assert!(promoted.contains("opened change request cr-"), "{printed}");
        assert!(promoted.contains("rene$ guidon request apply"), "{printed}");
    }
    let production = after("dora$ guidon promote --all --from staging --to production");
    assert!(production.contains("anna$ guidon request approve"), "{printed}");
    let rehearsed = after("dora$ guidon rollback drill summary-engine --environment staging");
    assert!(rehearsed.contains("The drill passed"), "{printed}");
    let back = after("rene$ guidon rollback summary-engine --environment production");
    assert!(back.contains("Revision ") && back.contains("(exit code 2)"), "{printed}");
    let by_hand = after("dora$ guidon flag off new-inbox");
    let (by_hand, _) = by_hand.split_once("rene$ guidon rollback").expect("the rollback comes after it");
    assert!(by_hand.contains("~ testing / new-inbox: "), "{printed}");
    assert_eq!(by_hand.matches("(exit code 2)").count(), 2, "drift is caught twice:\n{printed}");
    assert_eq!(by_hand.matches("(exit code 0)").count(), 2, "and gone:\n{printed}");
    assert!(back.contains("copy.yaml:4:") && back.contains("(exit code 6)"), "{printed}");
}

/// The two releases of `progressive-rollout`, with steps of three seconds: one goes to everybody, one is taken back and locked.
#[test]
fn progressive_rollout_completes_and_then_takes_itself_back() {
    let binaries = binary().parent().expect("a folder of binaries");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/progressive-rollout/run");
    let output = Command::new(script).arg("--short").env("GUIDON_BINARIES", binaries).output().expect("the script");
    let (printed, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{printed}\n{errors}");

    let (healthy, bad) = printed.split_once("\n# The next build").expect("a second release");
    assert!(healthy.contains("(exit code 0)"), "{printed}\n{errors}");
    assert!(bad.contains("(exit code 11)"), "{printed}\n{errors}");
    let seconds = bad.split_once("to the last in any instance: ").and_then(|(_, rest)| rest.split(' ').next());
    let seconds: f64 = seconds.and_then(|seconds| seconds.parse().ok()).expect("a time");
    // Machines that run tests are busy; the benchmark `safety` measures.
    assert!(seconds < 20.0, "{printed}\n{errors}");
    assert!(bad.contains("guidon incident close inc-"), "{printed}\n{errors}");
}

/// The switches of `blue-green`, under load: there, back, there again, and no request fails.
#[test]
fn blue_green_switches_and_no_request_fails() {
    let binaries = binary().parent().expect("a folder of binaries");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/blue-green/run");
    let output = Command::new(script).env("GUIDON_BINARIES", binaries).output().expect("the script");
    let (printed, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{printed}\n{errors}");

    let asked: Vec<&str> =
        printed.lines().filter_map(|line| line.split_once(" is answered by ")).map(|(_, by)| by).collect();
    assert_eq!(
        asked,
        ["green", "blue", "green", "blue", "green"],
        "the tester, and then everybody:\n{printed}\n{errors}"
    );
    let load = printed.lines().find_map(|line| line.strip_prefix("load in all: ")).expect("a count of the requests");
    let count = |name: &str| -> u64 {
        let word = load.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        word.and_then(|count| count.parse().ok()).expect("a count")
    };
    assert!(count("blue") > 100 && count("green") > 100 && count("failed") == 0, "{printed}\n{errors}");
}
