//! The project as it will be once a plan is carried out: what flags are checked against. Pure.

use std::collections::{BTreeMap, BTreeSet};

use guidon_sdk::model::Flag;
use guidon_sdk::validate::{FlagFacts, SegmentFacts};

use crate::segments::diff::WantedSegment;
use crate::state::Project;

/// What there will be.
pub(crate) struct Expected<'a> {
    project: &'a Project,
    /// All environments.
    pub(crate) environments: BTreeSet<String>,
    /// Flags that a document speaks of, as they will be; all others stay as they are.
    pub(crate) flags: BTreeMap<String, Flag>,
    segments: BTreeMap<(String, String), SegmentFacts>,
}

impl<'a> Expected<'a> {
    /// What there is.
    pub(crate) fn new(project: &'a Project) -> Self {
        let environments = project.environments.keys().cloned().collect();
        Self { project, environments, flags: BTreeMap::new(), segments: BTreeMap::new() }
    }

    /// Takes note of a segment that will be there.
    pub(crate) fn segment(&mut self, environment: &str, wanted: &WantedSegment) {
        let mut facts = SegmentFacts::of(&wanted.definition());
        if let Some(standing) = self.project.segment(environment, &wanted.key) {
            facts.lists_keys |= wanted.included.is_none() && !standing.included.is_empty();
            facts.lists_keys |= wanted.excluded.is_none() && !standing.excluded.is_empty();
        }
        self.segments.insert((environment.to_owned(), wanted.key.clone()), facts);
    }

    /// All flags, as they will be.
    pub(crate) fn all_flags(&self) -> impl Iterator<Item = &Flag> {
        let others = self.project.flags.iter().filter(|(key, _)| !self.flags.contains_key(*key));
        others.map(|(_, state)| &*state.published).chain(self.flags.values())
    }

    /// A flag as it will be, archived or not.
    pub(crate) fn any_flag(&self, key: &str) -> Option<&Flag> {
        self.flags.get(key).or_else(|| self.project.flags.get(key).map(|state| &*state.published))
    }

    /// Keys of the segments that there will be in an environment.
    pub(crate) fn segments_in(&self, environment: &str) -> BTreeSet<&str> {
        let new = self.segments.keys().filter(|(of, _)| of == environment).map(|(_, key)| key.as_str());
        let known = self.project.segments.keys().filter(|(of, _)| of == environment).map(|(_, key)| key.as_str());
        known.chain(new).collect()
    }
}

impl FlagFacts for Expected<'_> {
    fn has_environment(&self, environment: &str) -> bool {
        self.environments.contains(environment)
    }

    fn flag(&self, key: &str) -> Option<&Flag> {
        self.any_flag(key).filter(|flag| !flag.archived)
    }

    fn segment(&self, environment: &str, key: &str) -> Option<SegmentFacts> {
        let planned = self.segments.get(&(environment.to_owned(), key.to_owned()));
        planned.copied().or_else(|| FlagFacts::segment(self.project, environment, key))
    }
}
