//! `guidon rollback …`

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::api::encode;
use super::change::print_outcome;
use super::output::Output;
use super::show::{short_time, text};
use super::{Api, CliError, check};
use crate::drills::MAX_CHECK_COMMAND_BYTES;

/// Longest that a check may run, in seconds: the server keeps a drill for half an hour.
const MAX_CHECK_TIMEOUT_S: u64 = 25 * 60;
/// Longest that connected SDKs may take to answer, in seconds.
const MAX_PROBE_TIMEOUT_S: u64 = 20;

/// Rolls a flag back, or rehearses that.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct RollbackArgs {
    #[command(subcommand)]
    command: Option<RollbackCommand>,
    /// Key of the flag
    #[arg(required = true)]
    flag: Option<String>,
    /// Environment to roll back in
    #[arg(long, short, env = "GUIDON_ENVIRONMENT", required = true)]
    environment: Option<String>,
    /// Revision to go back to; left out: what the flag was before its last change that moved anybody
    #[arg(long, value_name = "REVISION")]
    to: Option<u64>,
    /// Why, for the history
    #[arg(long, short = 'm', value_name = "TEXT")]
    comment: Option<String>,
    /// Only if the flag has not changed since this revision
    #[arg(long, value_name = "REVISION")]
    expected_revision: Option<u64>,
    /// Say what it would do, and do nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Subcommand)]
enum RollbackCommand {
    /// Rehearse a rollback: prove that it would work, say who would move, and record it
    Drill(DrillArgs),
    /// List the last drill of each flag and environment, and whether it still counts
    Drills {
        /// Only those of this environment
        #[arg(long, short)]
        environment: Option<String>,
        /// Only those of this flag
        #[arg(long)]
        flag: Option<String>,
    },
}

/// What to rehearse.
#[derive(Debug, Args)]
struct DrillArgs {
    /// Key of the flag
    flag: String,
    /// Environment to rehearse in
    #[arg(long, short, env = "GUIDON_ENVIRONMENT")]
    environment: String,
    /// Revision to go back to; left out: what the flag was before its last change that moved anybody
    #[arg(long, value_name = "REVISION")]
    to: Option<u64>,
    /// Your own proof, such as a database down-migration: a shell command, run on this machine. Its exit code, its duration
    /// and the last 4 KiB of what it prints are journaled for good: it must not print secrets
    #[arg(long, value_name = "COMMAND")]
    check: Option<String>,
    /// How long the check may run, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=MAX_CHECK_TIMEOUT_S))]
    check_timeout: u64,
    /// Do not record what the check prints, only a hash of it
    #[arg(long, requires = "check")]
    hide_output: bool,
    /// How long connected SDKs may take to answer, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=MAX_PROBE_TIMEOUT_S))]
    probe_timeout: u64,
}

/// Runs one of the commands.
pub fn run(args: RollbackArgs, api: &Api, output: &Output) -> Result<(), CliError> {
    match args.command {
        Some(RollbackCommand::Drill(args)) => drill(&args, api, output),
        Some(RollbackCommand::Drills { environment, flag }) => drills(environment, flag, api, output),
        None => roll_back(&args, api, output),
    }
}

fn path(api: &Api, environment: &str, flag: &str, rest: &str) -> String {
    api.in_environment(environment, &format!("/flags/{}{rest}", encode(flag)))
}

fn roll_back(args: &RollbackArgs, api: &Api, output: &Output) -> Result<(), CliError> {
    let missing = || CliError::Usage("name the flag, and the environment with --environment".to_owned());
    let flag = args.flag.as_deref().ok_or_else(missing)?;
    let environment = args.environment.as_deref().ok_or_else(missing)?;
    let mut body = json!({"dryRun": args.dry_run});
    let said = [
        ("toRevision", args.to.map(|to| json!(to))),
        ("comment", args.comment.as_ref().map(|comment| json!(comment))),
        ("expectedRevision", args.expected_revision.map(|revision| json!(revision))),
    ];
    for (name, value) in said {
        if let Some(value) = value {
            body[name] = value;
        }
    }
    let outcome = api.post(&path(api, environment, flag, "/rollback"), &body)?;
    print_outcome(&outcome, output)
}

