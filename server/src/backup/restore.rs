//! Making a store from a backup: checked whole, built beside its place, and put there in one step.

use std::fs::{self, File};
use std::io::{self, BufReader};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::format::{BackupKey, Part};
use super::read::{Contents, ReadBackupError, Records, read};
use crate::journal;
use crate::log::{self, Files, Log, LogId};
use crate::state::DataFolder;
use crate::vault::MasterKey;

/// How much of the file is read ahead, in bytes.
const READ_AHEAD_BYTES: usize = 1 << 20;

/// Puts the finishing touches to a store that was built in the folder: opens its vault with the key, which checks it.
pub type Finish<'a> = dyn Fn(&Path, &MasterKey, &Contents) -> Result<(), String> + 'a;

/// Where a store is restored to, and how.
pub struct Target<'a> {
    /// The data folder: missing or empty.
    pub data: &'a Path,
    /// The master key, if the operator gave one.
    pub key: Option<MasterKey>,
    /// Identity of the new journal, and so the new history id.
    pub history: LogId,
    /// What is done before the store is put in its place.
    pub finish: &'a Finish<'a>,
}

/// What was restored.
#[derive(Clone, Debug)]
pub struct Restored {
    /// What the backup held.
    pub contents: Contents,
    /// The new history id.
    pub history: String,
    /// Whether the master key was in the backup, and is in the data folder now.
    pub key_file: Option<PathBuf>,
}

/// Why nothing was restored. No store was made, and none was changed.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The backup is not what was written.
    #[error("{}: {source}", path.display())]
    Backup {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: ReadBackupError,
    },
    /// The master key is needed.
    #[error(
        "the backup is sealed with the master key {0}, which is not in it; set GUIDON_MASTER_KEY, or GUIDON_MASTER_KEY_FILE \
         to the path of its file"
    )]
    KeyNeeded(String),
    /// The key that is in the backup is none.
    #[error("the master key in the backup: {0}")]
    BadKey(String),
    /// The place is taken.
    #[error("{}: the data folder is not empty; a backup is restored into a new one", .0.display())]
    Taken(PathBuf),
    /// What was restored is not a store.
    #[error("what was restored is not sound, and was removed: {0}")]
    NotSound(String),
    /// The operating system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Its answer.
        source: io::Error,
    },
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> RestoreError {
    let path = path.to_owned();
    move |source| RestoreError::Io { path, source }
}

/// Makes a store from the backup in the file `from`. Blocks.
///
/// # Errors
///
/// [`RestoreError`].
pub fn restore(files: &Arc<dyn Files>, from: &Path, target: Target<'_>) -> Result<Restored, RestoreError> {
    let data = target.data;
    match fs::read_dir(data).map(|mut entries| entries.next().is_some()) {
        Ok(true) => return Err(RestoreError::Taken(data.to_owned())),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at(data)(error)),
        _ => {}
    }
    // Read twice: nothing is written of a backup that is not whole.
    let contents = pass(from, target.key.as_ref().map(BackupKey::of).as_ref(), &mut |_| Ok(()))?;
    let (key, brought) = match (target.key.clone(), &contents.master_key) {
        (Some(key), _) => (key, None),
        (None, Some(text)) => {
            let key = MasterKey::parse(text).map_err(|error| RestoreError::BadKey(error.to_string()))?;
            (key, Some(text.clone()))
        }
        (None, None) => return Err(RestoreError::KeyNeeded(contents.header.master_key_id)),
    };
    let mut building = data.as_os_str().to_owned();
    building.push(".restoring");
    let building = PathBuf::from(building);
    remove_if_there(&building).map_err(at(&building))?;
    let done = build(files, from, &target, &key, brought.as_deref(), &building).and_then(|contents| {
        publish(&building, data).map_err(at(data))?;
        Ok(contents)
    });
    match done {
        Ok(contents) => Ok(Restored {
            contents,
            history: uuid::Uuid::from_bytes(target.history).simple().to_string(),
            key_file: brought.map(|_| DataFolder::new(data).master_key()),
        }),
        Err(error) => {
            // The reason of the failure is worth more than the leftovers, which the next restore removes.
            let _ = remove_if_there(&building);
            Err(error)
        }
    }
}

