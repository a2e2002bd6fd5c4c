//! `/api/v1/accounts`: people.
//!
//! Who a person is stands in the vault, that there is an account in the journal. Whatever changes both does so one at a time,
//! in an order in which a server that ends between the two can be asked again.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Api;
use super::changes::{answer, submit};
use super::directory::{draft, installation, submit_edit};
use super::page::{limit, page};
use super::parameters::{Path, Query};
use super::problem::{Code, Problem};
use super::write::Write;
use crate::audit::{Event, EventKind};
use crate::changes::ChangeDraft;
use crate::identity::DirectoryEdit;
use crate::identity::accounts::{Account, AccountError, AccountState, Invited};
use crate::identity::directory::Principal;
use crate::policy::{Action, PrincipalKind};
use crate::state::World;

/// The operations, for the API's description.
#[derive(utoipa::OpenApi)]
#[openapi(paths(
    list_accounts,
    create_account,
    show_account,
    erase_account,
    reset_account,
    disable_account,
    enable_account,
))]
pub struct Operations;

/// The routes, behind authentication and the policies.
pub fn routes() -> Router<Api> {
    Router::new()
        .route("/api/v1/accounts", get(list_accounts).post(create_account))
        .route("/api/v1/accounts/{id}", get(show_account).delete(erase_account))
        .route("/api/v1/accounts/{id}/reset", post(reset_account))
        .route("/api/v1/accounts/{id}/disable", post(disable_account))
        .route("/api/v1/accounts/{id}/enable", post(enable_account))
}

/// Which accounts.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AccountQuery {
    /// Most items to answer: 1 to 1,000, 100 by default.
    pub limit: Option<usize>,
    /// Answers items after this one: the `next` of the page before.
    pub after: Option<String>,
    /// Only the account called so, whatever the capitals.
    pub name: Option<String>,
}

#[derive(Deserialize)]
struct NewAccount {
    name: String,
    email: Option<String>,
}

/// Lists the accounts of people, by id, disabled and erased ones among them.
#[utoipa::path(get, path = "/api/v1/accounts", tag = "accounts", params(AccountQuery),
    responses((status = 200, description = "A page of accounts", body = ref("#/components/schemas/AccountPage"))))]
pub async fn list_accounts(State(api): State<Api>, Query(query): Query<AccountQuery>) -> Result<Json<Value>, Problem> {
    let (limit, after, world) = (limit(query.limit)?, query.after.unwrap_or_default(), api.world());
    let named = query.name.map(|name| api.sign_in.accounts().named(&name).unwrap_or_default());
    let people = world.directory.principals.values().filter(|known| {
        known.kind == PrincipalKind::Human && known.id > after && named.as_ref().is_none_or(|id| known.id == *id)
    });
    Ok(Json(page("accounts", people, limit, |known| known.id.clone(), |known| api.account(&world, known))))
}

/// Creates an account and answers the invitation to it, which is shown this once. Whoever holds it chooses password and second
/// factor within 72 hours.
#[utoipa::path(post, path = "/api/v1/accounts", tag = "accounts",
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes it safe to send the request again within 24 hours: \
            the invitation is then a new one, in the place of the first")),
    request_body(content = ref("#/components/schemas/AccountNew")),
    responses((status = 200, description = "The account and its invitation", body = ref("#/components/schemas/AccountInvitation")),
              (status = 409, description = "Another account has this name")))]
pub async fn create_account(State(api): State<Api>, write: Write) -> Result<Response, Problem> {
    let NewAccount { name, email } = write.body.read()?;
    // Asked first: what follows looks at who is there.
    api.allow(&write.author, Action::CreateAccount, &installation(), true)?;
    let _alone = api.account_edits.lock().await;
    let accounts = api.sign_in.accounts();
    let is_recorded = |id: &str| api.world().directory.principals.contains_key(id);
    let known = accounts.named(&name);
    if let Some(id) = known.as_ref().filter(|id| !is_recorded(id)) {
        // A server ended between vault and journal.
        accounts.erase(id).await?;
    }
    if let (Some(id), Some(_)) = (known.filter(|id| is_recorded(id)), &write.idempotency) {
        // Perhaps the answer to the same request was lost: then the journal knows the key.
        return invite_again(&api, write, id).await;
    }
    let invited = accounts.invite(&name, email.as_deref(), api.clock.now_ms()).await?;
    let id = invited.account.clone();
    let create = edit(&write, format!("Invite {id}"), DirectoryEdit::CreateAccount { id: id.clone() });
    match submit(&api, write, create).await {
        Ok(outcome) if !outcome.replayed => Ok(invitation(&api, &invited, outcome.revision)),
        Ok(_) => {
            accounts.erase(&id).await?;
            Err(answered_before())
        }
        // A change that may still turn out to be made keeps its record: the next attempt finds and clears it.
        Err(problem) if problem.code() == Code::ReadOnly => Err(problem),
        Err(problem) => {
            accounts.erase(&id).await?;
            Err(problem)
        }
    }
}

