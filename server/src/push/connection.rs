//! One connection, one task: hello, resume, then patches down and acknowledgements and exposures up.

mod metering;

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use guidon_sdk::protocol::{
    CLOSE_CREDENTIAL_REFUSED, CLOSE_GOING_AWAY, CLOSE_OVERLOADED, CLOSE_PROTOCOL_ERROR, CLOSE_RESYNC, ClientMessage,
    ExposureBatch, Hello, PROTOCOL_VERSION, Revision, ServerMessage,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tokio::time::{Duration, Instant, sleep_until, timeout};

use self::metering::{Message, Metering};
use super::channel::{Next, Patches};
use super::frame::{Decoder, Frame, Incoming};
use super::hub::{Admission, Hub, Refused, Registration, SdkIdentity};
use super::metrics::Resync;
use super::patch::ChannelKey;
use crate::assignments::{AppendError, AssignmentLog, Origin, RefusedBatch, Storing};

/// Bytes taken from the socket at once, on the stack: an idle connection holds no buffer.
const READ_BYTES: usize = 4096;

/// Answers that may wait for the socket before nothing more is read from it.
const MAX_ANSWERS: usize = 4;

/// Serves one websocket until it ends. The handshake is done and the credential was accepted.
pub async fn serve<S>(
    socket: S,
    hub: Arc<Hub>,
    log: Arc<dyn AssignmentLog>,
    identity: SdkIdentity,
    admission: Admission,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let _admission = admission;
    let mut wire = Wire::new(socket, hub.limits().max_message_bytes);
    let end = match greet(&mut wire, &hub, &log, identity).await {
        Ok(mut connection) => connection.run(&mut wire).await,
        Err(end) => end,
    };
    if let End::Close(code, reason) = end {
        let limit = hub.limits().close_timeout();
        // The peer may be gone, or may not listen; the socket is dropped either way.
        let _ = timeout(limit, wire.close(code, &reason)).await;
    }
}

/// Refuses a websocket whose credential is not accepted, for clients (browsers) that cannot see a handshake's status.
pub async fn refuse<S>(socket: S, hub: Arc<Hub>, refused: Refused)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let mut wire = Wire::new(socket, hub.limits().max_message_bytes);
    let End::Close(code, reason) = End::from(refused) else { return };
    let _ = timeout(hub.limits().close_timeout(), wire.close(code, &reason)).await;
}

/// How a connection ends.
#[derive(Debug)]
enum End {
    /// Nobody is there to be told.
    Gone,
    /// The client is told why.
    Close(u16, String),
}

impl End {
    fn protocol(problem: impl std::fmt::Display) -> Self {
        Self::Close(CLOSE_PROTOCOL_ERROR, problem.to_string())
    }
}

impl From<Refused> for End {
    fn from(refused: Refused) -> Self {
        let code = match refused {
            Refused::Credential => CLOSE_CREDENTIAL_REFUSED,
            Refused::Overloaded { .. } => CLOSE_OVERLOADED,
            Refused::Stopping => CLOSE_GOING_AWAY,
        };
        Self::Close(code, refused.to_string())
    }
}

/// Waits for the hello and answers it.
async fn greet<S>(
    wire: &mut Wire<S>,
    hub: &Arc<Hub>,
    log: &Arc<dyn AssignmentLog>,
    identity: SdkIdentity,
) -> Result<Connection, End>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let limits = hub.limits();
    let limit = Duration::from_millis(limits.hello_timeout_ms);
    let mut hello = match timeout(limit, read_hello(wire)).await {
        Ok(hello) => hello?,
        Err(_) => return Err(End::protocol(format!("no hello within {} ms", limits.hello_timeout_ms))),
    };
    check_hello(&hello, limits.max_hello_field_bytes)?;
    let basis = hello.basis.take().filter(|basis| basis.history == hub.history());
    if let Some(basis) = &basis
        && !hub.catch_up(basis.number).await
    {
        let reason = format!("this server is at revision {}, behind {basis}", hub.world().revision);
        return Err(End::Close(CLOSE_GOING_AWAY, reason));
    }
    let origin = origin_of(&identity.channel);
    let last_batch = log.last_batch(&origin, &hello.instance, hello.epoch);
    let registration = hub.register(&identity, hello)?;
    let news = registration.channel.follow();
    let metering = hub
        .sink(registration.channel.key.audience)
        .map(|sink| Box::new(Metering::new(Arc::clone(sink), origin.clone(), &registration.peer.hello, limits)));
    let probed = registration.channel.newest_probe();
    wire.answer(&ServerMessage::Welcome {
        protocol: PROTOCOL_VERSION,
        heartbeat_interval_ms: limits.heartbeat_interval_ms,
        max_batch_items: limits.max_batch_items,
        last_batch,
        max_metric_rows: metering.as_ref().map_or(0, |metering| metering.max_rows()),
    })?;
    let mut connection = Connection {
        hub: Arc::clone(hub),
        log: Arc::clone(log),
        origin,
        registration,
        news,
        sent: None,
        storing: None,
        stalled: None,
        leave_at: None,
        probed,
        directed: 0,
        metering,
    };
    connection.resume(wire, basis.map(|basis| basis.number))?;
    Ok(connection)
}

