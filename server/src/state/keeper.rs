//! Keeps the folded world on disk, behind the acknowledgements: one thread, whose failure fails no change.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use std::{fs, io};

use parking_lot::{Condvar, Mutex};

use super::sled::{SledStore, Stored};
use super::{Publisher, World, records};
use crate::journal::StoredEntry;

/// How the world is kept.
#[derive(Clone, Debug)]
pub struct KeepOptions {
    /// Least time between two writes: all changes in between go into one. 500 ms by default.
    pub interval: Duration,
    /// How long opening the store may take before it is given up and made anew. 10 s by default.
    pub open_limit: Duration,
    /// Pause before a fresh store is tried after a failure. 60 s by default.
    pub retry: Duration,
    /// The store is made anew when its file is longer than this and four times what it holds. 256 MiB by default.
    pub max_bytes: u64,
    /// How long closing waits for the last write. 5 s by default.
    pub close_limit: Duration,
}

impl Default for KeepOptions {
    fn default() -> Self {
        Self {
            interval: Duration::from_millis(500),
            open_limit: Duration::from_secs(10),
            retry: Duration::from_secs(60),
            max_bytes: 256 << 20,
            close_limit: Duration::from_secs(5),
        }
    }
}

/// The folder of the stores: numbered, of which the newest counts and the others are left over.
#[derive(Clone, Debug)]
pub(super) struct StoreFolder {
    root: PathBuf,
    open_limit: Duration,
}

impl StoreFolder {
    pub(super) fn new(root: &Path, open_limit: Duration) -> Self {
        Self { root: root.to_owned(), open_limit }
    }

    /// Numbers of the stores, newest first.
    fn numbers(&self) -> io::Result<Vec<u32>> {
        let mut numbers = Vec::new();
        match fs::read_dir(&self.root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
            Ok(entries) => {
                for entry in entries {
                    let name = entry?.file_name();
                    numbers
                        .extend(name.to_str().filter(|name| name.len() == 6).and_then(|name| name.parse::<u32>().ok()));
                }
            }
        }
        numbers.sort_unstable_by(|left, right| right.cmp(left));
        Ok(numbers)
    }

    fn path(&self, number: u32) -> PathBuf {
        self.root.join(format!("{number:06}"))
    }

    /// The newest store that was ever written to; `Ok(None)` where there is none, an error where it is not usable.
    pub(super) fn open(&self) -> Result<Option<(SledStore, Stored)>, String> {
        for number in self.numbers().map_err(|error| format!("{}: {error}", self.root.display()))? {
            let path = self.path(number);
            if let Some(opened) =
                SledStore::open(&path, self.open_limit).map_err(|problem| format!("{}: {problem}", path.display()))?
            {
                return Ok(Some(opened));
            }
        }
        Ok(None)
    }

    fn fresh(&self) -> Result<SledStore, String> {
        let newest = self.numbers().map_err(|error| format!("{}: {error}", self.root.display()))?.first().copied();
        // Past the last number the folder starts over; by then the low ones are long gone.
        let number = newest.map_or(1, |newest| (newest + 1) % 1_000_000);
        let path = self.path(number);
        SledStore::create(&path, self.open_limit).map_err(|problem| format!("{}: {problem}", path.display()))
    }

    /// Removes all stores but the one in `kept`. One that hangs in another thread is only unlinked.
    fn remove_others(&self, kept: &Path) {
        for path in self.numbers().unwrap_or_default().into_iter().map(|number| self.path(number)) {
            if path != kept
                && let Err(error) = fs::remove_dir_all(&path)
            {
                tracing::warn!(path = %path.display(), %error, "an old copy of the state could not be removed");
            }
        }
    }
}

/// How the keeping goes, for health checks and metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeepHealth {
    /// Revision of the world on disk.
    pub revision: u64,
    /// What failed last, until a write succeeds. Nothing is lost by it: the next start takes longer.
    pub failure: Option<String>,
}

/// Keeps the newest world it was given on disk. Dropping it closes it.
pub struct Keeper {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
    close_limit: Duration,
}

#[derive(Default)]
struct Shared {
    desk: Mutex<Desk>,
    wake: Condvar,
    health: Mutex<KeepHealth>,
}

#[derive(Default)]
struct Desk {
    newest: Option<Arc<World>>,
    closing: bool,
    ended: bool,
}