/// Answers a request for an account that there is: with a new invitation if it is the request that made it.
async fn invite_again(api: &Api, write: Write, id: String) -> Result<Response, Problem> {
    let create = edit(&write, format!("Invite {id}"), DirectoryEdit::CreateAccount { id: id.clone() });
    match submit(api, write, create).await {
        Ok(outcome) if outcome.replayed && is_waiting(api.sign_in.accounts().get(&id)) => {
            let invited = api.sign_in.accounts().reset(&id, api.clock.now_ms()).await?;
            Ok(invitation(api, &invited, outcome.revision))
        }
        Ok(_) => Err(answered_before()),
        Err(problem) if problem.code() == Code::InvalidChange => Err(AccountError::NameTaken.into()),
        Err(problem) => Err(problem),
    }
}

fn answered_before() -> Problem {
    let detail = "This request was answered before, and the account was claimed or erased since.";
    Problem::new(Code::Conflict, detail)
}

/// Shows an account.
#[utoipa::path(get, path = "/api/v1/accounts/{id}", tag = "accounts",
    params(("id" = String, Path, description = "Id of the account, or its name")),
    responses((status = 200, description = "The account", body = ref("#/components/schemas/Account"))))]
pub async fn show_account(State(api): State<Api>, Path(id): Path<String>) -> Result<Json<Value>, Problem> {
    let (world, known) = (api.world(), api.principal_id(&id));
    let found = world.directory.principals.get(&known).filter(|known| known.kind == PrincipalKind::Human);
    found.map(|known| Json(api.account(&world, known))).ok_or_else(|| Problem::not_found("account", &id))
}

/// Erases who a person is: name, e-mail address and all that the person signs in with. Sessions end at once. What the person did
/// keeps the id, which then stands for nobody.
#[utoipa::path(delete, path = "/api/v1/accounts/{id}", tag = "accounts",
    params(("id" = String, Path, description = "Id of the account, or its name")),
    responses((status = 200, description = "What changed", body = ref("#/components/schemas/ChangeOutcome"))))]
pub async fn erase_account(State(api): State<Api>, Path(id): Path<String>, write: Write) -> Result<Response, Problem> {
    let id = api.principal_id(&id);
    api.allow(&write.author, Action::ErasePrincipal, &installation(), true)?;
    let _alone = api.account_edits.lock().await;
    let author = write.author.clone();
    let is_erased = api.world().directory.principals.get(&id).is_some_and(|known| known.erased_at.is_some());
    let response = if is_erased && api.sign_in.accounts().get(&id).is_some() {
        // The journal says so already, and the vault was not written to its end.
        let revision = api.world().revision;
        Json(json!({"revision": revision, "changed": [], "summary": [], "dryRun": false})).into_response()
    } else {
        let erase = DirectoryEdit::ErasePrincipal { id: id.clone() };
        answer(submit_edit(&api, write, format!("Erase who {id} is"), erase).await?)
    };
    api.sign_in.accounts().erase(&id).await?;
    api.uses.forget(&id).await.map_err(Problem::internal)?;
    let event = Event {
        actor_id: Some(author.actor_id),
        action: Some(Action::ErasePrincipal.as_str().to_owned()),
        credential: author.credential,
        detail: format!("account {id}"),
        ..Event::new(api.clock.now_ms(), EventKind::Erased, author.origin_id)
    };
    api.audit.record(event);
    Ok(response)
}

/// Takes password and second factor away and answers an invitation to choose them anew, which is shown this once. Sessions end
/// at once.
#[utoipa::path(post, path = "/api/v1/accounts/{id}/reset", tag = "accounts",
    params(("id" = String, Path, description = "Id of the account, or its name"),
           ("Idempotency-Key" = Option<String>, Header, description = "Makes it safe to send the request again within 24 hours: \
            the invitation is then a new one, in the place of the first")),
    responses((status = 200, description = "The account and its invitation", body = ref("#/components/schemas/AccountInvitation")),
              (status = 409, description = "The account signs in at its provider")))]
