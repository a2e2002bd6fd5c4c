//! What an issuer publishes of itself: its discovery document and its keys, fetched when needed and kept for an hour.

use std::sync::Arc;

use jsonwebtoken::jwk::Jwk;
use parking_lot::RwLock;
use serde::Deserialize;

use super::OidcError;
use super::fetch::Fetcher;
use super::jwt::{Keys, Signed, TokenProblem};
use crate::clock::Clock;

/// How long a document is believed, in milliseconds: a key that the issuer withdrew is out of use after that.
const LIFE_MS: u64 = 60 * 60 * 1000;
/// Least time between two looks for a key that is not there, in milliseconds: tokens cost nothing to make up.
const KEY_RETRY_MS: u64 = 30 * 1000;
/// Least time between two tries to reach an issuer that does not answer, in milliseconds.
const FAILURE_RETRY_MS: u64 = 5 * 1000;

/// What of the discovery document is used: OpenID Connect Discovery 3.
#[derive(Deserialize)]
pub(super) struct Metadata {
    issuer: String,
    #[serde(default)]
    pub(super) authorization_endpoint: String,
    #[serde(default)]
    pub(super) token_endpoint: String,
    jwks_uri: String,
    #[serde(default)]
    pub(super) token_endpoint_auth_methods_supported: Vec<String>,
}

/// One issuer.
pub(super) struct Issuer {
    url: String,
    pub(super) fetcher: Fetcher,
    clock: Arc<dyn Clock>,
    cached: RwLock<Cached>,
    /// Held by the one who fetches; the others wait for what comes.
    fetching: tokio::sync::Mutex<Tries>,
}

#[derive(Default)]
struct Cached {
    metadata: Option<Dated<Metadata>>,
    keys: Option<Dated<Keys>>,
}

struct Dated<T> {
    value: Arc<T>,
    at_ms: u64,
}

#[derive(Default)]
struct Tries {
    failed_at_ms: Option<u64>,
    /// When the keys were last asked for, whatever came of it.
    keys_at_ms: Option<u64>,
}

impl<T> Dated<T> {
    fn fresh(&self, now_ms: u64) -> Option<Arc<T>> {
        // A clock that was set back makes nothing older than it is.
        (now_ms.abs_diff(self.at_ms) < LIFE_MS).then(|| Arc::clone(&self.value))
    }
}

impl Issuer {
    /// The issuer at `url`. Nothing is fetched yet.
    pub(super) fn new(url: &str, clock: Arc<dyn Clock>) -> Result<Self, OidcError> {
        let fetcher = Fetcher::new(url)?;
        let (cached, fetching) = (RwLock::default(), tokio::sync::Mutex::default());
        Ok(Self { url: url.to_owned(), fetcher, clock, cached, fetching })
    }

    /// The discovery document.
    pub(super) async fn metadata(&self) -> Result<Arc<Metadata>, OidcError> {
        if let Some(metadata) = self.cached_metadata() {
            return Ok(metadata);
        }
        let mut tries = self.fetching.lock().await;
        if let Some(metadata) = self.cached_metadata() {
            return Ok(metadata);
        }
        self.attempt(&mut tries, self.fetch_metadata()).await
    }

    /// The key that `signed` says it is signed with.
    pub(super) async fn key(&self, signed: &Signed<'_>) -> Result<Jwk, OidcError> {
        if let Some(key) = self.cached_keys().and_then(|keys| keys.find(signed).cloned()) {
            return Ok(key);
        }
        let mut tries = self.fetching.lock().await;
        if let Some(keys) = self.cached_keys() {
            if let Some(key) = keys.find(signed) {
                return Ok(key.clone());
            }
            if tries.keys_at_ms.is_some_and(|at_ms| self.clock.now_ms().abs_diff(at_ms) < KEY_RETRY_MS) {
                return Err(TokenProblem::UnknownKey.into());
            }
        }
        tries.keys_at_ms = Some(self.clock.now_ms());
        let keys = self.attempt(&mut tries, self.fetch_keys()).await?;
        keys.find(signed).cloned().ok_or_else(|| TokenProblem::UnknownKey.into())
    }

    fn cached_metadata(&self) -> Option<Arc<Metadata>> {
        self.cached.read().metadata.as_ref().and_then(|metadata| metadata.fresh(self.clock.now_ms()))
    }

    fn cached_keys(&self) -> Option<Arc<Keys>> {
        self.cached.read().keys.as_ref().and_then(|keys| keys.fresh(self.clock.now_ms()))
    }

    async fn attempt<T>(
        &self,
        tries: &mut Tries,
        fetch: impl Future<Output = Result<T, OidcError>>,
    ) -> Result<T, OidcError> {
        let now_ms = self.clock.now_ms();
        if tries.failed_at_ms.is_some_and(|failed_at_ms| now_ms.abs_diff(failed_at_ms) < FAILURE_RETRY_MS) {
            let problem = "it could not be asked a moment ago".to_owned();
            return Err(OidcError::Unreachable { url: self.url.clone(), problem });
        }
        let fetched = fetch.await;
        tries.failed_at_ms = fetched.is_err().then(|| self.clock.now_ms());
        fetched
    }

    async fn fetch_metadata(&self) -> Result<Arc<Metadata>, OidcError> {
        let url = format!("{}/.well-known/openid-configuration", self.url.trim_end_matches('/'));
        let bad = |problem: &str| OidcError::BadAnswer { url: url.clone(), problem: problem.to_owned() };
        let document = self.fetcher.get(&url).await?;
        let metadata: Metadata =
            serde_json::from_value(document).map_err(|_| bad("the answer is no discovery document"))?;
        if metadata.issuer != self.url {
            return Err(bad("the discovery document is of another issuer"));
        }
        let endpoints = [&metadata.authorization_endpoint, &metadata.token_endpoint, &metadata.jwks_uri];
        // An issuer of machines' tokens has no endpoints for people.
        endpoints.into_iter().filter(|url| !url.is_empty()).try_for_each(|url| self.fetcher.check(url))?;
        let metadata = Arc::new(metadata);
        let at_ms = self.clock.now_ms();
        self.cached.write().metadata = Some(Dated { value: Arc::clone(&metadata), at_ms });
        Ok(metadata)
    }

    async fn fetch_keys(&self) -> Result<Arc<Keys>, OidcError> {
        let metadata = match self.cached_metadata() {
            Some(metadata) => metadata,
            None => self.fetch_metadata().await?,
        };
        let url = metadata.jwks_uri.as_str();
        let keys = Keys::read(&self.fetcher.get(url).await?).ok_or_else(|| OidcError::BadAnswer {
            url: url.to_owned(),
            problem: "the answer is no JWK set".to_owned(),
        })?;
        let keys = Arc::new(keys);
        self.cached.write().keys = Some(Dated { value: Arc::clone(&keys), at_ms: self.clock.now_ms() });
        Ok(keys)
    }
}
