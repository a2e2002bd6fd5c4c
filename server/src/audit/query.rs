//! Both logs as one, filtered and page by page.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::future::Future;
use std::str::FromStr;
use std::sync::Arc;

use super::record::{About, AuditRecord, Tiers};
use super::{Events, EventsError, Filter, People, StoredEvent};
use crate::journal::{Journal, ReadError, StoredEntry};

/// Most entries and events that one page looks through; `next` says where to go on.
pub const MAX_SCANNED: usize = 20_000;

/// Entries or events read at once.
const READ_ITEMS: usize = 256;

/// In which order records come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// The newest first.
    #[default]
    NewestFirst,
    /// The oldest first.
    OldestFirst,
}

/// Where a page ended in both logs. In text `n.<revision>.<event>` or `o.<revision>.<event>`, to be passed back as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    order: Order,
    /// The last entry looked at, or where the next one is the first to be.
    journal: u64,
    /// The last event looked at, likewise.
    security: u64,
}

impl std::fmt::Display for Cursor {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let order = match self.order {
            Order::NewestFirst => 'n',
            Order::OldestFirst => 'o',
        };
        write!(formatter, "{order}.{}.{}", self.journal, self.security)
    }
}

/// A text is no cursor.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is no place to go on from: pass `next` of the page before as it is, with the same order")]
pub struct BadCursor;

impl FromStr for Cursor {
    type Err = BadCursor;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.split('.');
        let order = match parts.next() {
            Some("n") => Order::NewestFirst,
            Some("o") => Order::OldestFirst,
            _ => return Err(BadCursor),
        };
        let mut number = || parts.next().and_then(|part| part.parse().ok()).ok_or(BadCursor);
        let (journal, security) = (number()?, number()?);
        if parts.next().is_some() { Err(BadCursor) } else { Ok(Self { order, journal, security }) }
    }
}

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub struct AuditQuery {
    /// Which records.
    pub filter: Filter,
    /// In which order.
    pub order: Order,
    /// Where the page before ended.
    pub cursor: Option<Cursor>,
    /// Most records of a page; at least one.
    pub limit: usize,
}

/// Some of what was asked for. A page may be empty and still have a `next`.
#[derive(Clone, Debug)]
pub struct AuditPage {
    /// The records.
    pub records: Vec<AuditRecord>,
    /// Where the next page goes on; `None` on the last one.
    pub next: Option<Cursor>,
}

