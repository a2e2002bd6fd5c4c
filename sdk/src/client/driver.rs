//! Carries out what the state machine of [`super::sync`] decides: one task per client.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use serde::Deserialize;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use super::bootstrap::Keeper;
use super::changed::Touched;
use super::config::ExposureSettings;
use super::connection::{BoxFuture, Incoming, Socket, Transport, TransportError};
use super::exposures::Outbox;
use super::host::{self, HostHook};
use super::shared::{Shared, State, Status};
use super::sync::{Action, Event, Link, OpenFailure, PollOutcome, SyncMachine};
use super::uploads::Uploads;
use super::windows::ledger::Ledger;
use crate::measure::HostReading;
use crate::protocol::{ClientMessage, Exposure, ServerMessage, SnapshotBody};
use crate::snapshot::{ApplyError, Snapshot};

/// Longest that a websocket may take to write what is queued and say goodbye when the client is closed.
const GOODBYE: Duration = Duration::from_secs(1);

/// A batch that is not stored this long after it was sent is sent again: the server may have had no room on its disk.
const RESEND_AFTER: Duration = Duration::from_secs(10);

/// What a client asks of its task. When the last client is gone the task ends.
pub(super) enum Control {
    /// Answer once everything recorded by now is stored.
    Flush(oneshot::Sender<()>),
    /// Say goodbye, end, and answer.
    Close(oneshot::Sender<()>),
}

/// How a posted batch fared.
enum Posted {
    Stored(u64),
    Refused(u64, String),
    Failed,
}

/// A call that may be under way.
type Pending<T> = Option<BoxFuture<'static, T>>;

/// The task.
pub(super) struct Driver {
    shared: Arc<Shared>,
    transport: Arc<Transport>,
    sync: SyncMachine,
    outbox: Outbox,
    ledger: Ledger,
    uploads: Uploads,
    queue: mpsc::Receiver<Exposure>,
    control: mpsc::UnboundedReceiver<Control>,
    keeper: Option<Arc<Keeper>>,
    host_hook: Option<HostHook>,
    socket: Option<Socket>,
    opening: Pending<Result<Socket, OpenFailure>>,
    poll: Pending<PollOutcome>,
    post: Pending<Posted>,
    /// The last post failed: the next one waits for its interval.
    post_failed: bool,
    /// Number of the oldest batch that is not stored, and since when it is the oldest, or was sent again.
    awaited: Option<(u64, Instant)>,
    /// Each with the count of exposures that must be settled.
    flushes: Vec<(u64, oneshot::Sender<()>)>,
    settings: ExposureSettings,
    started: Instant,
    next_send: Instant,
    next_window: Instant,
    /// When the present second of the windows ends.
    next_second: Instant,
}

/// What a [`Driver`] is made of.
pub(super) struct Parts {
    pub(super) shared: Arc<Shared>,
    pub(super) transport: Arc<Transport>,
    pub(super) sync: SyncMachine,
    pub(super) outbox: Outbox,
    pub(super) queue: mpsc::Receiver<Exposure>,
    pub(super) control: mpsc::UnboundedReceiver<Control>,
    pub(super) keeper: Option<Arc<Keeper>>,
    pub(super) host_hook: Option<HostHook>,
    pub(super) settings: ExposureSettings,
}

impl Driver {
    pub(super) fn new(parts: Parts) -> Self {
        let started = Instant::now();
        Self {
            next_send: started + parts.settings.interval,
            next_window: started + parts.settings.window,
            next_second: started,
            ledger: Ledger::default(),
            uploads: Uploads::new(),
            shared: parts.shared,
            transport: parts.transport,
            sync: parts.sync,
            outbox: parts.outbox,
            queue: parts.queue,
            control: parts.control,
            keeper: parts.keeper,
            host_hook: parts.host_hook,
            socket: None,
            opening: None,
            poll: None,
            post: None,
            post_failed: false,
            awaited: None,
            flushes: Vec::new(),
            settings: parts.settings,
            started,
        }
    }

