//! Pseudonyms: a keyed hash in place of a unit.

use serde::{Deserialize, Serialize};

/// Bytes of a pseudonym: 128 bits, so that a billion units of an environment collide with a chance below 10⁻²⁰.
const PSEUDONYM_BYTES: usize = 16;

/// The secret that makes an environment's pseudonyms. Without it they tell nothing; once it is destroyed nobody can say
/// any more which unit a pseudonym stands for.
#[derive(Clone)]
pub struct PseudonymKey([u8; blake3::KEY_LEN]);

/// Stands for a unit in stored exposures: the same for the same unit under one key. In JSON 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pseudonym([u8; PSEUDONYM_BYTES]);

impl PseudonymKey {
    /// The key with these bytes, which must be random.
    #[must_use]
    pub fn new(bytes: [u8; blake3::KEY_LEN]) -> Self {
        Self(bytes)
    }

    /// A fresh key from the operating system's randomness.
    #[must_use]
    pub fn generate() -> Self {
        Self(rand::random())
    }

    /// The key's bytes, for the vault alone.
    #[must_use]
    pub fn bytes(&self) -> &[u8; blake3::KEY_LEN] {
        &self.0
    }

    /// The pseudonym of `unit`: the first 128 bits of BLAKE3 in keyed mode (BLAKE3 paper, 2.6) over its UTF-8 bytes.
    #[must_use]
    pub fn pseudonym(&self, unit: &str) -> Pseudonym {
        let hash = blake3::keyed_hash(&self.0, unit.as_bytes());
        let mut bytes = [0; PSEUDONYM_BYTES];
        bytes.copy_from_slice(&hash.as_bytes()[..PSEUDONYM_BYTES]);
        Pseudonym(bytes)
    }
}

impl std::fmt::Debug for PseudonymKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("PseudonymKey(secret)")
    }
}

impl std::fmt::Display for Pseudonym {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl From<Pseudonym> for String {
    fn from(pseudonym: Pseudonym) -> Self {
        pseudonym.to_string()
    }
}

impl TryFrom<String> for Pseudonym {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let malformed = || format!("{text:?} is not a pseudonym: {} hexadecimal digits", PSEUDONYM_BYTES * 2);
        if text.len() != PSEUDONYM_BYTES * 2 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(malformed());
        }
        u128::from_str_radix(&text, 16).map(|number| Self(number.to_be_bytes())).map_err(|_| malformed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pseudonym_depends_on_key_and_unit_and_on_nothing_else() {
        let (one, other) = (PseudonymKey::new([1; 32]), PseudonymKey::new([2; 32]));
        assert_eq!(one.pseudonym("user-42"), one.pseudonym("user-42"));
        assert_ne!(one.pseudonym("user-42"), one.pseudonym("user-43"));
        assert_ne!(one.pseudonym("user-42"), other.pseudonym("user-42"));
        assert_ne!(PseudonymKey::generate().bytes(), PseudonymKey::generate().bytes());
    }

    #[test]
    fn pseudonyms_survive_their_text_and_the_key_has_none() {
        let key = PseudonymKey::new([7; 32]);
        let pseudonym = key.pseudonym("user-42");
        assert_eq!(Pseudonym::try_from(pseudonym.to_string()), Ok(pseudonym));
        for text in ["", "12", "+0112233445566778899aabbccddeeff", "zz112233445566778899aabbccddeeff"] {
            assert!(Pseudonym::try_from(text.to_owned()).is_err(), "{text}");
        }
        assert!(!format!("{key:?}").contains('7'));
    }
}
