//! What is found without reading the vault: accounts by id, name, provider and invitation.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use super::person::{Person, ProviderIdentity, fold_name};
use crate::identity::credential::SecretHash;

/// An invitation, as the vault keeps it under the account's id: a new one takes the place of the old.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Invitation {
    /// The credential's hash in hexadecimal.
    pub(super) hash: String,
    /// When it lapses, in milliseconds since 1970.
    pub(super) expires_at: u64,
}

impl Invitation {
    fn key(&self) -> Option<[u8; 32]> {
        blake3::Hash::from_hex(&self.hash).ok().map(Into::into)
    }
}

/// An account that is known.
#[derive(Clone)]
pub(super) struct Known {
    pub(super) person: Person,
    /// Whether it has a password and a factor.
    pub(super) claimed: bool,
    /// The invitation that is open.
    pub(super) invitation: Option<Invitation>,
    /// Grows when what it signs in with changes.
    pub(super) epoch: u64,
}

/// All accounts.
#[derive(Default)]
pub(super) struct Index {
    known: BTreeMap<String, Known>,
    by_name: HashMap<String, String>,
    by_provider: HashMap<ProviderIdentity, String>,
    by_invitation: HashMap<[u8; 32], String>,
}

impl Index {
    pub(super) fn get(&self, account: &str) -> Option<&Known> {
        self.known.get(account)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&String, &Known)> {
        self.known.iter()
    }

    /// The local account called `name`.
    pub(super) fn named(&self, name: &str) -> Option<&String> {
        self.by_name.get(&fold_name(name))
    }

    pub(super) fn of_provider(&self, identity: &ProviderIdentity) -> Option<&String> {
        self.by_provider.get(identity)
    }

    /// The account that the open invitation behind `hash` is for.
    pub(super) fn invited(&self, hash: &SecretHash, now_ms: u64) -> Option<(&String, &Known)> {
        let account = self.by_invitation.get(hash.as_bytes())?;
        let known = self.known.get(account)?;
        let open = known.invitation.as_ref().is_some_and(|invitation| now_ms < invitation.expires_at);
        open.then_some((account, known))
    }

    /// Puts an account in, in the place of what was known of it.
    pub(super) fn insert(&mut self, account: &str, known: Known) {
        self.remove(account);
        match &known.person.provider {
            Some(identity) => self.by_provider.insert(identity.clone(), account.to_owned()),
            None => self.by_name.insert(fold_name(&known.person.name), account.to_owned()),
        };
        if let Some(key) = known.invitation.as_ref().and_then(Invitation::key) {
            self.by_invitation.insert(key, account.to_owned());
        }
        self.known.insert(account.to_owned(), known);
    }

    pub(super) fn remove(&mut self, account: &str) -> Option<Known> {
        let known = self.known.remove(account)?;
        match &known.person.provider {
            Some(identity) => self.by_provider.remove(identity),
            None => self.by_name.remove(&fold_name(&known.person.name)),
        };
        if let Some(key) = known.invitation.as_ref().and_then(Invitation::key) {
            self.by_invitation.remove(&key);
        }
        Some(known)
    }
}
