//! The doors over HTTP: the listener, the routes, and errors as callers see them.

pub mod accounts;
pub mod assignments;
pub mod audit;
pub mod auth;
pub mod backup;
pub mod changes;
pub mod connections;
mod directory;
mod drills;
pub mod environments;
pub mod exchange;
pub mod explain;
pub mod flags;
mod guard;
pub mod instances;
pub mod issuers;
pub mod journal;
pub mod middleware;
pub mod openapi;
pub mod page;
pub mod parameters;
pub mod plans;
pub mod policies;
pub mod principals;
pub mod privacy;
pub mod problem;
pub mod projects;
pub mod rate;
mod releases;
pub mod requests;
pub mod revert;
mod reviews;
pub mod roles;
pub mod sdk;
pub mod sdk_keys;
pub mod segments;
pub mod session;
pub mod sessions;
mod shown;
pub mod status;
pub mod strict;
pub mod tokens;
pub mod transport;
pub mod webhooks;
pub mod write;

use std::net::IpAddr;
use std::ops::Deref;
use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::{delete, get, post};
use tokio::sync::{Mutex, Semaphore};
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{NotForContentType, Predicate, SizeAbove};

use crate::audit::AuditLog;
use crate::changes::ChangeService;
use crate::clock::Clock;
use crate::config::{Limits, Network};
use crate::drills::DrillService;
use crate::identity::oidc::{SignInFlow, TrustedIssuers};
use crate::identity::sign_in::SignIn;
use crate::identity::{Identity, Uses};
use crate::notifications::Notifications;
use crate::releases::ReleaseWatch;
use crate::shutdown::Shutdown;
use crate::state::{Project, World};
use crate::telemetry::Metrics;
use problem::Problem;
use rate::RateLimit;

/// Answers smaller than this are not worth compressing, in bytes.
const MIN_COMPRESSED_BYTES: u64 = 2_048;

/// What the API is made of.
pub struct ApiParts {
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
    pub audit_door: Arc<audit::AuditDoor>,
    /// The webhooks.
    pub notifications: Arc<Notifications>,
    /// Rehearses rollbacks.
    pub drills: Arc<DrillService>,
    /// Knows what the guard sees of releases now.
    pub releases: Arc<dyn ReleaseWatch>,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// Metrics.
    pub metrics: Metrics,
    /// Limits.
    pub limits: Limits,
    /// Which proxies are trusted.
    pub network: Network,
    /// Whether the server is stopping.
    pub shutdown: Shutdown,
    /// When the server started, in milliseconds since 1970.
    pub started_at: u64,
}

/// What every handler has at hand. Clones share it.
#[derive(Clone)]
pub struct Api(Arc<ApiState>);

/// What [`Api`] shares.
pub struct ApiState {
    parts: ApiParts,
    /// Room for requests being worked on.
    pub places: Semaphore,
    /// Writes, by principal.
    pub writes: RateLimit<Arc<str>>,
    /// Refused credentials, by address.
    pub refusals: RateLimit<IpAddr>,
    /// Room for checking policy files, which takes long.
    pub policy_checks: Arc<Semaphore>,
    /// Verifies identity tokens of the issuers that the installation trusts.
    pub trusted_issuers: TrustedIssuers,
    /// Identity tokens that bought a token.
    pub bought: exchange::Bought,
    /// Held by whoever changes an account both in the vault and in the journal.
    pub account_edits: Mutex<()>,
}

impl Deref for Api {
    type Target = ApiState;

    fn deref(&self) -> &ApiState {
        &self.0
    }
}

impl Deref for ApiState {
    type Target = ApiParts;

    fn deref(&self) -> &ApiParts {
        &self.parts
    }
}

impl Api {
    /// The API over these parts.
    #[must_use]
    pub fn new(parts: ApiParts) -> Self {
        Self(Arc::new(ApiState {
            places: Semaphore::new(parts.limits.max_concurrent_requests.min(Semaphore::MAX_PERMITS)),
            writes: RateLimit::new(parts.limits.max_writes_per_second),
            refusals: RateLimit::new(parts.limits.max_refusals_per_second),
            policy_checks: Arc::new(Semaphore::new(1)),
            trusted_issuers: TrustedIssuers::new(Arc::clone(&parts.clock)),
            bought: exchange::Bought::default(),
            account_edits: Mutex::default(),
            parts,
        }))
    }

    /// The durable state now.
    #[must_use]
    pub fn world(&self) -> Arc<World> {
        self.changes.world()
    }

