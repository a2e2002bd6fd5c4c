//! Are more of the failing units in the treatment than its share? The test of error rates and of latency thresholds.
//!
//! Within one second, given how many units each arm served and how many failed in all, only one thing is random: which arm
//! the failing ones are in. If the treatment is no worse their number in it is hypergeometric, or lower, whatever the base rate
//! of that second is and however it drifts. For an odds ratio `w` the second's e-value is `w^x / E[w^X]`, the likelihood ratio
//! of Fisher's noncentral hypergeometric distribution; each is an e-variable for the 2x2 table of the second (Turner, Ly,
//! Grünwald: "Generic E-variables for exact sequential k-sample tests that allow for optional stopping", 2022, give the
//! unconditional kind, which grows at nearly the same rate but takes the base rate for known in its bet).
//!
//! **What is assumed.** A unit's arm is drawn at random (it is: a hash of its key), and a unit that is counted as failing is
//! counted once. Then the test is exact whatever else is true: units may differ, failures may come in bursts, a whole
//! instance may be down for all its units. What would break it is a unit counted again and again, because its later failures
//! are in the same arm by nature and not by chance: so the numbers to feed are each unit's *first* failures. Where they are not
//! known, [`SplitConfig::cluster`] is the robust variant.

use serde::{Deserialize, Serialize};

use super::sequential::{EProcess, Effect, MAX_EFFECTS};

/// Effects that are bet on, as odds ratios above the tolerated one. Few, because each share of the wealth that is bet elsewhere
/// costs time; a true effect between two of them is found by both.
pub const RATE_EFFECTS: &[Effect] = &[
    Effect { size: 1.5, weight: 0.12 },
    Effect { size: 2.0, weight: 0.26 },
    Effect { size: 5.0, weight: 0.34 },
    Effect { size: 20.0, weight: 0.28 },
];

/// Beyond so many possible outcomes of a second its e-values use an upper bound of `E[w^X]` (that of a binomial variable;
/// Hoeffding 1963), which is in closed form: valid, and at such traffic strong enough.
const MAX_OUTCOMES: u64 = 200;

/// How a [`SplitTest`] tests.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SplitConfig {
    /// Chance of a false alarm, ever. Above 0, at most 0.5.
    pub alpha: f64,
    /// The odds ratio of failing that is still no worse. At least 1.
    pub tolerance: f64,
    /// The robust variant: how many counted failures may belong together completely (same unit, same cause within one arm).
    /// At least 1. Each e-value is raised to `1 / cluster`: if a cluster's members all land in one arm its factors are
    /// `Y^(m / cluster)` with `E[Y] <= 1` and `m <= cluster`, so their expectation is at most 1 (Jensen). It costs `cluster`
    /// times the delay.
    pub cluster: f64,
}

/// The numbers of one second, or of one instance's second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Split {
    /// Units of the treatment.
    pub treatment: u64,
    /// Those that failed. More than `treatment` counts as `treatment`.
    pub treatment_failing: u64,
    /// Units of the control.
    pub control: u64,
    /// Those that failed.
    pub control_failing: u64,
}

/// An e-process on where failing units are. Memory: some 330 bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SplitTest {
    config: SplitConfig,
    process: EProcess,
    crossed: bool,
}

impl SplitTest {
    /// A test that has seen nothing. Values of `config` outside their ranges are moved to the nearest inside.
    #[must_use]
    pub fn new(config: SplitConfig, effects: &[Effect]) -> Self {
        let config = SplitConfig {
            alpha: config.alpha.clamp(1e-12, 0.5),
            tolerance: config.tolerance.max(1.0),
            cluster: config.cluster.max(1.0),
        };
        Self { config, process: EProcess::new(effects.len()), crossed: false }
    }

    /// Notes that a new step of the release begins.
    pub fn begin_step(&mut self) {
        self.process.begin_step();
    }

    /// Takes one second. `blocks` is the second as a whole, or one block for each instance: blocks keep instances apart
    /// that do not have the same share of the treatment, at the price of what a block without both arms could have told.
    /// `effects` are those the test was made with.
    pub fn observe(&mut self, blocks: impl IntoIterator<Item = Split>, effects: &[Effect]) {
        self.process.open(effects);
        for block in blocks {
            self.block(block, effects);
        }
        self.crossed |= self.process.value() >= 1.0 / self.config.alpha;
    }

    fn block(&mut self, block: Split, effects: &[Effect]) {
        let x = block.treatment_failing.min(block.treatment);
        let failing = x + block.control_failing.min(block.control);
        if failing == 0 || block.treatment == 0 || block.control == 0 {
            return;
        }
        let exact = Outcomes::of(block.treatment, block.control, failing, self.config.tolerance)
            .and_then(|outcomes| outcomes.normalisers(effects).map(|normal| (outcomes, normal)));
        let Some((outcomes, normal)) = exact else {
            self.process.update(&self.bounded(block, x, failing, effects));
            return;
        };
        let power = 1.0 / self.config.cluster;
        let factors = |x: u64| {
            let mut factors = [1.0; MAX_EFFECTS];
            for ((factor, normal), effect) in factors.iter_mut().zip(&normal).zip(effects) {
                let value = effect.size.powi((x - outcomes.lowest) as i32) / normal;
                *factor = if self.config.cluster > 1.0 { value.powf(power) } else { value };
            }
            factors
        };
        let raise = if self.crossed || self.config.cluster > 1.0 { 1.0 } else { self.raise(&outcomes, &factors) };
        let seen = factors(x);
        self.process.update(&seen);
        self.process.scale(raise);
    }

