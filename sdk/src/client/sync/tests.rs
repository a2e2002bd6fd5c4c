//! The state machine by cases, and under random events.

use proptest::prelude::*;

use super::*;
use crate::protocol::CLOSE_GOING_AWAY;

const SECOND: Duration = Duration::from_secs(1);

fn revision(text: &str) -> Revision {
    text.parse().unwrap()
}

fn snapshot(at: &str) -> SnapshotBody {
    let (project, environment) = ("p".to_owned(), "e".to_owned());
    SnapshotBody { revision: revision(at), project, environment, flags: Vec::new(), segments: Vec::new() }
}

fn patch(from: u64, to: &str) -> PatchBody {
    serde_json::from_value(serde_json::json!({"from": from, "revision": to})).unwrap()
}

fn welcome() -> ServerMessage {
    ServerMessage::Welcome {
        protocol: 1,
        heartbeat_interval_ms: 1000,
        max_batch_items: 10,
        last_batch: 0,
        max_metric_rows: 0,
    }
}

fn machine(basis: Option<&str>) -> SyncMachine {
    SyncMachine::new(SyncSettings::default(), Hello { basis: basis.map(revision), ..Hello::default() })
}

/// Handles an event and prints the actions, short.
fn step(machine: &mut SyncMachine, event: Event, now: Duration) -> Vec<String> {
    let mut actions = Vec::new();
    machine.handle(event, now, 0.5, &mut actions);
    actions.iter().map(short).collect()
}

fn short(action: &Action) -> String {
    match action {
        Action::Send(ClientMessage::Hello(hello)) => {
            format!("hello {}", hello.basis.as_ref().map_or("-".to_owned(), ToString::to_string))
        }
        Action::Send(ClientMessage::Applied { revision }) => format!("applied {revision}"),
        Action::Send(message) => format!("{message:?}").to_lowercase(),
        Action::ApplySnapshot(body) => format!("snapshot {}", body.revision),
        Action::ApplyPatch(body) => format!("patch {}", body.revision),
        Action::Advance(revision) => format!("advance {revision}"),
        Action::Poll(basis) => format!("poll {}", basis.as_ref().map_or("-".to_owned(), ToString::to_string)),
        Action::Open => "open".to_owned(),
        Action::Close => "close".to_owned(),
        Action::Greeted { .. } => "greeted".to_owned(),
        Action::ExposuresStored(batch) => format!("stored {batch}"),
        Action::ExposuresRefused(batch, _) => format!("refused {batch}"),
        Action::MetricsMerged(batch) => format!("merged {batch}"),
        Action::Directives(directives) => format!("directives {}", directives.len()),
    }
}

/// A machine that is connected and serves `h:5`.
fn connected() -> SyncMachine {
    let mut machine = machine(None);
    assert_eq!(step(&mut machine, Event::DeadlinePassed, Duration::ZERO), ["open"]);
    assert_eq!(step(&mut machine, Event::Opened, Duration::ZERO), ["hello -"]);
    assert_eq!(step(&mut machine, Event::Received(welcome()), Duration::ZERO), ["greeted"]);
    let first = Event::Received(ServerMessage::Snapshot(snapshot("h:5")));
    assert_eq!(step(&mut machine, first, Duration::ZERO), ["snapshot h:5"]);
    assert!(!machine.is_current());
    assert_eq!(step(&mut machine, Event::Applied(revision("h:5")), Duration::ZERO), ["applied h:5"]);
    assert!(machine.is_current() && machine.link() == Link::Websocket);
    machine
}

fn received(machine: &mut SyncMachine, message: ServerMessage) -> Vec<String> {
    step(machine, Event::Received(message), SECOND)
}

#[test]
fn patches_follow_the_revision_that_is_serving() {
    let mut machine = connected();
    assert_eq!(received(&mut machine, ServerMessage::Patch(patch(3, "h:8"))), ["patch h:8"]);
    step(&mut machine, Event::Applied(revision("h:8")), SECOND);
    assert!(received(&mut machine, ServerMessage::Patch(patch(3, "h:8"))).is_empty(), "known already");
    assert_eq!(received(&mut machine, ServerMessage::Patch(patch(9, "h:10"))), ["resync"], "a gap");
    assert!(!machine.is_current());
    assert!(received(&mut machine, ServerMessage::Patch(patch(10, "h:11"))).is_empty(), "waits for the snapshot");
    assert_eq!(received(&mut machine, ServerMessage::Snapshot(snapshot("h:11"))), ["snapshot h:11"]);
    step(&mut machine, Event::Applied(revision("h:11")), SECOND);
    assert_eq!(received(&mut machine, ServerMessage::Patch(patch(0, "k:1"))), ["resync"], "another history");
    assert_eq!(received(&mut machine, ServerMessage::Snapshot(snapshot("k:1"))), ["snapshot k:1"]);
}

