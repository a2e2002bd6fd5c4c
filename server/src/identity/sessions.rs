//! Sessions of people who signed in: short, bound to the door and the program they were made at, and ended at once.
//!
//! The vault keeps what a session may do, under the hash of its credential; when it was last used is known in memory only.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::RwLock;
use serde::{Deserialize, Serialize};

use super::credential::{Credential, CredentialKind, SecretHash};
use super::unbroken::to_the_end;
use crate::vault::{Kind, Vault, VaultError};

/// Life of a session of the command line, in milliseconds.
pub const CLI_LIFE_MS: u64 = 12 * 60 * 60 * 1000;
/// Life of a session of a browser, in milliseconds.
pub const BROWSER_LIFE_MS: u64 = 8 * 60 * 60 * 1000;
/// How long a browser's session may lie unused, in milliseconds.
pub const BROWSER_IDLE_MS: u64 = 60 * 60 * 1000;
/// Sessions of one account. One more ends the oldest.
pub const MAX_SESSIONS_PER_ACCOUNT: usize = 20;

/// The way a person comes in by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Door {
    /// The command line, and whatever else sends the session as a bearer token.
    Cli,
    /// A browser, which sends it as a cookie.
    Browser,
}

impl Door {
    /// Its name in origins and messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Cli => "cli",
            Self::Browser => "browser",
        }
    }

    fn life_ms(self) -> u64 {
        match self {
            Self::Cli => CLI_LIFE_MS,
            Self::Browser => BROWSER_LIFE_MS,
        }
    }
}

/// Where a request comes from, as far as a session is bound to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place<'a> {
    /// The door.
    pub door: Door,
    /// What the client calls itself; empty if it does not say.
    pub user_agent: &'a str,
    /// Its address.
    pub address: IpAddr,
}

/// What a session is to be made for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewSession {
    /// Whose it is.
    pub account: String,
    /// The groups that the identity provider named; none for local accounts.
    pub groups: Vec<String>,
    /// When a factor was proven, in milliseconds since 1970, if one was.
    pub factor_at: Option<u64>,
}

/// A valid session as seen from where it was presented.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionInfo {
    /// Names the session where it is listed or ended: the hash of the credential in hexadecimal, which opens nothing.
    pub id: String,
    /// Whose it is.
    pub account: String,
    /// The door it was made at.
    pub door: Door,
    /// The groups that the identity provider named.
    pub groups: Vec<String>,
    /// When it was made, in milliseconds since 1970.
    pub created_at: u64,
    /// When it ends, in milliseconds since 1970.
    pub expires_at: u64,
    /// When a factor was last proven from the address it was presented from, in milliseconds since 1970.
    pub factor_at: Option<u64>,
}

/// What the vault keeps of a session.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    account: String,
    door: Door,
    created_at: u64,
    expires_at: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    groups: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    factor_at: Option<u64>,
    /// BLAKE3 of what the client called itself, in hexadecimal.
    user_agent: String,
    /// Where the session was made, or a factor last proven.
    address: IpAddr,
}

struct Live {
    record: Record,
    last_use: u64,
}

impl Live {
    fn is_over(&self, now_ms: u64) -> bool {
        let idle = self.record.door == Door::Browser && now_ms.saturating_sub(self.last_use) >= BROWSER_IDLE_MS;
        now_ms >= self.record.expires_at || idle
    }

    fn info(&self, hash: SecretHash, address: IpAddr) -> SessionInfo {
        let Record { account, door, groups, created_at, expires_at, factor_at, .. } = self.record.clone();
        let factor_at = factor_at.filter(|_| self.record.address == address);
        SessionInfo { id: hash.to_hex(), account, door, groups, created_at, expires_at, factor_at }
    }
}

/// All sessions there are. Clones share them.
#[derive(Clone)]
pub struct Sessions(Arc<Inner>);

struct Inner {
    vault: Arc<dyn Vault>,
    live: RwLock<HashMap<[u8; 32], Live>>,
    /// Held by whoever changes what the vault says: two writes at once may arrive in either order.
    writing: tokio::sync::Mutex<()>,
}