    pub(super) async fn run(mut self) {
        loop {
            // Due timers go first, so that a flood of frames cannot starve them.
            self.timers();
            let wake = self.next_wake();
            let shared = Arc::clone(&self.shared);
            tokio::select! {
                biased;
                control = self.control.recv() => match control {
                    Some(Control::Flush(done)) => {
                        self.close_seconds(u64::MAX, None);
                        self.flushes.push((shared.recorder.queued(), done));
                    }
                    Some(Control::Close(done)) => {
                        self.close().await;
                        let _ = done.send(());
                        return;
                    }
                    None => return,
                },
                incoming = next_incoming(&mut self.socket) => self.incoming(incoming),
                opened = call(&mut self.opening) => self.opened(opened),
                outcome = call(&mut self.poll) => self.react(Event::Polled(outcome)),
                posted = call(&mut self.post) => self.posted(posted),
                () = shared.recorder.wake.notified() => {}
                () = sleep_until(wake) => {}
            }
            self.send_exposures(!self.flushes.is_empty());
            self.send_metrics();
            self.answer_flushes();
        }
    }

    fn next_wake(&self) -> Instant {
        let timers = self.next_send.min(self.next_window).min(self.next_second);
        self.sync.deadline().map_or(timers, |due| timers.min(self.started + due))
    }

    fn timers(&mut self) {
        let now = Instant::now();
        if self.sync.deadline().is_some_and(|due| self.started + due <= now) {
            self.react(Event::DeadlinePassed);
        }
        if self.next_window <= now {
            self.shared.recorder.begin_window();
            self.next_window = now + self.settings.window;
        }
        if self.next_second <= now {
            self.second_ended(now);
        }
        if self.next_send <= now {
            self.next_send = now + self.settings.interval;
            self.post_failed = false;
            self.send_late_again(now);
            self.send_exposures(true);
        }
    }

    fn second_ended(&mut self, now: Instant) {
        let Some(timeline) = self.shared.windows.as_ref().map(|windows| windows.timeline) else {
            self.next_second = now + Duration::from_secs(3600);
            return;
        };
        let present = timeline.second(now);
        self.next_second = timeline.end_of(present);
        // A reading that could not be sent at once says nothing of the host when it comes.
        let host = self.host_hook.as_ref().filter(|_| self.sync.link() == Link::Websocket).and_then(host::read);
        self.close_seconds(present, host);
        self.send_metrics();
    }

    /// Makes batches of what was counted in the seconds before `before`, and how the host does.
    fn close_seconds(&mut self, before: u64, host: Option<HostReading>) {
        let Some(windows) = &self.shared.windows else { return };
        self.ledger.add(windows.take());
        let rows = self.ledger.close(before);
        let present = windows.timeline.second(Instant::now());
        self.uploads.add(present, rows, self.ledger.take_dropped(), host);
    }

    fn send_metrics(&mut self) {
        let Some(timeline) = self.shared.windows.as_ref().map(|windows| windows.timeline) else { return };
        if self.sync.link() != Link::Websocket {
            return;
        }
        while let Some(batch) = self.uploads.send_next(timeline.ms(Instant::now())) {
            if let Some(lost) = self.send(&ClientMessage::Metrics(batch)) {
                return self.react(lost);
            }
        }
    }

    /// What was sent may be lost.
    fn link_lost(&mut self) {
        self.outbox.link_lost();
        self.uploads.link_lost();
    }

    fn send_late_again(&mut self, now: Instant) {
        let oldest = self.outbox.oldest().map(|batch| batch.batch);
        match (oldest, self.awaited) {
            (Some(oldest), Some((awaited, since))) if oldest == awaited => {
                if now >= since + RESEND_AFTER {
                    self.outbox.link_lost();
                    self.awaited = Some((oldest, now));
                }
            }
            (oldest, _) => self.awaited = oldest.map(|oldest| (oldest, now)),
        }
    }

    fn incoming(&mut self, incoming: Incoming) {
        match incoming {
            Incoming::Text(text) => match ServerMessage::parse(&text) {
                Ok(message) => self.react(Event::Received(message)),
                Err(error) => {
                    tracing::warn!(%error, "the server sent a frame that cannot be read; reconnecting");
                    self.lose_socket(None);
                }
            },
            Incoming::Gone(code) => self.lose_socket(code),
        }
    }

    fn lose_socket(&mut self, code: Option<u16>) {
        tracing::debug!(?code, "the push stream is gone");
        self.socket = None;
        self.link_lost();
        self.react(Event::Disconnected(code));
    }

    fn opened(&mut self, opened: Result<Socket, OpenFailure>) {
        match opened {
            Ok(socket) => {
                self.socket = Some(socket);
                self.react(Event::Opened);
            }
            Err(failure) => self.react(Event::OpenFailed(failure)),
        }
    }

