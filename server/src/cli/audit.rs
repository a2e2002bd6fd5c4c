//! `guidon audit …`

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::json;

use super::output::Output;
use super::{Api, CliError, progress, trail};
use crate::audit::{
    self, Checkpoint, CheckpointPublicKey, Contained, EventsHead, Findings, Present, VerifyEventsError,
};
use crate::journal::{self, Head, VerifyError};
use crate::log::{RealFiles, TornTail};
use crate::state::DataFolder;

/// Largest checkpoint file that is read, in bytes.
const MAX_CHECKPOINT_BYTES: u64 = 64 << 10;

/// Commands about the audit trail.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Show who did what, and what was refused, newest first
    Log(trail::LogArgs),
    /// Show one record, whole
    Show {
        /// Id of the record, as in j:17 (a change, by its revision) or s:4 (an event)
        id: String,
    },
    /// Recompute both hash chains, on the running server or, with --data, on disk; compare with a signed checkpoint
    Verify(VerifyArgs),
    /// Write changes and events to a file, for auditors and spreadsheets
    Export(trail::ExportArgs),
    /// Have the server sign where both logs end now; keep what it answers apart from the server
    Checkpoint {
        /// File to write it to, in place of standard output
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Show the public key that checkpoints are signed for, and its fingerprint
    Key,
}

/// What to check, and against what.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Data folder of a server: checks its files, whether or not it runs
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,
    /// A checkpoint that was kept apart from the server: says whether the logs still contain what it saw
    #[arg(long, value_name = "FILE", requires = "key")]
    checkpoint: Option<PathBuf>,
    /// The server's public checkpoint key, as it was given out when the checkpoint was kept
    #[arg(long, value_name = "BASE64", requires = "checkpoint")]
    key: Option<String>,
}

/// Runs one of the commands; checking a folder needs no server.
pub fn run(
    command: AuditCommand,
    api: impl FnOnce() -> Result<Api, CliError>,
    output: &Output,
) -> Result<(), CliError> {
    match command {
        AuditCommand::Log(args) => trail::log(&args, &api()?, output),
        AuditCommand::Show { id } => trail::show(&id, &api()?, output),
        AuditCommand::Verify(args) => verify(&args, api, output),
        AuditCommand::Export(args) => trail::export(&args, &api()?, output),
        AuditCommand::Checkpoint { output: file } => trail::checkpoint(file.as_deref(), &api()?, output),
        AuditCommand::Key => trail::key(&api()?, output),
    }
}

/// What was found in both logs.
struct Checked {
    journal: journal::Verified,
    /// `None` where there is no security log yet.
    events: Option<audit::VerifiedEvents>,
    findings: Option<(Checkpoint, Findings)>,
}

fn verify(args: &VerifyArgs, api: impl FnOnce() -> Result<Api, CliError>, output: &Output) -> Result<(), CliError> {
    // The checkpoint comes first: a wrong file or key should not be told after minutes of reading.
    let checkpoint = match (&args.checkpoint, &args.key) {
        (Some(path), Some(key)) => Some(read_checkpoint(path, key)?),
        _ => None,
    };
    let Some(data) = &args.data else { return trail::verify(checkpoint.as_ref(), &api()?, output) };
    let checked = check(&DataFolder::new(data), checkpoint, output)?;
    show(&checked, output)?;
    match &checked.findings {
        Some((checkpoint, findings)) if findings.is_broken() => {
            Err(CliError::Damaged(findings.sentences(checkpoint).join("\n  ")))
        }
        _ => Ok(()),
    }
}

fn read_checkpoint(path: &Path, key: &str) -> Result<Checkpoint, CliError> {
    let wrong = |problem: &dyn std::fmt::Display| CliError::Usage(format!("{}: {problem}", path.display()));
    let key: CheckpointPublicKey = key.parse().map_err(|error| CliError::Usage(format!("--key: {error}")))?;
    let length = std::fs::metadata(path).map_err(|error| wrong(&error))?.len();
    if length > MAX_CHECKPOINT_BYTES {
        return Err(wrong(&format!("{length} bytes are too many for a checkpoint")));
    }
    let text = std::fs::read_to_string(path).map_err(|error| wrong(&error))?;
    let checkpoint: Checkpoint =
        serde_json::from_str(&text).map_err(|error| wrong(&format!("this is no checkpoint: {error}")))?;
    audit::verify_checkpoint(&checkpoint, &key).map_err(|error| wrong(&error))?;
    Ok(checkpoint)
}

