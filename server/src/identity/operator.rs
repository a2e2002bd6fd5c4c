//! The operator, who holds the token the server was started with, and the record of who and where journal entries mean.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::credential::{Credential, CredentialKind, SecretHash};
use crate::changes::Author;
use crate::vault::{Entry, Kind, Vault, VaultError};

/// Identifier of the operator, in journal entries and in the vault. Entries of format 1 were made under it too.
pub const OPERATOR: &str = "administrator";
/// Least length of a token that an operator chooses, in bytes.
pub const MIN_TOKEN_BYTES: usize = 20;
/// Most origins (address and door) that are recorded; later ones share one record per door.
const MAX_ORIGINS: usize = 10_000;

/// Knows the operator's token, and names authors in journal entries.
pub struct Identity {
    vault: Arc<dyn Vault>,
    token: SecretHash,
    secret: [u8; 32],
    origins: Mutex<HashMap<Origin, String>>,
}

/// From where a change came: what an `originId` stands for. Kept in the vault, where it can be erased.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Origin {
    /// Address of the client; empty where it is one of too many, or a stranger's.
    pub address: String,
    /// `api`, `cli`, `dashboard`, …
    pub door: String,
}

/// Who an `actorId` is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Actor {
    kind: String,
    name: String,
}

/// Why identities could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The chosen token could be guessed.
    #[error(
        "GUIDON_ADMIN_TOKEN has {actual} bytes; at least {MIN_TOKEN_BYTES} are needed. `openssl rand -hex 32` makes a good one."
    )]
    WeakToken {
        /// Its length.
        actual: usize,
    },
    /// The vault cannot be read or written.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The vault holds something else where an identity should be.
    #[error("the vault's record {0} is not what the server wrote there; restore the folder from a backup")]
    Unreadable(String),
}

impl Identity {
    /// Reads what the vault knows. The operator's token is `chosen` if there is one, else the one made at the first
    /// start; the answer holds that one when it was made now, which is the only time it can be shown. `secret` is what
    /// credentials are derived from; the same at every start.
    ///
    /// # Errors
    ///
    /// [`IdentityError`].
    pub async fn open(
        vault: Arc<dyn Vault>,
        chosen: Option<&str>,
        secret: [u8; 32],
    ) -> Result<(Self, Option<Credential>), IdentityError> {
        let (token, made) = match chosen {
            Some(token) => {
                if vault.get(Kind::PasswordHash, OPERATOR)?.is_some() {
                    tracing::warn!("GUIDON_ADMIN_TOKEN takes the place of the token that the first start made");
                }
                (Self::check_chosen(token)?, None)
            }
            None => stored_token(&*vault).await?,
        };
        record_built_in(&*vault).await?;
        let mut origins = HashMap::new();
        for id in vault.list(Kind::Origin) {
            if let Some(value) = vault.get(Kind::Origin, &id)? {
                let origin = serde_json::from_slice(&value).map_err(|_| IdentityError::Unreadable(id.clone()))?;
                origins.insert(origin, id);
            }
        }
        let origins = Mutex::new(origins);
        Ok((Self { vault, token, secret, origins }, made))
    }

    /// Whether a token that the operator chose can be the operator's, hashed if so. To be asked before a store is made
    /// for it.
    ///
    /// # Errors
    ///
    /// [`IdentityError::WeakToken`].
    pub fn check_chosen(token: &str) -> Result<SecretHash, IdentityError> {
        let token = token.trim();
        if token.len() < MIN_TOKEN_BYTES {
            return Err(IdentityError::WeakToken { actual: token.len() });
        }
        Ok(SecretHash::of(token))
    }

    /// Whether a presented token, hashed, is the operator's. Constant time.
    #[must_use]
    pub fn is_operator(&self, presented: &SecretHash) -> bool {
        *presented == self.token
    }

