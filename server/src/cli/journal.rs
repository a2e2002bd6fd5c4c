//! `guidon journal …`

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::Value;

use super::api::encode;
use super::output::Output;
use super::show::{instructions, short_time, text};
use super::{Api, CliError, store, transfer};

/// Pause between looks for new entries.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(500);

/// Commands about the journal.
#[derive(Debug, Subcommand)]
pub enum JournalCommand {
    /// Show who changed what, oldest first
    Log(LogArgs),
    /// Check a journal on disk, entry by entry: checksums and the hash chain
    Verify(store::DataArgs),
    /// Write a stopped server's whole history to one file
    Export(transfer::ExportArgs),
    /// Make a new store from an exported file
    Import(transfer::ImportArgs),
}

/// Which entries.
#[derive(Debug, Args)]
pub struct LogArgs {
    /// Only entries after this revision
    #[arg(long, default_value_t = 0)]
    after: u64,
    /// At most this many of the newest entries
    #[arg(long, short = 'n')]
    limit: Option<usize>,
    /// Only changes of this flag
    #[arg(long)]
    flag: Option<String>,
    /// Only changes in this environment
    #[arg(long, short)]
    environment: Option<String>,
    /// Wait for more
    #[arg(long, short)]
    follow: bool,
}

/// Runs one of the commands; those about a store on disk need no server.
pub fn run(
    command: JournalCommand,
    api: impl FnOnce() -> Result<Api, CliError>,
    output: &Output,
) -> Result<(), CliError> {
    match command {
        JournalCommand::Log(args) => log(&args, &api()?, output),
        JournalCommand::Verify(data) => store::verify(&data, output),
        JournalCommand::Export(args) => transfer::export(&args, output),
        JournalCommand::Import(args) => transfer::import(&args, output),
    }
}

fn log(args: &LogArgs, api: &Api, output: &Output) -> Result<(), CliError> {
    let mut query = vec![("limit", "500".to_owned())];
    query.extend(args.flag.clone().map(|flag| ("flag", flag)));
    query.extend(args.environment.clone().map(|environment| ("environment", environment)));
    let mut after = args.after;
    let mut first = true;
    loop {
        let mut page_query = query.clone();
        page_query.push(("after", after.to_string()));
        let mut entries = api.get_all(&api.in_project("/journal"), "entries", &page_query)?;
        if let Some(limit) = args.limit.filter(|_| first) {
            entries.drain(..entries.len().saturating_sub(limit));
        }
        if let Some(revision) = entries.last().and_then(|entry| entry["revision"].as_u64()) {
            after = revision;
        }
        if first || !entries.is_empty() {
            print(&entries, first, output)?;
        }
        if !args.follow {
            return Ok(());
        }
        first = false;
        std::thread::sleep(FOLLOW_INTERVAL);
    }
}

/// Shows what changed one flag.
pub(super) fn history(flag: &str, api: &Api, output: &Output) -> Result<(), CliError> {
    let path = api.in_project(&format!("/flags/{}/history", encode(flag)));
    print(&api.get_all(&path, "entries", &[("limit", "500".to_owned())])?, true, output)
}

fn print(entries: &[Value], first: bool, output: &Output) -> Result<(), CliError> {
    if output.is_json() {
        return entries.iter().try_for_each(|entry| output.document(entry));
    }
    let rows = entries.iter().map(|entry| {
        vec![
            text(&entry["revision"]),
            short_time(&entry["at"]),
            text(&entry["actorId"]),
            text(&entry["environment"]),
            instructions(&entry["instructions"]),
            text(&entry["comment"]),
        ]
    });
    let headers: &[&str] = if first { &["revision", "time", "actor", "environment", "what", "comment"] } else { &[] };
    output.table(headers, rows.collect(), "No entries.")
}
