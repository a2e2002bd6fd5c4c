//! What an exposure batch may look like. Pure.

use guidon_sdk::protocol::{Exposure, ExposureBatch};

/// Limits of one exposure batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchLimits {
    /// Most items. Default 1,000.
    pub max_items: u32,
    /// Longest instance id, in bytes. Default 256.
    pub max_instance_bytes: usize,
    /// Longest unit, in bytes. Default 1,024.
    pub max_unit_bytes: usize,
    /// Longest other text (flag, variation, reason, rule), in bytes. Default 256.
    pub max_text_bytes: usize,
}

impl Default for BatchLimits {
    fn default() -> Self {
        Self { max_items: 1_000, max_instance_bytes: 256, max_unit_bytes: 1_024, max_text_bytes: 256 }
    }
}

/// Why a batch will never be stored as it is, for people. Names the item and the field, and never quotes a unit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RefusedBatch(pub String);

/// Says what is wrong with a batch, if anything is.
///
/// # Errors
///
/// [`RefusedBatch`] with the first problem.
pub fn check_batch(batch: &ExposureBatch, limits: &BatchLimits) -> Result<(), RefusedBatch> {
    if batch.batch == 0 {
        return Err(RefusedBatch("batch: numbers count from 1".to_owned()));
    }
    if batch.instance.is_empty() || batch.instance.len() > limits.max_instance_bytes {
        let limit = limits.max_instance_bytes;
        return Err(RefusedBatch(format!("instance: must have 1 to {limit} bytes (max_instance_bytes)")));
    }
    if batch.items.len() > limits.max_items as usize {
        let (count, limit) = (batch.items.len(), limits.max_items);
        return Err(RefusedBatch(format!("items: {count} of them, the limit is {limit} (max_items)")));
    }
    batch.items.iter().enumerate().try_for_each(|(index, item)| check_item(index, item, limits))
}

fn check_item(index: usize, item: &Exposure, limits: &BatchLimits) -> Result<(), RefusedBatch> {
    let texts = [
        ("flag", item.flag.as_str(), limits.max_text_bytes),
        ("unit", item.unit.as_str(), limits.max_unit_bytes),
        ("assigned", item.assigned.as_str(), limits.max_text_bytes),
        ("delivered", item.delivered.as_str(), limits.max_text_bytes),
        ("reason", item.reason.as_str(), limits.max_text_bytes),
        ("rule", item.rule.as_deref().unwrap_or_default(), limits.max_text_bytes),
    ];
    if let Some((name, text, limit)) = texts.iter().find(|(_, text, limit)| text.len() > *limit) {
        let bytes = text.len();
        return Err(RefusedBatch(format!("items/{index}/{name}: {bytes} bytes, the limit is {limit}")));
    }
    if item.flag.is_empty() {
        return Err(RefusedBatch(format!("items/{index}/flag: is empty")));
    }
    if item.slot.is_some_and(|slot| slot >= guidon_sdk::model::SLOTS) {
        return Err(RefusedBatch(format!("items/{index}/slot: slots are below {}", guidon_sdk::model::SLOTS)));
    }
    Ok(())
}
