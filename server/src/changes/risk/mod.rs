//! How much a change may hurt, as a score with its reasons. Pure.
//!
//! The score is the sum of the points of its reasons, from 0 to 100. Points are few and round, so that people can follow them:
//!
//! | code | when | points | why |
//! |---|---|---|---|
//! | `tier` | testing / staging / production | 3 / 7 / 12 | who is behind the environment |
//! | `share` | widening: up to 1 % / 5 % / 25 % / 50 % / more of the people get something else | 2 / 6 / 14 / 20 / 28 | the steps of a canary release; the last is everybody at once |
//! | `ai` | widening leads to a variation by AI | 10 | nobody wrote that code |
//! | `aiShare` | widening: up to 1 % / 5 % / 25 % / 50 % / more newly get AI | 0 / 2 / 5 / 8 / 12 | a canary of AI is what canaries are for; a crowd is not |
//! | `noGuardrails` | widening, and no metric would stop it | 12 | nothing would notice |
//! | `staged` | widening by a release in steps, with guardrails that take it back | up to -15, of the points for the shares | who is hurt is few, and for seconds |
//! | `noDrill` | widening, and no fresh rollback drill | 10 | nobody knows that the way back works |
//! | `dependants` | 1 or 2 / up to 9 / more flags require what is touched | 3 / 6 / 10 | what moves here moves there |
//! | `schema` | the schema of a flag's values changes | 8 | later values may be ones that no code expects |
//! | `flags` | 2 to 4 / up to 19 / more flags touched | 2 / 5 / 10 | more than one can have in mind |
//! | `segment` | the people of a segment change | 6 | every rule that uses it follows |
//! | `flagWide` | an edit reaches the flag in all environments | 6 | what was tried in one is not tried in the others |
//!
//! and what is known to be harmless brings the sum down to a cap, as a reason with negative points:
//!
//! | code | when | at most | why |
//! |---|---|---|---|
//! | `lowering` | everybody who moves gets what is safe | 20 | the way back must never wait |
//! | `textOnly` | only names and descriptions change, and nobody moves | 10 | no evaluation reads them |
//! | `development` | in development | 29 | nobody but its authors sees it: always low |
//! | `testing` | in testing | 59 | nobody outside sees it: never high |
//!
//! Low is below 30, medium below 60, high from there. A 1 % canary of AI in production with guardrails and a fresh drill is low
//! (24) and applies by itself; without both it is medium (46); AI for everybody at once is high even with both (62), and so is
//! an unlabelled variation for everybody with neither (62). A release of AI to everybody, in guarded steps, is medium (47 with a
//! fresh drill, 57 without).
//!
//! What is not known counts as the worse: a share that is no number is everybody.

mod facts;
mod points;

#[cfg(test)]
mod tests;

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

pub use facts::{EditKinds, RiskFacts};
pub use points::assess;

use crate::policy::RiskLevel;

/// Scores from this one on are medium.
pub const MEDIUM_FROM: u32 = 30;

/// Scores from this one on are high.
pub const HIGH_FROM: u32 = 60;

/// How much a change may hurt, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Assessment {
    /// 0 to 100: the sum of the reasons' points, within these bounds.
    pub score: u32,
    /// What the score means.
    pub level: RiskLevel,
    /// What the score is made of.
    pub reasons: Vec<Reason>,
}

/// One part of a score.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reason {
    /// A stable word.
    pub code: Cow<'static, str>,
    /// What it adds; below zero for what caps the score.
    pub points: i32,
    /// What it is, for people.
    pub text: String,
}

/// What a score means.
#[must_use]
pub fn level(score: u32) -> RiskLevel {
    match score {
        0..MEDIUM_FROM => RiskLevel::Low,
        MEDIUM_FROM..HIGH_FROM => RiskLevel::Medium,
        HIGH_FROM.. => RiskLevel::High,
    }
}
