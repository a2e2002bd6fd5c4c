//! What each edit does to a request: the state machine.

use super::{Approval, ChangeRequest, Comment, Ending, MAX_COMMENTS, RequestEdit, RequestState};

/// Why an edit does not apply to a request as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// There is no such request.
    #[error("there is no such change request")]
    Unknown,
    /// There is one of this id already.
    #[error("there is a change request of this id already")]
    Exists,
    /// It stands where the edit cannot be made.
    #[error("the change request stands at \"{}\": {}", .0.as_str(), remedy(*.0))]
    State(RequestState),
    /// What it asks for is not what the edit speaks of.
    #[error("the change request was edited since: read it again and decide anew")]
    Edited,
    /// Nobody approves what is their own.
    #[error("nobody approves a change that they, or an AI agent of theirs, wrote")]
    Own,
    /// It has no room for more comments.
    #[error("a change request has at most {MAX_COMMENTS} comments")]
    TooManyComments,
}

fn remedy(state: RequestState) -> &'static str {
    match state {
        RequestState::Draft => "submit it for review first",
        RequestState::Review => "it waits for approvals",
        RequestState::Approved => "apply it, or edit it to have it reviewed again",
        RequestState::Applied => "it is made; revert it to undo it",
        RequestState::Rejected | RequestState::Withdrawn | RequestState::Expired => "open a new one",
    }
}

/// The request after `edit`, made at `at` (milliseconds since 1970) as revision `revision`.
pub(crate) fn apply(
    request: Option<&ChangeRequest>,
    edit: &RequestEdit,
    at: u64,
    revision: u64,
) -> Result<ChangeRequest, Refusal> {
    if let RequestEdit::OpenRequest { .. } = edit {
        return if request.is_some() { Err(Refusal::Exists) } else { open(edit, at).ok_or(Refusal::Unknown) };
    }
    let mut next = request.ok_or(Refusal::Unknown)?.clone();
    let state = next.state;
    let open = state.is_open();
    next.updated_at = at;
    let mut end = |to: RequestState, by: &str, reason: &str, revision: Option<u64>| {
        next.state = to;
        next.ended = Some(Ending { by: by.to_owned(), reason: reason.to_owned(), revision });
    };
    match edit {
        RequestEdit::WithdrawRequest { by, reason, .. } if open => end(RequestState::Withdrawn, by, reason, None),
        RequestEdit::ExpireRequest { .. } if open => end(RequestState::Expired, "system", "its time is over", None),
        // Of drafts too: they count among those that may be open, and others have to be able to clear them away.
        RequestEdit::RejectRequest { by, reason, .. } if open => end(RequestState::Rejected, by, reason, None),
        RequestEdit::ApplyRequest { by, hash, .. } if state == RequestState::Approved => {
            if *hash != next.content.hash {
                return Err(Refusal::Edited);
            }
            end(RequestState::Applied, by, "", Some(revision));
        }
        RequestEdit::SubmitRequest { .. } if state == RequestState::Draft => {
            next.state = RequestState::Review;
            settle(&mut next);
        }
        RequestEdit::EditRequest { comment, content, schedule, .. } if open => {
            next.version += 1;
            next.comment.clone_from(comment);
            next.content = content.clone();
            next.schedule = *schedule;
            next.approvals.clear();
            if state != RequestState::Draft {
                next.state = RequestState::Review;
                settle(&mut next);
            }
        }
        RequestEdit::ApproveRequest { by, hash, .. } if open && state != RequestState::Draft => {
            approve(&mut next, by, hash, at)?;
        }
        RequestEdit::CommentRequest { by, text, .. } => {
            if next.comments.len() >= MAX_COMMENTS {
                return Err(Refusal::TooManyComments);
            }
            next.comments.push(Comment { by: by.clone(), at, text: text.clone() });
        }
        _ => return Err(Refusal::State(state)),
    }
    Ok(next)
}

fn approve(request: &mut ChangeRequest, by: &str, hash: &str, at: u64) -> Result<(), Refusal> {
    if hash != request.content.hash {
        return Err(Refusal::Edited);
    }
    if request.author.is(by) {
        return Err(Refusal::Own);
    }
    if request.approvals.iter().all(|approval| approval.by != by) {
        request.approvals.push(Approval { by: by.to_owned(), at, hash: hash.to_owned() });
    }
    settle(request);
    Ok(())
}

/// A request in review that has all the approvals it needs is approved.
fn settle(request: &mut ChangeRequest) {
    let has = u32::try_from(request.valid_approvals().len()).unwrap_or(u32::MAX);
    if request.state == RequestState::Review && has >= request.content.needed {
        request.state = RequestState::Approved;
    }
}

fn open(edit: &RequestEdit, at: u64) -> Option<ChangeRequest> {
    let RequestEdit::OpenRequest { id, author, environment, comment, commit, draft, content, schedule, expires_at } =
        edit
    else {
        return None;
    };
    let mut request = ChangeRequest {
        id: id.clone(),
        author: author.clone(),
        environment: environment.clone(),
        comment: comment.clone(),
        commit: commit.clone(),
        state: if *draft { RequestState::Draft } else { RequestState::Review },
        version: 1,
        content: content.clone(),
        approvals: Vec::new(),
        comments: Vec::new(),
        schedule: *schedule,
        created_at: at,
        updated_at: at,
        expires_at: *expires_at,
        ended: None,
    };
    settle(&mut request);
    Some(request)
}
