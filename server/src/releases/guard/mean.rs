//! Is the mean of a tracked metric worse in the treatment? For CPU, payloads, revenue: anything with a number.
//!
//! Values are not bounded, so no exact test exists; this one is asymptotic, as the confidence sequences of Waudby-Smith, Arbour,
//! Sinha, Kennedy, Ramdas ("Time-uniform central limit theory and asymptotic confidence sequences", 2024). Values are taken in
//! blocks of at least [`BLOCK`] an arm, whose difference of means is nearly normal; arms are compared within a block only, so a
//! drift of both is no difference. A block's e-value is the likelihood ratio of a shift, with the variance known before the
//! block. A block that is worse than three standard errors counts as three: heavy tails then cost power, not truth.

use serde::{Deserialize, Serialize};

use super::bounds::two_sided_normal_mixture;
use super::sequential::{EProcess, Effect};
use guidon_sdk::measure::Moments;

use crate::metrics::Pair;

/// Values of each arm in a block, at least.
pub const BLOCK: u64 = 30;

/// Values of each arm before the first block that counts: they give the first variance.
pub const BURN_IN: u64 = 100;

/// Effects that are bet on: shifts in standard deviations of the control's values.
pub const MEAN_EFFECTS: &[Effect] = &[
    Effect { size: 0.05, weight: 0.2 },
    Effect { size: 0.12, weight: 0.25 },
    Effect { size: 0.3, weight: 0.25 },
    Effect { size: 0.8, weight: 0.2 },
    Effect { size: 2.0, weight: 0.1 },
];

/// The largest distance, in standard errors, that one block may count for.
const CLIP: f64 = 3.0;

/// Which way is worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Worse {
    /// Higher, as for CPU.
    Higher,
    /// Lower, as for revenue.
    Lower,
}

/// How a [`MeanTest`] tests.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MeanConfig {
    /// Chance of a false alarm, ever. Above 0, at most 0.5.
    pub alpha: f64,
    /// Which way is worse.
    pub worse: Worse,
    /// By what share of the control's mean the treatment may be worse and still be no worse. At least 0.
    pub tolerance: f64,
    /// By how much, in the metric's unit, it may be worse and still be no worse, where that is more.
    pub floor: f64,
    /// As [`super::split::SplitConfig::cluster`]: how many values may belong together completely.
    pub cluster: f64,
}

/// The difference of means with an interval that holds at all times together.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Estimate {
    /// Treatment minus control, in the metric's unit.
    pub difference: f64,
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

/// An e-process for means. Memory: some 500 bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MeanTest {
    config: MeanConfig,
    process: EProcess,
    /// All values before the present block: they give the variances.
    past: [Moments; 2],
    block: [Moments; 2],
    /// The control's standard deviation when the test began: the unit of effects. 0 before.
    scale: f64,
    /// Sums over blocks: weights, weighted differences, their variance.
    weight: f64,
    sum: f64,
    variance: f64,
    crossed: bool,
}

impl MeanTest {
    /// A test that has seen nothing.
    #[must_use]
    pub fn new(config: MeanConfig) -> Self {
        Self {
            config,
            process: EProcess::new(MEAN_EFFECTS.len()),
            past: [Moments::default(); 2],
            block: [Moments::default(); 2],
            scale: 0.0,
            weight: 0.0,
            sum: 0.0,
            variance: 0.0,
            crossed: false,
        }
    }

    /// Notes that a new step of the release begins.
    pub fn begin_step(&mut self) {
        self.process.begin_step();
    }

    /// Takes one second.
    pub fn observe(&mut self, pair: &Pair) {
        let [treatment, control] = &mut self.block;
        treatment.merge(&pair.treatment.values);
        control.merge(&pair.control.values);
        let needed = if self.scale > 0.0 { BLOCK } else { BURN_IN };
        if treatment.count.min(control.count) < needed {
            return;
        }
        if self.scale > 0.0 {
            self.close_block();
        }
        for (past, block) in self.past.iter_mut().zip(&mut self.block) {
            past.merge(block);
            *block = Moments::default();
        }
        if self.scale <= 0.0 {
            let [_, control] = &self.past;
            self.scale = control.variance().unwrap_or(0.0).sqrt();
        }
    }

    fn close_block(&mut self) {
        let [treatment, control] = &self.block;
        let [past_treatment, past_control] = &self.past;
        let (Some(mean), Some(beside)) = (treatment.mean(), control.mean()) else { return };
        let (n, m) = (treatment.count as f64, control.count as f64);
        // Before the block, so that a block cannot choose its own yardstick. Never below a hundredth of the scale: values
        // that have not varied yet are not known to be constant.
        let floor = (0.01 * self.scale).powi(2);
        let spread = past_treatment.variance().unwrap_or(0.0).max(floor);
        let beside_spread = past_control.variance().unwrap_or(0.0).max(floor);
        let variance = spread / n + beside_spread / m;
        let weight = n * m / (n + m);
        self.weight += weight;
        self.sum += weight * (mean - beside);
        self.variance += weight * weight * variance;

        let allowed = (self.config.tolerance.max(0.0) * beside.abs()).max(self.config.floor);
        let worse = match self.config.worse {
            Worse::Higher => mean - beside - allowed,
            Worse::Lower => beside - mean - allowed,
        };
        let worse = worse.min(CLIP * variance.sqrt());
        let mut factors = [1.0; MEAN_EFFECTS.len()];
        for (factor, effect) in factors.iter_mut().zip(MEAN_EFFECTS) {
            let shift = effect.size * self.scale;
            *factor = ((shift * worse - 0.5 * shift * shift) / variance / self.config.cluster.max(1.0)).exp();
        }
        self.process.open(MEAN_EFFECTS);
        self.process.update(&factors);
        self.crossed |= self.process.value() * self.config.alpha >= 1.0;
    }

