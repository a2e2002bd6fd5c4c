//! `guidon token …`

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::api::encode;
use super::change::{print_outcome, read_text};
use super::output::Output;
use super::show::{short_time, text};
use super::{Api, CliError};
use crate::clock::{Clock, SystemClock};

const PATH: &str = "/api/v1/tokens";
const DAY_MS: i64 = 24 * 60 * 60 * 1_000;

/// Commands about tokens.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Create a token of a service account or an AI agent; it is shown once
    Create(CreateArgs),
    /// List tokens; those that end within 7 days are marked with `!`
    List {
        /// Only those of this service account or AI agent: id or name
        #[arg(long)]
        principal: Option<String>,
        /// Only those in this state
        #[arg(long, value_parser = ["live", "rotated", "expired", "revoked"])]
        state: Option<String>,
        /// Only those that end within 7 days
        #[arg(long)]
        expires_soon: bool,
    },
    /// Replace a token by a new one; the old one lives on for a while
    Rotate {
        /// Id of the token
        id: String,
        /// How long the old one lives on: 24h, 30m; 0 ends it at once
        #[arg(long, value_name = "TIME", value_parser = minutes, default_value = "24h")]
        overlap: u64,
        /// How long the new one lives [default: as long as the old one was made to]
        #[arg(long, value_name = "TIME", value_parser = minutes)]
        expires_in: Option<u64>,
        /// Print nothing but the credential
        #[arg(long, conflicts_with = "json")]
        quiet: bool,
    },
    /// Revoke a token, at once
    Revoke {
        /// Id of the token
        id: String,
    },
    /// Exchange a signed identity token, such as a CI job's, for a token that lives for minutes; needs no credential
    Exchange {
        /// File that holds the identity token, `-` for standard input [default: the variable GUIDON_ID_TOKEN]
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
        /// Which trust, by its id or the issuer's URL; needed where several take the token
        #[arg(long)]
        issuer: Option<String>,
        /// Print nothing but the credential, for `export GUIDON_TOKEN=$(…)`
        #[arg(long, conflicts_with = "json")]
        quiet: bool,
    },
}

/// A new token.
#[derive(Args, Debug)]
pub struct CreateArgs {
    /// Whose it is: id or name of a service account or an AI agent
    principal: String,
    /// Name for people
    #[arg(long, default_value = "")]
    name: String,
    #[command(flatten)]
    scope: ScopeArgs,
    /// How long it lives: 90d, 12h, 30m
    #[arg(long, value_name = "TIME", value_parser = minutes, default_value = "90d")]
    expires_in: u64,
    /// Print nothing but the credential, for `export GUIDON_TOKEN=$(…)`
    #[arg(long, conflicts_with = "json")]
    quiet: bool,
}

/// What a token is good for.
#[derive(Args, Debug)]
pub struct ScopeArgs {
    /// An action, as turnFlagOff, or a group of them: read, edit, delete, request, …; may be repeated [default for AI agents:
    /// read, edit, delete, request]
    #[arg(long = "allow", value_name = "ACTION", value_delimiter = ',')]
    actions: Vec<String>,
    /// Only this environment; may be repeated [default: all, as the policies allow]
    #[arg(long = "environment", short, value_name = "KEY", value_delimiter = ',')]
    environments: Vec<String>,
    /// Only this flag
    #[arg(long, value_name = "KEY")]
    flag: Option<String>,
    /// In all projects, not only in the one of --project
    #[arg(long, conflicts_with_all = ["environments", "flag"])]
    all_projects: bool,
}

impl ScopeArgs {
    /// The scope as the API takes it.
    pub fn scope(&self, api: &Api) -> Value {
        let mut scope = json!({});
        if !self.all_projects {
            scope["project"] = json!(api.project());
        }
        if !self.actions.is_empty() {
            scope["actions"] = json!(self.actions);
        }
        if !self.environments.is_empty() {
            scope["environments"] = json!(self.environments);
        }
        if let Some(flag) = &self.flag {
            scope["flag"] = json!(flag);
        }
        scope
    }
}

