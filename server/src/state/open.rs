//! Starting: the journal checked from end to end, and the world that it says, from the copy on disk where that is sound.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::keeper::{KeepOptions, Keeper, StoreFolder};
use super::sled::{SledStore, Stored};
use super::{KeySetSource, World, records};
use crate::clock::Clock;
use crate::journal::{self, FileJournal, Journal, RawEntry};
use crate::log::{Files, TornTail};

/// How journal and state are opened.
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    /// The journal; its `acknowledged` is not looked at, the copy of the state says what was.
    pub journal: journal::Options,
    /// The copy of the state.
    pub keep: KeepOptions,
}

/// Journal and state, ready for use.
pub struct Opened {
    /// The journal, every checksum and the chain verified.
    pub journal: FileJournal,
    /// The world at the journal's head.
    pub world: World,
    /// Keeps later worlds on disk.
    pub keeper: Keeper,
    /// What the start found.
    pub report: StartReport,
}

/// What a start found. It was logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartReport {
    /// Revision of the copy on disk that was used; `None` if the world was rebuilt from the journal.
    pub loaded_revision: Option<u64>,
    /// Why it was rebuilt, unless this is the first start.
    pub rebuilt_because: Option<String>,
    /// Entries folded.
    pub folded: u64,
    /// How long it took.
    pub took: Duration,
    /// A torn write at the journal's end that was cut off.
    pub torn: Option<TornTail>,
    /// Further things an operator should know, as sentences.
    pub notes: Vec<String>,
}

/// Why the server does not start. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The journal did not open, or lacks an entry that was acknowledged.
    #[error(transparent)]
    Journal(#[from] journal::OpenError),
    /// The operating system gave no thread.
    #[error("the thread that keeps the state did not start: {0}")]
    Thread(std::io::Error),
}

/// A copy of the state that can be used.
struct Copy {
    store: SledStore,
    stored: Stored,
    world: World,
}

/// Opens the journal in `journal_dir` and the copy of the state in `state_dir`, creating what is missing. Blocks while it
/// reads the whole journal. Key sets are read from `keys`.
///
/// # Errors
///
/// [`StartError`]; the journal is as it was then.
pub fn open(
    files: Arc<dyn Files>,
    journal_dir: &Path,
    state_dir: &Path,
    options: OpenOptions,
    clock: &dyn Clock,
    keys: &dyn KeySetSource,
) -> Result<Opened, StartError> {
    let started = Instant::now();
    let folder = StoreFolder::new(state_dir, options.keep.open_limit);
    let history = journal::history(&*files, journal_dir).map_err(journal::OpenError::from)?;
    let (mut copy, mut because) = match usable_copy(&folder, history.as_deref(), keys) {
        Ok(copy) => {
            let missing = copy.is_none() && history.is_some();
            (copy, missing.then(|| "there is no copy of it on disk".to_owned()))
        }
        Err(problem) => (None, Some(problem)),
    };
    let acknowledged = copy.as_ref().map_or(0, |copy| copy.stored.mark.revision);
    let opening = Opening { files, dir: journal_dir, options: options.journal, acknowledged, clock, keys };
    let (journal, recovered, fold) = match opening.fold(copy.as_ref()) {
        // What does not fit a copy that is sound in itself may be the copy's fault: the journal alone decides.
        Err(journal::OpenError::BadEntry(bad)) if copy.is_some() => {
            because = Some(format!("the copy on disk does not fit the journal: {bad}"));
            copy = None;
            opening.fold(None)?
        }
        done => done?,
    };
    let report = StartReport {
        loaded_revision: copy.as_ref().map(|copy| copy.stored.mark.revision),
        rebuilt_because: because,
        folded: fold.folded,
        took: started.elapsed(),
        torn: recovered.torn,
        notes: recovered.notes,
    };
    report.log(&fold.world);
    let (store, kept) = match copy {
        Some(copy) => (Some(copy.store), copy.world),
        None => (None, World::empty()),
    };
    let keeper = Keeper::start(folder, store, kept, journal.history(), options.keep).map_err(StartError::Thread)?;
    if keeper.health().revision < fold.world.revision {
        keeper.offer(Arc::new(fold.world.clone()));
    }
    Ok(Opened { journal, world: fold.world, keeper, report })
}

fn usable_copy(folder: &StoreFolder, history: Option<&str>, keys: &dyn KeySetSource) -> Result<Option<Copy>, String> {
    let Some((store, stored)) = folder.open()? else { return Ok(None) };
    // Where there is no journal at all, the copy is evidence that there was one.
    if history.is_some_and(|history| history != stored.mark.history) {
        return Err(format!("the copy on disk is of another history, {}", stored.mark.history));
    }
    let world = records::load(&stored, keys)?;
    Ok(Some(Copy { store, stored, world }))
}

struct Opening<'a> {
    files: Arc<dyn Files>,
    dir: &'a Path,
    options: journal::Options,
    acknowledged: u64,
    clock: &'a dyn Clock,
    keys: &'a dyn KeySetSource,
}

/// The world as far as it is folded.
struct Fold {
    world: World,
    folded: u64,
}

impl Opening<'_> {
    fn fold(&self, copy: Option<&Copy>) -> Result<(FileJournal, crate::log::Recovered, Fold), journal::OpenError> {
        let mut fold = Fold { world: copy.map_or_else(World::empty, |copy| copy.world.clone()), folded: 0 };
        let options = journal::Options { acknowledged: self.acknowledged, ..self.options.clone() };
        let visit = |raw: RawEntry<'_>| fold.step(raw, self.keys);
        let (journal, recovered) = FileJournal::open(self.files.clone(), self.dir, options, self.clock, visit)?;
        Ok((journal, recovered, fold))
    }
}

impl Fold {
    fn step(&mut self, raw: RawEntry<'_>, keys: &dyn KeySetSource) -> Result<(), String> {
        if raw.revision() == self.world.revision && raw.hash != self.world.hash {
            return Err(format!("its hash is {}, the copy of the state has {}", raw.hash, self.world.hash));
        }
        if raw.revision() > self.world.revision {
            let stored = raw.read()?;
            self.world = self.world.fold(&stored, keys).map_err(|error| error.to_string())?;
            self.folded += 1;
        }
        Ok(())
    }
}

impl StartReport {
    fn log(&self, world: &World) {
        let (revision, folded) = (world.revision, self.folded);
        let took_ms = u64::try_from(self.took.as_millis()).unwrap_or(u64::MAX);
        if let Some(torn) = &self.torn {
            tracing::warn!(
                file = %torn.path.display(), offset = torn.offset, bytes = torn.bytes,
                "the last write to the journal was torn, never acknowledged, and was cut off"
            );
        }
        for note in &self.notes {
            tracing::warn!("{note}");
        }
        match (&self.rebuilt_because, self.loaded_revision) {
            (Some(reason), _) => {
                tracing::warn!(%reason, revision, folded, took_ms, "the state was rebuilt from the journal");
            }
            (None, Some(loaded)) => tracing::info!(revision, loaded, folded, took_ms, "the state was loaded"),
            (None, None) => tracing::info!(revision, took_ms, "a new journal was begun"),
        }
    }
}

#[cfg(test)]
#[path = "open_tests.rs"]
mod tests;
