//! `/sdk/v1`: what SDKs talk to, with an SDK key.

pub(crate) mod exposures;
pub(crate) mod snapshot;
pub(crate) mod stream;

use std::sync::Arc;

use axum::routing::{get, post};
use axum::{Extension, Router};
use guidon_sdk::protocol::{EXPOSURES_PATH, SNAPSHOT_PATH, STREAM_PATH};
use http::HeaderMap;
use tower_http::compression::CompressionLayer;

use super::Api;
use super::auth::bearer;
use super::middleware::ClientAddress;
use super::problem::{Code, Problem};
use crate::assignments::AssignmentLog;
use crate::audit::{AuditLog, Event, EventKind};
use crate::changes::{Author, ChangeService};
use crate::clock::Clock;
use crate::environments::{Audience, Tier};
use crate::identity::{Identity, Uses};
use crate::instances::Deployments;
use crate::policy::{Action, Facts, PrincipalKind, Resource};
use crate::push::{Hub, Refused, SdkIdentity};

/// The door that SDKs come in by.
const SDK_ORIGIN: &str = "sdk";

/// Seconds after which an SDK that was turned away may come back; SDKs add jitter of their own.
const RETRY_AFTER_S: u64 = 2;

/// What the SDK's routes have at hand. Clones share it.
#[derive(Clone)]
pub struct SdkDoor {
    /// Who follows what.
    pub hub: Arc<Hub>,
    /// Where exposures go.
    pub log: Arc<dyn AssignmentLog>,
    /// Asks the policies.
    pub changes: Arc<ChangeService>,
    /// Names the places that requests come from.
    pub identity: Arc<Identity>,
    /// When and from where keys were used.
    pub uses: Arc<Uses>,
    /// Which builds were seen where.
    pub deployments: Arc<Deployments>,
    /// Takes note of uses from new places.
    pub audit: Arc<dyn AuditLog>,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
}

/// The SDK's routes, whatever the state of the router they are merged into.
pub fn routes<S: Clone + Send + Sync + 'static>(door: SdkDoor) -> Router<S> {
    let compressed =
        Router::new().route(SNAPSHOT_PATH, get(snapshot::show_snapshot)).layer(CompressionLayer::new().gzip(true));
    Router::new()
        .route(STREAM_PATH, get(stream::open_stream))
        .route(EXPOSURES_PATH, post(exposures::create_exposures))
        .merge(compressed)
        .with_state(door)
}

/// Routes of the API that show what SDKs do; for behind the administrator token.
pub fn api_routes(door: SdkDoor) -> Router<Api> {
    let in_environment = |rest: &str| format!("/api/v1/projects/{{project}}/environments/{{environment}}{rest}");
    Router::new()
        .route(&in_environment("/connections"), get(super::connections::list_connections))
        .route(&in_environment("/instances"), get(super::instances::list_instances))
        .route(&in_environment("/assignments"), get(super::assignments::list_assignments))
        .layer(Extension(door))
}

impl SdkDoor {
    /// Who the `Authorization` header says this is, if the policies let it follow its environment.
    async fn identify(&self, headers: &HeaderMap, address: Option<ClientAddress>) -> Result<SdkIdentity, Problem> {
        let credential = bearer(headers)
            .ok_or_else(|| Problem::new(Code::Unauthorized, "Send the header Authorization: Bearer <SDK key>."))?;
        let identity = self.hub.identify(credential)?;
        self.admit(&identity, address).await?;
        Ok(identity)
    }

    /// Asks the policies, and takes note of the use.
    async fn admit(&self, identity: &SdkIdentity, address: Option<ClientAddress>) -> Result<(), Problem> {
        let channel = &identity.channel;
        let (world, now) = (self.hub.world(), self.clock.now_ms());
        let tier = world.environment(&channel.project, &channel.environment).map(|environment| environment.tier);
        let resource = Resource {
            project: channel.project.to_string(),
            environment: channel.environment.to_string(),
            tier: Some(tier.unwrap_or(Tier::Production)),
        };
        // A key is for the environment it was made in, so that is where it is asked about.
        let in_scope = |facts: Facts| Facts { in_scope: true, ..facts };
        let mut author = Author::of(&identity.key_id, &Author::system().origin_id, PrincipalKind::Application);
        let decision =
            self.changes.decide(&author, Action::Evaluate, &resource, None, &in_scope).map_err(|error| *error)?;
        let Some(ClientAddress(address)) = address else {
            return Err(Problem::internal("a request of an SDK came without an address"));
        };
        if !decision.allowed {
            author.origin_id = match channel.audience {
                // Everybody has the key: it says of nobody that they belong here.
                Audience::Client => self.identity.stranger(SDK_ORIGIN).await,
                Audience::Server => self.identity.origin(address, SDK_ORIGIN).await,
            }
            .map_err(Problem::internal)?;
            self.changes.authorize(&author, Action::Evaluate, &resource, None, &in_scope).map_err(|error| *error)?;
        }
        if channel.audience == Audience::Client {
            // Everybody's browser holds the key: from where it is used says something of people, and nothing of the key.
            self.uses.note_time(&identity.key_id, now);
        } else if self.uses.note(&identity.key_id, address, now) {
            let origin_id = self.identity.origin(address, SDK_ORIGIN).await.map_err(Problem::internal)?;
            let event = Event {
                actor_id: Some(identity.key_id.to_string()),
                credential: Some(identity.key_id.to_string()),
                project: Some(resource.project),
                environment: Some(resource.environment),
                ..Event::new(now, EventKind::NewAddress, origin_id)
            };
            self.audit.record(event);
        }
        Ok(())
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Credential => Self::new(Code::Unauthorized, refused.to_string()),
            Refused::Overloaded { .. } | Refused::Stopping => {
                Self::new(Code::Unavailable, refused.to_string()).retry_after_s(RETRY_AFTER_S)
            }
        }
    }
}
