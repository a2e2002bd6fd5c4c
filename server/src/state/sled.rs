//! Records in sled: the only file that knows it.
//!
//! Nothing depends on what is here: it is a copy, for a quick start, of what the journal says, and whatever looks wrong
//! about it is a reason to make it anew in a fresh folder. sled 0.34 was measured before it was let in, and the recipe
//! follows from that: small values (large ones are cut into chunks), 8 MiB segments, a flush followed by an `fdatasync` of
//! its file (a flush alone lost writes in every simulated power cut), and opening on a thread of its own, with a time
//! limit, under `catch_unwind`, because opening a damaged store can hang or panic. Every chunk carries a checksum, and the
//! mark, written in the same batch, carries a digest of all chunks: a lost, stale or changed one is noticed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::journal::{ChainHash, ENTRY_FORMAT, Head};

/// Version of the records and of the mark. A store of another version is made anew.
pub(super) const STORE_FORMAT: u32 = 4;

/// Largest value handed to sled, in bytes. Larger ones would go to files of their own, which sled does not sync.
const CHUNK_BYTES: usize = 48 << 10;
const SEGMENT_BYTES: usize = 8 << 20;
/// What sled may keep in memory, in bytes. The records are read once, at the start.
const CACHE_BYTES: u64 = 16 << 20;
const CHECKSUM_BYTES: usize = 16;

const MARK_KEY: &[u8] = b"mark";
const RECORD_PREFIX: u8 = b'r';
const FILE_NAME: &str = "db";

/// What the records reflect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Mark {
    /// Version of the records.
    pub(super) format: u32,
    /// Version of the latest entries that were known when it was written. A copy spares reading the entries that it reflects: an
    /// older version that took one of a later version would not see that there are entries which it cannot read.
    #[serde(default)]
    pub(super) entry_format: u32,
    /// History id of the journal.
    pub(super) history: String,
    /// Last entry folded in.
    pub(super) revision: u64,
    /// The chain up to it, in hexadecimal.
    pub(super) hash: String,
    /// Time of the state, in milliseconds since 1970.
    pub(super) at: u64,
}

impl Mark {
    /// Where the journal ended.
    pub(super) fn head(&self) -> Result<Head, String> {
        let hash: ChainHash = self.hash.parse()?;
        Ok(Head { revision: self.revision, hash })
    }
}

#[derive(Serialize, Deserialize)]
struct StoredMark {
    #[serde(flatten)]
    mark: Mark,
    /// Sum of the digests of all chunks, in hexadecimal.
    digest: String,
}

/// Everything that was stored.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) mark: Mark,
    pub(super) records: BTreeMap<String, Vec<u8>>,
}

/// A record to be written, or, without a value, to be removed.
pub(super) type Write = (String, Option<Vec<u8>>);

/// An open store.
pub(super) struct SledStore {
    db: sled::Db,
    file: File,
    dir: PathBuf,
    chunks: Chunks,
}

/// The chunks that are stored, so that the digest of all can follow each change.
#[derive(Default)]
struct Chunks {
    /// Digest and length of each record's chunks, in order.
    by_record: BTreeMap<String, Vec<(Digest, usize)>>,
    all: Digest,
    /// Length of all of them.
    bytes: u64,
}

/// BLAKE3 of a chunk's key and content; digests are added up, so that order does not matter and one can be taken out again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Digest([u64; 4]);

impl Digest {
    fn of(key: &[u8], content: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&(key.len() as u64).to_le_bytes()).update(key).update(content);
        let mut words = [0; 4];
        for (word, bytes) in words.iter_mut().zip(hasher.finalize().as_bytes().as_chunks().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        Self(words)
    }

    fn add(&mut self, other: Self) {
        self.0.iter_mut().zip(other.0).for_each(|(word, other)| *word = word.wrapping_add(other));
    }

    fn subtract(&mut self, other: Self) {
        self.0.iter_mut().zip(other.0).for_each(|(word, other)| *word = word.wrapping_sub(other));
    }

