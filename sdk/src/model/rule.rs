//! Targeting rules, their clauses, and what they serve.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{KeySetRef, TARGETING_KEY, is_false};

/// Serves something to every context that all its clauses match.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rule {
    /// Identifies the rule within its flag and environment; the server makes one where it is empty.
    #[serde(default)]
    pub id: String,
    /// What the rule is for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Conditions joined by AND; at least one.
    pub clauses: Vec<Clause>,
    /// What matching contexts get.
    pub serve: Serve,
}

/// One condition on a context.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Clause {
    /// Name of the attribute; [`TARGETING_KEY`] stands for the targeting key. Not used by `segment`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub attribute: String,
    /// How the attribute is compared.
    pub op: Op,
    /// What it is compared with; the clause matches if any value does. Empty for `exists`, segment keys for `segment`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<Value>,
    /// Whether the outcome is turned around: a clause that would not match, for whatever reason, matches.
    #[serde(default, skip_serializing_if = "is_false")]
    pub negate: bool,
    /// In place of `values` in what the server stores, where the clause lists targeting keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_set: Option<KeySetRef>,
}

/// How a clause compares. A type mismatch is a non-match, never an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Op {
    /// Equal to one of the values (same type; numbers by value).
    In,
    /// A string that contains one of the values.
    Contains,
    /// A string that starts with one of the values.
    StartsWith,
    /// A string that ends with one of the values.
    EndsWith,
    /// A string in which one of the regular expressions matches somewhere; linear time.
    Matches,
    /// A number less than the value.
    LessThan,
    /// A number less than or equal to the value.
    LessThanOrEqual,
    /// A number greater than the value.
    GreaterThan,
    /// A number greater than or equal to the value.
    GreaterThanOrEqual,
    /// A semantic version of equal precedence.
    SemverEqual,
    /// A semantic version of lower precedence.
    SemverLessThan,
    /// A semantic version of lower or equal precedence.
    SemverLessThanOrEqual,
    /// A semantic version of higher precedence.
    SemverGreaterThan,
    /// A semantic version of higher or equal precedence.
    SemverGreaterThanOrEqual,
    /// An RFC 3339 time earlier than the value.
    Before,
    /// An RFC 3339 time later than the value.
    After,
    /// The attribute is there and not null.
    Exists,
    /// An IP address within one of the CIDR ranges.
    IpInRange,
    /// The context belongs to one of the segments.
    Segment,
}

/// What a rule or the fallthrough gives out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Serve {
    /// One variation, by key.
    Variation(String),
    /// A percentage rollout.
    Rollout(Rollout),
}

/// A split of contexts over variations by weight.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rollout {
    /// Weight of each variation, by key; they sum to [`super::SLOTS`].
    pub weights: BTreeMap<String, u32>,
    /// Attribute whose value decides the slot.
    #[serde(default = "targeting_key")]
    pub bucket_by: String,
    /// Makes one rollout independent of another. The server makes one where it is empty.
    #[serde(default)]
    pub salt: String,
    /// Owner of every slot, in order and without gaps. The server computes it from the weights and what stood before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allocation: Vec<SlotRange>,
}

fn targeting_key() -> String {
    TARGETING_KEY.to_owned()
}

/// Slots `start..end` belong to `variation`. In JSON `["variation", start, end]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(String, u32, u32)", into = "(String, u32, u32)")]
pub struct SlotRange {
    /// Key of the variation.
    pub variation: String,
    /// First slot.
    pub start: u32,
    /// One past the last slot.
    pub end: u32,
}

impl From<(String, u32, u32)> for SlotRange {
    fn from((variation, start, end): (String, u32, u32)) -> Self {
        Self { variation, start, end }
    }
}

impl From<SlotRange> for (String, u32, u32) {
    fn from(range: SlotRange) -> Self {
        (range.variation, range.start, range.end)
    }
}
