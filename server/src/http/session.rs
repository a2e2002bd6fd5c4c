//! `/api/v1/session`: signing in, proving a factor, signing out.

mod claim;
mod oidc;
mod refusals;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use http::header::SET_COOKIE;
use http::{HeaderMap, HeaderValue, Method};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::Api;
use super::auth::{Caller, PLAIN_COOKIE, SECURE_COOKIE, Visit, check_same_origin, come_from};
use super::middleware::ClientAddress;
use super::problem::{Code, Problem};
use super::write::JsonBody;
use crate::audit::{Event, EventKind};
use crate::changes::authorize::FACTOR_LIFE_MS;
use crate::identity::accounts::AccountError;
use crate::identity::sessions::{BROWSER_LIFE_MS, Door, Place, SessionInfo};
use crate::identity::sign_in::{Attempt, Caller as SignInCaller, SignedIn};
use crate::policy::PrincipalKind;

/// The operations, for the API's description.
#[derive(utoipa::OpenApi)]
#[openapi(paths(
    create_session,
    show_session,
    end_session,
    prove_factor,
    renew_recovery_codes,
    claim::begin_claim,
    claim::finish_claim,
    oidc::list_providers,
    oidc::begin_sign_in,
    oidc::finish_sign_in,
))]
pub struct Operations;

/// The routes, behind authentication and the policies.
pub fn routes() -> Router<Api> {
    Router::new()
        .route("/api/v1/session", get(show_session).delete(end_session))
        .route("/api/v1/session/factor", post(prove_factor))
        .route("/api/v1/session/recovery-codes", post(renew_recovery_codes))
}

/// The routes of those who have no credential yet.
pub fn open_routes() -> Router<Api> {
    Router::new()
        .route("/api/v1/session", post(create_session))
        .route("/api/v1/session/claim", post(claim::begin_claim))
        .route("/api/v1/session/claim/finish", post(claim::finish_claim))
        .route("/api/v1/session/providers", get(oidc::list_providers))
        .route("/api/v1/session/oidc", post(oidc::begin_sign_in))
        .route("/api/v1/session/oidc/finish", post(oidc::finish_sign_in))
}

/// A text that no message repeats: a password, a code, an invitation.
pub(super) struct Secret(pub(super) String);

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::String(text) => Ok(Self(text)),
            _ => Err(serde::de::Error::custom("expected a string")),
        }
    }
}

/// How a session is to be sent with later requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Transport {
    /// In `Authorization: Bearer`.
    #[default]
    Bearer,
    /// As a cookie, which the answer sets.
    Cookie,
}

impl Transport {
    pub(super) fn door(self) -> Door {
        match self {
            Self::Bearer => Door::Cli,
            Self::Cookie => Door::Browser,
        }
    }
}

#[derive(Deserialize)]
struct NewSession {
    name: Secret,
    password: Secret,
    code: Secret,
    #[serde(default)]
    transport: Transport,
}

#[derive(Deserialize)]
struct Proof {
    code: Secret,
}

/// Somebody who comes without a credential.
pub(super) struct Stranger {
    pub(super) visit: Visit,
}

impl Stranger {
    /// Lets somebody in who has not been refused too often.
    pub(super) async fn at_the_door(api: &Api, headers: &HeaderMap, address: ClientAddress) -> Result<Self, Problem> {
        let visit = come_from(api, headers, Some(address)).await?;
        api.refusals.check(&visit.address, Instant::now()).map_err(|seconds| {
            Problem::new(Code::TooManyRequests, "Too many refused credentials came from this address.")
                .retry_after_s(seconds)
        })?;
        Ok(Self { visit })
    }

    /// The same as the identity module knows callers.
    pub(super) fn caller<'a>(&'a self, api: &'a Api, door: Door) -> SignInCaller<'a> {
        caller_of(api, &self.visit, door)
    }

    /// Counts a refusal against the address.
    pub(super) fn refused(&self, api: &Api, problem: impl Into<Problem>) -> Problem {
        let problem = problem.into();
        if !problem.code().status().is_server_error() {
            // Whoever is over the limit hears so at the next request.
            let _ = api.refusals.take(self.visit.address, Instant::now());
        }
        problem
    }
}

pub(super) fn caller_of<'a>(api: &'a Api, visit: &'a Visit, door: Door) -> SignInCaller<'a> {
    let place = Place { door, user_agent: &visit.user_agent, address: visit.address };
    SignInCaller { place, origin_id: &visit.origin_id, record: Some((&api.identity, visit.door)) }
}