    fn checksum(self) -> [u8; CHECKSUM_BYTES] {
        (u128::from(self.0[0]) | u128::from(self.0[1]) << 64).to_le_bytes()
    }

    fn hex(self) -> String {
        self.0.iter().map(|word| format!("{word:016x}")).collect()
    }
}

fn chunk_key(record: &str, index: usize) -> Vec<u8> {
    let mut key = Vec::with_capacity(record.len() + 6);
    key.push(RECORD_PREFIX);
    key.extend_from_slice(record.as_bytes());
    key.push(0);
    key.extend_from_slice(&u32::try_from(index).unwrap_or(u32::MAX).to_be_bytes());
    key
}

fn seal(digest: Digest, content: &[u8]) -> Vec<u8> {
    [&digest.checksum()[..], content].concat()
}

/// The content of a sealed value and its digest, if the checksum is right.
fn unseal<'a>(key: &[u8], value: &'a [u8]) -> Result<(&'a [u8], Digest), String> {
    let (checksum, content) = value.split_at_checked(CHECKSUM_BYTES).ok_or("a value is shorter than its checksum")?;
    let digest = Digest::of(key, content);
    if digest.checksum() != checksum {
        return Err(format!("the checksum of {:?} is wrong", String::from_utf8_lossy(key)));
    }
    Ok((content, digest))
}

impl SledStore {
    /// Creates a store in a folder that does not exist yet.
    pub(super) fn create(dir: &Path, time_limit: Duration) -> Result<Self, String> {
        fs::create_dir_all(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        let (store, stored) = open_in_time(dir, time_limit)?;
        match stored {
            None => Ok(store),
            Some(_) => Err(format!("{}: a fresh folder holds records", dir.display())),
        }
    }

    /// Opens the store in `dir` and reads all of it; `Ok(None)` if it was never written to.
    pub(super) fn open(dir: &Path, time_limit: Duration) -> Result<Option<(Self, Stored)>, String> {
        let (store, stored) = open_in_time(dir, time_limit)?;
        Ok(stored.map(|stored| (store, stored)))
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether sled's file is longer than `max_bytes` and than four times what it holds.
    pub(super) fn is_longer_than(&self, max_bytes: u64) -> bool {
        let len = self.file.metadata().map_or(0, |metadata| metadata.len());
        len > max_bytes && len / 4 > self.chunks.bytes
    }

    /// Writes records and mark, durable when this returns. After an error the store must not be used again.
    pub(super) fn write(&mut self, mark: &Mark, writes: Vec<Write>) -> Result<(), String> {
        caught(|| {
            let mut batch = sled::Batch::default();
            for (record, value) in writes {
                self.chunks.write(&mut batch, &record, value.as_deref());
            }
            let stored = StoredMark { mark: mark.clone(), digest: self.chunks.all.hex() };
            let content = serde_json::to_vec(&stored).map_err(|error| error.to_string())?;
            batch.insert(MARK_KEY, seal(Digest::of(MARK_KEY, &content), &content));
            self.db.apply_batch(batch).map_err(|error| error.to_string())?;
            self.db.flush().map_err(|error| error.to_string())?;
            self.file.sync_data().map_err(|error| format!("fdatasync: {error}"))
        })
    }
}

impl Chunks {
    fn write(&mut self, batch: &mut sled::Batch, record: &str, value: Option<&[u8]>) {
        let old = self.by_record.remove(record).unwrap_or_default();
        for (digest, len) in &old {
            self.all.subtract(*digest);
            self.bytes -= *len as u64;
        }
        let mut new = Vec::new();
        if let Some(value) = value {
            // An empty value is one empty chunk, so that it is not lost.
            let contents = value.chunks(CHUNK_BYTES).chain(value.is_empty().then_some(&[][..]));
            for (index, content) in contents.enumerate() {
                let key = chunk_key(record, index);
                let digest = Digest::of(&key, content);
                batch.insert(key, seal(digest, content));
                new.push(self.count(digest, content));
            }
        }
        (new.len()..old.len()).for_each(|index| batch.remove(chunk_key(record, index)));
        if !new.is_empty() {
            self.by_record.insert(record.to_owned(), new);
        }
    }

    fn count(&mut self, digest: Digest, content: &[u8]) -> (Digest, usize) {
        self.all.add(digest);
        self.bytes += content.len() as u64;
        (digest, content.len())
    }

    fn read(&mut self, key: &[u8], value: &[u8], records: &mut BTreeMap<String, Vec<u8>>) -> Result<(), String> {
        let name = key.strip_prefix(&[RECORD_PREFIX]).and_then(|key| key.split_last_chunk::<4>());
        let (name, index) = name.ok_or("a key of no record")?;
        let name = name.strip_suffix(&[0]).and_then(|name| str::from_utf8(name).ok()).ok_or("a key of no record")?;
        let (content, digest) = unseal(key, value)?;
        let digests = self.by_record.entry(name.to_owned()).or_default();
        if u32::from_be_bytes(*index) as usize != digests.len() {
            return Err(format!("a part of {name:?} is missing"));
        }
        digests.push((digest, content.len()));
        self.count(digest, content);
        records.entry(name.to_owned()).or_default().extend_from_slice(content);
        Ok(())
    }
}

/// Runs what calls sled, which panics on some damage.
fn caught<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let message = panic.downcast_ref::<String>().map(String::as_str);
        let message = message.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
        Err(format!("sled panicked: {message}"))
    })
}

