//! The second log in memory, for tests and simulations. It keeps every event as it was recorded, none made one.

use futures_util::FutureExt;
use futures_util::future::{self, BoxFuture};
use parking_lot::Mutex;

use super::{AuditLog, Event, Events, EventsError, EventsHead, StoredEvent};

/// The second log in memory. It grows with what is recorded.
#[derive(Debug, Default)]
pub struct MemoryAudit {
    stored: Mutex<Vec<StoredEvent>>,
}

impl MemoryAudit {
    /// A log without events.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Everything that was recorded, in order.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        self.stored.lock().iter().map(|stored| stored.event.clone()).collect()
    }
}

impl AuditLog for MemoryAudit {
    fn record(&self, event: Event) {
        let mut stored = self.stored.lock();
        let head = stored.last().map_or(EventsHead::EMPTY, StoredEvent::head);
        let at = stored.last().map_or(event.at, |last| last.event.at.max(event.at));
        // An event is strings and numbers, which always have a JSON form.
        stored.extend(StoredEvent::link(head, Event { at, ..event }, false).ok());
    }
}

impl Events for MemoryAudit {
    fn head(&self) -> EventsHead {
        self.stored.lock().last().map_or(EventsHead::EMPTY, StoredEvent::head)
    }

    fn first_seq(&self) -> u64 {
        1
    }

    fn read(&self, after: u64, limit: usize) -> BoxFuture<'_, Result<Vec<StoredEvent>, EventsError>> {
        let stored = self.stored.lock();
        let start = usize::try_from(after).unwrap_or(usize::MAX).min(stored.len());
        future::ready(Ok(stored[start..].iter().take(limit).cloned().collect())).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::EventKind;

    #[tokio::test]
    async fn it_keeps_what_was_recorded() {
        let log = MemoryAudit::new();
        for number in 0..5 {
            log.record(Event::new(10 - number, EventKind::Refused, format!("o-{number}")));
        }
        assert_eq!(log.events().iter().map(|event| event.at).collect::<Vec<_>>(), [10; 5], "times never go down");
        let read = log.read(1, 2).await.expect("memory answers");
        assert_eq!(read.iter().map(|stored| stored.seq).collect::<Vec<_>>(), [2, 3]);
        assert_eq!((log.head().seq, log.first_seq()), (5, 1));
    }
}
