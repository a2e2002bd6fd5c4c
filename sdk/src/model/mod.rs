//! What a flag is: the published contract, as JSON in camelCase.
//!
//! These types say what a definition may look like, not whether it is right: [`crate::validate`] lists every problem of one.
//! Reading is lenient about unknown fields, so that an older SDK can follow a newer server; the server's write path refuses
//! them by name.

mod context;
mod flag;
mod rule;
mod segment;

pub use context::{AttributeValue, Context, TARGETING_KEY};
pub use flag::{
    EnvironmentFlag, Flag, FlagEnvironment, FlagKind, Prerequisite, Provenance, ProvenanceKind, ReleaseMeasures,
    Target, Variation,
};
pub use rule::{Clause, Op, Rollout, Rule, Serve, SlotRange};
pub use segment::{Segment, SegmentRule};

use serde::{Deserialize, Serialize};

/// Number of slots a rollout divides, and the sum of its weights: a weight of 1 is 0.001 %.
pub const SLOTS: u32 = 100_000;

/// Longest key of a flag, variation, segment, environment or project, in bytes.
pub const MAX_KEY_BYTES: usize = 128;

/// Whether `key` has the form of every key a person chooses: `[a-z0-9][a-z0-9._-]{0,127}`.
#[must_use]
pub fn is_valid_key(key: &str) -> bool {
    let mut bytes = key.bytes();
    key.len() <= MAX_KEY_BYTES
        && bytes.next().is_some_and(|first| first.is_ascii_lowercase() || first.is_ascii_digit())
        && bytes.all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'_' | b'-'))
}

/// Stands for a list of context keys that the server keeps outside its journal, so that a person can be forgotten.
///
/// Occurs only in what the server stores; the API and the push protocol carry the keys themselves.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeySetRef {
    /// Identifier of the key set.
    pub id: String,
    /// Keyed hash of the content, in hexadecimal; without the key, which is stored with the content, it tells nothing.
    pub hash: String,
    /// Number of keys.
    pub len: u32,
}

pub(crate) fn is_false(value: &bool) -> bool {
    !*value
}
