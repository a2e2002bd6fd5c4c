//! When a drill still counts. Pure.

use guidon_sdk::model::{FlagEnvironment, Serve};
use serde::Serialize;

use super::StandingDrill;
use crate::environments::Tier;
use crate::state::Project;

/// How long a drill counts: 7 days, in milliseconds.
pub const DRILL_LIFE_MS: u64 = 7 * 24 * 60 * 60 * 1_000;

/// Whether a drill still counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Freshness {
    /// It counts.
    Fresh,
    /// It is more than [`DRILL_LIFE_MS`] old.
    Expired,
    /// Variations, rules, prerequisites, targets or what is served while the flag is off have changed since.
    Outdated,
    /// It did not pass.
    Failed,
}

/// A hash of what a drill rehearses of a flag: its variations and, in the environment, everything but the shares of its
/// rollouts and whether it is on. `None` where there is no such flag.
#[must_use]
pub fn shape(project: &Project, environment: &str, flag: &str) -> Option<String> {
    let stored = &project.flags.get(flag)?.stored;
    let config = without_shares(stored.environments.get(environment)?);
    let bytes = serde_json::to_vec(&(&stored.variations, stored.kind, config)).ok()?;
    Some(blake3::hash(&bytes).to_hex().to_string())
}

/// The configuration as if nobody had set a share or switched it.
pub(super) fn without_shares(config: &FlagEnvironment) -> FlagEnvironment {
    let mut config = FlagEnvironment { on: false, ..config.clone() };
    without_allocations(&mut config);
    config
}

/// Takes weights and slots out of every rollout, and leaves salt and attribute.
pub(super) fn without_allocations(config: &mut FlagEnvironment) {
    let rules = config.rules.iter_mut().map(|rule| &mut rule.serve);
    for serve in rules.chain([&mut config.fallthrough]) {
        if let Serve::Rollout(rollout) = serve {
            rollout.weights.clear();
            rollout.allocation.clear();
        }
    }
}

/// Whether the drill still counts at `now` (milliseconds since 1970).
#[must_use]
pub fn freshness(project: &Project, drill: &StandingDrill, now: u64) -> Freshness {
    if !drill.report.passed {
        Freshness::Failed
    } else if now.saturating_sub(drill.at) >= DRILL_LIFE_MS {
        Freshness::Expired
    } else if shape(project, &drill.environment, &drill.flag).is_none_or(|shape| shape != drill.report.shape) {
        Freshness::Outdated
    } else {
        Freshness::Fresh
    }
}

/// Whether the way back of `flag` was rehearsed: a drill of it counts at `now` in an environment of staging or production.
#[must_use]
pub fn is_rehearsed(project: &Project, flag: &str, now: u64) -> bool {
    let near = project.environments.values().filter(|environment| environment.tier >= Tier::Staging);
    near.into_iter().any(|environment| {
        let drill = project.drills.get(&(environment.key.clone(), flag.to_owned()));
        drill.is_some_and(|drill| freshness(project, drill, now) == Freshness::Fresh)
    })
}
