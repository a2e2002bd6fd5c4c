//! The push protocol, seen from the SDK: events in, actions out.
//!
//! No socket, no clock and no randomness: the time and a random number are arguments, so that every interleaving can be tried
//! without a network. `driver.rs` carries out the actions.

use std::time::Duration;

use crate::protocol::{
    CLOSE_CREDENTIAL_REFUSED, CLOSE_OVERLOADED, CLOSE_RESYNC, ClientMessage, Directive, Hello, PatchBody, Revision,
    ServerMessage, SnapshotBody,
};

/// Shortest and longest heartbeat interval taken from a server.
const HEARTBEAT_RANGE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(300));
/// A peer that has been silent for this many heartbeat intervals is dead.
const SILENT_INTERVALS: u32 = 3;
/// A connection that lived this long may come back at once when the server asks it to resume.
const RESUME_AT_ONCE_AFTER: Duration = Duration::from_secs(1);
/// Doublings after which the reconnect delay is at its limit in any case.
const MAX_DOUBLINGS: u32 = 16;

/// How the state machine paces itself. All durations have a default in [`super::ClientBuilder`].
#[derive(Clone, Debug)]
pub struct SyncSettings {
    /// Upper bound of the delay before the first attempt to reconnect; doubled for each one that fails.
    pub reconnect_base: Duration,
    /// Upper bound of the delay before any attempt to reconnect.
    pub reconnect_max: Duration,
    /// An attempt to open the websocket takes at most this long.
    pub open_timeout: Duration,
    /// After opening, welcome and first state take at most this long each; so does the answer to a resync.
    pub state_timeout: Duration,
    /// Heartbeat interval until the server names its own.
    pub heartbeat_interval: Duration,
    /// Failed attempts in a row to get a working websocket before polling is tried.
    pub open_failures_before_polling: u32,
    /// Time between two polls.
    pub poll_interval: Duration,
    /// Time between two attempts to open a websocket while polling.
    pub probe_interval: Duration,
}

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// The websocket is open.
    Opened,
    /// The websocket could not be opened.
    OpenFailed(OpenFailure),
    /// A frame came in.
    Received(ServerMessage),
    /// The websocket is gone, with the peer's close code if it gave one.
    Disconnected(Option<u16>),
    /// The state of the last `ApplySnapshot`, `ApplyPatch` or `Advance` is serving.
    Applied(Revision),
    /// The state of the last `ApplySnapshot` or `ApplyPatch` cannot be used.
    Unusable,
    /// The answer to a poll.
    Polled(PollOutcome),
    /// [`SyncMachine::deadline`] has passed.
    DeadlinePassed,
}

/// Why a websocket could not be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenFailure {
    /// The server refused the credential (401).
    CredentialRefused,
    /// Anything else: nobody answers, or somebody answers something else.
    Unavailable,
}

/// What a poll brought.
#[derive(Debug)]
pub enum PollOutcome {
    /// Nothing is newer.
    NotModified,
    /// The whole state.
    Snapshot(SnapshotBody),
    /// The server refused the credential (401).
    CredentialRefused,
    /// No answer, or one that is of no use.
    Failed,
}

/// What is to be done.
#[derive(Debug)]
pub enum Action {
    /// Open a websocket; ends with `Opened` or `OpenFailed`.
    Open,
    /// Close the websocket, or give up opening it; no event of it may arrive any more.
    Close,
    /// Send this on the websocket; a heartbeat with the time, which the machine does not know.
    Send(ClientMessage),
    /// Serve this state; ends with `Applied` or `Unusable`.
    ApplySnapshot(SnapshotBody),
    /// Serve the state that this patch leads to; ends with `Applied` or `Unusable`.
    ApplyPatch(PatchBody),
    /// The state served is also the state of this later revision; ends with `Applied`.
    Advance(Revision),
    /// Fetch the state over HTTP unless it is the one of this revision; ends with `Polled`.
    Poll(Option<Revision>),
    /// A connection is up: what the server says about exposure batches.
    Greeted {
        /// Last batch that is stored.
        last_batch: u64,
        /// Most items of one batch.
        max_batch_items: u32,
        /// Most rows of one batch of metrics; 0 if the server takes none.
        max_metric_rows: u32,
    },
    /// Exposure batches up to this number are stored.
    ExposuresStored(u64),
    /// This exposure batch will never be stored.
    ExposuresRefused(u64, String),
    /// This batch of metrics is counted, or of no use any more.
    MetricsMerged(u64),
    /// What this instance is to do otherwise than its peers, all of it.
    Directives(Vec<Directive>),
}

/// What connects the SDK with the server at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// Nothing.
    Down,
    /// A websocket whose server has said welcome.
    Websocket,
    /// Polling.
    Http,
    /// Nothing, and nothing will: the credential was refused.
    Refused,
}

