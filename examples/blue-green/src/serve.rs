//! A backend: it answers with its colour.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper::{Request, Response, body::Incoming};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::Failure;

/// How long an answer takes, so that there are always requests under way when the flag switches.
const WORK: Duration = Duration::from_millis(20);

/// Answers until it is killed.
pub async fn run(colour: String, address: SocketAddr) -> Result<(), Failure> {
    let listener = TcpListener::bind(address).await.map_err(|error| Failure::Listen(address, error))?;
    let colour = Bytes::from(colour);
    loop {
        // A connection that was gone before it was accepted is no matter.
        let Ok((stream, _)) = listener.accept().await else { continue };
        let colour = colour.clone();
        tokio::spawn(async move {
            let answer = service_fn(move |_: Request<Incoming>| {
                let colour = colour.clone();
                async move {
                    tokio::time::sleep(WORK).await;
                    Ok::<_, Infallible>(Response::new(Full::new(colour)))
                }
            });
            // It ends when the peer hangs up, in whatever way.
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
        });
    }
}
