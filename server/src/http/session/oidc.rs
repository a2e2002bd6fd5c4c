//! Signing in at an OpenID provider, by authorization code with PKCE. The client listens on its own machine.

use axum::extract::State;
use axum::response::Response;
use axum::{Extension, Json};
use http::{HeaderMap, Method};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Secret, Stranger, Transport, claim};
use crate::audit::{Event, EventKind};
use crate::changes::{Author, ChangeDraft, Instruction};
use crate::http::Api;
use crate::http::auth::check_same_origin;
use crate::http::changes::submit_by;
use crate::http::middleware::ClientAddress;
use crate::http::problem::{Code, Fault, Problem};
use crate::http::write::{JsonBody, invalid};
use crate::identity::DirectoryEdit;
use crate::identity::accounts::ProviderIdentity;
use crate::identity::oidc::{Claims, OidcError, SignInFlow};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Begin {
    redirect_uri: String,
    code_challenge: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Finish {
    state: Secret,
    code: Secret,
    code_verifier: Secret,
    #[serde(default)]
    transport: Transport,
}

/// Says how people can sign in here.
#[utoipa::path(get, path = "/api/v1/session/providers", tag = "session", security(()),
    responses((status = 200, description = "The ways to sign in", body = ref("#/components/schemas/SignInProviders"))))]
pub async fn list_providers(State(api): State<Api>) -> Json<Value> {
    let providers: Vec<Value> = api.oidc.iter().map(|flow| json!({"kind": "oidc", "issuer": flow.issuer()})).collect();
    Json(json!({"local": true, "providers": providers}))
}

/// Begins a sign-in at the provider: answers where the person's browser is to go. The client keeps the PKCE verifier, and
/// listens at the redirect URI, on this machine's loopback address.
#[utoipa::path(post, path = "/api/v1/session/oidc", tag = "session", security(()),
    request_body(content = ref("#/components/schemas/SignInBegin")),
    responses((status = 200, description = "Where to go", body = ref("#/components/schemas/SignInBegun")),
              (status = 503, description = "The provider does not answer")))]
pub async fn begin_sign_in(
    State(api): State<Api>,
    Extension(address): Extension<ClientAddress>,
    headers: HeaderMap,
    body: JsonBody,
) -> Result<Json<Value>, Problem> {
    let Begin { redirect_uri, code_challenge } = body.read()?;
    let stranger = Stranger::at_the_door(&api, &headers, address).await?;
    let begun = api.provider()?.start(&redirect_uri, &code_challenge).await;
    let begun = begun.map_err(|error| stranger.refused(&api, problem(&error)))?;
    Ok(Json(json!({"authorizeUrl": begun.authorize_url, "state": begun.state})))
}

/// Finishes a sign-in with the code that the provider sent back. The first sign-in of a person makes the account.
#[utoipa::path(post, path = "/api/v1/session/oidc/finish", tag = "session", security(()),
    request_body(content = ref("#/components/schemas/SignInFinish")),
    responses((status = 200, description = "The session", body = ref("#/components/schemas/SessionCreated")),
              (status = 401, description = "The code, its state or its verifier is wrong"),
              (status = 503, description = "The provider does not answer")))]
pub async fn finish_sign_in(
    State(api): State<Api>,
    Extension(address): Extension<ClientAddress>,
    headers: HeaderMap,
    body: JsonBody,
) -> Result<Response, Problem> {
    let Finish { state, code, code_verifier, transport } = body.read()?;
    let stranger = Stranger::at_the_door(&api, &headers, address).await?;
    if transport == Transport::Cookie {
        check_same_origin(&Method::POST, &headers)?;
    }
    let vouched = api.provider()?.finish(&state.0, &code.0, &code_verifier.0).await;
    let claims = vouched.map_err(|error| {
        let origin = stranger.visit.origin_id.clone();
        let event = Event::new(api.clock.now_ms(), EventKind::SignInFailed, origin);
        api.audit.record(Event { detail: "by provider".to_owned(), ..event });
        tracing::info!(%error, "a sign-in by the provider was refused");
        stranger.refused(&api, problem(&error))
    })?;
    record(&api, &claims).await?;
    let admits = |account: &str| api.may_sign_in(account);
    let caller = stranger.caller(&api, transport.door());
    let signed_in = api.sign_in.sign_in_of_provider(&claims, caller, &admits).await;
    let signed_in = signed_in.map_err(|error| stranger.refused(&api, error))?;
    api.signed_in(signed_in, transport)
}

/// Records the person and the account, if they are new.
async fn record(api: &Api, claims: &Claims) -> Result<(), Problem> {
    let account = {
        let _alone = api.account_edits.lock().await;
        let identity = ProviderIdentity { issuer: claims.issuer.clone(), subject: claims.subject.clone() };
        let accounts = api.sign_in.accounts();
        let account = accounts.record_of_provider(identity, &claims.name, claims.email.as_deref()).await?.account;
        if !api.world().directory.principals.contains_key(&account) {
            let (create, claim) = (account.clone(), account.clone());
            let edits = [DirectoryEdit::CreateAccount { id: create }, DirectoryEdit::ClaimAccount { id: claim }];
            let instructions = edits.map(|edit| Instruction::Directory(Box::new(edit))).into();
            let comment = "First sign-in at the provider".to_owned();
            let draft = ChangeDraft { comment, instructions, ..ChangeDraft::default() };
            submit_by(api, Author::system(), draft).await?;
        }
        account
    };
    claim::record(api, &account).await
}

fn problem(error: &OidcError) -> Problem {
    let text = error.to_string();
    let code = match error {
        OidcError::BadRedirect => return invalid(vec![Fault::new("/redirectUri", "badRedirect", text)]),
        OidcError::Unreachable { .. } | OidcError::BadAnswer { .. } | OidcError::BadUrl { .. } => {
            tracing::warn!(%error, "the provider could not be asked");
            Code::Unavailable
        }
        OidcError::EmailDomain => Code::Forbidden,
        OidcError::CodeRefused { .. } | OidcError::BadVerifier | OidcError::UnknownState | OidcError::Token(_) => {
            Code::Unauthorized
        }
    };
    Problem::new(code, format!("{text}."))
}

impl Api {
    fn provider(&self) -> Result<&SignInFlow, Problem> {
        self.oidc.as_deref().ok_or_else(|| {
            let detail = "This server has no OpenID provider (--oidc-issuer); sign in with name, password and code.";
            Problem::new(Code::NotFound, detail)
        })
    }
}
