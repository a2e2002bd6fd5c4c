//! The data folder: what lies where.

use std::path::{Path, PathBuf};

use crate::log::files::LockError;
use crate::log::{Files, OpenError};

/// A server's data folder.
///
/// ```text
/// lock             held by the server, or the command, that uses the folder
/// master.key       the vault's key, unless it comes from the environment
/// journal/         the truth
/// vault/           what must be erasable or secret
/// assignments/     the assignment log
/// notifications/   how far webhooks got
/// security/        refusals, sign-ins, credential events
/// state/           a copy of the folded journal, which may be removed at any time
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataFolder {
    root: PathBuf,
}

impl DataFolder {
    /// The data folder at `root`. Nothing is created.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The folder itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where the journal is.
    #[must_use]
    pub fn journal(&self) -> PathBuf {
        self.root.join("journal")
    }

    /// Where the vault is.
    #[must_use]
    pub fn vault(&self) -> PathBuf {
        self.root.join("vault")
    }

    /// The file that holds the vault's key.
    #[must_use]
    pub fn master_key(&self) -> PathBuf {
        self.root.join("master.key")
    }

    /// Where the assignment log is.
    #[must_use]
    pub fn assignments(&self) -> PathBuf {
        self.root.join("assignments")
    }

    /// Where the log of refusals, sign-ins and credential events is.
    #[must_use]
    pub fn security(&self) -> PathBuf {
        self.root.join("security")
    }

    /// Where is kept how far webhooks got.
    #[must_use]
    pub fn notifications(&self) -> PathBuf {
        self.root.join("notifications")
    }

    /// Where the copy of the folded journal is.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.root.join("state")
    }

    /// Creates the folder if it is missing and takes its lock until the guard is dropped. To be held by whoever opens the
    /// state, which has no lock of its own that could be told from damage.
    ///
    /// # Errors
    ///
    /// [`OpenError::Locked`] while another process, or another part of this one, uses the folder.
    pub fn lock(&self, files: &dyn Files) -> Result<FolderLock, OpenError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| OpenError::Io { path, source }
        };
        files.create_dir_all(&self.root).map_err(io(&self.root))?;
        let path = self.root.join("lock");
        match files.lock(&path) {
            Ok(guard) => Ok(FolderLock { _guard: guard }),
            Err(LockError::Held { pid }) => Err(OpenError::Locked { dir: self.root.clone(), pid }),
            Err(LockError::Io(source)) => Err(io(&path)(source)),
        }
    }
}

/// Holds a data folder until dropped.
#[derive(Debug)]
pub struct FolderLock {
    _guard: Box<dyn crate::log::files::LockGuard>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::RealFiles;

    #[test]
    fn one_at_a_time() {
        let dir = tempfile::tempdir().expect("a folder");
        let folder = DataFolder::new(dir.path().join("a/b"));
        let lock = folder.lock(&RealFiles).expect("free");
        assert!(matches!(folder.lock(&RealFiles), Err(OpenError::Locked { .. })));
        drop(lock);
        folder.lock(&RealFiles).expect("free again");
    }
}
