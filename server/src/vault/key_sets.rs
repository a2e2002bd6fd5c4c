//! Key sets as records of the vault.

use std::collections::HashSet;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use guidon_sdk::model::KeySetRef;

use super::{Entry, Kind, MAX_VALUE_BYTES, Vault, VaultError};
use crate::changes::keysets::{
    ErasedSets, KeySetError, KeySetStore, NewKeySet, read_record, record_holds, record_without,
};
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

    /// Does what reads large records where blocking is allowed.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Vault) -> Result<T, KeySetError> + Send + 'static,
    ) -> Result<T, KeySetError> {
        let vault = Arc::clone(&self.0);
        let done = tokio::task::spawn_blocking(move || work(&*vault)).await;
        done.unwrap_or_else(|error| Err(KeySetError::Vault(error.to_string())))
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

    fn holding(&self, sets: Vec<KeySetRef>, key: String) -> BoxFuture<'_, Result<Vec<KeySetRef>, KeySetError>> {
        self.blocking(move |vault| {
            let mut holding = Vec::new();
            for set in sets {
                if vault.get(Kind::KeySet, &set.id).map_err(failed)?.is_some_and(|bytes| record_holds(&bytes, &key)) {
                    holding.push(set);
                }
            }
            Ok(holding)
        })
        .boxed()
    }

    fn erase(
        &self,
        sets: Vec<KeySetRef>,
        key: String,
        referenced: HashSet<String>,
    ) -> BoxFuture<'_, Result<ErasedSets, KeySetError>> {
        async move {
            let (mut erased, mut sets) = (ErasedSets::default(), sets.into_iter());
            while sets.len() > 0 {
                let (key, mut rest) = (key.clone(), sets);
                let (batch, left) =
                    self.blocking(move |vault| Ok((batch_without(vault, &mut rest, &key)?, rest))).await?;
                sets = left;
                erased.rewritten += batch.len();
                self.0.put_many(batch).await.map_err(failed)?;
            }
            let unreferenced = self.blocking(move |vault| {
                let mut found = vault.list(Kind::KeySet);
                found.retain(|id| !referenced.contains(id));
                let mut holding = Vec::new();
                for id in found {
                    if vault.get(Kind::KeySet, &id).map_err(failed)?.is_some_and(|bytes| record_holds(&bytes, &key)) {
                        holding.push(id);
                    }
                }
                Ok(holding)
            });
            for id in unreferenced.await? {
                erased.deleted += usize::from(self.0.delete(Kind::KeySet, &id).await.map_err(failed)?);
            }
            Ok(erased)
        }
        .boxed()
    }

    fn purge(&self) -> BoxFuture<'_, Result<(), KeySetError>> {
        async move { self.0.compact().await.map(drop).map_err(failed) }.boxed()
    }
}

/// The records of the next `sets` without `key`, as many as one write takes.
fn batch_without(
    vault: &dyn Vault,
    sets: &mut impl Iterator<Item = KeySetRef>,
    key: &str,
) -> Result<Vec<Entry>, KeySetError> {
    let (mut batch, mut bytes) = (Vec::new(), 0);
    // A record gets no larger by this than by what it says of the erased places; half of what fits leaves room for the last.
    while bytes < MAX_VALUE_BYTES / 2 {
        let Some(set) = sets.next() else { break };
        let Some(stored) = vault.get(Kind::KeySet, &set.id).map_err(failed)? else { continue };
        if let Some(value) = record_without(&set, &stored, key, rand::random())? {
            bytes += value.len();
            batch.push(Entry { kind: Kind::KeySet, id: set.id, value });
        }
    }
    Ok(batch)
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
        VaultError::TooLarge { bytes } => KeySetError::TooLarge { bytes, limit: MAX_VALUE_BYTES },
        other => KeySetError::Vault(other.to_string()),
    }
}
