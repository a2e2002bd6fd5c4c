//! When and from where credentials were last used.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::vault::{Kind, Vault, VaultError};

/// How long a use may be known in memory only, in milliseconds: a crash loses that much of when a credential was last used.
const SAVE_AFTER_MS: u64 = 60_000;
/// Most addresses remembered of a credential; beyond them the ones used longest ago are forgotten, and count as new again.
const MAX_ADDRESSES: usize = 64;
/// Most credentials whose uses are kept; beyond them the one used longest ago is forgotten.
const MAX_CREDENTIALS: usize = 100_000;

/// Keeps the last use of every credential, in the vault: an address may have to be forgotten.
pub struct Uses {
    vault: Arc<dyn Vault>,
    known: Mutex<HashMap<String, Known>>,
    /// Most credentials known at once.
    room: usize,
}

/// The last use of a credential.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CredentialUse {
    /// When, in milliseconds since 1970.
    pub last_at: u64,
    /// From where, the latest last.
    pub addresses: Vec<IpAddr>,
}

#[derive(Default)]
struct Known {
    used: CredentialUse,
    saved_at: u64,
}

impl Uses {
    /// Reads what the vault knows.
    ///
    /// # Errors
    ///
    /// If the vault cannot be read.
    pub fn open(vault: Arc<dyn Vault>) -> Result<Self, VaultError> {
        Self::open_with_room(vault, MAX_CREDENTIALS)
    }

    fn open_with_room(vault: Arc<dyn Vault>, room: usize) -> Result<Self, VaultError> {
        let mut found = Vec::new();
        for id in vault.list(Kind::CredentialUse) {
            let Some(bytes) = vault.get(Kind::CredentialUse, &id)? else { continue };
            // A record that cannot be read counts as no use: it is a convenience, and says so by being empty.
            let used: CredentialUse = serde_json::from_slice(&bytes).unwrap_or_default();
            found.push((id, Known { saved_at: used.last_at, used }));
        }
        found.sort_by_key(|(_, known)| std::cmp::Reverse(known.used.last_at));
        let too_many = found.split_off(found.len().min(room));
        let uses = Self { vault, known: Mutex::new(found.into_iter().collect()), room };
        too_many.into_iter().for_each(|(id, _)| uses.drop_record(id));
        Ok(uses)
    }

    /// Makes room for one more, if there is none.
    fn make_room(&self, known: &mut HashMap<String, Known>, credential: &str) {
        if known.len() < self.room || known.contains_key(credential) {
            return;
        }
        let oldest = known.iter().min_by_key(|(_, known)| known.used.last_at).map(|(id, _)| id.clone());
        if let Some(oldest) = oldest {
            known.remove(&oldest);
            self.drop_record(oldest);
        }
    }

    /// Takes note of a use at `now` (milliseconds since 1970). Answers whether the credential was used before, and never from
    /// this address.
    pub fn note(&self, credential: &str, address: IpAddr, now: u64) -> bool {
        let mut known = self.known.lock();
        self.make_room(&mut known, credential);
        let entry = known.entry(credential.to_owned()).or_default();
        let was_used = !entry.used.addresses.is_empty();
        let place = entry.used.addresses.iter().position(|known| *known == address);
        if let Some(place) = place {
            entry.used.addresses.remove(place);
        }
        entry.used.addresses.push(address);
        if entry.used.addresses.len() > MAX_ADDRESSES {
            entry.used.addresses.remove(0);
        }
        entry.used.last_at = entry.used.last_at.max(now);
        let is_new = place.is_none();
        if is_new || now.saturating_sub(entry.saved_at) >= SAVE_AFTER_MS {
            entry.saved_at = now;
            self.save(credential, &entry.used);
        }
        is_new && was_used
    }

    /// Takes note of a use at `now`, wherever it was: of a credential that everybody has.
    pub fn note_time(&self, credential: &str, now: u64) {
        let mut known = self.known.lock();
        self.make_room(&mut known, credential);
        let entry = known.entry(credential.to_owned()).or_default();
        entry.used.last_at = entry.used.last_at.max(now);
        if now.saturating_sub(entry.saved_at) >= SAVE_AFTER_MS {
            entry.saved_at = now;
            self.save(credential, &entry.used);
        }
    }

