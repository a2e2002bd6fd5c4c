//! Rollbacks and drills on the write path, on a journal in memory.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{self, BoxFuture};
use serde_json::{Value, json};

use super::*;
use crate::assignments::anonymize::PseudonymKey;
use crate::assignments::{BatchLimits, MemoryAssignments, Origin, Reservoir};
use crate::changes::tests::{Server, author, draft, engine_flag};
use crate::changes::{
    Author, ChangeError, Instruction, MAX_CANDIDATES, MAX_LOOK_BACK_ENTRIES, Problem, RollbackDraft, RollbackOutcome,
};
use crate::policy::PrincipalKind;

struct Answers(ProbeReport);

impl Prober for Answers {
    fn probe(&self, _: &str, _: &str, _: Duration) -> BoxFuture<'_, ProbeReport> {
        future::ready(self.0.clone()).boxed()
    }
}

struct Bench {
    server: Server,
    drills: DrillService,
    reservoir: Arc<Reservoir>,
}

impl Bench {
    /// A flag that is on and was ramped from nobody to 5 % and to 50 %, at the revisions 4 and 5.
    async fn start(probe: ProbeReport) -> Self {
        let server = Server::start().await;
        server.submit(json!([engine_flag("engine")])).await.unwrap();
        server.submit(json!([{"kind": "turnFlagOn", "flag": "engine"}])).await.unwrap();
        let reservoir = Arc::new(Reservoir::new([3; 32], server.clock.clone()));
        let drills = DrillService::new(DrillParts {
            changes: Arc::clone(&server.service),
            prober: Arc::new(Answers(probe)),
            log: Arc::new(MemoryAssignments::new(BatchLimits::default(), PseudonymKey::new([1; 32]))),
            reservoir: Arc::clone(&reservoir),
        });
        let bench = Self { server, drills, reservoir };
        bench.ramp(5_000).await;
        bench.ramp(50_000).await;
        bench
    }

    async fn submit(&self, instructions: Value) -> u64 {
        self.server.submit(instructions).await.unwrap().revision
    }

    async fn ramp(&self, ai: u32) -> u64 {
        let weights = json!({"ai": ai, "baseline": 100_000 - ai});
        self.submit(json!([{"kind": "setRollout", "flag": "engine", "weights": weights}])).await
    }

    fn weight(&self) -> Value {
        self.server.fallthrough("engine")["rollout"]["weights"]["ai"].clone()
    }

    async fn roll_back(&self, to_revision: Option<u64>) -> Result<RollbackOutcome, ChangeError> {
        let rollback = RollbackDraft {
            project: "default".to_owned(),
            environment: "development".to_owned(),
            flag: "engine".to_owned(),
            to_revision,
            ..RollbackDraft::default()
        };
        self.server.service.rollback(&author(), rollback).await
    }

    async fn make(&self) -> DrillReport {
        self.drills.make(&author(), request()).await.unwrap()
    }

    async fn record(&self, id: &str, check: Option<Check>) -> Result<StandingDrill, DrillError> {
        self.drills.record(&author(), &request(), id, check).await.map(|(drill, _)| drill)
    }
}

fn request() -> DrillRequest {
    DrillRequest {
        project: "default".to_owned(),
        environment: "development".to_owned(),
        flag: "engine".to_owned(),
        probe_timeout_ms: 100,
        ..DrillRequest::default()
    }
}

fn code<T: std::fmt::Debug>(result: Result<T, ChangeError>) -> String {
    problem(result).code.to_string()
}