    /// The credential that belongs to `context`: the same whenever it is asked for.
    #[must_use]
    pub fn derive_credential(&self, kind: CredentialKind, context: &[&str]) -> Credential {
        Credential::derive(kind, &self.secret, context)
    }

    /// The id that stands for `address` and `door`, if it is on record. Nothing is recorded.
    #[must_use]
    pub fn known_origin(&self, address: IpAddr, door: &str) -> Option<String> {
        let origin = Origin { address: address.to_string(), door: door.to_owned() };
        self.origins.lock().get(&origin).cloned()
    }

    /// The id that stands for everybody who comes by `door` without a credential that is known to be good, from wherever:
    /// strangers could come from any number of places, and would leave no room on record for those who belong here.
    ///
    /// # Errors
    ///
    /// If it cannot be recorded, which happens once for each door.
    pub async fn stranger(&self, door: &str) -> Result<String, VaultError> {
        self.origin_id(Origin { address: String::new(), door: door.to_owned() }).await
    }

    /// The id that stands for `address` and `door`, recorded in the vault when it is seen first: for those whose credential is
    /// known to be good.
    ///
    /// # Errors
    ///
    /// If a new origin cannot be recorded.
    pub async fn origin(&self, address: IpAddr, door: &str) -> Result<String, VaultError> {
        self.origin_id(Origin { address: address.to_string(), door: door.to_owned() }).await
    }

    async fn origin_id(&self, mut origin: Origin) -> Result<String, VaultError> {
        {
            let origins = self.origins.lock();
            if !origins.contains_key(&origin) && origins.len() >= MAX_ORIGINS {
                origin.address = String::new();
            }
            if let Some(id) = origins.get(&origin) {
                return Ok(id.clone());
            }
        }
        // Two requests at once from one new place make two records, of which one stays in use: no harm.
        let id = format!("origin-{}", &uuid::Uuid::new_v4().simple().to_string()[..16]);
        self.vault.put(Kind::Origin, &id, json(&origin)).await?;
        self.origins.lock().insert(origin, id.clone());
        Ok(id)
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Identity").finish_non_exhaustive()
    }
}

/// Records whom and what the server's own ids stand for: the administrator, the server itself, and the server as the place
/// its own changes come from. A record that is missing would count as erased.
async fn record_built_in(vault: &dyn Vault) -> Result<(), VaultError> {
    let Author { actor_id, origin_id, .. } = Author::system();
    let actor = |kind: &str, name: &str| json(&Actor { kind: kind.to_owned(), name: name.to_owned() });
    let records = [
        (Kind::Actor, OPERATOR.to_owned(), actor("operator", "Operator")),
        (Kind::Actor, actor_id, actor("system", "Guidon")),
        (Kind::Origin, origin_id, json(&Origin { address: String::new(), door: "server".to_owned() })),
    ];
    let mut missing = Vec::new();
    for (kind, id, value) in records {
        if vault.get(kind, &id)?.is_none() {
            missing.push(Entry { kind, id, value });
        }
    }
    if missing.is_empty() { Ok(()) } else { vault.put_many(missing).await }
}

async fn stored_token(vault: &dyn Vault) -> Result<(SecretHash, Option<Credential>), IdentityError> {
    if let Some(stored) = vault.get(Kind::PasswordHash, OPERATOR)? {
        let bytes = <[u8; 32]>::try_from(stored).map_err(|_| IdentityError::Unreadable(OPERATOR.to_owned()))?;
        return Ok((SecretHash::from_bytes(bytes), None));
    }
    let made = Credential::generate(CredentialKind::Administrator, &mut rand::rng());
    vault.put(Kind::PasswordHash, OPERATOR, made.hash().as_bytes().to_vec()).await?;
    Ok((made.hash(), Some(made)))
}

