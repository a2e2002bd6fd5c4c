//! Counting what the paths of flags do, a second at a time.
//!
//! A call adds to a shard of its thread, behind a lock that nobody else holds but for the moment in which the client's task
//! empties it, once a second. [`ledger`] makes the rows of what was taken out.
//!
//! Memory: at most [`MAX_ENTRIES`] entries wait to be taken, some 300 bytes each and at most 6 bytes more for each call, and
//! [`MAX_SHARD_UNITS`] units of 16 bytes a shard. What finds no room is counted as dropped, and the server is told.

pub(super) mod ledger;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashbrown::{Equivalent, HashMap};
use smol_str::SmolStr;
use tokio::time::Instant;

use super::clock::Timeline;
use crate::eval::Measures;
use crate::measure::{Moments, Sketch, sketch};

/// Threads share a shard once there are more of them than this.
const SHARDS: usize = 16;
/// Most entries, of all shards, that wait to be taken: 4,096 series that four threads meet in one second.
pub const MAX_ENTRIES: usize = 16_384;
/// Most distinct units a second, over the series of a shard, that are told apart; calls of further ones count without a unit.
pub const MAX_SHARD_UNITS: usize = 8_192;

/// Which row a call counts in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    second: u64,
    revision: u64,
    flag: SmolStr,
    metric: SmolStr,
    variation: SmolStr,
}

/// The same, borrowed.
#[derive(Clone, Copy, Debug, Hash)]
pub(super) struct Series<'a> {
    second: u64,
    pub(super) revision: u64,
    pub(super) flag: &'a str,
    pub(super) metric: &'a str,
    pub(super) variation: &'a str,
}

impl<'a> Series<'a> {
    pub(super) fn new(flag: &'a str, variation: &'a str, metric: &'a str, revision: u64) -> Self {
        Self { second: 0, revision, flag, metric, variation }
    }

    fn to_key(self) -> Key {
        Key {
            second: self.second,
            revision: self.revision,
            flag: self.flag.into(),
            metric: self.metric.into(),
            variation: self.variation.into(),
        }
    }
}

impl Equivalent<Key> for Series<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        self.second == key.second
            && self.revision == key.revision
            && self.flag == key.flag
            && self.metric == key.metric
            && self.variation == key.variation
    }
}

/// What a unit did in one second.
#[derive(Clone, Copy, Debug)]
struct Met {
    /// Bucket of its first call's latency.
    bucket: u16,
    failed: bool,
}

/// Unit hashes are spread already.
#[derive(Default)]
struct AsIs(u64);

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.0 = self.0.rotate_left(8) ^ u64::from(byte));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

/// What was counted of one row.
#[derive(Debug, Default)]
pub(super) struct Counts {
    count: u64,
    errors: u64,
    latency: Sketch,
    values: Moments,
    units: HashMap<u64, Met, BuildHasherDefault<AsIs>>,
    /// What a release asks of the flag; without one no units are counted.
    release: Option<Arc<Measures>>,
}

impl Counts {
    fn merge(&mut self, other: Self) {
        self.count += other.count;
        self.errors += other.errors;
        self.latency.merge(&other.latency);
        self.values.merge(&other.values);
        for (unit, met) in other.units {
            self.units.entry(unit).and_modify(|known| known.failed |= met.failed).or_insert(met);
        }
        self.release = self.release.take().or(other.release);
    }
}

/// One call of a path.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ran {
    pub(super) micros: f64,
    pub(super) failed: bool,
    /// Hash of its unit, for a flag under release.
    pub(super) unit: Option<u64>,
}

#[derive(Default)]
struct Held {
    rows: HashMap<Key, Counts, foldhash::fast::RandomState>,
    units: usize,
}

/// Beside nothing else in the memory that processors pass to and fro.
#[derive(Default)]
#[repr(align(128))]
struct Shard(Mutex<Held>);

impl Shard {
    fn lock(&self) -> MutexGuard<'_, Held> {
        // Nothing that runs under the lock panics.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What calls and values are counted in.
pub(crate) struct Windows {
    pub(super) timeline: Timeline,
    shards: Box<[Shard]>,
    entries: AtomicUsize,
    dropped: AtomicU64,
}

impl Windows {
    pub(super) fn new() -> Self {
        Self {
            timeline: Timeline::new(),
            shards: std::iter::repeat_with(Shard::default).take(SHARDS).collect(),
            entries: AtomicUsize::new(0),
            dropped: AtomicU64::new(0),
        }
    }

    /// Counts a call that ended at `now`.
    pub(super) fn ran(&self, now: Instant, series: Series<'_>, release: Option<&Arc<Measures>>, ran: Ran) {
        let bucket = sketch::bucket(ran.micros).unwrap_or_default();
        self.count(now, series, release, |counts, free| {
            counts.count += 1;
            counts.errors += u64::from(ran.failed);
            counts.latency.add(bucket, 1);
            let Some(unit) = ran.unit else { return 0 };
            if let Some(known) = counts.units.get_mut(&unit) {
                known.failed |= ran.failed;
                return 0;
            }
            if free == 0 {
                return 0;
            }
            counts.units.insert(unit, Met { bucket, failed: ran.failed });
            1
        });
    }

    /// Counts a value of a metric.
    pub(super) fn value(&self, now: Instant, series: Series<'_>, value: f64) {
        self.count(now, series, None, |counts, _| {
            counts.values.record(value);
            0
        });
    }

    /// Something was not counted.
    pub(super) fn drop_one(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// `add` is told how many more units the shard takes, and says how many it put in.
    fn count(
        &self,
        now: Instant,
        series: Series<'_>,
        release: Option<&Arc<Measures>>,
        add: impl FnOnce(&mut Counts, usize) -> usize,
    ) {
        let series = Series { second: self.timeline.second(now), ..series };
        let Some(shard) = self.shards.get(own_shard()) else { return };
        let mut held = shard.lock();
        let Held { rows, units } = &mut *held;
        let free = MAX_SHARD_UNITS.saturating_sub(*units);
        if let Some(counts) = rows.get_mut(&series) {
            *units += add(counts, free);
        } else if self.entries.fetch_add(1, Ordering::Relaxed) < MAX_ENTRIES {
            let counts = rows.entry(series.to_key()).or_default();
            counts.release = release.cloned();
            *units += add(counts, free);
        } else {
            self.entries.fetch_sub(1, Ordering::Relaxed);
            self.drop_one();
        }
    }

    /// Takes out what was counted, and how much was not.
    pub(super) fn take(&self) -> (Vec<(Key, Counts)>, u64) {
        let mut taken = Vec::new();
        for shard in &self.shards {
            let mut held = shard.lock();
            taken.extend(held.rows.drain());
            held.units = 0;
        }
        self.entries.fetch_sub(taken.len(), Ordering::Relaxed);
        (taken, self.dropped.swap(0, Ordering::Relaxed))
    }
}

/// The shard of the calling thread.
fn own_shard() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static OWN: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    OWN.with(|own| {
        if own.get() == usize::MAX {
            own.set(NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS);
        }
        own.get()
    })
}
