//! Signing in at a provider by authorization code with PKCE, for a client that listens on its own machine (RFC 8252).
//!
//! The client makes the verifier, the server the state and the nonce. The code travels through the client, which alone has
//! the verifier; the token goes from the provider straight to the server.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::Uri;
use jsonwebtoken::crypto::rust_crypto::DEFAULT_PROVIDER;
use jsonwebtoken::jwk::ThumbprintHash;
use parking_lot::Mutex;
use rand::RngExt;
use serde_json::{Map, Value};
use subtle::ConstantTimeEq;

use super::OidcError;
use super::issuer::{Issuer, Metadata};
use super::jwt::{Expected, Signed, TokenProblem, seconds, strings, text, verify};
use super::provider::ProviderConfig;
use crate::clock::Clock;
use crate::identity::credential::SecretHash;

/// How long a person may take at the provider, in milliseconds.
const STATE_LIFE_MS: u64 = 10 * 60 * 1000;
/// Most sign-ins under way at once. One more takes the place of the oldest.
const MAX_STATES: usize = 1000;
/// Longest redirect URI, in bytes.
const MAX_REDIRECT_BYTES: usize = 200;
/// Longest code of a provider, in bytes.
const MAX_CODE_BYTES: usize = 4096;
/// How long ago the person may have signed in at the provider, in seconds. Asking for it makes the provider say when.
const MAX_AGE_S: u64 = 600;
/// Most groups that are taken over, and the longest name of one in bytes.
const MAX_GROUPS: usize = 200;
const MAX_GROUP_BYTES: usize = 256;
/// Authentication methods (RFC 8176) that are, or include, something a person has.
const FACTOR_METHODS: &[&str] = &["mfa", "otp", "hwk", "swk", "fpt"];

/// A sign-in that was begun.
#[derive(Clone, PartialEq, Eq)]
pub struct Started {
    /// Where the person's browser is to go.
    pub authorize_url: String,
    /// What the provider will send back with the code.
    pub state: String,
}

impl fmt::Debug for Started {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Started(…)")
    }
}

/// What the provider says of a person.
#[derive(Clone, PartialEq, Eq)]
pub struct Claims {
    /// The provider's issuer URL.
    pub issuer: String,
    /// The person's id there.
    pub subject: String,
    /// What to call the person.
    pub name: String,
    /// The person's e-mail address, unless the provider says that it is not verified.
    pub email: Option<String>,
    /// The groups the person is in.
    pub groups: Vec<String>,
    /// Whether a second factor was proven there, at some time.
    pub factor: bool,
    /// When, in milliseconds since 1970: when the person signed in there. Unknown where the provider does not say.
    pub factor_at: Option<u64>,
}

/// Names are personal data: logs get ids.
impl fmt::Debug for Claims {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Claims({:?}, …)", self.issuer)
    }
}

/// Signs people in at one provider.
pub struct SignInFlow {
    config: ProviderConfig,
    issuer: Issuer,
    clock: Arc<dyn Clock>,
    pending: Mutex<HashMap<[u8; 32], Pending>>,
}

struct Pending {
    redirect_uri: String,
    challenge: String,
    nonce: String,
    since_ms: u64,
}

impl SignInFlow {
    /// Prepares to sign people in; the provider is not asked yet.
    ///
    /// # Errors
    ///
    /// [`OidcError::BadUrl`] if the issuer's URL is none to ask.
    pub fn new(config: ProviderConfig, clock: Arc<dyn Clock>) -> Result<Self, OidcError> {
        let issuer = Issuer::new(&config.issuer, Arc::clone(&clock))?;
        Ok(Self { config, issuer, clock, pending: Mutex::default() })
    }