/// Why a query was not answered.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The cursor is of another order.
    #[error(transparent)]
    Cursor(#[from] BadCursor),
    /// The journal cannot be read.
    #[error(transparent)]
    Journal(#[from] ReadError),
    /// The second log cannot be read.
    #[error(transparent)]
    Events(#[from] EventsError),
}

/// Both logs, and what explains the ids in them.
#[derive(Clone)]
pub struct Trail {
    /// The journal.
    pub journal: Arc<dyn Journal>,
    /// The second log.
    pub events: Arc<dyn Events>,
    /// Who and where ids stand for.
    pub people: Arc<dyn People>,
    /// Which tier an environment is in.
    pub tiers: Arc<dyn Tiers>,
}

impl Trail {
    /// Answers one page.
    ///
    /// # Errors
    ///
    /// [`QueryError`].
    pub async fn page(&self, query: &AuditQuery) -> Result<AuditPage, QueryError> {
        let Cursor { journal, security, .. } = match query.cursor {
            Some(cursor) if cursor.order == query.order => cursor,
            Some(_) => return Err(BadCursor.into()),
            None => self.start(query).await?,
        };
        let order = query.order;
        let mut entries =
            Source { order, position: journal, read: VecDeque::new(), is_over: !query.filter.wants_entries() };
        let mut events =
            Source { order, position: security, read: VecDeque::new(), is_over: !query.filter.wants_events() };
        let (mut records, mut scanned) = (Vec::new(), 0);
        let limit = query.limit.max(1);
        loop {
            let (entry, event) = self.peek(&mut entries, &mut events, &query.filter).await?;
            let takes_entry = match (entry, event) {
                (None, None) => return Ok(AuditPage { records, next: None }),
                (Some(_), None) => true,
                (None, Some(_)) => false,
                (Some(entry), Some(event)) => match (entry.cmp(&event), order) {
                    // Of a change and an event of one moment the change is the earlier one.
                    (Ordering::Less, Order::OldestFirst) | (Ordering::Greater, Order::NewestFirst) => true,
                    (Ordering::Equal, Order::OldestFirst) => true,
                    _ => false,
                },
            };
            if records.len() >= limit || scanned >= MAX_SCANNED {
                let next = Some(Cursor { order, journal: entries.position, security: events.position });
                return Ok(AuditPage { records, next });
            }
            scanned += 1;
            if takes_entry {
                let Some(stored) = entries.take() else { continue };
                if query.filter.matches_entry(&stored.entry, &About::entry(&stored.entry, &*self.tiers)) {
                    records.push(AuditRecord::of_entry(&stored, &*self.people, &*self.tiers));
                }
            } else {
                let Some(stored) = events.take() else { continue };
                if query.filter.matches_event(&stored, &About::event(&stored, &*self.tiers)) {
                    records.push(AuditRecord::of_event(&stored, &*self.people, &*self.tiers));
                }
            }
        }
    }

    /// One record, by its id; `None` where there is none, or none any more.
    ///
    /// # Errors
    ///
    /// [`QueryError`] if it cannot be read.
    pub async fn record(&self, id: &str) -> Result<Option<AuditRecord>, QueryError> {
        let Some((log, number)) = id.split_once(':') else { return Ok(None) };
        let Some(number) = number.parse::<u64>().ok().filter(|number| *number > 0) else { return Ok(None) };
        match log {
            "j" => {
                let read = self.journal.read(number - 1, 1).await?;
                let stored = read.first().filter(|stored| stored.entry.revision == number);
                Ok(stored.map(|stored| AuditRecord::of_entry(stored, &*self.people, &*self.tiers)))
            }
            "s" => {
                let read = self.events.read(number - 1, 1).await?;
                let stored = read.first().filter(|stored| stored.seq == number);
                Ok(stored.map(|stored| AuditRecord::of_event(stored, &*self.people, &*self.tiers)))
            }
            _ => Ok(None),
        }
    }

    /// Times of the next entry and the next event; `None` where there are no more that can meet the filter.
    async fn peek(
        &self,
        entries: &mut Source<StoredEntry>,
        events: &mut Source<StoredEvent>,
        filter: &Filter,
    ) -> Result<(Option<u64>, Option<u64>), QueryError> {
        if entries.wants_more() {
            let read = |after, limit| self.journal.read(after, limit);
            entries.fill(self.journal.head().revision, 0, read).await?;
        }
        if events.wants_more() {
            let read = |after, limit| self.events.read(after, limit);
            events.fill(self.events.head().seq, self.events.first_seq() - 1, read).await?;
        }
        Ok((entries.next_time(filter), events.next_time(filter)))
    }

    /// Where the first page starts: at the end of time that the order asks for first.
    async fn start(&self, query: &AuditQuery) -> Result<Cursor, QueryError> {
        let (journal_end, events_end) = (self.journal.head().revision + 1, self.events.head().seq + 1);
        let kept = self.events.first_seq();
        let order = query.order;
        // The first with a time of at least `at`.
        let first_at = async |at: u64| -> Result<(u64, u64), QueryError> {
            let read = |after, limit| self.journal.read(after, limit);
            let journal = first_not_before(at, 1, journal_end, read).await?;
            let read = |after, limit| self.events.read(after, limit);
            Ok((journal, first_not_before(at, kept, events_end, read).await?))
        };
        let (journal, security) = match (order, query.filter.from, query.filter.to) {
            (Order::OldestFirst, Some(from), _) => {
                let (journal, security) = first_at(from).await?;
                (journal - 1, security - 1)
            }
            (Order::OldestFirst, None, _) => (0, 0),
            (Order::NewestFirst, _, Some(to)) => first_at(to.saturating_add(1)).await?,
            (Order::NewestFirst, _, None) => (journal_end, events_end),
        };
        Ok(Cursor { order, journal, security })
    }
}

/// What both logs hold.
trait Item: Clone {
    fn number(&self) -> u64;
    fn at(&self) -> u64;
}

impl Item for StoredEntry {
    fn number(&self) -> u64 {
        self.entry.revision
    }

    fn at(&self) -> u64 {
        self.entry.at
    }
}

impl Item for StoredEvent {
    fn number(&self) -> u64 {
        self.seq
    }

    fn at(&self) -> u64 {
        self.event.at
    }
}

/// One log, walked in one direction.
struct Source<T> {
    order: Order,
    /// The last one taken, or where the first one to be taken is the next.
    position: u64,
    /// Those after it, in order.
    read: VecDeque<T>,
    is_over: bool,
}

impl<T: Item> Source<T> {
    fn wants_more(&self) -> bool {
        self.read.is_empty() && !self.is_over
    }

    /// Reads on. `last` is the last one there is, `removed` the last one that is not kept any more.
    async fn fill<E, R>(&mut self, last: u64, removed: u64, read: impl Fn(u64, usize) -> R) -> Result<(), E>
    where
        R: Future<Output = Result<Vec<T>, E>>,
    {
        match self.order {
            Order::OldestFirst => self.read = read(self.position, READ_ITEMS).await?.into(),
            Order::NewestFirst => {
                // Numbers come from a cursor, which may be anything.
                let before = self.position.min(last + 1);
                let mut length = READ_ITEMS as u64;
                while self.read.is_empty() && before > removed + 1 {
                    let after = before.saturating_sub(length + 1).max(removed);
                    let asked = usize::try_from(before - 1 - after).unwrap_or(READ_ITEMS);
                    let mut found = read(after, asked).await?;
                    found.retain(|item| item.number() < before);
                    match found.last() {
                        // Large ones come fewer at a time: it is the last that are needed, so fewer are asked for.
                        Some(item) if item.number() + 1 < before && length > 1 => length /= 2,
                        Some(_) => self.read = found.into_iter().rev().collect(),
                        None => break,
                    }
                }
            }
        }
        self.is_over = self.read.is_empty();
        Ok(())
    }

    /// The time of the next one, unless it and all behind it are out of the filter's time.
    fn next_time(&mut self, filter: &Filter) -> Option<u64> {
        let at = self.read.front()?.at();
        let is_past = match self.order {
            Order::OldestFirst => filter.to.is_some_and(|to| at > to),
            Order::NewestFirst => filter.from.is_some_and(|from| at < from),
        };
        if is_past {
            self.is_over = true;
            self.read.clear();
            return None;
        }
        Some(at)
    }

    fn take(&mut self) -> Option<T> {
        let item = self.read.pop_front()?;
        self.position = item.number();
        Some(item)
    }
}

/// The number of the first item in `start..end` whose time is at least `at`; `end` if there is none. Times never go down.
async fn first_not_before<T: Item, E, R>(
    at: u64,
    start: u64,
    end: u64,
    read: impl Fn(u64, usize) -> R,
) -> Result<u64, E>
where
    R: Future<Output = Result<Vec<T>, E>>,
{
    let (mut low, mut high) = (start.min(end), end);
    while low < high {
        let middle = low + (high - low) / 2;
        match read(middle - 1, 1).await?.first() {
            Some(item) if item.at() >= at => high = middle,
            Some(_) => low = middle + 1,
            None => high = middle,
        }
    }
    Ok(low)
}
