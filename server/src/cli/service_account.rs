//! `guidon service-account …`

use clap::Subcommand;
use serde_json::json;

use super::api::encode;
use super::change::print_outcome;
use super::output::Output;
use super::show::{short_time, text};
use super::{Api, CliError};

const PATH: &str = "/api/v1/service-accounts";

/// Commands about service accounts.
#[derive(Debug, Subcommand)]
pub enum ServiceAccountCommand {
    /// Create a service account: a program of yours, such as a deployment pipeline
    Create {
        /// Name for people
        name: String,
    },
    /// List service accounts
    List,
    /// Rename a service account
    Rename {
        /// Id or name
        account: String,
        /// New name
        name: String,
    },
    /// Shut a service account out at once
    Disable {
        /// Id or name
        account: String,
    },
    /// Let a service account in again
    Enable {
        /// Id or name
        account: String,
    },
}

/// Runs one of the commands.
pub fn run(command: ServiceAccountCommand, api: &Api, output: &Output) -> Result<(), CliError> {
    match command {
        ServiceAccountCommand::Create { name } => {
            let made = api.post(PATH, &json!({ "name": name }))?;
            output.either(&made, |output| {
                output.line(format!("Service account {} (\"{name}\").", text(&made["id"])))?;
                output.line(format!("  guidon token create {} --allow read --environment staging", text(&made["id"])))
            })
        }
        ServiceAccountCommand::List => {
            let accounts = api.get_all(PATH, "serviceAccounts", &[])?;
            output.either(&accounts, |output| {
                let rows = accounts.iter().map(|account| {
                    vec![
                        text(&account["id"]),
                        text(&account["state"]),
                        short_time(&account["createdAt"]),
                        text(&account["name"]),
                    ]
                });
                let empty = "No service accounts. `guidon service-account create` makes one.";
                output.table(&["id", "state", "created", "name"], rows.collect(), empty)
            })
        }
        ServiceAccountCommand::Rename { account, name } => {
            let id = api.id_of(PATH, "serviceAccounts", &account)?;
            let outcome = api.patch(&format!("{PATH}/{}", encode(&id)), &json!({ "name": name }))?;
            print_outcome(&outcome, output)
        }
        ServiceAccountCommand::Disable { account } => switch(api, output, &account, "disable"),
        ServiceAccountCommand::Enable { account } => switch(api, output, &account, "enable"),
    }
}

fn switch(api: &Api, output: &Output, account: &str, step: &str) -> Result<(), CliError> {
    let id = api.id_of(PATH, "serviceAccounts", account)?;
    let outcome = api.post(&format!("{PATH}/{}/{step}", encode(&id)), &json!(null))?;
    print_outcome(&outcome, output)
}
