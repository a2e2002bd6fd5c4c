//! `guidon account …`

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::api::encode;
use super::change::print_outcome;
use super::login::role_words;
use super::output::Output;
use super::profile::Target;
use super::show::{short_time, text};
use super::{Api, CliError, prompt};
use crate::app;

/// Commands about the accounts of people.
#[derive(Debug, Subcommand)]
pub enum AccountCommand {
    /// Invite a person; the invitation is shown once
    Invite {
        /// What the person will sign in by
        name: String,
        /// Where the person can be written to
        #[arg(long)]
        email: Option<String>,
    },
    /// Accept an invitation: choose a password and set an authenticator app up
    Claim,
    /// Make new recovery codes for your own account; the old ones are void
    RecoveryCodes,
    /// List the accounts
    List,
    /// Show an account
    Show(Which),
    /// Take password and second factor away and make a new invitation
    Reset(Which),
    /// Shut a person out at once
    Disable(Which),
    /// Let a person in again
    Enable(Which),
    /// Erase who a person is, for good
    Erase(Which),
    /// With the server stopped: make a new invitation for a person who lost the second factor
    Recover {
        /// Name of the account
        name: String,
        /// Data folder of the server
        #[arg(long, env = "GUIDON_DATA", value_name = "FOLDER", default_value = "./guidon-data")]
        data: PathBuf,
    },
}

/// Which account.
#[derive(Debug, Args)]
pub struct Which {
    /// Name or id of the account
    account: String,
}

impl Which {
    fn path(&self, rest: &str) -> String {
        format!("/api/v1/accounts/{}{rest}", encode(&self.account))
    }
}

/// Runs one of the commands.
pub fn run(
    command: AccountCommand,
    target: impl FnOnce() -> Result<Target, CliError>,
    output: &Output,
) -> Result<(), CliError> {
    let api = |target: Target| Api::new(target);
    match command {
        AccountCommand::Claim => claim(&Api::without_credential(target()?)?, output),
        AccountCommand::RecoveryCodes => {
            let made = api(target()?)?.post("/api/v1/session/recovery-codes", &json!({}))?;
            output.either(&made, |output| {
                output
                    .line("These recovery codes each stand for one code of the app, once; the old ones are void:\n")?;
                print_recovery_codes(&made, output)
            })
        }
        AccountCommand::Recover { name, data } => recover(&name, &data, output),
        AccountCommand::Invite { name, email } => {
            let invited = api(target()?)?.post("/api/v1/accounts", &json!({"name": name, "email": email}))?;
            print_invitation(&invited, output)
        }
        AccountCommand::List => list(&api(target()?)?, output),
        AccountCommand::Show(which) => show(&api(target()?)?.get(&which.path(""), &[])?, output),
        AccountCommand::Reset(which) => {
            let invited = api(target()?)?.post(&which.path("/reset"), &json!({}))?;
            print_invitation(&invited, output)
        }
        AccountCommand::Disable(which) => {
            print_outcome(&api(target()?)?.post(&which.path("/disable"), &json!({}))?, output)
        }
        AccountCommand::Enable(which) => {
            print_outcome(&api(target()?)?.post(&which.path("/enable"), &json!({}))?, output)
        }
        AccountCommand::Erase(which) => print_outcome(&api(target()?)?.delete(&which.path(""))?, output),
    }
}

fn print_invitation(invited: &Value, output: &Output) -> Result<(), CliError> {
    output.either(invited, |output| {
        output.line(text(&invited["invitation"]))?;
        output.line(format!(
            "  for {} ({}), until {}",
            text(&invited["name"]),
            text(&invited["id"]),
            short_time(&invited["expiresAt"])
        ))?;
        output
            .line("  Hand it over in a way only that person can read; it is not stored and cannot be shown again.")?;
        output.line("  The person accepts it with: guidon account claim")
    })
}

