//! Drills: who moves, what a probe says, and when a drill counts.

use std::sync::Arc;
use std::time::Duration;

use guidon_sdk::model::Flag;
use serde_json::{Value, json};

use super::*;
use crate::assignments::anonymize::PseudonymKey;
use crate::assignments::{Assignment, Cursor, Line, Sampled};
use crate::environments::{Environment, Tier};
use crate::state::{FlagState, NoKeySets, Project};
use guidon_sdk::protocol::{Cause, Exposure};

fn project(config: Value) -> Project {
    let mut project = Project { key: "p".to_owned(), ..Project::default() };
    for tier in Tier::ALL {
        project.environments.insert(tier.as_str().to_owned(), Arc::new(Environment::of_tier(tier)));
    }
    let flag: Flag = serde_json::from_value(json!({
        "key": "f", "kind": "string", "environments": {"staging": config},
        "variations": [{"key": "ai", "value": "ai"}, {"key": "old", "value": "old"}, {"key": "off", "value": "off"}],
    }))
    .unwrap();
    project.flags.insert("f".to_owned(), Arc::new(FlagState::load(flag, &NoKeySets, 0)));
    project
}

fn rollout(ai: u32) -> Value {
    json!({"rollout": {"weights": {"ai": ai, "old": 100_000 - ai}, "salt": "s", "bucketBy": "targetingKey",
        "allocation": [["ai", 0, ai], ["old", ai, 100_000]]}})
}

fn on(fallthrough: Value) -> Value {
    json!({"on": true, "offVariation": "off", "fallthrough": fallthrough})
}

fn sample(count: usize) -> Vec<Sampled> {
    (0..count).map(|number| Sampled { unit: format!("user-{number}").into(), flag: "f".into() }).collect()
}

fn line(unit: &str, slot: Option<u32>, revision: u64, index: u32) -> Line {
    let exposure = Exposure {
        flag: "f".to_owned(),
        unit: unit.to_owned(),
        assigned: "ai".to_owned(),
        delivered: "ai".to_owned(),
        cause: Cause::Normal,
        reason: "SPLIT".to_owned(),
        rule: None,
        slot,
        revision,
        at: 0,
    };
    let assignment = Assignment::of(exposure, &PseudonymKey::new([1; 32]));
    Line { assignment, instance: "i".to_owned(), received: 0, cursor: Cursor { seq: 1, index } }
}

#[test]
fn people_are_counted_by_evaluating_them_before_and_after() {
    let (now, then) = (project(on(rollout(50_000))), project(on(rollout(10_000))));
    let seen = Seen { sample: sample(2_000), lines: Vec::new() };
    let (sampled, _) = moved(&now, &then, "staging", "f", 1, &seen);
    assert_eq!((sampled.people, sampled.unknown, sampled.moves.len()), (2_000, 0, 1));
    let step = &sampled.moves[0];
    assert_eq!((step.from.as_str(), step.to.as_str()), ("ai", "old"));
    // 40 % of them, within five standard deviations.
    assert!((690..=910).contains(&step.count), "{step:?}");
    assert_eq!(u64::from(step.share), step.count * 100_000 / 2_000);
    let (still, _) = moved(&now, &now, "staging", "f", 1, &seen);
    assert_eq!((still.moving(), still.people), (0, 2_000));
}

#[test]
fn stored_slots_count_exactly_where_only_owners_of_slots_change() {
    let (now, then) = (project(on(rollout(50_000))), project(on(rollout(10_000))));
    let lines = vec![
        line("a", Some(5_000), 7, 0),
        line("b", Some(9_999), 7, 1),
        line("c", Some(10_000), 7, 2),
        line("c", Some(10_000), 8, 3),
        line("d", Some(49_999), 7, 4),
        line("e", Some(50_000), 7, 5),
        line("before the target", Some(20_000), 3, 6),
        line("no slot", None, 7, 7),
    ];
    let seen = Seen { sample: Vec::new(), lines };
    let (_, stored) = moved(&now, &then, "staging", "f", 5, &seen);
    let stored = stored.unwrap();
    assert_eq!((stored.people, stored.unknown), (6, 0));
    assert_eq!(
        stored.moves,
        [Move { from: "ai".to_owned(), to: "old".to_owned(), count: 2, share: 33_333 }],
        "each person once"
    );
    let otherwise = project(json!({"on": false, "offVariation": "off", "fallthrough": rollout(10_000)}));
    assert_eq!(moved(&now, &otherwise, "staging", "f", 5, &seen).1, None);
}

#[test]
fn of_whom_attributes_decide_nothing_is_claimed() {
    let mut config = on(rollout(50_000));
    config["rules"] = json!([{"id": "r", "serve": {"variation": "ai"},
        "clauses": [{"attribute": "country", "op": "in", "values": ["DE"]}]}]);
    let (now, then) = (project(config), project(on(rollout(10_000))));
    let seen = Seen { sample: sample(10), lines: Vec::new() };
    let (sampled, stored) = moved(&now, &then, "staging", "f", 1, &seen);
    assert_eq!((sampled.people, sampled.unknown, sampled.moves.len(), stored), (10, 10, 0, None));
    // A unit that another flag reported is no targeting key if that flag goes by another attribute.
    let mut by_company = on(rollout(50_000));
    by_company["fallthrough"]["rollout"]["bucketBy"] = json!("company");
    let (sampled, _) = moved(&project(by_company), &then, "staging", "f", 1, &seen);
    assert_eq!(sampled.people, 0);
}

