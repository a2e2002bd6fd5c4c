use super::checkpoint::*;
use super::*;
use crate::journal::conformance::sample;
use crate::journal::{Entry, Journal, MemoryJournal};
use crate::vault::{Kind, MemoryVault, Vault};

fn key() -> CheckpointKey {
    CheckpointKey::from_bytes(&[7; 32])
}

/// A journal of `count` entries; `edit` changes them before they are chained.
async fn journal(count: u64, edit: impl Fn(u64, &mut Entry)) -> MemoryJournal {
    let journal = MemoryJournal::new("history-1");
    for revision in 0..count {
        let mut entry = sample(revision + 1);
        edit(revision + 1, &mut entry);
        journal.append(revision, entry).await.expect("appends").durable.await.expect("durable");
    }
    journal
}

fn events(count: u64, edit: impl Fn(u64, &mut Event)) -> MemoryAudit {
    let log = MemoryAudit::new();
    for number in 1..=count {
        let mut event = Event::new(1_000 + number, EventKind::Refused, format!("o-{number}"));
        edit(number, &mut event);
        log.record(event);
    }
    log
}

#[tokio::test]
async fn what_is_signed_is_the_documented_text_and_verifies() {
    let (journal, events) = (journal(3, |_, _| {}).await, events(2, |_, _| {}));
    let checkpoint = key().sign_present(&journal, &events, 1_790_000_000_000);
    let expected = format!(
        "guidon checkpoint 1\nhistory history-1\njournal 3 {}\nsecurity 2 {}\nat 1790000000000\nkey {}\n",
        journal.head().hash,
        events.head().hash,
        key().public().id(),
    );
    assert_eq!(checkpoint.signed_text(), expected);
    assert_eq!(verify_checkpoint(&checkpoint, &key().public()), Ok(()));
    let json = serde_json::to_string(&checkpoint).expect("JSON");
    let read: Checkpoint = serde_json::from_str(&json).expect("reads back");
    assert_eq!(read, checkpoint);
    let public = key().public();
    assert_eq!(public.to_string().parse(), Ok(public));
    assert!(public.fingerprint().starts_with(&public.id()));
    assert!(!format!("{:?}", key()).contains("07"), "no secret in what is printed");
}

#[tokio::test]
async fn a_checkpoint_that_was_changed_in_any_field_is_refused() {
    let checkpoint = key().sign_present(&journal(2, |_, _| {}).await, &events(1, |_, _| {}), 5);
    let zeros = "0".repeat(64);
    let changes: [fn(&mut Checkpoint, &str); 9] = [
        |changed, _| changed.format = 2,
        |changed, _| changed.history.push('x'),
        |changed, _| changed.journal.revision += 1,
        |changed, zeros| changed.journal.hash = zeros.to_owned(),
        |changed, _| changed.security.seq += 1,
        |changed, zeros| changed.security.hash = zeros.to_owned(),
        |changed, _| changed.at += 1,
        |changed, _| changed.signature = changed.signature.replace(&changed.signature[..1], "/"),
        |changed, _| changed.journal.hash = changed.journal.hash.to_uppercase(),
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let mut changed = checkpoint.clone();
        change(&mut changed, &zeros);
        assert!(changed == checkpoint || verify_checkpoint(&changed, &key().public()).is_err(), "change {number}");
    }
    let mut smuggled = checkpoint.clone();
    smuggled.history = format!("{}\njournal 9 {zeros}", smuggled.history);
    assert!(matches!(
        verify_checkpoint(&smuggled, &key().public()),
        Err(CheckpointError::BadField { field: "history", .. })
    ));
    let other = CheckpointKey::from_bytes(&[8; 32]).public();
    assert!(matches!(verify_checkpoint(&checkpoint, &other), Err(CheckpointError::OtherKey { .. })));
    let renamed = Checkpoint { key_id: other.id(), ..checkpoint };
    assert_eq!(verify_checkpoint(&renamed, &other), Err(CheckpointError::BadSignature));
    for text in ["", "AAAA", "not base64!"] {
        assert_eq!(text.parse::<CheckpointPublicKey>(), Err(CheckpointError::BadKey));
    }
}

