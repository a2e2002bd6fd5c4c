use std::os::unix::fs::PermissionsExt;

use guidon_sdk::model::KeySetRef;

use super::*;
use crate::changes::Instruction;
use crate::clock::ManualClock;
use crate::journal::conformance::sample;
use crate::journal::{ENTRY_FORMAT, FileJournal, Journal, Options, verify};
use crate::log::RealFiles;
use crate::vault::MemoryVault;

const NOW_MS: u64 = 1_790_000_000_000;

fn open(dir: &Path) -> FileJournal {
    let clock = ManualClock::new(NOW_MS);
    let opened = FileJournal::open(RealFiles::shared(), dir, Options::default(), &clock, |raw| raw.read().map(drop));
    opened.expect("opens").0
}

/// A journal of `count` entries in `dir`, one of them with a key set, and its vault, in which the origin is erased.
async fn history(dir: &Path, count: u64) -> MemoryVault {
    let vault = MemoryVault::new();
    let journal = open(dir);
    for revision in 0..count {
        let mut entry = sample(revision + 1);
        if revision == 1 {
            let key_set = Some(KeySetRef { id: "set-1".to_owned(), hash: "0".repeat(64), len: 2 });
            entry.instructions = vec![Instruction::AddSegmentKeys {
                segment: "beta".to_owned(),
                list: Default::default(),
                keys: Vec::new(),
                key_set,
                merged: None,
            }];
        }
        journal.append(revision, entry).await.expect("taken").durable.await.expect("stored");
    }
    journal.close().expect("closes");
    vault.put(vault::Kind::KeySet, "set-1", br#"{"keys":["ann","bob"]}"#.to_vec()).await.expect("stored");
    vault.put(vault::Kind::Actor, "a-1", vec![0xff, 0, 7]).await.expect("stored");
    vault.put(vault::Kind::Actor, "a-2", b"nobody refers to this".to_vec()).await.expect("stored");
    vault
}

async fn import_into(from: &Path, data_dir: &Path) -> (Result<Transferred, TransferError>, Arc<MemoryVault>) {
    let vault = Arc::new(MemoryVault::new());
    let made = Arc::clone(&vault);
    let open_vault = move |_: &Path| -> Result<Arc<dyn Vault>, VaultError> { Ok(Arc::clone(&made) as Arc<dyn Vault>) };
    let target = Target { data_dir, journal: Path::new("journal"), vault: &open_vault };
    let clock = ManualClock::new(NOW_MS + 5_000);
    (import(RealFiles::shared(), from, target, &clock, &mut |_| {}).await, vault)
}

#[tokio::test]
async fn a_history_moves_whole_and_gets_an_id_of_its_own() {
    let dir = tempfile::tempdir().expect("a folder");
    let (old, file, new) = (dir.path().join("old"), dir.path().join("history.ndjson"), dir.path().join("new"));
    let vault = history(&old, 2_500).await;
    let exported = export(&RealFiles, &old, &vault, &file, None, &mut |_| {}).expect("exports");
    assert_eq!((exported.head.revision, exported.records, exported.erased), (2_500, 2, 1));
    assert_eq!(fs::metadata(&file).expect("there").permissions().mode() & 0o777, 0o600);
    let again = export(&RealFiles, &old, &vault, &file, None, &mut |_| {});
    assert!(matches!(again, Err(TransferError::Taken { .. })), "{again:?}");

    let (imported, new_vault) = import_into(&file, &new).await;
    let imported = imported.expect("imports");
    assert_eq!((imported.head, imported.records), (exported.head, 2));
    assert_ne!(imported.history, exported.history);
    let (old, new) = (open(&old), open(&new.join("journal")));
    assert_eq!(new.history(), imported.history);
    for after in [0, 1_000, 2_000] {
        let (old, new) = (old.read(after, 1_000).await.expect("reads"), new.read(after, 1_000).await.expect("reads"));
        assert_eq!(old.len(), new.len());
        assert!(old.iter().zip(&new).all(|(old, new)| (&old.bytes, old.hash) == (&new.bytes, new.hash)));
    }
    for (kind, id) in [(vault::Kind::KeySet, "set-1"), (vault::Kind::Actor, "a-1"), (vault::Kind::Actor, "a-2")] {
        let expected = vault.get(kind, id).expect("reads").filter(|_| id != "a-2");
        assert_eq!(new_vault.get(kind, id).expect("reads"), expected, "{id}");
    }
}

#[tokio::test]
async fn a_tampered_or_cut_file_is_refused_and_makes_no_store() {
    let dir = tempfile::tempdir().expect("a folder");
    let (old, file, new) = (dir.path().join("old"), dir.path().join("history.ndjson"), dir.path().join("new"));
    let vault = history(&old, 6).await;
    export(&RealFiles, &old, &vault, &file, None, &mut |_| {}).expect("exports");
    let text = fs::read_to_string(&file).expect("reads");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 10, "header, six entries, two records, end");
    let with = |line: usize, replaced: String| {
        let mut lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        lines[line] = replaced;
        lines.join("\n") + "\n"
    };
    let without = |line: usize| {
        let kept = lines.iter().enumerate().filter(|(at, _)| *at != line).map(|(_, line)| *line);
        kept.collect::<Vec<_>>().join("\n") + "\n"
    };
    let cases = [
        ("an edited entry", with(3, lines[3].replace("change 3", "change 9")), 4),
        ("an edited record", with(7, lines[7].replace("ann", "eve")), 10),
        ("another format", with(0, lines[0].replace("\"format\":1", "\"format\":2")), 1),
        ("a missing entry", without(2), 3),
        ("a missing record", without(8), 9),
        ("a missing end", without(9), 10),
        ("a cut line", text[..text.len() - 20].to_owned(), 10),
        ("no header", without(0), 1),
        ("something behind the end", format!("{text}{{}}\n"), 11),
        ("no JSON", with(5, "{".to_owned()), 6),
        ("an empty file", String::new(), 1),
    ];
    for (name, tampered, expected) in cases {
        let path = dir.path().join("tampered.ndjson");
        fs::write(&path, tampered).expect("writes");
        match import_into(&path, &new).await.0 {
            Err(TransferError::BadLine { line, what, .. }) => assert_eq!(line, expected, "{name}: {what}"),
            other => panic!("{name}: {other:?}"),
        }
        assert!(!new.exists() && !dir.path().join("new.importing").exists(), "{name}: nothing is left");
    }
    import_into(&file, &new).await.0.expect("the untouched file is fine");
    let full = import_into(&file, &new).await.0;
    assert!(matches!(full, Err(TransferError::Taken { .. })), "not over an existing store: {full:?}");
}

