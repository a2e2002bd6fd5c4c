//! What instances count and send, in forms that merge exactly: latencies, values, and who was met for the first time.
//!
//! - [`sketch`]: latencies as a histogram of logarithmic buckets, 1 % relative error;
//! - [`moments`]: number, sum and sum of squares of a metric's values;
//! - [`firsts`]: which units were met before, in bounded memory;
//! - [`wire`]: the batch of rows that an instance sends once a second.

pub mod firsts;
pub mod moments;
pub mod sketch;
pub mod wire;

pub use firsts::{Firsts, WhenFull};
pub use moments::{MAX_VALUE, Moments, VALUE_STEPS};
pub use sketch::Sketch;
pub use wire::{
    CPU_METRIC, HostReading, MATCH_METRIC, MAX_FIRSTS, MetricRow, MetricsBatch, PATH_METRIC, SHADOW_METRIC,
    UNIT_PERIOD_SECONDS, unit_hash,
};
