//! The write path from end to end, on a journal in memory.

mod credentials;
mod erase;
mod faults;
mod governed;
mod governed_properties;
mod governed_ways_around;
mod immutability;
mod instructions;
pub(crate) mod people;
mod plans;
mod properties;

use std::sync::Arc;

use serde_json::{Value, json};

use super::keysets::MemoryKeySets;
use super::request::MemoryRequests;
use super::*;
use crate::audit::MemoryAudit;
use crate::clock::ManualClock;
use crate::journal::{Journal, MemoryJournal};
use crate::policy::PrincipalKind;
use crate::state::World;

/// Thursday, 1 January 2026.
pub(crate) const START_MS: u64 = 1_767_225_600_000;

pub(crate) struct Server {
    pub(crate) service: Arc<ChangeService>,
    pub(crate) journal: MemoryJournal,
    pub(crate) key_sets: MemoryKeySets,
    pub(crate) audit: Arc<MemoryAudit>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) requests: MemoryRequests,
}

impl Server {
    pub(crate) async fn start() -> Self {
        let server = Self::on(MemoryJournal::new("h"), MemoryKeySets::default());
        server.service.ensure_default_project().await.unwrap();
        server
    }

    pub(crate) fn on(journal: MemoryJournal, key_sets: MemoryKeySets) -> Self {
        Self::at(World::empty(), journal, key_sets)
    }

    /// On a journal of which `world` is what was read so far.
    pub(crate) fn at(world: World, journal: MemoryJournal, key_sets: MemoryKeySets) -> Self {
        let clock = Arc::new(ManualClock::new(START_MS));
        let audit = Arc::new(MemoryAudit::new());
        let requests = MemoryRequests::default();
        let service = ChangeService::start(Parts {
            journal: Arc::new(journal.clone()),
            key_sets: Arc::new(key_sets.clone()),
            requests: Arc::new(requests.clone()),
            audit: audit.clone(),
            reaches: Arc::new(NoReaches),
            clock: clock.clone(),
            mint: Box::new(RandomMint),
            world,
            publishers: Vec::new(),
        });
        Self { service, journal, key_sets, audit, clock, requests }
    }

    pub(crate) async fn submit(&self, instructions: Value) -> Result<ChangeOutcome, ChangeError> {
        self.service.submit(&author(), draft(instructions)).await
    }

    /// All that the journal holds.
    pub(crate) async fn journal_text(&self) -> String {
        let read = self.journal.read(0, 1_000).await.unwrap();
        read.iter().map(|stored| String::from_utf8_lossy(&stored.bytes).into_owned()).collect()
    }

    /// The one allocation of the fallthrough of `flag` in development.
    pub(crate) fn fallthrough(&self, flag: &str) -> Value {
        let flag = self.service.world().flag("default", flag).unwrap().published.clone();
        serde_json::to_value(&flag.environments["development"].fallthrough).unwrap()
    }
}

pub(crate) fn author() -> Author {
    // Works in development, where the write path is the same and the policies let it.
    Author::of("actor-1", "origin-1", PrincipalKind::Operator)
}

pub(crate) fn draft(instructions: Value) -> ChangeDraft {
    ChangeDraft {
        project: "default".to_owned(),
        environment: Some("development".to_owned()),
        instructions: serde_json::from_value(instructions).unwrap(),
        ..ChangeDraft::default()
    }
}

pub(crate) fn engine_flag(key: &str) -> Value {
    json!({"kind": "createFlag", "flag": {"key": key, "kind": "string", "variations": [
        {"key": "ai", "value": "ai", "provenance": {"by": "ai"}},
        {"key": "baseline", "value": "baseline", "provenance": {"by": "human"}}]}})
}

#[tokio::test]
async fn a_flag_is_created_turned_on_and_ramped() {
    let server = Server::start().await;
    let created = server.submit(json!([engine_flag("engine")])).await.unwrap();
    assert_eq!(created.revision, 2);
    let on = server.submit(json!([{"kind": "turnFlagOn", "flag": "engine"}])).await.unwrap();
    assert_eq!(on.changed.iter().map(ToString::to_string).collect::<Vec<_>>(), ["environment/development/flag/engine"]);
    let ramp =
        |ai: u32| json!([{"kind": "setRollout", "flag": "engine", "weights": {"ai": ai, "baseline": 100_000 - ai}}]);
    server.submit(ramp(1_000)).await.unwrap();
    let first = server.fallthrough("engine");
    server.submit(ramp(5_000)).await.unwrap();
    let second = server.fallthrough("engine");
    assert_eq!(first["rollout"]["salt"], second["rollout"]["salt"]);
    assert_eq!(moved(&first, &second), 4_000);
    let world = server.service.world();
    assert_eq!(world.revision, 5);
    assert!(world.flag("default", "engine").unwrap().stored.environments["development"].on);
    assert!(!world.flag("default", "engine").unwrap().stored.environments["staging"].on);
}