/// Signs a person in with name, password and a one-time code or a recovery code. The answer holds the session's credential, or
/// sets it as a cookie. What of the three is wrong is not said.
#[utoipa::path(post, path = "/api/v1/session", tag = "session", security(()),
    request_body(content = ref("#/components/schemas/SignIn")),
    responses((status = 200, description = "The session", body = ref("#/components/schemas/SessionCreated")),
              (status = 401, description = "Name, password or code is wrong"),
              (status = 429, description = "Too many attempts failed: `Retry-After` says when to try again")))]
pub async fn create_session(
    State(api): State<Api>,
    Extension(address): Extension<ClientAddress>,
    headers: HeaderMap,
    body: JsonBody,
) -> Result<Response, Problem> {
    let NewSession { name, password, code, transport } = body.read()?;
    let stranger = Stranger::at_the_door(&api, &headers, address).await?;
    if transport == Transport::Cookie {
        check_same_origin(&Method::POST, &headers)?;
    }
    let attempt = Attempt { name: &name.0, password: &password.0, code: &code.0 };
    let admits = |account: &str| api.may_sign_in(account);
    let signed_in = api.sign_in.sign_in(attempt, stranger.caller(&api, transport.door()), &admits).await;
    let signed_in = signed_in.map_err(|error| stranger.refused(&api, error))?;
    claim::record(&api, &signed_in.session.account).await?;
    api.signed_in(signed_in, transport)
}

/// Shows who the caller is, and what the caller may do.
#[utoipa::path(get, path = "/api/v1/session", tag = "session",
    responses((status = 200, description = "The caller", body = ref("#/components/schemas/Session"))))]
pub async fn show_session(State(api): State<Api>, Extension(caller): Extension<Caller>) -> Json<Value> {
    let (world, author) = (api.world(), &caller.author);
    let person = api.sign_in.accounts().get(&author.actor_id).map(|account| account.person);
    let operator = (author.kind == PrincipalKind::Operator).then(|| "Operator".to_owned());
    let name = api.name_of(&author.actor_id).or(operator);
    let roles: Vec<Value> =
        world.directory.bindings_of(&author.actor_id, &author.groups).map(|it| json!(**it)).collect();
    let mut shown = json!({
        "principal": author.actor_id,
        "kind": author.kind.as_str(),
        "name": name,
        "roles": roles,
        "groups": author.groups,
    });
    if let Some(email) = person.and_then(|person| person.email) {
        shown["email"] = email.into();
    }
    if let Some(owner) = &author.owner {
        shown["owner"] = owner.as_str().into();
    }
    if let Some(scope) = &author.scope {
        shown["scope"] = json!(scope);
    }
    if let Some(credential) = &author.credential {
        shown["credential"] = credential.as_str().into();
    }
    if let Some(session) = &caller.session {
        shown["session"] = view(session);
    }
    Json(shown)
}

/// Signs out: the session is over at once.
#[utoipa::path(delete, path = "/api/v1/session", tag = "session",
    responses((status = 200, description = "The session is over", body = ref("#/components/schemas/SessionEnded"))))]
pub async fn end_session(
    State(api): State<Api>,
    Extension(address): Extension<ClientAddress>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let session = session_of(&caller)?;
    let visit = come_from(&api, &headers, Some(address)).await?;
    let ended = api.sign_in.sign_out(&caller.hash, caller_of(&api, &visit, session.door)).await?;
    let mut response = Json(json!({"ended": ended})).into_response();
    if session.door == Door::Browser {
        response.headers_mut().append(SET_COOKIE, api.cookie("", 0)?);
    }
    Ok(response)
}

/// Proves a second factor again, with a one-time code or a recovery code: for ten minutes the session may do what needs one.
#[utoipa::path(post, path = "/api/v1/session/factor", tag = "session",
    request_body(content = ref("#/components/schemas/SessionFactor")),
    responses((status = 200, description = "The session", body = ref("#/components/schemas/SessionInfo")),
              (status = 429, description = "Too many codes were wrong: `Retry-After` says when to try again")))]
pub async fn prove_factor(
    State(api): State<Api>,
    Extension(address): Extension<ClientAddress>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: JsonBody,
) -> Result<Json<Value>, Problem> {
    let Proof { code } = body.read()?;
    let session = session_of(&caller)?;
    let visit = come_from(&api, &headers, Some(address)).await?;
    let proven = api.sign_in.prove_factor(&caller.hash, &code.0, caller_of(&api, &visit, session.door)).await;
    Ok(Json(view(&proven?)))
}

