//! Other monitoring beside Guidon: what it answers to releases.

mod prometheus;

pub use prometheus::{BadEndpoint, Prometheus, QueryError};
