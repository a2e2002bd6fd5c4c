//! What a token is good for.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::policy::{Action, Group};

/// Most environments or actions that a scope names.
const MAX_NAMES: usize = 100;

/// What a token is good for. Whatever it leaves open, the policies still decide.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Scope {
    /// The one project; all of them if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// The environments, by key; all of them if empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub environments: Vec<String>,
    /// Actions, or groups of them, by their words.
    pub actions: Vec<String>,
    /// The one flag; all of them, and everything that is no flag, if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flag: Option<String>,
}

/// What is wrong with a scope.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScopeProblem {
    /// It covers nothing.
    #[error("a scope names at least one action or group of actions, as \"read\" or \"turnFlagOff\"")]
    NoActions,
    /// It names something that is no action.
    #[error("\"{0}\" is neither an action nor a group; the groups are read, export, edit, delete, credential, request")]
    UnknownAction(String),
    /// It names too much.
    #[error("a scope names at most {MAX_NAMES} environments and {MAX_NAMES} actions")]
    TooMany,
    /// It covers an environment of no project.
    #[error("environments belong to a project: name it")]
    EnvironmentsWithoutProject,
}

impl Scope {
    /// What is wrong with it by itself.
    ///
    /// # Errors
    ///
    /// [`ScopeProblem`], the first.
    pub fn check(&self) -> Result<(), ScopeProblem> {
        if self.actions.is_empty() {
            return Err(ScopeProblem::NoActions);
        }
        if self.actions.len() > MAX_NAMES || self.environments.len() > MAX_NAMES {
            return Err(ScopeProblem::TooMany);
        }
        if !self.environments.is_empty() && self.project.is_none() {
            return Err(ScopeProblem::EnvironmentsWithoutProject);
        }
        match self.actions.iter().find(|word| group(word).is_none() && Action::from_str(word).is_err()) {
            Some(word) => Err(ScopeProblem::UnknownAction(word.clone())),
            None => Ok(()),
        }
    }

    /// Whether it covers an action in a project and an environment (empty: the whole of it), on a flag if it is about one.
    #[must_use]
    pub fn covers(&self, action: Action, project: &str, environment: &str, flag: Option<&str>) -> bool {
        let named = |word: &String| *word == action.as_str() || group(word) == Some(action.group());
        self.project.as_deref().is_none_or(|of| of == project)
            && (self.environments.is_empty() || self.environments.iter().any(|of| of == environment))
            && self.flag.as_deref().is_none_or(|of| match flag {
                Some(flag) => flag == of,
                // What a token for one flag may do beside editing it is to read.
                None => matches!(action.group(), Group::Read | Group::Request),
            })
            && self.actions.iter().any(named)
    }
}

fn group(word: &str) -> Option<Group> {
    Group::ALL.into_iter().find(|group| group.as_str() == word)
}
