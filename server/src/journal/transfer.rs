//! Moving a whole history to another store, as one file.
//!
//! The file is lines of JSON: a header, every entry with its exact bytes and chain hash, the vault's records that entries
//! refer to, and an end with counts and a checksum. It holds personal data in clear (targeting keys, who made a change and
//! from where), so it is created with permissions 600. An import verifies all of it before the new store becomes visible, and
//! the new store has a history id of its own, which tells SDKs that its revisions are not the old ones.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::file::{history_of, mint};
use super::verify::walk;
use super::{Head, MAX_ENTRY_BYTES, Progress, StoredEntry, VerifyError};
use crate::changes::keysets::visit_entry;
use crate::clock::Clock;
use crate::log::{self, Files, Kind, Log};
use crate::vault::{self, Vault, VaultError};

/// Version of the file's form.
pub const EXPORT_FORMAT: u32 = 1;

/// Longest line that is read, in bytes: an entry in which every byte is escaped.
const MAX_LINE_BYTES: u64 = 2 * MAX_ENTRY_BYTES as u64 + 4_096;

/// Entries that an import makes durable together.
const SYNC_INTERVAL: u64 = 1_000;

/// Kinds of vault records that entries refer to.
const KINDS: [vault::Kind; 3] = [vault::Kind::KeySet, vault::Kind::Actor, vault::Kind::Origin];

/// A line of the file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
enum Line {
    Header { format: u32, history: String, note: String },
    Entry { hash: String, entry: String },
    Record { of: RecordKind, id: String, value: RecordValue },
    End { entries: u64, records: u64, head: String, checksum: String },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum RecordKind {
    KeySet,
    Actor,
    Origin,
}

impl RecordKind {
    const ALL: [Self; 3] = [Self::KeySet, Self::Actor, Self::Origin];

    fn in_vault(self) -> vault::Kind {
        KINDS[self as usize]
    }
}

/// Text where it is text, hexadecimal digits elsewhere.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum RecordValue {
    Text(String),
    Hex(String),
}

impl RecordValue {
    fn of(bytes: Vec<u8>) -> Self {
        String::from_utf8(bytes).map_or_else(
            |error| Self::Hex(error.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect()),
            Self::Text,
        )
    }

    fn bytes(self) -> Result<Vec<u8>, String> {
        match self {
            Self::Text(text) => Ok(text.into_bytes()),
            Self::Hex(digits) => {
                let pairs = digits.as_bytes().as_chunks::<2>();
                let byte =
                    |pair: &[u8; 2]| str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok());
                let bytes: Option<Vec<u8>> = pairs.0.iter().map(byte).collect();
                bytes.filter(|_| pairs.1.is_empty()).ok_or_else(|| "its value is not hexadecimal".to_owned())
            }
        }
    }
}

/// What was moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transferred {
    /// History id of the store: the exported one, or the one that was made.
    pub history: String,
    /// Last entry.
    pub head: Head,
    /// Records of the vault that came along.
    pub records: u64,
    /// Records that entries refer to and that are erased.
    pub erased: u64,
}

/// Why a history was not moved. Neither store was changed.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The journal to be exported is not sound.
    #[error(transparent)]
    Journal(#[from] VerifyError),
    /// The vault did not answer.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// A line of the file is not what was exported.
    #[error("{}, line {line}: {what}", path.display())]
    BadLine {
        /// The file.
        path: PathBuf,
        /// Number of the line, from 1.
        line: u64,
        /// What is wrong.
        what: String,
    },
    /// It was to be exported further than it goes.
    #[error("the journal ends with entry {end}: there is no entry {last} to export up to")]
    NotSoFar {
        /// The last entry that was asked for.
        last: u64,
        /// The last one there is.
        end: u64,
    },
    /// The place to write to is taken.
    #[error("{}: {what}", path.display())]
    Taken {
        /// The file or folder.
        path: PathBuf,
        /// Why it cannot be used.
        what: &'static str,
    },
    /// The new journal could not be written.
    #[error("the new journal could not be written: {0}")]
    Append(#[from] log::AppendError),
    /// The operating system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Its answer.
        source: io::Error,
    },
}

