//! Worlds for the tests of this folder, edited without a journal.

use std::sync::Arc;

use guidon_sdk::model::Flag;
use imbl::OrdMap;
use serde_json::json;

use super::patch::ChannelKey;
use crate::environments::{Audience, Environment, SdkKey, Tier};
use crate::journal::{ChainHash, ENTRY_FORMAT, Entry, ObjectHash, ObjectId, StoredEntry};
use crate::segments::StoredSegment;
use crate::state::{FlagState, NoKeySets, Project, SegmentState, World};

pub(crate) const PROJECT: &str = "shop";
pub(crate) const ENVIRONMENT: &str = "production";
pub(crate) const CREDENTIAL: &str = "gdn_server_secret";

pub(crate) fn channel_key(audience: Audience) -> ChannelKey {
    ChannelKey { project: PROJECT.into(), environment: ENVIRONMENT.into(), audience }
}

/// One project with the environments `production` and `testing`, and an SDK key for each audience of `production`.
pub(crate) fn world() -> World {
    let environment = |key: &str, tier| {
        (key.to_owned(), Arc::new(Environment { key: key.to_owned(), name: String::new(), tier, freezes: Vec::new() }))
    };
    let mut world = World { revision: 1, ..World::empty() };
    world.projects.insert(
        PROJECT.to_owned(),
        Arc::new(Project {
            key: PROJECT.to_owned(),
            name: String::new(),
            created_at: 0,
            environments: [environment(ENVIRONMENT, Tier::Production), environment("testing", Tier::Testing)]
                .into_iter()
                .collect(),
            flags: OrdMap::new(),
            segments: OrdMap::new(),
            sdk_keys: OrdMap::new(),
            served_variations: Default::default(),
            requests: OrdMap::new(),
            reviews: OrdMap::new(),
            webhooks: OrdMap::new(),
            releases: Default::default(),
            incidents: Default::default(),
            drills: OrdMap::new(),
        }),
    );
    for (audience, credential) in [(Audience::Server, CREDENTIAL), (Audience::Client, "gdn_client_secret")] {
        let hash = blake3::hash(credential.as_bytes()).to_hex().to_string();
        let id = format!("key-{}", if audience == Audience::Server { "server" } else { "client" });
        world.credentials.insert(hash.clone(), (PROJECT.to_owned(), id.clone()));
        let key = SdkKey {
            id: id.clone(),
            name: String::new(),
            environment: ENVIRONMENT.to_owned(),
            audience,
            hash,
            created_at: 0,
            expires_at: None,
            revoked_at: None,
            replaced_by: None,
        };
        project(&mut world).sdk_keys.insert(id, Arc::new(key));
    }
    world
}

pub(crate) fn project(world: &mut World) -> &mut Project {
    Arc::make_mut(world.projects.get_mut(PROJECT).unwrap())
}

/// The world one revision on, after `edit`.
pub(crate) fn after(world: &World, edit: impl FnOnce(&mut Project)) -> World {
    let mut next = world.clone();
    next.revision += 1;
    edit(project(&mut next));
    next
}

/// A boolean flag, on in `production` if `on`, whose rule refers to `segment`.
pub(crate) fn flag(key: &str, on: bool, client_side: bool, segment: Option<&str>) -> Flag {
    let rules: Vec<_> = segment
        .map(|segment| json!({"id":"r","clauses":[{"op":"segment","values":[segment]}],"serve":{"variation":"on"}}))
        .into_iter()
        .collect();
    let config = |on: bool| json!({"on":on,"offVariation":"off","rules":rules,"fallthrough":{"variation":"off"}});
    serde_json::from_value(json!({
        "key": key, "kind": "boolean", "clientSide": client_side, "environments": {ENVIRONMENT: config(on), "testing": config(false)},
        "variations": [
            {"key":"on","value":true,"description":"for people","provenance":{"by":"ai","model":"m","commit":"c"}},
            {"key":"off","value":false}
        ],
    }))
    .unwrap()
}

pub(crate) fn set_flag(project: &mut Project, flag: Flag) {
    let published = Arc::new(flag);
    let state = FlagState {
        stored: Arc::clone(&published),
        published: Arc::clone(&published),
        created_at: 0,
        updated_at: 0,
        revision: 0,
        served: Default::default(),
    };
    project.flags.insert(published.key.clone(), Arc::new(state));
}

pub(crate) fn set_segment(project: &mut Project, environment: &str, key: &str, name: &str, included: &[String]) {
    let stored = StoredSegment {
        key: key.to_owned(),
        name: name.to_owned(),
        description: String::new(),
        included: Default::default(),
        excluded: Default::default(),
        rules: Default::default(),
    };
    let mut state = SegmentState::load(stored, &NoKeySets, 0);
    state.included = included.iter().map(String::as_str).collect();
    project.segments.insert((environment.to_owned(), key.to_owned()), Arc::new(state));
}

/// A journal entry that changed `object`, as far as the hub looks at it.
pub(crate) fn entry(revision: u64, object: ObjectId) -> StoredEntry {
    let entry = Entry {
        format: ENTRY_FORMAT,
        revision,
        at: 0,
        actor_id: String::new(),
        origin_id: String::new(),
        project: PROJECT.to_owned(),
        environment: None,
        comment: String::new(),
        commit: None,
        instructions: Vec::new(),
        objects: vec![ObjectHash { object, hash: None }],
        grounds: None,
        idempotency: None,
    };
    StoredEntry { entry: Arc::new(entry), bytes: Default::default(), hash: ChainHash::GENESIS }
}
