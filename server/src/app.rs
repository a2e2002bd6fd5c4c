//! The composition root: the only place that names implementations.

mod offline;
mod outside;

use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use self::offline::{RecoverError, given_key, offline_backup, open_vault, recover_account, restore_backup};
use crate::assignments::{self, BatchLimits, FileAssignmentLog, Reservoir, Retention, SampledLog};
use crate::audit::{self, AuditLog, AuditOptions, CheckpointKey, DirectoryPeople, FileAuditLog, Trail, VaultPeople};
use crate::backup::{BackupKey, Sources};
use crate::changes::request::VaultRequests;
use crate::changes::{ChangeError, ChangeService, LoggedReaches, Parts as ChangeParts, RandomMint};
use crate::clock::{Clock, SystemClock};
use crate::config::{ADMIN_TOKEN, Config, ConfigError, MASTER_KEY, OIDC_CLIENT_SECRET};
use crate::drills::{DrillParts, DrillService};
use crate::http::audit::AuditDoor;
use crate::http::backup::{self, BackupDoor};
use crate::http::sdk::{self, SdkDoor};
use crate::http::transport::{Acceptor, Admission, Listener, Tls, TlsError, connection_limit};
use crate::http::{Api, ApiParts, MoreRoutes, router};
use crate::identity::accounts::{AccountError, Accounts};
use crate::identity::oidc::{OidcError, SignInFlow};
use crate::identity::password::Passwords;
use crate::identity::sessions::Sessions;
use crate::identity::sign_in::SignIn;
use crate::identity::{Credential, Identity, IdentityError, Uses};
use crate::instances::Deployments;
use crate::jobs::deadlines::Deadlines;
use crate::jobs::drift::Drift;
use crate::jobs::releases::Releases;
use crate::jobs::requests::Requests;
use crate::jobs::sweep::Sweep;
use crate::jobs::{Job, Jobs};
use crate::journal::{self, FileJournal, Health, Journal};
use crate::log::{LogState, RealFiles};
use crate::metrics::{IntakeLimits, MetricsHub};
use crate::monitoring::BadEndpoint;
use crate::notifications::{FileRecordStore, HttpCaller, Notifications, Parts as HookParts, WebhookMetrics};
use crate::push::{Hub, PushLimits};
use crate::releases::guard::restraint::RestraintLimits;
use crate::releases::healer::{HealingParts, HealingService, VERIFY_AFTER};
use crate::releases::runner::{EngineParts, ReleaseEngine, RoutedInstances};
use crate::shutdown::Shutdown;
use crate::state::{self, DataFolder, FolderLock, Follower, Keeper, OpenOptions, Publisher, World};
use crate::telemetry::Metrics;
use crate::vault::{FileVault, KeySource, MasterKey, Vault, VaultError, VaultKeySets};

/// What SDK keys are derived from is itself derived from the master key for this purpose.
const SDK_KEY_PURPOSE: &str = "guidon 2026-11 SDK keys that an idempotent request made";

