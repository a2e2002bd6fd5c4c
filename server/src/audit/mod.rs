//! The audit trail: what the journal does not hold of who did what.

mod event;

pub use event::{AuditLog, Event, EventKind};
