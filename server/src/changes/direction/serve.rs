//! What a rule or the fallthrough gives out, before against after.

use std::collections::BTreeMap;

use guidon_sdk::eval::allocation;
use guidon_sdk::model::{Rollout, SLOTS, Serve, TARGETING_KEY};

use super::flow::{Flow, Judge, Served};

/// Who owns slots up to which one.
type Ends<'a> = Vec<(&'a str, u32)>;

fn share_of(slots: u32) -> f64 {
    f64::from(slots) / f64::from(SLOTS)
}

/// The ranges as they are evaluated: computed where the definition leaves them out.
fn ends(rollout: &Rollout) -> Ends<'_> {
    if rollout.allocation.is_empty() {
        let computed = allocation::reallocate(&[], &rollout.weights);
        return computed
            .iter()
            .filter_map(|range| Some((rollout.weights.get_key_value(&range.variation)?.0.as_str(), range.end)))
            .collect();
    }
    rollout.allocation.iter().map(|range| (range.variation.as_str(), range.end)).collect()
}

/// The variations that somebody gets, with their shares.
pub(super) fn shares(serve: &Serve) -> BTreeMap<&str, f64> {
    let mut shares = BTreeMap::new();
    match serve {
        Serve::Variation(variation) => {
            shares.insert(variation.as_str(), 1.0);
        }
        Serve::Rollout(rollout) => {
            let mut start = 0;
            for (variation, end) in ends(rollout) {
                *shares.entry(variation).or_insert(0.0) += share_of(end.saturating_sub(start));
                start = end;
            }
        }
    }
    shares
}

/// Share that may lack what the rollout is bucketed by; `None` where nobody can. Contexts without a targeting key are errors
/// of the caller and not counted; of other attributes nobody knows.
fn without_unit(serve: &Serve) -> Option<f64> {
    match serve {
        Serve::Variation(_) => None,
        Serve::Rollout(rollout) if rollout.bucket_by == TARGETING_KEY => Some(0.0),
        Serve::Rollout(_) => Some(1.0),
    }
}

/// Everybody goes from `from` to what `serve` gives out.
pub(super) fn into<'a>(judge: &Judge<'a>, from: Served<'a>, serve: &'a Serve) -> Flow<'a> {
    let mut flow = Flow::default();
    for (variation, share) in shares(serve) {
        judge.note(&mut flow, from, Served::open(variation), share);
    }
    match without_unit(serve) {
        Some(share) if share > 0.0 => judge.note(&mut flow, from, Served::no_unit(), share),
        Some(share) => judge.note_prerequisite(&mut flow, from, Served::no_unit(), share),
        None => {}
    }
    flow
}

/// Everybody goes from what `serve` gives out to `to`.
pub(super) fn out_of<'a>(judge: &Judge<'a>, serve: &'a Serve, to: Served<'a>) -> Flow<'a> {
    let mut flow = Flow::default();
    for (variation, share) in shares(serve) {
        judge.note(&mut flow, Served::open(variation), to, share);
    }
    if let Some(share) = without_unit(serve) {
        judge.note(&mut flow, Served::no_unit(), to, share);
    }
    flow
}

/// Everybody goes from what `old` gives out to what `new` does.
pub(super) fn compare<'a>(judge: &Judge<'a>, old: &'a Serve, new: &'a Serve) -> Flow<'a> {
    match (old, new) {
        (Serve::Variation(old), new) => into(judge, Served::open(old), new),
        (old, Serve::Variation(new)) => out_of(judge, old, Served::open(new)),
        (Serve::Rollout(old), Serve::Rollout(new)) if old.salt == new.salt && old.bucket_by == new.bucket_by => {
            slot_by_slot(judge, &ends(old), &ends(new))
        }
        (Serve::Rollout(before), Serve::Rollout(after)) => {
            dealt_anew(judge, old, new, before.bucket_by == after.bucket_by)
        }
    }
}

fn slot_by_slot<'a>(judge: &Judge<'a>, old: &[(&'a str, u32)], new: &[(&'a str, u32)]) -> Flow<'a> {
    let mut flow = Flow::default();
    let (mut old, mut new) = (old.iter().peekable(), new.iter().peekable());
    let mut start = 0;
    while let (Some((from, old_end)), Some((to, new_end))) = (old.peek(), new.peek()) {
        let end = *old_end.min(new_end);
        judge.note(&mut flow, Served::open(from), Served::open(to), share_of(end.saturating_sub(start)));
        old.next_if(|(_, old_end)| *old_end <= end);
        new.next_if(|(_, new_end)| *new_end <= end);
        start = end;
    }
    flow
}

/// Another salt or another unit: everybody may move to any of the variations, but no more people get one than its slots.
fn dealt_anew<'a>(judge: &Judge<'a>, old: &'a Serve, new: &'a Serve, same_unit: bool) -> Flow<'a> {
    let mut flow = Flow::default();
    let (before, after) = (shares(old), shares(new));
    for from in before.keys() {
        for to in after.keys() {
            judge.note(&mut flow, Served::open(from), Served::open(to), 1.0);
        }
    }
    if !same_unit {
        let lost = without_unit(new).unwrap_or(0.0);
        for from in before.keys() {
            if lost > 0.0 {
                judge.note(&mut flow, Served::open(from), Served::no_unit(), lost);
            } else {
                judge.note_prerequisite(&mut flow, Served::open(from), Served::no_unit(), lost);
            }
        }
        for to in after.keys() {
            judge.note(&mut flow, Served::no_unit(), Served::open(to), without_unit(old).unwrap_or(0.0));
        }
    }
    let ai: f64 = after.iter().filter(|(variation, _)| judge.is_ai(variation)).map(|(_, share)| share).sum();
    flow.ai = flow.ai.min(ai);
    for (bounds, known) in [(&mut flow.gains, &after), (&mut flow.losses, &before)] {
        for (variation, share) in bounds.iter_mut() {
            *share = share.min(known.get(variation).copied().unwrap_or(1.0));
        }
    }
    flow
}
