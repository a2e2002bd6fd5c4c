use super::*;
use crate::metrics::{Arm, InstanceId, Row, SeriesLimits};
use crate::releases::next::tests;
use crate::releases::plan::Step;

/// A release whose arms get half of the people each.
fn halves() -> Release {
    let step = |share| Step { share, ..Step::default() };
    tests::release(vec![step(50_000), step(100_000)], PlanKind::Progressive)
}

/// A minute and more of calls, `bad` of 100 of the treatment's failing, and what was decided last.
fn watch(watching: &mut Watching, release: &Release, from: u64, seconds: u64, bad: u64) -> Action {
    let mut series = Series::new(SeriesLimits { seconds: WATCH_SECONDS, lateness: 0 }, from);
    series.keep_rolling(SHOWN_SECONDS);
    for second in from..from + seconds {
        for (arm, errors) in [(Arm::Treatment, bad), (Arm::Control, 0)] {
            let mut tally =
                Tally { count: 100, errors, units: 100, units_at_risk: 100, failing_units: errors, ..Tally::default() };
            (tally.new_units, tally.new_failing_units) = (50, errors);
            (0..100_u32).for_each(|at| tally.latency.record(f64::from(5_000 + 20 * at)));
            let row = Row {
                second,
                arm,
                instance: InstanceId(1),
                tally,
                first_seen: Vec::new(),
                first_failing: Vec::new(),
                first_latency: Vec::new(),
            };
            series.add(&row, second);
        }
        while let Some(second) = series.advance(second + 1) {
            watching.observe(release, second, &[("path", &series)], 0);
        }
    }
    watching.decision().map_or(Action::Observe, |decision| decision.action)
}

#[test]
fn a_healthy_release_is_left_alone_and_a_bad_one_is_not() {
    let release = halves();
    let mut watching = Watching::new(&release).unwrap();
    assert_eq!(watch(&mut watching, &release, 1_000, 120, 0), Action::Observe);
    assert_eq!(watching.sample(), Arms { treatment: 6_000, control: 6_000 });
    assert!(watching.healthy_seconds() >= 119);
    assert_eq!(watch(&mut watching, &release, 1_120, 5, 20), Action::RollBack);
    let guardrails = watching.guardrails(&release);
    let errors = guardrails.iter().find(|guardrail| guardrail.id == "errors").unwrap();
    assert!(errors.value.treatment > errors.value.control && errors.evidence.wealth > errors.evidence.decisive);
    watching.begin_run(&release);
    assert_eq!(watch(&mut watching, &release, 1_125, 60, 0), Action::Observe, "the tests begin anew");
}

#[test]
fn a_new_step_counts_its_own_sample() {
    let mut release = halves();
    let mut watching = Watching::new(&release).unwrap();
    watch(&mut watching, &release, 1_000, 5, 0);
    assert!(!watching.follow(&release));
    (release.step, release.step_revision) = (1, 9);
    assert!(watching.follow(&release) && watching.decision().is_none());
    assert_eq!(watching.sample(), Arms::default());
}

#[test]
fn another_monitor_breaks_a_guardrail_after_its_breaches_and_holds_while_it_is_silent() {
    let mut release = halves();
    let external = External {
        id: "checkout".to_owned(),
        query: "q".to_owned(),
        value: 10.0,
        worse: crate::releases::guard::mean::Worse::Higher,
        breaches: 2,
        action: Action::RollBack,
    };
    release.plan.external = vec![external.clone()];
    let mut watching = Watching::new(&release).unwrap();
    let mut after = |answer: Result<f64, String>, from| {
        watching.answered(&external, 0, answer);
        watch(&mut watching, &release, from, 2, 0)
    };
    assert_eq!(after(Ok(9.0), 1_000), Action::Observe);
    assert_eq!(after(Ok(11.0), 1_002), Action::Observe);
    assert_eq!(after(Err("gone".to_owned()), 1_004), Action::Hold);
    assert_eq!(after(Ok(11.0), 1_006), Action::RollBack);
    assert_eq!(after(Ok(1.0), 1_008), Action::Observe);
}

#[test]
fn all_runs_together_stay_within_alpha() {
    let plan = GuardPlan::default();
    let sum: f64 = (0..200).map(|run| plan_of_run(&plan, run).alpha).sum();
    assert!(sum <= plan.alpha * (1.0 + 1e-9), "{sum}");
}
