//! `guidon request …`

use std::io::{BufRead, IsTerminal, Write};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::api::encode;
use super::change::{moment, print_outcome, read_change};
use super::output::Output;
use super::show::{short_time, text};
use super::{Api, CliError};

/// Commands about change requests.
#[derive(Debug, Subcommand)]
pub enum RequestCommand {
    /// List change requests, newest first
    List(ListArgs),
    /// Show a change request: what it asks for, its risk, and what stands in its way
    Show {
        /// Id of the request
        id: String,
    },
    /// Put a draft to review
    Submit {
        /// Id of the request
        id: String,
    },
    /// Agree with what a change request asks for
    Approve(ApproveArgs),
    /// Refuse a change request
    Reject {
        /// Id of the request
        id: String,
        /// Why
        #[arg(long, short, default_value = "")]
        reason: String,
    },
    /// Take a change request back
    Withdraw {
        /// Id of the request
        id: String,
        /// Why
        #[arg(long, short, default_value = "")]
        reason: String,
    },
    /// Say something of a change request
    Comment {
        /// Id of the request
        id: String,
        /// What to say
        text: String,
    },
    /// Change what a request asks for, or when: every approval is void
    Edit(EditArgs),
    /// Read a change request against what is there now: every approval is void
    Rebase {
        /// Id of the request
        id: String,
    },
    /// Make what an approved change request asks for
    Apply {
        /// Id of the request
        id: String,
    },
}

/// Which change requests to list.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only those in this state: draft, review, approved, applied, rejected, withdrawn, expired, or open for the first three
    #[arg(long, default_value = "open", conflicts_with = "all")]
    state: String,
    /// Those that have ended too
    #[arg(long)]
    all: bool,
    /// Only those that this principal wrote
    #[arg(long, value_name = "ID")]
    author: Option<String>,
    /// Only those that would touch this flag
    #[arg(long)]
    flag: Option<String>,
    /// Only those that would touch this environment
    #[arg(long, short)]
    environment: Option<String>,
}

