//! What must be erasable or secret: key sets, pseudonym keys, identities of people, origins, password hashes and TOTP
//! secrets. The journal refers to these records by id, so that erasing one leaves the journal's chain as it is.
//!
//! A value is acknowledged when it is durable. A deleted one is gone from every answer at once, and from the disk when
//! [`Vault::compact`] returns.

mod cipher;
mod file;
mod index;
mod key_sets;
mod memory;

use std::path::PathBuf;

use futures_util::future::BoxFuture;

pub use self::cipher::{KeySource, MASTER_KEY_VARIABLE, MasterKey};
pub use self::file::{FileVault, Opened};
pub use self::key_sets::VaultKeySets;
pub use self::memory::MemoryVault;
use crate::log::{AppendError, OpenError, ReadError};

/// Longest id in bytes.
pub const MAX_ID_BYTES: usize = 256;
/// Largest value, and largest sum of values in one [`Vault::put_many`], in bytes.
pub const MAX_VALUE_BYTES: usize = 32 << 20;

/// What a vault record is. Ids are unique within a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    /// The keys of a segment or of an individual targeting rule.
    KeySet = 1,
    /// The key with which an environment's assignment log turns unit ids into pseudonyms.
    PseudonymKey = 2,
    /// Who an `actorId` is.
    Actor = 3,
    /// Where an `originId` came from.
    Origin = 4,
    /// A password hash.
    PasswordHash = 5,
    /// The secret behind one-time codes.
    TotpSecret = 6,
    /// A key that the server made for itself.
    ServerKey = 7,
    /// The hashes of an account's recovery codes.
    RecoveryCodes = 8,
    /// A signed-in person's session.
    Session = 9,
    /// An invitation to claim an account.
    Invitation = 10,
    /// When and from where a credential was last used.
    CredentialUse = 11,
    /// What a change request asks for.
    RequestBody = 12,
    /// The URL or a signing secret of a webhook.
    Webhook = 13,
}

impl Kind {
    const ALL: [Self; 13] = [
        Self::KeySet,
        Self::PseudonymKey,
        Self::Actor,
        Self::Origin,
        Self::PasswordHash,
        Self::TotpSecret,
        Self::ServerKey,
        Self::RecoveryCodes,
        Self::Session,
        Self::Invitation,
        Self::CredentialUse,
        Self::RequestBody,
        Self::Webhook,
    ];

    fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == code)
    }
}

/// One value to be stored.
#[derive(Clone, PartialEq, Eq)]
pub struct Entry {
    /// What it is.
    pub kind: Kind,
    /// Its name within the kind: 1 to [`MAX_ID_BYTES`] bytes.
    pub id: String,
    /// The value: up to [`MAX_VALUE_BYTES`].
    pub value: Vec<u8>,
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The value stays out of logs.
        write!(f, "Entry({:?} {:?}, {} bytes)", self.kind, self.id, self.value.len())
    }
}

/// What a compaction did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Compacted {
    /// Bytes on disk before.
    pub bytes_before: u64,
    /// Bytes on disk after.
    pub bytes_after: u64,
}

/// Encrypted, synced, deletable records.
///
/// A write that was begun (its future polled) goes on to its end though the future be dropped. Of two that are under way
/// at once either may come first.
pub trait Vault: Send + Sync {
    /// Stores values, replacing those of the same kinds and ids, with one sync: after a crash all of them or none.
    fn put_many(&self, entries: Vec<Entry>) -> BoxFuture<'_, Result<(), VaultError>>;

    /// Stores one value, replacing that of the same kind and id.
    fn put(&self, kind: Kind, id: &str, value: Vec<u8>) -> BoxFuture<'_, Result<(), VaultError>> {
        self.put_many(vec![Entry { kind, id: id.to_owned(), value }])
    }

    /// A value. Values over half a kilobyte are read from the disk and deciphered here, blocking the thread: read large
    /// ones (key sets) where blocking is allowed.
    fn get(&self, kind: Kind, id: &str) -> Result<Option<Vec<u8>>, VaultError>;

    /// Deletes a value and says whether there was one.
    fn delete(&self, kind: Kind, id: &str) -> BoxFuture<'_, Result<bool, VaultError>>;

    /// The ids of a kind, sorted.
    fn list(&self, kind: Kind) -> Vec<String>;

    /// Rewrites what is left and removes the files that held what was deleted or replaced. When this returns, no file of
    /// the vault holds any of it, encrypted or not; what the file system or the drive keeps of removed files is not in
    /// its hands.
    fn compact(&self) -> BoxFuture<'_, Result<Compacted, VaultError>>;
}

/// What can go wrong with a vault.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// The master key is not the one that the vault was written with.
    #[error(
        "{}: the master key is not the one this vault was written with; set {MASTER_KEY_VARIABLE} or the key file to the \
         right one",
        dir.display()
    )]
    WrongKey {
        /// The vault's folder.
        dir: PathBuf,
    },
    /// No usable master key.
    #[error("master key from {origin}: {problem}")]
    Key {
        /// Variable or file.
        origin: String,
        /// What is wrong with it and what to do.
        problem: String,
    },
    /// The log below did not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A record that the log holds soundly is not what the vault wrote there.
    #[error("{}: vault record {seq} {problem}; restore the folder from a backup", dir.display())]
    BadRecord {
        /// The vault's folder.
        dir: PathBuf,
        /// The record.
        seq: u64,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// An id is empty or too long. Nothing was stored.
    #[error("a vault id of {bytes} bytes: 1 to {MAX_ID_BYTES} are allowed")]
    BadId {
        /// Its length.
        bytes: usize,
    },
    /// The values are too large. Nothing was stored.
    #[error("{bytes} bytes in one vault write, the limit is {MAX_VALUE_BYTES}")]
    TooLarge {
        /// Their size.
        bytes: usize,
    },
    /// Not written; see [`AppendError`] for what that says of the values.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// Not read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The old files could not be removed: what was erased may still be in them. They are removed at the next start.
    #[error("{}: removing old vault files: {source}", dir.display())]
    Remove {
        /// The vault's folder.
        dir: PathBuf,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// The thread that carried out the work ended before it was done.
    #[error("the vault was interrupted")]
    Interrupted,
}

/// Refuses what no vault takes.
fn check(entries: &[Entry]) -> Result<(), VaultError> {
    if let Some(entry) = entries.iter().find(|entry| entry.id.is_empty() || entry.id.len() > MAX_ID_BYTES) {
        return Err(VaultError::BadId { bytes: entry.id.len() });
    }
    let bytes = entries.iter().map(|entry| entry.value.len()).sum();
    if bytes > MAX_VALUE_BYTES {
        return Err(VaultError::TooLarge { bytes });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