fn drill(args: &DrillArgs, api: &Api, output: &Output) -> Result<(), CliError> {
    let DrillArgs { flag, environment, .. } = args;
    if args.check.as_ref().is_some_and(|check| check.is_empty() || check.len() > MAX_CHECK_COMMAND_BYTES) {
        return Err(CliError::Usage(format!(
            "--check takes a command of 1 to {MAX_CHECK_COMMAND_BYTES} bytes; put a longer one into a script"
        )));
    }
    let mut body = json!({"probeTimeoutMs": args.probe_timeout * 1_000});
    if let Some(to) = args.to {
        body["toRevision"] = json!(to);
    }
    let made = api.post(&path(api, environment, flag, "/drills"), &body)?;
    let found = &made["drill"];
    if !output.is_json() {
        print_found(args, found, output)?;
    }
    let mut record = json!({});
    // A check may do something to a database: it is not run for a rollback that would not work.
    if let Some(command) = args.check.as_ref().filter(|_| found["passed"] == true) {
        if !output.is_json() {
            output.line(format!("check    {command}"))?;
        }
        let variables = [
            ("GUIDON_DRILL_FLAG", flag.clone()),
            ("GUIDON_DRILL_ENVIRONMENT", environment.clone()),
            ("GUIDON_DRILL_TO_REVISION", text(&found["toRevision"])),
        ];
        let limit = Duration::from_secs(args.check_timeout);
        let done = check::run(command, &variables, limit, !output.is_json(), !args.hide_output);
        if !output.is_json() {
            output.line(format!("         {}", check_in_words(&json!(done))))?;
        }
        record["check"] = json!(done);
    }
    let recorded =
        api.post(&path(api, environment, flag, &format!("/drills/{}/record", text(&found["id"]))), &record)?;
    let report = &recorded["drill"]["report"];
    let passed = report["passed"] == true;
    output.either(&recorded, |output| {
        let revision = text(&recorded["revision"]);
        let until = short_time(&recorded["drill"]["freshUntil"]);
        let verdict = if passed { format!("passed; it counts until {until}") } else { "failed".to_owned() };
        output.line(format!("The drill {verdict}. Recorded as revision {revision}."))
    })?;
    if passed {
        return Ok(());
    }
    let reasons: Vec<String> = report["reasons"].as_array().into_iter().flatten().map(text).collect();
    Err(CliError::DrillFailed {
        message: format!("the drill of {flag} in {environment} did not pass:\n  {}", reasons.join("\n  ")),
        report: report.clone(),
    })
}

/// What the server found, in a few lines.
fn print_found(args: &DrillArgs, found: &Value, output: &Output) -> Result<(), CliError> {
    let (flag, environment, to) = (&args.flag, &args.environment, text(&found["toRevision"]));
    output.line(format!("rollback {flag} in {environment}, back to revision {to}"))?;
    let proof = &found["proof"];
    let way = match proof["way"].as_str().unwrap_or_default() {
        "direct" => "you could make it at once",
        "factor" => "you could make it at once, with a fresh second factor",
        "request" => "you could propose it as a change request",
        _ => "you could not make it",
    };
    if proof["validates"] == true && proof["restores"] == true {
        let flags = text(&proof["flagsChecked"]);
        output.line(format!(
            "proved   it validates and restores revision {to}; {flags} flag(s) are valid after it; {way}"
        ))?;
    }
    for reason in found["reasons"].as_array().into_iter().flatten() {
        output.line(format!("failed   {}", text(reason)))?;
    }
    let moved = &found["moved"];
    output.line(format!(
        "moves    {}, at most {} of the people",
        text(&proof["direction"]),
        share(&moved["atMost"])
    ))?;
    print_tally("of a sample of people seen lately", &moved["sampled"], output)?;
    if moved["stored"].is_object() {
        print_tally("of all people logged in the last hour", &moved["stored"], output)?;
    }
    print_probe(&found["probe"], output)
}

