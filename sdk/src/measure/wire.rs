//! The batch of rows that an instance sends once a second, in [`crate::protocol::ClientMessage::Metrics`].

use serde::{Deserialize, Serialize};

use super::{Moments, Sketch};
use crate::eval::bucket::bucket;

/// The metric that [`crate::client::Client::path`] feeds: calls, failures and latencies of a flag's paths.
pub const PATH_METRIC: &str = "path";
/// The metric that shadow runs feed: both paths on the same calls, the AI path's answer thrown away.
pub const SHADOW_METRIC: &str = "shadow";
/// The metric, 1 or 0, of shadow runs whose answers were compared: 1 where both paths agree.
pub const MATCH_METRIC: &str = "shadow-match";
/// The metric of CPU time that a call's path took, in microseconds, while a release of its flag measures it.
pub const CPU_METRIC: &str = "cpu";

/// The most hashes of each kind that a row carries (13 kB in all). An instance that has more sends the first and treats the
/// others as not met yet.
pub const MAX_FIRSTS: usize = 512;

/// Seconds in which a unit gives one latency to the per-unit test. With a minute instead, and each instance by itself, heavy
/// users that are slow by nature made 3 % of simulated healthy releases look slower.
pub const UNIT_PERIOD_SECONDS: u64 = 600;

/// What one instance counted since its last batch. Numbered from 1 without gaps within one (instance, epoch); sent again on a
/// new connection until [`crate::protocol::ServerMessage::MetricsMerged`] names it, or until it is too old to be of use.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MetricsBatch {
    /// Number of the batch.
    pub batch: u64,
    /// When it is sent, by the instance's clock, in milliseconds since 1970. The server learns the clock's offset from it.
    pub at: u64,
    /// What was lost since the batch before: rows that grew too old, calls and values that found no room as the instance counts
    /// more series than it may, and values that are no numbers or have a wrong name.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub dropped: u64,
    /// The rows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rows: Vec<MetricRow>,
    /// How the host does, if the application says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<HostReading>,
}

/// One second of one flag, variation and metric in one instance.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MetricRow {
    /// The second, by the instance's clock, since 1970.
    pub second: u64,
    /// Key of the flag; empty for a metric that belongs to no flag.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub flag: String,
    /// Key of the assigned variation; empty with `flag`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub variation: String,
    /// Name of the metric: [`PATH_METRIC`], or what the application tracks.
    pub metric: String,
    /// Number of the revision that the variation was assigned by.
    pub revision: u64,
    /// Calls.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub count: u64,
    /// Calls that failed; a fallback is a failure of the assigned path.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub errors: u64,
    /// Distinct units in this second.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub units: u64,
    /// Distinct units that failed in this second.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub failing_units: u64,
    /// Those of `units` that this instance had not seen fail before this second.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub units_at_risk: u64,
    /// Latency of every call, in microseconds.
    #[serde(default, skip_serializing_if = "Sketch::is_empty")]
    pub latency: Sketch,
    /// Values of a tracked metric.
    #[serde(default, skip_serializing_if = "is_none")]
    pub values: Moments,
    /// [`unit_hash`]es of units that this instance met for the first time since the flag's configuration changed; at most
    /// [`MAX_FIRSTS`], as of the two below.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub first_seen: Vec<u64>,
    /// Hashes of units that this instance saw fail for the first time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub first_failing: Vec<u64>,
    /// Hashes of units met for the first time in this period of [`UNIT_PERIOD_SECONDS`], each with the bucket of that call's latency.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub first_latency: Vec<(u64, u16)>,
}

/// How a host does; each is given by the application or left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostReading {
    /// CPU utilisation: share of what the process may use, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<f64>,
    /// Resident memory, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<f64>,
    /// Work that has arrived and has not begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_depth: Option<f64>,
}

/// Names a unit across instances without naming a person: the hash by which a rollout with the salt `unit of ` and the flag's key
/// would bucket it. It travels over the same connection as exposures, which carry the unit itself, is kept in memory only, and is
/// never stored.
#[must_use]
pub fn unit_hash(flag: &str, unit: &str) -> u64 {
    bucket(&format!("unit of {flag}"), unit).hash
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn is_none(moments: &Moments) -> bool {
    moments.count == 0
}