    /// By how much the wealth of this second may be raised because nobody needs more than `1 / alpha`: the largest `b`
    /// with `E[min(b M, 1 / alpha)] <= M before`. What lies above `1 / alpha` is worth nothing to a test that stops
    /// there, so it may be given to outcomes below (Fischer, Ramdas: "Improving the (approximate) sequential probability
    /// ratio test by avoiding overshoot", 2024). The capped wealth grows with `x`, so it holds for the whole hypothesis.
    fn raise(&self, outcomes: &Outcomes, factors: &impl Fn(u64) -> [f64; MAX_EFFECTS]) -> f64 {
        let (before, cap) = (self.process.value(), 1.0 / self.config.alpha);
        let highest = outcomes.lowest + outcomes.chance.len() as u64 - 1;
        if before >= cap || self.process.value_with(&factors(highest)) <= cap {
            return 1.0;
        }
        let values: Vec<(f64, f64)> = (outcomes.lowest..)
            .zip(&outcomes.chance)
            .map(|(x, &chance)| (chance, self.process.value_with(&factors(x))))
            .collect();
        let (mut above, mut below) = (0.0, values.iter().map(|(chance, value)| chance * value).sum::<f64>());
        let mut best = 1.0;
        for (chance, value) in values.iter().rev() {
            // The outcomes from here up are capped: what is left of the expectation goes to those below.
            above += chance;
            below -= chance * value;
            let raise = (before - cap * above) / below;
            if below <= 0.0 || raise * value < cap || !raise.is_finite() {
                break;
            }
            best = f64::max(best, raise);
        }
        best
    }

    /// The factors of a second with too many outcomes to sum. `E[w^X]` is at most that of `failing` independent draws with
    /// the treatment's odds at the tolerance: the number is a sum of independent indicators (Vatutin, Mikhailov 1982), whose
    /// mean share is at most the first draw's (Chen, Dempster, Liu 1994), and equal indicators are the worst case.
    fn bounded(&self, block: Split, x: u64, failing: u64, effects: &[Effect]) -> [f64; MAX_EFFECTS] {
        let odds = self.config.tolerance * block.treatment as f64;
        let share = odds / (odds + block.control as f64);
        let mut factors = [1.0; MAX_EFFECTS];
        for (factor, effect) in factors.iter_mut().zip(effects) {
            let log = x as f64 * effect.size.ln() - failing as f64 * (share * (effect.size - 1.0)).ln_1p();
            *factor = (log / self.config.cluster).clamp(-600.0, 400.0).exp();
        }
        factors
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

/// How probable each number of failing units in the treatment is, given the totals, at the tolerated odds ratio.
struct Outcomes {
    lowest: u64,
    chance: Vec<f64>,
}

impl Outcomes {
    /// None if there are too many outcomes to list.
    fn of(treatment: u64, control: u64, failing: u64, odds: f64) -> Option<Self> {
        let lowest = failing.saturating_sub(control);
        let highest = failing.min(treatment);
        if highest - lowest > MAX_OUTCOMES {
            return None;
        }
        // Ratios of neighbours, relative to the largest so far, so that nothing overflows.
        let mut chance = Vec::with_capacity((highest - lowest + 1) as usize);
        let (mut log, mut top) = (0.0_f64, 0.0_f64);
        chance.push(0.0);
        for x in lowest..highest {
            let up = (treatment - x) as f64 * (failing - x) as f64 * odds;
            let down = (x + 1) as f64 * (control + x + 1 - failing) as f64;
            log += (up / down).ln();
            top = top.max(log);
            chance.push(log);
        }
        let mut sum = 0.0;
        for value in &mut chance {
            *value = (*value - top).exp();
            sum += *value;
        }
        chance.iter_mut().for_each(|value| *value /= sum);
        Some(Self { lowest, chance })
    }

    /// `E[w^(X - lowest)]` of each effect. None if a sum is not finite.
    fn normalisers(&self, effects: &[Effect]) -> Option<[f64; MAX_EFFECTS]> {
        let mut normal = [1.0; MAX_EFFECTS];
        for (normal, effect) in normal.iter_mut().zip(effects) {
            // Horner's rule from the highest outcome down.
            *normal = self.chance.iter().rev().fold(0.0, |sum, chance| sum * effect.size + chance);
        }
        normal.iter().all(|normal| normal.is_finite()).then_some(normal)
    }
}

#[cfg(test)]
#[path = "split_tests.rs"]
mod tests;
