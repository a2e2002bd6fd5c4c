//! The state machine of releases, on the whole write path: by data where a word has to be right, by random histories elsewhere.

use std::collections::BTreeMap;

use guidon_sdk::model::Serve;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::resolve::weights;
use super::{Incident, Release, ReleaseState};
use crate::changes::tests::{Server, author, draft};
use crate::changes::{Author, ChangeError, ChangeOutcome};
use crate::state::World;

const PLACE: (&str, &str) = ("development", "engine");

/// A flag of three arms, on, of which two are served.
async fn start() -> Server {
    let server = Server::start().await;
    let variation = |key: &str, by: &str| json!({"key": key, "value": key, "provenance": {"by": by}});
    let variations = [variation("ai", "ai"), variation("baseline", "human"), variation("third", "human")];
    let flag = json!({"key": "engine", "kind": "string", "variations": variations});
    let served = json!({"kind": "setRollout", "flag": "engine", "weights": {"baseline": 75_000, "third": 25_000}});
    let on = json!({"kind": "turnFlagOn", "flag": "engine"});
    server.submit(json!([{"kind": "createFlag", "flag": flag}, served, on])).await.unwrap();
    server
}

async fn by_system(server: &Server, instruction: Value) -> Result<ChangeOutcome, ChangeError> {
    server.service.submit(&Author::system(), draft(json!([instruction]))).await
}

fn release(server: &Server) -> Option<Release> {
    let world = server.service.world();
    world.project("default")?.release(PLACE.0, PLACE.1).map(|release| Release::clone(release))
}

fn served(server: &Server) -> Serve {
    config(server).fallthrough
}

fn config(server: &Server) -> guidon_sdk::model::FlagEnvironment {
    server.service.world().flag("default", PLACE.1).unwrap().stored.environments[PLACE.0].clone()
}

fn open_incidents(server: &Server) -> Vec<Incident> {
    let world = server.service.world();
    let open = world.project("default").unwrap().open_incidents(PLACE.0, PLACE.1);
    open.map(|incident| Incident::clone(incident)).collect()
}

fn shares(serve: &Serve) -> BTreeMap<String, u32> {
    match serve {
        Serve::Variation(key) => BTreeMap::from([(key.clone(), 100_000)]),
        Serve::Rollout(rollout) => rollout.weights.clone(),
    }
}

fn started() -> Value {
    let steps = json!([{"share": 1_000}, {"share": 20_000}, {"share": 100_000}]);
    json!({"kind": "startRelease", "flag": "engine", "plan": {"treatment": "ai", "steps": steps}})
}

