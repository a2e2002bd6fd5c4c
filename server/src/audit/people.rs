//! Who and where the ids in both logs stand for.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::MANY_ORIGINS;
use crate::policy::PrincipalKind;
use crate::state::World;
use crate::vault::{Kind, Vault};

/// The name that is shown for somebody, or some place, whose record is erased.
pub const ERASED: &str = "erased";

/// The name that is shown where the record cannot be read.
pub const UNREADABLE: &str = "unreadable";

/// Somebody, by name as far as that is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Person {
    /// The id in the logs.
    pub id: String,
    /// `human`, `service`, `agent`, `token`, `system`, …; empty where it is not known.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// The name, [`ERASED`] or [`UNREADABLE`].
    pub name: String,
}

/// Some place, by address and door as far as they are known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Place {
    /// The id in the logs.
    pub id: String,
    /// The address, [`ERASED`] or [`UNREADABLE`].
    pub address: String,
    /// `api`, `cli`, `dashboard`, …; empty where it is not known.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub door: String,
}

/// Says what ids stand for.
pub trait People: Send + Sync + 'static {
    /// Who an actor id is.
    fn person(&self, id: &str) -> Person;
    /// Where an origin id is.
    fn place(&self, id: &str) -> Place;
}

/// Looks ids up in the vault.
pub struct VaultPeople {
    vault: Arc<dyn Vault>,
}

impl VaultPeople {
    /// Looks ids up in `vault`.
    #[must_use]
    pub fn new(vault: Arc<dyn Vault>) -> Self {
        Self { vault }
    }

    /// The record, or the word that stands for it.
    fn look_up<T: for<'de> Deserialize<'de>>(&self, kind: Kind, id: &str) -> Result<T, &'static str> {
        match self.vault.get(kind, id) {
            Ok(Some(record)) => serde_json::from_slice(&record).map_err(|_| UNREADABLE),
            Ok(None) => Err(ERASED),
            Err(_) => Err(UNREADABLE),
        }
    }
}

/// Looks ids up in the directory, which names service accounts and AI agents, and then in the vault.
pub struct DirectoryPeople<F> {
    world: F,
    vault: VaultPeople,
}

impl<F: Fn() -> Arc<World> + Send + Sync + 'static> DirectoryPeople<F> {
    /// Looks ids up in the directory of `world` and in `vault`.
    #[must_use]
    pub fn new(world: F, vault: VaultPeople) -> Self {
        Self { world, vault }
    }
}

impl<F: Fn() -> Arc<World> + Send + Sync + 'static> People for DirectoryPeople<F> {
    fn person(&self, id: &str) -> Person {
        match (self.world)().directory.principals.get(id) {
            Some(principal) if principal.kind != PrincipalKind::Human => {
                let kind = principal.kind.as_str().to_owned();
                Person { id: id.to_owned(), kind, name: principal.name.clone() }
            }
            _ => self.vault.person(id),
        }
    }

    fn place(&self, id: &str) -> Place {
        self.vault.place(id)
    }
}

impl People for VaultPeople {
    fn person(&self, id: &str) -> Person {
        #[derive(Deserialize)]
        struct Record {
            #[serde(default)]
            kind: String,
            name: String,
        }
        let Record { kind, name } =
            self.look_up(Kind::Actor, id).unwrap_or_else(|word| Record { kind: String::new(), name: word.to_owned() });
        Person { id: id.to_owned(), kind, name }
    }

    fn place(&self, id: &str) -> Place {
        #[derive(Deserialize)]
        struct Record {
            address: String,
            #[serde(default)]
            door: String,
        }
        if id == MANY_ORIGINS {
            return Place { id: id.to_owned(), address: MANY_ORIGINS.to_owned(), door: String::new() };
        }
        let Record { address, door } = self
            .look_up(Kind::Origin, id)
            .unwrap_or_else(|word| Record { address: word.to_owned(), door: String::new() });
        Place { id: id.to_owned(), address, door }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vault::MemoryVault;

    #[tokio::test]
    async fn what_is_erased_says_so() {
        let vault = Arc::new(MemoryVault::new());
        let put =
            async |kind, id: &str, json: &str| vault.put(kind, id, json.as_bytes().to_vec()).await.expect("stored");
        put(Kind::Actor, "a-1", r#"{"kind":"human","name":"Ada","email":"ada@example.org"}"#).await;
        put(Kind::Actor, "a-2", "nonsense").await;
        put(Kind::Origin, "o-1", r#"{"address":"192.0.2.7","door":"cli"}"#).await;
        let people = VaultPeople::new(vault.clone());
        assert_eq!(people.person("a-1").name, "Ada");
        assert_eq!(people.person("a-2").name, UNREADABLE);
        assert_eq!((people.place("o-1").address.as_str(), people.place("o-1").door.as_str()), ("192.0.2.7", "cli"));
        assert_eq!(people.place(MANY_ORIGINS).address, MANY_ORIGINS);
        vault.delete(Kind::Actor, "a-1").await.expect("deleted");
        let erased = Person { id: "a-1".to_owned(), kind: String::new(), name: ERASED.to_owned() };
        assert_eq!(people.person("a-1"), erased);
    }
}
