//! Key sets: targeting keys kept outside the journal, so that a person can be forgotten.
//!
//! The journal and the folded state hold a [`KeySetRef`]: an id, a keyed hash and a length. The keys, and the random key of
//! the hash, are one record of the vault. Erasing it leaves a reference that tells nothing, and a chain that verifies.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::{self, BoxFuture};
use guidon_sdk::model::KeySetRef;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::Instruction;
use super::mint::{Mint, hex};
use crate::flags::{visit_clauses, visit_config, visit_flag};
use crate::journal::Entry;
use crate::log;
use crate::segments::visit_segment;
use crate::state::KeySetSource;
use crate::vault::{self, Vault, VaultError};

/// Where key sets are kept.
pub trait KeySetStore: Send + Sync + 'static {
    /// Stores all of them; done once they are durable, with one sync.
    fn put(&self, sets: Vec<NewKeySet>) -> BoxFuture<'_, Result<(), KeySetError>>;

    /// The keys of a set; `None` if it is erased or missing.
    fn get(&self, set: &KeySetRef) -> BoxFuture<'_, Result<Option<Arc<[String]>>, KeySetError>>;
}

/// Why key sets could not be stored or read.
#[derive(Clone, Debug, thiserror::Error)]
pub enum KeySetError {
    /// The volume is full.
    #[error("the volume that holds the vault is full")]
    DiskFull,
    /// The sets of one change are larger than the vault stores at once.
    #[error("the targeting keys take {bytes} bytes; at most {limit} fit")]
    TooLarge {
        /// Their size.
        bytes: usize,
        /// The largest size.
        limit: usize,
    },
    /// What is stored is not what was referred to.
    #[error("key set {id} is damaged: {reason}")]
    Damaged {
        /// Identifier of the key set.
        id: String,
        /// What is wrong.
        reason: String,
    },
    /// The vault did not answer.
    #[error("the vault failed: {0}")]
    Vault(String),
}

/// A key set to be stored.
#[derive(Clone, Debug)]
pub struct NewKeySet {
    /// What stands for it.
    pub set: KeySetRef,
    /// The keys.
    pub keys: Arc<[String]>,
    hash_key: [u8; 32],
}

/// The vault's record of a key set.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    hash_key: [u8; 32],
    keys: Vec<String>,
}

impl NewKeySet {
    /// The bytes to be stored.
    #[must_use]
    pub fn record(&self) -> Vec<u8> {
        let record = Record { hash_key: self.hash_key, keys: self.keys.to_vec() };
        serde_json::to_vec(&record).unwrap_or_default()
    }
}

/// Reads a stored record back and checks that it is the one `set` stands for.
///
/// # Errors
///
/// [`KeySetError::Damaged`] if it is not.
pub fn read_record(set: &KeySetRef, bytes: &[u8]) -> Result<Arc<[String]>, KeySetError> {
    let damaged = |reason: String| KeySetError::Damaged { id: set.id.clone(), reason };
    let record: Record = serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))?;
    if keyed_hash(&record.hash_key, &record.keys) != set.hash {
        return Err(damaged("its content does not have the hash the journal holds".to_owned()));
    }
    Ok(record.keys.into())
}

/// BLAKE3, keyed, of each key's length (32 bits, little-endian) and bytes, in hexadecimal.
fn keyed_hash(hash_key: &[u8; 32], keys: &[String]) -> String {
    let mut hasher = blake3::Hasher::new_keyed(hash_key);
    for key in keys {
        hasher.update(&u32::try_from(key.len()).unwrap_or(u32::MAX).to_le_bytes());
        hasher.update(key.as_bytes());
    }
    hasher.finalize().to_hex().to_string()
}

/// Key sets made by a change that is being prepared.
#[derive(Debug, Default)]
pub(crate) struct NewKeySets {
    made: Vec<NewKeySet>,
    by_id: HashMap<String, usize>,
}

impl NewKeySets {
    /// Makes a set of these keys.
    pub(crate) fn make(&mut self, keys: Vec<String>, mint: &mut dyn Mint) -> KeySetRef {
        let id = hex(&mint.random()[..16]);
        let hash_key = mint.random();
        let hash = keyed_hash(&hash_key, &keys);
        let set = KeySetRef { id: id.clone(), hash, len: u32::try_from(keys.len()).unwrap_or(u32::MAX) };
        self.by_id.insert(id, self.made.len());
        self.made.push(NewKeySet { set: set.clone(), keys: keys.into(), hash_key });
        set
    }

    pub(crate) fn into_made(self) -> Vec<NewKeySet> {
        self.made
    }
}

impl KeySetSource for NewKeySets {
    fn keys(&self, set: &KeySetRef) -> Option<Arc<[String]>> {
        self.by_id.get(&set.id).and_then(|index| self.made.get(*index)).map(|made| Arc::clone(&made.keys))
    }
}

/// One source, then another.
pub(crate) struct Either<'a>(pub(crate) &'a dyn KeySetSource, pub(crate) &'a dyn KeySetSource);

impl KeySetSource for Either<'_> {
    fn keys(&self, set: &KeySetRef) -> Option<Arc<[String]>> {
        self.0.keys(set).or_else(|| self.1.keys(set))
    }
}

