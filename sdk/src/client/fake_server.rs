//! A server that a test plays by hand, over in-memory streams, so that paused time stays in step.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{io, time::Duration};

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, Role};

use super::{BoxFuture, Client, ClientBuilder, ConnectError, Connector, Io};
use crate::measure::MetricsBatch;
use crate::protocol::{ClientMessage, ExposureBatch, Hello, ServerMessage};

/// The network, and the server's end of it.
pub(super) struct FakeServer {
    down: Arc<AtomicBool>,
    sender: mpsc::UnboundedSender<DuplexStream>,
    streams: mpsc::UnboundedReceiver<DuplexStream>,
}

struct Network {
    down: Arc<AtomicBool>,
    sender: mpsc::UnboundedSender<DuplexStream>,
}

impl Connector for Network {
    fn connect<'a>(&'a self, _: &'a str, _: u16) -> BoxFuture<'a, io::Result<Box<dyn Io>>> {
        Box::pin(async {
            let (ours, theirs) = duplex(64 << 10);
            if self.down.load(Ordering::Relaxed) || self.sender.send(theirs).is_err() {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            Ok(Box::new(ours) as Box<dyn Io>)
        })
    }
}

impl FakeServer {
    pub(super) fn new() -> Self {
        let (sender, streams) = mpsc::unbounded_channel();
        Self { down: Arc::default(), sender, streams }
    }

    pub(super) fn builder(&self) -> ClientBuilder {
        let network = Network { down: Arc::clone(&self.down), sender: self.sender.clone() };
        Client::builder("http://localhost", "sdk-secret").instance("i-1").connector(network)
    }

    pub(super) fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::Relaxed);
    }

    /// Connects while the server serves `snapshot`, and returns both ends.
    pub(super) async fn serve(&mut self, builder: ClientBuilder, snapshot: &str) -> (Client, Peer) {
        let connecting = tokio::spawn(builder.connect());
        let mut peer = self.accept().await;
        assert_eq!(peer.hello().await.basis, None);
        peer.welcome(0).await;
        peer.send_text(snapshot).await;
        let client = connecting.await.unwrap().unwrap();
        (client, peer)
    }

    /// The client that comes of `builder` although the server answers nothing useful.
    pub(super) async fn connect(builder: ClientBuilder) -> Result<Client, ConnectError> {
        builder.connect().await
    }

    pub(super) async fn request(&mut self) -> Request {
        let mut stream = self.streams.recv().await.unwrap();
        let mut bytes = Vec::new();
        let head = loop {
            bytes.push(stream.read_u8().await.unwrap());
            if bytes.ends_with(b"\r\n\r\n") {
                break String::from_utf8(bytes).unwrap();
            }
        };
        let length = head.to_lowercase().split_once("content-length: ").map_or(0, |(_, rest)| {
            let (number, _) = rest.split_once('\r').unwrap();
            number.parse().unwrap()
        });
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.unwrap();
        Request { head, body, stream }
    }

    /// The next request, which must be for the push stream, accepted.
    pub(super) async fn accept(&mut self) -> Peer {
        self.request().await.accept().await
    }

    /// Whether nobody connects for this long.
    pub(super) async fn is_left_alone(&mut self, time: Duration) -> bool {
        tokio::time::timeout(time, self.streams.recv()).await.is_err()
    }
}

/// A request, not answered yet.
pub(super) struct Request {
    pub(super) head: String,
    pub(super) body: Vec<u8>,
    stream: DuplexStream,
}

impl Request {
    pub(super) async fn respond(mut self, status: &str, body: &str) {
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
        self.stream.write_all(answer.as_bytes()).await.unwrap();
    }

    pub(super) async fn accept(mut self) -> Peer {
        assert!(self.head.starts_with("GET /sdk/v1/stream "), "{}", self.head);
        assert!(self.head.contains("authorization: Bearer sdk-secret"), "{}", self.head);
        let (_, key) = self.head.split_once("Sec-WebSocket-Key: ").unwrap();
        let accept = derive_accept_key(key.split_once('\r').unwrap().0.as_bytes());
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: {accept}\r\n\r\n"
        );
        self.stream.write_all(answer.as_bytes()).await.unwrap();
        Peer { websocket: WebSocketStream::from_raw_socket(self.stream, Role::Server, None).await }
    }

    pub(super) fn batch(&self) -> ExposureBatch {
        assert!(self.head.starts_with("POST /sdk/v1/exposures "), "{}", self.head);
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// The server's end of a push stream.
pub(super) struct Peer {
    websocket: WebSocketStream<DuplexStream>,
}

impl Peer {
    /// The next message, or `None` if the client is gone.
    pub(super) async fn next(&mut self) -> Option<ClientMessage> {
        match self.websocket.next().await?.ok()? {
            // As the server does: tagged enums are read through a buffer that does not hold numbers of 128 bits.
            Message::Text(text) if text.contains(r#""kind":"metrics""#) => {
                Some(ClientMessage::Metrics(serde_json::from_str(&text).unwrap()))
            }
            Message::Text(text) => Some(serde_json::from_str(&text).unwrap()),
            _ => None,
        }
    }

    /// The next message that is no heartbeat.
    pub(super) async fn message(&mut self) -> ClientMessage {
        loop {
            match self.next().await.expect("the client is gone") {
                ClientMessage::Heartbeat { .. } => {}
                message => return message,
            }
        }
    }

    pub(super) async fn hello(&mut self) -> Hello {
        match self.message().await {
            ClientMessage::Hello(hello) => hello,
            other => panic!("{other:?} instead of hello"),
        }
    }

    /// The revision the client says it has applied.
    pub(super) async fn applied(&mut self) -> String {
        match self.message().await {
            ClientMessage::Applied { revision } => revision.to_string(),
            other => panic!("{other:?} instead of applied"),
        }
    }

    pub(super) async fn batch(&mut self) -> ExposureBatch {
        loop {
            match self.message().await {
                ClientMessage::Exposures(batch) => return batch,
                ClientMessage::Applied { .. } => {}
                other => panic!("{other:?} instead of exposures"),
            }
        }
    }

    /// The next batch of metrics.
    pub(super) async fn metrics(&mut self) -> MetricsBatch {
        loop {
            match self.message().await {
                ClientMessage::Metrics(batch) => return batch,
                ClientMessage::Applied { .. } | ClientMessage::Exposures(_) => {}
                other => panic!("{other:?} instead of metrics"),
            }
        }
    }

    pub(super) async fn welcome(&mut self, last_batch: u64) {
        self.welcome_metrics(last_batch, 0).await;
    }

    /// As [`Self::welcome`], by a server that takes metrics.
    pub(super) async fn welcome_metrics(&mut self, last_batch: u64, max_metric_rows: u32) {
        let (protocol, heartbeat_interval_ms, max_batch_items) = (1, 1000, 100);
        self.send(&ServerMessage::Welcome {
            protocol,
            heartbeat_interval_ms,
            max_batch_items,
            last_batch,
            max_metric_rows,
        })
        .await;
    }

    pub(super) async fn send(&mut self, message: &ServerMessage) {
        self.send_text(&serde_json::to_string(message).unwrap()).await;
    }

    pub(super) async fn send_text(&mut self, text: &str) {
        self.websocket.send(Message::text(text)).await.unwrap();
    }

    pub(super) async fn close(mut self, code: u16) {
        let frame = CloseFrame { code: code.into(), reason: "".into() };
        self.websocket.send(Message::Close(Some(frame))).await.unwrap();
    }
}