fn code(refused: Result<ChangeOutcome, ChangeError>) -> String {
    match refused {
        Err(ChangeError::Invalid { problems } | ChangeError::NotFound { problems }) => problems[0].code.to_string(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_was_stable_comes_back_exactly_from_any_step() {
    for step in 0..3 {
        for back in ["abortRelease", "rollBackRelease"] {
            let server = start().await;
            let stable = served(&server);
            server.submit(json!([started()])).await.unwrap();
            if step > 0 {
                server.submit(json!([{"kind": "advanceRelease", "flag": "engine", "to": step}])).await.unwrap();
            }
            let share = [1_000, 20_000, 100_000][step];
            let expected = weights(&stable, "ai", "baseline", share);
            assert_eq!(shares(&served(&server)), expected, "the others keep their proportions");
            let id = release(&server).unwrap().id;
            let made = if back == "abortRelease" {
                server.submit(json!([{"kind": back, "flag": "engine"}])).await
            } else {
                by_system(&server, json!({"kind": back, "flag": "engine", "release": id, "reason": "errors"})).await
            };
            assert_eq!(made.unwrap().entry.unwrap().instructions.len(), 1, "one entry, one instruction");
            assert_eq!(served(&server), stable, "slots and salt too");
        }
    }
}

#[tokio::test]
async fn no_step_is_taken_twice() {
    let server = start().await;
    server.submit(json!([started()])).await.unwrap();
    let first = release(&server).unwrap();
    let to = |step: usize, id: &str| json!({"kind": "advanceRelease", "flag": "engine", "to": step, "release": id});
    by_system(&server, to(1, &first.id)).await.unwrap();
    let again = by_system(&server, to(1, &first.id)).await.unwrap();
    assert!(again.changed.is_empty() && again.entry.is_none(), "it is there already");
    assert_eq!(release(&server).unwrap().step, 1);
    server.submit(json!([{"kind": "abortRelease", "flag": "engine"}, started()])).await.unwrap();
    assert_eq!(code(by_system(&server, to(1, &first.id)).await), "otherRelease");
    assert_eq!(release(&server).unwrap().step, 0);
    assert_eq!(code(by_system(&server, to(3, &release(&server).unwrap().id)).await), "noSuchStep");
}

#[tokio::test]
async fn an_edit_by_hand_pauses_and_other_edits_stay() {
    let server = start().await;
    server.submit(json!([started()])).await.unwrap();
    let rule = json!({"id": "r", "serve": {"variation": "third"}, "clauses": [{"attribute": "plan", "op": "exists"}]});
    server.submit(json!([{"kind": "addRule", "flag": "engine", "rule": rule}])).await.unwrap();
    assert_eq!(release(&server).unwrap().state, ReleaseState::Running, "it drives the fallthrough");
    let by_hand = json!({"kind": "setRollout", "flag": "engine", "weights": {"ai": 2_000, "baseline": 98_000}});
    server.submit(json!([by_hand])).await.unwrap();
    let paused = release(&server).unwrap();
    assert_eq!((paused.state, paused.reason.contains("edited")), (ReleaseState::Paused, true));
    assert_eq!(code(server.submit(json!([{"kind": "advanceRelease", "flag": "engine"}])).await), "releasePaused");
    server.submit(json!([{"kind": "resumeRelease", "flag": "engine"}])).await.unwrap();
    assert_eq!(shares(&served(&server))["ai"], 1_000, "its step is served again");
    server.submit(json!([{"kind": "turnFlagOff", "flag": "engine"}])).await.unwrap();
    assert_eq!(release(&server).unwrap().state, ReleaseState::Paused);
    assert_eq!(code(server.submit(json!([{"kind": "resumeRelease", "flag": "engine"}])).await), "flagOff");
    server.submit(json!([{"kind": "abortRelease", "flag": "engine"}])).await.unwrap();
    assert_eq!(config(&server).rules.len(), 1, "what was edited beside it stays");
}

#[tokio::test]
async fn an_incident_locks_until_a_person_closes_it() {
    let server = start().await;
    server.submit(json!([started()])).await.unwrap();
    let id = release(&server).unwrap().id;
    let kill = json!({"kind": "rollBackRelease", "flag": "engine", "release": id, "kill": true, "reason": "errors"});
    let stable = served(&server);
    by_system(&server, kill).await.unwrap();
    let killed = config(&server);
    assert!(!killed.on && killed.fallthrough == stable, "the rollout stays as it was");
    server.submit(json!([{"kind": "turnFlagOn", "flag": "engine"}])).await.unwrap();
    let restart = json!([{"kind": "restartRelease", "flag": "engine"}]);
    assert_eq!(code(server.submit(json!([started()])).await), "incidentOpen");
    assert_eq!(code(server.submit(restart.clone()).await), "incidentOpen");
    let incident = open_incidents(&server).remove(0);
    let close = json!({"kind": "closeIncident", "flag": "engine", "incident": incident.id, "finding": "mended"});
    assert!(by_system(&server, close.clone()).await.is_err(), "the server closes none");
    server.submit(json!([close])).await.unwrap();
    assert_eq!(code(server.submit(json!([close])).await), "incidentClosed");
    server.submit(restart).await.unwrap();
    let again = release(&server).unwrap();
    assert_eq!((again.step, again.state), (0, ReleaseState::Running));
    assert_ne!(again.id, id);
}

#[tokio::test]
async fn blue_and_green_switch_and_switch_back_in_one_entry_each() {
    let server = start().await;
    let plan = json!({"kind": "blueGreen", "treatment": "ai"});
    server.submit(json!([{"kind": "startRelease", "flag": "engine", "plan": plan}])).await.unwrap();
    let before = shares(&served(&server));
    server.submit(json!([{"kind": "advanceRelease", "flag": "engine"}])).await.unwrap();
    assert_eq!(shares(&served(&server)), BTreeMap::from([("ai".to_owned(), 100_000)]));
    let id = release(&server).unwrap().id;
    by_system(&server, json!({"kind": "completeRelease", "flag": "engine", "release": id})).await.unwrap();
    let revision = server.service.world().revision;
    server.submit(json!([{"kind": "advanceRelease", "flag": "engine", "to": 0}])).await.unwrap();
    assert_eq!(server.service.world().revision, revision + 1);
    assert_eq!(shares(&served(&server)), before);
    assert_eq!(release(&server).unwrap().state, ReleaseState::Running);
}

#[tokio::test]
async fn a_release_goes_with_its_flag_and_holds_what_it_needs() {
    let server = start().await;
    server.submit(json!([started()])).await.unwrap();
    let remove = json!([{"kind": "removeVariation", "flag": "engine", "variation": "ai"}]);
    assert!(server.submit(remove).await.is_err(), "the release serves it");
    let off = json!({"kind": "turnFlagOff", "flag": "engine"});
    let [archive, delete] = ["archiveFlag", "deleteFlag"].map(|kind| json!({"kind": kind, "flag": "engine"}));
    server.submit(json!([off, archive])).await.unwrap();
    server.submit(json!([delete])).await.unwrap();
    assert!(release(&server).is_none());
}

#[tokio::test]
async fn a_rule_with_persons_keys_comes_back_with_them() {
    for back in ["abortRelease", "rollBackRelease"] {
        let server = start().await;
        let clause = json!({"attribute": "targetingKey", "op": "in", "values": ["one", "two"]});
        let rule = json!({"id": "beta", "clauses": [clause], "serve": {"variation": "baseline"}});
        server.submit(json!([{"kind": "addRule", "flag": "engine", "rule": rule}])).await.unwrap();
        let before = config(&server);
        let plan = json!({"rule": "beta", "treatment": "ai", "steps": [{"share": 5_000}, {"share": 100_000}]});
        server.submit(json!([{"kind": "startRelease", "flag": "engine", "plan": plan}])).await.unwrap();
        assert_ne!(config(&server).rules, before.rules);
        let mut edit = json!({"kind": back, "flag": "engine"});
        if back == "rollBackRelease" {
            edit["release"] = json!(release(&server).unwrap().id);
            edit["reason"] = json!("bad");
        }
        by_system(&server, edit).await.unwrap();
        assert_eq!(config(&server), before, "{back}");
    }
}

#[tokio::test]
async fn a_release_that_is_over_does_not_undo_what_was_done_since() {
    let server = start().await;
    server.submit(json!([started()])).await.unwrap();
    server.submit(json!([{"kind": "abortRelease", "flag": "engine"}])).await.unwrap();
    let third = json!({"kind": "setFallthrough", "flag": "engine", "serve": {"variation": "third"}});
    server.submit(json!([third])).await.unwrap();
    let again = server.submit(json!([{"kind": "restartRelease", "flag": "engine"}])).await;
    assert_eq!(code(again), "editedSince");
}

/// An edit that may or may not be possible. `$id` stands for the present release, `$incident` for an open incident.
fn edit() -> impl Strategy<Value = (bool, Value)> {
    let of = |kind: &'static str| json!({"kind": kind, "flag": "engine"});
    let people = prop_oneof![
        4 => (prop::collection::vec(0_u32..=10, 1..4), any::<bool>()).prop_map(|(mut shares, third)| {
            shares.sort_unstable();
            let steps: Vec<Value> = shares.iter().map(|share| json!({"share": share * 10_000})).collect();
            let control = if third { "third" } else { "baseline" };
            json!({"kind": "startRelease", "flag": "engine", "plan": {"treatment": "ai", "control": control, "steps": steps}})
        }),
        4 => prop::option::of(0_usize..4).prop_map(|to| json!({"kind": "advanceRelease", "flag": "engine", "to": to})),
        2 => Just(of("pauseRelease")),
        3 => Just(of("resumeRelease")),
        1 => Just(of("abortRelease")),
        2 => Just(of("restartRelease")),
        2 => (0_u32..=10).prop_map(|ai| json!({"kind": "setRollout", "flag": "engine", "weights": {"ai": ai * 10_000, "baseline": 100_000 - ai * 10_000}})),
        1 => Just(of("turnFlagOff")),
        3 => Just(of("turnFlagOn")),
        3 => Just(json!({"kind": "closeIncident", "flag": "engine", "incident": "$incident", "finding": "seen"})),
    ];
    let machine = prop_oneof![
        3 => (0_usize..4).prop_map(|to| json!({"kind": "advanceRelease", "flag": "engine", "to": to, "release": "$id"})),
        1 => Just(json!({"kind": "advanceRelease", "flag": "engine", "to": 1, "release": "rel-stale"})),
        2 => any::<bool>().prop_map(|kill| json!({"kind": "rollBackRelease", "flag": "engine", "release": "$id", "kill": kill, "reason": "bad"})),
        1 => Just(json!({"kind": "completeRelease", "flag": "engine", "release": "$id"})),
        1 => Just(json!({"kind": "holdRelease", "flag": "engine", "release": "$id", "reason": "no traffic"})),
        1 => Just(json!({"kind": "liftHold", "flag": "engine", "release": "$id"})),
        1 => Just(json!({"kind": "routeInstance", "flag": "engine", "release": "$id", "instance": "i", "until": 9_000_000_000_000_u64, "reason": "slow"})),
        1 => Just(json!({"kind": "noteIncident", "flag": "engine", "incident": "$incident", "text": "restarted"})),
    ];
    prop_oneof![people.prop_map(|edit| (false, edit)), machine.prop_map(|edit| (true, edit))]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_history_of_edits_keeps_what_must_hold(edits in prop::collection::vec(edit(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(run(edits))?;
    }
}

async fn run(edits: Vec<(bool, Value)>) -> Result<(), TestCaseError> {
    let server = start().await;
    for (by_machine, mut edit) in edits {
        let (before, stood) = (server.service.world(), release(&server));
        let incident = open_incidents(&server).into_iter().find(|incident| incident.kind.locks());
        if edit["release"] == "$id" {
            edit["release"] = json!(stood.as_ref().map_or("rel-none", |release| &release.id));
        }
        if edit["incident"] == "$incident" {
            edit["incident"] = json!(incident.as_ref().map_or("inc-none", |incident| &incident.id));
        }
        let kind = edit["kind"].as_str().unwrap().to_owned();
        let who = if by_machine { Author::system() } else { author() };
        let outcome = server.service.submit(&who, draft(json!([edit.clone()]))).await;
        server.clock.advance_ms(1_000);
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(ChangeError::Invalid { .. } | ChangeError::NotFound { .. } | ChangeError::Refused(_)) => {
                prop_assert_eq!(&*before, &*server.service.world(), "a refused edit leaves no trace");
                continue;
            }
            Err(other) => return Err(TestCaseError::fail(format!("{edit}: {other:?}"))),
        };
        let Some(stands) = release(&server) else { continue };
        holds(&server, &kind, &edit, stood.as_ref(), &stands, &outcome)?;
        let begins = matches!(kind.as_str(), "startRelease" | "restartRelease");
        prop_assert!(!begins || incident.is_none(), "started under an open incident");
    }
    let mut again = World::empty();
    for stored in &crate::journal::Journal::read(&server.journal, 0, 1_000).await.unwrap() {
        again = again.fold(stored, &server.key_sets).map_err(|error| TestCaseError::fail(error.to_string()))?;
    }
    prop_assert_eq!(&again, &*server.service.world());
    Ok(())
}

/// What holds after an edit that was made.
fn holds(
    server: &Server,
    kind: &str,
    edit: &Value,
    stood: Option<&Release>,
    stands: &Release,
    outcome: &ChangeOutcome,
) -> Result<(), TestCaseError> {
    let (config, step) = (config(server), stands.step());
    prop_assert!(stands.step < stands.plan.steps.len());
    if stands.state == ReleaseState::Running {
        let expected = weights(&stands.stable, "ai", &stands.plan.control, step.share);
        prop_assert_eq!(shares(&config.fallthrough), expected, "after {}", edit);
        prop_assert!(config.on, "a release runs on a flag that is off after {}", edit);
    }
    let moved = outcome.entry.is_some();
    match kind {
        "abortRelease" => prop_assert_eq!(&config.fallthrough, &stands.stable),
        "rollBackRelease" if edit["kill"] == true => prop_assert!(!config.on),
        "rollBackRelease" => prop_assert_eq!(&config.fallthrough, &stands.stable),
        "advanceRelease" => {
            let same = stood.is_some_and(|stood| stood.state.is_active() && stood.step == stands.step);
            prop_assert_eq!(moved, !same, "{}", edit);
        }
        _ => {}
    }
    if let Some(stood) = stood.filter(|stood| stood.id == stands.id) {
        prop_assert_eq!(&stood.plan_hash, &stands.plan_hash);
        prop_assert_eq!(&stood.stable, &stands.stable);
        prop_assert!(stood.step == stands.step || kind == "advanceRelease", "{} moved it", edit);
        prop_assert!(stood.step_revision <= stands.step_revision);
    }
    prop_assert!(stands.state.is_active() == stands.ended_at.is_none());
    prop_assert!(stands.state == ReleaseState::RolledBack || stands.incident.is_none() || stands.state.is_active());
    Ok(())
}
