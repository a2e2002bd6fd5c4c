//! Identity tokens of machines (CI jobs above all), which buy tokens of ours.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use serde_json::{Map, Value};

use super::OidcError;
use super::issuer::Issuer;
use super::jwt::{Expected, MAX_TOKEN_BYTES, Signed, verify};
use crate::clock::Clock;

/// Issuers remembered at once. One more takes the place of any other, which is then asked again.
const MAX_ISSUERS: usize = 64;

/// Verifies tokens of the issuers that the installation trusts. Which those are is the caller's to know.
pub struct TrustedIssuers {
    clock: Arc<dyn Clock>,
    issuers: Mutex<HashMap<String, Arc<Issuer>>>,
}

impl TrustedIssuers {
    /// One that has asked nobody yet.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, issuers: Mutex::default() }
    }

    /// The claims of `token`, if `issuer` signed it for `audience` and it is valid now. `issuer` must be one that the
    /// installation trusts, never one that only the token names: it is asked for its keys.
    ///
    /// # Errors
    ///
    /// [`OidcError`].
    pub async fn verify_for_exchange(
        &self,
        token: &str,
        issuer: &str,
        audience: &str,
    ) -> Result<Map<String, Value>, OidcError> {
        let signed = Signed::read(token)?;
        let key = self.issuer(issuer)?.key(&signed).await?;
        let expected = Expected { issuer, audience, nonce: None };
        Ok(verify(&signed, &key, &expected, self.clock.now_ms())?)
    }

    fn issuer(&self, url: &str) -> Result<Arc<Issuer>, OidcError> {
        let mut issuers = self.issuers.lock();
        if let Some(issuer) = issuers.get(url) {
            return Ok(Arc::clone(issuer));
        }
        let issuer = Arc::new(Issuer::new(url, Arc::clone(&self.clock))?);
        if issuers.len() >= MAX_ISSUERS {
            let other = issuers.keys().next().cloned();
            other.map(|other| issuers.remove(&other));
        }
        issuers.insert(url.to_owned(), Arc::clone(&issuer));
        Ok(issuer)
    }
}

/// The issuer that a token names. Nothing of it is believed yet: it says whose keys to look the signature up in.
#[must_use]
pub fn claimed_issuer(token: &str) -> Option<String> {
    let mut parts = token.split('.');
    let (_, payload) = (parts.next()?, parts.next().filter(|_| token.len() <= MAX_TOKEN_BYTES)?);
    let claims: Map<String, Value> = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
    claims.get("iss")?.as_str().map(str::to_owned)
}

impl fmt::Debug for TrustedIssuers {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "TrustedIssuers({})", self.issuers.lock().len())
    }
}