#[test]
fn a_probe_is_summed_up_by_the_nearest_rank() {
    let times = (1..=200).rev().map(Duration::from_millis).collect();
    let old = SilentSdk { sdk: "guidon-rust/0.0.9".to_owned(), supported: false, count: 3 };
    let probe = ProbeReport::of(203, times, vec![old]);
    assert_eq!((probe.connected, probe.answered, probe.silent, probe.unanswered()), (203, 200, 3, 0));
    assert_eq!((probe.p50_us, probe.p99_us, probe.max_us), (Some(100_000), Some(198_000), Some(200_000)));
    let nobody = ProbeReport::of(0, Vec::new(), Vec::new());
    assert_eq!((nobody.p50_us, nobody.max_us, nobody.silent), (None, None, 0));
}

fn drilled(project: &mut Project, environment: &str, passed: bool, at: u64) {
    let shape = shape(project, environment, "f").unwrap_or_default();
    let report = DrillReport { passed, shape, ..DrillReport::default() };
    let (key, flag) = (environment.to_owned(), "f".to_owned());
    let drill = StandingDrill { environment: key.clone(), flag: flag.clone(), at, revision: 9, report };
    project.drills.insert((key, flag), Arc::new(drill));
}

#[test]
fn a_drill_counts_for_a_week_and_while_the_flag_is_what_was_rehearsed() {
    let mut rehearsed = project(on(rollout(50_000)));
    assert!(!is_rehearsed(&rehearsed, "f", 0));
    drilled(&mut rehearsed, "staging", true, 1_000);
    let with = |config: Value| Project { drills: rehearsed.drills.clone(), ..project(config) };
    let of =
        |project: &Project, now: u64| freshness(project, &project.drills[&("staging".to_owned(), "f".to_owned())], now);
    assert_eq!(of(&rehearsed, 1_000 + DRILL_LIFE_MS - 1), Freshness::Fresh);
    assert_eq!(of(&rehearsed, 1_000 + DRILL_LIFE_MS), Freshness::Expired);
    assert!(is_rehearsed(&rehearsed, "f", 2_000) && !is_rehearsed(&rehearsed, "g", 2_000));
    // Shares and the switch are what a release moves all the time.
    assert_eq!(of(&with(on(rollout(70_000))), 2_000), Freshness::Fresh);
    assert_eq!(
        of(&with(json!({"on": false, "offVariation": "off", "fallthrough": rollout(1)})), 2_000),
        Freshness::Fresh
    );
    assert_eq!(of(&with(on(json!({"variation": "ai"}))), 2_000), Freshness::Outdated);
    let mut ruled = on(rollout(50_000));
    ruled["rules"] = json!([{"id": "r", "serve": {"variation": "ai"},
        "clauses": [{"attribute": "country", "op": "in", "values": ["DE"]}]}]);
    assert_eq!(of(&with(ruled), 2_000), Freshness::Outdated);
    let mut revalued = with(on(rollout(50_000)));
    let mut flag = Flag::clone(&revalued.flags["f"].stored);
    flag.variations[0].value = json!("another");
    revalued.flags.insert("f".to_owned(), Arc::new(FlagState::load(flag, &NoKeySets, 0)));
    assert_eq!(of(&revalued, 2_000), Freshness::Outdated);
    let mut failed = project(on(rollout(50_000)));
    drilled(&mut failed, "staging", false, 1_000);
    assert_eq!(of(&failed, 2_000), Freshness::Failed);
}

#[test]
fn a_drill_far_from_users_does_not_speak_for_production() {
    let mut project = project(on(rollout(50_000)));
    let mut flag = Flag::clone(&project.flags["f"].stored);
    let config = flag.environments["staging"].clone();
    flag.environments.insert("testing".to_owned(), config);
    project.flags.insert("f".to_owned(), Arc::new(FlagState::load(flag, &NoKeySets, 0)));
    drilled(&mut project, "testing", true, 1_000);
    assert!(!is_rehearsed(&project, "f", 2_000));
}

#[test]
fn what_is_recorded_of_a_check_is_bounded() {
    let check = Check { command: "make down".to_owned(), exit_code: Some(0), ..Check::default() };
    assert!(check.faults().is_empty() && check.passed());
    let too_much = Check {
        output: "x".repeat(MAX_CHECK_OUTPUT_BYTES + 1),
        output_hash: "none".to_owned(),
        command: String::new(),
        ..check
    };
    assert_eq!(too_much.faults().len(), 3);
}

#[test]
fn the_record_survives_its_json() {
    let report = DrillReport {
        id: "drill-1".to_owned(),
        passed: true,
        check: Some(Check { exit_code: Some(0), ..Check::default() }),
        moved: Moved { stored: Some(Tally::of(3, 1, [(("a".to_owned(), "b".to_owned()), 2)])), ..Moved::default() },
        probe: ProbeReport::of(1, vec![Duration::from_micros(250)], Vec::new()),
        ..DrillReport::default()
    };
    let edit = DrillEdit::RecordDrill { flag: "f".to_owned(), report: Box::new(report) };
    let instruction = crate::changes::Instruction::Drill(Box::new(edit));
    let text = serde_json::to_string(&instruction).unwrap();
    assert!(text.starts_with(r#"{"kind":"recordDrill","flag":"f""#), "{text}");
    assert_eq!(serde_json::from_str::<crate::changes::Instruction>(&text).unwrap(), instruction);
}