fn check(folder: &DataFolder, checkpoint: Option<Checkpoint>, output: &Output) -> Result<Checked, CliError> {
    let files = RealFiles::shared();
    let bar = progress::bar(output, 0, "bytes");
    let (revision, seq) =
        checkpoint.as_ref().map_or((0, 0), |checkpoint| (checkpoint.journal.revision, checkpoint.security.seq));
    let (mut journal_at, mut security_at) = (None, None);
    let journal = journal::verify_seeing(
        &*files,
        &folder.journal(),
        &mut |progress| {
            bar.set_length(progress.total_bytes);
            bar.set_position(progress.bytes);
        },
        &mut |head: Head| {
            if head.revision == revision {
                journal_at = Some(head.hash);
            }
        },
    );
    let journal = journal.map_err(|error| match error {
        VerifyError::NoJournal(_) => {
            CliError::Usage(format!("{error}\n  --data or GUIDON_DATA says where the store is."))
        }
        VerifyError::Open(_) => CliError::Damaged(error.to_string()),
    })?;
    let events = audit::verify(
        &*files,
        &folder.security(),
        &mut |progress| {
            bar.set_length(progress.total_bytes);
            bar.set_position(progress.bytes);
        },
        &mut |head: EventsHead| {
            if head.seq == seq {
                security_at = Some(head.hash);
            }
        },
    );
    bar.finish_and_clear();
    let events = match events {
        Ok(verified) => Some(verified),
        // A store of an earlier version has none yet; a checkpoint that saw one will say so.
        Err(VerifyEventsError::NoLog(_)) => None,
        Err(error @ VerifyEventsError::Open(_)) => return Err(CliError::Damaged(error.to_string())),
    };
    let findings = checkpoint.map(|checkpoint| {
        let present = Present {
            history: journal.history.clone(),
            revision: journal.head.revision,
            journal: journal_at,
            first_seq: events.as_ref().map_or(1, |events| events.first_seq),
            last_seq: events.as_ref().map_or(0, |events| events.head.seq),
            security: security_at,
        };
        audit::compare(&checkpoint, &present).map(|findings| (checkpoint, findings))
    });
    let findings = findings.transpose().map_err(|error| CliError::Usage(error.to_string()))?;
    Ok(Checked { journal, events, findings })
}

fn show(checked: &Checked, output: &Output) -> Result<(), CliError> {
    let Checked { journal, events, findings } = checked;
    let torn = |torn: &Option<TornTail>| {
        torn.as_ref().map(|torn| json!({"file": torn.path, "offset": torn.offset, "bytes": torn.bytes}))
    };
    let document = json!({
        "journal": {
            "history": journal.history,
            "revision": journal.head.revision,
            "hash": journal.head.hash.to_string(),
            "bytes": journal.bytes,
            "torn": torn(&journal.torn),
            "notes": journal.notes,
        },
        "security": events.as_ref().map(|events| json!({
            "firstSeq": events.first_seq,
            "seq": events.head.seq,
            "hash": events.head.hash.to_string(),
            "bytes": events.bytes,
            "torn": torn(&events.torn),
            "notes": events.notes,
        })),
        "checkpoint": findings.as_ref().map(|(checkpoint, findings)| json!({
            "signature": "valid",
            "at": checkpoint.at,
            "sameHistory": findings.is_same_history,
            "journal": word(findings.journal),
            "security": word(findings.security),
            "broken": findings.is_broken(),
        })),
    });
    output.either(&document, |output| {
        output.line(format!("{} entries, every checksum right, the chain unbroken.", journal.head.revision))?;
        output.line(format!("  history  {}", journal.history))?;
        output.line(format!("  chain    {}", journal.head.hash))?;
        tail(output, journal.torn.as_ref(), &journal.notes)?;
        match events {
            None => output.line("There is no security log yet.")?,
            Some(events) => {
                output.line(format!("{} security events, every checksum right, the chain unbroken.", events.events))?;
                if events.first_seq > 1 {
                    output.line(format!("  earlier than event {} are past their retention", events.first_seq))?;
                }
                output.line(format!("  chain    {}", events.head.hash))?;
                tail(output, events.torn.as_ref(), &events.notes)?;
            }
        }
        let Some((checkpoint, findings)) = findings.as_ref().filter(|(_, findings)| !findings.is_broken()) else {
            return Ok(());
        };
        output.line("The checkpoint's signature is valid.")?;
        findings.sentences(checkpoint).iter().try_for_each(|said| output.line(format!("  {said}")))
    })
}

fn word(found: Contained) -> &'static str {
    match found {
        Contained::Yes => "contained",
        Contained::Differs => "differs",
        Contained::Missing { .. } => "missing",
        Contained::Removed { .. } => "removed",
    }
}

fn tail(output: &Output, torn: Option<&TornTail>, notes: &[String]) -> Result<(), CliError> {
    if let Some(torn) = torn {
        output.line(format!(
            "  {}: {} bytes after byte {} belong to a write that was not finished, or is being made right now.",
            torn.path.display(),
            torn.bytes,
            torn.offset
        ))?;
    }
    notes.iter().try_for_each(|note| output.line(format!("  {note}")))
}