async fn read_hello<S: AsyncRead + AsyncWrite + Unpin>(wire: &mut Wire<S>) -> Result<Hello, End> {
    loop {
        let Some(Message::Read(message)) = wire.read().await? else { continue };
        match *message {
            ClientMessage::Hello(hello) => return Ok(hello),
            ClientMessage::Heartbeat { .. } | ClientMessage::Metrics(_) | ClientMessage::Unknown => {}
            _ => return Err(End::protocol("the first message must be a hello")),
        }
    }
}

fn check_hello(hello: &Hello, limit: usize) -> Result<(), End> {
    if hello.protocol == 0 {
        return Err(End::protocol("hello: protocol counts from 1"));
    }
    if hello.instance.is_empty() {
        return Err(End::protocol("hello: instance is empty"));
    }
    let fields = [
        ("instance", &hello.instance),
        ("application", &hello.application),
        ("version", &hello.version),
        ("commit", &hello.commit),
        ("image", &hello.image),
        ("sdk", &hello.sdk),
    ];
    if let Some((name, _)) = fields.iter().find(|(_, text)| text.chars().any(char::is_control)) {
        return Err(End::protocol(format!("hello: {name} has a control character")));
    }
    match fields.iter().find(|(_, text)| text.len() > limit) {
        Some((name, text)) => Err(End::protocol(format!(
            "hello: {name} has {} bytes, the limit is {limit} (max_hello_field_bytes)",
            text.len()
        ))),
        None => Ok(()),
    }
}

fn origin_of(channel: &ChannelKey) -> Origin {
    Origin { project: Arc::clone(&channel.project), environment: Arc::clone(&channel.environment) }
}

/// A connection past its hello.
struct Connection {
    hub: Arc<Hub>,
    log: Arc<dyn AssignmentLog>,
    origin: Origin,
    registration: Registration,
    news: watch::Receiver<Patches>,
    /// Revision the client has once it read all that was sent; `None` until the first snapshot.
    sent: Option<u64>,
    /// The batch on its way to the disk. One at a time: until it is there, nothing is read.
    storing: Option<(u64, Storing)>,
    /// A batch that could not be stored, and until when the connection goes on without. Later batches are left unanswered,
    /// so that an acknowledgement holds for all batches up to its number; a new connection sends them again.
    stalled: Option<(u64, Instant)>,
    /// When this connection's turn to leave comes, once the server is stopping.
    leave_at: Option<Instant>,
    /// Number of the last probe that was looked at.
    probed: u64,
    /// Version of the directives that were sent.
    directed: u64,
    /// What it counts goes there; none if it may send none.
    metering: Option<Box<Metering>>,
}

/// Something for the loop to deal with.
enum Event {
    Woken,
    Written,
    Received(Result<Option<Message>, End>),
    Stored(u64, Result<u64, AppendError>),
    Timer,
}

impl Connection {
    async fn run<S: AsyncRead + AsyncWrite + Unpin>(&mut self, wire: &mut Wire<S>) -> End {
        match self.follow(wire).await {
            Ok(never) => match never {},
            Err(end) => end,
        }
    }

