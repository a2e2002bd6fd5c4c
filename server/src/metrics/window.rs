//! A row: what one instance counted in one second for one arm, and how rows add up.
//!
//! Everything is an integer, sums of values too, so that adding rows is exact: the order of arrival, the number of servers
//! and the grouping into windows never change a result.

use serde::{Deserialize, Serialize};

use super::units::UnitMemory;
use guidon_sdk::measure::{MAX_FIRSTS, Moments, Sketch};

/// Which path a unit was assigned to. What was delivered does not matter here: a fallback counts as a failure of the
/// assigned path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Arm {
    /// The path under release, as a rule the AI path.
    Treatment,
    /// The baseline that runs beside it.
    Control,
}

/// A running process, named by its connection. Unique within the server; 8 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct InstanceId(pub u64);

/// What was counted: of one row, or of many merged.
///
/// A *unit* is what the flag is bucketed by, as a rule a person. Per-unit numbers exist so that one heavy user is one user.
/// `new_units`, `new_failing_units` and `unit_latency` are of the whole release and not of an instance: [`Row::count_firsts`]
/// fills them in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Tally {
    /// Requests.
    pub count: u64,
    /// Requests that failed; a fallback is a failure.
    pub errors: u64,
    /// Distinct units in this second.
    pub units: u64,
    /// Distinct units that failed in this second.
    pub failing_units: u64,
    /// Those of `units` that the instance has not seen fail before this second, in this release.
    pub units_at_risk: u64,
    /// Units that are served for the first time in this step of the release.
    pub new_units: u64,
    /// Units that fail for the first time in this release.
    pub new_failing_units: u64,
    /// Latency of every request.
    pub latency: Sketch,
    /// Latency of one request per unit and [`guidon_sdk::measure::UNIT_PERIOD_SECONDS`]: of the first, so that which one it is does not depend on
    /// how long it took. Over all instances, as `new_units`.
    pub unit_latency: Sketch,
    /// Values of a tracked metric.
    pub values: Moments,
}

impl Tally {
    /// Adds everything `other` counted.
    pub fn merge(&mut self, other: &Self) {
        for (sum, more) in self.counts_mut().into_iter().zip(other.counts()) {
            *sum = sum.saturating_add(more);
        }
        self.latency.merge(&other.latency);
        self.unit_latency.merge(&other.unit_latency);
        self.values.merge(&other.values);
    }

    /// Takes out what was merged before: for windows that move on by a second.
    pub fn subtract(&mut self, other: &Self) {
        for (sum, less) in self.counts_mut().into_iter().zip(other.counts()) {
            *sum = sum.saturating_sub(less);
        }
        self.latency.subtract(&other.latency);
        self.unit_latency.subtract(&other.unit_latency);
        self.values.subtract(&other.values);
    }

    fn counts(&self) -> [u64; 7] {
        [
            self.count,
            self.errors,
            self.units,
            self.failing_units,
            self.units_at_risk,
            self.new_units,
            self.new_failing_units,
        ]
    }

    fn counts_mut(&mut self) -> [&mut u64; 7] {
        [
            &mut self.count,
            &mut self.errors,
            &mut self.units,
            &mut self.failing_units,
            &mut self.units_at_risk,
            &mut self.new_units,
            &mut self.new_failing_units,
        ]
    }

    /// What cannot be true of a count: the names of two fields of which the first must not be above the second.
    #[must_use]
    pub fn contradiction(&self) -> Option<(&'static str, &'static str)> {
        [
            ("errors", self.errors, "count", self.count),
            ("units", self.units, "count", self.count),
            ("failingUnits", self.failing_units, "units", self.units),
            ("failingUnits", self.failing_units, "errors", self.errors),
            ("newUnits", self.new_units, "units", self.units),
            ("unitsAtRisk", self.units_at_risk, "units", self.units),
            ("newFailingUnits", self.new_failing_units, "failingUnits", self.failing_units),
            ("newFailingUnits", self.new_failing_units, "unitsAtRisk", self.units_at_risk),
            ("latency", self.latency.count(), "count", self.count),
            ("unitLatency", self.unit_latency.count(), "units", self.units),
        ]
        .into_iter()
        .find_map(|(part, few, whole, many)| (few > many).then_some((part, whole)))
    }

    /// Share of requests that failed, 0 to 1; none without requests.
    #[must_use]
    pub fn error_rate(&self) -> Option<f64> {
        (self.count > 0).then(|| self.errors as f64 / self.count as f64)
    }

    /// Bytes it takes, its own size included.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of::<Self>() - 2 * size_of::<Sketch>() + self.latency.bytes() + self.unit_latency.bytes()
    }
}

/// Both arms of the same seconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Pair {
    /// The path under release.
    pub treatment: Tally,
    /// The baseline.
    pub control: Tally,
}

impl Pair {
    /// The tally of `arm`, to add to.
    pub fn arm_mut(&mut self, arm: Arm) -> &mut Tally {
        match arm {
            Arm::Treatment => &mut self.treatment,
            Arm::Control => &mut self.control,
        }
    }

    /// Adds both arms of `other`.
    pub fn merge(&mut self, other: &Self) {
        self.treatment.merge(&other.treatment);
        self.control.merge(&other.control);
    }

