//! Conflicts, concurrency, failing writes, and going back.

use serde_json::json;

use super::super::service::MAX_LOOK_BACK_ENTRIES;
use super::*;
use crate::journal::{AppendError, Entry, Health, conformance};
use crate::state::FollowerHealth;

#[tokio::test]
async fn a_stale_revision_conflicts_only_on_what_it_names() {
    let server = Server::start().await;
    server.submit(json!([engine_flag("a"), engine_flag("b")])).await.unwrap();
    server.submit(json!([{"kind": "turnFlagOn", "flag": "a"}])).await.unwrap();
    let expecting = |revision, flag: &str| ChangeDraft {
        expected_revision: Some(revision),
        ..draft(json!([{"kind": "setOffVariation", "flag": flag, "variation": "ai"}]))
    };
    let conflict = server.service.submit(&author(), expecting(2, "a")).await.unwrap_err();
    let ChangeError::Conflict { expected: 2, revision: 3, entries } = conflict else { panic!("{conflict:?}") };
    assert_eq!(entries.iter().map(|entry| entry.revision).collect::<Vec<_>>(), [3]);
    assert_eq!(server.service.submit(&author(), expecting(2, "b")).await.unwrap().revision, 4);
    assert_eq!(server.service.submit(&author(), expecting(3, "a")).await.unwrap().revision, 5);
    // A new start has no entries in memory, and finds the conflict in the journal.
    let again = Server::on(server.journal.reopened(), server.key_sets.clone());
    let conflict = again.service.submit(&author(), expecting(1, "a")).await.unwrap_err();
    let ChangeError::Conflict { entries, .. } = conflict else { panic!("{conflict:?}") };
    assert_eq!(entries.iter().map(|entry| entry.revision).collect::<Vec<_>>(), [2, 3, 5]);
}

