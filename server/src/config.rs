//! Configuration of the server: a struct per section; each field's doc is its help text, and names its meaning and unit.
//!
//! Every option is a flag of `guidon serve`, an environment variable `GUIDON_…` and a key of the configuration file, all of
//! one name: `--tls-cert`, `GUIDON_TLS_CERT`, and `tls_cert` below `[network]`. A flag wins over a variable, that over the file,
//! that over the default. [`layers`] brings them together.

mod file;
pub mod layers;
mod outside;
mod secrets;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use ipnet::IpNet;

pub use self::file::{FileProblem, MAX_FILE_BYTES};
pub use self::outside::{HealingOptions, MonitoringOptions};
pub use self::secrets::{
    ADMIN_TOKEN, HEALING_SECRET, MASTER_KEY, OIDC_CLIENT_SECRET, PROMETHEUS_TOKEN, SECRETS, Secret,
};
use crate::identity::oidc::{ClientSecret, ProviderConfig};

/// Descriptors kept for the journal, the state and the log files when the connection limit is derived from the
/// process's descriptor limit.
pub const RESERVED_DESCRIPTORS: u64 = 256;

/// Everything `guidon serve` can be told.
#[derive(Args, Clone, Debug)]
pub struct Config {
    /// Where the server listens and how connections are secured.
    #[command(flatten)]
    pub network: Network,
    /// Where the server keeps its data.
    #[command(flatten)]
    pub storage: Storage,
    /// Limits; each protects the server from a caller who asks for too much.
    #[command(flatten)]
    pub limits: Limits,
    /// Who vouches for people, beside accounts of the server's own.
    #[command(flatten)]
    pub identity: IdentityOptions,
    /// Whom the server calls.
    #[command(flatten)]
    pub webhooks: WebhookOptions,
    /// Other monitoring beside the server.
    #[command(flatten)]
    pub monitoring: MonitoringOptions,
    /// What the server may do about instances that fail.
    #[command(flatten)]
    pub healing: HealingOptions,
    /// What the server says about itself.
    #[command(flatten)]
    pub log: Log,
}

/// Where the server listens and how connections are secured.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Network")]
pub struct Network {
    /// Address and port to listen on. Anything but a loopback address needs TLS or --behind-proxy. Port 0 takes a free one.
    #[arg(long, env = "GUIDON_LISTEN", default_value = "127.0.0.1:8080", value_name = "ADDRESS:PORT")]
    pub listen: SocketAddr,
    /// PEM file with the certificate chain, the server's own first. Read again on SIGHUP.
    #[arg(long, env = "GUIDON_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// PEM file with the private key of the certificate. Read again on SIGHUP.
    #[arg(long, env = "GUIDON_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// Networks of the proxies that end TLS in front of this server, separated by commas. X-Forwarded-For is believed from
    /// them and from nobody else.
    #[arg(long, env = "GUIDON_BEHIND_PROXY", value_name = "CIDR", value_delimiter = ',')]
    pub behind_proxy: Vec<IpNet>,
}

/// Where the server keeps its data.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Storage")]
pub struct Storage {
    /// Folder that holds the journal, the state, the vault and the assignments. Created if it is missing; one server at a time.
    #[arg(long, env = "GUIDON_DATA", default_value = "./guidon-data", value_name = "FOLDER")]
    pub data: PathBuf,
    /// File that holds the master key of the vault, made at the first start if it is missing; or set GUIDON_MASTER_KEY.
    /// Left out, it is master.key in the data folder.
    #[arg(long, env = "GUIDON_MASTER_KEY_FILE", value_name = "FILE")]
    pub master_key_file: Option<PathBuf>,
}

