//! The sessions of this user, by server: `session.toml` beside the profile file, readable by its owner only.

use std::collections::BTreeMap;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::CliError;
use super::profile::config_path;
use super::put_file::{Readers, put_file};
use crate::clock::{Clock, SystemClock};

/// One session.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredSession {
    /// Its credential.
    pub credential: String,
    /// Name of the account.
    #[serde(default)]
    pub name: String,
    /// When it ends, in milliseconds since 1970.
    pub expires_at: u64,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SessionFile {
    #[serde(default)]
    sessions: BTreeMap<String, StoredSession>,
}

/// Where sessions are kept.
#[must_use]
pub fn path() -> PathBuf {
    config_path().with_file_name("session.toml")
}

/// The session at `server` that is not over.
///
/// # Errors
///
/// If the file cannot be read.
pub fn find(server: &str) -> Result<Option<StoredSession>, CliError> {
    let found = read(&path())?.sessions.remove(server);
    Ok(found.filter(|session| session.expires_at > SystemClock.now_ms()))
}

/// Keeps a session at `server`, or with `None` forgets it.
///
/// # Errors
///
/// If the file cannot be written.
pub fn keep(server: &str, session: Option<StoredSession>) -> Result<(), CliError> {
    let path = path();
    let mut file = read(&path)?;
    match session {
        Some(session) => file.sessions.insert(server.to_owned(), session),
        None => file.sessions.remove(server),
    };
    let text = toml::to_string(&file).map_err(|error| CliError::Unexpected(error.to_string()))?;
    write(&path, &text).map_err(|error| CliError::Unexpected(format!("{}: {error}", path.display())))
}

fn read(path: &Path) -> Result<SessionFile, CliError> {
    match std::fs::read_to_string(path) {
        Ok(text) => toml::from_str(&text).map_err(|error| {
            // The parser's own message quotes the line, which may hold a credential.
            CliError::Usage(format!("{}: {}; remove the file and sign in again", path.display(), error.message()))
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(SessionFile::default()),
        Err(error) => Err(CliError::Usage(format!("{}: {error}", path.display()))),
    }
}

/// Replaces the file as a whole; it is its owner's from the first byte on.
fn write(path: &Path, text: &str) -> std::io::Result<()> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    put_file(path, text.as_bytes(), Readers::Owner)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_file_is_its_owners_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new").join("session.toml");
        write(&path, "[sessions]\n").unwrap();
        write(&path, "[sessions.\"http://a\"]\ncredential = \"x\"\nexpires_at = 7\n").unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let sessions = read(&path).unwrap().sessions;
        assert_eq!((sessions.len(), sessions["http://a"].expires_at), (1, 7));
        std::fs::write(&path, "[sessions.\"http://a\"]\ncredential = \"gdn_session_secret\n").unwrap();
        let said = read(&path).err().unwrap().to_string();
        assert!(!said.contains("gdn_session_secret"), "{said}");
    }
}
