//! `guidon flag …`

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Map, Value, json};

use super::change::{ChangeOptions, submit};
use super::output::Output;
use super::replace::ReplaceArgs;
use super::show::text;
use super::{Api, CliError};

/// Commands about flags.
#[derive(Debug, Subcommand)]
pub enum FlagCommand {
    /// List flags
    List(ListArgs),
    /// Show one flag
    Show {
        /// Key of the flag
        flag: String,
    },
    /// Create a flag
    Create(CreateArgs),
    /// Turn a flag on in an environment
    On(SwitchArgs),
    /// Turn a flag off in an environment: everybody gets its off variation
    Off(SwitchArgs),
    /// Split a flag's traffic over its variations
    Rollout(RolloutArgs),
    /// Give a variation's place in an environment to another one: what has been served in production is never edited
    ReplaceVariation(ReplaceArgs),
    /// Say what a context gets, and why
    Explain(ExplainArgs),
    /// Show what changed a flag, newest last
    History {
        /// Key of the flag
        flag: String,
    },
    /// Retire a flag: SDKs answer the caller's default
    Archive(SharedArgs),
    /// Bring an archived flag back
    Unarchive(SharedArgs),
    /// Delete an archived flag
    Delete(SharedArgs),
}

/// Which flags to list.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only flags with this tag
    #[arg(long)]
    tag: Option<String>,
    /// Only flags with this text in key, name or description
    #[arg(long, short = 'q')]
    query: Option<String>,
    /// Archived flags in place of live ones
    #[arg(long)]
    archived: bool,
    /// Show how this environment serves them
    #[arg(long, short, env = "GUIDON_ENVIRONMENT", default_value = "development")]
    environment: String,
}

/// What to create.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// Key of the flag (left out with --file)
    #[arg(required_unless_present = "file")]
    flag: Option<String>,
    /// Definition as JSON; `-` reads standard input
    #[arg(long, short, conflicts_with_all = ["flag", "kind", "variation", "name", "description"])]
    file: Option<PathBuf>,
    /// Type of the values
    #[arg(long, value_enum, default_value = "boolean")]
    kind: Kind,
    /// A variation, as KEY, KEY=VALUE, and optionally @ai or @human for who wrote its code; a boolean flag without any
    /// gets on=true and off=false
    #[arg(long, short, value_name = "KEY[=VALUE][@ai|@human]")]
    variation: Vec<String>,
    /// Name for people
    #[arg(long)]
    name: Option<String>,
    /// What the flag is for
    #[arg(long)]
    description: Option<String>,
    /// Tag to filter by; may be repeated
    #[arg(long)]
    tag: Vec<String>,
    /// Whether browsers may see it
    #[arg(long)]
    client_side: bool,
    #[command(flatten)]
    change: ChangeOptions,
}

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
enum Kind {
    Boolean,
    String,
    Number,
    Json,
}

/// A flag in an environment.
#[derive(Debug, Args)]
pub struct SwitchArgs {
    /// Key of the flag
    flag: String,
    /// Environment
    #[arg(long, short, env = "GUIDON_ENVIRONMENT", default_value = "development")]
    environment: String,
    #[command(flatten)]
    change: ChangeOptions,
}

/// A flag in all environments.
#[derive(Debug, Args)]
pub struct SharedArgs {
    /// Key of the flag
    flag: String,
    #[command(flatten)]
    change: ChangeOptions,
}

/// How to split.
#[derive(Debug, Args)]
pub struct RolloutArgs {
    /// Key of the flag
    flag: String,
    /// Shares, as `ai=5` for 5 %; one variation may be left out and gets the rest, if there are two
    #[arg(required = true, value_name = "VARIATION=PERCENT")]
    shares: Vec<String>,
    /// Environment
    #[arg(long, short, env = "GUIDON_ENVIRONMENT", default_value = "development")]
    environment: String,
    /// Id of the rule whose rollout it is; the fallthrough if left out
    #[arg(long)]
    rule: Option<String>,
    /// Attribute to bucket by
    #[arg(long, value_name = "ATTRIBUTE")]
    bucket_by: Option<String>,
    /// Deal everybody anew, with a fresh salt
    #[arg(long)]
    reshuffle: bool,
    #[command(flatten)]
    change: ChangeOptions,
}