    /// The provider's issuer URL.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.config.issuer
    }

    /// Begins a sign-in of a client that listens at `redirect_uri` and keeps the verifier behind `code_challenge` (S256).
    ///
    /// # Errors
    ///
    /// [`OidcError::BadRedirect`], [`OidcError::BadVerifier`]; or if the provider cannot be asked.
    pub async fn start(&self, redirect_uri: &str, code_challenge: &str) -> Result<Started, OidcError> {
        if !is_loopback(redirect_uri) {
            return Err(OidcError::BadRedirect);
        }
        if URL_SAFE_NO_PAD.decode(code_challenge).map_or(0, |hash| hash.len()) != 32 {
            return Err(OidcError::BadVerifier);
        }
        let metadata = self.issuer.metadata().await?;
        if metadata.authorization_endpoint.is_empty() || metadata.token_endpoint.is_empty() {
            let problem = "the discovery document names no endpoints to sign in at".to_owned();
            return Err(OidcError::BadAnswer { url: self.config.issuer.clone(), problem });
        }
        let (state, nonce) = (random_text(), random_text());
        let scopes = ["openid", "email", "profile"].into_iter();
        let scopes: Vec<&str> = scopes.chain(self.config.extra_scopes.iter().map(String::as_str)).collect();
        let query = [
            ("response_type", "code"),
            ("client_id", &self.config.client_id),
            ("redirect_uri", redirect_uri),
            ("scope", &scopes.join(" ")),
            ("state", &state),
            ("nonce", &nonce),
            ("code_challenge", code_challenge),
            ("code_challenge_method", "S256"),
            ("max_age", &MAX_AGE_S.to_string()),
        ];
        let mut authorize_url = metadata.authorization_endpoint.clone();
        for (name, value) in query {
            authorize_url.push(if authorize_url.contains('?') { '&' } else { '?' });
            authorize_url.push_str(&format!("{name}={}", encode(value)));
        }
        let pending = Pending {
            redirect_uri: redirect_uri.to_owned(),
            challenge: code_challenge.to_owned(),
            nonce,
            since_ms: self.clock.now_ms(),
        };
        self.remember(SecretHash::of(&state), pending);
        Ok(Started { authorize_url, state })
    }

    /// Finishes a sign-in with the code that came back, and the client's verifier. Whatever comes of it, the state is used
    /// up.
    ///
    /// # Errors
    ///
    /// [`OidcError`].
    pub async fn finish(&self, state: &str, code: &str, code_verifier: &str) -> Result<Claims, OidcError> {
        let pending = self.pending.lock().remove(SecretHash::of(state).as_bytes());
        let is_current = |pending: &Pending| self.clock.now_ms() < pending.since_ms.saturating_add(STATE_LIFE_MS);
        let pending = pending.filter(is_current).ok_or(OidcError::UnknownState)?;
        // The provider checks it too; one that does not must not make a stolen code worth anything.
        if !is_verifier_of(code_verifier, &pending.challenge) {
            return Err(OidcError::BadVerifier);
        }
        if code.is_empty() || code.len() > MAX_CODE_BYTES {
            return Err(OidcError::CodeRefused { error: "no code".to_owned() });
        }
        let metadata = self.issuer.metadata().await?;
        let token = self.redeem(&metadata, &pending.redirect_uri, code, code_verifier).await?;
        let signed = Signed::read(&token)?;
        let key = self.issuer.key(&signed).await?;
        let (issuer, audience) = (self.config.issuer.as_str(), self.config.client_id.as_str());
        let expected = Expected { issuer, audience, nonce: Some(&pending.nonce) };
        let claims = verify(&signed, &key, &expected, self.clock.now_ms())?;
        self.read(&claims)
    }

    fn remember(&self, state: SecretHash, new: Pending) {
        let mut pending = self.pending.lock();
        pending.retain(|_, other| new.since_ms < other.since_ms.saturating_add(STATE_LIFE_MS));
        if pending.len() >= MAX_STATES {
            let oldest = pending.iter().min_by_key(|(_, other)| other.since_ms).map(|(state, _)| *state);
            oldest.map(|oldest| pending.remove(&oldest));
        }
        pending.insert(*state.as_bytes(), new);
    }

    /// Buys the identity token for a code: RFC 6749, 4.1.3.
    async fn redeem(
        &self,
        metadata: &Metadata,
        redirect_uri: &str,
        code: &str,
        code_verifier: &str,
    ) -> Result<String, OidcError> {
        let mut form = vec![
            ("grant_type", "authorization_code".to_owned()),
            ("code", code.to_owned()),
            ("redirect_uri", redirect_uri.to_owned()),
            ("code_verifier", code_verifier.to_owned()),
        ];
        let mut authorization = None;
        let methods = &metadata.token_endpoint_auth_methods_supported;
        let basic = methods.is_empty() || methods.iter().any(|method| method == "client_secret_basic");
        match &self.config.client_secret {
            Some(secret) if basic => {
                let pair = format!("{}:{}", encode(&self.config.client_id), encode(secret.reveal()));
                authorization = Some(format!("Basic {}", STANDARD.encode(pair)));
            }
            Some(secret) => {
                form.push(("client_id", self.config.client_id.clone()));
                form.push(("client_secret", secret.reveal().to_owned()));
            }
            None => form.push(("client_id", self.config.client_id.clone())),
        }
        let url = metadata.token_endpoint.as_str();
        let answer = self.issuer.fetcher.post_form(url, form, authorization).await?;
        if answer.status != 200 {
            return Err(OidcError::CodeRefused { error: error_word(&answer.document, answer.status) });
        }
        let token = answer.document.get("id_token").and_then(Value::as_str).map(str::to_owned);
        let problem = "the answer has no id_token".to_owned();
        token.ok_or_else(|| OidcError::BadAnswer { url: url.to_owned(), problem })
    }

    /// What verified claims say of a person.
    fn read(&self, claims: &Map<String, Value>) -> Result<Claims, OidcError> {
        let subject = text(claims, "sub").ok_or(TokenProblem::Claim("sub"))?;
        let email_verified = claims.get("email_verified").and_then(Value::as_bool);
        let email = text(claims, "email").filter(|_| email_verified != Some(false));
        // Membership is decided by an address only if the provider vouches for it.
        if !self.config.admits(email.filter(|_| email_verified == Some(true))) {
            return Err(OidcError::EmailDomain);
        }
        let name = ["name", "preferred_username"].into_iter().find_map(|name| text(claims, name)).or(email);
        let groups = strings(claims.get(&self.config.groups_claim)).into_iter();
        let groups = groups.filter(|group| !group.is_empty() && group.len() <= MAX_GROUP_BYTES);
        let by_method = strings(claims.get("amr")).iter().any(|method| FACTOR_METHODS.contains(method));
        let by_class = text(claims, "acr").is_some_and(|acr| self.config.factor_classes.iter().any(|one| one == acr));
        let factor = by_method || by_class;
        let signed_in_at = seconds(claims, "auth_time")?.map(|seconds| seconds.saturating_mul(1000));
        Ok(Claims {
            issuer: self.config.issuer.clone(),
            subject: subject.to_owned(),
            name: name.unwrap_or(subject).to_owned(),
            email: email.map(str::to_owned),
            groups: groups.take(MAX_GROUPS).map(str::to_owned).collect(),
            factor,
            factor_at: signed_in_at.filter(|_| factor),
        })
    }
}

