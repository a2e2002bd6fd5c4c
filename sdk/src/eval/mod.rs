//! The evaluator: which variation a context gets, and why.
//!
//! Pure: no clock, I/O, randomness, lock or panic, and no allocation on the path that serves a variation. Definitions are
//! compiled once, when they arrive; one that cannot be compiled fails alone. `docs/FORMATS.md` is the contract.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

pub mod allocation;
pub mod bucket;
mod clause;
mod compile;
mod engine;
mod instant;
mod keys;
mod measures;
mod reason;
mod ruleset;
mod symbols;
mod table;
mod trace;
mod version;

pub use bucket::{Bucket, Unit};
pub use compile::{MAX_REGEX_BYTES, MAX_REGEX_CACHE_BYTES, MAX_REGEX_NESTING, Variation};
pub use engine::{Evaluation, MAX_PREREQUISITE_DEPTH, MAX_PREREQUISITES_EVALUATED, evaluate, evaluate_at};
pub use keys::{KeyDifference, KeySet};
pub use measures::Measures;
pub use reason::{ErrorCode, Reason};
pub use ruleset::{DefinitionProblem, FlagRef, FlagSummary, Ruleset};
pub use trace::{
    Because, ClauseStep, Explanation, PrerequisiteStep, RolloutStep, RuleStep, SegmentStep, TargetsStep, explain,
};

pub(crate) use compile::{Fault, compile_test};
pub(crate) use instant::is_date;
pub(crate) use ruleset::SegmentSource;
