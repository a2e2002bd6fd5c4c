//! `POST /api/v1/token-exchange`: a signed identity token of a trusted issuer buys a token that lives for minutes.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use axum::routing::post;
use axum::{Extension, Router};
use http::HeaderMap;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::Api;
use super::auth::Visit;
use super::directory::{answer_with, draft, made};
use super::middleware::ClientAddress;
use super::problem::{Code, Fault, Problem};
use super::session::Stranger;
use super::write::{JsonBody, invalid};
use crate::audit::{Event, EventKind};
use crate::changes::Author;
use crate::identity::directory::TrustedIssuer;
use crate::identity::oidc::{OidcError, claimed_issuer};
use crate::identity::{Credential, CredentialKind, DirectoryEdit};

/// Most identity tokens remembered that bought something, until they are over.
const MAX_BOUGHT: usize = 100_000;
/// How much longer than its `exp` a token is remembered, in milliseconds: clocks may differ.
const SKEW_MS: u64 = 2 * 60 * 1_000;

/// The identity tokens that bought a token: each buys one. A restart forgets them.
#[derive(Debug, Default)]
pub struct Bought(Mutex<HashMap<[u8; 32], u64>>);

/// Why an identity token buys nothing now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unsold {
    /// It bought a token before.
    Spent,
    /// Too many that are not over yet have to be remembered.
    Full,
}

impl Bought {
    /// Remembers a token until `end`, unless it is remembered already.
    fn spend(&self, token: &str, end: u64, now: u64, room: usize) -> Result<[u8; 32], Unsold> {
        // What was signed: a signature can be written in more than one way.
        let signed = token.rsplit_once('.').map_or(token, |(signed, _)| signed);
        let hash = *blake3::hash(signed.as_bytes()).as_bytes();
        let mut bought = self.0.lock();
        if bought.get(&hash).is_some_and(|end| now < *end) {
            return Err(Unsold::Spent);
        }
        if bought.len() >= room {
            bought.retain(|_, end| now < *end);
        }
        if bought.len() >= room {
            return Err(Unsold::Full);
        }
        bought.insert(hash, end);
        Ok(hash)
    }

    /// Forgets a token that bought nothing after all.
    fn give_back(&self, hash: &[u8; 32]) {
        self.0.lock().remove(hash);
    }
}

/// The operations, for the API's description.
#[derive(utoipa::OpenApi)]
#[openapi(paths(exchange_token))]
pub struct Operations;

/// The routes of callers who have no credential yet.
pub fn open_routes() -> Router<Api> {
    Router::new().route("/api/v1/token-exchange", post(exchange_token))
}

#[derive(Deserialize)]
struct Exchange {
    issuer: Option<String>,
    token: String,
}

/// Exchanges an identity token of a trusted issuer, such as a CI job's, for a token of the service account that the trust
/// names. Which trust may be named in `issuer`, by id or URL; the credential is shown this once.
#[utoipa::path(post, path = "/api/v1/token-exchange", tag = "access", security(()),
    request_body(content = ref("#/components/schemas/TokenExchange")),
    responses((status = 200, description = "The token and its credential", body = ref("#/components/schemas/TokenCreated")),
              (status = 401, description = "The identity token buys nothing here")))]
pub async fn exchange_token(
    State(api): State<Api>,
    Extension(address): Extension<ClientAddress>,
    headers: HeaderMap,
    body: JsonBody,
) -> Result<Response, Problem> {
    let Exchange { issuer, token } = body.read()?;
    let stranger = Stranger::at_the_door(&api, &headers, address).await?;
    let found = find(&api, issuer.as_deref(), &token).await;
    let (trust, hash) = match found.and_then(|(trust, end)| Ok((trust, spend(&api, &token, end)?))) {
        Ok(found) => found,
        Err(problem) => {
            if problem.code() == Code::Unauthorized {
                let origin = stranger.visit.origin_id.clone();
                let event = Event {
                    detail: "an identity token was not exchanged".to_owned(),
                    ..Event::new(api.clock.now_ms(), EventKind::CredentialRefused, origin)
                };
                api.audit.record(event);
                return Err(stranger.refused(&api, problem));
            }
            return Err(problem);
        }
    };
    let from = stranger.visit.settle(&api).await?;
    let sold = sell(&api, &from, &trust).await;
    if sold.is_err() {
        api.bought.give_back(&hash);
    }
    sold
}

