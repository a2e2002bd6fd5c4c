//! Who may come in: `Authorization: Bearer …`.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::HeaderMap;
use http::header::AUTHORIZATION;
use tokio::time::Instant;

use super::Api;
use super::middleware::ClientAddress;
use super::problem::{Code, Problem};
use crate::identity::credential::SecretHash;

/// Who makes a request: an extension of every request to the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// Identifier, as journal entries name it.
    pub id: Arc<str>,
}

/// Lets the administrator through and tells everybody else why not, without saying which part of a credential was wrong.
pub async fn require_administrator(State(api): State<Api>, mut request: Request, next: Next) -> Response {
    let address = request.extensions().get::<ClientAddress>().copied();
    match identify(&api, request.headers(), address) {
        Ok(principal) => {
            request.extensions_mut().insert(principal);
            next.run(request).await
        }
        Err(problem) => problem.into_response(),
    }
}

fn identify(api: &Api, headers: &HeaderMap, address: Option<ClientAddress>) -> Result<Principal, Problem> {
    if let Some(ClientAddress(address)) = address {
        api.refusals.check(&address, Instant::now()).map_err(|seconds| {
            Problem::new(Code::TooManyRequests, "Too many refused credentials came from this address.")
                .retry_after_s(seconds)
        })?;
    }
    let refused = |detail: &str| {
        if let Some(ClientAddress(address)) = address {
            // Whoever is over the limit hears so at the next request.
            let _ = api.refusals.take(address, Instant::now());
        }
        Problem::new(Code::Unauthorized, detail)
    };
    let token = bearer(headers).ok_or_else(|| refused("Send the header Authorization: Bearer <token>."))?;
    let hash = SecretHash::of(token);
    if api.identity.is_administrator(&hash) {
        return Ok(Principal { id: api.identity.administrator_id() });
    }
    if api.world().sdk_key(&hash.to_hex()).is_some() {
        return Err(Problem::new(
            Code::Forbidden,
            "An SDK key opens /sdk/v1 only; the API takes the administrator token.",
        ));
    }
    Err(refused("The credential is not valid."))
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
}
