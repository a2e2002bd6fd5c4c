//! The folded world as records, one for each object, so that a change writes what it changed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use guidon_sdk::model::Flag;
use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::sled::{Mark, STORE_FORMAT, Stored, Write};
use super::{FlagState, KeySetSource, Project, Repeatable, SegmentState, World};
use crate::environments::{Environment, SdkKey};
use crate::identity::Directory;
use crate::identity::directory::Token;
use crate::journal::ENTRY_FORMAT;
use crate::segments::StoredSegment;

/// What a project is apart from what it holds.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ProjectRecord {
    name: String,
    created_at: u64,
}

/// A flag or a segment, as the journal has it, and when it changed.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Dated<T> {
    stored: T,
    created_at: u64,
    updated_at: u64,
    revision: u64,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    served: BTreeSet<String>,
}

/// A change that may be sent again.
#[derive(Serialize, Deserialize)]
struct RepeatableRecord {
    body: String,
    revision: u64,
    at: u64,
}

/// What the records of `world` reflect.
pub(super) fn mark(world: &World, history: &str) -> Mark {
    Mark {
        format: STORE_FORMAT,
        entry_format: ENTRY_FORMAT,
        history: history.to_owned(),
        revision: world.revision,
        hash: world.hash.to_string(),
        at: world.at,
    }
}

/// What must be written to make the records of `old` those of `new`. Costs what changed.
pub(super) fn difference(old: &World, new: &World) -> Result<Vec<Write>, serde_json::Error> {
    let mut writes = Writes(Vec::new());
    let nothing = Project::default();
    for changed in old.projects.diff(&new.projects) {
        let (key, before, after) = match changed {
            DiffItem::Add(key, after) => (key, &nothing, &**after),
            DiffItem::Remove(key, before) => (key, &**before, &nothing),
            DiffItem::Update { old: (key, before), new: (_, after) } => (key, &**before, &**after),
        };
        let gone = !new.projects.contains_key(key);
        writes.project(key, before, after, gone)?;
    }
    writes.directory(&old.directory, &new.directory)?;
    for changed in old.quotas.by_key().diff(new.quotas.by_key()) {
        match changed {
            DiffItem::Add(key, times) | DiffItem::Update { new: (key, times), .. } => {
                writes.put(format!("quota/{key}"), &**times)?;
            }
            DiffItem::Remove(key, _) => writes.remove(format!("quota/{key}")),
        }
    }
    for changed in old.repeatable.by_key().diff(new.repeatable.by_key()) {
        match changed {
            DiffItem::Add(key, done) | DiffItem::Update { new: (key, done), .. } => {
                let record = RepeatableRecord { body: done.body.clone(), revision: done.revision, at: done.at };
                writes.put(format!("repeatable/{key}"), &record)?;
            }
            DiffItem::Remove(key, _) => writes.remove(format!("repeatable/{key}")),
        }
    }
    Ok(writes.0)
}

struct Writes(Vec<Write>);

impl Writes {
    fn put<T: Serialize + ?Sized>(&mut self, key: String, value: &T) -> Result<(), serde_json::Error> {
        self.0.push((key, Some(serde_json::to_vec(value)?)));
        Ok(())
    }

    fn remove(&mut self, key: String) {
        self.0.push((key, None));
    }

