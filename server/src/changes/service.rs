//! The only writer.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::{Mutex, MutexGuard, oneshot, watch};

use super::authorize::Verdict;
use super::gate::{Proposed, propose};
use super::history::History;
use super::keysets::KeySetStore;
use super::mint::hex;
use super::prepare::Prepared;
use super::reach::Reach;
use super::request::RequestStore;
use super::resolve::Past;
use super::{
    Author, ChangeDraft, ChangeError, ChangeOutcome, IdempotencyKey, Instruction, Mint, Needs, Problem, Reaches,
    RevertDraft, describe, requests, revert,
};
use crate::audit::AuditLog;
use crate::clock::Clock;
use crate::journal::{AppendError, Appending, Entry, Health, Idempotency, Journal, ObjectId};
use crate::policy::PolicyCache;
use crate::state::{Follower, FollowerHealth, Publisher, World};

/// Key of the project that every store starts with.
pub const DEFAULT_PROJECT: &str = "default";

/// Entries kept in memory to name conflicts with.
const MAX_RECENT_ENTRIES: usize = 256;

/// Most entries that a conflict names.
const MAX_CONFLICT_ENTRIES: usize = 100;

/// Most entries that are read back to find conflicts; a change made for an older revision conflicts as a whole.
pub(super) const MAX_LOOK_BACK_ENTRIES: u64 = 10_000;

/// How often a change is prepared again because another server wrote first, before it is given up as [`ChangeError::Busy`].
const MAX_ATTEMPTS: usize = 200;

/// How long a change waits for another server's entry before it looks again.
const CONTENTION_PAUSE: Duration = Duration::from_millis(20);

/// What a [`ChangeService`] is made of.
pub struct Parts {
    /// Where changes are kept.
    pub journal: Arc<dyn Journal>,
    /// Where their targeting keys are kept.
    pub key_sets: Arc<dyn KeySetStore>,
    /// Where is kept what change requests ask for.
    pub requests: Arc<dyn RequestStore>,
    /// Takes note of what was refused.
    pub audit: Arc<dyn AuditLog>,
    /// Measures how many people rules match.
    pub reaches: Arc<dyn Reaches>,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub mint: Box<dyn Mint>,
    /// The journal folded, as far as it was read; the rest is caught up with.
    pub world: World,
    /// Told of every step, in order.
    pub publishers: Vec<Arc<dyn Publisher>>,
}

/// Takes every change: checks it against the present state, journals it, and answers once it is durable and visible.
///
/// Changes are prepared one at a time, against a head that holds the entries on their way to being durable, and wait for
/// durability together: many writers share one sync.
pub struct ChangeService {
    journal: Arc<dyn Journal>,
    pub(super) key_sets: Arc<dyn KeySetStore>,
    pub(super) requests: Arc<dyn RequestStore>,
    pub(super) audit: Arc<dyn AuditLog>,
    pub(super) reaches: Arc<dyn Reaches>,
    pub(super) policies: PolicyCache,
    pub(super) clock: Arc<dyn Clock>,
    follower: Arc<Follower>,
    following: tokio::task::JoinHandle<()>,
    history: History,
    head: Mutex<Head>,
    pub(super) failures: Arc<Failures>,
}

/// Writes that did not become durable.
pub(super) struct Failures {
    /// Set when an entry that the head holds may not be in the journal.
    stale: AtomicBool,
    /// Counts them, so that who waits for another's write learns of its failure.
    pub(super) count: watch::Sender<u64>,
}

impl Failures {
    fn note(&self) {
        self.stale.store(true, Ordering::Release);
        self.count.send_modify(|count| *count += 1);
    }
}

/// The state that changes are prepared against.
pub(super) struct Head {
    pub(super) world: World,
    pub(super) mint: Box<dyn Mint>,
    recent: VecDeque<Arc<Entry>>,
}

enum Placed {
    /// There is nothing to append: what the answer says is so once the revision it says it of is durable.
    Done(ChangeOutcome),
    /// The same request made, or is making, this revision.
    Replay(u64, String),
    /// Answers once the entry is durable, or is not.
    Appended(oneshot::Receiver<Result<(), AppendError>>, ChangeOutcome),
    /// It has to become a change request.
    Proposed(Proposed),
}

impl Drop for ChangeService {
    fn drop(&mut self) {
        self.following.abort();
    }
}