impl From<log::OpenError> for TransferError {
    fn from(error: log::OpenError) -> Self {
        Self::Journal(error.into())
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> TransferError {
    let path = path.to_owned();
    move |source| TransferError::Io { path, source }
}

/// Writes lines and keeps the checksum of all of them.
struct Lines<W> {
    out: W,
    checksum: blake3::Hasher,
}

impl<W: Write> Lines<W> {
    fn write(&mut self, line: &Line) -> io::Result<()> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        self.checksum.update(&text);
        self.out.write_all(&text)
    }
}

/// Exports the journal in `journal_dir`, with what it refers to in `vault`, to the new file `to`, which appears when it is
/// whole. Entries after the revision `last` are left out and not read: this may be an older version, to which somebody goes
/// back. Every checksum and the chain are verified on the way, of those too. Takes no lock on the journal: of a running server's history it takes what is
/// there. Blocks.
///
/// # Errors
///
/// [`TransferError`]; there is no file then.
pub fn export(
    files: &dyn Files,
    journal_dir: &Path,
    vault: &dyn Vault,
    to: &Path,
    last: Option<u64>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Transferred, TransferError> {
    if to.exists() {
        return Err(TransferError::Taken { path: to.to_owned(), what: "the file exists; choose another name" });
    }
    let mut unfinished = to.as_os_str().to_owned();
    unfinished.push(".unfinished");
    let unfinished = PathBuf::from(unfinished);
    let done = export_to(files, journal_dir, vault, &unfinished, last, progress)
        .and_then(|done| publish(&unfinished, to).map(|()| done).map_err(at(to)));
    if done.is_err() {
        // What is left of it is of no use, and may hold personal data.
        let _ = fs::remove_file(&unfinished);
    }
    done
}

fn publish(unfinished: &Path, to: &Path) -> io::Result<()> {
    fs::rename(unfinished, to)?;
    let dir = to.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(dir)?.sync_all()
}

fn export_to(
    files: &dyn Files,
    journal_dir: &Path,
    vault: &dyn Vault,
    path: &Path,
    last: Option<u64>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Transferred, TransferError> {
    let history = super::history(files, journal_dir)?.ok_or_else(|| VerifyError::NoJournal(journal_dir.to_owned()))?;
    let _ = fs::remove_file(path);
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(at(path))?;
    let mut lines = Lines { out: BufWriter::new(file), checksum: blake3::Hasher::new() };
    let note = "A history of Guidon. It holds personal data in clear: keep it as you keep the vault.".to_owned();
    lines.write(&Line::Header { format: EXPORT_FORMAT, history: history.clone(), note }).map_err(at(path))?;
    let mut referred: [BTreeSet<String>; 3] = Default::default();
    let (mut failed, mut head) = (None, Head::EMPTY);
    let verified = walk(files, journal_dir, progress, &mut |raw| {
        if last.is_some_and(|last| raw.revision() > last) {
            return Ok(());
        }
        let stored = raw.read()?;
        head = stored.head();
        visit_entry(&stored.entry, &mut |set| {
            referred[RecordKind::KeySet as usize].insert(set.id.clone());
        });
        referred[RecordKind::Actor as usize].insert(stored.entry.actor_id.clone());
        referred[RecordKind::Origin as usize].insert(stored.entry.origin_id.clone());
        let entry = str::from_utf8(raw.bytes).map_err(|error| error.to_string())?.to_owned();
        lines.write(&Line::Entry { hash: raw.hash.to_string(), entry }).map_err(|error| {
            let text = error.to_string();
            failed.get_or_insert(error);
            text
        })
    });
    if let Some(error) = failed {
        return Err(at(path)(error));
    }
    let end = verified?.head.revision;
    if let Some(last) = last.filter(|last| *last > end) {
        return Err(TransferError::NotSoFar { last, end });
    }
    let (mut records, mut erased) = (0, 0);
    for (kind, ids) in RecordKind::ALL.into_iter().zip(referred) {
        for id in ids {
            match vault.get(kind.in_vault(), &id)? {
                None => erased += 1,
                Some(value) => {
                    lines.write(&Line::Record { of: kind, id, value: RecordValue::of(value) }).map_err(at(path))?;
                    records += 1;
                }
            }
        }
    }
    let checksum = lines.checksum.finalize().to_hex().to_string();
    let end = Line::End { entries: head.revision, records, head: head.hash.to_string(), checksum };
    lines.write(&end).map_err(at(path))?;
    let file = lines.out.into_inner().map_err(|error| at(path)(error.into_error()))?;
    file.sync_all().map_err(at(path))?;
    Ok(Transferred { history, head, records, erased })
}

/// Reads the lines of an exported file, checking each.
struct Source<'a> {
    path: &'a Path,
    input: BufReader<File>,
    total_bytes: u64,
    bytes: u64,
    line: u64,
    text: Vec<u8>,
    checksum: blake3::Hasher,
}

impl<'a> Source<'a> {
    fn open(path: &'a Path) -> Result<Self, TransferError> {
        let file = File::open(path).map_err(at(path))?;
        let total_bytes = file.metadata().map_err(at(path))?.len();
        let (input, checksum) = (BufReader::with_capacity(1 << 20, file), blake3::Hasher::new());
        let mut source = Self { path, input, total_bytes, bytes: 0, line: 0, text: Vec::new(), checksum };
        match source.next()? {
            Line::Header { format: EXPORT_FORMAT, .. } => Ok(source),
            Line::Header { format, .. } => {
                Err(source.bad(format!("export format {format}, this version reads {EXPORT_FORMAT}")))
            }
            _ => Err(source.bad("it does not start with a header: this is no exported history".to_owned())),
        }
    }

    fn bad(&self, what: String) -> TransferError {
        TransferError::BadLine { path: self.path.to_owned(), line: self.line, what }
    }

    /// The next line; the end of the file is an error, because an export has an end of its own.
    fn next(&mut self) -> Result<Line, TransferError> {
        self.checksum.update(&self.text);
        self.text.clear();
        self.line += 1;
        let read = (&mut self.input).take(MAX_LINE_BYTES).read_until(b'\n', &mut self.text);
        self.bytes += read.map_err(at(self.path))? as u64;
        if self.text.pop_if(|last| *last == b'\n').is_none() {
            let cut =
                if self.text.len() as u64 >= MAX_LINE_BYTES { "the line is too long" } else { "the file is cut off" };
            return Err(self.bad(cut.to_owned()));
        }
        let line = serde_json::from_slice(&self.text).map_err(|error| self.bad(error.to_string()));
        self.text.push(b'\n');
        line
    }

    fn finish(mut self, end: Line, head: Head, records: u64) -> Result<(), TransferError> {
        let Line::End { entries, records: expected, head: hash, checksum } = end else {
            return Err(self.bad("a second header".to_owned()));
        };
        if self.checksum.finalize().to_hex().as_str() != checksum {
            return Err(self.bad("the checksum of the lines before does not match".to_owned()));
        }
        if (entries, hash, expected) != (head.revision, head.hash.to_string(), records) {
            return Err(self.bad(format!(
                "it counts {entries} entries and {expected} records; there are {} and {records}",
                head.revision
            )));
        }
        let mut rest = [0];
        match self.input.read(&mut rest).map_err(at(self.path))? {
            0 => Ok(()),
            _ => {
                self.line += 1;
                Err(self.bad("something follows the end".to_owned()))
            }
        }
    }
}

/// Opens the vault of a data folder.
pub type OpenVault = dyn Fn(&Path) -> Result<Arc<dyn Vault>, VaultError> + Sync;

/// Where an import puts a store: folders of journal and vault in the new data folder.
pub struct Target<'a> {
    /// The data folder to be made: missing or empty.
    pub data_dir: &'a Path,
    /// Name of the journal's folder in it.
    pub journal: &'a Path,
    /// Opens the vault of the data folder it is given.
    pub vault: &'a OpenVault,
}

/// Makes a store from an exported file, with a new history id. It is built beside the data folder and takes its place when
/// everything was verified and synced. Blocks the task it runs in.
///
/// # Errors
///
/// [`TransferError`], naming the first line that is not what was exported; there is no new store then.
pub async fn import(
    files: Arc<dyn Files>,
    from: &Path,
    target: Target<'_>,
    clock: &dyn Clock,
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<Transferred, TransferError> {
    let data_dir = target.data_dir;
    match fs::read_dir(data_dir).map(|mut entries| entries.next().is_some()) {
        Ok(true) => {
            let what = "the data folder is not empty; a history is imported into a new one";
            return Err(TransferError::Taken { path: data_dir.to_owned(), what });
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at(data_dir)(error)),
        _ => {}
    }
    let mut building = data_dir.as_os_str().to_owned();
    building.push(".importing");
    let building = PathBuf::from(building);
    remove_if_there(&building).map_err(at(&building))?;
    let done = build(files, from, &target, &building, clock, progress).await;
    match done.and_then(|done| publish(&building, data_dir).map(|()| done).map_err(at(data_dir))) {
        Ok(done) => Ok(done),
        Err(error) => {
            // The reason of the failure is worth more than the leftovers, which the next import removes.
            let _ = remove_if_there(&building);
            Err(error)
        }
    }
}

fn remove_if_there(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

async fn build(
    files: Arc<dyn Files>,
    from: &Path,
    target: &Target<'_>,
    building: &Path,
    clock: &dyn Clock,
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<Transferred, TransferError> {
    let mut source = Source::open(from)?;
    let id = mint(clock);
    files.create_dir_all(building).map_err(at(building))?;
    let options = log::Options { id: Some(id), ..log::Options::default() };
    let (log, _) = Log::open(files, &building.join(target.journal), Kind::Journal, options, |_| {})?;
    let vault = (target.vault)(building)?;
    let (mut head, mut records) = (Head::EMPTY, 0);
    let mut last = None;
    let end = loop {
        match source.next()? {
            Line::Entry { hash, entry } if records == 0 => {
                let hash = hash.parse().map_err(|what| source.bad(what))?;
                let stored = StoredEntry::verify(head, Bytes::from(entry), hash).map_err(|what| source.bad(what))?;
                head = stored.head();
                last = Some(log.append(Bytes::from([&stored.hash.0, &*stored.bytes].concat()))?);
                if head.revision.is_multiple_of(SYNC_INTERVAL)
                    && let Some(last) = last.take()
                {
                    last.await?;
                    progress(Progress { entries: head.revision, bytes: source.bytes, total_bytes: source.total_bytes });
                }
            }
            Line::Entry { .. } => return Err(source.bad("an entry behind the vault's records".to_owned())),
            Line::Record { of, id, value } => {
                let value = value.bytes().map_err(|what| source.bad(what))?;
                vault.put(of.in_vault(), &id, value).await?;
                records += 1;
            }
            end @ (Line::End { .. } | Line::Header { .. }) => break end,
        }
    };
    if let Some(last) = last {
        last.await?;
    }
    progress(Progress { entries: head.revision, bytes: source.bytes, total_bytes: source.total_bytes });
    source.finish(end, head, records)?;
    log.close()?;
    Ok(Transferred { history: history_of(id), head, records, erased: 0 })
}

#[cfg(test)]
#[path = "transfer_tests.rs"]
mod tests;
