//! Rollback drills: a rollback rehearsed before it is needed, and the record of it.
//!
//! [`DrillService`] computes the rollback, proves on a copy of the state that it validates and restores what it says it
//! restores, counts whom it would move, and measures how long connected SDKs take to answer. The record is journaled by
//! `ChangeService::record_drill`. Everything but `service.rs` is pure.

mod edit;
mod moves;
mod pending;
mod record;
mod service;
mod shape;

use std::time::Duration;

use futures_util::future::BoxFuture;

pub use edit::DrillEdit;
pub use moves::{Seen, moved};
pub use pending::{MAX_PENDING_DRILLS, PENDING_LIFE_MS};
pub use record::{
    Check, DrillReport, MAX_CHECK_COMMAND_BYTES, MAX_CHECK_OUTPUT_BYTES, MAX_DRILL_REASONS, MAX_MOVES, MAX_NAMED_SDKS,
    Move, Moved, ProbeReport, Proof, SilentSdk, StandingDrill, Tally,
};
pub use service::{DrillError, DrillParts, DrillRequest, DrillService, MAX_DRILLS_AT_ONCE, MAX_PROBE_TIMEOUT_MS};
pub use shape::{DRILL_LIFE_MS, Freshness, freshness, is_rehearsed, shape};

/// Asks all connections of an environment for a sign.
pub trait Prober: Send + Sync + 'static {
    /// Sends a probe to every connection that answers probes, and waits for the answers for at most `limit`.
    fn probe(&self, project: &str, environment: &str, limit: Duration) -> BoxFuture<'_, ProbeReport>;
}

#[cfg(test)]
mod service_tests;
#[cfg(test)]
mod tests;
