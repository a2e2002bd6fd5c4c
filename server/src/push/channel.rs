//! One environment as one audience sees it: its latest patches and snapshot, encoded once, and who follows it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};

use bytes::Bytes;
use guidon_sdk::protocol::{CLOSE_CREDENTIAL_REFUSED, Hello, ServerMessage};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::PushLimits;
use super::directives::Standing;
use super::frame::Frame;
use super::patch::{self, ChannelKey, Extent};
use super::probe::ProbeRun;
use super::receipts::Acknowledged;
use crate::state::World;

/// One environment as one audience sees it.
///
/// There is no queue per connection: each keeps the number of the revision it was sent last and takes what follows from
/// the patches kept here. One that is too slow falls behind the oldest of them and gets a snapshot instead.
pub(crate) struct Channel {
    pub(crate) key: ChannelKey,
    history: Arc<str>,
    /// The world that `patches` lead up to. Locked by whoever publishes, never while connections are told.
    head: Mutex<Arc<World>>,
    patches: watch::Sender<Patches>,
    snapshot: Mutex<Option<Snapshot>>,
    peers: Mutex<HashMap<u64, Arc<Peer>>>,
    /// Number of the newest probe; connections look here without a lock.
    newest_probe: AtomicU64,
    probes: Mutex<Vec<Arc<ProbeRun>>>,
    patches_kept: usize,
    patch_bytes_kept: usize,
}

/// A run of patches that follow each other.
#[derive(Debug)]
pub(crate) struct Patches {
    /// Any state at or after this revision is made current by the patches kept.
    complete_from: u64,
    /// Last revision that changed what the channel sees, as far as is known.
    last_change: u64,
    /// The revision that the last patch kept leads to, or a later one that changed nothing here.
    current: u64,
    kept: VecDeque<(u64, Frame)>,
    bytes: usize,
}

/// The whole state, encoded.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    pub(crate) revision: u64,
    pub(crate) frame: Frame,
}

/// What a connection is to send next.
#[derive(Debug)]
pub(crate) enum Next {
    /// Nothing: it is current.
    Nothing,
    /// This patch, which leads to the revision.
    Patch(u64, Bytes),
    /// A snapshot: the patches it would need are gone.
    Snapshot,
}

/// A connection, as the rest of the server sees it.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) key_id: Arc<str>,
    pub(crate) hello: Hello,
    /// When it connected, in milliseconds since 1970.
    pub(crate) since: u64,
    /// Revision number it last said it applied; 0 before it did.
    pub(crate) applied: AtomicU64,
    /// Code the connection is to be closed with; 0 while it is welcome.
    verdict: AtomicU16,
    pub(crate) acknowledged: Acknowledged,
    pub(crate) directives: Standing,
}

impl Peer {
    pub(crate) fn new(key_id: Arc<str>, hello: Hello, since: u64) -> Self {
        Self {
            key_id,
            hello,
            since,
            applied: AtomicU64::new(0),
            verdict: AtomicU16::new(0),
            acknowledged: Acknowledged::default(),
            directives: Standing::default(),
        }
    }

    /// Code the connection is to be closed with.
    pub(crate) fn verdict(&self) -> Option<u16> {
        Some(self.verdict.load(Ordering::Acquire)).filter(|code| *code != 0)
    }
}

impl Patches {
    fn starting_at(revision: u64) -> Self {
        let kept = VecDeque::new();
        Self { complete_from: revision, last_change: revision, current: revision, kept, bytes: 0 }
    }

    /// The revision a connection is at once it was sent everything kept.
    pub(crate) fn current(&self) -> u64 {
        self.current
    }

    /// What to send to a connection that was last sent `revision`.
    pub(crate) fn after(&self, revision: u64) -> Next {
        if revision < self.complete_from {
            return Next::Snapshot;
        }
        // The one wanted is nearly always the last.
        let first = self.kept.iter().rposition(|(to, _)| *to <= revision).map_or(0, |index| index + 1);
        match self.kept.get(first) {
            Some((to, frame)) => Next::Patch(*to, frame.bytes()),
            None => Next::Nothing,
        }
    }

