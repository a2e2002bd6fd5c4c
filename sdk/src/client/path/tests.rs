//! Which code runs, and what the record says of it.

use std::future::pending;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::*;
use crate::client::breaker::{BreakerSettings, BreakerState};
use crate::client::windows::Windows;
use crate::protocol::Revision;
use crate::snapshot::Snapshot;

/// A client whose flag `f` serves `variation`, and the exposures it makes.
fn client(variation: &str) -> (Client, mpsc::Receiver<Exposure>) {
    client_with(variation, None)
}

/// As [`client`], with a circuit breaker.
fn client_with(variation: &str, breaker: Option<BreakerSettings>) -> (Client, mpsc::Receiver<Exposure>) {
    client_of(variation, breaker, serde_json::Value::Null)
}

/// As [`client_with`], with what a release asks.
pub(super) fn client_of(
    variation: &str,
    breaker: Option<BreakerSettings>,
    release: serde_json::Value,
) -> (Client, mpsc::Receiver<Exposure>) {
    let flag = serde_json::from_value(serde_json::json!({
        "key": "f", "kind": "string",
        "variations": [
            {"key": "old", "value": "old"},
            {"key": "ai", "value": "ai", "provenance": {"by": "ai"}},
            {"key": "base", "value": "base", "provenance": {"by": "human"}},
        ],
        "config": {"on": true, "offVariation": "old", "fallthrough": {"variation": variation}},
        "release": release,
    }))
    .unwrap();
    let revision = Revision { history: "h".to_owned(), number: 3 };
    let (client, exposures) = Client::recording(Vec::new(), breaker, Some(Windows::new()), 100);
    client.serve_offline(Snapshot::from_definitions(revision, "p", "e", &[flag], &[]).unwrap());
    (client, exposures)
}

fn next(exposures: &mut mpsc::Receiver<Exposure>) -> (String, String, Cause) {
    let exposure = exposures.try_recv().unwrap();
    assert_eq!((exposure.unit.as_str(), exposure.revision), ("u", 3));
    (exposure.assigned, exposure.delivered, exposure.cause)
}

fn triple(assigned: &str, delivered: &str, cause: Cause) -> (String, String, Cause) {
    (assigned.to_owned(), delivered.to_owned(), cause)
}

fn ok(answer: &str) -> Result<&str, ()> {
    Ok(answer)
}

#[test]
fn the_ai_path_runs_only_for_those_who_are_assigned_to_it() {
    for (variation, flag, answer) in
        [("ai", "f", "AI"), ("base", "f", "human"), ("old", "f", "human"), ("ai", "g", "human")]
    {
        let (client, mut exposures) = client(variation);
        let context = Context::new("u");
        for _ in 0..2 {
            assert_eq!(
                client.path(flag, &context).ai(|| ok("AI")).baseline(|| "human").run(),
                answer,
                "{variation} {flag}"
            );
        }
        if flag == "f" {
            assert_eq!(next(&mut exposures), triple(variation, variation, Cause::Normal));
        }
        assert!(exposures.try_recv().is_err(), "recorded once, and nothing for a flag that is not there");
    }
}

#[test]
fn a_failed_ai_path_is_answered_by_the_baseline_and_recorded_each_time() {
    let (client, mut exposures) = client("ai");
    let context = Context::new("u");
    for _ in 0..2 {
        let detail = client.path("f", &context).baseline(|| "human").ai(|| Err("broken")).run_detail();
        assert_eq!(
            (detail.value, detail.ran, detail.cause, detail.error),
            ("human", Ran::Baseline, Cause::Error, Some("broken"))
        );
        assert_eq!(detail.assigned.as_deref(), Some("ai"));
        assert_eq!(next(&mut exposures), triple("ai", "base", Cause::Error));
    }
    let handle = client.flag("f");
    let detail =
        handle.path(&context).ai(|| -> Result<&str, ()> { panic!("the AI path's mistake") }).baseline(|| "human");
    assert_eq!(detail.run(), "human");
    assert_eq!(next(&mut exposures), triple("ai", "base", Cause::Panic));
    assert_eq!(client.path("f", &context).ai(|| ok("AI")).baseline(|| "human").run(), "AI");
    assert_eq!(next(&mut exposures), triple("ai", "ai", Cause::Normal));
}

