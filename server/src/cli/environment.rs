//! `guidon project …`, `guidon env …` and `guidon sdk-key …`

use clap::{Subcommand, ValueEnum};
use serde_json::json;

use super::api::encode;
use super::change::{ChangeOptions, print_outcome, submit};
use super::output::Output;
use super::show::{short_time, text};
use super::token::minutes;
use super::{Api, CliError};

/// Commands about projects.
#[derive(Debug, Subcommand)]
pub enum ProjectCommand {
    /// List projects
    List,
    /// Create a project, with an environment in each tier
    Create {
        /// Key of the project
        key: String,
        /// Name for people
        #[arg(long, default_value = "")]
        name: String,
    },
}

/// Commands about environments.
#[derive(Debug, Subcommand)]
pub enum EnvCommand {
    /// List environments
    List,
    /// Create an environment
    Create {
        /// Key of the environment
        key: String,
        /// Tier it belongs to
        #[arg(long, value_enum)]
        tier: TierName,
        /// Name for people
        #[arg(long, default_value = "")]
        name: String,
        #[command(flatten)]
        change: ChangeOptions,
    },
    /// Delete an environment in which no flag is on and no SDK key is live
    Delete {
        /// Key of the environment
        key: String,
        #[command(flatten)]
        change: ChangeOptions,
    },
}

/// How close to real users an environment is.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum TierName {
    /// Where code is written
    Development,
    /// Where it is tested
    Testing,
    /// Where it is rehearsed
    Staging,
    /// Where it serves real users
    Production,
}

impl TierName {
    /// The word of the API.
    pub fn word(self) -> &'static str {
        match self {
            Self::Development => "development",
            Self::Testing => "testing",
            Self::Staging => "staging",
            Self::Production => "production",
        }
    }
}

/// Commands about SDK keys.
#[derive(Debug, Subcommand)]
pub enum SdkKeyCommand {
    /// Create an SDK key; it is shown once
    Create {
        /// Environment
        #[arg(long, short, env = "GUIDON_ENVIRONMENT", default_value = "development")]
        environment: String,
        /// Name for people
        #[arg(long, default_value = "")]
        name: String,
        /// For browsers and devices: sees only flags marked for clients
        #[arg(long)]
        client: bool,
        /// Print nothing but the key, for `export GUIDON_SDK_KEY=$(…)`
        #[arg(long, conflicts_with = "json")]
        quiet: bool,
    },
    /// List SDK keys
    List {
        /// Environment
        #[arg(long, short, env = "GUIDON_ENVIRONMENT", default_value = "development")]
        environment: String,
    },
    /// Replace an SDK key by a new one; the old one lives on for a while
    Rotate {
        /// Id of the key
        id: String,
        /// Environment
        #[arg(long, short, env = "GUIDON_ENVIRONMENT", default_value = "development")]
        environment: String,
        /// How long the old one lives on: 24h, 30m; 0 ends it at once
        #[arg(long, value_name = "TIME", value_parser = minutes, default_value = "24h")]
        overlap: u64,
        /// Print nothing but the key
        #[arg(long, conflicts_with = "json")]
        quiet: bool,
    },
    /// Revoke an SDK key: its streams close at once
    Revoke {
        /// Id of the key
        id: String,
        /// Environment
        #[arg(long, short, env = "GUIDON_ENVIRONMENT", default_value = "development")]
        environment: String,
    },
}

/// Runs a command about projects.
pub fn run_project(command: ProjectCommand, api: &Api, output: &Output) -> Result<(), CliError> {
    match command {
        ProjectCommand::List => {
            let projects = api.get_all("/api/v1/projects", "projects", &[])?;
            output.either(&projects, |output| {
                let rows = projects.iter().map(|project| {
                    vec![text(&project["key"]), short_time(&project["createdAt"]), text(&project["name"])]
                });
                output.table(&["project", "created", "name"], rows.collect(), "No projects.")
            })
        }
        ProjectCommand::Create { key, name } => {
            let outcome = api.post("/api/v1/projects", &json!({"key": key, "name": name}))?;
            print_outcome(&outcome, output)
        }
    }
}

/// Runs a command about environments.
pub fn run_env(command: EnvCommand, api: &Api, output: &Output) -> Result<(), CliError> {
    match command {
        EnvCommand::List => {
            let environments = api.get_all(&api.in_project("/environments"), "environments", &[])?;
            output.either(&environments, |output| {
                let rows = environments.iter().map(|environment| {
                    ["key", "tier", "name"].iter().map(|field| text(&environment[*field])).collect()
                });
                output.table(&["environment", "tier", "name"], rows.collect(), "No environments.")
            })
        }
        EnvCommand::Create { key, tier, name, change } => {
            let tier = tier.to_possible_value().map(|value| value.get_name().to_owned());
            let instruction = json!({"kind": "createEnvironment", "key": key, "name": name, "tier": tier});
            submit(api, output, None, &change, vec![instruction])
        }
        EnvCommand::Delete { key, change } => {
            submit(api, output, None, &change, vec![json!({"kind": "deleteEnvironment", "key": key})])
        }
    }
}

/// Runs a command about SDK keys.
pub fn run_sdk_key(command: SdkKeyCommand, api: &Api, output: &Output) -> Result<(), CliError> {
    match command {
        SdkKeyCommand::Create { environment, name, client, quiet } => {
            let audience = if client { "client" } else { "server" };
            let path = api.in_environment(&environment, "/sdk-keys");
            let key = api.post(&path, &json!({"name": name, "audience": audience}))?;
            if quiet {
                return output.line(text(&key["key"]));
            }
            output.either(&key, |output| {
                output.line(text(&key["key"]))?;
                output.line(format!("  id {}, for {audience} SDKs in {environment}", text(&key["id"])))?;
                output.line("  Keep it: it is not stored and cannot be shown again.")
            })
        }
        SdkKeyCommand::List { environment } => {
            let keys = api.get_all(&api.in_environment(&environment, "/sdk-keys"), "sdkKeys", &[])?;
            output.either(&keys, |output| {
                let rows = keys.iter().map(|key| {
                    let state = match key["state"].as_str() {
                        Some("revoked") => format!("revoked {}", short_time(&key["revokedAt"])),
                        Some("rotated") => format!("rotated, until {}", short_time(&key["expiresAt"])),
                        _ => text(&key["state"]),
                    };
                    vec![
                        text(&key["id"]),
                        text(&key["audience"]),
                        state,
                        short_time(&key["createdAt"]),
                        short_time(&key["lastUsedAt"]),
                        text(&key["name"]),
                    ]
                });
                let empty = "No SDK keys here. `guidon sdk-key create` makes one.";
                output.table(&["id", "audience", "state", "created", "last used", "name"], rows.collect(), empty)
            })
        }
        SdkKeyCommand::Rotate { id, environment, overlap, quiet } => {
            let path = api.in_environment(&environment, &format!("/sdk-keys/{}/rotate", encode(&id)));
            let key = api.post(&path, &json!({ "overlapMinutes": overlap }))?;
            if quiet {
                return output.line(text(&key["key"]));
            }
            output.either(&key, |output| {
                output.line(text(&key["key"]))?;
                output.line(format!("  id {}, in {environment}", text(&key["id"])))?;
                output.line(format!("  {id} goes on until {}", short_time(&key["oldEndsAt"])))?;
                output.line("  Keep it: it is not stored and cannot be shown again.")
            })
        }
        SdkKeyCommand::Revoke { id, environment } => {
            let outcome = api.delete(&api.in_environment(&environment, &format!("/sdk-keys/{}", encode(&id))))?;
            print_outcome(&outcome, output)
        }
    }
}
