//! `guidon segment …`

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::api::encode;
use super::change::{ChangeOptions, read_json, read_text, submit};
use super::output::Output;
use super::show::{clauses, text};
use super::{Api, CliError};

/// Most keys one instruction carries; longer lists are sent as several changes.
const KEYS_PER_CHANGE: usize = 50_000;

/// Commands about segments, each of one environment.
#[derive(Debug, Subcommand)]
pub enum SegmentCommand {
    /// List segments
    List(EnvironmentArgs),
    /// Show one segment
    Show {
        /// Key of the segment
        segment: String,
        #[command(flatten)]
        place: EnvironmentArgs,
    },
    /// Create a segment
    Create(CreateArgs),
    /// Add targeting keys
    AddKeys(KeysArgs),
    /// Take targeting keys out
    RemoveKeys(KeysArgs),
    /// Add a rule
    AddRule {
        /// Key of the segment
        segment: String,
        /// The rule as JSON, as in {"clauses":[{"attribute":"country","op":"in","values":["US"]}]}
        rule: String,
        #[command(flatten)]
        place: EnvironmentArgs,
        #[command(flatten)]
        change: ChangeOptions,
    },
    /// Remove a rule
    RemoveRule {
        /// Key of the segment
        segment: String,
        /// Id of the rule
        rule: String,
        #[command(flatten)]
        place: EnvironmentArgs,
        #[command(flatten)]
        change: ChangeOptions,
    },
    /// Delete a segment that no flag refers to
    Delete {
        /// Key of the segment
        segment: String,
        #[command(flatten)]
        place: EnvironmentArgs,
        #[command(flatten)]
        change: ChangeOptions,
    },
}

/// Which environment.
#[derive(Debug, Args)]
pub struct EnvironmentArgs {
    /// Environment
    #[arg(long, short, env = "GUIDON_ENVIRONMENT", default_value = "development")]
    environment: String,
}

/// What to create.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// Key of the segment (left out with --file)
    #[arg(required_unless_present = "file")]
    segment: Option<String>,
    /// Definition as JSON; `-` reads standard input
    #[arg(long, short, conflicts_with_all = ["segment", "name", "description"])]
    file: Option<PathBuf>,
    /// Name for people
    #[arg(long, default_value = "")]
    name: String,
    /// Who belongs to it
    #[arg(long, default_value = "")]
    description: String,
    #[command(flatten)]
    place: EnvironmentArgs,
    #[command(flatten)]
    change: ChangeOptions,
}

/// Which keys.
#[derive(Debug, Args)]
pub struct KeysArgs {
    /// Key of the segment
    segment: String,
    /// The targeting keys
    #[arg(required_unless_present = "file")]
    keys: Vec<String>,
    /// File with one targeting key a line; `-` reads standard input
    #[arg(long, short)]
    file: Option<PathBuf>,
    /// Which of the two lists
    #[arg(long, value_enum, default_value = "included")]
    list: List,
    #[command(flatten)]
    place: EnvironmentArgs,
    #[command(flatten)]
    change: ChangeOptions,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum List {
    Included,
    Excluded,
}

/// Runs one of the commands.
pub fn run(command: SegmentCommand, api: &Api, output: &Output) -> Result<(), CliError> {
    match command {
        SegmentCommand::List(place) => list(&place, api, output),
        SegmentCommand::Show { segment, place } => show(&segment, &place, api, output),
        SegmentCommand::Create(args) => {
            let definition = match &args.file {
                Some(path) => read_json(path)?,
                None => json!({"key": args.segment, "name": args.name, "description": args.description}),
            };
            let instruction = json!({"kind": "createSegment", "segment": definition});
            submit(api, output, Some(&args.place.environment), &args.change, vec![instruction])
        }
        SegmentCommand::AddKeys(args) => keys("addSegmentKeys", args, api, output),
        SegmentCommand::RemoveKeys(args) => keys("removeSegmentKeys", args, api, output),
        SegmentCommand::AddRule { segment, rule, place, change } => {
            let rule: Value = serde_json::from_str(&rule)
                .map_err(|error| CliError::Usage(format!("the rule is not JSON: {error}")))?;
            let instruction = json!({"kind": "addSegmentRule", "segment": segment, "rule": rule});
            submit(api, output, Some(&place.environment), &change, vec![instruction])
        }
        SegmentCommand::RemoveRule { segment, rule, place, change } => {
            let instruction = json!({"kind": "removeSegmentRule", "segment": segment, "rule": rule});
            submit(api, output, Some(&place.environment), &change, vec![instruction])
        }
        SegmentCommand::Delete { segment, place, change } => {
            let instruction = json!({"kind": "deleteSegment", "segment": segment});
            submit(api, output, Some(&place.environment), &change, vec![instruction])
        }
    }
}

fn list(place: &EnvironmentArgs, api: &Api, output: &Output) -> Result<(), CliError> {
    let path = api.in_environment(&place.environment, "/segments");
    let segments = api.get_all(&path, "segments", &[("limit", "500".to_owned())])?;
    output.either(&segments, |output| {
        let rows = segments.iter().map(|segment| {
            let rules = segment["rules"].as_array().map_or(0, Vec::len);
            vec![
                text(&segment["key"]),
                text(&segment["includedCount"]),
                text(&segment["excludedCount"]),
                rules.to_string(),
                text(&segment["name"]),
            ]
        });
        let empty = "No segments here. `guidon segment create KEY` makes one.";
        output.table(&["segment", "included", "excluded", "rules", "name"], rows.collect(), empty)
    })
}

fn show(segment: &str, place: &EnvironmentArgs, api: &Api, output: &Output) -> Result<(), CliError> {
    let path = api.in_environment(&place.environment, &format!("/segments/{}", encode(segment)));
    let segment = api.get(&path, &[])?;
    output.either(&segment, |output| {
        output.line(format!("{}  {}", text(&segment["key"]), text(&segment["name"])))?;
        for (list, count) in [("included", "includedCount"), ("excluded", "excludedCount")] {
            let keys = segment[list].as_array().into_iter().flatten().take(20).map(text).collect::<Vec<_>>().join(", ");
            output.line(format!("  {} {list}  {keys}", text(&segment[count])))?;
        }
        for rule in segment["rules"].as_array().into_iter().flatten() {
            output.line(format!("  rule {}: {}", text(&rule["id"]), clauses(&rule["clauses"])))?;
        }
        Ok(())
    })
}

fn keys(kind: &str, args: KeysArgs, api: &Api, output: &Output) -> Result<(), CliError> {
    let mut keys = args.keys;
    if let Some(path) = &args.file {
        keys.extend(read_text(path)?.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned));
    }
    let list = match args.list {
        List::Included => "included",
        List::Excluded => "excluded",
    };
    let progress = super::progress::bar(output, keys.len() as u64, "keys");
    for chunk in keys.chunks(KEYS_PER_CHANGE) {
        let instruction = json!({"kind": kind, "segment": args.segment, "list": list, "keys": chunk});
        submit(api, output, Some(&args.place.environment), &args.change, vec![instruction])?;
        progress.inc(chunk.len() as u64);
    }
    progress.finish_and_clear();
    Ok(())
}
