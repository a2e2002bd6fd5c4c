//! The project as a document.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::Api;
use super::super::auth::Caller;
use super::super::guard::Sight;
use super::super::parameters::{Path, Query};
use super::super::problem::Problem;
use super::aside;
use crate::audit::{Event, EventKind};
use crate::environments::{ExportOptions, export};
use crate::policy::Action;

/// What is exported.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ExportQuery {
    /// Only these environments, by key, with commas in between.
    environment: Option<String>,
    /// Also persons' keys: targets, key lists of segments, targeting keys in clauses.
    keys: Option<bool>,
    /// Also who owns which slot of each rollout.
    allocations: Option<bool>,
}

/// Exports the project as a document, with the environments that the caller may export.
#[utoipa::path(get, path = "/api/v1/projects/{project}/documents", tag = "as code",
    params(("project" = String, Path, description = "Key of the project"), ExportQuery),
    responses((status = 200, description = "The document", body = ref("#/components/schemas/ConfigurationExport"))))]
pub async fn export_documents(
    State(api): State<Api>,
    Path(key): Path<String>,
    axum::Extension(caller): axum::Extension<Caller>,
    axum::Extension(sight): axum::Extension<Sight>,
    Query(query): Query<ExportQuery>,
) -> Result<Json<Value>, Problem> {
    let world = api.world();
    let project = world.project(&key).cloned().ok_or_else(|| Problem::not_found("project", &key))?;
    let named: Option<Vec<String>> =
        query.environment.map(|keys| keys.split(',').map(|key| key.trim().to_owned()).collect());
    for environment in named.iter().flatten() {
        if !sight.sees(environment) {
            let resource = api.place(&key, environment);
            api.allow(&caller.author, Action::ExportConfiguration, &resource, true)?;
        }
        if !project.environments.contains_key(environment) {
            return Err(Problem::not_found("environment", environment));
        }
    }
    let asked = |key: &String| named.as_ref().is_none_or(|named| named.contains(key));
    let wanted: BTreeSet<String> =
        project.environments.keys().filter(|key| sight.sees(key) && asked(key)).cloned().collect();
    let options = ExportOptions { keys: query.keys.unwrap_or(false), allocations: query.allocations.unwrap_or(false) };
    if options.keys {
        for environment in &wanted {
            api.allow(&caller.author, Action::ExportConfiguration, &api.place(&key, environment), false)?;
        }
        let author = &caller.author;
        api.audit.record(Event {
            actor_id: Some(author.actor_id.clone()),
            project: Some(key.clone()),
            credential: author.credential.clone(),
            detail: "the configuration with persons' keys".to_owned(),
            ..Event::new(api.clock.now_ms(), EventKind::Exported, author.origin_id.clone())
        });
    }
    let revision = world.revision;
    let exported = aside(move || {
        let document = export(&project, options, &|environment| wanted.contains(environment));
        json!({"project": key, "revision": revision, "document": document})
    });
    exported.await.map(Json)
}
