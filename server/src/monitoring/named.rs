//! What instances count, by name, on `/metrics`: for operators who let its readers know their projects and flags.

use std::sync::Arc;

use guidon_sdk::measure::VALUE_STEPS;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use crate::metrics::{LATENCY_BOUNDS, MetricsHub, Total};

/// The most series that one scrape shows, each with its flag, variation and metric; of more, those that sort last are left out
/// and counted. Some 3 kB of text each, and 400 bytes of memory while it is scraped.
pub const MAX_SHOWN: usize = 10_000;

/// Names each series on `/metrics`.
pub struct NamedSeries {
    hub: Arc<MetricsHub>,
}

impl NamedSeries {
    /// Shows what `hub` has counted.
    #[must_use]
    pub fn new(hub: Arc<MetricsHub>) -> Self {
        Self { hub }
    }

    /// All series by name, and how many were left out.
    fn read(&self) -> (Vec<(Labels, Total)>, usize) {
        let mut series = Vec::new();
        let mut left_out = 0;
        self.hub.totals(|origin, name, total| {
            let labels = [&*origin.project, &*origin.environment, name.flag, name.variation, name.metric];
            series.push((Labels(labels.map(str::to_owned)), total.clone()));
            // Kept short as it grows, at little cost for each series.
            if series.len() >= 2 * MAX_SHOWN {
                left_out += keep_first(&mut series);
            }
        });
        left_out += keep_first(&mut series);
        (series, left_out)
    }
}

/// Sorts, and keeps the first [`MAX_SHOWN`]; how many that left out.
fn keep_first(series: &mut Vec<(Labels, Total)>) -> usize {
    series.sort_by(|one, other| one.0.cmp(&other.0));
    let left_out = series.len().saturating_sub(MAX_SHOWN);
    series.truncate(MAX_SHOWN);
    left_out
}

/// Project, environment, flag, variation and metric.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Labels([String; 5]);

const LABELS: [&str; 5] = ["project", "environment", "flag", "variation", "metric"];

impl Labels {
    fn pairs(&self) -> [(&'static str, &str); 5] {
        let [project, environment, flag, variation, metric] = &self.0;
        let [a, b, c, d, e] = LABELS;
        [(a, project.as_str()), (b, environment), (c, flag), (d, variation), (e, metric)]
    }
}

impl std::fmt::Debug for NamedSeries {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("NamedSeries")
    }
}

impl Collector for NamedSeries {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let (series, left_out) = self.read();
        let calls = |total: &Total| total.count > 0;
        let values = |total: &Total| total.values.count > 0;
        let mut family = |name, help, kind, shown: &dyn Fn(&Total) -> bool, write: &Write| {
            let mut family = encoder.encode_descriptor(name, help, None, kind)?;
            series.iter().filter(|(_, total)| shown(total)).try_for_each(|(labels, total)| {
                let pairs = labels.pairs();
                write(&mut family.encode_family(&pairs.as_slice())?, total)
            })
        };
        let help = "Calls of a flag's paths, by the assigned variation";
        family("flag_calls", help, MetricType::Counter, &calls, &|to, total| count(to, total.count))?;
        let help = "Calls that failed; a fallback is a failure of the assigned variation";
        family("flag_errors", help, MetricType::Counter, &calls, &|to, total| count(to, total.errors))?;
        let help = "How long calls took, within 1 percent";
        family("flag_latency_seconds", help, MetricType::Histogram, &calls, &|to, total| {
            let (buckets, all) = latency(total);
            to.encode_histogram::<NoLabelSet>(total.latency_micros / 1e6, all, &buckets, None)
        })?;
        let help = "Values of a tracked metric that were counted";
        family("flag_values", help, MetricType::Counter, &values, &|to, total| count(to, total.values.count))?;
        let help = "Sum of the values of a tracked metric; a gauge, because values may be negative";
        family("flag_values_sum", help, MetricType::Gauge, &values, &|to, total| {
            to.encode_gauge(&(total.values.sum as f64 / VALUE_STEPS))
        })?;
        let help = "Series that are not shown because there are more than 10,000";
        let left_out = i64::try_from(left_out).unwrap_or(i64::MAX);
        encoder.encode_descriptor("flag_series_left_out", help, None, MetricType::Gauge)?.encode_gauge(&left_out)
    }
}

