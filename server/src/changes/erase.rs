//! Erasing one person's key from a project: from everything the vault keeps of its past, once nothing of its present has it.
//!
//! Nothing is journaled and the chain stays as it is: the journal never held the key. Taking it out of the present is an
//! ordinary change, judged and journaled as any other, which SDKs learn of; so a key that still stands somewhere is refused
//! here, with the places.

use std::collections::{BTreeMap, HashSet};

use guidon_sdk::model::{Clause, KeySetRef, TARGETING_KEY};
use serde::Serialize;

use super::keysets::{ErasedSets, visit_entry};
use super::service::PlaceError;
use super::{ChangeError, ChangeService};
use crate::state::Project;

/// Entries read at once.
const READ_ENTRIES: usize = 512;

/// Most places that are listed.
const MAX_PLACES: usize = 100;

/// How often the end of the journal is waited for while writes fail.
const MAX_ATTEMPTS: usize = 20;

/// What an erasure did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ErasedKey {
    /// Stored key lists that it was taken out of.
    pub key_sets: usize,
    /// Key lists deleted that were stored for changes which were not made.
    pub unused_key_sets: usize,
    /// What change requests asked for, deleted because it held the key.
    pub requests: usize,
    /// The revision up to which nothing holds the key any more.
    pub revision: u64,
}

/// A place of the present state that holds the key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Standing {
    /// Environment.
    pub environment: String,
    /// Flag, if it is one's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flag: Option<String>,
    /// Segment, if it is one's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub segment: Option<String>,
    /// Where in it, in words.
    pub place: String,
    /// What takes it out, in words; the key itself is left out.
    pub remedy: String,
}

/// Why a key was not erased.
#[derive(Debug, thiserror::Error)]
pub enum EraseError {
    /// There is no such project.
    #[error("there is no project {0:?}")]
    UnknownProject(String),
    /// The present state holds it.
    #[error("the key still stands in {} place(s) of the present state", .0.len())]
    Stands(Vec<Standing>),
    /// Storage failed, or the server takes no writes. What was erased so far stays erased.
    #[error(transparent)]
    Change(#[from] ChangeError),
}

/// The key sets that the journal's entries refer to, up to a revision.
#[derive(Default)]
struct Referred {
    revision: u64,
    of_project: BTreeMap<String, KeySetRef>,
    all: HashSet<String>,
}

impl ChangeService {
    /// Erases a person's key from the key sets and change requests of a project, of all times. Can be done again, and is to
    /// be if it was cut short.
    ///
    /// # Errors
    ///
    /// [`EraseError`]. [`EraseError::Stands`] before anything is erased.
    pub async fn erase_key(&self, project: &str, key: &str) -> Result<ErasedKey, EraseError> {
        standing_nowhere(self.world().project(project), project, key)?;
        let stored = |error| EraseError::from(ChangeError::from(error));
        // The long part: changes go on meanwhile.
        let mut referred = Referred::default();
        self.refer(&mut referred, self.world().revision, project).await?;
        let sets = referred.of_project.values().cloned().collect();
        let mut holding = self.key_sets.holding(sets, key.to_owned()).await.map_err(stored)?;
        let known: HashSet<String> = referred.of_project.keys().cloned().collect();

        // The short part: no change is prepared meanwhile, and those before it are durable or failed.
        let (sets, revision) = self.erase_at_rest(project, key, &mut referred, &mut holding, &known).await?;
        let requests = self.requests.erase(project.to_owned(), key.to_owned()).await.map_err(ChangeError::from)?;
        self.key_sets.purge().await.map_err(stored)?;
        Ok(ErasedKey { key_sets: sets.rewritten, unused_key_sets: sets.deleted, requests, revision })
    }