/// Why the server does not start. Nothing on disk was changed.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The journal does not open.
    #[error(transparent)]
    State(#[from] state::StartError),
    /// The assignment log does not open.
    #[error(transparent)]
    Assignments(#[from] assignments::OpenError),
    /// The vault does not open.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The operator's token cannot be used, or not be made.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Accounts cannot be read.
    #[error(transparent)]
    Accounts(#[from] AccountError),
    /// The OpenID provider is not one that can be asked.
    #[error("--oidc-issuer: {0}")]
    Provider(#[from] OidcError),
    /// A secret cannot be read.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The second log does not open.
    #[error(transparent)]
    Audit(#[from] audit::OpenError),
    /// Webhooks cannot be called, or what is kept of them not be opened.
    #[error("webhooks: {0}")]
    Webhooks(String),
    /// Other monitoring cannot be asked.
    #[error("--prometheus-url: {0}")]
    Monitoring(#[from] BadEndpoint),
    /// Healing actions cannot be called.
    #[error("--healing: {0}")]
    Healing(&'static str),
    /// The certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The first entry could not be journaled.
    #[error("the first project could not be created: {0}")]
    FirstChange(#[from] ChangeError),
    /// A limit cannot be held.
    #[error("{0}")]
    Limit(String),
    /// A background task of the start ended.
    #[error("the start was cut short: {0}")]
    Interrupted(String),
}

/// What a server is made of.
pub struct Parts {
    /// The write path, and the state.
    pub changes: Arc<ChangeService>,
    /// The operator's token, and the places that requests come from.
    pub identity: Arc<Identity>,
    /// Signs people in.
    pub sign_in: Arc<SignIn>,
    /// Signs people in at an OpenID provider, if there is one.
    pub oidc: Option<Arc<SignInFlow>>,
    /// When and from where credentials were used.
    pub uses: Arc<Uses>,
    /// Takes note of what is no change.
    pub audit: Arc<dyn AuditLog>,
    /// Both logs, to be read, checked and signed.
    pub audit_door: Arc<AuditDoor>,
    /// The webhooks.
    pub notifications: Arc<Notifications>,
    /// Rehearses rollbacks.
    pub drills: Arc<DrillService>,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// Metrics.
    pub metrics: Metrics,
    /// Begins and announces the stop.
    pub shutdown: Shutdown,
    /// Pushes changes to connected SDKs.
    pub hub: Arc<Hub>,
    /// What instances count.
    pub measured: Arc<MetricsHub>,
    /// The release engine.
    pub releases: Arc<ReleaseEngine>,
    /// Routes of other parts of the server.
    pub routes: MoreRoutes,
    /// How many connections are let in.
    pub max_connections: usize,
    /// How connections are secured.
    pub tls: Option<Tls>,
}

/// A server, ready to serve.
pub struct App {
    acceptor: Acceptor,
    notifications: Arc<Notifications>,
    hub: Arc<Hub>,
    jobs: Vec<Arc<dyn Job>>,
    clock: Arc<dyn Clock>,
}

impl App {
    /// Puts the routes together.
    #[must_use]
    pub fn build(config: &Config, parts: Parts) -> Self {
        let jobs: Vec<Arc<dyn Job>> = vec![
            Arc::new(Deadlines::new(Arc::clone(&parts.changes))),
            Arc::new(Drift::new(Arc::clone(&parts.changes), &parts.metrics)),
            Arc::new(Releases::new(Arc::clone(&parts.releases), Arc::clone(&parts.clock))),
            Arc::new(Requests::new(Arc::clone(&parts.changes))),
            Arc::new(Sweep::new(Arc::clone(&parts.sign_in))),
        ];
        let clock = Arc::clone(&parts.clock);
        let api = Api::new(ApiParts {
            changes: parts.changes,
            identity: parts.identity,
            sign_in: parts.sign_in,
            oidc: parts.oidc,
            uses: parts.uses,
            audit: parts.audit,
            audit_door: parts.audit_door,
            notifications: Arc::clone(&parts.notifications),
            drills: parts.drills,
            releases: parts.releases.clone(),
            clock: Arc::clone(&parts.clock),
            metrics: parts.metrics.clone(),
            limits: config.limits.clone(),
            network: config.network.clone(),
            shutdown: parts.shutdown.clone(),
            started_at: parts.clock.now_ms(),
        });
        let acceptor = Acceptor {
            router: router(api, parts.routes),
            admission: Admission::new(parts.max_connections, parts.metrics.connections),
            tls: parts.tls,
            limits: config.limits.clone(),
            shutdown: parts.shutdown,
        };
        Self { acceptor, notifications: parts.notifications, hub: parts.hub, jobs, clock }
    }

    /// Serves what `listener` accepts until the shutdown begins, then waits for the connections to end, for a bounded time.
    pub async fn serve(self, listener: impl Listener) {
        let (admission, timeout) = (self.acceptor.admission.clone(), self.acceptor.limits.shutdown_timeout);
        let jobs = Jobs::start(&self.jobs, &self.clock, &self.acceptor.shutdown);
        let notifying = self.notifications.start(&self.acceptor.shutdown);
        self.acceptor.run(listener).await;
        let ended = async {
            // The last write of a job is durable before the store closes.
            tokio::join!(jobs.ended(), notifying.ended(), self.hub.shut_down());
            admission.all_gone().await;
        };
        if tokio::time::timeout(timeout, ended).await.is_err() {
            tracing::warn!(open = admission.open(), "connections are cut off: they did not end in time");
        }
    }
}

/// A server on the embedded store, opened.
pub struct Embedded {
    /// What it is made of.
    pub parts: Parts,
    /// The operator's token, if it was made now: to be shown once.
    pub made_token: Option<Credential>,
    /// The file a master key was written to, if it was made now: to be backed up apart from the data.
    pub made_key_file: Option<PathBuf>,
    store: Store,
}

/// What must be closed in order.
pub struct Store {
    journal: Arc<FileJournal>,
    assignments: Arc<FileAssignmentLog>,
    keeper: Arc<Keeper>,
    audit: Arc<FileAuditLog>,
    vault: FileVault,
    _lock: FolderLock,
}

impl Embedded {
    /// Opens the store in the data folder, creating it if there is none. `chosen_token` and `master_key` come from the
    /// environment.
    ///
    /// # Errors
    ///
    /// [`StartError`], with what the operator can do.
    pub async fn open(
        config: &Config,
        chosen_token: Option<&str>,
        master_key: Option<&str>,
    ) -> Result<Self, StartError> {
        let max_connections = connection_limit(config.limits.max_connections).map_err(StartError::Limit)?;
        chosen_token.map(Identity::check_chosen).transpose()?;
        let tls = match (&config.network.tls_cert, &config.network.tls_key) {
            (Some(certificate), Some(key)) => Some(Tls::open(certificate, key)?),
            _ => None,
        };
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let oidc = provider(config, &clock)?;
        let (folder, key_file) = (config.storage.data.clone(), master_key_file(config));
        let master_key = master_key.map(str::to_owned);
        let opening = Arc::clone(&clock);
        let opened =
            tokio::task::spawn_blocking(move || open_files(folder, &key_file, master_key.as_deref(), opening)).await;
        let files = opened.map_err(|error| StartError::Interrupted(error.to_string()))??;
        let backups = backup_sources(&files, config.storage.data.clone(), Arc::clone(&clock));
        let vault: Arc<dyn Vault> = Arc::new(files.vault.clone());
        let secret = files.key.derive(SDK_KEY_PURPOSE);
        let (identity, made_token) = Identity::open(Arc::clone(&vault), chosen_token, secret).await?;
        let audit = Arc::new(files.audit);
        let sign_in = sign_in(&vault, &clock, &audit).await?;
        let uses = Arc::new(Uses::open(Arc::clone(&vault))?);
        let journal: Arc<dyn Journal> = files.journal.clone();
        let world = Arc::new(files.world.clone());
        let limits = PushLimits { max_connections, ..PushLimits::default() };
        let deployments = Arc::new(Deployments::new(audit.clone(), Arc::clone(&clock)));
        let measured = Arc::new(MetricsHub::new(IntakeLimits::default()));
        let hub = Hub::new(journal.history(), world, limits, Arc::clone(&clock))
            .with_sights(deployments.clone())
            .with_directives(Arc::new(RoutedInstances))
            .with_metrics(measured.clone());
        let hub = Arc::new(hub);
        remember_builds(&deployments, &audit);
        let keeper = Arc::new(files.keeper);
        let publishers: Vec<Arc<dyn Publisher>> = vec![hub.clone(), keeper.clone()];
        let changes = ChangeService::start(ChangeParts {
            journal,
            key_sets: Arc::new(VaultKeySets::new(Arc::clone(&vault))),
            requests: Arc::new(VaultRequests::new(Arc::clone(&vault))),
            audit: audit.clone(),
            reaches: Arc::new(LoggedReaches::new(files.assignments.clone(), Arc::clone(&clock))),
            clock: Arc::clone(&clock),
            mint: Box::new(RandomMint),
            world: files.world,
            publishers,
        });
        changes.ensure_default_project().await?;
        let audit_door = Arc::new(audit_door(&vault, &changes, &audit, &clock).await?);
        let caller = outside::caller(config)?;
        let notifications = webhooks(config, &vault, &changes, &audit, &caller, &clock)?;
        let healing = HealingParts {
            actions: config.healing.healing.clone(),
            secret: outside::healing_secret(config)?,
            caller,
            incidents: changes.clone(),
            metrics: Arc::clone(&measured),
            connections: hub.clone(),
            clock: Arc::clone(&clock),
            verify_after: VERIFY_AFTER,
        };
        let identity = Arc::new(identity);
        let reservoir = Arc::new(Reservoir::new(rand::random(), Arc::clone(&clock)));
        let drills = Arc::new(DrillService::new(DrillParts {
            changes: Arc::clone(&changes),
            prober: hub.clone(),
            log: files.assignments.clone(),
            reservoir: Arc::clone(&reservoir),
        }));
        let door = SdkDoor {
            hub: Arc::clone(&hub),
            log: Arc::new(SampledLog::new(files.assignments.clone(), reservoir)),
            changes: Arc::clone(&changes),
            identity: Arc::clone(&identity),
            uses: Arc::clone(&uses),
            deployments,
            audit: audit.clone(),
            clock: Arc::clone(&clock),
        };
        let routes = backup::routes(Arc::new(BackupDoor::new(backups)));
        let routes = MoreRoutes { api: sdk::api_routes(door.clone()).merge(routes), open: sdk::routes(door) };
        let store = Store {
            journal: files.journal,
            assignments: files.assignments,
            keeper,
            audit: Arc::clone(&audit),
            vault: files.vault,
            _lock: files.lock,
        };
        let releases = Arc::new(ReleaseEngine::new(EngineParts {
            changes: Arc::clone(&changes),
            metrics: Arc::clone(&measured),
            connections: hub.clone(),
            monitor: outside::monitor(config)?,
            healer: Some(Arc::new(HealingService::new(healing))),
            clock: Arc::clone(&clock),
            limits: RestraintLimits::default(),
        }));
        let metrics = Metrics::new();
        store.register(&metrics, &changes, &hub, &clock);
        register_webhooks(&metrics, &notifications);
        metrics.register(|registry| measured.counts().register(registry));
        outside::show_names(config, &metrics, &measured);
        let parts = Parts {
            changes,
            identity,
            sign_in,
            oidc,
            uses,
            audit,
            audit_door,
            notifications,
            drills,
            clock,
            metrics,
            shutdown: Shutdown::new(),
            hub,
            measured,
            releases,
            routes,
            max_connections,
            tls,
        };
        Ok(Self { parts, made_token, made_key_file: files.made_key_file, store })
    }

    /// The server, and the store to close once it has stopped.
    #[must_use]
    pub fn into_app(self, config: &Config) -> (App, Store) {
        (App::build(config, self.parts), self.store)
    }
}

/// Reads in the background which builds were seen before: the security log may be long.
fn remember_builds(deployments: &Arc<Deployments>, audit: &Arc<FileAuditLog>) {
    let (deployments, audit) = (Arc::clone(deployments), Arc::clone(audit));
    tokio::spawn(async move {
        if let Err(error) = deployments.remember(&*audit).await {
            tracing::warn!(%error, "builds that were seen before may be noted as new");
        }
    });
}

impl Store {
    /// Registers what the store has to say of itself.
    fn register(&self, metrics: &Metrics, changes: &Arc<ChangeService>, hub: &Arc<Hub>, clock: &Arc<dyn Clock>) {
        let follower = Arc::clone(changes.follower());
        metrics.reading("revision", "Revision of the state that is served", move || whole(follower.world().revision));
        let (follower, clock) = (Arc::clone(changes.follower()), Arc::clone(clock));
        let help = "Tokens that end within 7 days, were made to last longer and have no successor";
        metrics.reading("credentials_expiring", help, move || {
            whole(follower.world().directory.expiring_tokens(clock.now_ms()).count() as u64)
        });
        let journal = Arc::clone(&self.journal);
        metrics
            .reading("journal_revision", "Last durable entry of the journal", move || whole(journal.head().revision));
        let journal = Arc::clone(&self.journal);
        metrics.reading("journal_writable", "1 while the journal takes entries", move || {
            i64::from(journal.health() == Health::Writable)
        });
        let journal = Arc::clone(&self.journal);
        metrics.reading("journal_bytes", "Length of the journal's files", move || whole(journal.log_health().bytes));
        let journal = Arc::clone(&self.journal);
        metrics.reading("journal_commits", "Writes and syncs of the journal since the start", move || {
            whole(journal.log_health().commits)
        });
        let journal = Arc::clone(&self.journal);
        metrics.reading("journal_pending_bytes", "Bytes that wait to be written to the journal", move || {
            whole(journal.log_health().pending_bytes as u64)
        });
        let keeper = Arc::clone(&self.keeper);
        metrics.reading("state_kept_revision", "Revision of the state's copy on disk", move || {
            whole(keeper.health().revision)
        });
        let log = Arc::clone(&self.assignments);
        metrics.reading("assignments_writable", "1 while the assignment log takes batches", move || {
            i64::from(log.health().state == LogState::Writable)
        });
        let log = Arc::clone(&self.assignments);
        metrics.reading("assignments_bytes", "Length of the assignment log's files", move || whole(log.health().bytes));
        let log = Arc::clone(&self.audit);
        metrics.reading("security_log_writable", "1 while the security log takes events", move || {
            i64::from(log.health().is_writable())
        });
        let log = Arc::clone(&self.audit);
        metrics
            .reading("security_log_bytes", "Length of the security log's files", move || whole(log.health().log.bytes));
        let log = Arc::clone(&self.audit);
        metrics.reading("security_log_queued", "Events that wait to be written to the security log", move || {
            whole(log.health().queued as u64)
        });
        let log = Arc::clone(&self.audit);
        metrics.reading(
            "security_log_lost",
            "Events since the start that could not be written and are only counted",
            move || whole(log.health().lost),
        );
        metrics.register(|registry| {
            hub.metrics().register(registry);
            self.assignments.metrics().register(registry);
        });
        let hub = Arc::clone(hub);
        let help = "Open websockets, those before their hello included";
        metrics.reading("sdk_connections", help, move || whole(hub.connection_count() as u64));
    }

    /// The assignment log.
    #[must_use]
    pub fn assignments(&self) -> &Arc<FileAssignmentLog> {
        &self.assignments
    }

    /// Writes what waits and releases the folder. Blocks.
    pub fn close(&self) {
        if let Err(error) = self.journal.close() {
            tracing::error!(%error, "the journal did not close cleanly; its last acknowledged entry is durable all the same");
        }
        if let Err(error) = self.assignments.close() {
            tracing::error!(%error, "the assignment log did not close cleanly; what it acknowledged is durable all the same");
        }
        if let Err(error) = self.audit.close() {
            tracing::error!(%error, "the security log did not close cleanly");
        }
        self.keeper.close();
        if let Err(error) = self.vault.close() {
            tracing::error!(%error, "the vault did not close cleanly");
        }
    }
}

/// A count as a gauge's value.
fn whole(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn webhooks(
    config: &Config,
    vault: &Arc<dyn Vault>,
    changes: &Arc<ChangeService>,
    events: &Arc<FileAuditLog>,
    caller: &Arc<HttpCaller>,
    clock: &Arc<dyn Clock>,
) -> Result<Arc<Notifications>, StartError> {
    let failed = |error: &dyn std::fmt::Display| StartError::Webhooks(error.to_string());
    let folder = DataFolder::new(config.storage.data.clone()).notifications();
    let store = FileRecordStore::open(RealFiles::shared(), folder).map_err(|error| failed(&error))?;
    Ok(Notifications::new(HookParts {
        changes: Arc::clone(changes),
        events: events.clone(),
        people: Arc::new(VaultPeople::new(Arc::clone(vault))),
        vault: Arc::clone(vault),
        caller: caller.clone(),
        store: Arc::new(store),
        clock: Arc::clone(clock),
        jitter: rand::random::<f64>,
        show_names: config.webhooks.webhook_names,
        metrics: WebhookMetrics::default(),
    }))
}

fn register_webhooks(metrics: &Metrics, notifications: &Arc<Notifications>) {
    metrics.register(|registry| notifications.metrics().register(registry));
    let of = Arc::clone(notifications);
    let help = "Age of the oldest notification that a webhook still tries to deliver";
    metrics.reading("webhook_queue_age_seconds", help, move || whole(of.queue_age_ms() / 1_000));
    let of = Arc::clone(notifications);
    let help = "Notifications that were given up and are kept to be sent again";
    metrics.reading("webhook_dead_letters", help, move || whole(of.dead_letter_count() as u64));
}

async fn audit_door(
    vault: &Arc<dyn Vault>,
    changes: &ChangeService,
    events: &Arc<FileAuditLog>,
    clock: &Arc<dyn Clock>,
) -> Result<AuditDoor, VaultError> {
    let world = |follower: &Arc<Follower>| {
        let follower = Arc::clone(follower);
        move || follower.world()
    };
    let trail = Trail {
        journal: Arc::clone(changes.journal()),
        events: events.clone(),
        people: Arc::new(DirectoryPeople::new(world(changes.follower()), VaultPeople::new(Arc::clone(vault)))),
        tiers: Arc::new(world(changes.follower())),
    };
    Ok(AuditDoor::new(trail, CheckpointKey::open(&**vault).await?, Arc::clone(clock)))
}

async fn sign_in(
    vault: &Arc<dyn Vault>,
    clock: &Arc<dyn Clock>,
    audit: &Arc<FileAuditLog>,
) -> Result<Arc<SignIn>, StartError> {
    let sessions = Sessions::open(Arc::clone(vault), clock.now_ms()).await?;
    let accounts = Accounts::open(Arc::clone(vault), sessions.clone(), Passwords::new().map_err(AccountError::from)?)?;
    Ok(Arc::new(SignIn::new(accounts, sessions, Arc::clone(clock), audit.clone())))
}

/// The provider that people sign in at, if one is configured. It is not asked yet.
fn provider(config: &Config, clock: &Arc<dyn Clock>) -> Result<Option<Arc<SignInFlow>>, StartError> {
    let secret = OIDC_CLIENT_SECRET.read(config)?;
    let Some(provider) = config.identity.provider(secret) else { return Ok(None) };
    Ok(Some(Arc::new(SignInFlow::new(provider, Arc::clone(clock))?)))
}

/// Everything that would keep a server from starting with this configuration and can be told without touching its store.
#[must_use]
pub fn check_start(config: &Config) -> Vec<StartError> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let tls = match (&config.network.tls_cert, &config.network.tls_key) {
        (Some(certificate), Some(key)) => Tls::open(certificate, key).err().map(StartError::from),
        _ => None,
    };
    let limit = connection_limit(config.limits.max_connections).err().map(StartError::Limit);
    let token = ADMIN_TOKEN
        .read(config)
        .map_err(StartError::from)
        .and_then(|token| Ok(token.map(|token| Identity::check_chosen(&token)).transpose().map(drop)?));
    let key = MasterKey::check(MASTER_KEY.in_environment().as_deref(), &master_key_file(config));
    let provider = provider(config, &clock).err();
    let (monitor, healing) = (outside::monitor(config).err(), outside::healing_secret(config).err());
    let all = [tls, limit, token.err(), key.err().map(StartError::from), provider, monitor, healing];
    all.into_iter().flatten().collect()
}

/// The file that holds the master key where no variable does.
fn master_key_file(config: &Config) -> PathBuf {
    let own = || DataFolder::new(&config.storage.data).master_key();
    config.storage.master_key_file.clone().unwrap_or_else(own)
}

struct OpenedFiles {
    journal: Arc<FileJournal>,
    assignments: Arc<FileAssignmentLog>,
    audit: FileAuditLog,
    vault: FileVault,
    key: MasterKey,
    made_key_file: Option<PathBuf>,
    world: World,
    keeper: Keeper,
    lock: FolderLock,
}

fn open_files(
    folder: PathBuf,
    key_file: &Path,
    master_key: Option<&str>,
    clock: Arc<dyn Clock>,
) -> Result<OpenedFiles, StartError> {
    let files = RealFiles::shared();
    let folder = DataFolder::new(folder);
    let lock = folder.lock(&*files).map_err(journal::OpenError::from).map_err(state::StartError::from)?;
    let (key, source) = MasterKey::load_or_create(master_key, key_file, &folder.vault())?;
    let made_key_file = match source {
        KeySource::Created(path) => Some(path),
        KeySource::File(path, Some(mode)) => {
            tracing::warn!(path = %path.display(), mode = format!("{mode:o}"), "others can read the master key: chmod 600");
            None
        }
        KeySource::File(..) | KeySource::Environment => None,
    };
    let vault = FileVault::open(Arc::clone(&files), &folder.vault(), &key)?.vault;
    let shared_vault: Arc<dyn Vault> = Arc::new(vault.clone());
    let key_sets = VaultKeySets::new(Arc::clone(&shared_vault));
    let (journal, state) = (folder.journal(), folder.state());
    let opened = state::open(Arc::clone(&files), &journal, &state, OpenOptions::default(), &*clock, &key_sets)?;
    let (audit, recovered) =
        FileAuditLog::open(Arc::clone(&files), &folder.security(), Arc::clone(&clock), AuditOptions::default())?;
    if let Some(torn) = recovered.torn {
        tracing::warn!(?torn, "the end of the security log was not completely written and was cut off");
    }
    let (assignments, recovered) = FileAssignmentLog::open(
        files,
        &folder.assignments(),
        shared_vault,
        clock,
        BatchLimits::default(),
        Retention::default(),
    )?;
    if let Some(torn) = recovered.torn {
        tracing::warn!(?torn, "the end of the assignment log was not completely written and was cut off");
    }
    Ok(OpenedFiles {
        journal: Arc::new(opened.journal),
        assignments: Arc::new(assignments),
        audit,
        vault,
        key,
        made_key_file,
        world: opened.world,
        keeper: opened.keeper,
        lock,
    })
}

/// What a backup of this store is made of.
fn backup_sources(files: &OpenedFiles, spool: PathBuf, clock: Arc<dyn Clock>) -> Box<backup::MakeSources> {
    let (journal, security, vault) = (files.journal.reader(), files.audit.reader(), files.vault.reader());
    let (assignments, history) = (files.assignments.reader(), files.journal.history().to_owned());
    let key = BackupKey::of(&files.key);
    Box::new(move |with_assignments| Sources {
        journal: journal.clone(),
        security: security.clone(),
        assignments: with_assignments.then(|| assignments.clone()),
        vault: vault.clone(),
        history: history.clone(),
        key: key.clone(),
        master_key: None,
        spool: spool.clone(),
        now: clock.now_ms(),
    })
}
