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
use super::problem::{Code, Problem};
use crate::assignments::AssignmentLog;
use crate::push::{Hub, Refused, SdkIdentity};

/// Seconds after which an SDK that was turned away may come back; SDKs add jitter of their own.
const RETRY_AFTER_S: u64 = 2;

/// What the SDK's routes have at hand. Clones share it.
#[derive(Clone)]
pub struct SdkDoor {
    /// Who follows what.
    pub hub: Arc<Hub>,
    /// Where exposures go.
    pub log: Arc<dyn AssignmentLog>,
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
        .route(&in_environment("/assignments"), get(super::assignments::list_assignments))
        .layer(Extension(door))
}

impl SdkDoor {
    /// Who the `Authorization` header says this is.
    fn identify(&self, headers: &HeaderMap) -> Result<SdkIdentity, Problem> {
        let credential = bearer(headers)
            .ok_or_else(|| Problem::new(Code::Unauthorized, "Send the header Authorization: Bearer <SDK key>."))?;
        self.hub.identify(credential).map_err(Problem::from)
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