    /// Feeds the state machine until it asks for nothing more that can be done at once.
    fn react(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        let mut actions = Vec::new();
        while let Some(event) = events.pop_front() {
            self.sync.handle(event, self.started.elapsed(), rand::random(), &mut actions);
            for action in actions.drain(..) {
                events.extend(self.perform(action));
            }
        }
        self.report_status();
    }

    fn perform(&mut self, action: Action) -> Option<Event> {
        match action {
            Action::Open => self.opening = Some(Box::pin(Arc::clone(&self.transport).open())),
            Action::Close => {
                self.socket = None;
                self.opening = None;
                self.link_lost();
            }
            Action::Send(ClientMessage::Heartbeat { .. }) => {
                let windows = self.shared.windows.as_ref();
                let at = windows.map(|windows| windows.timeline.ms(Instant::now()));
                return self.send(&ClientMessage::Heartbeat { at });
            }
            Action::Send(message) => return self.send(&message),
            Action::ApplySnapshot(body) => {
                let flags = body.flags.len();
                let snapshot = Snapshot::from_body(&body);
                tracing::info!(revision = %snapshot.revision(), flags, "serving a snapshot");
                return Some(self.serve(snapshot, None));
            }
            Action::ApplyPatch(body) => return Some(self.apply(&body)),
            Action::Advance(revision) => {
                let Some(serving) = self.shared.snapshot.load_full() else { return Some(Event::Unusable) };
                return Some(self.serve(serving.at(revision), Some(Touched::default())));
            }
            Action::Poll(basis) => {
                let transport = Arc::clone(&self.transport);
                self.poll = Some(Box::pin(async move { poll_outcome(transport.snapshot(basis.as_ref()).await) }));
            }
            Action::Greeted { last_batch, max_batch_items, max_metric_rows } => {
                self.outbox.greeted(last_batch, max_batch_items);
                self.uploads.greeted(max_metric_rows);
            }
            Action::MetricsMerged(batch) => self.uploads.merged(batch),
            Action::Directives(directives) => self.shared.directives.replace(directives),
            Action::ExposuresStored(batch) => self.outbox.stored(batch),
            Action::ExposuresRefused(batch, reason) => self.refused(batch, &reason),
        }
        None
    }

    fn send(&mut self, message: &ClientMessage) -> Option<Event> {
        let text = match serde_json::to_string(message) {
            Ok(text) => text,
            Err(error) => {
                tracing::error!(%error, "a message could not be written");
                return None;
            }
        };
        if self.socket.as_ref().is_some_and(|socket| socket.send(text)) {
            return None;
        }
        self.socket = None;
        self.link_lost();
        Some(Event::Disconnected(None))
    }

    fn apply(&mut self, body: &crate::protocol::PatchBody) -> Event {
        let Some(serving) = self.shared.snapshot.load_full() else { return Event::Unusable };
        match serving.apply(body) {
            Ok(next) => {
                tracing::debug!(revision = %next.revision(), "serving a patch");
                self.serve(next, Some(Touched::by(body)))
            }
            Err(ApplyError::AlreadyApplied { have, .. }) => Event::Applied(have),
            Err(error @ ApplyError::Resync { .. }) => {
                tracing::warn!(%error, "asking for a snapshot");
                Event::Unusable
            }
        }
    }

    fn serve(&mut self, snapshot: Snapshot, touched: Option<Touched>) -> Event {
        for problem in snapshot.problems() {
            tracing::warn!(
                flag = problem.flag,
                segment = problem.segment,
                pointer = problem.pointer,
                message = problem.message,
                "a definition is not usable; its flag answers the callers' defaults"
            );
        }
        let revision = snapshot.revision().clone();
        let snapshot = Arc::new(snapshot);
        self.ledger.keep(|flag| snapshot.ruleset().measures(flag).is_some());
        self.shared.serve(Arc::clone(&snapshot), touched);
        if let Some(keeper) = &self.keeper {
            keeper.keep(snapshot);
        }
        Event::Applied(revision)
    }

    fn report_status(&self) {
        let link = self.sync.link();
        let state = match (self.sync.is_current(), self.sync.serving().is_some() || self.shared.has_snapshot()) {
            (true, true) => State::Ready,
            (_, true) => State::Stale,
            _ if link == Link::Refused => State::Closed,
            _ => State::Initializing,
        };
        self.shared.report(Status { state, refused: link == Link::Refused });
    }