/// Limits; each protects the server from a caller who asks for too much.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Limits")]
pub struct Limits {
    /// Most connections at once. 0 means as many as the descriptor limit allows, less 256 kept for files. A connection over
    /// the limit is closed at once.
    #[arg(long, env = "GUIDON_MAX_CONNECTIONS", default_value_t = 0, value_name = "COUNT")]
    pub max_connections: usize,
    /// Largest request body, in bytes; a larger one is answered 413. 8 MiB hold a segment of 100,000 keys.
    #[arg(long, env = "GUIDON_MAX_BODY_BYTES", default_value_t = 8 * 1024 * 1024, value_name = "BYTES")]
    pub max_body_bytes: usize,
    /// Most API requests worked on at once; more are answered 503 with Retry-After.
    #[arg(long, env = "GUIDON_MAX_CONCURRENT_REQUESTS", default_value_t = 512, value_name = "COUNT")]
    pub max_concurrent_requests: usize,
    /// Writes per second that one credential may make, with bursts of twice as many; more are answered 429.
    #[arg(long, env = "GUIDON_MAX_WRITES_PER_SECOND", default_value_t = 500, value_name = "COUNT")]
    pub max_writes_per_second: u32,
    /// Refused credentials per second from one address, with bursts of twice as many; more are answered 429.
    #[arg(long, env = "GUIDON_MAX_REFUSALS_PER_SECOND", default_value_t = 20, value_name = "COUNT")]
    pub max_refusals_per_second: u32,
    /// Seconds until an API request is given up, answered 503. Streams are not requests.
    #[arg(long, env = "GUIDON_REQUEST_TIMEOUT", default_value = "30", value_name = "SECONDS", value_parser = seconds)]
    pub request_timeout: Duration,
    /// Seconds in which a client must send the head of a request, the next one on an idle connection included.
    #[arg(long, env = "GUIDON_HEADER_TIMEOUT", default_value = "20", value_name = "SECONDS", value_parser = seconds)]
    pub header_timeout: Duration,
    /// Seconds in which a client must finish the TLS handshake.
    #[arg(long, env = "GUIDON_HANDSHAKE_TIMEOUT", default_value = "10", value_name = "SECONDS", value_parser = seconds)]
    pub handshake_timeout: Duration,
    /// Seconds that a stop waits for requests and streams to end before it cuts them off.
    #[arg(long, env = "GUIDON_SHUTDOWN_TIMEOUT", default_value = "15", value_name = "SECONDS", value_parser = seconds)]
    pub shutdown_timeout: Duration,
}

/// Who vouches for people, beside accounts of the server's own.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Identity")]
pub struct IdentityOptions {
    /// File that holds the operator's token, at least 20 bytes; or set GUIDON_ADMIN_TOKEN. Without either the first start makes
    /// one and shows it once.
    #[arg(long, env = "GUIDON_ADMIN_TOKEN_FILE", value_name = "FILE")]
    pub admin_token_file: Option<PathBuf>,
    /// Issuer URL of the OpenID provider that people sign in at, exactly as its tokens spell it. Its client for this server
    /// redirects to http://127.0.0.1 on any port (RFC 8252).
    #[arg(long, env = "GUIDON_OIDC_ISSUER", value_name = "URL")]
    pub oidc_issuer: Option<String>,
    /// Id of this server's client at the provider.
    #[arg(long, env = "GUIDON_OIDC_CLIENT_ID", value_name = "ID")]
    pub oidc_client_id: Option<String>,
    /// File that holds the client's secret; or set GUIDON_OIDC_CLIENT_SECRET. A public client has none.
    #[arg(long, env = "GUIDON_OIDC_CLIENT_SECRET_FILE", value_name = "FILE")]
    pub oidc_client_secret_file: Option<PathBuf>,
    /// Claim of the identity token that lists a person's groups. `guidon role grant --group` gives groups roles.
    #[arg(long, env = "GUIDON_OIDC_GROUPS_CLAIM", default_value = "groups", value_name = "CLAIM")]
    pub oidc_groups_claim: String,
    /// Authentication context classes (`acr`) of the provider that stand for a second factor, separated by commas. The methods
    /// mfa, otp, hwk, swk and fpt in `amr` count in any case.
    #[arg(long, env = "GUIDON_OIDC_MFA_ACR", value_name = "CLASS", value_delimiter = ',')]
    pub oidc_mfa_acr: Vec<String>,
    /// Scopes to ask the provider for beside openid, email and profile, separated by commas.
    #[arg(long, env = "GUIDON_OIDC_SCOPES", value_name = "SCOPE", value_delimiter = ',')]
    pub oidc_scopes: Vec<String>,
    /// Domains of verified e-mail addresses whose people may sign in, separated by commas; everybody the provider knows if left
    /// out.
    #[arg(long, env = "GUIDON_OIDC_EMAIL_DOMAINS", value_name = "DOMAIN", value_delimiter = ',')]
    pub oidc_email_domains: Vec<String>,
}

/// Whom the server calls.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Webhooks")]
pub struct WebhookOptions {
    /// Networks that webhooks may call though they are private, such as this machine's or the company's, separated by commas.
    /// They may be called without TLS. Everything else on the public internet may be called, with TLS.
    #[arg(long, env = "GUIDON_WEBHOOK_ALLOW", value_name = "CIDR", value_delimiter = ',')]
    pub webhook_allow: Vec<IpNet>,
    /// Names people in notifications; otherwise they appear by their ids.
    #[arg(long, env = "GUIDON_WEBHOOK_NAMES")]
    pub webhook_names: bool,
}

