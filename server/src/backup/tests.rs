use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;

use super::*;
use crate::audit::{AuditLog, AuditOptions, Event, EventKind, FileAuditLog};
use crate::clock::{Clock, ManualClock};
use crate::journal::{self, FileJournal, Head, Journal, conformance};
use crate::log::{Files, RealFiles};
use crate::state::DataFolder;
use crate::vault::{self, FileVault, MasterKey, Vault};

struct Store {
    dir: tempfile::TempDir,
    journal: Arc<FileJournal>,
    security: FileAuditLog,
    vault: FileVault,
    key: MasterKey,
}

impl Store {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let (files, folder) = (RealFiles::shared(), DataFolder::new(dir.path()));
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(1_790_000_000_000));
        let key = MasterKey::from_bytes([7; 32]);
        let opened =
            FileJournal::open(files.clone(), &folder.journal(), journal::Options::default(), &*clock, |_| Ok(()));
        let journal = Arc::new(opened.expect("opens").0);
        let security = FileAuditLog::open(files.clone(), &folder.security(), clock, AuditOptions::default());
        let vault = FileVault::open(files, &folder.vault(), &key).expect("opens").vault;
        Self { dir, journal, security: security.expect("opens").0, vault, key }
    }

    async fn filled(entries: u64) -> Self {
        let store = Self::new();
        for revision in 0..entries {
            conformance::append(&*store.journal, revision, revision + 1).await;
            store.security.record(Event::new(1_790_000_000_000, EventKind::SignedIn, format!("o-{revision}")));
            store.vault.put(vault::Kind::Actor, &format!("a-{revision}"), vec![1; 40]).await.expect("stored");
        }
        store.security.flush().await;
        store
    }

    fn sources(&self, with_key: bool) -> Sources {
        Sources {
            journal: self.journal.reader(),
            security: self.security.reader(),
            assignments: None,
            vault: self.vault.reader(),
            history: self.journal.history().to_owned(),
            key: BackupKey::of(&self.key),
            master_key: with_key.then(|| self.key.reveal()),
            spool: self.dir.path().to_owned(),
            now: 1_790_000_000_000,
        }
    }

    fn backup(&self, with_key: bool) -> Vec<u8> {
        let mut producer = Producer::start(self.sources(with_key)).expect("starts");
        let mut bytes = Vec::new();
        while let Some(piece) = producer.next_piece().expect("goes on") {
            bytes.extend(piece);
        }
        bytes
    }
}

fn check(bytes: &[u8], key: Option<&MasterKey>) -> Result<Contents, ReadBackupError> {
    read(&mut &*bytes, key.map(BackupKey::of).as_ref(), &mut |_| Ok(()))
}

fn restored(bytes: &[u8], key: Option<MasterKey>) -> (tempfile::TempDir, Result<Restored, RestoreError>) {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("backup");
    std::fs::write(&file, bytes).expect("written");
    let finish = |folder: &std::path::Path, key: &MasterKey, _: &Contents| {
        let opened = FileVault::open(RealFiles::shared(), &DataFolder::new(folder).vault(), key);
        opened.map_err(|error| error.to_string())?.vault.close().map_err(|error| error.to_string())
    };
    let files: Arc<dyn Files> = RealFiles::shared();
    let data = dir.path().join("data");
    let target = Target { data: &data, key, history: [9; 16], finish: &finish };
    let done = restore(&files, &file, target);
    (dir, done)
}

#[tokio::test]
async fn what_is_restored_is_what_was_there() {
    let store = Store::filled(30).await;
    let (dir, done) = restored(&store.backup(false), Some(store.key.clone()));
    let done = done.expect("restored");
    assert_ne!(done.history, store.journal.history());
    assert_eq!(done.contents.manifest.revision, 30);
    let folder = DataFolder::new(dir.path().join("data"));
    let verified = journal::verify(&RealFiles, &folder.journal(), &mut |_| {}).expect("sound");
    assert_eq!((verified.head, verified.history), (store.journal.head(), done.history));
    let events = crate::audit::verify(&RealFiles, &folder.security(), &mut |_| {}, &mut |_| {}).expect("sound");
    assert_eq!(events.events, 30);
    let vault = FileVault::open(RealFiles::shared(), &folder.vault(), &store.key).expect("opens").vault;
    assert_eq!(vault.get(vault::Kind::Actor, "a-29").expect("reads"), Some(vec![1; 40]));
    assert!(!folder.master_key().exists(), "the key is not in it");
}

