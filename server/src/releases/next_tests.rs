use std::collections::BTreeMap;

use guidon_sdk::model::Serve;
use proptest::prelude::*;

use super::*;
use crate::releases::guard::{Evidence, Verdict};
use crate::releases::plan::{ReleasePlan, Step};
use crate::releases::release::Hold;

const START: u64 = 1_000_000;

pub(in crate::releases) fn release(steps: Vec<Step>, kind: PlanKind) -> Release {
    let (treatment, control) = ("ai".to_owned(), "baseline".to_owned());
    let mut plan = ReleasePlan { kind, treatment, control, steps, ..ReleasePlan::default() };
    plan.complete();
    Release {
        id: "rel-1".to_owned(),
        flag: "f".to_owned(),
        environment: "testing".to_owned(),
        plan,
        plan_hash: String::new(),
        stable: Serve::Variation("baseline".to_owned()),
        state: ReleaseState::Running,
        step: 0,
        step_at: START,
        step_revision: 5,
        started_at: START,
        started_revision: 5,
        ended_at: None,
        revision: 5,
        reason: String::new(),
        hold: None,
        routed: BTreeMap::new(),
        incident: None,
    }
}

pub(in crate::releases) fn steps() -> Vec<Step> {
    let step = |share| Step { share, minimum_seconds: 60, minimum_sample: 20, ..Step::default() };
    vec![step(1_000), step(50_000), step(100_000)]
}

fn decision(action: Action, reason: Reason) -> Decision {
    let verdict = Verdict { guardrail: Some("errors".to_owned()), action, reason, evidence: Evidence::default() };
    Decision { second: 1, action, notify: true, verdicts: vec![verdict] }
}

const NOBODY: Receipts = Receipts { connected: 0, acknowledged: 0, slowest_ms: None };

/// Nothing to complain of.
static CALM: Decision = Decision { second: 1, action: Action::Observe, notify: false, verdicts: Vec::new() };

fn seen(decision: Option<&Decision>, seconds: u64, sample: (u64, u64)) -> Seen<'_> {
    Seen {
        now: START + 1_000 * seconds,
        decision: decision.or(Some(&CALM)),
        healthy_seconds: seconds,
        sample: Arms { treatment: sample.0, control: sample.1 },
        receipts: &NOBODY,
        frozen: false,
        on: true,
    }
}

fn granted() -> Permit {
    Permit::Granted
}

fn kind(edit: Option<ReleaseEdit>) -> &'static str {
    edit.map_or("nothing", |edit| edit.kind())
}

#[test]
fn a_step_lasts_its_time_and_its_sample() {
    let release = release(steps(), PlanKind::Progressive);
    assert_eq!(kind(next(&release, &seen(None, 59, (99, 99)), granted)), "nothing");
    assert_eq!(kind(next(&release, &seen(None, 60, (19, 99)), granted)), "nothing");
    let Some(ReleaseEdit::AdvanceRelease { to, release: meant, .. }) =
        next(&release, &seen(None, 60, (20, 20)), granted)
    else {
        panic!("it goes on")
    };
    assert_eq!((to, meant.as_deref()), (Some(1), Some("rel-1")), "it says which step of which release");
    let unseen = Seen { decision: None, ..seen(None, 60, (20, 20)) };
    assert_eq!(kind(next(&release, &unseen, granted)), "nothing", "no step goes by unguarded");
    let frozen = Seen { frozen: true, ..seen(None, 60, (20, 20)) };
    assert_eq!(kind(next(&release, &frozen, granted)), "nothing");
    let off = Seen { on: false, ..seen(None, 60, (20, 20)) };
    assert_eq!(kind(next(&release, &off, granted)), "nothing");
}

#[test]
fn the_last_step_needs_no_control_and_completes() {
    let release = Release { step: 2, ..release(steps(), PlanKind::Progressive) };
    assert_eq!(kind(next(&release, &seen(None, 60, (20, 0)), granted)), "completeRelease");
}

#[test]
fn a_step_that_wants_a_person_waits_for_one() {
    let mut plan = steps();
    plan[1].approval = true;
    let release = release(plan, PlanKind::Progressive);
    let seen = seen(None, 600, (99, 99));
    assert_eq!(kind(next(&release, &seen, granted)), "nothing");
    assert_eq!(waiting(&release, &seen), ["a person to start the next step: guidon release advance f"]);
}

#[test]
fn blue_green_is_done_when_every_sdk_has_it() {
    let switched = Release { step: 1, ..release(Vec::new(), PlanKind::BlueGreen) };
    let some = Receipts { connected: 3, acknowledged: 2, slowest_ms: None };
    let seen = |receipts| Seen { receipts, ..seen(None, 1, (0, 0)) };
    assert_eq!(kind(next(&switched, &seen(&some), granted)), "nothing");
    let all = Receipts { acknowledged: 3, ..some };
    assert_eq!(kind(next(&switched, &seen(&all), granted)), "completeRelease");
}

