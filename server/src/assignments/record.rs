//! What is stored of an exposure.

use guidon_sdk::protocol::{Cause, Exposure};
use serde::{Deserialize, Serialize};

use super::anonymize::{Pseudonym, PseudonymKey};
use super::watermarks::{Mark, Numbering};

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

/// Tag of a record that holds a batch.
const BATCH: u8 = b'B';
/// Tag of a record that starts a segment.
const CHECKPOINT: u8 = b'C';

/// What a batch's assignments share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BatchHead {
    #[serde(flatten)]
    pub(crate) numbering: Numbering,
    pub(crate) batch: u64,
    /// When the server took it in, in milliseconds since 1970.
    pub(crate) received: u64,
    /// Exposures that the SDK dropped since the batch before.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) dropped: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Starts a segment: all that is to be known of the ones before, so that those can be removed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Checkpoint {
    /// When the segment was started, in milliseconds since 1970.
    pub(crate) at: u64,
    pub(crate) marks: Vec<(Numbering, Mark)>,
}

/// What a stored record says, as far as opening the log needs it.
pub(crate) enum Kept {
    Batch(BatchHead),
    Checkpoint(Checkpoint),
}

/// A batch as it is stored: a tag, the head as a line of JSON, then a line for each assignment.
pub(crate) fn encode_batch(head: &BatchHead, items: impl Iterator<Item = Assignment>) -> serde_json::Result<Vec<u8>> {
    let mut bytes = vec![BATCH];
    serde_json::to_writer(&mut bytes, head)?;
    for item in items {
        bytes.push(b'\n');
        serde_json::to_writer(&mut bytes, &item)?;
    }
    Ok(bytes)
}

pub(crate) fn encode_checkpoint(checkpoint: &Checkpoint) -> serde_json::Result<Vec<u8>> {
    let mut bytes = vec![CHECKPOINT];
    serde_json::to_writer(&mut bytes, checkpoint)?;
    Ok(bytes)
}

/// Reads what opening the log needs; the assignments are left unread.
pub(crate) fn decode(payload: &[u8]) -> Result<Kept, String> {
    match payload.split_first() {
        Some((&BATCH, rest)) => {
            let head = rest.split(|byte| *byte == b'\n').next().unwrap_or_default();
            serde_json::from_slice(head).map(Kept::Batch).map_err(|error| error.to_string())
        }
        Some((&CHECKPOINT, rest)) => {
            serde_json::from_slice(rest).map(Kept::Checkpoint).map_err(|error| error.to_string())
        }
        _ => Err("neither a batch nor a checkpoint".to_owned()),
    }
}

/// The assignments of a batch's record.
pub(crate) fn items(payload: &[u8]) -> impl Iterator<Item = serde_json::Result<Assignment>> {
    payload.split(|byte| *byte == b'\n').skip(1).map(serde_json::from_slice)
}
