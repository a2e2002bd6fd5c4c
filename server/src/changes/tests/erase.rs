//! Forgetting a key, on a vault in memory.

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::changes::request::VaultRequests;
use crate::state::World;
use crate::vault::{Entry, Kind, MemoryVault, Vault, VaultKeySets};

const KEY: &str = "ada@example.com";

struct Site {
    vault: Arc<MemoryVault>,
    journal: MemoryJournal,
    service: Arc<ChangeService>,
}

impl Site {
    async fn start() -> Self {
        let site = Self::on(MemoryJournal::new("h"), Arc::new(MemoryVault::new()));
        site.service.ensure_default_project().await.unwrap();
        site
    }

    fn on(journal: MemoryJournal, vault: Arc<MemoryVault>) -> Self {
        let service = ChangeService::start(Parts {
            journal: Arc::new(journal.clone()),
            key_sets: Arc::new(VaultKeySets::new(vault.clone())),
            requests: Arc::new(VaultRequests::new(vault.clone())),
            audit: Arc::new(MemoryAudit::new()),
            reaches: Arc::new(NoReaches),
            clock: Arc::new(ManualClock::new(START_MS)),
            mint: Box::new(RandomMint),
            world: World::empty(),
            publishers: Vec::new(),
        });
        Self { vault, journal, service }
    }

    async fn submit(&self, instructions: Value) {
        self.service.submit(&author(), draft(instructions)).await.unwrap();
    }

    fn holding(&self) -> usize {
        let holds = |kind| {
            let values = self.vault.list(kind).into_iter().filter_map(|id| self.vault.get(kind, &id).unwrap());
            values.filter(|value| String::from_utf8_lossy(value).contains(KEY)).count()
        };
        holds(Kind::KeySet) + holds(Kind::RequestBody)
    }

    async fn stands(&self) -> Vec<String> {
        match self.service.erase_key("default", KEY).await.unwrap_err() {
            EraseError::Stands(places) => places.iter().map(Standing::sentence).collect(),
            other => panic!("{other}"),
        }
    }
}

fn people(keys: &[&str]) -> Value {
    json!([{"attribute": "targetingKey", "op": "in", "values": keys}])
}

#[tokio::test]
async fn a_key_goes_from_all_times_once_the_present_is_without_it() {
    let site = Site::start().await;
    let rule = |keys: &[&str]| json!({"id": "r", "serve": {"variation": "ai"}, "clauses": people(keys)});
    let beta = json!({"key": "beta", "included": [KEY, "ben"], "excluded": [KEY]});
    site.submit(json!([{"kind": "createSegment", "segment": beta}, engine_flag("engine")])).await;
    site.submit(json!([{"kind": "addTargets", "flag": "engine", "variation": "ai", "keys": ["ben", KEY]}])).await;
    site.submit(json!([{"kind": "addRule", "flag": "engine", "rule": rule(&["cleo", KEY])}])).await;
    let said = site.stands().await;
    assert_eq!(said.len(), 4, "{said:?}");
    assert!(said.iter().all(|said| !said.contains(KEY)), "{said:?}");
    assert!(said[2].contains("guidon segment remove-keys beta KEY --list included -e development"), "{said:?}");
    let before = site.holding();

    site.submit(json!([{"kind": "removeTargets", "flag": "engine", "keys": [KEY]},
        {"kind": "replaceRule", "flag": "engine", "rule": rule(&["cleo"])}]))
        .await;
    site.submit(json!([{"kind": "removeSegmentKeys", "segment": "beta", "keys": [KEY]}])).await;
    assert_eq!(site.stands().await.len(), 1, "the excluded keys still have it");
    assert!(site.holding() > before, "nothing was erased so far");
    site.submit(json!([{"kind": "removeSegmentKeys", "segment": "beta", "list": "excluded", "keys": [KEY]}])).await;
    // What a change left that was not made, and what change requests of two projects ask for.
    let record = json!({"hashKey": vec![0; 32], "keys": [KEY]}).to_string().into_bytes();
    let body = |project: &str| json!({"project": project, "instructions": [{"keys": [KEY]}]}).to_string().into_bytes();
    let entry = |kind, id: &str, value| Entry { kind, id: id.to_owned(), value };
    let more = [
        entry(Kind::KeySet, "unused", record),
        entry(Kind::RequestBody, "ours", body("default")),
        entry(Kind::RequestBody, "theirs", body("other")),
    ];
    site.vault.put_many(more.to_vec()).await.unwrap();

    let world = site.service.world();
    let chain = world.hash;
    let erased = site.service.erase_key("default", KEY).await.unwrap();
    assert_eq!((erased.unused_key_sets, erased.requests, erased.revision), (1, 1, world.revision));
    assert!(erased.key_sets >= 5, "{erased:?}");
    assert_eq!(site.holding(), 1, "only what another project asks for");
    assert_eq!(site.service.erase_key("default", KEY).await.unwrap().key_sets, 0, "twice is once");

    // The chain is the same, and a replay gives the same state.
    let again = Site::on(site.journal.reopened(), Arc::clone(&site.vault));
    again.service.follower().reach(world.revision).await.unwrap();
    assert_eq!(again.service.world().hash, chain);
    assert_eq!(again.service.world().projects, world.projects);
    // Going back to when it was there brings the others back, without it.
    let revert = RevertDraft {
        project: "default".to_owned(),
        environment: "development".to_owned(),
        to_revision: 4,
        ..RevertDraft::default()
    };
    again.service.revert(&author(), revert).await.unwrap();
    let world = again.service.world();
    let served = &world.flag("default", "engine").unwrap().published.environments["development"];
    assert_eq!(
        (&*served.targets[0].keys, &*served.rules[0].clauses[0].values),
        (&["ben".to_owned()][..], &[json!("cleo")][..])
    );
    assert_eq!(world.segment("default", "development", "beta").unwrap().published().included, ["ben"]);
    assert_eq!(again.service.erase_key("default", KEY).await.unwrap().key_sets, 0);
}

#[tokio::test]
async fn another_projects_people_stay() {
    let site = Site::start().await;
    let other = ChangeDraft {
        project: "other".to_owned(),
        instructions: serde_json::from_value(json!([{"kind": "createProject"}])).unwrap(),
        ..ChangeDraft::default()
    };
    site.service.submit(&Author::system(), other).await.unwrap();
    let segment = json!([{"kind": "createSegment", "segment": {"key": "beta", "included": [KEY]}}]);
    site.service.submit(&author(), ChangeDraft { project: "other".to_owned(), ..draft(segment) }).await.unwrap();
    assert_eq!(site.service.erase_key("default", KEY).await.unwrap().key_sets, 0);
    assert_eq!(site.holding(), 1);
    let unknown = site.service.erase_key("nowhere", KEY).await;
    assert!(matches!(unknown, Err(EraseError::UnknownProject(_))));
}
