//! How a client is set up: one place that names every option, its unit and its default.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::header::HeaderValue;

use super::breaker::BreakerSettings;
use super::connection::{Connector, TcpConnector, Transport};
use super::endpoint::{ConfigError, Endpoint, tls_connector};
use super::hook::Hook;
use super::host::HostHook;
use super::shadows::ShadowBudget;
use super::sync::SyncSettings;
use super::{Client, ConnectError, start};
use crate::measure::HostReading;
use crate::protocol::{Hello, PROTOCOL_VERSION};

/// Most exposures that may wait to be sent, unless the builder says otherwise.
pub const DEFAULT_EXPOSURE_QUEUE: usize = 10_000;

/// Longest application name, version, commit, image or instance id, in bytes: what the server takes. None of them has control
/// characters.
pub const MAX_NAME_BYTES: usize = 256;

/// Sets up a [`Client`]; made by [`Client::builder`]. Every option has a default.
#[must_use = "a builder does nothing until connect() is awaited"]
pub struct ClientBuilder {
    pub(super) address: String,
    sdk_key: String,
    pub(super) settings: SyncSettings,
    pub(super) hello: Hello,
    pub(super) snapshot_file: Option<PathBuf>,
    pub(super) bootstrap: Option<String>,
    pub(super) init_timeout: Duration,
    request_timeout: Duration,
    pub(super) exposures: ExposureSettings,
    pub(super) breaker: Option<BreakerSettings>,
    pub(super) shadow: ShadowBudget,
    root_certificates: Vec<Vec<u8>>,
    allow_plaintext: bool,
    connector: Arc<dyn Connector>,
    pub(super) hooks: Vec<Arc<dyn Hook>>,
    pub(super) host_hook: Option<HostHook>,
}

/// How exposures are recorded and sent.
#[derive(Clone, Debug)]
pub(super) struct ExposureSettings {
    pub(super) enabled: bool,
    pub(super) queue: usize,
    pub(super) window: Duration,
    pub(super) interval: Duration,
}

impl Default for ExposureSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            queue: DEFAULT_EXPOSURE_QUEUE,
            window: Duration::from_secs(60),
            interval: Duration::from_secs(1),
        }
    }
}

impl Default for SyncSettings {
    fn default() -> Self {
        Self {
            reconnect_base: Duration::from_millis(250),
            reconnect_max: Duration::from_secs(4),
            open_timeout: Duration::from_secs(5),
            state_timeout: Duration::from_secs(30),
            heartbeat_interval: Duration::from_secs(10),
            open_failures_before_polling: 3,
            poll_interval: Duration::from_secs(15),
            probe_interval: Duration::from_secs(60),
        }
    }
}

impl ClientBuilder {
    pub(super) fn new(address: String, sdk_key: String) -> Self {
        let hello = Hello {
            protocol: PROTOCOL_VERSION,
            instance: uuid::Uuid::new_v4().to_string(),
            sdk: super::SDK_NAME.to_owned(),
            answers_probes: true,
            ..Hello::default()
        };
        Self {
            address,
            sdk_key,
            settings: SyncSettings::default(),
            hello,
            snapshot_file: None,
            bootstrap: None,
            init_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(10),
            exposures: ExposureSettings::default(),
            breaker: Some(BreakerSettings::default()),
            shadow: ShadowBudget::default(),
            root_certificates: Vec::new(),
            allow_plaintext: false,
            connector: Arc::new(TcpConnector),
            hooks: Vec::new(),
            host_hook: None,
        }
    }

    /// Name of the application, shown to operators. Default: empty.
    pub fn application(mut self, name: impl Into<String>) -> Self {
        self.hello.application = name.into();
        self
    }

