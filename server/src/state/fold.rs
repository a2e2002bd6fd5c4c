//! Folding: one entry of the journal applied to what the entries before it left.
//!
//! Deterministic: the same entries give the same world, in this version and in later ones, and where they do not, the hash of
//! the object that came out differently says so. No clock, no randomness, no storage.

use std::sync::Arc;

use guidon_sdk::model::KeySetRef;

use super::{Project, Repeatable, Review, World};
use crate::changes::apply::{ApplyError, Draft};
use crate::journal::{ENTRY_FORMAT, Entry, ObjectHash, ObjectId, StoredEntry};
use crate::policy::PrincipalKind;

/// Where the keys behind a key set come from.
pub trait KeySetSource {
    /// The keys; `None` if the set is erased or missing, which counts as empty.
    fn keys(&self, set: &KeySetRef) -> Option<Arc<[String]>>;
}

/// Has no key sets: for folding where only what the journal itself holds matters.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoKeySets;

impl KeySetSource for NoKeySets {
    fn keys(&self, _: &KeySetRef) -> Option<Arc<[String]>> {
        None
    }
}

/// Why an entry could not be folded. The world it was to be folded into is unchanged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FoldError {
    /// The entry is not the next one.
    #[error("entry {found} cannot follow revision {revision}")]
    OutOfOrder {
        /// Revision folded so far.
        revision: u64,
        /// Revision of the entry.
        found: u64,
    },
    /// A newer version wrote the entry.
    #[error("entry {revision} is written in format {format}; this version reads up to {ENTRY_FORMAT}: use a newer one")]
    UnknownFormat {
        /// Revision of the entry.
        revision: u64,
        /// Its format.
        format: u32,
    },
    /// An instruction does not apply to the state before it.
    #[error("entry {revision}, instruction {index}: {error}")]
    Inapplicable {
        /// Revision of the entry.
        revision: u64,
        /// Which of its instructions, counted from 0.
        index: usize,
        /// What is wrong.
        error: ApplyError,
    },
    /// An object came out different from what the writer of the entry had.
    #[error(
        "entry {revision} gives {object} another state than when it was written (hash {found:?}, expected {expected:?})"
    )]
    Differs {
        /// Revision of the entry.
        revision: u64,
        /// The first object that differs.
        object: ObjectId,
        /// Hash in the entry.
        expected: Option<String>,
        /// Hash of what came out.
        found: Option<String>,
    },
}

impl World {
    /// Nothing: revision 0.
    #[must_use]
    pub fn empty() -> Self {
        Self::default()
    }

    /// The world after `stored`.
    ///
    /// # Errors
    ///
    /// [`FoldError`] if the entry is not the next, does not apply, or gives an object another state than its writer had.
    pub fn fold(&self, stored: &StoredEntry, keys: &dyn KeySetSource) -> Result<Self, FoldError> {
        let entry = &stored.entry;
        let revision = entry.revision;
        if entry.format > ENTRY_FORMAT {
            return Err(FoldError::UnknownFormat { revision, format: entry.format });
        }
        if revision != self.revision + 1 {
            return Err(FoldError::OutOfOrder { revision: self.revision, found: revision });
        }
        let mut draft = Draft::new(self, &entry.project, entry.environment.as_deref(), entry.at);
        for (index, instruction) in entry.instructions.iter().enumerate() {
            draft.apply(instruction, keys).map_err(|error| FoldError::Inapplicable { revision, index, error })?;
        }
        for ObjectHash { object, hash } in &entry.objects {
            let found = draft.hash(object);
            if found != *hash {
                return Err(FoldError::Differs { revision, object: object.clone(), expected: hash.clone(), found });
            }
        }
        Ok(draft.into_world().sealed(stored))
    }

    /// The world with an entry's edits made, as of that entry.
    #[must_use]
    pub(crate) fn sealed(mut self, stored: &StoredEntry) -> Self {
        let entry = &stored.entry;
        self.revision = entry.revision;
        self.hash = stored.hash;
        self.at = self.at.max(entry.at);
        if let Some(idempotency) = &entry.idempotency {
            let done = Repeatable { body: idempotency.body.clone(), revision: entry.revision, at: entry.at };
            self.repeatable.insert(idempotency.key.clone(), done);
        }
        self.repeatable.prune(entry.at);
        self.count(entry);
        self.remember_emergency(entry);
        self
    }

    /// Counts what an AI agent did towards its quota.
    fn count(&mut self, entry: &Entry) {
        let agent = self.directory.principals.get(&entry.actor_id);
        if agent.is_some_and(|principal| principal.kind == PrincipalKind::Agent) {
            for environment in entry.environments() {
                self.quotas.note(&entry.actor_id, &entry.project, &environment, entry.at);
            }
        }
        self.quotas.prune(entry.at);
    }

    /// Keeps in mind that an emergency change is to be reviewed.
    fn remember_emergency(&mut self, entry: &Entry) {
        let Some(grounds) = entry.grounds.as_ref().filter(|grounds| grounds.emergency) else { return };
        let Some(project) = self.projects.get(&entry.project) else { return };
        // Where it was judged and is closest to real users: what the change names is another environment where it is flag-wide.
        let tier = |key: &&String| project.environments.get(*key).map(|environment| environment.tier);
        let environment = grounds.environments.iter().max_by_key(tier).or(entry.environment.as_ref());
        let environment = environment.cloned().unwrap_or_default();
        let mut project = Project::clone(project);
        let review =
            Review { revision: entry.revision, at: entry.at, by: entry.actor_id.clone(), environment, finding: None };
        project.reviews.insert(entry.revision, Arc::new(review));
        self.projects.insert(entry.project.clone(), Arc::new(project));
    }
}

impl Default for World {
    fn default() -> Self {
        Self {
            revision: 0,
            hash: crate::journal::ChainHash::GENESIS,
            at: 0,
            projects: Default::default(),
            credentials: Default::default(),
            directory: Default::default(),
            quotas: Default::default(),
            repeatable: Default::default(),
        }
    }
}
