//! What the server says about itself: the log, and the registry of its metrics.

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use tracing_subscriber::EnvFilter;

use crate::config::{Log, LogFormat};

/// The log cannot be set up as asked.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter cannot be read.
    #[error("--log {filter:?} is not a log filter ({reason}); try `info` or `info,guidon_server::push=debug`")]
    Filter {
        /// What was given.
        filter: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Something else set up a log before.
    #[error("a log is already set up in this process")]
    AlreadySet,
}

/// Sends the log to standard error, in the form asked for.
///
/// # Errors
///
/// [`LogError`].
pub fn start_log(config: &Log) -> Result<(), LogError> {
    let filter = filter(config)?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(|| Forgiving(io::stderr()));
    match config.log_format {
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).with_target(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(true).try_init(),
    }
    .map_err(|_| LogError::AlreadySet)
}

/// Takes whatever is written. A log whose reader has gone is no reason for the server to fail: where a write fails, what logs
/// would otherwise say so on the same closed pipe, and panic.
struct Forgiving<W>(W);

impl<W: Write> Write for Forgiving<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // The whole line or nothing more of it.
        let _ = self.0.write_all(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let _ = self.0.flush();
        Ok(())
    }
}

/// The filter that says what is logged.
fn filter(config: &Log) -> Result<EnvFilter, LogError> {
    EnvFilter::try_new(&config.log)
        .map_err(|error| LogError::Filter { filter: config.log.clone(), reason: error.to_string() })
}

/// Checks what [`start_log`] would be given.
///
/// # Errors
///
/// [`LogError::Filter`].
pub fn check_log(config: &Log) -> Result<(), LogError> {
    filter(config).map(drop)
}

/// Where every part of the server registers its metrics; `/metrics` answers them all. Clones share it.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    /// Requests answered, and how long they took.
    pub http: HttpMetrics,
    /// Connections.
    pub connections: ConnectionMetrics,
}

/// Metrics of requests.
#[derive(Clone, Debug)]
pub struct HttpMetrics {
    requests: Family<RequestLabels, Counter>,
    seconds: Family<RouteLabels, Histogram, fn() -> Histogram>,
    /// Requests being worked on.
    pub in_progress: Gauge,
}

/// Metrics of connections.
#[derive(Clone, Debug, Default)]
pub struct ConnectionMetrics {
    /// Open connections, upgraded ones included.
    pub open: Gauge,
    /// Connections closed because the limit was reached.
    pub refused: Counter,
    /// TLS handshakes that failed or were late.
    pub failed_handshakes: Counter,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RouteLabels {
    method: String,
    route: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RequestLabels {
    method: String,
    route: String,
    status: u16,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// A registry with the metrics of requests and connections in it.
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("guidon");
        let http = HttpMetrics {
            requests: Family::default(),
            // 0.5 ms to 8 s.
            seconds: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.000_5, 2.0, 15))),
            in_progress: Gauge::default(),
        };
        registry.register("http_requests", "Requests answered", http.requests.clone());
        registry.register("http_request_seconds", "Time until the head of the answer", http.seconds.clone());
        registry.register("http_requests_in_progress", "Requests being worked on", http.in_progress.clone());
        let connections = ConnectionMetrics::default();
        registry.register("connections_open", "Open connections, streams included", connections.open.clone());
        registry.register("connections_refused", "Connections closed at the limit", connections.refused.clone());
        registry.register(
            "tls_handshakes_failed",
            "TLS handshakes that failed or were late",
            connections.failed_handshakes.clone(),
        );
        Self { registry: Arc::new(Mutex::new(registry)), http, connections }
    }

    /// Lets a part of the server register its own.
    pub fn register(&self, register: impl FnOnce(&mut Registry)) {
        register(&mut self.registry.lock());
    }

    /// Registers a gauge whose value is read when it is scraped.
    pub fn reading(&self, name: &'static str, help: &'static str, read: impl Fn() -> i64 + Send + Sync + 'static) {
        self.registry.lock().register_collector(Box::new(Reading { name, help, read: Box::new(read) }));
    }

    /// All metrics in the OpenMetrics text format.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // Writing into a string does not fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry.lock());
        text
    }
}

/// A gauge that is read when it is scraped.
struct Reading {
    name: &'static str,
    help: &'static str,
    read: Box<dyn Fn() -> i64 + Send + Sync>,
}

impl std::fmt::Debug for Reading {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Reading({})", self.name)
    }
}

impl Collector for Reading {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let gauge = ConstGauge::new((self.read)());
        let metric = encoder.encode_descriptor(self.name, self.help, None, gauge.metric_type())?;
        gauge.encode(metric)
    }
}

impl HttpMetrics {
    /// Records one answered request; `route` is the route's pattern, so that the number of series is bounded.
    pub fn record(&self, method: &http::Method, route: &str, status: http::StatusCode, took: Duration) {
        let method = match method.as_str() {
            known @ ("GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE" | "OPTIONS") => known,
            _ => "other",
        };
        let labels = RouteLabels { method: method.to_owned(), route: route.to_owned() };
        self.seconds.get_or_create(&labels).observe(took.as_secs_f64());
        let RouteLabels { method, route } = labels;
        self.requests.get_or_create(&RequestLabels { method, route, status: status.as_u16() }).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_recorded_can_be_scraped() {
        let metrics = Metrics::new();
        metrics.http.record(&http::Method::GET, "/healthz", http::StatusCode::OK, Duration::from_millis(3));
        let gauge = Gauge::<i64>::default();
        metrics.register(|registry| registry.register("revision", "Revision", gauge.clone()));
        gauge.set(42);
        metrics.reading("answers", "Read when scraped", || 43);
        let text = metrics.encode();
        assert!(text.contains("guidon_answers 43"), "{text}");
        assert!(text.contains(r#"guidon_http_requests_total{method="GET",route="/healthz",status="200"} 1"#), "{text}");
        assert!(text.contains("guidon_revision 42"), "{text}");
    }

    #[test]
    fn a_log_that_nobody_reads_takes_everything() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
        }
        assert_eq!(Forgiving(Closed).write(b"line").ok(), Some(4));
        assert!(Forgiving(Closed).flush().is_ok());
    }

    #[test]
    fn invented_methods_do_not_make_new_series() {
        let metrics = Metrics::new();
        let invented = http::Method::from_bytes(b"BREW").unwrap();
        metrics.http.record(&invented, "none", http::StatusCode::METHOD_NOT_ALLOWED, Duration::ZERO);
        assert!(metrics.encode().contains(r#"method="other""#));
    }
}
