//! A vault in memory, for tests and simulations. It forgets everything when dropped.

use std::collections::BTreeMap;

use futures_util::future::{BoxFuture, FutureExt, ready};
use parking_lot::Mutex;

use super::{Compacted, Entry, Kind, Vault, VaultError, check};

/// A vault in memory.
#[derive(Debug, Default)]
pub struct MemoryVault {
    values: Mutex<BTreeMap<(Kind, String), Vec<u8>>>,
}

impl MemoryVault {
    /// An empty vault.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Vault for MemoryVault {
    fn put_many(&self, entries: Vec<Entry>) -> BoxFuture<'_, Result<(), VaultError>> {
        let stored = check(&entries).map(|()| {
            let entries = entries.into_iter().map(|entry| ((entry.kind, entry.id), entry.value));
            self.values.lock().extend(entries);
        });
        ready(stored).boxed()
    }

    fn get(&self, kind: Kind, id: &str) -> Result<Option<Vec<u8>>, VaultError> {
        Ok(self.values.lock().get(&(kind, id.to_owned())).cloned())
    }

    fn delete(&self, kind: Kind, id: &str) -> BoxFuture<'_, Result<bool, VaultError>> {
        ready(Ok(self.values.lock().remove(&(kind, id.to_owned())).is_some())).boxed()
    }

    fn list(&self, kind: Kind) -> Vec<String> {
        self.values.lock().keys().filter(|(of, _)| *of == kind).map(|(_, id)| id.clone()).collect()
    }

    fn compact(&self) -> BoxFuture<'_, Result<Compacted, VaultError>> {
        ready(Ok(Compacted::default())).boxed()
    }
}
