//! Hooks: code of the application that sees every evaluation.

use serde_json::Value;

use crate::eval::{ErrorCode, Reason};
use crate::model::Context;
use crate::protocol::Revision;

/// Sees every evaluation, before and after. Runs on the caller's thread, so it should be quick, and must not panic. A client
/// without hooks pays nothing for them.
pub trait Hook: Send + Sync + 'static {
    /// An evaluation is about to begin.
    fn before(&self, call: &Call<'_>) {
        let _ = call;
    }

    /// An evaluation has ended.
    fn after(&self, call: &Call<'_>, outcome: &Outcome<'_>) {
        let _ = (call, outcome);
    }
}

/// What is evaluated.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Call<'a> {
    /// Key of the flag.
    pub flag: &'a str,
    /// For whom.
    pub context: &'a Context<'a>,
}

/// How an evaluation ended.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Outcome<'a> {
    /// The value served; `None`: the caller's default.
    pub value: Option<&'a Value>,
    /// Key of the variation served.
    pub variation: Option<&'a str>,
    /// Why.
    pub reason: Reason,
    /// Id of the rule that matched.
    pub rule: Option<&'a str>,
    /// What went wrong, where the reason is [`Reason::Error`].
    pub error: Option<ErrorCode>,
    /// The revision evaluated, if there is one.
    pub revision: Option<&'a Revision>,
}
