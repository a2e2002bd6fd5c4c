//! `guidon session …`

use clap::{ArgGroup, Args, Subcommand};

use super::api::encode;
use super::output::Output;
use super::show::{short_time, text};
use super::{Api, CliError};

const PATH: &str = "/api/v1/sessions";

/// Commands about one's own sessions.
#[derive(Debug, Subcommand)]
pub enum SessionCommand {
    /// List where you are signed in
    List,
    /// Sign out elsewhere
    End(EndArgs),
}

/// Which sessions end.
#[derive(Args, Debug)]
#[command(group(ArgGroup::new("which").required(true)))]
pub struct EndArgs {
    /// Id of the session, or its beginning
    #[arg(group = "which")]
    id: Option<String>,
    /// All but the one that this command uses
    #[arg(long, group = "which")]
    others: bool,
}

/// Runs one of the commands.
pub fn run(command: SessionCommand, api: &Api, output: &Output) -> Result<(), CliError> {
    match command {
        SessionCommand::List => {
            let listed = api.get(PATH, &[])?;
            output.either(&listed, |output| {
                let rows = listed["sessions"].as_array().into_iter().flatten().map(|session| {
                    vec![
                        text(&session["id"]).chars().take(12).collect(),
                        text(&session["door"]),
                        short_time(&session["createdAt"]),
                        short_time(&session["expiresAt"]),
                        if session["current"] == true { "this one".to_owned() } else { String::new() },
                    ]
                });
                output.table(&["id", "door", "since", "until", ""], rows.collect(), "No sessions.")
            })
        }
        SessionCommand::End(EndArgs { id: Some(id), .. }) => {
            let ended = api.delete(&format!("{PATH}/{}", encode(&whole(api, &id)?)))?;
            output.either(&ended, |output| output.line("That session is over."))
        }
        SessionCommand::End(EndArgs { .. }) => {
            let ended = api.delete(PATH)?;
            output.either(&ended, |output| match ended["ended"].as_u64() {
                Some(0) => output.line("There are no other sessions."),
                Some(1) => output.line("One other session is over."),
                _ => output.line(format!("{} other sessions are over.", text(&ended["ended"]))),
            })
        }
    }
}

/// The id that begins so, of the caller's sessions; what fits none is sent as it is, for the server to refuse.
fn whole(api: &Api, beginning: &str) -> Result<String, CliError> {
    let listed = api.get(PATH, &[])?;
    let ids = listed["sessions"].as_array().into_iter().flatten().filter_map(|session| session["id"].as_str());
    let fitting: Vec<&str> = ids.filter(|id| id.starts_with(beginning)).collect();
    match fitting.as_slice() {
        [one] => Ok((*one).to_owned()),
        [] => Ok(beginning.to_owned()),
        several => Err(CliError::Usage(format!(
            "{} sessions begin with {beginning:?}; give more of the id: `guidon session list --json` shows it whole",
            several.len()
        ))),
    }
}
