//! Controlled releases.
//!
//! - [`plan`]: what a release is to do; [`release`]: what stands of one; [`edit`]: the instructions;
//! - `resolve` and `apply`: what an instruction may do, and what it makes of a release (the state machine);
//! - [`report`]: what happened, for a reviewer;
//! - [`guard`]: detectors and the decision of every second; [`live`]: what it sees now.
//!
//! - [`watching`], [`ill`] and [`next`]: what is kept of a release under way, which instances are ill, and what follows;
//! - [`runner`]: the engine that looks every second;
//! - [`healing`] and [`healer`]: what is done about an instance that was routed away.
//!
//! All of it is pure but `runner.rs` and `healer.rs`.

pub(crate) mod apply;
pub mod edit;
pub mod guard;
pub mod healer;
pub mod healing;
pub mod ill;
pub mod live;
pub mod next;
pub mod plan;
pub mod release;
pub mod report;
pub(crate) mod resolve;
pub mod runner;
pub mod watching;

#[cfg(test)]
mod machine_tests;

pub use edit::ReleaseEdit;
pub use live::{Live, ReleaseWatch};
pub use plan::{External, Healing, Learned, PlanKind, ReleasePlan, Step};
pub use release::{ClosedBy, Hold, Incident, IncidentKind, Note, Release, ReleaseState, Routed};
