//! What is usual at this time of the day and of the week.
//!
//! Slots by the clock, so missing values and irregular times do no harm. The week's slots hold what differs from the day's,
//! and count for more the more often they were seen. Times are UTC: a season that follows a summer time is learned anew.

use serde::{Deserialize, Serialize};

use super::tuning::Tuning;

const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 60 * MINUTE_MS;
/// Half hours of a day.
const DAY_SLOTS: usize = 48;
/// Hours of a week.
const WEEK_SLOTS: usize = 168;
/// Points after which a slot of the week counts half.
const WEEK_TRUST: f64 = 2.0;
/// Least weight of a new point in a slot of the week.
const WEEK_RATE: f64 = 0.2;
/// What remains of a half hour's largest deviation after each further point.
const DEVIATION_KEPT: f64 = 0.98;

/// Points after which a half hour is known: a day of points every five minutes, or a week of half hours.
const KNOWN_POINTS: u32 = 6;

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
struct Slot {
    /// Points seen.
    points: u32,
    /// Their mean, recent ones counting more.
    mean: f64,
    /// The largest deviation from what was expected here, fading.
    deviation: f64,
}

/// The daily and weekly profile of a series; 5.2 kB, on the heap.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Season {
    day: Vec<Slot>,
    week: Vec<Slot>,
}

impl Default for Season {
    fn default() -> Self {
        Self { day: vec![Slot::default(); DAY_SLOTS], week: vec![Slot::default(); WEEK_SLOTS] }
    }
}

/// Index of the half hour of the day, and of the hour of the week.
fn slots(at_ms: i64) -> (usize, usize) {
    let half_hour = at_ms.div_euclid(30 * MINUTE_MS).rem_euclid(DAY_SLOTS as i64);
    let hour = at_ms.div_euclid(HOUR_MS).rem_euclid(WEEK_SLOTS as i64);
    (half_hour.unsigned_abs() as usize, hour.unsigned_abs() as usize)
}

impl Season {
    /// Bytes beside the value itself.
    pub(super) fn heap_bytes(&self) -> usize {
        (self.day.capacity() + self.week.capacity()) * size_of::<Slot>()
    }

    /// What is usual at this time; `None` while this half hour of the day was never seen.
    pub(super) fn expected(&self, at_ms: i64) -> Option<f64> {
        let (day, week) = slots(at_ms);
        let day = self.day.get(day).filter(|slot| slot.points > 0)?;
        let week = self.week.get(week).copied().unwrap_or_default();
        let points = f64::from(week.points);
        Some(day.mean + week.mean * points / (points + WEEK_TRUST))
    }

    /// Whether this half hour was seen often enough for a deviation from it to mean anything.
    pub(super) fn is_known(&self, at_ms: i64) -> bool {
        self.day.get(slots(at_ms).0).is_some_and(|slot| slot.points >= KNOWN_POINTS)
    }

    /// How far values were from what is usual at about this time: the most of this half hour and those beside it.
    pub(super) fn deviation(&self, at_ms: i64) -> f64 {
        let (day, _) = slots(at_ms);
        let of = |slot: usize| self.day.get(slot % DAY_SLOTS).map_or(0.0, |slot| slot.deviation);
        of(day).max(of(day + 1)).max(of(day + DAY_SLOTS - 1))
    }

    /// Learns a value which was so far from what was expected.
    pub(super) fn learn(&mut self, at_ms: i64, value: f64, off_by: f64, tuning: &Tuning) {
        let (day, week) = slots(at_ms);
        let mut from_day = 0.0;
        if let Some(slot) = self.day.get_mut(day) {
            from_day = if slot.points > 0 { value - slot.mean } else { 0.0 };
            slot.points = slot.points.saturating_add(1);
            slot.mean += (value - slot.mean) * tuning.season.max(1.0 / f64::from(slot.points));
            if slot.points > 1 {
                slot.deviation = (slot.deviation * DEVIATION_KEPT).max(off_by.abs());
            }
        }
        if let Some(slot) = self.week.get_mut(week) {
            slot.points = slot.points.saturating_add(1);
            slot.mean += (from_day - slot.mean) * WEEK_RATE.max(1.0 / f64::from(slot.points));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_follow_the_clock_also_before_1970() {
        assert_eq!(slots(0), (0, 0));
        assert_eq!(slots(25 * HOUR_MS + 31 * MINUTE_MS), (3, 25));
        assert_eq!(slots(-1), (47, 167));
        assert_eq!(slots(7 * 24 * HOUR_MS), (0, 0));
        assert!(slots(i64::MIN).0 < DAY_SLOTS && slots(i64::MAX).1 < WEEK_SLOTS);
    }

    #[test]
    fn learns_a_day_and_then_its_weekend() {
        let mut season = Season::default();
        let tuning = Tuning::default();
        let value = |hour: i64| {
            let busy = (8..18).contains(&(hour % 24)) && hour / 24 % 7 < 5;
            if busy { 100.0 } else { 10.0 }
        };
        assert_eq!(season.expected(0), None);
        for hour in 0..24 * 7 * 6 {
            let off_by = value(hour) - season.expected(hour * HOUR_MS).unwrap_or(10.0);
            season.learn(hour * HOUR_MS, value(hour), off_by, &tuning);
        }
        let expected = |hour: i64| season.expected((24 * 7 * 6 + hour) * HOUR_MS).unwrap();
        assert!(expected(12) > 80.0, "Thursday noon: {}", expected(12));
        assert!(expected(2) < 20.0, "Thursday night: {}", expected(2));
        assert!(expected(24 * 5 + 12) < 45.0, "the weekend: {}", expected(24 * 5 + 12));
    }
}
