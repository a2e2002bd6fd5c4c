//! The registry: channels, their connections, and the world they are told about.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use dashmap::DashMap;
use guidon_sdk::protocol::Hello;
use prometheus_client::metrics::gauge::Gauge;
use serde::Serialize;
use tokio::sync::watch;

use super::PushLimits;
use super::channel::{Channel, Peer};
use super::directives::DirectiveSource;
use super::metrics::PushMetrics;
use super::patch::{ChannelKey, Extent};
use crate::clock::Clock;
use crate::environments::Audience;
use crate::journal::StoredEntry;
use crate::metrics::MetricsSink;
use crate::state::{Publisher, World};

/// Tells every connected SDK of every change to what it sees.
///
/// Publishing never waits for a connection: it makes a patch per environment and audience that somebody follows, and wakes
/// the tasks of the connections, each of which takes the patch's shared bytes when its socket can.
pub struct Hub {
    history: Arc<str>,
    limits: PushLimits,
    clock: Arc<dyn Clock>,
    world: watch::Sender<Arc<World>>,
    channels: DashMap<ChannelKey, Arc<Channel>>,
    admitted: AtomicUsize,
    next_id: AtomicU64,
    pub(super) next_probe: AtomicU64,
    draining: AtomicBool,
    metrics: PushMetrics,
    sights: Option<Arc<dyn Sights>>,
    directives: Option<Arc<dyn DirectiveSource>>,
    sink: Option<Arc<dyn MetricsSink>>,
}

/// Is told of each SDK instance that connects with a server's key.
pub trait Sights: Send + Sync + 'static {
    /// An instance connected to an environment with this key. Returns at once.
    fn saw(&self, project: &str, environment: &str, key_id: &str, hello: &Hello);
}

/// What an SDK key opens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SdkIdentity {
    /// Id of the key.
    pub key_id: Arc<str>,
    /// Environment and audience it is for.
    pub channel: ChannelKey,
}

/// A connected SDK instance, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConnectionInfo {
    /// The SDK instance.
    pub instance: String,
    /// Name of the application.
    pub application: String,
    /// Version of the application.
    pub version: String,
    /// Source commit the application was built from.
    pub commit: String,
    /// Digest of the image the application runs from.
    pub image: String,
    /// Name and version of the SDK.
    pub sdk: String,
    /// Revision number it last said it applied; 0 before it did.
    pub applied: u64,
    /// When it connected, in milliseconds since 1970.
    pub since: u64,
    /// Id of its SDK key.
    pub key_id: String,
    /// Who holds the key.
    #[schema(value_type = String)]
    pub audience: Audience,
}

/// Why a connection was not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The credential is unknown or revoked.
    #[error("the SDK key is unknown or was revoked; create one with `guidon sdk-key create`")]
    Credential,
    /// There are as many connections as there may be.
    #[error("the server holds {limit} connections (max_connections), as many as it may; come back later")]
    Overloaded {
        /// The limit.
        limit: usize,
    },
    /// The server is stopping.
    #[error("the server is stopping; come back in a moment")]
    Stopping,
}

impl Hub {
    /// A hub over a store of this history, which stands at `world`.
    #[must_use]
    pub fn new(history: &str, world: Arc<World>, limits: PushLimits, clock: Arc<dyn Clock>) -> Self {
        Self {
            history: history.into(),
            limits,
            clock,
            world: watch::Sender::new(world),
            channels: DashMap::new(),
            admitted: AtomicUsize::new(0),
            next_id: AtomicU64::new(1),
            next_probe: AtomicU64::new(1),
            draining: AtomicBool::new(false),
            metrics: PushMetrics::default(),
            sights: None,
            directives: None,
            sink: None,
        }
    }

    /// Tells `sights` of each instance that connects with a server's key; a browser's is everybody's.
    #[must_use]
    pub fn with_sights(self, sights: Arc<dyn Sights>) -> Self {
        Self { sights: Some(sights), ..self }
    }

    /// Asks `source` for the directives of each instance that connects with a server's key.
    #[must_use]
    pub fn with_directives(self, source: Arc<dyn DirectiveSource>) -> Self {
        Self { directives: Some(source), ..self }
    }

    /// Hands what instances with a server's key count to `sink`. Without one, and from browsers, the hub takes none.
    #[must_use]
    pub fn with_metrics(self, sink: Arc<dyn MetricsSink>) -> Self {
        Self { sink: Some(sink), ..self }
    }

    /// Where the metrics of such a connection go, if they are taken.
    pub(crate) fn sink(&self, audience: Audience) -> Option<&Arc<dyn MetricsSink>> {
        self.sink.as_ref().filter(|_| audience == Audience::Server)
    }

