//! The split test against sums over all outcomes, and in miniature simulations.

use proptest::prelude::*;

use super::super::made_up::MadeUp;
use super::*;

const EXACT: SplitConfig = SplitConfig { alpha: 0.01, tolerance: 1.0, cluster: 1.0 };

fn after(config: SplitConfig, split: Split) -> SplitTest {
    let mut test = SplitTest::new(config, RATE_EFFECTS);
    test.observe([split], RATE_EFFECTS);
    test
}

/// Fisher's noncentral hypergeometric chances by binomial coefficients, for small numbers.
fn chances(treatment: u64, control: u64, failing: u64, odds: f64) -> Vec<(u64, f64)> {
    let choose = |n: u64, k: u64| (0..k).map(|i| (n - i) as f64 / (i + 1) as f64).product::<f64>();
    let weights: Vec<(u64, f64)> = (failing.saturating_sub(control)..=failing.min(treatment))
        .map(|x| (x, choose(treatment, x) * choose(control, failing - x) * odds.powi(x as i32)))
        .collect();
    let sum: f64 = weights.iter().map(|(_, weight)| weight).sum();
    weights.into_iter().map(|(x, weight)| (x, weight / sum)).collect()
}

proptest! {
    /// The defining property, over every outcome of a second: the expectation is at most 1 at the tolerance and below it,
    /// with raised wealth too (a small `1 / alpha` makes raising frequent), where what exceeds `1 / alpha` is worth no more.
    #[test]
    fn no_second_is_worth_more_than_it_costs(
        treatment in 1_u64..40, control in 1_u64..40, failing in 1_u64..40, tolerance in 1.0_f64..2.0,
        below in 0.2_f64..=1.0, alpha in 0.05_f64..0.5, cluster in prop::sample::select(vec![1.0, 3.0]),
    ) {
        let failing = failing.min(treatment + control);
        let config = SplitConfig { alpha, tolerance, cluster };
        let value = |x: u64| {
            let split = Split { treatment, treatment_failing: x, control, control_failing: failing - x };
            after(config, split).value().min(1.0 / alpha)
        };
        let mean: f64 = chances(treatment, control, failing, tolerance * below).iter().map(|&(x, p)| p * value(x)).sum();
        prop_assert!(mean <= 1.0 + 1e-9, "{}", mean);
    }

    /// The closed form for many outcomes is never above the exact one.
    #[test]
    fn the_bound_is_a_bound(
        treatment in 1_u64..150, control in 1_u64..300, failing in 1_u64..300, x in 0_u64..150, tolerance in 1.0_f64..3.0,
    ) {
        let failing = failing.min(treatment + control);
        let x = x.clamp(failing.saturating_sub(control), failing.min(treatment));
        let split = Split { treatment, treatment_failing: x, control, control_failing: failing - x };
        let test = SplitTest::new(SplitConfig { tolerance, ..EXACT }, RATE_EFFECTS);
        let outcomes = Outcomes::of(treatment, control, failing, tolerance).unwrap();
        let normal = outcomes.normalisers(RATE_EFFECTS).unwrap();
        let bounded = test.bounded(split, x, failing, RATE_EFFECTS);
        for ((normal, bounded), effect) in normal.iter().zip(bounded).zip(RATE_EFFECTS) {
            let exact = effect.size.powi((x - outcomes.lowest) as i32) / normal;
            prop_assert!(bounded <= exact * (1.0 + 1e-9), "effect {}: {} above {}", effect.size, bounded, exact);
        }
    }

    /// A cluster that fails together in one arm, drawn by the arm's share, is worth no more than it costs.
    #[test]
    fn a_whole_cluster_in_one_arm_is_paid_for(share in 0.01_f64..0.6, members in 1_u64..=5) {
        let config = SplitConfig { cluster: 5.0, ..EXACT };
        let (treatment, control) = ((share * 1e6) as u64, ((1.0 - share) * 1e6) as u64);
        let value = |x: u64| {
            after(config, Split { treatment, treatment_failing: x, control, control_failing: members - x }).value()
        };
        let mean = share * value(members) + (1.0 - share) * value(0);
        prop_assert!(mean <= 1.0 + 1e-4, "{}", mean);
    }

    #[test]
    fn any_numbers_are_survived(a in any::<u64>(), b in any::<u64>(), c in any::<u64>(), d in any::<u64>()) {
        let half = |n: u64| n / 2;
        let split = Split { treatment: half(a), treatment_failing: half(b), control: half(c), control_failing: half(d) };
        prop_assert!(after(EXACT, split).value().is_finite());
    }
}

#[test]
fn chances_are_those_of_the_textbook() {
    let (treatment, control, failing, odds) = (10, 30, 8, 1.7);
    let ours = Outcomes::of(treatment, control, failing, odds).unwrap();
    for ((x, expected), (at, got)) in
        chances(treatment, control, failing, odds).into_iter().zip((ours.lowest..).zip(&ours.chance))
    {
        assert_eq!(x, at);
        assert!((got - expected).abs() < 1e-12);
    }
}

#[test]
fn seconds_that_tell_nothing_change_nothing() {
    let empty = Split::default();
    let no_control = Split { treatment: 5, treatment_failing: 5, ..empty };
    let all_well = Split { treatment: 5, control: 50, ..empty };
    for split in [empty, no_control, all_well] {
        assert!((after(EXACT, split).value() - 1.0).abs() < 1e-12, "{split:?}");
    }
}

/// How many of `runs` trials of at most `seconds` cross, and their median delay.
fn trials(runs: u64, seconds: usize, rate: f64, base: f64) -> (usize, usize) {
    let mut delays: Vec<usize> = (0..runs)
        .filter_map(|seed| {
            let (mut random, mut test) = (MadeUp::new(seed), SplitTest::new(EXACT, RATE_EFFECTS));
            (1..=seconds).find(|_| {
                let (treatment, control) = (10, 90);
                let split = Split {
                    treatment,
                    treatment_failing: random.hits(treatment, rate),
                    control,
                    control_failing: random.hits(control, base),
                };
                test.observe([split], RATE_EFFECTS);
                test.crossed()
            })
        })
        .collect();
    delays.sort_unstable();
    (delays.len(), delays.get(delays.len() / 2).copied().unwrap_or(seconds))
}

#[test]
fn a_fault_is_found_fast_and_health_is_left_alone() {
    assert!(trials(100, 400, 0.01, 0.01).0 <= 5, "alpha is 1 %: more than 5 of 100 has a chance below 1 in 1,000");
    let (found, delay) = trials(100, 600, 0.05, 0.01);
    assert_eq!(found, 100);
    assert!(delay <= 18, "{delay}");
    assert!(trials(100, 60, 0.2, 0.01).1 <= 3);
    assert_eq!(trials(20, 400, 0.002, 0.01).0, 0, "better is not worse");
}

#[test]
fn state_is_kept_over_a_restart() {
    let split = Split { treatment: 10, treatment_failing: 3, control: 90, control_failing: 1 };
    let mut test = after(EXACT, split);
    let mut back: SplitTest = serde_json::from_str(&serde_json::to_string(&test).unwrap()).unwrap();
    test.observe([split], RATE_EFFECTS);
    back.observe([split], RATE_EFFECTS);
    assert!((test.value() / back.value() - 1.0).abs() < 1e-12);
}
