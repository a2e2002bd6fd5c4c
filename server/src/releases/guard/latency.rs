//! Is the treatment slower than the control? Counts above the control's own quantiles, second by second.
//!
//! A threshold is the control's quantile of the past minute, so it is fixed before the second it is used on, and it follows the
//! load of the day. How many latencies of each arm lie above it is then a question of shares, which
//! [`super::split`] answers at any time (Howard, Ramdas: "Sequential estimation of quantiles with applications to A/B testing
//! and best-arm identification", 2022, treat quantiles by the same counts). Nothing is assumed about the shape of latencies;
//! a tail as heavy as it likes changes a count by one.
//!
//! The treatment's threshold is higher by the tolerance: if its latencies, divided by `1 + tolerance`, are no larger than the
//! control's (in distribution), its share above is no larger either, so the false-alarm bound holds.
//!
//! **What is assumed**, beside what [`super::split`] assumes: units that are slow by nature come once. A unit gives one latency
//! in ten minutes, so over hours it comes again; few units in the treatment (a small share of a small crowd) may then be slower
//! by chance, by some 2 % in simulations, which is what the tolerance is for: 5 % is a good one. A larger
//! [`LatencyConfig::cluster`] is the safe choice where units differ more.

use serde::{Deserialize, Serialize};

use super::sequential::Effect;
use super::split::{Split, SplitConfig, SplitTest};
use crate::metrics::Pair;
use guidon_sdk::measure::sketch::{BUCKETS, LN_GAMMA, Sketch, bucket, bucket_value};

/// Effects that are bet on: odds ratios of lying above the threshold.
pub const LATENCY_EFFECTS: &[Effect] = &[
    Effect { size: 1.15, weight: 0.25 },
    Effect { size: 1.5, weight: 0.25 },
    Effect { size: 2.2, weight: 0.2 },
    Effect { size: 5.0, weight: 0.2 },
    Effect { size: 20.0, weight: 0.1 },
];

/// Seconds after which thresholds are taken anew.
pub const REFRESH_SECONDS: u64 = 60;

/// The most quantiles of one test.
pub const MAX_QUANTILES: usize = 4;

/// Values above a quantile that the control must have shown before its threshold is used.
const NEEDED_ABOVE: f64 = 10.0;

/// How a [`LatencyTest`] tests.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LatencyConfig {
    /// Chance of a false alarm, ever. Above 0, at most 0.5.
    pub alpha: f64,
    /// One to [`MAX_QUANTILES`] quantiles, each between 0 and 1. The wealth is spread over them evenly: several find a shift
    /// of the whole distribution much faster than its 99th percentile alone.
    pub quantiles: Vec<f64>,
    /// By what share the treatment may be slower and still be no worse; 0.05 is 5 %. Rounded down to whole buckets of 2 %.
    pub tolerance: f64,
    /// By how many microseconds it may be slower and still be no worse, where that is more.
    pub floor: f64,
    /// As [`SplitConfig::cluster`].
    pub cluster: f64,
    /// Whether to read one latency per unit and period (the fair choice if units differ), or that of every request.
    pub per_unit: bool,
}

/// An e-process for latencies. Memory: some 500 bytes for each quantile, and a sketch of at most a minute.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LatencyTest {
    config: LatencyConfig,
    lines: Vec<Line>,
    /// The control's latencies since thresholds were last taken.
    gathered: Sketch,
    seconds: u64,
    best: f64,
}

/// One quantile's threshold and test.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Line {
    quantile: f64,
    threshold: Option<u16>,
    test: SplitTest,
}

impl LatencyConfig {
    /// The bucket above which the treatment is slow, where the control is above `threshold`.
    fn allowed(&self, threshold: u16) -> u16 {
        let slack = (self.tolerance.max(0.0).ln_1p() / LN_GAMMA + 1e-6).floor().min(f64::from(BUCKETS)) as u16;
        let later = bucket(bucket_value(threshold) + self.floor.max(0.0)).filter(|_| self.floor > 0.0);
        threshold.saturating_add(slack).max(later.unwrap_or(0)).min(BUCKETS - 1)
    }
}

impl LatencyTest {
    /// A test that has seen nothing. Quantiles outside 0 to 1, and those beyond [`MAX_QUANTILES`], are left out.
    #[must_use]
    pub fn new(config: LatencyConfig) -> Self {
        let quantiles: Vec<f64> =
            config.quantiles.iter().copied().filter(|q| *q > 0.0 && *q < 1.0).take(MAX_QUANTILES).collect();
        // One line alone decides when its wealth carries the mean of all past 1 / alpha.
        let alpha = config.alpha / quantiles.len().max(1) as f64;
        let split = SplitConfig { alpha, tolerance: 1.0, cluster: config.cluster };
        let lines = quantiles
            .into_iter()
            .map(|quantile| Line { quantile, threshold: None, test: SplitTest::new(split, LATENCY_EFFECTS) })
            .collect();
        Self { config, lines, gathered: Sketch::default(), seconds: 0, best: 1.0 }
    }

    /// Notes that a new step of the release begins.
    pub fn begin_step(&mut self) {
        self.lines.iter_mut().for_each(|line| line.test.begin_step());
    }

