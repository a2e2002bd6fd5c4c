//! Segments as the server stores them: rules in the journal, targeting keys in the vault.

mod apply;
pub(crate) mod diff;
mod published;
mod resolve;

pub(crate) use apply::apply;
pub use published::visit_segment;
pub(crate) use resolve::resolve;

use guidon_sdk::model::{KeySetRef, SegmentRule};
use serde::{Deserialize, Serialize};

/// A segment as the journal and the folded state hold it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StoredSegment {
    /// Key, unique in its environment.
    pub key: String,
    /// Name for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Who belongs to it, in words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Keys that belong.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub included: Vec<KeyPart>,
    /// Keys that do not belong unless included.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub excluded: Vec<KeyPart>,
    /// Rules.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<SegmentRule>,
}

/// One step in the making of a key list; the list is what all steps, in order, leave. Bounded: the server merges them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum KeyPart {
    /// These keys were added.
    Add(KeySetRef),
    /// These keys were taken out.
    Remove(KeySetRef),
}
