//! How fast a change reaches connected SDKs, beside a floor measured in the same run: `cargo bench -p guidon-tests -- 1000 10000`.
//!
//! The server runs in a process of its own, the clients in this one, on addresses 127.0.0.2 and up. The floor is a process
//! that writes one frame of the same size straight to as many plain sockets in one loop. Sizes are the arguments.
#![allow(clippy::print_stdout, reason = "a benchmark prints its table")]

#[path = "../support/mod.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod support;

use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use support::{TOKEN, TestServer, flag};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc;

/// Changes measured for each size.
const ROUNDS: usize = 20;
/// Connections from one source address.
const PER_ADDRESS: usize = 20_000;
/// What is larger than this is a patch; heartbeats are smaller.
const PATCH_BYTES: usize = 100;
/// Connections opened at once.
const OPENING: usize = 64;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    match arguments.first().map(String::as_str) {
        Some("server") => runtime.block_on(run_server(&arguments[1])),
        Some("floor") => runtime.block_on(run_floor(arguments[1].parse().unwrap(), arguments[2].parse().unwrap())),
        // `cargo test --all-targets` runs this too, and means only that it starts.
        None if !std::env::args().any(|argument| argument == "--bench") => {}
        _ => {
            let sizes = arguments.iter().filter_map(|size| size.parse().ok()).collect::<Vec<usize>>();
            runtime.block_on(measure(if sizes.is_empty() { &[1_000, 10_000] } else { &sizes }));
        }
    }
}

/// A process of this program in another role; ended by its id when dropped.
struct Role {
    child: Child,
    address: SocketAddr,
}

impl Role {
    fn start(arguments: &[&str]) -> Self {
        let program = std::env::current_exe().unwrap();
        let mut child =
            Command::new(program).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        Self { address: line.trim().parse().unwrap(), child }
    }

    /// Resident memory in bytes.
    fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn run_server(folder: &str) {
    let server = TestServer::start(std::path::Path::new(folder)).await;
    announce(server.url.trim_start_matches("http://"));
    wait_for_end().await;
    server.stop().await;
}

/// Accepts `count` sockets, then writes `bytes` bytes to each whenever its last connection sends a byte, which it answers
/// first.
async fn run_floor(count: usize, bytes: usize) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    announce(&listener.local_addr().unwrap().to_string());
    let mut sockets = Vec::new();
    while sockets.len() < count {
        sockets.push(listener.accept().await.unwrap().0.into_std().unwrap());
    }
    let (mut control, _) = listener.accept().await.unwrap();
    let frame = vec![b'x'; bytes];
    while control.read_u8().await.is_ok() {
        control.write_u8(1).await.unwrap();
        for socket in &mut sockets {
            socket.write_all(&frame).unwrap();
        }
    }
}

fn announce(address: &str) {
    println!("{address}");
    std::io::stdout().flush().unwrap();
}

async fn wait_for_end() {
    let _ = tokio::task::spawn_blocking(|| std::io::stdin().read(&mut [0])).await;
}

async fn measure(sizes: &[usize]) {
    println!(
        "{:>12} {:>8} {:>8} {:>8} {:>14} {:>22}",
        "connections", "p50 ms", "p99 ms", "max ms", "p99 / floor", "memory per connection"
    );
    for &count in sizes {
        let (latencies, frame_bytes, memory) = measure_push(count).await;
        let floor = measure_floor(count, frame_bytes).await;
        let ratio = format!("{:.2}", at(&latencies, 0.99) / at(&floor, 0.99));
        row(&count.to_string(), &latencies, &ratio, &format!("{memory:.0} B"));
        row("floor", &floor, "1", "");
    }
}

fn row(name: &str, latencies: &[f64], ratio: &str, memory: &str) {
    let [p50, p99, max] = [0.5, 0.99, 1.0].map(|part| at(latencies, part));
    println!("{name:>12} {p50:>8.1} {p99:>8.1} {max:>8.1} {ratio:>14} {memory:>22}");
}

/// The value below which `part` of the sorted values lie.
fn at(sorted: &[f64], part: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * part) as usize]
}

/// Latencies in milliseconds (sorted), the size of a patch, and the server's memory per connection.
async fn measure_push(count: usize) -> (Vec<f64>, usize, f64) {
    let folder = tempfile::tempdir().unwrap();
    let role = Role::start(&["server", folder.path().to_str().unwrap()]);
    let server = Remote { url: format!("http://{}", role.address) };
    let key = server.call("/environments/production/sdk-keys", json!({"name": "load"})).await["key"].clone();
    server.change(json!([{"kind": "createFlag", "flag": flag("engine", false)}])).await;
    let before = role.resident();
    let hello = Hello { key: key.as_str().unwrap().to_owned() };
    let (received, mut arrivals) = mpsc::unbounded_channel();
    connect_all(count, role.address, Some(hello), received).await;
    for _ in 0..count {
        // Each says so once its snapshot is there.
        arrivals.recv().await.unwrap();
    }
    let memory = role.resident().saturating_sub(before) as f64 / count as f64;
    let mut latencies = Vec::new();
    let mut bytes = 0;
    for round in 0..ROUNDS {
        let kind = if round % 2 == 0 { "turnFlagOff" } else { "turnFlagOn" };
        server.change(json!([{"kind": kind, "flag": "engine"}])).await;
        let acknowledged = Instant::now();
        for _ in 0..count {
            let (arrived, read): (Instant, usize) = arrivals.recv().await.unwrap();
            bytes = read;
            latencies.push(arrived.saturating_duration_since(acknowledged).as_secs_f64() * 1e3);
        }
    }
    latencies.sort_by(f64::total_cmp);
    (latencies, bytes, memory)
}

