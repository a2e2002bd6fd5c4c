//! `guidon role …`

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::api::encode;
use super::change::print_outcome;
use super::environment::TierName;
use super::output::Output;
use super::show::{short_time, text};
use super::{Api, CliError};

const PATH: &str = "/api/v1/roles";

/// Commands about roles.
#[derive(Debug, Subcommand)]
pub enum RoleCommand {
    /// Give a person or a group a role
    Grant(GrantArgs),
    /// Take a role away
    Revoke {
        /// Id of the role given, as `guidon role list` shows it
        id: String,
    },
    /// List roles given
    List {
        /// Only those of this person: account name or id
        #[arg(long)]
        principal: Option<String>,
        /// Only those of this group
        #[arg(long)]
        group: Option<String>,
        /// Only this role
        #[arg(long, value_enum)]
        role: Option<RoleName>,
        /// Only those that hold in this project
        #[arg(long = "in", value_name = "PROJECT")]
        project: Option<String>,
    },
}

/// Who gets which role where.
#[derive(Args, Debug)]
pub struct GrantArgs {
    /// The role
    #[arg(value_enum)]
    role: RoleName,
    /// The person: account name or id
    #[arg(long = "to", value_name = "NAME", required_unless_present = "group", conflicts_with = "group")]
    principal: Option<String>,
    /// Or everyone in a group of the OpenID provider
    #[arg(long)]
    group: Option<String>,
    /// Only in this project [default: in all]
    #[arg(long = "in", value_name = "PROJECT")]
    project: Option<String>,
    /// Only in this tier; may be repeated [default: in all]
    #[arg(long = "tier", value_enum)]
    tiers: Vec<TierName>,
}

/// What a person may do.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum RoleName {
    /// Reads configuration
    Viewer,
    /// Edits below staging, proposes above
    Developer,
    /// Edits staging, applies approved changes, stops what goes wrong in production
    ReleaseManager,
    /// Approves and rejects change requests
    Approver,
    /// Says who may do what
    Administrator,
    /// Reads everything, the audit trail included
    Auditor,
    /// Reads assignment logs and results
    Experimenter,
}

impl RoleName {
    /// The word of the API.
    pub fn word(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Developer => "developer",
            Self::ReleaseManager => "releaseManager",
            Self::Approver => "approver",
            Self::Administrator => "administrator",
            Self::Auditor => "auditor",
            Self::Experimenter => "experimenter",
        }
    }
}

/// Runs one of the commands.
pub fn run(command: RoleCommand, api: &Api, output: &Output) -> Result<(), CliError> {
    match command {
        RoleCommand::Grant(GrantArgs { role, principal, group, project, tiers }) => {
            let mut body =
                json!({"role": role.word(), "tiers": tiers.iter().map(|tier| tier.word()).collect::<Vec<_>>()});
            for (field, value) in [("principal", principal), ("group", group), ("project", project)] {
                if let Some(value) = value {
                    body[field] = json!(value);
                }
            }
            let made = api.post(PATH, &body)?;
            output.either(&made, |output| {
                output.line(format!(
                    "{} is {} {} ({}).",
                    who(&made),
                    text(&made["role"]),
                    place(&made),
                    text(&made["id"])
                ))
            })
        }
        RoleCommand::Revoke { id } => print_outcome(&api.delete(&format!("{PATH}/{}", encode(&id)))?, output),
        RoleCommand::List { principal, group, role, project } => {
            let role = role.map(|role| role.word().to_owned());
            let filters = [("principal", principal), ("group", group), ("role", role), ("project", project)];
            let query: Vec<_> = filters.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
            let roles = api.get_all(PATH, "roles", &query)?;
            output.either(&roles, |output| {
                let rows = roles.iter().map(|given| {
                    vec![
                        text(&given["id"]),
                        who(given),
                        text(&given["role"]),
                        place(given),
                        short_time(&given["createdAt"]),
                    ]
                });
                output.table(&["id", "who", "role", "where", "since"], rows.collect(), "No roles.")
            })
        }
    }
}

fn who(given: &Value) -> String {
    match (&given["principalName"], &given["principal"], &given["group"]) {
        (Value::String(name), ..) => name.clone(),
        (_, Value::String(id), _) => id.clone(),
        (.., group) => format!("group {}", text(group)),
    }
}

fn place(given: &Value) -> String {
    let tiers: Vec<String> = given["tiers"].as_array().into_iter().flatten().map(text).collect();
    let project = match &given["project"] {
        Value::String(key) => format!("in {key}"),
        _ => "everywhere".to_owned(),
    };
    if tiers.is_empty() { project } else { format!("{project}, {}", tiers.join(" and ")) }
}
