//! The last good snapshot on disk, so that an application starts with the server down.
//!
//! The file is one header line, `guidon-snapshot/1 <checksum> <scope>`, and the snapshot as JSON. The checksum is BLAKE3 of
//! the JSON; the scope is BLAKE3 of server address and SDK key, so that the file of another environment is never served. A file
//! without a header, written by hand or exported, is taken as it is.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::snapshot::Snapshot;

/// Format of the first line.
const MAGIC: &str = "guidon-snapshot/1";
/// Largest file that is read, in bytes.
pub const MAX_FILE_BYTES: u64 = 256 << 20;
/// Pause between a change and its writing, so that a burst of changes is written once.
const DEBOUNCE: Duration = Duration::from_millis(500);

/// Names what a file may be served for, without telling the key.
pub(super) fn scope(address: &str, sdk_key: &str) -> String {
    let mut hasher = blake3::Hasher::new_derive_key("guidon sdk snapshot file scope v1");
    hasher.update(address.as_bytes()).update(&[0]).update(sdk_key.as_bytes());
    hasher.finalize().to_hex()[..32].to_owned()
}

/// What was found on disk.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) json: String,
    /// The SDK itself wrote it: its revision is one of this server's, so that a patch may be asked for.
    pub(super) own: bool,
}

/// Why a file is of no use.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoadError {
    #[error("there is no such file")]
    Missing,
    #[error("it cannot be read: {0}")]
    Io(io::Error),
    #[error("it is larger than {MAX_FILE_BYTES} bytes")]
    TooLarge,
    #[error("its header is malformed")]
    Header,
    #[error("its checksum is wrong: it is damaged")]
    Checksum,
    #[error("it was written for another server or SDK key")]
    Scope,
}

pub(super) fn load(path: &Path, scope: &str) -> Result<Stored, LoadError> {
    let found = fs::metadata(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => LoadError::Missing,
        _ => LoadError::Io(error),
    })?;
    if found.len() > MAX_FILE_BYTES {
        return Err(LoadError::TooLarge);
    }
    let text = fs::read_to_string(path).map_err(LoadError::Io)?;
    if text.trim_start().starts_with('{') {
        return Ok(Stored { json: text, own: false });
    }
    let (header, json) = text.split_once('\n').ok_or(LoadError::Header)?;
    let mut words = header.split(' ');
    let (Some(MAGIC), Some(checksum), Some(written_for), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(LoadError::Header);
    };
    if blake3::hash(json.as_bytes()).to_hex().as_str() != checksum {
        return Err(LoadError::Checksum);
    }
    if written_for != scope {
        return Err(LoadError::Scope);
    }
    Ok(Stored { json: json.to_owned(), own: true })
}

/// Replaces the file whole: a reader, and a start after a crash, sees the old one or the new one.
pub(super) fn store(path: &Path, scope: &str, json: &str) -> io::Result<()> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut name = path.file_name().unwrap_or_default().to_owned();
    // The process id keeps two applications that share the file from writing into one another's.
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = directory.join(name);
    let written = write_synced(&temporary, scope, json).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
        return written;
    }
    if cfg!(unix) { File::open(directory)?.sync_all() } else { Ok(()) }
}

fn write_synced(path: &Path, scope: &str, json: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    let checksum = blake3::hash(json.as_bytes()).to_hex();
    file.write_all(format!("{MAGIC} {checksum} {scope}\n").as_bytes())?;
    file.write_all(json.as_bytes())?;
    file.sync_all()
}

/// Writes snapshots on a thread of its own. Dropping it writes what is pending, on that thread.
pub(super) struct Keeper {
    slot: Arc<Slot>,
}

#[derive(Default)]
struct Slot {
    state: Mutex<Pending>,
    changed: Condvar,
}

#[derive(Default)]
struct Pending {
    snapshot: Option<Arc<Snapshot>>,
    writing: bool,
    ended: bool,
}

impl Slot {
    fn lock(&self) -> std::sync::MutexGuard<'_, Pending> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Keeper {
    pub(super) fn start(path: PathBuf, scope: String) -> io::Result<Self> {
        let slot = Arc::new(Slot::default());
        let shared = Arc::clone(&slot);
        std::thread::Builder::new().name("guidon-snapshot".to_owned()).spawn(move || keep(&shared, &path, &scope))?;
        Ok(Self { slot })
    }

    /// The snapshot to have on disk from now on. Returns at once.
    pub(super) fn keep(&self, snapshot: Arc<Snapshot>) {
        self.slot.lock().snapshot = Some(snapshot);
        self.slot.changed.notify_all();
    }

    /// Ends the debouncing and waits, at most `limit`, until nothing is pending. Blocks: not for async threads.
    pub(super) fn finish(&self, limit: Duration) -> bool {
        let mut state = self.slot.lock();
        state.ended = true;
        self.slot.changed.notify_all();
        let busy = |state: &mut Pending| state.snapshot.is_some() || state.writing;
        let (state, _) =
            self.slot.changed.wait_timeout_while(state, limit, busy).unwrap_or_else(PoisonError::into_inner);
        state.snapshot.is_none() && !state.writing
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.slot.lock().ended = true;
        self.slot.changed.notify_all();
    }
}

fn keep(slot: &Slot, path: &Path, scope: &str) {
    let mut state = slot.lock();
    loop {
        while state.snapshot.is_none() && !state.ended {
            state = slot.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let debounced = slot.changed.wait_timeout_while(state, DEBOUNCE, |state| !state.ended);
        state = debounced.unwrap_or_else(PoisonError::into_inner).0;
        let Some(snapshot) = state.snapshot.take() else { return };
        state.writing = true;
        drop(state);
        let written =
            serde_json::to_string(&*snapshot).map_err(io::Error::other).and_then(|json| store(path, scope, &json));
        if let Err(error) = written {
            tracing::warn!(file = %path.display(), %error, "the snapshot file could not be written; the next change tries again");
        }
        state = slot.lock();
        state.writing = false;
        slot.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_is_loaded_and_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("flags.json");
        assert!(matches!(load(&path, "s"), Err(LoadError::Missing)));
        store(&path, "s", "{\"a\":1}").unwrap();
        store(&path, "s", "{\"a\":2}").unwrap();
        let stored = load(&path, "s").unwrap();
        assert_eq!((stored.json.as_str(), stored.own), ("{\"a\":2}", true));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file stays");
        #[cfg(unix)]
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions()) & 0o777, 0o600);
    }

    #[test]
    fn a_file_of_another_environment_is_not_served() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("flags.json");
        let (mine, other) = (scope("http://a", "key-1"), scope("http://a", "key-2"));
        assert_ne!(mine, other);
        store(&path, &mine, "{}").unwrap();
        assert!(matches!(load(&path, &other), Err(LoadError::Scope)));
    }

    #[test]
    fn any_flipped_byte_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("flags.json");
        store(&path, "scope", "{\"revision\":\"h:1\"}").unwrap();
        let good = fs::read(&path).unwrap();
        for place in 0..good.len() {
            let mut bad = good.clone();
            bad[place] ^= 0x01;
            fs::write(&path, &bad).unwrap();
            assert!(load(&path, "scope").is_err(), "byte {place}");
        }
        for length in 0..good.len() {
            fs::write(&path, &good[..length]).unwrap();
            assert!(load(&path, "scope").is_err(), "cut at {length}");
        }
    }

    #[test]
    fn a_file_without_header_is_taken_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("flags.json");
        fs::write(&path, " {\"revision\":\"h:1\"}").unwrap();
        assert!(!load(&path, "scope").unwrap().own);
    }
}