    fn send_exposures(&mut self, partial: bool) {
        match self.sync.link() {
            Link::Websocket => {
                self.outbox.fill(&mut self.queue, &self.shared.recorder, partial);
                while let Some(batch) = self.outbox.send_next().cloned() {
                    if let Some(lost) = self.send(&ClientMessage::Exposures(batch)) {
                        return self.react(lost);
                    }
                }
            }
            Link::Http if self.post.is_none() && !self.post_failed => {
                self.outbox.fill(&mut self.queue, &self.shared.recorder, partial);
                self.post_oldest();
            }
            _ => {}
        }
    }

    fn post_oldest(&mut self) {
        let Some(batch) = self.outbox.oldest() else { return };
        let number = batch.batch;
        let Ok(body) = serde_json::to_vec(batch) else { return };
        let transport = Arc::clone(&self.transport);
        self.post = Some(Box::pin(async move { posted(number, transport.post_exposures(Bytes::from(body)).await) }));
    }

    fn posted(&mut self, posted: Posted) {
        match posted {
            Posted::Stored(batch) => self.outbox.stored(batch),
            Posted::Refused(batch, reason) => self.refused(batch, &reason),
            Posted::Failed => self.post_failed = true,
        }
    }

    fn refused(&mut self, batch: u64, reason: &str) {
        tracing::warn!(batch, reason, "the server will never store this batch of exposures; it is dropped");
        self.outbox.refused(batch);
    }

    fn answer_flushes(&mut self) {
        let settled = self.outbox.settled();
        for (goal, done) in std::mem::take(&mut self.flushes) {
            if settled >= goal {
                let _ = done.send(());
            } else if !done.is_closed() {
                self.flushes.push((goal, done));
            }
        }
    }

    async fn close(&mut self) {
        if let Some(socket) = self.socket.take() {
            let _ = tokio::time::timeout(GOODBYE, socket.close()).await;
        }
    }
}

impl Drop for Driver {
    /// However the task ends, nobody is told afterwards that the client is current.
    fn drop(&mut self) {
        let refused = self.sync.link() == Link::Refused;
        self.shared.report(Status { state: State::Closed, refused });
    }
}

/// The result of a call that is under way; never ready if none is.
fn call<T>(pending: &mut Pending<T>) -> impl Future<Output = T> {
    std::future::poll_fn(|context| {
        let Some(future) = pending else { return std::task::Poll::Pending };
        let result = std::task::ready!(future.as_mut().poll(context));
        *pending = None;
        std::task::Poll::Ready(result)
    })
}

async fn next_incoming(socket: &mut Option<Socket>) -> Incoming {
    match socket {
        Some(socket) => socket.next().await,
        None => std::future::pending().await,
    }
}

fn poll_outcome(answer: Result<Option<Bytes>, TransportError>) -> PollOutcome {
    match answer {
        Ok(None) => PollOutcome::NotModified,
        Ok(Some(body)) => match serde_json::from_slice::<SnapshotBody>(&body) {
            Ok(body) => PollOutcome::Snapshot(body),
            Err(error) => {
                tracing::warn!(%error, "the server's snapshot cannot be read");
                PollOutcome::Failed
            }
        },
        Err(TransportError::Status(StatusCode::UNAUTHORIZED)) => PollOutcome::CredentialRefused,
        Err(error) => {
            tracing::debug!(%error, "polling failed");
            PollOutcome::Failed
        }
    }
}

fn posted(batch: u64, answer: Result<Bytes, TransportError>) -> Posted {
    #[derive(Deserialize)]
    struct Answer {
        stored: u64,
    }
    match answer {
        Ok(body) => match serde_json::from_slice::<Answer>(&body) {
            Ok(answer) => Posted::Stored(answer.stored),
            Err(error) => {
                tracing::debug!(%error, "the answer to a batch of exposures cannot be read");
                Posted::Failed
            }
        },
        Err(TransportError::Status(
            status @ (StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNPROCESSABLE_ENTITY),
        )) => Posted::Refused(batch, format!("the server answered {status}")),
        Err(error) => {
            tracing::debug!(%error, "a batch of exposures could not be posted");
            Posted::Failed
        }
    }
}
