//! Credentials: `gdn_<kind>_<random>_<checksum>`.
//!
//! The prefix lets secret scanners find a leaked one, the checksum tells a mistyped one from a revoked one without a look
//! into the store. The server keeps only the BLAKE3 hash: 160 random bits need no slow hash.

use std::fmt;
use std::str::FromStr;

use rand::Rng;
use subtle::ConstantTimeEq;

/// Random bytes in a credential.
const RANDOM_BYTES: usize = 20;
/// Length of the random part: 160 bits, 5 to a character.
const RANDOM_CHARACTERS: usize = 32;
/// Length of the checksum: 32 bits, 5 to a character.
const CHECKSUM_CHARACTERS: usize = 7;
/// RFC 4648 base 32 in lower case.
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// What a credential is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CredentialKind {
    /// May do everything: `gdn_admin_…`.
    Administrator,
    /// A server SDK of one environment: `gdn_sdk_…`.
    ServerSdk,
    /// Browsers and devices of one environment, which anybody can read: `gdn_client_…`.
    ClientSdk,
    /// A person who signed in: `gdn_session_…`.
    Session,
    /// An invitation to claim an account, good for one use: `gdn_invite_…`.
    Invitation,
    /// A service account: `gdn_svc_…`.
    Service,
    /// An AI agent: `gdn_agent_…`.
    Agent,
}

impl CredentialKind {
    /// Every kind there is.
    pub const ALL: [Self; 7] = [
        Self::Administrator,
        Self::ServerSdk,
        Self::ClientSdk,
        Self::Session,
        Self::Invitation,
        Self::Service,
        Self::Agent,
    ];

    /// Everything in front of the random part.
    #[must_use]
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Administrator => "gdn_admin_",
            Self::ServerSdk => "gdn_sdk_",
            Self::ClientSdk => "gdn_client_",
            Self::Session => "gdn_session_",
            Self::Invitation => "gdn_invite_",
            Self::Service => "gdn_svc_",
            Self::Agent => "gdn_agent_",
        }
    }
}

/// A credential of the right form. Its text shows only through [`Credential::reveal`].
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    kind: CredentialKind,
    text: String,
}

impl Credential {
    /// A new one.
    pub fn generate(kind: CredentialKind, random: &mut impl Rng) -> Self {
        let mut bytes = [0; RANDOM_BYTES];
        random.fill_bytes(&mut bytes);
        Self::from_bytes(kind, &bytes)
    }

    /// The one that belongs to `context` under a server's secret: asking again gives the same, so that an answer that
    /// showed it can be given again although it was never stored.
    #[must_use]
    pub fn derive(kind: CredentialKind, secret: &[u8; 32], context: &[&str]) -> Self {
        let mut hasher = blake3::Hasher::new_keyed(secret);
        for part in [kind.prefix()].iter().chain(context) {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        let mut bytes = [0; RANDOM_BYTES];
        hasher.finalize_xof().fill(&mut bytes);
        Self::from_bytes(kind, &bytes)
    }

    fn from_bytes(kind: CredentialKind, bytes: &[u8; RANDOM_BYTES]) -> Self {
        let mut text = kind.prefix().to_owned();
        push_base32(&mut text, bytes, RANDOM_CHARACTERS);
        let checksum = crc32c::crc32c(text.as_bytes());
        text.push('_');
        push_base32(&mut text, &checksum.to_be_bytes(), CHECKSUM_CHARACTERS);
        Self { kind, text }
    }

    /// What it is for.
    #[must_use]
    pub fn kind(&self) -> CredentialKind {
        self.kind
    }

    /// The secret text: for the one time it is shown, never for a log.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.text
    }

    /// What the server stores in its place.
    #[must_use]
    pub fn hash(&self) -> SecretHash {
        SecretHash::of(&self.text)
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}…", self.kind.prefix())
    }
}

