//! `guidon backup …` and `guidon restore`: a whole store as one file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::json;

use super::output::Output;
use super::{Api, CliError, progress};
use crate::app::{self, StartError};
use crate::backup::{BackupError, BackupKey, Contents, Producer, ReadBackupError, RestoreError, read};
use crate::vault::VaultError;

/// What to take a backup of, and where to put it.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct BackupArgs {
    #[command(subcommand)]
    command: Option<BackupCommand>,
    /// File to write, with mode 600; - is standard output
    #[arg(required = true)]
    file: Option<PathBuf>,
    /// Put the assignment log in too
    #[arg(long)]
    assignments: bool,
    /// Data folder of a stopped server, in place of a running one
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,
    /// Put the master key in too: whoever has the file then has every secret
    #[arg(long, requires = "data")]
    with_master_key: bool,
}

/// Commands about backups that were taken.
#[derive(Debug, Subcommand)]
pub enum BackupCommand {
    /// Check a backup without restoring it: every checksum, both chains and, if the master key is given, the seal
    Verify {
        /// The backup; - is standard input
        file: PathBuf,
    },
}

/// What to restore, and to where.
#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// File that `guidon backup` wrote
    file: PathBuf,
    /// Data folder to be made: missing or empty
    #[arg(long, env = "GUIDON_DATA", value_name = "FOLDER")]
    data: PathBuf,
}

/// Runs `guidon backup`.
pub fn run(args: &BackupArgs, api: impl FnOnce() -> Result<Api, CliError>, output: &Output) -> Result<(), CliError> {
    if let Some(BackupCommand::Verify { file }) = &args.command {
        return verify(file, output);
    }
    let file = args.file.as_deref().ok_or_else(|| CliError::Usage("name the file to write".to_owned()))?;
    let contents = match &args.data {
        Some(data) => {
            if !data.join("journal").is_dir() {
                return Err(CliError::Usage(format!("{}: there is no store in this folder", data.display())));
            }
            let taken = app::offline_backup(data, args.assignments, args.with_master_key, |sources| {
                let producer = Producer::start(sources).map_err(|error| failed(&error))?;
                write(file, &mut Pieces { producer, piece: Vec::new(), at: 0 }, output)
            });
            taken.map_err(|error| not_opened(&error))??
        }
        None => {
            let query: Vec<_> = args.assignments.then(|| ("assignments", "true".to_owned())).into_iter().collect();
            write(file, &mut api()?.reader("/api/v1/backup", &query)?, output)?
        }
    };
    if file == Path::new("-") {
        return Ok(());
    }
    show(&contents, output, &format!("Backed up revision {} to {}.", contents.manifest.revision, file.display()))
}

fn failed(error: &BackupError) -> CliError {
    CliError::Unexpected(error.to_string())
}

fn not_opened(error: &StartError) -> CliError {
    let text = error.to_string();
    if text.contains("is in use by process") {
        return CliError::Usage(format!("{text}\n  Of a running server a backup is taken without --data."));
    }
    CliError::Damaged(text)
}

/// A backup that is being made, as something to be read.
struct Pieces {
    producer: Producer,
    piece: Vec<u8>,
    at: usize,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.piece.len() {
            match self.producer.next_piece().map_err(io::Error::other)? {
                Some(piece) => (self.piece, self.at) = (piece, 0),
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.piece.len() - self.at);
        buffer[..count].copy_from_slice(&self.piece[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

/// Writes down what it hands on.
struct Tee<'a> {
    input: &'a mut dyn Read,
    out: &'a mut dyn Write,
    bar: indicatif::ProgressBar,
}

impl Read for Tee<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        self.out.write_all(&buffer[..count])?;
        self.bar.inc(count as u64);
        Ok(count)
    }
}

/// Writes a backup, and checks it on the way: one that is cut off or changed leaves no file.
fn write(to: &Path, input: &mut dyn Read, output: &Output) -> Result<Contents, CliError> {
    let bar = progress::bytes(output);
    if to == Path::new("-") {
        let mut out = BufWriter::new(io::stdout().lock());
        let contents = read(&mut Tee { input, out: &mut out, bar }, None, &mut |_| Ok(())).map_err(|it| wrong(&it))?;
        out.flush()?;
        return Ok(contents);
    }
    if to.exists() {
        return Err(CliError::Usage(format!("{}: the file exists; choose another name", to.display())));
    }
    let at = |error: io::Error| CliError::Unexpected(format!("{}: {error}", to.display()));
    let mut unfinished = to.as_os_str().to_owned();
    unfinished.push(".unfinished");
    let unfinished = PathBuf::from(unfinished);
    let _ = fs::remove_file(&unfinished);
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished).map_err(at)?;
    let mut out = BufWriter::new(file);
    let contents = read(&mut Tee { input, out: &mut out, bar: bar.clone() }, None, &mut |_| Ok(()));
    bar.finish_and_clear();
    let contents = contents.map_err(|error| wrong(&error));
    let contents = contents.and_then(|contents| {
        let file = out.into_inner().map_err(|error| at(error.into_error()))?;
        file.sync_all().and_then(|()| fs::rename(&unfinished, to)).map_err(at)?;
        let dir = to.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(at)?;
        Ok(contents)
    });
    if contents.is_err() {
        // What is left of it is no backup.
        let _ = fs::remove_file(&unfinished);
    }
    contents
}