    /// The time of day, in milliseconds since 1970.
    pub(crate) fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    /// The channels, with no guard of the registry held.
    fn all_channels(&self) -> Vec<Arc<Channel>> {
        self.channels.iter().map(|entry| Arc::clone(entry.value())).collect()
    }

    /// The world SDKs have been told about.
    #[must_use]
    pub fn world(&self) -> Arc<World> {
        Arc::clone(&self.world.borrow())
    }

    /// Identifier of the history the revisions count.
    #[must_use]
    pub fn history(&self) -> &str {
        &self.history
    }

    /// The limits in force.
    #[must_use]
    pub fn limits(&self) -> &PushLimits {
        &self.limits
    }

    /// What the hub counts.
    #[must_use]
    pub fn metrics(&self) -> &PushMetrics {
        &self.metrics
    }

    /// Websockets that are open, those that have not said hello among them.
    #[must_use]
    pub fn connection_count(&self) -> usize {
        self.admitted.load(Ordering::Relaxed)
    }

    /// Makes room for one more websocket, until the answer is dropped.
    ///
    /// # Errors
    ///
    /// [`Refused::Overloaded`] and [`Refused::Stopping`].
    pub fn admit(self: &Arc<Self>) -> Result<Admission, Refused> {
        if self.is_draining() {
            return Err(Refused::Stopping);
        }
        let limit = self.limits.max_connections;
        let more = |open: usize| (open < limit).then_some(open + 1);
        let admitted = self.admitted.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        admitted.map(|_| Admission(Arc::clone(self))).map_err(|_| Refused::Overloaded { limit })
    }

    /// What a credential opens.
    ///
    /// # Errors
    ///
    /// [`Refused::Credential`] if it is no SDK key, or one that was revoked or is past its deadline.
    pub fn identify(&self, credential: &str) -> Result<SdkIdentity, Refused> {
        identify(&self.world.borrow(), credential, self.clock.now_ms()).ok_or(Refused::Credential)
    }

    /// The connections of an environment, oldest first, browsers' among them.
    #[must_use]
    pub fn connections(&self, project: &str, environment: &str) -> Vec<ConnectionInfo> {
        let mut all = Vec::new();
        for channel in self.channels_of(project, environment) {
            all.extend(channel.peers().iter().map(|peer| peer.info(channel.key.audience)));
        }
        all.sort_by(|a, b| (a.since, &a.instance).cmp(&(b.since, &b.instance)));
        all
    }

    /// The channels of an environment that somebody followed.
    pub(super) fn channels_of(&self, project: &str, environment: &str) -> Vec<Arc<Channel>> {
        let key = |audience| ChannelKey { project: project.into(), environment: environment.into(), audience };
        let known = [Audience::Server, Audience::Client].map(key);
        known.iter().filter_map(|key| self.channels.get(key).map(|channel| Arc::clone(&channel))).collect()
    }

    /// The snapshot of a channel: its revision number, and the JSON that connections are sent, sharing its memory. `None` if
    /// there is no such environment.
    #[must_use]
    pub fn snapshot(&self, key: &ChannelKey) -> Option<(u64, Bytes)> {
        let snapshot = self.channel(key)?.snapshot()?;
        Some((snapshot.revision, snapshot.frame.payload()))
    }

    /// Waits until the hub's world is at least at `revision`; `false` if that takes longer than `catch_up_ms`.
    pub async fn catch_up(&self, revision: u64) -> bool {
        let limit = Duration::from_millis(self.limits.catch_up_ms);
        let mut world = self.world.subscribe();
        let reached = world.wait_for(|world| world.revision >= revision);
        tokio::time::timeout(limit, reached).await.is_ok_and(|reached| reached.is_ok())
    }

    /// The channel with this key; `None` if the environment does not exist.
    pub(crate) fn channel(&self, key: &ChannelKey) -> Option<Arc<Channel>> {
        if let Some(channel) = self.channels.get(key) {
            return Some(Arc::clone(&channel));
        }
        let world = self.world();
        if !environment_exists(&world, key) {
            return None;
        }
        let made = || Arc::new(Channel::new(key.clone(), Arc::clone(&self.history), Arc::clone(&world), &self.limits));
        let channel = Arc::clone(&self.channels.entry(key.clone()).or_insert_with(made));
        // A change published between the look at the world and the entry in the registry missed the new channel.
        let now = self.world();
        channel.advance(world.revision, &now, &Extent::Unknown);
        Some(channel)
    }

