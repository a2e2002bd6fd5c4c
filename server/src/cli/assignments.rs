//! `guidon assignments …`

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::Value;

use super::output::Output;
use super::show::{short_time, text};
use super::{Api, CliError};

/// Pause between looks for new assignments.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(500);

/// Commands about the assignment log.
#[derive(Debug, Subcommand)]
pub enum AssignmentsCommand {
    /// Show assignments as they are stored
    Tail(TailArgs),
}

/// Which assignments.
#[derive(Debug, Args)]
pub struct TailArgs {
    /// Environment
    #[arg(long, short, env = "GUIDON_ENVIRONMENT", default_value = "development")]
    environment: String,
    /// Only of this flag
    #[arg(long)]
    flag: Option<String>,
    /// From this time (RFC 3339); the whole log if left out
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Up to this time (RFC 3339)
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
    /// Print what is there and stop, in place of waiting for more
    #[arg(long)]
    no_follow: bool,
}

/// Runs one of the commands.
pub fn run(command: AssignmentsCommand, api: &Api, output: &Output) -> Result<(), CliError> {
    let AssignmentsCommand::Tail(args) = command;
    let path = api.in_environment(&args.environment, "/assignments");
    let mut after: Option<String> = None;
    let mut printed = false;
    loop {
        let mut query = Vec::new();
        for (name, value) in [("flag", &args.flag), ("from", &args.from), ("to", &args.to), ("after", &after)] {
            query.extend(value.clone().map(|value| (name, value)));
        }
        for line in api.lines(&path, &query)? {
            let line = line?;
            let record: Value = serde_json::from_str(&line)
                .map_err(|error| CliError::Unexpected(format!("a line of the answer is not JSON: {error}")))?;
            if let Some(cursor) = record["cursor"].as_str() {
                after = Some(cursor.to_owned());
            }
            if record["flag"].is_string() {
                printed = true;
                if output.is_json() { output.line(line)? } else { print(&record, output)? }
            }
        }
        if args.no_follow {
            break;
        }
        std::thread::sleep(FOLLOW_INTERVAL);
    }
    if !printed && !output.is_json() {
        output.line("No assignments.")?;
    }
    Ok(())
}

fn print(record: &Value, output: &Output) -> Result<(), CliError> {
    let (assigned, delivered) = (text(&record["assigned"]), text(&record["delivered"]));
    let what = if assigned == delivered { assigned } else { format!("{assigned} -> {delivered}") };
    let cause = record["cause"].as_str().filter(|cause| *cause != "normal").unwrap_or_default();
    output.line(format!(
        "{}  {}  {what:<20} {:<16} {}  r{} {} {cause}",
        short_time(&record["at"]),
        text(&record["flag"]),
        text(&record["reason"]),
        text(&record["unit"]),
        text(&record["revision"]),
        text(&record["instance"]),
    ))
}