    async fn follow<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        wire: &mut Wire<S>,
    ) -> Result<std::convert::Infallible, End> {
        let interval = self.hub.limits().heartbeat_interval();
        let dead_after = self.hub.limits().dead_after();
        // Anywhere in the interval: connections made at once do not beat at once.
        let mut beat_at = Instant::now() + interval.mul_f64(rand::random_range(0.5..1.0));
        let timer = sleep_until(beat_at);
        tokio::pin!(timer);
        loop {
            self.check_verdict()?;
            self.probe(wire)?;
            self.direct(wire)?;
            self.refill(wire)?;
            let wake_at = beat_at.min(wire.dead_at(dead_after));
            let resync_at = self.stalled.map(|(_, until)| until);
            let wake_at = [self.leave_at, resync_at].into_iter().flatten().fold(wake_at, Instant::min);
            if wake_at != timer.deadline() {
                timer.as_mut().reset(wake_at);
            }
            let event = {
                let may_read = self.storing.is_none();
                let Self { news, storing, .. } = self;
                tokio::select! {
                    biased;
                    changed = news.changed() => match changed {
                        Ok(()) => Event::Woken,
                        Err(_) => return Err(End::from(Refused::Stopping)),
                    },
                    event = wire.drive(may_read) => event?,
                    (batch, stored) = stored(storing) => Event::Stored(batch, stored),
                    () = &mut timer => Event::Timer,
                }
            };
            match event {
                Event::Woken | Event::Written => {}
                Event::Received(message) => self.receive(wire, message?)?,
                Event::Stored(batch, result) => {
                    self.storing = None;
                    self.acknowledge(wire, batch, result)?;
                }
                Event::Timer => {
                    let now = Instant::now();
                    if self.storing.is_some() {
                        // Nothing was read for lack of a disk, not of a peer.
                        wire.last_heard = now;
                    }
                    if now >= wire.dead_at(dead_after) {
                        return Err(End::Gone);
                    }
                    if now >= beat_at {
                        self.beat(wire)?;
                        beat_at = now + interval;
                    }
                }
            }
        }
    }

    /// Ends the connection if its key was revoked, its exposures wait for another try, or the server is stopping and its
    /// turn has come.
    fn check_verdict(&mut self) -> Result<(), End> {
        if self.registration.peer.verdict().is_some() {
            return Err(End::from(Refused::Credential));
        }
        if self.stalled.is_some_and(|(_, until)| Instant::now() >= until) {
            let reason = "exposures could not be stored: send them again".to_owned();
            return Err(End::Close(CLOSE_RESYNC, reason));
        }
        if self.hub.is_draining() {
            let spread = Duration::from_millis(self.hub.limits().shutdown_spread_ms);
            let leave_at =
                *self.leave_at.get_or_insert_with(|| Instant::now() + spread.mul_f64(rand::random_range(0.0..1.0)));
            if Instant::now() >= leave_at {
                return Err(End::from(Refused::Stopping));
            }
        }
        Ok(())
    }

    /// First answer after the welcome.
    fn resume<S>(&mut self, wire: &mut Wire<S>, basis: Option<u64>) -> Result<(), End> {
        let Some(basis) = basis else { return Ok(()) };
        match self.registration.channel.resume(basis) {
            Next::Snapshot => self.hub.metrics().resync(Resync::Behind),
            Next::Patch(..) => self.sent = Some(basis),
            Next::Nothing => {
                let current = self.news.borrow().current().max(basis);
                self.sent = Some(current);
                let revision = Revision { history: self.hub.history().to_owned(), number: current };
                wire.answer(&ServerMessage::Current { revision })?;
            }
        }
        Ok(())
    }

    /// Gives the socket the next patch or snapshot when it has nothing to write.
    fn refill<S>(&mut self, wire: &mut Wire<S>) -> Result<(), End> {
        if !wire.is_idle() {
            return Ok(());
        }
        let next = match self.sent {
            Some(sent) => self.news.borrow().after(sent),
            None => Next::Snapshot,
        };
        match next {
            Next::Nothing => {}
            Next::Patch(to, bytes) => {
                self.sent = Some(to);
                self.hub.metrics().patches_sent.inc();
                wire.push(bytes);
            }
            Next::Snapshot => {
                let snapshot = self.registration.channel.snapshot().ok_or(Refused::Credential)?;
                if self.sent.is_some() {
                    self.hub.metrics().resync(Resync::Behind);
                }
                self.sent = Some(snapshot.revision);
                self.hub.metrics().snapshots_sent.inc();
                wire.push(snapshot.frame.bytes());
            }
        }
        Ok(())
    }

    /// Passes on the probes that ask this connection. They go ahead of the next patch.
    fn probe<S>(&mut self, wire: &mut Wire<S>) -> Result<(), End> {
        let newest = self.registration.channel.newest_probe();
        if newest <= self.probed {
            return Ok(());
        }
        let asked = self.registration.probes_after(self.probed);
        self.probed = newest;
        asked.into_iter().try_for_each(|probe| wire.answer(&ServerMessage::Probe { probe }))
    }

    /// Sends the instance's directives when they have changed.
    fn direct<S>(&mut self, wire: &mut Wire<S>) -> Result<(), End> {
        let standing = &self.registration.peer.directives;
        let version = standing.version();
        if version == self.directed {
            return Ok(());
        }
        self.directed = version;
        wire.answer(&ServerMessage::Directives { directives: standing.list() })
    }

    fn beat<S>(&self, wire: &mut Wire<S>) -> Result<(), End> {
        // What waits to be written proves life as well, and carries a revision.
        if wire.is_idle() {
            let revision = self.news.borrow().current();
            wire.answer(&ServerMessage::Heartbeat { revision })?;
        }
        Ok(())
    }

    fn receive<S>(&mut self, wire: &mut Wire<S>, message: Option<Message>) -> Result<(), End> {
        let message = match message {
            Some(Message::Read(message)) => *message,
            Some(Message::UnreadableMetrics(batch, reason)) => {
                let Some(metering) = &mut self.metering else { return Ok(()) };
                return wire.answer(&metering.give_up(batch, &reason)?);
            }
            None => return Ok(()),
        };
        match message {
            ClientMessage::Applied { revision } if revision.history == self.hub.history() => {
                let peer = &self.registration.peer;
                peer.applied.store(revision.number, Ordering::Relaxed);
                peer.acknowledged.note(revision.number, self.hub.now_ms());
            }
            ClientMessage::Resync => {
                self.hub.metrics().resync(Resync::Asked);
                self.sent = None;
            }
            ClientMessage::Exposures(batch) => self.store(wire, batch)?,
            ClientMessage::Metrics(batch) => {
                // A browser's are everybody's: none are asked for, and none are taken.
                let Some(metering) = &mut self.metering else { return Ok(()) };
                wire.answer(&metering.receive(batch, self.hub.now_ms())?)?;
            }
            ClientMessage::Heartbeat { at } => {
                if let (Some(metering), Some(at)) = (&mut self.metering, at) {
                    metering.heard(at, self.hub.now_ms());
                }
            }
            ClientMessage::Probed { probe } => self.registration.answered(probe),
            ClientMessage::Hello(_) => return Err(End::protocol("a second hello")),
            ClientMessage::Applied { .. } | ClientMessage::Unknown => {}
        }
        Ok(())
    }

    fn store<S>(&mut self, wire: &mut Wire<S>, batch: ExposureBatch) -> Result<(), End> {
        let number = batch.batch;
        let hello = &self.registration.peer.hello;
        if batch.instance != hello.instance || batch.epoch != hello.epoch {
            let reason = "the batch is of another instance or epoch than the hello".to_owned();
            return wire.answer(&ServerMessage::ExposuresRefused { batch: number, reason });
        }
        if self.stalled.is_some_and(|(stalled, _)| number > stalled) {
            return Ok(());
        }
        match self.log.append(&self.origin, batch) {
            Ok(durable) => self.storing = Some((number, durable)),
            Err(RefusedBatch(reason)) => wire.answer(&ServerMessage::ExposuresRefused { batch: number, reason })?,
        }
        Ok(())
    }

    fn acknowledge<S>(&mut self, wire: &mut Wire<S>, batch: u64, result: Result<u64, AppendError>) -> Result<(), End> {
        match result {
            Ok(stored) => {
                self.stalled = None;
                wire.answer(&ServerMessage::ExposuresStored { batch: stored })
            }
            Err(error) => {
                // Not acknowledged: the SDK keeps the batch and sends it again.
                let patience = Duration::from_millis(self.hub.limits().stalled_exposures_ms);
                self.stalled = Some((batch, Instant::now() + patience));
                tracing::warn!(batch, %error, "exposures are not stored");
                Ok(())
            }
        }
    }
}

