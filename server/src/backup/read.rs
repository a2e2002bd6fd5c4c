//! Reading a backup: everything is checked, and what is not as it was written is named.

use std::io::{self, Read};

use bytes::Bytes;

use super::format::{
    BLOCK_HEAD_BYTES, BackupKey, FORMAT, Header, MAGIC, MAX_BLOCK_BYTES, Manifest, Part, PartRange, SEAL_BYTES, Sum,
    kind,
};
use crate::audit::StoredEvent;
use crate::journal::{ChainHash, Head, StoredEntry};

/// Bytes before the entry or event in a record of a chained log: its hash.
const HASH_BYTES: usize = 32;

/// Records of one part, next to each other.
pub struct Records {
    /// Whose.
    pub part: Part,
    /// Number of the first.
    pub first_seq: u64,
    /// Whether the first starts a segment.
    pub starts_segment: bool,
    /// What was stored.
    pub records: Vec<Bytes>,
}

/// What a backup was found to hold.
#[derive(Clone, Debug)]
pub struct Contents {
    /// What it is of.
    pub header: Header,
    /// What there is.
    pub manifest: Manifest,
    /// The master key in hexadecimal, if it is in it. Never shown.
    pub master_key: Option<String>,
    /// Whether the seal was checked with the master key: without it, a backup that somebody made up is not told from a true one.
    pub is_sealed: bool,
}

/// Why a file is not taken for a backup.
#[derive(Debug, thiserror::Error)]
pub enum ReadBackupError {
    /// It is none, or none that this program reads.
    #[error("{0}")]
    Foreign(String),
    /// It ends too early.
    #[error("the backup is cut off after byte {0}; take it again")]
    CutOff(u64),
    /// A part of it is not what was written.
    #[error("the backup is damaged, was changed or is of a later version: at byte {offset}, {what}")]
    Damaged {
        /// Where the block starts.
        offset: u64,
        /// What is wrong.
        what: String,
    },
    /// It was made with another master key, or made up.
    #[error(
        "the backup's seal is not one of this master key ({0}): it was changed, or made by somebody without the key"
    )]
    Unsealed(String),
    /// It is sealed with another key.
    #[error("the backup needs the master key {needed}, and {given} was given")]
    OtherKey {
        /// Id of the key that it was made with.
        needed: String,
        /// Id of the key that was given.
        given: String,
    },
    /// It cannot be read.
    #[error("the backup cannot be read: {0}")]
    Io(#[from] io::Error),
    /// What was read could not be taken.
    #[error("{0}")]
    Sink(String),
}

struct Block {
    offset: u64,
    kind: u8,
    payload: Vec<u8>,
}

struct Input<'a> {
    inner: &'a mut dyn Read,
    offset: u64,
    hasher: blake3::Hasher,
}

impl Input<'_> {
    /// Fills `buffer`, or answers how far the input goes.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), ReadBackupError> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.inner.read(&mut buffer[filled..]) {
                Ok(0) => return Err(ReadBackupError::CutOff(self.offset + filled as u64)),
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.offset += filled as u64;
        Ok(())
    }

    fn block(&mut self) -> Result<Block, ReadBackupError> {
        let offset = self.offset;
        let mut head = [0; BLOCK_HEAD_BYTES];
        self.fill(&mut head)?;
        let length = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
        if length > MAX_BLOCK_BYTES {
            let what = format!("a block says that it has {length} bytes; the largest has {MAX_BLOCK_BYTES}");
            return Err(ReadBackupError::Damaged { offset, what });
        }
        let mut payload = vec![0; length];
        self.fill(&mut payload)?;
        let mut stored = [0; 4];
        self.fill(&mut stored)?;
        if crc32c::crc32c_append(crc32c::crc32c(&head), &payload) != u32::from_le_bytes(stored) {
            let what = "the checksum of a block does not match its content".to_owned();
            return Err(ReadBackupError::Damaged { offset, what });
        }
        if head[0] != kind::SEAL {
            self.hasher.update(&head);
            self.hasher.update(&payload);
            self.hasher.update(&stored);
        }
        Ok(Block { offset, kind: head[0], payload })
    }
}

/// What has come so far.
struct Progress {
    header: Header,
    /// Index of the part in the header.
    at: usize,
    next_seq: u64,
    sum: Sum,
    journal: Head,
    security: Option<ChainHash>,
    manifest: Manifest,
}