async fn measure_floor(count: usize, bytes: usize) -> Vec<f64> {
    let role = Role::start(&["floor", &count.to_string(), &bytes.to_string()]);
    let (received, mut arrivals) = mpsc::unbounded_channel();
    connect_all(count, role.address, None, received).await;
    let mut control = TcpStream::connect(role.address).await.unwrap();
    let mut latencies = Vec::new();
    for _ in 0..ROUNDS {
        control.write_u8(1).await.unwrap();
        control.read_u8().await.unwrap();
        let acknowledged = Instant::now();
        for _ in 0..count {
            let (arrived, _): (Instant, usize) = arrivals.recv().await.unwrap();
            latencies.push(arrived.saturating_duration_since(acknowledged).as_secs_f64() * 1e3);
        }
    }
    latencies.sort_by(f64::total_cmp);
    latencies
}

/// The API of a server in another process.
struct Remote {
    url: String,
}

impl Remote {
    async fn call(&self, path: &str, body: serde_json::Value) -> serde_json::Value {
        let url = format!("{}/api/v1/projects/default{path}", self.url);
        tokio::task::spawn_blocking(move || {
            let request = ureq::post(url).header("authorization", format!("Bearer {TOKEN}"));
            request.send_json(body).unwrap().body_mut().read_json().unwrap()
        })
        .await
        .unwrap()
    }

    async fn change(&self, instructions: serde_json::Value) {
        self.call("/changes", json!({"environment": "production", "instructions": instructions})).await;
    }
}

#[derive(Clone)]
struct Hello {
    key: String,
}

/// Opens the connections and leaves a task with each, which reports when more than a heartbeat arrives.
async fn connect_all(
    count: usize,
    address: SocketAddr,
    hello: Option<Hello>,
    received: mpsc::UnboundedSender<(Instant, usize)>,
) {
    let places = std::sync::Arc::new(tokio::sync::Semaphore::new(OPENING));
    let mut opening = tokio::task::JoinSet::new();
    for index in 0..count {
        let (places, hello, received) = (places.clone(), hello.clone(), received.clone());
        opening.spawn(async move {
            let _place = places.acquire().await.unwrap();
            let socket = TcpSocket::new_v4().unwrap();
            let source = Ipv4Addr::new(127, 0, 0, 2 + u8::try_from(index / PER_ADDRESS).unwrap());
            socket.bind((source, 0).into()).unwrap();
            let mut stream = socket.connect(address).await.unwrap();
            let mut beat = None;
            if let Some(hello) = &hello {
                greet(&mut stream, &hello.key, index).await;
                beat = Some(text_frame(r#"{"kind":"heartbeat"}"#));
            }
            tokio::spawn(listen(stream, beat, received));
        });
    }
    while let Some(opened) = opening.join_next().await {
        opened.unwrap();
    }
}

async fn greet(stream: &mut TcpStream, key: &str, index: usize) {
    let handshake = format!(
        "GET /sdk/v1/stream HTTP/1.1\r\nhost: load\r\nauthorization: Bearer {key}\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    );
    stream.write_all(handshake.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.unwrap());
    }
    assert!(answer.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&answer));
    let hello = format!(r#"{{"kind":"hello","protocol":1,"instance":"load-{index}","epoch":1}}"#);
    stream.write_all(&text_frame(&hello)).await.unwrap();
    // The welcome, whole: what is larger and comes later is the snapshot.
    let mut header = [0; 4];
    stream.read_exact(&mut header).await.unwrap();
    let length = u16::from_be_bytes([header[2], header[3]]);
    let welcome = if header[1] == 126 { usize::from(length) } else { usize::from(header[1]) - 2 };
    let mut rest = vec![0; welcome];
    stream.read_exact(&mut rest).await.unwrap();
}

/// A client's frame of less than 126 bytes, masked with zeros.
fn text_frame(text: &str) -> Vec<u8> {
    let mut frame = vec![0x81, 0x80 | u8::try_from(text.len()).unwrap(), 0, 0, 0, 0];
    frame.extend_from_slice(text.as_bytes());
    frame
}

async fn listen(mut stream: TcpStream, beat: Option<Vec<u8>>, received: mpsc::UnboundedSender<(Instant, usize)>) {
    let mut beats = tokio::time::interval(Duration::from_secs(10));
    let mut buffer = [0; 4_096];
    loop {
        tokio::select! {
            read = stream.read(&mut buffer) => match read {
                Ok(read) if read > PATCH_BYTES => {
                    if received.send((Instant::now(), read)).is_err() {
                        return;
                    }
                }
                Ok(read) if read > 0 => {}
                _ => return,
            },
            _ = beats.tick(), if beat.is_some() => {
                if stream.write_all(beat.as_deref().unwrap_or_default()).await.is_err() {
                    return;
                }
            }
        }
    }
}