/// What to agree with.
#[derive(Debug, Args)]
pub struct ApproveArgs {
    /// Id of the request
    id: String,
    /// Only if this is the hash of what it asks for, or how that begins (8 digits or more)
    #[arg(long)]
    hash: Option<String>,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

/// What to change.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true))]
pub struct EditArgs {
    /// Id of the request
    id: String,
    /// New instructions as JSON: a list, or an object with `instructions`; `-` reads standard input
    #[arg(long, short, value_name = "PATH", group = "what")]
    file: Option<PathBuf>,
    /// New comment
    #[arg(long, short = 'm', value_name = "TEXT", group = "what")]
    comment: Option<String>,
    /// Apply it by itself from this time on (as 2026-11-24T18:00Z, or 2h for two hours from now)
    #[arg(long, value_name = "TIME", value_parser = moment, group = "what")]
    apply_at: Option<u64>,
    /// And not after this time
    #[arg(long, value_name = "TIME", value_parser = moment, requires = "apply_at")]
    until: Option<u64>,
    /// Apply it when somebody says so
    #[arg(long, conflicts_with = "apply_at", group = "what")]
    no_schedule: bool,
}

/// Runs one of the commands.
pub fn run(command: RequestCommand, api: &Api, output: &Output) -> Result<(), CliError> {
    let step = |id: &str, step: &str, body: Value| {
        let outcome = api.post(&path(api, id, &format!("/{step}")), &body)?;
        print_step(&outcome, output)
    };
    match command {
        RequestCommand::List(args) => list(args, api, output),
        RequestCommand::Show { id } => {
            let request = api.get(&path(api, &id, ""), &[])?;
            output.either(&request, |output| show(&request, output))
        }
        RequestCommand::Submit { id } => step(&id, "submit", json!({})),
        RequestCommand::Approve(args) => approve(&args, api, output),
        RequestCommand::Reject { id, reason } => step(&id, "reject", json!({"reason": reason})),
        RequestCommand::Withdraw { id, reason } => step(&id, "withdraw", json!({"reason": reason})),
        RequestCommand::Comment { id, text } => step(&id, "comment", json!({"text": text})),
        RequestCommand::Edit(args) => edit(&args, api, output),
        RequestCommand::Rebase { id } => {
            let outcome = api.patch(&path(api, &id, ""), &json!({"rebase": true}))?;
            print_step(&outcome, output)
        }
        RequestCommand::Apply { id } => {
            let outcome = api.post(&path(api, &id, "/apply"), &json!({}))?;
            print_outcome(&outcome, output)
        }
    }
}

fn path(api: &Api, id: &str, rest: &str) -> String {
    api.in_project(&format!("/requests/{}{rest}", encode(id)))
}

fn list(args: ListArgs, api: &Api, output: &Output) -> Result<(), CliError> {
    let mut query = vec![("limit", "500".to_owned())];
    if !args.all {
        query.push(("state", args.state));
    }
    let filters = [("author", args.author), ("flag", args.flag), ("environment", args.environment)];
    query.extend(filters.into_iter().filter_map(|(name, value)| Some((name, value?))));
    let requests = api.get_all(&api.in_project("/requests"), "requests", &query)?;
    output.either(&requests, |output| {
        let rows = requests.iter().map(|request| {
            let content = &request["content"];
            let summary: Vec<String> = content["summary"].as_array().into_iter().flatten().take(2).map(text).collect();
            vec![
                text(&request["id"]),
                text(&request["state"]),
                format!("{} {}", text(&content["risk"]["level"]), text(&content["risk"]["score"])),
                format!("{} of {}", text(&request["validApprovals"]), text(&content["needed"])),
                text(&request["author"]["id"]),
                summary.join("; "),
            ]
        });
        let headers = ["request", "state", "risk", "approvals", "author", "asks for"];
        output.table(&headers, rows.collect(), "No change requests. `--all` lists those that have ended too.")
    })
}

/// Shows a request whole.
fn show(request: &Value, output: &Output) -> Result<(), CliError> {
    let content = &request["content"];
    let comment = text(&request["comment"]);
    output.line(format!("{} ({})  {comment}", text(&request["id"]), text(&request["state"])).trim_end())?;
    let author = &request["author"];
    let named = |id: &Value| request["names"][text(id)].as_str().map_or_else(|| text(id), str::to_owned);
    let owner = match &author["owner"] {
        Value::Null => String::new(),
        owner => format!(", owned by {}", named(owner)),
    };
    let by = format!("{} ({}{owner})", named(&author["id"]), text(&author["kind"]));
    output.line(format!("  written by {by} at {}", short_time(&request["createdAt"])))?;
    if let Some(commit) = request["commit"].as_str() {
        output.line(format!("  ships {commit}"))?;
    }
    output.line("")?;
    for sentence in content["summary"].as_array().into_iter().flatten() {
        output.line(format!("  {}", text(sentence)))?;
    }
    output.line("")?;
    output.line(format!("  risk {} {}", text(&content["risk"]["level"]), text(&content["risk"]["score"])))?;
    for reason in content["risk"]["reasons"].as_array().into_iter().flatten() {
        output.line(format!("    {}", text(reason)))?;
    }
    output.line(format!("  approvals {} of {}", text(&request["validApprovals"]), text(&content["needed"])))?;
    for approval in request["approvals"].as_array().into_iter().flatten() {
        output.line(format!("    {} at {}", named(&approval["by"]), short_time(&approval["at"])))?;
    }
    output.line(format!("  read against revision {}", text(&content["baseRevision"])))?;
    output.line(format!("  hash {}", text(&content["hash"])))?;
    if request["schedule"].is_object() {
        let until = match &request["schedule"]["notAfter"] {
            Value::Null => String::new(),
            end => format!(", not after {}", short_time(end)),
        };
        output.line(format!("  applied by itself from {}{until}", short_time(&request["schedule"]["notBefore"])))?;
    }
    how_it_stands(request, output)?;
    for said in request["comments"].as_array().into_iter().flatten() {
        output.line(format!("  {} {}: {}", short_time(&said["at"]), named(&said["by"]), text(&said["text"])))?;
    }
    Ok(())
}

/// How a request ended, or what stands in its way.
fn how_it_stands(request: &Value, output: &Output) -> Result<(), CliError> {
    if request["ended"].is_object() {
        let ended = &request["ended"];
        let revision = match &ended["revision"] {
            Value::Null => String::new(),
            revision => format!(" as revision {revision}"),
        };
        let reason = ended["reason"].as_str().map_or_else(String::new, |reason| format!(": {reason}"));
        return output.line(format!("  {} by {}{revision}{reason}", text(&request["state"]), text(&ended["by"])));
    }
    output.line(format!("  ends by itself at {}", short_time(&request["expiresAt"])))?;
    let applies = &request["applies"];
    if applies["now"] == false {
        output.line(format!("  It cannot be applied now: {}", text(&applies["detail"])))?;
        for entry in applies["conflicts"].as_array().into_iter().flatten() {
            let did: Vec<String> = entry["summary"].as_array().into_iter().flatten().map(text).collect();
            let (revision, by) = (text(&entry["revision"]), text(&entry["actorId"]));
            output.line(format!("    revision {revision}, {by}: {}", did.join("; ")))?;
        }
        for error in applies["errors"].as_array().into_iter().flatten() {
            output.line(format!("    at {}: {}", text(&error["pointer"]), text(&error["detail"])))?;
        }
    }
    Ok(())
}

fn approve(args: &ApproveArgs, api: &Api, output: &Output) -> Result<(), CliError> {
    let request = api.get(&path(api, &args.id, ""), &[])?;
    let hash = text(&request["content"]["hash"]);
    match &args.hash {
        Some(wanted) if wanted.len() < 8 || !hash.starts_with(wanted.as_str()) => {
            let message = format!(
                "{} asks for what has the hash {hash}, not {wanted}: it was edited since; `guidon request show {}` shows it",
                args.id, args.id
            );
            return Err(CliError::Usage(message));
        }
        None if !args.yes => {
            if !std::io::stdin().is_terminal() {
                let message = "say what you agree with: --hash, as `guidon request show` prints it, or --yes";
                return Err(CliError::Usage(message.to_owned()));
            }
            show(&request, output)?;
            if !ask("Approve this? [y/N] ")? {
                return output.line("Nothing was approved.");
            }
        }
        _ => {}
    }
    let outcome = api.post(&path(api, &args.id, "/approve"), &json!({"hash": hash}))?;
    print_step(&outcome, output)
}

fn ask(question: &str) -> Result<bool, CliError> {
    let mut stderr = std::io::stderr().lock();
    write!(stderr, "{question}").and_then(|()| stderr.flush())?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn edit(args: &EditArgs, api: &Api, output: &Output) -> Result<(), CliError> {
    let mut body = json!({});
    if let Some(file) = &args.file {
        body["instructions"] = read_change(file)?["instructions"].take();
    }
    if let Some(comment) = &args.comment {
        body["comment"] = json!(comment);
    }
    if let Some(begins) = args.apply_at {
        body["schedule"] = json!({"notBefore": begins});
        if let Some(end) = args.until {
            body["schedule"]["notAfter"] = json!(end);
        }
    } else if args.no_schedule {
        body["schedule"] = Value::Null;
    }
    let outcome = api.patch(&path(api, &args.id, ""), &body)?;
    print_step(&outcome, output)
}

/// Prints what a step made of a request.
fn print_step(outcome: &Value, output: &Output) -> Result<(), CliError> {
    output.either(outcome, |output| {
        for sentence in outcome["summary"].as_array().into_iter().flatten() {
            output.line(text(sentence))?;
        }
        let request = &outcome["request"];
        output.line(format!("{} {}.", text(&request["id"]), standing(request)))?;
        how_to_go_on(request, output)
    })
}

/// How a request stands, in words: `is in review: 1 of 2 approvals`.
fn standing(request: &Value) -> String {
    let (given, needed) = (&request["validApprovals"], &request["content"]["needed"]);
    match (request["state"].as_str(), given.as_u64(), needed.as_u64()) {
        (Some("draft"), ..) => "is a draft".to_owned(),
        (Some("review"), Some(given), Some(1)) => format!("is in review: {given} of 1 approval"),
        (Some("review"), Some(given), Some(needed)) => format!("is in review: {given} of {needed} approvals"),
        (Some("review"), ..) => "is in review".to_owned(),
        _ => format!("is {}", text(&request["state"])),
    }
}

fn how_to_go_on(request: &Value, output: &Output) -> Result<(), CliError> {
    let id = text(&request["id"]);
    match request["state"].as_str() {
        Some("draft") => output.line(format!("  `guidon request submit {id}` puts it to review.")),
        Some("review") => output.line(format!("  Somebody else agrees with `guidon request approve {id}`.")),
        Some("approved") if request["schedule"].is_object() => {
            output.line(format!("  It is applied by itself from {}.", short_time(&request["schedule"]["notBefore"])))
        }
        Some("approved") => output.line(format!("  `guidon request apply {id}` makes it.")),
        _ => Ok(()),
    }
}

/// Prints that a change has become a request, and how to go on.
pub fn print_opened(request: &Value, output: &Output) -> Result<(), CliError> {
    let id = text(&request["id"]);
    for sentence in request["content"]["summary"].as_array().into_iter().flatten() {
        output.line(format!("  {}", text(sentence)))?;
    }
    let needs = needs(&request["content"]["risk"], &request["content"]["needed"]);
    let opened = if request["state"] == "draft" { "drafted" } else { "opened" };
    output.line(format!("{opened} change request {id} ({needs})"))?;
    how_to_go_on(request, output)?;
    output.line(format!("  `guidon request show {id}` says how it stands."))
}

/// The risk and what it takes, in words: `risk medium 46: in production, …; needs 1 approval`.
#[must_use]
pub fn needs(risk: &Value, approvals: &Value) -> String {
    let reasons: Vec<String> = risk["reasons"].as_array().into_iter().flatten().map(text).collect();
    let needs = match approvals.as_u64() {
        Some(0) => "needs nobody's approval".to_owned(),
        Some(1) => "needs 1 approval".to_owned(),
        _ => format!("needs {} approvals", text(approvals)),
    };
    format!("risk {} {}: {}; {needs}", text(&risk["level"]), text(&risk["score"]), reasons.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_takes_is_said_with_its_reasons() {
        let risk = json!({"level": "medium", "score": 46, "reasons": ["in production", "no drill"]});
        assert_eq!(needs(&risk, &json!(1)), "risk medium 46: in production, no drill; needs 1 approval");
        assert_eq!(needs(&risk, &json!(2)), "risk medium 46: in production, no drill; needs 2 approvals");
        assert!(needs(&risk, &json!(0)).ends_with("needs nobody's approval"));
    }
}
