//! `guidon journal export` and `guidon journal import`: moving a whole history to another store.

use std::path::{Path, PathBuf};

use clap::Args;
use indicatif::ProgressBar;
use serde_json::json;

use super::output::Output;
use super::store::DataArgs;
use super::{CliError, progress};
use crate::app;
use crate::clock::SystemClock;
use crate::journal::{self, Progress, TransferError, Transferred, VerifyError};
use crate::log::RealFiles;

/// What to export, and to where.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// File to write; it holds targeting keys and names in clear and is created with mode 600
    file: PathBuf,
    /// Last entry to export; what came later is left behind. For an older version, which says which entry it cannot read
    #[arg(long, value_name = "REVISION", value_parser = clap::value_parser!(u64).range(1..))]
    to_revision: Option<u64>,
    #[command(flatten)]
    data: DataArgs,
}

/// What to import, and into what.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// File that `guidon journal export` wrote
    file: PathBuf,
    #[command(flatten)]
    data: DataArgs,
}

/// Writes the history of a stopped server's store to a file.
pub fn export(args: &ExportArgs, output: &Output) -> Result<(), CliError> {
    let data = &args.data.data;
    let folder = data.join("journal");
    if !folder.is_dir() {
        return Err(CliError::Usage(format!("{}: there is no store in this folder; --data names it", data.display())));
    }
    let vault = app::open_vault(data).map_err(|error| CliError::Usage(format!("{error}")))?;
    let bar = progress::bar(output, 0, "bytes");
    let (files, mut step) = (RealFiles::shared(), |step| show(&bar, step));
    let done = journal::export(&*files, &folder, &*vault, &args.file, args.to_revision, &mut step);
    bar.finish_and_clear();
    let done = done.map_err(|error| failed(&error))?;
    print(&done, output, &format!("Exported {} entries to {}.", done.head.revision, args.file.display()))
}

/// Makes a new store from an exported file.
pub fn import(args: &ImportArgs, output: &Output) -> Result<(), CliError> {
    let bar = progress::bar(output, 0, "bytes");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let target =
        journal::ImportTarget { data_dir: &args.data.data, journal: Path::new("journal"), vault: &app::open_vault };
    let mut step = |step| show(&bar, step);
    let done = runtime.block_on(journal::import(RealFiles::shared(), &args.file, target, &SystemClock, &mut step));
    bar.finish_and_clear();
    let done = done.map_err(|error| failed(&error))?;
    let place = args.data.data.display();
    print(&done, output, &format!("Imported {} entries into {place}, as a new history.", done.head.revision))
}

fn show(bar: &ProgressBar, progress: Progress) {
    bar.set_length(progress.total_bytes);
    bar.set_position(progress.bytes);
}

fn print(done: &Transferred, output: &Output, sentence: &str) -> Result<(), CliError> {
    let document = json!({
        "history": done.history,
        "revision": done.head.revision,
        "hash": done.head.hash.to_string(),
        "records": done.records,
        "erased": done.erased,
    });
    output.either(&document, |output| {
        output.line(sentence)?;
        output.line(format!("  history {}", done.history))?;
        output.line(format!("  chain   {}", done.head.hash))?;
        output.line(format!("  {} records of the vault came along, {} are erased.", done.records, done.erased))
    })
}

fn failed(error: &TransferError) -> CliError {
    match error {
        TransferError::Journal(VerifyError::Open(_)) | TransferError::BadLine { .. } => {
            CliError::Damaged(error.to_string())
        }
        TransferError::Taken { .. }
        | TransferError::NotSoFar { .. }
        | TransferError::Vault(_)
        | TransferError::Journal(VerifyError::NoJournal(_)) => CliError::Usage(error.to_string()),
        TransferError::Append(_) | TransferError::Io { .. } => CliError::Unexpected(error.to_string()),
    }
}
