//! Flags, environment, configuration file and defaults, brought together: each option's value, and where it came from.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Command, FromArgMatches};
use serde::Serialize;

use super::file::{self, Known};
use super::{Config, ConfigError, SECRETS};

/// The options of `guidon serve`, and the file that may give them too.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Configuration file in TOML. What it says holds unless a flag or a variable says otherwise.
    #[arg(long = "config", env = "GUIDON_CONFIG", value_name = "FILE", help_heading = "Configuration")]
    pub config_file: Option<PathBuf>,
    /// The options.
    #[command(flatten)]
    config: Config,
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum Source {
    /// Nobody gave one.
    Default,
    /// The configuration file.
    File {
        /// The file.
        file: PathBuf,
        /// Line of the key, from 1.
        line: usize,
    },
    /// An environment variable.
    Environment {
        /// Its name.
        name: String,
    },
    /// The command line.
    Flag {
        /// The flag.
        name: String,
    },
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { file, line } => write!(f, "{} line {line}", file.display()),
            Self::Environment { name } | Self::Flag { name } => f.write_str(name),
        }
    }
}

/// One option as it is in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Setting {
    /// Section of the configuration file.
    pub section: String,
    /// Key in it.
    pub key: String,
    /// The same as a variable.
    pub variable: String,
    /// The values: one, or any number where the option is a list.
    pub values: Vec<String>,
    /// Where they came from.
    pub source: Source,
}

/// A configuration, and where each part of it came from.
#[derive(Clone, Debug)]
pub struct Effective {
    /// What holds.
    pub config: Config,
    /// The same, option by option. Secrets are not among them: no option holds one.
    pub settings: Vec<Setting>,
    /// The configuration file, if one was named.
    pub file: Option<PathBuf>,
}

/// Brings the layers together. `matches` are those of a command that has [`Options`].
///
/// # Errors
///
/// Everything that is wrong with the file, or with what the layers are together.
pub fn resolve(matches: &ArgMatches) -> Result<Effective, Vec<ConfigError>> {
    let file = matches.get_one::<PathBuf>("config_file").cloned();
    let in_file = file.as_deref().map(file::read).transpose()?.unwrap_or_default();
    let known = file::known();
    let mut arguments = vec![OsString::from("guidon")];
    let mut settings = Vec::new();
    for known in &known {
        let Known { arg, section, key, flag, variable } = known;
        let id = arg.get_id().as_str();
        let given = |source| (source, matches.get_raw(id).into_iter().flatten().map(OsString::from).collect());
        let (source, values): (_, Vec<OsString>) = match (matches.value_source(id), in_file.get(key)) {
            (Some(ValueSource::CommandLine), _) => given(Source::Flag { name: format!("--{flag}") }),
            (Some(ValueSource::EnvVariable), _) => given(Source::Environment { name: variable.clone() }),
            (_, Some(found)) => {
                let source = Source::File { file: file.clone().unwrap_or_default(), line: found.line };
                (source, found.values.iter().map(OsString::from).collect())
            }
            _ => (Source::Default, arg.get_default_values().iter().map(OsString::from).collect()),
        };
        if source != Source::Default {
            arguments.extend(values.iter().map(|value| {
                let mut argument = OsString::from(format!("--{flag}="));
                argument.push(value);
                argument
            }));
        }
        settings.push(Setting {
            section: section.clone(),
            key: key.clone(),
            variable: variable.clone(),
            values: values.iter().map(|value| value.to_string_lossy().into_owned()).collect(),
            source,
        });
    }
    let combined = |error: clap::Error| vec![ConfigError::Combined(error.to_string())];
    let command = Config::augment_args(Command::new("guidon")).mut_args(|arg| arg.env(None));
    let taken = command.try_get_matches_from(arguments).map_err(combined)?;
    let config = Config::from_arg_matches(&taken).map_err(combined)?;
    let mut problems = config.problems();
    problems.extend(SECRETS.iter().filter_map(|secret| secret.check_given_once(&config).err()));
    if problems.is_empty() { Ok(Effective { config, settings, file }) } else { Err(problems) }
}

#[cfg(test)]
#[path = "layers_tests.rs"]
mod tests;