fn print_tally(of: &str, tally: &Value, output: &Output) -> Result<(), CliError> {
    let people = tally["people"].as_u64().unwrap_or(0);
    if people == 0 {
        return output.line(format!("         {of}: nobody was seen"));
    }
    let unknown = tally["unknown"].as_u64().unwrap_or(0);
    let unsure = if unknown > 0 {
        format!("; of {unknown} it cannot be told: rules look at attributes that the server does not know")
    } else {
        String::new()
    };
    let moves = tally["moves"].as_array();
    if moves.is_none_or(Vec::is_empty) {
        return output.line(format!("         {of}: none of {} moves{unsure}", people - unknown));
    }
    output.line(format!("         {of} ({people}){unsure}:"))?;
    for step in moves.into_iter().flatten() {
        let name = |value: &Value| match value.as_str() {
            None | Some("") => "the caller's default".to_owned(),
            Some(key) => key.to_owned(),
        };
        let (from, to) = (name(&step["from"]), name(&step["to"]));
        output.line(format!("           {from} -> {to}  {} ({})", text(&step["count"]), share(&step["share"])))?;
    }
    Ok(())
}

fn print_probe(probe: &Value, output: &Output) -> Result<(), CliError> {
    let (connected, answered) = (text(&probe["connected"]), text(&probe["answered"]));
    if connected == "0" {
        return output.line("probe    no SDK is connected to this server: how soon they would hear of it is not known");
    }
    let times = if probe["p50Us"].is_null() {
        String::new()
    } else {
        let [p50, p99, max] = ["p50Us", "p99Us", "maxUs"].map(|name| milliseconds(&probe[name]));
        format!(": half within {p50}, 99 of 100 within {p99}, all within {max}")
    };
    output.line(format!("probe    {answered} of {connected} connected SDKs answered{times}"))?;
    for silent in probe["silentSdks"].as_array().into_iter().flatten() {
        let (count, sdk) = (text(&silent["count"]), text(&silent["sdk"]));
        let why = if silent["supported"] == true { "did not answer" } else { "too old to answer probes" };
        output.line(format!("         {count} x {sdk}: {why}"))?;
    }
    Ok(())
}

/// A share out of 100,000 as a percentage.
fn share(value: &Value) -> String {
    let share = value.as_f64().unwrap_or(0.0) / 1_000.0;
    format!("{share} %")
}

fn milliseconds(value: &Value) -> String {
    format!("{:.1} ms", value.as_f64().unwrap_or(0.0) / 1_000.0)
}

fn check_in_words(check: &Value) -> String {
    let took = format!("after {} ms", text(&check["durationMs"]));
    match check["exitCode"].as_i64() {
        Some(0) => format!("passed {took}"),
        Some(127) => format!("exit code 127 {took}: the command was not found on this machine"),
        Some(code) => format!("exit code {code} {took}"),
        None if check["timedOut"] == true => format!("ended {took}: its time was over (--check-timeout)"),
        None => format!("did not run, or was ended by a signal, {took}"),
    }
}

fn drills(environment: Option<String>, flag: Option<String>, api: &Api, output: &Output) -> Result<(), CliError> {
    let mut query = vec![("limit", "500".to_owned())];
    query.extend(environment.map(|environment| ("environment", environment)));
    query.extend(flag.map(|flag| ("flag", flag)));
    let drills = api.get_all(&api.in_project("/drills"), "drills", &query)?;
    output.either(&drills, |output| {
        let rows = drills.iter().map(|drill| {
            let report = &drill["report"];
            let fresh = match drill["freshness"].as_str().unwrap_or_default() {
                "fresh" => format!("until {}", short_time(&drill["freshUntil"])),
                "expired" => "no: older than 7 days".to_owned(),
                "outdated" => "no: the flag has changed since".to_owned(),
                _ => "no: it failed".to_owned(),
            };
            let check = if report["check"].is_object() { check_in_words(&report["check"]) } else { "none".to_owned() };
            vec![
                text(&drill["environment"]),
                text(&drill["flag"]),
                short_time(&drill["at"]),
                if report["passed"] == true { "passed" } else { "failed" }.to_owned(),
                fresh,
                text(&report["toRevision"]),
                check,
                text(&report["by"]),
            ]
        });
        let headers = ["environment", "flag", "at", "outcome", "counts", "back to", "check", "by"];
        output.table(
            &headers,
            rows.collect(),
            "No drills: `guidon rollback drill FLAG --environment staging` makes one.",
        )
    })
}
