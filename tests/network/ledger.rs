//! What the simulated world did, to be compared with what is stored.

use std::collections::HashMap;

use guidon_sdk::client::State;
use guidon_sdk::protocol::Cause;
use guidon_server::assignments::Assignment;
use guidon_server::assignments::anonymize::Pseudonym;
use guidon_server::journal::{Head, Journal, MemoryJournal};
use parking_lot::Mutex;

use super::server::pseudonym;

/// What everybody in the simulation is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Things break; changes are made and flags evaluated.
    Faults,
    /// All is mended: one more change is made.
    Repaired,
    /// No more evaluations: what is queued is to be stored.
    Draining,
}

/// How an application's SDK stands.
#[derive(Clone, Copy, Debug)]
pub struct Status {
    pub state: State,
    pub revision: Option<u64>,
    /// Everything it recorded is stored.
    pub drained: bool,
}

/// One evaluation that the SDK took into its queue.
struct Produced {
    life: usize,
    cause: Cause,
    /// Whether a flush has said that it is stored.
    flushed: bool,
}

pub struct Ledger(Mutex<Inner>);

struct Inner {
    phase: Phase,
    target: Option<u64>,
    statuses: Vec<Status>,
    acknowledged: Vec<Head>,
    produced: HashMap<String, Produced>,
    /// Lives of applications: whether each was the last of its application.
    lives: Vec<usize>,
    violations: Vec<String>,
}

impl Ledger {
    pub fn new(applications: usize) -> Self {
        let status = Status { state: State::Initializing, revision: None, drained: false };
        Self(Mutex::new(Inner {
            phase: Phase::Faults,
            target: None,
            statuses: vec![status; applications],
            acknowledged: Vec::new(),
            produced: HashMap::new(),
            lives: Vec::new(),
            violations: Vec::new(),
        }))
    }

    pub fn phase(&self) -> Phase {
        self.0.lock().phase
    }

    pub fn enter(&self, phase: Phase) {
        self.0.lock().phase = phase;
    }

    /// Revision that every SDK is to reach after the repair.
    pub fn target(&self) -> Option<u64> {
        self.0.lock().target
    }

    pub fn set_target(&self, revision: u64) {
        self.0.lock().target = Some(revision);
    }

    pub fn statuses(&self) -> Vec<Status> {
        self.0.lock().statuses.clone()
    }

    pub fn set_status(&self, application: usize, status: Status) {
        self.0.lock().statuses[application] = status;
    }

    /// A change was acknowledged; the journal then ends here or later.
    pub fn acknowledge(&self, head: Head) {
        self.0.lock().acknowledged.push(head);
    }

    pub fn acknowledged(&self) -> usize {
        self.0.lock().acknowledged.len()
    }

    /// An application starts; answers the number of this life.
    pub fn begin_life(&self, application: usize) -> usize {
        let mut inner = self.0.lock();
        inner.lives.push(application);
        inner.lives.len() - 1
    }

    pub fn lives(&self) -> usize {
        self.0.lock().lives.len()
    }

    pub fn produce(&self, life: usize, unit: String, cause: Cause) {
        let produced = Produced { life, cause, flushed: false };
        assert!(self.0.lock().produced.insert(unit, produced).is_none(), "units are unique");
    }

    /// Units that this life has produced and no flush has covered.
    pub fn unflushed(&self, life: usize) -> Vec<String> {
        let inner = self.0.lock();
        let of_life = inner.produced.iter().filter(|(_, produced)| produced.life == life && !produced.flushed);
        of_life.map(|(unit, _)| unit.clone()).collect()
    }

    pub fn flushed(&self, units: &[String]) {
        let mut inner = self.0.lock();
        for unit in units {
            inner.produced.get_mut(unit).expect("it was produced").flushed = true;
        }
    }

    pub fn violation(&self, what: String) {
        let mut inner = self.0.lock();
        if inner.violations.len() < 20 {
            inner.violations.push(what);
        }
    }

    pub fn violations(&self) -> Vec<String> {
        self.0.lock().violations.clone()
    }

    /// Compares the assignment log with what was produced; answers how many exposures are stored.
    ///
    /// Lost: a flush covered it, or its application lived to the end, and it is not there. Doubled: it is there twice. What an
    /// application had queued when it crashed may be missing, never doubled.
    pub fn check_exposures(&self, stored: &[Assignment]) -> usize {
        let mut copies: HashMap<Pseudonym, Vec<&Assignment>> = HashMap::new();
        for assignment in stored {
            copies.entry(assignment.unit).or_default().push(assignment);
        }
        let mut violations = Vec::new();
        {
            let inner = self.0.lock();
            for (unit, produced) in &inner.produced {
                let copies = copies.remove(&pseudonym(unit)).unwrap_or_default();
                match copies.as_slice() {
                    [] if produced.flushed => violations.push(format!("{unit} is lost")),
                    [] => {}
                    [one] if one.cause != produced.cause => {
                        violations.push(format!("{unit} has another cause: {one:?}"))
                    }
                    [_] => {}
                    more => violations.push(format!("{unit} is stored {} times", more.len())),
                }
            }
        }
        violations.extend(copies.values().map(|unknown| format!("nobody produced {unknown:?}")));
        violations.into_iter().for_each(|violation| self.violation(violation));
        stored.len()
    }

    /// Every acknowledged change is in the journal, with the hash it was acknowledged with.
    pub fn check_changes(&self, journal: &MemoryJournal) {
        let read = journal.read(0, usize::MAX);
        let entries =
            futures_util::FutureExt::now_or_never(read).expect("memory answers at once").expect("it is readable");
        let acknowledged = self.0.lock().acknowledged.clone();
        for head in acknowledged {
            let entry = entries.iter().find(|entry| entry.head().revision == head.revision);
            if entry.is_none_or(|entry| entry.hash != head.hash) {
                self.violation(format!("acknowledged change {} is not in the journal", head.revision));
            }
        }
    }
}
