//! What instances measure: rows of one second, merged without loss across instances and seconds.
//!
//! - [`window`]: a row (one second, one arm, one instance) and the tally it carries;
//! - [`units`]: which units were met before, in bounded memory;
//! - [`intake`]: which batches were seen already, and which are missing;
//! - [`series`]: the last seconds of one flag and metric, both arms, bounded.
//!
//! Everything here is pure: seconds are the server's, given by the caller.

pub mod intake;
pub mod series;
pub mod units;
pub mod window;

pub use intake::{Intake, IntakeLimits, Receipt};
pub use series::{Filing, Series, SeriesLimits};
pub use units::UnitMemory;
pub use window::{Arm, InstanceId, Pair, Row, Tally};
