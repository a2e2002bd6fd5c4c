//! What a request asks for: in the vault, since it may hold people's keys.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::{self, BoxFuture};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::changes::Instruction;
use crate::log;
use crate::vault::{Kind, Vault, VaultError};

/// What a request asks for, whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Body {
    /// Key of the project.
    pub project: String,
    /// Environment that environment-bound instructions apply to, unless they name one themselves.
    pub environment: Option<String>,
    /// Revision it was read against.
    pub base_revision: u64,
    /// Random, so that the hash tells nothing of keys that can be guessed.
    pub nonce: String,
    /// The edits, as their author sent them.
    pub instructions: Vec<Instruction>,
}

/// Why a body could not be stored or read.
#[derive(Clone, Debug, thiserror::Error)]
pub enum BodyError {
    /// The volume is full.
    #[error("the volume that holds the vault is full")]
    DiskFull,
    /// It is larger than the vault takes.
    #[error("what the change request asks for takes {bytes} bytes; at most {limit} fit")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The largest size.
        limit: usize,
    },
    /// It was erased, or is not what was stored.
    #[error("what the change request asks for {0}")]
    Unreadable(&'static str),
    /// The vault did not answer.
    #[error("the vault failed: {0}")]
    Vault(String),
}

impl Body {
    /// The bytes to be stored, and their BLAKE3 in hexadecimal.
    ///
    /// # Errors
    ///
    /// [`BodyError::Unreadable`] if it has no JSON form.
    pub fn seal(&self) -> Result<(Vec<u8>, String), BodyError> {
        let bytes = serde_json::to_vec(self).map_err(|_| BodyError::Unreadable("cannot be written as JSON"))?;
        let hash = blake3::hash(&bytes).to_hex().to_string();
        Ok((bytes, hash))
    }

    /// Reads the stored bytes of the body with this hash.
    ///
    /// # Errors
    ///
    /// [`BodyError::Unreadable`] if they are not.
    pub fn open(bytes: &[u8], hash: &str) -> Result<Self, BodyError> {
        if blake3::hash(bytes).to_hex().as_str() != hash {
            return Err(BodyError::Unreadable("is not what its hash says"));
        }
        serde_json::from_slice(bytes).map_err(|_| BodyError::Unreadable("cannot be read by this version"))
    }
}

/// Whether stored bytes are the body of a request of `project` that holds a person's `key`.
fn holds(bytes: &[u8], project: &str, key: &str) -> bool {
    fn is_in(value: &Value, key: &str) -> bool {
        match value {
            Value::String(text) => text == key,
            Value::Array(items) => items.iter().any(|item| is_in(item, key)),
            Value::Object(fields) => fields.values().any(|field| is_in(field, key)),
            _ => false,
        }
    }
    // Read as plain JSON: an instruction of a later version may hold a key too.
    serde_json::from_slice::<Value>(bytes)
        .is_ok_and(|body| body["project"] == project && is_in(&body["instructions"], key))
}

/// Where bodies are kept, by their hash.
pub trait RequestStore: Send + Sync + 'static {
    /// Stores a body; done once it is durable.
    fn put(&self, hash: &str, bytes: Vec<u8>) -> BoxFuture<'_, Result<(), BodyError>>;

    /// The body with this hash.
    fn get(&self, hash: &str) -> BoxFuture<'_, Result<Body, BodyError>>;

    /// Deletes the body with this hash, if it is there.
    fn remove(&self, hash: &str) -> BoxFuture<'_, Result<(), BodyError>>;

    /// Deletes the bodies of requests of `project` that hold a person's `key`, and answers how many.
    fn erase(&self, project: String, key: String) -> BoxFuture<'_, Result<usize, BodyError>>;
}

/// Bodies in a vault.
#[derive(Clone)]
pub struct VaultRequests {
    vault: Arc<dyn Vault>,
}

