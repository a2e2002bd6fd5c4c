//! Runs a task for each webhook, keeps what they share, and answers what people ask of them.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rand::RngExt;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::task::{JoinHandle, JoinSet};

use super::signature::{SECRET_BYTES, Secret};
use super::worker::{self, attempt};
use super::{
    Caller, DeadLetter, Delivery, HookRecord, Notification, Outcome, RecordStore, Streak, Target, Webhook,
    WebhookMetrics,
};
use crate::audit::{Events, People};
use crate::changes::ChangeService;
use crate::clock::Clock;
use crate::shutdown::Shutdown;
use crate::state::World;
use crate::vault::{Kind, Vault, VaultError};

/// What nothing refers to is removed from the vault once it is this old, in milliseconds: a webhook that is being made may refer
/// to it yet.
const UNUSED_LIFE_MS: u64 = 10 * 60 * 1_000;
/// How often that is looked for, and tasks that ended are started again.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// What deliveries are made with.
pub struct Parts {
    /// The state and the journal.
    pub changes: Arc<ChangeService>,
    /// The security log.
    pub events: Arc<dyn Events>,
    /// Who an actor is.
    pub people: Arc<dyn People>,
    /// Where URLs and secrets are.
    pub vault: Arc<dyn Vault>,
    /// Calls receivers.
    pub caller: Arc<dyn Caller>,
    /// Keeps how far deliveries got.
    pub store: Arc<dyn RecordStore>,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// Deals waits: 0 to 1.
    pub jitter: fn() -> f64,
    /// Whether notifications name people, and not only their ids.
    pub show_names: bool,
    /// Metrics.
    pub metrics: WebhookMetrics,
}

/// A URL or a secret in the vault.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kept {
    value: String,
    made_at: u64,
}

impl Parts {
    /// What the vault has under a reference.
    pub(super) async fn kept(&self, reference: &str) -> Result<Option<String>, String> {
        let (vault, reference) = (Arc::clone(&self.vault), reference.to_owned());
        let read = tokio::task::spawn_blocking(move || vault.get(Kind::Webhook, &reference)).await;
        let read = read.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        let Some(bytes) = read else { return Ok(None) };
        let kept: Kept = serde_json::from_slice(&bytes).map_err(|_| "the vault's record of a webhook is damaged")?;
        Ok(Some(kept.value))
    }
}

/// A webhook's deliveries.
pub(super) struct Hook {
    pub(super) project: String,
    pub(super) id: String,
    /// Woken by who has something for it to do.
    pub(super) wake: Notify,
    state: Mutex<Recorded>,
    saving: tokio::sync::Mutex<()>,
    testing: tokio::sync::Mutex<()>,
}

struct Recorded {
    record: HookRecord,
    /// Whether the store has another one.
    is_changed: bool,
    saved_at: u64,
}

impl Hook {
    pub(super) fn new(project: &str, id: &str, record: HookRecord) -> Self {
        Self {
            project: project.to_owned(),
            id: id.to_owned(),
            wake: Notify::new(),
            state: Mutex::new(Recorded { record, is_changed: true, saved_at: 0 }),
            saving: tokio::sync::Mutex::default(),
            testing: tokio::sync::Mutex::default(),
        }
    }

    pub(super) fn read<T>(&self, read: impl FnOnce(&HookRecord) -> T) -> T {
        read(&self.state.lock().record)
    }

    pub(super) fn edit(&self, edit: impl FnOnce(&mut HookRecord)) {
        let mut state = self.state.lock();
        state.is_changed = true;
        edit(&mut state.record);
    }

    pub(super) fn saved_at(&self) -> u64 {
        self.state.lock().saved_at
    }

    /// Makes what changed durable. A failure is logged: what was delivered since may be delivered again after a start.
    pub(super) async fn save(&self, parts: &Parts) {
        let _saving = self.saving.lock().await;
        let record = {
            let mut state = self.state.lock();
            if !std::mem::take(&mut state.is_changed) {
                return;
            }
            state.saved_at = parts.clock.now_ms();
            state.record.clone()
        };
        let (store, project, id) = (Arc::clone(&parts.store), self.project.clone(), self.id.clone());
        let saved = tokio::task::spawn_blocking(move || store.save(&project, &id, &record)).await;
        if let Ok(Err(error)) = saved {
            tracing::error!(webhook = self.id, %error, "how far a webhook got could not be written");
            self.state.lock().is_changed = true;
        }
    }
}

