//! The second log as it is read.

use futures_util::future::BoxFuture;

use super::{EventsHead, StoredEvent};

/// The second log, read. Numbers go up from 1 without gaps; times never go down.
pub trait Events: Send + Sync + 'static {
    /// The last durable event.
    fn head(&self) -> EventsHead;

    /// Number of the first event that is kept; the number after the last one where none is.
    fn first_seq(&self) -> u64;

    /// Kept events after number `after`, oldest first, at most `limit`, each checked against the chain. Starts with the first
    /// one kept where earlier ones are asked for; none only at the end of the log.
    ///
    /// # Errors
    ///
    /// [`EventsError`] if an event cannot be read back as it was written.
    fn read(&self, after: u64, limit: usize) -> BoxFuture<'_, Result<Vec<StoredEvent>, EventsError>>;
}

/// Why events could not be read.
#[derive(Clone, Debug, thiserror::Error)]
pub enum EventsError {
    /// An event is damaged.
    #[error("event {seq} of the security log is damaged: {reason}")]
    Damaged {
        /// Its number.
        seq: u64,
        /// What is wrong with it, with file and offset where there are.
        reason: String,
    },
    /// The storage did not answer.
    #[error("the security log could not be read: {0}")]
    Io(String),
}
