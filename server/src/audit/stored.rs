//! Events as they are stored, and the hash chain over their bytes.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Deployment, Event};
use crate::journal::ChainHash;

/// Version of the stored event's JSON; every older version stays readable.
pub const EVENT_FORMAT: u32 = 1;

/// Bytes of a record before the event's JSON.
pub(super) const HASH_BYTES: usize = 32;

/// Longest text of one field of an event, in bytes; the rest is cut off.
pub const MAX_FIELD_BYTES: usize = 512;

/// Most policies that an event names; the rest is left out.
pub const MAX_POLICIES: usize = 32;

/// Where the second log ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventsHead {
    /// Number of the last durable event; 0 when there was none yet.
    pub seq: u64,
    /// The chain up to it.
    pub hash: ChainHash,
}

impl EventsHead {
    /// Where a log ends that never held an event.
    pub const EMPTY: Self = Self { seq: 0, hash: ChainHash::GENESIS };
}

/// What the stored JSON holds.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Form {
    format: u32,
    seq: u64,
    /// The chain up to the event before, in the first event of a segment: with it, what is left can be checked when the
    /// segments before it were removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    previous: Option<String>,
    #[serde(flatten)]
    event: Event,
}

/// An event as it is stored: its number, its bytes, which are never made anew, what they say, and the chain after them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEvent {
    /// Its number, counted from 1 without gaps.
    pub seq: u64,
    /// What happened.
    pub event: Event,
    /// The chain up to the event before, where the event states it.
    pub previous: Option<ChainHash>,
    /// The stored JSON.
    pub bytes: Bytes,
    /// The chain up to and with this event.
    pub hash: ChainHash,
}

impl StoredEvent {
    /// Gives an event the place after `head`. One that `starts_segment` states the chain before it.
    ///
    /// # Errors
    ///
    /// If the event has no JSON form.
    pub fn link(head: EventsHead, event: Event, starts_segment: bool) -> Result<Self, serde_json::Error> {
        let previous = starts_segment.then_some(head.hash);
        let seq = head.seq + 1;
        let form = Form { format: EVENT_FORMAT, seq, previous: previous.map(|hash| hash.to_string()), event };
        let bytes = serde_json::to_vec(&form)?;
        Ok(Self { seq, previous, hash: head.hash.next(&bytes), event: form.event, bytes: bytes.into() })
    }

    /// The record that the log keeps.
    pub(super) fn record(&self) -> Bytes {
        Bytes::from([&self.hash.0, &*self.bytes].concat())
    }

    /// Where the log ends with this event.
    #[must_use]
    pub fn head(&self) -> EventsHead {
        EventsHead { seq: self.seq, hash: self.hash }
    }

    /// Reads the event that has the place `seq` from its stored bytes. The chain is checked against `before`, or, where the
    /// events before it were removed, against what the event itself states.
    ///
    /// # Errors
    ///
    /// What is wrong, in words.
    pub fn verify(before: Option<ChainHash>, seq: u64, bytes: Bytes, hash: ChainHash) -> Result<Self, String> {
        let before = before.or((seq == 1).then_some(ChainHash::GENESIS));
        // With the chain known, it is checked first: what does not hold is not worth reading.
        if let Some(before) = before {
            check_link(before, &bytes, hash)?;
        }
        let stored = Self::read(seq, bytes, hash)?;
        match (before, stored.previous) {
            (Some(before), Some(previous)) if before != previous => {
                return Err(format!("it says that it follows {previous}, and it follows {before}"));
            }
            (None, Some(previous)) => check_link(previous, &stored.bytes, hash)?,
            (None, None) => {
                return Err("the events before it are gone and it does not say what it follows".to_owned());
            }
            (Some(_), _) => {}
        }
        Ok(stored)
    }

    /// Reads the event that has the place `seq` from stored bytes whose link to the chain is checked elsewhere.
    pub(super) fn read(seq: u64, bytes: Bytes, hash: ChainHash) -> Result<Self, String> {
        let form = parse(&bytes)?;
        if form.seq != seq {
            return Err(format!("it says that it is event {} and stands in the place of event {seq}", form.seq));
        }
        let previous = form.previous.as_deref().map(str::parse).transpose()?;
        Ok(Self { seq, event: form.event, previous, bytes, hash })
    }
}

/// Checks that `hash` is the chain after `bytes`.
pub(super) fn check_link(before: ChainHash, bytes: &[u8], hash: ChainHash) -> Result<(), String> {
    let computed = before.next(bytes);
    if computed == hash {
        return Ok(());
    }
    Err(format!("the chain does not hold: the stored hash is {hash}, its bytes give {computed}"))
}

