//! The audit trail: what the journal does not hold of who did what, and one view over both.
//!
//! The journal says what was changed. The second log says what else happened: refusals, sign-ins, credentials. Both are
//! chained, so that neither can be edited without it showing; signed checkpoints show when one is written anew.

mod coalesce;
mod event;
mod events;
mod file;
mod memory;
mod stored;
mod verify;
mod writer;

pub use coalesce::{CoalesceLimits, Coalescer, MANY_ORIGINS};
pub use event::{AuditLog, Event, EventKind};
pub use events::{Events, EventsError};
pub use file::{AuditHealth, AuditOptions, AuditRetention, FileAuditLog};
pub use memory::MemoryAudit;
pub use stored::{EVENT_FORMAT, EventsHead, MAX_FIELD_BYTES, MAX_POLICIES, StoredEvent};
pub use verify::{BadEvent, EventsProgress, OpenError, VerifiedEvents, VerifyEventsError, verify};

#[cfg(test)]
mod file_tests;