    /// Size in bytes of all patches after `revision`.
    fn bytes_after(&self, revision: u64) -> usize {
        self.kept.iter().rev().take_while(|(to, _)| *to > revision).map(|(_, frame)| frame.len()).sum()
    }
}

impl Channel {
    pub(crate) fn new(key: ChannelKey, history: Arc<str>, world: Arc<World>, limits: &PushLimits) -> Self {
        let revision = world.revision;
        Self {
            key,
            history,
            head: Mutex::new(world),
            patches: watch::Sender::new(Patches::starting_at(revision)),
            snapshot: Mutex::new(None),
            peers: Mutex::new(HashMap::new()),
            newest_probe: AtomicU64::new(0),
            probes: Mutex::default(),
            patches_kept: limits.patches_kept,
            patch_bytes_kept: limits.patch_bytes_kept,
        }
    }

    /// Makes the patch up to `after` and tells the connections, if there is anything for them. `extent` holds for what lies
    /// after `since`; a channel that stands elsewhere compares everything.
    pub(crate) fn advance(&self, since: u64, after: &Arc<World>, extent: &Extent) {
        let mut head = self.head.lock();
        if head.revision >= after.revision {
            return;
        }
        let extent = if head.revision == since { extent } else { &Extent::Unknown };
        let from = self.patches.borrow().last_change;
        let made = patch::between(&self.history, from, &head, after, &self.key, extent)
            .map(|body| Frame::json(&ServerMessage::Patch(body)));
        *head = Arc::clone(after);
        let to = after.revision;
        match made {
            // Nobody is woken: the next heartbeat tells.
            None => drop(self.patches.send_if_modified(|patches| {
                patches.current = to;
                false
            })),
            Some(Ok(frame)) => self.patches.send_modify(|patches| {
                patches.bytes += frame.len();
                patches.kept.push_back((to, frame));
                patches.last_change = to;
                patches.current = to;
                while patches.kept.len() > self.patches_kept || patches.bytes > self.patch_bytes_kept {
                    let Some((gone, frame)) = patches.kept.pop_front() else { break };
                    patches.bytes -= frame.len();
                    patches.complete_from = gone;
                }
            }),
            Some(Err(error)) => {
                tracing::error!(environment = %self.key.environment, %error, "a patch does not serialise; a snapshot is sent");
                self.patches.send_modify(|patches| {
                    *patches = Patches::starting_at(to);
                });
            }
        }
        drop(head);
        if extent.may_revoke() {
            self.refuse_revoked(after);
        }
    }

    /// The state now. Encoded on first demand, and shared until the environment changes.
    pub(crate) fn snapshot(&self) -> Option<Snapshot> {
        let world = Arc::clone(&self.head.lock());
        let mut cached = self.snapshot.lock();
        let last_change = self.patches.borrow().last_change;
        if let Some(snapshot) = cached.as_ref().filter(|snapshot| snapshot.revision >= last_change) {
            return Some(snapshot.clone());
        }
        let body = patch::snapshot(&self.history, &world, &self.key)?;
        let revision = body.revision.number;
        let frame = Frame::json(&ServerMessage::Snapshot(body))
            .inspect_err(|error| tracing::error!(environment = %self.key.environment, %error, "no snapshot"))
            .ok()?;
        let snapshot = Snapshot { revision, frame };
        *cached = Some(snapshot.clone());
        Some(snapshot)
    }

