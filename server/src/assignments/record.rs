//! What is stored of an exposure.

use guidon_sdk::protocol::{Cause, Exposure};
use serde::{Deserialize, Serialize};

use super::anonymize::{Pseudonym, PseudonymKey};

/// One served variation, as it is stored and read back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Assignment {
    /// Key of the flag.
    pub flag: String,
    /// Stands for the unit: 32 hexadecimal digits, the same for the same unit of this environment.
    #[schema(value_type = String)]
    pub unit: Pseudonym,
    /// Variation the evaluator chose.
    pub assigned: String,
    /// Variation whose code answered.
    pub delivered: String,
    /// Why `delivered` is what it is.
    #[schema(value_type = String)]
    pub cause: Cause,
    /// Evaluation reason, in OpenFeature's words.
    pub reason: String,
    /// Id of the rule that matched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// Slot of the unit, where a rollout decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<u32>,
    /// Revision number evaluated.
    pub revision: u64,
    /// When, by the SDK's clock, in milliseconds since 1970.
    pub at: u64,
}

impl Assignment {
    /// What is stored of `exposure`: all but its unit, of which only the pseudonym.
    #[must_use]
    pub fn of(exposure: Exposure, key: &PseudonymKey) -> Self {
        let Exposure { flag, unit, assigned, delivered, cause, reason, rule, slot, revision, at } = exposure;
        Self { flag, unit: key.pseudonym(&unit), assigned, delivered, cause, reason, rule, slot, revision, at }
    }
}
