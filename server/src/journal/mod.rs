//! The journal: at once the store, the audit trail, the version history, the push feed and the replication log.
//!
//! Everything Guidon knows about flags is the journal folded. Entries are never edited; undoing appends.

pub mod conformance;
mod entry;
mod file;
mod memory;
mod transfer;
mod verify;

#[cfg(test)]
mod fault_tests;

use futures_util::future::BoxFuture;
use tokio::sync::watch;

pub use entry::{
    ChainHash, ENTRY_FORMAT, Entry, Grounds, Idempotency, MAX_ENTRY_BYTES, ObjectHash, ObjectId, StoredEntry,
};
pub use file::{BadEntry, FileJournal, OpenError, Options, RawEntry, history, mint};
pub use memory::MemoryJournal;
pub use transfer::{EXPORT_FORMAT, Target as ImportTarget, TransferError, Transferred, export, import};
pub use verify::{Progress, Verified, VerifyError, verify, verify_seeing};

/// Where the journal ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Number of the last durable entry; 0 when there is none.
    pub revision: u64,
    /// The chain up to it.
    pub hash: ChainHash,
}

impl Head {
    /// Where a journal without entries ends.
    pub const EMPTY: Self = Self { revision: 0, hash: ChainHash::GENESIS };
}

/// An append-only, hash-chained sequence of entries.
///
/// An entry has its place once [`Journal::append`] answers and is durable once the [`Appending`] it answers with is done.
/// Entries become durable, and visible to readers and watchers, in order.
pub trait Journal: Send + Sync + 'static {
    /// Identifies this history. A restored or imported store has a new one.
    fn history(&self) -> &str;

    /// The last durable entry.
    fn head(&self) -> Head;

    /// Gives `entry` the place after `expected`, which must be the revision of the last entry appended, durable or not.
    /// The entry's revision is set accordingly. Where an entry under way was lost ([`AppendError::DiskFull`]), so are all
    /// after it, and the next place is the one after [`Journal::head`].
    ///
    /// # Errors
    ///
    /// [`AppendError::Conflict`] if another entry has that place. Nothing is stored then, whatever the error.
    fn append(&self, expected: u64, entry: Entry) -> BoxFuture<'_, Result<Appending, AppendError>>;

    /// Durable entries after revision `after`, oldest first, at most `limit`. Fewer where they are large, but none only at
    /// the end of the journal.
    ///
    /// # Errors
    ///
    /// [`ReadError`] if an entry cannot be read back as it was written; none after it is answered.
    fn read(&self, after: u64, limit: usize) -> BoxFuture<'_, Result<Vec<StoredEntry>, ReadError>>;

    /// Follows the revision of the last durable entry.
    fn watch(&self) -> watch::Receiver<u64>;

    /// Whether entries can be appended, and why not.
    fn health(&self) -> Health;
}

/// An entry that has its place and is on its way to being durable.
pub struct Appending {
    /// The entry, with its bytes and chain.
    pub stored: StoredEntry,
    /// Done once the entry is durable. [`AppendError::DiskFull`] means that it was not stored; any other error that it may
    /// or may not be there after a restart.
    pub durable: BoxFuture<'static, Result<(), AppendError>>,
}

/// Why an entry was not appended.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AppendError {
    /// Another entry has the expected place.
    #[error("the journal is at revision {actual}, not {expected}")]
    Conflict {
        /// Revision the writer had seen.
        expected: u64,
        /// Revision of the last entry.
        actual: u64,
    },
    /// The volume is full; reads go on, and writes do once there is room.
    #[error("the volume that holds the journal is full")]
    DiskFull,
    /// An earlier write failed; the journal takes no more until the server is restarted.
    #[error("the journal is read-only since a write failed: {reason}")]
    ReadOnly {
        /// What failed.
        reason: String,
    },
    /// More writes wait than the queue holds.
    #[error("too many changes are waiting to be written")]
    Busy,
    /// The entry has no JSON form.
    #[error("the entry cannot be written as JSON: {reason}")]
    Unstorable {
        /// What cannot be written.
        reason: String,
    },
    /// The entry is larger than a record may be.
    #[error("the entry has {actual} bytes; at most {limit} fit into one record")]
    TooLarge {
        /// Size of the entry.
        actual: usize,
        /// Largest size.
        limit: usize,
    },
}

/// Why entries could not be read.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReadError {
    /// An entry is damaged.
    #[error("entry {revision} is damaged: {reason}")]
    Damaged {
        /// Number of the entry.
        revision: u64,
        /// What is wrong with it, with file and offset where there are.
        reason: String,
    },
    /// The storage did not answer.
    #[error("the journal could not be read: {0}")]
    Io(String),
}

/// Whether a journal takes entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// It does.
    Writable,
    /// It does not, for the reason given.
    ReadOnly(String),
}
