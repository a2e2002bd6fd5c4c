//! Following a release until it is over.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::{board, path};
use crate::cli::output::Output;
use crate::cli::show::text;
use crate::cli::{Api, CliError};

/// How often a release is looked at.
const EVERY: Duration = Duration::from_secs(1);
/// How long a server may be away: a release goes on when its server comes back, and so does who follows it.
const PATIENCE: Duration = Duration::from_secs(120);

/// Follows the release of a flag: in place on a terminal, else with a line, or a document, for every change.
pub fn follow(flag: &str, environment: &str, api: &Api, output: &Output) -> Result<(), CliError> {
    let mut shown = Shown::default();
    let mut away: Option<Instant> = None;
    loop {
        let began = Instant::now();
        match api.get(&path(api, environment, flag, ""), &[]) {
            Ok(release) => {
                away = None;
                shown.show(&release, output)?;
                if let Some(ended) = ended(&release) {
                    return ended;
                }
            }
            Err(error) if is_passing(&error) && away.is_none_or(|since| since.elapsed() < PATIENCE) => {
                if away.is_none() {
                    away = Some(began);
                    shown.say(&error.to_string(), output)?;
                }
            }
            Err(error) => return Err(error),
        }
        std::thread::sleep(EVERY.saturating_sub(began.elapsed()));
    }
}

/// What was shown last.
#[derive(Default)]
struct Shown {
    lines: Vec<String>,
    /// Lines on the terminal that the next board takes the place of.
    on_terminal: usize,
    signature: Value,
}

impl Shown {
    fn show(&mut self, release: &Value, output: &Output) -> Result<(), CliError> {
        if output.is_watched() {
            self.lines = board::lines(release);
            return self.redraw(output);
        }
        let signature = board::signature(release);
        if signature == self.signature {
            return Ok(());
        }
        self.signature = signature;
        if output.is_json() { output.document(release) } else { output.line(board::line(release)) }
    }

    /// Says that the server is away; what was shown last stays.
    fn say(&mut self, what: &str, output: &Output) -> Result<(), CliError> {
        let first = what.lines().next().unwrap_or_default();
        let said = format!("  {first}; trying again for {} s", PATIENCE.as_secs());
        if !output.is_watched() {
            return if output.is_json() { Ok(()) } else { output.line(said.trim_start()) };
        }
        self.lines.push(said);
        self.redraw(output)
    }

    fn redraw(&mut self, output: &Output) -> Result<(), CliError> {
        output.redraw(self.on_terminal, &self.lines)?;
        self.on_terminal = self.lines.len();
        Ok(())
    }
}

fn is_passing(error: &CliError) -> bool {
    match error {
        CliError::Unreachable { .. } => true,
        CliError::Problem(problem) => matches!(problem.status, 429 | 502 | 503 | 504),
        _ => false,
    }
}

/// How a release ended; `None` while it is under way.
fn ended(release: &Value) -> Option<Result<(), CliError>> {
    match release["state"].as_str() {
        Some("running" | "paused") => None,
        Some("completed") => Some(Ok(())),
        _ => {
            let (flag, state) = (text(&release["flag"]), board::state(release));
            let why = match board::standing(release) {
                why if why.is_empty() => String::new(),
                why => format!(": {why}"),
            };
            let environment = text(&release["environment"]);
            let message = format!(
                "the release of {flag} was {state}{why}\n  `guidon release report {flag} -e {environment}` tells how it came about."
            );
            Some(Err(CliError::ReleaseFailed { message, release: release.clone() }))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_a_completed_release_ends_well() {
        assert!(ended(&json!({"state": "running"})).is_none() && ended(&json!({"state": "paused"})).is_none());
        assert!(matches!(ended(&json!({"state": "completed"})), Some(Ok(()))));
        let failed = ended(&json!({"state": "rolledBack", "flag": "f", "environment": "e", "reason": "errors"}));
        let Some(Err(error)) = failed else { panic!("{failed:?}") };
        assert!(error.to_string().starts_with("the release of f was rolled back: errors\n"), "{error}");
        assert_eq!(error.document()["code"], "releaseFailed");
    }
}
