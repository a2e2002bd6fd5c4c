//! When both paths run, and what is counted of them.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use super::*;
use crate::client::path::tests::client_of;
use crate::client::windows::ledger::Ledger;
use crate::model::Context;
use crate::protocol::Directive;

fn release(shadow: u32) -> Value {
    json!({"treatment": "ai", "control": "base", "shadow": shadow})
}

/// Calls or values, errors, units, the values' sum, and the longest latency in milliseconds.
type Sums = (u64, u64, u64, f64, f64);

/// What was counted, by metric and variation.
#[derive(Default)]
struct Counted(BTreeMap<(String, String), Sums>);

impl Counted {
    fn more(&mut self, client: &Client) {
        let mut ledger = Ledger::default();
        ledger.add(client.inner.shared.windows.as_ref().unwrap().take());
        for row in ledger.close(u64::MAX) {
            let counted = self.0.entry((row.metric, row.variation)).or_default();
            let values = row.values.count;
            counted.0 += row.count + values;
            counted.1 += row.errors;
            counted.2 = counted.2.max(row.units);
            counted.3 += row.values.mean().unwrap_or_default() * values as f64;
            counted.4 = counted.4.max(row.latency.quantile(1.0).unwrap_or_default() / 1e3);
        }
    }

    fn of(&self, metric: &str, variation: &str) -> Sums {
        self.0.get(&(metric.to_owned(), variation.to_owned())).copied().unwrap_or_default()
    }

