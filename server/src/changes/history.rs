//! Earlier states, found by folding the journal from its start or from a state that was found before.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::ChangeError;
use crate::journal::{Journal, StoredEntry};
use crate::state::{NoKeySets, World};

/// Entries read and folded at a time, off the threads that answer requests.
const PAGE_ENTRIES: usize = 512;

/// Every so many entries the state found on the way is kept.
const CHECKPOINT_ENTRIES: u64 = 4_096;

/// Most states that are kept.
const MAX_CHECKPOINTS: usize = 32;

/// Finds earlier states, without targeting keys, one at a time.
pub(crate) struct History {
    journal: Arc<dyn Journal>,
    checkpoints: Mutex<BTreeMap<u64, Arc<World>>>,
    turn: Semaphore,
}

impl History {
    pub(crate) fn new(journal: Arc<dyn Journal>) -> Self {
        Self { journal, checkpoints: Mutex::default(), turn: Semaphore::new(1) }
    }

    /// The state at `revision`, which must be durable.
    pub(crate) async fn at(&self, revision: u64) -> Result<Arc<World>, ChangeError> {
        let unavailable = |reason: String| ChangeError::Unavailable { reason };
        let _turn = self.turn.acquire().await.map_err(|error| unavailable(error.to_string()))?;
        let mut world = self.nearest(revision);
        while world.revision < revision {
            let limit = usize::try_from(revision - world.revision).unwrap_or(PAGE_ENTRIES).min(PAGE_ENTRIES);
            let page = self.journal.read(world.revision, limit).await?;
            if page.is_empty() {
                return Err(unavailable(format!("the journal has no entry {}", world.revision + 1)));
            }
            let folding = tokio::task::spawn_blocking(move || fold_page(&world, &page));
            world = folding.await.map_err(|error| unavailable(error.to_string()))?.map_err(unavailable)?;
            self.keep(&world);
        }
        Ok(world)
    }

    fn nearest(&self, revision: u64) -> Arc<World> {
        let checkpoints = self.checkpoints.lock();
        checkpoints.range(..=revision).next_back().map_or_else(Arc::default, |(_, world)| Arc::clone(world))
    }

    fn keep(&self, world: &Arc<World>) {
        let mut checkpoints = self.checkpoints.lock();
        let last = checkpoints.range(..=world.revision).next_back().map_or(0, |(revision, _)| *revision);
        if world.revision - last < CHECKPOINT_ENTRIES {
            return;
        }
        checkpoints.insert(world.revision, Arc::clone(world));
        if checkpoints.len() > MAX_CHECKPOINTS {
            // Every other one: what is left is as evenly spread as before.
            let mut odd = false;
            checkpoints.retain(|_, _| {
                odd = !odd;
                !odd
            });
        }
    }
}

fn fold_page(world: &World, page: &[StoredEntry]) -> Result<Arc<World>, String> {
    let mut world = world.clone();
    for stored in page {
        world = world.fold(stored, &NoKeySets).map_err(|error| error.to_string())?;
    }
    Ok(Arc::new(world))
}
