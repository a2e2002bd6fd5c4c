//! Configuration as a document: what files say a project should be.
//!
//! One document is one JSON object; the files that people keep in YAML are merged into one before they are sent. What a
//! document leaves out keeps what stands on the server; what it says is meant to be so. The guide is `docs/AS_CODE.md`.

use std::collections::BTreeMap;

use guidon_sdk::model::{FlagKind, Op, Prerequisite, Provenance, TARGETING_KEY};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::Tier;

/// A project, or a part of one, as files say it should be.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Document {
    /// Environments by key. Those that are left out stay as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environments: Option<BTreeMap<String, EnvironmentDocument>>,
    /// Flags by key. Those that are left out stay as they are, and are reported as unmanaged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flags: Option<BTreeMap<String, FlagDocument>>,
    /// Segments by environment and key. Those that are left out stay as they are, and are reported as unmanaged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segments: Option<BTreeMap<String, BTreeMap<String, SegmentDocument>>>,
}

/// An environment of the project.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EnvironmentDocument {
    /// Name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Tier it belongs to. A new environment needs one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier: Option<Tier>,
}

/// A flag. A new one needs a kind and variations.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FlagDocument {
    /// Type of every variation's value. The kind of a flag that there is already cannot be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<FlagKind>,
    /// Name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What the flag is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Words to filter by, all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<String>>,
    /// Team or role that answers for the flag; null for none.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "said")]
    pub owner: Option<Option<String>>,
    /// Whether the flag is meant to be removed once its release is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temporary: Option<bool>,
    /// Day (`YYYY-MM-DD`) after which a temporary flag should be gone; null for none.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "said")]
    pub expires: Option<Option<String>>,
    /// Whether client-side keys (browsers) may see the flag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_side: Option<bool>,
    /// Whether the flag is archived.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archived: Option<bool>,
    /// JSON Schema that every value must satisfy; null for none.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "said")]
    pub schema: Option<Option<Value>>,
    /// The possible values, all of them. Their order counts where the flag is new: an environment that the document is silent
    /// about serves the first one by a person, else the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variations: Option<Vec<VariationDocument>>,
    /// How environments, by key, serve the flag. Those that are left out stay as they are.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub environments: BTreeMap<String, ServingDocument>,
}

/// One possible value of a flag.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VariationDocument {
    /// Identifies the variation within its flag.
    pub key: String,
    /// The value served. A new variation needs one.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "said")]
    pub value: Option<Value>,
    /// Name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What serving this variation does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Who wrote the code behind the variation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provenance: Option<Provenance>,
}

/// How one environment serves a flag.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServingDocument {
    /// Whether the flag is on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on: Option<bool>,
    /// Key of the variation served while the flag is off or a prerequisite fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub off_variation: Option<String>,
    /// Other flags that must serve a given variation, all of them. Their order does not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prerequisites: Option<Vec<Prerequisite>>,
    /// Individual targeting keys that get a given variation, all of them. They are persons' keys: exports leave them out
    /// unless they are asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub targets: Option<Vec<TargetDocument>>,
    /// Targeting rules, all of them; the first that matches wins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules: Option<Vec<RuleDocument>>,
    /// What is served when nothing above applies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallthrough: Option<ServeDocument>,
}

/// Individual targeting keys that get one variation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TargetDocument {
    /// Key of the variation.
    pub variation: String,
    /// The targeting keys.
    pub keys: Vec<String>,
}

/// A targeting rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RuleDocument {
    /// Identifies the rule. Without one the rule is taken for the standing one that is most like it: of the same content, else
    /// of the same clauses, else at the same place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// What the rule is for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Conditions joined by AND; at least one.
    pub clauses: Vec<ClauseDocument>,
    /// What matching contexts get.
    pub serve: ServeDocument,
}

/// One condition on a context.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClauseDocument {
    /// Name of the attribute; `targetingKey` stands for the targeting key. Not used by `segment`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub attribute: String,
    /// How the attribute is compared.
    pub op: Op,
    /// What it is compared with; the clause matches if any value does. Empty for `exists`, segment keys for `segment`. Where
    /// the clause lists targeting keys (`targetingKey` `in`), leaving the values out keeps those that stand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub values: Option<Vec<Value>>,
    /// Whether the outcome is turned around.
    #[serde(default, skip_serializing_if = "is_false")]
    pub negate: bool,
}

/// What a rule or the fallthrough gives out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ServeDocument {
    /// One variation, by key.
    Variation(String),
    /// A percentage rollout.
    Rollout(RolloutDocument),
}

/// A split of contexts over variations by weight.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RolloutDocument {
    /// Weight of each variation, by key; they sum to 100,000.
    pub weights: BTreeMap<String, u32>,
    /// Attribute whose value decides the slot.
    #[serde(default = "targeting_key", skip_serializing_if = "is_targeting_key")]
    pub bucket_by: String,
    /// Makes one rollout independent of another. Left out, the one that stands is kept; another deals everybody anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub salt: Option<String>,
    /// Owner of every slot, as `["variation", start, end]`. Left out, what stands is kept, and only the slots move that must.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allocation: Option<Vec<guidon_sdk::model::SlotRange>>,
}

/// A reusable population of one environment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SegmentDocument {
    /// Name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Who belongs to it, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Targeting keys that belong, all of them. They are persons' keys: exports leave them out unless they are asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub included: Option<Vec<String>>,
    /// Targeting keys that do not belong unless included, all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub excluded: Option<Vec<String>>,
    /// Rules, all of them; a context that any of them matches belongs. Their order does not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules: Option<Vec<SegmentRuleDocument>>,
}

/// Conditions, joined by AND, that make a context belong to a segment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SegmentRuleDocument {
    /// Identifies the rule; as in [`RuleDocument`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// What the rule is for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Conditions joined by AND; at least one.
    pub clauses: Vec<ClauseDocument>,
}

/// Tells a `null` that was said from a field that was left out.
fn said<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

fn targeting_key() -> String {
    TARGETING_KEY.to_owned()
}

fn is_targeting_key(attribute: &str) -> bool {
    attribute == TARGETING_KEY
}

fn is_false(value: &bool) -> bool {
    !*value
}