pub async fn reset_account(State(api): State<Api>, Path(id): Path<String>, write: Write) -> Result<Response, Problem> {
    let id = api.principal_id(&id);
    api.allow(&write.author, Action::ResetAccount, &installation(), true)?;
    let _alone = api.account_edits.lock().await;
    let accounts = api.sign_in.accounts();
    if accounts.get(&id).is_some_and(|account| account.state == AccountState::OfProvider) {
        return Err(AccountError::OfProvider.into());
    }
    let reset = DirectoryEdit::ResetAccount { id: id.clone() };
    let outcome = submit_edit(&api, write, format!("Reset the account {id}"), reset).await?;
    if outcome.replayed && !is_waiting(accounts.get(&id)) {
        return Err(answered_before());
    }
    let invited = accounts.reset(&id, api.clock.now_ms()).await?;
    Ok(invitation(&api, &invited, outcome.revision))
}

/// Shuts a person out: sessions end at once, and so do the tokens of the person's AI agents, until the account is enabled again.
#[utoipa::path(post, path = "/api/v1/accounts/{id}/disable", tag = "accounts",
    params(("id" = String, Path, description = "Id of the account, or its name")),
    responses((status = 200, description = "What changed", body = ref("#/components/schemas/ChangeOutcome"))))]
pub async fn disable_account(
    State(api): State<Api>,
    Path(id): Path<String>,
    write: Write,
) -> Result<Response, Problem> {
    let id = api.principal_id(&id);
    let disable = DirectoryEdit::DisablePrincipal { id: id.clone() };
    let outcome = submit_edit(&api, write, format!("Disable {id}"), disable).await?;
    api.sign_in.sessions().end_all_of(&id).await.map_err(Problem::internal)?;
    Ok(answer(outcome))
}

/// Lets a person in again who was shut out.
#[utoipa::path(post, path = "/api/v1/accounts/{id}/enable", tag = "accounts",
    params(("id" = String, Path, description = "Id of the account, or its name")),
    responses((status = 200, description = "What changed", body = ref("#/components/schemas/ChangeOutcome"))))]
pub async fn enable_account(State(api): State<Api>, Path(id): Path<String>, write: Write) -> Result<Response, Problem> {
    let id = api.principal_id(&id);
    submit_edit(&api, write, format!("Enable {id}"), DirectoryEdit::EnablePrincipal { id }).await.map(answer)
}

/// An edit that may be sent again.
fn edit(write: &Write, comment: String, edit: DirectoryEdit) -> ChangeDraft {
    ChangeDraft { idempotency: write.idempotency.clone(), ..draft(comment, edit) }
}

fn is_waiting(account: Option<Account>) -> bool {
    account.is_some_and(|account| account.state == AccountState::Invited)
}

fn invitation(api: &Api, invited: &Invited, revision: u64) -> Response {
    let name = api.sign_in.accounts().get(&invited.account).map(|account| account.person.name);
    Json(json!({
        "id": invited.account,
        "name": name,
        "invitation": invited.credential.reveal(),
        "expiresAt": invited.expires_at,
        "revision": revision,
    }))
    .into_response()
}

impl Api {
    fn account(&self, world: &World, known: &Principal) -> Value {
        let account = self.sign_in.accounts().get(&known.id);
        let now = self.clock.now_ms();
        let state = match &account {
            _ if known.erased_at.is_some() => "erased",
            _ if known.disabled_at.is_some() => "disabled",
            Some(_) if known.claimed_at.is_some() => "active",
            Some(Account { invited_until: Some(until), .. }) if now < *until => "invited",
            _ => "lapsed",
        };
        let roles: Vec<Value> = world.directory.bindings_of(&known.id, &[]).map(|binding| json!(**binding)).collect();
        let mut shown = json!({"id": known.id, "state": state, "roles": roles, "createdAt": known.created_at});
        let mut set = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                shown[name] = value;
            }
        };
        set("claimedAt", known.claimed_at.map(Value::from));
        set("disabledAt", known.disabled_at.map(Value::from));
        set("erasedAt", known.erased_at.map(Value::from));
        set("lastUsedAt", self.uses.last(&known.id).map(|used| used.last_at.into()));
        if let Some(Account { person, invited_until, .. }) = account {
            set("name", Some(person.name.into()));
            set("email", person.email.map(Value::from));
            set("provider", person.provider.map(|provider| provider.issuer.into()));
            set("invitedUntil", invited_until.map(Value::from));
        }
        shown
    }
}
