//! How instances differ from their peers, and from what staging has run. Pure.

use std::collections::{HashMap, HashSet};

use serde::Serialize;

use super::Build;
use crate::push::ConnectionInfo;

/// What an instance says of itself, by name.
const FACTS: [&str; 4] = ["version", "commit", "image", "sdk"];

fn facts(info: &ConnectionInfo) -> [&str; FACTS.len()] {
    [&info.version, &info.commit, &info.image, &info.sdk]
}

/// A connected instance, and what is odd about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Instance {
    /// What it says of itself.
    #[serde(flatten)]
    pub info: ConnectionInfo,
    /// Facts in which it is not as more than half of the instances of its application are.
    pub differs: Vec<&'static str>,
    /// Of `commit` and `image` what staging has never run, where that is asked.
    pub unvalidated: Vec<&'static str>,
}

/// Marks instances. `validated` are the builds that staging has run; `None` where staging validates nothing for the environment.
#[must_use]
pub fn compare(connected: Vec<ConnectionInfo>, validated: Option<&HashSet<Build>>) -> Vec<Instance> {
    let mut peers: HashMap<&str, usize> = HashMap::new();
    let mut counts: HashMap<(&str, usize, &str), usize> = HashMap::new();
    for info in &connected {
        *peers.entry(&info.application).or_default() += 1;
        for (index, value) in facts(info).into_iter().enumerate() {
            *counts.entry((&info.application, index, value)).or_default() += 1;
        }
    }
    let differs: Vec<Vec<&'static str>> = connected
        .iter()
        .map(|info| {
            let all = peers.get(&*info.application).copied().unwrap_or(0);
            let is_alone = |(index, value): (usize, &str)| {
                let alike = counts.get(&(&*info.application, index, value)).copied().unwrap_or(0);
                (alike * 2 <= all).then_some(FACTS[index])
            };
            facts(info).into_iter().enumerate().filter_map(is_alone).collect()
        })
        .collect();
    let validated = validated.map(Validated::of);
    let unvalidated: Vec<Vec<&'static str>> = connected
        .iter()
        .map(|info| validated.as_ref().map(|validated| validated.lacks(info)).unwrap_or_default())
        .collect();
    let marks = differs.into_iter().zip(unvalidated);
    connected
        .into_iter()
        .zip(marks)
        .map(|(info, (differs, unvalidated))| Instance { info, differs, unvalidated })
        .collect()
}

/// Commits and images that staging has run, by application.
struct Validated<'a> {
    commits: HashSet<(&'a str, &'a str)>,
    images: HashSet<(&'a str, &'a str)>,
}

impl<'a> Validated<'a> {
    fn of(builds: &'a HashSet<Build>) -> Self {
        Self {
            commits: builds.iter().map(|build| (&*build.application, &*build.commit)).collect(),
            images: builds.iter().map(|build| (&*build.application, &*build.image)).collect(),
        }
    }

    /// What an instance reports that is not among them.
    fn lacks(&self, info: &ConnectionInfo) -> Vec<&'static str> {
        let facts = [("commit", &info.commit, &self.commits), ("image", &info.image, &self.images)];
        let lacking = facts
            .into_iter()
            .filter(|(_, value, known)| !value.is_empty() && !known.contains(&(&*info.application, value.as_str())));
        lacking.map(|(name, _, _)| name).collect()
    }
}
