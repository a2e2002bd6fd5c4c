//! The engine of the always-valid tests: a bet against "no worse" that is carried on from second to second.
//!
//! An **e-process** is a number that starts at 1 and, if the hypothesis is true, ever reaches `1 / a` with probability at most
//! `a` (Ville's inequality). So it may be looked at every second, for ever, at one total price `a`: Ramdas, Grünwald, Vovk,
//! Shafer: "Game-theoretic statistics and safe anytime-valid inference", Statistical Science 2023.
//!
//! Nobody knows how large an effect will be or when it starts. The wealth is therefore spread over *effects* (a grid with
//! weights) and over *starting times*: a part is bet at the beginning of each step of a release, the rest little by little.
//! For one effect with factors `e_s` and spent shares `w_s` this is `R_t = (R_{t-1} + w_t) e_t`, and the value is the sum of
//! all `R_t` and of what is not spent yet. As a mixture over change points it stays an e-process (compare the e-detectors of
//! Shin, Ramdas, Rinaldo, 2023, which instead bound the time to a false alarm). A fault that starts after hours of health is
//! then found nearly as fast as one that starts at once, where a plain product would first have to win back what the healthy
//! hours lost.

use serde::{Deserialize, Serialize};

/// Share of the unspent wealth that is bet when a step begins: a bad path is most often bad from its first request.
pub const AT_STEP: f64 = 0.8;

/// Between beginnings, second `t` of a step spends `1 / (t + PATIENCE_SECONDS)` of what is unspent.
pub const PATIENCE_SECONDS: f64 = 600.0;

/// The most effects of one process.
pub const MAX_EFFECTS: usize = 8;

/// One effect of a grid, and the share of the wealth that is bet on it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Effect {
    /// How large: its meaning is the test's.
    pub size: f64,
    /// Weight, above 0. Only ratios matter.
    pub weight: f64,
}

/// Wealth over effects and starting times. Memory: 120 bytes and 8 for each effect, so at most 184.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EProcess {
    /// Wealth that is bet on each effect.
    wealth: Vec<f64>,
    unspent: f64,
    /// Updates since the step began.
    updates: u64,
    best: f64,
}

impl EProcess {
    /// A process over `effects` effects, 1 to [`MAX_EFFECTS`], that has seen nothing: its value is 1.
    #[must_use]
    pub fn new(effects: usize) -> Self {
        Self { wealth: vec![0.0; effects.clamp(1, MAX_EFFECTS)], unspent: 1.0, updates: 0, best: 1.0 }
    }

    /// Notes that a new step of the release begins: the next opening bets more. Bets that stand go on.
    pub fn begin_step(&mut self) {
        self.updates = 0;
    }

    /// Bets the share of the present second, over `effects`. Called before the second's numbers are looked at.
    pub fn open(&mut self, effects: &[Effect]) {
        let share = if self.updates == 0 { AT_STEP } else { 1.0 / (self.updates as f64 + PATIENCE_SECONDS) };
        let spent = self.unspent * share;
        self.unspent -= spent;
        self.updates = self.updates.saturating_add(1);
        let all: f64 = effects.iter().map(|effect| effect.weight).sum();
        if all > 0.0 {
            for (wealth, effect) in self.wealth.iter_mut().zip(effects) {
                *wealth += spent * effect.weight / all;
            }
        }
    }

    /// Multiplies each effect's wealth by its factor: an e-value, at least 0, of expectation at most 1 if the hypothesis is
    /// true. What is not a finite number counts as 1.
    pub fn update(&mut self, factors: &[f64]) {
        for (wealth, factor) in self.wealth.iter_mut().zip(factors) {
            if factor.is_finite() && *factor >= 0.0 {
                // Beyond this a process was decided long ago; it must only not become infinite.
                *wealth = (*wealth * factor).min(1e200);
            }
        }
        self.best = self.best.max(self.value());
    }

