//! Instructions about change requests.

use serde::{Deserialize, Serialize};

use super::{Content, Party, Schedule};
use crate::journal::ObjectId;

/// One edit of a change request. In JSON one flat object with a `kind`, as every instruction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase")]
#[non_exhaustive]
pub enum RequestEdit {
    /// Opens a request.
    OpenRequest {
        /// Identifier.
        id: String,
        /// Who wrote it.
        author: Party,
        /// Environment that environment-bound instructions apply to, unless they name one themselves.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        environment: Option<String>,
        /// Why.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        comment: String,
        /// Source commit the change ships.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        commit: Option<String>,
        /// Whether it is still being written.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        draft: bool,
        /// What it asks for.
        content: Content,
        /// When it may be applied.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        schedule: Option<Schedule>,
        /// When it ends by itself, in milliseconds since 1970.
        expires_at: u64,
    },
    /// Changes what a request asks for, or when: every approval is void.
    EditRequest {
        /// Identifier of the request.
        id: String,
        /// Why, as it is now.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        comment: String,
        /// What it asks for now.
        content: Content,
        /// When it may be applied now.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        schedule: Option<Schedule>,
    },
    /// Puts a draft to review.
    SubmitRequest {
        /// Identifier of the request.
        id: String,
    },
    /// Says something.
    CommentRequest {
        /// Identifier of the request.
        id: String,
        /// Who.
        by: String,
        /// What.
        text: String,
    },
    /// Agrees with what a request asks for.
    ApproveRequest {
        /// Identifier of the request.
        id: String,
        /// Who.
        by: String,
        /// With what: the content's hash.
        hash: String,
    },
    /// Refuses a request.
    RejectRequest {
        /// Identifier of the request.
        id: String,
        /// Who.
        by: String,
        /// Why.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        reason: String,
    },
    /// Takes a request back.
    WithdrawRequest {
        /// Identifier of the request.
        id: String,
        /// Who.
        by: String,
        /// Why.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        reason: String,
    },
    /// Makes what a request asks for: the instructions that follow in the same change.
    ApplyRequest {
        /// Identifier of the request.
        id: String,
        /// Who.
        by: String,
        /// The content's hash.
        hash: String,
    },
    /// Ends a request whose time is over.
    ExpireRequest {
        /// Identifier of the request.
        id: String,
    },
    /// Closes the review of a change that was made in an emergency.
    ReviewEntry {
        /// The revision that the emergency change made.
        revision: u64,
        /// Who.
        by: String,
        /// What was found.
        finding: String,
    },
}

impl RequestEdit {
    /// The word in `kind`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::OpenRequest { .. } => "openRequest",
            Self::EditRequest { .. } => "editRequest",
            Self::SubmitRequest { .. } => "submitRequest",
            Self::CommentRequest { .. } => "commentRequest",
            Self::ApproveRequest { .. } => "approveRequest",
            Self::RejectRequest { .. } => "rejectRequest",
            Self::WithdrawRequest { .. } => "withdrawRequest",
            Self::ApplyRequest { .. } => "applyRequest",
            Self::ExpireRequest { .. } => "expireRequest",
            Self::ReviewEntry { .. } => "reviewEntry",
        }
    }

    /// Identifier of the request it is about.
    #[must_use]
    pub fn request(&self) -> Option<&str> {
        match self {
            Self::OpenRequest { id, .. }
            | Self::EditRequest { id, .. }
            | Self::SubmitRequest { id }
            | Self::CommentRequest { id, .. }
            | Self::ApproveRequest { id, .. }
            | Self::RejectRequest { id, .. }
            | Self::WithdrawRequest { id, .. }
            | Self::ApplyRequest { id, .. }
            | Self::ExpireRequest { id } => Some(id),
            Self::ReviewEntry { .. } => None,
        }
    }

    /// The same edit, said to be by `actor`; what names nobody stays as it is.
    #[must_use]
    pub(crate) fn said_by(mut self, actor: &str) -> Self {
        match &mut self {
            Self::CommentRequest { by, .. }
            | Self::ApproveRequest { by, .. }
            | Self::RejectRequest { by, .. }
            | Self::WithdrawRequest { by, .. }
            | Self::ApplyRequest { by, .. }
            | Self::ReviewEntry { by, .. } => actor.clone_into(by),
            Self::OpenRequest { .. }
            | Self::EditRequest { .. }
            | Self::SubmitRequest { .. }
            | Self::ExpireRequest { .. } => {}
        }
        self
    }

    /// The object it may change.
    #[must_use]
    pub fn object(&self) -> ObjectId {
        match self {
            Self::ReviewEntry { revision, .. } => ObjectId::Review(*revision),
            other => ObjectId::Request(other.request().unwrap_or_default().to_owned()),
        }
    }
}
