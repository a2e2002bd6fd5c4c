//! What every command that changes something shares.

use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use super::output::Output;
use super::show::text;
use super::{Api, CliError};
use crate::clock::{Clock, SystemClock};

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
    /// Open a change request, also where the change could be made at once
    #[arg(long)]
    request: bool,
    /// Open a change request that is still being written; `guidon request submit` puts it to review
    #[arg(long)]
    draft: bool,
    /// Open a change request that is applied by itself from this time on, once it is approved (as 2026-11-24T18:00Z, or 2h
    /// for two hours from now)
    #[arg(long, value_name = "TIME", value_parser = moment)]
    apply_at: Option<u64>,
    /// And not after this time
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<u64>,
}

impl ChangeOptions {
    /// The same options, for a change that was made for this revision, unless they name another.
    pub fn read_at(mut self, revision: Option<u64>) -> Self {
        self.expected_revision = self.expected_revision.or(revision);
        self
    }

    /// When a change request is to be applied, if that was said.
    fn schedule(&self) -> Option<Value> {
        let begins = self.apply_at.or_else(|| self.until.map(|_| now_ms()))?;
        let mut schedule = json!({"notBefore": begins});
        if let Some(until) = self.until {
            schedule["notAfter"] = json!(until);
        }
        Some(schedule)
    }

    /// Writes what the options say into a change.
    fn write_into(&self, change: &mut Value) {
        if let Some(comment) = &self.comment {
            change["comment"] = json!(comment);
        }
        if let Some(commit) = &self.commit {
            change["commit"] = json!(commit);
        }
        if let Some(revision) = self.expected_revision {
            change["expectedRevision"] = json!(revision);
        }
        if self.dry_run {
            change["dryRun"] = json!(true);
        }
    }
}

/// Instructions from a file.
#[derive(Debug, Args)]
pub struct ChangeArgs {
    /// The change as JSON: a list of instructions, or an object with `instructions`; `-` reads standard input
    #[arg(long, short, value_name = "PATH")]
    file: PathBuf,
    /// Environment, where the file names none
    #[arg(long, short, env = "GUIDON_ENVIRONMENT")]
    environment: Option<String>,
    #[command(flatten)]
    options: ChangeOptions,
}

/// Makes the change in a file.
pub fn run(args: &ChangeArgs, api: &Api, output: &Output) -> Result<(), CliError> {
    let mut change = read_change(&args.file)?;
    if let Some(environment) = args.environment.as_ref().filter(|_| change["environment"].is_null()) {
        change["environment"] = json!(environment);
    }
    send(api, output, &args.options, change)
}

/// A change in a file: a list of instructions, or an object that has them.
pub fn read_change(path: &Path) -> Result<Value, CliError> {
    match read_json(path)? {
        Value::Array(instructions) => Ok(json!({"instructions": instructions})),
        change @ Value::Object(_) => Ok(change),
        _ => {
            let message = "a change is a list of instructions, or an object with `instructions`";
            Err(CliError::Usage(format!("{}: {message}", path.display())))
        }
    }
}

/// A point in time in milliseconds since 1970: `2026-11-24T18:00Z`, or `2h` for two hours from now.
pub fn moment(text: &str) -> Result<u64, String> {
    if let Ok(at) = text.parse::<jiff::Timestamp>() {
        return u64::try_from(at.as_millisecond()).map_err(|_| "a time since 1970 is meant".to_owned());
    }
    let ahead = text.parse::<jiff::SignedDuration>().ok().and_then(|ahead| u64::try_from(ahead.as_millis()).ok());
    ahead.map(|ahead| now_ms().saturating_add(ahead)).ok_or_else(|| {
        "write a time with its zone, as 2026-11-24T18:00Z, or how far ahead it is, as 90m or 2h".to_owned()
    })
}

fn now_ms() -> u64 {
    SystemClock.now_ms()
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
    send(api, output, options, change)
}

fn send(api: &Api, output: &Output, options: &ChangeOptions, mut change: Value) -> Result<(), CliError> {
    options.write_into(&mut change);
    let schedule = options.schedule();
    let path = if options.request || options.draft || schedule.is_some() {
        change["draft"] = json!(options.draft);
        if let Some(schedule) = schedule {
            change["schedule"] = schedule;
        }
        "/requests"
    } else {
        "/changes"
    };
    let outcome = api.post(&api.in_project(path), &change)?;
    print_outcome(&outcome, output)
}

/// Prints what a change did.
pub fn print_outcome(outcome: &Value, output: &Output) -> Result<(), CliError> {
    output.either(outcome, |output| {
        let revision = text(&outcome["revision"]);
        if outcome["request"].is_object() {
            return super::request::print_opened(&outcome["request"], output);
        }
        if outcome["changed"].as_array().is_none_or(Vec::is_empty) {
            return output.line(format!("Nothing to change: it is so already (revision {revision})."));
        }
        for sentence in outcome["summary"].as_array().into_iter().flatten() {
            output.line(text(sentence))?;
        }
        if outcome["needs"].is_object() {
            let needs = super::request::needs(&outcome["needs"]["risk"], &outcome["needs"]["approvals"]);
            output.line(format!("It would be a change request ({needs})."))?;
        }
        if outcome["dryRun"] == true {
            return output.line("Dry run: nothing was changed.");
        }
        if let Some(request) = outcome["request"].as_str() {
            return output.line(format!("Revision {revision}, by the change request {request}."));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_a_zone_or_is_ahead() {
        assert_eq!(moment("2026-01-01T00:00Z"), Ok(1_767_225_600_000));
        assert_eq!(moment("2026-01-01T01:00:00+01:00"), Ok(1_767_225_600_000));
        let (now, ahead) = (now_ms(), moment("2h").unwrap());
        assert!((now + 7_200_000..now + 7_260_000).contains(&ahead));
        for wrong in ["", "tomorrow", "2026-01-01T00:00", "-1h", "1960-01-01T00:00Z"] {
            assert!(moment(wrong).is_err(), "{wrong}");
        }
    }
}