/// Takes the identity token, which is good until `end`, as the price of one token.
fn spend(api: &Api, token: &str, end: u64) -> Result<[u8; 32], Problem> {
    api.bought.spend(token, end, api.clock.now_ms(), MAX_BOUGHT).map_err(|unsold| match unsold {
        Unsold::Spent => {
            let detail =
                "This identity token has bought a token already, and buys one only; ask its issuer for a new one.";
            Problem::new(Code::Unauthorized, detail)
        }
        Unsold::Full => {
            let detail = "Too many identity tokens that are not over yet have bought a token; try again later.";
            Problem::new(Code::Unavailable, detail).retry_after_s(60)
        }
    })
}

/// When an identity token is over, in milliseconds since 1970; never if its claims do not say.
fn end_of(claims: &Map<String, Value>) -> u64 {
    let exp = claims.get("exp");
    let whole = exp.and_then(Value::as_u64);
    // A fraction of a second rounds up; the cast saturates.
    let seconds = whole.or_else(|| exp.and_then(Value::as_f64).map(|seconds| seconds.ceil() as u64));
    seconds.unwrap_or(u64::MAX).saturating_mul(1_000).saturating_add(SKEW_MS)
}

/// The one trust under which the identity token buys something, and when that token is over.
async fn find(api: &Api, issuer: Option<&str>, token: &str) -> Result<(Arc<TrustedIssuer>, u64), Problem> {
    let world = api.world();
    // Only an issuer that the installation trusts is ever asked for its keys, whatever the token says.
    let claimed = claimed_issuer(token).unwrap_or_default();
    let candidates = world.directory.issuers.values().filter(|trust| {
        trust.issuer == claimed && issuer.is_none_or(|named| trust.id == named || trust.issuer == named)
    });
    let (mut fitting, mut refusal) = (Vec::new(), None);
    for trust in candidates {
        // The keys are remembered: asking for each trust costs one look at the signature.
        match api.trusted_issuers.verify_for_exchange(token, &trust.issuer, &trust.audience).await {
            Ok(claims) if fits(trust, &claims) => fitting.push((Arc::clone(trust), end_of(&claims))),
            Ok(_) => {}
            Err(error) => refusal = Some(error),
        }
    }
    let now = api.clock.now_ms();
    let active = |(trust, _): &(Arc<TrustedIssuer>, u64)| {
        world.directory.principals.get(&trust.principal).is_some_and(|principal| principal.is_active(now))
    };
    fitting.retain(active);
    match (fitting.as_slice(), refusal) {
        ([(trust, end)], _) => Ok((Arc::clone(trust), *end)),
        ([], Some(error @ (OidcError::Unreachable { .. } | OidcError::BadAnswer { .. }))) => {
            tracing::warn!(%error, "an identity token could not be checked");
            Err(Problem::new(Code::Unavailable, "The issuer's keys cannot be read now; the server's log says why.")
                .retry_after_s(5))
        }
        ([], Some(OidcError::Token(problem))) => {
            Err(Problem::new(Code::Unauthorized, format!("The identity token does not hold: {problem}.")))
        }
        ([], _) => {
            let detail =
                "No trusted issuer takes a token with these claims; `guidon issuer list` shows what is trusted.";
            Err(Problem::new(Code::Unauthorized, detail))
        }
        (several, _) => {
            let ids: Vec<&str> = several.iter().map(|(trust, _)| &*trust.id).collect();
            let detail = format!("several trusts take this token; name one: {}", ids.join(", "));
            Err(invalid(vec![Fault::new("/issuer", "ambiguous", detail)]))
        }
    }
}

