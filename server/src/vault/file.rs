//! The vault on a log: every record sealed, deletions as tombstones, compaction by rewriting what is left.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt};
use parking_lot::{Mutex, RwLock};

use super::cipher::{Cipher, MasterKey, Place, SEAL_BYTES};
use super::index::{
    Header, Index, KEY_CHECK, Location, PART_BYTES, Part, ROLE_DELETION, ROLE_KEY_CHECK, ROLE_PART, encode_parts,
};
use super::{Compacted, Entry, Kind, Vault, VaultError, check};
use crate::log::{self, Files, Log, Options, RecordRef, Recovered};

/// Compaction by itself leaves a vault alone that holds less garbage than this, in bytes.
const COMPACT_MIN_GARBAGE_BYTES: u64 = 256 << 10;
/// How much compaction rewrites with one sync, in bytes.
const COMPACT_BATCH_BYTES: usize = 4 << 20;
/// What a part takes in the log beside id and value: record header, share of the frame, role, seal, text header.
const PART_OVERHEAD_BYTES: usize = 8 + 28 + 1 + SEAL_BYTES + 11;

/// A vault in a folder. Clones are the same vault.
#[derive(Debug, Clone)]
pub struct FileVault {
    pub(super) inner: Arc<Inner>,
}

/// A vault that was opened, with what is to be reported.
#[derive(Debug)]
pub struct Opened {
    /// The vault.
    pub vault: FileVault,
    /// What opening its log found.
    pub recovered: Recovered,
}

#[derive(Debug)]
pub(super) struct Inner {
    log: Log,
    dir: PathBuf,
    cipher: Cipher,
    index: RwLock<Index>,
    /// Held by the one writer, so that a record's sequence number is known when it is sealed.
    writing: Mutex<()>,
    compacting: AtomicBool,
}

impl FileVault {
    /// Opens the vault in `dir`, creating it if there is none. Blocks while it reads the whole vault; one that is mostly
    /// garbage is compacted first.
    pub fn open(files: Arc<dyn Files>, dir: &Path, key: &MasterKey) -> Result<Opened, VaultError> {
        let mut replay =
            Replay { dir, cipher: Cipher::new(key), index: Index::default(), unfinished: None, error: None };
        let (log, recovered) =
            Log::open(files, dir, log::Kind::Vault, Options::default(), |record| replay.visit(record))?;
        let Replay { cipher, index, unfinished, error, .. } = replay;
        let cut_short = unfinished.map(|value| VaultError::BadRecord {
            dir: dir.to_owned(),
            seq: value.first_seq,
            problem: "begins a value of which the last parts are missing",
        });
        if let Some(error) = error.or(cut_short) {
            return Err(error);
        }
        let inner = Inner {
            log,
            dir: dir.to_owned(),
            cipher,
            index: RwLock::new(index),
            writing: Mutex::new(()),
            compacting: AtomicBool::new(false),
        };
        if recovered.next_seq == recovered.first_seq {
            inner.append(vec![(ROLE_KEY_CHECK, KEY_CHECK.to_vec())])?;
        }
        if inner.wants_compaction()
            && let Err(error) = inner.compact()
        {
            // A disk without the space for it is no reason not to serve what is there.
            tracing::warn!(%error, "compacting the vault failed; it is tried again after the next write");
        }
        Ok(Opened { vault: Self { inner: Arc::new(inner) }, recovered })
    }

    /// Reads the log under it, for a copy.
    #[must_use]
    pub fn reader(&self) -> log::Reader {
        self.inner.log.reader()
    }

    /// Condition of the log below.
    pub fn health(&self) -> log::Health {
        self.inner.log.health()
    }

    /// Finishes what is under way and releases the folder. Blocks.
    pub fn close(&self) -> Result<(), VaultError> {
        let _writing = self.inner.writing.lock();
        Ok(self.inner.log.close()?)
    }

    /// Carries out a write on a thread that may block, to its end whether or not somebody waits for it.
    fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, VaultError> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, VaultError>> {
        let inner = Arc::clone(&self.inner);
        async move {
            let done = tokio::task::spawn_blocking(move || {
                let result = work(&inner);
                compact_in_background(inner);
                result
            });
            done.await.unwrap_or(Err(VaultError::Interrupted))
        }
        .boxed()
    }
}

impl Vault for FileVault {
    fn put_many(&self, entries: Vec<Entry>) -> BoxFuture<'_, Result<(), VaultError>> {
        self.run(move |inner| inner.put_many(entries))
    }

    fn get(&self, kind: Kind, id: &str) -> Result<Option<Vec<u8>>, VaultError> {
        self.inner.get(kind, id)
    }

    fn delete(&self, kind: Kind, id: &str) -> BoxFuture<'_, Result<bool, VaultError>> {
        let id = id.to_owned();
        self.run(move |inner| inner.delete(kind, &id))
    }

    fn list(&self, kind: Kind) -> Vec<String> {
        self.inner.index.read().ids(kind)
    }

    fn compact(&self) -> BoxFuture<'_, Result<Compacted, VaultError>> {
        self.run(Inner::compact)
    }
}