fn json(value: &impl Serialize) -> Vec<u8> {
    // Structs of strings always serialise.
    serde_json::to_vec(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vault::MemoryVault;

    #[tokio::test]
    async fn the_token_is_made_once_and_shown_once() {
        let vault: Arc<dyn Vault> = Arc::new(MemoryVault::new());
        let (first, made) = Identity::open(Arc::clone(&vault), None, [1; 32]).await.unwrap();
        let made = made.unwrap();
        assert!(first.is_operator(&SecretHash::of(made.reveal())));
        let (second, again) = Identity::open(Arc::clone(&vault), None, [1; 32]).await.unwrap();
        assert!(again.is_none() && second.is_operator(&SecretHash::of(made.reveal())));
        let (chosen, _) = Identity::open(vault, Some("a-token-of-the-operator"), [1; 32]).await.unwrap();
        assert!(chosen.is_operator(&SecretHash::of("a-token-of-the-operator")));
        assert!(!chosen.is_operator(&SecretHash::of(made.reveal())));
    }

    #[tokio::test]
    async fn the_servers_own_ids_are_on_record_and_stay_as_they_are() {
        let vault: Arc<dyn Vault> = Arc::new(MemoryVault::new());
        Identity::open(Arc::clone(&vault), None, [1; 32]).await.unwrap();
        let read = |kind, id: &str| -> serde_json::Value {
            serde_json::from_slice(&vault.get(kind, id).unwrap().expect("a record")).unwrap()
        };
        let system = Author::system();
        assert_eq!(read(Kind::Actor, &system.actor_id), serde_json::json!({"kind": "system", "name": "Guidon"}));
        assert_eq!(read(Kind::Actor, OPERATOR)["kind"], "operator");
        assert_eq!(read(Kind::Origin, &system.origin_id)["door"], "server");
        vault.put(Kind::Actor, OPERATOR, br#"{"kind":"token","name":"Ops"}"#.to_vec()).await.unwrap();
        Identity::open(Arc::clone(&vault), None, [1; 32]).await.unwrap();
        assert_eq!(read(Kind::Actor, OPERATOR)["name"], "Ops");
    }

    #[tokio::test]
    async fn a_short_token_is_refused() {
        let opened = Identity::open(Arc::new(MemoryVault::new()), Some("short"), [1; 32]).await;
        assert!(matches!(opened, Err(IdentityError::WeakToken { actual: 5 })));
    }

    #[tokio::test]
    async fn an_origin_keeps_its_id_and_tells_nothing_by_it() {
        let vault: Arc<dyn Vault> = Arc::new(MemoryVault::new());
        let (identity, _) = Identity::open(Arc::clone(&vault), None, [1; 32]).await.unwrap();
        let address = "192.0.2.7".parse().unwrap();
        let first = identity.origin(address, "api").await.unwrap();
        assert_eq!(identity.origin(address, "api").await.unwrap(), first);
        assert_ne!(identity.origin(address, "cli").await.unwrap(), first);
        assert!(!first.contains("192"));
        let (reopened, _) = Identity::open(vault, None, [1; 32]).await.unwrap();
        assert_eq!(reopened.origin(address, "api").await.unwrap(), first);
    }

    #[tokio::test]
    async fn strangers_share_an_origin_and_leave_room() {
        let vault: Arc<dyn Vault> = Arc::new(MemoryVault::new());
        let (identity, _) = Identity::open(Arc::clone(&vault), None, [1; 32]).await.unwrap();
        let address = "192.0.2.7".parse().unwrap();
        let before = vault.list(Kind::Origin).len();
        assert_eq!(identity.known_origin(address, "api"), None);
        let stranger = identity.stranger("api").await.unwrap();
        assert_eq!(identity.stranger("api").await.unwrap(), stranger);
        assert_ne!(identity.stranger("cli").await.unwrap(), stranger);
        assert_eq!(identity.known_origin(address, "api"), None);
        assert_eq!(vault.list(Kind::Origin).len(), before + 2);
        let exact = identity.origin(address, "api").await.unwrap();
        assert_ne!(exact, stranger);
        assert_eq!(identity.known_origin(address, "api"), Some(exact));
    }
}
