//! Messages of the push protocol, version 1: JSON text frames over a websocket, tagged by `kind`.
//!
//! The SDK opens with [`ClientMessage::Hello`]; the server answers [`ServerMessage::Welcome`] and then either a snapshot, a
//! patch from the revision the SDK said it has, or [`ServerMessage::Current`]. From then on the server sends a patch for every
//! journal entry that touches the environment. Either side skips kinds it does not know ([`ServerMessage::Unknown`]).
//! `docs/FORMATS.md` is the contract.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::measure::MetricsBatch;

/// Version of the push protocol that this crate speaks.
pub const PROTOCOL_VERSION: u32 = 1;

/// Path of the websocket.
pub const STREAM_PATH: &str = "/sdk/v1/stream";
/// Path of the snapshot, for polling; `?basis=<history>:<number>` answers 304 when nothing is newer.
pub const SNAPSHOT_PATH: &str = "/sdk/v1/snapshot";
/// Path to which batches of exposures are posted where websockets are blocked.
pub const EXPOSURES_PATH: &str = "/sdk/v1/exposures";
/// Websocket subprotocol; a browser adds the credential as a second one, `guidon.key.<credential>`.
pub const SUBPROTOCOL: &str = "guidon.v1";
/// Prefix of the subprotocol that carries a browser's credential.
pub const KEY_SUBPROTOCOL_PREFIX: &str = "guidon.key.";

/// Close code: the credential is refused, do not come back. Every other code means: come back.
pub const CLOSE_CREDENTIAL_REFUSED: u16 = 4001;
/// Close code: the server is going away; come back, with jitter.
pub const CLOSE_GOING_AWAY: u16 = 1001;
/// Close code: the connection fell too far behind; come back at once and resume.
pub const CLOSE_RESYNC: u16 = 4002;
/// Close code: a frame could not be read, or the hello was missing.
pub const CLOSE_PROTOCOL_ERROR: u16 = 4003;
/// Close code: the server holds as many connections as it may; come back, with jitter.
pub const CLOSE_OVERLOADED: u16 = 4004;

/// A point in the history of a store: which history, and how many entries it holds. In JSON `"<history>:<number>"`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Revision {
    /// Identifier of the history; a restored or imported store has a new one.
    pub history: String,
    /// Number of entries, counted from 1; 0 is the empty store.
    pub number: u64,
}

impl std::fmt::Display for Revision {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}:{}", self.history, self.number)
    }
}

impl std::str::FromStr for Revision {
    type Err = MalformedRevision;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (history, number) = text.split_once(':').ok_or(MalformedRevision)?;
        let number = number.parse().map_err(|_| MalformedRevision)?;
        if history.is_empty() {
            return Err(MalformedRevision);
        }
        Ok(Self { history: history.to_owned(), number })
    }
}

/// A revision was not of the form `<history>:<number>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a revision has the form <history>:<number>, as in 01JD7M2Q:42")]
pub struct MalformedRevision;

impl Serialize for Revision {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Revision {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Everything an environment evaluates, at one revision.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotBody {
    /// The revision this is the state of.
    pub revision: Revision,
    /// Project the environment belongs to.
    pub project: String,
    /// Key of the environment.
    pub environment: String,
    /// Definitions of [`crate::model::EnvironmentFlag`], each left unparsed so that one bad flag fails alone.
    pub flags: Vec<Box<RawValue>>,
    /// Segments ([`crate::model::Segment`]) the flags refer to, unparsed for the same reason.
    pub segments: Vec<Box<RawValue>>,
}

/// What one or more journal entries changed in an environment.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PatchBody {
    /// The patch applies to any state at or after this revision number and before `revision`, of the same history.
    pub from: u64,
    /// The revision after it.
    pub revision: Revision,
    /// Flags added or changed, whole ([`crate::model::EnvironmentFlag`]).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<Box<RawValue>>,
    /// Keys of flags that are gone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removed_flags: Vec<String>,
    /// Segments added or replaced, whole ([`crate::model::Segment`]).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub segments: Vec<Box<RawValue>>,
    /// Changes to the key lists of segments that are otherwise unchanged.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub segment_keys: Vec<SegmentKeysPatch>,
    /// Keys of segments that are gone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removed_segments: Vec<String>,
}

/// Keys added to and removed from one segment; applying it twice does no harm.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SegmentKeysPatch {
    /// Key of the segment.
    pub segment: String,
    /// Keys now included.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub included: Vec<String>,
    /// Keys no longer included.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_included: Vec<String>,
    /// Keys now excluded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub excluded: Vec<String>,
    /// Keys no longer excluded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_excluded: Vec<String>,
}

