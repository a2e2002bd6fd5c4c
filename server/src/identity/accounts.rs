//! Accounts of people: who they are, and what they sign in with. All of it is in the vault; an index in memory finds it.
//!
//! A local account begins as an invitation. Whoever holds it is shown a secret for one-time codes, proves a code and
//! chooses a password; only then is anything stored, with one write. A reset is a new invitation for an old account.

mod claim;
mod index;
mod person;

use std::fmt;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};

pub use self::claim::{Claimed, Enrolment, INVITATION_LIFE_MS, Invited};
pub use self::person::{BadPerson, MAX_EMAIL_BYTES, MAX_NAME_CHARACTERS, Person, ProviderIdentity, fold_name};

use self::claim::Enrolments;
use self::index::{Index, Known};
use super::password::{PasswordError, Passwords, WeakPassword};
use super::recovery::RecoveryCodes;
use super::sessions::Sessions;
use super::totp::{TotpSecret, is_code};
use super::unbroken::to_the_end;
use crate::vault::{Entry, Kind, Vault, VaultError};

/// Everything the vault keeps of an account under its id, the record that lists it last: what was begun can be begun again.
const KINDS: [Kind; 5] = [Kind::PasswordHash, Kind::TotpSecret, Kind::RecoveryCodes, Kind::Invitation, Kind::Actor];

/// Why something could not be done with an account.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// The person cannot be recorded so.
    #[error(transparent)]
    BadPerson(#[from] BadPerson),
    /// Another account is called so.
    #[error(
        "another account has this name (capitals do not tell names apart); if its invitation lapsed, reset it instead"
    )]
    NameTaken,
    /// There is no such account.
    #[error("there is no account with this id; the list of accounts has the ids")]
    Unknown,
    /// The account signs in at a provider, which keeps its password and factor.
    #[error("this account signs in at its OpenID provider; reset it there")]
    OfProvider,
    /// The invitation opens nothing.
    #[error("this invitation was used, replaced or mistyped, or is older than 72 hours; ask for a new one")]
    BadInvitation,
    /// The invitation was not looked at before it is accepted, or too long ago.
    #[error("begin again: the secret for one-time codes is kept for 15 minutes only")]
    NotBegun,
    /// The one-time code is not of the secret.
    #[error("the code is not the one of this secret at this time; check the clock of the device that shows it")]
    WrongCode,
    /// The password may not be chosen.
    #[error(transparent)]
    WeakPassword(#[from] WeakPassword),
    /// The password was not looked at.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// The vault holds something else where an account should be.
    #[error("the vault's record {0} is not what the server wrote there; restore the folder from a backup")]
    Unreadable(String),
    /// The vault cannot be read or written.
    #[error(transparent)]
    Vault(#[from] VaultError),
}

/// Whether an account can be signed in to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum AccountState {
    /// It has a password and a factor.
    Active,
    /// Its invitation is still to be accepted.
    Invited,
    /// Its provider knows.
    OfProvider,
}

/// An account, as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Its id, which the journal knows it by.
    pub id: String,
    /// Whose it is.
    pub person: Person,
    /// Whether it can be signed in to.
    pub state: AccountState,
    /// When its open invitation lapses, in milliseconds since 1970.
    pub invited_until: Option<u64>,
}

/// An account whose owner showed that it is theirs, as it stood then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Its id.
    pub account: String,
    epoch: u64,
}

/// How a factor was proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// With a one-time code.
    Code,
    /// With a recovery code.
    RecoveryCode {
        /// How many are left.
        left: usize,
    },
}

/// What the vault keeps of a factor.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct TotpRecord {
    secret: String,
    /// The last step whose code was accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    used: Option<u64>,
}

/// All accounts there are. Clones share them.
#[derive(Clone)]
pub struct Accounts(Arc<Inner>);

struct Inner {
    vault: Arc<dyn Vault>,
    sessions: Sessions,
    passwords: Passwords,
    index: RwLock<Index>,
    enrolments: Mutex<Enrolments>,
    /// Held by whoever changes what the vault says: what is read, checked and written back must not be written in between.
    writing: tokio::sync::Mutex<()>,
}

