//! Number, sum and sum of squares of values, as integers, so that adding is exact.

use serde::{Deserialize, Serialize};

/// Steps of the fixed point in which values are summed: a millionth of the metric's unit.
pub const VALUE_STEPS: f64 = 1_000_000.0;

/// The largest absolute value that is summed; beyond it a value counts as this. With it, sums are exact up to 340 million
/// values a row or window, and stop at their limit after that.
pub const MAX_VALUE: f64 = 1e9;

/// Number, sum and sum of squares of a metric's values, in fixed point.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Moments {
    /// How many values.
    pub count: u64,
    /// Their sum, in millionths of the unit.
    pub sum: i128,
    /// The sum of their squares, in millionths of millionths of the unit squared.
    pub sum_squares: u128,
}

impl Moments {
    /// Adds one value. What is not a number is left out; see [`MAX_VALUE`] for the limit.
    pub fn record(&mut self, value: f64) {
        if value.is_nan() {
            return;
        }
        let steps = (value.clamp(-MAX_VALUE, MAX_VALUE) * VALUE_STEPS).round() as i128;
        self.merge(&Self { count: 1, sum: steps, sum_squares: steps.unsigned_abs().saturating_pow(2) });
    }

    /// Adds all values of `other`.
    pub fn merge(&mut self, other: &Self) {
        self.count = self.count.saturating_add(other.count);
        self.sum = self.sum.saturating_add(other.sum);
        self.sum_squares = self.sum_squares.saturating_add(other.sum_squares);
    }

    /// Takes out values that were merged before.
    pub fn subtract(&mut self, other: &Self) {
        self.count = self.count.saturating_sub(other.count);
        self.sum = self.sum.saturating_sub(other.sum);
        self.sum_squares = self.sum_squares.saturating_sub(other.sum_squares);
    }

    /// The mean, in the metric's unit; none without values.
    #[must_use]
    pub fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum as f64 / VALUE_STEPS / self.count as f64)
    }

    /// The unbiased variance, in the metric's unit squared; none below two values.
    #[must_use]
    pub fn variance(&self) -> Option<f64> {
        let mean = self.mean()?;
        if self.count < 2 {
            return None;
        }
        let n = self.count as f64;
        let squares = self.sum_squares as f64 / (VALUE_STEPS * VALUE_STEPS);
        Some(((squares - n * mean * mean) / (n - 1.0)).max(0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn moments_are_those_of_the_values(values in prop::collection::vec(-1e4_f64..1e4, 2..50)) {
            let mut moments = Moments::default();
            values.iter().for_each(|&value| moments.record(value));
            let n = values.len() as f64;
            let mean = values.iter().sum::<f64>() / n;
            let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (n - 1.0);
            prop_assert!((moments.mean().unwrap() - mean).abs() < 1e-5);
            prop_assert!((moments.variance().unwrap() - variance).abs() < 1e-5 * (1.0 + variance));
        }
    }

    #[test]
    fn an_extreme_value_counts_as_the_limit() {
        let mut moments = Moments::default();
        moments.record(f64::INFINITY);
        moments.record(f64::NAN);
        assert_eq!((moments.count, moments.mean()), (1, Some(MAX_VALUE)));
    }
}