fn pass(
    from: &Path,
    key: Option<&BackupKey>,
    sink: &mut dyn FnMut(Records) -> Result<(), String>,
) -> Result<Contents, RestoreError> {
    let mut input = BufReader::with_capacity(READ_AHEAD_BYTES, File::open(from).map_err(at(from))?);
    read(&mut input, key, sink).map_err(|source| RestoreError::Backup { path: from.to_owned(), source })
}

fn remove_if_there(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn publish(building: &Path, to: &Path) -> io::Result<()> {
    File::open(building)?.sync_all()?;
    fs::rename(building, to)?;
    let dir = to.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(dir)?.sync_all()
}

fn folder_of(data: &DataFolder, part: Part) -> PathBuf {
    match part {
        Part::Journal => data.journal(),
        Part::Security => data.security(),
        Part::Assignments => data.assignments(),
        Part::Vault => data.vault(),
    }
}

fn build(
    files: &Arc<dyn Files>,
    from: &Path,
    target: &Target<'_>,
    key: &MasterKey,
    brought: Option<&str>,
    building: &Path,
) -> Result<Contents, RestoreError> {
    fs::DirBuilder::new().mode(0o700).create(building).map_err(at(building))?;
    let folder = DataFolder::new(building);
    let mut open: Option<(Part, Log)> = None;
    let contents = pass(from, Some(&BackupKey::of(key)), &mut |records| {
        if open.as_ref().is_none_or(|(part, _)| *part != records.part) {
            if let Some((part, log)) = open.take() {
                log.close().map_err(|error| format!("{part}: {error}"))?;
            }
            let id = (records.part == Part::Journal).then_some(target.history);
            let dir = folder_of(&folder, records.part);
            open = Some((records.part, begin(files, &dir, records.part, id, records.first_seq)?));
        }
        let Some((part, log)) = &open else { return Ok(()) };
        if records.starts_segment {
            log.start_segment();
        }
        let mut last = None;
        for record in records.records {
            last = Some(log.append(record).map_err(|error| format!("{part}: {error}"))?);
        }
        last.map_or(Ok(()), |last| last.wait().map(drop).map_err(|error| format!("{part}: {error}")))
    })?;
    if let Some((part, log)) = open {
        log.close().map_err(|error| RestoreError::NotSound(format!("{part}: {error}")))?;
    }
    if !folder.journal().is_dir() {
        return Err(RestoreError::NotSound("the backup holds no entry of the journal".to_owned()));
    }
    if let Some(text) = brought {
        let path = folder.master_key();
        let written = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let written = written.and_then(|mut file| {
            io::Write::write_all(&mut file, format!("{text}\n").as_bytes())?;
            file.sync_all()
        });
        written.map_err(at(&path))?;
    }
    let verified = journal::verify(&**files, &folder.journal(), &mut |_| {});
    let verified = verified.map_err(|error| RestoreError::NotSound(error.to_string()))?;
    if verified.head.hash.to_string() != contents.manifest.journal_hash {
        return Err(RestoreError::NotSound("the journal does not end where the manifest says".to_owned()));
    }
    (target.finish)(building, key, &contents).map_err(RestoreError::NotSound)?;
    Ok(contents)
}

fn begin(files: &Arc<dyn Files>, dir: &Path, part: Part, id: Option<LogId>, first_seq: u64) -> Result<Log, String> {
    let kind = part.log_kind();
    // Segments begin where those of the original did.
    let options = log::Options { segment_bytes: u64::MAX, id, ..log::Options::default() };
    log::begin_at(&**files, dir, kind, &options, first_seq).map_err(|error| format!("{part}: {error}"))?;
    Log::open(Arc::clone(files), dir, kind, options, |_| {}).map(|(log, _)| log).map_err(|error| error.to_string())
}