    /// The project of this key.
    ///
    /// # Errors
    ///
    /// A 404 that names it.
    pub fn project(&self, project: &str) -> Result<Arc<Project>, Problem> {
        self.world().project(project).cloned().ok_or_else(|| Problem::not_found("project", project))
    }

    /// The project of this key, which has an environment of that key.
    ///
    /// # Errors
    ///
    /// A 404 that names what is not there.
    pub fn project_with(&self, project: &str, environment: &str) -> Result<Arc<Project>, Problem> {
        let project = self.project(project)?;
        if project.environments.contains_key(environment) {
            Ok(project)
        } else {
            Err(Problem::not_found("environment", environment))
        }
    }
}

/// Routes of other parts of the server.
#[derive(Default)]
pub struct MoreRoutes {
    /// Behind authentication and the policies, as the API itself.
    pub api: Router<Api>,
    /// With an authentication of their own, such as the SDK's.
    pub open: Router<Api>,
}

/// All routes, with what surrounds them.
pub fn router(api: Api, more: MoreRoutes) -> Router {
    let guarded = api_routes()
        .merge(more.api)
        .route_layer(from_fn_with_state(api.clone(), guard::guard))
        .route_layer(from_fn_with_state(api.clone(), auth::require_caller))
        .merge(stranger_routes());
    let compressed = SizeAbove::new(MIN_COMPRESSED_BYTES).and(NotForContentType::new("application/x-ndjson"));
    let compressed = compressed.and(NotForContentType::new(backup::MEDIA_TYPE));
    let bounded = guarded
        .layer(from_fn_with_state(api.clone(), middleware::bound))
        .layer(CompressionLayer::new().gzip(true).compress_when(compressed));
    Router::new()
        .merge(bounded)
        .merge(operation_routes())
        .merge(openapi::routes())
        .merge(more.open)
        .fallback(middleware::no_such_route)
        .method_not_allowed_fallback(middleware::no_such_method)
        .layer(from_fn_with_state(api.clone(), middleware::observe))
        .with_state(api)
}

/// Routes of callers who have no credential yet, such as those who sign in. They slow whoever is refused themselves.
fn stranger_routes() -> Router<Api> {
    Router::new().merge(exchange::open_routes()).merge(plans::open_routes()).merge(session::open_routes())
}

fn operation_routes() -> Router<Api> {
    Router::new()
        .route("/healthz", get(status::show_health))
        .route("/readyz", get(status::show_readiness))
        .route("/metrics", get(status::show_metrics))
}

fn api_routes() -> Router<Api> {
    let environment = "/api/v1/projects/{project}/environments/{environment}";
    let in_environment = |rest: &str| format!("{environment}{rest}");
    Router::new()
        .route("/api/v1/status", get(status::show_status))
        .route("/api/v1/projects", get(projects::list_projects).post(projects::create_project))
        .route("/api/v1/projects/{project}", get(projects::show_project))
        .route("/api/v1/projects/{project}/changes", post(changes::create_change))
        .route("/api/v1/projects/{project}/flags", get(flags::list_flags))
        .route("/api/v1/projects/{project}/flags/{flag}", get(flags::show_flag))
        .route("/api/v1/projects/{project}/flags/{flag}/history", get(journal::list_flag_history))
        .route("/api/v1/projects/{project}/journal", get(journal::list_entries))
        .route(
            "/api/v1/projects/{project}/environments",
            get(environments::list_environments).post(environments::create_environment),
        )
        .route(&in_environment("/segments"), get(segments::list_segments))
        .route(&in_environment("/segments/{segment}"), get(segments::show_segment))
        .route(&in_environment("/explain"), post(explain::explain_flag))
        .route(&in_environment("/revert"), post(revert::revert_environment))
        .route(&in_environment("/sdk-keys"), get(sdk_keys::list_sdk_keys).post(sdk_keys::create_sdk_key))
        .route(&in_environment("/sdk-keys/{id}"), delete(sdk_keys::revoke_sdk_key))
        .route(&in_environment("/sdk-keys/{id}/rotate"), post(sdk_keys::rotate_sdk_key))
        .merge(accounts::routes())
        .merge(audit::routes())
        .merge(drills::routes())
        .merge(issuers::routes())
        .merge(plans::routes())
        .merge(policies::routes())
        .merge(principals::routes())
        .merge(privacy::routes())
        .merge(releases::routes())
        .merge(requests::routes())
        .merge(roles::routes())
        .merge(session::routes())
        .merge(sessions::routes())
        .merge(tokens::routes())
        .merge(webhooks::routes())
}
