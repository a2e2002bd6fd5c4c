//! Where the records of deliveries are kept: a file for each webhook, replaced whole.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;

use super::HookRecord;
use crate::log::Files;
use crate::log::files::{TEMPORARY_SUFFIX, create_whole, read_fully};

/// Keeps records. All calls block.
pub trait RecordStore: Send + Sync + 'static {
    /// The record of a webhook, if one is kept.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    fn load(&self, project: &str, id: &str) -> io::Result<Option<HookRecord>>;

    /// Keeps a record. When this returns it is durable.
    ///
    /// # Errors
    ///
    /// If it cannot be written; the one before stays.
    fn save(&self, project: &str, id: &str, record: &HookRecord) -> io::Result<()>;

    /// Removes what is kept of webhooks that `keep` does not name.
    ///
    /// # Errors
    ///
    /// If the folder cannot be read, or a file not be removed.
    fn retain(&self, keep: &dyn Fn(&str, &str) -> bool) -> io::Result<()>;
}

/// Keeps records in a folder.
pub struct FileRecordStore {
    files: Arc<dyn Files>,
    folder: PathBuf,
}

/// Keeps records in memory.
#[derive(Default)]
pub struct MemoryRecordStore(Mutex<BTreeMap<(String, String), HookRecord>>);

impl RecordStore for MemoryRecordStore {
    fn load(&self, project: &str, id: &str) -> io::Result<Option<HookRecord>> {
        Ok(self.0.lock().get(&(project.to_owned(), id.to_owned())).cloned())
    }

    fn save(&self, project: &str, id: &str, record: &HookRecord) -> io::Result<()> {
        self.0.lock().insert((project.to_owned(), id.to_owned()), record.clone());
        Ok(())
    }

    fn retain(&self, keep: &dyn Fn(&str, &str) -> bool) -> io::Result<()> {
        self.0.lock().retain(|(project, id), _| keep(project, id));
        Ok(())
    }
}

const SUFFIX: &str = ".json";

impl FileRecordStore {
    /// Keeps records in `folder`, which is created if it is missing.
    ///
    /// # Errors
    ///
    /// If it cannot be created.
    pub fn open(files: Arc<dyn Files>, folder: PathBuf) -> io::Result<Self> {
        files.create_dir_all(&folder)?;
        Ok(Self { files, folder })
    }

    fn path(&self, project: &str, id: &str) -> PathBuf {
        // Neither has a character that a path would take for anything else.
        self.folder.join(format!("{project}~{id}{SUFFIX}"))
    }
}

impl RecordStore for FileRecordStore {
    fn load(&self, project: &str, id: &str) -> io::Result<Option<HookRecord>> {
        let file = match self.files.open(&self.path(project, id)) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = vec![0; usize::try_from(file.len()?).unwrap_or(0)];
        let read = read_fully(&*file, 0, &mut bytes)?;
        serde_json::from_slice(&bytes[..read]).map(Some).map_err(|error| io::Error::new(ErrorKind::InvalidData, error))
    }

    fn save(&self, project: &str, id: &str, record: &HookRecord) -> io::Result<()> {
        let path = self.path(project, id);
        let bytes = serde_json::to_vec(record)?;
        match create_whole(&*self.files, &path, &bytes) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                // Left behind by a process that ended while it wrote.
                let mut temporary = path.clone().into_os_string();
                temporary.push(TEMPORARY_SUFFIX);
                self.files.remove(&PathBuf::from(temporary))?;
                create_whole(&*self.files, &path, &bytes).map(|_| ())
            }
            other => other.map(|_| ()),
        }
    }

    fn retain(&self, keep: &dyn Fn(&str, &str) -> bool) -> io::Result<()> {
        for name in self.files.list(&self.folder)? {
            let hook = name.strip_suffix(SUFFIX).and_then(|name| name.rsplit_once('~'));
            if hook.is_some_and(|(project, id)| !keep(project, id)) {
                self.files.remove(&self.folder.join(&name))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::RealFiles;
    use crate::notifications::Webhook;

    #[test]
    fn records_are_replaced_whole_and_those_of_deleted_webhooks_go() {
        let folder = tempfile::tempdir().unwrap();
        let store = FileRecordStore::open(RealFiles::shared(), folder.path().join("notifications")).unwrap();
        let hook: Webhook = serde_json::from_value(serde_json::json!({
            "id": "hook-1", "name": "", "target": "https://a/…", "urlRef": "u", "format": "json", "enabled": true,
            "secretRef": "s", "since": {"revision": 3, "at": 5}, "createdAt": 5, "updatedAt": 5}))
        .unwrap();
        let mut record = HookRecord::new(&hook, 10);
        assert_eq!(store.load("shop", "hook-1").unwrap(), None);
        store.save("shop", "hook-1", &record).unwrap();
        record.entries_done = 9;
        std::fs::write(folder.path().join("notifications/shop~hook-1.json.new"), "torn").unwrap();
        store.save("shop", "hook-1", &record).unwrap();
        store.save("a.b_c-d", "hook-1", &record).unwrap();
        assert_eq!(store.load("shop", "hook-1").unwrap(), Some(record));
        store.retain(&|project, _| project != "shop").unwrap();
        assert_eq!(store.load("shop", "hook-1").unwrap(), None);
        assert!(store.load("a.b_c-d", "hook-1").unwrap().is_some());
    }
}
