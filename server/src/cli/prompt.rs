//! Asking for what must not stand on a command line, where others could read it: passwords, codes, invitations.

use std::io::{BufRead, IsTerminal, Write};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use super::CliError;
use super::output::harmless;

/// Whether a person can be asked.
#[must_use]
pub fn is_possible() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

/// Tells the person at the terminal something that is not the command's answer.
pub fn say(text: &str) -> Result<(), CliError> {
    Ok(writeln!(std::io::stderr(), "{}", harmless(text, '\n'))?)
}

/// A text that others may read while it is typed.
pub fn text(label: &str, variable: &str) -> Result<String, CliError> {
    ask(label, variable, true)
}

/// A secret: of the variable if it is set, else of the person at the terminal, to whom it is not shown, else of the next line
/// of standard input.
pub fn secret(label: &str, variable: &str) -> Result<String, CliError> {
    ask(label, variable, false)
}

/// A new secret; a person types it twice.
pub fn new_secret(label: &str, variable: &str) -> Result<String, CliError> {
    let first = secret(label, variable)?;
    let is_typed = std::env::var_os(variable).is_none() && std::io::stdin().is_terminal();
    if is_typed && secret(&format!("{label} again"), variable)? != first {
        return Err(CliError::Usage("the two differ; nothing was changed".to_owned()));
    }
    Ok(first)
}

/// Whether the person at the terminal says yes.
pub fn confirm(question: &str) -> Result<bool, CliError> {
    let mut stderr = std::io::stderr().lock();
    write!(stderr, "{question} [y/N] ")?;
    stderr.flush()?;
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    Ok(matches!(line.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

fn ask(label: &str, variable: &str, shown: bool) -> Result<String, CliError> {
    if let Some(value) = std::env::var(variable).ok().filter(|value| !value.is_empty()) {
        return Ok(value);
    }
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        let mut stderr = std::io::stderr().lock();
        write!(stderr, "{label}: ")?;
        stderr.flush()?;
    }
    let hidden = if !shown && stdin.is_terminal() { Some(Hidden::new()?) } else { None };
    let mut line = String::new();
    let read = stdin.lock().read_line(&mut line)?;
    if hidden.is_some() {
        // The line break was not shown either.
        writeln!(std::io::stderr())?;
    }
    drop(hidden);
    let line = line.trim_end_matches(['\r', '\n']);
    if read == 0 || line.is_empty() {
        return Err(CliError::Usage(format!(
            "no {} was given: type it, set {variable}, or send it as a line to standard input",
            label.to_lowercase()
        )));
    }
    Ok(line.to_owned())
}

/// Keeps what is typed from being shown, until it is dropped.
struct Hidden(Termios);

impl Hidden {
    fn new() -> Result<Self, CliError> {
        let stdin = std::io::stdin();
        let before = tcgetattr(&stdin).map_err(|error| CliError::Unexpected(error.to_string()))?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        tcsetattr(&stdin, OptionalActions::Flush, &quiet).map_err(|error| CliError::Unexpected(error.to_string()))?;
        Ok(Self(before))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing.
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.0);
    }
}
