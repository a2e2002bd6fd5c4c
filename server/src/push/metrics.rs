//! What the push side counts.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::environments::Audience;

/// Counts of one hub. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct PushMetrics {
    connections: Family<AudienceLabel, Gauge>,
    /// Patches handed to a socket.
    pub(crate) patches_sent: Counter,
    /// Snapshots handed to a socket, first ones included.
    pub(crate) snapshots_sent: Counter,
    resyncs: Family<ResyncLabel, Counter>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct AudienceLabel {
    audience: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ResyncLabel {
    cause: &'static str,
}

/// Why a connection that had a state is sent a whole one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resync {
    /// The SDK could not apply a patch.
    Asked,
    /// The connection was too slow, or away too long: the patches it needs are gone, or are more bytes
    /// than the whole.
    Behind,
}

impl PushMetrics {
    /// Puts the counts into a registry.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("push_connections", "Connected SDKs past their hello", self.connections.clone());
        registry.register("push_patches_sent", "Patches handed to connections", self.patches_sent.clone());
        registry.register("push_snapshots_sent", "Snapshots handed to connections", self.snapshots_sent.clone());
        let help = "Connections that had a state and are sent a whole one";
        registry.register("push_resyncs", help, self.resyncs.clone());
    }

    /// The connections of an audience.
    pub(crate) fn connections(&self, audience: Audience) -> Gauge {
        let audience = match audience {
            Audience::Server => "server",
            Audience::Client => "client",
        };
        self.connections.get_or_create(&AudienceLabel { audience }).clone()
    }

    pub(crate) fn resync(&self, cause: Resync) {
        let cause = match cause {
            Resync::Asked => "asked",
            Resync::Behind => "behind",
        };
        self.resyncs.get_or_create(&ResyncLabel { cause }).inc();
    }
}
