//! Backups: one file that holds a whole store as it was at one revision, taken while it serves.
//!
//! A backup copies the records of each log up to where the log ended when the backup began, in the bytes they are stored in:
//! the vault's stay sealed, so that a backup without the master key shows nothing of it. `docs/STORAGE.md` has the form.
//! Everything is checked before a restored store appears, and it has a history id of its own: its revisions are not the old
//! ones.

mod create;
mod format;
mod read;
mod restore;

pub use self::create::{BackupError, Producer, Sources};
pub use self::format::{BackupKey, FORMAT, Header, MAX_BLOCK_BYTES, Manifest, Part};
pub use self::read::{Contents, ReadBackupError, Records, read};
pub use self::restore::{RestoreError, Restored, Target, restore};

#[cfg(test)]
mod tests;
