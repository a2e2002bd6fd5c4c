//! Who calls: the operator's token, a person's session, or the token of a service account or an AI agent, in
//! `Authorization: Bearer …`; from browsers a session's cookie.

use std::net::IpAddr;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{AUTHORIZATION, COOKIE, HOST, ORIGIN, USER_AGENT};
use http::{HeaderMap, HeaderName, Method};
use tokio::time::Instant;

use super::Api;
use super::middleware::ClientAddress;
use super::problem::{Code, Problem};
use crate::audit::{Event, EventKind};
use crate::changes::Author;
use crate::identity::OPERATOR;
use crate::identity::credential::SecretHash;
use crate::identity::sessions::{Door, Place, SessionInfo};
use crate::policy::PrincipalKind;

/// Name of the cookie that holds a browser's session. Browsers take a name with this prefix only from HTTPS, for the whole host.
pub const SECURE_COOKIE: &str = "__Host-guidon";
/// Its name where the server is reached by plain HTTP, which is on this machine only.
pub const PLAIN_COOKIE: &str = "guidon";

/// Who makes a request: an extension of every request to the API.
#[derive(Clone, Debug)]
pub struct Caller {
    /// As the write path and the policies know it.
    pub author: Author,
    /// The session it came with, if a person calls.
    pub session: Option<SessionInfo>,
    /// Hash of the credential it came with.
    pub hash: SecretHash,
}

/// Where a request comes from.
#[derive(Clone, Debug)]
pub struct Visit {
    /// Address of the client.
    pub address: IpAddr,
    /// `cli`, `browser` or `api`.
    pub door: &'static str,
    /// What the client calls itself.
    pub user_agent: String,
    /// The id that stands for address and door in the journal.
    pub origin_id: String,
}

/// Lets whoever has a valid credential through, and tells everybody else why not, without saying which part of it was wrong.
pub async fn require_caller(State(api): State<Api>, mut request: Request, next: Next) -> Response {
    let (method, headers) = (request.method().clone(), request.headers().clone());
    let address = request.extensions().get().copied();
    match identify(&api, &method, &headers, address).await {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(problem) => problem.into_response(),
    }
}

async fn identify(
    api: &Api,
    method: &Method,
    headers: &HeaderMap,
    address: Option<ClientAddress>,
) -> Result<Caller, Problem> {
    let from = come_from(api, headers, address).await?;
    api.refusals.check(&from.address, Instant::now()).map_err(|seconds| {
        Problem::new(Code::TooManyRequests, "Too many refused credentials came from this address.")
            .retry_after_s(seconds)
    })?;
    let refused = |detail: &str| {
        // Whoever is over the limit hears so at the next request.
        let _ = api.refusals.take(from.address, Instant::now());
        api.audit.record(Event::new(api.clock.now_ms(), EventKind::CredentialRefused, from.origin_id.clone()));
        Problem::new(Code::Unauthorized, detail)
    };
    let cookie = session_cookie(headers, api.cookie_name());
    let token = match (bearer(headers), &cookie) {
        (Some(token), _) => token.to_owned(),
        (None, Some(cookie)) => {
            check_same_origin(method, headers)?;
            cookie.clone()
        }
        (None, None) => return Err(refused("Send the header Authorization: Bearer <token>.")),
    };
    let door = if bearer(headers).is_some() { Door::Cli } else { Door::Browser };
    match recognise(api, &from, &token, door) {
        Recognised::Caller { mut caller, used } => {
            let from = from.settle(api).await?;
            caller.author.origin_id.clone_from(&from.origin_id);
            if let Some(credential) = used {
                note_use(api, &from, &credential, &caller.author, api.clock.now_ms());
            }
            Ok(*caller)
        }
        Recognised::SdkKey => {
            Err(Problem::new(Code::Forbidden, "An SDK key opens /sdk/v1 only; the API takes a session or a token."))
        }
        Recognised::Nobody => Err(refused("The credential is not valid, or its time is over.")),
    }
}

enum Recognised {
    /// Somebody, and what of theirs was used, as uses are noted.
    Caller {
        caller: Box<Caller>,
        used: Option<String>,
    },
    SdkKey,
    Nobody,
}

fn recognise(api: &Api, from: &Visit, token: &str, door: Door) -> Recognised {
    let (hash, world, now) = (SecretHash::of(token), api.world(), api.clock.now_ms());
    let found = |author: Author, session: Option<SessionInfo>, used: Option<&str>| {
        let caller = Box::new(Caller { author, session, hash });
        Recognised::Caller { caller, used: used.map(str::to_owned) }
    };
    if door == Door::Cli && api.identity.is_operator(&hash) {
        return found(Author::of(OPERATOR, &from.origin_id, PrincipalKind::Operator), None, None);
    }
    let place = Place { door, user_agent: &from.user_agent, address: from.address };
    let active = |id: &str| world.directory.principals.get(id).is_some_and(|principal| principal.is_active(now));
    if let Some(session) = api.sign_in.sessions().check(&hash, place, now).filter(|session| active(&session.account)) {
        let author = Author {
            groups: session.groups.clone(),
            factor_at: session.factor_at,
            ..Author::of(&session.account, &from.origin_id, PrincipalKind::Human)
        };
        let account = session.account.clone();
        return found(author, Some(session), Some(&account));
    }
    let hex = hash.to_hex();
    if let Some((token, principal)) = world.directory.live_token(&hex, now)
        && principal.owner.as_deref().is_none_or(active)
    {
        let author = Author {
            owner: principal.owner.clone(),
            scope: Some(token.scope.clone()),
            credential: Some(token.id.clone()),
            ..Author::of(&principal.id, &from.origin_id, principal.kind)
        };
        return found(author, None, Some(&token.id));
    }
    if world.sdk_key(&hex).is_some() { Recognised::SdkKey } else { Recognised::Nobody }
}

