//! Everything an environment's instances counted since the server started, per flag, variation and metric: for exports.

use std::collections::HashMap;

use guidon_sdk::measure::sketch::bucket_value;
use guidon_sdk::measure::{MetricRow, Moments};

/// The most series of one environment. Past it, a new one takes the place of one that was silent for [`IDLE_SECONDS`], or is
/// left out and counted.
pub const MAX_SERIES: usize = 2_000;

/// How long a series must be silent before another may take its place.
pub const IDLE_SECONDS: u64 = 3_600;

/// Upper bounds of the latency histogram, in microseconds: from a quarter of a millisecond, each twice the one before, to 33
/// seconds. What is above counts in the last bucket, which has no bound.
pub const LATENCY_BOUNDS: [u64; 18] = bounds();

const fn bounds() -> [u64; 18] {
    let mut bounds = [250; 18];
    let mut at = 1;
    while at < bounds.len() {
        bounds[at] = bounds[at - 1] * 2;
        at += 1;
    }
    bounds
}

/// What one series counted. 264 bytes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Total {
    /// Calls.
    pub count: u64,
    /// Calls that failed.
    pub errors: u64,
    /// Latencies up to each of [`LATENCY_BOUNDS`], and above the last; not cumulative.
    pub latency: [u64; LATENCY_BOUNDS.len() + 1],
    /// Sum of the latencies in microseconds, within 1 %.
    pub latency_micros: f64,
    /// Values of a tracked metric.
    pub values: Moments,
}

/// The name of a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SeriesName<'a> {
    /// Key of the flag; empty for what belongs to no flag.
    pub flag: &'a str,
    /// Key of the assigned variation; empty with `flag`.
    pub variation: &'a str,
    /// Name of the metric.
    pub metric: &'a str,
}

/// The totals of one environment. Memory: some 450 bytes a series, so 900 kB with [`MAX_SERIES`].
#[derive(Debug, Default)]
pub struct Totals {
    /// By flag, variation and metric, with a byte between them that none of them has.
    series: HashMap<String, (u64, Total)>,
    /// The name looked up, kept so that looking takes no memory.
    name: String,
    left_out: u64,
    swept: u64,
}

const BETWEEN: char = '\0';

impl Totals {
    /// Adds a row at the server's second `now`.
    pub fn add(&mut self, row: &MetricRow, now: u64) {
        self.name.clear();
        for (at, part) in [&row.flag, &row.variation, &row.metric].into_iter().enumerate() {
            if at > 0 {
                self.name.push(BETWEEN);
            }
            self.name.push_str(part);
        }
        if let Some((heard, total)) = self.series.get_mut(&self.name) {
            *heard = now;
            total.add(row);
        } else if self.has_room(now) {
            let mut total = Total::default();
            total.add(row);
            self.series.insert(self.name.clone(), (now, total));
        } else {
            self.left_out += 1;
        }
    }

    /// Makes room if it can; looks through all series at most once a second.
    fn has_room(&mut self, now: u64) -> bool {
        if self.series.len() >= MAX_SERIES && self.swept != now {
            self.swept = now;
            self.series.retain(|_, (heard, _)| heard.saturating_add(IDLE_SECONDS) > now);
        }
        self.series.len() < MAX_SERIES
    }

    /// All series, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (SeriesName<'_>, &Total)> {
        self.series.iter().map(|(name, (_, total))| {
            let mut parts = name.split(BETWEEN);
            let mut part = || parts.next().unwrap_or_default();
            (SeriesName { flag: part(), variation: part(), metric: part() }, total)
        })
    }

    /// Rows that were left out for lack of room.
    #[must_use]
    pub fn left_out(&self) -> u64 {
        self.left_out
    }
}

impl Total {
    fn add(&mut self, row: &MetricRow) {
        self.count = self.count.saturating_add(row.count);
        self.errors = self.errors.saturating_add(row.errors);
        self.values.merge(&row.values);
        for (index, count) in row.latency.buckets() {
            let micros = bucket_value(index);
            let at = LATENCY_BOUNDS.partition_point(|&bound| bound as f64 <= micros);
            if let Some(held) = self.latency.get_mut(at) {
                *held = held.saturating_add(u64::from(count));
            }
            self.latency_micros += micros * f64::from(count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(flag: &str, micros: &[f64]) -> MetricRow {
        let mut row = MetricRow { flag: flag.to_owned(), variation: "ai".to_owned(), ..MetricRow::default() };
        (row.metric, row.count, row.errors) = ("path".to_owned(), micros.len() as u64, 1);
        micros.iter().for_each(|&value| row.latency.record(value));
        row
    }

    #[test]
    fn rows_add_up_per_series() {
        let mut totals = Totals::default();
        totals.add(&row("a", &[100.0, 300.0, 1e9]), 5);
        totals.add(&row("a", &[400.0]), 6);
        totals.add(&row("b", &[1.0]), 6);
        let mut all: Vec<_> = totals.iter().collect();
        all.sort_by_key(|(name, _)| *name);
        assert_eq!(all[0].0, SeriesName { flag: "a", variation: "ai", metric: "path" });
        let total = all[0].1;
        assert_eq!((all.len(), total.count, total.errors), (2, 4, 2));
        assert_eq!((total.latency[0], total.latency[1], total.latency[18]), (1, 2, 1));
        assert!((total.latency_micros / 1e9 - 1.0).abs() < 0.011, "{}", total.latency_micros);
        assert_eq!((LATENCY_BOUNDS[0], LATENCY_BOUNDS[17]), (250, 32_768_000));
    }

    #[test]
    fn the_number_of_series_is_bounded_and_silent_ones_make_room() {
        let mut totals = Totals::default();
        for number in 0..MAX_SERIES + 10 {
            totals.add(&row(&format!("f{number}"), &[]), 100);
        }
        assert_eq!((totals.iter().count(), totals.left_out()), (MAX_SERIES, 10));
        totals.add(&row("f0", &[]), 101 + IDLE_SECONDS);
        totals.add(&row("late", &[]), 101 + IDLE_SECONDS);
        assert_eq!((totals.iter().count(), totals.left_out()), (2, 10));
        assert!(size_of::<Total>() <= 264, "{}", size_of::<Total>());
    }
}