#[derive(Debug)]
enum Mode {
    /// Between two attempts.
    Waiting { until: Duration },
    /// An attempt is under way.
    Opening { until: Duration, polling: bool },
    /// The websocket is open.
    Open(OpenSocket),
    /// Websockets do not work, HTTP does, or is about to be tried.
    Polling { next_poll: Duration, next_probe: Duration, outstanding: bool },
    /// The credential was refused.
    Refused,
}

#[derive(Debug)]
struct OpenSocket {
    welcomed: bool,
    /// The state served is the server's.
    current: bool,
    /// Patches are of no use until a snapshot comes.
    awaits_snapshot: bool,
    opened_at: Duration,
    /// Welcome or state must have come by now, as long as `current` is false.
    state_due: Duration,
    interval: Duration,
    last_heard: Duration,
    next_beat: Duration,
}

/// The state machine.
///
/// Invariants: a revision never goes back within one history; unless the credential was refused, there is always either an
/// operation under way or a deadline.
#[derive(Debug)]
pub struct SyncMachine {
    settings: SyncSettings,
    hello: Hello,
    serving: Option<Revision>,
    mode: Mode,
    attempts: u32,
    websocket_failures: u32,
    http_works: bool,
}

impl SyncMachine {
    /// A machine whose first deadline has passed already. `hello.basis` is the revision served from disk, if there is one.
    #[must_use]
    pub fn new(settings: SyncSettings, mut hello: Hello) -> Self {
        let serving = hello.basis.take();
        let mode = Mode::Waiting { until: Duration::ZERO };
        Self { settings, hello, serving, mode, attempts: 0, websocket_failures: 0, http_works: false }
    }

    /// Revision that is serving.
    #[must_use]
    pub fn serving(&self) -> Option<&Revision> {
        self.serving.as_ref()
    }

    /// What connects the SDK with the server at present.
    #[must_use]
    pub fn link(&self) -> Link {
        match &self.mode {
            Mode::Refused => Link::Refused,
            Mode::Open(socket) if socket.welcomed => Link::Websocket,
            Mode::Polling { .. } | Mode::Opening { polling: true, .. } if self.http_works => Link::Http,
            _ => Link::Down,
        }
    }

    /// Whether the state served is known to be the server's.
    #[must_use]
    pub fn is_current(&self) -> bool {
        match &self.mode {
            Mode::Open(socket) => socket.current,
            Mode::Polling { .. } | Mode::Opening { polling: true, .. } => self.http_works && self.serving.is_some(),
            _ => false,
        }
    }

