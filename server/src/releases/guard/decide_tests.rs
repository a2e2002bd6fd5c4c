//! Decisions on made-up seconds.

use super::super::mean::Worse;
use super::super::thresholds::Limit;
use super::*;
use crate::metrics::{Arm, InstanceId, Row, SeriesLimits};

fn guardrail(id: &str, measure: Measure, action: Action) -> Guardrail {
    Guardrail {
        id: id.into(),
        series: "path".into(),
        measure,
        action,
        comparison: Some(Comparison::default()),
        limit: None,
    }
}

fn plan(guardrails: Vec<Guardrail>) -> GuardPlan {
    GuardPlan { alpha: 0.01, guardrails, ratio_series: Some("path".into()), silence_seconds: 30 }
}

/// `errors` of `count` requests, one unit each, with a latency of `micros`.
fn tally(count: u64, errors: u64, micros: f64) -> Tally {
    let mut tally = Tally {
        count,
        errors,
        units: count,
        failing_units: errors,
        units_at_risk: count,
        new_units: count,
        new_failing_units: errors,
        ..Tally::default()
    };
    for i in 0..count {
        let micros = micros * (1.0 + (i % 10) as f64 / 10.0);
        tally.latency.record(micros);
        tally.unit_latency.record(micros);
        tally.values.record(micros / 1_000.0);
    }
    assert_eq!(tally.contradiction(), None);
    tally
}

/// Runs `guard` over `seconds` alike, and gives the last decision, or the first that asks for more than to observe.
fn run(guard: &mut Guard, seconds: u64, treatment: &Tally, control: &Tally) -> Decision {
    let mut series = Series::new(SeriesLimits::default(), 0);
    let windows: Vec<u64> = guard.windows().map(|(_, seconds)| seconds).collect();
    windows.into_iter().for_each(|seconds| assert!(series.keep_rolling(seconds)));
    let mut last = None;
    for second in 0..seconds {
        for (arm, tally) in [(Arm::Treatment, treatment), (Arm::Control, control)] {
            let row = Row {
                second,
                arm,
                instance: InstanceId(1),
                tally: tally.clone(),
                first_seen: vec![],
                first_failing: vec![],
                first_latency: vec![],
            };
            series.add(&row, second);
        }
        assert_eq!(series.advance(second + 1), Some(second));
        let decision = guard.observe(second, &[("path", &series)], 0);
        if decision.action > Action::Observe {
            return decision;
        }
        last = Some(decision);
    }
    last.unwrap()
}

fn only(decision: &Decision) -> (Option<&str>, Action, Reason) {
    assert_eq!(decision.verdicts.len(), 1, "{decision:?}");
    let verdict = &decision.verdicts[0];
    (verdict.guardrail.as_deref(), verdict.action, verdict.reason)
}

#[test]
fn a_failing_path_is_rolled_back_with_its_numbers() {
    let mut guard = Guard::new(&plan(vec![guardrail("errors", Measure::ErrorRate, Action::RollBack)]), 0.1).unwrap();
    let decision = run(&mut guard, 60, &tally(10, 3, 1e4), &tally(90, 1, 1e4));
    assert_eq!(only(&decision), (Some("errors"), Action::RollBack, Reason::WorseThanControl));
    assert!(decision.second <= 4, "{decision:?}");
    let evidence = decision.verdicts[0].evidence;
    assert!(evidence.wealth >= evidence.decisive && evidence.p_value < Some(0.01));
    assert_eq!(evidence.treatment.failing_units, 3 * (decision.second + 1));
    let text = serde_json::to_string(&decision).unwrap();
    assert_eq!(serde_json::from_str::<Decision>(&text).unwrap().action, Action::RollBack);
}

#[test]
fn a_slower_path_and_a_costlier_one_are_found() {
    let latency = guardrail("p99", Measure::Latency { quantile: 0.9 }, Action::RollBack);
    let cpu = guardrail("cpu", Measure::Mean { worse: Worse::Higher }, Action::Kill);
    for (guardrail, action) in [(latency, Action::RollBack), (cpu, Action::Kill)] {
        let id = guardrail.id.clone();
        let mut guard = Guard::new(&plan(vec![guardrail]), 0.1).unwrap();
        assert_eq!(run(&mut guard, 200, &tally(10, 0, 1e4), &tally(90, 0, 1e4)).action, Action::Observe);
        let decision = run(&mut guard, 200, &tally(10, 0, 1.5e4), &tally(90, 0, 1e4));
        assert_eq!(only(&decision), (Some(id.as_str()), action, Reason::WorseThanControl));
        if id == "cpu" {
            let estimate = decision.verdicts[0].evidence.estimate.unwrap();
            assert!(estimate.low < estimate.difference && estimate.difference < estimate.high);
        }
    }
}

