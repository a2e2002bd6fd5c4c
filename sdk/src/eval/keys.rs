//! Large sets of context keys that are cheap to copy and change.

use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashTable;

/// Keys per shard that a set aims for: what a change of one key copies.
const KEYS_PER_SHARD: usize = 64;

/// Most shards of one set; beyond `KEYS_PER_SHARD * MAX_SHARDS` keys the shards grow.
const MAX_SHARDS: usize = 4096;

/// A set of strings in shards, each shared until it changes.
///
/// A clone copies one pointer. Adding or removing a key copies the shard it falls into (about 64 keys) and the list of
/// shards; the rest stays shared with older copies. Made for segments of 100,000 targeting keys.
#[derive(Clone, Debug, Default)]
pub struct KeySet {
    /// A power of two of shards, or none.
    shards: Arc<Vec<Arc<HashTable<Box<str>>>>>,
    len: usize,
}

/// Hash of a key: of its bytes alone, so that it is the same for `str` and `Box<str>`, today and in the next shard.
#[inline]
pub(super) fn hash_key(key: &str) -> u64 {
    FixedState::default().hash_one(key)
}

#[inline]
fn shard_of(hash: u64, shards: usize) -> usize {
    // Bits 32 and up: the table inside uses the lowest and the highest.
    (hash >> 32) as usize & shards.wrapping_sub(1)
}

impl KeySet {
    /// An empty set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of keys.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no keys.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether `key` is in the set.
    #[must_use]
    #[inline]
    pub fn contains(&self, key: &str) -> bool {
        if self.len == 0 {
            return false;
        }
        let hash = hash_key(key);
        self.shards
            .get(shard_of(hash, self.shards.len()))
            .is_some_and(|shard| shard.find(hash, |known| **known == *key).is_some())
    }

    /// Adds a key; whether it was not there before.
    pub fn insert(&mut self, key: &str) -> bool {
        if self.contains(key) {
            return false;
        }
        self.make_room(1);
        self.insert_new(key.into())
    }

    /// Removes a key; whether it was there.
    pub fn remove(&mut self, key: &str) -> bool {
        if !self.contains(key) {
            return false;
        }
        let hash = hash_key(key);
        let index = shard_of(hash, self.shards.len());
        let Some(shard) = Arc::make_mut(&mut self.shards).get_mut(index) else { return false };
        if let Ok(found) = Arc::make_mut(shard).find_entry(hash, |known| **known == *key) {
            found.remove();
            self.len -= 1;
        }
        true
    }

    /// All keys, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.shards.iter().flat_map(|shard| shard.iter()).map(|key| &**key)
    }

    /// What differs between this set and a later form of it. Shards that the two share are not looked into: for a copy with
    /// a few keys changed that leaves a shard (about 64 keys) for each.
    #[must_use]
    pub fn difference(&self, later: &Self) -> KeyDifference {
        let mut difference = KeyDifference::default();
        if Arc::ptr_eq(&self.shards, &later.shards) {
            return difference;
        }
        if self.shards.len() == later.shards.len() {
            for (before, after) in self.shards.iter().zip(later.shards.iter()) {
                if !Arc::ptr_eq(before, after) {
                    difference.look_into(before.iter().map(|key| &**key), after.iter().map(|key| &**key), self, later);
                }
            }
        } else {
            difference.look_into(self.iter(), later.iter(), self, later);
        }
        difference
    }

    fn insert_new(&mut self, key: Box<str>) -> bool {
        let hash = hash_key(&key);
        let index = shard_of(hash, self.shards.len());
        let Some(shard) = Arc::make_mut(&mut self.shards).get_mut(index) else { return false };
        let shard = Arc::make_mut(shard);
        if shard.find(hash, |known| *known == key).is_some() {
            return false;
        }
        shard.insert_unique(hash, key, |key| hash_key(key));
        self.len += 1;
        true
    }

    /// Splits the shards anew if `more` keys would make them twice too large.
    fn make_room(&mut self, more: usize) {
        let have = self.shards.len();
        if have >= MAX_SHARDS || (have > 0 && self.len + more <= have * KEYS_PER_SHARD * 2) {
            return;
        }
        let wanted = (self.len + more).div_ceil(KEYS_PER_SHARD).next_power_of_two().min(MAX_SHARDS);
        let mut shards: Vec<HashTable<Box<str>>> = vec![HashTable::new(); wanted];
        for key in self.iter() {
            let hash = hash_key(key);
            if let Some(shard) = shards.get_mut(shard_of(hash, wanted)) {
                shard.insert_unique(hash, key.into(), |key| hash_key(key));
            }
        }
        self.shards = Arc::new(shards.into_iter().map(Arc::new).collect());
    }
}

