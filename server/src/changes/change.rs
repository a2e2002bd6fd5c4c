//! What is asked of the write path, and what it answers.

use std::borrow::Cow;
use std::sync::Arc;

use serde::Serialize;

use super::Instruction;
use super::keysets::KeySetError;
use crate::journal::{AppendError, Entry, ObjectId, ReadError};
use crate::state::Stopped;

/// Who makes a change, and from where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Author {
    /// Who; journaled. Never a name: who it is stands in the vault.
    pub actor_id: String,
    /// From where; journaled.
    pub origin_id: String,
    /// Whose idempotency keys these are: two principals may use the same key.
    pub principal: String,
}

impl Author {
    /// The server itself.
    #[must_use]
    pub fn system() -> Self {
        Self { actor_id: "system".to_owned(), origin_id: "server".to_owned(), principal: "system".to_owned() }
    }
}

/// A change as it is asked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ChangeDraft {
    /// Project it is about.
    pub project: String,
    /// Environment that environment-bound instructions apply to.
    pub environment: Option<String>,
    /// Why, in the author's words.
    pub comment: String,
    /// Source commit it ships.
    pub commit: Option<String>,
    /// Revision the author had read: the change conflicts if a later entry touched an object it names.
    pub expected_revision: Option<u64>,
    /// Only say what would happen.
    pub dry_run: bool,
    /// The edits, in order; each sees what those before it did.
    pub instructions: Vec<Instruction>,
    /// Lets it be sent again safely.
    pub idempotency: Option<IdempotencyKey>,
}

/// What a client sends so that a change is made once, however often it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// The client's word for the request.
    pub key: String,
    /// A hash of the request: method, path and body.
    pub body_hash: String,
}

/// What a change did, or would do.
#[derive(Clone, Debug)]
pub struct ChangeOutcome {
    /// The revision after it. Where nothing changed, or in a dry run, the present one.
    pub revision: u64,
    /// The objects that are different now. Empty if the change asks for what is already so: nothing is journaled then.
    pub changed: Vec<ObjectId>,
    /// Whether this is the answer to an earlier request with the same idempotency key.
    pub replayed: bool,
    /// Whether nothing was applied because nothing was to be.
    pub dry_run: bool,
    /// A sentence for people for each instruction.
    pub summary: Vec<String>,
    /// Credentials made by the change, shown this once. A replay has none.
    pub credentials: Vec<MintedCredential>,
    /// The journal's entry; `None` where nothing changed or in a dry run.
    pub entry: Option<Arc<Entry>>,
}

impl ChangeOutcome {
    /// Everything is as it was asked for already.
    pub(crate) fn nothing(revision: u64, dry_run: bool) -> Self {
        Self {
            revision,
            changed: Vec::new(),
            replayed: false,
            dry_run,
            summary: Vec::new(),
            credentials: Vec::new(),
            entry: None,
        }
    }
}

/// An SDK key's credential, which only its holder keeps.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct MintedCredential {
    /// Identifier of the SDK key.
    pub id: String,
    /// The credential.
    pub secret: String,
}

impl std::fmt::Debug for MintedCredential {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "MintedCredential({}, …)", self.id)
    }
}

/// One thing wrong with a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// JSON pointer (RFC 6901) into the request, as `/instructions/2/flag/variations/0/key`.
    pub pointer: String,
    /// A word for programs, which stays the same.
    pub code: Cow<'static, str>,
    /// What is wrong and what to do, for people.
    pub message: String,
}

impl Problem {
    pub(crate) fn new(
        pointer: impl Into<String>,
        code: impl Into<Cow<'static, str>>,
        message: impl Into<String>,
    ) -> Self {
        Self { pointer: pointer.into(), code: code.into(), message: message.into() }
    }
}

/// Why a change was not made. Nothing of it is stored.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ChangeError {
    /// The request is wrong; all its problems.
    #[error("the change has {} problem(s); the first, at {}: {}", problems.len(), problems.first().map_or("", |p| &p.pointer), problems.first().map_or("", |p| &p.message))]
    Invalid {
        /// All that is wrong.
        problems: Vec<Problem>,
    },
    /// The request is about things there are not, and has no other problem.
    #[error("{}", problems.first().map_or("", |problem| &problem.message))]
    NotFound {
        /// All that was not found; never empty.
        problems: Vec<Problem>,
    },
    /// A later entry touched an object the change names.
    #[error("the change was made for revision {expected}, and what it names has changed since")]
    Conflict {
        /// The revision the change named.
        expected: u64,
        /// The revision now.
        revision: u64,
        /// The later entries that touch what the change names, oldest first; the last 100 of them.
        entries: Vec<Arc<Entry>>,
    },
    /// The idempotency key was used for another request within 24 hours.
    #[error("this idempotency key was used for another request, which made revision {revision}; use a new key")]
    IdempotencyKeyReused {
        /// The revision that request made.
        revision: u64,
    },
    /// The volume is full; reads go on, and writes do once there is room.
    #[error("the volume is full: reads go on, and writes do once there is room")]
    DiskFull,
    /// The change, or the targeting keys in it, are larger than a record.
    #[error("the change takes {actual} bytes; at most {limit} fit: split it")]
    TooLarge {
        /// Its size.
        actual: usize,
        /// The largest size.
        limit: usize,
    },
    /// Too many changes wait to be written; try again.
    #[error("too many changes are waiting to be written; try again")]
    Busy,
    /// Writes are not possible until the server is restarted or mended.
    #[error("changes cannot be made: {reason}")]
    Unavailable {
        /// Why.
        reason: String,
    },
}

impl From<AppendError> for ChangeError {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::DiskFull => Self::DiskFull,
            AppendError::Busy | AppendError::Conflict { .. } => Self::Busy,
            AppendError::TooLarge { actual, limit } => Self::TooLarge { actual, limit },
            AppendError::ReadOnly { .. } | AppendError::Unstorable { .. } => {
                Self::Unavailable { reason: error.to_string() }
            }
        }
    }
}

impl From<KeySetError> for ChangeError {
    fn from(error: KeySetError) -> Self {
        match error {
            KeySetError::DiskFull => Self::DiskFull,
            KeySetError::TooLarge { bytes, limit } => Self::TooLarge { actual: bytes, limit },
            other => Self::Unavailable { reason: other.to_string() },
        }
    }
}

impl From<Stopped> for ChangeError {
    fn from(stopped: Stopped) -> Self {
        Self::Unavailable { reason: stopped.to_string() }
    }
}

impl From<ReadError> for ChangeError {
    fn from(error: ReadError) -> Self {
        Self::Unavailable { reason: error.to_string() }
    }
}

impl From<Vec<Problem>> for ChangeError {
    fn from(problems: Vec<Problem>) -> Self {
        let absent =
            ["unknownProject", "unknownEnvironment", "unknownFlag", "unknownSegment", "unknownRule", "unknownSdkKey"];
        if problems.iter().all(|problem| absent.contains(&&*problem.code)) {
            Self::NotFound { problems }
        } else {
            Self::Invalid { problems }
        }
    }
}