/// Why something could not be done with a webhook.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// The vault did not take, or give, its URL or secret.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// Another test of it is under way.
    #[error("a test of this webhook is under way")]
    Busy,
    /// What is kept of it cannot be read.
    #[error("{0}")]
    Unreadable(String),
}

/// How a webhook does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Standing {
    /// `ok`, `failing` or `disabled`.
    pub state: &'static str,
    /// Failures in a row.
    #[serde(flatten)]
    pub streak: Option<Streak>,
    /// When the notification happened that is tried at present, in milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting_since: Option<u64>,
    /// Revision that it got to.
    pub revision: u64,
    /// How many dead letters are kept.
    pub dead_letters: usize,
    /// How many are not kept any more.
    pub dropped_dead_letters: u64,
    /// The last attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_delivery: Option<Delivery>,
}

/// The webhooks of all projects.
pub struct Notifications {
    parts: Arc<Parts>,
    hooks: Mutex<BTreeMap<(String, String), Arc<Hook>>>,
}

/// Deliveries that go on until the server stops.
pub struct Running(JoinHandle<()>);

impl Running {
    /// Waits until what was delivered is written down.
    pub async fn ended(self) {
        // A panic in there is logged by the runtime's hook.
        let _ = self.0.await;
    }
}

impl Notifications {
    /// Nothing is delivered before [`Self::start`].
    #[must_use]
    pub fn new(parts: Parts) -> Arc<Self> {
        Arc::new(Self { parts: Arc::new(parts), hooks: Mutex::default() })
    }

    /// Delivers until the shutdown begins.
    #[must_use]
    pub fn start(self: &Arc<Self>, shutdown: &Shutdown) -> Running {
        let (service, shutdown) = (Arc::clone(self), shutdown.clone());
        Running(tokio::spawn(async move { service.supervise(shutdown).await }))
    }

    /// Metrics of deliveries.
    #[must_use]
    pub fn metrics(&self) -> &WebhookMetrics {
        &self.parts.metrics
    }

    /// Since when the notification that waits longest waits, in milliseconds.
    #[must_use]
    pub fn queue_age_ms(&self) -> u64 {
        let (hooks, now) = (self.hooks.lock(), self.parts.clock.now_ms());
        let waiting = hooks.values().filter_map(|hook| hook.read(|record| record.waiting_since));
        waiting.map(|since| now.saturating_sub(since)).max().unwrap_or(0)
    }

    /// How many dead letters are kept.
    #[must_use]
    pub fn dead_letter_count(&self) -> usize {
        self.hooks.lock().values().map(|hook| hook.read(|record| record.dead_letters.len())).sum()
    }

    /// Whether a target may be called, now.
    ///
    /// # Errors
    ///
    /// Why not, in words.
    pub async fn check(&self, target: &Target) -> Result<(), String> {
        self.parts.caller.check(target).await.map_err(|error| error.to_string())
    }

    /// Keeps a URL or a secret in the vault, and answers the reference.
    ///
    /// # Errors
    ///
    /// If the vault does not take it.
    pub async fn keep(&self, value: &str) -> Result<String, HookError> {
        let reference = uuid::Uuid::new_v4().simple().to_string();
        let kept = Kept { value: value.to_owned(), made_at: self.parts.clock.now_ms() };
        let bytes = serde_json::to_vec(&kept).map_err(|error| HookError::Unreadable(error.to_string()))?;
        self.parts.vault.put(Kind::Webhook, &reference, bytes).await?;
        Ok(reference)
    }

    /// Makes a signing secret and keeps it: the reference, and the form that is shown once.
    ///
    /// # Errors
    ///
    /// As [`Self::keep`].
    pub async fn make_secret(&self) -> Result<String, HookError> {
        let bytes: [u8; SECRET_BYTES] = rand::rng().random();
        self.keep(&Secret::new(bytes).reveal()).await
    }

    /// What is kept under a reference.
    ///
    /// # Errors
    ///
    /// If the vault does not give it.
    pub async fn kept(&self, reference: &str) -> Result<Option<String>, HookError> {
        self.parts.kept(reference).await.map_err(HookError::Unreadable)
    }

