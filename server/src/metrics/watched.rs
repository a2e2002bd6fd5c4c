//! What is kept of a flag while a release watches it: both arms of each metric, and each instance beside its peers.

use std::collections::BTreeSet;

use guidon_sdk::measure::{HostReading, MetricRow, PATH_METRIC};

use super::instances::{InstanceTally, Instances};
use super::series::{Filing, Series, SeriesLimits};
use super::units::UnitMemory;
use super::window::{Arm, InstanceId, Row, Tally};

/// What a release wants to be measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchSpec {
    /// Id of the release.
    pub release: String,
    /// Key of the variation under release.
    pub treatment: String,
    /// Key of the variation beside it.
    pub control: String,
    /// Names of the metrics, each once.
    pub metrics: Vec<String>,
    /// Windows that are kept up to date: a metric and its seconds ([`super::Series::keep_rolling`]).
    pub windows: Vec<(String, u64)>,
    /// Rows of earlier revisions of the environment do not count.
    pub min_revision: u64,
    /// Seconds kept, 1 to 3,600; no window can be longer.
    pub seconds: u64,
}

/// One metric of a watched flag.
#[derive(Debug)]
struct Measured {
    metric: String,
    series: Series,
    /// Made when the first row brings hashes of units: values bring none.
    units: Option<Box<UnitMemory>>,
}

/// A flag that a release watches.
///
/// Memory: for each metric a [`Series`] (some 100 kB with 60 seconds, 1.7 MB at most) and, if units are counted, 64 kB; and
/// its [`Instances`].
#[derive(Debug)]
pub struct Watched {
    spec: WatchSpec,
    measured: Vec<Measured>,
    instances: Instances,
    excluded: BTreeSet<String>,
}

impl Watched {
    /// A watch that begins at the server's second `now`.
    #[must_use]
    pub fn new(spec: WatchSpec, now: u64) -> Self {
        let mut watched =
            Self { spec, measured: Vec::new(), instances: Instances::default(), excluded: BTreeSet::new() };
        for metric in BTreeSet::from_iter(watched.spec.metrics.clone()) {
            let series = watched.series(&metric, now);
            watched.measured.push(Measured { metric, series, units: None });
        }
        watched
    }

    /// An empty series with the windows of `metric`.
    fn series(&self, metric: &str, now: u64) -> Series {
        let mut series = Series::new(SeriesLimits { seconds: self.spec.seconds, lateness: 0 }, now);
        for (_, seconds) in self.spec.windows.iter().filter(|(of, _)| of == metric) {
            series.keep_rolling(*seconds);
        }
        series
    }

    /// The release that watches.
    #[must_use]
    pub fn release(&self) -> &str {
        &self.spec.release
    }

    /// A new step begins at second `now`: rows of revisions before `min_revision` count no more, nor do seconds that were not
    /// read yet. Every unit is new again to the sample ratio; who failed stays known.
    pub fn begin_step(&mut self, min_revision: u64, now: u64) {
        self.spec.min_revision = min_revision;
        let fresh: Vec<Series> = self.measured.iter().map(|measured| self.series(&measured.metric, now)).collect();
        for (measured, series) in self.measured.iter_mut().zip(fresh) {
            measured.series = series;
            if let Some(units) = &mut measured.units {
                units.begin_step();
            }
        }
        self.instances.clear();
    }

    /// Leaves the rows of these instances, and of no others, out of the arms: they are routed away.
    pub fn exclude(&mut self, instances: BTreeSet<String>) {
        self.excluded = instances;
    }

    /// Notes that an instance is there.
    pub fn hear(&mut self, id: InstanceId, name: &str, epoch: u64, host: Option<&HostReading>, now: u64) {
        self.instances.hear(id, name, epoch, host, now);
    }

    /// Files a row of this flag that counted in the server's second `second`, at second `now`. None if it is not of the watch.
    pub fn file(&mut self, id: InstanceId, name: &str, row: MetricRow, second: u64, now: u64) -> Option<Filing> {
        let arm = match row.variation.as_str() {
            variation if variation == self.spec.treatment => Arm::Treatment,
            variation if variation == self.spec.control => Arm::Control,
            _ => return None,
        };
        if row.revision < self.spec.min_revision {
            return None;
        }
        if row.metric == PATH_METRIC {
            self.instances.add(id, arm, &row, second);
        }
        if self.excluded.contains(name) {
            return None;
        }
        let measured = self.measured.iter_mut().find(|measured| measured.metric == row.metric)?;
        let mut filed = Row {
            second,
            arm,
            instance: id,
            tally: Tally {
                count: row.count,
                errors: row.errors,
                units: row.units,
                failing_units: row.failing_units,
                units_at_risk: row.units_at_risk,
                latency: row.latency,
                values: row.values,
                ..Tally::default()
            },
            first_seen: row.first_seen,
            first_failing: row.first_failing,
            first_latency: row.first_latency,
        };
        if !(filed.first_seen.is_empty() && filed.first_failing.is_empty() && filed.first_latency.is_empty()) {
            filed.count_firsts(measured.units.get_or_insert_default());
        }
        Some(measured.series.add(&filed, now))
    }

