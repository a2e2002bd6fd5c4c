//! The accept loop, and one task per connection.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tower::ServiceExt;

use super::admission::{Admission, Admitted};
use super::tls::H2;
use super::{Listener, Tls};
use crate::config::Limits;
use crate::shutdown::Shutdown;

/// Largest head of a request, and size of a connection's read buffer, in bytes. The least that hyper takes is 8 KiB.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// Most requests of one HTTP/2 connection at once.
const MAX_HTTP2_STREAMS: u32 = 64;
/// Pause after a failed accept (the process is out of descriptors, for one), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The address a request's connection comes from, and whether it is encrypted to here: an extension of every request.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// The other end of the connection; behind a proxy, the proxy.
    pub address: SocketAddr,
    /// Whether this server ended the TLS.
    pub tls: bool,
}

/// Takes in connections and serves the router on them.
#[derive(Clone)]
pub struct Acceptor {
    /// The routes.
    pub router: Router,
    /// How many connections are let in.
    pub admission: Admission,
    /// How they are secured.
    pub tls: Option<Tls>,
    /// Timeouts.
    pub limits: Limits,
    /// Ends the loop.
    pub shutdown: Shutdown,
}

impl Acceptor {
    /// Accepts connections until the shutdown begins, then tells each to finish the request it is in.
    pub async fn run(self, mut listener: impl Listener) {
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.shutdown.begun() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((io, address)) => {
                    if let Some(io) = self.admission.admit(io) {
                        tokio::spawn(Box::pin(self.clone().secure(io, address)));
                    }
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    tracing::error!(%error, "no connection can be accepted; trying again");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn secure<Io>(self, io: Admitted<Io>, address: SocketAddr)
    where
        Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Some(tls) = &self.tls else {
            return self.serve_http1(io, Peer { address, tls: false }).await;
        };
        let failed = io.metrics().failed_handshakes.clone();
        let stream = match tokio::time::timeout(self.limits.handshake_timeout, tls.acceptor().accept(io)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                failed.inc();
                return tracing::debug!(%address, %error, "a TLS handshake failed");
            }
            Err(_) => {
                failed.inc();
                return tracing::debug!(%address, "a TLS handshake took too long");
            }
        };
        let peer = Peer { address, tls: true };
        if stream.get_ref().1.alpn_protocol() == Some(H2) {
            Box::pin(self.serve_http2(stream, peer)).await;
        } else {
            Box::pin(self.serve_http1(stream, peer)).await;
        }
    }

    async fn serve_http1<Io>(self, io: Io, peer: Peer)
    where
        Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.header_timeout)
            .max_buf_size(MAX_HEAD_BYTES)
            .serve_connection(TokioIo::new(io), service(self.router.clone(), peer))
            .with_upgrades();
        let mut connection = Box::pin(connection);
        let outcome = tokio::select! {
            outcome = connection.as_mut() => outcome,
            () = self.shutdown.begun() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        note_end(peer, outcome);
    }

    async fn serve_http2<Io>(self, io: Io, peer: Peer)
    where
        Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_HTTP2_STREAMS)
            .max_header_list_size(MAX_HEAD_BYTES as u32)
            .keep_alive_interval(self.limits.header_timeout)
            .keep_alive_timeout(self.limits.header_timeout)
            .serve_connection(TokioIo::new(io), service(self.router.clone(), peer));
        let mut connection = Box::pin(connection);
        let outcome = tokio::select! {
            outcome = connection.as_mut() => outcome,
            () = self.shutdown.begun() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        note_end(peer, outcome);
    }
}

fn service(
    router: Router,
    peer: Peer,
) -> impl hyper::service::Service<
    Request<Incoming>,
    Response = axum::response::Response,
    Error = std::convert::Infallible,
    Future: Send + 'static,
> + Send {
    hyper::service::service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(axum::body::Body::new);
        request.extensions_mut().insert(peer);
        router.clone().oneshot(request)
    })
}

/// A connection that broke says something about the network and nothing about the server.
fn note_end(peer: Peer, outcome: hyper::Result<()>) {
    if let Err(error) = outcome {
        tracing::debug!(address = %peer.address, %error, "a connection broke");
    }
}

/// Whether an accept failed for a connection that was gone again, which is no reason to pause.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
