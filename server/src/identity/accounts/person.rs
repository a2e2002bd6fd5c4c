//! Who a person is, as the vault records it under the id that everything else uses.

use serde::{Deserialize, Serialize};

/// Longest account name, in characters.
pub const MAX_NAME_CHARACTERS: usize = 64;
/// Longest e-mail address, in bytes: RFC 5321's limit on a path.
pub const MAX_EMAIL_BYTES: usize = 254;
/// What an actor record of a person says it is of.
const HUMAN: &str = "human";

/// A person, in the vault's actor record.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Person {
    /// Always `human`: the vault records other actors too.
    kind: String,
    /// What a local account signs in by, and what others see.
    pub name: String,
    /// Where the person can be written to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// Who vouches for the person; absent for a local account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<ProviderIdentity>,
}

/// A person as an OpenID provider knows them.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProviderIdentity {
    /// The provider's issuer URL.
    pub issuer: String,
    /// The person's id there, which never changes hands.
    pub subject: String,
}

/// Why a person cannot be recorded so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPerson {
    /// The name is no name for an account.
    #[error(
        "an account name has 1 to {MAX_NAME_CHARACTERS} characters: letters, digits, inner spaces and any of . _ - @ + '"
    )]
    Name,
    /// The e-mail address is none.
    #[error("an e-mail address has an @ between two parts, no spaces, and at most {MAX_EMAIL_BYTES} bytes")]
    Email,
}

impl Person {
    /// A person with an account of the server's own.
    ///
    /// # Errors
    ///
    /// [`BadPerson`].
    pub fn local(name: &str, email: Option<&str>) -> Result<Self, BadPerson> {
        let name = name.trim();
        let allowed = |character: char| character.is_alphanumeric() || " ._-@+'".contains(character);
        if name.is_empty() || name.chars().count() > MAX_NAME_CHARACTERS || !name.chars().all(allowed) {
            return Err(BadPerson::Name);
        }
        let email = email.map(str::trim).filter(|email| !email.is_empty());
        if email.is_some_and(|email| !is_email(email)) {
            return Err(BadPerson::Email);
        }
        Ok(Self { kind: HUMAN.to_owned(), name: name.to_owned(), email: email.map(str::to_owned), provider: None })
    }

    /// A person that a provider vouches for. What is unfit in the provider's answer is left out rather than refused.
    #[must_use]
    pub fn of_provider(identity: ProviderIdentity, name: &str, email: Option<&str>) -> Self {
        let name: String = name.chars().filter(|character| !character.is_control()).take(MAX_NAME_CHARACTERS).collect();
        let name = if name.trim().is_empty() { "Unnamed".to_owned() } else { name.trim().to_owned() };
        let email = email.filter(|email| is_email(email)).map(str::to_owned);
        Self { kind: HUMAN.to_owned(), name, email, provider: Some(identity) }
    }

    /// Reads an actor record; `None` if it is not of a person.
    #[must_use]
    pub fn from_record(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice::<Self>(bytes).ok().filter(|person| person.kind == HUMAN)
    }

    /// The actor record.
    #[must_use]
    pub fn to_record(&self) -> Vec<u8> {
        // A struct of strings always serialises.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

/// Names are personal data: logs get ids.
impl std::fmt::Debug for Person {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Person(…)")
    }
}

impl std::fmt::Debug for ProviderIdentity {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "ProviderIdentity({:?}, …)", self.issuer)
    }
}

/// What two names have in common that are the same to people.
#[must_use]
pub fn fold_name(name: &str) -> String {
    name.trim().to_lowercase()
}

fn is_email(text: &str) -> bool {
    let odd = |character: char| character.is_whitespace() || character.is_control();
    let parts = text.rsplit_once('@');
    text.len() <= MAX_EMAIL_BYTES
        && !text.contains(odd)
        && parts.is_some_and(|(local, domain)| !local.is_empty() && !domain.is_empty())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_and_addresses_are_checked() {
        for name in ["ada", " Ada Lovelace ", "ada@example.com", "Zoë.O'Neil_2+x-y"] {
            assert_eq!(Person::local(name, None).unwrap().name, name.trim());
        }
        for name in ["", "  ", "a:b", "a\nb", "a/b", &"x".repeat(MAX_NAME_CHARACTERS + 1)] {
            assert_eq!(Person::local(name, None), Err(BadPerson::Name), "{name:?}");
        }
        for email in ["ada", "@example.com", "ada@", "a da@example.com", &format!("{}@x", "a".repeat(260))] {
            assert_eq!(Person::local("ada", Some(email)), Err(BadPerson::Email), "{email:?}");
        }
        assert_eq!(Person::local("ada", Some("")).unwrap().email, None);
        assert_eq!(fold_name(" ADA "), fold_name("ada"));
    }

    #[test]
    fn the_record_is_read_together_with_other_actors() {
        let person = Person::local("ada", Some("ada@example.com")).unwrap();
        let value: serde_json::Value = serde_json::from_slice(&person.to_record()).unwrap();
        assert_eq!(value, serde_json::json!({"kind": "human", "name": "ada", "email": "ada@example.com"}));
        assert_eq!(Person::from_record(&person.to_record()), Some(person.clone()));
        assert_eq!(Person::from_record(br#"{"kind":"system","name":"Guidon"}"#), None);
        assert!(!format!("{person:?}").contains("ada"));
    }

    proptest! {
        #[test]
        fn whatever_a_provider_says_can_be_recorded(name in ".{0,200}", email in ".{0,300}", subject in ".{0,40}") {
            let identity = ProviderIdentity { issuer: "https://id.example".to_owned(), subject };
            let person = Person::of_provider(identity, &name, Some(&email));
            prop_assert!(!person.name.is_empty() && person.name.chars().count() <= MAX_NAME_CHARACTERS);
            prop_assert_eq!(Person::from_record(&person.to_record()), Some(person));
        }
    }
}
