//! Commands about a store on disk, which need no server.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::output::Output;
use super::{CliError, progress};
use crate::journal::{self, Progress, VerifyError};
use crate::log::{self, Files, RealFiles, Repair};

/// Which store.
#[derive(Debug, Args)]
pub struct DataArgs {
    /// Data folder of the server
    #[arg(long, env = "GUIDON_DATA", value_name = "FOLDER", default_value = "./guidon-data")]
    pub(super) data: PathBuf,
}

/// What to repair, and how. Exactly one decision.
#[derive(Debug, Args)]
pub struct RepairArgs {
    /// The damaged folder, as the report of the damage names it
    folder: PathBuf,
    #[command(flatten)]
    decision: Decision,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Decision {
    /// Give up everything from this place on; what is cut off is kept in files ending in .cut
    #[arg(long, value_name = "FILE:OFFSET")]
    truncate_at: Option<String>,
    /// Put one changed byte back
    #[arg(long, value_name = "FILE:OFFSET:FOUND:WRITTEN")]
    restore_byte: Option<String>,
    /// Write the watermark anew from the segments, which are taken to be complete
    #[arg(long)]
    rebuild_watermark: bool,
}

/// Checks a journal on disk.
pub fn verify(args: &DataArgs, output: &Output) -> Result<(), CliError> {
    let folder = args.data.join("journal");
    let bar = progress::bar(output, 0, "bytes");
    let files = RealFiles::shared();
    let verified = journal::verify(&*files, &folder, &mut |Progress { bytes, total_bytes, .. }| {
        bar.set_length(total_bytes);
        bar.set_position(bytes);
    });
    bar.finish_and_clear();
    let verified = verified.map_err(|error| match error {
        VerifyError::NoJournal(_) => {
            CliError::Usage(format!("{error}\n  --data or GUIDON_DATA says where the store is."))
        }
        VerifyError::Open(_) => CliError::Damaged(error.to_string()),
    })?;
    let torn =
        verified.torn.as_ref().map(|torn| json!({"file": torn.path, "offset": torn.offset, "bytes": torn.bytes}));
    let document = json!({
        "history": verified.history,
        "revision": verified.head.revision,
        "hash": verified.head.hash.to_string(),
        "bytes": verified.bytes,
        "torn": torn,
        "notes": verified.notes,
    });
    output.either(&document, |output| {
        output.line(format!("{} entries, every checksum right, the chain unbroken.", verified.head.revision))?;
        output.line(format!("  history {}", verified.history))?;
        output.line(format!("  chain   {}", verified.head.hash))?;
        if let Some(torn) = &verified.torn {
            output.line(format!(
                "  {}: {} bytes after byte {} belong to a write that was not finished, or is being made right now.",
                torn.path.display(),
                torn.bytes,
                torn.offset
            ))?;
        }
        verified.notes.iter().try_for_each(|note| output.line(format!("  {note}")))
    })
}

/// Carries out an operator's decision about a damaged folder.
pub fn repair(args: &RepairArgs, output: &Output) -> Result<(), CliError> {
    let decision = &args.decision;
    let repair = match (&decision.truncate_at, &decision.restore_byte) {
        (Some(place), _) => Repair::truncate_at(place),
        (None, Some(byte)) => Repair::restore_byte(byte),
        (None, None) => Ok(Repair::RebuildWatermark),
    };
    let repair = repair.map_err(CliError::Usage)?;
    let files = RealFiles::shared();
    if !args.folder.is_dir() || log::identity(&*files, &args.folder).is_ok_and(|id| id.is_none()) {
        return Err(CliError::Usage(format!("{}: there is no log in this folder", args.folder.display())));
    }
    let kept = carry_out(&*files, &args.folder, &repair)?;
    output.either(&json!({"kept": kept}), |output| {
        output.line("Done.")?;
        kept.iter().try_for_each(|path| output.line(format!("  What was cut off is kept in {}", path.display())))
    })
}

fn carry_out(files: &dyn Files, folder: &std::path::Path, repair: &Repair) -> Result<Vec<PathBuf>, CliError> {
    log::repair(files, folder, repair).map_err(|error| match error {
        log::OpenError::Option { .. } | log::OpenError::Locked { .. } => CliError::Usage(error.to_string()),
        other => CliError::Damaged(other.to_string()),
    })
}