impl Progress {
    fn new(header: Header) -> Self {
        let next_seq = header.parts.first().map_or(1, |range| range.first_seq);
        let genesis = ChainHash::GENESIS.to_string();
        let manifest =
            Manifest { revision: 0, journal_hash: genesis.clone(), security_hash: genesis, parts: Vec::new() };
        Self { header, at: 0, next_seq, sum: Sum::new(), journal: Head::EMPTY, security: None, manifest }
    }

    fn range(&self) -> Option<PartRange> {
        self.header.parts.get(self.at).copied()
    }

    /// Goes on to the next part where the present one is whole.
    fn advance(&mut self) {
        while let Some(range) = self.range().filter(|range| self.next_seq >= range.next_seq) {
            self.manifest.parts.push(self.sum.finish(range.part));
            self.sum = Sum::new();
            self.at += 1;
            self.next_seq = self.range().map_or(0, |range| range.first_seq);
        }
    }

    fn records(&mut self, block: &Block) -> Result<Records, String> {
        self.advance();
        let range = self.range().ok_or("there are more records than the header speaks of")?;
        let payload = Bytes::copy_from_slice(&block.payload);
        let part = payload.first().and_then(|code| Part::of(*code)).ok_or("records of an unknown part")?;
        let first_seq = payload.get(1..9).and_then(|bytes| bytes.first_chunk()).map(|bytes| u64::from_le_bytes(*bytes));
        if (part, first_seq) != (range.part, Some(self.next_seq)) {
            return Err(format!("expected record {} of {}", self.next_seq, range.part));
        }
        let (mut at, mut records, mut bytes) = (9, Vec::new(), 0);
        while at < payload.len() {
            let length =
                payload.get(at..at + 4).and_then(|bytes| bytes.first_chunk()).map(|it| u32::from_le_bytes(*it));
            let start = at + 4;
            let end = length.map_or(usize::MAX, |length| start.saturating_add(length as usize));
            if end > payload.len() {
                return Err(format!("record {} of {part} is longer than its block", self.next_seq));
            }
            let record = payload.slice(start..end);
            self.check(part, &record).map_err(|what| format!("record {} of {part}: {what}", self.next_seq))?;
            bytes += record.len() as u64;
            records.push(record);
            self.next_seq += 1;
            at = end;
        }
        if self.next_seq > range.next_seq {
            return Err(format!("{part} goes on behind its end"));
        }
        self.sum.add(&payload, records.len() as u64, bytes);
        Ok(Records { part, first_seq: first_seq.unwrap_or(0), starts_segment: block.kind == kind::SEGMENT, records })
    }

    /// Checks a record of a chained log against the chain.
    fn check(&mut self, part: Part, record: &Bytes) -> Result<(), String> {
        if !matches!(part, Part::Journal | Part::Security) {
            return Ok(());
        }
        let hash = ChainHash(*record.first_chunk::<HASH_BYTES>().ok_or("it is too short")?);
        let bytes = record.slice(HASH_BYTES..);
        if part == Part::Journal {
            self.journal = StoredEntry::verify(self.journal, bytes, hash)?.head();
            self.manifest.revision = self.journal.revision;
            self.manifest.journal_hash = hash.to_string();
        } else {
            StoredEvent::verify(self.security, self.next_seq, bytes, hash)?;
            self.security = Some(hash);
            self.manifest.security_hash = hash.to_string();
        }
        Ok(())
    }

    /// What differs from what the manifest says.
    fn compare(&mut self, manifest: &Manifest) -> Result<(), String> {
        self.advance();
        if let Some(range) = self.range() {
            return Err(format!("{} ends before record {}", range.part, self.next_seq));
        }
        for (found, said) in self.manifest.parts.iter().zip(&manifest.parts) {
            if found != said {
                return Err(format!(
                    "{} is not what the manifest says: {} records and BLAKE3 {}, found {} and {}",
                    found.part, said.records, said.blake3, found.records, found.blake3
                ));
            }
        }
        if self.manifest != *manifest {
            return Err("the manifest speaks of another revision, chain or other parts than there are".to_owned());
        }
        Ok(())
    }
}

