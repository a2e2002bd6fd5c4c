//! Key sets: targeting keys kept outside the journal, so that a person can be forgotten.
//!
//! The journal and the folded state hold a [`KeySetRef`]: an id, a keyed hash and a length. The keys, and the random key of
//! the hash, are one record of the vault. Erasing it leaves a reference that tells nothing, and a chain that verifies.
//!
//! One key is erased by writing the record anew without it. The record then says which places of the list are empty and which
//! hash the journal has for the whole list, and has a new random key, which hashes what is left: with the old one, an erased
//! key could be guessed and the guess checked against the journal.

use std::collections::{HashMap, HashSet};
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
use crate::segments::visit_segment;
use crate::state::KeySetSource;

/// Where key sets are kept.
pub trait KeySetStore: Send + Sync + 'static {
    /// Stores all of them; done once they are durable, with one sync.
    fn put(&self, sets: Vec<NewKeySet>) -> BoxFuture<'_, Result<(), KeySetError>>;

    /// The keys of a set; `None` if it is erased or missing.
    fn get(&self, set: &KeySetRef) -> BoxFuture<'_, Result<Option<Arc<[String]>>, KeySetError>>;

    /// Those of `sets` that hold `key`.
    fn holding(&self, sets: Vec<KeySetRef>, key: String) -> BoxFuture<'_, Result<Vec<KeySetRef>, KeySetError>>;

    /// Takes `key` out of `sets`, and deletes the stored sets that hold it and are not `referenced`, by id: those that were
    /// stored for a change that was not made then. Nothing may be stored meanwhile.
    fn erase(
        &self,
        sets: Vec<KeySetRef>,
        key: String,
        referenced: HashSet<String>,
    ) -> BoxFuture<'_, Result<ErasedSets, KeySetError>>;

    /// Removes what was erased from the disk too.
    fn purge(&self) -> BoxFuture<'_, Result<(), KeySetError>>;
}

/// What an erasure did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ErasedSets {
    /// Sets that the key was taken out of.
    pub rewritten: usize,
    /// Sets that nothing referred to, deleted.
    pub deleted: usize,
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
    /// What is missing, once something is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    redacted: Option<Redacted>,
}

/// Keys that were erased from a set.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Redacted {
    /// Places in the whole list, counted from 0, in order, whose keys are erased.
    positions: Vec<u32>,
    /// The hash that the journal has for the whole list. What it was keyed with is erased too.
    of: String,
    /// Hash of what is left, and of the fields above, under the record's present key.
    left: String,
}

impl NewKeySet {
    /// The bytes to be stored.
    #[must_use]
    pub fn record(&self) -> Vec<u8> {
        let record = Record { hash_key: self.hash_key, keys: self.keys.to_vec(), redacted: None };
        serde_json::to_vec(&record).unwrap_or_default()
    }
}

/// Reads a stored record back and checks that it is the one `set` stands for. Keys that were erased are missing.
///
/// # Errors
///
/// [`KeySetError::Damaged`] if it is not.
pub fn read_record(set: &KeySetRef, bytes: &[u8]) -> Result<Arc<[String]>, KeySetError> {
    checked(set, bytes).map(|record| record.keys.into())
}

fn checked(set: &KeySetRef, bytes: &[u8]) -> Result<Record, KeySetError> {
    let damaged = |reason: String| KeySetError::Damaged { id: set.id.clone(), reason };
    let record: Record = serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))?;
    let is_right = match &record.redacted {
        None => keyed_hash(&record.hash_key, &record.keys) == set.hash,
        Some(redacted) => redacted.of == set.hash && record.hash_of_rest(redacted) == redacted.left,
    };
    if is_right { Ok(record) } else { Err(damaged("its content does not have the hash the journal holds".to_owned())) }
}

/// The stored record of `set` without `key`; `None` if it does not hold it.
///
/// # Errors
///
/// [`KeySetError::Damaged`] if it is not the record that `set` stands for.
pub fn record_without(
    set: &KeySetRef,
    bytes: &[u8],
    key: &str,
    hash_key: [u8; 32],
) -> Result<Option<Vec<u8>>, KeySetError> {
    let mut record = checked(set, bytes)?;
    if !record.keys.iter().any(|held| held == key) {
        return Ok(None);
    }
    let before = record.redacted.take().unwrap_or_default();
    let mut empty = before.positions.into_iter().peekable();
    let (mut place, mut kept, mut positions) = (0, Vec::with_capacity(record.keys.len()), Vec::new());
    for held in std::mem::take(&mut record.keys) {
        while let Some(position) = empty.next_if_eq(&place) {
            positions.push(position);
            place += 1;
        }
        if held == key {
            positions.push(place);
        } else {
            kept.push(held);
        }
        place += 1;
    }
    positions.extend(empty);
    let mut redacted = Redacted { positions, of: set.hash.clone(), left: String::new() };
    record.keys = kept;
    record.hash_key = hash_key;
    redacted.left = record.hash_of_rest(&redacted);
    record.redacted = Some(redacted);
    let bytes = serde_json::to_vec(&record).map_err(|error| KeySetError::Vault(error.to_string()))?;
    Ok(Some(bytes))
}

