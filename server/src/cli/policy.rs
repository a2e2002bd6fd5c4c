//! `guidon policy …`

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::api::encode;
use super::change::{print_outcome, read_text};
use super::environment::TierName;
use super::error::Problem;
use super::output::Output;
use super::show::{short_time, text};
use super::{Api, CliError};
use crate::policy::{Action, Group, PolicyProblem, Report, Role, check};

const PATH: &str = "/api/v1/policies";

/// Commands about the policies.
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// List the policies in force, by file
    List,
    /// Print a policy file
    Show {
        /// Name of the file
        name: String,
    },
    /// Put a policy file in force
    Set {
        /// The file, `-` for standard input
        file: PathBuf,
        /// Name to keep it under [default: the file's]
        #[arg(long, required_if_eq("file", "-"))]
        name: Option<String>,
    },
    /// Remove a policy file
    Remove {
        /// Name of the file
        name: String,
    },
    /// Check policy files, without a server
    Check {
        /// The files
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Say which policies allow or refuse something, and what would have it allowed
    Explain(Box<ExplainArgs>),
}

/// A question to the policies.
#[derive(Args, Debug)]
pub struct ExplainArgs {
    /// Who: an account's name, or the id or name of a service account or an AI agent
    #[arg(long, required_unless_present = "kind", conflicts_with = "kind")]
    principal: Option<String>,
    /// Or anybody of a kind
    #[arg(long, value_parser = ["operator", "human", "service", "agent", "application", "system"])]
    kind: Option<String>,
    /// With this role, in place of those the person has; may be repeated
    #[arg(long = "role", value_enum)]
    roles: Vec<Role>,
    /// The action, as turnFlagOn
    #[arg(long)]
    action: String,
    /// Where: an environment
    #[arg(long, short)]
    environment: Option<String>,
    /// Or a tier
    #[arg(long, value_enum, conflicts_with = "environment")]
    tier: Option<TierName>,
    /// On which flag
    #[arg(long)]
    flag: Option<String>,
    /// With this token, by id: its scope counts
    #[arg(long, value_name = "ID")]
    with_token: Option<String>,
    /// Where an edit moves people [default: widening]
    #[arg(long, value_parser = ["still", "lowering", "widening"])]
    direction: Option<String>,
    /// As a change request, not at once
    #[arg(long)]
    proposed: bool,
    /// With a second factor proved in the last ten minutes
    #[arg(long)]
    factor_fresh: bool,
    /// With so many approvals
    #[arg(long)]
    approvals: Option<u32>,
    /// Of a change of this risk
    #[arg(long, value_parser = ["low", "medium", "high"])]
    risk: Option<String>,
}

/// Runs one of the commands.
pub fn run(command: PolicyCommand, api: impl Fn() -> Result<Api, CliError>, output: &Output) -> Result<(), CliError> {
    match command {
        PolicyCommand::List => list(&api()?, output),
        PolicyCommand::Show { name } => {
            let files = api()?.get_all(PATH, "files", &[])?;
            let file = files.iter().find(|file| file["name"] == *name).ok_or_else(|| not_found(&name))?;
            output.either(file, |output| output.line(text(&file["text"]).trim_end()))
        }
        PolicyCommand::Set { file, name } => {
            let from_path = || file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let name = name.unwrap_or_else(from_path);
            let body = json!({ "text": read_text(&file)? });
            print_outcome(&api()?.put(&format!("{PATH}/{}", encode(&name)), &body)?, output)
        }
        PolicyCommand::Remove { name } => print_outcome(&api()?.delete(&format!("{PATH}/{}", encode(&name)))?, output),
        PolicyCommand::Check { files } => check_files(&files, output),
        PolicyCommand::Explain(args) => explain(&args, &api()?, output),
    }
}

fn not_found(name: &str) -> CliError {
    let document = json!({"title": "There is no such thing", "detail": format!("There is no policy file \"{name}\".")});
    CliError::Problem(Problem { status: 404, document })
}

fn list(api: &Api, output: &Output) -> Result<(), CliError> {
    let files = api.get_all(PATH, "files", &[])?;
    output.either(&files, |output| {
        let policies = |file: &Value| file["policies"].as_array().cloned().unwrap_or_default();
        let rows = files.iter().flat_map(|file| {
            let since = if file["builtin"] == true { "built in".to_owned() } else { short_time(&file["updatedAt"]) };
            policies(file).into_iter().map(move |policy| {
                let place = format!("{}:{}", text(&file["name"]), text(&policy["line"]));
                vec![text(&policy["effect"]), text(&policy["name"]), place, since.clone(), text(&policy["description"])]
            })
        });
        output.table(&["effect", "policy", "file", "since", "description"], rows.collect(), "No policies.")
    })
}