/// Whom to explain it for.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// Key of the flag
    flag: String,
    /// Targeting key of the context
    #[arg(long, short)]
    key: Option<String>,
    /// Attribute of the context, as `country=US`; the value is JSON if it reads as JSON, else a string
    #[arg(long, short, value_name = "NAME=VALUE")]
    attr: Vec<String>,
    /// The whole context as JSON
    #[arg(long, value_name = "JSON", conflicts_with_all = ["key", "attr"])]
    context: Option<String>,
    /// Environment
    #[arg(long, short, env = "GUIDON_ENVIRONMENT", default_value = "development")]
    environment: String,
}

/// Runs one of the commands.
pub fn run(command: FlagCommand, api: &Api, output: &Output) -> Result<(), CliError> {
    match command {
        FlagCommand::List(args) => list(&args, api, output),
        FlagCommand::Show { flag } => show(&flag, api, output),
        FlagCommand::Create(args) => create(args, api, output),
        FlagCommand::On(args) => switch("turnFlagOn", &args, api, output),
        FlagCommand::Off(args) => switch("turnFlagOff", &args, api, output),
        FlagCommand::Rollout(args) => rollout(&args, api, output),
        FlagCommand::ReplaceVariation(args) => super::replace::run(&args, api, output),
        FlagCommand::Explain(args) => explain(&args, api, output),
        FlagCommand::History { flag } => super::journal::history(&flag, api, output),
        FlagCommand::Archive(args) => shared("archiveFlag", &args, api, output),
        FlagCommand::Unarchive(args) => shared("unarchiveFlag", &args, api, output),
        FlagCommand::Delete(args) => shared("deleteFlag", &args, api, output),
    }
}

fn list(args: &ListArgs, api: &Api, output: &Output) -> Result<(), CliError> {
    let mut query = vec![("limit", "500".to_owned()), ("archived", args.archived.to_string())];
    query.extend(args.tag.clone().map(|tag| ("tag", tag)));
    query.extend(args.query.clone().map(|query| ("query", query)));
    let flags = api.get_all(&api.in_project("/flags"), "flags", &query)?;
    output.either(&flags, |output| {
        let rows = flags.iter().map(|flag| {
            let served = &flag["environments"][&args.environment];
            vec![
                text(&flag["key"]),
                text(&flag["kind"]),
                if served["on"] == true { "on".to_owned() } else { "off".to_owned() },
                summary(served),
                text(&flag["name"]),
            ]
        });
        let empty = "No flags. `guidon flag create KEY` makes one.";
        output.table(&["flag", "kind", &args.environment, "serves", "name"], rows.collect(), empty)
    })
}

/// What an environment serves, in a few words.
fn summary(served: &Value) -> String {
    if served["on"] != true {
        return text(&served["offVariation"]);
    }
    let rules = served["rules"].as_array().map_or(0, Vec::len);
    let targets = served["targets"].as_array().map_or(0, Vec::len);
    let mut words = Vec::new();
    if targets > 0 {
        words.push("targets".to_owned());
    }
    if rules > 0 {
        words.push(format!("{rules} rule{}", if rules == 1 { "" } else { "s" }));
    }
    words.push(serve(&served["fallthrough"]));
    words.join(", then ")
}

/// A variation, or the shares of a rollout.
fn serve(serve: &Value) -> String {
    let Some(weights) = serve["rollout"]["weights"].as_object() else { return text(&serve["variation"]) };
    let shares = weights.iter().filter(|(_, weight)| **weight != 0);
    let shares = shares.map(|(key, weight)| format!("{key} {}%", weight.as_f64().unwrap_or_default() / 1000.0));
    shares.collect::<Vec<_>>().join(" / ")
}

