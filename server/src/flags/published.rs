//! Flags as people and SDKs see them: with the targeting keys that the stored form keeps outside the journal.

use std::collections::BTreeSet;
use std::collections::HashMap;
use std::sync::Arc;

use guidon_sdk::model::{Clause, Flag, FlagEnvironment, KeySetRef, Target};
use serde_json::Value;

use crate::state::{FlagState, KeySetSource};

impl FlagState {
    /// The state of a flag as it is stored, its keys from `keys`. When it last changed is left to the caller.
    #[must_use]
    pub fn load(stored: Flag, keys: &dyn KeySetSource, created_at: u64) -> Self {
        let stored = Arc::new(stored);
        let published = publish(&stored, keys);
        let mut state =
            Self { stored, published, created_at, updated_at: created_at, revision: 0, served: BTreeSet::new() };
        state.note_served();
        state
    }

    /// Remembers the environments in which the flag is on.
    pub fn note_served(&mut self) {
        let on = self.stored.environments.iter().filter(|(_, config)| config.on);
        self.served.extend(on.map(|(environment, _)| environment.clone()));
    }
}

/// The flag with keys in place of key sets; the same allocation where it has none.
#[must_use]
pub fn publish(stored: &Arc<Flag>, keys: &dyn KeySetSource) -> Arc<Flag> {
    let mut any = false;
    visit_flag(stored, &mut |_| any = true);
    if !any {
        return Arc::clone(stored);
    }
    let mut flag = Flag::clone(stored);
    for config in flag.environments.values_mut() {
        for target in &mut config.targets {
            publish_target(target, keys);
        }
        for rule in &mut config.rules {
            publish_clauses(&mut rule.clauses, keys);
        }
    }
    Arc::new(flag)
}

/// Puts the keys back into clauses.
pub(crate) fn publish_clauses(clauses: &mut [Clause], keys: &dyn KeySetSource) {
    for clause in clauses {
        let Some(set) = clause.key_set.take() else { continue };
        let found = keys.keys(&set).unwrap_or_default();
        clause.values.extend(found.iter().map(|key| Value::String(key.clone())));
    }
}

fn publish_target(target: &mut Target, keys: &dyn KeySetSource) {
    if let Some(set) = target.key_set.take() {
        target.keys = keys.keys(&set).unwrap_or_default().to_vec();
    }
}

/// Shows every key set of a flag to `see`.
pub fn visit_flag(flag: &Flag, see: &mut dyn FnMut(&KeySetRef)) {
    for config in flag.environments.values() {
        visit_config(config, see);
    }
}

/// Shows every key set of a flag's configuration in one environment to `see`.
pub fn visit_config(config: &FlagEnvironment, see: &mut dyn FnMut(&KeySetRef)) {
    config.targets.iter().filter_map(|target| target.key_set.as_ref()).for_each(&mut *see);
    for rule in &config.rules {
        visit_clauses(&rule.clauses, see);
    }
}

/// Shows every key set of some clauses to `see`.
pub fn visit_clauses(clauses: &[Clause], see: &mut dyn FnMut(&KeySetRef)) {
    clauses.iter().filter_map(|clause| clause.key_set.as_ref()).for_each(see);
}

/// Key sets that a flag's published form holds already, then those of another source: an edit elsewhere in a flag reads none.
pub(crate) struct KnownKeys<'a> {
    known: HashMap<&'a KeySetRef, Arc<[String]>>,
    others: &'a dyn KeySetSource,
}

impl<'a> KnownKeys<'a> {
    pub(crate) fn new(flag: Option<&'a FlagState>, others: &'a dyn KeySetSource) -> Self {
        let mut known = HashMap::new();
        if let Some(flag) = flag.filter(|flag| !Arc::ptr_eq(&flag.stored, &flag.published)) {
            for (key, stored) in &flag.stored.environments {
                if let Some(published) = flag.published.environments.get(key) {
                    collect(stored, published, &mut known);
                }
            }
        }
        Self { known, others }
    }

    /// Of lists of clauses, each as it is stored and as it is published.
    pub(crate) fn of_clauses(
        pairs: impl Iterator<Item = (&'a [Clause], &'a [Clause])>,
        others: &'a dyn KeySetSource,
    ) -> Self {
        let mut known = HashMap::new();
        for (stored, published) in pairs {
            collect_clauses(stored, published, &mut known);
        }
        Self { known, others }
    }
}

fn collect<'a>(
    stored: &'a FlagEnvironment,
    published: &FlagEnvironment,
    known: &mut HashMap<&'a KeySetRef, Arc<[String]>>,
) {
    for (target, with_keys) in stored.targets.iter().zip(&published.targets) {
        if let Some(set) = &target.key_set {
            known.insert(set, with_keys.keys.as_slice().into());
        }
    }
    for (rule, with_keys) in stored.rules.iter().zip(&published.rules) {
        collect_clauses(&rule.clauses, &with_keys.clauses, known);
    }
}

fn collect_clauses<'a>(stored: &'a [Clause], published: &[Clause], known: &mut HashMap<&'a KeySetRef, Arc<[String]>>) {
    for (clause, with_keys) in stored.iter().zip(published) {
        if let Some(set) = &clause.key_set {
            let added = with_keys.values.iter().skip(clause.values.len());
            known.insert(set, added.filter_map(|value| value.as_str().map(str::to_owned)).collect());
        }
    }
}

impl KeySetSource for KnownKeys<'_> {
    fn keys(&self, set: &KeySetRef) -> Option<Arc<[String]>> {
        // An empty list may stand for a set that could not be read before.
        match self.known.get(set) {
            Some(keys) if !keys.is_empty() => Some(Arc::clone(keys)),
            _ => self.others.keys(set),
        }
    }
}
