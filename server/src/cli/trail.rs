//! `guidon audit log|show|verify|export|checkpoint|key` against a server.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::api::encode;
use super::environment::TierName;
use super::output::Output;
use super::show::{short_time, text};
use super::{Api, CliError, progress};
use crate::audit::Checkpoint;

/// Path of the trail.
const AUDIT: &str = "/api/v1/audit";
/// Records asked for at once.
const PAGE_RECORDS: usize = 500;
/// Most characters of a cell of the table.
const MAX_CELL_CHARACTERS: usize = 100;

/// Which records.
#[derive(Debug, Args)]
pub struct FilterArgs {
    /// Only what this person, service account or AI agent did or approved: a name or an id
    #[arg(long, value_name = "NAME_OR_ID")]
    person: Option<String>,
    /// Only about this flag
    #[arg(long, value_name = "KEY")]
    flag: Option<String>,
    /// Only about this environment
    #[arg(long, short, value_name = "KEY")]
    environment: Option<String>,
    /// Only about environments of this tier
    #[arg(long, value_enum)]
    tier: Option<TierName>,
    /// Only of this kind: change, refusal, signIn, a kind of event (exported) or of instruction (turnFlagOn)
    #[arg(long)]
    kind: Option<String>,
    /// Only about this project; the whole installation if left out
    #[arg(long, value_name = "KEY")]
    of_project: Option<String>,
    /// From this time (RFC 3339)
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Up to this time (RFC 3339)
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
    /// Only emergency changes that nobody has reviewed yet
    #[arg(long)]
    needs_review: bool,
}

impl FilterArgs {
    fn query(&self) -> Vec<(&'static str, String)> {
        let tier = self.tier.and_then(|tier| tier.to_possible_value()).map(|value| value.get_name().to_owned());
        let given = [
            ("person", self.person.clone()),
            ("flag", self.flag.clone()),
            ("environment", self.environment.clone()),
            ("tier", tier),
            ("kind", self.kind.clone()),
            ("project", self.of_project.clone()),
            ("from", self.from.clone()),
            ("to", self.to.clone()),
            ("needsReview", self.needs_review.then(|| "true".to_owned())),
        ];
        given.into_iter().filter_map(|(name, value)| value.map(|value| (name, value))).collect()
    }
}

/// Which records to show, and how many.
#[derive(Debug, Args)]
pub struct LogArgs {
    #[command(flatten)]
    filter: FilterArgs,
    /// At most this many
    #[arg(long, short = 'n', default_value_t = 50)]
    limit: usize,
    /// Oldest first
    #[arg(long)]
    oldest_first: bool,
}

/// What to export, and where to.
#[derive(Debug, Args)]
pub struct ExportArgs {
    #[command(flatten)]
    filter: FilterArgs,
    /// How to write it
    #[arg(long, value_enum, default_value = "ndjson")]
    format: Format,
    /// File to write, which must not be there; standard output if left out
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// How an export is written.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Format {
    /// Comma-separated values, for spreadsheets
    Csv,
    /// A JSON object a line
    Ndjson,
}

/// Shows records as a table.
pub fn log(args: &LogArgs, api: &Api, output: &Output) -> Result<(), CliError> {
    let mut query = args.filter.query();
    if args.oldest_first {
        query.push(("order", "oldestFirst".to_owned()));
    }
    let (mut records, mut after) = (Vec::new(), None::<String>);
    while records.len() < args.limit {
        let mut asked = query.clone();
        asked.push(("limit", (args.limit - records.len()).min(PAGE_RECORDS).to_string()));
        asked.extend(after.map(|after| ("after", after)));
        let mut page = api.get(AUDIT, &asked)?;
        if let Value::Array(found) = page["records"].take() {
            records.extend(found);
        }
        after = page["next"].as_str().map(str::to_owned);
        if after.is_none() {
            break;
        }
    }
    if output.is_json() {
        return records.iter().try_for_each(|record| output.document(record));
    }
    let rows = records.iter().map(|record| {
        vec![
            text(&record["id"]),
            short_time(&record["at"]),
            text(&record["actor"]["name"]),
            shortened(&what(record)),
            place(record),
            outcome(record),
        ]
    });
    let headers = ["id", "time", "who", "what", "where", "outcome"];
    output.table(&headers, rows.collect(), "No records.")?;
    if after.is_some() {
        output.line(format!("There are more: -n {} shows as many again.", args.limit.saturating_mul(2)))?;
    }
    Ok(())
}