fn show(flag: &str, api: &Api, output: &Output) -> Result<(), CliError> {
    let flag = api.get(&api.in_project(&format!("/flags/{}", super::api::encode(flag))), &[])?;
    output.either(&flag, |output| {
        let archived = if flag["archived"] == true { ", archived" } else { "" };
        output.line(format!("{} ({}{archived})  {}", text(&flag["key"]), text(&flag["kind"]), text(&flag["name"])))?;
        if let Some(description) = flag["description"].as_str() {
            output.line(format!("  {description}"))?;
        }
        output.line("")?;
        let variations = flag["variations"].as_array().cloned().unwrap_or_default();
        let rows = variations.iter().map(|variation| {
            let provenance = &variation["provenance"];
            let by = [&provenance["by"], &provenance["model"], &provenance["commit"]];
            let by = by.into_iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ");
            vec![text(&variation["key"]), variation["value"].to_string(), by]
        });
        output.table(&["variation", "value", "written by"], rows.collect(), "")?;
        output.line("")?;
        let environments = flag["environments"].as_object().cloned().unwrap_or_default();
        let rows = environments.iter().map(|(key, served)| {
            vec![key.clone(), if served["on"] == true { "on" } else { "off" }.to_owned(), summary(served)]
        });
        output.table(&["environment", "state", "serves"], rows.collect(), "")?;
        for (environment, served) in &environments {
            for rule in served["rules"].as_array().into_iter().flatten() {
                let (id, clauses) = (text(&rule["id"]), super::show::clauses(&rule["clauses"]));
                output.line(format!("  {environment} rule {id}: {clauses} -> {}", serve(&rule["serve"])))?;
            }
        }
        Ok(())
    })
}

fn create(args: CreateArgs, api: &Api, output: &Output) -> Result<(), CliError> {
    let definition = match &args.file {
        Some(path) => super::change::read_json(path)?,
        None => define(&args)?,
    };
    submit(api, output, None, &args.change, vec![json!({"kind": "createFlag", "flag": definition})])
}

fn define(args: &CreateArgs) -> Result<Value, CliError> {
    let mut variations = args.variation.iter().map(|text| variation(text, args.kind)).collect::<Result<Vec<_>, _>>()?;
    if variations.is_empty() && args.kind == Kind::Boolean {
        variations = vec![json!({"key": "on", "value": true}), json!({"key": "off", "value": false})];
    }
    if variations.is_empty() {
        let message = "a flag that is not boolean needs its variations, as in --variation ai=… --variation baseline=…";
        return Err(CliError::Usage(message.to_owned()));
    }
    let kind = match args.kind {
        Kind::Boolean => "boolean",
        Kind::String => "string",
        Kind::Number => "number",
        Kind::Json => "json",
    };
    let mut flag = json!({"key": args.flag, "kind": kind, "variations": variations, "clientSide": args.client_side});
    for (field, value) in [("name", &args.name), ("description", &args.description)] {
        if let Some(value) = value {
            flag[field] = json!(value);
        }
    }
    if !args.tag.is_empty() {
        flag["tags"] = json!(args.tag);
    }
    Ok(flag)
}

fn variation(text: &str, kind: Kind) -> Result<Value, CliError> {
    let (rest, by) = match text.rsplit_once('@') {
        Some((rest, by @ ("ai" | "human"))) => (rest, Some(by)),
        _ => (text, None),
    };
    let (key, value) = rest.split_once('=').unwrap_or((rest, rest));
    let value = match kind {
        Kind::String => json!(value),
        Kind::Boolean if !rest.contains('=') && matches!(value, "on" | "off") => json!(value == "on"),
        Kind::Boolean | Kind::Number | Kind::Json => serde_json::from_str(value).map_err(|error| {
            CliError::Usage(format!("--variation {text}: {value:?} is not JSON ({error}); write KEY=VALUE"))
        })?,
    };
    let mut variation = json!({"key": key, "value": value});
    if let Some(by) = by {
        variation["provenance"] = json!({"by": by});
    }
    Ok(variation)
}

fn switch(kind: &str, args: &SwitchArgs, api: &Api, output: &Output) -> Result<(), CliError> {
    submit(api, output, Some(&args.environment), &args.change, vec![json!({"kind": kind, "flag": args.flag})])
}

fn shared(kind: &str, args: &SharedArgs, api: &Api, output: &Output) -> Result<(), CliError> {
    submit(api, output, None, &args.change, vec![json!({"kind": kind, "flag": args.flag})])
}