/// What the server says about itself.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Log")]
pub struct Log {
    /// Form of the log on standard error.
    #[arg(long, env = "GUIDON_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// Least severe level that is logged, or a filter as `info,guidon_server::push=debug`.
    #[arg(long, env = "GUIDON_LOG", default_value = "info", value_name = "FILTER")]
    pub log: String,
}

/// Form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Why a configuration cannot be served.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConfigError {
    /// Credentials and context keys would cross a network in the clear.
    #[error(
        "{address} is reachable from other machines and would carry credentials in the clear.\n\
         Give a certificate (--tls-cert and --tls-key), name the proxies that end TLS in front (--behind-proxy 10.0.0.0/8), \
         or listen on 127.0.0.1."
    )]
    TlsNeeded {
        /// The address.
        address: SocketAddr,
    },
    /// A limit of zero would refuse everything.
    #[error("{name} must be at least 1")]
    ZeroLimit {
        /// The flag.
        name: &'static str,
    },
    /// One option means nothing without the other.
    #[error("{given} needs {missing} beside it")]
    Alone {
        /// The option that was given.
        given: &'static str,
        /// The one that is missing.
        missing: &'static str,
    },
    /// A secret is given twice, and nobody can tell which is meant.
    #[error("{variable} and {flag} are both given; leave one out")]
    SecretTwice {
        /// The variable that holds it.
        variable: &'static str,
        /// The option that names its file.
        flag: &'static str,
    },
    /// The file of a secret is of no use.
    #[error("{flag} {}: {problem}", path.display())]
    SecretFile {
        /// The option that names it.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The configuration file cannot be read.
    #[error("{}: {problem}\n  --config or GUIDON_CONFIG names the configuration file.", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// Something in the configuration file is not as it has to be.
    #[error(transparent)]
    File(#[from] FileProblem),
    /// What was taken together from all places does not go together.
    #[error("{0}")]
    Combined(String),
}

impl Config {
    /// Checks what single options cannot.
    ///
    /// # Errors
    ///
    /// The first of [`Self::problems`].
    pub fn check(&self) -> Result<(), ConfigError> {
        self.problems().into_iter().next().map_or(Ok(()), Err)
    }

    /// Everything that single options cannot show to be wrong.
    #[must_use]
    pub fn problems(&self) -> Vec<ConfigError> {
        let mut problems = Vec::new();
        let (network, limits, identity) = (&self.network, &self.limits, &self.identity);
        let pairs = [
            ("--tls-cert", network.tls_cert.is_some(), "--tls-key", network.tls_key.is_some()),
            ("--oidc-issuer", identity.oidc_issuer.is_some(), "--oidc-client-id", identity.oidc_client_id.is_some()),
        ];
        for (one, has_one, other, has_other) in pairs {
            match (has_one, has_other) {
                (true, false) => problems.push(ConfigError::Alone { given: one, missing: other }),
                (false, true) => problems.push(ConfigError::Alone { given: other, missing: one }),
                _ => {}
            }
        }
        if identity.oidc_client_secret_file.is_some() && identity.oidc_issuer.is_none() {
            problems.push(ConfigError::Alone { given: "--oidc-client-secret-file", missing: "--oidc-issuer" });
        }
        if self.monitoring.prometheus_token_file.is_some() && self.monitoring.prometheus_url.is_none() {
            problems.push(ConfigError::Alone { given: "--prometheus-token-file", missing: "--prometheus-url" });
        }
        problems.extend(self.healing.problem());
        if !network.listen.ip().is_loopback() && network.tls_cert.is_none() && network.behind_proxy.is_empty() {
            problems.push(ConfigError::TlsNeeded { address: network.listen });
        }
        let counts = [
            ("--max-body-bytes", limits.max_body_bytes == 0),
            ("--max-concurrent-requests", limits.max_concurrent_requests == 0),
            ("--max-writes-per-second", limits.max_writes_per_second == 0),
            ("--max-refusals-per-second", limits.max_refusals_per_second == 0),
            ("--request-timeout", limits.request_timeout.is_zero()),
            ("--header-timeout", limits.header_timeout.is_zero()),
            ("--handshake-timeout", limits.handshake_timeout.is_zero()),
        ];
        let zeros = counts.iter().filter(|(_, is_zero)| *is_zero);
        problems.extend(zeros.map(|(name, _)| ConfigError::ZeroLimit { name }));
        problems
    }

    /// The file that the option for `secret` names.
    #[must_use]
    pub fn secret_file(&self, secret: &Secret) -> Option<&std::path::Path> {
        match secret.key {
            "admin_token" => self.identity.admin_token_file.as_deref(),
            "oidc_client_secret" => self.identity.oidc_client_secret_file.as_deref(),
            "prometheus_token" => self.monitoring.prometheus_token_file.as_deref(),
            "healing_secret" => self.healing.healing_secret_file.as_deref(),
            _ => self.storage.master_key_file.as_deref(),
        }
    }
}

impl IdentityOptions {
    /// The provider, if there is one; `secret` is the client's.
    #[must_use]
    pub fn provider(&self, secret: Option<String>) -> Option<ProviderConfig> {
        let (issuer, client_id) = (self.oidc_issuer.as_ref()?, self.oidc_client_id.as_ref()?);
        Some(ProviderConfig {
            client_secret: secret.map(ClientSecret::new),
            groups_claim: self.oidc_groups_claim.clone(),
            extra_scopes: self.oidc_scopes.clone(),
            allowed_email_domains: self.oidc_email_domains.clone(),
            factor_classes: self.oidc_mfa_acr.clone(),
            ..ProviderConfig::new(issuer, client_id)
        })
    }
}

impl Network {
    /// The address a request comes from: the peer's, unless the peer is a trusted proxy; then the last address in
    /// X-Forwarded-For that is not itself a trusted proxy.
    #[must_use]
    pub fn client_address(&self, peer: IpAddr, forwarded_for: Option<&str>) -> IpAddr {
        let trusted = |address: IpAddr| self.behind_proxy.iter().any(|net| net.contains(&address.to_canonical()));
        if !trusted(peer) {
            return peer.to_canonical();
        }
        let mut client = peer;
        for hop in forwarded_for.unwrap_or_default().rsplit(',') {
            // Whatever stands left of something that is no address was not written by a proxy we know.
            let Ok(address) = hop.trim().parse::<IpAddr>() else { break };
            client = address;
            if !trusted(address) {
                break;
            }
        }
        client.to_canonical()
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "expected a number of seconds, as 30".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        config: Config,
    }

    fn parse(arguments: &[&str]) -> Config {
        let arguments = std::iter::once("guidon").chain(arguments.iter().copied());
        Command::try_parse_from(arguments).expect("the arguments are right").config
    }

    #[test]
    fn defaults_are_safe_and_complete() {
        let config = parse(&[]);
        assert_eq!(config.network.listen.to_string(), "127.0.0.1:8080");
        assert_eq!(config.storage.data, PathBuf::from("./guidon-data"));
        assert_eq!(config.limits.max_body_bytes, 8_388_608);
        assert_eq!(config.check(), Ok(()));
    }

    #[test]
    fn a_public_address_needs_tls_or_a_named_proxy() {
        let address = "0.0.0.0:8080".parse().unwrap();
        assert_eq!(parse(&["--listen", "0.0.0.0:8080"]).check(), Err(ConfigError::TlsNeeded { address }));
        let behind = parse(&["--listen", "0.0.0.0:8080", "--behind-proxy", "10.0.0.0/8,fd00::/8"]);
        assert_eq!(behind.network.behind_proxy.len(), 2);
        assert_eq!(behind.check(), Ok(()));
        assert_eq!(parse(&["--listen", "[::]:1", "--tls-cert", "cert.pem", "--tls-key", "key.pem"]).check(), Ok(()));
        let alone = parse(&["--tls-cert", "cert.pem"]).check().unwrap_err();
        assert_eq!(alone, ConfigError::Alone { given: "--tls-cert", missing: "--tls-key" });
    }

    #[test]
    fn a_limit_of_zero_is_refused_by_name() {
        let error = parse(&["--max-body-bytes", "0"]).check().unwrap_err();
        assert_eq!(error, ConfigError::ZeroLimit { name: "--max-body-bytes" });
    }

    #[test]
    fn forwarded_addresses_are_believed_from_trusted_proxies_only() {
        let network = parse(&["--behind-proxy", "10.0.0.0/8"]).network;
        let seen = |peer: &str, header: Option<&str>| network.client_address(peer.parse().unwrap(), header).to_string();
        assert_eq!(seen("203.0.113.9", Some("198.51.100.1")), "203.0.113.9");
        assert_eq!(seen("10.1.1.1", Some("198.51.100.1")), "198.51.100.1");
        assert_eq!(seen("10.1.1.1", Some("6.6.6.6, 198.51.100.1, 10.2.2.2")), "198.51.100.1");
        assert_eq!(seen("10.1.1.1", Some("6.6.6.6, rubbish")), "10.1.1.1");
        assert_eq!(seen("::ffff:10.1.1.1", Some("198.51.100.1")), "198.51.100.1");
        assert_eq!(seen("10.1.1.1", None), "10.1.1.1");
    }
}
