//! An application of the simulation: evaluates a flag with the real SDK and notes what it did.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use guidon_sdk::client::{BoxFuture, Client, Connector, Io};
use guidon_sdk::model::Context;
use guidon_sdk::protocol::Cause;
use guidon_server::journal::Journal;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::ledger::{Ledger, Phase, Status};
use super::server::{FLAG, NAME as SERVER, PORT, Store};

/// Streams of the simulated network.
struct SimulatedTcp;

impl Connector for SimulatedTcp {
    fn connect<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Box<dyn Io>>> {
        Box::pin(async move {
            let stream = turmoil::net::TcpStream::connect((host, port)).await?;
            Ok(Box::new(stream) as Box<dyn Io>)
        })
    }
}

/// One life of an application.
pub async fn run(index: usize, store: Arc<Store>, ledger: Arc<Ledger>, seed: u64) -> turmoil::Result {
    let life = ledger.begin_life(index);
    let random = StdRng::seed_from_u64(seed ^ ((life as u64 + 1) << 32));
    let credential = loop {
        match store.credential() {
            Some(credential) => break credential.to_owned(),
            None => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    };
    let client = connect(&credential).await?;
    let application = Application { index, life, client, store, ledger, random, seen: 0, produced: 0 };
    application.live().await;
    Ok(())
}

async fn connect(credential: &str) -> turmoil::Result<Client> {
    let client = Client::builder(format!("http://{SERVER}:{PORT}"), credential)
        .allow_plaintext()
        .connector(SimulatedTcp)
        .init_timeout(Duration::from_millis(100))
        .open_timeout(Duration::from_secs(1))
        .state_timeout(Duration::from_secs(1))
        .request_timeout(Duration::from_secs(1))
        .heartbeat_interval(Duration::from_millis(300))
        .reconnect_delay(Duration::from_millis(100), Duration::from_millis(800))
        .poll_interval(Duration::from_millis(500))
        .probe_interval(Duration::from_secs(1))
        .exposure_interval(Duration::from_millis(50))
        .connect()
        .await?;
    Ok(client)
}

struct Application {
    index: usize,
    life: usize,
    client: Client,
    store: Arc<Store>,
    ledger: Arc<Ledger>,
    random: StdRng,
    /// Highest revision seen.
    seen: u64,
    produced: usize,
}

impl Application {
    async fn live(mut self) {
        while self.ledger.phase() != Phase::Draining {
            self.look(false);
            self.evaluate();
            if self.random.random_ratio(1, 30) {
                self.flush().await;
            }
            let pause = Duration::from_millis(self.random.random_range(1..40));
            tokio::time::sleep(pause).await;
        }
        while !self.flush().await {
            self.look(false);
        }
        loop {
            self.look(true);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Reports how the SDK stands, and checks that its revision is durable and never goes back.
    fn look(&mut self, drained: bool) {
        let revision = self.client.revision().map(|revision| revision.number);
        self.ledger.set_status(self.index, Status { state: self.client.state(), revision, drained });
        let Some(revision) = revision else {
            if self.seen > 0 {
                self.ledger.violation(format!("life {} lost its revision {}", self.life, self.seen));
            }
            return;
        };
        if revision < self.seen {
            self.ledger.violation(format!("life {} went back from {} to {revision}", self.life, self.seen));
        }
        let durable = self.store.journal.head().revision;
        if revision > durable {
            self.ledger.violation(format!("life {} has {revision}, the journal holds {durable}", self.life));
        }
        self.seen = revision;
    }

    /// Evaluates for a unit of its own, so that the SDK records each exposure.
    fn evaluate(&mut self) {
        let unit = format!("{}-{}-{}", self.index, self.life, self.produced);
        let context = Context::new(unit.as_str());
        let cause = if self.random.random_ratio(1, 4) {
            let path = self.client.path(FLAG, &context);
            let detail = path.ai(|| Err("the AI path failed")).baseline(|| ()).run_detail();
            detail.assigned.map(|_| detail.cause)
        } else {
            self.client.detail::<String>(FLAG, &context).variation.map(|_| Cause::Normal)
        };
        if let Some(cause) = cause {
            self.produced += 1;
            self.ledger.produce(self.life, unit, cause);
        }
    }

    /// Answers whether everything produced so far is stored.
    async fn flush(&mut self) -> bool {
        let units = self.ledger.unflushed(self.life);
        let flushed = self.client.flush(Duration::from_millis(500)).await.is_ok();
        if flushed {
            self.ledger.flushed(&units);
        }
        flushed
    }
}
