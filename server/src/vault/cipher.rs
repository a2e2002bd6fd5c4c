//! The master key, and records sealed with XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03).

use std::fmt;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};

use super::VaultError;
use crate::log::RealFiles;
use crate::log::files::{Files, create_whole};

/// The environment variable that holds the master key as 64 hexadecimal digits.
pub const MASTER_KEY_VARIABLE: &str = "GUIDON_MASTER_KEY";

const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 24;
const TAG_BYTES: usize = 16;
/// What sealing adds to a text, in bytes.
pub(crate) const SEAL_BYTES: usize = NONCE_BYTES + TAG_BYTES;

/// The key from which the keys of everything encrypted at rest are derived.
#[derive(Clone, PartialEq, Eq)]
pub struct MasterKey([u8; KEY_BYTES]);

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey(..)")
    }
}

/// Where a master key came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// [`MASTER_KEY_VARIABLE`].
    Environment,
    /// An existing file. The number is its permissions if others than its owner can read it, which deserves a warning.
    File(PathBuf, Option<u32>),
    /// A file that was created now, with permissions 600: to be backed up apart from the data.
    Created(PathBuf),
}

impl MasterKey {
    /// A key of given bytes.
    pub fn from_bytes(bytes: [u8; KEY_BYTES]) -> Self {
        Self(bytes)
    }

    /// Takes the key from `variable`, the value of [`MASTER_KEY_VARIABLE`], else from `key_file`. Where there is neither,
    /// a new key is written to `key_file`, unless `vault_dir` holds a vault already: its key is missing then, and a new
    /// one would not open it.
    pub fn load_or_create(
        variable: Option<&str>,
        key_file: &Path,
        vault_dir: &Path,
    ) -> Result<(Self, KeySource), VaultError> {
        if let Some(text) = variable {
            return Ok((Self::from_hex(text, MASTER_KEY_VARIABLE)?, KeySource::Environment));
        }
        let origin = key_file.display().to_string();
        let problem = |problem: String| VaultError::Key { origin: origin.clone(), problem };
        match std::fs::read_to_string(key_file) {
            Ok(text) => {
                let mode = std::fs::metadata(key_file).map_err(|error| problem(error.to_string()))?.mode() & 0o777;
                let open_mode = (mode & 0o077 != 0).then_some(mode);
                Ok((Self::from_hex(&text, &origin)?, KeySource::File(key_file.to_owned(), open_mode)))
            }
            Err(error) if error.kind() != ErrorKind::NotFound => Err(problem(error.to_string())),
            Err(_) if vault_dir.join("watermark").exists() => Err(problem(format!(
                "the file is missing, but {} was written with it: restore it, or set {MASTER_KEY_VARIABLE}",
                vault_dir.display()
            ))),
            Err(_) => {
                let key = Self(rand::random());
                let parent = key_file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
                RealFiles
                    .create_dir_all(parent)
                    .and_then(|()| create_whole(&RealFiles, key_file, key.to_hex().as_bytes()))
                    .map_err(|error| problem(error.to_string()))?;
                Ok((key, KeySource::Created(key_file.to_owned())))
            }
        }
    }

    /// Checks the key that [`Self::load_or_create`] would take, and makes none.
    ///
    /// # Errors
    ///
    /// [`VaultError::Key`] if it is not 64 hexadecimal digits, or its file cannot be read.
    pub fn check(variable: Option<&str>, key_file: &Path) -> Result<(), VaultError> {
        if let Some(text) = variable {
            return Self::from_hex(text, MASTER_KEY_VARIABLE).map(drop);
        }
        let origin = key_file.display().to_string();
        match std::fs::read_to_string(key_file) {
            Ok(text) => Self::from_hex(&text, &origin).map(drop),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(VaultError::Key { origin, problem: error.to_string() }),
        }
    }

    /// Reads a key that was written as 64 hexadecimal digits.
    ///
    /// # Errors
    ///
    /// [`VaultError::Key`].
    pub fn parse(text: &str) -> Result<Self, VaultError> {
        Self::from_hex(text, "the backup")
    }

    /// The key as 64 hexadecimal digits: to be handed out only where that was asked for in so many words.
    #[must_use]
    pub fn reveal(&self) -> String {
        self.to_hex().trim().to_owned()
    }