/// Starts a compaction if there is enough garbage and none is under way.
fn compact_in_background(inner: Arc<Inner>) {
    if !inner.wants_compaction() || inner.compacting.swap(true, Ordering::AcqRel) {
        return;
    }
    tokio::task::spawn_blocking(move || {
        if let Err(error) = inner.compact() {
            tracing::warn!(%error, "compacting the vault failed; it is tried again after the next write");
        }
        inner.compacting.store(false, Ordering::Release);
    });
}

impl Inner {
    pub(super) fn put_many(&self, entries: Vec<Entry>) -> Result<(), VaultError> {
        check(&entries)?;
        if entries.is_empty() {
            return Ok(());
        }
        let _writing = self.writing.lock();
        let mut counts = Vec::with_capacity(entries.len());
        let mut texts = Vec::new();
        for entry in &entries {
            let parts = encode_parts(entry.kind, &entry.id, &entry.value);
            counts.push(parts.len() as u32);
            texts.extend(parts.into_iter().map(|text| (ROLE_PART, text)));
        }
        let mut seq = self.append(texts)?;
        let mut index = self.index.write();
        for (entry, parts) in entries.into_iter().zip(counts) {
            index.insert(entry.kind, entry.id, Location::new(seq, parts, &entry.value));
            seq += u64::from(parts);
        }
        Ok(())
    }

    pub(super) fn delete(&self, kind: Kind, id: &str) -> Result<bool, VaultError> {
        let _writing = self.writing.lock();
        if self.index.read().get(kind, id).is_none() {
            return Ok(false);
        }
        self.append(vec![(ROLE_DELETION, Header::encode(kind, id))])?;
        Ok(self.index.write().remove(kind, id))
    }

    fn get(&self, kind: Kind, id: &str) -> Result<Option<Vec<u8>>, VaultError> {
        loop {
            let Some(location) = self.index.read().get(kind, id).cloned() else { return Ok(None) };
            match self.value(kind, id, &location) {
                // Compaction may move a value between looking it up and reading it.
                Err(_) if self.index.read().get(kind, id) != Some(&location) => {}
                value => return value.map(Some),
            }
        }
    }

    fn value(&self, kind: Kind, id: &str, location: &Location) -> Result<Vec<u8>, VaultError> {
        if let Some(value) = &location.inline {
            return Ok(value.clone());
        }
        let mut value = Vec::with_capacity(location.len);
        let mut seq = location.first_seq;
        let end = seq + u64::from(location.parts);
        while seq < end {
            let limit = (end - seq) as usize * PART_BYTES;
            let records = self.log.read(seq, limit)?;
            if records.is_empty() {
                return Err(self.bad_record(seq, "is missing"));
            }
            for record in records.iter().take((end - seq) as usize) {
                let text = open_record(&self.cipher, seq, ROLE_PART, &record.payload)
                    .ok_or_else(|| self.bad_record(seq, "does not decipher"))?;
                let part = Part::decode(&text)
                    .filter(|part| part.header.kind == kind && part.header.id == id)
                    .filter(|part| u64::from(part.index) == seq - location.first_seq && part.count == location.parts)
                    .ok_or_else(|| self.bad_record(seq, "is not the part of the value that belongs there"))?;
                value.extend_from_slice(part.bytes);
                seq += 1;
            }
        }
        Ok(value)
    }

    fn bad_record(&self, seq: u64, problem: &'static str) -> VaultError {
        VaultError::BadRecord { dir: self.dir.clone(), seq, problem }
    }

    /// Seals and appends texts with consecutive numbers, waits until they are durable, returns the first number. Only
    /// under `writing` (or while nobody else has the vault).
    fn append(&self, texts: Vec<(u8, Vec<u8>)>) -> Result<u64, VaultError> {
        // No record of the vault depends on the ones before, so a disk that has space again is all it takes to go on.
        self.log.resume();
        let first_seq = self.log.next_seq();
        let records = (first_seq..)
            .zip(texts)
            .map(|(seq, (role, text))| self.seal_record(seq, role, &text))
            .collect::<Result<Vec<Bytes>, _>>()?;
        let appended = self.log.append_many(records)?;
        debug_assert_eq!(appended.first_seq(), first_seq);
        Ok(appended.wait()?)
    }

    fn seal_record(&self, seq: u64, role: u8, text: &[u8]) -> Result<Bytes, VaultError> {
        let sealed = self.cipher.seal(&Place { seq, role }, text);
        let sealed = sealed.map_err(|_| self.bad_record(seq, "could not be sealed"))?;
        Ok([&[role], sealed.as_slice()].concat().into())
    }

    fn wants_compaction(&self) -> bool {
        let bytes = self.log.health().bytes;
        let garbage = bytes.saturating_sub(self.index.read().live_bytes(PART_OVERHEAD_BYTES));
        garbage > COMPACT_MIN_GARBAGE_BYTES && garbage > bytes / 2
    }

