//! Connections: taking them in, securing them, and handing their requests to the router.

mod admission;
mod connection;
mod tls;

use std::future::Future;
use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};

pub use admission::{Admission, connection_limit};
pub use connection::{Acceptor, Peer};
pub use tls::{Tls, TlsError};

/// Where connections come from: TCP, or a simulated network.
pub trait Listener: Send + 'static {
    /// A connection.
    type Io: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Waits for the next connection and its peer's address.
    fn accept(&mut self) -> impl Future<Output = io::Result<(Self::Io, SocketAddr)>> + Send;
}

impl Listener for TcpListener {
    type Io = TcpStream;

    async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        let (stream, peer) = Self::accept(self).await?;
        // A change is a small frame that must not wait for a full segment. Failing to say so only costs latency.
        let _ = stream.set_nodelay(true);
        Ok((stream, peer))
    }
}