    /// When [`Event::DeadlinePassed`] is due, in the time that is passed to [`Self::handle`]. `None` only once the credential
    /// was refused.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        match &self.mode {
            Mode::Waiting { until } | Mode::Opening { until, .. } => Some(*until),
            Mode::Open(socket) => Some(socket.deadline()),
            // An outstanding poll has the transport's timeout; a probe does not wait for it.
            Mode::Polling { next_probe, outstanding: true, .. } => Some(*next_probe),
            Mode::Polling { next_poll, next_probe, .. } => Some((*next_poll).min(*next_probe)),
            Mode::Refused => None,
        }
    }

    /// Takes in an event at time `now`, with a random number in `[0, 1)`, and appends what is to be done to `actions`.
    /// An event that does not fit the present mode changes nothing.
    pub fn handle(&mut self, event: Event, now: Duration, random: f64, actions: &mut Vec<Action>) {
        match event {
            Event::Opened => self.opened(now, actions),
            Event::OpenFailed(failure) => self.open_failed(failure, now, random, actions),
            Event::Received(message) => self.received(message, now, random, actions),
            Event::Disconnected(code) => self.disconnected(code, now, random),
            Event::Applied(revision) => self.applied(revision, actions),
            Event::Unusable => self.unusable(now, random, actions),
            Event::Polled(outcome) => self.polled(outcome, now, random, actions),
            Event::DeadlinePassed => self.deadline_passed(now, random, actions),
        }
    }

    fn opened(&mut self, now: Duration, actions: &mut Vec<Action>) {
        if !matches!(self.mode, Mode::Opening { .. }) {
            return;
        }
        let interval = self.settings.heartbeat_interval;
        self.mode = Mode::Open(OpenSocket {
            welcomed: false,
            current: false,
            awaits_snapshot: self.serving.is_none(),
            opened_at: now,
            state_due: now + self.settings.state_timeout,
            interval,
            last_heard: now,
            next_beat: now + interval,
        });
        let hello = Hello { basis: self.serving.clone(), ..self.hello.clone() };
        actions.push(Action::Send(ClientMessage::Hello(hello)));
    }

    fn open_failed(&mut self, failure: OpenFailure, now: Duration, random: f64, actions: &mut Vec<Action>) {
        let Mode::Opening { polling, .. } = self.mode else { return };
        if failure == OpenFailure::CredentialRefused {
            self.mode = Mode::Refused;
        } else {
            self.websocket_failed(polling, now, random, actions);
        }
    }

    /// A websocket did not come to the point of being current.
    fn websocket_failed(&mut self, polling: bool, now: Duration, random: f64, actions: &mut Vec<Action>) {
        self.websocket_failures = self.websocket_failures.saturating_add(1);
        if polling {
            self.start_polling(now, actions);
        } else if self.websocket_failures >= self.settings.open_failures_before_polling {
            self.http_works = false;
            self.start_polling(now, actions);
        } else {
            self.wait(now, random);
        }
    }

    fn start_polling(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let next_probe = now + self.settings.probe_interval;
        self.mode = Mode::Polling { next_poll: now, next_probe, outstanding: true };
        actions.push(Action::Poll(self.serving.clone()));
    }

    /// Full jitter: a random share of a bound that doubles with each attempt ("Exponential backoff and jitter", AWS
    /// Architecture Blog, 2015).
    fn wait(&mut self, now: Duration, random: f64) {
        let doubled = self.settings.reconnect_base.saturating_mul(1 << self.attempts.min(MAX_DOUBLINGS));
        self.attempts = self.attempts.saturating_add(1);
        self.wait_within(doubled, now, random);
    }

    fn wait_within(&mut self, bound: Duration, now: Duration, random: f64) {
        let bound = bound.min(self.settings.reconnect_max);
        self.mode = Mode::Waiting { until: now + bound.mul_f64(random.clamp(0.0, 1.0)) };
    }

    fn disconnected(&mut self, code: Option<u16>, now: Duration, random: f64) {
        let Mode::Open(socket) = &self.mode else { return };
        match code {
            Some(CLOSE_CREDENTIAL_REFUSED) => self.mode = Mode::Refused,
            Some(CLOSE_RESYNC) if socket.current && now >= socket.opened_at + RESUME_AT_ONCE_AFTER => {
                self.mode = Mode::Waiting { until: now };
            }
            Some(CLOSE_OVERLOADED) => self.wait_within(self.settings.reconnect_max, now, random),
            _ => {
                if !socket.welcomed {
                    self.websocket_failures = self.websocket_failures.saturating_add(1);
                }
                self.wait(now, random);
            }
        }
    }

    fn drop_socket(&mut self, now: Duration, random: f64, actions: &mut Vec<Action>) {
        actions.push(Action::Close);
        self.disconnected(None, now, random);
    }

    fn received(&mut self, message: ServerMessage, now: Duration, random: f64, actions: &mut Vec<Action>) {
        let Mode::Open(socket) = &mut self.mode else { return };
        socket.last_heard = now;
        match message {
            ServerMessage::Welcome { heartbeat_interval_ms, max_batch_items, last_batch, max_metric_rows, .. } => {
                let interval = Duration::from_millis(heartbeat_interval_ms);
                socket.interval = interval.clamp(HEARTBEAT_RANGE.0, HEARTBEAT_RANGE.1);
                socket.next_beat = now + socket.interval;
                socket.welcomed = true;
                self.websocket_failures = 0;
                actions.push(Action::Greeted { last_batch, max_batch_items, max_metric_rows });
            }
            ServerMessage::Snapshot(body) => self.snapshot(body, now, random, actions),
            ServerMessage::Patch(body) => self.patch(body, now, actions),
            ServerMessage::Current { revision } => self.current(revision, now, random, actions),
            ServerMessage::ExposuresStored { batch } => actions.push(Action::ExposuresStored(batch)),
            ServerMessage::ExposuresRefused { batch, reason } => actions.push(Action::ExposuresRefused(batch, reason)),
            ServerMessage::Probe { probe } => actions.push(Action::Send(ClientMessage::Probed { probe })),
            ServerMessage::MetricsMerged { batch } => actions.push(Action::MetricsMerged(batch)),
            ServerMessage::Directives { directives } => actions.push(Action::Directives(directives)),
            ServerMessage::Heartbeat { .. } | ServerMessage::Unknown => {}
        }
    }

    fn snapshot(&mut self, body: SnapshotBody, now: Duration, random: f64, actions: &mut Vec<Action>) {
        if self.would_go_back(&body.revision) {
            // A server that is behind catches up before it answers; this one did not, so another may be asked.
            self.drop_socket(now, random, actions);
        } else {
            actions.push(Action::ApplySnapshot(body));
        }
    }

    fn would_go_back(&self, revision: &Revision) -> bool {
        self.serving.as_ref().is_some_and(|have| have.history == revision.history && have.number > revision.number)
    }

    fn patch(&mut self, body: PatchBody, now: Duration, actions: &mut Vec<Action>) {
        let Mode::Open(socket) = &self.mode else { return };
        if socket.awaits_snapshot {
            return;
        }
        match &self.serving {
            Some(have) if have.history == body.revision.history && have.number >= body.revision.number => {}
            Some(have) if have.history == body.revision.history && have.number >= body.from => {
                actions.push(Action::ApplyPatch(body));
            }
            _ => self.resync(now, actions),
        }
    }

    fn current(&mut self, revision: Revision, now: Duration, random: f64, actions: &mut Vec<Action>) {
        let Mode::Open(socket) = &mut self.mode else { return };
        if socket.awaits_snapshot {
            // The server thinks there is nothing to send, the SDK knows there is: asking again would go round in circles.
            return self.drop_socket(now, random, actions);
        }
        match &self.serving {
            Some(have) if *have == revision => {
                socket.current = true;
                self.attempts = 0;
                actions.push(Action::Send(ClientMessage::Applied { revision }));
            }
            Some(have) if have.history == revision.history && have.number < revision.number => {
                actions.push(Action::Advance(revision));
            }
            _ => self.resync(now, actions),
        }
    }

    fn resync(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let state_due = now + self.settings.state_timeout;
        let Mode::Open(socket) = &mut self.mode else { return };
        actions.push(Action::Send(ClientMessage::Resync));
        socket.awaits_snapshot = true;
        socket.current = false;
        socket.state_due = state_due;
    }

    fn applied(&mut self, revision: Revision, actions: &mut Vec<Action>) {
        self.serving = Some(revision.clone());
        if let Mode::Open(socket) = &mut self.mode {
            socket.awaits_snapshot = false;
            socket.current = true;
            self.attempts = 0;
            actions.push(Action::Send(ClientMessage::Applied { revision }));
        }
    }

    fn unusable(&mut self, now: Duration, random: f64, actions: &mut Vec<Action>) {
        match &self.mode {
            Mode::Open(socket) if socket.awaits_snapshot => self.drop_socket(now, random, actions),
            Mode::Open(_) => self.resync(now, actions),
            _ => {}
        }
    }

    fn polled(&mut self, outcome: PollOutcome, now: Duration, random: f64, actions: &mut Vec<Action>) {
        let Mode::Polling { next_poll, outstanding, .. } = &mut self.mode else { return };
        *outstanding = false;
        // A tenth either way, so that many instances do not poll in step.
        *next_poll = now + self.settings.poll_interval.mul_f64(0.9 + 0.2 * random.clamp(0.0, 1.0));
        match outcome {
            PollOutcome::NotModified => self.http_works = true,
            PollOutcome::Snapshot(body) => {
                self.http_works = true;
                if !self.would_go_back(&body.revision) {
                    actions.push(Action::ApplySnapshot(body));
                }
            }
            PollOutcome::CredentialRefused => self.mode = Mode::Refused,
            PollOutcome::Failed => {
                self.http_works = false;
                self.wait(now, random);
            }
        }
    }

    fn deadline_passed(&mut self, now: Duration, random: f64, actions: &mut Vec<Action>) {
        if self.deadline().is_none_or(|due| now < due) {
            return;
        }
        match &mut self.mode {
            Mode::Waiting { .. } => self.open(false, now, actions),
            Mode::Opening { polling, .. } => {
                let polling = *polling;
                actions.push(Action::Close);
                self.websocket_failed(polling, now, random, actions);
            }
            Mode::Open(socket) if socket.is_dead(now) => self.drop_socket(now, random, actions),
            Mode::Open(socket) => {
                socket.next_beat = now + socket.interval;
                actions.push(Action::Send(ClientMessage::Heartbeat { at: None }));
            }
            Mode::Polling { next_probe, .. } if *next_probe <= now => self.open(true, now, actions),
            Mode::Polling { outstanding, .. } => {
                *outstanding = true;
                actions.push(Action::Poll(self.serving.clone()));
            }
            Mode::Refused => {}
        }
    }

    fn open(&mut self, polling: bool, now: Duration, actions: &mut Vec<Action>) {
        self.mode = Mode::Opening { until: now + self.settings.open_timeout, polling };
        actions.push(Action::Open);
    }
}

impl OpenSocket {
    fn silence_limit(&self) -> Duration {
        self.last_heard + self.interval * SILENT_INTERVALS
    }

    fn deadline(&self) -> Duration {
        let alive = self.next_beat.min(self.silence_limit());
        if self.current { alive } else { alive.min(self.state_due) }
    }

    fn is_dead(&self, now: Duration) -> bool {
        now >= self.silence_limit() || (!self.current && now >= self.state_due)
    }
}

#[cfg(test)]
mod tests;