impl ChangeService {
    /// Starts the service, and the task that keeps its world current.
    #[must_use]
    pub fn start(parts: Parts) -> Arc<Self> {
        let Parts { journal, key_sets, requests, audit, reaches, clock, mint, world, publishers } = parts;
        let head = Head { world: world.clone(), mint, recent: VecDeque::new() };
        let follower = Follower::new(world);
        let following = follower.spawn(Arc::clone(&journal), Arc::clone(&key_sets), publishers);
        let history = History::new(Arc::clone(&journal));
        Arc::new(Self {
            history,
            journal,
            key_sets,
            requests,
            audit,
            reaches,
            policies: PolicyCache::default(),
            clock,
            follower,
            following,
            head: Mutex::new(head),
            failures: Arc::new(Failures { stale: AtomicBool::new(true), count: watch::Sender::new(0) }),
        })
    }

    /// The durable state now.
    #[must_use]
    pub fn world(&self) -> Arc<World> {
        self.follower.world()
    }

    /// What keeps the state current.
    #[must_use]
    pub fn follower(&self) -> &Arc<Follower> {
        &self.follower
    }

    /// The journal, for reading.
    #[must_use]
    pub fn journal(&self) -> &Arc<dyn Journal> {
        &self.journal
    }

    /// Whether changes can be made, and why not.
    #[must_use]
    pub fn health(&self) -> Health {
        match self.follower.health() {
            FollowerHealth::Following => self.journal.health(),
            FollowerHealth::Stopped { reason, .. } => Health::ReadOnly(reason),
        }
    }

    /// Creates the project `default`, with an environment in each tier, in a store that has none.
    ///
    /// # Errors
    ///
    /// [`ChangeError`] if it could not be journaled.
    pub async fn ensure_default_project(&self) -> Result<(), ChangeError> {
        self.follower.reach(self.journal.head().revision).await?;
        if !self.world().projects.is_empty() {
            return Ok(());
        }
        let change = ChangeDraft {
            project: DEFAULT_PROJECT.to_owned(),
            comment: "First start".to_owned(),
            instructions: vec![Instruction::CreateProject { name: "Default".to_owned() }],
            ..ChangeDraft::default()
        };
        self.submit(&Author::system(), change).await.map(|_| ())
    }

    /// Makes a change, or says all that is wrong with it. Answers once the change is durable and [`Self::world`] shows it.
    ///
    /// A change that asks for what is already so is no error and no entry: its outcome has the present revision and changed
    /// nothing.
    ///
    /// # Errors
    ///
    /// [`ChangeError`]; nothing of the change is applied then, except that after [`ChangeError::Unavailable`] a change on its
    /// way to the disk may turn out to be there after a restart.
    pub async fn submit(&self, author: &Author, change: ChangeDraft) -> Result<ChangeOutcome, ChangeError> {
        requests::refuse_forged(&change)?;
        self.carry_out(author, change).await
    }

    /// As [`Self::submit`], for changes that may also be steps of a change request: only this module makes those, since what they
    /// say of who approved and what is applied is taken at its word.
    pub(super) async fn carry_out(&self, author: &Author, change: ChangeDraft) -> Result<ChangeOutcome, ChangeError> {
        let past = self.past(&change).await?;
        let reach = self.reach(author, &change).await;
        for _ in 0..MAX_ATTEMPTS {
            let failures = self.failures.count.subscribe();
            match self.place(author, &change, &past, &reach).await {
                Ok(Placed::Done(outcome)) => {
                    if self.settled(outcome.revision, failures).await? {
                        return Ok(outcome);
                    }
                }
                Ok(Placed::Appended(durable, outcome)) => return self.finish(durable, outcome).await,
                Ok(Placed::Replay(revision, key)) => {
                    if let Some(outcome) = self.replay(revision, &key, failures).await? {
                        return self.carried_out_since(&change.project, outcome).await;
                    }
                }
                Ok(Placed::Proposed(proposed)) => return Box::pin(self.open(author, change, proposed)).await,
                Err(PlaceError::Contended) => self.wait_for_others().await,
                Err(PlaceError::Refused(error)) => {
                    self.note_refusal(author, &change, &error);
                    return Err(error);
                }
            }
        }
        Err(ChangeError::Busy)
    }