#[test]
fn a_state_that_cannot_be_used_is_asked_for_whole_once() {
    let mut machine = connected();
    assert_eq!(received(&mut machine, ServerMessage::Patch(patch(5, "h:6"))), ["patch h:6"]);
    assert_eq!(step(&mut machine, Event::Unusable, SECOND), ["resync"]);
    assert_eq!(received(&mut machine, ServerMessage::Snapshot(snapshot("h:6"))), ["snapshot h:6"]);
    assert_eq!(step(&mut machine, Event::Unusable, SECOND), ["close"]);
    assert_eq!(machine.link(), Link::Down);
}

#[test]
fn a_server_that_is_behind_is_left() {
    let mut machine = connected();
    assert_eq!(received(&mut machine, ServerMessage::Snapshot(snapshot("h:4"))), ["close"]);
    assert_eq!(machine.serving(), Some(&revision("h:5")));
    let mut machine = connected();
    assert_eq!(received(&mut machine, ServerMessage::Current { revision: revision("h:4") }), ["resync"]);
    assert_eq!(received(&mut machine, ServerMessage::Current { revision: revision("h:4") }), ["close"], "no circle");
}

#[test]
fn a_server_that_never_sends_a_state_is_left() {
    let mut machine = machine(Some("h:1"));
    step(&mut machine, Event::DeadlinePassed, Duration::ZERO);
    assert_eq!(step(&mut machine, Event::Opened, Duration::ZERO), ["hello h:1"]);
    step(&mut machine, Event::Received(welcome()), Duration::ZERO);
    let mut now = Duration::ZERO;
    while machine.link() == Link::Websocket {
        now = machine.deadline().unwrap();
        step(&mut machine, Event::Received(ServerMessage::Heartbeat { revision: 1 }), now);
        step(&mut machine, Event::DeadlinePassed, now);
    }
    assert_eq!(now, 30 * SECOND, "heartbeats alone do not keep the connection");
}

#[test]
fn delays_double_to_their_limit_and_start_over_once_current() {
    let mut machine = machine(None);
    let mut delays = Vec::new();
    let mut now = Duration::ZERO;
    for _ in 0..2 {
        step(&mut machine, Event::DeadlinePassed, now);
        step(&mut machine, Event::OpenFailed(OpenFailure::Unavailable), now);
        delays.push((machine.deadline().unwrap() - now).as_millis());
        now = machine.deadline().unwrap();
    }
    for _ in 0..5 {
        assert_eq!(step(&mut machine, Event::DeadlinePassed, now), ["open"]);
        assert_eq!(step(&mut machine, Event::OpenFailed(OpenFailure::Unavailable), now), ["poll -"]);
        step(&mut machine, Event::Polled(PollOutcome::Failed), now);
        delays.push((machine.deadline().unwrap() - now).as_millis());
        now = machine.deadline().unwrap();
    }
    assert_eq!(delays, [125, 250, 500, 1000, 2000, 2000, 2000], "half of 250 ms doubled up to 4 s");
    step(&mut machine, Event::DeadlinePassed, now);
    step(&mut machine, Event::Opened, now);
    step(&mut machine, Event::Received(ServerMessage::Snapshot(snapshot("h:1"))), now);
    step(&mut machine, Event::Applied(revision("h:1")), now);
    step(&mut machine, Event::Disconnected(Some(CLOSE_GOING_AWAY)), now);
    assert_eq!((machine.deadline().unwrap() - now).as_millis(), 125);
}

#[test]
fn close_codes_say_when_to_come_back() {
    for (code, delay) in [
        (Some(CLOSE_RESYNC), Some(0)),
        (Some(CLOSE_OVERLOADED), Some(2000)),
        (Some(CLOSE_GOING_AWAY), Some(125)),
        (None, Some(125)),
        (Some(CLOSE_CREDENTIAL_REFUSED), None),
    ] {
        let mut machine = connected();
        let now = 10 * SECOND;
        assert!(step(&mut machine, Event::Disconnected(code), now).is_empty());
        let due = machine.deadline().map(|due| (due - now).as_millis());
        assert_eq!(due, delay, "{code:?}");
        assert_eq!(machine.link() == Link::Refused, delay.is_none());
    }
}

