//! `guidon release …`

mod board;
mod plan;
mod report;
mod watch;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

pub use report::{incident as incident_lines, incident_evidence};

use super::api::encode;
use super::change::{ChangeOptions, submit};
use super::output::Output;
use super::show::{short_time, text};
use super::{Api, CliError};

/// Commands about releases.
#[derive(Debug, Subcommand)]
pub enum ReleaseCommand {
    /// Start a release: give more and more people a variation, guarded, and take it back by itself if it does harm
    Start(Box<plan::StartArgs>),
    /// Print the whole plan that `start` would send, to begin a file of your own from
    Plan(plan::PlanArgs),
    /// Show how a release goes, or list those under way
    Status(StatusArgs),
    /// List the last release of each flag
    List {
        /// Environment
        #[arg(long, short, env = "GUIDON_ENVIRONMENT")]
        environment: String,
        /// Only those that stand here: active, running, paused, completed, aborted or rolledBack
        #[arg(long)]
        state: Option<String>,
    },
    /// Go to the next step, or to another one, without waiting for what the plan asks
    Advance {
        #[command(flatten)]
        at: FlagArgs,
        /// Step to go to, counted from 1
        #[arg(long, value_name = "STEP", value_parser = clap::value_parser!(u64).range(1..=20))]
        to: Option<u64>,
        #[command(flatten)]
        options: ChangeOptions,
    },
    /// Keep a release where it is; the guard goes on
    Pause(ReasonArgs),
    /// Let a paused release go on; its step begins anew
    Resume {
        #[command(flatten)]
        at: FlagArgs,
        #[command(flatten)]
        options: ChangeOptions,
    },
    /// End a release and serve what was served before it
    Abort(ReasonArgs),
    /// Start the last release's plan anew, from its first step
    Restart {
        #[command(flatten)]
        at: FlagArgs,
        #[command(flatten)]
        options: ChangeOptions,
    },
    /// Tell what happened in a release, from its start: steps, decisions with their numbers, who agreed, incidents
    Report(FlagArgs),
}

/// Which release.
#[derive(Debug, Args)]
pub struct FlagArgs {
    /// Key of the flag
    flag: String,
    /// Environment
    #[arg(long, short, env = "GUIDON_ENVIRONMENT")]
    environment: String,
}

/// Which release, and why.
#[derive(Debug, Args)]
pub struct ReasonArgs {
    #[command(flatten)]
    at: FlagArgs,
    /// Why, for the report
    #[arg(long, default_value = "")]
    reason: String,
    #[command(flatten)]
    options: ChangeOptions,
}

/// Which release to show, and how often.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Key of the flag; left out: all releases under way, or with --watch the only one
    flag: Option<String>,
    /// Environment
    #[arg(long, short, env = "GUIDON_ENVIRONMENT")]
    environment: String,
    /// Follow it until it is over, second by second: in place on a terminal, else a line for every change. Exit code 0 if it
    /// completes, 11 if it is taken back or aborted
    #[arg(long, short)]
    watch: bool,
}

/// Runs one of the commands.
pub fn run(
    command: ReleaseCommand,
    api: impl FnOnce() -> Result<Api, CliError>,
    output: &Output,
) -> Result<(), CliError> {
    if let ReleaseCommand::Plan(args) = &command {
        // It asks no server.
        return plan::print(args, output);
    }
    let api = &api()?;
    let send = |at: &FlagArgs, options: &ChangeOptions, mut instruction: Value| {
        instruction["flag"] = json!(at.flag);
        submit(api, output, Some(&at.environment), options, vec![instruction])
    };
    match command {
        ReleaseCommand::Start(args) => plan::start(&args, api, output),
        ReleaseCommand::Plan(_) => Ok(()),
        ReleaseCommand::Status(args) => status(args, api, output),
        ReleaseCommand::List { environment, state } => list(&environment, state, api, output),
        ReleaseCommand::Advance { at, to, options } => {
            let mut instruction = json!({"kind": "advanceRelease"});
            if let Some(to) = to {
                instruction["to"] = json!(to - 1);
            }
            send(&at, &options, instruction)
        }
        ReleaseCommand::Pause(ReasonArgs { at, reason, options }) => {
            send(&at, &options, json!({"kind": "pauseRelease", "reason": reason}))
        }
        ReleaseCommand::Resume { at, options } => send(&at, &options, json!({"kind": "resumeRelease"})),
        ReleaseCommand::Abort(ReasonArgs { at, reason, options }) => {
            send(&at, &options, json!({"kind": "abortRelease", "reason": reason}))
        }
        ReleaseCommand::Restart { at, options } => send(&at, &options, json!({"kind": "restartRelease"})),
        ReleaseCommand::Report(at) => {
            let path = path(api, &at.environment, &at.flag, "/report");
            let found = api.get(&path, &[])?;
            output.either(&found, |output| report::lines(&found).iter().try_for_each(|line| output.line(line)))
        }
    }
}

fn path(api: &Api, environment: &str, flag: &str, rest: &str) -> String {
    api.in_environment(environment, &format!("/flags/{}/release{rest}", encode(flag)))
}

fn releases(environment: &str, state: Option<String>, api: &Api) -> Result<Vec<Value>, CliError> {
    let query: Vec<(&str, String)> = state.map(|state| ("state", state)).into_iter().collect();
    api.get_all(&api.in_environment(environment, "/releases"), "releases", &query)
}

fn status(args: StatusArgs, api: &Api, output: &Output) -> Result<(), CliError> {
    let StatusArgs { flag, environment, watch } = args;
    let Some(flag) = flag else {
        if !watch {
            return list(&environment, Some("active".to_owned()), api, output);
        }
        let active = releases(&environment, Some("active".to_owned()), api)?;
        let flags: Vec<String> = active.iter().map(|release| text(&release["flag"])).collect();
        return match flags.as_slice() {
            [flag] => watch::follow(flag, &environment, api, output),
            [] => Err(CliError::Usage(format!(
                "no release is under way in {environment}\n  `guidon release start FLAG -e {environment}` starts one."
            ))),
            several => Err(CliError::Usage(format!("several are under way; name one: {}", several.join(", ")))),
        };
    };
    if watch {
        return watch::follow(&flag, &environment, api, output);
    }
    let release = api.get(&path(api, &environment, &flag, ""), &[])?;
    output.either(&release, |output| board::lines(&release).iter().try_for_each(|line| output.line(line)))
}

fn list(environment: &str, state: Option<String>, api: &Api, output: &Output) -> Result<(), CliError> {
    let releases = releases(environment, state, api)?;
    output.either(&releases, |output| {
        let rows = releases.iter().map(|release| {
            vec![
                text(&release["flag"]),
                board::kind(release).to_owned(),
                board::state(release),
                board::step_of(release),
                board::share(&board::step(release)["share"]),
                short_time(&release["startedAt"]),
                board::standing(release),
            ]
        });
        let empty = format!("No releases. `guidon release start FLAG -e {environment}` starts one.");
        output.table(&["flag", "kind", "state", "step", "share", "started", "why"], rows.collect(), &empty)
    })
}