impl Sessions {
    /// Reads the sessions of `vault` at `now_ms` (milliseconds since 1970). A record that is none is removed: its owner has
    /// to sign in again, and nothing is lost. Browsers' sessions count as used now.
    ///
    /// # Errors
    ///
    /// If the vault cannot be read or written.
    pub async fn open(vault: Arc<dyn Vault>, now_ms: u64) -> Result<Self, VaultError> {
        let mut live = HashMap::new();
        for id in vault.list(Kind::Session) {
            let Some(value) = vault.get(Kind::Session, &id)? else { continue };
            let record = serde_json::from_slice::<Record>(&value).ok().filter(|record| now_ms < record.expires_at);
            match record.zip(hash_of_id(&id)) {
                Some((record, hash)) => {
                    live.insert(hash, Live { record, last_use: now_ms });
                }
                None => {
                    vault.delete(Kind::Session, &id).await?;
                }
            }
        }
        Ok(Self(Arc::new(Inner { vault, live: RwLock::new(live), writing: tokio::sync::Mutex::default() })))
    }

    /// Makes a session at `place`, ending the account's oldest if it has too many. The credential is shown once.
    ///
    /// # Errors
    ///
    /// If the vault cannot be written; there is no new session then.
    pub async fn create(
        &self,
        new: NewSession,
        place: Place<'_>,
        now_ms: u64,
    ) -> Result<(Credential, SessionInfo), VaultError> {
        let credential = Credential::generate(CredentialKind::Session, &mut rand::rng());
        let record = Record {
            account: new.account,
            door: place.door,
            created_at: now_ms,
            expires_at: now_ms.saturating_add(place.door.life_ms()),
            groups: new.groups,
            factor_at: new.factor_at,
            user_agent: agent_hash(place.user_agent),
            address: place.address.to_canonical(),
        };
        let (inner, hash) = (Arc::clone(&self.0), credential.hash());
        let info = to_the_end(async move { inner.create(hash, record, now_ms).await }).await?;
        Ok((credential, info))
    }

    /// The session behind a presented credential, if it is valid at `place`. Counts as a use. From an address where no
    /// factor was proven it is valid, but says that none was.
    #[must_use]
    pub fn check(&self, presented: &SecretHash, place: Place<'_>, now_ms: u64) -> Option<SessionInfo> {
        let mut live = self.0.live.write();
        let session = live.get_mut(presented.as_bytes())?;
        let bound = session.record.door == place.door && session.record.user_agent == agent_hash(place.user_agent);
        if !bound || session.is_over(now_ms) {
            return None;
        }
        session.last_use = session.last_use.max(now_ms);
        Some(session.info(*presented, place.address.to_canonical()))
    }

    /// Notes that the session's owner proved a factor from `address`; answers the session, or `None` if it is over.
    ///
    /// # Errors
    ///
    /// If the vault cannot be written; the proof does not count then.
    pub async fn prove_factor(
        &self,
        presented: &SecretHash,
        address: IpAddr,
        now_ms: u64,
    ) -> Result<Option<SessionInfo>, VaultError> {
        let (inner, hash) = (Arc::clone(&self.0), *presented);
        to_the_end(async move { inner.prove_factor(hash, address.to_canonical(), now_ms).await }).await
    }

    /// Ends a session and says whose it was. It is over at once, even if the vault cannot be written.
    ///
    /// # Errors
    ///
    /// If the vault cannot be written: the session could return at the next start.
    pub async fn end(&self, hash: &SecretHash) -> Result<Option<String>, VaultError> {
        let account = self.0.live.read().get(hash.as_bytes()).map(|session| session.record.account.clone());
        let (inner, hash) = (Arc::clone(&self.0), *hash.as_bytes());
        to_the_end(async move { inner.end_many(vec![hash]).await }).await?;
        Ok(account)
    }

    /// Ends every session of an account and says how many there were. They are over at once.
    ///
    /// # Errors
    ///
    /// As [`Sessions::end`].
    pub async fn end_all_of(&self, account: &str) -> Result<usize, VaultError> {
        let (inner, account) = (Arc::clone(&self.0), account.to_owned());
        to_the_end(async move {
            let hashes = inner.hashes(|session| session.record.account == account);
            inner.end_many(hashes).await
        })
        .await
    }

    /// Ends the session that `id` (of [`SessionInfo`]) names, if it is one of `account`.
    ///
    /// # Errors
    ///
    /// As [`Sessions::end`].
    pub async fn end_by_id(&self, account: &str, id: &str) -> Result<bool, VaultError> {
        let Some(hash) = hash_of_id(id) else { return Ok(false) };
        let theirs = self.0.live.read().get(&hash).is_some_and(|session| session.record.account == account);
        if theirs {
            self.end(&SecretHash::from_bytes(hash)).await?;
        }
        Ok(theirs)
    }