#[test]
fn what_the_guard_asks_for_goes_first() {
    let running = release(steps(), PlanKind::Progressive);
    let bad = decision(Action::RollBack, Reason::WorseThanControl);
    let Some(ReleaseEdit::RollBackRelease { kill, reason, evidence, .. }) =
        next(&running, &seen(Some(&bad), 60, (99, 99)), granted)
    else {
        panic!("it goes back")
    };
    assert!(!kill && reason.contains("errors: worse than the control") && evidence["decision"]["second"] == 1);
    let kill = decision(Action::Kill, Reason::BeyondLimit);
    let killed = next(&running, &seen(Some(&kill), 60, (99, 99)), granted);
    assert!(matches!(killed, Some(ReleaseEdit::RollBackRelease { kill: true, .. })));
    let paused = Release { state: ReleaseState::Paused, ..running.clone() };
    assert_eq!(
        kind(next(&paused, &seen(Some(&bad), 60, (99, 99)), granted)),
        "rollBackRelease",
        "paused is not unguarded"
    );
    let spent = || Permit::Spent { until: None };
    let held = next(&running, &seen(Some(&bad), 60, (99, 99)), spent);
    assert!(matches!(held, Some(ReleaseEdit::HoldRelease { reason, .. }) if reason.contains("a person has to decide")));
}

#[test]
fn a_hold_is_said_once_and_lifted_after_a_calm() {
    let running = release(steps(), PlanKind::Progressive);
    let unlike = decision(Action::Hold, Reason::SampleRatio);
    assert_eq!(kind(next(&running, &seen(Some(&unlike), 60, (99, 99)), granted)), "holdRelease");
    let held = Release { hold: Some(Hold { since: START, reason: String::new() }), ..running };
    assert_eq!(kind(next(&held, &seen(Some(&unlike), 60, (99, 99)), granted)), "nothing");
    let calm = |healthy_seconds| Seen { healthy_seconds, ..seen(None, 600, (99, 99)) };
    assert_eq!(kind(next(&held, &calm(CALM_SECONDS - 1), granted)), "nothing");
    assert_eq!(kind(next(&held, &calm(CALM_SECONDS), granted)), "liftHold");
}

#[test]
fn the_machine_acts_a_limited_number_of_times() {
    let limits = RestraintLimits { cool_down_seconds: 300, actions_per_hour: 2 };
    let mut project = Project::default();
    let mut incident = |at: u64, release: &str, kind: IncidentKind| {
        let incident = Incident {
            id: format!("inc-{}", project.incidents.len()),
            flag: "f".to_owned(),
            environment: "testing".to_owned(),
            release: release.to_owned(),
            kind,
            instance: Some("i1".to_owned()),
            opened_at: at * 1_000,
            opened_revision: 1,
            summary: String::new(),
            evidence: Value::Null,
            notes: Vec::new(),
            finding: None,
        };
        project.incidents.insert(incident.id.clone(), std::sync::Arc::new(incident));
        project.clone()
    };
    let one = incident(1_000, "rel-a", IncidentKind::RolledBack);
    assert_eq!(may_take_back(&one, limits, "rel-b", 1_100_000), Permit::Granted);
    assert!(matches!(may_take_back(&one, limits, "rel-a", 1_100_000), Permit::CoolingDown { .. }));
    let two = incident(1_050, "rel-b", IncidentKind::Killed);
    assert!(matches!(may_take_back(&two, limits, "rel-c", 1_100_000), Permit::Spent { .. }));
    assert_eq!(may_take_back(&two, limits, "rel-c", 4_601_000), Permit::Granted, "an hour later");
    let three = incident(1_060, "rel-c", IncidentKind::Instance);
    assert_eq!(
        may_route_away(&three, limits, "i2", 1_100_000),
        Permit::Granted,
        "instances have a budget of their own"
    );
    assert!(matches!(may_route_away(&three, limits, "i1", 1_100_000), Permit::CoolingDown { .. }));
}

proptest! {
    /// Whatever is seen, the server never skips a step, never leaves a release that has ended, and acts on the one it saw.
    #[test]
    fn it_goes_one_step_at_a_time(
        step in 0_usize..3, seconds in 0_u64..200, sample in (0_u64..50, 0_u64..50), state in 0_usize..5, asked in 0_usize..5,
    ) {
        let states =
            [ReleaseState::Running, ReleaseState::Paused, ReleaseState::Completed, ReleaseState::Aborted, ReleaseState::RolledBack];
        let release = Release { step, state: states[state], ..release(steps(), PlanKind::Progressive) };
        let actions = [Action::Observe, Action::Hold, Action::RollBack, Action::Kill];
        let decision = actions.get(asked).map(|action| decision(*action, Reason::BeyondLimit));
        let edit = next(&release, &seen(decision.as_ref(), seconds, sample), granted);
        if !release.state.is_active() {
            prop_assert!(edit.is_none());
        }
        if let Some(ReleaseEdit::AdvanceRelease { to, release: meant, .. }) = edit {
            prop_assert_eq!((to, meant.as_deref()), (Some(step + 1), Some("rel-1")));
            prop_assert!(release.state == ReleaseState::Running && seconds >= 60 && step < 2);
        }
    }
}
