//! What an environment's SDKs are told: the whole of it, or what lies between two worlds. Pure.

use std::collections::BTreeSet;
use std::sync::Arc;

use guidon_sdk::model::{EnvironmentFlag, Op};
use guidon_sdk::protocol::{PatchBody, Revision, SegmentKeysPatch, SnapshotBody};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use crate::environments::Audience;
use crate::journal::{ObjectId, StoredEntry};
use crate::state::{FlagState, Project, SegmentState, World};

/// Names what SDKs with one kind of key see: an environment, and who looks at it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ChannelKey {
    /// Key of the project.
    pub project: Arc<str>,
    /// Key of the environment.
    pub environment: Arc<str>,
    /// Server SDKs, or browsers.
    pub audience: Audience,
}

/// Which objects of a project may differ between two worlds.
#[derive(Clone, Debug)]
pub enum Extent {
    /// Not known: everything is compared.
    Unknown,
    /// At most these.
    Objects(BTreeSet<ObjectId>),
}

impl Extent {
    /// The objects of `project` that `entries` changed.
    #[must_use]
    pub fn by(entries: &[StoredEntry], project: &str) -> Self {
        let entries = entries.iter().map(|stored| &stored.entry).filter(|entry| entry.project == project);
        Self::Objects(entries.flat_map(|entry| &entry.objects).map(|object| object.object.clone()).collect())
    }

    /// Whether who may follow a channel may have changed.
    pub(crate) fn may_revoke(&self) -> bool {
        match self {
            Self::Unknown => true,
            Self::Objects(objects) => objects
                .iter()
                .any(|object| matches!(object, ObjectId::Project | ObjectId::Environment(_) | ObjectId::SdkKey(_))),
        }
    }
}

/// Everything the channel sees, or `None` if there is no such environment.
#[must_use]
pub fn snapshot(history: &str, world: &World, key: &ChannelKey) -> Option<SnapshotBody> {
    let project = environment_of(world, key)?;
    let view = View { project, key };
    let referenced = view.referenced_segments();
    Some(SnapshotBody {
        revision: Revision { history: history.to_owned(), number: world.revision },
        project: key.project.to_string(),
        environment: key.environment.to_string(),
        flags: view.flags().filter_map(|flag| raw(&flag.key, &flag)).collect(),
        segments: referenced.iter().filter_map(|key| view.segment(key)).filter_map(raw_segment).collect(),
    })
}

/// What the channel sees change between two worlds, as a patch for any state at or after revision `from`; `None` if that
/// is nothing. An environment that is missing from a world counts as empty there.
#[must_use]
pub fn between(
    history: &str,
    from: u64,
    before: &World,
    after: &World,
    key: &ChannelKey,
    extent: &Extent,
) -> Option<PatchBody> {
    let old = environment_of(before, key).map(|project| View { project, key });
    let new = environment_of(after, key).map(|project| View { project, key });
    let mut patch = PatchBody {
        from,
        revision: Revision { history: history.to_owned(), number: after.revision },
        flags: Vec::new(),
        removed_flags: Vec::new(),
        segments: Vec::new(),
        segment_keys: Vec::new(),
        removed_segments: Vec::new(),
    };
    let mut suspects = segment_suspects(old, new, key, extent);
    for flag in flag_suspects(old, new, key, extent) {
        let (was, is) = (old.and_then(|view| view.flag(&flag)), new.and_then(|view| view.flag(&flag)));
        if was == is {
            continue;
        }
        let (referred, refers) = (references(was.as_ref()), references(is.as_ref()));
        suspects.extend(referred.symmetric_difference(&refers).map(|segment| (*segment).to_owned()));
        match is {
            Some(flag) => patch.flags.extend(raw(&flag.key, &flag)),
            None => patch.removed_flags.push(flag),
        }
    }
    if !suspects.is_empty() {
        let seen_before = old.map(View::referenced_segments).unwrap_or_default();
        let seen_after = new.map(View::referenced_segments).unwrap_or_default();
        for segment in suspects {
            let was = old.filter(|_| seen_before.contains(&segment)).and_then(|view| view.segment(&segment));
            let is = new.filter(|_| seen_after.contains(&segment)).and_then(|view| view.segment(&segment));
            patch_segment(&mut patch, was, is, segment);
        }
    }
    let is_empty = patch.flags.is_empty()
        && patch.removed_flags.is_empty()
        && patch.segments.is_empty()
        && patch.segment_keys.is_empty()
        && patch.removed_segments.is_empty();
    (!is_empty).then_some(patch)
}