    /// The difference of means over all blocks, with an interval at level 1 - `alpha` that holds at all times together
    /// (asymptotically). None before the first block.
    #[must_use]
    pub fn estimate(&self) -> Option<Estimate> {
        if self.weight <= 0.0 {
            return None;
        }
        // Tightest after the worth of 1,000 values of the smaller arm.
        let best_at = 1_000.0 * self.scale * self.scale;
        let width =
            two_sided_normal_mixture(self.variance, best_at.max(f64::MIN_POSITIVE), self.config.alpha) / self.weight;
        let difference = self.sum / self.weight;
        Some(Estimate { difference, low: difference - width, high: difference + width })
    }

    /// The wealth now.
    #[must_use]
    pub fn value(&self) -> f64 {
        self.process.value()
    }

    /// The always-valid p-value, 0 to 1.
    #[must_use]
    pub fn p_value(&self) -> f64 {
        self.process.p_value()
    }

    /// Whether the treatment was ever found worse than tolerated.
    #[must_use]
    pub fn crossed(&self) -> bool {
        self.crossed
    }
}

#[cfg(test)]
mod tests {
    use super::super::made_up::MadeUp;
    use super::*;

    fn config(worse: Worse) -> MeanConfig {
        MeanConfig { alpha: 0.01, worse, tolerance: 0.0, floor: 0.0, cluster: 1.0 }
    }

    /// A treatment whose log-normal values (skewed, variance 4.7 times the squared mean's) are `factor` times the control's,
    /// while both drift up and down together.
    fn watched(random: &mut MadeUp, worse: Worse, factor: f64, seconds: u64) -> (Option<u64>, MeanTest) {
        let mut test = MeanTest::new(config(worse));
        let at = (0..seconds).find(|&second| {
            let mut pair = Pair::default();
            let base = 50.0 * (1.0 + 0.5 * (second as f64 / 100.0).sin());
            (0..10).for_each(|_| pair.treatment.values.record(factor * base * random.normal().exp()));
            (0..90).for_each(|_| pair.control.values.record(base * random.normal().exp()));
            test.observe(&pair);
            test.crossed()
        });
        (at, test)
    }

    #[test]
    fn a_worse_mean_is_found_and_an_equal_one_is_not() {
        let mut random = MadeUp::new(5);
        let alarms = (0..40).filter(|_| watched(&mut random, Worse::Higher, 1.0, 200).0.is_some()).count();
        assert!(alarms <= 3, "alpha is 1 %: {alarms} of 40");
        let alarms = (0..40).filter(|_| watched(&mut random, Worse::Lower, 1.0, 200).0.is_some()).count();
        assert!(alarms <= 3, "alpha is 1 %: {alarms} of 40");
        let mut delays: Vec<u64> = (0..21).map(|_| watched(&mut random, Worse::Higher, 2.0, 900).0.unwrap()).collect();
        delays.sort_unstable();
        assert!(delays[10] <= 30, "{delays:?}");
        assert!(watched(&mut random, Worse::Lower, 0.5, 900).0.is_some());
        assert_eq!(watched(&mut random, Worse::Lower, 2.0, 300).0, None, "more is better here");
    }

    #[test]
    fn the_interval_holds_the_truth_at_all_times() {
        let mut random = MadeUp::new(6);
        let missed = (0..50)
            .filter(|_| {
                let mut test = MeanTest::new(config(Worse::Higher));
                (0..100).any(|_| {
                    let mut pair = Pair::default();
                    (0..15).for_each(|_| pair.treatment.values.record(12.0 + random.normal()));
                    (0..60).for_each(|_| pair.control.values.record(10.0 + random.normal()));
                    test.observe(&pair);
                    test.estimate().is_some_and(|estimate| estimate.low > 2.0 || estimate.high < 2.0)
                })
            })
            .count();
        assert!(missed <= 3, "level 99 %: {missed} of 50");
        let (_, test) = watched(&mut random, Worse::Higher, 1.0, 300);
        let estimate = test.estimate().unwrap();
        assert!(estimate.high - estimate.low < 60.0, "{estimate:?}");
    }

    #[test]
    fn values_without_variance_are_survived() {
        let mut test = MeanTest::new(config(Worse::Higher));
        let mut pair = Pair::default();
        (0..200).for_each(|_| pair.treatment.values.record(1.0));
        (0..200).for_each(|_| pair.control.values.record(1.0));
        (0..50).for_each(|_| test.observe(&pair));
        assert!(!test.crossed() && test.value().is_finite());
    }
}