/// What happened, in a few words.
fn what(record: &Value) -> String {
    let words = |field: &str| {
        let words = record[field].as_array().into_iter().flatten().map(text);
        words.collect::<Vec<_>>().join(", ")
    };
    let count =
        record["count"].as_u64().filter(|count| *count > 1).map_or_else(String::new, |count| format!(" ×{count}"));
    if record["kind"] == "change" {
        return words("summary");
    }
    let about = [words("actions"), words("flags"), words("summary")];
    let about: Vec<String> = about.into_iter().filter(|word| !word.is_empty()).collect();
    format!("{} {}{count}", text(&record["kind"]), about.join(" ")).replace("  ", " ").trim_end().to_owned()
}

fn place(record: &Value) -> String {
    let environments = record["environments"].as_array().into_iter().flatten().map(text).collect::<Vec<_>>().join(", ");
    let environments = if record["everywhere"] == true { "all".to_owned() } else { environments };
    let project = text(&record["project"]);
    if project.is_empty() || environments.is_empty() {
        return format!("{project}{environments}");
    }
    format!("{project}: {environments}")
}

fn outcome(record: &Value) -> String {
    let kind = record["kind"].as_str().unwrap_or_default();
    let mut words = vec![match kind {
        "change" if record["request"].is_string() => format!("applied {}", text(&record["request"])),
        "change" => "applied".to_owned(),
        "refused" | "credentialRefused" => {
            let policies = record["policies"].as_array().into_iter().flatten().map(text).collect::<Vec<_>>();
            format!("refused {}", policies.join(", ")).trim_end().to_owned()
        }
        "signInFailed" | "factorFailed" => "failed".to_owned(),
        "eventsLost" => "lost".to_owned(),
        _ => "done".to_owned(),
    }];
    if record["needsReview"] == true {
        words.push("needs review".to_owned());
    } else if record["emergency"] == true {
        words.push("emergency".to_owned());
    }
    words.join(", ")
}

fn shortened(text: &str) -> String {
    if text.chars().count() <= MAX_CELL_CHARACTERS {
        return text.to_owned();
    }
    text.chars().take(MAX_CELL_CHARACTERS - 1).chain(['…']).collect()
}

/// Shows one record, whole.
pub fn show(id: &str, api: &Api, output: &Output) -> Result<(), CliError> {
    let record = api.get(&format!("{AUDIT}/records/{}", encode(id)), &[])?;
    output.either(&record, |output| {
        output.line(format!("{}  {}  {}", text(&record["id"]), short_time(&record["at"]), what(&record)))?;
        let person = |value: &Value| {
            let (name, kind, id) = (text(&value["name"]), text(&value["kind"]), text(&value["id"]));
            if name.is_empty() { String::new() } else { format!("{name} ({})", format!("{kind} {id}").trim()) }
        };
        let origin = &record["origin"];
        let approvals = record["approvals"].as_array().into_iter().flatten().map(person).collect::<Vec<_>>();
        let list =
            |field: &str| record[field].as_array().into_iter().flatten().map(text).collect::<Vec<_>>().join(", ");
        let risk = &record["risk"];
        let facts = [
            ("who", person(&record["actor"])),
            ("from", format!("{} {}", text(&origin["address"]), text(&origin["door"])).trim().to_owned()),
            ("where", place(&record)),
            ("tiers", list("tiers")),
            ("flags", list("flags")),
            ("segments", list("segments")),
            ("outcome", outcome(&record)),
            ("comment", text(&record["comment"])),
            ("commit", text(&record["commit"])),
            ("token", text(&record["credential"])),
            ("request", text(&record["request"])),
            ("written by", person(&record["author"])),
            ("approved by", approvals.join(", ")),
            (
                "risk",
                if risk.is_null() {
                    String::new()
                } else {
                    format!("{} ({})", text(&risk["score"]), text(&risk["level"]))
                },
            ),
            ("policies", list("policies")),
            ("chain", text(&record["hash"])),
        ];
        for (name, value) in facts.iter().filter(|(_, value)| !value.is_empty()) {
            output.line(format!("  {name:<12}{value}"))?;
        }
        for reason in risk["reasons"].as_array().into_iter().flatten() {
            output.line(format!("  because     {}", text(reason)))?;
        }
        for instruction in record["instructions"].as_array().into_iter().flatten() {
            output.line(format!("  {instruction}"))?;
        }
        Ok(())
    })
}

