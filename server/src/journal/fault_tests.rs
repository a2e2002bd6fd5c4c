//! The embedded journal on a simulated disk: power cuts, failing syncs, full disks and flipped bytes.
//!
//! `GUIDON_FULL=1` runs the full number of rounds.

#![allow(clippy::print_stdout, reason = "how many rounds ran is part of what the tests say")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::{self, BoxFuture};

use super::conformance::{self, Subject, read_all, sample};
use super::file::{FileJournal, OpenError, Options};
use super::{AppendError, Health, Journal, VerifyError, verify};
use crate::clock::ManualClock;
use crate::log::sim::SimFiles;
use crate::log::{self, OpenError as LogError};

const DIR: &str = "/data/journal";

fn rounds(reduced: u64, full: u64) -> u64 {
    if std::env::var_os("GUIDON_FULL").is_some_and(|value| value == "1") { full } else { reduced }
}

fn open(files: &SimFiles, acknowledged: u64) -> Result<FileJournal, OpenError> {
    let log = log::Options { segment_bytes: 16 << 10, ..log::Options::default() };
    let options = Options { acknowledged, log, ..Options::default() };
    let clock = ManualClock::new(1_790_000_000_000);
    FileJournal::open(files.shared(), Path::new(DIR), options, &clock, |raw| raw.read().map(drop))
        .map(|opened| opened.0)
}

struct OnSimulatedDisk {
    files: SimFiles,
    journal: Option<Arc<FileJournal>>,
}

impl OnSimulatedDisk {
    fn new() -> Self {
        let files = SimFiles::new();
        let journal = Some(Arc::new(open(&files, 0).expect("opens")));
        Self { files, journal }
    }
}

impl Subject for OnSimulatedDisk {
    fn journal(&self) -> Arc<dyn Journal> {
        self.journal.clone().expect("open")
    }

    fn reopen(&mut self) -> BoxFuture<'_, ()> {
        // A journal that had become read-only says so once more when it is closed.
        let _ = self.journal.take().expect("open").close();
        self.journal = Some(Arc::new(open(&self.files, 0).expect("opens")));
        future::ready(()).boxed()
    }

    fn hold(&self, _: bool) -> bool {
        false
    }

    fn fail_next_sync(&self) -> bool {
        self.files.fail_syncs(1);
        true
    }

    fn fill_disk(&self, full: bool) -> bool {
        let length = |path: &PathBuf| self.files.content(path).map_or(0, |file| file.len() as u64);
        self.files.set_capacity(full.then(|| self.files.paths().iter().map(length).sum()));
        true
    }
}

#[tokio::test]
async fn files_on_a_failing_disk_conform() {
    conformance::run(|| future::ready(OnSimulatedDisk::new()).boxed()).await;
}

/// Writes with eight writers until the disk stops after `operations`; the last revision whose append was acknowledged.
async fn write_until_it_stops(files: &SimFiles, journal: &Arc<FileJournal>, operations: u64) -> u64 {
    files.stop_after(operations);
    let writers = (0..8).map(|writer| {
        let journal = Arc::clone(journal);
        tokio::spawn(async move {
            let (mut expected, mut acknowledged) = (journal.head().revision, 0);
            for number in 0.. {
                match journal.append(expected, sample(writer * 1_000 + number)).await {
                    Ok(appending) => {
                        expected = appending.stored.entry.revision;
                        if appending.durable.await.is_err() {
                            break;
                        }
                        acknowledged = expected;
                    }
                    Err(AppendError::Conflict { actual, .. }) => expected = actual,
                    Err(_) => break,
                }
                tokio::task::yield_now().await;
            }
            acknowledged
        })
    });
    let acknowledged = future::join_all(writers).await;
    acknowledged.into_iter().map(|writer| writer.expect("no writer panics")).max().unwrap_or(0)
}

