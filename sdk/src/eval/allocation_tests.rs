//! Properties of allocations, over chains of random changes.

use std::collections::BTreeMap;

use super::*;

/// Aim for the number of ranges of an allocation, per variation.
const RANGES_PER_VARIATION: usize = 4;

/// A small deterministic generator (SplitMix64), so that a failure names its seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// Weights of `count` variations: any cut of the slots, or one variation grown at the cost of the others.
    fn weights(&mut self, count: usize) -> BTreeMap<String, u32> {
        let mut cuts: Vec<u32> = (1..count).map(|_| self.below(u64::from(SLOTS) + 1) as u32).collect();
        if self.below(4) == 0 {
            // Some variations at zero, as at the ends of a ramp.
            for cut in &mut cuts {
                if self.below(2) == 0 {
                    *cut = 0;
                }
            }
        }
        cuts.push(0);
        cuts.push(SLOTS);
        cuts.sort_unstable();
        cuts.windows(2).enumerate().map(|(index, pair)| (format!("v{index}"), pair[1] - pair[0])).collect()
    }
}

fn owners(allocation: &[SlotRange]) -> Vec<&str> {
    allocation.iter().flat_map(|range| (range.start..range.end).map(|_| range.variation.as_str())).collect()
}

fn moved(before: &[SlotRange], after: &[SlotRange]) -> u64 {
    owners(before).iter().zip(owners(after)).filter(|(before, after)| **before != *after).count() as u64
}

fn minimum(before: &BTreeMap<String, u32>, after: &BTreeMap<String, u32>) -> u64 {
    let difference: u64 = before
        .iter()
        .map(|(key, weight)| u64::from(weight.abs_diff(after.get(key).copied().unwrap_or(0))))
        .chain(after.iter().filter(|(key, _)| !before.contains_key(*key)).map(|(_, weight)| u64::from(*weight)))
        .sum();
    difference / 2
}

#[test]
#[allow(clippy::print_stdout, reason = "the number found is worth reading")]
fn chains_of_changes_move_the_minimum_and_keep_ranges_few() {
    for count in [2, 3, 8] {
        let mut most = 0;
        for seed in 0..40 {
            let mut random = Random(seed);
            let mut weights = random.weights(count);
            let mut allocation = reallocate(&[], &weights);
            for change in 0..50 {
                let next = random.weights(count);
                let after = reallocate(&allocation, &next);
                check(&after, &next).unwrap();
                assert_eq!(
                    moved(&allocation, &after),
                    minimum(&weights, &next),
                    "{count} variations, seed {seed}, change {change}"
                );
                assert!(after.windows(2).all(|pair| pair[0].variation != pair[1].variation), "ranges are merged");
                most = most.max(after.len());
                (allocation, weights) = (after, next);
            }
        }
        println!("{count} variations: at most {most} ranges over 40 chains of 50 changes");
        assert!(most <= count * RANGES_PER_VARIATION, "{most} ranges for {count} variations");
    }
}

#[test]
fn ramp_of_two_variations_keeps_two_ranges() {
    let weights = |ai: u32| BTreeMap::from([("ai".to_owned(), ai), ("baseline".to_owned(), SLOTS - ai)]);
    let mut allocation = reallocate(&[], &weights(1_000));
    for ai in [5_000, 25_000, 100_000, 1_000, 0, 50_000] {
        allocation = reallocate(&allocation, &weights(ai));
        check(&allocation, &weights(ai)).unwrap();
        assert!(allocation.len() <= 2);
    }
}

#[test]
fn variations_may_come_and_go() {
    let weights = |pairs: &[(&str, u32)]| {
        pairs.iter().map(|(key, weight)| ((*key).to_owned(), *weight)).collect::<BTreeMap<_, _>>()
    };
    let before = weights(&[("a", 40_000), ("b", 60_000)]);
    let after = weights(&[("b", 70_000), ("c", 30_000)]);
    let first = reallocate(&[], &before);
    let second = reallocate(&first, &after);
    check(&second, &after).unwrap();
    assert_eq!(moved(&first, &second), 40_000);
}

#[test]
fn answer_depends_on_nothing_else() {
    let mut random = Random(7);
    let (before, after) = (random.weights(8), random.weights(8));
    let standing = reallocate(&[], &before);
    assert_eq!(reallocate(&standing, &after), reallocate(&standing, &after));
    assert_eq!(reallocate(&standing, &before), standing, "nothing changes where the weights do not");
}

#[test]
fn gaps_overlaps_and_wrong_weights_are_named() {
    let range = |variation: &str, start, end| SlotRange { variation: variation.to_owned(), start, end };
    let weights = BTreeMap::from([("a".to_owned(), 50_000), ("b".to_owned(), 50_000)]);
    assert_eq!(check(&[range("a", 0, 50_000), range("b", 50_000, SLOTS)], &weights), Ok(()));
    let gap = [range("a", 0, 40_000), range("b", 50_000, SLOTS)];
    assert_eq!(check(&gap, &weights), Err(AllocationError::NotContiguous { expected: 40_000 }));
    assert_eq!(check(&[], &weights), Err(AllocationError::NotContiguous { expected: 0 }));
    assert_eq!(check(&[range("a", 0, SLOTS + 1)], &weights), Err(AllocationError::NotContiguous { expected: 0 }));
    let uneven = [range("a", 0, 40_000), range("b", 40_000, SLOTS)];
    assert!(matches!(check(&uneven, &weights), Err(AllocationError::WeightDiffers { owned: 40_000, .. })));
    let stranger = [range("c", 0, SLOTS)];
    assert!(matches!(check(&stranger, &weights), Err(AllocationError::WeightDiffers { .. })));
    assert_eq!(check(&reallocate(&gap, &weights), &weights), Ok(()), "a broken allocation is made anew");
}
