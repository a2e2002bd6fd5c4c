//! Segments: reusable populations of one environment.

use serde::{Deserialize, Serialize};

use super::Clause;

/// A reusable population.
///
/// A context belongs if its targeting key is included; does not if it is excluded; and otherwise if a rule matches.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Segment {
    /// Identifies the segment within its environment; see [`super::is_valid_key`].
    pub key: String,
    /// Name for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Who belongs to it, in words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Targeting keys that belong, whatever the rules say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub included: Vec<String>,
    /// Targeting keys that do not belong unless included.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub excluded: Vec<String>,
    /// Rules; a context that any of them matches belongs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<SegmentRule>,
}

/// Conditions, joined by AND, that make a context belong to a segment. They may not refer to segments.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SegmentRule {
    /// Identifies the rule within its segment; the server makes one where it is empty.
    #[serde(default)]
    pub id: String,
    /// What the rule is for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Conditions joined by AND; at least one.
    pub clauses: Vec<Clause>,
}