impl Keeper {
    /// Starts with what is on disk: `store`, if it is usable, which holds the records of `kept`.
    pub(super) fn start(
        folder: StoreFolder,
        store: Option<SledStore>,
        kept: World,
        history: &str,
        options: KeepOptions,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        shared.health.lock().revision = kept.revision;
        let close_limit = options.close_limit;
        let worker = Worker { shared: shared.clone(), folder, store, kept, history: history.to_owned(), options };
        let thread = std::thread::Builder::new().name("state".to_owned()).spawn(move || worker.run())?;
        Ok(Self { shared, thread: Mutex::new(Some(thread)), close_limit })
    }

    /// Takes note of a newer world, all of which must be durable in the journal: what is kept is evidence of that. Returns
    /// at once.
    pub fn offer(&self, world: Arc<World>) {
        self.shared.desk.lock().newest = Some(world);
        self.shared.wake.notify_all();
    }

    /// How it goes.
    #[must_use]
    pub fn health(&self) -> KeepHealth {
        self.shared.health.lock().clone()
    }

    /// Writes what was offered last and ends. Blocks for [`KeepOptions::close_limit`] at most.
    pub fn close(&self) {
        let Some(thread) = self.thread.lock().take() else { return };
        let mut desk = self.shared.desk.lock();
        desk.closing = true;
        self.shared.wake.notify_all();
        let until = Instant::now() + self.close_limit;
        while !desk.ended && !self.shared.wake.wait_until(&mut desk, until).timed_out() {}
        let ended = desk.ended;
        drop(desk);
        if ended {
            let _ = thread.join();
        } else {
            tracing::warn!("the state was not written in time; the next start folds the rest of the journal");
        }
    }
}

impl Publisher for Keeper {
    fn publish(&self, _: &Arc<World>, after: &Arc<World>, _: &[StoredEntry]) {
        self.offer(Arc::clone(after));
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.close();
    }
}

struct Worker {
    shared: Arc<Shared>,
    folder: StoreFolder,
    store: Option<SledStore>,
    /// What the store holds; only looked at while there is one.
    kept: World,
    history: String,
    options: KeepOptions,
}

impl Worker {
    fn run(mut self) {
        // Whatever ends the thread, nobody waits for it in vain.
        struct End(Arc<Shared>);
        impl Drop for End {
            fn drop(&mut self) {
                self.0.desk.lock().ended = true;
                self.0.wake.notify_all();
            }
        }
        let _end = End(self.shared.clone());
        let mut pause = Duration::ZERO;
        while let Some(world) = self.next(pause) {
            pause = match self.keep(&world) {
                Ok(()) => {
                    *self.shared.health.lock() = KeepHealth { revision: world.revision, failure: None };
                    self.options.interval
                }
                Err(failure) => {
                    tracing::warn!(%failure, "the state could not be kept on disk; the journal has everything");
                    self.shared.health.lock().failure = Some(failure);
                    self.store = None;
                    self.retry_later(world);
                    self.options.retry
                }
            };
        }
    }

    /// Waits out the pause, then for a world that is not kept yet; `None` when there is nothing more to do.
    fn next(&self, pause: Duration) -> Option<Arc<World>> {
        let mut desk = self.shared.desk.lock();
        let until = Instant::now() + pause;
        while !desk.closing && !self.shared.wake.wait_until(&mut desk, until).timed_out() {}
        loop {
            if let Some(world) = desk.newest.take() {
                // After a failure a closing server does not wait for another.
                let failed = self.shared.health.lock().failure.is_some();
                return (!desk.closing || !failed).then_some(world);
            }
            if desk.closing {
                return None;
            }
            self.shared.wake.wait(&mut desk);
        }
    }

    fn retry_later(&self, world: Arc<World>) {
        let mut desk = self.shared.desk.lock();
        if desk.newest.is_none() {
            desk.newest = Some(world);
        }
    }

    fn keep(&mut self, world: &World) -> Result<(), String> {
        if self.store.as_ref().is_some_and(|store| store.is_longer_than(self.options.max_bytes)) {
            self.store = None;
        }
        match &mut self.store {
            Some(store) => {
                let writes = records::difference(&self.kept, world).map_err(|error| error.to_string())?;
                store.write(&records::mark(world, &self.history), writes)?;
            }
            None => {
                let mut store = self.folder.fresh()?;
                let writes = records::difference(&World::empty(), world).map_err(|error| error.to_string())?;
                store.write(&records::mark(world, &self.history), writes)?;
                self.folder.remove_others(store.dir());
                self.store = Some(store);
            }
        }
        self.kept = world.clone();
        Ok(())
    }
}