/// Flags that may have changed.
fn flag_suspects(old: Option<View<'_>>, new: Option<View<'_>>, key: &ChannelKey, extent: &Extent) -> BTreeSet<String> {
    match extent {
        Extent::Objects(objects) if old.is_some() == new.is_some() => objects
            .iter()
            .filter_map(|object| match object {
                ObjectId::Flag(flag) => Some(flag.clone()),
                ObjectId::FlagEnvironment(environment, flag) | ObjectId::Release(environment, flag)
                    if **environment == *key.environment =>
                {
                    Some(flag.clone())
                }
                _ => None,
            })
            .collect(),
        _ => differing(
            old.map(|view| view.project.flags.iter()).into_iter().flatten(),
            |flag| new.and_then(|view| view.project.flags.get(flag)),
            new.map(|view| view.project.flags.keys()).into_iter().flatten(),
        )
        .cloned()
        .collect(),
    }
}

/// Segments that may have changed themselves.
fn segment_suspects(
    old: Option<View<'_>>,
    new: Option<View<'_>>,
    key: &ChannelKey,
    extent: &Extent,
) -> BTreeSet<String> {
    match extent {
        Extent::Objects(objects) if old.is_some() == new.is_some() => objects
            .iter()
            .filter_map(|object| match object {
                ObjectId::Segment(environment, segment) if **environment == *key.environment => Some(segment.clone()),
                _ => None,
            })
            .collect(),
        _ => differing(
            old.map(|view| view.project.segments.iter()).into_iter().flatten(),
            |segment| new.and_then(|view| view.project.segments.get(segment)),
            new.map(|view| view.project.segments.keys()).into_iter().flatten(),
        )
        .filter(|(environment, _)| **environment == *key.environment)
        .map(|(_, segment)| segment.clone())
        .collect(),
    }
}

/// Keys whose values are not the very same allocation in both maps.
fn differing<'a, K: Ord + 'a, V: 'a>(
    old: impl Iterator<Item = (&'a K, &'a Arc<V>)>,
    new_value: impl Fn(&K) -> Option<&'a Arc<V>>,
    new_keys: impl Iterator<Item = &'a K>,
) -> impl Iterator<Item = &'a K> {
    let mut seen = BTreeSet::new();
    let mut differ = BTreeSet::new();
    for (key, value) in old {
        seen.insert(key);
        if !new_value(key).is_some_and(|other| Arc::ptr_eq(value, other)) {
            differ.insert(key);
        }
    }
    differ.extend(new_keys.filter(|key| !seen.contains(key)));
    differ.into_iter()
}

fn patch_segment(
    patch: &mut PatchBody,
    was: Option<&Arc<SegmentState>>,
    is: Option<&Arc<SegmentState>>,
    segment: String,
) {
    let (was, is) = match (was, is) {
        (None, None) => return,
        (Some(was), Some(is)) if Arc::ptr_eq(was, is) => return,
        (Some(_), None) => return patch.removed_segments.push(segment),
        (None, Some(is)) => return patch.segments.extend(raw_segment(is)),
        (Some(was), Some(is)) => (was, is),
    };
    let same_definition =
        was.stored.name == is.stored.name && was.stored.description == is.stored.description && was.rules == is.rules;
    if !same_definition {
        return patch.segments.extend(raw_segment(is));
    }
    let (included, excluded) = (was.included.difference(&is.included), was.excluded.difference(&is.excluded));
    let keys = SegmentKeysPatch {
        segment,
        included: included.added,
        not_included: included.removed,
        excluded: excluded.added,
        not_excluded: excluded.removed,
    };
    let moved = keys.included.len() + keys.not_included.len() + keys.excluded.len() + keys.not_excluded.len();
    if moved > is.included.len() + is.excluded.len() {
        patch.segments.extend(raw_segment(is));
    } else if moved > 0 {
        patch.segment_keys.push(keys);
    }
}