/// What differs between two forms of a set, and what it took to find out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyDifference {
    /// Keys that only the later form has.
    pub added: Vec<String>,
    /// Keys that only the earlier form has.
    pub removed: Vec<String>,
    /// Keys that were looked at, in both forms together.
    pub compared: usize,
}

impl KeyDifference {
    fn look_into<'a>(
        &mut self,
        before: impl Iterator<Item = &'a str>,
        after: impl Iterator<Item = &'a str>,
        earlier: &KeySet,
        later: &KeySet,
    ) {
        let mut compared = 0;
        self.removed.extend(before.inspect(|_| compared += 1).filter(|key| !later.contains(key)).map(str::to_owned));
        self.added.extend(after.inspect(|_| compared += 1).filter(|key| !earlier.contains(key)).map(str::to_owned));
        self.compared += compared;
    }
}

impl<K: Into<Box<str>>> FromIterator<K> for KeySet {
    fn from_iter<I: IntoIterator<Item = K>>(keys: I) -> Self {
        let mut set = Self::new();
        set.extend(keys);
        set
    }
}

impl<K: Into<Box<str>>> Extend<K> for KeySet {
    fn extend<I: IntoIterator<Item = K>>(&mut self, keys: I) {
        let keys = keys.into_iter();
        self.make_room(keys.size_hint().0.max(1));
        for key in keys {
            self.make_room(1);
            self.insert_new(key.into());
        }
    }
}

impl PartialEq for KeySet {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len
            && (Arc::ptr_eq(&self.shards, &other.shards) || self.iter().all(|key| other.contains(key)))
    }
}

impl Eq for KeySet {}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn behaves_like_a_set(edits in proptest::collection::vec((any::<bool>(), 0_u16..400), 0..1200)) {
            let mut set = KeySet::new();
            let mut model = BTreeSet::new();
            for (add, key) in edits {
                let key = format!("user-{key}");
                let before = set.clone();
                if add {
                    prop_assert_eq!(set.insert(&key), model.insert(key.clone()));
                } else {
                    prop_assert_eq!(set.remove(&key), model.remove(&key));
                }
                prop_assert_eq!(set.contains(&key), add);
                prop_assert!(before.len().abs_diff(set.len()) <= 1, "a copy keeps its keys");
                let changed = usize::from(before.len() != set.len());
                let difference = before.difference(&set);
                prop_assert_eq!(difference.added, if add { vec![key.clone(); changed] } else { Vec::new() });
                prop_assert_eq!(difference.removed, if add { Vec::new() } else { vec![key; changed] });
            }
            prop_assert_eq!(set.len(), model.len());
            prop_assert_eq!(set.iter().map(str::to_owned).collect::<BTreeSet<_>>(), model);
        }
    }

    #[test]
    fn changing_one_key_of_many_copies_one_shard() {
        let keys: KeySet = (0..100_000).map(|number| format!("user-{number}")).collect();
        assert_eq!(keys.len(), 100_000);
        let mut changed = keys.clone();
        assert!(changed.insert("someone-else"));
        let shared = keys.shards.iter().zip(changed.shards.iter()).filter(|(a, b)| Arc::ptr_eq(a, b)).count();
        assert_eq!(shared, keys.shards.len() - 1);
        let difference = keys.difference(&changed);
        assert_eq!((&*difference.added, &*difference.removed), (&["someone-else".to_owned()][..], &[][..]));
        assert!(difference.compared <= 8 * KEYS_PER_SHARD, "{} keys compared", difference.compared);
        assert_eq!(keys.difference(&keys.clone()).compared, 0);
        assert!(!keys.contains("someone-else") && changed.contains("someone-else"));
        let largest = changed.shards.iter().map(|shard| shard.len()).max().unwrap();
        assert!(largest <= 4 * KEYS_PER_SHARD, "a shard of {largest} keys");
    }
}
