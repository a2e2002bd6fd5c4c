//! `guidon issuer …`

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use serde_json::json;

use super::api::encode;
use super::change::print_outcome;
use super::output::Output;
use super::show::text;
use super::token::{ScopeArgs, minutes, scope_words};
use super::{Api, CliError};

const PATH: &str = "/api/v1/issuers";

/// Commands about issuers whose identity tokens buy tokens.
#[derive(Debug, Subcommand)]
pub enum IssuerCommand {
    /// Let identity tokens of an issuer, with these claims, buy tokens of a service account
    Trust(TrustArgs),
    /// List trusted issuers
    List,
    /// End a trust
    Remove {
        /// Id of the trust
        id: String,
    },
}

/// Whom to trust, and with what.
#[derive(Args, Debug)]
pub struct TrustArgs {
    /// URL of the issuer, as its tokens have it in `iss`
    issuer: String,
    /// The service account whose tokens are bought: id or name
    #[arg(long, value_name = "ACCOUNT")]
    service_account: String,
    /// What `aud` of the identity tokens has to hold
    #[arg(long)]
    audience: String,
    /// A claim that the identity token must have; `*` at the end stands for anything; may be repeated
    #[arg(long = "claim", value_name = "NAME=VALUE", value_parser = claim, required = true)]
    claims: Vec<(String, String)>,
    #[command(flatten)]
    scope: ScopeArgs,
    /// How long a bought token lives: 15m, at most 1h
    #[arg(long, value_name = "TIME", value_parser = minutes, default_value = "15m")]
    lifetime: u64,
}

fn claim(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("a claim is NAME=VALUE, as repository=acme/shop")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Runs one of the commands.
pub fn run(command: IssuerCommand, api: &Api, output: &Output) -> Result<(), CliError> {
    match command {
        IssuerCommand::Trust(args) => {
            let claims: BTreeMap<String, String> = args.claims.iter().cloned().collect();
            let body = json!({
                "issuer": args.issuer,
                "audience": args.audience,
                "claims": claims,
                "principal": args.service_account,
                "scope": args.scope.scope(api),
                "lifetimeS": args.lifetime.saturating_mul(60),
            });
            let made = api.post(PATH, &body)?;
            output.either(&made, |output| {
                output.line(format!("Trust {}: {}", text(&made["id"]), scope_words(&made["scope"])))?;
                output.line(format!("  In the job: guidon token exchange --issuer {}", text(&made["id"])))
            })
        }
        IssuerCommand::List => {
            let issuers = api.get_all(PATH, "issuers", &[])?;
            output.either(&issuers, |output| {
                let rows = issuers.iter().map(|trust| {
                    let claims = trust["claims"].as_object().into_iter().flatten();
                    let claims: Vec<String> = claims.map(|(name, value)| format!("{name}={}", text(value))).collect();
                    let minutes = trust["lifetimeS"].as_u64().unwrap_or_default() / 60;
                    vec![
                        text(&trust["id"]),
                        text(&trust["issuer"]),
                        text(&trust["audience"]),
                        claims.join(" "),
                        text(&trust["principalName"]),
                        scope_words(&trust["scope"]),
                        format!("{minutes}m"),
                    ]
                });
                let headers = ["id", "issuer", "audience", "claims", "buys tokens of", "good for", "for"];
                output.table(&headers, rows.collect(), "No issuer is trusted. `guidon issuer trust` names one.")
            })
        }
        IssuerCommand::Remove { id } => print_outcome(&api.delete(&format!("{PATH}/{}", encode(&id)))?, output),
    }
}
