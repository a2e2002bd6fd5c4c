//! Calling a receiver: the name is resolved once, its addresses are checked, and one of those is connected to, so that an answer
//! of the DNS that changes in between leads nowhere else. No redirects, no proxies, a time limit for everything.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use ipnet::IpNet;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::address::{self, NotAllowed};
use super::signature::{ID_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER};
use super::target::Target;

/// Time for resolving the name, connecting and the TLS handshake together, in seconds.
pub const CONNECT_TIMEOUT_S: u64 = 10;
/// Time from then on until the head of the answer, in seconds.
pub const ANSWER_TIMEOUT_S: u64 = 10;
/// Most of the answer's body that is read, in bytes, so that a receiver can say it to its end; it is thrown away.
const MAX_BODY_BYTES: usize = 4_096;
/// Time for that, in milliseconds.
const BODY_TIMEOUT_MS: u64 = 1_000;
/// Largest head of an answer, in bytes.
const MAX_HEAD_BYTES: usize = 16 << 10;
/// Most addresses of a name that are tried.
const MAX_ADDRESSES: usize = 4;
/// Most names that are looked up at once: each holds a thread.
const MAX_LOOKUPS: usize = 16;

/// Says which addresses a name has.
pub trait Resolver: Send + Sync + 'static {
    /// The addresses of `host`, or why there are none.
    fn resolve<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, Result<Vec<IpAddr>, String>>;
}

/// Asks the operating system.
pub struct SystemResolver {
    at_once: Semaphore,
}

impl Default for SystemResolver {
    fn default() -> Self {
        Self { at_once: Semaphore::new(MAX_LOOKUPS) }
    }
}

impl Resolver for SystemResolver {
    fn resolve<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, Result<Vec<IpAddr>, String>> {
        Box::pin(async move {
            let _permit = self.at_once.acquire().await.map_err(|error| error.to_string())?;
            let found = tokio::net::lookup_host((host, port)).await.map_err(|error| error.to_string())?;
            Ok(found.map(|address| address.ip()).collect())
        })
    }
}

/// What is sent.
#[derive(Clone, Debug)]
pub struct Message {
    /// Id of the notification.
    pub id: String,
    /// When it is sent, in seconds since 1970.
    pub timestamp: u64,
    /// Its signatures.
    pub signatures: String,
    /// Media type of the body.
    pub media_type: &'static str,
    /// The body.
    pub body: Bytes,
}

/// What the receiver answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// When it asks to be called again, in seconds from now.
    pub retry_after_s: Option<u64>,
}

/// Why a receiver did not answer, or was not called. Says nothing of the URL but its host.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The name has no address.
    #[error("{host} has no address: {reason}")]
    Unresolved {
        /// The name.
        host: String,
        /// What the resolver said.
        reason: String,
    },
    /// An address may not be called.
    #[error("{host} is not called: {0}; the operator may let the network in with --webhook-allow", host = .1)]
    NotAllowed(NotAllowed, String),
    /// Without TLS only listed addresses are called.
    #[error("without TLS only networks in --webhook-allow are called: use https")]
    PlainHttp,
    /// Nobody listens there.
    #[error("no connection: {0}")]
    Unreachable(String),
    /// The TLS handshake failed.
    #[error("no TLS connection: {0}")]
    Tls(String),
    /// It took too long.
    #[error("{what} within {seconds} s")]
    Late {
        /// What did not happen.
        what: &'static str,
        /// The limit.
        seconds: u64,
    },
    /// The connection broke.
    #[error("the connection broke before an answer: {0}")]
    Broken(String),
}

/// Calls receivers.
pub trait Caller: Send + Sync + 'static {
    /// Whether a target may be called at all, now.
    fn check<'a>(&'a self, target: &'a Target) -> BoxFuture<'a, Result<(), CallError>>;

    /// Sends a message and answers what the receiver says.
    fn call<'a>(&'a self, target: &'a Target, message: &'a Message) -> BoxFuture<'a, Result<Answer, CallError>>;
}

/// Calls receivers over HTTP.
pub struct HttpCaller {
    resolver: Arc<dyn Resolver>,
    allowed: Vec<IpNet>,
    tls: Arc<ClientConfig>,
}