/// Slots that have another owner.
pub(crate) fn moved(before: &Value, after: &Value) -> usize {
    let owners = |serve: &Value| -> Vec<String> {
        let ranges = serve["rollout"]["allocation"].as_array().unwrap();
        let slots = ranges.iter().flat_map(|range| {
            let of = |index: usize| usize::try_from(range[index].as_u64().unwrap()).unwrap();
            vec![range[0].as_str().unwrap().to_owned(); of(2) - of(1)]
        });
        slots.collect()
    };
    owners(before).iter().zip(owners(after)).filter(|(before, after)| **before != *after).count()
}

#[tokio::test]
async fn asking_for_what_is_so_makes_no_entry() {
    let server = Server::start().await;
    server.submit(json!([engine_flag("engine")])).await.unwrap();
    let same = server.submit(json!([{"kind": "turnFlagOff", "flag": "engine"}])).await.unwrap();
    assert_eq!((same.revision, same.changed.len(), same.entry), (2, 0, None));
    assert_eq!(server.journal.head().revision, 2);
}

#[tokio::test]
async fn targeting_keys_stay_out_of_the_journal() {
    let server = Server::start().await;
    let segment = json!({"kind": "createSegment", "segment": {"key": "beta", "included": ["secret-person-1"],
        "rules": [{"clauses": [{"attribute": "targetingKey", "op": "in", "values": ["secret-person-2"]}]}]}});
    let rule = json!({"kind": "addRule", "flag": "engine", "rule": {"serve": {"variation": "ai"},
        "clauses": [{"attribute": "targetingKey", "op": "in", "values": ["secret-person-3"]}]}});
    let target = |key: &str, to: &str| json!({"kind": "addTargets", "flag": "engine", "variation": to, "keys": [key]});
    server.submit(json!([segment, engine_flag("engine"), rule, target("secret-person-4", "ai")])).await.unwrap();
    server.submit(json!([target("secret-person-5", "baseline"), target("secret-person-4", "baseline")])).await.unwrap();
    server.submit(json!([{"kind": "addSegmentKeys", "segment": "beta", "keys": ["secret-person-6"]}])).await.unwrap();
    for stored in server.journal.read(0, 100).await.unwrap() {
        assert!(!String::from_utf8_lossy(&stored.bytes).contains("secret-person"), "{:?}", stored.entry);
    }
    let world = server.service.world();
    let config = &world.flag("default", "engine").unwrap().published.environments["development"];
    assert_eq!(config.targets.len(), 1);
    assert_eq!(config.targets[0].keys, ["secret-person-5", "secret-person-4"]);
    assert_eq!(config.rules[0].clauses[0].values, ["secret-person-3"]);
    let beta = world.segment("default", "development", "beta").unwrap();
    assert_eq!(beta.published().included, ["secret-person-1", "secret-person-6"]);
    assert_eq!(beta.rules[0].clauses[0].values, ["secret-person-2"]);

    // Whoever reads the journal again finds the same, and an erased set is empty.
    let erased = config_key_set(&world);
    server.key_sets.erase(&erased);
    let again = Server::on(server.journal.reopened(), server.key_sets.clone());
    again.service.follower().reach(world.revision).await.unwrap();
    let again = again.service.world();
    let published = &again.flag("default", "engine").unwrap().published.environments["development"];
    assert!(published.targets[0].keys.is_empty());
    assert_eq!(again.segment("default", "development", "beta"), world.segment("default", "development", "beta"));
}

fn config_key_set(world: &World) -> String {
    let flag = world.flag("default", "engine").unwrap();
    flag.stored.environments["development"].targets[0].key_set.clone().unwrap().id
}

#[tokio::test]
async fn a_change_sent_again_is_made_once_a_day() {
    let server = Server::start().await;
    let sent = |instructions: Value, body: &str| {
        let idempotency = Some(IdempotencyKey { key: "k".to_owned(), body_hash: body.to_owned() });
        ChangeDraft { idempotency, ..draft(instructions) }
    };
    let create = sent(json!([engine_flag("engine")]), "a");
    let me = author();
    let (first, second) =
        tokio::join!(server.service.submit(&me, create.clone()), server.service.submit(&me, create.clone()));
    let (first, second) = (first.unwrap(), second.unwrap());
    assert_eq!((first.revision, first.replayed), (2, false));
    assert_eq!((second.revision, second.replayed, &second.changed), (2, true, &first.changed));
    let other = server.service.submit(&author(), sent(json!([engine_flag("other")]), "b")).await;
    assert!(matches!(other, Err(ChangeError::IdempotencyKeyReused { revision: 2 })), "{other:?}");
    let elsewhere = Author { principal: "somebody-else".to_owned(), ..author() };
    let other = server.service.submit(&elsewhere, sent(json!([engine_flag("other")]), "b")).await.unwrap();
    assert!(!other.replayed);
    server.clock.advance_ms(crate::state::REPEATABLE_MS);
    let next_day = server.service.submit(&author(), sent(json!([engine_flag("third")]), "c")).await.unwrap();
    assert_eq!((next_day.revision, next_day.replayed), (4, false));
}