    /// Puts an environment, or some of its flags and segments, back to what they were at an earlier revision, as a new entry.
    /// Salts and allocations come back exactly.
    ///
    /// # Errors
    ///
    /// As [`Self::submit`]. What cannot be put back, because something it refers to is gone, is refused as a whole.
    pub async fn revert(&self, author: &Author, revert: RevertDraft) -> Result<ChangeOutcome, ChangeError> {
        let durable = self.world();
        if revert.to_revision > durable.revision {
            let message =
                format!("revision {} does not exist; the present one is {}", revert.to_revision, durable.revision);
            return Err(vec![Problem::new("/toRevision", "unknownRevision", message)].into());
        }
        let past = self.history.at(revert.to_revision).await?;
        let change = revert.change(&past, &durable)?;
        if change.instructions.is_empty() {
            return Ok(ChangeOutcome::nothing(durable.revision, revert.dry_run));
        }
        self.submit(author, change).await.map_err(|error| match error {
            // The caller sent no instructions: what is wrong is going back so far.
            ChangeError::Invalid { mut problems } | ChangeError::NotFound { mut problems } => {
                for problem in problems.iter_mut().filter(|problem| problem.pointer.starts_with("/instructions")) {
                    problem.pointer = "/toRevision".to_owned();
                }
                problems.into()
            }
            other => other,
        })
    }

    /// The state at an earlier revision, without targeting keys.
    pub(super) async fn past_world(&self, revision: u64) -> Result<Arc<World>, ChangeError> {
        self.history.at(revision).await
    }

    /// The time of day, in milliseconds since 1970.
    pub(crate) fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    /// The earlier states that a change goes back to, and the key sets that come back with them.
    pub(super) async fn past(&self, change: &ChangeDraft) -> Result<Past, ChangeError> {
        let mut past = Past::default();
        for revision in revert::revisions(change, self.world().revision)? {
            past.worlds.insert(revision, self.history.at(revision).await?);
        }
        if !past.worlds.is_empty() {
            past.key_sets.fetch(&past.wanted(change), &*self.key_sets).await?;
        }
        Ok(past)
    }

    /// Prepares the change against the head and gives it its place in the journal.
    async fn place(
        &self,
        author: &Author,
        change: &ChangeDraft,
        past: &Past,
        reach: &BTreeMap<String, Reach>,
    ) -> Result<Placed, PlaceError> {
        let mut head = self.head().await?;
        let head = &mut *head;
        let at = self.clock.now_ms().max(head.world.at);
        let idempotency = change.idempotency.as_ref().map(|sent| idempotency(author, sent));
        if let Some(sent) = &idempotency
            && let Some(done) = head.world.repeatable.get(&sent.key, at)
        {
            if done.body != sent.body {
                return Err(ChangeError::IdempotencyKeyReused { revision: done.revision }.into());
            }
            return Ok(Placed::Replay(done.revision, sent.key.clone()));
        }
        let (mut prepared, verdict) = self.judged(head, author, change, at, past, reach)?;
        let proposed = match verdict {
            Verdict::Apply(grounds) => {
                prepared.entry.grounds = Some(grounds);
                None
            }
            Verdict::Propose(judgement) => Some(judgement),
            Verdict::FactorNeeded(refused) => return Err(ChangeError::FactorNeeded(refused).into()),
            Verdict::Refused(refused) => return Err(ChangeError::Refused(refused).into()),
        };
        if let Some(expected) = change.expected_revision {
            self.check_conflicts(head, expected, change, &prepared).await?;
        }
        let mut outcome = outcome_of(&prepared, change);
        if prepared.entry.objects.is_empty() || change.dry_run {
            outcome.revision = head.world.revision;
            outcome.needs = proposed.map(|judgement| Needs { approvals: judgement.needed, risk: judgement.risk });
            return Ok(Placed::Done(outcome));
        }
        if let Some(judgement) = proposed {
            return Ok(Placed::Proposed(propose(head.world.revision, &prepared, judgement)));
        }
        prepared.entry.idempotency = idempotency;
        if !prepared.key_sets.is_empty() {
            self.key_sets.put(std::mem::take(&mut prepared.key_sets)).await.map_err(ChangeError::from)?;
        }
        let appending = self.append(head.world.revision, prepared.entry).await?;
        let entry = Arc::clone(&appending.stored.entry);
        head.world = prepared.world.sealed(&appending.stored);
        head.remember(&entry);
        outcome.entry = Some(entry);
        outcome.credentials = prepared.credentials;
        Ok(Placed::Appended(self.watch_over(appending.durable), outcome))
    }