/// Makes new recovery codes, in the place of the old, and answers them this once. It takes a factor that was proved in the last
/// ten minutes.
#[utoipa::path(post, path = "/api/v1/session/recovery-codes", tag = "session",
    responses((status = 200, description = "The codes", body = ref("#/components/schemas/EnrolmentDone")),
              (status = 403, description = "A second factor has to be proved first"),
              (status = 409, description = "An identity provider has the factor, not this server")))]
pub async fn renew_recovery_codes(
    State(api): State<Api>,
    Extension(address): Extension<ClientAddress>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
) -> Result<Json<Value>, Problem> {
    let session = session_of(&caller)?;
    let now = api.clock.now_ms();
    if !session.factor_at.is_some_and(|at| at <= now && now - at < FACTOR_LIFE_MS) {
        let detail =
            "New recovery codes take a second factor: prove it again (`guidon factor`) and send the request again.";
        return Err(Problem::new(Code::FactorNeeded, detail));
    }
    let (accounts, account) = (api.sign_in.accounts(), session.account.as_str());
    if accounts.get(account).is_some_and(|account| account.person.provider.is_some()) {
        return Err(AccountError::OfProvider.into());
    }
    let visit = come_from(&api, &headers, Some(address)).await?;
    let codes = accounts.renew_recovery_codes(account).await?;
    api.audit.record(Event {
        actor_id: Some(account.to_owned()),
        credential: caller.author.credential.clone(),
        detail: "made new recovery codes".to_owned(),
        ..Event::new(now, EventKind::FactorProven, visit.origin_id)
    });
    Ok(Json(json!({"account": account, "recoveryCodes": codes})))
}

pub(super) fn session_of(caller: &Caller) -> Result<&SessionInfo, Problem> {
    caller.session.as_ref().ok_or_else(|| {
        Problem::new(
            Code::Forbidden,
            "This credential is no session of a person: `guidon login` makes one. A token is ended by revoking it.",
        )
    })
}

pub(super) fn view(session: &SessionInfo) -> Value {
    json!({
        "id": session.id,
        "door": session.door.name(),
        "createdAt": session.created_at,
        "expiresAt": session.expires_at,
        "factorAt": session.factor_at,
    })
}

impl Api {
    /// Whether a person who shows to be the owner of this account is let in: unless it was shut out.
    pub(super) fn may_sign_in(&self, account: &str) -> bool {
        let world = self.world();
        let principal = world.directory.principals.get(account);
        principal.is_some_and(|known| known.disabled_at.is_none() && known.erased_at.is_none())
    }

    /// Tells a person who is signed in so.
    pub(super) fn signed_in(&self, signed_in: SignedIn, transport: Transport) -> Result<Response, Problem> {
        let SignedIn { credential, session, recovery_codes_left } = signed_in;
        let person = self.sign_in.accounts().get(&session.account).map(|account| account.person);
        let mut shown = json!({
            "account": session.account,
            "name": person.map(|person| person.name),
            "session": view(&session),
        });
        if let Some(left) = recovery_codes_left {
            shown["recoveryCodesLeft"] = left.into();
        }
        if transport == Transport::Bearer {
            shown["credential"] = credential.reveal().into();
            return Ok(Json(shown).into_response());
        }
        let mut response = Json(shown).into_response();
        response.headers_mut().append(SET_COOKIE, self.cookie(credential.reveal(), BROWSER_LIFE_MS / 1_000)?);
        Ok(response)
    }

    /// Name of the cookie that this server sets: the only one it takes a session from.
    pub(super) fn cookie_name(&self) -> &'static str {
        let secure = self.network.tls_cert.is_some() || !self.network.behind_proxy.is_empty();
        if secure { SECURE_COOKIE } else { PLAIN_COOKIE }
    }

    /// The header that sets a browser's session.
    fn cookie(&self, value: &str, life_s: u64) -> Result<HeaderValue, Problem> {
        let name = self.cookie_name();
        let flag = if name == SECURE_COOKIE { "; Secure" } else { "" };
        let text = format!("{name}={value}; Path=/; HttpOnly{flag}; SameSite=Strict; Max-Age={life_s}");
        let mut header = HeaderValue::from_str(&text).map_err(Problem::internal)?;
        header.set_sensitive(true);
        Ok(header)
    }
}
