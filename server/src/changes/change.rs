//! What is asked of the write path, and what it answers.

use std::borrow::Cow;
use std::sync::Arc;

use serde::Serialize;

use super::authorize::Refused;
use super::keysets::KeySetError;
use super::request::{BodyError, Party, Risk, Schedule};
use super::{ChangeRequest, Instruction, RequestEdit, request};
use crate::identity::directory::Scope;
use crate::journal::{AppendError, Entry, ObjectId, ReadError};
use crate::policy::PrincipalKind;
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
    /// What it is.
    pub kind: PrincipalKind,
    /// The person who answers for an AI agent.
    pub owner: Option<String>,
    /// Groups that a provider says a person is in.
    pub groups: Vec<String>,
    /// When a person last proved a second factor, in milliseconds since 1970.
    pub factor_at: Option<u64>,
    /// What the token that was used is good for.
    pub scope: Option<Scope>,
    /// The token that was used, by id.
    pub credential: Option<String>,
}

impl Author {
    /// The server itself.
    #[must_use]
    pub fn system() -> Self {
        Self::of("system", "server", PrincipalKind::System)
    }

    /// A principal of which no more is known.
    #[must_use]
    pub fn of(id: &str, origin_id: &str, kind: PrincipalKind) -> Self {
        Self {
            actor_id: id.to_owned(),
            origin_id: origin_id.to_owned(),
            principal: id.to_owned(),
            kind,
            owner: None,
            groups: Vec::new(),
            factor_at: None,
            scope: None,
            credential: None,
        }
    }

    /// The author of a change request.
    pub(crate) fn party(&self) -> Party {
        Party { id: self.actor_id.clone(), kind: self.kind, owner: self.owner.clone() }
    }
}

/// A change as it is asked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ChangeDraft {
    /// Project it is about.
    pub project: String,
    /// Environment that environment-bound instructions apply to, unless they name one themselves.
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
    /// Asks for a change request even where the change could be made at once.
    pub proposal: Option<Proposal>,
    /// The change request that it carries out, whose instructions these are.
    pub request: Option<String>,
}

/// How a change request is to be opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proposal {
    /// Whether it is still being written.
    pub draft: bool,
    /// When it is to be applied.
    pub schedule: Option<Schedule>,
    /// When it ends by itself, in milliseconds since 1970; [`super::request::DEFAULT_LIFE_MS`] from now if left out.
    pub expires_at: Option<u64>,
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
    /// The change request that was opened, edited or carried out.
    pub request: Option<String>,
    /// Of a dry run: what the change would need as a change request, if it could only be one.
    pub needs: Option<Needs>,
    /// The journal's entry; `None` where nothing changed or in a dry run.
    pub entry: Option<Arc<Entry>>,
}

impl ChangeOutcome {
    /// The change request that it opened, as it was then.
    #[must_use]
    pub fn opened(&self) -> Option<ChangeRequest> {
        let entry = self.entry.as_ref()?;
        entry.instructions.iter().find_map(|instruction| match instruction {
            Instruction::Request(edit) if matches!(**edit, RequestEdit::OpenRequest { .. }) => {
                request::apply(None, edit, entry.at, entry.revision).ok()
            }
            _ => None,
        })
    }

    /// Everything is as it was asked for already.
    pub(crate) fn nothing(revision: u64, dry_run: bool) -> Self {
        Self {
            revision,
            changed: Vec::new(),
            replayed: false,
            dry_run,
            summary: Vec::new(),
            credentials: Vec::new(),
            request: None,
            needs: None,
            entry: None,
        }
    }
}

/// What a change needs that can only be a change request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Needs {
    /// How much it may hurt.
    pub risk: Risk,
    /// Approvals it needs; with none, it applies by itself.
    pub approvals: u32,
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
    /// The policies refuse it.
    #[error("{}", refusal(.0))]
    Refused(Refused),
    /// It may be made once its author has proved a second factor.
    #[error("`{}` needs a second factor that was proved in the last ten minutes", .0.action)]
    FactorNeeded(Refused),
    /// A later entry touched an object the change names.
    #[error("{}", conflict(*.expected, *.revision, .entries))]
    Conflict {
        /// The revision the change named.
        expected: u64,
        /// The revision now.
        revision: u64,
        /// The later entries that touch what the change names, oldest first; the last 100 of them. None if more entries lie
        /// between than are looked through.
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

fn conflict(expected: u64, revision: u64, entries: &[Arc<Entry>]) -> String {
    match entries {
        [] => format!(
            "the change was made for revision {expected}, and the store is at {revision}: too many entries lie between to see \
             whether they changed what it names; look at it again, and name the present revision"
        ),
        _ => format!("the change was made for revision {expected}, and what it names has changed since"),
    }
}

fn refusal(refused: &Refused) -> String {
    let wherever = if refused.environment.is_empty() { String::new() } else { format!(" in {}", refused.environment) };
    match refused.policies.as_slice() {
        [] => format!("no policy lets you `{}`{wherever}", refused.action),
        [policy, ..] if refused.because.is_empty() => format!("`{}`{wherever}: {policy} forbids it", refused.action),
        [policy, ..] => format!("`{}`{wherever}: {} ({policy})", refused.action, refused.because.trim_end_matches('.')),
    }
}

impl From<BodyError> for ChangeError {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::DiskFull => Self::DiskFull,
            BodyError::TooLarge { bytes, limit } => Self::TooLarge { actual: bytes, limit },
            BodyError::Unreadable(how) => {
                let message = format!("what the change request asks for {how}: withdraw it and open a new one");
                Self::Invalid { problems: vec![Problem::new("", "unreadable", message)] }
            }
            other => Self::Unavailable { reason: other.to_string() },
        }
    }
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
        let absent = [
            "unknownProject",
            "unknownEnvironment",
            "unknownFlag",
            "unknownSegment",
            "unknownRule",
            "unknownSdkKey",
            "unknownPrincipal",
            "unknownRoleBinding",
            "unknownToken",
            "unknownIssuer",
            "unknownPolicy",
            "unknownFreeze",
            "unknownRequest",
            "unknownReview",
        ];
        if problems.iter().all(|problem| absent.contains(&&*problem.code)) {
            Self::NotFound { problems }
        } else {
            Self::Invalid { problems }
        }
    }
}
