//! Allocation: which variation owns each slot, and how a change of weights moves as few slots as it can.
//!
//! A pure function of the allocation that stands and the new weights, run where changes are written. What it answers is
//! journaled, pushed and evaluated. It moves exactly half the sum of the absolute differences of the weights: every slot that
//! leaves a variation has to, and goes to one that grows. No function of the weights alone can do so for three or more
//! variations (Bavarian et al., "The optimality of correlated sampling", 2016).

use std::collections::BTreeMap;

use crate::model::{SLOTS, SlotRange};

/// Why an allocation is not one of the weights beside it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AllocationError {
    /// A range does not start where the one before it ended, or has no slots.
    #[error(
        "slots {expected}.. have no owner or two: every range starts where the one before it ends, from 0 to 100000"
    )]
    NotContiguous {
        /// First slot that is not owned exactly once.
        expected: u32,
    },
    /// A variation owns more or fewer slots than its weight.
    #[error(
        "variation \"{variation}\" owns {owned} slots and has weight {weight}; leave the allocation out to have it computed"
    )]
    WeightDiffers {
        /// Key of the variation.
        variation: String,
        /// Slots the allocation gives it.
        owned: u32,
        /// Its weight.
        weight: u32,
    },
}

/// Checks that `allocation` covers all slots, each once.
///
/// # Errors
/// [`AllocationError::NotContiguous`] at the first slot that does not have one owner.
pub fn check_contiguous(allocation: &[SlotRange]) -> Result<(), AllocationError> {
    let mut expected = 0;
    for range in allocation {
        if range.start != expected || range.end <= range.start || range.end > SLOTS {
            return Err(AllocationError::NotContiguous { expected });
        }
        expected = range.end;
    }
    if expected == SLOTS { Ok(()) } else { Err(AllocationError::NotContiguous { expected }) }
}

/// Checks that `allocation` covers all slots, each once, and gives every variation its weight.
///
/// # Errors
/// The first thing that is not so.
pub fn check(allocation: &[SlotRange], weights: &BTreeMap<String, u32>) -> Result<(), AllocationError> {
    check_contiguous(allocation)?;
    let mut owned: BTreeMap<&str, u32> = weights.keys().map(|variation| (variation.as_str(), 0)).collect();
    for range in allocation {
        *owned.entry(&range.variation).or_default() += range.end - range.start;
    }
    for (variation, owned) in owned {
        let weight = weights.get(variation).copied().unwrap_or(0);
        if owned != weight {
            return Err(AllocationError::WeightDiffers { variation: variation.to_owned(), owned, weight });
        }
    }
    Ok(())
}

/// Gives every variation its weight, moving as few slots as possible and keeping the ranges few.
///
/// `weights` must sum to [`SLOTS`]; if they do not, or `current` does not cover all slots, the answer covers what the weights
/// say, from slot 0, in the order of the keys, as for a rollout that has no allocation yet.
#[must_use]
pub fn reallocate(current: &[SlotRange], weights: &BTreeMap<String, u32>) -> Vec<SlotRange> {
    let total: u64 = weights.values().copied().map(u64::from).sum();
    if total != u64::from(SLOTS) || check_contiguous(current).is_err() {
        return in_order(weights);
    }
    let mut plan = Plan::new(current, weights);
    while let Some(step) = plan.best_step() {
        plan.take(step);
    }
    plan.finish()
}

fn in_order(weights: &BTreeMap<String, u32>) -> Vec<SlotRange> {
    let mut start = 0_u32;
    let mut ranges = Vec::with_capacity(weights.len());
    for (variation, &weight) in weights {
        let end = start.saturating_add(weight).min(SLOTS);
        if end > start {
            ranges.push(SlotRange { variation: variation.clone(), start, end });
            start = end;
        }
    }
    ranges
}

/// A range while slots move: `owner` counts into `Plan::keys`.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Piece {
    owner: usize,
    len: u32,
}

struct Plan<'a> {
    keys: Vec<&'a str>,
    /// Slots each variation still has to gain (positive) or lose (negative).
    owed: Vec<i64>,
    pieces: Vec<Piece>,
}