    /// Version of the application. Default: empty.
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.hello.version = version.into();
        self
    }

    /// Source commit the application was built from. Default: empty.
    pub fn commit(mut self, commit: impl Into<String>) -> Self {
        self.hello.commit = commit.into();
        self
    }

    /// Digest of the image the application runs from. Default: empty.
    pub fn image(mut self, digest: impl Into<String>) -> Self {
        self.hello.image = digest.into();
        self
    }

    /// Identifies this client among all that are connected, for as long as it lives. Two that live at once must differ.
    /// Default: a random UUID.
    pub fn instance(mut self, id: impl Into<String>) -> Self {
        self.hello.instance = id.into();
        self
    }

    /// File that keeps the last good snapshot, so that the application starts with the server down. It is replaced whole,
    /// readable by the owner alone, shortly after each change. A damaged file, or one of another server or SDK key, is ignored
    /// with a warning. A snapshot's bare JSON is taken too. Default: none.
    pub fn snapshot_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.snapshot_file = Some(path.into());
        self
    }

    /// Snapshot, as JSON, to start from where there is no usable snapshot file: one that was shipped with the application.
    /// Default: none.
    pub fn bootstrap(mut self, json: impl Into<String>) -> Self {
        self.bootstrap = Some(json.into());
        self
    }

    /// Longest that [`Self::connect`] waits for a first state if it has none from disk. Default: 5 s.
    pub fn init_timeout(mut self, limit: Duration) -> Self {
        self.init_timeout = limit;
        self
    }

    /// Longest that one attempt to open the push stream takes. Default: 5 s.
    pub fn open_timeout(mut self, limit: Duration) -> Self {
        self.settings.open_timeout = limit;
        self
    }

    /// Longest that the server may take for its first state, or for a snapshot the client asked for. Default: 30 s.
    pub fn state_timeout(mut self, limit: Duration) -> Self {
        self.settings.state_timeout = limit;
        self
    }

    /// Longest that one HTTP request takes while polling. Default: 10 s.
    pub fn request_timeout(mut self, limit: Duration) -> Self {
        self.request_timeout = limit;
        self
    }

    /// Bounds of the delay before an attempt to reconnect: `base` before the first, doubled for each that fails, up to `max`;
    /// the delay is a random share of the bound ("full jitter"). Default: 250 ms and 4 s.
    pub fn reconnect_delay(mut self, base: Duration, max: Duration) -> Self {
        self.settings.reconnect_base = base;
        self.settings.reconnect_max = max;
        self
    }

    /// Heartbeat interval until the server names its own; a server silent for three intervals is left. Default: 10 s.
    pub fn heartbeat_interval(mut self, interval: Duration) -> Self {
        self.settings.heartbeat_interval = interval.max(Duration::from_millis(1));
        self
    }

    /// Time between two polls where websockets are blocked. Default: 15 s, at least 100 ms.
    pub fn poll_interval(mut self, interval: Duration) -> Self {
        self.settings.poll_interval = interval.max(Duration::from_millis(100));
        self
    }

    /// Time between two attempts to get a websocket while polling. Default: 60 s, at least 100 ms.
    pub fn probe_interval(mut self, interval: Duration) -> Self {
        self.settings.probe_interval = interval.max(Duration::from_millis(100));
        self
    }

    /// Attempts in a row to get a working websocket that must fail before polling is tried. Default: 3, at least 1.
    pub fn open_failures_before_polling(mut self, failures: u32) -> Self {
        self.settings.open_failures_before_polling = failures.max(1);
        self
    }

    /// Whether exposures are recorded at all. Default: yes.
    pub fn exposures(mut self, enabled: bool) -> Self {
        self.exposures.enabled = enabled;
        self
    }

    /// Most exposures that may wait to be sent; past it they are dropped, and the server is told how many. Default:
    /// [`DEFAULT_EXPOSURE_QUEUE`].
    pub fn exposure_queue(mut self, exposures: usize) -> Self {
        self.exposures.queue = exposures.clamp(1, 1 << 24);
        self
    }

    /// Within one window the same unit, flag and variation is reported once. Outcomes of a failed AI path are always
    /// reported. Default: 60 s, at least 1 s.
    pub fn exposure_window(mut self, window: Duration) -> Self {
        self.exposures.window = window.max(Duration::from_secs(1));
        self
    }

    /// Longest that an exposure waits for its batch to fill. Default: 1 s, at least 10 ms.
    pub fn exposure_interval(mut self, interval: Duration) -> Self {
        self.exposures.interval = interval.max(Duration::from_millis(10));
        self
    }

    /// When an AI path that fails is given up for a while, the baseline answering in its place; `None`: never. Default: after 20
    /// failures that are at least half the calls of 10 seconds, for 5 seconds and more; see [`BreakerSettings`]. It works in
    /// this process alone, with or without the server.
    pub fn breaker(mut self, settings: impl Into<Option<BreakerSettings>>) -> Self {
        self.breaker = settings.into();
        self
    }

    /// What AI paths that run in the shadow may take of this process; see [`Path::shadow`](super::Path::shadow). Default: two at once,
    /// busy a tenth of one core's time; see [`ShadowBudget`].
    pub fn shadow_budget(mut self, budget: ShadowBudget) -> Self {
        self.shadow = budget;
        self
    }

    /// Trusts the certificates in `pem`, and none of the system's. May be called several times. Default: the system's.
    pub fn root_certificate(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.root_certificates.push(pem.into());
        self
    }

    /// Lets the SDK key and raw unit ids go unencrypted to an address that is not loopback. Only for networks that are
    /// trusted, such as a service mesh that encrypts by itself. Default: refused.
    pub fn allow_plaintext(mut self) -> Self {
        self.allow_plaintext = true;
        self
    }

    /// Opens byte streams by `connector` instead of TCP: through a proxy, or in a simulated network.
    pub fn connector(mut self, connector: impl Connector) -> Self {
        self.connector = Arc::new(connector);
        self
    }

    /// Adds a hook, which sees every evaluation. Hooks run in the order they were added.
    pub fn hook(mut self, hook: impl Hook) -> Self {
        self.hooks.push(Arc::new(hook));
        self
    }

    /// Asks `hook` once a second how the host does, and sends it to the server with what was measured. It is called on the
    /// client's task while the websocket is up, so it must not wait for anything; if it panics, that is logged.
    /// [`process_readings`](super::process_readings) is one that is ready. Default: none.
    pub fn host_readings(mut self, hook: impl Fn() -> HostReading + Send + Sync + 'static) -> Self {
        self.host_hook = Some(Arc::new(hook));
        self
    }

    /// Connects.
    ///
    /// With a usable snapshot file or bootstrap the client is returned at once, `Stale`, and becomes current in the
    /// background. Without, this waits at most [`Self::init_timeout`] for the first state. A server that is down is no error:
    /// the client is then `Initializing`, answers the callers' defaults, and goes on trying.
    ///
    /// # Errors
    /// [`ConnectError::Config`] if an option is not usable; [`ConnectError::CredentialRefused`] if the server refused the SDK
    /// key and there is nothing to serve from.
    pub async fn connect(self) -> Result<Client, ConnectError> {
        start::connect(self).await
    }

    pub(super) fn scope(&self) -> String {
        super::bootstrap::scope(&self.address, &self.sdk_key)
    }

    fn check_names(&self) -> Result<(), ConfigError> {
        let hello = &self.hello;
        let names = [
            ("application()", &hello.application),
            ("version()", &hello.version),
            ("commit()", &hello.commit),
            ("image()", &hello.image),
            ("instance()", &hello.instance),
        ];
        let is_wrong = |text: &str| text.len() > MAX_NAME_BYTES || text.chars().any(char::is_control);
        let wrong = names.into_iter().find(|(_, text)| is_wrong(text));
        let wrong = wrong.map(|(name, _)| name).or(hello.instance.is_empty().then_some("instance()"));
        wrong.map_or(Ok(()), |name| Err(ConfigError::Name(name)))
    }

    pub(super) fn transport(&self) -> Result<Transport, ConfigError> {
        self.check_names()?;
        let endpoint = Endpoint::parse(&self.address, self.allow_plaintext)?;
        let usable = !self.sdk_key.is_empty() && self.sdk_key.bytes().all(|byte| byte.is_ascii_graphic());
        let authorization = HeaderValue::try_from(format!("Bearer {}", self.sdk_key));
        let mut authorization = authorization.ok().filter(|_| usable).ok_or(ConfigError::SdkKey)?;
        authorization.set_sensitive(true);
        let tls = endpoint.uses_tls().then(|| tls_connector(&self.root_certificates)).transpose()?;
        Ok(Transport::new(endpoint, Arc::clone(&self.connector), tls, authorization, self.request_timeout))
    }
}

impl std::fmt::Debug for ClientBuilder {
    /// Leaves the SDK key out.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("ClientBuilder")
            .field("address", &self.address.rsplit('@').next())
            .field("hello", &self.hello)
            .field("settings", &self.settings)
            .field("snapshot_file", &self.snapshot_file)
            .finish_non_exhaustive()
    }
}