    /// Waits for an entry in a task of its own: its failure counts, though nobody may wait for the change any more.
    fn watch_over(
        &self,
        durable: BoxFuture<'static, Result<(), AppendError>>,
    ) -> oneshot::Receiver<Result<(), AppendError>> {
        let (done, wait) = oneshot::channel();
        let failures = Arc::clone(&self.failures);
        tokio::spawn(async move {
            let result = durable.await;
            if result.is_err() {
                failures.note();
            }
            // A caller that has gone needs no answer.
            let _ = done.send(result);
        });
        wait
    }

    async fn append(&self, expected: u64, entry: Entry) -> Result<Appending, PlaceError> {
        self.journal.append(expected, entry).await.map_err(|error| {
            self.failures.stale.store(true, Ordering::Release);
            match error {
                AppendError::Conflict { .. } => PlaceError::Contended,
                other => PlaceError::Refused(other.into()),
            }
        })
    }

    /// The head, alone. If what it holds may not be in the journal, it goes back to what is durable.
    pub(super) async fn head(&self) -> Result<MutexGuard<'_, Head>, PlaceError> {
        let mut head = self.head.lock().await;
        if let Some(stopped) = self.follower.stopped() {
            return Err(ChangeError::from(stopped).into());
        }
        if self.failures.stale.load(Ordering::Acquire) {
            self.follower.reach(self.journal.head().revision).await.map_err(ChangeError::from)?;
            // From here on nothing waits: what fails later was appended to a head that is gone in any case.
            self.failures.stale.store(false, Ordering::Release);
            head.world = World::clone(&self.world());
            head.recent.clear();
        }
        Ok(head)
    }

    /// Waits until the change is durable and visible.
    async fn finish(
        &self,
        durable: oneshot::Receiver<Result<(), AppendError>>,
        outcome: ChangeOutcome,
    ) -> Result<ChangeOutcome, ChangeError> {
        durable.await.unwrap_or_else(|_| Err(AppendError::ReadOnly { reason: "the server stops".to_owned() }))?;
        self.follower.reach(outcome.revision).await?;
        Ok(outcome)
    }

    /// Waits until `revision` is durable and visible; `false` if a write failed meanwhile and it may never be.
    pub(super) async fn settled(&self, revision: u64, mut failures: watch::Receiver<u64>) -> Result<bool, ChangeError> {
        tokio::select! {
            biased;
            reached = self.follower.reach(revision) => Ok(reached.map(|()| true)?),
            _ = failures.changed() => Ok(false),
        }
    }

    /// What the same request did before; `None` if that was lost on its way to the disk.
    async fn replay(
        &self,
        revision: u64,
        key: &str,
        failures: watch::Receiver<u64>,
    ) -> Result<Option<ChangeOutcome>, ChangeError> {
        if !self.settled(revision, failures).await? {
            return Ok(None);
        }
        let made = self.entry(revision).await?;
        let made = made.filter(|entry| entry.idempotency.as_ref().is_some_and(|made| made.key == key));
        if made.is_none() {
            // Another entry has its place: the head that still holds it is out of date.
            self.failures.note();
        }
        Ok(made.map(|entry| ChangeOutcome { replayed: true, ..outcome_of_entry(&entry) }))
    }

    /// Whether the same request was made before.
    pub(crate) fn is_repeat(&self, author: &Author, sent: Option<&IdempotencyKey>) -> bool {
        let world = self.world();
        sent.is_some_and(|sent| world.repeatable.get(&idempotency(author, sent).key, self.clock.now_ms()).is_some())
    }

    async fn entry(&self, revision: u64) -> Result<Option<Arc<Entry>>, ChangeError> {
        let read = self.journal.read(revision.saturating_sub(1), 1).await?;
        Ok(read.into_iter().map(|stored| stored.entry).find(|entry| entry.revision == revision))
    }

    /// What the change did that made this revision.
    pub(super) async fn outcome_at(&self, revision: u64) -> Result<Option<ChangeOutcome>, ChangeError> {
        Ok(self.entry(revision).await?.map(|entry| outcome_of_entry(&entry)))
    }

    /// Another server has written: waits for what it wrote.
    async fn wait_for_others(&self) {
        let mut durable = self.journal.watch();
        // Whatever ends the wait, the change is tried again.
        let _ = tokio::time::timeout(CONTENTION_PAUSE, durable.changed()).await;
    }

    pub(super) async fn check_conflicts(
        &self,
        head: &Head,
        expected: u64,
        change: &ChangeDraft,
        prepared: &Prepared,
    ) -> Result<(), ChangeError> {
        let (recent, revision) = head.newest();
        // What was said of a change request is no change of what it asks for.
        let touches = |object: &ObjectId| !matches!(object, ObjectId::Request(_)) && prepared.named.contains(object);
        let found = self.entries_after(recent, revision, expected, &change.project, &touches).await?;
        match found {
            Some(entries) if entries.is_empty() => Ok(()),
            // More than is looked through: better a conflict too many than one missed.
            found => Err(ChangeError::Conflict { expected, revision, entries: found.unwrap_or_default() }),
        }
    }

    /// Entries after `since` that changed an object of the project which `touches` lets through, oldest first: the last 100 of
    /// them. `recent` are the head's, which need not be durable yet, and `revision` is the last of all. `None` if more entries
    /// lie between than are looked through, or wait to be durable than are kept in memory.
    pub(super) async fn entries_after(
        &self,
        recent: Vec<Arc<Entry>>,
        revision: u64,
        since: u64,
        project: &str,
        touches: &(dyn Fn(&ObjectId) -> bool + Sync),
    ) -> Result<Option<Vec<Arc<Entry>>>, ChangeError> {
        if revision.saturating_sub(since) > MAX_LOOK_BACK_ENTRIES {
            return Ok(None);
        }
        let is_about = |entry: &Arc<Entry>| {
            entry.revision > since
                && entry.project == project
                && entry.objects.iter().any(|changed| touches(&changed.object))
        };
        let first = recent.first().map_or(revision + 1, |entry| entry.revision);
        let mut entries: Vec<Arc<Entry>> = recent.into_iter().filter(is_about).collect();
        let mut after = since;
        while after + 1 < first {
            let read = self.journal.read(after, MAX_RECENT_ENTRIES).await?;
            let Some(last) = read.last() else { return Ok(None) };
            after = last.entry.revision;
            entries.extend(read.into_iter().map(|stored| stored.entry).filter(is_about));
        }
        entries.sort_by_key(|entry| entry.revision);
        entries.dedup_by_key(|entry| entry.revision);
        Ok(Some(entries.split_off(entries.len().saturating_sub(MAX_CONFLICT_ENTRIES))))
    }
}

