//! Many connections: stuck readers among others, and everybody coming back at once.
//!
//! Latencies are printed, not judged.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use futures_util::{SinkExt, StreamExt};
use guidon_sdk::protocol::{ClientMessage, Hello, Revision, STREAM_PATH, ServerMessage};
use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::{Message, WebSocketConfig};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use crate::counts::{count, report};
use crate::support::{ServerOptions, ServerProcess};

/// How long anything may take before the test gives up.
const LIMIT: Duration = Duration::from_secs(120);
/// Connections made from one loopback address.
const PER_ADDRESS: usize = 2_500;
/// Size of the value that each change carries, in bytes: enough that a stuck reader's buffers fill.
const VALUE_BYTES: usize = 40_000;

type Socket = WebSocketStream<TcpStream>;

/// Where to connect, and with what.
#[derive(Clone)]
struct Door {
    server: SocketAddr,
    credential: Arc<str>,
}

impl Door {
    fn of(server: &ServerProcess) -> Self {
        let address = server.client.url.strip_prefix("http://").expect("a plain address");
        let credential = server.client.create_sdk_key("development").into();
        Self { server: address.parse().expect("an address"), credential }
    }

    /// Opens a stream and says hello. `None` while the server is not there.
    async fn open(&self, index: usize, basis: Option<Revision>, receive_bytes: Option<u32>) -> Option<Socket> {
        let socket = TcpSocket::new_v4().expect("a socket");
        if let Some(bytes) = receive_bytes {
            socket.set_recv_buffer_size(bytes).expect("a buffer size");
        }
        let host = u8::try_from(2 + index / PER_ADDRESS).expect("few addresses");
        socket.bind((Ipv4Addr::new(127, 0, 0, host), 0).into()).expect("a loopback address");
        let stream = socket.connect(self.server).await.ok()?;
        let mut request = format!("ws://{}{STREAM_PATH}", self.server).into_client_request().expect("a request");
        request.headers_mut().insert("authorization", format!("Bearer {}", self.credential).parse().expect("a header"));
        let config = WebSocketConfig::default().read_buffer_size(4 << 10);
        let (mut socket, _) = client_async_with_config(request, stream, Some(config)).await.ok()?;
        let hello = Hello { protocol: 1, instance: format!("reader-{index}"), epoch: 1, basis, ..Hello::default() };
        let hello = serde_json::to_string(&ClientMessage::Hello(hello)).expect("JSON");
        socket.send(Message::text(hello)).await.ok()?;
        Some(socket)
    }
}

/// Reads one connection and says which revision it has and when it got it. Checks that nothing is left out.
struct Reader {
    revision: Option<Revision>,
    seen: watch::Sender<(u64, Instant)>,
}

impl Reader {
    fn new() -> (Self, watch::Receiver<(u64, Instant)>) {
        let (seen, receiver) = watch::channel((0, Instant::now()));
        (Self { revision: None, seen }, receiver)
    }

    async fn follow(&mut self, mut socket: Socket) {
        while let Some(Ok(message)) = socket.next().await {
            let Message::Text(text) = message else { continue };
            let at = Instant::now();
            match ServerMessage::parse(&text).expect("the server speaks the protocol") {
                ServerMessage::Snapshot(body) => self.take(None, body.revision, at),
                ServerMessage::Patch(body) => self.take(Some(body.from), body.revision, at),
                ServerMessage::Current { revision } => self.take(None, revision, at),
                _ => {}
            }
        }
    }

    fn take(&mut self, from: Option<u64>, revision: Revision, at: Instant) {
        if let (Some(from), Some(have)) = (from, &self.revision) {
            assert!(from <= have.number, "a change is missing between {} and {from}", have.number);
        }
        assert!(self.revision.as_ref().is_none_or(|have| have.number <= revision.number), "the revision went back");
        self.seen.send_replace((revision.number, at));
        self.revision = Some(revision);
    }
}

