//! What is kept of a webhook's deliveries: how far they got, what is left behind, and the last ones. Pure.
//!
//! A notification is never copied: the record has its place in the journal or in the security log, from where it is read again.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::backoff::GIVE_UP_AFTER_MS;
use super::{Topic, Webhook};

/// Version of the record's JSON.
pub const RECORD_FORMAT: u32 = 1;
/// Deliveries of a webhook that are kept.
pub const MAX_DELIVERIES: usize = 100;
/// Dead letters of a webhook that are kept; the oldest go first.
pub const MAX_DEAD_LETTERS: usize = 500;
/// Longest text of an error that is kept, in characters.
const MAX_ERROR_CHARS: usize = 300;

/// Where a notification comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Position {
    /// An entry of the journal, by revision.
    Entry(u64),
    /// An event of the security log, by number.
    Event(u64),
}

/// What became of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// The receiver took it.
    Delivered,
    /// It did not; it is tried again.
    Failed,
    /// It did not, or was not asked any more; it is a dead letter.
    Dead,
}

impl Outcome {
    /// The word used in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Failed => "failed",
            Self::Dead => "dead",
        }
    }
}

/// One attempt. It holds neither what was sent nor what was answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Delivery {
    /// Id of the notification.
    pub id: String,
    /// What it is about.
    pub topic: Topic,
    /// When it was tried, in milliseconds since 1970.
    pub at: u64,
    /// Which attempt, counted from 1; 0 where none was made.
    pub attempt: u32,
    /// What became of it.
    pub outcome: Outcome,
    /// The receiver's status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// What went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A notification that was given up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeadLetter {
    /// Id of the notification.
    pub id: String,
    /// Where it is read again.
    pub position: Position,
    /// What it is about.
    pub topic: Topic,
    /// When it happened, in milliseconds since 1970.
    pub at: u64,
    /// When it was given up, in milliseconds since 1970.
    pub dead_at: u64,
    /// How often it was tried.
    pub attempts: u32,
    /// Why it was given up.
    pub reason: String,
    /// Whether it waits to be sent again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub resending: bool,
}

/// Failures in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Streak {
    /// How many.
    pub failures: u32,
    /// When the first was, in milliseconds since 1970.
    pub since: u64,
    /// When it is tried again, in milliseconds since 1970.
    pub next_at: u64,
}

/// What is kept of a webhook's deliveries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HookRecord {
    /// Version of this form.
    pub format: u32,
    /// The last entry that is done with.
    pub entries_done: u64,
    /// The last event of the security log that is done with.
    pub events_done: u64,
    /// What happened before is not sent, in milliseconds since 1970.
    pub not_before: u64,
    /// Where the present notification is sent to: a new URL is tried at once.
    #[serde(default)]
    pub url_ref: String,
    /// Attempts at the present notification.
    #[serde(default)]
    pub attempts: u32,
    /// When the present notification happened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_since: Option<u64>,
    /// Failures in a row, up to now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub streak: Option<Streak>,
    /// What was given up, oldest first.
    #[serde(default)]
    pub dead_letters: VecDeque<DeadLetter>,
    /// Dead letters that are not kept any more.
    #[serde(default)]
    pub dropped: u64,
    /// The last attempts, oldest first.
    #[serde(default)]
    pub deliveries: VecDeque<Delivery>,
}

impl HookRecord {
    /// The record of a webhook of which nothing is kept at `now` (milliseconds since 1970). Where a record was lost, what is
    /// older than would have been tried is not sent again.
    #[must_use]
    pub fn new(hook: &Webhook, now: u64) -> Self {
        Self {
            format: RECORD_FORMAT,
            entries_done: hook.since.revision,
            events_done: 0,
            not_before: hook.since.at.max(now.saturating_sub(GIVE_UP_AFTER_MS)),
            url_ref: hook.url_ref.clone(),
            attempts: 0,
            waiting_since: None,
            streak: None,
            dead_letters: VecDeque::new(),
            dropped: 0,
            deliveries: VecDeque::new(),
        }
    }