fn rollout(args: &RolloutArgs, api: &Api, output: &Output) -> Result<(), CliError> {
    let mut weights = Map::new();
    for share in &args.shares {
        let (variation, weight) = parse_share(share)?;
        if weights.insert(variation.to_owned(), json!(weight)).is_some() {
            return Err(CliError::Usage(format!("{variation} is named twice")));
        }
    }
    let sum: u64 = weights.values().filter_map(Value::as_u64).sum();
    if sum < 100_000 {
        let rest = only_other_variation(args, &weights, api)?;
        weights.insert(rest, json!(100_000 - sum));
    }
    let mut instruction =
        json!({"kind": "setRollout", "flag": args.flag, "weights": weights, "reshuffle": args.reshuffle});
    for (field, value) in [("rule", &args.rule), ("bucketBy", &args.bucket_by)] {
        if let Some(value) = value {
            instruction[field] = json!(value);
        }
    }
    submit(api, output, Some(&args.environment), &args.change, vec![instruction])
}

/// `ai=12.5` or `ai=12.5%` as (variation, thousandths of a percent). Decimal arithmetic, so that 0.001 is exact.
fn parse_share(share: &str) -> Result<(&str, u64), CliError> {
    let wrong = || CliError::Usage(format!("{share:?} is no share; write VARIATION=PERCENT, as in ai=5 or ai=0.125"));
    let (variation, percent) = share.split_once('=').ok_or_else(wrong)?;
    let percent = percent.strip_suffix('%').unwrap_or(percent);
    let (whole, fraction) = percent.split_once('.').unwrap_or((percent, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) || fraction.len() > 3 {
        return Err(wrong());
    }
    let thousandths: u64 = format!("{whole}{fraction:0<3}").parse().map_err(|_| wrong())?;
    if thousandths > 100_000 { Err(wrong()) } else { Ok((variation, thousandths)) }
}

fn only_other_variation(args: &RolloutArgs, weights: &Map<String, Value>, api: &Api) -> Result<String, CliError> {
    let flag = api.get(&api.in_project(&format!("/flags/{}", super::api::encode(&args.flag))), &[])?;
    let variations = flag["variations"].as_array().cloned().unwrap_or_default();
    let mut others = variations.iter().filter_map(|it| it["key"].as_str()).filter(|key| !weights.contains_key(*key));
    match (others.next(), others.next()) {
        (Some(other), None) => Ok(other.to_owned()),
        _ => Err(CliError::Usage("the shares must sum to 100 %".to_owned())),
    }
}

fn explain(args: &ExplainArgs, api: &Api, output: &Output) -> Result<(), CliError> {
    let context = match &args.context {
        Some(text) => {
            serde_json::from_str(text).map_err(|error| CliError::Usage(format!("--context is not JSON: {error}")))?
        }
        None => context(args)?,
    };
    let path = api.in_environment(&args.environment, "/explain");
    let explanation = api.post(&path, &json!({"flag": args.flag, "context": context}))?;
    output.either(&explanation, |output| super::show::explanation(&args.flag, &explanation, output))
}

fn context(args: &ExplainArgs) -> Result<Value, CliError> {
    let mut context = Map::new();
    if let Some(key) = &args.key {
        context.insert("targetingKey".to_owned(), json!(key));
    }
    for pair in &args.attr {
        let (name, value) =
            pair.split_once('=').ok_or_else(|| CliError::Usage(format!("--attr {pair}: write NAME=VALUE")))?;
        context.insert(name.to_owned(), serde_json::from_str(value).unwrap_or_else(|_| json!(value)));
    }
    Ok(Value::Object(context))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_exact_decimals() {
        assert_eq!(parse_share("ai=5").ok(), Some(("ai", 5_000)));
        assert_eq!(parse_share("ai=0.001%").ok(), Some(("ai", 1)));
        assert_eq!(parse_share("ai=12.5").ok(), Some(("ai", 12_500)));
        for wrong in ["ai", "ai=", "ai=-1", "ai=101", "ai=0.0001", "ai=1e1", "ai=.5", "ai=99999999999999999999999"] {
            assert!(parse_share(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn variations_say_value_and_author() {
        let parse = |text, kind| variation(text, kind).ok();
        assert_eq!(parse("on", Kind::Boolean), Some(json!({"key": "on", "value": true})));
        assert_eq!(
            parse("ai=v2@ai", Kind::String),
            Some(json!({"key": "ai", "value": "v2", "provenance": {"by": "ai"}}))
        );
        assert_eq!(parse("mail=a@b", Kind::String), Some(json!({"key": "mail", "value": "a@b"})));
        assert_eq!(parse("n=1.5", Kind::Number), Some(json!({"key": "n", "value": 1.5})));
        assert_eq!(parse("n=x", Kind::Number), None);
    }
}