    fn project(&mut self, key: &str, old: &Project, new: &Project, gone: bool) -> Result<(), serde_json::Error> {
        if gone {
            self.remove(format!("project/{key}"));
        } else if old.key.is_empty() || (&old.name, old.created_at) != (&new.name, new.created_at) {
            let record = ProjectRecord { name: new.name.clone(), created_at: new.created_at };
            self.put(format!("project/{key}"), &record)?;
        }
        self.all(
            &old.environments,
            &new.environments,
            |id| format!("environment/{key}/{id}"),
            |environment| environment,
        )?;
        self.all(&old.requests, &new.requests, |id| format!("request/{key}/{id}"), |request| request)?;
        let served = |flag: &String| format!("served-variations/{key}/{flag}");
        self.all(&old.served_variations, &new.served_variations, served, |served| served)?;
        self.all(&old.reviews, &new.reviews, |revision| format!("review/{key}/{revision}"), |review| review)?;
        self.all(&old.webhooks, &new.webhooks, |id| format!("webhook/{key}/{id}"), |webhook| webhook)?;
        let of_drill = |(environment, flag): &(String, String)| format!("drill/{key}/{environment}/{flag}");
        self.all(&old.drills, &new.drills, of_drill, |drill| drill)?;
        let of_release = |(environment, flag): &(String, String)| format!("release/{key}/{environment}/{flag}");
        self.all(&old.releases, &new.releases, of_release, |release| release)?;
        self.all(&old.incidents, &new.incidents, |id| format!("incident/{key}/{id}"), |incident| incident)?;
        self.all(&old.sdk_keys, &new.sdk_keys, |id| format!("sdk-key/{key}/{id}"), |sdk_key| sdk_key)?;
        self.all(
            &old.flags,
            &new.flags,
            |id| format!("flag/{key}/{id}"),
            |flag| Dated {
                stored: &*flag.stored,
                created_at: flag.created_at,
                updated_at: flag.updated_at,
                revision: flag.revision,
                served: flag.served.clone(),
            },
        )?;
        let of_segment = |(environment, id): &(String, String)| format!("segment/{key}/{environment}/{id}");
        self.all(&old.segments, &new.segments, of_segment, |segment| Dated {
            stored: &*segment.stored,
            created_at: segment.created_at,
            updated_at: segment.updated_at,
            revision: segment.revision,
            served: BTreeSet::new(),
        })
    }

    fn directory(&mut self, old: &Directory, new: &Directory) -> Result<(), serde_json::Error> {
        let of = |kind: &'static str| move |id: &String| format!("directory/{kind}/{id}");
        self.all(&old.principals, &new.principals, of("principal"), |it| it)?;
        self.all(&old.bindings, &new.bindings, of("role-binding"), |it| it)?;
        self.all(&old.tokens, &new.tokens, of("token"), |it| it)?;
        self.all(&old.issuers, &new.issuers, of("issuer"), |it| it)?;
        self.all(&old.policies, &new.policies, of("policy"), |it| it)
    }

    fn all<'a, K: Ord + Clone, V: PartialEq, R: Serialize>(
        &mut self,
        old: &'a OrdMap<K, Arc<V>>,
        new: &'a OrdMap<K, Arc<V>>,
        name: impl Fn(&K) -> String,
        record: impl Fn(&'a V) -> R,
    ) -> Result<(), serde_json::Error> {
        for changed in old.diff(new) {
            match changed {
                DiffItem::Add(key, value) | DiffItem::Update { new: (key, value), .. } => {
                    self.put(name(key), &record(value))?;
                }
                DiffItem::Remove(key, _) => self.remove(name(key)),
            }
        }
        Ok(())
    }
}

/// The world that the records hold, with the keys behind its key sets from `keys`.
pub(super) fn load(stored: &Stored, keys: &dyn KeySetSource) -> Result<World, String> {
    let head = stored.mark.head()?;
    let mut projects: BTreeMap<&str, Project> = BTreeMap::new();
    let mut world = World { revision: head.revision, hash: head.hash, at: stored.mark.at, ..World::empty() };
    for (name, value) in stored.records.range("project/".to_owned().."project0".to_owned()) {
        let key = &name["project/".len()..];
        let ProjectRecord { name, created_at } = read(name, value)?;
        projects.insert(key, Project { key: key.to_owned(), name, created_at, ..Project::default() });
    }
    for (name, value) in &stored.records {
        let parts: Vec<&str> = name.split('/').collect();
        match *parts.as_slice() {
            ["project", _] => {}
            ["repeatable", key] => {
                let RepeatableRecord { body, revision, at } = read(name, value)?;
                world.repeatable.insert(key.to_owned(), Repeatable { body, revision, at });
            }
            ["directory", kind, id] => load_of_directory(&mut world.directory, kind, id, name, value)?,
            ["quota", agent, project, environment] => {
                world.quotas.insert(format!("{agent}/{project}/{environment}"), read(name, value)?);
            }
            [kind, project, ref rest @ ..] => {
                let project = projects.get_mut(project).ok_or_else(|| format!("{name}: there is no such project"))?;
                load_object(project, kind, rest, name, value, keys)?;
            }
            _ => return Err(unknown(name)),
        }
    }
    world.directory.note_claimed();
    for (key, project) in projects {
        for sdk_key in project.sdk_keys.values().filter(|sdk_key| sdk_key.revoked_at.is_none()) {
            world.credentials.insert(sdk_key.hash.clone(), (key.to_owned(), sdk_key.id.clone()));
        }
        world.projects.insert(key.to_owned(), Arc::new(project));
    }
    Ok(world)
}