    /// Reads every second that is over at `now`, oldest first, each once: `read` gets it with the series of all metrics, whose
    /// [`Series::last_read`] is that second.
    pub fn advance(&mut self, now: u64, mut read: impl FnMut(u64, &[(&str, &Series)])) {
        // All series began together and are read together, so they give the same seconds.
        loop {
            let mut second = None;
            for measured in &mut self.measured {
                second = measured.series.advance(now).max(second);
            }
            let Some(second) = second else { return };
            let series: Vec<(&str, &Series)> =
                self.measured.iter().map(|measured| (measured.metric.as_str(), &measured.series)).collect();
            read(second, &series);
        }
    }

    /// Each instance beside its peers, by name, in the minute before `now`.
    #[must_use]
    pub fn instances(&self, now: u64) -> Vec<InstanceTally> {
        self.instances.list(now)
    }

    /// Bytes its series and memories of units take.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let of =
            |measured: &Measured| measured.series.bytes() + measured.units.as_ref().map_or(0, |units| units.bytes());
        self.measured.iter().map(of).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> WatchSpec {
        WatchSpec {
            release: "r".to_owned(),
            treatment: "ai".to_owned(),
            control: "human".to_owned(),
            metrics: vec!["path".to_owned(), "tokens".to_owned()],
            windows: vec![("path".to_owned(), 30)],
            min_revision: 5,
            seconds: 60,
        }
    }

    fn row(variation: &str, metric: &str, count: u64) -> MetricRow {
        MetricRow {
            variation: variation.to_owned(),
            metric: metric.to_owned(),
            count,
            units: count,
            revision: 5,
            ..MetricRow::default()
        }
    }

    fn read(watched: &mut Watched, now: u64) -> Vec<(u64, u64, u64)> {
        let mut seconds = Vec::new();
        watched.advance(now, |second, series| {
            let pair = series.iter().find(|(metric, _)| *metric == "path").unwrap().1.last_read().unwrap();
            seconds.push((second, pair.treatment.count, pair.control.count));
        });
        seconds
    }

    #[test]
    fn rows_of_the_arms_and_the_step_are_filed_and_no_others() {
        let mut watched = Watched::new(spec(), 100);
        let one = InstanceId(1);
        let file = |watched: &mut Watched, row: MetricRow| watched.file(one, "one", row, 100, 100);
        assert_eq!(file(&mut watched, row("ai", "path", 1)), Some(Filing::OnTime));
        assert_eq!(file(&mut watched, row("human", "path", 9)), Some(Filing::OnTime));
        assert_eq!(file(&mut watched, row("third", "path", 9)), None);
        assert_eq!(file(&mut watched, row("ai", "other", 9)), None);
        assert_eq!(file(&mut watched, MetricRow { revision: 4, ..row("ai", "path", 9) }), None);
        assert_eq!(file(&mut watched, row("ai", "tokens", 3)), Some(Filing::OnTime));
        assert_eq!(read(&mut watched, 101), [(100, 1, 9)]);
        assert_eq!(read(&mut watched, 101), []);
    }

    #[test]
    fn a_step_begins_with_nothing_of_the_one_before() {
        let mut watched = Watched::new(spec(), 100);
        watched.file(InstanceId(1), "one", row("ai", "path", 1), 100, 100);
        watched.begin_step(6, 100);
        watched.file(InstanceId(1), "one", row("ai", "path", 5), 100, 100);
        let present = MetricRow { revision: 6, ..row("ai", "path", 2) };
        watched.file(InstanceId(1), "one", present, 100, 100);
        assert_eq!(read(&mut watched, 101), [(100, 2, 0)]);
    }

    #[test]
    fn an_excluded_instance_is_seen_beside_its_peers_and_not_in_the_arms() {
        let mut watched = Watched::new(spec(), 100);
        watched.hear(InstanceId(1), "one", 7, None, 100);
        watched.exclude(BTreeSet::from(["one".to_owned()]));
        assert_eq!(watched.file(InstanceId(1), "one", row("ai", "path", 1), 100, 100), None);
        assert_eq!(watched.instances(100)[0].treatment.count, 1);
        assert_eq!(read(&mut watched, 101), [(100, 0, 0)]);
        watched.exclude(BTreeSet::new());
        assert!(watched.file(InstanceId(1), "one", row("ai", "path", 1), 101, 101).is_some());
    }

    #[test]
    fn units_are_new_once_per_metric() {
        let mut watched = Watched::new(spec(), 100);
        let hashed = |metric| MetricRow { first_seen: vec![1 << 40], ..row("ai", metric, 1) };
        for (name, metric) in [("one", "path"), ("two", "path"), ("two", "tokens")] {
            watched.file(InstanceId(1), name, hashed(metric), 100, 100);
        }
        let mut new = Vec::new();
        watched.advance(101, |_, series| {
            new.extend(series.iter().map(|(_, series)| series.last_read().unwrap().treatment.new_units));
        });
        assert_eq!(new, [1, 1]);
        assert!(watched.bytes() > 2 * 64_000);
    }
}
