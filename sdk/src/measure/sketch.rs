//! Latencies as counts in logarithmic buckets: DDSketch with a fixed range.
//!
//! The index is DDSketch's (Masson, Rim, Lee: "DDSketch: a fast and fully-mergeable quantile sketch with relative-error
//! guarantees", VLDB 2019): a value `v` falls into bucket `floor(ln v / ln g)` with `g = (1 + a) / (1 - a)` and `a` = 1 %.
//!
//! The crate `sketches-ddsketch` is not used, for three reasons found in its version 0.4.2. It gives no access to its
//! buckets, so counts above a threshold, which the guard needs, cannot be read. It collapses low buckets when the range grows
//! past its limit, so that the result depends on the order of merging. Its smallest store takes 1 KiB, where a row of one
//! second holds some ten buckets of 6 bytes. Here the range is fixed, nothing ever collapses, and a merge adds integers:
//! associative, commutative, exact.

use serde::{Deserialize, Serialize};

/// Relative error of a quantile, as a share of its value.
pub const RELATIVE_ERROR: f64 = 0.01;

/// `ln g`: the width of a bucket in natural logarithms, about 2 %.
pub const LN_GAMMA: f64 = 0.020_000_666_706_669_543;

/// The smallest value told apart, in microseconds. Anything below, zero too, counts in the first bucket.
pub const MIN_MICROS: f64 = 1.0;

/// Number of buckets. The last one begins at about 2.3 hours and takes everything above.
pub const BUCKETS: u16 = 1_142;

/// How many values fell into each bucket.
///
/// Memory: 6 bytes for each bucket that is not empty, so at most 6,852 bytes, and 48 bytes for itself. A bucket's count
/// stops at 4,294,967,295.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Wire", into = "Wire")]
pub struct Sketch {
    /// Buckets that are not empty, ascending.
    indexes: Vec<u16>,
    /// The count of each, at least 1, in the same order.
    counts: Vec<u32>,
}

/// The form on the wire: pairs of bucket and count, ascending.
#[derive(Serialize, Deserialize)]
struct Wire(Vec<(u16, u32)>);

/// Why a sketch from outside is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SketchError {
    /// A bucket beyond the last.
    #[error("bucket {0} is beyond the last, {last}", last = BUCKETS - 1)]
    Beyond(u16),
    /// A bucket that does not follow the one before it.
    #[error("bucket {0} is repeated or out of order: send ascending buckets")]
    Order(u16),
    /// A bucket without a value.
    #[error("bucket {0} counts nothing: leave it out")]
    Empty(u16),
}

impl TryFrom<Wire> for Sketch {
    type Error = SketchError;

    fn try_from(wire: Wire) -> Result<Self, SketchError> {
        Self::from_buckets(&wire.0)
    }
}

impl From<Sketch> for Wire {
    fn from(sketch: Sketch) -> Self {
        Self(sketch.buckets().collect())
    }
}

impl Sketch {
    /// A sketch from its buckets: ascending, each below [`BUCKETS`], each with a count of at least 1.
    ///
    /// # Errors
    ///
    /// [`SketchError`] names the first bucket that is wrong.
    pub fn from_buckets(buckets: &[(u16, u32)]) -> Result<Self, SketchError> {
        let mut last = None;
        for &(index, count) in buckets {
            if index >= BUCKETS {
                return Err(SketchError::Beyond(index));
            }
            if last.is_some_and(|last| index <= last) {
                return Err(SketchError::Order(index));
            }
            if count == 0 {
                return Err(SketchError::Empty(index));
            }
            last = Some(index);
        }
        let (indexes, counts) = buckets.iter().copied().unzip();
        Ok(Self { indexes, counts })
    }