    /// Takes one second.
    pub fn observe(&mut self, pair: &Pair) {
        let (treatment, control) = if self.config.per_unit {
            (&pair.treatment.unit_latency, &pair.control.unit_latency)
        } else {
            (&pair.treatment.latency, &pair.control.latency)
        };
        let (served, beside) = (treatment.count(), control.count());
        let config = &self.config;
        for line in &mut self.lines {
            let Some(threshold) = line.threshold else { continue };
            let split = Split {
                treatment: served,
                treatment_failing: treatment.above(config.allowed(threshold)),
                control: beside,
                control_failing: control.above(threshold),
            };
            line.test.observe([split], LATENCY_EFFECTS);
        }
        // Only now, so that a threshold never knows the second it is used on.
        self.gathered.merge(control);
        self.seconds += 1;
        self.take_thresholds();
        self.best = self.best.max(self.value());
    }

    fn take_thresholds(&mut self) {
        let count = self.gathered.count() as f64;
        let due = self.seconds >= REFRESH_SECONDS;
        for line in &mut self.lines {
            let enough = count * line.quantile.min(1.0 - line.quantile) >= NEEDED_ABOVE;
            if enough && (due || line.threshold.is_none()) {
                line.threshold = self.gathered.quantile_bucket(line.quantile);
            }
        }
        // A quantile far out may need longer than a minute: then the sketch goes on gathering, up to ten.
        let all = self.lines.iter().all(|line| count * line.quantile.min(1.0 - line.quantile) >= NEEDED_ABOVE);
        if due && (all || self.seconds >= 10 * REFRESH_SECONDS) {
            self.gathered = Sketch::default();
            self.seconds = 0;
        }
    }

    /// The wealth now.
    #[must_use]
    pub fn value(&self) -> f64 {
        match self.lines.len() {
            0 => 1.0,
            lines => self.lines.iter().map(|line| line.test.value()).sum::<f64>() / lines as f64,
        }
    }

    /// The always-valid p-value, 0 to 1.
    #[must_use]
    pub fn p_value(&self) -> f64 {
        (1.0 / self.best).min(1.0)
    }

    /// Whether the treatment was ever found slower than tolerated.
    #[must_use]
    pub fn crossed(&self) -> bool {
        self.best * self.config.alpha >= 1.0
    }
}

#[cfg(test)]
mod tests {
    use super::super::made_up::MadeUp;
    use super::*;

    fn config(tolerance: f64) -> LatencyConfig {
        LatencyConfig { alpha: 0.01, quantiles: vec![0.5, 0.95], tolerance, floor: 0.0, cluster: 1.0, per_unit: true }
    }

    /// The second in which a treatment slower by `factor` is found; both arms grow slower together by `drift` a second.
    fn found(random: &mut MadeUp, tolerance: f64, factor: f64, drift: f64, seconds: u64) -> Option<u64> {
        let mut test = LatencyTest::new(config(tolerance));
        (0..seconds).find(|&second| {
            let mut pair = Pair::default();
            let base = 1e4 * (1.0 + drift * second as f64);
            // A tail without a variance: a Pareto of index 1.5.
            (0..10).for_each(|_| pair.treatment.unit_latency.record(factor * base * random.unit().powf(-1.0 / 1.5)));
            (0..90).for_each(|_| pair.control.unit_latency.record(base * random.unit().powf(-1.0 / 1.5)));
            test.observe(&pair);
            test.crossed()
        })
    }

    #[test]
    fn slower_is_found_and_equal_is_not() {
        let mut random = MadeUp::new(3);
        let alarms = (0..40).filter(|_| found(&mut random, 0.0, 1.0, 0.002, 200).is_some()).count();
        assert!(alarms <= 3, "alpha is 1 %: more than 3 of 40 has a chance below 1 in 1,000, not {alarms}");
        let mut delays: Vec<u64> = (0..21).map(|_| found(&mut random, 0.0, 2.0, 0.0, 600).unwrap()).collect();
        delays.sort_unstable();
        assert!(delays[10] <= 8, "{delays:?}");
    }

    #[test]
    fn what_is_tolerated_is_not_found() {
        let mut random = MadeUp::new(4);
        let alarms = (0..20).filter(|_| found(&mut random, 0.10, 1.08, 0.0, 200).is_some()).count();
        assert!(alarms <= 2, "{alarms}");
        assert!(found(&mut random, 0.10, 1.6, 0.0, 600).is_some());
        assert_eq!((config(0.0).allowed(100), config(0.05).allowed(100)), (100, 102));
    }

    #[test]
    fn nothing_is_said_before_there_is_a_threshold() {
        let mut test = LatencyTest::new(config(0.0));
        let mut pair = Pair::default();
        pair.treatment.unit_latency.record(1e6);
        pair.control.unit_latency.record(1.0);
        (0..9).for_each(|_| test.observe(&pair));
        assert!((test.value() - 1.0).abs() < 1e-12 && !test.crossed());
        assert!((LatencyTest::new(LatencyConfig { quantiles: vec![7.0], ..config(0.0) }).value() - 1.0).abs() < 1e-12);
    }

    #[test]
    fn a_difference_below_the_floor_is_none() {
        let config = LatencyConfig { floor: 200.0, ..config(0.1) };
        let (short, long) = (bucket(3.0).unwrap(), bucket(50_000.0).unwrap());
        assert!((bucket_value(config.allowed(short)) / 203.0).ln().abs() < 0.03);
        assert_eq!(config.allowed(long), long + 4, "a tenth of it is more");
    }
}