    /// Takes up what was changed in the webhook: nothing from before it was enabled is sent, and a new URL starts afresh.
    pub fn follow(&mut self, hook: &Webhook) {
        if self.entries_done < hook.since.revision {
            self.entries_done = hook.since.revision;
            self.not_before = self.not_before.max(hook.since.at);
            (self.attempts, self.streak, self.waiting_since) = (0, None, None);
        }
        if self.url_ref != hook.url_ref {
            self.url_ref = hook.url_ref.clone();
            self.streak = None;
        }
    }

    /// The present notification is done with.
    pub fn advance(&mut self, position: Position) {
        match position {
            Position::Entry(revision) => self.entries_done = self.entries_done.max(revision),
            Position::Event(seq) => self.events_done = self.events_done.max(seq),
        }
        (self.attempts, self.waiting_since) = (0, None);
    }

    /// Takes note of an attempt.
    pub fn log(&mut self, mut delivery: Delivery) {
        if let Some(error) = &mut delivery.error {
            *error = error.chars().take(MAX_ERROR_CHARS).collect();
        }
        while self.deliveries.len() >= MAX_DELIVERIES {
            self.deliveries.pop_front();
        }
        self.deliveries.push_back(delivery);
    }

    /// Keeps a notification that was given up.
    pub fn bury(&mut self, mut letter: DeadLetter) {
        letter.reason = letter.reason.chars().take(MAX_ERROR_CHARS).collect();
        self.dead_letters.retain(|known| known.id != letter.id);
        while self.dead_letters.len() >= MAX_DEAD_LETTERS {
            self.dead_letters.pop_front();
            self.dropped += 1;
        }
        self.dead_letters.push_back(letter);
    }

    /// Has dead letters sent again, one by its id or all; answers how many.
    pub fn resend(&mut self, id: Option<&str>) -> usize {
        let chosen = self.dead_letters.iter_mut().filter(|letter| id.is_none_or(|id| letter.id == id));
        chosen.map(|letter| letter.resending = true).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_bounded() {
        let hook: Webhook = serde_json::from_value(serde_json::json!({
            "id": "hook-1", "name": "", "target": "https://a/…", "urlRef": "u", "format": "json", "enabled": true,
            "secretRef": "s", "since": {"revision": 3, "at": 5}, "createdAt": 5, "updatedAt": 5}))
        .unwrap();
        let mut record = HookRecord::new(&hook, 10);
        let letter = |number: usize| DeadLetter {
            id: format!("evt-{number}"),
            position: Position::Entry(number as u64),
            topic: Topic::ChangeApplied,
            at: 1,
            dead_at: 2,
            attempts: 3,
            reason: "x".repeat(10_000),
            resending: false,
        };
        (0..MAX_DEAD_LETTERS + 7).for_each(|number| record.bury(letter(number)));
        assert_eq!((record.dead_letters.len(), record.dropped), (MAX_DEAD_LETTERS, 7));
        assert_eq!(record.resend(Some("evt-8")), 1);
        assert_eq!(record.resend(Some("evt-1")), 0, "it is not kept any more");
        assert_eq!(record.resend(None), MAX_DEAD_LETTERS);
        for attempt in 0..500 {
            let error = Some("y".repeat(10_000));
            let (topic, outcome) = (Topic::Ping, Outcome::Failed);
            record.log(Delivery {
                id: "a".to_owned(),
                topic,
                at: 1,
                attempt,
                outcome,
                status: None,
                took_ms: 1,
                error,
            });
        }
        assert_eq!(record.deliveries.len(), MAX_DELIVERIES);
        let stored = serde_json::to_vec(&record).unwrap();
        assert!(stored.len() < 400_000, "{}", stored.len());
        assert_eq!(serde_json::from_slice::<HookRecord>(&stored).unwrap(), record);
    }
}