fn note_use(api: &Api, from: &Visit, credential: &str, author: &Author, now: u64) {
    if api.uses.note(credential, from.address, now) {
        let event = Event {
            actor_id: Some(author.actor_id.clone()),
            credential: author.credential.clone(),
            ..Event::new(now, EventKind::NewAddress, from.origin_id.clone())
        };
        api.audit.record(event);
    }
}

impl Visit {
    /// The same, on record: for those whose credential is known to be good.
    ///
    /// # Errors
    ///
    /// If a new place cannot be recorded.
    pub async fn settle(self, api: &Api) -> Result<Self, Problem> {
        let origin_id = api.identity.origin(self.address, self.door).await.map_err(Problem::internal)?;
        Ok(Self { origin_id, ..self })
    }
}

/// Where a request comes from, with an id for it: of that place if it is on record, else the one that all strangers have, until
/// [`Visit::settle`].
///
/// # Errors
///
/// If the id of strangers cannot be recorded.
pub async fn come_from(api: &Api, headers: &HeaderMap, address: Option<ClientAddress>) -> Result<Visit, Problem> {
    let ClientAddress(address) = address.ok_or_else(|| Problem::internal("a request came without an address"))?;
    let user_agent = headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default().to_owned();
    let door = if bearer(headers).is_none() && session_cookie(headers, api.cookie_name()).is_some() {
        "browser"
    } else if user_agent.starts_with("guidon-cli/") {
        "cli"
    } else {
        "api"
    };
    let origin_id = match api.identity.known_origin(address, door) {
        Some(known) => known,
        None => api.identity.stranger(door).await.map_err(Problem::internal)?,
    };
    Ok(Visit { address, door, user_agent, origin_id })
}

/// The credential of an `Authorization: Bearer` header, if there is exactly one.
#[must_use]
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (value, None) = (values.next()?, values.next()) else { return None };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// The session of a browser's cookie, which has the name that this server sets: under TLS a cookie of the plain name could be
/// another's, whom plain HTTP or a neighbouring host let set it.
#[must_use]
pub fn session_cookie(headers: &HeaderMap, set: &str) -> Option<String> {
    let values = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = values.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let found = pairs.find(|(name, value)| *name == set && !value.is_empty());
    found.map(|(_, value)| value.to_owned())
}

/// Refuses what another site's page made a browser send. The cookie's `SameSite` keeps that out too; this holds where a browser
/// does not know it.
pub(super) fn check_same_origin(method: &Method, headers: &HeaderMap) -> Result<(), Problem> {
    if matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) {
        return Ok(());
    }
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let origin = text(ORIGIN).and_then(|origin| origin.split_once("://")).map(|(_, host)| host);
    if origin.is_some() && origin == text(HOST) {
        Ok(())
    } else {
        let detail = "A change with a session's cookie has to come from this server's own pages (header Origin).";
        Err(Problem::new(Code::Forbidden, detail))
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn only_one_well_formed_header_is_a_credential() {
        let token = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(AUTHORIZATION, HeaderValue::from_static(value));
            }
            bearer(&headers).map(str::to_owned)
        };
        assert_eq!(token(&["Bearer abc"]).as_deref(), Some("abc"));
        assert_eq!(token(&["bearer  abc "]).as_deref(), Some("abc"));
        for wrong in [&[][..], &["abc"], &["Basic abc"], &["Bearer "], &["Bearer a", "Bearer b"]] {
            assert_eq!(token(wrong), None);
        }
    }

    #[test]
    fn only_the_cookie_that_the_server_sets_is_a_session() {
        let mut headers = HeaderMap::new();
        headers.insert(COOKIE, HeaderValue::from_static("guidon=another; __Host-guidon=own"));
        assert_eq!(session_cookie(&headers, SECURE_COOKIE).as_deref(), Some("own"));
        assert_eq!(session_cookie(&headers, PLAIN_COOKIE).as_deref(), Some("another"));
        headers.insert(COOKIE, HeaderValue::from_static("guidon=another"));
        assert_eq!(session_cookie(&headers, SECURE_COOKIE), None);
    }

    #[test]
    fn a_cookie_changes_something_only_from_the_servers_own_pages() {
        let headers = |origin: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, HeaderValue::from_static("flags.example.com"));
            headers.insert(COOKIE, HeaderValue::from_static("theme=dark; __Host-guidon=gdn_session_x"));
            origin.map(|origin| headers.insert(ORIGIN, HeaderValue::from_static(origin)));
            headers
        };
        assert_eq!(session_cookie(&headers(None), SECURE_COOKIE).as_deref(), Some("gdn_session_x"));
        assert!(check_same_origin(&Method::GET, &headers(None)).is_ok());
        assert!(check_same_origin(&Method::POST, &headers(Some("https://flags.example.com"))).is_ok());
        for origin in [None, Some("https://evil.example"), Some("null"), Some("https://flags.example.com.evil.example")]
        {
            assert!(check_same_origin(&Method::POST, &headers(origin)).is_err(), "{origin:?}");
        }
    }
}
