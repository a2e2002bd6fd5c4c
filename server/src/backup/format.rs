//! The form of a backup: blocks with checksums, the first of which says what comes, the last two what came.
//!
//! ```text
//! file   = magic header record* [key] manifest seal
//! block  = kind (1) length (4) payload crc32c of kind, length and payload (4)       numbers are little-endian
//! record = part (1) first sequence number (8) { length (4) bytes }*
//! seal   = BLAKE3 of everything before this block (32), the same keyed with the master key's child (32)
//! ```

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::log::{self, MAX_RECORD_BYTES};
use crate::vault::MasterKey;

/// Version of the form; a backup of another version is refused.
pub const FORMAT: u32 = 1;
/// Start of every backup.
pub(super) const MAGIC: &[u8; 16] = b"guidon backup 1\n";
/// Longest payload of a block, in bytes: a record of the largest size behind others.
pub const MAX_BLOCK_BYTES: usize = MAX_RECORD_BYTES + (2 << 20);
/// A block of records is ended once it holds so many bytes.
pub(super) const BLOCK_TARGET_BYTES: usize = 1 << 20;
/// Bytes before a block's payload.
pub(super) const BLOCK_HEAD_BYTES: usize = 5;
/// Bytes of the seal's payload.
pub(super) const SEAL_BYTES: usize = 64;

/// What a block is.
pub(super) mod kind {
    pub(in crate::backup) const HEADER: u8 = b'H';
    pub(in crate::backup) const RECORDS: u8 = b'R';
    /// Records of which the first starts a segment.
    pub(in crate::backup) const SEGMENT: u8 = b'F';
    pub(in crate::backup) const KEY: u8 = b'K';
    pub(in crate::backup) const MANIFEST: u8 = b'M';
    pub(in crate::backup) const SEAL: u8 = b'S';
}

/// A part of a store: one of its logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[repr(u8)]
pub enum Part {
    /// Every change.
    Journal = 1,
    /// Refusals and sign-ins.
    Security = 2,
    /// Who was served what.
    Assignments = 3,
    /// What is secret or to be forgotten, sealed as it is stored.
    Vault = 4,
}

impl Part {
    /// All parts, in the order in which a backup holds them.
    pub const ALL: [Self; 4] = [Self::Journal, Self::Security, Self::Assignments, Self::Vault];

    /// The part of this number.
    pub(super) fn of(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|part| *part as u8 == code)
    }

    /// The kind of log it is.
    pub(super) fn log_kind(self) -> log::Kind {
        match self {
            Self::Journal => log::Kind::Journal,
            Self::Security => log::Kind::Security,
            Self::Assignments => log::Kind::Assignments,
            Self::Vault => log::Kind::Vault,
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Journal => "the journal",
            Self::Security => "the security log",
            Self::Assignments => "the assignment log",
            Self::Vault => "the vault",
        })
    }
}

/// What a backup is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Header {
    /// [`FORMAT`].
    pub format: u32,
    /// Version of the program that made it.
    pub program: String,
    /// When it was begun, in milliseconds since 1970.
    pub created_at: u64,
    /// History id of the store.
    pub history: String,
    /// Which master key its vault is sealed with, by the key's id.
    pub master_key_id: String,
    /// Whether it holds that key.
    pub has_master_key: bool,
    /// The parts, with where each begins and ends.
    pub parts: Vec<PartRange>,
}

/// Where the copy of a part begins and ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PartRange {
    /// Which.
    pub part: Part,
    /// Sequence number of its first record.
    pub first_seq: u64,
    /// The number after that of its last record.
    pub next_seq: u64,
}

/// What a backup holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Manifest {
    /// The revision: the last entry of the journal.
    pub revision: u64,
    /// The journal's chain up to it, in hexadecimal.
    pub journal_hash: String,
    /// The security log's chain up to its last event, in hexadecimal.
    pub security_hash: String,
    /// The parts.
    pub parts: Vec<PartSum>,
}

/// What there is of a part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PartSum {
    /// Which.
    pub part: Part,
    /// How many records.
    pub records: u64,
    /// Their length in bytes.
    pub bytes: u64,
    /// BLAKE3 over the payloads of its blocks, in hexadecimal.
    pub blake3: String,
}

/// Adds up a part as it goes by.
pub(super) struct Sum {
    pub(super) records: u64,
    pub(super) bytes: u64,
    hasher: blake3::Hasher,
}

impl Sum {
    pub(super) fn new() -> Self {
        Self { records: 0, bytes: 0, hasher: blake3::Hasher::new() }
    }

    pub(super) fn add(&mut self, payload: &[u8], records: u64, bytes: u64) {
        self.hasher.update(payload);
        self.records += records;
        self.bytes += bytes;
    }

    pub(super) fn finish(&self, part: Part) -> PartSum {
        let blake3 = self.hasher.finalize().to_hex().to_string();
        PartSum { part, records: self.records, bytes: self.bytes, blake3 }
    }
}

/// A block as it is written.
pub(super) fn block(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut block = Vec::with_capacity(BLOCK_HEAD_BYTES + payload.len() + 4);
    block.push(kind);
    // Payloads are bounded by MAX_BLOCK_BYTES.
    block.extend_from_slice(&u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes());
    block.extend_from_slice(payload);
    let checksum = crc32c::crc32c(&block);
    block.extend_from_slice(&checksum.to_le_bytes());
    block
}

/// What a backup owes to the master key: its id, and what seals backups so that nobody makes one up without the key.
#[derive(Clone)]
pub struct BackupKey {
    /// Names the master key, telling nothing of it.
    pub id: String,
    pub(super) seal: [u8; 32],
}

impl fmt::Debug for BackupKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BackupKey({})", self.id)
    }
}

impl BackupKey {
    /// The child of a master key.
    #[must_use]
    pub fn of(key: &MasterKey) -> Self {
        let id = key.derive("guidon 2026-11 name of the master key");
        let id = id[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        Self { id, seal: key.derive("guidon 2026-11 seal of backups") }
    }

    /// The seal over a file of this hash.
    pub(super) fn seal(&self, hash: &blake3::Hash) -> blake3::Hash {
        blake3::keyed_hash(&self.seal, hash.as_bytes())
    }
}
