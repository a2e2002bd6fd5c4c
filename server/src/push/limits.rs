//! Limits of the push side, each with its default.

use std::time::Duration;

/// What bounds the hub and its connections. Times are in milliseconds, sizes in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushLimits {
    /// Most connections; more are answered 503. Default 15,000: below the usual limit of 20,000 open files.
    pub max_connections: usize,
    /// The server sends a heartbeat at least this often, and expects the client's as often. Default 15,000.
    pub heartbeat_interval_ms: u64,
    /// A peer that was silent, or took no byte of a frame, for this many heartbeat intervals is dead. Default 3.
    pub dead_after_intervals: u32,
    /// How long a connection may take to say hello. Default 10,000.
    pub hello_timeout_ms: u64,
    /// Largest message a client may send. Default 1 MiB.
    pub max_message_bytes: usize,
    /// Longest text of a hello's fields, in bytes. Default 256.
    pub max_hello_field_bytes: usize,
    /// Most items of one exposure batch. Default 1,000.
    pub max_batch_items: u32,
    /// Most rows of one batch of metrics. Default 500.
    pub max_metric_rows: u32,
    /// Batches of metrics that a connection may send in a second, over time. Default 20.
    pub metric_batches_per_second: u32,
    /// Batches of metrics that it may send at once, as after a break. Default 600.
    pub metric_batch_burst: u32,
    /// Patches kept per environment and audience; who is further behind gets a snapshot. Default 256.
    pub patches_kept: usize,
    /// Bytes of patches kept per environment and audience. Default 1 MiB.
    pub patch_bytes_kept: usize,
    /// How long a server that is behind a client's revision tries to catch up before it sends the client away. Default
    /// 2,000.
    pub catch_up_ms: u64,
    /// Over how long the connections are closed when the server stops, so that they do not all come back at once. Default
    /// 1,000.
    pub shutdown_spread_ms: u64,
    /// How long after exposures could not be stored their connection is told to come back and send them again. Default
    /// 30,000.
    pub stalled_exposures_ms: u64,
    /// How long a close may take: sending the frame, and waiting for the peer's. Default 1,000.
    pub close_timeout_ms: u64,
}

impl Default for PushLimits {
    fn default() -> Self {
        Self {
            max_connections: 15_000,
            heartbeat_interval_ms: 15_000,
            dead_after_intervals: 3,
            hello_timeout_ms: 10_000,
            max_message_bytes: 1 << 20,
            max_hello_field_bytes: 256,
            max_batch_items: 1_000,
            max_metric_rows: 500,
            metric_batches_per_second: 20,
            metric_batch_burst: 600,
            patches_kept: 256,
            patch_bytes_kept: 1 << 20,
            catch_up_ms: 2_000,
            shutdown_spread_ms: 1_000,
            stalled_exposures_ms: 30_000,
            close_timeout_ms: 1_000,
        }
    }
}

impl PushLimits {
    pub(crate) fn heartbeat_interval(&self) -> Duration {
        Duration::from_millis(self.heartbeat_interval_ms.max(1))
    }

    pub(crate) fn dead_after(&self) -> Duration {
        self.heartbeat_interval().saturating_mul(self.dead_after_intervals.max(1))
    }

    pub(crate) fn close_timeout(&self) -> Duration {
        Duration::from_millis(self.close_timeout_ms)
    }
}
