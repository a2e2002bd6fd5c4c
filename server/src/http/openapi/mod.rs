//! The API's description, OpenAPI 3.1, and pages to browse it that need no network.
//!
//! Operations come from the handlers. The schemas are in `schemas.json`: the model's types live in the SDK, which must not
//! depend on a web framework's documentation.

use axum::Router;
use axum::http::HeaderValue;
use axum::http::header::CONTENT_SECURITY_POLICY;
use axum::response::Response;
use serde_json::{Map, Value, json};
use utoipa::OpenApi;
use utoipa_swagger_ui::{Config, SwaggerUi};

use super::{
    Api, accounts, assignments, audit, backup, changes, connections, drills, environments, exchange, explain, flags,
    instances, issuers, journal, plans, policies, principals, privacy, projects, releases, requests, revert, roles,
    sdk, sdk_keys, segments, session, sessions, status, tokens, webhooks,
};

/// Path of the document.
pub const DOCUMENT_PATH: &str = "/api/openapi.json";
/// Path of the pages.
pub const PAGES_PATH: &str = "/api/docs";
/// The pages bring their own scripts and style them in place.
const PAGES_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'",
);
/// Schemas, by area; every name stands once.
const SCHEMAS: [&str; 9] = [
    include_str!("schemas.json"),
    include_str!("access.json"),
    include_str!("instances.json"),
    include_str!("plans.json"),
    include_str!("requests.json"),
    include_str!("audit.json"),
    include_str!("webhooks.json"),
    include_str!("drills.json"),
    include_str!("releases.json"),
];

#[derive(OpenApi)]
#[openapi(
    info(title = "Guidon", description = "Feature flags and controlled releases."),
    paths(
        assignments::list_assignments,
        changes::create_change,
        connections::list_connections,
        environments::create_environment,
        environments::list_environments,
        explain::explain_flag,
        flags::list_flags,
        flags::show_flag,
        journal::list_entries,
        journal::list_flag_history,
        projects::create_project,
        projects::list_projects,
        projects::show_project,
        revert::revert_environment,
        sdk::exposures::create_exposures,
        sdk::snapshot::show_snapshot,
        sdk::stream::open_stream,
        sdk_keys::create_sdk_key,
        sdk_keys::list_sdk_keys,
        sdk_keys::revoke_sdk_key,
        sdk_keys::rotate_sdk_key,
        segments::list_segments,
        segments::show_segment,
        status::show_health,
        status::show_metrics,
        status::show_readiness,
        status::show_status,
    )
)]
struct Operations;

/// The whole document.
#[must_use]
pub fn document() -> Value {
    // Both are fixed at compile time, and a test reads them.
    let mut operations = Operations::openapi();
    for more in [
        accounts::Operations::openapi(),
        audit::Operations::openapi(),
        backup::Operations::openapi(),
        drills::Operations::openapi(),
        exchange::Operations::openapi(),
        instances::Operations::openapi(),
        issuers::Operations::openapi(),
        plans::Operations::openapi(),
        policies::Operations::openapi(),
        principals::Operations::openapi(),
        privacy::Operations::openapi(),
        releases::Operations::openapi(),
        requests::Operations::openapi(),
        roles::Operations::openapi(),
        session::Operations::openapi(),
        sessions::Operations::openapi(),
        tokens::Operations::openapi(),
        webhooks::Operations::openapi(),
    ] {
        operations.merge(more);
    }
    let mut document = serde_json::to_value(operations).unwrap_or_default();
    let mut schemas = Map::new();
    for area in SCHEMAS {
        schemas.extend(serde_json::from_str::<Map<String, Value>>(area).unwrap_or_default());
    }
    document["components"] = json!({
        "schemas": schemas,
        "responses": {"Problem": {
            "description": "What went wrong",
            "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }},
        "securitySchemes": {
            "token": {"type": "http", "scheme": "bearer",
                "description": "A person's session (gdn_session_…), the token of a service account or an AI agent (gdn_svc_…, \
                                gdn_agent_…), or the operator's token (gdn_admin_…)"},
            "sdkKey": {"type": "http", "scheme": "bearer", "description": "An SDK key, gdn_sdk_… or gdn_client_…"},
        },
    });
    for (path, operations) in document["paths"].as_object_mut().into_iter().flatten() {
        for (_, operation) in operations.as_object_mut().into_iter().flatten() {
            complete(path, operation);
        }
    }
    document
}

/// What all operations have in common.
fn complete(path: &str, operation: &mut Value) {
    let Some(fields) = operation.as_object_mut() else { return };
    if !fields.contains_key("security") {
        let scheme = if path.starts_with("/sdk/") { "sdkKey" } else { "token" };
        fields.insert("security".to_owned(), json!([{scheme: []}]));
    }
    if let Some(responses) = fields.get_mut("responses").and_then(Value::as_object_mut) {
        describe_problems(responses);
    }
}

fn describe_problems(responses: &mut Map<String, Value>) {
    let problem = json!({"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}});
    for (status, response) in responses.iter_mut() {
        if status.starts_with(['4', '5']) && response.get("content").is_none() {
            response["content"] = problem.clone();
        }
    }
    responses.entry("default").or_insert_with(|| json!({"$ref": "#/components/responses/Problem"}));
}

/// The document and the pages; open to everybody, as they say nothing of the store.
pub fn routes() -> Router<Api> {
    let config = Config::new([DOCUMENT_PATH]).use_base_layout().try_it_out_enabled(true);
    let pages = SwaggerUi::new(PAGES_PATH).external_url_unchecked(DOCUMENT_PATH, document()).config(config);
    Router::from(pages).layer(axum::middleware::map_response(async |mut response: Response| {
        response.headers_mut().insert(CONTENT_SECURITY_POLICY, PAGES_POLICY);
        response
    }))
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
