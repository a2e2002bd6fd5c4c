//! Requests at an even rate, and a count of who answered them.

use std::error::Error;
use std::io::Read;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1 as client;
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::Failure;

/// The longest a request may take until it counts as not answered.
const LIMIT: Duration = Duration::from_secs(10);

/// What came of the requests.
#[derive(Debug, Default)]
struct Tally {
    blue: AtomicU64,
    green: AtomicU64,
    failed: AtomicU64,
}

impl Tally {
    fn count(&self, answer: &str) {
        let count = match answer {
            "blue" => &self.blue,
            "green" => &self.green,
            _ => &self.failed,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    fn told(&self) -> String {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        format!("blue={} green={} failed={}", of(&self.blue), of(&self.green), of(&self.failed))
    }
}

/// Makes requests until standard input ends, then says what came of all of them. Any that failed is an error.
pub async fn run(to: SocketAddr, rate: u32) -> Result<(), Failure> {
    let tally = Arc::new(Tally::default());
    let (sender, mut ended) = oneshot::channel();
    std::thread::spawn(move || {
        // Whatever ends standard input ends the load.
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        let _ = sender.send(());
    });
    let mut due = interval(Duration::from_secs(1) / rate);
    due.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut second = interval(Duration::from_secs(1));
    let mut requests = JoinSet::new();
    loop {
        tokio::select! {
            _ = &mut ended => break,
            _ = second.tick() => println!("    load so far: {}", tally.told()),
            _ = due.tick() => {
                let tally = Arc::clone(&tally);
                requests.spawn(async move {
                    let answer = timeout(LIMIT, ask(to)).await;
                    tally.count(answer.ok().and_then(Result::ok).as_deref().unwrap_or_default());
                });
                while requests.try_join_next().is_some() {}
            }
        }
    }
    while requests.join_next().await.is_some() {}
    println!("load in all: {}", tally.told());
    match tally.failed.load(Ordering::Relaxed) {
        0 => Ok(()),
        failed => Err(Failure::Unanswered(failed)),
    }
}

/// One request; the colour that answered.
async fn ask(to: SocketAddr) -> Result<String, Box<dyn Error + Send + Sync>> {
    let (mut sender, connection) = client::handshake(TokioIo::new(TcpStream::connect(to).await?)).await?;
    tokio::spawn(connection);
    let request = Request::get("/").header(header::HOST, to.to_string()).body(Empty::<Bytes>::new())?;
    let answer = sender.send_request(request).await?;
    let is_ok = answer.status() == StatusCode::OK;
    let body = answer.into_body().collect().await?.to_bytes();
    Ok(if is_ok { String::from_utf8_lossy(&body).into_owned() } else { String::new() })
}
