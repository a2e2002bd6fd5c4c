//! Absolute limits: a value of the treatment over a window, with a minimum sample and a number of breaches in a row.

use serde::{Deserialize, Serialize};

use super::mean::Worse;
use crate::metrics::{Pair, Tally};

/// What a guardrail looks at.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum Measure {
    /// Share of requests that failed, 0 to 1.
    ErrorRate,
    /// A quantile of latency, in microseconds.
    Latency {
        /// Between 0 and 1; 0.99 is the 99th percentile.
        quantile: f64,
    },
    /// The mean of a tracked metric, in its own unit: CPU, memory, revenue.
    Mean {
        /// Which way is worse.
        worse: Worse,
    },
}

impl Measure {
    /// The value of `tally` and the number of observations behind it; none without any.
    #[must_use]
    pub fn read(&self, tally: &Tally) -> Option<(f64, u64)> {
        match self {
            Self::ErrorRate => Some((tally.error_rate()?, tally.count)),
            Self::Latency { quantile } => Some((tally.latency.quantile(*quantile)?, tally.latency.count())),
            Self::Mean { .. } => Some((tally.values.mean()?, tally.values.count)),
        }
    }

    /// Whether `value` is worse than `other`.
    #[must_use]
    pub fn is_worse(&self, value: f64, other: f64) -> bool {
        match self {
            Self::Mean { worse: Worse::Lower } => value < other,
            _ => value > other,
        }
    }
}

/// A limit of the treatment's value.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Limit {
    /// The last value that is still allowed, in the measure's unit.
    pub value: f64,
    /// Seconds of the window, 1 to [`super::plan::MAX_WINDOW_SECONDS`].
    pub window_seconds: u64,
    /// Observations that the treatment must have in the window; below it nothing is said.
    pub minimum_sample: u64,
    /// Seconds in a row in which the window must be beyond the limit. At least 1.
    pub breaches: u32,
}

/// How much worse than the control a breaching treatment must be, as a share of the control's value, to be the release's
/// doing. Below it both arms are said to degrade alike.
pub const ALIKE_MARGIN: f64 = 0.10;

/// What a limit saw in a second.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reading {
    /// The treatment's value; none if it had too few observations.
    pub treatment: Option<f64>,
    /// Its observations in the window.
    pub sample: u64,
    /// The control's value; none if it had too few.
    pub control: Option<f64>,
    /// Seconds in a row beyond the limit, this one included.
    pub breaches: u32,
    /// Whether the limit is broken: enough observations, enough breaches.
    pub broken: bool,
    /// Whether the control is beyond the limit too, or the treatment hardly worse than it: then it is not the release.
    pub alike: bool,
}

/// Breaches in a row so far. Memory: 4 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitState {
    breaches: u32,
}

impl LimitState {
    /// Judges one second's `window`. Too few observations end a row of breaches.
    pub fn judge(&mut self, limit: &Limit, measure: Measure, window: &Pair) -> Reading {
        let enough = |tally: &Tally| measure.read(tally).filter(|(_, sample)| *sample >= limit.minimum_sample.max(1));
        let (treatment, control) = (enough(&window.treatment), enough(&window.control));
        let beyond = treatment.is_some_and(|(value, _)| measure.is_worse(value, limit.value));
        self.breaches = if beyond { self.breaches.saturating_add(1) } else { 0 };
        let alike = match (treatment, control) {
            (Some((value, _)), Some((beside, _))) if beyond => {
                let margin = ALIKE_MARGIN * beside.abs();
                let worst_alike = if measure.is_worse(1.0, 0.0) { beside + margin } else { beside - margin };
                measure.is_worse(beside, limit.value) || !measure.is_worse(value, worst_alike)
            }
            _ => false,
        };
        Reading {
            treatment: treatment.map(|(value, _)| value),
            sample: measure.read(&window.treatment).map_or(0, |(_, sample)| sample),
            control: control.map(|(value, _)| value),
            breaches: self.breaches,
            broken: self.breaches >= limit.breaches.max(1),
            alike,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Limit = Limit { value: 0.05, window_seconds: 10, minimum_sample: 50, breaches: 3 };

    fn window(errors: u64, count: u64, control_errors: u64) -> Pair {
        let mut pair = Pair::default();
        (pair.treatment.errors, pair.treatment.count) = (errors, count);
        (pair.control.errors, pair.control.count) = (control_errors, 1_000);
        pair
    }

    #[test]
    fn only_breaches_in_a_row_with_enough_observations_break_a_limit() {
        let mut state = LimitState::default();
        let mut judge = |errors, count| state.judge(&LIMIT, Measure::ErrorRate, &window(errors, count, 1)).broken;
        assert!(!judge(10, 100) && !judge(10, 100) && judge(10, 100));
        assert!(!judge(5, 100), "at the limit is not beyond it");
        assert!(!judge(10, 100) && !judge(49, 49) && !judge(10, 100), "too few end the row");
    }

    #[test]
    fn both_arms_beyond_the_limit_are_alike() {
        let judge =
            |control| LimitState::default().judge(&LIMIT, Measure::ErrorRate, &window(100, 1_000, control)).alike;
        assert!(judge(60), "the control is beyond the limit too");
        assert!(!judge(10));
        let near = Limit { value: 0.099, ..LIMIT };
        let reading = LimitState::default().judge(&near, Measure::ErrorRate, &window(100, 1_000, 95));
        assert!(reading.alike && reading.breaches == 1, "hardly worse than a control just inside");
    }

    #[test]
    fn lower_can_be_worse() {
        let mut pair = Pair::default();
        (0..60).for_each(|_| pair.treatment.values.record(1.0));
        (0..60).for_each(|_| pair.control.values.record(3.0));
        let limit = Limit { value: 2.0, breaches: 1, ..LIMIT };
        let reading = LimitState::default().judge(&limit, Measure::Mean { worse: Worse::Lower }, &pair);
        assert!(reading.broken && !reading.alike, "{reading:?}");
        let higher = LimitState::default().judge(&limit, Measure::Mean { worse: Worse::Higher }, &pair);
        assert!(!higher.broken);
    }
}