    fn from_hex(text: &str, origin: &str) -> Result<Self, VaultError> {
        let problem = || VaultError::Key {
            origin: origin.to_owned(),
            problem: "expected 64 hexadecimal digits, as from `openssl rand -hex 32`".to_owned(),
        };
        let digits = text.trim().as_bytes();
        if digits.len() != 2 * KEY_BYTES {
            return Err(problem());
        }
        let digit = |byte: u8| char::from(byte).to_digit(16).ok_or_else(problem);
        let mut key = [0; KEY_BYTES];
        for (byte, pair) in key.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
        }
        Ok(Self(key))
    }

    fn to_hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).chain(["\n".to_owned()]).collect()
    }

    /// A key for one purpose (BLAKE3 key derivation): the same for the same purpose, telling nothing of the others.
    pub fn derive(&self, purpose: &str) -> [u8; KEY_BYTES] {
        blake3::derive_key(purpose, &self.0)
    }
}

/// Seals and opens vault records.
pub(crate) struct Cipher(XChaCha20Poly1305);

impl fmt::Debug for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cipher(..)")
    }
}

/// What a sealed record is bound to beside the key: its place in the log and its role. Kind and id are within the seal,
/// so that no record can pass for another one.
pub(crate) struct Place {
    pub(crate) seq: u64,
    pub(crate) role: u8,
}

impl Place {
    fn bytes(&self) -> [u8; 24] {
        let mut bytes = *b"guidon vault 1\0\0\0\0\0\0\0\0\0\0";
        bytes[15] = self.role;
        bytes[16..].copy_from_slice(&self.seq.to_le_bytes());
        bytes
    }
}

impl Cipher {
    pub(crate) fn new(key: &MasterKey) -> Self {
        Self(XChaCha20Poly1305::new(&key.derive("guidon 2026 vault records").into()))
    }

    /// Nonce and sealed text. 192 random bits need no counter: they do not repeat.
    pub(crate) fn seal(&self, place: &Place, text: &[u8]) -> Result<Vec<u8>, chacha20poly1305::Error> {
        let nonce: [u8; NONCE_BYTES] = rand::random();
        let sealed = self.0.encrypt(&XNonce::from(nonce), Payload { msg: text, aad: &place.bytes() })?;
        Ok([nonce.as_slice(), &sealed].concat())
    }

    /// The text, if it was sealed with this key for this place.
    pub(crate) fn open(&self, place: &Place, sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_BYTES>()?;
        self.0.decrypt(&XNonce::from(*nonce), Payload { msg: sealed, aad: &place.bytes() }).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_text_opens_only_in_its_place_and_unchanged() {
        let cipher = Cipher::new(&MasterKey::from_bytes([1; 32]));
        let place = |seq, role| Place { seq, role };
        let sealed = cipher.seal(&place(7, 1), b"text").unwrap();
        assert_eq!(sealed.len(), 4 + SEAL_BYTES);
        assert_eq!(cipher.open(&place(7, 1), &sealed).as_deref(), Some(b"text".as_slice()));
        assert_eq!(cipher.open(&place(8, 1), &sealed), None);
        assert_eq!(cipher.open(&place(7, 2), &sealed), None);
        assert_eq!(Cipher::new(&MasterKey::from_bytes([2; 32])).open(&place(7, 1), &sealed), None);
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(cipher.open(&place(7, 1), &changed), None);
        }
        assert_eq!(cipher.open(&place(7, 1), &sealed[..20]), None);
    }

    #[test]
    fn a_key_file_is_made_once_for_its_owner_only_and_never_for_an_existing_vault() {
        let dir = tempfile::tempdir().unwrap();
        let (file, vault) = (dir.path().join("keys/master.key"), dir.path().join("vault"));
        let (key, source) = MasterKey::load_or_create(None, &file, &vault).unwrap();
        assert_eq!(source, KeySource::Created(file.clone()));
        assert_eq!(std::fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
        let (again, source) = MasterKey::load_or_create(None, &file, &vault).unwrap();
        assert_eq!((&again, source), (&key, KeySource::File(file.clone(), None)));
        let (same, source) = MasterKey::load_or_create(Some(&key.to_hex()), Path::new("/nowhere"), &vault).unwrap();
        assert_eq!((same, source), (key, KeySource::Environment));

        std::fs::remove_file(&file).unwrap();
        std::fs::create_dir_all(&vault).unwrap();
        std::fs::write(vault.join("watermark"), "").unwrap();
        let error = MasterKey::load_or_create(None, &file, &vault).unwrap_err().to_string();
        assert!(error.contains("missing") && error.contains(MASTER_KEY_VARIABLE), "{error}");
        let error = MasterKey::load_or_create(Some("abc"), &file, &vault).unwrap_err().to_string();
        assert!(error.contains("64 hexadecimal digits"), "{error}");
    }
}
