//! How long ago something at least as large was last seen.
//!
//! The statistic behind it is the record: of `n` values in random order, the last is the largest with probability `1/n`,
//! whatever their distribution (Rényi, "Théorie des éléments saillants d'une suite d'observations", 1962). So the time since
//! a value was last reached is, up to noise, one over the probability of seeing it, for any shape of the noise.

use serde::{Deserialize, Serialize};

use super::tuning::Tuning;

/// Steps of the logarithmic scale per doubling: values within 9 % count as equal.
const PER_OCTAVE: f64 = 8.0;
/// Steps that are kept: 24 doublings below the largest value. What is smaller counts as that small.
const STEPS: usize = 192;
/// Where on the scale the first value is put: 8 doublings are free above it before the scale has to move.
const FIRST_STEP: i32 = 128;
/// Values below this are zero; a series of nothing but zeros has no records.
const SMALLEST: f64 = 1e-280;
/// Values above this are this.
const LARGEST: f64 = 1e300;
/// Past this many doublings above every earlier value, more make no difference.
const MOST_EXCESS: f64 = 4.0;

/// When each magnitude was last reached; 776 bytes, on the heap.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Records {
    /// By step: the number of the newest point that was at least so large, 0 for none. Never rises from a step to the next.
    last: Vec<u32>,
    /// The step of the logarithmic scale that `last` starts with. `None` before the first value.
    base: Option<i32>,
}

impl Default for Records {
    fn default() -> Self {
        Self { last: vec![0; STEPS], base: None }
    }
}

impl Records {
    /// Bytes beside the value itself.
    pub(super) fn heap_bytes(&self) -> usize {
        self.last.capacity() * size_of::<u32>()
    }

    /// How remarkable it is that point number `now` (from 1 on, rising) has this magnitude, which is then remembered: the
    /// decimal logarithm of the points since it was last reached, more by up to `MOST_EXCESS` doublings above all that was
    /// seen, measured against how far large values are apart in this series.
    pub(super) fn see(&mut self, magnitude: f64, now: u32, tuning: &Tuning) -> f64 {
        if magnitude.is_nan() || magnitude < SMALLEST {
            return 0.0;
        }
        let step = self.step_of(magnitude);
        let largest = self.last.iter().rposition(|seen| *seen > 0).unwrap_or(0).min(step);
        let since = f64::from(now.saturating_sub(self.last.get(step).copied().unwrap_or(0)).max(1));
        // The largest that is seen all the time.
        let common = self
            .last
            .get(..=step)
            .and_then(|seen| seen.iter().rposition(|seen| f64::from(now.saturating_sub(*seen)) <= tuning.common));
        let octaves = |from: usize, to: usize| to.saturating_sub(from) as f64 / PER_OCTAVE;
        let spread = octaves(common.unwrap_or(0), largest);
        let excess = octaves(largest, step).min(MOST_EXCESS);
        if let Some(reached) = self.last.get_mut(..=step) {
            reached.fill(now);
        }
        since.log10() + tuning.excess / (spread + tuning.spread) * excess
    }

    /// The place of a magnitude in `last`, which moves if it has to.
    fn step_of(&mut self, magnitude: f64) -> usize {
        let step = (magnitude.min(LARGEST).log2() * PER_OCTAVE).floor() as i32;
        let base = *self.base.get_or_insert(step - FIRST_STEP);
        let above = step.saturating_sub(base).saturating_sub(STEPS as i32 - 1);
        if let Ok(by @ 1..) = usize::try_from(above) {
            let by = by.min(STEPS);
            self.last.drain(..by);
            self.last.resize(STEPS, 0);
            self.base = Some(base + above);
            return STEPS - 1;
        }
        usize::try_from(step.saturating_sub(base)).unwrap_or(0)
    }
}

/// Records of both directions.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Sided {
    up: Records,
    down: Records,
}

impl Sided {
    /// Bytes beside the value itself.
    pub(super) fn heap_bytes(&self) -> usize {
        self.up.heap_bytes() + self.down.heap_bytes()
    }

    /// As [`Records::see`], among the values of the same sign.
    pub(super) fn see(&mut self, value: f64, now: u32, tuning: &Tuning) -> f64 {
        if value >= 0.0 { self.up.see(value, now, tuning) } else { self.down.see(-value, now, tuning) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn plain() -> Tuning {
        Tuning { excess: 0.0, ..Tuning::default() }
    }

    #[test]
    fn counts_the_points_since_a_magnitude_was_reached() {
        let mut records = Records::default();
        let tuning = plain();
        assert_eq!(records.see(8.0, 1, &tuning), 0.0);
        assert_eq!(records.see(1.0, 2, &tuning), 0.0, "8 was at least 1, one point ago");
        assert_eq!(records.see(8.0, 101, &tuning), 2.0);
        assert_eq!(records.see(16.0, 1_000, &tuning), 3.0, "never seen: as long as the series");
        assert_eq!(records.see(0.0, 1_001, &tuning), 0.0);
        assert_eq!(records.see(f64::NAN, 1_002, &tuning), 0.0);
    }

    #[test]
    fn a_scale_that_moves_forgets_only_what_is_small() {
        let mut records = Records::default();
        let tuning = plain();
        records.see(1.0, 1, &tuning);
        records.see(1e6, 11, &tuning);
        assert_eq!(records.see(1.0, 111, &tuning), 2.0);
        assert_eq!(records.see(1e300, 1_000, &tuning), 3.0);
        assert_eq!(records.see(1e300, 1_010, &tuning), 1.0);
        assert_eq!(records.see(1e-200, 1_011, &tuning), 0.0);
    }

    proptest! {
        #[test]
        fn the_newest_points_are_never_below_older_ones_of_larger_magnitude(values in prop::collection::vec(-1e9_f64..1e9, 1..300)) {
            let mut records = Records::default();
            for (index, value) in values.iter().enumerate() {
                let score = records.see(value.abs(), index as u32 + 1, &Tuning::default());
                prop_assert!(score.is_finite() && score >= 0.0);
                prop_assert!(records.last.is_sorted_by(|a, b| a >= b));
                prop_assert_eq!(records.last.len(), STEPS);
            }
        }

        #[test]
        fn the_unit_makes_no_difference(values in prop::collection::vec(0.01_f64..100.0, 1..200), doublings in -40_i32..40) {
            let (mut plain, mut scaled) = (Records::default(), Records::default());
            for (index, value) in values.iter().enumerate() {
                let now = index as u32 + 1;
                let scale = f64::from(doublings).exp2();
                prop_assert_eq!(plain.see(*value, now, &Tuning::default()), scaled.see(value * scale, now, &Tuning::default()));
            }
        }
    }
}
