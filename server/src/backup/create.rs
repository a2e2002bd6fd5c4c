//! Making a backup, piece by piece, from the logs of a store that goes on being written.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use super::format::{
    BLOCK_TARGET_BYTES, BackupKey, FORMAT, Header, MAGIC, Manifest, Part, PartRange, Sum, block, kind,
};
use crate::journal::ChainHash;
use crate::log::{ReadError, Reader};

/// Times the vault is copied anew because it was rewritten meanwhile.
const VAULT_ATTEMPTS: usize = 5;
/// Bytes of the vault's copy that are handed out at once.
const SPOOL_READ_BYTES: usize = 1 << 20;
/// Bytes before the entry or event in a record of a chained log: its hash.
const HASH_BYTES: usize = 32;

/// What a backup is made of.
pub struct Sources {
    /// The journal.
    pub journal: Reader,
    /// The security log.
    pub security: Reader,
    /// The assignment log, if it is to be in it.
    pub assignments: Option<Reader>,
    /// The vault.
    pub vault: Reader,
    /// History id of the store.
    pub history: String,
    /// The child of the master key.
    pub key: BackupKey,
    /// The master key itself in hexadecimal, if it is to be in it.
    pub master_key: Option<String>,
    /// A folder for the copy of the vault, which is there while the backup is made.
    pub spool: PathBuf,
    /// The time of day, in milliseconds since 1970.
    pub now: u64,
}

