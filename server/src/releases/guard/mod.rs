//! The guard of a release: detectors, each with the numbers it decides on, and the decision of every second. All pure.
//!
//! - [`sequential`]: the betting engine behind every always-valid test, and the division of alpha;
//! - [`split`] for error rates, [`latency`] for quantiles, [`mean`] for values, [`ratio`] for the sample ratio;
//! - [`bounds`]: formulas they share;
//! - [`thresholds`]: absolute limits;
//! - [`plan`]: what a release is guarded by; [`decide`]: the decision; [`restraint`]: how often the machine may act.

pub mod bounds;
pub mod decide;
pub mod latency;
#[cfg(test)]
mod made_up;
pub mod mean;
pub mod plan;
pub mod ratio;
pub mod restraint;
pub mod sequential;
pub mod split;
pub mod thresholds;

pub use decide::{Decision, Evidence, Guard, Reason, Verdict};
pub use plan::{Action, Comparison, GuardPlan, Guardrail, PlanError};