/// A segment as SDKs see it: with its keys.
fn raw_segment(state: &Arc<SegmentState>) -> Option<Box<RawValue>> {
    let segment = state.published();
    raw(&segment.key, &segment)
}

/// A definition as JSON. One that does not serialise (there is none that came through the write path) is left out rather
/// than taking the environment with it.
fn raw(key: &str, definition: &impl Serialize) -> Option<Box<RawValue>> {
    to_raw_value(definition)
        .inspect_err(|error| tracing::error!(key, %error, "a definition does not serialise and is not served"))
        .ok()
}

/// The project, if it has the environment.
fn environment_of<'a>(world: &'a World, key: &ChannelKey) -> Option<&'a Project> {
    let project = world.projects.get(&*key.project)?;
    project.environments.contains_key(&*key.environment).then_some(project)
}

/// A project through the eyes of one channel.
#[derive(Clone, Copy)]
struct View<'a> {
    project: &'a Project,
    key: &'a ChannelKey,
}

impl<'a> View<'a> {
    fn flags(self) -> impl Iterator<Item = EnvironmentFlag> + use<'a> {
        self.project.flags.values().filter_map(move |state| self.see(state))
    }

    fn flag(self, flag: &str) -> Option<EnvironmentFlag> {
        self.see(self.project.flags.get(flag)?)
    }

    /// The flag, if this audience may see it. Browsers get what evaluation needs and no word more: who can open a page can
    /// read it.
    fn see(self, state: &FlagState) -> Option<EnvironmentFlag> {
        let mut seen = state.in_environment(&self.key.environment, self.key.audience)?;
        if self.key.audience == Audience::Client {
            for variation in &mut seen.variations {
                variation.name = String::new();
                variation.description = String::new();
                if let Some(provenance) = &mut variation.provenance {
                    provenance.model = None;
                    provenance.prompt_hash = None;
                    provenance.commit = None;
                    provenance.image = None;
                }
            }
            for rule in &mut seen.config.rules {
                rule.description = String::new();
            }
        } else {
            let release = self.project.release(&self.key.environment, &seen.key);
            seen.release = release.and_then(|release| release.measures());
        }
        Some(seen)
    }

    fn is_visible(self, state: &FlagState) -> bool {
        !state.published.archived && (self.key.audience == Audience::Server || state.published.client_side)
    }

    fn segment(self, segment: &str) -> Option<&'a Arc<SegmentState>> {
        self.project.segments.get(&(self.key.environment.to_string(), segment.to_owned()))
    }

    /// Keys of the segments that visible flags refer to.
    fn referenced_segments(self) -> BTreeSet<String> {
        let visible = self.project.flags.values().filter(|state| self.is_visible(state));
        let configs = visible.filter_map(|state| state.published.environments.get(&*self.key.environment));
        configs.flat_map(|config| &config.rules).flat_map(referenced_by_rule).map(str::to_owned).collect()
    }
}

fn references(flag: Option<&EnvironmentFlag>) -> BTreeSet<&str> {
    flag.into_iter().flat_map(|flag| &flag.config.rules).flat_map(referenced_by_rule).collect()
}

fn referenced_by_rule(rule: &guidon_sdk::model::Rule) -> impl Iterator<Item = &str> {
    let clauses = rule.clauses.iter().filter(|clause| clause.op == Op::Segment);
    clauses.flat_map(|clause| &clause.values).filter_map(|value| value.as_str())
}

#[cfg(test)]
mod tests;
