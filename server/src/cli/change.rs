//! What every command that changes something shares.

use std::io::Read;
use std::path::Path;

use clap::Args;
use serde_json::{Value, json};

use super::output::Output;
use super::show::text;
use super::{Api, CliError};

/// Options of every command that changes something.
#[derive(Clone, Debug, Default, Args)]
pub struct ChangeOptions {
    /// Why, for the history
    #[arg(long, short = 'm', value_name = "TEXT")]
    comment: Option<String>,
    /// Source commit the change ships
    #[arg(long, value_name = "SHA")]
    commit: Option<String>,
    /// Only if nothing it touches has changed since this revision
    #[arg(long, value_name = "REVISION")]
    expected_revision: Option<u64>,
    /// Say what it would do, and do nothing
    #[arg(long)]
    dry_run: bool,
}

/// Sends instructions as one change and prints what it did.
pub fn submit(
    api: &Api,
    output: &Output,
    environment: Option<&str>,
    options: &ChangeOptions,
    instructions: Vec<Value>,
) -> Result<(), CliError> {
    let mut change = json!({"instructions": instructions});
    if let Some(environment) = environment {
        change["environment"] = json!(environment);
    }
    if let Some(comment) = &options.comment {
        change["comment"] = json!(comment);
    }
    if let Some(commit) = &options.commit {
        change["commit"] = json!(commit);
    }
    if let Some(revision) = options.expected_revision {
        change["expectedRevision"] = json!(revision);
    }
    if options.dry_run {
        change["dryRun"] = json!(true);
    }
    let outcome = api.post(&api.in_project("/changes"), &change)?;
    print_outcome(&outcome, output)
}

/// Prints what a change did.
pub fn print_outcome(outcome: &Value, output: &Output) -> Result<(), CliError> {
    output.either(outcome, |output| {
        let revision = text(&outcome["revision"]);
        if outcome["changed"].as_array().is_none_or(Vec::is_empty) {
            return output.line(format!("Nothing to change: it is so already (revision {revision})."));
        }
        for sentence in outcome["summary"].as_array().into_iter().flatten() {
            output.line(text(sentence))?;
        }
        if outcome["dryRun"] == true {
            return output.line("Dry run: nothing was changed.");
        }
        output.line(format!("Revision {revision}."))
    })
}

/// Reads a JSON document from a file, or from standard input if the path is `-`.
pub fn read_json(path: &Path) -> Result<Value, CliError> {
    let text = read_text(path)?;
    serde_json::from_str(&text).map_err(|error| CliError::Usage(format!("{}: {error}", path.display())))
}

/// Reads a text file, or standard input if the path is `-`.
pub fn read_text(path: &Path) -> Result<String, CliError> {
    let mut text = String::new();
    let read = if path.as_os_str() == "-" {
        std::io::stdin().read_to_string(&mut text).map(|_| ())
    } else {
        std::fs::read_to_string(path).map(|content| text = content)
    };
    read.map_err(|error| CliError::Usage(format!("{}: {error}", path.display())))?;
    Ok(text)
}
