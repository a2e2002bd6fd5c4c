//! `guidon privacy …`: forgetting people.

use std::io::Read;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::api::encode;
use super::output::Output;
use super::show::text;
use super::{Api, CliError};

/// Largest key that is read from standard input, in bytes; the server's limit is below it.
const MAX_KEY_BYTES: u64 = 64 << 10;

/// Commands that forget.
#[derive(Debug, Subcommand)]
pub enum PrivacyCommand {
    /// Erase who a member of staff is: name, address, password and factors. What they did stays, under an id
    EraseStaff(EraseStaffArgs),
    /// Erase a targeting key from segments, targets and change requests of all times
    EraseKey(EraseKeyArgs),
}

/// Whom to erase.
#[derive(Debug, Args)]
pub struct EraseStaffArgs {
    /// Name or id of the account
    account: String,
    /// Do it: it cannot be undone
    #[arg(long)]
    yes: bool,
}

/// Which key to erase.
#[derive(Debug, Args)]
pub struct EraseKeyArgs {
    /// The targeting key; `-` reads it from standard input, where `ps` does not show it
    key: String,
    /// Do it: it cannot be undone
    #[arg(long)]
    yes: bool,
}

/// Runs one of the commands.
pub fn run(command: PrivacyCommand, api: &Api, output: &Output) -> Result<(), CliError> {
    match command {
        PrivacyCommand::EraseStaff(args) => erase_staff(&args, api, output),
        PrivacyCommand::EraseKey(args) => erase_key(&args, api, output),
    }
}

fn erase_staff(args: &EraseStaffArgs, api: &Api, output: &Output) -> Result<(), CliError> {
    let accounts = api.get_all("/api/v1/accounts", "accounts", &[("limit", "500".to_owned())])?;
    let folded = args.account.trim().to_lowercase();
    let is_meant = |account: &&Value| account["id"] == *args.account || text(&account["name"]).to_lowercase() == folded;
    let found: Vec<&Value> = accounts.iter().filter(is_meant).collect();
    let account = match found.as_slice() {
        [account] => *account,
        [] => {
            let said = format!("there is no account {:?}; `guidon account list` shows them", args.account);
            return Err(CliError::Usage(said));
        }
        several => {
            let ids: Vec<String> = several.iter().map(|account| text(&account["id"])).collect();
            return Err(CliError::Usage(format!("several accounts are called so; name one of {}", ids.join(", "))));
        }
    };
    let id = text(&account["id"]);
    confirmed(args.yes, &format!("This erases who {id} is and cannot be undone."))?;
    let outcome = api.delete(&format!("/api/v1/accounts/{}", encode(&id)))?;
    output.either(&outcome, |output| {
        output.line(format!("Erased who {id} is."))?;
        output.line("  gone    name, address, provider identity, password, factor, recovery codes, sessions")?;
        output.line(format!(
            "  stays   what {id} did, in the journal and the security log, under this id; the chains verify"
        ))?;
        output.line(
            "  stays   what anybody wrote into comments; backups and exports made before: they are yours to erase",
        )
    })
}

fn erase_key(args: &EraseKeyArgs, api: &Api, output: &Output) -> Result<(), CliError> {
    let key = if args.key == "-" {
        let mut read = String::new();
        std::io::stdin().take(MAX_KEY_BYTES).read_to_string(&mut read)?;
        read.trim_end_matches(['\r', '\n']).to_owned()
    } else {
        args.key.clone()
    };
    let project = api.project().to_owned();
    confirmed(
        args.yes,
        &format!("This erases the key from the history of the project {project} and cannot be undone."),
    )?;
    let erased = api.post("/api/v1/privacy/erase-key", &json!({"project": project, "key": key}))?;
    output.either(&erased, |output| {
        output.line(format!("Erased the key from the project {project}, up to revision {}.", text(&erased["revision"])))?;
        output.line(format!("  gone    from {} stored key lists of all times", text(&erased["keySets"])))?;
        output.line(format!("  gone    what {} change requests asked for that named it", text(&erased["requests"])))?;
        output.line("  stays   places in the lists, with nothing in them; the journal never held the key, and its chain verifies")?;
        output.line(
            "  stays   the assignment log: it holds keyed pseudonyms only, which nobody can lead back to a key without the \
             environment's secret",
        )?;
        output.line("  stays   comments, clauses on other attributes, backups and exports made before: they are yours to erase")
    })
}

/// Goes on only if the person said so.
fn confirmed(yes: bool, what: &str) -> Result<(), CliError> {
    if yes { Ok(()) } else { Err(CliError::Usage(format!("{what}\n  Add --yes to do it."))) }
}
