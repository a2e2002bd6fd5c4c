//! Telling the application which flags changed.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::broadcast;

use crate::protocol::Revision;

/// Changes a slow [`Changes`] may be behind before the oldest are lost to it.
pub const MAX_CHANGES_BEHIND: usize = 64;

/// A new revision is serving.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Change {
    /// The revision.
    pub revision: Revision,
    /// Keys of the flags that were added, changed or removed, or whose segments changed; sorted.
    pub flags: Arc<[String]>,
    /// Changes before this one that were lost because the reader was slow; always 0 for [`super::Client::on_change`].
    pub missed: u64,
}

type Callback = dyn Fn(&Change) + Send + Sync;

/// Keeps a listener of [`super::Client::on_change`] in place; dropping it removes the listener.
#[must_use = "dropping the subscription removes the listener"]
pub struct Subscription {
    id: u64,
    callbacks: Weak<Mutex<Callbacks>>,
}

impl Subscription {
    /// Leaves the listener in place for as long as the client lives.
    pub fn forever(mut self) {
        self.callbacks = Weak::new();
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let Some(callbacks) = self.callbacks.upgrade() {
            let mut callbacks = callbacks.lock().unwrap_or_else(PoisonError::into_inner);
            callbacks.list.retain(|(id, _)| *id != self.id);
        }
    }
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Subscription").field("id", &self.id).finish()
    }
}

/// The changes from now on, one after another.
#[derive(Debug)]
pub struct Changes {
    receiver: broadcast::Receiver<Change>,
}

impl Changes {
    /// The next change, or `None` once the client is gone. Cancel safe.
    pub async fn next(&mut self) -> Option<Change> {
        let mut missed = 0;
        loop {
            match self.receiver.recv().await {
                Ok(change) => return Some(Change { missed, ..change }),
                Err(broadcast::error::RecvError::Lagged(count)) => missed += count,
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}

#[derive(Default)]
struct Callbacks {
    next: u64,
    list: Vec<(u64, Arc<Callback>)>,
}

pub(super) struct Listeners {
    callbacks: Arc<Mutex<Callbacks>>,
    sender: broadcast::Sender<Change>,
}

impl Listeners {
    pub(super) fn new() -> Self {
        Self { callbacks: Arc::default(), sender: broadcast::Sender::new(MAX_CHANGES_BEHIND) }
    }

    pub(super) fn add(&self, callback: impl Fn(&Change) + Send + Sync + 'static) -> Subscription {
        let mut callbacks = self.callbacks.lock().unwrap_or_else(PoisonError::into_inner);
        callbacks.next += 1;
        let id = callbacks.next;
        callbacks.list.push((id, Arc::new(callback)));
        Subscription { id, callbacks: Arc::downgrade(&self.callbacks) }
    }

    pub(super) fn changes(&self) -> Changes {
        Changes { receiver: self.sender.subscribe() }
    }

    /// Whether nobody listens.
    pub(super) fn is_empty(&self) -> bool {
        self.sender.receiver_count() == 0
            && self.callbacks.lock().unwrap_or_else(PoisonError::into_inner).list.is_empty()
    }

    pub(super) fn notify(&self, change: Change) {
        // The lock is not held while callbacks run: they may subscribe and unsubscribe.
        let list = self.callbacks.lock().unwrap_or_else(PoisonError::into_inner).list.clone();
        for (_, callback) in list {
            if catch_unwind(AssertUnwindSafe(|| callback(&change))).is_err() {
                tracing::error!(revision = %change.revision, "a change listener panicked");
            }
        }
        // An error says that nobody reads the stream at present.
        let _ = self.sender.send(change);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    fn change(number: u64) -> Change {
        Change { revision: Revision { history: "h".to_owned(), number }, flags: Arc::new(["a".to_owned()]), missed: 0 }
    }

    #[test]
    fn listeners_hear_until_their_subscription_is_dropped_and_survive_a_panic() {
        let listeners = Listeners::new();
        assert!(listeners.is_empty());
        let heard = Arc::new(AtomicU64::new(0));
        listeners.add(|_| panic!("a listener's mistake")).forever();
        let seen = Arc::clone(&heard);
        let subscription = listeners.add(move |change| seen.store(change.revision.number, Ordering::Relaxed));
        listeners.notify(change(1));
        drop(subscription);
        listeners.notify(change(2));
        assert_eq!(heard.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn a_slow_reader_is_told_what_it_missed() {
        let listeners = Listeners::new();
        let mut changes = listeners.changes();
        for number in 0..MAX_CHANGES_BEHIND as u64 + 3 {
            listeners.notify(change(number));
        }
        let first = changes.next().await.unwrap();
        assert_eq!((first.missed, first.revision.number), (3, 3));
        drop(listeners);
        let mut count = 1;
        while changes.next().await.is_some() {
            count += 1;
        }
        assert_eq!(count, MAX_CHANGES_BEHIND);
    }
}