/// Why a backup was not made.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// A log cannot be read.
    #[error("{part} cannot be read: {source}")]
    Read {
        /// Which.
        part: Part,
        /// Why.
        source: ReadError,
    },
    /// What was about to be copied was removed: its time was over.
    #[error("{0} gave up old records while it was copied; take the backup again")]
    Moved(Part),
    /// The vault's copy cannot be written or read back.
    #[error("{}: the copy of the vault: {source}", dir.display())]
    Spool {
        /// The folder.
        dir: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The header or the manifest has no JSON form.
    #[error("the backup's manifest cannot be written: {0}")]
    Manifest(#[from] serde_json::Error),
}

enum Step {
    Bytes(Vec<u8>),
    Records(Copying),
    Spooled(File),
    Manifest,
    Seal,
}

/// A log that is being copied.
struct Copying {
    part: Part,
    reader: Reader,
    next: u64,
    end: u64,
    /// First records of segments, from `next` on.
    starts: VecDeque<u64>,
    sum: Sum,
    /// The chain after the last record, of a chained log.
    hash: Option<ChainHash>,
}

impl Copying {
    fn new(part: Part, reader: &Reader) -> Self {
        let range = reader.range();
        let starts = reader.segments().into_iter().map(|segment| segment.first_seq);
        let starts = starts.filter(|seq| range.contains(seq)).collect();
        Self { part, reader: reader.clone(), next: range.start, end: range.end, starts, sum: Sum::new(), hash: None }
    }

    fn range(&self) -> PartRange {
        PartRange { part: self.part, first_seq: self.next, next_seq: self.end }
    }

    /// The next block; `None` at the end.
    fn block(&mut self) -> Result<Option<Vec<u8>>, BackupError> {
        if self.next >= self.end {
            return Ok(None);
        }
        let part = self.part;
        let records = self.reader.read(self.next, BLOCK_TARGET_BYTES).map_err(|source| match source {
            ReadError::Removed { .. } => BackupError::Moved(part),
            source => BackupError::Read { part, source },
        })?;
        let starts_segment = self.starts.pop_front_if(|start| *start == self.next).is_some();
        let stop = self.starts.front().copied().unwrap_or(self.end).min(self.end);
        let mut payload = vec![part as u8];
        payload.extend_from_slice(&self.next.to_le_bytes());
        let (mut count, mut bytes) = (0, 0);
        for record in records.iter().take_while(|record| record.seq < stop) {
            payload.extend_from_slice(&(record.payload.len() as u32).to_le_bytes());
            payload.extend_from_slice(&record.payload);
            count += 1;
            bytes += record.payload.len() as u64;
            if let (Part::Journal | Part::Security, Some(hash)) = (part, record.payload.first_chunk::<HASH_BYTES>()) {
                self.hash = Some(ChainHash(*hash));
            }
        }
        if count == 0 {
            return Err(BackupError::Moved(part));
        }
        self.next += count;
        self.sum.add(&payload, count, bytes);
        Ok(Some(block(if starts_segment { kind::SEGMENT } else { kind::RECORDS }, &payload)))
    }
}

/// Makes one backup.
pub struct Producer {
    steps: VecDeque<Step>,
    hasher: blake3::Hasher,
    key: BackupKey,
    spool: PathBuf,
    manifest: Manifest,
}

impl Producer {
    /// Notes where each log ends now, which is what the backup will hold, and copies the vault, which is rewritten at times.
    /// Blocks on the disk.
    ///
    /// # Errors
    ///
    /// [`BackupError`].
    pub fn start(sources: Sources) -> Result<Self, BackupError> {
        // The journal first: what its entries refer to in the vault was there before them.
        let journal = Copying::new(Part::Journal, &sources.journal);
        let security = Copying::new(Part::Security, &sources.security);
        let assignments = sources.assignments.as_ref().map(|reader| Copying::new(Part::Assignments, reader));
        let (vault, spooled) = spool_vault(&sources)?;
        let revision = journal.end - 1;
        let copied: Vec<Copying> = [Some(journal), Some(security), assignments].into_iter().flatten().collect();
        let mut parts: Vec<PartRange> = copied.iter().map(Copying::range).collect();
        parts.push(vault.range);
        let header = Header {
            format: FORMAT,
            program: env!("CARGO_PKG_VERSION").to_owned(),
            created_at: sources.now,
            history: sources.history,
            master_key_id: sources.key.id.clone(),
            has_master_key: sources.master_key.is_some(),
            parts,
        };
        let start = [MAGIC.as_slice(), &block(kind::HEADER, &serde_json::to_vec(&header)?)].concat();
        let mut steps = VecDeque::from([Step::Bytes(start)]);
        steps.extend(copied.into_iter().map(Step::Records));
        steps.push_back(Step::Spooled(spooled));
        steps.extend(sources.master_key.map(|key| Step::Bytes(block(kind::KEY, key.trim().as_bytes()))));
        steps.extend([Step::Manifest, Step::Seal]);
        let genesis = ChainHash::GENESIS.to_string();
        let manifest = Manifest {
            revision,
            journal_hash: genesis.clone(),
            security_hash: genesis,
            parts: vec![vault.sum.finish(Part::Vault)],
        };
        Ok(Self { steps, hasher: blake3::Hasher::new(), key: sources.key, spool: sources.spool, manifest })
    }

    /// The next piece; `None` at the end. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// [`BackupError`]; what was handed out so far is no backup then, and is refused as one.
    pub fn next_piece(&mut self) -> Result<Option<Vec<u8>>, BackupError> {
        loop {
            let Some(step) = self.steps.front_mut() else { return Ok(None) };
            let piece = match step {
                Step::Bytes(bytes) => Some(std::mem::take(bytes)).filter(|bytes| !bytes.is_empty()),
                Step::Records(copying) => copying.block()?,
                Step::Spooled(file) => {
                    let mut bytes = vec![0; SPOOL_READ_BYTES];
                    let read = file.read(&mut bytes);
                    let read = read.map_err(|source| BackupError::Spool { dir: self.spool.clone(), source })?;
                    bytes.truncate(read);
                    Some(bytes).filter(|bytes| !bytes.is_empty())
                }
                Step::Manifest => {
                    self.manifest.parts.sort_by_key(|sum| sum.part);
                    let bytes = block(kind::MANIFEST, &serde_json::to_vec(&self.manifest)?);
                    *step = Step::Bytes(Vec::new());
                    Some(bytes)
                }
                Step::Seal => {
                    let hash = self.hasher.finalize();
                    let seal = [*hash.as_bytes(), *self.key.seal(&hash).as_bytes()].concat();
                    self.steps.clear();
                    return Ok(Some(block(kind::SEAL, &seal)));
                }
            };
            if let Some(bytes) = piece {
                self.hasher.update(&bytes);
                return Ok(Some(bytes));
            }
            if let Some(Step::Records(Copying { part, sum, hash, .. })) = self.steps.pop_front() {
                self.manifest.parts.push(sum.finish(part));
                match (part, hash) {
                    (Part::Journal, Some(hash)) => self.manifest.journal_hash = hash.to_string(),
                    (Part::Security, Some(hash)) => self.manifest.security_hash = hash.to_string(),
                    _ => {}
                }
            }
        }
    }
}

struct SpooledVault {
    range: PartRange,
    sum: Sum,
}

/// Copies the vault's records, sealed as they are, into a file without a name. The vault removes what it has rewritten at any
/// time, so that a slow reader of the backup could not be given it straight from its files.
fn spool_vault(sources: &Sources) -> Result<(SpooledVault, File), BackupError> {
    let failed = |source| BackupError::Spool { dir: sources.spool.clone(), source };
    for attempt in 1.. {
        let mut file = nameless(&sources.spool).map_err(failed)?;
        let mut copying = Copying::new(Part::Vault, &sources.vault);
        let range = copying.range();
        let copied = loop {
            match copying.block() {
                Ok(Some(bytes)) => file.write_all(&bytes).map_err(failed)?,
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        match copied {
            Err(BackupError::Moved(_)) if attempt < VAULT_ATTEMPTS => {}
            Err(error) => return Err(error),
            Ok(()) => {
                file.seek(SeekFrom::Start(0)).map_err(failed)?;
                return Ok((SpooledVault { range, sum: copying.sum }, file));
            }
        }
    }
    Err(BackupError::Moved(Part::Vault))
}

/// A file that is gone when it is closed, however the process ends.
fn nameless(dir: &std::path::Path) -> io::Result<File> {
    let path = dir.join(format!("backup-{}.spool", uuid::Uuid::new_v4().simple()));
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}