    /// Multiplies all wealth, unspent too: for a test that may raise it by what its stopping rule leaves unused.
    pub fn scale(&mut self, factor: f64) {
        if factor.is_finite() && factor > 0.0 {
            self.wealth.iter_mut().for_each(|wealth| *wealth *= factor);
            self.unspent *= factor;
            self.best = self.best.max(self.value());
        }
    }

    /// The wealth now.
    #[must_use]
    pub fn value(&self) -> f64 {
        self.unspent + self.wealth.iter().sum::<f64>()
    }

    /// What the value would be if the factors were `factors`.
    #[must_use]
    pub fn value_with(&self, factors: &[f64]) -> f64 {
        self.unspent + self.wealth.iter().zip(factors).map(|(wealth, factor)| wealth * factor).sum::<f64>()
    }

    /// The largest value so far. Its inverse is an always-valid p-value.
    #[must_use]
    pub fn best(&self) -> f64 {
        self.best
    }

    /// The always-valid p-value, 0 to 1.
    #[must_use]
    pub fn p_value(&self) -> f64 {
        (1.0 / self.best).min(1.0)
    }
}

/// Divides `alpha` over guardrails by their weights (weighted Bonferroni): the chance that any of them ever raises a false
/// alarm is at most `alpha`, however they depend on each other. A weight of 0 or less gets nothing.
#[must_use]
pub fn split_alpha(alpha: f64, weights: &[f64]) -> Vec<f64> {
    let all: f64 = weights.iter().filter(|weight| **weight > 0.0).sum();
    weights.iter().map(|&weight| if weight > 0.0 { alpha * weight / all } else { 0.0 }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GRID: &[Effect] = &[Effect { size: 2.0, weight: 3.0 }, Effect { size: 5.0, weight: 1.0 }];

    proptest! {
        #[test]
        fn betting_neither_makes_nor_loses_wealth(steps in prop::collection::vec(any::<bool>(), 1..400)) {
            let mut process = EProcess::new(2);
            for begins in steps {
                if begins {
                    process.begin_step();
                }
                process.open(GRID);
                process.update(&[1.0, 1.0]);
                prop_assert!((process.value() - 1.0).abs() < 1e-9);
            }
        }

        #[test]
        fn alpha_is_divided_without_rest(weights in prop::collection::vec(0.0_f64..5.0, 1..9)) {
            let parts = split_alpha(0.01, &weights);
            let positive = weights.iter().any(|&weight| weight > 0.0);
            let sum: f64 = parts.iter().sum();
            let whole = if positive { 0.01 } else { 0.0 };
            prop_assert!((sum - whole).abs() < 1e-12);
        }
    }

    #[test]
    fn a_late_fault_is_found_nearly_as_fast_as_an_early_one() {
        // Each healthy second costs the bet 2 %; each faulty one wins 30 %.
        let delay = |healthy: usize| {
            let mut process = EProcess::new(2);
            for _ in 0..healthy {
                process.open(GRID);
                process.update(&[0.98, 0.98]);
            }
            (1..1_000).find(|_| {
                process.open(GRID);
                process.update(&[1.3, 1.3]);
                process.value() >= 100.0
            })
        };
        let (early, late) = (delay(0).unwrap(), delay(21_600).unwrap());
        assert!((17..=21).contains(&early), "{early}");
        // A plain product would first have to win back six hours of 2 %: 1,660 seconds.
        assert!(late < 4 * early, "{late} seconds after six healthy hours, {early} at once");
    }

    #[test]
    fn nonsense_factors_change_nothing() {
        let mut process = EProcess::new(2);
        process.open(GRID);
        process.update(&[f64::NAN, f64::INFINITY]);
        process.scale(f64::NAN);
        assert!((process.value() - 1.0).abs() < 1e-12);
        process.update(&[1e300, 1e300]);
        process.update(&[1e300, 1e300]);
        assert!(process.value().is_finite());
    }
}
