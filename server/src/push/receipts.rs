//! Who has a revision, and since when.

use guidon_sdk::protocol::Directive;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::hub::Hub;
use crate::releases::live as release;
use crate::releases::runner::Connections;

/// The most instances that [`Receipts`] names.
pub const MAX_SLOWEST: usize = 10;

/// Acknowledgements remembered of each connection.
const REMEMBERED: usize = 4;

/// How far a revision has come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Receipts {
    /// Connections of the environment, browsers' among them.
    pub connected: usize,
    /// Those that apply the revision, or a later one.
    pub acknowledged: usize,
    /// When the last of them said so, in milliseconds since 1970; none if none did.
    pub last_at: Option<u64>,
    /// The slowest, at most [`MAX_SLOWEST`]: first those that are still to come.
    pub slowest: Vec<SlowReceipt>,
}

/// One of the slowest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SlowReceipt {
    /// The SDK instance.
    pub instance: String,
    /// When the server heard that it applies the revision, in milliseconds since 1970; none if it has not said so. If it has
    /// said so of four later revisions since, the first of those.
    pub at: Option<u64>,
}

/// The last acknowledgements of one connection: revision and time, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Acknowledged(Mutex<[(u64, u64); REMEMBERED]>);

impl Acknowledged {
    /// Takes note that the connection applies `revision`, at `now_ms`.
    pub(crate) fn note(&self, revision: u64, now_ms: u64) {
        let mut held = self.0.lock();
        if held.last().is_none_or(|(last, _)| revision > *last) {
            held.rotate_left(1);
            if let Some(last) = held.last_mut() {
                *last = (revision, now_ms);
            }
        }
    }

    /// When it first said that it applies `revision` or a later one, as far as is remembered.
    fn since(&self, revision: u64) -> Option<u64> {
        self.0.lock().iter().find(|(applied, _)| *applied >= revision.max(1)).map(|(_, at)| *at)
    }
}

impl Hub {
    /// How far `revision` has come in an environment. A revision that changes nothing of what a connection sees is not sent to
    /// it: the last one before it that does is what it must apply.
    #[must_use]
    pub fn receipts(&self, project: &str, environment: &str, revision: u64) -> Receipts {
        let mut receipts = Receipts::default();
        let mut all = Vec::new();
        for channel in self.channels_of(project, environment) {
            let wanted = channel.last_change_until(revision);
            all.extend(channel.peers().into_iter().map(|peer| {
                let at = peer.acknowledged.since(wanted);
                (at, peer)
            }));
        }
        receipts.connected = all.len();
        receipts.acknowledged = all.iter().filter(|(at, _)| at.is_some()).count();
        receipts.last_at = all.iter().filter_map(|(at, _)| *at).max();
        all.sort_by_key(|(at, peer)| (std::cmp::Reverse(at.unwrap_or(u64::MAX)), peer.hello.instance.clone()));
        let named = all.iter().take(MAX_SLOWEST);
        receipts.slowest =
            named.map(|(at, peer)| SlowReceipt { instance: peer.hello.instance.clone(), at: *at }).collect();
        receipts
    }
}

impl Connections for Hub {
    fn receipts(&self, project: &str, environment: &str, revision: u64, made_at: u64) -> release::Receipts {
        let found = Hub::receipts(self, project, environment, revision);
        release::Receipts {
            connected: found.connected,
            acknowledged: found.acknowledged,
            slowest_ms: found.last_at.map(|at| at.saturating_sub(made_at)),
        }
    }

    fn direct(&self, project: &str, environment: &str, instance: &str, directives: &[Directive]) {
        Hub::direct(self, project, environment, instance, directives);
    }

    fn connected_since(&self, project: &str, environment: &str, instance: &str) -> Option<u64> {
        let all = Hub::connections(self, project, environment);
        all.into_iter().filter(|connection| connection.instance == instance).map(|connection| connection.since).max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_acknowledgement_that_is_remembered_counts() {
        let acknowledged = Acknowledged::default();
        assert_eq!(acknowledged.since(0), None);
        for (revision, at) in [(3, 30), (3, 31), (5, 50), (4, 51)] {
            acknowledged.note(revision, at);
        }
        assert_eq!(
            [0, 3, 4, 5, 6].map(|revision| acknowledged.since(revision)),
            [Some(30), Some(30), Some(50), Some(50), None]
        );
        (6..9).for_each(|revision| acknowledged.note(revision, revision * 10));
        assert_eq!(acknowledged.since(3), Some(50), "at the latest");
    }
}
