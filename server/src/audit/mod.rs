//! The audit trail: what the journal does not hold of who did what, and one view over both.
//!
//! The journal says what was changed. The second log says what else happened: refusals, sign-ins, credentials. Both are
//! chained, so that neither can be edited without it showing; signed checkpoints show when one is written anew.

mod checkpoint;
mod coalesce;
mod event;
mod events;
mod export;
mod file;
mod filter;
mod memory;
mod people;
mod query;
mod recheck;
mod record;
mod stored;
mod verify;
mod writer;

pub use checkpoint::{
    CHECKPOINT_FORMAT, CheckError, Checkpoint, CheckpointError, CheckpointKey, CheckpointPublicKey, Contained,
    Findings, JournalPoint, Present, SecurityPoint, check_against, compare, verify_checkpoint,
};
pub use coalesce::{CoalesceLimits, Coalescer, MANY_ORIGINS};
pub use event::{AuditLog, Deployment, Event, EventKind};
pub use events::{Events, EventsError};
pub use export::{CSV_COLUMNS, Export, ExportError, ExportFormat};
pub use file::{AuditHealth, AuditOptions, AuditRetention, FileAuditLog};
pub use filter::{Filter, KindFilter, UnknownKind};
pub use memory::MemoryAudit;
pub use people::{DirectoryPeople, ERASED, People, Person, Place, UNREADABLE, VaultPeople};
pub use query::{AuditPage, AuditQuery, BadCursor, Cursor, MAX_SCANNED, Order, QueryError, Trail};
pub use recheck::{Recheck, RecheckProgress, RecheckState, Rechecked, Rechecks};
pub use record::{About, AuditRecord, CHANGE, Grounds, MAX_LISTED, RiskFound, Tiers};
pub use stored::{EVENT_FORMAT, EventsHead, MAX_FIELD_BYTES, MAX_POLICIES, StoredEvent};
pub use verify::{BadEvent, EventsProgress, OpenError, VerifiedEvents, VerifyEventsError, verify};

#[cfg(test)]
mod checkpoint_tests;
#[cfg(test)]
mod file_tests;
#[cfg(test)]
mod trail_tests;