/// One round of writing and a power cut; what is wrong afterwards, if anything is.
async fn power_cut(seed: u64, ignore_syncs: bool) -> Result<(), String> {
    let files = SimFiles::new();
    let mut acknowledged = 0;
    for cut in 0..3 {
        let journal = Arc::new(open(&files, acknowledged).map_err(|error| format!("cut {cut}: {error}"))?);
        if journal.head().revision < acknowledged {
            return Err(format!("cut {cut}: at {}, {acknowledged} was acknowledged", journal.head().revision));
        }
        assert_eq!(read_all(&*journal).await.len() as u64, journal.head().revision, "all of it reads back");
        if ignore_syncs {
            files.ignore_syncs();
        }
        acknowledged = write_until_it_stops(&files, &journal, 20 + (seed * 7 + cut * 13) % 60).await.max(acknowledged);
        files.power_cut(seed * 10 + cut);
        // The dead handle's thread must be gone before the disk is opened again.
        let _ = journal.close();
    }
    let journal = open(&files, acknowledged).map_err(|error| error.to_string())?;
    if journal.head().revision < acknowledged {
        return Err(format!("at {}, {acknowledged} was acknowledged", journal.head().revision));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_cut_loses_nothing_that_was_acknowledged() {
    let rounds = rounds(12, 100);
    for seed in 0..rounds {
        if let Err(problem) = power_cut(seed, false).await {
            panic!("seed {seed}: {problem}");
        }
    }
    println!("{rounds} rounds of 3 power cuts, no acknowledged entry lost");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_syncs_power_cuts_do_lose_entries() {
    // The control: were this to pass, the simulation would show nothing.
    let mut failed = 0;
    for seed in 0..8 {
        failed += u32::from(power_cut(seed, true).await.is_err());
    }
    assert!(failed >= 6, "only {failed} of 8 unsynced rounds lost something");
}

/// A closed journal of `count` entries in several segments.
async fn closed_journal(count: u64) -> SimFiles {
    let files = SimFiles::new();
    let journal = open(&files, 0).expect("opens");
    for revision in 0..count {
        conformance::append(&journal, revision, revision + 1).await;
    }
    journal.close().expect("closes");
    files
}

/// File and offset that an error names.
fn named_place(error: &OpenError) -> (PathBuf, u64) {
    match error {
        OpenError::Log(LogError::Damaged(damage)) => (damage.path.clone(), damage.offset),
        OpenError::Log(LogError::Foreign { path, .. }) => (path.clone(), 0),
        OpenError::BadEntry(bad) => (bad.path.clone(), bad.offset),
        other => panic!("no place in {other}"),
    }
}

#[tokio::test]
async fn a_flipped_byte_is_found_and_named() {
    let files = closed_journal(80).await;
    let paths: Vec<PathBuf> =
        files.paths().into_iter().filter(|path| path.extension().is_some_and(|ending| ending == "log")).collect();
    assert!(paths.len() >= 3, "several segments: {paths:?}");
    let positions = rounds(25, 100);
    for path in &paths {
        let len = files.content(path).expect("there").len();
        for position in 0..positions {
            let offset = (position as usize * len / positions as usize + position as usize % 7).min(len - 1);
            files.flip(path, offset, 1 << (position % 8));
            let verified = verify(&files, Path::new(DIR), &mut |_| {});
            let Err(VerifyError::Open(found)) = verified else {
                panic!("{path:?} at {offset}: verify gave {verified:?}")
            };
            let opened = open(&files, 0).err().unwrap_or_else(|| panic!("{path:?} at {offset}: it opened"));
            for error in [&found, &opened] {
                let (named, at) = named_place(error);
                assert_eq!(&named, path, "flipped byte {offset}: {error}");
                assert!(at <= offset as u64, "flipped byte {offset}: {error}");
            }
            files.flip(path, offset, 1 << (position % 8));
        }
    }
    let sound = verify(&files, Path::new(DIR), &mut |_| {}).expect("sound again");
    assert_eq!(sound.head.revision, 80);
    println!("{positions} positions in each of {} files", paths.len());
}

#[tokio::test]
async fn verifying_tells_its_progress_and_changes_nothing() {
    let files = closed_journal(2_100).await;
    let before: Vec<_> = files.paths().iter().map(|path| files.content(path)).collect();
    let mut seen = Vec::new();
    let verified = verify(&files, Path::new(DIR), &mut |progress| seen.push(progress)).expect("sound");
    assert_eq!(seen.iter().map(|progress| progress.entries).collect::<Vec<_>>(), [1_000, 2_000, 2_100]);
    assert!(seen.is_sorted_by_key(|progress| progress.bytes) && seen[0].bytes > 0);
    assert!(seen.iter().all(|progress| progress.bytes <= progress.total_bytes), "{seen:?}");
    assert_eq!(files.paths().iter().map(|path| files.content(path)).collect::<Vec<_>>(), before);
    let journal = open(&files, 0).expect("opens");
    assert_eq!((verified.history.as_str(), verified.head), (journal.history(), journal.head()));
    let while_open = verify(&files, Path::new(DIR), &mut |_| {}).expect("a running server is no obstacle");
    assert_eq!(while_open.head, verified.head);
    let none = verify(&SimFiles::new(), Path::new(DIR), &mut |_| {});
    assert!(matches!(none, Err(VerifyError::NoJournal(_))), "{none:?}");
}

#[tokio::test]
async fn a_failed_sync_makes_the_journal_read_only_until_it_is_opened_again() {
    let files = SimFiles::new();
    let journal = open(&files, 0).expect("opens");
    conformance::append(&journal, 0, 1).await;
    files.fail_syncs(1);
    let appending = journal.append(1, sample(2)).await.expect("the place is free");
    assert!(matches!(appending.durable.await, Err(AppendError::ReadOnly { .. })));
    for _ in 0..3 {
        assert!(matches!(journal.append(1, sample(2)).await.map(drop), Err(AppendError::ReadOnly { .. })));
        assert!(matches!(journal.health(), Health::ReadOnly(_)));
    }
    files.power_cut(1);
    let _ = journal.close();
    let journal = open(&files, 1).expect("opens");
    let head = journal.head().revision;
    assert!(head == 1 || head == 2, "the entry under way may or may not be there: {head}");
    conformance::append(&journal, head, 3).await;
}
