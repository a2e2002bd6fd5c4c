//! Options about what stands beside the server: other monitoring, and what heals instances.

use std::path::PathBuf;

use clap::Args;

use super::ConfigError;
use crate::releases::healing::{HealingAction, MAX_ACTIONS, Remedy};

/// Other monitoring beside the server.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Monitoring")]
pub struct MonitoringOptions {
    /// Root of a Prometheus-compatible endpoint, as http://prometheus:9090, that answers the external guardrails of releases.
    /// It may be private or on this machine. One that has a token is spoken to by https, or on this machine.
    #[arg(long, env = "GUIDON_PROMETHEUS_URL", value_name = "URL")]
    pub prometheus_url: Option<String>,
    /// File that holds the bearer token for it; or set GUIDON_PROMETHEUS_TOKEN. Without either it is asked without one.
    #[arg(long, env = "GUIDON_PROMETHEUS_TOKEN_FILE", value_name = "FILE")]
    pub prometheus_token_file: Option<PathBuf>,
    /// Shows on /metrics what each flag's variations do: calls, errors, latencies, tracked values. /metrics needs no credential,
    /// and then names projects, environments and flags to whoever reaches it.
    #[arg(long, env = "GUIDON_METRICS_NAMES")]
    pub metrics_names: bool,
}

/// What the server may do about instances that fail.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Healing")]
pub struct HealingOptions {
    /// A healing action that plans of releases may name: NAME=/absolute/program argument …, run without a shell, or
    /// NAME=https://…, called with a signed POST. Give it once for each action; the variable holds one a line.
    #[arg(long, env = "GUIDON_HEALING", value_name = "NAME=ACTION", value_delimiter = '\n')]
    pub healing: Vec<HealingAction>,
    /// File that holds the secret, whsec_ and Base64, that calls of healing actions are signed with; or set
    /// GUIDON_HEALING_SECRET. Needed where an action is a URL.
    #[arg(long, env = "GUIDON_HEALING_SECRET_FILE", value_name = "FILE")]
    pub healing_secret_file: Option<PathBuf>,
}

impl HealingOptions {
    /// What is wrong with all actions together.
    pub(super) fn problem(&self) -> Option<ConfigError> {
        let mut names: Vec<&str> = self.healing.iter().map(|action| action.name.as_str()).collect();
        if names.len() > MAX_ACTIONS {
            return Some(ConfigError::Combined(format!("--healing: at most {MAX_ACTIONS} actions")));
        }
        names.sort_unstable();
        let twice = names.windows(2).find_map(|pair| match pair {
            [one, two] if one == two => Some(*one),
            _ => None,
        });
        twice.map(|name| ConfigError::Combined(format!("--healing: {name:?} is the name of two actions")))
    }

    /// Whether an action is a call, which is signed.
    #[must_use]
    pub fn calls(&self) -> bool {
        self.healing.iter().any(|action| matches!(action.remedy, Remedy::Webhook(_)))
    }
}