/// Whether a stored record, whichever set it is of, holds `key`.
#[must_use]
pub fn record_holds(bytes: &[u8], key: &str) -> bool {
    serde_json::from_slice::<Record>(bytes).is_ok_and(|record| record.keys.iter().any(|held| held == key))
}

impl Record {
    /// Of what an erasure left: [`keyed_hash`] of the keys, the empty places in decimal and the whole list's hash.
    fn hash_of_rest(&self, redacted: &Redacted) -> String {
        let places: Vec<String> = redacted.positions.iter().map(ToString::to_string).collect();
        let mut parts = self.keys.clone();
        parts.extend([places.join(","), redacted.of.clone()]);
        keyed_hash(&self.hash_key, &parts)
    }
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
    match instruction.edit() {
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

    fn holding(&self, sets: Vec<KeySetRef>, key: String) -> BoxFuture<'_, Result<Vec<KeySetRef>, KeySetError>> {
        let records = self.records.lock();
        let holds = |set: &KeySetRef| records.get(&set.id).is_some_and(|bytes| record_holds(bytes, &key));
        future::ready(Ok(sets.into_iter().filter(holds).collect())).boxed()
    }

    fn erase(
        &self,
        sets: Vec<KeySetRef>,
        key: String,
        referenced: HashSet<String>,
    ) -> BoxFuture<'_, Result<ErasedSets, KeySetError>> {
        let mut records = self.records.lock();
        let mut erased = ErasedSets::default();
        for set in sets {
            let Some(bytes) = records.get(&set.id) else { continue };
            match record_without(&set, bytes, &key, rand::random()) {
                Ok(Some(without)) => {
                    records.insert(set.id, without);
                    erased.rewritten += 1;
                }
                Ok(None) => {}
                Err(error) => return future::ready(Err(error)).boxed(),
            }
        }
        let stored = records.len();
        records.retain(|id, bytes| referenced.contains(id) || !record_holds(bytes, &key));
        erased.deleted = stored - records.len();
        future::ready(Ok(erased)).boxed()
    }

    fn purge(&self) -> BoxFuture<'_, Result<(), KeySetError>> {
        future::ready(Ok(())).boxed()
    }
}

impl KeySetSource for MemoryKeySets {
    fn keys(&self, set: &KeySetRef) -> Option<Arc<[String]>> {
        self.records.lock().get(&set.id).and_then(|bytes| read_record(set, bytes).ok())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stored(keys: &[String]) -> (KeySetRef, Vec<u8>) {
        let mut sets = NewKeySets::default();
        let set = sets.make(keys.to_vec(), &mut super::super::RandomMint);
        (set, sets.into_made().remove(0).record())
    }

    fn list(keys: &[&str]) -> Vec<String> {
        keys.iter().map(|key| (*key).to_owned()).collect()
    }

    #[test]
    fn what_is_left_of_a_set_is_as_guarded_as_the_whole() {
        let (set, whole) = stored(&list(&["ada", "ben", "cleo"]));
        let rest = record_without(&set, &whole, "ben", [7; 32]).unwrap().unwrap();
        assert_eq!(*read_record(&set, &rest).unwrap(), list(&["ada", "cleo"]));
        let text = String::from_utf8(rest.clone()).unwrap();
        assert!(!text.contains("ben") && text.contains(&set.hash), "{text}");
        // The key of the first hash is gone: a guess cannot be checked against the journal.
        let first: Record = serde_json::from_slice(&whole).unwrap();
        let left: Record = serde_json::from_slice(&rest).unwrap();
        assert_ne!(first.hash_key, left.hash_key);
        for (from, to) in [("ada", "eve"), ("[1]", "[2]"), ("\"cleo\"", "\"cleo\",\"dora\"")] {
            assert!(text.contains(from));
            let damaged = text.replace(from, to);
            assert!(matches!(read_record(&set, damaged.as_bytes()), Err(KeySetError::Damaged { .. })), "{from}");
        }
        let (other, _) = stored(&list(&["ada", "cleo"]));
        assert!(read_record(&other, &rest).is_err(), "it stands for another set");
    }

    proptest! {
        #[test]
        fn erasing_in_any_order_leaves_the_others_in_theirs(keys in prop::collection::vec("[a-d]", 0..12), erased in prop::collection::vec("[a-e]", 0..5)) {
            let (set, mut bytes) = stored(&keys);
            for (index, key) in (0_u8..).zip(&erased) {
                if let Some(rest) = record_without(&set, &bytes, key, [index; 32]).unwrap() {
                    bytes = rest;
                }
            }
            let left: Vec<String> = keys.iter().filter(|key| !erased.contains(key)).cloned().collect();
            prop_assert_eq!(&*read_record(&set, &bytes).unwrap(), &*left);
            let gone: Vec<u32> = (0..).zip(&keys).filter(|(_, key)| erased.contains(key)).map(|(place, _)| place).collect();
            let record: Record = serde_json::from_slice(&bytes).unwrap();
            prop_assert_eq!(record.redacted.map(|redacted| redacted.positions).unwrap_or_default(), gone);
        }
    }
}
