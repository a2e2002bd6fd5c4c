//! Key sets as records of the vault.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use guidon_sdk::model::KeySetRef;

use super::{Entry, Kind, Vault, VaultError};
use crate::changes::keysets::{KeySetError, KeySetStore, NewKeySet, read_record};
use crate::state::KeySetSource;

/// The key sets of a vault. Clones share it.
#[derive(Clone)]
pub struct VaultKeySets(Arc<dyn Vault>);

impl VaultKeySets {
    /// The key sets that `vault` keeps.
    #[must_use]
    pub fn new(vault: Arc<dyn Vault>) -> Self {
        Self(vault)
    }

    /// The keys of a set; `None` if it is erased or missing. Blocks.
    ///
    /// # Errors
    ///
    /// [`KeySetError`] if what is stored cannot be read, or is not what `set` stands for.
    pub fn read(&self, set: &KeySetRef) -> Result<Option<Arc<[String]>>, KeySetError> {
        let stored = self.0.get(Kind::KeySet, &set.id).map_err(failed)?;
        stored.map(|bytes| read_record(set, &bytes)).transpose()
    }
}

impl KeySetStore for VaultKeySets {
    fn put(&self, sets: Vec<NewKeySet>) -> BoxFuture<'_, Result<(), KeySetError>> {
        let entry = |set: &NewKeySet| Entry { kind: Kind::KeySet, id: set.set.id.clone(), value: set.record() };
        let entries = sets.iter().map(entry).collect();
        async move { self.0.put_many(entries).await.map_err(failed) }.boxed()
    }

    fn get(&self, set: &KeySetRef) -> BoxFuture<'_, Result<Option<Arc<[String]>>, KeySetError>> {
        let (store, set) = (self.clone(), set.clone());
        async move {
            let read = tokio::task::spawn_blocking(move || store.read(&set)).await;
            read.unwrap_or_else(|error| Err(KeySetError::Vault(error.to_string())))
        }
        .boxed()
    }
}

impl KeySetSource for VaultKeySets {
    /// A set that cannot be read counts as erased; the log says so.
    fn keys(&self, set: &KeySetRef) -> Option<Arc<[String]>> {
        self.read(set).unwrap_or_else(|error| {
            tracing::error!(id = set.id, %error, "a key set cannot be read; it counts as empty");
            None
        })
    }
}

fn failed(error: VaultError) -> KeySetError {
    match error {
        VaultError::Append(crate::log::AppendError::DiskFull) => KeySetError::DiskFull,
        other => KeySetError::Vault(other.to_string()),
    }
}