#[test]
fn polling_goes_on_while_websockets_are_probed() {
    let mut machine = machine(Some("h:1"));
    let mut now = Duration::ZERO;
    for _ in 0..2 {
        step(&mut machine, Event::DeadlinePassed, now);
        step(&mut machine, Event::OpenFailed(OpenFailure::Unavailable), now);
        now = machine.deadline().unwrap();
    }
    step(&mut machine, Event::DeadlinePassed, now);
    assert_eq!(step(&mut machine, Event::OpenFailed(OpenFailure::Unavailable), now), ["poll h:1"]);
    assert!(!machine.is_current());
    step(&mut machine, Event::Polled(PollOutcome::NotModified), now);
    assert!(machine.is_current() && machine.link() == Link::Http);
    let mut seen = Vec::new();
    for _ in 0..6 {
        now = machine.deadline().unwrap();
        let actions = step(&mut machine, Event::DeadlinePassed, now);
        let probed = actions == ["open"];
        seen.extend(actions);
        if probed {
            assert_eq!(machine.link(), Link::Http, "HTTP stays in use during a probe");
            seen.extend(step(&mut machine, Event::OpenFailed(OpenFailure::Unavailable), now));
        }
        step(&mut machine, Event::Polled(PollOutcome::Snapshot(snapshot("h:1"))), now);
        step(&mut machine, Event::Applied(revision("h:1")), now);
    }
    let expected = ["poll h:1", "poll h:1", "poll h:1", "open", "poll h:1", "poll h:1", "poll h:1"];
    assert_eq!(seen, expected);
    step(&mut machine, Event::Polled(PollOutcome::CredentialRefused), now);
    assert_eq!((machine.link(), machine.deadline()), (Link::Refused, None));
}

#[test]
fn a_refused_credential_ends_it_all() {
    let mut machine = machine(None);
    step(&mut machine, Event::DeadlinePassed, Duration::ZERO);
    step(&mut machine, Event::OpenFailed(OpenFailure::CredentialRefused), Duration::ZERO);
    assert_eq!((machine.link(), machine.deadline()), (Link::Refused, None));
    for event in [Event::DeadlinePassed, Event::Opened, Event::Polled(PollOutcome::NotModified)] {
        assert!(step(&mut machine, event, SECOND).is_empty());
    }
}

/// What a random environment does next.
#[derive(Clone, Debug)]
enum Move {
    Opened,
    OpenFailed(bool),
    Welcome(u64),
    Snapshot(usize, u64),
    Patch(usize, u64, u64),
    Current(usize, u64),
    Other(u64),
    Disconnected(Option<u16>),
    NotModified,
    PollFailed,
    PollSnapshot(usize, u64),
    Later(u64),
    Due,
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let history = 0..2_usize;
    let number = 0..12_u64;
    let one = prop_oneof![
        8 => Just(Move::Opened),
        4 => prop::bool::weighted(0.02).prop_map(Move::OpenFailed),
        4 => (0..400_000_u64).prop_map(Move::Welcome),
        4 => (history.clone(), number.clone()).prop_map(|(history, number)| Move::Snapshot(history, number)),
        8 => (history.clone(), number.clone(), number.clone()).prop_map(|(h, from, to)| Move::Patch(h, from, to)),
        3 => (history.clone(), number.clone()).prop_map(|(history, number)| Move::Current(history, number)),
        2 => number.clone().prop_map(Move::Other),
        3 => prop::option::of(prop_oneof![1001_u16..1003, 4001_u16..4006]).prop_map(Move::Disconnected),
        2 => Just(Move::NotModified),
        1 => Just(Move::PollFailed),
        2 => (history, number).prop_map(|(history, number)| Move::PollSnapshot(history, number)),
        4 => (0..20_000_u64).prop_map(Move::Later),
        8 => Just(Move::Due),
    ];
    prop::collection::vec(one, 0..200)
}