/// What the server sends. Read it with [`ServerMessage::parse`].
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum ServerMessage {
    /// First message: how this connection works.
    Welcome {
        /// Protocol version the server will speak.
        protocol: u32,
        /// The server sends a heartbeat at least this often; a peer silent for three intervals is dead. Milliseconds.
        heartbeat_interval_ms: u64,
        /// Most items of one exposure batch.
        max_batch_items: u32,
        /// Last exposure batch of this (instance, epoch) that is already stored.
        last_batch: u64,
        /// Most rows of one batch of metrics; 0 if the server takes none: an earlier version, or a client-side key.
        #[serde(default, skip_serializing_if = "is_zero")]
        max_metric_rows: u32,
    },
    /// The whole state.
    Snapshot(SnapshotBody),
    /// What changed.
    Patch(PatchBody),
    /// Nothing the environment evaluates has changed since the revision the SDK named; this is the revision now.
    Current {
        /// The server's revision.
        revision: Revision,
    },
    /// Exposure batches up to this number are durable; send no more of them.
    ExposuresStored {
        /// Number of the batch.
        batch: u64,
    },
    /// A batch that will never be stored as it is; drop it, and say so in the log.
    ExposuresRefused {
        /// Number of the batch.
        batch: u64,
        /// Why, for people.
        reason: String,
    },
    /// This batch of metrics is counted, or is of no use any more; send it no more.
    MetricsMerged {
        /// Number of the batch.
        batch: u64,
    },
    /// What this instance is to do otherwise than its peers, all of it: what is not named is over.
    Directives {
        /// The directives in force, at most [`MAX_DIRECTIVES`].
        directives: Vec<Directive>,
    },
    /// Proof of life; carries the server's revision number.
    Heartbeat {
        /// The server's revision number.
        revision: u64,
    },
    /// Asks for [`ClientMessage::Probed`] at once, and changes nothing: the server measures how long a message takes.
    Probe {
        /// Number of the probe, to be repeated.
        probe: u64,
    },
    /// A kind that this version does not know: skipped.
    Unknown,
}