/// Runs one of the commands, but [`TokenCommand::Exchange`], which needs no credential.
pub fn run(
    command: TokenCommand,
    api: impl Fn() -> Result<Api, CliError>,
    stranger: impl Fn() -> Result<Api, CliError>,
    output: &Output,
) -> Result<(), CliError> {
    match command {
        TokenCommand::Create(CreateArgs { principal, name, scope, expires_in, quiet }) => {
            let api = api()?;
            let scope = scope.scope(&api);
            let body = json!({"principal": principal, "name": name, "scope": scope, "expiresInMinutes": expires_in});
            show_created(&api.post(PATH, &body)?, quiet, output)
        }
        TokenCommand::List { principal, state, expires_soon } => {
            let soon = expires_soon.then(|| "true".to_owned());
            let filters = [("principal", principal), ("state", state), ("expiresSoon", soon)];
            let query: Vec<_> = filters.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
            let tokens = api()?.get_all(PATH, "tokens", &query)?;
            output.either(&tokens, |output| list(&tokens, output))
        }
        TokenCommand::Rotate { id, overlap, expires_in, quiet } => {
            let mut body = json!({ "overlapMinutes": overlap });
            if let Some(minutes) = expires_in {
                body["expiresInMinutes"] = json!(minutes);
            }
            let made = api()?.post(&format!("{PATH}/{}/rotate", encode(&id)), &body)?;
            show_created(&made, quiet, output)
        }
        TokenCommand::Revoke { id } => print_outcome(&api()?.delete(&format!("{PATH}/{}", encode(&id)))?, output),
        TokenCommand::Exchange { file, issuer, quiet } => {
            let token = match file {
                Some(path) => read_text(&path)?,
                None => std::env::var("GUIDON_ID_TOKEN").map_err(|_| {
                    CliError::Usage("no identity token: set GUIDON_ID_TOKEN, or name a file with --file".to_owned())
                })?,
            };
            let mut body = json!({ "token": token.trim() });
            if let Some(issuer) = issuer {
                body["issuer"] = json!(issuer);
            }
            show_created(&stranger()?.post("/api/v1/token-exchange", &body)?, quiet, output)
        }
    }
}

fn show_created(made: &Value, quiet: bool, output: &Output) -> Result<(), CliError> {
    if quiet {
        return output.line(text(&made["token"]));
    }
    output.either(made, |output| {
        output.line(text(&made["token"]))?;
        let (id, end) = (text(&made["id"]), short_time(&made["expiresAt"]));
        output.line(format!(
            "  id {id}, of {}, until {end}: {}",
            text(&made["principal"]),
            scope_words(&made["scope"])
        ))?;
        if !made["replaces"].is_null() {
            output.line(format!("  {} goes on until {}", text(&made["replaces"]), short_time(&made["oldEndsAt"])))?;
        }
        output.line("  Keep it: it is not stored and cannot be shown again.")
    })
}

fn list(tokens: &[Value], output: &Output) -> Result<(), CliError> {
    let now = i64::try_from(SystemClock.now_ms()).unwrap_or(i64::MAX);
    let rows = tokens.iter().map(|token| {
        let owner = if token["principalName"].is_null() { &token["principal"] } else { &token["principalName"] };
        vec![
            text(&token["id"]),
            text(owner),
            text(&token["state"]),
            end(token, now),
            short_time(&token["lastUsedAt"]),
            scope_words(&token["scope"]),
            text(&token["name"]),
        ]
    });
    let headers = ["id", "of", "state", "expires", "last used", "good for", "name"];
    output.table(&headers, rows.collect(), "No tokens. `guidon token create` makes one.")
}

/// When a token ends, marked if that is soon.
fn end(token: &Value, now: i64) -> String {
    let end = short_time(&token["expiresAt"]);
    if token["expiresSoon"] != true {
        return end;
    }
    let left = token["expiresAt"].as_i64().unwrap_or_default() - now;
    match left / DAY_MS {
        0 => format!("{end} ! within a day"),
        1 => format!("{end} ! in 1 day"),
        days => format!("{end} ! in {days} days"),
    }
}

/// A scope in words: `read, edit in shop: staging, flag engine`.
pub fn scope_words(scope: &Value) -> String {
    let words = |field: &str| scope[field].as_array().into_iter().flatten().map(text).collect::<Vec<_>>().join(", ");
    let mut shown = words("actions");
    match &scope["project"] {
        Value::String(project) => shown.push_str(&format!(" in {project}")),
        _ => shown.push_str(" in all projects"),
    }
    let environments = words("environments");
    if !environments.is_empty() {
        shown.push_str(&format!(": {environments}"));
    }
    if let Value::String(flag) = &scope["flag"] {
        shown.push_str(&format!(", flag {flag}"));
    }
    shown
}

/// Minutes in a time like `90d`, `12h`, `30m` or `0`.
pub fn minutes(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no time like 90d, 12h or 30m");
    let (number, unit) = match text.char_indices().last() {
        Some((at, 'd')) => (&text[..at], 24 * 60),
        Some((at, 'h')) => (&text[..at], 60),
        Some((at, 'm')) => (&text[..at], 1),
        Some(_) if text == "0" => (text, 1),
        _ => return Err(wrong()),
    };
    number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit)).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit() {
        assert_eq!(
            (minutes("90d"), minutes("12h"), minutes("30m"), minutes("0")),
            (Ok(129_600), Ok(720), Ok(30), Ok(0))
        );
        for wrong in ["", "d", "90", "-1d", "1.5h", "90ä", "99999999999999999999d"] {
            assert!(minutes(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_scope_is_told_in_words() {
        let scope =
            json!({"project": "shop", "environments": ["staging"], "actions": ["read", "edit"], "flag": "engine"});
        assert_eq!(scope_words(&scope), "read, edit in shop: staging, flag engine");
        assert_eq!(scope_words(&json!({"actions": ["read"]})), "read in all projects");
    }
}