    /// Removes what a webhook that was not made would have referred to. What stays goes with the next sweep.
    pub async fn forget(&self, references: &[String]) {
        for reference in references {
            if let Err(error) = self.parts.vault.delete(Kind::Webhook, reference).await {
                tracing::warn!(%error, "what a webhook would have kept in the vault was not removed yet");
            }
        }
    }

    /// How a webhook does.
    ///
    /// # Errors
    ///
    /// If what is kept of it cannot be read.
    pub async fn standing(&self, project: &str, webhook: &Webhook) -> Result<Standing, HookError> {
        let hook = self.hook(project, webhook).await?;
        Ok(hook.read(|record| Standing {
            state: match (webhook.enabled, record.streak) {
                (false, _) => "disabled",
                (true, Some(_)) => "failing",
                (true, None) => "ok",
            },
            streak: record.streak.filter(|_| webhook.enabled),
            waiting_since: record.waiting_since.filter(|_| webhook.enabled),
            revision: record.entries_done,
            dead_letters: record.dead_letters.len(),
            dropped_dead_letters: record.dropped,
            last_delivery: record.deliveries.back().cloned(),
        }))
    }

    /// The last deliveries of a webhook, the latest first.
    ///
    /// # Errors
    ///
    /// If what is kept of it cannot be read.
    pub async fn deliveries(&self, project: &str, webhook: &Webhook) -> Result<Vec<Delivery>, HookError> {
        let hook = self.hook(project, webhook).await?;
        Ok(hook.read(|record| record.deliveries.iter().rev().cloned().collect()))
    }

    /// The dead letters of a webhook, the oldest first.
    ///
    /// # Errors
    ///
    /// If what is kept of it cannot be read.
    pub async fn dead_letters(&self, project: &str, webhook: &Webhook) -> Result<Vec<DeadLetter>, HookError> {
        let hook = self.hook(project, webhook).await?;
        Ok(hook.read(|record| record.dead_letters.iter().cloned().collect()))
    }

    /// Has dead letters sent again, one by its id or all, and answers how many.
    ///
    /// # Errors
    ///
    /// If what is kept of the webhook cannot be read.
    pub async fn resend(&self, project: &str, webhook: &Webhook, id: Option<&str>) -> Result<usize, HookError> {
        let hook = self.hook(project, webhook).await?;
        let mut count = 0;
        hook.edit(|record| count = record.resend(id));
        hook.save(&self.parts).await;
        hook.wake.notify_one();
        Ok(count)
    }

    /// Calls a webhook once, enabled or not, in nobody's turn, and answers what came of it.
    ///
    /// # Errors
    ///
    /// [`HookError::Busy`] while another test of it is under way.
    pub async fn test(&self, project: &str, webhook: &Webhook, actor_id: &str) -> Result<Delivery, HookError> {
        let hook = self.hook(project, webhook).await?;
        let Ok(_alone) = hook.testing.try_lock() else { return Err(HookError::Busy) };
        let (world, at) = (self.parts.changes.world(), self.parts.clock.now_ms());
        let id = format!("ping-{}", uuid::Uuid::new_v4().simple());
        let ping = Notification::ping(id.clone(), at, project, actor_id, &world);
        let attempt = attempt(&self.parts, webhook, &ping, &world).await;
        let outcome = if attempt.error.is_none() { Outcome::Delivered } else { Outcome::Failed };
        self.parts.metrics.count(outcome);
        let (topic, status, took_ms, error) = (ping.topic, attempt.status, attempt.took_ms, attempt.error);
        let delivery = Delivery { id, topic, at, attempt: 1, outcome, status, took_ms, error };
        hook.edit(|record| record.log(delivery.clone()));
        hook.save(&self.parts).await;
        Ok(delivery)
    }

