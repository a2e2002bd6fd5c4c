//! Sockets: how the SDK reaches its server, over TCP and TLS, as a websocket and as plain HTTP.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::header::{AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::{Message, WebSocketConfig};
use tokio_tungstenite::{WebSocketStream, client_async_with_config, tungstenite};

use super::endpoint::Endpoint;
use super::sync::OpenFailure;
use crate::protocol::{EXPOSURES_PATH, Revision, SNAPSHOT_PATH, STREAM_PATH};

/// Largest message, and largest body of an answer, that is taken from a server, in bytes. A larger one ends the connection.
pub const MAX_MESSAGE_BYTES: usize = 128 << 20;
/// Size of a websocket's read buffer, in bytes.
const READ_BUFFER_BYTES: usize = 16 << 10;
/// Messages that wait to be written to a websocket; a peer that takes none of them is given up.
const OUTGOING_MESSAGES: usize = 64;
/// Frames that wait to be taken in; more of them stay in the socket's buffers.
const INCOMING_FRAMES: usize = 8;

/// A byte stream to the server.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A future in a box.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Opens byte streams to a host and port. TLS is laid over it by the SDK.
///
/// The default is TCP; a proxy, or a simulated network in a test, is another implementation.
pub trait Connector: Send + Sync + 'static {
    /// Opens a stream to `host` (a name or an address) and `port`. The SDK limits the time.
    fn connect<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Box<dyn Io>>>;
}

/// TCP with `TCP_NODELAY`.
#[derive(Clone, Copy, Debug, Default)]
pub struct TcpConnector;

impl Connector for TcpConnector {
    fn connect<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Box<dyn Io>>> {
        Box::pin(async move {
            let stream = tokio::net::TcpStream::connect((host, port)).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Box<dyn Io>)
        })
    }
}

/// Why a request brought nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum TransportError {
    /// No connection, or it broke.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The connection was not spoken to in HTTP as it should be.
    #[error("{0}")]
    Http(#[from] hyper::Error),
    /// The websocket was not opened.
    #[error("{0}")]
    Websocket(#[from] Box<tungstenite::Error>),
    /// The server answered something else than what was asked for.
    #[error("the server answered {0}")]
    Status(StatusCode),
    /// The answer is over [`MAX_MESSAGE_BYTES`] or broke off.
    #[error("the answer could not be read: {0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
    /// The time was up.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
}

/// Opens websockets and sends requests to one server, with one credential.
pub(super) struct Transport {
    endpoint: Endpoint,
    connector: Arc<dyn Connector>,
    tls: Option<tokio_rustls::TlsConnector>,
    authorization: HeaderValue,
    request_timeout: Duration,
    /// The present series of failures to open was told at a level that people see.
    complained: AtomicBool,
}

impl Transport {
    pub(super) fn new(
        endpoint: Endpoint,
        connector: Arc<dyn Connector>,
        tls: Option<tokio_rustls::TlsConnector>,
        authorization: HeaderValue,
        request_timeout: Duration,
    ) -> Self {
        Self { endpoint, connector, tls, authorization, request_timeout, complained: AtomicBool::new(false) }
    }

    async fn stream(&self) -> io::Result<Box<dyn Io>> {
        let stream = self.connector.connect(self.endpoint.host(), self.endpoint.port()).await?;
        match &self.tls {
            None => Ok(stream),
            Some(tls) => Ok(Box::new(tls.connect(self.endpoint.server_name()?, stream).await?)),
        }
    }

    /// Opens the push stream. The caller limits the time by dropping the future.
    pub(super) async fn open(self: Arc<Self>) -> Result<Socket, OpenFailure> {
        match self.try_open().await {
            Ok(socket) => {
                self.complained.store(false, Ordering::Relaxed);
                Ok(socket)
            }
            Err(error) => Err(self.open_failed(&error)),
        }
    }

    fn open_failed(&self, error: &TransportError) -> OpenFailure {
        if self.complained.swap(true, Ordering::Relaxed) {
            tracing::debug!(%error, server = %self.endpoint, "the push stream could not be opened");
        } else {
            tracing::warn!(%error, server = %self.endpoint, "the push stream could not be opened; trying again");
        }
        match error {
            TransportError::Status(StatusCode::UNAUTHORIZED) => OpenFailure::CredentialRefused,
            _ => OpenFailure::Unavailable,
        }
    }

    async fn try_open(&self) -> Result<Socket, TransportError> {
        let stream = self.stream().await?;
        let mut request = self.endpoint.websocket_url(STREAM_PATH).into_client_request().map_err(Box::new)?;
        request.headers_mut().insert(AUTHORIZATION, self.authorization.clone());
        request.headers_mut().insert(USER_AGENT, HeaderValue::from_static(super::SDK_NAME));
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(0)
            .max_message_size(Some(MAX_MESSAGE_BYTES))
            .max_frame_size(Some(MAX_MESSAGE_BYTES));
        match client_async_with_config(request, stream, Some(config)).await {
            Ok((websocket, _)) => Ok(Socket::start(websocket)),
            Err(tungstenite::Error::Http(response)) => Err(TransportError::Status(response.status())),
            Err(error) => Err(Box::new(error).into()),
        }
    }

    /// Fetches the snapshot unless it is the one of `basis`. `None`: nothing is newer.
    pub(super) async fn snapshot(&self, basis: Option<&Revision>) -> Result<Option<Bytes>, TransportError> {
        let path = match basis {
            Some(basis) => format!("{SNAPSHOT_PATH}?basis={basis}"),
            None => SNAPSHOT_PATH.to_owned(),
        };
        match self.request(Method::GET, &path, Bytes::new()).await? {
            (StatusCode::OK, body) => Ok(Some(body)),
            (StatusCode::NOT_MODIFIED, _) => Ok(None),
            (status, _) => Err(TransportError::Status(status)),
        }
    }

    /// Posts a batch of exposures.
    pub(super) async fn post_exposures(&self, body: Bytes) -> Result<Bytes, TransportError> {
        match self.request(Method::POST, EXPOSURES_PATH, body).await? {
            (status, body) if status.is_success() => Ok(body),
            (status, _) => Err(TransportError::Status(status)),
        }
    }

    async fn request(&self, method: Method, path: &str, body: Bytes) -> Result<(StatusCode, Bytes), TransportError> {
        let exchange = self.exchange(method, path, body);
        let timed_out = TransportError::TimedOut(self.request_timeout);
        tokio::time::timeout(self.request_timeout, exchange).await.map_err(|_| timed_out)?
    }

    /// One request on a connection of its own: requests are rare, and polling is for networks that break long connections.
    async fn exchange(&self, method: Method, path: &str, body: Bytes) -> Result<(StatusCode, Bytes), TransportError> {
        let stream = self.stream().await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let request = Request::builder()
            .method(method)
            .uri(self.endpoint.path(path))
            .header(HOST, self.endpoint.authority())
            .header(AUTHORIZATION, self.authorization.clone())
            .header(USER_AGENT, super::SDK_NAME)
            .header(CONNECTION, "close")
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let answer = async {
            let response = sender.send_request(request).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_MESSAGE_BYTES).collect().await;
            Ok((status, body.map_err(TransportError::Body)?.to_bytes()))
        };
        let mut answer = std::pin::pin!(answer);
        tokio::select! {
            answer = &mut answer => answer,
            // The connection ends before the answer was read whole only if it broke; reading on then says how.
            _ = connection => answer.await,
        }
    }
}

