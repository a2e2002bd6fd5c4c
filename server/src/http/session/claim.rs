//! Accepting an invitation, in two steps: a secret for one-time codes, then password and a first code.

use axum::extract::State;
use axum::{Extension, Json};
use http::HeaderMap;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Secret, Stranger};
use crate::changes::Author;
use crate::http::Api;
use crate::http::changes::submit_by;
use crate::http::directory::draft;
use crate::http::middleware::ClientAddress;
use crate::http::problem::Problem;
use crate::http::write::JsonBody;
use crate::identity::DirectoryEdit;
use crate::identity::accounts::AccountState;
use crate::identity::sessions::Door;

#[derive(Deserialize)]
struct BeginClaim {
    invitation: Secret,
}

#[derive(Deserialize)]
struct FinishClaim {
    invitation: Secret,
    password: Secret,
    code: Secret,
}

/// Begins to accept an invitation: answers a secret for an authenticator app. It waits 15 minutes for its first code.
#[utoipa::path(post, path = "/api/v1/session/claim", tag = "session", security(()),
    request_body(content = ref("#/components/schemas/EnrolmentBegin")),
    responses((status = 200, description = "The secret for one-time codes", body = ref("#/components/schemas/Enrolment")),
              (status = 401, description = "The invitation opens nothing")))]
pub async fn begin_claim(
    State(api): State<Api>,
    Extension(address): Extension<ClientAddress>,
    headers: HeaderMap,
    body: JsonBody,
) -> Result<Json<Value>, Problem> {
    let BeginClaim { invitation } = body.read()?;
    let stranger = Stranger::at_the_door(&api, &headers, address).await?;
    let begun = api.sign_in.accounts().begin_claim(&invitation.0, api.clock.now_ms());
    let enrolment = begun.map_err(|error| stranger.refused(&api, error))?;
    Ok(Json(json!({
        "name": enrolment.name,
        "secret": enrolment.secret,
        "otpauthUrl": enrolment.otpauth_url,
    })))
}

/// Accepts an invitation: chooses the password and proves a first code. Answers the recovery codes, which are shown this once.
#[utoipa::path(post, path = "/api/v1/session/claim/finish", tag = "session", security(()),
    request_body(content = ref("#/components/schemas/EnrolmentFinish")),
    responses((status = 200, description = "The account", body = ref("#/components/schemas/EnrolmentDone")),
              (status = 401, description = "The invitation opens nothing")))]
pub async fn finish_claim(
    State(api): State<Api>,
    Extension(address): Extension<ClientAddress>,
    headers: HeaderMap,
    body: JsonBody,
) -> Result<Json<Value>, Problem> {
    let FinishClaim { invitation, password, code } = body.read()?;
    let stranger = Stranger::at_the_door(&api, &headers, address).await?;
    let caller = stranger.caller(&api, Door::Cli);
    let claimed = api.sign_in.finish_claim(&invitation.0, &password.0, &code.0, caller).await;
    let claimed = claimed.map_err(|error| stranger.refused(&api, error))?;
    record(&api, &claimed.account).await?;
    Ok(Json(json!({"account": claimed.account, "recoveryCodes": claimed.recovery_codes})))
}

/// Journals that an account was claimed, if the journal does not say so yet: a server that ended between the two steps says so
/// at the next sign-in.
pub(in crate::http) async fn record(api: &Api, account: &str) -> Result<(), Problem> {
    let _alone = api.account_edits.lock().await;
    let waits = api.world().directory.principals.get(account).is_some_and(|known| known.claimed_at.is_none());
    let stands = api.sign_in.accounts().get(account).is_some_and(|known| known.state != AccountState::Invited);
    if !waits || !stands {
        return Ok(());
    }
    let claim = draft(String::new(), DirectoryEdit::ClaimAccount { id: account.to_owned() });
    submit_by(api, Author::system(), claim).await.map(|_| ())
}