#[tokio::test]
async fn logs_that_only_grew_contain_what_was_seen() {
    let checkpoint = key().sign_present(&journal(3, |_, _| {}).await, &events(2, |_, _| {}), 5);
    let (journal, events) = (journal(9, |_, _| {}).await, events(8, |_, _| {}));
    let findings = check_against(&journal, &events, &checkpoint).await.expect("reads");
    assert_eq!((findings.journal, findings.security), (Contained::Yes, Contained::Yes));
    assert!(findings.is_same_history && !findings.is_broken());
    let empty = key().sign_present(&MemoryJournal::new("history-1"), &MemoryAudit::new(), 5);
    let findings = check_against(&journal, &events, &empty).await.expect("reads");
    assert!(!findings.is_broken(), "{findings:?}");
}

#[tokio::test]
async fn a_journal_rewritten_from_scratch_is_caught_by_an_old_checkpoint() {
    let checkpoint = key().sign_present(&journal(5, |_, _| {}).await, &events(0, |_, _| {}), 5);
    // The same history id, the same length and more, a chain that holds: only one author is another.
    let rewritten = journal(9, |revision, entry| {
        if revision == 2 {
            entry.actor_id = "somebody-else".to_owned();
        }
    })
    .await;
    let findings = check_against(&rewritten, &events(0, |_, _| {}), &checkpoint).await.expect("reads");
    assert_eq!((findings.journal, findings.is_broken()), (Contained::Differs, true));
    assert!(findings.is_same_history);
    let said = findings.sentences(&checkpoint).join(" ");
    assert!(said.contains("rewritten: at revision 5"), "{said}");
    // What was rewritten behind the checkpoint is not its affair.
    let later = journal(9, |revision, entry| {
        if revision == 6 {
            entry.actor_id = "somebody-else".to_owned();
        }
    })
    .await;
    let findings = check_against(&later, &events(0, |_, _| {}), &checkpoint).await.expect("reads");
    assert_eq!(findings.journal, Contained::Yes);
}

#[tokio::test]
async fn a_rewritten_or_cut_off_second_log_is_caught_too() {
    let same = || journal(1, |_, _| {});
    let checkpoint = key().sign_present(&same().await, &events(5, |_, _| {}), 5);
    let rewritten = events(6, |number, event| {
        if number == 4 {
            event.kind = EventKind::SignedIn;
        }
    });
    let findings = check_against(&same().await, &rewritten, &checkpoint).await.expect("reads");
    assert_eq!((findings.journal, findings.security), (Contained::Yes, Contained::Differs));
    let findings = check_against(&same().await, &events(3, |_, _| {}), &checkpoint).await.expect("reads");
    assert_eq!(findings.security, Contained::Missing { last: 3 });
    let findings = check_against(&MemoryJournal::new("other"), &rewritten, &checkpoint).await.expect("reads");
    assert_eq!((findings.journal, findings.is_same_history), (Contained::Missing { last: 0 }, false));
    assert!(findings.is_broken());
    assert_eq!(findings.sentences(&checkpoint).len(), 3);
}

#[test]
fn what_is_past_its_retention_proves_nothing_and_is_no_breach() {
    let checkpoint = key().sign(
        "h",
        crate::journal::Head::EMPTY,
        EventsHead { seq: 10, hash: crate::journal::ChainHash([1; 32]) },
        5,
    );
    let present =
        Present { history: "h".to_owned(), revision: 0, journal: None, first_seq: 50, last_seq: 90, security: None };
    let findings = compare(&checkpoint, &present).expect("fields are sound");
    assert_eq!((findings.security, findings.is_broken()), (Contained::Removed { first: 50 }, false));
}

#[tokio::test]
async fn the_key_is_made_once_and_kept_in_the_vault() {
    let vault = MemoryVault::new();
    let first = CheckpointKey::open(&vault).await.expect("makes one").public();
    assert_eq!(CheckpointKey::open(&vault).await.expect("finds it").public(), first);
    vault.put(Kind::ServerKey, "audit-checkpoint", vec![1; 5]).await.expect("stores");
    assert!(CheckpointKey::open(&vault).await.is_err());
}