/// The result of the batch on its way; never, if there is none.
async fn stored(storing: &mut Option<(u64, Storing)>) -> (u64, Result<u64, AppendError>) {
    match storing {
        Some((batch, durable)) => (*batch, durable.await),
        None => std::future::pending().await,
    }
}

/// A socket that speaks frames.
struct Wire<S> {
    socket: S,
    decoder: Decoder,
    /// What is being written.
    out: Bytes,
    /// Small frames that go ahead of the next patch.
    answers: VecDeque<Bytes>,
    needs_flush: bool,
    last_heard: Instant,
    /// When the socket last took a byte, or was last asked to after a pause.
    last_taken: Instant,
}

impl<S> Wire<S> {
    fn new(socket: S, max_message_bytes: usize) -> Self {
        let now = Instant::now();
        Self {
            socket,
            decoder: Decoder::new(max_message_bytes),
            out: Bytes::new(),
            answers: VecDeque::new(),
            needs_flush: false,
            last_heard: now,
            last_taken: now,
        }
    }

    fn is_idle(&self) -> bool {
        self.out.is_empty() && self.answers.is_empty()
    }

    /// When the peer counts as dead, unless it is heard or takes something before.
    fn dead_at(&self, dead_after: Duration) -> Instant {
        let silent = self.last_heard + dead_after;
        if self.is_idle() { silent } else { silent.min(self.last_taken + dead_after) }
    }