    /// Waits for the background.
    fn until(&mut self, client: &Client, runs: u64) {
        for _ in 0..2_000 {
            self.more(client);
            if self.of(MATCH_METRIC, "base").0 >= runs {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("{runs} runs are not counted: {:?}", self.0);
    }
}

#[test]
fn the_baseline_answers_and_both_are_counted() {
    let (client, mut exposures) = client_of("base", None, release(SHARES));
    let context = Context::new("u");
    let mut counted = Counted::default();
    let ais: [fn() -> Result<u32, ()>; 5] = [|| Ok(1), || Ok(2), || Err(()), || panic!("its mistake"), || Ok(77)];
    for (number, ai) in ais.into_iter().enumerate() {
        let path = client.path("f", &context).ai(ai).baseline(|| 1).shadow(|human, ai| {
            assert!(*ai < 77, "the comparison's mistake");
            human == ai
        });
        let detail = path.run_detail();
        assert_eq!((detail.value, detail.ran, detail.cause), (1, super::super::Ran::Baseline, Cause::Normal));
        assert_eq!((detail.assigned.as_deref(), detail.error), (Some("base"), None));
        counted.until(&client, number as u64 + 1);
        // What the run was busy is paid for.
        while lock_free(&client).is_none() {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    let told = |metric, variation| {
        let (count, errors, units, sum, _) = counted.of(metric, variation);
        (count, errors, units, sum)
    };
    assert_eq!(told(SHADOW_METRIC, "ai"), (5, 2, 1, 0.0));
    assert_eq!(told(SHADOW_METRIC, "base"), (5, 0, 1, 0.0));
    assert_eq!((told(MATCH_METRIC, "ai"), told(MATCH_METRIC, "base")), ((5, 0, 0, 1.0), (5, 0, 0, 5.0)));
    assert_eq!((told("path", "base"), told("path", "ai")), ((5, 0, 1, 0.0), (0, 0, 0, 0.0)));
    assert_eq!(exposures.try_recv().unwrap().delivered, "base");
    assert!(exposures.try_recv().is_err(), "nobody was served the AI path");
}

/// A place that is given back at once, if there is one.
fn lock_free(client: &Client) -> Option<()> {
    Place::take(&client.inner.shared, true).map(drop)
}

#[test]
fn only_the_control_of_a_shadow_step_runs_both() {
    static RUNS: AtomicUsize = AtomicUsize::new(0);
    let context = Context::new("u");
    let cases =
        [("ai", release(SHARES), 1), ("old", release(SHARES), 0), ("base", release(0), 0), ("base", Value::Null, 0)];
    let human_treatment = json!({"treatment": "old", "control": "base", "shadow": SHARES});
    for (variation, release, runs) in cases.into_iter().chain([("base", human_treatment, 0)]) {
        let (client, _exposures) = client_of(variation, None, release.clone());
        let ai = || Ok::<_, ()>(RUNS.fetch_add(1, Ordering::Relaxed));
        let path = client.path("f", &context).ai(ai).baseline(|| 0).shadow(|_, _| true);
        path.run();
        assert_eq!(client.shadows(), Default::default());
        assert_eq!(RUNS.swap(0, Ordering::Relaxed), runs, "{variation} {release}");
    }
    let (client, _exposures) = client_of("base", None, release(SHARES));
    client.inner.shared.directives.replace(vec![Directive { flag: "f".to_owned(), for_ms: 60_000 }]);
    client.path("f", &context).ai(|| Ok::<_, ()>(1)).baseline(|| 0).shadow(|_, _| true).run();
    assert_eq!(client.shadows(), Default::default(), "routed away");
}

#[test]
fn a_share_of_the_calls_runs_both() {
    let (client, _exposures) = client_of("base", None, release(SHARES / 4));
    for number in 0..4_000 {
        let context = Context::new(number.to_string());
        client.path("f", &context).ai(|| Ok::<_, ()>(1)).baseline(|| 1).shadow(|human, ai| human == ai).run();
    }
    let report = client.shadows();
    // Seven standard deviations.
    assert!((808..=1192).contains(&(report.begun + report.skipped)), "{report:?}");
    assert!(report.begun > 0);
}

#[tokio::test(start_paused = true)]
async fn a_future_that_hangs_is_given_up_and_what_is_beyond_the_budget_is_skipped() {
    let (client, _exposures) = client_of("base", None, release(SHARES));
    let context = Context::new("u");
    for _ in 0..3 {
        let path = client.path("f", &context).ai(pending::<Result<&str, ()>>).baseline(async || "human");
        assert_eq!(path.shadow_async(|human, ai| human == ai).run_async().await, "human");
    }
    let report = client.shadows();
    assert_eq!((report.begun, report.skipped), (2, 1), "two at once");
    tokio::time::sleep(Duration::from_secs(11)).await;
    let mut counted = Counted::default();
    counted.more(&client);
    let (count, errors, _, _, slowest) = counted.of(SHADOW_METRIC, "ai");
    assert_eq!((count, errors, counted.of(MATCH_METRIC, "ai").3), (2, 2, 0.0));
    assert!((9_900.0..10_200.0).contains(&slowest), "{slowest} ms");
    let path = client.path("f", &context).baseline(async || "human").timeout(Duration::from_secs(1));
    let ai = async || {
        tokio::time::sleep(Duration::from_millis(50)).await;
        Ok::<_, ()>("AI")
    };
    path.ai(ai).shadow_async(|human, ai| human.len() > ai.len()).run_async().await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    counted.more(&client);
    assert_eq!((counted.of(SHADOW_METRIC, "ai").1, counted.of(MATCH_METRIC, "ai").3), (2, 1.0));
    assert_eq!(counted.of(SHADOW_METRIC, "base").0, 3);
}

#[test]
fn without_a_runtime_a_future_has_no_shadow() {
    let (client, _exposures) = client_of("base", None, release(SHARES));
    let context = Context::new("u");
    let path = client.path("f", &context).ai(async || Ok::<_, ()>(1)).baseline(async || 2).shadow_async(|_, _| true);
    assert_eq!(path.run_async().now_or_never(), Some(2));
    assert_eq!((client.shadows().begun, client.shadows().skipped), (0, 1));
}

#[test]
fn a_baseline_that_panics_runs_nothing_and_keeps_no_place() {
    let (client, _exposures) = client_of("base", None, release(SHARES));
    let context = Context::new("u");
    for _ in 0..3 {
        let path = client.path("f", &context).ai(|| Ok::<_, ()>(1)).baseline(|| panic!("its mistake"));
        let path = path.shadow(|human: &u8, ai| human == ai);
        assert!(catch_unwind(AssertUnwindSafe(|| path.run())).is_err());
    }
    assert_eq!(client.shadows().begun, 3);
    assert!(lock_free(&client).is_some());
}
