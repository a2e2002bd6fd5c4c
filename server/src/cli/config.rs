//! `guidon config …`: what the server would be started with, and whether it would start.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use clap::{ArgMatches, Subcommand};
use serde_json::json;

use super::output::Output;
use super::serve::{bind, config_error};
use super::{CliError, serve};
use crate::app;
use crate::config::layers::{self, Effective};
use crate::config::{Config, SECRETS};
use crate::telemetry::check_log;

/// Commands about the configuration of the server. They take the options of `guidon serve`, and look at the same variables.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Check a configuration: the file, what serve would refuse, and whether its files and folders are there
    Check(Box<serve::ServeArgs>),
    /// Show every option that is in force, and where its value came from; secrets are hidden
    Show(Box<serve::ServeArgs>),
}

/// Runs one of the commands. `matches` are those of `guidon config`.
pub fn run(command: &ConfigCommand, matches: &ArgMatches, output: &Output) -> Result<(), CliError> {
    let own = matches.subcommand().map_or(matches, |(_, own)| own);
    let effective = layers::resolve(own).map_err(|problems| config_error(&problems))?;
    match command {
        ConfigCommand::Check(_) => check(&effective, output),
        ConfigCommand::Show(_) => show(&effective, output),
    }
}

fn show(effective: &Effective, output: &Output) -> Result<(), CliError> {
    let secrets: Vec<_> = SECRETS
        .iter()
        .map(|secret| {
            let file = effective.config.secret_file(secret).map(|path| path.display().to_string());
            let is_set = file.is_some() || secret.in_environment().is_some();
            let source = match file {
                Some(file) => format!("the file {file}"),
                None if is_set => secret.variable.to_owned(),
                None => "not given".to_owned(),
            };
            (secret, is_set, source)
        })
        .collect();
    let document = json!({
        "file": effective.file,
        "settings": effective.settings,
        "secrets": secrets.iter().map(|(secret, is_set, source)| json!({
            "section": secret.section, "key": secret.key, "variable": secret.variable, "isSet": is_set, "source": source,
        })).collect::<Vec<_>>(),
    });
    output.either(&document, |output| {
        match &effective.file {
            Some(file) => output.line(format!("Configuration file {}\n", file.display()))?,
            None => output.line("No configuration file; --config or GUIDON_CONFIG names one.\n")?,
        }
        let mut rows: Vec<Vec<String>> = effective
            .settings
            .iter()
            .map(|setting| {
                let value = if setting.values.is_empty() { "-".to_owned() } else { setting.values.join(", ") };
                vec![format!("{}.{}", setting.section, setting.key), value, setting.source.to_string()]
            })
            .collect();
        rows.extend(secrets.iter().map(|(secret, is_set, source)| {
            let value = if *is_set { "(hidden)" } else { "-" };
            vec![format!("{}.{}", secret.section, secret.key), value.to_owned(), source.clone()]
        }));
        output.table(&["option", "value", "from"], rows, "")
    })
}

/// What a check found.
#[derive(Default)]
struct Findings {
    problems: Vec<String>,
    notes: Vec<String>,
}

fn check(effective: &Effective, output: &Output) -> Result<(), CliError> {
    let config = &effective.config;
    let mut found = Findings::default();
    found.problems.extend(app::check_start(config).iter().map(ToString::to_string));
    found.problems.extend(check_log(&config.log).err().map(|error| error.to_string()));
    look_at_secrets(config, &mut found);
    look_at_folder(&config.storage.data, &mut found);
    look_at_address(config.network.listen, &mut found)?;
    if !found.problems.is_empty() {
        return Err(CliError::Usage(found.problems.join("\n")));
    }
    let document = json!({ "file": effective.file, "problems": [], "notes": found.notes });
    output.either(&document, |output| {
        output.line("The server would start with this configuration.")?;
        found.notes.iter().try_for_each(|note| output.line(format!("  {note}")))
    })
}

/// Says which files of secrets others than their owner can read.
fn look_at_secrets(config: &Config, found: &mut Findings) {
    let key = config.network.tls_key.as_deref().map(|path| ("--tls-key", path));
    let files = SECRETS.iter().filter_map(|secret| config.secret_file(secret).map(|path| (secret.flag, path)));
    for (flag, path) in files.chain(key) {
        let Ok(mode) = fs::metadata(path).map(|it| it.mode() & 0o777) else { continue };
        if mode & 0o007 != 0 {
            let path = path.display();
            found
                .notes
                .push(format!("{flag} {path}: everybody on this machine can read it (mode {mode:o}); chmod 600"));
        }
    }
}

/// The data folder has to be one that can be written, or that can be made.
fn look_at_folder(folder: &Path, found: &mut Findings) {
    let mut wrong = |problem: String| {
        found.problems.push(format!(
            "{}: {problem}; --data or GUIDON_DATA names a folder that this user may write",
            folder.display()
        ));
    };
    let mut existing = folder;
    while !existing.exists() {
        match existing.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => existing = parent,
            _ => existing = Path::new("."),
        }
    }
    if !existing.is_dir() {
        return wrong(format!("{} is not a folder", existing.display()));
    }
    if let Err(error) = rustix::fs::access(existing, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK) {
        return wrong(format!("{} cannot be written: {error}", existing.display()));
    }
    if existing != folder {
        found.notes.push(format!("The data folder {} is made at the first start.", folder.display()));
    }
}

/// The address has to be one of this machine that this user may listen on. That it is in use is no fault: the server may be running.
fn look_at_address(address: SocketAddr, found: &mut Findings) -> Result<(), CliError> {
    if address.port() == 0 {
        found.notes.push("Port 0 takes another free port at each start; name one for applications to find.".to_owned());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let bound = runtime.block_on(async { bind(address).map(drop) });
    match bound {
        Err(error) if error.to_string().contains("is in use") => {
            found.notes.push(format!("{address} is in use now: perhaps by this server, which is running."));
        }
        Err(error) => found.problems.push(error.to_string()),
        Ok(()) => {}
    }
    Ok(())
}