fn open_in_time(dir: &Path, time_limit: Duration) -> Result<(SledStore, Option<Stored>), String> {
    let (send, receive) = mpsc::sync_channel(1);
    let owned = dir.to_owned();
    let thread = std::thread::Builder::new().name("state-open".to_owned()).spawn(move || {
        // Nobody receives after the time limit; the store is closed again then.
        let _ = send.send(caught(|| open(&owned)));
    });
    thread.map_err(|error| format!("no thread to open it: {error}"))?;
    match receive.recv_timeout(time_limit) {
        Ok(opened) => opened,
        Err(mpsc::RecvTimeoutError::Timeout) => Err(format!("it did not open within {} ms", time_limit.as_millis())),
        Err(mpsc::RecvTimeoutError::Disconnected) => Err("the thread that opened it ended".to_owned()),
    }
}

fn open(dir: &Path) -> Result<(SledStore, Option<Stored>), String> {
    let config = sled::Config::new()
        .path(dir)
        .segment_size(SEGMENT_BYTES)
        .cache_capacity(CACHE_BYTES)
        // Flushed with each batch, so that nothing is written that its mark does not speak of.
        .flush_every_ms(None);
    let db = config.open().map_err(|error| error.to_string())?;
    let path = dir.join(FILE_NAME);
    let file = File::open(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut chunks = Chunks::default();
    let mut records = BTreeMap::new();
    let mut mark = None;
    for item in db.iter() {
        let (key, value) = item.map_err(|error| error.to_string())?;
        if &*key == MARK_KEY {
            let (content, _) = unseal(&key, &value)?;
            mark = Some(serde_json::from_slice::<StoredMark>(content).map_err(|error| format!("its mark: {error}"))?);
        } else {
            chunks.read(&key, &value, &mut records)?;
        }
    }
    let stored = match mark {
        None if records.is_empty() => None,
        None => return Err("records without a mark".to_owned()),
        Some(StoredMark { mark, .. }) if mark.format != STORE_FORMAT => {
            return Err(format!("it has format {}, this version writes {STORE_FORMAT}", mark.format));
        }
        Some(StoredMark { mark, .. }) if mark.entry_format != ENTRY_FORMAT => {
            return Err(format!(
                "it is of entries up to format {}, this version writes format {ENTRY_FORMAT}",
                mark.entry_format
            ));
        }
        Some(StoredMark { digest, .. }) if digest != chunks.all.hex() => {
            return Err("records are missing or older than its mark".to_owned());
        }
        Some(StoredMark { mark, .. }) => Some(Stored { mark, records }),
    };
    Ok((SledStore { db, file, dir: dir.to_owned(), chunks }, stored))
}

#[cfg(test)]
#[path = "sled_tests.rs"]
mod tests;
