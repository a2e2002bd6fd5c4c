//! What a row from outside must be, before it is counted.

use guidon_sdk::measure::{MAX_VALUE, MetricRow, Moments, VALUE_STEPS};
use guidon_sdk::model::{MAX_KEY_BYTES, is_valid_key};

use super::window::Tally;

/// Longest name of a metric, in bytes.
pub const MAX_METRIC_BYTES: usize = 64;

/// The most calls, and values, of one row: far beyond what an instance does in a second, and small enough that no sum
/// overflows.
pub const MAX_ROW_COUNT: u64 = 100_000_000;

/// Why a row is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RowProblem {
    /// The flag or variation is no key, or only one of them is given.
    #[error("flag and variation must be keys of at most {MAX_KEY_BYTES} bytes, or both be left out")]
    Key,
    /// The metric's name.
    #[error("a metric's name has 1 to {MAX_METRIC_BYTES} letters, digits, dots, hyphens and underscores")]
    Metric,
    /// A row of a second that had not begun when the batch was sent.
    #[error("the second had not begun when the batch was sent: read both from one clock")]
    Future,
    /// A number is beyond what one second can hold.
    #[error("a row counts at most {MAX_ROW_COUNT} calls and values")]
    Count,
    /// Two numbers contradict each other.
    #[error("{0} is above {1}")]
    Contradiction(&'static str, &'static str),
    /// Sum and sum of squares are those of no values.
    #[error("the sums are not those of values within ±{MAX_VALUE}")]
    Values,
}

/// Whether `name` can be the name of a metric.
#[must_use]
pub fn is_metric(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=MAX_METRIC_BYTES).contains(&name.len()) && name.bytes().all(allowed)
}

/// Checks a row of a batch that was sent at `sent_ms`, by the instance's clock.
///
/// # Errors
///
/// The first [`RowProblem`].
pub fn check(row: &MetricRow, sent_ms: u64) -> Result<(), RowProblem> {
    let belongs_to_none = row.flag.is_empty() && row.variation.is_empty();
    let are_keys = is_valid_key(&row.flag) && is_valid_key(&row.variation);
    if !(belongs_to_none || are_keys) {
        return Err(RowProblem::Key);
    }
    if !is_metric(&row.metric) {
        return Err(RowProblem::Metric);
    }
    if row.second > sent_ms / 1_000 {
        return Err(RowProblem::Future);
    }
    if row.count.max(row.values.count) > MAX_ROW_COUNT {
        return Err(RowProblem::Count);
    }
    if !are_of_values(&row.values) {
        return Err(RowProblem::Values);
    }
    // At most as many units are new as the instance says; the release's memory makes fewer of them.
    let tally = Tally {
        count: row.count,
        errors: row.errors,
        units: row.units,
        failing_units: row.failing_units,
        units_at_risk: row.units_at_risk,
        new_units: row.first_seen.len() as u64,
        new_failing_units: row.first_failing.len() as u64,
        ..Tally::default()
    };
    let contradiction = tally.contradiction().or_else(|| {
        if row.latency.count() > row.count {
            return Some(("latency", "count"));
        }
        (row.first_latency.len() as u64 > row.units).then_some(("firstLatency", "units"))
    });
    contradiction.map_or(Ok(()), |(part, whole)| Err(RowProblem::Contradiction(part, whole)))
}

/// Whether there are `count` values within ±[`MAX_VALUE`] of which these are the sums: the square of the sum is at most the
/// number times the sum of the squares (Cauchy, Schwarz).
fn are_of_values(moments: &Moments) -> bool {
    let (count, largest) = (moments.count as f64, MAX_VALUE * VALUE_STEPS);
    let (sum, squares) = (moments.sum as f64, moments.sum_squares as f64);
    // A float has 53 bits of the sums' 128.
    let above = |value: f64, limit: f64| value > limit * (1.0 + 1e-9);
    !above(sum.abs(), count * largest)
        && !above(squares, count * largest * largest)
        && !above(sum * sum, count * squares)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn row() -> MetricRow {
        MetricRow {
            second: 10,
            flag: "summary".to_owned(),
            variation: "ai".to_owned(),
            metric: "path".to_owned(),
            count: 3,
            units: 2,
            ..MetricRow::default()
        }
    }

    #[test]
    fn a_sound_row_passes_and_each_fault_is_named() {
        assert_eq!(check(&row(), 10_000), Ok(()));
        let flagless = MetricRow { flag: String::new(), variation: String::new(), ..row() };
        assert_eq!(check(&flagless, 10_000), Ok(()));
        let values = Moments { count: 1, sum: 4, sum_squares: 15 };
        let faulty = [
            (MetricRow { variation: String::new(), ..row() }, RowProblem::Key),
            (MetricRow { flag: "a\0b".to_owned(), ..row() }, RowProblem::Key),
            (MetricRow { metric: String::new(), ..row() }, RowProblem::Metric),
            (MetricRow { metric: "a b".to_owned(), ..row() }, RowProblem::Metric),
            (MetricRow { second: 11, ..row() }, RowProblem::Future),
            (MetricRow { count: MAX_ROW_COUNT + 1, ..row() }, RowProblem::Count),
            (MetricRow { errors: 4, ..row() }, RowProblem::Contradiction("errors", "count")),
            (MetricRow { first_seen: vec![1, 2, 3], ..row() }, RowProblem::Contradiction("newUnits", "units")),
            (MetricRow { first_latency: vec![(1, 1); 3], ..row() }, RowProblem::Contradiction("firstLatency", "units")),
            (MetricRow { values, ..row() }, RowProblem::Values),
        ];
        for (row, problem) in faulty {
            assert_eq!(check(&row, 10_999), Err(problem), "{problem}");
        }
    }

    proptest! {
        #[test]
        fn sums_of_any_values_are_theirs(values in prop::collection::vec(-2e9_f64..2e9, 0..50)) {
            let mut moments = Moments::default();
            values.iter().for_each(|&value| moments.record(value));
            prop_assert!(are_of_values(&moments));
        }

        #[test]
        fn any_sums_are_judged(count: u64, sum: i128, sum_squares: u128) {
            are_of_values(&Moments { count, sum, sum_squares });
        }
    }
}
