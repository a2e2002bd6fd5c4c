//! `guidon incident …`

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::api::encode;
use super::change::{ChangeOptions, submit};
use super::output::Output;
use super::release::{incident_evidence, incident_lines};
use super::show::{short_time, text};
use super::{Api, CliError};

/// Commands about incidents.
#[derive(Debug, Subcommand)]
pub enum IncidentCommand {
    /// List incidents, newest first: those that are open, unless you ask for all
    List {
        /// Environment
        #[arg(long, short, env = "GUIDON_ENVIRONMENT")]
        environment: String,
        /// Only those of this flag
        #[arg(long)]
        flag: Option<String>,
        /// Those that are closed too
        #[arg(long)]
        all: bool,
    },
    /// Show an incident: what the server did, on which numbers, and what was found
    Show(IdArgs),
    /// Close an incident with what you found; then the flag may be released again
    Close {
        #[command(flatten)]
        at: IdArgs,
        /// What you found: what was it, and what was done about it?
        #[arg(long, value_name = "TEXT")]
        finding: String,
        #[command(flatten)]
        options: ChangeOptions,
    },
}

/// Which incident.
#[derive(Debug, Args)]
pub struct IdArgs {
    /// Id of the incident
    id: String,
    /// Environment
    #[arg(long, short, env = "GUIDON_ENVIRONMENT")]
    environment: String,
}

/// Runs one of the commands.
pub fn run(command: IncidentCommand, api: &Api, output: &Output) -> Result<(), CliError> {
    match command {
        IncidentCommand::List { environment, flag, all } => list(&environment, flag, all, api, output),
        IncidentCommand::Show(at) => {
            let incident = find(&at, api)?;
            output.either(&incident, |output| {
                let lines = incident_lines(&incident).into_iter().chain(incident_evidence(&incident));
                lines.into_iter().try_for_each(|line| output.line(line))
            })
        }
        IncidentCommand::Close { at, finding, options } => {
            // The instruction names the flag as well: it is judged, and conflicts, as what it lets be released again.
            let flag = find(&at, api)?["flag"].clone();
            let close = json!({"kind": "closeIncident", "flag": flag, "incident": at.id, "finding": finding});
            submit(api, output, Some(&at.environment), &options, vec![close])
        }
    }
}

fn find(at: &IdArgs, api: &Api) -> Result<Value, CliError> {
    api.get(&api.in_environment(&at.environment, &format!("/incidents/{}", encode(&at.id))), &[])
}

fn list(environment: &str, flag: Option<String>, all: bool, api: &Api, output: &Output) -> Result<(), CliError> {
    let mut query: Vec<(&str, String)> = flag.map(|flag| ("flag", flag)).into_iter().collect();
    if !all {
        query.push(("open", "true".to_owned()));
    }
    let incidents = api.get_all(&api.in_environment(environment, "/incidents"), "incidents", &query)?;
    output.either(&incidents, |output| {
        let rows = incidents.iter().map(|incident| {
            let state = if incident["finding"].is_object() { "closed" } else { "open" };
            vec![
                text(&incident["id"]),
                text(&incident["flag"]),
                state.to_owned(),
                short_time(&incident["openedAt"]),
                text(&incident["summary"]),
            ]
        });
        let empty = if all { "No incidents." } else { "No open incidents. `--all` lists those that are closed too." };
        output.table(&["incident", "flag", "state", "opened", "what happened"], rows.collect(), empty)
    })
}
