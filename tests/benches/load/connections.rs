//! Many websockets at little cost: raw sockets, frames made and found by hand.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

/// Connections from one source address.
const PER_ADDRESS: usize = 20_000;
/// Connections opened at once.
const OPENING: usize = 64;

/// When a frame that is no heartbeat had arrived whole, and its size in bytes with its header.
pub type Arrival = (Instant, usize);

/// Open connections, each with a task that reports what arrives. They close when dropped.
pub struct Connections {
    _listening: JoinSet<()>,
    arrivals: mpsc::UnboundedReceiver<Arrival>,
}

impl Connections {
    /// Opens `count` connections from the addresses 127.0.0.`source` and up; with a credential they are websockets.
    pub async fn open(count: usize, source: u8, address: SocketAddr, credential: Option<&str>) -> Self {
        let places = Arc::new(Semaphore::new(OPENING));
        let mut opening = JoinSet::new();
        for index in 0..count {
            let (places, credential) = (Arc::clone(&places), credential.map(str::to_owned));
            let source = Ipv4Addr::new(127, 0, 0, source + u8::try_from(index / PER_ADDRESS).unwrap());
            opening.spawn(async move {
                let _place = places.acquire().await.unwrap();
                let socket = TcpSocket::new_v4().unwrap();
                socket.bind((source, 0).into()).unwrap();
                let mut stream = socket.connect(address).await.unwrap();
                if let Some(credential) = &credential {
                    greet(&mut stream, credential, &format!("load-{index}")).await;
                }
                stream
            });
        }
        let (received, arrivals) = mpsc::unbounded_channel();
        let mut listening = JoinSet::new();
        while let Some(stream) = opening.join_next().await {
            listening.spawn(listen(stream.unwrap(), credential.is_some(), received.clone()));
        }
        Self { _listening: listening, arrivals }
    }

    /// The next arrival anywhere.
    pub async fn next(&mut self) -> Arrival {
        self.arrivals.recv().await.expect("a connection was lost")
    }
}

/// Shakes hands, says hello and reads the welcome.
pub async fn greet(stream: &mut TcpStream, credential: &str, instance: &str) {
    let handshake = format!(
        "GET /sdk/v1/stream HTTP/1.1\r\nhost: load\r\nauthorization: Bearer {credential}\r\nconnection: upgrade\r\n\
         upgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    );
    stream.write_all(handshake.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.unwrap());
    }
    assert!(answer.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&answer));
    let hello = format!(r#"{{"kind":"hello","protocol":1,"instance":"{instance}","epoch":1}}"#);
    stream.write_all(&text_frame(&hello)).await.unwrap();
    let welcome = read_frame(stream).await;
    assert!(welcome.starts_with(br#"{"kind":"welcome""#), "{}", String::from_utf8_lossy(&welcome));
}

/// A client's text frame, masked with zeros.
pub fn text_frame(text: &str) -> Vec<u8> {
    let mut frame = vec![0x81];
    match text.len() {
        length @ ..126 => frame.push(0x80 | length as u8),
        length @ ..0x1_0000 => {
            frame.push(0x80 | 126);
            frame.extend((length as u16).to_be_bytes());
        }
        length => {
            frame.push(0x80 | 127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend_from_slice(text.as_bytes());
    frame
}

/// The payload of a server's next frame.
pub async fn read_frame(stream: &mut TcpStream) -> Vec<u8> {
    let mut header = [0; 2];
    stream.read_exact(&mut header).await.unwrap();
    let length = match header[1] {
        126 => u64::from(stream.read_u16().await.unwrap()),
        127 => stream.read_u64().await.unwrap(),
        length => u64::from(length),
    };
    let mut payload = vec![0; usize::try_from(length).unwrap()];
    stream.read_exact(&mut payload).await.unwrap();
    payload
}

/// Length of the server's frame that `bytes` begin with, and of its header, once the header is there.
fn frame_length(bytes: &[u8]) -> Option<(usize, usize)> {
    let (header, length) = match *bytes.get(1)? {
        126 => (4, u64::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().unwrap()))),
        127 => (10, u64::from_be_bytes(bytes.get(2..10)?.try_into().unwrap())),
        length => (2, u64::from(length)),
    };
    Some((header + usize::try_from(length).unwrap(), header))
}

async fn listen(mut stream: TcpStream, beats: bool, received: mpsc::UnboundedSender<Arrival>) {
    let beat = text_frame(r#"{"kind":"heartbeat"}"#);
    let mut due = tokio::time::interval(Duration::from_secs(10));
    let (mut buffer, mut pending) = ([0; 4_096], Vec::new());
    loop {
        tokio::select! {
            read = stream.read(&mut buffer) => {
                let Ok(read @ 1..) = read else { return };
                let now = Instant::now();
                pending.extend_from_slice(&buffer[..read]);
                while let Some((length, header)) = frame_length(&pending).filter(|(length, _)| pending.len() >= *length) {
                    let is_beat = pending[header..length].starts_with(br#"{"kind":"heartbeat""#);
                    if !is_beat && received.send((now, length)).is_err() {
                        return;
                    }
                    pending.drain(..length);
                }
            }
            _ = due.tick(), if beats => {
                if stream.write_all(&beat).await.is_err() {
                    return;
                }
            }
        }
    }
}
