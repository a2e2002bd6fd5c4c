//! The scoring against cases worked out by hand.

use proptest::prelude::*;

use super::nab::{Costs, Scored, Window, judge, judge_at, probation};

const STANDARD: Costs = Costs { true_positive: 1.0, false_negative: 1.0, false_positive: 0.11 };
const LOW_FALSE_NEGATIVES: Costs = Costs { true_positive: 1.0, false_negative: 2.0, false_positive: 0.11 };

/// 100 rows, with a detection in each of `rows`.
fn detections(rows: &[usize]) -> Vec<f64> {
    let mut scores = vec![0.0; 100];
    for row in rows {
        scores[*row] = 1.0;
    }
    scores
}

fn at_one(scores: &[f64], windows: &[Window], costs: Costs) -> f64 {
    judge_at(&[Scored { scores, windows }], costs, 1.0).score
}

const WINDOW: [Window; 1] = [Window { first: 40, last: 49 }];

#[test]
fn probation_is_15_percent_and_750_rows_at_most() {
    assert_eq!(probation(0), 0);
    assert_eq!(probation(99), 14);
    assert_eq!(probation(4_032), 604);
    assert_eq!(probation(15_902), 750);
}

#[test]
fn nothing_detected_is_0_and_a_perfect_detector_100() {
    let nothing = vec![0.0; 100];
    assert_eq!(at_one(&nothing, &WINDOW, STANDARD), 0.0);
    assert_eq!(at_one(&nothing, &WINDOW, LOW_FALSE_NEGATIVES), 0.0);
    assert_eq!(at_one(&detections(&[40]), &WINDOW, STANDARD), 100.0);
    assert_eq!(at_one(&detections(&[40, 41, 49]), &WINDOW, LOW_FALSE_NEGATIVES), 100.0, "later ones add nothing");
    let verdict = judge(&[Scored { scores: &nothing, windows: &WINDOW }], STANDARD);
    assert_eq!((verdict.score, verdict.found, verdict.missed, verdict.false_alarms), (0.0, 0, 1, 0));
}

#[test]
fn late_detections_earn_less() {
    // S(-0.5) / S(-1) = 0.848284 / 0.986614, and 100 (x + 1) / 2.
    assert!((at_one(&detections(&[45]), &WINDOW, STANDARD) - 92.9896).abs() < 1e-3);
    // S(-0.1) / S(-1) = 0.244919 / 0.986614.
    assert!((at_one(&detections(&[49]), &WINDOW, STANDARD) - 62.4121).abs() < 1e-3);
}

#[test]
fn false_alarms_cost_less_just_behind_a_window() {
    // Before every window: -0.11. In probation: nothing.
    assert!((at_one(&detections(&[40, 20]), &WINDOW, STANDARD) - 94.5).abs() < 1e-9);
    assert_eq!(at_one(&detections(&[40, 14]), &WINDOW, STANDARD), 100.0);
    // One row behind a window of ten: S(1/9) = -0.270704, times 0.11 / 2.
    assert!((at_one(&detections(&[40, 50]), &WINDOW, STANDARD) - 98.5111).abs() < 1e-3);
    // Further than three widths: all of it.
    assert!((at_one(&detections(&[40, 90]), &WINDOW, STANDARD) - 94.5).abs() < 1e-9);
}

#[test]
fn one_threshold_serves_all_series() {
    let mut first = vec![0.0; 100];
    (first[40], first[20]) = (0.6, 0.5);
    let mut second = vec![0.0; 100];
    (second[40], second[20], second[21]) = (0.4, 0.7, 0.7);
    let series = [Scored { scores: &first, windows: &WINDOW }, Scored { scores: &second, windows: &WINDOW }];
    let verdict = judge(&series, STANDARD);
    // At 0.6: one found, one missed, two false alarms: 1 - 1 - 0.22. At 0.4: both found, three false alarms.
    assert_eq!((verdict.threshold, verdict.found, verdict.false_alarms), (0.4, 2, 3));
    assert!((verdict.score - 100.0 * (2.0 - 0.33 + 2.0) / 4.0).abs() < 1e-9);
    let strict = judge(&series, Costs { false_positive: 3.0, ..STANDARD });
    assert_eq!((strict.threshold, strict.score), (1.1, 0.0), "then it is better to say nothing");
}

proptest! {
    #[test]
    fn the_best_threshold_is_the_best(
        scores in prop::collection::vec(0_u8..20, 100),
        first in 16_usize..60,
        width in 1_usize..30,
    ) {
        let scores: Vec<f64> = scores.into_iter().map(|score| f64::from(score) / 20.0).collect();
        let windows = [Window { first, last: first + width }];
        let series = [Scored { scores: &scores, windows: &windows }];
        let best = judge(&series, STANDARD);
        prop_assert!(best.score <= 100.0 + 1e-9);
        for threshold in 0..=22 {
            let threshold = f64::from(threshold) / 20.0;
            let there = judge_at(&series, STANDARD, threshold);
            prop_assert!(there.score <= best.score + 1e-9, "{there:?} is better than {best:?}");
            if threshold == best.threshold {
                prop_assert!((there.score - best.score).abs() < 1e-9);
                prop_assert_eq!((there.found, there.false_alarms), (best.found, best.false_alarms));
            }
        }
    }
}