impl Accounts {
    /// Finds the accounts in `vault`. Their sessions are in `sessions`.
    ///
    /// # Errors
    ///
    /// If the vault cannot be read.
    pub fn open(vault: Arc<dyn Vault>, sessions: Sessions, passwords: Passwords) -> Result<Self, AccountError> {
        let mut index = Index::default();
        for id in vault.list(Kind::Actor) {
            let record = vault.get(Kind::Actor, &id)?.unwrap_or_default();
            let Some(person) = Person::from_record(&record) else { continue };
            let has = |kind| Ok::<_, VaultError>(vault.get(kind, &id)?.is_some_and(|value| !value.is_empty()));
            let claimed = has(Kind::PasswordHash)? && has(Kind::TotpSecret)?;
            let invitation = match vault.get(Kind::Invitation, &id)? {
                Some(value) if !value.is_empty() => {
                    Some(serde_json::from_slice(&value).map_err(|_| AccountError::Unreadable(id.clone()))?)
                }
                _ => None,
            };
            index.insert(&id, Known { person, claimed, invitation, epoch: 0 });
        }
        Ok(Self(Arc::new(Inner {
            vault,
            sessions,
            passwords,
            index: RwLock::new(index),
            enrolments: Mutex::default(),
            writing: tokio::sync::Mutex::default(),
        })))
    }

    /// All accounts, by id.
    #[must_use]
    pub fn list(&self) -> Vec<Account> {
        self.0.index.read().iter().map(|(id, known)| listed(id, known)).collect()
    }

    /// An account.
    #[must_use]
    pub fn get(&self, account: &str) -> Option<Account> {
        self.0.index.read().get(account).map(|known| listed(account, known))
    }

    /// The id of the local account called `name`, whatever the capitals.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<String> {
        self.0.index.read().named(name).cloned()
    }

    /// The id of the account that a provider vouches for.
    #[must_use]
    pub fn of_provider(&self, identity: &ProviderIdentity) -> Option<String> {
        self.0.index.read().of_provider(identity).cloned()
    }

    /// The account called `name`, if `password` is its password. Takes as long when there is no such account.
    ///
    /// # Errors
    ///
    /// If the password could not be looked at.
    pub async fn verify_password(&self, name: &str, password: &str) -> Result<Option<Verified>, AccountError> {
        let found = {
            let index = self.0.index.read();
            let account = index.named(name).and_then(|account| Some((account.clone(), index.get(account)?.epoch)));
            account.map(|(account, epoch)| Verified { account, epoch })
        };
        let stored = match &found {
            Some(verified) => self.0.vault.get(Kind::PasswordHash, &verified.account)?,
            None => None,
        };
        let stored = stored.and_then(|value| String::from_utf8(value).ok()).filter(|stored| !stored.is_empty());
        let right = self.0.passwords.verify(password, stored.as_deref()).await?;
        Ok(found.filter(|_| right))
    }

    /// Uses a one-time code or a recovery code of `account` up; `None` if it is neither. Without an account the same is
    /// computed and the answer is `None`.
    ///
    /// # Errors
    ///
    /// If the vault cannot be read or written; the proof does not count then.
    pub async fn prove(&self, account: Option<&str>, code: &str, now_ms: u64) -> Result<Option<Proof>, AccountError> {
        let (inner, code) = (Arc::clone(&self.0), code.to_owned());
        let account = account.map(str::to_owned);
        to_the_end(async move { inner.prove(account.as_deref(), &code, now_ms).await }).await
    }

    /// Whether nothing changed about how the account signs in since it was verified: no reset, no erasure.
    #[must_use]
    pub fn stands(&self, verified: &Verified) -> bool {
        self.0.index.read().get(&verified.account).is_some_and(|known| known.epoch == verified.epoch)
    }

    /// The account of a person that a provider vouches for, recorded if it is new and corrected if it changed.
    ///
    /// # Errors
    ///
    /// If the vault cannot be written.
    pub async fn record_of_provider(
        &self,
        identity: ProviderIdentity,
        name: &str,
        email: Option<&str>,
    ) -> Result<Verified, AccountError> {
        let (inner, person) = (Arc::clone(&self.0), Person::of_provider(identity, name, email));
        to_the_end(async move { inner.record_of_provider(person).await }).await
    }

    /// Makes new recovery codes, in the place of the old, and shows them once.
    ///
    /// # Errors
    ///
    /// [`AccountError::Unknown`] if the account has no factor; or if the vault cannot be written.
    pub async fn renew_recovery_codes(&self, account: &str) -> Result<Vec<String>, AccountError> {
        let (inner, account) = (Arc::clone(&self.0), account.to_owned());
        to_the_end(async move {
            let _writing = inner.writing.lock().await;
            if !inner.index.read().get(&account).is_some_and(|known| known.claimed) {
                return Err(AccountError::Unknown);
            }
            let (codes, texts) = RecoveryCodes::generate();
            inner.vault.put(Kind::RecoveryCodes, &account, codes.to_bytes()).await?;
            Ok(texts)
        })
        .await
    }

    /// Erases an account: its sessions, all that it signs in with, and who it is, from every answer and from the disk. Says
    /// whether there was one. What it did keeps its id in the journal, which then stands for nobody.
    ///
    /// # Errors
    ///
    /// If the vault cannot be written. The account may be gone in part; erasing it again goes on.
    pub async fn erase(&self, account: &str) -> Result<bool, AccountError> {
        let (inner, account) = (Arc::clone(&self.0), account.to_owned());
        to_the_end(async move { inner.erase(&account).await }).await
    }
}