impl VaultRequests {
    /// Keeps bodies in `vault`.
    #[must_use]
    pub fn new(vault: Arc<dyn Vault>) -> Self {
        Self { vault }
    }
}

impl RequestStore for VaultRequests {
    fn put(&self, hash: &str, bytes: Vec<u8>) -> BoxFuture<'_, Result<(), BodyError>> {
        let hash = hash.to_owned();
        async move { self.vault.put(Kind::RequestBody, &hash, bytes).await.map_err(BodyError::from) }.boxed()
    }

    fn get(&self, hash: &str) -> BoxFuture<'_, Result<Body, BodyError>> {
        let (vault, hash) = (Arc::clone(&self.vault), hash.to_owned());
        // Reading a large body reads the disk and deciphers.
        let reading = tokio::task::spawn_blocking(move || {
            let bytes = vault.get(Kind::RequestBody, &hash)?.ok_or(BodyError::Unreadable("was erased"))?;
            Body::open(&bytes, &hash)
        });
        async move { reading.await.map_err(|error| BodyError::Vault(error.to_string()))? }.boxed()
    }

    fn remove(&self, hash: &str) -> BoxFuture<'_, Result<(), BodyError>> {
        let hash = hash.to_owned();
        async move { self.vault.delete(Kind::RequestBody, &hash).await.map(|_| ()).map_err(BodyError::from) }.boxed()
    }

    fn erase(&self, project: String, key: String) -> BoxFuture<'_, Result<usize, BodyError>> {
        let vault = Arc::clone(&self.vault);
        let finding = tokio::task::spawn_blocking(move || {
            let mut found = Vec::new();
            for id in vault.list(Kind::RequestBody) {
                if vault.get(Kind::RequestBody, &id)?.is_some_and(|bytes| holds(&bytes, &project, &key)) {
                    found.push(id);
                }
            }
            Ok::<_, BodyError>(found)
        });
        async move {
            let mut erased = 0;
            for id in finding.await.map_err(|error| BodyError::Vault(error.to_string()))?? {
                erased += usize::from(self.vault.delete(Kind::RequestBody, &id).await?);
            }
            Ok(erased)
        }
        .boxed()
    }
}

impl From<VaultError> for BodyError {
    fn from(error: VaultError) -> Self {
        match error {
            VaultError::Append(log::AppendError::DiskFull) => Self::DiskFull,
            VaultError::TooLarge { bytes } => Self::TooLarge { bytes, limit: crate::vault::MAX_VALUE_BYTES },
            other => Self::Vault(other.to_string()),
        }
    }
}

/// Bodies in memory: for tests and simulations.
#[derive(Clone, Debug, Default)]
pub struct MemoryRequests {
    bodies: Arc<Mutex<HashMap<String, Vec<u8>>>>,
}

impl MemoryRequests {
    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.bodies.lock().len()
    }
}

impl RequestStore for MemoryRequests {
    fn put(&self, hash: &str, bytes: Vec<u8>) -> BoxFuture<'_, Result<(), BodyError>> {
        self.bodies.lock().insert(hash.to_owned(), bytes);
        future::ready(Ok(())).boxed()
    }

    fn get(&self, hash: &str) -> BoxFuture<'_, Result<Body, BodyError>> {
        let found = self.bodies.lock().get(hash).map(|bytes| Body::open(bytes, hash));
        future::ready(found.unwrap_or(Err(BodyError::Unreadable("was erased")))).boxed()
    }

    fn remove(&self, hash: &str) -> BoxFuture<'_, Result<(), BodyError>> {
        self.bodies.lock().remove(hash);
        future::ready(Ok(())).boxed()
    }

    fn erase(&self, project: String, key: String) -> BoxFuture<'_, Result<usize, BodyError>> {
        let mut bodies = self.bodies.lock();
        let before = bodies.len();
        bodies.retain(|_, bytes| !holds(bytes, &project, &key));
        future::ready(Ok(before - bodies.len())).boxed()
    }
}
