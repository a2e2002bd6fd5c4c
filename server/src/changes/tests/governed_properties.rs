//! Random principals try random things, and whatever came of it is held against the tier table.
//!
//! The table is written here a second time, from its description and not from the policies: [`Oracle`] never asks them. It looks
//! at every new entry of the journal, at the state before and after it, and at who it says it is by.
//!
//! `GUIDON_FULL=1` runs many more cases.

mod oracle;
mod tries;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::*;
use crate::journal::{Entry, StoredEntry};
use oracle::Oracle;
use tries::{Try, Worker};

/// Everything that every case starts from: making it takes longer than a case does.
struct Base {
    entries: Vec<StoredEntry>,
    world: World,
    key_sets: MemoryKeySets,
}

fn base() -> &'static Base {
    static BASE: OnceLock<Base> = OnceLock::new();
    BASE.get_or_init(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let server = Server::governed().await;
            let entries = server.journal.read(0, 1_000).await.unwrap();
            Base { entries, world: World::clone(&server.service.world()), key_sets: server.key_sets.clone() }
        })
    })
}

async fn start() -> Server {
    let base = base();
    let journal = MemoryJournal::new("h");
    for stored in &base.entries {
        let appending = journal.append(stored.entry.revision - 1, Entry::clone(&stored.entry)).await.unwrap();
        appending.durable.await.unwrap();
    }
    Server::at(base.world.clone(), journal, base.key_sets.clone())
}

/// How often something was seen to happen: a property that nothing ever comes near of is none.
#[derive(Default)]
struct Seen {
    refused: AtomicUsize,
    direct: AtomicUsize,
    opened: AtomicUsize,
    approved: AtomicUsize,
    applied: AtomicUsize,
    applied_with_approvals: AtomicUsize,
    elsewhere: AtomicUsize,
}

impl Seen {
    fn note(&self, entry: &Entry) {
        let count = |counter: &AtomicUsize| counter.fetch_add(1, Ordering::Relaxed);
        if entry.named_environments().any(|environment| Some(environment) != entry.environment.as_deref()) {
            count(&self.elsewhere);
        }
        let steps: Vec<&RequestEdit> = entry
            .instructions
            .iter()
            .filter_map(|instruction| match instruction {
                Instruction::Request(edit) => Some(&**edit),
                _ => None,
            })
            .collect();
        match steps.first() {
            None => count(&self.direct),
            Some(RequestEdit::OpenRequest { .. }) => count(&self.opened),
            Some(RequestEdit::ApproveRequest { .. }) => count(&self.approved),
            Some(RequestEdit::ApplyRequest { .. }) => {
                let approvals = entry.grounds.as_ref().map_or(0, |grounds| grounds.approvals.len());
                count(if approvals > 0 { &self.applied_with_approvals } else { &self.applied })
            }
            _ => 0,
        };
    }
}

#[test]
fn nothing_changes_without_a_policy_and_the_approvals_it_takes() {
    let full = std::env::var_os("GUIDON_FULL").is_some_and(|value| value == "1");
    let cases = if full { 20_000 } else { 300 };
    let seen = Seen::default();
    // Made now: a case runs on a runtime of its own.
    base();
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 400, ..Config::default() };
    let tries = prop::collection::vec(any::<Try>(), 4..28);
    let outcome = TestRunner::new(config).run(&tries, |tries| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(run(&tries, &seen))
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
    let counts = [
        &seen.refused,
        &seen.direct,
        &seen.opened,
        &seen.approved,
        &seen.applied,
        &seen.elsewhere,
        &seen.applied_with_approvals,
    ];
    let counts = counts.map(|counter| counter.load(Ordering::Relaxed));
    let reached =
        "refused, direct, opened, approved, applied alone, in another environment than named, applied with approvals";
    // So that a pass says something: all of it happened. Approvals are rare among random tries.
    assert!(counts[..6].iter().all(|count| *count >= 10) && counts[6] > 0, "{reached}: {counts:?}");
}

async fn run(tries: &[Try], seen: &Seen) -> Result<(), TestCaseError> {
    let server = start().await;
    let policies = server.service.policies_of(&server.service.world()).map_err(|error| fail(&error.to_string()))?;
    let mut oracle = Oracle::new(World::clone(&server.service.world()), policies);
    let mut worker = Worker::new(&server);
    for attempt in tries {
        let before = server.service.world();
        let tried = worker.attempt(attempt).await;
        let after = server.service.world();
        let Some((author, outcome)) = tried else { continue };
        if let Err(error) = &outcome {
            let opened_and_held = after.revision > before.revision;
            prop_assert!(!opened_and_held, "refused ({error}), and yet there are new entries");
            seen.refused.fetch_add(1, Ordering::Relaxed);
        }
        let entries = server.journal.read(before.revision, 10).await.unwrap();
        prop_assert_eq!(entries.len() as u64, after.revision - before.revision, "every new state has its entry");
        if entries.is_empty() {
            prop_assert_eq!(&*before, &*after, "no entry, and yet another state");
        }
        for stored in &entries {
            let said = format!("{attempt:?}: {:?} made {:#?}", author, stored.entry);
            oracle.check(&author, stored, &server).await.map_err(|why| fail(&format!("{why}\n{said}")))?;
            seen.note(&stored.entry);
        }
        prop_assert_eq!(&oracle.world, &*after, "the entries fold to another state");
    }
    Ok(())
}

fn fail(why: &str) -> TestCaseError {
    TestCaseError::fail(why.to_owned())
}