    /// The last use of a credential, if it was ever used.
    #[must_use]
    pub fn last(&self, credential: &str) -> Option<CredentialUse> {
        self.known.lock().get(credential).map(|known| known.used.clone())
    }

    /// Forgets a credential, from where it was used above all.
    ///
    /// # Errors
    ///
    /// If the vault cannot be written.
    pub async fn forget(&self, credential: &str) -> Result<(), VaultError> {
        self.known.lock().remove(credential);
        self.vault.delete(Kind::CredentialUse, credential).await.map(|_| ())
    }

    fn drop_record(&self, id: String) {
        let vault = Arc::clone(&self.vault);
        // Nobody waits for it: what is left over is dropped when the server starts again.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if let Err(error) = vault.delete(Kind::CredentialUse, &id).await {
                    tracing::warn!(%error, "the use of a credential could not be forgotten");
                }
            });
        }
    }

    fn save(&self, credential: &str, used: &CredentialUse) {
        let Ok(value) = serde_json::to_vec(used) else { return };
        let (vault, id) = (Arc::clone(&self.vault), credential.to_owned());
        // Nobody waits for it: what is lost is when a credential was last used.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if let Err(error) = vault.put(Kind::CredentialUse, &id, value).await {
                    tracing::warn!(%error, "the use of a credential could not be recorded");
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vault::MemoryVault;

    #[tokio::test]
    async fn a_new_address_is_noticed_once_and_remembered_across_a_restart() {
        let vault: Arc<dyn Vault> = Arc::new(MemoryVault::new());
        let uses = Uses::open(Arc::clone(&vault)).unwrap();
        let at = |last: u8| IpAddr::from([192, 0, 2, last]);
        assert!(!uses.note("token-1", at(1), 1_000), "the first use is no news");
        assert!(!uses.note("token-1", at(1), 2_000));
        assert!(uses.note("token-1", at(2), 3_000));
        assert!(!uses.note("token-1", at(1), 4_000));
        tokio::task::yield_now().await;
        let again = Uses::open(vault).unwrap();
        assert!(!again.note("token-1", at(2), 5_000));
        assert_eq!(again.last("token-1").unwrap().last_at, 5_000);
        assert_eq!(again.last("token-2"), None);
    }

    #[tokio::test]
    async fn the_credential_used_longest_ago_makes_room() {
        let vault: Arc<dyn Vault> = Arc::new(MemoryVault::new());
        let uses = Uses::open_with_room(Arc::clone(&vault), 2).unwrap();
        let at = IpAddr::from([192, 0, 2, 1]);
        for (credential, now) in [("a", 100_000), ("b", 200_000), ("a", 300_000), ("c", 400_000)] {
            uses.note(credential, at, now);
            tokio::task::yield_now().await;
        }
        uses.note_time("d", 500_000);
        tokio::task::yield_now().await;
        let known = |uses: &Uses| ["a", "b", "c", "d"].map(|id| uses.last(id).is_some());
        assert_eq!(known(&uses), [false, false, true, true]);
        assert_eq!(vault.list(Kind::CredentialUse), ["c", "d"]);
        let fewer = Uses::open_with_room(Arc::clone(&vault), 1).unwrap();
        tokio::task::yield_now().await;
        assert_eq!(known(&fewer), [false, false, false, true]);
        assert_eq!(vault.list(Kind::CredentialUse), ["d"]);
    }

    #[tokio::test]
    async fn addresses_are_bounded() {
        let uses = Uses::open(Arc::new(MemoryVault::new())).unwrap();
        for last in 0..=u8::MAX {
            uses.note("token-1", IpAddr::from([192, 0, 2, last]), u64::from(last));
        }
        assert_eq!(uses.last("token-1").unwrap().addresses.len(), MAX_ADDRESSES);
    }
}