fn server() -> ServerProcess {
    let arguments = ["--max-writes-per-second", "1000000"].map(str::to_owned).to_vec();
    let server = ServerProcess::start_with(ServerOptions { arguments, ..ServerOptions::default() });
    let value = "x".repeat(VALUE_BYTES);
    let variations = json!([{"key": "on", "value": value}, {"key": "off", "value": ""}]);
    let flag = json!({"key": "f", "kind": "string", "variations": variations});
    server.client.change("development", json!([{"kind": "createFlag", "flag": flag}])).ok();
    server
}

/// Makes a change that carries the flag's values; answers its revision.
fn toggle(server: &ServerProcess, on: bool) -> u64 {
    let kind = if on { "turnFlagOn" } else { "turnFlagOff" };
    let outcome: Value = server.client.change("development", json!([{"kind": kind, "flag": "f"}])).ok();
    outcome["revision"].as_u64().expect("a revision")
}

async fn until(readers: &mut [watch::Receiver<(u64, Instant)>], revision: u64) -> Vec<Instant> {
    let all = readers.iter_mut().map(async |reader| {
        let seen = reader.wait_for(|(seen, _)| *seen >= revision).await.expect("the reader goes on");
        seen.1
    });
    tokio::time::timeout(LIMIT, join_all(all))
        .await
        .unwrap_or_else(|_| panic!("somebody never got revision {revision}"))
}

/// From just before each change was sent to every reader having it.
fn latencies(
    runtime: &tokio::runtime::Runtime,
    server: &ServerProcess,
    readers: &mut [watch::Receiver<(u64, Instant)>],
    changes: usize,
) -> Vec<Duration> {
    let mut all = Vec::new();
    for number in 0..changes {
        let sent = Instant::now();
        let revision = toggle(server, number % 2 == 0);
        let arrived = runtime.block_on(until(readers, revision));
        all.extend(arrived.into_iter().map(|at| at.saturating_duration_since(sent)));
    }
    all.sort();
    all
}

fn distribution(latencies: &[Duration]) -> String {
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize];
    format!("p50 {:?}, p99 {:?}, max {:?}", at(0.5), at(0.99), at(1.0))
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

#[test]
fn stuck_readers_hold_up_nobody() {
    let (others, stuck) = (count(270, 900), count(30, 100));
    let changes = count(40, 100);
    let server = server();
    let (door, runtime) = (Door::of(&server), runtime());
    let mut readers = Vec::new();
    for index in 0..others {
        let (mut reader, seen) = Reader::new();
        let socket = runtime.block_on(door.open(index, None, None)).expect("the server listens");
        runtime.spawn(async move { reader.follow(socket).await });
        readers.push(seen);
    }
    runtime.block_on(until(&mut readers, 1));
    let before = latencies(&runtime, &server, &mut readers, changes);
    // They say hello and never read again.
    let held: Vec<Socket> = (others..others + stuck)
        .map(|index| runtime.block_on(door.open(index, None, Some(4 << 10))).expect("the server listens"))
        .collect();
    let beside = latencies(&runtime, &server, &mut readers, changes);
    report(&format!(
        "stuck readers: {others} connections, {changes} changes of {VALUE_BYTES} bytes\n  alone:                  {}\n  \
         beside {stuck} stuck: {}",
        distribution(&before),
        distribution(&beside)
    ));
    drop(held);
}

#[test]
fn everybody_coming_back_at_once_is_current() {
    let connections = count(500, 10_000);
    let mut server = server();
    let (door, runtime) = (Door::of(&server), runtime());
    let mut readers = Vec::new();
    for index in 0..connections {
        let (mut reader, seen) = Reader::new();
        let door = door.clone();
        runtime.spawn(async move {
            loop {
                // All at once, without the jitter of the SDK.
                if let Some(socket) = door.open(index, reader.revision.clone(), None).await {
                    reader.follow(socket).await;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        readers.push(seen);
    }
    runtime.block_on(until(&mut readers, 1));
    server.kill();
    server.restart();
    let started = Instant::now();
    let revision = toggle(&server, true);
    let arrived = runtime.block_on(until(&mut readers, revision));
    let mut times: Vec<Duration> = arrived.into_iter().map(|at| at.saturating_duration_since(started)).collect();
    times.sort();
    report(&format!("{connections} came back at once; current after the restart: {}", distribution(&times)));
}