    /// The sessions of an account, the newest first, as seen from where each was made.
    #[must_use]
    pub fn list_of(&self, account: &str, now_ms: u64) -> Vec<SessionInfo> {
        let live = self.0.live.read();
        let theirs = live.iter().filter(|(_, session)| session.record.account == account && !session.is_over(now_ms));
        let mut listed: Vec<_> =
            theirs.map(|(hash, session)| session.info(SecretHash::from_bytes(*hash), session.record.address)).collect();
        listed.sort_by(|a, b| (b.created_at, &a.id).cmp(&(a.created_at, &b.id)));
        listed
    }

    /// Forgets the sessions that are over and says how many there were. To be called now and then.
    ///
    /// # Errors
    ///
    /// If the vault cannot be written; they stay over.
    pub async fn sweep(&self, now_ms: u64) -> Result<usize, VaultError> {
        let inner = Arc::clone(&self.0);
        to_the_end(async move {
            let hashes = inner.hashes(|session| session.is_over(now_ms));
            inner.end_many(hashes).await
        })
        .await
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Sessions({})", self.0.live.read().len())
    }
}

impl Inner {
    async fn create(&self, hash: SecretHash, record: Record, now_ms: u64) -> Result<SessionInfo, VaultError> {
        let _writing = self.writing.lock().await;
        self.vault.put(Kind::Session, &hash.to_hex(), json(&record)).await?;
        let (account, address) = (record.account.clone(), record.address);
        let session = Live { record, last_use: now_ms };
        let info = session.info(hash, address);
        self.live.write().insert(*hash.as_bytes(), session);
        let mut theirs: Vec<_> = {
            let live = self.live.read();
            let of_account = live.iter().filter(|(_, session)| session.record.account == account);
            of_account.map(|(hash, session)| (session.record.created_at, *hash)).collect()
        };
        theirs.retain(|(_, other)| other != hash.as_bytes());
        theirs.sort_unstable();
        let too_many = (theirs.len() + 1).saturating_sub(MAX_SESSIONS_PER_ACCOUNT);
        for (_, oldest) in theirs.into_iter().take(too_many) {
            self.forget(&oldest).await?;
        }
        Ok(info)
    }

    async fn prove_factor(
        &self,
        hash: SecretHash,
        address: IpAddr,
        now_ms: u64,
    ) -> Result<Option<SessionInfo>, VaultError> {
        let _writing = self.writing.lock().await;
        let proven = {
            let live = self.live.read();
            let session = live.get(hash.as_bytes()).filter(|session| !session.is_over(now_ms));
            session.map(|session| Record { factor_at: Some(now_ms), address, ..session.record.clone() })
        };
        let Some(record) = proven else { return Ok(None) };
        self.vault.put(Kind::Session, &hash.to_hex(), json(&record)).await?;
        // It may have been ended in the meantime: then it stays so.
        let mut live = self.live.write();
        Ok(live.get_mut(hash.as_bytes()).map(|session| {
            session.record = record;
            session.info(hash, address)
        }))
    }

    fn hashes(&self, wanted: impl Fn(&Live) -> bool) -> Vec<[u8; 32]> {
        self.live.read().iter().filter(|(_, session)| wanted(session)).map(|(hash, _)| *hash).collect()
    }

    /// Ends sessions: all of them in memory first, then one after the other in the vault.
    async fn end_many(&self, hashes: Vec<[u8; 32]>) -> Result<usize, VaultError> {
        {
            let mut live = self.live.write();
            for hash in &hashes {
                live.remove(hash);
            }
        }
        let _writing = self.writing.lock().await;
        let mut ended = 0;
        for hash in hashes {
            ended += usize::from(self.forget(&hash).await?);
        }
        Ok(ended)
    }

    async fn forget(&self, hash: &[u8; 32]) -> Result<bool, VaultError> {
        self.live.write().remove(hash);
        self.vault.delete(Kind::Session, &SecretHash::from_bytes(*hash).to_hex()).await
    }
}

fn agent_hash(user_agent: &str) -> String {
    SecretHash::of(user_agent).to_hex()
}

fn hash_of_id(id: &str) -> Option<[u8; 32]> {
    blake3::Hash::from_hex(id).ok().map(Into::into)
}

fn json(record: &Record) -> Vec<u8> {
    // A struct of strings and numbers always serialises.
    serde_json::to_vec(record).unwrap_or_default()
}

#[cfg(test)]
#[path = "sessions_tests.rs"]
mod tests;