    /// What brings a client at `basis` of this history up to date in the fewest bytes.
    pub(crate) fn resume(&self, basis: u64) -> Next {
        let (next, bytes) = {
            let patches = self.patches.borrow();
            (patches.after(basis), patches.bytes_after(basis))
        };
        let snapshot_bytes = self.snapshot.lock().as_ref().map(|snapshot| snapshot.frame.len());
        match next {
            Next::Patch(..) if snapshot_bytes.is_some_and(|snapshot| bytes > snapshot) => Next::Snapshot,
            next => next,
        }
    }

    /// The last revision up to `revision` that changed what the channel sees, as far as is known.
    pub(crate) fn last_change_until(&self, revision: u64) -> u64 {
        let patches = self.patches.borrow();
        if patches.last_change <= revision {
            return patches.last_change;
        }
        let kept = patches.kept.iter().rev().map(|(to, _)| *to);
        kept.chain([patches.complete_from]).find(|to| *to <= revision).unwrap_or(revision)
    }

    /// Follows the patches; told of every new one, and of verdicts.
    pub(crate) fn follow(&self) -> watch::Receiver<Patches> {
        self.patches.subscribe()
    }

    /// Wakes every connection, to look at its verdict.
    pub(crate) fn wake(&self) {
        self.patches.send_modify(|_| ());
    }

    pub(crate) fn insert(&self, id: u64, peer: Arc<Peer>) {
        self.peers.lock().insert(id, peer);
    }

    pub(crate) fn remove(&self, id: u64) {
        self.peers.lock().remove(&id);
    }

    pub(crate) fn peers(&self) -> Vec<Arc<Peer>> {
        self.peers.lock().values().cloned().collect()
    }

    /// The connections with their numbers.
    pub(crate) fn numbered_peers(&self) -> Vec<(u64, Arc<Peer>)> {
        self.peers.lock().iter().map(|(id, peer)| (*id, Arc::clone(peer))).collect()
    }

    /// Asks the connections that `run` is about.
    pub(crate) fn begin_probe(&self, run: &Arc<ProbeRun>) {
        self.probes.lock().push(Arc::clone(run));
        self.newest_probe.fetch_max(run.number, Ordering::AcqRel);
        self.wake();
    }

    /// Forgets a probe; answers to it count no more.
    pub(crate) fn end_probe(&self, number: u64) {
        self.probes.lock().retain(|run| run.number != number);
    }

    /// Number of the newest probe there was.
    pub(crate) fn newest_probe(&self) -> u64 {
        self.newest_probe.load(Ordering::Acquire)
    }

    /// Numbers of the probes under way, after `number`, that ask the connection `id`.
    pub(crate) fn probes_after(&self, number: u64, id: u64) -> Vec<u64> {
        let probes = self.probes.lock();
        probes.iter().filter(|run| run.number > number && run.asks(id)).map(|run| run.number).collect()
    }

    /// Takes the answer of the connection `id` to a probe.
    pub(crate) fn answered(&self, number: u64, id: u64) {
        let run = self.probes.lock().iter().find(|run| run.number == number).cloned();
        if let Some(run) = run {
            run.answered(id);
        }
    }

    /// Closes the connections whose keys `world` no longer admits.
    pub(crate) fn refuse_revoked(&self, world: &World) {
        let mut refused = false;
        for peer in self.peers.lock().values() {
            if peer.verdict().is_none() && !is_admitted(world, &self.key, &peer.key_id) {
                peer.verdict.store(CLOSE_CREDENTIAL_REFUSED, Ordering::Release);
                refused = true;
            }
        }
        if refused {
            self.wake();
        }
    }
}

/// Whether the SDK key may follow the channel.
fn is_admitted(world: &World, key: &ChannelKey, key_id: &str) -> bool {
    world.projects.get(&*key.project).is_some_and(|project| {
        let sdk_key = project.sdk_keys.get(key_id);
        project.environments.contains_key(&*key.environment)
            && sdk_key.is_some_and(|sdk_key| {
                sdk_key.revoked_at.is_none()
                    && *sdk_key.environment == *key.environment
                    && sdk_key.audience == key.audience
            })
    })
}