/// Checks files as the server would, and prints what is wrong as `file:line:column: …`.
fn check_files(paths: &[PathBuf], output: &Output) -> Result<(), CliError> {
    let mut files = BTreeMap::new();
    for path in paths {
        files.insert(path.display().to_string(), read_text(path)?);
    }
    let report = check(&files);
    let shown = |problems: &[PolicyProblem]| -> Vec<Value> {
        let shown = |it: &PolicyProblem| json!({"file": it.file, "line": it.line, "column": it.column, "message": it.message, "hint": it.hint});
        problems.iter().map(shown).collect()
    };
    let Report { problems, warnings, policies } = &report;
    let document = json!({
        "passed": report.passed(), "policies": policies, "problems": shown(problems), "warnings": shown(warnings),
    });
    output.either(&document, |output| output.line(report.to_string()))?;
    if report.passed() {
        return Ok(());
    }
    let detail = format!("{} to mend before they can be put in force", counted(report.problems.len()));
    let document = json!({"title": "The policies are not right", "detail": detail});
    Err(CliError::Problem(Problem { status: 422, document }))
}

fn counted(errors: usize) -> String {
    if errors == 1 { "1 error".to_owned() } else { format!("{errors} errors") }
}

fn explain(args: &ExplainArgs, api: &Api, output: &Output) -> Result<(), CliError> {
    let action: Action = args.action.parse().map_err(|error: crate::policy::UnknownAction| {
        let words: Vec<&str> = Action::ALL.iter().map(|action| action.as_str()).collect();
        CliError::Usage(format!("{error}\n  The actions are {}.", words.join(", ")))
    })?;
    let mut question = json!({"action": action.as_str(), "factorFresh": args.factor_fresh});
    let in_project = matches!(action.group(), Group::Edit | Group::Delete | Group::Request | Group::Serve);
    if in_project || args.environment.is_some() || args.tier.is_some() {
        question["project"] = json!(api.project());
    }
    if !args.roles.is_empty() {
        question["roles"] = args.roles.iter().map(|role| role.as_str()).collect();
    }
    if args.proposed {
        question["mode"] = json!("proposed");
    }
    if let Some(approvals) = args.approvals {
        question["approvals"] = json!(approvals);
    }
    let words = [
        ("principal", args.principal.clone()),
        ("kind", args.kind.clone()),
        ("environment", args.environment.clone()),
        ("tier", args.tier.map(|tier| tier.word().to_owned())),
        ("flag", args.flag.clone()),
        ("token", args.with_token.clone()),
        ("direction", args.direction.clone()),
        ("riskLevel", args.risk.clone()),
    ];
    for (field, value) in words {
        if let Some(value) = value {
            question[field] = json!(value);
        }
    }
    let answer = api.post(&format!("{PATH}/explain"), &question)?;
    output.either(&answer, |output| show(&answer, output))
}

fn show(answer: &Value, output: &Output) -> Result<(), CliError> {
    let (who, place) = (&answer["principal"], &answer["resource"]);
    let roles: Vec<String> = who["roles"].as_array().into_iter().flatten().map(text).collect();
    let roles = if roles.is_empty() { String::new() } else { format!(" ({})", roles.join(", ")) };
    let place = match (&*text(&place["project"]), &*text(&place["environment"])) {
        ("", _) => "the installation".to_owned(),
        (project, "") => format!("the project {project}"),
        (project, environment) => format!("{environment} of {project}"),
    };
    let verdict = if answer["allowed"] == true { "allowed" } else { "refused" };
    let (kind, action) = (text(&who["kind"]), text(&answer["action"]));
    output.line(format!("{verdict}: {kind} {}{roles}, {action} in {place}", text(&who["id"])))?;
    for (field, title) in [
        ("applied", "Policies that applied:"),
        ("failed", "Policies that could not be evaluated:"),
        ("nearest", "Permits whose conditions do not hold:"),
    ] {
        let policies = answer[field].as_array().map(Vec::as_slice).unwrap_or_default();
        if policies.is_empty() {
            continue;
        }
        output.line(format!("\n{title}"))?;
        for policy in policies {
            let from = if policy["builtin"] == true { "built in, " } else { "" };
            let place = format!("{from}{}:{}", text(&policy["file"]), text(&policy["line"]));
            output.line(format!("  {:<6}  {}  ({place})", text(&policy["effect"]), text(&policy["name"])))?;
            if policy["description"] != "" {
                output.line(format!("          {}", text(&policy["description"])))?;
            }
        }
    }
    if answer["allowed"] == true {
        return Ok(());
    }
    if ["applied", "failed"].iter().all(|field| answer[*field].as_array().is_none_or(Vec::is_empty)) {
        output.line("\nNo policy permits it.")?;
    }
    let remedies: Vec<String> =
        answer["remedies"].as_array().into_iter().flatten().map(|it| text(&it["text"])).collect();
    if remedies.is_empty() {
        output.line("\nNothing that this principal could do by itself would have it allowed.")
    } else {
        output.line(format!("\nWhat would have it allowed: {}.", remedies.join("; or ")))
    }
}
