//! How often the machine may act by itself: after an action a release rests, and a project has a budget an hour.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

const HOUR: u64 = 3_600;

/// Most actions an hour that can be configured, which bounds the memory.
pub const MAX_ACTIONS_PER_HOUR: usize = 100;

/// What a project allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RestraintLimits {
    /// Seconds after an action in which the same release gets no other; default 300.
    pub cool_down_seconds: u64,
    /// Automatic actions of the whole project in any 3,600 seconds, 0 to [`MAX_ACTIONS_PER_HOUR`]; default 6. Past it only
    /// people act: more than that is not a bad release but a bad day, or a bad guard.
    pub actions_per_hour: usize,
}

impl Default for RestraintLimits {
    fn default() -> Self {
        Self { cool_down_seconds: 300, actions_per_hour: 6 }
    }
}

/// The answer to a wish to act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "camelCase")]
pub enum Permit {
    /// Act; it is counted.
    Granted,
    /// This release was acted on a moment ago.
    CoolingDown {
        /// The second from which it may be again.
        until: u64,
    },
    /// The project's budget is spent: hold, notify, and leave it to people.
    Spent {
        /// The second in which the oldest action is an hour old. None if the budget is 0.
        until: Option<u64>,
    },
}

/// The automatic actions of a project in the past hour. Memory: at most [`MAX_ACTIONS_PER_HOUR`] entries of 16 bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Restraint {
    limits: RestraintLimits,
    /// Second and release of each, oldest first.
    taken: VecDeque<(u64, u64)>,
}

impl Restraint {
    /// A project in which nothing was done yet.
    #[must_use]
    pub fn new(limits: RestraintLimits) -> Self {
        let actions_per_hour = limits.actions_per_hour.min(MAX_ACTIONS_PER_HOUR);
        Self { limits: RestraintLimits { actions_per_hour, ..limits }, taken: VecDeque::new() }
    }

    /// A project in which these actions (second, release), oldest first, were taken.
    #[must_use]
    pub fn after(limits: RestraintLimits, taken: Vec<(u64, u64)>) -> Self {
        let mut restraint = Self::new(limits);
        let surplus = taken.len().saturating_sub(MAX_ACTIONS_PER_HOUR);
        restraint.taken = taken.into_iter().skip(surplus).collect();
        restraint
    }

    /// Asks to act on `release` (any number that names it) at second `now`, and counts the action if it may be done. A clock
    /// that steps back makes nothing possible that was not.
    pub fn ask(&mut self, release: u64, now: u64) -> Permit {
        let rest = self.limits.cool_down_seconds;
        self.taken.retain(|(second, _)| second.saturating_add(HOUR.max(rest)) > now);
        let last = self.taken.iter().filter(|(_, acted)| *acted == release).map(|(second, _)| *second).max();
        if let Some(until) = last.map(|second| second.saturating_add(rest)).filter(|until| *until > now) {
            return Permit::CoolingDown { until };
        }
        let recent = self.taken.iter().map(|(second, _)| second.saturating_add(HOUR)).filter(|until| *until > now);
        if recent.clone().count() >= self.limits.actions_per_hour {
            return Permit::Spent { until: recent.min() };
        }
        if self.taken.len() >= MAX_ACTIONS_PER_HOUR {
            self.taken.pop_front();
        }
        self.taken.push_back((now, release));
        Permit::Granted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_release_rests_and_a_project_has_a_budget() {
        let mut restraint = Restraint::new(RestraintLimits { cool_down_seconds: 300, actions_per_hour: 2 });
        assert_eq!(restraint.ask(1, 1_000), Permit::Granted);
        assert_eq!(restraint.ask(1, 1_100), Permit::CoolingDown { until: 1_300 });
        assert_eq!(restraint.ask(2, 1_100), Permit::Granted);
        assert_eq!(restraint.ask(3, 2_000), Permit::Spent { until: Some(4_600) });
        assert_eq!(restraint.ask(3, 4_600), Permit::Granted);
        assert_eq!(
            Restraint::new(RestraintLimits { actions_per_hour: 0, ..RestraintLimits::default() }).ask(1, 1),
            Permit::Spent { until: None }
        );
    }

    proptest! {
        #[test]
        fn no_hour_has_more_actions_than_allowed(wishes in prop::collection::vec((0_u64..400, 0_u64..5), 0..200), budget in 0_usize..5) {
            let mut restraint = Restraint::new(RestraintLimits { cool_down_seconds: 60, actions_per_hour: budget });
            let (mut now, mut granted) = (0, Vec::new());
            for (wait, release) in wishes {
                now += wait;
                if restraint.ask(release, now) == Permit::Granted {
                    granted.push(now);
                    prop_assert!(granted.iter().filter(|second| **second + HOUR > now).count() <= budget);
                }
            }
        }
    }
}
