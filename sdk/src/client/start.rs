//! From a builder to a running client.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::bootstrap::{self, Keeper, LoadError};
use super::breaker::BreakerSettings;
use super::config::ClientBuilder;
use super::driver::{Driver, Parts};
use super::endpoint::ConfigError;
use super::exposures::{Outbox, Recorder};
use super::shadows::ShadowBudget;
use super::shared::{Shared, State, Status};
use super::sync::SyncMachine;
use super::windows::Windows;
use super::{Client, ConnectError, Inner, clock};
use crate::protocol::Hello;
use crate::snapshot::Snapshot;

pub(super) async fn connect(mut builder: ClientBuilder) -> Result<Client, ConnectError> {
    if tokio::runtime::Handle::try_current().is_err() {
        return Err(ConfigError::NoRuntime.into());
    }
    let transport = Arc::new(builder.transport()?);
    let (recorder, queue) = Recorder::new(builder.exposures.queue);
    let hooks = std::mem::take(&mut builder.hooks);
    let shared = Arc::new(Shared::new(
        recorder,
        builder.exposures.enabled,
        Some(Windows::new()),
        builder.breaker,
        builder.shadow,
        hooks,
    ));
    let mut hello = Hello { epoch: clock::new_epoch(), ..builder.hello.clone() };
    let scope = builder.scope();
    if let Some((snapshot, own)) = first_snapshot(&builder, &scope).await {
        // The revision of a snapshot from elsewhere says nothing to this server.
        hello.basis = own.then(|| snapshot.revision().clone());
        shared.serve(Arc::new(snapshot), None);
        shared.report(Status { state: State::Stale, refused: false });
    }
    let keeper = builder.snapshot_file.take().and_then(|path| match Keeper::start(path, scope) {
        Ok(keeper) => Some(Arc::new(keeper)),
        Err(error) => {
            tracing::warn!(%error, "the snapshot file will not be written: no thread for it");
            None
        }
    });
    let (control, receiver) = mpsc::unbounded_channel();
    let driver = Driver::new(Parts {
        shared: Arc::clone(&shared),
        transport,
        outbox: Outbox::new(hello.instance.clone(), hello.epoch),
        sync: SyncMachine::new(builder.settings, hello),
        queue,
        control: receiver,
        keeper: keeper.clone(),
        host_hook: builder.host_hook,
        settings: builder.exposures,
    });
    tokio::spawn(driver.run());
    let client = Client { inner: Arc::new(Inner { shared, control: Some(control), keeper }) };
    first_state(&client, builder.init_timeout).await?;
    Ok(client)
}

/// Waits for something to serve, unless there is something already.
async fn first_state(client: &Client, limit: Duration) -> Result<(), ConnectError> {
    let mut status = client.inner.shared.status.subscribe();
    let settled = status.wait_for(|status| status.state != State::Initializing);
    match tokio::time::timeout(limit, settled).await {
        Ok(Ok(status)) if status.state == State::Closed && status.refused => Err(ConnectError::CredentialRefused),
        Ok(_) => Ok(()),
        Err(_) => {
            tracing::warn!(
                ?limit,
                "no state from the server yet: evaluations answer the callers' defaults until it comes"
            );
            Ok(())
        }
    }
}

/// The snapshot file's content, else the bootstrap, and whether the SDK itself wrote it. Neither is ever fatal.
async fn first_snapshot(builder: &ClientBuilder, scope: &str) -> Option<(Snapshot, bool)> {
    if let Some(path) = builder.snapshot_file.clone() {
        let (file, scope) = (path.display().to_string(), scope.to_owned());
        let loaded = tokio::task::spawn_blocking(move || {
            bootstrap::load(&path, &scope).map(|stored| (Snapshot::parse(stored.json.as_bytes()), stored.own))
        });
        match loaded.await {
            Ok(Ok((Ok(snapshot), own))) => {
                tracing::info!(file, revision = %snapshot.revision(), "serving the snapshot file");
                return Some((snapshot, own));
            }
            Ok(Err(LoadError::Missing)) => tracing::info!(file, "there is no snapshot file yet"),
            Ok(Ok((Err(error), _))) => tracing::warn!(file, %error, "the snapshot file is ignored"),
            Ok(Err(error)) => tracing::warn!(file, %error, "the snapshot file is ignored"),
            Err(error) => tracing::warn!(file, %error, "the snapshot file is ignored"),
        }
    }
    match Snapshot::parse(builder.bootstrap.as_ref()?.as_bytes()) {
        Ok(snapshot) => Some((snapshot, false)),
        Err(error) => {
            tracing::warn!(%error, "the bootstrap snapshot is ignored");
            None
        }
    }
}

impl Client {
    /// A client that serves `snapshot` for good and reports nothing: without a server, a task or a runtime.
    #[must_use]
    pub fn offline(snapshot: Snapshot) -> Self {
        let (recorder, _) = Recorder::new(1);
        let shared = Arc::new(Shared::new(
            recorder,
            false,
            None,
            Some(BreakerSettings::default()),
            ShadowBudget::default(),
            Vec::new(),
        ));
        let client = Self { inner: Arc::new(Inner { shared, control: None, keeper: None }) };
        client.serve_offline(snapshot);
        client
    }

    /// A client without a server, and the queue its exposures go to.
    #[cfg(any(feature = "testing", test))]
    pub(crate) fn recording(
        hooks: Vec<Arc<dyn super::Hook>>,
        breaker: Option<BreakerSettings>,
        windows: Option<Windows>,
        exposures: usize,
    ) -> (Self, mpsc::Receiver<crate::protocol::Exposure>) {
        let (recorder, queue) = Recorder::new(exposures);
        let shared = Arc::new(Shared::new(recorder, true, windows, breaker, ShadowBudget::default(), hooks));
        (Self { inner: Arc::new(Inner { shared, control: None, keeper: None }) }, queue)
    }

    /// Serves a snapshot that no server sent.
    pub(crate) fn serve_offline(&self, snapshot: Snapshot) {
        self.inner.shared.serve(Arc::new(snapshot), None);
        self.inner.shared.report(Status { state: State::Ready, refused: false });
    }
}
