//! A connection's batches of metrics: read leniently, limited, merged, acknowledged.

use std::borrow::Cow;
use std::sync::Arc;

use guidon_sdk::measure::MetricsBatch;
use guidon_sdk::protocol::{ClientMessage, Hello, ServerMessage};
use serde::Deserialize;
use tokio::time::Instant;

use super::End;
use crate::assignments::Origin;
use crate::metrics::{MetricsSink, Sender};
use crate::push::PushLimits;

/// A message of the client.
#[derive(Debug)]
pub(super) enum Message {
    /// One that was read.
    Read(Box<ClientMessage>),
    /// A batch of metrics that will never be read, and why.
    UnreadableMetrics(u64, String),
}

/// Reads a text frame. Metrics that cannot be read do not end the connection: they would be sent again over the next one.
pub(super) fn understand(text: &str) -> Result<Message, End> {
    // Positions and kinds only: a message may hold raw unit ids.
    let place = |error: &serde_json::Error| {
        format!("a message could not be read, line {} column {}", error.line(), error.column())
    };
    #[derive(Deserialize)]
    struct Tag<'a> {
        #[serde(borrow)]
        kind: Cow<'a, str>,
        batch: Option<u64>,
    }
    let tag: Option<Tag<'_>> = serde_json::from_str(text).ok();
    let Some(Tag { batch, .. }) = tag.filter(|tag| tag.kind == "metrics") else {
        let read = serde_json::from_str(text).map_err(|error| End::protocol(place(&error)))?;
        return Ok(Message::Read(Box::new(read)));
    };
    // Read straight from the text: serde's tagged enums read through a buffer that does not hold numbers of 128 bits.
    match (serde_json::from_str::<MetricsBatch>(text), batch) {
        (Ok(batch), _) => Ok(Message::Read(Box::new(ClientMessage::Metrics(batch)))),
        (Err(error), Some(batch)) => Ok(Message::UnreadableMetrics(batch, place(&error))),
        (Err(error), None) => Err(End::protocol(place(&error))),
    }
}

/// What a connection that may send metrics keeps of them.
pub(super) struct Metering {
    sink: Arc<dyn MetricsSink>,
    sender: Sender,
    max_rows: u32,
    per_second: f64,
    burst: f64,
    /// Batches it may send now, as of `counted_at`.
    allowance: f64,
    counted_at: Instant,
}

impl Metering {
    pub(super) fn new(sink: Arc<dyn MetricsSink>, origin: Origin, hello: &Hello, limits: &PushLimits) -> Self {
        let burst = f64::from(limits.metric_batch_burst);
        Self {
            sink,
            sender: Sender::new(origin, &hello.instance, hello.epoch),
            max_rows: limits.max_metric_rows,
            per_second: f64::from(limits.metric_batches_per_second),
            burst,
            allowance: burst,
            counted_at: Instant::now(),
        }
    }

    /// Most rows of one batch.
    pub(super) fn max_rows(&self) -> u32 {
        self.max_rows
    }

    /// The instance's clock stood at `sent_ms` when it sent what came at `now_ms`.
    pub(super) fn heard(&mut self, sent_ms: u64, now_ms: u64) {
        self.sender.heard(sent_ms, now_ms);
    }

    /// Merges a batch; the answer acknowledges it.
    pub(super) fn receive(&mut self, batch: MetricsBatch, now_ms: u64) -> Result<ServerMessage, End> {
        self.spend()?;
        let (number, rows, most) = (batch.batch, batch.rows.len(), self.max_rows);
        if rows > most as usize {
            let reason = format!("metrics: {rows} rows in a batch, the limit is {most} (max_metric_rows)");
            return Err(End::protocol(reason));
        }
        self.sink.receive(&mut self.sender, batch, now_ms);
        Ok(ServerMessage::MetricsMerged { batch: number })
    }

    /// Gives up a batch; the answer says that it is of no use.
    pub(super) fn give_up(&mut self, batch: u64, reason: &str) -> Result<ServerMessage, End> {
        self.spend()?;
        self.sink.unreadable(&mut self.sender, reason);
        Ok(ServerMessage::MetricsMerged { batch })
    }

    /// Counts a batch against the limit of batches a second.
    fn spend(&mut self) -> Result<(), End> {
        let now = Instant::now();
        let earned = now.duration_since(self.counted_at).as_secs_f64() * self.per_second;
        (self.allowance, self.counted_at) = ((self.allowance + earned).min(self.burst), now);
        if self.allowance < 1.0 {
            let most = self.per_second;
            let reason = format!("metrics: more than {most} batches a second (metric_batches_per_second)");
            return Err(End::protocol(reason));
        }
        self.allowance -= 1.0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_read_straight_and_leniently() {
        let text = r#"{"batch":3,"at":5,"rows":[{"second":1,"metric":"m","revision":1,"values":
            {"count":1,"sum":-1000000000000000,"sumSquares":1000000000000000000000000000000}}],"kind":"metrics"}"#;
        let Ok(Message::Read(message)) = understand(text) else { panic!() };
        let ClientMessage::Metrics(batch) = *message else { panic!() };
        assert_eq!(batch.rows[0].values.mean(), Some(-1e9));
        let crooked = r#"{"kind":"metrics","batch":3,"at":5,"rows":[{"second":1,"metric":"m","revision":1,"latency":[[9,1],[8,1]]}]}"#;
        assert!(matches!(understand(crooked), Ok(Message::UnreadableMetrics(3, _))));
        assert!(understand(r#"{"kind":"metrics","batch":"x"}"#).is_err(), "there is nothing to acknowledge");
        assert!(understand("[]").is_err() && understand("{").is_err());
        assert!(matches!(understand(r#"{"kind":"fanfare"}"#), Ok(Message::Read(_))));
    }
}
