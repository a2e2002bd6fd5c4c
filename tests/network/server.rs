//! The server of the simulation: the real parts, on stores that outlive it.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use clap::Parser;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use guidon_sdk::protocol::ExposureBatch;
use guidon_server::app::{self, App};
use guidon_server::assignments::anonymize::{Pseudonym, PseudonymKey};
use guidon_server::assignments::{
    AppendError, Assignment, AssignmentLog, BatchLimits, MemoryAssignments, Origin, Page, Query, QueryError,
    RefusedBatch, Reservoir, Storing,
};
use guidon_server::audit::{CheckpointKey, MemoryAudit, Trail, VaultPeople};
use guidon_server::changes::keysets::MemoryKeySets;
use guidon_server::changes::request::VaultRequests;
use guidon_server::changes::{Author, ChangeDraft, ChangeOutcome, ChangeService, NoReaches, Parts, RandomMint};
use guidon_server::clock::{Clock, ManualClock};
use guidon_server::config::Config;
use guidon_server::drills::{DrillParts, DrillService};
use guidon_server::http::audit::AuditDoor;
use guidon_server::http::sdk::{self, SdkDoor};
use guidon_server::http::{MoreRoutes, transport};
use guidon_server::identity::accounts::Accounts;
use guidon_server::identity::password::Passwords;
use guidon_server::identity::sessions::Sessions;
use guidon_server::identity::sign_in::SignIn;
use guidon_server::identity::{Identity, Uses};
use guidon_server::instances::Deployments;
use guidon_server::journal::{Journal, MemoryJournal};
use guidon_server::metrics::{IntakeLimits, MetricsHub};
use guidon_server::notifications::{
    self, HttpCaller, MemoryRecordStore, Notifications, SystemResolver, WebhookMetrics,
};
use guidon_server::policy::PrincipalKind;
use guidon_server::push::{Hub, PushLimits};
use guidon_server::releases::guard::restraint::RestraintLimits;
use guidon_server::releases::runner::{EngineParts, ReleaseEngine};
use guidon_server::shutdown::Shutdown;
use guidon_server::state::World;
use guidon_server::telemetry::Metrics;
use guidon_server::vault::MemoryVault;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use super::ledger::{Ledger, Phase};
use crate::support::TOKEN;

/// Host name of the server.
pub const NAME: &str = "server";
/// Its port.
pub const PORT: u16 = 8080;
/// Flag that the applications evaluate.
pub const FLAG: &str = "engine";
/// Environment that the applications are in.
const ENVIRONMENT: &str = "development";
/// Thursday, 1 January 2026, in milliseconds since 1970.
const START_MS: u64 = 1_767_225_600_000;
/// Most targeting keys that the simulation's segment gets.
const MAX_KEYS: u32 = 200;

/// What outlives a crash of the server.
pub struct Store {
    pub journal: MemoryJournal,
    key_sets: MemoryKeySets,
    vault: Arc<MemoryVault>,
    log: Arc<MemoryAssignments>,
    credential: OnceLock<String>,
}

/// The pseudonym that the simulation's log stores for a unit.
pub fn pseudonym(unit: &str) -> Pseudonym {
    PseudonymKey::new([7; 32]).pseudonym(unit)
}

impl Store {
    pub fn new() -> Self {
        Self {
            journal: MemoryJournal::new("simulated"),
            key_sets: MemoryKeySets::default(),
            vault: Arc::new(MemoryVault::new()),
            log: Arc::new(MemoryAssignments::new(BatchLimits::default(), PseudonymKey::new([7; 32]))),
            credential: OnceLock::new(),
        }
    }

    /// The SDK key, once there is one.
    pub fn credential(&self) -> Option<&str> {
        self.credential.get().map(String::as_str)
    }

    pub fn assignments(&self) -> Vec<Assignment> {
        self.log.assignments(&Origin { project: "default".into(), environment: ENVIRONMENT.into() })
    }

    /// The journal folded, as a start does before it listens.
    async fn fold(&self) -> World {
        let entries = self.journal.read(0, usize::MAX).await.expect("memory is readable");
        let fold = |world: World, stored| world.fold(stored, &self.key_sets).expect("what was journaled folds");
        entries.iter().fold(World::empty(), fold)
    }
}