impl fmt::Debug for SignInFlow {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SignInFlow").field("config", &self.config).finish_non_exhaustive()
    }
}

/// Whether `uri` is where a program on the person's own machine listens. Names are not: they may resolve to anywhere.
fn is_loopback(uri: &str) -> bool {
    let odd = |byte: u8| !byte.is_ascii_graphic() || matches!(byte, b'#' | b'?' | b'\\' | b'"' | b'<' | b'>');
    if uri.len() > MAX_REDIRECT_BYTES || uri.bytes().any(odd) {
        return false;
    }
    let Ok(parsed) = uri.parse::<Uri>() else { return false };
    let Some(authority) = parsed.authority() else { return false };
    let port = authority.port_u16().filter(|port| *port > 0);
    let exact = port.is_some_and(|port| {
        ["127.0.0.1", "[::1]"].iter().any(|host| uri.starts_with(&format!("http://{host}:{port}/")))
    });
    exact && parsed.scheme_str() == Some("http")
}

/// Whether the SHA-256 of `verifier` is `challenge`: RFC 7636, 4.6.
fn is_verifier_of(verifier: &str, challenge: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    let equal = challenge_of(verifier).is_some_and(|own| own.as_bytes().ct_eq(challenge.as_bytes()).into());
    (43..=128).contains(&verifier.len()) && verifier.bytes().all(allowed) && equal
}

/// The challenge of a verifier: RFC 7636, 4.2, with S256.
#[must_use]
pub fn challenge_of(verifier: &str) -> Option<String> {
    let hash = (DEFAULT_PROVIDER.key_utils.compute_digest)(verifier.as_bytes(), ThumbprintHash::SHA256);
    hash.ok().map(|hash| URL_SAFE_NO_PAD.encode(hash))
}

/// A new PKCE verifier, state or nonce: 256 random bits.
#[must_use]
pub fn random_text() -> String {
    let bytes: [u8; 32] = rand::rng().random();
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Percent-encodes everything but RFC 3986's unreserved characters.
fn encode(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
        encoded
    })
}

/// The provider's word for an error, if it is a word: what else it says may hold anything.
fn error_word(document: &Value, status: u16) -> String {
    let is_word = |word: &&str| {
        (1..=40).contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
    };
    let word = document.get("error").and_then(Value::as_str).filter(is_word);
    word.map_or_else(|| format!("status {status}"), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_goes_to_the_persons_own_machine() {
        for uri in ["http://127.0.0.1:49152/", "http://[::1]:8080/callback", "http://127.0.0.1:1/a/b"] {
            assert!(is_loopback(uri), "{uri}");
        }
        for uri in [
            "",
            "https://127.0.0.1:1/",
            "http://127.0.0.1/",
            "http://127.0.0.1:0/",
            "http://127.0.0.1:80",
            "http://localhost:1/",
            "http://evil.example:1/",
            "http://127.0.0.1:1@evil.example/",
            "http://evil.example@127.0.0.1:1/",
            "http://127.0.0.1:1.evil.example/",
            "http://127.0.0.2:1/",
            "http://127.0.0.1:1/?x=http://evil.example",
            "http://127.0.0.1:1/#x",
            "http://127.0.0.1:1\\@evil.example/",
            "HTTP://127.0.0.1:1/ ",
            "javascript:alert(1)",
        ] {
            assert!(!is_loopback(uri), "{uri}");
        }
    }

    #[test]
    fn the_example_of_rfc_7636_holds() {
        let (verifier, challenge) =
            ("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk", "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
        assert!(is_verifier_of(verifier, challenge));
        assert!(!is_verifier_of(&verifier.replace('d', "e"), challenge));
        assert!(!is_verifier_of("", challenge) && !is_verifier_of(verifier, ""));
    }

    #[test]
    fn only_a_word_of_a_providers_error_is_passed_on() {
        assert_eq!(error_word(&serde_json::json!({"error": "invalid_grant"}), 400), "invalid_grant");
        for error in ["", "Bad <script>", &"x".repeat(41)] {
            assert_eq!(error_word(&serde_json::json!({ "error": error }), 400), "status 400");
        }
    }
}
