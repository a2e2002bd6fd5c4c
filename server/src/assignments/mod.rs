//! The assignment log: who was served what, under pseudonyms.
//!
//! The first thing that happens to an exposure is that its unit becomes a pseudonym ([`anonymize`]); a raw unit is never
//! written, neither to disk nor to the server's log.

pub mod anonymize;
mod check;
mod file;
mod memory;
mod metrics;
mod query;
mod record;
mod reservoir;
mod watermarks;

use std::sync::Arc;

use futures_util::future::BoxFuture;
use guidon_sdk::protocol::ExposureBatch;
use serde::{Deserialize, Serialize};

pub use check::{BatchLimits, RefusedBatch};
pub use file::{FileAssignmentLog, OpenError, Retention};
pub use memory::MemoryAssignments;
pub use metrics::AssignmentMetrics;
pub use query::{Cursor, Line, MAX_PAGE_ITEMS, MalformedCursor, Page, Query, QueryError, lines_of_flag};
pub use record::Assignment;
pub use reservoir::{
    MAX_SAMPLED_ENVIRONMENTS, MAX_SAMPLED_UNIT_BYTES, MAX_SAMPLED_UNITS, PERIOD_MS, Reservoir, Sampled, SampledLog,
};

/// The environment an exposure comes from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Origin {
    /// Key of the project.
    pub project: Arc<str>,
    /// Key of the environment.
    pub environment: Arc<str>,
}

/// Resolves to the number of the last batch that is durable.
pub type Storing = BoxFuture<'static, Result<u64, AppendError>>;

/// Where exposures are kept.
pub trait AssignmentLog: Send + Sync + 'static {
    /// Number of the last batch of this (instance, epoch) that is durable; 0 if there is none.
    fn last_batch(&self, origin: &Origin, instance: &str, epoch: u64) -> u64;

    /// Takes a batch in. A batch whose number is not above the last one taken of its (instance, epoch) is a duplicate: its
    /// content is ignored, and the answer waits until what was taken first is durable. Numbers may be left out: an SDK
    /// leaves out batches that were refused.
    ///
    /// # Errors
    ///
    /// [`RefusedBatch`] if the batch will never be stored as it is. The future's error is for the moment: the batch is not
    /// stored, and may be sent again.
    fn append(&self, origin: &Origin, batch: ExposureBatch) -> Result<Storing, RefusedBatch>;

    /// One page of what is stored. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// [`QueryError`] if the log cannot be read back as it was written.
    fn read(&self, query: &Query) -> Result<Page, QueryError>;
}

/// Why a batch is not stored now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The volume is full.
    #[error("the volume that holds the assignment log is full")]
    DiskFull,
    /// More is waiting to be written than may.
    #[error("too many exposures are waiting to be written; send the batch again")]
    Busy,
    /// The log takes nothing until the server is restarted, or the key that makes pseudonyms is not to be had.
    #[error("the assignment log takes nothing: {0}")]
    Unavailable(String),
}