#[test]
fn when_both_arms_degrade_alike_the_release_holds() {
    let limit = Limit { value: 0.05, window_seconds: 10, minimum_sample: 20, breaches: 3 };
    let limited = Guardrail { limit: Some(limit), ..guardrail("errors", Measure::ErrorRate, Action::RollBack) };
    let mut guard = Guard::new(&plan(vec![limited.clone()]), 0.1).unwrap();
    let decision = run(&mut guard, 60, &tally(10, 3, 1e4), &tally(90, 27, 1e4));
    assert_eq!(only(&decision), (Some("errors"), Action::Hold, Reason::BothAlike));
    assert!(decision.notify && decision.second == 3, "two seconds for the sample, three in a row: {decision:?}");

    let alone = Guardrail { comparison: None, ..limited };
    let mut guard = Guard::new(&plan(vec![alone]), 0.1).unwrap();
    let decision = run(&mut guard, 60, &tally(10, 3, 1e4), &tally(90, 1, 1e4));
    assert_eq!(only(&decision), (Some("errors"), Action::RollBack, Reason::BeyondLimit));
}

#[test]
fn too_small_a_sample_holds() {
    let comparison = Some(Comparison { minimum_sample: 1_000, ..Comparison::default() });
    let errors = Guardrail { comparison, ..guardrail("errors", Measure::ErrorRate, Action::Kill) };
    let mut guard = Guard::new(&plan(vec![errors]), 0.1).unwrap();
    let decision = run(&mut guard, 60, &tally(10, 3, 1e4), &tally(90, 1, 1e4));
    assert_eq!(only(&decision), (Some("errors"), Action::Hold, Reason::TooFew));
}

#[test]
fn a_wrong_ratio_silence_and_gaps_hold() {
    let healthy = plan(vec![guardrail("errors", Measure::ErrorRate, Action::RollBack)]);
    let mut guard = Guard::new(&healthy, 0.1).unwrap();
    let decision = run(&mut guard, 300, &tally(7, 0, 1e4), &tally(93, 0, 1e4));
    assert_eq!(only(&decision), (None, Action::Hold, Reason::SampleRatio));

    let mut guard = Guard::new(&healthy, 0.1).unwrap();
    let decision = run(&mut guard, 31, &Tally::default(), &Tally::default());
    assert_eq!((only(&decision), decision.second), ((None, Action::Hold, Reason::NoTraffic), 29));

    let mut guard = Guard::new(&healthy, 0.1).unwrap();
    let decision = guard.observe(0, &[], 2);
    assert_eq!(only(&decision), (None, Action::Hold, Reason::Gap));
}

#[test]
fn a_guard_goes_on_after_a_restart() {
    let mut guard = Guard::new(&plan(vec![guardrail("errors", Measure::ErrorRate, Action::RollBack)]), 0.1).unwrap();
    run(&mut guard, 1, &tally(10, 1, 1e4), &tally(90, 1, 1e4));
    let mut back: Guard = serde_json::from_str(&serde_json::to_string(&guard).unwrap()).unwrap();
    let (treatment, control) = (tally(10, 2, 1e4), tally(90, 1, 1e4));
    assert_eq!(run(&mut guard, 60, &treatment, &control).second, run(&mut back, 60, &treatment, &control).second);
}

#[test]
fn a_wrong_plan_is_refused_with_all_that_is_wrong() {
    let mut idle = guardrail("a", Measure::Latency { quantile: 1.5 }, Action::Hold);
    idle.comparison = None;
    let mut wild = guardrail("a", Measure::ErrorRate, Action::Hold);
    wild.comparison = Some(Comparison { weight: 0.0, cluster: 0.5, ..Comparison::default() });
    let wrong = Guard::new(&GuardPlan { alpha: 0.0, ..plan(vec![idle, wild]) }, 0.1).unwrap_err();
    let expected = [
        PlanError::Alpha,
        PlanError::Idle(0),
        PlanError::Range(0, "quantile"),
        PlanError::Repeated(1),
        PlanError::Range(1, "weight"),
        PlanError::Range(1, "cluster"),
    ];
    assert_eq!(wrong, expected);
}
