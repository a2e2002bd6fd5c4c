//! `guidon role …`

use clap::builder::PossibleValue;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::api::encode;
use super::change::print_outcome;
use super::environment::TierName;
use super::output::Output;
use super::show::{short_time, text};
use super::{Api, CliError};
use crate::policy::Role;

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
        role: Option<Role>,
        /// Only those that hold in this project
        #[arg(long = "in", value_name = "PROJECT")]
        in_project: Option<String>,
    },
}

/// Who gets which role where.
#[derive(Args, Debug)]
pub struct GrantArgs {
    /// The role
    #[arg(value_enum)]
    role: Role,
    /// The person: account name or id
    #[arg(long = "to", value_name = "NAME", required_unless_present = "group", conflicts_with = "group")]
    principal: Option<String>,
    /// Or everyone in a group of the OpenID provider
    #[arg(long)]
    group: Option<String>,
    /// Only in this project [default: in all]
    #[arg(long = "in", value_name = "PROJECT")]
    in_project: Option<String>,
    /// Only in this tier; may be repeated [default: in all]
    #[arg(long = "tier", value_enum)]
    tiers: Vec<TierName>,
}

/// Runs one of the commands.
pub fn run(command: RoleCommand, api: &Api, output: &Output) -> Result<(), CliError> {
    match command {
        RoleCommand::Grant(GrantArgs { role, principal, group, in_project, tiers }) => {
            let mut body =
                json!({"role": role.as_str(), "tiers": tiers.iter().map(|tier| tier.word()).collect::<Vec<_>>()});
            for (field, value) in [("principal", principal), ("group", group), ("project", in_project)] {
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
        RoleCommand::List { principal, group, role, in_project } => {
            let role = role.map(|role| role.as_str().to_owned());
            let filters = [("principal", principal), ("group", group), ("role", role), ("project", in_project)];
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

impl ValueEnum for Role {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let (name, help) = match self {
            Self::Viewer => ("viewer", "Reads configuration"),
            Self::Developer => ("developer", "Edits below staging, proposes above"),
            Self::ReleaseManager => {
                ("release-manager", "Edits staging, applies approved changes, stops what goes wrong in production")
            }
            Self::Approver => ("approver", "Approves and rejects change requests"),
            Self::Administrator => ("administrator", "Says who may do what"),
            Self::Auditor => ("auditor", "Reads everything, the audit trail included"),
            Self::Experimenter => ("experimenter", "Reads assignment logs and results"),
        };
        Some(PossibleValue::new(name).help(help))
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