/// Writes the value of one series.
type Write = dyn Fn(&mut MetricEncoder<'_>, &Total) -> std::fmt::Result;

fn count(to: &mut MetricEncoder<'_>, value: u64) -> std::fmt::Result {
    to.encode_counter::<NoLabelSet, _, u64>(&value, None)
}

/// Latencies as buckets in seconds, not cumulative, and how many there are.
fn latency(total: &Total) -> (Vec<(f64, u64)>, u64) {
    let bounds = LATENCY_BOUNDS.iter().map(|bound| *bound as f64 / 1e6).chain([f64::INFINITY]);
    let buckets: Vec<(f64, u64)> = bounds.zip(total.latency).collect();
    let all = buckets.iter().map(|(_, count)| count).sum();
    (buckets, all)
}

#[cfg(test)]
mod tests {
    use guidon_sdk::measure::{MetricRow, MetricsBatch};

    use super::*;
    use crate::assignments::Origin;
    use crate::metrics::{IntakeLimits, MetricsSink, Sender};
    use crate::telemetry::Metrics;

    const NOW: u64 = 1_800_000_000;

    fn hub(rows: Vec<MetricRow>) -> Arc<MetricsHub> {
        let hub = Arc::new(MetricsHub::new(IntakeLimits::default()));
        let origin = Origin { project: "shop".into(), environment: "production".into() };
        let batch = MetricsBatch { batch: 1, at: NOW * 1_000, rows, ..MetricsBatch::default() };
        hub.receive(&mut Sender::new(origin, "one", 1), batch, NOW * 1_000);
        hub
    }

    fn row(flag: &str, metric: &str) -> MetricRow {
        let (flag, metric) = (flag.to_owned(), metric.to_owned());
        MetricRow { second: NOW - 1, flag, variation: "ai".to_owned(), metric, ..MetricRow::default() }
    }

    fn scrape(hub: Arc<MetricsHub>) -> String {
        let metrics = Metrics::new();
        metrics.register(|registry| registry.register_collector(Box::new(NamedSeries::new(hub))));
        metrics.encode()
    }

    #[test]
    fn calls_and_values_are_shown_by_name() {
        let mut calls = MetricRow { count: 3, errors: 1, units: 3, ..row("summary", "path") };
        [100.0, 400.0, 2e6].into_iter().for_each(|micros| calls.latency.record(micros));
        let mut tokens = row("summary", "tokens");
        [10.0, -2.5].into_iter().for_each(|value| tokens.values.record(value));
        let text = scrape(hub(vec![calls, tokens]));
        let labels = |metric: &str| {
            format!(r#"project="shop",environment="production",flag="summary",variation="ai",metric="{metric}""#)
        };
        let (path, tokens) = (labels("path"), labels("tokens"));
        for line in [
            format!("guidon_flag_calls_total{{{path}}} 3\n"),
            format!("guidon_flag_errors_total{{{path}}} 1\n"),
            format!("guidon_flag_latency_seconds_count{{{path}}} 3\n"),
            format!("guidon_flag_latency_seconds_bucket{{le=\"0.00025\",{path}}} 1\n"),
            format!("guidon_flag_latency_seconds_bucket{{le=\"0.0005\",{path}}} 2\n"),
            format!("guidon_flag_latency_seconds_bucket{{le=\"+Inf\",{path}}} 3\n"),
            format!("guidon_flag_values_total{{{tokens}}} 2\n"),
            format!("guidon_flag_values_sum{{{tokens}}} 7.5\n"),
            "guidon_flag_series_left_out 0\n".to_owned(),
        ] {
            assert!(text.contains(&line), "{line}{text}");
        }
        assert!(!text.contains(&format!("flag_calls_total{{{tokens}")), "{text}");
    }

    #[test]
    fn names_cannot_break_the_format_and_their_number_is_bounded() {
        let text = scrape(hub(vec![MetricRow { count: 1, units: 1, ..row("a\"b", "path") }]));
        assert!(!text.contains(r#"flag="a"b""#), "{text}");
        let many = |count: usize| {
            (0..count)
                .map(|at| (Labels([at.to_string(), "".into(), "".into(), "".into(), "".into()]), Total::default()))
        };
        let mut series: Vec<_> = many(MAX_SHOWN + 7).collect();
        assert_eq!((keep_first(&mut series), series.len(), keep_first(&mut series)), (7, MAX_SHOWN, 0));
    }
}
