//! Flags, their variations, and how an environment serves them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{KeySetRef, Rule, Serve, is_false};

/// Type of every value a flag can serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FlagKind {
    /// `true` or `false`.
    Boolean,
    /// A string.
    String,
    /// An IEEE 754 double; integers are exact within ±2⁵³.
    Number,
    /// Any JSON value.
    Json,
}

impl FlagKind {
    /// Whether `value` is of this kind.
    #[must_use]
    pub fn admits(self, value: &Value) -> bool {
        match self {
            Self::Boolean => value.is_boolean(),
            Self::String => value.is_string(),
            Self::Number => value.is_number(),
            Self::Json => true,
        }
    }

    /// The word used in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Boolean => "boolean",
            Self::String => "string",
            Self::Number => "number",
            Self::Json => "json",
        }
    }
}

/// A switch: its possible values, and how each environment serves them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Flag {
    /// Identifies the flag within its project; see [`super::is_valid_key`].
    pub key: String,
    /// Type of every variation's value.
    pub kind: FlagKind,
    /// Name for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// What the flag is for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Words to filter by.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Team or role that answers for the flag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Whether the flag is meant to be removed once its release is over.
    #[serde(default, skip_serializing_if = "is_false")]
    pub temporary: bool,
    /// Day (`YYYY-MM-DD`) after which a temporary flag should be gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
    /// Whether client-side keys (browsers) may see the flag.
    #[serde(default, skip_serializing_if = "is_false")]
    pub client_side: bool,
    /// Whether the flag is archived: kept for its history, served to nobody (SDKs answer the caller's default).
    #[serde(default, skip_serializing_if = "is_false")]
    pub archived: bool,
    /// The possible values, at least one.
    pub variations: Vec<Variation>,
    /// JSON Schema that every value must satisfy; remote `$ref`s are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<Value>,
    /// How each environment, by key, serves the flag. The server fills in environments a new flag is silent about.
    #[serde(default)]
    pub environments: BTreeMap<String, FlagEnvironment>,
}

impl Flag {
    /// The variation with this key.
    #[must_use]
    pub fn variation(&self, key: &str) -> Option<&Variation> {
        self.variations.iter().find(|variation| variation.key == key)
    }

    /// What an environment does where the definition is silent: off, serving the first variation of human provenance, else
    /// the last one. `None` if there are no variations.
    #[must_use]
    pub fn default_environment(&self) -> Option<FlagEnvironment> {
        let safe = self
            .variations
            .iter()
            .find(|variation| variation.is_by(ProvenanceKind::Human))
            .or(self.variations.last())?;
        Some(FlagEnvironment {
            on: false,
            off_variation: safe.key.clone(),
            prerequisites: Vec::new(),
            targets: Vec::new(),
            rules: Vec::new(),
            fallthrough: Serve::Variation(safe.key.clone()),
        })
    }

    /// The part of the flag that one environment evaluates, or `None` if the flag does not know the environment.
    #[must_use]
    pub fn in_environment(&self, environment: &str) -> Option<EnvironmentFlag> {
        Some(EnvironmentFlag {
            key: self.key.clone(),
            kind: self.kind,
            client_side: self.client_side,
            variations: self.variations.clone(),
            config: self.environments.get(environment)?.clone(),
            release: None,
        })
    }
}

/// One possible value of a flag.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Variation {
    /// Identifies the variation within its flag.
    pub key: String,
    /// The value served; of the flag's kind.
    pub value: Value,
    /// Name for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// What serving this variation does.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Who wrote the code behind the variation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provenance: Option<Provenance>,
}

impl Variation {
    /// Whether the code behind the variation is known to be by `kind`.
    #[must_use]
    pub fn is_by(&self, kind: ProvenanceKind) -> bool {
        self.provenance.as_ref().is_some_and(|provenance| provenance.by == kind)
    }
}

/// Who wrote the code behind a variation, and with what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Provenance {
    /// AI or human.
    pub by: ProvenanceKind,
    /// The model that wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Hash of the prompt it was written from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_hash: Option<String>,
    /// Source commit that holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// Digest of the image that carries it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
}

/// Kind of author of the code behind a variation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProvenanceKind {
    /// Written by an AI model.
    Ai,
    /// Written by a person.
    Human,
}

/// How one environment serves a flag.
///
/// Evaluated in order: off, prerequisites, targets, rules, fallthrough.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FlagEnvironment {
    /// Whether the flag is on.
    #[serde(default)]
    pub on: bool,
    /// Key of the variation served while the flag is off or a prerequisite fails.
    pub off_variation: String,
    /// Other flags that must serve a given variation.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prerequisites: Vec<Prerequisite>,
    /// Individual context keys that get a given variation, ahead of the rules.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<Target>,
    /// Targeting rules; the first that matches wins.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Rule>,
    /// What is served when nothing above applies.
    pub fallthrough: Serve,
}

/// A flag that must serve a given variation for this flag to be on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Prerequisite {
    /// Key of the other flag; it must be on.
    pub flag: String,
    /// Key of the variation it must serve.
    pub variation: String,
}

/// Individual context keys that get one variation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    /// Key of the variation.
    pub variation: String,
    /// The targeting keys.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<String>,
    /// In place of `keys` in what the server stores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_set: Option<KeySetRef>,
}

/// A flag as one environment evaluates it: what a snapshot carries.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EnvironmentFlag {
    /// Key of the flag.
    pub key: String,
    /// Type of its values.
    pub kind: FlagKind,
    /// Whether client-side keys may see it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub client_side: bool,
    /// The possible values.
    pub variations: Vec<Variation>,
    /// How the environment serves them.
    pub config: FlagEnvironment,
    /// What instances measure while a release of the flag is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<ReleaseMeasures>,
}

/// What a release asks of instances. It never changes what is assigned.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReleaseMeasures {
    /// Key of the variation under release.
    pub treatment: String,
    /// Key of the variation it is compared with.
    pub control: String,
    /// Tracked metrics that the release reads, and that are counted by variation of this flag.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub metrics: Vec<String>,
    /// Whether the CPU time of each call is measured.
    #[serde(default, skip_serializing_if = "is_false")]
    pub cpu: bool,
    /// Share of the calls, out of 100,000, on which the AI path runs beside the baseline and its answer is thrown away; 0 but for
    /// a shadow step.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub shadow: u32,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}