impl HttpCaller {
    /// Calls what `resolver` finds on the public internet, and in the networks `allowed`.
    ///
    /// # Errors
    ///
    /// If TLS cannot be set up.
    pub fn new(resolver: Arc<dyn Resolver>, allowed: Vec<IpNet>) -> Result<Self, rustls::Error> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            // Without roots of its own a system trusts those that came with the server.
            roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let tls = Arc::new(config.with_root_certificates(roots).with_no_client_auth());
        Ok(Self { resolver, allowed, tls })
    }

    /// The addresses to connect to; none if one of them may not be called.
    async fn addresses(&self, target: &Target) -> Result<Vec<SocketAddr>, CallError> {
        let unresolved = |reason: String| CallError::Unresolved { host: target.host.clone(), reason };
        let found = match target.host.parse::<IpAddr>() {
            Ok(address) => vec![address],
            Err(_) => self.resolver.resolve(&target.host, target.port).await.map_err(unresolved)?,
        };
        if found.is_empty() {
            return Err(unresolved("the name is not known".to_owned()));
        }
        for address in &found {
            address::check(*address, &self.allowed)
                .map_err(|refused| CallError::NotAllowed(refused, target.host.clone()))?;
            if !target.tls && !address::is_listed(*address, &self.allowed) {
                return Err(CallError::PlainHttp);
            }
        }
        Ok(found.into_iter().take(MAX_ADDRESSES).map(|address| SocketAddr::new(address, target.port)).collect())
    }

    async fn connect(&self, target: &Target) -> Result<Box<dyn Stream>, CallError> {
        let mut failure = None;
        for address in self.addresses(target).await? {
            match TcpStream::connect(address).await {
                Ok(stream) if target.tls => return self.handshake(target, stream).await,
                Ok(stream) => return Ok(Box::new(stream)),
                Err(error) => failure = Some(error.to_string()),
            }
        }
        Err(CallError::Unreachable(failure.unwrap_or_default()))
    }

    async fn handshake(&self, target: &Target, stream: TcpStream) -> Result<Box<dyn Stream>, CallError> {
        let name = ServerName::try_from(target.host.clone()).map_err(|error| CallError::Tls(error.to_string()))?;
        let connector = TlsConnector::from(Arc::clone(&self.tls));
        let stream = connector.connect(name, stream).await.map_err(|error| CallError::Tls(error.to_string()))?;
        Ok(Box::new(stream))
    }

    async fn exchange(&self, stream: Box<dyn Stream>, target: &Target, message: &Message) -> Result<Answer, CallError> {
        let broken = |error: hyper::Error| CallError::Broken(chain(&error));
        let (mut sender, connection) =
            http1::Builder::new().max_buf_size(MAX_HEAD_BYTES).handshake(TokioIo::new(stream)).await.map_err(broken)?;
        // Ends with this call, however it ends.
        let _connection = AbortOnDrop(tokio::spawn(async move {
            // What went wrong with it, the answer says.
            let _ = connection.await;
        }));
        let request = Request::post(&target.path)
            .header(HOST, target.authority())
            .header(USER_AGENT, concat!("guidon/", env!("CARGO_PKG_VERSION")))
            .header(CONTENT_TYPE, message.media_type)
            .header(CONTENT_LENGTH, message.body.len())
            .header(ID_HEADER, &message.id)
            .header(TIMESTAMP_HEADER, message.timestamp)
            .header(SIGNATURE_HEADER, &message.signatures)
            .body(Full::new(message.body.clone()))
            .map_err(|error| CallError::Broken(error.to_string()))?;
        let response = sender.send_request(request).await.map_err(broken)?;
        let answer = Answer { status: response.status().as_u16(), retry_after_s: retry_after_s(response.headers()) };
        let mut body = response.into_body();
        let read_on = async {
            let mut read = 0;
            while read < MAX_BODY_BYTES {
                match body.frame().await {
                    Some(Ok(frame)) => read += frame.data_ref().map_or(0, Bytes::len),
                    _ => break,
                }
            }
        };
        // The status is what counts; a body that does not end changes nothing.
        let _ = timeout(Duration::from_millis(BODY_TIMEOUT_MS), read_on).await;
        Ok(answer)
    }
}

impl Caller for HttpCaller {
    fn check<'a>(&'a self, target: &'a Target) -> BoxFuture<'a, Result<(), CallError>> {
        Box::pin(async move {
            let late = CallError::Late { what: "the name was not resolved", seconds: CONNECT_TIMEOUT_S };
            let found = timeout(Duration::from_secs(CONNECT_TIMEOUT_S), self.addresses(target)).await;
            found.map_err(|_| late)?.map(|_| ())
        })
    }

    fn call<'a>(&'a self, target: &'a Target, message: &'a Message) -> BoxFuture<'a, Result<Answer, CallError>> {
        Box::pin(async move {
            let late = |what, seconds| move |_| CallError::Late { what, seconds };
            let connecting = timeout(Duration::from_secs(CONNECT_TIMEOUT_S), self.connect(target)).await;
            let stream = connecting.map_err(late("no connection", CONNECT_TIMEOUT_S))??;
            let exchange = self.exchange(stream, target, message);
            timeout(Duration::from_secs(ANSWER_TIMEOUT_S), exchange)
                .await
                .map_err(late("no answer", ANSWER_TIMEOUT_S))?
        })
    }
}

/// A connection, encrypted or not.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn retry_after_s(headers: &HeaderMap) -> Option<u64> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()
}

/// An error and what is behind it.
fn chain(error: &dyn std::error::Error) -> String {
    let (mut said, mut cause) = (error.to_string(), error.source());
    while let Some(error) = cause {
        said = format!("{said}: {error}");
        cause = error.source();
    }
    said
}