/// Has the server recompute both chains, and compares with a checkpoint where there is one.
pub fn verify(checkpoint: Option<&Checkpoint>, api: &Api, output: &Output) -> Result<(), CliError> {
    let bar = progress::bar(output, 0, "entries and events");
    let mut found = loop {
        let run = api.get(&format!("{AUDIT}/verification"), &[])?;
        if run["state"] != "running" {
            break run;
        }
        let done = ["entries", "events"].iter().filter_map(|field| run["progress"][*field].as_u64()).sum();
        bar.set_position(done);
    };
    bar.finish_and_clear();
    let broken = match checkpoint {
        Some(checkpoint) if found["state"] == "sound" => {
            let said = against(checkpoint, &found, api)?;
            let is_broken = said.iter().any(|(_, is_broken)| *is_broken);
            let sentences: Vec<String> = said.into_iter().map(|(said, _)| said).collect();
            found["checkpoint"] = json!({"signature": "valid", "broken": is_broken, "findings": sentences});
            is_broken
        }
        _ => false,
    };
    output.either(&found, |output| {
        if found["state"] != "sound" {
            return Ok(());
        }
        let (journal, security) = (&found["journal"], &found["security"]);
        output.line(format!("{} entries, the chain unbroken.", text(&journal["revision"])))?;
        output.line(format!("  history  {}", text(&found["history"])))?;
        output.line(format!("  chain    {}", text(&journal["hash"])))?;
        output.line(format!("{} security events, the chain unbroken.", text(&security["events"])))?;
        if security["firstSeq"].as_u64().is_some_and(|first| first > 1) {
            output.line(format!("  earlier than event {} are past their retention", text(&security["firstSeq"])))?;
        }
        output.line(format!("  chain    {}", text(&security["hash"])))?;
        if checkpoint.is_some() && !broken {
            output.line("The checkpoint's signature is valid.")?;
            for said in found["checkpoint"]["findings"].as_array().into_iter().flatten() {
                output.line(format!("  {}", text(said)))?;
            }
        }
        Ok(())
    })?;
    if found["state"] != "sound" {
        return Err(CliError::Damaged(text(&found["problem"])));
    }
    if broken {
        let said = found["checkpoint"]["findings"].as_array().into_iter().flatten().map(text);
        return Err(CliError::Damaged(said.collect::<Vec<_>>().join("\n  ")));
    }
    Ok(())
}

