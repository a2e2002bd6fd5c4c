//! A probe: a message that changes nothing, sent to every connection of an environment to see how long they take to answer.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::hub::Hub;
use crate::drills::{MAX_NAMED_SDKS, ProbeReport, Prober, SilentSdk};

/// A probe under way.
#[derive(Debug)]
pub(crate) struct ProbeRun {
    pub(crate) number: u64,
    started: Instant,
    /// The connections asked, by number, and when each answered.
    asked: Mutex<HashMap<u64, Option<Duration>>>,
    all: Notify,
}

impl ProbeRun {
    fn new(number: u64, asked: impl Iterator<Item = u64>) -> Self {
        let asked = Mutex::new(asked.map(|id| (id, None)).collect());
        Self { number, started: Instant::now(), asked, all: Notify::new() }
    }

    /// Whether the connection is asked.
    pub(crate) fn asks(&self, id: u64) -> bool {
        self.asked.lock().contains_key(&id)
    }

    /// Notes an answer; the first of each connection counts.
    pub(crate) fn answered(&self, id: u64) {
        let elapsed = self.started.elapsed();
        let mut asked = self.asked.lock();
        if let Some(answer) = asked.get_mut(&id) {
            answer.get_or_insert(elapsed);
        }
        if asked.values().all(Option::is_some) {
            self.all.notify_one();
        }
    }
}

/// Takes the probe from the channels when the question is dropped.
struct Asking<'h> {
    channels: Vec<Arc<super::channel::Channel>>,
    run: &'h ProbeRun,
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.channels.iter().for_each(|channel| channel.end_probe(self.run.number));
    }
}

impl Prober for Hub {
    fn probe(&self, project: &str, environment: &str, limit: Duration) -> BoxFuture<'_, ProbeReport> {
        let channels = self.channels_of(project, environment);
        async move {
            let peers: Vec<_> = channels.iter().flat_map(|channel| channel.numbered_peers()).collect();
            let asked = peers.iter().filter(|(_, peer)| peer.hello.answers_probes).map(|(id, _)| *id);
            let run = Arc::new(ProbeRun::new(self.next_probe.fetch_add(1, Ordering::Relaxed), asked));
            if run.asked.lock().is_empty() {
                run.all.notify_one();
            }
            {
                let asking = Asking { channels, run: &run };
                asking.channels.iter().for_each(|channel| channel.begin_probe(&run));
                // Whoever has not answered by then is reported as silent.
                let _ = tokio::time::timeout(limit, run.all.notified()).await;
            }
            let answers = run.asked.lock().clone();
            let mut silent: BTreeMap<(String, bool), u64> = BTreeMap::new();
            for (id, peer) in &peers {
                if answers.get(id).copied().flatten().is_none() {
                    let name = if peer.hello.sdk.is_empty() { "unnamed" } else { peer.hello.sdk.as_str() };
                    *silent.entry((name.to_owned(), peer.hello.answers_probes)).or_default() += 1;
                }
            }
            let silent_sdks = silent.into_iter().map(|((sdk, supported), count)| SilentSdk { sdk, supported, count });
            let times = answers.values().copied().flatten().collect();
            ProbeReport::of(peers.len(), times, silent_sdks.take(MAX_NAMED_SDKS).collect())
        }
        .boxed()
    }
}
