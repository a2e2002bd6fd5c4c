//! The network client: keeps a snapshot current, evaluates on it, and reports what was served.
//!
//! Evaluating reads the snapshot through `arc-swap` and takes no lock. One task per client, on the tokio runtime that
//! [`ClientBuilder::connect`] was awaited in, holds the connection; it ends when the last clone of the client is dropped. The
//! snapshot file is written by a thread of its own.

mod bootstrap;
mod breaker;
mod changed;
mod clock;
mod config;
mod connection;
mod cpu;
mod directives;
mod driver;
mod endpoint;
mod exposures;
#[cfg(test)]
mod fake_server;
mod getters;
mod hook;
mod host;
mod listeners;
#[cfg(test)]
mod metrics_tests;
mod path;
mod shadows;
mod shared;
mod start;
pub mod sync;
#[cfg(test)]
mod tests;
mod track;
mod uploads;
mod windows;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

pub use bootstrap::MAX_FILE_BYTES;
pub use breaker::{BreakerReport, BreakerSettings, BreakerState, MAX_BREAKERS};
pub use config::{ClientBuilder, DEFAULT_EXPOSURE_QUEUE, MAX_NAME_BYTES};
pub use connection::{BoxFuture, Connector, Io, MAX_MESSAGE_BYTES, TcpConnector};
pub use directives::RoutedAway;
pub use endpoint::ConfigError;
pub use exposures::{MAX_BATCH_BYTES, MAX_BATCHES_IN_FLIGHT, MAX_UNIT_BYTES};
pub use getters::{Detail, FlagHandle, FlagValue};
pub use hook::{Call, Hook, Outcome};
pub use host::process_readings;
pub use listeners::{Change, Changes, MAX_CHANGES_BEHIND, Subscription};
pub use path::{Path, PathDetail, Ran, ShadowPath, Unset};
pub use shadows::{ShadowBudget, ShadowReport};
pub use shared::State;
pub use track::MAX_METRIC_NAME;
pub use uploads::{MAX_METRICS_AGE_SECONDS, MAX_METRICS_BYTES};
pub use windows::ledger::{MAX_REMEMBERED, MAX_ROWS};
pub use windows::{MAX_ENTRIES, MAX_SHARD_UNITS};

use crate::protocol::Revision;
use crate::snapshot::Snapshot;
use bootstrap::Keeper;
use driver::Control;
use shared::Shared;

/// Name and version of this SDK, as it presents itself.
pub(crate) const SDK_NAME: &str = concat!("guidon-rust/", env!("CARGO_PKG_VERSION"));

/// Evaluates flags in-process, on a state that a server keeps current. Cheap to clone; all clones are one client.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    /// `None` for a client without a server.
    control: Option<mpsc::UnboundedSender<Control>>,
    keeper: Option<Arc<Keeper>>,
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// An option is not usable.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The server refused the SDK key, and there is no snapshot to serve from.
    #[error(
        "the server refused the SDK key, and there is no snapshot to serve from: check the key and its environment"
    )]
    CredentialRefused,
}

/// Why a client is not ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotReady {
    /// The time was up.
    #[error("no current state within {0:?}")]
    TimedOut(Duration),
    /// The server refused the SDK key.
    #[error("the server refused the SDK key")]
    CredentialRefused,
    /// The client is closed.
    #[error("the client is closed")]
    Closed,
}

/// Why a flush did not succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FlushError {
    /// The time was up before the server had stored everything.
    #[error("the server had not stored every exposure within {0:?}")]
    TimedOut(Duration),
    /// The client is closed.
    #[error("the client is closed")]
    Closed,
}

impl Client {
    /// Sets up a client of the server at `address` (`https://host[:port][/path]`; `http://` for loopback), with the SDK key
    /// of an environment.
    pub fn builder(address: impl Into<String>, sdk_key: impl Into<String>) -> ClientBuilder {
        ClientBuilder::new(address.into(), sdk_key.into())
    }

    /// How the client stands to its server.
    #[must_use]
    pub fn state(&self) -> State {
        self.inner.shared.status.borrow().state
    }

