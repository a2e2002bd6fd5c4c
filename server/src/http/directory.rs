//! What the routes about the directory have in common: changes of it, names for ids, and times.

use std::sync::Arc;

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::HeaderValue;
use serde_json::Value;

use super::Api;
use super::changes::{REPLAYED, submit};
use super::problem::{Fault, Problem};
use super::write::{Write, invalid};
use crate::changes::{Author, ChangeDraft, ChangeOutcome, Instruction};
use crate::identity::directory::Principal;
use crate::identity::{Credential, CredentialKind, DirectoryEdit};
use crate::policy::{Action, PrincipalKind, Resource};

const MINUTE_MS: u64 = 60_000;

/// Makes one edit of the directory. Faults stand where the route's flat body has them.
pub(super) async fn submit_edit(
    api: &Api,
    write: Write,
    comment: String,
    edit: DirectoryEdit,
) -> Result<ChangeOutcome, Problem> {
    let draft = ChangeDraft { idempotency: write.idempotency.clone(), ..draft(comment, edit) };
    submit(api, write, draft).await.map_err(|problem| problem.within("/instructions/0"))
}

/// A change of the directory that makes one edit.
pub(super) fn draft(comment: String, edit: DirectoryEdit) -> ChangeDraft {
    ChangeDraft { comment, instructions: vec![Instruction::Directory(Box::new(edit))], ..ChangeDraft::default() }
}

/// The edit as it was journaled, with what the server filled in, and when.
pub(super) fn made(outcome: &ChangeOutcome) -> Result<(DirectoryEdit, u64), Problem> {
    let entry = outcome.entry.as_ref().ok_or_else(|| Problem::internal("a created object has no entry"))?;
    let edit = entry.instructions.iter().find_map(|instruction| match instruction {
        Instruction::Directory(edit) => Some(DirectoryEdit::clone(edit)),
        _ => None,
    });
    edit.map(|edit| (edit, entry.at))
        .ok_or_else(|| Problem::internal("an entry does not hold the edit it was made for"))
}

/// An answer to a change: `body`, and whether it is the one to an earlier request.
pub(super) fn answer_with(outcome: &ChangeOutcome, mut body: Value) -> Response {
    body["revision"] = outcome.revision.into();
    let mut response = Json(body).into_response();
    if outcome.replayed {
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    }
    response
}

/// A new credential; the same one again for the same request under an Idempotency-Key.
pub(super) fn credential(api: &Api, kind: CredentialKind, write: &Write) -> Credential {
    match &write.idempotency {
        Some(sent) => api.identity.derive_credential(kind, &[&write.author.principal, &sent.key, &sent.body_hash]),
        None => Credential::generate(kind, &mut rand::rng()),
    }
}

/// When something ends that lives for `minutes`, or until `at`, or for `otherwise` milliseconds.
pub(super) fn end(api: &Api, minutes: Option<u64>, at: Option<u64>, otherwise: u64) -> Result<u64, Problem> {
    let now = api.clock.now_ms();
    match (minutes, at) {
        (Some(_), Some(_)) => {
            let detail = "name either expiresInMinutes or expiresAt";
            Err(invalid(vec![Fault::new("/expiresAt", "oneOf", detail)]))
        }
        (Some(minutes), None) => Ok(now.saturating_add(minutes.saturating_mul(MINUTE_MS))),
        (None, Some(at)) => Ok(at),
        (None, None) => Ok(now.saturating_add(otherwise)),
    }
}

/// When an old credential ends that lives on for `minutes` beside its successor, a day by default.
pub(super) fn deadline(api: &Api, minutes: Option<u64>) -> u64 {
    api.clock.now_ms().saturating_add(minutes.unwrap_or(24 * 60).saturating_mul(MINUTE_MS))
}

/// The installation, as policies know it.
pub(super) fn installation() -> Resource {
    Resource { project: String::new(), environment: String::new(), tier: None }
}

/// That there is no such thing; told only to those who may do `action` to one, so that asking tells others nothing.
pub(super) fn unknown(api: &Api, author: &Author, action: Action, what: &str, id: &str) -> Problem {
    match api.allow(author, action, &installation(), true) {
        Ok(()) => Problem::not_found(what, id),
        Err(refused) => refused,
    }
}

impl Api {
    /// The principal's id that people mean by `word`: an id, the name of an account, or the only service account or AI agent
    /// of that name. A word that means nobody comes back as it is; the write path says what is wrong with it.
    pub(super) fn principal_id(&self, word: &str) -> String {
        let world = self.world();
        let principals = &world.directory.principals;
        if principals.contains_key(word) {
            return word.to_owned();
        }
        if let Some(account) = self.sign_in.accounts().named(word) {
            return account;
        }
        let mut named = principals.values().filter(|principal| principal.name == word && principal.erased_at.is_none());
        match (named.next(), named.next()) {
            (Some(one), None) => one.id.clone(),
            _ => word.to_owned(),
        }
    }

    /// What people call a principal, if that is known and was not erased.
    pub(super) fn name_of(&self, id: &str) -> Option<String> {
        let known = self.world().directory.principals.get(id).map(|principal| principal.name.clone());
        let account = || self.sign_in.accounts().get(id).map(|account| account.person.name);
        known.filter(|name| !name.is_empty()).or_else(account)
    }

    /// The principal with this id, if it is of this kind.
    pub(super) fn principal_of(&self, id: &str, kind: PrincipalKind) -> Option<Arc<Principal>> {
        self.world().directory.principals.get(id).filter(|principal| principal.kind == kind).cloned()
    }
}
