//! Prerequisites that lead back to where they started, or too far.

use std::collections::HashSet;

use super::FlagFacts;
use crate::eval::MAX_PREREQUISITE_DEPTH;
use crate::model::{Flag, Prerequisite};

/// A chain of prerequisites that may not be.
pub(super) struct Chain {
    /// Position of the prerequisite it starts with.
    pub(super) prerequisite: usize,
    pub(super) code: &'static str,
    pub(super) message: String,
}

/// Chains that come back to `flag`, or are longer than the evaluator follows. The flag itself as its own prerequisite is
/// left to the caller.
pub(super) fn find(flag: &Flag, environment: &str, wanted: &[Prerequisite], facts: &dyn FlagFacts) -> Vec<Chain> {
    let mut chains = Vec::new();
    for (index, prerequisite) in wanted.iter().enumerate() {
        if prerequisite.flag == flag.key {
            continue;
        }
        let mut search = Search { flag: &flag.key, environment, facts, path: Vec::new(), done: HashSet::new() };
        let message = match search.visit(&prerequisite.flag) {
            Found::Nothing => continue,
            Found::Cycle => (
                "prerequisiteCycle",
                format!(
                    "{} → {} → {0}: prerequisites may not form a cycle; remove one of them",
                    flag.key,
                    search.path.join(" → ")
                ),
            ),
            Found::TooDeep => (
                "prerequisitesTooDeep",
                format!("a chain of more than {MAX_PREREQUISITE_DEPTH} prerequisites starts here; shorten it"),
            ),
        };
        chains.push(Chain { prerequisite: index, code: message.0, message: message.1 });
    }
    chains
}

enum Found {
    Nothing,
    Cycle,
    TooDeep,
}

struct Search<'a> {
    flag: &'a str,
    environment: &'a str,
    facts: &'a dyn FlagFacts,
    /// Flags from the first prerequisite to the present one.
    path: Vec<&'a str>,
    /// Flags, with the depth they were reached at, from which nothing was found.
    done: HashSet<(&'a str, usize)>,
}

impl<'a> Search<'a> {
    fn visit(&mut self, key: &'a str) -> Found {
        if self.path.len() >= MAX_PREREQUISITE_DEPTH as usize {
            return Found::TooDeep;
        }
        if !self.done.insert((key, self.path.len())) {
            return Found::Nothing;
        }
        let facts = self.facts;
        let Some(config) = facts.flag(key).and_then(|flag| flag.environments.get(self.environment)) else {
            return Found::Nothing;
        };
        self.path.push(key);
        for next in &config.prerequisites {
            if next.flag == self.flag {
                return Found::Cycle;
            }
            match self.visit(&next.flag) {
                Found::Nothing => {}
                found => return found,
            }
        }
        self.path.pop();
        Found::Nothing
    }
}