/// One life of the server.
pub async fn run(store: Arc<Store>, ledger: Arc<Ledger>, seed: u64) -> turmoil::Result {
    let journal = store.journal.reopened();
    let world = store.fold().await;
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(START_MS));
    let first_revision = world.revision;
    let hub = Arc::new(Hub::new(journal.history(), Arc::new(world.clone()), limits(), Arc::clone(&clock)));
    let audit = Arc::new(MemoryAudit::new());
    let changes = ChangeService::start(Parts {
        journal: Arc::new(journal),
        key_sets: Arc::new(store.key_sets.clone()),
        requests: Arc::new(VaultRequests::new(store.vault.clone())),
        audit: audit.clone(),
        reaches: Arc::new(NoReaches),
        clock: Arc::clone(&clock),
        mint: Box::new(RandomMint),
        world,
        publishers: vec![hub.clone()],
    });
    let mut random = StdRng::seed_from_u64(seed ^ first_revision.rotate_left(32));
    prepare(&store, &changes).await;
    let writers = [0, 1].map(|_| Writer {
        changes: Arc::clone(&changes),
        ledger: Arc::clone(&ledger),
        random: StdRng::from_rng(&mut random),
    });
    tokio::spawn(write(writers));
    let log = SlowLog { log: Arc::clone(&store.log), ledger, random: parking_lot::Mutex::new(random) };
    let listener = Listener(turmoil::net::TcpListener::bind(("0.0.0.0", PORT)).await?);
    let (identity, _) = Identity::open(store.vault.clone(), Some(TOKEN), [1; 32]).await?;
    let (identity, uses) = (Arc::new(identity), Arc::new(Uses::open(store.vault.clone())?));
    let door = SdkDoor {
        hub: Arc::clone(&hub),
        log: Arc::new(log),
        changes: Arc::clone(&changes),
        identity: Arc::clone(&identity),
        uses: Arc::clone(&uses),
        deployments: Arc::new(Deployments::new(audit.clone(), Arc::clone(&clock))),
        audit: audit.clone(),
        clock: Arc::clone(&clock),
    };
    let sessions = Sessions::open(store.vault.clone(), START_MS).await?;
    let accounts = Accounts::open(store.vault.clone(), sessions.clone(), Passwords::new()?)?;
    let follower = Arc::clone(changes.follower());
    let trail = Trail {
        journal: Arc::clone(changes.journal()),
        events: audit.clone(),
        people: Arc::new(VaultPeople::new(store.vault.clone())),
        tiers: Arc::new(move || follower.world()),
    };
    let key = CheckpointKey::open(&*store.vault).await?;
    let notifications = Notifications::new(notifications::Parts {
        changes: Arc::clone(&changes),
        events: audit.clone(),
        people: Arc::new(VaultPeople::new(store.vault.clone())),
        vault: store.vault.clone(),
        caller: Arc::new(HttpCaller::new(Arc::new(SystemResolver::default()), Vec::new())?),
        store: Arc::new(MemoryRecordStore::default()),
        clock: Arc::clone(&clock),
        jitter: || 1.0,
        show_names: false,
        metrics: WebhookMetrics::default(),
    });
    let drills = Arc::new(DrillService::new(DrillParts {
        changes: Arc::clone(&changes),
        prober: hub.clone(),
        log: Arc::clone(&door.log),
        reservoir: Arc::new(Reservoir::new([1; 32], Arc::clone(&clock))),
    }));
    let measured = Arc::new(MetricsHub::new(IntakeLimits::default()));
    let releases = Arc::new(ReleaseEngine::new(EngineParts {
        changes: Arc::clone(&changes),
        metrics: Arc::clone(&measured),
        connections: hub.clone(),
        monitor: None,
        healer: None,
        clock: Arc::clone(&clock),
        limits: RestraintLimits::default(),
    }));
    let parts = app::Parts {
        changes,
        identity,
        sign_in: Arc::new(SignIn::new(accounts, sessions, Arc::clone(&clock), audit.clone())),
        oidc: None,
        uses,
        audit,
        audit_door: Arc::new(AuditDoor::new(trail, key, Arc::clone(&clock))),
        notifications,
        drills,
        clock,
        metrics: Metrics::new(),
        shutdown: Shutdown::new(),
        hub,
        measured,
        releases,
        routes: MoreRoutes { api: sdk::api_routes(door.clone()), open: sdk::routes(door) },
        max_connections: 1_000,
        tls: None,
    };
    let config = Arguments::try_parse_from(["guidon"])?.config;
    Box::pin(App::build(&config, parts).serve(listener)).await;
    Ok(())
}

#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    config: Config,
}

fn limits() -> PushLimits {
    // Short, because the simulated TCP never sends a lost segment again: see the head of `network.rs`.
    PushLimits { heartbeat_interval_ms: 300, hello_timeout_ms: 1_000, catch_up_ms: 500, ..PushLimits::default() }
}

/// What the first life makes; later ones find it.
async fn prepare(store: &Store, changes: &ChangeService) {
    if store.credential().is_some() {
        return;
    }
    changes.ensure_default_project().await.expect("the journal takes it");
    let flag = json!({"key": FLAG, "kind": "string", "variations": [
        {"key": "ai", "value": "ai", "provenance": {"by": "ai"}},
        {"key": "baseline", "value": "baseline", "provenance": {"by": "human"}}]});
    let instructions = json!([
        {"kind": "createFlag", "flag": flag}, {"kind": "turnFlagOn", "flag": FLAG},
        {"kind": "createSegment", "segment": {"key": "beta"}},
        {"kind": "createSdkKey", "audience": "server"},
    ]);
    let outcome = submit(changes, ENVIRONMENT, instructions).await.expect("the journal takes it");
    let minted = outcome.credentials.into_iter().next().expect("a key was made");
    store.credential.set(minted.secret).expect("it was not set before");
}