fn wrong(error: &ReadBackupError) -> CliError {
    match error {
        ReadBackupError::Io(error) if error.kind() == io::ErrorKind::BrokenPipe => CliError::BrokenPipe,
        ReadBackupError::Io(_) | ReadBackupError::Sink(_) => CliError::Unexpected(error.to_string()),
        ReadBackupError::OtherKey { .. } => CliError::Usage(error.to_string()),
        _ => CliError::Damaged(error.to_string()),
    }
}

fn wrong_key(error: &VaultError) -> CliError {
    CliError::Usage(error.to_string())
}

fn verify(file: &Path, output: &Output) -> Result<(), CliError> {
    let key = app::given_key().map_err(|error| wrong_key(&error))?.map(|key| BackupKey::of(&key));
    let bar = progress::bytes(output);
    let mut input: Box<dyn Read> = if file == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        let opened = File::open(file);
        Box::new(opened.map_err(|error| CliError::Usage(format!("{}: {error}", file.display())))?)
    };
    let mut input = io::BufReader::with_capacity(1 << 20, bar.wrap_read(&mut input));
    let contents = read(&mut input, key.as_ref(), &mut |_| Ok(()));
    bar.finish_and_clear();
    let contents = contents.map_err(|error| match wrong(&error) {
        CliError::Damaged(text) => CliError::Damaged(format!("{}: {text}", file.display())),
        other => other,
    })?;
    show(&contents, output, &format!("{}: every checksum right, both chains unbroken.", file.display()))
}

fn show(contents: &Contents, output: &Output, sentence: &str) -> Result<(), CliError> {
    let Contents { header, manifest, .. } = contents;
    let document = json!({ "header": header, "manifest": manifest, "isSealChecked": contents.is_sealed });
    output.either(&document, |output| {
        output.line(sentence)?;
        output.line(format!("  history  {}", header.history))?;
        output.line(format!("  revision {}, chain {}", manifest.revision, manifest.journal_hash))?;
        for part in &manifest.parts {
            output.line(format!("  {}: {} records, {} bytes", part.part, part.records, part.bytes))?;
        }
        let id = &header.master_key_id;
        match (header.has_master_key, contents.is_sealed) {
            (true, _) => output.line(format!("  The master key {id} is in it: whoever has the file has every secret.")),
            (false, true) => output.line(format!("  Sealed with the master key {id}, which was given.")),
            (false, false) => output.line(format!(
                "  The master key {id} is not in it, and is needed to restore it. Give it (GUIDON_MASTER_KEY or \
                 GUIDON_MASTER_KEY_FILE) to `guidon backup verify` to check the seal too."
            )),
        }
    })
}

/// Makes a store from a backup.
pub fn restore(args: &RestoreArgs, output: &Output) -> Result<(), CliError> {
    let key = app::given_key().map_err(|error| wrong_key(&error))?;
    let restored = app::restore_backup(&args.file, &args.data, key).map_err(|error| match &error {
        RestoreError::Backup { source: ReadBackupError::OtherKey { .. }, .. }
        | RestoreError::KeyNeeded(_)
        | RestoreError::BadKey(_)
        | RestoreError::Taken(_) => CliError::Usage(error.to_string()),
        RestoreError::Backup { source: ReadBackupError::Io(_) | ReadBackupError::Sink(_), .. }
        | RestoreError::Io { .. } => CliError::Unexpected(error.to_string()),
        RestoreError::Backup { .. } | RestoreError::NotSound(_) => {
            CliError::Damaged(format!("{error}\n  Nothing was restored."))
        }
    })?;
    let contents = &restored.contents;
    let revision = contents.manifest.revision;
    let document = json!({
        "history": restored.history, "revision": revision, "restoredFrom": contents.header.history,
        "hash": contents.manifest.journal_hash, "keyFile": restored.key_file,
    });
    output.either(&document, |output| {
        output.line(format!("Restored revision {revision} into {}, as a new history.", args.data.display()))?;
        output.line(format!("  history {} (was {})", restored.history, contents.header.history))?;
        output.line(format!("  chain   {}", contents.manifest.journal_hash))?;
        match &restored.key_file {
            Some(path) => output.line(format!("  The master key was in the backup and is in {}.", path.display())),
            None => output.line(format!(
                "  The server needs the master key {} as before: by GUIDON_MASTER_KEY or --master-key-file.",
                contents.header.master_key_id
            )),
        }?;
        output
            .line("  Everybody has to sign in again. What was revoked or erased since the backup has to be once more.")
    })
}