    /// The deliveries of a webhook, read from the store if they are not at hand.
    async fn hook(&self, project: &str, webhook: &Webhook) -> Result<Arc<Hook>, HookError> {
        let key = (project.to_owned(), webhook.id.clone());
        if let Some(hook) = self.hooks.lock().get(&key) {
            return Ok(Arc::clone(hook));
        }
        let (store, (project, id)) = (Arc::clone(&self.parts.store), key.clone());
        let loaded = tokio::task::spawn_blocking(move || store.load(&project, &id)).await;
        let record = match loaded.map_err(|error| HookError::Unreadable(error.to_string()))? {
            Ok(Some(record)) => record,
            Ok(None) => HookRecord::new(webhook, self.parts.clock.now_ms()),
            Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                let id = &webhook.id;
                tracing::error!(webhook = id, %error, "what was kept of a webhook's deliveries is damaged; it starts anew");
                HookRecord::new(webhook, self.parts.clock.now_ms())
            }
            Err(error) => return Err(HookError::Unreadable(error.to_string())),
        };
        // Whoever else read it meanwhile was first.
        let mut hooks = self.hooks.lock();
        let made = || Arc::new(Hook::new(&key.0, &key.1, record));
        Ok(Arc::clone(hooks.entry(key.clone()).or_insert_with(made)))
    }

    async fn supervise(&self, shutdown: Shutdown) {
        let mut tasks: JoinSet<(String, String)> = JoinSet::new();
        let mut running: HashSet<(String, String)> = HashSet::new();
        let mut revisions = self.parts.changes.follower().watch();
        let mut sweep = tokio::time::interval_at(tokio::time::Instant::now() + SWEEP_EVERY, SWEEP_EVERY);
        loop {
            revisions.borrow_and_update();
            let world = self.parts.changes.world();
            for (key, webhook) in enabled(&world) {
                if running.contains(&key) {
                    continue;
                }
                match self.hook(&key.0, &webhook).await {
                    Ok(hook) => {
                        running.insert(key.clone());
                        let work = tokio::spawn(worker::run(Arc::clone(&self.parts), hook, shutdown.clone()));
                        tasks.spawn(async move {
                            if let Err(error) = work.await {
                                tracing::error!(webhook = key.1, %error, "a webhook's deliveries were cut short");
                            }
                            key
                        });
                    }
                    Err(error) => tracing::error!(webhook = key.1, %error, "a webhook waits"),
                }
            }
            tokio::select! {
                biased;
                () = shutdown.begun() => break,
                Some(ended) = tasks.join_next(), if !tasks.is_empty() => {
                    if let Ok(key) = ended {
                        running.remove(&key);
                    }
                }
                _ = revisions.changed() => {}
                _ = sweep.tick() => self.sweep(&running).await,
            }
        }
        while tasks.join_next().await.is_some() {}
    }

    /// Removes what belongs to no webhook any more.
    async fn sweep(&self, running: &HashSet<(String, String)>) {
        let (world, now) = (self.parts.changes.world(), self.parts.clock.now_ms());
        let is_there =
            |project: &str, id: &str| world.project(project).is_some_and(|project| project.webhooks.contains_key(id));
        self.hooks.lock().retain(|key, _| is_there(&key.0, &key.1) || running.contains(key));
        let there: HashSet<(String, String)> = all(&world).map(|(key, _)| key).collect();
        let (store, running) = (Arc::clone(&self.parts.store), running.clone());
        let kept = tokio::task::spawn_blocking(move || {
            store.retain(&|project, id| {
                let key = (project.to_owned(), id.to_owned());
                there.contains(&key) || running.contains(&key)
            })
        });
        if let Ok(Err(error)) = kept.await {
            tracing::warn!(%error, "what was kept of deleted webhooks was not removed yet");
        }
        let used: HashSet<String> =
            all(&world).flat_map(|(_, webhook)| webhook.references().map(str::to_owned).collect::<Vec<_>>()).collect();
        let vault = Arc::clone(&self.parts.vault);
        let unused = tokio::task::spawn_blocking(move || {
            let unused = vault.list(Kind::Webhook).into_iter().filter(|reference| !used.contains(reference));
            let is_old = |reference: &String| {
                let kept = vault.get(Kind::Webhook, reference).ok().flatten();
                let made_at =
                    kept.and_then(|bytes| serde_json::from_slice::<Kept>(&bytes).ok()).map(|kept| kept.made_at);
                made_at.is_none_or(|made_at| made_at.saturating_add(UNUSED_LIFE_MS) < now)
            };
            unused.filter(is_old).collect::<Vec<String>>()
        });
        self.forget(&unused.await.unwrap_or_default()).await;
    }
}

fn all(world: &World) -> impl Iterator<Item = ((String, String), Arc<Webhook>)> {
    world.projects.iter().flat_map(|(project, state)| {
        state.webhooks.iter().map(move |(id, webhook)| ((project.clone(), id.clone()), Arc::clone(webhook)))
    })
}

fn enabled(world: &World) -> impl Iterator<Item = ((String, String), Arc<Webhook>)> {
    all(world).filter(|(_, webhook)| webhook.enabled)
}