async fn submit(changes: &ChangeService, environment: &str, instructions: Value) -> Option<ChangeOutcome> {
    let draft = ChangeDraft {
        project: "default".to_owned(),
        environment: Some(environment.to_owned()),
        instructions: serde_json::from_value(instructions).expect("the instructions are well formed"),
        ..ChangeDraft::default()
    };
    changes.submit(&Author::of("operator", "test", PrincipalKind::Operator), draft).await.ok()
}

/// Makes changes, as people do.
struct Writer {
    changes: Arc<ChangeService>,
    ledger: Arc<Ledger>,
    random: StdRng,
}

/// Two people at work, and after them one who makes the last change.
async fn write([mut one, mut other]: [Writer; 2]) {
    futures_util::future::join(one.run(), other.run()).await;
    while one.ledger.target().is_none() {
        // Only what touches the applications' environment moves their revision.
        let instruction = one.rollout();
        if let Some(revision) = one.make(ENVIRONMENT, instruction).await {
            one.ledger.set_target(revision);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

impl Writer {
    async fn run(&mut self) {
        let mut number = 0_u32;
        while self.ledger.phase() == Phase::Faults {
            let pause = Duration::from_millis(self.random.random_range(5..150));
            tokio::time::sleep(pause).await;
            number += 1;
            let (environment, instruction) = self.instruction(number);
            self.make(environment, instruction).await;
        }
    }

    /// Answers the revision the change made, if it made one.
    async fn make(&self, environment: &str, instruction: Value) -> Option<u64> {
        let outcome = submit(&self.changes, environment, json!([instruction])).await?;
        outcome.entry?;
        let entries = self.changes.journal().read(outcome.revision - 1, 1).await.ok()?;
        self.ledger.acknowledge(entries.first().expect("an acknowledged change is durable").head());
        Some(outcome.revision)
    }

    fn rollout(&mut self) -> Value {
        let ai = self.random.random_range(0..=100_000);
        json!({"kind": "setRollout", "flag": FLAG, "weights": {"ai": ai, "baseline": 100_000 - ai}})
    }

    fn instruction(&mut self, number: u32) -> (&'static str, Value) {
        let instruction = match self.random.random_range(0..6) {
            0 => json!({"kind": "turnFlagOff", "flag": FLAG}),
            1 => json!({"kind": "turnFlagOn", "flag": FLAG}),
            2 => {
                let key = format!("person-{}", self.random.random_range(0..MAX_KEYS));
                json!({"kind": "addSegmentKeys", "segment": "beta", "keys": [key]})
            }
            // Elsewhere: the applications' SDKs must not care.
            3 if number.is_multiple_of(2) => return ("testing", json!({"kind": "turnFlagOn", "flag": FLAG})),
            3 => return ("testing", json!({"kind": "turnFlagOff", "flag": FLAG})),
            _ => self.rollout(),
        };
        (ENVIRONMENT, instruction)
    }
}

/// An assignment log that takes its time to be durable and sometimes has no room. A crash loses what was not durable.
struct SlowLog {
    log: Arc<MemoryAssignments>,
    ledger: Arc<Ledger>,
    random: parking_lot::Mutex<StdRng>,
}

impl AssignmentLog for SlowLog {
    fn last_batch(&self, origin: &Origin, instance: &str, epoch: u64) -> u64 {
        self.log.last_batch(origin, instance, epoch)
    }

    fn append(&self, origin: &Origin, batch: ExposureBatch) -> Result<Storing, RefusedBatch> {
        let (log, origin) = (Arc::clone(&self.log), origin.clone());
        let mut random = self.random.lock();
        let takes = Duration::from_millis(random.random_range(0..100));
        let is_full = random.random_ratio(1, 20) && self.ledger.phase() == Phase::Faults;
        let storing: BoxFuture<'static, _> = async move {
            tokio::time::sleep(takes).await;
            if is_full {
                return Err(AppendError::DiskFull);
            }
            log.append(&origin, batch).map_err(|refused| AppendError::Unavailable(refused.0))?.await
        }
        .boxed();
        Ok(storing)
    }

    fn read(&self, query: &Query) -> Result<Page, QueryError> {
        self.log.read(query)
    }
}

struct Listener(turmoil::net::TcpListener);

impl transport::Listener for Listener {
    type Io = turmoil::net::TcpStream;

    async fn accept(&mut self) -> io::Result<(Self::Io, SocketAddr)> {
        self.0.accept().await
    }
}
