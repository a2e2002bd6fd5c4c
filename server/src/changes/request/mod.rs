//! Change requests: a change that somebody else has to agree to before it is made.
//!
//! A pure state machine: [`RequestEdit`]s are journaled instructions, and `apply.rs` is the one place that knows which state
//! they lead from and to.
//!
//! ```text
//! draft ──submit──▶ review ──approvals──▶ approved ──apply──▶ applied
//!   │                 │ ▲                    │
//!   │                 │ └────edit, rebase────┤   an edit voids every approval
//!   └─────────────────┴──────────────────────┴──▶ rejected, withdrawn, expired
//! ```
//!
//! What a request asks for is in the vault, since it may hold people's keys: the journal has its hash, and an approval binds to
//! that hash, which covers the instructions, the environment and the revision they were read against.

mod apply;
mod body;
mod edit;

use serde::{Deserialize, Serialize};

pub(crate) use apply::apply;
pub use body::{Body, BodyError, MemoryRequests, RequestStore, VaultRequests};
pub use edit::RequestEdit;

use crate::policy::{PrincipalKind, RiskLevel};

/// How long a request waits before it expires, unless it says otherwise: 14 days, in milliseconds.
pub const DEFAULT_LIFE_MS: u64 = 14 * DAY_MS;
/// Longest that a request may wait: 90 days, in milliseconds.
pub const MAX_LIFE_MS: u64 = 90 * DAY_MS;
/// Most requests of a project that are neither applied nor ended otherwise.
pub const MAX_OPEN: usize = 1_000;
/// Most of those that one author has, so that nobody takes the room of all others.
pub const MAX_OPEN_PER_AUTHOR: usize = 50;
/// As [`MAX_OPEN_PER_AUTHOR`], of an AI agent.
pub const MAX_OPEN_PER_AGENT: usize = 20;
/// Most requests of a project in the state, ended ones among them; the oldest ended ones make room. The journal keeps all.
pub const MAX_KEPT: usize = 5_000;
/// Most comments of one request.
pub const MAX_COMMENTS: usize = 200;
/// Longest comment or reason, in bytes.
pub const MAX_TEXT_BYTES: usize = 4_096;

const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

/// A change that waits for others to agree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChangeRequest {
    /// Identifier.
    pub id: String,
    /// Who wrote it.
    pub author: Party,
    /// Environment that environment-bound instructions apply to, unless they name one themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// Why, in the author's words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// Source commit the change ships.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// Where it stands.
    pub state: RequestState,
    /// Counts its edits, from 1.
    pub version: u32,
    /// What it asks for now.
    pub content: Content,
    /// Approvals of what it asks for now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub approvals: Vec<Approval>,
    /// What people said about it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub comments: Vec<Comment>,
    /// When it may be applied, if not at any time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    /// When it was opened, in milliseconds since 1970.
    pub created_at: u64,
    /// When it last changed, in milliseconds since 1970.
    pub updated_at: u64,
    /// When it ends by itself, in milliseconds since 1970.
    pub expires_at: u64,
    /// How it ended, once it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Ending>,
}

/// Where a request stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RequestState {
    /// Being written.
    Draft,
    /// Waiting for approvals.
    Review,
    /// Has all it needs.
    Approved,
    /// Made.
    Applied,
    /// Refused by somebody who could have approved it.
    Rejected,
    /// Taken back.
    Withdrawn,
    /// Out of time.
    Expired,
}

impl RequestState {
    /// Whether anything may still happen to it.
    #[must_use]
    pub fn is_open(self) -> bool {
        matches!(self, Self::Draft | Self::Review | Self::Approved)
    }

    /// The word used in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Draft => "draft",
            Self::Review => "review",
            Self::Approved => "approved",
            Self::Applied => "applied",
            Self::Rejected => "rejected",
            Self::Withdrawn => "withdrawn",
            Self::Expired => "expired",
        }
    }
}

/// Who wrote a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Party {
    /// Identifier of the principal.
    pub id: String,
    /// What it is.
    pub kind: PrincipalKind,
    /// The person who answers for an AI agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
}

impl Party {
    /// Whether an approval by `principal` would be by the author, or by the person who answers for it.
    #[must_use]
    pub fn is(&self, principal: &str) -> bool {
        self.id == principal || self.owner.as_deref() == Some(principal)
    }
}

/// What a request asks for, as far as the journal has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Content {
    /// BLAKE3 of the body in the vault, in hexadecimal: what approvals bind to.
    pub hash: String,
    /// Revision it was read against.
    pub base_revision: u64,
    /// Environments that it would touch.
    pub environments: Vec<String>,
    /// Flags that it would touch, dependants included.
    pub flags: Vec<String>,
    /// A sentence for people for each instruction.
    pub summary: Vec<String>,
    /// How much it may hurt, as judged when it was written.
    pub risk: Risk,
    /// Approvals it needs, as the policy said when it was written.
    pub needed: u32,
}

/// How much a change may hurt, with the reasons.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Risk {
    /// 0 to 100.
    pub score: u32,
    /// What that means.
    pub level: RiskLevel,
    /// Why, in sentences.
    pub reasons: Vec<String>,
}

/// Somebody's agreement with what a request asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Approval {
    /// Who.
    pub by: String,
    /// When, in milliseconds since 1970.
    pub at: u64,
    /// With what: the content's hash.
    pub hash: String,
}

/// What somebody said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Comment {
    /// Who.
    pub by: String,
    /// When, in milliseconds since 1970.
    pub at: u64,
    /// What.
    pub text: String,
}

/// When an approved request is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Schedule {
    /// Not before this time, in milliseconds since 1970; then by itself.
    pub not_before: u64,
    /// Not after this time, in milliseconds since 1970: the end of the change window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<u64>,
}

impl Schedule {
    /// Whether `now` (milliseconds since 1970) is inside it.
    #[must_use]
    pub fn is_open(&self, now: u64) -> bool {
        self.not_before <= now && self.not_after.is_none_or(|end| now <= end)
    }
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ending {
    /// Who ended it.
    pub by: String,
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// The revision that made it, if it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
}

impl ChangeRequest {
    /// Approvals that count: of what it asks for now, by different people, none of them the author or who answers for it.
    #[must_use]
    pub fn valid_approvals(&self) -> Vec<&Approval> {
        let mut valid: Vec<&Approval> = Vec::new();
        for approval in &self.approvals {
            let counts = approval.hash == self.content.hash && !self.author.is(&approval.by);
            if counts && valid.iter().all(|other| other.by != approval.by) {
                valid.push(approval);
            }
        }
        valid
    }

    /// When its time is over, in milliseconds since 1970: its own expiry or the end of its change window.
    #[must_use]
    pub fn ends_at(&self) -> u64 {
        let window = self.schedule.and_then(|schedule| schedule.not_after);
        window.map_or(self.expires_at, |end| end.min(self.expires_at))
    }
}

#[cfg(test)]
mod tests;
