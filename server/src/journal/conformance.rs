//! What every backend of [`Journal`] must do, as functions that panic where one does not.
//!
//! A backend's tests call [`run`] with a way to make empty stores.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};

use super::{AppendError, ENTRY_FORMAT, Entry, Head, Health, Idempotency, Journal, ObjectHash, ObjectId, StoredEntry};
use crate::changes::Instruction;

/// A store under test. The faults answer `false` where the backend has no way to bring them about.
pub trait Subject: Send {
    /// The open journal.
    fn journal(&self) -> Arc<dyn Journal>;
    /// Stops and opens the store again, as a restart of the server does.
    fn reopen(&mut self) -> BoxFuture<'_, ()>;
    /// Holds entries back from being durable, or lets them.
    fn hold(&self, held: bool) -> bool;
    /// Makes the next sync fail.
    fn fail_next_sync(&self) -> bool;
    /// Fills the volume, or makes room again.
    fn fill_disk(&self, full: bool) -> bool;
}

/// Longest wait for something that must happen, before the test is called failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs the whole suite, each part on an empty store of its own.
///
/// # Panics
///
/// Where the backend does not do what [`Journal`] says.
pub async fn run<S: Subject>(make: impl Fn() -> BoxFuture<'static, S>) {
    places_in_order(make().await).await;
    a_wrong_place_conflicts(make().await).await;
    durable_in_order(make().await).await;
    reads_in_pages(make().await).await;
    watchers_follow(make().await).await;
    writers_at_once(make().await).await;
    reopening_keeps_everything(make().await).await;
    too_large_is_refused(make().await).await;
    read_only_after_a_failed_sync(make().await).await;
    a_full_disk_loses_nothing(make().await).await;
}

/// An entry to append, told from others by `number`.
#[must_use]
pub fn sample(number: u64) -> Entry {
    let flag = format!("flag-{number}");
    let hash = blake3::hash(flag.as_bytes()).to_hex().to_string();
    Entry {
        format: ENTRY_FORMAT,
        revision: 0,
        at: 1_790_000_000_000 + number,
        actor_id: "a-1".to_owned(),
        origin_id: "o-1".to_owned(),
        project: "shop".to_owned(),
        environment: Some("production".to_owned()),
        comment: format!("change {number}: \u{e9}\u{2192}\"\\"),
        commit: None,
        instructions: vec![Instruction::TurnFlagOn { flag: flag.clone() }],
        objects: vec![ObjectHash {
            object: ObjectId::FlagEnvironment("production".to_owned(), flag),
            hash: Some(hash),
        }],
        grounds: None,
        idempotency: number
            .is_multiple_of(2)
            .then(|| Idempotency { key: format!("{number:064}"), body: "0".repeat(64) }),
    }
}

/// Appends an entry after `expected` and waits until it is durable.
///
/// # Panics
///
/// If the journal refuses it.
pub async fn append(journal: &dyn Journal, expected: u64, number: u64) -> StoredEntry {
    let appending = journal.append(expected, sample(number)).await.expect("the place is free");
    appending.durable.await.expect("the entry becomes durable");
    appending.stored
}

/// Appends `count` entries to an empty journal.
async fn fill(journal: &dyn Journal, count: u64) -> Vec<StoredEntry> {
    let mut all = Vec::new();
    for revision in 0..count {
        all.push(append(journal, revision, revision + 1).await);
    }
    all
}

fn same(left: &StoredEntry, right: &StoredEntry) -> bool {
    (&left.entry, &left.bytes, left.hash) == (&right.entry, &right.bytes, right.hash)
}

/// Reads the whole journal in pages and checks places and chain.
///
/// # Panics
///
/// If an entry is missing, out of place or not linked to the one before it.
pub async fn read_all(journal: &dyn Journal) -> Vec<StoredEntry> {
    let mut all: Vec<StoredEntry> = Vec::new();
    let mut head = Head::EMPTY;
    loop {
        let page = journal.read(head.revision, 100).await.expect("readable");
        if page.is_empty() {
            break;
        }
        for stored in page {
            let verified = StoredEntry::verify(head, stored.bytes.clone(), stored.hash).expect("the chain holds");
            assert_eq!(verified.entry, stored.entry, "what an entry says is what its bytes say");
            head = stored.head();
            all.push(stored);
        }
    }
    assert_eq!(head, journal.head(), "the head is the last entry that can be read");
    all
}