    /// Waits, at most `limit`, until the client is [`State::Ready`].
    ///
    /// # Errors
    /// [`NotReady`] says why it is not.
    pub async fn ready(&self, limit: Duration) -> Result<(), NotReady> {
        let mut status = self.inner.shared.status.subscribe();
        let settled = status.wait_for(|status| status.refused || matches!(status.state, State::Ready | State::Closed));
        match tokio::time::timeout(limit, settled).await.map_err(|_| NotReady::TimedOut(limit))? {
            Ok(status) if status.refused => Err(NotReady::CredentialRefused),
            Ok(status) if status.state == State::Ready => Ok(()),
            _ => Err(NotReady::Closed),
        }
    }

    /// Waits until the state is another than `known`, and returns it. Cancel safe.
    pub async fn state_changed(&self, known: State) -> State {
        let mut status = self.inner.shared.status.subscribe();
        status.wait_for(|status| status.state != known).await.map_or(State::Closed, |status| status.state)
    }

    /// The revision that is serving, if there is one.
    #[must_use]
    pub fn revision(&self) -> Option<Revision> {
        self.inner.shared.snapshot.load().as_ref().map(|snapshot| snapshot.revision().clone())
    }

    /// The state that is serving, if there is one.
    #[must_use]
    pub fn snapshot(&self) -> Option<Arc<Snapshot>> {
        self.inner.shared.snapshot.load_full()
    }

    /// The circuit breakers of AI paths that have ever opened, by flag and variation; see [`ClientBuilder::breaker`].
    #[must_use]
    pub fn breakers(&self) -> Vec<BreakerReport> {
        self.inner.shared.breakers.reports()
    }

    /// Flags whose AI path the server routes this instance away from at present, by key. What is assigned stays; the baseline
    /// answers, and nothing is measured of either path, so that the comparison with other instances stays fair.
    #[must_use]
    pub fn directives(&self) -> Vec<RoutedAway> {
        self.inner.shared.directives.list()
    }

    /// How many AI paths this client has run in the shadow, and how many it has skipped; see [`Path::shadow`].
    #[must_use]
    pub fn shadows(&self) -> ShadowReport {
        self.inner.shared.shadows.report()
    }

    /// Calls `listener` after every change of a flag, until the subscription is dropped. The listener runs on the client's
    /// task: while it runs, no further change is taken in. If it panics, that is logged.
    pub fn on_change(&self, listener: impl Fn(&Change) + Send + Sync + 'static) -> Subscription {
        self.inner.shared.listeners.add(listener)
    }

    /// The changes from now on, one after another.
    #[must_use]
    pub fn changes(&self) -> Changes {
        self.inner.shared.listeners.changes()
    }

    /// Sends every exposure recorded so far, and what was measured in the present second, and waits, at most `limit`, until
    /// the server has stored the exposures.
    ///
    /// # Errors
    /// [`FlushError::TimedOut`]: they are kept, and go on being sent. [`FlushError::Closed`] after [`Self::close`].
    pub async fn flush(&self, limit: Duration) -> Result<(), FlushError> {
        match &self.inner.control {
            None => Ok(()),
            Some(control) => ask(control, limit, Control::Flush).await,
        }
    }

    /// Flushes, says goodbye to the server, and stops the client's task and its clones'; takes at most `limit` and a second.
    /// Evaluations go on answering from the last good state, and are no longer reported.
    ///
    /// # Errors
    /// As [`Self::flush`]; the client is closed in any case.
    pub async fn close(&self, limit: Duration) -> Result<(), FlushError> {
        let Some(control) = &self.inner.control else { return Ok(()) };
        let flushed = self.flush(limit).await;
        let _ = ask(control, 2 * Duration::from_secs(1), Control::Close).await;
        if let Some(keeper) = self.inner.keeper.clone() {
            let _ = tokio::task::spawn_blocking(move || keeper.finish(Duration::from_secs(1))).await;
        }
        flushed
    }
}

async fn ask(
    control: &mpsc::UnboundedSender<Control>,
    limit: Duration,
    request: impl FnOnce(oneshot::Sender<()>) -> Control,
) -> Result<(), FlushError> {
    let (done, answer) = oneshot::channel();
    control.send(request(done)).map_err(|_| FlushError::Closed)?;
    let answered = tokio::time::timeout(limit, answer).await.map_err(|_| FlushError::TimedOut(limit))?;
    answered.map_err(|_| FlushError::Closed)
}

impl std::fmt::Debug for Client {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let revision = self.revision().map(|revision| revision.to_string());
        formatter
            .debug_struct("Client")
            .field("state", &self.state())
            .field("revision", &revision)
            .finish_non_exhaustive()
    }
}