    fn push(&mut self, frame: Bytes) {
        if self.is_idle() {
            self.last_taken = Instant::now();
        }
        if self.out.is_empty() && self.answers.is_empty() {
            self.out = frame;
        } else {
            self.answers.push_back(frame);
        }
    }

    fn answer(&mut self, message: &ServerMessage) -> Result<(), End> {
        let frame = Frame::json(message).map_err(|error| {
            tracing::error!(%error, "a push message does not serialise");
            End::Gone
        })?;
        self.push(frame.bytes());
        Ok(())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    /// Writes what there is to write and reads what comes; returns when the loop has something to do.
    async fn drive(&mut self, may_read: bool) -> Result<Event, End> {
        poll_fn(|cx| {
            if let Poll::Ready(written) = self.poll_write(cx)
                && written?
            {
                return Poll::Ready(Ok(Event::Written));
            }
            if may_read && self.answers.len() < MAX_ANSWERS {
                return self.poll_read(cx).map(|message| Ok(Event::Received(message)));
            }
            Poll::Pending
        })
        .await
    }

    /// The next message; `None` for what needs no more than to be heard.
    async fn read(&mut self) -> Result<Option<Message>, End> {
        loop {
            if let Event::Received(message) = self.drive(true).await? {
                return message;
            }
        }
    }

    /// Writes; ready with whether anything was finished.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, End>> {
        let mut finished = false;
        loop {
            while !self.out.is_empty() {
                match Pin::new(&mut self.socket).poll_write(cx, &self.out) {
                    Poll::Ready(Ok(taken)) if taken > 0 => {
                        self.out.advance(taken);
                        self.last_taken = Instant::now();
                        self.needs_flush = true;
                    }
                    Poll::Ready(_) => return Poll::Ready(Err(End::Gone)),
                    Poll::Pending => return Poll::Pending,
                }
            }
            match self.answers.pop_front() {
                Some(next) => self.out = next,
                None => break,
            }
        }
        // An empty queue holds no memory.
        if self.answers.capacity() > 0 {
            self.answers = VecDeque::new();
        }
        self.out = Bytes::new();
        if self.needs_flush {
            ready!(Pin::new(&mut self.socket).poll_flush(cx)).map_err(|_: io::Error| End::Gone)?;
            self.needs_flush = false;
            finished = true;
        }
        Poll::Ready(Ok(finished))
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Message>, End>> {
        loop {
            if let Some(incoming) = self.decoder.next().map_err(End::protocol)? {
                self.last_heard = Instant::now();
                return Poll::Ready(self.understand(incoming));
            }
            let mut bytes = [0; READ_BYTES];
            let mut buffer = ReadBuf::new(&mut bytes);
            match ready!(Pin::new(&mut self.socket).poll_read(cx, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => self.decoder.feed(buffer.filled()),
                _ => return Poll::Ready(Err(End::Gone)),
            }
        }
    }

    fn understand(&mut self, incoming: Incoming) -> Result<Option<Message>, End> {
        match incoming {
            Incoming::Text(text) => metering::understand(&text).map(Some),
            Incoming::Ping(payload) => {
                self.push(Frame::pong(&payload).bytes());
                Ok(None)
            }
            Incoming::Pong => Ok(None),
            Incoming::Close => Err(End::Close(1000, String::new())),
        }
    }

    /// Finishes what is being written, tells the peer why, and waits until it hangs up: a socket closed with unread bytes
    /// would be reset, and the reason lost.
    async fn close(&mut self, code: u16, reason: &str) {
        if self.needs_flush || !self.out.is_empty() {
            self.answers.clear();
        }
        self.push(Frame::close(code, reason).bytes());
        while !self.is_idle() || self.needs_flush {
            if poll_fn(|cx| self.poll_write(cx)).await.is_err() {
                return;
            }
        }
        let _ = poll_fn(|cx| Pin::new(&mut self.socket).poll_shutdown(cx)).await;
        loop {
            let read = poll_fn(|cx| {
                let mut bytes = [0; 512];
                let mut buffer = ReadBuf::new(&mut bytes);
                Pin::new(&mut self.socket).poll_read(cx, &mut buffer).map_ok(|()| buffer.filled().len())
            });
            match read.await {
                Ok(read) if read > 0 => {}
                _ => return,
            }
        }
    }
}

#[cfg(test)]
mod metrics_tests;
#[cfg(test)]
mod tests;