    /// Enters a connection into the registry until the answer is dropped.
    pub(crate) fn register(&self, identity: &SdkIdentity, hello: Hello) -> Result<Registration, Refused> {
        if self.is_draining() {
            return Err(Refused::Stopping);
        }
        let channel = self.channel(&identity.channel).ok_or(Refused::Credential)?;
        let peer = Arc::new(Peer::new(Arc::clone(&identity.key_id), hello, self.clock.now_ms()));
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        channel.insert(id, Arc::clone(&peer));
        let connections = self.metrics.connections(channel.key.audience);
        connections.inc();
        let registration = Registration { channel, peer, id, connections };
        // The key may have been revoked since the handshake; whoever revokes it later sees the entry made above.
        registration.channel.refuse_revoked(&self.world());
        if registration.peer.verdict().is_some() {
            return Err(Refused::Credential);
        }
        let key = &registration.channel.key;
        if let Some(sights) = self.sights.as_ref().filter(|_| key.audience == Audience::Server) {
            sights.saw(&key.project, &key.environment, &identity.key_id, &registration.peer.hello);
        }
        if let Some(source) = self.directives.as_ref().filter(|_| key.audience == Audience::Server) {
            let (world, peer) = (self.world(), &registration.peer);
            let instance = &peer.hello.instance;
            let standing = source.directives(&world, &key.project, &key.environment, instance, self.clock.now_ms());
            peer.directives.begin(&standing);
        }
        Ok(registration)
    }

    /// Whether the server is stopping.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Tells every connection to come back later, spread over `shutdown_spread_ms`, and waits until they are gone or twice
    /// that time and the time of a close have passed.
    pub async fn shut_down(&self) {
        self.draining.store(true, Ordering::Release);
        for channel in self.all_channels() {
            channel.wake();
        }
        let limit =
            Duration::from_millis(self.limits.shutdown_spread_ms.saturating_mul(2)) + self.limits.close_timeout();
        let gone = async {
            while self.connection_count() > 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        if tokio::time::timeout(limit, gone).await.is_err() {
            tracing::warn!(
                connections = self.connection_count(),
                "connections are cut off: they did not close in time"
            );
        }
    }
}

impl Publisher for Hub {
    fn publish(&self, before: &Arc<World>, after: &Arc<World>, entries: &[StoredEntry]) {
        for channel in self.all_channels() {
            channel.advance(before.revision, after, &Extent::by(entries, &channel.key.project));
            if !environment_exists(after, &channel.key) {
                self.channels.remove(&channel.key);
            }
        }
        self.world.send_if_modified(|world| {
            let is_newer = world.revision < after.revision;
            if is_newer {
                *world = Arc::clone(after);
            }
            is_newer
        });
        // A channel entered in the meantime may have been made from the world before; one entered later is not.
        for channel in self.all_channels() {
            channel.advance(before.revision, after, &Extent::Unknown);
        }
    }
}

/// Room for one websocket, given back when dropped.
pub struct Admission(Arc<Hub>);

impl Drop for Admission {
    fn drop(&mut self) {
        self.0.admitted.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection's place in the registry, given back when dropped.
pub(crate) struct Registration {
    pub(crate) channel: Arc<Channel>,
    pub(crate) peer: Arc<Peer>,
    id: u64,
    connections: Gauge,
}

impl Registration {
    /// Numbers of the probes after `number` that this connection is to answer.
    pub(crate) fn probes_after(&self, number: u64) -> Vec<u64> {
        self.channel.probes_after(number, self.id)
    }

    /// Notes that the connection answered a probe.
    pub(crate) fn answered(&self, number: u64) {
        self.channel.answered(number, self.id);
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.connections.dec();
        self.channel.remove(self.id);
    }
}

impl Peer {
    fn info(&self, audience: Audience) -> ConnectionInfo {
        let hello = &self.hello;
        ConnectionInfo {
            instance: hello.instance.clone(),
            application: hello.application.clone(),
            version: hello.version.clone(),
            commit: hello.commit.clone(),
            image: hello.image.clone(),
            sdk: hello.sdk.clone(),
            applied: self.applied.load(Ordering::Relaxed),
            since: self.since,
            key_id: self.key_id.to_string(),
            audience,
        }
    }
}

fn environment_exists(world: &World, key: &ChannelKey) -> bool {
    world.environment(&key.project, &key.environment).is_some()
}

/// What a credential opens in this world at `now`. The lookup is by hash, and the hashes are compared in constant time.
fn identify(world: &World, credential: &str, now: u64) -> Option<SdkIdentity> {
    use subtle::ConstantTimeEq;
    let hash = blake3::hash(credential.as_bytes()).to_hex();
    let (project, key) = world.sdk_key(hash.as_str())?;
    let is_same: bool = key.hash.as_bytes().ct_eq(hash.as_bytes()).into();
    (is_same && key.is_live(now)).then(|| SdkIdentity {
        key_id: key.id.as_str().into(),
        channel: ChannelKey {
            project: project.key.as_str().into(),
            environment: key.environment.as_str().into(),
            audience: key.audience,
        },
    })
}
