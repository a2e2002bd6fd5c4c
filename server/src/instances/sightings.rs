//! Which builds were seen in an environment, bounded. Pure.

use std::collections::{HashMap, HashSet, VecDeque};

/// Builds that are remembered of an environment. Beyond it the one seen first is forgotten, and is new when it comes again.
pub const MAX_BUILDS: usize = 1_000;
/// New builds of an environment that are taken note of in an hour, lastingly: whoever holds an SDK key can make them up.
pub const NEW_BUILDS_PER_HOUR: u64 = 60;
/// How many may come at once.
pub const NEW_BUILDS_BURST: u64 = 200;

const HOUR_MS: u64 = 60 * 60 * 1_000;

/// A build of an application.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Build {
    /// Name of the application.
    pub application: String,
    /// Source commit; empty where it is not known.
    pub commit: String,
    /// Digest of the image; empty where it is not known.
    pub image: String,
}

/// Whether a build is new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It was seen here before.
    Before,
    /// It is new here, and to be taken note of.
    First,
    /// It may be new, and too many are: it is looked at again when it connects next.
    TooMany,
}

#[derive(Debug, Default)]
struct Environment {
    known: HashSet<Build>,
    order: VecDeque<Build>,
    /// New builds that may come, in parts of an hour, and since when.
    allowance: Option<(u64, u64)>,
}

impl Environment {
    fn remember(&mut self, build: Build) {
        if self.known.insert(build.clone()) {
            self.order.push_back(build);
        }
        while self.order.len() > MAX_BUILDS
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }

    /// Takes one from the allowance, which is counted in milliseconds of an hour for each new build.
    fn may_note(&mut self, now: u64) -> bool {
        let full = NEW_BUILDS_BURST * HOUR_MS;
        let (left, at) = self.allowance.unwrap_or((full, now));
        let left = left.saturating_add(now.saturating_sub(at).saturating_mul(NEW_BUILDS_PER_HOUR)).min(full);
        let taken = left.checked_sub(HOUR_MS);
        self.allowance = Some((taken.unwrap_or(left), now.max(at)));
        taken.is_some()
    }
}

/// The builds that were seen, by project and environment.
#[derive(Debug, Default)]
pub struct Sightings {
    environments: HashMap<(String, String), Environment>,
}

impl Sightings {
    fn environment(&mut self, project: &str, environment: &str) -> &mut Environment {
        self.environments.entry((project.to_owned(), environment.to_owned())).or_default()
    }

    /// Takes in a build that was seen earlier.
    pub fn remember(&mut self, project: &str, environment: &str, build: Build) {
        self.environment(project, environment).remember(build);
    }

    /// Takes in a build that is seen at `now` (milliseconds since 1970).
    pub fn see(&mut self, project: &str, environment: &str, build: &Build, now: u64) -> Seen {
        let environment = self.environment(project, environment);
        if environment.known.contains(build) {
            return Seen::Before;
        }
        if !environment.may_note(now) {
            return Seen::TooMany;
        }
        environment.remember(build.clone());
        Seen::First
    }

    /// The builds that were seen in an environment.
    pub fn of(&self, project: &str, environment: &str) -> impl Iterator<Item = &Build> {
        let known = self.environments.get(&(project.to_owned(), environment.to_owned()));
        known.into_iter().flat_map(|environment| &environment.known)
    }
}
