//! Does the treatment get the share it was given? Sample-ratio mismatch, looked at every second.
//!
//! The e-process is the Bayes factor of a Dirichlet-multinomial (with two arms: beta-binomial) against the configured share
//! (Lindon, Malek: "Anytime-valid inference for multinomial count data", NeurIPS 2022). A mismatch means that the numbers of the
//! arms are not comparable, whatever they say: units are lost or counted in one arm only. The guard holds.

use serde::{Deserialize, Serialize};

use super::bounds::ln_beta;

/// How firmly the prior expects the configured share: as if this many units had been seen. Small mismatches are found faster
/// when it is larger.
const CONCENTRATION: f64 = 500.0;

/// How a [`RatioTest`] tests.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RatioConfig {
    /// Chance of a false alarm, ever. Above 0, at most 0.5.
    pub alpha: f64,
    /// How many times the same unit may be counted (once in each instance it meets). At least 1; each e-value is raised to
    /// `1 / cluster`.
    pub cluster: f64,
}

/// An e-process on the share of new units. Memory: 72 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RatioTest {
    config: RatioConfig,
    /// The share of the treatment in this step.
    share: f64,
    treatment: u64,
    control: u64,
    /// Natural logarithm of the wealth.
    log: f64,
    best: f64,
}

impl RatioTest {
    /// A test of a step in which the treatment gets `share` of the units; see [`RatioTest::begin_step`].
    #[must_use]
    pub fn new(config: RatioConfig, share: f64) -> Self {
        Self { config, share, treatment: 0, control: 0, log: 0.0, best: 0.0 }
    }

    /// A new step begins, in which the treatment gets `share` of the units, between 0 and 1. With a share of 0 or 1 nothing
    /// is tested. Evidence of earlier steps stays.
    pub fn begin_step(&mut self, share: f64) {
        (self.share, self.treatment, self.control) = (share, 0, 0);
    }

    /// Takes one second: units that each arm met for the first time in this step.
    pub fn observe(&mut self, treatment: u64, control: u64) {
        if self.share <= 0.0 || self.share >= 1.0 || treatment + control == 0 {
            return;
        }
        let before = self.ln_evidence();
        self.treatment = self.treatment.saturating_add(treatment);
        self.control = self.control.saturating_add(control);
        self.log += (self.ln_evidence() - before) / self.config.cluster.max(1.0);
        self.best = self.best.max(self.log);
    }

    /// Logarithm of the step's Bayes factor for "some other share".
    fn ln_evidence(&self) -> f64 {
        let (a, b) = (CONCENTRATION * self.share, CONCENTRATION * (1.0 - self.share));
        let (x, y) = (self.treatment as f64, self.control as f64);
        ln_beta(a + x, b + y) - ln_beta(a, b) - x * self.share.ln() - y * (-self.share).ln_1p()
    }

    /// The wealth now; at most 1e300.
    #[must_use]
    pub fn value(&self) -> f64 {
        self.log.min(690.0).exp()
    }

    /// The always-valid p-value, 0 to 1.
    #[must_use]
    pub fn p_value(&self) -> f64 {
        (-self.best).exp().min(1.0)
    }

    /// Whether a mismatch was ever found.
    #[must_use]
    pub fn crossed(&self) -> bool {
        self.best >= -self.config.alpha.ln()
    }

    /// Units counted in this step: treatment, control.
    #[must_use]
    pub fn units(&self) -> (u64, u64) {
        (self.treatment, self.control)
    }
}

#[cfg(test)]
mod tests {
    use super::super::made_up::MadeUp;
    use super::*;

    const CONFIG: RatioConfig = RatioConfig { alpha: 0.01, cluster: 1.0 };

    fn found(random: &mut MadeUp, given: f64, true_share: f64, seconds: u64) -> Option<u64> {
        let mut test = RatioTest::new(CONFIG, given);
        (0..seconds).find(|_| {
            let treatment = random.hits(50, true_share);
            test.observe(treatment, 50 - treatment);
            test.crossed()
        })
    }

    #[test]
    fn a_mismatch_is_found_both_ways_and_a_match_is_not() {
        let mut random = MadeUp::new(8);
        for share in [0.01, 0.1, 0.5] {
            let alarms = (0..40).filter(|_| found(&mut random, share, share, 200).is_some()).count();
            assert!(alarms <= 3, "share {share}: {alarms} of 40");
        }
        assert!(found(&mut random, 0.1, 0.13, 500).is_some());
        assert!(found(&mut random, 0.5, 0.46, 500).is_some());
    }

    #[test]
    fn the_evidence_is_that_of_the_closed_form() {
        // Beta(250, 250) prior, 60 of 100: the beta-binomial chance over the binomial one.
        let mut test = RatioTest::new(CONFIG, 0.5);
        test.observe(20, 20);
        test.observe(40, 20);
        let direct = ln_beta(250.0 + 60.0, 250.0 + 40.0) - ln_beta(250.0, 250.0) + 100.0 * 2.0_f64.ln();
        assert!((test.value().ln() - direct).abs() < 1e-9);
        assert_eq!(test.units(), (60, 40));
    }

    #[test]
    fn a_step_has_its_own_share_and_keeps_the_evidence() {
        let mut test = RatioTest::new(CONFIG, 0.1);
        test.observe(500, 500);
        let before = test.value();
        test.begin_step(1.0);
        test.observe(100, 0);
        assert!(test.crossed() && (test.value() - before).abs() < 1e-6);
    }
}
