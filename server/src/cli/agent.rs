//! `guidon agent …`

use clap::{Args, Subcommand};
use serde_json::json;

use super::api::encode;
use super::change::print_outcome;
use super::output::Output;
use super::show::{short_time, text};
use super::token::minutes;
use super::{Api, CliError};

const PATH: &str = "/api/v1/agents";

/// Commands about AI agents.
#[derive(Debug, Subcommand)]
pub enum AgentCommand {
    /// Register an AI agent; its tokens come from `guidon token create`
    Register(RegisterArgs),
    /// List AI agents
    List,
    /// Renew an AI agent's time
    Renew {
        /// Id or name
        agent: String,
        /// For how long from now: 30d, 12h, 45m; at most 90d
        #[arg(long, value_name = "TIME", value_parser = minutes, default_value = "30d")]
        expires_in: u64,
        /// The model it uses now
        #[arg(long)]
        model: Option<String>,
    },
    /// Shut an AI agent out at once
    Disable {
        /// Id or name
        agent: String,
    },
    /// Let an AI agent in again
    Enable {
        /// Id or name
        agent: String,
    },
}

/// What is known of an AI agent.
#[derive(Args, Debug)]
pub struct RegisterArgs {
    /// Name for people
    name: String,
    /// The tool it is, as claude-code
    #[arg(long)]
    tool: String,
    /// The model it uses
    #[arg(long, default_value = "")]
    model: String,
    /// Who answers for it: account name or id [default: you]
    #[arg(long)]
    owner: Option<String>,
    /// For how long it is let in: 30d, 12h, 45m; at most 90d
    #[arg(long, value_name = "TIME", value_parser = minutes, default_value = "30d")]
    expires_in: u64,
}

/// Runs one of the commands.
pub fn run(command: AgentCommand, api: &Api, output: &Output) -> Result<(), CliError> {
    match command {
        AgentCommand::Register(RegisterArgs { name, tool, model, owner, expires_in }) => {
            let mut body = json!({"name": name, "tool": tool, "model": model, "expiresInMinutes": expires_in});
            if let Some(owner) = owner {
                body["owner"] = json!(owner);
            }
            let made = api.post(PATH, &body)?;
            output.either(&made, |output| {
                let (id, end) = (text(&made["id"]), short_time(&made["expiresAt"]));
                output.line(format!(
                    "AI agent {id} (\"{name}\"), until {end}; {} answers for it.",
                    text(&made["ownerName"])
                ))?;
                output.line(format!("  guidon token create {id}"))
            })
        }
        AgentCommand::List => {
            let agents = api.get_all(PATH, "agents", &[])?;
            output.either(&agents, |output| {
                let rows = agents.iter().map(|agent| {
                    let owner = if agent["ownerName"].is_null() { &agent["owner"] } else { &agent["ownerName"] };
                    vec![
                        text(&agent["id"]),
                        text(&agent["state"]),
                        text(&agent["tool"]),
                        text(&agent["model"]),
                        text(owner),
                        short_time(&agent["expiresAt"]),
                        text(&agent["name"]),
                    ]
                });
                let headers = ["id", "state", "tool", "model", "owner", "expires", "name"];
                output.table(&headers, rows.collect(), "No AI agents. `guidon agent register` makes one known.")
            })
        }
        AgentCommand::Renew { agent, expires_in, model } => {
            let id = api.id_of(PATH, "agents", &agent)?;
            let mut body = json!({ "expiresInMinutes": expires_in });
            if let Some(model) = model {
                body["model"] = json!(model);
            }
            let outcome = api.patch(&format!("{PATH}/{}", encode(&id)), &body)?;
            print_outcome(&outcome, output)
        }
        AgentCommand::Disable { agent } => switch(api, output, &agent, "disable"),
        AgentCommand::Enable { agent } => switch(api, output, &agent, "enable"),
    }
}

fn switch(api: &Api, output: &Output, agent: &str, step: &str) -> Result<(), CliError> {
    let id = api.id_of(PATH, "agents", agent)?;
    let outcome = api.post(&format!("{PATH}/{}/{step}", encode(&id)), &json!(null))?;
    print_outcome(&outcome, output)
}