/// The text is not a credential: mistyped, cut off, or something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a Guidon credential; one looks like gdn_sdk_… and is copied whole")]
pub struct MalformedCredential;

impl FromStr for Credential {
    type Err = MalformedCredential;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut kinds = CredentialKind::ALL.into_iter();
        let kind = kinds.find(|kind| text.starts_with(kind.prefix())).ok_or(MalformedCredential)?;
        let (body, checksum) = text.rsplit_once('_').ok_or(MalformedCredential)?;
        let random = body.strip_prefix(kind.prefix()).ok_or(MalformedCredential)?;
        let mut expected = String::new();
        push_base32(&mut expected, &crc32c::crc32c(body.as_bytes()).to_be_bytes(), CHECKSUM_CHARACTERS);
        let well_formed = random.len() == RANDOM_CHARACTERS
            && random.bytes().all(|byte| ALPHABET.contains(&byte))
            && checksum == expected;
        if well_formed { Ok(Self { kind, text: text.to_owned() }) } else { Err(MalformedCredential) }
    }
}

/// BLAKE3 of a secret; compared in constant time.
#[derive(Clone, Copy, Eq)]
pub struct SecretHash([u8; 32]);

impl SecretHash {
    /// The hash of a secret text.
    #[must_use]
    pub fn of(secret: &str) -> Self {
        Self(*blake3::hash(secret.as_bytes()).as_bytes())
    }

    /// The hash with these bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// In hexadecimal, as the journal stores it.
    #[must_use]
    pub fn to_hex(self) -> String {
        blake3::Hash::from_bytes(self.0).to_hex().to_string()
    }
}

impl PartialEq for SecretHash {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Debug for SecretHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SecretHash(…)")
    }
}

/// Appends the first `characters` base-32 digits of `bytes`, missing bits taken as zero.
pub(super) fn push_base32(text: &mut String, bytes: &[u8], characters: usize) {
    let bit = |index: usize| bytes.get(index / 8).map_or(0, |byte| byte >> (7 - index % 8) & 1);
    for character in 0..characters {
        let digit = (0..5).fold(0, |digit, offset| digit << 1 | bit(character * 5 + offset));
        text.push(char::from(ALPHABET[usize::from(digit)]));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_new_one_reads_back_and_differs_from_the_next() {
        for kind in CredentialKind::ALL {
            let first = Credential::generate(kind, &mut rand::rng());
            let second = Credential::generate(kind, &mut rand::rng());
            assert_eq!(first.reveal().parse::<Credential>().unwrap().kind(), kind);
            assert_ne!(first.hash(), second.hash());
            assert_eq!(first.reveal().len(), kind.prefix().len() + 40);
        }
    }

    #[test]
    fn the_form_is_fixed() {
        let credential = Credential::derive(CredentialKind::ServerSdk, &[7; 32], &["principal", "key"]);
        assert_eq!(credential, Credential::derive(CredentialKind::ServerSdk, &[7; 32], &["principal", "key"]));
        assert_ne!(credential, Credential::derive(CredentialKind::ServerSdk, &[7; 32], &["principalk", "ey"]));
        assert_ne!(credential, Credential::derive(CredentialKind::ServerSdk, &[8; 32], &["principal", "key"]));
        assert_eq!(format!("{credential:?}"), "gdn_sdk_…");
    }

    proptest! {
        #[test]
        fn one_wrong_character_is_noticed(seed: [u8; 32], position in 0_usize..48, replacement in "[a-z2-7]") {
            let credential = Credential::derive(CredentialKind::ServerSdk, &seed, &[]);
            let mut text = credential.reveal().to_owned();
            text.replace_range(position..=position, &replacement);
            prop_assert_eq!(text.parse::<Credential>().is_ok(), text == credential.reveal());
        }

        #[test]
        fn anything_else_is_refused(text in "\\PC{0,60}") {
            prop_assert!(text.parse::<Credential>().is_err());
        }
    }
}