    /// Takes out both arms of `other`, merged before.
    pub fn subtract(&mut self, other: &Self) {
        self.treatment.subtract(&other.treatment);
        self.control.subtract(&other.control);
    }

    /// Whether neither arm counted anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        [&self.treatment, &self.control].into_iter().all(|tally| tally.count == 0 && tally.values.count == 0)
    }
}

/// What one instance counted in one second for one arm of one flag.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Row {
    /// The second, by the server's clock, since 1970-01-01T00:00:00Z.
    pub second: u64,
    /// The assigned path.
    pub arm: Arm,
    /// Who counted.
    pub instance: InstanceId,
    /// The numbers.
    pub tally: Tally,
    /// Keyed hashes of units the instance met for the first time in this step; at most [`MAX_FIRSTS`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub first_seen: Vec<u64>,
    /// Keyed hashes of units the instance saw fail for the first time in this release; at most [`MAX_FIRSTS`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub first_failing: Vec<u64>,
    /// Keyed hashes of units the instance met for the first time in this period of [`guidon_sdk::measure::UNIT_PERIOD_SECONDS`], each with the
    /// bucket of that request's latency; at most [`MAX_FIRSTS`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub first_latency: Vec<(u64, u16)>,
}

impl Row {
    /// Fills in what only the whole release can know, by asking its memory of units, and lets the hashes go. Each row passes
    /// once: a duplicate is dropped before.
    pub fn count_firsts(&mut self, memory: &mut UnitMemory) {
        let seen = std::mem::take(&mut self.first_seen).into_iter().take(MAX_FIRSTS);
        self.tally.new_units = seen.filter(|&hash| memory.first_seen(hash)).count() as u64;
        let failing = std::mem::take(&mut self.first_failing).into_iter().take(MAX_FIRSTS);
        self.tally.new_failing_units = failing.filter(|&hash| memory.first_failing(hash)).count() as u64;
        self.tally.unit_latency = Sketch::default();
        for (hash, bucket) in std::mem::take(&mut self.first_latency).into_iter().take(MAX_FIRSTS) {
            if memory.first_latency(hash, self.second) {
                self.tally.unit_latency.add(bucket, 1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tally() -> impl Strategy<Value = Tally> {
        let values = prop::collection::vec(-1e10_f64..1e10, 0..5);
        let latencies = prop::collection::vec(0.0_f64..1e7, 0..20);
        (0_u64..100, 0_u64..100, 0_u64..100, latencies, values).prop_map(|(count, errors, units, latencies, values)| {
            let mut tally = Tally { count, errors, units, new_failing_units: errors, ..Tally::default() };
            latencies.iter().for_each(|&micros| tally.latency.record(micros));
            values.iter().for_each(|&value| tally.values.record(value));
            tally
        })
    }

    proptest! {
        #[test]
        fn merging_is_associative_and_commutative(a in tally(), b in tally(), c in tally()) {
            let mut left = a.clone();
            left.merge(&b);
            left.merge(&c);
            let mut tail = c.clone();
            tail.merge(&b);
            let mut right = tail;
            right.merge(&a);
            prop_assert_eq!(&left, &right);
            let mut less = left.clone();
            less.subtract(&c);
            less.subtract(&a);
            prop_assert_eq!(less, b);
            let back: Tally = serde_json::from_str(&serde_json::to_string(&left).unwrap()).unwrap();
            prop_assert_eq!(left, back);
        }
    }

    #[test]
    fn a_unit_that_two_instances_see_fail_counts_once() {
        let mut memory = UnitMemory::default();
        let row = |instance, first_failing: &[u64]| Row {
            second: 1,
            arm: Arm::Treatment,
            instance: InstanceId(instance),
            tally: Tally { new_failing_units: 99, ..Tally::default() },
            first_seen: vec![1 << 40, 2 << 40, 3 << 40],
            first_failing: first_failing.to_vec(),
            first_latency: vec![(1 << 40, 500), (instance << 41, 600)],
        };
        let (mut one, mut two) = (row(1, &[1 << 40]), row(2, &[1 << 40, 2 << 40]));
        one.count_firsts(&mut memory);
        two.count_firsts(&mut memory);
        assert_eq!((one.tally.new_units, one.tally.new_failing_units), (3, 1));
        assert_eq!((two.tally.new_units, two.tally.new_failing_units), (0, 1));
        assert_eq!(one.tally.unit_latency.buckets().collect::<Vec<_>>(), [(500, 1), (600, 1)]);
        assert_eq!(two.tally.unit_latency.buckets().collect::<Vec<_>>(), [(600, 1)]);
        assert!(two.first_seen.is_empty() && two.first_failing.is_empty());
    }

    #[test]
    fn a_contradiction_is_named() {
        let mut tally = Tally { count: 3, errors: 2, units: 2, failing_units: 1, units_at_risk: 2, ..Tally::default() };
        assert_eq!(tally.contradiction(), None);
        tally.new_failing_units = 2;
        assert_eq!(tally.contradiction(), Some(("newFailingUnits", "failingUnits")));
        tally.errors = 4;
        assert_eq!(tally.contradiction(), Some(("errors", "count")));
    }
}
