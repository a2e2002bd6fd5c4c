//! Recovery codes: what lets a person in whose authenticator is lost. Each opens once.

use std::fmt;

use rand::RngExt;

use super::credential::{SecretHash, push_base32};

/// Codes made at once.
pub const RECOVERY_CODES: usize = 10;
/// Random bytes in a code: 80 bits need no slow hash.
const CODE_BYTES: usize = 10;
/// Length of a code without the hyphens.
const CODE_CHARACTERS: usize = 16;
/// Length of a group in front of a hyphen.
const GROUP_CHARACTERS: usize = 4;
/// Length of a stored hash.
const HASH_BYTES: usize = 32;

/// The hashes of the codes that still open.
#[derive(Clone, PartialEq, Eq)]
pub struct RecoveryCodes(Vec<SecretHash>);

impl RecoveryCodes {
    /// New codes, with their texts (`abcd-efgh-ijkl-mnop`) for the one time they are shown.
    #[must_use]
    pub fn generate() -> (Self, Vec<String>) {
        let texts: Vec<String> = (0..RECOVERY_CODES).map(|_| spell(&rand::rng().random())).collect();
        (Self(texts.iter().map(|text| SecretHash::of(&normal(text))).collect()), texts)
    }

    /// Reads what [`RecoveryCodes::to_bytes`] wrote.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let hashes = bytes.chunks(HASH_BYTES).map(|chunk| chunk.try_into().ok().map(SecretHash::from_bytes));
        hashes.collect::<Option<_>>().map(Self)
    }

    /// The hashes, one after the other: what the vault keeps.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|hash| *hash.as_bytes()).collect()
    }

    /// Codes that are left.
    #[must_use]
    pub fn left(&self) -> usize {
        self.0.len()
    }

    /// Uses a code up and says whether it was one. Hyphens, spaces and capitals do not matter.
    pub fn take(&mut self, code: &str) -> bool {
        let presented = SecretHash::of(&normal(code));
        let mut found = None;
        for (index, hash) in self.0.iter().enumerate() {
            if *hash == presented {
                found = Some(index);
            }
        }
        found.map(|index| self.0.remove(index)).is_some()
    }
}

impl fmt::Debug for RecoveryCodes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "RecoveryCodes({} left)", self.0.len())
    }
}

fn spell(bytes: &[u8; CODE_BYTES]) -> String {
    let mut digits = String::new();
    push_base32(&mut digits, bytes, CODE_CHARACTERS);
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && index % GROUP_CHARACTERS == 0 {
            text.push('-');
        }
        text.push(digit);
    }
    text
}

fn normal(code: &str) -> String {
    let counts = |character: &char| !character.is_whitespace() && *character != '-';
    code.chars().filter(counts).map(|character| character.to_ascii_lowercase()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_code_opens_once_in_any_spelling() {
        let (mut codes, texts) = RecoveryCodes::generate();
        assert_eq!((codes.left(), texts.len()), (RECOVERY_CODES, RECOVERY_CODES));
        assert!(texts.iter().all(|text| text.len() == 19 && text.split('-').all(|group| group.len() == 4)));
        for (index, text) in texts.iter().enumerate() {
            let spelt = if index % 2 == 0 { text.to_uppercase() } else { text.replace('-', " ") };
            assert!(codes.take(&spelt));
            assert!(!codes.take(text));
        }
        assert_eq!(codes.left(), 0);
        assert!(!codes.take(""));
    }

    #[test]
    fn stored_codes_read_back_and_fit_beside_the_index() {
        let (codes, texts) = RecoveryCodes::generate();
        let bytes = codes.to_bytes();
        assert!(bytes.len() <= 512);
        assert_eq!(RecoveryCodes::from_bytes(&bytes), Some(codes.clone()));
        assert_eq!(RecoveryCodes::from_bytes(&bytes[1..]), None);
        assert!(!format!("{codes:?}").contains(&texts[0]));
        assert!(!bytes.windows(4).any(|window| window == &texts[0].as_bytes()[..4]));
    }

    proptest! {
        #[test]
        fn no_other_text_opens(text in "\\PC{0,40}") {
            let (mut codes, _) = RecoveryCodes::generate();
            prop_assert!(!codes.take(&text));
        }
    }
}