impl ServerMessage {
    /// Reads one text frame. A kind that this version does not know is [`ServerMessage::Unknown`].
    ///
    /// # Errors
    /// The text is not JSON, has no `kind`, or lacks a field of its kind.
    pub fn parse(text: &str) -> serde_json::Result<Self> {
        // serde's tagged enums read through a buffer that cannot hold raw JSON; the kind is read ahead instead.
        #[derive(Deserialize)]
        struct Tag<'a> {
            #[serde(borrow)]
            kind: std::borrow::Cow<'a, str>,
        }
        #[derive(Deserialize)]
        #[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase")]
        enum Small {
            Welcome {
                protocol: u32,
                heartbeat_interval_ms: u64,
                max_batch_items: u32,
                last_batch: u64,
                #[serde(default)]
                max_metric_rows: u32,
            },
            MetricsMerged {
                batch: u64,
            },
            Directives {
                directives: Vec<Directive>,
            },
            Current {
                revision: Revision,
            },
            ExposuresStored {
                batch: u64,
            },
            ExposuresRefused {
                batch: u64,
                reason: String,
            },
            Heartbeat {
                revision: u64,
            },
            Probe {
                probe: u64,
            },
            #[serde(other)]
            Unknown,
        }
        let tag: Tag<'_> = serde_json::from_str(text)?;
        Ok(match tag.kind.as_ref() {
            "snapshot" => Self::Snapshot(serde_json::from_str(text)?),
            "patch" => Self::Patch(serde_json::from_str(text)?),
            _ => match serde_json::from_str(text)? {
                Small::Welcome { protocol, heartbeat_interval_ms, max_batch_items, last_batch, max_metric_rows } => {
                    Self::Welcome { protocol, heartbeat_interval_ms, max_batch_items, last_batch, max_metric_rows }
                }
                Small::MetricsMerged { batch } => Self::MetricsMerged { batch },
                Small::Directives { directives } => Self::Directives { directives },
                Small::Current { revision } => Self::Current { revision },
                Small::ExposuresStored { batch } => Self::ExposuresStored { batch },
                Small::ExposuresRefused { batch, reason } => Self::ExposuresRefused { batch, reason },
                Small::Heartbeat { revision } => Self::Heartbeat { revision },
                Small::Probe { probe } => Self::Probe { probe },
                Small::Unknown => Self::Unknown,
            },
        })
    }
}

/// Most directives of one instance.
pub const MAX_DIRECTIVES: usize = 100;

/// The instance's AI path of a flag is routed away: its baseline answers, with [`Cause::Instance`]. What is assigned stays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Directive {
    /// Key of the flag.
    pub flag: String,
    /// It ends by itself so many milliseconds after it arrived.
    pub for_ms: u64,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// What the SDK sends.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum ClientMessage {
    /// First message: who this is, and what it has.
    Hello(Hello),
    /// This revision is applied and serving.
    Applied {
        /// The revision.
        revision: Revision,
    },
    /// The state the SDK has cannot take the patch it was sent; it wants a snapshot.
    Resync,
    /// Exposures, to be acknowledged once durable.
    Exposures(ExposureBatch),
    /// What was counted in the last second, to be acknowledged once merged.
    Metrics(MetricsBatch),
    /// Proof of life.
    Heartbeat {
        /// The instance's clock, in milliseconds since 1970: the server learns its offset. Earlier versions do not say.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        at: Option<u64>,
    },
    /// The answer to [`ServerMessage::Probe`].
    Probed {
        /// Number of the probe.
        probe: u64,
    },
    /// A kind that this version does not know: skipped.
    #[serde(other)]
    Unknown,
}

/// Who connects, and what it has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hello {
    /// Highest protocol version the SDK speaks.
    pub protocol: u32,
    /// Identifies the SDK instance for as long as its process lives.
    pub instance: String,
    /// Counts the instance's lives; with `instance` it numbers exposure batches. Milliseconds since 1970 when it started.
    pub epoch: u64,
    /// Revision the SDK serves, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basis: Option<Revision>,
    /// Name of the application.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub application: String,
    /// Version of the application.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// Source commit the application was built from.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub commit: String,
    /// Digest of the image the application runs from.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub image: String,
    /// Name and version of the SDK, as `guidon-rust/0.1.0`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sdk: String,
    /// Whether it answers [`ServerMessage::Probe`]. SDKs of earlier versions do not, and do not say so.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub answers_probes: bool,
}

/// Exposures of one (instance, epoch), numbered from 1 without gaps and sent again, in order, until stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExposureBatch {
    /// Identifies the SDK instance.
    pub instance: String,
    /// The instance's life.
    pub epoch: u64,
    /// Number of the batch.
    pub batch: u64,
    /// Exposures the SDK dropped, because its queue was full, since the batch before.
    #[serde(default)]
    pub dropped: u64,
    /// The exposures, oldest first.
    pub items: Vec<Exposure>,
}

