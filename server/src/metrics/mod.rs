//! What instances measure: rows of one second, merged without loss across instances and seconds.
//!
//! - [`check`]: what a row from outside must be;
//! - [`clock`]: how far an instance's clock is from the server's;
//! - [`window`]: a row (one second, one arm, one instance) and the tally it carries;
//! - [`units`]: which units were met before, in bounded memory;
//! - [`intake`]: which batches were seen already, and which are missing;
//! - [`series`]: the last seconds of one flag and metric, both arms, bounded;
//! - [`watched`]: all that is kept of a flag while a release watches it, [`instances`] among it;
//! - [`totals`]: what was counted since the start, for exports;
//! - [`environment`]: all of one environment;
//! - [`service`]: the environments, each behind its lock, and the door for connections.
//!
//! Everything but [`service`] is pure: seconds are the server's, given by the caller.

pub mod check;
pub mod clock;
mod counts;
pub mod environment;
pub mod instances;
pub mod intake;
mod sender;
pub mod series;
pub mod service;
pub mod totals;
pub mod units;
pub mod watched;
pub mod window;

pub use counts::MetricsCounts;
pub use environment::{GAP_SECONDS, MAX_WATCHES, TooManyWatches};
pub use instances::{ArmTally, InstanceTally};
pub use intake::{Intake, IntakeLimits, Receipt};
pub use sender::Sender;
pub use series::{Filing, Series, SeriesLimits};
pub use service::{MetricsHub, MetricsSink, WatchKey};
pub use totals::{LATENCY_BOUNDS, SeriesName, Total};
pub use units::UnitMemory;
pub use watched::{WatchSpec, Watched};
pub use window::{Arm, InstanceId, Pair, Row, Tally};
