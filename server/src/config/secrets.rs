//! What must not be seen: given by a variable, or by a file that an option names, and never by an option itself.

use std::path::Path;

use super::{Config, ConfigError};

/// One of the server's secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Secret {
    /// Its name in the configuration file, where it is refused.
    pub key: &'static str,
    /// The section that the option for its file stands in.
    pub section: &'static str,
    /// The variable that may hold it.
    pub variable: &'static str,
    /// The option that names a file which holds it.
    pub flag: &'static str,
}

/// The operator's token.
pub const ADMIN_TOKEN: Secret =
    Secret { key: "admin_token", section: "identity", variable: "GUIDON_ADMIN_TOKEN", flag: "--admin-token-file" };

/// The master key of the vault.
pub const MASTER_KEY: Secret =
    Secret { key: "master_key", section: "storage", variable: "GUIDON_MASTER_KEY", flag: "--master-key-file" };

/// The secret of this server's client at the OpenID provider.
pub const OIDC_CLIENT_SECRET: Secret = Secret {
    key: "oidc_client_secret",
    section: "identity",
    variable: "GUIDON_OIDC_CLIENT_SECRET",
    flag: "--oidc-client-secret-file",
};

/// The bearer token that other monitoring is asked with.
pub const PROMETHEUS_TOKEN: Secret = Secret {
    key: "prometheus_token",
    section: "monitoring",
    variable: "GUIDON_PROMETHEUS_TOKEN",
    flag: "--prometheus-token-file",
};

/// What calls of healing actions are signed with.
pub const HEALING_SECRET: Secret = Secret {
    key: "healing_secret",
    section: "healing",
    variable: "GUIDON_HEALING_SECRET",
    flag: "--healing-secret-file",
};

/// All of them.
pub const SECRETS: [Secret; 5] = [MASTER_KEY, ADMIN_TOKEN, OIDC_CLIENT_SECRET, PROMETHEUS_TOKEN, HEALING_SECRET];

/// Longest secret that is read from a file, in bytes.
const MAX_SECRET_BYTES: u64 = 64 * 1_024;

impl Secret {
    /// The value of the variable, if it has one.
    #[must_use]
    pub fn in_environment(&self) -> Option<String> {
        std::env::var(self.variable).ok().filter(|value| !value.is_empty())
    }

    /// Refuses a secret that is given by the variable and by a file.
    ///
    /// # Errors
    ///
    /// [`ConfigError::SecretTwice`].
    pub fn check_given_once(&self, config: &Config) -> Result<(), ConfigError> {
        if config.secret_file(self).is_some() && self.in_environment().is_some() {
            return Err(ConfigError::SecretTwice { variable: self.variable, flag: self.flag });
        }
        Ok(())
    }

    /// The secret, from the file that `config` names or from the variable; `None` where there is neither.
    ///
    /// # Errors
    ///
    /// The file cannot be read or is empty, or the secret is given twice.
    pub fn read(&self, config: &Config) -> Result<Option<String>, ConfigError> {
        self.check_given_once(config)?;
        match config.secret_file(self) {
            Some(path) => self.read_file(path).map(Some),
            None => Ok(self.in_environment()),
        }
    }

    fn read_file(&self, path: &Path) -> Result<String, ConfigError> {
        let wrong = |problem: String| ConfigError::SecretFile { flag: self.flag, path: path.to_owned(), problem };
        let length = std::fs::metadata(path).map_err(|error| wrong(error.to_string()))?.len();
        if length > MAX_SECRET_BYTES {
            return Err(wrong(format!("{length} bytes are no secret; at most {MAX_SECRET_BYTES} are read")));
        }
        let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
        let secret = text.trim();
        if secret.is_empty() { Err(wrong("the file is empty".to_owned())) } else { Ok(secret.to_owned()) }
    }
}