#[tokio::test]
async fn the_key_comes_along_only_where_it_was_asked_for() {
    let store = Store::filled(3).await;
    let without = store.backup(false);
    let digits = store.key.reveal();
    assert!(!without.windows(digits.len()).any(|window| window == digits.as_bytes()));
    let (_dir, done) = restored(&without, None);
    let needed = done.expect_err("the key is missing").to_string();
    assert!(needed.contains(&BackupKey::of(&store.key).id) && needed.contains("GUIDON_MASTER_KEY"), "{needed}");
    let (_dir, done) = restored(&without, Some(MasterKey::from_bytes([8; 32])));
    assert!(matches!(done, Err(RestoreError::Backup { source: ReadBackupError::OtherKey { .. }, .. })), "{done:?}");
    let (dir, done) = restored(&store.backup(true), None);
    done.expect("restored");
    assert_eq!(std::fs::read_to_string(dir.path().join("data/master.key")).expect("there").trim(), digits);
}

#[tokio::test]
async fn a_vault_that_was_compacted_and_a_folder_that_is_taken() {
    let store = Store::filled(5).await;
    store.vault.delete(vault::Kind::Actor, "a-1").await.expect("deleted");
    store.vault.compact().await.expect("compacted");
    let bytes = store.backup(false);
    let (dir, done) = restored(&bytes, Some(store.key.clone()));
    done.expect("restored, though the vault's first record is not number 1");
    let files: Arc<dyn Files> = RealFiles::shared();
    let data = dir.path().join("data");
    let target = Target { data: &data, key: Some(store.key.clone()), history: [9; 16], finish: &|_, _, _| Ok(()) };
    let again = restore(&files, &dir.path().join("backup"), target);
    assert!(matches!(again, Err(RestoreError::Taken(_))), "{again:?}");
}

#[tokio::test]
async fn whatever_byte_is_changed_or_cut_off_it_is_refused() {
    let store = Store::filled(8).await;
    let bytes = store.backup(false);
    let key = &store.key;
    check(&bytes, Some(key)).expect("sound");
    for index in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[index] ^= 1 << (index % 8);
        let refused = check(&changed, Some(key));
        assert!(refused.is_err(), "byte {index} was changed and nobody noticed");
    }
    for length in (0..bytes.len()).step_by(7) {
        assert!(check(&bytes[..length], Some(key)).is_err(), "cut off at {length}");
    }
    let longer = [&*bytes, b"x"].concat();
    assert!(check(&longer, Some(key)).is_err());
}

#[tokio::test]
async fn a_backup_that_was_made_up_lacks_the_seal() {
    let store = Store::filled(4).await;
    let mut sources = store.sources(false);
    // Somebody without the key who knows its id, which is no secret.
    let other = BackupKey::of(&MasterKey::from_bytes([8; 32]));
    sources.key = BackupKey { id: BackupKey::of(&store.key).id, ..other };
    let mut producer = Producer::start(sources).expect("starts");
    let mut bytes = Vec::new();
    while let Some(piece) = producer.next_piece().expect("goes on") {
        bytes.extend(piece);
    }
    check(&bytes, None).expect("its checksums are right");
    assert!(matches!(check(&bytes, Some(&store.key)), Err(ReadBackupError::Unsealed(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backups_taken_amid_thousands_of_writes_hold_a_prefix_of_them() {
    let store = Arc::new(Store::filled(1).await);
    let stop = Arc::new(AtomicBool::new(false));
    let writing = tokio::spawn({
        let (store, stop) = (Arc::clone(&store), Arc::clone(&stop));
        async move {
            let mut revision = 1;
            while !stop.load(Ordering::Relaxed) {
                conformance::append(&*store.journal, revision, revision + 1).await;
                let id = format!("a-{}", revision % 50);
                store.vault.put(vault::Kind::Actor, &id, vec![revision as u8; 9_000]).await.expect("stored");
                revision += 1;
            }
            revision
        }
    });
    let mut backups = Vec::new();
    for _ in 0..5 {
        let store = Arc::clone(&store);
        backups.push(tokio::task::spawn_blocking(move || store.backup(false)).await.expect("made"));
        tokio::time::sleep(std::time::Duration::from_millis(150)).await;
    }
    stop.store(true, Ordering::Relaxed);
    let written = writing.await.expect("wrote");
    let entries = conformance::read_all(&*store.journal).await;
    for bytes in backups {
        let (_dir, done) = restored(&bytes, Some(store.key.clone()));
        let manifest = done.expect("restored").contents.manifest;
        assert!(manifest.revision <= written);
        let head = manifest.revision.checked_sub(1).map_or(Head::EMPTY, |at| entries[at as usize].head());
        assert_eq!(head.hash.to_string(), manifest.journal_hash);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_it_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), magic in any::<bool>()) {
        if magic {
            bytes.splice(0..0, format::MAGIC.iter().copied());
        }
        prop_assert!(check(&bytes, None).is_err());
    }
}