    async fn erase_at_rest(
        &self,
        project: &str,
        key: &str,
        referred: &mut Referred,
        holding: &mut Vec<KeySetRef>,
        known: &HashSet<String>,
    ) -> Result<(ErasedSets, u64), EraseError> {
        let stored = |error| EraseError::from(ChangeError::from(error));
        for _ in 0..MAX_ATTEMPTS {
            let failures = self.failures.count.subscribe();
            let head = match self.head().await {
                Ok(head) => head,
                Err(PlaceError::Refused(error)) => return Err(error.into()),
                Err(PlaceError::Contended) => continue,
            };
            let revision = head.world.revision;
            if !self.settled(revision, failures).await? {
                continue;
            }
            self.refer(referred, revision, project).await?;
            let later = referred.of_project.iter().filter(|(id, _)| !known.contains(*id));
            let later = later.map(|(_, set)| set.clone()).collect();
            holding.extend(self.key_sets.holding(later, key.to_owned()).await.map_err(stored)?);
            standing_nowhere(head.world.project(project), project, key)?;
            let (sets, referenced) = (std::mem::take(holding), std::mem::take(&mut referred.all));
            let erased = self.key_sets.erase(sets, key.to_owned(), referenced).await.map_err(stored)?;
            return Ok((erased, revision));
        }
        Err(ChangeError::Busy.into())
    }

    /// Reads on to `revision` which key sets entries refer to.
    async fn refer(&self, referred: &mut Referred, revision: u64, project: &str) -> Result<(), ChangeError> {
        while referred.revision < revision {
            let read = self.journal().read(referred.revision, READ_ENTRIES).await?;
            if read.is_empty() {
                let reason = format!("the journal has no entry {}", referred.revision + 1);
                return Err(ChangeError::Unavailable { reason });
            }
            for stored in read {
                let entry = &*stored.entry;
                referred.revision = entry.revision;
                visit_entry(entry, &mut |set| {
                    referred.all.insert(set.id.clone());
                    if entry.project == project {
                        referred.of_project.insert(set.id.clone(), set.clone());
                    }
                });
            }
        }
        Ok(())
    }
}

fn standing_nowhere(state: Option<&std::sync::Arc<Project>>, project: &str, key: &str) -> Result<(), EraseError> {
    let state = state.ok_or_else(|| EraseError::UnknownProject(project.to_owned()))?;
    let places = standing(state, key);
    if places.is_empty() { Ok(()) } else { Err(EraseError::Stands(places)) }
}

/// Where the present state of a project holds a person's key; the first hundred places.
#[must_use]
pub fn standing(project: &Project, key: &str) -> Vec<Standing> {
    let has = |clauses: &[Clause]| {
        let names =
            |clause: &Clause| clause.attribute == TARGETING_KEY && clause.values.iter().any(|value| value == key);
        clauses.iter().any(names)
    };
    let mut places = Vec::new();
    for (flag, state) in &project.flags {
        for (environment, config) in &state.published.environments {
            let mut stands = |place: String, remedy: String| {
                let (environment, flag) = (environment.clone(), Some(flag.clone()));
                places.push(Standing { environment, flag, segment: None, place, remedy });
            };
            if config.targets.iter().any(|target| target.keys.iter().any(|held| held == key)) {
                let instruction = r#"{"kind":"removeTargets","flag":FLAG,"keys":[KEY]}"#;
                stands("the targets".to_owned(), format!("the instruction {instruction} takes it out"));
            }
            for rule in config.rules.iter().filter(|rule| has(&rule.clauses)) {
                let instruction = r#"{"kind":"replaceRule"} without the key, or {"kind":"removeRule"},"#;
                stands(format!("the rule {}", rule.id), format!("the instruction {instruction} takes it out"));
            }
        }
    }
    for ((environment, segment), state) in &project.segments {
        let mut stands = |place: String, remedy: String| {
            let (environment, segment) = (environment.clone(), Some(segment.clone()));
            places.push(Standing { environment, flag: None, segment, place, remedy });
        };
        for (list, keys) in [("included", &state.included), ("excluded", &state.excluded)] {
            if keys.contains(key) {
                let remedy = format!("`guidon segment remove-keys {segment} KEY --list {list} -e {environment}`");
                stands(format!("the {list} keys"), remedy);
            }
        }
        for rule in state.rules.iter().filter(|rule| has(&rule.clauses)) {
            let remedy = format!("`guidon segment remove-rule {segment} {} -e {environment}`", rule.id);
            stands(format!("the rule {}", rule.id), remedy);
        }
    }
    places.truncate(MAX_PLACES);
    places
}

impl Standing {
    /// It in one sentence.
    #[must_use]
    pub fn sentence(&self) -> String {
        let of = match (&self.flag, &self.segment) {
            (Some(flag), _) => format!("of the flag {flag}"),
            (None, Some(segment)) => format!("of the segment {segment}"),
            (None, None) => String::new(),
        };
        format!("{} {of} in {} still have the key: {}", self.place, self.environment, self.remedy)
    }
}
