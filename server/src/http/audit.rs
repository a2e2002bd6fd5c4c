//! `/api/v1/audit`: who did what, what was refused, and the proofs that nothing of it was changed since.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Json, Router};
use futures_util::stream;
use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Api;
use super::assignments::parse_time;
use super::auth::Caller;
use super::page::limit;
use super::parameters::{Path, Query};
use super::problem::{Code, Fault, Problem};
use crate::audit::{
    AuditQuery, CheckpointKey, ERASED, Event, EventKind, Export, ExportFormat, Filter, Order, QueryError, Recheck,
    RecheckState, Rechecks, Trail, UNREADABLE,
};
use crate::clock::Clock;
use crate::environments::Tier;

/// How long one request waits for the chains to be recomputed; the run goes on.
const PATIENCE: Duration = Duration::from_secs(15);

/// What this door is made of.
pub struct AuditDoor {
    /// Both logs.
    pub trail: Trail,
    /// Signs where they end.
    pub key: CheckpointKey,
    /// Recomputes their chains.
    pub rechecks: Rechecks,
}

impl AuditDoor {
    /// The name of a person or program, or that it was erased.
    #[must_use]
    pub fn person(&self, id: &str) -> String {
        self.trail.people.person(id).name
    }

    /// The door to `trail`.
    #[must_use]
    pub fn new(trail: Trail, key: CheckpointKey, clock: std::sync::Arc<dyn Clock>) -> Self {
        Self { rechecks: Rechecks::new(trail.clone(), clock), trail, key }
    }
}

/// A query that begins with the parameters of a filter, and goes on with those of its own.
macro_rules! filtered_query {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $field:ident: $kind:ty,)* }) => {
        $(#[$about])*
        #[derive(Debug, Deserialize, utoipa::IntoParams)]
        #[serde(deny_unknown_fields, rename_all = "camelCase")]
        #[into_params(parameter_in = Query)]
        pub struct $name {
            /// Only what this person, service account or AI agent did or approved: an id, or an account's name.
            person: Option<String>,
            /// Only about the flag of this key.
            flag: Option<String>,
            /// Only about the environment of this key. What all environments share concerns each of them.
            environment: Option<String>,
            /// Only about environments of this tier: development, testing, staging or production.
            tier: Option<String>,
            /// Only of this kind: `change`, `refusal`, `signIn`, a kind of event or a kind of instruction.
            kind: Option<String>,
            /// Only about the project of this key.
            project: Option<String>,
            /// Only from this time on: RFC 3339, or milliseconds since 1970.
            from: Option<String>,
            /// Only up to this time: RFC 3339, or milliseconds since 1970.
            to: Option<String>,
            /// Only emergency changes that nobody has reviewed yet.
            needs_review: Option<bool>,
            $($(#[$doc])* $field: $kind,)*
        }

        impl $name {
            fn filter(&self, api: &Api, faults: &mut Faults) -> Filter {
                let person = self.person.as_deref().map(|person| api.person_id(person)).transpose();
                Filter {
                    person: faults.take("person", person).flatten(),
                    flag: self.flag.clone(),
                    environment: self.environment.clone(),
                    tier: faults.take("tier", self.tier.as_deref().map(tier).transpose()).flatten(),
                    kind: faults.take("kind", self.kind.as_deref().map(str::parse).transpose()).flatten(),
                    project: self.project.clone(),
                    needs_review: self.needs_review.unwrap_or(false),
                    from: faults.take("from", self.from.as_deref().map(parse_time).transpose()).flatten(),
                    to: faults.take("to", self.to.as_deref().map(parse_time).transpose()).flatten(),
                }
            }
        }
    };
}

filtered_query! {
    /// Which records.
    RecordsQuery {
        /// `newestFirst`, which it is if left out, or `oldestFirst`.
        order: Option<String>,
        /// Most records to answer: 1 to 1,000, 100 by default.
        limit: Option<usize>,
        /// `next` of the page before.
        after: Option<String>,
    }
}

filtered_query! {
    /// What to export.
    ExportQuery {
        /// `ndjson`, which it is if left out, or `csv`.
        format: Option<String>,
        /// `oldestFirst`, which it is if left out, or `newestFirst`.
        order: Option<String>,
    }
}

fn tier(text: &str) -> Result<Tier, String> {
    let named = Tier::ALL.into_iter().find(|tier| tier.as_str() == text);
    named.ok_or_else(|| format!("{text:?} is none of development, testing, staging and production"))
}

/// The operations, for the API's description.
#[derive(utoipa::OpenApi)]
#[openapi(paths(create_checkpoint, export_records, list_records, show_checkpoint_key, show_record, show_verification))]
pub struct Operations;

/// The routes, behind authentication and the policies.
pub fn routes() -> Router<Api> {
    Router::new()
        .route("/api/v1/audit", get(list_records))
        .route("/api/v1/audit/records/{id}", get(show_record))
        .route("/api/v1/audit/verification", get(show_verification))
        .route("/api/v1/audit/checkpoint", get(show_checkpoint_key).post(create_checkpoint))
        .route("/api/v1/audit/export", get(export_records))
}

/// Lists changes and events of the whole installation, newest first. A page may be empty and still have a `next`.
#[utoipa::path(get, path = "/api/v1/audit", tag = "audit", params(RecordsQuery),
    responses((status = 200, description = "A page of records", body = ref("#/components/schemas/AuditPage"))))]
