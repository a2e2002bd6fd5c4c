//! Definitions by key, at positions that never change, cheap to copy and to change one of.

use std::sync::Arc;

use hashbrown::HashTable;

use super::keys::hash_key;

/// Items per chunk: what a change of one item copies.
const CHUNK: usize = 64;

/// Something stored under its own key.
pub(super) trait Keyed {
    fn key(&self) -> &str;
}

/// [`CHUNK`] places, of which the last chunk's may be free.
type Chunk<T> = Arc<[Option<Arc<T>>]>;

/// Items by key and by position. A clone copies the list of chunks; changing an item copies its chunk.
#[derive(Debug)]
pub(super) struct Table<T> {
    index: Arc<HashTable<Entry>>,
    chunks: Vec<Chunk<T>>,
    len: usize,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// Middle bits of the key's hash: the table uses the others.
    tag: u32,
    position: u32,
}

impl<T> Clone for Table<T> {
    fn clone(&self) -> Self {
        Self { index: Arc::clone(&self.index), chunks: self.chunks.clone(), len: self.len }
    }
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { index: Arc::default(), chunks: Vec::new(), len: 0 }
    }
}

#[inline]
fn tag_of(hash: u64) -> u32 {
    (hash >> 20) as u32
}

#[inline]
fn at<T>(chunks: &[Chunk<T>], position: u32) -> Option<&Arc<T>> {
    let position = position as usize;
    chunks.get(position / CHUNK)?.get(position % CHUNK)?.as_ref()
}

impl<T: Keyed> Table<T> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub(super) fn at(&self, position: u32) -> Option<&Arc<T>> {
        at(&self.chunks, position)
    }

    #[inline]
    pub(super) fn find(&self, key: &str) -> Option<(u32, &T)> {
        let hash = hash_key(key);
        let tag = tag_of(hash);
        // The comparison has the item in hand already: hand it out instead of finding it a second time.
        let mut found = None;
        self.index.find(hash, |entry| {
            entry.tag == tag
                && at(&self.chunks, entry.position).is_some_and(|item| {
                    let same = item.key() == key;
                    if same {
                        found = Some((entry.position, &**item));
                    }
                    same
                })
        })?;
        found
    }

    /// Position of `key`, taken by `make()` if it had none.
    pub(super) fn reserve(&mut self, key: &str, make: impl FnOnce() -> T) -> u32 {
        if let Some((position, _)) = self.find(key) {
            return position;
        }
        self.push(make())
    }

    /// Puts an item under its key, in place of what is there.
    pub(super) fn put(&mut self, item: T) -> u32 {
        match self.find(item.key()) {
            Some((position, _)) => {
                self.set(position, item);
                position
            }
            None => self.push(item),
        }
    }

    fn push(&mut self, item: T) -> u32 {
        let position = u32::try_from(self.len).unwrap_or(u32::MAX);
        let hash = hash_key(item.key());
        if self.len.is_multiple_of(CHUNK) {
            self.chunks.push((0..CHUNK).map(|_| None).collect());
        }
        self.len += 1;
        self.set(position, item);
        let chunks = &self.chunks;
        let rehash = |entry: &Entry| at(chunks, entry.position).map_or(0, |item| hash_key(item.key()));
        Arc::make_mut(&mut self.index).insert_unique(hash, Entry { tag: tag_of(hash), position }, rehash);
        position
    }

    pub(super) fn set(&mut self, position: u32, item: T) {
        let index = position as usize;
        if let Some(chunk) = self.chunks.get_mut(index / CHUNK)
            && let Some(place) = Arc::make_mut(chunk).get_mut(index % CHUNK)
        {
            *place = Some(Arc::new(item));
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.chunks.iter().flat_map(|chunk| chunk.iter()).flatten().map(|item| &**item)
    }
}
