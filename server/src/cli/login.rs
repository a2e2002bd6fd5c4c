//! `guidon login`, `logout`, `whoami` and `factor`.

use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};

use super::loopback::{Loopback, Returned};
use super::output::Output;
use super::profile::Target;
use super::session_file::{self, StoredSession};
use super::show::{short_time, text};
use super::{Api, CliError, prompt};
use crate::identity::oidc::{challenge_of, random_text};

/// How long a person may take at the provider.
const PATIENCE: Duration = Duration::from_secs(5 * 60);

/// How to sign in.
#[derive(Debug, Args)]
pub struct LoginArgs {
    /// Name of the account
    name: Option<String>,
    /// At the server's OpenID provider, in a browser
    #[arg(long, conflicts_with = "name")]
    oidc: bool,
    /// Only print where the browser is to go
    #[arg(long, requires = "oidc")]
    no_browser: bool,
}

/// Signs in and keeps the session.
pub fn login(args: &LoginArgs, target: Target, output: &Output) -> Result<(), CliError> {
    let server = target.server.clone();
    let api = Api::without_credential(target)?;
    let session = if args.oidc { at_provider(&api, args.no_browser)? } else { with_password(&api, args)? };
    let (name, expires_at) = (text(&session["name"]), &session["session"]["expiresAt"]);
    let stored = StoredSession {
        credential: text(&session["credential"]),
        name: name.clone(),
        expires_at: expires_at.as_u64().unwrap_or_default(),
    };
    session_file::keep(&server, Some(stored))?;
    let mut shown = session.clone();
    if let Some(fields) = shown.as_object_mut() {
        fields.remove("credential");
    }
    output.either(&shown, |output| {
        output.line(format!("Signed in to {server} as {name}, until {}.", short_time(expires_at)))?;
        if let Some(left) = session["recoveryCodesLeft"].as_u64() {
            output.line(format!("  A recovery code was used up; {left} are left."))?;
        }
        if std::env::var_os("GUIDON_TOKEN").is_some() {
            output.line("  GUIDON_TOKEN is set and goes before this session: unset GUIDON_TOKEN")?;
        }
        Ok(())
    })
}

fn with_password(api: &Api, args: &LoginArgs) -> Result<Value, CliError> {
    let name = args.name.clone().map_or_else(|| prompt::text("Name", "GUIDON_NAME"), Ok)?;
    let password = prompt::secret("Password", "GUIDON_PASSWORD")?;
    let code = prompt::secret("Code", "GUIDON_CODE")?;
    api.post("/api/v1/session", &json!({"name": name, "password": password, "code": code}))
}

fn at_provider(api: &Api, no_browser: bool) -> Result<Value, CliError> {
    let listener = Loopback::open()?;
    let verifier = random_text();
    let challenge = challenge_of(&verifier).ok_or_else(|| CliError::Unexpected("no SHA-256 here".to_owned()))?;
    let begin = json!({"redirectUri": listener.redirect_uri(), "codeChallenge": challenge});
    let begun = api.post("/api/v1/session/oidc", &begin)?;
    let (url, state) = (text(&begun["authorizeUrl"]), text(&begun["state"]));
    // On standard error: what the command answers goes to standard output.
    eprintln!("Sign in at your provider; this page leads there:\n\n  {}\n", super::output::harmless(&url, '\n'));
    if !no_browser && !open_browser(&url) {
        eprintln!("No browser could be opened here: open the page yourself.");
    }
    let Returned { code, answer } = listener.wait(&state, Instant::now() + PATIENCE)?;
    let finish = json!({"state": state, "code": code, "codeVerifier": verifier});
    let session = api.post("/api/v1/session/oidc/finish", &finish);
    answer.send(session.is_ok());
    session
}

/// Whether a program that shows pages could be started. Nothing of a page that is no web page reaches it.
fn open_browser(url: &str) -> bool {
    if !url.starts_with("https://") && !url.starts_with("http://") {
        return false;
    }
    let quiet = std::process::Stdio::null;
    ["xdg-open", "open"].iter().any(|program| {
        let mut command = std::process::Command::new(program);
        command.arg(url).stdin(quiet()).stdout(quiet()).stderr(quiet()).spawn().is_ok()
    })
}

/// Ends the session and forgets it.
pub fn logout(mut target: Target, output: &Output) -> Result<(), CliError> {
    let server = target.server.clone();
    let Some(session) = session_file::find(&server)? else {
        session_file::keep(&server, None)?;
        return output.either(&json!({"ended": false}), |output| output.line(format!("Not signed in to {server}.")));
    };
    target.token = Some(session.credential);
    let ended = Api::new(target)?.delete("/api/v1/session");
    let over = matches!(&ended, Err(CliError::Problem(problem)) if problem.status == 401);
    if ended.is_ok() || over {
        session_file::keep(&server, None)?;
    }
    if !over {
        ended?;
    }
    output.either(&json!({"ended": !over}), |output| output.line(format!("Signed out of {server}.")))
}

/// Shows who the credential is of.
pub fn whoami(api: &Api, output: &Output) -> Result<(), CliError> {
    let me = api.get("/api/v1/session", &[])?;
    output.either(&me, |output| {
        let name = if me["name"].is_null() { text(&me["principal"]) } else { text(&me["name"]) };
        output.line(format!("{name} ({} {})", text(&me["kind"]), text(&me["principal"])))?;
        for role in me["roles"].as_array().into_iter().flatten() {
            output.line(format!("  {}", role_words(role)))?;
        }
        let groups: Vec<String> = me["groups"].as_array().into_iter().flatten().map(text).collect();
        if !groups.is_empty() {
            output.line(format!("  in the groups {}", groups.join(", ")))?;
        }
        if me["session"].is_object() {
            let factor = match &me["session"]["factorAt"] {
                Value::Null => "no second factor was proven here; `guidon factor` proves one".to_owned(),
                at => format!("second factor proven {}", short_time(at)),
            };
            output.line(format!("  session until {}, {factor}", short_time(&me["session"]["expiresAt"])))?;
        }
        Ok(())
    })
}

/// A role given, in words: `developer in shop, staging and production`.
pub fn role_words(role: &Value) -> String {
    let mut words = text(&role["role"]);
    words.push_str(&role["project"].as_str().map_or_else(|| " in all projects".to_owned(), |key| format!(" in {key}")));
    let tiers: Vec<String> = role["tiers"].as_array().into_iter().flatten().map(text).collect();
    if !tiers.is_empty() {
        words.push_str(&format!(", {}", tiers.join(" and ")));
    }
    if let Some(group) = role["group"].as_str() {
        words.push_str(&format!(" (through the group {group})"));
    }
    words
}

/// Proves the second factor again.
pub fn factor(api: &Api, output: &Output) -> Result<(), CliError> {
    let code = prompt::secret("Code", "GUIDON_CODE")?;
    let session = api.post("/api/v1/session/factor", &json!({ "code": code }))?;
    output.either(&session, |output| output.line("The second factor is proven for the next ten minutes."))
}
