//! `/api/v1/projects/{project}/requests` and `…/reviews`: changes that others have to agree to.

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
