//! Recomputing both chains on a running server, one run at a time.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::watch;

use super::stored::check_link;
use super::{EventsError, EventsHead, Trail};
use crate::clock::Clock;
use crate::journal::{ChainHash, Head, ReadError};

/// Entries or events read at once.
const READ_ITEMS: usize = 512;

/// Both chains, recomputed and found to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rechecked {
    /// The journal's last entry that was looked at.
    pub journal: Head,
    /// Number of the first event that is kept.
    pub first_seq: u64,
    /// The second log's last event that was looked at.
    pub security: EventsHead,
    /// Events that were looked at.
    pub events: u64,
}

/// How far a run has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RecheckProgress {
    /// Entries of the journal looked at.
    pub entries: u64,
    /// Events of the second log looked at.
    pub events: u64,
}

/// Where a run stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecheckState {
    /// It goes on.
    Running(RecheckProgress),
    /// Both chains hold.
    Sound(Rechecked),
    /// A chain does not hold, or could not be read: which, where and why.
    Broken(String),
}

/// A run, as it is told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recheck {
    /// When it began, in milliseconds since 1970.
    pub started_at: u64,
    /// When it ended, in milliseconds since 1970.
    pub finished_at: Option<u64>,
    /// Where it stands.
    pub state: RecheckState,
}

impl Recheck {
    fn is_over(&self) -> bool {
        self.finished_at.is_some()
    }
}

/// Why a chain was not found to hold.
#[derive(Debug, thiserror::Error)]
enum RecheckError {
    #[error(transparent)]
    Journal(#[from] ReadError),
    #[error(transparent)]
    Events(#[from] EventsError),
    #[error("entry {revision} of the journal: {reason}")]
    BadEntry { revision: u64, reason: String },
    #[error("event {seq} of the security log: {reason}")]
    BadEvent { seq: u64, reason: String },
}

/// Recomputes the chains when asked; whoever asks while a run is under way waits for that one.
pub struct Rechecks {
    trail: Trail,
    clock: Arc<dyn Clock>,
    last: Mutex<Option<Run>>,
}

struct Run {
    state: watch::Receiver<Recheck>,
    /// Whether somebody has learned how it ended: the next who asks gets a new run.
    is_told: bool,
}

impl Rechecks {
    /// Nothing is read yet.
    #[must_use]
    pub fn new(trail: Trail, clock: Arc<dyn Clock>) -> Self {
        Self { trail, clock, last: Mutex::new(None) }
    }

    /// The run that is under way, or that ended and nobody was told of, or a new one; as it stands when it has ended, and
    /// after `patience` at the latest. It goes on when nobody waits.
    pub async fn ask(&self, patience: Duration) -> Recheck {
        let mut state = self.join();
        // Whatever ends the wait, it is told how things stand.
        let _ = tokio::time::timeout(patience, state.wait_for(Recheck::is_over)).await;
        let recheck = state.borrow().clone();
        if recheck.is_over()
            && let Some(run) = self.last.lock().as_mut().filter(|run| run.state.same_channel(&state))
        {
            run.is_told = true;
        }
        recheck
    }

    fn join(&self) -> watch::Receiver<Recheck> {
        let mut last = self.last.lock();
        // A run whose task was cut short sends nothing any more.
        let is_alive = |run: &Run| run.state.borrow().is_over() || run.state.has_changed().is_ok();
        if let Some(run) = last.as_ref().filter(|run| !run.is_told && is_alive(run)) {
            return run.state.clone();
        }
        let running = RecheckState::Running(RecheckProgress::default());
        let begun = Recheck { started_at: self.clock.now_ms(), finished_at: None, state: running };
        let (sender, state) = watch::channel(begun);
        *last = Some(Run { state: state.clone(), is_told: false });
        let (trail, clock) = (self.trail.clone(), Arc::clone(&self.clock));
        tokio::spawn(async move {
            let progress = |progress| sender.send_modify(|run| run.state = RecheckState::Running(progress));
            let ended = match recheck(&trail, &progress).await {
                Ok(rechecked) => RecheckState::Sound(rechecked),
                Err(error) => RecheckState::Broken(error.to_string()),
            };
            sender.send_modify(|run| {
                run.state = ended;
                run.finished_at = Some(clock.now_ms());
            });
        });
        state
    }
}

/// Reads both logs up to where they end now and recomputes their chains.
async fn recheck(trail: &Trail, progress: &(dyn Fn(RecheckProgress) + Send + Sync)) -> Result<Rechecked, RecheckError> {
    let (entries_end, events_end) = (trail.journal.head(), trail.events.head());
    let mut journal = Head { revision: 0, hash: ChainHash::GENESIS };
    while journal.revision < entries_end.revision {
        let read = trail.journal.read(journal.revision, READ_ITEMS).await?;
        let missing = RecheckError::BadEntry { revision: journal.revision + 1, reason: "it is missing".to_owned() };
        if read.is_empty() {
            return Err(missing);
        }
        for stored in read.iter().take_while(|stored| stored.entry.revision <= entries_end.revision) {
            let revision = journal.revision + 1;
            let bad = |reason| RecheckError::BadEntry { revision, reason };
            if stored.entry.revision != revision {
                return Err(missing);
            }
            check_link(journal.hash, &stored.bytes, stored.hash).map_err(bad)?;
            journal = stored.head();
        }
        progress(RecheckProgress { entries: journal.revision, events: 0 });
    }
    let first_seq = trail.events.first_seq();
    let (mut security, mut events) = (EventsHead { seq: first_seq.max(1) - 1, hash: ChainHash::GENESIS }, 0);
    while security.seq < events_end.seq {
        let read = trail.events.read(security.seq, READ_ITEMS).await?;
        if read.is_empty() {
            return Err(RecheckError::BadEvent { seq: security.seq + 1, reason: "it is missing".to_owned() });
        }
        for stored in read.iter().take_while(|stored| stored.seq <= events_end.seq) {
            let bad = |reason| RecheckError::BadEvent { seq: stored.seq, reason };
            // Where those before it are past their retention, an event states the chain it follows.
            let follows = stored.seq == security.seq + 1 && (events > 0 || stored.seq == 1);
            let is_gap = stored.seq > security.seq + 1 && stored.seq > trail.events.first_seq();
            let before = if follows { Some(security.hash) } else { stored.previous.filter(|_| !is_gap) };
            let before = before.ok_or_else(|| bad("what it follows is missing".to_owned()))?;
            check_link(before, &stored.bytes, stored.hash).map_err(bad)?;
            (security, events) = (stored.head(), events + 1);
        }
        progress(RecheckProgress { entries: journal.revision, events });
    }
    Ok(Rechecked { journal, first_seq, security, events })
}
