//! `/api/v1/privacy`: forgetting.

use axum::Router;

use super::Api;

/// The operations, for the API's description.
#[derive(utoipa::OpenApi)]
#[openapi(paths())]
pub struct Operations;

/// The routes, behind authentication and the policies.
pub fn routes() -> Router<Api> {
    Router::new()
}