/// Reads a whole backup, and hands its records to `sink` in order. What `sink` was handed counts only if this succeeds. With the
/// master key's child the seal is checked as well.
///
/// # Errors
///
/// [`ReadBackupError`], naming the first thing that is not as it was written.
pub fn read(
    input: &mut dyn Read,
    key: Option<&BackupKey>,
    sink: &mut dyn FnMut(Records) -> Result<(), String>,
) -> Result<Contents, ReadBackupError> {
    let mut input = Input { inner: input, offset: 0, hasher: blake3::Hasher::new() };
    let mut magic = [0; MAGIC.len()];
    input.fill(&mut magic)?;
    if magic != *MAGIC {
        return Err(ReadBackupError::Foreign("this is no backup of Guidon, or one of another version".to_owned()));
    }
    input.hasher.update(&magic);
    let first = input.block()?;
    let damaged = |offset: u64| move |what: String| ReadBackupError::Damaged { offset, what };
    if first.kind != kind::HEADER {
        return Err(damaged(first.offset)("a header is expected here".to_owned()));
    }
    let header: Header = serde_json::from_slice(&first.payload)
        .map_err(|error| damaged(first.offset)(format!("the header: {error}")))?;
    if header.format != FORMAT {
        let format = header.format;
        return Err(ReadBackupError::Foreign(format!(
            "the backup has format {format}, and this version of Guidon reads {FORMAT}; restore it with the version \
             that made it ({}), then export and import",
            header.program
        )));
    }
    if let Some(key) = key.filter(|key| key.id != header.master_key_id) {
        return Err(ReadBackupError::OtherKey { needed: header.master_key_id, given: key.id.clone() });
    }
    let parts: Vec<Part> = header.parts.iter().map(|range| range.part).collect();
    let in_order = parts.is_sorted_by(|before, after| before < after);
    let needed = [Part::Journal, Part::Security, Part::Vault];
    let sound = header.parts.iter().all(|range| 1 <= range.first_seq && range.first_seq <= range.next_seq);
    if !in_order || !sound || !needed.iter().all(|part| parts.contains(part)) {
        return Err(damaged(first.offset)("the header does not speak of the parts of a store".to_owned()));
    }
    let mut progress = Progress::new(header);
    let (mut master_key, mut manifest) = (None, None);
    loop {
        let block = input.block()?;
        let damaged = damaged(block.offset);
        match block.kind {
            kind::RECORDS | kind::SEGMENT if manifest.is_none() && master_key.is_none() => {
                let records = progress.records(&block).map_err(damaged)?;
                sink(records).map_err(ReadBackupError::Sink)?;
            }
            kind::KEY if manifest.is_none() && master_key.is_none() && progress.header.has_master_key => {
                let text = String::from_utf8(block.payload).map_err(|_| damaged("the key is no text".to_owned()))?;
                master_key = Some(text);
            }
            kind::MANIFEST if manifest.is_none() => {
                let said: Manifest = serde_json::from_slice(&block.payload)
                    .map_err(|error| damaged(format!("the manifest: {error}")))?;
                progress.compare(&said).map_err(damaged)?;
                manifest = Some(said);
            }
            kind::SEAL => {
                let Some(manifest) = manifest else {
                    return Err(damaged("the manifest is missing".to_owned()));
                };
                if progress.header.has_master_key != master_key.is_some() {
                    return Err(damaged("the key that the header speaks of is missing".to_owned()));
                }
                let hash = input.hasher.finalize();
                let (plain, keyed) = block.payload.split_at(block.payload.len().min(SEAL_BYTES / 2));
                if block.payload.len() != SEAL_BYTES || plain != hash.as_bytes() {
                    return Err(damaged("the BLAKE3 of everything before is not what is written here".to_owned()));
                }
                if let Some(key) = key
                    && !bool::from(subtle::ConstantTimeEq::ct_eq(keyed, key.seal(&hash).as_bytes().as_slice()))
                {
                    return Err(ReadBackupError::Unsealed(key.id.clone()));
                }
                let offset = input.offset;
                return match input.inner.read(&mut [0])? {
                    0 => Ok(Contents { header: progress.header, manifest, master_key, is_sealed: key.is_some() }),
                    _ => Err(ReadBackupError::Damaged { offset, what: "something follows the end".to_owned() }),
                };
            }
            other => return Err(damaged(format!("a block of kind {other} has no place here"))),
        }
    }
}
