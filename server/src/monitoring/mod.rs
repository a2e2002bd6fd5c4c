//! Other monitoring beside Guidon: what it answers to releases, and what it is shown.

mod named;
mod prometheus;

pub use named::{MAX_SHOWN, NamedSeries};
pub use prometheus::{BadEndpoint, Prometheus, QueryError};