impl fmt::Debug for Accounts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Accounts({})", self.0.index.read().iter().count())
    }
}

impl Inner {
    async fn prove(&self, account: Option<&str>, code: &str, now_ms: u64) -> Result<Option<Proof>, AccountError> {
        let _writing = self.writing.lock().await;
        let known = account.filter(|account| self.index.read().get(account).is_some_and(|known| known.claimed));
        let Some(account) = known else {
            let _ = TotpSecret::generate().matching_step(code, now_ms, None);
            return Ok(None);
        };
        let unreadable = || AccountError::Unreadable(account.to_owned());
        if is_code(code) {
            let stored = self.vault.get(Kind::TotpSecret, account)?.unwrap_or_default();
            let mut record: TotpRecord = serde_json::from_slice(&stored).map_err(|_| unreadable())?;
            let secret = TotpSecret::from_base32(&record.secret).ok_or_else(unreadable)?;
            let Some(step) = secret.matching_step(code, now_ms, record.used) else { return Ok(None) };
            record.used = Some(step);
            self.vault.put(Kind::TotpSecret, account, json(&record)).await?;
            return Ok(Some(Proof::Code));
        }
        let stored = self.vault.get(Kind::RecoveryCodes, account)?.unwrap_or_default();
        let mut codes = RecoveryCodes::from_bytes(&stored).ok_or_else(unreadable)?;
        if !codes.take(code) {
            return Ok(None);
        }
        self.vault.put(Kind::RecoveryCodes, account, codes.to_bytes()).await?;
        Ok(Some(Proof::RecoveryCode { left: codes.left() }))
    }

    async fn record_of_provider(&self, person: Person) -> Result<Verified, AccountError> {
        let _writing = self.writing.lock().await;
        let found = {
            let index = self.index.read();
            let account = person.provider.as_ref().and_then(|identity| index.of_provider(identity));
            account.and_then(|account| Some((account.clone(), index.get(account)?.clone())))
        };
        let (account, epoch) = match found {
            Some((account, known)) if known.person == person => return Ok(Verified { account, epoch: known.epoch }),
            Some((account, known)) => (account, known.epoch),
            None => (new_id(), 0),
        };
        self.vault.put(Kind::Actor, &account, person.to_record()).await?;
        self.index.write().insert(&account, Known { person, claimed: false, invitation: None, epoch });
        Ok(Verified { account, epoch })
    }

    async fn erase(&self, account: &str) -> Result<bool, AccountError> {
        let _writing = self.writing.lock().await;
        let known = self.index.write().remove(account);
        // Sessions made from now on are ended by whoever makes them, because the account no longer stands.
        let erased = self.erase_records(account, known.is_some()).await;
        if let (Err(_), Some(known)) = (&erased, known) {
            self.index.write().insert(account, Known { claimed: false, epoch: known.epoch + 1, ..known });
        }
        erased
    }

    async fn erase_records(&self, account: &str, exists: bool) -> Result<bool, AccountError> {
        self.sessions.end_all_of(account).await?;
        if exists {
            for kind in KINDS {
                self.vault.delete(kind, account).await?;
            }
        }
        self.vault.compact().await?;
        Ok(exists)
    }
}

fn listed(id: &str, known: &Known) -> Account {
    let state = match known {
        Known { person, .. } if person.provider.is_some() => AccountState::OfProvider,
        Known { claimed: true, .. } => AccountState::Active,
        Known { .. } => AccountState::Invited,
    };
    let invited_until = known.invitation.as_ref().map(|invitation| invitation.expires_at);
    Account { id: id.to_owned(), person: known.person.clone(), state, invited_until }
}

/// An id for a new account, which says nothing of whose it is.
fn new_id() -> String {
    format!("human-{}", &uuid::Uuid::new_v4().simple().to_string()[..16])
}

fn json(value: &impl Serialize) -> Vec<u8> {
    // Structs of strings and numbers always serialise.
    serde_json::to_vec(value).unwrap_or_default()
}

fn entry(kind: Kind, account: &str, value: Vec<u8>) -> Entry {
    Entry { kind, id: account.to_owned(), value }
}

#[cfg(test)]
mod tests;
