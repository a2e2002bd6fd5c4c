//! Rollouts on the write path: who owns which slot after a change of weights.

use std::collections::BTreeMap;

use guidon_sdk::eval::allocation;
use guidon_sdk::model::{Flag, SLOTS, Serve, SlotRange};

use crate::changes::mint;
use crate::changes::resolve::Resolving;

/// Fills in salt and allocation of what a rule or the fallthrough serves, keeping those that stand.
///
/// `standing` is what is served there now. A rollout that names no salt, or the standing one, keeps the standing salt and
/// moves only the slots that must change owner; another salt deals everybody anew. Whether weights, variations and an
/// allocation that was sent are right is for the check of the whole definition to say.
pub(crate) fn resolve_serve(cx: &mut Resolving<'_>, serve: &mut Serve, standing: Option<&Serve>) {
    let Serve::Rollout(rollout) = serve else { return };
    let current = match standing {
        Some(Serve::Rollout(before)) => {
            if rollout.salt.is_empty() {
                rollout.salt.clone_from(&before.salt);
            }
            let same = rollout.salt == before.salt && rollout.bucket_by == before.bucket_by;
            if same { before.allocation.clone() } else { Vec::new() }
        }
        Some(Serve::Variation(variation)) => all_slots(variation),
        None => Vec::new(),
    };
    if rollout.salt.is_empty() {
        rollout.salt = mint::salt(&mut *cx.mint);
    }
    if rollout.allocation.is_empty() {
        rollout.allocation = allocation::reallocate(&current, &rollout.weights);
    }
}

/// A rollout's new salt and allocation for `setRollout`.
pub(crate) fn reweigh(
    cx: &mut Resolving<'_>,
    weights: &BTreeMap<String, u32>,
    bucket_by: Option<&str>,
    reshuffle: bool,
    sent: Option<Vec<SlotRange>>,
    (standing, flag): (&Serve, &Flag),
) -> Option<(String, Vec<SlotRange>)> {
    if !check_weights(cx, "/weights", weights, flag) {
        return None;
    }
    let (salt, current) = match standing {
        Serve::Rollout(before) if !reshuffle => {
            let same = bucket_by.is_none_or(|bucket_by| bucket_by == before.bucket_by);
            (before.salt.clone(), if same { before.allocation.clone() } else { Vec::new() })
        }
        Serve::Variation(variation) if !reshuffle => (mint::salt(&mut *cx.mint), all_slots(variation)),
        _ => (mint::salt(&mut *cx.mint), Vec::new()),
    };
    let Some(sent) = sent else { return Some((salt, allocation::reallocate(&current, weights))) };
    if let Err(error) = allocation::check(&sent, weights) {
        cx.refuse("/allocation", "badAllocation", error.to_string());
    }
    Some((salt, sent))
}

fn all_slots(variation: &str) -> Vec<SlotRange> {
    vec![SlotRange { variation: variation.to_owned(), start: 0, end: SLOTS }]
}

/// Refuses weights that do not sum to all slots or name variations that the flag does not have.
fn check_weights(cx: &mut Resolving<'_>, at: &str, weights: &BTreeMap<String, u32>, flag: &Flag) -> bool {
    let sum: u64 = weights.values().copied().map(u64::from).sum();
    let before = cx.problems.len();
    if sum != u64::from(SLOTS) {
        cx.refuse(at, "weightsSum", format!("weights sum to {SLOTS} (a weight of 1000 is 1 %), these to {sum}"));
    }
    for variation in weights.keys() {
        check_variation(cx, &format!("{at}/{}", variation.replace('~', "~0").replace('/', "~1")), variation, flag);
    }
    cx.problems.len() == before
}

/// Refuses a variation that the flag does not have.
pub(crate) fn check_variation(cx: &mut Resolving<'_>, at: &str, variation: &str, flag: &Flag) {
    if flag.variation(variation).is_none() {
        let known: Vec<&str> = flag.variations.iter().map(|variation| variation.key.as_str()).take(10).collect();
        let message = format!("\"{}\" has no variation \"{variation}\"; it has {}", flag.key, known.join(", "));
        cx.refuse(at, "unknownVariation", message);
    }
}