/// Makes the token, through the write path, as the server itself.
async fn sell(api: &Api, from: &Visit, trust: &TrustedIssuer) -> Result<Response, Problem> {
    api.writes.take(trust.principal.as_str().into(), Instant::now()).map_err(|seconds| {
        Problem::new(Code::TooManyRequests, "This service account buys tokens more often than it may.")
            .retry_after_s(seconds)
    })?;
    let credential = Credential::generate(CredentialKind::Service, &mut rand::rng());
    let edit = DirectoryEdit::CreateToken {
        id: String::new(),
        principal: trust.principal.clone(),
        name: format!("bought under {}", trust.id),
        scope: trust.scope.clone(),
        expires_at: api.clock.now_ms().saturating_add(trust.lifetime_s.saturating_mul(1_000)),
        hash: credential.hash().to_hex(),
    };
    let author = Author { origin_id: from.origin_id.clone(), ..Author::system() };
    let (changes, draft) =
        (Arc::clone(&api.changes), draft(format!("Exchange an identity token under {}", trust.id), edit));
    let submitted = tokio::spawn(async move { changes.submit(&author, draft).await });
    let outcome = submitted.await.map_err(Problem::internal)?.map_err(Problem::from)?;
    let (DirectoryEdit::CreateToken { id, principal, name, scope, expires_at, .. }, created_at) = made(&outcome)?
    else {
        return Err(Problem::internal("the entry of an exchanged token holds another edit"));
    };
    api.audit.record(Event {
        actor_id: Some(principal.clone()),
        credential: Some(id.clone()),
        detail: format!("under {}", trust.id),
        ..Event::new(api.clock.now_ms(), EventKind::TokenExchanged, from.origin_id.clone())
    });
    let shown = json!({
        "id": id, "token": credential.reveal(), "principal": principal, "name": name, "scope": scope,
        "createdAt": created_at, "expiresAt": expires_at,
    });
    Ok(answer_with(&outcome, shown))
}

/// Whether an identity token has every claim that the trust asks for.
fn fits(trust: &TrustedIssuer, claims: &Map<String, Value>) -> bool {
    !trust.claims.is_empty()
        && trust.claims.iter().all(|(name, wanted)| claims.get(name).is_some_and(|value| has(value, wanted)))
}

/// Whether a claim is `wanted` or, where that ends with `*`, begins so; of a list, one is enough.
fn has(value: &Value, wanted: &str) -> bool {
    let is = |text: &str| match wanted.strip_suffix('*') {
        Some(beginning) => text.starts_with(beginning),
        None => text == wanted,
    };
    match value {
        Value::String(text) => is(text),
        Value::Bool(_) | Value::Number(_) => is(&value.to_string()),
        Value::Array(several) => several.iter().any(|one| !one.is_array() && has(one, wanted)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_token_buys_once_until_it_is_over() {
        let bought = Bought::default();
        let hash = bought.spend("head.claims.signature", 1_000, 0, 2).unwrap();
        assert_eq!(bought.spend("head.claims.signature", 1_000, 999, 2), Err(Unsold::Spent));
        assert_eq!(bought.spend("head.claims.another", 1_000, 999, 2), Err(Unsold::Spent), "the same, signed again");
        bought.give_back(&hash);
        bought.spend("head.claims.signature", 1_000, 999, 2).unwrap();
        bought.spend("head.other.signature", 2_000, 999, 2).unwrap();
        assert_eq!(bought.spend("head.third.signature", 2_000, 999, 2), Err(Unsold::Full));
        bought.spend("head.third.signature", 2_000, 1_000, 2).unwrap();
        let claims = |exp: Value| json!({"exp": exp}).as_object().cloned().unwrap();
        assert_eq!(end_of(&claims(json!(10))), 10_000 + SKEW_MS);
        assert_eq!(end_of(&claims(json!(10.5))), 11_000 + SKEW_MS);
        assert_eq!(end_of(&Map::new()), u64::MAX);
    }

    #[test]
    fn claims_fit_whole_or_by_their_beginning() {
        assert!(has(&json!("acme/shop"), "acme/shop") && !has(&json!("acme/shop2"), "acme/shop"));
        assert!(has(&json!("refs/heads/main"), "refs/heads/*") && !has(&json!("x/refs/heads/"), "refs/heads/*"));
        assert!(has(&json!(["a", "b"]), "b") && !has(&json!([["b"]]), "b") && !has(&json!({"b": 1}), "b"));
        assert!(has(&json!(true), "true") && has(&json!(7), "7") && !has(&Value::Null, "null"));
    }
}