fn list(api: &Api, output: &Output) -> Result<(), CliError> {
    let accounts = api.get_all("/api/v1/accounts", "accounts", &[])?;
    output.either(&accounts, |output| {
        let rows = accounts.iter().map(|account| {
            let roles: Vec<String> =
                account["roles"].as_array().into_iter().flatten().map(|role| text(&role["role"])).collect();
            vec![
                text(&account["name"]),
                text(&account["state"]),
                roles.join(", "),
                short_time(&account["lastUsedAt"]),
                text(&account["id"]),
            ]
        });
        let empty = "No accounts. `guidon account invite NAME` makes one.";
        output.table(&["name", "state", "roles", "last used", "id"], rows.collect(), empty)
    })
}

fn show(account: &Value, output: &Output) -> Result<(), CliError> {
    output.either(account, |output| {
        let name = account["name"].as_str().unwrap_or("(nobody any more)");
        output.line(format!("{name} ({}), {}", text(&account["id"]), text(&account["state"])))?;
        let facts = [
            ("e-mail", text(&account["email"])),
            ("provider", text(&account["provider"])),
            ("created", short_time(&account["createdAt"])),
            ("claimed", short_time(&account["claimedAt"])),
            ("disabled", short_time(&account["disabledAt"])),
            ("erased", short_time(&account["erasedAt"])),
            ("invited until", short_time(&account["invitedUntil"])),
            ("last used", short_time(&account["lastUsedAt"])),
        ];
        for (what, value) in facts.iter().filter(|(_, value)| !value.is_empty()) {
            output.line(format!("  {what:<13} {value}"))?;
        }
        let roles = account["roles"].as_array().into_iter().flatten();
        roles.map(role_words).try_for_each(|role| output.line(format!("  {role}")))
    })
}

/// In two steps, between which a person, or a program, computes the first code.
fn claim(api: &Api, output: &Output) -> Result<(), CliError> {
    let invitation = prompt::secret("Invitation", "GUIDON_INVITATION")?;
    let begun = api.post("/api/v1/session/claim", &json!({ "invitation": invitation }))?;
    output.either(&begun, |output| {
        output.line(format!("Welcome, {}. Put this secret into an authenticator app:\n", text(&begun["name"])))?;
        output.line(format!("  {}\n", text(&begun["secret"])))?;
        output.line("or open this on the device that has the app:\n")?;
        output.line(format!("  {}\n", text(&begun["otpauthUrl"])))
    })?;
    let password = prompt::new_secret("Password (12 characters or more)", "GUIDON_PASSWORD")?;
    let code = prompt::secret("Code", "GUIDON_CODE")?;
    let finish = json!({"invitation": invitation, "password": password, "code": code});
    let claimed = api.post("/api/v1/session/claim/finish", &finish)?;
    output.either(&claimed, |output| {
        output.line("The account is yours. These recovery codes each stand for one code of the app, once:\n")?;
        print_recovery_codes(&claimed, output)?;
        output.line(format!("Sign in with: guidon login {}", quoted(&text(&begun["name"]))))
    })
}

fn print_recovery_codes(made: &Value, output: &Output) -> Result<(), CliError> {
    let codes = made["recoveryCodes"].as_array().into_iter().flatten();
    codes.map(text).try_for_each(|code| output.line(format!("  {code}")))?;
    output.line("\nKeep them apart from the device; they are not shown again.")
}

/// A name as a shell takes it.
fn quoted(name: &str) -> String {
    let plain = name.chars().all(|it| it.is_ascii_alphanumeric() || "._-@+".contains(it));
    if plain { name.to_owned() } else { format!("'{}'", name.replace('\'', "'\\''")) }
}

fn recover(name: &str, data: &std::path::Path, output: &Output) -> Result<(), CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let invited = runtime.block_on(app::recover_account(data, name));
    let invited = invited.map_err(|error| CliError::Usage(error.to_string()))?;
    let shown = json!({
        "id": invited.account,
        "name": name,
        "invitation": invited.credential.reveal(),
        "expiresAt": invited.expires_at,
    });
    print_invitation(&shown, output)
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn a_name_is_quoted_where_a_shell_would_split_it() {
        assert_eq!((quoted("ada"), quoted("Zoë O'Neil")), ("ada".to_owned(), "'Zoë O'\\''Neil'".to_owned()));
    }
}
