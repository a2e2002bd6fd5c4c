//! `guidon promote`.

use clap::Args;
use serde_json::{Value, json};

use super::change::print_outcome;
use super::output::Output;
use super::{Api, CliError, plan_text};

/// What to promote.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true))]
pub struct PromoteArgs {
    /// Keys of the flags
    #[arg(value_name = "FLAG", group = "what")]
    flags: Vec<String>,
    /// All flags that are not archived
    #[arg(long, group = "what")]
    all: bool,
    /// Environment to take it from
    #[arg(long, value_name = "ENVIRONMENT")]
    from: String,
    /// Environment to take it to
    #[arg(long, value_name = "ENVIRONMENT")]
    to: String,
    /// Also take individual targets along: they are persons' keys
    #[arg(long)]
    targets: bool,
    /// Say what it would do, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Why, for the history
    #[arg(long, short = 'm', value_name = "TEXT")]
    comment: Option<String>,
    /// Source commit the change ships
    #[arg(long, value_name = "SHA")]
    commit: Option<String>,
    /// Only if nothing it touches has changed since this revision
    #[arg(long, value_name = "REVISION")]
    expected_revision: Option<u64>,
}

/// Shows what differs, and makes the change or the change request.
pub fn run(args: &PromoteArgs, api: &Api, output: &Output) -> Result<(), CliError> {
    let mut body = json!({"from": args.from, "to": args.to, "targets": args.targets});
    if !args.all {
        body["flags"] = json!(args.flags);
    }
    let texts = [("comment", &args.comment), ("commit", &args.commit)];
    for (field, value) in texts {
        if let Some(value) = value {
            body[field] = json!(value);
        }
    }
    if let Some(revision) = args.expected_revision {
        body["expectedRevision"] = json!(revision);
    }
    let path = api.in_project("/promote");
    let mut dry = body.clone();
    dry["dryRun"] = json!(true);
    let plan = api.post(&path, &dry)?;
    if args.dry_run {
        return output.either(&plan, |output| {
            plan_text::print(&plan, output)?;
            output.line("Dry run: nothing was changed.")
        });
    }
    let is_empty = plan["steps"].as_array().is_none_or(Vec::is_empty);
    if !output.is_json() {
        plan_text::print_differences(&plan["differences"], output)?;
        if is_empty {
            return output.line(format!("Nothing to promote: {} serves as {} does.", args.to, args.from));
        }
    }
    // What was shown is what is asked for.
    if body["expectedRevision"].is_null() {
        body["expectedRevision"] = plan["baseRevision"].clone();
    }
    let outcome: Value = api.post(&path, &body)?;
    print_outcome(&outcome, output)
}