    /// Buckets that are not empty with their counts, ascending.
    pub fn buckets(&self) -> impl Iterator<Item = (u16, u32)> + '_ {
        self.indexes.iter().copied().zip(self.counts.iter().copied())
    }

    /// Counts one latency, in microseconds. What is not a number, or is negative, is not counted.
    pub fn record(&mut self, micros: f64) {
        if let Some(index) = bucket(micros) {
            self.add(index, 1);
        }
    }

    /// Adds `count` values to bucket `index`; an index beyond the last counts in the last.
    pub fn add(&mut self, index: u16, count: u32) {
        if count == 0 {
            return;
        }
        let index = index.min(BUCKETS - 1);
        match self.indexes.binary_search(&index) {
            Ok(at) => {
                if let Some(held) = self.counts.get_mut(at) {
                    *held = held.saturating_add(count);
                }
            }
            Err(at) => {
                self.indexes.insert(at, index);
                self.counts.insert(at, count);
            }
        }
    }

    /// Adds every value of `other`.
    pub fn merge(&mut self, other: &Self) {
        if other.indexes.is_empty() {
            return;
        }
        // A row of few values into a long window: look its buckets up. Otherwise both are walked once.
        if other.indexes.len() * 8 <= self.indexes.len() {
            other.buckets().for_each(|(index, count)| self.add(index, count));
            return;
        }
        let room = self.indexes.len() + other.indexes.len();
        let mut merged = Self { indexes: Vec::with_capacity(room), counts: Vec::with_capacity(room) };
        let (mut mine, mut theirs) = (self.buckets().peekable(), other.buckets().peekable());
        loop {
            let (index, count) = match (mine.peek().copied(), theirs.peek().copied()) {
                (Some(a), Some(b)) if a.0 == b.0 => {
                    mine.next();
                    theirs.next();
                    (a.0, a.1.saturating_add(b.1))
                }
                (Some(a), Some(b)) if a.0 < b.0 => {
                    mine.next();
                    a
                }
                (Some(a), None) => {
                    mine.next();
                    a
                }
                (_, Some(b)) => {
                    theirs.next();
                    b
                }
                (None, None) => break,
            };
            merged.indexes.push(index);
            merged.counts.push(count);
        }
        drop(mine);
        *self = merged;
    }

    /// Takes out values that were merged before: exact, since counts are integers. Buckets that become empty go.
    pub fn subtract(&mut self, other: &Self) {
        let mut theirs = other.buckets().peekable();
        let mut emptied = false;
        for (index, count) in self.indexes.iter().zip(&mut self.counts) {
            while theirs.next_if(|(other, _)| other < index).is_some() {}
            if let Some((_, less)) = theirs.next_if(|(other, _)| other == index) {
                *count = count.saturating_sub(less);
                emptied |= *count == 0;
            }
        }
        if emptied {
            let mut kept = self.counts.iter().map(|&count| count > 0);
            self.indexes.retain(|_| kept.next().unwrap_or(false));
            self.counts.retain(|&count| count > 0);
        }
    }

    /// How many values it counts.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().map(|&count| u64::from(count)).sum()
    }

    /// Whether it counts nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.indexes.is_empty()
    }

    /// How many values lie in buckets above `index`.
    #[must_use]
    pub fn above(&self, index: u16) -> u64 {
        let from = self.indexes.partition_point(|&held| held <= index);
        self.counts.iter().skip(from).map(|&count| u64::from(count)).sum()
    }

    /// The bucket in which quantile `q` (0 to 1) lies: that of the value with rank `floor(q (n - 1))`, as in the paper.
    /// None if it counts nothing or `q` is not within 0 to 1.
    #[must_use]
    pub fn quantile_bucket(&self, q: f64) -> Option<u16> {
        if !(0.0..=1.0).contains(&q) || self.is_empty() {
            return None;
        }
        let rank = (q * (self.count() - 1) as f64) as u64;
        let mut below = 0;
        self.buckets()
            .find(|&(_, count)| {
                below += u64::from(count);
                below > rank
            })
            .map(|(index, _)| index)
    }

    /// Quantile `q` (0 to 1) in microseconds, within 1 % of the true one between 1 microsecond and 2.3 hours.
    #[must_use]
    pub fn quantile(&self, q: f64) -> Option<f64> {
        self.quantile_bucket(q).map(bucket_value)
    }

    /// Bytes this sketch takes, its own size included.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.indexes.capacity() * size_of::<u16>() + self.counts.capacity() * size_of::<u32>()
    }
}