/// Shows every key set that an entry refers to.
pub fn visit_entry(entry: &Entry, see: &mut dyn FnMut(&KeySetRef)) {
    entry.instructions.iter().for_each(|instruction| visit_instruction(instruction, see));
}

fn visit_instruction(instruction: &Instruction, see: &mut dyn FnMut(&KeySetRef)) {
    match instruction {
        Instruction::CreateFlag { flag } => visit_flag(flag, see),
        Instruction::AddTargets { targets, .. } | Instruction::RemoveTargets { targets, .. } => {
            targets.iter().flatten().filter_map(|target| target.key_set.as_ref()).for_each(see);
        }
        Instruction::AddRule { rule, .. } | Instruction::ReplaceRule { rule, .. } => visit_clauses(&rule.clauses, see),
        Instruction::RevertFlag { state: Some(state), .. } => visit_config(state, see),
        Instruction::CreateSegment { segment, included, excluded } => {
            segment.rules.iter().for_each(|rule| visit_clauses(&rule.clauses, see));
            included.iter().chain(excluded).for_each(see);
        }
        Instruction::AddSegmentRule { rule, .. } | Instruction::ReplaceSegmentRule { rule, .. } => {
            visit_clauses(&rule.clauses, see);
        }
        Instruction::AddSegmentKeys { key_set, merged, .. }
        | Instruction::RemoveSegmentKeys { key_set, merged, .. } => {
            key_set.iter().chain(merged).for_each(see);
        }
        Instruction::RevertSegment { state: Some(state), .. } => visit_segment(state, see),
        _ => {}
    }
}

/// Key sets in a vault.
#[derive(Clone)]
pub struct VaultKeySets {
    vault: Arc<dyn Vault>,
}

impl VaultKeySets {
    /// Keeps key sets in `vault`.
    #[must_use]
    pub fn new(vault: Arc<dyn Vault>) -> Self {
        Self { vault }
    }
}

impl KeySetStore for VaultKeySets {
    fn put(&self, sets: Vec<NewKeySet>) -> BoxFuture<'_, Result<(), KeySetError>> {
        let entries =
            sets.into_iter().map(|new| vault::Entry { kind: vault::Kind::KeySet, value: new.record(), id: new.set.id });
        let entries = entries.collect();
        async move { self.vault.put_many(entries).await.map_err(KeySetError::from) }.boxed()
    }

    fn get(&self, set: &KeySetRef) -> BoxFuture<'_, Result<Option<Arc<[String]>>, KeySetError>> {
        let (vault, set) = (Arc::clone(&self.vault), set.clone());
        // Reading a large set reads the disk and deciphers.
        let reading = tokio::task::spawn_blocking(move || read_from(&*vault, &set));
        async move { reading.await.map_err(|error| KeySetError::Vault(error.to_string()))? }.boxed()
    }
}

/// Blocks the thread while it reads: for starting up. A set that cannot be read counts as missing, and is said in the log.
impl KeySetSource for VaultKeySets {
    fn keys(&self, set: &KeySetRef) -> Option<Arc<[String]>> {
        read_from(&*self.vault, set).unwrap_or_else(|error| {
            tracing::error!(id = set.id, %error, "a key set could not be read and counts as empty");
            None
        })
    }
}

fn read_from(vault: &dyn Vault, set: &KeySetRef) -> Result<Option<Arc<[String]>>, KeySetError> {
    vault.get(vault::Kind::KeySet, &set.id)?.map(|bytes| read_record(set, &bytes)).transpose()
}

impl From<VaultError> for KeySetError {
    fn from(error: VaultError) -> Self {
        match error {
            VaultError::Append(log::AppendError::DiskFull) => Self::DiskFull,
            VaultError::TooLarge { bytes } => Self::TooLarge { bytes, limit: vault::MAX_VALUE_BYTES },
            other => Self::Vault(other.to_string()),
        }
    }
}

/// Key sets in memory: for tests and simulations. Keeps everything until it is erased.
#[derive(Clone, Debug, Default)]
pub struct MemoryKeySets {
    records: Arc<Mutex<HashMap<String, Vec<u8>>>>,
}

impl MemoryKeySets {
    /// Erases a set, as when a person is forgotten.
    pub fn erase(&self, id: &str) {
        self.records.lock().remove(id);
    }
}

impl KeySetStore for MemoryKeySets {
    fn put(&self, sets: Vec<NewKeySet>) -> BoxFuture<'_, Result<(), KeySetError>> {
        let mut records = self.records.lock();
        records.extend(sets.into_iter().map(|new| (new.set.id.clone(), new.record())));
        future::ready(Ok(())).boxed()
    }

    fn get(&self, set: &KeySetRef) -> BoxFuture<'_, Result<Option<Arc<[String]>>, KeySetError>> {
        let found = self.records.lock().get(&set.id).map(|bytes| read_record(set, bytes)).transpose();
        future::ready(found).boxed()
    }
}

impl KeySetSource for MemoryKeySets {
    fn keys(&self, set: &KeySetRef) -> Option<Arc<[String]>> {
        self.records.lock().get(&set.id).and_then(|bytes| read_record(set, bytes).ok())
    }
}
