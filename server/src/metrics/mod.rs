//! What instances measure: rows of one second, merged without loss across instances and seconds.
//!
//! - [`sketch`]: latencies as a histogram of logarithmic buckets, 1 % relative error;
//! - [`window`]: a row (one second, one arm, one instance) and the tally it carries;
//! - [`firsts`] and [`units`]: which units were met before, in bounded memory;
//! - [`intake`]: which batches were seen already, and which are missing;
//! - [`series`]: the last seconds of one flag and metric, both arms, bounded.
//!
//! Everything here is pure: seconds are the server's, given by the caller.

pub mod firsts;
pub mod intake;
pub mod series;
pub mod sketch;
pub mod units;
pub mod window;

pub use firsts::{Firsts, WhenFull};
pub use intake::{Intake, IntakeLimits, Receipt};
pub use series::{Filing, Series, SeriesLimits};
pub use sketch::Sketch;
pub use units::UnitMemory;
pub use window::{Arm, InstanceId, Moments, Pair, Row, Tally};
