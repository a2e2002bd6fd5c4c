use futures_util::{SinkExt, StreamExt};
use guidon_sdk::protocol::{Cause, Exposure};
use guidon_sdk::snapshot::Snapshot;
use tokio::io::DuplexStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::*;
use crate::assignments::anonymize::PseudonymKey;
use crate::assignments::{BatchLimits, MemoryAssignments};
use crate::clock::ManualClock;
use crate::environments::Audience;
use crate::journal::ObjectId;
use crate::push::{PushLimits, Receipts, sample};
use crate::state::{Publisher, World};

/// A hub without a server around it.
pub(super) struct Bench {
    pub(super) hub: Arc<Hub>,
    log: Arc<MemoryAssignments>,
    world: Arc<World>,
}

pub(super) type Socket = WebSocketStream<DuplexStream>;

impl Bench {
    pub(super) fn new(limits: PushLimits) -> Self {
        Self::with(limits, |hub| hub)
    }

    /// A bench whose hub is finished by `finish`.
    pub(super) fn with(limits: PushLimits, finish: impl FnOnce(Hub) -> Hub) -> Self {
        let world = Arc::new(sample::after(&sample::world(), |project| {
            sample::set_flag(project, sample::flag("f", false, true, None));
        }));
        let hub = Hub::new("h", Arc::clone(&world), limits, Arc::new(ManualClock::new(1_000)));
        let hub = Arc::new(finish(hub));
        let log = Arc::new(MemoryAssignments::new(BatchLimits::default(), PseudonymKey::new([1; 32])));
        Self { hub, log, world }
    }

    /// A websocket past its handshake, over a pipe that holds `pipe_bytes`.
    pub(super) async fn connect(&self, audience: Audience, pipe_bytes: usize) -> Socket {
        let (client, server) = tokio::io::duplex(pipe_bytes);
        let key_id = if audience == Audience::Server { "key-server" } else { "key-client" };
        let identity = SdkIdentity { key_id: key_id.into(), channel: sample::channel_key(audience) };
        let (hub, log) = (Arc::clone(&self.hub), Arc::clone(&self.log));
        let admission = hub.admit().unwrap();
        tokio::spawn(serve(server, hub, log, identity, admission));
        WebSocketStream::from_raw_socket(client, Role::Client, None).await
    }

    /// Connects, says hello and reads the welcome.
    pub(super) async fn greet(&self, instance: &str, basis: Option<&str>) -> Socket {
        let mut socket = self.connect(Audience::Server, 1 << 16).await;
        say(&mut socket, &hello(instance, basis)).await;
        assert!(matches!(hear(&mut socket).await, ServerMessage::Welcome { .. }));
        socket
    }

