//! The policies in force, compiled once for each set of files.

use std::collections::BTreeMap;
use std::sync::Arc;

use imbl::OrdMap;
use parking_lot::Mutex;

use super::{PolicyProblem, PolicySet};
use crate::identity::directory::{Directory, PolicyFile};

/// Compiles the policies of a directory, and keeps what it compiled last.
#[derive(Default)]
pub struct PolicyCache {
    last: Mutex<Option<Compiled>>,
}

struct Compiled {
    files: OrdMap<String, Arc<PolicyFile>>,
    set: Result<Arc<PolicySet>, String>,
}

impl PolicyCache {
    /// The policies in force with this directory.
    ///
    /// # Errors
    ///
    /// What is wrong with a file that was right when it was set, say after an upgrade. Nobody can decide anything then but to
    /// refuse: leaving the file out could allow what it forbids.
    pub fn of(&self, directory: &Directory) -> Result<Arc<PolicySet>, String> {
        let mut last = self.last.lock();
        if let Some(compiled) = &*last
            && (compiled.files.ptr_eq(&directory.policies) || compiled.files == directory.policies)
        {
            return compiled.set.clone();
        }
        let texts: BTreeMap<String, String> = directory.policy_texts();
        let set = PolicySet::with(&texts).map(Arc::new).map_err(|problems| describe(&problems));
        *last = Some(Compiled { files: directory.policies.clone(), set: set.clone() });
        set
    }
}

fn describe(problems: &[PolicyProblem]) -> String {
    let first = problems.first().map(ToString::to_string).unwrap_or_default();
    format!("a policy file that was accepted earlier is not understood any more: {first}")
}
