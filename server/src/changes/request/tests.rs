//! The state machine, by data and by random walks.

use proptest::prelude::*;

use super::*;
use crate::policy::PrincipalKind;

fn content(hash: &str, needed: u32) -> Content {
    Content {
        hash: hash.to_owned(),
        base_revision: 7,
        environments: vec!["production".to_owned()],
        flags: vec!["engine".to_owned()],
        summary: vec!["turned engine on in production".to_owned()],
        risk: Risk::default(),
        needed,
    }
}

fn open(needed: u32, draft: bool) -> RequestEdit {
    RequestEdit::OpenRequest {
        id: "cr-1".to_owned(),
        author: Party { id: "ada".to_owned(), kind: PrincipalKind::Agent, owner: Some("olga".to_owned()) },
        environment: Some("production".to_owned()),
        comment: String::new(),
        commit: None,
        draft,
        content: content("h1", needed),
        schedule: None,
        expires_at: 1_000,
    }
}

fn approve(by: &str, hash: &str) -> RequestEdit {
    RequestEdit::ApproveRequest { id: "cr-1".to_owned(), by: by.to_owned(), hash: hash.to_owned() }
}

fn edit(hash: &str, needed: u32) -> RequestEdit {
    let content = content(hash, needed);
    RequestEdit::EditRequest { id: "cr-1".to_owned(), comment: String::new(), content, schedule: None }
}

fn applied(hash: &str) -> RequestEdit {
    RequestEdit::ApplyRequest { id: "cr-1".to_owned(), by: "rene".to_owned(), hash: hash.to_owned() }
}

fn after(edits: &[RequestEdit]) -> Result<ChangeRequest, String> {
    let mut request = None;
    for (at, edit) in (1..).zip(edits) {
        request = Some(apply(request.as_ref(), edit, at, 10 + at).map_err(|refusal| refusal.to_string())?);
    }
    Ok(request.expect("an edit"))
}

#[test]
fn two_approvals_of_others_then_applied_once() {
    let request = after(&[open(2, false), approve("ben", "h1"), approve("ben", "h1")]).unwrap();
    assert_eq!((request.state, request.valid_approvals().len()), (RequestState::Review, 1), "one person counts once");
    let edits = [open(2, false), approve("ben", "h1"), approve("cleo", "h1"), applied("h1")];
    let request = after(&edits).unwrap();
    assert_eq!(request.state, RequestState::Applied);
    assert_eq!(request.ended.unwrap().revision, Some(14));
    let twice: Vec<_> = edits.iter().cloned().chain([applied("h1")]).collect();
    assert!(after(&twice).unwrap_err().contains("is made"));
}

#[test]
fn neither_the_author_nor_who_answers_for_it_approves() {
    for by in ["ada", "olga"] {
        assert!(after(&[open(1, false), approve(by, "h1")]).unwrap_err().contains("nobody approves"));
    }
}

#[test]
fn an_edit_voids_approvals_and_an_approval_of_what_was_is_refused() {
    let request = after(&[open(1, false), approve("ben", "h1"), edit("h2", 1)]).unwrap();
    assert_eq!((request.state, request.version, request.approvals.len()), (RequestState::Review, 2, 0));
    assert!(after(&[open(1, false), edit("h2", 1), approve("ben", "h1")]).unwrap_err().contains("edited since"));
    assert!(after(&[open(1, false), approve("ben", "h1"), applied("h2")]).unwrap_err().contains("edited since"));
}

#[test]
fn a_draft_is_submitted_before_it_is_decided_on() {
    assert!(after(&[open(1, true), approve("ben", "h1")]).unwrap_err().contains("submit it for review first"));
    let submit = RequestEdit::SubmitRequest { id: "cr-1".to_owned() };
    assert_eq!(after(&[open(0, true), submit]).unwrap().state, RequestState::Approved, "it needs nobody");
    assert_eq!(after(&[open(0, false)]).unwrap().state, RequestState::Approved);
}

#[test]
fn any_open_request_is_rejected_drafts_too_and_only_once() {
    let reject = RequestEdit::RejectRequest { id: "cr-1".to_owned(), by: "ben".to_owned(), reason: "old".to_owned() };
    for draft in [true, false] {
        let rejected = after(&[open(1, draft), reject.clone()]).unwrap();
        assert_eq!(rejected.state, RequestState::Rejected);
        assert_eq!(rejected.ended.unwrap().by, "ben");
        assert!(after(&[open(1, draft), reject.clone(), reject.clone()]).unwrap_err().contains("open a new one"));
    }
}

#[test]
fn a_window_ends_a_request() {
    let schedule = Schedule { not_before: 10, not_after: Some(20) };
    assert!(!schedule.is_open(9) && schedule.is_open(10) && schedule.is_open(20) && !schedule.is_open(21));
    let mut request = after(&[open(1, false)]).unwrap();
    request.schedule = Some(schedule);
    assert_eq!(request.ends_at(), 20);
}

proptest! {
    /// Whatever happens to a request, it is applied only on the needed number of approvals of just what it asks for, by
    /// people who neither wrote it nor answer for who did; and once it has ended it stays so.
    #[test]
    fn no_walk_leads_around_the_approvals(needed in 0_u32..3, steps in prop::collection::vec((0_u8..7, 0_usize..5, 0_usize..3), 1..30)) {
        let people = ["ada", "olga", "ben", "cleo", "dora"];
        let hashes = ["h1", "h2", "h3"];
        let mut request = after(&[open(needed, false)]).unwrap();
        for (kind, person, hash) in steps {
            let (by, hash, id) = (people[person], hashes[hash], "cr-1".to_owned());
            let step = match kind {
                0 | 1 => approve(by, hash),
                2 => edit(hash, needed),
                3 => applied(hash),
                4 => RequestEdit::RejectRequest { id, by: by.to_owned(), reason: String::new() },
                5 => RequestEdit::CommentRequest { id, by: by.to_owned(), text: "why?".to_owned() },
                _ => RequestEdit::ExpireRequest { id },
            };
            let before = request.clone();
            if let Ok(next) = apply(Some(&before), &step, 5, 9) {
                if next.state == RequestState::Applied && before.state != RequestState::Applied {
                    let counted: std::collections::BTreeSet<&str> = before.approvals.iter()
                        .filter(|approval| approval.hash == before.content.hash)
                        .map(|approval| &*approval.by)
                        .filter(|by| !["ada", "olga"].contains(by))
                        .collect();
                    prop_assert!(counted.len() >= needed as usize);
                    prop_assert_eq!(hash, &before.content.hash);
                }
                prop_assert!(before.state.is_open() || next.state == before.state);
                request = next;
            }
        }
    }
}
