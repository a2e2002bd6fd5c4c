//! What works on a data folder without a server: recovering an account, backups of a stopped store, restoring one.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{StartError, backup_sources, open_files};
use crate::audit::{self, AuditLog, AuditOptions, Event, EventKind, FileAuditLog};
use crate::backup::{Contents, RestoreError, Restored, Sources, Target, restore};
use crate::changes::Author;
use crate::clock::{Clock, SystemClock};
use crate::config::MASTER_KEY;
use crate::identity::accounts::{AccountError, Accounts, Invited};
use crate::identity::password::Passwords;
use crate::identity::sessions::Sessions;
use crate::journal;
use crate::log::{self, RealFiles};
use crate::state::DataFolder;
use crate::vault::{FileVault, Kind, MasterKey, Vault, VaultError};

/// Names the file of the master key for commands that work without a server.
const MASTER_KEY_FILE_VARIABLE: &str = "GUIDON_MASTER_KEY_FILE";

/// Why an account was not recovered. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// There is no store in the folder.
    #[error("{}: there is no store in this folder; --data or GUIDON_DATA says where it is", .0.display())]
    NoStore(PathBuf),
    /// A server uses the folder.
    #[error("{0}\n  Stop the server first: `guidon account reset` works while it runs.")]
    InUse(log::OpenError),
    /// Nobody is called so.
    #[error("no local account is called {0:?}")]
    Unknown(String),
    /// The vault does not open.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// Accounts cannot be read or written.
    #[error(transparent)]
    Accounts(#[from] AccountError),
    /// The second log does not open, and nothing is done that it does not take note of.
    #[error(transparent)]
    Audit(#[from] audit::OpenError),
}

/// Makes a new invitation for the local account called `name`, whose password and second factor end now, in the data folder of
/// a server that is stopped: for whoever is left without an administrator who can sign in. It is noted in the audit trail.
///
/// # Errors
///
/// [`RecoverError`].
pub async fn recover_account(data: &Path, name: &str) -> Result<Invited, RecoverError> {
    let (files, folder, clock) = (RealFiles::shared(), DataFolder::new(data), Arc::new(SystemClock));
    if !folder.vault().is_dir() {
        return Err(RecoverError::NoStore(data.to_owned()));
    }
    let _lock = folder.lock(&*files).map_err(RecoverError::InUse)?;
    let vault = open_vault(data)?;
    let now = clock.now_ms();
    let sessions = Sessions::open(Arc::clone(&vault), now).await?;
    let accounts = Accounts::open(vault, sessions, Passwords::new().map_err(AccountError::from)?)?;
    let account = accounts.named(name).ok_or_else(|| RecoverError::Unknown(name.to_owned()))?;
    let (log, _) = FileAuditLog::open(files, &folder.security(), clock, AuditOptions::default())?;
    let invited = accounts.reset(&account, now).await?;
    let origin = Author::system().origin_id;
    let event = Event::new(now, EventKind::AccountRecovered, origin);
    log.record(Event { detail: format!("account {account}"), ..event });
    if let Err(error) = log.close() {
        tracing::error!(%error, "the security log did not close cleanly");
    }
    Ok(invited)
}

/// Opens the store of a stopped server for a backup, and has `work` take it. Blocks.
///
/// # Errors
///
/// [`StartError`] if a server uses the folder, the master key is another one, or the store is damaged.
pub fn offline_backup<T>(
    data: &Path,
    with_assignments: bool,
    with_key: bool,
    work: impl FnOnce(Sources) -> T,
) -> Result<T, StartError> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let key_file = named_key_file(data);
    let files = open_files(data.to_owned(), &key_file, MASTER_KEY.in_environment().as_deref(), Arc::clone(&clock))?;
    let mut sources = backup_sources(&files, data.to_owned(), clock)(with_assignments);
    sources.master_key = with_key.then(|| files.key.reveal());
    Ok(work(sources))
}

/// The master key that the environment gives to commands that work without a server; `None` where it gives none.
///
/// # Errors
///
/// [`VaultError::Key`] if what it gives is no key.
pub fn given_key() -> Result<Option<MasterKey>, VaultError> {
    if let Some(text) = MASTER_KEY.in_environment() {
        return MasterKey::parse(&text).map(Some);
    }
    let Some(path) = std::env::var_os(MASTER_KEY_FILE_VARIABLE).filter(|path| !path.is_empty()) else {
        return Ok(None);
    };
    let origin = PathBuf::from(&path).display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| VaultError::Key { origin, problem: error.to_string() })?;
    MasterKey::parse(&text).map(Some)
}

/// Makes a store from the backup `from` in the folder `data`, with a new history id. Sessions end, and that it was restored is in
/// its audit trail. Blocks.
///
/// # Errors
///
/// [`RestoreError`].
pub fn restore_backup(from: &Path, data: &Path, key: Option<MasterKey>) -> Result<Restored, RestoreError> {
    let finish = |folder: &Path, key: &MasterKey, contents: &Contents| {
        finish_restored(folder, key, contents).map_err(|error| error.to_string())
    };
    let target = Target { data, key, history: journal::mint(&SystemClock), finish: &finish };
    restore(&RealFiles::shared(), from, target)
}

fn finish_restored(folder: &Path, key: &MasterKey, contents: &Contents) -> Result<(), Box<dyn std::error::Error>> {
    let (files, folder) = (RealFiles::shared(), DataFolder::new(folder));
    let vault = FileVault::open(Arc::clone(&files), &folder.vault(), key)?.vault;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    runtime.block_on(async {
        // Somebody may have signed out since, or been shut out.
        for session in vault.list(Kind::Session) {
            vault.delete(Kind::Session, &session).await?;
        }
        vault.compact().await.map(drop)
    })?;
    vault.close()?;
    let (log, _) = FileAuditLog::open(files, &folder.security(), Arc::new(SystemClock), AuditOptions::default())?;
    let event = Event::new(SystemClock.now_ms(), EventKind::Restored, Author::system().origin_id);
    let (history, revision) = (&contents.header.history, contents.manifest.revision);
    log.record(Event { detail: format!("revision {revision} of the history {history}"), ..event });
    Ok(log.close()?)
}

/// The file of the master key for commands that work without a server.
fn named_key_file(data: &Path) -> PathBuf {
    let named = std::env::var_os(MASTER_KEY_FILE_VARIABLE).filter(|path| !path.is_empty());
    named.map_or_else(|| DataFolder::new(data).master_key(), PathBuf::from)
}

/// Opens the vault of the data folder `data` for a command that works without a server. Blocks.
///
/// # Errors
///
/// [`VaultError`] if a server has it open, if the master key is another one, or if the vault is damaged.
pub fn open_vault(data: &Path) -> Result<Arc<dyn Vault>, VaultError> {
    let folder = DataFolder::new(data);
    let key_file = named_key_file(data);
    let (key, _) = MasterKey::load_or_create(MASTER_KEY.in_environment().as_deref(), &key_file, &folder.vault())?;
    Ok(Arc::new(FileVault::open(RealFiles::shared(), &folder.vault(), &key)?.vault))
}
