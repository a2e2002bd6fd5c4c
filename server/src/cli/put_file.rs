//! Files that a command writes: whole, or not at all.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Who may read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readers {
    /// Whoever the user's mask lets in.
    Usual,
    /// Its owner, whoever could read the file whose place it takes.
    Owner,
}

/// Puts a file in its place, in that of one that is there too. Its folder has to be there.
///
/// # Errors
///
/// If it cannot be written; what was there is as it was then.
pub fn put_file(path: &Path, content: &[u8], readers: Readers) -> io::Result<()> {
    let mode = match readers {
        Readers::Usual => 0o666,
        Readers::Owner => 0o600,
    };
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let draft = path.with_file_name(format!(".{name}.{}", std::process::id()));
    // What a command that was ended left there may belong to others.
    let _ = fs::remove_file(&draft);
    let written = OpenOptions::new().write(true).create_new(true).mode(mode).open(&draft).and_then(|mut file| {
        file.write_all(content)?;
        file.sync_all()
    });
    written.and_then(|()| fs::rename(&draft, path)).inspect_err(|_| {
        // The error is what counts; a draft that stays is hidden and harmless.
        let _ = fs::remove_file(&draft);
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_is_its_owners_stays_so_in_an_open_files_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plan.json");
        let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        put_file(&path, b"new", Readers::Owner).unwrap();
        assert_eq!((mode(), fs::read(&path).unwrap()), (0o600, b"new".to_vec()));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left there");
        assert!(put_file(&folder.path().join("none/plan.json"), b"", Readers::Usual).is_err());
    }
}
