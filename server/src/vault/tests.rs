//! Both vaults behind the trait, and the file vault on real and simulated disks.

use std::collections::BTreeMap;
use std::path::Path;

use super::*;
use crate::log::RealFiles;
use crate::log::sim::SimFiles;

fn key() -> MasterKey {
    MasterKey::from_bytes([5; 32])
}

fn open(dir: &Path) -> FileVault {
    FileVault::open(RealFiles::shared(), dir, &key()).unwrap().vault
}

fn entry(kind: Kind, id: &str, value: &[u8]) -> Entry {
    Entry { kind, id: id.to_owned(), value: value.to_vec() }
}

/// All files of a folder, one after the other.
fn bytes_of(dir: &Path) -> Vec<u8> {
    let mut all = Vec::new();
    for file in std::fs::read_dir(dir).unwrap() {
        all.extend(std::fs::read(file.unwrap().path()).unwrap());
    }
    all
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

async fn conforms(vault: &dyn Vault) {
    let large: Vec<u8> = (0..200_000_u32).map(|index| (index * 31 % 251) as u8).collect();
    vault.put(Kind::Actor, "a1", b"Ada".to_vec()).await.unwrap();
    vault
        .put_many(vec![
            entry(Kind::Actor, "a2", b"Grace"),
            entry(Kind::KeySet, "a1", &large),
            entry(Kind::Origin, "empty", b""),
        ])
        .await
        .unwrap();
    assert_eq!(vault.get(Kind::Actor, "a1").unwrap().as_deref(), Some(b"Ada".as_slice()));
    assert_eq!(vault.get(Kind::KeySet, "a1").unwrap(), Some(large));
    assert_eq!(vault.get(Kind::Origin, "empty").unwrap(), Some(vec![]));
    assert_eq!(vault.get(Kind::Origin, "a1").unwrap(), None);
    vault.put(Kind::Actor, "a1", b"Ada L.".to_vec()).await.unwrap();
    assert!(vault.delete(Kind::Actor, "a2").await.unwrap());
    assert!(!vault.delete(Kind::Actor, "a2").await.unwrap());
    vault.compact().await.unwrap();
    assert_eq!(vault.get(Kind::Actor, "a1").unwrap().as_deref(), Some(b"Ada L.".as_slice()));
    assert_eq!(vault.get(Kind::Actor, "a2").unwrap(), None);
    assert_eq!(vault.get(Kind::KeySet, "a1").unwrap().map(|value| value.len()), Some(200_000));
    assert_eq!((vault.list(Kind::Actor), vault.list(Kind::TotpSecret)), (vec!["a1".to_owned()], vec![]));

    for id in ["", &"x".repeat(MAX_ID_BYTES + 1)] {
        let refused = vault.put_many(vec![entry(Kind::Actor, "a3", b""), entry(Kind::Actor, id, b"")]).await;
        assert!(matches!(refused, Err(VaultError::BadId { .. })));
    }
    let half = vec![1; MAX_VALUE_BYTES / 2 + 1];
    let refused = vault.put_many(vec![entry(Kind::Actor, "a3", &half), entry(Kind::Actor, "a4", &half)]).await;
    assert!(matches!(refused, Err(VaultError::TooLarge { .. })));
    assert_eq!(vault.list(Kind::Actor), ["a1"]);
}

#[tokio::test]
async fn the_memory_vault_conforms() {
    conforms(&MemoryVault::new()).await;
}

#[tokio::test]
async fn the_file_vault_conforms_and_keeps_everything() {
    let dir = tempfile::tempdir().unwrap();
    let vault = open(dir.path());
    conforms(&vault).await;
    vault.close().unwrap();
    let again = open(dir.path());
    assert_eq!(again.get(Kind::Actor, "a1").unwrap().as_deref(), Some(b"Ada L.".as_slice()));
    assert_eq!(again.get(Kind::KeySet, "a1").unwrap().map(|value| value.len()), Some(200_000));
    assert_eq!(again.get(Kind::Actor, "a2").unwrap(), None);
}

#[tokio::test]
async fn nothing_is_readable_on_disk_and_what_was_erased_is_gone_from_it() {
    let dir = tempfile::tempdir().unwrap();
    let vault = open(dir.path());
    let name = b"Augusta Ada King, Countess of Lovelace";
    vault.put(Kind::Actor, "actor-to-forget", name.to_vec()).await.unwrap();
    let with = bytes_of(dir.path());
    assert!(!contains(&with, name) && !contains(&with, b"actor-to-forget"));
    // The sealed record is at the end of the only segment.
    let segment = std::fs::read(dir.path().join("00000000000000000001.log")).unwrap();
    let sealed = &segment[segment.len() - name.len()..];

    vault.put(Kind::Actor, "kept", b"kept".to_vec()).await.unwrap();
    vault.delete(Kind::Actor, "actor-to-forget").await.unwrap();
    assert!(contains(&bytes_of(dir.path()), sealed));
    vault.compact().await.unwrap();
    assert!(!contains(&bytes_of(dir.path()), sealed));
    assert_eq!(vault.list(Kind::Actor), ["kept"]);
}

#[test]
fn a_wrong_key_is_named_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    let before = bytes_of(dir.path());
    let error = FileVault::open(RealFiles::shared(), dir.path(), &MasterKey::from_bytes([6; 32])).unwrap_err();
    assert!(matches!(error, VaultError::WrongKey { .. }), "{error}");
    assert_eq!(bytes_of(dir.path()), before);
    open(dir.path());
}