    /// The receipts of a revision once they are as wanted.
    pub(super) async fn receipts_once(&self, revision: u64, wanted: impl Fn(&Receipts) -> bool) -> Receipts {
        loop {
            let receipts = self.hub.receipts(sample::PROJECT, sample::ENVIRONMENT, revision);
            if wanted(&receipts) {
                return receipts;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Turns the flag `f` on or off and publishes that.
    pub(super) fn turn(&mut self, on: bool) {
        let next = sample::after(&self.world, |project| sample::set_flag(project, sample::flag("f", on, true, None)));
        self.publish(next, ObjectId::FlagEnvironment(sample::ENVIRONMENT.to_owned(), "f".to_owned()));
    }

    fn publish(&mut self, next: World, object: ObjectId) {
        let next = Arc::new(next);
        self.hub.publish(&self.world, &next, &[sample::entry(next.revision, object)]);
        self.world = next;
    }
}

pub(super) fn hello(instance: &str, basis: Option<&str>) -> ClientMessage {
    let basis = basis.map(|basis| basis.parse().unwrap());
    ClientMessage::Hello(Hello {
        protocol: 1,
        instance: instance.to_owned(),
        epoch: 5,
        basis,
        application: "shop".to_owned(),
        ..Hello::default()
    })
}

pub(super) async fn say(socket: &mut Socket, message: &ClientMessage) {
    say_text(socket, &serde_json::to_string(message).unwrap()).await;
}

pub(super) async fn say_text(socket: &mut Socket, text: &str) {
    // A server that has closed is heard of when reading.
    let _ = socket.send(Message::text(text)).await;
}

pub(super) async fn hear(socket: &mut Socket) -> ServerMessage {
    match socket.next().await.unwrap().unwrap() {
        Message::Text(text) => ServerMessage::parse(&text).unwrap(),
        other => panic!("{other:?}"),
    }
}

pub(super) async fn close_code(socket: &mut Socket) -> u16 {
    loop {
        match socket.next().await.unwrap().unwrap() {
            Message::Close(frame) => return frame.unwrap().code.into(),
            Message::Text(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// Reads until the snapshot, patches applied, is at `revision`.
pub(super) async fn follow(socket: &mut Socket, mut have: Option<Snapshot>, revision: u64) -> Snapshot {
    loop {
        match hear(socket).await {
            ServerMessage::Snapshot(body) => have = Some(Snapshot::from_body(&body)),
            ServerMessage::Patch(patch) => have = Some(have.unwrap().apply(&patch).unwrap()),
            ServerMessage::Heartbeat { .. } | ServerMessage::Welcome { .. } => {}
            other => panic!("{other:?}"),
        }
        if let Some(snapshot) = have.take_if(|snapshot| snapshot.revision().number == revision) {
            return snapshot;
        }
    }
}

fn is_on(snapshot: &Snapshot) -> bool {
    serde_json::to_value(snapshot).unwrap()["flags"][0]["config"]["on"] == true
}

#[tokio::test]
async fn a_connection_gets_a_snapshot_and_then_patches() {
    let mut bench = Bench::new(PushLimits::default());
    let mut socket = bench.greet("a", None).await;
    let snapshot = follow(&mut socket, None, 2).await;
    assert!(!is_on(&snapshot));
    bench.turn(true);
    let snapshot = follow(&mut socket, Some(snapshot), 3).await;
    assert!(is_on(&snapshot));
    // What does not touch the environment is not sent.
    let elsewhere = sample::after(&bench.world, |project| sample::set_segment(project, "testing", "s", "", &[]));
    bench.publish(elsewhere, ObjectId::Segment("testing".to_owned(), "s".to_owned()));
    bench.turn(false);
    let ServerMessage::Patch(patch) = hear(&mut socket).await else { panic!() };
    assert_eq!((patch.from, patch.revision.number), (3, 5));
    assert!(!is_on(&snapshot.apply(&patch).unwrap()));
}

#[tokio::test]
async fn a_connection_resumes_from_what_it_has() {
    let mut bench = Bench::new(PushLimits { patches_kept: 2, ..PushLimits::default() });
    let mut first = bench.greet("first", None).await;
    let at_2 = follow(&mut first, None, 2).await;
    bench.turn(true);
    let at_3 = follow(&mut first, Some(at_2.clone()), 3).await;

    let mut current = bench.greet("current", Some("h:3")).await;
    assert!(matches!(hear(&mut current).await, ServerMessage::Current { revision } if revision.number == 3));
    let mut behind = bench.greet("behind", Some("h:2")).await;
    let patched = follow(&mut behind, Some(at_2.clone()), 3).await;
    assert_eq!(serde_json::to_value(&patched).unwrap(), serde_json::to_value(&at_3).unwrap());
    let mut stranger = bench.greet("stranger", Some("other:3")).await;
    assert!(matches!(hear(&mut stranger).await, ServerMessage::Snapshot(_)));

    for on in [false, true, false] {
        bench.turn(on);
    }
    let mut too_old = bench.greet("too-old", Some("h:3")).await;
    assert!(matches!(hear(&mut too_old).await, ServerMessage::Snapshot(body) if body.revision.number == 6));
    let mut near = bench.greet("near", Some("h:5")).await;
    assert!(matches!(hear(&mut near).await, ServerMessage::Patch(patch) if patch.revision.number == 6));
    // Two patches would be more bytes than the whole.
    let mut farther = bench.greet("farther", Some("h:4")).await;
    assert!(matches!(hear(&mut farther).await, ServerMessage::Snapshot(body) if body.revision.number == 6));
}

#[tokio::test]
async fn a_client_that_asks_for_a_resync_gets_a_snapshot() {
    let bench = Bench::new(PushLimits::default());
    let mut socket = bench.greet("a", Some("h:2")).await;
    assert!(matches!(hear(&mut socket).await, ServerMessage::Current { .. }));
    say(&mut socket, &ClientMessage::Resync).await;
    assert!(matches!(hear(&mut socket).await, ServerMessage::Snapshot(_)));
}

#[tokio::test]
async fn what_is_sent_is_counted() {
    let mut bench = Bench::new(PushLimits { patches_kept: 1, ..PushLimits::default() });
    // There is a channel, which keeps patches, once somebody asks for it.
    bench.hub.snapshot(&sample::channel_key(Audience::Server)).unwrap();
    for on in [true, false, true] {
        bench.turn(on);
    }
    let mut near = bench.greet("near", Some("h:4")).await;
    assert!(matches!(hear(&mut near).await, ServerMessage::Patch(_)));
    let mut too_old = bench.greet("too-old", Some("h:2")).await;
    assert!(matches!(hear(&mut too_old).await, ServerMessage::Snapshot(_)));
    say(&mut near, &ClientMessage::Resync).await;
    assert!(matches!(hear(&mut near).await, ServerMessage::Snapshot(_)));
    let scraped = || {
        let mut registry = prometheus_client::registry::Registry::default();
        bench.hub.metrics().register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text
    };
    let text = scraped();
    for line in [
        r#"push_connections{audience="server"} 2"#,
        "push_patches_sent_total 1",
        "push_snapshots_sent_total 2",
        r#"push_resyncs_total{cause="behind"} 1"#,
        r#"push_resyncs_total{cause="asked"} 1"#,
    ] {
        assert!(text.contains(line), "{line} is not in {text}");
    }
    drop((near, too_old));
    while !scraped().contains(r#"push_connections{audience="server"} 0"#) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_behind_catches_up_or_sends_the_client_away() {
    let mut bench = Bench::new(PushLimits::default());
    let mut ahead = bench.connect(Audience::Server, 1 << 16).await;
    say(&mut ahead, &hello("ahead", Some("h:3"))).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    bench.turn(true);
    assert!(matches!(hear(&mut ahead).await, ServerMessage::Welcome { .. }));
    assert!(matches!(hear(&mut ahead).await, ServerMessage::Current { revision } if revision.number == 3));

    let mut far_ahead = bench.connect(Audience::Server, 1 << 16).await;
    say(&mut far_ahead, &hello("far", Some("h:9"))).await;
    assert_eq!(close_code(&mut far_ahead).await, CLOSE_GOING_AWAY);
}

#[tokio::test]
async fn a_reader_that_is_stuck_hinders_nobody_and_ends_current() {
    let mut bench = Bench::new(PushLimits { patches_kept: 4, ..PushLimits::default() });
    let mut stuck = bench.connect(Audience::Server, 256).await;
    say(&mut stuck, &hello("stuck", None)).await;
    let mut quick = bench.greet("quick", None).await;
    let mut seen = follow(&mut quick, None, 2).await;
    for revision in 3..203 {
        bench.turn(revision % 2 == 1);
        seen = follow(&mut quick, Some(seen), revision).await;
    }
    assert!(matches!(hear(&mut stuck).await, ServerMessage::Welcome { .. }));
    let ServerMessage::Snapshot(old) = hear(&mut stuck).await else { panic!() };
    assert_eq!(old.revision.number, 2);
    let ServerMessage::Snapshot(new) = hear(&mut stuck).await else { panic!("the patches between are gone") };
    assert_eq!(new.revision.number, 202);
}

#[tokio::test]
async fn a_revoked_key_ends_its_connections_and_no_others() {
    let mut bench = Bench::new(PushLimits::default());
    let mut server = bench.greet("server", None).await;
    let mut browser = bench.connect(Audience::Client, 1 << 16).await;
    say(&mut browser, &hello("browser", None)).await;
    follow(&mut browser, None, 2).await;
    assert_eq!(bench.hub.connections(sample::PROJECT, sample::ENVIRONMENT).len(), 2);
    let revoked = sample::after(&bench.world, |project| {
        Arc::make_mut(project.sdk_keys.get_mut("key-client").unwrap()).revoked_at = Some(1);
    });
    bench.publish(revoked, ObjectId::SdkKey("key-client".to_owned()));
    assert_eq!(close_code(&mut browser).await, CLOSE_CREDENTIAL_REFUSED);
    bench.turn(true);
    assert!(is_on(&follow(&mut server, None, 4).await));

    let mut late = bench.connect(Audience::Client, 1 << 16).await;
    say(&mut late, &hello("late", None)).await;
    assert_eq!(close_code(&mut late).await, CLOSE_CREDENTIAL_REFUSED);
}

#[tokio::test]
async fn what_a_connection_applied_is_seen_until_it_goes() {
    let bench = Bench::new(PushLimits::default());
    let mut socket = bench.greet("a", Some("h:2")).await;
    say(&mut socket, &ClientMessage::Applied { revision: "h:2".parse().unwrap() }).await;
    // An answered ping: what was said before it was heard.
    socket.send(Message::Ping(vec![1, 2].into())).await.unwrap();
    assert!(matches!(hear(&mut socket).await, ServerMessage::Current { .. }));
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::Pong(vec![1, 2].into()));
    let seen = bench.hub.connections(sample::PROJECT, sample::ENVIRONMENT);
    assert_eq!((seen[0].instance.as_str(), seen[0].applied, seen[0].since), ("a", 2, 1_000));
    drop(socket);
    while bench.hub.connection_count() > 0 {
        tokio::task::yield_now().await;
    }
    assert!(bench.hub.connections(sample::PROJECT, sample::ENVIRONMENT).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_dropped_and_a_beating_one_is_not() {
    let bench = Bench::new(PushLimits::default());
    let mut beating = bench.greet("beating", Some("h:2")).await;
    let mut silent = bench.greet("silent", Some("h:2")).await;
    let start = Instant::now();
    let mut beats = 0;
    while start.elapsed() < Duration::from_secs(120) {
        if let Ok(message) = timeout(Duration::from_secs(10), hear(&mut beating)).await {
            beats += u32::from(matches!(message, ServerMessage::Heartbeat { revision: 2 }));
        }
        say(&mut beating, &ClientMessage::Heartbeat { at: None }).await;
    }
    assert!(beats >= 7, "{beats}");
    let seen = bench.hub.connections(sample::PROJECT, sample::ENVIRONMENT);
    assert_eq!(seen.iter().map(|seen| seen.instance.as_str()).collect::<Vec<_>>(), ["beating"]);
    while let Some(Ok(message)) = silent.next().await {
        assert!(matches!(message, Message::Text(_)), "a dead peer is not told: {message:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_takes_nothing_is_dropped_though_it_beats() {
    let bench = Bench::new(PushLimits::default());
    let mut socket = bench.connect(Audience::Server, 256).await;
    say(&mut socket, &hello("a", None)).await;
    for _ in 0..12 {
        tokio::time::sleep(Duration::from_secs(10)).await;
        let beat = serde_json::to_string(&ClientMessage::Heartbeat { at: None }).unwrap();
        let _ = socket.send(Message::text(beat)).await;
    }
    assert_eq!(bench.hub.connection_count(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_the_protocol_is_told_so() {
    let bench = Bench::new(PushLimits { max_message_bytes: 2_000, ..PushLimits::default() });
    let long = "x".repeat(300);
    let frames: Vec<(Vec<Message>, &str)> = vec![
        (vec![], "no hello at all"),
        (vec![Message::text("not json")], "text that is no JSON"),
        (vec![Message::text(r#"{"kind":"resync"}"#)], "no hello first"),
        (vec![Message::text(r#"{"kind":"hello","protocol":1,"instance":"","epoch":1}"#)], "no instance"),
        (
            vec![Message::text(format!(r#"{{"kind":"hello","protocol":1,"instance":"{long}","epoch":1}}"#))],
            "a long one",
        ),
        (vec![Message::text(serde_json::to_string(&hello("a", None)).unwrap()); 2], "two hellos"),
        (vec![Message::binary(vec![1])], "a binary frame"),
        (vec![Message::text("x".repeat(3_000))], "too large"),
    ];
    for (messages, what) in frames {
        let mut socket = bench.connect(Audience::Server, 1 << 16).await;
        for message in messages {
            socket.send(message).await.unwrap();
        }
        assert_eq!(close_code(&mut socket).await, CLOSE_PROTOCOL_ERROR, "{what}");
    }
    let mut newer = bench.connect(Audience::Server, 1 << 16).await;
    newer.send(Message::text(r#"{"kind":"fanfare","volume":11}"#)).await.unwrap();
    say(&mut newer, &hello("newer", None)).await;
    newer.send(Message::text(r#"{"kind":"fanfare","volume":11}"#)).await.unwrap();
    follow(&mut newer, None, 2).await;
}

#[tokio::test]
async fn exposures_are_stored_once_and_acknowledged() {
    let bench = Bench::new(PushLimits::default());
    let batch = |batch, unit: &str| {
        let exposure = Exposure {
            flag: "f".to_owned(),
            unit: unit.to_owned(),
            assigned: "on".to_owned(),
            delivered: "on".to_owned(),
            cause: Cause::Normal,
            reason: "STATIC".to_owned(),
            rule: None,
            slot: None,
            revision: 2,
            at: 7,
        };
        let instance = "a".to_owned();
        ClientMessage::Exposures(ExposureBatch { instance, epoch: 5, batch, dropped: 0, items: vec![exposure] })
    };
    let mut socket = bench.greet("a", Some("h:2")).await;
    assert!(matches!(hear(&mut socket).await, ServerMessage::Current { .. }));
    for (number, unit) in [(1, "u1"), (2, "u2"), (2, "u2"), (1, "other")] {
        say(&mut socket, &batch(number, unit)).await;
        assert!(matches!(hear(&mut socket).await, ServerMessage::ExposuresStored { batch } if batch >= number));
    }
    drop(socket);
    let mut again = bench.connect(Audience::Server, 1 << 16).await;
    say(&mut again, &hello("a", Some("h:2"))).await;
    assert!(matches!(hear(&mut again).await, ServerMessage::Welcome { last_batch: 2, .. }));
    assert!(matches!(hear(&mut again).await, ServerMessage::Current { .. }));
    say(&mut again, &batch(3, &"u".repeat(2_000))).await;
    assert!(matches!(hear(&mut again).await, ServerMessage::ExposuresRefused { batch: 3, .. }));
    let origin = origin_of(&sample::channel_key(Audience::Server));
    assert_eq!(bench.log.assignments(&origin).len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_stopping_server_says_goodbye_to_all() {
    let bench = Bench::new(PushLimits::default());
    let mut sockets = Vec::new();
    for instance in 0..20 {
        sockets.push(bench.greet(&instance.to_string(), Some("h:2")).await);
    }
    let hub = Arc::clone(&bench.hub);
    let stopping = tokio::spawn(async move { hub.shut_down().await });
    for socket in &mut sockets {
        assert_eq!(close_code(socket).await, CLOSE_GOING_AWAY);
    }
    drop(sockets);
    stopping.await.unwrap();
    assert_eq!(bench.hub.connection_count(), 0);
    assert_eq!(bench.hub.admit().err(), Some(Refused::Stopping));
}

#[test]
fn an_idle_connection_is_a_small_future() {
    let bench = Bench::new(PushLimits { max_connections: 1, ..PushLimits::default() });
    let (_client, server) = tokio::io::duplex(64);
    let identity = SdkIdentity { key_id: "key-server".into(), channel: sample::channel_key(Audience::Server) };
    let admission = bench.hub.admit().unwrap();
    assert_eq!(bench.hub.admit().err(), Some(Refused::Overloaded { limit: 1 }));
    let future = serve(server, Arc::clone(&bench.hub), bench.log.clone(), identity, admission);
    assert!(std::mem::size_of_val(&future) <= 2_048, "{}", std::mem::size_of_val(&future));
}

#[tokio::test]
async fn a_probe_asks_whoever_answers_probes_and_counts_the_others() {
    use crate::drills::Prober;
    let bench = Bench::new(PushLimits::default());
    let greet = async |instance: &str, answers_probes: bool| {
        let mut socket = bench.connect(Audience::Server, 1 << 16).await;
        let ClientMessage::Hello(plain) = hello(instance, None) else { unreachable!() };
        let sdk = if answers_probes { "new/2" } else { "old/1" }.to_owned();
        say(&mut socket, &ClientMessage::Hello(Hello { answers_probes, sdk, ..plain })).await;
        assert!(matches!(hear(&mut socket).await, ServerMessage::Welcome { .. }));
        assert!(matches!(hear(&mut socket).await, ServerMessage::Snapshot(_)));
        socket
    };
    let (mut quick, mut mute, mut old) = (greet("a", true).await, greet("b", true).await, greet("c", false).await);
    let hub = Arc::clone(&bench.hub);
    let probing = tokio::spawn(async move {
        hub.probe(sample::PROJECT, sample::ENVIRONMENT, std::time::Duration::from_millis(300)).await
    });
    let ServerMessage::Probe { probe } = hear(&mut quick).await else { panic!("a probe") };
    // Somebody else's number, and twice the own: only the first answer to what was asked counts.
    say(&mut quick, &ClientMessage::Probed { probe: probe + 7 }).await;
    say(&mut quick, &ClientMessage::Probed { probe }).await;
    say(&mut quick, &ClientMessage::Probed { probe }).await;
    assert!(matches!(hear(&mut mute).await, ServerMessage::Probe { .. }));
    let report = probing.await.unwrap();
    assert_eq!((report.connected, report.answered, report.silent, report.unanswered()), (3, 1, 2, 1));
    let silent: Vec<_> = report.silent_sdks.iter().map(|sdk| (sdk.sdk.as_str(), sdk.supported, sdk.count)).collect();
    assert_eq!(silent, [("new/2", true, 1), ("old/1", false, 1)]);
    // The old one was not troubled, and everything goes on.
    let resync = ClientMessage::Resync;
    say(&mut old, &resync).await;
    assert!(matches!(hear(&mut old).await, ServerMessage::Snapshot(_)));
    let nobody = bench.hub.probe(sample::PROJECT, "testing", std::time::Duration::from_secs(60)).await;
    assert_eq!(nobody.connected, 0);
}
