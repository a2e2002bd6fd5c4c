//! The command line as one person at one terminal uses it: with a folder of its own for profiles and sessions.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

use super::binary;

/// A terminal.
pub struct Terminal {
    folder: tempfile::TempDir,
    server: String,
}

impl Terminal {
    /// A terminal whose commands talk to `server`.
    pub fn new(server: &str) -> Self {
        Self { folder: tempfile::tempdir().expect("a temporary folder"), server: server.to_owned() }
    }

    /// Where it keeps its session.
    pub fn session_file(&self) -> PathBuf {
        self.folder.path().join("session.toml")
    }

    /// A command, not started yet.
    pub fn command(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Command {
        let mut command = Command::new(binary());
        command.args(arguments).env("GUIDON_SERVER", &self.server);
        command.env("GUIDON_PROFILES", self.folder.path().join("config.toml"));
        for name in ["GUIDON_TOKEN", "GUIDON_ADMIN_TOKEN", "GUIDON_PASSWORD", "GUIDON_CODE", "GUIDON_DATA"] {
            command.env_remove(name);
        }
        command.envs(variables.iter().copied());
        command.stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    pub fn run(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
        self.command(arguments, variables).output().expect("the command")
    }

    /// Runs a command that must succeed, with `--json`, and answers its document.
    #[track_caller]
    pub fn json(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Value {
        let arguments: Vec<&str> = ["--json"].into_iter().chain(arguments.iter().copied()).collect();
        let output = self.run(&arguments, variables);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("a JSON document")
    }

    /// Starts a command whose input and output stay open.
    pub fn start(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Child {
        let mut command = self.command(arguments, variables);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the command")
    }
}

/// Sends a line to a command that was started.
pub fn send_line(child: &mut Child, line: &str) {
    let stdin = child.stdin.as_mut().expect("an open input");
    writeln!(stdin, "{line}").expect("a command that reads");
}
