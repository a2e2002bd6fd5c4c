//! Where a change moves people in one environment: to what is safe, to something else, or nowhere. Pure.
//!
//! **Lowering** means that everyone who moves, in dependent flags too, gets the off variation of the state after or a
//! variation of provenance `human`. Anything else that moves somebody is **widening**, and so is what cannot be ruled out.
//!
//! Every flag is compared as a whole, before against after, whatever the instructions were. People are told apart by what
//! decided for them:
//!
//! - *shut*: the flag is absent (archived, deleted, not shown to browsers), off, or one of its prerequisites is not met;
//! - *open*: a target, a rule or the fallthrough decided.
//!
//! Somebody who stays open meets a rule before and a rule after. Rules with the same clauses match the same people, so that
//! most pairs of rules cannot be: what is left is compared slot by slot where salt and `bucketBy` are the same; otherwise
//! everybody may move to any of the variations. What a flag gains and loses as a prerequisite is carried to its dependants.
//!
//! What is not counted: a context without a targeting key has no slot in a rollout by targeting key, so that its going to the
//! caller's default when one variation becomes a rollout is not a move. With another `bucketBy`, whose attribute many may
//! lack, it is. Shares of a rollout are shares of what it is bucketed by.

mod body;
mod closure;
mod flow;
mod gate;
mod serve;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::reach::Reach;
use crate::environments::Audience;
use crate::policy::Direction;
use crate::state::Project;
pub(crate) use flow::percent;
use gate::Comparison;

/// Most reasons that a movement gives; the flags beyond them are counted in one more.
const MAX_REASONS: usize = 50;

/// Where a change moves people.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Movement {
    /// To what is safe, to something else, or nowhere.
    pub direction: Direction,
    /// Upper bound of the share of people, 0 to 1, who get another variation: that of the flag where it is largest.
    pub share: f64,
    /// Upper bound of the share of people, 0 to 1, who newly get an AI variation: that of the flag where it is largest.
    pub ai_share: f64,
    /// Keys of the flags that were touched, and of those that serve somebody else something because of it; sorted.
    pub flags: Vec<String>,
    /// What moves, in words, by flag.
    pub reasons: Vec<String>,
}

impl Movement {
    /// The worse of both in everything: of two environments, or of two changes that are made at once.
    #[must_use]
    pub fn worst(mut self, other: Self) -> Self {
        self.direction = self.direction.max(other.direction);
        self.share = self.share.max(other.share);
        self.ai_share = self.ai_share.max(other.ai_share);
        self.flags.extend(other.flags);
        self.flags.sort_unstable();
        self.flags.dedup();
        for reason in other.reasons {
            if !self.reasons.contains(&reason) {
                self.reasons.push(reason);
            }
        }
        self
    }
}

/// Where people of `environment` move when `before` becomes `after`; `reach` is what is known of how many people each rule
/// matches before the change.
///
/// `flags` are the flags touched, `segments` the segments of this environment that were; what depends on them is found here.
#[must_use]
pub(crate) fn direction(
    before: &Project,
    after: &Project,
    environment: &str,
    flags: &BTreeSet<String>,
    segments: &BTreeSet<String>,
    reach: &Reach,
) -> Movement {
    // Nobody can hold a key of an environment that is not there: making or deleting one moves nobody.
    if !before.environments.contains_key(environment) || !after.environments.contains_key(environment) {
        return Movement { flags: flags.iter().cloned().collect(), ..Movement::default() };
    }
    let concerned = closure::concerned(before, after, environment, flags, segments);
    let compare = |audience| {
        let mut comparison = Comparison::new(before, after, environment, audience, &concerned, reach);
        movement(&mut comparison, &concerned, flags)
    };
    let everybody = compare(Audience::Server);
    // Browsers see a part of what servers see. Only where that part changes can they fare worse.
    let shown = |project: &Project, flag: &str| project.flags.get(flag).is_some_and(|flag| flag.published.client_side);
    if flags.iter().any(|flag| shown(before, flag) != shown(after, flag)) {
        let mut browsers = compare(Audience::Client);
        browsers.reasons.iter_mut().for_each(|reason| reason.insert_str(0, "in browsers, "));
        return everybody.worst(browsers);
    }
    everybody
}

fn movement<'a>(
    comparison: &mut Comparison<'a>,
    concerned: &'a closure::Concerned<'a>,
    touched: &BTreeSet<String>,
) -> Movement {
    let mut found = Movement::default();
    let mut unsaid = 0_usize;
    for key in &concerned.flags {
        let flow = comparison.flow(key);
        if touched.contains(*key) || !flow.is_still() {
            found.flags.push((*key).to_owned());
        }
        let relabelled = comparison.relabelled(key);
        found.direction = found.direction.max(flow.direction());
        found.share = found.share.max(flow.moved.unwrap_or(0.0));
        found.ai_share = found.ai_share.max(flow.ai);
        for reason in flow.in_words(key).into_iter().chain(relabelled) {
            if found.reasons.len() < MAX_REASONS {
                found.reasons.push(reason);
            } else {
                unsaid += 1;
            }
        }
    }
    if unsaid > 0 {
        found.reasons.push(format!("and {unsaid} more"));
    }
    found
}

#[cfg(test)]
mod tests;