pub async fn list_records(State(api): State<Api>, Query(query): Query<RecordsQuery>) -> Result<Json<Value>, Problem> {
    let limit = limit(query.limit)?;
    let mut faults = Faults::default();
    let cursor = faults.take("after", query.after.as_deref().map(str::parse).transpose());
    let order = faults.take("order", order(query.order.as_deref(), Order::NewestFirst));
    let filter = query.filter(&api, &mut faults);
    faults.none()?;
    let query = AuditQuery { filter, order: order.unwrap_or_default(), cursor: cursor.flatten(), limit };
    let page = api.audit_door.trail.page(&query).await.map_err(unreadable)?;
    Ok(Json(json!({"records": page.records, "next": page.next.map(|next| next.to_string())})))
}

/// Shows one record; of a change, with its instructions.
#[utoipa::path(get, path = "/api/v1/audit/records/{id}", tag = "audit",
    params(("id" = String, Path, description = "Id of the record: `j:` and a revision, or `s:` and the number of an event")),
    responses((status = 200, description = "The record", body = ref("#/components/schemas/AuditRecord"))))]
pub async fn show_record(State(api): State<Api>, Path(id): Path<String>) -> Result<Json<Value>, Problem> {
    let record = api.audit_door.trail.record(&id).await.map_err(unreadable)?;
    let mut shown = json!(record.ok_or_else(|| Problem::not_found("record", &id))?);
    let revision = id.strip_prefix("j:").and_then(|revision| revision.parse::<u64>().ok());
    if let Some(before) = revision.and_then(|revision| revision.checked_sub(1)) {
        let read = api.changes.journal().read(before, 1).await.map_err(Problem::internal)?;
        if let Some(stored) = read.first() {
            shown["instructions"] = json!(stored.entry.instructions);
            shown["objects"] = json!(stored.entry.objects);
        }
    }
    Ok(Json(shown))
}

/// Recomputes both hash chains. One run is under way at a time, which everybody who asks waits for; a request waits 15 seconds
/// at most, then says how far the run is: ask again. What a run found is told once; whoever asks after that begins a new one.
#[utoipa::path(get, path = "/api/v1/audit/verification", tag = "audit",
    responses((status = 200, description = "How the run stands", body = ref("#/components/schemas/AuditVerification"))))]
pub async fn show_verification(State(api): State<Api>) -> Json<Value> {
    let Recheck { started_at, finished_at, state } = api.audit_door.rechecks.ask(PATIENCE).await;
    let mut shown = json!({"startedAt": started_at, "history": api.changes.journal().history()});
    if let Some(finished_at) = finished_at {
        shown["finishedAt"] = finished_at.into();
    }
    match state {
        RecheckState::Running(progress) => {
            shown["state"] = "running".into();
            shown["progress"] = json!(progress);
        }
        RecheckState::Sound(found) => {
            shown["state"] = "sound".into();
            shown["journal"] = json!({"revision": found.journal.revision, "hash": found.journal.hash.to_string()});
            shown["security"] = json!({"firstSeq": found.first_seq, "seq": found.security.seq, "events": found.events,
                "hash": found.security.hash.to_string()});
        }
        RecheckState::Broken(problem) => {
            tracing::error!(problem, "a recomputed hash chain does not hold");
            shown["state"] = "damaged".into();
            shown["problem"] = problem.into();
        }
    }
    Json(shown)
}

/// Shows the public key that checkpoints are signed for, and its fingerprint.
#[utoipa::path(get, path = "/api/v1/audit/checkpoint", tag = "audit",
    responses((status = 200, description = "The key", body = ref("#/components/schemas/CheckpointKey"))))]
pub async fn show_checkpoint_key(State(api): State<Api>) -> Json<Value> {
    let key = api.audit_door.key.public();
    Json(json!({"keyId": key.id(), "publicKey": key.to_string(), "fingerprint": key.fingerprint()}))
}

/// Signs where both logs end now. Kept apart from the server, it proves later that nothing before it was rewritten.
#[utoipa::path(post, path = "/api/v1/audit/checkpoint", tag = "audit",
    responses((status = 200, description = "The checkpoint", body = ref("#/components/schemas/Checkpoint"))))]
pub async fn create_checkpoint(State(api): State<Api>) -> Json<Value> {
    let AuditDoor { trail, key, .. } = &*api.audit_door;
    Json(json!(key.sign_present(&*trail.journal, &*trail.events, api.clock.now_ms())))
}

