//! What an entry means for those who evaluate.

use std::collections::{BTreeMap, BTreeSet};

use crate::journal::{Entry, ObjectId};

/// The flags and segments of one project that an entry touched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// Flags whose shared part was: every environment is concerned.
    pub flags_everywhere: BTreeSet<String>,
    /// Flags by environment.
    pub flags: BTreeMap<String, BTreeSet<String>>,
    /// Segments by environment.
    pub segments: BTreeMap<String, BTreeSet<String>>,
    /// Environments created, renamed or deleted.
    pub environments: BTreeSet<String>,
    /// Identifiers of SDK keys created or revoked.
    pub sdk_keys: BTreeSet<String>,
}

impl Touched {
    /// Keys of the flags that `environment` must look at again.
    #[must_use]
    pub fn flags_in(&self, environment: &str) -> BTreeSet<&str> {
        let here = self.flags.get(environment).into_iter().flatten();
        self.flags_everywhere.iter().chain(here).map(String::as_str).collect()
    }

    /// Keys of the segments that `environment` must look at again.
    #[must_use]
    pub fn segments_in(&self, environment: &str) -> BTreeSet<&str> {
        self.segments.get(environment).into_iter().flatten().map(String::as_str).collect()
    }

    /// Whether anything that `environment` evaluates was touched.
    #[must_use]
    pub fn concerns(&self, environment: &str) -> bool {
        !self.flags_everywhere.is_empty()
            || self.flags.contains_key(environment)
            || self.segments.contains_key(environment)
            || self.environments.contains(environment)
    }
}

/// What `entry` touched, by environment.
#[must_use]
pub fn touched(entry: &Entry) -> Touched {
    let mut touched = Touched::default();
    for changed in &entry.objects {
        match changed.object.clone() {
            ObjectId::Project => {}
            ObjectId::Environment(key) => {
                touched.environments.insert(key);
            }
            ObjectId::Flag(key) => {
                touched.flags_everywhere.insert(key);
            }
            ObjectId::FlagEnvironment(environment, key) => {
                touched.flags.entry(environment).or_default().insert(key);
            }
            ObjectId::Segment(environment, key) => {
                touched.segments.entry(environment).or_default().insert(key);
            }
            ObjectId::SdkKey(id) => {
                touched.sdk_keys.insert(id);
            }
            // What instances measure for it is part of what they are told of the flag.
            ObjectId::Release(environment, key) => {
                touched.flags.entry(environment).or_default().insert(key);
            }
            // Nothing that anybody evaluates.
            ObjectId::Incident(_) => {}
            ObjectId::Request(_)
            | ObjectId::Review(_)
            | ObjectId::Webhook(_)
            | ObjectId::Drill(..)
            | ObjectId::Principal(_)
            | ObjectId::RoleBinding(_)
            | ObjectId::Token(_)
            | ObjectId::Issuer(_)
            | ObjectId::Policy(_) => {}
        }
    }
    touched
}
