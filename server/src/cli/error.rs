//! Why a command failed, and the exit code that says so.

use std::io;
use std::process::ExitCode;

use serde_json::Value;

/// Why a command failed.
///
/// | exit code | meaning |
/// |---|---|
/// | 0 | done |
/// | 1 | something unexpected; the message says what |
/// | 2 | the command line is not understood; of `guidon drift`, which then has printed it: there is drift |
/// | 3 | the server cannot be reached |
/// | 4 | the credential is missing, refused, or may not do this |
/// | 5 | there is no such project, environment, flag, segment or key |
/// | 6 | the request is invalid; every problem is listed |
/// | 7 | somebody else changed the same thing in between |
/// | 8 | the store or the file is damaged |
/// | 9 | the server cannot do it now (disk full, read-only, overloaded); try again |
/// | 10 | a rollback drill did not pass, and was recorded so |
/// | 11 | a release that was followed was taken back or aborted |
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The server answered with a problem document.
    #[error("{}", describe(.0))]
    Problem(Problem),
    /// The server cannot be reached.
    #[error(
        "cannot reach {server}: {reason}\n  Is it running? `guidon serve` starts it; --server or GUIDON_SERVER says where it is."
    )]
    Unreachable {
        /// Address tried.
        server: String,
        /// What happened.
        reason: String,
    },
    /// No credential was given.
    #[error(
        "no credential given\n  Sign in with `guidon login`, set GUIDON_TOKEN, pass --token, or put a token into a profile in {0}."
    )]
    NoToken(String),
    /// What was given on the command line, or in a file it names, is wrong.
    #[error("{0}")]
    Usage(String),
    /// A rollback drill did not pass.
    #[error("{message}")]
    DrillFailed {
        /// All of it, for people.
        message: String,
        /// What the drill found.
        report: Value,
    },
    /// A release that was followed did not complete.
    #[error("{message}")]
    ReleaseFailed {
        /// How it ended, for people.
        message: String,
        /// The release.
        release: Value,
    },
    /// Configuration files are wrong; every problem has its file and line.
    #[error("{message}")]
    Files {
        /// All of it, for people.
        message: String,
        /// The problems, each a line.
        problems: Vec<String>,
    },
    /// What was to be applied is older than what others changed since.
    #[error("{message}")]
    Stale {
        /// All of it, for people.
        message: String,
        /// The entries in its way.
        entries: Value,
    },
    /// What was compared differs.
    #[error("{0}")]
    Drift(String),
    /// A store or file is damaged.
    #[error("{0}")]
    Damaged(String),
    /// The reader of our output has gone; nothing to say.
    #[error("")]
    BrokenPipe,
    /// Anything else.
    #[error("{0}")]
    Unexpected(String),
}

/// A problem document (RFC 9457) as the server sends it.
#[derive(Debug, Clone, Default)]
pub struct Problem {
    /// HTTP status.
    pub status: u16,
    /// The whole document.
    pub document: Value,
}

impl Problem {
    fn text(&self, field: &str) -> Option<&str> {
        self.document.get(field).and_then(Value::as_str).filter(|text| !text.is_empty())
    }
}

fn describe(problem: &Problem) -> String {
    let title = problem.text("title").unwrap_or("the server refused");
    let mut message = match problem.text("detail") {
        Some(detail) => format!("{title}: {detail}"),
        None => format!("{title} (HTTP {})", problem.status),
    };
    for error in problem.document.get("errors").and_then(Value::as_array).into_iter().flatten() {
        let field = |name| error.get(name).and_then(Value::as_str).unwrap_or_default();
        let place = match field("pointer") {
            "" => String::new(),
            pointer => format!("at {pointer}: "),
        };
        message.push_str(&format!("\n  {place}{}", field("detail")));
    }
    message
}

impl CliError {
    /// The exit code; see the table of [`CliError`].
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Problem(problem) => match problem.status {
                401 | 403 => 4,
                404 => 5,
                400 | 413 | 415 | 422 => 6,
                409 => 7,
                429 | 503 | 507 => 9,
                _ => 1,
            },
            Self::Unreachable { .. } => 3,
            Self::NoToken(_) => 4,
            Self::Usage(_) | Self::Drift(_) => 2,
            Self::Files { .. } => 6,
            Self::Stale { .. } => 7,
            Self::Damaged(_) => 8,
            Self::DrillFailed { .. } => 10,
            Self::ReleaseFailed { .. } => 11,
            Self::BrokenPipe => 0,
            Self::Unexpected(_) => 1,
        })
    }

    /// The error for scripts: the server's problem document, or one of the same shape.
    #[must_use]
    pub fn document(&self) -> Value {
        match self {
            Self::Problem(problem) if problem.document.is_object() => problem.document.clone(),
            Self::DrillFailed { report, .. } => {
                serde_json::json!({ "title": "the drill did not pass", "code": "drillFailed", "reasons": report["reasons"] })
            }
            Self::ReleaseFailed { message, release } => {
                let title = message.lines().next().unwrap_or_default();
                serde_json::json!({ "title": title, "code": "releaseFailed", "state": release["state"], "reason": release["reason"] })
            }
            Self::Files { message, problems } => super::yaml::problem_document(message, problems),
            Self::Stale { message, entries } => {
                let title = message.lines().next().unwrap_or_default();
                serde_json::json!({ "title": title, "code": "staleRevision", "entries": entries })
            }
            other => serde_json::json!({ "title": other.to_string() }),
        }
    }
}

impl From<io::Error> for CliError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe { Self::BrokenPipe } else { Self::Unexpected(error.to_string()) }
    }
}