/// What a checkpoint says of the logs that the server shows, in sentences, and which of them say that one was rewritten.
fn against(checkpoint: &Checkpoint, found: &Value, api: &Api) -> Result<Vec<(String, bool)>, CliError> {
    let first = found["security"]["firstSeq"].as_u64().unwrap_or(1);
    let logs = [
        (
            "journal",
            "revision",
            format!("j:{}", checkpoint.journal.revision),
            checkpoint.journal.revision,
            &checkpoint.journal.hash,
            1,
        ),
        (
            "security log",
            "event",
            format!("s:{}", checkpoint.security.seq),
            checkpoint.security.seq,
            &checkpoint.security.hash,
            first,
        ),
    ];
    let mut said = Vec::new();
    for (log, unit, id, number, hash, first) in logs {
        if number == 0 {
            continue;
        }
        if number < first {
            let gone = format!("The {log} starts at {unit} {first}; this checkpoint says nothing about it any more.");
            said.push((gone, false));
            continue;
        }
        let record = match api.get(&format!("{AUDIT}/records/{}", encode(&id)), &[]) {
            Ok(record) => record,
            Err(CliError::Problem(problem)) if problem.status == 404 => {
                let missing =
                    format!("The {log} ends before {unit} {number}, which the checkpoint saw. Its end is missing.");
                said.push((missing, true));
                continue;
            }
            Err(error) => return Err(error),
        };
        said.push(if record["hash"] == **hash {
            (format!("The {log} contains everything up to {unit} {number} as the checkpoint saw it."), false)
        } else {
            let rewritten = format!(
                "The {log} was rewritten: at {unit} {number} its chain is not what the checkpoint saw; something at or before \
                 it is not what it was."
            );
            (rewritten, true)
        });
    }
    if checkpoint.history != text(&found["history"]) {
        said.push((
            "The journal has another history id: it was imported from an export, or begun anew.".to_owned(),
            false,
        ));
    }
    Ok(said)
}

/// Writes records to a file.
pub fn export(args: &ExportArgs, api: &Api, output: &Output) -> Result<(), CliError> {
    let mut query = args.filter.query();
    let format = args.format.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
    query.push(("format", format));
    let path = format!("{AUDIT}/export");
    let Some(file) = &args.output else {
        let mut stdout = std::io::stdout().lock();
        std::io::copy(&mut api.reader(&path, &query)?, &mut stdout)?;
        return Ok(stdout.flush()?);
    };
    let wrong = |error: std::io::Error| CliError::Usage(format!("{}: {error}", file.display()));
    let mut written = std::fs::File::create_new(file).map_err(wrong)?;
    let bar = progress::bytes(output);
    let copied = api.reader(&path, &query).and_then(|reader| {
        let copied = std::io::copy(&mut bar.wrap_read(reader), &mut written).and_then(|bytes| {
            written.sync_all()?;
            Ok(bytes)
        });
        Ok(copied?)
    });
    bar.finish_and_clear();
    // Half an export must not pass for a whole one.
    let bytes = copied.inspect_err(|_| drop(std::fs::remove_file(file)))?;
    output.either(&json!({"file": file, "bytes": bytes}), |output| {
        output.line(format!("{bytes} bytes written to {}", file.display()))
    })
}

/// Has the server sign the present.
pub fn checkpoint(file: Option<&Path>, api: &Api, output: &Output) -> Result<(), CliError> {
    let checkpoint = api.post(&format!("{AUDIT}/checkpoint"), &json!({}))?;
    let Some(file) = file else { return output.document(&checkpoint) };
    let wrong = |error: std::io::Error| CliError::Usage(format!("{}: {error}", file.display()));
    let mut written = std::fs::File::create_new(file).map_err(wrong)?;
    writeln!(written, "{checkpoint}").and_then(|()| written.sync_all()).map_err(wrong)?;
    output.either(&checkpoint, |output| {
        output.line(format!(
            "Signed up to revision {} and event {}; written to {}.",
            text(&checkpoint["journal"]["revision"]),
            text(&checkpoint["security"]["seq"]),
            file.display()
        ))?;
        output.line(
            "  Keep it, and the key that `guidon audit key` shows, where the server's operators cannot change them.",
        )
    })
}

/// Shows the checkpoint key.
pub fn key(api: &Api, output: &Output) -> Result<(), CliError> {
    let key = api.get(&format!("{AUDIT}/checkpoint"), &[])?;
    output.either(&key, |output| {
        output.line(text(&key["publicKey"]))?;
        output.line(format!("  fingerprint {}", text(&key["fingerprint"])))
    })
}