/// One served variation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Exposure {
    /// Key of the flag.
    pub flag: String,
    /// The unit: the raw value the rollout is bucketed by, or the targeting key. The server stores a pseudonym of it.
    pub unit: String,
    /// Variation the evaluator chose.
    pub assigned: String,
    /// Variation whose code answered: differs from `assigned` when the AI path fell back to the baseline.
    pub delivered: String,
    /// Why `delivered` is what it is.
    #[serde(default, skip_serializing_if = "Cause::is_normal")]
    pub cause: Cause,
    /// Evaluation reason, in OpenFeature's words.
    pub reason: String,
    /// Id of the rule that matched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// Slot of the unit, where a rollout decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<u32>,
    /// Revision number evaluated.
    pub revision: u64,
    /// When, by the SDK's clock, in milliseconds since 1970.
    pub at: u64,
}

/// Why the code that answered is, or is not, the assigned one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cause {
    /// The assigned path answered.
    #[default]
    Normal,
    /// The AI path returned an error.
    Error,
    /// The AI path panicked.
    Panic,
    /// The AI path was late.
    Timeout,
    /// The circuit breaker was open.
    Breaker,
    /// The instance is routed away from the AI path.
    Instance,
    /// The caller dropped the future before it was done; not a failure.
    Cancelled,
    /// A newer SDK's word.
    #[serde(other)]
    Other,
}

impl Cause {
    /// Whether the assigned path answered.
    #[must_use]
    pub fn is_normal(&self) -> bool {
        matches!(self, Self::Normal)
    }

    /// Whether this counts as a failure of the AI path.
    #[must_use]
    pub fn is_failure(&self) -> bool {
        matches!(self, Self::Error | Self::Panic | Self::Timeout | Self::Breaker | Self::Instance)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_messages_survive_a_round_trip() {
        let flag = RawValue::from_string(r#"{"key":"a"}"#.to_owned()).unwrap();
        let revision: Revision = "h:7".parse().unwrap();
        let patch = PatchBody {
            from: 6,
            revision: revision.clone(),
            flags: vec![flag.clone()],
            removed_flags: vec!["b".to_owned()],
            segments: Vec::new(),
            segment_keys: vec![SegmentKeysPatch { segment: "s".to_owned(), ..SegmentKeysPatch::default() }],
            removed_segments: Vec::new(),
        };
        let snapshot = SnapshotBody {
            revision: revision.clone(),
            project: "p".to_owned(),
            environment: "e".to_owned(),
            flags: vec![flag],
            segments: Vec::new(),
        };
        for message in [
            ServerMessage::Welcome {
                protocol: 1,
                heartbeat_interval_ms: 10,
                max_batch_items: 5,
                last_batch: 2,
                max_metric_rows: 9,
            },
            ServerMessage::MetricsMerged { batch: 5 },
            ServerMessage::Directives { directives: vec![Directive { flag: "f".to_owned(), for_ms: 1_000 }] },
            ServerMessage::Snapshot(snapshot),
            ServerMessage::Patch(patch),
            ServerMessage::Current { revision },
            ServerMessage::ExposuresStored { batch: 3 },
            ServerMessage::ExposuresRefused { batch: 4, reason: "why".to_owned() },
            ServerMessage::Heartbeat { revision: 9 },
            ServerMessage::Probe { probe: 8 },
            ServerMessage::Unknown,
        ] {
            let text = serde_json::to_string(&message).unwrap();
            let again = serde_json::to_string(&ServerMessage::parse(&text).unwrap()).unwrap();
            assert_eq!(again, text);
        }
    }

    #[test]
    fn unknown_kinds_are_skipped_and_malformed_frames_are_errors() {
        assert!(matches!(ServerMessage::parse(r#"{"kind":"fanfare","volume":11}"#), Ok(ServerMessage::Unknown)));
        for text in ["", "[]", "{}", r#"{"kind":7}"#, r#"{"kind":"patch"}"#, r#"{"kind":"current","revision":"7"}"#] {
            assert!(ServerMessage::parse(text).is_err(), "{text}");
        }
    }
}