async fn places_in_order<S: Subject>(subject: S) {
    let journal = subject.journal();
    assert!(!journal.history().is_empty(), "a history has an id");
    assert_eq!(journal.head(), Head::EMPTY);
    assert_eq!(journal.health(), Health::Writable);
    let written = fill(&*journal, 5).await;
    for (stored, revision) in written.iter().zip(1..) {
        assert_eq!(stored.entry.revision, revision, "the journal gives the entry its number");
        assert_eq!(stored.entry.comment, sample(revision).comment);
    }
    let read = read_all(&*journal).await;
    assert!(read.len() == 5 && read.iter().zip(&written).all(|(read, written)| same(read, written)));
}

async fn a_wrong_place_conflicts<S: Subject>(subject: S) {
    let journal = subject.journal();
    fill(&*journal, 3).await;
    for wrong in [0, 2, 4, u64::MAX] {
        match journal.append(wrong, sample(9)).await {
            Err(AppendError::Conflict { expected, actual }) => assert_eq!((expected, actual), (wrong, 3)),
            Err(other) => panic!("expected a conflict at {wrong}, got {other}"),
            Ok(_) => panic!("an append after {wrong} was taken at revision 3"),
        }
    }
    assert_eq!(read_all(&*journal).await.len(), 3, "a conflict stores nothing");
    append(&*journal, 3, 4).await;
}

async fn durable_in_order<S: Subject>(subject: S) {
    let journal = subject.journal();
    let held = subject.hold(true);
    let mut waiting = Vec::new();
    for number in 0..20 {
        waiting.push(journal.append(number, sample(number)).await.expect("the place is free"));
    }
    if held {
        assert_eq!(journal.head(), Head::EMPTY, "an entry is not in the journal before it is durable");
        assert!(journal.read(0, 10).await.expect("readable").is_empty(), "nor can it be read");
        assert!(!journal.watch().has_changed().expect("open"), "nor are watchers told");
        subject.hold(false);
    }
    // Waiting for the last one is enough: all before it are durable then.
    let last = waiting.pop().expect("there are twenty");
    last.durable.await.expect("durable");
    assert_eq!(journal.head(), last.stored.head());
    for earlier in waiting {
        assert!(matches!(earlier.durable.now_or_never(), None | Some(Ok(()))), "no earlier entry failed");
        let read = journal.read(earlier.stored.entry.revision - 1, 1).await.expect("readable");
        assert!(same(&read[0], &earlier.stored));
    }
}

async fn reads_in_pages<S: Subject>(subject: S) {
    let journal = subject.journal();
    fill(&*journal, 25).await;
    for (after, limit, from, to) in [(0, 10, 1, 10), (10, 10, 11, 20), (20, 10, 21, 25), (24, 1, 25, 25)] {
        let page: Vec<u64> =
            journal.read(after, limit).await.expect("readable").iter().map(|stored| stored.entry.revision).collect();
        assert_eq!(page, (from..=to).collect::<Vec<_>>(), "after {after}, at most {limit}");
    }
    for (after, limit) in [(25, 10), (26, 10), (u64::MAX, 10), (0, 0)] {
        let page = journal.read(after, limit).await.expect("readable");
        assert!(page.is_empty(), "nothing after {after}, at most {limit}");
    }
}

async fn watchers_follow<S: Subject>(subject: S) {
    let journal = subject.journal();
    append(&*journal, 0, 1).await;
    let mut watch = journal.watch();
    assert_eq!(*watch.borrow_and_update(), 1, "a watcher starts at the last durable entry");
    let writer = journal.clone();
    let writing = async move {
        for revision in 1..20 {
            append(&*writer, revision, revision + 1).await;
        }
    };
    let watching = async move {
        let mut seen = 1;
        while seen < 20 {
            watch.changed().await.expect("the journal is open");
            let now = *watch.borrow_and_update();
            assert!(now > seen, "revisions only grow: {now} after {seen}");
            seen = now;
            let read = journal.read(now - 1, 1).await.expect("readable");
            assert_eq!(read[0].entry.revision, now, "what a watcher is told of can be read");
        }
    };
    tokio::time::timeout(PATIENCE, futures_util::future::join(writing, watching)).await.expect("watchers are told");
}