#[test]
fn without_a_unit_the_path_is_chosen_and_nothing_recorded() {
    let (client, mut exposures) = client("ai");
    let context = Context::anonymous();
    assert_eq!(client.path("f", &context).ai(|| ok("AI")).baseline(|| "human").run(), "AI");
    assert_eq!(client.path("f", &context).ai(|| Err::<&str, _>(())).baseline(|| "human").run(), "human");
    assert!(exposures.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn an_async_ai_path_that_fails_panics_or_is_late_is_answered_by_the_baseline() {
    let (client, mut exposures) = client("ai");
    let context = Context::new("u");
    let path = || client.path("f", &context).baseline(async || "human").timeout(Duration::from_secs(1));
    assert_eq!(path().ai(async || ok("AI")).run_async().await, "AI");
    assert_eq!(next(&mut exposures), triple("ai", "ai", Cause::Normal));
    assert_eq!(path().ai(async || Err::<&str, _>(())).run_async().await, "human");
    assert_eq!(next(&mut exposures), triple("ai", "base", Cause::Error));
    assert_eq!(path().ai(async || -> Result<&str, ()> { panic!("the AI path's mistake") }).run_async().await, "human");
    assert_eq!(next(&mut exposures), triple("ai", "base", Cause::Panic));
    let late = path().ai(pending::<Result<&str, ()>>).run_async_detail().await;
    assert_eq!((late.value, late.ran, late.cause), ("human", Ran::Baseline, Cause::Timeout));
    assert_eq!(next(&mut exposures), triple("ai", "base", Cause::Timeout));
}

#[tokio::test(start_paused = true)]
async fn a_dropped_future_is_cancelled_and_not_failed() {
    let (client, mut exposures) = client("ai");
    let context = Context::new("u");
    let path = client.path("f", &context).ai(pending::<Result<&str, ()>>).baseline(async || "human");
    let limited = tokio::time::timeout(Duration::from_secs(5), path.run_async());
    assert!(limited.await.is_err());
    assert_eq!(next(&mut exposures), triple("ai", "ai", Cause::Cancelled));
    assert!(!Cause::Cancelled.is_failure());
    // A path that was never polled has decided nothing.
    drop(client.path("f", &context).ai(pending::<Result<&str, ()>>).baseline(async || "human").run_async());
    assert!(exposures.try_recv().is_err());
}

#[test]
fn a_timeout_outside_a_runtime_is_no_panic() {
    let (client, _exposures) = client("ai");
    let context = Context::new("u");
    let path = client.path("f", &context).ai(async || ok("AI")).baseline(async || "human").timeout(Duration::ZERO);
    assert_eq!(futures_util::FutureExt::now_or_never(path.run_async()), Some("AI"));
}

#[tokio::test]
async fn a_path_can_be_run_on_another_task() {
    let (client, _exposures) = client("ai");
    let client = Arc::new(client);
    let task = tokio::spawn(async move {
        let context = Context::new("u");
        client.path("f", &context).ai(async || ok("AI")).baseline(async || "human").run_async().await
    });
    assert_eq!(task.await.unwrap(), "AI");
}

#[test]
fn a_path_that_keeps_failing_is_left_alone_and_the_record_says_so() {
    let (client, mut exposures) = client_with("ai", Some(BreakerSettings::default().failures(3)));
    let context = Context::new("u");
    let mut tried = 0;
    let mut run = || {
        let ai = || {
            tried += 1;
            Err::<&str, _>("broken")
        };
        client.path("f", &context).ai(ai).baseline(|| "human").run_detail()
    };
    for _ in 0..3 {
        assert_eq!(run().cause, Cause::Error);
    }
    for _ in 0..5 {
        let detail = run();
        assert_eq!((detail.value, detail.ran, detail.cause), ("human", Ran::Baseline, Cause::Breaker));
        assert_eq!((detail.assigned.as_deref(), detail.error), (Some("ai"), None), "assigned is what it was");
    }
    assert_eq!(tried, 3);
    for cause in [Cause::Error, Cause::Error, Cause::Error, Cause::Breaker] {
        assert_eq!(next(&mut exposures), triple("ai", "base", cause));
    }
    assert!(exposures.try_recv().is_err(), "what the breaker does is recorded once a window");
    let [report] = &client.breakers()[..] else { panic!("one breaker has opened") };
    assert_eq!((report.flag.as_str(), report.variation.as_str()), ("f", "ai"));
    assert_eq!((report.state, report.opened, report.skipped), (BreakerState::Open, 1, 5));
}

#[test]
fn a_panic_in_a_probe_and_a_dropped_probe_do_not_leave_the_breaker_stuck() {
    let (client, _exposures) = client_with("ai", Some(BreakerSettings::default().failures(3)));
    let context = Context::new("u");
    let fail = || client.path("f", &context).ai(|| -> Result<&str, ()> { panic!("broken") }).baseline(|| "human").run();
    for _ in 0..4 {
        assert_eq!(fail(), "human");
    }
    assert_eq!(client.breakers()[0].skipped, 1);
}

/// Rows of what was counted: metric, variation, and the sum of the values in milliseconds.
fn cpu_rows(client: &Client) -> Vec<(String, String, f64)> {
    let mut ledger = crate::client::windows::ledger::Ledger::default();
    ledger.add(client.inner.shared.windows.as_ref().unwrap().take());
    let mut rows = ledger.close(u64::MAX);
    rows.retain(|row| row.metric == crate::measure::CPU_METRIC);
    let sum = |row: &crate::measure::MetricRow| row.values.mean().unwrap() * row.values.count as f64 / 1e3;
    rows.into_iter().map(|row| (row.metric.clone(), row.variation.clone(), sum(&row))).collect()
}

#[cfg(target_os = "linux")]
const CPU: Duration = Duration::from_millis(20);

/// Takes this much CPU time of the thread.
#[cfg(target_os = "linux")]
fn burn(time: Duration) {
    let began = crate::client::cpu::thread_time().unwrap();
    while crate::client::cpu::thread_time().unwrap() - began < time {
        std::hint::spin_loop();
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn cpu_time_of_either_path_and_of_a_fallback_is_counted_when_a_release_asks() {
    let ai = |fails: bool| {
        burn(CPU);
        std::thread::sleep(CPU);
        if fails { Err(()) } else { Ok("AI") }
    };
    let baseline = || {
        burn(CPU);
        "human"
    };
    for (variation, fails, laps) in [("ai", false, 1.0), ("ai", true, 2.0), ("base", false, 1.0)] {
        let asked = serde_json::json!({"treatment": "ai", "control": "base", "cpu": true});
        let (client, _exposures) = client_of(variation, None, asked);
        let context = Context::new("u");
        client.path("f", &context).ai(|| ai(fails)).baseline(baseline).run();
        // Each future is polled twice; what others do between counts for nobody.
        let other = async {
            burn(CPU);
            tokio::task::yield_now().await;
            burn(CPU);
        };
        let halves = async || {
            burn(CPU / 2);
            tokio::task::yield_now().await;
            burn(CPU / 2);
        };
        let path = client.path("f", &context).timeout(Duration::from_secs(5));
        let path = path.ai(async || {
            halves().await;
            if fails { Err(()) } else { Ok("AI") }
        });
        let path = path.baseline(async || {
            halves().await;
            "human"
        });
        tokio::join!(path.run_async(), other);
        let rows = cpu_rows(&client);
        assert!(rows.iter().all(|row| row.1 == variation), "{rows:?}");
        let sum: f64 = rows.iter().map(|row| row.2).sum();
        let least = 2.0 * laps * 20.0;
        assert!(sum >= least && sum < least * 1.2, "{variation} {fails}: {sum} ms, not {least}");
    }
}

#[test]
fn cpu_time_that_no_release_asks_for_is_not_counted() {
    for release in [serde_json::Value::Null, serde_json::json!({"treatment": "ai", "control": "base"})] {
        let (client, _exposures) = client_of("ai", None, release);
        client.path("f", &Context::new("u")).ai(|| ok("AI")).baseline(|| "human").run();
        assert!(cpu_rows(&client).is_empty());
    }
}