/// Divides a record into the chain hash and the JSON.
pub(super) fn split(payload: &[u8]) -> Result<(ChainHash, &[u8]), String> {
    let (hash, bytes) = payload.split_first_chunk::<HASH_BYTES>().ok_or("the record is shorter than a hash")?;
    Ok((ChainHash(*hash), bytes))
}

fn parse(bytes: &[u8]) -> Result<Form, String> {
    #[derive(Deserialize)]
    struct FormatOnly {
        format: u32,
    }
    let later = |format: u32| {
        format!(
            "it has format {format} and this version knows formats up to {EVENT_FORMAT}: install the later version again"
        )
    };
    match serde_json::from_slice::<Form>(bytes) {
        Ok(form) if form.format <= EVENT_FORMAT => Ok(form),
        Ok(form) => Err(later(form.format)),
        // A later version may have events that this one cannot read at all: say so rather than call them damaged.
        Err(error) => match serde_json::from_slice::<FormatOnly>(bytes) {
            Ok(FormatOnly { format }) if format > EVENT_FORMAT => Err(later(format)),
            _ => Err(format!("its bytes are no event: {error}")),
        },
    }
}

/// Bounds what an event holds: texts come from outside.
pub(super) fn bounded(mut event: Event) -> Event {
    let optional = [
        &mut event.actor_id,
        &mut event.project,
        &mut event.environment,
        &mut event.flag,
        &mut event.action,
        &mut event.credential,
    ];
    optional.into_iter().flatten().chain([&mut event.origin_id, &mut event.detail]).for_each(cut);
    event.policies.truncate(MAX_POLICIES);
    event.policies.iter_mut().for_each(cut);
    if let Some(Deployment { application, version, commit, image, sdk }) = &mut event.deployment {
        [application, version, commit, image, sdk].into_iter().for_each(cut);
    }
    event
}

fn cut(text: &mut String) {
    if text.len() > MAX_FIELD_BYTES {
        text.truncate(text.floor_char_boundary(MAX_FIELD_BYTES - '…'.len_utf8()));
        text.push('…');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::EventKind;

    fn chain(count: u64) -> Vec<StoredEvent> {
        let mut head = EventsHead::EMPTY;
        let link = |number| {
            let event = Event::new(1_000 + number, EventKind::Refused, format!("o-{number}"));
            let stored = StoredEvent::link(head, event, number == 3).expect("links");
            head = stored.head();
            stored
        };
        (1..=count).map(link).collect()
    }

    #[test]
    fn a_stored_event_reads_back_with_or_without_the_one_before() {
        let events = chain(4);
        let check =
            |stored: &StoredEvent, before| StoredEvent::verify(before, stored.seq, stored.bytes.clone(), stored.hash);
        for pair in events.windows(2) {
            assert_eq!(check(&pair[1], Some(pair[0].hash)).as_ref(), Ok(&pair[1]));
        }
        assert_eq!(check(&events[0], None).as_ref(), Ok(&events[0]));
        assert_eq!(check(&events[2], None).as_ref(), Ok(&events[2]), "it states what it follows");
        let error = check(&events[1], None).expect_err("it does not");
        assert!(error.contains("does not say what it follows"), "{error}");
        let error = check(&events[3], Some(events[0].hash)).expect_err("another one is before it");
        assert!(error.contains("chain does not hold"), "{error}");
    }

    #[test]
    fn what_a_later_version_wrote_is_not_called_damaged() {
        let bytes = Bytes::from_static(br#"{"format":2,"seq":1,"kind":"somethingNew"}"#);
        let hash = ChainHash::GENESIS.next(&bytes);
        let error = StoredEvent::verify(None, 1, bytes, hash).expect_err("unknown");
        assert!(error.contains("format 2") && error.contains("later version"), "{error}");
    }

    #[test]
    fn the_stored_form_is_the_documented_one() {
        let event = Event { actor_id: Some("a-1".to_owned()), ..Event::new(7, EventKind::SignedIn, "o-1") };
        let stored = StoredEvent::link(EventsHead::EMPTY, event, true).expect("links");
        let zeros = "0".repeat(64);
        let expected = format!(
            r#"{{"format":1,"seq":1,"previous":"{zeros}","at":7,"kind":"signedIn","actorId":"a-1","originId":"o-1","count":1}}"#
        );
        assert_eq!(str::from_utf8(&stored.bytes), Ok(expected.as_str()));
    }

    #[test]
    fn long_texts_are_cut_at_a_character() {
        let mut event = Event::new(7, EventKind::Refused, "ä".repeat(10_000));
        event.policies = vec!["p".repeat(1_000); 100];
        let event = bounded(event);
        assert!(event.origin_id.len() <= MAX_FIELD_BYTES && event.origin_id.ends_with('…'));
        assert!(
            event.policies.len() == MAX_POLICIES && event.policies.iter().all(|name| name.len() <= MAX_FIELD_BYTES)
        );
    }
}