/// Streams changes and events, oldest first, as lines of JSON or as CSV.
#[utoipa::path(get, path = "/api/v1/audit/export", tag = "audit", params(ExportQuery),
    responses((status = 200, description = "A line for each record; CSV begins with one of names", content(
        ("application/x-ndjson"), ("text/csv")))))]
pub async fn export_records(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Query(query): Query<ExportQuery>,
) -> Result<Response, Problem> {
    let mut faults = Faults::default();
    let format = match query.format.as_deref() {
        None | Some("ndjson") => Ok(ExportFormat::Ndjson),
        Some("csv") => Ok(ExportFormat::Csv),
        Some(other) => Err(format!("{other:?} is none of ndjson and csv")),
    };
    let format = faults.take("format", format);
    let order = faults.take("order", order(query.order.as_deref(), Order::OldestFirst));
    let filter = query.filter(&api, &mut faults);
    faults.none()?;
    let (order, format) = (order.unwrap_or(Order::OldestFirst), format.unwrap_or(ExportFormat::Ndjson));
    let (media, name) = match format {
        ExportFormat::Ndjson => ("application/x-ndjson", "ndjson"),
        ExportFormat::Csv => ("text/csv; charset=utf-8; header=present", "csv"),
    };
    let whole = filter == Filter::default();
    let author = &caller.author;
    api.audit.record(Event {
        actor_id: Some(author.actor_id.clone()),
        credential: author.credential.clone(),
        detail: format!("{} as {name}", if whole { "the whole audit trail" } else { "a part of the audit trail" }),
        ..Event::new(api.clock.now_ms(), EventKind::Exported, author.origin_id.clone())
    });
    let mut export = Export::new(api.audit_door.trail.clone(), filter, order, format);
    // What goes wrong at once is answered as a problem; what goes wrong later cuts the stream.
    let first = export.next().await.map_err(Problem::internal)?;
    let rest = stream::unfold((first.map(Bytes::from), Some(export)), |(ready, export)| async move {
        if let Some(bytes) = ready {
            return Some((Ok(bytes), (None, export)));
        }
        let mut export = export?;
        match export.next().await {
            Ok(None) => None,
            Ok(Some(bytes)) => Some((Ok(Bytes::from(bytes)), (None, Some(export)))),
            Err(error) => {
                tracing::error!(%error, "the audit trail cannot be read on; an export was cut");
                Some((Err(error), (None, None)))
            }
        }
    });
    let headers =
        [(CONTENT_TYPE, media.to_owned()), (CONTENT_DISPOSITION, format!("attachment; filename=\"audit.{name}\""))];
    Ok((headers, Body::from_stream(rest)).into_response())
}

/// What is wrong with a query, gathered.
#[derive(Default)]
struct Faults(Vec<Fault>);

impl Faults {
    fn take<T, E: std::fmt::Display>(&mut self, name: &str, parsed: Result<T, E>) -> Option<T> {
        parsed.map_err(|error| self.0.push(Fault::new("", "invalidParameter", format!("{name}: {error}")))).ok()
    }

    fn none(self) -> Result<(), Problem> {
        if self.0.is_empty() {
            return Ok(());
        }
        Err(Problem::new(Code::InvalidRequest, "A parameter of the query is not right.").with_errors(self.0))
    }
}

fn order(text: Option<&str>, otherwise: Order) -> Result<Order, String> {
    match text {
        None => Ok(otherwise),
        Some("newestFirst") => Ok(Order::NewestFirst),
        Some("oldestFirst") => Ok(Order::OldestFirst),
        Some(other) => Err(format!("{other:?} is none of newestFirst and oldestFirst")),
    }
}

fn unreadable(error: QueryError) -> Problem {
    match error {
        QueryError::Cursor(error) => Problem::new(Code::InvalidRequest, "A parameter of the query is not right.")
            .with_errors(vec![Fault::new("", "invalidParameter", format!("after: {error}"))]),
        other => Problem::internal(other),
    }
}

impl Api {
    /// The id of whoever is called `text`, or has it as an id.
    fn person_id(&self, text: &str) -> Result<String, String> {
        if let Some(id) = self.sign_in.accounts().named(text) {
            return Ok(id);
        }
        let world = self.world();
        if world.directory.principals.contains_key(text) {
            return Ok(text.to_owned());
        }
        let named: Vec<&String> = world
            .directory
            .principals
            .values()
            .filter(|principal| principal.name == text)
            .map(|principal| &principal.id)
            .collect();
        match named.as_slice() {
            [id] => return Ok((*id).clone()),
            [] => {}
            several => {
                let ids: Vec<&str> = several.iter().map(|id| id.as_str()).collect();
                return Err(format!("several are called {text:?}: name one of {}", ids.join(", ")));
            }
        }
        // The server itself, the operator, and who came with an imported journal.
        let known = self.audit_door.trail.people.person(text).name;
        if known == ERASED || known == UNREADABLE {
            return Err(format!("nobody is called {text:?} or has it as an id; an erased person is found by id only"));
        }
        Ok(text.to_owned())
    }
}
