//! A journal in memory: for tests and simulations, which hold, lose and fail writes at will. It uses no thread.

use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::{self, BoxFuture};
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};

use super::{AppendError, Appending, Entry, Head, Health, Journal, ReadError, StoredEntry};

/// Entries that wait to be durable at most; more are refused with [`AppendError::Busy`].
const MAX_PENDING: usize = 4_096;

/// A journal in memory. Clones share what is stored, so that a simulated restart finds it again.
///
/// It keeps every entry: memory grows with the history.
#[derive(Clone)]
pub struct MemoryJournal {
    store: Arc<Store>,
}

struct Store {
    history: String,
    inner: Mutex<Inner>,
    revision: watch::Sender<u64>,
}

struct Inner {
    durable: Vec<StoredEntry>,
    pending: VecDeque<Pending>,
    held: bool,
    full: bool,
    failed: Option<String>,
}

struct Pending {
    stored: StoredEntry,
    done: oneshot::Sender<Result<(), AppendError>>,
}

impl MemoryJournal {
    /// An empty journal with this history id.
    #[must_use]
    pub fn new(history: impl Into<String>) -> Self {
        let inner = Inner { durable: Vec::new(), pending: VecDeque::new(), held: false, full: false, failed: None };
        let store = Store { history: history.into(), inner: Mutex::new(inner), revision: watch::Sender::new(0) };
        Self { store: Arc::new(store) }
    }

    /// The journal as the next start of the server finds it: what was not durable is gone, failures are over.
    #[must_use]
    pub fn reopened(&self) -> Self {
        let mut inner = self.store.inner.lock();
        inner.give_up(&read_only("the server was restarted"));
        inner.held = false;
        inner.failed = None;
        drop(inner);
        self.clone()
    }

    /// Holds appended entries back from being durable until [`MemoryJournal::release`].
    pub fn hold(&self) {
        self.store.inner.lock().held = true;
    }

    /// Makes the entries durable that were held back.
    pub fn release(&self) {
        let mut inner = self.store.inner.lock();
        inner.held = false;
        while let Some(Pending { stored, done }) = inner.pending.pop_front() {
            inner.durable.push(stored);
            // A writer that stopped waiting is no reason not to keep its entry.
            let _ = done.send(Ok(()));
        }
        self.store.announce(&inner);
    }

    /// Behaves as after a failed `fdatasync`: entries held back are lost, and no more are taken until
    /// [`MemoryJournal::reopened`].
    pub fn fail(&self, reason: &str) {
        let mut inner = self.store.inner.lock();
        inner.give_up(&read_only(reason));
        inner.failed = Some(reason.to_owned());
    }

    /// Behaves as on a full volume: entries held back are lost, and no more are taken until there is room.
    pub fn set_full(&self, full: bool) {
        let mut inner = self.store.inner.lock();
        if full {
            inner.give_up(&AppendError::DiskFull);
        }
        inner.full = full;
    }
}

fn read_only(reason: &str) -> AppendError {
    AppendError::ReadOnly { reason: reason.to_owned() }
}

impl Store {
    fn announce(&self, inner: &Inner) {
        let revision = inner.durable.len() as u64;
        self.revision.send_if_modified(|known| std::mem::replace(known, revision) != revision);
    }
}

impl Inner {
    fn head(&self) -> Head {
        self.durable.last().map_or(Head::EMPTY, StoredEntry::head)
    }

    fn tip(&self) -> Head {
        self.pending.back().map_or_else(|| self.head(), |pending| pending.stored.head())
    }

    fn give_up(&mut self, error: &AppendError) {
        for pending in self.pending.drain(..) {
            let _ = pending.done.send(Err(error.clone()));
        }
    }

    fn append(&mut self, expected: u64, entry: Entry) -> Result<Appending, AppendError> {
        if let Some(reason) = &self.failed {
            return Err(read_only(reason));
        }
        let tip = self.tip();
        if tip.revision != expected {
            return Err(AppendError::Conflict { expected, actual: tip.revision });
        }
        if self.full {
            return Err(AppendError::DiskFull);
        }
        if self.pending.len() >= MAX_PENDING {
            return Err(AppendError::Busy);
        }
        let stored = StoredEntry::link(tip, entry)?;
        let durable = if self.held {
            let (done, wait) = oneshot::channel();
            self.pending.push_back(Pending { stored: stored.clone(), done });
            wait.map(|answer| answer.unwrap_or_else(|_| Err(read_only("the journal was closed")))).boxed()
        } else {
            self.durable.push(stored.clone());
            future::ready(Ok(())).boxed()
        };
        Ok(Appending { stored, durable })
    }
}

impl Journal for MemoryJournal {
    fn history(&self) -> &str {
        &self.store.history
    }

    fn head(&self) -> Head {
        self.store.inner.lock().head()
    }

    fn append(&self, expected: u64, entry: Entry) -> BoxFuture<'_, Result<Appending, AppendError>> {
        let mut inner = self.store.inner.lock();
        let answer = inner.append(expected, entry);
        self.store.announce(&inner);
        future::ready(answer).boxed()
    }

    fn read(&self, after: u64, limit: usize) -> BoxFuture<'_, Result<Vec<StoredEntry>, ReadError>> {
        let inner = self.store.inner.lock();
        let start = usize::try_from(after).unwrap_or(usize::MAX).min(inner.durable.len());
        let page = inner.durable[start..].iter().take(limit).cloned().collect();
        future::ready(Ok(page)).boxed()
    }

    fn watch(&self) -> watch::Receiver<u64> {
        self.store.revision.subscribe()
    }

    fn health(&self) -> Health {
        let inner = self.store.inner.lock();
        match &inner.failed {
            Some(reason) => Health::ReadOnly(reason.clone()),
            None if inner.full => Health::ReadOnly(AppendError::DiskFull.to_string()),
            None => Health::Writable,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::conformance::{self, Subject};
    use super::*;

    struct InMemory(MemoryJournal);

    impl Subject for InMemory {
        fn journal(&self) -> Arc<dyn Journal> {
            Arc::new(self.0.clone())
        }

        fn reopen(&mut self) -> BoxFuture<'_, ()> {
            self.0 = self.0.reopened();
            future::ready(()).boxed()
        }

        fn hold(&self, held: bool) -> bool {
            if held {
                self.0.hold();
            } else {
                self.0.release();
            }
            true
        }

        fn fail_next_sync(&self) -> bool {
            self.0.fail("fdatasync: input/output error");
            true
        }

        fn fill_disk(&self, full: bool) -> bool {
            self.0.set_full(full);
            true
        }
    }

    #[tokio::test]
    async fn memory_conforms() {
        conformance::run(|| future::ready(InMemory(MemoryJournal::new("history-1"))).boxed()).await;
    }
}