impl Move {
    fn event(self) -> Event {
        let at = |history: usize, number: u64| format!("{}:{number}", ["h", "k"][history]);
        match self {
            Self::Opened => Event::Opened,
            Self::OpenFailed(true) => Event::OpenFailed(OpenFailure::CredentialRefused),
            Self::OpenFailed(false) => Event::OpenFailed(OpenFailure::Unavailable),
            Self::Welcome(heartbeat_interval_ms) => {
                let (protocol, max_batch_items, last_batch) = (9, 0, u64::MAX);
                Event::Received(ServerMessage::Welcome {
                    protocol,
                    heartbeat_interval_ms,
                    max_batch_items,
                    last_batch,
                    max_metric_rows: 0,
                })
            }
            Self::Snapshot(history, number) => Event::Received(ServerMessage::Snapshot(snapshot(&at(history, number)))),
            Self::Patch(history, from, to) => Event::Received(ServerMessage::Patch(patch(from, &at(history, to)))),
            Self::Current(history, number) => {
                Event::Received(ServerMessage::Current { revision: revision(&at(history, number)) })
            }
            Self::Other(batch) => Event::Received(ServerMessage::ExposuresStored { batch }),
            Self::Disconnected(code) => Event::Disconnected(code),
            Self::NotModified => Event::Polled(PollOutcome::NotModified),
            Self::PollFailed => Event::Polled(PollOutcome::Failed),
            Self::PollSnapshot(history, number) => Event::Polled(PollOutcome::Snapshot(snapshot(&at(history, number)))),
            Self::Later(_) | Self::Due => Event::DeadlinePassed,
        }
    }
}

/// A machine, the time, and what its driver would have under way.
struct World {
    machine: SyncMachine,
    now: Duration,
    open_asked: bool,
}

impl World {
    /// Handles an event and carries out what it leads to; every third state is unusable if `picky`.
    fn handle(&mut self, event: Event, random: f64, picky: bool) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            let mut actions = Vec::new();
            self.machine.handle(event, self.now, random, &mut actions);
            for action in actions {
                self.open_asked = matches!(action, Action::Open | Action::Poll(_));
                events.extend(self.apply(action, picky));
            }
        }
    }

    fn apply(&self, action: Action, picky: bool) -> Option<Event> {
        let have = self.machine.serving();
        let next = match action {
            Action::ApplySnapshot(body) => body.revision,
            Action::ApplyPatch(body) => {
                let have = have.expect("a patch needs something to patch");
                assert!(body.from <= have.number && have.history == body.revision.history);
                body.revision
            }
            Action::Advance(revision) => revision,
            _ => return None,
        };
        if let Some(have) = have.filter(|have| have.history == next.history) {
            assert!(next.number >= have.number, "from {have} back to {next}");
        }
        Some(if picky && next.number % 3 == 0 { Event::Unusable } else { Event::Applied(next) })
    }
}

proptest! {
    #[test]
    fn whatever_happens_nothing_goes_back_and_a_good_server_is_found(moves in moves(), random in 0.0..1.0_f64, basis: bool) {
        let basis = basis.then_some("h:3");
        let mut world = World { machine: machine(basis), now: Duration::ZERO, open_asked: false };
        for next in moves {
            match next {
                Move::Later(ms) => world.now += Duration::from_millis(ms),
                Move::Due => world.now = world.machine.deadline().unwrap_or_default().max(world.now),
                _ => {}
            }
            world.handle(next.event(), random, true);
            prop_assert_eq!(world.machine.deadline().is_none(), world.machine.link() == Link::Refused);
        }
        if world.machine.link() == Link::Refused {
            return Ok(());
        }
        // Left alone, it asks for a connection before long.
        world.open_asked = false;
        for _ in 0..200 {
            world.now = world.machine.deadline().unwrap_or_default().max(world.now);
            world.handle(Event::DeadlinePassed, random, false);
            if world.open_asked {
                break;
            }
        }
        prop_assert!(world.open_asked);
        // A server that answers as it should makes it current, over a websocket.
        for _ in 0..200 {
            world.handle(Event::Opened, random, false);
            world.handle(Event::Received(welcome()), random, false);
            world.handle(Event::Received(ServerMessage::Snapshot(snapshot("h:50"))), random, false);
            if world.machine.is_current() && world.machine.link() == Link::Websocket {
                break;
            }
            world.handle(Event::Polled(PollOutcome::Snapshot(snapshot("h:50"))), random, false);
            world.now = world.machine.deadline().unwrap_or_default().max(world.now);
            world.handle(Event::DeadlinePassed, random, false);
        }
        prop_assert!(world.machine.is_current() && world.machine.link() == Link::Websocket);
        prop_assert_eq!(world.machine.serving(), Some(&revision("h:50")));
    }
}
