//! Keeps the world at the end of the journal.
//!
//! One task reads durable entries, folds them, swaps the world whole and tells the publishers, in order. Nothing else changes
//! the world, so that a server whose journal others write to as well works the same way as one that is alone.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use guidon_sdk::model::KeySetRef;
use tokio::sync::watch;

use super::{KeySetSource, World};
use crate::changes::keysets::{KeySetStore, visit_entry};
use crate::journal::{Journal, StoredEntry};

/// Most entries folded before the world is swapped and published.
const MAX_BATCH_ENTRIES: usize = 64;

/// Told of every step of the world.
pub trait Publisher: Send + Sync + 'static {
    /// `entries` made `after` of `before`. Called in order, never at the same time twice; it must not block.
    fn publish(&self, before: &Arc<World>, after: &Arc<World>, entries: &[StoredEntry]);
}

/// Whether the world follows the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FollowerHealth {
    /// It does.
    Following,
    /// It does not any more: reads answer the state of `revision`, and writes are refused.
    Stopped {
        /// Last revision that was folded.
        revision: u64,
        /// What went wrong.
        reason: String,
    },
}

/// The world as far as it is durable, kept current.
pub struct Follower {
    world: ArcSwap<World>,
    reached: watch::Sender<u64>,
    health: watch::Sender<FollowerHealth>,
}

/// The world does not follow the journal any more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the state stopped at revision {revision}: {reason}")]
pub struct Stopped {
    /// Last revision that was folded.
    pub revision: u64,
    /// What went wrong.
    pub reason: String,
}

impl Follower {
    /// A follower that starts at `world`.
    #[must_use]
    pub fn new(world: World) -> Arc<Self> {
        let reached = watch::Sender::new(world.revision);
        let health = watch::Sender::new(FollowerHealth::Following);
        Arc::new(Self { world: ArcSwap::from_pointee(world), reached, health })
    }

    /// The world now.
    #[must_use]
    pub fn world(&self) -> Arc<World> {
        self.world.load_full()
    }

    /// Whether the world follows the journal.
    #[must_use]
    pub fn health(&self) -> FollowerHealth {
        self.health.borrow().clone()
    }

    /// Follows the revision of the world.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.reached.subscribe()
    }

    /// Waits until the world holds the entry `revision`.
    ///
    /// # Errors
    ///
    /// [`Stopped`] if it never will.
    pub async fn reach(&self, revision: u64) -> Result<(), Stopped> {
        let (mut reached, mut health) = (self.reached.subscribe(), self.health.subscribe());
        let stopped = health.wait_for(|health| *health != FollowerHealth::Following);
        tokio::select! {
            biased;
            // The senders live as long as `self`, so that neither wait ends early.
            _ = reached.wait_for(|reached| *reached >= revision) => Ok(()),
            _ = stopped => Err(self.stopped().unwrap_or(Stopped { revision, reason: "the server stops".to_owned() })),
        }
    }

    /// Why the world does not follow the journal, if it does not.
    #[must_use]
    pub fn stopped(&self) -> Option<Stopped> {
        match self.health() {
            FollowerHealth::Following => None,
            FollowerHealth::Stopped { revision, reason } => Some(Stopped { revision, reason }),
        }
    }

    /// Follows `journal` in a task of its own, until the task is aborted or the journal cannot be followed.
    pub fn spawn(
        self: &Arc<Self>,
        journal: Arc<dyn Journal>,
        key_sets: Arc<dyn KeySetStore>,
        publishers: Vec<Arc<dyn Publisher>>,
    ) -> tokio::task::JoinHandle<()> {
        let follower = Arc::clone(self);
        tokio::spawn(async move {
            // A task of its own turns a panic in a publisher into a health state.
            let following = Arc::clone(&follower);
            let mut task =
                AbortOnDrop(tokio::spawn(async move { following.run(&*journal, &*key_sets, &publishers).await }));
            let reason = match (&mut task.0).await {
                Ok(reason) => reason,
                Err(failed) => failed.to_string(),
            };
            let revision = follower.world().revision;
            tracing::error!(revision, reason, "the state does not follow the journal any more: restart the server");
            follower.health.send_replace(FollowerHealth::Stopped { revision, reason });
        })
    }

    /// Answers why it ended.
    async fn run(
        &self,
        journal: &dyn Journal,
        key_sets: &dyn KeySetStore,
        publishers: &[Arc<dyn Publisher>],
    ) -> String {
        let mut durable = journal.watch();
        loop {
            durable.borrow_and_update();
            let before = self.world();
            let entries = match journal.read(before.revision, MAX_BATCH_ENTRIES).await {
                Ok(entries) => entries,
                Err(error) => return error.to_string(),
            };
            if entries.is_empty() {
                if durable.changed().await.is_err() {
                    return "the journal was closed".to_owned();
                }
                continue;
            }
            match fold_all(&before, &entries, key_sets).await {
                Ok(after) => self.step(&before, Arc::new(after), &entries, publishers),
                Err(reason) => return reason,
            }
        }
    }

    fn step(&self, before: &Arc<World>, after: Arc<World>, entries: &[StoredEntry], publishers: &[Arc<dyn Publisher>]) {
        self.world.store(Arc::clone(&after));
        for publisher in publishers {
            publisher.publish(before, &after, entries);
        }
        self.reached.send_replace(after.revision);
    }
}

struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn fold_all(before: &World, entries: &[StoredEntry], key_sets: &dyn KeySetStore) -> Result<World, String> {
    let mut world = before.clone();
    for stored in entries {
        let fetched = FetchedKeySets::of_entry(stored, key_sets).await.map_err(|error| error.to_string())?;
        world = world.fold(stored, &fetched).map_err(|error| error.to_string())?;
    }
    Ok(world)
}

/// Key sets read ahead, so that folding itself waits for nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct FetchedKeySets(HashMap<KeySetRef, Arc<[String]>>);

impl FetchedKeySets {
    async fn of_entry(
        stored: &StoredEntry,
        from: &dyn KeySetStore,
    ) -> Result<Self, crate::changes::keysets::KeySetError> {
        let mut wanted = Vec::new();
        visit_entry(&stored.entry, &mut |set| wanted.push(set.clone()));
        let mut fetched = Self::default();
        fetched.fetch(&wanted, from).await?;
        Ok(fetched)
    }

    /// Reads the sets that are not here yet.
    pub(crate) async fn fetch(
        &mut self,
        wanted: &[KeySetRef],
        from: &dyn KeySetStore,
    ) -> Result<(), crate::changes::keysets::KeySetError> {
        for set in wanted {
            if !self.0.contains_key(set)
                && let Some(keys) = from.get(set).await?
            {
                self.0.insert(set.clone(), keys);
            }
        }
        Ok(())
    }
}

impl KeySetSource for FetchedKeySets {
    fn keys(&self, set: &KeySetRef) -> Option<Arc<[String]>> {
        self.0.get(set).cloned()
    }
}