async fn writers_at_once<S: Subject>(subject: S) {
    const WRITERS: u64 = 16;
    const EACH: u64 = 20;
    let journal = subject.journal();
    let writers = (0..WRITERS).map(|writer| {
        let journal = journal.clone();
        tokio::spawn(async move {
            let mut mine = Vec::new();
            let mut expected = 0;
            while mine.len() < EACH as usize {
                match journal.append(expected, sample(writer * EACH + mine.len() as u64)).await {
                    Ok(appending) => {
                        expected = appending.stored.entry.revision;
                        appending.durable.await.expect("durable");
                        mine.push(appending.stored);
                    }
                    Err(AppendError::Conflict { actual, .. }) => expected = actual,
                    Err(other) => panic!("{other}"),
                }
                tokio::task::yield_now().await;
            }
            mine
        })
    });
    let written = tokio::time::timeout(PATIENCE, join_all(writers)).await.expect("every writer gets its turn");
    let read = read_all(&*journal).await;
    assert_eq!(read.len() as u64, WRITERS * EACH);
    for stored in written.into_iter().flat_map(|writer| writer.expect("no writer failed")) {
        assert!(same(&read[stored.entry.revision as usize - 1], &stored), "every acknowledged entry has its place");
    }
}

async fn reopening_keeps_everything<S: Subject>(mut subject: S) {
    let journal = subject.journal();
    let (history, written) = (journal.history().to_owned(), fill(&*journal, 12).await);
    let head = journal.head();
    drop(journal);
    for _ in 0..2 {
        subject.reopen().await;
        let journal = subject.journal();
        assert_eq!((journal.history(), journal.head()), (history.as_str(), head));
        assert_eq!(*journal.watch().borrow(), 12);
        let read = read_all(&*journal).await;
        assert!(read.len() == 12 && read.iter().zip(&written).all(|(read, written)| same(read, written)));
    }
    let journal = subject.journal();
    let next = append(&*journal, 12, 13).await;
    assert_eq!(next.hash, head.hash.next(&next.bytes), "the chain goes on across a restart");
}

async fn too_large_is_refused<S: Subject>(subject: S) {
    let journal = subject.journal();
    let mut large = sample(1);
    large.comment = "x".repeat(super::MAX_ENTRY_BYTES);
    match journal.append(0, large).await {
        Err(AppendError::TooLarge { actual, limit }) => assert!(actual > limit),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("an entry above the limit was taken"),
    }
    append(&*journal, 0, 1).await;
}

async fn read_only_after_a_failed_sync<S: Subject>(mut subject: S) {
    let journal = subject.journal();
    let before = fill(&*journal, 3).await;
    if !subject.fail_next_sync() {
        return;
    }
    // Whether the refusal comes with the place or with the sync is the backend's choice.
    let answer = match journal.append(3, sample(4)).await {
        Ok(appending) => appending.durable.await,
        Err(error) => Err(error),
    };
    assert!(matches!(answer, Err(AppendError::ReadOnly { .. })), "{answer:?}");
    for expected in [3, 4] {
        let refused = journal.append(expected, sample(5)).await.map(drop);
        assert!(matches!(refused, Err(AppendError::ReadOnly { .. })), "no sync is tried again: {refused:?}");
    }
    assert!(matches!(journal.health(), Health::ReadOnly(_)));
    assert_eq!(read_all(&*journal).await.len(), 3, "what was durable can still be read");
    drop(journal);
    subject.reopen().await;
    let journal = subject.journal();
    assert_eq!(journal.health(), Health::Writable);
    let read = read_all(&*journal).await;
    assert!(read.iter().zip(&before).all(|(read, written)| same(read, written)));
    append(&*journal, read.len() as u64, 9).await;
}

async fn a_full_disk_loses_nothing<S: Subject>(subject: S) {
    let journal = subject.journal();
    fill(&*journal, 3).await;
    if !subject.fill_disk(true) {
        return;
    }
    let answer = match journal.append(3, sample(4)).await {
        Ok(appending) => appending.durable.await,
        Err(error) => Err(error),
    };
    assert!(matches!(answer, Err(AppendError::DiskFull)), "{answer:?}");
    let again = match journal.append(3, sample(4)).await {
        Ok(appending) => appending.durable.await,
        Err(error) => Err(error),
    };
    assert!(matches!(again, Err(AppendError::DiskFull)), "the place is still free, the disk still full: {again:?}");
    assert!(matches!(journal.health(), Health::ReadOnly(_)));
    assert_eq!(read_all(&*journal).await.len(), 3);
    subject.fill_disk(false);
    append(&*journal, 3, 5).await;
    assert_eq!(journal.health(), Health::Writable);
    assert_eq!(read_all(&*journal).await.len(), 4);
}
