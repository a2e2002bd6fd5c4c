use std::sync::Arc;

use super::audit::{AuditCommand, run};
use super::{Cli, CliError, Command, Output};
use clap::Parser;

use crate::audit::{AuditLog, AuditOptions, CheckpointKey, Event, EventKind, FileAuditLog};
use crate::clock::ManualClock;
use crate::journal::conformance::sample;
use crate::journal::{self, FileJournal, Journal};
use crate::log::RealFiles;
use crate::state::DataFolder;

/// A store of `changes` entries by `actor` and as many events, and a checkpoint of it.
async fn store(folder: &DataFolder, changes: u64, actor: &str) -> crate::audit::Checkpoint {
    let clock = Arc::new(ManualClock::new(1_790_000_000_000));
    let (journal, _) =
        FileJournal::open(RealFiles::shared(), &folder.journal(), journal::Options::default(), &*clock, |_| Ok(()))
            .expect("opens");
    let (events, _) =
        FileAuditLog::open(RealFiles::shared(), &folder.security(), clock, AuditOptions::default()).expect("opens");
    for revision in 0..changes {
        let entry = crate::journal::Entry { actor_id: actor.to_owned(), ..sample(revision + 1) };
        journal.append(revision, entry).await.expect("appends").durable.await.expect("durable");
        events.record(Event::new(revision, EventKind::Refused, format!("o-{revision}")));
    }
    events.flush().await;
    let checkpoint = CheckpointKey::from_bytes(&[7; 32]).sign_present(&journal, &events, 5);
    journal.close().expect("closes");
    events.close().expect("closes");
    checkpoint
}

fn verify(args: &[&str]) -> Result<(), CliError> {
    let all = ["guidon", "audit", "verify"].iter().chain(args);
    let cli = Cli::try_parse_from(all).map_err(|error| CliError::Usage(error.to_string()))?;
    let Command::Audit(command @ AuditCommand::Verify(_)) = cli.command else { panic!("another command") };
    let no_server = || Err(CliError::Usage("no server is asked".to_owned()));
    run(command, no_server, &Output::new(true))
}

#[tokio::test]
async fn a_rewritten_store_is_caught_by_a_checkpoint_that_was_kept() {
    let dir = tempfile::tempdir().expect("a folder");
    let (first, second) = (DataFolder::new(dir.path().join("first")), DataFolder::new(dir.path().join("second")));
    let checkpoint = store(&first, 3, "ada").await;
    let file = dir.path().join("checkpoint.json");
    std::fs::write(&file, serde_json::to_vec(&checkpoint).expect("JSON")).expect("writes");
    let key = CheckpointKey::from_bytes(&[7; 32]).public().to_string();
    let path = |folder: &DataFolder| folder.root().to_str().expect("a path").to_owned();
    let file = file.to_str().expect("a path");
    let with = |folder: &DataFolder, key: &str| verify(&["--data", &path(folder), "--checkpoint", file, "--key", key]);
    verify(&["--data", &path(&first)]).expect("sound");
    with(&first, &key).expect("contained");
    store(&second, 5, "somebody-else").await;
    verify(&["--data", &path(&second)]).expect("its chain holds");
    match with(&second, &key) {
        Err(CliError::Damaged(text)) => assert!(text.contains("rewritten: at revision 3"), "{text}"),
        other => panic!("{other:?}"),
    }
    let other_key = CheckpointKey::from_bytes(&[8; 32]).public().to_string();
    for key in [other_key.as_str(), "nonsense"] {
        assert!(matches!(with(&first, key), Err(CliError::Usage(_))), "{key}");
    }
    assert!(matches!(verify(&["--data", &path(&first), "--checkpoint", file]), Err(CliError::Usage(_))));
    std::fs::remove_dir_all(second.security()).expect("removes");
    verify(&["--data", &path(&second)]).expect("a store of an earlier version is sound");
    assert!(matches!(verify(&["--data", &path(&DataFolder::new(dir.path().join("none")))]), Err(CliError::Usage(_))));
}
