//! Which server a command talks to, and as whom: from flags, environment variables, a session, or a profile file, in this
//! order.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Deserialize;

use super::{CliError, session_file};

const DEFAULT_SERVER: &str = "http://127.0.0.1:8080";
const DEFAULT_PROJECT: &str = "default";

/// Options of every command that talks to a server.
#[derive(Clone, Debug, Default, Args)]
pub struct ServerOptions {
    /// Address of the server [default: http://127.0.0.1:8080]
    #[arg(long, global = true, env = "GUIDON_SERVER", value_name = "URL", help_heading = "Server")]
    pub server: Option<String>,
    /// Access token
    #[arg(
        long,
        global = true,
        env = "GUIDON_TOKEN",
        value_name = "TOKEN",
        hide_env_values = true,
        help_heading = "Server"
    )]
    pub token: Option<String>,
    /// Project [default: default]
    #[arg(long, short = 'p', global = true, env = "GUIDON_PROJECT", value_name = "KEY", help_heading = "Server")]
    pub project: Option<String>,
    /// Profile to take server, token and project from [default: "default", if the file has it]
    #[arg(long, global = true, env = "GUIDON_PROFILE", value_name = "NAME", help_heading = "Server")]
    pub profile: Option<String>,
    /// File of certificates (PEM) to trust in place of the system's
    #[arg(long, global = true, env = "GUIDON_CA_FILE", value_name = "FILE", help_heading = "Server")]
    pub ca_file: Option<PathBuf>,
    /// Print JSON, for scripts
    #[arg(long, global = true, help_heading = "Output")]
    pub json: bool,
}

/// The profile file: `~/.config/guidon/config.toml`, or the one `GUIDON_PROFILES` names.
///
/// ```toml
/// [profiles.default]
/// server = "https://flags.example.com"
/// token = "gdn_admin_…"
/// project = "shop"
/// ```
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ProfileFile {
    #[serde(default)]
    profiles: BTreeMap<String, Profile>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Profile {
    server: Option<String>,
    token: Option<String>,
    project: Option<String>,
    ca_file: Option<PathBuf>,
}

/// Where and as whom to talk, settled.
#[derive(Clone)]
pub struct Target {
    /// Address of the server, without a trailing slash.
    pub server: String,
    /// Access token, if there is one.
    pub token: Option<String>,
    /// Key of the project.
    pub project: String,
    /// Certificates to trust in place of the system's.
    pub ca_file: Option<PathBuf>,
}

impl ServerOptions {
    /// Settles options, environment and profile.
    ///
    /// # Errors
    ///
    /// If the profile file cannot be read or does not have the profile that was asked for.
    pub fn target(&self) -> Result<Target, CliError> {
        let profile = self.find_profile()?;
        let server = self.server.clone().or(profile.server).unwrap_or_else(|| DEFAULT_SERVER.to_owned());
        let server = server.trim_end_matches('/').to_owned();
        let session = match &self.token {
            Some(_) => None,
            None => session_file::find(&server)?.map(|session| session.credential),
        };
        // The server's own variable serves where both run side by side.
        let admin = || std::env::var("GUIDON_ADMIN_TOKEN").ok().filter(|token| !token.is_empty());
        Ok(Target {
            server,
            token: self.token.clone().or(session).or(profile.token).or_else(admin),
            project: self.project.clone().or(profile.project).unwrap_or_else(|| DEFAULT_PROJECT.to_owned()),
            ca_file: self.ca_file.clone().or(profile.ca_file),
        })
    }

    fn find_profile(&self) -> Result<Profile, CliError> {
        let path = config_path();
        let file = read_profiles(&path)?;
        match &self.profile {
            None => Ok(file.profiles.get("default").cloned().unwrap_or_default()),
            Some(name) => file.profiles.get(name).cloned().ok_or_else(|| {
                let known: Vec<&str> = file.profiles.keys().map(String::as_str).collect();
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                CliError::Usage(format!("{} has no profile \"{name}\" (it has: {known})", path.display()))
            }),
        }
    }
}

fn read_profiles(path: &Path) -> Result<ProfileFile, CliError> {
    match std::fs::read_to_string(path) {
        Ok(text) => toml::from_str(&text).map_err(|error| CliError::Usage(format!("{}: {error}", path.display()))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(ProfileFile::default()),
        Err(error) => Err(CliError::Usage(format!("{}: {error}", path.display()))),
    }
}

/// Path of the profile file.
#[must_use]
pub fn config_path() -> PathBuf {
    if let Some(path) = std::env::var_os("GUIDON_PROFILES") {
        return path.into();
    }
    let named = |variable: &str| std::env::var_os(variable).filter(|path| !path.is_empty()).map(PathBuf::from);
    // Without a home, as in a container, it is the root's: never the folder that somebody happens to stand in.
    let home = || named("HOME").unwrap_or_else(|| PathBuf::from("/")).join(".config");
    let base = named("XDG_CONFIG_HOME").unwrap_or_else(home);
    base.join("guidon").join("config.toml")
}