#[tokio::test]
async fn a_vault_of_mostly_garbage_is_compacted_when_opened() {
    let dir = tempfile::tempdir().unwrap();
    let vault = open(dir.path());
    for round in 0..3_u8 {
        vault.inner_put(Kind::KeySet, "k", vec![round; 200_000]);
    }
    let before = vault.health().bytes;
    vault.close().unwrap();
    let vault = open(dir.path());
    assert!(vault.health().bytes < before / 2, "{} of {before}", vault.health().bytes);
    assert_eq!(vault.get(Kind::KeySet, "k").unwrap(), Some(vec![2; 200_000]));
}

/// Writes, deletes and compacts until the power goes; what was acknowledged must be there afterwards, what was under way
/// may be.
#[test]
fn a_power_cut_at_any_point_of_a_compaction_loses_and_revives_nothing() {
    let dir = Path::new("/data/vault");
    for stop in 0..40 {
        let disk = SimFiles::new();
        let vault = FileVault::open(disk.shared(), dir, &key()).unwrap().vault;
        let mut expected = BTreeMap::new();
        for index in 0..12_u8 {
            let id = format!("id-{index}");
            vault.inner_put(Kind::Actor, &id, vec![index; 600]);
            expected.insert(id, vec![index; 600]);
        }
        for id in ["id-3", "id-7"] {
            vault.inner_delete(Kind::Actor, id);
            expected.remove(id);
        }
        disk.stop_after(stop);
        let compacted = vault.inner_compact();
        disk.power_cut(stop);
        drop(vault);
        let vault = FileVault::open(disk.shared(), dir, &key()).unwrap().vault;
        let held: BTreeMap<_, _> = vault
            .list(Kind::Actor)
            .into_iter()
            .map(|id| (id.clone(), vault.get(Kind::Actor, &id).unwrap().unwrap()))
            .collect();
        assert_eq!(held, expected, "stopped after {stop}, {compacted:?}");
    }
}

#[test]
fn a_full_disk_refuses_a_value_and_takes_it_when_there_is_space() {
    let dir = Path::new("/data/vault");
    let disk = SimFiles::new();
    let vault = FileVault::open(disk.shared(), dir, &key()).unwrap().vault;
    vault.inner_put(Kind::Actor, "kept", b"kept".to_vec());
    disk.set_capacity(Some(4_000));
    let large = entry(Kind::Actor, "large", &[1; 8_000]);
    let refused = vault.try_put(large.clone()).unwrap_err();
    assert!(matches!(refused, VaultError::Append(AppendError::DiskFull)), "{refused}");
    assert_eq!(vault.get(Kind::Actor, "large").unwrap(), None);
    assert_eq!(vault.get(Kind::Actor, "kept").unwrap().as_deref(), Some(b"kept".as_slice()));
    disk.set_capacity(None);
    vault.try_put(large).unwrap();
    assert_eq!(vault.get(Kind::Actor, "large").unwrap(), Some(vec![1; 8_000]));
}

impl FileVault {
    fn try_put(&self, entry: Entry) -> Result<(), VaultError> {
        self.inner.put_many(vec![entry])
    }

    fn inner_put(&self, kind: Kind, id: &str, value: Vec<u8>) {
        self.try_put(entry(kind, id, &value)).unwrap();
    }

    fn inner_delete(&self, kind: Kind, id: &str) {
        assert!(self.inner.delete(kind, id).unwrap());
    }

    fn inner_compact(&self) -> Result<Compacted, VaultError> {
        self.inner.compact()
    }
}