#[tokio::test]
async fn a_revision_too_far_back_conflicts_without_being_looked_through() {
    let server = Server::start().await;
    server.submit(json!([engine_flag("a")])).await.unwrap();
    server.submit(json!([{"kind": "turnFlagOn", "flag": "a"}])).await.unwrap();
    let base = World::clone(&server.service.world());
    let journal = server.journal.reopened();
    // Of other projects, so that nothing of what is asked for has changed.
    let mut head = server.journal.head();
    while head.revision < base.revision + MAX_LOOK_BACK_ENTRIES {
        head = conformance::append(&journal, head.revision, head.revision + 1).await.head();
    }
    let later = |head: crate::journal::Head, world: &World| {
        let world = World { revision: head.revision, hash: head.hash, ..world.clone() };
        Server::at(world, journal.reopened(), server.key_sets.clone())
    };
    let rollback = |expected_revision| RollbackDraft {
        project: "default".to_owned(),
        environment: "development".to_owned(),
        flag: "a".to_owned(),
        to_revision: Some(2),
        expected_revision: Some(expected_revision),
        dry_run: true,
        ..RollbackDraft::default()
    };
    let at_the_bound = later(head, &base);
    at_the_bound.service.rollback(&author(), rollback(base.revision)).await.unwrap();
    head = conformance::append(&journal, head.revision, head.revision + 1).await.head();
    let beyond = later(head, &base);
    let conflict = beyond.service.rollback(&author(), rollback(base.revision)).await.unwrap_err();
    let said = conflict.to_string();
    let ChangeError::Conflict { expected, revision, entries } = conflict else { panic!("{conflict:?}") };
    assert_eq!((expected, revision, entries.len()), (base.revision, head.revision, 0));
    assert!(said.contains("too many entries lie between") && said.contains("name the present revision"), "{said}");
    beyond.service.rollback(&author(), rollback(head.revision)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn editors_of_different_rules_never_lose_work() {
    let server = Arc::new(Server::start().await);
    server.submit(json!([engine_flag("engine")])).await.unwrap();
    let writers = (0..8).map(|writer| {
        let server = Arc::clone(&server);
        tokio::spawn(async move {
            let rule = |step: u32| {
                json!({"id": format!("w{writer}"), "serve": {"variation": "ai"},
                "clauses": [{"attribute": "step", "op": "in", "values": [step]}]})
            };
            server.submit(json!([{"kind": "addRule", "flag": "engine", "rule": rule(0)}])).await.unwrap();
            for step in 1..=10 {
                let replaced = json!([{"kind": "replaceRule", "flag": "engine", "rule": rule(step)}]);
                let outcome = server.submit(replaced).await.unwrap();
                assert!(server.service.world().revision >= outcome.revision, "a writer reads its own write");
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    let world = server.service.world();
    assert_eq!(world.revision, 2 + 8 * 11);
    let rules = &world.flag("default", "engine").unwrap().stored.environments["development"].rules;
    assert_eq!(rules.len(), 8);
    assert!(rules.iter().all(|rule| rule.clauses[0].values == [json!(10)]));
}

#[tokio::test]
async fn two_servers_may_write_to_one_journal() {
    let one = Server::start().await;
    let two = Server::on(one.journal.clone(), one.key_sets.clone());
    for round in 0..5 {
        let made = if round % 2 == 0 { &one } else { &two };
        made.submit(json!([engine_flag(&format!("flag-{round}"))])).await.unwrap();
    }
    one.service.follower().reach(6).await.unwrap();
    two.service.follower().reach(6).await.unwrap();
    assert_eq!(*one.service.world(), *two.service.world());
}

#[tokio::test]
async fn a_full_disk_loses_what_was_not_durable_and_no_more() {
    let server = Server::start().await;
    server.submit(json!([engine_flag("engine")])).await.unwrap();
    server.journal.hold();
    let turn_on = server.submit(json!([{"kind": "turnFlagOn", "flag": "engine"}]));
    let builds_on_it = server.submit(json!([engine_flag("next")]));
    let fills = async {
        tokio::task::yield_now().await;
        server.journal.set_full(true);
    };
    let (first, second, ()) = tokio::join!(turn_on, builds_on_it, fills);
    assert!(matches!(first, Err(ChangeError::DiskFull)), "{first:?}");
    assert!(matches!(second, Err(ChangeError::DiskFull)), "{second:?}");
    let full = server.submit(json!([engine_flag("other")])).await;
    assert!(matches!(full, Err(ChangeError::DiskFull)), "{full:?}");
    assert_eq!(server.service.world().revision, 2, "reads go on");
    server.journal.set_full(false);
    server.journal.release();
    let on = server.submit(json!([{"kind": "turnFlagOn", "flag": "engine"}])).await.unwrap();
    assert_eq!((on.revision, on.changed.len()), (3, 1), "the head went back to what is durable");
}

#[tokio::test]
async fn a_repeat_of_a_lost_write_is_made_anew() {
    let server = Server::start().await;
    let idempotency = Some(IdempotencyKey { key: "k".to_owned(), body_hash: "b".to_owned() });
    let change = ChangeDraft { idempotency, ..draft(json!([engine_flag("engine")])) };
    server.journal.hold();
    let me = author();
    let first = server.service.submit(&me, change.clone());
    let repeat = server.service.submit(&me, change.clone());
    let loses = async {
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
        server.journal.set_full(true);
        server.journal.set_full(false);
        server.journal.release();
    };
    let (first, repeat, ()) = tokio::join!(first, repeat, loses);
    assert!(matches!(first, Err(ChangeError::DiskFull)), "{first:?}");
    let repeat = repeat.unwrap();
    assert_eq!((repeat.revision, repeat.replayed), (2, false));
}

#[tokio::test]
async fn what_is_already_so_is_answered_only_once_it_is_durable() {
    let server = Server::start().await;
    server.submit(json!([engine_flag("engine")])).await.unwrap();
    server.journal.hold();
    let turn_on = || server.submit(json!([{"kind": "turnFlagOn", "flag": "engine"}]));
    let loses = async {
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
        server.journal.set_full(true);
        server.journal.set_full(false);
        server.journal.release();
    };
    let (first, second, ()) = tokio::join!(turn_on(), turn_on(), loses);
    assert!(matches!(first, Err(ChangeError::DiskFull)), "{first:?}");
    let second = second.unwrap();
    assert_eq!((second.revision, second.changed.len()), (3, 1), "the first one was lost, so this one turned it on");
}

#[tokio::test]
async fn a_caller_that_gives_up_leaves_the_next_one_a_sound_head() {
    let server = Server::start().await;
    server.submit(json!([engine_flag("engine")])).await.unwrap();
    server.journal.hold();
    let turn_on = || server.submit(json!([{"kind": "turnFlagOn", "flag": "engine"}]));
    tokio::select! {
        biased;
        given = turn_on() => panic!("{given:?}"),
        () = tokio::task::yield_now() => {}
    }
    server.journal.set_full(true);
    server.journal.set_full(false);
    server.journal.release();
    // The write of the caller that has gone failed, and somebody saw it.
    tokio::task::yield_now().await;
    let again = turn_on().await.unwrap();
    assert_eq!((again.revision, again.changed.len()), (3, 1));
}

#[tokio::test]
async fn a_failed_sync_stops_writes_until_the_restart() {
    let server = Server::start().await;
    server.journal.fail("fdatasync: input/output error");
    let refused = server.submit(json!([engine_flag("engine")])).await;
    assert!(matches!(refused, Err(ChangeError::Unavailable { .. })), "{refused:?}");
    assert!(matches!(server.service.health(), Health::ReadOnly(_)));
    let again = Server::on(server.journal.reopened(), server.key_sets.clone());
    again.submit(json!([engine_flag("engine")])).await.unwrap();
}

#[tokio::test]
async fn an_entry_that_folds_differently_stops_the_service_and_says_why() {
    let server = Server::start().await;
    let created = server.submit(json!([engine_flag("engine")])).await.unwrap();
    let mut forged = Entry::clone(&created.entry.unwrap());
    forged.revision = 3;
    forged.instructions = serde_json::from_value(json!([{"kind": "turnFlagOn", "flag": "engine"}])).unwrap();
    let appended: Result<_, AppendError> = server.journal.append(2, forged).await;
    appended.unwrap().durable.await.unwrap();
    assert!(server.service.follower().reach(3).await.is_err());
    let FollowerHealth::Stopped { revision: 2, reason } = server.service.follower().health() else {
        panic!("not stopped")
    };
    assert!(reason.contains("environment/development/flag/engine"), "{reason}");
    let refused = server.submit(json!([engine_flag("other")])).await;
    assert!(matches!(refused, Err(ChangeError::Unavailable { .. })), "{refused:?}");
    assert_eq!(server.service.world().revision, 2, "reads go on");
}

#[tokio::test]
async fn time_never_goes_back() {
    let server = Server::start().await;
    server.clock.set_ms(5);
    let outcome = server.submit(json!([engine_flag("engine")])).await.unwrap();
    assert_eq!(outcome.entry.unwrap().at, START_MS);
}

#[tokio::test]
async fn a_dry_run_says_what_would_happen_and_does_nothing() {
    let server = Server::start().await;
    let dry = ChangeDraft { dry_run: true, ..draft(json!([engine_flag("engine")])) };
    let outcome = server.service.submit(&author(), dry).await.unwrap();
    assert_eq!((outcome.revision, outcome.dry_run, outcome.entry.is_none()), (1, true, true));
    assert_eq!(outcome.summary, ["created the flag engine"]);
    assert!(!outcome.changed.is_empty());
    assert!(server.service.world().flag("default", "engine").is_none());
}

#[tokio::test]
async fn reverting_brings_salts_allocations_and_keys_back_exactly() {
    let server = Server::start().await;
    let ramp =
        |ai: u32| json!({"kind": "setRollout", "flag": "engine", "weights": {"ai": ai, "baseline": 100_000 - ai}});
    let target = json!({"kind": "addTargets", "flag": "engine", "variation": "ai", "keys": ["u1"]});
    let segment = json!({"kind": "createSegment", "segment": {"key": "beta", "included": ["u1", "u2"]}});
    let good = server.submit(json!([engine_flag("engine"), ramp(7_000), target, segment])).await.unwrap().revision;
    let before = server.service.world();
    server.submit(json!([ramp(90_000)])).await.unwrap();
    let reshuffle = json!({"kind": "setRollout", "flag": "engine", "weights": {"ai": 100_000}, "reshuffle": true});
    server.submit(json!([reshuffle, {"kind": "removeTargets", "flag": "engine", "keys": ["u1"]}])).await.unwrap();
    server.submit(json!([{"kind": "deleteSegment", "segment": "beta"}, engine_flag("late"), {"kind": "turnFlagOn", "flag": "late"}])).await.unwrap();
    let revert = RevertDraft {
        project: "default".to_owned(),
        environment: "development".to_owned(),
        to_revision: good,
        ..RevertDraft::default()
    };
    let outcome = server.service.revert(&author(), revert.clone()).await.unwrap();
    assert_eq!(outcome.revision, good + 4);
    let after = server.service.world();
    let config = |world: &World, flag: &str| {
        let flag = world.flag("default", flag).unwrap();
        (flag.stored.environments["development"].clone(), flag.published.environments["development"].clone())
    };
    assert_eq!(config(&after, "engine"), config(&before, "engine"));
    assert!(!config(&after, "late").0.on, "what was not there then is off");
    let beta = |world: &World| world.segment("default", "development", "beta").unwrap().published();
    assert_eq!(beta(&after), beta(&before));
    let again = server.service.revert(&author(), revert.clone()).await.unwrap();
    assert_eq!((again.revision, again.changed.len()), (outcome.revision, 0));
    let ahead = server.service.revert(&author(), RevertDraft { to_revision: 99, ..revert.clone() }).await;
    assert!(matches!(ahead, Err(ChangeError::Invalid { .. })), "{ahead:?}");
    let nobody = RevertDraft { flags: Some(vec!["nobody".to_owned()]), ..revert };
    let missing = server.service.revert(&author(), nobody).await;
    assert!(matches!(missing, Err(ChangeError::NotFound { .. })), "{missing:?}");
}