/// The bucket of a latency in microseconds; none for what is not a number or is negative.
#[must_use]
pub fn bucket(micros: f64) -> Option<u16> {
    if micros.is_nan() || micros < 0.0 {
        return None;
    }
    let index = (micros.max(MIN_MICROS).ln() / LN_GAMMA).floor();
    Some((index as u16).min(BUCKETS - 1))
}

/// The value that stands for a bucket, in microseconds: within 1 % of everything in it.
#[must_use]
pub fn bucket_value(index: u16) -> f64 {
    (f64::from(index) * LN_GAMMA).exp() * (1.0 + RELATIVE_ERROR)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sketch_of(values: &[f64]) -> Sketch {
        let mut sketch = Sketch::default();
        values.iter().for_each(|&value| sketch.record(value));
        sketch
    }

    #[test]
    fn the_constants_are_those_of_one_percent() {
        let gamma: f64 = (1.0 + RELATIVE_ERROR) / (1.0 - RELATIVE_ERROR);
        assert!((gamma.ln() - LN_GAMMA).abs() < 1e-15);
        assert!(bucket_value(BUCKETS - 1) / 3.6e9 > 2.2);
    }

    #[test]
    fn what_is_no_latency_is_not_counted() {
        let sketch = sketch_of(&[f64::NAN, -1.0, 0.0, 0.3, f64::INFINITY]);
        assert_eq!(sketch.buckets().collect::<Vec<_>>(), [(0, 2), (BUCKETS - 1, 1)]);
    }

    #[test]
    fn a_wrong_wire_form_is_refused() {
        for (text, error) in [
            ("[[1142,1]]", "beyond the last"),
            ("[[3,1],[3,1]]", "repeated or out of order"),
            ("[[4,1],[3,1]]", "repeated or out of order"),
            ("[[3,0]]", "counts nothing"),
        ] {
            let refused = serde_json::from_str::<Sketch>(text).unwrap_err().to_string();
            assert!(refused.contains(error), "{text}: {refused}");
        }
    }

    fn latencies() -> impl Strategy<Value = Vec<f64>> {
        prop::collection::vec((0.0_f64..22.0).prop_map(f64::exp), 0..60)
    }

    proptest! {
        #[test]
        fn merging_is_associative_commutative_and_loses_nothing(a in latencies(), b in latencies(), c in latencies()) {
            let (x, y, z) = (sketch_of(&a), sketch_of(&b), sketch_of(&c));
            let mut left = x.clone();
            left.merge(&y);
            left.merge(&z);
            let mut right = z.clone();
            right.merge(&y);
            right.merge(&x);
            prop_assert_eq!(&left, &right);
            let all: Vec<f64> = a.iter().chain(&b).chain(&c).copied().collect();
            prop_assert_eq!(&left, &sketch_of(&all));
            let back: Sketch = serde_json::from_str(&serde_json::to_string(&left).unwrap()).unwrap();
            prop_assert_eq!(left, back);
        }

        #[test]
        fn what_was_merged_can_be_taken_out(a in latencies(), b in latencies()) {
            let (x, y) = (sketch_of(&a), sketch_of(&b));
            let mut both = x.clone();
            both.merge(&y);
            both.subtract(&y);
            prop_assert_eq!(both, x);
        }

        #[test]
        fn quantiles_are_within_one_percent(mut values in latencies(), q in 0.0_f64..=1.0) {
            let sketch = sketch_of(&values);
            values.sort_by(f64::total_cmp);
            let Some(got) = sketch.quantile(q) else {
                prop_assert!(values.is_empty());
                return Ok(());
            };
            let exact = values[(q * (values.len() - 1) as f64) as usize];
            prop_assert!((got / exact - 1.0).abs() < RELATIVE_ERROR + 1e-9, "{} against {}", got, exact);
        }

        #[test]
        fn counts_above_a_bucket_are_exact(values in latencies(), index in 0_u16..BUCKETS) {
            let above = values.iter().filter(|&&value| bucket(value).is_some_and(|held| held > index)).count();
            prop_assert_eq!(sketch_of(&values).above(index), above as u64);
        }
    }
}