/// What a websocket brought.
#[derive(Debug)]
pub(super) enum Incoming {
    /// A text frame.
    Text(tungstenite::Utf8Bytes),
    /// The websocket is gone, with the peer's close code if it gave one. Nothing follows.
    Gone(Option<u16>),
}

/// An open websocket, served by a task of its own, so that a peer that reads nothing holds up nobody. Dropping it closes the
/// connection at once.
pub(super) struct Socket {
    incoming: mpsc::Receiver<Incoming>,
    outgoing: mpsc::Sender<String>,
    task: tokio::task::JoinHandle<()>,
}

impl Socket {
    fn start(websocket: WebSocketStream<Box<dyn Io>>) -> Self {
        let (incoming_sender, incoming) = mpsc::channel(INCOMING_FRAMES);
        let (outgoing, outgoing_receiver) = mpsc::channel(OUTGOING_MESSAGES);
        let task = tokio::spawn(serve(websocket, incoming_sender, outgoing_receiver));
        Self { incoming, outgoing, task }
    }

    /// The next thing the websocket brings.
    pub(super) async fn next(&mut self) -> Incoming {
        self.incoming.recv().await.unwrap_or(Incoming::Gone(None))
    }

    /// Queues a text frame. `false`: the peer has not taken [`OUTGOING_MESSAGES`] messages, or is gone.
    pub(super) fn send(&self, text: String) -> bool {
        self.outgoing.try_send(text).is_ok()
    }

    /// Writes what is queued and says goodbye. The caller limits the time by dropping the future.
    pub(super) async fn close(mut self) {
        let (replacement, _) = mpsc::channel(1);
        drop(std::mem::replace(&mut self.outgoing, replacement));
        while !matches!(self.next().await, Incoming::Gone(_)) {}
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    websocket: WebSocketStream<Box<dyn Io>>,
    incoming: mpsc::Sender<Incoming>,
    mut outgoing: mpsc::Receiver<String>,
) {
    let (mut sink, mut stream) = websocket.split();
    let read = async {
        let mut code = None;
        while let Some(Ok(message)) = stream.next().await {
            let text = match message {
                Message::Text(text) => text,
                Message::Close(frame) => {
                    code = frame.map(|frame| u16::from(frame.code));
                    continue;
                }
                _ => continue,
            };
            if incoming.send(Incoming::Text(text)).await.is_err() {
                break;
            }
        }
        code
    };
    let write = async {
        while let Some(text) = outgoing.recv().await {
            if sink.send(Message::text(text)).await.is_err() {
                return;
            }
        }
        let _ = sink.send(Message::Close(None)).await;
    };
    let mut read = std::pin::pin!(read);
    // A failed write does not end the reading: the peer's reason for closing may still be in the socket.
    let code = tokio::select! {
        code = &mut read => code,
        () = write => read.await,
    };
    let _ = incoming.send(Incoming::Gone(code)).await;
}