/// Hands `len` slots of a piece to another owner.
#[derive(Clone, Copy)]
struct Step {
    piece: usize,
    to: usize,
    len: u32,
    /// Whether the slots are taken from the piece's low end.
    low_end: bool,
    /// How many pieces more there are afterwards.
    growth: i32,
}

impl<'a> Plan<'a> {
    fn new(current: &'a [SlotRange], weights: &'a BTreeMap<String, u32>) -> Self {
        let mut keys: Vec<&str> =
            weights.keys().map(String::as_str).chain(current.iter().map(|range| range.variation.as_str())).collect();
        keys.sort_unstable();
        keys.dedup();
        let mut owed: Vec<i64> = keys.iter().map(|key| weights.get(*key).copied().unwrap_or(0).into()).collect();
        let mut pieces: Vec<Piece> = Vec::with_capacity(current.len() + keys.len());
        for range in current {
            let owner = keys.partition_point(|key| *key < range.variation.as_str());
            let len = range.end - range.start;
            if let Some(owed) = owed.get_mut(owner) {
                *owed -= i64::from(len);
            }
            match pieces.last_mut() {
                Some(last) if last.owner == owner => last.len += len,
                _ => pieces.push(Piece { owner, len }),
            }
        }
        Self { keys, owed, pieces }
    }

    fn owed(&self, owner: usize) -> i64 {
        self.owed.get(owner).copied().unwrap_or(0)
    }

    /// The step that leaves the fewest pieces; of those the one that moves most; of those the first.
    fn best_step(&self) -> Option<Step> {
        let mut best: Option<Step> = None;
        for (index, piece) in self.pieces.iter().enumerate() {
            let surplus = u32::try_from(-self.owed(piece.owner)).unwrap_or(0);
            if surplus == 0 {
                continue;
            }
            for (to, &owed) in self.owed.iter().enumerate() {
                let Ok(deficit) = u32::try_from(owed) else { continue };
                if deficit == 0 {
                    continue;
                }
                let step = self.step(index, *piece, to, surplus.min(deficit).min(piece.len));
                if best.is_none_or(|best| (step.growth, best.len) < (best.growth, step.len)) {
                    best = Some(step);
                }
            }
        }
        best
    }

    fn step(&self, index: usize, piece: Piece, to: usize, len: u32) -> Step {
        let is_receiver = |neighbour: Option<&Piece>| neighbour.is_some_and(|neighbour| neighbour.owner == to);
        let below = is_receiver(index.checked_sub(1).and_then(|below| self.pieces.get(below)));
        let above = is_receiver(self.pieces.get(index + 1));
        let growth = if len == piece.len { -i32::from(below) - i32::from(above) } else { i32::from(!below && !above) };
        // Where neither neighbour receives, the edge of the slot space is the better end: a piece there has one boundary.
        let low_end = below || (!above && index == 0);
        Step { piece: index, to, len, low_end, growth }
    }

    fn take(&mut self, step: Step) {
        let Some(piece) = self.pieces.get_mut(step.piece) else { return };
        let from = piece.owner;
        let moved = Piece { owner: step.to, len: step.len };
        if step.len == piece.len {
            *piece = moved;
        } else {
            piece.len -= step.len;
            self.pieces.insert(step.piece + usize::from(!step.low_end), moved);
        }
        if let Some(owed) = self.owed.get_mut(from) {
            *owed += i64::from(step.len);
        }
        if let Some(owed) = self.owed.get_mut(step.to) {
            *owed -= i64::from(step.len);
        }
        self.pieces.dedup_by(|above, below| {
            let same = above.owner == below.owner;
            if same {
                below.len += above.len;
            }
            same
        });
    }

    fn finish(&self) -> Vec<SlotRange> {
        let mut start = 0;
        let mut ranges = Vec::with_capacity(self.pieces.len());
        for piece in &self.pieces {
            let Some(variation) = self.keys.get(piece.owner) else { continue };
            let end = start + piece.len;
            ranges.push(SlotRange { variation: (*variation).to_owned(), start, end });
            start = end;
        }
        ranges
    }
}

#[cfg(test)]
#[path = "allocation_tests.rs"]
mod tests;