#[tokio::test]
async fn what_an_older_version_cannot_read_is_left_behind() {
    let dir = tempfile::tempdir().expect("a folder");
    let [old, file, new] = ["old", "file", "new"].map(|name| dir.path().join(name));
    let vault = history(&old, 5).await;
    // As a later version goes on with it; its last entry names somebody new.
    let journal = open(&old);
    let mut entry = sample(6);
    (entry.format, entry.actor_id) = (ENTRY_FORMAT + 1, "a-2".to_owned());
    journal.append(5, entry).await.expect("taken").durable.await.expect("stored");
    journal.close().expect("closes");
    let refused =
        export(&RealFiles, &old, &vault, &file, None, &mut |_| {}).expect_err("it cannot be read").to_string();
    assert!(refused.contains("entry 6") && refused.contains("install the later version again"), "{refused}");
    let cut = export(&RealFiles, &old, &vault, &file, Some(5), &mut |_| {}).expect("up to there it can");
    assert_eq!((cut.head.revision, cut.records, cut.erased), (5, 2, 1), "and nothing of whom the rest names");
    let (imported, _) = import_into(&file, &new).await;
    assert_eq!(imported.expect("imports").head, cut.head);
    let read = open(&new.join("journal")).read(0, 10).await.expect("reads");
    assert_eq!(read.last().map(StoredEntry::head), Some(cut.head));

    let beyond = export(&RealFiles, &new.join("journal"), &vault, &dir.path().join("beyond"), Some(6), &mut |_| {});
    assert!(matches!(beyond, Err(TransferError::NotSoFar { last: 6, end: 5 })), "{beyond:?}");
    assert_eq!(fs::read_dir(dir.path()).expect("reads").count(), 3, "no file is left behind");
}

#[tokio::test]
async fn a_damaged_journal_is_not_exported() {
    let dir = tempfile::tempdir().expect("a folder");
    let (old, file) = (dir.path().join("old"), dir.path().join("history.ndjson"));
    let vault = history(&old, 6).await;
    let segment = old.join("00000000000000000001.log");
    let mut bytes = fs::read(&segment).expect("reads");
    bytes[900] ^= 1;
    fs::write(&segment, bytes).expect("writes");
    let refused = export(&RealFiles, &old, &vault, &file, None, &mut |_| {});
    assert!(matches!(refused, Err(TransferError::Journal(_))), "{refused:?}");
    assert_eq!(fs::read_dir(dir.path()).expect("reads").count(), 1, "no file is left behind");
    assert!(verify(&RealFiles, &old, &mut |_| {}).is_err());
}