fn problem<T: std::fmt::Debug>(result: Result<T, ChangeError>) -> Problem {
    match result {
        Err(ChangeError::Invalid { problems } | ChangeError::NotFound { problems }) => problems[0].clone(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_rollback_goes_to_the_state_before_the_last_move_and_twice_goes_further() {
    let bench = Bench::start(ProbeReport::default()).await;
    // Moves nobody while the flag is on: passed over.
    bench.submit(json!([{"kind": "setOffVariation", "flag": "engine", "variation": "ai"}])).await;
    let first = bench.roll_back(None).await.unwrap();
    assert_eq!((first.to_revision, bench.weight()), (4, json!(5_000)));
    let config = |bench: &Bench| {
        bench.server.service.world().flag("default", "engine").unwrap().stored.environments["development"].clone()
    };
    assert_eq!(config(&bench).off_variation, "baseline", "the configuration of that revision, whole");
    let second = bench.roll_back(None).await.unwrap();
    assert_eq!(second.to_revision, 3);
    assert!(config(&bench).on);
    // Before that it was off, and served everybody the same: turning it on moved nobody.
    assert_eq!(code(bench.roll_back(None).await), "nothingEarlier");
    bench.submit(json!([{"kind": "turnFlagOff", "flag": "engine"}])).await;
    assert_eq!(code(bench.roll_back(None).await), "flagOff");
    let named = bench.roll_back(Some(5)).await.unwrap();
    assert_eq!((named.to_revision, bench.weight()), (5, json!(50_000)));
    let now = bench.server.service.world().revision;
    assert_eq!(code(bench.roll_back(Some(now)).await), "outOfRange");
}

#[tokio::test]
async fn a_rollback_that_finds_nothing_within_its_bounds_says_so() {
    let bench = Bench::start(ProbeReport::default()).await;
    // Each moves nobody while the flag is on, and none is passed over without being looked at.
    for number in 0..MAX_CANDIDATES {
        let variation = ["ai", "baseline"][number % 2];
        bench.submit(json!([{"kind": "setOffVariation", "flag": "engine", "variation": variation}])).await;
        if number + 2 == MAX_CANDIDATES {
            let dry = bench.server.service.rollback_target("default", "development", "engine", None).await.unwrap();
            assert_eq!(dry.to_revision, 4, "the last one that is looked at");
        }
    }
    let problem = problem(bench.roll_back(None).await);
    assert_eq!((problem.pointer.as_str(), &*problem.code), ("/toRevision", "notFoundInBounds"));
    let said = format!("within the last {MAX_LOOK_BACK_ENTRIES} entries and its last {MAX_CANDIDATES} changes");
    assert!(problem.message.contains(&said), "{}", problem.message);
    assert!(problem.message.contains("name the revision"), "{}", problem.message);
    let named = bench.roll_back(Some(4)).await.unwrap();
    assert_eq!((named.to_revision, bench.weight()), (4, json!(5_000)), "and that is a way");
}

#[tokio::test]
async fn there_may_be_nothing_to_go_back_to() {
    let bench = Bench::start(ProbeReport::default()).await;
    let on = json!({"on": true, "offVariation": "baseline", "fallthrough": {"variation": "ai"}});
    let mut created = engine_flag("new");
    created["flag"]["environments"] = json!({"development": on});
    bench.submit(json!([created])).await;
    let target = |flag: &'static str| bench.server.service.rollback_target("default", "development", flag, None);
    assert_eq!(code(target("new").await), "nothingEarlier");
    assert_eq!(code(target("none").await), "unknownFlag");
    let named = bench.server.service.rehearse(&author(), "default", "development", "new", 3).await.unwrap();
    assert!(!named.reasons.is_empty() && !named.proof.validates, "{named:?}");
}

#[tokio::test]
async fn a_drill_changes_nothing_and_its_record_is_folded_the_same_again() {
    let probe = ProbeReport::of(2, vec![Duration::from_millis(3), Duration::from_millis(9)], Vec::new());
    let bench = Bench::start(probe).await;
    let origin = Origin { project: "default".into(), environment: "development".into() };
    let units: Vec<String> = (0..500).map(|number| format!("secret-{number}")).collect();
    bench.reservoir.feed(&origin, units.iter().map(|unit| ("engine", unit.as_str())));
    let before = bench.server.service.world().revision;
    let report = bench.make().await;
    assert_eq!((report.passed, report.to_revision, report.reasons.len()), (true, 4, 0), "{report:?}");
    assert!(report.proof.validates && report.proof.restores);
    assert_eq!((report.proof.way.as_str(), report.proof.direction.as_str()), ("direct", "lowering"));
    assert_eq!((report.moved.at_most, report.moved.sampled.people), (45_000, 500));
    assert!((150..300).contains(&report.moved.sampled.moving()));
    assert_eq!(report.probe.p99_us, Some(9_000));
    assert_eq!((bench.server.service.world().revision, bench.weight()), (before, json!(50_000)));

    let check = Check { command: "true".to_owned(), exit_code: Some(0), ..Check::default() };
    let drill = bench.record(&report.id, Some(check)).await.unwrap();
    assert_eq!((drill.revision, drill.report.passed), (before + 1, true));
    assert_eq!(bench.record(&report.id, None).await.unwrap().revision, drill.revision, "sent again");
    let world = bench.server.service.world();
    let place = ("development".to_owned(), "engine".to_owned());
    let project = world.project("default").unwrap();
    let standing = &project.drills[&place];
    assert_eq!(freshness(project, standing, drill.at), Freshness::Fresh);
    assert_eq!(**standing, drill);
    let stored = bench.server.journal_text().await;
    assert!(stored.contains("recordDrill") && !stored.contains("secret-"), "nobody is named");
    let again = Server::on(bench.server.journal.reopened(), bench.server.key_sets.clone());
    again.service.follower().reach(world.revision).await.unwrap();
    assert_eq!(again.service.world().projects, world.projects);

    // Deleting the flag takes its drills along.
    bench.submit(json!([{"kind": "archiveFlag", "flag": "engine"}])).await;
    bench.submit(json!([{"kind": "deleteFlag", "flag": "engine"}])).await;
    assert!(bench.server.service.world().project("default").unwrap().drills.is_empty());
}

#[tokio::test]
async fn what_fails_is_recorded_as_failed() {
    let silent = SilentSdk { sdk: "guidon-rust/1".to_owned(), supported: true, count: 1 };
    let bench = Bench::start(ProbeReport::of(1, Vec::new(), vec![silent])).await;
    let report = bench.make().await;
    assert!(!report.passed && report.reasons[0].contains("did not answer"), "{report:?}");
    assert!(!bench.record(&report.id, None).await.unwrap().report.passed);

    let bench = Bench::start(ProbeReport::default()).await;
    let report = bench.make().await;
    assert!(report.passed, "nobody connected speaks against nothing");
    let check = Check { command: "false".to_owned(), exit_code: Some(1), ..Check::default() };
    let drill = bench.record(&report.id, Some(check)).await.unwrap();
    assert!(!drill.report.passed && drill.report.reasons[0].contains("exit code 1"));

    // What was served then does not come back.
    let bench = Bench::start(ProbeReport::default()).await;
    let edit = json!([{"kind": "updateVariation", "flag": "engine", "variation": "baseline", "value": "another"}]);
    bench.submit(edit).await;
    let report = bench.make().await;
    assert!(!report.passed && report.reasons[0].contains("another value"), "{report:?}");
}

#[tokio::test]
async fn a_drill_is_its_makers_and_of_a_state_that_still_stands() {
    let bench = Bench::start(ProbeReport::default()).await;
    let report = bench.make().await;
    let other = Author::of("actor-2", "origin-1", PrincipalKind::Operator);
    let taken = bench.drills.record(&other, &request(), &report.id, None).await;
    assert!(matches!(taken, Err(DrillError::Unknown(_))), "{taken:?}");
    let elsewhere = DrillRequest { environment: "testing".to_owned(), ..request() };
    assert!(bench.drills.record(&author(), &elsewhere, &report.id, None).await.is_err());
    bench.ramp(60_000).await;
    let late = bench.record(&report.id, None).await;
    assert!(matches!(late, Err(DrillError::Change(ChangeError::Conflict { .. }))), "{late:?}");
    let too_much = Check { command: "x".to_owned(), output: "x".repeat(5_000), ..Check::default() };
    let report = bench.make().await;
    assert!(matches!(bench.record(&report.id, Some(too_much)).await, Err(DrillError::Check(_))));
    bench.server.clock.advance_ms(PENDING_LIFE_MS);
    assert!(matches!(bench.record(&report.id, None).await, Err(DrillError::Unknown(_))));
}

#[tokio::test]
async fn nobody_sends_a_record_and_not_everybody_drills() {
    let bench = Bench::start(ProbeReport::default()).await;
    let edit = DrillEdit::RecordDrill { flag: "engine".to_owned(), report: Box::default() };
    let forged =
        crate::changes::ChangeDraft { instructions: vec![Instruction::Drill(Box::new(edit))], ..draft(json!([])) };
    assert_eq!(code(bench.server.service.submit(&author(), forged).await), "notHere");
    let staging = DrillRequest { environment: "staging".to_owned(), ..request() };
    let refused = bench.drills.make(&author(), staging).await;
    assert!(matches!(refused, Err(DrillError::Change(ChangeError::Refused(_)))), "{refused:?}");
}