fn load_object(
    project: &mut Project,
    kind: &str,
    rest: &[&str],
    name: &str,
    value: &[u8],
    keys: &dyn KeySetSource,
) -> Result<(), String> {
    match (kind, rest) {
        ("environment", [key]) => {
            project.environments.insert((*key).to_owned(), Arc::new(read::<Environment>(name, value)?));
        }
        ("request", [id]) => {
            project.requests.insert((*id).to_owned(), Arc::new(read(name, value)?));
        }
        ("served-variations", [flag]) => {
            project.served_variations.insert((*flag).to_owned(), Arc::new(read(name, value)?));
        }
        ("review", [revision]) => {
            let revision = revision.parse().map_err(|_| unknown(name))?;
            project.reviews.insert(revision, Arc::new(read(name, value)?));
        }
        ("webhook", [id]) => {
            project.webhooks.insert((*id).to_owned(), Arc::new(read(name, value)?));
        }
        ("drill", [environment, flag]) => {
            project.drills.insert(((*environment).to_owned(), (*flag).to_owned()), Arc::new(read(name, value)?));
        }
        ("release", [environment, flag]) => {
            project.releases.insert(((*environment).to_owned(), (*flag).to_owned()), Arc::new(read(name, value)?));
        }
        ("incident", [id]) => {
            project.incidents.insert((*id).to_owned(), Arc::new(read(name, value)?));
        }
        ("sdk-key", [id]) => {
            project.sdk_keys.insert((*id).to_owned(), Arc::new(read::<SdkKey>(name, value)?));
        }
        ("flag", [key]) => {
            let dated: Dated<Flag> = read(name, value)?;
            let mut flag = FlagState::load(dated.stored, keys, dated.created_at);
            (flag.updated_at, flag.revision, flag.served) = (dated.updated_at, dated.revision, dated.served);
            project.flags.insert((*key).to_owned(), Arc::new(flag));
        }
        ("segment", [environment, key]) => {
            let dated: Dated<StoredSegment> = read(name, value)?;
            let mut segment = SegmentState::load(dated.stored, keys, dated.created_at);
            (segment.updated_at, segment.revision) = (dated.updated_at, dated.revision);
            project.segments.insert(((*environment).to_owned(), (*key).to_owned()), Arc::new(segment));
        }
        _ => return Err(unknown(name)),
    }
    Ok(())
}

fn load_of_directory(directory: &mut Directory, kind: &str, id: &str, name: &str, value: &[u8]) -> Result<(), String> {
    let id = id.to_owned();
    match kind {
        "principal" => drop(directory.principals.insert(id, Arc::new(read(name, value)?))),
        "role-binding" => directory.bind(read(name, value)?),
        "token" => {
            let token: Token = read(name, value)?;
            if token.revoked_at.is_none() {
                directory.token_hashes.insert(token.hash.clone(), id.clone());
            }
            directory.tokens.insert(id, Arc::new(token));
        }
        "issuer" => drop(directory.issuers.insert(id, Arc::new(read(name, value)?))),
        "policy" => drop(directory.policies.insert(id, Arc::new(read(name, value)?))),
        _ => return Err(unknown(name)),
    }
    Ok(())
}

fn read<T: DeserializeOwned>(name: &str, value: &[u8]) -> Result<T, String> {
    serde_json::from_slice(value).map_err(|error| format!("{name}: {error}"))
}

fn unknown(name: &str) -> String {
    format!("{name}: a record of no known kind")
}