    /// Copies every live value behind a fresh key check in a new segment, then removes the older segments. A crash in
    /// between leaves values twice, the later copy counting, and the old segments whole, tombstones included.
    pub(super) fn compact(&self) -> Result<Compacted, VaultError> {
        let _writing = self.writing.lock();
        let bytes_before = self.log.health().bytes;
        self.log.start_segment();
        let first_kept = self.append(vec![(ROLE_KEY_CHECK, KEY_CHECK.to_vec())])?;
        let live = self.index.read().all();
        let mut batch = Vec::new();
        let mut batch_bytes = 0;
        for (kind, id) in live {
            let Some(location) = self.index.read().get(kind, &id).cloned() else { continue };
            let value = self.value(kind, &id, &location)?;
            batch_bytes += value.len();
            batch.push((kind, id, value));
            if batch_bytes >= COMPACT_BATCH_BYTES {
                self.rewrite(std::mem::take(&mut batch))?;
                batch_bytes = 0;
            }
        }
        self.rewrite(batch)?;
        let removed = self.log.remove_segments_before(first_kept);
        removed.map_err(|source| VaultError::Remove { dir: self.dir.clone(), source })?;
        Ok(Compacted { bytes_before, bytes_after: self.log.health().bytes })
    }

    fn rewrite(&self, batch: Vec<(Kind, String, Vec<u8>)>) -> Result<(), VaultError> {
        if batch.is_empty() {
            return Ok(());
        }
        let parts: Vec<_> = batch.iter().map(|(kind, id, value)| encode_parts(*kind, id, value)).collect();
        let counts: Vec<_> = parts.iter().map(|parts| parts.len() as u32).collect();
        let mut seq = self.append(parts.into_iter().flatten().map(|text| (ROLE_PART, text)).collect())?;
        let mut index = self.index.write();
        for ((kind, id, value), parts) in batch.into_iter().zip(counts) {
            index.insert(kind, id, Location::new(seq, parts, &value));
            seq += u64::from(parts);
        }
        Ok(())
    }
}

fn open_record(cipher: &Cipher, seq: u64, role: u8, payload: &[u8]) -> Option<Vec<u8>> {
    let (&stored_role, sealed) = payload.split_first()?;
    (stored_role == role).then_some(())?;
    cipher.open(&Place { seq, role }, sealed)
}

/// Builds the index from the log.
struct Replay<'a> {
    dir: &'a Path,
    cipher: Cipher,
    index: Index,
    /// A value of which not all parts have come yet.
    unfinished: Option<Unfinished>,
    error: Option<VaultError>,
}

struct Unfinished {
    header: Header,
    first_seq: u64,
    parts: u32,
    next: u32,
    value: Vec<u8>,
}

impl Replay<'_> {
    fn visit(&mut self, record: RecordRef<'_>) {
        if self.error.is_none() {
            self.error = self.take(record).err();
        }
    }

    fn take(&mut self, record: RecordRef<'_>) -> Result<(), VaultError> {
        let bad = |problem| VaultError::BadRecord { dir: self.dir.to_owned(), seq: record.seq, problem };
        let role = *record.payload.first().ok_or_else(|| bad("is empty"))?;
        let text = open_record(&self.cipher, record.seq, role, record.payload);
        match role {
            ROLE_KEY_CHECK if text.as_deref() == Some(KEY_CHECK) => return Ok(()),
            ROLE_KEY_CHECK => return Err(VaultError::WrongKey { dir: self.dir.to_owned() }),
            _ => {}
        }
        let text = text.ok_or_else(|| bad("does not decipher"))?;
        match role {
            ROLE_PART => {
                let part = Part::decode(&text).ok_or_else(|| bad("is malformed"))?;
                self.part(record.seq, part).map_err(bad)
            }
            ROLE_DELETION => {
                let (header, _) = Header::decode(&text).ok_or_else(|| bad("is malformed"))?;
                self.index.remove(header.kind, &header.id);
                Ok(())
            }
            _ => Err(bad("is of a role that this program does not know")),
        }
    }

    fn part(&mut self, seq: u64, part: Part<'_>) -> Result<(), &'static str> {
        let mut value = match self.unfinished.take() {
            None if part.index == 0 => {
                Unfinished { header: part.header, first_seq: seq, parts: part.count, next: 0, value: Vec::new() }
            }
            Some(value) if (value.next, value.parts) == (part.index, part.count) && value.header == part.header => {
                value
            }
            _ => return Err("is not the part of a value that belongs there"),
        };
        value.value.extend_from_slice(part.bytes);
        value.next += 1;
        if value.next < value.parts {
            self.unfinished = Some(value);
            return Ok(());
        }
        let location = Location::new(value.first_seq, value.parts, &value.value);
        self.index.insert(value.header.kind, value.header.id, location);
        Ok(())
    }
}