impl Head {
    /// The last entries, which need not be durable yet, and the revision of the last of all.
    pub(super) fn newest(&self) -> (Vec<Arc<Entry>>, u64) {
        (self.recent.iter().cloned().collect(), self.world.revision)
    }

    fn remember(&mut self, entry: &Arc<Entry>) {
        if self.recent.len() == MAX_RECENT_ENTRIES {
            self.recent.pop_front();
        }
        self.recent.push_back(Arc::clone(entry));
    }
}

/// Why a change got no place.
pub(super) enum PlaceError {
    /// Another server wrote first.
    Contended,
    Refused(ChangeError),
}

impl From<PlaceError> for ChangeError {
    fn from(error: PlaceError) -> Self {
        match error {
            PlaceError::Refused(error) => error,
            PlaceError::Contended => Self::Busy,
        }
    }
}

impl From<ChangeError> for PlaceError {
    fn from(error: ChangeError) -> Self {
        Self::Refused(error)
    }
}

fn idempotency(author: &Author, sent: &IdempotencyKey) -> Idempotency {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(author.principal.len() as u64).to_le_bytes());
    hasher.update(author.principal.as_bytes());
    hasher.update(sent.key.as_bytes());
    Idempotency { key: hex(hasher.finalize().as_bytes()), body: sent.body_hash.clone() }
}

fn outcome_of(prepared: &Prepared, change: &ChangeDraft) -> ChangeOutcome {
    ChangeOutcome { dry_run: change.dry_run, entry: None, ..outcome_of_entry(&prepared.entry) }
}

fn outcome_of_entry(entry: &Entry) -> ChangeOutcome {
    let environment = entry.environment.as_deref();
    ChangeOutcome {
        revision: entry.revision,
        changed: entry.objects.iter().map(|changed| changed.object.clone()).collect(),
        replayed: false,
        dry_run: false,
        summary: entry.instructions.iter().map(|instruction| describe(instruction, environment)).collect(),
        credentials: Vec::new(),
        request: entry.instructions.iter().find_map(|instruction| match instruction {
            Instruction::Request(edit) => edit.request().map(str::to_owned),
            _ => None,
        }),
        needs: None,
        entry: Some(Arc::new(entry.clone())),
    }
}
